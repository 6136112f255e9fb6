//! Accepted sockets in; each connection's requests are answered in order by a thread of its own.

use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::Builder;

use super::Server;
use super::exchange::Exchange;
use super::request::Reader;
use super::write::{Style, Writer};
use super::{api::Failure, reply};

/// Accepts for as long as the process lives.
pub(super) fn accept(server: &Arc<Server>, listener: &TcpListener) {
    for (ordinal, stream) in (0..).zip(listener.incoming().flatten()) {
        let server = Arc::clone(server);
        let name = format!("http-{ordinal}");
        // A machine without threads left refuses the connection by dropping it.
        let _ = Builder::new().name(name).spawn(move || serve(&server, &stream, ordinal));
    }
}

fn serve(server: &Server, stream: &TcpStream, connection: u64) {
    // Without it the kernel would join small writes; servers of token streams all set it.
    let _ = stream.set_nodelay(true);
    let peer_port = stream.peer_addr().map_or(0, |address| address.port());
    let mut reader = Reader::new(stream);
    for ordinal in 0.. {
        let request = match reader.next() {
            Ok(Some(request)) => request,
            Ok(None) => return,
            Err(error) => return refuse(stream, &error.to_string()),
        };
        server.in_flight.fetch_add(1, Ordering::AcqRel);
        let mut exchange = Exchange::new(server, stream, &request);
        exchange.line.connection = connection;
        exchange.line.ordinal = ordinal;
        exchange.line.peer_port = peer_port;
        let reusable = exchange.answer();
        server.in_flight.fetch_sub(1, Ordering::AcqRel);
        if !reusable {
            return;
        }
    }
}

/// Answers what is no request; there is no truth line for it.
fn refuse(stream: &TcpStream, message: &str) {
    let body = reply::failure("/", &Failure::new(400, message));
    // The client may be gone; there is nobody else to tell.
    let _ = Writer::new(stream, Style::Plain, true).whole(&reply::whole_head(400, body.len(), true), &body);
}
