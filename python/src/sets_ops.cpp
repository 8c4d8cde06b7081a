// norm, normalize, weight_norm, min_max_scale, z_score and their gradients: argument lists; the work is
// SetsCall's.
#include "call.hpp"
#include "normkit/normkit.hpp"
#include "ops.hpp"
#include "signature.hpp"

namespace normkit::python {
namespace {

constexpr const char* kParameters[] = {"weight", "bias", nullptr};

// ---- the general form; patterns are read in Python (pattern.py) ----

constexpr const char* kWhat = "that of the axes named by affine";

constexpr const char* kNorm =
    "_norm(x, parts, run_axes, shape, weight, bias, eps, rms, return_stats=False, out=None, activation=None)";

PyObject* norm_call(PyObject* const* slots) {
  enum { kX, kParts, kRunAxes, kShape, kWeight, kBias, kEps, kRms, kReturnStats, kOut, kActivation };
  SetsCall call(slots[kX], "x", Kernels::kHostAndCuda);
  call.parts(slots[kParts], static_cast<int32_t>(integer_argument(slots[kRunAxes], "run_axes")));
  int64_t affine[kMaxRank], split[2][kMaxRank], kept[kMaxRank];
  const int32_t axes = integer_arguments(slots[kShape], "shape", affine);
  NormArgs args;
  args.activation = activation_argument(slots[kActivation]);
  Operand *y, *mean = nullptr, *rstd = nullptr;
  args.x = call.x_view();
  args.weight = call.on_parts(call.parameter(slots[kWeight], "weight", affine, axes, kWhat), split[0]);
  args.bias = call.on_parts(call.parameter(slots[kBias], "bias", affine, axes, kWhat), split[1]);
  args.eps = eps_argument(slots[kEps], args.eps);
  args.rms = flag_argument(slots[kRms], "rms", false);
  const bool return_stats = flag_argument(slots[kReturnStats], "return_stats", false);
  args.y = call.result_like_x(slots[kOut], "out", &y);
  if (return_stats) {
    const int32_t count = call.sizes_of(~call.shape().normalized, kept);
    if (!args.rms) args.mean = call.new_array("mean", DType::kF64, kept, count, &mean);
    args.rstd = call.new_array("rstd", DType::kF64, kept, count, &rstd);
  }
  call.run(call.shape(), args, &norm_workspace_bytes, &norm_plan);
  return forward_result(call, return_stats, y, mean, rstd);
}

constexpr const char* kNormBackward =
    "_norm_backward(dy, x, parts, run_axes, shape, weight, bias, eps, rms, mean=None, rstd=None, "
    "dx_out=None, "
    "grads_out=None, accumulate=False)";

PyObject* norm_backward_call(PyObject* const* slots) {
  enum {
    kDy,
    kX,
    kParts,
    kRunAxes,
    kShape,
    kWeight,
    kBias,
    kEps,
    kRms,
    kMean,
    kRstd,
    kDxOut,
    kGradsOut,
    kAccumulate
  };
  SetsCall call(slots[kX], "x", Kernels::kHostAndCuda);
  call.parts(slots[kParts], static_cast<int32_t>(integer_argument(slots[kRunAxes], "run_axes")));
  int64_t affine[kMaxRank], split[3][kMaxRank], kept[kMaxRank];
  const int32_t axes = integer_arguments(slots[kShape], "shape", affine);
  NormBackwardArgs args;
  const Array* arrays[2] = {};
  args.x = call.x_view();
  args.dy = call.same_as_x(slots[kDy], "dy");
  args.weight =
      call.on_parts(call.parameter(slots[kWeight], "weight", affine, axes, kWhat, &arrays[0]), split[0]);
  call.parameter(slots[kBias], "bias", affine, axes, kWhat, &arrays[1]);
  args.eps = eps_argument(slots[kEps], args.eps);
  args.rms = flag_argument(slots[kRms], "rms", false);
  const int32_t count = call.sizes_of(~call.shape().normalized, kept);
  if (!args.rms) check_together(slots[kMean], "mean", slots[kRstd], "rstd");
  args.mean = call.statistics(slots[kMean], "mean", kept, count, "that of the axes without brackets");
  args.rstd = call.statistics(slots[kRstd], "rstd", kept, count, "that of the axes without brackets");
  Gradients gradients(call, arrays, kParameters, slots[kDxOut], slots[kGradsOut], slots[kAccumulate]);
  args.dx = gradients.dx;
  args.dweight = call.on_parts(gradients.parameters[0], split[1]);
  args.dbias = call.on_parts(gradients.parameters[1], split[2]);
  args.accumulate = gradients.accumulate;
  call.run(call.shape(), args, &norm_backward_workspace_bytes, &norm_backward_plan);
  return gradients.result(call);
}

// ---- normalize ----

constexpr const char* kNormalize = "normalize(x, p=2.0, axis=1, eps=1e-12, *, out=None, activation=None)";

PyObject* normalize_call(PyObject* const* slots) {
  enum { kX, kP, kAxis, kEps, kOut, kActivation };
  SetsCall call(slots[kX]);
  NormalizeArgs args;
  args.activation = activation_argument(slots[kActivation]);
  Operand* y;
  const nb::int_ one(1);
  call.over(slots[kAxis] != nullptr ? slots[kAxis] : one.ptr());
  args.p = number_argument(slots[kP], "p", args.p);
  args.eps = eps_argument(slots[kEps], args.eps);
  args.x = call.x_view();
  args.y = call.result_like_x(slots[kOut], "out", &y);
  call.run(call.shape(), args, &normalize_workspace_bytes, &normalize_plan);
  return y->finish(call.x()).release().ptr();
}

constexpr const char* kNormalizeBackward =
    "normalize_backward(dy, x, p=2.0, axis=1, eps=1e-12, *, dx_out=None)";

PyObject* normalize_backward_call(PyObject* const* slots) {
  enum { kDy, kX, kP, kAxis, kEps, kDxOut };
  SetsCall call(slots[kX]);
  NormalizeBackwardArgs args;
  Operand* dx;
  const nb::int_ one(1);
  call.over(slots[kAxis] != nullptr ? slots[kAxis] : one.ptr());
  args.p = number_argument(slots[kP], "p", args.p);
  args.eps = eps_argument(slots[kEps], args.eps);
  args.x = call.x_view();
  args.dy = call.same_as_x(slots[kDy], "dy");
  args.dx = call.result_like_x(slots[kDxOut], "dx_out", &dx);
  call.run(call.shape(), args, &normalize_backward_workspace_bytes, &normalize_backward_plan);
  return result_tuple(call.x(), &dx, 1);
}

// ---- weight_norm ----

// Sets of v: all axes but `axis`, along which g varies.
struct WeightNormCall : SetsCall {
  int64_t g_sizes[kMaxRank];
  int32_t g_ndim = 0;

