//! Records of model servers' functions: frames, batches, lists.

use super::record::{Fields, Head};
use super::{Body, CallData, Rejected};
use crate::probe::{self, Family};
use profiler_common::event::{batch, way};

/// A function of a model server, or of a library that it talks through, was called.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerCall {
    /// Index into the probe catalogue; known to be in range.
    pub api: u16,
    /// What came with it.
    pub data: ServerData,
}

/// What is known of such a call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ServerData {
    /// A frame of a message queue, or a chunk of a ring.
    Frame {
        /// How it was seen.
        way: Way,
        /// The socket's address; of a ring, the slot.
        socket: u64,
        /// More frames of the same message follow.
        more: bool,
        /// Its size, bytes.
        size: u64,
        /// Its bytes, as far as they were copied.
        bytes: Vec<u8>,
    },
    /// A batch, at the entry of the call.
    Batch(Box<Batch>),
    /// A call with an array of words.
    List {
        /// The first six arguments.
        args: [u64; 6],
        /// Words in the array.
        count: u32,
        /// The words, as far as they were copied.
        words: Vec<u64>,
    },
    /// Any other call: its arguments, result or name.
    Call(CallData),
}

/// How a frame was seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// The process received it.
    Received,
    /// The process sent it.
    Sent,
    /// The process wrote it into a ring in shared memory.
    Ring,
}

/// A batch of llama.cpp.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Batch {
    /// `llama_context*`.
    pub context: u64,
    /// Tokens in it.
    pub tokens: u32,
    /// It holds embeddings instead of tokens.
    pub embeddings: bool,
    /// It does not say which tokens want an output: the last one does.
    pub last_only: bool,
    /// Its tokens, in order.
    pub runs: Vec<Run>,
    /// Tokens that are in no run.
    pub unseen: u32,
}

/// Tokens of one sequence at rising positions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Run {
    /// The sequence of its first token: the first of them if there are several; -1 where none is given.
    pub sequence: i32,
    /// Sequences that each token belongs to.
    pub sequences: u16,
    /// Position of the first token; -1 where none is given.
    pub position: i32,
    /// Tokens.
    pub tokens: u16,
    /// Of these, how many want an output.
    pub outputs: u16,
}

/// A call by the family of its function.
pub(super) fn call(head: &Head, data: CallData) -> Result<Body, Rejected> {
    let api = head.api()?;
    Ok(match probe::api(api).map(|api| api.layer.family()) {
        Some(Family::Server) => Body::Server(ServerCall { api, data: ServerData::Call(data) }),
        _ => Body::Gpu(super::GpuCall { api, data }),
    })
}

pub(super) fn message(head: &Head, fields: &mut Fields<'_>) -> Result<Body, Rejected> {
    let way = match head.detail {
        way::RECEIVED => Way::Received,
        way::SENT => Way::Sent,
        way::RING => Way::Ring,
        _ => return Err(Rejected::BadValue),
    };
    let (socket, size) = (fields.u64()?, fields.u64()?);
    let (len, more) = (fields.u32()?, fields.u32()? != 0);
    let bytes = fields.0.get(..len as usize).ok_or(Rejected::Truncated)?.to_vec();
    body(head, ServerData::Frame { way, socket, more, size, bytes })
}

pub(super) fn batch(head: &Head, fields: &mut Fields<'_>) -> Result<Body, Rejected> {
    let (context, tokens, capacity) = (fields.u64()?, fields.u32()?, fields.u32()?);
    let (flags, _) = (fields.u32()?, fields.u32()?);
    let columns = Columns { bytes: fields.0, capacity: capacity as usize, flags };
    let known = tokens.min(capacity);
    let mut runs: Vec<Run> = Vec::new();
    for index in 0..known as usize {
        let token = columns.token(index).ok_or(Rejected::Truncated)?;
        match runs.last_mut().filter(|run| run.goes_on(&token)) {
            Some(run) => {
                run.tokens += 1;
                run.outputs += token.outputs;
            }
            None => runs.push(token),
        }
    }
    // Without a word on outputs the last token has one (llama.h).
    if let (true, Some(last)) = (flags & batch::LAST_ONLY != 0, runs.last_mut()) {
        last.outputs = 1;
    }
    let batch = Batch {
        context,
        tokens,
        embeddings: flags & batch::EMBEDDINGS != 0,
        last_only: flags & batch::LAST_ONLY != 0,
        runs,
        unseen: tokens - known,
    };
    body(head, ServerData::Batch(Box::new(batch)))
}

/// The columns of a batch's record.
struct Columns<'a> {
    bytes: &'a [u8],
    capacity: usize,
    flags: u32,
}

