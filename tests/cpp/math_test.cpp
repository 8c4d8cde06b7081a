// exp, log, pow, tanh, erf against series of the tests' own in quadruple precision, and against long double.
//
// All 2^32 floats instead of a sample (about 15 minutes on two processors with AVX-512):
//   NORMKIT_DEEP=1 build/tests/cpp/normkit_tests_headers --gtest_filter='Math.*Float*'
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>

#include "data.hpp"
#include "normkit/detail/math.hpp"

// The functions under test, within the headers' guard: inlined into a test they could be fused.
NORMKIT_BEGIN_NAMESPACE
#define NORMKIT_TEST_FUNCTION(name)                   \
  template <typename T>                               \
  NORMKIT_NOINLINE void name##_16(const T* x, T* y) { \
    store16(y, name##_of(load16(x)));                 \
  }                                                   \
  template <typename T>                               \
  NORMKIT_NOINLINE T name##_1(T x) {                  \
    return name##_of(x);                              \
  }
NORMKIT_TEST_FUNCTION(exp)
NORMKIT_TEST_FUNCTION(log)
NORMKIT_TEST_FUNCTION(tanh)
NORMKIT_TEST_FUNCTION(erf)
#undef NORMKIT_TEST_FUNCTION
template <typename T>
NORMKIT_NOINLINE void pow_16(const T* x, const T* y, T* z) {
  store16(z, pow_of(load16(x), load16(y)));
}
template <typename T>
NORMKIT_NOINLINE T pow_1(T x, T y) {
  return pow_of(x, y);
}
inline NORMKIT_NOINLINE double slope_precise(double z) {
  return tanh_parts<false, true>(z).slope;
}
inline NORMKIT_NOINLINE double slope_short(double z) {
  return tanh_parts<true, true>(z).slope;
}
NORMKIT_END_NAMESPACE

