// BatchNorm (Ioffe, Szegedy 2015, arXiv:1502.03167), forward and backward, training and inference.
//
//   y  = (x - mean) rstd weight + bias,   rstd = 1 / sqrt(var + eps)
//   mean and biased var over each channel: all samples, all of space
//   dx = ((g - sum(g)/n) - xhat sum(g xhat)/n) rstd,   g = dy weight,   xhat = (x - mean) rstd
//   dweight = sum of dy xhat over the channel,   dbias = sum of dy
//
// Inference gives running statistics as given_mean and given_var: nothing is computed from x then.
#ifndef NORMKIT_BATCH_NORM_HPP_
#define NORMKIT_BATCH_NORM_HPP_

#pragma push_macro("Status")  // X11 has one
#undef Status

#include "normkit/channels.hpp"

namespace normkit {

struct BatchNormArgs : SetNormArgs {
  NORMKIT_DEFAULT_CONSTRUCTOR(BatchNormArgs)
};
struct BatchNormBackwardArgs : SetNormBackwardArgs {
  NORMKIT_DEFAULT_CONSTRUCTOR(BatchNormBackwardArgs)
};

NORMKIT_BEGIN_ENTRY_POINTS
NORMKIT_DECLARE_OPERATION(batch_norm, ChannelsShape, BatchNormArgs)
NORMKIT_DECLARE_OPERATION(batch_norm_backward, ChannelsShape, BatchNormBackwardArgs)
NORMKIT_END_ENTRY_POINTS

}  // namespace normkit

#if !defined(NORMKIT_COMPILED)
#  include "normkit/detail/channels_plan.hpp"

namespace normkit {
NORMKIT_BEGIN_ENTRY_POINTS

inline size_t batch_norm_workspace_bytes(const ChannelsShape& shape, const BatchNormArgs& args) noexcept {
  return detail::sets_forward_bytes(detail::kChannelKind, detail::batch_sets(shape), args);
}

inline Status batch_norm_plan(const ChannelsShape& shape, const BatchNormArgs& args, Workspace workspace,
                              Plan* plan) noexcept {
  return detail::sets_forward_plan(detail::kChannelKind, detail::batch_sets(shape), args, workspace, plan);
}

inline size_t batch_norm_backward_workspace_bytes(const ChannelsShape& shape,
                                                  const BatchNormBackwardArgs& args) noexcept {
  return detail::sets_backward_bytes(detail::kChannelKind, detail::batch_sets(shape), args);
}

inline Status batch_norm_backward_plan(const ChannelsShape& shape, const BatchNormBackwardArgs& args,
                                       Workspace workspace, Plan* plan) noexcept {
  return detail::sets_backward_plan(detail::kChannelKind, detail::batch_sets(shape), args, workspace, plan);
}

NORMKIT_END_ENTRY_POINTS
}  // namespace normkit
#endif

#pragma pop_macro("Status")

#endif  // NORMKIT_BATCH_NORM_HPP_
