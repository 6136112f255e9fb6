//! What one message says, gathered from its fields.
//!
//! In: values of [`Field`]s. Out: [`Said`], bounded.

use super::protobuf::{Receiver, Value};
use super::schema::Field;
use crate::http::{ShardBatch, ShardFinish, ShardGeneration, ShardStep};

/// Batches, members and generations of one message that are told apart. TGI's default for concurrent requests is 128.
const MAX_MEMBERS: usize = 1024;
/// The parameter of Triton's decoupled models that marks the last response of a request
/// (triton-inference-server/server, `docs/user_guide/decoupled_models.md`).
const FINAL: &str = "triton_final_response";

/// What a message says.
#[derive(Debug, Default)]
pub(super) struct Said {
    pub(super) model: Option<String>,
    pub(super) model_version: Option<String>,
    pub(super) id: Option<String>,
    pub(super) outputs: u32,
    pub(super) error: bool,
    pub(super) last: bool,
    /// Batches asked for, or the batch that is left.
    pub(super) batches: Vec<ShardBatch>,
    pub(super) step: ShardStep,
    is_final: bool,
    flag: bool,
    in_member: bool,
}

impl Receiver<Field> for Said {
    fn value(&mut self, field: Field, value: Value<'_>) {
        use Field as F;
        match (field, value) {
            (F::Model, Value::Text(text)) => self.model = Some(text.to_owned()),
            (F::ModelVersion, Value::Text(text)) => self.model_version = Some(text.to_owned()),
            (F::Id, Value::Text(text)) => self.id = Some(text.to_owned()),
            (F::Output, Value::Filled(_)) => self.outputs = self.outputs.saturating_add(1),
            (F::Error, Value::Filled(filled)) => self.error |= filled,
            (F::Parameter | F::ParameterName | F::ParameterBool, value) => self.parameter(field, value),
            (F::Batch, Value::Begin) if self.batches.len() < MAX_MEMBERS => {
                self.batches.push(ShardBatch::default());
            }
            (F::BatchId | F::BatchSize | F::BatchRequest | F::BatchRequestId | F::BatchTokens, value) => {
                self.batch(field, value);
            }
            (F::ForwardNs, Value::Number(ns)) => self.step.forward_ns = ns,
            (F::DecodeNs, Value::Number(ns)) => self.step.decode_ns = ns,
            (F::TotalNs, Value::Number(ns)) => self.step.total_ns = ns,
            (F::ConcatNs, Value::Number(ns)) => self.step.concat_ns = Some(ns),
            (F::Generation, Value::Begin) if self.step.generations.len() < MAX_MEMBERS => {
                self.step.generations.push(ShardGeneration::default());
            }
            (field, value) => self.generation(field, value),
        }
    }
}

impl Said {
    fn parameter(&mut self, field: Field, value: Value<'_>) {
        match (field, value) {
            (Field::Parameter, Value::Begin) => (self.is_final, self.flag) = (false, false),
            (Field::ParameterName, Value::Text(name)) => self.is_final = name == FINAL,
            (Field::ParameterBool, Value::Number(flag)) => self.flag = flag != 0,
            (Field::Parameter, Value::End) => self.last |= self.is_final && self.flag,
            _ => {}
        }
    }

    /// The request of `FilterBatch` is itself a batch.
    fn batch(&mut self, field: Field, value: Value<'_>) {
        if self.batches.is_empty() {
            self.batches.push(ShardBatch::default());
        }
        let Some(batch) = self.batches.last_mut() else { return };
        match (field, value) {
            (Field::BatchId, Value::Number(id)) => batch.id = id,
            (Field::BatchSize, Value::Number(size)) => batch.size = size,
            (Field::BatchTokens, Value::Number(tokens)) => batch.current_tokens = tokens,
            (Field::BatchRequest, Value::Begin) => {
                self.in_member = batch.requests.len() < MAX_MEMBERS;
                // An id of 0 is not sent.
                batch.requests.extend(self.in_member.then_some(0));
            }
            (Field::BatchRequest, Value::End) => self.in_member = false,
            (Field::BatchRequestId, Value::Number(id)) if self.in_member => {
                if let Some(last) = batch.requests.last_mut() {
                    *last = id;
                }
            }
            (Field::BatchRequestId, Value::Number(id)) if batch.requests.len() < MAX_MEMBERS => {
                batch.requests.push(id);
            }
            _ => {}
        }
    }

    fn generation(&mut self, field: Field, value: Value<'_>) {
        let Some(generation) = self.step.generations.last_mut() else { return };
        match (field, value) {
            (Field::GenerationRequest, Value::Number(id)) => generation.request = id,
            (Field::TokenId, Value::Number(_)) => generation.tokens = generation.tokens.saturating_add(1),
            (Field::Finished, Value::Begin) => generation.finish = Some(ShardFinish::default()),
            (Field::FinishedTokens, Value::Number(tokens)) => {
                generation.finish.get_or_insert_default().generated_tokens = tokens;
            }
            (Field::FinishReason, Value::Number(reason)) => {
                generation.finish.get_or_insert_default().reason = reason;
            }
            _ => {}
        }
    }
}
