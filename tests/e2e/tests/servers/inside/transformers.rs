//! `transformers serve` with continuous batching, where nothing inside is spoken aloud: what is known of an engine is
//! what leaves it. The role goes out before generation starts, so it must not be taken for a token.

use xtask::server::{self, Device, Name, Options, Running};

use super::agree::ms;
use super::plan::{Abort, Asked, Record, words};
use super::{Window, asked_for};

/// Both clocks are read on a loaded machine; the client's also has the way to it.
const TOLERANCE_NS: u64 = 25_000_000;

#[test]
fn transformers_first_tokens_are_not_roles() {
    if !asked_for("transformers serve") {
        return;
    }
    e2e::or_skip!();
    let mut running =
        server::start(Name::Transformers, &Options { device: Device::Cpu, ..Options::default() }).unwrap();
    let warm = super::plan::run(&running, &[chat(&running, 0, 2, 4)]);
    assert!(warm.iter().all(Record::is_whole), "{warm:#?}");
    let window = Window::of(&mut running, crowd, false);
    let mut headstart: u64 = 0;
    let mut farthest: u64 = 0;
    for (asked, record) in window.asked() {
        assert!(record.is_whole() || asked.abort.is_some(), "{asked:#?} {record:#?}");
        let request = window.account.of_record(record);
        let outcome = if asked.abort.is_some() { "aborted" } else { "completed" };
        assert_eq!(request.outcome, outcome, "{request:#?}");
        let Some(text) = record.first_text_ns(0).filter(|_| asked.is_streamed()) else { continue };
        let first = request.arrived_ns.unwrap() + (request.time_to_first_token_s.unwrap() * 1e9) as u64;
        assert!(first.abs_diff(text) < TOLERANCE_NS, "{first}: {record:#?} {request:#?}");
        farthest = farthest.max(first.abs_diff(text));
        headstart = headstart.max(text - record.head_ns.unwrap());
        token_times_agree(record, request);
    }
    println!(
        "first tokens are {:.1} ms from the client's, roles up to {:.1} ms before them",
        ms(farthest),
        ms(headstart)
    );
    assert!(
        headstart > 2 * farthest + 2_000_000,
        "the test is of no use where the role comes with the token"
    );
}

/// What is said of a request's tokens inside, be it inferred, agrees with what came out.
fn token_times_agree(record: &Record, request: &super::account::Request) {
    let Some(engine) = &request.engine else { return };
    let [part] = engine.parts.as_slice() else { panic!("{request:#?}") };
    let first = part.first_token_ns.unwrap();
    assert!(first <= record.first_text_ns(0).unwrap(), "{record:#?} {part:#?}");
    if let Some(usage) = &record.usage {
        assert_eq!(part.generated_tokens, usage.completion_tokens, "{request:#?}");
    }
}

/// More than a batch of 256 tokens holds, so that some wait while their role is out.
fn crowd(running: &Running) -> Vec<Asked> {
    let chat = |seed: u64, words: usize, tokens| chat(running, seed, words, tokens);
    let mut plan: Vec<Asked> = (0..10).map(|at| chat(at, 100, 20).streamed()).collect();
    plan.extend([
        chat(10, 20, 10),
        chat(11, 20, 200).left(Abort::Events(10)),
        chat(12, 100, 200).left(Abort::AfterS(0.4)),
    ]);
    plan
}

/// This server has no way to ignore the end of an answer; the model's words seldom are one.
fn chat(running: &Running, seed: u64, count: usize, tokens: u32) -> Asked {
    Asked::chat(running, &words(seed, count), tokens).on(seed as usize).without("ignore_eos")
}
