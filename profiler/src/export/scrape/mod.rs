//! Metrics for those who fetch them. In: HTTP requests, and the registry as it stands. Out: OpenMetrics or Prometheus'
//! older text, with the names and labels that Prometheus' own OTLP receiver would give the same metrics.
//! Absent: TLS, passwords, and any other path: whoever wants those puts a proxy before it.

mod accept;
mod labels;
mod name;
mod number;
mod server;
mod text;

pub use server::{Page, Pages, Server};

#[cfg(test)]
mod tests;
