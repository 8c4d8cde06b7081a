// Activations: a step on elements of y that were just written and still lie in the first-level cache.
//
// Defined on the norm's result as returned, rounded to its element type, and rounded to that type again: so a
// norm with an activation equals the norm, then the activation, bit for bit. With the exponential of math.hpp
// and double arithmetic for narrower types: float within 0.501 ULP, double within 5. But silu of narrower
// types is float arithmetic, within 2 ULP of float: it stands behind every norm of some networks, and costs a
// third. 16-bit types come by way of float: two roundings, which next to a tie may miss the nearest value.
//
//   relu(x) = max(x, 0), relu(-0) = -0       gelu(x)      = x Phi(x), Phi(x) = erfc(-x / sqrt(2)) / 2
//   silu(x) = x / (1 + e^-x)                 gelu_tanh(x) = x / (1 + e^-2u), u = sqrt(2/pi)(x + 0.044715 x^3)
//
// The last is x (1 + tanh u) / 2. At -infinity relu is +0, the others are -0, their limit; NaN only where x
// is NaN.
#ifndef NORMKIT_DETAIL_ACTIVATION_HPP_
#define NORMKIT_DETAIL_ACTIVATION_HPP_

#include "normkit/detail/config.hpp"
#include "normkit/detail/convert.hpp"
#include "normkit/detail/math.hpp"
#include "normkit/types.hpp"

NORMKIT_BEGIN_NAMESPACE

// v 2^k, rounded once, for a normal v that neither half of k takes out of range. kShort: v around 1, k >
// -1022.
template <bool kShort, typename Part>
NORMKIT_INLINE Part times_power(Part v, Part k) {
  if constexpr (kShort) return v * power_of_two(k);
  return scaled_by_power(v, k);
}

// x / (1 + e^-v), v = high + low of x's sign. Where v is negative, x e^v / (1 + e^v) keeps its digits.
template <bool kShort, typename Part>
NORMKIT_INLINE Part times_sigmoid(Part x, Part high, Part low) {
  const Part one = all<Part>(1.0);
  const auto negative = high < Part{};
  const ExpParts<Part> e = exp_parts<kShort>(negative ? high : -high, negative ? low : -low);
  const Part grown = one + (e.high + e.low);
  const Part quotient = (negative ? x * grown : x) / (one + times_power<kShort>(grown, e.k));
  return times_power<kShort>(quotient, negative ? e.k : Part{});
}

template <bool kShort, typename Part>
NORMKIT_INLINE Part silu_part(Part x) {
  // e^-200 is nothing beside a float, e^-800 beside a double.
  const Part kept = at_least(x, kShort ? -200.0 : -800.0);
  return times_sigmoid<kShort>(kept, at_most(kept, kShort ? 200.0 : 800.0), Part{});
}

// sum of c[i] x^i in one chain: slower than polynomial(), and more exact where terms cancel.
template <size_t kTerms, typename Part>
NORMKIT_INLINE Part chain(const double (&c)[kTerms], Part x) {
  Part sum = all<Part>(c[kTerms - 1]);
  NORMKIT_UNROLL for (int i = int(kTerms) - 2; i >= 0; --i) sum = sum * x + all<Part>(c[i]);
  return sum;
}

// In float: x / (1 + 2^k (1 + p)), where (1 + 2^k) + 2^k p takes two roundings at most. `kept_k` keeps 2^k in
// range for x < -69, where the one beside it counts for nothing; what is left of it comes last.
template <typename Part>
NORMKIT_INLINE Part float_silu_part(Part x) {
  constexpr double kTerms[] = {0x1p-1, 0x1.55549p-3, 0x1.555486p-5, 0x1.123afap-7, 0x1.6d9292p-10};
  constexpr double kLogHigh = 0x1.62ep-1, kLogLow = 0x1.0bfbe8p-15;  // of 2; k kLogHigh is exact
  const Part one = all<Part>(1.0);
  const Part kept = x < all<Part>(-110.0) ? all<Part>(-110.0) : x;  // NaN stays
  const Part v = -at_most(kept, 80.0);
  const Part k = to_integer(v * all<Part>(0x1.715476p0));
  const Part r = (v - k * all<Part>(kLogHigh)) - k * all<Part>(kLogLow);
  const Part p = r + r * r * chain(kTerms, r);
  const Part kept_k = at_most(k, 100.0), power = power_of_two(kept_k);
  const PartPair<Part> sum = {power + one, one - ((power + one) - power)};  // exact at every k
  return kept / (sum.high + (power * p + sum.low)) * power_of_two(kept_k - k);
}

