//! Functions of TLS libraries with the interface of OpenSSL (`openssl/ssl.h` 1.1.1 to 3.5; BoringSSL has the older half
//! of them): where plain bytes go in and come out.
//!
//! `SSL_peek` and its like are absent: what they show comes again. Client and server sessions use the same functions;
//! which one a session is shows in its bytes.

use super::meaning::Meaning;
use super::row::{Layer, Row};
use profiler_common::cookie::tls as function;

const fn row(symbol: &'static str, function: u8, sentence: &'static str) -> Row {
    Row::new(symbol, "", Layer::Tls, Meaning::Tls(sentence)).shape(function)
}

/// The rows.
pub const ROWS: &[Row] = &[
    // (ctx) -> ssl
    row("SSL_new", function::NEW, "begins a session").at_return(),
    // (ssl)
    row("SSL_free", function::FREE, "ends a session"),
    row("SSL_clear", function::CLEAR, "ends a session and begins another"),
    // (ssl, fd)
    row("SSL_set_fd", function::SET_FD, "says which descriptor carries a session"),
    row("SSL_set_rfd", function::SET_FD, "says which descriptor carries a session"),
    // (ssl)
    row("SSL_do_handshake", function::HANDSHAKE, "reads and writes for a session").at_return(),
    row("SSL_accept", function::HANDSHAKE, "reads and writes for a session").at_return(),
    // (ssl, buf, num)
    row("SSL_read", function::READ, "deciphers").at_return(),
    row("SSL_write", function::WRITE, "enciphers").at_return(),
    // (ssl, buf, num, *done)
    row("SSL_read_ex", function::READ_EX, "deciphers").at_return(),
    row("SSL_write_ex", function::WRITE_EX, "enciphers").at_return(),
    // (ssl, buf, num, flags, *done)
    row("SSL_write_ex2", function::WRITE_EX2, "enciphers").at_return(),
    // (ssl, fd, offset, size, flags) -> bytes
    row("SSL_sendfile", function::SEND_FILE, "sends a file").at_return(),
    // (ssl)
    row("SSL_shutdown", function::SHUTDOWN, "ends what a session sends"),
];
