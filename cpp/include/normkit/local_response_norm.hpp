// LocalResponseNorm (Krizhevsky, Sutskever, Hinton 2012: AlexNet), forward and backward, as PyTorch defines
// it.
//
//   y_c  = x_c d_c^-beta,   d_c = k + alpha/size (sum of x_j^2 over the window of c)
//   dx_i = dy_i d_i^-beta - 2 alpha beta/size x_i (sum over the j whose window holds i of dy_j x_j
//   d_j^(-beta-1))
//
// The window of channel c is c - size/2 .. c + (size-1)/2, clipped at the ends; the divisor stays `size`.
// Every sum is taken afresh in channel order, in double, whatever the element type.
#ifndef NORMKIT_LOCAL_RESPONSE_NORM_HPP_
#define NORMKIT_LOCAL_RESPONSE_NORM_HPP_

#pragma push_macro("Status")  // X11 has one
#undef Status

#include "normkit/channels.hpp"
#include "normkit/detail/config.hpp"
#include "normkit/executor.hpp"
#include "normkit/types.hpp"

namespace normkit {

// x, y: [N, C, space...], one dtype; y may be x itself (same data, same strides), else must not overlap it.
// size: at least 1, also beyond C.
struct LocalResponseNormArgs {
  ConstView x;
  View y;
  int64_t size = 5;
  double alpha = 1e-4;
  double beta = 0.75;
  double k = 1.0;
  Activation activation = Activation::kNone;
  NORMKIT_DEFAULT_CONSTRUCTOR(LocalResponseNormArgs)
};

// dy, x, dx: [N, C, space...], one dtype; dx may be dy or x itself.
struct LocalResponseNormBackwardArgs {
  ConstView dy;
  ConstView x;
  View dx;
  int64_t size = 5;
  double alpha = 1e-4;
  double beta = 0.75;
  double k = 1.0;
  NORMKIT_DEFAULT_CONSTRUCTOR(LocalResponseNormBackwardArgs)
};

NORMKIT_BEGIN_ENTRY_POINTS
// Scratch is needed only for windows of more than 500 channels.
NORMKIT_DECLARE_OPERATION(local_response_norm, ChannelsShape, LocalResponseNormArgs)
NORMKIT_DECLARE_OPERATION(local_response_norm_backward, ChannelsShape, LocalResponseNormBackwardArgs)
NORMKIT_END_ENTRY_POINTS

}  // namespace normkit

#if !defined(NORMKIT_COMPILED)
#  include "normkit/detail/window_plan.hpp"

namespace normkit {
NORMKIT_BEGIN_ENTRY_POINTS

inline size_t local_response_norm_workspace_bytes(const ChannelsShape& shape,
                                                  const LocalResponseNormArgs& args) noexcept {
  return detail::window_workspace_bytes(shape, args.size, args.x.dtype, false);
}

inline Status local_response_norm_plan(const ChannelsShape& shape, const LocalResponseNormArgs& args,
                                       Workspace workspace, Plan* plan) noexcept {
  return detail::window_plan(shape, args, nullptr, args.y, args.activation, workspace, plan);
}

inline size_t local_response_norm_backward_workspace_bytes(
    const ChannelsShape& shape, const LocalResponseNormBackwardArgs& args) noexcept {
  return detail::window_workspace_bytes(shape, args.size, args.x.dtype, true);
}

inline Status local_response_norm_backward_plan(const ChannelsShape& shape,
                                                const LocalResponseNormBackwardArgs& args,
                                                Workspace workspace, Plan* plan) noexcept {
  return detail::window_plan(shape, args, &args.dy, args.dx, Activation::kNone, workspace, plan);
}

NORMKIT_END_ENTRY_POINTS
}  // namespace normkit
#endif

#pragma pop_macro("Status")

#endif  // NORMKIT_LOCAL_RESPONSE_NORM_HPP_
