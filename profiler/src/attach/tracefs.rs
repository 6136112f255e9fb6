//! Tracepoint ids are read from tracefs, which some machines do not mount.

use std::ffi::CStr;
use std::path::Path;

/// Where the kernel's documentation puts it.
const PLACE: &CStr = c"/sys/kernel/tracing";

/// Makes tracefs readable. Where nobody has mounted it, it is mounted in a mount namespace of our own, so that the
/// machine stays as it was; call it before other threads exist, since they would not share that namespace.
pub fn ensure_tracefs() {
    let has_events = |place: &str| Path::new(place).join("events/sched").exists();
    if has_events("/sys/kernel/tracing") || has_events("/sys/kernel/debug/tracing") {
        return;
    }
    if let Err(error) = mount() {
        tracing::warn!(%error, "tracefs is not mounted at /sys/kernel/tracing and could not be");
    }
}

fn mount() -> std::io::Result<()> {
    let done = |result: libc::c_int| if result == 0 { Ok(()) } else { Err(std::io::Error::last_os_error()) };
    // SAFETY: plain system calls on constant strings; null stands for "no data" and "no source" as mount(2) has it.
    unsafe {
        done(libc::unshare(libc::CLONE_NEWNS))?;
        let private = libc::MS_REC | libc::MS_PRIVATE;
        done(libc::mount(std::ptr::null(), c"/".as_ptr(), std::ptr::null(), private, std::ptr::null()))?;
        let tracefs = c"tracefs".as_ptr();
        done(libc::mount(tracefs, PLACE.as_ptr(), tracefs, 0, std::ptr::null()))
    }
}
