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

  // The dynamic shared memory that a thread block can have on the current device.
  static inline size_t shared_memory() {
#if defined(__CUDACC__)
    int device = 0, bytes = 0;
    if (cudaGetDevice(&device) == cudaSuccess &&
        cudaDeviceGetAttribute(&bytes, cudaDevAttrMaxSharedMemoryPerBlockOptin, device) == cudaSuccess)
      return static_cast<size_t>(bytes);
    (void)cudaGetLastError();  // not an error of the caller's
    return kPlainMemory;
#else
    return on_host::shared_memory;
#endif
  }

  // Thread blocks of `threads` for `tasks`, `each` of them to a block; kernels loop where that is too many.
  template <typename... Parameters, typename... Arguments>
  inline void run(void (*kernel)(Parameters...), int64_t tasks, int64_t each, int threads,
                  const Arguments&... arguments) {
    run_with_memory(kernel, tasks, each, threads, 0, arguments...);
  }
  // The same with `bytes` of dynamic shared memory, of a kernel that has no other.
  template <typename... Parameters, typename... Arguments>
  inline void run_with_memory(void (*kernel)(Parameters...), int64_t tasks, int64_t each, int threads,
                              size_t bytes, const Arguments&... arguments) {
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
    config.dynamicSmemBytes = bytes;
    config.stream = stream_;
    if (cudaLaunchKernelEx(&config, kernel, arguments...) != cudaSuccess) status_ = Status::kDeviceError;
#else
    on_host::launch(kernel, grid, static_cast<unsigned>(threads), bytes, arguments...);
#endif
  }

 private:
  static constexpr size_t kAlignment = 256;
  static constexpr int64_t kMaxGrid = 0x7FFFFFFF;
  static constexpr size_t kPlainMemory = 48 * 1024;  // what kernels get without asking for more

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
