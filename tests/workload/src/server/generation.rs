//! One generation: submitted to the engine, its tokens written as they come, aborted when the client goes.

use std::io;
use std::net::TcpStream;
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use super::api::{Failure, Job};
use super::exchange::Exchange;
use super::reply::{self, Reply};
use super::write::Writer;
use crate::clock::monotonic_ns;
use crate::engine::{Event, Finish, Rejection, Submission};

/// How often a waiting connection looks whether its client is still there; cpp-httplib does so too.
const POLL: Duration = Duration::from_millis(10);

pub(super) struct Generation {
    job: Job,
    reply: Reply,
    events: Receiver<Event>,
    aborted: Arc<AtomicBool>,
    last_look: Instant,
}

/// What the next wait gave.
enum Next {
    Token(Option<Finish>),
    Quiet,
    ClientGone,
    ServerClosed,
}

impl Generation {
    /// Puts the job into the engine's queue.
    pub(super) fn submit(exchange: &mut Exchange, job: Job, number: u64) -> Result<Self, Failure> {
        let options = &exchange.server.options;
        // Spreads neighbouring numbers over all bits, so that ids do not look alike.
        let seed =
            fastrand::Rng::with_seed(options.seed.wrapping_add(number.wrapping_mul(0x9e37_79b9_7f4a_7c15)))
                .u64(..);
        let id = format!("{}-{seed:016x}", reply::id_prefix(job.dialect));
        let (sender, events) = channel();
        let aborted = Arc::new(AtomicBool::new(false));
        let submission = Submission {
            id: id.clone(),
            prompt_tokens: job.prompt_tokens,
            max_tokens: job.max_tokens,
            seed,
            events: sender,
            aborted: Arc::clone(&aborted),
        };
        let queue = exchange.server.queue(number);
        let submitted = queue.map_or(Err(Rejection::Closed), |queue| queue.submit(submission));
        submitted.map_err(|rejection| match rejection {
            Rejection::Full => Failure::new(429, "too many requests wait; try again later"),
            Rejection::Closed => Failure::new(503, "the server is ending"),
        })?;
        exchange.line.id = Some(id.clone());
        exchange.line.stream = job.stream;
        exchange.line.prompt_tokens = job.prompt_tokens as u64;
        let reply = Reply::new(id, &options.model, job.clone(), seed);
        Ok(Self { job, reply, events, aborted, last_look: Instant::now() })
    }

    /// Answers the exchange from the engine's events.
    pub(super) fn run(mut self, exchange: &mut Exchange) -> io::Result<()> {
        let answered = if self.job.stream { self.stream(exchange) } else { self.collect(exchange) };
        if answered.is_err() || exchange.line.aborted {
            self.aborted.store(true, Ordering::Release);
        }
        answered
    }

    fn stream(&mut self, exchange: &mut Exchange) -> io::Result<()> {
        let mut writer = exchange.writer();
        exchange.line.status = 200;
        let streamed = self.stream_events(exchange, &mut writer);
        exchange.line.first_token_ns = writer.tokens_ns.first().copied();
        exchange.line.completion_tokens = writer.tokens_ns.len() as u64;
        exchange.line.tokens_ns = writer.tokens_ns;
        streamed
    }

    fn stream_events(&mut self, exchange: &mut Exchange, writer: &mut Writer) -> io::Result<()> {
        let http_1_0 = exchange.request.http_1_0;
        writer.head(&reply::stream_head(self.job.dialect, !http_1_0, exchange.request.closes()))?;
        if let Some(role) = self.reply.role() {
            writer.event(&role, false)?;
        }
        let mut tokens = 0;
        let mut pings = Pings::new(exchange.server.options.ping_ms);
        loop {
            match self.next(exchange) {
                Next::Token(finish) => {
                    tokens += 1;
                    let word = self.reply.next_word();
                    writer.event(&self.reply.token(word), true)?;
                    if let Some(finish) = finish {
                        return self.finish(exchange, writer, finish, tokens);
                    }
                }
                Next::Quiet if tokens == 0 && pings.due() => {
                    writer.event(b": ping\n\n", false)?;
                    exchange.line.pings += 1;
                }
                Next::Quiet => {}
                Next::ClientGone => return Ok(()),
                Next::ServerClosed => {
                    // As vLLM's dead engine: an error event after status 200, and no [DONE].
                    writer.event(&self.reply.error("the server is ending"), false)?;
                    return writer.end();
                }
            }
        }
    }

