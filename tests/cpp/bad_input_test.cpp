// Every status, hostile sizes and strides; nothing is written when a call is refused.
#include <gtest/gtest.h>

#include <climits>

#include "problem.hpp"
#if defined(NORMKIT_COMPILED)
#  include "normkit/c_api.h"
#endif

namespace tests {
namespace {

struct Call {
  std::vector<float> x = std::vector<float>(64, 1.5f), y = std::vector<float>(64, 7.0f), weight = x;
  std::vector<double> mean = std::vector<double>(8, 7.0), rstd = mean;
  int64_t size[2] = {4, 16};
  RowsShape shape{1, 1, size};
  LayerNormArgs args;

  Call() {
    args.x = x.data();
    args.y = y.data();
    args.weight = weight.data();
    args.mean = mean.data();
    args.rstd = rstd.data();
  }
  Status run() { return layer_norm(shape, args); }
  void expect(Status status) {
    EXPECT_EQ(run(), status);
    EXPECT_NE(status_message(status), nullptr);
    for (float v : y) ASSERT_EQ(v, 7.0f);
    for (double v : mean) ASSERT_EQ(v, 7.0);
  }
};

TEST(BadInput, Arguments) {
  {
    Call c;
    EXPECT_EQ(c.run(), Status::kOk);
    EXPECT_NE(c.y[0], 7.0f);
  }
  {
    Call c;
    c.args.x = ConstView();
    c.expect(Status::kNullPointer);
  }
  {
    Call c;
    c.args.y = View();
    c.expect(Status::kNullPointer);
  }
  {
    Call c;
    c.args.eps = NAN;
    c.expect(Status::kInvalidEps);
  }
  {
    Call c;
    c.args.x.dtype = static_cast<DType>(9);
    c.expect(Status::kInvalidDType);
  }
  {
    Call c;
    c.args.y.dtype = DType::kF64;
    c.expect(Status::kInvalidDType);
  }
  {
    Call c;
    c.args.weight.dtype = DType::kF16;
    c.expect(Status::kInvalidDType);
  }
  {
    Call c;
    c.args.mean.dtype = DType::kF16;
    c.expect(Status::kInvalidDType);
  }
  {
    Call c;
    c.args.x.data = reinterpret_cast<const char*>(c.x.data()) + 1;
    c.expect(Status::kMisaligned);
  }
  {
    Call c;
    c.shape.inner = -1;
    c.expect(Status::kInvalidShape);
  }
  {
    Call c;
    c.shape.outer = 1000;
    c.expect(Status::kInvalidShape);
  }
  {
    Call c;
    c.shape.size = nullptr;
    c.expect(Status::kInvalidShape);
  }
  {
    Call c;
    c.size[0] = -4;
    c.expect(Status::kInvalidShape);
  }
}

TEST(BadInput, HostileSizesAndStrides) {
  for (int64_t a : {INT64_MAX, INT64_MIN, INT64_MAX / 2, int64_t(1) << 62, int64_t(1) << 47}) {
    for (int64_t b : {INT64_MAX, INT64_MIN, int64_t(1) << 40, int64_t(2)}) {
      Call c;
      c.size[0] = a;
      c.size[1] = b;
      c.expect(Status::kInvalidShape);
    }
    Call c;
    const int64_t strides[] = {a, 1};
    c.args.x.strides = strides;
    Plan plan;
    const Status status = layer_norm_plan(c.shape, c.args, {}, &plan);  // planned at most, not run
    EXPECT_TRUE(status == Status::kInvalidShape || status == Status::kOk || status == Status::kOverlap);
    Call d;
    d.args.y.strides = strides;
    EXPECT_NE(layer_norm_plan(d.shape, d.args, {}, &plan), Status::kNullPointer);
  }
}

// Size times stride is 2^72; merged modulo 2^64 the axes would look like one.
TEST(BadInput, AxesThatMergeBeyondInt64) {
  Call c;
  c.shape.outer = 0;
  c.shape.inner = 2;
  c.size[1] = int64_t(1) << 40;
  const int64_t strides[] = {0, int64_t(1) << 32};
  c.args.x.strides = strides;
  c.args.mean = c.args.rstd = {};
  c.args.weight = {};
  c.expect(Status::kInvalidShape);
}

TEST(BadInput, Overlap) {
  {
    Call c;
    c.args.y = c.x.data();
    EXPECT_EQ(c.run(), Status::kOk);
  }  // x itself
  {
    Call c;
    c.size[0] = 3;
    c.args.y = c.x.data() + 1;
    EXPECT_EQ(c.run(), Status::kOverlap);
  }
  {
    Call c;
    c.size[0] = 3;
    c.args.y = c.x.data() + 16;
    EXPECT_EQ(c.run(), Status::kOverlap);
  }
  {
    Call c;
    c.args.y = c.weight.data();
    EXPECT_EQ(c.run(), Status::kOverlap);
  }
  {
    Call c;
    c.args.rstd = c.mean.data();
    EXPECT_EQ(c.run(), Status::kOverlap);
  }
  {
    Call c;
    c.args.mean = reinterpret_cast<double*>(c.y.data());
    EXPECT_EQ(c.run(), Status::kOverlap);
  }
  {
    Call c;  // neighbours in one buffer, row by row: they interleave and do not touch
    c.size[0] = 2;
    const int64_t strides[] = {32, 1};
    c.args.x.strides = c.args.y.strides = strides;
    c.args.y = View(c.x.data() + 16, strides);
    EXPECT_EQ(c.run(), Status::kOk);
    c.args.y = View(c.x.data() + 15, strides);
    EXPECT_EQ(c.run(), Status::kOverlap);
  }
  {
    Call c;  // an output that lies on itself
    const int64_t strides[] = {0, 1}, close[] = {15, 1};
    c.args.y.strides = strides;
    c.expect(Status::kOverlap);
    c.args.y.strides = close;
    c.expect(Status::kOverlap);
    c.args.y.strides = nullptr;
    c.args.x.strides = strides;  // an input may
    EXPECT_EQ(c.run(), Status::kOk);
  }
}

TEST(BadInput, TooManyAxes) {
  const int64_t size[] = {2, 2, 2, 2, 2, 2, 2};
  std::vector<float> x(16384, 1.0f), y(128, 7.0f);
  LayerNormArgs args;
  const int64_t scattered[] = {8192, 2048, 512, 128, 32, 8, 2};
  args.x = ConstView(x.data(), scattered);
  args.y = y.data();
  const RowsShape shape{7, 0, size};
  EXPECT_EQ(layer_norm(shape, args), Status::kTooManyAxes);
  EXPECT_EQ(y[0], 7.0f);
  std::vector<unsigned char> scratch(layer_norm_workspace_bytes(shape, args));
  EXPECT_EQ(layer_norm(shape, args, {scratch.data(), 8}), Status::kWorkspaceTooSmall);
  EXPECT_EQ(y[0], 7.0f);
  EXPECT_EQ(layer_norm(shape, args, {scratch.data(), scratch.size()}), Status::kOk);
  EXPECT_EQ(y[0], 0.0f);
  const int64_t merging[] = {8192, 2048, 512, 128, 32, 16, 8};
  args.x = ConstView(x.data(), merging);
  EXPECT_EQ(layer_norm({6, 1, size}, args), Status::kOk);
  // Ranks that are refused: the sizes are not read.
  EXPECT_EQ(layer_norm_workspace_bytes({1 << 20, 1, size}, args), 0u);
  EXPECT_EQ(layer_norm_workspace_bytes({1, -1, size}, args), 0u);
}

TEST(BadInput, Backward) {
  Problem p(operations()[0], {5, 1, 40}, DType::kF32);
  Arrays a = p.arrays();
  const size_t bytes = p.op.backward_bytes(p.d, a);
  std::vector<unsigned char> scratch(bytes);
  Plan plan;
  EXPECT_EQ(p.op.backward_plan(p.d, a, {scratch.data(), bytes}, &plan), Status::kOk);
  EXPECT_EQ(p.op.backward_plan(p.d, a, {scratch.data(), bytes - 1}, &plan), Status::kWorkspaceTooSmall);
  EXPECT_EQ(p.op.backward_plan(p.d, a, {nullptr, bytes}, &plan), Status::kWorkspaceTooSmall);
  a.saved = true;
  a.mean = nullptr;
  EXPECT_EQ(p.op.backward_plan(p.d, a, {scratch.data(), bytes}, &plan), Status::kMissingStatistics);
  a = p.arrays();
  a.dx = a.dweight;
  EXPECT_EQ(p.op.backward_plan(p.d, a, {scratch.data(), bytes}, &plan), Status::kOverlap);
}

TEST(BadInput, EmptyIsFine) {
  for (const Operation& op : operations()) {
    for (const Dims& d : {Dims{0, 2, 5}, Dims{3, 2, 0}, Dims{0, 2, 0}}) {
      Problem p(op, d, DType::kF32);
      EXPECT_EQ(p.run(), Status::kOk) << op.name;
      for (size_t i = 0; i < p.dweight.size(); ++i) {
        EXPECT_EQ(p.dweight[i], 0.0) << op.name;
        EXPECT_EQ(p.dbias[i], 0.0) << op.name;
      }
    }
  }
}

TEST(BadInput, InfiniteEps) {
  for (DType dtype : kDTypes) {
    Problem p(operations()[0], {2, 1, 9}, dtype);
    p.eps = HUGE_VAL;
    EXPECT_EQ(p.run(), Status::kOk);
  }
}

TEST(BadInput, GivenStatistics) {
  std::vector<float> x(24, 1e38f), dy(24, 1.0f), out(24), one(4, 1e5f), zero(4, 0.0f);
  const int64_t size[] = {2, 4, 3};
  BatchNormBackwardArgs b;
  b.x = x.data();
  b.dy = dy.data();
  b.dx = out.data();
  b.given_mean = zero.data();
  b.given_rstd = one.data();
  ASSERT_EQ(batch_norm_backward({3, size}, b), Status::kOk);
  for (float v : out) EXPECT_EQ(v, 1e5f);  // x plays no part
  b.given_var = one.data();
  EXPECT_EQ(batch_norm_backward({3, size}, b), Status::kMissingStatistics);
  GroupNormArgs g;
  g.x = x.data();
  g.y = out.data();
  g.groups = 2;
  g.running_mean = zero.data();
  EXPECT_EQ(group_norm({3, size}, g), Status::kMissingStatistics);
  g.running_mean = View();
  g.given_mean = zero.data();
  g.given_var = one.data();
  EXPECT_EQ(group_norm({3, size}, g), Status::kMissingStatistics);
}

TEST(BadInput, GroupsMustDivideChannels) {
  for (int64_t groups : {0, -1, 4, 7}) {
    Problem p(operations()[4], {2, 6, 5, 1}, DType::kF32);
    p.d.G = groups;
    EXPECT_EQ(forward(p.op, p.d, p.arrays()), Status::kInvalidShape);
  }
}

TEST(BadInput, NonFiniteStaysInItsRowAndIsCanonical) {
  for (double bad : {static_cast<double>(NAN), -static_cast<double>(NAN), HUGE_VAL, -HUGE_VAL}) {
    for (int64_t n : {1, 5, 40, 1030}) {
      Problem clean(operations()[0], {3, 1, n}, DType::kF32), p(clean);
      p.x.set(static_cast<size_t>(n + n / 2), bad);
      ASSERT_EQ(clean.run(), Status::kOk);
      ASSERT_EQ(p.run(), Status::kOk);
      for (size_t i = 0; i < p.y.size(); ++i) {
        uint32_t bits;
        std::memcpy(&bits, &p.y.bytes[4 * i], 4);
        if (static_cast<int64_t>(i) / n == 1) {
          ASSERT_EQ(bits, 0x7FC00000u) << n;
        } else {
          ASSERT_EQ(std::memcmp(&p.y.bytes[4 * i], &clean.y.bytes[4 * i], 4), 0);
        }
      }
    }
  }
}

#if defined(NORMKIT_COMPILED)
TEST(CInterface, ForwardAndBackward) {
  Problem p(operations()[0], {6, 1, 50}, DType::kF32);
  ASSERT_EQ(p.run(), Status::kOk);
  Problem q(operations()[0], {6, 1, 50}, DType::kF32);
  const int64_t size[] = {6, 50};
  const normkit_rows_shape shape = {1, 1, size};
  const auto view = [](Array& a) { return normkit_view{a.bytes.data(), NORMKIT_F32, nullptr}; };
  normkit_rows_forward f = {};
  f.x = view(q.x);
  f.y = view(q.y);
  f.weight = view(q.weight);
  f.bias = view(q.bias);
  f.mean = {q.mean.data(), NORMKIT_F64, nullptr};
  f.rstd = {q.rstd.data(), NORMKIT_F64, nullptr};
  f.eps = 1e-5;
  ASSERT_EQ(normkit_layer_norm(&shape, &f), 0);
  normkit_rows_backward b = {};
  b.dy = view(q.dy);
  b.x = f.x;
  b.weight = f.weight;
  b.mean = f.mean;
  b.rstd = f.rstd;
  b.dx = view(q.dx);
  b.dweight = view(q.dweight);
  b.dbias = view(q.dbias);
  b.eps = 1e-5;
  std::vector<unsigned char> scratch(normkit_layer_norm_backward_workspace_bytes(&shape, &b));
  ASSERT_EQ(normkit_layer_norm_backward(&shape, &b, scratch.data(), scratch.size()), 0);
  EXPECT_EQ(p.hash(), q.hash());
  f.eps = NAN;
  EXPECT_STREQ(normkit_status_message(normkit_layer_norm(&shape, &f)), status_message(Status::kInvalidEps));
}
#endif

}  // namespace
}  // namespace tests
