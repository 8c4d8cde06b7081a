// LayerNorm (Ba, Kiros, Hinton 2016, arXiv:1607.06450), forward and backward.
//
//   y  = (x - mean) rstd weight + bias,   rstd = 1 / sqrt(var + eps),   mean and biased var over each row
//   dx = ((g - sum(g)/n) - xhat sum(g xhat)/n) rstd,   g = dy weight,   xhat = (x - mean) rstd
//   dweight = sum over rows of dy xhat,   dbias = sum over rows of dy
//
// A row is the set that shares one statistic: the inner axes of the RowsShape. RMSNorm (rms_norm.hpp) is the
// same geometry without the mean; both are operations over rows (detail/rows.hpp).
#ifndef NORMKIT_LAYER_NORM_HPP_
#define NORMKIT_LAYER_NORM_HPP_

#pragma push_macro("Status")  // X11 has one
#undef Status

#include "normkit/detail/config.hpp"
#include "normkit/executor.hpp"
#include "normkit/types.hpp"

namespace normkit {

// x, y: all axes; y has x's dtype and may be x itself (same data, same strides), else must not overlap any
// input. weight, bias: inner axes; x's dtype or float (double with double x); each may be absent. mean, rstd:
// outer axes; double or float; each may be absent; the statistics before their last rounding.
struct LayerNormArgs {
  ConstView x;
  View y;
  ConstView weight;
  ConstView bias;
  double eps = 1e-5;
  View mean;
  View rstd;
  Activation activation = Activation::kNone;
  NORMKIT_DEFAULT_CONSTRUCTOR(LayerNormArgs)
};

// dy, x, dx: all axes, one dtype; dx may be dy or x itself. mean, rstd: as the forward returned them, or both
// absent, then they are computed again (to the same bits). dweight, dbias: inner axes; x's dtype, float or
// double; each output may be absent. accumulate adds into dweight and dbias instead of overwriting them.
struct LayerNormBackwardArgs {
  ConstView dy;
  ConstView x;
  ConstView weight;
  double eps = 1e-5;
  ConstView mean;
  ConstView rstd;
  View dx;
  View dweight;
  View dbias;
  bool accumulate = false;
  NORMKIT_DEFAULT_CONSTRUCTOR(LayerNormBackwardArgs)
};

NORMKIT_BEGIN_ENTRY_POINTS
NORMKIT_DECLARE_OPERATION(layer_norm, RowsShape, LayerNormArgs)
NORMKIT_DECLARE_OPERATION(layer_norm_backward, RowsShape, LayerNormBackwardArgs)
NORMKIT_END_ENTRY_POINTS

}  // namespace normkit

#if !defined(NORMKIT_COMPILED)
#  include "normkit/detail/rows_plan.hpp"

namespace normkit {
NORMKIT_BEGIN_ENTRY_POINTS

inline size_t layer_norm_workspace_bytes(const RowsShape& shape, const LayerNormArgs&) noexcept {
  return detail::more_axes_bytes(shape);
}

inline Status layer_norm_plan(const RowsShape& shape, const LayerNormArgs& args, Workspace workspace,
                              Plan* plan) noexcept {
  return detail::rows_forward_plan(shape, args, true, args.mean, 0.0, workspace, plan);
}

inline size_t layer_norm_backward_workspace_bytes(const RowsShape& shape,
                                                  const LayerNormBackwardArgs& args) noexcept {
  return detail::rows_backward_workspace_bytes(shape, args);
}

inline Status layer_norm_backward_plan(const RowsShape& shape, const LayerNormBackwardArgs& args,
                                       Workspace workspace, Plan* plan) noexcept {
  return detail::rows_backward_plan(shape, args, true, args.mean, 0.0, workspace, plan);
}

NORMKIT_END_ENTRY_POINTS
}  // namespace normkit
#endif

#pragma pop_macro("Status")

#endif  // NORMKIT_LAYER_NORM_HPP_
