//! A configuration → the settings of the parts. In: [`Config`], the environment as a lookup, the file with headers. Out:
//! what exporters, kernel side, devices, traces and discovery take. What the file says stands before the environment.

use super::{Config, ConfigError};
use crate::attach::KernelSettings;
use crate::discover::{self, RuleError, Rules};
use crate::export::{self, Flags, SettingsError};
use crate::metric::Compat;
use crate::span::{self, Choice, Root, Sampler};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use std::path::{Path, PathBuf};

/// A larger file holds no headers.
const MOST_HEADERS: u64 = 64 << 10;

/// Everything that the agent takes.
#[derive(Clone, Debug)]
pub struct Resolved {
    /// Exporters.
    pub export: export::Settings,
    /// Kernel side.
    pub kernel: KernelSettings,
    /// Devices.
    pub devices: crate::device::Settings,
    /// Which traces there are.
    pub traces: span::Settings,
    /// Metrics under other names, too.
    pub compat: Option<Compat>,
    /// Rules of discovery.
    pub rules: Rules,
    /// Its settings.
    pub discover: discover::Settings,
    /// What was ignored or could surprise, for the log.
    pub warnings: Vec<String>,
}

/// What cannot be had as it was asked for.
#[derive(Debug, thiserror::Error)]
pub enum ResolveError {
    /// Exporters.
    #[error(transparent)]
    Export(#[from] SettingsError),
    /// Rules.
    #[error("discover.rules")]
    Rules(#[from] RuleError),
    /// The file with headers.
    #[error(transparent)]
    Headers(#[from] ConfigError),
}

impl Config {
    /// Settings of all parts.
    ///
    /// # Errors
    /// See [`ResolveError`].
    pub fn resolve(&self, env: impl Fn(&str) -> Option<String>) -> Result<Resolved, ResolveError> {
        let mut warnings = Vec::new();
        let headers = self.export.headers_file.as_deref().map(headers).transpose()?;
        let text = |path: &Option<PathBuf>| path.as_ref().map(|path| path.to_string_lossy().into_owned());
        // Those of one signal, too: the file speaks of both.
        let told = |name: &str| match name.replace("_TRACES_", "_").replace("_METRICS_", "_").as_str() {
            "OTEL_EXPORTER_OTLP_HEADERS" => headers.clone(),
            "OTEL_EXPORTER_OTLP_PROTOCOL" => self.export.protocol.map(|protocol| protocol.name().to_owned()),
            "OTEL_EXPORTER_OTLP_CERTIFICATE" => text(&self.export.ca_file),
            _ => None,
        };
        let flags = Flags {
            otlp_endpoint: self.export.otlp_endpoint.clone(),
            otlp_file: self.export.otlp_file.clone(),
            metric_interval: self.export.interval.map(|interval| interval.0),
            prometheus_listen: self.listen.0.map(|address| address.to_string()),
        };
        let export = export::Settings::resolve(&flags, |name| told(name).or_else(|| env(name)))?;
        export.pace.set(Some(self.limits.network.0));
        warnings.extend(export.warnings.iter().cloned());
        let rules = Rules::new(&self.discover.rules)?;
        warnings.extend(rules.unknown_users().into_iter().map(|user| {
            format!("discover.rules: this machine's /etc/passwd has no user `{user}`, so that rule never matches; write the number")
        }));
        Ok(Resolved {
            export,
            kernel: self.kernel_settings(),
            devices: self.device_settings(&env),
            traces: self.trace_settings(&env, &mut warnings),
            compat: self.compat.map(|compat| compat.0),
            rules,
            discover: discover::Settings { most_targets: self.discover.most_targets },
            warnings,
        })
    }

    fn kernel_settings(&self) -> KernelSettings {
        KernelSettings {
            ring_bytes: u32::try_from(self.kernel.ring.0).unwrap_or(crate::attach::RING_BYTES),
            links: self.kernel.links.0,
            results: self.kernel.results.0,
            detail: self.detail.0,
            adapters: self.adapters.0,
            stack_every: self.kernel.stacks,
            hooks_wait: true,
            ..KernelSettings::default()
        }
    }

    fn device_settings(&self, env: impl Fn(&str) -> Option<String>) -> crate::device::Settings {
        let default = crate::device::Settings::default();
        let path = |name: &str| env(name).filter(|path| !path.is_empty()).map(PathBuf::from);
        crate::device::Settings {
            scope: self.devices.scope.0,
            interval: self.devices.interval.0,
            nvml: self.devices.nvml.clone().or_else(|| path("GPUSPAN_NVML")),
            sys: path("GPUSPAN_SYS").unwrap_or(default.sys),
        }
    }

    fn trace_settings(
        &self,
        env: impl Fn(&str) -> Option<String>,
        warnings: &mut Vec<String>,
    ) -> span::Settings {
        let sampler = match self.traces.sample {
            Some(share) => Sampler { parent_based: true, root: Root::Ratio(share.0) },
            None => {
                let (name, argument) = (env("OTEL_TRACES_SAMPLER"), env("OTEL_TRACES_SAMPLER_ARG"));
                let (sampler, error) = Sampler::parse(name.as_deref(), argument.as_deref());
                warnings.extend(error.map(|error| error.to_string()));
                sampler
            }
        };
        let keep_slow = self.traces.keep_slow.map(|slow| slow.0.as_nanos());
        span::Settings {
            choice: Choice {
                sampler,
                keep_slow_ns: keep_slow.map(|slow| u64::try_from(slow).unwrap_or(u64::MAX)),
                ignore_unsampled: self.traces.ignore_unsampled,
            },
            step_every: self.traces.step_sample,
            server_span: self.traces.server_span.0,
        }
    }
}

/// The lines of a file with headers as the variable of OpenTelemetry has them. Nothing of it is ever told.
fn headers(path: &Path) -> Result<String, ConfigError> {
    let failed = |error| ConfigError::File(path.to_owned(), error);
    let length = std::fs::metadata(path).map_err(failed)?.len();
    if length > MOST_HEADERS {
        return Err(failed(std::io::Error::other(format!("it has {length} bytes, more than headers have"))));
    }
    let text = std::fs::read_to_string(path).map_err(failed)?;
    let mut pairs = Vec::new();
    for (number, line) in (1..).zip(text.lines().map(str::trim)) {
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let Some((name, value)) = line.split_once(':') else {
            let (file, what) =
                (path.to_string_lossy().into_owned(), "a header is written `name: value`".to_owned());
            return Err(ConfigError::Text { file, line: number, column: 1, what });
        };
        pairs.push(format!("{}={}", name.trim(), utf8_percent_encode(value.trim(), NON_ALPHANUMERIC)));
    }
    Ok(pairs.join(","))
}
