//! What the agent is told: a YAML file, each key with a default that needs no file.
//!
//! In: text. Out: [`Config`], checked; then the settings that the parts of the program take (`resolve`), and what a
//! changed file changes (`change`). Absent: credentials. They stand in files of their own, which are named here.
//!
//! The doc comments are the descriptions in `deploy/agent/config.schema.json`, which editors show.

mod change;
mod read;
mod resolve;
#[cfg(test)]
mod tests;
mod unit;

pub use change::{Change, Effect, changes};
pub use read::{ConfigError, parse, read};
pub use resolve::{ResolveError, Resolved};
pub use unit::{Listen, Share, Size, Time, Word};

use crate::attach::{Adapters, Detail, LinkKind, RING_BYTES};
use crate::device::Scope;
use crate::discover::{MOST_TARGETS, Rule};
use crate::metric::Compat;
use crate::probe::Results;
use crate::span::{STEP_SAMPLE, ServerSpan};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// Configuration of `gpuspan agent`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Where `/healthz`, `/readyz`, `/metrics` and `/targets` are answered, such as 127.0.0.1:9464; `off` for nowhere.
    /// There is neither TLS nor a password: whoever reaches it reads it. A change needs a restart.
    pub listen: Listen,
    /// Where telemetry goes. The OTEL_* variables say what is left out here.
    #[serde(deserialize_with = "unit::or_default")]
    #[schemars(with = "Option<Export>")]
    pub export: Export,
    /// Which processes are observed.
    #[serde(deserialize_with = "unit::or_default")]
    #[schemars(with = "Option<Discover>")]
    pub discover: Discover,
    /// What observing may cost.
    #[serde(deserialize_with = "unit::or_default")]
    #[schemars(with = "Option<Budget>")]
    pub budget: Budget,
    /// What the agent itself may use.
    #[serde(deserialize_with = "unit::or_default")]
    #[schemars(with = "Option<Limits>")]
    pub limits: Limits,
    /// Where the names of pods come from.
    #[serde(deserialize_with = "unit::or_default")]
    #[schemars(with = "Option<Kubernetes>")]
    pub kubernetes: Kubernetes,
    /// Which traces there are. A change needs a restart.
    #[serde(deserialize_with = "unit::or_default")]
    #[schemars(with = "Option<Traces>")]
    pub traces: Traces,
    /// How much is sent from the kernel to begin with: a record a call (`events`), or sums of launches and copies
    /// (`aggregate`), which cost less.
    pub detail: Word<Detail>,
    /// Whether servers are listened to inside, where an adapter knows them: exact queues, steps and tokens for a probe on
    /// each message or batch; `off` infers them from the outside.
    pub adapters: Word<Adapters>,
    /// How devices are read. A change needs a restart.
    #[serde(deserialize_with = "unit::or_default")]
    #[schemars(with = "Option<Devices>")]
    pub devices: Devices,
    /// Tell metrics under the names of another program, too, for the dashboards that it has; each costs a time series
    /// more.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub compat: Option<Word<Compat>>,
    /// The kernel side. A change needs a restart.
    #[serde(deserialize_with = "unit::or_default")]
    #[schemars(with = "Option<Kernel>")]
    pub kernel: Kernel,
}

/// Where telemetry goes.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Export {
    /// OTLP endpoint for traces and metrics, such as http://collector:4317. Without it, and without
    /// OTEL_EXPORTER_OTLP_ENDPOINT, nothing is sent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub otlp_endpoint: Option<String>,
    /// How OTLP is carried: grpc, http/protobuf or http/json; without it port 4317 means grpc and others http/protobuf.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub protocol: Option<Protocol>,
    /// A file with headers for OTLP requests, `name: value` a line: credentials. It is read once.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub headers_file: Option<PathBuf>,
    /// Certificates that are trusted for OTLP instead of the system's, PEM.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ca_file: Option<PathBuf>,
    /// Time between two exports of metrics; without it OTEL_METRIC_EXPORT_INTERVAL, or 60s.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub interval: Option<Time>,
    /// Also write traces and metrics to this file as lines of OTLP/JSON.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub otlp_file: Option<PathBuf>,
}

/// How OTLP is carried.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Protocol {
    /// Protobuf over gRPC.
    #[serde(rename = "grpc")]
    Grpc,
    /// Protobuf over HTTP.
    #[serde(rename = "http/protobuf")]
    HttpProtobuf,
    /// JSON over HTTP.
    #[serde(rename = "http/json")]
    HttpJson,
}

impl Protocol {
    /// As OTEL_EXPORTER_OTLP_PROTOCOL has it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Grpc => "grpc",
            Self::HttpProtobuf => "http/protobuf",
            Self::HttpJson => "http/json",
        }
    }
}

/// Which processes are observed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Discover {
    /// How often processes are looked at.
    pub interval: Time,
    /// Targets at once, at most. Those that were there first stay.
    pub most_targets: usize,
    /// Which processes are observed and what they are called: the first rule that matches decides. Without one known
    /// servers are, and programs that use a GPU and listen.
    #[serde(deserialize_with = "unit::or_default")]
    #[schemars(with = "Option<Vec<Rule>>")]
    pub rules: Vec<Rule>,
}

