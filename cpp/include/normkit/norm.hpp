// The general form: any axes normalized together, any axes with parameters, with or without the mean.
//
//   y  = (x - mean) rstd weight + bias,   rstd = 1 / sqrt(var + eps),   mean and biased var over each set
//   dx = ((g - sum(g)/n) - xhat sum(g xhat)/n) rstd,   g = dy weight,   xhat = (x - mean) rstd
//   dweight = sum of dy xhat over all that shares a weight,   dbias = sum of dy
//
// rms: mean is 0 and var the mean square (RMSNorm). The same bits as the named norm of the same sets.
#ifndef NORMKIT_NORM_HPP_
#define NORMKIT_NORM_HPP_

#pragma push_macro("Status")  // X11 has one
#undef Status

#include "normkit/sets.hpp"

namespace normkit {

struct NormArgs : SetNormArgs {
  bool rms = false;
  NORMKIT_DEFAULT_CONSTRUCTOR(NormArgs)
};
struct NormBackwardArgs : SetNormBackwardArgs {
  bool rms = false;
  NORMKIT_DEFAULT_CONSTRUCTOR(NormBackwardArgs)
};

NORMKIT_BEGIN_ENTRY_POINTS
NORMKIT_DECLARE_OPERATION(norm, SetsShape, NormArgs)
NORMKIT_DECLARE_OPERATION(norm_backward, SetsShape, NormBackwardArgs)
NORMKIT_END_ENTRY_POINTS

}  // namespace normkit

#if !defined(NORMKIT_COMPILED)
#  include "normkit/detail/sets_plan.hpp"

namespace normkit {
NORMKIT_BEGIN_ENTRY_POINTS

inline size_t norm_workspace_bytes(const SetsShape& shape, const NormArgs& args) noexcept {
  return detail::sets_forward_bytes(detail::standard_kind(args.rms), shape, args);
}

inline Status norm_plan(const SetsShape& shape, const NormArgs& args, Workspace workspace,
                        Plan* plan) noexcept {
  return detail::sets_forward_plan(detail::standard_kind(args.rms), shape, args, workspace, plan);
}

inline size_t norm_backward_workspace_bytes(const SetsShape& shape, const NormBackwardArgs& args) noexcept {
  return detail::sets_backward_bytes(detail::standard_kind(args.rms), shape, args);
}

inline Status norm_backward_plan(const SetsShape& shape, const NormBackwardArgs& args, Workspace workspace,
                                 Plan* plan) noexcept {
  return detail::sets_backward_plan(detail::standard_kind(args.rms), shape, args, workspace, plan);
}

NORMKIT_END_ENTRY_POINTS
}  // namespace normkit
#endif

#pragma pop_macro("Status")

#endif  // NORMKIT_NORM_HPP_
