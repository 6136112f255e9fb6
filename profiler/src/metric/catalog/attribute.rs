//! Names of attributes on spans, metric points and resources, with what each means.
//! Out: one constant per name. Absent: any attribute that could hold a prompt's or an answer's text.

/// One attribute, for the reference page.
#[derive(Debug)]
pub struct Entry {
    /// Name, as exported.
    pub name: &'static str,
    /// Type of its value.
    pub kind: &'static str,
    /// What it says.
    pub help: &'static str,
}

macro_rules! attributes {
    ($($id:ident: $kind:literal = $name:literal, $help:literal;)*) => {
        $(#[doc = $help] pub const $id: &str = $name;)*
        /// Every attribute, in the order of this file.
        pub static ALL: &[Entry] = &[$(Entry { name: $name, kind: $kind, help: $help }),*];
    };
}

attributes! {
    // HTTP, url, network: OpenTelemetry semantic conventions v1.44.
    HTTP_REQUEST_METHOD: "string" = "http.request.method", "Request method.";
    HTTP_RESPONSE_STATUS_CODE: "int" = "http.response.status_code", "Status code of the answer.";
    HTTP_ROUTE: "string" = "http.route", "Path of a known API, never the raw path.";
    HTTP_REQUEST_BODY_SIZE: "int" = "http.request.body.size", "Bytes of the request's body.";
    HTTP_RESPONSE_BODY_SIZE: "int" = "http.response.body.size", "Bytes of the answer's body.";
    URL_PATH: "string" = "url.path", "Path of the request, without its query.";
    URL_SCHEME: "string" = "url.scheme", "`http` or `https`.";
    SERVER_ADDRESS: "string" = "server.address", "Path of the unix socket that the server listens on; abstract ones begin with `@`.";
    SERVER_PORT: "int" = "server.port", "Port that the server listens on.";
    CLIENT_ADDRESS: "string" = "client.address", "Address of the caller, or of the proxy before us.";
    NETWORK_PEER_ADDRESS: "string" = "network.peer.address", "Peer address of the connection.";
    NETWORK_PEER_PORT: "int" = "network.peer.port", "Peer port of the connection.";
    NETWORK_PROTOCOL_NAME: "string" = "network.protocol.name", "`http`.";
    NETWORK_PROTOCOL_VERSION: "string" = "network.protocol.version", "`1.0`, `1.1` or `2`.";
    NETWORK_TRANSPORT: "string" = "network.transport", "`unix` for a unix socket; absent for TCP.";
    USER_AGENT_ORIGINAL: "string" = "user_agent.original", "The caller's `User-Agent`.";
    ERROR_TYPE: "string" = "error.type", "Status code or short class of a failure; absent on success.";

    // gRPC: OpenTelemetry semantic conventions v1.44.
    RPC_SYSTEM_NAME: "string" = "rpc.system.name", "`grpc`.";
    RPC_METHOD: "string" = "rpc.method", "Service and method, `package.Service/Method`; `_OTHER` where the server knows neither.";
    RPC_RESPONSE_STATUS_CODE: "string" = "rpc.response.status_code", "Name of the status: `OK`, `UNAVAILABLE`, …";

    // Generative AI: OpenTelemetry semantic conventions v1.41.
    GEN_AI_OPERATION_NAME: "string" = "gen_ai.operation.name", "`chat`, `text_completion`, `embeddings`, …";
    GEN_AI_PROVIDER_NAME: "string" = "gen_ai.provider.name", "Flavour of the API that was spoken, such as `openai`.";
    GEN_AI_REQUEST_MODEL: "string" = "gen_ai.request.model", "Model that the request named.";
    GEN_AI_REQUEST_STREAM: "bool" = "gen_ai.request.stream", "The request asked for a stream.";
    GEN_AI_REQUEST_MAX_TOKENS: "int" = "gen_ai.request.max_tokens", "Most output tokens that the request allowed.";
    GEN_AI_REQUEST_TEMPERATURE: "double" = "gen_ai.request.temperature", "Sampling temperature asked for.";
    GEN_AI_REQUEST_TOP_P: "double" = "gen_ai.request.top_p", "Nucleus sampling limit asked for.";
    GEN_AI_REQUEST_CHOICE_COUNT: "int" = "gen_ai.request.choice.count", "Answers asked for, when more than one.";
    GEN_AI_RESPONSE_ID: "string" = "gen_ai.response.id", "The server's id of the answer.";
    GEN_AI_RESPONSE_MODEL: "string" = "gen_ai.response.model", "Model that the answer named.";
    GEN_AI_RESPONSE_FINISH_REASONS: "string[]" = "gen_ai.response.finish_reasons", "Why generation ended.";
    GEN_AI_USAGE_INPUT_TOKENS: "int" = "gen_ai.usage.input_tokens", "Tokens of the prompt.";
    GEN_AI_USAGE_OUTPUT_TOKENS: "int" = "gen_ai.usage.output_tokens", "Tokens generated.";
    GEN_AI_USAGE_CACHED_TOKENS: "int" = "gen_ai.usage.cache_read.input_tokens", "Tokens of the prompt found in the prefix cache.";
    GEN_AI_TOKEN_TYPE: "string" = "gen_ai.token.type", "`input` or `output`.";

    // A request's account.
    GPUSPAN_TIME_TO_FIRST_TOKEN: "double" = "gpuspan.time_to_first_token", "Seconds from the last byte of the request to the first non-empty token.";
    GPUSPAN_EVIDENCE: "string" = "gpuspan.evidence", "Weakest evidence used: `E0` same id, `E1` same message or call, `E2` only candidate, `E3` a share, `E4` none.";
    GPUSPAN_OUTCOME: "string" = "gpuspan.outcome", "`completed`, `aborted`, `rejected`, `error`, `partial` or `lost`.";
    GPUSPAN_RESPONSE_EVENTS: "int" = "gpuspan.response.events", "Events with a document (SSE) or lines (NDJSON) of a streamed answer, without the end mark.";
    GPUSPAN_SERVER: "string" = "gpuspan.server", "The model server: `vllm`, `llama.cpp`, …, `generic`.";
    GPUSPAN_GPU_TIME_NS: "int" = "gpuspan.gpu.time_ns", "This request's share of GPU time, nanoseconds.";
    GPUSPAN_GPU_LO_NS: "int" = "gpuspan.gpu.lo_ns", "Lower bound of the share, when it is bounded.";
    GPUSPAN_GPU_HI_NS: "int" = "gpuspan.gpu.hi_ns", "Upper bound of the share, when it is bounded.";
    GPUSPAN_GPU_TIME_CLASS: "string" = "gpuspan.gpu.time_class", "`measured`, `bounded` or `estimated`.";
    GPUSPAN_GPU_ENERGY_J: "double" = "gpuspan.gpu.energy_j", "This request's share of energy, joules.";
    GPUSPAN_STEPS: "int" = "gpuspan.steps", "Steps that the request may have ridden in; of a summary, those that the kernel ran in.";
    GPUSPAN_DELTA_INDEX: "int" = "gpuspan.delta.index", "Ordinal of the non-empty delta in its answer, from 0.";
    GPUSPAN_LAUNCHES: "int" = "gpuspan.launches", "Kernel launches of the steps it rode in, its share.";
    GPUSPAN_COPIES: "int" = "gpuspan.copies", "Memory copies of the steps it rode in, its share.";
    GPUSPAN_COPY_BYTES: "int" = "gpuspan.copy_bytes", "Bytes of these copies.";
    GPUSPAN_BREAKDOWN_FRONT_END_NS: "int" = "gpuspan.breakdown.front_end_ns", "Part of the duration spent in the server's front end.";
    GPUSPAN_BREAKDOWN_QUEUE_NS: "int" = "gpuspan.breakdown.queue_ns", "Part spent waiting to be scheduled.";
    GPUSPAN_BREAKDOWN_PREFILL_NS: "int" = "gpuspan.breakdown.prefill_ns", "Part spent in its own prefill.";
    GPUSPAN_BREAKDOWN_DECODE_NS: "int" = "gpuspan.breakdown.decode_ns", "Part spent decoding.";
    GPUSPAN_BREAKDOWN_BLOCKED_BY_PREFILL_NS: "int" = "gpuspan.breakdown.blocked_by_prefill_ns", "Part spent waiting for the prefill of others.";
    GPUSPAN_BREAKDOWN_PREEMPTED_NS: "int" = "gpuspan.breakdown.preempted_ns", "Part spent thrown out of the batch.";
    GPUSPAN_BREAKDOWN_CPU_GAP_NS: "int" = "gpuspan.breakdown.cpu_gap_ns", "Part in which the GPU waited for the CPU.";
    GPUSPAN_QUEUED_BEHIND_NS: "int" = "gpuspan.queue.behind_prefills_ns", "While it was queued, how long iterations computed prompts of others.";
    GPUSPAN_SAMPLING: "string" = "gpuspan.sampling", "Why a request has a trace or none: `sampled`, `slow`, `failed`; `caller`, `ratio`, `off`. On spans only `slow` and `failed`, which their share would have left out.";
    GPUSPAN_DROPPED_SPANS: "int" = "gpuspan.dropped_spans", "Spans of this trace that its budget left out.";
    GPUSPAN_BREAKDOWN_UNKNOWN_NS: "int" = "gpuspan.breakdown.unknown_ns", "Part that nothing observed explains.";

    // Engine steps and summaries.
    GPUSPAN_STEP_INDEX: "int" = "gpuspan.step.index", "Number of the step in this observation, from 1.";
    GPUSPAN_STEP_MEMBERS: "int" = "gpuspan.step.members", "Sequences that rode in the step.";
    GPUSPAN_STEP_PHASE: "string" = "gpuspan.step.phase", "What the step did, or did for the linked request: `prefill`, `decode`, `mixed` or `unknown`.";
    GPUSPAN_STEP_COMPLETE: "bool" = "gpuspan.step.complete", "All members of the step are known.";
    GPUSPAN_STEP_FAILED: "bool" = "gpuspan.step.failed", "The attempt failed, and was made again.";
    GPUSPAN_STEP_UNATTRIBUTED_NS: "int" = "gpuspan.step.unattributed_ns", "GPU time of the step that is no member's.";
    GPUSPAN_STEP_DEVICES: "int" = "gpuspan.step.devices", "Devices that worked for the step, where they are several; those of all its processes.";
    GPUSPAN_STEP_SKEW_NS: "int" = "gpuspan.step.skew_ns", "How much later the last of these devices was done than the first, as the waits for them say, nanoseconds.";
    GPUSPAN_SUMMARY_OF: "string" = "gpuspan.summary.of", "What a summary sums up: launches of one `kernel`; those of all `other` kernels, with the GPU time that nothing tells apart; or each `copy` in one direction.";
    GPUSPAN_KERNEL_HANDLE: "string" = "gpuspan.kernel.handle", "Handle of a kernel without a name, in its process.";
    GPUSPAN_STEP_TOKENS: "int" = "gpuspan.step.tokens", "Tokens processed in the step, or by the linked request in it.";
    AGGREGATION_IS_SUMMARY: "bool" = "aggregation.is_summary", "The span stands for several.";
    AGGREGATION_SPAN_COUNT: "int" = "aggregation.span_count", "How many: launches, or copies, in the steps that the request rode in, whoever they were for.";
    AGGREGATION_DURATION_MIN_NS: "int" = "aggregation.duration_min_ns", "Shortest that one took on average in a step, nanoseconds.";
    AGGREGATION_DURATION_MAX_NS: "int" = "aggregation.duration_max_ns", "Longest, likewise.";
    AGGREGATION_DURATION_AVG_NS: "int" = "aggregation.duration_avg_ns", "Mean over all of them, nanoseconds.";
    AGGREGATION_DURATION_TOTAL_NS: "int" = "aggregation.duration_total_ns", "The request's share of their GPU time, nanoseconds: totals of a phase's summaries are its `gpuspan.gpu.time_ns`.";

    // What servers say inside.
    GPUSPAN_ADAPTER: "string" = "gpuspan.adapter", "Who told: `vllm`, `llama.cpp`, `sglang`, `triton`, `tgi`.";
    GPUSPAN_ADAPTER_STATE: "string" = "gpuspan.adapter.state", "Of adapters: `ok` or `demoted`. Of what they heard: `understood` or `failed`.";
    GPUSPAN_ENGINE_INDEX: "int" = "gpuspan.engine.index", "Engine of the process: a data-parallel rank, a llama.cpp context, a Triton model instance.";
    GPUSPAN_ENGINE_EVIDENCE: "string" = "gpuspan.engine.evidence", "How the request was tied to what its server said of it inside; as `gpuspan.evidence`.";
    GPUSPAN_ENGINE_STEPS: "int" = "gpuspan.engine.steps", "Iterations of the engine that the request was in.";
    GPUSPAN_ENGINE_PREEMPTIONS: "int" = "gpuspan.engine.preemptions", "How often the request lost its place in the engine.";

    // What metrics are divided by.
    GPUSPAN_PART: "string" = "gpuspan.part", "Of a request's time: `front_end`, `queue`, `prefill`, `decode`, `blocked_by_prefill`, `preempted`, `cpu_gap` or `unknown`. Of tokens and GPU time: `prefill`, `decode` or `unattributed`.";
    GPUSPAN_IDLE_REASON: "string" = "gpuspan.idle.reason", "Why the GPU did nothing: `no_request` was under way, `cpu_late` between pieces of work, `launch_bound` within one.";
    GPUSPAN_CAPACITY: "string" = "gpuspan.capacity", "Where the most tokens of an iteration are known from: `command_line`, or `largest_seen`.";
    GPUSPAN_KV_CACHE_STATE: "string" = "gpuspan.kv_cache.state", "`used` or `free`.";
    CPU_MODE: "string" = "cpu.mode", "`user` or `system`.";

    // CUDA, as OpenTelemetry eBPF Instrumentation names it.
    CUDA_KERNEL_NAME: "string" = "cuda.kernel.name", "Short name of the kernel; `other` beyond the first 200 of a target.";
    CUDA_MEMCPY_KIND: "string" = "cuda.memcpy.kind", "`HtoD`, `DtoH`, `DtoD`, `HtoH` or `unknown`.";
    CUDA_DEVICE_INDEX: "int" = "cuda.device.index", "Ordinal of the device in its process.";
    CUDA_DEVICE_UUID: "string" = "cuda.device.uuid", "UUID of the device.";
    CUDA_DEVICE_MODEL: "string" = "cuda.device.model", "Model of the device.";

    // Devices: OpenTelemetry semantic conventions v1.44, and what they lack.
    HW_ID: "string" = "hw.id", "UUID of a GPU of NVIDIA's or of an instance of it (MIG); unique id or PCI address of one of AMD's.";
    HW_TYPE: "string" = "hw.type", "`gpu`.";
    HW_NAME: "string" = "hw.name", "Name of the device on its machine: `nvidia0`, `nvidia0.1` for an instance of it, `card1`.";
    HW_MODEL: "string" = "hw.model", "Model of the device.";
    HW_VENDOR: "string" = "hw.vendor", "`nvidia` or `amd`.";
    HW_PARENT: "string" = "hw.parent", "`hw.id` of the GPU that the device is an instance of (MIG).";
    HW_STATE: "string" = "hw.state", "`ok`; `degraded`: rows of its memory wait for a reset; `predicted_failure`: some could not be replaced; `failed`: it does not answer. The point of the state that it is in is 1.";
    HW_GPU_TASK: "string" = "hw.gpu.task", "`general`, `encoder` or `decoder`.";
    HW_SENSOR_LOCATION: "string" = "hw.sensor_location", "`gpu`, `hotspot` or `memory`.";
    HW_LIMIT_TYPE: "string" = "hw.limit_type", "`high.critical`: the device switches itself off; `high.degraded`: it slows down.";
    NETWORK_IO_DIRECTION: "string" = "network.io.direction", "`receive` or `transmit`, seen from the device.";
    GPUSPAN_GPU_LINK: "string" = "gpuspan.gpu.link", "`pcie` or `nvlink`.";
    GPUSPAN_ENERGY_SOURCE: "string" = "gpuspan.energy.source", "`counter` of the device, or added up from its `power`.";
    GPUSPAN_GPU_CLOCK_DOMAIN: "string" = "gpuspan.gpu.clock_domain", "`graphics`, `sm`, `memory` or `video`.";
    GPUSPAN_GPU_THROTTLE_REASON: "string" = "gpuspan.gpu.throttle_reason", "Now: `gpu_idle`, `applications_clocks_setting`, `sw_power_cap`, `hw_slowdown`, `sync_boost`, `sw_thermal_slowdown`, `hw_thermal_slowdown`, `hw_power_brake_slowdown` or `display_clock_setting`. Over time: `power`, `thermal`, `sync_boost`, `board_limit`, `low_utilization` or `reliability`.";
    GPUSPAN_GPU_UNIT: "string" = "gpuspan.gpu.unit", "`graphics`: anything ran; `sm`: multiprocessors with a warp; `sm_occupancy`: warps of those that have room; `tensor`; `dram`: bandwidth; `fp64`, `fp32`, `fp16`, `integer`.";
    GPUSPAN_GPU_XID_CODE: "int" = "gpuspan.gpu.xid_code", "Code of the event, as NVIDIA lists them; 999 is unknown.";
    GPUSPAN_GPU_ROWS: "string" = "gpuspan.gpu.rows", "Rows of memory replaced after `corrected` or `uncorrected` errors; 1 where some are `pending`, or there was a `failure`.";

    // Resources.
    SERVICE_NAME: "string" = "service.name", "The target's own name of itself, else what its deployment says, else its executable's.";
    SERVICE_NAMESPACE: "string" = "service.namespace", "The target's namespace.";
    SERVICE_VERSION: "string" = "service.version", "The target's version.";
    SERVICE_INSTANCE_ID: "string" = "service.instance.id", "Tells replicas apart; always set.";
    PROCESS_PID: "int" = "process.pid", "Process id in the host's namespace.";
    PROCESS_CREATION_TIME: "string" = "process.creation.time", "When the process started.";
    PROCESS_EXECUTABLE_NAME: "string" = "process.executable.name", "File name of the executable.";
    PROCESS_EXECUTABLE_PATH: "string" = "process.executable.path", "Path of the executable.";
    PROCESS_RUNTIME_NAME: "string" = "process.runtime.name", "Language runtime of the process.";
    PROCESS_VPID: "int" = "process.vpid", "Process id in the innermost pid namespace, where that is not the host's.";
    CONTAINER_ID: "string" = "container.id", "Innermost container of the process.";
    CONTAINER_NAME: "string" = "container.name", "Its name, where Docker or podman keep it in a file.";
    CONTAINER_RUNTIME_NAME: "string" = "container.runtime.name", "Who made it: `containerd`, `cri-o`, `docker` or `podman`.";
    CONTAINER_IMAGE_NAME: "string" = "container.image.name", "Image of the container, without its tag.";
    CONTAINER_IMAGE_TAGS: "string[]" = "container.image.tags", "Tag of the image.";
    CONTAINER_IMAGE_REPO_DIGESTS: "string[]" = "container.image.repo_digests", "Image with its digest.";
    K8S_NAMESPACE_NAME: "string" = "k8s.namespace.name", "Kubernetes namespace.";
    K8S_POD_NAME: "string" = "k8s.pod.name", "Kubernetes pod.";
    K8S_POD_UID: "string" = "k8s.pod.uid", "UID of the pod.";
    K8S_CONTAINER_NAME: "string" = "k8s.container.name", "Container in the pod.";
    K8S_NODE_NAME: "string" = "k8s.node.name", "Kubernetes node.";
    K8S_DEPLOYMENT_NAME: "string" = "k8s.deployment.name", "Deployment of the pod, from its ReplicaSet's name.";
    K8S_REPLICASET_NAME: "string" = "k8s.replicaset.name", "ReplicaSet of the pod.";
    K8S_STATEFULSET_NAME: "string" = "k8s.statefulset.name", "StatefulSet of the pod.";
    K8S_DAEMONSET_NAME: "string" = "k8s.daemonset.name", "DaemonSet of the pod.";
    K8S_JOB_NAME: "string" = "k8s.job.name", "Job of the pod.";
    K8S_CRONJOB_NAME: "string" = "k8s.cronjob.name", "CronJob of the pod, from its Job's name.";
    SYSTEMD_UNIT_NAME: "string" = "systemd.unit.name", "systemd unit of the process, the system's or a user's; as the Collector's systemd receiver calls it.";
    GPUSPAN_SLURM_JOB_ID: "string" = "gpuspan.slurm.job.id", "Slurm job of the process.";
    GPUSPAN_SLURM_JOB_NAME: "string" = "gpuspan.slurm.job.name", "Name of the job, as its environment has it.";
    GPUSPAN_SLURM_STEP_ID: "string" = "gpuspan.slurm.step.id", "Step of the job: a number, `batch`, `extern` or `interactive`.";
    GPUSPAN_SLURM_USER_ID: "int" = "gpuspan.slurm.user.id", "Number of the job's user.";
    GPUSPAN_SLURM_USER_NAME: "string" = "gpuspan.slurm.user.name", "Name of the job's user, as its environment has it.";
    HOST_NAME: "string" = "host.name", "Name of the machine.";
    GPUSPAN_EMITS_SPANS: "bool" = "gpuspan.emits_spans", "The server emits spans of its requests itself, so gpuspan's are no SERVER spans.";
    GPUSPAN_GPU_UUIDS: "string[]" = "gpuspan.gpu.uuids", "UUIDs of the GPUs that the process had open when it was attached to.";
    GPUSPAN_GPU_MODELS: "string[]" = "gpuspan.gpu.models", "Their models, in the same order.";
    HOST_ID: "string" = "host.id", "Id of the machine.";
    TELEMETRY_SDK_NAME: "string" = "telemetry.sdk.name", "`gpuspan`: no SDK ran inside the target.";
    TELEMETRY_SDK_LANGUAGE: "string" = "telemetry.sdk.language", "Language of what observed.";
    TELEMETRY_SDK_VERSION: "string" = "telemetry.sdk.version", "Version of what observed.";
    TELEMETRY_DISTRO_NAME: "string" = "telemetry.distro.name", "`gpuspan`.";
    TELEMETRY_DISTRO_VERSION: "string" = "telemetry.distro.version", "Version of gpuspan.";

    // gpuspan about itself.
    GPUSPAN_LOSS_REASON: "string" = "gpuspan.loss.reason", "Why something was lost.";
    GPUSPAN_SIGNAL: "string" = "gpuspan.signal", "`traces` or `metrics`.";
    GPUSPAN_DESTINATION: "string" = "gpuspan.destination", "`otlp` or `file`.";
    GPUSPAN_DETAIL_LEVEL: "string" = "gpuspan.detail.level", "`events`, `aggregate`, `requests` (no GPU library is probed) or `off`.";
    GPUSPAN_PROBE_STATE: "string" = "gpuspan.probe.state", "`attached`, `missing` or `expensive`.";
    GPUSPAN_TABLE: "string" = "gpuspan.table", "Name of a bounded table, as the summary's `beyond` has it.";
    GPUSPAN_METRIC_NAME: "string" = "gpuspan.metric.name", "Name of a metric.";
    OTEL_METRIC_OVERFLOW: "bool" = "otel.metric.overflow", "The point adds up attribute sets beyond the limit of a metric.";
}
