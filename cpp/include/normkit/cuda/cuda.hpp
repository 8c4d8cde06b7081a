// The CUDA backend: the operations of normkit.hpp on arrays in device memory, with the CPU's bits.
//
// normkit::cuda::layer_norm(shape, args, workspace, stream) and its kin take the shapes and arguments of
// normkit::layer_norm, with device pointers (sizes and strides stay in host memory). The call enqueues
// kernels on the stream and returns: it neither allocates nor synchronizes, and may be captured into a graph.
// The workspace is device memory of at least *_workspace_bytes(shape, args); it and the arrays must live
// until the kernels have run. The stream's device must be the calling thread's current one, also when the
// size of the workspace is asked for: it depends on the device. Any Plan of these operations may be enqueued
// by itself: execute(plan, ...).
//
// Rows, sets, checks and formulas are those of the CPU: the plan is the same, and another backend runs it.
// Build: CMake option NORMKIT_CUDA, target normkit::cuda.
#ifndef NORMKIT_CUDA_CUDA_HPP_
#define NORMKIT_CUDA_CUDA_HPP_

#pragma push_macro("Status")  // X11 has one
#undef Status

#include "normkit/normkit.hpp"

struct CUstream_st;

namespace normkit {
namespace cuda {

// cudaStream_t; nullptr is the default stream.
using Stream = CUstream_st*;

// Device memory that `plan` needs; 0 for plans without kernels.
NORMKIT_EXPORT size_t workspace_bytes(const Plan& plan) noexcept;

// Enqueues the plan. kUnsupported: the operation has no CUDA kernels. kWorkspaceTooSmall: nothing was
// enqueued. kDeviceError: a launch failed, others before it may run; cudaGetLastError() says why.
[[nodiscard]] NORMKIT_EXPORT Status execute(const Plan& plan, Workspace workspace, Stream stream) noexcept;

// For plans that this backend runs: scratch is lent when they do.
NORMKIT_INLINE Workspace lent_later() noexcept {
  return {reinterpret_cast<void*>(uintptr_t(64)), SIZE_MAX};
}

#define NORMKIT_DEFINE_CUDA_OPERATION(name, Shape, Args)                                           \
  inline size_t name##_workspace_bytes(const Shape& shape, const Args& args) noexcept {            \
    Plan plan;                                                                                     \
    const Status status = normkit::name##_plan(shape, args, lent_later(), &plan);                  \
    return status == Status::kOk ? workspace_bytes(plan) : 0;                                      \
  }                                                                                                \
  [[nodiscard]] inline Status name(const Shape& shape, const Args& args, Workspace workspace = {}, \
                                   Stream stream = nullptr) noexcept {                             \
    Plan plan;                                                                                     \
    const Status status = normkit::name##_plan(shape, args, lent_later(), &plan);                  \
    return status == Status::kOk ? execute(plan, workspace, stream) : status;                      \
  }

NORMKIT_BEGIN_ENTRY_POINTS
NORMKIT_BEGIN_CALLS
NORMKIT_DEFINE_CUDA_OPERATION(layer_norm, RowsShape, LayerNormArgs)
NORMKIT_DEFINE_CUDA_OPERATION(layer_norm_backward, RowsShape, LayerNormBackwardArgs)
NORMKIT_DEFINE_CUDA_OPERATION(rms_norm, RowsShape, RmsNormArgs)
NORMKIT_DEFINE_CUDA_OPERATION(rms_norm_backward, RowsShape, RmsNormBackwardArgs)
NORMKIT_DEFINE_CUDA_OPERATION(add_layer_norm, RowsShape, AddLayerNormArgs)
NORMKIT_DEFINE_CUDA_OPERATION(add_layer_norm_backward, RowsShape, AddLayerNormBackwardArgs)
NORMKIT_DEFINE_CUDA_OPERATION(add_rms_norm, RowsShape, AddRmsNormArgs)
NORMKIT_DEFINE_CUDA_OPERATION(add_rms_norm_backward, RowsShape, AddRmsNormBackwardArgs)
NORMKIT_DEFINE_CUDA_OPERATION(batch_norm, ChannelsShape, BatchNormArgs)
NORMKIT_DEFINE_CUDA_OPERATION(batch_norm_backward, ChannelsShape, BatchNormBackwardArgs)
NORMKIT_DEFINE_CUDA_OPERATION(instance_norm, ChannelsShape, InstanceNormArgs)
NORMKIT_DEFINE_CUDA_OPERATION(instance_norm_backward, ChannelsShape, InstanceNormBackwardArgs)
NORMKIT_DEFINE_CUDA_OPERATION(group_norm, ChannelsShape, GroupNormArgs)
NORMKIT_DEFINE_CUDA_OPERATION(group_norm_backward, ChannelsShape, GroupNormBackwardArgs)
NORMKIT_DEFINE_CUDA_OPERATION(norm, SetsShape, NormArgs)
NORMKIT_DEFINE_CUDA_OPERATION(norm_backward, SetsShape, NormBackwardArgs)
NORMKIT_END_CALLS
NORMKIT_END_ENTRY_POINTS

#undef NORMKIT_DEFINE_CUDA_OPERATION

}  // namespace cuda
}  // namespace normkit

#pragma pop_macro("Status")

#endif  // NORMKIT_CUDA_CUDA_HPP_
