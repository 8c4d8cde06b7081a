// What the extension asks of CUDA. One of three files answers, by the options of the build:
//
//   cuda_backend.cpp                       NORMKIT_CUDA: the CUDA runtime and normkit::cuda
//   no_cuda.cpp                            without: there are no devices
//   tests/cpp/cuda_backend_on_host.cpp     NORMKIT_CUDA_ON_HOST: the tests' stand-in for a device
#ifndef NORMKIT_PYTHON_CUDA_BACKEND_HPP_
#define NORMKIT_PYTHON_CUDA_BACKEND_HPP_

#include <cstddef>
#include <cstdint>

#include "normkit/executor.hpp"

namespace normkit::python::cuda_backend {

struct DeviceProperties {
  char name[256];
  int major = 0, minor = 0;  // compute capability
  size_t memory_bytes = 0;
  int multiprocessors = 0;
  size_t l2_bytes = 0;
};

// CMake's list of the architectures that the kernels were compiled for; null: the build has none.
const char* architectures() noexcept;

// 0 also where there is no driver.
int device_count() noexcept;
bool device_properties(int device, DeviceProperties* properties) noexcept;

// The calling thread's.
int current_device() noexcept;
bool set_current_device(int device) noexcept;

// As normkit::cuda's, on the current device. `stream`: a cudaStream_t, or 1, the legacy default stream.
size_t workspace_bytes(const Plan& plan) noexcept;
Status execute(const Plan& plan, Workspace workspace, uintptr_t stream) noexcept;

// Waits until all that the stream has been given is done.
bool synchronize(uintptr_t stream) noexcept;

// CUDA's words for what failed last, which it forgets then.
const char* last_error() noexcept;

}  // namespace normkit::python::cuda_backend

#endif  // NORMKIT_PYTHON_CUDA_BACKEND_HPP_
