//! Edge cases on real sockets: a server whose every system call is chosen here, and the profiler's account of it.
//!
//! The numbers in test names are those of the project's list of capture edge cases.

mod accept;
mod blind;
mod descriptors;
mod ends;
mod overflow;
mod sizes;
mod transfers;

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;

use e2e::{Observation, Report, Sockets, Span, wait};

use crate::checks::nothing_lost;

/// A request and its answer. The tokens are asked for in the one and counted in the other, so that an answer that is
/// joined to another request shows.
#[derive(Clone, Debug)]
pub struct Exchange {
    pub id: String,
    pub tokens: u64,
}

impl Exchange {
    pub fn new(tokens: u64) -> Self {
        Self { id: format!("chatcmpl-{tokens}"), tokens }
    }

    pub fn request(&self) -> Vec<u8> {
        self.request_with("", "")
    }

    /// With further headers, and with something in its prompt. What matters comes last.
    pub fn request_with(&self, headers: &str, prompt: &str) -> Vec<u8> {
        let body = format!(
            r#"{{"messages":[{{"role":"user","content":"{prompt}"}}],"stream":true,"model":"m","max_tokens":{}}}"#,
            self.tokens
        );
        let length = body.len();
        format!(
            "POST /v1/chat/completions HTTP/1.1\r\nhost: h\r\ncontent-length: {length}\r\n{headers}\r\n{body}"
        )
        .into_bytes()
    }

    /// An answer with a length, with something in its text.
    pub fn answer(&self, text: &str) -> Vec<u8> {
        let body = format!(
            r#"{{"id":"{}","model":"m","choices":[{{"index":0,"message":{{"content":"{text}"}},"finish_reason":"stop"}}],"usage":{{"prompt_tokens":1,"completion_tokens":{}}}}}"#,
            self.id, self.tokens
        );
        let length = body.len();
        format!("HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n{body}")
            .into_bytes()
    }

    /// A streamed answer in its natural pieces: the head, an event for each token, usage, the end.
    pub fn stream(&self) -> Vec<Vec<u8>> {
        let head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n";
        let token = format!(
            r#"data: {{"id":"{}","model":"m","choices":[{{"index":0,"delta":{{"content":"word"}},"finish_reason":null}}]}}"#,
            self.id
        );
        let usage = format!(
            r#"data: {{"id":"{}","choices":[],"usage":{{"prompt_tokens":1,"completion_tokens":{}}}}}"#,
            self.id, self.tokens
        );
        let mut pieces = vec![head.as_bytes().to_vec()];
        pieces.extend((0..self.tokens).map(|_| chunk(&token)));
        pieces.extend([chunk(&usage), chunk("data: [DONE]"), b"0\r\n\r\n".to_vec()]);
        pieces
    }
}

fn chunk(event: &str) -> Vec<u8> {
    format!("{:x}\r\n{event}\n\n\r\n", event.len() + 2).into_bytes()
}

/// A server that listens, and a profiler at it once [`Scene::attach`] was called.
pub struct Scene {
    pub server: Sockets,
    pub listener: u64,
    pub port: u16,
    pub observation: Option<Observation>,
}

/// A connection, from both sides.
pub struct Link {
    pub client: TcpStream,
    pub fd: u64,
}

impl Scene {
    /// Listens on TCP, without a profiler.
    pub fn bare() -> Self {
        let mut server = Sockets::start().unwrap();
        let listener = server.call("listen4 0").unwrap();
        let port = server.call(&format!("port {listener}")).unwrap() as u16;
        Self { server, listener, port, observation: None }
    }

    /// Listens on TCP, observed.
    pub fn start() -> Self {
        let mut scene = Self::bare();
        scene.attach(&[]);
        scene
    }

    pub fn attach(&mut self, arguments: &[&str]) {
        let pid = self.server.started_pid().unwrap();
        self.observation = Some(Observation::start(pid, arguments).unwrap());
    }

    pub fn connect(&mut self) -> Link {
        self.connect_by("accept4")
    }

    /// By one of the ways to accept.
    pub fn connect_by(&mut self, accept: &str) -> Link {
        let client = client(self.port);
        let fd = self.server.call(&format!("{accept} {}", self.listener)).unwrap();
        Link { client, fd }
    }

    /// Ends the observation.
    pub fn report(self) -> Report {
        self.observation.unwrap().stop().unwrap()
    }

