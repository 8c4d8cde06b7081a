// add_layer_norm, add_rms_norm and their gradients: argument lists; the work is RowsCall's.
#include "call.hpp"
#include "normkit/normkit.hpp"
#include "ops.hpp"
#include "signature.hpp"

namespace normkit::python {
namespace {

constexpr const char* kParameters[] = {"weight", "bias", nullptr};

// True: "f32", the sum is normalized before it is rounded.
bool unrounded_argument(PyObject* slot) {
  if (slot == nullptr) return false;
  const bool text = PyUnicode_Check(slot);
  if (text && PyUnicode_CompareWithASCIIString(slot, "x") == 0) return false;
  if (text && PyUnicode_CompareWithASCIIString(slot, "f32") == 0) return true;
  raise(text ? PyExc_ValueError : PyExc_TypeError, "sum_precision is %R; it should be 'x' or 'f32'", slot);
}

// What both operations have in common, once x was read: residual, parameters and the two results.
template <typename Args>
void read_sum(RowsCall& call, Args& args, PyObject* residual, PyObject* residual_bias, PyObject* weight,
              PyObject* bias, PyObject* sum_precision, PyObject* out, Operand** y, Operand** sum) {
  args.x = call.x_view();
  args.residual = call.same_as_x(residual, "residual");
  args.residual_bias = call.parameter(residual_bias, "residual_bias");
  args.weight = call.parameter(weight, "weight");
  args.bias = call.parameter(bias, "bias");
  args.unrounded = unrounded_argument(sum_precision);
  PyObject* outs[2] = {};
  nb::object entries;
  if (given(out)) {
    entries = entries_argument(out, 2);
    if (!entries.is_valid())
      raise(PyExc_TypeError, "out is %R; it should be a pair of arrays (y, sum), either of which may be None",
            out);
    for (int i = 0; i < 2; ++i) outs[i] = PyTuple_GET_ITEM(entries.ptr(), i);
  }
  args.y = call.result_like_x(outs[0], "out[0]", y);
  args.sum = call.result_like_x(outs[1], "out[1]", sum);
}

constexpr const char* kAddLayerNorm =
    "add_layer_norm(x, residual, normalized_shape, weight=None, bias=None, eps=1e-05, *, residual_bias=None, "
    "sum_precision='x', axis=None, return_stats=False, out=None, activation=None)";

PyObject* add_layer_norm_call(PyObject* const* slots) {
  enum {
    kX,
    kResidual,
    kNormalizedShape,
    kWeight,
    kBias,
    kEps,
    kResidualBias,
    kSumPrecision,
    kAxis,
    kReturnStats,
    kOut,
    kActivation
  };
  RowsCall call(slots[kX], slots[kNormalizedShape], slots[kAxis]);
  AddLayerNormArgs args;
  Operand* results[4] = {};
  args.activation = activation_argument(slots[kActivation]);
  args.eps = eps_argument(slots[kEps], args.eps);
  const bool return_stats = flag_argument(slots[kReturnStats], "return_stats", false);
  read_sum(call, args, slots[kResidual], slots[kResidualBias], slots[kWeight], slots[kBias],
           slots[kSumPrecision], slots[kOut], &results[0], &results[1]);
  if (return_stats) {
    args.mean = call.new_statistics("mean", &results[2]);
    args.rstd = call.new_statistics("rstd", &results[3]);
  }
  call.run(call.shape(), args, &add_layer_norm_workspace_bytes, &add_layer_norm_plan);
  return result_tuple(call.x(), results, return_stats ? 4 : 2);
}

constexpr const char* kAddLayerNormBackward =
    "add_layer_norm_backward(dy, dsum, summed, normalized_shape, weight=None, bias=None, eps=1e-05, *, "
    "axis=None, mean=None, rstd=None, dx_out=None, grads_out=None, accumulate=False)";

PyObject* add_layer_norm_backward_call(PyObject* const* slots) {
  enum {
    kDy,
    kDsum,
    kSummed,
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
  RowsCall call(slots[kSummed], slots[kNormalizedShape], slots[kAxis], "summed");
  AddLayerNormBackwardArgs args;
  const Array* arrays[2] = {};
  args.summed = call.x_view();
  args.dy = call.same_as_x(slots[kDy], "dy");
  if (given(slots[kDsum])) args.dsum = call.same_as_x(slots[kDsum], "dsum");
  args.weight = call.parameter(slots[kWeight], "weight", &arrays[0]);
  call.parameter(slots[kBias], "bias", &arrays[1]);
  args.eps = eps_argument(slots[kEps], args.eps);
  check_together(slots[kMean], "mean", slots[kRstd], "rstd");
  args.mean = call.saved_statistics(slots[kMean], "mean");
  args.rstd = call.saved_statistics(slots[kRstd], "rstd");
  Gradients gradients(call, arrays, kParameters, slots[kDxOut], slots[kGradsOut], slots[kAccumulate]);
  args.dsummed = gradients.dx;
  args.dweight = gradients.parameters[0];
  args.dbias = gradients.parameters[1];
  args.accumulate = gradients.accumulate;
  call.run(call.shape(), args, &add_layer_norm_backward_workspace_bytes, &add_layer_norm_backward_plan);
  return gradients.result(call);
}

constexpr const char* kAddRmsNorm =
    "add_rms_norm(x, residual, normalized_shape, weight=None, eps=None, *, bias=None, weight_offset=0.0, "
    "residual_bias=None, sum_precision='x', axis=None, return_stats=False, out=None, activation=None)";

PyObject* add_rms_norm_call(PyObject* const* slots) {
  enum {
    kX,
    kResidual,
    kNormalizedShape,
    kWeight,
    kEps,
    kBias,
    kWeightOffset,
    kResidualBias,
    kSumPrecision,
    kAxis,
    kReturnStats,
    kOut,
    kActivation
  };
  RowsCall call(slots[kX], slots[kNormalizedShape], slots[kAxis]);
  AddRmsNormArgs args;
  Operand* results[3] = {};
  args.activation = activation_argument(slots[kActivation]);
  args.eps = rms_eps(slots[kEps], call);
  args.weight_offset = number_argument(slots[kWeightOffset], "weight_offset", args.weight_offset);
  const bool return_stats = flag_argument(slots[kReturnStats], "return_stats", false);
  read_sum(call, args, slots[kResidual], slots[kResidualBias], slots[kWeight], slots[kBias],
           slots[kSumPrecision], slots[kOut], &results[0], &results[1]);
  if (return_stats) args.rstd = call.new_statistics("rstd", &results[2]);
  call.run(call.shape(), args, &add_rms_norm_workspace_bytes, &add_rms_norm_plan);
  return result_tuple(call.x(), results, return_stats ? 3 : 2);
}

constexpr const char* kAddRmsNormBackward =
    "add_rms_norm_backward(dy, dsum, summed, normalized_shape, weight=None, eps=None, *, bias=None, "
    "weight_offset=0.0, axis=None, rstd=None, dx_out=None, grads_out=None, accumulate=False)";

PyObject* add_rms_norm_backward_call(PyObject* const* slots) {
  enum {
    kDy,
    kDsum,
    kSummed,
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
  RowsCall call(slots[kSummed], slots[kNormalizedShape], slots[kAxis], "summed");
  AddRmsNormBackwardArgs args;
  const Array* arrays[2] = {};
  args.summed = call.x_view();
  args.dy = call.same_as_x(slots[kDy], "dy");
  if (given(slots[kDsum])) args.dsum = call.same_as_x(slots[kDsum], "dsum");
  args.weight = call.parameter(slots[kWeight], "weight", &arrays[0]);
  call.parameter(slots[kBias], "bias", &arrays[1]);
  args.eps = rms_eps(slots[kEps], call);
  args.weight_offset = number_argument(slots[kWeightOffset], "weight_offset", args.weight_offset);
  args.rstd = call.saved_statistics(slots[kRstd], "rstd");
  Gradients gradients(call, arrays, kParameters, slots[kDxOut], slots[kGradsOut], slots[kAccumulate]);
  args.dsummed = gradients.dx;
  args.dweight = gradients.parameters[0];
  args.dbias = gradients.parameters[1];
  args.accumulate = gradients.accumulate;
  call.run(call.shape(), args, &add_rms_norm_backward_workspace_bytes, &add_rms_norm_backward_plan);
  return gradients.result(call);
}

}  // namespace

void add_add_norm_operations(PyObject* module) {
  Function<add_layer_norm_call>::add(module, kAddLayerNorm, docs::kAddLayerNorm);
  Function<add_layer_norm_backward_call>::add(module, kAddLayerNormBackward, docs::kAddLayerNormBackward);
  Function<add_rms_norm_call>::add(module, kAddRmsNorm, docs::kAddRmsNorm);
  Function<add_rms_norm_backward_call>::add(module, kAddRmsNormBackward, docs::kAddRmsNormBackward);
}

}  // namespace normkit::python
