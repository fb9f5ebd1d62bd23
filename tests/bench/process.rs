//! What the kernel says of another process: processor time, memory, descriptors, threads.

use std::fs;
use std::time::Duration;

/// At one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    pub resident_kib: u64,
    pub peak_kib: u64,
    pub descriptors: usize,
    pub threads: u64,
}

/// Processor time of all threads, of those that ended too, to the nanosecond. /proc has it in
/// hundredths of a second alone.
pub fn cpu_time(process_id: u32) -> Duration {
    let (mut clock, mut time) = (
        0,
        libc::timespec {
            tv_sec: 0,
            tv_nsec: 0,
        },
    );
    // SAFETY: both calls write to the one variable that they are given.
    let is_read = unsafe {
        clock_of(process_id as libc::pid_t, &mut clock) == 0
            && libc::clock_gettime(clock, &mut time) == 0
    };
    assert!(is_read, "process {process_id} has ended");
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

#[cfg(target_os = "linux")]
use libc::clock_getcpuclockid as clock_of;

/// The benchmark compiles elsewhere, and says there that it needs Linux.
#[cfg(not(target_os = "linux"))]
unsafe fn clock_of(_: libc::pid_t, _: &mut libc::clockid_t) -> i32 {
    panic!("the benchmark needs Linux: it reads /proc")
}

pub fn usage(process_id: u32) -> Usage {
    let status = fs::read_to_string(format!("/proc/{process_id}/status"));
    let status = status.expect("a process that runs");
    let number = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        let word = line.and_then(|rest| rest.split_whitespace().next());
        word.and_then(|word| word.parse().ok()).unwrap_or(0)
    };
    let descriptors = fs::read_dir(format!("/proc/{process_id}/fd"));
    Usage {
        resident_kib: number("VmRSS:"),
        peak_kib: number("VmHWM:"),
        descriptors: descriptors.map_or(0, Iterator::count),
        threads: number("Threads:"),
    }
}
