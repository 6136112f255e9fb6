//! Configurations: what they come to, what is refused and how, and the files that are shipped.

use super::*;
use crate::span::Root;
use std::path::Path;
use std::time::Duration;

const EXAMPLE: &str = include_str!("../../../../deploy/agent/config.yaml");

fn none(_: &str) -> Option<String> {
    None
}

#[test]
fn the_example_is_exactly_the_defaults() {
    assert_eq!(parse(EXAMPLE, "config.yaml").unwrap(), Config::default());
    assert_eq!(parse("# nothing\n", "x").unwrap(), Config::default());
    // What is commented out is right, too, once it is not.
    let uncommented: String = EXAMPLE.lines().map(|line| line.replacen("#-", "", 1) + "\n").collect();
    assert_ne!(parse(&uncommented, "uncommented").unwrap(), Config::default());
}

#[test]
fn every_key_of_the_schema_is_in_the_example() {
    let schema = serde_json::to_value(schemars::schema_for!(Config)).unwrap();
    let mut keys = Vec::new();
    let definitions = schema["$defs"].as_object().unwrap();
    for of in std::iter::once(&schema).chain(definitions.values()) {
        keys.extend(of["properties"].as_object().into_iter().flatten().map(|(key, _)| key.clone()));
    }
    assert!(keys.len() > 50, "{keys:?}");
    let missing: Vec<_> = keys.iter().filter(|key| !EXAMPLE.contains(&format!("{key}:"))).collect();
    assert!(missing.is_empty(), "deploy/agent/config.yaml does not tell of {missing:?}");
}

#[test]
fn the_schema_is_up_to_date() {
    let schema = serde_json::to_string_pretty(&schemars::schema_for!(Config)).unwrap() + "\n";
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/agent/config.schema.json");
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(&path, &schema).unwrap();
    }
    let stored = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(stored == schema, "{} is out of date: run the test again with UPDATE=1", path.display());
}

#[test]
fn it_comes_back_as_it_was() {
    let yaml = "{listen: off, traces: {sample: 1%, keep_slow: 2s}, compat: transformers, \
        discover: {rules: [{match: {labels: {app: x}}, action: exclude}]}}";
    let config = parse(yaml, "x").unwrap();
    let again = serde_saphyr::to_string(&config).unwrap();
    assert_eq!(parse(&again, "again").unwrap(), config, "{again}");
}

#[test]
fn what_is_wrong_is_told_with_its_place_and_what_to_write() {
    for (yaml, error) in [
        ("discover:\n  intervall: 1s\n", "c.yaml:2:3: unknown key `intervall`, did you mean `interval`?"),
        ("budgets: {}\n", "c.yaml:1:1: unknown key `budgets`, did you mean `budget`?"),
        ("listen: off\nbudget:\n  target: 3\n", "c.yaml:3:11: `3` is no share: write a number and %"),
        ("limits: {memory: 400MB}\n", "c.yaml:1:18: `400MB` is no size"),
        ("detail: event\n", "c.yaml:1:9: `event` is none of events, aggregate, did you mean `events`?"),
        ("kubernetes: {enabled: of}\n", "c.yaml:1:23: unknown value `of`, did you mean `off`?"),
        ("export:\n  headers: {authorization: x}\n", "c.yaml:2:3: unknown key `headers`: credentials do not"),
        ("export: {otlp_endpoint: 'http://u:p@c:4317'}\n", "c.yaml: export.otlp_endpoint: holds a user"),
        ("export: {otlp_endpoint: 'https://c/?api_key=x'}\n", "c.yaml: export.otlp_endpoint: holds a user"),
        ("discover: {interval: 10ms}\n", "c.yaml: discover.interval: must be between"),
        ("discover: {most_targets: 0}\n", "c.yaml: discover.most_targets: must be"),
        ("budget: {target: 3%, node: 2%}\n", "c.yaml: budget.node: must not be less than budget.target"),
        ("kernel: {ring: 3MiB}\n", "c.yaml: kernel.ring: must be a power of two"),
        ("traces: {sample: 101%}\n", "c.yaml: traces.sample: must be between"),
        (
            "discover: {rules: [{match: {command: 'a['}}]}\n",
            "c.yaml: discover.rules: rule 1: `command` is no glob",
        ),
        ("discover:\n  rules:\n  - mach: {}\n", "c.yaml:3:5: unknown key `mach`, did you mean `match`?"),
        ("listen: [1\n", "c.yaml:"),
        ("- listen\n", "c.yaml:1:"),
        ("listen: off\nlisten: off\n", "c.yaml:2:1: duplicate"),
    ] {
        let told = parse(yaml, "c.yaml").unwrap_err().to_string();
        assert!(told.starts_with(error), "{yaml}: {told}");
        assert!(!told.contains('\n') && !told.contains("u:p"), "one line without secrets: {told}");
    }
    let missing = read(Path::new("/nowhere/agent.yaml")).unwrap_err();
    assert_eq!(missing.to_string(), "failed to read /nowhere/agent.yaml");
}

