//! Words from outside that gpuspan must let go of everything: a file that is there, a signal, another agent that has come.
//!
//! In: the file system. Out: why nothing may be observed now, if so, and a descriptor that can be read when that may have
//! changed. Where the kernel cannot tell, and for another agent that was killed, it is looked at again and again.

use crate::target;
use std::ffi::CString;
use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, FromRawFd as _};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

/// Looks for such words.
#[derive(Debug)]
pub struct Off {
    file: PathBuf,
    /// Where agents of a node tell each other who has come last.
    newest: Option<PathBuf>,
    own: String,
    /// Tells when something changes in the folder.
    changes: Option<File>,
}

impl Off {
    /// `file` switches everything off as long as it is there. Beside it agents of a node find each other: this one is the
    /// newest from here on.
    #[must_use]
    pub fn new(file: &Path) -> Self {
        let pid = std::process::id();
        let own = format!("{pid} {}\n", target::start_ticks(pid).unwrap_or_default());
        let newest = file.with_file_name("newest-agent");
        let wrote = replace(&newest, &own).inspect_err(|error| {
            tracing::warn!(file = %newest.display(), %error, "another agent on this node would not know of this one");
        });
        let changes = file.parent().and_then(|folder| {
            watch(folder)
                .inspect_err(|error| tracing::info!(folder = %folder.display(), %error, "looked at four times a second"))
                .ok()
        });
        Self { file: file.to_owned(), newest: wrote.ok().map(|()| newest), own, changes }
    }

    /// Can be read when a look is due; none where that is not to be had.
    #[must_use]
    pub fn changes(&self) -> Option<BorrowedFd<'_>> {
        self.changes.as_ref().map(|changes| changes.as_fd())
    }

    /// Whether something has changed in the folder since the last call.
    pub fn has_changed(&mut self) -> bool {
        // Room for some names; what is behind them is read at the next call.
        let mut events = [0; 4096];
        self.changes.as_mut().is_some_and(|changes| changes.read(&mut events).is_ok_and(|read| read > 0))
    }

    /// Why nothing may be observed.
    #[must_use]
    pub fn why(&self) -> Option<String> {
        if self.file.exists() {
            return Some(format!("{} is there", self.file.display()));
        }
        let text = std::fs::read_to_string(self.newest.as_ref()?).ok()?;
        let other = Some(text.as_str()).filter(|text| *text != self.own).and_then(alive)?;
        Some(format!("a newer agent runs on this node, pid {other}"))
    }
}

impl Drop for Off {
    fn drop(&mut self) {
        let Some(newest) = &self.newest else { return };
        if std::fs::read_to_string(newest).is_ok_and(|text| text == self.own) {
            // Nobody is misled by a file that stays: the process that it names is gone.
            let _ = std::fs::remove_file(newest);
        }
    }
}

/// Whatever comes into a folder, and whatever leaves it.
fn watch(folder: &Path) -> std::io::Result<File> {
    let path = CString::new(folder.as_os_str().as_bytes())?;
    // SAFETY: no preconditions.
    let fd = unsafe { libc::inotify_init1(libc::IN_NONBLOCK | libc::IN_CLOEXEC) };
    if fd == -1 {
        return Err(std::io::Error::last_os_error());
    }
    // SAFETY: it has just been made, and nobody else knows it.
    let file = unsafe { File::from_raw_fd(fd) };
    let what = libc::IN_CREATE | libc::IN_DELETE | libc::IN_MOVE;
    // SAFETY: the path ends with a zero and lives through the call.
    match unsafe { libc::inotify_add_watch(file.as_raw_fd(), path.as_ptr(), what) } {
        -1 => Err(std::io::Error::last_os_error()),
        _ => Ok(file),
    }
}

/// The pid of a line, if that process still runs.
fn alive(line: &str) -> Option<u32> {
    let (pid, ticks) = line.trim_end().split_once(' ')?;
    let (pid, ticks): (u32, u64) = (pid.parse().ok()?, ticks.parse().ok()?);
    (target::start_ticks(pid)? == ticks).then_some(pid)
}

/// Nobody reads half a line.
fn replace(path: &Path, text: &str) -> std::io::Result<()> {
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder)?;
    }
    let new = path.with_extension("new");
    let mut file = std::fs::File::create(&new)?;
    file.write_all(text.as_bytes())?;
    std::fs::rename(new, path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_switches_off_and_on() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("run/off");
        let mut off = Off::new(&file);
        assert_eq!(off.why(), None);
        assert!(!off.has_changed());
        std::fs::write(&file, "").unwrap();
        assert!(off.changes().is_none() || off.has_changed() && !off.has_changed());
        assert!(off.why().unwrap().ends_with("off is there"));
        std::fs::remove_file(&file).unwrap();
        assert!(off.changes().is_none() || off.has_changed());
        assert_eq!(off.why(), None);
    }

    #[test]
    fn the_newest_agent_is_the_one_that_observes() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("off");
        let mut old = Off::new(&file);
        old.own = "1 0\n".to_owned();
        assert!(old.why().unwrap().contains(&format!("pid {}", std::process::id())));
        // One that is gone holds nobody up, nor does a file that says nothing.
        for text in ["4194305 1\n", "", "x y", "1"] {
            std::fs::write(folder.path().join("newest-agent"), text).unwrap();
            assert_eq!(old.why(), None, "{text:?}");
        }
    }

    #[test]
    fn an_agent_that_ends_leaves_no_word() {
        let folder = tempfile::tempdir().unwrap();
        drop(Off::new(&folder.path().join("off")));
        assert!(!folder.path().join("newest-agent").exists());
    }
}
