// The two elementwise kernels: y from x and the statistics, dx from dy, x, the statistics and the two means
// of g.
//
// Evaluated left to right, as written, never as x a + b: ((x - hi) - lo) keeps the digits that a large mean
// would cost. A missing weight is ones and a missing bias is -0, which change no bit; RMSNorm has hi = lo =
// 0, likewise. So one kernel serves them all.
#ifndef NORMKIT_DETAIL_APPLY_HPP_
#define NORMKIT_DETAIL_APPLY_HPP_

#include "normkit/detail/config.hpp"
#include "normkit/detail/convert.hpp"
#include "normkit/detail/simd.hpp"

NORMKIT_BEGIN_NAMESPACE

// A row's statistics as they are applied: mean = hi + lo, rstd rounded once.
template <typename C>
struct RowScale {
  C hi, lo, rstd;
};

// A parameter over one block: element i is data[i * step]; step 0 repeats data[0..15].
template <typename C>
struct Parameter {
  const C* data;
  int step;
  NORMKIT_INLINE Vec16<C> at(int i) const { return Vec16<C>::load(data + i * step); }
  NORMKIT_INLINE Parameter from(int i) const { return {data + i * step, step}; }
};

// The last `count` < 32 elements of a block, from i on.
template <typename C>
struct ParameterTail {
  Vec16<C> low, high;
  NORMKIT_INLINE ParameterTail(Parameter<C> parameter, int i, int count) {
    if (parameter.step == 0) {
      low = high = parameter.at(0);
    } else {
      const Tail<C> tail(parameter.data + i, count);
      low = tail.low;
      high = tail.high;
    }
  }
};

// V, here and below: a vector of elements, or one.
template <typename V>
NORMKIT_INLINE V normalized(V x, const V& hi, const V& lo, const V& rstd) {
  return ((x - hi) - lo) * rstd;
}

// How many bytes ahead of a sweep over dy and x to fetch, in arrays beyond the cache.
struct FetchAhead {
  int64_t dy = 0, x = 0;
};

// Elements of a block before the first whole 64-byte line of `to`, at most n.
template <typename T>
NORMKIT_INLINE int before_line(const T* to, int n) {
  const int skip = static_cast<int>((64 - reinterpret_cast<uintptr_t>(to) % 64) % 64 / sizeof(T));
  return skip < n ? skip : n;
}

// Two neighbouring vectors, past the cache or not.
template <bool kStream, typename T>
NORMKIT_INLINE void store_pair(T* to, Vec16<Compute<T>> low, Vec16<Compute<T>> high) {
  if constexpr (kStream) {
    alignas(64) T finished[kLanes];
    store32(finished, canonical(low), canonical(high));
    for (int j = 0; j < kLanes; j += 64 / static_cast<int>(sizeof(T))) stream_64_bytes(to + j, finished + j);
  } else {
    store32(to, canonical(low), canonical(high));
  }
}

// y = ((x - hi) - lo) rstd weight + bias for one block; y may be x. kStream, for arrays beyond the cache,
// writes past it and fetches what lies `ahead` bytes behind x; y + i is then 64-byte aligned for i a multiple
// of 64 / sizeof(T).
template <bool kStream, typename T>
NORMKIT_INLINE void apply_inline(const T* x, T* y, int n, const RowScale<Compute<T>>& row,
                                 Parameter<Compute<T>> weight, Parameter<Compute<T>> bias, int64_t ahead) {
  using Vec = Vec16<Compute<T>>;
  const Vec hi = Vec::splat(row.hi), lo = Vec::splat(row.lo), rstd = Vec::splat(row.rstd);
  int i = 0;
  for (; i + kLanes <= n; i += kLanes) {
    const Load32<T> v(x + i);
    const Vec a = normalized(v.low, hi, lo, rstd) * weight.at(i) + bias.at(i);
    const Vec b = normalized(v.high, hi, lo, rstd) * weight.at(i + kVecLanes) + bias.at(i + kVecLanes);
    if constexpr (kStream) prefetch_lines<kLanes>(x + i, ahead);
    store_pair<kStream>(y + i, a, b);
  }
  if (i < n) {
    const Tail<T> tail(x + i, n - i);
    const ParameterTail<Compute<T>> w(weight, i, n - i), b(bias, i, n - i);
    store_tail(y + i, n - i, canonical(normalized(tail.low, hi, lo, rstd) * w.low + b.low),
               canonical(normalized(tail.high, hi, lo, rstd) * w.high + b.high));
  }
}

