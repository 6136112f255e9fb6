//! The thread on which the exporters run, for an observation and for a replay.

use super::{RunError, join, spawn};
use crate::export::{self, Exporter, Ledger};
use crate::metric::Registry;
use std::net::SocketAddr;
use std::sync::Arc;
use std::thread::JoinHandle;

/// The thread with the tokio runtime of the exporters.
pub struct ExportThread {
    /// The way in.
    pub sender: export::Sender,
    /// Where scrapes are answered, if anywhere.
    pub scraped_at: Option<SocketAddr>,
    shutdown: tokio::sync::oneshot::Sender<()>,
    thread: JoinHandle<()>,
}

impl ExportThread {
    /// Scrapes are answered from the `registry`; where they are, `pages` are, too.
    pub fn start(
        settings: &export::Settings,
        ledger: &Ledger,
        registry: &Arc<Registry>,
        pages: Option<Arc<dyn export::Pages>>,
    ) -> Result<Self, RunError> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|error| RunError::System("start the exporters' runtime", error))?;
        let exporter = runtime.block_on(async {
            Exporter::open(settings.clone()).await?.with_scrapes(registry, pages).await
        })?;
        let scraped_at = exporter.scraped_at();
        let (sender, receiver) = export::queue(settings, ledger);
        let (shutdown, asked) = tokio::sync::oneshot::channel();
        let thread = spawn("export", move || {
            runtime.block_on(exporter.run(receiver, async {
                // Either word of the end will do: an answer, or that nobody is left to give one.
                let _ = asked.await;
            }));
        })?;
        Ok(Self { sender, scraped_at, shutdown, thread })
    }

    /// Flushes what is queued, within the exporters' own time limit.
    pub fn finish(self) -> Result<(), RunError> {
        drop(self.sender);
        let _ = self.shutdown.send(());
        join("export", self.thread)
    }
}
