// layer_norm, rms_norm and their gradients: argument lists and docstrings; the work is RowsCall's.
#include "call.hpp"
#include "normkit/normkit.hpp"
#include "ops.hpp"
#include "signature.hpp"

namespace normkit::python {
namespace {

constexpr double kF32Epsilon = 1.1920928955078125e-07;
constexpr double kF64Epsilon = 2.220446049250313e-16;

double rms_eps(PyObject* argument, const RowsCall& call) {
  return number_argument(given(argument) ? argument : nullptr, "eps",
                         call.x_is_f64() ? kF64Epsilon : kF32Epsilon);
}

// y alone, or y with its statistics; null operands are left out.
PyObject* forward_result(const RowsCall& call, bool return_stats, Operand* y, Operand* mean, Operand* rstd) {
  if (!return_stats) return y->finish(call.x()).release().ptr();
  Operand* all[3] = {y, mean != nullptr ? mean : rstd, rstd};
  return result_tuple(call.x(), all, mean != nullptr ? 3 : 2);
}

// The outputs of a gradient with respect to x, weight and bias.
struct Gradients {
  Operand* operands[3] = {nullptr, nullptr, nullptr};
  View dx, dweight, dbias;
  bool accumulate;

  Gradients(RowsCall& call, const Array* weight, const Array* bias, PyObject* dx_out, PyObject* grads_out,
            PyObject* accumulate_flag)
      : accumulate(flag_argument(accumulate_flag, "accumulate", false)) {
    PyObject* given_arrays[2] = {nullptr, nullptr};
    if (given(grads_out)) {
      if (!(PyTuple_Check(grads_out) || PyList_Check(grads_out)) || PySequence_Fast_GET_SIZE(grads_out) != 2)
        raise(PyExc_TypeError,
              "grads_out is %R; it should be a pair (dweight, dbias), where an entry may be None", grads_out);
      for (int i = 0; i < 2; ++i) given_arrays[i] = PySequence_Fast_GET_ITEM(grads_out, i);
    } else if (accumulate) {
      raise(PyExc_ValueError,
            "accumulate is True, but grads_out is None; it should be the arrays to add into");
    }
    dx = call.result_like_x(dx_out, "dx_out", &operands[0]);
    const Array* parameters[2] = {weight, bias};
    static constexpr const char* parameter_names[2] = {"weight", "bias"};
    static constexpr const char* names[2] = {"grads_out[0]", "grads_out[1]"};
    View* views[2] = {&dweight, &dbias};
    for (int i = 0; i < 2; ++i) {
      if (parameters[i] == nullptr) {
        if (given(given_arrays[i]))
          raise(PyExc_ValueError, "%s is given, but %s is None; it should be None too", names[i],
                parameter_names[i]);
        continue;
      }
      if (accumulate && !given(given_arrays[i]))
        raise(PyExc_ValueError, "accumulate is True, but %s is None; it should be the array to add into",
              names[i]);
      *views[i] = call.gradient(*parameters[i], given_arrays[i], names[i], &operands[1 + i]);
    }
    // The operation never sees the bias, whose values do not matter; it must not be overwritten all the same.
    for (const Operand* out : operands) {
      if (out != nullptr && bias != nullptr && extent_of(out->array).overlaps(extent_of(*bias)))
        raise(PyExc_ValueError, "%s shares memory with bias; it should be separate memory", out->array.name);
    }
  }
};

constexpr const char* kLayerNorm =
    "layer_norm(x, normalized_shape, weight=None, bias=None, eps=1e-05, *, axis=None, return_stats=False, "
    "out=None)";

PyObject* layer_norm_call(PyObject* const* slots) {
  enum { kX, kNormalizedShape, kWeight, kBias, kEps, kAxis, kReturnStats, kOut };
  RowsCall call(slots[kX], slots[kNormalizedShape], slots[kAxis]);
  LayerNormArgs args;
  Operand *y, *mean = nullptr, *rstd = nullptr;
  args.x = call.x_view();
  args.weight = call.parameter(slots[kWeight], "weight");
  args.bias = call.parameter(slots[kBias], "bias");
  args.eps = number_argument(slots[kEps], "eps", args.eps);
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
  const Array *weight = nullptr, *bias = nullptr;
  args.x = call.x_view();
  args.dy = call.same_as_x(slots[kDy], "dy");
  args.weight = call.parameter(slots[kWeight], "weight", &weight);
  call.parameter(slots[kBias], "bias", &bias);
  args.eps = number_argument(slots[kEps], "eps", args.eps);
  if (given(slots[kMean]) != given(slots[kRstd]))
    raise(PyExc_ValueError, "%s is given, but %s is None; they should be given together or not at all",
          given(slots[kMean]) ? "mean" : "rstd", given(slots[kMean]) ? "rstd" : "mean");
  args.mean = call.saved_statistics(slots[kMean], "mean");
  args.rstd = call.saved_statistics(slots[kRstd], "rstd");
  Gradients gradients(call, weight, bias, slots[kDxOut], slots[kGradsOut], slots[kAccumulate]);
  args.dx = gradients.dx;
  args.dweight = gradients.dweight;
  args.dbias = gradients.dbias;
  args.accumulate = gradients.accumulate;
  call.run(call.shape(), args, &layer_norm_backward_workspace_bytes, &layer_norm_backward_plan);
  return result_tuple(call.x(), gradients.operands, 3);
}

constexpr const char* kRmsNorm =
    "rms_norm(x, normalized_shape, weight=None, eps=None, *, bias=None, weight_offset=0.0, axis=None, "
    "return_stats=False, out=None)";

PyObject* rms_norm_call(PyObject* const* slots) {
  enum { kX, kNormalizedShape, kWeight, kEps, kBias, kWeightOffset, kAxis, kReturnStats, kOut };
  RowsCall call(slots[kX], slots[kNormalizedShape], slots[kAxis]);
  RmsNormArgs args;
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
  const Array *weight = nullptr, *bias = nullptr;
  args.x = call.x_view();
  args.dy = call.same_as_x(slots[kDy], "dy");
  args.weight = call.parameter(slots[kWeight], "weight", &weight);
  call.parameter(slots[kBias], "bias", &bias);
  args.eps = rms_eps(slots[kEps], call);
  args.weight_offset = number_argument(slots[kWeightOffset], "weight_offset", args.weight_offset);
  args.rstd = call.saved_statistics(slots[kRstd], "rstd");
  Gradients gradients(call, weight, bias, slots[kDxOut], slots[kGradsOut], slots[kAccumulate]);
  args.dx = gradients.dx;
  args.dweight = gradients.dweight;
  args.dbias = gradients.dbias;
  args.accumulate = gradients.accumulate;
  call.run(call.shape(), args, &rms_norm_backward_workspace_bytes, &rms_norm_backward_plan);
  return result_tuple(call.x(), gradients.operands, 3);
}

}  // namespace

void add_rows_operations(PyObject* module) {
  Function<layer_norm_call>::add(module, kLayerNorm, docs::kLayerNorm);
  Function<layer_norm_backward_call>::add(module, kLayerNormBackward, docs::kLayerNormBackward);
  Function<rms_norm_call>::add(module, kRmsNorm, docs::kRmsNorm);
  Function<rms_norm_backward_call>::add(module, kRmsNormBackward, docs::kRmsNormBackward);
}

}  // namespace normkit::python
