//! SIGTERM, SIGINT and SIGHUP, received by a thread that waits for them.
//!
//! They are blocked in every thread and received by `sigwait` (POSIX), so there is no handler.
//! It works as process 1 too: the kernel drops its signals with a default action, but not those
//! that are blocked (kernel/signal.c, `sig_ignored`).
//!
//! SIGHUP stays ignored under nohup(1), and SIGINT in a command that a script runs in the
//! background (POSIX, shell command language, 2.11): such a process is to outlive the terminal.

use std::io;
use std::mem::MaybeUninit;

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
                if signal == libc::SIGTERM || !is_ignored(signal) {
                    libc::sigaddset(set.as_mut_ptr(), signal);
                }
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

/// Whether the process that started this one had the signal ignored, which exec(2) keeps.
#[allow(unsafe_code)]
fn is_ignored(signal: libc::c_int) -> bool {
    let mut action = MaybeUninit::<libc::sigaction>::uninit();
    // SAFETY: without a new action, sigaction(2) only writes the present one, which outlives
    // the call; where it says that it did, the action is initialized.
    unsafe {
        libc::sigaction(signal, std::ptr::null(), action.as_mut_ptr()) == 0
            && action.assume_init().sa_sigaction == libc::SIG_IGN
    }
}
