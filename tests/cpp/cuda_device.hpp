// The device that tests of the CUDA backend run on: the host in its place (cuda_on_host.hpp), or, linked with
// normkit::cuda, the real one. There every array lies in memory that both reach: operator new is replaced.
#ifndef NORMKIT_TESTS_CUDA_DEVICE_HPP_
#define NORMKIT_TESTS_CUDA_DEVICE_HPP_

#include <cstdio>
#include <cstdlib>
#include <new>
#include <vector>

#if defined(NORMKIT_TEST_ON_DEVICE)
#  include <cuda_runtime.h>

#  include "normkit/cuda/cuda.hpp"

inline void* managed(size_t size) {
  // One piece for the whole run: its pages move as a device touches them, and nothing is given back.
  constexpr size_t kArena = size_t(4) << 30;
  static char* arena = nullptr;
  static size_t used = 0;
  if (arena == nullptr && cudaMallocManaged(&arena, kArena) != cudaSuccess) {
    std::fputs("no CUDA device to test on\n", stderr);
    std::_Exit(77);
  }
  used = (used + 255) / 256 * 256;
  if (size > kArena - used) std::abort();
  used += size;
  return arena + used - size;
}
void* operator new(size_t size) {
  return managed(size);
}
void operator delete(void*) noexcept {}
void operator delete(void*, size_t) noexcept {}

namespace tests {
inline normkit::Status on_device(const normkit::Plan& plan, normkit::Workspace workspace) {
  const normkit::Status status = normkit::cuda::execute(plan, workspace, nullptr);
  if (cudaDeviceSynchronize() != cudaSuccess) std::abort();
  return status;
}
inline size_t bytes_on_device(const normkit::Plan& plan) {
  return normkit::cuda::workspace_bytes(plan);
}
// A real device is as it is.
struct Limits {
  int64_t memory = 0, slots = 0, few_rows = 0;
};
struct Limited {
  explicit Limited(Limits) {}
  static constexpr bool kIsLimited = false;
};
inline void run_threads_backwards(bool) {}
}  // namespace tests

#else
#  include "cuda_on_host.hpp"
// The unit of every element type in one.
#  define NORMKIT_CUDA_TYPE float
#  define NORMKIT_CUDA_RUN run_plan_f32
#  include "../../cpp/src/cuda/kernels.inl"
#  undef NORMKIT_CUDA_TYPE
#  undef NORMKIT_CUDA_RUN
#  define NORMKIT_CUDA_TYPE double
#  define NORMKIT_CUDA_RUN run_plan_f64
#  include "../../cpp/src/cuda/kernels.inl"
#  undef NORMKIT_CUDA_TYPE
#  undef NORMKIT_CUDA_RUN
#  define NORMKIT_CUDA_TYPE Float16
#  define NORMKIT_CUDA_RUN run_plan_f16
#  include "../../cpp/src/cuda/kernels.inl"
#  undef NORMKIT_CUDA_TYPE
#  undef NORMKIT_CUDA_RUN
#  define NORMKIT_CUDA_TYPE BFloat16
#  define NORMKIT_CUDA_RUN run_plan_bf16
#  include "../../cpp/src/cuda/kernels.inl"
#  undef NORMKIT_CUDA_TYPE
#  undef NORMKIT_CUDA_RUN
#  include "../../cpp/src/cuda/execute.cpp"

namespace tests {
inline normkit::Status on_device(const normkit::Plan& plan, normkit::Workspace workspace) {
  return normkit::cuda::execute(plan, workspace, nullptr);
}
inline size_t bytes_on_device(const normkit::Plan& plan) {
  return normkit::cuda::workspace_bytes(plan);
}
// While it lives, there is so much shared memory, sums of tiles are chained from so many numbers on, short
// rows packed above so many: takes the ways that a real device takes for larger arrays.
using on_host::Limits;
class Limited {
 public:
  static constexpr bool kIsLimited = true;
  explicit Limited(const Limits& limits) : before_(on_host::limits) { on_host::limits = limits; }
  Limited(const Limited&) = delete;
  ~Limited() { on_host::limits = before_; }

 private:
  Limits before_;
};
inline void run_threads_backwards(bool backwards) {
  on_host::block().backwards = backwards;
}
}  // namespace tests
#endif

namespace tests {

// Scratch of exactly the size that was asked for, with a guard behind it.
inline normkit::Status on_device(const normkit::Plan& plan) {
  const size_t bytes = bytes_on_device(plan), guard = 64;
  std::vector<unsigned char> scratch(bytes + guard, 0xA5);
  const normkit::Status status = on_device(plan, {scratch.data(), bytes});
  for (size_t i = bytes; i < bytes + guard; ++i)
    if (scratch[i] != 0xA5) std::abort();
  return status;
}

}  // namespace tests

#endif  // NORMKIT_TESTS_CUDA_DEVICE_HPP_
