//! TLS by OpenSSL, call by call: sessions on descriptors, on BIOs and in memory, and what is read of them.
//!
//! The server is the one of `sockets`, built here with OpenSSL's headers (Debian's libssl-dev); without them these
//! tests say so and are skipped. The client is rustls. The numbers in test names are those of the project's list of
//! capture edge cases.

mod memory;
mod native;

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, OnceLock};

use e2e::{Report, Sockets};
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use tempfile::TempDir;

use crate::sockets::{self, Exchange, Scene, span_of};

/// What a failure of the library is told as (`tests/programs/sockets/tls`): this and `SSL_ERROR_WANT_…`.
pub const WANT_READ: i32 = 1002;
pub const WANT_WRITE: i32 = 1003;

/// How OpenSSL comes into the program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Library {
    Shared,
    Static,
    /// Static, and without symbols.
    Stripped,
}

/// What the programs are built in, with a certificate for `localhost`.
pub struct Workshop {
    folder: TempDir,
    certificate: CertificateDer<'static>,
}

static WORKSHOP: OnceLock<Workshop> = OnceLock::new();

impl Workshop {
    pub fn open() -> &'static Self {
        WORKSHOP.get_or_init(|| {
            let folder = TempDir::new().unwrap();
            let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
            std::fs::write(folder.path().join("certificate.pem"), made.cert.pem()).unwrap();
            std::fs::write(folder.path().join("key.pem"), made.signing_key.serialize_pem()).unwrap();
            Self { folder, certificate: made.cert.der().clone() }
        })
    }

    pub fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The program; why there is none, if so.
    fn program(&self, library: Library) -> Result<PathBuf, String> {
        let program = self.file(&format!("sockets-{library:?}"));
        if program.exists() {
            return Ok(program);
        }
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../programs/sockets");
        let mut command = Command::new("cc");
        command.args(["-std=gnu17", "-O1", "-g1", "-DTLS", "-pthread", "-o"]).arg(&program);
        for part in ["main.c", "transfer.c", "descriptor.c", "process.c", "tls/tls.c"] {
            command.arg(folder.join(part));
        }
        command.args(match library {
            Library::Shared => &["-lssl", "-lcrypto"][..],
            _ => &["-Wl,-Bstatic", "-lssl", "-lcrypto", "-Wl,-Bdynamic", "-ldl"],
        });
        command.args((library == Library::Stripped).then_some("-s"));
        match command.output() {
            Ok(output) if output.status.success() => Ok(program),
            Ok(output) => {
                let said = String::from_utf8_lossy(&output.stderr);
                let first = said.lines().find(|line| line.contains("error")).unwrap_or_default();
                Err(format!("no program with OpenSSL can be built (is libssl-dev installed?): {first}"))
            }
            Err(error) => Err(format!("no C compiler: {error}")),
        }
    }

    /// A client that trusts the certificate.
    pub fn client(&self, port: u16) -> StreamOwned<ClientConnection, TcpStream> {
        let mut roots = RootCertStore::empty();
        roots.add(self.certificate.clone()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        let config = builder.unwrap().with_root_certificates(roots).with_no_client_auth();
        let name = ServerName::try_from("localhost").unwrap();
        StreamOwned::new(ClientConnection::new(Arc::new(config), name).unwrap(), sockets::client(port))
    }
}

/// A server with OpenSSL that is not observed yet; says why if there is none.
pub fn scene(library: Library, version: u32) -> Option<Scene> {
    let workshop = Workshop::open();
    let program = match workshop.program(library) {
        Ok(program) => program,
        Err(reason) => {
            println!("skipped: {reason}");
            return None;
        }
    };
    let mut server = Sockets::spawn(&mut Command::new(program)).unwrap();
    let (certificate, key) = (workshop.file("certificate.pem"), workshop.file("key.pem"));
    server.call(&format!("tls_context {} {} {version}", certificate.display(), key.display())).unwrap();
    let listener = server.call("listen4 0").unwrap();
    let port = server.call(&format!("port {listener}")).unwrap() as u16;
    Some(Scene { server, listener, port, observation: None })
}

