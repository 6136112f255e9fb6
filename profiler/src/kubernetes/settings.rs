//! Whom pods are asked of. In: what the operator says, and the environment, as a lookup. Out: a [`Way`], with nothing
//! left to ask. Absent: reading the token, which is done anew for every connection, and is never shown.

use crate::export::Policy;
use hyper::Uri;
use std::path::PathBuf;
use std::time::Duration;

/// Where Kubernetes puts a service account's credentials.
const TOKEN: &str = "/var/run/secrets/kubernetes.io/serviceaccount/token";
const AUTHORITY: &str = "/var/run/secrets/kubernetes.io/serviceaccount/ca.crt";
/// Variables that manifests give a node's name by.
const NODE: [&str; 3] = ["NODE_NAME", "K8S_NODE_NAME", "MY_NODE_NAME"];
/// As Kubernetes' own clients do, but no longer than a quarter of a minute: a node's new pods should have names soon.
const RETRY: Policy =
    Policy { initial: Duration::from_millis(800), longest: Duration::from_secs(15), patience: Duration::MAX };

/// What the operator says.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The node's name; else `NODE_NAME`, `K8S_NODE_NAME` or `MY_NODE_NAME`, else the machine's name.
    pub node: Option<String>,
    /// URL of the API server; else the cluster's own, from the environment.
    pub api: Option<String>,
    /// URL of the kubelet, usually `https://<address of the node>:10250`; else it is not asked.
    pub kubelet: Option<String>,
    /// File with the token. It is read anew once a minute, and for every connection after a failure.
    pub token_file: PathBuf,
    /// PEM file with the authorities that both servers' certificates are checked by. Read anew likewise. A certificate
    /// that a kubelet signed itself is an authority like others: `/var/lib/kubelet/pki/kubelet.crt`.
    pub ca_file: PathBuf,
    /// `app.kubernetes.io/…` labels name services, before the names of owners do. The conventions ask for a switch:
    /// whoever set the labels may not have thought of it.
    pub well_known_labels: bool,
    /// How soon a failed request is tried again. It is never given up.
    pub retry: Policy,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            node: None,
            api: None,
            kubelet: None,
            token_file: TOKEN.into(),
            ca_file: AUTHORITY.into(),
            well_known_labels: true,
            retry: RETRY,
        }
    }
}

/// Settings with which nobody could be asked.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    /// No URL.
    #[error("`{name}` is no URL such as https://10.96.0.1:443: {value}")]
    Url {
        /// Of the setting.
        name: &'static str,
        /// What it says.
        value: String,
    },
    /// Nobody to ask.
    #[error(
        "no API server: this is no pod of a cluster (KUBERNETES_SERVICE_HOST is not set); give its URL, or the kubelet's"
    )]
    Nobody,
    /// No name of the node.
    #[error("the node has no name: set NODE_NAME to the field spec.nodeName of the agent's own pod")]
    Node,
}

/// Whom to ask, and how.
#[derive(Clone, Debug, PartialEq)]
pub struct Way {
    /// Name of the node.
    pub node: String,
    /// The API server.
    pub api: Option<Uri>,
    /// The kubelet.
    pub kubelet: Option<Uri>,
    /// See [`Settings`].
    pub token_file: PathBuf,
    /// See [`Settings`].
    pub ca_file: PathBuf,
    /// See [`Settings`].
    pub labels: bool,
    /// See [`Settings`].
    pub retry: Policy,
}

impl Settings {
    /// Whether this process runs in a pod that may ask its API server: it has an address and a token.
    #[must_use]
    pub fn in_cluster(&self) -> bool {
        in_cluster(|name| std::env::var(name).ok()).is_some() && self.token_file.exists()
    }

    pub(super) fn resolve(&self, env: impl Fn(&str) -> Option<String>) -> Result<Way, SettingsError> {
        let url = |name, value: &Option<String>| value.as_deref().map(|value| parse(name, value)).transpose();
        let kubelet = url("kubelet", &self.kubelet)?;
        let api = match url("api", &self.api)? {
            Some(api) => Some(api),
            None => in_cluster(&env).map(|url| parse("KUBERNETES_SERVICE_HOST", &url)).transpose()?,
        };
        if api.is_none() && kubelet.is_none() {
            return Err(SettingsError::Nobody);
        }
        let variable = |name: &&str| env(name);
        let machine = || std::fs::read_to_string("/proc/sys/kernel/hostname").ok();
        let node = self.node.clone().or_else(|| NODE.iter().find_map(variable)).or_else(machine);
        // A selector has its own marks, and names of nodes have none of them.
        let is_name = |node: &String| {
            !node.is_empty() && node.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._".contains(&b))
        };
        Ok(Way {
            node: node.map(|node| node.trim().to_lowercase()).filter(is_name).ok_or(SettingsError::Node)?,
            api,
            kubelet,
            token_file: self.token_file.clone(),
            ca_file: self.ca_file.clone(),
            labels: self.well_known_labels,
            retry: self.retry,
        })
    }
}

