//! What a process publishes about itself for observers: OpenTelemetry's process context (OTEP 4719). In: a pid. Out: the
//! resource that its SDK has, and by which schema its threads publish their spans (OTEP 4947). Absent: those spans, which the
//! kernel side reads (`attach/publish.rs` finds out where).
//!
//! The context is a mapping with a name, a header of 32 bytes and, somewhere, a payload in protobuf. Its publisher sets
//! the time to 0 while it writes, so a reader compares the header before and after.

use crate::span::model::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue, any_value::Value as Any};
use opentelemetry_proto::tonic::resource::v1::Resource;
use prost::Message;
use std::fs::File;
use std::os::unix::fs::FileExt as _;

/// What the mapping may be called: a memfd without and with a name, and an anonymous mapping with one.
const NAMES: [&str; 3] = ["/memfd:OTEL_CTX", "[anon_shmem:OTEL_CTX]", "[anon:OTEL_CTX]"];
const SIGNATURE: [u8; 8] = *b"OTEL_CTX";
const VERSION: u32 = 2;
/// Payloads are a few kilobytes; more is not read.
const MOST_PAYLOAD: usize = 65_536;
/// Attributes that are taken over, and bytes of each.
const MOST_ATTRIBUTES: usize = 64;
const MOST_BYTES: usize = 2048;
/// A publisher that writes takes microseconds.
const TRIES: usize = 3;
/// Names the schema of threads' contexts (OTEP 4947).
const THREAD_SCHEMA: &str = "threadlocal.schema_version";
/// What describes the SDK and not the process, what is for readers of threads, and what may be another pid namespace's.
const NOT_OURS: [&str; 3] = ["telemetry.", "threadlocal.", "process.pid"];

/// What a process publishes about itself.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ProcessContext {
    /// Its resource.
    pub attributes: Vec<(String, Value)>,
    /// The schema by which its threads tell their active span, if they do.
    pub thread_schema: Option<String>,
}

/// The payload (`opentelemetry.proto.processcontext.v1development.ProcessContext`).
#[derive(Clone, PartialEq, Message)]
struct Payload {
    #[prost(message, optional, tag = "1")]
    resource: Option<Resource>,
    #[prost(message, repeated, tag = "2")]
    attributes: Vec<KeyValue>,
}

/// What a process publishes, if it does and may be read.
#[must_use]
pub fn process_context(pid: u32) -> Option<ProcessContext> {
    let maps = std::fs::read_to_string(format!("/proc/{pid}/maps")).ok()?;
    let mut addresses = maps.lines().filter_map(address).peekable();
    addresses.peek()?;
    let memory = File::open(format!("/proc/{pid}/mem")).ok()?;
    addresses.find_map(|address| (0..TRIES).find_map(|_| read(&memory, address)))
}

/// Where a line of `maps` says that a context lies.
fn address(line: &str) -> Option<u64> {
    let mut fields = line.splitn(6, ' ');
    let (start, _) = fields.next()?.split_once('-')?;
    let name = fields.nth(4)?.trim_start();
    NAMES.contains(&name.trim_end_matches(" (deleted)")).then_some(())?;
    u64::from_str_radix(start, 16).ok()
}

fn read(memory: &File, address: u64) -> Option<ProcessContext> {
    let before = header(memory, address)?;
    let mut payload = vec![0; before.payload_size];
    memory.read_exact_at(&mut payload, before.payload).ok()?;
    let same = header(memory, address).is_some_and(|after| after == before);
    same.then(|| decode(&payload)).flatten()
}

#[derive(PartialEq)]
struct Header {
    published_ns: u64,
    payload_size: usize,
    payload: u64,
}

/// Signature, version, size of the payload, when it was published, where the payload lies.
fn header(memory: &File, address: u64) -> Option<Header> {
    let mut bytes = [0; 32];
    memory.read_exact_at(&mut bytes, address).ok()?;
    let word = |at: usize| Some(u64::from_le_bytes(bytes.get(at..at + 8)?.try_into().ok()?));
    let half = |at: usize| Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?));
    let header = Header { payload_size: half(12)? as usize, published_ns: word(16)?, payload: word(24)? };
    let known = bytes.starts_with(&SIGNATURE) && half(8)? == VERSION;
    let whole = header.published_ns > 0 && (1..=MOST_PAYLOAD).contains(&header.payload_size);
    (known && whole).then_some(header)
}

/// Publishers that follow the proposal's first text write the resource alone.
fn decode(payload: &[u8]) -> Option<ProcessContext> {
    let whole = Payload::decode(payload).ok().filter(|payload| {
        payload
            .resource
            .as_ref()
            .is_some_and(|resource| resource.attributes.iter().any(|pair| !pair.key.is_empty()))
    });
    let Payload { resource, attributes } = match whole {
        Some(whole) => whole,
        None => Payload { resource: Some(Resource::decode(payload).ok()?), attributes: Vec::new() },
    };
    let pairs: Vec<_> = resource.into_iter().flat_map(|resource| resource.attributes).collect();
    let schema = pairs.iter().chain(&attributes).find(|pair| pair.key == THREAD_SCHEMA);
    let thread_schema = schema.and_then(|pair| match value(pair.value.clone()?)? {
        Value::Str(schema) => Some(schema.into_owned()),
        _ => None,
    });
    let is_ours = |key: &str| !key.is_empty() && !NOT_OURS.iter().any(|other| key.starts_with(other));
    let pairs = pairs.into_iter().filter(|pair| is_ours(&pair.key) && pair.key.len() <= MOST_BYTES);
    let attributes = pairs.filter_map(|pair| Some((pair.key, value(pair.value?)?)));
    Some(ProcessContext { attributes: attributes.take(MOST_ATTRIBUTES).collect(), thread_schema })
}

