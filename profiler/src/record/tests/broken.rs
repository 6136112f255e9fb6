//! Files that were cut off, damaged, made by others or made to harm: what comes before is read, and an error says where
//! and why.

use super::*;
use crate::config;
use crate::pipeline;
use crate::record::format::{MARK, checksum};
use crate::view;
use proptest::prelude::*;
use std::io::Write as _;
use std::sync::OnceLock;
use std::sync::atomic::AtomicBool;

/// A recording, packed and unpacked.
fn whole() -> &'static (Vec<u8>, Vec<u8>) {
    static WHOLE: OnceLock<(Vec<u8>, Vec<u8>)> = OnceLock::new();
    WHOLE.get_or_init(|| {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("r");
        record(&path, inputs());
        (std::fs::read(&path).unwrap(), unpacked(&path))
    })
}

/// Records that can be read, and the error behind them.
fn read(bytes: &[u8]) -> (Vec<Record>, Option<Kind>) {
    let mut records = Vec::new();
    let mut reader = match Reader::new(bytes, Path::new("r")) {
        Ok((reader, header)) => {
            records.push(Record::Header(Box::new(header)));
            reader
        }
        Err(error) => return (records, Some(error.kind)),
    };
    loop {
        match reader.next() {
            Ok(Some(record)) => records.push(record),
            Ok(None) => return (records, None),
            Err(error) => return (records, Some(error.kind)),
        }
    }
}

/// Takes all entries, as a replay does.
fn take(records: Vec<Record>) {
    let mut session = Session::new(Arc::default(), resource(), SEED, 0, OFFSET_NS);
    let catalogue = Catalogue::of(&Catalogue::names());
    for record in records {
        if let Record::Entry(entry) = record {
            let Again { input, parsed, .. } = entry.again(&catalogue);
            session.retake(input, parsed);
        }
    }
    session.retake(Input::Finish, VecDeque::new());
}

#[test]
fn a_recording_that_was_cut_off_is_read_up_to_there() {
    let (_, unpacked) = whole();
    let (all, none) = read(unpacked);
    assert_eq!(none, None);
    let mut most = 0;
    for to in 0..unpacked.len() {
        let (records, error) = read(&unpacked[..to]);
        match error {
            Some(Kind::Foreign(_)) => assert!(to < 12),
            Some(Kind::Cut { record, byte }) => {
                assert_eq!((record, byte <= to as u64), (records.len() as u64, true), "{to}");
            }
            other => panic!("{to}: {other:?}"),
        }
        assert!(records.len() >= most && records.len() < all.len(), "nothing that is whole is lost: {to}");
        most = records.len();
    }
    assert_eq!(most, all.len() - 1);
}

#[test]
fn a_packed_recording_that_was_cut_off_shows_what_it_has_and_says_where_it_ends() {
    let (packed, _) = whole();
    let folder = tempfile::tempdir().unwrap();
    let recording = folder.path().join("r");
    for to in [packed.len() - 1, packed.len() - 9, packed.len() / 2, packed.len() / 3] {
        std::fs::write(&recording, &packed[..to]).unwrap();
        let config = config::Replay {
            compat: None,
            recording: recording.clone(),
            output: config::Output::None,
            export: crate::export::Settings::resolve(&Default::default(), |_| None).unwrap(),
            traces: crate::span::Settings::default(),
        };
        let stop = AtomicBool::new(false);
        let replayed = pipeline::replay(&config, &stop, view::of_replay(config.output).as_mut());
        match replayed {
            Ok(replayed) => {
                // The last bytes of gzip are a checksum of its own: all records are there.
                let account = replayed.summary.recording.unwrap();
                assert_eq!(account.complete, replayed.broken.is_none(), "{to}");
                assert_eq!(account.broken.is_some(), replayed.broken.is_some());
                assert!(to + 9 >= packed.len() || !account.complete);
            }
            // So little is left that not even the header is whole.
            Err(error) => assert!(error.to_string().contains("cut off"), "{error}"),
        }
    }
}

