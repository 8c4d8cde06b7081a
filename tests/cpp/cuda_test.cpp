// The CUDA backend against the CPU: the same bits, whatever the operation, layout, type, size and data.
#include "cuda_device.hpp"
//
#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "golden_cases.hpp"

namespace tests {
namespace {

using cuda::lent_later;

// The problem's forward and backward on the device.
Status run_on_device(Problem& p, Arrays forward, Arrays backward) {
  Plan plan;
  Status status = p.op.forward_plan(p.d, forward, &plan);
  if (status == Status::kOk) status = on_device(plan);
  if (status != Status::kOk) return status;
  status = p.op.backward_plan(p.d, backward, lent_later(), &plan);
  return status == Status::kOk ? on_device(plan) : status;
}
Status run_on_device(Problem& p) {
  Arrays saved = p.arrays();
  saved.saved = true;
  return run_on_device(p, p.arrays(), saved);
}

// Both backends on copies of `p`; `change` sets strides and options of a call.
void expect_same(const Problem& p, const std::function<void(Arrays&)>& change, const char* what) {
  Problem cpu(p), device(p);
  const auto calls = [&](Problem& q) {
    Arrays a = q.arrays();
    change(a);
    return a;
  };
  ASSERT_EQ(forward(p.op, p.d, calls(cpu)), Status::kOk);
  ASSERT_EQ(backward(p.op, p.d, calls(cpu)), Status::kOk);
  ASSERT_EQ(run_on_device(device, calls(device), calls(device)), Status::kOk);
  const auto name = [&](const char* array) {
    return std::string(what) + " " + p.op.name + " " + dtype_name(p.x.dtype) + " " + std::to_string(p.d.N) +
           "x" + std::to_string(p.d.C) + "x" + std::to_string(p.d.S) + ": " + array;
  };
  EXPECT_TRUE(cpu.y.bytes == device.y.bytes) << name("y");
  EXPECT_TRUE(cpu.dx.bytes == device.dx.bytes) << name("dx");
  EXPECT_TRUE(cpu.dweight.bytes == device.dweight.bytes) << name("dweight");
  EXPECT_TRUE(cpu.dbias.bytes == device.dbias.bytes) << name("dbias");
  EXPECT_EQ(fnv(0, cpu.mean.data(), cpu.mean.size() * 8), fnv(0, device.mean.data(), device.mean.size() * 8))
      << name("mean");
  EXPECT_EQ(fnv(0, cpu.rstd.data(), cpu.rstd.size() * 8), fnv(0, device.rstd.data(), device.rstd.size() * 8))
      << name("rstd");
}

std::vector<Dims> shapes(const Operation& op) {
  // Rows of one block and of several; more blocks than a team of warps; more panels than a warp has lanes.
  if (op.over_rows) return {{1, 1, 1}, {130, 1, 257}, {5, 1, 2100}, {2, 1, 17011}, {2100, 1, 3}};
  return {{3, 6, 1, 2}, {2, 40, 35, 4}, {3, 9, 1100, 3}, {70, 20, 9, 5}, {1, 2, 17011, 2}, {1, 34, 1025}};
}

TEST(Cuda, GoldenHashes) {
  size_t next = 0;
  for_golden_cases([&](const char* name, Problem& p) {
    ASSERT_EQ(run_on_device(p), Status::kOk);
    EXPECT_EQ(p.hash(), kGolden[next].hash) << name;
    ++next;
  });
  EXPECT_EQ(next, sizeof(kGolden) / sizeof(kGolden[0]));
}

// Kernels must not depend on the order of threads between two barriers.
TEST(Cuda, ThreadsBackwards) {
  Limits limits;
  limits.few_rows = limits.slots = 0;  // packed and chained
  const Limited limited(limits);
  run_threads_backwards(true);
  for (const Operation& op : operations()) {
    for (const Dims& d : shapes(op)) {
      const Problem p(op, d, DType::kF32, 20);
      expect_same(p, [](Arrays& a) { a.saved = true; }, "backwards");
    }
  }
  for (const Operation& op : operations()) {
    if (op.over_rows) continue;
    const Problem p(op, {70, 4, 2100, 2}, DType::kBF16, 21);  // in shared memory
    expect_same(p, [](Arrays& a) { a.saved = true; }, "backwards");
  }
  run_threads_backwards(false);
}

TEST(Cuda, Shapes) {
  for (const Operation& op : operations()) {
    for (DType dtype : kDTypes) {
      for (const Dims& d : shapes(op)) {
        const Problem p(op, d, dtype, 5);
        expect_same(p, [](Arrays& a) { a.saved = true; }, "saved");
      }
    }
  }
}

// So many blocks that a thread block merges them, and more than it takes at a time.
TEST(Cuda, LongRows) {
  for (const Operation& op : operations()) {
    if (!op.over_rows) continue;
    for (const int64_t n : {40000, 600000}) {
      for (DType dtype : kDTypes) {
        if (n > 40000 && dtype != DType::kF32) continue;
        const Problem p(op, {1, 1, n}, dtype, 18);
        const auto without_sums = [](Arrays& a) {
          a.saved = true;
          a.dweight = a.dbias = nullptr;
        };
        expect_same(p, without_sums, "long");
      }
    }
  }
}

TEST(Cuda, RecomputedStatistics) {
  for (const Operation& op : operations()) {
    for (DType dtype : {DType::kF32, DType::kF64, DType::kBF16}) {
      const Dims d = op.over_rows ? Dims{70, 1, 1500} : Dims{3, 36, 400, 4};
      const Problem p(op, d, dtype, 6);
      const auto forward_only = [&](Arrays& a) { a.saved = false; };
      expect_same(p, forward_only, "recomputed");
    }
  }
}

// Channels last; every other element of a larger array; backwards.
TEST(Cuda, Layouts) {
  for (const Operation& op : operations()) {
    for (DType dtype : kDTypes) {
      for (const Dims& d :
           {Dims{2, 40, 35, 4}, Dims{2, 18, 1100, 2}, Dims{3, 17, 50, 1}, Dims{2, 6, 40, 3}}) {
        const Problem p(op, d, dtype, 7);
        const int64_t last[] = {d.C * d.S, 1, d.C}, turned[] = {-d.C * d.S, d.S, 1};
        expect_same(
            p,
            [&](Arrays& a) {
              a.saved = true;
              a.x_strides = a.y_strides = a.dy_strides = a.dx_strides = last;
            },
            "channels last");
        const int64_t offset = (d.N - 1) * d.C * d.S * size_of(dtype);
        expect_same(
            p,
            [&](Arrays& a) {
              a.saved = true;
              a.x = static_cast<const char*>(a.x) + offset;
              a.dx = static_cast<char*>(a.dx) + offset;
              a.x_strides = a.dx_strides = turned;
              a.dy_strides = last;
            },
            "mixed");
      }
    }
  }
}

// LayerNorm over the channels of NCHW: columns whose weight varies along them.
TEST(Cuda, LayerNormOverChannels) {
  for (DType dtype : {DType::kF32, DType::kF16, DType::kF64}) {
    for (const int64_t C : {5, 96, 1500}) {
      const int64_t size[] = {3, 70, C}, strides[] = {70 * C, 1, 70}, count = 3 * 70 * C;
      Array x(dtype, count), weight(dtype, C), y(x);
      Random random(8);
      for (size_t i = 0; i < x.size(); ++i) x.set(i, random.normal() + 3.0);
      for (size_t i = 0; i < weight.size(); ++i) weight.set(i, random.normal());
      Array on_cpu(y);
      const auto args = [&](Array& to) {
        LayerNormArgs a;
        a.x = {x.bytes.data(), dtype, strides};
        a.y = {to.bytes.data(), dtype, strides};
        a.weight = {weight.bytes.data(), dtype};
        a.bias = {weight.bytes.data(), dtype};
        return a;
      };
      ASSERT_EQ(layer_norm({2, 1, size}, args(on_cpu)), Status::kOk);
      Plan plan;
      ASSERT_EQ(layer_norm_plan({2, 1, size}, args(y), {}, &plan), Status::kOk);
      ASSERT_EQ(on_device(plan), Status::kOk);
      EXPECT_TRUE(y.bytes == on_cpu.bytes) << dtype_name(dtype) << " " << C;
    }
  }
}

// Means that dwarf the spread, sums that leave the range of float, subnormals, zeros, infinities and NaN.
TEST(Cuda, Families) {
  const double kHuge[] = {3e38, 60000.0, 1e300}, kInf = std::numeric_limits<double>::infinity();
  for (const Operation& op : operations()) {
    for (DType dtype : kDTypes) {
      const double huge = kHuge[dtype == DType::kF64 ? 2 : dtype == DType::kF16 ? 1 : 0];
      for (const bool last : {false, true}) {
        for (int family = 0; family < 7; ++family) {
          const Dims d = op.over_rows ? Dims{9, 1, 1200} : Dims{2, 20, 600, 2};
          Problem p(op, d, dtype, 9);
          Random random(static_cast<uint64_t>(10 + family));
          for (size_t i = 0; i < p.x.size(); ++i) {
            const double v = random.normal();
            const double of_family[] = {4000.0 + v,
                                        huge * 0.1 * v,
                                        1e-38 * v,
                                        0.0,
                                        random.uniform() < 1e-4 ? kInf : v,
                                        random.uniform() < 1e-4 ? std::nan("") : v,
                                        1e-160 * v};
            p.x.set(i, of_family[family]);
            if (family == 1) p.dy.set(i, huge * 0.2 * random.normal());
          }
          const int64_t strides[] = {d.C * d.S, 1, d.C};
          expect_same(
              p,
              [&](Arrays& a) {
                a.saved = family % 2 == 0;
                if (family == 3) a.eps = 0.0;
                if (last) a.x_strides = a.y_strides = a.dy_strides = a.dx_strides = strides;
              },
              ("family " + std::to_string(family)).c_str());
        }
      }
    }
  }
}

TEST(Cuda, InPlaceAndAbsentArrays) {
  for (const Operation& op : operations()) {
    const Dims d = op.over_rows ? Dims{66, 1, 300} : Dims{3, 20, 70, 4};
    Problem cpu(op, d, DType::kF32, 11);
    cpu.parameters = false;
    Problem device(cpu);
    Arrays forwards[2], backwards[2];
    for (int i = 0; i < 2; ++i) {
      Problem& p = i == 0 ? cpu : device;
      forwards[i] = p.arrays();
      forwards[i].y = p.y.bytes.data();
      backwards[i] = p.arrays();
      backwards[i].saved = true;
      backwards[i].dx = p.dy.bytes.data();
    }
    ASSERT_EQ(forward(op, d, forwards[0]), Status::kOk);
    ASSERT_EQ(backward(op, d, backwards[0]), Status::kOk);
    ASSERT_EQ(run_on_device(device, forwards[1], backwards[1]), Status::kOk);
    EXPECT_EQ(cpu.hash(), device.hash()) << op.name;
    EXPECT_TRUE(cpu.dy.bytes == device.dy.bytes) << op.name;
    for (Problem* p : {&cpu, &device}) {
      forwards[p == &device] = p->arrays();
      forwards[p == &device].y = p->x.bytes.data();
    }
    ASSERT_EQ(forward(op, d, forwards[0]), Status::kOk);
    Plan plan;
    ASSERT_EQ(op.forward_plan(d, forwards[1], &plan), Status::kOk);
    ASSERT_EQ(on_device(plan), Status::kOk);
    EXPECT_TRUE(cpu.x.bytes == device.x.bytes) << op.name;
  }
}

// Short rows, several to a warp; rows among them that are taken in double, infinite or NaN.
TEST(Cuda, PackedRows) {
  Limits limits;
  limits.few_rows = 0;
  const Limited limited(limits);
  for (const Operation& op : operations()) {
    if (!op.over_rows) continue;
    for (DType dtype : {DType::kF32, DType::kF16, DType::kBF16}) {
      for (const Dims& d :
           {Dims{1, 1, 256}, Dims{7, 1, 1}, Dims{67, 1, 100}, Dims{35, 1, 255}, Dims{19, 1, 1000}}) {
        for (const bool wild : {false, true}) {
          Problem p(op, d, dtype, 17);
          for (size_t row = 0; wild && row < size_t(d.N); ++row) {
            const size_t at = row * size_t(d.S);
            const double huge = dtype == DType::kF16 ? 6e4 : 3e38;
            if (row % 7 == 1) p.x.set(at + size_t(d.S) / 2, std::nan(""));
            if (row % 7 == 3) p.x.set(at, std::numeric_limits<double>::infinity());
            for (size_t i = at; i < at + size_t(d.S); ++i) {
              if (row % 7 == 2) p.x.set(i, i % 3 == 0 ? huge : -0.5 * huge);
              if (row % 7 == 5) p.x.set(i, 1e-38 * static_cast<double>(i % 5));
            }
          }
          expect_same(p, [](Arrays& a) { a.saved = true; }, wild ? "packed wild" : "packed");
        }
      }
    }
  }
}

// Sums over rows in each of their ways: tiles kept, tiles chained, panels by themselves; dx in the place of
// dy.
void expect_same_in_place(const Operation& op, const Dims& d, DType dtype, const char* what) {
  Problem cpu(op, d, dtype, 15), device(cpu);
  const auto arrays = [&](Problem& p) {
    Arrays a = p.arrays();
    a.saved = d.N % 2 == 0;
    a.dx = p.dy.bytes.data();
    return a;
  };
  for (Problem* p : {&cpu, &device}) ASSERT_EQ(forward(op, d, p->arrays()), Status::kOk);
  ASSERT_EQ(backward(op, d, arrays(cpu)), Status::kOk);
  Plan plan;
  ASSERT_EQ(op.backward_plan(d, arrays(device), lent_later(), &plan), Status::kOk);
  ASSERT_EQ(on_device(plan), Status::kOk);
  EXPECT_EQ(cpu.hash(), device.hash()) << what << " " << op.name << " " << d.N << "x" << d.S;
  EXPECT_TRUE(cpu.dy.bytes == device.dy.bytes) << what << " " << op.name << " " << d.N << "x" << d.S;
}

TEST(Cuda, ParameterSums) {
  for (const char* way : {"kept", "chained", "panels"}) {
    Limits limits;
    if (*way != 'k') limits.slots = 0;
    if (*way == 'p') limits.memory = 0;
    const Limited limited(limits);
    for (const Operation& op : operations())
      for (DType dtype : {DType::kF32, DType::kBF16})
        for (const Dims& d : {Dims{70, 1, 257}, Dims{67, 1, 1500}, Dims{70, 1, 2100}, Dims{10, 1, 4100},
                              Dims{130, 1, 33}, Dims{1, 1, 6000}})
          if (op.over_rows) expect_same_in_place(op, d, dtype, way);
  }
  // More panels than a thread block sums at a time.
  const Problem p(operations()[0], {33000, 1, 3}, DType::kF32, 16);
  ASSERT_TRUE(p.op.over_rows);
  expect_same(p, [](Arrays& a) { a.saved = true; }, "many panels");
}

// Given statistics, running statistics, activations, gradients in other types, accumulated.
TEST(Cuda, ChannelStatistics) {
  for (const bool last : {false, true}) {
    for (DType dtype : {DType::kF32, DType::kBF16, DType::kF64}) {
      const int64_t N = 5, C = 24, S = 130, size[] = {N, C, S}, strides[] = {C * S, 1, C};
      const ChannelsShape shape{3, size};
      Array x(dtype, N * C * S), dy(x), y(x), dx(x), weight(DType::kF32, C);
      if (dtype == DType::kF64) weight = Array(dtype, C);
      Random random(12);
      for (size_t i = 0; i < x.size(); ++i) {
        x.set(i, random.normal() + 1.0);
        dy.set(i, random.normal());
      }
      for (size_t i = 0; i < weight.size(); ++i) weight.set(i, 1.0 + 0.1 * random.normal());
      std::vector<std::vector<unsigned char>> results;
      for (const bool device : {false, true}) {
        Array y1(y), y2(y), dx1(dx), dweight(weight), running_mean(DType::kF32, C), running_var(running_mean);
        for (size_t i = 0; i < running_mean.size(); ++i) {
          running_mean.set(i, 0.5);
          running_var.set(i, 1.5);
          dweight.set(i, 0.25);
        }
        const int64_t* layout = last ? strides : nullptr;
        const auto run = [&](auto plan_of) {
          Plan plan;
          std::vector<unsigned char> workspace(4 << 20);
          const Workspace lent = device ? lent_later() : Workspace{workspace.data(), workspace.size()};
          ASSERT_EQ(plan_of(lent, &plan), Status::kOk);
          if (device)
            ASSERT_EQ(on_device(plan), Status::kOk);
          else
            execute(plan);
        };
        const auto forward = [&](auto args, Array& to) {
          args.x = {x.bytes.data(), dtype, layout};
          args.y = {to.bytes.data(), dtype, layout};
          args.weight = {weight.bytes.data(), weight.dtype};
          args.running_mean = {running_mean.bytes.data(), running_mean.dtype};
          args.running_var = {running_var.bytes.data(), running_var.dtype};
          args.activation = Activation::kSilu;
          return args;
        };
        run([&](Workspace w, Plan* plan) {
          return instance_norm_plan(shape, forward(InstanceNormArgs(), y1), w, plan);
        });
        run([&](Workspace w, Plan* plan) {
          return batch_norm_plan(shape, forward(BatchNormArgs(), y1), w, plan);
        });
        run([&](Workspace w, Plan* plan) {
          BatchNormArgs args;
          args.x = {x.bytes.data(), dtype, layout};
          args.y = {y2.bytes.data(), dtype, layout};
          args.given_mean = {running_mean.bytes.data(), running_mean.dtype};
          args.given_var = {running_var.bytes.data(), running_var.dtype};
          args.activation = Activation::kGelu;
          return batch_norm_plan(shape, args, w, plan);
        });
        run([&](Workspace w, Plan* plan) {
          BatchNormBackwardArgs args;
          args.dy = {dy.bytes.data(), dtype, layout};
          args.x = {x.bytes.data(), dtype, layout};
          args.dx = {dx1.bytes.data(), dtype, layout};
          args.weight = {weight.bytes.data(), weight.dtype};
          args.given_mean = {running_mean.bytes.data(), running_mean.dtype};
          args.given_var = {running_var.bytes.data(), running_var.dtype};
          args.dweight = {dweight.bytes.data(), dweight.dtype};
          args.accumulate = true;
          return batch_norm_backward_plan(shape, args, w, plan);
        });
        std::vector<unsigned char> all;
        for (const Array* a : {&y1, &y2, &dx1, &dweight, &running_mean, &running_var})
          all.insert(all.end(), a->bytes.begin(), a->bytes.end());
        results.push_back(all);
      }
      EXPECT_TRUE(results[0] == results[1]) << dtype_name(dtype) << (last ? " last" : "");
    }
  }
}

TEST(Cuda, SumThenNorm) {
  for (DType dtype : kDTypes) {
    for (const bool unrounded : {false, true}) {
      for (const bool in_place : {false, true}) {
        for (const int64_t n : {5, 768, 2100, 17011}) {
          const int64_t rows = n > 5 ? 3 : 70, size[] = {rows, n};
          Limits limits;
          if (in_place) limits.few_rows = 0;  // packed
          const Limited limited(limits);
          const RowsShape shape{1, 1, size};
          Array x(dtype, rows * n), residual(x), y(x), sum(x), dsum(x), weight(dtype, n), dweight(weight);
          Random random(13);
          for (size_t i = 0; i < x.size(); ++i) {
            x.set(i, random.normal());
            residual.set(i, random.normal());
            dsum.set(i, random.normal());
          }
          for (size_t i = 0; i < weight.size(); ++i) weight.set(i, random.normal());
          std::vector<std::vector<unsigned char>> results;
          for (const bool device : {false, true}) {
            Array own_x(x), own_residual(residual), own_y(y), own_sum(sum), dsummed(x), own_dweight(dweight);
            AddLayerNormArgs args;
            args.x = {own_x.bytes.data(), dtype};
            args.residual = {own_residual.bytes.data(), dtype};
            args.residual_bias = {weight.bytes.data(), dtype};
            args.weight = args.bias = {weight.bytes.data(), dtype};
            args.sum = {in_place ? own_residual.bytes.data() : own_sum.bytes.data(), dtype};
            args.y = {in_place ? own_x.bytes.data() : own_y.bytes.data(), dtype};
            args.unrounded = unrounded;
            AddLayerNormBackwardArgs back;
            back.summed = {args.sum.data, dtype};
            back.dy = {x.bytes.data(), dtype};
            back.dsum = {dsum.bytes.data(), dtype};
            back.weight = {weight.bytes.data(), dtype};
            back.dsummed = {dsummed.bytes.data(), dtype};
            back.dweight = {own_dweight.bytes.data(), dtype};
            if (device) {
              Plan plan;
              ASSERT_EQ(add_layer_norm_plan(shape, args, {}, &plan), Status::kOk);
              ASSERT_EQ(on_device(plan), Status::kOk);
              ASSERT_EQ(add_layer_norm_backward_plan(shape, back, lent_later(), &plan), Status::kOk);
              ASSERT_EQ(on_device(plan), Status::kOk);
            } else {
              std::vector<unsigned char> scratch(add_layer_norm_backward_workspace_bytes(shape, back));
              ASSERT_EQ(add_layer_norm(shape, args), Status::kOk);
              ASSERT_EQ(add_layer_norm_backward(shape, back, {scratch.data(), scratch.size()}), Status::kOk);
            }
            std::vector<unsigned char> all;
            for (const Array* a : {&own_x, &own_residual, &own_y, &own_sum, &dsummed, &own_dweight})
              all.insert(all.end(), a->bytes.begin(), a->bytes.end());
            results.push_back(all);
          }
          EXPECT_TRUE(results[0] == results[1])
              << dtype_name(dtype) << " " << n << (unrounded ? " unrounded" : "")
              << (in_place ? " in place" : "");
        }
      }
    }
  }
}

TEST(Cuda, EmptyArrays) {
  for (const Operation& op : operations()) {
    for (const Dims& d : {Dims{0, 4, 5, 2}, Dims{3, 4, 0, 2}}) {
      Problem p(op, d, DType::kF32, 14);
      expect_same(p, [](Arrays&) {}, "empty");
    }
  }
}

TEST(Cuda, Refusals) {
  Problem p(operations()[2], {2, 4, 1500}, DType::kF32);
  const Problem before(p);
  Plan plan;
  ASSERT_EQ(p.op.backward_plan(p.d, p.arrays(), lent_later(), &plan), Status::kOk);
  const size_t bytes = bytes_on_device(plan);
  ASSERT_GT(bytes, size_t(256));
  std::vector<unsigned char> scratch(bytes);
  EXPECT_EQ(on_device(plan, {scratch.data(), bytes - 1}), Status::kWorkspaceTooSmall);
  EXPECT_EQ(on_device(plan, {}), Status::kWorkspaceTooSmall);
  const int64_t size[] = {4, 6};
  std::vector<float> x(24), y(24);
  DynamicTanhArgs args;
  args.x = x.data();
  args.y = y.data();
  MapShape shape;
  shape.rank = 2;
  shape.size = size;
  std::vector<float> alpha(1, 0.5f);
  args.alpha = alpha.data();
  ASSERT_EQ(dynamic_tanh_plan(shape, args, {}, &plan), Status::kOk);
  EXPECT_EQ(on_device(plan, {}), Status::kUnsupported);
  NormalizeArgs largest;
  largest.x = x.data();
  largest.y = y.data();
  largest.p = 3.0;
  ASSERT_EQ(normalize_plan({2, size, 2, 0, 0}, largest, {}, &plan), Status::kOk);
  EXPECT_EQ(on_device(plan, {}), Status::kUnsupported);
  EXPECT_EQ(before.hash(), p.hash());
}

}  // namespace
}  // namespace tests

#include "cuda_slabs_test.hpp"
