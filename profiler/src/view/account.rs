//! What an observation came to, for people: a line for each thing that was seen, none for what was not.

use super::{bytes, duration, percentiles, tree};
use crate::account::Summary;
use crate::session::{Finished, Session};

/// What an observation came to, for people.
pub fn account(summary: &Summary, session: &Session) -> String {
    let ttft =
        session.recent.iter().filter_map(|finished| finished.request.time_to_first_token_ns()).collect();
    let ttft = percentiles(ttft).map_or_else(String::new, |(middle, high)| {
        format!(", time to first token p50 {} p99 {}", duration(middle), duration(high))
    });
    let outcomes: Vec<_> =
        summary.requests.by_outcome.iter().map(|(outcome, count)| format!("{count} {outcome}")).collect();
    let outcomes = if outcomes.is_empty() { "none seen".to_owned() } else { outcomes.join(", ") };
    let (count, moved) = summary.copies.values().fold((0, 0), |sum, c| (sum.0 + c.count, sum.1 + c.bytes));
    let kernels = summary.launches.by_kernel.iter().filter(|kernel| kernel.symbol.is_some()).count();
    let probes: usize = summary.coverage.iter().map(|coverage| coverage.attached).sum();
    let loss = match (summary.loss.balanced, summary.loss.lost) {
        (true, 0) => "nothing lost, all counts add up".to_owned(),
        (true, lost) => format!("{lost} records lost and counted"),
        (false, lost) => {
            format!("{lost} records lost, and the counts DO NOT add up: see `loss` in --summary")
        }
    };
    let account = format!(
        "\nobserved {} (pid {}) for {:.1} s\n\
         requests  {} ({outcomes}){ttft}\n\
         tokens    {} in, {} out, as the server reported them\n\
         launches  {} by {kernels} named kernels, {} graphs\n\
         copies    {count}, {}\n\
         steps     {}, GPU busy between {} and {}\n\
         account   {loss}; {probes} probes; own CPU {:.2} s, {} resident; detached in {:.0} ms\n",
        summary.target.server,
        summary.target.pid,
        summary.window_s,
        summary.requests.total,
        summary.requests.input_tokens,
        summary.requests.output_tokens,
        summary.launches.total,
        summary.launches.graph_launches,
        bytes(moved),
        summary.steps.total,
        duration(summary.steps.gpu_ns.bounded_lo),
        duration(summary.steps.gpu_ns.bounded_hi),
        summary.own.cpu_s,
        bytes(summary.own.max_rss_bytes),
        summary.own.detach_ms,
    );
    account + &blind(summary) + &memory(summary) + &failures(summary) + &stacks(summary) + &slowest(session)
}

/// What requests may have gone unseen.
fn blind(summary: &Summary) -> String {
    let unread = summary.connections.tls_unread;
    let mut text = String::new();
    if unread > 0 {
        text += &format!("unread    {unread} connections with TLS of a library that cannot be probed\n");
    }
    for blind in summary.blind.iter().take(FEW) {
        text += &format!("blind     process {}: {}\n", blind.pid, blind.reason);
    }
    text
}

/// The slowest of the newest inference requests, as a tree.
fn slowest(session: &Session) -> String {
    let took = |finished: &&Finished| finished.request.ended_ns.saturating_sub(finished.request.opened_ns);
    let traced = |finished: &&Finished| finished.request.is_inference() && !finished.spans.is_empty();
    match session.recent.iter().filter(traced).max_by_key(took) {
        Some(finished) => format!("\nthe slowest request\n{}", tree(&finished.spans)),
        None => String::new(),
    }
}

/// Live and peak memory, and who asked for the large pieces.
fn memory(summary: &Summary) -> String {
    let accounts = summary.memory.iter().filter(|(_, totals)| totals.allocations > 0);
    let mut text: String = accounts
        .map(|(name, totals)| {
            let place = match name.as_str() {
                "unknown" => "on devices that are not known".to_owned(),
                device if device.parse::<u32>().is_ok() => format!("on device {device}"),
                kind => kind.to_owned(),
            };
            format!(
                "memory    {place}: peak {}, {} live\n",
                bytes(totals.peak_bytes),
                bytes(totals.live_bytes)
            )
        })
        .collect();
    for reserved in summary.reservations.iter().take(FEW) {
        let (count, library) = (reserved.count, &reserved.library);
        let (all, largest) = (bytes(reserved.bytes), bytes(reserved.largest_bytes));
        text +=
            &format!("          {library} asked for {all} in {count} large pieces, the largest {largest}\n");
    }
    text
}

fn failures(summary: &Summary) -> String {
    let each = summary.failures.iter().flat_map(|(function, errors)| {
        errors.iter().map(move |(error, count)| format!("failed    {function}: {error} × {count}\n"))
    });
    let mut text: String = each.take(FEW).collect();
    for asked in summary.out_of_memory.last.iter().rev().take(FEW) {
        let device = asked.device.map_or_else(String::new, |device| format!(" on device {device}"));
        text += &format!("no room   {} asked for {}{device}\n", asked.function, bytes(asked.bytes));
    }
    text
}

fn stacks(summary: &Summary) -> String {
    let stacks = &summary.stacks;
    if stacks.samples == 0 {
        return String::new();
    }
    let mut text = format!("stacks    {} launches sampled\n", stacks.samples);
    for stack in stacks.top.iter().take(FEW) {
        // The outermost frames of a server are all alike: the innermost ones tell.
        let inner = stack.frames.len().saturating_sub(INNER_FRAMES);
        let frames = stack.frames.get(inner..).unwrap_or_default().join(" > ");
        text += &format!("          {:>6} × {}  from {frames}\n", stack.count, stack.kernel);
    }
    text
}

/// Lines that a list takes at most.
const FEW: usize = 5;
/// Frames of a stack that a line shows.
const INNER_FRAMES: usize = 6;
