// What only the norms over channels take: given statistics, running statistics, groups. And every operation's
// tables, accumulation and mixed element types, which the shared descriptions leave at their defaults.
#include <gtest/gtest.h>
#include <unistd.h>

#include <climits>

#include "problem.hpp"

#if defined(NORMKIT_COMPILED)
#  include "../../cpp/src/table.hpp"
#endif

namespace tests {
namespace {

// Inputs and outputs of one call; outputs hold 7 until they are written.
struct Channels {
  int64_t size[3];
  ChannelsShape shape{3, size};
  std::vector<float> x, y, dy, dx;
  std::vector<double> mean, var, running_mean, running_var;
  std::vector<unsigned char> scratch = std::vector<unsigned char>(8192);

  Channels(int64_t N, int64_t C, int64_t S) : size{N, C, S} {
    const auto elements = static_cast<size_t>(N * C * S), channels = static_cast<size_t>(C);
    Random random(11);
    for (size_t i = 0; i < elements; ++i) {
      x.push_back(static_cast<float>(random.normal() * 2 + 3));
      dy.push_back(static_cast<float>(random.normal()));
    }
    y.assign(elements + 1, 7.0f);  // never without an address
    dx = y;
    x.resize(elements + 1);
    dy.resize(elements + 1);
    for (size_t c = 0; c < channels; ++c) {
      mean.push_back(1.0 + 0.5 * static_cast<double>(c));
      var.push_back(2.0 + static_cast<double>(c));
    }
    running_mean.assign(channels, 0.25);
    running_var.assign(channels, 4.0);
  }
  Workspace workspace() { return {scratch.data(), scratch.size()}; }

