//! An adapter at work: fed with what is heard, believed as long as its checks hold.

use super::is_sent;
use crate::correlate::tap::{Occasion, Spoke, Standing};
use crate::decode::{CallData, ServerCall, ServerData, Way};
use crate::probe;
use crate::server::adapter::{Adapter, Batch, Call, Chunk, Frame, Health, Heard, Returned, What};
use crate::server::registry::{self, Source};
use crate::server::said::Said;
use std::collections::BTreeSet;

/// Requests whose counts may contradict the response before the adapter is given up; more of many are allowed.
const MOST_CONTRADICTIONS: u64 = 3;

/// How an adapter is, for summaries and views.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct SpeakerState {
    /// Its name.
    pub adapter: &'static str,
    /// The version of the server's formats that it has settled on.
    pub schema: Option<&'static str>,
    /// Processes that it has heard.
    pub pids: BTreeSet<u32>,
    /// Messages or calls that it should have understood.
    pub seen: u64,
    /// Of these, those that failed a check, and of which nothing was said.
    pub failed: u64,
    /// `ok`, or `demoted`: nothing that it said is used any more.
    pub state: &'static str,
    /// Why it was demoted, or why the last check failed.
    pub why: Option<&'static str>,
}

/// An adapter at work.
#[derive(Debug)]
pub struct Speaker {
    /// What it listens to.
    pub source: Source,
    adapter: Box<dyn Adapter>,
    demoted: Option<&'static str>,
    pids: BTreeSet<u32>,
    contradictions: u64,
}

impl Speaker {
    /// Those that listen to a source.
    pub fn of(source: Source, server: &str) -> impl Iterator<Item = Self> {
        registry::adapters(source, server).into_iter().map(move |adapter| Self::new(source, adapter))
    }

    /// One that listens to a source.
    pub fn new(source: Source, adapter: Box<dyn Adapter>) -> Self {
        Self { source, adapter, demoted: None, pids: BTreeSet::new(), contradictions: 0 }
    }

    /// Its name.
    pub fn name(&self) -> &'static str {
        self.adapter.name()
    }

    /// The version of formats that it has settled on.
    pub fn schema(&self) -> Option<&'static str> {
        self.adapter.schema()
    }

    /// How it is; none while it has met nothing that it should understand.
    pub fn state(&self) -> Option<SpeakerState> {
        let Health { seen, failed, why } = self.adapter.health();
        (seen > 0).then(|| SpeakerState {
            adapter: self.name(),
            schema: self.schema(),
            pids: self.pids.clone(),
            seen,
            failed,
            state: if self.demoted.is_some() { "demoted" } else { "ok" },
            why: self.demoted.or(why),
        })
    }

    /// One that has said nothing yet, in a replay.
    pub fn silent() -> Self {
        Self::new(Source::Frames, Box::new(Repeater { standing: Health::default(), spoke: None }))
    }

    /// How it stands, as a recording keeps it.
    pub fn standing(&self) -> Standing {
        let Health { seen, failed, why } = self.adapter.health();
        (seen, failed, why, self.schema(), self.demoted.is_some())
    }

    /// Says again what it said when a recording was made. False when it is not to be believed.
    pub fn repeat(&mut self, spoke: Spoke, out: &mut Vec<Said>) -> bool {
        let (occasion, pid) = (spoke.occasion, spoke.pid);
        self.source = spoke.source;
        self.adapter = Box::new(Repeater { standing: self.adapter.health(), spoke: Some(spoke) });
        match occasion {
            Occasion::Heard => {
                return self.hear(&Heard { pid, tid: 0, time_ns: 0, what: What::Snapshot(&[]) }, out);
            }
            Occasion::Ticked => self.tick(0, out),
            Occasion::Gone => self.process_gone(pid, 0, out),
        }
        true
    }

    /// Lets it hear something. False when it is not to be believed.
    pub fn hear(&mut self, heard: &Heard<'_>, out: &mut Vec<Said>) -> bool {
        if self.demoted.is_some() {
            return false;
        }
        let before = self.adapter.health().seen;
        self.adapter.hear(heard, out);
        let health = self.adapter.health();
        if health.seen > before {
            self.pids.insert(heard.pid);
        }
        if health.is_bad() {
            self.demote(health.why.unwrap_or("its checks failed"));
        }
        self.demoted.is_none()
    }

    /// Time passed.
    pub fn tick(&mut self, now_ns: u64, out: &mut Vec<Said>) {
        if self.demoted.is_none() {
            self.adapter.tick(now_ns, out);
        }
    }

    /// Its counts contradict a response. True when it is not to be believed any more.
    pub fn disagreed(&mut self, agreed: u64) -> bool {
        self.contradictions += 1;
        if self.contradictions >= MOST_CONTRADICTIONS && self.contradictions * 20 > agreed {
            self.demote("its token counts contradict those of the responses");
        }
        self.demoted.is_some()
    }

    /// A process is gone.
    pub fn process_gone(&mut self, pid: u32, time_ns: u64, out: &mut Vec<Said>) {
        if self.demoted.is_none() {
            self.adapter.process_gone(pid, time_ns, out);
        }
    }

    fn demote(&mut self, why: &'static str) {
        if self.demoted.is_none() {
            let Health { seen, failed, .. } = self.adapter.health();
            tracing::warn!(
                adapter = self.name(),
                seen,
                failed,
                why,
                "adapter demoted: what this server says inside is not understood, and is not used"
            );
            self.demoted = Some(why);
        }
    }
}

