//! Errors → exit codes: 0 ok, 1 failed while running, 2 bad usage, 3 the machine or target cannot be profiled.

use crate::pipeline::RunError;
use std::process::ExitCode;

/// Bad usage, as clap has it.
const USAGE: u8 = 2;
/// The machine or the target cannot be profiled.
const UNABLE: u8 = 3;

/// Something that is wrong with the command line but that clap cannot see.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Usage(pub String);

/// The check found that nothing could be profiled; it has said why.
#[derive(Debug, thiserror::Error)]
#[error("this machine or target cannot be profiled: see the lines above")]
pub struct Unable;

/// Prints an error once, with its causes, and chooses the code.
pub fn code(result: anyhow::Result<()>) -> ExitCode {
    let Err(error) = result else { return ExitCode::SUCCESS };
    eprintln!("gpuspan: {error:#}");
    ExitCode::from(number(&error))
}

fn number(error: &anyhow::Error) -> u8 {
    if error.is::<Usage>() {
        return USAGE;
    }
    if error.is::<Unable>() {
        return UNABLE;
    }
    match error.downcast_ref::<RunError>() {
        Some(RunError::Target(_) | RunError::Kernel(_)) => UNABLE,
        Some(RunError::Export(_) | RunError::Pods(_)) => USAGE,
        _ => 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::target::ProcessError;

    #[test]
    fn codes() {
        assert_eq!(number(&Usage("x".into()).into()), 2);
        assert_eq!(number(&Unable.into()), 3);
        assert_eq!(number(&RunError::Target(ProcessError::NoSuchProcess(1)).into()), 3);
        assert_eq!(number(&RunError::Panicked("receive").into()), 1);
        assert_eq!(number(&anyhow::anyhow!("anything")), 1);
    }
}
