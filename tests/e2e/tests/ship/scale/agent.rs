//! One simulated agent: a connection of its own, a batch of traces each interval, metrics less often. In: a recording. Out:
//! how much it sent, and how much was refused. Absent: trying again, which would hide what the gateway refuses.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Ipv4Addr, TcpStream};
use std::time::{Duration, Instant};

use super::batch::Recorded;
use super::{INTERVAL, METRICS_EVERY};

/// What one or all have sent.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tally {
    pub requests: u64,
    pub spans: u64,
    pub points: u64,
    pub bytes: u64,
    pub refused_spans: u64,
    pub refused_points: u64,
}

impl Tally {
    pub fn plus(self, other: Self) -> Self {
        Self {
            requests: self.requests + other.requests,
            spans: self.spans + other.spans,
            points: self.points + other.points,
            bytes: self.bytes + other.bytes,
            refused_spans: self.refused_spans + other.refused_spans,
            refused_points: self.refused_points + other.refused_points,
        }
    }
}

#[derive(Debug)]
pub struct Agent<'a> {
    number: u32,
    host: String,
    recorded: &'a Recorded,
    connection: BufReader<TcpStream>,
    tally: Tally,
}

impl<'a> Agent<'a> {
    pub fn new(number: u32, port: u16, recorded: &'a Recorded) -> Self {
        let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        stream.set_nodelay(true).unwrap();
        let host = format!("node-{number}");
        Self { number, host, recorded, connection: BufReader::new(stream), tally: Tally::default() }
    }

    /// Sends from `first` to `end`, each interval.
    pub fn run(mut self, first: Instant, end: Instant) -> Tally {
        for round in 0_u32.. {
            let due = first + INTERVAL * round;
            if due >= end {
                break;
            }
            std::thread::sleep(due.saturating_duration_since(Instant::now()));
            let salt = u64::from(self.number + 1) << 32 | u64::from(round + 1);
            let taken = self.post("/v1/traces", &self.recorded.traces_of(&self.host, salt));
            self.tally.requests += self.recorded.requests;
            self.tally.spans += self.recorded.spans;
            self.tally.refused_spans += if taken { 0 } else { self.recorded.spans };
            if round % METRICS_EVERY == 0 {
                let later = u64::from(round) * INTERVAL.as_nanos() as u64;
                let taken = self.post("/v1/metrics", &self.recorded.metrics_of(&self.host, later));
                self.tally.points += self.recorded.points;
                self.tally.refused_points += if taken { 0 } else { self.recorded.points };
            }
        }
        self.tally
    }

    /// Whether all of it was taken. A partial refusal would be a body of more than nothing.
    fn post(&mut self, path: &str, body: &[u8]) -> bool {
        let length = body.len();
        let head = format!(
            "POST {path} HTTP/1.1\r\nHost: gateway\r\nContent-Type: application/x-protobuf\r\nContent-Length: {length}\r\n\r\n"
        );
        self.tally.bytes += (head.len() + length) as u64;
        let stream = self.connection.get_mut();
        stream.write_all(head.as_bytes()).unwrap();
        stream.write_all(body).unwrap();
        let mut status = String::new();
        self.connection.read_line(&mut status).unwrap();
        let mut length = 0;
        loop {
            let mut line = String::new();
            self.connection.read_line(&mut line).unwrap();
            let line = line.trim_end().to_ascii_lowercase();
            if line.is_empty() {
                break;
            }
            if let Some(value) = line.strip_prefix("content-length:") {
                length = value.trim().parse().unwrap();
            }
        }
        let mut answer = vec![0; length];
        self.connection.read_exact(&mut answer).unwrap();
        let taken = status.contains(" 200 ");
        // An empty answer, or one with an empty `partial_success`.
        assert!(!taken || answer.is_empty() || answer == [10, 0], "{status}{answer:?}");
        taken
    }
}
