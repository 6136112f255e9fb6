//! As much of OpenSSL as a stream needs, loaded when asked for: the system's library, which gpuspan probes.
//!
//! No certificate: the keys are agreed upon anonymously, which TLS 1.2 has, and nobody but the benchmark listens.

use anyhow::{Context as _, Result, ensure};
use libloading::Library;
use std::ffi::{c_char, c_int, c_long, c_void};
use std::net::TcpStream;
use std::os::fd::AsRawFd as _;

/// The library's file: that of OpenSSL 3.
const FILE: &str = "libssl.so.3";

/// `TLS1_2_VERSION`; `SSL_CTRL_SET_DH_AUTO` and `SSL_CTRL_SET_MAX_PROTO_VERSION` (openssl/tls1.h, openssl/ssl.h).
const TLS_1_2: c_long = 0x0303;
const SET_DH_AUTO: c_int = 118;
const SET_MAX_VERSION: c_int = 124;

type Transfer<P> = unsafe extern "C" fn(*mut c_void, P, c_int) -> c_int;

/// Which end of a connection this is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// It accepts.
    Server,
    /// It connects.
    Client,
}

/// The library, set up.
pub struct Openssl {
    library: Library,
    context: *mut c_void,
    side: Side,
}

/// A session on a socket. Its memory is left to the end of the process.
pub struct Tls {
    session: *mut c_void,
    read: Transfer<*mut u8>,
    write: Transfer<*const u8>,
}

impl Openssl {
    /// Loads it.
    pub fn load(side: Side) -> Result<Self> {
        // SAFETY: the initialisers of the system's OpenSSL have no preconditions.
        let library = unsafe { Library::new(FILE) }.with_context(|| format!("there is no {FILE}"))?;
        // SAFETY: the signatures are those of OpenSSL's manual (ssl(7)), and every pointer comes from the library.
        let context = unsafe {
            let method: &[u8] =
                if side == Side::Server { b"TLS_server_method\0" } else { b"TLS_client_method\0" };
            let method: unsafe extern "C" fn() -> *const c_void = *library.get(method)?;
            let new: unsafe extern "C" fn(*const c_void) -> *mut c_void = *library.get(b"SSL_CTX_new\0")?;
            let control: unsafe extern "C" fn(*mut c_void, c_int, c_long, *mut c_void) -> c_long =
                *library.get(b"SSL_CTX_ctrl\0")?;
            let ciphers: unsafe extern "C" fn(*mut c_void, *const c_char) -> c_int =
                *library.get(b"SSL_CTX_set_cipher_list\0")?;
            let context = new(method());
            ensure!(!context.is_null(), "OpenSSL gives no context");
            control(context, SET_MAX_VERSION, TLS_1_2, std::ptr::null_mut());
            control(context, SET_DH_AUTO, 1, std::ptr::null_mut());
            ensure!(
                ciphers(context, c"ADH-AES256-GCM-SHA384:@SECLEVEL=0".as_ptr()) == 1,
                "OpenSSL has no anonymous keys"
            );
            context
        };
        Ok(Self { library, context, side })
    }

    /// Shakes hands on a connected socket, which must outlive the session.
    pub fn session(&self, socket: &TcpStream) -> Result<Tls> {
        // SAFETY: as in `load`; the descriptor is open.
        unsafe {
            let new: unsafe extern "C" fn(*mut c_void) -> *mut c_void = *self.library.get(b"SSL_new\0")?;
            let set_fd: unsafe extern "C" fn(*mut c_void, c_int) -> c_int =
                *self.library.get(b"SSL_set_fd\0")?;
            let shake: &[u8] = if self.side == Side::Server { b"SSL_accept\0" } else { b"SSL_connect\0" };
            let shake: unsafe extern "C" fn(*mut c_void) -> c_int = *self.library.get(shake)?;
            let session = new(self.context);
            ensure!(
                !session.is_null() && set_fd(session, socket.as_raw_fd()) == 1 && shake(session) == 1,
                "the handshake failed"
            );
            let (read, write) = (*self.library.get(b"SSL_read\0")?, *self.library.get(b"SSL_write\0")?);
            Ok(Tls { session, read, write })
        }
    }
}

impl Tls {
    /// Reads what there is, and waits for it.
    pub fn read(&mut self, bytes: &mut [u8]) -> Result<usize> {
        // SAFETY: the session is the library's, and it writes no further than the slice's length.
        let got = unsafe { (self.read)(self.session, bytes.as_mut_ptr(), c_int::try_from(bytes.len())?) };
        usize::try_from(got).context("reading failed")
    }

    /// Writes all, in one call.
    pub fn write(&mut self, bytes: &[u8]) -> Result<()> {
        let length = c_int::try_from(bytes.len())?;
        // SAFETY: the session is the library's, and it reads no further than the slice's length.
        let sent = unsafe { (self.write)(self.session, bytes.as_ptr(), length) };
        ensure!(sent == length, "writing failed");
        Ok(())
    }
}
