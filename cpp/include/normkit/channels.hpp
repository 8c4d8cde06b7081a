// What BatchNorm, InstanceNorm and GroupNorm take: an array [N, C, space...] with parameters per channel.
#ifndef NORMKIT_CHANNELS_HPP_
#define NORMKIT_CHANNELS_HPP_

#include "normkit/detail/config.hpp"
#include "normkit/executor.hpp"
#include "normkit/types.hpp"

namespace normkit {

// Sizes of N, C and any number of axes of space. The order is logical: a channels-last array is one whose
// strides say so.
struct ChannelsShape {
  int32_t rank = 0;
  const int64_t* size = nullptr;
};

// x, y: [N, C, space...], one dtype; y may be x itself, else must not overlap any input.
// weight, bias: [C]; x's dtype or float (double with double x); each may be absent.
// mean, rstd: outputs, double or float; one for each set: [C] (batch), [N, C] (instance), [N, G] (group); may
// be absent. given_mean with given_var or given_rstd: [C], any dtype: these are used and nothing is computed
// from x. Group norm has none. running_mean, running_var: [C], any dtype; running = (1 - momentum) running +
// momentum new, the variance unbiased; batch and instance norm, not with given statistics.
struct ChannelNormArgs {
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
};

// dy, x, dx: [N, C, space...], one dtype; dx may be dy or x itself. mean, rstd: as the forward returned them,
// or both absent. given_*: as in the forward; dx then treats them as constants. dweight, dbias: [C]; x's
// dtype, float or double. accumulate adds into dweight and dbias.
struct ChannelNormBackwardArgs {
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
};

}  // namespace normkit

#endif  // NORMKIT_CHANNELS_HPP_
