//! What an engine says of its requests: bytes → what they say, every item checked against a version's table.
//!
//! In: a payload, whole or cut. Out: borrowed values, or the reason why this is no such message. Nothing is remembered
//! here; whether a message agrees with the ones before it is `engine`'s business.

use super::ids;
use super::schema::{Field, KV_USAGE, Match, RUNNING, SKIPPED, Version, WAITING, of_output};
use crate::server::codec::msgpack::{Item, Reader, Stop};

/// A payload that was not understood, and why.
pub type Why = &'static str;

/// `EngineCoreOutputs`: what a step brought the requests of one front end.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Outputs<'a> {
    /// Data-parallel rank.
    pub engine: u64,
    /// For each request that has something.
    pub outputs: Vec<Output<'a>>,
    /// Its statistics, which one front end gets.
    pub stats: Option<Stats>,
    /// When it was made, nanoseconds; none if the copy ends before.
    pub stamp_ns: Option<u64>,
    /// It answers a call that has nothing to do with requests.
    pub is_utility: bool,
    /// It is about a wave of data-parallel engines.
    pub is_wave: bool,
    /// The copy ends before all outputs and statistics were read.
    pub is_cut: bool,
}

/// `EngineCoreOutput`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Output<'a> {
    /// The request's id on the wire.
    pub id: &'a str,
    /// Tokens that came out.
    pub tokens: u32,
    /// Number of the finish reason, if it is done.
    pub finish: Option<u64>,
    /// It says what stopped it.
    pub is_stopped: bool,
    /// What happened to it since its last output.
    pub events: Vec<Event>,
    /// Of its prompt, at its first output.
    pub prefill: Option<Prefill>,
}

/// `EngineCoreEvent`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Event {
    /// What.
    pub kind: EventKind,
    /// When, nanoseconds of `CLOCK_MONOTONIC`.
    pub at_ns: u64,
}

/// `EngineCoreEventType`: 1, 2, 3.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventKind {
    /// The scheduler's queue has it.
    Queued,
    /// A step was made with it in.
    Scheduled,
    /// It lost its place.
    Preempted,
}

/// `PrefillStats`, or the one number that older versions have of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Prefill {
    /// Tokens of the prompt.
    pub prompt: Option<u64>,
    /// Of these, how many were computed.
    pub computed: Option<u64>,
    /// Of these, how many were found in the prefix cache.
    pub cached: Option<u64>,
}

/// `SchedulerStats`.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Stats {
    /// Requests that run, those that finished in this step no more.
    pub running: Option<u64>,
    /// Requests that wait.
    pub waiting: Option<u64>,
    /// Of those that wait, the ones that are passed over: counted apart since 0.25.
    pub skipped: u64,
    /// Share of the KV cache in use.
    pub kv_usage: Option<f64>,
}

impl Stats {
    /// The engine has no requests.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        (self.running, self.waiting, self.skipped) == (Some(0), Some(0), 0)
    }
}

/// A message, and the version whose table it agrees with.
#[derive(Clone, Debug)]
pub struct Read<T> {
    /// What it says.
    pub value: T,
    /// By which version's table; none if it has no item that tells.
    pub version: Option<(&'static Version, Match)>,
}

/// Whether a payload could be `EngineCoreOutputs`, so that one that cannot be read counts as a failure.
#[must_use]
pub fn may_be_outputs(bytes: &[u8]) -> bool {
    matches!(bytes.first(), Some(0x96..=0x9f | 0xdc))
}

/// What is known of the version before a message is read.
#[derive(Clone, Copy, Debug, Default)]
pub struct Known {
    /// By which version outputs were read before.
    pub settled: Option<(&'static Version, Match)>,
    /// By which version requests were.
    pub asked: Option<&'static Version>,
}

/// Reads `EngineCoreOutputs`.
///
/// # Errors
/// Why it is none.
pub fn outputs<'a>(bytes: &'a [u8], is_cut: bool, known: Known) -> Result<Read<Outputs<'a>>, Why> {
    let mut reader = Reader::new(bytes, is_cut);
    let Ok(Item::Array(length @ 8..=32)) = reader.item() else {
        return Err("outputs of an unknown length");
    };
    let mut read = Read { value: Outputs::default(), version: known.settled };
    for place in 0..length {
        match outputs_field(place, length, known, &mut reader, &mut read) {
            Ok(()) => {}
            Err(Failure::Cut) => {
                read.value.is_cut = true;
                break;
            }
            Err(Failure::Wrong(why)) => return Err(why),
        }
    }
    if !read.value.is_cut && !reader.is_done() {
        return Err("bytes behind outputs");
    }
    Ok(read)
}

