//! What the kernel says of this process, for the customary `process_*` metrics.
//!
//! Two files of /proc and the size of a directory, read anew for each scrape: on a machine
//! without a battery-backed clock even the start time moves, when the clock is set after boot.
//! To keep the files open would save 10 to 20 µs of the 230 that a cached scrape costs at least.
//! What cannot be read is left out, which is all of it where there is no /proc as Linux has it
//! but for the limit of descriptors; nothing here fails or logs.

use std::fs;
use std::time::Duration;

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Process {
    /// Spent by all threads, in user mode and in the kernel.
    pub cpu_time: Option<Duration>,
    pub resident_memory_bytes: Option<u64>,
    pub virtual_memory_bytes: Option<u64>,
    pub open_fds: Option<u64>,
    /// Absent where there is no limit.
    pub max_fds: Option<u64>,
    pub threads: Option<u64>,
    /// Since the Unix epoch, by the clock as it is set now.
    pub start_time: Option<Duration>,
}

impl Process {
    /// The figures of this process.
    pub fn read() -> Process {
        let stat = fs::read("/proc/self/stat").unwrap_or_default();
        // A process can give itself a name that is not UTF-8; no figure depends on it.
        let stat = String::from_utf8_lossy(&stat);
        let system = fs::read_to_string("/proc/stat").unwrap_or_default();
        let (ticks, page) = (setting(libc::_SC_CLK_TCK), setting(libc::_SC_PAGESIZE));
        Process {
            open_fds: count_open_fds(),
            max_fds: max_fds(),
            ..Process::of_stat(&stat, parse_boot_time(&system), ticks, page)
        }
    }

    /// From the text of /proc/self/stat. Field numbers are those of proc(5), from 1.
    fn of_stat(
        text: &str,
        boot_time: Option<Duration>,
        ticks_per_second: Option<u32>,
        page_bytes: Option<u32>,
    ) -> Process {
        // The second field is the command in parentheses, and may hold spaces and parentheses.
        let after_command = text.rsplit_once(')').map_or("", |(_, rest)| rest);
        let fields: Vec<&str> = after_command.split_ascii_whitespace().collect();
        let field = |number: usize| fields.get(number - 3)?.parse::<u64>().ok();
        let duration = |ticks| Some(Duration::from_secs(ticks) / ticks_per_second?);
        let cpu_ticks = || field(14)?.checked_add(field(15)?);
        let resident_bytes = || field(24)?.checked_mul(page_bytes?.into());
        let start_time = || boot_time?.checked_add(duration(field(22)?)?);
        Process {
            cpu_time: cpu_ticks().and_then(duration),
            resident_memory_bytes: resident_bytes(),
            virtual_memory_bytes: field(23),
            threads: field(20),
            start_time: start_time(),
            ..Process::default()
        }
    }
}

/// Linux 6.2 and newer tell the number as the directory's size (proc_pid_fd(5)): to list it takes
/// a tenth of what a cached scrape does.
fn count_open_fds() -> Option<u64> {
    match fs::metadata("/proc/self/fd").ok()?.len() {
        0 => count_listed_fds(),
        count => Some(count),
    }
}

fn count_listed_fds() -> Option<u64> {
    let entries = fs::read_dir("/proc/self/fd").ok()?;
    // One of them is the directory that is being read.
    (entries.count() as u64).checked_sub(1)
}

/// The soft limit of open files; none where there is no limit, or where it cannot be read.
#[allow(unsafe_code)]
pub fn max_fds() -> Option<u64> {
    let [rlim_cur, rlim_max] = [libc::RLIM_INFINITY; 2];
    let mut limits = libc::rlimit { rlim_cur, rlim_max };
    // SAFETY: getrlimit(2) writes to the limits, which outlive the call, and nothing else.
    let soft_limit = unsafe {
        libc::getrlimit(libc::RLIMIT_NOFILE, &mut limits);
        limits.rlim_cur
    };
    (soft_limit != libc::RLIM_INFINITY).then_some(soft_limit as u64)
}

/// A constant of this machine (sysconf(3)).
#[allow(unsafe_code)]
fn setting(name: libc::c_int) -> Option<u32> {
    // SAFETY: it takes no pointer, and does nothing for a name that it does not know.
    let value = unsafe { libc::sysconf(name) };
    // Zero would be no size and no rate.
    u32::try_from(value).ok().filter(|value| *value > 0)
}

