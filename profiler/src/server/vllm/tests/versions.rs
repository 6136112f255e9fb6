//! Messages of all listed versions, made from a table of names that was read off vLLM's sources apart from `schema`.

use super::write::{Bool, Float, Int, Nil, Write, list, map, text};
use super::*;

/// How the messages of a version lie: names of the fields in their order.
#[derive(Clone, Copy)]
pub struct Layout {
    pub version: &'static str,
    /// What is shown of it.
    pub schema: &'static str,
    pub request: &'static str,
    pub output: &'static str,
    pub outputs: &'static str,
    pub kv: &'static str,
    pub random: bool,
    pub reasons: usize,
}

const OUTPUTS_8: &str = "engine_index outputs scheduler_stats timestamp utility_output finished_requests wave_complete start_wave";

const OUTPUTS_9: &str = "engine_index outputs scheduler_stats timestamp utility_output finished_requests \
                         wave_complete start_wave weight_version";

pub const LAYOUTS: [Layout; 16] = [
    Layout {
        version: "0.8.5",
        schema: "0.8.5",
        request: "request_id prompt_token_ids mm_inputs mm_hashes mm_placeholders sampling_params eos_token_id \
                  arrival_time lora_request current_wave",
        output: "request_id new_token_ids new_logprobs new_prompt_logprobs_tensors finish_reason stop_reason \
                  events",
        outputs: OUTPUTS_8,
        kv: "gpu_cache_usage",
        random: false,
        reasons: 3,
    },
    Layout {
        version: "0.9.0",
        schema: "0.9",
        request: "request_id prompt_token_ids mm_inputs mm_hashes mm_placeholders sampling_params eos_token_id \
                  arrival_time lora_request cache_salt current_wave",
        output: "request_id new_token_ids new_logprobs new_prompt_logprobs_tensors finish_reason stop_reason \
                  events kv_transfer_params num_cached_tokens",
        outputs: OUTPUTS_8,
        kv: "gpu_cache_usage",
        random: false,
        reasons: 3,
    },
    Layout {
        version: "0.10.0",
        schema: "0.10",
        request: "request_id prompt_token_ids mm_inputs mm_hashes mm_placeholders sampling_params pooling_params \
                  eos_token_id arrival_time lora_request cache_salt data_parallel_rank client_index current_wave \
                  priority",
        output: "request_id new_token_ids new_logprobs new_prompt_logprobs_tensors pooling_output finish_reason \
                  stop_reason events kv_transfer_params num_cached_tokens",
        outputs: OUTPUTS_8,
        kv: "gpu_cache_usage",
        random: false,
        reasons: 3,
    },
    Layout {
        version: "0.10.2",
        schema: "0.10.2",
        request: "request_id prompt_token_ids mm_features sampling_params pooling_params eos_token_id arrival_time \
                  lora_request cache_salt data_parallel_rank client_index current_wave priority trace_headers",
        output: "request_id new_token_ids new_logprobs new_prompt_logprobs_tensors pooling_output finish_reason \
                  stop_reason events kv_transfer_params trace_headers num_cached_tokens",
        outputs: OUTPUTS_8,
        kv: "kv_cache_usage",
        random: false,
        reasons: 3,
    },
    Layout {
        version: "0.11.0",
        schema: "0.11",
        request: "request_id prompt_token_ids mm_features sampling_params pooling_params eos_token_id arrival_time \
                  lora_request cache_salt data_parallel_rank prompt_embeds client_index current_wave priority \
                  trace_headers",
        output: "request_id new_token_ids new_logprobs new_prompt_logprobs_tensors pooling_output finish_reason \
                  stop_reason events kv_transfer_params trace_headers num_cached_tokens",
        outputs: OUTPUTS_8,
        kv: "kv_cache_usage",
        random: false,
        reasons: 3,
    },
    Layout {
        version: "0.13.0",
        schema: "0.13",
        request: "request_id prompt_token_ids mm_features sampling_params pooling_params eos_token_id arrival_time \
                  lora_request cache_salt data_parallel_rank prompt_embeds client_index current_wave priority \
                  trace_headers",
        output: "request_id new_token_ids new_logprobs new_prompt_logprobs_tensors pooling_output finish_reason \
                  stop_reason events kv_transfer_params trace_headers num_cached_tokens num_nans_in_logits",
        outputs: OUTPUTS_8,
        kv: "kv_cache_usage",
        random: false,
        reasons: 4,
    },
    Layout {
        version: "0.14.0",
        schema: "0.14",
        request: "request_id prompt_token_ids mm_features sampling_params pooling_params eos_token_id arrival_time \
                  lora_request cache_salt data_parallel_rank prompt_embeds client_index current_wave priority \
                  trace_headers external_req_id",
        output: "request_id new_token_ids new_logprobs new_prompt_logprobs_tensors pooling_output finish_reason \
                  stop_reason events kv_transfer_params trace_headers num_cached_tokens routed_experts \
                  num_nans_in_logits",
        outputs: OUTPUTS_8,
        kv: "kv_cache_usage",
        random: true,
        reasons: 4,
    },
    Layout {
        version: "0.16.0",
        schema: "0.16",
        request: "request_id prompt_token_ids mm_features sampling_params pooling_params eos_token_id arrival_time \
                  lora_request cache_salt data_parallel_rank prompt_embeds client_index current_wave priority \
                  trace_headers resumable external_req_id reasoning_ended",
        output: "request_id new_token_ids new_logprobs new_prompt_logprobs_tensors pooling_output finish_reason \
                  stop_reason events kv_transfer_params trace_headers num_cached_tokens \
                  num_external_computed_tokens routed_experts num_nans_in_logits",
        outputs: OUTPUTS_8,
        kv: "kv_cache_usage",
        random: true,
        reasons: 4,
    },
    Layout {
        version: "0.18.0",
        schema: "0.18",
        request: "request_id prompt_token_ids mm_features sampling_params pooling_params arrival_time lora_request \
                  cache_salt data_parallel_rank prompt_embeds client_index current_wave priority trace_headers \
                  resumable external_req_id reasoning_ended",
        output: "request_id new_token_ids new_logprobs new_prompt_logprobs_tensors pooling_output finish_reason \
                  stop_reason events kv_transfer_params trace_headers num_cached_tokens \
                  num_external_computed_tokens routed_experts num_nans_in_logits",
        outputs: OUTPUTS_8,
        kv: "kv_cache_usage",
        random: true,
        reasons: 5,
    },
    Layout {
        version: "0.20.0",
        schema: "0.20",
        request: "request_id prompt_token_ids mm_features sampling_params pooling_params arrival_time lora_request \
                  cache_salt data_parallel_rank prompt_embeds client_index current_wave priority trace_headers \
                  resumable external_req_id reasoning_ended",
        output: "request_id new_token_ids new_logprobs new_prompt_logprobs_tensors pooling_output finish_reason \
                  stop_reason events kv_transfer_params trace_headers prefill_stats routed_experts \
                  num_nans_in_logits",
        outputs: OUTPUTS_8,
        kv: "kv_cache_usage",
        random: true,
        reasons: 5,
    },
    Layout {
        version: "0.25.0",
        schema: "0.25",
        request: "request_id prompt_token_ids mm_features sampling_params pooling_params arrival_time lora_request \
                  cache_salt data_parallel_rank prompt_embeds prompt_is_token_ids client_index current_wave \
                  priority trace_headers resumable external_req_id reasoning_ended reasoning_parser_kwargs \
                  abort_immediately",
        output: "request_id new_token_ids new_logprobs new_prompt_logprobs_tensors pooling_output finish_reason \
                  stop_reason events kv_transfer_params trace_headers prefill_stats routed_experts \
                  num_nans_in_logits",
        outputs: OUTPUTS_8,
        kv: "kv_cache_usage",
        random: true,
        reasons: 5,
    },
    Layout {
        version: "0.27.0",
        schema: "0.27",
        request: "request_id prompt_token_ids mm_features sampling_params pooling_params arrival_time lora_request \
                  cache_salt data_parallel_rank prompt_embeds prompt_is_token_ids client_index current_wave \
                  priority trace_headers resumable external_req_id reasoning_ended reasoning_parser_kwargs \
                  abort_immediately",
        output: "request_id new_token_ids new_logprobs new_prompt_logprobs_tensors pooling_output finish_reason \
                  stop_reason events kv_transfer_params ec_transfer_params trace_headers prefill_stats \
                  routed_experts num_nans_in_logits",
        outputs: OUTPUTS_8,
        kv: "kv_cache_usage",
        random: true,
        reasons: 5,
    },
    Layout {
        version: "0.29.0",
        schema: "0.29",
        request: "request_id prompt_token_ids mm_features sampling_params pooling_params arrival_time lora_request \
                  cache_salt data_parallel_rank prompt_embeds prompt_is_token_ids client_index current_wave \
                  priority trace_headers resumable external_req_id reasoning_ended reasoning_parser_kwargs \
                  abort_immediately session_id",
        output: "request_id new_token_ids new_logprobs new_prompt_logprobs_tensors pooling_output finish_reason \
                  stop_reason events kv_transfer_params ec_transfer_params trace_headers prefill_stats \
                  routed_experts num_nans_in_logits mm_cache_miss_hashes new_sampling_mask spec_decode_metrics",
        outputs: OUTPUTS_8,
        kv: "kv_cache_usage",
        random: true,
        reasons: 5,
    },
    Layout {
        version: "0.31.0",
        schema: "0.31",
        request: "request_id prompt_token_ids mm_features sampling_params pooling_params arrival_time lora_request \
                  cache_salt data_parallel_rank prompt_embeds prompt_is_token_ids client_index current_wave \
                  priority trace_headers resumable external_req_id reasoning_ended reasoning_parser_kwargs \
                  abort_immediately session_id kv_hints",
        output: "request_id new_token_ids new_logprobs new_prompt_logprobs_tensors pooling_output finish_reason \
                  stop_reason events kv_transfer_params ec_transfer_params trace_headers prefill_stats \
                  routed_experts num_nans_in_logits mm_cache_miss_hashes new_sampling_mask spec_decode_metrics \
                  prompt_token_id_logprobs",
        outputs: OUTPUTS_8,
        kv: "kv_cache_usage",
        random: true,
        reasons: 5,
    },
    Layout {
        version: "0.32.0",
        schema: "0.32",
        request: "request_id prompt_token_ids mm_features sampling_params pooling_params arrival_time lora_request \
                  cache_salt data_parallel_rank prompt_embeds prompt_is_token_ids client_index current_wave \
                  priority trace_headers resumable external_req_id reasoning_ended reasoning_parser_kwargs \
                  abort_immediately session_id kv_hints",
        output: "request_id new_token_ids new_logprobs new_prompt_logprobs_tensors pooling_output finish_reason \
                  stop_reason events kv_transfer_params ec_transfer_params trace_headers prefill_stats \
                  routed_experts num_nans_in_logits mm_cache_miss_hashes new_sampling_mask spec_decode_metrics \
                  prompt_token_id_logprobs",
        outputs: OUTPUTS_9,
        kv: "kv_cache_usage",
        random: true,
        reasons: 5,
    },
    Layout {
        version: "0.33.0",
        schema: "0.33",
        request: "request_id prompt_token_ids mm_features sampling_params pooling_params arrival_time lora_request \
                  cache_salt data_parallel_rank prompt_embeds prompt_is_token_ids client_index current_wave \
                  priority trace_headers resumable external_req_id reasoning_ended reasoning_parser_kwargs \
                  abort_immediately session_id kv_hints",
        output: "request_id new_token_ids new_logprobs new_prompt_logprobs_tensors pooling_output finish_reason \
                  stop_reason events kv_transfer_params ec_transfer_params trace_headers prefill_stats \
                  routed_experts num_nans_in_logits mm_cache_miss_hashes new_sampling_mask spec_decode_metrics \
                  prompt_token_id_logprobs error",
        outputs: OUTPUTS_9,
        kv: "kv_cache_usage",
        random: true,
        reasons: 5,
    },
];

