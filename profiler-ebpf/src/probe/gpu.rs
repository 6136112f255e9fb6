//! Calls into GPU libraries: one program at entry, one at return, for every API there is.
//!
//! The cookie of the probe says how the arguments lie. A call becomes one record, at entry or, when it is
//! paired, at return. The links are scoped to the targets' processes, so there is no filter here.

use aya_ebpf::{
    EbpfContext as _,
    helpers::generated::bpf_get_attach_cookie,
    macros::{uprobe, uretprobe},
    programs::{ProbeContext, RetProbeContext},
};
use profiler_common::{
    cookie::{Cookie, shape},
    counter::family,
    event::{Call, CallDone, Launch, kind},
};

use crate::{
    arch::{self, Frame, LaunchTail},
    emit::{Tally, Task, now},
    map::{IN_FLIGHT, InFlight, InFlightKey, is_target},
    memory::{Plain, read_user},
};

/// Entry of a call.
#[uprobe]
pub fn gpu_enter(ctx: ProbeContext) -> u32 {
    let Some(tally) = Tally::of(family::GPU) else { return 0 };
    // SAFETY: the context is the one this program was given.
    let cookie = Cookie::unpack(unsafe { bpf_get_attach_cookie(ctx.as_ptr()) });
    let frame = Frame::at_entry(ctx.as_ptr());
    let task = Task::current();
    if cookie.paired {
        hold(tally, task, cookie, &frame);
        return 0;
    }
    match launch(cookie.shape, &frame) {
        Shape::Launch(launch) => tally.send(launch.record(task, cookie.api)),
        Shape::Call => call(tally, task, cookie, &frame),
        Shape::Unreadable => tally.unreadable(),
    }
    0
}

/// Return of a paired call.
#[uretprobe]
pub fn gpu_leave(ctx: RetProbeContext) -> u32 {
    let Some(tally) = Tally::of(family::GPU) else { return 0 };
    // SAFETY: the context is the one this program was given.
    let cookie = Cookie::unpack(unsafe { bpf_get_attach_cookie(ctx.as_ptr()) });
    let task = Task::current();
    let key = key(task, cookie);
    let Some(held) = IN_FLIGHT.get_ptr(key) else {
        // The mark goes first when the probes are taken out. From then on entries may be gone where returns are
        // not yet, and such calls are no loss: nobody observes the process any more.
        if is_target(task.tgid) {
            tally.map_full();
        }
        return 0;
    };
    // SAFETY: the entry belongs to this thread, which is here and nowhere else.
    let InFlight { entered_ns, args, out } = unsafe { *held };
    // An entry that is gone already is no loss: it has been read.
    let _ = IN_FLIGHT.remove(key);
    let head = task.head(kind::CALL_DONE, cookie.api, 0);
    let result = i64::from(arch::result(ctx.as_ptr()) as i32);
    let out = if out == 0 { 0 } else { read_user(out).unwrap_or(0) };
    tally.send(CallDone { head, entered_ns, args, result, out });
    0
}

/// What a hit turned out to be.
enum Shape {
    Launch(Parts),
    Call,
    Unreadable,
}

/// A launch, whichever layout its arguments came in.
struct Parts {
    function: u64,
    grid: [u32; 3],
    block: [u32; 3],
    shared_bytes: u64,
    stream: u64,
    caller: u64,
}

impl Parts {
    #[inline(always)]
    fn record(&self, task: Task, api: u16) -> Launch {
        let [grid_x, grid_y, grid_z] = self.grid;
        let [block_x, block_y, block_z] = self.block.map(narrow);
        Launch {
            head: task.head(kind::LAUNCH, api, block_z),
            function: self.function,
            stream: self.stream,
            caller: self.caller,
            grid_x,
            grid_y: narrow(grid_y),
            grid_z: narrow(grid_z),
            block_x,
            block_y,
            shared_bytes: self.shared_bytes.min(u64::from(u32::MAX)) as u32,
        }
    }
}

#[inline(always)]
fn narrow(size: u32) -> u16 {
    size.min(u32::from(u16::MAX)) as u16
}

#[inline(always)]
fn launch(layout: u8, frame: &Frame) -> Shape {
    let parts = match layout {
        shape::LAUNCH_RUNTIME => frame.runtime_launch_tail().map(|tail| runtime(frame, &tail)),
        shape::LAUNCH_DRIVER => frame.driver_launch_tail().map(|tail| driver(frame, &tail)),
        shape::LAUNCH_RUNTIME_EX => configured(frame, u64::MAX),
        shape::LAUNCH_DRIVER_EX => configured(frame, u64::from(u32::MAX)),
        _ => return Shape::Call,
    };
    parts.map_or(Shape::Unreadable, Shape::Launch)
}