template <bool kShort, typename Part>
NORMKIT_INLINE Part gelu_tanh_part(Part x) {
  // 2 sqrt(2/pi), and that times 0.044715, as pairs.
  constexpr double kLinear = 0x1.9884533d43651p+0, kLinearLow = -0x1.cbc0d30ebfd15p-54;
  constexpr double kCubic = 0x1.2444f2a4d8b4bp-4, kCubicLow = -0x1.6c843a29d1c70p-61;
  constexpr double kLimit = kShort ? 12.0 : 22.0;  // e^-142, e^-795
  const Part kept = at_least(x, -kLimit), v = at_most(kept, kLimit);
  if constexpr (kShort) {
    return times_sigmoid<true>(kept, v * (all<Part>(kLinear) + all<Part>(kCubic) * (v * v)), Part{});
  } else {
    const PartPair<Part> square = exact_product(v, v), cubic = exact_product(all<Part>(kCubic), square.high);
    const PartPair<Part> sum = exact_sum(all<Part>(kLinear), cubic.high);
    const Part low =
        sum.low + (all<Part>(kLinearLow) +
                   (cubic.low + (all<Part>(kCubic) * square.low + all<Part>(kCubicLow) * square.high)));
    const PartPair<Part> u = exact_product(v, sum.high);
    return times_sigmoid<false>(kept, u.high, u.low + v * low);
  }
}

// Phi(-a) = e^(-a^2 / 2) P(t) / (a + 5), t = (a - 5) / (a + 5), for a = |x|; P is a fit for a up to 15, 39.
// In double Phi(x) = 1/2 + x N(x^2) below 1/2.
template <bool kShort, typename Part>
NORMKIT_INLINE Part gelu_part(Part x) {
  constexpr double kFew[] = {0x1.89d3abe1f9692p-1,  -0x1.54ad03f264808p-1,  0x1.fb316537c854ep-2,
                             -0x1.410ed604b171ep-2, 0x1.51f632e60b811p-3,   -0x1.1b1c216ad784dp-4,
                             0x1.54b4b4077736ap-6,  -0x1.885deb63de3a0p-9,  -0x1.a2391e91522bbp-11,
                             0x1.1e1b7e600ebebp-11, -0x1.f412c0b38df1ep-15, -0x1.b5370de61e386p-15,
                             0x1.072e00d9161bdp-16, 0x1.bf562e89ed1b3p-18};
  constexpr double kPrecise[] = {
      0x1.89d3abe1f95aep-1,   -0x1.54ad03f27ca18p-1, 0x1.fb31653876f88p-2,   -0x1.410ed5f875951p-2,
      0x1.51f6329f01c14p-3,   -0x1.1b1c254ca3cfbp-4, 0x1.54b4d4f485917p-6,   -0x1.88590e98b86c4p-9,
      -0x1.a25037709917fp-11, 0x1.1daf1aefb143cp-11, -0x1.f214964402c05p-15, -0x1.a17019ab0560dp-15,
      0x1.17df303be3db5p-16,  0x1.0b15ba96cf05bp-18, -0x1.73e2fe53a223bp-19, -0x1.676fde1639a77p-22,
      0x1.d48a16d350a97p-22,  0x1.5bb2d91655ceep-25, -0x1.2d64fbccec4e3p-24, -0x1.30fa17f73f0edp-27,
      0x1.71aa46057bf7ap-27,  0x1.4c52fe9f5800cp-29, -0x1.2eabcbe0ea437p-30, -0x1.de076b25a9b3fp-32,
      -0x1.a50f96333ac8ep-36};
  constexpr double kNear[] = {0x1.9884533d43651p-2,   -0x1.1058377e2cee0p-4,  0x1.46d042976915dp-7,
                              -0x1.37403f6b970f9p-10, 0x1.e42b0d45374a9p-14,  -0x1.3ce8f61933f2dp-17,
                              0x1.6588264d2769dp-21,  -0x1.61a46a1878897p-25, 0x1.27818543157fdp-29};
  constexpr double kLimit = kShort ? 20.0 : 40.0;
  const Part one = all<Part>(1.0), five = all<Part>(5.0);
  const Part kept = at_least(x, -kLimit), a = at_most(magnitude(kept), kLimit);
  const Part inverse = one / (a + five), t = (a - five) * inverse;
  ExpParts<Part> e;
  Part fit;
  if constexpr (kShort) {
    e = exp_parts<true>(a * a * all<Part>(-0.5), Part{});
    fit = polynomial(kFew, t);
  } else {
    const PartPair<Part> square = exact_product(a, a);
    e = exp_parts<false>(square.high * all<Part>(-0.5), square.low * all<Part>(-0.5));
    fit = chain(kPrecise, a < five ? (a + a) * inverse - one : t);  // the same, with the smaller error
  }
  const Part tail = (one + (e.high + e.low)) * (inverse * fit);
  const auto negative = x < Part{};
  const Part scaled = times_power<kShort>(negative ? kept * tail : tail, e.k);
  const Part result = negative ? scaled : x * (one - scaled);
  if constexpr (kShort) return result;
  const Part half = all<Part>(0.5), close = half + x * polynomial(kNear, a * a);
  return a < half ? x * close : result;
}

