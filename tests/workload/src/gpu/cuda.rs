//! The CUDA device: one stream; per step three copies in, a forward pass, one copy out, one synchronisation. Where the
//! engine schedules ahead, a second stream takes the copies out, and events are waited for; where it splits its batches,
//! another one has half of each.

use std::collections::BTreeMap;
use std::ffi::{CStr, c_void};
use std::ptr;
use std::sync::Arc;

use anyhow::{Context, Result};

use super::api::{self, Cuda, Dim3, Driver, Handle};
use super::buffer::{Buffer, allocate, call};
use super::kernel::{self, Kernel, Registration};
use super::output::Outputs;
use super::side::Side;
use super::timer::Timer;
use super::{Device, StepWork, graph, image};
use crate::options::{Graphs, Runtime, ServerOptions};
use crate::truth::DeviceTotals;

/// Of the order of a small model's keys and values; it only makes the allocation show.
const KV_BYTES_PER_TOKEN: usize = 256;
/// Activations of one token.
const WORKSPACE_BYTES_PER_TOKEN: usize = 2048;
const THREADS_PER_BLOCK: u32 = 128;
/// `cudaStreamNonBlocking`: no implicit ordering with the default stream.
const NON_BLOCKING: u32 = 1;

/// Which device, and whether it is the one that brings samples back.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place {
    pub(crate) device: i32,
    pub(crate) samples: bool,
}

pub(crate) struct CudaDevice {
    pub(super) cuda: &'static Cuda,
    place: Place,
    driver: Option<DriverModule>,
    pub(super) stream: Handle,
    /// For half of each batch.
    side: Option<Side>,
    /// Of the kernels.
    registration: Option<Arc<Registration>>,
    kv_cache: *mut c_void,
    token_ids: Buffer,
    positions: Buffer,
    offsets: Buffer,
    sampled: Buffer,
    /// What an engine that schedules ahead has beside it.
    outputs: Option<Outputs>,
    /// Where the engine asks how long its steps take.
    timer: Option<Timer>,
    pub(super) graphs: BTreeMap<usize, graph::Graph>,
    pub(super) options: ServerOptions,
    version: i32,
    /// That drives it.
    thread: u32,
    pub(super) totals: DeviceTotals,
}

/// Kernels that are launched by the driver API.
struct DriverModule {
    driver: Driver,
    module: Handle,
    functions: Vec<(&'static CStr, Handle)>,
}

/// What happens to a launch: it runs now, or it becomes a node of the graph that is being captured.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Mode {
    Run,
    Capture,
}

impl CudaDevice {
    /// Opens the runtime, registers the kernels, allocates, and captures graphs where asked to at start-up.
    pub(crate) fn open(options: &ServerOptions, place: Place) -> Result<Self> {
        let cuda = api::open_runtime(if options.runtime == Runtime::Cuda13 { 13 } else { 12 })?;
        let registration = Some(kernel::registered(cuda));
        let mut totals = DeviceTotals::default();
        let mut version = 0;
        // SAFETY: a valid out-pointer; a device that is not there is an error.
        let (got, set) = unsafe {
            ((cuda.runtime.get_version)(&raw mut version), (cuda.runtime.set_device)(place.device))
        };
        call(&mut totals, "cudaRuntimeGetVersion", got)?;
        call(&mut totals, "cudaSetDevice", set)?;
        let mut stream = ptr::null_mut();
        // SAFETY: a valid out-pointer.
        let status = unsafe { (cuda.runtime.stream_create)(&raw mut stream, NON_BLOCKING) };
        call(&mut totals, "cudaStreamCreateWithFlags", status)?;
        let kv_bytes = options.max_batch * options.max_model_len * KV_BYTES_PER_TOKEN;
        let kv_cache = allocate(cuda, &mut totals, kv_bytes).context("failed to allocate the KV cache")?;
        let tokens = options.max_batch_tokens.max(options.max_batch);
        let mut device = Self {
            cuda,
            place,
            driver: None,
            stream,
            side: (options.streams > 1).then(|| Side::new(cuda, &mut totals)).transpose()?,
            registration,
            kv_cache,
            token_ids: Buffer::new(cuda, &mut totals, tokens * 4)?,
            positions: Buffer::new(cuda, &mut totals, tokens * 8)?,
            offsets: Buffer::new(cuda, &mut totals, (options.max_batch + 1) * 4)?,
            sampled: Buffer::new(cuda, &mut totals, options.max_batch * 4)?,
            outputs: options.asynchronous.then(|| Outputs::new(cuda, &mut totals)).transpose()?,
            timer: options.timed.then(|| Timer::new(cuda, &mut totals)).transpose()?,
            graphs: BTreeMap::new(),
            options: options.clone(),
            version,
            thread: super::thread_id(),
            totals,
        };
        if options.driver_launches {
            device.driver = Some(DriverModule::load(&mut device.totals)?);
        }
        if options.graphs == Graphs::StartUp {
            (1..=options.max_batch).try_for_each(|batch| device.capture(batch))?;
        }
        Ok(device)
    }

