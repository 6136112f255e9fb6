//! What reading costs, in CPU time of this thread, so that other work on the machine does not count. The bounds are
//! loose: they catch a wrong order of growth, not a slow machine. Figures that are told are those of a release build:
//! `cargo test --release -p profiler --lib vllm::tests::speed -- --nocapture`.

use std::time::Duration;

use super::*;

/// CPU time of this thread so far (proc(5): the first number of schedstat).
fn cpu() -> Duration {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    Duration::from_nanos(text.split(' ').next().unwrap().parse().unwrap())
}

/// Nanoseconds of a frame with so many requests, each with one token.
fn per_frame(requests: usize) -> u128 {
    const STEPS: u64 = 2000;
    let ids: Vec<_> = (0..requests).map(|number| format!("chatcmpl-{number:016x}-{number:08x}")).collect();
    let mut play = Play::default();
    let version = versions::newest();
    let begin_ns = 1_000_000_000_000;
    for id in &ids {
        play.add(begin_ns, &version.request(id, 5, 1_000_000).bytes());
    }
    let steps: Vec<_> = (1..=STEPS)
        .map(|step| {
            let at_ns = begin_ns + step * 10_000_000;
            let outputs =
                ids.iter().map(|id| version.output(id, 1, None, step == 1, at_ns - 5_000_000)).collect();
            (at_ns, version.outputs(outputs, Some((requests as i64, 0, 0.5)), at_ns - 500_000).bytes())
        })
        .collect();
    let start = cpu();
    let mut tokens = 0;
    for (at_ns, bytes) in &steps {
        play.outputs(*at_ns, bytes);
        tokens += play.said.iter().filter(|said| matches!(said.saying, Saying::Tokens { .. })).count();
        play.said.clear();
    }
    let took = (cpu() - start).as_nanos() / u128::from(STEPS);
    assert_eq!(tokens, requests * STEPS as usize);
    took
}

#[test]
fn a_token_costs_less_than_a_microsecond() {
    for requests in [1, 16, 256] {
        let frame = per_frame(requests);
        let token = frame / requests as u128;
        println!("{requests} requests: {frame} ns a step, {token} ns a token");
        assert!(frame < 200_000 + 20_000 * requests as u128, "{frame}");
    }
}
