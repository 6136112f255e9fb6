//! Text → [`Config`]. In: YAML. Out: a configuration that makes sense, or what is wrong, where, and what to write instead.

use super::Config;
use crate::attach::RING_BYTES;
use crate::device::SHORTEST;
use crate::discover::Rules;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// A larger file is none of ours.
const MOST_BYTES: u64 = 1 << 20;
/// How alike a key must be to be meant (Jaro-Winkler, 1 is the same).
const ALIKE: f64 = 0.8;
/// Keys under which people look for a place for credentials.
const SECRETS: [&str; 9] = [
    "headers",
    "authorization",
    "token",
    "password",
    "user",
    "username",
    "api_key",
    "secret",
    "bearer_token",
];
/// Shortest and longest time between two looks at processes: less costs more than it tells, more finds servers late.
const LOOKS: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(60));
/// The most targets that may be asked for: beyond it tables are too small.
const MOST_TARGETS: usize = 1024;
/// With less memory than this the agent cannot even hold its tables.
const LEAST_MEMORY: u64 = 64 << 20;
/// A request has up to half a megabyte, and one a few seconds is the least that can be of use.
const LEAST_NETWORK: u64 = 64 << 10;

/// A configuration that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// No file.
    #[error("failed to read {0}")]
    File(PathBuf, #[source] std::io::Error),
    /// Not what was expected.
    #[error("{file}:{line}:{column}: {what}")]
    Text {
        /// The file.
        file: String,
        /// From 1.
        line: u64,
        /// From 1.
        column: u64,
        /// What is wrong, and what to write.
        what: String,
    },
    /// A value that makes no sense.
    #[error("{file}: {key}: {what}")]
    Value {
        /// The file.
        file: String,
        /// Which key, from the top.
        key: &'static str,
        /// What is wrong, and what to write.
        what: String,
    },
}

/// Reads a file.
///
/// # Errors
/// See [`ConfigError`].
pub fn read(path: &Path) -> Result<Config, ConfigError> {
    let failed = |error| ConfigError::File(path.to_owned(), error);
    let length = std::fs::metadata(path).map_err(failed)?.len();
    if length > MOST_BYTES {
        return Err(failed(std::io::Error::other(format!("it has {length} bytes, more than {MOST_BYTES}"))));
    }
    parse(&std::fs::read_to_string(path).map_err(failed)?, &path.to_string_lossy())
}

/// Reads text; `file` is what errors call it.
///
/// # Errors
/// See [`ConfigError`].
pub fn parse(text: &str, file: &str) -> Result<Config, ConfigError> {
    let is_empty = |line: &str| line.trim_start().starts_with('#') || line.trim().is_empty();
    let config = if text.lines().all(is_empty) {
        Config::default()
    } else {
        let options = serde_saphyr::options! { with_snippet: false };
        serde_saphyr::from_str_with_options(text, options).map_err(|error| explain(&error, file))?
    };
    check(&config).map_err(|(key, what)| ConfigError::Value { file: file.to_owned(), key, what })?;
    Ok(config)
}

/// The word that was probably meant.
pub fn nearest<'a, T: AsRef<str> + 'a>(word: &str, known: impl IntoIterator<Item = T>) -> Option<String> {
    let likeness = |known: &T| strsim::jaro_winkler(word, known.as_ref());
    let alike =
        known.into_iter().map(|known| (likeness(&known), known)).filter(|(likeness, _)| *likeness > ALIKE);
    alike.max_by(|left, right| left.0.total_cmp(&right.0)).map(|(_, known)| known.as_ref().to_owned())
}

fn explain(error: &serde_saphyr::Error, file: &str) -> ConfigError {
    use serde_saphyr::Error;
    let error = error.without_snippet();
    let (line, column) = error.location().map_or((1, 1), |at| (at.line(), at.column()));
    let what = match error {
        Error::SerdeUnknownField { field, expected, .. } => unknown("key", field, expected),
        Error::SerdeUnknownVariant { variant, expected, .. } => unknown("value", variant, expected),
        other => {
            // The parser's own message ends in the place, which is told before it.
            let text = other.to_string();
            text.split(" at line ").next().unwrap_or(&text).trim_start_matches("error: ").to_owned()
        }
    };
    ConfigError::Text { file: file.to_owned(), line, column, what }
}

