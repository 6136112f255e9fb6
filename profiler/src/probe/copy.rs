//! How much a call moves and which way: where the catalogue says that it is written.

/// Which way a copy goes, by the names of `cudaMemcpyKind`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Direction {
    /// Host to device.
    HtoD,
    /// Device to host.
    DtoH,
    /// Device to device, also between two devices.
    DtoD,
    /// Host to host.
    HtoH,
    /// The call leaves it to the addresses (`cudaMemcpyDefault`, `cuMemcpyAsync`), and they are not known.
    Unknown,
}

impl Direction {
    /// All of them, in the order of the summary.
    pub const ALL: [Self; 5] = [Self::HtoD, Self::DtoH, Self::DtoD, Self::HtoH, Self::Unknown];

    /// The name in summaries and attributes.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::HtoD => "HtoD",
            Self::DtoH => "DtoH",
            Self::DtoD => "DtoD",
            Self::HtoH => "HtoH",
            Self::Unknown => "unknown",
        }
    }

    /// From the value of a `cudaMemcpyKind` argument.
    #[must_use]
    pub fn from_memcpy_kind(kind: u64) -> Self {
        match kind as u32 {
            0 => Self::HtoH,
            1 => Self::HtoD,
            2 => Self::DtoH,
            3 => Self::DtoD,
            _ => Self::Unknown,
        }
    }

    /// From where the bytes are and where they go; `None` stands for a side that is not known.
    #[must_use]
    pub fn between(from: Option<Side>, to: Option<Side>) -> Self {
        match (from, to) {
            (Some(Side::Host), Some(Side::Device)) => Self::HtoD,
            (Some(Side::Device), Some(Side::Host)) => Self::DtoH,
            (Some(Side::Device), Some(Side::Device)) => Self::DtoD,
            (Some(Side::Host), Some(Side::Host)) => Self::HtoH,
            _ => Self::Unknown,
        }
    }
}

/// Where memory is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// With the CPU.
    Host,
    /// On a GPU.
    Device,
}

/// Structures that describe a copy or a fill (driver_types.h, cuda.h 12.9 and 13.5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Structure {
    /// `cudaMemcpy3DParms`, 160 bytes: extent at 128, kind at 152.
    Memcpy3D,
    /// `cudaMemcpy3DPeerParms`, 168 bytes: extent at 144.
    Memcpy3DPeer,
    /// `cudaMemcpy3DBatchOp`, 112 bytes: extent at 80.
    Memcpy3DOp,
    /// `CUDA_MEMCPY2D`, 128 bytes: memory types at 16 and 72, width and height at 112.
    DriverMemcpy2D,
    /// `CUDA_MEMCPY3D`, 200 bytes, and `CUDA_MEMCPY3D_PEER`, which begins alike: memory types at 32 and 120, extent
    /// at 176.
    DriverMemcpy3D,
    /// `cudaMemsetParams` and `CUDA_MEMSET_NODE_PARAMS`: element size at 20, width at 24, height at 32.
    Memset,
    /// `cudaGraphNodeParams` and `CUgraphNodeParams`: type at 0, the type's own structure at 16.
    GraphNode,
}

impl Structure {
    /// Words of 8 bytes to copy.
    #[must_use]
    pub const fn words(self) -> u8 {
        match self {
            Self::Memcpy3D => 20,
            Self::Memcpy3DPeer => 21,
            Self::Memcpy3DOp => 14,
            Self::DriverMemcpy2D => 16,
            Self::DriverMemcpy3D => 25,
            Self::Memset => 5,
            Self::GraphNode => 30,
        }
    }
}

/// Where a size is known from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Size {
    /// The argument, times a constant (the element size of `cuMemsetD32`).
    Arg(u8, u64),
    /// The product of two arguments, times a constant.
    Area(u8, u8, u64),
    /// The product of three arguments.
    Volume(u8, u8, u8),
    /// The second word read at return (a pitch), times an argument (the height).
    PitchTimes(u8),
    /// The second word read at return, times the product of two arguments.
    PitchTimesArea(u8, u8),
    /// The sum that the kernel side made of an array.
    Summed,
    /// From a structure.
    In(Structure),
}

/// Where a copy's direction is known from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// From the function's name.
    Fixed(Direction),
    /// From the `cudaMemcpyKind` in this argument.
    Kind(u8),
    /// From the addresses: destination and source.
    Addresses(u8, u8),
    /// From the structure that tells the size.
    Structure,
}
