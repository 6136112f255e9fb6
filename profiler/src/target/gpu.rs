//! Which GPUs a process has open, without asking the driver's library: its descriptors of `/dev/nvidiaN`, and what the
//! kernel module says of each in `/proc/driver/nvidia`.

/// A GPU.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Gpu {
    /// Number of its device file.
    pub minor: u32,
    /// UUID, such as `GPU-2d4f…`.
    pub uuid: String,
    /// Model, such as `NVIDIA H100 80GB HBM3`.
    pub model: String,
}

/// The GPUs that a process has open, in the order of their device files.
#[must_use]
pub fn gpus(pid: u32) -> Vec<Gpu> {
    let minors = open_gpus(pid);
    if minors.is_empty() {
        return Vec::new();
    }
    let folders = std::fs::read_dir("/proc/driver/nvidia/gpus").into_iter().flatten().flatten();
    let texts = folders.filter_map(|folder| std::fs::read_to_string(folder.path().join("information")).ok());
    let mut gpus: Vec<_> = texts.filter_map(|text| parse(&text)).collect();
    gpus.retain(|gpu| minors.contains(&gpu.minor));
    gpus.sort_by_key(|gpu| gpu.minor);
    gpus
}

/// Numbers of the GPUs' device files that a process has open, in their order.
#[must_use]
pub fn open_gpus(pid: u32) -> Vec<u32> {
    let descriptors = std::fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
    let links = descriptors.filter_map(|entry| std::fs::read_link(entry.path()).ok());
    let minor = |link: std::path::PathBuf| link.to_str()?.strip_prefix("/dev/nvidia")?.parse::<u32>().ok();
    let mut minors: Vec<_> = links.filter_map(minor).collect();
    minors.sort_unstable();
    minors.dedup();
    minors
}

/// `Key: \t value` lines, as the NVIDIA kernel module writes them (580).
fn parse(information: &str) -> Option<Gpu> {
    let field = |name: &str| {
        let line =
            information.lines().find_map(|line| line.strip_prefix(name)?.trim_start().strip_prefix(':'));
        line.map(|value| value.trim().to_owned())
    };
    let uuid = field("GPU UUID").filter(|uuid| !uuid.contains('?'))?;
    Some(Gpu { minor: field("Device Minor")?.parse().ok()?, uuid, model: field("Model").unwrap_or_default() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_kernel_module_says() {
        let text = "Model: \t\t NVIDIA H100 80GB HBM3\nIRQ:   \t\t 90\nGPU UUID: \t GPU-2d4f02f1-1f02\nDevice Minor: \t 3\n";
        let model = "NVIDIA H100 80GB HBM3".to_owned();
        assert_eq!(parse(text), Some(Gpu { minor: 3, uuid: "GPU-2d4f02f1-1f02".to_owned(), model }));
        // Before its first use a GPU's UUID is not known.
        assert_eq!(parse(&text.replace("2d4f", "????")), None);
        assert_eq!(parse(""), None);
    }
}