/// Values that resources of ours have, too; others are left out.
fn value(value: AnyValue) -> Option<Value> {
    match value.value? {
        Any::StringValue(text) if text.len() <= MOST_BYTES => Some(Value::Str(text.into())),
        Any::BoolValue(value) => Some(Value::Bool(value)),
        Any::IntValue(value) => Some(Value::Int(value)),
        Any::DoubleValue(value) => Some(Value::Double(value)),
        Any::ArrayValue(list) => {
            let text = |item: AnyValue| match item.value? {
                Any::StringValue(text) => Some(text),
                _ => None,
            };
            let texts: Vec<_> = list.values.into_iter().map(text).collect::<Option<_>>()?;
            let bytes: usize = texts.iter().map(String::len).sum();
            (bytes <= MOST_BYTES).then_some(Value::Strs(texts))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::ffi::c_void;

    fn pair(key: &str, value: Any) -> KeyValue {
        KeyValue { key: key.to_owned(), value: Some(AnyValue { value: Some(value) }), ..KeyValue::default() }
    }

    fn resource() -> Resource {
        let text = |text: &str| Any::StringValue(text.to_owned());
        let attributes = vec![
            pair("service.name", text("checkout")),
            pair("service.instance.id", text("7f0c")),
            pair("telemetry.sdk.name", text("opentelemetry")),
            pair("process.pid", Any::IntValue(7)),
            pair("replicas", Any::IntValue(3)),
        ];
        Resource { attributes, ..Resource::default() }
    }

    fn expected() -> Vec<(String, Value)> {
        let text = |text: &'static str| Value::Str(text.into());
        [
            ("service.name", text("checkout")),
            ("service.instance.id", text("7f0c")),
            ("replicas", Value::Int(3)),
        ]
        .map(|(key, value)| (key.to_owned(), value))
        .to_vec()
    }

    #[test]
    fn both_payloads_are_read() {
        let schema = pair(THREAD_SCHEMA, Any::StringValue("tlsdesc_v1_dev".into()));
        let payload = Payload { resource: Some(resource()), attributes: vec![schema] };
        let context = decode(&payload.encode_to_vec()).unwrap();
        assert_eq!(
            (context.attributes, context.thread_schema.as_deref()),
            (expected(), Some("tlsdesc_v1_dev"))
        );
        let context = decode(&resource().encode_to_vec()).unwrap();
        assert_eq!((context.attributes, context.thread_schema), (expected(), None));
    }

    #[test]
    fn lines_of_maps() {
        for (line, found) in [
            ("7f10a0000000-7f10a0001000 rw-s 00000000 00:01 1032 /memfd:OTEL_CTX (deleted)", true),
            (
                "7f10a0000000-7f10a0001000 rw-s 00000000 00:01 1032                       [anon_shmem:OTEL_CTX]",
                true,
            ),
            (
                "7f10a0000000-7f10a0002000 r--p 00000000 00:00 0                          [anon:OTEL_CTX]",
                true,
            ),
            ("7f10a0000000-7f10a0002000 r--p 00000000 00:00 0                          /tmp/OTEL_CTX", false),
            ("7f10a0000000-7f10a0002000 r--p 00000000 00:00 0 ", false),
            ("x", false),
        ] {
            assert_eq!(address(line), found.then_some(0x7f10_a000_0000), "{line}");
        }
    }

    /// Publishes a context in this process as an SDK would; returns where.
    fn publish(payload: &[u8], published_ns: u64) -> (u64, *mut c_void) {
        const LENGTH: usize = 8192;
        let mut page = Vec::new();
        page.extend(SIGNATURE);
        page.extend(VERSION.to_le_bytes());
        page.extend(u32::try_from(payload.len()).unwrap().to_le_bytes());
        page.extend(published_ns.to_le_bytes());
        // SAFETY: a new mapping of two pages, written within its bounds; the name is a C string.
        unsafe {
            let fd = libc::memfd_create(c"OTEL_CTX".as_ptr(), libc::MFD_CLOEXEC);
            assert!(fd >= 0 && libc::ftruncate(fd, LENGTH as libc::off_t) == 0);
            let protection = libc::PROT_READ | libc::PROT_WRITE;
            let start = libc::mmap(std::ptr::null_mut(), LENGTH, protection, libc::MAP_SHARED, fd, 0);
            assert_ne!(start, libc::MAP_FAILED);
            libc::close(fd);
            page.extend((start as u64 + 32).to_le_bytes());
            page.extend(payload);
            std::ptr::copy_nonoverlapping(page.as_ptr(), start.cast(), page.len());
            (start as u64, start)
        }
    }

    #[test]
    fn a_published_context_is_found_and_one_under_way_is_not_read() {
        assert_eq!(process_context(std::process::id()), None);
        let payload = Payload { resource: Some(resource()), attributes: Vec::new() }.encode_to_vec();
        let (address, start) = publish(&payload, 5);
        let context = process_context(std::process::id()).unwrap();
        assert_eq!(context.attributes, expected());
        // SAFETY: the header's time, in the mapping made above.
        unsafe { start.cast::<u64>().add(2).write_volatile(0) };
        assert_eq!(process_context(std::process::id()), None, "at {address:#x}");
        // SAFETY: nothing uses the mapping any more.
        unsafe { libc::munmap(start, 8192) };
    }

    proptest! {
        #[test]
        fn no_payload_stops_the_reader(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let attributes = decode(&bytes).unwrap_or_default().attributes;
            prop_assert!(attributes.len() <= MOST_ATTRIBUTES);
        }
    }
}
