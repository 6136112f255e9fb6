//! What it costs to listen inside a server: vLLM's engine on the CPU, by libzmq.
//!
//! The price in the target is that of a probed message, measured as probed GPU calls are (`calls`), times the probed
//! messages of a token, counted on the real engine. gpuspan's own price is its CPU for a token with its adapters less
//! that without. Absent: the ring in shared memory by itself; its chunks are read at messages that are counted here.

use super::Effort;
use super::calls::{Drain, Place};
use super::spawn::{self, Account, Gpuspan};
use super::table::{Added, Goal, Table, median};
use crate::server::{self, Name, Options, Running, vllm};
use anyhow::{Context as _, Result, ensure};
use profiler::attach::{EmptyProgram, Kernel, KernelSettings, LinkKind, Links, Scope};
use profiler::probe::Layer;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use workload::client::{Range, StreamMode};
use workload::{ClientOptions, load};

/// gpuspan's CPU for a token inside, and the target's, nanoseconds.
const OWN_GOAL: Goal = Goal::AtMost(3000.0);
const TARGET_GOAL: Goal = Goal::AtMost(1000.0);

/// Streams at the same time: many share a step's messages, one has them for itself.
const STREAMS: [usize; 2] = [16, 1];
/// Rounds of each: an engine on the CPU is slow.
const ROUNDS: usize = 3;
/// A long load has so many times the requests of a short one: what gpuspan spends on starting and ending is in both.
const LONGER: usize = 4;
/// Tokens of an answer.
const TOKENS: usize = 100;
/// An engine's message for 16 tokens with its statistics.
const MESSAGE_BYTES: &str = "1300";
/// Messages of a round.
const MESSAGES: u64 = 4000;

/// Adds what a message costs, and what a token does.
pub fn measure(effort: Effort, table: &mut Table) -> Result<()> {
    let message = message(effort, table)?;
    let server = server::start(Name::Vllm, &Options::default())?;
    for streams in STREAMS {
        // The first round warms caches.
        ask(&server, streams, 1)?;
        let rounds = (0..effort.long_rounds.min(ROUNDS)).map(|_| Round::run(&server, streams));
        report(streams, &message, &rounds.collect::<Result<Vec<_>>>()?, table);
    }
    Ok(())
}

/// What the probe adds to a message: no probe, an empty one, gpuspan's, in turn.
fn message(effort: Effort, table: &mut Table) -> Result<Added> {
    let settings = KernelSettings { links: LinkKind::Multi, ..KernelSettings::default() };
    let mut kernel = Kernel::load(&settings)?;
    let empty = EmptyProgram::load()?;
    let drain = Drain::start(&mut kernel)?;
    let mut sender = Sender::start()?;
    let place = Place::at(sender.library()?, Layer::Zmq, "zmq_msg_send", sender.child.id())?;
    let (mut none, mut floor, mut full) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..effort.rounds {
        none.push(sender.time()?);
        {
            let _links = empty.attach(place.path(), place.pid, &place.library)?;
            floor.push(sender.time()?);
        }
        let _links = Links::attach(&mut kernel, Scope::ALL, place.path(), place.pid, &place.library)?;
        full.push(sender.time()?);
    }
    let added = Added::of(&floor, &full);
    let (none_ns, floor_ns) = (median(none.iter().copied()), median(floor.iter().copied()));
    table.fact(
        "message of 1,300 bytes (`zmq_msg_send`): no probe, empty probe",
        &format!("{none_ns:.0} ns, {floor_ns:.0} ns"),
    );
    table.fact("message: above an empty probe", &added.to_string());
    drain.stop()?;
    Ok(Added::of(&none, &full))
}

