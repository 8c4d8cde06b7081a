// A stand-in for CUDA in the Python extension's tests: two devices whose memory is the host's, and kernels
// that the host runs before a launch returns (cuda_on_host.hpp). tests/python/cuda_on_host.py reads and sets
// what follows through the extension's symbols.
#include "../../python/src/cuda_backend.hpp"

#include <cstdio>

#include "cuda_device.hpp"

#define NORMKIT_TEST_SYMBOL extern "C" __attribute__((visibility("default")))

NORMKIT_TEST_SYMBOL int normkit_test_current_device, normkit_test_launches, normkit_test_launch_device,
    normkit_test_refuse, normkit_test_devices, normkit_test_waits;
NORMKIT_TEST_SYMBOL uintptr_t normkit_test_launch_stream;

int normkit_test_current_device = 0;
int normkit_test_devices = 2;
int normkit_test_launches = 0;
int normkit_test_waits = 0;
int normkit_test_launch_device = -1;  // of the last launch
uintptr_t normkit_test_launch_stream = 0;
int normkit_test_refuse = 0;  // launches fail

namespace normkit::python::cuda_backend {

const char* architectures() noexcept {
  return "host";
}

int device_count() noexcept {
  return normkit_test_devices;
}

bool device_properties(int device, DeviceProperties* properties) noexcept {
  if (device < 0 || device >= normkit_test_devices) return false;
  std::snprintf(properties->name, sizeof properties->name, "Host in a device's place %d", device);
  properties->major = 9;
  properties->minor = device;
  properties->memory_bytes = size_t(3) << 30;
  properties->multiprocessors = 7;
  properties->l2_bytes = size_t(5) << 20;
  return true;
}

int current_device() noexcept {
  return normkit_test_current_device;
}

bool set_current_device(int device) noexcept {
  if (device >= normkit_test_devices) return false;
  normkit_test_current_device = device;
  return true;
}

size_t workspace_bytes(const Plan& plan) noexcept {
  return cuda::workspace_bytes(plan);
}

Status execute(const Plan& plan, Workspace workspace, uintptr_t stream) noexcept {
  if (normkit_test_refuse != 0) return Status::kDeviceError;
  ++normkit_test_launches;
  normkit_test_launch_device = normkit_test_current_device;
  normkit_test_launch_stream = stream;
  return cuda::execute(plan, workspace, nullptr);
}

bool synchronize(uintptr_t) noexcept {
  ++normkit_test_waits;
  return true;
}

const char* last_error() noexcept {
  return normkit_test_refuse != 0 ? "out of fibers" : "invalid device ordinal";
}

}  // namespace normkit::python::cuda_backend