namespace tests {
namespace {

using namespace normkit::detail;

// ---- the reference: 113 bits, textbook series ----

#if defined(__SIZEOF_FLOAT128__)
__extension__ typedef __float128 Quad;
#else
typedef long double Quad;  // AArch64: the same format
#endif

Quad quad_power_of_two(int k) {
  Quad v = 1;
  for (; k > 0; --k) v *= 2;
  for (; k < 0; ++k) v /= 2;
  return v;
}

// The Taylor series of x / 2^12, squared twelve times.
Quad quad_exp(Quad x) {
  const Quad r = x / 4096;
  Quad sum = 1, term = 1;
  for (int n = 1; n < 40; ++n) {
    term *= r / n;
    sum += term;
  }
  for (int i = 0; i < 12; ++i) sum *= sum;
  return sum;
}

// log x = k log 2 + log m: around 1 Mercator's series, else Halley's step from libm's double: cubic, so 2^-50
// becomes 2^-150.
Quad quad_log(double x) {
  int k;
  double m = std::frexp(x, &k);
  if (m < 0.75) {
    m *= 2;
    --k;
  }
  if (std::fabs(m - 1) < 0x1p-5 && k == 0) {
    const Quad f = m - 1;
    Quad sum = 0, power = f;
    for (int n = 1; n < 26; ++n, power *= -f) sum += power / n;
    return sum;
  }
  const double guess = std::log(m);
  const Quad power = quad_exp(guess);
  // log 2 = 2 atanh(1/3)
  Quad log2 = 0, third = Quad(2) / 3;
  for (int n = 1; n < 80; n += 2, third /= 9) log2 += third / n;
  return k * log2 + (guess + 2 * (m - power) / (m + power));
}

Quad quad_sinh_cosh(Quad x, bool cosh) {
  Quad term = cosh ? Quad(1) : x, sum = term;
  for (int n = cosh ? 1 : 2; n < 80; n += 2) {
    term *= x * x / (n * (n + 1));
    sum += term;
  }
  return sum;
}
Quad quad_tanh(double x) {
  if (std::fabs(x) > 100) return x > 0 ? 1 : -1;
  if (std::fabs(x) < 1) return quad_sinh_cosh(x, false) / quad_sinh_cosh(x, true);
  const Quad e = quad_exp(2 * Quad(x));
  return (e - 1) / (e + 1);
}
Quad quad_slope(double x) {
  const Quad e = quad_exp(-std::fabs(x));
  const Quad cosh = (e * e + 1) / 2;
  return e / cosh * (e / cosh);
}

// erf x = 2 / sqrt(pi) e^(-x^2) sum of 2^n x^(2n+1) / (1 3 ... (2n+1)): no term is negative.
Quad quad_erf(double x) {
  if (std::fabs(x) > 9) return x > 0 ? 1 : -1;
  const Quad square = Quad(x) * x;
  Quad term = x, sum = term;
  for (int n = 1; n < 500; ++n) {
    term *= 2 * square / (2 * n + 1);
    sum += term;
  }
  // Machin: pi = 16 atan(1/5) - 4 atan(1/239); its root by Newton's steps.
  Quad pi = 0, a = Quad(16) / 5, b = Quad(4) / 239;
  for (int n = 1; n < 100; n += 2, a /= -25, b /= -239 * 239) pi += (a - b) / n;
  Quad root = std::sqrt(static_cast<double>(pi));
  for (int i = 0; i < 3; ++i) root = (root + pi / root) / 2;
  return 2 / root * quad_exp(-square) * sum;
}

Quad quad_pow(double x, double y) {
  return quad_exp(Quad(y) * quad_log(x));
}

// ---- errors ----

template <typename T>
double ulps(T got, Quad exact) {
  constexpr bool kFloat = sizeof(T) == 4;
  constexpr int kDigits = kFloat ? 24 : 53, kSmallest = kFloat ? -126 : -1022;
  const Quad size = exact < 0 ? -exact : exact;
  const Quad limit = quad_power_of_two(kFloat ? 128 : 1024);
  if (size >= limit * (1 - quad_power_of_two(-kDigits - 1)))  // rounds to infinity, or nearly
    return std::isinf(got) || std::fabs(got) == std::numeric_limits<T>::max() ? 0 : HUGE_VAL;
  int exponent = kSmallest;
  if (size >= quad_power_of_two(kSmallest)) {
    (void)std::frexp(static_cast<double>(size), &exponent);
    --exponent;
  }
  const Quad error = Quad(got) - exact;
  return static_cast<double>((error < 0 ? -error : error) / quad_power_of_two(exponent - kDigits + 1));
}

struct Worst {
  double error = 0, at = 0, at_second = 0;
  void see(double e, double x, double y = 0) {
    if (!(e <= error)) *this = {e, x, y};
  }
  void print(const char* what) const {
    std::printf("%-12s worst %.4f ULP at %a %a\n", what, error, at, at_second);
  }
};

template <typename T>
uint64_t bits_of(T v) {
  uint64_t bits = 0;
  std::memcpy(&bits, &v, sizeof(v));
  return bits;
}

template <typename T>
struct Function {
  const char* name;
  void (*sixteen)(const T*, T*);
  T (*one)(T);
  Quad (*quad)(double);
  long double (*wide)(long double);
  double smallest, largest;  // beyond lie only 0, 1, infinity, NaN
  bool both_signs;
  double limit;
};

Quad quad_exp_of(double x) {
  return quad_exp(x);
}
template <typename T>
const std::vector<Function<T>>& functions() {
  constexpr bool kFloat = sizeof(T) == 4;
  constexpr double kLimit = kFloat ? 0.501 : 1.5;
  static const std::vector<Function<T>> all_functions = {
      {"exp", &exp_16<T>, &exp_1<T>, &quad_exp_of, &std::exp, kFloat ? -0x1p7 : -750, kFloat ? 0x1p7 : 710,
       true, kLimit},
      {"log", &log_16<T>, &log_1<T>, &quad_log, &std::log, 0, HUGE_VAL, false, kLimit},
      {"tanh", &tanh_16<T>, &tanh_1<T>, &quad_tanh, &std::tanh, -40, 40, true, kLimit},
      {"erf", &erf_16<T>, &erf_1<T>, &quad_erf, &std::erf, -8, 8, true, kLimit}};
  return all_functions;
}

// 16 arguments: the vector's results are the scalar's bits; returns them.
template <typename T>
void check_same(const Function<T>& f, const T* x, T* y) {
  f.sixteen(x, y);
  for (int i = 0; i < 16; ++i) ASSERT_EQ(bits_of(y[i]), bits_of(f.one(x[i]))) << f.name << " of " << x[i];
}

// ---- float ----

// libm's long double functions are within 2 of their 2^-64: enough to judge 24 bits, and fast.
TEST(Math, EveryFloatOrASample) {
  const bool deep = std::getenv("NORMKIT_DEEP") != nullptr;
  const uint64_t step = deep ? 1 : 4099;
  for (const Function<float>& f : functions<float>()) {
    Worst worst;
    uint64_t nans = 0;
#pragma omp parallel for schedule(dynamic) reduction(+ : nans) if (deep)
    for (int64_t part = 0; part < 256; ++part) {
      Worst own;
      const uint64_t begin = (static_cast<uint64_t>(part) << 24) / (16 * step) * (16 * step);
      for (uint64_t first = begin; first < (static_cast<uint64_t>(part + 1) << 24); first += 16 * step) {
        float x[16], y[16];
        for (uint64_t i = 0; i < 16; ++i) x[i] = float_of(static_cast<uint32_t>(first + i * step));
        check_same(f, x, y);
        for (int i = 0; i < 16; ++i) {
          const long double exact = f.wide(x[i]);
          if (std::isnan(exact)) {
            if (float_bits(y[i]) != 0x7FC00000u) own.see(HUGE_VAL, x[i]);
            ++nans;
          } else if (std::isinf(exact) || exact == 0) {
            const float expected = static_cast<float>(exact);  // for erf and tanh the sign of zero counts
            if (float_bits(y[i]) != float_bits(expected)) own.see(HUGE_VAL, x[i]);
          } else {
            int exponent;
            (void)std::frexp(exact, &exponent);
            const long double ulp = std::ldexp(1.0L, std::max(exponent - 1, -126) - 23);
            const long double error = std::fabs(static_cast<long double>(y[i]) - exact) / ulp;
            const bool overflow = std::isinf(y[i]) && std::fabs(exact) >= 0x1.ffffffp127L;
            if (!overflow) own.see(static_cast<double>(error), x[i]);
          }
        }
      }
#pragma omp critical
      worst.see(own.error, own.at);
    }
    worst.print(f.name);
    EXPECT_LE(worst.error, f.limit) << f.name << " of " << worst.at;
    EXPECT_GT(nans, 0u);
  }
}

// The long double functions that judge above, judged by the series.
TEST(Math, LongDoubleIsGoodEnough) {
  Random random(1);
  for (const Function<double>& f : functions<double>()) {
    for (int round = 0; round < 2000; ++round) {
      const double x = std::ldexp(random.uniform() + 0.5, static_cast<int>(random.next() % 40) - 34);
      const Quad exact = f.quad(x), error = Quad(f.wide(x)) - exact;
      const Quad size = exact < 0 ? -exact : exact;
      ASSERT_LE(static_cast<double>((error < 0 ? -error : error) / size), 0x1p-61) << f.name << " of " << x;
    }
  }
}

// ---- double ----

std::vector<double> arguments_of(const Function<double>& f) {
  std::vector<double> all;
  Random random(2);
  const double low = f.smallest, high = f.largest < 1e300 ? f.largest : 10;
  for (int i = 0; i < 4000; ++i) {
    all.push_back(low + (high - low) * random.uniform());
    const double size = std::ldexp(random.uniform() + 0.5, static_cast<int>(random.next() % 2100) - 1074);
    all.push_back(f.both_signs && i % 2 ? -size : size);
    all.push_back(std::ldexp(random.uniform() + 0.5, static_cast<int>(random.next() % 16) - 8));
  }
  // Where the formulas change: multiples of ln 2 / 2 (and / 4), sqrt(1/2) 2^k, 1, 6, the ends of the range.
  std::vector<double> edges = {1,      6,      0x1p-1022, 0x1p-1074, 0x1p-27, 0x1p-53, 709.78271289338397,
                               745.13, 744.44, 708.3964,  19.0615,   18.3684, 5.8635,  20};
  for (int k = 1; k < 120; ++k) edges.push_back(k * 0.17328679513998633);
  for (int k = -60; k < 60; ++k) {
    edges.push_back(std::ldexp(0.70710678118654752, k));
    edges.push_back(std::ldexp(1.0, k));
    edges.push_back(1 + std::ldexp(1.0, -std::abs(k) / 2));
  }
  for (double edge : edges) {
    for (double v : {std::nextafter(edge, 0), edge, std::nextafter(edge, HUGE_VAL)}) {
      all.push_back(v);
      if (f.both_signs) all.push_back(-v);
    }
  }
  while (all.size() % 16) all.push_back(0.5);
  return all;
}

TEST(Math, DoubleOverAllMagnitudes) {
  for (const Function<double>& f : functions<double>()) {
    Worst worst;
    const std::vector<double> x = arguments_of(f);
    for (size_t i = 0; i < x.size(); i += 16) {
      double y[16];
      check_same(f, &x[i], y);
      for (size_t j = 0; j < 16; ++j) {
        const double v = x[i + j];
        const double inside = std::min(std::max(v, f.smallest), f.largest);  // the series ends somewhere
        if (f.both_signs || v > 0) worst.see(ulps(y[j], f.quad(inside)), v);
      }
    }
    worst.print(f.name);
    EXPECT_LE(worst.error, f.limit) << f.name << " of " << worst.at;
  }
}

TEST(Math, SlopeOfTanh) {
  Random random(3);
  Worst precise, brief;
  for (int i = 0; i < 20000; ++i) {
    const double range = i % 3 == 0 ? 374 : i % 3 == 1 ? 3 : 40;
    const double z = range * (2 * random.uniform() - 1);
    const Quad exact = quad_slope(z);
    precise.see(ulps(slope_precise(z), exact), z);
    if (std::fabs(z) < 350) {
      const Quad error = (Quad(slope_short(z)) - exact) / exact;
      brief.see(std::fabs(static_cast<double>(error)), z);
    }
  }
  precise.print("slope");
  EXPECT_LE(precise.error, 4.0) << precise.at;
  EXPECT_LE(brief.error, 0x1p-35) << brief.at;
  for (double z : {0.0, -0.0, 1e-300}) EXPECT_EQ(slope_precise(z), 1.0);
  for (double z : {373.0, 374.0, 1e10, HUGE_VAL, -HUGE_VAL})
    EXPECT_EQ(slope_precise(z) > 0, std::fabs(z) < 373.5) << z;
  for (double z : {350.0, -1e10, HUGE_VAL, -HUGE_VAL}) EXPECT_EQ(slope_short(z), 0.0) << z;
  EXPECT_TRUE(std::isnan(slope_precise(NAN)) && std::isnan(slope_short(NAN)));
}

// ---- pow ----

template <typename T>
void check_pow(int rounds, double limit) {
  Random random(4);
  Worst worst;
  constexpr bool kFloat = sizeof(T) == 4;
  const int exponents = kFloat ? 149 : 1074;
  for (int round = 0; round < rounds; ++round) {
    T x[16], y[16], z[16];
    for (int i = 0; i < 16; ++i) {
      // Any size, around 1, and close to 1; exponents so that the power is in range, small, or a simple
      // number.
      const int kind = i % 4;
      const double u = random.uniform();
      const double base =
          kind == 0
              ? std::ldexp(u + 0.5,
                           static_cast<int>(random.next() % static_cast<uint64_t>(2 * exponents)) - exponents)
          : kind == 1 ? 4 * u + 0.01
          : kind == 2 ? 1 + (u - 0.5) * std::ldexp(1.0, -static_cast<int>(random.next() % (kFloat ? 22 : 50)))
                      : u * 100;
      x[i] = static_cast<T>(base);
      if (x[i] < std::numeric_limits<T>::denorm_min()) x[i] = 1;
      const double reach =
          (kFloat ? 90 : 740) / std::max(std::fabs(std::log(static_cast<double>(x[i]))), 1e-300);
      const double simple[] = {0.5, -0.5, 0.75, -0.75, 2, 3, -1, 1.0 / 3};
      y[i] = static_cast<T>(i < 8 ? (2 * random.uniform() - 1) * std::min(reach, 1e30) : simple[i % 8]);
    }
    pow_16(x, y, z);
    for (int i = 0; i < 16; ++i) {
      ASSERT_EQ(bits_of(z[i]), bits_of(pow_1(x[i], y[i]))) << x[i] << " " << y[i];
      const double a = static_cast<double>(x[i]), b = static_cast<double>(y[i]);
      worst.see(ulps(z[i], quad_pow(a, b)), a, b);
    }
  }
  worst.print(kFloat ? "powf" : "pow");
  EXPECT_LE(worst.error, limit) << worst.at << " " << worst.at_second;
}
TEST(Math, Pow) {
  check_pow<double>(800, 1.0);
}
TEST(Math, PowOfFloats) {
  check_pow<float>(400, 0.501);
}

// ---- special values ----

template <typename T>
void expect_same(T got, double expected, const char* what, double x, double y = 0) {
  if (std::isnan(expected))
    EXPECT_EQ(bits_of(got), bits_of(static_cast<T>(__builtin_nan("")))) << what << " " << x << " " << y;
  else
    EXPECT_EQ(bits_of(got), bits_of(static_cast<T>(expected))) << what << " " << x << " " << y;
}

template <typename T>
void check_specials() {
  const T infinity = std::numeric_limits<T>::infinity(), least = std::numeric_limits<T>::denorm_min();
  for (T nan : {std::numeric_limits<T>::quiet_NaN(), -std::numeric_limits<T>::quiet_NaN()})
    for (const Function<T>& f : functions<T>()) expect_same(f.one(nan), NAN, f.name, NAN);
  expect_same(exp_1(infinity), HUGE_VAL, "exp", HUGE_VAL);
  expect_same(exp_1(-infinity), 0, "exp", -HUGE_VAL);
  expect_same(exp_1(T(1000)), HUGE_VAL, "exp", 1000);
  expect_same(exp_1(T(-1000)), 0, "exp", -1000);
  expect_same(log_1(infinity), HUGE_VAL, "log", HUGE_VAL);
  expect_same(log_1(T(1)), 0, "log", 1);
  expect_same(log_1(T(-1)), NAN, "log", -1);
  expect_same(log_1(-infinity), NAN, "log", -HUGE_VAL);
  expect_same(log_1(-least), NAN, "log", -1);
  for (T zero : {T(0), T(-0.0)}) {
    expect_same(exp_1(zero), 1, "exp", 0);
    expect_same(log_1(zero), -HUGE_VAL, "log", 0);
    expect_same(tanh_1(zero), static_cast<double>(zero), "tanh", 0);
    expect_same(erf_1(zero), static_cast<double>(zero), "erf", 0);
  }
  for (double sign : {1.0, -1.0}) {
    for (T large : {infinity, std::numeric_limits<T>::max(), T(30)}) {
      expect_same(tanh_1(static_cast<T>(sign) * large), sign, "tanh", static_cast<double>(large));
      expect_same(erf_1(static_cast<T>(sign) * large), sign, "erf", static_cast<double>(large));
    }
    for (T tiny : {least, 3 * least, std::numeric_limits<T>::min()})
      EXPECT_EQ(tanh_1(static_cast<T>(sign) * tiny), static_cast<T>(sign) * tiny);
  }
}
TEST(Math, Specials) {
  check_specials<double>();
  check_specials<float>();
}

// Every pair of these as C's pow says: libm's where that is exact (0, infinity, NaN, 1, small integers).
TEST(Math, SpecialsOfPow) {
  const double values[] = {0.0,    -0.0,      1,          -1,          2,          -2,           3,
                           -3,     0.5,       -0.5,       HUGE_VAL,    -HUGE_VAL,  NAN,          1e300,
                           -1e300, 0x1p53,    0x1p53 - 1, -0x1p53 + 1, 0x1p52 + 1, 0x1p52 + 0.5, 1.5,
                           -1.5,   0x1p-1074, -0x1p-1074, 1e-300};
  for (double x : values) {
    for (double y : values) {
      const double expected = std::pow(x, y), got = pow_1(x, y);
      const double size = std::fabs(expected);
      if (std::isnan(expected) || size == 0 || size == 1 || std::isinf(expected))
        expect_same(got, expected, "pow", x, y);
      else
        EXPECT_NEAR(got / expected, 1.0, 0x1p-52) << x << " " << y;
    }
  }
}

// ---- the bits ----

// The same on every instruction set and with every compiler.
TEST(Math, Bits) {
  uint64_t hash = 14695981039346656037u;
  Random random(5);
  for (int round = 0; round < 2000; ++round) {
    double x[16], y[16], z[16];
    float a[16], b[16], c[16];
    for (int i = 0; i < 16; ++i) {
      x[i] = (2 * random.uniform() - 1) * (round % 2 ? 4 : 300);
      y[i] = std::fabs(x[i]);
      a[i] = static_cast<float>(x[i]);
      b[i] = static_cast<float>(y[i]);
    }
    for (const Function<double>& f : functions<double>()) {
      f.sixteen(f.both_signs ? x : y, z);
      hash = fnv(hash, z, sizeof(z));
    }
    for (const Function<float>& f : functions<float>()) {
      f.sixteen(f.both_signs ? a : b, c);
      hash = fnv(hash, c, sizeof(c));
    }
    pow_16(y, x, z);
    hash = fnv(hash, z, sizeof(z));
    for (double& v : z) v = slope_precise(x[0] + v * 0) + slope_short(x[1]);
    hash = fnv(hash, z, sizeof(z));
  }
  EXPECT_EQ(hash, 0xb0b13bcd5f9b2948u) << std::hex << hash;
}

}  // namespace
}  // namespace tests
