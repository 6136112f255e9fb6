//! Gathers the summary from where each hop counts. In: the parts that counted. Out: [`Summary`] and [`Loss`].

use crate::account::{
    AskedFor, Beyond, Copies, CorrelateTerms, DecodeTerms, EngineGauges, Engines, ExportTerms, GpuTime,
    KernelCount, Launches, Loss, OutOfMemory, ReceiveTerms, StackCount, Stacks, Steps, Summary,
};
use crate::correlate::{GpuTimes, MemoryTotals};
use crate::export::Ledger;
use crate::facts::{Arrived, Called, Ending, Facts, TOP_STACKS};
use crate::interned;
use crate::probe::{self, Direction};
use crate::session::Session;
use crate::symbol;
use profiler_common::counter::Counters;
use std::collections::BTreeMap;
use std::time::Duration;

/// The summary of an observation that took `window`.
#[must_use]
pub fn gather(facts: &Facts, session: &Session, loss: Loss, ending: &Ending) -> Summary {
    let engine = &session.engine;
    let totals = engine.totals();
    let work = &totals.work;
    let direction = |(direction, (count, bytes)): (Direction, &(u64, u64))| {
        (direction.name(), Copies { count: *count, bytes: *bytes })
    };
    Summary {
        window_s: Duration::from_nanos(ending.window_ns).as_secs_f64(),
        target: facts.target.clone(),
        calls: totals.calls().map(|(symbol, count)| (symbol.to_owned(), count)).collect(),
        launches: launches(facts, session),
        copies: Direction::ALL.into_iter().zip(&work.copies).map(direction).collect(),
        memory: memory(session),
        reservations: facts.reservations.clone(),
        sets: Copies { count: work.sets.0, bytes: work.sets.1 },
        collectives: collectives(session),
        failures: failures(session),
        out_of_memory: out_of_memory(session),
        counted: totals.counted,
        stacks: stacks(facts, session),
        beyond: beyond(facts, session),
        requests: session.requests.clone(),
        traces: session.traces(),
        connections: engine.connections().counts(),
        blind: facts.blind.clone(),
        engines: engines(session),
        steps: Steps {
            total: totals.steps,
            gpu_ns: GpuTime {
                measured: totals.gpu_measured_ns,
                bounded_lo: totals.gpu_lo_ns,
                bounded_hi: totals.gpu_hi_ns,
                estimated: totals.gpu_ns,
            },
            unattributed_ns: engine.rides().unattributed_ns,
            unattributed_launches: engine.rides().unattributed_launches,
            iterations: engine.rides(),
            times: times(session),
            utilization: engine
                .agreements()
                .map(|(device, agreement)| (device.to_string(), agreement))
                .collect(),
        },
        devices: session.devices.account(),
        loss,
        coverage: facts.coverage.clone(),
        own: ending.own,
        recording: None,
    }
}

fn times(session: &Session) -> BTreeMap<u32, BTreeMap<String, GpuTimes>> {
    let mut times: BTreeMap<u32, BTreeMap<String, GpuTimes>> = BTreeMap::new();
    for ((pid, device), of) in session.engine.gpu_times() {
        let device = device.map_or_else(|| "unknown".to_owned(), |device| device.to_string());
        times.entry(pid).or_default().insert(device, of);
    }
    times
}

fn engines(session: &Session) -> Engines {
    let inside = session.engine.inside();
    let counts = inside.counts();
    let gauges = inside.gauges().map(|(pid, gauges)| EngineGauges {
        pid,
        engine: gauges.engine,
        running: gauges.running,
        waiting: gauges.waiting,
        kv_usage: gauges.kv_usage,
    });
    Engines {
        adapters: inside.speakers().collect(),
        steps: counts.steps,
        failed_steps: counts.failed_steps,
        members: counts.members,
        tokens: counts.tokens,
        preemptions: counts.preemptions,
        gauges: gauges.collect(),
        joined: counts.joined.iter().map(|(evidence, count)| (evidence.name(), *count)).collect(),
        unjoined: counts.unjoined,
        agreed: counts.agreed,
        disagreed: counts.disagreed,
    }
}

/// By account; what is on one account from several processes is summed.
fn memory(session: &Session) -> BTreeMap<String, MemoryTotals> {
    session.engine.memory().map(|(account, totals)| (account.name(), *totals)).collect()
}

fn collectives(session: &Session) -> BTreeMap<&'static str, Copies> {
    let each = session.engine.totals().collectives.iter();
    each.filter_map(|(index, (count, bytes))| {
        Some((probe::api(*index)?.symbol, Copies { count: *count, bytes: *bytes }))
    })
    .collect()
}

fn failures(session: &Session) -> BTreeMap<&'static str, BTreeMap<String, u64>> {
    let mut by_function: BTreeMap<&'static str, BTreeMap<String, u64>> = BTreeMap::new();
    for (index, result, count) in session.engine.totals().failures.counts() {
        let Some(api) = probe::api(index) else { continue };
        let errors = by_function.entry(api.symbol).or_default();
        *errors.entry(probe::error::name(api.layer, result).into_owned()).or_default() += count;
    }
    by_function
}

