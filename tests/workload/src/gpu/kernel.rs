//! The kernels: names, host stubs, registration and the order of a forward pass.
//!
//! A stub is what nvcc makes of `__global__ void f(…)`: a real function of the host binary whose address stands
//! for the kernel. With CUDA 12 it passes that address to `cudaLaunchKernel`; with CUDA 13 it asks once for a
//! handle and passes the handle. One stub is `static` in the C++ sense, so its symbol has an `L` that the
//! device name lacks, as most of PyTorch's and vLLM's have.

use std::ffi::{CStr, c_char, c_int, c_void};
use std::ptr;
use std::sync::atomic::{AtomicPtr, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use super::api::{self, Cuda, Dim3, Handle};

/// `cudaErrorInitializationError`: a stub was called before the runtime was opened.
const NOT_INITIALIZED: c_int = 3;

/// A kernel's host function: `(float*, unsigned int, unsigned long long)` in every name below.
pub(crate) type Stub = extern "C" fn(*mut c_void, u32, u64) -> c_int;

/// A kernel of the engine.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Kernel {
    /// Mangled name on the device.
    pub(crate) name: &'static CStr,
    /// Host function; none for the kernels of the driver module.
    pub(crate) stub: Option<Stub>,
    /// What launches instead when a share of the launches goes through the driver.
    pub(crate) driver_twin: Option<&'static CStr>,
}

/// Declares kernels with their host stubs under the symbols that nvcc would give them.
macro_rules! kernels {
    ($($kernel:ident, $stub:ident: $symbol:literal, $name:literal, $twin:expr;)*) => {
        $(
            #[unsafe(export_name = $symbol)]
            #[inline(never)]
            extern "C" fn $stub(mut buffer: *mut c_void, mut count: u32, mut nanoseconds: u64) -> c_int {
                // One handle per kernel in .bss, like nvcc 13's function-local static.
                static HANDLE: AtomicPtr<c_void> = AtomicPtr::new(ptr::null_mut());
                let mut args = [
                    (&raw mut buffer).cast(),
                    (&raw mut count).cast(),
                    (&raw mut nanoseconds).cast::<c_void>(),
                ];
                let Some(cuda) = api::cuda() else { return NOT_INITIALIZED };
                let Some((grid, block, shared, stream)) = configuration(cuda) else { return NOT_INITIALIZED };
                let host = $stub as *const c_void;
                // The call stands in the stub itself: its return address lies under the kernel's symbol.
                let Some(launch13) = &cuda.launch13 else {
                    // SAFETY: CUDA's signature; `args` holds one pointer per parameter and outlives the call.
                    return unsafe { (cuda.runtime.launch_kernel)(host, grid, block, args.as_mut_ptr(), shared, stream) };
                };
                let handle = handle(launch13, &HANDLE, host);
                // SAFETY: as above, with the handle that the runtime gave for this host function.
                unsafe { (launch13.launch_kernel)(handle, grid, block, args.as_mut_ptr(), shared, stream) }
            }

            pub(crate) const $kernel: Kernel = Kernel { name: $name, stub: Some($stub), driver_twin: $twin };
        )*

        /// Every kernel that the runtime registers.
        pub(crate) const REGISTERED: &[Kernel] = &[$($kernel),*];
    };
}

kernels! {
    EMBEDDING, embedding: "_ZN5serve16embedding_kernelI6__halfEEvPfjy",
        c"_ZN5serve16embedding_kernelI6__halfEEvPfjy", None;
    RMS_NORM, rms_norm: "_ZN5serve15rms_norm_kernelI6__halfLi8EEEvPfjy",
        c"_ZN5serve15rms_norm_kernelI6__halfLi8EEEvPfjy", None;
    LINEAR, linear: "_ZN5serve4gemm13linear_kernelI6__halfNS0_9TileShapeILi128ELi128ELi64EEEEEvPfjy",
        c"_ZN5serve4gemm13linear_kernelI6__halfNS0_9TileShapeILi128ELi128ELi64EEEEEvPfjy", Some(DRIVER_GEMM);
    ROTARY, rotary: "_ZN5serveL23rotary_and_cache_kernelI6__halfLb1EEEvPfjy",
        c"_ZN5serve23rotary_and_cache_kernelI6__halfLb1EEEvPfjy", None;
    ATTENTION, attention: "_ZN5serve22paged_attention_kernelI6__halfLi128ELi16ELi256EEEvPfjy",
        c"_ZN5serve22paged_attention_kernelI6__halfLi128ELi16ELi256EEEvPfjy", None;
    SILU, silu: "_ZN5serve19silu_and_mul_kernelI6__halfEEvPfjy",
        c"_ZN5serve19silu_and_mul_kernelI6__halfEEvPfjy", Some(DRIVER_SILU);
    HEAD, head: "_ZN5serve4gemm13linear_kernelI6__halfNS0_9TileShapeILi256ELi128ELi64EEEEEvPfjy",
        c"_ZN5serve4gemm13linear_kernelI6__halfNS0_9TileShapeILi256ELi128ELi64EEEEEvPfjy", None;
    SAMPLE, sample: "_Z12sample_top_pPfjy", c"_Z12sample_top_pPfjy", None;
}

