// A residual sum and its LayerNorm in one pass (layer_norm.hpp), forward and backward.
//
//   sum = (x + residual) + residual_bias, rounded once to x's type
//   y   = (sum - mean) rstd weight + bias,   rstd = 1 / sqrt(var + eps),   mean and biased var over each row
//   of sum dsummed = ((g - sum(g)/n) - xhat sum(g xhat)/n) rstd + dsum,   g = dy weight,   xhat = (summed -
//   mean) rstd dweight = sum over rows of dy xhat,   dbias = sum over rows of dy
//
// What is normalized is the sum as it is written, so y has the bits of the two operations one after the
// other. The gradient with respect to x and residual is dsummed, that with respect to residual_bias its sum
// over the rows; dsum is the gradient that reaches the sum by itself, past the norm.
#ifndef NORMKIT_ADD_LAYER_NORM_HPP_
#define NORMKIT_ADD_LAYER_NORM_HPP_

#pragma push_macro("Status")  // X11 has one
#undef Status

#include "normkit/detail/config.hpp"
#include "normkit/executor.hpp"
#include "normkit/types.hpp"

namespace normkit {

// x, residual, y, sum: all axes, one dtype; y and sum may each be x or residual itself (same data, same
// strides), else must not overlap any input, nor each other. weight, bias, residual_bias: inner axes; x's
// dtype or float (double with double x); each may be absent. mean, rstd: outer axes; double or float; each
// may be absent; the statistics before their last rounding.
struct AddLayerNormArgs {
  ConstView x;
  ConstView residual;
  View y;
  View sum;
  ConstView residual_bias;
  ConstView weight;
  ConstView bias;
  double eps = 1e-5;
  View mean;
  View rstd;
  bool unrounded = false;  // float16, bfloat16: normalize the sum in float; the one written is rounded
  Activation activation = Activation::kNone;
  NORMKIT_DEFAULT_CONSTRUCTOR(AddLayerNormArgs)
};

// dy, dsum, summed, dsummed: all axes, one dtype; dsum may be absent; dsummed may be dy, dsum or summed
// itself. dsum is added in the computing type, before the only rounding. mean, rstd: as the forward returned
// them, or both absent, then they are computed again from `summed` (to the same bits, unless the sum was
// normalized before it was rounded). dweight, dbias: inner axes; x's dtype, float or double; each output may
// be absent. accumulate adds into dweight and dbias instead of overwriting them.
struct AddLayerNormBackwardArgs {
  ConstView dy;
  ConstView dsum;
  ConstView summed;
  ConstView weight;
  double eps = 1e-5;
  ConstView mean;
  ConstView rstd;
  View dsummed;
  View dweight;
  View dbias;
  bool accumulate = false;
  NORMKIT_DEFAULT_CONSTRUCTOR(AddLayerNormBackwardArgs)
};

NORMKIT_BEGIN_ENTRY_POINTS
NORMKIT_DECLARE_OPERATION(add_layer_norm, RowsShape, AddLayerNormArgs)
NORMKIT_DECLARE_OPERATION(add_layer_norm_backward, RowsShape, AddLayerNormBackwardArgs)
NORMKIT_END_ENTRY_POINTS

}  // namespace normkit

#if !defined(NORMKIT_COMPILED)
#  include "normkit/detail/add_norm_plan.hpp"

namespace normkit {
NORMKIT_BEGIN_ENTRY_POINTS

inline size_t add_layer_norm_workspace_bytes(const RowsShape& shape, const AddLayerNormArgs&) noexcept {
  return detail::more_axes_bytes(shape);
}

inline Status add_layer_norm_plan(const RowsShape& shape, const AddLayerNormArgs& args, Workspace workspace,
                                  Plan* plan) noexcept {
  return detail::add_norm_plan(shape, args, true, args.mean, 0.0, workspace, plan);
}

inline size_t add_layer_norm_backward_workspace_bytes(const RowsShape& shape,
                                                      const AddLayerNormBackwardArgs& args) noexcept {
  return detail::rows_backward_workspace_bytes(shape, detail::with_x(args));
}

inline Status add_layer_norm_backward_plan(const RowsShape& shape, const AddLayerNormBackwardArgs& args,
                                           Workspace workspace, Plan* plan) noexcept {
  return detail::rows_backward_plan(shape, detail::with_x(args), true, args.mean, 0.0, workspace, plan,
                                    args.dsum);
}

NORMKIT_END_ENTRY_POINTS
}  // namespace normkit
#endif

#pragma pop_macro("Status")

#endif  // NORMKIT_ADD_LAYER_NORM_HPP_
