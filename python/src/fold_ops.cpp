// fold_batch_norm: inference BatchNorm folded into the parameters of the layer before it.
#include <cmath>
#include <vector>

#include "call.hpp"
#include "docs.hpp"
#include "normkit/detail/convert.hpp"
#include "signature.hpp"

namespace normkit::python {
NORMKIT_STRICT_FP_BEGIN  // (bias - mean) scale + bn_bias is rounded after every step on every machine
    namespace {
  double number(const void* data, DType dtype, int64_t at) {
    switch (dtype) {
      case DType::kF64:
        return static_cast<const double*>(data)[at];
      case DType::kF32:
        return static_cast<double>(static_cast<const float*>(data)[at]);
      case DType::kF16:
        return static_cast<double>(detail::to_float(static_cast<const Float16*>(data)[at]));
      case DType::kBF16:
        return static_cast<double>(detail::to_float(static_cast<const BFloat16*>(data)[at]));
    }
    return 0.0;
  }

  void write_number(void* data, DType dtype, int64_t at, double value) {
    switch (dtype) {
      case DType::kF64:
        return detail::write(static_cast<double*>(data) + at, value);
      case DType::kF32:
        return detail::write(static_cast<float*>(data) + at, value);
      case DType::kF16:
        return detail::write(static_cast<Float16*>(data) + at, value);
      case DType::kBF16:
        return detail::write(static_cast<BFloat16*>(data) + at, value);
    }
  }

  // One number for each output channel; `otherwise` where the argument is None.
  std::vector<double> read_channels(const ConstView& view, int64_t channels, double otherwise) {
    std::vector<double> numbers(static_cast<size_t>(channels), otherwise);
    for (int64_t c = 0; view.data != nullptr && c < channels; ++c)
      numbers[static_cast<size_t>(c)] = number(view.data, view.dtype, c * view.strides[0]);
    return numbers;
  }

  constexpr const char* kFoldBatchNorm =
      "fold_batch_norm(weight, bias, running_mean, running_var, bn_weight, bn_bias, eps, *, "
      "transposed=False, "
      "groups=1)";

  constexpr const char kFoldBatchNormDoc[] =
      "Inference BatchNorm folded into the convolution or linear layer before it: (weight, bias).\n"
      "\n"
      "The layer with the returned parameters computes what the layer and then BatchNorm compute: with\n"
      "scale = bn_weight / sqrt(running_var + eps) of each output channel, weight scale and\n"
      "(bias - running_mean) scale + bn_bias, in float64 and rounded once to weight's dtype. How far the "
      "two\n"
      "results differ depends on the layer's own rounding.\n"
      "\n" NORMKIT_DOC_ARRAYS
      "\n"
      "Parameters\n"
      "----------\n"
      "weight : array\n"
      "    (O, I / groups, ...) of a convolution, (O, I) of a linear layer; (I, O / groups, ...) if "
      "`transposed`.\n"
      "bias : array of shape (O,), or None\n"
      "running_mean, running_var : array of shape (O,)\n"
      "bn_weight, bn_bias : array of shape (O,), or None\n"
      "    Of any of the four dtypes, each.\n"
      "eps : float\n"
      "transposed : bool\n"
      "    weight is a transposed convolution's.\n"
      "groups : int\n"
      "\n"
      "Returns\n"
      "-------\n"
      "weight : array\n"
      "    A new array of weight's shape, dtype and axis order.\n"
      "bias : array\n"
      "    A new array of shape (O,) and weight's dtype.\n"
      "\n" NORMKIT_DOC_RAISES;

  PyObject* fold_batch_norm_call(PyObject* const* slots) {
    enum { kWeight, kBias, kRunningMean, kRunningVar, kBnWeight, kBnBias, kEps, kTransposed, kGroups };
    ArrayCall call(slots[kWeight], "weight");
    const Array& weight = call.x();
    const bool transposed = flag_argument(slots[kTransposed], "transposed", false);
    const int64_t groups = slots[kGroups] == nullptr ? 1 : integer_argument(slots[kGroups], "groups");
    if (weight.ndim < 2)
      raise(PyExc_ValueError, "weight has shape %U; it should have two axes of channels at least",
            shape_text(weight).ptr());
    if (groups < 1 || weight.sizes[0] % groups != 0)
      raise(PyExc_ValueError, "groups is %lld, but weight has shape %U; it should divide the first size",
            static_cast<long long>(groups), shape_text(weight).ptr());
    int64_t channels = weight.sizes[0];
    if (transposed && __builtin_mul_overflow(weight.sizes[1], groups, &channels))
      raise(
          PyExc_ValueError,
          "groups is %lld, but weight has shape %U; it should make no more output channels than an array has",
          static_cast<long long>(groups), shape_text(weight).ptr());
    const double eps = eps_argument(slots[kEps], 0.0);
    static constexpr const char* kNames[] = {"bias", "running_mean", "running_var", "bn_weight", "bn_bias"};
    ConstView views[5];  // every one is checked before anything is read or allocated
    for (int i = 0; i < 5; ++i) {
      PyObject* const argument = slots[kBias + i];
      if (!given(argument) && (kBias + i == kRunningMean || kBias + i == kRunningVar))
        raise(PyExc_TypeError, "%s is None; it should be an array", kNames[i]);
      views[i] =
          call.numbers(argument, kNames[i], &channels, 1, "one number for each output channel of weight");
    }
    call.check_aligned();
    const auto numbers = [&](int slot, double otherwise) {
      return read_channels(views[slot - kBias], channels, otherwise);
    };
    std::vector<double> bias = numbers(kBias, 0.0), scale = numbers(kBnWeight, 1.0);
    const std::vector<double> mean = numbers(kRunningMean, 0.0), var = numbers(kRunningVar, 1.0),
                              bn_bias = numbers(kBnBias, 0.0);
    Operand* results[2];
    const View new_weight = call.result_like_x(nullptr, "weight", &results[0]);
    const View new_bias = call.new_array("bias", weight.dtype, &channels, 1, &results[1]);

    const detail::FloatEnvironment environment;
    for (size_t c = 0; c < scale.size(); ++c) {
      scale[c] = scale[c] / std::sqrt(var[c] + eps);
      bias[c] = (bias[c] - mean[c]) * scale[c] + bn_bias[c];
      write_number(new_bias.data, new_bias.dtype, static_cast<int64_t>(c), bias[c]);
    }
    int64_t index[kMaxRank] = {}, from = 0, to = 0;
    for (int64_t i = 0; i < weight.count; ++i) {
      const int64_t channel =
          transposed ? index[0] / (weight.sizes[0] / groups) * weight.sizes[1] + index[1] : index[0];
      write_number(new_weight.data, weight.dtype, to,
                   number(weight.data, weight.dtype, from) * scale[static_cast<size_t>(channel)]);
      for (int32_t a = weight.ndim - 1; a >= 0; --a) {
        const bool more = ++index[a] < weight.sizes[a];
        const int64_t steps = more ? 1 : 1 - weight.sizes[a];
        from += steps * weight.strides[a];
        to += steps * new_weight.strides[a];
        if (more) break;
        index[a] = 0;
      }
    }
    return result_tuple(weight, results, 2);
  }

}  // namespace
NORMKIT_STRICT_FP_END

void add_fold_operations(PyObject* module) {
  Function<fold_batch_norm_call>::add(module, kFoldBatchNorm, kFoldBatchNormDoc);
}

}  // namespace normkit::python
