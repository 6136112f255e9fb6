//! What discovery tells: targets, what was passed over, and what can be chosen about it. Plain data.

use super::rules::Rule;

/// Default of [`Settings::most_targets`]: the largest nodes have 16 GPUs, cut into 7 each at most.
pub const MOST_TARGETS: usize = 64;
/// What can be chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Targets at once, at most.
    pub most_targets: usize,
}

impl Default for Settings {
    fn default() -> Self {
        Self { most_targets: MOST_TARGETS }
    }
}

/// A target.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Found {
    /// The topmost process that belongs to it.
    pub root: u32,
    /// When that began, clock ticks since boot: with the pid it names the target for good.
    pub start_ticks: u64,
    /// What it was recognised as.
    pub server: &'static str,
    /// `service.name`, where a rule gives one.
    pub name: Option<String>,
    /// Further resource attributes of the rule.
    pub attributes: Vec<(String, String)>,
    /// Why it is one.
    pub why: String,
}

/// A process that was looked at closer and is no target.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Passed {
    /// Its number.
    pub pid: u32,
    /// Its short name.
    pub comm: String,
    /// Why it is none.
    pub why: String,
}

/// What a look came to.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Look {
    /// All targets, in the order of their pids.
    pub found: Vec<Found>,
    /// What else came into question.
    pub passed: Vec<Passed>,
}

impl Found {
    /// Takes name and attributes from a rule, or has none.
    pub(super) fn named_by(&mut self, rule: Option<&Rule>) {
        self.name = rule.and_then(|rule| rule.name.clone());
        let attributes = rule.into_iter().flat_map(|rule| &rule.attributes);
        self.attributes = attributes.map(|(key, value)| (key.clone(), value.clone())).collect();
    }
}