#[test]
fn what_is_no_recording_is_refused_by_its_first_bytes() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("r");
    let pack = |bytes: &[u8]| {
        let mut out = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        out.write_all(bytes).unwrap();
        out.finish().unwrap()
    };
    let newer = [&MARK[..], &[9, 0, 0, 0]].concat();
    for (bytes, words) in [
        (b"hello, this is a text".to_vec(), "not compressed by gzip"),
        (Vec::new(), "too short"),
        (pack(b"hello"), "too short"),
        (pack(b"hello, this is a text"), "does not begin like one"),
        (pack(&newer), "format 9"),
        (pack(&[&MARK[..], &[1, 0, 0, 0]].concat()), "cut off"),
    ] {
        std::fs::write(&path, bytes).unwrap();
        let error = Reader::open(&path).unwrap_err().to_string();
        assert!(error.contains(words) && error.starts_with(path.to_str().unwrap()), "{error}");
    }
    let missing = Reader::open(&folder.path().join("nothing")).unwrap_err();
    assert!(crate::chain(&missing).contains("No such file"), "{missing}");
    assert!(Reader::open(folder.path()).is_err(), "a folder");
}

#[test]
fn a_minor_version_that_is_newer_is_read_and_what_it_adds_is_passed_over() {
    let (_, unpacked) = whole();
    let mut newer = unpacked.clone();
    newer[10] = 200;
    assert_eq!(read(&newer).1, None);
    // A field that this program does not know, and none of those that may be missing.
    let header = rmp_serde::to_vec_named(&serde_json::json!({"Header": {
        "gpuspan": "9", "kernel": "k", "arch": "a", "pid": 1, "seed": 2, "unix_ns": 3, "unix_offset_ns": 4,
        "resource": {"attributes": []}, "functions": [], "colour": "blue",
    }}))
    .unwrap();
    let sum = checksum(&header).to_le_bytes();
    let length = u32::try_from(header.len()).unwrap().to_le_bytes();
    let file = [&MARK[..], &[1, 0, 9, 0], &length, &sum, &header].concat();
    let (records, error) = read(&file);
    assert_eq!((records.len(), matches!(error, Some(Kind::Cut { record: 1, .. }))), (1, true), "{error:?}");
}

#[test]
fn a_length_is_believed_as_far_as_there_are_bytes() {
    let (_, unpacked) = whole();
    for (length, is_too_long) in
        [(u32::MAX, true), (MOST_RECORD as u32 + 1, true), (MOST_RECORD as u32, false)]
    {
        let file = [&unpacked[..], &[]].concat();
        let mut file = file[..12].to_vec();
        file.extend(length.to_le_bytes());
        file.extend([0; 40]);
        let (records, error) = read(&file);
        assert!(records.is_empty());
        let expected = matches!(error, Some(Kind::Damaged { .. }));
        assert_eq!(expected, is_too_long, "{error:?}");
    }
}

proptest! {
    /// The checksums find every change of a byte, and nothing that comes before it is lost.
    #[test]
    fn a_damaged_recording_is_read_up_to_there(at in any::<prop::sample::Index>(), to in 1u8..=255) {
        let (_, unpacked) = whole();
        let mut bytes = unpacked.clone();
        let at = at.index(bytes.len());
        bytes[at] ^= to;
        let before = read(&unpacked[..at]).0.len();
        let (records, error) = read(&bytes);
        // The minor version alone may be another.
        prop_assert!(error.is_some() || at == 10 || at == 11, "{at}");
        prop_assert!(records.len() >= before.min(1) && (at < 12 || records.len() == before), "{at}: {}", records.len());
    }

    /// Records with a checksum that fits and contents that somebody made up: they are taken or refused.
    #[test]
    fn a_made_up_recording_harms_nobody(changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8)) {
        let (_, unpacked) = whole();
        let mut bytes = unpacked.clone();
        let mut at = 12;
        while at + 8 <= bytes.len() {
            let length = u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap()) as usize;
            let body = at + 8..at + 8 + length;
            for (index, to) in &changes {
                let index = index.index(bytes.len());
                if body.contains(&index) {
                    bytes[index] = *to;
                }
            }
            let sum = checksum(&bytes[body.clone()]).to_le_bytes();
            bytes[at + 4..at + 8].copy_from_slice(&sum);
            at = body.end;
        }
        let (records, _) = read(&bytes);
        take(records);
    }

    /// Any bytes at all behind the mark.
    #[test]
    fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let (records, error) = read(&[&MARK[..], &[1, 0, 0, 0], &bytes].concat());
        prop_assert!(records.is_empty() && error.is_some());
        let sum = checksum(&bytes).to_le_bytes();
        let length = u32::try_from(bytes.len()).unwrap().to_le_bytes();
        let file = [&whole().1[..], &length, &sum, &bytes].concat();
        prop_assert_eq!(read(&file).1, None, "what is behind the end is nobody's");
        prop_assert!(rmp_serde::from_slice::<Entry>(&bytes).is_err() || bytes.len() > 2);
    }
}