pub fn named(version: &str) -> Layout {
    *LAYOUTS.iter().find(|layout| layout.version == version).unwrap()
}

pub fn newest() -> Layout {
    LAYOUTS[LAYOUTS.len() - 1]
}

pub fn seconds(ns: u64) -> Write {
    Float(ns as f64 / 1e9)
}

fn make(names: &str, value: impl Fn(&str) -> Write) -> Write {
    list(names.split_whitespace().map(value).collect())
}

impl Layout {
    /// Place of a field in a structure.
    pub fn place(names: &str, name: &str) -> usize {
        names.split_whitespace().position(|other| other == name).unwrap()
    }

    pub fn request(&self, id: &str, prompt: usize, max_tokens: i64) -> Write {
        self.request_of(id, None, prompt, Some(max_tokens), 0)
    }

    /// One that generates, or pools where it has no limit of tokens.
    pub fn request_of(
        &self,
        id: &str,
        external: Option<&str>,
        prompt: usize,
        max_tokens: Option<i64>,
        client: i64,
    ) -> Write {
        make(self.request, |name| match name {
            "request_id" => text(id),
            "prompt_token_ids" => list((0..prompt as i64).map(Int).collect()),
            "sampling_params" => max_tokens.map_or(Nil, |most| {
                map(vec![("temperature", Float(1.0)), ("stop", list(vec![])), ("max_tokens", Int(most))])
            }),
            "pooling_params" if max_tokens.is_none() => map(vec![("task", text("embed"))]),
            "eos_token_id" => Int(2),
            "arrival_time" => Float(1_795_337_889.16),
            "client_index" => Int(client),
            "current_wave" | "priority" => Int(0),
            "resumable" | "abort_immediately" => Bool(false),
            "external_req_id" => external.map_or(Nil, text),
            "mm_inputs" | "mm_hashes" | "mm_placeholders" => list(vec![]),
            _ => Nil,
        })
    }

