//! Who was in a step: exact for requests that stream, inferred for the others.

use super::message::Outputs;
use super::request::{Engine, Request, Requests};
use crate::evidence::Evidence;
use crate::server::said::{EngineStep, Member, Part};

/// A row of outputs beside what was known of its request before.
pub(super) struct Row {
    /// Tokens that are new.
    pub(super) delta: u64,
    /// Total.
    pub(super) generated: u64,
    /// Its prompt, or all of it anew, was computed in this step.
    pub(super) is_prefill: bool,
    /// Some of the tokens are of steps before.
    pub(super) is_late: bool,
}

impl Row {
    /// Compares row `n` with what is known. A total may fall at the end, where a stop string is cut off.
    pub(super) fn of(
        outputs: &Outputs<'_>,
        n: usize,
        known: Option<&Request>,
    ) -> Result<Option<Self>, &'static str> {
        let Some(generated) = outputs.generated.get(n).copied() else { return Ok(None) };
        let new = outputs.new.get(n).copied();
        let ended = outputs.reasons.get(n).is_some_and(Option::is_some);
        let before = match known {
            Some(request) => request.generated.or(request.from_start.then_some(0)),
            None => None,
        };
        let base = before.unwrap_or_else(|| generated.saturating_sub(new.unwrap_or(generated)));
        if generated < base && !ended {
            return Err("a total that falls");
        }
        let delta = generated.saturating_sub(base);
        let is_followed = before.is_some() && known.is_some_and(|request| !request.is_behind);
        if is_followed && new.is_some_and(|new| new != delta) && !ended {
            return Err("tokens that do not add up to their total");
        }
        if let (Some(prompt), Some(said)) = (known.and_then(|request| request.prompt), outputs.prompt.get(n))
            && prompt != *said
        {
            return Err("a prompt of another length");
        }
        let retractions = outputs.retractions.get(n).copied().unwrap_or(0);
        let retracted = known.is_some_and(|known| retractions > known.retractions);
        let is_late = delta > 1 && !outputs.is_speculative;
        // The first token comes out of the last part of the prompt.
        let is_prefill =
            !is_late && delta > 0 && (base == 0 && before.is_some() || generated == 1 || retracted);
        Ok(Some(Self { delta, generated, is_prefill, is_late }))
    }
}

/// What was known when the step ended, beside its rows.
pub(super) struct Around {
    pub(super) engine: Engine,
    /// It is the only one: requests of which no engine has said anything are in it.
    pub(super) is_only: bool,
    /// Its last snapshot said that all that it had were running, and when.
    pub(super) all_run_ns: Option<u64>,
}

impl Around {
    fn has(&self, request: &Request) -> bool {
        request.engine.map_or(self.is_only, |engine| engine == self.engine)
    }

    /// A request that is not reported every step is certainly in every step that generates.
    fn rides(&self, request: &Request) -> bool {
        request.generated.is_some() || self.all_run_ns.is_some_and(|at| at > request.met_ns)
    }
}

/// The step that made some rows; nothing if it cannot be told who was in it.
pub(super) fn of(
    rows: &[(&str, Option<Row>)],
    requests: &mut Requests,
    around: &Around,
    end_ns: u64,
) -> Option<EngineStep> {
    let mut members = Vec::with_capacity(rows.len());
    for (rid, row) in rows {
        let (Some(row), Some(request)) = (row, requests.get(rid)) else { continue };
        if row.delta > 0 {
            members.push(member(row, request));
        }
    }
    if members.is_empty() {
        return None;
    }
    let has_prefill = rows.iter().any(|(_, row)| row.as_ref().is_some_and(|row| row.is_prefill));
    let has_decode = members.iter().any(|member| member.part == Part::Decode);
    let listed: std::collections::HashSet<_> = rows.iter().map(|(rid, _)| *rid).collect();
    let mut is_complete = (!has_prefill || !has_decode) && rows.iter().all(|(_, row)| row.is_some());
    for (rid, request) in requests.all_mut() {
        if listed.contains(rid) || !around.has(request) {
            continue;
        }
        let begun = request.generated.is_some();
        if has_prefill && !has_decode {
            // It may have had a part of its prompt computed; those that generate wait.
            is_complete &= begun;
        } else if request.streams == Some(false) && around.rides(request) {
            members.push(silent(request));
        } else if begun {
            // Retracted, or held back because its end looks like the beginning of a stop string.
            request.missed_ns.get_or_insert(end_ns);
            is_complete = false;
        } else {
            // One that streams would have been reported: it waits.
            is_complete &= request.streams == Some(true);
        }
    }
    members.sort_by_key(|member| member.inner);
    Some(EngineStep { engine: around.engine.1, end_ns, members, is_complete, ..EngineStep::default() })
}

/// A step that generates nothing: all of the prompts that came out of it.
pub(super) fn of_prompts(rids: &[&str], requests: &Requests, engine: Engine, end_ns: u64) -> EngineStep {
    let member = |rid: &&str| {
        let inner = requests.get(rid)?.inner;
        Some(Member { inner, part: Part::Prefill, computed: 0, generated: 0, evidence: Evidence::E1 })
    };
    let members = rids.iter().filter_map(member).collect();
    EngineStep { engine: engine.1, end_ns, members, is_complete: false, ..EngineStep::default() }
}

fn member(row: &Row, request: &Request) -> Member {
    let part = if row.is_prefill { Part::Prefill } else { Part::Decode };
    let evidence = if row.is_late { Evidence::E2 } else { Evidence::E1 };
    // How much of a prompt the step computed is not said: it may have come in parts.
    let computed = u32::from(part == Part::Decode && row.delta == 1);
    Member {
        inner: request.inner,
        part,
        computed,
        generated: u32::try_from(row.delta).unwrap_or(u32::MAX),
        evidence,
    }
}

/// One that is in the step, and whose tokens will be told later.
fn silent(request: &Request) -> Member {
    Member { inner: request.inner, part: Part::Decode, computed: 1, generated: 0, evidence: Evidence::E2 }
}
