// LocalResponseNorm: accuracy against wide arithmetic, the same bits in every layout, in place, on any thread
// and instruction set; nothing outside the arrays is touched; bad input.
#include <gtest/gtest.h>

#include <climits>
#include <cstdio>
#include <memory>
#include <string>

#include "../reference/reference.hpp"
#include "problem.hpp"

#if defined(NORMKIT_COMPILED)
#  include "../../cpp/src/table.hpp"
#endif

namespace tests {
namespace {

using reference::Wide;

constexpr double kBetas[] = {0.25, 0.5, 0.75, 1.0};

struct Parameters {
  int64_t size = 5;
  double alpha = 1e-4, beta = 0.75, k = 1.0;
};

// Strides on [N, C, S] and the elements that the array spans; the first one written lies at `origin`.
struct Layout {
  const char* name;
  int64_t strides[3];
  int64_t origin, span;
};

std::vector<Layout> layouts(const Dims& d) {
  const int64_t N = d.N, C = d.C, S = d.S, all = N * C * S;
  return {{"NCS", {C * S, S, 1}, 0, all},
          {"NSC", {S * C, 1, C}, 0, all},
          {"CSN", {1, S * N, N}, 0, all},
          {"every third", {3 * C * S, 3 * S, 3}, 0, 3 * all - 2},
          {"channels last, every second", {2 * S * C, 2, 2 * C}, 1, 2 * all},
          {"channels last, padded", {S * (C + 3), 1, C + 3}, 0, N * S * (C + 3) - 3},
          {"all backwards", {-C * S, -S, -1}, all - 1, all},
          {"channels backwards", {S * C, -1, C}, C - 1, all}};
}

// One array on the heap, of exactly its span, so that a sanitizer sees what goes beyond it.
struct Placed {
  Layout layout;
  Dims d;
  int64_t element;
  std::unique_ptr<unsigned char[]> bytes;

  Placed(const Dims& d_, const Layout& layout_, const Array& contiguous)
      : layout(layout_), d(d_), element(size_of(contiguous.dtype)), bytes(new unsigned char[total()]) {
    std::memset(bytes.get(), 0x5A, total());
    each([&](size_t from, size_t to) {
      std::memcpy(&bytes[to], &contiguous.bytes[from], static_cast<size_t>(element));
    });
  }
  size_t total() const { return static_cast<size_t>(layout.span * element); }
  void* data() const { return bytes.get() + layout.origin * element; }

  // The elements in C order; `gaps_kept`: nothing but elements was written.
  Array elements(DType dtype, bool* gaps_kept) const {
    Array contiguous(dtype, d.elements());
    std::vector<unsigned char> others(bytes.get(), bytes.get() + total());
    each([&](size_t to, size_t from) {
      std::memcpy(&contiguous.bytes[to], &bytes[from], static_cast<size_t>(element));
      std::memset(&others[from], 0x5A, static_cast<size_t>(element));
    });
    *gaps_kept = true;
    for (unsigned char byte : others) *gaps_kept = *gaps_kept && byte == 0x5A;
    return contiguous;
  }

 private:
  template <typename Visit>
  void each(Visit visit) const {
    int64_t index = 0;
    for (int64_t n = 0; n < d.N; ++n)
      for (int64_t c = 0; c < d.C; ++c)
        for (int64_t s = 0; s < d.S; ++s, ++index) {
          const int64_t at =
              layout.origin + n * layout.strides[0] + c * layout.strides[1] + s * layout.strides[2];
          visit(static_cast<size_t>(index * element), static_cast<size_t>(at * element));
        }
  }
};

struct Data {
  Dims d;
  DType dtype;
  Array x, dy;

