//! The hooks that are no probes: system calls on sockets, and what becomes of processes.

use super::kernel::{KernelError, program};
use aya::programs::{BtfTracePoint, RawTracePoint, TracePoint};
use aya::{Btf, Ebpf};

/// `tp_btf` where the kernel has it, else the raw tracepoint; the name of the one in use.
pub fn attach_sockets(ebpf: &mut Ebpf, raw_only: bool) -> Result<&'static str, KernelError> {
    if !raw_only {
        match attach_socket_btf(ebpf) {
            Ok(()) => return Ok("tp_btf/sys_exit"),
            Err(error) => {
                tracing::info!(error = %format_args!("{error:#}"), "using the raw tracepoint for sockets")
            }
        }
    }
    const HOOK: &str = "socket_exit_raw";
    let hook = |source| KernelError::Hook { hook: HOOK, source: Box::new(source) };
    let program: &mut RawTracePoint = program(ebpf, HOOK)?;
    program.load().map_err(hook)?;
    program.attach("sys_exit").map_err(hook)?;
    Ok("raw_tp/sys_exit")
}

fn attach_socket_btf(ebpf: &mut Ebpf) -> anyhow::Result<()> {
    let btf = Btf::from_sys_fs()?;
    let program: &mut BtfTracePoint = program(ebpf, "socket_exit")?;
    program.load("sys_exit", &btf)?;
    program.attach()?;
    Ok(())
}

/// Programs of the process hooks, and the category and name of their tracepoints.
const PROCESS_HOOKS: [(&str, &str, &str); 3] = [
    ("process_fork", "task", "task_newtask"),
    ("process_exec", "sched", "sched_process_exec"),
    ("process_exit", "sched", "sched_process_exit"),
];

pub fn attach_processes(ebpf: &mut Ebpf) -> Result<(), KernelError> {
    for (name, category, tracepoint) in PROCESS_HOOKS {
        let error = |source| KernelError::Hook { hook: tracepoint, source: Box::new(source) };
        let program: &mut TracePoint = program(ebpf, name)?;
        program.load().map_err(error)?;
        program.attach(category, tracepoint).map_err(error)?;
    }
    Ok(())
}
