// The operations, by family: each family adds its functions to the module. One line for a new family, one
// docstring for a new function.
#ifndef NORMKIT_PYTHON_OPS_HPP_
#define NORMKIT_PYTHON_OPS_HPP_

#include <nanobind/nanobind.h>

namespace normkit::python {

void add_rows_operations(PyObject* module);      // rows_ops.cpp: LayerNorm, RMSNorm
void add_add_norm_operations(PyObject* module);  // add_norm_ops.cpp: residual sums with LayerNorm, RMSNorm
void add_channels_operations(PyObject* module);  // channels_ops.cpp: BatchNorm, InstanceNorm, GroupNorm, ...
void add_sets_operations(PyObject* module);      // sets_ops.cpp: norm, normalize, WeightNorm, scaling
void add_moments_operations(PyObject* module);   // moments_ops.cpp: the trees of Moments and GradSums
void add_window_operations(PyObject* module);    // window_ops.cpp: LocalResponseNorm
void add_map_operations(PyObject* module);       // map_ops.cpp: dynamic tanh
void add_fold_operations(PyObject* module);      // fold_ops.cpp: BatchNorm into the layer before it
void add_cuda_functions(PyObject* module);       // cuda_info.cpp: what cuda.py tells

namespace docs {

extern const char kLayerNorm[], kLayerNormBackward[], kRmsNorm[], kRmsNormBackward[];  // docs_rows.cpp
extern const char kAddLayerNorm[], kAddLayerNormBackward[], kAddRmsNorm[],
    kAddRmsNormBackward[];  // docs_add_norm.cpp
extern const char kBatchNorm[], kBatchNormBackward[], kInstanceNorm[], kInstanceNormBackward[], kGroupNorm[],
    kGroupNormBackward[], kSwitchableNorm[], kSwitchableNormBackward[], kAdaptiveInstanceNorm[],
    kAdaptiveInstanceNormBackward[];  // docs_channels.cpp
extern const char kNormalize[], kNormalizeBackward[], kWeightNorm[], kWeightNormBackward[], kMinMaxScale[],
    kZScore[];                                             // docs_sets.cpp
extern const char kDynamicTanh[], kDynamicTanhBackward[];  // docs_maps.cpp

}  // namespace docs

}  // namespace normkit::python

#endif  // NORMKIT_PYTHON_OPS_HPP_