    /// Ends the observation, which must have seen exactly these exchanges and nothing else.
    pub fn saw(self, exchanges: &[Exchange]) -> Report {
        let report = self.report();
        let requests = &report.summary.requests;
        let completed = outcomes(&[("completed", exchanges.len())]);
        assert_eq!((requests.total, &requests.by_outcome), (exchanges.len() as u64, &completed));
        assert_eq!(requests.violations, 0, "{requests:?}");
        whole(&report, exchanges);
        nothing_lost(&report.summary);
        report
    }
}

pub fn client(port: u16) -> TcpStream {
    let client = TcpStream::connect(("127.0.0.1", port)).unwrap();
    client.set_read_timeout(Some(wait::PATIENCE)).unwrap();
    client.set_nodelay(true).unwrap();
    client
}

pub fn outcomes(expected: &[(&str, usize)]) -> BTreeMap<String, u64> {
    let some = expected.iter().filter(|(_, count)| *count > 0);
    some.map(|(name, count)| ((*name).to_owned(), *count as u64)).collect()
}

/// Each of these exchanges has one span, which says what was asked and what was answered.
pub fn whole(report: &Report, exchanges: &[Exchange]) {
    for exchange in exchanges {
        let span = span_of(report, exchange);
        assert_eq!(span.text("gpuspan.outcome"), Some("completed"), "{span:?}");
        assert_eq!(span.text("http.route"), Some("/v1/chat/completions"), "{span:?}");
        assert_eq!(span.int("http.response.status_code"), Some(200), "{span:?}");
        assert_eq!(span.int("gen_ai.request.max_tokens"), Some(exchange.tokens), "{span:?}");
        assert_eq!(span.int("gen_ai.usage.output_tokens"), Some(exchange.tokens), "{span:?}");
    }
}

pub fn span_of<'a>(report: &'a Report, exchange: &Exchange) -> &'a Span {
    let is_it = |span: &&Span| span.text("gen_ai.response.id") == Some(&exchange.id);
    let found: Vec<_> = report.spans.iter().filter(|span| span.is_server()).filter(is_it).collect();
    assert_eq!(found.len(), 1, "spans of {exchange:?} among {:#?}", report.spans);
    found[0]
}

impl Link {
    /// The client asks, and the server reads all of it by one kind of call: `read {fd} {len}`, for example.
    pub fn ask(&mut self, server: &mut Sockets, request: &[u8], read: &str) {
        self.client.write_all(request).unwrap();
        let mut missing = request.len();
        while missing > 0 {
            let got = server.call(&fill(read, self.fd, 0, missing)).unwrap();
            assert!(got > 0, "{missing} bytes are missing");
            missing -= got as usize;
        }
    }

    /// The server sends all of it by one kind of call, `write {fd} {at} {len}`, for example, and the client gets it.
    pub fn answer(&mut self, server: &mut Sockets, answer: &[u8], write: &str) {
        server.load(answer).unwrap();
        let mut at = 0;
        while at < answer.len() {
            at += server.call(&fill(write, self.fd, at, answer.len() - at)).unwrap() as usize;
        }
        self.got(answer);
    }

    /// The same, one call for each piece.
    pub fn answer_in_pieces(&mut self, server: &mut Sockets, pieces: &[Vec<u8>], write: &str) {
        for piece in pieces {
            self.answer(server, piece, write);
        }
    }

    /// The client must have been sent exactly this.
    pub fn got(&mut self, expected: &[u8]) {
        let mut got = vec![0; expected.len()];
        self.client.read_exact(&mut got).unwrap();
        assert!(got == expected, "other bytes arrived than were sent");
    }

    /// A whole exchange, by plain calls.
    pub fn exchange(&mut self, server: &mut Sockets, tokens: u64) -> Exchange {
        let exchange = Exchange::new(tokens);
        self.ask(server, &exchange.request(), READ);
        self.answer_in_pieces(server, &exchange.stream(), WRITE);
        exchange
    }

    pub fn close(self, server: &mut Sockets) {
        server.call(&format!("close {}", self.fd)).unwrap();
    }
}

pub const READ: &str = "read {fd} {len}";
pub const WRITE: &str = "write {fd} {at} {len}";

fn fill(command: &str, fd: u64, at: usize, len: usize) -> String {
    let command = command.replace("{fd}", &fd.to_string()).replace("{at}", &at.to_string());
    command.replace("{len}", &len.to_string())
}