/// A process that sends messages on command; killed when dropped.
struct Sender {
    child: Child,
    commands: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl Sender {
    fn start() -> Result<Self> {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("bench/send_messages.py");
        let mut command = Command::new(vllm::python()?);
        command.arg(script).arg(MESSAGE_BYTES).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().context("failed to start the sender of messages")?;
        let commands = child.stdin.take().context("the sender has no input")?;
        let answers = BufReader::new(child.stdout.take().context("the sender has no output")?);
        let mut sender = Self { child, commands, answers };
        ensure!(sender.line()?.trim() == "ready", "the sender of messages is not ready");
        Ok(sender)
    }

    /// The copy of libzmq that it uses.
    fn library(&self) -> Result<PathBuf> {
        let maps = std::fs::read_to_string(format!("/proc/{}/maps", self.child.id()))?;
        let mut paths = maps.lines().filter_map(|line| line.split_whitespace().nth(5));
        Ok(paths.find(|path| path.contains("/libzmq")).context("the sender has no libzmq")?.into())
    }

    /// Nanoseconds of a message.
    fn time(&mut self) -> Result<f64> {
        writeln!(self.commands, "{MESSAGES}")?;
        self.line()?.trim().parse().context("the sender says no number")
    }

    fn line(&mut self) -> Result<String> {
        let mut line = String::new();
        self.answers.read_line(&mut line)?;
        Ok(line)
    }
}

impl Drop for Sender {
    fn drop(&mut self) {
        // Both fail only when it has ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The same load observed from outside and inside. What the engine's processes spend tells nothing: its workers spin
/// while they wait.
struct Round {
    /// CPU of gpuspan for a token, seconds; the former is none where the build cannot do without adapters.
    outside: Option<f64>,
    inside: f64,
    /// Probed messages for a token.
    messages: f64,
}

impl Round {
    fn run(server: &Running, streams: usize) -> Result<Self> {
        let requests = streams.max(4);
        let slope = |flags: &[&str]| -> Result<(f64, Account, u64)> {
            let (short, few) = observed(server, streams, requests, flags)?;
            let (long, many) = observed(server, streams, requests * LONGER, flags)?;
            Ok(((long.cpu_s - short.cpu_s) / (many - few) as f64, long, many))
        };
        let outside = spawn::knows("--adapters")?.then(|| slope(&["--adapters", "off"])).transpose()?;
        let (inside, account, heard) = slope(&[])?;
        Ok(Self {
            outside: outside.map(|(cpu_s, ..)| cpu_s),
            inside,
            messages: account.messages as f64 / heard as f64,
        })
    }
}

/// A load with gpuspan attached; how many tokens came.
fn observed(server: &Running, streams: usize, requests: usize, flags: &[&str]) -> Result<(Account, u64)> {
    let gpuspan = Gpuspan::attach_with(server.pid, flags)?;
    let tokens = ask(server, streams, requests)?;
    let account = gpuspan.stop()?;
    ensure!(account.lost == 0 && account.balanced, "gpuspan lost records");
    ensure!(account.requests >= requests as u64, "gpuspan saw {} of {requests} requests", account.requests);
    Ok((account, tokens))
}

/// How many tokens came: a random model may end before the limit.
fn ask(server: &Running, streams: usize, requests: usize) -> Result<u64> {
    let options = ClientOptions {
        requests,
        concurrency: streams,
        model: server.model.clone(),
        stream: StreamMode::True,
        max_tokens: Range { min: TOKENS, max: TOKENS },
        ..ClientOptions::new(&server.url)
    };
    let records = load(&options)?;
    let counted = records.iter().filter_map(|record| Some(record.usage?.completion_tokens)).sum::<u64>();
    ensure!(counted > (requests * TOKENS / 2) as u64, "{counted} tokens of {requests} answers");
    Ok(counted)
}

fn report(streams: usize, message: &Added, rounds: &[Round], table: &mut Table) {
    let name = format!("vLLM, {streams} streams at once");
    let of = |figure: fn(&Round) -> f64| median(rounds.iter().map(figure));
    let messages = of(|round| round.messages);
    table.fact(&format!("{name}: probed messages for a token"), &format!("{messages:.2}"));
    let target = messages * message.difference;
    let what = format!("{name}: added to the target for a token, messages times what the probe adds to one");
    judge(table, streams, &what, target, &TARGET_GOAL);
    let own = of(|round| round.inside * 1e6);
    table.fact(&format!("{name}: gpuspan's CPU for a token"), &format!("{own:.1} µs"));
    let added: Vec<f64> = rounds.iter().filter_map(adapters_ns).collect();
    if added.is_empty() {
        return table
            .fact(&format!("{name}: gpuspan's CPU for a token inside"), "this build cannot do without");
    }
    let what = format!("{name}: gpuspan's CPU for a token inside");
    match median(added) {
        ns if ns > 0.0 => judge(table, streams, &what, ns, &OWN_GOAL),
        ns => table.fact(&what, &format!("not resolved: {ns:.0} ns, less than the rounds differ by")),
    }
}

/// What its adapters add to gpuspan's CPU for a token, nanoseconds.
fn adapters_ns(round: &Round) -> Option<f64> {
    Some((round.inside - round.outside?) * 1e9)
}

/// One stream alone has every message of a step for its one token: that is said, and no goal.
fn judge(table: &mut Table, streams: usize, what: &str, ns: f64, goal: &Goal) {
    let text = format!("{ns:.0} ns");
    match streams {
        1 => table.fact(what, &text),
        _ => table.judge(what, ns, &text, goal, "ns"),
    }
}
