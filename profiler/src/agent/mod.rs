//! The agent: what `gpuspan agent` is told and does on a node.
//!
//! ```text
//! discover ─► node (targets, budgets, levels) ─► attach
//! events ─► router ─► a session for each target ─► spans, metrics
//! ```
//! In: looks at the machine's processes, a configuration, words from outside (`off`). Out: targets attached and let go,
//! how much of each is observed, and pages that say so (`status`). The threads are in `pipeline/agent.rs`.

mod budget;
pub mod config;
mod linger;
mod node;
mod off;
mod router;
mod status;
mod whereabouts;

pub use budget::{Budget, Level};
pub use node::{Limits, Manner, Node};
pub use off::Off;
pub use router::{Message, Router, Sums};
pub use status::{Report, Status, TargetStatus};
pub use whereabouts::Whereabouts;
