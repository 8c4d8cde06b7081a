// Forward over short rows: of one block, contiguous, with the same weight and bias. Same bits as rows.hpp.
//
// What a row costs besides its sweeps (two divisions, a square root, a reciprocal, the roundings) is done for
// all rows of a tile at once, a row in each lane. A tile with a row that needs more care than float goes
// back.
#ifndef NORMKIT_DETAIL_SHORT_ROWS_HPP_
#define NORMKIT_DETAIL_SHORT_ROWS_HPP_

#include "normkit/detail/rows.hpp"

NORMKIT_BEGIN_NAMESPACE

// Rows of a tile of short rows: the lanes of a vector.
constexpr int kShortTileRows = kVecLanes;

inline bool suits_short_rows(const RowsProblem& p) {
  return p.x.dtype != DType::kF64 && p.n <= kBlock && p.run == p.n && !p.given && !p.flat_is_zero &&
         (p.statistic == Statistic::kMoments || p.statistic == Statistic::kMeanSquare) &&
         p.x.inner.contiguous() && p.weight.outer.count == 0;
}
inline bool suits_short_rows(const RowsForward& p) {
  return suits_short_rows(static_cast<const RowsProblem&>(p)) && p.y && p.y.inner.contiguous() &&
         p.bias.outer.count == 0 && p.moments == nullptr && !(p.stream && p.activation != Activation::kNone);
}

// mean and rstd of up to 16 rows; false where one is beyond float's range. `sums`: block_sum of each, or
// null.
template <typename T>
NORMKIT_INLINE bool short_statistics(const RowsProblem& p, const T* const* x, int count, const double* sums,
                                     double* mean, double* rstd) {
  const int n = static_cast<int>(p.n);
  const Vec16<double> size = Vec16<double>::splat(static_cast<double>(n));
  alignas(64) double squares[kShortTileRows] = {};
  Vec16<double> m2;
  if (p.centred()) {
    for (int r = 0; r < count; ++r)
      mean[r] = sums != nullptr ? sums[r] : block_sum_inline(x[r], n, p.ahead).high;
    const Vec16<double> means = Vec16<double>::load(mean) / size;
    const Vec16<float> shift = narrow16(means);
    alignas(64) float k[kShortTileRows];
    shift.store(k);
    means.store(mean);
    for (int r = 0; r < count; ++r) squares[r] = chained_sum_inline<2, true>(x[r], n, k[r], p.ahead);
    const Vec16<double> missed = means - widen(shift);
    m2 = Vec16<double>::load(squares) - size * missed * missed;
  } else {
    for (int r = 0; r < count; ++r) squares[r] = chained_sum_inline<2, false>(x[r], n, 0.0f, p.ahead);
    m2 = Vec16<double>::load(squares);
  }
  const Vec16<double> zero = Vec16<double>::zero(), var = m2 / size;
  const Vec16<double> spread = square_root(at_least(var, zero) + Vec16<double>::splat(p.eps));
  (Vec16<double>::splat(1.0) / spread).store(rstd);
  bool in_range = true;
  for (int r = 0; r < count; ++r) {
    const bool kept = p.centred() ? deviations_in_range(squares[r], n) : squares_in_range(squares[r]);
    in_range = in_range && kept && in_float_range(mean[r], rstd[r]);
  }
  return in_range;
}

// RowScale of each row: row_from for all of them.
struct ShortScales {
  alignas(64) float hi[kShortTileRows], lo[kShortTileRows], rstd[kShortTileRows];

  NORMKIT_INLINE ShortScales(const double* mean, const double* rstd_) {
    const Vec16<double> means = Vec16<double>::load(mean);
    const Vec16<float> high = narrow16(means);
    high.store(hi);
    narrow16(means - widen(high)).store(lo);
    narrow16(Vec16<double>::load(rstd_)).store(rstd);
  }
  NORMKIT_INLINE RowScale<float> row(int r) const { return {hi[r], lo[r], rstd[r]}; }
};

// Rows first .. first+count-1; false, with nothing done, where they need forward_rows.
template <typename T>
NORMKIT_NOINLINE bool forward_short_rows(const RowsForward& p, int64_t first, int count, const double* sums,
                                         Parameter<float> weight, Parameter<float> bias) {
  const T* x[kShortTileRows];
  for (int r = 0; r < count; ++r) x[r] = p.x.template row<const T>(first + r);
  alignas(64) double mean[kShortTileRows] = {}, rstd[kShortTileRows];
  if (!NORMKIT_LIKELY(short_statistics(p, x, count, sums, mean, rstd))) return false;
  const ShortScales scales(mean, rstd);
  for (int r = 0; r < count; ++r) {
    if (p.mean) write_number(p.mean, p.mean.outer.offset(first + r), mean[r]);
    if (p.rstd) write_number(p.rstd, p.rstd.outer.offset(first + r), rstd[r]);
    T* y = p.y.template row<T>(first + r);
    const int n = static_cast<int>(p.n);
    if (p.stream)
      scale_block(scales.row(r), x[r], y, n, true, weight, bias, p.ahead);
    else
      apply_inline<false>(x[r], y, n, scales.row(r), weight, bias, 0);
    activate_block(p.activation, y, n);
  }
  return true;
}

struct NothingBefore {
  NORMKIT_INLINE const double* operator()(int64_t, int) const { return nullptr; }
};

// `before` is called with the first row and the number of rows of each tile; it may return the sum of each.
template <typename T, typename Before = NothingBefore>
NORMKIT_NOINLINE void forward_tiles(const RowsForward& p, int64_t begin, int64_t end, Before before = {}) {
  using C = Compute<T>;
  alignas(64) T x_buffer[kBlock];
  alignas(64) T y_buffer[kBlock];
  ParameterReader<C> weight(p.weight, p.weight_offset, static_cast<C>(kMissingWeight));
  ParameterReader<C> bias(p.bias, 0.0, static_cast<C>(kMissingBias));
  const bool short_rows = suits_short_rows(p);
  for (int64_t tile = begin; tile < end; ++tile) {
    const int64_t first = tile * p.tile_rows;
    const int count = static_cast<int>(p.rows - first < p.tile_rows ? p.rows - first : p.tile_rows);
    const double* sums = before(first, count);
    if constexpr (sizeof(C) == sizeof(float)) {
      const int n = static_cast<int>(p.n);
      if (short_rows &&
          forward_short_rows<T>(p, first, count, sums, weight.block(0, 0, n), bias.block(0, 0, n)))
        continue;
    }
    for (int r = 0; r < count; r += kMaxTileRows) {
      const int left = count - r;
      forward_rows<T>(p, first + r, left < kMaxTileRows ? left : kMaxTileRows, weight, bias, x_buffer,
                      y_buffer);
    }
  }
  if (p.stream) finish_streaming();
}

template <typename T>
void forward_phase(const void* state, int64_t begin, int64_t end) {
  const FloatEnvironment environment;
  forward_tiles<T>(*static_cast<const RowsForward*>(state), begin, end);
}

NORMKIT_END_NAMESPACE

#endif  // NORMKIT_DETAIL_SHORT_ROWS_HPP_
