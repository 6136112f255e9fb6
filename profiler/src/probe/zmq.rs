//! libzmq (`zmq.h` 4.2 to 4.3): the frames that the processes of a server send each other. Python's servers come with a
//! copy of it in pyzmq.
//!
//! A frame is read where it is whole: before it is sent, and after it has been received. `zmq_send` and `zmq_recv` are
//! absent, since pyzmq does not use them.

use super::meaning::Meaning;
use super::row::{Layer, Row};
use profiler_common::cookie::server as function;

const fn row(symbol: &'static str, function: u8, sentence: &'static str) -> Row {
    Row::new(symbol, "", Layer::Zmq, Meaning::Server(sentence)).shape(function)
}

/// The rows.
pub const ROWS: &[Row] = &[
    // (zmq_msg_t *frame, socket, flags)
    row("zmq_msg_send", function::SEND, "sends a frame"),
    row("zmq_msg_recv", function::RECEIVE, "receives a frame").at_return(),
];
