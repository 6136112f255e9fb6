//! What each server's payloads say: tokens, facts, ends.

use super::*;

/// Signals of one POST whose response is a stream of these bytes.
fn stream(payload: &str) -> Vec<Signal> {
    let request = post("/v1/chat/completions", r#"{"stream":true}"#);
    run(false, &[req(request), resp(STREAM), resp(chunk(payload)), resp("0\r\n\r\n")])
}

fn document(payload: &str) -> Vec<Signal> {
    run(false, &[req(post("/", "{}")), resp(json(payload))])
}

fn data(payload: &str) -> String {
    format!("data: {payload}\n\n")
}

fn check_tokens(payload: &str, expected: &[(u32, u32)]) {
    let signals = stream(payload);
    assert_eq!(tokens(&signals), expected, "{payload}\n{signals:?}");
}

fn finish(choice: u32, reason: &str) -> Fact {
    Fact::FinishReason { choice, reason: reason.into() }
}

const ROLE: &str = r#"{"choices":[{"index":0,"delta":{"role":"assistant","content":""}}]}"#;

#[test]
fn edge_18_roles_and_pings_are_no_tokens() {
    let payload = [data(ROLE), ": ping\n\n".into(), ":\n\n".into(), chat("a"), data("[DONE]")].concat();
    check_tokens(&payload, &[(0, 2)]);
    assert!(last_end(&stream(&payload)).saw_done);
    assert_eq!(last_end(&stream(&payload)).events, 2);
    check_tokens(&data(r#"{"choices":[{"delta":{"role":"assistant"}}]}"#), &[]);
    check_tokens(&data(r#"{"choices":[{"delta":{"content":null}}]}"#), &[]);
}

#[test]
fn edge_19_every_form_of_an_event() {
    let event = r#"{"choices":[{"index":0,"delta":{"content":"é"}}]}"#;
    for (payload, count) in [
        (format!("data: {event}\n\ndata: {event}\n\n"), 2),
        (format!("data:{event}\n\n"), 1),
        (format!("data: {event}\r\n\r\ndata: {event}\r\n\r\n"), 2),
        (format!("data: {event}\r\rdata: {event}\r\r"), 2),
        (format!("event: x\nid: 7\nretry: 9\ndata: {event}\n\n"), 1),
        (format!("data: {event}\nid: 7\n\n"), 1),
        ("data: {\"choices\":\ndata: [{\"delta\":{\"content\":\"a\"}}]}\n\n".to_owned(), 1),
        ("data: {\"choices\":\r\ndata: [{\"delta\":{\"content\":\"a\"}}]}\r\n\r\n".to_owned(), 1),
        (format!("{event}\n\n"), 0),
        (format!("data: {event}\n"), 0),
        (format!("data : {event}\n\n"), 0),
        (format!("data\n\ndata: {event}\n\n"), 1),
    ] {
        let request = req(post("/", "{}"));
        for size in 1..=payload.len().min(40) {
            let mut script =
                vec![request.clone(), resp("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n")];
            script.extend(payload.as_bytes().chunks(size).map(resp));
            assert_eq!(tokens(&run(false, &script)).len(), count, "{payload:?} by {size}");
        }
    }
}

#[test]
fn edge_20_events_are_not_tokens() {
    let usage = r#"{"choices":[],"usage":{"prompt_tokens":7,"completion_tokens":3,"prompt_tokens_details":{"cached_tokens":4},"completion_tokens_details":{"reasoning_tokens":1}}}"#;
    let payload =
        [data(ROLE), chat(""), chat("several tokens at once"), data(usage), data("[DONE]")].concat();
    let signals = stream(&payload);
    assert_eq!(tokens(&signals), [(0, 3)]);
    let expected = Usage { input: Some(7), output: Some(3), cached: Some(4), reasoning: Some(1) };
    assert!(facts(&signals).contains(&Fact::Usage(expected)));
    // Reasoning and tools.
    for delta in [
        r#"{"reasoning_content":"x"}"#,
        r#"{"reasoning":"x"}"#,
        r#"{"content":null,"tool_calls":[{"index":0,"function":{"arguments":"{"}}]}"#,
        r#"{"function_call":{"arguments":"x"}}"#,
    ] {
        check_tokens(&data(&format!(r#"{{"choices":[{{"index":0,"delta":{delta}}}]}}"#)), &[(0, 1)]);
    }
    check_tokens(&data(r#"{"choices":[{"index":0,"delta":{"tool_calls":[]}}]}"#), &[]);
    // Continuous usage: told when it changes.
    let with = |n: u32| {
        data(&format!(
            r#"{{"choices":[{{"index":0,"delta":{{"content":"a"}}}}],"usage":{{"prompt_tokens":5,"completion_tokens":{n}}}}}"#
        ))
    };
    let signals = stream(&[with(1), with(4), with(4)].concat());
    let outputs: Vec<_> = facts(&signals)
        .into_iter()
        .filter_map(|fact| match fact {
            Fact::Usage(usage) => usage.output,
            _ => None,
        })
        .collect();
    assert_eq!(outputs, [1, 4]);
    // Listed ids.
    let signals = stream(&data(r#"{"choices":[{"index":0,"token_ids":[1,2,3],"delta":{"content":"a"}}]}"#));
    assert!(signals.iter().any(|signal| matches!(signal.kind, SignalKind::Token { token_ids: Some(3), .. })));
}

#[test]
fn edge_21_choices_are_told_apart() {
    let choice = |index: u32, text: &str| {
        data(&format!(
            r#"{{"choices":[{{"text":"{text}","index":{index},"logprobs":{{"tokens":["a"]}},"finish_reason":null}}]}}"#
        ))
    };
    check_tokens(
        &[choice(0, "a"), choice(1, "b"), choice(1, "c"), choice(0, "")].concat(),
        &[(0, 1), (1, 2), (1, 3)],
    );
    let both =
        data(r#"{"choices":[{"index":1,"text":"x"},{"index":0,"text":"y","finish_reason":"length"}]}"#);
    check_tokens(&both, &[(1, 1), (0, 1)]);
    assert_eq!(facts(&stream(&both)), [finish(0, "length")]);
}

#[test]
fn edge_21_list_prompts_and_parameters() {
    let facts = request_facts(
        r#"{"model":"org/m","stream":true,"max_tokens":16,"n":2,"temperature":0.5,"top_p":0.9,"top_k":-1,"echo":true,"stream_options":{"include_usage":true},"messages":[{"role":"user","content":"hi","model":"not this"},{"role":"user","content":[{"n":9}]}],"tools":[{}]}"#,
    );
    let expected = RequestFacts {
        whole: true,
        model: Some("org/m".into()),
        stream: Some(true),
        include_usage: Some(true),
        echo: Some(true),
        max_tokens: Some(16),
        n: Some(2),
        temperature: Some(0.5),
        top_p: Some(0.9),
        messages_count: Some(2),
        tools_count: Some(1),
        ..RequestFacts::default()
    };
    assert_eq!(facts, expected);
    for (body, prompts, ids) in [
        (r#"{"prompt":"a"}"#, Some(1), None),
        (r#"{"prompt":["a","b","c"]}"#, Some(3), None),
        (r#"{"prompt":[1,2,3,4]}"#, Some(1), Some(4)),
        (r#"{"prompt":[[1,2],[3]]}"#, Some(2), None),
        (r#"{"input":[{"role":"user"}]}"#, Some(1), None),
        (r#"{"inputs":"a","parameters":{"max_new_tokens":8}}"#, Some(1), None),
        (r#"{"text":["a","b"],"sampling_params":{"max_new_tokens":8}}"#, Some(2), None),
        ("{}", None, None),
        ("not json", None, None),
    ] {
        let facts = request_facts(body);
        assert_eq!((facts.prompt_count, facts.prompt_token_ids), (prompts, ids), "{body}");
        assert_eq!(facts.max_tokens, body.contains("max_new").then_some(8), "{body}");
        assert_eq!(facts.whole, body != "not json", "{body}");
    }
}

#[test]
fn edge_22_errors_after_200() {
    for (payload, kind, code, done) in [
        (
            data(r#"{"error":{"message":"m","type":"BadRequestError","code":400}}"#) + &data("[DONE]"),
            Some("BadRequestError"),
            Some("400"),
            true,
        ),
        (data(r#"{"error":"boom"}"#), None, None, false),
        (data(r#"{"error":"boom","error_type":"generation"}"#), Some("generation"), None, false),
        (
            "event: error\ndata: {\"type\":\"error\",\"error\":{\"type\":\"overloaded_error\"}}\n\n".into(),
            Some("overloaded_error"),
            None,
            false,
        ),
        (
            "error: {\"code\":500,\"message\":\"m\",\"type\":\"server_error\"}\n\n".into(),
            Some("server_error"),
            Some("500"),
            false,
        ),
        (
            data(
                r#"{"type":"response.failed","response":{"id":"r","error":{"code":"server_error","message":"m"}}}"#,
            ),
            Some("response.failed"),
            Some("server_error"),
            false,
        ),
    ] {
        let signals = stream(&(chat("a") + &payload));
        let expected = Fact::Error { kind: kind.map(str::to_owned), code: code.map(str::to_owned) };
        assert!(facts(&signals).contains(&expected), "{payload}: {:?}", facts(&signals));
        assert_eq!((tokens(&signals).len(), last_end(&signals).saw_done), (1, done), "{payload}");
    }
    let signals = document(r#"{"object":"error","message":"m","type":"NotFoundError","code":404}"#);
    assert_eq!(
        facts(&signals),
        [Fact::Error { kind: Some("NotFoundError".into()), code: Some("404".into()) }]
    );
    assert!(facts(&document(r#"{"id":"r","error":null}"#)).len() == 1);
}

#[test]
fn edge_22_without_an_end_mark_the_framing_ends_a_stream() {
    let signals = stream(&[chat("a"), chat("b")].concat());
    let end = last_end(&signals);
    assert_eq!(
        (end.outcome, end.saw_done, end.events, tokens(&signals).len()),
        (Outcome::Complete, false, 2, 2)
    );
    // An event that its empty line does not end is none (WHATWG HTML, section 9.2.6).
    let signals = stream(&(chat("a") + chat("b").trim_end()));
    assert_eq!((last_end(&signals).events, tokens(&signals).len()), (1, 1));
}

#[test]
fn edge_22_ids_of_the_user_may_collide_and_connections_do_not() {
    let asked = "POST /v1/completions HTTP/1.1\r\nX-Request-Id: mine\r\nContent-Length: 2\r\n\r\n{}";
    let answered = |id: &str| {
        format!(
            "{STREAM}{}0\r\n\r\n",
            chunk(&data(&format!(r#"{{"id":"cmpl-mine-{id}","choices":[{{"text":"a"}}]}}"#)))
        )
    };
    let mut both = [Driver::new(false), Driver::new(false)];
    both.iter_mut().for_each(|driver| driver.step(&req(asked)));
    for (driver, id) in both.iter_mut().zip(["0", "1"]) {
        driver.step(&resp(answered(id)));
    }
    for (driver, id) in both.iter().zip(["0", "1"]) {
        let head = driver.out.iter().find_map(|signal| match &signal.kind {
            SignalKind::RequestHead(head) => head.request_id.clone(),
            _ => None,
        });
        assert_eq!(
            (head.as_deref(), facts(&driver.out)),
            (Some("mine"), vec![Fact::Id(format!("cmpl-mine-{id}"))])
        );
    }
}

#[test]
fn edge_18_progress_and_other_bookkeeping_are_no_tokens() {
    // llama.cpp with return_progress, vLLM's and OpenAI's first and last events, Anthropic's blocks.
    for event in [
        r#"{"choices":[{"index":0,"delta":{"role":"assistant","content":null}}],"prompt_progress":{"total":9,"processed":3}}"#,
        r#"{"choices":[{"index":0,"delta":{},"finish_reason":"stop","stop_reason":null}]}"#,
        r#"{"choices":[],"usage":{"prompt_tokens":1}}"#,
        r#"{"choices":[{"index":0,"delta":{"content":"","reasoning_content":null,"tool_calls":null},"logprobs":null}]}"#,
        r#"{"type":"content_block_start","index":1,"content_block":{"type":"tool_use","id":"t","name":"f","input":{}}}"#,
        r#"{"type":"content_block_delta","index":0,"delta":{"type":"signature_delta","signature":"x"}}"#,
        r#"{"type":"response.output_item.done","item":{"content":[{"type":"output_text","text":"whole"}]}}"#,
        r#"{"type":"response.content_part.done","part":{"type":"output_text","text":"whole"}}"#,
        r#"{"model":"m","created_at":"t","response":"","done":true,"context":[1,2,3]}"#,
    ] {
        check_tokens(&data(event), &[]);
    }
}

#[test]
fn edge_20_deltas_of_every_kind_are_tokens() {
    for event in [
        r#"{"type":"response.reasoning_text.delta","delta":"x"}"#,
        r#"{"type":"response.reasoning_summary_text.delta","delta":"x"}"#,
        r#"{"type":"response.function_call_arguments.delta","delta":"{"}"#,
        r#"{"type":"response.refusal.delta","delta":"x"}"#,
        r#"{"type":"content_block_delta","index":1,"delta":{"type":"input_json_delta","partial_json":"{"}}"#,
        r#"{"choices":[{"index":0,"delta":{"refusal":"x"}}]}"#,
        r#"{"choices":[{"index":0,"text":"\u00e9","logprobs":{"tokens":["\u00e9"],"top_logprobs":[{"a":-1}]}}]}"#,
    ] {
        check_tokens(&data(event), &[(0, 1)]);
    }
}

#[test]
fn edge_21_echo_tells_the_prompt_first() {
    let request = post("/v1/completions", r#"{"prompt":"p","echo":true,"stream":true,"logprobs":1}"#);
    let payload =
        data(r#"{"choices":[{"index":0,"text":"p"}]}"#) + &data(r#"{"choices":[{"index":0,"text":"a"}]}"#);
    let signals = run(false, &[req(request), resp(STREAM), resp(chunk(&payload)), resp("0\r\n\r\n")]);
    // Both are told, and that the first one is an echo.
    assert_eq!((request_end(&signals).facts.echo, tokens(&signals).len()), (Some(true), 2));
}

#[test]
fn edge_19_a_byte_order_mark_begins_no_line() {
    let payload = format!("\u{feff}{}", chat("a"));
    for size in 1..6 {
        let head = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n";
        let mut script = vec![req(post("/", "{}")), resp(head)];
        script.extend(payload.as_bytes().chunks(size).map(resp));
        assert_eq!(tokens(&run(false, &script)), [(0, 1)], "by {size}");
    }
}

#[test]
fn edge_24_a_resumed_stream_counts_once() {
    // The client goes, the generation goes on, and what it made is replayed on another connection.
    let payload: String = (0..5).map(|n| chat(&n.to_string())).collect();
    let mut gone = Driver::new(false);
    for step in
        [req(post("/v1/chat/completions", "{}")), resp(STREAM), resp(chunk(&chat("0"))), Do::End(End::Failed)]
    {
        gone.step(&step);
    }
    assert_eq!((tokens(&gone.out).len(), last_end(&gone.out).outcome), (1, Outcome::Truncated(End::Failed)));
    let get = "GET /v1/stream/chatcmpl-1?from=0 HTTP/1.1\r\nHost: h\r\n\r\n";
    let signals = run(false, &[req(get), resp(STREAM), resp(chunk(&payload)), resp("0\r\n\r\n")]);
    assert_eq!((tokens(&signals).len(), last_end(&signals).events), (0, 5));
}

#[test]
fn edge_23_documents() {
    let chat = r#"{"id":"chatcmpl-1","model":"m","choices":[{"index":0,"message":{"role":"assistant","content":"text"},"finish_reason":"stop"}],"usage":{"prompt_tokens":5,"completion_tokens":2,"total_tokens":7},"timings":{"cache_n":1,"prompt_n":4,"predicted_n":2,"prompt_ms":1.5}}"#;
    let usage = Usage { input: Some(5), output: Some(2), ..Usage::default() };
    let expected = [
        Fact::Id("chatcmpl-1".into()),
        Fact::Model("m".into()),
        finish(0, "stop"),
        Fact::Usage(usage),
        Fact::Count(ServerCount::CacheN, 1),
        Fact::Count(ServerCount::PromptN, 4),
        Fact::Count(ServerCount::PredictedN, 2),
        Fact::Time(ServerTime::Prompt, 1_500_000),
    ];
    let whole = json(chat);
    for size in [1, 7, 100, whole.len()] {
        let mut script = vec![req(post("/", "{}"))];
        script.extend(whole.as_bytes().chunks(size).map(resp));
        let signals = run(false, &script);
        assert_eq!((facts(&signals).as_slice(), tokens(&signals).len()), (&expected[..], 0), "by {size}");
    }
    let anthropic = document(
        r#"{"id":"msg_1","type":"message","model":"c","content":[{"type":"text","text":"t"}],"stop_reason":"end_turn","usage":{"input_tokens":3,"output_tokens":4}}"#,
    );
    assert_eq!(facts(&anthropic).len(), 4);
    assert!(facts(&anthropic).contains(&finish(0, "end_turn")));
    let tgi =
        document(r#"[{"generated_text":"t","details":{"finish_reason":"length","generated_tokens":9}}]"#);
    assert_eq!(facts(&tgi), [finish(0, "length"), Fact::Count(ServerCount::GeneratedTokens, 9)]);
}

#[test]
fn edge_23_anthropic_events() {
    let payload = [
        "event: message_start\n", &data(r#"{"type":"message_start","message":{"id":"msg_1","model":"c","content":[],"usage":{"input_tokens":3,"cache_read_input_tokens":2,"output_tokens":1}}}"#),
        "event: content_block_start\n", &data(r#"{"type":"content_block_start","index":0,"content_block":{"type":"text","text":""}}"#),
        "event: ping\n", &data(r#"{"type":"ping"}"#),
        "event: content_block_delta\n", &data(r#"{"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"Hi"}}"#),
        &data(r#"{"type":"content_block_delta","index":0,"delta":{"type":"thinking_delta","thinking":"Hm"}}"#),
        &data(r#"{"type":"content_block_delta","index":0,"delta":{"type":"input_json_delta","partial_json":""}}"#),
        &data(r#"{"type":"message_delta","delta":{"stop_reason":"end_turn"},"usage":{"output_tokens":9}}"#),
        "event: message_stop\n", &data(r#"{"type":"message_stop"}"#),
    ].concat();
    let signals = stream(&payload);
    assert_eq!(tokens(&signals), [(0, 4), (0, 5)]);
    let usage = |output| Usage { input: Some(3), output: Some(output), cached: Some(2), reasoning: None };
    let expected = [
        Fact::Id("msg_1".into()),
        Fact::Model("c".into()),
        Fact::Usage(usage(1)),
        finish(0, "end_turn"),
        Fact::Usage(usage(9)),
    ];
    assert_eq!(facts(&signals), expected);
    assert!(last_end(&signals).saw_done);
}

#[test]
fn edge_23_responses_events() {
    let payload = [
        data(r#"{"type":"response.created","response":{"id":"resp_1","model":"m","error":null,"usage":null}}"#),
        data(r#"{"type":"response.output_item.added","item":{"content":[]}}"#),
        data(r#"{"type":"response.output_text.delta","delta":"Hi"}"#),
        data(r#"{"type":"response.output_text.delta","delta":""}"#),
        data(r#"{"type":"response.output_text.done","text":"Hi"}"#),
        data(r#"{"type":"response.completed","response":{"id":"resp_1","model":"m","usage":{"input_tokens":3,"output_tokens":4,"output_tokens_details":{"reasoning_tokens":2}}}}"#),
    ].concat();
    let signals = stream(&payload);
    assert_eq!(tokens(&signals), [(0, 3)]);
    let usage = Usage { input: Some(3), output: Some(4), cached: None, reasoning: Some(2) };
    assert_eq!(facts(&signals), [Fact::Id("resp_1".into()), Fact::Model("m".into()), Fact::Usage(usage)]);
    assert!(last_end(&signals).saw_done);
}

#[test]
fn edge_23_other_dialects() {
    // TGI, without a space.
    let payload = "data:{\"index\":1,\"token\":{\"id\":5,\"text\":\"a\",\"special\":false},\"generated_text\":null}\n\ndata:{\"index\":2,\"token\":{\"id\":6,\"text\":\"b\"},\"generated_text\":\"ab\",\"details\":{\"finish_reason\":\"eos_token\",\"generated_tokens\":2}}\n\n";
    let signals = stream(payload);
    assert_eq!(tokens(&signals), [(0, 1), (0, 2)]);
    assert_eq!(facts(&signals), [finish(0, "eos_token"), Fact::Count(ServerCount::GeneratedTokens, 2)]);
    assert!(last_end(&signals).saw_done);
    // llama.cpp's own endpoint: `index` is the choice.
    let payload = [
        data(r#"{"index":1,"content":"a","tokens":[5],"stop":false,"id_slot":3,"tokens_predicted":1,"tokens_evaluated":8}"#),
        data(r#"{"index":1,"content":"","stop":true,"stop_type":"eos","id_slot":3,"tokens_predicted":1,"tokens_evaluated":8,"timings":{"predicted_ms":0.25}}"#),
    ].concat();
    let signals = stream(&payload);
    assert_eq!(tokens(&signals), [(1, 1)]);
    assert!(facts(&signals).contains(&Fact::Count(ServerCount::IdSlot, 3)));
    assert!(facts(&signals).contains(&Fact::Time(ServerTime::Predicted, 250_000)));
    assert!(facts(&signals).contains(&finish(1, "eos")));
    assert!(last_end(&signals).saw_done);
    // SGLang's own endpoint, Triton's generate extension.
    check_tokens(
        &data(r#"{"text":"a","meta_info":{"id":"r","prompt_tokens":3,"completion_tokens":1}}"#),
        &[(0, 1)],
    );
    check_tokens(&data(r#"{"model_name":"m","model_version":"1","text_output":"a"}"#), &[(0, 1)]);
}

#[test]
fn edge_23_ollama_lines() {
    let head = "HTTP/1.1 200 OK\r\nContent-Type: application/x-ndjson\r\nTransfer-Encoding: chunked\r\n\r\n";
    let lines = "{\"model\":\"m\",\"response\":\"Hi\",\"done\":false}\n{\"model\":\"m\",\"message\":{\"role\":\"assistant\",\"content\":\"x\"},\"done\":false}\n{\"model\":\"m\",\"message\":{\"role\":\"assistant\",\"content\":\"\",\"thinking\":\"y\"},\"done\":false}\n\n{\"model\":\"m\",\"response\":\"\",\"done\":true,\"done_reason\":\"stop\",\"total_duration\":9007199254740990,\"prompt_eval_count\":26,\"eval_count\":2}";
    for size in [1, 5, lines.len()] {
        let mut script = vec![req(post("/api/generate", "{}")), resp(head)];
        script.extend(
            lines.as_bytes().chunks(size).map(|part| resp(chunk(std::str::from_utf8(part).unwrap()))),
        );
        script.push(resp("0\r\n\r\n"));
        let signals = run(false, &script);
        assert_eq!(tokens(&signals), [(0, 1), (0, 2), (0, 3)], "by {size}");
        let expected = [
            Fact::Model("m".into()),
            finish(0, "stop"),
            Fact::Time(ServerTime::Total, 9_007_199_254_740_990),
            Fact::Count(ServerCount::PromptEvalCount, 26),
            Fact::Count(ServerCount::EvalCount, 2),
        ];
        assert_eq!(facts(&signals), expected);
        assert_eq!((last_end(&signals).events, last_end(&signals).saw_done), (4, true));
    }
}

#[test]
fn edge_24_a_replayed_stream_is_no_generation() {
    let get = "GET /v1/stream HTTP/1.1\r\nHost: h\r\n\r\n";
    let payload = [chat("a"), chat("b"), data("[DONE]")].concat();
    let signals = run(false, &[req(get), resp(STREAM), resp(chunk(&payload)), resp("0\r\n\r\n")]);
    assert_eq!((tokens(&signals).len(), last_end(&signals).events), (0, 2));
}

#[test]
fn nothing_is_carried_into_the_next_exchange() {
    let stream = [chat("a"), data("[DONE]")].concat();
    let first =
        [req(post("/a", r#"{"model":"m","n":3}"#)), resp(STREAM), resp(chunk(&stream)), resp("0\r\n\r\n")];
    let mut twice = first.to_vec();
    twice.extend(first.clone());
    let once = kinds(&run(false, &first));
    let both = kinds(&run(false, &twice));
    let second: Vec<_> = both[once.len()..].iter().map(|(_, kind)| kind.clone()).collect();
    assert_eq!(second, once.into_iter().map(|(_, kind)| kind).collect::<Vec<_>>());
}
