//! Clients, their connections, and the engine that says what it does.

use super::{ENGINE, Ending, Input, Stage};
use crate::correlate::request::Outcome;
use crate::correlate::tap::{Occasion, Spoke};
use crate::decode::{Body, Direction as Sent, End, Socket};
use crate::evidence::Evidence;
use crate::server::registry::Source;
use crate::server::said::{EngineStep, Inner, Member, Part, Reason, Said, Saying, Tie};

/// The thread that serves, and what it listens on.
const SERVES: u32 = 30;
pub const LISTENER: u32 = 3;

#[derive(Debug, Default)]
pub struct Connection {
    id: u64,
    exchange: u32,
    received: u64,
    sent: u64,
    asked: Option<Asked>,
}

/// A request under way.
#[derive(Clone, Copy, Debug)]
pub struct Asked {
    inner: u64,
    streams: bool,
    has_head: bool,
    deltas: u64,
}

impl Stage {
    /// Requests that are under way: connection and exchange, and their numbers inside.
    pub fn there(&self) -> Vec<((u64, u32), u64)> {
        let asked = |of: &Connection| of.asked.map(|asked| ((of.id, of.exchange), asked.inner));
        self.connections.iter().filter_map(asked).collect()
    }

    fn socket(&mut self, socket: Socket) {
        self.put((ENGINE, SERVES), self.now_ns, Body::Socket(socket));
    }

    fn bytes(&mut self, connection: usize, direction: Sent, text: &str) {
        let of = &mut self.connections[connection];
        let position = if direction == Sent::Received { &mut of.received } else { &mut of.sent };
        let at = *position;
        *position += text.len() as u64;
        let (connection, bytes) = (of.id, text.as_bytes().to_vec());
        self.socket(Socket::Data { connection, direction, position: at, bytes, lost_after: 0 });
    }

