//! What front ends say to an engine, and what the engine says of itself: bytes → borrowed values, every item checked
//! against a version's table.
//!
//! In: a payload, whole or cut. Out: what it says, or the reason why this is no such message. Prompts are counted, never
//! kept.

use super::ids;
use super::message::{Failure, Read, Why, token_ids, unused};
use super::schema::{Field, Version, of_request};
use crate::server::codec::msgpack::{Item, Reader, Stop};

/// A copy of a request that ends before its id.
pub const TOO_SHORT: Why = "a request cut before its id";

/// `EngineCoreRequest`: a front end gives a request to an engine.
#[derive(Clone, Debug, PartialEq)]
pub struct Add<'a> {
    /// Its id on the wire.
    pub id: &'a str,
    /// Its id at the front end, if said.
    pub external: Option<&'a str>,
    /// Tokens of its prompt; embeddings have none.
    pub prompt: Option<u64>,
    /// It generates, as far as was seen.
    pub generates: bool,
    /// Which front end asks.
    pub client: Option<u64>,
    /// The most tokens it may generate.
    pub max_tokens: Option<u64>,
}

/// Reads `EngineCoreRequest`.
///
/// # Errors
/// Why it is none; [`TOO_SHORT`] where the copy ends before its id.
pub fn add<'a>(bytes: &'a [u8], is_cut: bool, known: Option<&'static Version>) -> Result<Read<Add<'a>>, Why> {
    let mut reader = Reader::new(bytes, is_cut);
    let Ok(Item::Array(length)) = reader.item() else { return Err("a request that is no array") };
    let mut why = "a request of an unknown length";
    for (version, fit) in of_request(length, known) {
        match add_by(version, reader.clone(), length) {
            Ok(value) => return Ok(Read { value, version: Some((version, fit)) }),
            Err(error) => why = error,
        }
    }
    Err(why)
}

fn add_by<'a>(version: &'static Version, mut reader: Reader<'a>, length: u32) -> Result<Add<'a>, Why> {
    let mut add =
        Add { id: "", external: None, prompt: None, generates: true, client: None, max_tokens: None };
    let fields = version.request.iter().copied().map(Some).chain(std::iter::repeat(None));
    for (field, _) in fields.zip(0..length) {
        match add_field(field, &mut reader, &mut add) {
            Ok(()) => {}
            Err(Failure::Cut) if !add.id.is_empty() => return Ok(add),
            Err(Failure::Cut) => return Err(TOO_SHORT),
            Err(Failure::Wrong(why)) => return Err(why),
        }
    }
    if reader.is_done() { Ok(add) } else { Err("bytes behind a request") }
}

fn add_field<'a>(field: Option<Field>, reader: &mut Reader<'a>, add: &mut Add<'a>) -> Result<(), Failure> {
    let Some(field) = field else { return Ok(reader.skip()?) };
    let item = reader.item()?;
    match (field, item) {
        (Field::Id, Item::Str(id)) if ids::is_plausible(id) => add.id = id,
        (Field::Prompt, Item::Array(count)) => {
            add.prompt = Some(count.into());
            token_ids(reader, count)?;
        }
        (Field::Prompt | Field::Pooling, Item::Nil) => {}
        (Field::Sampling, Item::Map(count)) => add.max_tokens = max_tokens(reader, count)?,
        (Field::Sampling, Item::Nil) => add.generates = false,
        (Field::Pooling, Item::Map(_)) if add.generates => {
            return Err(Failure::Wrong("a request that generates and does not"));
        }
        (Field::Client, Item::Uint(client)) => add.client = Some(client),
        (Field::ExternalId, Item::Str(id)) if add.id.contains(id) => add.external = Some(id),
        (Field::ExternalId, Item::Nil) => {}
        // A wall clock between 2001 and 2286.
        (Field::WallClock, Item::Float(seconds)) if (1e9..1e10).contains(&seconds) => {}
        (field, item) => return unused(field, item, reader, "an item of a request has a wrong type"),
    }
    Ok(())
}

/// `SamplingParams` leaves out what has its default.
fn max_tokens(reader: &mut Reader<'_>, count: u32) -> Result<Option<u64>, Failure> {
    let mut max_tokens = None;
    for _ in 0..count {
        let key = reader.item()?;
        match (key, reader.item()?) {
            (Item::Str("max_tokens"), Item::Uint(most)) => max_tokens = Some(most),
            (Item::Str(_), value) => reader.skip_inside(value)?,
            _ => return Err(Failure::Wrong("sampling parameters without names")),
        }
    }
    Ok(max_tokens)
}

/// Reads the ids that a front end gives up.
///
/// # Errors
/// Why these are none.
pub fn abort(bytes: &[u8], is_cut: bool) -> Result<Vec<&str>, Why> {
    let mut reader = Reader::new(bytes, is_cut);
    let Ok(Item::Array(count)) = reader.item() else { return Err("given up: no array") };
    let mut ids = Vec::new();
    for _ in 0..count {
        match reader.item() {
            Ok(Item::Str(id)) if ids::is_plausible(id) => ids.push(id),
            Err(Stop::Cut) => break,
            _ => return Err("given up: no ids"),
        }
    }
    Ok(ids)
}

/// The version in `EngineCoreReadyResponse`, a map that the engine sends once it is up.
#[must_use]
pub fn ready(bytes: &[u8], is_cut: bool) -> Option<&str> {
    let mut reader = Reader::new(bytes, is_cut);
    let Ok(Item::Map(count)) = reader.item() else { return None };
    for _ in 0..count {
        match (reader.item().ok()?, reader.item().ok()?) {
            (Item::Str("vllm_version"), Item::Str(version)) => return Some(version),
            (_, value) => reader.skip_inside(value).ok()?,
        }
    }
    None
}
