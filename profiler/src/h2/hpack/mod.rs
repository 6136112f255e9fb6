//! Header compression (RFC 7541), for a reader that may have missed header blocks.
//!
//! In: complete header blocks in their order, and news of losses. Out: fields, to a [`Receiver`]. What refers to an
//! entry that was not seen is unknown, never guessed. Deliberately absent: values of fields that nobody asks for.
//! They are measured, since sizes decide evictions, and dropped.

mod huffman;
mod table;

pub(super) use table::Name;
use table::{Entry, Found, Table};

use super::header::Header;

/// Longer names than this are none of those asked for.
const MAX_NAME: usize = 32;

/// A field's value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Value<'a> {
    Known(&'a [u8]),
    /// It stands in a part of the table that was not seen.
    Unknown,
}

/// Takes the fields of a block in their order.
pub(super) trait Receiver {
    /// The value is empty unless the name is [`Name::Known`].
    fn field(&mut self, name: Name, value: Value<'_>);
}

/// The block is not as RFC 7541 has it: nothing behind it can be trusted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Broken;

/// The state of one direction.
pub(super) struct Decoder {
    table: Table,
    name: Vec<u8>,
    value: Vec<u8>,
}

/// A name as it was read.
#[derive(Clone, Copy)]
struct Read {
    name: Name,
    len: Option<usize>,
}

/// How a literal's name is coded and what becomes of the field (section 6.2).
#[derive(Clone, Copy, PartialEq, Eq)]
struct Literal {
    prefix: u8,
    insert: bool,
}

impl Decoder {
    /// `complete`: no block was missed.
    pub(super) fn new(complete: bool) -> Self {
        Self { table: Table::new(complete), name: Vec::new(), value: Vec::new() }
    }

    /// Blocks were missed.
    pub(super) fn forget(&mut self) {
        self.table.forget();
    }

    /// The greatest table size that the receiver of these blocks has announced, if known.
    pub(super) fn allow(&mut self, limit: Option<u32>) {
        self.table.allow(limit.map(|limit| usize::try_from(limit).unwrap_or(usize::MAX)));
    }

    /// Reads a complete block.
    pub(super) fn decode(&mut self, mut block: &[u8], to: &mut impl Receiver) -> Result<(), Broken> {
        let mut first = true;
        while let Some(byte) = block.first().copied() {
            match byte {
                0x80.. => self.indexed(&mut block, to)?,
                0x40..0x80 => self.literal(&mut block, Literal { prefix: 6, insert: true }, to)?,
                0x20..0x40 => {
                    // Section 4.2: only where a block begins.
                    let size = integer(&mut block, 5)?;
                    if !first || !self.table.resize(size) {
                        return Err(Broken);
                    }
                    continue;
                }
                _ => self.literal(&mut block, Literal { prefix: 4, insert: false }, to)?,
            }
            first = false;
        }
        Ok(())
    }

    fn indexed(&mut self, block: &mut &[u8], to: &mut impl Receiver) -> Result<(), Broken> {
        match self.table.get(integer(block, 7)?) {
            Found::Static(name, value) => to.field(named(name.as_bytes()), Value::Known(value.as_bytes())),
            Found::Dynamic(Entry { name, value: Some(value), .. }) => to.field(*name, Value::Known(value)),
            Found::Dynamic(Entry { name: Name::Other, .. }) => to.field(Name::Other, Value::Known(&[])),
            Found::Dynamic(entry) => to.field(entry.name, Value::Unknown),
            Found::Unknown => to.field(Name::Unknown, Value::Unknown),
            Found::Invalid => return Err(Broken),
        }
        Ok(())
    }

    fn literal(&mut self, block: &mut &[u8], literal: Literal, to: &mut impl Receiver) -> Result<(), Broken> {
        let read = match integer(block, literal.prefix)? {
            0 => {
                let len = string(block, MAX_NAME, &mut self.name)?;
                Read { name: if len > MAX_NAME { Name::Other } else { named(&self.name) }, len: Some(len) }
            }
            index => match self.table.get(index) {
                Found::Static(name, _) => Read { name: named(name.as_bytes()), len: Some(name.len()) },
                Found::Dynamic(entry) => Read { name: entry.name, len: entry.name_len },
                Found::Unknown => Read { name: Name::Unknown, len: None },
                Found::Invalid => return Err(Broken),
            },
        };
        let wanted = matches!(read.name, Name::Known(_));
        let value_len = string(block, if wanted { usize::MAX } else { 0 }, &mut self.value)?;
        to.field(read.name, Value::Known(&self.value));
        if literal.insert {
            let value = wanted.then(|| self.value.as_slice().into());
            self.table.insert(Entry { name: read.name, name_len: read.len, value, value_len });
        }
        self.value.clear();
        Ok(())
    }

    #[cfg(test)]
    fn stored(&self) -> usize {
        self.table.stored() + self.name.capacity() + self.value.capacity()
    }
}

/// Sizes only: values are not ours to show.
impl std::fmt::Debug for Decoder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Decoder").finish_non_exhaustive()
    }
}

fn named(name: &[u8]) -> Name {
    Header::from_name(name).map_or(Name::Other, Name::Known)
}

/// An integer with a prefix of `bits` (section 5.1). More than four octets behind the prefix are refused: sizes and
/// indices have no use for them.
fn integer(block: &mut &[u8], bits: u8) -> Result<usize, Broken> {
    let mut bytes = block.iter();
    let mask = (1_u8 << bits) - 1;
    let mut value = usize::from(bytes.next().ok_or(Broken)? & mask);
    if value == usize::from(mask) {
        for shift in [0, 7, 14, 21, 28] {
            let byte = bytes.next().filter(|_| shift < 28).ok_or(Broken)?;
            value += usize::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                break;
            }
        }
    }
    *block = bytes.as_slice();
    Ok(value)
}

/// A string (section 5.2). Keeps at most `keep` octets of it in `to` and gives back how long it is.
fn string(block: &mut &[u8], keep: usize, to: &mut Vec<u8>) -> Result<usize, Broken> {
    to.clear();
    let coded = block.first().ok_or(Broken)? & 0x80 != 0;
    let len = integer(block, 7)?;
    let (bytes, rest) = block.split_at_checked(len).ok_or(Broken)?;
    *block = rest;
    if !coded {
        to.extend_from_slice(bytes.get(..keep.min(len)).unwrap_or_default());
        return Ok(len);
    }
    let mut len = 0;
    let octet = |byte| {
        if len < keep {
            to.push(byte);
        }
        len += 1;
    };
    huffman::decode(bytes, octet).map_err(|()| Broken)?;
    Ok(len)
}

#[cfg(test)]
mod tests;
