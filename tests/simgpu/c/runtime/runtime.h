// What the files of the runtime stand-in share. In: SIMGPU_CUDA, the major version being built. Out: the driver's
// functions, found once by name, and the macros of a public function. Absent: any work; the driver does it.
#pragma once
#include "../driver/cuda_abi.h"
#include "../log/log.h"

#ifndef SIMGPU_CUDA
#error "build.rs defines SIMGPU_CUDA as 12 or 13"
#endif

typedef int error_t_;
enum {
    SUCCESS = 0,
    INVALID_VALUE = 1,
    ALLOCATION = 2,
    INVALID_CONFIGURATION = 9,
    INVALID_SYMBOL = 13,
    INVALID_DIRECTION = 21,
    INSUFFICIENT_DRIVER = 35,
    MISSING_CONFIGURATION = 52,
    INVALID_DEVICE_FUNCTION = 98,
    NO_DEVICE = 100,
    INVALID_DEVICE = 101,
    NOT_SUPPORTED = 801,
};

// Every driver function that the runtime calls; the second list has a form for per-thread default streams.
#define DRIVER_PLAIN(X)                                                                                        \
    X(cuInit) X(cuDriverGetVersion) X(cuDeviceGet) X(cuDeviceGetCount) X(cuDeviceGetName) X(cuDeviceGetUuid)   \
    X(cuDeviceTotalMem_v2) X(cuDeviceGetAttribute) X(cuDeviceGetPCIBusId) X(cuDeviceGetByPCIBusId)             \
    X(cuDeviceCanAccessPeer) X(cuDeviceGetP2PAttribute) X(cuDeviceGetDefaultMemPool) X(cuDeviceGetMemPool)     \
    X(cuDeviceSetMemPool) X(cuDevicePrimaryCtxRetain) X(cuDevicePrimaryCtxReset_v2)                            \
    X(cuDevicePrimaryCtxGetState) X(cuDevicePrimaryCtxSetFlags_v2) X(cuCtxSetCurrent) X(cuCtxGetCurrent)       \
    X(cuCtxGetDevice) X(cuCtxSynchronize) X(cuCtxGetStreamPriorityRange) X(cuCtxGetLimit) X(cuCtxSetLimit)     \
    X(cuCtxResetPersistingL2Cache) X(cuCtxEnablePeerAccess) X(cuMemAlloc_v2) X(cuMemAllocManaged)              \
    X(cuMemAllocPitch_v2) X(cuMemFree_v2) X(cuMemAllocHost_v2) X(cuMemHostAlloc) X(cuMemFreeHost)              \
    X(cuMemHostRegister_v2) X(cuMemHostUnregister) X(cuMemHostGetDevicePointer_v2) X(cuMemHostGetFlags)        \
    X(cuMemGetInfo_v2) X(cuPointerGetAttributes) X(cuMemPoolCreate) X(cuMemPoolDestroy) X(cuMemPoolTrimTo)     \
    X(cuMemPoolSetAccess) X(cuMemPoolGetAccess) X(cuMemPoolGetAttribute) X(cuMemPoolSetAttribute)              \
    X(cuStreamCreateWithPriority) X(cuStreamDestroy_v2) X(cuEventCreate) X(cuEventDestroy_v2) X(cuEventQuery)  \
    X(cuEventSynchronize) X(cuEventElapsedTime_v2) X(cuThreadExchangeStreamCaptureMode) X(cuGraphCreate)       \
    X(cuGraphDestroy) X(cuGraphClone) X(cuGraphDebugDotPrint) X(cuGraphAddKernelNode_v2)                       \
    X(cuGraphAddMemcpyNode) X(cuGraphAddMemsetNode) X(cuGraphAddHostNode) X(cuGraphAddEmptyNode)               \
    X(cuGraphAddChildGraphNode) X(cuGraphAddEventRecordNode) X(cuGraphAddEventWaitNode) X(cuGraphAddNode_v2)   \
    X(cuGraphAddDependencies) X(cuGraphGetNodes) X(cuGraphGetRootNodes) X(cuGraphGetEdges)                     \
    X(cuGraphNodeGetDependencies) X(cuGraphNodeGetType) X(cuGraphChildGraphNodeGetGraph)                       \
    X(cuGraphKernelNodeGetParams_v2) X(cuGraphKernelNodeSetParams_v2) X(cuGraphInstantiateWithFlags)           \
    X(cuGraphExecDestroy) X(cuGraphExecGetFlags) X(cuGraphExecUpdate_v2) X(cuGraphExecKernelNodeSetParams_v2)  \
    X(cuGraphExecMemcpyNodeSetParams) X(cuGraphExecMemsetNodeSetParams) X(cuGraphExecHostNodeSetParams)        \
    X(cuGraphNodeSetEnabled) X(cuGraphNodeGetEnabled) X(cuUserObjectCreate) X(cuUserObjectRetain)              \
    X(cuUserObjectRelease) X(cuGraphRetainUserObject) X(cuGraphReleaseUserObject) X(cuGetProcAddress_v2)       \
    X(cuModuleLoadData) X(cuModuleGetFunction) X(cuModuleGetGlobal_v2) X(cuLibraryLoadData)                    \
    X(cuLibraryLoadFromFile) X(cuLibraryUnload) X(cuLibraryGetKernel) X(cuLibraryGetGlobal)                    \
    X(cuLibraryGetKernelCount) X(cuLibraryEnumerateKernels) X(cuFuncGetAttribute) X(cuFuncSetAttribute)        \
    X(cuFuncGetName) X(cuProfilerStart) X(cuProfilerStop) X(cuOccupancyMaxActiveBlocksPerMultiprocessorWithFlags) \
    X(cuOccupancyAvailableDynamicSMemPerBlock) X(cuArrayCreate_v2) X(cuArray3DCreate_v2) X(cuArrayDestroy)       \
    X(cuArray3DGetDescriptor_v2) X(cuLaunchCooperativeKernelMultiDevice) X(cuGraphMemcpyNodeSetParams)         \
    X(cuGraphMemsetNodeSetParams) X(cuGraphNodeFindInClone) X(cuGraphDestroyNode) X(cuGraphNodeSetParams)                 \
    X(cuGraphExecNodeSetParams) X(cuGraphExecChildGraphNodeSetParams) X(simgpu_function)           \
    X(simgpu_variable)
