//! Frames of SGLang's processes become what was said.

use std::collections::{BTreeMap, BTreeSet};

use super::message::{Input, Message, Outputs, Times};
use super::request::{Engine, New, Requests, Voice};
use super::step::{self, Around, Row};
use super::{load, packed, pickled};
use crate::server::adapter::{Adapter, Frame, Health, Heard, What};
use crate::server::codec::pickle::{self, Tree};
use crate::server::said::{Counts, Gauges, Moment, Reason, Said, Saying};

/// Processes of one kind that are kept apart. No server has more.
const MOST_PROCESSES: usize = 1024;
/// The class of a message stands within its first bytes, in both formats.
const CLASS_WITHIN: usize = 192;
/// Stamps lie within this much of what was seen: clocks are the same, but messages wait.
const SLACK_NS: u64 = 1_000_000_000;
/// Requests are told to be gone when their engine had been empty this long after they came.
const SETTLED_NS: u64 = 1_000_000_000;

/// What SGLang's processes say.
#[derive(Debug, Default)]
pub struct SgLang {
    health: Health,
    schema: Option<&'static str>,
    requests: Requests,
    /// Processes that send requests: front ends, and a controller of data parallelism.
    askers: BTreeSet<u32>,
    /// A scheduler was heard sending: nobody else needs to be heard receiving.
    hears_schedulers: bool,
    /// Processes that send outputs on: what they send was said before.
    relays: BTreeSet<u32>,
    /// When each engine's load last said that nothing waits, and how many run.
    engines: BTreeMap<Engine, Option<(u64, u64)>>,
}

impl Adapter for SgLang {
    fn name(&self) -> &'static str {
        "sglang"
    }

    fn hear(&mut self, heard: &Heard<'_>, out: &mut Vec<Said>) {
        let mut voice = Voice { pid: heard.pid, time_ns: heard.time_ns, out };
        match heard.what {
            What::Frame(frame) => self.frame(heard, &frame, &mut voice),
            What::Snapshot(file) => self.snapshot(file, &mut voice),
            _ => {}
        }
    }

    fn health(&self) -> Health {
        self.health
    }

    fn schema(&self) -> Option<&'static str> {
        self.schema
    }

    fn process_gone(&mut self, pid: u32, time_ns: u64, out: &mut Vec<Said>) {
        let was_only = self.engines.keys().all(|engine| engine.0 == pid);
        let before = self.engines.len();
        self.engines.retain(|engine, _| engine.0 != pid);
        self.askers.remove(&pid);
        self.relays.remove(&pid);
        if self.engines.len() == before {
            return;
        }
        let mut voice = Voice { pid, time_ns, out };
        let lost = self.requests.take(|request| request.engine.map_or(was_only, |engine| engine.0 == pid));
        for request in lost {
            voice.say(Saying::Ended { inner: request.inner, reason: Reason::Error, at_ns: time_ns });
        }
        voice.say(Saying::EngineDead);
    }
}

impl SgLang {
    fn frame(&mut self, heard: &Heard<'_>, frame: &Frame<'_>, voice: &mut Voice<'_>) {
        let start = frame.bytes.get(..CLASS_WITHIN.min(frame.bytes.len())).unwrap_or_default();
        let names = |class: &[u8]| memchr::memmem::find(start, class).is_some();
        // The text of what was said, or its arrival at those who make text of it.
        let is_text = names(b"BatchStrOutput");
        if is_text || !frame.sent && names(b"BatchTokenIDOutput") {
            note(&mut self.relays, heard.pid);
        }
        // What a scheduler sends is heard again where it arrives: that counts only where sending is not heard.
        if is_text || !frame.sent && self.hears_schedulers && !names(b"Tokenized") {
            return;
        }
        let is_cut = (frame.bytes.len() as u64) < frame.size;
        let (read, schema) = if pickle::looks_like(frame.bytes) {
            (pickled::read(&Tree::read(frame.bytes)), "0.5.23 pickle")
        } else {
            (packed::read(frame.bytes, is_cut), "0.5.23 msgpack")
        };
        let taken = match read {
            Ok(None) => return,
            Ok(Some(message)) => self.message(heard, frame.sent, &message, schema, voice),
            Err(why) => Err(why),
        };
        match taken {
            Ok(()) => self.health.pass(),
            Err(why) => self.health.fail(why),
        }
    }

