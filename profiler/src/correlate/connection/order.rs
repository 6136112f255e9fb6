//! One direction of a connection in the order of its bytes.
//!
//! Several threads may write to one connection, and each record is made after its write: the record of the later bytes
//! can come first. A chunk that runs ahead waits for those before it, until so much has come after it that they must
//! be lost. In and out: chunks with their positions.

use std::collections::BTreeMap;

/// Chunks that wait. Threads that write at once are few, and a record is late by microseconds.
const MOST_WAITING: usize = 16;

/// Bytes of one direction, with what was left out behind them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chunk {
    /// Bytes that went this way before.
    pub position: u64,
    /// When, `CLOCK_MONOTONIC` nanoseconds.
    pub time_ns: u64,
    /// The bytes.
    pub bytes: Vec<u8>,
    /// Bytes behind them that no chunk carries.
    pub lost_after: u32,
}

impl Chunk {
    fn end(&self) -> u64 {
        self.position.saturating_add(self.bytes.len() as u64).saturating_add(u64::from(self.lost_after))
    }
}

/// What runs ahead in one direction.
#[derive(Debug, Default)]
pub struct Order {
    next: u64,
    time_ns: u64,
    waiting: BTreeMap<u64, Chunk>,
}

impl Order {
    /// Where the bytes that have been passed on end.
    pub fn position(&self) -> u64 {
        self.next
    }

    /// Whether something waits.
    pub fn waits(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// Takes a chunk, and passes on what is in order now.
    pub fn take(&mut self, chunk: Chunk, pass: &mut impl FnMut(Chunk)) {
        if chunk.position > self.next {
            self.waiting.insert(chunk.position, chunk);
            if self.waiting.len() >= MOST_WAITING {
                self.give_up(pass);
            }
            return;
        }
        self.pass(chunk, pass);
        self.go_on(pass);
    }

    /// What is missing will not come: passes on all that waits.
    pub fn give_up(&mut self, pass: &mut impl FnMut(Chunk)) {
        while let Some((_, chunk)) = self.waiting.pop_first() {
            self.pass(chunk, pass);
        }
    }

    /// Passes on what waited for `now_ns` or longer ago, and all with it.
    pub fn give_up_before(&mut self, now_ns: u64, pass: &mut impl FnMut(Chunk)) {
        if self.waiting.values().any(|chunk| chunk.time_ns <= now_ns) {
            self.give_up(pass);
        }
    }

    fn go_on(&mut self, pass: &mut impl FnMut(Chunk)) {
        while let Some(entry) = self.waiting.first_entry() {
            if *entry.key() > self.next {
                return;
            }
            let chunk = entry.remove();
            self.pass(chunk, pass);
        }
    }

    /// Later bytes are not earlier: of two threads that write at once, the clock may be read in the other order.
    fn pass(&mut self, mut chunk: Chunk, pass: &mut impl FnMut(Chunk)) {
        self.next = self.next.max(chunk.end());
        self.time_ns = self.time_ns.max(chunk.time_ns);
        chunk.time_ns = self.time_ns;
        pass(chunk);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chunk(position: u64, bytes: &str) -> Chunk {
        Chunk { position, time_ns: position, bytes: bytes.as_bytes().to_vec(), lost_after: 0 }
    }

    fn run(order: &mut Order, chunks: impl IntoIterator<Item = Chunk>) -> Vec<u64> {
        let mut passed = Vec::new();
        for chunk in chunks {
            order.take(chunk, &mut |chunk| passed.push(chunk.position));
        }
        passed
    }

    #[test]
    fn edge_15_what_runs_ahead_waits_for_its_turn() {
        let mut order = Order::default();
        assert_eq!(run(&mut order, [chunk(0, "ab"), chunk(4, "ef"), chunk(6, "g")]), [0]);
        assert!(order.waits());
        assert_eq!(run(&mut order, [chunk(2, "cd")]), [2, 4, 6]);
        assert_eq!((order.waits(), order.position()), (false, 7));
    }

    #[test]
    fn what_is_missing_is_given_up() {
        let mut order = Order::default();
        let many = (1..=MOST_WAITING as u64).map(|n| chunk(n * 10, "x"));
        assert_eq!(run(&mut order, many).len(), MOST_WAITING);
        assert!(run(&mut order, [chunk(500, "x")]).is_empty());
        let mut passed = Vec::new();
        order.give_up_before(499, &mut |chunk| passed.push(chunk.position));
        assert!(passed.is_empty());
        order.give_up_before(500, &mut |chunk| passed.push(chunk.position));
        assert_eq!((passed, order.position()), (vec![500], 501));
    }

    #[test]
    fn bytes_that_were_left_out_are_in_order() {
        let mut order = Order::default();
        let cut = Chunk { lost_after: 10, ..chunk(0, "ab") };
        assert_eq!(run(&mut order, [cut, chunk(12, "cd")]), [0, 12]);
    }
}