    pub(super) fn ask(&mut self, connection: usize, streams: bool) {
        if self.connections[connection].asked.is_some() {
            return;
        }
        if self.connections[connection].id == 0 {
            self.made += 1;
            let id = self.made;
            self.connections[connection] = Connection { id, ..Connection::default() };
            self.socket(Socket::Opened { connection: id, fd: 5, listener_fd: LISTENER });
            self.now_ns += 1000;
        }
        self.made += 1;
        let inner = self.made;
        let body = format!(r#"{{"model":"m","stream":{streams},"messages":[{{"content":"{inner}"}}]}}"#);
        let head = "POST /v1/chat/completions HTTP/1.1\r\nhost: a\r\ncontent-length:";
        self.bytes(connection, Sent::Received, &format!("{head} {}\r\n\r\n{body}", body.len()));
        self.connections[connection].asked = Some(Asked { inner, streams, has_head: false, deltas: 0 });
        let tie = Tie { outer_id: Some(format!("cmpl-{inner}").into()), ..Tie::default() };
        self.say(vec![Saying::Met { inner: Inner(inner), tie, generates: true }]);
    }

    /// A stream shows its tokens; who answers as a whole keeps them.
    pub(super) fn speak(&mut self, connection: usize, tokens: usize) {
        for _ in 0..tokens {
            let Some(mut asked) = self.connections[connection].asked else { return };
            asked.deltas += 1;
            self.now_ns += 2000;
            let (inner, at_ns) = (Inner(asked.inner), self.now_ns);
            self.say(vec![Saying::Tokens { inner, count: 1, at_ns }]);
            self.now_ns += 2000;
            if asked.streams {
                self.head(connection, &mut asked);
                let data = format!(
                    r#"data: {{"id":"cmpl-{}","choices":[{{"index":0,"delta":{{"content":"a"}}}}]}}"#,
                    asked.inner
                );
                self.bytes(connection, Sent::Sent, &chunk(&(data + "\n\n")));
            }
            self.connections[connection].asked = Some(asked);
        }
    }

    fn head(&mut self, connection: usize, asked: &mut Asked) {
        const HEAD: &str =
            "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n";
        if !std::mem::replace(&mut asked.has_head, true) {
            self.bytes(connection, Sent::Sent, HEAD);
            self.now_ns += 1000;
        }
    }

    pub(super) fn finish(&mut self, connection: usize) {
        let Some(mut asked) = self.connections[connection].asked.take() else { return };
        let (inner, at_ns) = (Inner(asked.inner), self.now_ns);
        self.say(vec![Saying::Ended { inner, reason: Reason::Stop, at_ns }]);
        if asked.streams {
            self.head(connection, &mut asked);
            self.bytes(connection, Sent::Sent, &(chunk("data: [DONE]\n\n") + "0\r\n\r\n"));
        } else {
            let body = format!(
                r#"{{"id":"cmpl-{}","choices":[{{"index":0,"message":{{"content":"a"}}}}],"usage":{{"completion_tokens":{}}}}}"#,
                asked.inner, asked.deltas
            );
            let head = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length:";
            self.bytes(connection, Sent::Sent, &format!("{head} {}\r\n\r\n{body}", body.len()));
        }
        let deltas = if asked.streams { asked.deltas } else { 0 };
        self.over(connection, (Outcome::Completed, deltas));
        self.connections[connection].exchange += 1;
    }

    pub(super) fn leave(&mut self, connection: usize) {
        let Some(asked) = self.connections[connection].asked.take() else { return };
        let deltas = if asked.streams { asked.deltas } else { 0 };
        self.over(connection, (Outcome::Aborted, deltas));
        let of = &self.connections[connection];
        let (id, received, sent) = (of.id, of.received, of.sent);
        for end in [End::EndOfInput, End::Closed] {
            self.socket(Socket::Ended { connection: id, fd: 5, end, received, sent });
            self.now_ns += 1000;
        }
        self.connections[connection] = Connection::default();
        let (inner, at_ns) = (Inner(asked.inner), self.now_ns);
        self.say(vec![Saying::Ended { inner, reason: Reason::Abort, at_ns }]);
    }

    fn over(&mut self, connection: usize, ending: Ending) {
        let of = &self.connections[connection];
        self.truth.requests.insert((of.id, of.exchange), ending);
    }

    /// Everybody who is there is in the iteration.
    pub(super) fn tell(&mut self, computed: u32, is_complete: bool, failed: bool) {
        let there = self.connections.iter().filter_map(|connection| connection.asked);
        let members: Vec<Member> = there
            .map(|asked| Member {
                inner: Inner(asked.inner),
                part: if asked.deltas > 0 { Part::Decode } else { Part::Prefill },
                computed: if asked.deltas > 0 { 1 } else { computed },
                generated: 1,
                evidence: Evidence::E0,
            })
            .collect();
        let known: u64 = members.iter().map(|member| u64::from(member.computed)).sum();
        let tokens = Some(known + if is_complete { 0 } else { 5 });
        let end_ns = self.now_ns;
        let step = EngineStep {
            engine: 0,
            start_ns: None,
            end_ns,
            members,
            is_complete,
            tokens,
            failed,
            thread: None,
        };
        self.say(vec![Saying::Step(Box::new(step))]);
    }

    pub(super) fn say(&mut self, sayings: Vec<Saying>) {
        if !self.has_adapter {
            return;
        }
        self.checked += 1;
        let time_ns = self.now_ns;
        let said = sayings.into_iter().map(|saying| Said { pid: ENGINE, time_ns, saying }).collect();
        let spoke = Spoke {
            speaker: 0,
            source: Source::Frames,
            adapter: "vllm",
            schema: None,
            occasion: Occasion::Heard,
            pid: ENGINE,
            checked: self.checked,
            failed: self.failed,
            why: None,
            said,
        };
        self.inputs.push(Input::Spoke(time_ns, Box::new(spoke)));
    }
}

fn chunk(text: &str) -> String {
    format!("{:x}\r\n{text}\r\n", text.len())
}