/// What observing may cost. Shares are of one core.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Budget {
    /// What a target may be slowed down by, before less of it is observed.
    pub target: Share,
    /// What all targets of the node may be slowed down by.
    pub node: Share,
    /// For how long after attaching one measurement above the budget is enough.
    pub canary: Time,
    /// How long the hooks on system calls, for which every process of the machine pays, stay behind the last target.
    pub linger: Time,
    /// As long as this file exists nothing is observed.
    pub off_file: PathBuf,
}

/// What the agent itself may use.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// Memory in RAM, before targets are let go of.
    pub memory: Size,
    /// CPU time as a share of one core, before less is observed.
    pub cpu: Share,
    /// Bytes a second that leave for OTLP endpoints. What is more waits, and is dropped and counted once queues are full.
    pub network: Size,
}

/// Where the names of pods come from. A change needs a restart.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Kubernetes {
    /// Whether pods are asked for: `auto` does where the agent runs in a pod.
    pub enabled: Enabled,
    /// Name of this node; without it NODE_NAME, or the host's name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
    /// URL of the API server; without it the one of the cluster that the agent runs in.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub api: Option<String>,
    /// URL of the node's kubelet, such as https://127.0.0.1:10250, where it is to be asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kubelet: Option<String>,
    /// File with the token of a service account; without it that of the pod.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub token_file: Option<PathBuf>,
    /// Certificates that are trusted; without it those of the pod.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ca_file: Option<PathBuf>,
    /// Whether labels of Kubernetes' own scheme, `app.kubernetes.io/name` and the like, name services before the names of
    /// the pods' owners do: not where they were set for something else.
    pub well_known_labels: bool,
}

/// Whether something is used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Enabled {
    /// Where it is there.
    #[default]
    Auto,
    /// It is an error if it is not there.
    On,
    /// Never.
    Off,
}

/// Which traces there are.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Traces {
    /// Share of the requests that are traced where the caller does not say; without it OTEL_TRACES_SAMPLER decides, and
    /// without that all are. Failed requests are always kept.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sample: Option<Share>,
    /// Show one engine step in so many in a trace of its own; 0 none.
    pub step_sample: u64,
    /// Keep requests that took this long or longer whatever their share.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub keep_slow: Option<Time>,
    /// Trace requests also when their caller says that it does not sample them.
    pub ignore_unsampled: bool,
    /// Whether requests have SERVER spans: not where the server emits its own (`auto`), `always` or `never`.
    pub server_span: Word<ServerSpan>,
}

/// How devices are read.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Devices {
    /// Which: those that targets use (`target`), `all`, or none (`off`).
    pub scope: Word<Scope>,
    /// How often; what is dear ten times less often.
    pub interval: Time,
    /// NVIDIA's management library, where it is not found by its name; without it GPUSPAN_NVML.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub nvml: Option<PathBuf>,
}

/// The kernel side.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Kernel {
    /// Size of the ring between kernel and user space, a power of two: larger outlasts longer stalls, smaller saves memory
    /// and loses records sooner (losses are counted).
    pub ring: Size,
    /// How probes are attached: one link a library (`multi`), one a probe (`perf`), or what the kernel has (`auto`).
    pub links: Word<LinkKind>,
    /// Of which calls failures are told: of those reported at return anyway (`some`) or of `all`, which makes launches half
    /// as dear again.
    pub results: Word<Results>,
    /// The CPU stack of one launch in so many is taken; 0 none.
    pub stacks: u32,
}

impl Default for Discover {
    fn default() -> Self {
        // A server is found within a second and a half, for 0.15 % of a core on a node with 500 processes.
        Self { interval: Time::from_secs(1), most_targets: MOST_TARGETS, rules: Vec::new() }
    }
}

impl Default for Budget {
    fn default() -> Self {
        Self {
            target: Share::percent(3.0),
            node: Share::percent(10.0),
            canary: Time::from_secs(10),
            linger: Time::from_secs(30),
            off_file: PathBuf::from("/run/gpuspan/off"),
        }
    }
}

impl Default for Kubernetes {
    fn default() -> Self {
        Self {
            enabled: Enabled::default(),
            node: None,
            api: None,
            kubelet: None,
            token_file: None,
            ca_file: None,
            well_known_labels: true,
        }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self { memory: Size::mebibytes(400), cpu: Share::percent(50.0), network: Size::mebibytes(8) }
    }
}

impl Default for Traces {
    fn default() -> Self {
        Self {
            sample: None,
            step_sample: STEP_SAMPLE,
            keep_slow: None,
            ignore_unsampled: false,
            server_span: Word::default(),
        }
    }
}

impl Default for Devices {
    fn default() -> Self {
        Self { scope: Word::default(), interval: Time(crate::device::INTERVAL), nvml: None }
    }
}

impl Default for Kernel {
    fn default() -> Self {
        Self {
            ring: Size(u64::from(RING_BYTES)),
            links: Word::default(),
            results: Word::default(),
            stacks: 0,
        }
    }
}