fn outputs_field<'a>(
    place: u32,
    length: u32,
    known: Known,
    reader: &mut Reader<'a>,
    read: &mut Read<Outputs<'a>>,
) -> Result<(), Failure> {
    let value = &mut read.value;
    match (place, reader.item()?) {
        (0, Item::Uint(engine)) => value.engine = engine,
        (1, Item::Array(count)) => {
            for _ in 0..count {
                let output = output(reader, length, known.asked, &mut read.version)?;
                value.outputs.push(output);
            }
        }
        (2, Item::Map(count)) => value.stats = Some(stats(reader, count)?),
        (3, Item::Float(seconds)) => {
            value.stamp_ns = Some(nanoseconds(seconds).ok_or(Failure::Wrong("a stamp that is none"))?);
        }
        (4, item @ Item::Array(_)) => {
            value.is_utility = true;
            reader.skip_inside(item)?;
        }
        (5, item @ Item::Array(_)) => reader.skip_inside(item)?,
        (6 | 7, Item::Uint(_) | Item::Negative(_)) => value.is_wave = true,
        (2 | 4..=7, Item::Nil) => {}
        (0..=7, _) => return Err(Failure::Wrong("an item of outputs has a wrong type")),
        (_, item) => reader.skip_inside(item)?,
    }
    Ok(())
}

/// The first output that is read settles how all others are.
fn output<'a>(
    reader: &mut Reader<'a>,
    outputs: u32,
    asked: Option<&'static Version>,
    settled: &mut Option<(&'static Version, Match)>,
) -> Result<Output<'a>, Failure> {
    let Item::Array(length) = reader.item()? else {
        return Err(Failure::Wrong("an output that is no array"));
    };
    if let Some((version, fit)) = *settled {
        let is_exact = u32::try_from(version.output.len()) == Ok(length) && version.outputs == outputs;
        if is_exact != (fit == Match::Listed) {
            return Err(Failure::Wrong("an output of another version than those before it"));
        }
        return output_by(version, reader, length);
    }
    let mut why = "an output of an unknown length";
    for (version, fit) in of_output(length, outputs, asked) {
        let mut trial = reader.clone();
        match output_by(version, &mut trial, length) {
            Ok(output) => {
                *reader = trial;
                *settled = Some((version, fit));
                return Ok(output);
            }
            Err(Failure::Cut) => return Err(Failure::Cut),
            Err(Failure::Wrong(error)) => why = error,
        }
    }
    Err(Failure::Wrong(why))
}

fn output_by<'a>(
    version: &'static Version,
    reader: &mut Reader<'a>,
    length: u32,
) -> Result<Output<'a>, Failure> {
    let mut output = Output::default();
    let fields = version.output.iter().copied().map(Some).chain(std::iter::repeat(None));
    for (field, _) in fields.zip(0..length) {
        output_field(field, reader, version, &mut output)?;
    }
    if output.is_stopped && output.finish.is_none() {
        return Err(Failure::Wrong("a reason to stop, and no end"));
    }
    Ok(output)
}

fn output_field<'a>(
    field: Option<Field>,
    reader: &mut Reader<'a>,
    version: &'static Version,
    output: &mut Output<'a>,
) -> Result<(), Failure> {
    let Some(field) = field else { return Ok(reader.skip()?) };
    match (field, reader.item()?) {
        (Field::Id, Item::Str(id)) if ids::is_plausible(id) => output.id = id,
        (Field::NewTokens, Item::Array(count)) => {
            output.tokens = count;
            token_ids(reader, count)?;
        }
        (Field::Finish, Item::Uint(reason)) if reason < version.reasons => output.finish = Some(reason),
        (Field::StopReason, Item::Uint(_) | Item::Str(_)) => output.is_stopped = true,
        (Field::StopReason | Field::Finish | Field::Events | Field::PrefillStats, Item::Nil) => {}
        (Field::Events, Item::Array(count)) => {
            for _ in 0..count {
                output.events.push(event(reader)?);
            }
        }
        (Field::PrefillStats, Item::Map(count)) => output.prefill = Some(prefill(reader, count)?),
        (Field::CachedTokens, Item::Uint(cached)) => {
            output.prefill = Some(Prefill { cached: Some(cached), ..Prefill::default() });
        }
        (field, item) => return unused(field, item, reader, "an item of an output has a wrong type"),
    }
    Ok(())
}

fn event(reader: &mut Reader<'_>) -> Result<Event, Failure> {
    let Item::Map(2) = reader.item()? else { return Err(Failure::Wrong("an event of unknown form")) };
    let (mut kind, mut at_ns) = (None, None);
    for _ in 0..2 {
        match (reader.item()?, reader.item()?) {
            (Item::Str("type"), Item::Uint(1)) => kind = Some(EventKind::Queued),
            (Item::Str("type"), Item::Uint(2)) => kind = Some(EventKind::Scheduled),
            (Item::Str("type"), Item::Uint(3)) => kind = Some(EventKind::Preempted),
            (Item::Str("timestamp"), Item::Float(seconds)) => at_ns = nanoseconds(seconds),
            _ => return Err(Failure::Wrong("an event of unknown form")),
        }
    }
    let (Some(kind), Some(at_ns)) = (kind, at_ns) else {
        return Err(Failure::Wrong("an event of unknown form"));
    };
    Ok(Event { kind, at_ns })
}

