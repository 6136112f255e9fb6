//! The servers: small programs of our own on other people's HTTP stacks, each a child of the test. In go Python, Debian's
//! packages and cargo; out comes a process that listens on loopback. What they answer is the same (`app.py`).

use std::fs::File;
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context as _, Result, bail, ensure};
use e2e::wait;
use tempfile::TempDir;
use xtask::server::parts;

use crate::tls::Certificate;

/// A server; stopped when dropped.
#[derive(Debug)]
pub struct Server {
    pub pid: u32,
    pub port: u16,
    child: Child,
    /// What it wrote, its configuration, its certificate.
    folder: TempDir,
    _certificate: Option<Certificate>,
    /// What it needs behind it.
    behind: Option<Box<Server>>,
}

/// What a server is made with.
struct Making {
    port: u16,
    folder: TempDir,
    certificate: Option<Certificate>,
}

impl Making {
    fn begin(tls: bool) -> Result<Self> {
        let certificate = if tls { Some(Certificate::make()?) } else { None };
        Ok(Self { port: free_port()?, folder: TempDir::new()?, certificate })
    }

    /// The paths of the certificate and its key, as arguments.
    fn files(&self) -> Vec<PathBuf> {
        self.certificate.iter().flat_map(|made| [made.cert(), made.key()]).collect()
    }

    fn start(self, mut command: Command, behind: Option<Box<Server>>) -> Result<Server> {
        let log = File::create(self.folder.path().join("log"))?;
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        // SAFETY: prctl is a plain system call, safe between fork and exec; it changes only the child.
        unsafe {
            command.pre_exec(|| match libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGTERM) {
                0 => Ok(()),
                _ => Err(std::io::Error::last_os_error()),
            });
        }
        let child = command.spawn().with_context(|| format!("failed to start {command:?}"))?;
        let mut server = Server {
            pid: child.id(),
            port: self.port,
            child,
            folder: self.folder,
            _certificate: self.certificate,
            behind,
        };
        server.listens().with_context(|| server.log())?;
        Ok(server)
    }
}

impl Server {
    fn listens(&mut self) -> Result<()> {
        wait::until("the server's listening", || {
            if let Some(status) = self.child.try_wait()? {
                bail!("the server ended with {status}");
            }
            Ok(TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)).ok())
        })?;
        Ok(())
    }

    /// Whether it still runs.
    pub fn alive(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// The server that this one asks.
    pub fn behind(&self) -> Option<&Self> {
        self.behind.as_deref()
    }

    /// What it has written.
    pub fn log(&self) -> String {
        let text = std::fs::read(self.folder.path().join("log")).unwrap_or_default();
        String::from_utf8_lossy(&text).into_owned()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // A master of worker processes ends them when it is asked to, and not when it is killed.
        // SAFETY: kill has no pointers; the child is ours and has not been waited for, so its pid is its own.
        unsafe { libc::kill(self.child.id().cast_signed(), libc::SIGTERM) };
        let gone = wait::within(std::time::Duration::from_secs(3), "the server's end", || {
            Ok(self.child.try_wait()?)
        });
        if gone.is_err() {
            // Both fail only when it has already ended.
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

fn free_port() -> Result<u16> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port())
}

fn programs() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../servers")
}

/// uvicorn with an event loop (`asyncio`, `uvloop`) and a parser (`h11`, `httptools`).
pub fn uvicorn(event_loop: &str, parser: &str, tls: bool) -> Result<Server> {
    let making = Making::begin(tls)?;
    let mut command = Command::new(parts::python()?);
    command.args(["-m", "uvicorn", "app:app", "--no-access-log", "--host", "127.0.0.1", "--port"]);
    command.arg(making.port.to_string()).args(["--loop", event_loop, "--http", parser]);
    command.args(["--timeout-keep-alive", "60", "--app-dir"]).arg(programs());
    command.env("PYTHONDONTWRITEBYTECODE", "1");
    for (option, file) in ["--ssl-certfile", "--ssl-keyfile"].iter().zip(making.files()) {
        command.arg(option).arg(file);
    }
    making.start(command, None)
}

/// Node as Debian builds it, on the system's OpenSSL: `http`, `https`, `h2c`, `h2`.
pub fn node(kind: &str) -> Result<Server> {
    node_by(parts::node()?.command()?, kind)
}

