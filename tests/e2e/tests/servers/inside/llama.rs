//! llama-server with four slots: against the `timings` of its answers, its `/metrics`, and its log of each batch.

use xtask::server::{self, Device, Name, Options, Running};

use super::account::Step;
use super::agree::{adapter_is_sound, engine, requests_agree};
use super::own::{Run, batches};
use super::plan::{Abort, Asked, words};
use super::{Window, asked_for};

/// How the server's own times may differ: it reads its clock before a batch is made and after a token is drawn, which is
/// more than the call in the middle.
const TOLERANCE_MS: f64 = 8.0;

#[test]
fn llama_tells_the_same_inside() {
    if !asked_for("llama-server") {
        return;
    }
    e2e::or_skip!();
    let options = Options { device: Device::Cpu, tell: true, ..Options::default() };
    let mut running = server::start(Name::Llama, &options).unwrap();
    let warm = super::plan::run(&running, &[Asked::chat(&running, "w1 w2", 4)]);
    assert!(warm.iter().all(super::Record::is_whole), "{warm:#?}");
    let window = Window::of(&mut running, mixed, true);
    // By the thread that read the request and made its task.
    adapter_is_sound(&window, "llama.cpp", "E1");
    requests_agree(&window, "llama.cpp", "E1");
    timings_agree(&window);
    batches_agree(&window);
    metrics_agree(&window);
}

/// Long prompts come while others generate, and more come than there are slots.
fn mixed(running: &Running) -> Vec<Asked> {
    // It closes connections after streams although it says that it keeps them.
    let chat = |seed: u64, words_: usize, tokens| Asked::chat(running, &words(seed, words_), tokens).alone();
    let mut plan: Vec<Asked> = (0..6).map(|at| chat(at, 4, 40).streamed().on(at as usize)).collect();
    plan.extend((6..9).map(|at| chat(at, 120, 12).streamed().on(at as usize).after(0.05)));
    plan.extend((9..12).map(|at| chat(at, 30, 8).on(at as usize - 9)));
    plan.extend([
        chat(20, 10, 1).streamed().on(10),
        // The same again: what its slot has kept is not computed twice.
        chat(7, 120, 12).on(7),
        chat(21, 10, 400).left(Abort::Events(12)).on(11),
        chat(22, 6, 5).streamed().on(11),
    ]);
    plan
}

/// An answer's own account.
fn timings_agree(window: &Window) {
    let mut farthest: f64 = 0.0;
    for (_, record) in window.asked() {
        let Some(own) = &record.timings else { continue };
        let request = window.account.of_record(record);
        let [part] = engine(request).parts.as_slice() else { panic!("{request:#?}") };
        let cached = part.cached_tokens.unwrap_or(0);
        assert_eq!(
            (cached, part.prompt_tokens),
            (own.cache_n, Some(own.cache_n + own.prompt_n)),
            "{request:#?}"
        );
        assert_eq!(part.generated_tokens, own.predicted_n, "{request:#?}");
        let between = |from: Option<u64>, to: Option<u64>| (to.unwrap() - from.unwrap()) as f64 / 1e6;
        // The server reads its clock when it begins to make the batch, which is after the request was there and before
        // the batch is decoded.
        let least = between(part.prefilling_ns, part.first_token_ns);
        let most = between(request.arrived_ns, part.first_token_ns);
        let prompt = least - TOLERANCE_MS..most + TOLERANCE_MS;
        assert!(prompt.contains(&own.prompt_ms), "{prompt:?} {own:?}: {part:#?}");
        let generation = between(part.first_token_ns, part.last_token_ns);
        farthest = farthest.max((generation - own.predicted_ms).abs());
        assert!((generation - own.predicted_ms).abs() < TOLERANCE_MS, "{generation} ms, {own:?}: {part:#?}");
    }
    println!("times of generation are at most {farthest:.3} ms from those that answers tell");
}

/// Each batch that the log has is a step with the same members: of each how many tokens, and how many that have an output.
fn batches_agree(window: &Window) {
    let logged: Vec<Vec<Run>> =
        batches(&window.log).into_iter().map(|batch| sorted(batch.into_values())).collect();
    let seen: Vec<Vec<Run>> = window.account.steps.iter().map(members).collect();
    assert!(!logged.is_empty());
    if let Some(at) = logged.iter().zip(&seen).position(|(logged, seen)| logged != seen) {
        panic!("batch {at}: {:?} is {:?}", logged.get(at), seen.get(at));
    }
    assert_eq!(logged.len(), seen.len());
    let mixed = window.account.steps.iter().filter(|step| {
        let phases: Vec<&str> = step.members.iter().map(|member| member.phase.as_str()).collect();
        phases.contains(&"prefill") && phases.contains(&"decode")
    });
    let mixed = mixed.count();
    println!("{} batches have the members that the log has; {mixed} of prefill and decode", seen.len());
    assert!(mixed > 0, "the test is of no use without any");
}

fn members(step: &Step) -> Vec<Run> {
    sorted(step.members.iter().map(|member| Run { tokens: member.computed, outputs: member.generated }))
}

fn sorted(runs: impl Iterator<Item = Run>) -> Vec<Run> {
    let mut runs: Vec<Run> = runs.collect();
    runs.sort_unstable();
    runs
}

fn metrics_agree(window: &Window) {
    let metrics = window.metrics.as_ref().unwrap();
    assert_eq!(window.account.steps.len() as u64, metrics.count("llamacpp:n_decode_total", ""));
    let parts = || window.account.parts();
    let computed: u64 =
        parts().map(|part| part.prompt_tokens.unwrap() - part.cached_tokens.unwrap_or(0)).sum();
    assert_eq!(computed, metrics.count("llamacpp:prompt_tokens_total", ""));
    // A request that was given up never adds what it had generated.
    let generated: u64 = parts().map(|part| part.generated_tokens).sum();
    let given_up: u64 = window
        .asked()
        .filter(|(asked, _)| asked.abort.is_some())
        .flat_map(|(_, record)| &engine(window.account.of_record(record)).parts)
        .map(|part| part.generated_tokens)
        .sum();
    let counted = metrics.count("llamacpp:tokens_predicted_total", "");
    assert!(counted == generated || counted == generated - given_up, "{counted} {generated} {given_up}");
}
