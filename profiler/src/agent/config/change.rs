//! What a changed file changes. In: two configurations. Out: each key that differs, and whether it takes effect while the
//! agent runs.

use super::Config;
use serde_json::Value;
use std::collections::BTreeSet;

/// When a change takes effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Effect {
    /// At once, without losing a target.
    Now,
    /// When the agent is started again; until then the old value stands.
    Restart,
}

/// A key that differs.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Change {
    /// From the top: `budget.target`.
    pub key: String,
    /// When it takes effect.
    pub effect: Effect,
}

/// Keys that take effect at once, with what is under them. Everything else has threads, sockets or maps made for it.
const NOW: [&str; 5] = ["discover", "budget", "limits", "detail", "export.interval"];
/// And which of those do not.
const YET_RESTART: [&str; 1] = ["budget.off_file"];

/// The keys that differ, in their order.
#[must_use]
pub fn changes(old: &Config, new: &Config) -> Vec<Change> {
    let as_value = |config: &Config| serde_json::to_value(config).unwrap_or_default();
    let mut keys = BTreeSet::new();
    differ("", &as_value(old), &as_value(new), &mut keys);
    let under = |key: &str, keys: &[&str]| {
        keys.iter()
            .any(|known| key.strip_prefix(known).is_some_and(|rest| rest.is_empty() || rest.starts_with('.')))
    };
    let effect = |key: &str| match under(key, &NOW) && !under(key, &YET_RESTART) {
        true => Effect::Now,
        false => Effect::Restart,
    };
    keys.into_iter().map(|key| Change { effect: effect(&key), key }).collect()
}

/// Lists are whole: of rules each depends on those before it.
fn differ(at: &str, old: &Value, new: &Value, keys: &mut BTreeSet<String>) {
    if old == new {
        return;
    }
    let (Value::Object(old), Value::Object(new)) = (old, new) else {
        keys.insert(at.to_owned());
        return;
    };
    for key in old.keys().chain(new.keys()).collect::<BTreeSet<_>>() {
        let at = if at.is_empty() { key.clone() } else { format!("{at}.{key}") };
        let of = |map: &serde_json::Map<String, Value>| map.get(key).cloned().unwrap_or_default();
        differ(&at, &of(old), &of(new), keys);
    }
}
