//! The Huffman code of HPACK (RFC 7541, section 5.2 and appendix B).
//!
//! In: an encoded string. Out: its octets, one by one. The code is canonical: codes are numbered by length, then by
//! symbol, so that the lengths of appendix B are all that has to be written down.

use std::sync::LazyLock;

/// Code lengths in bits, by symbol; the last is the end of string.
const LENGTHS: [u8; 257] = [
    13, 23, 28, 28, 28, 28, 28, 28, 28, 24, 30, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 30, 28, 28, 28,
    28, 28, 28, 28, 28, 28, 6, 10, 10, 12, 13, 6, 8, 11, 10, 10, 8, 11, 8, 6, 6, 6, 5, 5, 5, 6, 6, 6, 6, 6,
    6, 6, 7, 8, 15, 6, 12, 10, 13, 6, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 8, 7,
    8, 13, 19, 13, 14, 6, 15, 5, 6, 5, 6, 5, 6, 6, 6, 5, 7, 7, 6, 6, 6, 5, 6, 7, 6, 5, 5, 6, 7, 7, 7, 7, 7,
    15, 11, 14, 13, 28, 20, 22, 20, 20, 22, 22, 22, 23, 22, 23, 23, 23, 23, 23, 24, 23, 24, 24, 22, 23, 24,
    23, 23, 23, 23, 21, 22, 23, 22, 23, 23, 24, 22, 21, 20, 22, 22, 23, 23, 21, 23, 22, 22, 24, 21, 22, 23,
    23, 21, 21, 22, 21, 23, 22, 23, 23, 20, 22, 22, 22, 23, 22, 22, 23, 26, 26, 20, 19, 22, 23, 22, 25, 26,
    26, 26, 27, 27, 26, 24, 25, 19, 21, 26, 27, 27, 26, 27, 24, 21, 21, 26, 26, 28, 27, 27, 27, 20, 24, 20,
    21, 22, 21, 21, 23, 22, 22, 25, 25, 24, 24, 26, 23, 26, 27, 26, 26, 27, 27, 27, 27, 27, 28, 27, 27, 27,
    27, 27, 26, 30,
];
const END_OF_STRING: u16 = 256;
const SHORTEST: u32 = 5;
const LONGEST: u32 = 30;

/// Codes of one length, left-aligned in 32 bits.
#[derive(Clone, Copy, Debug)]
struct Length {
    bits: u32,
    first: u32,
    /// Greatest left-aligned code of this length, with all lower bits set.
    last: u32,
    /// Place of the first code's symbol in [`Code::symbols`].
    offset: usize,
}

struct Code {
    lengths: Vec<Length>,
    /// By length, then by value.
    symbols: Vec<u16>,
}

static CODE: LazyLock<Code> = LazyLock::new(|| {
    let mut code = Code { lengths: Vec::new(), symbols: Vec::with_capacity(LENGTHS.len()) };
    let mut next = 0_u32;
    for bits in SHORTEST..=LONGEST {
        let offset = code.symbols.len();
        let of_length = (0_u16..).zip(LENGTHS).filter(|(_, length)| u32::from(*length) == bits);
        code.symbols.extend(of_length.map(|(symbol, _)| symbol));
        let count = code.symbols.len() - offset;
        if count > 0 {
            let unit = 1_u32 << (32 - bits);
            // The last code of all is all ones: one more wraps around to nothing, and is not used.
            let first = next;
            next = next.wrapping_add(unit.wrapping_mul(count as u32));
            code.lengths.push(Length { bits, first, last: next.wrapping_sub(1), offset });
        }
    }
    code
});

/// Decodes `bytes` into `sink`. Fails at the end-of-string symbol and at padding that is not the beginning of it or
/// longer than 7 bits, as section 5.2 asks.
pub(super) fn decode(bytes: &[u8], mut sink: impl FnMut(u8)) -> Result<(), ()> {
    let code = &*CODE;
    let mut bytes = bytes.iter();
    // The next bits, left-aligned.
    let (mut window, mut held) = (0_u64, 0_u32);
    loop {
        while held <= 56 {
            let Some(byte) = bytes.next() else { break };
            window |= u64::from(*byte) << (56 - held);
            held += 8;
        }
        // Behind the end there are ones, as in the padding.
        let head = ((window | u64::MAX.checked_shr(held).unwrap_or(0)) >> 32) as u32;
        let length = code.lengths.iter().find(|length| head <= length.last).ok_or(())?;
        if length.bits > held {
            // Only padding is left.
            let padding = held < 8 && head == u32::MAX;
            return if padding { Ok(()) } else { Err(()) };
        }
        let index = length.offset + ((head - length.first) >> (32 - length.bits)) as usize;
        match code.symbols.get(index) {
            Some(symbol) if *symbol < END_OF_STRING => sink(*symbol as u8),
            _ => return Err(()),
        }
        window <<= length.bits;
        held -= length.bits;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(bytes: &[u8]) -> Result<String, ()> {
        let mut out = Vec::new();
        decode(bytes, |byte| out.push(byte)).map(|()| String::from_utf8(out).unwrap())
    }

    #[test]
    fn examples_of_the_rfc() {
        // Appendix C.4.1, C.4.2, C.4.3, C.6.1.
        for (bytes, expected) in [
            (
                &[0xf1, 0xe3, 0xc2, 0xe5, 0xf2, 0x3a, 0x6b, 0xa0, 0xab, 0x90, 0xf4, 0xff][..],
                "www.example.com",
            ),
            (&[0xa8, 0xeb, 0x10, 0x64, 0x9c, 0xbf], "no-cache"),
            (&[0x25, 0xa8, 0x49, 0xe9, 0x5b, 0xb8, 0xe8, 0xb4, 0xbf], "custom-value"),
            (&[0x64, 0x02], "302"),
            (&[], ""),
        ] {
            assert_eq!(text(bytes).as_deref(), Ok(expected));
        }
    }

    #[test]
    fn padding_is_the_beginning_of_the_end_and_shorter_than_a_byte() {
        // "a" is 00011.
        assert_eq!(text(&[0b0001_1111]).as_deref(), Ok("a"));
        for bytes in
            [&[0b0001_1110][..], &[0b0001_1000], &[0xff], &[0b0001_1111, 0xff], &[0xff; 4], &[0xff; 9]]
        {
            assert!(text(bytes).is_err(), "{bytes:?}");
        }
    }

    #[test]
    fn every_symbol_comes_back() {
        // Encodes with the same lengths, but counts the codes another way.
        let mut order: Vec<usize> = (0..257).collect();
        order.sort_by_key(|symbol| (LENGTHS[*symbol], *symbol));
        let (mut code, mut before) = (0_u64, u32::from(LENGTHS[order[0]]));
        for symbol in order {
            let bits = u32::from(LENGTHS[symbol]);
            code <<= bits - before;
            before = bits;
            let padded = (code << (40 - bits)) | ((1 << (40 - bits)) - 1);
            let bytes = padded.to_be_bytes();
            let used = usize::try_from(bits.div_ceil(8)).unwrap();
            let mut out = Vec::new();
            let result = decode(&bytes[3..3 + used], |byte| out.push(byte));
            match u8::try_from(symbol) {
                Ok(byte) => assert_eq!((result, out), (Ok(()), vec![byte])),
                Err(_) => assert!(result.is_err()),
            }
            code += 1;
        }
    }
}
