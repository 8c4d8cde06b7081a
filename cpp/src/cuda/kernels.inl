// Included by one small unit per element type, which defines NORMKIT_CUDA_TYPE, NORMKIT_CUDA_RUN and, for
// nvcc, a NORMKIT_ISA of its own.
#include "kernels.hpp"
#include "normkit/cuda/schedule.cuh"

namespace normkit {
namespace cuda {

Status NORMKIT_CUDA_RUN(const Plan& plan, Workspace workspace, Stream stream, size_t* bytes) {
  using detail::gpu::Launcher;
  Launcher rehearsal = Launcher::rehearsal();
  if (!detail::gpu::run_plan<NORMKIT_CUDA_TYPE>(rehearsal, plan)) return Status::kUnsupported;
  if (bytes != nullptr) {
    *bytes = rehearsal.bytes();
    return Status::kOk;
  }
  if (rehearsal.bytes() > 0 && (workspace.data == nullptr || workspace.bytes < rehearsal.bytes()))
    return Status::kWorkspaceTooSmall;
  Launcher launcher(workspace, stream);
  (void)detail::gpu::run_plan<NORMKIT_CUDA_TYPE>(launcher, plan);
  return launcher.status();
}

}  // namespace cuda
}  // namespace normkit
