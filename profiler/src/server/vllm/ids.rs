//! The ids of requests: what a client knows of them.
//!
//! In: the id on the wire, and the external id where the message has one. Out: the id of the response, and the place
//! among the parts of one client's request. Forms (vLLM, `vllm/entrypoints/…/serving.py`,
//! `vllm/v1/engine/parallel_sampling.py`, `vllm/v1/engine/input_processor.py`):
//!
//! ```text
//! wire      [K_]EXTERNAL[-8 hexadecimal digits]     K: which of n samples; the digits since 0.14
//! external  chatcmpl-X        chat: the response's id
//!           cmpl-X-P          completions: P is which of the prompts; the response's id is cmpl-X
//!           embd-X-P, score-X-P, classify-X-P, pooling-X-P   the same for pooling
//! ```

/// What an id says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outer<'a> {
    /// The response's id.
    pub id: &'a str,
    /// The place among the parts, if the client's request was split.
    pub part: Option<u32>,
}

/// Prefixes of ids to which the front end appends a number, since a request may have several prompts.
const NUMBERED: [&str; 5] = ["cmpl-", "embd-", "score-", "classify-", "pooling-"];

/// Random digits at the end of a wire id.
const RANDOM: usize = 8;

/// A name no longer than this: a front end accepts any text as an id, but real ones are short.
const LONGEST: usize = 512;

/// Whether this could be the id of a request.
#[must_use]
pub fn is_plausible(id: &str) -> bool {
    (1..=LONGEST).contains(&id.len()) && !id.bytes().any(|byte| byte.is_ascii_control())
}

/// Reads an id. `random_ids`: the version appends random digits.
#[must_use]
pub fn outer<'a>(wire: &'a str, external: Option<&'a str>, random_ids: bool) -> Outer<'a> {
    let (sample, rest) = split_sample(wire, external);
    let external = external.unwrap_or(if random_ids { without_random(rest) } else { rest });
    let (id, prompt) = split_prompt(external);
    let part = match (sample, prompt) {
        (Some(sample), None | Some(0)) => Some(sample),
        (None, prompt) => prompt,
        // Its place is P times n plus K, and n is not in the message.
        (Some(_), Some(_)) => None,
    };
    Outer { id, part }
}

/// `K_REST`. A client may choose an id that begins so itself: the external id decides, and without one, the prefixes
/// that front ends make.
fn split_sample<'a>(wire: &'a str, external: Option<&str>) -> (Option<u32>, &'a str) {
    let Some((digits, rest)) = wire.split_once('_') else { return (None, wire) };
    let Some(sample) = number(digits) else { return (None, wire) };
    let is_made = match external {
        Some(external) => rest.starts_with(external) && !wire.starts_with(external),
        None => rest.starts_with("chatcmpl-") || NUMBERED.iter().any(|prefix| rest.starts_with(prefix)),
    };
    if is_made { (Some(sample), rest) } else { (None, wire) }
}

fn without_random(id: &str) -> &str {
    match id.rsplit_once('-') {
        Some((rest, digits))
            if digits.len() == RANDOM
                && digits.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
                && !rest.is_empty() =>
        {
            rest
        }
        _ => id,
    }
}

/// `PREFIX-X-P`.
fn split_prompt(external: &str) -> (&str, Option<u32>) {
    if !NUMBERED.iter().any(|prefix| external.starts_with(prefix)) {
        return (external, None);
    }
    match external.rsplit_once('-') {
        Some((rest, digits)) if rest.contains('-') => match number(digits) {
            Some(prompt) => (rest, Some(prompt)),
            None => (external, None),
        },
        _ => (external, None),
    }
}

/// A number as `str(int)` writes it.
fn number(digits: &str) -> Option<u32> {
    let is_plain = digits == "0" || !digits.starts_with(['0', '+']);
    if is_plain { digits.parse().ok() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_read() {
        let x = "chatcmpl-b506023609f0623a";
        for (wire, external, random, id, part) in [
            ("chatcmpl-b506023609f0623a-9d03cd47", Some(x), true, x, None),
            ("chatcmpl-b506023609f0623a-9d03cd47", None, true, x, None),
            (x, None, false, x, None),
            // Randomisation switched off in a version that has it.
            (x, Some(x), true, x, None),
            (x, None, true, x, None),
            ("0_chatcmpl-b506023609f0623a-9d03cd47", Some(x), true, x, Some(0)),
            ("1_chatcmpl-b506023609f0623a-9d03cd47", None, true, x, Some(1)),
            ("1_chatcmpl-b506023609f0623a", None, false, x, Some(1)),
            ("cmpl-ab-0-9488f28e", Some("cmpl-ab-0"), true, "cmpl-ab", Some(0)),
            ("cmpl-ab-1-9488f28e", None, true, "cmpl-ab", Some(1)),
            ("cmpl-ab-12", None, false, "cmpl-ab", Some(12)),
            ("2_cmpl-ab-0-9488f28e", Some("cmpl-ab-0"), true, "cmpl-ab", Some(2)),
            ("2_cmpl-ab-1-9488f28e", Some("cmpl-ab-1"), true, "cmpl-ab", None),
            ("embd-ab-3-9488f28e", Some("embd-ab-3"), true, "embd-ab", Some(3)),
            // What a client chose: numbers and digits of its own stay.
            ("chatcmpl-my-7-01234567", Some("chatcmpl-my-7"), true, "chatcmpl-my-7", None),
            ("chatcmpl-dup-00000000-9bfc472b", None, true, "chatcmpl-dup-00000000", None),
            ("7_my-9bfc472b", Some("7_my"), true, "7_my", None),
            ("cmpl-my-007", None, false, "cmpl-my-007", None),
            ("cmpl-5", None, false, "cmpl-5", None),
            ("", None, true, "", None),
            ("-01234567", None, true, "-01234567", None),
        ] {
            assert_eq!(outer(wire, external, random), Outer { id, part }, "{wire} {external:?}");
        }
    }

    #[test]
    fn what_cannot_be_an_id() {
        assert!(is_plausible("cmpl-1") && is_plausible("é"));
        assert!(!is_plausible("") && !is_plausible("a\nb") && !is_plausible(&"x".repeat(LONGEST + 1)));
    }
}
