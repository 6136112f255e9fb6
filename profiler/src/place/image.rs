//! The name of a container image → name, tag, digest. Absent: normal forms, which add registries nobody wrote.

use crate::metric::catalog::attribute as name;
use crate::span::model::{Value, text};

/// Longer names are none: registries allow 255 characters, tags 128.
const MOST_BYTES: usize = 1024;

/// A reference, as `[registry[:port]/]path[:tag][@algorithm:digest]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Image {
    /// Registry and path; empty where only a digest is known.
    pub name: String,
    /// Tag.
    pub tag: Option<String>,
    /// With its algorithm: `sha256:…`.
    pub digest: Option<String>,
}

impl Image {
    /// Reads a reference; `None` for what is none.
    #[must_use]
    pub fn parse(reference: &str) -> Option<Self> {
        let is_word = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_graphic());
        if reference.len() > MOST_BYTES || !is_word(reference) {
            return None;
        }
        let (name, digest) = match reference.split_once('@') {
            Some((name, digest)) => (name, Some(digest)),
            // What runtimes say of an image that has lost its name.
            None if reference.starts_with("sha256:") => ("", Some(reference)),
            None => (reference, None),
        };
        // A colon before a slash is a registry's port.
        let (name, tag) = match name.rsplit_once(':') {
            Some((name, tag)) if !tag.contains('/') => (name, Some(tag)),
            _ => (name, None),
        };
        let owned = |part: Option<&str>| part.filter(|part| !part.is_empty()).map(str::to_owned);
        Some(Self { name: name.to_owned(), tag: owned(tag), digest: owned(digest) })
    }

    /// `service.version` by OpenTelemetry's rules for Kubernetes.
    #[must_use]
    pub fn version(&self) -> Option<String> {
        match (&self.tag, &self.digest) {
            (Some(tag), Some(digest)) => Some(format!("{tag}@{digest}")),
            (None, Some(digest)) => Some(digest.clone()),
            (tag, None) => tag.clone(),
        }
    }

    /// `container.image.*`.
    pub fn attributes(&self) -> impl Iterator<Item = (String, Value)> + use<> {
        let known = (!self.name.is_empty()).then(|| text(&self.name));
        let tags = self.tag.clone().map(|tag| Value::Strs(vec![tag]));
        let digests = self.digest.as_ref().filter(|_| known.is_some());
        let digests = digests.map(|digest| Value::Strs(vec![format!("{}@{digest}", self.name)]));
        let pairs = [
            (name::CONTAINER_IMAGE_NAME, known),
            (name::CONTAINER_IMAGE_TAGS, tags),
            (name::CONTAINER_IMAGE_REPO_DIGESTS, digests),
        ];
        pairs.into_iter().filter_map(|(key, value)| Some((key.to_owned(), value?)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references() {
        for (reference, name, tag, digest) in [
            ("vllm/vllm-openai:v0.11.0", "vllm/vllm-openai", "v0.11.0", ""),
            ("vllm", "vllm", "", ""),
            ("registry.local:5000/team/sglang", "registry.local:5000/team/sglang", "", ""),
            ("registry.local:5000/team/sglang:0.5", "registry.local:5000/team/sglang", "0.5", ""),
            (
                "nvcr.io/nvidia/tritonserver:25.09-py3@sha256:aa",
                "nvcr.io/nvidia/tritonserver",
                "25.09-py3",
                "sha256:aa",
            ),
            ("ghcr.io/x/y@sha256:bb", "ghcr.io/x/y", "", "sha256:bb"),
            ("sha256:cc", "", "", "sha256:cc"),
        ] {
            let some = |part: &str| (!part.is_empty()).then(|| part.to_owned());
            let expected = Image { name: name.to_owned(), tag: some(tag), digest: some(digest) };
            assert_eq!(Image::parse(reference), Some(expected), "{reference}");
        }
        for nonsense in ["", "a b", "a\nb", &"x".repeat(MOST_BYTES + 1)] {
            assert_eq!(Image::parse(nonsense), None);
        }
    }

    #[test]
    fn versions_are_tag_and_digest() {
        let version = |reference| Image::parse(reference).unwrap().version();
        assert_eq!(version("a:1@sha256:b").as_deref(), Some("1@sha256:b"));
        assert_eq!(version("a@sha256:b").as_deref(), Some("sha256:b"));
        assert_eq!(version("a:1").as_deref(), Some("1"));
        assert_eq!(version("a"), None);
    }
}
