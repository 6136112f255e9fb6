//! Names that the driver is asked for: the handle it gave and the name, copied while it is certainly in memory.

use profiler_common::{
    cookie::Cookie,
    event::{NAME_CLASSES, Named, kind},
};

use crate::emit::{Tally, Task};

/// Sends a name in the smallest record that holds it; one that none holds is cut and says so.
#[inline(always)]
pub fn send(tally: Tally, task: Task, cookie: Cookie, handle: u64, name: u64) {
    const SMALL: usize = NAME_CLASSES[0];
    const MIDDLE: usize = NAME_CLASSES[1];
    const LARGE: usize = NAME_CLASSES[2];
    let head =
        |len, cut| Named { head: task.head(kind::NAMED, cookie.api, 0), handle, len, cut: u32::from(cut) };
    let sent = tally.send_text::<Named, SMALL>(name, false, head)
        || tally.send_text::<Named, MIDDLE>(name, false, head);
    if !sent {
        tally.send_text::<Named, LARGE>(name, true, head);
    }
}
