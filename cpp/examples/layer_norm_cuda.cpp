// LayerNorm in device memory: the arguments of normkit::layer_norm, device pointers, a stream.
// Build: CMake with -DNORMKIT_CUDA=ON, target normkit::cuda.
#include <cuda_runtime.h>
#include <normkit/cuda/cuda.hpp>

#include <cstdio>
#include <vector>

int main() {
  int devices = 0;
  if (cudaGetDeviceCount(&devices) != cudaSuccess || devices == 0) {
    std::printf("no CUDA device: nothing to show\n");
    return 0;
  }
  const int64_t size[] = {512, 768};  // one outer axis: rows; one inner axis: normalized together
  std::vector<float> x(512 * 768), y(x.size()), on_cpu(x.size());
  for (size_t i = 0; i < x.size(); ++i) x[i] = 1e4f + static_cast<float>(i * 7919 % 1000) * 1e-3f;

  const size_t bytes = x.size() * sizeof(float);
  float *device_x = nullptr, *device_y = nullptr;
  if (cudaMalloc(&device_x, bytes) != cudaSuccess || cudaMalloc(&device_y, bytes) != cudaSuccess) return 1;
  cudaMemcpy(device_x, x.data(), bytes, cudaMemcpyHostToDevice);

  normkit::LayerNormArgs args;
  args.x = device_x;
  args.y = device_y;
  normkit::Workspace workspace;  // most calls need none
  workspace.bytes = normkit::cuda::layer_norm_workspace_bytes({1, 1, size}, args);
  if (workspace.bytes > 0 && cudaMalloc(&workspace.data, workspace.bytes) != cudaSuccess) return 1;
  const normkit::Status status = normkit::cuda::layer_norm({1, 1, size}, args, workspace, nullptr);
  if (status != normkit::Status::kOk) {
    std::printf("%s\n", normkit::status_message(status));
    return 1;
  }
  cudaMemcpy(y.data(), device_y, bytes, cudaMemcpyDeviceToHost);

  args.x = x.data();
  args.y = on_cpu.data();
  if (normkit::layer_norm({1, 1, size}, args) != normkit::Status::kOk) return 1;
  const bool same = y == on_cpu;
  std::printf("%s\n", same ? "the CPU's bits" : "other bits than the CPU's");
  cudaFree(device_x);
  cudaFree(device_y);
  cudaFree(workspace.data);
  return same ? 0 : 1;
}
