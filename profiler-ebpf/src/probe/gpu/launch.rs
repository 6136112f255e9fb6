//! Kernel launches: four layouts of arguments → one record.

use profiler_common::{
    cookie::{Cookie, shape},
    event::{Launch, kind},
};

use crate::{
    arch::{Frame, LaunchTail},
    emit::{Tally, Task},
    memory::{Plain, read_user},
};

/// Whether the shape is that of a launch.
#[inline(always)]
pub fn is(layout: u8) -> bool {
    (shape::LAUNCH_RUNTIME..=shape::LAUNCH_DRIVER_EX).contains(&layout)
}

/// Which kernel is launched.
#[inline(always)]
pub fn function(layout: u8, frame: &Frame) -> u64 {
    let [first, second, ..] = frame.six();
    match layout {
        shape::LAUNCH_RUNTIME_EX | shape::LAUNCH_DRIVER_EX => second,
        _ => first,
    }
}

/// Sends a launch.
#[inline(always)]
pub fn send(tally: Tally, task: Task, cookie: Cookie, frame: &Frame) {
    match parts(cookie.shape, frame) {
        Some(parts) => tally.send(parts.record(task, cookie.api)),
        None => tally.unreadable(),
    }
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
fn parts(layout: u8, frame: &Frame) -> Option<Parts> {
    match layout {
        shape::LAUNCH_RUNTIME => frame.runtime_launch_tail().map(|tail| runtime(frame, &tail)),
        shape::LAUNCH_DRIVER => frame.driver_launch_tail().map(|tail| driver(frame, &tail)),
        shape::LAUNCH_RUNTIME_EX => configured(frame, u64::MAX),
        shape::LAUNCH_DRIVER_EX => configured(frame, u64::from(u32::MAX)),
        _ => None,
    }
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
