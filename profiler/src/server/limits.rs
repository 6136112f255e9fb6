//! How much an engine may do at once, as its command line says. In: the words of a command line. Out: tokens. Deliberately
//! absent: defaults, which differ from version to version and from GPU to GPU; what is not said is unknown.

/// The most that an engine may have. None where its command line does not say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Limits {
    /// Tokens that an iteration may process.
    pub batch_tokens: Option<u64>,
    /// Tokens that its KV cache may hold.
    pub cache_tokens: Option<u64>,
    /// Tokens of a block of the KV cache: a request has whole ones.
    pub block_tokens: Option<u64>,
}

impl Limits {
    /// Those of a server. Options: vLLM 0.33 (`engine/arg_utils.py`), transformers 5.23 (`cli/serve.py`), llama.cpp b10519
    /// (`common/arg.cpp`), SGLang 0.5 (`server_args.py`), TGI 3.3 (`launcher`).
    #[must_use]
    pub fn of(server: &str, command_line: &[String]) -> Self {
        let option = |names: &[&str]| option(command_line, names);
        let (batch_tokens, cache_tokens, blocks, block_tokens) = match server {
            "vllm" => (
                option(&["--max-num-batched-tokens"]),
                None,
                option(&["--num-gpu-blocks-override"]),
                option(&["--block-size"]),
            ),
            "transformers" => (
                option(&["--cb-max-batch-tokens"]),
                None,
                option(&["--cb-num-blocks"]),
                option(&["--cb-block-size"]),
            ),
            "llama.cpp" | "ollama" => {
                (option(&["-b", "--batch-size"]), option(&["-c", "--ctx-size"]), None, None)
            }
            "sglang" => (None, option(&["--max-total-tokens"]), None, option(&["--page-size"])),
            "tgi" => (None, option(&["--max-batch-total-tokens"]), None, None),
            _ => (None, None, None, None),
        };
        let of_blocks = blocks.zip(block_tokens).map(|(blocks, tokens)| blocks.saturating_mul(tokens));
        Self { batch_tokens, cache_tokens: cache_tokens.or(of_blocks), block_tokens }
    }

    /// Nothing is known.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// What others say where this says nothing: a server's processes have command lines of their own.
    #[must_use]
    pub fn or(self, others: Self) -> Self {
        Self {
            batch_tokens: self.batch_tokens.or(others.batch_tokens),
            cache_tokens: self.cache_tokens.or(others.cache_tokens),
            block_tokens: self.block_tokens.or(others.block_tokens),
        }
    }
}

/// The value of an option that is no zero; the last one counts. `--a-b 1`, `--a-b=1` and `--a_b 1` are the same.
fn option(command_line: &[String], names: &[&str]) -> Option<u64> {
    let mut found = None;
    for (index, word) in command_line.iter().enumerate() {
        let (name, value) = match word.split_once('=') {
            Some((name, value)) => (name, Some(value)),
            None => (word.as_str(), command_line.get(index + 1).map(String::as_str)),
        };
        if names.contains(&name.replace('_', "-").as_str()) {
            found = value.and_then(number).or(found);
        }
    }
    found.filter(|value| *value > 0)
}

/// A number, as vLLM's command line takes it too: `8192`, `8k` (thousands), `8K` (1024).
fn number(text: &str) -> Option<u64> {
    let scales =
        [('k', 1000), ('m', 1_000_000), ('g', 1_000_000_000), ('K', 1 << 10), ('M', 1 << 20), ('G', 1 << 30)];
    let scale = scales.iter().find_map(|(unit, scale)| Some((text.strip_suffix(*unit)?, *scale)));
    let (digits, scale) = scale.unwrap_or((text, 1u64));
    digits.parse::<u64>().ok()?.checked_mul(scale)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(server: &str, command_line: &str) -> [Option<u64>; 3] {
        let words: Vec<_> = command_line.split(' ').map(str::to_owned).collect();
        let Limits { batch_tokens, cache_tokens, block_tokens } = Limits::of(server, &words);
        [batch_tokens, cache_tokens, block_tokens]
    }

    #[test]
    fn what_command_lines_say() {
        for (server, line, limits) in [
            ("vllm", "vllm serve m --max-num-batched-tokens 8192", [Some(8192), None, None]),
            (
                "vllm",
                "vllm serve m --max_num_batched_tokens=8K --block-size 16 --num-gpu-blocks-override 100",
                [Some(8192), Some(1600), Some(16)],
            ),
            ("vllm", "vllm serve m --max-num-batched-tokens 2k", [Some(2000), None, None]),
            (
                "transformers",
                "transformers serve m --cb-block-size 32 --cb-num-blocks 128 --cb-max-batch-tokens 256",
                [Some(256), Some(4096), Some(32)],
            ),
            ("llama.cpp", "llama-server -m x -c 4096 -b 512 -b 256", [Some(256), Some(4096), None]),
            ("llama.cpp", "llama-server -c 0 -b", [None, None, None]),
            (
                "sglang",
                "python -m sglang.launch_server --max-total-tokens 9 --page-size 1",
                [None, Some(9), Some(1)],
            ),
            ("generic", "app --max-num-batched-tokens 8192", [None, None, None]),
            ("vllm", "vllm serve m --max-num-batched-tokens 99999999999999999999g", [None, None, None]),
        ] {
            assert_eq!(of(server, line), limits, "{line}");
        }
    }
}
