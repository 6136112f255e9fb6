//! One JSON document with a hole in it: what stands before the hole, and what stands behind it for sure.
//!
//! In: its bytes, gaps, and where it ends. Out: values at listed paths. Behind a gap the depth is not known, so nothing
//! is read forward. But the end of a document is the end of its outermost object, and from there the way back is as
//! certain as the way forth: a quote that ends a text is met first, and the one that begins it is the nearest that is
//! not escaped. So the last bytes wait for the end, the members that lie wholly in them are found backwards, and the
//! scanner reads these alone. Clients send images first and `model`, `stream` and `max_tokens` last.

use std::fmt;

use super::json::{Receiver, Scanner};
use super::paths::Paths;

/// Bytes that wait. The kernel side copies the last 976 of a system call; the parameters of a request are shorter.
const TAIL: usize = 4 * 1024;

/// A document that is being read.
pub(super) struct Document<F: 'static> {
    scanner: Scanner<F>,
    paths: &'static Paths<F>,
    /// Behind a gap inside the outermost object: its last bytes without one. They are dropped with the document.
    tail: Option<Vec<u8>>,
}

impl<F: Copy> Document<F> {
    pub(super) fn new(paths: &'static Paths<F>) -> Self {
        Self { scanner: Scanner::new(paths), paths, tail: None }
    }

    /// Reads the next bytes.
    pub(super) fn feed(&mut self, bytes: &[u8], to: &mut impl Receiver<F>) {
        match &mut self.tail {
            None => self.scanner.feed(bytes, to),
            Some(tail) => push(tail, bytes),
        }
    }

    /// Bytes are missing.
    pub(super) fn gap(&mut self) {
        match &mut self.tail {
            Some(tail) => tail.clear(),
            None if self.scanner.is_in_object() => self.tail = Some(Vec::new()),
            None => {}
        }
        self.scanner.stop();
    }

    /// Nothing more of it will be read, not even its end.
    pub(super) fn stop(&mut self) {
        self.scanner.stop();
        self.tail = None;
    }

    /// The last `len` bytes were not the document's.
    pub(super) fn retract(&mut self, len: usize) {
        if let Some(tail) = &mut self.tail {
            tail.truncate(tail.len().saturating_sub(len));
        }
    }

    /// The document was seen to its end, whole.
    pub(super) fn is_whole(&self) -> bool {
        self.scanner.is_done()
    }

    /// The document is over: reads what waited for that.
    pub(super) fn end<R: Receiver<F> + Clone>(&mut self, to: &mut R) {
        let Some(tail) = self.tail.take() else { return };
        let Some(members) = first_member(&tail).and_then(|at| tail.get(at..)) else { return };
        let mut scanner = Scanner::new(self.paths);
        let mut told = to.clone();
        scanner.feed(b"{", &mut told);
        scanner.feed(members, &mut told);
        // Whatever is not JSON from there to its end was not read backwards rightly either.
        if scanner.is_done() {
            *to = told;
        }
    }
}

/// Without its text.
impl<F> fmt::Debug for Document<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Document")
            .field("scanner", &self.scanner)
            .field("tail_len", &self.tail.as_ref().map(Vec::len))
            .finish_non_exhaustive()
    }
}

fn push(tail: &mut Vec<u8>, bytes: &[u8]) {
    let bytes = bytes.get(bytes.len().saturating_sub(TAIL)..).unwrap_or(bytes);
    if tail.len() + bytes.len() > 2 * TAIL {
        tail.drain(..tail.len().saturating_sub(TAIL));
    }
    tail.extend_from_slice(bytes);
}

/// Where the first member of the outermost object begins that lies wholly in a document's last bytes.
fn first_member(tail: &[u8]) -> Option<usize> {
    let mut at = tail.trim_ascii_end().len().checked_sub(1)?;
    (tail.get(at) == Some(&b'}')).then_some(())?;
    let mut depth = 1_u32;
    let mut first = None;
    while let Some(before) = at.checked_sub(1) {
        at = before;
        match tail.get(at)? {
            b'"' => match text_start(tail, at) {
                Some(start) => at = start,
                None => break,
            },
            b'}' | b']' => depth = depth.saturating_add(1),
            // The outermost object began before the gap.
            b'{' | b'[' => depth = depth.checked_sub(1).filter(|depth| *depth > 0)?,
            b',' if depth == 1 => first = Some(at + 1),
            _ => {}
        }
    }
    first
}

