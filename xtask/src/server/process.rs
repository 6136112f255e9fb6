//! A server that runs: started, waited for until it answers, stopped when the value goes. In goes a command, out come
//! its pid, its address and its log. What the server is, this file does not know.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::cache;

/// How long a server may take from SIGTERM to its end before it is killed.
const STOP_GRACE: Duration = Duration::from_secs(10);
const POLL: Duration = Duration::from_millis(100);

/// A real server. Dropping it stops it.
#[derive(Debug)]
pub struct Running {
    /// The server's process.
    pub pid: u32,
    /// Where it listens, as `http://127.0.0.1:PORT`.
    pub url: String,
    /// The name to ask for in the field `model` of a request.
    pub model: String,
    /// Its standard output and error.
    pub log: PathBuf,
    /// Where the stand-ins write what truly ran on the device; none without a device.
    pub truth_dir: Option<PathBuf>,
    port: u16,
    patience: Duration,
    child: Child,
}

/// A server that has not been started.
#[derive(Debug)]
pub struct Prepared {
    /// What it is started with.
    pub command: Command,
    /// What must be known to wait for it.
    pub spec: Spec,
}

/// What a server is started with, besides its command.
#[derive(Clone, Debug)]
pub struct Spec {
    /// Names the log.
    pub name: &'static str,
    /// The port that the command was told to listen on.
    pub port: u16,
    /// The name of the model it serves.
    pub model: String,
    /// Where the stand-ins that it was given write.
    pub truth_dir: Option<PathBuf>,
    /// How long it may take until it answers.
    pub patience: Duration,
    /// It stops before it becomes the server, until [`Running::go_on`].
    pub held: bool,
}

impl Running {
    /// Starts `command`. It does not answer yet.
    pub fn spawn(command: &mut Command, spec: Spec) -> Result<Self> {
        let log = std::env::temp_dir().join(format!("gpuspan-{}-{}.log", spec.name, spec.port));
        let output = File::create(&log).with_context(|| format!("failed to make {}", log.display()))?;
        let errors = output.try_clone().context("failed to share the log")?;
        let mut shell;
        let command = if spec.held {
            shell = held(command);
            &mut shell
        } else {
            command
        };
        end_with_parent(command.stdin(Stdio::null()).stdout(output).stderr(errors));
        let child = command.spawn().with_context(|| format!("failed to start {command:?}"))?;
        let url = format!("http://127.0.0.1:{}", spec.port);
        let Spec { model, truth_dir, port, patience, .. } = spec;
        Ok(Self { pid: child.id(), url, model, log, truth_dir, port, patience, child })
    }

    /// Lets a server that was held become one.
    pub fn go_on(&self) {
        let Ok(pid) = i32::try_from(self.pid) else { return };
        // SAFETY: kill has no preconditions; the child has not been waited for, so the number is still its own.
        unsafe { libc::kill(pid, libc::SIGCONT) };
    }

    /// Waits until the server ends by itself.
    pub fn wait(&mut self) -> Result<ExitStatus> {
        self.child.wait().context("failed to wait for the server")
    }

