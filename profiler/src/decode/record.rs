//! The byte layouts of `profiler_common::event`, read field by field: no pointer casts, no trust.

use super::{
    Body, Burst, CallData, Change, Direction, End, Event, GpuCall, Launch, Rejected, Socket, SpanContext,
    Stack, Tie, Wide, server,
};
use crate::probe;
use profiler_common::event::{STACK_FRAMES, change, direction, end_reason, flag, kind, tie};

/// Reads one record.
///
/// # Errors
/// A [`Rejected`] reason; the caller counts it and goes on.
pub fn decode(record: &[u8]) -> Result<Event, Rejected> {
    let mut fields = Fields(record);
    let kind = fields.u32()?;
    let head = Head {
        api: fields.u16()?,
        detail: fields.u16()?,
        pid: fields.u32()?,
        tid: fields.u32()?,
        time_ns: fields.u64()?,
    };
    let body = match kind {
        kind::LAUNCH => launch(&head, &mut fields)?,
        kind::CALL => head.call(CallData::Entered { caller: fields.u64()?, args: fields.words()? })?,
        kind::CALL_DONE => head.call(returned(&mut fields)?)?,
        kind::WIDE_CALL => head.call(CallData::Wide(Box::new(Wide {
            caller: fields.u64()?,
            args: fields.words()?,
            pointee: fields.words()?,
        })))?,
        kind::CALL_FAILED => head.call(CallData::Failed { result: fields.u64()?.cast_signed() })?,
        kind::NAMED => head.call(named(&mut fields)?)?,
        kind::STACK => Body::Stack(Box::new(stack(&head, &mut fields)?)),
        kind::BURST => Body::Burst(burst(&mut fields)?),
        kind::SOCKET_OPEN => Body::Socket(Socket::Opened {
            connection: fields.u64()?,
            fd: fields.u32()?,
            listener_fd: fields.u32()?,
        }),
        kind::SOCKET_DATA => Body::Socket(data(&head, &mut fields)?),
        kind::SOCKET_END => Body::Socket(ended(&head, &mut fields)?),
        kind::TLS_SESSION => Body::Socket(session(&head, &mut fields)?),
        kind::MESSAGE => server::message(&head, &mut fields)?,
        kind::BATCH => server::batch(&head, &mut fields)?,
        kind::LIST => server::list(&head, &mut fields)?,
        kind::PROCESS => Body::Process(changed(&head, &mut fields)?),
        kind::THREAD_CONTEXT => Body::Context(context(&head, &mut fields)?),
        _ => return Err(Rejected::UnknownKind),
    };
    Ok(Event { pid: head.pid, tid: head.tid, time_ns: head.time_ns, body })
}

pub(super) struct Head {
    api: u16,
    pub(super) detail: u16,
    pid: u32,
    tid: u32,
    time_ns: u64,
}

impl Head {
    pub(super) fn api(&self) -> Result<u16, Rejected> {
        probe::api(self.api).map(|_| self.api).ok_or(Rejected::UnknownApi)
    }

    fn call(&self, data: CallData) -> Result<Body, Rejected> {
        server::call(self, data)
    }
}

fn launch(head: &Head, fields: &mut Fields) -> Result<Body, Rejected> {
    let (function, stream, caller) = (fields.u64()?, fields.u64()?, fields.u64()?);
    let grid = [fields.u32()?, u32::from(fields.u16()?), u32::from(fields.u16()?)];
    let block = [fields.u16()?, fields.u16()?, head.detail];
    let launch = Launch { function, stream, caller, grid, block, shared_bytes: fields.u32()? };
    Ok(Body::Gpu(GpuCall { api: head.api()?, data: CallData::Launch(launch) }))
}

fn returned(fields: &mut Fields) -> Result<CallData, Rejected> {
    Ok(CallData::Returned {
        entered_ns: fields.u64()?,
        caller: fields.u64()?,
        args: fields.words()?,
        result: fields.u64()?.cast_signed(),
        out: fields.words()?,
    })
}

