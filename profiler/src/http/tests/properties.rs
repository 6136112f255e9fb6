//! What holds for every split, and for garbage.

use proptest::prelude::*;

use super::*;

/// Exchanges as servers write them.
fn recorded() -> Vec<(&'static str, String, String)> {
    let sse = |payload: &str| STREAM.to_owned() + &chunk(payload) + "0\r\n\r\n";
    let ask =
        r#"{"model":"mö\u0064el","messages":[{"role":"user","content":"hé \"q\" 😀"}],"stream":true,"n":2}"#;
    vec![
        (
            "chat",
            post("/v1/chat/completions", ask),
            sse(&(chat("é") + ": ping\r\n\r\n" + &chat("\\u00e9\\n") + "data: [DONE]\n\n")),
        ),
        (
            "two",
            post("/a", ask) + &post("/b", "{}"),
            json(r#"{"id":"1","usage":{"prompt_tokens":1}}"#) + &sse("data:{\"token\":{\"id\":1}}\r\n\r\n"),
        ),
        (
            "chunked request",
            format!("POST /c HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n{}0\r\nA: b\r\n\r\n", chunk(ask)),
            "HTTP/1.1 100 Continue\r\n\r\n".to_owned() + &json("[]"),
        ),
        (
            "lines",
            post("/api/chat", "{}"),
            "HTTP/1.1 200 OK\r\nContent-Type: application/x-ndjson\r\nTransfer-Encoding: chunked\r\n\r\n"
                .to_owned()
                + &chunk("{\"message\":{\"content\":\"a\"}}\n{\"done\":true,\"eval_count\":1}\n")
                + "0\r\n\r\n",
        ),
        (
            "empty",
            "HEAD / HTTP/1.1\r\n\r\nGET / HTTP/1.0\r\n\r\n".to_owned(),
            "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nHTTP/1.0 200 OK\r\n\r\nuntil close".to_owned(),
        ),
    ]
}

/// The records of one exchange that says its number in both directions.
fn records(number: usize, halved: bool, streamed: bool) -> Vec<Do> {
    let body = format!(r#"{{"model":"{number}","prompt":"{}"}}"#, "x".repeat(number * 7));
    let asked = post("/v1/completions", &body);
    let head = if halved { asked.len() - body.len() } else { asked.len() };
    let mut records = vec![req(&asked[..head])];
    records.extend(halved.then(|| req(&asked[head..])));
    let event = format!("data: {{\"id\":\"{number}\",\"choices\":[{{\"text\":\"a\"}}]}}\n\n");
    if streamed {
        records.extend([resp(STREAM), resp(chunk(&event)), resp(chunk(&event)), resp("0\r\n\r\n")]);
    } else {
        records.push(resp(json(&format!(r#"{{"id":"{number}","choices":[]}}"#))));
    }
    records
}

fn split(bytes: &[u8], cuts: &[prop::sample::Index], step: fn(&[u8]) -> Do) -> Vec<Do> {
    let mut at: Vec<usize> =
        cuts.iter().map(|cut| cut.index(bytes.len() + 1)).chain([0, bytes.len()]).collect();
    at.sort_unstable();
    at.windows(2).map(|pair| step(&bytes[pair[0]..pair[1]])).collect()
}

/// Enough for every run of the tests; `PROPTEST_CASES` asks for others (`cargo xtask fuzz`).
fn cases() -> u32 {
    std::env::var("PROPTEST_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(400)
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, cases: cases(), ..ProptestConfig::default() })]

    #[test]
    fn every_split_tells_the_same(which in 0..5_usize, asked in prop::collection::vec(any::<prop::sample::Index>(), 0..12), answered in prop::collection::vec(any::<prop::sample::Index>(), 0..24)) {
        let (name, request, response) = recorded().swap_remove(which);
        let end = Do::End(End::Closed);
        let whole = kinds(&run(false, &[req(&request), resp(&response), end.clone()]));
        let mut script = split(request.as_bytes(), &asked, |bytes| Do::Req(bytes.to_vec()));
        script.extend(split(response.as_bytes(), &answered, |bytes| Do::Resp(bytes.to_vec())));
        script.push(end);
        prop_assert_eq!(kinds(&run(false, &script)), whole, "{}", name);
    }

    #[test]
    fn whatever_is_lost_every_exchange_ends_once(mid in any::<bool>(), steps in prop::collection::vec((any::<bool>(), 0..5_usize, any::<prop::sample::Index>(), any::<prop::sample::Index>(), 0..3_u32), 1..40)) {
        let recorded = recorded();
        let mut script = Vec::new();
        for (request, which, from, to, fate) in steps {
            let (_, asked, answered) = &recorded[which];
            let bytes = if request { asked.as_bytes() } else { answered.as_bytes() };
            let (from, to) = (from.index(bytes.len()), to.index(bytes.len() + 1));
            let part = bytes[from.min(to)..from.max(to)].to_vec();
            script.push(match (request, fate) {
                (true, 0) => Do::ReqGone(part.len() as u64),
                (false, 0) => Do::RespGone(part.len() as u64),
                (true, 1) => Do::ReqLost(part, 7),
                (false, 1) => Do::RespLost(part, 7),
                (true, _) => Do::Req(part),
                (false, _) => Do::Resp(part),
            });
        }
        script.push(Do::End(End::Closed));
        let signals = run(mid, &script);
        let count = |exchange: u32, wanted: fn(&SignalKind) -> bool| {
            signals.iter().filter(|signal| signal.exchange == exchange && wanted(&signal.kind)).count()
        };
        for exchange in signals.iter().map(|signal| signal.exchange) {
            prop_assert_eq!(count(exchange, |kind| matches!(kind, SignalKind::RequestStart | SignalKind::RequestUnseen)), 1, "{:?}", signals);
            prop_assert_eq!(count(exchange, |kind| matches!(kind, SignalKind::ResponseEnd(_))), 1, "{:?}", signals);
            prop_assert!(count(exchange, |kind| matches!(kind, SignalKind::RequestEnd(_))) <= 1);
        }
    }

    #[test]
    fn whatever_is_lost_no_answer_is_given_to_another_request(exchanges in prop::collection::vec((any::<bool>(), any::<bool>(), prop::collection::vec(prop::bool::weighted(0.3), 7)), 1..9)) {
        let mut script = Vec::new();
        for (number, (halved, streamed, lost)) in exchanges.iter().enumerate() {
            let mut lost = lost.iter();
            for record in records(number, *halved, *streamed) {
                script.push(match (record, lost.next()) {
                    (Do::Req(bytes), Some(true)) => Do::ReqGone(bytes.len() as u64),
                    (Do::Resp(bytes), Some(true)) => Do::RespGone(bytes.len() as u64),
                    (record, _) => record,
                });
            }
        }
        // The close tells how much there was.
        script.extend([req(""), resp(""), Do::End(End::Closed)]);
        let signals = run(false, &script);
        let mut numbers: Vec<u32> = signals.iter().map(|signal| signal.exchange).collect();
        numbers.sort_unstable();
        numbers.dedup();
        prop_assert!(numbers.len() <= exchanges.len(), "more than there were: {:?}", signals);
        for number in numbers {
            let of = signals.iter().filter(|signal| signal.exchange == number);
            let (mut asked, mut answered, mut complete) = (None, None, false);
            for signal in of {
                match &signal.kind {
                    SignalKind::RequestEnd(end) => asked = end.facts.model.clone(),
                    SignalKind::Fact(Fact::Id(id)) => answered = Some(id.clone()),
                    SignalKind::ResponseEnd(end) => complete = end.outcome == Outcome::Complete,
                    _ => {}
                }
            }
            let differ = asked.is_some() && answered.is_some() && asked != answered;
            prop_assert!(!(complete && differ), "{:?} was answered with {:?}: {:?}", asked, answered, signals);
        }
    }

    #[test]
    fn whatever_is_cut_a_request_is_right_or_in_part(turns in prop::collection::vec((0..4_usize, 0..30_000_usize, 1..20_000_usize, 0..300_usize, 0..300_usize, 0..8_u32), 1..8)) {
        let mut script = Vec::new();
        let mut sizes = Vec::new();
        for (number, (framing, filler, size, head, tail, lost)) in turns.iter().enumerate() {
            let body = format!(r#"{{"messages":[{{"content":"{}\",\"model\":\"no"}}],"model":"m{number}","n":{number}}}"#, "x{[\\\" ".repeat(filler / 6));
            sizes.push(body.len() as u64);
            let asked = if framing % 2 == 0 {
                post(&format!("/r{number}"), &body)
            } else {
                body.as_bytes().chunks(*size).fold(
                    format!("POST /r{number} HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n"),
                    |all, part| all + &chunk(std::str::from_utf8(part).unwrap()),
                ) + "0\r\n\r\n"
            };
            let answer = if *framing < 2 {
                json(&format!(r#"{{"id":"m{number}","x":"{}"}}"#, "y".repeat(*filler)))
            } else {
                let events = chunk(&format!("data: {{\"id\":\"m{number}\",\"choices\":[{{\"text\":\"a\"}}]}}\n\n"));
                STREAM.to_owned() + &events.repeat(filler / 300) + "0\r\n\r\n"
            };
            for (direction, bytes) in [(Direction::Request, asked), (Direction::Response, answer)] {
                for (at, call) in bytes.as_bytes().chunks(*size).enumerate() {
                    let gone = *lost == 7 && at % 3 == 2;
                    // A head is always copied whole, as the kernel side does it.
                    let head = if at * size < 400 { 400 + head } else { *head };
                    script.push(match direction {
                        Direction::Request if gone => Do::ReqGone(call.len() as u64),
                        Direction::Response if gone => Do::RespGone(call.len() as u64),
                        _ => Do::Cut(direction, call.to_vec(), head, *tail),
                    });
                }
            }
        }
        script.extend([req(""), resp(""), Do::End(End::Closed)]);
        let signals = run(false, &script);
        let mut heads = std::collections::BTreeMap::new();
        for signal in &signals {
            match &signal.kind {
                SignalKind::RequestHead(head) => {
                    let number: usize = head.path.strip_prefix("/r").and_then(|number| number.parse().ok()).unwrap();
                    prop_assert!(number < turns.len());
                    prop_assert!(heads.insert(signal.exchange, number).is_none());
                }
                SignalKind::RequestEnd(end) => {
                    let Some(number) = heads.get(&signal.exchange) else { continue };
                    let model = format!("m{number}");
                    prop_assert!(end.facts.model.as_ref().is_none_or(|told| *told == model), "{end:?}");
                    prop_assert!(end.facts.n.is_none_or(|told| told == *number as u64), "{end:?}");
                    let exact = end.complete && (end.lost_bytes == 0 || turns[*number].0 % 2 == 0);
                    prop_assert!(!exact || end.body_bytes == sizes[*number], "{end:?}");
                }
                SignalKind::Fact(Fact::Id(id)) => {
                    let wrong = heads.get(&signal.exchange).is_some_and(|number| *id != format!("m{number}"));
                    prop_assert!(!wrong, "{signals:?}");
                }
                SignalKind::Malformed(reason) => prop_assert!(false, "{reason:?}"),
                _ => {}
            }
        }
        let mut numbers: Vec<_> = heads.values().collect();
        numbers.dedup();
        prop_assert_eq!(numbers.len(), heads.len(), "told twice");
        if turns.iter().all(|(.., lost)| *lost != 7) {
            prop_assert_eq!(heads.len(), turns.len());
        }
    }

    #[test]
    fn garbage_is_survived(bytes in prop::collection::vec(any::<u8>(), 0..300), at in any::<prop::sample::Index>()) {
        let streamed = STREAM.to_owned() + &chunk(&chat("a"));
        let mut answer = streamed.into_bytes();
        let at = at.index(answer.len());
        answer.splice(at..at, bytes.clone());
        run(false, &[req(&bytes), resp(&bytes)]);
        run(true, &[req(&bytes), resp(&bytes), Do::End(End::Failed)]);
        run(false, &[req(post("/", "{}")), resp(answer), Do::End(End::Failed)]);
    }
}

#[test]
fn no_text_of_prompt_or_completion_is_kept() {
    // Not hexadecimal, so that no number can look like it.
    let marker = "ZebraQuokkaMarker";
    let bytes = format!("{:?}", marker.as_bytes());
    let bytes = &bytes[1..bytes.len() - 1];
    let ask = format!(
        r#"{{"model":"m","messages":[{{"role":"user","content":"{marker}","{marker}":"{marker}"}}],"prompt":["{marker}"],"input":"{marker}","tools":[{{"name":"{marker}"}}],"stream":true}}"#
    );
    let event = |kind: &str| format!("data: {{{kind}}}\n\n");
    let payload = [
        chat(marker),
        event(&format!(r#""choices":[{{"text":"{marker}","message":{{"content":"{marker}"}},"delta":{{"reasoning_content":"{marker}","tool_calls":[{{"function":{{"arguments":"{marker}"}}}}]}},"logprobs":{{"content":[{{"token":"{marker}"}}]}}}}]"#)),
        event(&format!(r#""response":"{marker}","content":"{marker}","thinking":"{marker}","text":"{marker}","text_output":"{marker}""#)),
        event(&format!(r#""token":{{"text":"{marker}"}},"generated_text":"{marker}","delta":{{"text":"{marker}"}}"#)),
        event(&format!(r#""type":"response.output_text.delta","delta":"{marker}""#)),
        event(&format!(r#""error":{{"message":"{marker}","type":"t"}}"#)),
        format!(": {marker}\n\n"),
    ]
    .concat();
    let stream = STREAM.to_owned() + &chunk(&payload) + "0\r\n\r\n";
    let document = json(&format!(
        r#"{{"choices":[{{"message":{{"content":"{marker}"}}}}],"content":[{{"text":"{marker}"}}],"output":[{{"content":"{marker}"}}]}}"#
    ));
    for size in [1, 5, 64, 4096] {
        let mut driver = Driver::new(false);
        let asked = post(&format!("/v1/x?prompt={marker}"), &ask);
        let head = asked.find("\r\n\r\n").unwrap() + 4;
        let mut script = vec![req(&asked[..head])];
        script.extend(asked.as_bytes()[head..].chunks(size).map(req));
        script.extend(stream.as_bytes().chunks(size).map(resp));
        script.push(req(post("/", "{}")));
        script.extend(document.as_bytes().chunks(size).map(resp));
        for step in &script {
            driver.step(step);
            let seen = format!("{:?} {:?}", driver.connection, driver.out);
            assert!(!seen.contains(marker) && !seen.contains(bytes), "{step:?}: {seen}");
        }
        assert_eq!(tokens(&driver.out).len(), 5);
        assert_eq!(last_end(&driver.out).outcome, Outcome::Complete);
    }
}

#[test]
fn no_secret_of_a_head_or_behind_a_hole_is_kept() {
    let marker = "ZebraQuokkaMarker";
    let bytes = format!("{:?}", marker.as_bytes());
    let bytes = &bytes[1..bytes.len() - 1];
    let filler = "x".repeat(9000);
    let body = format!(
        r#"{{"messages":[{{"content":"{marker}{filler}{marker}"}}],"user":"{marker}","metadata":{{"{marker}":"{marker}"}},"stop":["{marker}"],"model":"m"}}"#
    );
    let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::none());
    std::io::Write::write_all(&mut packed, body.as_bytes()).unwrap();
    let packed = packed.finish().unwrap();
    let secrets = format!(
        "Authorization: Bearer {marker}\r\nCookie: a={marker}\r\napi-key: {marker}\r\nX-{marker}: {marker}\r\nReferer: {marker}\r\n"
    );
    let target = format!("http://user:{marker}@h/v1/x?key={marker}#{marker}");
    let plain = format!("POST {target} HTTP/1.1\r\n{secrets}Content-Length: {}\r\n\r\n{body}", body.len());
    let chunked = format!(
        "POST {target} HTTP/1.1\r\n{secrets}Transfer-Encoding: chunked\r\n\r\n{:x};a={marker}\r\n{body}\r\n0;{marker}\r\nX: {marker}\r\n\r\n",
        body.len()
    );
    let gzip = [
        format!(
            "POST {target} HTTP/1.1\r\n{secrets}Content-Encoding: gzip\r\nContent-Length: {}\r\n\r\n",
            packed.len()
        )
        .into_bytes(),
        packed,
    ]
    .concat();
    let answer = format!(
        "HTTP/1.1 200 {marker}\r\nSet-Cookie: {marker}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    for request in [plain.into_bytes(), chunked.into_bytes(), gzip] {
        for (size, head, tail) in [(1000, 1000, 0), (20_000, 1500, 300), (4000, 900, 50), (1, 1, 0)] {
            let mut driver = Driver::new(false);
            let cuts = |direction, bytes: &[u8]| {
                bytes
                    .chunks(size)
                    .map(|call| Do::Cut(direction, call.to_vec(), head, tail))
                    .collect::<Vec<_>>()
            };
            let script = [
                cuts(Direction::Request, &request),
                cuts(Direction::Response, answer.as_bytes()),
                vec![req(post("/", "{}")), resp(json("{}"))],
            ];
            for step in script.iter().flatten() {
                driver.step(step);
                // What a step says is looked at once, the state each time.
                let seen = format!("{:?} {:?}", driver.connection, std::mem::take(&mut driver.out));
                assert!(!seen.contains(marker) && !seen.contains(bytes), "{seen}");
            }
        }
    }
}
