//! Names of containers from the files that Docker and podman keep of them. In: a container's id. Out: its name and image.
//! Absent: their daemons' sockets, which would make a reader of files a user with all rights; homes of users, where
//! rootless engines keep theirs; containerd's and CRI-O's databases, since Kubernetes tells what they hold.

use super::Container;
use serde::Deserialize;
use std::fs::File;
use std::io::Read as _;
use std::path::Path;

/// Docker's file of one container has a few kilobytes, podman's of all of them one each.
const MOST_BYTES: u64 = 4 << 20;
/// Names have at most a few dozen characters.
const MOST_NAME: usize = 256;
/// The host's files, also for a reader in a container that sees the host's processes; then our own.
const ROOTS: [&str; 2] = ["/proc/1/root", "/"];

/// Fills in the name and image of a container, if its runtime keeps them in a file that may be read.
pub fn describe(container: &mut Container) {
    let find = match container.runtime {
        Some("docker") => docker,
        Some("podman") => podman,
        _ => return,
    };
    if let Some(found) = ROOTS.iter().find_map(|root| find(Path::new(root), &container.id)) {
        container.name = Some(found.name).filter(|name| is_short(name));
        container.image = found.image.filter(|image| is_short(image));
    }
}

#[derive(Debug, PartialEq)]
struct Found {
    name: String,
    image: Option<String>,
}

/// `config.v2.json` of Docker 1.10 to 28.
fn docker(root: &Path, id: &str) -> Option<Found> {
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Document {
        name: String,
        config: Config,
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Config {
        image: Option<String>,
    }
    let file = root.join("var/lib/docker/containers").join(id).join("config.v2.json");
    let document: Document = serde_json::from_slice(&read(&file)?).ok()?;
    let name = document.name.trim_start_matches('/').to_owned();
    Some(Found { name, image: document.config.image })
}

/// `containers.json` of containers/storage, which podman and Buildah use. Its `metadata` is a document of podman's.
fn podman(root: &Path, id: &str) -> Option<Found> {
    #[derive(Deserialize)]
    struct Entry {
        id: String,
        #[serde(default)]
        names: Vec<String>,
        #[serde(default)]
        metadata: String,
    }
    #[derive(Default, Deserialize)]
    struct Metadata {
        #[serde(rename = "image-name")]
        image: Option<String>,
    }
    let folder = root.join("var/lib/containers/storage");
    // Those with `--read-only` layers of their own may lie in the volatile list.
    let lists = ["overlay-containers/containers.json", "overlay-containers/volatile-containers.json"];
    let entries = lists.iter().filter_map(|list| {
        let entries: Vec<Entry> = serde_json::from_slice(&read(&folder.join(list))?).ok()?;
        entries.into_iter().find(|entry| entry.id == id)
    });
    let Entry { names, metadata, .. } = { entries }.next()?;
    let metadata: Metadata = serde_json::from_str(&metadata).unwrap_or_default();
    Some(Found { name: names.into_iter().next()?, image: metadata.image })
}

fn read(path: &Path) -> Option<Vec<u8>> {
    // To open a pipe in a file's place would be to wait for its writer.
    std::fs::metadata(path).ok().filter(|file| file.is_file() && file.len() <= MOST_BYTES)?;
    let mut bytes = Vec::new();
    File::open(path).ok()?.take(MOST_BYTES).read_to_end(&mut bytes).ok()?;
    Some(bytes)
}

fn is_short(text: &str) -> bool {
    !text.is_empty() && text.len() <= MOST_NAME && !text.chars().any(char::is_control)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(root: &Path, path: &str, text: &str) {
        let path = root.join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }

    #[test]
    fn dockers_file_of_a_container() {
        let root = tempfile::tempdir().unwrap();
        let id = "ab".repeat(32);
        assert_eq!(docker(root.path(), &id), None);
        let file = format!("var/lib/docker/containers/{id}/config.v2.json");
        let text = r#"{"StreamConfig":{},"State":{"Running":true,"Pid":4711},"ID":"abab","Name":"/vllm",
            "Config":{"Hostname":"abab","Env":["HF_TOKEN=secret"],"Image":"vllm/vllm-openai:v0.11.0","Labels":{}}}"#;
        write(root.path(), &file, text);
        let image = Some("vllm/vllm-openai:v0.11.0".to_owned());
        assert_eq!(docker(root.path(), &id), Some(Found { name: "vllm".to_owned(), image }));
        write(root.path(), &file, "{\"Name\":");
        assert_eq!(docker(root.path(), &id), None);
        write(root.path(), &file, &" ".repeat(MOST_BYTES as usize + 1));
        assert_eq!(docker(root.path(), &id), None);
    }

    #[test]
    fn podmans_list_of_containers() {
        let root = tempfile::tempdir().unwrap();
        let (one, other) = ("ab".repeat(32), "cd".repeat(32));
        let text = format!(
            r#"[{{"id":"{other}","names":["web"],"metadata":"x"}},{{"id":"{one}","names":["llama"],"image":"ff","layer":"ee",
            "metadata":"{{\"image-name\":\"ghcr.io/ggml-org/llama.cpp:server\",\"image-id\":\"ff\",\"name\":\"llama\"}}"}}]"#
        );
        write(root.path(), "var/lib/containers/storage/overlay-containers/containers.json", &text);
        let image = Some("ghcr.io/ggml-org/llama.cpp:server".to_owned());
        assert_eq!(podman(root.path(), &one), Some(Found { name: "llama".to_owned(), image }));
        assert_eq!(podman(root.path(), &other), Some(Found { name: "web".to_owned(), image: None }));
        assert_eq!(podman(root.path(), &"ef".repeat(32)), None);
    }

    #[test]
    fn a_fifo_in_the_files_place_is_not_waited_for() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("config.v2.json");
        let name = std::ffi::CString::new(path.to_str().unwrap()).unwrap();
        // SAFETY: a C string that lives through the call.
        assert_eq!(unsafe { libc::mkfifo(name.as_ptr(), 0o600) }, 0);
        assert_eq!(read(&path), None);
    }
}
