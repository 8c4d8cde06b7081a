// normkit: every normalization used in deep learning, with the same bits everywhere.
//
// The umbrella header. Operations (one header each: formula, arguments, forward and backward):
//   layer_norm.hpp     LayerNorm
//   rms_norm.hpp       RMSNorm
//   batch_norm.hpp     BatchNorm
//   instance_norm.hpp  InstanceNorm
//   group_norm.hpp     GroupNorm
//   dynamic_tanh.hpp   DyT: weight tanh(alpha x) + bias
// Names: x y weight bias mean rstd var dy dx dweight dbias eps; rows, n = elements of a row; xhat = (x -
// mean) rstd; g = dy weight.
#ifndef NORMKIT_NORMKIT_HPP_
#define NORMKIT_NORMKIT_HPP_

#define NORMKIT_VERSION_MAJOR 0
#define NORMKIT_VERSION_MINOR 1
#define NORMKIT_VERSION_PATCH 0

#include "normkit/batch_norm.hpp"
#include "normkit/dynamic_tanh.hpp"
#include "normkit/executor.hpp"
#include "normkit/group_norm.hpp"
#include "normkit/instance_norm.hpp"
#include "normkit/layer_norm.hpp"
#include "normkit/rms_norm.hpp"
#include "normkit/types.hpp"

#if defined(NORMKIT_COMPILED)
#  include "normkit/runtime.hpp"
#endif

#endif  // NORMKIT_NORMKIT_HPP_
