// DyT, the dynamic tanh (Zhu, Chen, He, LeCun, Liu 2025, arXiv:2503.10622), forward and backward.
//
//   y  = weight tanh(alpha x) + bias
//   dx = g alpha (1 - t^2),   t = tanh(alpha x),   g = dy weight
//   dalpha = sum of g x (1 - t^2) over what shares alpha,   dweight = sum of dy t over the channel,
//   dbias = sum of dy
//
// Element by element, without statistics: it stands in for a norm. alpha x and its tanh are computed in
// double and rounded once; 1 - t^2 comes from an exponential and keeps its digits where tanh saturates; sums
// are in double.
#ifndef NORMKIT_DYNAMIC_TANH_HPP_
#define NORMKIT_DYNAMIC_TANH_HPP_

#pragma push_macro("Status")  // X11 has one
#undef Status

#include "normkit/detail/config.hpp"
#include "normkit/executor.hpp"
#include "normkit/types.hpp"

namespace normkit {

// The axes of an elementwise operation; `axis`, 0 <= axis < rank, is the one that channels (C of them) lie
// on.
struct MapShape {
  int32_t rank = 0;
  const int64_t* size = nullptr;
  int32_t axis = 0;
  NORMKIT_DEFAULT_CONSTRUCTOR(MapShape)
};

// x, y: all axes; y has x's dtype and may be x itself (same data, same strides), else must not overlap any
// input. alpha: one number, or [C] where alpha_per_channel; x's dtype, float or double. weight, bias: [C];
// x's dtype or float (double with double x); each may be absent.
struct DynamicTanhArgs {
  ConstView x;
  View y;
  ConstView alpha;
  bool alpha_per_channel = false;
  ConstView weight;
  ConstView bias;
  Activation activation = Activation::kNone;
  NORMKIT_DEFAULT_CONSTRUCTOR(DynamicTanhArgs)
};

// dy, x, dx: all axes, one dtype; dx may be dy or x itself. dalpha: one number, or [C] where
// alpha_per_channel; dweight, dbias: [C]; x's dtype, float or double; each output may be absent. accumulate
// adds into dalpha, dweight and dbias instead of overwriting them.
struct DynamicTanhBackwardArgs {
  ConstView dy;
  ConstView x;
  ConstView alpha;
  bool alpha_per_channel = false;
  ConstView weight;
  View dx;
  View dalpha;
  View dweight;
  View dbias;
  bool accumulate = false;
  NORMKIT_DEFAULT_CONSTRUCTOR(DynamicTanhBackwardArgs)
};

NORMKIT_BEGIN_ENTRY_POINTS
NORMKIT_DECLARE_OPERATION(dynamic_tanh, MapShape, DynamicTanhArgs)
NORMKIT_DECLARE_OPERATION(dynamic_tanh_backward, MapShape, DynamicTanhBackwardArgs)
NORMKIT_END_ENTRY_POINTS

}  // namespace normkit

#if !defined(NORMKIT_COMPILED)
#  include "normkit/detail/map_plan.hpp"

namespace normkit {
NORMKIT_BEGIN_ENTRY_POINTS

inline size_t dynamic_tanh_workspace_bytes(const MapShape& shape, const DynamicTanhArgs&) noexcept {
  return detail::more_axes_bytes(shape);
}

inline Status dynamic_tanh_plan(const MapShape& shape, const DynamicTanhArgs& args, Workspace workspace,
                                Plan* plan) noexcept {
  return detail::map_forward_plan(shape, args, workspace, plan);
}

inline size_t dynamic_tanh_backward_workspace_bytes(const MapShape& shape,
                                                    const DynamicTanhBackwardArgs& args) noexcept {
  return detail::map_backward_workspace_bytes(shape, args);
}

inline Status dynamic_tanh_backward_plan(const MapShape& shape, const DynamicTanhBackwardArgs& args,
                                         Workspace workspace, Plan* plan) noexcept {
  return detail::map_backward_plan(shape, args, workspace, plan);
}

NORMKIT_END_ENTRY_POINTS
}  // namespace normkit
#endif

#pragma pop_macro("Status")

#endif  // NORMKIT_DYNAMIC_TANH_HPP_
