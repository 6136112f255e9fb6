//! How the messages of vLLM's engine lie, by version, as data.
//!
//! vLLM writes its messages as MessagePack arrays without names (`array_like` structures of msgspec, always at full
//! length), so what an item means is its place, and places moved. The tables are read off `vllm/v1/engine/__init__.py`
//! of the named versions, and of 0.9.2, 0.12, 0.17, 0.22 and 0.24, which have the form of the next. The lengths are a fingerprint: no two listed versions have the same three. A message of a
//! length that is not listed is read as the newest listed version that all its items agree with: vLLM appends new
//! fields behind the old ones, so a field more at the end does no harm, while one in the middle moves items to places
//! where their types are wrong.
//!
//! What is deliberately absent: fields that say nothing of requests, steps or counts; they are only type-checked.

/// What may stand at a place. Every item is checked, also those that are not used: that is what tells versions apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Field {
    /// The id of a request.
    Id,
    /// Token ids of a prompt, or nothing.
    Prompt,
    /// `SamplingParams`: a map, where the request generates.
    Sampling,
    /// `PoolingParams`: a map, where it does not.
    Pooling,
    /// `time.time()`.
    WallClock,
    /// Which front end asks.
    Client,
    /// The id by which the front end knows the request.
    ExternalId,
    /// Token ids that came out.
    NewTokens,
    /// A `FinishReason`, or nothing.
    Finish,
    /// What stopped it: a token id, a text, or nothing.
    StopReason,
    /// Events with stamps of `time.monotonic()`, or nothing.
    Events,
    /// `PrefillStats`: a map, or nothing.
    PrefillStats,
    /// Prompt tokens found in the prefix cache.
    CachedTokens,
    /// A number that is not used.
    Count,
    /// A number or nothing, not used.
    CountOrNil,
    /// A truth value, not used.
    Flag,
    /// A truth value or nothing, not used.
    FlagOrNil,
    /// Text or nothing, not used.
    TextOrNil,
    /// A map or nothing, not used.
    MapOrNil,
    /// An array or nothing, not used.
    ListOrNil,
    /// Nothing, or anything with parts or bytes (tensors, structures), not used.
    Compound,
}

/// How the messages of a version lie.
#[derive(Debug)]
pub struct Version {
    /// The version that it was read off.
    pub name: &'static str,
    /// What a version is called that agrees with this one, but is not listed.
    pub beyond: &'static str,
    /// `EngineCoreRequest`.
    pub request: &'static [Field],
    /// `EngineCoreOutput`.
    pub output: &'static [Field],
    /// Length of `EngineCoreOutputs`, of which the first eight places never moved.
    pub outputs: u32,
    /// Values of `FinishReason`, from 0 on.
    pub reasons: u64,
}

impl Version {
    /// The front end appends eight random hexadecimal digits to a request's id, unless
    /// `VLLM_DISABLE_REQUEST_ID_RANDOMIZATION` is set, and says what it was before: both came with 0.14.
    #[must_use]
    pub fn random_ids(&self) -> bool {
        self.request.contains(&Field::ExternalId)
    }

    /// Its outputs lie as those of the other.
    #[must_use]
    pub fn answers_like(&self, other: &Self) -> bool {
        self.output == other.output && self.outputs == other.outputs && self.reasons == other.reasons
    }
}

use Field::{
    CachedTokens, Client, Compound, Count, CountOrNil, Events, ExternalId, Finish, Flag, FlagOrNil, Id,
    ListOrNil, MapOrNil, NewTokens, Pooling, PrefillStats, Prompt, Sampling, StopReason, TextOrNil,
    WallClock,
};