    /// An output; a first one with its events, of which the last is `scheduled_ns`.
    pub fn output(
        &self,
        id: &str,
        tokens: i64,
        finish: Option<i64>,
        is_first: bool,
        scheduled_ns: u64,
    ) -> Write {
        let events: &[(i64, u64)] = &[(1, scheduled_ns.saturating_sub(1000)), (2, scheduled_ns)];
        self.output_of(id, tokens, finish, if is_first { events } else { &[] }, is_first.then_some((5, 0)))
    }

    pub fn output_of(
        &self,
        id: &str,
        tokens: i64,
        finish: Option<i64>,
        events: &[(i64, u64)],
        prefill: Option<(i64, i64)>,
    ) -> Write {
        make(self.output, |name| match name {
            "request_id" => text(id),
            "new_token_ids" => list((0..tokens).map(Int).collect()),
            "finish_reason" => finish.map_or(Nil, Int),
            "events" if !events.is_empty() => list(
                events
                    .iter()
                    .map(|(kind, at_ns)| map(vec![("type", Int(*kind)), ("timestamp", seconds(*at_ns))]))
                    .collect(),
            ),
            "num_cached_tokens" => Int(prefill.map_or(0, |(_, cached)| cached)),
            "prefill_stats" => prefill.map_or(Nil, |(prompt, cached)| {
                map(vec![
                    ("num_prompt_tokens", Int(prompt)),
                    ("num_computed_tokens", Int(prompt - cached)),
                    ("num_cached_tokens", Int(cached)),
                    ("num_local_cached_tokens", Int(cached)),
                    ("num_external_cached_tokens", Int(0)),
                ])
            }),
            "num_nans_in_logits" | "num_external_computed_tokens" => Int(0),
            _ => Nil,
        })
    }

