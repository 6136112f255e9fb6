//! How the agent is, for whoever asks: `/healthz`, `/readyz`, `/targets`. In: what the controlling thread writes down now and
//! then. Out: pages. No page waits for that thread, so that one which hangs is seen.

use super::budget::Level;
use crate::discover::Passed;
use crate::export::{Page, Pages};
use crate::kubernetes;
use serde::Serialize;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// A controlling thread that has written nothing for so long hangs: attaching to a large process takes a second or two.
const HANGS: Duration = Duration::from_secs(20);

/// A target, as `/targets` tells it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct TargetStatus {
    /// Its topmost process.
    pub pid: u32,
    /// `service.name`.
    pub name: String,
    /// The server that it was recognised as.
    pub server: &'static str,
    /// Why it is one.
    pub why: String,
    /// How much of it is observed.
    pub level: Level,
    /// Its processes.
    pub processes: Vec<u32>,
    /// Of these, those with probes in a GPU library.
    pub gpu_processes: usize,
    /// What it is slowed down by, as a share of one core.
    pub cost: f64,
    /// Requests that have finished.
    pub requests: u64,
    /// Since when, seconds.
    pub observed_s: u64,
}

/// Everything that pages are made of.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Report {
    /// Why nothing is observed although there may be targets.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub off: Option<String>,
    /// What is observed.
    pub targets: Vec<TargetStatus>,
    /// How asking for pods goes, where they are asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kubernetes: Option<kubernetes::Status>,
    /// What was looked at and is not.
    pub passed: Vec<Passed>,
    /// Why the agent is not ready.
    #[serde(skip)]
    pub not_ready: Option<String>,
}

/// Shared between the controlling thread and whoever asks.
#[derive(Debug)]
pub struct Status(Mutex<(Instant, Report)>);

impl Default for Status {
    fn default() -> Self {
        let starting = Report { not_ready: Some("starting".to_owned()), ..Report::default() };
        Self(Mutex::new((Instant::now(), starting)))
    }
}

impl Status {
    /// The controlling thread is alive, and this is how things stand.
    pub fn tell(&self, report: Report) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = (Instant::now(), report);
    }

    /// The controlling thread is alive.
    pub fn alive(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).0 = Instant::now();
    }

    fn health(&self) -> Page {
        let silent = self.0.lock().unwrap_or_else(PoisonError::into_inner).0.elapsed();
        if silent < HANGS {
            return text(200, "ok\n".to_owned());
        }
        text(503, format!("the controlling thread has been silent for {} s\n", silent.as_secs()))
    }

    fn readiness(&self) -> Page {
        let guard = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match &guard.1.not_ready {
            None => text(200, "ready\n".to_owned()),
            Some(why) => text(503, format!("{why}\n")),
        }
    }

    fn targets(&self) -> Page {
        let guard = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let body = serde_json::to_string_pretty(&guard.1).unwrap_or_default() + "\n";
        Page { status: 200, media: "application/json", body }
    }
}

impl Pages for Status {
    fn page(&self, path: &str) -> Option<Page> {
        match path {
            "/healthz" => Some(self.health()),
            "/readyz" => Some(self.readiness()),
            "/targets" => Some(self.targets()),
            _ => None,
        }
    }
}

fn text(status: u16, body: String) -> Page {
    Page { status, media: "text/plain; charset=utf-8", body }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_that_hangs_is_not_healthy() {
        let status = Status::default();
        assert_eq!(status.page("/healthz").unwrap().status, 200);
        let past = Instant::now().checked_sub(HANGS).unwrap();
        status.0.lock().unwrap().0 = past;
        assert_eq!(status.page("/healthz").unwrap().status, 503);
        status.alive();
        assert_eq!(status.page("/healthz").unwrap().status, 200);
    }

    #[test]
    fn it_is_ready_when_it_says_so_and_tells_targets() {
        let status = Status::default();
        assert_eq!(status.page("/readyz"), Some(text(503, "starting\n".to_owned())));
        let target = TargetStatus {
            pid: 7,
            name: "chat".to_owned(),
            server: "vllm",
            why: "its command line".to_owned(),
            level: Level::Aggregate,
            processes: vec![7, 8],
            gpu_processes: 1,
            cost: 0.01,
            requests: 3,
            observed_s: 60,
        };
        status.tell(Report { targets: vec![target], ..Report::default() });
        assert_eq!(status.page("/readyz").unwrap().status, 200);
        let targets: serde_json::Value =
            serde_json::from_str(&status.page("/targets").unwrap().body).unwrap();
        assert_eq!(targets["targets"][0]["level"], "aggregate");
        assert_eq!(targets["off"], serde_json::Value::Null);
        assert_eq!(status.page("/"), None);
    }
}
