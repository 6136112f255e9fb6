//! Servers that emit spans of their requests themselves. In: command line and environment. Out: how it is known. A second
//! SERVER span for the same request would count it twice in every backend.

/// Flags by which a server exports spans of its requests: server, flag.
const FLAGS: &[(&str, &str)] = &[
    // vLLM 0.33: a span `llm_request`, kind SERVER, for each request.
    ("vllm", "--otlp-traces-endpoint"),
    // SGLang 0.5: `Req …` spans.
    ("sglang", "--enable-trace"),
    // TGI 3.3, launcher and router.
    ("tgi", "--otlp-endpoint"),
];

/// What loads an OpenTelemetry agent into any program of a language: variable, part of its value.
const AGENTS: &[(&str, &str)] = &[
    ("PYTHONPATH", "opentelemetry/instrumentation/auto_instrumentation"),
    ("NODE_OPTIONS", "@opentelemetry/auto-instrumentations-node"),
    ("JAVA_TOOL_OPTIONS", "opentelemetry-javaagent"),
];

/// Variables that [`own_spans`] asks for.
pub const VARIABLES: &[&str] = &[
    "OTEL_SDK_DISABLED",
    "OTEL_TRACES_EXPORTER",
    "OTLP_ENDPOINT",
    "PYTHONPATH",
    "NODE_OPTIONS",
    "JAVA_TOOL_OPTIONS",
];

/// What shows that a server emits spans of its requests itself, if anything does.
pub fn own_spans<'a>(
    server: &str,
    command_line: &[String],
    variable: impl Fn(&str) -> Option<&'a str>,
) -> Option<&'static str> {
    let disabled = variable("OTEL_SDK_DISABLED").is_some_and(|value| value.eq_ignore_ascii_case("true"));
    if disabled || variable("OTEL_TRACES_EXPORTER") == Some("none") {
        return None;
    }
    let has = |flag: &str| {
        let is = |argument: &String| {
            argument.strip_prefix(flag).is_some_and(|rest| rest.is_empty() || rest.starts_with('='))
        };
        command_line.iter().any(is)
    };
    let flag = FLAGS.iter().find(|(of, flag)| *of == server && has(flag)).map(|(_, flag)| *flag);
    // Triton: `--trace-config mode=opentelemetry`, also in one argument.
    let triton =
        || server == "triton" && command_line.iter().any(|argument| argument.ends_with("mode=opentelemetry"));
    let tgi = || server == "tgi" && variable("OTLP_ENDPOINT").is_some();
    let agent = || {
        let loads =
            |(name, part): &&(&'static str, &str)| variable(name).is_some_and(|value| value.contains(part));
        AGENTS.iter().find(loads).map(|(name, _)| *name)
    };
    flag.or_else(|| triton().then_some("--trace-config mode=opentelemetry"))
        .or_else(|| tgi().then_some("OTLP_ENDPOINT"))
        .or_else(agent)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_that_trace_themselves_are_known() {
        let agent = "/usr/lib/python3/opentelemetry/instrumentation/auto_instrumentation:/x";
        for (server, line, variables, found) in [
            (
                "vllm",
                "vllm serve m --otlp-traces-endpoint grpc://x:4317",
                vec![],
                Some("--otlp-traces-endpoint"),
            ),
            ("vllm", "vllm serve m --otlp-traces-endpoint=http://x", vec![], Some("--otlp-traces-endpoint")),
            ("vllm", "vllm serve m --otlp-traces-endpoints x", vec![], None),
            ("vllm", "vllm serve m", vec![("PYTHONPATH", agent)], Some("PYTHONPATH")),
            ("vllm", "vllm serve m", vec![("PYTHONPATH", agent), ("OTEL_TRACES_EXPORTER", "none")], None),
            ("vllm", "vllm serve m", vec![("PYTHONPATH", "/opt/lib")], None),
            ("generic", "x --otlp-traces-endpoint y", vec![], None),
            ("sglang", "python -m sglang.launch_server --enable-trace", vec![], Some("--enable-trace")),
            ("tgi", "text-generation-router", vec![("OTLP_ENDPOINT", "http://x")], Some("OTLP_ENDPOINT")),
            (
                "triton",
                "tritonserver --trace-config mode=opentelemetry --trace-config opentelemetry,url=x",
                vec![],
                Some("--trace-config mode=opentelemetry"),
            ),
            ("triton", "tritonserver --trace-config mode=triton", vec![("OTEL_SDK_DISABLED", "True")], None),
        ] {
            let line: Vec<_> = line.split(' ').map(str::to_owned).collect();
            let variable =
                |name: &str| variables.iter().find(|(known, _)| *known == name).map(|(_, value)| *value);
            assert_eq!(own_spans(server, &line, variable), found, "{line:?} {variables:?}");
        }
    }
}
