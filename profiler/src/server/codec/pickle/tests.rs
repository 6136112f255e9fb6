//! Opcode by opcode, hostile input, and messages of a real engine.

use proptest::prelude::*;

use super::{End, Tree};

/// Chunks of the ring between a vLLM 0.32.0 engine and its worker, each with its length here and its full length.
const RING: &[u8] = include_bytes!("../../../../tests/fixtures/pickle/scheduler-output.bin");

fn ring() -> Vec<(&'static [u8], usize)> {
    let (mut rest, mut chunks) = (RING, Vec::new());
    while let Some((lengths, behind)) = rest.split_first_chunk::<8>() {
        let here = u32::from_le_bytes(lengths[..4].try_into().unwrap()) as usize;
        let full = u32::from_le_bytes(lengths[4..].try_into().unwrap()) as usize;
        let (chunk, behind) = behind.split_at(here);
        chunks.push((chunk, full));
        rest = behind;
    }
    chunks
}

/// The longest that is whole.
fn largest() -> &'static [u8] {
    ring().into_iter().filter(|(chunk, full)| chunk.len() == *full).max_by_key(|(_, full)| *full).unwrap().0
}

fn scheduled(tree: &Tree<'_>) -> Option<Vec<(String, i64)>> {
    let arguments = tree.root()?.item(1)?;
    let output = if arguments.is_object() { arguments } else { arguments.item(0)? };
    assert_eq!(output.class(), Some(("vllm.v1.core.sched.output", "SchedulerOutput")));
    let tokens = output.attr("num_scheduled_tokens")?;
    Some(tokens.pairs().filter_map(|(id, count)| Some((id.as_str()?.to_owned(), count.as_i64()?))).collect())
}

#[test]
fn scheduler_output_of_a_real_engine_is_read() {
    let (mut steps, mut cut) = (0, 0);
    for (chunk, full) in ring() {
        let tree = Tree::read(chunk);
        let method = tree.root().unwrap().item(0).unwrap().as_str().unwrap();
        cut += u32::from(chunk.len() < full);
        assert_eq!(tree.end(), if chunk.len() < full { End::Cut } else { End::Whole });
        if method != "execute_model" {
            assert_eq!(method, "sample_tokens");
            continue;
        }
        // In chunks that were cut before it, there are only the requests that it schedules.
        let Some(scheduled) = scheduled(&tree) else {
            assert!(chunk.len() < full);
            continue;
        };
        let total = tree.find("total_num_scheduled_tokens").and_then(|total| total.as_i64());
        assert!(!scheduled.is_empty() && scheduled.iter().all(|(id, _)| id.contains("cmpl-")));
        assert_eq!(Some(scheduled.iter().map(|(_, count)| count).sum()), total);
        steps += 1;
    }
    assert_eq!(cut, 5);
    assert!(steps >= 7, "{steps} steps");
}

#[test]
fn cut_anywhere_a_message_says_the_same_or_less() {
    let chunk = largest();
    let whole = scheduled(&Tree::read(chunk)).unwrap();
    let mut found = 0;
    for length in 0..chunk.len() {
        let tree = Tree::read(&chunk[..length]);
        assert_eq!(tree.end(), End::Cut);
        let Some(part) = tree.root().filter(|root| root.is_sequence()).and_then(|_| scheduled(&tree)) else {
            continue;
        };
        assert_eq!(part, whole[..part.len()]);
        found += usize::from(part.len() == whole.len());
    }
    // The field stands before the last third.
    assert!(found * 3 > chunk.len(), "{found} of {}", chunk.len());
}

fn ends(bytes: &[u8], end: End) {
    assert_eq!(Tree::read(bytes).end(), end, "{bytes:?}");
}

#[test]
fn what_is_no_pickle_is_refused() {
    let malformed = |bytes: &[u8]| {
        let end = Tree::read(bytes).end();
        assert!(matches!(end, End::Malformed(_)), "{bytes:?}: {end:?}");
    };
    malformed(b"(dp0\n.");
    malformed(b"\x80\x01N.");
    malformed(b"\x80\x06N.");
    malformed(b"\x80\x05.");
    malformed(b"\x80\x05NN.");
    malformed(b"\x80\x05(N.");
    malformed(b"\x80\x05a.");
    malformed(b"\x80\x05Na.");
    malformed(b"\x80\x05}(Nu.");
    malformed(b"\x80\x05t.");
    malformed(b"\x80\x05(a.");
    malformed(b"\x80\x05h\x00.");
    malformed(b"\x80\x05]}ss.");
    malformed(b"\x80\x05I1\n.");
    malformed(b"\x80\x05\xff.");
    malformed(b"\x80\x05b.");
    malformed(b"\x80\x05N(\x85.");
    ends(b"", End::Cut);
    ends(b"\x80", End::Cut);
    ends(b"\x80\x05N.", End::Whole);
}

#[test]
fn nothing_is_called() {
    // os.system("touch …"), as an exploit has it.
    let tree = Tree::read(b"\x80\x04\x8c\x05posix\x8c\x06system\x93\x8c\x0ctouch /tmp/x\x85R.");
    let root = tree.root().unwrap();
    assert_eq!((tree.end(), root.class()), (End::Whole, Some(("posix", "system"))));
    assert_eq!(root.arguments().unwrap().item(0).unwrap().as_str(), Some("touch /tmp/x"));
}

