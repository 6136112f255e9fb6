//! TLS that nobody can read from outside: Go's crypto/tls and rustls. gpuspan says so, counts the connections, and tells of
//! no request.

use anyhow::Result;
use e2e::program;

use crate::agree;
use crate::client::{Load, Wire};
use crate::rig;
use crate::server::{self, Server};

#[test]
fn go_crypto_tls_is_counted_and_not_guessed() {
    or_skip_servers!();
    unread("crypto/tls", || server::go(true));
}

#[test]
fn hyper_rustls_is_counted_and_not_guessed() {
    or_skip_servers!();
    unread("rustls", || server::hyper("rustls"));
}

/// `check` names the library as `name`.
fn unread(name: &str, start: impl Fn() -> Result<Server>) {
    let mut server = match start() {
        Ok(server) => server,
        Err(error) => {
            println!("skipped: {name}: {error:#}");
            return;
        }
    };
    let load = Load { streams: 8, tokens: 20, pace_ms: 5, ..Load::new("tiny") };
    for wire in [Wire::TLS12, Wire::TLS13, Wire::H2] {
        let observed = rig::observe(server.pid, server.port, wire, &load).unwrap();
        assert!(observed.records.iter().all(|record| record.error.is_none()), "{:?}", observed.records);
        let summary = &observed.report.summary;
        assert_eq!(summary.requests.total, 0, "{wire:?}: {:?}", summary.requests);
        assert!(observed.report.spans.iter().all(|span| !span.is_server()), "{:?}", observed.report.spans);
        // Beside those of the load, the two from before the attach, once their bytes are seen.
        let opened = if wire.http2 { 1 } else { load.streams as u64 };
        let connections = &summary.connections;
        assert_eq!((connections.tls, connections.tls_unread), (opened + 2, opened + 2), "{connections:?}");
        agree::nothing_lost(summary);
    }
    let said = program::run(&["check", "--pid", &server.pid.to_string()]).unwrap();
    let note = |line: &&str| line.contains("note") && line.contains(name);
    assert!(said.stdout.lines().any(|line| note(&line)), "{}", said.stdout);
    assert!(server.alive(), "{}", server.log());
}
