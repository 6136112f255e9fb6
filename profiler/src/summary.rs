//! Gathers the summary from where each hop counts. In: the parts that counted. Out: [`Summary`] and [`Loss`].

use crate::account::{
    AskedFor, Beyond, Blind, Copies, CorrelateTerms, DecodeTerms, ExportTerms, GpuTime, KernelCount,
    Launches, Loss, OutOfMemory, Own, ReceiveTerms, Reserved, StackCount, Stacks, Steps, Summary, Target,
};
use crate::control::Control;
use crate::correlate::MemoryTotals;
use crate::export::Ledger;
use crate::probe::{self, Direction};
use crate::receive::Received;
use crate::session::Session;
use crate::symbol::{self, Name};
use profiler_common::counter::Counters;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// The summary of an observation that took `window`.
#[must_use]
pub fn gather(control: &Control, session: &Session, loss: Loss, window: Duration, own: Own) -> Summary {
    let engine = &session.engine;
    let totals = engine.totals();
    let work = &totals.work;
    let direction = |(direction, (count, bytes)): (Direction, &(u64, u64))| {
        (direction.name(), Copies { count: *count, bytes: *bytes })
    };
    Summary {
        window_s: window.as_secs_f64(),
        target: Target { pid: control.root(), processes: control.members(), server: control.server },
        calls: totals.calls().map(|(symbol, count)| (symbol.to_owned(), count)).collect(),
        launches: launches(control, session),
        copies: Direction::ALL.into_iter().zip(&work.copies).map(direction).collect(),
        memory: memory(session),
        reservations: reservations(control),
        sets: Copies { count: work.sets.0, bytes: work.sets.1 },
        collectives: collectives(session),
        failures: failures(session),
        out_of_memory: out_of_memory(session),
        counted: totals.counted,
        stacks: stacks(control, session),
        beyond: beyond(control, session),
        requests: session.requests.clone(),
        connections: engine.connections().counts(),
        blind: control.blind.iter().map(|(pid, reason)| Blind { pid: *pid, reason }).collect(),
        steps: Steps {
            total: totals.steps,
            gpu_ns: GpuTime {
                bounded_lo: totals.gpu_lo_ns,
                bounded_hi: totals.gpu_hi_ns,
                ..GpuTime::default()
            },
            unattributed_ns: totals.unattributed_ns,
            unattributed_launches: totals.unattributed_launches,
        },
        loss,
        coverage: control.attacher.coverage().cloned().collect(),
        own,
    }
}

/// By account; what is on one account from several processes is summed.
fn memory(session: &Session) -> BTreeMap<String, MemoryTotals> {
    session.engine.memory().map(|(account, totals)| (account.name(), *totals)).collect()
}

fn reservations(control: &Control) -> Vec<Reserved> {
    let each = control.reserved.iter().map(|((library, device), reserved)| Reserved {
        library: library.clone(),
        device: *device,
        ..reserved.clone()
    });
    let mut all: Vec<_> = each.collect();
    all.sort_by_key(|reserved| std::cmp::Reverse(reserved.bytes));
    all
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

fn beyond(control: &Control, session: &Session) -> Beyond {
    let names = control.name_counts();
    Beyond {
        batches_cut: session.engine.cut_batches(),
        names_dropped: names.dropped,
        handles_reused: names.reused,
        looks_dropped: session.wants.beyond,
    }
}

/// Stacks that the summary tells one by one.
const TOP_STACKS: usize = 200;

fn stacks(control: &Control, session: &Session) -> Stacks {
    let counts = session.stacks.counts();
    let top = counts.iter().take(TOP_STACKS).map(|(sample, count)| StackCount {
        count: *count,
        kernel: match control.name(sample.kernel) {
            Name::Known(kernel) => kernel.short.to_string(),
            Name::Unknown(_) => format!("{:#x}", sample.kernel.function),
        },
        frames: sample
            .frames
            .iter()
            .rev()
            .map(|address| control.symbolizer.name(sample.kernel.pid, *address).to_string())
            .collect(),
    });
    let samples = counts.iter().map(|(_, count)| count).sum::<u64>() + session.stacks.beyond;
    Stacks { samples, beyond: session.stacks.beyond, top: top.collect() }
}
/// Name and symbol of a kernel. One that was learnt in two ways is one row.
type Row = (String, Option<Arc<str>>);

fn launches(control: &Control, session: &Session) -> Launches {
    let totals = session.engine.totals();
    // One kernel is one row, also where two processes launched it; an unnamed handle means something in its process.
    let mut by_name: BTreeMap<Row, (&'static str, u64, u64)> = BTreeMap::new();
    let mut unnamed = totals.uncounted_kernels;
    for (kernel, (direct, nodes)) in &totals.work.kernels {
        let (row, evidence) = match control.name(*kernel) {
            Name::Known(known) => ((known.short.to_string(), Some(known.symbol)), known.evidence.name()),
            Name::Unknown(reason) => {
                unnamed += direct + nodes;
                ((format!("{:#x}", kernel.function), None), reason.name())
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
            symbol: symbol.map(|symbol| symbol.to_string()),
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

/// Every term of the loss equations as it stands; they balance once everything has come to rest.
#[must_use]
pub fn loss(session: &Session, counters: &[Counters], received: &Received, ledger: &Ledger) -> Loss {
    let load = |count: &AtomicU64| count.load(Ordering::Acquire);
    let totals = session.engine.totals();
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
            received: load(&received.records),
        },
        decode: DecodeTerms {
            received: load(&received.records),
            decoded: load(&received.decoded),
            rejected: received.rejected().map(|(reason, count)| (reason.name(), count)).collect(),
        },
        correlate: CorrelateTerms {
            decoded: load(&received.decoded),
            joined: totals.joined,
            pending: 0,
            expired: BTreeMap::new(),
            ignored: totals.ignored_by_reason().map(|(reason, count)| (reason.name(), count)).collect(),
        },
        export: export.collect(),
        ..Loss::default()
    };
    loss.settle();
    loss
}
