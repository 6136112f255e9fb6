//! Names of results (`cudaError_t` of driver_types.h, `CUresult` of cuda.h, both 13.5; `ncclResult_t` of nccl.h 2.32).
//!
//! Since CUDA 10.1 runtime and driver share their numbers; where they name one differently the table has both.

use super::Layer;
use std::borrow::Cow;

/// `cudaErrorMemoryAllocation` and `CUDA_ERROR_OUT_OF_MEMORY`.
pub const OUT_OF_MEMORY: i64 = 2;

/// The name of a result of a function of `layer`; its number where this table has none.
#[must_use]
pub fn name(layer: Layer, result: i64) -> Cow<'static, str> {
    let found = match layer {
        // Its calls are not reported.
        Layer::Tls
        | Layer::Zmq
        | Layer::Llama
        | Layer::LlamaServer
        | Layer::Triton
        | Layer::TritonBackend => None,
        Layer::Nccl => NCCL.iter().find(|(code, _)| *code == result).map(|(_, name)| *name),
        Layer::Runtime => CUDA.iter().find(|(code, ..)| *code == result).map(|(_, runtime, _)| *runtime),
        Layer::Driver => CUDA.iter().find(|(code, ..)| *code == result).map(|(.., driver)| *driver),
    };
    found.filter(|name| !name.is_empty()).map_or_else(|| Cow::Owned(result.to_string()), Cow::Borrowed)
}

const NCCL: &[(i64, &str)] = &[
    (1, "ncclUnhandledCudaError"),
    (2, "ncclSystemError"),
    (3, "ncclInternalError"),
    (4, "ncclInvalidArgument"),
    (5, "ncclInvalidUsage"),
    (6, "ncclRemoteError"),
    (7, "ncclInProgress"),
];

