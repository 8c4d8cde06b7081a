// How kernels are started, and the scratch they share.
#ifndef NORMKIT_CUDA_LAUNCH_CUH_
#define NORMKIT_CUDA_LAUNCH_CUH_

#include "normkit/cuda/cuda.hpp"
#include "normkit/detail/config.hpp"

NORMKIT_BEGIN_NAMESPACE
namespace gpu {

// Starts kernels one behind the other on a stream, with scratch from the caller's workspace. A rehearsal
// starts nothing and counts the scratch.
class Launcher {
 public:
  static inline Launcher rehearsal() { return Launcher({}, nullptr, true); }
  inline Launcher(Workspace workspace, cuda::Stream stream) : Launcher(workspace, stream, false) {}

  inline size_t bytes() const { return used_ == 0 ? 0 : used_ + kAlignment; }
  inline Status status() const { return status_; }

  // The workspace was found large enough; only a rehearsal gets null.
  template <typename V>
  inline V* scratch(int64_t count) {
    char* begin = rehearsal_ ? nullptr : start_ + used_;
    used_ += (static_cast<size_t>(count) * sizeof(V) + kAlignment - 1) / kAlignment * kAlignment;
    return reinterpret_cast<V*>(begin);
  }

  // Zeroed by what runs on the stream.
  template <typename V>
  inline V* zeros(int64_t count) {
    V* begin = scratch<V>(count);
    if (rehearsal_ || status_ != Status::kOk) return begin;
    const size_t bytes = static_cast<size_t>(count) * sizeof(V);
#if defined(__CUDACC__)
    if (cudaMemsetAsync(begin, 0, bytes, stream_) != cudaSuccess) status_ = Status::kDeviceError;
#else
    memset(begin, 0, bytes);
#endif
    return begin;
  }

  // How much dynamic shared memory a thread block of the current device can have.
  static inline int64_t shared_memory() {
#if defined(__CUDACC__)
    int device = 0, bytes = 0;
    if (cudaGetDevice(&device) == cudaSuccess &&
        cudaDeviceGetAttribute(&bytes, cudaDevAttrMaxSharedMemoryPerBlockOptin, device) == cudaSuccess)
      return bytes - kStaticMemory;
    (void)cudaGetLastError();  // not an error of the caller's
    return kPlainMemory;
#else
    return on_host::limits.memory;
#endif
  }

  // How many numbers may be kept for a sum over rows until its end (4 MiB of floats); more are chained.
  static inline int64_t most_slots() {
#if defined(__CUDACC__)
    return int64_t(1) << 20;
#else
    return on_host::limits.slots;
#endif
  }

  // So few rows leave a device idle where a warp takes several.
  static inline int64_t few_rows() {
#if defined(__CUDACC__)
    return 4096;
#else
    return on_host::limits.few_rows;
#endif
  }

  // Thread blocks of `threads` for `tasks`, `each` of them to a block; kernels loop where that is too many.
  template <typename... Parameters, typename... Arguments>
  inline void run(void (*kernel)(Parameters...), int64_t tasks, int64_t each, int threads,
                  const Arguments&... arguments) {
    run_with_memory(0, kernel, tasks, each, threads, arguments...);
  }
  // With so many bytes of dynamic_memory().
  template <typename... Parameters, typename... Arguments>
  inline void run_with_memory(int64_t bytes, void (*kernel)(Parameters...), int64_t tasks, int64_t each,
                              int threads, const Arguments&... arguments) {
    if (rehearsal_ || tasks <= 0 || status_ != Status::kOk) return;
    const int64_t blocks = (tasks - 1) / each + 1;
    const unsigned grid = static_cast<unsigned>(blocks < kMaxGrid ? blocks : kMaxGrid);
#if defined(__CUDACC__)
    // All that there is, not `bytes`: a thread that launches a smaller one must not come in between.
    if (bytes > kPlainMemory && cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                                     static_cast<int>(shared_memory())) != cudaSuccess) {
      status_ = Status::kDeviceError;
      return;
    }
    cudaLaunchConfig_t config = {};
    config.gridDim = dim3(grid);
    config.blockDim = dim3(static_cast<unsigned>(threads));
    config.dynamicSmemBytes = static_cast<size_t>(bytes);
    config.stream = stream_;
    if (cudaLaunchKernelEx(&config, kernel, arguments...) != cudaSuccess) status_ = Status::kDeviceError;
#else
    on_host::launch(kernel, grid, static_cast<unsigned>(threads), static_cast<size_t>(bytes), arguments...);
#endif
  }

 private:
  static constexpr size_t kAlignment = 256;
  static constexpr int64_t kMaxGrid = 0x7FFFFFFF;
  // Of shared memory: what kernels have besides, at most; what they get without asking for more.
  static constexpr int64_t kStaticMemory = 2 * 1024, kPlainMemory = 48 * 1024 - kStaticMemory;

  inline Launcher(Workspace workspace, cuda::Stream stream, bool rehearsal)
      : stream_(stream), rehearsal_(rehearsal) {
    const uintptr_t begin = reinterpret_cast<uintptr_t>(workspace.data);
    start_ = reinterpret_cast<char*>((begin + kAlignment - 1) / kAlignment * kAlignment);
  }

  char* start_;
  size_t used_ = 0;
  [[maybe_unused]] cuda::Stream stream_;  // unused where the host stands in
  bool rehearsal_;
  Status status_ = Status::kOk;
};

}  // namespace gpu
NORMKIT_END_NAMESPACE

#endif  // NORMKIT_CUDA_LAUNCH_CUH_