    /// Outputs of a step, with running and waiting requests and the share of the KV cache.
    pub fn outputs(&self, outputs: Vec<Write>, stats: Option<(i64, i64, f64)>, stamp_ns: u64) -> Write {
        let outputs = list(outputs);
        make(self.outputs, |name| match name {
            "engine_index" => Int(0),
            "outputs" => outputs.clone(),
            "scheduler_stats" => stats.map_or(Nil, |(running, waiting, kv)| {
                map(vec![
                    ("num_running_reqs", Int(running)),
                    ("num_waiting_reqs", Int(waiting)),
                    (self.kv, Float(kv)),
                    ("prefix_cache_stats", map(vec![("reset", Bool(false)), ("queries", Int(5))])),
                    ("spec_decoding_stats", Nil),
                ])
            }),
            "timestamp" => seconds(stamp_ns),
            "weight_version" => text("default"),
            _ => Nil,
        })
    }
}

/// Milliseconds of a test's clock, as nanoseconds.
pub fn ms(time: u64) -> u64 {
    1_000_000_000_000 + time * 1_000_000
}

/// Plays one request that is asked at 0, queued at 4 and scheduled at 5 ms, with a token at 20, 30 and 40 ms.
pub fn play_one(layout: &Layout, play: &mut Play, wire: &str, external: Option<&str>) {
    play.add(ms(0), &layout.request_of(wire, external, 5, Some(3), 0).bytes());
    let first = layout.output_of(wire, 1, None, &[(1, ms(4)), (2, ms(5))], Some((5, 2)));
    play.outputs(ms(21), &layout.outputs(vec![first], Some((1, 0, 0.25)), ms(20)).bytes());
    let second = layout.output(wire, 1, None, false, ms(5));
    play.outputs(ms(31), &layout.outputs(vec![second], Some((1, 0, 0.5)), ms(30)).bytes());
    let last = layout.output(wire, 1, Some(1), false, ms(5));
    play.outputs(ms(41), &layout.outputs(vec![last], Some((0, 0, 0.0)), ms(40)).bytes());
}

