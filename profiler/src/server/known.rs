//! Recognising a model server by its executable and command line.

/// The `server` of the summary, and the value of `gpuspan.server`.
#[must_use]
pub fn recognise(comm: &str, executable: &str, command_line: &[String]) -> &'static str {
    let name = executable.rsplit('/').next().unwrap_or("");
    let argument = |text: &str| command_line.iter().any(|argument| argument.contains(text));
    let command =
        |text: &str| command_line.iter().take(4).any(|argument| argument.rsplit('/').next() == Some(text));
    match () {
        () if comm.starts_with("VLLM::") || command("vllm") || argument("vllm.entrypoints") => "vllm",
        // A router that starts its servers itself is the top of them.
        () if comm.starts_with("sglang::") || argument("sglang_router.launch_server") => "sglang",
        () if argument("sglang.launch_server") || command("sglang") => "sglang",
        () if name == "llama-server" => "llama.cpp",
        () if name == "ollama" => "ollama",
        () if command("transformers") && command("serve") => "transformers",
        () if name == "tritonserver" => "triton",
        () if name.starts_with("text-generation-") || command("text-generation-server") => "tgi",
        () if argument("tensorrt_llm") || command("trtllm-serve") => "tensorrt-llm",
        () => "generic",
    }
}

/// Whether it is a model server's process.
#[must_use]
pub fn is_server(comm: &str, executable: &str, command_line: &[String]) -> bool {
    !executable.is_empty() && recognise(comm, executable, command_line) != "generic"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_are_recognised() {
        for (comm, executable, command_line, server) in [
            ("vllm", "/usr/bin/python3.12", "python3 /opt/bin/vllm serve m", "vllm"),
            ("python3", "/usr/bin/python3.12", "python3 -m vllm.entrypoints.openai.api_server", "vllm"),
            ("VLLM::EngineCor", "/usr/bin/python3.12", "VLLM::EngineCore", "vllm"),
            ("llama-server", "/srv/llama-server", "llama-server -m x.gguf", "llama.cpp"),
            (
                "transformers",
                "/usr/bin/python3.12",
                "python3 /opt/bin/transformers serve --continuous-batching",
                "transformers",
            ),
            ("python3", "/usr/bin/python3.12", "python3 -m sglang.launch_server", "sglang"),
            ("tritonserver", "/opt/tritonserver/bin/tritonserver", "tritonserver", "triton"),
            ("python3", "/usr/bin/python3.12", "python3 app.py --note transformers", "generic"),
        ] {
            let command_line: Vec<_> = command_line.split(' ').map(str::to_owned).collect();
            assert_eq!(recognise(comm, executable, &command_line), server, "{command_line:?}");
        }
    }
}
