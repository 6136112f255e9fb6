//! Lists the node's pods and follows what happens to them, for as long as the program runs. In: the servers' answers.
//! Out: changes of what is shared. No failure ends it: it is said, waited for, and tried again.
//!
//! kube's client brings TLS, the token and the stream of a watch. Its `runtime::watcher` is not used (5.0): it hides the
//! bookmarks, which tell a quiet connection from a dead one; it stays with a version that was refused with status 410;
//! and it lists through calls that log a whole answer, environments included, when they cannot read it.

use super::Shared;
use super::document::{Document, List};
use super::settings::Way;
use crate::export::random;
use futures::TryStreamExt as _;
use http_body_util::{BodyExt as _, Limited};
use hyper::Uri;
use kube::client::Body;
use kube::core::params::{ListParams, VersionMatch, WatchParams};
use kube::core::{Request, Status, WatchEvent};
use kube::{Client, Config};
use rustls::pki_types::{CertificateDer, pem::PemObject as _};
use std::convert::Infallible;
use std::path::PathBuf;
use std::time::Duration;
use tokio::time::{sleep, timeout};

/// For a connection, and for a whole list.
const CONNECT: Duration = Duration::from_secs(10);
const ANSWER: Duration = Duration::from_secs(30);
/// The server ends a watch after this many seconds, and sends a bookmark every minute. Without a sign for a little longer
/// the connection is dead.
const WATCH_S: u32 = 120;
const SILENCE: Duration = Duration::from_secs(WATCH_S as u64 + 10);
/// A node's pods take a few megabytes.
const MOST_ANSWER: usize = 64 << 20;
/// Between two questions to a kubelet, which cannot be watched.
const KUBELET: Duration = Duration::from_secs(10);
/// What is taken over of an answer that says what is wrong.
const MOST_WORDS: usize = 200;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
enum Error {
    #[error("cannot read the cluster's authorities in {}", .0.display())]
    Authorities(PathBuf, #[source] rustls::pki_types::pem::Error),
    #[error("{0} refuses the token in {path} (401): is it this cluster's, and has it expired?", path = .1.display())]
    Token(Server, PathBuf),
    #[error("{0} does not let us read pods (403): the service account needs {rights}", rights = .0.rights())]
    Rights(Server),
    #[error("{0} answers {1}: {2}")]
    Status(Server, u16, String),
    #[error("{0} has not answered for {after} s", after = .1.as_secs())]
    Late(Server, Duration),
    #[error("{0} cannot be asked: {1}")]
    Ask(Server, String),
    #[error("the answer of {0} cannot be read: {1}")]
    Answer(Server, String),
}

/// Who is asked.
#[derive(Clone, Copy, Debug)]
enum Server {
    Api,
    Kubelet,
}

impl std::fmt::Display for Server {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Api => "the API server",
            Self::Kubelet => "the kubelet",
        })
    }
}

impl Server {
    fn rights(self) -> &'static str {
        match self {
            Self::Api => "get, list and watch on pods",
            Self::Kubelet => "get on nodes/pods, before Kubernetes 1.33 on nodes/proxy",
        }
    }
}

/// Keeps what is shared up to date.
pub async fn run(way: &Way, shared: &Shared) -> Infallible {
    let mut version = None;
    let mut failures = 0;
    loop {
        let contacts = shared.contacts();
        let went = match (&way.api, &way.kubelet) {
            (Some(api), _) => follow(way, api, shared, &mut version).await,
            (None, Some(kubelet)) => poll(way, kubelet, shared).await,
            // Settings with nobody to ask are refused.
            (None, None) => std::future::pending().await,
        };
        let Err(error) = went;
        failures = if shared.contacts() == contacts { failures + 1 } else { 1 };
        shared.fail(crate::chain(&error));
        if let (Some(_), Some(kubelet)) = (&way.api, &way.kubelet) {
            match ask_kubelet(way, kubelet, shared).await {
                // The list is the kubelet's now: what the API server's version was of is gone.
                Ok(()) => version = None,
                Err(error) => shared.fail(crate::chain(&error)),
            }
        }
        let wait = way.retry.wait(failures, Duration::ZERO, None, random());
        sleep(wait.unwrap_or(way.retry.longest)).await;
    }
}

/// Lists, unless the version of an earlier list still stands, and watches from there.
async fn follow(
    way: &Way,
    api: &Uri,
    shared: &Shared,
    version: &mut Option<String>,
) -> Result<Infallible, Error> {
    let client = client(way, api, Server::Api)?;
    loop {
        let from = match version.take() {
            Some(version) => version,
            None => list(&client, way, shared).await?,
        };
        let from = version.insert(from);
        if let Ended::Expired = watch(&client, way, shared, from).await? {
            *version = None;
        }
        // Servers end watches at their own pace, and one that does at once is not to be overrun.
        sleep(way.retry.initial).await;
    }
}

/// Takes in a whole list; returns its version.
async fn list(client: &Client, way: &Way, shared: &Shared) -> Result<String, Error> {
    // Version 0 is whatever the server has in its cache: thousands of agents that start at once do not go to etcd. A page
    // size would make it go there.
    let any = ListParams { resource_version: Some("0".to_owned()), ..ListParams::default() };
    let any = ListParams { version_match: Some(VersionMatch::NotOlderThan), ..any };
    let request = Request::new("/api/v1/pods").list(&any.fields(&selector(way)));
    let request = request.map_err(|error| Error::Ask(Server::Api, error.to_string()))?;
    let List { metadata, items } = ask(client, way, Server::Api, request).await?;
    shared.contact();
    shared.replace(items.into_iter().filter_map(|document| document.pod(way.labels)).collect());
    Ok(metadata.resource_version)
}

