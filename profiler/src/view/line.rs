//! Plain lines, for output that is no terminal: one every few seconds, and the account at the end.

use super::{View, bytes, duration, percentiles, tree};
use crate::account::Summary;
use crate::control::Control;
use crate::session::{Finished, Session};
use std::io::Write as _;
use std::time::Duration;

/// Between two lines: a log that is read later wants the course of things, not every tick.
const PERIOD: Duration = Duration::from_secs(5);

/// Prints lines.
#[derive(Default)]
pub struct Lines {
    next: Duration,
}

impl View for Lines {
    fn show(&mut self, control: &Control, session: &Session, elapsed: Duration) {
        if elapsed < self.next {
            return;
        }
        self.next = elapsed + PERIOD;
        let work = &session.engine.totals().work;
        print(&format!(
            "{:>6.1} s  {}  {} active, {} done  {} launches, {} graphs  {} copies, {}\n",
            elapsed.as_secs_f64(),
            control.server,
            session.engine.active_requests(),
            session.requests.total,
            work.launches,
            work.graph_launches,
            work.copy_count(),
            bytes(work.copy_bytes()),
        ));
    }

    fn finish(&mut self, summary: &Summary, session: &Session) {
        print(&account(summary, session));
    }
}

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
    account + &slowest(session)
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

fn print(text: &str) {
    let mut out = std::io::stdout().lock();
    // A reader that went away ends the output, not the observation.
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}
