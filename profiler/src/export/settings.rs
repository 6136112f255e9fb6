//! Where telemetry goes. In: flags and the environment, as a lookup. Out: `Settings`, with nothing left to ask.
//! Absent: reading files and opening connections, so that every rule has a line in a table of tests.

use std::borrow::Cow;
use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use reqwest::Url;
use reqwest::header::{HeaderName, HeaderValue};

use super::pace::Pace;
use super::retry::Policy;
use crate::metric::Readers;
use crate::metric::catalog::attribute::{HOST_NAME, SERVICE_INSTANCE_ID, SERVICE_NAME, SERVICE_VERSION};
use crate::span::model::{Resource, Value};

/// OpenTelemetry's default of `OTEL_EXPORTER_OTLP_TIMEOUT`.
const TIMEOUT: Duration = Duration::from_secs(10);
/// OpenTelemetry's default of `OTEL_METRIC_EXPORT_INTERVAL`.
const METRIC_INTERVAL: Duration = Duration::from_secs(60);
/// Time to deliver what is queued when the program ends. Kubernetes kills after 30 s, a user loses patience sooner.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(5);
/// The port that IANA assigned to OTLP/gRPC.
const GRPC_PORT: u16 = 4317;

/// What the command line says about exporting.
#[derive(Clone, Debug, Default)]
pub struct Flags {
    /// `--otlp-endpoint`: stands for `OTEL_EXPORTER_OTLP_ENDPOINT`, and beats the per-signal variables too.
    pub otlp_endpoint: Option<String>,
    /// `--otlp-file`: OTLP/JSON lines into this file.
    pub otlp_file: Option<PathBuf>,
    /// Beats `OTEL_METRIC_EXPORT_INTERVAL`.
    pub metric_interval: Option<Duration>,
    /// `--prometheus-listen`: address for scrapes.
    pub prometheus_listen: Option<String>,
}

/// Where telemetry goes, and how.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Where spans go, if anywhere.
    pub traces: Option<Endpoint>,
    /// Where metrics go, if anywhere.
    pub metrics: Option<Endpoint>,
    /// The file for both.
    pub file: Option<PathBuf>,
    /// Where scrapes are answered, if anywhere.
    pub scrapes: Option<SocketAddr>,
    /// Histograms go out with exponential buckets.
    pub exponential: bool,
    /// Time between two snapshots.
    pub metric_interval: Duration,
    /// Time to deliver what is queued when the program ends.
    pub flush_timeout: Duration,
    /// How fast requests leave.
    pub pace: Arc<Pace>,
    /// How long and how often a failed request is tried again.
    pub retry: Policy,
    /// What was ignored, for the log.
    pub warnings: Vec<String>,
}

/// One signal's destination.
#[derive(Clone, Debug, PartialEq)]
pub struct Endpoint {
    /// Where; for HTTP with the signal's path.
    pub url: Url,
    /// How it is said.
    pub protocol: Protocol,
    /// Extra headers.
    pub headers: Headers,
    /// Of one attempt.
    pub timeout: Duration,
    /// Compress requests.
    pub gzip: bool,
    /// Files for TLS.
    pub tls: Tls,
}

/// How OTLP is carried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// gRPC.
    Grpc,
    /// Protobuf over HTTP.
    HttpProtobuf,
    /// JSON over HTTP.
    HttpJson,
}

/// PEM files.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tls {
    /// Trusted instead of the system's authorities.
    pub certificate: Option<PathBuf>,
    /// Our key, for mutual TLS.
    pub client_key: Option<PathBuf>,
    /// Our certificate, for mutual TLS.
    pub client_certificate: Option<PathBuf>,
}

/// Header names and values. The values are secrets: they are never printed.
#[derive(Clone, Default, PartialEq)]
pub struct Headers(pub Vec<(HeaderName, HeaderValue)>);

impl fmt::Debug for Headers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.0.iter().map(|(name, _)| name)).finish()
    }
}

/// A setting with which nothing could be exported.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    /// No URL.
    #[error("`{name}` is not a URL such as http://localhost:4318: {value}")]
    Url {
        /// Of the flag or variable.
        name: String,
        /// What it said.
        value: String,
    },
    /// A secret where it would end up in logs.
    #[error(
        "`{name}` holds a user or password; set OTEL_EXPORTER_OTLP_HEADERS to authorization=Basic%20… instead"
    )]
    Secret {
        /// Of the flag or variable.
        name: String,
    },
    /// No address to listen on.
    #[error("`--prometheus-listen` wants an address and a port such as 127.0.0.1:9464, not `{0}`")]
    Listen(String),
    /// Half of a key pair.
    #[error(
        "OTEL_EXPORTER_OTLP_CLIENT_KEY and OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE need each other; set both or none"
    )]
    KeyPair,
}

