//! The shape of a model, from the configuration in its folder. In: a process and what it, or a caller, names a model. Out:
//! bytes of KV cache that a token takes. Deliberately absent: downloads, and models whose layers hold different amounts.
//!
//! Models lie in a folder that the name is the path of, or in the Hugging Face hub's cache. All is read through the
//! process's own root, so that containers' files are found. What is read are numbers of a bounded file; nothing else of
//! it leaves this place.

use serde_json::Value;
use std::io::Read as _;
use std::path::{Path, PathBuf};

/// Configurations are a few kilobytes; some list every layer.
const MOST_BYTES: u64 = 1 << 20;

/// Bytes of KV cache that a token of a model takes, all layers together, if its configuration is found and says so.
#[must_use]
pub fn kv_bytes(pid: u32, model: &str) -> Option<u64> {
    let root = PathBuf::from(format!("/proc/{pid}/root"));
    let environment = variables(pid);
    let config = folders(pid, model, &environment).into_iter().find_map(|folder| {
        let folder = folder.strip_prefix("/").map(Path::to_owned).unwrap_or(folder);
        read(&root.join(folder).join("config.json"))
    })?;
    of_config(&config)
}

/// Variables that say where the hub's cache lies.
const VARIABLES: [&str; 4] = ["HF_HUB_CACHE", "HF_HOME", "XDG_CACHE_HOME", "HOME"];

fn variables(pid: u32) -> [Option<String>; 4] {
    let environment = std::fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
    VARIABLES.map(|name| {
        let entry = environment
            .split(|byte| *byte == 0)
            .find_map(|entry| entry.strip_prefix(name.as_bytes())?.strip_prefix(b"="))?;
        Some(String::from_utf8_lossy(entry).into_owned()).filter(|value| !value.is_empty())
    })
}

/// Where a model may lie, as its process sees it.
fn folders(pid: u32, model: &str, environment: &[Option<String>; 4]) -> Vec<PathBuf> {
    // `name@revision`, as `transformers serve` has it.
    let (name, revision) = model.rsplit_once('@').unwrap_or((model, "main"));
    let mut folders = vec![PathBuf::from(name)];
    if !name.starts_with('/') {
        // A relative path is one of its working directory.
        folders = std::fs::read_link(format!("/proc/{pid}/cwd"))
            .map(|cwd| vec![cwd.join(name)])
            .unwrap_or_default();
    }
    let [hub, home, cache, user] = environment;
    let hub = hub.as_ref().map(PathBuf::from);
    let hub = hub.or_else(|| Some(Path::new(home.as_ref()?).join("hub")));
    let hub = hub.or_else(|| Some(Path::new(cache.as_ref()?).join("huggingface/hub")));
    let hub = hub.or_else(|| Some(Path::new(user.as_ref()?).join(".cache/huggingface/hub")));
    if let Some(hub) = hub.filter(|_| is_hub_name(name)) {
        let model = hub.join(format!("models--{}", name.replace('/', "--")));
        let reference = model.join("refs").join(revision);
        let inside = PathBuf::from(format!("/proc/{pid}/root"));
        let snapshot = text(&inside.join(reference.strip_prefix("/").unwrap_or(&reference)));
        folders.extend(snapshot.map(|snapshot| model.join("snapshots").join(snapshot.trim())));
    }
    folders
}

/// `name` or `organisation/name`, of which no part leads elsewhere.
fn is_hub_name(name: &str) -> bool {
    let ok = |part: &str| !part.is_empty() && !part.starts_with('.');
    name.split('/').count() <= 2 && name.split('/').all(ok)
}

fn text(path: &Path) -> Option<String> {
    let file = super::file::open_regular(path).ok()?;
    let mut text = String::new();
    file.take(MOST_BYTES).read_to_string(&mut text).ok()?;
    Some(text)
}

fn read(path: &Path) -> Option<Value> {
    serde_json::from_str(&text(path)?).ok()
}