#[test]
fn parts_get_their_settings_and_the_file_stands_before_the_environment() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("headers");
    std::fs::write(&file, "# ours\nauthorization: Bearer a,b=c\nx-scope: 7\n").unwrap();
    let yaml = format!(
        "{{listen: '127.0.0.1:0', detail: aggregate, adapters: off, compat: transformers, \
         export: {{otlp_endpoint: 'http://c:4317', headers_file: {}, interval: 5s}}, \
         traces: {{sample: 25%, keep_slow: 2s}}, devices: {{scope: off, interval: 2s}}, kernel: {{ring: 1MiB}}}}",
        file.display()
    );
    let config = parse(&yaml, "x").unwrap();
    let environment = |name: &str| match name {
        "OTEL_EXPORTER_OTLP_ENDPOINT" => Some("http://other:4318".to_owned()),
        "OTEL_EXPORTER_OTLP_TRACES_HEADERS" => Some("authorization=other".to_owned()),
        "OTEL_TRACES_SAMPLER" => Some("always_off".to_owned()),
        "GPUSPAN_NVML" => Some("/lib/nvml.so".to_owned()),
        _ => None,
    };
    let resolved = config.resolve(environment).unwrap();
    let traces = resolved.export.traces.as_ref().unwrap();
    assert_eq!((traces.url.as_str(), traces.protocol), ("http://c:4317/", crate::export::Protocol::Grpc));
    let headers: Vec<_> =
        traces.headers.0.iter().map(|(key, value)| (key.as_str(), value.to_str().unwrap())).collect();
    assert_eq!(headers, [("authorization", "Bearer a,b=c"), ("x-scope", "7")]);
    assert!(!format!("{resolved:?}").contains("Bearer"), "credentials are never told");
    assert_eq!(resolved.export.metric_interval, Duration::from_secs(5));
    assert_eq!(resolved.export.scrapes, Some(([127, 0, 0, 1], 0).into()));
    assert_eq!(resolved.traces.choice.sampler.root, Root::Ratio(0.25));
    assert_eq!(resolved.traces.choice.keep_slow_ns, Some(2_000_000_000));
    assert_eq!((resolved.kernel.ring_bytes, resolved.kernel.detail), (1 << 20, Detail::Aggregate));
    assert_eq!((resolved.kernel.adapters, resolved.devices.scope), (Adapters::Off, Scope::Off));
    assert_eq!(resolved.devices.nvml, Some(PathBuf::from("/lib/nvml.so")));
    std::fs::write(&file, "no header\n").unwrap();
    let error = crate::chain(&config.resolve(environment).unwrap_err());
    assert!(error.ends_with("headers:1:1: a header is written `name: value`"), "{error}");
}

#[test]
fn defaults_need_nothing_and_warn_of_nothing() {
    let resolved = Config::default().resolve(none).unwrap();
    assert!(resolved.warnings.is_empty() && resolved.export.traces.is_none(), "{:?}", resolved.warnings);
    assert_eq!(resolved.export.scrapes, Listen::default().0);
    assert_eq!(resolved.export.pace.limit(), Some(8 << 20));
    let open =
        parse("{listen: '0.0.0.0:9464', discover: {rules: [{match: {user: nobody-of-this-name}}]}}", "x");
    assert_eq!(open.unwrap().resolve(none).unwrap().warnings.len(), 2);
}

#[test]
fn a_changed_file_says_what_needs_a_restart() {
    let changed = "{listen: off, budget: {target: 5%, off_file: /x}, limits: {cpu: 20%, network: 1MiB}, kernel: {stacks: 7}, \
        export: {interval: 5s, otlp_endpoint: 'http://c:4317'}, discover: {rules: [{match: {}}]}}";
    let changes = changes(&Config::default(), &parse(changed, "x").unwrap());
    let told: Vec<_> = changes.iter().map(|change| (change.key.as_str(), change.effect)).collect();
    assert_eq!(
        told,
        [
            ("budget.off_file", Effect::Restart),
            ("budget.target", Effect::Now),
            ("discover.rules", Effect::Now),
            ("export.interval", Effect::Now),
            ("export.otlp_endpoint", Effect::Restart),
            ("kernel.stacks", Effect::Restart),
            ("limits.cpu", Effect::Now),
            ("limits.network", Effect::Now),
            ("listen", Effect::Restart),
        ]
    );
    assert!(super::changes(&Config::default(), &Config::default()).is_empty());
}
