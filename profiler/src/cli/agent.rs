//! `gpuspan agent`: a configuration file → what it comes to, what would be observed, or the agent itself.

use super::args;
use super::attach::{environment, leave_no_dump};
use super::exit::Usage;
use super::privileges;
use super::signals::{self, Signal};
use crate::agent::Whereabouts;
use crate::agent::config::{self, Config, Resolved};
use crate::device::Running;
use crate::discover::{Discovery, Found, Look};
use crate::export::{Endpoint, identity};
use crate::metric::catalog::attribute::SERVICE_NAME;
use crate::pipeline::{self, AgentWishes};
use crate::span::model::Value;
use crate::target;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::Write as _;
use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, Instant};

/// Between the two looks of a dry run: what is about to become a server has a moment.
const BETWEEN_LOOKS: Duration = Duration::from_secs(1);

/// How long a dry run waits for the pods of the node.
const FOR_PODS: Duration = Duration::from_secs(5);
/// What a dry run tells of the place of a target.
const PLACE: [&str; 3] = ["k8s.namespace.name", "k8s.pod.name", "k8s.container.name"];

/// Checks, looks, or runs.
pub fn run(args: &args::Agent) -> anyhow::Result<()> {
    let (config, resolved) = read(args.config.as_deref())?;
    let text = if args.check_config {
        checked(&config, &resolved)?
    } else if args.dry_run {
        let whereabouts = Whereabouts::new(&config.kubernetes)?;
        if !whereabouts.wait(FOR_PODS) {
            tracing::warn!("the pods of this node are not known: what rules ask of them does not match");
        }
        let look = look_twice(&resolved, &whereabouts);
        dry_run(&look, &|pid| whereabouts.attributes(pid), args.json)?
    } else {
        return observe(args, config, resolved);
    };
    std::io::stdout().lock().write_all(text.as_bytes())?;
    Ok(())
}

