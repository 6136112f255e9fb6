//! Which requests have a trace. In: the operator's word (`OTEL_TRACES_SAMPLER`), the caller's (`traceparent`), the trace
//! id, how long the request took and how it ended. Out: a decision with its reason. Metrics do not depend on it.
//!
//! The decision is made when the request has ended, so slow and failed ones can be kept where the share alone would
//! leave them out.

use super::model::TraceId;
use super::request::Standing;
use crate::correlate::{Outcome, Request};

/// Which traces are chosen.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sampler {
    /// A caller that says whether it samples the trace is heeded.
    pub parent_based: bool,
    /// What holds for traces that begin here, or for all where callers are not heeded.
    pub root: Root,
}

/// Which of the traces that begin here are chosen.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Root {
    /// All.
    On,
    /// None.
    Off,
    /// This share of them, from 0 to 1.
    Ratio(f64),
}

impl Default for Sampler {
    /// `parentbased_always_on`, OpenTelemetry's default.
    fn default() -> Self {
        Self { parent_based: true, root: Root::On }
    }
}

/// A sampler that cannot be had.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum SamplerError {
    /// An unknown name.
    #[error(
        "OTEL_TRACES_SAMPLER={0} is not known and parentbased_always_on stands; use always_on, always_off, traceidratio, or one of them behind parentbased_"
    )]
    Name(String),
    /// No share.
    #[error("OTEL_TRACES_SAMPLER_ARG={0} is no number from 0 to 1, so every trace is sampled")]
    Share(String),
}

impl Sampler {
    /// From `OTEL_TRACES_SAMPLER` and `OTEL_TRACES_SAMPLER_ARG`; what makes no sense is told, and the default stands, as
    /// OpenTelemetry prescribes.
    pub fn parse(name: Option<&str>, argument: Option<&str>) -> (Self, Option<SamplerError>) {
        let given =
            |text: Option<&str>| text.map(str::trim).filter(|text| !text.is_empty()).map(str::to_owned);
        let Some(name) = given(name) else { return (Self::default(), None) };
        let (parent_based, root) = match name.strip_prefix("parentbased_") {
            Some(root) => (true, root),
            None => (false, name.as_str()),
        };
        let of = |root| Self { parent_based, root };
        match root {
            "always_on" => (of(Root::On), None),
            "always_off" => (of(Root::Off), None),
            "traceidratio" => {
                let Some(argument) = given(argument) else { return (of(Root::Ratio(1.0)), None) };
                match argument.parse() {
                    Ok(share @ 0.0..=1.0) => (of(Root::Ratio(share)), None),
                    _ => (of(Root::Ratio(1.0)), Some(SamplerError::Share(argument))),
                }
            }
            _ => (Self::default(), Some(SamplerError::Name(name))),
        }
    }
}

/// Whether a request has a trace, and why.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Decision {
    /// The sampler or the caller chose it.
    Sampled,
    /// It was left out by its share, and is kept because it was slow.
    Slow,
    /// It was left out by its share, and is kept because it failed.
    Failed,
    /// Its caller does not sample it.
    Caller,
    /// It was left out by its share.
    Ratio,
    /// Nothing that begins here is sampled.
    Off,
}

impl Decision {
    /// All of them.
    pub const ALL: [Self; 6] =
        [Self::Sampled, Self::Slow, Self::Failed, Self::Caller, Self::Ratio, Self::Off];

    /// As the metric and the summary spell it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Sampled => "sampled",
            Self::Slow => "slow",
            Self::Failed => "failed",
            Self::Caller => "caller",
            Self::Ratio => "ratio",
            Self::Off => "off",
        }
    }

    /// It has a trace.
    #[must_use]
    pub fn is_kept(self) -> bool {
        matches!(self, Self::Sampled | Self::Slow | Self::Failed)
    }
}

/// How traces are chosen.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Choice {
    /// The sampler.
    pub sampler: Sampler,
    /// From this duration on a request is kept although its share leaves it out, nanoseconds.
    pub keep_slow_ns: Option<u64>,
    /// A caller's word that it does not sample a trace is not heeded.
    pub ignore_unsampled: bool,
}

impl Choice {
    /// Whether a request has a trace.
    #[must_use]
    pub fn decide(&self, request: &Request, standing: &Standing) -> Decision {
        let Sampler { parent_based, root } = self.sampler;
        let refused = standing.caller.is_some_and(|caller| !caller.sampled()) && !self.ignore_unsampled;
        match (root, standing.caller) {
            _ if parent_based && refused => Decision::Caller,
            (_, Some(caller)) if parent_based && caller.sampled() => Decision::Sampled,
            (Root::On, _) => Decision::Sampled,
            (Root::Off, _) => Decision::Off,
            (Root::Ratio(share), _) if is_in_share(standing.trace_id, share) => Decision::Sampled,
            // What its caller does not want is not brought back.
            (Root::Ratio(_), _) if refused => Decision::Ratio,
            (Root::Ratio(_), _) => self.brought_back(request),
        }
    }

    fn brought_back(&self, request: &Request) -> Decision {
        let took_ns = request.ended_ns.saturating_sub(request.opened_ns);
        match request.outcome {
            Outcome::Error | Outcome::Lost => Decision::Failed,
            _ if self.keep_slow_ns.is_some_and(|slow_ns| took_ns >= slow_ns) => Decision::Slow,
            _ => Decision::Ratio,
        }
    }
}

