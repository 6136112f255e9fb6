//! Messages, written by `prost` from its own description of them and read by the walker.

use proptest::prelude::*;
use prost::Message;

use super::*;
use crate::http::{ShardBatch, ShardFinish, ShardGeneration};

#[derive(Clone, PartialEq, Message)]
struct Tensor {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(int64, repeated, tag = "3")]
    shape: Vec<i64>,
}

#[derive(Clone, PartialEq, Message)]
struct InferRequest {
    #[prost(string, tag = "1")]
    model_name: String,
    #[prost(string, tag = "2")]
    model_version: String,
    #[prost(string, tag = "3")]
    id: String,
    #[prost(message, repeated, tag = "5")]
    inputs: Vec<Tensor>,
    #[prost(bytes = "vec", repeated, tag = "7")]
    raw: Vec<Vec<u8>>,
    #[prost(fixed64, tag = "100")]
    new_to_us: u64,
    #[prost(float, tag = "101")]
    newer: f32,
}

#[derive(Clone, PartialEq, Message)]
struct Parameter {
    #[prost(bool, tag = "1")]
    flag: bool,
}

#[derive(Clone, PartialEq, Message)]
struct InferResponse {
    #[prost(string, tag = "1")]
    model_name: String,
    #[prost(string, tag = "3")]
    id: String,
    #[prost(map = "string, message", tag = "4")]
    parameters: std::collections::HashMap<String, Parameter>,
    #[prost(message, repeated, tag = "5")]
    outputs: Vec<Tensor>,
}

#[derive(Clone, PartialEq, Message)]
struct StreamResponse {
    #[prost(string, tag = "1")]
    error_message: String,
    #[prost(message, optional, tag = "2")]
    infer_response: Option<InferResponse>,
}

#[derive(Clone, PartialEq, Message)]
struct PrefillMember {
    #[prost(uint64, tag = "1")]
    id: u64,
    #[prost(string, tag = "2")]
    inputs: String,
}

#[derive(Clone, PartialEq, Message)]
struct Batch {
    #[prost(uint64, tag = "1")]
    id: u64,
    #[prost(message, repeated, tag = "2")]
    requests: Vec<PrefillMember>,
    #[prost(uint32, tag = "3")]
    size: u32,
}

#[derive(Clone, PartialEq, Message)]
struct CachedBatch {
    #[prost(uint64, tag = "1")]
    id: u64,
    #[prost(uint64, repeated, tag = "2")]
    request_ids: Vec<u64>,
    #[prost(uint32, tag = "3")]
    size: u32,
    #[prost(uint32, tag = "5")]
    current_tokens: u32,
}

#[derive(Clone, PartialEq, Message)]
struct Prefill {
    #[prost(message, optional, tag = "1")]
    batch: Option<Batch>,
    #[prost(message, optional, tag = "2")]
    cached: Option<CachedBatch>,
}

#[derive(Clone, PartialEq, Message)]
struct Tokens {
    #[prost(uint32, repeated, tag = "1")]
    ids: Vec<u32>,
    #[prost(string, repeated, tag = "3")]
    texts: Vec<String>,
}

#[derive(Clone, PartialEq, Message)]
struct Text {
    #[prost(string, tag = "1")]
    text: String,
    #[prost(uint32, tag = "2")]
    generated_tokens: u32,
    #[prost(uint32, tag = "3")]
    finish_reason: u32,
}

#[derive(Clone, PartialEq, Message)]
struct Generation {
    #[prost(uint64, tag = "1")]
    request_id: u64,
    #[prost(message, optional, tag = "3")]
    tokens: Option<Tokens>,
    #[prost(message, optional, tag = "4")]
    text: Option<Text>,
}

#[derive(Clone, PartialEq, Message)]
struct Step {
    #[prost(message, repeated, tag = "1")]
    generations: Vec<Generation>,
    #[prost(message, optional, tag = "2")]
    batch: Option<CachedBatch>,
    #[prost(uint64, tag = "3")]
    forward_ns: u64,
    #[prost(uint64, tag = "5")]
    total_ns: u64,
}

fn call(path: &str) -> Call {
    let mut fields = Fields::default();
    use super::super::hpack::{Name, Receiver as _, Value};
    fields.field(Name::Known(Header::Path), Value::Known(path.as_bytes()));
    Call::new(&fields).0
}