/// Where the text begins that ends at `end`. Nothing if that cannot be told, or if it is no text: a control character
/// stands in none (RFC 8259, section 7).
fn text_start(tail: &[u8], end: usize) -> Option<usize> {
    let mut at = end;
    loop {
        let quote = memchr::memrchr(b'"', tail.get(..at)?)?;
        let text = tail.get(quote + 1..at)?;
        let before = tail.get(..quote)?;
        let escapes = before.iter().rev().take_while(|byte| **byte == b'\\').count();
        if text.iter().any(|byte| *byte < 0x20) || escapes == quote {
            return None;
        }
        if escapes % 2 == 0 {
            return Some(quote);
        }
        at = quote;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::http::parameters::REQUEST;
    use crate::http::signal::RequestFacts;

    fn facts(document: &Document<crate::http::parameters::RequestField>) -> String {
        format!("{document:?}")
    }

    /// What is read of a document whose bytes from `from` to `to` are missing.
    fn read(document: &str, from: usize, to: usize) -> RequestFacts {
        let mut reader = Document::new(&REQUEST);
        let mut told = RequestFacts::default();
        reader.feed(&document.as_bytes()[..from], &mut told);
        if to > from {
            reader.gap();
        }
        reader.feed(&document.as_bytes()[to..], &mut told);
        assert!(!facts(&reader).contains("secret"));
        reader.end(&mut told);
        told
    }

    #[test]
    fn members_behind_a_hole_are_found_from_the_end() {
        let document = r#"{"messages":[{"role":"user","content":"he said \"stop\",\"model\":\"no\",\"n\":7}]"}],"model":"m\\","stop":["\"}",{"n":3}],"stream_options":{"include_usage":true},"max_tokens":16 , "stream":true}"#;
        let hole = document.find("stop").unwrap();
        let members = document.find(r#""model":"m"#).unwrap();
        for to in hole + 1..document.len() {
            let told = read(document, hole, to);
            let model = if to < members { Some("m\\") } else { None };
            assert_eq!(told.model.as_deref(), model, "{}", &document[to..]);
            assert_eq!(told.n, None, "{}", &document[to..]);
            if to < document.find(r#","max_tokens"#).unwrap() {
                assert_eq!((told.max_tokens, told.stream), (Some(16), Some(true)), "{}", &document[to..]);
            }
        }
    }

    #[test]
    fn what_does_not_end_as_an_object_says_nothing() {
        for (document, from, to) in [
            (r#"[{"x":1},{"model":"m","n":1}]"#, 3, 9),
            (r#"{"x":"yyyyyyy","model":"m"} trailing"#, 8, 10),
            (r#"{"x":"yyyyyyy","model":"m""#, 8, 10),
            (r#""x yyyyyyy,\"a\":1,\"model\":\"m\"}"#, 4, 6),
            // A chunk's size line where framing was lost is no part of a text or of a number.
            ("{\"x\":\"yyyyyyy\",\"a\":1,\"model\":\"m\r\n5\r\nn\"}", 8, 10),
            ("{\"x\":\"yyyyyyy\",\"model\":\"m\",\"n\":\r\n5\r\n7}", 8, 10),
        ] {
            let told = read(document, from, to);
            assert_eq!((told.model, told.n), (None, None), "{document}");
        }
    }

    fn json() -> impl Strategy<Value = serde_json::Value> {
        let text = prop::sample::select(vec![
            "",
            "\"",
            "\\",
            "\\\"",
            ",\"model\":\"no\"",
            "}],",
            "é😀",
            "{\"n\":5}",
            "\n",
        ]);
        let leaf = prop_oneof![
            Just(serde_json::Value::Null),
            any::<bool>().prop_map(Into::into),
            (0..99_u32).prop_map(Into::into),
            prop::collection::vec(text.clone(), 0..5).prop_map(|parts| parts.concat().into()),
        ];
        leaf.prop_recursive(3, 24, 4, move |inner| {
            let key = prop_oneof![Just("model"), Just("stream"), Just("n"), Just("a\"b"), Just("x\\")];
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Into::into),
                prop::collection::vec((key, inner), 0..4).prop_map(|members| members
                    .into_iter()
                    .map(|(key, value)| (key.to_owned(), value))
                    .collect()),
            ]
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn no_hole_makes_a_fact_that_the_document_does_not_say(members in prop::collection::vec(json(), 1..6), from in any::<prop::sample::Index>(), to in any::<prop::sample::Index>(), pretty in any::<bool>()) {
            let keys = ["messages", "model", "stream", "n", "extra", "max_tokens"];
            let object: serde_json::Map<_, _> = keys.iter().map(|key| (*key).to_owned()).zip(members).collect();
            let document = if pretty { serde_json::to_string_pretty(&object) } else { serde_json::to_string(&object) }.unwrap();
            let (from, to) = (from.index(document.len()), to.index(document.len()));
            let whole = read(&document, 0, 0);
            let holed = read(&document, from.min(to), from.max(to));
            prop_assert!(holed.model.is_none() || holed.model == whole.model, "{document} {from} {to}");
            prop_assert!(holed.stream.is_none() || holed.stream == whole.stream, "{document} {from} {to}");
            prop_assert!(holed.n.is_none() || holed.n == whole.n, "{document} {from} {to}");
            prop_assert!(holed.max_tokens.is_none() || holed.max_tokens == whole.max_tokens, "{document} {from} {to}");
            prop_assert!(holed.messages_count.is_none() || holed.messages_count == whole.messages_count, "{document} {from} {to}");
        }
    }
}
