//! The process that is measured: calls on command, and says what they cost it.
//!
//! In: lines on its standard input. Out: a line for each. It loads the stand-in CUDA libraries and makes calls that
//! these refuse or finish at once, so that the time is the probe's and not the stand-in's. The cost is the calling
//! thread's CPU time, which neither preemption nor another process changes.

use super::serving::{self, Pair, Protocol};
use anyhow::{Context as _, Result, bail, ensure};
use libloading::Library;
use std::ffi::{c_int, c_uint, c_void};
use std::fs::File;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

/// Something that can be timed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Op {
    /// `cudaLaunchKernel` without a kernel.
    RuntimeLaunch,
    /// `cudaLaunchKernelExC` without a kernel; its grid and block lie in memory.
    RuntimeLaunchEx,
    /// `cuLaunchKernel` of what is no kernel.
    DriverLaunch,
    /// `cudaMemcpyAsync` of no byte.
    Copy,
    /// `cudaStreamSynchronize` of an idle stream.
    Synchronize,
    /// `read` of 64 bytes from `/dev/zero`.
    Read,
    /// `write` of 64 bytes to `/dev/null`.
    Write,
    /// `read` of 64 bytes from a connection that it accepted.
    SocketRead,
    /// `write` of 64 bytes to one.
    SocketWrite,
    /// `getppid`, which no hook is interested in.
    Getppid,
}

impl Op {
    fn name(self) -> String {
        clap::ValueEnum::to_possible_value(&self)
            .map_or_else(String::new, |value| value.get_name().to_owned())
    }
}

/// The process, as the benchmark holds it; killed when dropped.
pub struct Target {
    child: Child,
    commands: ChildStdin,
    answers: BufReader<ChildStdout>,
}

/// What [`Target::pace`] reached.
#[derive(Clone, Copy, Debug)]
pub struct Paced {
    /// Calls made.
    pub calls: u64,
    /// Launches a second.
    pub rate: f64,
}

/// What [`Target::stream`] reached.
#[derive(Clone, Copy, Debug)]
pub struct Streamed {
    /// Chunks written.
    pub chunks: u64,
    /// Chunks a second.
    pub rate: f64,
}

impl Target {
    /// Starts it on the stand-ins and waits until it has loaded them.
    pub fn start() -> Result<Self> {
        let settings = simgpu::Environment { kernel_time: Some(Duration::ZERO), ..Default::default() };
        let mut child = Command::new(std::env::current_exe()?)
            .args(["bench", "--be-target"])
            .envs(simgpu::command_env(simgpu::Runtime::Cuda12, &settings))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("failed to start the process to measure")?;
        let commands = child.stdin.take().context("the measured process has no input")?;
        let answers = BufReader::new(child.stdout.take().context("the measured process has no output")?);
        let mut target = Self { child, commands, answers };
        ensure!(target.answer()? == "ready", "the measured process could not load the stand-in libraries");
        Ok(target)
    }

    /// Process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// CPU nanoseconds of one call, over `times` calls.
    pub fn time(&mut self, op: Op, times: u64) -> Result<f64> {
        let answer = self.ask(&format!("time {} {times}", op.name()))?;
        Ok(answer.parse::<u64>()? as f64 / times as f64)
    }

    /// Launches at `rate` a second for a while.
    pub fn pace(&mut self, rate: u64, duration: Duration) -> Result<Paced> {
        let answer = self.ask(&format!("pace {rate} {}", duration.as_millis()))?;
        let (calls, elapsed_ns) = answer.split_once(' ').context("the measured process answered nonsense")?;
        let (calls, elapsed_ns) = (calls.parse::<u64>()?, elapsed_ns.parse::<u64>()?);
        Ok(Paced { calls, rate: calls as f64 / (elapsed_ns as f64 / 1e9) })
    }

    /// Makes it stream to clients (`serving`); the port that they shall connect to.
    pub fn stream(&mut self, protocol: Protocol, rate: u64, duration: Duration) -> Result<u16> {
        let command = format!("stream {} {rate} {}", protocol.name(), duration.as_millis());
        let answer = self.ask(&command)?;
        answer.parse().map_err(|_| anyhow::anyhow!("{answer}"))
    }

    /// Waits for the end of [`Self::stream`].
    pub fn streamed(&mut self) -> Result<Streamed> {
        let answer = self.answer()?;
        let (chunks, elapsed_ns) =
            answer.split_once(' ').context("the measured process answered nonsense")?;
        let (chunks, elapsed_ns) = (chunks.parse::<u64>()?, elapsed_ns.parse::<u64>()?);
        Ok(Streamed { chunks, rate: chunks as f64 / (elapsed_ns as f64 / 1e9) })
    }

    fn ask(&mut self, command: &str) -> Result<String> {
        writeln!(self.commands, "{command}").context("the measured process is gone")?;
        self.answer()
    }