fn unknown(what: &str, word: &str, expected: &[&str]) -> String {
    if what == "key" && SECRETS.contains(&word.to_ascii_lowercase().as_str()) && !expected.contains(&word) {
        return format!(
            "unknown key `{word}`: credentials do not stand here; write them into a file and name it in \
             export.headers_file or kubernetes.token_file"
        );
    }
    let hint = nearest(word, expected).map_or_else(String::new, |word| format!(", did you mean `{word}`?"));
    format!("unknown {what} `{word}`{hint} (known: {})", expected.join(", "))
}

/// What is well written and makes no sense.
fn check(config: &Config) -> Result<(), (&'static str, String)> {
    let wrong = |key, is_right: bool, what: &str| if is_right { Ok(()) } else { Err((key, what.to_owned())) };
    let share = |share: f64| share > 0.0 && share <= 64.0;
    let interval = config.discover.interval.0;
    let ring = u32::try_from(config.kernel.ring.0).unwrap_or(0);
    let (shortest, longest) = LOOKS;
    wrong("discover.interval", (shortest..=longest).contains(&interval), "must be between 200ms and 60s")?;
    wrong(
        "discover.most_targets",
        (1..=MOST_TARGETS).contains(&config.discover.most_targets),
        "must be between 1 and 1024",
    )?;
    wrong("budget.target", share(config.budget.target.0), "must be above 0%")?;
    wrong("budget.node", share(config.budget.node.0), "must be above 0%")?;
    wrong(
        "budget.node",
        config.budget.node.0 >= config.budget.target.0,
        "must not be less than budget.target, since it is for all targets together",
    )?;
    wrong(
        "budget.canary",
        config.budget.canary.0 <= Duration::from_secs(600),
        "must not be longer than 10m",
    )?;
    wrong(
        "budget.linger",
        config.budget.linger.0 <= Duration::from_secs(3600),
        "must not be longer than 1h",
    )?;
    wrong("budget.off_file", config.budget.off_file.is_absolute(), "must be an absolute path")?;
    wrong("limits.memory", config.limits.memory.0 >= LEAST_MEMORY, "must be 64MiB or more")?;
    wrong(
        "kernel.ring",
        ring.is_power_of_two() && ring >= 4096 && u64::from(ring) < config.limits.memory.0,
        &format!(
            "must be a power of two of 4KiB or more, and less than limits.memory; the default is {RING_BYTES}B"
        ),
    )?;
    wrong("limits.cpu", share(config.limits.cpu.0), "must be above 0%")?;
    wrong("limits.network", config.limits.network.0 >= LEAST_NETWORK, "must be 64KiB or more")?;
    wrong(
        "devices.interval",
        config.devices.interval.0 >= SHORTEST,
        "must be 100ms or more: devices are no faster",
    )?;
    let sample = config.traces.sample.is_none_or(|sample| (0.0..=1.0).contains(&sample.0));
    wrong("traces.sample", sample, "must be between 0% and 100%")?;
    let some = config.export.interval.is_none_or(|interval| !interval.0.is_zero());
    wrong("export.interval", some, "must be longer than nothing")?;
    for (key, url) in [
        ("export.otlp_endpoint", &config.export.otlp_endpoint),
        ("kubernetes.api", &config.kubernetes.api),
        ("kubernetes.kubelet", &config.kubernetes.kubelet),
    ] {
        let Some(url) = url else { continue };
        let with_scheme = if url.contains("://") { url.clone() } else { format!("http://{url}") };
        let is_url = reqwest::Url::parse(&with_scheme).is_ok_and(|url| url.has_host());
        wrong(key, is_url, "is no URL such as http://localhost:4317")?;
        wrong(
            key,
            !has_secret(url),
            "holds a user, a password or a key; write credentials into a file and name it in export.headers_file or \
             kubernetes.token_file",
        )?;
    }
    Rules::new(&config.discover.rules).map_err(|error| ("discover.rules", error.to_string()))?;
    Ok(())
}

/// A user or password before the host, or a key behind the path.
fn has_secret(url: &str) -> bool {
    let query = url.split_once('?').map_or("", |(_, query)| query).to_ascii_lowercase();
    let keys = ["key", "token", "secret", "password", "auth", "sig"];
    url.contains('@')
        || query
            .split('&')
            .any(|pair| keys.iter().any(|key| pair.split('=').next().unwrap_or("").contains(key)))
}