/// The listed versions, oldest first: the last ones that had each form.
pub static VERSIONS: [Version; 16] = [
    version("0.8.5", "like 0.8.5", REQUEST_8_5, OUTPUT_8_5, 8, 3),
    version("0.9", "like 0.9", REQUEST_9, OUTPUT_9, 8, 3),
    version("0.10", "like 0.10", REQUEST_10, OUTPUT_10, 8, 3),
    version("0.10.2", "like 0.10.2", REQUEST_10_2, OUTPUT_10_2, 8, 3),
    version("0.11", "like 0.11", REQUEST_11, OUTPUT_10_2, 8, 3),
    version("0.13", "like 0.13", REQUEST_11, OUTPUT_13, 8, 4),
    version("0.14", "like 0.14", REQUEST_14, OUTPUT_14, 8, 4),
    version("0.16", "like 0.16", REQUEST_16, OUTPUT_16, 8, 4),
    version("0.18", "like 0.18", REQUEST_18, OUTPUT_16, 8, 5),
    version("0.20", "like 0.20", REQUEST_18, OUTPUT_20, 8, 5),
    version("0.25", "like 0.25", REQUEST_25, OUTPUT_20, 8, 5),
    version("0.27", "like 0.27", REQUEST_25, OUTPUT_27, 8, 5),
    version("0.29", "like 0.29", REQUEST_29, OUTPUT_29, 8, 5),
    version("0.31", "like 0.31", REQUEST_31, OUTPUT_31, 8, 5),
    version("0.32", "like 0.32", REQUEST_31, OUTPUT_31, 9, 5),
    version("0.33", "like 0.33", REQUEST_31, OUTPUT_33, 9, 5),
];

const fn version(
    name: &'static str,
    beyond: &'static str,
    request: &'static [Field],
    output: &'static [Field],
    outputs: u32,
    reasons: u64,
) -> Version {
    Version { name, beyond, request, output, outputs, reasons }
}

const REQUEST_8_5: &[Field] =
    &[Id, Prompt, Compound, ListOrNil, ListOrNil, Sampling, CountOrNil, WallClock, Compound, Count];

const OUTPUT_8_5: &[Field] = &[Id, NewTokens, Compound, Compound, Finish, StopReason, Events];

const REQUEST_9: &[Field] = &[
    Id, Prompt, Compound, ListOrNil, ListOrNil, Sampling, CountOrNil, WallClock, Compound, TextOrNil, Count,
];

const OUTPUT_9: &[Field] =
    &[Id, NewTokens, Compound, Compound, Finish, StopReason, Events, MapOrNil, CachedTokens];

const REQUEST_10: &[Field] = &[
    Id, Prompt, Compound, ListOrNil, ListOrNil, Sampling, Pooling, CountOrNil, WallClock, Compound,
    TextOrNil, CountOrNil, Client, Count, Count,
];

const OUTPUT_10: &[Field] =
    &[Id, NewTokens, Compound, Compound, Compound, Finish, StopReason, Events, MapOrNil, CachedTokens];

const REQUEST_10_2: &[Field] = &[
    Id, Prompt, ListOrNil, Sampling, Pooling, CountOrNil, WallClock, Compound, TextOrNil, CountOrNil, Client,
    Count, Count, MapOrNil,
];

const OUTPUT_10_2: &[Field] = &[
    Id,
    NewTokens,
    Compound,
    Compound,
    Compound,
    Finish,
    StopReason,
    Events,
    MapOrNil,
    MapOrNil,
    CachedTokens,
];

const REQUEST_11: &[Field] = &[
    Id, Prompt, ListOrNil, Sampling, Pooling, CountOrNil, WallClock, Compound, TextOrNil, CountOrNil,
    Compound, Client, Count, Count, MapOrNil,
];

const OUTPUT_13: &[Field] = &[
    Id,
    NewTokens,
    Compound,
    Compound,
    Compound,
    Finish,
    StopReason,
    Events,
    MapOrNil,
    MapOrNil,
    CachedTokens,
    Count,
];

const REQUEST_14: &[Field] = &[
    Id, Prompt, ListOrNil, Sampling, Pooling, CountOrNil, WallClock, Compound, TextOrNil, CountOrNil,
    Compound, Client, Count, Count, MapOrNil, ExternalId,
];

const OUTPUT_14: &[Field] = &[
    Id,
    NewTokens,
    Compound,
    Compound,
    Compound,
    Finish,
    StopReason,
    Events,
    MapOrNil,
    MapOrNil,
    CachedTokens,
    Compound,
    Count,
];

const REQUEST_16: &[Field] = &[
    Id, Prompt, ListOrNil, Sampling, Pooling, CountOrNil, WallClock, Compound, TextOrNil, CountOrNil,
    Compound, Client, Count, Count, MapOrNil, Flag, ExternalId, FlagOrNil,
];

