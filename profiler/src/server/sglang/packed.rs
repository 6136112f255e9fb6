//! Messages as msgpack: arrays that begin with the name of their class, fields by place. New fields come at the end.

use super::message::{Class, Input, Message, Outputs, Times, is_id, item_size, reason};
use super::pickled;
use crate::server::codec::msgpack::{Item, Reader, Stop};
use crate::server::codec::pickle::Tree;
use crate::server::said::Reason;

type Read<T> = Result<T, &'static str>;

/// Places of fields in 0.5.23; 0 is the name of the class.
mod place {
    pub(super) const RID: u32 = 1;
    /// Of `TokenizedGenerateReqInput`.
    pub(super) mod generate {
        pub(in super::super) const INPUT_IDS: u32 = 4;
        pub(in super::super) const MM_INPUTS: u32 = 6;
        pub(in super::super) const SAMPLING_PARAMS: u32 = 8;
        pub(in super::super) const STREAM: u32 = 13;
    }
    /// Of `TokenizedEmbeddingReqInput`.
    pub(super) mod embed {
        pub(in super::super) const INPUT_IDS: u32 = 4;
        pub(in super::super) const MM_INPUTS: u32 = 5;
        pub(in super::super) const SAMPLING_PARAMS: u32 = 7;
    }
    /// Of the batches of requests.
    pub(super) const BATCH: u32 = 3;
    /// Of both outputs.
    pub(super) const FINISHED_REASONS: u32 = 3;
    /// Of `BatchTokenIDOutput`.
    pub(super) mod tokens {
        pub(in super::super) const OUTPUT_IDS: u32 = 7;
        pub(in super::super) const PROMPT_TOKENS: u32 = 11;
        pub(in super::super) const COMPLETION_TOKENS: u32 = 13;
        pub(in super::super) const CACHED_TOKENS: u32 = 14;
        pub(in super::super) const RETRACTION_COUNTS: u32 = 34;
        pub(in super::super) const DP_RANKS: u32 = 40;
        pub(in super::super) const TIME_STATS: u32 = 41;
        pub(in super::super) const SPEC_VERIFY_CT: u32 = 45;
    }
    /// Of `BatchEmbeddingOutput`.
    pub(super) mod embeddings {
        pub(in super::super) const PROMPT_TOKENS: u32 = 5;
        pub(in super::super) const CACHED_TOKENS: u32 = 6;
    }
}

/// What ends the reading of one field.
enum Halt {
    Cut,
    Wrong(&'static str),
}

type Field<T> = Result<T, Halt>;

impl From<Stop> for Halt {
    fn from(stop: Stop) -> Self {
        match stop {
            Stop::Cut => Self::Cut,
            Stop::Malformed => Self::Wrong("malformed msgpack"),
        }
    }
}

/// Reads a message; nothing if it is none of SGLang's.
pub(super) fn read<'a>(bytes: &'a [u8], is_cut: bool) -> Read<Option<Message<'a>>> {
    let mut reader = Reader::new(bytes, is_cut);
    let (Ok(Item::Array(length)), Ok(Item::Str(name))) = (reader.item(), reader.item()) else {
        return Ok(None);
    };
    let message = match Class::of(name) {
        class @ (Class::Generate | Class::Embed) => {
            Message::Inputs(vec![input(&mut reader, length, class)?.0])
        }
        Class::Batch => batch(&mut reader, length)?,
        Class::Tokens => Message::Outputs(tokens(&mut reader, length)?),
        Class::Embeddings => Message::Outputs(embeddings(&mut reader, length)?),
        Class::Abort => match reader.item() {
            Ok(Item::Str(rid)) => Message::Abort(rid),
            _ => return Err("an abort of nothing"),
        },
        Class::Other if name.ends_with("Req") || name.ends_with("Input") || name.ends_with("Output") => {
            Message::Other
        }
        Class::Other => return Ok(None),
    };
    Ok(Some(message))
}