  WeightNormCall(PyObject* v, PyObject* axis) : SetsCall(v, "v") {
    if (axis == Py_None) {
      over(Py_None);
      return;
    }
    const int32_t kept = axis_number(axis == nullptr ? 0 : integer_argument(axis, "axis"), "axis");
    nb::list others;
    for (int32_t i = 0; i < rank(); ++i)
      if (i != kept) others.append(i);
    if (rank() > 1)
      over(others.ptr());
    else
      add_axis(0, x().sizes[0]);
    set_affine(uint64_t(1) << kept);
    kept_ = kept;
  }

  // g: 1-D (a scalar where the whole of v is normalized), or v's rank with ones.
  ConstView g(PyObject* argument, const Array** read) {
    if (!given(argument)) raise(PyExc_TypeError, "g is None; it should be an array");
    Array probe;
    probe.read(argument, "g", Access::kRead);
    g_ndim = probe.ndim == rank() ? rank() : kept_ >= 0 ? 1 : 0;
    for (int32_t i = 0; i < g_ndim; ++i) g_sizes[i] = 1;
    if (kept_ >= 0) g_sizes[probe.ndim == rank() ? kept_ : 0] = x().sizes[kept_];
    return on_kept(
        parameter(argument, "g", g_sizes, g_ndim, "one number for each set (or v's rank with ones)", read));
  }
  template <typename AnyView>
  AnyView on_kept(AnyView view) const {
    if (g_ndim == rank() && kept_ > 0 && view.strides != nullptr) view.strides += kept_;
    return view;
  }