impl Settings {
    /// Settings from flags and the environment. An empty variable is an unset one; a value that makes no sense is
    /// ignored with a warning, as OpenTelemetry prescribes, except a wrong URL, which would lose everything.
    pub fn resolve(flags: &Flags, env: impl Fn(&str) -> Option<String>) -> Result<Self, SettingsError> {
        let mut reader = Reader { flags, env: &env, warnings: Vec::new() };
        let disabled = reader.truth("OTEL_SDK_DISABLED");
        let traces = if disabled { None } else { reader.endpoint(Signal::Traces)? };
        let metrics = if disabled { None } else { reader.endpoint(Signal::Metrics)? };
        let metric_interval = flags.metric_interval.or_else(|| reader.millis("OTEL_METRIC_EXPORT_INTERVAL"));
        if metrics.is_some() {
            reader.refuse_delta();
        }
        let exponential = reader.exponential();
        Ok(Self {
            traces,
            metrics,
            file: flags.otlp_file.clone(),
            scrapes: reader.listen()?,
            exponential,
            metric_interval: metric_interval.unwrap_or(METRIC_INTERVAL),
            flush_timeout: FLUSH_TIMEOUT,
            pace: Arc::default(),
            retry: Policy::default(),
            warnings: reader.warnings,
        })
    }

    /// Who will read the metrics.
    #[must_use]
    pub fn readers(&self) -> Readers {
        Readers { exponential: self.exponential, scraped: self.scrapes.is_some() }
    }

    /// Nothing would be exported.
    pub fn is_idle(&self) -> bool {
        self.traces.is_none() && self.metrics.is_none() && self.file.is_none() && self.scrapes.is_none()
    }
}

/// What the resource variables of an environment say a process is: `OTEL_RESOURCE_ATTRIBUTES`, and
/// `OTEL_SERVICE_NAME` before it. The environment may be our own or a target's.
pub fn identity(env: impl Fn(&str) -> Option<String>) -> Vec<(String, String)> {
    let mut pairs: Vec<_> =
        pairs(&env("OTEL_RESOURCE_ATTRIBUTES").unwrap_or_default()).into_iter().flatten().collect();
    if let Some(name) = env("OTEL_SERVICE_NAME").filter(|name| !name.is_empty()) {
        pairs.retain(|(key, _)| key != SERVICE_NAME);
        pairs.push((SERVICE_NAME.to_owned(), name));
    }
    pairs
}

/// gpuspan's own resource, for the metrics about itself: those of several would be one series without an instance.
pub fn own_resource(env: impl Fn(&str) -> Option<String>, host: &str, pid: u32) -> Resource {
    let mut attributes: Vec<(Cow<'static, str>, Value)> =
        identity(env).into_iter().map(|(key, value)| (key.into(), Value::Str(value.into()))).collect();
    let known = [
        (SERVICE_NAME, "gpuspan".to_owned()),
        (SERVICE_VERSION, env!("CARGO_PKG_VERSION").to_owned()),
        (SERVICE_INSTANCE_ID, format!("{host}.{pid}")),
        (HOST_NAME, host.to_owned()),
    ];
    for (key, value) in known {
        if !attributes.iter().any(|(given, _)| given == key) {
            attributes.push((key.into(), Value::Str(value.into())));
        }
    }
    attributes.sort_by(|left, right| left.0.cmp(&right.0));
    Resource { attributes }
}

/// What is exported.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// Spans.
    Traces,
    /// Metric points.
    Metrics,
}

impl Signal {
    /// As attributes and logs spell it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Traces => "traces",
            Self::Metrics => "metrics",
        }
    }
}

struct Reader<'a> {
    flags: &'a Flags,
    env: &'a dyn Fn(&str) -> Option<String>,
    warnings: Vec<String>,
}