/// A name is text for people: bytes that are no UTF-8 are replaced.
fn named(fields: &mut Fields) -> Result<CallData, Rejected> {
    let (handle, len, cut) = (fields.u64()?, fields.u32()?, fields.u32()? != 0);
    let bytes = fields.0.get(..len as usize).ok_or(Rejected::Truncated)?;
    Ok(CallData::Named { handle, name: String::from_utf8_lossy(bytes).into(), cut })
}

/// The kernel's walk starts at the probed function and, unless that begins with `push %rbp`, misses who called it
/// (arch/x86/events/core.c, `is_uprobe_at_func_entry`): the caller is put where it belongs.
fn stack(head: &Head, fields: &mut Fields) -> Result<Stack, Rejected> {
    let (function, caller) = (fields.u64()?, fields.u64()?);
    let frames: [u64; STACK_FRAMES] = fields.words()?;
    let found = frames.get(..usize::from(head.detail)).ok_or(Rejected::BadValue)?;
    let mut frames = found.to_vec();
    if caller != 0 && frames.get(1) != Some(&caller) {
        frames.insert(frames.len().min(1), caller);
    }
    Ok(Stack { api: head.api()?, function, caller, frames })
}

fn burst(fields: &mut Fields) -> Result<Burst, Rejected> {
    Ok(Burst {
        first_ns: fields.u64()?,
        last_ns: fields.u64()?,
        launches: fields.u64()?,
        copies: fields.u64()?,
        copy_bytes: fields.u64()?,
    })
}

fn data(head: &Head, fields: &mut Fields) -> Result<Socket, Rejected> {
    let direction = match head.detail {
        direction::RECEIVED => Direction::Received,
        direction::SENT => Direction::Sent,
        _ => return Err(Rejected::BadValue),
    };
    let (connection, position) = (fields.u64()?, fields.u64()?);
    let (len, lost_after) = (fields.u32()?, fields.u32()?);
    let bytes = fields.0.get(..len as usize).ok_or(Rejected::Truncated)?.to_vec();
    Ok(Socket::Data { connection, direction, position, bytes, lost_after })
}

fn ended(head: &Head, fields: &mut Fields) -> Result<Socket, Rejected> {
    let (connection, fd, error) = (fields.u64()?, fields.u32()?, fields.u32()?);
    let end = match head.detail {
        end_reason::CLOSED => End::Closed,
        end_reason::END_OF_INPUT => End::EndOfInput,
        end_reason::FAILED => End::Failed(error),
        end_reason::PROCESS_EXITED => End::ProcessExited,
        end_reason::END_OF_OUTPUT => End::EndOfOutput,
        _ => return Err(Rejected::BadValue),
    };
    Ok(Socket::Ended { connection, fd, end, received: fields.u64()?, sent: fields.u64()? })
}

fn session(head: &Head, fields: &mut Fields) -> Result<Socket, Rejected> {
    let (connection, carrier) = (fields.u64()?, fields.u64()?);
    let tie = match head.detail {
        tie::NEW => return Ok(Socket::Secured { connection, new: true }),
        tie::MET => return Ok(Socket::Secured { connection, new: false }),
        tie::DESCRIPTOR => Tie::Descriptor,
        tie::NESTED => Tie::Nested,
        tie::ORDER => Tie::Order,
        tie::LENGTH => Tie::Length,
        tie::DROPPED => Tie::Dropped,
        _ => return Err(Rejected::BadValue),
    };
    Ok(Socket::Carried { connection, carrier, tie })
}

/// Flags that nobody set are none where the publisher leaves them empty.
fn context(head: &Head, fields: &mut Fields) -> Result<Option<SpanContext>, Rejected> {
    let (trace_id, span_id) = (fields.take()?, fields.take()?);
    let flags = fields.u32()?;
    let said = flags & flag::UNSAID == 0 || flags & 0xff != 0;
    match head.detail {
        0 => Ok(None),
        1 if trace_id != [0; 16] && span_id != [0; 8] => {
            Ok(Some(SpanContext { trace_id, span_id, flags: said.then_some(flags as u8 & W3C_FLAGS) }))
        }
        _ => Err(Rejected::BadValue),
    }
}