fn prefill(reader: &mut Reader<'_>, count: u32) -> Result<Prefill, Failure> {
    let mut prefill = Prefill::default();
    for _ in 0..count {
        match (reader.item()?, reader.item()?) {
            (Item::Str("num_prompt_tokens"), Item::Uint(tokens)) => prefill.prompt = Some(tokens),
            (Item::Str("num_computed_tokens"), Item::Uint(tokens)) => prefill.computed = Some(tokens),
            (Item::Str("num_cached_tokens"), Item::Uint(tokens)) => prefill.cached = Some(tokens),
            (Item::Str(_), item) => reader.skip_inside(item)?,
            _ => return Err(Failure::Wrong("prefill statistics without names")),
        }
    }
    match prefill {
        Prefill { prompt: Some(prompt), cached: Some(cached), .. } if cached <= prompt => Ok(prefill),
        _ => Err(Failure::Wrong("prefill statistics that do not add up")),
    }
}

fn stats(reader: &mut Reader<'_>, count: u32) -> Result<Stats, Failure> {
    let mut stats = Stats::default();
    for _ in 0..count {
        match (reader.item()?, reader.item()?) {
            (Item::Str(RUNNING), Item::Uint(requests)) => stats.running = Some(requests),
            (Item::Str(WAITING), Item::Uint(requests)) => stats.waiting = Some(requests),
            (Item::Str(SKIPPED), Item::Uint(requests)) => stats.skipped = requests,
            (Item::Str(name), Item::Float(share)) if KV_USAGE.contains(&name) => {
                stats.kv_usage = Some(share).filter(|share| (0.0..=1.0).contains(share));
            }
            (Item::Str(_), item) => reader.skip_inside(item)?,
            _ => return Err(Failure::Wrong("statistics without names")),
        }
    }
    if stats.running.is_none() || stats.waiting.is_none() {
        return Err(Failure::Wrong("statistics without the numbers of requests"));
    }
    Ok(stats)
}

/// Steps over token ids.
///
/// # Errors
/// What is none.
pub fn token_ids(reader: &mut Reader<'_>, count: u32) -> Result<(), Failure> {
    for _ in 0..count {
        let Item::Uint(_) = reader.item()? else {
            return Err(Failure::Wrong("a token id that is no number"));
        };
    }
    Ok(())
}

/// Checks and steps over what is not used.
///
/// # Errors
/// `why`, if it has a wrong type.
pub fn unused(field: Field, item: Item<'_>, reader: &mut Reader<'_>, why: Why) -> Result<(), Failure> {
    let is_right = match field {
        Field::Count => matches!(item, Item::Uint(_) | Item::Negative(_)),
        Field::CountOrNil => matches!(item, Item::Nil | Item::Uint(_) | Item::Negative(_)),
        Field::Flag => matches!(item, Item::Bool(_)),
        Field::FlagOrNil => matches!(item, Item::Nil | Item::Bool(_)),
        Field::TextOrNil => matches!(item, Item::Nil | Item::Str(_)),
        Field::MapOrNil | Field::Pooling => matches!(item, Item::Nil | Item::Map(_)),
        Field::ListOrNil => matches!(item, Item::Nil | Item::Array(_)),
        Field::Compound => {
            matches!(item, Item::Nil | Item::Array(_) | Item::Map(_) | Item::Bin(_) | Item::Ext(..))
        }
        _ => false,
    };
    if !is_right {
        return Err(Failure::Wrong(why));
    }
    Ok(reader.skip_inside(item)?)
}

/// Seconds of `time.monotonic()`, which is `CLOCK_MONOTONIC` on Linux.
fn nanoseconds(seconds: f64) -> Option<u64> {
    // A machine that is up for 30 years.
    if !(0.0..1e9).contains(&seconds) {
        return None;
    }
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "checked above")]
    let nanoseconds = (seconds * 1e9).round() as u64;
    Some(nanoseconds)
}

/// Why an item was not read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// The copy ends here.
    Cut,
    /// It is not what should stand here.
    Wrong(Why),
}

impl From<Stop> for Failure {
    fn from(stop: Stop) -> Self {
        match stop {
            Stop::Cut => Self::Cut,
            Stop::Malformed => Self::Wrong("bytes that are no MessagePack"),
        }
    }
}