impl Reader<'_> {
    fn endpoint(&mut self, signal: Signal) -> Result<Option<Endpoint>, SettingsError> {
        let Some((name, text, whole)) = self.location(signal) else { return Ok(None) };
        if text.contains('@') {
            return Err(SettingsError::Secret { name });
        }
        let error = || SettingsError::Url { name: name.clone(), value: text.clone() };
        let protocol = match self.protocol(signal) {
            Some(protocol) => protocol,
            // A collector's usual gRPC port, and nobody said otherwise: HTTP would only fail there.
            None if port(&text) == Some(GRPC_PORT) => Protocol::Grpc,
            None => Protocol::HttpProtobuf,
        };
        let text = if protocol == Protocol::Grpc { self.with_scheme(signal, &text) } else { text.clone() };
        let mut url = Url::parse(&text).map_err(|_| error())?;
        if !matches!(url.scheme(), "http" | "https") || url.host_str().is_none() {
            return Err(error());
        }
        if protocol != Protocol::Grpc && !whole {
            let base = url.path().trim_end_matches('/').to_owned();
            url.set_path(&format!("{base}/v1/{}", signal.name()));
        }
        let tls = self.tls(signal);
        if tls.client_key.is_some() != tls.client_certificate.is_some() {
            return Err(SettingsError::KeyPair);
        }
        let timeout = self.signal_variable(signal, "TIMEOUT").and_then(|(name, _)| self.millis(&name));
        Ok(Some(Endpoint {
            url,
            protocol,
            headers: self.headers(signal),
            timeout: timeout.unwrap_or(TIMEOUT),
            gzip: self.gzip(signal),
            tls,
        }))
    }

    /// The name of the flag or variable that says where the signal goes, what it says, and whether it is the whole
    /// URL rather than the base of all signals.
    fn location(&self, signal: Signal) -> Option<(String, String, bool)> {
        let exporter = self.variable(&format!("OTEL_{}_EXPORTER", signal.name().to_uppercase()));
        if exporter.as_deref() == Some("none") {
            return None;
        }
        if let Some(url) = &self.flags.otlp_endpoint {
            return Some(("--otlp-endpoint".to_owned(), url.clone(), false));
        }
        if let Some((name, url)) = self.signal_variable(signal, "ENDPOINT") {
            let whole = name != "OTEL_EXPORTER_OTLP_ENDPOINT";
            return Some((name, url, whole));
        }
        let default = || match self.protocol_name(signal).as_deref() {
            Some("grpc") => "http://localhost:4317".to_owned(),
            _ => "http://localhost:4318".to_owned(),
        };
        let asked = exporter.is_some_and(|list| list.split(',').any(|name| name.trim() == "otlp"));
        asked.then(|| (String::new(), default(), false))
    }

    fn protocol_name(&self, signal: Signal) -> Option<String> {
        self.signal_variable(signal, "PROTOCOL").map(|(_, value)| value.to_lowercase())
    }

    fn protocol(&mut self, signal: Signal) -> Option<Protocol> {
        match self.protocol_name(signal)?.as_str() {
            "grpc" => Some(Protocol::Grpc),
            "http/protobuf" => Some(Protocol::HttpProtobuf),
            "http/json" => Some(Protocol::HttpJson),
            other => {
                self.warn(format!(
                    "the OTLP protocol `{other}` is not known; use grpc, http/protobuf or http/json"
                ));
                None
            }
        }
    }

    /// gRPC endpoints may lack a scheme; `INSECURE` then decides.
    fn with_scheme(&self, signal: Signal, text: &str) -> String {
        if text.contains("://") {
            return text.to_owned();
        }
        let insecure = self.signal_variable(signal, "INSECURE").is_some_and(|(_, value)| is_true(&value));
        format!("{}://{text}", if insecure { "http" } else { "https" })
    }

    fn headers(&mut self, signal: Signal) -> Headers {
        let Some((name, list)) = self.signal_variable(signal, "HEADERS") else { return Headers::default() };
        let mut headers = Vec::new();
        for (index, pair) in pairs(&list).into_iter().enumerate() {
            match pair.and_then(|(key, value)| Some((key.parse().ok()?, HeaderValue::from_str(&value).ok()?)))
            {
                Some(header) => headers.push(header),
                None => self.warn(format!("entry {} of {name} is not `key=value` and is ignored", index + 1)),
            }
        }
        Headers(headers)
    }

    fn gzip(&mut self, signal: Signal) -> bool {
        match self.signal_variable(signal, "COMPRESSION") {
            Some((_, value)) if value == "gzip" => true,
            Some((name, value)) if value != "none" => {
                self.warn(format!(
                    "{name}={value} is not known; requests are not compressed; use gzip or none"
                ));
                false
            }
            _ => false,
        }
    }

    fn tls(&self, signal: Signal) -> Tls {
        let path = |what| self.signal_variable(signal, what).map(|(_, path)| PathBuf::from(path));
        Tls {
            certificate: path("CERTIFICATE"),
            client_key: path("CLIENT_KEY"),
            client_certificate: path("CLIENT_CERTIFICATE"),
        }
    }

    fn refuse_delta(&mut self) {
        let name = "OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE";
        if self.variable(name).is_some_and(|value| !value.eq_ignore_ascii_case("cumulative")) {
            self.warn(format!("{name} is ignored; sums are always cumulative, which every backend takes"));
        }
    }

    fn exponential(&mut self) -> bool {
        let name = "OTEL_EXPORTER_OTLP_METRICS_DEFAULT_HISTOGRAM_AGGREGATION";
        let Some(value) = self.variable(name) else { return false };
        match value.to_lowercase().as_str() {
            "base2_exponential_bucket_histogram" => return true,
            "explicit_bucket_histogram" => {}
            _ => self.warn(format!(
                "{name}={value} is not known, so histograms have explicit buckets; use explicit_bucket_histogram or \
                 base2_exponential_bucket_histogram"
            )),
        }
        false
    }

    fn listen(&mut self) -> Result<Option<SocketAddr>, SettingsError> {
        let Some(text) = self.flags.prometheus_listen.as_deref().filter(|text| !text.is_empty()) else {
            return Ok(None);
        };
        let number = text.strip_prefix("localhost:").map(|port| format!("127.0.0.1:{port}"));
        let address: SocketAddr =
            number.as_deref().unwrap_or(text).parse().map_err(|_| SettingsError::Listen(text.to_owned()))?;
        if !address.ip().is_loopback() {
            self.warn(format!(
                "metrics at {address} can be read by whoever reaches it: there is neither TLS nor a password; \
                 127.0.0.1 is for this machine only"
            ));
        }
        Ok(Some(address))
    }

    /// `OTEL_EXPORTER_OTLP_<SIGNAL>_<WHAT>`, else `OTEL_EXPORTER_OTLP_<WHAT>`, with the name of the one that is set.
    fn signal_variable(&self, signal: Signal, what: &str) -> Option<(String, String)> {
        let own = format!("OTEL_EXPORTER_OTLP_{}_{what}", signal.name().to_uppercase());
        let general = format!("OTEL_EXPORTER_OTLP_{what}");
        [own, general].into_iter().find_map(|name| self.variable(&name).map(|value| (name, value)))
    }

    fn variable(&self, name: &str) -> Option<String> {
        (self.env)(name).map(|value| value.trim().to_owned()).filter(|value| !value.is_empty())
    }

    fn truth(&self, name: &str) -> bool {
        self.variable(name).is_some_and(|value| is_true(&value))
    }

    fn millis(&mut self, name: &str) -> Option<Duration> {
        let value = self.variable(name)?;
        match value.parse() {
            Ok(millis) if millis > 0 => Some(Duration::from_millis(millis)),
            _ => {
                self.warn(format!("{name}={value} is not a number of milliseconds and is ignored"));
                None
            }
        }
    }

    fn warn(&mut self, warning: String) {
        if !self.warnings.contains(&warning) {
            self.warnings.push(warning);
        }
    }
}

fn is_true(value: &str) -> bool {
    value.eq_ignore_ascii_case("true")
}

/// The port that a URL names, with or without a scheme.
fn port(text: &str) -> Option<u16> {
    let url = if text.contains("://") { Url::parse(text) } else { Url::parse(&format!("http://{text}")) };
    url.ok()?.port()
}

/// `k=v,k2=v2` as W3C Baggage writes it: values percent-encoded, space around them ignored.
fn pairs(list: &str) -> Vec<Option<(String, String)>> {
    let pair = |pair: &str| {
        let (key, value) = pair.split_once('=')?;
        let value = percent_encoding::percent_decode_str(value.trim()).decode_utf8().ok()?;
        let key = key.trim();
        (!key.is_empty()).then(|| (key.to_owned(), value.into_owned()))
    };
    list.split(',').map(str::trim).filter(|entry| !entry.is_empty()).map(pair).collect()
}
