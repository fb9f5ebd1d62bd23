//! SIGTERM, SIGINT and SIGHUP, taken by a thread that waits for them.
//!
//! They are blocked in every thread and received by `sigwait` (POSIX): no handler runs in the
//! middle of anything. It works as process 1 too, whose signals with a default action the
//! kernel drops, but not those that are blocked (kernel/signal.c, `sig_ignored`).

use std::io;
use std::mem::MaybeUninit;
use std::time::Duration;

pub struct Signals(libc::sigset_t);

impl Signals {
    /// Blocks the signals in this thread and in all that it will start. Call it first.
    #[allow(unsafe_code)]
    pub fn block() -> io::Result<Signals> {
        let mut set = MaybeUninit::uninit();
        // SAFETY: `sigemptyset` initializes the set before anything reads it, and the other
        // calls get a pointer to that set, which outlives them.
        let (set, error) = unsafe {
            libc::sigemptyset(set.as_mut_ptr());
            for signal in [libc::SIGTERM, libc::SIGINT, libc::SIGHUP] {
                libc::sigaddset(set.as_mut_ptr(), signal);
            }
            let set = set.assume_init();
            let error = libc::pthread_sigmask(libc::SIG_BLOCK, &set, std::ptr::null_mut());
            (set, error)
        };
        match error {
            0 => Ok(Signals(set)),
            error => Err(io::Error::from_raw_os_error(error)),
        }
    }

    /// Waits for the next of the signals for at most this long, and gives its number.
    #[allow(unsafe_code)]
    pub fn wait_for(&self, time: Duration) -> Option<i32> {
        // SAFETY: zero is a valid value for both of its numbers.
        let mut limit: libc::timespec = unsafe { MaybeUninit::zeroed().assume_init() };
        limit.tv_sec = time.as_secs() as _;
        limit.tv_nsec = time.subsec_nanos() as _;
        // SAFETY: the pointers are to values that outlive the call, and null is allowed for
        // the details, which are not wanted.
        let signal = unsafe { libc::sigtimedwait(&self.0, std::ptr::null_mut(), &limit) };
        (signal > 0).then_some(signal)
    }

    /// Waits for the next of the signals and gives its number.
    #[allow(unsafe_code)]
    pub fn wait(&self) -> i32 {
        let mut signal = 0;
        // SAFETY: both pointers are to values that outlive the call. It fails only for an
        // invalid set, which `block` does not make.
        unsafe { libc::sigwait(&self.0, &mut signal) };
        signal
    }
}
