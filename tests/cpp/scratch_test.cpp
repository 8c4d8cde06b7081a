// Where partial sums would take more scratch than is asked for, operations group them, take them by strips or
// find statistics again (workspace_test.cpp). A caller who lends more gets none of that: the bits are the
// same, in any order of tasks, and right.
#include <gtest/gtest.h>

#include <array>
#include <functional>
#include <memory>

#include "problem.hpp"

namespace tests {
namespace {

constexpr DType kTypes[] = {DType::kF32, DType::kBF16, DType::kF64};

// More than any of these operations uses; never touched beyond that.
Workspace plenty() {
  static const std::unique_ptr<char[]> memory(new char[size_t(1) << 28]);
  return {memory.get(), size_t(1) << 28};
}

Array random_array(DType dtype, int64_t count, uint64_t seed) {
  Array a(dtype, count);
  Random random(seed);
  for (size_t i = 0; i < a.size(); ++i) a.set(i, random.uniform() * 3 - 1);
  return a;
}

// The outputs of one call; they keep what they hold from one run to the next.
class Call {
 public:
  View add(DType dtype, int64_t count, const int64_t* strides = nullptr) {
    arrays_.push_back(std::make_unique<Array>(dtype, count));
    start_.push_back(*arrays_.back());
    return {arrays_.back()->bytes.data(), dtype, strides};
  }
  View add(const Array& start) {
    arrays_.push_back(std::make_unique<Array>(start));
    start_.push_back(start);
    return {arrays_.back()->bytes.data(), start.dtype};
  }
  const Array& array(size_t i) const { return *arrays_[i]; }

  // `little`: more than the operation may ask for. Whatever is lent, and in whatever order tasks run.
  template <typename Shape, typename Args>
  void check(size_t (*workspace_bytes)(const Shape&, const Args&) noexcept,
             Status (*make_plan)(const Shape&, const Args&, Workspace, Plan*) noexcept, const Shape& shape,
             const Args& args, int64_t little) {
    const size_t bytes = workspace_bytes(shape, args);
    ASSERT_LT(bytes, static_cast<size_t>(little)) << "this shape has room for everything";
    const std::unique_ptr<char[]> scratch(new char[bytes + 1]);
    std::memset(scratch.get(), 0x7F, bytes);
    const Workspace asked{scratch.get(), bytes};
    const auto run = [&](Workspace lent, bool halves_swapped) {
      for (size_t i = 0; i < arrays_.size(); ++i) *arrays_[i] = start_[i];
      Plan plan;
      ASSERT_EQ(make_plan(shape, args, lent, &plan), Status::kOk);
      for (int phase = 0; phase < plan.phase_count; ++phase) {
        const int64_t tasks = plan.phases[phase].tasks;
        if (halves_swapped) plan.run(phase, tasks / 2, tasks);
        plan.run(phase, 0, halves_swapped ? tasks / 2 : tasks);
      }
    };
    run(plenty(), false);
    const std::vector<uint64_t> expected = hashes();
    run(asked, true);
    EXPECT_EQ(hashes(), expected);
  }

 private:
  std::vector<uint64_t> hashes() const {
    std::vector<uint64_t> all;
    for (const auto& a : arrays_) all.push_back(fnv(14695981039346656037u, a->bytes.data(), a->bytes.size()));
    return all;
  }

  std::vector<std::unique_ptr<Array>> arrays_;
  std::vector<Array> start_;
};

ConstView in(const Array& a, const int64_t* strides = nullptr) {
  return {a.bytes.data(), a.dtype, strides};
}

// [N, C, S], in memory as it is written or channels-last.
struct Inputs {
  int64_t size[3], last[3];
  Array x, dy, weight, logits, other_logits;
  ChannelsShape shape{3, size};
  const int64_t* strides;

  Inputs(DType dtype, int64_t N, int64_t C, int64_t S, bool channels_last)
      : size{N, C, S},
        last{C * S, 1, C},
        x(random_array(dtype, N * C * S, 1)),
        dy(random_array(dtype, N * C * S, 2)),
        weight(random_array(dtype, C, 3)),
        logits(random_array(dtype, 3, 4)),
        other_logits(random_array(dtype, 3, 5)),
        strides(channels_last ? last : nullptr) {}
  Inputs(const Inputs&) = delete;

