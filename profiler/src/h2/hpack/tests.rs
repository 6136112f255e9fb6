//! The RFC's examples, and what becomes of fields when blocks were missed.

use super::*;
use crate::h2::header::{Fields, Seen};

/// A field as text; `?` is unknown, `-` not asked for.
fn read(decoder: &mut Decoder, block: &[u8]) -> Result<Vec<String>, Broken> {
    #[derive(Default)]
    struct Lines(Vec<String>);
    impl Receiver for Lines {
        fn field(&mut self, name: Name, value: Value<'_>) {
            let name = match name {
                Name::Known(header) => header.name(),
                Name::Other => "-",
                Name::Unknown => "?",
            };
            let value = match value {
                Value::Known(value) => String::from_utf8_lossy(value).into_owned(),
                Value::Unknown => "?".to_owned(),
            };
            self.0.push(format!("{name} {value}"));
        }
    }
    let mut lines = Lines::default();
    decoder.decode(block, &mut lines)?;
    Ok(lines.0)
}

fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text
        .bytes()
        .filter(|byte| !byte.is_ascii_whitespace())
        .map(|b| (b as char).to_digit(16).unwrap() as u8)
        .collect();
    digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect()
}

/// A literal that is inserted.
fn inserted(name: &str, value: &str) -> Vec<u8> {
    let mut block = vec![0x40, name.len() as u8];
    block.extend(name.as_bytes());
    block.push(value.len() as u8);
    block.extend(value.as_bytes());
    block
}

#[test]
fn requests_of_the_rfc_without_and_with_huffman() {
    // Appendix C.3 and C.4.
    let plain = [
        "8286 8441 0f77 7777 2e65 7861 6d70 6c65 2e63 6f6d",
        "8286 84be 5808 6e6f 2d63 6163 6865",
        "8287 85bf 400a 6375 7374 6f6d 2d6b 6579 0c63 7573 746f 6d2d 7661 6c75 65",
    ];
    let coded = [
        "8286 8441 8cf1 e3c2 e5f2 3a6b a0ab 90f4 ff",
        "8286 84be 5886 a8eb 1064 9cbf",
        "8287 85bf 4088 25a8 49e9 5ba9 7d7f 8925 a849 e95b b8e8 b4bf",
    ];
    for blocks in [plain, coded] {
        let mut decoder = Decoder::new(true);
        let mut lines = blocks.iter().map(|block| read(&mut decoder, &hex(block)).unwrap());
        let host = ":authority www.example.com";
        assert_eq!(lines.next().unwrap(), [":method GET", ":scheme http", ":path /", host]);
        assert_eq!(lines.next().unwrap(), [":method GET", ":scheme http", ":path /", host, "- "]);
        assert_eq!(lines.next().unwrap(), [":method GET", ":scheme https", ":path /index.html", host, "- "]);
    }
}

#[test]
fn responses_of_the_rfc_with_evictions() {
    // Appendix C.5: a table of 256 bytes.
    let blocks = [
        "4803 3330 3258 0770 7269 7661 7465 611d 4d6f 6e2c 2032 3120 4f63 7420 3230 3133 2032 303a 3133 3a32 3120 474d 546e 1768 7474 7073 3a2f 2f77 7777 2e65 7861 6d70 6c65 2e63 6f6d",
        "4803 3330 37c1 c0bf",
        "88c1 611d 4d6f 6e2c 2032 3120 4f63 7420 3230 3133 2032 303a 3133 3a32 3220 474d 54c0 5a04 677a 6970 7738 666f 6f3d 4153 444a 4b48 514b 425a 584f 5157 454f 5049 5541 5851 5745 4f49 553b 206d 6178 2d61 6765 3d33 3630 303b 2076 6572 7369 6f6e 3d31",
    ];
    let mut decoder = Decoder::new(true);
    assert!(decoder.table.resize(256));
    let lines: Vec<_> = blocks.iter().map(|block| read(&mut decoder, &hex(block)).unwrap()).collect();
    assert_eq!(lines[0], [":status 302", "- ", "- ", "- "]);
    assert_eq!(lines[1], [":status 307", "- ", "- ", "- "]);
    assert_eq!(lines[2], [":status 200", "- ", "- ", "- ", "content-encoding gzip", "- "]);
    // 62 to 64 are left: set-cookie, content-encoding, date.
    assert_eq!(read(&mut decoder, &[0xbe, 0xbf, 0xc0]).unwrap(), ["- ", "content-encoding gzip", "- "]);
    assert_eq!(read(&mut decoder, &[0xc1]), Err(Broken));
}

