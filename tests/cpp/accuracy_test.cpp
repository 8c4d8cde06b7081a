// The normalized value within 5 ULP (1 ULP of float16, bfloat16) wherever it exceeds 0.1; gradients within 16
// units of their terms; statistics of data that are exact in any order: exactly.
#include <gtest/gtest.h>

#include "problem.hpp"

namespace tests {
namespace {

using reference::Wide;

struct Family {
  const char* name;
  double (*value)(Random&, int64_t i, int64_t n);
};

const Family kFamilies[] = {
    {"normal", [](Random& r, int64_t, int64_t) { return r.normal(); }},
    {"mean 1e3", [](Random& r, int64_t, int64_t) { return 1e3 + r.normal(); }},
    {"mean 1e4 std 0.01", [](Random& r, int64_t, int64_t) { return 1e4 + 0.01 * r.normal(); }},
    {"mean 1e6", [](Random& r, int64_t, int64_t) { return 1e6 + r.normal(); }},
    {"lognormal", [](Random& r, int64_t, int64_t) { return std::exp(3 * r.normal()); }},
    {"Cauchy", [](Random& r, int64_t, int64_t) { return std::tan(3.14159 * (r.uniform() - 0.5)); }},
    {"outlier 1e30", [](Random& r, int64_t i, int64_t n) { return i == n / 2 ? 1e30 : r.normal(); }},
    {"all equal", [](Random&, int64_t, int64_t) { return 1234.5678; }},
    {"alternating", [](Random&, int64_t i, int64_t) { return i % 2 ? 3.7 : -3.7; }},
    {"scale 1e-20", [](Random& r, int64_t, int64_t) { return 1e-20 * r.normal(); }},
    {"scale 1e18", [](Random& r, int64_t, int64_t) { return 1e18 * r.normal(); }},
    {"scale 1e30", [](Random& r, int64_t, int64_t) { return 1e30 * r.normal(); }},
    {"two of them overflow", [](Random& r, int64_t, int64_t) { return 1e38 * (2 + r.uniform()); }},
    {"subnormal", [](Random& r, int64_t, int64_t) { return 1e-41 * r.normal(); }},
};

class Accuracy : public testing::TestWithParam<size_t> {
 protected:
  const Operation& op() const { return operations()[GetParam()]; }
};

// A shape of the operation whose sets have n elements.
Dims dims_for(const Operation& op, int64_t n) {
  const std::string name = op.name;
  if (op.over_rows) return {3, 1, n};
  if (name == "batch_norm") return n % 3 == 0 ? Dims{3, 2, n / 3} : Dims{1, 2, n};
  if (name == "group_norm") return n % 2 == 0 ? Dims{2, 4, n / 2, 2} : Dims{2, 2, n, 2};
  return {2, 2, n};
}

void check_normalized(Problem& p, const char* family) {
  p.parameters = false;
  ASSERT_EQ(forward(p.op, p.d, p.arrays()), Status::kOk);
  const reference::Result expected = p.expected();
  const Wide allowed = p.x.dtype == DType::kF32 || p.x.dtype == DType::kF64 ? 5 : 1;
  for (size_t i = 0; i < p.y.size(); ++i) {
    const Wide exact = expected.y[i];
    if (exact != exact) {
      ASSERT_TRUE(std::isnan(p.y[i])) << p.op.name << " " << family << " element " << i;
    } else if (reference::wide_abs(exact) > Wide(0.1)) {
      const double error = static_cast<double>(reference::wide_abs(p.y[i] - exact) / ulp(exact, p.x.dtype));
      ASSERT_LE(error, static_cast<double>(allowed))
          << p.op.name << " " << dtype_name(p.x.dtype) << " " << family << " set size "
          << p.d.elements() / p.op.sets(p.d) << " eps " << p.eps << " element " << i;
    }
  }
}

TEST_P(Accuracy, EveryFamily) {
  std::vector<int64_t> sizes;
  for (int64_t n = 1; n <= 70; ++n) sizes.push_back(n);
  for (int64_t n : {255, 256, 257, 768, 1000, 1024, 1025, 4097}) sizes.push_back(n);
  for (DType dtype : kDTypes) {
    for (const Family& family : kFamilies) {
      for (int64_t n : sizes) {
        for (double eps : {1e-5, 0.0}) {
          Problem p(op(), dims_for(op(), n), dtype);
          p.eps = eps;
          Random random(static_cast<uint64_t>(n));
          for (size_t i = 0; i < p.x.size(); ++i)
            p.x.set(i, family.value(random, static_cast<int64_t>(i) % n, n));
          check_normalized(p, family.name);
          if (HasFatalFailure()) return;
        }
      }
    }
  }
}

// 16: g and its product are rounded (3), the row's 32 lanes take at most 32 additions and the fold 5, of
// which the largest terms see few; a and b are rounded once more. Sums inside a and b count as terms. 2^-53
// for double.
TEST_P(Accuracy, Gradients) {
  for (DType dtype : kDTypes) {
    for (int64_t n : {1, 2, 7, 31, 33, 64, 257, 1000, 1025, 3000}) {
      for (bool parameters : {true, false}) {
        Dims d = dims_for(op(), n);
        if (op().over_rows) d.N = 75;
        Problem p(op(), d, dtype, 9);
        p.parameters = parameters;
        ASSERT_EQ(p.run(), Status::kOk);
        const reference::Result expected = p.expected();
        const Wide unit = Wide(16) * Wide(std::ldexp(1.0, dtype == DType::kF64 ? -53 : -24));
        const auto check = [&](const Array& got, const std::vector<Wide>& exact,
                               const std::vector<Wide>& terms, const char* what) {
          for (size_t i = 0; i < got.size(); ++i) {
            const Wide bound = unit * terms[i] + ulp(exact[i], dtype) / 2;
            ASSERT_LE(static_cast<double>(reference::wide_abs(got[i] - exact[i])),
                      static_cast<double>(bound) * (1 + 1e-9))
                << op().name << " " << dtype_name(dtype) << " " << what << " n " << n << " element " << i;
          }
        };
        check(p.dx, expected.dx, expected.dx_terms, "dx");
        check(p.dweight, expected.dweight, expected.dweight_terms, "dweight");
        check(p.dbias, expected.dbias, expected.dbias_terms, "dbias");
        if (HasFatalFailure()) return;
      }
    }
  }
}

// Neighbours add up to twice the mean, and all values have few bits: sums are exact in any order.
TEST_P(Accuracy, ExactData) {
  for (DType dtype : kDTypes) {
    for (int64_t n : {2, 6, 32, 34, 66, 768, 1026, 4098}) {
      Problem p(op(), dims_for(op(), n), dtype);
      Random random(5);
      for (size_t i = 0; i + 1 < p.x.size(); i += 2) {
        const double away = static_cast<double>(random.next() % 8);
        p.x.set(i, 4.0 + away);
        p.x.set(i + 1, 4.0 - away);
      }
      ASSERT_EQ(forward(p.op, p.d, p.arrays()), Status::kOk);
      std::vector<double> squares(p.mean.size(), 0.0);
      for (size_t i = 0; i < p.x.size(); ++i) {
        const double v = p.x[i] - (op().centred ? 4.0 : 0.0);
        squares[static_cast<size_t>(op().set_of(p.d, static_cast<int64_t>(i)))] += v * v;
      }
      for (size_t s = 0; s < squares.size(); ++s) {
        const double count = static_cast<double>(p.d.elements()) / static_cast<double>(op().sets(p.d));
        if (op().centred) {
          ASSERT_EQ(p.mean[s], 4.0) << op().name << " n " << n;
        }
        ASSERT_EQ(p.rstd[s], 1.0 / std::sqrt(squares[s] / count + p.eps)) << op().name << " n " << n;
      }
    }
  }
}

// Groups of more than a block, whose weight and bias are read block by block.
TEST(Forward, ManyChannelsPerGroup) {
  for (const Dims& d : {Dims{1, 2048, 2, 2}, Dims{1, 1280, 8, 5}, Dims{2, 1536, 9, 6}, Dims{3, 2048, 1, 1}}) {
    for (DType dtype : {DType::kF32, DType::kBF16}) {
      Problem p(operations()[4], d, dtype);
      for (size_t i = 0; i < p.weight.size(); ++i) p.weight.set(i, 1.0 + static_cast<double>(i % 100));
      ASSERT_EQ(p.run(), Status::kOk);
      const reference::Result expected = p.expected();
      for (size_t i = 0; i < p.y.size(); ++i) {
        const Wide scale = reference::wide_abs(expected.xhat[i]) + 1;
        ASSERT_LE(static_cast<double>(reference::wide_abs(p.y[i] - expected.y[i]) / scale),
                  dtype == DType::kF32 ? 1e-4 : 1.0)
            << d.C << " channels, element " << i;
      }
    }
  }
}

TEST(Gradient, EightThousandOnesInBfloat16) {
  Problem p(operations()[0], {8192, 1, 4}, DType::kBF16);
  for (size_t i = 0; i < p.dy.size(); ++i) p.dy.set(i, 1.0);
  ASSERT_EQ(p.run(), Status::kOk);
  for (size_t i = 0; i < p.dbias.size(); ++i) EXPECT_EQ(p.dbias[i], 8192.0);
}

INSTANTIATE_TEST_SUITE_P(Operations, Accuracy, testing::Range<size_t>(0, operations().size()),
                         [](const auto& i) { return std::string(operations()[i.param].name); });

}  // namespace
}  // namespace tests