/// The file, or the defaults where there is none.
fn read(path: Option<&Path>) -> anyhow::Result<(Config, Resolved)> {
    let usage = |error: &(dyn std::error::Error + 'static)| Usage(crate::chain(error));
    let config = match path {
        Some(path) => config::read(path).map_err(|error| usage(&error))?,
        None => Config::default(),
    };
    let resolved = config.resolve(environment).map_err(|error| usage(&error))?;
    Ok((config, resolved))
}

/// Runs the agent. SIGHUP reads the configuration again, SIGUSR2 lets go of everything until the next one.
fn observe(args: &args::Agent, config: Config, resolved: Resolved) -> anyhow::Result<()> {
    leave_no_dump();
    crate::attach::ensure_tracefs();
    privileges::reduce();
    for warning in &resolved.warnings {
        tracing::warn!("{warning}");
    }
    let wishes = AgentWishes {
        stop: signals::ends(),
        reload: signals::flag(Signal::HangUp),
        change_off: signals::flag(Signal::User2),
    };
    let path = args.config.as_deref();
    let mut again = || {
        let read = read(path);
        if let Err(error) = &read {
            tracing::error!(error = %format_args!("{error:#}"), "the configuration stays as it was");
        }
        read.ok()
    };
    let mut started = |address: Option<SocketAddr>| {
        let url = address.map_or_else(|| "nowhere".to_owned(), |address| format!("http://{address}"));
        tracing::info!(url, "the agent runs; /healthz, /readyz, /targets and /metrics are at");
        if let Some(ready) = &args.ready_file {
            let written = std::fs::write(ready, format!("ready\n{url}\n"));
            let _ =
                written.inspect_err(|error| tracing::warn!(%error, "the ready file could not be written"));
        }
    };
    Ok(pipeline::agent(config, resolved, &mut again, wishes, &mut started)?)
}

/// The whole configuration, with what the environment makes of it as comments.
fn checked(config: &Config, resolved: &Resolved) -> anyhow::Result<String> {
    let mut text = serde_saphyr::to_string(config)?;
    let export = &resolved.export;
    let place =
        |endpoint: &Option<Endpoint>| endpoint.as_ref().map_or("nowhere".into(), |to| to.url.to_string());
    writeln!(text, "# traces go to: {}", place(&export.traces))?;
    writeln!(text, "# metrics go to: {}, every {:?}", place(&export.metrics), export.metric_interval)?;
    if export.is_idle() {
        writeln!(text, "# warning: nothing leaves this program: give export.otlp_endpoint, or listen")?;
    }
    for warning in &resolved.warnings {
        writeln!(text, "# warning: {warning}")?;
    }
    Ok(text + "# the configuration is valid\n")
}

/// Two looks at the processes of this machine.
fn look_twice(resolved: &Resolved, whereabouts: &Whereabouts) -> Look {
    let mut discovery = Discovery::new(resolved.rules.clone(), resolved.discover);
    let running = Running::new(&resolved.devices);
    let facts = |pid| whereabouts.facts(pid);
    discovery.look(Instant::now(), &running.pids(), &facts);
    std::thread::sleep(BETWEEN_LOOKS);
    discovery.look(Instant::now(), &running.pids(), &facts)
}

/// A look for people, or as JSON. `attributes` are those of a process's place.
fn dry_run(
    look: &Look,
    attributes: &dyn Fn(u32) -> Vec<(String, Value)>,
    json: bool,
) -> anyhow::Result<String> {
    let place = |pid| {
        let all = attributes(pid).into_iter().filter(|(key, _)| PLACE.contains(&key.as_str()));
        all.filter_map(|(key, value)| match value {
            Value::Str(text) => Some((key, text.into_owned())),
            _ => None,
        })
        // Of two words the later one counts.
        .collect::<BTreeMap<_, _>>()
    };
    if json {
        let mut told = serde_json::to_value(look)?;
        let found = told.get_mut("found").and_then(serde_json::Value::as_array_mut).into_iter().flatten();
        for (value, found) in found.zip(&look.found) {
            if let Some(object) = value.as_object_mut() {
                object.insert("place".to_owned(), serde_json::to_value(place(found.root))?);
            }
        }
        return Ok(serde_json::to_string_pretty(&told)? + "\n");
    }
    let mut text = String::new();
    writeln!(text, "would be observed: {}", look.found.len())?;
    for found in &look.found {
        let Found { root, server, why, .. } = found;
        writeln!(text, "  pid {root:<8} {server:<13} as {}: {why}", name(found))?;
        for (key, value) in
            place(*root).iter().chain(found.attributes.iter().map(|(key, value)| (key, value)))
        {
            writeln!(text, "               {key}={value}")?;
        }
    }
    writeln!(text, "passed over: {}", look.passed.len())?;
    for passed in &look.passed {
        writeln!(text, "  pid {:<8} {:<13} {}", passed.pid, passed.comm, passed.why)?;
    }
    Ok(text)
}

/// The `service.name` that a target will have, as far as it does not depend on its pod.
fn name(found: &Found) -> String {
    let process = target::identity(found.root);
    let own = identity(|name| match name {
        "OTEL_SERVICE_NAME" => process.service_name.clone(),
        "OTEL_RESOURCE_ATTRIBUTES" => process.resource_attributes.clone(),
        _ => None,
    });
    let own = own.into_iter().find(|(key, _)| key == SERVICE_NAME).map(|(_, name)| name);
    let executable = process.executable.file_name().map(|name| name.to_string_lossy().into_owned());
    let server = (found.server != "generic").then(|| found.server.to_owned());
    found.name.clone().or(own).or(server).or(executable).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::discover::Passed;

    #[test]
    fn a_look_is_told_for_people_and_for_programs() {
        let found = Found {
            root: u32::MAX >> 1,
            start_ticks: 7,
            server: "vllm",
            name: Some("chat".to_owned()),
            attributes: vec![("team".to_owned(), "a".to_owned())],
            why: "vllm by name or command line".to_owned(),
        };
        let passed = Passed { pid: 5, comm: "python3".to_owned(), why: "excluded".to_owned() };
        let look = Look { found: vec![found], passed: vec![passed] };
        let places = |_| {
            let pair = |key: &str, value| (key.to_owned(), crate::span::model::text(value));
            vec![
                pair("k8s.pod.name", "chat-0"),
                pair("container.id", "c"),
                pair("k8s.namespace.name", "serving"),
            ]
        };
        let text = dry_run(&look, &places, false).unwrap();
        assert!(text.contains("vllm          as chat: vllm by name") && text.contains("team=a"), "{text}");
        assert!(text.contains("k8s.namespace.name=serving\n               k8s.pod.name=chat-0\n"), "{text}");
        assert!(!text.contains("container.id"), "{text}");
        assert!(text.contains("passed over: 1\n  pid 5        python3       excluded\n"), "{text}");
        let json: serde_json::Value = serde_json::from_str(&dry_run(&look, &places, true).unwrap()).unwrap();
        assert_eq!((&json["found"][0]["server"], &json["passed"][0]["pid"]), (&"vllm".into(), &5.into()));
        assert_eq!(json["found"][0]["place"]["k8s.pod.name"], "chat-0");
    }

    #[test]
    fn a_checked_configuration_can_be_read_again() {
        let config = Config::default();
        let text = checked(&config, &config.resolve(|_| None).unwrap()).unwrap();
        assert_eq!(config::parse(&text, "checked").unwrap(), config, "{text}");
        assert!(text.contains("# traces go to: nowhere") && text.ends_with("# the configuration is valid\n"));
    }
}
