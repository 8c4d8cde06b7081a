// dynamic_tanh: against long double, buffers of exactly the right size, any order of tasks, arguments
// refused.
#include <gtest/gtest.h>

#include <algorithm>
#include <limits>

#include "data.hpp"
#include "normkit/normkit.hpp"

namespace tests {
namespace {

using namespace normkit;

// [A, C, B]: channels in the middle; contiguous.
struct MapProblem {
  int64_t size[3];
  bool alpha_per_channel;
  Array x, dy, alpha, weight, bias, y, dx, dalpha, dweight, dbias;

  MapProblem(DType dtype, int64_t a, int64_t c, int64_t b, bool per_channel)
      : size{a, c, b},
        alpha_per_channel(per_channel),
        x(dtype, a * c * b),
        dy(x),
        alpha(dtype, per_channel ? c : 1),
        weight(dtype, c),
        bias(weight),
        y(x),
        dx(x),
        dalpha(DType::kF64, per_channel ? c : 1),
        dweight(DType::kF64, c),
        dbias(dweight) {
    Random random(1);
    for (Array* array : {&x, &dy, &alpha, &weight, &bias})
      for (size_t i = 0; i < array->size(); ++i) array->set(i, random.normal() * 2);
  }

  MapShape shape() const { return {3, size, 1}; }
  DynamicTanhArgs forward() {
    DynamicTanhArgs args;
    args.x = {x.bytes.data(), x.dtype};
    args.y = {y.bytes.data(), y.dtype};
    args.alpha = {alpha.bytes.data(), alpha.dtype};
    args.alpha_per_channel = alpha_per_channel;
    args.weight = {weight.bytes.data(), weight.dtype};
    args.bias = {bias.bytes.data(), bias.dtype};
    return args;
  }
  DynamicTanhBackwardArgs backward() {
    DynamicTanhBackwardArgs args;
    args.dy = {dy.bytes.data(), dy.dtype};
    args.x = {x.bytes.data(), x.dtype};
    args.alpha = {alpha.bytes.data(), alpha.dtype};
    args.alpha_per_channel = alpha_per_channel;
    args.weight = {weight.bytes.data(), weight.dtype};
    args.dx = {dx.bytes.data(), dx.dtype};
    args.dalpha = {dalpha.bytes.data(), dalpha.dtype};
    args.dweight = {dweight.bytes.data(), dweight.dtype};
    args.dbias = {dbias.bytes.data(), dbias.dtype};
    return args;
  }
  uint64_t hash() const {
    uint64_t h = 14695981039346656037u;
    for (const Array* array : {&y, &dx, &dalpha, &dweight, &dbias})
      h = fnv(h, array->bytes.data(), array->bytes.size());
    return h;
  }
  void run(const Executor* executor) {
    std::vector<unsigned char> scratch(dynamic_tanh_backward_workspace_bytes(shape(), backward()), 0x7F);
    ASSERT_EQ(dynamic_tanh(shape(), forward(), {}, executor), Status::kOk);
    ASSERT_EQ(dynamic_tanh_backward(shape(), backward(), {scratch.data(), scratch.size()}, executor),
              Status::kOk);
  }
};

// Every kernel: columns (B = 1), runs (B large), few elements of a channel, strips and groups cut.
const int64_t kSizes[][3] = {{1, 1, 1},   {70, 33, 1}, {300, 520, 1}, {2, 3, 1100},
                             {5, 17, 40}, {3, 600, 4}, {1, 1000, 1},  {2000, 2, 1}};

void expect_near(double got, long double exact, long double terms, DType dtype, const char* what) {
  const Format f = format_of(dtype);
  int exponent;
  (void)std::frexp(exact, &exponent);
  const long double ulp = std::ldexp(1.0L, std::max(exponent - 1, f.minimum_exponent) - f.mantissa_bits);
  // Two roundings of the type in y, and what the arithmetic of float or double does to the terms.
  const long double unit = dtype == DType::kF64 ? 0x1p-46L : dtype == DType::kF32 ? 0x1p-22L : 0x1p-21L;
  EXPECT_LE(std::fabs(static_cast<long double>(got) - exact), ulp + unit * terms) << what;
}

TEST(Map, AgainstLongDouble) {
  for (DType dtype : kDTypes) {
    for (const auto& s : kSizes) {
      for (bool per_channel : {true, false}) {
        SCOPED_TRACE(std::string(dtype_name(dtype)) + " " + std::to_string(s[0]) + "x" +
                     std::to_string(s[1]) + "x" + std::to_string(s[2]));
        MapProblem p(dtype, s[0], s[1], s[2], per_channel);
        p.run(default_executor());
        std::vector<long double> sums[3], terms[3];
        for (int k = 0; k < 3; ++k) {
          sums[k].assign(static_cast<size_t>(s[1]), 0);
          terms[k] = sums[k];
        }
        for (size_t i = 0; i < p.x.size(); ++i) {
          const auto c = i / static_cast<size_t>(s[2]) % static_cast<size_t>(s[1]);
          const size_t at = per_channel ? c : 0;
          const long double x = p.x[i], dy = p.dy[i], alpha = p.alpha[at], w = p.weight[c], b = p.bias[c];
          const long double t = std::tanh(alpha * x), cosh = std::cosh(alpha * x), slope = 1 / (cosh * cosh);
          expect_near(p.y[i], w * t + b, std::fabs(w * t) + std::fabs(b), dtype, "y");
          expect_near(p.dx[i], dy * w * slope * alpha, std::fabs(dy * w * slope * alpha), dtype, "dx");
          const long double parts[3] = {dy * w * slope * x, dy * t, dy};
          for (int k = 0; k < 3; ++k) {
            const size_t to = k == 0 ? at : c;
            sums[k][to] += parts[k];
            terms[k][to] += std::fabs(parts[k]);
          }
        }
        const Array* outputs[3] = {&p.dalpha, &p.dweight, &p.dbias};
        const char* names[3] = {"dalpha", "dweight", "dbias"};
        for (int k = 0; k < 3; ++k)
          for (size_t i = 0; i < outputs[k]->size(); ++i)
            expect_near((*outputs[k])[i], sums[k][i], terms[k][i], dtype, names[k]);
        if (testing::Test::HasFailure()) return;
      }
    }
  }
}

// An executor that hands out single tasks, the last first.
void backwards(void*, int64_t tasks, TaskFunction task, void* argument) {
  for (int64_t i = tasks; i-- > 0;) task(argument, i, i + 1);
}

TEST(Map, AnyOrderOfTasks) {
  Executor reversed;
  reversed.parallel_for = &backwards;
  for (DType dtype : kDTypes) {
    for (const auto& s : kSizes) {
      MapProblem a(dtype, s[0], s[1], s[2], false), b(a), c(a);
      a.run(nullptr);
      b.run(&reversed);
      c.run(default_executor());
      EXPECT_EQ(a.hash(), b.hash());
      EXPECT_EQ(a.hash(), c.hash());
    }
  }
}

// The same with every compiler and instruction set, header-only and compiled.
TEST(Map, Bits) {
  uint64_t hash = 14695981039346656037u;
  for (DType dtype : kDTypes) {
    for (const auto& s : kSizes) {
      for (bool per_channel : {true, false}) {
        MapProblem p(dtype, s[0], s[1], s[2], per_channel);
        p.run(nullptr);
        const uint64_t one = p.hash();
        hash = fnv(hash, &one, sizeof(one));
      }
    }
  }
  EXPECT_EQ(hash, 0xe52a7d4d6d87643du) << std::hex << hash;
}

TEST(Map, WorkspaceOneByteShort) {
  for (const auto& s : kSizes) {
    MapProblem p(DType::kF32, s[0], s[1], s[2], true);
    const uint64_t before = p.hash();
    std::vector<unsigned char> scratch(dynamic_tanh_backward_workspace_bytes(p.shape(), p.backward()) - 1);
    EXPECT_EQ(dynamic_tanh_backward(p.shape(), p.backward(), {scratch.data(), scratch.size()}),
              Status::kWorkspaceTooSmall);
    EXPECT_EQ(p.hash(), before);
    auto only_dx = p.backward();
    only_dx.dalpha = only_dx.dweight = only_dx.dbias = View();
    EXPECT_EQ(dynamic_tanh_backward_workspace_bytes(p.shape(), only_dx), 0u);
    EXPECT_EQ(dynamic_tanh_backward(p.shape(), only_dx), Status::kOk);
  }
}

TEST(Map, Refused) {
  MapProblem p(DType::kF32, 4, 5, 6, true);
  const uint64_t before = p.hash();
  std::vector<unsigned char> memory(1 << 20);
  const Workspace scratch{memory.data(), memory.size()};
  const auto forward = [&](Status expected, auto change) {
    auto args = p.forward();
    MapShape shape = p.shape();
    change(args, shape);
    EXPECT_EQ(dynamic_tanh(shape, args), expected);
    EXPECT_EQ(p.hash(), before);
  };
  const auto backward = [&](Status expected, auto change) {
    auto args = p.backward();
    MapShape shape = p.shape();
    change(args, shape);
    EXPECT_EQ(dynamic_tanh_backward(shape, args, scratch), expected);
    EXPECT_EQ(p.hash(), before);
  };
  const auto both = [&](Status expected, auto change) {
    forward(expected, change);
    backward(expected, change);
  };
  const int64_t negative[] = {4, -5, 6}, huge[] = {int64_t(1) << 40, 5, int64_t(1) << 40};
  both(Status::kInvalidShape, [](auto&, MapShape& s) { s.rank = 0; });
  both(Status::kInvalidShape, [](auto&, MapShape& s) { s.rank = -1; });
  both(Status::kInvalidShape, [](auto&, MapShape& s) { s.rank = 1000; });
  both(Status::kInvalidShape, [](auto&, MapShape& s) { s.size = nullptr; });
  both(Status::kInvalidShape, [](auto&, MapShape& s) { s.axis = 3; });
  both(Status::kInvalidShape, [](auto&, MapShape& s) { s.axis = -1; });
  both(Status::kInvalidShape, [&](auto&, MapShape& s) { s.size = negative; });
  both(Status::kInvalidShape, [&](auto&, MapShape& s) { s.size = huge; });
  both(Status::kNullPointer, [](auto& a, MapShape&) { a.x.data = nullptr; });
  both(Status::kNullPointer, [](auto& a, MapShape&) { a.alpha.data = nullptr; });
  both(Status::kInvalidDType, [](auto& a, MapShape&) { a.x.dtype = static_cast<DType>(7); });
  both(Status::kInvalidDType, [](auto& a, MapShape&) { a.alpha.dtype = DType::kF16; });
  both(Status::kInvalidDType, [](auto& a, MapShape&) { a.weight.dtype = DType::kF64; });
  both(Status::kMisaligned, [](auto& a, MapShape&) { a.x.data = static_cast<const char*>(a.x.data) + 1; });
  forward(Status::kNullPointer, [](auto& a, MapShape&) { a.y.data = nullptr; });
  forward(Status::kInvalidDType, [](auto& a, MapShape&) { a.y.dtype = DType::kF16; });
  forward(Status::kOverlap, [&](auto& a, MapShape&) { a.y.data = p.weight.bytes.data(); });
  forward(Status::kOverlap, [&](auto& a, MapShape&) { a.y.data = p.x.bytes.data() + 4; });
  backward(Status::kNullPointer, [](auto& a, MapShape&) { a.dy.data = nullptr; });
  backward(Status::kInvalidDType, [](auto& a, MapShape&) { a.dx.dtype = DType::kF64; });
  backward(Status::kInvalidDType, [](auto& a, MapShape&) { a.dbias.dtype = DType::kF16; });
  backward(Status::kOverlap, [](auto& a, MapShape&) { a.dbias.data = a.dweight.data; });
  backward(Status::kOverlap, [](auto& a, MapShape&) { a.dalpha.data = a.dx.data; });
}

}  // namespace
}  // namespace tests