/// A TLS connection, from both sides.
pub struct Session {
    pub client: StreamOwned<ClientConnection, TcpStream>,
    pub fd: u64,
    /// The program's number for it.
    pub number: u64,
    memory: bool,
    calls: Calls,
}

/// By which functions the server reads and writes.
#[derive(Clone, Copy)]
pub struct Calls {
    pub read: &'static str,
    pub write: &'static str,
}

pub const PLAIN: Calls = Calls { read: "tls_read", write: "tls_write" };
pub const EX: Calls = Calls { read: "tls_read_ex", write: "tls_write_ex" };

impl Session {
    /// Connects and shakes hands; `how` says what the session stands on.
    pub fn open(scene: &mut Scene, how: &str, calls: Calls) -> Self {
        let mut client = Workshop::open().client(scene.port);
        let fd = scene.server.call(&format!("accept4 {}", scene.listener)).unwrap();
        let number = scene.server.call(&format!("tls_new {fd} {how}")).unwrap();
        let shaking = std::thread::spawn(move || {
            while client.conn.is_handshaking() {
                client.conn.complete_io(&mut client.sock).unwrap();
            }
            client
        });
        scene.server.call(&format!("tls_handshake {number}")).unwrap();
        Self { client: shaking.join().unwrap(), fd, number, memory: how.starts_with("memory"), calls }
    }

    pub fn ask(&mut self, server: &mut Sockets, request: &[u8]) {
        self.say(request);
        self.hear(server, request.len(), 65_536);
    }

    /// The client says something.
    pub fn say(&mut self, bytes: &[u8]) {
        self.client.write_all(bytes).unwrap();
        self.client.flush().unwrap();
    }

    /// The server reads as many bytes, by calls with so much room.
    pub fn hear(&mut self, server: &mut Sockets, bytes: usize, room: usize) {
        let mut missing = bytes;
        while missing > 0 {
            let read = format!("{} {} {}", self.calls.read, self.number, room.min(missing));
            match server.attempt(&read).unwrap() {
                Ok(got) => missing -= got as usize,
                Err(WANT_READ) if self.memory => {
                    assert!(server.call(&format!("tls_feed {}", self.number)).unwrap() > 0);
                }
                Err(error) => panic!("{read}: {error}"),
            }
        }
    }

    pub fn answer(&mut self, server: &mut Sockets, answer: &[u8]) {
        server.load(answer).unwrap();
        let mut at = 0;
        while at < answer.len() {
            let write = format!("{} {} {at} {}", self.calls.write, self.number, answer.len() - at);
            at += server.call(&write).unwrap() as usize;
            self.flush(server);
        }
        self.got(answer);
    }

    /// What lies in memory goes out.
    pub fn flush(&self, server: &mut Sockets) {
        if self.memory {
            server.call(&format!("tls_flush {}", self.number)).unwrap();
        }
    }

    pub fn got(&mut self, expected: &[u8]) {
        let mut got = vec![0; expected.len()];
        self.client.read_exact(&mut got).unwrap();
        assert!(got == expected, "other bytes arrived than were sent");
    }

    pub fn answer_in_pieces(&mut self, server: &mut Sockets, pieces: &[Vec<u8>]) {
        for piece in pieces {
            self.answer(server, piece);
        }
    }

    pub fn exchange(&mut self, server: &mut Sockets, tokens: u64) -> Exchange {
        let exchange = Exchange::new(tokens);
        self.ask(server, &exchange.request());
        self.answer_in_pieces(server, &exchange.stream());
        exchange
    }

    /// The session first, then its socket.
    pub fn close(self, server: &mut Sockets) {
        server.call(&format!("tls_free {}", self.number)).unwrap();
        server.call(&format!("close {}", self.fd)).unwrap();
    }
}

/// The exchanges were seen through TLS.
pub fn were_https(report: &Report, exchanges: &[Exchange]) {
    for exchange in exchanges {
        assert_eq!(span_of(report, exchange).text("url.scheme"), Some("https"));
    }
}
