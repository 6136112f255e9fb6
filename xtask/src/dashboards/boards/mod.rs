//! What the dashboards show: one file a board.

mod batching;
mod engine;
mod gpu;
mod own;
mod requests;

use super::grafana::{Board, Variable};

/// Every board.
pub fn boards() -> Vec<Board> {
    vec![requests::board(), engine::board(), gpu::board(), own::board(), batching::board()]
}

const SERVICE: Variable = Variable {
    name: "service",
    label: "Service",
    query: "label_values(process_uptime_seconds, service_name)",
};
const INSTANCE: Variable = Variable {
    name: "instance",
    label: "Instance",
    query: r#"label_values(process_uptime_seconds{service_name=~"$service"}, service_instance_id)"#,
};
const MODEL: Variable = Variable {
    name: "model",
    label: "Model",
    query: r#"label_values(gen_ai_server_request_duration_seconds_count{service_name=~"$service"}, gen_ai_request_model)"#,
};
const GPU: Variable =
    Variable { name: "gpu", label: "GPU", query: "label_values(hw_gpu_memory_limit_bytes, hw_id)" };
/// Labels of a chosen model.
const OF_MODEL: &str = r#"gen_ai_request_model=~"$model""#;