/// Keys and values of each layer, in the model's own type (`configuration_utils.py` of transformers 5 and the
/// configurations of its models).
fn of_config(config: &Value) -> Option<u64> {
    let text = config.get("text_config").unwrap_or(config);
    let number = |names: &[&str]| names.iter().find_map(|name| text.get(*name)?.as_u64());
    let is_other = |kind: &Value| kind.as_str() != Some("full_attention");
    if text.get("layer_types").and_then(Value::as_array).is_some_and(|kinds| kinds.iter().any(is_other)) {
        return None;
    }
    let layers = number(&["num_hidden_layers", "n_layer"])?;
    let each = match number(&["kv_lora_rank"]) {
        // Multi-head latent attention keeps one compressed vector and the rotated part of the key.
        Some(rank) => rank + number(&["qk_rope_head_dim"])?,
        None => {
            let heads = number(&["num_attention_heads", "n_head"])?;
            let kv_heads = number(&["num_key_value_heads"]).unwrap_or(heads);
            let width = || Some(number(&["hidden_size", "n_embd"])? / heads.max(1));
            2 * kv_heads.checked_mul(number(&["head_dim"]).or_else(width)?)?
        }
    };
    let kind =
        ["dtype", "torch_dtype"].iter().find_map(|name| text.get(*name).or(config.get(*name))?.as_str());
    let bytes = match kind? {
        "float32" => 4,
        "float16" | "bfloat16" => 2,
        _ => return None,
    };
    layers.checked_mul(each)?.checked_mul(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn shapes_of_models() {
        let llama = json!({"num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 8,
            "hidden_size": 4096, "torch_dtype": "bfloat16"});
        let gpt2 = json!({"n_layer": 12, "n_head": 12, "n_embd": 768, "dtype": "float32"});
        let nested = json!({"text_config": {"num_hidden_layers": 2, "num_attention_heads": 4, "head_dim": 64,
            "layer_types": ["full_attention", "full_attention"]}, "dtype": "float16"});
        let latent = json!({"num_hidden_layers": 60, "num_attention_heads": 128, "kv_lora_rank": 512,
            "qk_rope_head_dim": 64, "torch_dtype": "bfloat16"});
        let sliding = json!({"num_hidden_layers": 2, "num_attention_heads": 4, "head_dim": 64, "dtype": "float16",
            "layer_types": ["full_attention", "sliding_attention"]});
        for (config, bytes) in [
            (llama, Some(131_072)),
            (gpt2, Some(73_728)),
            (nested, Some(2048)),
            (latent, Some(69_120)),
            (sliding, None),
            (
                json!({"num_hidden_layers": u64::MAX, "num_attention_heads": 2, "head_dim": 2, "dtype": "float32"}),
                None,
            ),
            (json!([]), None),
        ] {
            assert_eq!(of_config(&config), bytes, "{config}");
        }
    }

    #[test]
    fn models_are_found_in_folders_and_in_the_hub() {
        let folder = tempfile::tempdir().unwrap();
        let config = json!({"n_layer": 1, "n_head": 1, "n_embd": 8, "dtype": "float32"}).to_string();
        std::fs::write(folder.path().join("config.json"), &config).unwrap();
        let pid = std::process::id();
        assert_eq!(kv_bytes(pid, folder.path().to_str().unwrap()), Some(64));
        assert_eq!(kv_bytes(pid, "/nowhere/to/be/found"), None);

        let model = folder.path().join("hub/models--org--name");
        std::fs::create_dir_all(model.join("refs")).unwrap();
        std::fs::create_dir_all(model.join("snapshots/abc")).unwrap();
        std::fs::write(model.join("refs/main"), "abc\n").unwrap();
        std::fs::write(model.join("snapshots/abc/config.json"), &config).unwrap();
        let home = Some(folder.path().to_str().unwrap().to_owned());
        let found = |name: &str| folders(pid, name, &[None, home.clone(), None, None]);
        for name in ["org/name", "org/name@main"] {
            assert!(found(name).contains(&model.join("snapshots/abc")), "{:?}", found(name));
        }
        assert!(!found("org/name@v2").contains(&model.join("snapshots/abc")));
        assert_eq!(found("../../etc").len(), 1, "no name leads out of the hub");
    }
}
