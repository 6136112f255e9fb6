//! The server's command line; everything else is in the library.

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    match workload::run(workload::ServerOptions::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            use std::io::Write;
            let _ = writeln!(std::io::stderr(), "workload-server: {error:#}");
            ExitCode::FAILURE
        }
    }
}
