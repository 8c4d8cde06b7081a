// layer_norm, rms_norm and their gradients: argument lists and docstrings; the work is RowsCall's.
#include "call.hpp"
#include "normkit/normkit.hpp"
#include "ops.hpp"
#include "signature.hpp"

namespace normkit::python {
namespace {

constexpr const char* kParameters[] = {"weight", "bias", nullptr};

constexpr const char* kLayerNorm =
    "layer_norm(x, normalized_shape, weight=None, bias=None, eps=1e-05, *, axis=None, return_stats=False, "
    "out=None, activation=None)";

PyObject* layer_norm_call(PyObject* const* slots) {
  enum { kX, kNormalizedShape, kWeight, kBias, kEps, kAxis, kReturnStats, kOut, kActivation };
  RowsCall call(slots[kX], slots[kNormalizedShape], slots[kAxis]);
  LayerNormArgs args;
  args.activation = activation_argument(slots[kActivation]);
  Operand *y, *mean = nullptr, *rstd = nullptr;
  args.x = call.x_view();
  args.weight = call.parameter(slots[kWeight], "weight");
  args.bias = call.parameter(slots[kBias], "bias");
  args.eps = eps_argument(slots[kEps], args.eps);
  const bool return_stats = flag_argument(slots[kReturnStats], "return_stats", false);
  args.y = call.result_like_x(slots[kOut], "out", &y);
  if (return_stats) {
    args.mean = call.new_statistics("mean", &mean);
    args.rstd = call.new_statistics("rstd", &rstd);
  }
  call.run(call.shape(), args, &layer_norm_workspace_bytes, &layer_norm_plan);
  return forward_result(call, return_stats, y, mean, rstd);
}

constexpr const char* kLayerNormBackward =
    "layer_norm_backward(dy, x, normalized_shape, weight=None, bias=None, eps=1e-05, *, axis=None, "
    "mean=None, "
    "rstd=None, dx_out=None, grads_out=None, accumulate=False)";

PyObject* layer_norm_backward_call(PyObject* const* slots) {
  enum {
    kDy,
    kX,
    kNormalizedShape,
    kWeight,
    kBias,
    kEps,
    kAxis,
    kMean,
    kRstd,
    kDxOut,
    kGradsOut,
    kAccumulate
  };
  RowsCall call(slots[kX], slots[kNormalizedShape], slots[kAxis]);
  LayerNormBackwardArgs args;
  const Array* arrays[2] = {};
  args.x = call.x_view();
  args.dy = call.same_as_x(slots[kDy], "dy");
  args.weight = call.parameter(slots[kWeight], "weight", &arrays[0]);
  call.parameter(slots[kBias], "bias", &arrays[1]);
  args.eps = eps_argument(slots[kEps], args.eps);
  check_together(slots[kMean], "mean", slots[kRstd], "rstd");
  args.mean = call.saved_statistics(slots[kMean], "mean");
  args.rstd = call.saved_statistics(slots[kRstd], "rstd");
  Gradients gradients(call, arrays, kParameters, slots[kDxOut], slots[kGradsOut], slots[kAccumulate]);
  args.dx = gradients.dx;
  args.dweight = gradients.parameters[0];
  args.dbias = gradients.parameters[1];
  args.accumulate = gradients.accumulate;
  call.run(call.shape(), args, &layer_norm_backward_workspace_bytes, &layer_norm_backward_plan);
  return gradients.result(call);
}

constexpr const char* kRmsNorm =
    "rms_norm(x, normalized_shape, weight=None, eps=None, *, bias=None, weight_offset=0.0, axis=None, "
    "return_stats=False, out=None, activation=None)";

PyObject* rms_norm_call(PyObject* const* slots) {
  enum { kX, kNormalizedShape, kWeight, kEps, kBias, kWeightOffset, kAxis, kReturnStats, kOut, kActivation };
  RowsCall call(slots[kX], slots[kNormalizedShape], slots[kAxis]);
  RmsNormArgs args;
  args.activation = activation_argument(slots[kActivation]);
  Operand *y, *rstd = nullptr;
  args.x = call.x_view();
  args.weight = call.parameter(slots[kWeight], "weight");
  args.bias = call.parameter(slots[kBias], "bias");
  args.eps = rms_eps(slots[kEps], call);
  args.weight_offset = number_argument(slots[kWeightOffset], "weight_offset", args.weight_offset);
  const bool return_stats = flag_argument(slots[kReturnStats], "return_stats", false);
  args.y = call.result_like_x(slots[kOut], "out", &y);
  if (return_stats) args.rstd = call.new_statistics("rstd", &rstd);
  call.run(call.shape(), args, &rms_norm_workspace_bytes, &rms_norm_plan);
  return forward_result(call, return_stats, y, nullptr, rstd);
}

constexpr const char* kRmsNormBackward =
    "rms_norm_backward(dy, x, normalized_shape, weight=None, eps=None, *, bias=None, weight_offset=0.0, "
    "axis=None, "
    "rstd=None, dx_out=None, grads_out=None, accumulate=False)";

PyObject* rms_norm_backward_call(PyObject* const* slots) {
  enum {
    kDy,
    kX,
    kNormalizedShape,
    kWeight,
    kEps,
    kBias,
    kWeightOffset,
    kAxis,
    kRstd,
    kDxOut,
    kGradsOut,
    kAccumulate
  };
  RowsCall call(slots[kX], slots[kNormalizedShape], slots[kAxis]);
  RmsNormBackwardArgs args;
  const Array* arrays[2] = {};
  args.x = call.x_view();
  args.dy = call.same_as_x(slots[kDy], "dy");
  args.weight = call.parameter(slots[kWeight], "weight", &arrays[0]);
  call.parameter(slots[kBias], "bias", &arrays[1]);
  args.eps = rms_eps(slots[kEps], call);
  args.weight_offset = number_argument(slots[kWeightOffset], "weight_offset", args.weight_offset);
  args.rstd = call.saved_statistics(slots[kRstd], "rstd");
  Gradients gradients(call, arrays, kParameters, slots[kDxOut], slots[kGradsOut], slots[kAccumulate]);
  args.dx = gradients.dx;
  args.dweight = gradients.parameters[0];
  args.dbias = gradients.parameters[1];
  args.accumulate = gradients.accumulate;
  call.run(call.shape(), args, &rms_norm_backward_workspace_bytes, &rms_norm_backward_plan);
  return gradients.result(call);
}

}  // namespace

void add_rows_operations(PyObject* module) {
  Function<layer_norm_call>::add(module, kLayerNorm, docs::kLayerNorm);
  Function<layer_norm_backward_call>::add(module, kLayerNormBackward, docs::kLayerNormBackward);
  Function<rms_norm_call>::add(module, kRmsNorm, docs::kRmsNorm);
  Function<rms_norm_backward_call>::add(module, kRmsNormBackward, docs::kRmsNormBackward);
}

}  // namespace normkit::python
