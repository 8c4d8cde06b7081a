// Residual sums and activations: the bits of the operations one after the other; refusals write nothing.
#include <gtest/gtest.h>

#include <cmath>

#include "data.hpp"
#include "normkit/normkit.hpp"

namespace tests {
namespace {

using namespace normkit;

constexpr DType kTypes[] = {DType::kF32, DType::kF64, DType::kF16, DType::kBF16};
constexpr int64_t kShapes[][2] = {{1, 1}, {3, 5}, {9, 64}, {70, 33}, {5, 768}, {2, 1030}};

Array random_array(DType dtype, int64_t count, uint64_t seed) {
  Array array(dtype, count);
  Random random(seed);
  // Sums of quarters are exact in 16 bits.
  const double step = size_of(dtype) == 2 ? 0.25 : 0x1p-30;
  for (size_t i = 0; i < array.size(); ++i) array.set(i, std::floor((random.normal() + 0.25) / step) * step);
  return array;
}
ConstView in(const Array& a) {
  return {a.bytes.data(), a.dtype};
}
View out(Array& a) {
  return {a.bytes.data(), a.dtype};
}

// A sum of two floats is rounded correctly also by way of double.
Array sum_of(const Array& x, const Array& residual) {
  Array sum(x);
  for (size_t i = 0; i < sum.size(); ++i) sum.set(i, x[i] + residual[i]);
  return sum;
}

template <typename Args>
Args add_arguments(const Array& x, const Array& residual, const Array& weight, const Array& bias, Array& y,
                   Array& sum) {
  Args args;
  args.x = in(x);
  args.residual = in(residual);
  args.weight = in(weight);
  args.bias = in(bias);
  args.y = out(y);
  args.sum = out(sum);
  return args;
}

template <typename Args>
Args norm_arguments(const Array& x, const Array& weight, const Array& bias, Array& y) {
  Args args;
  args.x = in(x);
  args.weight = in(weight);
  args.bias = in(bias);
  args.y = out(y);
  return args;
}

TEST(Fused, SumThenNorm) {
  for (DType dtype : kTypes) {
    for (const auto& size : kShapes) {
      const RowsShape shape{1, 1, size};
      const int64_t count = size[0] * size[1];
      const Array x = random_array(dtype, count, 1), residual = random_array(dtype, count, 2);
      const Array weight = random_array(dtype, size[1], 3), bias = random_array(dtype, size[1], 4);
      const Array expected_sum = sum_of(x, residual);
      Array expected(x), y(x), sum(x);
      for (bool rms : {false, true}) {
        if (rms) {
          ASSERT_EQ(rms_norm(shape, norm_arguments<RmsNormArgs>(expected_sum, weight, bias, expected)),
                    Status::kOk);
          ASSERT_EQ(add_rms_norm(shape, add_arguments<AddRmsNormArgs>(x, residual, weight, bias, y, sum)),
                    Status::kOk);
        } else {
          ASSERT_EQ(layer_norm(shape, norm_arguments<LayerNormArgs>(expected_sum, weight, bias, expected)),
                    Status::kOk);
          ASSERT_EQ(add_layer_norm(shape, add_arguments<AddLayerNormArgs>(x, residual, weight, bias, y, sum)),
                    Status::kOk);
        }
        EXPECT_EQ(sum.bytes, expected_sum.bytes) << dtype_name(dtype) << " " << size[1];
        EXPECT_EQ(y.bytes, expected.bytes) << dtype_name(dtype) << " " << size[1];
      }
      Array first(x), second(residual);  // the results where the addends lie
      ASSERT_EQ(
          add_rms_norm(shape, add_arguments<AddRmsNormArgs>(first, second, weight, bias, first, second)),
          Status::kOk);
      EXPECT_EQ(first.bytes, expected.bytes);
      EXPECT_EQ(second.bytes, expected_sum.bytes);
    }
  }
}

// One number for all elements, which the lanes behind a row's end must not count.
TEST(Fused, ResidualBiasOfOneNumber) {
  for (DType dtype : kTypes) {
    for (const auto& size : kShapes) {
      const RowsShape shape{1, 1, size};
      const Array x = random_array(dtype, size[0] * size[1], 1),
                  residual = random_array(dtype, size[0] * size[1], 2);
      const Array weight = random_array(dtype, size[1], 3), bias = random_array(dtype, size[1], 4);
      Array number(dtype, 1), all(dtype, size[1]), y(x), sum(x), expected(x), expected_sum(x);
      number.set(0, 3.25);
      for (size_t i = 0; i < all.size(); ++i) all.set(i, 3.25);
      const int64_t stride[] = {0};
      auto args = add_arguments<AddLayerNormArgs>(x, residual, weight, bias, expected, expected_sum);
      args.residual_bias = in(all);
      ASSERT_EQ(add_layer_norm(shape, args), Status::kOk);
      args = add_arguments<AddLayerNormArgs>(x, residual, weight, bias, y, sum);
      args.residual_bias = {number.bytes.data(), dtype, stride};
      ASSERT_EQ(add_layer_norm(shape, args), Status::kOk);
      EXPECT_EQ(sum.bytes, expected_sum.bytes) << dtype_name(dtype) << " " << size[1];
      EXPECT_EQ(y.bytes, expected.bytes) << dtype_name(dtype) << " " << size[1];
    }
  }
}

TEST(Fused, GradientOfTheSum) {
  for (DType dtype : {DType::kF32, DType::kF64}) {
    for (const auto& size : kShapes) {
      const RowsShape shape{1, 1, size};
      const int64_t count = size[0] * size[1];
      const Array summed = random_array(dtype, count, 1), dy = random_array(dtype, count, 2);
      const Array dsum = random_array(dtype, count, 3), weight = random_array(dtype, size[1], 4);
      Array dx(summed), dsummed(summed);
      LayerNormBackwardArgs plain;
      plain.dy = in(dy);
      plain.x = in(summed);
      plain.weight = in(weight);
      plain.dx = out(dx);
      ASSERT_EQ(layer_norm_backward(shape, plain), Status::kOk);
      AddLayerNormBackwardArgs args;
      args.dy = in(dy);
      args.summed = in(summed);
      args.weight = in(weight);
      args.dsummed = out(dsummed);
      ASSERT_EQ(add_layer_norm_backward(shape, args), Status::kOk);
      EXPECT_EQ(dsummed.bytes, dx.bytes);
      args.dsum = in(dsum);
      ASSERT_EQ(add_layer_norm_backward(shape, args), Status::kOk);
      EXPECT_EQ(dsummed.bytes, sum_of(dx, dsum).bytes) << dtype_name(dtype) << " " << size[1];
      Array work(dsum);
      args.dsum = in(work);
      args.dsummed = out(work);
      ASSERT_EQ(add_layer_norm_backward(shape, args), Status::kOk);
      EXPECT_EQ(work.bytes, dsummed.bytes);
    }
  }
}

double exact_activation(Activation activation, double x) {
  switch (activation) {
    case Activation::kRelu:
      return x < 0.0 ? 0.0 : x;
    case Activation::kSilu:
      return x / (1.0 + std::exp(-x));
    case Activation::kGelu:
      return 0.5 * x * std::erfc(-x * std::sqrt(0.5));
    case Activation::kGeluTanh:
      return x / (1.0 + std::exp(-2.0 * std::sqrt(2.0 / std::acos(-1.0)) * (x + 0.044715 * x * x * x)));
    case Activation::kNone:
      break;
  }
  return x;
}

// Rows over the last axis, and over the first: runs and columns.
TEST(Fused, ActivationOfWhatIsReturned) {
  for (Activation activation :
       {Activation::kRelu, Activation::kSilu, Activation::kGelu, Activation::kGeluTanh}) {
    for (DType dtype : kTypes) {
      for (const auto& size : kShapes) {
        for (bool columns : {false, true}) {
          const RowsShape shape{1, 1, size};
          const int64_t strides[] = {1, size[0]};
          const Array x = random_array(dtype, size[0] * size[1], 1);
          Array plain(x), y(x);
          LayerNormArgs args;
          args.x = {x.bytes.data(), dtype, columns ? strides : nullptr};
          args.y = {plain.bytes.data(), dtype, columns ? strides : nullptr};
          ASSERT_EQ(layer_norm(shape, args), Status::kOk);
          args.y.data = y.bytes.data();
          args.activation = activation;
          ASSERT_EQ(layer_norm(shape, args), Status::kOk);
          const double unit = std::ldexp(1.0, -format_of(dtype).mantissa_bits);
          const double units = dtype == DType::kF64 ? 16.0 : activation == Activation::kSilu ? 2.0 : 1.0;
          for (size_t i = 0; i < x.size(); ++i) {
            const double exact = exact_activation(activation, plain[i]);
            ASSERT_NEAR(y[i], exact, units * unit * std::fabs(exact) + 1e-7 * unit)
                << dtype_name(dtype) << " " << plain[i];
          }
        }
      }
    }
  }
}

struct SumCall {
  int64_t size[2] = {4, 16};
  RowsShape shape{1, 1, size};
  Array x = random_array(DType::kF32, 64, 1), residual = random_array(DType::kF32, 64, 2);
  Array weight = random_array(DType::kF32, 16, 3), y = x, sum = x;
  AddLayerNormArgs args = add_arguments<AddLayerNormArgs>(x, residual, weight, weight, y, sum);

