"""The messages of SGLang 0.5.23 between its processes, by name and place (sglang/srt/managers/io_struct.py).

Classes are `msgspec` structs as there: tagged, positional on msgpack, and by name in pickles. Pickled by default, as
`SGLANG_USE_PICKLE_IPC` is on. With `RECORD` set every message that is sent or received is kept with its time.
"""

import array
import json
import os
import pickle
import struct
import sys
import threading
import time
import types

import msgspec
import zmq

IO_STRUCT = "sglang.srt.managers.io_struct"
REQUIRED = object()

LOGPROBS = [
    f"{side}_{kind}_{part}"
    for kind in ("token_logprobs", "top_logprobs", "token_ids_logprobs")
    for side in ("input", "output")
    for part in ("val", "idx")
]
SPECULATIVE = (
    "spec_verify_ct spec_num_correct_drafts spec_num_block_accept_tokens spec_num_cap_tokens"
    " spec_correct_drafts_histogram spec_cap_lens_histogram"
).split()
TAIL = (
    ["retraction_counts", "beam_search_output", "weight_versions", "token_steps", "customized_info"]
    + ["cached_tokens_details", "dp_ranks", "time_stats", "image_tokens", "audio_tokens", "video_tokens"]
    + SPECULATIVE
    + ["input_top_logprobs_val_flat", "input_top_logprobs_idx_flat", "input_top_logprobs_flat_null_prefix"]
)
MIDDLE = (
    LOGPROBS
    + ["output_token_entropy_val", "output_token_sampling_mask", "output_hidden_states", "routed_experts"]
    + ["indexer_topk", "placeholder_tokens_idx", "placeholder_tokens_val"]
)


def module_of(name):
    """The module under its real name: it stands in every pickle."""
    for depth in range(1, name.count(".") + 2):
        path = ".".join(name.split(".")[:depth])
        sys.modules.setdefault(path, types.ModuleType(path))
    return sys.modules[name]


def make(name, ids, fields, defaults=None, module=IO_STRUCT, tag=True):
    """A struct as `BaseReq` (ids = "rid") or `BaseBatchReq` ("rids") begins it."""
    route = {"rid": ["rid", "http_worker_ipc"], "rids": ["rids", "http_worker_ipcs"], None: []}[ids]
    every = [(field, object, (defaults or {}).get(field)) for field in route + fields]
    made = msgspec.defstruct(name, every, module=module, tag=tag, kw_only=True, array_like=True)
    setattr(module_of(module), name, made)
    return made


SamplingParams = make(
    "SamplingParams",
    None,
    "max_new_tokens stop stop_token_ids stop_regex temperature top_p top_k min_p frequency_penalty presence_penalty"
    " repetition_penalty min_new_tokens n beam_width json_schema regex ebnf structural_tag ignore_eos"
    " skip_special_tokens spaces_between_special_tokens no_stop_trim stream_interval logit_bias sampling_seed"
    " custom_params watermark stop_strs stop_regex_strs stop_str_max_len stop_regex_max_len is_normalized"
    " ebnf_full_assistant".split(),
    {"temperature": 1.0, "top_p": 1.0, "top_k": 1 << 30, "n": 1, "is_normalized": True},
    module="sglang.srt.sampling.sampling_params",
    tag=None,
)
TokenizedGenerateReqInput = make(
    "TokenizedGenerateReqInput",
    "rid",
    "input_text input_ids input_embeds mm_inputs token_type_ids sampling_params return_logprob logprob_start_len"
    " top_logprobs_num token_ids_logprob stream return_sampling_mask return_flat_raw_top_logprobs"
    " return_hidden_states return_routed_experts routed_experts_start_len return_indexer_topk session_id"
    " session_params lora_id custom_logit_processor positional_embed_overrides bootstrap_host bootstrap_port"
    " bootstrap_room bootstrap_pair_key decode_tp_size routed_dp_rank disagg_prefill_dp_rank routing_key"
    " require_reasoning priority extra_key no_logs return_bytes return_entropy need_wait_for_mm_inputs"
    " num_items_assigned encoder_urls multi_item_delimiter_indices token_indices_to_pool time_stats cache_salt"
    " kv_hints pp_prefetch_ticketed sampling_logprobs_mode lora_name".split(),
    {"return_logprob": False, "logprob_start_len": -1, "top_logprobs_num": 0, "stream": False}
    | {"sampling_logprobs_mode": "selected"},
)
BatchTokenizedGenerateReqInput = make("BatchTokenizedGenerateReqInput", "rids", ["batch"])
TokenizedEmbeddingReqInput = make(
    "TokenizedEmbeddingReqInput",
    "rid",
    "input_text input_ids mm_inputs token_type_ids sampling_params lora_id positional_embed_overrides routed_dp_rank"
    " priority dimensions return_pooled_hidden_states multi_item_delimiter_indices token_indices_to_pool"
    " decision_layout time_stats lora_name".split(),
)
BatchTokenIDOutput = make(
    "BatchTokenIDOutput",
    "rids",
    "finished_reasons decoded_texts decode_ids read_offsets output_ids skip_special_tokens"
    " spaces_between_special_tokens no_stop_trim prompt_tokens reasoning_tokens completion_tokens cached_tokens".split()
    + MIDDLE
    + TAIL,
)
BatchStrOutput = make(
    "BatchStrOutput",
    "rids",
    "finished_reasons output_strs output_ids prompt_tokens completion_tokens reasoning_tokens cached_tokens".split()
    + MIDDLE
    + TAIL,
)
BatchEmbeddingOutput = make(
    "BatchEmbeddingOutput",
    "rids",
    "finished_reasons embeddings prompt_tokens cached_tokens placeholder_tokens_idx placeholder_tokens_val"
    " retraction_counts cached_tokens_details time_stats pooled_hidden_states".split(),
)
AbortReq = make(
    "AbortReq", "rid", "abort_all finished_reason abort_message weight_versions".split(), {"rid": "", "abort_all": False}
)
PickleWrapper = msgspec.defstruct("PickleWrapper", [("data", bytes)], module=IO_STRUCT, tag=True, array_like=True)
setattr(module_of(IO_STRUCT), "PickleWrapper", PickleWrapper)


