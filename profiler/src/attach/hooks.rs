//! The hooks that are no probes: system calls on sockets, what becomes of processes, and hints for discovery.
//!
//! In: the object. Out: links, which stand only as long as somebody wants them: as soon as anybody listens to the exit of
//! system calls, every process of the machine pays for it, while the hints stand where next to nothing happens.

use super::kernel::{KernelError, program};
use aya::programs::{BtfTracePoint, ProgramError, RawTracePoint, TracePoint};
use aya::{Btf, Ebpf};
use std::any::Any;

/// The socket hook on kernels with BTF, and the other.
const BTF: (&str, &str) = ("socket_exit", "tp_btf/sys_exit");
const RAW: (&str, &str) = ("socket_exit_raw", "raw_tp/sys_exit");
const SYS_EXIT: &str = "sys_exit";

/// Programs of the process hooks, and the category and name of their tracepoints.
const PROCESS_HOOKS: [(&str, &str, &str); 3] = [
    ("process_fork", "task", "task_newtask"),
    ("process_exec", "sched", "sched_process_exec"),
    ("process_exit", "sched", "sched_process_exit"),
];

/// Programs of the hints, and their raw tracepoints.
const HINTS: [(&str, &str); 2] =
    [("hint_exec", "sched_process_exec"), ("hint_listen", "inet_sock_set_state")];

/// Dropping it takes the hook out.
type Held = Box<dyn Any + Send>;

/// Links of the hooks.
pub struct Hooks {
    socket: (&'static str, &'static str),
    watching: Vec<Held>,
    hinting: Vec<Held>,
}

impl Hooks {
    /// Loads the programs of the socket and process hooks, and attaches none.
    pub fn load(ebpf: &mut Ebpf, raw_only: bool) -> Result<Self, KernelError> {
        let btf = if raw_only { Err(None) } else { load_btf(ebpf).map_err(Some) };
        let socket = match btf {
            Ok(()) => BTF,
            Err(why) => {
                if let Some(error) = why {
                    tracing::info!(error = %format_args!("{error:#}"), "using the raw tracepoint for sockets");
                }
                let program: &mut RawTracePoint = program(ebpf, RAW.0)?;
                program.load().map_err(at(RAW.0))?;
                RAW
            }
        };
        for (name, _, tracepoint) in PROCESS_HOOKS {
            let program: &mut TracePoint = program(ebpf, name)?;
            program.load().map_err(at(tracepoint))?;
        }
        Ok(Self { socket, watching: Vec::new(), hinting: Vec::new() })
    }

    /// Name of the socket hook.
    #[must_use]
    pub fn socket(&self) -> &'static str {
        self.socket.1
    }

    /// Whether the socket and process hooks stand.
    #[must_use]
    pub fn are_watching(&self) -> bool {
        !self.watching.is_empty()
    }

    /// Puts the socket and process hooks in place, all of them or none. Who is inside a system call is seen when it ends.
    pub fn watch(&mut self, ebpf: &mut Ebpf) -> Result<(), KernelError> {
        if self.are_watching() {
            return Ok(());
        }
        let mut links = vec![self.attach_socket(ebpf)?];
        for (name, category, tracepoint) in PROCESS_HOOKS {
            let program: &mut TracePoint = program(ebpf, name)?;
            let id = program.attach(category, tracepoint).map_err(at(tracepoint))?;
            links.push(Box::new(program.take_link(id).map_err(at(tracepoint))?));
        }
        self.watching = links;
        Ok(())
    }

    fn attach_socket(&self, ebpf: &mut Ebpf) -> Result<Held, KernelError> {
        if self.socket == BTF {
            let program: &mut BtfTracePoint = program(ebpf, BTF.0)?;
            let id = program.attach().map_err(at(BTF.0))?;
            return Ok(Box::new(program.take_link(id).map_err(at(BTF.0))?));
        }
        attach_raw(ebpf, RAW.0, SYS_EXIT)
    }

    /// Takes the socket and process hooks out, side by side: each waits until nobody is inside it.
    pub fn ignore(&mut self) {
        take_out(std::mem::take(&mut self.watching));
    }

    /// Puts the hints in place.
    pub fn hint(&mut self, ebpf: &mut Ebpf) -> Result<(), KernelError> {
        if !self.hinting.is_empty() {
            return Ok(());
        }
        let mut links = Vec::new();
        for (name, tracepoint) in HINTS {
            let hook: &mut RawTracePoint = program(ebpf, name)?;
            if hook.fd().is_err() {
                hook.load().map_err(at(name))?;
            }
            links.push(attach_raw(ebpf, name, tracepoint)?);
        }
        self.hinting = links;
        Ok(())
    }

    /// Takes the hints out.
    pub fn hush(&mut self) {
        take_out(std::mem::take(&mut self.hinting));
    }
}

fn at(hook: &'static str) -> impl Fn(ProgramError) -> KernelError {
    move |source| KernelError::Hook { hook, source: Box::new(source) }
}

fn load_btf(ebpf: &mut Ebpf) -> anyhow::Result<()> {
    let btf = Btf::from_sys_fs()?;
    let program: &mut BtfTracePoint = program(ebpf, BTF.0)?;
    Ok(program.load(SYS_EXIT, &btf)?)
}

fn attach_raw(ebpf: &mut Ebpf, name: &'static str, tracepoint: &str) -> Result<Held, KernelError> {
    let program: &mut RawTracePoint = program(ebpf, name)?;
    let id = program.attach(tracepoint).map_err(at(name))?;
    Ok(Box::new(program.take_link(id).map_err(at(name))?))
}

fn take_out(links: Vec<Held>) {
    std::thread::scope(|scope| {
        for link in links {
            scope.spawn(move || drop(link));
        }
    });
}
