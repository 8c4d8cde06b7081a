// The answers of the CUDA runtime. Where a question fails, its error is taken back at once, so that it is not
// found by a later launch; that of set_current_device, synchronize and launches is what last_error() tells.
#include "cuda_backend.hpp"

#include <cuda_runtime_api.h>

#include <cstring>

#include "normkit/cuda/cuda.hpp"

namespace normkit::python::cuda_backend {
namespace {

bool succeeded(cudaError_t status) {
  if (status == cudaSuccess) return true;
  (void)cudaGetLastError();
  return false;
}

}  // namespace

const char* architectures() noexcept {
  return NORMKIT_CUDA_ARCHITECTURES;
}

int device_count() noexcept {
  int count = 0;
  return succeeded(cudaGetDeviceCount(&count)) ? count : 0;
}

bool device_properties(int device, DeviceProperties* properties) noexcept {
  cudaDeviceProp found;
  if (!succeeded(cudaGetDeviceProperties(&found, device))) return false;
  static_assert(sizeof properties->name == sizeof found.name);
  std::memcpy(properties->name, found.name, sizeof found.name);
  properties->major = found.major;
  properties->minor = found.minor;
  properties->memory_bytes = found.totalGlobalMem;
  properties->multiprocessors = found.multiProcessorCount;
  properties->l2_bytes = static_cast<size_t>(found.l2CacheSize);
  return true;
}

int current_device() noexcept {
  int device = -1;
  return succeeded(cudaGetDevice(&device)) ? device : -1;
}

bool set_current_device(int device) noexcept {
  return cudaSetDevice(device) == cudaSuccess;
}

size_t workspace_bytes(const Plan& plan) noexcept {
  return cuda::workspace_bytes(plan);
}

Status execute(const Plan& plan, Workspace workspace, uintptr_t stream) noexcept {
  return cuda::execute(plan, workspace, reinterpret_cast<cuda::Stream>(stream));
}

bool synchronize(uintptr_t stream) noexcept {
  return cudaStreamSynchronize(reinterpret_cast<cudaStream_t>(stream)) == cudaSuccess;
}

const char* last_error() noexcept {
  return cudaGetErrorString(cudaGetLastError());
}

}  // namespace normkit::python::cuda_backend