    /// Launches every kernel of a forward pass over `tokens` tokens; of two halves in turn, where there is a stream for
    /// the second.
    pub(super) fn forward(&mut self, tokens: usize, mode: Mode) -> Result<()> {
        let streams = [Some(self.stream), self.side.map(|side| side.stream)];
        let halves = streams.iter().flatten().count();
        let grid = Dim3 { x: u32::try_from(tokens.div_ceil(halves).max(1))?, y: 1, z: 1 };
        if let Some(side) = self.side {
            side.fork(self.cuda, &mut self.totals, self.stream)?;
        }
        for kernel in kernel::forward_pass(self.options.layers) {
            streams.iter().flatten().try_for_each(|stream| self.launch(kernel, grid, *stream, mode))?;
        }
        self.side.map_or(Ok(()), |side| side.join(self.cuda, &mut self.totals, self.stream))
    }

    /// How often each kernel runs in a forward pass.
    pub(super) fn halves(&self) -> u64 {
        1 + u64::from(self.side.is_some())
    }

    fn launch(&mut self, kernel: Kernel, grid: Dim3, stream: Handle, mode: Mode) -> Result<()> {
        let twin = kernel.driver_twin.and_then(|twin| self.driver.as_ref()?.function(twin));
        let by_driver = twin.is_some();
        let name = match twin {
            Some((name, function)) => {
                self.launch_by_driver(function, grid, stream)?;
                name
            }
            None => {
                self.launch_by_runtime(kernel, grid, stream)?;
                kernel.name
            }
        };
        match mode {
            Mode::Capture => self.totals.captured += 1,
            Mode::Run => {
                self.totals.launches += 1;
                self.totals.driver_launches += u64::from(by_driver);
                self.count_kernel(name, 1);
            }
        }
        Ok(())
    }

    pub(super) fn count_kernel(&mut self, name: &CStr, executions: u64) {
        *self.totals.kernels.entry(name.to_string_lossy().into_owned()).or_default() += executions;
    }

    /// What `kernel<<<grid, block, 0, stream>>>(…)` compiles to.
    fn launch_by_runtime(&mut self, kernel: Kernel, grid: Dim3, stream: Handle) -> Result<()> {
        let stub = kernel.stub.context("a kernel without host stub cannot be launched by the runtime")?;
        let block = Dim3 { x: THREADS_PER_BLOCK, y: 1, z: 1 };
        // SAFETY: plain values; the stream is alive.
        unsafe { (self.cuda.runtime.push_call_configuration)(grid, block, 0, stream) };
        let status = stub(self.kv_cache, grid.x, self.options.kernel_ns);
        let api = if self.cuda.launch13.is_some() { "__cudaLaunchKernel" } else { "cudaLaunchKernel" };
        call(&mut self.totals, api, status)
    }

    fn launch_by_driver(&mut self, function: Handle, grid: Dim3, stream: Handle) -> Result<()> {
        let Some(module) = &self.driver else { return Ok(()) };
        let (mut buffer, mut count, mut nanoseconds) = (self.kv_cache, grid.x, self.options.kernel_ns);
        let mut args =
            [(&raw mut buffer).cast(), (&raw mut count).cast(), (&raw mut nanoseconds).cast::<c_void>()];
        // SAFETY: the function belongs to the loaded module; `args` holds one pointer per parameter.
        let status = unsafe {
            (module.driver.launch_kernel)(
                function,
                grid.x,
                1,
                1,
                THREADS_PER_BLOCK,
                1,
                1,
                0,
                stream,
                args.as_mut_ptr(),
                ptr::null_mut(),
            )
        };
        call(&mut self.totals, "cuLaunchKernel", status)
    }

    fn copy_inputs(&mut self, work: StepWork) -> Result<()> {
        let (cuda, totals, stream) = (self.cuda, &mut self.totals, self.stream);
        self.token_ids.copy_in(cuda, totals, work.tokens * 4, stream)?;
        self.positions.copy_in(cuda, totals, work.tokens * 8, stream)?;
        self.offsets.copy_in(cuda, totals, (work.sequences + 1) * 4, stream)
    }

    /// A forward pass outside graphs needs a workspace of its own, as PyTorch's allocator would hand out.
    fn forward_eagerly(&mut self, work: StepWork) -> Result<()> {
        let mut workspace = ptr::null_mut();
        let bytes = work.tokens * WORKSPACE_BYTES_PER_TOKEN;
        // SAFETY: a valid out-pointer and a live stream.
        let status = unsafe { (self.cuda.runtime.malloc_async)(&raw mut workspace, bytes, self.stream) };
        call(&mut self.totals, "cudaMallocAsync", status)?;
        self.forward(work.tokens, Mode::Run)?;
        // SAFETY: the workspace was allocated on this stream and is freed once, in stream order.
        let status = unsafe { (self.cuda.runtime.free_async)(workspace, self.stream) };
        call(&mut self.totals, "cudaFreeAsync", status)
    }

