//! Messages as pickles: fields by name, so that new ones change nothing.

use super::message::{Class, Input, Message, Outputs, Times, is_id, item_size, reason};
use crate::server::codec::pickle::{End, Tree, Value};

type Read<T> = Result<T, &'static str>;

/// Reads a message; nothing if it is none of SGLang's.
pub(super) fn read<'a>(tree: &Tree<'a>) -> Read<Option<Message<'a>>> {
    let is_cut = match tree.end() {
        End::Whole => false,
        End::Cut => true,
        End::Malformed(_) | End::TooMuch(_) => return Ok(None),
    };
    let Some((root, class)) = tree.root().and_then(|root| Some((root, root.class()?))) else {
        return Ok(None);
    };
    if !class.0.starts_with("sglang.") {
        return Ok(None);
    }
    let message = match Class::of(class.1) {
        class @ (Class::Generate | Class::Embed) => {
            Message::Inputs(vec![input(root, class == Class::Generate, is_cut)?])
        }
        Class::Batch => batch(root, is_cut)?,
        class @ (Class::Tokens | Class::Embeddings) => {
            Message::Outputs(outputs(root, class == Class::Tokens, is_cut)?)
        }
        Class::Abort => Message::Abort(text(root, "rid").ok_or("an abort of nothing")?),
        Class::Other => Message::Other,
    };
    Ok(Some(message))
}

fn text<'a>(root: Value<'_, 'a>, name: &str) -> Option<&'a str> {
    root.attr(name)?.as_str()
}

fn batch<'a>(root: Value<'_, 'a>, is_cut: bool) -> Read<Message<'a>> {
    let inputs = root.attr("batch").filter(Value::is_sequence);
    let inputs = inputs.ok_or(if is_cut { "cut before its requests" } else { "a batch without requests" })?;
    let is_whole = |input: &Value<'_, '_>| !is_cut || input.attr("rid").is_some();
    let inputs = inputs.items().filter(is_whole).map(|one| {
        let class = one.class().map_or(Class::Other, |class| Class::of(class.1));
        match class {
            Class::Generate | Class::Embed => input(one, class == Class::Generate, is_cut),
            _ => Err("a batch of something else"),
        }
    });
    inputs.collect::<Read<Vec<_>>>().map(Message::Inputs)
}

fn input<'a>(root: Value<'_, 'a>, generates: bool, is_cut: bool) -> Read<Input<'a>> {
    let rid = text(root, "rid").filter(|rid| is_id(rid)).ok_or("a request without an id")?;
    let streams = root.attr("stream").and_then(|stream| stream.as_bool());
    if generates && streams.is_none() && !is_cut {
        return Err("a request that does not say whether it streams");
    }
    if root.attr("sampling_params").is_none() && !is_cut {
        return Err("a request without parameters");
    }
    let ids = root.attr("input_ids");
    let prompt = match ids {
        Some(ids) if ids.is_none() => None,
        Some(ids) if is_cut => length(ids),
        Some(ids) => Some(length(ids).ok_or("a prompt that is no array")?),
        None if is_cut => None,
        None => return Err("a request without a prompt"),
    };
    let has_media = root.attr("mm_inputs").is_some_and(|media| !media.is_none());
    Ok(Input { rid, prompt: prompt.filter(|_| !has_media), streams, generates })
}

/// Items of an `array.array` (`array._array_reconstructor(class, typecode, format, bytes)`), or of a list.
fn length(value: Value<'_, '_>) -> Option<u64> {
    if value.is_sequence() {
        return value.len();
    }
    let arguments =
        value.arguments().filter(|_| value.callee().and_then(|callee| callee.global()) == Some(ARRAY))?;
    let (typecode, bytes) = (arguments.item(1)?.as_str()?, arguments.item(3)?.len()?);
    Some(bytes / item_size(typecode)?)
}

const ARRAY: (&str, &str) = ("array", "_array_reconstructor");

fn outputs<'a>(root: Value<'_, 'a>, generates: bool, is_cut: bool) -> Read<Outputs<'a>> {
    let column = |name: &str, of: fn(Value<'_, '_>) -> Option<u64>| match root.attr(name) {
        None => Ok(Vec::new()),
        Some(column) if column.is_none() => Ok(Vec::new()),
        // Of one that is cut nothing is kept.
        Some(column) if is_cut => Ok(column.items().map(of).collect::<Option<Vec<_>>>().unwrap_or_default()),
        Some(column) if column.is_sequence() => {
            column.items().map(|item| of(item).ok_or("a column of something else")).collect::<Read<Vec<_>>>()
        }
        Some(_) => Err("a column that is no list"),
    };
    let rids = match root.attr("rids").filter(Value::is_sequence) {
        Some(rids) => {
            rids.items().map(|rid| rid.as_str().ok_or("an id that is none")).collect::<Read<Vec<_>>>()
        }
        None => Err("outputs without ids"),
    };
    let rids = if is_cut { rids.unwrap_or_default() } else { rids? };
    let number = |value: Value<'_, '_>| value.as_u64();
    let mut outputs = Outputs {
        rids,
        reasons: if is_cut { reasons(root).unwrap_or_default() } else { reasons(root)? },
        prompt: column("prompt_tokens", number)?,
        generated: column("completion_tokens", number)?,
        cached: column("cached_tokens", number)?,
        new: column("output_ids", length)?,
        retractions: column("retraction_counts", number)?,
        times: root.attr("time_stats").map_or_else(Vec::new, times),
        rank: root.attr("dp_ranks").and_then(|ranks| ranks.item(0)?.as_u64()).unwrap_or(0),
        is_speculative: root.attr("spec_verify_ct").is_some_and(|column| column.item(0).is_some()),
        generates,
        is_cut,
    };
    if is_cut {
        outputs.forget_unfinished();
    }
    outputs.check().map(|()| outputs)
}

fn reasons(root: Value<'_, '_>) -> Read<Vec<Option<crate::server::said::Reason>>> {
    let Some(reasons) = root.attr("finished_reasons") else { return Ok(Vec::new()) };
    let said = |said: Value<'_, '_>| match said.is_none() {
        true => Ok(None),
        false => {
            said.get("type").and_then(|kind| reason(kind.as_str()?)).map(Some).ok_or("an unknown reason")
        }
    };
    reasons.items().map(said).collect()
}

/// Stamps of each row; `{}` where the server was started without metrics.
pub(super) fn times(stats: Value<'_, '_>) -> Vec<Option<Times>> {
    let of = |one: Value<'_, '_>| {
        let stamp = |name: &str| one.attr(name)?.as_f64();
        let queued = stamp("wait_queue_entry_time")?;
        Some(Times::of_seconds(queued, stamp("forward_entry_time")?, stamp("prefill_finished_time")?))
    };
    stats.items().map(of).collect()
}

impl Outputs<'_> {
    /// Behind a cut the last column may be shorter than it was, or hold what belongs elsewhere.
    fn forget_unfinished(&mut self) {
        let rows = self.rids.len();
        for column in
            [&mut self.prompt, &mut self.generated, &mut self.cached, &mut self.new, &mut self.retractions]
        {
            if column.len() != rows {
                column.clear();
            }
        }
        if self.times.len() != rows {
            self.times.clear();
        }
        if self.reasons.len() != rows {
            // Nor is it known that the ids are all.
            *self = Self { generates: self.generates, is_cut: true, ..Self::default() };
        }
    }
}
