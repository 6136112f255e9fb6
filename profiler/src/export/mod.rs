//! Gets spans and metrics out of the program. In: batches, offered without waiting. Out: OTLP over gRPC or HTTP and an
//! OTLP file, with every item accounted for; answers to scrapes. Absent: building spans, and waiting for anyone who is slow.
//!
//! opentelemetry-rust's exporters are not used: they know no exemplars, no certificate variables, one resource per
//! exporter, and do not say how many items a partial success refused (all in 0.33.1).

mod deliver;
mod encode;
mod file;
mod inbox;
mod ledger;
mod pace;
mod queue;
mod retry;
mod scrape;
mod settings;
mod transport;

use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;

use tokio::sync::watch;
use tracing::warn;

use deliver::Deliverer;
use file::FileSink;
use inbox::Inbox;

use crate::metric::Registry;

pub(crate) use deliver::random;
pub use file::FileError;
pub use ledger::{Account, Destination, Ledger, Reason, Tally};
pub use pace::Pace;
pub use queue::{Batch, Receiver, Sender, queue};
pub use retry::Policy;
pub use scrape::{Page, Pages};
pub use settings::{
    Endpoint, Flags, Headers, Protocol, Settings, SettingsError, Signal, Tls, identity, own_resource,
};
pub use transport::{TlsError, TransportError};

/// A destination that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// An endpoint.
    #[error("cannot export {} over OTLP", signal.name())]
    Endpoint {
        /// Of which signal.
        signal: Signal,
        /// Why.
        source: TransportError,
    },
    /// The file.
    #[error(transparent)]
    File(#[from] FileError),
    /// The address for scrapes.
    #[error(
        "cannot listen on {address} for scrapes; choose another address by --prometheus-listen, or port 0 for any that is free"
    )]
    Listen {
        /// Which.
        address: SocketAddr,
        /// Why.
        source: std::io::Error,
    },
}

/// Every destination of the settings, ready to run.
#[derive(Debug)]
pub struct Exporter {
    settings: Settings,
    traces: Option<Deliverer>,
    metrics: Option<Deliverer>,
    file: Option<FileSink>,
    scrapes: Option<scrape::Server>,
}

impl Exporter {
    /// Reads certificates and creates the file; connects to nothing yet, so a dead endpoint is no error.
    pub async fn open(settings: Settings) -> Result<Self, OpenError> {
        let deliverer = |endpoint: &Option<Endpoint>, signal| {
            let open =
                |endpoint| Deliverer::open(endpoint, signal, settings.retry, Arc::clone(&settings.pace));
            endpoint.as_ref().map(open).transpose().map_err(|source| OpenError::Endpoint { signal, source })
        };
        let traces = deliverer(&settings.traces, Signal::Traces)?;
        let metrics = deliverer(&settings.metrics, Signal::Metrics)?;
        let file = match &settings.file {
            Some(path) => Some(FileSink::create(path).await?),
            None => None,
        };
        Ok(Self { settings, traces, metrics, file, scrapes: None })
    }

    /// Also answers scrapes from this registry, if the settings have an address for them, and has these pages there, too.
    pub async fn with_scrapes(
        mut self,
        registry: &Arc<Registry>,
        pages: Option<Arc<dyn Pages>>,
    ) -> Result<Self, OpenError> {
        if let Some(address) = self.settings.scrapes {
            let server = scrape::Server::bind(address, Arc::clone(registry), pages).await;
            self.scrapes = Some(server.map_err(|source| OpenError::Listen { address, source })?);
        }
        Ok(self)
    }

    /// Where scrapes are answered, with the port that was found where none was asked for.
    pub fn scraped_at(&self) -> Option<SocketAddr> {
        self.scrapes.as_ref().map(scrape::Server::address)
    }

    /// Exports until every `Sender` is gone, or until `shutdown` is ready and then at most `flush_timeout` longer.
    /// Afterwards nothing is queued: what was not delivered is counted as dropped.
    pub async fn run(mut self, receiver: Receiver, shutdown: impl Future<Output = ()>) {
        for warning in &self.settings.warnings {
            warn!("{warning}");
        }
        let Some(scrapes) = self.scrapes.take() else { return self.deliver(receiver, shutdown, false).await };
        tokio::select! {
            () = self.deliver(receiver, shutdown, true) => {}
            never = scrapes.serve() => match never {},
        }
    }

    /// `stay`: until the shutdown, also when there is nothing to deliver any more.
    async fn deliver(self, receiver: Receiver, shutdown: impl Future<Output = ()>, stay: bool) {
        let (close, closing) = watch::channel(false);
        let flush_timeout = self.settings.flush_timeout;
        let work = self.work(receiver, closing);
        tokio::pin!(work, shutdown);
        tokio::select! {
            () = &mut work => {
                if stay {
                    shutdown.await;
                }
                return;
            }
            () = &mut shutdown => {}
        }
        // The receiver of this is in `work`, which is still here.
        let _ = close.send(true);
        // Whatever is left when the time is over drops with `work`, and its claims count it.
        if tokio::time::timeout(flush_timeout, work).await.is_err() {
            warn!(after = ?flush_timeout, "telemetry still undelivered at the end is given up, and counted as dropped");
        }
    }

    /// All destinations side by side: none waits for another.
    async fn work(self, receiver: Receiver, closing: watch::Receiver<bool>) {
        let Receiver { otlp_spans, otlp_metrics, file_spans, file_metrics } = receiver;
        let traces = async {
            if let (Some(traces), Some(queue)) = (self.traces, otlp_spans) {
                traces.spans(Inbox::new(queue, &closing)).await;
            }
        };
        let metrics = async {
            if let (Some(metrics), Some(queue)) = (self.metrics, otlp_metrics) {
                metrics.snapshots(Inbox::new(queue, &closing)).await;
            }
        };
        let file = async {
            if let (Some(file), Some(spans), Some(metrics)) = (self.file, file_spans, file_metrics) {
                file.run(Inbox::new(spans, &closing), Inbox::new(metrics, &closing)).await;
            }
        };
        tokio::join!(traces, metrics, file);
    }
}

/// Bytes that a trace takes in OTLP.
#[cfg(test)]
pub(crate) fn encoded_size(spans: &[crate::span::model::Span]) -> usize {
    prost::Message::encoded_len(&encode::trace::request(spans))
}

#[cfg(test)]
mod tests;