    fn message(
        &mut self,
        heard: &Heard<'_>,
        sent: bool,
        message: &Message<'_>,
        schema: &'static str,
        voice: &mut Voice<'_>,
    ) -> Result<(), &'static str> {
        match message {
            Message::Inputs(inputs) if sent => {
                note(&mut self.askers, heard.pid);
                inputs.iter().for_each(|input| self.asked(input, voice));
            }
            Message::Inputs(inputs) => inputs.iter().for_each(|input| self.received(input, voice)),
            Message::Outputs(outputs) if !sent || !self.relays.contains(&heard.pid) => {
                self.hears_schedulers |= sent;
                self.outputs(outputs, voice)?;
                self.schema = Some(schema);
            }
            Message::Abort(rid) => self.abort(rid, voice),
            Message::Outputs(_) | Message::Other => {}
        }
        Ok(())
    }

    /// The front end, or a controller behind it, sends a request.
    fn asked(&mut self, input: &Input<'_>, voice: &mut Voice<'_>) {
        if self.requests.get(input.rid).is_some() {
            return;
        }
        let Input { rid, prompt, streams, generates } = *input;
        self.requests.meet(rid, New { prompt, streams, generates, from_start: true }, voice);
    }

    /// The scheduler has a request.
    fn received(&mut self, input: &Input<'_>, voice: &mut Voice<'_>) {
        self.asked(input, voice);
        if let Some(request) = self.requests.get_mut(input.rid) {
            // With a controller in between, the last to receive it is the scheduler.
            request.received_ns = Some(voice.time_ns);
        }
    }

    /// A front end asks for an end: what happens is then said by the scheduler. A scheduler says this of a request that
    /// never ran.
    fn abort(&mut self, rid: &str, voice: &mut Voice<'_>) {
        let is_front = self.askers.contains(&voice.pid);
        let Some(request) = self.requests.get_mut(rid) else { return };
        request.tell_queue(None, voice);
        request.is_unwanted = true;
        if !is_front && self.engines.keys().any(|engine| engine.0 == voice.pid) {
            self.end(rid, Reason::Abort, voice);
        }
    }

    fn end(&mut self, rid: &str, reason: Reason, voice: &mut Voice<'_>) {
        if let Some(request) = self.requests.remove(rid) {
            voice.say(Saying::Ended { inner: request.inner, reason, at_ns: voice.time_ns });
        }
    }

    /// A step's outputs: nothing is said before every row has passed.
    fn outputs(&mut self, outputs: &Outputs<'_>, voice: &mut Voice<'_>) -> Result<(), &'static str> {
        if outputs.rids.is_empty() {
            // A rank that idles with the others.
            return Ok(());
        }
        let mut rows = Vec::with_capacity(outputs.rids.len());
        for (n, rid) in outputs.rids.iter().enumerate() {
            let known = self.requests.get(rid);
            check_times(outputs.times.get(n).copied().flatten(), voice.time_ns)?;
            rows.push((*rid, Row::of(outputs, n, known)?));
        }
        let engine = (voice.pid, outputs.rank);
        if self.engines.len() < MOST_PROCESSES {
            self.engines.entry(engine).or_default();
        }
        for (n, (rid, row)) in rows.iter().enumerate() {
            self.row(outputs, n, rid, row.as_ref(), voice);
        }
        let around = self.around(engine);
        let step = match outputs.generates {
            true => step::of(&rows, &mut self.requests, &around, voice.time_ns),
            false => Some(step::of_prompts(&outputs.rids, &self.requests, engine, voice.time_ns)),
        };
        self.keep_totals(&rows, engine);
        if let Some(step) = step {
            voice.say(Saying::Step(Box::new(step)));
        }
        for (rid, reason) in outputs.rids.iter().zip(&outputs.reasons) {
            if let Some(reason) = reason {
                self.end(rid, *reason, voice);
            }
        }
        Ok(())
    }

    /// What one row says of its request.
    fn row(&mut self, outputs: &Outputs<'_>, n: usize, rid: &str, row: Option<&Row>, voice: &mut Voice<'_>) {
        let prompt = outputs.prompt.get(n).copied();
        if self.requests.get(rid).is_none() {
            let new = New { prompt, streams: None, generates: outputs.generates, from_start: false };
            self.requests.meet(rid, new, voice);
            if let Some(request) = self.requests.get_mut(rid) {
                // What happened before it was met is not told.
                request.retractions = outputs.retractions.get(n).copied().unwrap_or(0);
            }
        }
        let Some(request) = self.requests.get_mut(rid) else { return };
        let times = outputs.times.get(n).copied().flatten();
        request.tell_queue(times, voice);
        let retractions = outputs.retractions.get(n).copied().unwrap_or(request.retractions);
        if retractions > request.retractions {
            // It was in no step since; when exactly it lost its place is not said.
            let at_ns = request.missed_ns.unwrap_or(voice.time_ns);
            voice.reached(request.inner, Moment::Preempted, at_ns, crate::evidence::Evidence::E2);
        }
        (request.retractions, request.missed_ns) = (retractions, None);
        if let Some(row) = row {
            let first = times
                .map(|times| times.first)
                .filter(|at| *at > 0 && row.is_late && row.delta == row.generated);
            let early = u64::from(first.is_some());
            voice.tokens(request.inner, early, first.unwrap_or_default());
            voice.tokens(request.inner, row.delta - early, voice.time_ns);
        }
        let generated = row.map(|row| row.generated);
        let counts = Counts { prompt, cached: outputs.cached.get(n).copied(), generated };
        voice.say(Saying::Counts { inner: request.inner, counts });
    }

    fn keep_totals(&mut self, rows: &[(&str, Option<Row>)], engine: Engine) {
        for (rid, row) in rows {
            let Some(request) = self.requests.get_mut(rid) else { continue };
            request.engine = Some(engine);
            request.is_behind = row.is_none();
            request.generated = row.as_ref().map(|row| row.generated).or(request.generated);
        }
    }

    fn around(&self, engine: Engine) -> Around {
        let is_only = self.engines.len() == 1;
        let live = self.requests.all().count() as u64;
        let load = self.engines.get(&engine).copied().flatten();
        // More than one engine share the requests: their number says nothing then.
        let all_run_ns = load.filter(|(_, running)| is_only && *running >= live).map(|(at, _)| at);
        Around { engine, is_only, all_run_ns }
    }

    fn snapshot(&mut self, file: &[u8], voice: &mut Voice<'_>) {
        let Some(loads) = load::read(file) else {
            self.health.fail("a load snapshot of another version");
            return;
        };
        self.health.pass();
        for load in loads {
            self.loaded(&load, voice);
            voice.say(Saying::Gauges(load));
        }
    }

    fn loaded(&mut self, load: &Gauges, voice: &mut Voice<'_>) {
        let (running, waiting) = (load.running.unwrap_or(0), load.waiting.unwrap_or(0));
        let is_only = self.engines.len() == 1;
        for (_, said) in self.engines.iter_mut().filter(|(engine, _)| engine.1 == load.engine) {
            *said = (waiting == 0).then_some((voice.time_ns, running));
        }
        if is_only && running == 0 && waiting == 0 {
            let old = voice.time_ns.saturating_sub(SETTLED_NS);
            // A load may be older than a long first step: only of requests that were given up nothing more will come.
            for request in self.requests.take(|request| request.met_ns < old && request.is_unwanted) {
                voice.say(Saying::Ended {
                    inner: request.inner,
                    reason: Reason::Unsaid,
                    at_ns: voice.time_ns,
                });
            }
        }
    }
}

fn note(pids: &mut BTreeSet<u32>, pid: u32) {
    if pids.len() < MOST_PROCESSES {
        pids.insert(pid);
    }
}

/// Stamps are in order, and not of the future.
fn check_times(times: Option<Times>, now_ns: u64) -> Result<(), &'static str> {
    let Some(Times { queued, scheduled, first }) = times else { return Ok(()) };
    let stamps = [queued, scheduled, first];
    let in_order = stamps.iter().filter(|at| **at > 0).is_sorted();
    match in_order && stamps.iter().all(|at| *at <= now_ns.saturating_add(SLACK_NS)) {
        true => Ok(()),
        false => Err("stamps out of order, or of another clock"),
    }
}
