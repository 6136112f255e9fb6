//! One request in, its answer and its truth line out.

use std::io::{self, Write};
use std::net::TcpStream;
use std::sync::atomic::Ordering;

use serde_json::json;

use super::Server;
use super::api::{self, Dialect, Failure};
use super::generation::Generation;
use super::reply;
use super::request::Request;
use super::write::{Style, Writer};
use crate::clock::monotonic_ns;
use crate::truth::RequestLine;

pub(super) struct Exchange<'a> {
    pub(super) server: &'a Server,
    pub(super) stream: &'a TcpStream,
    pub(super) request: &'a Request,
    pub(super) line: RequestLine,
}

impl<'a> Exchange<'a> {
    pub(super) fn new(server: &'a Server, stream: &'a TcpStream, request: &'a Request) -> Self {
        let line = RequestLine {
            method: request.method.clone(),
            path: request.path.clone(),
            arrival_ns: request.arrival_ns,
            ..RequestLine::default()
        };
        Self { server, stream, request, line }
    }

    /// Answers and logs; whether the connection can serve another request.
    pub(super) fn answer(mut self) -> bool {
        let written = self.route();
        self.line.aborted |= written.is_err();
        self.line.end_ns = monotonic_ns();
        let reusable = !self.line.aborted && !self.request.closes();
        if let Err(error) = self.server.truth.request(self.line) {
            let _ = writeln!(io::stderr(), "{error:#}");
        }
        reusable
    }

    fn route(&mut self) -> io::Result<()> {
        let model = &self.server.options.model;
        match (self.request.method.as_str(), self.request.path.as_str()) {
            ("POST", "/v1/chat/completions") => self.generate(Dialect::Chat),
            ("POST", "/v1/completions") => self.generate(Dialect::Completions),
            ("POST", "/api/generate") => self.generate(Dialect::Ollama),
            ("GET", "/v1/models") => {
                let model = json!({"id": model, "object": "model", "owned_by": "workload"});
                self.whole(200, json!({"object": "list", "data": [model]}).to_string().as_bytes())
            }
            ("GET", "/health") => self.whole(200, br#"{"status":"ok"}"#),
            (method, path) => self.fail(&Failure::new(404, format!("no route {method} {path}"))),
        }
    }

    fn generate(&mut self, dialect: Dialect) -> io::Result<()> {
        let job = match api::job(dialect, self.request, &self.server.options) {
            Ok(job) => job,
            Err(failure) => return self.fail(&failure),
        };
        let number = self.server.generations.fetch_add(1, Ordering::Relaxed);
        match Generation::submit(self, job, number) {
            Ok(generation) => generation.run(self),
            Err(failure) => self.fail(&failure),
        }
    }

    pub(super) fn fail(&mut self, failure: &Failure) -> io::Result<()> {
        self.whole(failure.status, &reply::failure(&self.request.path, failure))
    }

    /// Sends a body of known length.
    pub(super) fn whole(&mut self, status: u16, body: &[u8]) -> io::Result<()> {
        self.line.status = status;
        let head = reply::whole_head(status, body.len(), self.request.closes());
        self.writer().whole(&head, body)
    }

    pub(super) fn writer(&self) -> Writer<'a> {
        let style = self.request.header("x-workload-writes").and_then(Style::parse).unwrap_or_default();
        Writer::new(self.stream, style, !self.request.http_1_0)
    }
}