fn out_of_memory(session: &Session) -> OutOfMemory {
    let failures = &session.engine.totals().failures;
    let last = failures.out_of_memory.iter().filter_map(|failed| {
        let function = probe::api(failed.api)?.symbol;
        Some(AskedFor { pid: failed.pid, function, bytes: failed.bytes, device: failed.device })
    });
    OutOfMemory { count: failures.times_out_of_memory, last: last.collect() }
}

fn beyond(facts: &Facts, session: &Session) -> Beyond {
    Beyond {
        batches_cut: session.engine.cut_batches(),
        names_dropped: facts.names_dropped,
        handles_reused: facts.handles_reused,
        looks_dropped: facts.looks_dropped,
        tables: session.engine.forgotten(),
    }
}

fn stacks(facts: &Facts, session: &Session) -> Stacks {
    let counts = session.stacks.counts();
    let top = counts.iter().take(TOP_STACKS).map(|(sample, count)| StackCount {
        count: *count,
        kernel: facts.short(sample.kernel),
        frames: sample.frames.iter().rev().map(|address| facts.frame(sample.kernel.pid, *address)).collect(),
    });
    let samples = counts.iter().map(|(_, count)| count).sum::<u64>() + session.stacks.beyond;
    Stacks { samples, beyond: session.stacks.beyond, top: top.collect() }
}
/// Why a kernel has no name in the replay of a recording that was cut off.
const NOT_LOOKED_UP: &str = "recording_cut";

/// Name and symbol of a kernel. One that was learnt in two ways is one row.
type Row = (String, Option<String>);

fn launches(facts: &Facts, session: &Session) -> Launches {
    let totals = session.engine.totals();
    // One kernel is one row, also where two processes launched it; an unnamed handle means something in its process.
    let mut by_name: BTreeMap<Row, (&'static str, u64, u64)> = BTreeMap::new();
    let mut unnamed = totals.uncounted_kernels;
    for (kernel, (direct, nodes)) in &totals.work.kernels {
        let handle = || (format!("{:#x}", kernel.function), None);
        let (row, evidence) = match facts.kernels.get(kernel) {
            Some(Called { name: Some((short, symbol)), evidence }) => {
                ((short.clone(), Some(symbol.clone())), *evidence)
            }
            nameless => {
                unnamed += direct + nodes;
                (handle(), nameless.map_or(NOT_LOOKED_UP, |called| called.evidence))
            }
        };
        let counts = by_name.entry(row).or_insert((evidence, 0, 0));
        counts.1 += direct;
        counts.2 += nodes;
    }
    let mut by_kernel: Vec<_> = by_name
        .into_iter()
        .map(|((name, symbol), (evidence, count, graph_count))| KernelCount {
            name,
            full: symbol.as_deref().map(symbol::demangle),
            symbol,
            count,
            graph_count,
            evidence,
        })
        .collect();
    by_kernel.sort_by_key(|kernel| std::cmp::Reverse(kernel.count + kernel.graph_count));
    Launches {
        total: totals.work.launches,
        graph_launches: totals.work.graph_launches,
        graph_nodes: totals.work.graph_nodes,
        unknown_graphs: totals.work.unknown_graphs,
        captured: session.engine.captured_launches(),
        host_functions: totals.work.host_functions,
        by_kernel,
        unnamed,
    }
}

/// What became of the events that a session took.
#[must_use]
pub fn correlated(session: &Session) -> CorrelateTerms {
    let totals = session.engine.totals();
    let ignored: BTreeMap<_, _> =
        totals.ignored_by_reason().map(|(reason, count)| (reason.name(), count)).collect();
    let decoded = totals.joined + ignored.values().sum::<u64>();
    CorrelateTerms { decoded, joined: totals.joined, ignored, ..CorrelateTerms::default() }
}

/// Every term of the loss equations as it stands; they balance once everything has come to rest.
#[must_use]
pub fn loss(correlated: CorrelateTerms, counters: &[Counters], arrived: &Arrived, ledger: &Ledger) -> Loss {
    let export = ledger.accounts().into_iter().filter_map(|(destination, signal, account)| {
        let tally = account.tally();
        let terms = ExportTerms {
            produced: tally.produced,
            exported: tally.exported,
            dropped: tally.dropped.into_iter().collect(),
            queued: tally.queued,
        };
        (terms != ExportTerms::default()).then(|| (format!("{destination}.{}", signal.name()), terms))
    });
    let mut loss = Loss {
        kernel: Loss::kernel_terms(counters),
        receive: ReceiveTerms {
            submitted: counters.iter().map(|family| family.submitted).sum(),
            received: arrived.records,
        },
        decode: DecodeTerms {
            received: arrived.records,
            decoded: arrived.decoded,
            rejected: arrived
                .rejected
                .iter()
                .map(|(reason, count)| (interned::keep(reason), *count))
                .collect(),
        },
        correlate: CorrelateTerms { decoded: arrived.decoded, ..correlated },
        export: export.collect(),
        ..Loss::default()
    };
    loss.settle();
    loss
}