    /// Whether the server still runs.
    pub fn alive(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Waits until `GET /health` answers 200.
    pub fn ready(&mut self) -> Result<()> {
        let patience = self.patience;
        let deadline = Instant::now() + patience;
        while !healthy(self.port) {
            if let Some(status) = self.child.try_wait().context("failed to ask for the server's state")? {
                bail!("the server ended before it answered: {status}; {}", self.end_of_log());
            }
            if Instant::now() > deadline {
                bail!("the server did not answer within {patience:?}; {}", self.end_of_log());
            }
            std::thread::sleep(POLL);
        }
        Ok(())
    }

    fn end_of_log(&self) -> String {
        format!("the end of {}:\n{}", self.log.display(), cache::tail(&self.log, 20))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        terminate(self.pid);
        let deadline = Instant::now() + STOP_GRACE;
        while self.alive() && Instant::now() < deadline {
            std::thread::sleep(POLL);
        }
        // Both fail only where the server has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The port that was asked for, or any; nobody listens on it at this moment. Without this look a start could take
/// another server's answers for its own.
pub fn port(asked: Option<u16>) -> Result<u16> {
    let asked = asked.unwrap_or(0);
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, asked))
        .with_context(|| format!("port {asked} cannot be had; leave out --port for a free one"))?;
    Ok(listener.local_addr().context("failed to read the port")?.port())
}

/// The same command in a shell that stops itself first: same process, same environment, not yet the server.
fn held(command: &Command) -> Command {
    let mut shell = Command::new("sh");
    shell
        .args(["-c", r#"kill -STOP $$; exec "$0" "$@""#])
        .arg(command.get_program())
        .args(command.get_args());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => shell.env(name, value),
            None => shell.env_remove(name),
        };
    }
    if let Some(folder) = command.get_current_dir() {
        shell.current_dir(folder);
    }
    shell
}

/// A new folder for what the stand-ins write about one run of a server.
pub fn truth_dir(name: &str, port: u16) -> Result<PathBuf> {
    let folder = std::env::temp_dir().join(format!("gpuspan-{name}-{port}-truth"));
    // What an earlier run on the same port left would be counted twice.
    if folder.exists() {
        std::fs::remove_dir_all(&folder).with_context(|| format!("failed to empty {}", folder.display()))?;
    }
    std::fs::create_dir_all(&folder).with_context(|| format!("failed to make {}", folder.display()))?;
    Ok(folder)
}

/// Folders for `LD_LIBRARY_PATH`, before what the environment already names.
pub fn library_path(folders: &[&Path]) -> Result<std::ffi::OsString> {
    let inherited = std::env::var_os("LD_LIBRARY_PATH").unwrap_or_default();
    let all = folders.iter().map(|folder| folder.to_path_buf()).chain(std::env::split_paths(&inherited));
    std::env::join_paths(all.filter(|folder| !folder.as_os_str().is_empty()))
        .context("a folder's name has a colon")
}

/// A small request of our own: all it must tell is whether the answer's status is 200.
fn healthy(port: u16) -> bool {
    let ask = || -> std::io::Result<bool> {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(1))?;
        stream.set_read_timeout(Some(Duration::from_secs(5)))?;
        stream.write_all(b"GET /health HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n")?;
        let mut status = [0; 12];
        stream.read_exact(&mut status)?;
        // The rest is read so that the server never sees a reset.
        stream.read_to_end(&mut Vec::new())?;
        Ok(&status == b"HTTP/1.1 200")
    };
    ask().unwrap_or(false)
}

/// A server must not outlive a command that was killed.
fn end_with_parent(command: &mut Command) {
    // SAFETY: prctl is a plain system call, safe between fork and exec; it changes only the child.
    unsafe {
        command.pre_exec(|| match libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGTERM) {
            0 => Ok(()),
            _ => Err(std::io::Error::last_os_error()),
        });
    }
}

fn terminate(pid: u32) {
    if let Ok(pid) = libc::pid_t::try_from(pid) {
        // SAFETY: kill takes no pointers. The pid is our own child's, which is not yet waited for, so it is not reused.
        unsafe { libc::kill(pid, libc::SIGTERM) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(port: u16) -> Spec {
        let patience = Duration::from_secs(20);
        Spec { name: "test", port, model: "none".into(), truth_dir: None, patience, held: false }
    }

    fn answering(command: &mut Command, spec: Spec) -> Result<Running> {
        let mut running = Running::spawn(command, spec)?;
        running.ready().map(|()| running)
    }

    #[test]
    fn a_server_that_ends_at_once_is_reported_with_its_last_words() {
        let port = port(None).unwrap();
        let failed = answering(Command::new("sh").args(["-c", "echo no model; exit 1"]), spec(port));
        let message = format!("{:#}", failed.unwrap_err());
        assert!(message.contains("exit status: 1") && message.ends_with("no model"), "{message}");
    }

    #[test]
    fn a_server_is_ready_when_it_answers_and_stops_with_its_value() {
        let port = port(None).unwrap();
        let script = "import http.server as h, sys
class Health(h.BaseHTTPRequestHandler):
    def do_GET(self): self.send_response(200); self.end_headers()
    protocol_version = 'HTTP/1.1'
h.HTTPServer(('127.0.0.1', int(sys.argv[1])), Health).serve_forever()";
        let mut running =
            answering(Command::new("python3").args(["-c", script, &port.to_string()]), spec(port)).unwrap();
        assert!(running.alive());
        drop(running);
        assert!(!healthy(port));
    }
}
