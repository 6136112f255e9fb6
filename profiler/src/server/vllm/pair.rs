//! Frames → messages.
//!
//! In: frames of sockets, in order per socket. Out: payloads with what kind they are. A request is a message of two
//! frames where the engine receives it (type, payload) and of three where a front end sends it (identity, type,
//! payload); tensors follow in frames of their own. The socket's type does not show, so the forms decide (vLLM,
//! `vllm/v1/engine/core.py`, `core_client.py`, 0.8 to 0.33).

use std::collections::HashMap;

use crate::server::adapter::Frame;

/// Sockets in the middle of a message. There are a few for each process of a server.
const MOST: usize = 4096;

/// What the engine sends when it is about to die.
const DEAD: &[u8] = b"ENGINE_CORE_DEAD";

/// `EngineCoreRequestType` that carries a request, and one that carries ids to give up; 2 to 5 have nothing of
/// requests.
const ADD: u8 = 0;
const ABORT: u8 = 1;
const LAST_TYPE: u8 = 5;

/// What a frame is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `EngineCoreRequest`.
    Add,
    /// Ids of requests that are given up.
    Abort,
    /// Behind a type that has nothing of requests.
    Other,
    /// `EngineCoreOutputs`, or what looks like it.
    Array,
    /// A map: perhaps `EngineCoreReadyResponse`.
    Map,
    /// The engine dies.
    Dead,
}

/// What the next frame of a socket is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Next {
    Payload(Kind),
    Tensor,
}

/// The sockets of all processes.
#[derive(Debug, Default)]
pub struct Pairs {
    next: HashMap<(u32, u64, bool), Next>,
}

impl Pairs {
    /// What this frame is, if it is the one with something in it.
    pub fn take(&mut self, pid: u32, frame: &Frame<'_>) -> Option<Kind> {
        let key = (pid, frame.socket, frame.sent);
        let next = self.next.remove(&key);
        if let (1, true, Some(number @ 0..=LAST_TYPE)) =
            (frame.size, frame.more, frame.bytes.first().copied())
        {
            self.expect(key, Next::Payload(by_type(number)));
            return None;
        }
        let kind = match next {
            Some(Next::Payload(kind)) => Some(kind),
            Some(Next::Tensor) => None,
            None => by_form(frame),
        };
        if frame.more && (kind.is_some() || next.is_some()) {
            self.expect(key, Next::Tensor);
        }
        kind
    }

    fn expect(&mut self, key: (u32, u64, bool), next: Next) {
        if self.next.len() >= MOST {
            self.next.clear();
        }
        self.next.insert(key, next);
    }

    /// A process is gone.
    pub fn gone(&mut self, pid: u32) {
        self.next.retain(|(of, ..), _| *of != pid);
    }
}

fn by_type(number: u8) -> Kind {
    match number {
        ADD => Kind::Add,
        ABORT => Kind::Abort,
        _ => Kind::Other,
    }
}

/// A first frame without a type ahead of it.
fn by_form(frame: &Frame<'_>) -> Option<Kind> {
    if frame.bytes == DEAD {
        return Some(Kind::Dead);
    }
    match frame.bytes.first()? {
        // `EngineCoreOutputs` has eight items or more and is never as short as other processes' small arrays.
        0x90..=0x9f | 0xdc if frame.size >= 16 => Some(Kind::Array),
        0x80..=0x8f | 0xde => Some(Kind::Map),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(sent: bool, more: bool, bytes: &[u8]) -> Frame<'_> {
        Frame { sent, socket: 7, more, bytes, size: bytes.len() as u64 }
    }

    #[test]
    fn frames_are_told_apart() {
        let array = [0x98; 20];
        let mut pairs = Pairs::default();
        for (sent, more, bytes, kind) in [
            // The engine receives a request.
            (false, true, &[0][..], None),
            (false, false, &array[..], Some(Kind::Add)),
            // With a tensor behind it.
            (false, true, &[0], None),
            (false, true, &array, Some(Kind::Add)),
            (false, true, &array, None),
            (false, false, &array, None),
            (false, true, &[1], None),
            (false, false, b"\x91\xa1a", Some(Kind::Abort)),
            (false, true, &[3], None),
            (false, false, &array, Some(Kind::Other)),
            // A payload was lost: the next type begins a new message.
            (false, true, &[0], None),
            (false, true, &[1], None),
            (false, false, b"\x91\xa1a", Some(Kind::Abort)),
            // A front end sends one.
            (true, true, &[0, 0], None),
            (true, true, &[0], None),
            (true, false, &array, Some(Kind::Add)),
            // Outputs, with a tensor behind them, and without.
            (true, true, &array, Some(Kind::Array)),
            (true, false, &array, None),
            (true, false, &array, Some(Kind::Array)),
            // The notices of rings, subscriptions, and what is said at the start.
            (true, false, &[0], None),
            (false, false, &[1], None),
            (true, false, b"READY", None),
            (true, false, b"\x81\xa1a\x01", Some(Kind::Map)),
            (true, false, b"ENGINE_CORE_DEAD", Some(Kind::Dead)),
        ] {
            assert_eq!(pairs.take(1, &frame(sent, more, bytes)), kind, "{bytes:?}");
        }
        pairs.take(1, &frame(false, true, &[0]));
        pairs.gone(1);
        assert!(pairs.next.is_empty());
    }
}
