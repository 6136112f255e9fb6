//! The `gpuspan` program.

fn main() -> std::process::ExitCode {
    profiler::cli::main()
}
