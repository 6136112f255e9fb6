//! What must hold of any engine: each request inside is one outside, its counts are those of the answer, its times are in
//! order, and its steps are its tokens.

use std::collections::HashSet;

use super::Window;
use super::account::{Account, Engine, Part, Request, Step};
use super::plan::{Asked, Record};

/// Between the engine's first token and the client's first text, at most and in the middle, on a machine whose two cores
/// are shared by an engine, its front end, gpuspan and the client.
const MOST_ON_THE_WAY_NS: u64 = 150_000_000;
const MEDIAN_ON_THE_WAY_NS: u64 = 15_000_000;

/// The adapter did well, and every request inside was found outside.
pub fn adapter_is_sound(window: &Window, adapter: &str, evidence: &str) {
    let engines = &window.account.engines;
    let mut ours = engines.adapters.iter().filter(|one| one.adapter == adapter && one.seen > 0).peekable();
    assert!(ours.peek().is_some(), "{engines:#?}");
    let processes: Vec<u32> =
        window.account.report.summary.target.processes.iter().map(|process| process.pid).collect();
    ours.for_each(|one| {
        assert_eq!((one.state.as_str(), one.failed, one.why.as_deref()), ("ok", 0, None), "{one:#?}");
        assert!(one.pids.iter().all(|pid| processes.contains(pid)), "{one:#?} {processes:?}");
    });
    sums_agree(window);
    window.account.steps.iter().for_each(|step| step_is_sound(step, adapter));
    let ranks: HashSet<u64> = window.account.steps.iter().map(|step| step.engine).collect();
    assert_eq!(ranks.len(), 1, "there is one engine: {ranks:?}");
    assert_eq!(engines.unjoined, 0, "{engines:#?}");
    assert!(engines.joined.keys().eq([evidence]), "{engines:#?}");
    let loss = &window.account.report.summary.loss;
    assert!(loss.balanced && loss.lost == 0, "{loss:#?}");
}

/// A step does not end before it starts; one whose members are all known has their tokens and no others.
fn step_is_sound(step: &Step, adapter: &str) {
    assert_eq!(step.adapter, adapter);
    assert!(step.start_ns.is_none_or(|start| start <= step.end_ns), "{step:#?}");
    assert!(
        step.members.iter().all(|member| ["E0", "E1", "E2"].contains(&member.evidence.as_str())),
        "{step:#?}"
    );
    if let (true, Some(tokens)) = (step.complete, step.tokens) {
        assert_eq!(tokens, step.members.iter().map(|member| member.computed).sum::<u64>(), "{step:#?}");
    }
}

/// The summary counts what was printed.
fn sums_agree(window: &Window) {
    let Account { steps, engines, .. } = &window.account;
    let members = || steps.iter().flat_map(|step| &step.members);
    assert_eq!(
        (engines.steps, engines.members),
        (steps.len() as u64, members().count() as u64),
        "{engines:#?}"
    );
    assert_eq!(engines.tokens, members().map(|member| member.generated).sum::<u64>(), "{engines:#?}");
    assert!(
        engines.gauges.iter().all(|one| one.kv_usage.is_none_or(|usage| (0.0..=1.0).contains(&usage))),
        "{engines:#?}"
    );
}

/// Everything that the client knows.
pub fn requests_agree(window: &Window, adapter: &str, evidence: &str) {
    let mut on_the_way: Vec<u64> = Vec::new();
    for (asked, record) in window.asked() {
        assert!(record.is_whole() || asked.abort.is_some(), "{asked:#?} {record:#?}");
        let request = window.account.of_record(record);
        let engine = engine(request);
        assert_eq!((engine.adapter.as_str(), engine.evidence.as_str()), (adapter, evidence), "{request:#?}");
        assert_eq!(engine.parts.len() as u64, asked.parts(), "{asked:#?} {request:#?}");
        engine.parts.iter().for_each(|part| {
            in_order(request, part);
            steps_are_tokens(&window.account, part);
        });
        assert!(window.knows(engine), "{engine:#?} {:#?}", window.account.engines);
        if record.is_whole() {
            assert_eq!(
                (request.status, request.outcome.as_str()),
                (Some(record.status), "completed"),
                "{request:#?}"
            );
            counts_agree(asked, record, request);
            reasons_agree(asked, record, engine);
        } else {
            assert_eq!(request.outcome, "aborted", "{request:#?}");
        }
        on_the_way.extend(engine.parts.iter().filter_map(|part| on_its_way(asked, record, engine, part)));
    }
    on_the_way.sort_unstable();
    let (median, most) = (on_the_way.get(on_the_way.len() / 2), on_the_way.last());
    let (median, most) = (*median.unwrap(), *most.unwrap());
    println!("the client has first tokens {:.1} ms after the engine, at most {:.1} ms", ms(median), ms(most));
    assert!(median < MEDIAN_ON_THE_WAY_NS && most < MOST_ON_THE_WAY_NS, "{on_the_way:?}");
}

impl Window {
    /// Request and summary name the same adapter with the same schema.
    fn knows(&self, engine: &Engine) -> bool {
        let mut adapters = self.account.engines.adapters.iter();
        adapters.any(|one| one.adapter == engine.adapter && one.schema == engine.schema)
    }
}

