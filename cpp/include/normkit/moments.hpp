// Statistics that merge: the trees behind every norm, kept between calls. BatchNorm over accumulated
// micro-batches.
//
//   moments_update     count, mean and sum of squared deviations of each set
//   grad_sums_update   sum dy and sum dy xhat of each set, xhat = (x - mean) rstd
//
// Each set's tree is a binary counter over its blocks (detail/merge.hpp): level k, if bit k of `filled` is
// set, holds 2^k blocks. An update goes on counting, so the result has the bits of one large array where
// every array but the last ends on a block's limit (for BatchNorm: after any number of samples whose space is
// at least 1024, or a multiple of 1024 / space of them).
#ifndef NORMKIT_MOMENTS_HPP_
#define NORMKIT_MOMENTS_HPP_

#pragma push_macro("Status")  // X11 has one
#undef Status

#include "normkit/sets.hpp"

namespace normkit {

// Doubles of one level. Moments: count, mean, mean_low (0 unless x is double), m2; of double x also `scale`,
// a power of two: they are those of x times `scale`, which is 1 but near the ends of double's range. Gradient
// sums: sum dy, sum dy xhat.
NORMKIT_INLINE constexpr int64_t moments_doubles(DType elements) noexcept {
  return elements == DType::kF64 ? 5 : 4;
}
constexpr int64_t kGradSumsDoubles = 2;

// [sets, ranks, doubles of a level] before (absent: filled is 0) and after; they may be the same memory.
// `ranks` is at least that of merged_blocks(filled, block_count(shape)); sets are in C order of the kept
// axes.
struct MomentsArgs {
  ConstView x;
  uint64_t filled = 0;
  const double* before = nullptr;
  int64_t before_ranks = 0;
  double* after = nullptr;
  int64_t after_ranks = 0;
  NORMKIT_DEFAULT_CONSTRUCTOR(MomentsArgs)
};

// mean, rstd: the kept axes, double or float.
struct GradSumsArgs : MomentsArgs {
  ConstView dy;
  ConstView mean;
  ConstView rstd;
  NORMKIT_DEFAULT_CONSTRUCTOR(GradSumsArgs)
};

NORMKIT_BEGIN_ENTRY_POINTS
NORMKIT_DECLARE_OPERATION(moments_update, SetsShape, MomentsArgs)
NORMKIT_DECLARE_OPERATION(grad_sums_update, SetsShape, GradSumsArgs)
NORMKIT_END_ENTRY_POINTS

}  // namespace normkit

#if !defined(NORMKIT_COMPILED)
#  include "normkit/detail/moments_plan.hpp"

namespace normkit {
NORMKIT_BEGIN_ENTRY_POINTS

inline size_t moments_update_workspace_bytes(const SetsShape& shape, const MomentsArgs&) noexcept {
  return detail::more_axes_bytes(shape);
}
inline Status moments_update_plan(const SetsShape& shape, const MomentsArgs& args, Workspace workspace,
                                  Plan* plan) noexcept {
  return detail::moments_plan(shape, args, workspace, plan);
}

inline size_t grad_sums_update_workspace_bytes(const SetsShape& shape, const GradSumsArgs&) noexcept {
  return detail::more_axes_bytes(shape);
}
inline Status grad_sums_update_plan(const SetsShape& shape, const GradSumsArgs& args, Workspace workspace,
                                    Plan* plan) noexcept {
  return detail::grad_sums_plan(shape, args, workspace, plan);
}

NORMKIT_END_ENTRY_POINTS
}  // namespace normkit
#endif

#pragma pop_macro("Status")

#endif  // NORMKIT_MOMENTS_HPP_
