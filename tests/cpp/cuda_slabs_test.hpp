// Sets in shared memory (slabs.cuh) against the CPU, and against the same kernels without shared memory.
// Forward: 64 sets or more, of more than 8 blocks each. Backward: 64 or more whose weight has a number for
// each channel. Included by cuda_test.cpp, so that the kernels are compiled once.
#ifndef NORMKIT_TESTS_CUDA_SLABS_TEST_HPP_
#define NORMKIT_TESTS_CUDA_SLABS_TEST_HPP_

#include <gtest/gtest.h>

#include "cuda_device.hpp"
#include "problem.hpp"

namespace tests {
namespace {

using Bundle = std::vector<Array>;

ConstView in(const Array& a) {
  return {a.bytes.data(), a.dtype};
}
View out(Array& a) {
  return {a.bytes.data(), a.dtype};
}

// A call on copies of the arrays: on the CPU, on the device, and there without shared memory, which takes
// more workspace.
void expect_same_slabs(const Bundle& arrays, const std::function<Status(Bundle&, Plan*)>& plan_of,
                       const std::string& what) {
  const auto same = [](const Bundle& a, const Bundle& b) {
    for (size_t i = 0; i < a.size(); ++i)
      if (a[i].bytes != b[i].bytes) return false;
    return true;
  };
  Bundle cpu(arrays), device(arrays), without(arrays);
  Plan plan;
  ASSERT_EQ(plan_of(cpu, &plan), Status::kOk) << what;
  execute(plan);
  ASSERT_EQ(plan_of(device, &plan), Status::kOk) << what;
  const size_t bytes = bytes_on_device(plan);
  ASSERT_EQ(on_device(plan), Status::kOk) << what;
  EXPECT_TRUE(same(cpu, device)) << what;
  Limits none;
  none.memory = 0;
  const Limited limit(none);
  ASSERT_EQ(plan_of(without, &plan), Status::kOk) << what;
  EXPECT_EQ(bytes_on_device(plan) > bytes, limit.kIsLimited) << what;
  ASSERT_EQ(on_device(plan), Status::kOk) << what;
  EXPECT_TRUE(same(cpu, without)) << what << " without";
}

// In an eighth of each period, squares beyond float, then a mean that dwarfs the spread, then subnormals; an
// infinity, a NaN.
Array hard_data(DType dtype, int64_t count, uint64_t seed, size_t period = 77777) {
  Array a(dtype, count);
  Random random(seed);
  for (size_t i = 0; i < a.size(); ++i) {
    const double v = random.uniform() - 0.5;
    const double of_place[] = {v, v * (dtype == DType::kF16 ? 60000.0 : 1e38), 1000.0 + v, 1e-39 * v};
    a.set(i, i % period < period / 8 ? of_place[i / period % 4] : v);
  }
  const size_t size = static_cast<size_t>(size_of(dtype));
  unsigned char* nan = a.bytes.data() + period * 2 / 3 * size;  // with a payload
  std::memset(nan, 0xFF, size);
  unsigned char* infinity = nan + period / 2 * size;
  const uint16_t high = dtype == DType::kF16 ? 0x7C00 : 0x7F80;
  std::memset(infinity, 0, size);
  std::memcpy(infinity + size - 2, &high, 2);
  return a;
}

TEST(Cuda, Slabs) {
  for (const Operation& op : operations()) {
    const std::vector<Dims> rows = {{64, 1, 8193}, {65, 3, 6667}, {64, 1, 57000}};
    const std::vector<Dims> channels = {{2, 33, 8281}, {16, 8, 4200, 4}, {9, 64, 1025}};
    for (const Dims& d : op.over_rows ? rows : channels) {
      if (op.sets(d) < 64 || d.elements() / op.sets(d) <= 8192) continue;
      for (DType dtype : {DType::kF32, DType::kF16, DType::kBF16}) {
        for (const bool in_place : {false, true}) {
          if (d.S == 57000 && (dtype != DType::kF32 || in_place)) continue;  // nearly all the memory, once
          const int64_t gap = in_place ? 7 : 0, strides[] = {d.C * d.S + gap, d.S, 1};
          const Array x = hard_data(dtype, d.N * strides[0], 15), sets(DType::kF64, op.sets(d));
          const Problem p(op, {1, d.C, op.over_rows ? d.S : 1, d.G}, dtype);
          const auto plan_of = [&](Bundle& b, Plan* plan) {
            Arrays a;
            a.dtype = dtype;
            a.x = b[0].bytes.data();
            a.y = b[in_place ? 0 : 1].bytes.data();
            a.x_strides = a.y_strides = strides;
            a.weight = b[2].bytes.data();
            a.bias = b[3].bytes.data();
            a.mean = reinterpret_cast<double*>(b[4].bytes.data());
            a.rstd = reinterpret_cast<double*>(b[5].bytes.data());
            return op.forward_plan(d, a, plan);
          };
          expect_same_slabs({x, Array(x), p.weight, p.bias, sets, sets}, plan_of,
                            std::string(op.name) + " " + dtype_name(dtype) + " " + std::to_string(d.S) +
                                (in_place ? " in place" : ""));
        }
      }
    }
  }
}

// What is no slab takes a workspace: fewer sets, larger ones, elements that do not lie side by side.
TEST(Cuda, NoSlabs) {
  const Array x(DType::kF32, 64 * 58000);
  Array y(x);
  const auto bytes = [&](int64_t rows, int64_t n, int64_t stride) {
    const int64_t size[] = {rows, n}, strides[] = {n * stride, stride};
    LayerNormArgs args;
    args.x = {x.bytes.data(), x.dtype, strides};
    args.y = out(y);
    Plan plan;
    EXPECT_EQ(layer_norm_plan({1, 1, size}, args, {}, &plan), Status::kOk);
    return bytes_on_device(plan);
  };
  EXPECT_EQ(bytes(64, 8193, 1), size_t(0));
  EXPECT_GT(bytes(63, 8193, 1), size_t(0));
  EXPECT_GT(bytes(64, 58000, 1), size_t(0));
  EXPECT_GT(bytes(64, 8193, 2), size_t(0));
}

TEST(Cuda, SlabsOfRunningStatistics) {
  const int64_t instances[] = {2, 33, 8281}, batch[] = {9, 64, 1025};
  for (DType dtype : {DType::kF32, DType::kBF16}) {
    for (const bool over_batch : {false, true}) {
      const int64_t* size = over_batch ? batch : instances;
      Array x(dtype, size[0] * size[1] * size[2]), channels(DType::kF32, size[1]);
      Random random(17);
      for (size_t i = 0; i < x.size(); ++i) x.set(i, random.uniform());
      for (size_t i = 0; i < channels.size(); ++i) channels.set(i, random.uniform());
      std::vector<unsigned char> workspace(1 << 20);
      expect_same_slabs(
          {x, x, channels, channels, channels},
          [&](Bundle& b, Plan* plan) {
            const auto planned = [&](auto args, auto plan_of) {
              args.x = in(b[0]);
              args.y = out(b[1]);
              args.weight = in(b[2]);
              args.running_mean = out(b[3]);
              args.running_var = out(b[4]);
              args.activation = Activation::kGelu;
              return plan_of(ChannelsShape{3, size}, args);
            };
            const Workspace lent{workspace.data(), workspace.size()};
            if (over_batch)
              return planned(BatchNormArgs(), [&](const auto& shape, const auto& args) {
                return batch_norm_plan(shape, args, lent, plan);
              });
            return planned(InstanceNormArgs(), [&](const auto& shape, const auto& args) {
              return instance_norm_plan(shape, args, lent, plan);
            });
          },
          std::string(dtype_name(dtype)) + (over_batch ? " batch" : " instances"));
    }
  }
}

TEST(Cuda, SlabsOfSums) {
  const int64_t rows = 64, n = 8200, size[] = {rows, n};
  for (DType dtype : {DType::kF32, DType::kF16, DType::kBF16}) {
    const Array x = hard_data(dtype, rows * n, 18), residual = hard_data(dtype, rows * n, 19);
    Array weight(dtype, n), mean(DType::kF64, rows);
    for (size_t i = 0; i < weight.size(); ++i) weight.set(i, 0.001 * static_cast<double>(i));
    for (const bool unrounded : {false, true}) {
      for (const bool in_place : {false, true}) {
        expect_same_slabs(
            {x, residual, x, x, weight, mean, mean},
            [&](Bundle& b, Plan* plan) {
              AddLayerNormArgs args;
              args.x = in(b[0]);
              args.residual = in(b[1]);
              args.residual_bias = args.weight = args.bias = in(b[4]);
              args.sum = out(b[in_place ? 1 : 2]);
              args.y = out(b[in_place ? 0 : 3]);
              args.mean = out(b[5]);
              args.rstd = out(b[6]);
              args.unrounded = unrounded;
              return add_layer_norm_plan({1, 1, size}, args, {}, plan);
            },
            std::string(dtype_name(dtype)) + (unrounded ? " unrounded" : "") + (in_place ? " in place" : ""));
      }
    }
  }
}

// ---- backward ----

struct Backward {
  bool saved;
  int place;  // of dx: an array of its own, dy's, x's
  bool weight, dweight, dbias;
};

// dy and x may lie with gaps between channels.
void expect_same_backward_slabs(const Operation& op, const Dims& d, const Array& dy, const Array& x,
                                const Backward& b) {
  const DType dtype = x.dtype;
  const int64_t count = static_cast<int64_t>(x.size()), strides[] = {count / d.N, count / d.N / d.C, 1};
  const Problem p(op, {1, d.C, 1, d.G}, dtype);
  const Array sets(DType::kF64, op.sets(d));
  const auto arrays = [&](Bundle& from) {
    Arrays a;
    a.dtype = dtype;
    a.dy = from[0].bytes.data();
    a.x = from[1].bytes.data();
    a.dx = from[b.place == 0 ? 2 : size_t(b.place - 1)].bytes.data();
    a.y = from[2].bytes.data();
    a.x_strides = a.y_strides = a.dy_strides = a.dx_strides = strides;
    if (b.weight) a.weight = from[3].bytes.data();
    if (b.dweight) a.dweight = from[4].bytes.data();
    if (b.dbias) a.dbias = from[5].bytes.data();
    a.mean = reinterpret_cast<double*>(from[6].bytes.data());
    a.rstd = reinterpret_cast<double*>(from[7].bytes.data());
    a.saved = b.saved;
    return a;
  };
  Bundle bundle{dy, x, Array(dtype, count), p.weight, p.dweight, p.dbias, sets, sets};
  ASSERT_EQ(forward(op, d, arrays(bundle)), Status::kOk);
  std::vector<unsigned char> workspace(op.backward_bytes(d, arrays(bundle)));
  expect_same_slabs(
      bundle,
      [&](Bundle& from, Plan* plan) {
        return op.backward_plan(d, arrays(from), {workspace.data(), workspace.size()}, plan);
      },
      std::string(op.name) + " " + dtype_name(dtype) + " " + std::to_string(d.N) + "x" + std::to_string(d.C) +
          "x" + std::to_string(d.S) + " place " + std::to_string(b.place));
}

void expect_same_backward_slabs(const Operation& op, const Dims& d, DType dtype, const Backward& b) {
  const int64_t gap = b.place == 1 ? 7 : 0, count = d.N * d.C * (d.S + gap);
  const auto data = [&](uint64_t seed, int64_t parts) {
    return hard_data(dtype, count, seed, static_cast<size_t>(count / parts));
  };
  expect_same_backward_slabs(op, d, data(21, 7), data(22, 5), b);
}

TEST(Cuda, BackwardSlabs) {
  const Backward ways[] = {{true, 0, true, true, true},
                           {false, 1, true, true, false},
                           {true, 2, false, false, true},
                           {false, 0, true, false, false}};
  // One block to a set; several; more than 16 warps and 32 lanes take at once; channels of odd sizes.
  const Dims shapes[] = {{2, 64, 700, 32}, {3, 96, 1025, 24},  {1, 65, 17411, 65},
                         {64, 40, 37, 1},  {17, 64, 1030, 64}, {16, 12, 2100, 4}};
  const DType types[] = {DType::kF32, DType::kF16, DType::kBF16};
  size_t turn = 0;
  for (const Operation& op : operations()) {
    for (const Dims& d : shapes) {
      const bool packs_runs = op.parameters(d) == op.sets(d) && d.S <= 512;  // of samples: not side by side
      if (op.over_rows || op.sets(d) < 64 || packs_runs) continue;
      if (d.elements() > 300000) {  // in one way
        expect_same_backward_slabs(op, d, types[turn % 3], ways[turn % 4]);
        ++turn;
        continue;
      }
      for (DType dtype : types)
        for (const Backward& way : ways) expect_same_backward_slabs(op, d, dtype, way);
    }
  }
}

// Sums of blocks, or of channels, that cancel in their order alone; in float, or where these overflow.
TEST(Cuda, BackwardSlabsInOrder) {
  const Dims shapes[] = {{3, 64, 700}, {1, 64, 2100}, {64, 3, 100}};
  for (DType dtype : {DType::kF32, DType::kBF16}) {
    for (const double huge : {0x1p60, 0x1p127}) {
      for (int way = 0; way < 3; ++way) {
        const Dims& d = shapes[way];
        Array dy(dtype, d.elements()), x(dy);
        Random random(23);
        double values[1024];
        for (double& value : values) value = random.normal();
        for (size_t i = 0; i < x.size(); ++i) {
          const size_t S = static_cast<size_t>(d.S), C = static_cast<size_t>(d.C), at = i % S;
          const size_t block = way == 0 ? i / S / C : way == 1 ? at / 1024 : i / S % C;
          const double of_block[] = {huge, -huge, 1.0};
          dy.set(i, of_block[block]);
          x.set(i, values[at % 1024]);  // the same in all blocks: xhat dy cancels, too
        }
        expect_same_backward_slabs(operations()[static_cast<size_t>(2 + way)], d, dy, x,
                                   {true, 0, false, true, true});
      }
    }
  }
}

// What is no slab takes the workspace that it takes without shared memory.
TEST(Cuda, NoBackwardSlabs) {
  const Array x(DType::kF64, 64 * 29500), sets(DType::kF64, 64);
  Array dx(x);
  const auto is_slab = [&](int64_t C, int64_t S, DType dtype, int64_t stride,
                           const std::function<void(InstanceNormBackwardArgs&)>& change) {
    const int64_t size[] = {1, C, S}, strides[] = {C * S * stride, S * stride, stride};
    InstanceNormBackwardArgs args;
    args.dy = args.x = {x.bytes.data(), dtype, strides};
    args.dx = {dx.bytes.data(), dtype, strides};
    args.mean = args.rstd = in(sets);
    change(args);
    Plan plan;
    EXPECT_EQ(instance_norm_backward_plan({3, size}, args, {}, &plan), Status::kOk);
    const size_t bytes = bytes_on_device(plan);
    Limits none;
    none.memory = 0;
    const Limited limited(none);
    if (!limited.kIsLimited) return bytes == 0;
    EXPECT_TRUE(bytes == 0 || bytes == bytes_on_device(plan));
    return bytes < bytes_on_device(plan);
  };
  const auto as_is = [](InstanceNormBackwardArgs&) {};
  EXPECT_TRUE(is_slab(64, 100, DType::kF32, 1, as_is));
  EXPECT_TRUE(is_slab(64, 28000, DType::kF32, 1, as_is));
  EXPECT_FALSE(is_slab(63, 100, DType::kF32, 1, as_is));
  EXPECT_FALSE(is_slab(64, 29500, DType::kF32, 1, as_is));
  EXPECT_FALSE(is_slab(64, 100, DType::kF32, 2, as_is));
  EXPECT_FALSE(is_slab(64, 100, DType::kF64, 1, as_is));
  EXPECT_FALSE(is_slab(64, 100, DType::kF32, 1, [](InstanceNormBackwardArgs& a) { a.dx = {}; }));
  EXPECT_FALSE(is_slab(64, 100, DType::kF32, 1, [&](InstanceNormBackwardArgs& a) {
    a.mean = a.rstd = {};
    a.given_mean = a.given_var = in(sets);
  }));
  EXPECT_FALSE(is_slab(64, 100, DType::kF32, 1, [&](InstanceNormBackwardArgs& a) {
    a.sum_dy = a.sum_dy_xhat = in(sets);
    a.count = 200;
  }));
}

}  // namespace
}  // namespace tests

#endif  // NORMKIT_TESTS_CUDA_SLABS_TEST_HPP_