/// Sampled, and random trace id (W3C Trace Context level 2); the others are not defined.
const W3C_FLAGS: u8 = 0b11;

fn changed(head: &Head, fields: &mut Fields) -> Result<Change, Rejected> {
    Ok(match head.detail {
        change::FORK => Change::Forked { task: fields.u32()? },
        change::EXEC => Change::Executed,
        change::EXIT => Change::Exited,
        change::MAP => Change::Mapped,
        change::IO_URING => Change::MadeIoUring,
        change::LISTEN => Change::Listens { fd: fields.u32()? },
        _ => return Err(Rejected::BadValue),
    })
}

/// What of the record has not been read yet. Little-endian, as both supported machines are.
pub(super) struct Fields<'a>(pub(super) &'a [u8]);

impl Fields<'_> {
    fn take<const N: usize>(&mut self) -> Result<[u8; N], Rejected> {
        let (field, rest) = self.0.split_first_chunk::<N>().ok_or(Rejected::Truncated)?;
        self.0 = rest;
        Ok(*field)
    }

    fn u16(&mut self) -> Result<u16, Rejected> {
        self.take().map(u16::from_le_bytes)
    }

    pub(super) fn u32(&mut self) -> Result<u32, Rejected> {
        self.take().map(u32::from_le_bytes)
    }

    pub(super) fn u64(&mut self) -> Result<u64, Rejected> {
        self.take().map(u64::from_le_bytes)
    }

    pub(super) fn words<const N: usize>(&mut self) -> Result<[u64; N], Rejected> {
        let mut words = [0; N];
        for word in &mut words {
            *word = self.u64()?;
        }
        Ok(words)
    }
}

