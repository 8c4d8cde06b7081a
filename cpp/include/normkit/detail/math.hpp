// exp, log, pow, tanh, erf of our own: the same bits with every compiler and instruction set.
//
// Only IEEE + - * /, rounded one by one, and integer steps on the bits; no branches, no tables. Written once
// for a "part": a register of doubles or one double. For double the error is below 1.5 ULP (the slope of
// tanh: 4). For float the arithmetic is double as well, with fewer terms where 2^-36 is enough (kShort), and
// is rounded once: float results are within 0.501 ULP. Special values are those of C99, NaN is the canonical
// one.
//
// exp: x = k ln 2 + r, |r| <= ln 2 / 2 (Cody, Waite 1980); e^r = 1 + r + r^2 q(r). log: x = 2^k m, m around
// 1, log m = 2 atanh(s), s = (m - 1) / (m + 1), to about 2^-65 in pairs of doubles (Dekker 1971), which pow
// needs.
#ifndef NORMKIT_DETAIL_MATH_HPP_
#define NORMKIT_DETAIL_MATH_HPP_

#include "normkit/detail/config.hpp"
#include "normkit/detail/convert.hpp"
#include "normkit/detail/simd.hpp"

NORMKIT_BEGIN_NAMESPACE

// ---- parts ----

// What a part is made of. Adding the rounder to a small number leaves the nearest integer in the low bits, in
// two's complement.
struct DoubleFormat {
  using Scalar = double;
  static constexpr double kRounder = 0x1.8p52;
  static constexpr int kMantissaBits = 52;
  static constexpr uint64_t kExponentBias = 1023;
};
struct FloatFormat {
  using Scalar = float;
  static constexpr double kRounder = 0x1.8p23;
  static constexpr int kMantissaBits = 23;
  static constexpr uint32_t kExponentBias = 127;
};
template <typename Part>
struct FormatOf;
template <>
struct FormatOf<double> : DoubleFormat {
  using Bits = uint64_t;
};
template <>
struct FormatOf<float> : FloatFormat {
  using Bits = uint32_t;
};
#if NORMKIT_VECTOR_BYTES > 0
typedef uint64_t PartU64 __attribute__((vector_size(NORMKIT_VECTOR_BYTES)));
template <>
struct FormatOf<PartOf<double>::Type> : DoubleFormat {
  using Bits = PartU64;
};
template <>
struct FormatOf<PartOf<float>::Type> : FloatFormat {
  using Bits = PartU32;
};
#endif
template <typename Part>
using Bits = typename FormatOf<Part>::Bits;

template <typename Part>
NORMKIT_INLINE Bits<Part> part_bits(Part v) {
  Bits<Part> bits;
  memcpy(&bits, &v, sizeof(bits));
  return bits;
}
template <typename Part>
NORMKIT_INLINE Part part_of(Bits<Part> bits) {
  Part v;
  memcpy(&v, &bits, sizeof(v));
  return v;
}
template <typename Part>
NORMKIT_INLINE Part all(double value) {
  return static_cast<typename FormatOf<Part>::Scalar>(value) - Part{};
}

constexpr uint64_t kSignBit = uint64_t(1) << 63;
constexpr double kInfinity = __builtin_huge_val();

template <typename Part>
NORMKIT_INLINE Part magnitude(Part v) {
  return part_of<Part>(part_bits(v) & ~kSignBit);
}
// A positive v with the sign of `from`.
template <typename Part>
NORMKIT_INLINE Part with_sign(Part v, Part from) {
  return part_of<Part>(part_bits(v) | (part_bits(from) & kSignBit));
}
template <typename Part>
NORMKIT_INLINE Part at_least(Part v, double limit) {
  return v > all<Part>(limit) ? v : all<Part>(limit);
}
template <typename Part>
NORMKIT_INLINE Part at_most(Part v, double limit) {
  return v < all<Part>(limit) ? v : all<Part>(limit);
}
// v, or the canonical NaN where x is NaN.
template <typename Part>
NORMKIT_INLINE Part unless_nan(Part x, Part v) {
  return x == x ? v : all<Part>(__builtin_nan(""));
}

