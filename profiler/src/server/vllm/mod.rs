//! vLLM's V1 engine: what its processes tell each other over libzmq, and what the engine gives its workers.
//!
//! ```text
//! frame ─► pair ─► message (schema, checks) ─► engine (requests; checks against what is known) ─► gate ─► said
//! chunk ─► ring ─► schedule ───────────────────► step  (one for all messages of an iteration)
//! ```
//! In: frames of the engine and of its front ends, chunks of its ring. Out: requests, tokens, steps and gauges as the
//! engine has them. What a front end hears is used only where the engine itself is not heard. `arrival_time`, which is
//! a wall clock, is not used; prompts and tokens are counted, never kept.

mod ask;
mod engine;
mod gate;
mod ids;
mod message;
mod pair;
mod request;
mod ring;
mod schedule;
mod schema;
mod step;
#[cfg(test)]
mod tests;

use std::collections::HashMap;

use self::engine::{Engine, Hearing};
use self::gate::Gate;
use self::message::Why;
use self::pair::{Kind, Pairs};
use self::schema::Match;
use self::step::Came;
use super::adapter::{Adapter, Chunk, Frame, Health, Heard, What};
use super::said::{Reason, Said};

/// Engines of one server that are followed: its data-parallel ranks on this machine.
const MOST_ENGINES: usize = 256;

/// The adapter.
#[derive(Debug, Default)]
pub struct Vllm {
    pairs: Pairs,
    /// What engines hear and say, by process.
    engines: Side,
    /// What front ends hear and say: one account for all of them.
    fronts: Side,
    /// The front end that was heard last.
    front_pid: u32,
    /// An engine was heard: front ends repeat it.
    has_engine: bool,
    next: u64,
    health: Health,
}

/// Engines, as they are heard at one end.
#[derive(Debug, Default)]
struct Side {
    gate: Gate,
    engines: HashMap<u32, Engine>,
    said: Vec<Said>,
}

/// The engine of all front ends.
const FRONT: u32 = 0;

impl Vllm {
    fn frame(&mut self, heard: &Heard<'_>, frame: &Frame<'_>, out: &mut Vec<Said>) {
        let Some(kind) = self.pairs.take(heard.pid, frame) else { return self.settle(heard, out) };
        // The engine receives requests and sends outputs.
        let is_engine = match kind {
            Kind::Add | Kind::Abort | Kind::Other => !frame.sent,
            Kind::Array | Kind::Map | Kind::Dead => frame.sent,
        };
        if kind == Kind::Array && !self.may_be_outputs(heard.pid, is_engine, frame) {
            return;
        }
        if is_engine && matches!(kind, Kind::Add | Kind::Abort | Kind::Array) {
            self.engine_is_heard(heard, out);
        }
        if !is_engine && self.has_engine {
            return;
        }
        if !is_engine {
            self.front_pid = heard.pid;
        }
        let side = if is_engine { &mut self.engines } else { &mut self.fronts };
        let result = side.take(kind, is_engine, heard, frame, &mut self.next);
        match result {
            Ok(true) => self.health.pass(),
            Ok(false) => {}
            Err(why) => {
                self.health.fail(why);
                side.fail();
            }
        }
        if !self.health.is_bad() {
            side.gate.pass(&mut side.said, out);
        }
        side.said.clear();
    }

    fn ring(&mut self, heard: &Heard<'_>, chunk: &Chunk<'_>, out: &mut Vec<Said>) {
        let side = &mut self.engines;
        // Workers write to rings of their own; only an engine that was heard of makes steps.
        let Some(engine) = side.engines.get_mut(&heard.pid) else { return self.settle(heard, out) };
        let mut hearing = hearing(heard, &mut self.next, &mut side.said);
        engine.chunk(chunk.slot, heard.time_ns);
        match ring::schedule(chunk.bytes) {
            None => engine.tick(&mut hearing),
            Some(Ok(schedule)) => {
                engine.scheduled(&schedule, side.gate.version(), &mut hearing);
                self.health.pass();
            }
            Some(Err(why)) => self.health.fail(why),
        }
        side.gate.pass(&mut side.said, out);
    }

    /// A process that takes requests sends no other arrays than outputs; of other processes, only what has the form.
    fn may_be_outputs(&self, pid: u32, is_engine: bool, frame: &Frame<'_>) -> bool {
        let is_known = is_engine && self.engines.engines.contains_key(&pid);
        is_known || message::may_be_outputs(frame.bytes)
    }

