//! Continuous batching: submitted requests come in, tokens go out to each request's own channel.
//!
//! One thread owns the device. Connections and that thread meet only in the [`Queue`] and in the channels.

mod queue;
mod run;
mod schedule;

pub(crate) use queue::{Event, Finish, Queue, Rejection, Submission};
pub(crate) use run::run;
