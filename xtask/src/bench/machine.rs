//! Where the figures are from: kernel, processor, virtual or not, how busy.

use std::fs::read_to_string;

/// One paragraph about this machine.
pub fn facts() -> String {
    let processors = read_to_string("/proc/cpuinfo").unwrap_or_default();
    let field = |name: &str| {
        let line = processors.lines().find(|line| line.starts_with(name))?;
        line.split_once(':').map(|(_, value)| value.trim().to_owned())
    };
    let model = field("model name").unwrap_or_else(|| "an unnamed processor".to_owned());
    let count = processors.lines().filter(|line| line.starts_with("processor")).count();
    let flags = field("flags").unwrap_or_default();
    // The processor tells of a hypervisor below, not of how many.
    let kind = match flags.split(' ').any(|flag| flag == "hypervisor") {
        true => "a virtual machine (nested or not, it cannot tell)",
        false => "bare metal",
    };
    let kernel = read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    format!("Linux {}, {count} × {model}, {kind}; {}\n", kernel.trim(), load())
}

/// How busy the machine is.
pub fn load() -> String {
    let text = read_to_string("/proc/loadavg").unwrap_or_default();
    let minute = text.split(' ').next().unwrap_or("?");
    format!("load over the last minute: {minute}")
}
