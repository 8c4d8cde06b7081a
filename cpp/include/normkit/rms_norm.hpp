// RMSNorm (Zhang, Sennrich 2019, arXiv:1910.07467), forward and backward.
//
//   y  = (x rstd)(weight + weight_offset) + bias,   rstd = 1 / sqrt(sum(x^2)/n + eps) over each row
//   dx = (g - xhat sum(g xhat)/n) rstd,   g = dy (weight + weight_offset),   xhat = x rstd
//   dweight = sum over rows of dy xhat,   dbias = sum over rows of dy
//
// LayerNorm's rows (layer_norm.hpp) without the mean.
#ifndef NORMKIT_RMS_NORM_HPP_
#define NORMKIT_RMS_NORM_HPP_

#pragma push_macro("Status")  // X11 has one
#undef Status

#include "normkit/detail/config.hpp"
#include "normkit/executor.hpp"
#include "normkit/types.hpp"

namespace normkit {

// x, y: all axes; y has x's dtype and may be x itself (same data, same strides), else must not overlap any
// input. weight, bias: inner axes; x's dtype or float (double with double x); each may be absent. rstd: outer
// axes; double or float; may be absent; the statistic before its last rounding.
struct RmsNormArgs {
  ConstView x;
  View y;
  ConstView weight;
  ConstView bias;
  double eps = 1.1920928955078125e-07;  // float's epsilon
  double weight_offset = 0.0;           // Gemma stores weight - 1; ignored without a weight
  View rstd;
  Activation activation = Activation::kNone;
  NORMKIT_DEFAULT_CONSTRUCTOR(RmsNormArgs)
};

// dy, x, dx: all axes, one dtype; dx may be dy or x itself. rstd: as the forward returned it, or absent, then
// it is computed again (to the same bits). dweight, dbias: inner axes; x's dtype, float or double; each
// output may be absent. accumulate adds into dweight and dbias instead of overwriting them.
struct RmsNormBackwardArgs {
  ConstView dy;
  ConstView x;
  ConstView weight;
  double eps = 1.1920928955078125e-07;
  double weight_offset = 0.0;
  ConstView rstd;
  View dx;
  View dweight;
  View dbias;
  bool accumulate = false;
  NORMKIT_DEFAULT_CONSTRUCTOR(RmsNormBackwardArgs)
};

NORMKIT_BEGIN_ENTRY_POINTS
NORMKIT_DECLARE_OPERATION(rms_norm, RowsShape, RmsNormArgs)
NORMKIT_DECLARE_OPERATION(rms_norm_backward, RowsShape, RmsNormBackwardArgs)
NORMKIT_END_ENTRY_POINTS

}  // namespace normkit

#if !defined(NORMKIT_COMPILED)
#  include "normkit/detail/rows_plan.hpp"

namespace normkit {
NORMKIT_BEGIN_ENTRY_POINTS

inline size_t rms_norm_workspace_bytes(const RowsShape& shape, const RmsNormArgs&) noexcept {
  return detail::more_axes_bytes(shape);
}

inline Status rms_norm_plan(const RowsShape& shape, const RmsNormArgs& args, Workspace workspace,
                            Plan* plan) noexcept {
  return detail::rows_forward_plan(shape, args, false, View(), args.weight_offset, workspace, plan);
}

inline size_t rms_norm_backward_workspace_bytes(const RowsShape& shape,
                                                const RmsNormBackwardArgs& args) noexcept {
  return detail::rows_backward_workspace_bytes(shape, args);
}

inline Status rms_norm_backward_plan(const RowsShape& shape, const RmsNormBackwardArgs& args,
                                     Workspace workspace, Plan* plan) noexcept {
  return detail::rows_backward_plan(shape, args, false, ConstView(), args.weight_offset, workspace, plan);
}

NORMKIT_END_ENTRY_POINTS
}  // namespace normkit
#endif

#pragma pop_macro("Status")

#endif  // NORMKIT_RMS_NORM_HPP_
