//! Compiles the stand-in libraries and the test programs.
//! In: `c/`, `names/`, `../programs/`. Out: `OUT_DIR/cuda12`, `OUT_DIR/cuda13`, `OUT_DIR/programs`, and the path of
//! `OUT_DIR` for the crate. Absent: installation; everything stays below the target directory.

use std::error::Error;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

type Result<T> = std::result::Result<T, Box<dyn Error + Send + Sync>>;

/// One shared object to build.
struct Library {
    /// File name and soname.
    name: &'static str,
    /// The symbol version of every export, where the real library has one.
    version: bool,
    /// Below `c/`.
    sources: &'static [&'static str],
    /// The exported names of the real library, below `names/`.
    names: &'static str,
    /// What a function answers that the stand-in does not have: that API's "not supported".
    unsupported: i32,
    /// The major CUDA version, for sources that serve both.
    cuda: u32,
}

const RUNTIME: &[&str] = &["runtime", "log"];
const LIBRARIES: &[Library] = &[
    library("libcudart.so.12", true, RUNTIME, "libcudart.so.12.txt", 801, 12),
    library("libcudart.so.13", true, RUNTIME, "libcudart.so.13.txt", 801, 13),
    library("libcuda.so.1", false, &["driver", "log"], "libcuda.so.1.txt", 801, 13),
    library("libnvidia-ml.so.1", false, &["nvml", "log"], "libnvidia-ml.so.1.txt", 3, 13),
    library("libnccl.so.2", false, &["nccl", "log"], "libnccl.so.2.txt", 5, 13),
    library("libcublas.so.12", true, BLAS, "libcublas.so.txt", 15, 12),
    library("libcublas.so.13", true, BLAS, "libcublas.so.txt", 15, 13),
    library("libcublasLt.so.12", true, BLAS_LT, "libcublasLt.so.txt", 15, 12),
    library("libcublasLt.so.13", true, BLAS_LT, "libcublasLt.so.txt", 15, 13),
];
const BLAS: &[&str] = &["blas/cublas.c", "blas/driver.c", "log"];
const BLAS_LT: &[&str] = &["blas/cublaslt.c", "blas/driver.c", "log"];

const fn library(
    name: &'static str,
    version: bool,
    sources: &'static [&'static str],
    names: &'static str,
    unsupported: i32,
    cuda: u32,
) -> Library {
    Library { name, version, sources, names, unsupported, cuda }
}

/// The one file that must reach its callee by a jump.
const TAIL_CALLS: &str = "tail.c";

fn main() -> Result<()> {
    for watched in ["build.rs", "c", "names", "../programs"] {
        println!("cargo:rerun-if-changed={watched}");
    }
    let out = PathBuf::from(env::var("OUT_DIR")?);
    println!("cargo:rustc-env=SIMGPU_OUT_DIR={}", out.display());
    for folder in ["cuda12", "cuda13", "programs", "work"] {
        fs::create_dir_all(out.join(folder))?;
    }
    std::thread::scope(|scope| {
        let builds: Vec<_> = LIBRARIES.iter().map(|l| scope.spawn(|| build_library(l, &out))).collect();
        builds
            .into_iter()
            .try_for_each(|b| b.join().unwrap_or_else(|_| Err("a build thread panicked".into())))
    })?;
    build_programs(&out)
}

/// The compiler, with what makes every function start with `push` and keeps its calls real calls.
fn compiler() -> Result<Command> {
    let mut command = cc::Build::new().cargo_metadata(false).opt_level(1).try_get_compiler()?.to_command();
    command.args(["-std=gnu17", "-O1", "-g1", "-fPIC", "-pthread", "-fvisibility=hidden"]);
    command.args([
        "-Wall",
        "-Wextra",
        "-Wno-unused-parameter",
        "-Wno-unused-variable",
        "-Wno-implicit-fallthrough",
    ]);
    command.args(["-fno-omit-frame-pointer", "-fno-shrink-wrap", "-fno-inline-functions-called-once"]);
    if env::var("CARGO_CFG_TARGET_ARCH").is_ok_and(|arch| arch == "x86_64") {
        command.arg("-fcf-protection=none");
    }
    Ok(command)
}

fn run(command: &mut Command) -> Result<()> {
    let output = command.output()?;
    if !output.status.success() {
        return Err(format!("{command:?} failed:\n{}", String::from_utf8_lossy(&output.stderr)).into());
    }
    Ok(())
}

/// The C files of these files and folders of `c/`.
fn c_files(sources: &[&str]) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for source in sources {
        let path = Path::new("c").join(source);
        match path.is_file() {
            true => files.push(path),
            false => files.extend(c_files_of(&path)?),
        }
    }
    Ok(files)
}

/// The C files of one folder, in the order of their names.
fn c_files_of(folder: &Path) -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir(folder)?.collect::<std::io::Result<Vec<_>>>()?;
    let mut files: Vec<_> = entries.into_iter().map(|entry| entry.path()).collect();
    files.retain(|file| file.extension().is_some_and(|extension| extension == "c"));
    files.sort();
    Ok(files)
}

