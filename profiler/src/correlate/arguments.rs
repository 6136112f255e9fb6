//! The arguments of a call, read by what the catalogue says of them: sizes, directions, structures.
//!
//! Layouts are those of driver_types.h and cuda.h 12.9 and 13.5 on machines of 64 bits. Pure: words in, numbers out.

use crate::probe::{Direction, Layer, Side, Size, Structure, Way};

/// What came with a call.
#[derive(Clone, Copy, Debug)]
pub struct Arguments<'a> {
    /// Arguments in order.
    pub args: &'a [u64],
    /// The structure that one of them points to, where it was copied.
    pub pointee: &'a [u64],
    /// The second word that was read at return.
    pub second: u64,
}

/// What a node of a graph that was described by a structure does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Described {
    /// Runs a kernel.
    Kernel(u64),
    /// Copies so many bytes in a direction.
    Copy(Direction, u64),
    /// Sets so many bytes.
    Set(u64),
    /// Runs a host function.
    Host,
    /// Runs another graph.
    Child(u64),
    /// Does nothing of interest.
    Other,
}

impl<'a> Arguments<'a> {
    /// The argument at `index`, 0 where the record has none.
    #[must_use]
    pub fn at(&self, index: u8) -> u64 {
        self.args.get(usize::from(index)).copied().unwrap_or(0)
    }

    /// Bytes that the call is about.
    #[must_use]
    pub fn size(&self, size: Size) -> u64 {
        match size {
            Size::Arg(bytes, times) => self.at(bytes).wrapping_mul(times),
            Size::Area(width, height, times) => {
                self.at(width).wrapping_mul(self.at(height)).wrapping_mul(times)
            }
            Size::Volume(width, height, depth) => {
                self.at(width).wrapping_mul(self.at(height)).wrapping_mul(self.at(depth))
            }
            Size::PitchTimes(height) => self.second.wrapping_mul(self.at(height)),
            Size::PitchTimesArea(height, depth) => {
                self.second.wrapping_mul(self.at(height)).wrapping_mul(self.at(depth))
            }
            Size::Summed => self.word(0),
            Size::In(structure) => self.size_in(structure, 0),
        }
    }

    /// Operations that the call asks for, and how many of them the size covers: more than one for batches.
    #[must_use]
    pub fn count(&self, size: Size) -> (u64, u64) {
        if size == Size::Summed { (self.word(2), self.word(1)) } else { (1, 1) }
    }

    /// Which way the bytes go; `side` tells where an address lies.
    #[must_use]
    pub fn direction(&self, way: Way, size: Size, side: &dyn Fn(u64) -> Option<Side>) -> Direction {
        match way {
            Way::Fixed(direction) => direction,
            Way::Kind(kind) => match Direction::from_memcpy_kind(self.at(kind)) {
                // `cudaMemcpyDefault`. The forms of one dimension all begin with destination and source.
                Direction::Unknown if size == Size::Arg(2, 1) => {
                    Direction::between(side(self.at(1)), side(self.at(0)))
                }
                direction => direction,
            },
            Way::Addresses(to, from) => Direction::between(side(self.at(from)), side(self.at(to))),
            Way::Structure => match size {
                Size::In(structure) => self.direction_in(structure, 0, side),
                _ => Direction::between(side(self.word(4)), side(self.word(3))),
            },
        }
    }

    /// What a node does that is described by a `cudaGraphNodeParams` or `CUgraphNodeParams`: its type at 0
    /// (`cudaGraphNodeType`), the type's own structure at 16. That of a copy begins with 16 bytes of flags and
    /// context.
    #[must_use]
    pub fn described(&self, layer: Layer, side: &dyn Fn(u64) -> Option<Side>) -> Described {
        const BODY: usize = 16;
        match self.half(0) {
            0 => Described::Kernel(self.word(BODY / 8)),
            1 => {
                let structure =
                    if layer == Layer::Driver { Structure::DriverMemcpy3D } else { Structure::Memcpy3D };
                let base = BODY + 16;
                Described::Copy(self.direction_in(structure, base, side), self.size_in(structure, base))
            }
            2 => Described::Set(self.size_in(Structure::Memset, BODY)),
            3 => Described::Host,
            4 => Described::Child(self.word(BODY / 8)),
            _ => Described::Other,
        }
    }

