// Statistics of one block: at most kBlock contiguous elements that share a mean.
//
// 32 lanes, each from +0, products rounded before they are added; then the fold. Two sweeps, the second over
// what the first brought into L1:
//   1. the sum of x, in twice the elements' precision (double for float, pairs for double): the mean costs no
//      digits, however far it lies from zero. Rounded to the elements' type it is the shift k. float16 and
//      bfloat16 as in 2: a chain of so short numbers is exact unless they span 2^10, and then their spread is
//      2^19 times its error.
//   2. the sum of (x - k)^2, in the elements' precision for kChain additions at a time, then added to sums of
//      twice the precision: a longer chain would round the same way again and again where terms are alike.
// So a block costs little more than float work and its variance is off by a few roundings at most.
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

// Steps of 32 elements that a sum of squares takes before it is widened.
constexpr int kChain = 8;

// 32 lanes of sums in twice the precision of C.
template <typename C>
struct LaneSums;

template <>
struct LaneSums<float> {
  Vec16<double> low = Vec16<double>::zero(), high = Vec16<double>::zero();

  NORMKIT_INLINE void add(Vec16<double> a, Vec16<double> b) {
    low = low + a;
    high = high + b;
  }
  NORMKIT_INLINE void add(Vec16<float> a, Vec16<float> b) { add(widen(a), widen(b)); }
  // kByParity: `low` holds the lanes of even index, `high` those of odd index.
  template <bool kByParity = false>
  NORMKIT_INLINE DoublePair total() const {
    return {kByParity ? fold(low) + fold(high) : fold(low, high), 0.0};
  }
};

// A sum and what its roundings left out, by TwoSum. V: a vector of doubles, or one.
template <typename V>
struct CompensatedSum {
  V sum, error;
  NORMKIT_INLINE void add(V b) {
    const V a = sum;
    sum = a + b;
    const V b_part = sum - a;
    error = error + ((a - (sum - b_part)) + (b - b_part));
  }
};

template <>
struct LaneSums<double> {
  using Half = CompensatedSum<Vec16<double>>;
  Half low{Vec16<double>::zero(), Vec16<double>::zero()}, high = low;

  NORMKIT_INLINE void add(Vec16<double> a, Vec16<double> b) {
    low.add(a);
    high.add(b);
  }
  template <bool kByParity = false>
  NORMKIT_INLINE DoublePair total() const {
    const double plain = fold(low.sum, high.sum);
    if (!is_finite(plain)) return {plain, 0.0};  // an infinity has no error term
    alignas(64) double sum[kLanes];
    low.sum.store(sum);
    high.sum.store(sum + kVecLanes);
    double error = fold(low.error, high.error);
    for (int half = kVecLanes; half > 0; half /= 2) {
      for (int j = 0; j < half; ++j) {
        const TwoSum s(sum[j], sum[j + half]);
        sum[j] = s.sum;
        error += s.error;
      }
    }
    const TwoSum s(sum[0], error);
    return {s.sum, s.error};
  }
};