  int64_t sets() const { return size[0] * size[1]; }
  template <typename Args>
  Args backward(Call& run) const {
    Args args;
    args.x = in(x, strides);
    args.dy = in(dy, strides);
    args.weight = in(weight);
    args.dx = run.add(x.dtype, static_cast<int64_t>(x.size()), strides);
    args.dweight = run.add(DType::kF64, size[1]);
    args.dbias = run.add(x.dtype, size[1]);
    return args;
  }
};

using Shapes = std::vector<std::array<int64_t, 3>>;

// Every type with the first shape, every shape with float.
void for_all(const Shapes& shapes, const std::function<void(const Inputs&)>& body) {
  for (DType dtype : kTypes) {
    for (const auto& s : shapes) {
      if (dtype != DType::kF32 && &s != &shapes[0]) continue;
      for (bool last : {false, true}) {
        if (last && (dtype == DType::kF64 || &s == &shapes.back())) continue;
        SCOPED_TRACE(std::string(dtype_name(dtype)) + " " + std::to_string(s[0]) + " x " +
                     std::to_string(s[1]) + " x " + std::to_string(s[2]) + (last ? " channels last" : ""));
        body(Inputs(dtype, s[0], s[1], s[2], last));
      }
    }
  }
}

// Groups of samples, the last one incomplete, of two and of more; more channels than even one group may have.
const Shapes kManySets = {{17001, 18, 2}, {40009, 18, 2}, {3, 150006, 2}};

TEST(Scratch, GradientsOfSets) {
  for_all(kManySets, [](const Inputs& in) {
    Call instance;
    const auto args = in.backward<InstanceNormBackwardArgs>(instance);
    instance.check(&instance_norm_backward_workspace_bytes, &instance_norm_backward_plan, in.shape, args,
                   in.sets() * 16);
    for (int64_t within : {int64_t(2), in.size[1]}) {
      Call group;
      auto of_groups = in.backward<GroupNormBackwardArgs>(group);
      of_groups.groups = in.size[1] / within;
      group.check(&group_norm_backward_workspace_bytes, &group_norm_backward_plan, in.shape, of_groups,
                  in.sets() * 16);
    }
  });
}

TEST(Scratch, RunningStatistics) {
  for_all(kManySets, [](const Inputs& in) {
    Call run;
    InstanceNormArgs args;
    args.x = tests::in(in.x, in.strides);
    args.y = run.add(in.x.dtype, static_cast<int64_t>(in.x.size()), in.strides);
    args.running_mean = run.add(random_array(DType::kF64, in.size[1], 6));
    args.running_var = run.add(random_array(DType::kF32, in.size[1], 7));
    run.check(&instance_norm_workspace_bytes, &instance_norm_plan, in.shape, args, in.sets() * 16);
    const Array before = random_array(DType::kF64, in.size[1], 6);
    for (int64_t c = 0; c < in.size[1] && !in.strides; c += 17) {  // means are summed in any order here
      double sum = 0.0;
      for (int64_t i = 0; i < in.size[0]; ++i)
        for (int64_t j = 0; j < in.size[2]; ++j)
          sum += in.x[static_cast<size_t>((i * in.size[1] + c) * in.size[2] + j)];
      const double mean = sum / static_cast<double>(in.size[0] * in.size[2]);
      const double expected = 0.9 * before[static_cast<size_t>(c)] + 0.1 * mean;
      const double kept = in.size[2] > 1 ? expected : before[static_cast<size_t>(c)];
      ASSERT_NEAR(run.array(1)[static_cast<size_t>(c)], kept, 1e-9) << c;
    }
  });
}

// Statistics of each sample kept or found again; groups of samples and of channels.
TEST(Scratch, SwitchableNorm) {
  for_all({{17001, 18, 2}, {150001, 2, 1}, {3, 100003, 1}}, [](const Inputs& in) {
    for (bool training : {true, false}) {
      if (!training && in.x.dtype != DType::kBF16) continue;
      const int64_t elements = static_cast<int64_t>(in.x.size()), C = in.size[1];
      Array running_var = random_array(DType::kF64, C, 7);
      for (size_t c = 0; c < running_var.size(); ++c) running_var.set(c, running_var[c] + 1.5);
      Call applied;
      SwitchableNormArgs args;
      args.x = tests::in(in.x, in.strides);
      args.y = applied.add(in.x.dtype, elements, in.strides);
      args.mean_weight = tests::in(in.logits);
      args.var_weight = tests::in(in.other_logits);
      args.weight = args.bias = tests::in(in.weight);
      args.running_mean = applied.add(random_array(DType::kF64, C, 6));
      args.running_var = applied.add(running_var);
      args.training = training;
      applied.check(&switchable_norm_workspace_bytes, &switchable_norm_plan, in.shape, args, in.sets() * 16);
      Call gradients;
      auto backward = in.backward<SwitchableNormBackwardArgs>(gradients);
      backward.mean_weight = args.mean_weight;
      backward.var_weight = args.var_weight;
      backward.running_mean = {args.running_mean.data, DType::kF64};
      backward.running_var = {args.running_var.data, DType::kF64};
      backward.training = training;
      backward.dmean_weight = gradients.add(DType::kF64, 3);
      backward.dvar_weight = gradients.add(DType::kF64, 3);
      gradients.check(&switchable_norm_backward_workspace_bytes, &switchable_norm_backward_plan, in.shape,
                      backward, in.sets() * 32);
    }
  });
}

// Few long rows; of one and of two panels, side by side and two elements apart.
TEST(Scratch, GradientsOfRows) {
  for (DType dtype : kTypes) {
    for (const Dims& d : {Dims{1, 1, 300005}, Dims{9, 1, 300005}, Dims{66, 1, 160001}}) {
      if (d.N > 9 && dtype != DType::kF32) continue;
      SCOPED_TRACE(std::string(dtype_name(dtype)) + " " + std::to_string(d.N) + " x " + std::to_string(d.S));
      const int64_t step = d.N == 9 ? 2 : 1, size[] = {d.N, d.S}, strides[] = {step * d.S, step};
      const int64_t little = 2 * d.S * (dtype == DType::kF64 ? 16 : 12);
      const RowsShape shape{1, 1, size};
      const Array x = random_array(dtype, step * d.elements(), 1), dy = random_array(dtype, d.elements(), 2);
      const Array weight = random_array(dtype, d.S, 3), dsum = random_array(dtype, d.elements(), 4);
      Call layer, rms, sum;
      LayerNormBackwardArgs args;
      args.x = {x.bytes.data(), dtype, strides};
      args.dy = in(dy);
      args.weight = in(weight);
      args.dx = layer.add(dtype, d.elements());
      args.dweight = layer.add(DType::kF64, d.S);
      args.dbias = layer.add(dtype, d.S);
      layer.check(&layer_norm_backward_workspace_bytes, &layer_norm_backward_plan, shape, args, little);
      RmsNormBackwardArgs of_rms;
      of_rms.x = args.x;
      of_rms.dy = args.dy;
      of_rms.weight = args.weight;
      of_rms.dx = rms.add(dtype, d.elements());
      of_rms.dweight = rms.add(random_array(dtype, d.S, 5));
      of_rms.accumulate = true;
      rms.check(&rms_norm_backward_workspace_bytes, &rms_norm_backward_plan, shape, of_rms, little);
      AddLayerNormBackwardArgs of_sum;
      of_sum.summed = args.x;
      of_sum.dy = args.dy;
      of_sum.dsum = in(dsum);
      of_sum.weight = args.weight;
      of_sum.dsummed = sum.add(dtype, d.elements());
      of_sum.dweight = sum.add(DType::kF64, d.S);
      of_sum.dbias = sum.add(dtype, d.S);
      sum.check(&add_layer_norm_backward_workspace_bytes, &add_layer_norm_backward_plan, shape, of_sum,
                little);
    }
  }
}

// Many channels of few elements: side by side, and each on its own.
TEST(Scratch, DynamicTanh) {
  for (DType dtype : kTypes) {
    for (const std::array<int64_t, 3>& s :
         {std::array<int64_t, 3>{3, 300007, 1}, {70, 150003, 1}, {300007, 20, 0}}) {
      if (s[0] == 70 && dtype != DType::kF32) continue;
      for (bool per_channel : {false, true}) {
        SCOPED_TRACE(std::string(dtype_name(dtype)) + " " + std::to_string(s[0]) + " x " +
                     std::to_string(s[1]));
        const auto axis = static_cast<int32_t>(s[2]);
        const int64_t size[] = {s[0], s[1]}, elements = s[0] * s[1], C = size[axis];
        const Array x = random_array(dtype, elements, 1), dy = random_array(dtype, elements, 2);
        const Array weight = random_array(dtype, C, 3), alpha = random_array(dtype, per_channel ? C : 1, 4);
        Call run;
        DynamicTanhBackwardArgs args;
        args.x = in(x);
        args.dy = in(dy);
        args.alpha = in(alpha);
        args.alpha_per_channel = per_channel;
        args.weight = in(weight);
        args.dx = run.add(dtype, elements);
        args.dalpha = run.add(DType::kF64, per_channel ? C : 1);
        args.dweight = run.add(dtype, C);
        args.dbias = run.add(DType::kF64, C);
        run.check(&dynamic_tanh_backward_workspace_bytes, &dynamic_tanh_backward_plan,
                  MapShape{2, size, axis}, args, C * 24);
      }
    }
  }
}

// The wide reference at shapes that need each way, with the scratch that is asked for.
TEST(Scratch, GradientsAreRight) {
  using reference::Wide;
  for (const Operation& op : operations()) {
    const std::string name = op.name;
    if (name == "batch_norm") continue;
    const std::vector<Dims> shapes = op.over_rows
                                         ? std::vector<Dims>{{2, 1, 200003}}
                                         : std::vector<Dims>{{30001, 10, 2, 5}, {3, 140002, 1, 70001}};
    for (const Dims& d : shapes) {
      Problem p(op, d, DType::kF32);
      ASSERT_LT(op.backward_bytes(d, p.arrays()), size_t(4500000));
      ASSERT_EQ(p.run(), Status::kOk);
      const reference::Result exact = p.expected();
      for (size_t i = 0; i < p.dweight.size(); ++i) {
        const auto near = [&](const Array& got, const std::vector<Wide>& value,
                              const std::vector<Wide>& terms) {
          const Wide bound = Wide(0x1p-20) * terms[i] + ulp(value[i], DType::kF32) / 2;
          ASSERT_LE(static_cast<double>(reference::wide_abs(got[i] - value[i])), static_cast<double>(bound))
              << name << " " << i;
        };
        near(p.dweight, exact.dweight, exact.dweight_terms);
        near(p.dbias, exact.dbias, exact.dbias_terms);
      }
    }
  }
}

}  // namespace
}  // namespace tests
