//! Says what a file's code and symbols tell of its kernels, and what that took: `kernels FILE [--list]`.
//!
//! Out: figures as one line of JSON, and with `--list` before it one line a kernel: host function, evidence, short and mangled name.
#![expect(clippy::print_stdout, reason = "printing is what it is for")]

use anyhow::{Context as _, Result, bail};
use profiler::symbol::image::Image;
use profiler::symbol::table::{self, Table};
use profiler::symbol::{cache::Cache, registration, short, vendor};
use std::path::Path;
use std::time::Instant;

fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let path = arguments.next().context("usage: kernels FILE [--list]")?;
    let lists = arguments.next().as_deref() == Some("--list");
    let path = Path::new(&path);
    let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let Ok(image) = Image::open(path) else { bail!("{} is no readable ELF file", path.display()) };
    let started = Instant::now();
    let table = Table::of(&image, vendor::is_nvidias(&image, &name));
    let cold = started.elapsed();
    let counts = registration::read(&image).counts;
    let folder = std::env::temp_dir().join(format!("gpuspan-kernels-{}", std::process::id()));
    let (cache, identity) = (Cache::at(&folder), table::identity(&image));
    cache.save(b"kept", &identity, &table);
    let started = Instant::now();
    let kept = cache.load(b"kept", &table::identity(&image));
    let warm = started.elapsed();
    std::fs::remove_dir_all(&folder).ok();
    if lists {
        for (host, symbol, evidence) in table.kernels() {
            println!("{host:#x} {} {} {symbol}", evidence.name(), short(symbol));
        }
    }
    let figures = serde_json::json!({
        "file": name,
        "kernels": table.kernels().count(),
        "handles": table.variables().count(),
        "counts": format!("{counts:?}"),
        "cold_s": cold.as_secs_f64(),
        "warm_ms": warm.as_secs_f64() * 1e3,
        "equal": kept.as_ref() == Some(&table),
        "rss_kb": resident("VmRSS:"),
        "max_rss_kb": resident("VmHWM:"),
    });
    println!("{figures}");
    Ok(())
}

/// Resident size, KiB.
fn resident(what: &str) -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix(what))?;
    line.trim().trim_end_matches(" kB").parse().ok()
}