/// By the 56 random bits of the trace id (W3C Trace Context level 2), so that everybody who samples the same share by
/// them chooses the same traces (OpenTelemetry, probability sampling).
fn is_in_share(trace_id: TraceId, share: f64) -> bool {
    const BITS: u32 = 56;
    let random = u128::from_be_bytes(trace_id) as u64 & ((1 << BITS) - 1);
    let threshold = ((1.0 - share) * (1u64 << BITS) as f64).round() as u64;
    random >= threshold
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::TraceParent;

    fn request(took_ns: u64, outcome: Outcome) -> Request {
        let mut request = Request::for_test();
        (request.opened_ns, request.ended_ns, request.outcome) = (1000, 1000 + took_ns, outcome);
        request
    }

    fn standing(last: u8, flags: Option<u8>) -> Standing {
        let mut trace_id = [1; 16];
        trace_id[9] = last;
        let caller = flags.map(|flags| TraceParent { trace_id, parent: [2; 8], flags });
        Standing { trace_id, span_id: [3; 8], caller, within: false }
    }

    #[test]
    fn samplers_are_read_as_opentelemetry_spells_them() {
        let parse = |name, argument| Sampler::parse(name, argument);
        let of = |parent_based, root| Sampler { parent_based, root };
        for (name, argument, sampler) in [
            (None, None, of(true, Root::On)),
            (Some(" "), Some("0.5"), of(true, Root::On)),
            (Some("always_on"), None, of(false, Root::On)),
            (Some("parentbased_always_off"), None, of(true, Root::Off)),
            (Some("traceidratio"), Some("0.25"), of(false, Root::Ratio(0.25))),
            (Some("parentbased_traceidratio"), Some("1e-3"), of(true, Root::Ratio(0.001))),
            (Some("parentbased_traceidratio"), None, of(true, Root::Ratio(1.0))),
        ] {
            assert_eq!(parse(name, argument), (sampler, None), "{name:?} {argument:?}");
        }
        for share in ["2", "-0.1", "x", "NaN"] {
            let (sampler, error) = parse(Some("traceidratio"), Some(share));
            assert_eq!(sampler.root, Root::Ratio(1.0));
            assert_eq!(error, Some(SamplerError::Share(share.to_owned())));
        }
        let (sampler, error) = parse(Some("xray"), None);
        assert_eq!((sampler, error), (Sampler::default(), Some(SamplerError::Name("xray".to_owned()))));
    }

    #[test]
    fn the_caller_is_heeded_and_slow_and_failed_ones_are_kept() {
        let ratio = Choice {
            sampler: Sampler { parent_based: true, root: Root::Ratio(0.5) },
            keep_slow_ns: Some(500),
            ignore_unsampled: false,
        };
        let off = Choice { sampler: Sampler { parent_based: true, root: Root::Off }, ..ratio };
        let alone = Choice { sampler: Sampler { parent_based: false, ..ratio.sampler }, ..ratio };
        let deaf = Choice { ignore_unsampled: true, ..ratio };
        let on = Choice { sampler: Sampler { parent_based: false, root: Root::On }, ..ratio };
        let (fast, slow) = (request(10, Outcome::Completed), request(500, Outcome::Completed));
        let failed = request(10, Outcome::Error);
        for (choice, request, standing, decision) in [
            (ratio, &fast, standing(0xff, None), Decision::Sampled),
            (ratio, &fast, standing(0, None), Decision::Ratio),
            (ratio, &slow, standing(0, None), Decision::Slow),
            (ratio, &failed, standing(0, None), Decision::Failed),
            (ratio, &fast, standing(0, Some(1)), Decision::Sampled),
            (ratio, &slow, standing(0xff, Some(0)), Decision::Caller),
            (ratio, &failed, standing(0xff, Some(2)), Decision::Caller),
            (deaf, &fast, standing(0xff, Some(0)), Decision::Sampled),
            (deaf, &fast, standing(0, Some(0)), Decision::Ratio),
            (deaf, &failed, standing(0, Some(0)), Decision::Failed),
            (alone, &fast, standing(0, Some(1)), Decision::Ratio),
            (alone, &failed, standing(0, Some(0)), Decision::Ratio),
            (alone, &failed, standing(0, Some(1)), Decision::Failed),
            (on, &fast, standing(0, Some(0)), Decision::Sampled),
            (off, &failed, standing(0xff, None), Decision::Off),
            (off, &fast, standing(0, Some(1)), Decision::Sampled),
        ] {
            assert_eq!(choice.decide(request, &standing), decision, "{choice:?} {standing:?}");
        }
    }

    #[test]
    fn the_share_is_kept() {
        let ids = crate::span::Ids::new(5);
        for (share, expected) in [(0.0, 0..=0), (0.1, 800..=1200), (0.5, 4700..=5300), (1.0, 10_000..=10_000)]
        {
            let chosen = (0..10_000).filter(|n| is_in_share(ids.trace(*n, 0, 0), share)).count();
            assert!(expected.contains(&chosen), "{share}: {chosen}");
        }
    }
}