const OUTPUT_16: &[Field] = &[
    Id,
    NewTokens,
    Compound,
    Compound,
    Compound,
    Finish,
    StopReason,
    Events,
    MapOrNil,
    MapOrNil,
    CachedTokens,
    Count,
    Compound,
    Count,
];

const REQUEST_18: &[Field] = &[
    Id, Prompt, ListOrNil, Sampling, Pooling, WallClock, Compound, TextOrNil, CountOrNil, Compound, Client,
    Count, Count, MapOrNil, Flag, ExternalId, FlagOrNil,
];

const OUTPUT_20: &[Field] = &[
    Id,
    NewTokens,
    Compound,
    Compound,
    Compound,
    Finish,
    StopReason,
    Events,
    MapOrNil,
    MapOrNil,
    PrefillStats,
    Compound,
    Count,
];

const REQUEST_25: &[Field] = &[
    Id, Prompt, ListOrNil, Sampling, Pooling, WallClock, Compound, TextOrNil, CountOrNil, Compound,
    ListOrNil, Client, Count, Count, MapOrNil, Flag, ExternalId, FlagOrNil, MapOrNil, Flag,
];

const OUTPUT_27: &[Field] = &[
    Id,
    NewTokens,
    Compound,
    Compound,
    Compound,
    Finish,
    StopReason,
    Events,
    MapOrNil,
    MapOrNil,
    MapOrNil,
    PrefillStats,
    Compound,
    Count,
];

const REQUEST_29: &[Field] = &[
    Id, Prompt, ListOrNil, Sampling, Pooling, WallClock, Compound, TextOrNil, CountOrNil, Compound,
    ListOrNil, Client, Count, Count, MapOrNil, Flag, ExternalId, FlagOrNil, MapOrNil, Flag, TextOrNil,
];

const OUTPUT_29: &[Field] = &[
    Id,
    NewTokens,
    Compound,
    Compound,
    Compound,
    Finish,
    StopReason,
    Events,
    MapOrNil,
    MapOrNil,
    MapOrNil,
    PrefillStats,
    Compound,
    Count,
    ListOrNil,
    Compound,
    Compound,
];

const REQUEST_31: &[Field] = &[
    Id, Prompt, ListOrNil, Sampling, Pooling, WallClock, Compound, TextOrNil, CountOrNil, Compound,
    ListOrNil, Client, Count, Count, MapOrNil, Flag, ExternalId, FlagOrNil, MapOrNil, Flag, TextOrNil,
    Compound,
];

const OUTPUT_31: &[Field] = &[
    Id,
    NewTokens,
    Compound,
    Compound,
    Compound,
    Finish,
    StopReason,
    Events,
    MapOrNil,
    MapOrNil,
    MapOrNil,
    PrefillStats,
    Compound,
    Count,
    ListOrNil,
    Compound,
    Compound,
    Compound,
];

const OUTPUT_33: &[Field] = &[
    Id,
    NewTokens,
    Compound,
    Compound,
    Compound,
    Finish,
    StopReason,
    Events,
    MapOrNil,
    MapOrNil,
    MapOrNil,
    PrefillStats,
    Compound,
    Count,
    ListOrNil,
    Compound,
    Compound,
    Compound,
    Compound,
];

/// Names of the gauges in `scheduler_stats`, a map whose keys say what they are: `gpu_cache_usage` until 0.9.0, those
/// that are skipped apart since 0.20.
pub const RUNNING: &str = "num_running_reqs";
/// As above.
pub const WAITING: &str = "num_waiting_reqs";
/// As above.
pub const SKIPPED: &str = "num_skipped_waiting_reqs";
/// As above.
pub const KV_USAGE: [&str; 2] = ["kv_cache_usage", "gpu_cache_usage"];

/// The versions that a request of so many items may be read by: those of exactly this length if there are, else the
/// shorter ones, newest first, as vLLM appends. One that is `known` goes first.
pub fn of_request(
    length: u32,
    known: Option<&'static Version>,
) -> impl Iterator<Item = (&'static Version, Match)> {
    let length = usize::try_from(length).unwrap_or(usize::MAX);
    let is_listed = VERSIONS.iter().any(|version| version.request.len() == length);
    known.into_iter().chain(VERSIONS.iter().rev()).filter_map(move |version| match version.request.len() {
        same if same == length => Some((version, Match::Listed)),
        shorter if !is_listed && shorter < length => Some((version, Match::Longer)),
        _ => None,
    })
}

