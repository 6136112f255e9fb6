//! What a recording holds, as types.
//!
//! In: [`Input`]s and [`Event`]s. Out: the same without the bytes of sockets, messages and shared memory, and back. The
//! types below have no place for such bytes; what stands for them is what the parsers said ([`Parsed`]).

use super::catalogue::Catalogue;
use crate::attach::Learnt;
use crate::correlate::{KernelKey, Parsed};
use crate::decode::{
    self, Burst, Change, Direction, End as Ended, Event, GpuCall, ServerCall, ServerData, Socket,
    SpanContext, Stack, Tie,
};
use crate::device::Reading;
use crate::facts::{Called, Ending, Facts};
use crate::interned::{self, Name};
use crate::server::Limits;
use crate::session::Input;
use crate::span::model::Resource;
use crate::target::Address;
use profiler_common::event::{Count, CountKey};
use serde::{Deserialize, Serialize};
use std::collections::VecDeque;
use std::sync::Arc;

/// One record of a recording.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Record {
    /// The first one.
    Header(Box<Header>),
    /// What the correlating thread took.
    Entry(Entry),
    /// What kernels are called: behind the entries.
    Kernels(Vec<(KernelKey, Called)>),
    /// What else the controlling side knew at the end.
    Facts(Box<Facts>),
    /// The last one.
    End(Box<End>),
}

/// What must be known before the first entry.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Header {
    /// Version of the gpuspan that made it.
    pub gpuspan: String,
    /// The machine's kernel and architecture.
    pub kernel: String,
    /// Likewise.
    pub arch: String,
    /// The pid that was asked for.
    pub pid: u32,
    /// What ids are made from.
    pub seed: u64,
    /// When it began, Unix time, nanoseconds.
    pub unix_ns: u64,
    /// What Unix time was ahead of `CLOCK_MONOTONIC`, nanoseconds.
    pub unix_offset_ns: i64,
    /// The resource of that process.
    pub resource: Resource,
    /// Names of the probed functions: calls have their numbers.
    pub functions: Vec<String>,
}

/// How a recording ended.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct End {
    /// Entries in it.
    pub entries: u64,
    /// Events in them.
    pub events: u64,
    /// Entries that found no room.
    pub lost_entries: u64,
    /// Events that found no room.
    pub lost_events: u64,
    /// How the observation ended.
    pub ending: Ending,
}

/// One input, and what the parsers made of it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Entry {
    /// The input.
    pub what: What,
    /// What was made of it: of events, each has its own.
    #[serde(default, skip_serializing_if = "Parsed::is_empty")]
    pub parsed: Parsed,
}

/// An [`Input`] without bytes.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum What {
    Events(Vec<Happened>),
    Learnt(Learnt, Resource),
    Listener { pid: u32, fd: u32, address: Address },
    Serves(#[serde(deserialize_with = "interned::one")] Name),
    Limits(Limits),
    Shape { model: String, kv_bytes: u64 },
    Snapshot { pid: u32, time_ns: u64 },
    Gone { pid: u32, time_ns: u64 },
    Tick { now_ns: u64, unix_offset_ns: i64 },
    Counting,
    Counted { sums: Vec<Sum>, threads: Vec<(u32, u32, Burst)> },
    Named(Vec<(KernelKey, Option<String>)>),
    Devices(Box<Reading>),
    Finish,
}

/// A count of the kernel side: function, process, number of the function, detail, count, bytes.
pub type Sum = (u64, u32, u16, u16, u64, u64);

/// An event without bytes, and what the parsers made of it: process, thread, time, what.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Happened(pub u32, pub u32, pub u64, pub Body, pub Parsed);