/// When the machine booted, since the epoch: the line `btime` of /proc/stat.
fn parse_boot_time(text: &str) -> Option<Duration> {
    let seconds = text.lines().find_map(|line| line.strip_prefix("btime "))?;
    seconds.trim().parse().ok().map(Duration::from_secs)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// From a real process; the command differs from test to test.
    fn stat_text(command: &str) -> String {
        format!(
            "11087 ({command}) R 11073 11073 7250 0 -1 4194304 97 0 0 0 215 38 0 0 20 0 5 0 155687 \
             3133440 360 18446744073709551615 94734153949184 94734153969065 140736339314672 0 0 0 \
             0 0 0 0 0 0 17 0 0 0 0 0 0 94734153985072 94734153986688 94734930247680 0 0 0 0 0\n"
        )
    }

    #[track_caller]
    fn check_stat(text: &str, expected: Process) {
        let boot_time = Some(Duration::from_secs(1_000_000));
        let actual = Process::of_stat(text, boot_time, Some(100), Some(4096));
        assert_eq!(actual, expected, "{text}");
    }

    #[test]
    fn figures_are_found_whatever_the_command_is_called() {
        for command in ["cat", "a b", "a) R 1 2 (b", ")", "", "(((", "\u{fffd}\n"] {
            let expected = Process {
                cpu_time: Some(Duration::from_millis(2_530)),
                threads: Some(5),
                start_time: Some(Duration::from_millis(1_001_556_870)),
                virtual_memory_bytes: Some(3_133_440),
                resident_memory_bytes: Some(360 * 4096),
                ..Process::default()
            };
            check_stat(&stat_text(command), expected);
        }
    }

    #[test]
    fn a_figure_that_is_missing_or_no_number_costs_itself_alone() {
        for text in ["", "1 (cat", "1 (cat)"] {
            check_stat(text, Process::default());
        }
        let text = "1 (x) R 4 5 6 7 8 9 10 11 12 13 14 -1 16 17 18 19 2 21 2200";
        let expected = Process {
            threads: Some(2),
            start_time: Some(Duration::from_secs(1_000_022)),
            ..Process::default()
        };
        check_stat(text, expected);
    }

    #[test]
    fn boot_time_stands_in_a_line_of_its_own() {
        let text = "cpu  1 2 3\nintr 99 0 7\nctxt 5\nbtime 1700000000\nprocesses 3\n";
        let expected = Some(Duration::from_secs(1_700_000_000));
        assert_eq!(parse_boot_time(text), expected);
        assert_eq!(parse_boot_time("ctxt 5\n"), None);
        assert_eq!(parse_boot_time("btime x\n"), None);
    }

    #[track_caller]
    fn check_cpu_time(ticks: u64, ticks_per_second: u32, expected: Duration) {
        let text = format!("1 (x) R 4 5 6 7 8 9 10 11 12 13 {ticks} 0");
        let process = Process::of_stat(&text, None, Some(ticks_per_second), None);
        assert_eq!(process.cpu_time, Some(expected));
    }

    #[test]
    fn ticks_become_an_exact_duration() {
        check_cpu_time(253, 100, Duration::from_millis(2530));
        check_cpu_time(1023, 1024, Duration::new(0, 999_023_437));
        check_cpu_time(u64::MAX, 1, Duration::from_secs(u64::MAX));
    }

    #[test]
    fn this_very_process_has_every_figure() {
        let process = Process::read();
        assert!(process.cpu_time.is_some());
        assert!(process.resident_memory_bytes.is_some_and(|n| n > 100_000));
        assert!(process.virtual_memory_bytes >= process.resident_memory_bytes);
        assert!(process.open_fds.is_some_and(|n| n >= 3));
        assert!(count_listed_fds().is_some_and(|n| n >= 3));
        assert!(process.threads.is_some_and(|n| n >= 1));
        let limits = fs::read_to_string("/proc/self/limits").expect("/proc");
        let limit = process
            .max_fds
            .map_or("unlimited".to_owned(), |n| n.to_string());
        assert!(
            limits.contains(&format!("Max open files            {limit:<20} ")),
            "{limits}"
        );
        let since_epoch = std::time::UNIX_EPOCH.elapsed().expect("a clock after 1970");
        let age = since_epoch.checked_sub(process.start_time.expect("a start"));
        // The boot time is in whole seconds, so the start may be a second off either way.
        assert!(age.is_none_or(|age| age < Duration::from_secs(3600)));
    }
}
