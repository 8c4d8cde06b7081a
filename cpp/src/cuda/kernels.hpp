// One unit for each element type; each exports one function.
#ifndef NORMKIT_SRC_CUDA_KERNELS_HPP_
#define NORMKIT_SRC_CUDA_KERNELS_HPP_

#include "normkit/cuda/cuda.hpp"

namespace normkit {
namespace cuda {

// Enqueues the plan, or, with bytes != nullptr, only counts the workspace that it needs.
using RunPlan = Status(const Plan& plan, Workspace workspace, Stream stream, size_t* bytes);
RunPlan run_plan_f32, run_plan_f64, run_plan_f16, run_plan_bf16;

}  // namespace cuda
}  // namespace normkit

#endif  // NORMKIT_SRC_CUDA_KERNELS_HPP_
