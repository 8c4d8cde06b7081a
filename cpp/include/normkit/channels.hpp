// What BatchNorm, InstanceNorm and GroupNorm take: an array [N, C, space...] with parameters per channel.
#ifndef NORMKIT_CHANNELS_HPP_
#define NORMKIT_CHANNELS_HPP_

#include "normkit/sets.hpp"

namespace normkit {

// Sizes of N, C and any number of axes of space. The order is logical: a channels-last array is one whose
// strides say so. As in SetNormArgs: weight, bias, given and running statistics are [C]; mean and rstd [C]
// (batch), [N, C] (instance) or [N, G] (group).
struct ChannelsShape {
  int32_t rank = 0;
  const int64_t* size = nullptr;
  NORMKIT_DEFAULT_CONSTRUCTOR(ChannelsShape)
};

}  // namespace normkit

#endif  // NORMKIT_CHANNELS_HPP_
