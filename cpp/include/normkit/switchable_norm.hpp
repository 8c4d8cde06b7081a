// SwitchableNorm (Luo et al. 2018, arXiv:1806.10779), forward and backward: a learned mixture of the
// statistics of InstanceNorm, LayerNorm and BatchNorm, k = 0, 1, 2.
//
//   mean = sum_k softmax(mean_weight)_k mean_k,   var = sum_k softmax(var_weight)_k var_k, variances biased
//   y = (x - mean) rstd weight + bias,   rstd = 1 / sqrt(var + eps);   mean, var, rstd for each (n, c)
//
// Backward, with g = dy weight over the space S of one (n, c):
//   dmean = -rstd sum g,   dvar = -rstd^3 sum g (x - mean) / 2
//   dx = g rstd + sum_k [w_k dmean|k + 2 w'_k dvar|k (x - mean_k)] / n_k,   |k: summed over what shares k's
//   set dmean_weight_k = w_k sum dmean (mean_k - mean),   dvar_weight_k = w'_k sum dvar (var_k - var)
//
// Without training BatchNorm's statistics are the running ones, constants. Running statistics follow
// BatchNorm's as they are mixed: running = (1 - momentum) running + momentum new, the variance biased.
#ifndef NORMKIT_SWITCHABLE_NORM_HPP_
#define NORMKIT_SWITCHABLE_NORM_HPP_

#pragma push_macro("Status")  // X11 has one
#undef Status

#include "normkit/channels.hpp"

namespace normkit {

// x, y: [N, C, space...]; y may be x itself. mean_weight, var_weight: 3 logits each, weight, bias: [C]; x's
// dtype or float. running_mean, running_var: [C], any dtype; needed without training.
struct SwitchableNormArgs {
  ConstView x;
  View y;
  ConstView mean_weight;
  ConstView var_weight;
  ConstView weight;
  ConstView bias;
  View running_mean;
  View running_var;
  bool training = true;
  double momentum = 0.1;
  double eps = 1e-5;
  Activation activation = Activation::kNone;
  NORMKIT_DEFAULT_CONSTRUCTOR(SwitchableNormArgs)
};

// dx may be dy or x itself. dmean_weight, dvar_weight: [3], dweight, dbias: [C]; x's dtype, float or double.
// Each output may be absent.
struct SwitchableNormBackwardArgs {
  ConstView dy;
  ConstView x;
  ConstView mean_weight;
  ConstView var_weight;
  ConstView weight;
  ConstView running_mean;
  ConstView running_var;
  bool training = true;
  double eps = 1e-5;
  View dx;
  View dmean_weight;
  View dvar_weight;
  View dweight;
  View dbias;
  bool accumulate = false;
  NORMKIT_DEFAULT_CONSTRUCTOR(SwitchableNormBackwardArgs)
};

NORMKIT_BEGIN_ENTRY_POINTS
NORMKIT_DECLARE_OPERATION(switchable_norm, ChannelsShape, SwitchableNormArgs)
NORMKIT_DECLARE_OPERATION(switchable_norm_backward, ChannelsShape, SwitchableNormBackwardArgs)
NORMKIT_END_ENTRY_POINTS

}  // namespace normkit

#if !defined(NORMKIT_COMPILED)
#  include "normkit/detail/switchable_plan.hpp"

namespace normkit {
NORMKIT_BEGIN_ENTRY_POINTS

inline size_t switchable_norm_workspace_bytes(const ChannelsShape& shape,
                                              const SwitchableNormArgs& args) noexcept {
  return detail::switchable_bytes(shape, args.x.dtype, false);
}

inline Status switchable_norm_plan(const ChannelsShape& shape, const SwitchableNormArgs& args,
                                   Workspace workspace, Plan* plan) noexcept {
  return detail::switchable_forward_plan(shape, args, workspace, plan);
}

inline size_t switchable_norm_backward_workspace_bytes(const ChannelsShape& shape,
                                                       const SwitchableNormBackwardArgs& args) noexcept {
  return detail::switchable_bytes(shape, args.x.dtype, true);
}

inline Status switchable_norm_backward_plan(const ChannelsShape& shape,
                                            const SwitchableNormBackwardArgs& args, Workspace workspace,
                                            Plan* plan) noexcept {
  return detail::switchable_backward_plan(shape, args, workspace, plan);
}

NORMKIT_END_ENTRY_POINTS
}  // namespace normkit
#endif

#pragma pop_macro("Status")

#endif  // NORMKIT_SWITCHABLE_NORM_HPP_