/// The API server of the cluster that this process is a pod of.
fn in_cluster(env: impl Fn(&str) -> Option<String>) -> Option<String> {
    let host = env("KUBERNETES_SERVICE_HOST").filter(|host| !host.is_empty())?;
    let port = env("KUBERNETES_SERVICE_PORT").filter(|port| !port.is_empty());
    let host = if host.contains(':') { format!("[{host}]") } else { host };
    Some(format!("https://{host}:{}", port.as_deref().unwrap_or("443")))
}

fn parse(name: &'static str, value: &str) -> Result<Uri, SettingsError> {
    // A password would end up in logs; the token's file is the way to say who asks.
    let is_whole = |url: &Uri| {
        let scheme = url.scheme_str().is_some_and(|scheme| scheme == "http" || scheme == "https");
        scheme && url.authority().is_some_and(|authority| !authority.as_str().contains('@'))
    };
    let shown = value.rsplit('@').next().unwrap_or_default();
    let error = || SettingsError::Url { name, value: shown.to_owned() };
    value.parse().ok().filter(is_whole).ok_or_else(error)
}

#[cfg(test)]
mod tests {
    use super::*;

    const CLUSTER: [(&str, &str); 2] =
        [("KUBERNETES_SERVICE_HOST", "10.96.0.1"), ("KUBERNETES_SERVICE_PORT", "6443")];

    fn resolve(settings: &Settings, variables: &[(&str, &str)]) -> Result<Way, SettingsError> {
        settings.resolve(|name| {
            variables.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned())
        })
    }

    #[test]
    fn the_cluster_says_where_its_server_is() {
        let url = |variables: &[(&str, &str)]| {
            resolve(&Settings::default(), variables).unwrap().api.unwrap().to_string()
        };
        assert_eq!(url(&CLUSTER), "https://10.96.0.1:6443/");
        assert_eq!(url(&[("KUBERNETES_SERVICE_HOST", "fd00::1")]), "https://[fd00::1]:443/");
        let named = Settings { api: Some("https://api.example:6443".to_owned()), ..Settings::default() };
        assert_eq!(resolve(&named, &CLUSTER).unwrap().api.unwrap().host(), Some("api.example"));
        assert!(matches!(resolve(&Settings::default(), &[]), Err(SettingsError::Nobody)));
        let kubelet = Settings { kubelet: Some("https://10.0.0.7:10250".to_owned()), ..Settings::default() };
        assert_eq!(resolve(&kubelet, &[]).unwrap().api, None);
    }

    #[test]
    fn the_node_is_the_first_that_is_named() {
        let node = |settings: &Settings, variables: &[(&str, &str)]| {
            resolve(settings, &[&CLUSTER[..], variables].concat()).map(|way| way.node)
        };
        let named = Settings { node: Some("gpu-01".to_owned()), ..Settings::default() };
        assert_eq!(node(&named, &[("NODE_NAME", "gpu-02")]).unwrap(), "gpu-01");
        assert_eq!(node(&Settings::default(), &[("MY_NODE_NAME", "a"), ("NODE_NAME", "b")]).unwrap(), "b");
        assert!(!node(&Settings::default(), &[]).unwrap().is_empty(), "the machine's name");
        let other = Settings { node: Some("a,status.phase=Running".to_owned()), ..Settings::default() };
        assert!(matches!(node(&other, &[]), Err(SettingsError::Node)));
    }

    #[test]
    fn urls_are_whole_and_hold_no_secret() {
        for url in ["10.0.0.7:10250", "ftp://a", "https://", "", "https://user:secret@10.0.0.7:10250"] {
            let settings = Settings { kubelet: Some(url.to_owned()), ..Settings::default() };
            let error = resolve(&settings, &CLUSTER).unwrap_err().to_string();
            assert!(error.contains("`kubelet`") && !error.contains("secret"), "{error}");
        }
    }
}