fn framed(message: &impl Message) -> Vec<u8> {
    let bytes = message.encode_to_vec();
    [&[0][..], &(bytes.len() as u32).to_be_bytes(), &bytes].concat()
}

fn asked(call: &mut Call, bytes: &[u8], split: usize) -> Vec<SignalKind> {
    let mut kinds = Vec::new();
    bytes.chunks(split).for_each(|part| call.request(part, &mut |kind| kinds.push(kind)));
    kinds
}

fn answered(call: &mut Call, bytes: &[u8], split: usize) -> Vec<SignalKind> {
    let mut kinds = Vec::new();
    bytes.chunks(split).for_each(|part| call.response(part, 9, &mut |kind| kinds.push(kind)));
    kinds
}

fn infer_request() -> InferRequest {
    InferRequest {
        model_name: "bert".to_owned(),
        model_version: "2".to_owned(),
        id: "r-1".to_owned(),
        inputs: vec![Tensor { name: "x".to_owned(), shape: vec![1, 2, 300] }; 2],
        raw: vec![vec![7; 3000]],
        new_to_us: 1,
        newer: 2.0,
    }
}

#[test]
fn a_request_for_inference_of_any_split() {
    for split in [1, 2, 3, 7, 100, 10_000] {
        let mut call = call("/inference.GRPCInferenceService/ModelInfer");
        let kinds = asked(&mut call, &framed(&infer_request()), split);
        let [SignalKind::RpcRequest(facts)] = kinds.as_slice() else { panic!("{kinds:?}") };
        assert!(facts.whole);
        let said = [&facts.model, &facts.model_version, &facts.request_id].map(|text| text.as_deref());
        assert_eq!(said, [Some("bert"), Some("2"), Some("r-1")]);
        assert_eq!(call.end().request.count, 1);
    }
}

#[test]
fn edge_35_an_empty_final_response_is_no_token() {
    let parameters = |last: bool| {
        [
            ("triton_final_response".to_owned(), Parameter { flag: last }),
            ("x".to_owned(), Parameter { flag: true }),
        ]
        .into()
    };
    let output = Tensor { name: "text".to_owned(), shape: vec![1] };
    let token = |last| InferResponse {
        model_name: "m".to_owned(),
        id: "r".to_owned(),
        parameters: parameters(last),
        outputs: vec![output.clone()],
    };
    let empty = InferResponse { outputs: vec![], ..token(true) };
    let stream =
        |response| framed(&StreamResponse { infer_response: Some(response), ..StreamResponse::default() });
    let error = framed(&StreamResponse { error_message: "secret".to_owned(), infer_response: None });
    let bytes = [stream(token(false)), stream(token(false)), stream(empty), error].concat();
    for split in [1, 5, 64, 10_000] {
        let mut call = call("/inference.GRPCInferenceService/ModelStreamInfer");
        let kinds = answered(&mut call, &bytes, split);
        assert_eq!(
            kinds,
            [
                SignalKind::Fact(Fact::Id("r".to_owned())),
                SignalKind::Fact(Fact::Model("m".to_owned())),
                SignalKind::Token { choice: 0, event: 1, token_ids: None },
                SignalKind::Token { choice: 0, event: 2, token_ids: None },
                SignalKind::Fact(Fact::Error { kind: None, code: None }),
            ]
        );
        let end = call.end();
        assert_eq!((end.response.count, end.last_responses, end.first_response_ns), (4, 1, Some(9)));
    }
}