/// Names of the driver module: one as a GEMM library has them, one as Triton makes them.
const DRIVER_GEMM: &CStr = c"gemm_f16_f16_f32_tn_128x128x64";
const DRIVER_SILU: &CStr = c"triton_poi_fused_mul_silu_3";

/// Every kernel of the driver module.
pub(crate) const DRIVER: [&CStr; 2] = [DRIVER_GEMM, DRIVER_SILU];

/// One layer, in launch order.
const LAYER: [Kernel; 7] = [RMS_NORM, LINEAR, ROTARY, ATTENTION, LINEAR, SILU, LINEAR];

/// The kernels of one forward pass, in launch order.
pub(crate) fn forward_pass(layers: usize) -> impl Iterator<Item = Kernel> {
    let body = (0..layers).flat_map(|_| LAYER);
    std::iter::once(EMBEDDING).chain(body).chain([HEAD, SAMPLE])
}

/// Pops the launch configuration that the caller pushed, as nvcc's stubs do.
fn configuration(cuda: &Cuda) -> Option<(Dim3, Dim3, usize, Handle)> {
    let (mut grid, mut block) = (Dim3 { x: 0, y: 0, z: 0 }, Dim3 { x: 0, y: 0, z: 0 });
    let (mut shared, mut stream) = (0, ptr::null_mut());
    // SAFETY: four valid out-pointers of the types that the function writes.
    let status = unsafe {
        (cuda.runtime.pop_call_configuration)(&raw mut grid, &raw mut block, &raw mut shared, &raw mut stream)
    };
    (status == 0).then_some((grid, block, shared, stream))
}

/// The kernel's handle, asked for once.
fn handle(launch13: &api::Launch13, cache: &AtomicPtr<c_void>, host: *const c_void) -> Handle {
    let known = cache.load(Ordering::Acquire);
    if !known.is_null() {
        return known;
    }
    let mut handle = ptr::null_mut();
    // SAFETY: `host` is a registered host function; a failure leaves null, which the launch then reports.
    unsafe { (launch13.get_kernel)(&raw mut handle, host) };
    cache.store(handle, Ordering::Release);
    handle
}

/// Kernels that are registered for the whole process, until the last device is closed.
pub(crate) struct Registration {
    cuda: &'static Cuda,
    binary: *mut Handle,
}

// SAFETY: the handle is only given back, once; CUDA takes it from any thread.
unsafe impl Send for Registration {}
// SAFETY: as above.
unsafe impl Sync for Registration {}

static REGISTRATION: Mutex<Weak<Registration>> = Mutex::new(Weak::new());

impl Drop for Registration {
    fn drop(&mut self) {
        // SAFETY: the handle that the registration returned, once.
        unsafe { (self.cuda.runtime.unregister_fat_binary)(self.binary) };
    }
}

/// Registers the fat binary and every kernel in it, for all devices of the process.
pub(crate) fn registered(cuda: &'static Cuda) -> Arc<Registration> {
    let mut known = REGISTRATION.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(registration) = known.upgrade() {
        return registration;
    }
    let registration = Arc::new(Registration { cuda, binary: register(cuda) });
    *known = Arc::downgrade(&registration);
    registration
}

fn register(cuda: &Cuda) -> *mut Handle {
    let image = super::image::ptx(REGISTERED.iter().map(|kernel| kernel.name));
    let wrapper = ptr::from_mut(super::image::fat_binary(&image));
    // SAFETY: the wrapper lives as long as the process; the names are NUL-terminated and static; the order of
    // the calls is nvcc's.
    unsafe {
        let binary = (cuda.runtime.register_fat_binary)(wrapper.cast());
        for kernel in REGISTERED {
            let Some(stub) = kernel.stub else { continue };
            let (name, null) = (kernel.name.as_ptr(), ptr::null_mut());
            (cuda.runtime.register_function)(
                binary,
                stub as *const c_char,
                name.cast_mut(),
                name,
                -1,
                null,
                null,
                null,
                null,
                ptr::null_mut(),
            );
        }
        (cuda.runtime.register_fat_binary_end)(binary);
        binary
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pass_is_three_kernels_around_the_layers() {
        assert_eq!(forward_pass(0).count(), 3);
        assert_eq!(forward_pass(6).count(), 3 + 6 * 7);
    }

    #[test]
    fn stubs_differ() {
        let mut addresses: Vec<usize> =
            REGISTERED.iter().map(|kernel| kernel.stub.unwrap() as usize).collect();
        addresses.dedup();
        assert_eq!(addresses.len(), REGISTERED.len());
    }
}
