//! Paths that model servers are asked at. A path outside this list gives a span without a route, since a raw path
//! is not allowed as a span's name (OpenTelemetry HTTP conventions).

/// A known path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Route {
    /// The template: the value of `http.route`.
    pub template: &'static str,
    /// The value of `gen_ai.operation.name`, for paths that run a model.
    pub operation: Option<&'static str>,
}

impl Route {
    /// Its answers count prompt tokens from a cache beside the others and not among them, as Anthropic's API does.
    #[must_use]
    pub fn counts_cached_apart(&self) -> bool {
        self.template == MESSAGES
    }
}

const fn inference(template: &'static str, operation: &'static str) -> Route {
    Route { template, operation: Some(operation) }
}

const fn other(template: &'static str) -> Route {
    Route { template, operation: None }
}

const MESSAGES: &str = "/v1/messages";
const CHAT: &str = "chat";
const COMPLETION: &str = "text_completion";
const EMBEDDINGS: &str = "embeddings";

/// OpenAI's API as vLLM, SGLang, llama-server, transformers, TGI and Ollama speak it, their own paths, and KServe's.
const ROUTES: &[Route] = &[
    inference("/v1/chat/completions", CHAT),
    inference("/chat/completions", CHAT),
    inference("/v1/completions", COMPLETION),
    inference("/v1/responses", CHAT),
    inference(MESSAGES, CHAT),
    inference("/v1/embeddings", EMBEDDINGS),
    inference("/embeddings", EMBEDDINGS),
    inference("/embed", EMBEDDINGS),
    inference("/completion", COMPLETION),
    inference("/completions", COMPLETION),
    inference("/infill", COMPLETION),
    inference("/generate", COMPLETION),
    inference("/generate_stream", COMPLETION),
    inference("/api/generate", COMPLETION),
    inference("/api/chat", CHAT),
    inference("/api/embed", EMBEDDINGS),
    inference("/api/embeddings", EMBEDDINGS),
    inference("/v2/models/{model}/infer", "generate_content"),
    inference("/v2/models/{model}/versions/{version}/infer", "generate_content"),
    inference("/v2/models/{model}/generate", COMPLETION),
    inference("/v2/models/{model}/generate_stream", COMPLETION),
    inference("/v1/models/{model}:predict", "generate_content"),
    // gRPC: KServe's protocol as Triton and others speak it.
    inference("/inference.GRPCInferenceService/ModelInfer", "generate_content"),
    inference("/inference.GRPCInferenceService/ModelStreamInfer", "generate_content"),
    other("/inference.GRPCInferenceService/ServerLive"),
    other("/inference.GRPCInferenceService/ServerReady"),
    other("/inference.GRPCInferenceService/ModelReady"),
    other("/inference.GRPCInferenceService/ServerMetadata"),
    other("/inference.GRPCInferenceService/ModelMetadata"),
    other("/inference.GRPCInferenceService/ModelConfig"),
    other("/inference.GRPCInferenceService/ModelStatistics"),
    other("/inference.GRPCInferenceService/RepositoryIndex"),
    // TGI's router asks its shards: each call is a step of a batch, not a request.
    other("/generate.v3.TextGenerationService/Info"),
    other("/generate.v3.TextGenerationService/ServiceDiscovery"),
    other("/generate.v3.TextGenerationService/ClearCache"),
    other("/generate.v3.TextGenerationService/FilterBatch"),
    other("/generate.v3.TextGenerationService/Warmup"),
    other("/generate.v3.TextGenerationService/Prefill"),
    other("/generate.v3.TextGenerationService/Decode"),
    other("/generate.v3.TextGenerationService/Health"),
    other("/grpc.health.v1.Health/Check"),
    other("/grpc.health.v1.Health/Watch"),
    other("/grpc.reflection.v1.ServerReflection/ServerReflectionInfo"),
    other("/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo"),
    other("/v1/models"),
    other("/v1/models/{model}"),
    other("/models"),
    other("/health"),
    other("/healthz"),
    other("/ready"),
    other("/v2/health/live"),
    other("/v2/health/ready"),
    other("/metrics"),
    other("/ping"),
    other("/version"),
    other("/props"),
    other("/slots"),
    other("/info"),
    other("/tokenize"),
    other("/v1/tokenize"),
    other("/detokenize"),
    other("/api/tags"),
    other("/api/version"),
    other("/"),
];

/// The route of a path (without query), if it is known.
#[must_use]
pub fn find(path: &str) -> Option<&'static Route> {
    let path = match path.strip_suffix('/') {
        Some("") | None => path,
        Some(stripped) => stripped,
    };
    ROUTES.iter().find(|route| matches(route.template, path))
}

fn matches(template: &str, path: &str) -> bool {
    let (mut template, mut path) = (template.split('/'), path.split('/'));
    loop {
        match (template.next(), path.next()) {
            (None, None) => return true,
            (Some(pattern), Some(part)) if segment_matches(pattern, part) => {}
            _ => return false,
        }
    }
}

/// `{name}` matches any text, `{name}suffix` any text with the suffix.
fn segment_matches(pattern: &str, part: &str) -> bool {
    match pattern.strip_prefix('{').and_then(|rest| rest.split_once('}')) {
        Some((_, suffix)) => {
            part.strip_suffix(suffix).is_some_and(|name| !name.is_empty() && !name.contains(':'))
        }
        None => pattern == part,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn routes() {
        for (path, template, operation) in [
            ("/v1/chat/completions", Some("/v1/chat/completions"), Some("chat")),
            ("/v1/chat/completions/", Some("/v1/chat/completions"), Some("chat")),
            ("/api/generate", Some("/api/generate"), Some("text_completion")),
            ("/v2/models/bert/infer", Some("/v2/models/{model}/infer"), Some("generate_content")),
            ("/v1/models/bert:predict", Some("/v1/models/{model}:predict"), Some("generate_content")),
            ("/v1/models/bert", Some("/v1/models/{model}"), None),
            (
                "/inference.GRPCInferenceService/ModelInfer",
                Some("/inference.GRPCInferenceService/ModelInfer"),
                Some("generate_content"),
            ),
            ("/grpc.health.v1.Health/Check", Some("/grpc.health.v1.Health/Check"), None),
            ("/", Some("/"), None),
            ("/health", Some("/health"), None),
            ("/v1/chat", None, None),
            ("/secret/4711", None, None),
            ("", None, None),
        ] {
            let route = find(path);
            assert_eq!(route.map(|r| r.template), template, "{path}");
            assert_eq!(route.and_then(|r| r.operation), operation, "{path}");
        }
    }
}