class SchedulerReqTimeStats:
    """Stamps of `perf_counter`, which is CLOCK_MONOTONIC; sent only where metrics are on."""

    has_timing_data = False

    def __init__(self, enabled):
        self.has_timing_data = enabled
        self.wait_queue_entry_time = self.forward_entry_time = self.prefill_finished_time = 0.0

    def __getstate__(self):
        if not self.has_timing_data:
            return {}
        return {
            "has_timing_data": True,
            "wait_queue_entry_time": self.wait_queue_entry_time,
            "forward_entry_time": self.forward_entry_time,
            "prefill_finished_time": self.prefill_finished_time,
            "queue_duration_s": self.forward_entry_time - self.wait_queue_entry_time,
            "storage_prefetch_wait_s": 0.0,
            "storage_staging_wait_s": 0.0,
            "diff_realtime_monotonic": time.time() - time.perf_counter(),
        }


SchedulerReqTimeStats.__module__ = "sglang.srt.observability.req_time_stats"
setattr(module_of(SchedulerReqTimeStats.__module__), "SchedulerReqTimeStats", SchedulerReqTimeStats)


def enc_hook(value):
    if isinstance(value, array.array):
        code = msgspec.msgpack.encode(value.typecode)
        return msgspec.msgpack.Ext(1, struct.pack(">I", len(code)) + code + value.tobytes())
    raise NotImplementedError(type(value))


def ext_hook(code, data):
    (size,) = struct.unpack_from(">I", data)
    made = array.array(msgspec.msgpack.decode(data[4 : 4 + size]))
    made.frombytes(data[4 + size :])
    return made


ENCODER = msgspec.msgpack.Encoder(enc_hook=enc_hook)


class Wire:
    """Sends and receives in one of the two formats."""

    def __init__(self, packed):
        self.packed = packed
        path = os.environ.get("RECORD")
        self.record = open(f"{path}.{os.getpid()}", "a", buffering=1) if path else None

    def keep(self, socket, sent, data, at):
        if self.record:
            line = {"time_ns": at, "pid": os.getpid(), "tid": threading.get_native_id(), "sent": sent}
            self.record.write(json.dumps(line | {"socket": id(socket), "bytes": data.hex()}) + "\n")

    def encode(self, message):
        if self.packed:
            return ENCODER.encode(message)
        return pickle.dumps(message, pickle.HIGHEST_PROTOCOL)

    def wrap(self, value):
        return PickleWrapper(data=pickle.dumps(value)) if self.packed and value is not None else value

    def send(self, socket, message):
        data = self.encode(message)
        self.keep(socket, True, data, time.monotonic_ns())
        socket.send(data)

    def receive(self, socket, flags=0):
        data = socket.recv(flags)
        self.keep(socket, False, data, time.monotonic_ns())
        return self.decode(data)

    def decode(self, data):
        if not self.packed:
            return pickle.loads(data)
        return rebuild(msgspec.msgpack.decode(data, ext_hook=ext_hook))


def rebuild(values):
    """A struct from its tagged array."""
    made = getattr(sys.modules[IO_STRUCT], values[0])
    fields = dict(zip(made.__struct_fields__, values[1:]))
    if made is BatchTokenizedGenerateReqInput:
        fields["batch"] = [rebuild(one) for one in fields["batch"]]
    if isinstance(fields.get("sampling_params"), list):
        fields["sampling_params"] = SamplingParams(**dict(zip(SamplingParams.__struct_fields__, fields["sampling_params"])))
    return made(**fields)


def pull(context, address, bind):
    return attach(context.socket(zmq.PULL), address, bind)


def push(context, address, bind):
    return attach(context.socket(zmq.PUSH), address, bind)


def attach(socket, address, bind):
    socket.set_hwm(0)
    (socket.bind if bind else socket.connect)(address)
    return socket
