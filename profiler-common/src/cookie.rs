//! The 64-bit word attached to each uprobe: which API stands there, how its arguments lie and when it is reported.
//!
//! The kernel side has one program for every GPU call, and one for every call of a TLS library. All it knows of a call is in the cookie, so that adding an
//! API to the catalogue never touches the kernel side.
//!
//! ```text
//! bits  0..16  api      index into the user side's probe catalogue, copied into the record
//! bits 16..20  shape    how to read the arguments
//! bits 20..22  report   when the call is reported
//! bits 22..25  out      argument that points to a result to read at return, or `NONE`
//! bits 25..29  second   a second word to read at return: bits 0..3 an argument, bit 3 "8 bytes behind it"
//! bits 29..32  pointee  argument that points to a structure (or an array, or a name) to copy, or `NONE`
//! bits 32..37  words    size of that structure, in words of 8 bytes
//! bits 37..40  bytes    argument with the size of a copy that may be counted instead of sent, or `NONE`
//! bits 40..43  kind     argument with that copy's `cudaMemcpyKind`, or `NONE`
//! bit  43      driver   a driver function: may be the inner half of a runtime call
//! bit  44      waits    the calling thread waits here: what has been counted for it is sent first
//! bits 45..47  capture  begins or ends the capture of a stream
//! bits 47..55  group    index into the settings of target groups
//! bits 55..57  class    what nests into its like: launches, copies
//! bit  57      dear     stands at an instruction that the kernel single-steps
//! ```

/// How the arguments of a call lie. The values are part of the contract, not of any CUDA header.
pub mod shape {
    /// Six register arguments, as they are: most of the runtime API.
    pub const CALL: u8 = 1;
    /// The same, and the return address: most of the driver API, and allocations.
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
    /// Fourteen arguments in order, wherever they are passed, and the structure that `pointee` points to.
    pub const WIDE: u8 = 7;
    /// As [`WIDE`]; `pointee` is an array of `size_t` and the argument after it says how many: their sum is sent.
    pub const WIDE_SUM: u8 = 8;
    /// As [`WIDE`]; `pointee` is an array of `cudaMemcpy3DBatchOp` (112 bytes, extent at 80) and the argument before
    /// it says how many: the sum of their volumes is sent.
    pub const WIDE_VOLUMES: u8 = 9;
    /// `cudaMalloc3D(cudaPitchedPtr*, cudaExtent)`: reported as pointer, width, height, depth.
    pub const MALLOC_3D: u8 = 10;
    /// `cudaMemset3D(cudaPitchedPtr, int, cudaExtent[, stream])`: reported as pointer, width, height, depth, stream.
    pub const MEMSET_3D: u8 = 11;
    /// `pointee` is a name, and `out` points to what has this name.
    pub const NAMED: u8 = 12;
}

/// What a function of a TLS library does; takes the place of the shape.
pub mod tls {
    /// `SSL *SSL_new(SSL_CTX*)`: a session begins at its return.
    pub const NEW: u8 = 1;
    /// `SSL_free(SSL*)`: it ends.
    pub const FREE: u8 = 2;
    /// `SSL_clear(SSL*)`: it ends, and the object begins another.
    pub const CLEAR: u8 = 3;
    /// `SSL_set_fd(SSL*, int)` and its halves: its carrier.
    pub const SET_FD: u8 = 4;
    /// `SSL_do_handshake(SSL*)`, `SSL_accept(SSL*)`: reads and writes for the session without bytes of its own.
    pub const HANDSHAKE: u8 = 5;
    /// `int SSL_read(SSL*, void *buf, int num)`: the result is how many bytes were deciphered.
    pub const READ: u8 = 6;
    /// `int SSL_read_ex(SSL*, void *buf, size_t num, size_t *readbytes)`: the result is 1.
    pub const READ_EX: u8 = 7;
    /// `int SSL_write(SSL*, const void *buf, int num)`.
    pub const WRITE: u8 = 8;
    /// `int SSL_write_ex(SSL*, const void *buf, size_t num, size_t *written)`.
    pub const WRITE_EX: u8 = 9;
    /// `int SSL_write_ex2(SSL*, const void *buf, size_t num, uint64_t flags, size_t *written)`.
    pub const WRITE_EX2: u8 = 10;
    /// `ossl_ssize_t SSL_sendfile(SSL*, int fd, off_t, size_t, int)`: the result is how many bytes went out of a file.
    pub const SEND_FILE: u8 = 11;
    /// `SSL_shutdown(SSL*)`: the target sends nothing more.
    pub const SHUTDOWN: u8 = 12;
}

/// What a function of a model server or its libraries does; takes the place of the shape.
pub mod server {
    /// `int zmq_msg_send(zmq_msg_t*, void *socket, int flags)`: a frame leaves.
    pub const SEND: u8 = 1;
    /// `int zmq_msg_recv(zmq_msg_t*, void *socket, int flags)`: a frame has come when the result is not negative.
    pub const RECEIVE: u8 = 2;
    /// `int32_t llama_decode(llama_context*, llama_batch)`: a batch by value.
    pub const BATCH: u8 = 3;
    /// `int32_t llama_process(llama_context*, type, llama_batch_ext*)`: a batch whose layout entry `words` of the table of
    /// layouts says.
    pub const OPAQUE_BATCH: u8 = 4;
    /// Six register arguments, as they are.
    pub const CALL: u8 = 5;
    /// Fourteen arguments in order, and the structure that `pointee` points to.
    pub const WIDE: u8 = 6;
    /// `pointee` is text. At entry the first argument has this name; at return, what `out` points to.
    pub const TEXT: u8 = 7;
    /// `pointee` is an array of words, and the argument after it (32 bits) says how many.
    pub const LIST: u8 = 8;
}

