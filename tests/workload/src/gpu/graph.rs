//! Decode steps as CUDA graphs: captured once per batch size, replayed after that.

use std::ffi::{CStr, c_int};
use std::ptr;

use anyhow::Result;

use super::api::Handle;
use super::buffer::call;
use super::cuda::{CudaDevice, Mode};
use super::kernel;

/// `cudaStreamCaptureModeThreadLocal`: other threads may go on calling CUDA during the capture.
const THREAD_LOCAL: c_int = 1;

pub(super) struct Graph {
    graph: Handle,
    exec: Handle,
    nodes: u64,
}

impl CudaDevice {
    /// Captures the forward pass of `batch` decoding sequences and instantiates it.
    pub(super) fn capture(&mut self, batch: usize) -> Result<()> {
        let runtime = &self.cuda.runtime;
        let before = self.totals.captured;
        // SAFETY: a live stream that is not capturing.
        let status = unsafe { (runtime.stream_begin_capture)(self.stream, THREAD_LOCAL) };
        call(&mut self.totals, "cudaStreamBeginCapture", status)?;
        self.forward(batch, Mode::Capture)?;
        let (mut graph, mut exec) = (ptr::null_mut(), ptr::null_mut());
        // SAFETY: the stream is capturing; a valid out-pointer.
        let status = unsafe { (runtime.stream_end_capture)(self.stream, &raw mut graph) };
        call(&mut self.totals, "cudaStreamEndCapture", status)?;
        // SAFETY: the graph was just captured; a valid out-pointer; no flags.
        let status = unsafe { (runtime.graph_instantiate)(&raw mut exec, graph, 0) };
        call(&mut self.totals, "cudaGraphInstantiate", status)?;
        let nodes = self.totals.captured - before;
        self.graphs.insert(batch, Graph { graph, exec, nodes });
        Ok(())
    }

    /// Replays the graph of `batch` sequences, which must have been captured.
    pub(super) fn replay(&mut self, batch: usize) -> Result<()> {
        let Some(graph) = self.graphs.get(&batch) else { return Ok(()) };
        let nodes = graph.nodes;
        // SAFETY: an instantiated graph and a live stream.
        let status = unsafe { (self.cuda.runtime.graph_launch)(graph.exec, self.stream) };
        call(&mut self.totals, "cudaGraphLaunch", status)?;
        self.totals.graph_launches += 1;
        self.totals.graph_nodes += nodes;
        for kernel in kernel::forward_pass(self.options.layers) {
            self.count_kernel(self.effective_name(&kernel), self.halves());
        }
        Ok(())
    }

    /// The name under which `kernel` is launched here: the driver's twin where the driver launches it.
    fn effective_name(&self, kernel: &kernel::Kernel) -> &'static CStr {
        kernel.driver_twin.filter(|_| self.options.driver_launches).unwrap_or(kernel.name)
    }

    /// Destroys every graph; none may be running.
    pub(super) fn destroy_graphs(&mut self) -> Result<()> {
        for (_, graph) in std::mem::take(&mut self.graphs) {
            // SAFETY: each object is destroyed once, after the last synchronisation.
            let (exec, source) = unsafe {
                (
                    (self.cuda.runtime.graph_exec_destroy)(graph.exec),
                    (self.cuda.runtime.graph_destroy)(graph.graph),
                )
            };
            call(&mut self.totals, "cudaGraphExecDestroy", exec)?;
            call(&mut self.totals, "cudaGraphDestroy", source)?;
        }
        Ok(())
    }
}
