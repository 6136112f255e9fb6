//! What holds for every split, every order, every loss, and for garbage.

use proptest::prelude::*;
use std::collections::BTreeMap;

use super::*;

/// Enough for every run of the tests; `PROPTEST_CASES` asks for others (`cargo xtask fuzz`).
fn cases() -> u32 {
    std::env::var("PROPTEST_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(200)
}

/// Both directions of a connection with three requests.
fn recorded() -> (Vec<u8>, Vec<u8>) {
    let trailers = headers(3, END_STREAM, &[("x-checksum", "1")]);
    let head = inserting(&ask("POST", "/a"));
    let again = frame(HEADERS, END_HEADERS | END_STREAM, 5, &[0x83, 0x86, 0xbf, 0xbe]);
    let asked = [
        opening(),
        frame(HEADERS, 0, 1, &head[..7]),
        frame(CONTINUATION, END_HEADERS, 1, &head[7..]),
        frame(DATA, PADDED | END_STREAM, 1, b"\x02{\"model\":\"one\"}\0\0"),
        post(3, "/b", r#"{"model":"three"}"#),
        frame(PING, 0, 0, &[0; 8]),
        again,
    ];
    let answered = [
        greeting(),
        answer(3, "text/event-stream"),
        data(3, 0, chat("three")),
        headers(1, 0, &[(":status", "103")]),
        json(1, r#"{"id":"one"}"#),
        data(3, 0, &chat("three")[..30]),
        json(5, r#"{"id":"five"}"#),
        data(3, 0, &chat("three")[30..]),
        trailers,
    ];
    (asked.concat(), answered.concat())
}

fn split(bytes: &[u8], cuts: &[prop::sample::Index], step: fn(&[u8]) -> Do) -> Vec<Do> {
    let mut at: Vec<usize> =
        cuts.iter().map(|cut| cut.index(bytes.len() + 1)).chain([0, bytes.len()]).collect();
    at.sort_unstable();
    at.windows(2).map(|pair| step(&bytes[pair[0]..pair[1]])).collect()
}

fn kinds(signals: &[Signal]) -> Vec<(u32, SignalKind)> {
    signals.iter().map(|signal| (signal.exchange, signal.kind.clone())).collect()
}

/// The frames of one request that says its number in both directions.
fn exchange(stream: u32, streamed: bool) -> (Vec<Vec<u8>>, Vec<Vec<u8>>) {
    let path = format!("/{stream}");
    let agent = format!("agent-{stream}");
    let head = [&ask("POST", &path)[..], &[("user-agent", &agent)]].concat();
    let asked = vec![
        frame(HEADERS, END_HEADERS, stream, &inserting(&head)),
        data(stream, END_STREAM, format!(r#"{{"model":"{stream}"}}"#)),
    ];
    let id = format!(r#"{{"id":"{stream}"}}"#);
    let answered = if streamed {
        let mut frames = vec![answer(stream, "text/event-stream")];
        frames.extend((0..4).map(|_| data(stream, 0, chat(&stream.to_string()))));
        frames.push(data(stream, END_STREAM, "data: [DONE]\n\n"));
        frames
    } else {
        vec![answer(stream, "application/json"), data(stream, END_STREAM, id)]
    };
    (asked, answered)
}

/// What was said of one stream.
#[derive(Debug, Default)]
struct Told {
    begun: u32,
    heads: u32,
    asked: u32,
    path: Option<String>,
    agent: Option<String>,
    model: Option<String>,
    id: Option<String>,
    tokens: u32,
    lost: u64,
    ended: Vec<Outcome>,
}

fn told(signals: &[Signal]) -> BTreeMap<u32, Told> {
    let mut streams: BTreeMap<u32, Told> = BTreeMap::new();
    for signal in signals {
        let told = streams.entry(signal.exchange).or_default();
        assert!(told.ended.is_empty(), "nothing follows the end: {signal:?}");
        match &signal.kind {
            SignalKind::RequestStart | SignalKind::RequestUnseen => told.begun += 1,
            SignalKind::RequestHead(head) => {
                told.heads += 1;
                told.path = Some(head.path.clone());
                told.agent = head.user_agent.clone();
            }
            SignalKind::RequestEnd(end) => {
                told.asked += 1;
                told.model = end.facts.model.clone();
            }
            SignalKind::Fact(Fact::Id(id)) => told.id = Some(id.clone()),
            SignalKind::Token { .. } => told.tokens += 1,
            SignalKind::ResponseEnd(end) => {
                told.lost = end.lost_bytes;
                told.ended.push(end.outcome);
            }
            _ => {}
        }
    }
    streams
}

/// A request is right, partial, or absent.
fn judge(signals: &[Signal], streamed: &BTreeMap<u32, bool>) {
    for (stream, told) in told(signals) {
        assert!(told.begun == 1 && told.heads <= 1 && told.asked <= 1 && told.ended.len() == 1, "{told:?}");
        let number = stream.to_string();
        let fits = |said: &Option<String>| said.as_ref().is_none_or(|said| *said == number);
        assert!(fits(&told.model) && fits(&told.id), "{stream}: {told:?}");
        assert!(
            told.path.as_ref().is_none_or(|path| path.is_empty() || *path == format!("/{stream}")),
            "{told:?}"
        );
        assert!(told.agent.as_ref().is_none_or(|agent| *agent == format!("agent-{stream}")), "{told:?}");
        if told.ended == [Outcome::Complete] {
            assert_eq!(told.path, Some(format!("/{stream}")), "{told:?}");
            let expected = if streamed[&stream] { 4 } else { 0 };
            // Lost payload makes it a lower bound, and is told.
            assert!(
                told.tokens == expected || (told.lost > 0 && told.tokens < expected),
                "{stream}: {told:?}"
            );
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, cases: cases(), ..ProptestConfig::default() })]

    #[test]
    fn edge_1_every_split_tells_the_same(asked in prop::collection::vec(any::<prop::sample::Index>(), 0..12), answered in prop::collection::vec(any::<prop::sample::Index>(), 0..24)) {
        let (request, response) = recorded();
        let end = Do::End(End::Closed);
        let whole = kinds(&Driver::new(false).run(&[req(&request), resp(&response), end.clone()]));
        let mut script = split(&request, &asked, |bytes| Do::Req(bytes.to_vec()));
        script.extend(split(&response, &answered, |bytes| Do::Resp(bytes.to_vec())));
        script.push(end);
        prop_assert_eq!(kinds(&Driver::new(false).run(&script)), whole);
    }

    #[test]
    fn edge_39_64_streams_in_any_order(order in prop::collection::vec(any::<prop::sample::Index>(), 64 * 9), streamed in prop::collection::vec(any::<bool>(), 64), size in 1..5000_usize) {
        let mut queues: Vec<Vec<Vec<u8>>> = Vec::new();
        let mut asked = Vec::new();
        let mut is_streamed = BTreeMap::new();
        for (n, streamed) in streamed.iter().enumerate() {
            let stream = n as u32 * 2 + 1;
            let (request, mut response) = exchange(stream, *streamed);
            asked.extend(request.concat());
            response.reverse();
            queues.push(response);
            is_streamed.insert(stream, *streamed);
        }
        let mut answered = Vec::new();
        for pick in order {
            queues.retain(|queue| !queue.is_empty());
            if queues.is_empty() {
                break;
            }
            let place = pick.index(queues.len());
            answered.extend(queues[place].pop().unwrap());
        }
        queues.into_iter().for_each(|queue| queue.into_iter().rev().for_each(|frame| answered.extend(frame)));
        let mut script: Vec<Do> = asked.chunks(size).map(req).collect();
        script.extend(answered.chunks(size).map(resp));
        let signals = run(&script);
        judge(&signals, &is_streamed);
        prop_assert_eq!(outcomes(&signals).len(), 64);
        prop_assert!(outcomes(&signals).iter().all(|(_, outcome)| *outcome == Outcome::Complete));
    }

    #[test]
    fn edge_13_whatever_is_lost_no_request_is_wrong(mid in any::<bool>(), streams in prop::collection::vec((any::<bool>(), prop::collection::vec((0..8_u8, any::<prop::sample::Index>()), 9)), 1..16)) {
        let mut script = if mid { vec![] } else { vec![req(opening()), resp(greeting())] };
        let mut streamed = BTreeMap::new();
        for (n, (is_streamed, fates)) in streams.iter().enumerate() {
            let stream = n as u32 * 2 + 1;
            streamed.insert(stream, *is_streamed);
            let (request, response) = exchange(stream, *is_streamed);
            let frames = request.into_iter().map(|bytes| (true, bytes)).chain(response.into_iter().map(|bytes| (false, bytes)));
            for ((is_request, bytes), (fate, at)) in frames.zip(fates) {
                let at = at.index(bytes.len());
                script.push(match (fate, is_request) {
                    (0, true) => Do::ReqGone(bytes.len() as u64),
                    (0, false) => Do::RespGone(bytes.len() as u64),
                    (1, true) => Do::ReqLost(bytes[..at].to_vec(), (bytes.len() - at) as u32),
                    (1, false) => Do::RespLost(bytes[..at].to_vec(), (bytes.len() - at) as u32),
                    (_, true) => Do::Req(bytes),
                    (_, false) => Do::Resp(bytes),
                });
            }
        }
        script.extend([req(""), resp(""), Do::End(End::Closed)]);
        let signals = Driver::new(mid).run(&script);
        judge(&signals, &streamed);
    }

    #[test]
    fn garbage_is_survived(bytes in prop::collection::vec(any::<u8>(), 0..400), at in any::<prop::sample::Index>(), replaced in 0..20_usize, request in any::<bool>(), size in 1..200_usize) {
        let (mut asked, mut answered) = recorded();
        let target = if request { &mut asked } else { &mut answered };
        let at = at.index(target.len());
        let to = (at + replaced).min(target.len());
        target.splice(at..to, bytes.clone());
        for mid in [false, true] {
            let mut script: Vec<Do> = asked.chunks(size).map(req).collect();
            script.extend(answered.chunks(size).map(resp));
            script.extend([req(&bytes), resp(&bytes), Do::End(End::Closed)]);
            let signals = Driver::new(mid).run(&script);
            for (stream, told) in told(&signals) {
                prop_assert!(told.begun == 1 && told.ended.len() == 1, "{} {:?}", stream, told);
            }
        }
    }
}

#[test]
fn hostile_streams_do_not_grow_memory() {
    // Blocks that insert as much as they can, and blocks that never end.
    let mut driver = Driver::new(false);
    driver.step(&req([opening(), frame(SETTINGS, 0, 0, &[0, 1, 0xff, 0xff, 0xff, 0xff])].concat()));
    driver.step(&resp(frame(SETTINGS, 0, 0, &[0, 1, 0xff, 0xff, 0xff, 0xff])));
    let grow =
        [&[0x3f, 0xe1, 0xff, 0xff, 0x7f][..], &inserting(&[("user-agent", &"x".repeat(2000))])].concat();
    for n in 0..5000_u32 {
        driver.step(&req(frame(HEADERS, END_HEADERS, n * 2 + 1, &grow)));
    }
    assert!(!driver.connection.is_opaque());
    driver.out.clear();
    driver.step(&req(frame(HEADERS, 0, 10_001, &[])));
    for _ in 0..5000 {
        driver.step(&req(frame(CONTINUATION, 0, 10_001, &[0; 1000])));
        driver.step(&req(frame(CONTINUATION, 0, 10_001, &[])));
    }
    assert!(!driver.connection.is_opaque());
    assert!(driver.out.is_empty());
    // A frame of 16 MiB that says that it is a header block.
    driver.step(&resp([&[0xff, 0xff, 0xff, HEADERS, END_HEADERS, 0, 0, 0, 1][..], &[0; 1 << 20]].concat()));
}