    fn synchronize(&mut self) -> Result<()> {
        // SAFETY: a live stream.
        let status = unsafe { (self.cuda.runtime.stream_synchronize)(self.stream) };
        call(&mut self.totals, "cudaStreamSynchronize", status)
    }
}

impl Device for CudaDevice {
    fn submit(&mut self, work: StepWork) -> Result<()> {
        if self.options.all_devices() > 1 {
            // SAFETY: the device was opened.
            let status = unsafe { (self.cuda.runtime.set_device)(self.place.device) };
            call(&mut self.totals, "cudaSetDevice", status)?;
        }
        let replay = work.decode_only && self.options.graphs != Graphs::Off;
        if replay && !self.graphs.contains_key(&work.sequences) {
            self.capture(work.sequences)?;
        }
        if let Some(timer) = &self.timer {
            timer.begin(self.cuda, &mut self.totals, self.stream)?;
        }
        self.copy_inputs(work)?;
        if replay {
            self.replay(work.sequences)?
        } else {
            self.forward_eagerly(work)?
        }
        let (cuda, totals, bytes) = (self.cuda, &mut self.totals, work.outputs * 4);
        let stream = match &mut self.outputs {
            Some(outputs) => outputs.follow(cuda, totals, self.stream)?,
            None => self.stream,
        };
        if bytes > 0 && self.place.samples {
            self.sampled.copy_out(cuda, totals, bytes, stream)?;
        }
        if let Some(timer) = &mut self.timer {
            timer.end(cuda, totals, self.stream)?;
        }
        self.outputs.as_mut().map_or(Ok(()), |outputs| outputs.mark(cuda, totals))
    }

    fn wait(&mut self) -> Result<()> {
        match &mut self.outputs {
            Some(outputs) => outputs.wait(self.cuda, &mut self.totals)?,
            None => self.synchronize()?,
        }
        self.timer.as_mut().map_or(Ok(()), |timer| timer.ask(self.cuda, &mut self.totals))
    }

    fn totals(&self) -> &DeviceTotals {
        &self.totals
    }

    fn runtime_version(&self) -> i32 {
        self.version
    }

    fn threads(&self) -> Vec<u32> {
        vec![self.thread]
    }

    fn close(&mut self) -> Result<()> {
        self.destroy_graphs()?;
        if let Some(outputs) = self.outputs.take() {
            outputs.close(self.cuda, &mut self.totals)?;
        }
        if let Some(timer) = self.timer.take() {
            timer.close(self.cuda, &mut self.totals)?;
        }
        if let Some(side) = self.side.take() {
            side.close(self.cuda, &mut self.totals)?;
        }
        let (cuda, totals) = (self.cuda, &mut self.totals);
        for buffer in [&self.token_ids, &self.positions, &self.offsets, &self.sampled] {
            buffer.free(cuda, totals)?;
        }
        // SAFETY: nothing runs any more; each object is destroyed once.
        let (cache, stream) =
            unsafe { ((cuda.runtime.free)(self.kv_cache), (cuda.runtime.stream_destroy)(self.stream)) };
        call(totals, "cudaFree", cache)?;
        call(totals, "cudaStreamDestroy", stream)?;
        if let Some(module) = &self.driver {
            // SAFETY: the module is loaded and none of its functions runs.
            call(totals, "cuModuleUnload", unsafe { (module.driver.module_unload)(module.module) })?;
        }
        self.registration = None;
        Ok(())
    }
}

impl DriverModule {
    /// Loads the module into the context that the runtime made current.
    fn load(totals: &mut DeviceTotals) -> Result<Self> {
        let driver = api::open_driver()?;
        let image = image::ptx(kernel::DRIVER.into_iter());
        let mut module = ptr::null_mut();
        // SAFETY: a valid out-pointer and a NUL-terminated image.
        let (init, load) =
            unsafe { ((driver.init)(0), (driver.module_load_data)(&raw mut module, image.as_ptr().cast())) };
        call(totals, "cuInit", init)?;
        call(totals, "cuModuleLoadData", load)?;
        let mut functions = Vec::new();
        for name in kernel::DRIVER {
            let mut function = ptr::null_mut();
            // SAFETY: a valid out-pointer, a loaded module and a NUL-terminated name.
            let status = unsafe { (driver.module_get_function)(&raw mut function, module, name.as_ptr()) };
            call(totals, "cuModuleGetFunction", status)?;
            functions.push((name, function));
        }
        Ok(Self { driver, module, functions })
    }

    fn function(&self, name: &CStr) -> Option<(&'static CStr, Handle)> {
        self.functions.iter().copied().find(|(known, _)| *known == name)
    }
}