// sum of c[i] x^i: even and odd powers in two chains, which run side by side.
template <size_t kTerms, typename Part>
NORMKIT_INLINE Part polynomial(const double (&c)[kTerms], Part x) {
  const Part square = x * x;
  constexpr int kTop = int(kTerms) - 1;
  Part first = all<Part>(c[kTop]), second = all<Part>(c[kTop - 1]);
  NORMKIT_UNROLL for (int i = kTop - 2; i >= 0; i -= 2) first = first * square + all<Part>(c[i]);
  NORMKIT_UNROLL for (int i = kTop - 3; i >= 0; i -= 2) second = second * square + all<Part>(c[i]);
  return kTop % 2 == 0 ? first + x * second : second + x * first;
}

// high + low = the exact sum or product, high the rounded one.
template <typename Part>
struct PartPair {
  Part high, low;
};
template <typename Part>
NORMKIT_INLINE PartPair<Part> exact_sum(Part a, Part b) {
  const Part sum = a + b;
  const Part b_part = sum - a;
  return {sum, (a - (sum - b_part)) + (b - b_part)};
}
// |a| >= |b|, or a = 0.
template <typename Part>
NORMKIT_INLINE PartPair<Part> exact_ordered_sum(Part a, Part b) {
  const Part sum = a + b;
  return {sum, b - (sum - a)};
}
template <typename Part>
NORMKIT_INLINE PartPair<Part> halves_of(Part a) {
  const Part c = a * all<Part>(0x1p27 + 1);
  const Part high = c - (c - a);
  return {high, a - high};
}
template <typename Part>
NORMKIT_INLINE PartPair<Part> exact_product(Part a, Part b) {
  const Part product = a * b;
  const PartPair<Part> x = halves_of(a), y = halves_of(b);
  return {product, ((x.high * y.high - product) + x.high * y.low + x.low * y.high) + x.low * y.low};
}

// ---- exp ----

constexpr double kLn2High = 0x1.62e42feep-1;  // 32 bits: its product with an exponent is exact
constexpr double kLn2Low = 0x1.a39ef35793c76p-33;

template <typename Part>
NORMKIT_INLINE Part to_integer(Part v) {
  constexpr double kRounder = FormatOf<Part>::kRounder;
  return (v + all<Part>(kRounder)) - all<Part>(kRounder);
}

// 2^k, a normal number.
template <typename Part>
NORMKIT_INLINE Part power_of_two(Part k) {
  using Format = FormatOf<Part>;
  return part_of<Part>((part_bits(k + all<Part>(Format::kRounder)) + Format::kExponentBias)
                       << Format::kMantissaBits);
}
// v 2^k, rounded once, for v around 1.
template <typename Part>
NORMKIT_INLINE Part scaled_by_power(Part v, Part k) {
  const Part half = to_integer(k * all<Part>(0.5));
  return v * power_of_two(half) * power_of_two(k - half);
}

// e^x = 2^k (1 + p), p = high + low.
template <typename Part>
struct ExpParts {
  Part k, high, low;
};

// x = high + low, |high| <= 1100.
template <bool kShort, typename Part>
NORMKIT_INLINE ExpParts<Part> exp_parts(Part high, Part low) {
  constexpr double kPrecise[] = {0x1p-1,
                                 0x1.5555555555557p-3,
                                 0x1.5555555555556p-5,
                                 0x1.11111111100cep-7,
                                 0x1.6c16c16c162ccp-10,
                                 0x1.a01a01abef415p-13,
                                 0x1.a01a01a6dcaffp-16,
                                 0x1.71de021a90822p-19,
                                 0x1.27e4db57442fbp-22,
                                 0x1.af4e196027428p-26,
                                 0x1.1f731ea5352cap-29};
  constexpr double kFew[] = {0x1p-1,
                             0x1.555555675e3d0p-3,
                             0x1.5555555c8b81bp-5,
                             0x1.1110c613ed8f1p-7,
                             0x1.6c168572ec67ep-10,
                             0x1.a151b9b9f9468p-13,
                             0x1.a113532aeb65bp-16};
  const Part k = to_integer(high * all<Part>(0x1.71547652b82fep+0));
  const Part r = high - k * all<Part>(kLn2High);
  if constexpr (kShort) {
    const Part s = r - k * all<Part>(kLn2Low);
    return {k, s + s * s * polynomial(kFew, s), Part{}};
  }
  const PartPair<Part> s = exact_sum(r, low - k * all<Part>(kLn2Low));
  const Part rest = s.high * s.high * polynomial(kPrecise, s.high) + (s.low + s.low * s.high);
  const PartPair<Part> p = exact_ordered_sum(s.high, rest);
  return {k, p.high, p.low};
}

