// normkit: every normalization used in deep learning, with the same bits everywhere.
//
// The umbrella header. Operations (one header each: formula, arguments, forward and backward):
//   layer_norm.hpp, rms_norm.hpp                        over rows
//   add_layer_norm.hpp, add_rms_norm.hpp                these of a residual sum, in one pass
//   batch_norm.hpp, instance_norm.hpp, group_norm.hpp   over channels
//   switchable_norm.hpp, adaptive_instance_norm.hpp     mixtures of these; another array's statistics
//   norm.hpp                                            any sets
//   normalize.hpp, weight_norm.hpp                      division by a norm
//   scaling.hpp                                         min-max and z-score
//   local_response_norm.hpp                             a window of channels
//   dynamic_tanh.hpp                                    DyT: no statistics at all
//
// Names: x y weight bias mean rstd var dy dx dweight dbias eps; rows, n = elements of a row; xhat = (x -
// mean) rstd; g = dy weight.
#ifndef NORMKIT_NORMKIT_HPP_
#define NORMKIT_NORMKIT_HPP_

#define NORMKIT_VERSION_MAJOR 0
#define NORMKIT_VERSION_MINOR 1
#define NORMKIT_VERSION_PATCH 0

#include "normkit/adaptive_instance_norm.hpp"
#include "normkit/add_layer_norm.hpp"
#include "normkit/add_rms_norm.hpp"
#include "normkit/batch_norm.hpp"
#include "normkit/dynamic_tanh.hpp"
#include "normkit/executor.hpp"
#include "normkit/group_norm.hpp"
#include "normkit/instance_norm.hpp"
#include "normkit/layer_norm.hpp"
#include "normkit/local_response_norm.hpp"
#include "normkit/moments.hpp"
#include "normkit/norm.hpp"
#include "normkit/normalize.hpp"
#include "normkit/rms_norm.hpp"
#include "normkit/scaling.hpp"
#include "normkit/switchable_norm.hpp"
#include "normkit/types.hpp"
#include "normkit/weight_norm.hpp"

#if defined(NORMKIT_COMPILED)
#  include "normkit/runtime.hpp"
#endif

#endif  // NORMKIT_NORMKIT_HPP_
