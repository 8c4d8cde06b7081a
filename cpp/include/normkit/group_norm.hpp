// GroupNorm (Wu, He 2018, arXiv:1803.08494), forward and backward.
//
//   y  = (x - mean) rstd weight + bias,   rstd = 1 / sqrt(var + eps)
//   mean and biased var over each group of C / groups neighbouring channels of each sample
//   dx = ((g - sum(g)/n) - xhat sum(g xhat)/n) rstd,   g = dy weight,   xhat = (x - mean) rstd
//   dweight = sum of dy xhat over the channel,   dbias = sum of dy
//
// groups = C is InstanceNorm, groups = 1 LayerNorm over channels and space. In channels-last memory mean and
// var are merged from those of the channels, in their order: bits of their own, the same for all such memory.
#ifndef NORMKIT_GROUP_NORM_HPP_
#define NORMKIT_GROUP_NORM_HPP_

#pragma push_macro("Status")  // X11 has one
#undef Status

#include "normkit/channels.hpp"

namespace normkit {

struct GroupNormArgs : SetNormArgs {
  int64_t groups = 1;  // divides C
  NORMKIT_DEFAULT_CONSTRUCTOR(GroupNormArgs)
};
struct GroupNormBackwardArgs : SetNormBackwardArgs {
  int64_t groups = 1;
  NORMKIT_DEFAULT_CONSTRUCTOR(GroupNormBackwardArgs)
};

NORMKIT_BEGIN_ENTRY_POINTS
NORMKIT_DECLARE_OPERATION(group_norm, ChannelsShape, GroupNormArgs)
NORMKIT_DECLARE_OPERATION(group_norm_backward, ChannelsShape, GroupNormBackwardArgs)
NORMKIT_END_ENTRY_POINTS

}  // namespace normkit

#if !defined(NORMKIT_COMPILED)
#  include "normkit/detail/channels_plan.hpp"

namespace normkit {
NORMKIT_BEGIN_ENTRY_POINTS

inline size_t group_norm_workspace_bytes(const ChannelsShape& shape, const GroupNormArgs& args) noexcept {
  detail::GroupSets sets(shape, args.groups);
  return detail::sets_forward_bytes({}, sets.shape, sets.arranged(args));
}

inline Status group_norm_plan(const ChannelsShape& shape, const GroupNormArgs& args, Workspace workspace,
                              Plan* plan) noexcept {
  detail::GroupSets sets(shape, args.groups);
  return detail::sets_forward_plan({}, sets.shape, sets.arranged(args), workspace, plan);
}

inline size_t group_norm_backward_workspace_bytes(const ChannelsShape& shape,
                                                  const GroupNormBackwardArgs& args) noexcept {
  detail::GroupSets sets(shape, args.groups);
  return detail::sets_backward_bytes({}, sets.shape, sets.arranged(args));
}

inline Status group_norm_backward_plan(const ChannelsShape& shape, const GroupNormBackwardArgs& args,
                                       Workspace workspace, Plan* plan) noexcept {
  detail::GroupSets sets(shape, args.groups);
  return detail::sets_backward_plan({}, sets.shape, sets.arranged(args), workspace, plan);
}

NORMKIT_END_ENTRY_POINTS
}  // namespace normkit
#endif

#pragma pop_macro("Status")

#endif  // NORMKIT_GROUP_NORM_HPP_