  void expect(Status status) {
    const Array y_before = y, sum_before = sum;
    EXPECT_EQ(add_layer_norm(shape, args), status);
    EXPECT_STRNE(status_message(status), "unknown status");
    if (status == Status::kOk) return;
    EXPECT_EQ(y.bytes, y_before.bytes);
    EXPECT_EQ(sum.bytes, sum_before.bytes);
  }
};

TEST(Fused, Refusals) {
  SumCall().expect(Status::kOk);
  const auto with = [](auto change, Status status) {
    SumCall call;
    change(call);
    call.expect(status);
  };
  with([](SumCall& c) { c.args.residual = {}; }, Status::kNullPointer);
  with([](SumCall& c) { c.args.sum = {}; }, Status::kNullPointer);
  with([](SumCall& c) { c.args.residual.dtype = DType::kF16; }, Status::kInvalidDType);
  with([](SumCall& c) { c.args.sum.dtype = DType::kF64; }, Status::kInvalidDType);
  with([](SumCall& c) { c.args.residual_bias = {c.weight.bytes.data(), DType::kF16}; },
       Status::kInvalidDType);
  with([](SumCall& c) { c.args.eps = NAN; }, Status::kInvalidEps);
  with([](SumCall& c) { c.args.sum = c.args.y; }, Status::kOverlap);
  with([](SumCall& c) { c.args.sum.data = c.weight.bytes.data(); }, Status::kOverlap);
  with([](SumCall& c) { c.args.sum.data = c.x.bytes.data() + 4; }, Status::kOverlap);
  with([](SumCall& c) { c.args.y.data = c.residual.bytes.data() + 8; }, Status::kOverlap);
  with([](SumCall& c) { c.args.activation = static_cast<Activation>(5); }, Status::kInvalidActivation);
  with([](SumCall& c) { c.args.activation = static_cast<Activation>(-1); }, Status::kInvalidActivation);
}

}  // namespace
}  // namespace tests
