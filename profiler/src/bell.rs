//! Wakes a thread that sleeps: an event counter of the kernel's, and a sleep on several descriptors.
//!
//! In: [`Bell::ring`] on any thread. Out: the sleeper's [`sleep`] ends. Ringing twice before it has woken wakes once.

use std::io;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// A bell.
#[derive(Debug)]
pub struct Bell {
    fd: OwnedFd,
    rung: AtomicBool,
}

impl Bell {
    /// One that nobody has rung.
    ///
    /// # Errors
    /// When no descriptor is left.
    pub fn new() -> io::Result<Self> {
        // SAFETY: eventfd has no preconditions.
        let fd = match unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) } {
            -1 => return Err(io::Error::last_os_error()),
            // SAFETY: it has just been made, and nobody else knows it.
            fd => unsafe { OwnedFd::from_raw_fd(fd) },
        };
        Ok(Self { fd, rung: AtomicBool::new(false) })
    }

    /// Wakes the sleeper, or lets its next sleep end at once.
    pub fn ring(&self) {
        if !self.rung.swap(true, Ordering::AcqRel) {
            let one = 1u64;
            // SAFETY: the descriptor is open, and eight bytes are read. It cannot overflow: the sleeper takes each.
            unsafe { libc::write(self.fd.as_raw_fd(), (&raw const one).cast(), size_of::<u64>()) };
        }
    }

    /// The sleeper is awake: what it is rung for from here on wakes it again.
    pub fn heard(&self) {
        let mut count = 0u64;
        // SAFETY: the descriptor is open, and there is room for eight bytes; it does not block.
        unsafe { libc::read(self.fd.as_raw_fd(), (&raw mut count).cast(), size_of::<u64>()) };
        // A swap, so that who finds the bell rung has said before what for.
        self.rung.swap(false, Ordering::AcqRel);
    }
}

impl AsFd for Bell {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// Sleeps until something can be read of one of the descriptors, a signal comes, or the time is over.
///
/// # Errors
/// When they cannot be waited for.
pub fn sleep(on: &[BorrowedFd<'_>], at_most: Duration) -> io::Result<()> {
    let watched = |fd: &BorrowedFd<'_>| libc::pollfd { fd: fd.as_raw_fd(), events: libc::POLLIN, revents: 0 };
    let mut on: Vec<libc::pollfd> = on.iter().map(watched).collect();
    // Rounded up: a sleep that ends just before its time is slept again.
    let milliseconds = i32::try_from(at_most.as_micros().div_ceil(1000)).unwrap_or(i32::MAX);
    // SAFETY: the array lives through the call, which is given its length.
    match unsafe { libc::poll(on.as_mut_ptr(), on.len() as libc::nfds_t, milliseconds) } {
        -1 if io::Error::last_os_error().kind() != io::ErrorKind::Interrupted => {
            Err(io::Error::last_os_error())
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Instant;

    const LONG: Duration = Duration::from_secs(20);

    #[test]
    fn a_bell_wakes_whoever_sleeps_and_once_for_many_rings() {
        let bell = Bell::new().unwrap();
        let start = Instant::now();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                std::thread::sleep(Duration::from_millis(30));
                (0..1000).for_each(|_| bell.ring());
            });
            sleep(&[bell.as_fd()], LONG).unwrap();
        });
        assert!(start.elapsed() < LONG / 2);
        bell.heard();
        let start = Instant::now();
        sleep(&[bell.as_fd()], Duration::from_millis(30)).unwrap();
        assert!(start.elapsed() >= Duration::from_millis(30), "it was heard");
        bell.ring();
        sleep(&[bell.as_fd()], LONG).unwrap();
        assert!(start.elapsed() < LONG / 2, "one that rang before the sleep ends it");
    }
}
