//! The frame around what a recording holds: gzip, a mark with the version, records with their length and checksum.
//!
//! ```text
//! gzip( "gpuspan\n" major:u16 minor:u16 ( length:u32 crc32:u32 MessagePack )* )       little endian
//! ```

/// What the unpacked file begins with.
pub const MARK: &[u8; 8] = b"gpuspan\n";

/// Major and minor version of the format. The minor one rises when something is added that older programs may pass over
/// (a field, which they ignore); the major one when they would misunderstand.
pub const VERSION: (u16, u16) = (2, 1);

/// Bytes of a record at most, and so of what a reader takes on trust. A batch of 4,096 calls with all their arguments is
/// half a megabyte.
pub const MOST_RECORD: usize = 4 << 20;

/// Length and checksum.
pub const HEAD: usize = 8;

/// CRC-32 as in gzip.
pub fn checksum(bytes: &[u8]) -> u32 {
    let mut sum = flate2::Crc::new();
    sum.update(bytes);
    sum.sum()
}
