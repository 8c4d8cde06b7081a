// InstanceNorm (Ulyanov, Vedaldi, Lempitsky 2016, arXiv:1607.08022), forward and backward.
//
//   y  = (x - mean) rstd weight + bias,   rstd = 1 / sqrt(var + eps)
//   mean and biased var over each channel of each sample
//   dx = ((g - sum(g)/n) - xhat sum(g xhat)/n) rstd,   g = dy weight,   xhat = (x - mean) rstd
//   dweight = sum of dy xhat over the channel,   dbias = sum of dy
//
// Running statistics average those of the samples.
#ifndef NORMKIT_INSTANCE_NORM_HPP_
#define NORMKIT_INSTANCE_NORM_HPP_

#pragma push_macro("Status")  // X11 has one
#undef Status

#include "normkit/channels.hpp"

namespace normkit {

struct InstanceNormArgs : SetNormArgs {
  NORMKIT_DEFAULT_CONSTRUCTOR(InstanceNormArgs)
};
struct InstanceNormBackwardArgs : SetNormBackwardArgs {
  NORMKIT_DEFAULT_CONSTRUCTOR(InstanceNormBackwardArgs)
};

NORMKIT_BEGIN_ENTRY_POINTS
NORMKIT_DECLARE_OPERATION(instance_norm, ChannelsShape, InstanceNormArgs)
NORMKIT_DECLARE_OPERATION(instance_norm_backward, ChannelsShape, InstanceNormBackwardArgs)
NORMKIT_END_ENTRY_POINTS

}  // namespace normkit

#if !defined(NORMKIT_COMPILED)
#  include "normkit/detail/channels_plan.hpp"

namespace normkit {
NORMKIT_BEGIN_ENTRY_POINTS

inline size_t instance_norm_workspace_bytes(const ChannelsShape& shape,
                                            const InstanceNormArgs& args) noexcept {
  return detail::sets_forward_bytes(detail::kChannelKind, detail::instance_sets(shape), args);
}

inline Status instance_norm_plan(const ChannelsShape& shape, const InstanceNormArgs& args,
                                 Workspace workspace, Plan* plan) noexcept {
  return detail::sets_forward_plan(detail::kChannelKind, detail::instance_sets(shape), args, workspace, plan);
}

inline size_t instance_norm_backward_workspace_bytes(const ChannelsShape& shape,
                                                     const InstanceNormBackwardArgs& args) noexcept {
  return detail::sets_backward_bytes(detail::kChannelKind, detail::instance_sets(shape), args);
}

inline Status instance_norm_backward_plan(const ChannelsShape& shape, const InstanceNormBackwardArgs& args,
                                          Workspace workspace, Plan* plan) noexcept {
  return detail::sets_backward_plan(detail::kChannelKind, detail::instance_sets(shape), args, workspace,
                                    plan);
}

NORMKIT_END_ENTRY_POINTS
}  // namespace normkit
#endif

#pragma pop_macro("Status")

#endif  // NORMKIT_INSTANCE_NORM_HPP_