/// [`decode::Body`] without bytes.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Body {
    Gpu(GpuCall),
    Stack(Box<Stack>),
    Burst(Burst),
    Opened {
        connection: u64,
        fd: u32,
        listener_fd: u32,
    },
    /// Bytes went through: only that they did.
    Moved(u64, Direction),
    Ended {
        connection: u64,
        fd: u32,
        end: Ended,
        received: u64,
        sent: u64,
    },
    Secured {
        connection: u64,
        new: bool,
    },
    Carried {
        connection: u64,
        carrier: u64,
        tie: Tie,
    },
    /// A function of a server was called: only which.
    Server(u16),
    Process(Change),
    /// The thread works for another span, or for none.
    Context(Option<SpanContext>),
}

impl From<&Event> for Happened {
    fn from(event: &Event) -> Self {
        Self(event.pid, event.tid, event.time_ns, Body::from(&event.body), Parsed::default())
    }
}

impl From<&decode::Body> for Body {
    fn from(body: &decode::Body) -> Self {
        match body {
            decode::Body::Gpu(call) => Self::Gpu(call.clone()),
            decode::Body::Stack(stack) => Self::Stack(stack.clone()),
            decode::Body::Burst(burst) => Self::Burst(*burst),
            decode::Body::Socket(socket) => Self::from(socket),
            decode::Body::Server(call) => Self::Server(call.api),
            decode::Body::Process(change) => Self::Process(*change),
            decode::Body::Context(context) => Self::Context(*context),
        }
    }
}

impl From<&Socket> for Body {
    fn from(socket: &Socket) -> Self {
        match *socket {
            Socket::Opened { connection, fd, listener_fd } => Self::Opened { connection, fd, listener_fd },
            Socket::Data { connection, direction, .. } => Self::Moved(connection, direction),
            Socket::Ended { connection, fd, end, received, sent } => {
                Self::Ended { connection, fd, end, received, sent }
            }
            Socket::Secured { connection, new } => Self::Secured { connection, new },
            Socket::Carried { connection, carrier, tie } => Self::Carried { connection, carrier, tie },
        }
    }
}

impl From<Body> for decode::Body {
    fn from(body: Body) -> Self {
        match body {
            Body::Gpu(call) => Self::Gpu(call),
            Body::Stack(stack) => Self::Stack(stack),
            Body::Burst(burst) => Self::Burst(burst),
            Body::Server(api) => {
                // Nobody reads it: what it said stands beside it.
                let data = ServerData::List { args: [0; 6], count: 0, words: Vec::new() };
                Self::Server(ServerCall { api, data })
            }
            Body::Process(change) => Self::Process(change),
            Body::Context(context) => Self::Context(context),
            Body::Opened { connection, fd, listener_fd } => {
                Self::Socket(Socket::Opened { connection, fd, listener_fd })
            }
            Body::Moved(connection, direction) => {
                let (position, bytes, lost_after) = (0, Vec::new(), 0);
                Self::Socket(Socket::Data { connection, direction, position, bytes, lost_after })
            }
            Body::Ended { connection, fd, end, received, sent } => {
                Self::Socket(Socket::Ended { connection, fd, end, received, sent })
            }
            Body::Secured { connection, new } => Self::Socket(Socket::Secured { connection, new }),
            Body::Carried { connection, carrier, tie } => {
                Self::Socket(Socket::Carried { connection, carrier, tie })
            }
        }
    }
}