#define DRIVER_STREAM(X)                                                                                       \
    X(cuLaunchKernel, _ptsz) X(cuLaunchKernelEx, _ptsz) X(cuLaunchCooperativeKernel, _ptsz)                    \
    X(cuLaunchHostFunc, _ptsz) X(cuLaunchHostFunc_v2, _ptsz) X(cuStreamAddCallback, _ptsz)                     \
    X(cuMemcpy, _ptds) X(cuMemcpyHtoD_v2, _ptds) X(cuMemcpyDtoH_v2, _ptds) X(cuMemcpyDtoD_v2, _ptds)           \
    X(cuMemcpyAsync, _ptsz) X(cuMemcpyHtoDAsync_v2, _ptsz) X(cuMemcpyDtoHAsync_v2, _ptsz)                      \
    X(cuMemcpyDtoDAsync_v2, _ptsz) X(cuMemcpyPeer, _ptds) X(cuMemcpyPeerAsync, _ptsz)                          \
    X(cuMemcpy2DUnaligned_v2, _ptds) X(cuMemcpy2DAsync_v2, _ptsz) X(cuMemcpy3D_v2, _ptds)                      \
    X(cuMemcpy3DPeer, _ptds) X(cuMemcpy3DPeerAsync, _ptsz) X(cuMemcpy3DBatchAsync_v2, _ptsz)                   \
    X(cuMemcpy3DWithAttributesAsync, _ptsz) X(cuMemcpyHtoA_v2, _ptds) X(cuMemcpyDtoA_v2, _ptds)                \
    X(cuMemcpyAtoH_v2, _ptds) X(cuMemcpyAtoD_v2, _ptds) X(cuMemcpyAtoA_v2, _ptds)                              \
    X(cuMemcpyHtoAAsync_v2, _ptsz) X(cuMemcpyAtoHAsync_v2, _ptsz)                                              \
    X(cuMemcpy3DAsync_v2, _ptsz) X(cuMemcpyBatchAsync_v2, _ptsz) X(cuMemcpyWithAttributesAsync, _ptsz)         \
    X(cuMemsetD8_v2, _ptds) X(cuMemsetD8Async, _ptsz) X(cuMemsetD2D8_v2, _ptds) X(cuMemsetD2D8Async, _ptsz)    \
    X(cuMemAllocAsync, _ptsz) X(cuMemAllocFromPoolAsync, _ptsz) X(cuMemFreeAsync, _ptsz)                       \
    X(cuMemPrefetchAsync_v2, _ptsz) X(cuStreamSynchronize, _ptsz) X(cuStreamQuery, _ptsz)                      \
    X(cuStreamGetPriority, _ptsz) X(cuStreamGetFlags, _ptsz) X(cuStreamGetId, _ptsz)                           \
    X(cuStreamGetDevice, _ptsz) X(cuStreamCopyAttributes, _ptsz) X(cuStreamSetAttribute, _ptsz)                \
    X(cuStreamAttachMemAsync, _ptsz) X(cuStreamWaitEvent, _ptsz) X(cuEventRecord, _ptsz)                       \
    X(cuEventRecordWithFlags, _ptsz) X(cuStreamBeginCapture_v2, _ptsz)                                         \
    X(cuStreamBeginCaptureToGraph, _ptsz) X(cuStreamEndCapture, _ptsz) X(cuStreamIsCapturing, _ptsz)           \
    X(cuStreamGetCaptureInfo_v2, _ptsz) X(cuStreamUpdateCaptureDependencies, _ptsz)                            \
    X(cuGraphInstantiateWithParams, _ptsz) X(cuGraphLaunch, _ptsz) X(cuGraphUpload, _ptsz)