/// When a call is reported.
pub mod report {
    /// At entry.
    pub const ENTRY: u8 = 0;
    /// At return, once, with its result.
    pub const RETURN: u8 = 1;
    /// At entry, and at return again if it failed.
    pub const ENTRY_AND_FAILURE: u8 = 2;
    /// At return; results that say "not ready" are only counted.
    pub const RETURN_UNLESS_NOT_READY: u8 = 3;
}

/// What a call does to the capture of a stream.
pub mod capture {
    /// Nothing.
    pub const NONE: u8 = 0;
    /// From its entry on a stream may record instead of run.
    pub const BEGINS: u8 = 1;
    /// From its return on it runs again.
    pub const ENDS: u8 = 2;
}

/// Calls of the runtime that go on as calls of the driver of the same class.
pub mod class {
    /// Any other.
    pub const OTHER: u8 = 0;
    /// Launches of kernels.
    pub const LAUNCH: u8 = 1;
    /// Copies.
    pub const COPY: u8 = 2;
}

/// No argument plays this part.
pub const NONE: u8 = 7;

/// Set in [`Cookie::second`]: the word lies 8 bytes behind the place that the argument points to.
pub const BEHIND: u8 = 8;

/// No second word.
pub const NO_SECOND: u8 = 15;

/// `cudaErrorNotReady` and `CUDA_ERROR_NOT_READY`.
pub const NOT_READY: i64 = 600;

/// The unpacked form of a probe's cookie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cookie {
    /// Index into the user side's probe catalogue.
    pub api: u16,
    /// One of [`shape`].
    pub shape: u8,
    /// One of [`report`].
    pub report: u8,
    /// Argument that points to a result, or [`NONE`].
    pub out: u8,
    /// Argument that points to a second result, with [`BEHIND`]; or [`NO_SECOND`].
    pub second: u8,
    /// Argument that points to a structure, an array or a name, or [`NONE`].
    pub pointee: u8,
    /// Words of that structure.
    pub words: u8,
    /// Argument with the size of a copy that may be counted, or [`NONE`].
    pub bytes: u8,
    /// Argument with the kind of such a copy, or [`NONE`].
    pub kind: u8,
    /// A function of the driver.
    pub driver: bool,
    /// The calling thread waits here.
    pub waits: bool,
    /// One of [`capture`].
    pub capture: u8,
    /// Index into the settings of target groups.
    pub group: u8,
    /// One of [`class`].
    pub class: u8,
    /// The probe stands at an instruction that the kernel single-steps, which costs many times what others do.
    pub dear: bool,
}

impl Cookie {
    /// A call that is reported at entry and has nothing special.
    pub const PLAIN: Self = Self {
        api: 0,
        shape: shape::CALL,
        report: report::ENTRY,
        out: NONE,
        second: NO_SECOND,
        pointee: NONE,
        words: 0,
        bytes: NONE,
        kind: NONE,
        driver: false,
        waits: false,
        capture: capture::NONE,
        group: 0,
        class: class::OTHER,
        dear: false,
    };

    /// The word that travels with the probe.
    #[inline(always)]
    pub const fn pack(self) -> u64 {
        self.api as u64
            | (self.shape as u64 & 15) << 16
            | (self.report as u64 & 3) << 20
            | (self.out as u64 & 7) << 22
            | (self.second as u64 & 15) << 25
            | (self.pointee as u64 & 7) << 29
            | (self.words as u64 & 31) << 32
            | (self.bytes as u64 & 7) << 37
            | (self.kind as u64 & 7) << 40
            | (self.driver as u64) << 43
            | (self.waits as u64) << 44
            | (self.capture as u64 & 3) << 45
            | (self.group as u64) << 47
            | (self.class as u64 & 3) << 55
            | (self.dear as u64) << 57
    }

    /// What the kernel side reads back with `bpf_get_attach_cookie`.
    #[inline(always)]
    pub const fn unpack(word: u64) -> Self {
        Self {
            api: word as u16,
            shape: (word >> 16) as u8 & 15,
            report: (word >> 20) as u8 & 3,
            out: (word >> 22) as u8 & 7,
            second: (word >> 25) as u8 & 15,
            pointee: (word >> 29) as u8 & 7,
            words: (word >> 32) as u8 & 31,
            bytes: (word >> 37) as u8 & 7,
            kind: (word >> 40) as u8 & 7,
            driver: word >> 43 & 1 != 0,
            waits: word >> 44 & 1 != 0,
            capture: (word >> 45) as u8 & 3,
            group: (word >> 47) as u8,
            class: (word >> 55) as u8 & 3,
            dear: word >> 57 & 1 != 0,
        }
    }

    /// Whether a return probe stands at the same function.
    #[inline(always)]
    pub const fn has_return(self) -> bool {
        self.report != report::ENTRY
    }
}

/// Target groups that a cookie can name.
pub const GROUPS: u32 = 256;

/// Where the runs of the uprobe programs are counted for a target group, those at dear probes apart from the others.
#[inline(always)]
pub const fn runs(group: u8, dear: bool) -> u32 {
    (group as u32) << 1 | dear as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cookie_survives_the_round_trip() {
        let full = Cookie {
            api: u16::MAX,
            shape: 15,
            report: 3,
            out: 5,
            second: 2 | BEHIND,
            pointee: 4,
            words: 26,
            bytes: 2,
            kind: 3,
            driver: true,
            waits: true,
            capture: capture::ENDS,
            group: 255,
            class: class::COPY,
            dear: true,
        };
        for cookie in [Cookie::PLAIN, full, Cookie { api: 517, ..Cookie::PLAIN }] {
            assert_eq!(Cookie::unpack(cookie.pack()), cookie);
        }
        assert!(full.has_return() && !Cookie::PLAIN.has_return());
    }
}
