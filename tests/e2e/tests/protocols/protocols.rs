//! The servers, one test each; the name of a test begins with its server's.

use anyhow::Result;

use xtask::server::{Device, Name, Options};

use crate::agree;
use crate::client::{Load, Wire};
use crate::rig;
use crate::server::{self, Server};

/// Other programs on the same cores may keep the client waiting this often; counts must be right each time.
const ATTEMPTS: usize = 3;

const PLAIN: [Wire; 1] = [Wire::PLAIN];
const TLS: [Wire; 2] = [Wire::TLS12, Wire::TLS13];

fn uvicorn(event_loop: &str, parser: &str, wires: &[Wire]) {
    for wire in wires {
        check(&format!("uvicorn, {event_loop}, {parser}"), *wire, || {
            server::uvicorn(event_loop, parser, wire.tls.is_some())
        });
    }
}

#[test]
fn uvicorn_asyncio_h11() {
    or_skip_servers!();
    uvicorn("asyncio", "h11", &PLAIN);
}

#[test]
fn uvicorn_asyncio_h11_tls() {
    or_skip_servers!();
    uvicorn("asyncio", "h11", &TLS);
}

#[test]
fn uvicorn_asyncio_httptools() {
    or_skip_servers!();
    uvicorn("asyncio", "httptools", &PLAIN);
}

#[test]
fn uvicorn_asyncio_httptools_tls() {
    or_skip_servers!();
    uvicorn("asyncio", "httptools", &TLS);
}

#[test]
fn uvicorn_uvloop_h11() {
    or_skip_servers!();
    uvicorn("uvloop", "h11", &PLAIN);
}

#[test]
fn uvicorn_uvloop_h11_tls() {
    or_skip_servers!();
    uvicorn("uvloop", "h11", &TLS);
}

#[test]
fn uvicorn_uvloop_httptools() {
    or_skip_servers!();
    uvicorn("uvloop", "httptools", &PLAIN);
}

#[test]
fn uvicorn_uvloop_httptools_tls() {
    or_skip_servers!();
    uvicorn("uvloop", "httptools", &TLS);
}

#[test]
fn node_http() {
    or_skip_servers!();
    check("node, http", Wire::PLAIN, || server::node("http"));
}

#[test]
fn node_https() {
    or_skip_servers!();
    for wire in TLS {
        check("node, https", wire, || server::node("https"));
    }
}

#[test]
fn node_with_its_own_openssl() {
    or_skip_servers!();
    for wire in TLS {
        check("node, OpenSSL linked in", wire, || server::node_with_its_own_openssl("https"));
    }
}

#[test]
fn node_http2() {
    or_skip_servers!();
    check("node, http2", Wire::H2C, || server::node("h2c"));
    check("node, http2", Wire::H2, || server::node("h2"));
}

#[test]
fn hyper_http1() {
    or_skip_servers!();
    check("hyper", Wire::PLAIN, || server::hyper("none"));
}

#[test]
fn hyper_http2() {
    or_skip_servers!();
    check("hyper", Wire::H2C, || server::hyper("none"));
}

#[test]
fn hyper_openssl() {
    or_skip_servers!();
    for wire in [Wire::TLS12, Wire::TLS13, Wire::H2] {
        check("hyper, openssl", wire, || server::hyper("openssl"));
    }
}

#[test]
fn go_net_http() {
    or_skip_servers!();
    check("go, net/http", Wire::PLAIN, || server::go(false));
}

fn nginx(wire: Wire) {
    check("nginx before uvicorn", wire, || {
        server::nginx(server::uvicorn("uvloop", "httptools", false)?, wire.tls.is_some())
    });
}

#[test]
fn nginx_in_front() {
    or_skip_servers!();
    nginx(Wire::PLAIN);
}

#[test]
fn nginx_in_front_tls() {
    or_skip_servers!();
    nginx(Wire::TLS13);
}

#[test]
fn nginx_in_front_http2() {
    or_skip_servers!();
    nginx(Wire::H2);
}

#[test]
fn uvicorn_behind_nginx() {
    or_skip_servers!();
    let Some(front) = had("nginx", || server::nginx(server::uvicorn("uvloop", "httptools", false)?, false))
    else {
        return;
    };
    let app = front.behind().unwrap();
    observe("uvicorn behind nginx", (app.pid, front.port), Wire::PLAIN, &Load::new("tiny"));
}

/// llama-server on cpp-httplib, built without TLS. It ends a connection after a stream, takes eight connections at a time
/// and decodes four of them together.
#[test]
fn cpp_httplib() {
    or_skip_servers!();
    let options = Options { device: Device::Cpu, ..Options::default() };
    let Some(mut running) = had("llama-server", || xtask::server::start(Name::Llama, &options)) else {
        return;
    };
    let port = running.url.rsplit(':').next().and_then(|port| port.parse().ok()).unwrap();
    // It knows nothing of a pace: alone, a stream of 200 tokens is over at once, and one of a random model sooner still.
    let load = Load {
        keep_alive: false,
        early_tokens: 3000,
        extra: serde_json::json!({"ignore_eos": true}),
        ..Load::new(&running.model)
    };
    observe("llama-server, cpp-httplib", (running.pid, port), Wire::PLAIN, &load);
    assert!(running.alive(), "{}", running.log.display());
}

/// Starts a server, or says why there is none.
fn had<T>(name: &str, start: impl Fn() -> Result<T>) -> Option<T> {
    start().inspect_err(|error| println!("skipped: {name}: {error:#}")).ok()
}

fn check(name: &str, wire: Wire, start: impl Fn() -> Result<Server>) {
    let Some(mut server) = had(name, start) else { return };
    observe(name, (server.pid, server.port), wire, &Load::new("tiny"));
    assert!(server.alive(), "{}", server.log());
}

/// Compares counts each time, and times until they are close.
fn observe(name: &str, (pid, port): (u32, u16), wire: Wire, load: &Load) {
    for attempt in 1.. {
        let observed = rig::observe(pid, port, wire, load).unwrap();
        let distances = agree::check(&observed);
        println!("{name}, {wire:?}: {} requests; first tokens {distances}", observed.records.len());
        if distances.are_close() {
            break;
        }
        assert!(attempt < ATTEMPTS, "first tokens are {distances} from the client's");
    }
}