// The exponential of a pair; high may be infinite, but not NaN.
template <typename Part>
NORMKIT_INLINE Part exp_of_pair(Part high, Part low) {
  const Part clamped = at_most(at_least(high, -746.0), 710.0);
  const ExpParts<Part> e = exp_parts<false>(clamped, clamped == high ? low : Part{});
  return scaled_by_power(all<Part>(1.0) + (e.high + e.low), e.k);
}

template <bool kShort, typename Part>
NORMKIT_INLINE Part exp_part(Part x) {
  if constexpr (kShort) {  // floats end at e^-104 and e^89
    const ExpParts<Part> e = exp_parts<true>(at_most(at_least(x, -200.0), 200.0), Part{});
    return unless_nan(x, (all<Part>(1.0) + e.high) * power_of_two(e.k));
  }
  return unless_nan(x, exp_of_pair(x, Part{}));
}

// ---- log ----

// log x for finite x > 0, to about 2^-65 of it.
template <typename Part>
NORMKIT_INLINE PartPair<Part> log_pair(Part x) {
  constexpr double kAtanh[] = {0x1.999999999999ap-3, 0x1.2492492492491p-3, 0x1.c71c71c71cfe7p-4,
                               0x1.745d1745124c7p-4, 0x1.3b13b1bd0ead0p-4, 0x1.1110df7e2b9b8p-4,
                               0x1.e1f80a4c22cd4p-5, 0x1.ac4927065cf5ap-5, 0x1.b8e0c07ef591ap-5};
  constexpr uint64_t kRootHalf = 0x3FE6A09E667F3BCD, kOne = uint64_t(1023) << 52;
  const auto subnormal = x < all<Part>(0x1p-1022);
  const Part normal = subnormal ? x * all<Part>(0x1p54) : x;
  // 2^k m with sqrt(1/2) <= m < sqrt(2): counted from sqrt(1/2), the exponent field is k.
  const Bits<Part> shifted = part_bits(normal) + (kOne - kRootHalf);
  const Part biased = part_of<Part>((shifted >> 52) | part_bits(all<Part>(0x1p52))) - all<Part>(0x1p52);
  const Part k = biased - (subnormal ? all<Part>(1023.0 + 54.0) : all<Part>(1023.0));
  const Part m = part_of<Part>((shifted & ((uint64_t(1) << 52) - 1)) + kRootHalf);

  const Part one = all<Part>(1.0), two = all<Part>(2.0);
  const Part f = m - one;
  const PartPair<Part> g = exact_ordered_sum(one, m);
  const Part inverse = one / g.high;
  const Part s = f * inverse;
  const PartPair<Part> back = exact_product(s, g.high);
  const Part s_low = (((f - back.high) - back.low) - s * g.low) * inverse;

  // log m = 2 s (1 + z (1/3 + z w(z))), z = s^2
  const PartPair<Part> square = exact_product(s, s);
  const Part z = square.high, z_low = square.low + two * s * s_low;
  const PartPair<Part> a = exact_ordered_sum(all<Part>(0x1.5555555555555p-2), z * polynomial(kAtanh, z));
  const PartPair<Part> b = exact_product(z, a.high);
  const Part b_low = b.low + (z * (a.low + all<Part>(0x1.5555555555555p-56)) + z_low * a.high);
  const PartPair<Part> v = exact_ordered_sum(one, b.high);
  const Part v_low = v.low + b_low;
  const PartPair<Part> log_m = exact_product(two * s, v.high);
  const Part log_m_low = log_m.low + two * (s * v_low + s_low * v.high);

  const PartPair<Part> sum = exact_ordered_sum(k * all<Part>(kLn2High), log_m.high);
  return exact_ordered_sum(sum.high, sum.low + (k * all<Part>(kLn2Low) + log_m_low));
}

template <typename Part>
NORMKIT_INLINE Part log_part(Part x) {
  const Part infinity = all<Part>(kInfinity), zero = Part{};
  const PartPair<Part> log_x = log_pair(x);
  const Part at_ends = x == infinity ? infinity : x == zero ? -infinity : all<Part>(__builtin_nan(""));
  return x > zero ? (x < infinity ? log_x.high : at_ends) : at_ends;
}

// ---- pow ----