  template <typename Args>
  Args forward() {
    Args args;
    args.x = x.data();
    args.y = y.data();
    return args;
  }
  template <typename Args>
  Args backward() {
    Args args;
    args.x = x.data();
    args.dy = dy.data();
    args.dx = dx.data();
    return args;
  }
  template <typename Args>
  void give(Args& args) {
    args.given_mean = static_cast<const double*>(mean.data());
    args.given_var = static_cast<const double*>(var.data());
  }
  template <typename Args>
  void run_along(Args& args) {
    args.running_mean = running_mean.data();
    args.running_var = running_var.data();
  }
  void expect_nothing_written() {
    for (float v : y) ASSERT_EQ(v, 7.0f);
    for (float v : dx) ASSERT_EQ(v, 7.0f);
    for (double v : running_mean) ASSERT_EQ(v, 0.25);
    for (double v : running_var) ASSERT_EQ(v, 4.0);
  }
};

TEST(GivenStatistics, AreUsedAndKept) {
  Channels c(3, 4, 50);
  const std::vector<double> mean = c.mean, var = c.var;
  auto args = c.forward<BatchNormArgs>();
  c.give(args);
  ASSERT_EQ(batch_norm(c.shape, args), Status::kOk);
  for (size_t i = 0; i < 600; ++i) {
    const size_t channel = i / 50 % 4;
    const double exact = (static_cast<double>(c.x[i]) - mean[channel]) / std::sqrt(var[channel] + args.eps);
    if (std::fabs(exact) > 0.1) {
      ASSERT_LE(std::fabs(static_cast<double>(c.y[i]) - exact),
                5 * static_cast<double>(ulp(exact, DType::kF32)))
          << i;
    }
  }
  EXPECT_EQ(c.mean, mean);
  EXPECT_EQ(c.var, var);
  auto gradient = c.backward<BatchNormBackwardArgs>();  // given statistics are constants
  c.give(gradient);
  ASSERT_EQ(batch_norm_backward(c.shape, gradient), Status::kOk);
  for (size_t i = 0; i < 600; ++i) {
    const double exact = static_cast<double>(c.dy[i]) / std::sqrt(var[i / 50 % 4] + args.eps);
    ASSERT_LE(std::fabs(static_cast<double>(c.dx[i]) - exact), 0x1p-20 * std::fabs(exact)) << i;
  }
}

// Inputs are not written, however empty the batch is.
TEST(GivenStatistics, SurviveAnEmptyBatch) {
  const int64_t sizes[][3] = {{0, 3, 5}, {3, 3, 0}, {0, 3, 0}};
  for (const auto& size : sizes) {
    for (bool instance : {false, true}) {
      Channels c(size[0], size[1], size[2]);
      const std::vector<double> mean = c.mean, var = c.var;
      if (instance) {
        auto args = c.forward<InstanceNormArgs>();
        c.give(args);
        ASSERT_EQ(instance_norm(c.shape, args), Status::kOk);
      } else {
        auto args = c.forward<BatchNormArgs>();
        c.give(args);
        ASSERT_EQ(batch_norm(c.shape, args), Status::kOk);
      }
      EXPECT_EQ(c.mean, mean) << size[0] << " samples";
      EXPECT_EQ(c.var, var) << size[0] << " samples";
    }
  }
}

TEST(RunningStatistics, FollowTheFormula) {
  for (bool instance : {false, true}) {
    const int64_t N = 5, C = 3, S = 40;
    Channels c(N, C, S);
    Status status;
    if (instance) {
      auto args = c.forward<InstanceNormArgs>();
      c.run_along(args);
      status = instance_norm(c.shape, args, c.workspace());
    } else {
      auto args = c.forward<BatchNormArgs>();
      c.run_along(args);
      status = batch_norm(c.shape, args, c.workspace());
    }
    ASSERT_EQ(status, Status::kOk);
    for (int64_t channel = 0; channel < C; ++channel) {
      const int64_t sets = instance ? N : 1, samples = N / sets;
      long double new_mean = 0, new_var = 0;
      for (int64_t set = 0; set < sets; ++set) {
        long double sum = 0, squares = 0;
        const auto each = [&](auto visit) {
          for (int64_t s = 0; s < samples; ++s)
            for (int64_t i = 0; i < S; ++i)
              visit(static_cast<long double>(c.x[static_cast<size_t>(((set + s) * C + channel) * S + i)]));
        };
        const auto n = static_cast<long double>(samples * S);
        each([&](long double v) { sum += v; });
        each([&](long double v) { squares += (v - sum / n) * (v - sum / n); });
        new_mean += sum / n / static_cast<long double>(sets);
        new_var += squares / (n - 1) / static_cast<long double>(sets);
      }
      const auto at = static_cast<size_t>(channel);
      EXPECT_NEAR(c.running_mean[at], static_cast<double>(0.9L * 0.25L + 0.1L * new_mean), 1e-13);
      EXPECT_NEAR(c.running_var[at], static_cast<double>(0.9L * 4.0L + 0.1L * new_var), 1e-6);
    }
  }
}

// A share of 0 is none: 0 times NaN is NaN, and neither side may leave one behind.
TEST(Running, SharesOfZeroAndOne) {
  for (int64_t samples : {1, 3}) {
    for (bool instance : {false, true}) {
      for (double bad : {static_cast<double>(NAN), HUGE_VAL}) {
        Channels c(samples, 4, 6);
        const auto run = [&](double momentum) {
          auto batch = c.forward<BatchNormArgs>();
          auto sample = c.forward<InstanceNormArgs>();
          c.run_along(batch);
          c.run_along(sample);
          batch.momentum = sample.momentum = momentum;
          return instance ? instance_norm(c.shape, sample, c.workspace())
                          : batch_norm(c.shape, batch, c.workspace());
        };
        c.running_mean[1] = c.running_var[1] = bad;
        ASSERT_EQ(run(1.0), Status::kOk);
        const std::vector<double> mean = c.running_mean, var = c.running_var;
        for (size_t i = 0; i < 4; ++i) EXPECT_TRUE(std::isfinite(mean[i]) && std::isfinite(var[i])) << i;
        c.x[7] = static_cast<float>(bad);
        ASSERT_EQ(run(0.0), Status::kOk);
        EXPECT_EQ(c.running_mean, mean);
        EXPECT_EQ(c.running_var, var);
      }
    }
  }
}

// Group norm has neither running nor given statistics: asking for them is an error, and returns.
TEST(ChannelsBadInput, GroupNormHasNoOtherStatistics) {
  for (int64_t samples : {1, 3}) {
    Channels c(samples, 4, 6);
    Plan plan;
    auto args = c.forward<GroupNormArgs>();
    args.groups = 2;
    c.run_along(args);
    EXPECT_NE(group_norm_plan(c.shape, args, c.workspace(), &plan), Status::kOk);
    args = c.forward<GroupNormArgs>();
    args.groups = 2;
    c.give(args);
    EXPECT_NE(group_norm_plan(c.shape, args, c.workspace(), &plan), Status::kOk);
    c.expect_nothing_written();
  }
}

TEST(ChannelsBadInput, Arguments) {
  Channels c(2, 4, 6);
  const auto expect = [&](Status status, auto change) {
    auto args = c.forward<BatchNormArgs>();
    ChannelsShape shape = c.shape;
    change(args, shape);
    EXPECT_EQ(batch_norm(shape, args, c.workspace()), status);
    c.expect_nothing_written();
  };
  expect(Status::kNullPointer, [](auto& a, auto&) { a.x = ConstView(); });
  expect(Status::kNullPointer, [](auto& a, auto&) { a.y = View(); });
  expect(Status::kInvalidEps, [](auto& a, auto&) { a.eps = NAN; });
  expect(Status::kInvalidEps, [](auto& a, auto&) { a.eps = -1e-5; });
  expect(Status::kInvalidDType, [](auto& a, auto&) { a.x.dtype = static_cast<DType>(-1); });
  expect(Status::kInvalidDType, [](auto& a, auto&) { a.y.dtype = DType::kF16; });
  expect(Status::kInvalidDType, [&](auto& a, auto&) { a.weight = ConstView(c.mean.data()); });
  expect(Status::kInvalidDType, [&](auto& a, auto&) { a.rstd = View(c.mean.data(), DType::kBF16); });
  expect(Status::kInvalidShape, [](auto&, auto& s) { s.rank = 1; });
  expect(Status::kInvalidShape, [](auto&, auto& s) { s.rank = -1; });
  expect(Status::kInvalidShape, [](auto&, auto& s) { s.rank = INT32_MAX; });
  expect(Status::kInvalidShape, [](auto&, auto& s) { s.size = nullptr; });
  expect(Status::kMissingStatistics, [&](auto& a, auto&) { a.given_mean = ConstView(c.mean.data()); });
  expect(Status::kMissingStatistics, [&](auto& a, auto&) { a.given_var = ConstView(c.var.data()); });
  expect(Status::kMissingStatistics, [&](auto& a, auto&) {
    c.give(a);
    a.given_rstd = a.given_var;
  });
  expect(Status::kMissingStatistics, [&](auto& a, auto&) {  // which cannot follow given ones
    c.give(a);
    c.run_along(a);
  });
  expect(Status::kMisaligned, [&](auto& a, auto&) {
    a.x = ConstView(reinterpret_cast<const char*>(c.x.data()) + 2, DType::kF32);
  });
  expect(Status::kOverlap, [&](auto& a, auto&) { a.mean = a.rstd = View(c.mean.data()); });
  expect(Status::kOverlap, [&](auto& a, auto&) {
    a.running_mean = View(c.running_mean.data());
    a.running_var = View(c.running_mean.data());
  });
  expect(Status::kOverlap, [&](auto& a, auto&) { a.weight = ConstView(c.y.data()); });
  auto batch = c.forward<BatchNormArgs>();
  c.run_along(batch);
  EXPECT_EQ(batch_norm_workspace_bytes(c.shape, batch), 0u);  // a channel is one set: nothing to keep
  auto args = c.forward<InstanceNormArgs>();
  c.run_along(args);
  const size_t bytes = instance_norm_workspace_bytes(c.shape, args);
  Plan plan;
  EXPECT_EQ(instance_norm_plan(c.shape, args, {c.scratch.data(), bytes}, &plan), Status::kOk);
  EXPECT_EQ(instance_norm_plan(c.shape, args, {c.scratch.data(), bytes - 1}, &plan),
            Status::kWorkspaceTooSmall);
}

// Planned at most: no array with such strides exists. Under UBSan no step of the check may overflow either.
TEST(ChannelsBadInput, HostileSizesAndStrides) {
  const int64_t extremes[] = {INT64_MAX,
                              INT64_MIN,
                              INT64_MIN + 1,
                              INT64_MAX / 2,
                              INT64_MAX / 4,
                              INT64_MAX / 8,
                              int64_t(1) << 61,
                              int64_t(1) << 62,
                              -(int64_t(1) << 62),
                              (int64_t(1) << 61) - 2,
                              -1,
                              int64_t(1) << 47};
  Channels c(2, 4, 6);
  Plan plan;
  for (int64_t a : extremes) {
    for (int64_t b : extremes) {
      int64_t size[] = {a, 4, b};
      auto args = c.forward<GroupNormArgs>();
      args.groups = 2;
      EXPECT_EQ(group_norm_plan({3, size}, args, {}, &plan), Status::kInvalidShape);
      EXPECT_EQ(batch_norm_plan({3, size}, c.forward<BatchNormArgs>(), {}, &plan), Status::kInvalidShape);
      size[1] = 0;  // empty, whatever the others claim
      EXPECT_NE(batch_norm_plan({3, size}, c.forward<BatchNormArgs>(), {}, &plan), Status::kNullPointer);
      for (int which = 0; which < 3; ++which) {
        int64_t strides[] = {24, 6, 1};
        strides[which] = a;
        strides[(which + 1) % 3] = b;
        for (bool output : {false, true}) {
          args = c.forward<GroupNormArgs>();
          args.groups = 2;
          (output ? args.y.strides : args.x.strides) = strides;
          (void)group_norm_plan(c.shape, args, {}, &plan);
          auto backward = c.backward<BatchNormBackwardArgs>();
          (output ? backward.dx.strides : backward.dy.strides) = strides;
          (void)batch_norm_backward_plan(c.shape, backward, {}, &plan);
        }
      }
    }
  }
  c.expect_nothing_written();
}

// Rows without elements must not be counted one by one: this returns at once, or not within a lifetime.
TEST(ChannelsBadInput, CountlessEmptySets) {
  const int64_t size[] = {int64_t(1) << 46, 0};
  float x = 0, y = 7;
  LayerNormArgs args;
  args.x = static_cast<const float*>(&x);
  args.y = &y;
  alarm(20);
  EXPECT_EQ(layer_norm({1, 1, size}, args), Status::kOk);
  alarm(0);
  EXPECT_EQ(y, 7.0f);
}

// accumulate adds once to what is there; double gradients hold the sums before their last rounding.
TEST(Parameters, AccumulateAndTypes) {
  Channels c(3, 4, 50);
  std::vector<double> fresh(4), fresh_bias(4), added(4, 10.0), added_bias(4, -3.0);
  auto args = c.backward<BatchNormBackwardArgs>();
  args.dweight = fresh.data();
  args.dbias = fresh_bias.data();
  ASSERT_EQ(batch_norm_backward(c.shape, args, c.workspace()), Status::kOk);
  args.dweight = added.data();
  args.dbias = added_bias.data();
  args.accumulate = true;
  ASSERT_EQ(batch_norm_backward(c.shape, args, c.workspace()), Status::kOk);
  for (size_t i = 0; i < 4; ++i) {
    EXPECT_EQ(added[i], 10.0 + fresh[i]);
    EXPECT_EQ(added_bias[i], -3.0 + fresh_bias[i]);
  }
}

// RMSNorm's weight_offset is weight + offset, to the bit where that sum is exact.
TEST(Parameters, WeightOffset) {
  const int64_t size[] = {5, 70};
  std::vector<float> x(350), w(70), shifted(70), y(350), expected(350);
  Random random(2);
  for (float& v : x) v = static_cast<float>(random.normal());
  for (size_t i = 0; i < 70; ++i) {
    shifted[i] = static_cast<float>(i) * 0.125f;
    w[i] = shifted[i] - 1.0f;
  }
  RmsNormArgs args;
  args.x = static_cast<const float*>(x.data());
  args.weight = static_cast<const float*>(w.data());
  args.weight_offset = 1.0;
  args.y = y.data();
  ASSERT_EQ(rms_norm({1, 1, size}, args), Status::kOk);
  args.weight = static_cast<const float*>(shifted.data());
  args.weight_offset = 0.0;
  args.y = expected.data();
  ASSERT_EQ(rms_norm({1, 1, size}, args), Status::kOk);
  EXPECT_EQ(y, expected);
}

#if defined(NORMKIT_COMPILED)
// The library's choice against one instruction set, for the operations over channels.
template <typename Args, typename Gradient, typename Forward, typename Backward, typename Bytes>
void compare(const Operation& op, const char* isa_name, Forward forward_plan, Backward backward_plan,
             Bytes backward_bytes) {
  for (DType dtype : kDTypes) {
    for (const Dims& d : {Dims{3, 4, 1, 2}, Dims{2, 4, 37, 2}, Dims{3, 2, 1100, 1}, Dims{40, 6, 9, 3}}) {
      Problem expected(op, d, dtype), p(op, d, dtype);
      ASSERT_EQ(expected.run(), Status::kOk);
      const int64_t size[] = {d.N, d.C, d.S};
      const ChannelsShape shape{3, size};
      Arrays a = p.arrays();
      auto args = impl::forward<Args>(a);
      impl::set_mean(args, a.mean, 0);
      impl::set_groups(args, d.G, 0);
      Plan plan;
      ASSERT_EQ(forward_plan(shape, args, Workspace{}, &plan), Status::kOk);
      execute(plan);
      auto gradient = impl::backward<Gradient>(a);
      impl::set_groups(gradient, d.G, 0);
      std::vector<unsigned char> scratch(backward_bytes(shape, gradient));
      ASSERT_EQ(backward_plan(shape, gradient, Workspace{scratch.data(), scratch.size()}, &plan),
                Status::kOk);
      execute(plan);
      EXPECT_EQ(p.hash(), expected.hash())
          << op.name << " " << isa_name << " " << dtype_name(dtype) << " " << d.S;
    }
  }
}

TEST(Sameness, InstructionSetsOverChannels) {
  const std::string available = std::string(" ") + isa_available() + " ";
  const std::pair<const char*, const OperationTable* (*)()> tables[] = {
#  if defined(__x86_64__)
      {"baseline", &normkit_table_baseline}, {"avx2", &normkit_table_avx2}, {"avx512", &normkit_table_avx512}
#  else
      {"neon", &normkit_table_neon}
#  endif
  };
  for (const auto& [name, table] : tables) {
    if (available.find(std::string(" ") + name + " ") == std::string::npos) continue;
    const OperationTable& t = *table();
    compare<BatchNormArgs, BatchNormBackwardArgs>(operations()[2], name, t.batch_norm_plan,
                                                  t.batch_norm_backward_plan,
                                                  t.batch_norm_backward_workspace_bytes);
    compare<InstanceNormArgs, InstanceNormBackwardArgs>(operations()[3], name, t.instance_norm_plan,
                                                        t.instance_norm_backward_plan,
                                                        t.instance_norm_backward_workspace_bytes);
    compare<GroupNormArgs, GroupNormBackwardArgs>(operations()[4], name, t.group_norm_plan,
                                                  t.group_norm_backward_plan,
                                                  t.group_norm_backward_workspace_bytes);
  }
}
#endif

}  // namespace
}  // namespace tests
