//! Manual pages and completions of shells, from the command line's own description. In: its commands and flags. Out: files,
//! by the paths where Debian keeps them. Absent: anything that the program's `--help` does not say.

use std::io::Write as _;
use std::path::PathBuf;

use anyhow::{Context as _, Result};
use clap::Command;
use clap_complete::Shell;
use flate2::{Compression, GzBuilder};

/// All of them.
///
/// # Errors
/// When a page cannot be written.
pub fn files() -> Result<Vec<(PathBuf, Vec<u8>)>> {
    let mut command = profiler::cli::command();
    command.build();
    let mut files = pages(&command)?;
    for (shell, path) in [
        (Shell::Bash, "usr/share/bash-completion/completions/gpuspan"),
        (Shell::Zsh, "usr/share/zsh/vendor-completions/_gpuspan"),
        (Shell::Fish, "usr/share/fish/vendor_completions.d/gpuspan.fish"),
    ] {
        let mut script = Vec::new();
        clap_complete::generate(shell, &mut command, "gpuspan", &mut script);
        files.push((path.into(), script));
    }
    Ok(files)
}

/// One page a command; those that clap adds by itself say nothing of their own.
fn pages(command: &Command) -> Result<Vec<(PathBuf, Vec<u8>)>> {
    let mut files = Vec::new();
    let subcommands = command.get_subcommands().filter(|command| command.get_name() != "help");
    for command in std::iter::once(command).chain(subcommands) {
        let name = command.get_display_name().unwrap_or_else(|| command.get_name());
        let mut page = Vec::new();
        clap_mangen::Man::new(command.clone()).render(&mut page)?;
        // No time and no name inside: the same page is the same bytes.
        let mut packed = GzBuilder::new().write(Vec::new(), Compression::best());
        packed.write_all(&page).and_then(|()| packed.try_finish()).context("cannot pack a page")?;
        files.push((format!("usr/share/man/man1/{name}.1.gz").into(), packed.finish()?));
    }
    Ok(files)
}