impl Columns<'_> {
    /// A token, as a run of one.
    fn token(&self, index: usize) -> Option<Run> {
        let has_sequences = self.flags & batch::NO_SEQUENCES == 0;
        let has_positions = self.flags & batch::NO_POSITIONS == 0;
        let [sequence, sequences, position] =
            [self.number(0, index)?, self.number(1, index)?, self.number(2, index)?];
        let output = self.bytes.get(12usize.checked_mul(self.capacity)?.checked_add(index)?)?;
        Some(Run {
            sequence: if has_sequences { sequence } else { -1 },
            sequences: if has_sequences { u16::try_from(sequences).unwrap_or(u16::MAX) } else { 0 },
            position: if has_positions { position } else { -1 },
            tokens: 1,
            outputs: u16::from(*output != 0),
        })
    }

    /// The element of a column of 4-byte numbers.
    fn number(&self, column: usize, index: usize) -> Option<i32> {
        let at = column.checked_mul(self.capacity)?.checked_add(index)?.checked_mul(4)?;
        Some(i32::from_le_bytes(*self.bytes.get(at..)?.first_chunk()?))
    }
}

impl Run {
    /// Whether the token is the next one of this run.
    fn goes_on(&self, token: &Self) -> bool {
        let position = if self.position < 0 {
            self.position
        } else {
            self.position.saturating_add(i32::from(self.tokens))
        };
        self.sequence == token.sequence
            && self.sequences == token.sequences
            && position == token.position
            && self.tokens < u16::MAX
    }
}

pub(super) fn list(head: &Head, fields: &mut Fields<'_>) -> Result<Body, Rejected> {
    let args = fields.words()?;
    let (count, len) = (fields.u32()?, fields.u32()?);
    let mut words = Vec::new();
    for _ in 0..len {
        words.push(fields.u64()?);
    }
    body(head, ServerData::List { args, count, words })
}

fn body(head: &Head, data: ServerData) -> Result<Body, Rejected> {
    Ok(Body::Server(ServerCall { api: head.api()?, data }))
}

#[cfg(test)]
mod tests {
    use super::super::{decode, record::bytes};
    use super::*;
    use profiler_common::event::{self, Head, kind};

    fn head(kind: u32, detail: u16) -> Head {
        let api = (0..).zip(probe::CATALOG).find(|(_, api)| api.symbol == "zmq_msg_send").unwrap().0;
        Head { kind, api, detail, tgid: 10, tid: 11, time_ns: 12 }
    }

    fn data(record: &[u8]) -> Result<ServerData, Rejected> {
        match decode(record)?.body {
            Body::Server(call) => Ok(call.data),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_frame_is_as_long_as_the_record_says_and_not_as_its_class() {
        let message =
            event::Message { head: head(kind::MESSAGE, way::SENT), socket: 5, size: 900, len: 3, more: 1 };
        let record = [bytes(&message), b"abcdef".to_vec()].concat();
        let expected =
            ServerData::Frame { way: Way::Sent, socket: 5, more: true, size: 900, bytes: b"abc".to_vec() };
        assert_eq!(data(&record), Ok(expected));
        assert_eq!(data(&record[..49]), Err(Rejected::Truncated));
        let strange = event::Message { head: head(kind::MESSAGE, 3), ..message };
        assert_eq!(data(&bytes(&strange)), Err(Rejected::BadValue));
    }

    #[test]
    fn a_batch_comes_out_as_runs() {
        let head = head(kind::BATCH, 0);
        let batch = event::Batch { head, context: 7, tokens: 7, capacity: 6, flags: 3, reserved: 0 };
        let columns = [[2, 2, 2, 5, 5, 2], [1, 1, 1, 1, 2, 1], [0, 1, 2, 40, 41, 3]]
            .map(|column: [i32; 6]| bytes(&column));
        let record = [bytes(&batch), columns.concat(), vec![0, 0, 9, 1, 0, 0], vec![0xff; 100]].concat();
        let run = |sequence, sequences, position, tokens, outputs| Run {
            sequence,
            sequences,
            position,
            tokens,
            outputs,
        };
        let expected = Batch {
            context: 7,
            tokens: 7,
            embeddings: true,
            last_only: true,
            runs: vec![run(2, 1, 0, 3, 1), run(5, 1, 40, 1, 1), run(5, 2, 41, 1, 0), run(2, 1, 3, 1, 1)],
            unseen: 1,
        };
        assert_eq!(data(&record), Ok(ServerData::Batch(Box::new(expected))));
        assert_eq!(data(&record[..60]), Err(Rejected::Truncated));
        let nothing = event::Batch { tokens: 2, flags: batch::NO_POSITIONS | batch::NO_SEQUENCES, ..batch };
        let record = [bytes(&nothing), record[48..].to_vec()].concat();
        let Ok(ServerData::Batch(nothing)) = data(&record) else { panic!("no batch") };
        assert_eq!(nothing.runs, [run(-1, 0, -1, 2, 0)]);
    }

    #[test]
    fn a_list_has_its_words() {
        let list = event::List { head: head(kind::LIST, 0), args: [1, 2, 3, 4, 5, 6], count: 9, len: 2 };
        let record = [bytes(&list), bytes(&[70u64, 80, 90])].concat();
        let expected = ServerData::List { args: [1, 2, 3, 4, 5, 6], count: 9, words: vec![70, 80] };
        assert_eq!(data(&record), Ok(expected));
    }
}
