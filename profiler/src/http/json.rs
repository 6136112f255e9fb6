//! A JSON scanner that is fed slices of any split and keeps only what stands at listed paths.
//!
//! In: bytes of one document. Out: values at listed paths, to a [`Receiver`]. Everything else, and every byte over
//! a bound, is passed over without being stored; of strings listed as [`Want::Presence`] only "not empty" is known.
//! It is lenient inside values that it skips, and stops (never panics, never guesses) where JSON is broken.

use std::fmt;

use super::paths::{Paths, Want};

/// Longest string that is kept, bytes. A longer one is dropped: a cut id would be another id.
const MAX_TEXT: usize = 256;
/// Deepest listed path, with room for arrays around the document.
const MAX_DEPTH: usize = 12;

/// A value at a listed path.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Value<'a> {
    Text(&'a str),
    /// A string under [`Want::Presence`], and whether it has a character.
    Filled(bool),
    Number(f64),
    Bool(bool),
    Null,
    /// An object begins.
    Begin,
    /// An object ends, where paths lead into it.
    End,
    /// An array begins.
    List,
    /// An array ended, with so many items.
    Items(u32),
}

/// Takes values as they are met.
pub(super) trait Receiver<F> {
    fn value(&mut self, field: F, value: Value<'_>);
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Expect {
    Value,
    ValueOrEnd,
    KeyOrEnd,
    Key,
    Colon,
    CommaOrEnd,
}

/// What a string is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Role {
    Key,
    Keep,
    Pass,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Expect(Expect),
    Text(Role),
    /// Behind a backslash.
    Escape(Role),
    /// Behind `\u`, of a string that is kept.
    Hex {
        role: Role,
        left: u8,
        code: u16,
    },
    Literal,
    /// Inside an object or array that no path leads into.
    Skip(u32),
    SkipText(u32),
    SkipEscape(u32),
    Done,
    Dead,
}

#[derive(Clone, Copy, Debug)]
struct Frame {
    node: u16,
    array: bool,
    items: u32,
}

/// The scanner's state within one document.
pub(super) struct Scanner<F: 'static> {
    paths: &'static Paths<F>,
    state: State,
    stack: Vec<Frame>,
    /// Where the current value stands, if on a listed path.
    node: Option<u16>,
    text: Vec<u8>,
    cut: bool,
    filled: bool,
    high: Option<u16>,
}

impl<F: Copy> Scanner<F> {
    pub(super) fn new(paths: &'static Paths<F>) -> Self {
        Self {
            paths,
            state: State::Expect(Expect::Value),
            stack: Vec::with_capacity(MAX_DEPTH),
            node: Some(0),
            text: Vec::new(),
            cut: false,
            filled: false,
            high: None,
        }
    }

    /// Ready for the next document.
    pub(super) fn reset(&mut self) {
        self.stack.clear();
        self.text.clear();
        self.node = Some(0);
        self.state = State::Expect(Expect::Value);
    }

    /// The rest of the document is unknown.
    pub(super) fn stop(&mut self) {
        self.text.clear();
        self.state = State::Dead;
    }

    /// Inside a document that is one object.
    pub(super) fn is_in_object(&self) -> bool {
        let open = !matches!(self.state, State::Done | State::Dead);
        open && self.stack.first().is_some_and(|frame| !frame.array)
    }

    /// The document was seen to its end.
    pub(super) fn is_done(&self) -> bool {
        self.state == State::Done
    }

    /// Reads the next bytes.
    pub(super) fn feed(&mut self, mut bytes: &[u8], to: &mut impl Receiver<F>) {
        while !bytes.is_empty() {
            bytes = match self.state {
                State::Done | State::Dead => return,
                State::Expect(expect) => self.expect(expect, bytes, to),
                State::Text(role) => self.string(role, bytes, to),
                State::Escape(role) => self.escape(role, bytes),
                State::Hex { role, left, code } => self.hex(role, left, code, bytes),
                State::Literal => self.literal(bytes, to),
                State::Skip(depth) => self.skip(depth, bytes),
                State::SkipText(depth) => self.skip_text(depth, bytes),
                State::SkipEscape(depth) => {
                    self.state = State::SkipText(depth);
                    bytes.get(1..).unwrap_or_default()
                }
            };
        }
    }

