// WeightNorm (Salimans, Kingma 2016, arXiv:1602.07868), forward and backward: direction and length apart.
//
//   w  = g v / N,   N = sqrt(sum v^2) over each set
//   dv = (g dw - vhat sum(g dw vhat)) / N,   vhat = v / N,   dg = sum of dw vhat
#ifndef NORMKIT_WEIGHT_NORM_HPP_
#define NORMKIT_WEIGHT_NORM_HPP_

#pragma push_macro("Status")  // X11 has one
#undef Status

#include "normkit/sets.hpp"

namespace normkit {

// v, w: all axes; w may be v itself. g: the affine axes, which are the kept ones. A set of zeros gives NaN.
struct WeightNormArgs {
  ConstView v;
  ConstView g;
  View w;
  NORMKIT_DEFAULT_CONSTRUCTOR(WeightNormArgs)
};

// dv may be dw or v itself; dg: x's dtype, float or double; each may be absent.
struct WeightNormBackwardArgs {
  ConstView dw;
  ConstView v;
  ConstView g;
  View dv;
  View dg;
  bool accumulate = false;  // into dg
  NORMKIT_DEFAULT_CONSTRUCTOR(WeightNormBackwardArgs)
};

NORMKIT_BEGIN_ENTRY_POINTS
NORMKIT_DECLARE_OPERATION(weight_norm, SetsShape, WeightNormArgs)
NORMKIT_DECLARE_OPERATION(weight_norm_backward, SetsShape, WeightNormBackwardArgs)
NORMKIT_END_ENTRY_POINTS

}  // namespace normkit

#if !defined(NORMKIT_COMPILED)
#  include "normkit/detail/sets_plan.hpp"

namespace normkit {
NORMKIT_BEGIN_ENTRY_POINTS

inline size_t weight_norm_workspace_bytes(const SetsShape& shape, const WeightNormArgs&) noexcept {
  return detail::more_axes_bytes(shape);
}

inline Status weight_norm_plan(const SetsShape& shape, const WeightNormArgs& args, Workspace workspace,
                               Plan* plan) noexcept {
  SetNormArgs norm;
  norm.x = args.v;
  norm.y = args.w;
  norm.weight = args.g;
  norm.eps = 0.0;
  return detail::sets_forward_plan(detail::norm_kind(2.0), shape, norm, workspace, plan);
}

inline size_t weight_norm_backward_workspace_bytes(const SetsShape& shape,
                                                   const WeightNormBackwardArgs& args) noexcept {
  SetNormBackwardArgs norm;
  norm.x = args.v;
  norm.dweight = args.dg;
  return detail::sets_backward_bytes(detail::norm_kind(2.0), shape, norm);
}

inline Status weight_norm_backward_plan(const SetsShape& shape, const WeightNormBackwardArgs& args,
                                        Workspace workspace, Plan* plan) noexcept {
  SetNormBackwardArgs norm;
  norm.dy = args.dw;
  norm.x = args.v;
  norm.weight = args.g;
  norm.dx = args.dv;
  norm.dweight = args.dg;
  norm.accumulate = args.accumulate;
  norm.eps = 0.0;
  return detail::sets_backward_plan(detail::norm_kind(2.0), shape, norm, workspace, plan);
}

NORMKIT_END_ENTRY_POINTS
}  // namespace normkit
#endif

#pragma pop_macro("Status")

#endif  // NORMKIT_WEIGHT_NORM_HPP_
