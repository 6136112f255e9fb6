// A CUDA program for nvcc: launches kernels of every kind that is named differently, an exactly known number of
// times. In: flags (see usage). Out: lines of JSON as from calls.c: whom it waits for, then the calls it made by name.
// Absent: checks of results; without a driver every call fails and still counts.
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <dlfcn.h>
#include <thread>
#include <unistd.h>
#include <vector>
#include <cuda_runtime.h>

static const char usage[] =
    "usage: kernels [options]\n"
    "  --threads N   threads that make the calls (1)\n"
    "  --times K     rounds of each thread (1)\n"
    "  --before      one round before it waits for the start\n"
    "  --driver      each round also calls libcuda itself, right after a launch through the runtime\n";

__global__ void plain(float *x) { x[threadIdx.x] += 1; }
static __global__ void internal(float *x) { x[threadIdx.x] -= 1; }
extern "C" __global__ void c_linkage(float *x) { x[threadIdx.x] *= 2; }
template <typename T> __global__ void scale(T *x, T by) { x[threadIdx.x] *= by; }
template <int Width> __global__ void tile(float *x) { x[threadIdx.x % Width] = Width; }
namespace {
__global__ void anonymous(float *x) { x[0] = 0; }
} // namespace
namespace outer {
namespace inner {
__global__ void nested(float *x) { x[0] = 1; }
} // namespace inner
} // namespace outer
struct Add {
    __device__ float operator()(float x) const { return x + 3; }
};
template <typename F> __global__ void apply(F f, float *x) { x[threadIdx.x] = f(x[threadIdx.x]); }
__global__ void by_pointer(float *x) { x[0] = 2; }
__global__ void extended(float *x) { x[0] = 4; }

// What one round makes, by function of the runtime.
enum { LAUNCHES = 10, EXC_LAUNCHES = 1 };

typedef int (*driver_launch)(void *, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, void *,
                             void **, void **);
static driver_launch driver;

static void round(cudaStream_t stream) {
    static float *const nothing = nullptr;
    plain<<<1, 32, 0, stream>>>(nothing);
    // The call must not be taken for the driver's half of the launch before it.
    if (driver)
        driver(nullptr, 1, 1, 1, 1, 1, 1, 0, stream, nullptr, nullptr);
    internal<<<1, 32, 0, stream>>>(nothing);
    c_linkage<<<2, 32, 0, stream>>>(nothing);
    scale<float><<<1, 32, 0, stream>>>(nothing, 2.0f);
    scale<double><<<1, 32, 0, stream>>>(nullptr, 2.0);
    tile<64><<<1, 64, 0, stream>>>(nothing);
    anonymous<<<1, 1, 0, stream>>>(nothing);
    outer::inner::nested<<<1, 1, 0, stream>>>(nothing);
    apply<<<1, 32, 0, stream>>>(Add{}, nothing);
    float *argument = nothing;
    void *arguments[] = {&argument};
    cudaLaunchKernel(reinterpret_cast<const void *>(by_pointer), dim3(1), dim3(1), arguments, 0, stream);
    cudaLaunchConfig_t config = {};
    config.gridDim = dim3(1);
    config.blockDim = dim3(1);
    config.stream = stream;
    cudaLaunchKernelExC(&config, reinterpret_cast<const void *>(extended), arguments);
    static char host[256];
    cudaMemcpyAsync(host, host, sizeof host, cudaMemcpyHostToHost, stream);
    cudaStreamSynchronize(stream);
}

static void wait_before(const char *what) {
    printf("{\"waiting\":\"%s\",\"pid\":%d}\n", what, getpid());
    fflush(stdout);
    for (int c = getchar(); c != '\n' && c != EOF;)
        c = getchar();
}

int main(int argc, char **argv) {
    int threads = 1, times = 1;
    bool before = false;
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--before") == 0) {
            before = true;
        } else if (strcmp(argv[i], "--driver") == 0) {
            void *library = dlopen("libcuda.so.1", RTLD_NOW);
            driver = library ? (driver_launch)dlsym(library, "cuLaunchKernel") : nullptr;
            if (!driver) {
                fputs("kernels: libcuda.so.1 has no cuLaunchKernel or cannot be loaded\n", stderr);
                return 1;
            }
        } else if (strcmp(argv[i], "--threads") == 0 && i + 1 < argc) {
            threads = atoi(argv[++i]);
        } else if (strcmp(argv[i], "--times") == 0 && i + 1 < argc) {
            times = atoi(argv[++i]);
        } else {
            fputs(usage, stderr);
            return 2;
        }
    }
    if (before)
        round(nullptr);
    wait_before("start");
    std::vector<std::thread> workers;
    for (int i = 0; i < threads; i++)
        workers.emplace_back([times] {
            for (int j = 0; j < times; j++)
                round(nullptr);
        });
    for (std::thread &worker : workers)
        worker.join();
    long rounds = (long)threads * times;
    printf("{\"pid\":%d,\"calls\":{\"cudaLaunchKernel\":%ld,\"cudaLaunchKernelExC\":%ld,\"cudaMemcpyAsync\":%ld,"
           "\"cudaStreamSynchronize\":%ld",
           getpid(), rounds * LAUNCHES, rounds * EXC_LAUNCHES, rounds, rounds);
    if (driver)
        printf(",\"cuLaunchKernel\":%ld", rounds);
    puts("}}");
    fflush(stdout);
    wait_before("end");
}