template <bool kStream, typename T>
NORMKIT_NOINLINE void apply_block(const T* x, T* y, int n, const RowScale<Compute<T>>& row,
                                  Parameter<Compute<T>> weight, Parameter<Compute<T>> bias,
                                  int64_t ahead = 0) {
  apply_inline<kStream>(x, y, n, row, weight, bias, ahead);
}

template <typename V>
NORMKIT_INLINE V gradient(V dy, V xhat, V weight, const V& mean_g, const V& mean_gxhat, const V& rstd) {
  return ((dy * weight - mean_g) - xhat * mean_gxhat) * rstd;
}

// dx = ((g - a) - xhat b) rstd, g = dy weight, for one block; dx may be dy or x. D: T or its computing type.
// kStream: as apply_block.
template <bool kStream, typename T, typename D>
NORMKIT_NOINLINE void apply_grad_block(const T* dy, const T* x, D* dx, int n, const RowScale<Compute<T>>& row,
                                       Compute<T> mean_g, Compute<T> mean_gxhat, Parameter<Compute<T>> weight,
                                       FetchAhead ahead) {
  using Vec = Vec16<Compute<T>>;
  const Vec hi = Vec::splat(row.hi), lo = Vec::splat(row.lo), rstd = Vec::splat(row.rstd);
  const Vec a = Vec::splat(mean_g), b = Vec::splat(mean_gxhat);
  int i = 0;
  for (; i + kLanes <= n; i += kLanes) {
    const int j = i + kVecLanes;
    const Load32<T> g(dy + i), v(x + i);
    const Vec low = gradient(g.low, normalized(v.low, hi, lo, rstd), weight.at(i), a, b, rstd);
    const Vec high = gradient(g.high, normalized(v.high, hi, lo, rstd), weight.at(j), a, b, rstd);
    if constexpr (kStream) {
      prefetch_lines<kLanes>(dy + i, ahead.dy);
      prefetch_lines<kLanes>(x + i, ahead.x);
    }
    store_pair<kStream>(dx + i, low, high);
  }
  if (i < n) {
    const Tail<T> x_tail(x + i, n - i), dy_tail(dy + i, n - i);
    const ParameterTail<Compute<T>> w(weight, i, n - i);
    const Vec low = gradient(dy_tail.low, normalized(x_tail.low, hi, lo, rstd), w.low, a, b, rstd);
    const Vec high = gradient(dy_tail.high, normalized(x_tail.high, hi, lo, rstd), w.high, a, b, rstd);
    store_tail(dx + i, n - i, canonical(low), canonical(high));
  }
}

// The same in double, one element at a time, rounded once: for a row whose statistics left float's range.
// `scale` is a power of two that x is multiplied by (1 unless x is double).
template <typename C>
struct WideRow {
  double mean, mean_low, rstd, scale;
};

template <typename C>
NORMKIT_INLINE double wide_normalized(double x, const WideRow<C>& row) {
  return ((x * row.scale - row.mean) - row.mean_low) * row.rstd;
}

template <typename T>
NORMKIT_NOINLINE void wide_apply_block(const T* x, T* y, int n, const WideRow<Compute<T>>& row,
                                       Parameter<Compute<T>> weight, Parameter<Compute<T>> bias) {
  for (int i = 0; i < n; ++i) {
    const int at = i % kVecLanes;
    const double w = static_cast<double>(weight.data[weight.step ? i : at]);
    const double b = static_cast<double>(bias.data[bias.step ? i : at]);
    write(y + i, wide_normalized(read<double>(x + i), row) * w + b);
  }
}

template <typename T, typename D>
NORMKIT_NOINLINE void wide_apply_grad_block(const T* dy, const T* x, D* dx, int n,
                                            const WideRow<Compute<T>>& row, double mean_g, double mean_gxhat,
                                            Parameter<Compute<T>> weight) {
  for (int i = 0; i < n; ++i) {
    const double xhat = wide_normalized(read<double>(x + i), row);
    const double w = static_cast<double>(weight.data[weight.step ? i : i % kVecLanes]);
    write(dx + i, gradient(read<double>(dy + i), xhat, w, mean_g, mean_gxhat, row.rstd) * row.scale);
  }
}

NORMKIT_END_NAMESPACE

#endif  // NORMKIT_DETAIL_APPLY_HPP_
