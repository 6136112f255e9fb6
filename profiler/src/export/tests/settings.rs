//! Every rule of the environment, one line each.

use super::*;

/// Variables with their values.
type Env<'a> = &'a [(&'a str, &'a str)];

fn resolve(flags: &Flags, env: Env<'_>) -> Result<Settings, SettingsError> {
    Settings::resolve(flags, |name| env.iter().find(|(key, _)| *key == name).map(|(_, v)| (*v).to_owned()))
}

fn with(env: Env<'_>) -> Settings {
    resolve(&Flags::default(), env).unwrap()
}

fn url(endpoint: &Option<Endpoint>) -> &str {
    endpoint.as_ref().map_or("-", |endpoint| endpoint.url.as_str())
}

const BASE: (&str, &str) = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://c:4318");
const GRPC: (&str, &str) = ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc");

#[test]
fn endpoints() {
    const TRACES: &str = "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT";
    const METRICS: &str = "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT";
    const ENDPOINT: &str = "OTEL_EXPORTER_OTLP_ENDPOINT";
    const INSECURE: &str = "OTEL_EXPORTER_OTLP_INSECURE";
    let cases: &[(Env<'_>, &str, &str)] = &[
        (&[], "-", "-"),
        (&[(ENDPOINT, "")], "-", "-"),
        (&[BASE], "http://c:4318/v1/traces", "http://c:4318/v1/metrics"),
        (&[(ENDPOINT, "https://c/otlp/")], "https://c/otlp/v1/traces", "https://c/otlp/v1/metrics"),
        // A signal's own URL is used as it is.
        (&[(TRACES, "http://tempo:4318")], "http://tempo:4318/", "-"),
        (
            &[BASE, (METRICS, "http://prom:9090/api/v1/otlp/v1/metrics")],
            "http://c:4318/v1/traces",
            "http://prom:9090/api/v1/otlp/v1/metrics",
        ),
        // gRPC has no paths of ours.
        (&[GRPC, (ENDPOINT, "http://c:4317")], "http://c:4317/", "http://c:4317/"),
        (&[GRPC, (ENDPOINT, "c:4317")], "https://c:4317/", "https://c:4317/"),
        (&[GRPC, (ENDPOINT, "c:4317"), (INSECURE, "true")], "http://c:4317/", "http://c:4317/"),
        (&[GRPC, (ENDPOINT, "https://c:4317"), (INSECURE, "true")], "https://c:4317/", "https://c:4317/"),
        (
            &[(ENDPOINT, "c:4317"), ("OTEL_EXPORTER_OTLP_TRACES_INSECURE", "TRUE")],
            "http://c:4317/",
            "https://c:4317/",
        ),
        // Asked for without saying where.
        (&[("OTEL_TRACES_EXPORTER", "otlp")], "http://localhost:4318/v1/traces", "-"),
        (&[("OTEL_METRICS_EXPORTER", "otlp"), GRPC], "-", "http://localhost:4317/"),
        (&[BASE, ("OTEL_METRICS_EXPORTER", "none")], "http://c:4318/v1/traces", "-"),
        (&[BASE, ("OTEL_SDK_DISABLED", "true")], "-", "-"),
        (&[BASE, ("OTEL_SDK_DISABLED", "1")], "http://c:4318/v1/traces", "http://c:4318/v1/metrics"),
    ];
    for (env, traces, metrics) in cases {
        let settings = with(env);
        assert_eq!((url(&settings.traces), url(&settings.metrics)), (*traces, *metrics), "{env:?}");
    }
}

#[test]
fn the_flag_beats_every_variable() {
    let flags = Flags { otlp_endpoint: Some("http://f:1".to_owned()), ..Flags::default() };
    let settings = resolve(&flags, &[BASE, ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://t:2/x")]).unwrap();
    assert_eq!(
        (url(&settings.traces), url(&settings.metrics)),
        ("http://f:1/v1/traces", "http://f:1/v1/metrics")
    );
}

#[test]
fn protocols() {
    let cases: &[(Env<'_>, Protocol, Protocol)] = &[
        (&[], Protocol::HttpProtobuf, Protocol::HttpProtobuf),
        (&[GRPC], Protocol::Grpc, Protocol::Grpc),
        (
            &[GRPC, ("OTEL_EXPORTER_OTLP_METRICS_PROTOCOL", "http/protobuf")],
            Protocol::Grpc,
            Protocol::HttpProtobuf,
        ),
        (&[("OTEL_EXPORTER_OTLP_PROTOCOL", "HTTP/JSON")], Protocol::HttpJson, Protocol::HttpJson),
        (
            &[("OTEL_EXPORTER_OTLP_PROTOCOL", "carrier pigeon")],
            Protocol::HttpProtobuf,
            Protocol::HttpProtobuf,
        ),
        // The port of gRPC, unless the protocol was said.
        (&[("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://c:4317")], Protocol::Grpc, Protocol::HttpProtobuf),
        (
            &[
                ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://c:4317"),
                ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "http/protobuf"),
            ],
            Protocol::HttpProtobuf,
            Protocol::HttpProtobuf,
        ),
    ];
    for (env, traces, metrics) in cases {
        let mut env = env.to_vec();
        env.push(BASE);
        let settings = with(&env);
        let protocol = |endpoint: Option<Endpoint>| endpoint.unwrap().protocol;
        assert_eq!((protocol(settings.traces), protocol(settings.metrics)), (*traces, *metrics), "{env:?}");
    }
}

#[test]
fn headers_are_decoded_and_never_shown() {
    let list = "authorization=Basic%20c2VjcmV0, x-tenant = a%2Cb ,broken,=x,bad name=1";
    let settings = with(&[BASE, ("OTEL_EXPORTER_OTLP_HEADERS", list)]);
    let headers = settings.traces.clone().unwrap().headers.0;
    let plain: Vec<_> =
        headers.iter().map(|(name, value)| (name.as_str(), value.to_str().unwrap())).collect();
    assert_eq!(plain, [("authorization", "Basic c2VjcmV0"), ("x-tenant", "a,b")]);
    let shown = format!("{settings:?}");
    assert!(!shown.contains("c2VjcmV0") && !shown.contains("a,b"), "{shown}");
    assert!(shown.contains("entry 3 of OTEL_EXPORTER_OTLP_HEADERS"), "{shown}");
}

#[test]
fn a_signals_own_headers_replace_the_general_ones() {
    let env = [BASE, ("OTEL_EXPORTER_OTLP_HEADERS", "a=1"), ("OTEL_EXPORTER_OTLP_TRACES_HEADERS", "b=2")];
    let settings = with(&env);
    let names = |endpoint: Option<Endpoint>| endpoint.unwrap().headers.0[0].0.clone();
    assert_eq!((names(settings.traces).as_str(), names(settings.metrics).as_str()), ("b", "a"));
}

#[test]
fn numbers_compression_and_files() {
    let settings = with(&[
        BASE,
        ("OTEL_EXPORTER_OTLP_TIMEOUT", "2500"),
        ("OTEL_EXPORTER_OTLP_METRICS_TIMEOUT", "100"),
        ("OTEL_EXPORTER_OTLP_COMPRESSION", "gzip"),
        ("OTEL_EXPORTER_OTLP_METRICS_COMPRESSION", "none"),
        ("OTEL_EXPORTER_OTLP_CERTIFICATE", "/ca.pem"),
        ("OTEL_EXPORTER_OTLP_TRACES_CERTIFICATE", "/traces-ca.pem"),
        ("OTEL_EXPORTER_OTLP_CLIENT_KEY", "/key.pem"),
        ("OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE", "/cert.pem"),
        ("OTEL_METRIC_EXPORT_INTERVAL", "1000"),
    ]);
    let (traces, metrics) = (settings.traces.unwrap(), settings.metrics.unwrap());
    assert_eq!((traces.timeout, metrics.timeout), (Duration::from_millis(2500), Duration::from_millis(100)));
    assert_eq!((traces.gzip, metrics.gzip), (true, false));
    assert_eq!(traces.tls.certificate, Some("/traces-ca.pem".into()));
    assert_eq!(metrics.tls.certificate, Some("/ca.pem".into()));
    assert_eq!(metrics.tls.client_key, Some("/key.pem".into()));
    assert_eq!(metrics.tls.client_certificate, Some("/cert.pem".into()));
    assert_eq!(settings.metric_interval, Duration::from_secs(1));
    assert!(settings.warnings.is_empty(), "{:?}", settings.warnings);
}

#[test]
fn nonsense_is_ignored_and_said() {
    for (name, value) in [
        ("OTEL_EXPORTER_OTLP_TIMEOUT", "soon"),
        ("OTEL_EXPORTER_OTLP_TIMEOUT", "0"),
        ("OTEL_EXPORTER_OTLP_COMPRESSION", "zstd"),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "smtp"),
        ("OTEL_METRIC_EXPORT_INTERVAL", "-5"),
        ("OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE", "delta"),
    ] {
        let settings = with(&[BASE, (name, value)]);
        assert_eq!(settings.warnings.len(), 1, "{name}={value}: {:?}", settings.warnings);
    }
}

#[test]
fn what_would_lose_everything_is_an_error() {
    for (env, expected) in [
        (("OTEL_EXPORTER_OTLP_ENDPOINT", "collector:4318"), "`OTEL_EXPORTER_OTLP_ENDPOINT` is not a URL"),
        (
            ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "ftp://c"),
            "`OTEL_EXPORTER_OTLP_TRACES_ENDPOINT` is not a URL",
        ),
        (("OTEL_EXPORTER_OTLP_ENDPOINT", "https://user:secret@c"), "holds a user or password"),
        (("OTEL_EXPORTER_OTLP_CLIENT_KEY", "/key.pem"), "need each other"),
    ] {
        let error = resolve(&Flags::default(), &[env, BASE]).unwrap_err().to_string();
        assert!(error.contains(expected) && !error.contains("secret"), "{error}");
    }
}

#[test]
fn the_service_name_beats_the_resource_attributes() {
    let env = |name: &str| match name {
        "OTEL_RESOURCE_ATTRIBUTES" => Some("service.name=a,team=x%20y,broken".to_owned()),
        "OTEL_SERVICE_NAME" => Some("b".to_owned()),
        _ => None,
    };
    let pair = |key: &str, value: &str| (key.to_owned(), value.to_owned());
    assert_eq!(identity(env), [pair("team", "x y"), pair("service.name", "b")]);
    let find = |resource: &Resource, name: &str| {
        let found = resource.attributes.iter().find(|(key, _)| key == name);
        if let Some((_, Value::Str(text))) = found { text.to_string() } else { panic!("{resource:?}") }
    };
    let own = own_resource(|_| None, "node", 7);
    assert_eq!(
        (find(&own, "service.name"), find(&own, "service.instance.id")),
        ("gpuspan".into(), "node.7".into())
    );
    assert_eq!(find(&own_resource(env, "node", 7), "service.name"), "b");
}

#[test]
fn addresses_for_scrapes() {
    let listen = |text: &str| {
        let flags = Flags { prometheus_listen: Some(text.to_owned()), ..Flags::default() };
        let settings = resolve(&flags, &[])?;
        assert_eq!(settings.is_idle(), settings.scrapes.is_none());
        assert_eq!(settings.readers().scraped, settings.scrapes.is_some());
        Ok::<_, SettingsError>((settings.scrapes.map(|address| address.to_string()), settings.warnings.len()))
    };
    let cases = [
        ("", None, 0),
        ("127.0.0.1:9464", Some("127.0.0.1:9464"), 0),
        ("localhost:0", Some("127.0.0.1:0"), 0),
        ("[::1]:9464", Some("[::1]:9464"), 0),
        // Whoever opens it to others is told that there is no password.
        ("0.0.0.0:9464", Some("0.0.0.0:9464"), 1),
        ("10.1.2.3:9464", Some("10.1.2.3:9464"), 1),
    ];
    for (text, address, warnings) in cases {
        assert_eq!(listen(text).unwrap(), (address.map(str::to_owned), warnings), "{text}");
    }
    for text in ["9464", ":9464", "127.0.0.1", "example.org:9464", "http://127.0.0.1:9464", "127.0.0.1:99999"]
    {
        let error = listen(text).unwrap_err().to_string();
        assert!(error.contains(text) && error.contains("127.0.0.1:9464"), "{error}");
    }
}

#[test]
fn buckets_of_histograms() {
    const NAME: &str = "OTEL_EXPORTER_OTLP_METRICS_DEFAULT_HISTOGRAM_AGGREGATION";
    let cases = [
        ("", false, 0),
        ("explicit_bucket_histogram", false, 0),
        ("base2_exponential_bucket_histogram", true, 0),
        ("BASE2_EXPONENTIAL_BUCKET_HISTOGRAM", true, 0),
        ("exponential", false, 1),
    ];
    for (value, exponential, warnings) in cases {
        let settings = with(&[BASE, (NAME, value)]);
        assert_eq!(
            (settings.readers().exponential, settings.warnings.len()),
            (exponential, warnings),
            "{value}"
        );
    }
}
