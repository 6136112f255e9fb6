//! The machine's half of the check: kernel, privileges, what hooks and links there are, what a probe costs.

use super::{Grade, Section};
use crate::attach;

/// Looks at the machine.
pub fn section() -> Section {
    let mut section = Section::new("machine");
    kernel(&mut section);
    privileges(&mut section);
    match attach::multi_support() {
        Ok(()) => {
            section.add(Grade::Ok, "uprobe links", "multi: all probes of a library detach in milliseconds")
        }
        Err(why) => section.add(
            Grade::Note,
            "uprobe links",
            format!("perf: about 0.1 s a probe to detach ({})", crate::chain(&why)),
        ),
    }
    if std::path::Path::new("/sys/kernel/btf/vmlinux").exists() {
        section.add(
            Grade::Ok,
            "system call hook",
            "tp_btf/sys_exit, the cheapest for processes not observed",
        );
    } else {
        section.add(
            Grade::Note,
            "system call hook",
            "raw tracepoint: the kernel has no BTF (CONFIG_DEBUG_INFO_BTF)",
        );
    }
    if std::path::Path::new("/sys/kernel/tracing/events/task/task_newtask").exists() {
        section.add(Grade::Ok, "process hooks", "tracepoints of tasks");
    } else {
        section.add(
            Grade::Fail,
            "process hooks",
            "tracefs is missing: mount -t tracefs none /sys/kernel/tracing",
        );
    }
    price(&mut section);
    section
}

fn price(section: &mut Section) {
    match attach::measure_price() {
        Ok(price) => {
            let single_stepped = price.single_stepped_ns.map_or_else(
                || "where it would single-step none is placed".to_owned(),
                |ns| format!("about {ns:.0} ns where it single-steps"),
            );
            let emulated = price.emulated_ns;
            let detail =
                format!("about {emulated:.0} ns a call here where the kernel emulates, {single_stepped}");
            section.add(Grade::Ok, "cost of a probe", detail);
            section.probe_cost = Some(price);
        }
        Err(why) => {
            section.add(Grade::Note, "cost of a probe", format!("not measured: {}", crate::chain(&why)));
        }
    }
}

/// The oldest kernel that is aimed at: ring buffer (5.8), attach cookies (5.15).
const OLDEST: (u32, u32) = (5, 15);

fn kernel(section: &mut Section) {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let release = release.trim();
    let mut numbers = release.split(['.', '-']).map_while(|part| part.parse::<u32>().ok());
    let version = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    if version >= OLDEST {
        section.add(Grade::Ok, "kernel", release);
    } else {
        section.add(
            Grade::Fail,
            "kernel",
            format!("{release}: Linux 5.15 or later is needed (attach cookies)"),
        );
    }
}

/// Capabilities by number (linux/capability.h), what each is for, and whether there is no way without it.
const CAPABILITIES: [(u32, &str, &str, Grade); 5] = [
    (39, "CAP_BPF", "to load programs", Grade::Fail),
    (38, "CAP_PERFMON", "to attach them", Grade::Fail),
    (19, "CAP_SYS_PTRACE", "to read other users' processes", Grade::Note),
    (2, "CAP_DAC_READ_SEARCH", "to read their libraries", Grade::Note),
    (21, "CAP_SYS_ADMIN", "to open deleted libraries and those of other mount namespaces", Grade::Note),
];

fn privileges(section: &mut Section) {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let effective = status
        .lines()
        .find_map(|line| u64::from_str_radix(line.strip_prefix("CapEff:")?.trim(), 16).ok())
        .unwrap_or(0);
    let lacking: Vec<_> = CAPABILITIES.iter().filter(|(bit, ..)| effective >> bit & 1 == 0).collect();
    if lacking.is_empty() {
        section.add(Grade::Ok, "privileges", "all capabilities that are of use");
    }
    for (_, name, purpose, grade) in lacking {
        section.add(*grade, "privileges", format!("{name} is missing, {purpose}: run as root or grant it"));
    }
}