    fn finish(
        &self,
        exchange: &mut Exchange,
        writer: &mut Writer,
        finish: Finish,
        tokens: usize,
    ) -> io::Result<()> {
        exchange.line.finish_reason = Some(finish.as_str().to_owned());
        let elapsed_ns = monotonic_ns().saturating_sub(exchange.line.arrival_ns);
        for event in self.reply.last(finish, tokens, elapsed_ns) {
            writer.event(&event, false)?;
        }
        writer.end()
    }

    /// Waits for the whole completion, then sends it at once.
    fn collect(&mut self, exchange: &mut Exchange) -> io::Result<()> {
        let mut text = String::new();
        let finish = loop {
            match self.next(exchange) {
                Next::Token(finish) => {
                    text.push_str(self.reply.next_word());
                    exchange.line.tokens_ns.push(monotonic_ns());
                    exchange.line.completion_tokens += 1;
                    if let Some(finish) = finish {
                        break finish;
                    }
                }
                Next::Quiet => {}
                Next::ClientGone => return Ok(()),
                Next::ServerClosed => return exchange.fail(&Failure::new(503, "the server is ending")),
            }
        };
        let elapsed_ns = monotonic_ns().saturating_sub(exchange.line.arrival_ns);
        let tokens = exchange.line.tokens_ns.len();
        exchange.line.finish_reason = Some(finish.as_str().to_owned());
        exchange.line.first_token_ns = Some(monotonic_ns());
        let body = self.reply.whole(&text, finish, tokens, elapsed_ns);
        exchange.whole(200, &body)
    }

    /// Waits for the engine, and looks after the client now and then.
    fn next(&mut self, exchange: &mut Exchange) -> Next {
        if self.last_look.elapsed() >= POLL {
            self.last_look = Instant::now();
            if is_gone(exchange.stream) {
                exchange.line.aborted = true;
                return Next::ClientGone;
            }
        }
        match self.events.recv_timeout(POLL) {
            Ok(Event::Admitted { step }) => {
                exchange.line.admitted_step = Some(step);
                Next::Quiet
            }
            Ok(Event::Token { finish }) => Next::Token(finish),
            Err(RecvTimeoutError::Timeout) => Next::Quiet,
            Err(RecvTimeoutError::Disconnected) => Next::ServerClosed,
        }
    }
}

/// When the next `: ping` is due.
struct Pings {
    every: Option<Duration>,
    last: Instant,
}

impl Pings {
    fn new(every_ms: u64) -> Self {
        Self { every: (every_ms > 0).then(|| Duration::from_millis(every_ms)), last: Instant::now() }
    }

    fn due(&mut self) -> bool {
        let due = self.every.is_some_and(|every| self.last.elapsed() >= every);
        if due {
            self.last = Instant::now();
        }
        due
    }
}

/// Whether the client has closed its side: a peek that takes nothing away from pipelined requests.
fn is_gone(stream: &TcpStream) -> bool {
    let mut byte = 0u8;
    // SAFETY: one byte of writable memory and an open socket.
    let read = unsafe {
        libc::recv(stream.as_raw_fd(), (&raw mut byte).cast(), 1, libc::MSG_PEEK | libc::MSG_DONTWAIT)
    };
    match read {
        0 => true,
        1.. => false,
        _ => io::Error::last_os_error().kind() != io::ErrorKind::WouldBlock,
    }
}