#[test]
fn after_missed_blocks_only_what_was_inserted_since_is_known() {
    let mut decoder = Decoder::new(false);
    assert_eq!(read(&mut decoder, &[0x82, 0xbe]).unwrap(), [":method GET", "? ?"]);
    read(&mut decoder, &inserted("user-agent", "a")).unwrap();
    read(&mut decoder, &inserted("cookie", "secret")).unwrap();
    assert_eq!(read(&mut decoder, &[0xbf, 0xbe, 0xc0]).unwrap(), ["user-agent a", "- ", "? ?"]);
    // A name of an unknown entry with a value of its own: counted, and unknown for ever.
    assert_eq!(
        read(&mut decoder, &[0x7f, 0x80, 0x80, 0x80, 0x80, 0x80, 1, b'x']),
        Err(Broken),
        "the integer goes on"
    );
    let mut block = vec![0x7f, 64 - 63];
    block.extend([1, b'x']);
    assert_eq!(read(&mut decoder, &block).unwrap(), ["? "]);
    assert_eq!(read(&mut decoder, &[0xbe, 0xc0]).unwrap(), ["? ?", "user-agent a"]);
    decoder.forget();
    assert_eq!(read(&mut decoder, &[0xc0]).unwrap(), ["? ?"]);
}

#[test]
fn an_oversized_entry_hides_nothing_that_can_be_referred_to() {
    // The table's size is not known: was it inserted? Whoever refers to what is newer counts from there.
    let mut decoder = Decoder::new(false);
    read(&mut decoder, &inserted("user-agent", &"x".repeat(100))).unwrap();
    read(&mut decoder, &inserted("content-type", "a")).unwrap();
    assert_eq!(read(&mut decoder, &[0xbe]).unwrap(), ["content-type a"]);
}

#[test]
fn size_updates_stand_first() {
    let mut decoder = Decoder::new(true);
    assert_eq!(read(&mut decoder, &[0x20, 0x3f, 0x11, 0x82]).unwrap(), [":method GET"]);
    assert_eq!(read(&mut decoder, &[0x82, 0x20]), Err(Broken));
    // 4097 is above what was announced.
    assert_eq!(read(&mut decoder, &[0x3f, 0xe2, 0x1f]), Err(Broken));
    decoder.allow(Some(65536));
    assert_eq!(read(&mut decoder, &[0x3f, 0xe2, 0x1f]), Ok(vec![]));
}

#[test]
fn broken_blocks() {
    for block in [
        &[0x80][..],
        &[0xff],
        &[0xff, 0x80],
        &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff],
        &[0xbe],
        &[0x40],
        &[0x40, 1],
        &[0x40, 1, b'a'],
        &[0x40, 1, b'a', 2, b'b'],
        &[0x00, 0x81, 0x00, 0],
        &[0x7f, 0xff, 0xff, 0xff, 0xff, 0x0f, 0],
    ] {
        assert_eq!(read(&mut Decoder::new(true), block), Err(Broken), "{block:02x?}");
    }
}

#[test]
fn secrets_are_not_kept() {
    let mut decoder = Decoder::new(true);
    let mut fields = Fields::default();
    for name in ["authorization", "cookie", "x-api-key"] {
        decoder.decode(&inserted(name, "s3cret"), &mut fields).unwrap();
        // Never indexed.
        let mut block = inserted(name, "s3cret");
        block[0] = 0x10;
        decoder.decode(&block, &mut fields).unwrap();
    }
    decoder.decode(&inserted("user-agent", "curl"), &mut fields).unwrap();
    assert_eq!(fields.iter().collect::<Vec<_>>(), [("user-agent", &b"curl"[..])]);
    assert!(decoder.stored() < 4 * 64);
    let kept = format!("{:?} {:?} {:?}", decoder.table, decoder.name, decoder.value);
    assert!(!kept.contains("115, 51, 99"), "{kept}");
}

#[test]
fn what_is_unknown_is_told_apart_from_what_is_absent() {
    let mut decoder = Decoder::new(false);
    let mut fields = Fields::default();
    decoder.decode(&[0x82], &mut fields).unwrap();
    assert_eq!(fields.get(Header::Method), Seen::Value(b"GET"));
    assert_eq!(fields.get(Header::Path), Seen::Absent);
    decoder.decode(&[0xbe], &mut fields).unwrap();
    assert_eq!(fields.get(Header::Path), Seen::Unknown);
    assert_eq!(fields.unknown(), (0, 1));
    assert_eq!(Fields::lost().get(Header::Method), Seen::Unknown);
}
