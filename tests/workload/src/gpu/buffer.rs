//! Device memory and its pinned twin on the host, and the copies between them.

use std::ffi::{c_int, c_void};
use std::ptr;

use anyhow::Result;

use super::api::{self, Cuda, Handle};
use crate::truth::DeviceTotals;

/// Counts a call by name and checks its status.
pub(crate) fn call(totals: &mut DeviceTotals, name: &str, status: c_int) -> Result<()> {
    match totals.calls.get_mut(name) {
        Some(count) => *count += 1,
        None => {
            totals.calls.insert(name.to_owned(), 1);
        }
    }
    api::check(status, name)
}

/// Input or output of a step: pinned host memory and device memory of one size.
pub(crate) struct Buffer {
    host: *mut c_void,
    pub(crate) device: *mut c_void,
    capacity: usize,
}

impl Buffer {
    pub(crate) fn new(cuda: &Cuda, totals: &mut DeviceTotals, capacity: usize) -> Result<Self> {
        let mut host = ptr::null_mut();
        // SAFETY: a valid out-pointer.
        let status = unsafe { (cuda.runtime.malloc_host)(&raw mut host, capacity) };
        call(totals, "cudaMallocHost", status)?;
        // SAFETY: the pinned block has `capacity` bytes; the engine sends zeroes, never undefined memory.
        unsafe { ptr::write_bytes(host.cast::<u8>(), 0, capacity) };
        let device = allocate(cuda, totals, capacity)?;
        Ok(Self { host, device, capacity })
    }

    pub(crate) fn copy_in(
        &self,
        cuda: &Cuda,
        totals: &mut DeviceTotals,
        bytes: usize,
        stream: Handle,
    ) -> Result<()> {
        let bytes = bytes.min(self.capacity);
        copy(cuda, totals, (self.device, self.host), bytes, api::HOST_TO_DEVICE, stream)
    }

    pub(crate) fn copy_out(
        &self,
        cuda: &Cuda,
        totals: &mut DeviceTotals,
        bytes: usize,
        stream: Handle,
    ) -> Result<()> {
        let bytes = bytes.min(self.capacity);
        copy(cuda, totals, (self.host, self.device), bytes, api::DEVICE_TO_HOST, stream)
    }

    pub(crate) fn free(&self, cuda: &Cuda, totals: &mut DeviceTotals) -> Result<()> {
        // SAFETY: both blocks came from the runtime and are freed once, when nothing runs any more.
        let (host, device) =
            unsafe { ((cuda.runtime.free_host)(self.host), (cuda.runtime.free)(self.device)) };
        call(totals, "cudaFreeHost", host)?;
        call(totals, "cudaFree", device)
    }
}

/// Allocates device memory.
pub(crate) fn allocate(cuda: &Cuda, totals: &mut DeviceTotals, bytes: usize) -> Result<*mut c_void> {
    let mut device = ptr::null_mut();
    // SAFETY: a valid out-pointer.
    let status = unsafe { (cuda.runtime.malloc)(&raw mut device, bytes) };
    call(totals, "cudaMalloc", status)?;
    totals.allocated_bytes += bytes as u64;
    Ok(device)
}

fn copy(
    cuda: &Cuda,
    totals: &mut DeviceTotals,
    (to, from): (*mut c_void, *mut c_void),
    bytes: usize,
    kind: c_int,
    stream: Handle,
) -> Result<()> {
    // SAFETY: both blocks have at least `bytes` bytes, stay allocated until the stream is synchronised, and one
    // is pinned host memory, the other device memory, as `kind` says.
    let status = unsafe { (cuda.runtime.memcpy_async)(to, from, bytes, kind, stream) };
    call(totals, "cudaMemcpyAsync", status)?;
    let direction = if kind == api::HOST_TO_DEVICE { "HtoD" } else { "DtoH" };
    let copies = totals.copies.entry(direction.to_owned()).or_default();
    copies.count += 1;
    copies.bytes += bytes as u64;
    Ok(())
}