    fn expect<'a>(&mut self, expect: Expect, bytes: &'a [u8], to: &mut impl Receiver<F>) -> &'a [u8] {
        let Some((byte, rest)) = bytes.split_first() else { return bytes };
        match (expect, byte) {
            (_, b' ' | b'\t' | b'\r' | b'\n') => {}
            (Expect::ValueOrEnd, b']') | (Expect::KeyOrEnd, b'}') => self.close(to),
            (Expect::Value | Expect::ValueOrEnd, byte) => self.begin(*byte, to),
            (Expect::Key | Expect::KeyOrEnd, b'"') => self.begin_text(Role::Key),
            (Expect::Colon, b':') => self.state = State::Expect(Expect::Value),
            (Expect::CommaOrEnd, byte) => self.behind_value(*byte, to),
            _ => self.state = State::Dead,
        }
        rest
    }

    fn behind_value(&mut self, byte: u8, to: &mut impl Receiver<F>) {
        let array = self.stack.last().is_some_and(|frame| frame.array);
        match (byte, array) {
            (b',', true) => self.state = State::Expect(Expect::Value),
            (b',', false) => self.state = State::Expect(Expect::Key),
            (b']', true) | (b'}', false) => self.close(to),
            _ => self.state = State::Dead,
        }
    }

    fn begin(&mut self, byte: u8, to: &mut impl Receiver<F>) {
        if let Some(Frame { node, array: true, items }) = self.stack.last_mut() {
            *items = items.saturating_add(1);
            self.node = self.paths.node(Some(*node)).and_then(|node| node.element);
        }
        match byte {
            b'"' => {
                let keep = matches!(self.field(), Some((_, Want::Keep)));
                self.begin_text(if keep { Role::Keep } else { Role::Pass });
            }
            b'{' => self.open(false, to),
            b'[' => self.open(true, to),
            b'-' | b'0'..=b'9' | b't' | b'f' | b'n' => {
                self.clear_text();
                self.text.push(byte);
                self.state = State::Literal;
            }
            _ => self.state = State::Dead,
        }
    }

    fn begin_text(&mut self, role: Role) {
        self.clear_text();
        self.filled = false;
        self.state = State::Text(role);
    }

    fn clear_text(&mut self) {
        self.text.clear();
        self.cut = false;
        self.high = None;
    }

    fn field(&self) -> Option<(F, Want)> {
        self.paths.node(self.node).and_then(|node| node.field)
    }

    fn emit(&self, value: Value<'_>, to: &mut impl Receiver<F>) {
        if let Some((field, _)) = self.field() {
            to.value(field, value);
        }
    }

    fn open(&mut self, array: bool, to: &mut impl Receiver<F>) {
        self.emit(if array { Value::List } else { Value::Begin }, to);
        let node = self.paths.node(self.node);
        // An array at a listed path is always entered, to count its items.
        let enter = node.is_some_and(|node| match array {
            true => node.element.is_some() || node.field.is_some(),
            false => !node.keys.is_empty(),
        });
        self.state = match self.node.filter(|_| enter) {
            None => State::Skip(1),
            Some(_) if self.stack.len() >= MAX_DEPTH => State::Dead,
            Some(node) => {
                self.stack.push(Frame { node, array, items: 0 });
                State::Expect(if array { Expect::ValueOrEnd } else { Expect::KeyOrEnd })
            }
        };
    }

    fn close(&mut self, to: &mut impl Receiver<F>) {
        let Some(frame) = self.stack.pop() else { return self.stop() };
        self.node = Some(frame.node);
        self.emit(if frame.array { Value::Items(frame.items) } else { Value::End }, to);
        self.after_value();
    }

    fn after_value(&mut self) {
        self.state = if self.stack.is_empty() { State::Done } else { State::Expect(Expect::CommaOrEnd) };
    }

    fn string<'a>(&mut self, role: Role, bytes: &'a [u8], to: &mut impl Receiver<F>) -> &'a [u8] {
        let end = memchr::memchr2(b'"', b'\\', bytes).unwrap_or(bytes.len());
        let (text, rest) = bytes.split_at_checked(end).unwrap_or((bytes, &[]));
        self.filled |= !text.is_empty();
        if role != Role::Pass && !text.is_empty() {
            self.break_pair();
            self.store(text);
        }
        let Some((byte, rest)) = rest.split_first() else { return rest };
        if *byte == b'\\' {
            self.filled = true;
            self.state = State::Escape(role);
        } else {
            self.end_string(role, to);
        }
        rest
    }

    fn end_string(&mut self, role: Role, to: &mut impl Receiver<F>) {
        self.break_pair();
        if role == Role::Key {
            let known = self.stack.last().filter(|_| !self.cut);
            self.node = known.and_then(|frame| self.paths.child(frame.node, &self.text));
            self.state = State::Expect(Expect::Colon);
        } else {
            if role == Role::Pass {
                self.emit(Value::Filled(self.filled), to);
            } else if let (false, Ok(text)) = (self.cut, std::str::from_utf8(&self.text)) {
                self.emit(Value::Text(text), to);
            }
            self.after_value();
        }
        self.text.clear();
    }

    fn store(&mut self, text: &[u8]) {
        if self.text.len() + text.len() > MAX_TEXT {
            self.cut = true;
            self.text.clear();
        }
        if !self.cut {
            self.text.extend_from_slice(text);
        }
    }

    fn escape<'a>(&mut self, role: Role, bytes: &'a [u8]) -> &'a [u8] {
        let Some((byte, rest)) = bytes.split_first() else { return bytes };
        self.state = State::Text(role);
        if *byte != b'u' {
            self.break_pair();
        }
        match byte {
            _ if role == Role::Pass => {}
            b'u' => self.state = State::Hex { role, left: 4, code: 0 },
            b'n' => self.store(b"\n"),
            b't' => self.store(b"\t"),
            b'r' => self.store(b"\r"),
            b'b' => self.store(b"\x08"),
            b'f' => self.store(b"\x0c"),
            other => self.store(&[*other]),
        }
        rest
    }

    fn hex<'a>(&mut self, role: Role, left: u8, code: u16, bytes: &'a [u8]) -> &'a [u8] {
        let Some((byte, rest)) = bytes.split_first() else { return bytes };
        let Some(digit) = char::from(*byte).to_digit(16) else {
            self.state = State::Dead;
            return rest;
        };
        let code = code << 4 | u16::try_from(digit).unwrap_or(0);
        self.state = State::Hex { role, left: left - 1, code };
        if left == 1 {
            self.state = State::Text(role);
            self.store_code(code);
        }
        rest
    }

    /// A half of a pair without its other half makes the text unknown.
    fn break_pair(&mut self) {
        self.cut |= self.high.take().is_some();
    }

    /// UTF-16 code units, in pairs where needed.
    fn store_code(&mut self, code: u16) {
        let high = self.high.take();
        if high.is_none() && (0xd800..0xdc00).contains(&code) {
            self.high = Some(code);
            return;
        }
        match char::decode_utf16(high.into_iter().chain([code])).next() {
            Some(Ok(character)) => self.store(character.encode_utf8(&mut [0; 4]).as_bytes()),
            _ => self.cut = true,
        }
    }

    fn literal<'a>(&mut self, bytes: &'a [u8], to: &mut impl Receiver<F>) -> &'a [u8] {
        let delimiter = |byte: &u8| matches!(byte, b',' | b'}' | b']' | b' ' | b'\t' | b'\r' | b'\n');
        let end = bytes.iter().position(delimiter).unwrap_or(bytes.len());
        let (text, rest) = bytes.split_at_checked(end).unwrap_or((bytes, &[]));
        self.store(text);
        if !rest.is_empty() {
            self.end_literal(to);
        }
        rest
    }

    fn end_literal(&mut self, to: &mut impl Receiver<F>) {
        let value = match self.text.as_slice() {
            b"true" => Some(Value::Bool(true)),
            b"false" => Some(Value::Bool(false)),
            b"null" => Some(Value::Null),
            [b'-' | b'0'..=b'9', ..] if self.field().is_none() => None,
            [b'-' | b'0'..=b'9', ..] => number(&self.text).map(Value::Number),
            _ => return self.stop(),
        };
        if let Some(value) = value {
            self.emit(value, to);
        }
        self.text.clear();
        self.after_value();
    }

    fn skip<'a>(&mut self, mut depth: u32, bytes: &'a [u8]) -> &'a [u8] {
        for (at, byte) in bytes.iter().enumerate() {
            match byte {
                b'"' => self.state = State::SkipText(depth),
                b'{' | b'[' => depth = depth.saturating_add(1),
                b'}' | b']' if depth == 1 => self.after_value(),
                b'}' | b']' => depth -= 1,
                _ => {}
            }
            if !matches!(self.state, State::Skip(_)) {
                return bytes.get(at + 1..).unwrap_or_default();
            }
        }
        self.state = State::Skip(depth);
        &[]
    }

    fn skip_text<'a>(&mut self, depth: u32, bytes: &'a [u8]) -> &'a [u8] {
        let Some(at) = memchr::memchr2(b'"', b'\\', bytes) else { return &[] };
        let quote = bytes.get(at) == Some(&b'"');
        self.state = if quote { State::Skip(depth) } else { State::SkipEscape(depth) };
        bytes.get(at + 1..).unwrap_or_default()
    }
}

