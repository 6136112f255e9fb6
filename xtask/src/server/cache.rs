//! What real servers are made of, kept outside the tree: `${XDG_CACHE_HOME:-~/.cache}/gpuspan/NAME/`. In go the steps
//! that make it, out comes a folder in which every step is done. A step that was cut off runs again, a finished one
//! never does until what it is made of changes. Nothing is ever deleted from here but by the user.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, bail};

/// The kept folder of one server. It stays locked while it is open, so that two commands never build in it at once.
pub struct Kept {
    name: &'static str,
    root: PathBuf,
    _lock: File,
}

impl Kept {
    /// Opens the folder `name`, waiting for another command that is filling it.
    pub fn open(name: &'static str) -> Result<Self> {
        let root = folder(name)?;
        fs::create_dir_all(root.join("stamps"))
            .with_context(|| format!("failed to make {}", root.display()))?;
        let lock = File::create(root.join("lock")).context("failed to make the lock of the cache")?;
        lock.lock().context("failed to lock the cache")?;
        Ok(Self { name, root, _lock: lock })
    }

    /// A path inside the folder.
    pub fn path(&self, relative: &str) -> PathBuf {
        self.root.join(relative)
    }

    /// Runs `make` unless it has succeeded before with the same `ingredients` (versions, options, scripts).
    pub fn step(&self, step: &str, ingredients: &str, make: impl FnOnce() -> Result<()>) -> Result<()> {
        let stamp = self.root.join("stamps").join(step);
        if fs::read_to_string(&stamp).is_ok_and(|made_of| made_of == ingredients) {
            return Ok(());
        }
        eprintln!("{}: {step} (log: {})", self.name, self.log(step).display());
        let started = Instant::now();
        make().with_context(|| format!("{}: {step} failed", self.name))?;
        fs::write(&stamp, ingredients).with_context(|| format!("failed to write {}", stamp.display()))?;
        eprintln!("{}: {step} took {:.0} s", self.name, started.elapsed().as_secs_f64());
        Ok(())
    }

    /// Runs a command with its output in the log of `step`; a failure shows the last lines of it.
    pub fn run(&self, step: &str, command: &mut Command) -> Result<()> {
        let path = self.log(step);
        let log = File::options().create(true).append(true).open(&path).context("failed to open the log")?;
        let output = log.try_clone().context("failed to share the log")?;
        let status = command.stdin(Stdio::null()).stdout(output).stderr(log).status();
        let status = status.with_context(|| format!("failed to start {command:?}"))?;
        if !status.success() {
            bail!("{command:?}: {status}; the end of {}:\n{}", path.display(), tail(&path, 15));
        }
        Ok(())
    }

    /// A Python environment with the given pinned packages.
    pub fn python(&self, packages: &[&str]) -> Result<()> {
        self.step("python", &packages.join(" "), || {
            let venv = self.path("venv");
            self.run("python", Command::new("python3").args(["-m", "venv"]).arg(&venv))?;
            self.run("python", Command::new(venv.join("bin/pip")).arg("install").args(packages))
        })
    }

    fn log(&self, step: &str) -> PathBuf {
        self.root.join(format!("{step}.log"))
    }
}

/// Where the folder `name` is kept, whether it exists or not.
pub fn folder(name: &str) -> Result<PathBuf> {
    let base = match std::env::var_os("XDG_CACHE_HOME").filter(|value| !value.is_empty()) {
        Some(base) => PathBuf::from(base),
        None => std::env::home_dir().context("no home directory: set XDG_CACHE_HOME")?.join(".cache"),
    };
    Ok(base.join("gpuspan").join(name))
}

/// The last `lines` lines of a log, or why it cannot be read.
pub fn tail(path: &Path, lines: usize) -> String {
    let text = match fs::read(path) {
        Ok(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
        Err(error) => return format!("({error})"),
    };
    let mut last: Vec<&str> = text.lines().rev().take(lines).collect();
    last.reverse();
    last.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kept(root: &Path) -> Kept {
        fs::create_dir_all(root.join("stamps")).unwrap();
        Kept { name: "test", root: root.to_path_buf(), _lock: File::create(root.join("lock")).unwrap() }
    }

    #[test]
    fn a_step_runs_until_it_succeeds_and_again_when_its_ingredients_change() {
        let root = std::env::temp_dir().join(format!("gpuspan-cache-{}", std::process::id()));
        let kept = kept(&root);
        assert!(kept.step("a", "1", || bail!("cut off")).is_err());
        let runs = std::cell::Cell::new(0);
        for ingredients in ["1", "1", "2"] {
            let make = || {
                runs.set(runs.get() + 1);
                Ok(())
            };
            kept.step("a", ingredients, make).unwrap();
        }
        assert_eq!(runs.get(), 2);
        fs::remove_dir_all(root).unwrap();
    }

    #[test]
    fn a_failed_command_shows_the_end_of_its_output() {
        let root = std::env::temp_dir().join(format!("gpuspan-cache-run-{}", std::process::id()));
        let kept = kept(&root);
        let failed = kept.run("b", Command::new("sh").args(["-c", "echo first; echo last >&2; exit 3"]));
        let message = format!("{:#}", failed.unwrap_err());
        assert!(message.contains("exit status: 3") && message.ends_with("first\nlast"), "{message}");
        fs::remove_dir_all(root).unwrap();
    }
}