impl From<&Input> for What {
    /// Of events nothing is taken: they come one by one, with what is made of each.
    fn from(input: &Input) -> Self {
        match input {
            Input::Events(events) => Self::Events(Vec::with_capacity(events.len())),
            Input::Learnt(learnt, resource) => Self::Learnt(learnt.clone(), resource.as_ref().clone()),
            Input::Listener { pid, fd, address } => {
                Self::Listener { pid: *pid, fd: *fd, address: address.clone() }
            }
            Input::Serves(server) => Self::Serves(server),
            Input::Limits(limits) => Self::Limits(*limits),
            Input::Shape { model, kv_bytes } => Self::Shape { model: model.clone(), kv_bytes: *kv_bytes },
            Input::Snapshot { pid, time_ns, .. } => Self::Snapshot { pid: *pid, time_ns: *time_ns },
            Input::Gone { pid, time_ns } => Self::Gone { pid: *pid, time_ns: *time_ns },
            Input::Tick { now_ns, unix_offset_ns } => {
                Self::Tick { now_ns: *now_ns, unix_offset_ns: *unix_offset_ns }
            }
            Input::Counting => Self::Counting,
            Input::Counted { sums, threads } => {
                let sum = |(key, count): &(CountKey, Count)| {
                    (key.function, key.tgid, key.api, key.detail, count.count, count.bytes)
                };
                Self::Counted { sums: sums.iter().map(sum).collect(), threads: threads.clone() }
            }
            Input::Named(kernels) => {
                let text = |name: &Option<Arc<str>>| name.as_ref().map(|name| name.as_ref().to_owned());
                Self::Named(kernels.iter().map(|(kernel, name)| (*kernel, text(name))).collect())
            }
            Input::Devices(reading) => Self::Devices(reading.clone()),
            Input::Finish => Self::Finish,
        }
    }
}

/// An entry, ready to be taken again.
#[derive(Debug)]
pub struct Again {
    /// What the correlating thread took.
    pub input: Input,
    /// What the parsers made of each event, or of the one input.
    pub parsed: VecDeque<Parsed>,
    /// Events and counts of functions that this program does not know.
    pub unknown: u64,
}

impl Entry {
    /// Events in it.
    #[must_use]
    pub fn events(&self) -> u64 {
        if let What::Events(events) = &self.what { events.len() as u64 } else { 0 }
    }

    /// The input that it was.
    #[must_use]
    pub fn again(self, catalogue: &Catalogue) -> Again {
        let mut parsed = VecDeque::from([self.parsed]);
        let mut unknown = 0;
        let input = match self.what {
            What::Events(events) => {
                let all = events.len() as u64;
                let known = events.into_iter().filter_map(|happened| happened.again(catalogue));
                let (events, words): (Vec<_>, VecDeque<_>) = known.unzip();
                parsed = words;
                unknown = all - events.len() as u64;
                Input::Events(events)
            }
            What::Counted { sums, threads } => {
                let all = sums.len() as u64;
                let sum = |(function, tgid, api, detail, count, bytes)| {
                    let key = catalogue.key(CountKey { function, tgid, api, detail })?;
                    Some((key, Count { count, bytes }))
                };
                let sums: Vec<_> = sums.into_iter().filter_map(sum).collect();
                unknown = all - sums.len() as u64;
                Input::Counted { sums, threads }
            }
            What::Learnt(learnt, resource) => Input::Learnt(learnt, Arc::new(resource)),
            What::Listener { pid, fd, address } => Input::Listener { pid, fd, address },
            What::Serves(server) => Input::Serves(server),
            What::Limits(limits) => Input::Limits(limits),
            What::Shape { model, kv_bytes } => Input::Shape { model, kv_bytes },
            What::Snapshot { pid, time_ns } => Input::Snapshot { pid, time_ns, bytes: Vec::new() },
            What::Gone { pid, time_ns } => Input::Gone { pid, time_ns },
            What::Tick { now_ns, unix_offset_ns } => Input::Tick { now_ns, unix_offset_ns },
            What::Counting => Input::Counting,
            What::Named(kernels) => {
                let name = |name: Option<String>| name.map(Arc::from);
                Input::Named(kernels.into_iter().map(|(kernel, short)| (kernel, name(short))).collect())
            }
            What::Devices(reading) => Input::Devices(reading),
            What::Finish => Input::Finish,
        };
        Again { input, parsed, unknown }
    }
}

impl Happened {
    fn again(self, catalogue: &Catalogue) -> Option<(Event, Parsed)> {
        let Self(pid, tid, time_ns, body, parsed) = self;
        Some((catalogue.event(Event { pid, tid, time_ns, body: body.into() })?, parsed))
    }
}