const CUDA: &[(i64, &str, &str)] = &[
    (1, "cudaErrorInvalidValue", "CUDA_ERROR_INVALID_VALUE"),
    (2, "cudaErrorMemoryAllocation", "CUDA_ERROR_OUT_OF_MEMORY"),
    (3, "cudaErrorInitializationError", "CUDA_ERROR_NOT_INITIALIZED"),
    (4, "cudaErrorCudartUnloading", "CUDA_ERROR_DEINITIALIZED"),
    (5, "cudaErrorProfilerDisabled", "CUDA_ERROR_PROFILER_DISABLED"),
    (9, "cudaErrorInvalidConfiguration", ""),
    (12, "cudaErrorInvalidPitchValue", ""),
    (13, "cudaErrorInvalidSymbol", ""),
    (16, "cudaErrorInvalidHostPointer", ""),
    (17, "cudaErrorInvalidDevicePointer", ""),
    (21, "cudaErrorInvalidMemcpyDirection", ""),
    (34, "cudaErrorStubLibrary", "CUDA_ERROR_STUB_LIBRARY"),
    (35, "cudaErrorInsufficientDriver", ""),
    (36, "cudaErrorCallRequiresNewerDriver", "CUDA_ERROR_CALL_REQUIRES_NEWER_DRIVER"),
    (46, "cudaErrorDevicesUnavailable", "CUDA_ERROR_DEVICE_UNAVAILABLE"),
    (52, "cudaErrorMissingConfiguration", ""),
    (98, "cudaErrorInvalidDeviceFunction", ""),
    (100, "cudaErrorNoDevice", "CUDA_ERROR_NO_DEVICE"),
    (101, "cudaErrorInvalidDevice", "CUDA_ERROR_INVALID_DEVICE"),
    (102, "cudaErrorDeviceNotLicensed", "CUDA_ERROR_DEVICE_NOT_LICENSED"),
    (103, "cudaErrorSoftwareValidityNotEstablished", ""),
    (127, "cudaErrorStartupFailure", ""),
    (200, "cudaErrorInvalidKernelImage", "CUDA_ERROR_INVALID_IMAGE"),
    (201, "cudaErrorDeviceUninitialized", "CUDA_ERROR_INVALID_CONTEXT"),
    (205, "cudaErrorMapBufferObjectFailed", "CUDA_ERROR_MAP_FAILED"),
    (206, "cudaErrorUnmapBufferObjectFailed", "CUDA_ERROR_UNMAP_FAILED"),
    (208, "cudaErrorAlreadyMapped", "CUDA_ERROR_ALREADY_MAPPED"),
    (209, "cudaErrorNoKernelImageForDevice", "CUDA_ERROR_NO_BINARY_FOR_GPU"),
    (211, "cudaErrorNotMapped", "CUDA_ERROR_NOT_MAPPED"),
    (214, "cudaErrorECCUncorrectable", "CUDA_ERROR_ECC_UNCORRECTABLE"),
    (215, "cudaErrorUnsupportedLimit", "CUDA_ERROR_UNSUPPORTED_LIMIT"),
    (217, "cudaErrorPeerAccessUnsupported", "CUDA_ERROR_PEER_ACCESS_UNSUPPORTED"),
    (218, "cudaErrorInvalidPtx", "CUDA_ERROR_INVALID_PTX"),
    (220, "cudaErrorNvlinkUncorrectable", "CUDA_ERROR_NVLINK_UNCORRECTABLE"),
    (221, "cudaErrorJitCompilerNotFound", "CUDA_ERROR_JIT_COMPILER_NOT_FOUND"),
    (222, "cudaErrorUnsupportedPtxVersion", "CUDA_ERROR_UNSUPPORTED_PTX_VERSION"),
    (226, "cudaErrorContained", "CUDA_ERROR_CONTAINED"),
    (300, "cudaErrorInvalidSource", "CUDA_ERROR_INVALID_SOURCE"),
    (301, "cudaErrorFileNotFound", "CUDA_ERROR_FILE_NOT_FOUND"),
    (302, "cudaErrorSharedObjectSymbolNotFound", "CUDA_ERROR_SHARED_OBJECT_SYMBOL_NOT_FOUND"),
    (303, "cudaErrorSharedObjectInitFailed", "CUDA_ERROR_SHARED_OBJECT_INIT_FAILED"),
    (304, "cudaErrorOperatingSystem", "CUDA_ERROR_OPERATING_SYSTEM"),
    (400, "cudaErrorInvalidResourceHandle", "CUDA_ERROR_INVALID_HANDLE"),
    (401, "cudaErrorIllegalState", "CUDA_ERROR_ILLEGAL_STATE"),
    (500, "cudaErrorSymbolNotFound", "CUDA_ERROR_NOT_FOUND"),
    (600, "cudaErrorNotReady", "CUDA_ERROR_NOT_READY"),
    (700, "cudaErrorIllegalAddress", "CUDA_ERROR_ILLEGAL_ADDRESS"),
    (701, "cudaErrorLaunchOutOfResources", "CUDA_ERROR_LAUNCH_OUT_OF_RESOURCES"),
    (702, "cudaErrorLaunchTimeout", "CUDA_ERROR_LAUNCH_TIMEOUT"),
    (704, "cudaErrorPeerAccessAlreadyEnabled", "CUDA_ERROR_PEER_ACCESS_ALREADY_ENABLED"),
    (705, "cudaErrorPeerAccessNotEnabled", "CUDA_ERROR_PEER_ACCESS_NOT_ENABLED"),
    (708, "cudaErrorSetOnActiveProcess", "CUDA_ERROR_PRIMARY_CONTEXT_ACTIVE"),
    (709, "cudaErrorContextIsDestroyed", "CUDA_ERROR_CONTEXT_IS_DESTROYED"),
    (710, "cudaErrorAssert", "CUDA_ERROR_ASSERT"),
    (711, "cudaErrorTooManyPeers", "CUDA_ERROR_TOO_MANY_PEERS"),
    (712, "cudaErrorHostMemoryAlreadyRegistered", "CUDA_ERROR_HOST_MEMORY_ALREADY_REGISTERED"),
    (713, "cudaErrorHostMemoryNotRegistered", "CUDA_ERROR_HOST_MEMORY_NOT_REGISTERED"),
    (714, "cudaErrorHardwareStackError", "CUDA_ERROR_HARDWARE_STACK_ERROR"),
    (715, "cudaErrorIllegalInstruction", "CUDA_ERROR_ILLEGAL_INSTRUCTION"),
    (716, "cudaErrorMisalignedAddress", "CUDA_ERROR_MISALIGNED_ADDRESS"),
    (717, "cudaErrorInvalidAddressSpace", "CUDA_ERROR_INVALID_ADDRESS_SPACE"),
    (718, "cudaErrorInvalidPc", "CUDA_ERROR_INVALID_PC"),
    (719, "cudaErrorLaunchFailure", "CUDA_ERROR_LAUNCH_FAILED"),
    (720, "cudaErrorCooperativeLaunchTooLarge", "CUDA_ERROR_COOPERATIVE_LAUNCH_TOO_LARGE"),
    (800, "cudaErrorNotPermitted", "CUDA_ERROR_NOT_PERMITTED"),
    (801, "cudaErrorNotSupported", "CUDA_ERROR_NOT_SUPPORTED"),
    (802, "cudaErrorSystemNotReady", "CUDA_ERROR_SYSTEM_NOT_READY"),
    (803, "cudaErrorSystemDriverMismatch", "CUDA_ERROR_SYSTEM_DRIVER_MISMATCH"),
    (900, "cudaErrorStreamCaptureUnsupported", "CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED"),
    (901, "cudaErrorStreamCaptureInvalidated", "CUDA_ERROR_STREAM_CAPTURE_INVALIDATED"),
    (902, "cudaErrorStreamCaptureMerge", "CUDA_ERROR_STREAM_CAPTURE_MERGE"),
    (903, "cudaErrorStreamCaptureUnmatched", "CUDA_ERROR_STREAM_CAPTURE_UNMATCHED"),
    (904, "cudaErrorStreamCaptureUnjoined", "CUDA_ERROR_STREAM_CAPTURE_UNJOINED"),
    (905, "cudaErrorStreamCaptureIsolation", "CUDA_ERROR_STREAM_CAPTURE_ISOLATION"),
    (906, "cudaErrorStreamCaptureImplicit", "CUDA_ERROR_STREAM_CAPTURE_IMPLICIT"),
    (907, "cudaErrorCapturedEvent", "CUDA_ERROR_CAPTURED_EVENT"),
    (908, "cudaErrorStreamCaptureWrongThread", "CUDA_ERROR_STREAM_CAPTURE_WRONG_THREAD"),
    (909, "cudaErrorTimeout", "CUDA_ERROR_TIMEOUT"),
    (910, "cudaErrorGraphExecUpdateFailure", "CUDA_ERROR_GRAPH_EXEC_UPDATE_FAILURE"),
    (911, "cudaErrorExternalDevice", "CUDA_ERROR_EXTERNAL_DEVICE"),
    (999, "cudaErrorUnknown", "CUDA_ERROR_UNKNOWN"),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_layer_has_its_own_names() {
        assert_eq!(name(Layer::Runtime, 2), "cudaErrorMemoryAllocation");
        assert_eq!(name(Layer::Driver, 2), "CUDA_ERROR_OUT_OF_MEMORY");
        assert_eq!(name(Layer::Nccl, 2), "ncclSystemError");
        assert_eq!(name(Layer::Driver, 9), "9", "only the runtime has this one");
        assert_eq!(name(Layer::Runtime, -5), "-5");
    }

    #[test]
    fn numbers_rise() {
        assert!(CUDA.windows(2).all(|pair| pair[0].0 < pair[1].0));
    }
}
