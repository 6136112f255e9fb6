//! The pickle machine without its hands: a stack, marks and a memo, and nodes instead of objects.

use super::opcode as op;
use super::tree::{Id, Items, Node, Segment, Text};
use super::{End, MAX_MARKS, MAX_MEMO, MAX_NODES, Tree};

/// Stops the machine.
pub(super) type Step<T = ()> = Result<T, End>;

const UNDERFLOW: End = End::Malformed("an opcode needs more values than there are");

/// An open MARK.
#[derive(Clone, Copy, Debug)]
pub(super) struct Mark {
    /// Values below it.
    pub(super) height: usize,
    /// The value below was made by the opcode before: if that is a container, what follows are its items.
    pub(super) fills: bool,
}

/// Reads one pickle.
pub(super) struct Machine<'a> {
    /// What is to be read.
    pub(super) rest: &'a [u8],
    pub(super) stack: Vec<Id>,
    pub(super) marks: Vec<Mark>,
    memo: Vec<Option<Id>>,
    memoized: usize,
    /// The top of the stack is a container that was just made.
    is_fresh: bool,
    pub(super) tree: Tree<'a>,
}

impl<'a> Machine<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        // About one node for four bytes, in the messages of real servers.
        let nodes = Vec::with_capacity((bytes.len() / 4).min(MAX_NODES));
        let tree = Tree { nodes, links: Vec::new(), segments: Vec::new(), root: None, end: End::Cut };
        let (stack, marks, memo) = (Vec::new(), Vec::new(), Vec::new());
        Self { rest: bytes, stack, marks, memo, memoized: 0, is_fresh: false, tree }
    }

    pub(super) fn run(mut self) -> Tree<'a> {
        let end = match self.read_protocol().and_then(|()| self.read_all()) {
            Ok(()) => End::Whole,
            Err(end) => end,
        };
        self.tree.end = end;
        if end == End::Whole {
            self.tree.root = self.stack.pop();
        } else {
            self.close_open();
        }
        self.tree
    }

    fn read_protocol(&mut self) -> Step {
        match (self.byte()?, self.byte()?) {
            (op::PROTO, 2..=5) => Ok(()),
            _ => Err(End::Malformed("not a pickle of protocol 2 to 5")),
        }
    }

    fn read_all(&mut self) -> Step {
        loop {
            let opcode = self.byte()?;
            if opcode == op::STOP {
                let is_one = self.stack.len() == 1 && self.marks.is_empty();
                return if is_one {
                    Ok(())
                } else {
                    Err(End::Malformed("it ends with not exactly one value"))
                };
            }
            let fresh = self.is_fresh;
            self.is_fresh = false;
            self.step(opcode, fresh)?;
        }
    }

    fn step(&mut self, opcode: u8, fresh: bool) -> Step {
        match opcode {
            op::BINGET | op::LONG_BINGET | op::BINPUT | op::LONG_BINPUT | op::MEMOIZE => {
                self.is_fresh = fresh;
                self.remember(opcode)
            }
            op::FRAME => {
                self.is_fresh = fresh;
                self.take(8).map(|_| ())
            }
            op::PROTO => self.byte().map(|_| ()),
            op::MARK => self.mark(fresh),
            op::POP | op::POP_MARK | op::DUP => self.shuffle(opcode),
            op::EMPTY_LIST | op::EMPTY_DICT | op::EMPTY_SET | op::EMPTY_TUPLE => self.empty(opcode),
            op::TUPLE | op::LIST | op::DICT | op::FROZENSET | op::TUPLE1 | op::TUPLE2 | op::TUPLE3 => {
                self.gather(opcode)
            }
            op::APPEND | op::APPENDS | op::SETITEM | op::SETITEMS | op::ADDITEMS => self.fill(opcode),
            op::GLOBAL | op::STACK_GLOBAL | op::REDUCE | op::NEWOBJ | op::NEWOBJ_EX | op::BUILD => {
                self.make(opcode)
            }
            op::BINPERSID | op::EXT1 | op::EXT2 | op::EXT4 | op::NEXT_BUFFER | op::READONLY_BUFFER => {
                self.opaque(opcode)
            }
            _ => self.scalar(opcode),
        }
    }

    fn scalar(&mut self, opcode: u8) -> Step {
        let node = match opcode {
            op::NONE => Node::None,
            op::NEWTRUE => Node::Bool(true),
            op::NEWFALSE => Node::Bool(false),
            op::BININT => Node::Int(i32::from_le_bytes(self.array()?).into()),
            op::BININT1 => Node::Int(self.byte()?.into()),
            op::BININT2 => Node::Int(u16::from_le_bytes(self.array()?).into()),
            op::BINFLOAT => Node::Float(f64::from_be_bytes(self.array()?)),
            op::LONG1 => self.size1().and_then(|length| self.text(length)).map(integer)?,
            op::LONG4 => self.size4().and_then(|length| self.text(length)).map(integer)?,
            op::SHORT_BINUNICODE => Node::Str(self.size1().and_then(|length| self.text(length))?),
            op::BINUNICODE => Node::Str(self.size4().and_then(|length| self.text(length))?),
            op::BINUNICODE8 => Node::Str(self.size8().and_then(|length| self.text(length))?),
            op::SHORT_BINBYTES | op::SHORT_BINSTRING => {
                Node::Bytes(self.size1().and_then(|length| self.text(length))?)
            }
            op::BINBYTES | op::BINSTRING => Node::Bytes(self.size4().and_then(|length| self.text(length))?),
            op::BINBYTES8 | op::BYTEARRAY8 => Node::Bytes(self.size8().and_then(|length| self.text(length))?),
            _ => return Err(End::Malformed("an opcode of another protocol, or none")),
        };
        self.push_node(node)
    }

    fn remember(&mut self, opcode: u8) -> Step {
        let place = match opcode {
            op::MEMOIZE => self.memoized as u64,
            op::BINGET | op::BINPUT => self.size1()?,
            _ => self.size4()?,
        };
        let place = usize::try_from(place).unwrap_or(usize::MAX);
        if matches!(opcode, op::BINGET | op::LONG_BINGET) {
            self.is_fresh = false;
            let known = self.memo.get(place).copied().flatten();
            return self.push(known.ok_or(End::Malformed("a value that was not memoized"))?);
        }
        if place >= MAX_MEMO {
            return Err(End::TooMuch("too many memoized values"));
        }
        let top = *self.stack.last().ok_or(UNDERFLOW)?;
        if self.memo.len() <= place {
            self.memo.resize(place + 1, None);
        }
        if let Some(entry) = self.memo.get_mut(place) {
            self.memoized += usize::from(entry.is_none());
            *entry = Some(top);
        }
        Ok(())
    }

    fn mark(&mut self, fills: bool) -> Step {
        if self.marks.len() >= MAX_MARKS {
            return Err(End::TooMuch("too deep"));
        }
        self.marks.push(Mark { height: self.stack.len(), fills });
        Ok(())
    }

    fn shuffle(&mut self, opcode: u8) -> Step {
        let at_mark = self.marks.last().is_some_and(|mark| mark.height == self.stack.len());
        match opcode {
            op::POP if at_mark => self.marks.pop().map(|_| ()).ok_or(UNDERFLOW),
            op::POP => self.pop().map(|_| ()),
            op::POP_MARK => {
                let height = self.marks.pop().ok_or(UNDERFLOW)?.height;
                self.stack.truncate(height);
                Ok(())
            }
            _ if at_mark => Err(UNDERFLOW),
            _ => self.stack.last().copied().ok_or(UNDERFLOW).and_then(|top| self.push(top)),
        }
    }

    fn empty(&mut self, opcode: u8) -> Step {
        self.is_fresh = opcode != op::EMPTY_TUPLE;
        let none = Items::default();
        self.push_node(match opcode {
            op::EMPTY_LIST => Node::List(none),
            op::EMPTY_DICT => Node::Dict(none),
            op::EMPTY_SET => Node::Set(none),
            _ => Node::Tuple(none),
        })
    }

    /// Makes a container of what is on the stack.
    fn gather(&mut self, opcode: u8) -> Step {
        let from = match opcode {
            op::TUPLE1 => self.above_mark(1)?,
            op::TUPLE2 => self.above_mark(2)?,
            op::TUPLE3 => self.above_mark(3)?,
            _ => self.marks.pop().ok_or(UNDERFLOW)?.height,
        };
        let mut items = Items::default();
        self.move_items(from, &mut items)?;
        self.push_node(match opcode {
            op::LIST => Node::List(items),
            op::DICT => Node::Dict(items),
            op::FROZENSET => Node::Set(items),
            _ => Node::Tuple(items),
        })
    }

    /// Adds what is on the stack to the container below it.
    fn fill(&mut self, opcode: u8) -> Step {
        let pairs = matches!(opcode, op::SETITEM | op::SETITEMS);
        let from = match opcode {
            op::APPEND => self.above_mark(1)?,
            op::SETITEM => self.above_mark(2)?,
            _ => self.marks.pop().ok_or(UNDERFLOW)?.height,
        };
        if pairs && (self.stack.len() - from) % 2 == 1 {
            return Err(End::Malformed("a key without a value"));
        }
        let into = from.checked_sub(1).and_then(|below| self.stack.get(below)).copied().ok_or(UNDERFLOW)?;
        self.add_items(into, from, pairs)
    }

    /// Moves the stack from `from` on into the container `into`.
    pub(super) fn add_items(&mut self, into: Id, from: usize, pairs: bool) -> Step {
        let node = self.tree.nodes.get(into.index()).copied().ok_or(UNDERFLOW)?;
        let mut items = match node {
            Node::List(items) | Node::Set(items) if !pairs => items,
            Node::Dict(items) if pairs => items,
            Node::Object(call) if call.items.first == 0 || call.pairs == pairs => call.items,
            // What an opaque value is filled with is not known either.
            Node::Opaque => Items::default(),
            _ => return Err(End::Malformed("items for what is no container of them")),
        };
        self.move_items(from, &mut items)?;
        if let Some(node) = self.tree.nodes.get_mut(into.index()) {
            match node {
                Node::List(kept) | Node::Set(kept) | Node::Dict(kept) => *kept = items,
                Node::Object(call) => (call.items, call.pairs) = (items, pairs),
                _ => {}
            }
        }
        Ok(())
    }

    fn move_items(&mut self, from: usize, items: &mut Items) -> Step {
        let moved = self.stack.get(from..).ok_or(UNDERFLOW)?;
        if moved.is_empty() {
            return Ok(());
        }
        let start = self.tree.links.len();
        if start + moved.len() > MAX_NODES * 2 {
            return Err(End::TooMuch("too many items"));
        }
        let length = u32::try_from(moved.len()).unwrap_or(u32::MAX);
        self.tree.links.extend_from_slice(moved);
        self.stack.truncate(from);
        self.tree.append_segment(items, u32::try_from(start).unwrap_or(u32::MAX), length);
        Ok(())
    }

    /// Place of the last `count` values, none of them below the last mark.
    pub(super) fn above_mark(&self, count: usize) -> Step<usize> {
        let floor = self.marks.last().map_or(0, |mark| mark.height);
        self.stack.len().checked_sub(count).filter(|from| *from >= floor).ok_or(UNDERFLOW)
    }

    pub(super) fn pop(&mut self) -> Step<Id> {
        self.above_mark(1)?;
        self.stack.pop().ok_or(UNDERFLOW)
    }

    pub(super) fn push(&mut self, id: Id) -> Step {
        if self.stack.len() >= MAX_NODES {
            return Err(End::TooMuch("too many values at once"));
        }
        self.stack.push(id);
        Ok(())
    }

    pub(super) fn push_node(&mut self, node: Node<'a>) -> Step {
        let id = self.new_node(node)?;
        self.push(id)
    }

    pub(super) fn new_node(&mut self, node: Node<'a>) -> Step<Id> {
        let id = Id::at(self.tree.nodes.len()).filter(|id| id.index() < MAX_NODES);
        let id = id.ok_or(End::TooMuch("too many values"))?;
        self.tree.nodes.push(node);
        Ok(id)
    }

    fn byte(&mut self) -> Step<u8> {
        let (&byte, rest) = self.rest.split_first().ok_or(End::Cut)?;
        self.rest = rest;
        Ok(byte)
    }

    pub(super) fn take(&mut self, length: usize) -> Step<&'a [u8]> {
        let (taken, rest) = self.rest.split_at_checked(length).ok_or(End::Cut)?;
        self.rest = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Step<[u8; N]> {
        let (array, rest) = self.rest.split_first_chunk::<N>().ok_or(End::Cut)?;
        self.rest = rest;
        Ok(*array)
    }

    fn size1(&mut self) -> Step<u64> {
        self.byte().map(u64::from)
    }

    fn size4(&mut self) -> Step<u64> {
        self.array().map(|bytes| u32::from_le_bytes(bytes).into())
    }

    fn size8(&mut self) -> Step<u64> {
        self.array().map(u64::from_le_bytes)
    }

    /// Text of a length that was read. What is there of a longer one is kept, and the next opcode meets the end.
    fn text(&mut self, length: u64) -> Step<Text<'a>> {
        let here = usize::try_from(length).unwrap_or(usize::MAX).min(self.rest.len());
        let bytes = self.take(here)?;
        Ok(Text { bytes, length })
    }
}