// Pointers without prototypes: arguments must have their full width (a bare 0 is not a pointer).
struct driver {
#define X(name) int (*name)();
    DRIVER_PLAIN(X)
#undef X
#define X(name, suffix) int (*name[2])();
    DRIVER_STREAM(X)
#undef X
};
extern struct driver driver;

// Loads the driver and makes a context current, once per thread. 0, or the error that every call then returns.
error_t_ ready(void);
// Loads the driver only.
error_t_ loaded(void);
// Keeps an error for cudaGetLastError and returns it.
error_t_ remember(error_t_ error);

// The driver's function of a kernel given by its host stub, its handle, or a driver handle.
void *function_of(const void *handle);
// The address of a registered device variable; NULL when nobody registered it.
char *variable_address(const void *host);
// Bytes of one element of an array, and how many stand in a row; 0 when it is none.
size_t array_unit(void *array, size_t *width);
// A context of the device, to name it to the driver; NULL for a device that is not there.
void *context_of(int device);

#define API(name, params, ...)                                                                                 \
    EXPORT error_t_ name params {                                                                              \
        COUNT(#name);                                                                                          \
        __VA_ARGS__                                                                                            \
    }
#define API2(suffix, name, params, ...)                                                                        \
    EXPORT error_t_ name params {                                                                              \
        COUNT(#name);                                                                                          \
        enum { per_thread = 0 };                                                                               \
        __VA_ARGS__                                                                                            \
    }                                                                                                          \
    EXPORT error_t_ name##suffix params {                                                                      \
        COUNT(#name #suffix);                                                                                  \
        enum { per_thread = 1 };                                                                               \
        __VA_ARGS__                                                                                            \
    }
#define READY()                                                                                                \
    do {                                                                                                       \
        error_t_ not_ready = ready();                                                                          \
        if (not_ready)                                                                                         \
            return remember(not_ready);                                                                        \
    } while (0)
// Calls the driver. The result is stored first, so the call is never the function's last act.
#define CALL(name, ...)                                                                                        \
    do {                                                                                                       \
        READY();                                                                                               \
        error_t_ outcome = driver.name(__VA_ARGS__);                                                            \
        return remember(outcome);                                                                              \
    } while (0)
#define CALL2(name, ...)                                                                                       \
    do {                                                                                                       \
        READY();                                                                                               \
        error_t_ outcome = driver.name[per_thread](__VA_ARGS__);                                                \
        return remember(outcome);                                                                              \
    } while (0)