#[test]
fn edge_27_all_listed_versions_are_read() {
    for layout in &LAYOUTS {
        let has_external = layout.request.contains("external_req_id");
        let wire = if layout.random { "chatcmpl-abc-01234567" } else { "chatcmpl-abc" };
        let mut play = Play::default();
        play_one(layout, &mut play, wire, has_external.then_some("chatcmpl-abc"));
        let story = play.only();
        let name = layout.version;
        assert_eq!(play.adapter.schema(), Some(layout.schema));
        assert_eq!((play.adapter.health().seen, play.adapter.health().failed), (4, 0), "{name}");
        assert_eq!(story.tie.outer_id.as_deref(), Some("chatcmpl-abc"), "{name}");
        assert_eq!((story.tie.prompt_tokens, story.met_ns), (Some(5), ms(0)), "{name}");
        assert_eq!(
            story.moments,
            [
                (Moment::Enqueued, ms(4), Evidence::E0),
                (Moment::Scheduled, ms(5), Evidence::E0),
                (Moment::Prefilling, ms(5), Evidence::E1)
            ],
            "{name}"
        );
        assert_eq!(story.tokens, [(ms(20), 1), (ms(30), 1), (ms(40), 1)], "{name}");
        let cached =
            (layout.output.contains("cached") || layout.output.contains("prefill_stats")).then_some(2);
        assert_eq!(story.counts, Counts { prompt: Some(5), cached, generated: Some(3) }, "{name}");
        assert_eq!(story.end, Some((Reason::Length, ms(40))), "{name}");
        let kv: Vec<_> = play.gauges().iter().map(|gauges| gauges.kv_usage).collect();
        assert_eq!(kv, [Some(0.25), Some(0.5), Some(0.0)], "{name}");
        let steps: Vec<_> =
            play.steps().iter().map(|step| (step.end_ns, step.is_complete, step.tokens)).collect();
        let computed = cached.map(|_| 3);
        assert_eq!(
            steps,
            [(ms(20), true, computed), (ms(30), true, Some(1)), (ms(40), true, Some(1))],
            "{name}"
        );
    }
}

