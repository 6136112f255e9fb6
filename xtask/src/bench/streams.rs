//! gpuspan under streamed answers: 32 streams of 50,000 chunks a second, by each protocol that it reads.
//!
//! The measured process writes (`serving`), this one reads and throws away. What counts is gpuspan's own CPU for a
//! chunk, start, end and idle time taken off, and whether the ring held everything.

use super::Effort;
use super::openssl::{Openssl, Side};
use super::serving::{self, Protocol, STREAMS};
use super::spawn::{Account, Gpuspan};
use super::table::{Goal, Table, median};
use super::target::{Streamed, Target};
use anyhow::{Result, ensure};
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

/// Chunks a second, all streams together: 256 streams of 200 tokens a second.
const RATE: u64 = 50_000;

/// gpuspan's CPU for a chunk, nanoseconds.
const CPU_GOAL: Goal = Goal::AtMost(2000.0);
const LOSS_GOAL: Goal = Goal::AtMost(0.0);

const PROTOCOLS: [(Protocol, &str); 3] = [
    (Protocol::Http1, "HTTP/1.1 events"),
    (Protocol::Http2, "HTTP/2 events"),
    (Protocol::Tls, "HTTP/1.1 events by OpenSSL"),
];

/// Adds a run of each protocol.
pub fn measure(target: &mut Target, effort: Effort, table: &mut Table) -> Result<()> {
    let duration = Duration::from_secs(effort.pipeline_s);
    for (protocol, name) in PROTOCOLS {
        // Unobserved: it loads what it needs, and says whether it can.
        if let Err(error) = run(target, protocol, Duration::from_millis(200)) {
            table.fact(name, &format!("not measured: {error:#}"));
            return Ok(());
        }
        let idle = {
            let gpuspan = Gpuspan::attach(target.pid())?;
            std::thread::sleep(duration);
            gpuspan.stop()?
        };
        let rounds = (0..effort.long_rounds.min(5)).map(|_| observed(target, protocol, duration));
        report(name, &idle, &rounds.collect::<Result<Vec<_>>>()?, table);
    }
    Ok(())
}

/// A run with gpuspan attached.
fn observed(target: &mut Target, protocol: Protocol, duration: Duration) -> Result<(Streamed, Account)> {
    let gpuspan = Gpuspan::attach(target.pid())?;
    let streamed = run(target, protocol, duration)?;
    let account = gpuspan.stop()?;
    ensure!(account.balanced, "gpuspan's loss equations do not hold");
    Ok((streamed, account))
}

fn report(name: &str, idle: &Account, rounds: &[(Streamed, Account)], table: &mut Table) {
    let (mut seen, mut lost, mut records) = (0, 0, 0);
    for (_, account) in rounds {
        (seen, lost, records) =
            (seen + account.requests, lost + account.lost, records + account.records + account.lost);
    }
    if seen == 0 {
        return table.fact(name, "this build does not read it");
    }
    let cpu_ns = |(streamed, account): &(Streamed, Account)| {
        (account.cpu_s - idle.cpu_s) * 1e9 / streamed.chunks.max(1) as f64
    };
    let cpu_ns = median(rounds.iter().map(cpu_ns));
    let rate = median(rounds.iter().map(|(streamed, _)| streamed.rate));
    let wanted = rounds.len() * STREAMS;
    table.fact(
        &format!("{name}: chunks a second asked for, reached; streams, and requests seen"),
        &format!("{RATE}, {rate:.0}; {wanted}, {seen}"),
    );
    let what = format!("{name}: gpuspan's CPU for a chunk");
    table.judge(&what, cpu_ns, &format!("{cpu_ns:.0} ns"), &CPU_GOAL, "ns");
    let what = format!("{name}: records lost, default ring");
    table.judge(&what, lost as f64, &format!("{lost} of {records}"), &LOSS_GOAL, "");
}

/// Lets the target stream to clients here, to the end.
fn run(target: &mut Target, protocol: Protocol, duration: Duration) -> Result<Streamed> {
    let openssl = (protocol == Protocol::Tls).then(|| Openssl::load(Side::Client)).transpose()?;
    let port = target.stream(protocol, RATE, duration)?;
    let connect = |_| connect(port, openssl.as_ref(), protocol);
    let mut clients = (0..STREAMS).map(connect).collect::<Result<Vec<_>>>()?;
    while !clients.is_empty() {
        clients.retain_mut(is_open);
        std::thread::sleep(Duration::from_millis(1));
    }
    target.streamed()
}

/// A client that has asked. What comes back is not deciphered.
fn connect(port: u16, openssl: Option<&Openssl>, protocol: Protocol) -> Result<TcpStream> {
    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
    let request = serving::request(protocol);
    match openssl {
        Some(openssl) => openssl.session(&stream)?.write(&request)?,
        None => stream.write_all(&request)?,
    }
    stream.set_nonblocking(true)?;
    Ok(stream)
}

/// Takes what has come. False at the end.
fn is_open(stream: &mut TcpStream) -> bool {
    let mut room = [0; 65_536];
    loop {
        match stream.read(&mut room) {
            Ok(0) => return false,
            Ok(_) => {}
            Err(error) => return error.kind() == ErrorKind::WouldBlock,
        }
    }
}
