//! What the agent may do, reduced to what it needs. In: this thread's capabilities. Out: fewer of them, for it and for every
//! thread that it starts later.

use caps::{CapSet, Capability, CapsHashSet};

/// What attaching to processes takes (docs/privileges.md): programs and maps; probes and kernel memory; other processes'
/// mappings, environment and files; files that their owner alone may read.
const NEEDED: [Capability; 4] = [
    Capability::CAP_BPF,
    Capability::CAP_PERFMON,
    Capability::CAP_SYS_PTRACE,
    Capability::CAP_DAC_READ_SEARCH,
];

/// Gives up all capabilities but those that are needed, for good. What could not be given up is only logged: whoever started
/// the program has granted it.
pub fn reduce() {
    if let Err(error) = give_up() {
        tracing::warn!(error = %crate::chain(&error), "more capabilities are kept than are needed");
    }
}

fn give_up() -> Result<(), caps::errors::CapsError> {
    let has = caps::read(None, CapSet::Permitted)?;
    if !NEEDED.iter().all(|needed| has.contains(needed)) {
        // Before Linux 5.8 CAP_SYS_ADMIN stands for two of them. With fewer the kernel side says what it lacks.
        tracing::info!(?has, "capabilities are kept as they are");
        return Ok(());
    }
    let keep: CapsHashSet = NEEDED.into_iter().collect();
    // What has been given up is no longer there to change the bounding set with, which CAP_SETPCAP allows.
    for capability in caps::read(None, CapSet::Bounding)?.difference(&keep) {
        if has.contains(&Capability::CAP_SETPCAP) {
            caps::drop(None, CapSet::Bounding, *capability)?;
        }
    }
    caps::set(None, CapSet::Inheritable, &CapsHashSet::new())?;
    caps::set(None, CapSet::Effective, &keep)?;
    caps::set(None, CapSet::Permitted, &keep)?;
    // SAFETY: prctl has no pointers here. Nothing that is started from here on gains anything back.
    unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) };
    Ok(())
}
