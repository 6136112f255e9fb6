//! The server's command line; everything else is in the library.

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    let options = workload::ServerOptions::parse();
    if std::env::var_os("SIMGPU_KERNEL_NS").is_none() {
        // The stand-ins do not run the kernels' code, so they have to be told how long it takes.
        // SAFETY: no other thread runs yet.
        unsafe { std::env::set_var("SIMGPU_KERNEL_NS", options.kernel_ns.to_string()) };
    }
    match workload::run(options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            use std::io::Write;
            let _ = writeln!(std::io::stderr(), "workload-server: {error:#}");
            ExitCode::FAILURE
        }
    }
}
