//! The 64-bit word attached to each uprobe: which API stands there and how its arguments lie.
//!
//! The kernel side has one program for every GPU call. It learns from the cookie which [`Shape`] to read and
//! whether the call's return is probed too, so that adding an API to the catalogue never touches the kernel side.
//!
//! ```text
//! bits  0..16  api     index into the user side's probe catalogue, copied into the record
//! bits 16..24  shape   how to read the arguments
//! bits 24..32  out     register argument (0 to 4) that points to a result to read at return, or `NO_OUT`
//! bit  32      paired  a return probe stands at the same function: report once, at return
//! ```

/// How the arguments of a call lie. The values are part of the contract, not of any CUDA header.
pub mod shape {
    /// Five register arguments, as they are: most of the runtime API.
    pub const CALL: u8 = 1;
    /// Four register arguments and, in the fifth place, the return address: most of the driver API.
    pub const CALL_WITH_CALLER: u8 = 2;
    /// `cudaLaunchKernel(func, dim3 grid, dim3 block, void** args, size_t shared, stream)`, also the cooperative form.
    ///
    /// `dim3` is 12 bytes and travels in two registers: x | y << 32, then z.
    pub const LAUNCH_RUNTIME: u8 = 3;
    /// `cudaLaunchKernelExC(const cudaLaunchConfig_t*, func, args)`.
    pub const LAUNCH_RUNTIME_EX: u8 = 4;
    /// `cuLaunchKernel(f, gx, gy, gz, bx, by, bz, shared, stream, params, extra)`, also the cooperative form.
    pub const LAUNCH_DRIVER: u8 = 5;
    /// `cuLaunchKernelEx(const CUlaunchConfig*, f, params, extra)`.
    pub const LAUNCH_DRIVER_EX: u8 = 6;
}

/// No argument of the call points to a result worth reading.
pub const NO_OUT: u8 = 0xff;

/// The unpacked form of a probe's cookie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cookie {
    /// Index into the user side's probe catalogue.
    pub api: u16,
    /// One of [`shape`].
    pub shape: u8,
    /// Register argument that points to a result, or [`NO_OUT`].
    pub out: u8,
    /// A return probe stands at the same function.
    pub paired: bool,
}

impl Cookie {
    /// The word that travels with the probe.
    #[inline(always)]
    pub const fn pack(self) -> u64 {
        self.api as u64 | (self.shape as u64) << 16 | (self.out as u64) << 24 | (self.paired as u64) << 32
    }

    /// What the kernel side reads back with `bpf_get_attach_cookie`.
    #[inline(always)]
    pub const fn unpack(word: u64) -> Self {
        Self {
            api: word as u16,
            shape: (word >> 16) as u8,
            out: (word >> 24) as u8,
            paired: word >> 32 & 1 != 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cookie_survives_the_round_trip() {
        for (api, shape, out, paired) in [(0, 0, 0, false), (u16::MAX, 6, NO_OUT, true), (517, 3, 2, true)] {
            let cookie = Cookie { api, shape, out, paired };
            assert_eq!(Cookie::unpack(cookie.pack()), cookie);
        }
    }
}