#[test]
fn what_is_not_in_the_pickle_is_opaque() {
    for opaque in [&b"\x80\x05\x97."[..], b"\x80\x05\x97\x98.", b"\x80\x03NQ.", b"\x80\x02\x82\x01."] {
        let tree = Tree::read(opaque);
        let root = tree.root().unwrap();
        assert_eq!(tree.end(), End::Whole);
        assert!(!root.is_none() && root.as_i64().is_none() && root.items().next().is_none());
    }
}

#[test]
fn numbers_have_their_signs() {
    let int = |bytes: &[u8]| Tree::read(bytes).root().unwrap().as_i64();
    assert_eq!(int(b"\x80\x05\x8a\x00."), Some(0));
    assert_eq!(int(b"\x80\x05\x8a\x01\xff."), Some(-1));
    assert_eq!(int(b"\x80\x05\x8a\x02\xff\x00."), Some(255));
    assert_eq!(int(b"\x80\x05\x8a\x08\x00\x00\x00\x00\x00\x00\x00\x80."), Some(i64::MIN));
    assert_eq!(int(b"\x80\x05\x8a\x09\x00\x00\x00\x00\x00\x00\x00\x80\x00."), None);
    assert_eq!(int(b"\x80\x05J\xfe\xff\xff\xff."), Some(-2));
}

#[test]
fn large_texts_keep_their_length() {
    let mut bytes = b"\x80\x05]\x94(X".to_vec();
    bytes.extend(1_000_000_u32.to_le_bytes());
    bytes.extend(b"the beginning");
    let tree = Tree::read(&bytes);
    let text = tree.root().unwrap().item(0).unwrap();
    assert_eq!(
        (text.as_str(), text.as_part(), text.len()),
        (None, Some(&b"the beginning"[..]), Some(1_000_000))
    );
    assert_eq!(tree.end(), End::Cut);
}

#[test]
fn traps_are_bounded() {
    let deep = [&b"\x80\x05"[..], &b"(".repeat(1 << 20)].concat();
    assert!(matches!(Tree::read(&deep).end(), End::TooMuch(_)));
    let wide = [&b"\x80\x05"[..], &b"N".repeat(1 << 20)].concat();
    assert!(matches!(Tree::read(&wide).end(), End::TooMuch(_)));
    ends(b"\x80\x05Nr\xff\xff\xff\xff.", End::TooMuch("too many memoized values"));
    // A list of a thousand references to a list of a thousand references …: a tree of 10^30 values in 30 KB.
    let mut bomb = b"\x80\x05]q\x00".to_vec();
    for level in 0..10_u8 {
        bomb.extend([b']', b'q', level + 1, b'(']);
        bomb.extend([b'h', level].repeat(1000));
        bomb.push(b'e');
    }
    let tree = Tree::read(&bomb);
    assert!(tree.size() < 100);
    // An object that is its own state, list and argument.
    let own = Tree::read(b"\x80\x05cm\nC\n)\x81q\x00h\x00bh\x00h\x00a.");
    assert!(own.root().unwrap().attr("x").is_none());
}

#[test]
fn a_message_of_64_kib_takes_well_under_a_millisecond() {
    let chunk = largest();
    // Many small values: the worst that a server sends.
    let body = chunk[11..chunk.len() - 1].repeat(65_536 / chunk.len());
    let bytes = [&b"\x80\x05("[..], &body, b"t."].concat();
    let started = std::time::Instant::now();
    for _ in 0..50 {
        assert_eq!(Tree::read(&bytes).end(), End::Whole);
    }
    let each = started.elapsed() / 50;
    println!("{} bytes, {} values: {each:?}", bytes.len(), Tree::read(&bytes).size());
    assert!(each.as_millis() < 20, "{each:?}");
}

proptest! {
    #[test]
    fn any_bytes_end(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        let bytes = [&b"\x80\x05"[..], &bytes].concat();
        let tree = Tree::read(&bytes);
        prop_assert!(tree.size() <= bytes.len() * 2 + 8);
        if let Some(root) = tree.root() {
            let reached = root.attrs().count() + root.items().count() + root.pairs().count();
            prop_assert!(reached <= bytes.len() * 8 && root.class().is_none_or(|_| root.is_object()));
        }
    }

    #[test]
    fn damaged_messages_end(at in 0..2000_usize, with: u8, to in 0..2000_usize, which: prop::sample::Index) {
        let chunks = ring();
        let (chunk, _) = which.get(&chunks);
        let mut bytes = chunk[..chunk.len().min(to)].to_vec();
        let place = at % bytes.len().max(1);
        if let Some(byte) = bytes.get_mut(place) {
            *byte = with;
        }
        let tree = Tree::read(&bytes);
        let found = tree.find("num_scheduled_tokens").map_or(0, |tokens| tokens.pairs().count());
        prop_assert!(found <= bytes.len());
    }
}
