// Division of each set by its norm of order p, forward and backward; PyTorch's functional.normalize.
//
//   y  = x / max(N, eps),   N = (sum |x|^p)^(1/p); p infinite: largest magnitude, p = 0: how many are not 0
//   dx = (dy - N' sum(dy xhat)) / N,   xhat = x / N,   N' = dN/dx = sign(x) |xhat|^(p-1)
//
// Where N < eps, dx = dy / eps; but the gradient of a set of zeros is 0.
#ifndef NORMKIT_NORMALIZE_HPP_
#define NORMKIT_NORMALIZE_HPP_

#pragma push_macro("Status")  // X11 has one
#undef Status

#include "normkit/sets.hpp"

namespace normkit {

// x, y: all axes; y may be x itself. `affine` of the shape is 0.
struct NormalizeArgs {
  ConstView x;
  View y;
  double p = 2.0;
  double eps = 1e-12;
  Activation activation = Activation::kNone;
  NORMKIT_DEFAULT_CONSTRUCTOR(NormalizeArgs)
};

struct NormalizeBackwardArgs {
  ConstView dy;
  ConstView x;
  View dx;  // may be dy or x itself
  double p = 2.0;
  double eps = 1e-12;
  NORMKIT_DEFAULT_CONSTRUCTOR(NormalizeBackwardArgs)
};

NORMKIT_BEGIN_ENTRY_POINTS
NORMKIT_DECLARE_OPERATION(normalize, SetsShape, NormalizeArgs)
NORMKIT_DECLARE_OPERATION(normalize_backward, SetsShape, NormalizeBackwardArgs)
NORMKIT_END_ENTRY_POINTS

}  // namespace normkit

#if !defined(NORMKIT_COMPILED)
#  include "normkit/detail/sets_plan.hpp"

namespace normkit {
NORMKIT_BEGIN_ENTRY_POINTS

inline size_t normalize_workspace_bytes(const SetsShape& shape, const NormalizeArgs&) noexcept {
  return detail::more_axes_bytes(shape);
}

inline Status normalize_plan(const SetsShape& shape, const NormalizeArgs& args, Workspace workspace,
                             Plan* plan) noexcept {
  if (detail::is_nan(args.p)) return Status::kInvalidEps;
  SetNormArgs norm;
  norm.x = args.x;
  norm.y = args.y;
  norm.activation = args.activation;
  norm.eps = args.eps;
  return detail::sets_forward_plan(detail::norm_kind(args.p), shape, norm, workspace, plan);
}

inline size_t normalize_backward_workspace_bytes(const SetsShape& shape,
                                                 const NormalizeBackwardArgs&) noexcept {
  return detail::more_axes_bytes(shape);
}

inline Status normalize_backward_plan(const SetsShape& shape, const NormalizeBackwardArgs& args,
                                      Workspace workspace, Plan* plan) noexcept {
  if (detail::is_nan(args.p)) return Status::kInvalidEps;
  SetNormBackwardArgs norm;
  norm.dy = args.dy;
  norm.x = args.x;
  norm.dx = args.dx;
  norm.eps = args.eps;
  return detail::sets_backward_plan(detail::norm_kind(args.p), shape, norm, workspace, plan);
}

NORMKIT_END_ENTRY_POINTS
}  // namespace normkit
#endif

#pragma pop_macro("Status")

#endif  // NORMKIT_NORMALIZE_HPP_
