//! Gets requests to one endpoint: again and again while that makes sense, and says so in the log once per change.
//! In: parcels of one signal. Out: settled claims. Absent: what a request looks like.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};
use std::sync::Arc;
use std::time::{Duration, Instant};

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use prost::Message;
use prost::bytes::Bytes;
use serde::Serialize;
use tracing::{info, warn};

use super::encode;
use super::inbox::Inbox;
use super::ledger::{Claim, Reason};
use super::pace::Pace;
use super::queue::{Parcel, SPANS_PER_REQUEST};
use super::retry::Policy;
use super::settings::{Endpoint, Signal};
use super::transport::{Answer, Failure, Transport, TransportError};
use crate::metric::Snapshot;
use crate::span::model::Span;

/// How long a span waits for company. Spans are useful within seconds, and a request a second costs nothing.
const LINGER: Duration = Duration::from_secs(1);
/// Between two log lines that say the same: an endpoint may fail and work in turns.
const LOG_INTERVAL: Duration = Duration::from_secs(60);

/// One signal's way to its endpoint.
#[derive(Debug)]
pub struct Deliverer {
    transport: Transport,
    policy: Policy,
    pace: Arc<Pace>,
    signal: Signal,
    /// For the log.
    place: String,
    /// Items lost before the endpoint failed, while it fails and the log says so.
    failing_since: Option<u64>,
    change_logged: Option<Instant>,
    partial_logged: Option<Instant>,
}

impl Deliverer {
    pub fn open(
        endpoint: &Endpoint,
        signal: Signal,
        policy: Policy,
        pace: Arc<Pace>,
    ) -> Result<Self, TransportError> {
        let transport = Transport::open(endpoint, signal)?;
        let place = endpoint.url.to_string();
        Ok(Self {
            transport,
            policy,
            pace,
            signal,
            place,
            failing_since: None,
            change_logged: None,
            partial_logged: None,
        })
    }

    /// Delivers spans until the inbox ends.
    pub async fn spans(mut self, mut inbox: Inbox<[Span]>) {
        let mut next = None;
        loop {
            let first = match next.take() {
                Some(parcel) => parcel,
                None => match inbox.recv().await {
                    Some(parcel) => parcel,
                    None => return,
                },
            };
            let batch;
            (batch, next) = collect(first, &mut inbox).await;
            self.span_batch(batch).await;
        }
    }

    async fn span_batch(&mut self, batch: Vec<Parcel<[Span]>>) {
        let (contents, claims): (Vec<_>, Vec<_>) = batch.into_iter().map(|p| (p.content, p.claim)).unzip();
        let Some(mut claim) = claims.into_iter().reduce(join) else { return };
        let requests: Vec<(ExportTraceServiceRequest, u64)> = {
            let spans: Vec<&Span> = contents.iter().flat_map(|content| content.iter()).collect();
            encode::trace::requests(&spans)
        };
        for (request, spans) in requests {
            let part = claim.split(spans);
            self.deliver(&request, part).await;
        }
    }

    /// Delivers snapshots until the inbox ends.
    pub async fn snapshots(mut self, mut inbox: Inbox<Snapshot>) {
        while let Some(mut parcel) = inbox.recv().await {
            while let Some(newer) = inbox.ready() {
                std::mem::replace(&mut parcel, newer).claim.dropped(Reason::Superseded);
            }
            let mut claim = parcel.claim;
            for (request, points) in encode::metric::requests(&parcel.content) {
                let part = claim.split(points);
                self.deliver(&request, part).await;
            }
        }
    }

    async fn deliver<M: Message + Serialize>(&mut self, request: &M, claim: Claim) {
        match self.transport.encode(request) {
            Ok(body) => self.send(body, claim).await,
            Err(error) => {
                self.failing(&claim, &error.to_string());
                claim.dropped(Reason::Encoding);
            }
        }
    }

    async fn send(&mut self, body: Bytes, claim: Claim) {
        let begin = tokio::time::Instant::now();
        let mut failures = 0;
        loop {
            self.pace.wait(body.len()).await;
            let failure = match self.transport.send(body.clone()).await {
                Ok(answer) => return self.taken(answer, claim),
                Err(failure) => failure,
            };
            failures += 1;
            claim.account().failed();
            match failure {
                Failure::Final { cause } => {
                    self.failing(&claim, &cause);
                    return claim.dropped(Reason::Refused);
                }
                Failure::Temporary { after, cause } => {
                    self.failing(&claim, &cause);
                    let Some(wait) = self.policy.wait(failures, begin.elapsed(), after, random()) else {
                        return claim.dropped(Reason::Unreachable);
                    };
                    tokio::time::sleep(wait).await;
                }
            }
        }
    }

    fn taken(&mut self, answer: Answer, claim: Claim) {
        let signal = self.signal.name();
        if let Some(before) = self.failing_since.take() {
            let lost = claim.account().tally().lost().saturating_sub(before);
            info!(signal, endpoint = %self.place, lost, "OTLP export works again");
        }
        if answer != Answer::default() && due(&mut self.partial_logged) {
            let Answer { refused, message } = &answer;
            warn!(signal, endpoint = %self.place, refused, message, "the OTLP endpoint did not take everything");
        }
        claim.exported(answer.refused);
    }

    /// One line when it begins to fail, none while it goes on.
    fn failing(&mut self, claim: &Claim, cause: &str) {
        if self.failing_since.is_none() && due(&mut self.change_logged) {
            self.failing_since = Some(claim.account().tally().lost());
            warn!(signal = self.signal.name(), endpoint = %self.place, cause, "OTLP export fails");
        }
    }
}

/// Whether a log line is due, which then counts as written.
fn due(logged: &mut Option<Instant>) -> bool {
    let due = logged.is_none_or(|logged| logged.elapsed() >= LOG_INTERVAL);
    if due {
        *logged = Some(Instant::now());
    }
    due
}

/// `first` and what comes within `LINGER`, as far as one request takes it, and the parcel that did not fit.
async fn collect(
    first: Parcel<[Span]>,
    inbox: &mut Inbox<[Span]>,
) -> (Vec<Parcel<[Span]>>, Option<Parcel<[Span]>>) {
    let linger = tokio::time::sleep(LINGER);
    tokio::pin!(linger);
    let mut spans = first.content.len();
    let mut batch = vec![first];
    while spans < SPANS_PER_REQUEST {
        let parcel = tokio::select! {
            parcel = inbox.recv() => parcel,
            () = &mut linger => None,
        };
        let Some(parcel) = parcel else { break };
        spans += parcel.content.len();
        if spans > SPANS_PER_REQUEST {
            return (batch, Some(parcel));
        }
        batch.push(parcel);
    }
    (batch, None)
}

fn join(mut all: Claim, one: Claim) -> Claim {
    all.join(one);
    all
}

/// A number in 0..1; the standard library seeds its hashers at random.
pub(crate) fn random() -> f64 {
    f64::from((RandomState::new().build_hasher().finish() >> 32) as u32) / f64::from(u32::MAX)
}