// 1 where v >= 0 is an integer, else 0.
template <typename Part>
NORMKIT_INLINE Part is_integer(Part v) {
  const Part large = all<Part>(0x1p52), one = all<Part>(1.0);
  return v < large ? ((v + large) - large == v ? one : Part{}) : one;
}

template <typename Part>
NORMKIT_INLINE Part pow_part(Part x, Part y) {
  const Part zero = Part{}, one = all<Part>(1.0), infinity = all<Part>(kInfinity);
  const Part nan = all<Part>(__builtin_nan(""));
  const Part a = magnitude(x);
  const PartPair<Part> log_a = log_pair(a);
  // |log a| >= 2^-53 unless a = 1: beyond 2^66 the power is 0, 1 or infinity, as at 2^66.
  const Part exponent = at_most(at_least(y, -0x1p66), 0x1p66);
  const PartPair<Part> t = exact_product(exponent, log_a.high);
  const Part power = exp_of_pair(t.high, t.low + exponent * log_a.low);
  const Part of_infinity = y < zero ? zero : infinity, of_zero = y < zero ? infinity : zero;
  const Part size = a == zero ? of_zero : a == infinity ? of_infinity : power;

  const Part integer = is_integer(magnitude(y));
  const Part odd = integer - is_integer(magnitude(y) * all<Part>(0.5));
  const Part with_odd_sign = odd > zero ? with_sign(size, x) : size;
  const Part of_negative = a < infinity ? (integer > zero ? with_odd_sign : nan) : with_odd_sign;
  const Part result = x < zero ? of_negative : with_odd_sign;
  const Part checked = x == x ? (y == y ? result : nan) : nan;
  return y == zero ? one : x == one ? one : checked;
}

// ---- tanh ----

template <typename Part>
struct TanhParts {
  Part tanh, slope;
};

// tanh z, and its slope 1 - tanh^2 z = 4 w / (1 + w)^2 where asked for; w = e^(-2 |z|) loses no digits at
// either end. tanh |z| = -m / (2 + m), m = w - 1.
template <bool kShort, bool kSlope, typename Part>
NORMKIT_INLINE TanhParts<Part> tanh_parts(Part z) {
  constexpr double kLimit = !kSlope ? 40.0 : kShort ? 700.0 : 748.0;
  const Part one = all<Part>(1.0), two = all<Part>(2.0);
  const ExpParts<Part> e = exp_parts<kShort>(at_least(magnitude(z) * all<Part>(-2.0), -kLimit), Part{});
  // Where 2^k may be subnormal: m is -1 long before.
  const Part scale = power_of_two(kSlope && !kShort ? at_least(e.k, -64.0) : e.k);
  Part tanh, slope = Part{};
  if constexpr (kShort) {
    const Part m = scale * e.high + (scale - one);
    const Part inverse = one / (two + m);
    tanh = -m * inverse;
    if constexpr (kSlope) {
      const Part inside = (one + e.high) * (all<Part>(4.0) * inverse * inverse) * scale;
      slope = unless_nan(z, magnitude(z) < all<Part>(kLimit / 2) ? inside : Part{});
    }
  } else {
    const PartPair<Part> base = exact_ordered_sum(-one, scale);
    const PartPair<Part> m = exact_sum(base.high, scale * e.high);
    const Part m_low = m.low + (base.low + scale * e.low);
    const PartPair<Part> d = exact_ordered_sum(two, m.high);
    const Part d_low = d.low + m_low;
    const Part inverse = one / d.high;
    const Part quotient = -m.high * inverse;
    const PartPair<Part> back = exact_product(quotient, d.high);
    const Part rest = (((-m.high - back.high) - back.low) - m_low) - quotient * d_low;
    tanh = quotient + rest * inverse;
    if constexpr (kSlope) {
      const Part fraction = all<Part>(4.0) * (one + e.high) / (d.high * d.high + two * d.high * d_low);
      slope = unless_nan(z, scaled_by_power(fraction, e.k));
    }
  }
  return {unless_nan(z, with_sign(magnitude(tanh), z)), slope};
}

template <bool kShort, typename Part>
NORMKIT_INLINE Part tanh_part(Part z) {
  return tanh_parts<kShort, false>(z).tanh;
}

// ---- erf ----

