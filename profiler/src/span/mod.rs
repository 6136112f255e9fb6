//! Finished requests → spans. Pure: ids come from a seed, times from an offset, names from the catalogue.

mod ids;
pub mod model;
mod request;
mod resource;

pub use ids::Ids;
pub use request::{error_type, trace};
pub use resource::{Subject, resource};
