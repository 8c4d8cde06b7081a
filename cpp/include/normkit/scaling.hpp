// Scaling of features: min-max and z-score.
//
//   min_max_scale  y = (x - min) / (max - min) (high - low) + low; a set without spread becomes low.
//                  The ends become low and high, rounded to x's type, and nothing lies outside.
//   z_score        y = (x - mean) / sqrt(var), var biased; a set without spread becomes 0
#ifndef NORMKIT_SCALING_HPP_
#define NORMKIT_SCALING_HPP_

#pragma push_macro("Status")  // X11 has one
#undef Status

#include "normkit/sets.hpp"

namespace normkit {

// x, y: all axes; y may be x itself. `affine` of the shape is 0. low, high: finite in x's type.
struct MinMaxScaleArgs {
  ConstView x;
  View y;
  double low = 0.0, high = 1.0;
  NORMKIT_DEFAULT_CONSTRUCTOR(MinMaxScaleArgs)
};
struct ZScoreArgs {
  ConstView x;
  View y;
  NORMKIT_DEFAULT_CONSTRUCTOR(ZScoreArgs)
};

NORMKIT_BEGIN_ENTRY_POINTS
NORMKIT_DECLARE_OPERATION(min_max_scale, SetsShape, MinMaxScaleArgs)
NORMKIT_DECLARE_OPERATION(z_score, SetsShape, ZScoreArgs)
NORMKIT_END_ENTRY_POINTS

}  // namespace normkit

#if !defined(NORMKIT_COMPILED)
#  include "normkit/detail/sets_plan.hpp"

namespace normkit {
NORMKIT_BEGIN_ENTRY_POINTS

inline size_t min_max_scale_workspace_bytes(const SetsShape& shape, const MinMaxScaleArgs&) noexcept {
  return detail::more_axes_bytes(shape);
}

inline Status min_max_scale_plan(const SetsShape& shape, const MinMaxScaleArgs& args, Workspace workspace,
                                 Plan* plan) noexcept {
  if (!fits(args.x.dtype, args.low) || !fits(args.x.dtype, args.high)) return Status::kInvalidEps;
  SetNormArgs norm;
  norm.x = args.x;
  norm.y = args.y;
  norm.eps = 0.0;
  return detail::sets_forward_plan(detail::range_kind(args.low, args.high), shape, norm, workspace, plan);
}

inline size_t z_score_workspace_bytes(const SetsShape& shape, const ZScoreArgs&) noexcept {
  return detail::more_axes_bytes(shape);
}

inline Status z_score_plan(const SetsShape& shape, const ZScoreArgs& args, Workspace workspace,
                           Plan* plan) noexcept {
  SetNormArgs norm;
  norm.x = args.x;
  norm.y = args.y;
  norm.eps = 0.0;
  return detail::sets_forward_plan(detail::z_score_kind(), shape, norm, workspace, plan);
}

NORMKIT_END_ENTRY_POINTS
}  // namespace normkit
#endif

#pragma pop_macro("Status")

#endif  // NORMKIT_SCALING_HPP_