/// The Node that is installed, if it is one that brings an OpenSSL of its own, linked in, as Node's own builds do.
pub fn node_with_its_own_openssl(kind: &str) -> Result<Server> {
    let asked = Command::new("node").args(["-p", "process.config.variables.node_shared_openssl"]).output();
    let shared = asked.context("no Node is installed")?.stdout;
    ensure!(shared.trim_ascii() == b"false", "the Node that is installed uses the system's OpenSSL");
    node_by(Command::new("node"), kind)
}

fn node_by(mut command: Command, kind: &str) -> Result<Server> {
    let making = Making::begin(kind == "https" || kind == "h2")?;
    command.arg(programs().join("server.js")).arg(making.port.to_string()).arg(kind).args(making.files());
    making.start(command, None)
}

/// Go's net/http.
pub fn go(tls: bool) -> Result<Server> {
    let making = Making::begin(tls)?;
    let mut command = Command::new(parts::go(&programs().join("server.go"))?);
    command.arg(making.port.to_string()).args(making.files());
    making.start(command, None)
}

/// hyper: `none`, `openssl` or `rustls`.
pub fn hyper(tls: &str) -> Result<Server> {
    let making = Making::begin(tls != "none")?;
    let mut command = Command::new(build_hyper()?);
    command.arg(making.port.to_string()).arg(tls).args(making.files());
    making.start(command, None)
}

/// Built here, because the workspace's own build is without OpenSSL.
fn build_hyper() -> Result<PathBuf> {
    let test = std::env::current_exe()?;
    // target of target/debug/deps/protocols-1234.
    let target = test.ancestors().nth(3).context("the test lies outside a target folder")?;
    let mut command = workload::cargo();
    command.args(["build", "--quiet", "--package", "hyper-server", "--features", "openssl", "--target-dir"]);
    command.arg(target).current_dir(env!("CARGO_MANIFEST_DIR"));
    command.envs(parts::openssl()?);
    let status = command.status().context("failed to run cargo")?;
    ensure!(status.success(), "building hyper-server failed: {status}");
    Ok(target.join("debug/hyper-server"))
}

/// nginx in front of `behind`.
pub fn nginx(behind: Server, tls: bool) -> Result<Server> {
    let making = Making::begin(tls)?;
    let nginx = parts::nginx()?;
    let folder = making.folder.path().to_owned();
    let configuration = folder.join("nginx.conf");
    std::fs::write(&configuration, nginx_configuration(&making, &behind))?;
    let mut command = nginx.command()?;
    command.arg("-p").arg(&folder).arg("-c").arg(&configuration).args(["-e", "stderr"]);
    making.start(command, Some(Box::new(behind)))
}

fn nginx_configuration(making: &Making, behind: &Server) -> String {
    let (port, app) = (making.port, behind.port);
    let files = making.files();
    let (listen, tls) = match files.as_slice() {
        [cert, key] => (
            format!("{port} ssl http2"),
            format!("ssl_certificate {}; ssl_certificate_key {};", cert.display(), key.display()),
        ),
        _ => (port.to_string(), String::new()),
    };
    let paths = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .map(|name| format!("{name}_temp_path {};", making.folder.path().join(name).display()))
        .join(" ");
    format!(
        "daemon off; user root; worker_processes 1; pid nginx.pid;
         events {{ worker_connections 512; }}
         http {{
           access_log off; {paths} keepalive_requests 100000; ssl_protocols TLSv1.2 TLSv1.3;
           upstream app {{ server 127.0.0.1:{app}; keepalive 64; }}
           server {{
             listen 127.0.0.1:{listen}; {tls}
             location / {{
               proxy_pass http://app; proxy_http_version 1.1; proxy_set_header Connection \"\";
               proxy_buffering off; proxy_read_timeout 120s;
             }}
           }}
         }}"
    )
}

/// Python's grpcio.
pub fn grpc() -> Result<Server> {
    let making = Making::begin(false)?;
    let modules = parts::grpc_modules(&programs().join("inference.proto"))?;
    let mut command = Command::new(parts::python()?);
    command.arg(programs().join("infer_server.py")).arg(making.port.to_string()).env("PYTHONPATH", modules);
    making.start(command, None)
}

/// The command of the client that belongs to it.
pub fn grpc_client() -> Result<Command> {
    let modules = parts::grpc_modules(&programs().join("inference.proto"))?;
    let mut command = Command::new(parts::python()?);
    command.arg(programs().join("infer_client.py")).env("PYTHONPATH", modules);
    Ok(command)
}