template <Activation kKind, bool kShort, typename Part>
NORMKIT_INLINE Part activated_part(Part x) {
  const Part y = kKind == Activation::kSilu   ? silu_part<kShort>(x)
                 : kKind == Activation::kGelu ? gelu_part<kShort>(x)
                                              : gelu_tanh_part<kShort>(x);
  return unless_nan(x, y);
}

template <Activation kKind>
NORMKIT_INLINE Vec16<double> activated(Vec16<double> x) {
  for (int p = 0; p < Vec16<double>::kParts; ++p) x.part[p] = activated_part<kKind, false>(x.part[p]);
  return x;
}
template <Activation kKind>
NORMKIT_INLINE Vec16<float> activated(Vec16<float> x) {
  if constexpr (kKind == Activation::kSilu) {
    for (int p = 0; p < Vec16<float>::kParts; ++p) x.part[p] = float_silu_part(x.part[p]);
    return x;
  }
  Vec16<double> wide = widen(x);
  for (int p = 0; p < Vec16<double>::kParts; ++p) wide.part[p] = activated_part<kKind, true>(wide.part[p]);
  return narrow16(wide);
}
// One element.
template <Activation kKind>
NORMKIT_INLINE double activated(double x) {
  return activated_part<kKind, false>(x);
}
template <Activation kKind>
NORMKIT_INLINE float activated(float x) {
  if constexpr (kKind == Activation::kSilu) return float_silu_part(x);
  return static_cast<float>(activated_part<kKind, true>(static_cast<double>(x)));
}
template <typename C>
NORMKIT_INLINE C activated(Activation activation, C x) {
  switch (activation) {
    case Activation::kNone:
      break;
    case Activation::kRelu:
      return x < C(0) ? C(0) : x;
    case Activation::kSilu:
      return activated<Activation::kSilu>(x);
    case Activation::kGelu:
      return activated<Activation::kGelu>(x);
    case Activation::kGeluTanh:
      return activated<Activation::kGeluTanh>(x);
  }
  return x;
}

template <typename C>
NORMKIT_INLINE Vec16<C> relu(Vec16<C> x) {
  const Vec16<C> zero = Vec16<C>::zero();
  for (int p = 0; p < Vec16<C>::kParts; ++p) x.part[p] = x.part[p] < zero.part[p] ? zero.part[p] : x.part[p];
  return x;
}
template <Activation kKind, typename C>
NORMKIT_INLINE Vec16<C> activated_vector(Vec16<C> x) {
  if constexpr (kKind == Activation::kRelu)
    return canonical(relu(x));
  else
    return canonical(activated<kKind>(x));
}

// `count` runs of n elements, `stride` elements apart.
template <Activation kKind, typename T>
NORMKIT_NOINLINE void activate_runs_with(T* y, int64_t stride, int count, int n) {
  for (int r = 0; r < count; ++r, y += stride) {
    int i = 0;
    for (; i + kVecLanes <= n; i += kVecLanes) store16(y + i, activated_vector<kKind>(load16(y + i)));
    if (i < n) store_up_to16(y + i, n - i, activated_vector<kKind>(load_up_to16(y + i, n - i)));
  }
}

template <typename T>
NORMKIT_NOINLINE void activate_runs(Activation activation, T* y, int64_t stride, int count, int n) {
  switch (activation) {
    case Activation::kNone:
      return;
    case Activation::kRelu:
      return activate_runs_with<Activation::kRelu>(y, stride, count, n);
    case Activation::kSilu:
      return activate_runs_with<Activation::kSilu>(y, stride, count, n);
    case Activation::kGelu:
      return activate_runs_with<Activation::kGelu>(y, stride, count, n);
    case Activation::kGeluTanh:
      return activate_runs_with<Activation::kGeluTanh>(y, stride, count, n);
  }
}

// n neighbours.
template <typename T>
NORMKIT_INLINE void activate_block(Activation activation, T* y, int n) {
  if (NORMKIT_LIKELY(activation == Activation::kNone)) return;
  activate_runs(activation, y, 0, 1, n);
}

NORMKIT_END_NAMESPACE

#endif  // NORMKIT_DETAIL_ACTIVATION_HPP_