pub fn engine(request: &Request) -> &Engine {
    request.engine.as_ref().unwrap_or_else(|| panic!("nothing is known of the inside of {request:#?}"))
}

pub fn ms(ns: u64) -> f64 {
    ns as f64 / 1e6
}

/// States in their order, in the request's own time. The engine may go on for a moment after a client has left.
fn in_order(request: &Request, part: &Part) {
    // An end that nobody said is one that was noticed, by a call around the last token's.
    let said_end = part.ended_ns.filter(|_| part.reason.as_deref() != Some("unsaid"));
    let times = [
        request.arrived_ns,
        part.enqueued_ns,
        part.scheduled_ns,
        part.prefilling_ns,
        part.first_token_ns,
        part.last_token_ns,
        said_end,
    ];
    assert!(times.iter().flatten().is_sorted(), "{part:#?} {request:#?}");
    if request.outcome == "completed" {
        let last = times.iter().flatten().last().unwrap();
        assert!(part.reason.as_deref() == Some("front_end") || *last <= request.ended_ns, "{request:#?}");
    }
}

/// Each token came out of a step that the request was in, at the end of it.
fn steps_are_tokens(account: &Account, part: &Part) {
    let of_part: Vec<_> = account.steps_of(part.inner).collect();
    let tokens: u64 = of_part.iter().map(|(_, member)| member.generated).sum();
    assert_eq!(tokens, part.generated_tokens, "{part:#?} {of_part:#?}");
    // Where the front end ends a request, steps that were made before the engine heard of it come after its end.
    let late = if part.reason.as_deref() == Some("front_end") { 2 } else { 0 };
    let late = part.steps..=part.steps + late;
    assert!(late.contains(&(of_part.len() as u64)), "{late:?}: {part:#?} {of_part:#?}");
    let mut ends = of_part.iter().filter(|(_, member)| member.generated > 0).map(|(step, _)| step.end_ns);
    let first = ends.next();
    assert_eq!(first, part.first_token_ns, "{part:#?} {of_part:#?}");
    assert_eq!(ends.next_back().or(first), part.last_token_ns, "{part:#?} {of_part:#?}");
}

/// The answer's `usage` is the truth. Where the front end ends an answer, the engine is some tokens ahead.
fn counts_agree(asked: &Asked, record: &Record, request: &Request) {
    let usage = record.usage.as_ref().unwrap();
    let parts = &engine(request).parts;
    let sum = |count: fn(&Part) -> u64| parts.iter().map(count).sum::<u64>();
    let prompts = sum(|part| part.prompt_tokens.unwrap());
    assert_eq!(prompts, usage.prompt_tokens * asked.n(), "{record:#?} {request:#?}");
    let generated = sum(|part| part.generated_tokens);
    if asked.has_stop_string() {
        let ahead = generated.checked_sub(usage.completion_tokens);
        assert!(ahead.is_some_and(|ahead| ahead <= 4), "{record:#?} {request:#?}");
    } else {
        assert_eq!(generated, usage.completion_tokens, "{record:#?} {request:#?}");
    }
    let cached = usage.prompt_tokens_details.as_ref().and_then(|details| details.cached_tokens);
    if let (Some(cached), [part]) = (cached, parts.as_slice()) {
        assert_eq!(part.cached_tokens.unwrap_or(0), cached, "{record:#?} {request:#?}");
    }
    assert_eq!(request.input_tokens, Some(usage.prompt_tokens), "{request:#?}");
    assert_eq!(request.output_tokens, Some(usage.completion_tokens), "{request:#?}");
}

/// A stop string is seen by the front end alone.
fn reasons_agree(asked: &Asked, record: &Record, engine: &Engine) {
    for part in &engine.parts {
        let Some(reason) =
            choice(asked, engine, part).and_then(|choice| record.reasons.get(&choice.to_string()))
        else {
            continue;
        };
        let said = part.reason.as_deref();
        // Of llama.cpp's engine only its batches are heard, and batches have no reasons.
        let agrees = said.is_none_or(|said| said == "unsaid" || said == reason)
            || (said == Some("front_end") && asked.has_stop_string());
        assert!(agrees, "{reason}: {part:#?} {record:#?}");
    }
}

/// The choice of the answer that a request inside is, where that is said.
fn choice(asked: &Asked, engine: &Engine, part: &Part) -> Option<u64> {
    if engine.parts.len() == 1 {
        return Some(0);
    }
    // Of several prompts with several answers each, one number does not tell.
    part.part.filter(|_| asked.n() == 1 || asked.n() == asked.parts())
}

/// Between the engine's first token and the client's first text; never less than nothing.
fn on_its_way(asked: &Asked, record: &Record, engine: &Engine, part: &Part) -> Option<u64> {
    if !asked.is_streamed() {
        return None;
    }
    let text = record.first_text_ns(choice(asked, engine, part)?)?;
    let token = part.first_token_ns.unwrap_or_else(|| panic!("text without a token: {record:#?} {part:#?}"));
    let distance = text.checked_sub(token);
    Some(distance.unwrap_or_else(|| panic!("text before its token: {record:#?} {part:#?}")))
}
