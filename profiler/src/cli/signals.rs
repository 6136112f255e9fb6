//! Signals → flags. In: signals of whoever runs the program. Out: flags that its loops look at; a handler does no more.

use std::sync::atomic::{AtomicBool, Ordering};

/// A signal with a flag of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// SIGHUP.
    HangUp,
    /// SIGUSR1.
    User1,
    /// SIGUSR2.
    User2,
}

static STOP: AtomicBool = AtomicBool::new(false);
static HANG_UP: AtomicBool = AtomicBool::new(false);
static USER_1: AtomicBool = AtomicBool::new(false);
static USER_2: AtomicBool = AtomicBool::new(false);

/// Set by the first SIGINT or SIGTERM, which ends the work in order; the second one ends the program.
pub fn ends() -> &'static AtomicBool {
    [libc::SIGINT, libc::SIGTERM].into_iter().for_each(|signal| handle(signal, libc::SA_RESETHAND));
    &STOP
}

/// Set by each such signal; whoever acts upon it takes it back.
pub fn flag(signal: Signal) -> &'static AtomicBool {
    let number = match signal {
        Signal::HangUp => libc::SIGHUP,
        Signal::User1 => libc::SIGUSR1,
        Signal::User2 => libc::SIGUSR2,
    };
    handle(number, 0);
    of(number)
}

fn of(signal: libc::c_int) -> &'static AtomicBool {
    match signal {
        libc::SIGHUP => &HANG_UP,
        libc::SIGUSR1 => &USER_1,
        libc::SIGUSR2 => &USER_2,
        _ => &STOP,
    }
}

fn handle(signal: libc::c_int, flags: libc::c_int) {
    extern "C" fn handler(signal: libc::c_int) {
        of(signal).store(true, Ordering::Release);
    }
    // SAFETY: an all-zero sigaction is valid; the handler only stores to an atomic, which is async-signal-safe;
    // SA_RESETHAND restores the default action for a second signal.
    unsafe {
        let mut action = std::mem::zeroed::<libc::sigaction>();
        action.sa_sigaction = handler as *const () as usize;
        action.sa_flags = flags | libc::SA_RESTART;
        libc::sigaction(signal, &action, std::ptr::null_mut());
    }
}
