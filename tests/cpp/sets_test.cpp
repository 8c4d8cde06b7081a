// The operations over sets that the shared descriptions do not cover: buffers of exactly the right size (for
// the sanitizers), workspaces one byte short, bits for any executor, arguments that are refused.
#include <gtest/gtest.h>
#include <unistd.h>

#include <climits>
#include <functional>

#include "data.hpp"
#include "normkit/normkit.hpp"

namespace tests {
namespace {

using namespace normkit;

// Outputs of one call, compared and checked as a whole.
struct Outputs {
  std::vector<Array> arrays;
  Array& add(DType dtype, int64_t count) {
    arrays.emplace_back(dtype, count);
    return arrays.back();
  }
  uint64_t hash() const {
    uint64_t h = 14695981039346656037u;
    for (const Array& a : arrays) h = fnv(h, a.bytes.data(), a.bytes.size());
    return h;
  }
  bool untouched() const {
    for (const Array& a : arrays)
      for (unsigned char byte : a.bytes)
        if (byte != 0xA5) return false;
    return true;
  }
};

Array random_array(DType dtype, int64_t count, uint64_t seed) {
  Array a(dtype, count);
  Random random(seed);
  for (size_t i = 0; i < a.size(); ++i) a.set(i, random.normal() + 0.5);
  return a;
}

ConstView in(const Array& a) {
  return {a.bytes.data(), a.dtype};
}
View out(Array& a) {
  return {a.bytes.data(), a.dtype};
}

// Runs with the exact workspace and with one byte less, serially and with the default executor.
template <typename Shape, typename Args>
void check(const Shape& shape, const Args& args, Outputs& outputs,
           size_t (*workspace_bytes)(const Shape&, const Args&) noexcept,
           Status (*make_plan)(const Shape&, const Args&, Workspace, Plan*) noexcept) {
  const size_t bytes = workspace_bytes(shape, args);
  Plan plan;
  if (bytes > 0) {
    std::vector<unsigned char> little(bytes - 1);
    ASSERT_EQ(make_plan(shape, args, {little.data(), little.size()}, &plan), Status::kWorkspaceTooSmall);
    ASSERT_TRUE(outputs.untouched());
  }
  uint64_t hashes[2];
  for (int i = 0; i < 2; ++i) {
    std::vector<unsigned char> scratch(bytes);
    ASSERT_EQ(make_plan(shape, args, {scratch.data(), scratch.size()}, &plan), Status::kOk);
    execute(plan, i == 0 ? nullptr : default_executor());
    hashes[i] = outputs.hash();
  }
  EXPECT_EQ(hashes[0], hashes[1]);
  EXPECT_FALSE(outputs.untouched());
  for (const Array& a : outputs.arrays)
    for (size_t i = 0; i < a.size(); ++i) ASSERT_TRUE(std::isfinite(a[i])) << i;
}

// Every type and a few shapes [N, C, S]: around vectors, blocks and threads.
void for_all(const std::function<void(DType, const int64_t*)>& body) {
  const int64_t shapes[][3] = {{1, 1, 1}, {2, 3, 5}, {3, 5, 33}, {1, 65, 49}, {2, 2, 1030}, {40, 7, 70}};
  for (DType dtype : kDTypes) {
    for (const auto& size : shapes) {
      SCOPED_TRACE(std::string(dtype_name(dtype)) + " " + std::to_string(size[0]) + "x" +
                   std::to_string(size[1]) + "x" + std::to_string(size[2]));
      body(dtype, size);
    }
  }
}

constexpr double kInfinity = std::numeric_limits<double>::infinity();

TEST(Sets, Normalize) {
  for_all([](DType dtype, const int64_t* size) {
    const int64_t elements = size[0] * size[1] * size[2];
    const Array x = random_array(dtype, elements, 1), dy = random_array(dtype, elements, 2);
    for (double p : {2.0, 1.0, 3.0, 0.0, kInfinity}) {
      for (uint64_t normalized : {1u, 2u, 4u, 5u, 7u}) {
        const SetsShape shape{3, size, normalized, 0, 0};
        Outputs y, dx;
        NormalizeArgs forward;
        forward.x = in(x);
        forward.y = out(y.add(dtype, elements));
        forward.p = p;
        check(shape, forward, y, &normalize_workspace_bytes, &normalize_plan);
        NormalizeBackwardArgs backward;
        backward.dy = in(dy);
        backward.x = in(x);
        backward.dx = out(dx.add(dtype, elements));
        backward.p = p;
        check(shape, backward, dx, &normalize_backward_workspace_bytes, &normalize_backward_plan);
      }
    }
  });
}

TEST(Sets, WeightNorm) {
  for_all([](DType dtype, const int64_t* size) {
    const int64_t elements = size[0] * size[1] * size[2];
    const Array v = random_array(dtype, elements, 1), dw = random_array(dtype, elements, 2);
    for (int axis = 0; axis < 3; ++axis) {
      const Array g = random_array(dtype, size[axis], 3);
      const uint64_t kept = uint64_t(1) << axis;
      const SetsShape shape{3, size, 7 & ~kept, kept, 0};
      Outputs w, gradients;
      gradients.arrays.reserve(2);
      WeightNormArgs forward;
      forward.v = in(v);
      forward.g = in(g);
      forward.w = out(w.add(dtype, elements));
      check(shape, forward, w, &weight_norm_workspace_bytes, &weight_norm_plan);
      WeightNormBackwardArgs backward;
      backward.dw = in(dw);
      backward.v = in(v);
      backward.g = in(g);
      backward.dv = out(gradients.add(dtype, elements));
      backward.dg = out(gradients.add(dtype, size[axis]));
      check(shape, backward, gradients, &weight_norm_backward_workspace_bytes, &weight_norm_backward_plan);
    }
  });
}

TEST(Sets, Scaling) {
  for_all([](DType dtype, const int64_t* size) {
    const int64_t elements = size[0] * size[1] * size[2];
    const Array x = random_array(dtype, elements, 1);
    for (uint64_t normalized : {1u, 6u, 7u}) {
      const SetsShape shape{3, size, normalized, 0, 0};
      Outputs ranged, scores;
      MinMaxScaleArgs range;
      range.x = in(x);
      range.y = out(ranged.add(dtype, elements));
      check(shape, range, ranged, &min_max_scale_workspace_bytes, &min_max_scale_plan);
      ZScoreArgs score;
      score.x = in(x);
      score.y = out(scores.add(dtype, elements));
      check(shape, score, scores, &z_score_workspace_bytes, &z_score_plan);
    }
  });
}

// Any axes normalized, any with parameters: forward and backward.
TEST(Sets, EveryMask) {
  for (DType dtype : kDTypes) {
    const int64_t size[] = {3, 4, 5, 7};
    constexpr int64_t kElements = 3 * 4 * 5 * 7;
    const Array x = random_array(dtype, kElements, 1), dy = random_array(dtype, kElements, 2);
    for (uint64_t normalized = 0; normalized < 16; ++normalized) {
      for (uint64_t affine = 0; affine < 16; ++affine) {
        int64_t parameters = 1, sets = 1;
        for (int a = 0; a < 4; ++a) {
          if (affine >> a & 1u) parameters *= size[a];
          if (!(normalized >> a & 1u)) sets *= size[a];
        }
        const SetsShape shape{4, size, normalized, affine, static_cast<int32_t>(affine % 3)};
        const Array weight = random_array(dtype, parameters, 3), bias = random_array(dtype, parameters, 4);
        Outputs y, gradients;
        y.arrays.reserve(3);
        gradients.arrays.reserve(3);
        NormArgs forward;
        forward.x = in(x);
        forward.weight = in(weight);
        forward.bias = in(bias);
        forward.y = out(y.add(dtype, kElements));
        forward.mean = out(y.add(DType::kF64, sets));
        forward.rstd = out(y.add(DType::kF64, sets));
        check(shape, forward, y, &norm_workspace_bytes, &norm_plan);
        NormBackwardArgs backward;
        backward.dy = in(dy);
        backward.x = in(x);
        backward.weight = in(weight);
        backward.dx = out(gradients.add(dtype, kElements));
        backward.dweight = out(gradients.add(dtype, parameters));
        backward.dbias = out(gradients.add(dtype, parameters));
        check(shape, backward, gradients, &norm_backward_workspace_bytes, &norm_backward_plan);
      }
    }
  }
}

TEST(Sets, AdaptiveInstanceNorm) {
  for_all([](DType dtype, const int64_t* size) {
    const int64_t style_size[] = {size[0], size[1], size[2] / 2 + 1};
    const int64_t elements = size[0] * size[1] * size[2], others = size[0] * size[1] * style_size[2];
    const Array content = random_array(dtype, elements, 1), style = random_array(dtype, others, 2);
    const Array dy = random_array(dtype, elements, 3);
    const AdaptiveInstanceNormShape shape{{3, size}, {3, style_size}};
    Outputs y, gradients;
    gradients.arrays.reserve(2);
    AdaptiveInstanceNormArgs forward;
    forward.content = in(content);
    forward.style = in(style);
    forward.y = out(y.add(dtype, elements));
    check(shape, forward, y, &adaptive_instance_norm_workspace_bytes, &adaptive_instance_norm_plan);
    AdaptiveInstanceNormBackwardArgs backward;
    backward.dy = in(dy);
    backward.content = in(content);
    backward.style = in(style);
    backward.dcontent = out(gradients.add(dtype, elements));
    backward.dstyle = out(gradients.add(dtype, others));
    check(shape, backward, gradients, &adaptive_instance_norm_backward_workspace_bytes,
          &adaptive_instance_norm_backward_plan);
  });
}

TEST(Sets, SwitchableNorm) {
  for_all([](DType dtype, const int64_t* size) {
    const int64_t elements = size[0] * size[1] * size[2], C = size[1];
    const Array x = random_array(dtype, elements, 1), dy = random_array(dtype, elements, 2);
    const Array logits = random_array(dtype, 3, 3), weight = random_array(dtype, C, 4);
    for (bool training : {true, false}) {
      const ChannelsShape shape{3, size};
      Array running_mean = random_array(DType::kF32, C, 5), running_var(DType::kF32, C);
      for (size_t c = 0; c < running_var.size(); ++c) running_var.set(c, 1.0 + static_cast<double>(c));
      Outputs y, gradients;
      gradients.arrays.reserve(5);
      SwitchableNormArgs forward;
      forward.x = in(x);
      forward.mean_weight = forward.var_weight = in(logits);
      forward.weight = forward.bias = in(weight);
      forward.running_mean = out(running_mean);
      forward.running_var = out(running_var);
      forward.training = training;
      forward.y = out(y.add(dtype, elements));
      check(shape, forward, y, &switchable_norm_workspace_bytes, &switchable_norm_plan);
      SwitchableNormBackwardArgs backward;
      backward.dy = in(dy);
      backward.x = in(x);
      backward.mean_weight = backward.var_weight = in(logits);
      backward.weight = in(weight);
      backward.running_mean = in(running_mean);
      backward.running_var = in(running_var);
      backward.training = training;
      backward.dx = out(gradients.add(dtype, elements));
      backward.dmean_weight = out(gradients.add(dtype, 3));
      backward.dvar_weight = out(gradients.add(dtype, 3));
      backward.dweight = out(gradients.add(dtype, C));
      backward.dbias = out(gradients.add(dtype, C));
      check(shape, backward, gradients, &switchable_norm_backward_workspace_bytes,
            &switchable_norm_backward_plan);
    }
  });
}

TEST(Sets, MomentsAndGradSums) {
  for_all([](DType dtype, const int64_t* size) {
    const int64_t elements = size[0] * size[1] * size[2], C = size[1];
    const Array x = random_array(dtype, elements, 1), dy = random_array(dtype, elements, 2);
    const std::vector<double> mean(static_cast<size_t>(C), 0.5), rstd(static_cast<size_t>(C), 1.5);
    const SetsShape shape{3, size, 5, 0, 1};
    constexpr int64_t kRanks = 8;
    MomentsArgs moments;
    Array before = random_array(DType::kF64, C * kRanks * moments_doubles(dtype), 3);
    Outputs trees;
    moments.x = in(x);
    moments.filled = 1;
    moments.before = reinterpret_cast<const double*>(before.bytes.data());
    moments.before_ranks = moments.after_ranks = kRanks;
    Array& after = trees.add(DType::kF64, C * kRanks * moments_doubles(dtype));
    for (size_t i = 0; i < after.size(); ++i) after.set(i, 1.0);
    moments.after = reinterpret_cast<double*>(after.bytes.data());
    check(shape, moments, trees, &moments_update_workspace_bytes, &moments_update_plan);
    Plan plan;
    moments.after_ranks = 0;
    EXPECT_EQ(moments_update_plan(shape, moments, {}, &plan), Status::kWorkspaceTooSmall);

    GradSumsArgs sums;
    Outputs sum_trees;
    sums.x = in(x);
    sums.dy = in(dy);
    sums.mean = mean.data();
    sums.rstd = rstd.data();
    sums.after_ranks = kRanks;
    Array& sums_after = sum_trees.add(DType::kF64, C * kRanks * kGradSumsDoubles);
    for (size_t i = 0; i < sums_after.size(); ++i) sums_after.set(i, 1.0);
    sums.after = reinterpret_cast<double*>(sums_after.bytes.data());
    check(shape, sums, sum_trees, &grad_sums_update_workspace_bytes, &grad_sums_update_plan);
    sums.mean = ConstView{};
    EXPECT_EQ(grad_sums_update_plan(shape, sums, {}, &plan), Status::kNullPointer);
  });
}

// Channels-last memory, [N, S, C] seen as [N, C, S]: columns, with the bits of rows; whole vectors of sets, a
// rest, sets that leave float's range among others.
TEST(Sets, ColumnsHaveTheBitsOfRows) {
  for (DType dtype : kDTypes) {
    for (int64_t S : {5, 300, 1500}) {
      constexpr int64_t N = 3, C = 37;
      const int64_t size[] = {N, C, S}, last[] = {S * C, 1, C};
      const int64_t elements = N * C * S;
      Array x = random_array(dtype, elements, 1), dy = random_array(dtype, elements, 2);
      if (dtype == DType::kF32 || dtype == DType::kBF16)
        for (size_t i = 0; i < x.size(); ++i)
          if (i / static_cast<size_t>(S) % C == 5) x.set(i, x[i] * 1e35);
      const Array weight = random_array(dtype, C, 3), bias = random_array(dtype, C, 4);
      const auto moved = [&](const Array& from, bool back) {
        Array to(dtype, elements);
        for (int64_t n = 0; n < N; ++n)
          for (int64_t c = 0; c < C; ++c)
            for (int64_t s = 0; s < S; ++s) {
              const auto row = static_cast<size_t>((n * C + c) * S + s);
              const auto column = static_cast<size_t>((n * S + s) * C + c);
              to.set(back ? row : column, from[back ? column : row]);
            }
        return to;
      };
      // BatchNorm, InstanceNorm, LayerNorm over C.
      for (uint64_t normalized : {5u, 4u, 2u}) {
        SCOPED_TRACE(std::string(dtype_name(dtype)) + " " + std::to_string(S) + " mask " +
                     std::to_string(normalized));
        const SetsShape shape{3, size, normalized, 2, normalized == 5 ? 1 : 0};
        std::vector<Array> results[2];
        for (int columns = 0; columns < 2; ++columns) {
          const Array own_x = columns ? moved(x, false) : x, own_dy = columns ? moved(dy, false) : dy;
          const int64_t* strides = columns ? last : nullptr;
          Array y(dtype, elements), dx(dtype, elements), dweight(dtype, C), dbias(dtype, C);
          NormArgs forward;
          forward.x = {own_x.bytes.data(), dtype, strides};
          forward.y = {y.bytes.data(), dtype, strides};
          forward.weight = in(weight);
          forward.bias = in(bias);
          ASSERT_EQ(norm(shape, forward), Status::kOk);
          NormBackwardArgs backward;
          backward.x = {own_x.bytes.data(), dtype, strides};
          backward.dy = {own_dy.bytes.data(), dtype, strides};
          backward.dx = {dx.bytes.data(), dtype, strides};
          backward.weight = in(weight);
          backward.dweight = out(dweight);
          backward.dbias = out(dbias);
          std::vector<unsigned char> scratch(norm_backward_workspace_bytes(shape, backward));
          ASSERT_EQ(norm_backward(shape, backward, {scratch.data(), scratch.size()}), Status::kOk);
          results[columns] = {columns ? moved(y, true) : y, columns ? moved(dx, true) : dx, dweight, dbias};
        }
        for (size_t k = 0; k < 4; ++k) EXPECT_EQ(results[0][k].bytes, results[1][k].bytes) << k;
      }
    }
  }
}

// SwitchableNorm's gradient of the logits against differences of its own forward.
TEST(Sets, SwitchableGradientsAreDifferences) {
  const int64_t size[] = {3, 4, 5};
  constexpr int64_t kElements = 60;
  const Array x = random_array(DType::kF64, kElements, 1), dy = random_array(DType::kF64, kElements, 2);
  const Array weight = random_array(DType::kF64, 4, 3);
  double logits[2][3] = {{0.25, -0.5, 1.0}, {0.5, 0.125, -0.75}}, gradient[2][3];
  const ChannelsShape shape{3, size};
  SwitchableNormBackwardArgs backward;
  backward.dy = in(dy);
  backward.x = in(x);
  backward.weight = in(weight);
  backward.mean_weight = logits[0];
  backward.var_weight = logits[1];
  backward.dmean_weight = gradient[0];
  backward.dvar_weight = gradient[1];
  Array dx(DType::kF64, kElements);
  backward.dx = out(dx);
  std::vector<unsigned char> scratch(switchable_norm_backward_workspace_bytes(shape, backward));
  ASSERT_EQ(switchable_norm_backward(shape, backward, {scratch.data(), scratch.size()}), Status::kOk);
  const auto loss = [&](const Array& at) {
    Array y(DType::kF64, kElements);
    SwitchableNormArgs forward;
    forward.x = in(at);
    forward.y = out(y);
    forward.mean_weight = logits[0];
    forward.var_weight = logits[1];
    forward.weight = in(weight);
    std::vector<unsigned char> memory(switchable_norm_workspace_bytes(shape, forward));
    EXPECT_EQ(switchable_norm(shape, forward, {memory.data(), memory.size()}), Status::kOk);
    double sum = 0.0;
    for (size_t i = 0; i < y.size(); ++i) sum += y[i] * dy[i];
    return sum;
  };
  constexpr double kStep = 1e-6;
  for (auto& group : logits) {
    for (double& logit : group) {
      const double before = logit;
      logit = before + kStep;
      const double above = loss(x);
      logit = before - kStep;
      const double below = loss(x);
      logit = before;
      const double wanted = (above - below) / (2 * kStep);
      EXPECT_NEAR(gradient[&group - logits][&logit - group], wanted, 1e-7 * (1 + std::fabs(wanted)));
    }
  }
  for (size_t i = 0; i < x.size(); i += 7) {
    Array above = x, below = x;
    above.set(i, x[i] + kStep);
    below.set(i, x[i] - kStep);
    const double wanted = (loss(above) - loss(below)) / (2 * kStep);
    EXPECT_NEAR(dx[i], wanted, 1e-7 * (1 + std::fabs(wanted)));
  }
}

TEST(Sets, RefusesWhatIsWrong) {
  const int64_t size[] = {2, 3, 4}, negative[] = {2, -3, 4}, huge[] = {INT64_MAX, 2, 2};
  std::vector<float> x(24, 1.0f), y(24, 7.0f);
  const auto run = [&](const SetsShape& shape, const std::function<void(NormArgs&)>& change) {
    NormArgs args;
    args.x = x.data();
    args.y = y.data();
    change(args);
    Plan plan;
    const Status status = norm_plan(shape, args, {}, &plan);
    EXPECT_EQ(y, std::vector<float>(24, 7.0f));
    return status;
  };
  const SetsShape good{3, size, 5, 2, 0};
  const auto nothing = [](NormArgs&) {};
  EXPECT_EQ(run(good, nothing), Status::kOk);
  EXPECT_EQ(run({-1, size, 5, 2, 0}, nothing), Status::kInvalidShape);
  EXPECT_EQ(run({65, size, 5, 2, 0}, nothing), Status::kInvalidShape);
  EXPECT_EQ(run({3, nullptr, 5, 2, 0}, nothing), Status::kInvalidShape);
  EXPECT_EQ(run({3, negative, 5, 2, 0}, nothing), Status::kInvalidShape);
  EXPECT_EQ(run({3, huge, 5, 2, 0}, nothing), Status::kInvalidShape);
  EXPECT_EQ(run({3, size, 5, 2, -1}, nothing), Status::kInvalidShape);
  EXPECT_EQ(run(good, [](NormArgs& a) { a.x = {}; }), Status::kNullPointer);
  EXPECT_EQ(run(good, [](NormArgs& a) { a.eps = NAN; }), Status::kInvalidEps);
  EXPECT_EQ(run(good, [](NormArgs& a) { a.eps = -1e-5; }), Status::kInvalidEps);
  EXPECT_EQ(run(good, [&](NormArgs& a) { a.weight = y.data(); }), Status::kOverlap);
  EXPECT_EQ(run(good, [&](NormArgs& a) { a.x = {x.data(), DType::kF64}; }), Status::kInvalidDType);
  EXPECT_EQ(run(good, [&](NormArgs& a) { a.running_mean = y.data(); }), Status::kMissingStatistics);
  EXPECT_EQ(run(good, [&](NormArgs& a) { a.given_mean = x.data(); }), Status::kMissingStatistics);

  NormalizeArgs normalize;
  normalize.x = x.data();
  normalize.y = y.data();
  normalize.p = NAN;
  Plan plan;
  EXPECT_EQ(normalize_plan(good, normalize, {}, &plan), Status::kInvalidEps);

  SwitchableNormArgs mixed;
  mixed.x = x.data();
  mixed.y = y.data();
  EXPECT_EQ(switchable_norm_plan({3, size}, mixed, {}, &plan), Status::kNullPointer);
  mixed.mean_weight = mixed.var_weight = x.data();
  EXPECT_EQ(switchable_norm_plan({3, size}, mixed, {}, &plan), Status::kWorkspaceTooSmall);
  mixed.training = false;
  EXPECT_EQ(switchable_norm_plan({3, size}, mixed, {}, &plan), Status::kMissingStatistics);
  EXPECT_EQ(switchable_norm_plan({1, size}, mixed, {}, &plan), Status::kInvalidShape);

  const int64_t other[] = {2, 2, 4}, empty[] = {2, 3, 0};
  AdaptiveInstanceNormArgs adaptive;
  adaptive.content = adaptive.style = x.data();
  adaptive.y = y.data();
  EXPECT_EQ(adaptive_instance_norm_plan({{3, size}, {3, other}}, adaptive, {}, &plan), Status::kInvalidShape);
  EXPECT_EQ(adaptive_instance_norm_plan({{3, size}, {3, empty}}, adaptive, {}, &plan), Status::kInvalidShape);
  adaptive.eps = -1e-5;
  EXPECT_EQ(adaptive_instance_norm_plan({{3, size}, {3, size}}, adaptive, {}, &plan), Status::kInvalidEps);
  EXPECT_EQ(y, std::vector<float>(24, 7.0f));
}

// Sets without elements are not counted one by one: each of these returns at once, or not within a lifetime.
TEST(Sets, CountlessEmptyOnes) {
  const int64_t size[] = {int64_t(1) << 40, 0}, channels[] = {0, int64_t(1) << 40};
  std::vector<double> one(4, 1.0), out(4, 7.0);
  std::vector<unsigned char> workspace(1 << 16);
  const Workspace lent{workspace.data(), workspace.size()};
  alarm(60);
  MomentsArgs moments;
  moments.x = one.data();
  moments.after = out.data();
  EXPECT_EQ(moments_update({2, size, 2, 0, 0}, moments), Status::kOk);
  GradSumsArgs sums;
  sums.x = sums.dy = sums.mean = sums.rstd = one.data();
  sums.after = out.data();
  EXPECT_EQ(grad_sums_update({2, size, 2, 0, 0}, sums), Status::kOk);
  SwitchableNormBackwardArgs mixed;
  mixed.x = mixed.dy = mixed.mean_weight = mixed.var_weight = one.data();
  mixed.dx = out.data();
  EXPECT_EQ(switchable_norm_backward({2, channels}, mixed, lent), Status::kOk);
  DynamicTanhBackwardArgs map;
  map.x = map.dy = map.alpha = one.data();
  map.dx = out.data();
  map.dalpha = out.data() + 1;
  EXPECT_EQ(dynamic_tanh_backward({2, channels, 1}, map, lent), Status::kOk);
  const int64_t nothing[] = {int64_t(1) << 40, 1, 0}, style[] = {int64_t(1) << 40, 1, 1},
                stride[] = {0, 0, 0};
  AdaptiveInstanceNormBackwardArgs adaptive;
  adaptive.content = adaptive.dy = one.data();
  adaptive.style = {one.data(), stride};
  EXPECT_EQ(adaptive_instance_norm_backward({{3, nothing}, {3, style}}, adaptive, lent), Status::kOk);
  alarm(0);
  EXPECT_EQ(out, (std::vector<double>{7, 0, 7, 7}));
}

// Sums of a larger array come for channels: a set of one element whose weight is its own has none.
TEST(Sets, SumsOfLargerSetsNeedChannels) {
  const int64_t size[] = {4, 1};
  std::vector<double> x(4, 1.0), y(4, 7.0), statistics(4, 0.5);
  NormBackwardArgs args;
  args.dy = args.x = x.data();
  args.dx = y.data();
  args.mean = args.rstd = args.sum_dy = args.sum_dy_xhat = statistics.data();
  args.count = 5;
  Plan plan;
  std::vector<unsigned char> workspace(1 << 16);
  const Workspace lent{workspace.data(), workspace.size()};
  EXPECT_EQ(norm_backward_plan({2, size, 2, 2, 0}, args, lent, &plan), Status::kMissingStatistics);
  EXPECT_EQ(norm_backward_plan({2, size, 2, 0, 0}, args, lent, &plan), Status::kOk);
}

}  // namespace
}  // namespace tests