// |x| < 1: x + x P(x^2). From 1 to 6: 1 - e^(-x^2) R(t), t = (x - 2.5) / (x + 2.5), R = e^(x^2) erfc(x).
template <bool kShort, typename Part>
NORMKIT_INLINE Part erf_part(Part x) {
  constexpr double kNear[] = {0x1.06eba8214db69p-3,   -0x1.812746b0379e7p-2,  0x1.ce2f21a042bdep-4,
                              -0x1.b82ce312889bap-6,  0x1.565bcd0e6502dp-8,   -0x1.c02db3feeb579p-11,
                              0x1.f9a326c233146p-14,  -0x1.f4d2561aeafd4p-17, 0x1.b9e6509b9867dp-20,
                              -0x1.5f6d925a0bc7ap-23, 0x1.fc4356498c2d9p-27,  -0x1.4e607b41a6416p-30,
                              0x1.7f072188e194dp-34,  -0x1.29b9f1b3df556p-38};
  constexpr double kFar[] = {0x1.afbb3f3b7343bp-3,   -0x1.7ca88dec2179fp-2,  0x1.01c11a735cd90p-2,
                             -0x1.0011543717910p-3,  0x1.470ba1f67a1a9p-5,   -0x1.05bb2fdf6af31p-8,
                             -0x1.5a5716b1b771fp-9,  0x1.cb3b5c1d1aec7p-11,  0x1.def28f2749997p-13,
                             -0x1.0e4525f30bfc3p-13, -0x1.1eafcc284801bp-15, 0x1.38006c5e8491ep-16,
                             0x1.f74c7792ffaecp-18,  -0x1.2bb032d568ee0p-19, -0x1.aa2d5ed17d342p-20};
  const Part one = all<Part>(1.0);
  const Part a = at_most(magnitude(x), 6.0);
  const Part square = a * a;
  const Part close = a + a * polynomial(kNear, at_most(square, 1.0));
  const Part t = (a - all<Part>(2.5)) / (a + all<Part>(2.5));
  const ExpParts<Part> e = exp_parts<kShort>(-square, Part{});
  const Part tail = (one + e.high) * power_of_two(e.k) * polynomial(kFar, t);
  return unless_nan(x, with_sign(a < one ? close : one - tail, x));
}

// ---- 16 at a time, and one ----

// float16 and bfloat16 are computed as float.
#define NORMKIT_MATH_FUNCTION(name, precise, narrow_enough)                                     \
  NORMKIT_INLINE double name(double x) {                                                        \
    return precise(x);                                                                          \
  }                                                                                             \
  NORMKIT_INLINE float name(float x) {                                                          \
    return static_cast<float>(narrow_enough(static_cast<double>(x)));                           \
  }                                                                                             \
  NORMKIT_INLINE Vec16<double> name(Vec16<double> x) {                                          \
    for (int p = 0; p < Vec16<double>::kParts; ++p) x.part[p] = precise(x.part[p]);             \
    return x;                                                                                   \
  }                                                                                             \
  NORMKIT_INLINE Vec16<float> name(Vec16<float> x) {                                            \
    Vec16<double> wide = widen(x);                                                              \
    for (int p = 0; p < Vec16<double>::kParts; ++p) wide.part[p] = narrow_enough(wide.part[p]); \
    return narrow16(wide);                                                                      \
  }
NORMKIT_MATH_FUNCTION(exp_of, exp_part<false>, exp_part<true>)
NORMKIT_MATH_FUNCTION(log_of, log_part, log_part)
NORMKIT_MATH_FUNCTION(tanh_of, tanh_part<false>, tanh_part<true>)
NORMKIT_MATH_FUNCTION(erf_of, erf_part<false>, erf_part<true>)
#undef NORMKIT_MATH_FUNCTION

NORMKIT_INLINE double pow_of(double x, double y) {
  return pow_part(x, y);
}
NORMKIT_INLINE float pow_of(float x, float y) {
  return static_cast<float>(pow_part(static_cast<double>(x), static_cast<double>(y)));
}
NORMKIT_INLINE Vec16<double> pow_of(Vec16<double> x, Vec16<double> y) {
  for (int p = 0; p < Vec16<double>::kParts; ++p) x.part[p] = pow_part(x.part[p], y.part[p]);
  return x;
}
NORMKIT_INLINE Vec16<float> pow_of(Vec16<float> x, Vec16<float> y) {
  return narrow16(pow_of(widen(x), widen(y)));
}

NORMKIT_END_NAMESPACE

#endif  // NORMKIT_DETAIL_MATH_HPP_
