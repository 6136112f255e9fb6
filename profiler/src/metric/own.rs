//! gpuspan's account of itself → metrics: what was lost and why, what is probed, what it costs.

use super::Target;
use super::catalog::{self, attribute as name};
use crate::account::{Loss, Own};
use crate::attach::Coverage;
use crate::correlate::Forgotten;
use crate::span::model::{Value, text};

/// Writes the account under gpuspan's own resource.
pub fn own<'a>(
    target: &Target,
    loss: &Loss,
    beyond: &Forgotten,
    own: &Own,
    coverage: impl Iterator<Item = &'a Coverage>,
) {
    let lost = |reason: String, count: u64| {
        let reason = [(name::GPUSPAN_LOSS_REASON, Value::Str(reason.into()))];
        target.handle(&catalog::SELF_RECORDS_LOST, &reason).observe(count);
    };
    for (family, terms) in &loss.kernel {
        lost(format!("{family}.ring_full"), terms.ring_full);
        lost(format!("{family}.oversized"), terms.oversized);
        lost(format!("{family}.map_full"), terms.map_full);
    }
    for (reason, count) in &loss.decode.rejected {
        lost(format!("decode.{reason}"), *count);
    }
    // Its fields are its tables, by the names that the summary has.
    let tables = serde_json::to_value(beyond).unwrap_or_default();
    for (table, count) in tables.as_object().into_iter().flatten() {
        let table = [(name::GPUSPAN_TABLE, text(table))];
        target.handle(&catalog::SELF_BEYOND, &table).observe(count.as_u64().unwrap_or(0));
    }
    target.handle(&catalog::SELF_CPU_TIME, &[]).observe(own.cpu_s);
    target.handle(&catalog::SELF_RECORDS, &[]).observe(loss.receive.received);
    target.handle(&catalog::SELF_BPF_TIME, &[]).observe(super::seconds(own.bpf_run_ns));
    target.handle(&catalog::SELF_BPF_RUNS, &[]).observe(own.bpf_run_count);
    let mut probes = [("attached", 0), ("missing", 0), ("expensive", 0)];
    for library in coverage {
        let counts = [library.attached, library.missing.len(), library.expensive.len()];
        probes.iter_mut().zip(counts).for_each(|((_, sum), count)| *sum += count);
    }
    for (state, count) in probes {
        let state = [(name::GPUSPAN_PROBE_STATE, Value::Str(state.into()))];
        target.handle(&catalog::SELF_PROBES, &state).set(i64::try_from(count).unwrap_or(i64::MAX));
    }
}

/// What an agent does with its targets.
pub fn agent(own: &Target, levels: impl Iterator<Item = &'static str>, stepped_down: u64, off: bool) {
    // Also those that no target has: a series that is away is no zero.
    let mut targets = ["events", "aggregate", "requests", "off"].map(|level| (level, 0));
    for level in levels {
        targets.iter_mut().filter(|(of, _)| *of == level).for_each(|(_, count)| *count += 1);
    }
    for (level, count) in targets {
        let level = [(name::GPUSPAN_DETAIL_LEVEL, text(level))];
        own.handle(&catalog::AGENT_TARGETS, &level).set(count);
    }
    own.handle(&catalog::AGENT_STEP_DOWNS, &[]).observe(stepped_down);
    own.handle(&catalog::AGENT_OFF, &[]).set(i64::from(off));
}
