// The answers of a build without CUDA.
#include "cuda_backend.hpp"

namespace normkit::python::cuda_backend {

const char* architectures() noexcept {
  return nullptr;
}

int device_count() noexcept {
  return 0;
}

bool device_properties(int, DeviceProperties*) noexcept {
  return false;
}

int current_device() noexcept {
  return -1;
}

bool set_current_device(int) noexcept {
  return false;
}

size_t workspace_bytes(const Plan&) noexcept {
  return 0;
}

Status execute(const Plan&, Workspace, uintptr_t) noexcept {
  return Status::kUnsupported;
}

bool synchronize(uintptr_t) noexcept {
  return true;
}

const char* last_error() noexcept {
  return "normkit was built without CUDA";
}

}  // namespace normkit::python::cuda_backend
