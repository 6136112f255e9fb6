//! What a process uses: `/proc/PID/{stat,fd}`, `/proc/uptime`.

/// What a process uses, as procfs says it. Times are seconds, sizes bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct ProcessUse {
    /// CPU time in user space since its start.
    pub user_s: f64,
    /// CPU time in the kernel since its start.
    pub system_s: f64,
    /// Memory that is in RAM.
    pub resident_bytes: u64,
    /// Address space.
    pub virtual_bytes: u64,
    /// Threads.
    pub threads: u64,
    /// Open descriptors; none where they may not be counted.
    pub descriptors: Option<u64>,
    /// Since its start.
    pub uptime_s: f64,
}

/// What a process uses now; none when it is gone.
#[must_use]
pub fn usage(pid: u32) -> Option<ProcessUse> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let uptime = std::fs::read_to_string("/proc/uptime").ok()?;
    let uptime_s: f64 = uptime.split(' ').next()?.parse().ok()?;
    // A running count in the directory's size, since Linux 6.2; before, each has to be listed.
    let descriptors = std::fs::metadata(format!("/proc/{pid}/fd")).ok().map(|fd| fd.len());
    let descriptors = descriptors
        .filter(|count| *count > 0)
        .or_else(|| Some(std::fs::read_dir(format!("/proc/{pid}/fd")).ok()?.count() as u64));
    // SAFETY: sysconf has no preconditions.
    let page = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    Some(ProcessUse { descriptors, ..parse(&stat, uptime_s, u64::try_from(page).unwrap_or(4096))? })
}

/// Fields of `proc_pid_stat(5)`, counted behind the name, which may have anything in it. Times are in USER_HZ, which is
/// 100 on every architecture that Linux still runs CUDA on.
fn parse(stat: &str, machine_uptime_s: f64, page: u64) -> Option<ProcessUse> {
    let (_, rest) = stat.rsplit_once(')')?;
    let fields: Vec<u64> = rest.split_whitespace().skip(1).map(|field| field.parse().unwrap_or(0)).collect();
    // The first of `fields` is field 4, the parent's pid.
    let field = |number: usize| fields.get(number - 4).copied();
    let seconds = |ticks: u64| ticks as f64 / 100.0;
    Some(ProcessUse {
        user_s: seconds(field(14)?),
        system_s: seconds(field(15)?),
        threads: field(20)?,
        uptime_s: (machine_uptime_s - seconds(field(22)?)).max(0.0),
        virtual_bytes: field(23)?,
        resident_bytes: field(24)? * page,
        descriptors: None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_counted_behind_the_name() {
        let stat = "77 (a ) 1 2 S) S 1 77 77 0 -1 4194304 9 0 0 0 250 150 0 0 20 0 6 0 1000 4096000 30 18446744073709551615 1";
        let of = parse(stat, 25.0, 4096).unwrap();
        let expected = ProcessUse {
            user_s: 2.5,
            system_s: 1.5,
            resident_bytes: 122_880,
            virtual_bytes: 4_096_000,
            threads: 6,
            descriptors: None,
            uptime_s: 15.0,
        };
        assert_eq!(of, expected);
        assert_eq!(parse("77 (cut", 1.0, 4096), None);
    }

    #[test]
    fn this_process_is_there() {
        let of = usage(std::process::id()).unwrap();
        assert!(
            of.resident_bytes > 1 << 20 && of.virtual_bytes >= of.resident_bytes && of.threads >= 1,
            "{of:?}"
        );
        let listed = std::fs::read_dir("/proc/self/fd").unwrap().count() as u64;
        assert!(of.descriptors.unwrap().abs_diff(listed) < 20 && of.uptime_s > 0.0, "{of:?}");
        assert_eq!(usage(u32::MAX), None);
    }
}
