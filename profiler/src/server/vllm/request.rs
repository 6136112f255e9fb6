//! What is known of a request, and whether a message agrees with it.

use super::message::{Event, EventKind, Output, Outputs, Why};
use super::schema::{Field, Version};
use crate::server::said::Inner;

/// A message is made at most so long before it is sent: other threads of the interpreter may run in between.
const OLDEST_STAMP_NS: u64 = 5_000_000_000;

/// Two clocks read one after the other may disagree by so much.
const SLACK_NS: u64 = 1_000_000;

/// What is known of a request.
#[derive(Debug)]
pub struct Request {
    /// Its number.
    pub inner: Inner,
    /// When the engine got it, if that was heard.
    pub added_ns: Option<u64>,
    /// Tokens of its prompt, if known.
    pub prompt: Option<u64>,
    /// The most that it may generate, if known.
    pub max_tokens: Option<u64>,
    /// It generates.
    pub generates: bool,
    /// Tokens that came out.
    pub tokens: u64,
    /// All its outputs were heard.
    pub is_whole: bool,
    /// It had an output.
    pub is_talking: bool,
    /// It was said that the queue has it.
    pub is_enqueued: bool,
    /// A step with it in was seen to begin.
    pub is_begun: bool,
    /// When it ended.
    pub ended_ns: Option<u64>,
    /// By the engine itself: nothing comes behind that.
    pub is_finished: bool,
}

/// How far messages agree with each other: what proves that a schema is right.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Agreement {
    /// A first output whose stamps, request and prompt fit to what was asked.
    pub first_output: bool,
    /// A request was followed from its beginning to its end.
    pub life: bool,
    /// An output of a request whose beginning was heard.
    pub known: bool,
}

/// Whether an output agrees with what is known of its request.
///
/// # Errors
/// What does not.
pub fn check(
    request: Option<&Request>,
    output: &Output<'_>,
    stamp_ns: Option<u64>,
    time_ns: u64,
    version: Option<&Version>,
    agreement: &mut Agreement,
) -> Result<(), Why> {
    let added_ns = request.and_then(|request| request.added_ns);
    check_events(&output.events, added_ns, stamp_ns.unwrap_or(time_ns))?;
    if request.is_some_and(|request| request.is_finished) {
        return Err("an output behind the end of its request");
    }
    let Some(request) = request.filter(|request| request.ended_ns.is_none()) else { return Ok(()) };
    let prompts = request.prompt.zip(output.prefill.and_then(|prefill| prefill.prompt));
    if prompts.is_some_and(|(asked, done)| asked != done) {
        return Err("a prompt of another length than was asked");
    }
    let cached = output.prefill.and_then(|prefill| prefill.cached);
    if request.prompt.zip(cached).is_some_and(|(prompt, cached)| cached > prompt) {
        return Err("more of a prompt in the cache than there is");
    }
    let tokens = request.tokens + u64::from(output.tokens);
    if let Some(most) = request.max_tokens.filter(|_| request.is_whole) {
        if tokens > most {
            return Err("more tokens than were asked");
        }
        if tokens == most && tokens > 0 && output.finish.is_none() {
            return Err("no end at the limit of tokens");
        }
    }
    agreement.known |= request.added_ns.is_some();
    if request.added_ns.is_some() && !request.is_talking {
        let is_stamped = output.events.iter().any(|event| event.kind == EventKind::Queued)
            && output.events.iter().any(|event| event.kind == EventKind::Scheduled);
        let has_no_prompt = version.is_some_and(|version| !version.output.contains(&Field::PrefillStats));
        agreement.first_output |= is_stamped && (prompts.is_some() || has_no_prompt);
    }
    let is_done = output.finish.is_some() && (tokens > 0 || !request.generates);
    agreement.life |= request.added_ns.is_some() && request.is_whole && is_done;
    Ok(())
}

/// Whether outputs are stamped when they were made.
///
/// # Errors
/// What does not fit.
pub fn check_stamp(outputs: &Outputs<'_>, time_ns: u64) -> Result<(), Why> {
    match outputs.stamp_ns {
        Some(stamp_ns)
            if stamp_ns > time_ns + SLACK_NS || time_ns.saturating_sub(stamp_ns) > OLDEST_STAMP_NS =>
        {
            Err("outputs stamped at another time than they were sent")
        }
        None if !outputs.is_cut => Err("outputs without a stamp"),
        _ => Ok(()),
    }
}

fn check_events(events: &[Event], added_ns: Option<u64>, until_ns: u64) -> Result<(), Why> {
    let mut last_ns = added_ns.map_or(1, |added_ns| added_ns.saturating_sub(SLACK_NS));
    for event in events {
        if event.at_ns < last_ns || event.at_ns > until_ns + SLACK_NS {
            return Err("an event stamped before the one ahead of it, or in the future");
        }
        last_ns = event.at_ns;
    }
    Ok(())
}