/// Walks fields from place 1 on; whether it came to the end, and did not meet a cut.
fn walk<'a>(
    reader: &mut Reader<'a>,
    length: u32,
    mut take: impl FnMut(u32, &mut Reader<'a>) -> Field<bool>,
) -> Read<bool> {
    for place in 1..length {
        let taken = take(place, reader).and_then(|taken| if taken { Ok(()) } else { Ok(reader.skip()?) });
        match taken {
            Ok(()) => {}
            Err(Halt::Cut) => return Ok(false),
            Err(Halt::Wrong(why)) => return Err(why),
        }
    }
    Ok(true)
}

/// A request, and whether all of it was there.
fn input<'a>(reader: &mut Reader<'a>, length: u32, class: Class) -> Read<(Input<'a>, bool)> {
    let generates = class == Class::Generate;
    let (ids, media, params) = match generates {
        true => (place::generate::INPUT_IDS, place::generate::MM_INPUTS, place::generate::SAMPLING_PARAMS),
        false => (place::embed::INPUT_IDS, place::embed::MM_INPUTS, place::embed::SAMPLING_PARAMS),
    };
    let (mut rid, mut prompt, mut streams, mut has_media) = ("", None, None, false);
    let is_whole = walk(reader, length, |place, reader| {
        match place {
            place::RID => rid = text(reader)?,
            _ if place == ids => prompt = array(reader)?,
            _ if place == media => {
                let item = reader.item()?;
                has_media = item != Item::Nil;
                reader.skip_inside(item)?;
            }
            _ if place == params => match reader.item()? {
                item @ (Item::Array(_) | Item::Map(_)) => reader.skip_inside(item)?,
                _ => return Err(Halt::Wrong("parameters that are none")),
            },
            place::generate::STREAM if generates => match reader.item()? {
                Item::Bool(stream) => streams = Some(stream),
                _ => return Err(Halt::Wrong("a request that does not say whether it streams")),
            },
            _ => return Ok(false),
        }
        Ok(true)
    })?;
    if !is_id(rid) || is_whole && generates && streams.is_none() {
        return Err("a request without an id, or too short a one");
    }
    Ok((Input { rid, prompt: prompt.filter(|_| !has_media), streams, generates }, is_whole))
}

fn batch<'a>(reader: &mut Reader<'a>, length: u32) -> Read<Message<'a>> {
    let mut inputs = Vec::new();
    walk(reader, length, |place, reader| {
        if place != place::BATCH {
            return Ok(false);
        }
        let Item::Array(count) = reader.item()? else { return Err(Halt::Wrong("a batch that is no list")) };
        for _ in 0..count {
            let (Item::Array(length), Item::Str(name)) = (reader.item()?, reader.item()?) else {
                return Err(Halt::Wrong("a batch of something else"));
            };
            let (input, is_whole) = input(reader, length, Class::of(name)).map_err(Halt::Wrong)?;
            inputs.push(input);
            if !is_whole {
                return Err(Halt::Cut);
            }
        }
        Ok(true)
    })?;
    Ok(Message::Inputs(inputs))
}

fn tokens<'a>(reader: &mut Reader<'a>, length: u32) -> Read<Outputs<'a>> {
    let mut out = Outputs { generates: true, ..Outputs::default() };
    let is_whole = walk(reader, length, |place, reader| {
        match place {
            place::RID => out.rids = column(reader, text)?,
            place::FINISHED_REASONS => out.reasons = column(reader, finish)?,
            place::tokens::OUTPUT_IDS => out.new = column(reader, needed_array)?,
            place::tokens::PROMPT_TOKENS => out.prompt = column(reader, number)?,
            place::tokens::COMPLETION_TOKENS => out.generated = column(reader, number)?,
            place::tokens::CACHED_TOKENS => out.cached = column(reader, number)?,
            place::tokens::RETRACTION_COUNTS => out.retractions = column(reader, number)?,
            place::tokens::DP_RANKS => out.rank = column(reader, rank)?.first().copied().unwrap_or(0),
            place::tokens::TIME_STATS => out.times = stats(reader)?,
            place::tokens::SPEC_VERIFY_CT => out.is_speculative = !column(reader, number)?.is_empty(),
            _ => return Ok(false),
        }
        Ok(true)
    })?;
    out.is_cut = !is_whole;
    if is_whole && length <= place::tokens::CACHED_TOKENS {
        return Err("too short for outputs");
    }
    out.check().map(|()| out)
}

