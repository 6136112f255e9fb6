//! A reader of MessagePack that borrows.
//!
//! In: bytes, of which the end may be missing. Out: items, one at a time; what stands before the cut is as good as in
//! a whole message. The meaning of the bytes is that of the crate `rmp`; its own readers copy strings and take their
//! bytes from a stream, so the few lines that borrow are here. Nothing is allocated, and nothing recurses: an array
//! is the number of items that follow it. Timestamps and other extensions are handed on as they are.

use rmp::Marker;

/// Why there is no next item.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// The copy ends here; the message went on.
    Cut,
    /// This is not what a writer of MessagePack writes.
    Malformed,
}

/// One item.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Item<'a> {
    /// Nothing.
    Nil,
    /// A truth value.
    Bool(bool),
    /// A number from 0 on.
    Uint(u64),
    /// A number below 0.
    Negative(i64),
    /// A number with a fraction.
    Float(f64),
    /// Text.
    Str(&'a str),
    /// Bytes.
    Bin(&'a [u8]),
    /// An extension: its type, its bytes.
    Ext(i8, &'a [u8]),
    /// So many items follow, and belong to it.
    Array(u32),
    /// So many pairs of items follow, and belong to it.
    Map(u32),
}

/// Reads items in order.
#[derive(Clone, Debug)]
pub struct Reader<'a> {
    rest: &'a [u8],
    is_cut: bool,
}

impl<'a> Reader<'a> {
    /// Over the bytes of a message, or of its beginning if it `is_cut`.
    #[must_use]
    pub fn new(bytes: &'a [u8], is_cut: bool) -> Self {
        Self { rest: bytes, is_cut }
    }

    /// Whether all bytes are read.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.rest.is_empty()
    }

    /// The next item. The items of an array or a map follow as items of their own.
    ///
    /// # Errors
    /// See [`Stop`]. A reader that has stopped is not read on.
    #[inline]
    pub fn item(&mut self) -> Result<Item<'a>, Stop> {
        Ok(match Marker::from_u8(u8::from_be_bytes(self.number()?)) {
            Marker::FixPos(value) => Item::Uint(value.into()),
            Marker::FixNeg(value) => Item::Negative(value.into()),
            Marker::Null => Item::Nil,
            Marker::True => Item::Bool(true),
            Marker::False => Item::Bool(false),
            Marker::U8 => Item::Uint(u8::from_be_bytes(self.number()?).into()),
            Marker::U16 => Item::Uint(u16::from_be_bytes(self.number()?).into()),
            Marker::U32 => Item::Uint(u32::from_be_bytes(self.number()?).into()),
            Marker::U64 => Item::Uint(u64::from_be_bytes(self.number()?)),
            Marker::I8 => signed(i8::from_be_bytes(self.number()?).into()),
            Marker::I16 => signed(i16::from_be_bytes(self.number()?).into()),
            Marker::I32 => signed(i32::from_be_bytes(self.number()?).into()),
            Marker::I64 => signed(i64::from_be_bytes(self.number()?)),
            Marker::F32 => Item::Float(f32::from_be_bytes(self.number()?).into()),
            Marker::F64 => Item::Float(f64::from_be_bytes(self.number()?)),
            Marker::FixArray(count) => Item::Array(count.into()),
            Marker::Array16 => Item::Array(u16::from_be_bytes(self.number()?).into()),
            Marker::Array32 => Item::Array(u32::from_be_bytes(self.number()?)),
            Marker::FixMap(count) => Item::Map(count.into()),
            Marker::Map16 => Item::Map(u16::from_be_bytes(self.number()?).into()),
            Marker::Map32 => Item::Map(u32::from_be_bytes(self.number()?)),
            Marker::Reserved => return Err(Stop::Malformed),
            marker => return self.sized(marker),
        })
    }

    /// Items with bytes of their own.
    fn sized(&mut self, marker: Marker) -> Result<Item<'a>, Stop> {
        Ok(match marker {
            Marker::FixStr(size) => self.text(size.into())?,
            Marker::Str8 => {
                let size = u8::from_be_bytes(self.number()?);
                self.text(size.into())?
            }
            Marker::Str16 => {
                let size = u16::from_be_bytes(self.number()?);
                self.text(size.into())?
            }
            Marker::Str32 => {
                let size = u32::from_be_bytes(self.number()?);
                self.text(size)?
            }
            Marker::Bin8 => {
                let size = u8::from_be_bytes(self.number()?);
                Item::Bin(self.bytes(size.into())?)
            }
            Marker::Bin16 => {
                let size = u16::from_be_bytes(self.number()?);
                Item::Bin(self.bytes(size.into())?)
            }
            Marker::Bin32 => {
                let size = u32::from_be_bytes(self.number()?);
                Item::Bin(self.bytes(size)?)
            }
            Marker::FixExt1 => self.extension(1)?,
            Marker::FixExt2 => self.extension(2)?,
            Marker::FixExt4 => self.extension(4)?,
            Marker::FixExt8 => self.extension(8)?,
            Marker::FixExt16 => self.extension(16)?,
            Marker::Ext8 => {
                let size = u8::from_be_bytes(self.number()?);
                self.extension(size.into())?
            }
            Marker::Ext16 => {
                let size = u16::from_be_bytes(self.number()?);
                self.extension(size.into())?
            }
            Marker::Ext32 => {
                let size = u32::from_be_bytes(self.number()?);
                self.extension(size)?
            }
            _ => return Err(Stop::Malformed),
        })
    }

    /// Steps over the next item with all that belongs to it. Its time is that of the bytes, however deep they nest.
    ///
    /// # Errors
    /// As [`Reader::item`].
    pub fn skip(&mut self) -> Result<(), Stop> {
        let mut open: u64 = 1;
        while open > 0 {
            open -= 1;
            open = open.saturating_add(match self.item()? {
                Item::Array(count) => u64::from(count),
                Item::Map(count) => 2 * u64::from(count),
                _ => 0,
            });
        }
        Ok(())
    }

    /// Steps over what belongs to an item that was read.
    ///
    /// # Errors
    /// As [`Reader::item`].
    pub fn skip_inside(&mut self, item: Item<'_>) -> Result<(), Stop> {
        let inside = match item {
            Item::Array(count) => u64::from(count),
            Item::Map(count) => 2 * u64::from(count),
            _ => 0,
        };
        (0..inside).try_for_each(|_| self.skip())
    }

    fn end(&self) -> Stop {
        if self.is_cut { Stop::Cut } else { Stop::Malformed }
    }

    #[inline]
    fn number<const N: usize>(&mut self) -> Result<[u8; N], Stop> {
        let (number, rest) = self.rest.split_first_chunk::<N>().ok_or_else(|| self.end())?;
        self.rest = rest;
        Ok(*number)
    }

    fn bytes(&mut self, size: u32) -> Result<&'a [u8], Stop> {
        let size = usize::try_from(size).unwrap_or(usize::MAX);
        let (bytes, rest) = self.rest.split_at_checked(size).ok_or_else(|| self.end())?;
        self.rest = rest;
        Ok(bytes)
    }

    fn text(&mut self, size: u32) -> Result<Item<'a>, Stop> {
        self.bytes(size)
            .and_then(|bytes| std::str::from_utf8(bytes).map(Item::Str).map_err(|_| Stop::Malformed))
    }

    fn extension(&mut self, size: u32) -> Result<Item<'a>, Stop> {
        let kind = i8::from_be_bytes(self.number()?);
        Ok(Item::Ext(kind, self.bytes(size)?))
    }
}

