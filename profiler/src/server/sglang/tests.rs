//! What needs no recorded message; those are in `tests/sglang_frames`.

use super::SgLang;
use super::load;
use crate::server::adapter::{Adapter as _, Frame, Heard, What};
use crate::server::said::Gauges;
use proptest::prelude::*;

/// A file of two ranks, the second of which is being written.
fn file(version: u8, usage: &[u8]) -> Vec<u8> {
    let mut map = vec![0x83];
    map.extend(b"\xb0num_running_reqs\x03\xb0num_waiting_reqs\x01\xabtoken_usage");
    map.extend(usage);
    let mut file = b"SLNS".to_vec();
    file.extend([version, 0, 2, 0, 128, 0, 0, 0]);
    file.extend((map.len() as u32).to_le_bytes());
    file.extend(&map);
    file.resize(12 + 128, 0);
    file.resize(12 + 256, 0);
    file
}

#[test]
fn load_of_a_rank_is_read() {
    let load = load::read(&file(2, &[0xca, 0x3f, 0, 0, 0])).unwrap();
    assert_eq!(load, [Gauges { engine: 0, running: Some(3), waiting: Some(1), kv_usage: Some(0.5) }]);
}

#[test]
fn load_of_another_version_or_share_is_not_believed() {
    assert_eq!(load::read(&file(3, &[0xca, 0x3f, 0, 0, 0])), None);
    assert_eq!(load::read(b"SLNS"), None);
    let load = load::read(&file(2, &[0x05])).unwrap();
    assert_eq!(load[0].kv_usage, None);
    assert_eq!(load::read(&file(2, &[0xa1, b'x'])), Some(Vec::new()));
}

#[test]
fn frames_of_others_are_not_counted() {
    let mut adapter = SgLang::default();
    for bytes in [
        &b""[..],
        b"\x00",
        b"\x93\x01\x02\x03",
        b"\x80\x05\x95\x05\x00\x00\x00\x00\x00\x00\x00N.",
        b"plain text",
    ] {
        let frame = Frame { sent: true, socket: 1, more: false, bytes, size: bytes.len() as u64 };
        adapter.hear(&Heard { pid: 1, tid: 1, time_ns: 1, what: What::Frame(frame) }, &mut Vec::new());
    }
    assert_eq!(adapter.health().seen, 0);
}

proptest! {
    #[test]
    fn any_bytes_end(bytes in proptest::collection::vec(any::<u8>(), 0..300), class in 0..4_usize, sent: bool, more in 0..9_u64) {
        let names = ["BatchTokenIDOutput", "TokenizedGenerateReqInput", "AbortReq", "BatchEmbeddingOutput"];
        let name = names[class];
        let mut packed = vec![0x9f, 0xd9, name.len() as u8];
        packed.extend(name.bytes());
        packed.extend(&bytes);
        let size = packed.len() as u64 + more;
        let (mut adapter, mut out) = (SgLang::default(), Vec::new());
        let frame = Frame { sent, socket: 1, more: false, bytes: &packed, size };
        adapter.hear(&Heard { pid: 1, tid: 1, time_ns: 1, what: What::Frame(frame) }, &mut out);
        prop_assert!(out.len() <= packed.len() * 4);
        prop_assert!(load::read(&bytes).is_none_or(|loads| loads.len() <= bytes.len()));
    }
}