/// The same for an output of so many items in outputs of so many; if there are some that ask like the
/// `asked`, only those.
pub fn of_output(
    length: u32,
    outputs: u32,
    asked: Option<&'static Version>,
) -> impl Iterator<Item = (&'static Version, Match)> {
    let length = usize::try_from(length).unwrap_or(usize::MAX);
    let is_exact = move |version: &Version| version.output.len() == length && version.outputs == outputs;
    let is_listed = VERSIONS.iter().any(is_exact);
    let asks_so = move |version: &Version| asked.is_some_and(|asked| asked.request == version.request);
    let is_asked = VERSIONS.iter().any(|version| is_exact(version) && asks_so(version));
    // A newer engine than is listed asks like the newest that are, or in a form of its own: never like an older one.
    let oldest = VERSIONS.iter().position(asks_so).unwrap_or(0);
    let listed = VERSIONS.iter().enumerate().rev().filter(move |(_, version)| !is_asked || asks_so(version));
    listed.filter_map(move |(place, version)| {
        if is_exact(version) {
            Some((version, Match::Listed))
        } else if !is_listed
            && place >= oldest
            && version.output.len() <= length
            && version.outputs <= outputs
        {
            Some((version, Match::Longer))
        } else {
            None
        }
    })
}

/// How well a length fits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Match {
    /// It is that of the version.
    Listed,
    /// There is more behind the version's last field.
    Longer,
}

/// The newest listed version that is not newer than this one.
#[must_use]
pub fn by_name(version: &str) -> Option<&'static Version> {
    let wanted = numbers(version)?;
    VERSIONS.iter().rev().find(|known| numbers(known.name).is_some_and(|known| known <= wanted))
}

/// `0.32.1.dev4+cpu` → 0, 32, 1.
fn numbers(version: &str) -> Option<(u32, u32, u32)> {
    let mut parts = version.split(['.', '+', '-']);
    let major = parts.next()?.parse().ok()?;
    let minor = parts.next()?.parse().ok()?;
    Some((major, minor, parts.next().and_then(|patch| patch.parse().ok()).unwrap_or(0)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_versions_have_the_same_fingerprint() {
        for (place, version) in VERSIONS.iter().enumerate() {
            for other in VERSIONS.iter().skip(place + 1) {
                assert_ne!(
                    (version.request.len(), version.output.len(), version.outputs),
                    (other.request.len(), other.output.len(), other.outputs),
                    "{} and {}",
                    version.name,
                    other.name
                );
            }
        }
    }

    #[test]
    fn a_version_is_found_by_its_name() {
        for (name, found) in [
            ("0.8.5", Some("0.8.5")),
            ("0.8.4", None),
            ("0.9.1", Some("0.9")),
            ("0.11.0", Some("0.11")),
            ("0.32.0", Some("0.32")),
            ("0.32.1.dev4+cpu", Some("0.32")),
            ("0.33.0", Some("0.33")),
            ("1.0", Some("0.33")),
            ("main", None),
        ] {
            assert_eq!(by_name(name).map(|version| version.name), found, "{name}");
        }
    }

    #[test]
    fn a_longer_message_is_read_by_the_newest_shorter_version() {
        let of = |length, outputs| -> Vec<_> {
            of_output(length, outputs, None).map(|(version, fit)| (version.name, fit)).collect()
        };
        assert_eq!(of(18, 9), [("0.32", Match::Listed)]);
        assert_eq!(of(18, 8), [("0.31", Match::Listed)]);
        assert_eq!(of(13, 8), ["0.25", "0.20", "0.14"].map(|name| (name, Match::Listed)));
        assert_eq!(of(21, 10).first(), Some(&("0.33", Match::Longer)));
        assert_eq!(of(8, 8), [("0.8.5", Match::Longer)]);
        assert_eq!(of(6, 8), []);
        let asked = VERSIONS.iter().find(|version| version.name == "0.20");
        assert_eq!(of_output(13, 8, asked).next().map(|(version, _)| version.name), Some("0.20"));
        let of = |length| of_request(length, None).map(|(version, fit)| (version.name, fit)).next();
        assert_eq!(of(17), Some(("0.20", Match::Listed)));
        assert_eq!(of(30), Some(("0.33", Match::Longer)));
    }
}