    /// Elements of an array of launch descriptions: function and stream of each that was copied.
    pub fn launches(&self, (words, stream): (u8, u8)) -> impl Iterator<Item = (u64, u64)> {
        let elements = self.pointee.chunks_exact(usize::from(words.max(1)));
        let there = usize::try_from(self.at(1)).unwrap_or(usize::MAX);
        elements
            .take(there)
            .filter_map(move |element| Some((*element.first()?, *element.get(usize::from(stream))?)))
    }

    fn size_in(&self, structure: Structure, base: usize) -> u64 {
        let volume = |at| {
            let [width, height, depth] = [0, 8, 16].map(|offset| self.word((base + at + offset) / 8));
            width.wrapping_mul(height).wrapping_mul(depth)
        };
        match structure {
            Structure::Memcpy3D => volume(128),
            Structure::Memcpy3DPeer => volume(144),
            Structure::Memcpy3DOp => volume(80),
            Structure::DriverMemcpy2D => {
                self.word((base + 112) / 8).wrapping_mul(self.word((base + 120) / 8))
            }
            Structure::DriverMemcpy3D => volume(176),
            Structure::Memset => {
                let element = u64::from(self.half(base + 20));
                let (width, height) = (self.word((base + 24) / 8), self.word((base + 32) / 8));
                element.wrapping_mul(width).wrapping_mul(height.max(1))
            }
            Structure::GraphNode => 0,
        }
    }

    fn direction_in(
        &self,
        structure: Structure,
        base: usize,
        side: &dyn Fn(u64) -> Option<Side>,
    ) -> Direction {
        // `CUmemorytype`: host, device, array, unified. Unified pointers lie where device pointers do.
        let of_type = |at: usize, device: usize| match self.half(base + at) {
            1 => Some(Side::Host),
            2 | 3 => Some(Side::Device),
            _ => side(self.word((base + device) / 8)),
        };
        match structure {
            Structure::Memcpy3D => match Direction::from_memcpy_kind(u64::from(self.half(base + 152))) {
                // Pitched pointers: the source's at 32, the destination's at 96.
                Direction::Unknown => {
                    Direction::between(side(self.word((base + 32) / 8)), side(self.word((base + 96) / 8)))
                }
                direction => direction,
            },
            Structure::DriverMemcpy2D => Direction::between(of_type(16, 32), of_type(72, 88)),
            Structure::DriverMemcpy3D => Direction::between(of_type(32, 48), of_type(120, 136)),
            Structure::Memcpy3DOp => {
                Direction::between(side(self.word((base + 8) / 8)), side(self.word((base + 48) / 8)))
            }
            Structure::Memcpy3DPeer => Direction::DtoD,
            Structure::Memset | Structure::GraphNode => Direction::Unknown,
        }
    }

    fn word(&self, index: usize) -> u64 {
        self.pointee.get(index).copied().unwrap_or(0)
    }