/// `cudaLaunchKernel(func, dim3 grid, dim3 block, args, shared, stream)`: a `dim3` travels as x | y << 32, then z.
#[inline(always)]
fn runtime(frame: &Frame, tail: &LaunchTail) -> Parts {
    let [function, grid_xy, grid_z, block_xy, block_z, ..] = frame.args;
    Parts {
        function,
        grid: [grid_xy as u32, (grid_xy >> 32) as u32, grid_z as u32],
        block: [block_xy as u32, (block_xy >> 32) as u32, block_z as u32],
        shared_bytes: tail.shared_bytes,
        stream: tail.stream,
        caller: tail.caller,
    }
}

/// `cuLaunchKernel(f, gx, gy, gz, bx, by, bz, shared, stream, params, extra)`.
#[inline(always)]
fn driver(frame: &Frame, tail: &LaunchTail) -> Parts {
    let [function, grid_x, grid_y, grid_z, block_x, block_y, ..] = frame.args;
    Parts {
        function,
        grid: [grid_x as u32, grid_y as u32, grid_z as u32],
        block: [block_x as u32, block_y as u32, tail.block_z],
        shared_bytes: tail.shared_bytes,
        stream: tail.stream,
        caller: tail.caller,
    }
}

/// Start of `cudaLaunchConfig_t` (driver_types.h) and `CUlaunchConfig` (cuda.h), which differ only in the width
/// of the shared memory's size: 64 bits there, 32 bits and padding here.
#[repr(C)]
#[derive(Clone, Copy)]
struct LaunchConfig {
    grid: [u32; 3],
    block: [u32; 3],
    shared_bytes: u64,
    stream: u64,
}

// SAFETY: only integers.
unsafe impl Plain for LaunchConfig {}

/// `cudaLaunchKernelExC(config, func, args)` and `cuLaunchKernelEx(config, f, params, extra)`.
#[inline(always)]
fn configured(frame: &Frame, shared_mask: u64) -> Option<Parts> {
    let [config, function, ..] = frame.args;
    let caller = frame.caller()?;
    let config: LaunchConfig = read_user(config)?;
    Some(Parts {
        function,
        grid: config.grid,
        block: config.block,
        shared_bytes: config.shared_bytes & shared_mask,
        stream: config.stream,
        caller,
    })
}

#[inline(always)]
fn call(tally: Tally, task: Task, cookie: Cookie, frame: &Frame) {
    match arguments(cookie, frame) {
        Some(args) => tally.send(Call { head: task.head(kind::CALL, cookie.api, 0), args }),
        None => tally.unreadable(),
    }
}

/// Keeps a paired call until its return; without room for it, reports it at once and counts its return as lost.
#[inline(always)]
fn hold(tally: Tally, task: Task, cookie: Cookie, frame: &Frame) {
    let Some(args) = arguments(cookie, frame) else { return tally.unreadable() };
    let held = InFlight { entered_ns: now(), args, out: address_of_result(cookie.out, &args) };
    if IN_FLIGHT.insert(key(task, cookie), held, 0).is_err() {
        tally.map_full();
        tally.send(Call { head: task.head(kind::CALL, cookie.api, 0), args });
    }
}

#[inline(always)]
fn arguments(cookie: Cookie, frame: &Frame) -> Option<[u64; 5]> {
    let [a, b, c, d, e, ..] = frame.args;
    let fifth = if cookie.shape == shape::CALL_WITH_CALLER { frame.caller()? } else { e };
    Some([a, b, c, d, fifth])
}

#[inline(always)]
fn key(task: Task, cookie: Cookie) -> InFlightKey {
    InFlightKey { pid_tgid: u64::from(task.tgid) << 32 | u64::from(task.tid), api: u64::from(cookie.api) }
}

/// The argument that the cookie names, or 0 when it names none. Spelt out, because the verifier loses track of an
/// index into an array.
#[inline(always)]
fn address_of_result(out: u8, [a, b, c, d, e]: &[u64; 5]) -> u64 {
    match out {
        0 => *a,
        1 => *b,
        2 => *c,
        3 => *d,
        4 => *e,
        _ => 0,
    }
}