 private:
  int32_t kept_ = -1;
};

constexpr const char* kWeightNorm = "weight_norm(v, g, axis=0, *, out=None)";

PyObject* weight_norm_call(PyObject* const* slots) {
  enum { kV, kG, kAxis, kOut };
  WeightNormCall call(slots[kV], slots[kAxis]);
  WeightNormArgs args;
  Operand* w;
  args.v = call.x_view();
  args.g = call.g(slots[kG], nullptr);
  args.w = call.result_like_x(slots[kOut], "out", &w);
  call.run(call.shape(), args, &weight_norm_workspace_bytes, &weight_norm_plan);
  return w->finish(call.x()).release().ptr();
}

constexpr const char* kWeightNormBackward =
    "weight_norm_backward(dw, v, g, axis=0, *, dx_out=None, grads_out=None, accumulate=False)";

PyObject* weight_norm_backward_call(PyObject* const* slots) {
  enum { kDw, kV, kG, kAxis, kDxOut, kGradsOut, kAccumulate };
  static constexpr const char* kNames[] = {"g", nullptr};
  WeightNormCall call(slots[kV], slots[kAxis]);
  WeightNormBackwardArgs args;
  const Array* arrays[1] = {};
  args.v = call.x_view();
  args.dw = call.same_as_x(slots[kDw], "dw");
  args.g = call.g(slots[kG], &arrays[0]);
  Gradients gradients(call, arrays, kNames, slots[kDxOut], slots[kGradsOut], slots[kAccumulate]);
  args.dv = gradients.dx;
  args.dg = call.on_kept(gradients.parameters[0]);
  args.accumulate = gradients.accumulate;
  call.run(call.shape(), args, &weight_norm_backward_workspace_bytes, &weight_norm_backward_plan);
  return gradients.result(call);
}

// ---- scaling ----

constexpr const char* kMinMaxScale = "min_max_scale(x, axis=0, feature_range=(0, 1), *, out=None)";

// The two entries of a tuple, a list or an array of one axis; else invalid.
nb::object pair_argument(PyObject* object) {
  const nb::object entries = entries_argument(object, 2);
  if (entries.is_valid() || !PyObject_HasAttrString(object, "ndim")) return entries;
  const nb::object list = nb::steal(PySequence_List(object));
  if (!list.is_valid()) PyErr_Clear();
  return list.is_valid() ? entries_argument(list.ptr(), 2) : nb::object();
}

PyObject* min_max_scale_call(PyObject* const* slots) {
  enum { kX, kAxis, kFeatureRange, kOut };
  SetsCall call(slots[kX]);
  MinMaxScaleArgs args;
  Operand* y;
  const nb::int_ zero(0);
  call.over(slots[kAxis] != nullptr ? slots[kAxis] : zero.ptr());
  if (PyObject* range = slots[kFeatureRange]) {
    const nb::object pair = pair_argument(range);
    if (!pair.is_valid())
      raise(PyExc_TypeError, "feature_range is %R; it should be a pair (low, high)", range);
    args.low = number_argument(PyTuple_GET_ITEM(pair.ptr(), 0), "feature_range[0]", 0.0);
    args.high = number_argument(PyTuple_GET_ITEM(pair.ptr(), 1), "feature_range[1]", 0.0);
    const DType dtype = call.x().dtype;
    if (!(args.low < args.high))
      raise(PyExc_ValueError, "feature_range is %R; its first number should be less than the second", range);
    if (!fits(dtype, args.low) || !fits(dtype, args.high))
      raise(PyExc_ValueError, "feature_range is %R; its numbers should be finite in x's dtype, %s", range,
            dtype_name(dtype));
  }
  args.x = call.x_view();
  args.y = call.result_like_x(slots[kOut], "out", &y);
  call.run(call.shape(), args, &min_max_scale_workspace_bytes, &min_max_scale_plan);
  return y->finish(call.x()).release().ptr();
}

constexpr const char* kZScore = "z_score(x, axis=0, *, out=None)";

PyObject* z_score_call(PyObject* const* slots) {
  enum { kX, kAxis, kOut };
  SetsCall call(slots[kX]);
  ZScoreArgs args;
  Operand* y;
  const nb::int_ zero(0);
  call.over(slots[kAxis] != nullptr ? slots[kAxis] : zero.ptr());
  args.x = call.x_view();
  args.y = call.result_like_x(slots[kOut], "out", &y);
  call.run(call.shape(), args, &z_score_workspace_bytes, &z_score_plan);
  return y->finish(call.x()).release().ptr();
}

}  // namespace

void add_sets_operations(PyObject* module) {
  Function<norm_call>::add(module, kNorm, "See normkit.norm.");
  Function<norm_backward_call>::add(module, kNormBackward, "See normkit.norm_backward.");
  Function<normalize_call>::add(module, kNormalize, docs::kNormalize);
  Function<normalize_backward_call>::add(module, kNormalizeBackward, docs::kNormalizeBackward);
  Function<weight_norm_call>::add(module, kWeightNorm, docs::kWeightNorm);
  Function<weight_norm_backward_call>::add(module, kWeightNormBackward, docs::kWeightNormBackward);
  Function<min_max_scale_call>::add(module, kMinMaxScale, docs::kMinMaxScale);
  Function<z_score_call>::add(module, kZScore, docs::kZScore);
}

}  // namespace normkit::python