// `..._inline`: for short rows, of which the call is a good part. The others are one copy in the program.
//
// Sum of (x - k)^kPower, in chains of kChain additions; kCentred = false: of x^kPower. `ahead`, here and
// below: fetches what lies so many bytes behind x, in arrays beyond the cache.
template <int kPower, bool kCentred, typename T>
NORMKIT_INLINE double chained_sum_inline(const T* NORMKIT_RESTRICT x, int n, Compute<T> k, int64_t ahead) {
  using Vec = Vec16<Compute<T>>;
  using Pair32 = LanePair<T>;
  const Vec shift = Vec::splat(k);
  LaneSums<Compute<T>> sums;
  int i = 0;
  while (i + kLanes <= n) {
    const int stop = n - i < kChain * kLanes ? n : i + kChain * kLanes;
    Vec low = Vec::zero(), high = low;
    for (; i + kLanes <= stop; i += kLanes) {
      prefetch_lines<kLanes>(x + i, ahead);
      Pair32 a(x + i);
      if constexpr (kCentred) {
        a.first = a.first - shift;
        a.second = a.second - shift;
      }
      low = low + (kPower == 2 ? a.first * a.first : a.first);
      high = high + (kPower == 2 ? a.second * a.second : a.second);
    }
    sums.add(low, high);
  }
  if (i < n) {
    Pair32 a(Padded<T>(x + i, n - i).element);
    if constexpr (kCentred) {
      // Missing lanes become zero after centring: a masked lane must not add k^2.
      constexpr int kStep = Pair32::kByParity ? 2 : 1;
      a.first = keep_below(a.first - shift, 0, n - i, kStep);
      a.second = keep_below(a.second - shift, Pair32::kByParity ? 1 : kVecLanes, n - i, kStep);
    }
    sums.add(kPower == 2 ? a.first * a.first : a.first, kPower == 2 ? a.second * a.second : a.second);
  }
  return sums.template total<Pair32::kByParity>().high;
}

template <int kPower, bool kCentred, typename T>
NORMKIT_NOINLINE double chained_sum(const T* NORMKIT_RESTRICT x, int n, Compute<T> k, int64_t ahead) {
  return chained_sum_inline<kPower, kCentred>(x, n, k, ahead);
}

template <typename T>
NORMKIT_INLINE DoublePair block_sum_inline(const T* NORMKIT_RESTRICT x, int n, int64_t ahead) {
  if constexpr (sizeof(T) < sizeof(Compute<T>)) {
    return {chained_sum_inline<1, false>(x, n, Compute<T>(0), ahead), 0.0};
  } else {
    LaneSums<T> sums;
    int i = 0;
    for (; i + kLanes <= n; i += kLanes) {
      prefetch_lines<kLanes>(x + i, ahead);
      sums.add(widen16(x + i), widen16(x + i + kVecLanes));
    }
    if (i < n) {
      const Tail<T> tail(x + i, n - i);
      sums.add(tail.low, tail.high);
    }
    return sums.total();
  }
}

template <typename T>
NORMKIT_NOINLINE DoublePair block_sum(const T* NORMKIT_RESTRICT x, int n, int64_t ahead = 0) {
  return block_sum_inline(x, n, ahead);
}

// Sum of (x - k)^2; kCentred = false: of x^2.
template <bool kCentred, typename T>
NORMKIT_INLINE double block_squares(const T* x, int n, Compute<T> k, int64_t ahead = 0) {
  return chained_sum<2, kCentred>(x, n, k, ahead);
}

// Whether a float sum of squares kept its digits: no overflow, no underflow that counts.
NORMKIT_INLINE bool squares_in_range(double s2) {
  return s2 >= 0x1p-90 && s2 <= 0x1p120;
}

// The same for n deviations: that of one element from itself is 0.
NORMKIT_INLINE bool deviations_in_range(double s2, int n) {
  return squares_in_range(s2) || (n == 1 && s2 == 0.0);
}

// Sum of (x - k)^kPower, all in double: for float blocks whose squares left their range (a row of zeros is
// one).
template <int kPower, typename T>
NORMKIT_NOINLINE double wide_block_sum(const T* x, int n, double k) {
  using Vec = Vec16<double>;
  const Vec shift = Vec::splat(k);
  Vec low = Vec::zero(), high = low;
  for (int i = 0; i < n; i += kLanes) {
    Vec a, b;
    if (i + kLanes <= n) {
      a = widen16(x + i) - shift;
      b = widen16(x + i + kVecLanes) - shift;
    } else {
      const Tail<T> tail(x + i, n - i);
      a = keep_below(widen(tail.low) - shift, 0, n - i);
      b = keep_below(widen(tail.high) - shift, kVecLanes, n - i);
    }
    low = low + (kPower == 2 ? a * a : a);
    high = high + (kPower == 2 ? b * b : b);
  }
  return fold(low, high);
}

