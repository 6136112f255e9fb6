//! Probed GPU calls: no probe, an empty probe, gpuspan's probe, in turn at the same place.

use super::Effort;
use super::table::{Added, Goal, Table, median};
use super::target::{Op, Target, driver_library, runtime_library};
use anyhow::{Context as _, Result};
use profiler::attach::{EmptyProgram, Kernel, KernelSettings, Library, LinkKind, Links, Scope, inspect};
use profiler::probe::{self, Layer};
use profiler::receive::{self, Received};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

/// What a launch may cost above an empty probe, nanoseconds.
const LAUNCH_GOAL: Goal = Goal::AtMost(250.0);

/// What is called, what it is called in the table, and whether it is a launch.
const CALLS: [(Op, &str, Layer, &str); 5] = [
    (Op::RuntimeLaunch, "runtime launch", Layer::Runtime, "cudaLaunchKernel"),
    (Op::RuntimeLaunchEx, "runtime launch by ExC", Layer::Runtime, "cudaLaunchKernelExC"),
    (Op::DriverLaunch, "driver launch", Layer::Driver, "cuLaunchKernel"),
    (Op::Copy, "copy", Layer::Runtime, "cudaMemcpyAsync"),
    (Op::Synchronize, "paired call (synchronise)", Layer::Runtime, "cudaStreamSynchronize"),
];

/// Adds what each call costs.
pub fn measure(target: &mut Target, effort: Effort, table: &mut Table) -> Result<()> {
    let settings = KernelSettings { links: LinkKind::Multi, ..KernelSettings::default() };
    let mut kernel = Kernel::load(&settings)?;
    let empty = EmptyProgram::load()?;
    let drain = Drain::start(&mut kernel)?;
    for (op, name, layer, symbol) in CALLS {
        let place = Place::of(layer, symbol, target.pid())?;
        let rounds = Rounds::run(target, op, effort, &mut kernel, &empty, &place)?;
        let (added, bpf_ns) = (Added::of(&rounds.empty, &rounds.full), rounds.bpf_ns);
        let what = format!("{name}: above an empty probe");
        if matches!(op, Op::RuntimeLaunch | Op::RuntimeLaunchEx | Op::DriverLaunch) {
            table.judge(&what, added.difference, &added.to_string(), &LAUNCH_GOAL, "ns");
        } else {
            table.fact(&what, &added.to_string());
        }
        let (none, floor) = (median(rounds.none), median(rounds.empty));
        table.fact(
            &format!("{name}: no probe, empty probe, time in BPF per hit"),
            &format!("{none:.0} ns, {floor:.0} ns, {bpf_ns:.0} ns"),
        );
    }
    after_sleep(target, effort, &mut kernel, table)?;
    drain.stop()
}

/// Launches of a burst, as a decode step makes them, and the sleep before each: caches are cold, the core was idle.
const BURSTS: [u64; 3] = [1, 10, 100];
const SLEEP: Duration = Duration::from_millis(9);

/// Adds what a launch costs when it comes in bursts instead of without end.
fn after_sleep(target: &mut Target, effort: Effort, kernel: &mut Kernel, table: &mut Table) -> Result<()> {
    let place = Place::of(Layer::Runtime, "cudaLaunchKernel", target.pid())?;
    for launches in BURSTS {
        let burst = |target: &mut Target| {
            std::thread::sleep(SLEEP);
            target.time(Op::RuntimeLaunch, launches)
        };
        let (mut without, mut with) = (Vec::new(), Vec::new());
        for _ in 0..effort.rounds * 4 {
            without.push(burst(target)?);
        }
        let _links = Links::attach(kernel, Scope::ALL, place.path(), place.pid, &place.library)?;
        for _ in 0..effort.rounds * 4 {
            with.push(burst(target)?);
        }
        let (without, with) = (median(without), median(with));
        let what = format!("runtime launch, {launches} after 9 ms of sleep: no probe, probe, each");
        table.fact(&what, &format!("{without:.0} ns, {with:.0} ns"));
    }
    Ok(())
}

/// One function of one library in the target.
pub struct Place {
    path: PathBuf,
    /// The process that loaded it.
    pub pid: u32,
    /// The library as if it had this one function.
    pub library: Library,
}

impl Place {
    /// Finds the function.
    pub fn of(layer: Layer, symbol: &str, pid: u32) -> Result<Self> {
        Self::at(
            if layer == Layer::Runtime { runtime_library() } else { driver_library() },
            layer,
            symbol,
            pid,
        )
    }

    /// Finds the function in this library.
    pub fn at(path: PathBuf, layer: Layer, symbol: &str, pid: u32) -> Result<Self> {
        let library = inspect(&path, layer)?;
        let is_it = |api: u16| probe::api(api).is_some_and(|api| api.symbol == symbol);
        let point = library.points.iter().find(|point| is_it(point.api)).copied();
        let point = point.with_context(|| format!("{} has no `{symbol}`", path.display()))?;
        Ok(Self { path, pid, library: Library { points: vec![point], ..library } })
    }

    /// The library's file.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

/// Nanoseconds of a call, round by round.
#[derive(Default)]
struct Rounds {
    none: Vec<f64>,
    empty: Vec<f64>,
    full: Vec<f64>,
    /// Time in gpuspan's program per hit, by the kernel's own statistics, whose clock is in it.
    bpf_ns: f64,
}

impl Rounds {
    fn run(
        target: &mut Target,
        op: Op,
        effort: Effort,
        kernel: &mut Kernel,
        empty: &EmptyProgram,
        place: &Place,
    ) -> Result<Self> {
        let mut rounds = Self::default();
        for _ in 0..effort.rounds {
            rounds.none.push(target.time(op, effort.calls)?);
            {
                let _links = empty.attach(place.path(), place.pid, &place.library)?;
                rounds.empty.push(target.time(op, effort.calls)?);
            }
            let _links = Links::attach(kernel, Scope::ALL, place.path(), place.pid, &place.library)?;
            rounds.full.push(target.time(op, effort.calls)?);
        }
        let _links = Links::attach(kernel, Scope::ALL, place.path(), place.pid, &place.library)?;
        let _statistics = aya::sys::enable_stats(aya::sys::Stats::RunTime)?;
        let before = kernel.run_statistics();
        target.time(op, effort.calls)?;
        let after = kernel.run_statistics();
        rounds.bpf_ns = (after.0 - before.0) as f64 / (after.1 - before.1).max(1) as f64;
        Ok(rounds)
    }
}

/// Drains the ring as gpuspan does, and throws away what comes.
pub struct Drain {
    orders: Arc<receive::Orders>,
    thread: JoinHandle<std::io::Result<()>>,
}

impl Drain {
    /// On the ring of `kernel`.
    pub fn start(kernel: &mut Kernel) -> Result<Self> {
        let ring = kernel.take_ring().context("the ring was taken already")?;
        let orders = Arc::new(receive::Orders::new().context("failed to make an event counter")?);
        let until = Arc::clone(&orders);
        let thread = std::thread::spawn(move || receive::drain(ring, &Received::default(), &until, drop));
        Ok(Self { orders, thread })
    }

    /// Ends it.
    pub fn stop(self) -> Result<()> {
        self.orders.stop();
        let drained = self.thread.join().map_err(|_| anyhow::anyhow!("the draining thread panicked"))?;
        drained.context("failed to wait for the ring buffer")
    }
}
