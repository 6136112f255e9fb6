//! `--otlp-file`: OTLP/JSON, one request a line, as the collector's file exporter writes it.
//! In: parcels of both signals. Out: lines, and settled claims. Absent: rotation.

use std::path::{Path, PathBuf};

use serde::Serialize;
use tokio::fs::File;
use tokio::io::AsyncWriteExt;
use tracing::warn;

use super::encode;
use super::inbox::Inbox;
use super::ledger::{Claim, Reason};
use super::queue::Parcel;
use crate::metric::Snapshot;
use crate::span::model::Span;

/// Bytes gathered before they are written, while more is ready.
const WRITE_BYTES: usize = 256 << 10;

/// A file that cannot be written.
#[derive(Debug, thiserror::Error)]
#[error("cannot create the OTLP file {}", path.display())]
pub struct FileError {
    path: PathBuf,
    source: std::io::Error,
}

/// The file.
#[derive(Debug)]
pub struct FileSink {
    file: File,
    path: PathBuf,
    lines: Vec<u8>,
    claims: Vec<Claim>,
    failing: bool,
}

enum Item {
    Spans(Parcel<[Span]>),
    Metrics(Parcel<Snapshot>),
}

impl FileSink {
    /// Creates or empties the file.
    pub async fn create(path: &Path) -> Result<Self, FileError> {
        let error = |source| FileError { path: path.to_owned(), source };
        let mut file = File::create(path).await.map_err(error)?;
        file.set_max_buf_size(WRITE_BYTES);
        Ok(Self { file, path: path.to_owned(), lines: Vec::new(), claims: Vec::new(), failing: false })
    }

    /// Writes until both inboxes end.
    pub async fn run(mut self, mut spans: Inbox<[Span]>, mut metrics: Inbox<Snapshot>) {
        while let Some(item) = either(&mut spans, &mut metrics).await {
            self.add(item).await;
            while self.lines.len() < WRITE_BYTES {
                let Some(item) = ready(&mut spans, &mut metrics) else { break };
                self.add(item).await;
            }
            self.write().await;
        }
    }

    async fn add(&mut self, item: Item) {
        match item {
            Item::Spans(Parcel { content, claim }) => {
                let request = encode::trace::request(content.iter());
                self.line(&request, claim);
            }
            Item::Metrics(Parcel { content, mut claim }) => {
                for (request, points) in encode::metric::requests(&content) {
                    let part = claim.split(points);
                    self.line(&request, part);
                    if self.lines.len() >= WRITE_BYTES {
                        self.write().await;
                    }
                }
            }
        }
    }

    fn line(&mut self, request: &impl Serialize, claim: Claim) {
        let before = self.lines.len();
        if serde_json::to_writer(&mut self.lines, request).is_err() {
            self.lines.truncate(before);
            return claim.dropped(Reason::Encoding);
        }
        self.lines.push(b'\n');
        self.claims.push(claim);
    }

    async fn write(&mut self) {
        let result = match self.file.write_all(&self.lines).await {
            Ok(()) => self.file.flush().await,
            Err(error) => Err(error),
        };
        self.lines.clear();
        self.lines.shrink_to(WRITE_BYTES);
        let failed = result.is_err();
        if let (Err(error), false) = (&result, self.failing) {
            warn!(path = %self.path.display(), %error, "cannot write the OTLP file");
        }
        self.failing = failed;
        for claim in self.claims.drain(..) {
            if failed {
                claim.account().failed();
                claim.dropped(Reason::Encoding);
            } else {
                claim.exported(0);
            }
        }
    }
}

/// The next item of either inbox, or `None` when both have ended.
async fn either(spans: &mut Inbox<[Span]>, metrics: &mut Inbox<Snapshot>) -> Option<Item> {
    tokio::select! {
        Some(parcel) = spans.recv() => Some(Item::Spans(parcel)),
        Some(parcel) = metrics.recv() => Some(Item::Metrics(parcel)),
        else => None,
    }
}

fn ready(spans: &mut Inbox<[Span]>, metrics: &mut Inbox<Snapshot>) -> Option<Item> {
    spans.ready().map(Item::Spans).or_else(|| metrics.ready().map(Item::Metrics))
}
