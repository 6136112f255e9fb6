//! The pods of this node. In: the API server's word, or the kubelet's, over TLS with a service account's token. Out: the
//! pod of a [`Place`], at once and without I/O, and a count that tells when an answer may have changed.
//!
//! ```text
//! API server ─ list, watch ─► watch ─► document ─► index ◄── Pods::pod, by container id, else by the pod's uid
//! kubelet    ─ /pods ────────►   (one thread)
//! ```
//!
//! The API server is preferred, since it tells changes by itself and takes the least privilege: the service account needs
//! `get`, `list` and `watch` on `pods` and nothing else. A kubelet is asked every few seconds, and wants `nodes/proxy`,
//! which also lets one run programs in any pod (`nodes/pods` from Kubernetes 1.33 on). It is asked only if it is named:
//! where there is no API server, and while that does not answer. While nobody answers, what is cached is answered.
//!
//! Absent: writing anything; owners of owners, which would need rights on more than pods; a way to skip the check of
//! certificates; environments, volumes and other annotations of pods, which are never kept.

mod document;
mod follow;
mod index;
mod pod;
mod settings;

pub use document::{Document, List};
pub use pod::{Container, Owner, Pod};
pub use settings::{Settings, SettingsError};

use crate::place::Place;
use index::Index;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use tokio::sync::oneshot;

/// Why pods cannot be asked for at all. What goes wrong later is in [`Status`].
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The settings.
    #[error(transparent)]
    Settings(#[from] SettingsError),
    /// No thread or no event loop.
    #[error("cannot start the thread that asks for pods")]
    Thread(#[source] std::io::Error),
}

/// How it goes, for `/readyz` and `/metrics`.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Status {
    /// A whole list has been taken in since the start.
    pub synced: bool,
    /// What went wrong last, unless it went well since.
    pub error: Option<String>,
    /// Since somebody answered. A quiet API server answers every two minutes.
    pub since_contact: Option<Duration>,
    /// Failures since the start.
    pub failures: u64,
    /// Pods that are cached.
    pub pods: usize,
    /// Pods that found no room.
    pub beyond: u64,
}

/// The pods of a node, kept up to date by a thread of their own.
#[derive(Debug)]
pub struct Pods {
    shared: Arc<Shared>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Pods {
    /// Begins to ask. Whether anybody answers is in [`Pods::status`].
    ///
    /// # Errors
    /// When the settings make no sense, or there can be no thread.
    pub fn start(settings: &Settings) -> Result<Self, StartError> {
        let way = settings.resolve(|name| std::env::var(name).ok())?;
        // kube takes the process's provider; whoever set another one meant it.
        let _ = rustls::crypto::ring::default_provider().install_default();
        tracing::info!(node = way.node, "pods are asked for");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(StartError::Thread)?;
        let shared = Arc::new(Shared::default());
        let (stop, stopped) = oneshot::channel();
        let work = {
            let shared = Arc::clone(&shared);
            move || {
                runtime.block_on(async {
                    tokio::select! {
                        // Ready also when the other end is gone.
                        _ = stopped => {}
                        never = follow::run(&way, &shared) => match never {},
                    }
                });
                // A name that is being looked up is not waited for.
                runtime.shutdown_background();
            }
        };
        let thread = std::thread::Builder::new().name("gpuspan-pods".to_owned()).spawn(work);
        Ok(Self { shared, stop: Some(stop), thread: Some(thread.map_err(StartError::Thread)?) })
    }

    /// The pod of a place: by its containers from the innermost out, else by the uid that its cgroup names.
    #[must_use]
    pub fn pod(&self, place: &Place) -> Option<Arc<Pod>> {
        self.shared.lock().index.find(place)
    }

    /// Changes when anything that is answered changes.
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.shared.generation.load(Ordering::Acquire)
    }

    /// How it goes.
    #[must_use]
    pub fn status(&self) -> Status {
        let state = self.shared.lock();
        Status {
            synced: state.synced,
            error: state.error.clone(),
            since_contact: state.contact.map(|contact| contact.elapsed()),
            failures: state.failures,
            pods: state.index.len(),
            beyond: state.index.beyond(),
        }
    }

    /// Ends the thread. Dropping does the same.
    pub fn finish(self) {}
}

impl Drop for Pods {
    fn drop(&mut self) {
        drop(self.stop.take());
        if self.thread.take().is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("the thread that asks for pods panicked");
        }
    }
}

/// What both sides hold. Locked for as long as a table is looked into, never across I/O.
#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    generation: AtomicU64,
}

#[derive(Debug, Default)]
struct State {
    index: Index,
    synced: bool,
    error: Option<String>,
    contact: Option<Instant>,
    contacts: u64,
    failures: u64,
}

impl Shared {
    /// Nothing under the lock can be left half done: a thread that panicked in it is no reason to stop answering.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// It goes well.
    fn contact(&self) {
        let mut state = self.lock();
        state.contact = Some(Instant::now());
        state.contacts += 1;
        if state.error.take().is_some() {
            tracing::info!("pods are told again");
        }
    }

    /// How often it went well.
    fn contacts(&self) -> u64 {
        self.lock().contacts
    }

    /// It does not. Only the first of several equal errors is worth a line.
    fn fail(&self, error: String) {
        let mut state = self.lock();
        state.failures += 1;
        if state.error.as_deref() != Some(&error) {
            tracing::warn!(error, "pods are told as they were");
        }
        state.error = Some(error);
    }

    /// A whole list.
    fn replace(&self, index: Index) {
        let mut state = self.lock();
        let changed = !state.synced || state.index != index;
        if !state.synced && index.len() == 0 {
            tracing::warn!(
                "no pod runs on this node: is its name right, and may the service account list pods?"
            );
        }
        state.index = index;
        state.synced = true;
        state.contact = Some(Instant::now());
        drop(state);
        self.changed(changed);
    }

    /// One pod, new or anew.
    fn apply(&self, pod: Pod) {
        let changed = self.lock().index.apply(pod);
        self.changed(changed);
    }

    /// One pod less.
    fn remove(&self, uid: &str) {
        let changed = self.lock().index.remove(uid);
        self.changed(changed);
    }

    fn changed(&self, changed: bool) {
        if changed {
            self.generation.fetch_add(1, Ordering::Release);
        }
    }
}