/// The bytes of a contract type, as the kernel side writes them.
#[cfg(test)]
pub(super) fn bytes<T: Copy>(value: &T) -> Vec<u8> {
    // SAFETY: contract types have no padding (profiler_common::layout), so every byte is initialised.
    unsafe { std::slice::from_raw_parts(std::ptr::from_ref(value).cast::<u8>(), size_of::<T>()) }.to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;
    use profiler_common::event;

    fn head(kind: u32, detail: u16) -> event::Head {
        event::Head { kind, api: 1, detail, tgid: 10, tid: 11, time_ns: 12 }
    }

    #[test]
    fn what_a_thread_works_for_comes_out_as_it_went_in() {
        let record = |detail, span_id, flags| {
            let (head, trace_id) = (head(kind::THREAD_CONTEXT, detail), [7; 16]);
            decode(&bytes(&event::ThreadContext { head, trace_id, span_id, flags, padding: 0 }))
        };
        let body = |record: Result<Event, Rejected>| record.map(|event| event.body);
        let context = |flags| Body::Context(Some(SpanContext { trace_id: [7; 16], span_id: [9; 8], flags }));
        assert_eq!(body(record(1, [9; 8], 0xff)), Ok(context(Some(3))));
        assert_eq!(body(record(1, [9; 8], 0)), Ok(context(Some(0))));
        assert_eq!(body(record(1, [9; 8], flag::UNSAID)), Ok(context(None)));
        assert_eq!(body(record(1, [9; 8], flag::UNSAID | 1)), Ok(context(Some(1))));
        assert_eq!(body(record(0, [0; 8], 0)), Ok(Body::Context(None)));
        assert_eq!(body(record(1, [0; 8], 1)), Err(Rejected::BadValue));
        assert_eq!(body(record(2, [9; 8], 1)), Err(Rejected::BadValue));
    }

    #[test]
    fn a_launch_comes_out_as_it_went_in() {
        let record = event::Launch {
            head: head(kind::LAUNCH, 5),
            function: 0xf00,
            stream: 7,
            caller: 0xca11,
            grid_x: 70_000,
            grid_y: 2,
            grid_z: 3,
            block_x: 128,
            block_y: 4,
            shared_bytes: 99_000,
        };
        let event = decode(&bytes(&record)).unwrap();
        assert_eq!((event.pid, event.tid, event.time_ns), (10, 11, 12));
        let launch = Launch {
            function: 0xf00,
            stream: 7,
            caller: 0xca11,
            grid: [70_000, 2, 3],
            block: [128, 4, 5],
            shared_bytes: 99_000,
        };
        assert_eq!(event.body, Body::Gpu(GpuCall { api: 1, data: CallData::Launch(launch) }));
    }

    #[test]
    fn payload_is_as_long_as_the_record_says_and_not_as_its_class() {
        let data = event::SocketData {
            head: head(kind::SOCKET_DATA, direction::SENT),
            connection: 9,
            position: 100,
            len: 5,
            lost_after: 3,
        };
        let mut record = bytes(&data);
        record.extend(b"hello and the rest of the class");
        let Body::Socket(Socket::Data { bytes, lost_after, position, .. }) = decode(&record).unwrap().body
        else {
            panic!("not data");
        };
        assert_eq!((bytes.as_slice(), position, lost_after), (&b"hello"[..], 100, 3));
        assert_eq!(decode(&record[..50]).unwrap_err(), Rejected::Truncated);
    }

    #[test]
    fn every_prefix_of_every_kind_is_rejected_or_read() {
        for kind in 0..18 {
            for detail in [0, 1, 2, 3, 4, 5, 6, 7, 8, 64, 65] {
                let full = [bytes(&head(kind, detail)), vec![0; 560]].concat();
                for len in 0..full.len() {
                    let _ = decode(&full[..len]);
                }
                assert_eq!(decode(&full[..23]).unwrap_err(), Rejected::Truncated);
            }
        }
        assert_eq!(decode(&bytes(&head(99, 0))).unwrap_err(), Rejected::UnknownKind);
        let mut unknown = event::Call { head: head(kind::CALL, 0), caller: 0, args: [0; 6] };
        unknown.head.api = u16::MAX;
        assert_eq!(decode(&bytes(&unknown)).unwrap_err(), Rejected::UnknownApi);
    }

    #[test]
    fn a_session_comes_out_as_it_went_in() {
        let read = |detail| {
            let head = head(kind::TLS_SESSION, detail);
            let record = event::TlsSession { head, connection: 7, carrier: 9, reserved: 0 };
            decode(&bytes(&record)).map(|event| event.body)
        };
        assert_eq!(read(tie::NEW), Ok(Body::Socket(Socket::Secured { connection: 7, new: true })));
        assert_eq!(read(tie::MET), Ok(Body::Socket(Socket::Secured { connection: 7, new: false })));
        let carried = Socket::Carried { connection: 7, carrier: 9, tie: Tie::Length };
        assert_eq!(read(tie::LENGTH), Ok(Body::Socket(carried)));
        assert_eq!(read(0), Err(Rejected::BadValue));
    }

    #[test]
    fn the_caller_of_a_launch_is_on_its_stack() {
        let stack = |found: &[u64], caller| {
            let mut frames = [0; STACK_FRAMES];
            frames[..found.len()].copy_from_slice(found);
            let head = head(kind::STACK, found.len() as u16);
            let record = event::Stack { head, function: 7, caller, frames };
            let Body::Stack(stack) = decode(&bytes(&record)).unwrap().body else { panic!("no stack") };
            stack.frames
        };
        assert_eq!(stack(&[1, 2, 3], 2), [1, 2, 3]);
        assert_eq!(stack(&[1, 3], 2), [1, 2, 3]);
        assert_eq!(stack(&[1], 2), [1, 2]);
        assert_eq!(stack(&[], 2), [2]);
        assert_eq!(stack(&[1, 3], 0), [1, 3]);
    }

    #[test]
    fn a_name_is_as_long_as_the_record_says() {
        let named = event::Named { head: head(kind::NAMED, 0), handle: 0xf, len: 3, cut: 1 };
        let mut record = bytes(&named);
        record.extend(b"abcdef");
        let Body::Gpu(GpuCall { data: CallData::Named { handle, name, cut }, .. }) =
            decode(&record).unwrap().body
        else {
            panic!("no name");
        };
        assert_eq!((handle, &*name, cut), (0xf, "abc", true));
        assert_eq!(decode(&record[..41]).unwrap_err(), Rejected::Truncated);
    }
}