/// A weak function per name of the real library; what `c/` implements overrides it when linked.
fn unsupported(names: &[&str], code: i32) -> Result<String> {
    let mut text = String::from("#include \"log/log.h\"\n");
    for name in names {
        writeln!(
            text,
            "EXPORT __attribute__((weak)) int {name}(void) {{ COUNT(\"unsupported:{name}\"); return {code}; }}"
        )?;
    }
    Ok(text)
}

/// The table behind cuGetProcAddress, sorted as `strcmp` sorts.
fn entry_table(lines: &[(&str, &str)]) -> Result<String> {
    let mut text = String::from("#include \"driver/entry.h\"\n");
    for (name, _) in lines {
        writeln!(text, "extern void {name}(void);")?;
    }
    text.push_str("const struct entry driver_entries[] = {\n");
    for (name, version) in lines {
        writeln!(text, "    {{\"{name}\", (void (*)(void)){name}, {version}}},")?;
    }
    text.push_str("};\nconst size_t driver_entry_count = sizeof driver_entries / sizeof *driver_entries;\n");
    Ok(text)
}

fn version_script(library: &Library) -> String {
    let node = if library.version { library.name } else { "" };
    format!("{node} {{ global: cu*; __cuda*; nccl*; nvml*; simgpu_*; local: *; }};\n")
}

fn build_library(library: &Library, out: &Path) -> Result<()> {
    let work = out.join("work").join(library.name);
    fs::create_dir_all(&work)?;
    let listed = fs::read_to_string(Path::new("names").join(library.names))?;
    let mut lines: Vec<(&str, &str)> = listed
        .lines()
        .map(|line| line.split_once(' ').unwrap_or((line, "0")))
        .filter(|(n, _)| !n.is_empty())
        .collect();
    lines.sort_unstable();
    let names: Vec<&str> = lines.iter().map(|(name, _)| *name).collect();
    fs::write(work.join("unsupported.c"), unsupported(&names, library.unsupported)?)?;
    let mut sources = c_files(library.sources)?;
    sources.push(work.join("unsupported.c"));
    if library.name == "libcuda.so.1" {
        fs::write(work.join("entries.c"), entry_table(&lines)?)?;
        sources.push(work.join("entries.c"));
    }
    fs::write(work.join("exports.map"), version_script(library))?;
    let objects = sources.iter().map(|source| compile(library, source, &work)).collect::<Result<Vec<_>>>()?;
    let built = work.join(library.name);
    let mut link = compiler()?;
    link.args(["-shared", "-Wl,-Bsymbolic"]).arg(format!("-Wl,-soname,{}", library.name));
    link.arg(format!("-Wl,--version-script={}", work.join("exports.map").display()));
    run(link.args(objects).arg("-o").arg(&built).args(["-ldl", "-lpthread"]))?;
    install(library, &built, out)
}

fn compile(library: &Library, source: &Path, work: &Path) -> Result<PathBuf> {
    let stem = source.file_stem().ok_or("a source without a name")?;
    let object = work.join(stem).with_extension("o");
    let mut command = compiler()?;
    let tail = source.file_name().is_some_and(|name| name == TAIL_CALLS);
    command.arg(if tail { "-foptimize-sibling-calls" } else { "-fno-optimize-sibling-calls" });
    command
        .arg(format!("-DSIMGPU_CUDA={}", library.cuda))
        .arg("-Ic")
        .arg("-c")
        .arg(source)
        .arg("-o")
        .arg(&object);
    run(&mut command)?;
    Ok(object)
}

/// A library without a CUDA version in its name serves both folders.
fn install(library: &Library, built: &Path, out: &Path) -> Result<()> {
    for (folder, suffix) in [("cuda12", ".12"), ("cuda13", ".13")] {
        let versioned = library.name.ends_with(".12") || library.name.ends_with(".13");
        if !versioned || library.name.ends_with(suffix) {
            // A rename, so that a process that maps the old file keeps it whole.
            let staged = out.join(folder).join(format!(".{}", library.name));
            fs::copy(built, &staged)?;
            fs::rename(&staged, out.join(folder).join(library.name))?;
        }
    }
    Ok(())
}

/// A file is a program, and so is a folder of files.
fn build_programs(out: &Path) -> Result<()> {
    for source in fs::read_dir("../programs")? {
        let source = source?.path();
        let sources = match source.is_dir() {
            true => c_files_of(&source)?,
            false if source.extension().is_some_and(|extension| extension == "c") => vec![source.clone()],
            false => continue,
        };
        let stem = source.file_stem().ok_or("a program without a name")?;
        let mut command = compiler()?;
        // Exported symbols give its kernel stubs names that dladdr finds.
        command.args(["-fPIE", "-pie", "-rdynamic"]).args(sources);
        run(command.arg("-o").arg(out.join("programs").join(stem)).args(["-ldl", "-lpthread"]))?;
    }
    Ok(())
}