#[test]
fn edge_36_prefill_with_a_cached_batch_and_a_step_of_it() {
    let member = |id| PrefillMember { id, inputs: "a prompt".repeat(3000) };
    let prefill = Prefill {
        batch: Some(Batch { id: 7, requests: vec![member(0), member(5)], size: 2 }),
        cached: Some(CachedBatch { id: 6, request_ids: vec![1, 300, 4], size: 3, current_tokens: 900 }),
    };
    let tokens = |ids: &[u32]| Some(Tokens { ids: ids.to_vec(), texts: vec!["text".to_owned(); ids.len()] });
    let text = Some(Text { text: "all of it".to_owned(), generated_tokens: 20, finish_reason: 1 });
    let step = Step {
        generations: vec![
            Generation { request_id: 0, tokens: tokens(&[70_000]), text: None },
            Generation { request_id: 5, tokens: tokens(&[1, 2, 3]), text },
        ],
        batch: Some(CachedBatch { id: 7, request_ids: vec![0], size: 1, current_tokens: 0 }),
        forward_ns: 1_000_000,
        total_ns: 3_000_000,
    };
    for split in [1, 9, 4096, 100_000] {
        let mut call = call("/generate.v3.TextGenerationService/Prefill");
        let kinds = asked(&mut call, &framed(&prefill), split);
        let batches = vec![
            ShardBatch { id: 7, size: 2, requests: vec![0, 5], current_tokens: 0 },
            ShardBatch { id: 6, size: 3, requests: vec![1, 300, 4], current_tokens: 900 },
        ];
        assert_eq!(kinds[1..], [SignalKind::Fact(Fact::ShardBatches(batches))]);
        let finish = Some(ShardFinish { generated_tokens: 20, reason: 1 });
        let told = ShardStep {
            generations: vec![
                ShardGeneration { request: 0, tokens: 1, finish: None },
                ShardGeneration { request: 5, tokens: 3, finish },
            ],
            batch: Some(ShardBatch { id: 7, size: 1, requests: vec![0], current_tokens: 0 }),
            forward_ns: 1_000_000,
            decode_ns: 0,
            total_ns: 3_000_000,
            concat_ns: None,
        };
        let kinds = answered(&mut call, &framed(&step), split);
        assert_eq!(kinds, [SignalKind::Fact(Fact::ShardStep(Box::new(told)))]);
    }
}

#[test]
fn a_filter_names_what_is_kept() {
    let filter = CachedBatch { id: 3, request_ids: vec![9, 8], ..CachedBatch::default() };
    let mut call = call("/generate.v3.TextGenerationService/FilterBatch");
    let kinds = asked(&mut call, &framed(&filter), 4096);
    let batch = ShardBatch { id: 3, requests: vec![9, 8], ..ShardBatch::default() };
    assert_eq!(kinds[1..], [SignalKind::Fact(Fact::ShardBatches(vec![batch]))]);
}

#[test]
fn compressed_and_damaged_messages_are_counted_and_not_read() {
    let mut compressed = framed(&infer_request());
    compressed[0] = 1;
    let mut call = call("/inference.GRPCInferenceService/ModelInfer");
    let kinds = asked(&mut call, &compressed, 4096);
    assert_eq!(kinds, [SignalKind::RpcRequest(Box::default())]);
    let whole = framed(&infer_request());
    let mut kinds = Vec::new();
    call.response(&framed(&InferResponse::default()), 1, &mut |kind| kinds.push(kind));
    assert_eq!(call.end().response.count, 1);
    // A gap inside a message, then one over its end.
    let mut call = self::call("/inference.GRPCInferenceService/ModelInfer");
    call.request(&whole[..100], &mut |kind| kinds.push(kind));
    call.request_gap(whole.len() as u64 - 100, &mut |kind| kinds.push(kind));
    assert_eq!(kinds, [SignalKind::RpcRequest(Box::default())]);
    call.request(&whole[..100], &mut |_| {});
    call.request_gap(whole.len() as u64, &mut |_| {});
    let counts = call.end().request;
    assert_eq!((counts.count, counts.lost), (1, true));
}

#[test]
fn timeouts() {
    for (text, expected) in [
        ("1S", Some(1_000_000_000)),
        ("99999999H", Some(u64::MAX)),
        ("250m", Some(250_000_000)),
        ("7u", Some(7_000)),
        ("123456789n", None),
        ("S", None),
        ("+1S", None),
        ("", None),
    ] {
        assert_eq!(timeout(text.as_bytes()), expected, "{text}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn garbage_is_survived(bytes in prop::collection::vec(any::<u8>(), 0..200), at in 0..200_usize, split in 1..60_usize) {
        for path in ["/inference.GRPCInferenceService/ModelInfer", "/inference.GRPCInferenceService/ModelStreamInfer", "/generate.v3.TextGenerationService/Prefill", "/generate.v3.TextGenerationService/Decode"] {
            let mut call = call(path);
            let mut mixed = framed(&infer_request());
            let at = at.min(mixed.len());
            mixed.splice(at..at, bytes.clone());
            asked(&mut call, &mixed, split);
            answered(&mut call, &mixed, split);
            // As the content of one message.
            let whole = [&[0][..], &(bytes.len() as u32).to_be_bytes(), &bytes].concat();
            let mut call = self::call(path);
            asked(&mut call, &whole, split);
            answered(&mut call, &whole, split);
        }
    }
}