/// Stands for an adapter in a replay: says what that one said, whatever it hears.
#[derive(Debug)]
struct Repeater {
    standing: Health,
    spoke: Option<Spoke>,
}

impl Repeater {
    fn say(&mut self, out: &mut Vec<Said>) {
        let Some(spoke) = &mut self.spoke else { return };
        self.standing = Health { seen: spoke.checked, failed: spoke.failed, why: spoke.why };
        out.append(&mut spoke.said);
    }
}

impl Adapter for Repeater {
    fn name(&self) -> &'static str {
        self.spoke.as_ref().map_or("silent", |spoke| spoke.adapter)
    }

    fn hear(&mut self, _: &Heard<'_>, out: &mut Vec<Said>) {
        self.say(out);
    }

    fn health(&self) -> Health {
        self.standing
    }

    fn schema(&self) -> Option<&'static str> {
        self.spoke.as_ref().and_then(|spoke| spoke.schema)
    }

    fn tick(&mut self, _: u64, out: &mut Vec<Said>) {
        self.say(out);
    }

    fn process_gone(&mut self, _: u32, _: u64, out: &mut Vec<Said>) {
        self.say(out);
    }
}

/// What a call is to an adapter.
pub fn heard_call(call: &ServerCall, hear: &mut dyn FnMut(What<'_>)) {
    match &call.data {
        ServerData::Frame { way: Way::Ring, socket, bytes, .. } => {
            let slot = u32::try_from(*socket).unwrap_or(u32::MAX);
            hear(What::Ring(Chunk { slot, bytes }));
        }
        ServerData::Frame { way, socket, more, size, bytes } => {
            hear(What::Frame(Frame { sent: is_sent(*way), socket: *socket, more: *more, bytes, size: *size }))
        }
        ServerData::Batch(batch) => hear(What::Batch(Batch {
            context: batch.context,
            api: call.api,
            tokens: batch.tokens,
            embeddings: batch.embeddings,
            last_only: batch.last_only,
            runs: &batch.runs,
            unseen: batch.unseen,
        })),
        ServerData::List { args, words, .. } => with_symbol(call, hear, args, |call| call.array = words),
        ServerData::Call(data) => heard_data(call, data, hear),
    }
}

fn heard_data(call: &ServerCall, data: &CallData, hear: &mut dyn FnMut(What<'_>)) {
    match data {
        CallData::Entered { args, .. } => with_symbol(call, hear, args, |_| {}),
        CallData::Wide(wide) => with_symbol(call, hear, &wide.args, |_| {}),
        CallData::Returned { entered_ns, args, result, out, .. } => {
            let [first, _] = *out;
            let returned = Returned { entered_ns: *entered_ns, result: *result, out: first };
            with_symbol(call, hear, args, |call| {
                call.returned = Some(returned);
                call.array = out;
            });
        }
        CallData::Failed { result } => {
            let returned = Returned { entered_ns: 0, result: *result, out: 0 };
            with_symbol(call, hear, &[], |call| call.returned = Some(returned));
        }
        CallData::Named { handle, name, .. } => {
            let at_return = probe::api(call.api).is_some_and(probe::Api::is_paired);
            let returned = at_return.then_some(Returned { entered_ns: 0, result: 0, out: *handle });
            with_symbol(call, hear, &[*handle], |call| {
                call.returned = returned;
                call.text = Some(name);
            });
        }
        CallData::Launch(_) => {}
    }
}

fn with_symbol<'a>(
    call: &ServerCall,
    hear: &mut dyn FnMut(What<'_>),
    args: &'a [u64],
    fill: impl FnOnce(&mut Call<'a>),
) {
    let Some(api) = probe::api(call.api) else { return };
    let mut heard = Call { symbol: api.symbol, args, returned: None, text: None, array: &[] };
    fill(&mut heard);
    hear(What::Call(heard));
}
