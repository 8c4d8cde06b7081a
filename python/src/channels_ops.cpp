// batch_norm, instance_norm, group_norm and their gradients: argument lists; the work is ChannelsCall's.
#include <cmath>

#include "call.hpp"
#include "normkit/detail/convert.hpp"
#include "normkit/normkit.hpp"
#include "ops.hpp"
#include "signature.hpp"

namespace normkit::python {
namespace {

constexpr const char* kParameters[] = {"weight", "bias", nullptr};

// What batch_norm and instance_norm normalize with, and where it comes from.
struct Source {
  ConstView mean, var, rstd;       // given ones; without them the statistics are x's
  View running_mean, running_var;  // to be updated
  bool given() const { return mean.data != nullptr; }
};

// `from_x`: statistics are x's, and the running ones follow them.
Source read_source(ChannelsCall& call, bool from_x, PyObject* running_mean, PyObject* running_var,
                   const char* flag) {
  Source source;
  constexpr const char* kWhat = "one number for each channel";
  check_together(running_mean, "running_mean", running_var, "running_var");
  if (from_x) {
    source.running_mean = call.updated(running_mean, "running_mean", call.channels(), 1, kWhat);
    source.running_var = call.updated(running_var, "running_var", call.channels(), 1, kWhat);
  } else {
    if (!given(running_mean))
      raise(PyExc_ValueError, "running_mean and running_var are None; without %s they should be arrays",
            flag);
    source.mean = call.numbers(running_mean, "running_mean", call.channels(), 1, kWhat);
    source.var = call.numbers(running_var, "running_var", call.channels(), 1, kWhat);
  }
  return source;
}

template <typename Args>
void set_source(Args& args, const Source& source) {
  args.given_mean = source.mean;
  args.given_var = source.var;
  args.given_rstd = source.rstd;
}

double number_at(const ConstView& view, int64_t i) {
  const int64_t at = i * (view.strides != nullptr ? view.strides[0] : 1);
  const char* data = static_cast<const char*>(view.data) + at * size_of(view.dtype);
  switch (view.dtype) {
    case DType::kF64:
      return *reinterpret_cast<const double*>(data);
    case DType::kF32:
      return static_cast<double>(*reinterpret_cast<const float*>(data));
    case DType::kF16:
      return static_cast<double>(detail::to_float(*reinterpret_cast<const Float16*>(data)));
    case DType::kBF16:
      return static_cast<double>(detail::to_float(*reinterpret_cast<const BFloat16*>(data)));
  }
  return 0.0;
}

// Given statistics as they are returned, repeated for each sample.
void write_given(const Source& source, double eps, int64_t samples, int64_t channels, const View& mean,
                 const View& rstd) {
  for (int64_t s = 0; s < samples; ++s) {
    for (int64_t c = 0; c < channels; ++c) {
      static_cast<double*>(mean.data)[s * channels + c] = number_at(source.mean, c);
      static_cast<double*>(rstd.data)[s * channels + c] =
          source.rstd.data != nullptr ? number_at(source.rstd, c)
                                      : 1.0 / std::sqrt(number_at(source.var, c) + eps);
    }
  }
}

// Runs a forward pass whose statistics have the shape `sizes`, and makes its result.
template <typename Args>
PyObject* run_forward(ChannelsCall& call, Args& args, const Source& source, PyObject* return_stats_flag,
                      PyObject* out, const int64_t* sizes, int32_t ndim,
                      size_t (*workspace_bytes)(const ChannelsShape&, const Args&) noexcept,
                      Status (*plan)(const ChannelsShape&, const Args&, Workspace, Plan*) noexcept) {
  Operand *y, *mean = nullptr, *rstd = nullptr;
  const bool return_stats = flag_argument(return_stats_flag, "return_stats", false);
  if (return_stats && source.given() && call.on_device())
    raise(
        PyExc_TypeError,
        "return_stats is True, but the statistics are given, and on a CUDA device they are not written out; "
        "it should be False");
  args.x = call.x_view();
  args.y = call.result_like_x(out, "out", &y);
  View mean_view, rstd_view;
  if (return_stats) {
    mean_view = call.new_array("mean", DType::kF64, sizes, ndim, &mean);
    rstd_view = call.new_array("rstd", DType::kF64, sizes, ndim, &rstd);
    if (!source.given()) {
      args.mean = mean_view;
      args.rstd = rstd_view;
    }
  }
  call.run(call.shape(), args, workspace_bytes, plan);
  if (return_stats && source.given())
    write_given(source, args.eps, ndim == 2 ? sizes[0] : 1, call.channels()[0], mean_view, rstd_view);
  return forward_result(call, return_stats, y, mean, rstd);
}

// Running statistics that a backward pass is given: read, whether they are used or not, and never written.
struct Running {
  const Array* arrays[2] = {};
  Running() {}
  Running(ChannelsCall& call, PyObject* mean, PyObject* var) {
    call.numbers(mean, "running_mean", call.channels(), 1, "one number for each channel", &arrays[0]);
    call.numbers(var, "running_var", call.channels(), 1, "one number for each channel", &arrays[1]);
  }
  void keep(const Gradients& gradients) const {
    for (const Array* array : arrays) gradients.keep_away_from(array);
  }
};

// The last arguments of every gradient, in this order: mean, rstd, dx_out, grads_out, accumulate.
template <typename Args>
PyObject* run_backward(ChannelsCall& call, Args& args, PyObject* dy, PyObject* weight, PyObject* bias,
                       const Running& running, PyObject* const* last, const int64_t* sizes, int32_t ndim,
                       const char* what,
                       size_t (*workspace_bytes)(const ChannelsShape&, const Args&) noexcept,
                       Status (*plan)(const ChannelsShape&, const Args&, Workspace, Plan*) noexcept) {
  const Array* arrays[2] = {};
  args.x = call.x_view();
  args.dy = call.same_as_x(dy, "dy");
  args.weight = call.per_channel(weight, "weight", &arrays[0]);
  call.per_channel(bias, "bias", &arrays[1]);
  if (sizes != nullptr) {
    check_together(last[0], "mean", last[1], "rstd");
    args.mean = call.statistics(last[0], "mean", sizes, ndim, what);
    args.rstd = call.statistics(last[1], "rstd", sizes, ndim, what);
  }
  if (args.sum_dy.data != nullptr) arrays[0] = nullptr;  // the parameters' gradients are the sums themselves
  Gradients gradients(call, arrays, kParameters, last[2], last[3], last[4]);
  running.keep(gradients);
  args.dx = gradients.dx;
  args.dweight = gradients.parameters[0];
  args.dbias = gradients.parameters[1];
  args.accumulate = gradients.accumulate;
  call.run(call.shape(), args, workspace_bytes, plan);
  return gradients.result(call);
}

constexpr const char* kPerChannel = "one number for each channel";
constexpr const char* kPerInstance = "one number for each sample and channel";
constexpr const char* kPerGroup = "one number for each sample and group";

// ---- batch_norm ----

constexpr const char* kBatchNorm =
    "batch_norm(x, running_mean, running_var, weight=None, bias=None, training=False, momentum=0.1, "
    "eps=1e-05, *, channel_axis=1, mean=None, rstd=None, return_stats=False, out=None, activation=None)";

// Statistics of x's own; where they are a larger batch's, x may have one value for each channel.
void check_batch(const ChannelsCall& call) {
  if (call.samples() * call.space() == 1 && call.channels()[0] > 0)
    raise(
        PyExc_ValueError,
        "x has shape %U, one value for each channel; in training there should be more than one: its variance "
        "is 0",
        shape_text(call.x()).ptr());
}

PyObject* batch_norm_call(PyObject* const* slots) {
  enum {
    kX,
    kRunningMean,
    kRunningVar,
    kWeight,
    kBias,
    kTraining,
    kMomentum,
    kEps,
    kChannelAxis,
    kMean,
    kRstd,
    kReturnStats,
    kOut,
    kActivation
  };
  ChannelsCall call(slots[kX], slots[kChannelAxis], "x", Kernels::kHostAndCuda);
  BatchNormArgs args;
  args.activation = activation_argument(slots[kActivation]);
  args.weight = call.per_channel(slots[kWeight], "weight");
  args.bias = call.per_channel(slots[kBias], "bias");
  args.eps = eps_argument(slots[kEps], args.eps);
  args.momentum = number_argument(slots[kMomentum], "momentum", args.momentum);
  const bool training = flag_argument(slots[kTraining], "training", false);
  check_together(slots[kMean], "mean", slots[kRstd], "rstd");
  Source source;
  if (given(slots[kMean])) {
    source.mean = call.statistics(slots[kMean], "mean", call.channels(), 1, kPerChannel);
    source.rstd = call.statistics(slots[kRstd], "rstd", call.channels(), 1, kPerChannel);
    if (training && (given(slots[kRunningMean]) || given(slots[kRunningVar])))
      raise(PyExc_ValueError,
            "mean and rstd are given, and training is True: running_mean and running_var cannot follow them "
            "here, as it is not known of how many values they are; they should be None, and be updated once "
            "for the whole batch, by normkit.Moments.update_running");
  } else {
    source = read_source(call, training, slots[kRunningMean], slots[kRunningVar], "training");
    if (training) check_batch(call);
  }
  set_source(args, source);
  args.running_mean = source.running_mean;
  args.running_var = source.running_var;
  return run_forward(call, args, source, slots[kReturnStats], slots[kOut], call.channels(), 1,
                     &batch_norm_workspace_bytes, &batch_norm_plan);
}

constexpr const char* kBatchNormBackward =
    "batch_norm_backward(dy, x, running_mean, running_var, weight=None, bias=None, training=False, "
    "momentum=0.1, eps=1e-05, *, channel_axis=1, mean=None, rstd=None, dx_out=None, grads_out=None, "
    "accumulate=False, sums=None)";

// A GradSums: the sums of all micro-batches. Keeps their arrays alive in `sums`.
void read_sums(ChannelsCall& call, PyObject* argument, nb::object* sums, BatchNormBackwardArgs& args) {
  static constexpr const char* kNames[] = {"sum_dy", "sum_dy_xhat"};
  for (int i = 0; i < 2; ++i) {
    sums[i] = nb::steal(PyObject_GetAttrString(argument, kNames[i]));
    if (!sums[i].is_valid())
      raise_from_current(PyExc_TypeError, "sums is %R; it should be a normkit.GradSums", argument);
  }
  const nb::object count = nb::steal(PyObject_GetAttrString(argument, "count"));
  if (!count.is_valid())
    raise_from_current(PyExc_TypeError, "sums is %R; it should be a normkit.GradSums", argument);
  args.count = integer_argument(count.ptr(), "sums.count");
  args.sum_dy = call.statistics(sums[0].ptr(), "sums.sum_dy", call.channels(), 1, kPerChannel);
  args.sum_dy_xhat = call.statistics(sums[1].ptr(), "sums.sum_dy_xhat", call.channels(), 1, kPerChannel);
  if (args.count == 1)
    raise(
        PyExc_ValueError,
        "sums has one value for each channel; in training there should be more than one: its variance is 0");
  if (args.count < call.samples() * call.space())
    raise(PyExc_ValueError,
          "sums has %lld values for each channel, but x alone has %lld; it should hold x's too",
          static_cast<long long>(args.count), static_cast<long long>(call.samples() * call.space()));
}

PyObject* batch_norm_backward_call(PyObject* const* slots) {
  enum {
    kDy,
    kX,
    kRunningMean,
    kRunningVar,
    kWeight,
    kBias,
    kTraining,
    kMomentum,
    kEps,
    kChannelAxis,
    kMean,
    kRstd,
    kDxOut,
    kGradsOut,
    kAccumulate,
    kSums
  };
  ChannelsCall call(slots[kX], slots[kChannelAxis], "x", Kernels::kHostAndCuda);
  BatchNormBackwardArgs args;
  args.eps = eps_argument(slots[kEps], args.eps);
  number_argument(slots[kMomentum], "momentum", 0.0);
  const bool training = flag_argument(slots[kTraining], "training", false);
  check_together(slots[kMean], "mean", slots[kRstd], "rstd");
  if (training) {
    if (!given(slots[kSums])) check_batch(call);
  } else if (given(slots[kMean])) {  // constants
    args.given_mean = call.statistics(slots[kMean], "mean", call.channels(), 1, kPerChannel);
    args.given_rstd = call.statistics(slots[kRstd], "rstd", call.channels(), 1, kPerChannel);
  } else {
    set_source(args, read_source(call, false, slots[kRunningMean], slots[kRunningVar], "training"));
  }
  nb::object sums[2];
  PyObject* bias = slots[kBias];
  if (given(slots[kSums])) {
    if (!training || !given(slots[kMean]))
      raise(PyExc_ValueError, "sums is given; training should be True, and mean and rstd be given too");
    read_sums(call, slots[kSums], sums, args);
    bias = nullptr;
  }
  const Running running(call, slots[kRunningMean], slots[kRunningVar]);
  return run_backward(call, args, slots[kDy], slots[kWeight], bias, running, slots + kMean,
                      training ? call.channels() : nullptr, 1, kPerChannel,
                      &batch_norm_backward_workspace_bytes, &batch_norm_backward_plan);
}

// ---- instance_norm ----

constexpr const char* kInstanceNorm =
    "instance_norm(x, running_mean=None, running_var=None, weight=None, bias=None, use_input_stats=True, "
    "momentum=0.1, eps=1e-05, *, channel_axis=1, return_stats=False, out=None, activation=None)";

void check_instances(const ChannelsCall& call) {
  if (call.space() == 1 && call.x().count > 0)
    raise(PyExc_ValueError,
          "x has shape %U, one value for each sample and channel; with use_input_stats there should be more "
          "than one: its variance is 0",
          shape_text(call.x()).ptr());
}

PyObject* instance_norm_call(PyObject* const* slots) {
  enum {
    kX,
    kRunningMean,
    kRunningVar,
    kWeight,
    kBias,
    kUseInputStats,
    kMomentum,
    kEps,
    kChannelAxis,
    kReturnStats,
    kOut,
    kActivation
  };
  ChannelsCall call(slots[kX], slots[kChannelAxis], "x", Kernels::kHostAndCuda);
  InstanceNormArgs args;
  args.activation = activation_argument(slots[kActivation]);
  args.weight = call.per_channel(slots[kWeight], "weight");
  args.bias = call.per_channel(slots[kBias], "bias");
  args.eps = eps_argument(slots[kEps], args.eps);
  args.momentum = number_argument(slots[kMomentum], "momentum", args.momentum);
  const bool from_x = flag_argument(slots[kUseInputStats], "use_input_stats", true);
  const Source source = read_source(call, from_x, slots[kRunningMean], slots[kRunningVar], "use_input_stats");
  if (from_x) check_instances(call);
  set_source(args, source);
  args.running_mean = source.running_mean;
  args.running_var = source.running_var;
  const int64_t sizes[] = {call.samples(), call.channels()[0]};
  return run_forward(call, args, source, slots[kReturnStats], slots[kOut], sizes, 2,
                     &instance_norm_workspace_bytes, &instance_norm_plan);
}

constexpr const char* kInstanceNormBackward =
    "instance_norm_backward(dy, x, running_mean=None, running_var=None, weight=None, bias=None, "
    "use_input_stats=True, momentum=0.1, eps=1e-05, *, channel_axis=1, mean=None, rstd=None, dx_out=None, "
    "grads_out=None, accumulate=False)";

PyObject* instance_norm_backward_call(PyObject* const* slots) {
  enum {
    kDy,
    kX,
    kRunningMean,
    kRunningVar,
    kWeight,
    kBias,
    kUseInputStats,
    kMomentum,
    kEps,
    kChannelAxis,
    kMean
  };
  ChannelsCall call(slots[kX], slots[kChannelAxis], "x", Kernels::kHostAndCuda);
  InstanceNormBackwardArgs args;
  args.eps = eps_argument(slots[kEps], args.eps);
  number_argument(slots[kMomentum], "momentum", 0.0);
  const bool from_x = flag_argument(slots[kUseInputStats], "use_input_stats", true);
  if (from_x)
    check_instances(call);
  else
    set_source(args, read_source(call, false, slots[kRunningMean], slots[kRunningVar], "use_input_stats"));
  const int64_t sizes[] = {call.samples(), call.channels()[0]};
  const Running running(call, slots[kRunningMean], slots[kRunningVar]);
  return run_backward(call, args, slots[kDy], slots[kWeight], slots[kBias], running, slots + kMean,
                      from_x ? sizes : nullptr, 2, kPerInstance, &instance_norm_backward_workspace_bytes,
                      &instance_norm_backward_plan);
}

// ---- group_norm ----

int64_t groups_of(const ChannelsCall& call, PyObject* argument) {
  const int64_t groups = integer_argument(argument, "num_groups"), channels = call.channels()[0];
  if (groups < 1 || channels % groups != 0)
    raise(PyExc_ValueError, "num_groups is %lld, but x has %lld channels; it should divide them",
          static_cast<long long>(groups), static_cast<long long>(channels));
  return groups;
}

constexpr const char* kGroupNorm =
    "group_norm(x, num_groups, weight=None, bias=None, eps=1e-05, *, channel_axis=1, return_stats=False, "
    "out=None, activation=None)";

PyObject* group_norm_call(PyObject* const* slots) {
  enum { kX, kNumGroups, kWeight, kBias, kEps, kChannelAxis, kReturnStats, kOut, kActivation };
  ChannelsCall call(slots[kX], slots[kChannelAxis], "x", Kernels::kHostAndCuda);
  GroupNormArgs args;
  args.activation = activation_argument(slots[kActivation]);
  args.groups = groups_of(call, slots[kNumGroups]);
  args.weight = call.per_channel(slots[kWeight], "weight");
  args.bias = call.per_channel(slots[kBias], "bias");
  args.eps = eps_argument(slots[kEps], args.eps);
  const int64_t sizes[] = {call.samples(), args.groups};
  return run_forward(call, args, Source{}, slots[kReturnStats], slots[kOut], sizes, 2,
                     &group_norm_workspace_bytes, &group_norm_plan);
}

constexpr const char* kGroupNormBackward =
    "group_norm_backward(dy, x, num_groups, weight=None, bias=None, eps=1e-05, *, channel_axis=1, mean=None, "
    "rstd=None, dx_out=None, grads_out=None, accumulate=False)";

PyObject* group_norm_backward_call(PyObject* const* slots) {
  enum { kDy, kX, kNumGroups, kWeight, kBias, kEps, kChannelAxis, kMean };
  ChannelsCall call(slots[kX], slots[kChannelAxis], "x", Kernels::kHostAndCuda);
  GroupNormBackwardArgs args;
  args.groups = groups_of(call, slots[kNumGroups]);
  args.eps = eps_argument(slots[kEps], args.eps);
  const int64_t sizes[] = {call.samples(), args.groups};
  return run_backward(call, args, slots[kDy], slots[kWeight], slots[kBias], Running(), slots + kMean, sizes,
                      2, kPerGroup, &group_norm_backward_workspace_bytes, &group_norm_backward_plan);
}

// ---- switchable_norm ----

constexpr int64_t kThree[] = {3};
constexpr const char* kLogits = "logits for instance, layer and batch norm";

constexpr const char* kSwitchableNorm =
    "switchable_norm(x, mean_weight, var_weight, weight=None, bias=None, running_mean=None, "
    "running_var=None, training=True, momentum=0.1, eps=1e-05, *, channel_axis=1, out=None, activation=None)";

PyObject* switchable_norm_call(PyObject* const* slots) {
  enum {
    kX,
    kMeanWeight,
    kVarWeight,
    kWeight,
    kBias,
    kRunningMean,
    kRunningVar,
    kTraining,
    kMomentum,
    kEps,
    kChannelAxis,
    kOut,
    kActivation
  };
  ChannelsCall call(slots[kX], slots[kChannelAxis]);
  SwitchableNormArgs args;
  args.activation = activation_argument(slots[kActivation]);
  args.mean_weight = call.parameter(slots[kMeanWeight], "mean_weight", kThree, 1, kLogits);
  args.var_weight = call.parameter(slots[kVarWeight], "var_weight", kThree, 1, kLogits);
  args.weight = call.per_channel(slots[kWeight], "weight");
  args.bias = call.per_channel(slots[kBias], "bias");
  args.momentum = number_argument(slots[kMomentum], "momentum", args.momentum);
  args.eps = eps_argument(slots[kEps], args.eps);
  args.training = flag_argument(slots[kTraining], "training", true);
  const Source source = read_source(call, args.training, slots[kRunningMean], slots[kRunningVar], "training");
  args.running_mean = source.running_mean;
  args.running_var = source.running_var;
  if (source.given()) {  // read only
    args.running_mean = {const_cast<void*>(source.mean.data), source.mean.dtype, source.mean.strides};
    args.running_var = {const_cast<void*>(source.var.data), source.var.dtype, source.var.strides};
  }
  Operand* y;
  args.x = call.x_view();
  args.y = call.result_like_x(slots[kOut], "out", &y);
  call.run(call.shape(), args, &switchable_norm_workspace_bytes, &switchable_norm_plan);
  return y->finish(call.x()).release().ptr();
}

constexpr const char* kSwitchableNormBackward =
    "switchable_norm_backward(dy, x, mean_weight, var_weight, weight=None, bias=None, running_mean=None, "
    "running_var=None, training=True, momentum=0.1, eps=1e-05, *, channel_axis=1, dx_out=None, "
    "grads_out=None, accumulate=False)";

PyObject* switchable_norm_backward_call(PyObject* const* slots) {
  enum {
    kDy,
    kX,
    kMeanWeight,
    kVarWeight,
    kWeight,
    kBias,
    kRunningMean,
    kRunningVar,
    kTraining,
    kMomentum,
    kEps,
    kChannelAxis,
    kDxOut,
    kGradsOut,
    kAccumulate
  };
  static constexpr const char* kNames[] = {"mean_weight", "var_weight", "weight", "bias"};
  ChannelsCall call(slots[kX], slots[kChannelAxis]);
  SwitchableNormBackwardArgs args;
  const Array* arrays[4] = {};
  args.x = call.x_view();
  args.dy = call.same_as_x(slots[kDy], "dy");
  args.mean_weight = call.parameter(slots[kMeanWeight], "mean_weight", kThree, 1, kLogits, &arrays[0]);
  args.var_weight = call.parameter(slots[kVarWeight], "var_weight", kThree, 1, kLogits, &arrays[1]);
  args.weight = call.per_channel(slots[kWeight], "weight", &arrays[2]);
  call.per_channel(slots[kBias], "bias", &arrays[3]);
  number_argument(slots[kMomentum], "momentum", 0.0);
  args.eps = eps_argument(slots[kEps], args.eps);
  args.training = flag_argument(slots[kTraining], "training", true);
  if (!args.training) {
    const Source source = read_source(call, false, slots[kRunningMean], slots[kRunningVar], "training");
    args.running_mean = source.mean;
    args.running_var = source.var;
  }
  Gradients gradients(call, arrays, kNames, slots[kDxOut], slots[kGradsOut], slots[kAccumulate]);
  Running(call, slots[kRunningMean], slots[kRunningVar]).keep(gradients);
  args.dx = gradients.dx;
  args.dmean_weight = gradients.parameters[0];
  args.dvar_weight = gradients.parameters[1];
  args.dweight = gradients.parameters[2];
  args.dbias = gradients.parameters[3];
  args.accumulate = gradients.accumulate;
  call.run(call.shape(), args, &switchable_norm_backward_workspace_bytes, &switchable_norm_backward_plan);
  return gradients.result(call);
}

// ---- adaptive_instance_norm ----

// Reads style and finds its shape.
AdaptiveInstanceNormShape read_style(ChannelsCall& call, PyObject* argument, Operand** style,
                                     int64_t* sizes) {
  *style = &call.another(argument, "style");
  const Array &content = call.x(), &array = (*style)->array;
  const int32_t channel = call.channel_axis();
  if (array.ndim != content.ndim || array.sizes[0] != content.sizes[0] ||
      array.sizes[channel] != content.sizes[channel])
    raise(PyExc_ValueError,
          "style has shape %U; it should have content's number of axes, samples and channels (content has "
          "shape "
          "%U)",
          shape_text(array).ptr(), shape_text(content).ptr());
  if (array.count == 0 && content.count > 0)
    raise(PyExc_ValueError, "style has shape %U, no elements; it should have some", shape_text(array).ptr());
  return {call.shape(), call.another_shape(**style, sizes)};
}

constexpr const char* kAdaptiveInstanceNorm =
    "adaptive_instance_norm(content, style, eps=1e-05, *, channel_axis=1, out=None, activation=None)";

PyObject* adaptive_instance_norm_call(PyObject* const* slots) {
  enum { kContent, kStyle, kEps, kChannelAxis, kOut, kActivation };
  ChannelsCall call(slots[kContent], slots[kChannelAxis], "content");
  AdaptiveInstanceNormArgs args;
  args.activation = activation_argument(slots[kActivation]);
  Operand *style, *y;
  int64_t sizes[kMaxRank];
  const AdaptiveInstanceNormShape shape = read_style(call, slots[kStyle], &style, sizes);
  args.eps = eps_argument(slots[kEps], args.eps);
  args.content = call.x_view();
  args.style = call.another_view(*style);
  args.y = call.result_like_x(slots[kOut], "out", &y);
  call.run(shape, args, &adaptive_instance_norm_workspace_bytes, &adaptive_instance_norm_plan);
  return y->finish(call.x()).release().ptr();
}

constexpr const char* kAdaptiveInstanceNormBackward =
    "adaptive_instance_norm_backward(dy, content, style, eps=1e-05, *, channel_axis=1, dx_out=None, "
    "dstyle_out=None)";

PyObject* adaptive_instance_norm_backward_call(PyObject* const* slots) {
  enum { kDy, kContent, kStyle, kEps, kChannelAxis, kDxOut, kDstyleOut };
  ChannelsCall call(slots[kContent], slots[kChannelAxis], "content");
  AdaptiveInstanceNormBackwardArgs args;
  Operand *style, *outputs[2];
  int64_t sizes[kMaxRank];
  const AdaptiveInstanceNormShape shape = read_style(call, slots[kStyle], &style, sizes);
  args.eps = eps_argument(slots[kEps], args.eps);
  args.content = call.x_view();
  args.style = call.another_view(*style);
  args.dy = call.same_as_x(slots[kDy], "dy");
  args.dcontent = call.result_like_x(slots[kDxOut], "dx_out", &outputs[0]);
  args.dstyle = call.result_like(*style, slots[kDstyleOut], "dstyle_out", &outputs[1]);
  call.run(shape, args, &adaptive_instance_norm_backward_workspace_bytes,
           &adaptive_instance_norm_backward_plan);
  return result_tuple(call.x(), outputs, 2);
}

}  // namespace

void add_channels_operations(PyObject* module) {
  Function<batch_norm_call>::add(module, kBatchNorm, docs::kBatchNorm);
  Function<batch_norm_backward_call>::add(module, kBatchNormBackward, docs::kBatchNormBackward);
  Function<instance_norm_call>::add(module, kInstanceNorm, docs::kInstanceNorm);
  Function<instance_norm_backward_call>::add(module, kInstanceNormBackward, docs::kInstanceNormBackward);
  Function<group_norm_call>::add(module, kGroupNorm, docs::kGroupNorm);
  Function<group_norm_backward_call>::add(module, kGroupNormBackward, docs::kGroupNormBackward);
  Function<switchable_norm_call>::add(module, kSwitchableNorm, docs::kSwitchableNorm);
  Function<switchable_norm_backward_call>::add(module, kSwitchableNormBackward,
                                               docs::kSwitchableNormBackward);
  Function<adaptive_instance_norm_call>::add(module, kAdaptiveInstanceNorm, docs::kAdaptiveInstanceNorm);
  Function<adaptive_instance_norm_backward_call>::add(module, kAdaptiveInstanceNormBackward,
                                                      docs::kAdaptiveInstanceNormBackward);
}

}  // namespace normkit::python