impl Tree<'_> {
    fn append_segment(&mut self, items: &mut Items, start: u32, length: u32) {
        // A list that is filled one by one, with nothing in between, has one run.
        if let Some(last) = items.last.checked_sub(1).and_then(|last| self.segments.get_mut(last as usize))
            && last.start.checked_add(last.length) == Some(start)
        {
            last.length += length;
            return;
        }
        self.segments.push(Segment { start, length, next: 0 });
        let place = u32::try_from(self.segments.len()).unwrap_or(u32::MAX);
        match items.last.checked_sub(1).and_then(|last| self.segments.get_mut(last as usize)) {
            Some(last) => last.next = place,
            None => items.first = place,
        }
        items.last = place;
    }
}

/// LONG1 and LONG4: two's complement, little-endian, no bytes for zero.
fn integer(text: Text<'_>) -> Node<'_> {
    let is_whole = text.length == text.bytes.len() as u64;
    let Some(mut bytes) = text.bytes.first_chunk::<8>().copied().or_else(|| widened(text.bytes)) else {
        return Node::Long(text);
    };
    if !is_whole || text.bytes.len() > 8 {
        return Node::Long(text);
    }
    bytes.reverse();
    Node::Int(i64::from_be_bytes(bytes))
}

fn widened(bytes: &[u8]) -> Option<[u8; 8]> {
    let fill = if bytes.last().is_some_and(|last| last & 0x80 != 0) { 0xff } else { 0 };
    let mut wide = [fill; 8];
    wide.get_mut(..bytes.len())?.copy_from_slice(bytes);
    Some(wide)
}
