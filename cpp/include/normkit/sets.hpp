// The general form of every norm over a set: which axes are normalized together, along which weight and bias
// vary. BatchNorm, InstanceNorm, GroupNorm, ... are rows of this table (detail/channels_plan.hpp).
#ifndef NORMKIT_SETS_HPP_
#define NORMKIT_SETS_HPP_

#include "normkit/detail/config.hpp"
#include "normkit/executor.hpp"
#include "normkit/types.hpp"

namespace normkit {

// A set is the elements that share a mean and an rstd: one for each index of the axes that are kept. It is
// numbered in C order over its axes, those along which weight and bias vary first; blocks, and so the bits of
// the result, follow that order whatever the memory looks like. One exception: where weight and bias vary
// within the sets and those elements of x are neighbours in memory (channels-last GroupNorm), each channel
// has blocks of its own and the channels' statistics are merged in their order.
struct SetsShape {
  int32_t rank = 0;
  const int64_t* size = nullptr;
  uint64_t normalized = 0;  // bit a: axis a belongs to the sets; the others are kept
  uint64_t affine = 0;      // bit a: weight and bias vary along axis a
  // Blocks are cut from runs over the last so many normalized axes (BatchNorm: one sample's space); 0: from
  // the whole set.
  int32_t run_axes = 0;
  NORMKIT_DEFAULT_CONSTRUCTOR(SetsShape)
};

// x, y: all axes, one dtype; y may be x itself, else must not overlap any input.
// weight, bias: the affine axes; x's dtype or float (double with double x); each may be absent.
// mean, rstd: outputs on the kept axes, double or float; may be absent.
// given_mean with given_var or given_rstd: on the kept affine axes (the channels), any dtype: these are used
// and nothing is computed from x. running_mean, running_var: the same axes, any dtype; running = (1 -
// momentum) running + momentum new, the variance unbiased; a momentum of 0 leaves them alone, one of 1
// replaces them, whatever the other side is; what exceeds their type's range becomes its largest number; not
// with given statistics. Batch and instance norm only.
struct SetNormArgs {
  ConstView x;
  View y;
  ConstView weight;
  ConstView bias;
  double eps = 1e-5;
  View mean;
  View rstd;
  ConstView given_mean;
  ConstView given_var;
  ConstView given_rstd;
  View running_mean;
  View running_var;
  double momentum = 0.1;
  Activation activation = Activation::kNone;
  NORMKIT_DEFAULT_CONSTRUCTOR(SetNormArgs)
};

// dy, x, dx: all axes, one dtype; dx may be dy or x itself. mean, rstd: as the forward returned them, or both
// absent. given_*: as in the forward; dx then treats them as constants. dweight, dbias: the affine axes; x's
// dtype, float or double. accumulate adds into dweight and dbias. sum_dy, sum_dy_xhat: on the kept axes,
// double; sums of a larger array, of `count` elements in each set, of which dy and x are a part
// (grad_sums_update): dx then follows from these and no parameter gradient is computed.
struct SetNormBackwardArgs {
  ConstView dy;
  ConstView x;
  ConstView weight;
  double eps = 1e-5;
  ConstView mean;
  ConstView rstd;
  ConstView given_mean;
  ConstView given_var;
  ConstView given_rstd;
  View dx;
  View dweight;
  View dbias;
  bool accumulate = false;
  ConstView sum_dy;
  ConstView sum_dy_xhat;
  int64_t count = 0;
  NORMKIT_DEFAULT_CONSTRUCTOR(SetNormBackwardArgs)
};

}  // namespace normkit

#endif  // NORMKIT_SETS_HPP_
