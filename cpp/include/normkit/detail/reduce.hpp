// Statistics of one block: at most kBlock contiguous elements that share a mean.
//
// 32 lanes, each from +0, products rounded before they are added; then the fold. The first sweep finds the block's
// mean as a shift k, the second sums x - k and (x - k)^2; corrected by what k missed, a block costs float work and
// carries a double-grade mean. The block lies in L1 for the second sweep.
#ifndef NORMKIT_DETAIL_REDUCE_HPP_
#define NORMKIT_DETAIL_REDUCE_HPP_

#include "normkit/detail/config.hpp"
#include "normkit/detail/convert.hpp"
#include "normkit/detail/merge.hpp"
#include "normkit/detail/simd.hpp"

NORMKIT_BEGIN_NAMESPACE

template <typename C>
struct Pair {
  C first, second;
};

template <typename T>
NORMKIT_NOINLINE Compute<T> block_sum(const T* NORMKIT_RESTRICT x, int n) {
  using Vec = Vec16<Compute<T>>;
  Vec low = Vec::zero(), high = Vec::zero();
  int i = 0;
  for (; i + kLanes <= n; i += kLanes) {
    low = low + load16(x + i);
    high = high + load16(x + i + kVecLanes);
  }
  if (i < n) {
    const Tail<T> tail(x + i, n - i);
    low = low + tail.low;
    high = high + tail.high;
  }
  return fold(low, high);
}

// (sum of x - k, sum of (x - k)^2)
template <typename T>
NORMKIT_INLINE Pair<Compute<T>> block_centred_sums(const T* NORMKIT_RESTRICT x, int n, Compute<T> k) {
  using Vec = Vec16<Compute<T>>;
  const Vec shift = Vec::splat(k);
  Vec low1 = Vec::zero(), high1 = low1, low2 = low1, high2 = low1;
  int i = 0;
  for (; i + kLanes <= n; i += kLanes) {
    const Vec low = load16(x + i) - shift;
    const Vec high = load16(x + i + kVecLanes) - shift;
    low1 = low1 + low;
    high1 = high1 + high;
    low2 = low2 + low * low;
    high2 = high2 + high * high;
  }
  if (i < n) {
    const Tail<T> tail(x + i, n - i);
    // Missing lanes become zero after centring: a masked lane must not add k^2.
    const Vec low = keep_below(tail.low - shift, 0, n - i);
    const Vec high = keep_below(tail.high - shift, kVecLanes, n - i);
    low1 = low1 + low;
    high1 = high1 + high;
    low2 = low2 + low * low;
    high2 = high2 + high * high;
  }
  return {fold(low1, high1), fold(low2, high2)};
}

template <typename T>
NORMKIT_INLINE Compute<T> block_sum_of_squares(const T* NORMKIT_RESTRICT x, int n) {
  using Vec = Vec16<Compute<T>>;
  Vec low = Vec::zero(), high = Vec::zero();
  int i = 0;
  for (; i + kLanes <= n; i += kLanes) {
    const Vec a = load16(x + i), b = load16(x + i + kVecLanes);
    low = low + a * a;
    high = high + b * b;
  }
  if (i < n) {
    const Tail<T> tail(x + i, n - i);
    low = low + tail.low * tail.low;
    high = high + tail.high * tail.high;
  }
  return fold(low, high);
}

NORMKIT_INLINE bool is_finite(double v) { return v - v == 0.0; }

// Whether a float sum of squares kept its digits: no overflow, no underflow that counts.
NORMKIT_INLINE bool squares_in_range(float s2) { return s2 >= 0x1p-90f && s2 <= 0x1p120f; }

// The lanes in double: for the block whose float sums left their range (a row of zeros is one), and for double blocks
// whose values are scaled by a power of two. Sum of (x scale - k)^kPower.
template <int kPower, typename T>
NORMKIT_NOINLINE double wide_block_sum(const T* x, int n, double scale, double k) {
  using Vec = Vec16<double>;
  const Vec by = Vec::splat(scale), shift = Vec::splat(k);
  Vec low = Vec::zero(), high = low;
  for (int i = 0; i < n; i += kLanes) {
    Vec a, b;
    if (i + kLanes <= n) {
      a = widen16(x + i) * by - shift;
      b = widen16(x + i + kVecLanes) * by - shift;
    } else {
      const Tail<T> tail(x + i, n - i);
      a = keep_below(widen(tail.low) * by - shift, 0, n - i);
      b = keep_below(widen(tail.high) * by - shift, kVecLanes, n - i);
    }
    low = low + (kPower == 2 ? a * a : a);
    high = high + (kPower == 2 ? b * b : b);
  }
  return fold(low, high);
}

template <typename C>
NORMKIT_INLINE Moments<C> moments_about(double n, double k, double s1, double s2);
template <>
NORMKIT_INLINE Moments<float> moments_about<float>(double n, double k, double s1, double s2) {
  return {n, k + s1 / n, 0.0, s2 - s1 * s1 / n};
}
template <>
NORMKIT_INLINE Moments<double> moments_about<double>(double n, double k, double s1, double s2) {
  const TwoSum mean(k, s1 / n);
  return {n, mean.sum, mean.error, s2 - s1 * s1 / n};
}

template <typename T>
NORMKIT_NOINLINE Moments<Compute<T>> wide_block_moments(const T* x, int n, double scale) {
  const double k = wide_block_sum<1>(x, n, scale, 0.0) / n;
  const double s1 = wide_block_sum<1>(x, n, scale, k);
  const double s2 = wide_block_sum<2>(x, n, scale, k);
  return moments_about<Compute<T>>(n, k, s1, s2);
}

// `sum` is block_sum(x, n), taken apart so that the sums of other blocks can cover the latency of this division.
template <typename T>
NORMKIT_NOINLINE Moments<Compute<T>> block_moments(const T* x, int n, Compute<T> sum) {
  using C = Compute<T>;
  const C k = sum / static_cast<C>(n);
  const Pair<C> s = block_centred_sums(x, n, k);
  if constexpr (sizeof(C) == sizeof(float)) {
    if (!NORMKIT_LIKELY(is_finite(s.first) && squares_in_range(s.second))) return wide_block_moments(x, n, 1.0);
  }
  return moments_about<C>(n, static_cast<double>(k), static_cast<double>(s.first), static_cast<double>(s.second));
}

template <typename T>
NORMKIT_NOINLINE double block_squares(const T* x, int n) {
  const Compute<T> s2 = block_sum_of_squares(x, n);
  if constexpr (sizeof(Compute<T>) == sizeof(float)) {
    if (!NORMKIT_LIKELY(squares_in_range(s2))) return wide_block_sum<2>(x, n, 1.0, 0.0);
  }
  return static_cast<double>(s2);
}

NORMKIT_END_NAMESPACE

#endif  // NORMKIT_DETAIL_REDUCE_HPP_