// sum / n as a pair; n is at most kBlock, so that its products with the halves of the quotient are exact.
NORMKIT_INLINE DoublePair mean_of(DoublePair sum, int n) {
  const double count = static_cast<double>(n);
  const double high = sum.high / count;
  const double scaled = high * 134217729.0;  // 2^27 + 1: Veltkamp's splitting
  const double upper = scaled - (scaled - high), lower = high - upper;
  const double low = (((sum.high - upper * count) - lower * count) + sum.low) / count;
  const TwoSum pair(high, low);
  return {pair.sum, pair.error};
}

// Moments about the shift k, of which `mean` is the exact mean's pair.
template <typename C>
NORMKIT_INLINE Moments<C> moments_about(int n, DoublePair mean, double k, double squares) {
  const double missed = (mean.high - k) + mean.low;
  return {static_cast<double>(n), mean.high, mean.low, squares - static_cast<double>(n) * missed * missed};
}

// A block by what its sweeps return: in memory, or (cuda/) spread over a warp; or several, which agree on
// all() that concerns them.
template <typename T>
struct MemoryBlock {
  using C = Compute<T>;
  const T* x;
  int n;
  int64_t ahead;

  template <bool kCentred>
  NORMKIT_INLINE double squares(C k) const {
    return block_squares<kCentred>(x, n, k, ahead);
  }
  template <int kPower>
  NORMKIT_INLINE double wide_sum(double k) const {
    return wide_block_sum<kPower>(x, n, k);
  }
  NORMKIT_INLINE bool all(bool of_block) const { return of_block; }
};

// `sum` is the block's, as block_sum takes it.
template <typename Block>
NORMKIT_INLINE Moments<typename Block::C> moments_of(const Block& block, DoublePair sum) {
  using C = typename Block::C;
  const double n = static_cast<double>(block.n);
  if constexpr (sizeof(C) == sizeof(float)) {
    const double mean = sum.high / n;
    const C k = static_cast<C>(mean);
    const double squares = block.template squares<true>(k);
    const bool in_range = deviations_in_range(squares, block.n);
    if (!NORMKIT_LIKELY(block.all(in_range))) {
      const double wide_mean = block.template wide_sum<1>(0.0) / n;  // a chain can overflow
      const double wide_squares = block.template wide_sum<2>(wide_mean);
      if (!in_range) return {n, wide_mean, 0.0, wide_squares};
    }
    return moments_about<C>(block.n, {mean, 0.0}, static_cast<double>(k), squares);
  } else {
    const DoublePair mean = mean_of(sum, block.n);
    return moments_about<C>(block.n, mean, mean.high, block.template squares<true>(mean.high));
  }
}

template <typename Block>
NORMKIT_INLINE double sum_of_squares_of(const Block& block) {
  using C = typename Block::C;
  const double squares = block.template squares<false>(C(0));
  if constexpr (sizeof(C) == sizeof(float)) {
    const bool in_range = squares_in_range(squares);
    if (!NORMKIT_LIKELY(block.all(in_range))) {
      const double wide_squares = block.template wide_sum<2>(0.0);
      if (!in_range) return wide_squares;
    }
  }
  return squares;
}

// `sum` is block_sum(x, n), taken apart so that the sums of other blocks can cover the latency of the
// division.
template <typename T>
NORMKIT_INLINE Moments<Compute<T>> block_moments(const T* x, int n, DoublePair sum, int64_t ahead = 0) {
  return moments_of(MemoryBlock<T>{x, n, ahead}, sum);
}

template <typename T>
NORMKIT_INLINE double block_sum_of_squares(const T* x, int n, int64_t ahead = 0) {
  return sum_of_squares_of(MemoryBlock<T>{x, n, ahead});
}

NORMKIT_END_NAMESPACE

#endif  // NORMKIT_DETAIL_REDUCE_HPP_
