//! What the engine gives its workers: a chunk of the ring in shared memory → the members of a step.
//!
//! In: a slot's bytes, as they were when the workers were notified. Out: how many tokens each request has in the step.
//! A chunk is a pickled call, `("execute_model", (SchedulerOutput,), {}, rank)`; attributes have names, so versions
//! matter little. Layouts (vLLM, `vllm/distributed/device_communicators/shm_broadcast.py`): a flag, then the pickle
//! (to 0.10); a flag, the number of buffers, then each with its length (from 0.12).

use super::message::Why;
use crate::server::codec::pickle::{End, Tree, Value, looks_like};

/// The flag says that the message did not fit, and went by socket.
const OVERFLOW: u8 = 1;

/// Flag and number of buffers, and the length of the first.
const HEAD: usize = 7;

/// `SchedulerOutput`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Schedule<'a> {
    /// Requests in the step, and their tokens.
    pub members: Vec<(&'a str, u32)>,
    /// Requests that lost their place to it.
    pub preempted: Vec<&'a str>,
    /// All members were copied.
    pub is_whole: bool,
}

/// Reads a chunk; `None` if it is none that makes a step.
///
/// # Errors
/// Why what should make a step cannot be read.
pub fn schedule(chunk: &[u8]) -> Option<Result<Schedule<'_>, Why>> {
    let (flag, rest) = chunk.split_first()?;
    if *flag == OVERFLOW {
        return None;
    }
    let pickle = if looks_like(rest) { rest } else { chunk.get(HEAD..).filter(|rest| looks_like(rest))? };
    // The name of the method stands at the very beginning: most other calls need not be read.
    let head = pickle.get(..64).unwrap_or(pickle);
    memchr::memmem::find(head, b"execute_model")?;
    Some(read(pickle))
}

fn read(pickle: &[u8]) -> Result<Schedule<'_>, Why> {
    let tree = Tree::read(pickle);
    let Some(tokens) = tree.find("num_scheduled_tokens") else {
        // New requests with their prompts stand ahead of it.
        return match tree.end() {
            End::Cut => Ok(Schedule::default()),
            _ => Err("a step for the workers without its tokens"),
        };
    };
    let mut members = Vec::new();
    for (id, count) in tokens.pairs() {
        let (Some(id), Some(count)) = (id.as_str(), count.as_u64().and_then(|count| count.try_into().ok()))
        else {
            return Err("a step for the workers with tokens of an unknown form");
        };
        members.push((id, count));
    }
    // The next attribute behind them is their sum.
    let total = tree.find("total_num_scheduled_tokens").and_then(|total| total.as_u64());
    let sum: u64 = members.iter().map(|(_, count)| u64::from(*count)).sum();
    if total.is_some_and(|total| total != sum) {
        return Err("a step for the workers whose tokens do not add up");
    }
    let preempted = tree.find("preempted_req_ids");
    let preempted = preempted.iter().flat_map(Value::items).filter_map(|id| id.as_str()).collect();
    Ok(Schedule { members, preempted, is_whole: total.is_some() })
}