/// Why a watch is over.
enum Ended {
    /// Its time.
    InTime,
    /// What happened since its version is forgotten: only a list helps.
    Expired,
}

/// Follows changes, and moves `version` along with them.
async fn watch(client: &Client, way: &Way, shared: &Shared, version: &mut String) -> Result<Ended, Error> {
    let params = WatchParams { timeout: Some(WATCH_S), ..WatchParams::default() };
    let request = Request::new("/api/v1/pods").watch(&params.fields(&selector(way)), version);
    let request = request.map_err(|error| Error::Ask(Server::Api, error.to_string()))?;
    let events = timeout(ANSWER, client.request_events::<Document>(request)).await;
    let events = match events.map_err(|_| Error::Late(Server::Api, ANSWER))? {
        Ok(events) => events,
        Err(kube::Error::Api(status)) => return ended(way, &status),
        Err(error) => return Err(unasked(Server::Api, &error)),
    };
    shared.contact();
    let mut events = std::pin::pin!(events);
    loop {
        let event =
            timeout(SILENCE, events.try_next()).await.map_err(|_| Error::Late(Server::Api, SILENCE))?;
        let event = match event {
            Ok(Some(event)) => event,
            Ok(None) => return Ok(Ended::InTime),
            Err(kube::Error::Api(status)) => return ended(way, &status),
            Err(kube::Error::SerdeError(error)) => return Err(unread(Server::Api, &error)),
            Err(error) => return Err(unasked(Server::Api, &error)),
        };
        shared.contact();
        *version = match event {
            WatchEvent::Added(document) | WatchEvent::Modified(document) => {
                let version = document.version().to_owned();
                if let Some(pod) = document.pod(way.labels) {
                    shared.apply(pod);
                }
                version
            }
            WatchEvent::Deleted(document) => {
                shared.remove(document.uid());
                document.version().to_owned()
            }
            WatchEvent::Bookmark(bookmark) => bookmark.metadata.resource_version,
            WatchEvent::Error(status) => return ended(way, &status),
        };
    }
}

/// The server refuses to go on. Gone is what comes of a long absence; a version that the server has not reached, after
/// its store was restored, it calls a timeout.
fn ended(way: &Way, status: &Status) -> Result<Ended, Error> {
    match status.code {
        410 | 504 => Ok(Ended::Expired),
        code => Err(refused(way, Server::Api, code, &status.message)),
    }
}

/// Asks a kubelet again and again.
async fn poll(way: &Way, kubelet: &Uri, shared: &Shared) -> Result<Infallible, Error> {
    loop {
        ask_kubelet(way, kubelet, shared).await?;
        shared.contact();
        sleep(KUBELET).await;
    }
}

async fn ask_kubelet(way: &Way, kubelet: &Uri, shared: &Shared) -> Result<(), Error> {
    let client = client(way, kubelet, Server::Kubelet)?;
    let request = hyper::Request::get("/pods").body(Vec::new());
    let request = request.map_err(|error| Error::Ask(Server::Kubelet, error.to_string()))?;
    let list: List = ask(&client, way, Server::Kubelet, request).await?;
    shared.replace(list.items.into_iter().filter_map(|document| document.pod(way.labels)).collect());
    Ok(())
}

/// One question, one answer of bounded size and time.
async fn ask(
    client: &Client,
    way: &Way,
    server: Server,
    request: hyper::Request<Vec<u8>>,
) -> Result<List, Error> {
    let answer = async {
        let answer = client.send(request.map(Body::from)).await.map_err(|error| unasked(server, &error))?;
        let status = answer.status();
        let body = Limited::new(answer.into_body(), MOST_ANSWER).collect().await;
        let body = body.map_err(|error| Error::Answer(server, error.to_string()))?.to_bytes();
        match status.is_success() {
            true => serde_json::from_slice(&body).map_err(|error| unread(server, &error)),
            false => Err(refused(way, server, status.as_u16(), &String::from_utf8_lossy(&body))),
        }
    };
    timeout(ANSWER, answer).await.map_err(|_| Error::Late(server, ANSWER))?
}

/// A client with the authorities and the token as their files have them now. Over plain HTTP nobody is told the token.
fn client(way: &Way, url: &Uri, server: Server) -> Result<Client, Error> {
    let mut config = Config::new(url.clone());
    config.connect_timeout = Some(CONNECT);
    // How soon a question is asked again is decided in one place.
    config.default_retry = false;
    if url.scheme_str() == Some("https") {
        let file = &way.ca_file;
        let certificates =
            CertificateDer::pem_file_iter(file).and_then(Iterator::collect::<Result<Vec<_>, _>>);
        let certificates = certificates.map_err(|error| Error::Authorities(file.clone(), error))?;
        config.root_cert = Some(certificates.iter().map(|certificate| certificate.to_vec()).collect());
        config.root_cert_file = Some(file.clone());
        config.auth_info.token_file = Some(way.token_file.to_string_lossy().into_owned());
    }
    Client::try_from(config).map_err(|error| unasked(server, &error))
}

fn selector(way: &Way) -> String {
    format!("spec.nodeName={}", way.node)
}

fn refused(way: &Way, server: Server, code: u16, message: &str) -> Error {
    match code {
        401 => Error::Token(server, way.token_file.clone()),
        403 => Error::Rights(server),
        _ => Error::Status(server, code, message.chars().take(MOST_WORDS).collect()),
    }
}

/// The innermost reason: those around it say that a request failed.
fn unasked(server: Server, error: &kube::Error) -> Error {
    let mut cause: &dyn std::error::Error = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    Error::Ask(server, cause.to_string())
}

/// Only the place: the rest may be what a document has.
fn unread(server: Server, error: &serde_json::Error) -> Error {
    Error::Answer(server, format!("line {}, column {}", error.line(), error.column()))
}
