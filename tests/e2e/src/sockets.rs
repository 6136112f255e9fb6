//! The server whose every system call is asked for (`tests/programs/sockets`), led call by call.
//!
//! In: commands, and the bytes that it shall send. Out: the result of each call. Absent: any protocol; requests and
//! answers are the tests'.

use std::fs::{File, OpenOptions};
use std::io::{BufRead as _, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};

use anyhow::{Context as _, Result, bail, ensure};
use tempfile::TempDir;

use crate::wait;

/// A running server, or a child or thread of it. The process that was started is killed when dropped; children and
/// threads end when nobody writes to them any more.
pub struct Sockets {
    child: Option<Child>,
    pid: u32,
    commands: Box<dyn Write + Send>,
    answers: Receiver<String>,
    folder: Arc<TempDir>,
    /// Pipes and data files made so far.
    files: usize,
}

/// How a call failed: its `errno`.
pub type Errno = i32;

impl Sockets {
    /// Starts it.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start() -> Result<Self> {
        Self::spawn(&mut Command::new(simgpu::sockets_program()))
    }

    /// Starts it by a command that ends up as the program.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn spawn(command: &mut Command) -> Result<Self> {
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let commands = Box::new(child.stdin.take().context("no standard input")?);
        let answers = listen(child.stdout.take().context("no standard output")?);
        let folder = Arc::new(TempDir::new()?);
        let mut server = Self { pid: 0, child: Some(child), commands, answers, folder, files: 0 };
        server.pid = server.ready()?;
        Ok(server)
    }

    /// Its process id, as the program itself sees it.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Process id of what was started, in this pid namespace.
    #[must_use]
    pub fn started_pid(&self) -> Option<u32> {
        self.child.as_ref().map(Child::id)
    }

    /// Makes a call that must succeed.
    ///
    /// # Errors
    /// When it fails.
    pub fn call(&mut self, command: &str) -> Result<u64> {
        match self.attempt(command)? {
            Ok(result) => Ok(result),
            Err(errno) => bail!("{command}: {}", std::io::Error::from_raw_os_error(errno)),
        }
    }

    /// Makes a call that may fail.
    ///
    /// # Errors
    /// When the program has ended or hangs.
    pub fn attempt(&mut self, command: &str) -> Result<Result<u64, Errno>> {
        self.tell(command)?;
        self.result().with_context(|| command.to_owned())
    }

    /// Asks for a call and does not wait.
    ///
    /// # Errors
    /// When the program has ended.
    pub fn tell(&mut self, command: &str) -> Result<()> {
        writeln!(self.commands, "{command}").with_context(|| format!("{command}: the program has ended"))
    }

    /// The result of a call that was asked for.
    ///
    /// # Errors
    /// When there is none.
    pub fn result(&mut self) -> Result<Result<u64, Errno>> {
        let line = self.line()?;
        let (result, errno) = line.split_once(' ').with_context(|| format!("no result: {line}"))?;
        let result: i64 = result.parse().with_context(|| format!("no result: {line}"))?;
        Ok(if result < 0 { Err(errno.parse()?) } else { Ok(u64::try_from(result)?) })
    }

    /// Gives it bytes to send.
    ///
    /// # Errors
    /// When it cannot read them.
    pub fn load(&mut self, bytes: &[u8]) -> Result<()> {
        let file = self.file("data");
        std::fs::write(&file, bytes)?;
        let loaded = self.call(&format!("data {}", file.display()))?;
        std::fs::remove_file(file)?;
        ensure!(loaded == bytes.len() as u64, "{loaded} of {} bytes loaded", bytes.len());
        Ok(())
    }

    /// Makes it fork; the child is led by what is returned.
    ///
    /// # Errors
    /// When it cannot.
    pub fn fork(&mut self) -> Result<Self> {
        self.helper("fork")
    }

    /// Makes it start a thread; that is led by what is returned.
    ///
    /// # Errors
    /// When it cannot.
    pub fn thread(&mut self) -> Result<Self> {
        self.helper("thread")
    }

    /// Makes it execute itself.
    ///
    /// # Errors
    /// When it cannot.
    pub fn exec(&mut self) -> Result<()> {
        self.tell("exec")?;
        self.pid = self.ready()?;
        Ok(())
    }

    /// Waits for the end of the process that was started.
    ///
    /// # Errors
    /// When it goes on.
    pub fn ended(&mut self) -> Result<()> {
        let child = self.child.as_mut().context("not the process that was started")?;
        wait::until("the program's end", || Ok(child.try_wait()?)).map(drop)
    }

    fn helper(&mut self, kind: &str) -> Result<Self> {
        let (commands, answers) = (self.pipe()?, self.pipe()?);
        self.call(&format!("{kind} {} {}", commands.display(), answers.display()))?;
        // Each open waits for the other side's.
        let commands = Box::new(OpenOptions::new().write(true).open(commands)?);
        let answers = listen(File::open(answers)?);
        let folder = Arc::clone(&self.folder);
        // Names of its own pipes must differ from those of this one's.
        let files = (self.files + 1) * 1000;
        let mut helper = Self { child: None, pid: 0, commands, answers, folder, files };
        helper.pid = helper.ready()?;
        Ok(helper)
    }

    fn pipe(&mut self) -> Result<PathBuf> {
        let path = self.file("pipe");
        let name = std::ffi::CString::new(path.as_os_str().as_encoded_bytes())?;
        // SAFETY: the name ends with a zero and lives through the call.
        let made = unsafe { libc::mkfifo(name.as_ptr(), 0o600) };
        ensure!(made == 0, "failed to make {}: {}", path.display(), std::io::Error::last_os_error());
        Ok(path)
    }

    /// A new path in the program's own folder.
    pub fn file(&mut self, kind: &str) -> PathBuf {
        self.files += 1;
        self.folder().join(format!("{kind}{}", self.files))
    }

    /// The program's own folder.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    fn ready(&mut self) -> Result<u32> {
        let line = self.line()?;
        let pid = line.strip_prefix("ready ").with_context(|| format!("not ready: {line}"))?;
        Ok(pid.parse()?)
    }

    fn line(&self) -> Result<String> {
        self.answers.recv_timeout(wait::PATIENCE).context("the program said nothing")
    }
}

/// The lines of a pipe, read by a thread of their own: waiting for them has a limit.
fn listen(pipe: impl Read + Send + 'static) -> Receiver<String> {
    let (sender, lines) = channel();
    std::thread::spawn(move || {
        // Ends with the program, or with the test that listens.
        BufReader::new(pipe).lines().map_while(Result::ok).try_for_each(|line| sender.send(line))
    });
    lines
}

impl Drop for Sockets {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            // Both fail only when the process has already ended.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