fn embeddings<'a>(reader: &mut Reader<'a>, length: u32) -> Read<Outputs<'a>> {
    let mut out = Outputs::default();
    let is_whole = walk(reader, length, |place, reader| {
        match place {
            place::RID => out.rids = column(reader, text)?,
            place::FINISHED_REASONS => out.reasons = column(reader, finish)?,
            place::embeddings::PROMPT_TOKENS => out.prompt = column(reader, number)?,
            place::embeddings::CACHED_TOKENS => out.cached = column(reader, number)?,
            _ => return Ok(false),
        }
        Ok(true)
    })?;
    out.is_cut = !is_whole;
    out.check().map(|()| out)
}

/// A list; none where there is none. Of one that is cut nothing is kept.
fn column<'a, T>(reader: &mut Reader<'a>, of: impl Fn(&mut Reader<'a>) -> Field<T>) -> Field<Vec<T>> {
    match reader.item()? {
        Item::Nil => Ok(Vec::new()),
        Item::Array(count) => (0..count).map(|_| of(reader)).collect(),
        _ => Err(Halt::Wrong("a column that is no list")),
    }
}

fn text<'a>(reader: &mut Reader<'a>) -> Field<&'a str> {
    match reader.item()? {
        Item::Str(text) => Ok(text),
        _ => Err(Halt::Wrong("an id that is none")),
    }
}

fn number(reader: &mut Reader<'_>) -> Field<u64> {
    match reader.item()? {
        Item::Uint(number) => Ok(number),
        _ => Err(Halt::Wrong("a column of something else")),
    }
}

/// Nil outside data parallelism.
fn rank(reader: &mut Reader<'_>) -> Field<u64> {
    match reader.item()? {
        Item::Uint(rank) => Ok(rank),
        Item::Nil => Ok(0),
        _ => Err(Halt::Wrong("a rank that is none")),
    }
}

fn finish(reader: &mut Reader<'_>) -> Field<Option<Reason>> {
    let pairs = match reader.item()? {
        Item::Nil => return Ok(None),
        Item::Map(pairs) => pairs,
        _ => return Err(Halt::Wrong("a reason that is none")),
    };
    let mut kind = None;
    for _ in 0..pairs {
        match (reader.item()?, reader.item()?) {
            (Item::Str("type"), Item::Str(name)) => kind = reason(name),
            (_, value) => reader.skip_inside(value)?,
        }
    }
    kind.map(Some).ok_or(Halt::Wrong("an unknown reason"))
}

fn needed_array(reader: &mut Reader<'_>) -> Field<u64> {
    array(reader)?.ok_or(Halt::Wrong("an array that is none"))
}

/// Items of an `array.array`: extension 1, which holds the length of a typecode, the typecode, and the bytes
/// (`sglang/srt/utils/msgpack_utils.py`). Or of a list.
fn array(reader: &mut Reader<'_>) -> Field<Option<u64>> {
    let wrong = || Halt::Wrong("an array that is none");
    match reader.item()? {
        Item::Nil => Ok(None),
        item @ Item::Array(count) => {
            reader.skip_inside(item)?;
            Ok(Some(count.into()))
        }
        Item::Ext(1, data) => {
            let (size, data) = data.split_first_chunk::<4>().ok_or_else(wrong)?;
            let (code, items) =
                data.split_at_checked(u32::from_be_bytes(*size) as usize).ok_or_else(wrong)?;
            let Ok(Item::Str(code)) = Reader::new(code, false).item() else { return Err(wrong()) };
            Ok(Some(items.len() as u64 / item_size(code).ok_or_else(wrong)?))
        }
        _ => Err(wrong()),
    }
}

/// `["PickleWrapper", bytes]`: the stamps travel as a pickle inside.
fn stats(reader: &mut Reader<'_>) -> Field<Vec<Option<Times>>> {
    match reader.item()? {
        Item::Nil => Ok(Vec::new()),
        Item::Array(2) => match (reader.item()?, reader.item()?) {
            (Item::Str("PickleWrapper"), Item::Bin(data)) => {
                Ok(Tree::read(data).root().map_or_else(Vec::new, pickled::times))
            }
            _ => Err(Halt::Wrong("stamps that are none")),
        },
        _ => Err(Halt::Wrong("stamps that are none")),
    }
}