/// Writers may use a signed form for a number that is not negative.
fn signed(value: i64) -> Item<'static> {
    u64::try_from(value).map_or(Item::Negative(value), Item::Uint)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn all(bytes: &[u8], is_cut: bool) -> (Vec<Item<'_>>, Option<Stop>) {
        let mut reader = Reader::new(bytes, is_cut);
        let mut items = Vec::new();
        while !reader.is_done() {
            match reader.item() {
                Ok(item) => items.push(item),
                Err(stop) => return (items, Some(stop)),
            }
        }
        (items, None)
    }

    #[test]
    fn every_form_is_read() {
        for (bytes, item) in [
            (&b"\x7f"[..], Item::Uint(127)),
            (b"\xcc\xff", Item::Uint(255)),
            (b"\xcd\x01\x00", Item::Uint(256)),
            (b"\xce\x00\x01\x00\x00", Item::Uint(65_536)),
            (b"\xcf\xff\xff\xff\xff\xff\xff\xff\xff", Item::Uint(u64::MAX)),
            (b"\xe0", Item::Negative(-32)),
            (b"\xd0\x80", Item::Negative(-128)),
            (b"\xd0\x05", Item::Uint(5)),
            (b"\xd1\xff\x00", Item::Negative(-256)),
            (b"\xd2\x80\x00\x00\x00", Item::Negative(-2_147_483_648)),
            (b"\xd3\x80\x00\x00\x00\x00\x00\x00\x00", Item::Negative(i64::MIN)),
            (b"\xca\x3f\x80\x00\x00", Item::Float(1.0)),
            (b"\xcb\x40\x00\x00\x00\x00\x00\x00\x00", Item::Float(2.0)),
            (b"\xc0", Item::Nil),
            (b"\xc2", Item::Bool(false)),
            (b"\xc3", Item::Bool(true)),
            (b"\xa2ab", Item::Str("ab")),
            (b"\xd9\x02ab", Item::Str("ab")),
            (b"\xda\x00\x02ab", Item::Str("ab")),
            (b"\xdb\x00\x00\x00\x02ab", Item::Str("ab")),
            (b"\xc4\x01z", Item::Bin(b"z")),
            (b"\xc5\x00\x01z", Item::Bin(b"z")),
            (b"\xc6\x00\x00\x00\x01z", Item::Bin(b"z")),
            (b"\xd4\x05z", Item::Ext(5, b"z")),
            (b"\xd5\xffzz", Item::Ext(-1, b"zz")),
            (b"\xd6\x05zzzz", Item::Ext(5, b"zzzz")),
            (b"\xd7\x05zzzzzzzz", Item::Ext(5, b"zzzzzzzz")),
            (b"\xd8\x05zzzzzzzzzzzzzzzz", Item::Ext(5, b"zzzzzzzzzzzzzzzz")),
            (b"\xc7\x03\x05zzz", Item::Ext(5, b"zzz")),
            (b"\xc8\x00\x03\x05zzz", Item::Ext(5, b"zzz")),
            (b"\xc9\x00\x00\x00\x03\x05zzz", Item::Ext(5, b"zzz")),
            (b"\x93", Item::Array(3)),
            (b"\xdc\x01\x00", Item::Array(256)),
            (b"\xdd\x00\x01\x00\x00", Item::Array(65_536)),
            (b"\x82", Item::Map(2)),
            (b"\xde\x01\x00", Item::Map(256)),
            (b"\xdf\x00\x01\x00\x00", Item::Map(65_536)),
        ] {
            assert_eq!(all(bytes, false), (vec![item], None), "{bytes:02x?}");
            for end in 1..bytes.len() {
                assert_eq!(all(&bytes[..end], true).1, Some(Stop::Cut), "{bytes:02x?} to {end}");
                assert_eq!(all(&bytes[..end], false).1, Some(Stop::Malformed), "{bytes:02x?} to {end}");
            }
        }
        assert_eq!(all(b"\xc1", true).1, Some(Stop::Malformed), "a byte that nobody writes");
        assert_eq!(all(b"\xa1\xff", true).1, Some(Stop::Malformed), "text that is none");
    }

    #[test]
    fn a_nest_without_end_is_stepped_over_without_recursion() {
        let deep = vec![0x91; 1 << 20];
        assert_eq!(Reader::new(&deep, true).skip(), Err(Stop::Cut));
        let wide = b"\xdf\xff\xff\xff\xff".repeat(1000);
        assert_eq!(Reader::new(&wide, false).skip(), Err(Stop::Malformed));
    }

    #[test]
    fn what_stands_before_a_cut_is_good() {
        let (items, stop) = all(b"\x93\x01\xa3abc\xa9only pa", true);
        assert_eq!(items, [Item::Array(3), Item::Uint(1), Item::Str("abc")]);
        assert_eq!(stop, Some(Stop::Cut));
    }

    proptest! {
        #[test]
        fn any_bytes_end(bytes in prop::collection::vec(any::<u8>(), 0..400), is_cut: bool) {
            let (items, stop) = all(&bytes, is_cut);
            prop_assert!(items.len() <= bytes.len());
            prop_assert!(is_cut || stop != Some(Stop::Cut));
            _ = Reader::new(&bytes, is_cut).skip();
        }
    }
}
