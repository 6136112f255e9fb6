//! Finished requests and iterations of engines → spans. Pure: ids come from a seed, times from an offset, names from the
//! catalogue.
//!
//! ```text
//! request ─► sampling ─► parts ─► request (SERVER, queue, prefill, decode) ─► summary ─► budget ─► spans
//! iteration ─► step (a sample, with links to its members' spans and back) ──────────────┘
//! ```

mod attributes;
mod budget;
mod ids;
pub mod model;
mod names;
mod parts;
mod request;
mod resource;
mod sampling;
mod step;
mod summary;
#[cfg(test)]
mod tests;
mod tracer;

pub use attributes::error_type;
pub use budget::{Cut, MOST_BYTES, MOST_SPANS};
pub use ids::Ids;
pub use parts::Parts;
pub use resource::{Subject, resource};
pub use sampling::{Choice, Decision, Root, Sampler, SamplerError};
pub use step::StepCounts;
pub use tracer::{STEP_SAMPLE, ServerSpan, Settings, TraceCounts, Tracer};