    /// The 32 bits at a byte offset.
    fn half(&self, offset: usize) -> u32 {
        (self.word(offset / 8) >> (8 * (offset % 8))) as u32
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nowhere(_: u64) -> Option<Side> {
        None
    }

    fn high_is_device(address: u64) -> Option<Side> {
        Some(if address >= 0x1000 { Side::Device } else { Side::Host })
    }

    fn read<'a>(args: &'a [u64], pointee: &'a [u64]) -> Arguments<'a> {
        Arguments { args, pointee, second: 512 }
    }

    #[test]
    fn sizes_are_what_the_calls_say() {
        let args = [0, 0, 3, 5, 7, 11];
        for (size, bytes) in [
            (Size::Arg(2, 4), 12),
            (Size::Area(3, 4, 2), 70),
            (Size::Volume(2, 3, 4), 105),
            (Size::PitchTimes(5), 5632),
            (Size::PitchTimesArea(4, 5), 512 * 77),
            (Size::Arg(9, 1), 0),
        ] {
            assert_eq!(read(&args, &[]).size(size), bytes, "{size:?}");
        }
        assert_eq!(read(&args, &[900, 3, 4]).size(Size::Summed), 900);
        assert_eq!(read(&args, &[900, 3, 4]).count(Size::Summed), (4, 3));
        assert_eq!(read(&[u64::MAX; 6], &[]).size(Size::Area(0, 1, 1)), 1, "hostile numbers wrap");
    }

    #[test]
    fn structures_are_read_where_the_headers_put_things() {
        let mut runtime = [0; 30];
        (runtime[16], runtime[17], runtime[18], runtime[19]) = (10, 20, 3, 2);
        let size = Size::In(Structure::Memcpy3D);
        assert_eq!(read(&[], &runtime).size(size), 600);
        assert_eq!(read(&[], &runtime).direction(Way::Structure, size, &nowhere), Direction::DtoH);
        runtime[19] = 4;
        (runtime[4], runtime[12]) = (0x10, 0x2000);
        assert_eq!(read(&[], &runtime).direction(Way::Structure, size, &high_is_device), Direction::HtoD);

        let mut driver = [0; 30];
        (driver[4], driver[15], driver[17]) = (1, 4, 0x3000);
        (driver[22], driver[23], driver[24]) = (4, 5, 6);
        let size = Size::In(Structure::DriverMemcpy3D);
        assert_eq!(read(&[], &driver).size(size), 120);
        assert_eq!(read(&[], &driver).direction(Way::Structure, size, &high_is_device), Direction::HtoD);

        let mut plane = [0; 30];
        (plane[2], plane[9], plane[14], plane[15]) = (2, 1, 100, 7);
        let size = Size::In(Structure::DriverMemcpy2D);
        assert_eq!(read(&[], &plane).size(size), 700);
        assert_eq!(read(&[], &plane).direction(Way::Structure, size, &nowhere), Direction::DtoH);

        let memset = [0, 0, 4 << 32, 25, 2];
        assert_eq!(read(&[], &memset).size(Size::In(Structure::Memset)), 200);
    }

    #[test]
    fn described_nodes_are_what_they_say() {
        let kernel = [0, 0, 0xf00];
        assert_eq!(read(&[], &kernel).described(Layer::Runtime, &nowhere), Described::Kernel(0xf00));
        let mut copy = [0; 30];
        copy[0] = 1;
        (copy[20], copy[21], copy[22], copy[23]) = (10, 1, 1, 1);
        let described = read(&[], &copy).described(Layer::Runtime, &nowhere);
        assert_eq!(described, Described::Copy(Direction::HtoD, 10));
        let mut copy = [0; 30];
        copy[0] = 1;
        (copy[8], copy[19], copy[26], copy[27], copy[28]) = (2, 2, 10, 2, 1);
        let described = read(&[], &copy).described(Layer::Driver, &nowhere);
        assert_eq!(described, Described::Copy(Direction::DtoD, 20));
        let child = [4, 0, 0x6a];
        assert_eq!(read(&[], &child).described(Layer::Driver, &nowhere), Described::Child(0x6a));
        assert_eq!(read(&[], &[]).described(Layer::Driver, &nowhere), Described::Kernel(0));
    }

    #[test]
    fn default_copies_go_where_their_addresses_say() {
        let way = Way::Kind(3);
        let size = Size::Arg(2, 1);
        let default = read(&[0x2000, 0x10, 64, 4, 0, 0], &[]);
        assert_eq!(default.direction(way, size, &high_is_device), Direction::HtoD);
        assert_eq!(default.direction(way, size, &nowhere), Direction::Unknown);
        let given = read(&[0x2000, 0x10, 64, 2, 0, 0], &[]);
        assert_eq!(given.direction(way, size, &high_is_device), Direction::DtoH, "the caller knows better");
    }

    #[test]
    fn launches_of_an_array_are_those_that_are_there() {
        let elements: Vec<u64> = (0..28).collect();
        let there = |count| read(&[0, count], &elements).launches((7, 6)).collect::<Vec<_>>();
        assert_eq!(there(2), [(0, 6), (7, 13)]);
        assert_eq!(there(99).len(), 4);
    }
}
