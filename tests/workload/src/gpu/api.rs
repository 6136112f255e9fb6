//! The CUDA functions that the engine calls, as tables of pointers looked up with `dlsym`.
//!
//! Signatures: CUDA Runtime API and Driver API reference, 12.9 and 13.0 (identical for these functions); the
//! `__cuda…` entry points are those that nvcc's generated host code calls (`crt/host_runtime.h`).

use std::ffi::{c_char, c_int, c_uint, c_void};
use std::sync::OnceLock;

use anyhow::{Context, Result, ensure};
use libloading::Library;

/// `dim3` of the runtime API, passed by value.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub(crate) struct Dim3 {
    pub(crate) x: c_uint,
    pub(crate) y: c_uint,
    pub(crate) z: c_uint,
}

/// Any opaque CUDA handle: stream, graph, kernel, module, function.
pub(crate) type Handle = *mut c_void;

/// `cudaMemcpyKind` values.
pub(crate) const HOST_TO_DEVICE: c_int = 1;
pub(crate) const DEVICE_TO_HOST: c_int = 2;

/// Declares a table of functions and its loader.
macro_rules! functions {
    ($(#[$doc:meta])* $table:ident { $($field:ident = $symbol:literal ($($arg:ty),*) -> $ret:ty;)* }) => {
        $(#[$doc])*
        pub(crate) struct $table {
            $(pub(crate) $field: unsafe extern "C" fn($($arg),*) -> $ret,)*
            // Keeps the functions mapped.
            _library: Library,
        }

        impl $table {
            fn load(name: &str) -> Result<Self> {
                // SAFETY: running the library's initialisers is the purpose; it is a CUDA library by name.
                let library = unsafe { Library::new(name) }.with_context(|| {
                    format!("failed to open {name}: put the folder of a CUDA library or of the stand-ins into LD_LIBRARY_PATH")
                })?;
                // SAFETY: each signature is the one of CUDA's reference for the symbol beside it.
                unsafe {
                    $(let $field = *library.get(concat!($symbol, "\0").as_bytes())
                        .with_context(|| format!("{name} lacks `{}`", $symbol))?;)*
                    Ok(Self { $($field,)* _library: library })
                }
            }
        }
    };
}

functions! {
    /// Functions of `libcudart` 12 and 13.
    Runtime {
        get_version = "cudaRuntimeGetVersion"(*mut c_int) -> c_int;
        set_device = "cudaSetDevice"(c_int) -> c_int;
        malloc = "cudaMalloc"(*mut Handle, usize) -> c_int;
        free = "cudaFree"(Handle) -> c_int;
        malloc_host = "cudaMallocHost"(*mut Handle, usize) -> c_int;
        free_host = "cudaFreeHost"(Handle) -> c_int;
        malloc_async = "cudaMallocAsync"(*mut Handle, usize, Handle) -> c_int;
        free_async = "cudaFreeAsync"(Handle, Handle) -> c_int;
        memcpy_async = "cudaMemcpyAsync"(Handle, Handle, usize, c_int, Handle) -> c_int;
        stream_create = "cudaStreamCreateWithFlags"(*mut Handle, c_uint) -> c_int;
        stream_destroy = "cudaStreamDestroy"(Handle) -> c_int;
        stream_synchronize = "cudaStreamSynchronize"(Handle) -> c_int;
        stream_wait_event = "cudaStreamWaitEvent"(Handle, Handle, c_uint) -> c_int;
        event_create = "cudaEventCreateWithFlags"(*mut Handle, c_uint) -> c_int;
        event_destroy = "cudaEventDestroy"(Handle) -> c_int;
        event_record = "cudaEventRecord"(Handle, Handle) -> c_int;
        event_synchronize = "cudaEventSynchronize"(Handle) -> c_int;
        event_elapsed_time = "cudaEventElapsedTime"(*mut f32, Handle, Handle) -> c_int;
        stream_begin_capture = "cudaStreamBeginCapture"(Handle, c_int) -> c_int;
        stream_end_capture = "cudaStreamEndCapture"(Handle, *mut Handle) -> c_int;
        graph_instantiate = "cudaGraphInstantiate"(*mut Handle, Handle, u64) -> c_int;
        graph_launch = "cudaGraphLaunch"(Handle, Handle) -> c_int;
        graph_destroy = "cudaGraphDestroy"(Handle) -> c_int;
        graph_exec_destroy = "cudaGraphExecDestroy"(Handle) -> c_int;
        launch_kernel = "cudaLaunchKernel"(*const c_void, Dim3, Dim3, *mut *mut c_void, usize, Handle) -> c_int;
        push_call_configuration = "__cudaPushCallConfiguration"(Dim3, Dim3, usize, Handle) -> c_uint;
        pop_call_configuration = "__cudaPopCallConfiguration"(*mut Dim3, *mut Dim3, *mut usize, *mut Handle) -> c_int;
        register_fat_binary = "__cudaRegisterFatBinary"(*mut c_void) -> *mut Handle;
        register_fat_binary_end = "__cudaRegisterFatBinaryEnd"(*mut Handle) -> ();
        unregister_fat_binary = "__cudaUnregisterFatBinary"(*mut Handle) -> ();
        register_function = "__cudaRegisterFunction"(*mut Handle, *const c_char, *mut c_char, *const c_char, c_int,
            *mut c_void, *mut c_void, *mut c_void, *mut c_void, *mut c_int) -> ();
    }
}

functions! {
    /// What nvcc 13's host code adds: launches by an opaque handle. Only `libcudart.so.13` has them.
    Launch13 {
        get_kernel = "__cudaGetKernel"(*mut Handle, *const c_void) -> c_int;
        launch_kernel = "__cudaLaunchKernel"(Handle, Dim3, Dim3, *mut *mut c_void, usize, Handle) -> c_int;
    }
}

functions! {
    /// Functions of `libcuda.so.1`.
    Driver {
        init = "cuInit"(c_uint) -> c_int;
        module_load_data = "cuModuleLoadData"(*mut Handle, *const c_void) -> c_int;
        module_get_function = "cuModuleGetFunction"(*mut Handle, Handle, *const c_char) -> c_int;
        module_unload = "cuModuleUnload"(Handle) -> c_int;
        launch_kernel = "cuLaunchKernel"(Handle, c_uint, c_uint, c_uint, c_uint, c_uint, c_uint, c_uint, Handle,
            *mut *mut c_void, *mut *mut c_void) -> c_int;
    }
}

/// The runtime of this process. The kernels' host stubs are plain functions and find it here, as nvcc's stubs
/// find theirs by linking.
pub(crate) struct Cuda {
    pub(crate) runtime: Runtime,
    pub(crate) launch13: Option<Launch13>,
}

static CUDA: OnceLock<Cuda> = OnceLock::new();

/// The runtime, where [`open_runtime`] has run.
pub(crate) fn cuda() -> Option<&'static Cuda> {
    CUDA.get()
}

/// Opens `libcudart.so.<major>` for the whole process.
pub(crate) fn open_runtime(major: u32) -> Result<&'static Cuda> {
    let name = format!("libcudart.so.{major}");
    let launch13 = if major >= 13 { Some(Launch13::load(&name)?) } else { None };
    let opened = Cuda { runtime: Runtime::load(&name)?, launch13 };
    Ok(CUDA.get_or_init(|| opened))
}

/// Opens `libcuda.so.1`.
pub(crate) fn open_driver() -> Result<Driver> {
    Driver::load("libcuda.so.1")
}

/// Turns a status into an error that names the call.
pub(crate) fn check(status: c_int, call: &str) -> Result<()> {
    ensure!(
        status == 0,
        "`{call}` returned CUDA error {status} (see `cudaError_t` or `CUresult` in CUDA's reference)"
    );
    Ok(())
}
