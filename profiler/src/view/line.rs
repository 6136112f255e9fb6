//! Plain lines, for output that is no terminal: one every few seconds, and the account at the end.

use super::account::account;
use super::{View, Whom, bytes};
use crate::account::Summary;
use crate::attach::Detail;
use crate::session::Session;
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
    fn show(&mut self, whom: &Whom, session: &Session, elapsed: Duration) {
        if elapsed < self.next {
            return;
        }
        self.next = elapsed + PERIOD;
        let work = &session.engine.totals().work;
        print(&format!(
            "{:>6.1} s  {}  {} active, {} done  {} launches, {} graphs  {} copies, {}{}\n",
            elapsed.as_secs_f64(),
            whom.server,
            session.engine.active_requests(),
            session.requests.total,
            work.launches,
            work.graph_launches,
            work.copy_count(),
            bytes(work.copy_bytes()),
            if whom.detail == Detail::Aggregate { "  counted in the kernel" } else { "" },
        ));
    }

    fn finish(&mut self, summary: &Summary, session: &Session) {
        print(&account(summary, session));
    }
}

fn print(text: &str) {
    let mut out = std::io::stdout().lock();
    // A reader that went away ends the output, not the observation.
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}
