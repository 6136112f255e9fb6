//! The client's command line: one JSON line per request as it ends, and the summary as the last line.

use std::io::Write;
use std::process::ExitCode;

use anyhow::Result;
use clap::Parser;
use workload::ClientOptions;
use workload::client::{Summary, load_with};

fn main() -> ExitCode {
    match run(&ClientOptions::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "workload-client: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Whether no request failed.
fn run(options: &ClientOptions) -> Result<bool> {
    let records = load_with(options, |record| {
        writeln!(std::io::stdout().lock(), "{}", serde_json::to_string(record)?)?;
        Ok(())
    })?;
    let summary = Summary::of(&records);
    writeln!(std::io::stdout().lock(), "{}", serde_json::json!({ "summary": summary }))?;
    Ok(summary.errors == 0)
}