    /// From now on front ends are not listened to.
    fn engine_is_heard(&mut self, heard: &Heard<'_>, out: &mut Vec<Said>) {
        if std::mem::replace(&mut self.has_engine, true) {
            return;
        }
        let mut fronts = std::mem::take(&mut self.fronts);
        if let (true, Some(mut engine)) = (fronts.gate.is_open(), fronts.engines.remove(&FRONT)) {
            let mut hearing = hearing(heard, &mut self.next, out);
            engine.end_all(Reason::Unsaid, &mut hearing);
        }
    }

    fn settle(&mut self, heard: &Heard<'_>, out: &mut Vec<Said>) {
        for side in [&mut self.engines, &mut self.fronts] {
            for (pid, engine) in &mut side.engines {
                let pid = if *pid == FRONT { heard.pid } else { *pid };
                let heard = Heard { pid, ..*heard };
                engine.tick(&mut hearing(&heard, &mut self.next, &mut side.said));
            }
            side.gate.pass(&mut side.said, out);
        }
    }
}

fn hearing<'a>(heard: &Heard<'_>, next: &'a mut u64, out: &'a mut Vec<Said>) -> Hearing<'a> {
    Hearing { pid: heard.pid, tid: heard.tid, time_ns: heard.time_ns, asks: false, next, out }
}

impl Side {
    /// Takes a message; whether it is one that counts.
    fn take(
        &mut self,
        kind: Kind,
        is_engine: bool,
        heard: &Heard<'_>,
        frame: &Frame<'_>,
        next: &mut u64,
    ) -> Result<bool, Why> {
        let is_cut = (frame.bytes.len() as u64) < frame.size;
        let key = if is_engine { heard.pid } else { FRONT };
        if !self.engines.contains_key(&key) && self.engines.len() >= MOST_ENGINES {
            return Ok(false);
        }
        if matches!(kind, Kind::Other | Kind::Map) {
            let named = ask::ready(frame.bytes, is_cut).filter(|_| kind == Kind::Map);
            if let Some(version) = named.and_then(schema::by_name) {
                self.gate.name(version);
            }
            return Ok(false);
        }
        let mut hearing = hearing(heard, next, &mut self.said);
        hearing.asks = !is_engine && kind == Kind::Add;
        let came = Came { socket: (heard.pid, frame.socket), is_engine };
        match kind {
            Kind::Add => {
                let read = match ask::add(frame.bytes, is_cut, self.gate.version()) {
                    Err(ask::TOO_SHORT) => return Ok(false),
                    read => read?,
                };
                if let Some((version, Match::Listed)) = read.version {
                    self.gate.asked(version);
                }
                let version = self.gate.version();
                self.engines.entry(key).or_default().add(&read.value, version, came, &mut hearing);
            }
            Kind::Abort => {
                let ids = ask::abort(frame.bytes, is_cut)?;
                self.engines.entry(key).or_default().abort(&ids, &mut hearing);
            }
            Kind::Dead => {
                if let Some(engine) = self.engines.get_mut(&key) {
                    engine.dead(&mut hearing);
                }
                return Ok(false);
            }
            _ => {
                let read = message::outputs(frame.bytes, is_cut, self.gate.known())?;
                self.gate.settle(read.version);
                let version = self.gate.version();
                let engine = self.engines.entry(key).or_default();
                let agreement = engine.outputs(&read.value, version, came, &mut hearing)?;
                self.gate.agree(agreement);
            }
        }
        Ok(true)
    }

    fn fail(&mut self) {
        self.said.clear();
        if self.gate.fail() {
            self.engines.clear();
        }
        self.engines.values_mut().for_each(Engine::lose);
    }
}

impl Adapter for Vllm {
    fn name(&self) -> &'static str {
        "vllm"
    }

    fn hear(&mut self, heard: &Heard<'_>, out: &mut Vec<Said>) {
        match &heard.what {
            What::Frame(frame) => self.frame(heard, frame, out),
            What::Ring(chunk) => self.ring(heard, chunk, out),
            _ => self.settle(heard, out),
        }
    }

    fn health(&self) -> Health {
        self.health
    }

    fn schema(&self) -> Option<&'static str> {
        self.engines.gate.schema().or(self.fronts.gate.schema())
    }

    fn tick(&mut self, now_ns: u64, out: &mut Vec<Said>) {
        self.settle(&Heard { pid: self.front_pid, tid: 0, time_ns: now_ns, what: What::Snapshot(&[]) }, out);
    }

    fn process_gone(&mut self, pid: u32, time_ns: u64, out: &mut Vec<Said>) {
        self.pairs.gone(pid);
        if let Some(mut engine) = self.engines.engines.remove(&pid) {
            let side = &mut self.engines;
            let mut hearing =
                Hearing { pid, tid: pid, time_ns, asks: false, next: &mut self.next, out: &mut side.said };
            engine.end_all(Reason::Unsaid, &mut hearing);
            side.gate.pass(&mut side.said, out);
        }
    }
}