fn number(text: &[u8]) -> Option<f64> {
    std::str::from_utf8(text).ok()?.parse().ok()
}

/// Without the text.
impl<F> fmt::Debug for Scanner<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Scanner")
            .field("state", &self.state)
            .field("depth", &self.stack.len())
            .field("text_len", &self.text.len())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::LazyLock;

    use super::*;

    static PATHS: LazyLock<Paths<&'static str>> = LazyLock::new(|| {
        Paths::new([
            ("id", "id", Want::Keep),
            ("list[]", "item", Want::Presence),
            ("list", "list", Want::Presence),
            ("a.b[]", "b", Want::Presence),
            ("a.b[].c", "c", Want::Keep),
            ("text", "text", Want::Presence),
        ])
    });

    struct Log(String);
    impl Receiver<&'static str> for Log {
        fn value(&mut self, field: &'static str, value: Value<'_>) {
            use std::fmt::Write;
            write!(self.0, "{field}={value:?} ").unwrap();
        }
    }

    fn check(document: &str, expected: &str, done: bool) {
        for size in 1..=document.len() {
            let mut scanner = Scanner::new(&PATHS);
            let mut log = Log(String::new());
            for slice in document.as_bytes().chunks(size) {
                scanner.feed(slice, &mut log);
            }
            assert_eq!(log.0.trim_end(), expected, "{document} by {size}");
            assert_eq!(scanner.is_done(), done, "{document} by {size}");
        }
    }

    #[test]
    fn emits_listed_paths_only() {
        check(r#"{"id":"x","other":"y"}"#, r#"id=Text("x")"#, true);
        check(r#" { "o":{"id":"n","z":[{}]}, "id" : 12.5e1 }"#, "id=Number(125.0)", true);
        check(r#"{"id":null,"id":true,"id":false}"#, "id=Null id=Bool(true) id=Bool(false)", true);
        check(r#"[{"id":1},{"id":2}]"#, "id=Number(1.0) id=Number(2.0)", true);
        check(
            r#"{"text":"","text":"\n","text":"é"}"#,
            "text=Filled(false) text=Filled(true) text=Filled(true)",
            true,
        );
        check(
            r#"{"list":["a",[1],{"id":3},4]}"#,
            "list=List item=Filled(true) item=List item=Items(1) item=Begin item=Number(4.0) list=Items(4)",
            true,
        );
        check(
            r#"{"a":{"b":[{"c":"1","d":[[]]},{}]},"id":"e"}"#,
            r#"b=Begin c=Text("1") b=End b=Begin b=End id=Text("e")"#,
            true,
        );
        check(r#"{"list":[]}"#, "list=List list=Items(0)", true);
    }

    #[test]
    fn decodes_escapes_in_kept_texts_and_keys() {
        check(r#"{"id":"a\"\\\/\n\u00e9\ud83d\ude00ü"}"#, "id=Text(\"a\\\"\\\\/\\né😀ü\")", true);
        check(r#"{"\u0069d":"k"}"#, r#"id=Text("k")"#, true);
        check(r#"{"id":"\ud83dx\ude00","id":"\ud83d\n\ude00"}"#, "", true);
        check(r#"{"id":"\ud83dx","text":"\ud83d"}"#, "text=Filled(true)", true);
        check(r#"{"other":"\"}{[\\","id":"k"}"#, r#"id=Text("k")"#, true);
    }

    #[test]
    fn drops_what_is_too_long() {
        check(&format!(r#"{{"id":"{}","id":"{}"}}"#, "x".repeat(257), "ab"), r#"id=Text("ab")"#, true);
        check(&format!(r#"{{"{}":1,"id":2}}"#, "k".repeat(300)), "id=Number(2.0)", true);
    }

    #[test]
    fn broken_documents_stop_without_a_guess() {
        check(r#"{"id" 1}"#, "", false);
        check(r#"{"id":1]"#, "id=Number(1.0)", false);
        check(r#"[DONE]"#, "", false);
        check("not json", "", false);
        check("true ", "", true);
        check(r#"{"id":"\u00g0","id":2}"#, "", false);
        check(&"[".repeat(64), "", false);
        check(r#"{"id":"cut"#, "", false);
        check("}", "", false);
    }
}