#[test]
fn edge_27_finish_reasons_are_those_of_the_version() {
    use Reason::{Abort, Error, Length, Repetition, Stop};
    for layout in &LAYOUTS {
        for (number, reason) in [Stop, Length, Abort, Error, Repetition].into_iter().enumerate() {
            let mut play = Play::default();
            play.add(ms(0), &layout.request("r", 5, 10).bytes());
            let output = layout.output("r", 1, Some(number as i64), true, ms(5));
            play.outputs(ms(21), &layout.outputs(vec![output], Some((0, 0, 0.0)), ms(20)).bytes());
            if number < layout.reasons {
                assert_eq!(play.only().end, Some((reason, ms(20))), "{}", layout.version);
            } else {
                assert_eq!((play.said.len(), play.adapter.health().failed), (0, 1), "{}", layout.version);
            }
        }
    }
}

#[test]
fn edge_27_the_named_version_is_believed_at_once() {
    let layout = &named("0.32.0");
    let start =
        map(vec![("max_model_len", Int(1024)), ("dtype", text("float32")), ("vllm_version", text("0.32.0"))]);
    for named in [true, false] {
        let mut play = Play::default();
        if named {
            play.frame(ms(0) - 5, true, INPUT, false, &start.bytes());
        }
        play.add(ms(0), &layout.request("r-01234567", 5, 10).bytes());
        // Without statistics, nothing but the types of the items speaks for the schema.
        let output = layout.output_of("r-01234567", 1, None, &[], None);
        play.outputs(ms(21), &layout.outputs(vec![output], None, ms(20)).bytes());
        assert_eq!(play.said.is_empty(), !named);
        assert_eq!(play.adapter.schema(), named.then_some("0.32"));
    }
}

#[test]
fn a_field_more_at_the_end_does_no_harm() {
    // vLLM's own rule for these structures: new fields are appended.
    let newer = Layout {
        version: "0.40",
        schema: "like 0.33",
        request: "request_id prompt_token_ids mm_features sampling_params pooling_params arrival_time lora_request \
                  cache_salt data_parallel_rank prompt_embeds prompt_is_token_ids client_index current_wave priority \
                  trace_headers resumable external_req_id reasoning_ended reasoning_parser_kwargs abort_immediately \
                  session_id kv_hints one_more",
        output: "request_id new_token_ids new_logprobs new_prompt_logprobs_tensors pooling_output finish_reason \
                 stop_reason events kv_transfer_params ec_transfer_params trace_headers prefill_stats routed_experts \
                 num_nans_in_logits mm_cache_miss_hashes new_sampling_mask spec_decode_metrics \
                 prompt_token_id_logprobs error two more",
        outputs: "engine_index outputs scheduler_stats timestamp utility_output finished_requests wave_complete \
                  start_wave weight_version something",
        ..newest()
    };
    let mut play = Play::default();
    play_one(&newer, &mut play, "chatcmpl-abc-01234567", Some("chatcmpl-abc"));
    assert_eq!(play.adapter.schema(), Some("like 0.33"));
    assert_eq!(play.only().counts.generated, Some(3));
    assert_eq!(play.adapter.health().failed, 0);
}
