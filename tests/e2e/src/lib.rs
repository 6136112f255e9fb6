//! Tools of the tests that attach for real: programs on the stand-in libraries go in, and what everybody counted
//! comes out: the profiler in its files, the stand-ins in their log, the server and its client in theirs.
//!
//! Absent: the comparisons. They are the tests.

pub mod agent;
pub mod calls;
pub mod code;
pub mod metrics;
pub mod nvcc;
pub mod observation;
pub mod otlp;
pub mod program;
pub mod recording;
pub mod sockets;
pub mod stage;
pub mod summary;
pub mod wait;

pub use agent::Agent;
pub use calls::Calls;
pub use metrics::Metrics;
pub use observation::{Observation, Report};
pub use otlp::Span;
pub use sockets::Sockets;
pub use stage::Stage;
pub use summary::Summary;

use std::io;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// One observed program on two cores at a time: the next would disturb its times.
static ALONE: Mutex<()> = Mutex::new(());

/// Waits until no other test of this process runs.
pub fn alone() -> MutexGuard<'static, ()> {
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Why nothing can be attached here, if so. Asks the kernel, not the program under test.
#[must_use]
pub fn cannot_attach() -> Option<String> {
    // SAFETY: geteuid has no arguments and always succeeds.
    if unsafe { libc::geteuid() } != 0 {
        return Some("attaching needs root".to_owned());
    }
    make_map().err().map(|error| format!("the kernel lets nobody use BPF here: {error}"))
}

/// Makes the smallest of BPF maps and lets go of it.
fn make_map() -> io::Result<()> {
    const BPF_MAP_CREATE: libc::c_int = 0;
    const BPF_MAP_TYPE_ARRAY: u32 = 2;
    // map_type, key_size, value_size, max_entries (union bpf_attr of linux/bpf.h).
    let attributes: [u32; 4] = [BPF_MAP_TYPE_ARRAY, 4, 4, 1];
    // SAFETY: the kernel reads as many bytes as it is told of an array that lives through the call.
    let fd = unsafe {
        libc::syscall(libc::SYS_bpf, BPF_MAP_CREATE, attributes.as_ptr(), std::mem::size_of_val(&attributes))
    };
    let fd = libc::c_int::try_from(fd).unwrap_or(-1);
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the descriptor is ours and used by nobody else.
    unsafe { libc::close(fd) };
    Ok(())
}

/// Ends a test early, saying why, where nothing can be attached.
#[macro_export]
macro_rules! or_skip {
    () => {
        if let Some(reason) = $crate::cannot_attach() {
            println!("skipped: {reason}");
            return;
        }
        let _alone = $crate::alone();
    };
}