    fn answer(&mut self) -> Result<String> {
        let mut line = String::new();
        self.answers.read_line(&mut line).context("the measured process does not answer")?;
        ensure!(!line.is_empty(), "the measured process ended");
        Ok(line.trim_end().to_owned())
    }
}

impl Drop for Target {
    fn drop(&mut self) {
        // Both fail only when it has already ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The stand-in runtime that the target loads.
pub fn runtime_library() -> PathBuf {
    simgpu::library_dir(simgpu::Runtime::Cuda12).join("libcudart.so.12")
}

/// The stand-in driver that the target loads.
pub fn driver_library() -> PathBuf {
    simgpu::library_dir(simgpu::Runtime::Cuda12).join("libcuda.so.1")
}

/// Is the measured process: answers commands until its input ends.
pub fn serve() -> Result<()> {
    let calls = Calls::load()?;
    say("ready")?;
    for line in std::io::stdin().lines() {
        let line = line?;
        let words: Vec<_> = line.split(' ').collect();
        match words.as_slice() {
            ["time", op, times] => {
                let op = clap::ValueEnum::from_str(op, false).map_err(anyhow::Error::msg)?;
                say(&calls.time(op, times.parse()?)?.to_string())?;
            }
            ["pace", rate, millis] => {
                let (calls, elapsed) = calls.pace(rate.parse()?, Duration::from_millis(millis.parse()?));
                say(&format!("{calls} {}", elapsed.as_nanos()))?;
            }
            ["stream", protocol, rate, millis] => {
                let protocol = clap::ValueEnum::from_str(protocol, false).map_err(anyhow::Error::msg)?;
                let duration = Duration::from_millis(millis.parse()?);
                match serving::stream(protocol, rate.parse()?, duration, say) {
                    Ok((chunks, elapsed)) => say(&format!("{chunks} {}", elapsed.as_nanos()))?,
                    Err(error) => say(&format!("{error:#}"))?,
                }
            }
            _ => bail!("`{line}` is no command"),
        }
    }
    Ok(())
}

fn say(line: &str) -> Result<()> {
    let mut output = std::io::stdout().lock();
    writeln!(output, "{line}")?;
    Ok(output.flush()?)
}

#[repr(C)]
#[derive(Clone, Copy)]
struct Dim3 {
    x: c_uint,
    y: c_uint,
    z: c_uint,
}

const ONE: Dim3 = Dim3 { x: 1, y: 1, z: 1 };

/// `cudaLaunchConfig_t` (`driver_types.h`, CUDA 11.8 to 13.5).
#[repr(C)]
struct LaunchConfig {
    grid: Dim3,
    block: Dim3,
    shared_bytes: usize,
    stream: *mut c_void,
    attributes: *mut c_void,
    attribute_count: c_uint,
}

type RuntimeLaunch =
    unsafe extern "C" fn(*const c_void, Dim3, Dim3, *mut *mut c_void, usize, *mut c_void) -> c_int;
type RuntimeLaunchEx = unsafe extern "C" fn(*const LaunchConfig, *const c_void, *mut *mut c_void) -> c_int;
type DriverLaunch = unsafe extern "C" fn(
    *const c_void,
    c_uint,
    c_uint,
    c_uint,
    c_uint,
    c_uint,
    c_uint,
    c_uint,
    *mut c_void,
    *mut *mut c_void,
    *mut *mut c_void,
) -> c_int;
type Copy = unsafe extern "C" fn(*mut c_void, *const c_void, usize, c_int, *mut c_void) -> c_int;
type Synchronize = unsafe extern "C" fn(*mut c_void) -> c_int;

/// Different kernels in a paced run; a decode step of a real model has about as many.
const KERNELS: usize = 32;

/// Launches between two waits in a paced run: about one decode step.
const LAUNCHES_PER_STEP: u64 = 200;

/// The functions that are called.
struct Calls {
    runtime_launch: RuntimeLaunch,
    runtime_launch_ex: RuntimeLaunchEx,
    driver_launch: DriverLaunch,
    copy: Copy,
    synchronize: Synchronize,
    /// Addresses that are readable and no kernels.
    kernels: Box<[[u64; 8]; KERNELS]>,
    zero: File,
    null: File,
    _libraries: [Library; 2],
}

impl Calls {
    fn load() -> Result<Self> {
        // SAFETY: the stand-ins' initialisers read their settings and nothing else.
        let (driver, runtime) =
            unsafe { (Library::new(driver_library())?, Library::new(runtime_library())?) };
        // SAFETY: the signatures are those of the CUDA reference for these symbols.
        unsafe {
            let free: unsafe extern "C" fn(*mut c_void) -> c_int = *runtime.get(b"cudaFree\0")?;
            // The usual way to make the context.
            free(std::ptr::null_mut());
            Ok(Self {
                runtime_launch: *runtime.get(b"cudaLaunchKernel\0")?,
                runtime_launch_ex: *runtime.get(b"cudaLaunchKernelExC\0")?,
                driver_launch: *driver.get(b"cuLaunchKernel\0")?,
                copy: *runtime.get(b"cudaMemcpyAsync\0")?,
                synchronize: *runtime.get(b"cudaStreamSynchronize\0")?,
                kernels: Box::new([[0; 8]; KERNELS]),
                zero: File::open("/dev/zero")?,
                null: File::options().write(true).open("/dev/null")?,
                _libraries: [driver, runtime],
            })
        }
    }

    /// CPU time of `times` calls, nanoseconds.
    fn time(&self, op: Op, times: u64) -> Result<u64> {
        let single = |times: u64, call: &mut dyn FnMut()| timed(times, call);
        Ok(match op {
            Op::RuntimeLaunch => timed(times, || self.runtime_launch()),
            Op::RuntimeLaunchEx => timed(times, || self.runtime_launch_ex()),
            Op::DriverLaunch => timed(times, || self.driver_launch(0)),
            Op::Copy => timed(times, || self.copy()),
            Op::Synchronize => timed(times, || self.synchronize()),
            Op::Read => timed(times, || read(&self.zero)),
            Op::Write => timed(times, || write(&self.null)),
            Op::SocketRead => Pair::accept()?.reads(times, single)?,
            Op::SocketWrite => Pair::accept()?.writes(times, single)?,
            Op::Getppid => timed(times, getppid),
        })
    }

    /// Launches through the driver at `rate` a second, as far as it can, with a wait after each step; calls made, and
    /// how long it took.
    fn pace(&self, rate: u64, duration: Duration) -> (u64, Duration) {
        let start = Instant::now();
        let (mut calls, mut launches) = (0, 0u64);
        while start.elapsed() < duration {
            let due = (start.elapsed().as_secs_f64() * rate as f64) as u64;
            let end = due.min(launches + LAUNCHES_PER_STEP);
            while launches < end {
                self.driver_launch(launches as usize % KERNELS);
                (calls, launches) = (calls + 1, launches + 1);
                if launches.is_multiple_of(LAUNCHES_PER_STEP) {
                    self.synchronize();
                    calls += 1;
                }
            }
            if launches == due {
                std::thread::sleep(Duration::from_millis(1));
            }
        }
        (calls, start.elapsed())
    }

    fn runtime_launch(&self) {
        let none: *mut c_void = std::ptr::null_mut();
        // SAFETY: a launch without a kernel is refused; no pointer is followed.
        unsafe { (self.runtime_launch)(std::ptr::null(), ONE, ONE, none.cast(), 0, none) };
    }

    fn runtime_launch_ex(&self) {
        let none: *mut c_void = std::ptr::null_mut();
        let config = LaunchConfig {
            grid: ONE,
            block: ONE,
            shared_bytes: 0,
            stream: none,
            attributes: none,
            attribute_count: 0,
        };
        // SAFETY: the configuration outlives the call, which is refused for want of a kernel.
        unsafe { (self.runtime_launch_ex)(&config, std::ptr::null(), none.cast()) };
    }

    fn driver_launch(&self, kernel: usize) {
        let none: *mut c_void = std::ptr::null_mut();
        let kernel: *const c_void = self.kernels.get(kernel).map_or(std::ptr::null(), |k| k.as_ptr().cast());
        // SAFETY: the stand-in reads the first word of the handle, finds that it is no kernel, and refuses.
        unsafe { (self.driver_launch)(kernel, 1, 1, 1, 1, 1, 1, 0, none, none.cast(), none.cast()) };
    }

    fn copy(&self) {
        const HOST_TO_DEVICE: c_int = 1;
        let none: *mut c_void = std::ptr::null_mut();
        // SAFETY: no byte is copied.
        unsafe { (self.copy)(none, none, 0, HOST_TO_DEVICE, none) };
    }

    fn synchronize(&self) {
        // SAFETY: the default stream is always there.
        unsafe { (self.synchronize)(std::ptr::null_mut()) };
    }
}

fn getppid() {
    // SAFETY: it has no preconditions.
    let _ = unsafe { libc::getppid() };
}

fn read(file: &File) {
    use std::io::Read as _;
    let mut file = file;
    // What cannot be read costs as much to try; /dev/zero can.
    let _ = file.read(&mut [0; 64]);
}

fn write(file: &File) {
    let mut file = file;
    // Likewise.
    let _ = file.write(&[0; 64]);
}

fn timed(times: u64, mut call: impl FnMut()) -> u64 {
    let start = thread_cpu_ns();
    (0..times).for_each(|_| call());
    thread_cpu_ns() - start
}

fn thread_cpu_ns() -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the pointer is to a live timespec, and the clock exists since Linux 2.6.12.
    unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &mut time) };
    time.tv_sec.cast_unsigned() * 1_000_000_000 + time.tv_nsec.cast_unsigned()
}