  Data(const Dims& d_, DType dtype_, double scale = 1.0, uint64_t seed = 1)
      : d(d_), dtype(dtype_), x(dtype_, d_.elements()), dy(x) {
    Random random(seed);
    for (size_t i = 0; i < x.size(); ++i) {
      x.set(i, random.normal() * scale);
      dy.set(i, random.normal());
    }
  }
};

template <typename Args>
Args arguments(const Parameters& q) {
  Args args;
  args.size = q.size;
  args.alpha = q.alpha;
  args.beta = q.beta;
  args.k = q.k;
  return args;
}

Status forward(const Dims& d, const Parameters& q, ConstView x, View y, const Executor* executor = nullptr) {
  auto args = arguments<LocalResponseNormArgs>(q);
  args.x = x;
  args.y = y;
  const int64_t size[] = {d.N, d.C, d.S};
  std::vector<unsigned char> scratch(local_response_norm_workspace_bytes({3, size}, args));
  return local_response_norm({3, size}, args, {scratch.data(), scratch.size()}, executor);
}

Status backward(const Dims& d, const Parameters& q, ConstView dy, ConstView x, View dx,
                const Executor* executor = nullptr) {
  auto args = arguments<LocalResponseNormBackwardArgs>(q);
  args.dy = dy;
  args.x = x;
  args.dx = dx;
  const int64_t size[] = {d.N, d.C, d.S};
  std::vector<unsigned char> scratch(local_response_norm_backward_workspace_bytes({3, size}, args));
  return local_response_norm_backward({3, size}, args, {scratch.data(), scratch.size()}, executor);
}

// y, then dx, of contiguous arrays.
std::pair<Array, Array> run(const Data& data, const Parameters& q, const Executor* executor = nullptr) {
  Array y(data.dtype, data.d.elements()), dx(y);
  const ConstView x(data.x.bytes.data(), data.dtype), dy(data.dy.bytes.data(), data.dtype);
  EXPECT_EQ(forward(data.d, q, x, {y.bytes.data(), data.dtype}, executor), Status::kOk);
  EXPECT_EQ(backward(data.d, q, dy, x, {dx.bytes.data(), data.dtype}, executor), Status::kOk);
  return {y, dx};
}

Wide power(Wide base, double beta) {
  const Wide root = reference::wide_sqrt(base);
  return beta == 1.0    ? base
         : beta == 0.5  ? root
         : beta == 0.25 ? reference::wide_sqrt(root)
                        : root * reference::wide_sqrt(root);
}

struct Exact {
  std::vector<Wide> y, dx, dx_terms;
};

Exact exact(const Data& data, const Parameters& q) {
  const int64_t N = data.d.N, C = data.d.C, S = data.d.S;
  const auto x = data.x.wide<Wide>(), dy = data.dy.wide<Wide>();
  Exact r{x, x, x};
  std::vector<Wide> d(x), p(x);
  const auto at = [&](int64_t n, int64_t c, int64_t s) { return static_cast<size_t>((n * C + c) * S + s); };
  const auto window = [&](int64_t c, auto visit) {
    const int64_t first = c - q.size / 2, last = c + (q.size - 1) / 2;
    for (int64_t j = first < 0 ? 0 : first; j <= last && j < C; ++j) visit(j);
  };
  for (int64_t n = 0; n < N; ++n)
    for (int64_t s = 0; s < S; ++s) {
      for (int64_t c = 0; c < C; ++c) {
        Wide sum = 0;
        window(c, [&](int64_t j) { sum += x[at(n, j, s)] * x[at(n, j, s)]; });
        d[at(n, c, s)] = Wide(q.k) + Wide(q.alpha) / Wide(q.size) * sum;
        p[at(n, c, s)] = power(d[at(n, c, s)], q.beta);
        r.y[at(n, c, s)] = x[at(n, c, s)] / p[at(n, c, s)];
      }
      std::vector<Wide> sum(static_cast<size_t>(C), 0), terms(sum);
      for (int64_t j = 0; j < C; ++j)
        window(j, [&](int64_t i) {
          const size_t from = at(n, j, s);
          const Wide term = dy[from] * x[from] / (p[from] * d[from]);
          sum[static_cast<size_t>(i)] += term;
          terms[static_cast<size_t>(i)] += reference::wide_abs(term);
        });
      for (int64_t i = 0; i < C; ++i) {
        const size_t to = at(n, i, s);
        const Wide factor = 2 * Wide(q.alpha) * Wide(q.beta) / Wide(q.size) * x[to], own = dy[to] / p[to];
        r.dx[to] = own - factor * sum[static_cast<size_t>(i)];
        r.dx_terms[to] =
            reference::wide_abs(own) + reference::wide_abs(factor) * terms[static_cast<size_t>(i)];
      }
    }
  return r;
}

const Dims kDims[] = {{1, 1, 1},  {2, 1, 37},  {2, 3, 5},  {5, 2, 16},  {3, 16, 1},
                      {2, 17, 7}, {1, 33, 20}, {2, 96, 9}, {1, 600, 3}, {1, 20, 33}};

std::vector<int64_t> sizes(int64_t C) {
  return {1, 2, 3, 5, 6, 33, 34, C, 2 * C, 2 * C + 3};
}

// Half an ULP of the output for its rounding (16-bit types: by way of float); the rest for double arithmetic,
// which is the whole for double: its windows add up one rounding for each channel.
TEST(LocalResponseNorm, IsExactUpToItsRounding) {
  double worst[4] = {}, worst_share[4] = {};
  for (const Dims& d : kDims) {
    for (int64_t size : sizes(d.C)) {
      for (double beta : kBetas) {
        for (DType dtype : kDTypes) {
          const double scale = dtype == DType::kF16 ? 4.0 : beta == 0.5 ? 1e3 : 1.0;
          const Data data(d, dtype, scale, static_cast<uint64_t>(size));
          const Parameters q{size, beta == 1.0 ? 1e-4 : 0.4, beta, beta == 0.25 ? 2.0 : 1.0};
          const auto [y, dx] = run(data, q);
          const Exact e = exact(data, q);
          const auto window = static_cast<double>(size < 2 * d.C ? size : 2 * d.C);
          const double limit = dtype == DType::kF64 ? 4.0 + window / 16 : 0.502;
          for (size_t i = 0; i < y.size(); ++i) {
            const Wide error = reference::wide_abs(Wide(y[i]) - e.y[i]) / ulp(e.y[i], dtype);
            const auto in_ulp = static_cast<double>(error);
            worst[static_cast<int>(dtype)] = std::fmax(worst[static_cast<int>(dtype)], in_ulp);
            ASSERT_LE(in_ulp, limit) << dtype_name(dtype) << " size " << size << " beta " << beta << " C "
                                     << d.C << " at " << i << ": " << y[i];
            const Wide bound = ulp(e.dx[i] * Wide(1.001), dtype) * Wide(0.502) +
                               e.dx_terms[i] * Wide(16 + window) * Wide(0x1p-53);
            const auto share = static_cast<double>(reference::wide_abs(Wide(dx[i]) - e.dx[i]) / bound);
            worst_share[static_cast<int>(dtype)] = std::fmax(worst_share[static_cast<int>(dtype)], share);
            ASSERT_LE(share, 1.0) << dtype_name(dtype) << " dx, size " << size << " beta " << beta << " C "
                                  << d.C << " at " << i << ": " << dx[i];
          }
        }
      }
    }
  }
  for (DType dtype : kDTypes)
    std::printf("%s: y %.3f ULP, dx %.3f of its bound\n", dtype_name(dtype), worst[static_cast<int>(dtype)],
                worst_share[static_cast<int>(dtype)]);
}

// Every pair of layouts of x and y, the inputs at the very ends of their allocations.
TEST(LocalResponseNorm, TheSameBitsInEveryLayout) {
  for (const Dims& d : {Dims{2, 5, 37}, Dims{3, 40, 9}, Dims{2, 19, 1}, Dims{1, 600, 2}, Dims{1, 1, 20}}) {
    for (const Parameters& q : {Parameters{5, 0.5}, Parameters{4, 2.0, 0.5}, Parameters{1300, 0.1, 0.75}}) {
      for (DType dtype : kDTypes) {
        const Data data(d, dtype);
        const auto [y, dx] = run(data, q);
        for (const Layout& from : layouts(d)) {
          for (const Layout& to : layouts(d)) {
            const Placed x(d, from, data.x), dy(d, to, data.dy);
            const Placed out(d, to, data.x), grad(d, from, data.x);
            ASSERT_EQ(forward(d, q, {x.data(), dtype, from.strides}, {out.data(), dtype, to.strides}),
                      Status::kOk);
            ASSERT_EQ(backward(d, q, {dy.data(), dtype, to.strides}, {x.data(), dtype, from.strides},
                               {grad.data(), dtype, from.strides}),
                      Status::kOk);
            bool kept = false;
            EXPECT_EQ(out.elements(dtype, &kept).bytes, y.bytes)
                << "y: " << from.name << " to " << to.name << " " << dtype_name(dtype) << " C " << d.C
                << " size " << q.size;
            EXPECT_TRUE(kept) << "y: " << to.name;
            EXPECT_EQ(grad.elements(dtype, &kept).bytes, dx.bytes)
                << "dx: " << from.name << " with " << to.name << " " << dtype_name(dtype) << " C " << d.C
                << " size " << q.size;
            EXPECT_TRUE(kept) << "dx: " << from.name;
          }
        }
      }
    }
  }
}

TEST(LocalResponseNorm, InPlace) {
  for (const Dims& d : {Dims{2, 5, 37}, Dims{2, 96, 9}, Dims{1, 700, 3}, Dims{1, 1100, 17}}) {
    for (int64_t size : {1, 2, 5, 32, 33, 400, 1500}) {
      for (DType dtype : {DType::kF32, DType::kBF16}) {
        const Parameters q{size, 0.5};
        const Data data(d, dtype);
        const auto [y, dx] = run(data, q);
        for (const Layout& l : layouts(d)) {
          bool kept;
          const Placed out(d, l, data.x), x(d, l, data.x), dy(d, l, data.dy);
          const View y_view(out.data(), dtype, l.strides), x_view(x.data(), dtype, l.strides),
              dy_view(dy.data(), dtype, l.strides);
          const ConstView y_in(out.data(), dtype, l.strides), x_in(x.data(), dtype, l.strides),
              dy_in(dy.data(), dtype, l.strides);
          ASSERT_EQ(forward(d, q, y_in, y_view), Status::kOk);
          EXPECT_EQ(out.elements(dtype, &kept).bytes, y.bytes) << "y is x, " << l.name << " size " << size;
          ASSERT_EQ(backward(d, q, dy_in, x_in, dy_view), Status::kOk);
          EXPECT_EQ(dy.elements(dtype, &kept).bytes, dx.bytes) << "dx is dy, " << l.name << " size " << size;
          const Placed fresh(d, l, data.dy);
          ASSERT_EQ(backward(d, q, {fresh.data(), dtype, l.strides}, x_in, x_view), Status::kOk);
          EXPECT_EQ(x.elements(dtype, &kept).bytes, dx.bytes) << "dx is x, " << l.name << " size " << size;
        }
      }
    }
  }
}

// Tasks one by one, the last first: what a thread pool may do.
TEST(LocalResponseNorm, TheSameBitsInAnyOrderOfTasks) {
  Executor backwards;
  backwards.concurrency = [](void*) { return 3; };
  backwards.parallel_for = [](void*, int64_t tasks, TaskFunction task, void* argument) {
    for (int64_t t = tasks - 1; t >= 0; --t) task(argument, t, t + 1);
  };
  for (int64_t size : {5, 1500}) {
    const Data data({4, 1000, 37}, DType::kF32);
    const Parameters q{size, 0.5};
    const auto serial = run(data, q), parallel = run(data, q, &backwards);
    EXPECT_EQ(serial.first.bytes, parallel.first.bytes);
    EXPECT_EQ(serial.second.bytes, parallel.second.bytes);
    Data last({1, 1000, 37}, DType::kF32);  // the last sample alone
    const size_t bytes = last.x.bytes.size();
    std::memcpy(last.x.bytes.data(), &data.x.bytes[3 * bytes], bytes);
    std::memcpy(last.dy.bytes.data(), &data.dy.bytes[3 * bytes], bytes);
    const auto alone = run(last, q);
    EXPECT_EQ(std::memcmp(alone.first.bytes.data(), &serial.first.bytes[3 * bytes], bytes), 0);
    EXPECT_EQ(std::memcmp(alone.second.bytes.data(), &serial.second.bytes[3 * bytes], bytes), 0);
  }
}

TEST(LocalResponseNorm, BatchesAndNaNStayApart) {
  const Dims d{2, 40, 20};
  const Parameters q{6, 0.5};  // channels c - 3 .. c + 2
  Data data(d, DType::kF32);
  const Array clean = run(data, q).first;
  const size_t channel = 20, position = 5;
  data.x.set(channel * 20 + position, NAN);
  const auto [y, dx] = run(data, q);
  for (size_t i = 0; i < y.size(); ++i) {
    const size_t n = i / 800, c = i / 20 % 40, s = i % 20;
    const bool same_position = n == 0 && s == position;
    EXPECT_EQ(std::isnan(y[i]), same_position && c >= channel - 2 && c <= channel + 3) << i;
    EXPECT_TRUE(std::isnan(y[i]) || y[i] == clean[i]) << i;
    EXPECT_EQ(std::isnan(dx[i]), same_position && c >= channel - 5 && c <= channel + 5) << i;
  }
}

TEST(LocalResponseNorm, NaNIsStoredAsTheCanonicalOne) {
  for (const Dims& d : {Dims{1, 40, 20}, Dims{3, 40, 1}}) {
    Data data(d, DType::kF32);
    const uint32_t odd = 0xFFC12345u, canonical = 0x7FC00000u;
    for (size_t i = 3; i < data.x.size(); i += 8) std::memcpy(&data.x.bytes[4 * i], &odd, 4);
    const auto [y, dx] = run(data, {});
    for (const Array* out : {&y, &dx}) {
      EXPECT_TRUE(std::isnan((*out)[3]));
      for (size_t i = 0; i < out->size(); ++i)
        EXPECT_TRUE(!std::isnan((*out)[i]) || std::memcmp(&out->bytes[4 * i], &canonical, 4) == 0) << i;
    }
  }
}

// Without k, a window of zeros has d = 0. Those beyond the last channel do not exist and must not count.
TEST(LocalResponseNorm, WindowsOfZerosBeyondTheEnd) {
  for (int64_t positions : {1, 20}) {
    const Dims d{1, 20, positions};
    Data data(d, DType::kF32);
    for (int64_t s = 0; s < positions; ++s) {
      data.x.set(static_cast<size_t>(s), 0.0);
      data.x.set(static_cast<size_t>(19 * positions + s), 0.0);
    }
    const Parameters q{3, 1.0, 0.75, 0.0};
    const Array dx = run(data, q).second;
    const Exact e = exact(data, q);
    for (size_t i = 0; i < dx.size(); ++i)
      EXPECT_LE(static_cast<double>(reference::wide_abs(Wide(dx[i]) - e.dx[i])),
                0x1p-23 * static_cast<double>(e.dx_terms[i]))
          << i;
  }
}

// The bits that every compiler, instruction set and version must produce; changed only on purpose.
TEST(LocalResponseNorm, GoldenBits) {
  const uint64_t expected[] = {0x54F47EB3BA428D4Fu, 0xA849BB574111867Bu, 0x89722596BA6DA2E4u,
                               0x57F7C8E697FCA02Cu};
  for (DType dtype : kDTypes) {
    uint64_t hash = 14695981039346656037u;
    for (const Dims& d : {Dims{2, 5, 37}, Dims{3, 40, 1}, Dims{2, 33, 18}})
      for (double beta : kBetas)
        for (int64_t size : {2, 5, 40}) {
          const auto [y, dx] = run(Data(d, dtype), {size, 0.625, beta, 1.5});
          hash = fnv(fnv(hash, y.bytes.data(), y.bytes.size()), dx.bytes.data(), dx.bytes.size());
        }
    EXPECT_EQ(hash, expected[static_cast<int>(dtype)]) << dtype_name(dtype);
  }
}

// Large and small numbers whose squares no float holds.
TEST(LocalResponseNorm, SquaresBeyondFloat) {
  const Dims d{1, 3, 1};
  Data data(d, DType::kF32);
  const double values[] = {1e30, -2e-38, 3e38};
  for (size_t i = 0; i < 3; ++i) data.x.set(i, values[i]);
  for (double k : {0.0, 1.0}) {
    const Parameters q{3, 1.0, 0.75, k};
    const Array y = run(data, q).first;
    const Exact e = exact(data, q);
    for (size_t i = 0; i < 3; ++i)
      EXPECT_LE(static_cast<double>(reference::wide_abs(Wide(y[i]) - e.y[i]) / ulp(e.y[i], DType::kF32)),
                0.502)
          << i;
  }
}

TEST(LocalResponseNorm, HugeSizesAndEmptyArrays) {
  const Data data({2, 7, 3}, DType::kF64);
  const Parameters whole{16, 2.0}, huge{INT64_MAX, 0.125 * 0x1p63};  // alpha / size is 1/8 in both
  EXPECT_EQ(run(data, whole).first.bytes, run(data, huge).first.bytes);
  EXPECT_EQ(run(data, whole).second.bytes, run(data, huge).second.bytes);
  for (const Dims& d : {Dims{0, 3, 5}, Dims{2, 0, 5}, Dims{2, 3, 0}}) {
    EXPECT_EQ(forward(d, {}, ConstView(), View()), Status::kOk);
    EXPECT_EQ(backward(d, {}, ConstView(), ConstView(), View()), Status::kOk);
  }
}

TEST(LocalResponseNorm, BadInput) {
  const int64_t size[] = {2, 3, 4};
  std::vector<float> x(25, 1.0f), dy(25, 1.0f), out(25, 7.0f);
  const auto refuse = [&](Status status, auto change) {
    ChannelsShape shape{3, size};
    LocalResponseNormArgs args;
    args.x = static_cast<const float*>(x.data());
    args.y = out.data();
    change(args, shape);
    EXPECT_EQ(local_response_norm(shape, args), status);
    LocalResponseNormBackwardArgs gradient;
    gradient.dy = static_cast<const float*>(dy.data());
    gradient.x = args.x;
    gradient.dx = args.y;
    gradient.size = args.size;
    gradient.alpha = args.alpha;
    gradient.beta = args.beta;
    gradient.k = args.k;
    EXPECT_EQ(local_response_norm_backward(shape, gradient), status);
    for (float v : out) ASSERT_EQ(v, 7.0f);
  };
  refuse(Status::kInvalidShape, [](auto& a, auto&) { a.size = 0; });
  refuse(Status::kInvalidShape, [](auto& a, auto&) { a.size = INT64_MIN; });
  refuse(Status::kInvalidShape, [](auto&, auto& s) { s.rank = 1; });
  refuse(Status::kInvalidShape, [](auto&, auto& s) { s.rank = INT32_MAX; });
  refuse(Status::kInvalidShape, [](auto&, auto& s) { s.size = nullptr; });
  refuse(Status::kInvalidEps, [](auto& a, auto&) { a.alpha = NAN; });
  refuse(Status::kInvalidEps, [](auto& a, auto&) { a.beta = NAN; });
  refuse(Status::kInvalidEps, [](auto& a, auto&) { a.k = NAN; });
  refuse(Status::kInvalidEps, [](auto& a, auto&) { a.k = a.alpha = 0.0; });
  refuse(Status::kInvalidEps, [](auto& a, auto&) { a.k = a.alpha = -1.0; });
  refuse(Status::kNullPointer, [](auto& a, auto&) { a.x = ConstView(); });
  refuse(Status::kNullPointer, [](auto& a, auto&) { a.y = View(); });
  refuse(Status::kInvalidDType, [](auto& a, auto&) { a.x.dtype = static_cast<DType>(9); });
  refuse(Status::kInvalidDType, [](auto& a, auto&) { a.y.dtype = DType::kF16; });
  refuse(Status::kMisaligned, [](auto& a, auto&) { a.x.data = static_cast<const char*>(a.x.data) + 2; });
  refuse(Status::kOverlap, [&](auto& a, auto&) { a.x = static_cast<const float*>(out.data() + 1); });
  const int64_t same[] = {12, 4, 0}, extreme[] = {INT64_MAX, INT64_MIN, INT64_MAX};
  refuse(Status::kOverlap, [&](auto& a, auto&) { a.y.strides = same; });
  refuse(Status::kInvalidShape, [&](auto& a, auto&) { a.x.strides = extreme; });
  LocalResponseNormBackwardArgs gradient;
  gradient.x = static_cast<const float*>(x.data());
  gradient.dx = out.data();
  EXPECT_EQ(local_response_norm_backward({3, size}, gradient), Status::kNullPointer);
  gradient.dy = ConstView(dy.data(), DType::kF16);
  EXPECT_EQ(local_response_norm_backward({3, size}, gradient), Status::kInvalidDType);
  for (float v : out) ASSERT_EQ(v, 7.0f);
}

// None for any usual window; beyond, at most 1/64 of the input and a constant.
TEST(LocalResponseNorm, Workspace) {
  LocalResponseNormArgs args;
  const int64_t usual[] = {8, 4096, 1024}, wide[] = {8, 4096, 64};
  args.size = 500;
  EXPECT_EQ(local_response_norm_workspace_bytes({3, usual}, args), 0u);
  args.size = INT64_MAX;
  const size_t bytes = local_response_norm_workspace_bytes({3, wide}, args);
  EXPECT_GT(bytes, 0u);
  EXPECT_LE(bytes, (size_t(8 * 4096 * 64 * 4) >> 6) + (size_t(4) << 20) + 64);
  std::vector<float> x(8 * 4096 * 64), y(x);
  std::vector<unsigned char> scratch(bytes);
  args.x = static_cast<const float*>(x.data());
  args.y = y.data();
  Plan plan;
  EXPECT_EQ(local_response_norm_plan({3, wide}, args, {scratch.data(), bytes}, &plan), Status::kOk);
  EXPECT_EQ(local_response_norm_plan({3, wide}, args, {scratch.data(), bytes - 1}, &plan),
            Status::kWorkspaceTooSmall);
  EXPECT_EQ(local_response_norm_plan({3, wide}, args, {}, &plan), Status::kWorkspaceTooSmall);
}

#if defined(NORMKIT_COMPILED)
TEST(LocalResponseNorm, TheSameBitsOnEveryInstructionSet) {
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
    for (const Dims& d : {Dims{2, 40, 21}, Dims{3, 50, 1}, Dims{2, 3, 35}}) {
      for (DType dtype : kDTypes) {
        for (double beta : kBetas) {
          const Data data(d, dtype);
          const Parameters q{5, 0.7, beta};
          const auto [y, dx] = run(data, q);
          Array y_here(dtype, d.elements()), dx_here(y_here);
          const int64_t size[] = {d.N, d.C, d.S};
          auto args = arguments<LocalResponseNormArgs>(q);
          args.x = {data.x.bytes.data(), dtype};
          args.y = {y_here.bytes.data(), dtype};
          Plan plan;
          ASSERT_EQ(table()->local_response_norm_plan({3, size}, args, {}, &plan), Status::kOk);
          execute(plan);
          EXPECT_EQ(y_here.bytes, y.bytes) << name << " y " << dtype_name(dtype) << " beta " << beta;
          auto gradient = arguments<LocalResponseNormBackwardArgs>(q);
          gradient.x = args.x;
          gradient.dy = {data.dy.bytes.data(), dtype};
          gradient.dx = {dx_here.bytes.data(), dtype};
          ASSERT_EQ(table()->local_response_norm_backward_plan({3, size}, gradient, {}, &plan), Status::kOk);
          execute(plan);
          EXPECT_EQ(dx_here.bytes, dx.bytes) << name << " dx " << dtype_name(dtype) << " beta " << beta;
        }
      }
    }
  }
}
#endif

}  // namespace
}  // namespace tests
