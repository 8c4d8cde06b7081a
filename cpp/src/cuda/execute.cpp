// The entry points: each plan to the unit of its element type.
#include "kernels.hpp"

namespace normkit {
namespace cuda {
namespace {

Status run(const Plan& plan, Workspace workspace, Stream stream, size_t* bytes) {
  switch (plan.elements) {
    case DType::kF32:
      return run_plan_f32(plan, workspace, stream, bytes);
    case DType::kF64:
      return run_plan_f64(plan, workspace, stream, bytes);
    case DType::kF16:
      return run_plan_f16(plan, workspace, stream, bytes);
    case DType::kBF16:
      return run_plan_bf16(plan, workspace, stream, bytes);
  }
  return Status::kUnsupported;
}

}  // namespace

size_t workspace_bytes(const Plan& plan) noexcept {
  size_t bytes = 0;
  if (plan.phase_count > 0) (void)run(plan, {}, nullptr, &bytes);
  return bytes;
}

Status execute(const Plan& plan, Workspace workspace, Stream stream) noexcept {
  return plan.phase_count == 0 ? Status::kOk : run(plan, workspace, stream, nullptr);
}

}  // namespace cuda
}  // namespace normkit
