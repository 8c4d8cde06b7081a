// The statistics of a set: from its elements, block by block, to the mean and rstd that are applied.
//
// A set is a row of n elements; what its statistics are is data, not a template: the mean and variance of
// most norms, RMSNorm's mean square, the norm of normalize and weight_norm, the range of min_max_scale.
#ifndef NORMKIT_DETAIL_STATISTICS_HPP_
#define NORMKIT_DETAIL_STATISTICS_HPP_

#include "normkit/detail/apply.hpp"
#include "normkit/detail/config.hpp"
#include "normkit/detail/geometry.hpp"
#include "normkit/detail/intrinsics.hpp"
#include "normkit/detail/math.hpp"
#include "normkit/detail/merge.hpp"
#include "normkit/detail/reduce.hpp"

NORMKIT_BEGIN_NAMESPACE

// What is applied as (mean, rstd).
enum class Statistic : int32_t {
  kMoments,     // mean, 1 / sqrt(var + eps)
  kMeanSquare,  // 0, 1 / sqrt(mean of squares + eps)
  kNorm,        // 0, 1 / max(norm of order `power`, eps)
  kRange,       // minimum, 1 / (maximum - minimum)
};

// Before the last rounding. `scale`: the power of two that the statistics' x was multiplied by (double
// elements only).
struct RowStatistics {
  double mean, mean_low;
  double var;  // biased; of kNorm: the norm
  double rstd, scale;
  double count;  // what backward divides its sums by
};

// What forward and backward have in common.
struct RowsProblem {
  int64_t rows = 0, n = 0;
  int64_t run = 0;      // blocks are cut from runs: see Blocks
  int32_t block = 0;    // longest_block(run)
  int64_t segment = 0;  // weight and bias are one number for each `segment` elements; 0: for each element
  // The segments lie side by side (channels-last GroupNorm): statistics are theirs, merged in their order.
  bool channels_last = false;
  double eps = 0.0;
  double weight_offset = 0.0;
  Statistic statistic = Statistic::kMoments;
  double power = 2.0;                    // kNorm
  bool flat_is_zero = false;             // a set without spread becomes 0 instead of NaN
  int64_t ahead = 0;                     // sweeps over x fetch so many bytes ahead of them
  bool given = false;                    // mean and rstd are inputs, not statistics of x
  bool given_variance = false;           // what is called rstd is a variance
  const RowStatistics* ready = nullptr;  // found before, of row r at r & ready_mask
  int64_t ready_mask = -1;
  Operand x, weight, mean, rstd;

  NORMKIT_INLINE bool centred() const { return statistic == Statistic::kMoments; }
};

NORMKIT_INLINE int longest_block(int64_t run) {
  return run <= 0 ? 0 : run >= kBlock ? kBlock : static_cast<int>(kBlock / run * run);
}

// The blocks of a set of n elements: runs longer than a block are cut from their start, shorter ones packed
// whole.
struct Blocks {
  int64_t n, run, begin = 0;
  int longest, length;

  NORMKIT_INLINE Blocks(int64_t n_, int64_t run_, int longest_) : n(n_), run(run_), longest(longest_) {
    measure();
  }
  NORMKIT_INLINE explicit Blocks(const RowsProblem& p) : Blocks(p.n, p.run, p.block) {}

  // For elementwise work, which may be cut anywhere: within segments, so that weight and bias are one number.
  // `whole`: runs or segments longer than a block go through no buffer of kBlock elements, and stay whole.
  static NORMKIT_INLINE Blocks apply(const RowsProblem& p, bool whole) {
    const int64_t run = p.segment != 0 ? p.segment : p.run, longest = int64_t(1) << 30;
    if (whole && run > kBlock) return Blocks(p.n, run, static_cast<int>(run < longest ? run : longest));
    if (p.segment < kLanes) return Blocks(p);
    return Blocks(p.n, p.segment, p.segment < kBlock ? static_cast<int>(p.segment) : kBlock);
  }
  NORMKIT_INLINE bool more() const { return begin < n; }
  NORMKIT_INLINE bool only_one() const { return length == n; }
  // Blocks never lie across multiples of this.
  NORMKIT_INLINE int64_t unit() const { return cuts_runs() ? run : n; }
  // How many there are, and the one behind `index` others.
  NORMKIT_INLINE int64_t count() const {
    return cuts_runs() ? n / run * blocks_of_run() : (n + longest - 1) / longest;
  }
  NORMKIT_INLINE Blocks at(int64_t index) const {
    Blocks b = *this;
    b.begin =
        cuts_runs() ? index / blocks_of_run() * run + index % blocks_of_run() * longest : index * longest;
    b.measure();
    return b;
  }
  NORMKIT_INLINE void next() {
    begin += length;
    measure();
  }

 private:
  NORMKIT_INLINE bool cuts_runs() const { return longest <= run && run < n; }
  NORMKIT_INLINE int64_t blocks_of_run() const { return (run + longest - 1) / longest; }
  NORMKIT_INLINE void measure() {
    const int64_t left = cuts_runs() ? run - begin % run : n - begin;
    length = left < longest ? static_cast<int>(left) : longest;
  }
};

// ---- statistics of a row ----

// From the mean and the sum of squared deviations (or of squares) of x times `scale`.
NORMKIT_INLINE RowStatistics statistics_from(const RowsProblem& p, double mean, double mean_low,
                                             double squares, double scale) {
  const double n = static_cast<double>(p.n);
  const double raw = squares / n, var = raw < 0.0 ? 0.0 : raw;
  // Beside a variance of scaled elements eps counts or vanishes as it should. Without one eps is all there
  // is, and is taken as it is.
  const double undone = var == 0.0 ? scale : 1.0, kept = var == 0.0 ? 1.0 : scale;
  const double spread = square_root(var + p.eps * kept * kept);
  return {
      mean / undone, mean_low / undone, var, p.flat_is_zero && spread == 0.0 ? 0.0 : 1.0 / spread, kept, n};
}

// From the norm of x times `scale`; `zeros`: all of x is 0. Below eps the norm plays no part in y, nor in its
// gradient; the gradient of a zero vector is 0.
NORMKIT_INLINE RowStatistics norm_statistics(const RowsProblem& p, double norm, double scale, bool zeros) {
  const double limit = p.eps * scale;
  const bool limited = norm < limit;
  // A limit beyond the range of that scale is taken as it is.
  const bool apart = limited && !is_finite(limit) && scale != 1.0;
  return {0.0,
          0.0,
          apart ? norm / scale : norm,
          limited && zeros ? 0.0
                           : 1.0 / (apart     ? p.eps
                                    : limited ? limit
                                              : norm),
          apart ? 1.0 : scale,
          limited ? __builtin_inf() : 1.0};
}

constexpr int kMaxTileRows = 8;

// Block by block over the rows of a tile, so that one row's folds and divisions wait behind another's sweeps.
template <typename T>
NORMKIT_NOINLINE void centred_statistics(const RowsProblem& p, const T* const* row, int count, T* buffer,
                                         RowStatistics* statistics) {
  using C = Compute<T>;
  Moments<C> moments[kMaxTileRows] = {};
  MergeTree<Moments<C>> tree[kMaxTileRows];
  const bool one_block = Blocks(p).only_one();
  for (Blocks b(p); b.more(); b.next()) {
    const T* x[kMaxTileRows];
    DoublePair sum[kMaxTileRows];
    for (int r = 0; r < count; ++r) {
      x[r] = block_of(p.x, row[r], b.begin, b.length, buffer);
      sum[r] = block_sum(x[r], b.length, p.ahead);
    }
    for (int r = 0; r < count; ++r) {
      moments[r] = block_moments(x[r], b.length, sum[r], p.ahead);
      if (!one_block) tree[r].push(moments[r]);
    }
  }
  for (int r = 0; r < count; ++r) {
    const Moments<C> m = one_block ? moments[r] : tree[r].finish();
    statistics[r] = statistics_from(p, m.mean, m.mean_low, m.m2, 1.0);
  }
}

NORMKIT_INLINE RowStatistics statistics_of_squares(const RowsProblem& p, double squares, double scale) {
  return p.statistic == Statistic::kNorm ? norm_statistics(p, square_root(squares), scale, squares == 0.0)
                                         : statistics_from(p, 0.0, 0.0, squares, scale);
}

template <typename T>
NORMKIT_NOINLINE void square_statistics(const RowsProblem& p, const T* const* row, int count, T* buffer,
                                        RowStatistics* statistics) {
  double squares[kMaxTileRows];
  for (int r = 0; r < count; ++r) {
    MergeTree<Sums> tree;
    for (Blocks b(p); b.more(); b.next())
      tree.push(
          {block_sum_of_squares(block_of(p.x, row[r], b.begin, b.length, buffer), b.length, p.ahead), 0.0});
    squares[r] = tree.finish().first;
  }
  for (int r = 0; r < count; ++r) statistics[r] = statistics_of_squares(p, squares[r], 1.0);
}

// A set of p.channels_last: the tree of each segment, merged in their order by the same tree.
template <typename T>
NORMKIT_NOINLINE RowStatistics segmented_statistics(const RowsProblem& p, const T* row, T* buffer) {
  using C = Compute<T>;
  MergeTree<Moments<C>> moments;
  MergeTree<Sums> squares;
  for (int64_t first = 0; first < p.n; first += p.segment) {
    MergeTree<Moments<C>> own_moments;
    MergeTree<Sums> own_squares;
    for (Blocks b(p.segment, p.segment, longest_block(p.segment)); b.more(); b.next()) {
      const T* x = block_of(p.x, row, first + b.begin, b.length, buffer);
      if (p.centred())
        own_moments.push(block_moments(x, b.length, block_sum(x, b.length)));
      else
        own_squares.push({block_sum_of_squares(x, b.length), 0.0});
    }
    if (p.centred())
      moments.push(own_moments.finish());
    else
      squares.push(own_squares.finish());
  }
  if (!p.centred()) return statistics_of_squares(p, squares.finish().first, 1.0);
  const Moments<C> m = moments.finish();
  return statistics_from(p, m.mean, m.mean_low, m.m2, 1.0);
}

// Squares of doubles overflow beyond 2^512 and vanish below 2^-537: such rows are taken again, multiplied by
// a power of two. rstd^-2 is the variance plus eps: in this range no square overflowed, and one that vanished
// does not count.
NORMKIT_INLINE bool squares_fit(double rstd) {
  return rstd >= 0x1p-400 && rstd <= 0x1p400;
}
// The power of two, from the largest magnitude; 1: the plain statistics stand. Where eps is larger than the
// squares, it sets the scale; a norm's eps only limits it.
NORMKIT_INLINE double scale_of_squares(const RowsProblem& p, double largest) {
  if (!is_finite(largest) || largest == 0.0 || !is_finite(p.eps)) return 1.0;
  const double root = p.statistic == Statistic::kNorm ? 0.0 : square_root(p.eps);
  return inverse_power_of_two(root > largest ? root : largest);
}

// Everything else returns the statistics unchanged.
inline NORMKIT_NOINLINE RowStatistics rescaled_statistics(const RowsProblem& p, const double* row,
                                                          double* buffer, RowStatistics plain) {
  double largest = 0.0;
  for (Blocks b(p); b.more(); b.next()) {
    const double* x = block_of(p.x, row, b.begin, b.length, buffer);
    for (int j = 0; j < b.length; ++j) {
      const double magnitude = x[j] < 0.0 ? -x[j] : x[j];
      if (!(magnitude <= largest)) largest = magnitude;
    }
  }
  const double scale = scale_of_squares(p, largest);
  if (scale == 1.0) return plain;
  MergeTree<Moments<double>> moments;
  MergeTree<Sums> squares;
  alignas(64) double scaled[kBlock];
  for (Blocks b(p); b.more(); b.next()) {
    const double* x = block_of(p.x, row, b.begin, b.length, buffer);
    for (int j = 0; j < b.length; ++j) scaled[j] = x[j] * scale;
    if (p.centred())
      moments.push(block_moments(scaled, b.length, block_sum(scaled, b.length)));
    else
      squares.push({block_sum_of_squares(scaled, b.length), 0.0});
  }
  if (!p.centred()) return statistics_of_squares(p, squares.finish().first, scale);
  const Moments<double> m = moments.finish();
  return statistics_from(p, m.mean, m.mean_low, m.m2, scale);
}

// A block of elements of any type as a partial result that is kept.
template <typename T>
NORMKIT_INLINE Moments<float> kept_moments(const T* x, int n) {
  return block_moments(x, n, block_sum(x, n));
}
inline NORMKIT_NOINLINE ScaledMoments kept_moments(const double* x, int n) {
  const Moments<double> plain = block_moments(x, n, block_sum(x, n));
  const ScaledMoments unscaled{plain.count, plain.mean, plain.mean_low, plain.m2, 1.0};
  if (NORMKIT_LIKELY(fits_unscaled(plain.m2))) return unscaled;
  double largest = 0.0;
  for (int i = 0; i < n; ++i) {
    const double magnitude = x[i] < 0.0 ? -x[i] : x[i];
    if (!(magnitude <= largest)) largest = magnitude;
  }
  if (!is_finite(largest) || largest == 0.0) return unscaled;
  const double scale = inverse_power_of_two(largest);
  if (scale == 1.0) return unscaled;
  alignas(64) double scaled[kBlock];
  for (int i = 0; i < n; ++i) scaled[i] = x[i] * scale;
  const Moments<double> m = block_moments(scaled, n, block_sum(scaled, n));
  const ScaledMoments of_scaled{m.count, m.mean, m.mean_low, m.m2, scale};
  return m.m2 == 0.0 ? of_scaled.in(1.0) : of_scaled;
}
template <typename T>
using KeptMoments = decltype(kept_moments(static_cast<const T*>(nullptr), 0));

// ---- norms of any order, ranges ----

// |x| to the power p, p neither infinite nor 0.
NORMKIT_INLINE double magnitude_power(double magnitude, double power) {
  return power == 1.0 ? magnitude : power == 2.0 ? magnitude * magnitude : pow_of(magnitude, power);
}

// The power of two that takes a positive double to [1, 2), as far as one can.
NORMKIT_INLINE double inverse_exponent(double v) {
  const double coarse = inverse_power_of_two(v), mantissa = v * coarse;
  uint64_t bits;
  memcpy(&bits, &mantissa, sizeof(bits));
  bits &= 0x7FF0000000000000u;
  double exponent;
  memcpy(&exponent, &bits, sizeof(exponent));
  return coarse > 0x1p900 ? coarse : coarse / exponent;
}

// Least and largest of f(x), NaN if any is, and how often the largest (of -f: the least) was met.
struct Range {
  double least = __builtin_inf(), largest = -__builtin_inf();
  double least_count = 0.0, largest_count = 0.0;
  bool nan = false;

  NORMKIT_INLINE void add(double v) {
    nan = nan || v != v;
    if (v <= least) {
      least_count = v < least ? 1.0 : least_count + 1.0;
      least = v;
    }
    if (v >= largest) {
      largest_count = v > largest ? 1.0 : largest_count + 1.0;
      largest = v;
    }
  }
};

template <typename T>
NORMKIT_NOINLINE Range range_of(const RowsProblem& p, const T* row, T* buffer, bool magnitudes) {
  Range range;
  for (Blocks b(p); b.more(); b.next()) {
    const T* x = block_of(p.x, row, b.begin, b.length, buffer);
    for (int i = 0; i < b.length; ++i) {
      const double v = read<double>(x + i);
      range.add(magnitudes && v < 0.0 ? -v : v);
    }
  }
  return range;
}

// Sum of |scale x|^power; power 0 counts what is not 0. In double lanes, with their rounding errors. `more`:
// another factor of x, for subnormals, whose scale is beyond double's range.
template <typename T>
NORMKIT_NOINLINE double power_sum(const RowsProblem& p, const T* row, T* buffer, double scale,
                                  double more = 1.0) {
  MergeTree<Sums> tree;
  for (Blocks b(p); b.more(); b.next()) {
    const T* x = block_of(p.x, row, b.begin, b.length, buffer);
    LaneSums<double> sums;
    for (int i = 0; i < b.length; i += kLanes) {
      alignas(64) double term[kLanes];
      for (int j = 0; j < kLanes; ++j) {
        const double v = i + j < b.length ? read<double>(x + i + j) * scale * more : 0.0;
        const double magnitude = v < 0.0 ? -v : v;
        term[j] = i + j >= b.length ? 0.0
                  : p.power == 0.0  ? (v != v     ? v
                                       : v != 0.0 ? 1.0
                                                  : 0.0)
                                    : magnitude_power(magnitude, p.power);
      }
      sums.add(Vec16<double>::load(term), Vec16<double>::load(term + kVecLanes));
    }
    const DoublePair total = sums.total();
    tree.push({total.high, total.low});
  }
  const Sums total = tree.finish();
  return total.first + total.second;
}

// Where neither a norm nor its reciprocal comes near the ends of double's range.
NORMKIT_INLINE bool in_middle(double v) {
  return v >= 0x1p-500 && v <= 0x1p500;
}

// kRange, and kNorm of any order but 2.
template <typename T>
NORMKIT_NOINLINE RowStatistics other_statistics(const RowsProblem& p, const T* row, T* buffer) {
  if (p.statistic == Statistic::kRange) {
    const Range range = range_of(p, row, buffer, false);
    const double nan = __builtin_nan("");
    if (range.nan) return {nan, 0.0, nan, nan, 1.0, 1.0};
    // Where the difference of two doubles would overflow, or its reciprocal be subnormal or overflow.
    const double plain = range.largest - range.least;
    const double scale = plain > 0x1p1000 ? 0x1p-600 : plain != 0.0 && plain < 0x1p-1000 ? 0x1p600 : 1.0;
    const double spread = range.largest * scale - range.least * scale;
    return {range.least * scale, 0.0, spread, spread == 0.0 ? 0.0 : 1.0 / spread, scale, 1.0};
  }
  if (p.power == 0.0) {
    RowStatistics s = norm_statistics(p, power_sum(p, row, buffer, 1.0), 1.0, false);
    if (s.var == 0.0) s.rstd = 0.0;
    s.count = __builtin_inf();  // the number of elements that are not 0 has no gradient
    return s;
  }
  if (p.power == 1.0) {
    const double norm = power_sum(p, row, buffer, 1.0);
    if (in_middle(norm)) return norm_statistics(p, norm, 1.0, false);
  }
  const Range range = range_of(p, row, buffer, true);
  const double leading = p.power < 0.0 ? range.least : range.largest;
  if (range.nan || leading == 0.0 || !is_finite(leading))
    return norm_statistics(p, range.nan ? __builtin_nan("") : leading, 1.0, range.largest == 0.0);
  const double scale = inverse_exponent(leading);
  // Towards the ends of double's range the norm stays scaled, and so will x.
  const double kept = in_middle(leading) ? 1.0 : scale;
  if (!is_finite(p.power)) {
    RowStatistics s = norm_statistics(p, leading * kept, kept, false);
    if (s.count == 1.0) s.count = p.power < 0.0 ? range.least_count : range.largest_count;
    return s;
  }
  // With the leading term about 1 powers neither overflow nor vanish, and 1 / power loses no digits.
  const double more = inverse_exponent(leading * scale);
  const double sum = power_sum(p, row, buffer, scale, more);
  const double norm = (p.power == 1.0 ? sum : pow_of(sum, 1.0 / p.power)) / more;
  return norm_statistics(p, kept == 1.0 ? norm / scale : norm, kept, false);
}

// dN/dx for a norm N of order `power`, up to the factor that `count` holds; xhat = x rstd. `scaled`: x in the
// norm's scale.
NORMKIT_INLINE double norm_slope(double power, double x, double scaled, double xhat, double norm) {
  const double sign = x > 0.0 ? 1.0 : x < 0.0 ? -1.0 : x;  // NaN stays
  const double magnitude = xhat < 0.0 ? -xhat : xhat;
  if (!is_finite(power)) return (scaled < 0.0 ? -scaled : scaled) == norm ? sign : x == x ? 0.0 : x;
  return x == 0.0 || power == 1.0 ? sign : sign * magnitude_power(magnitude, power - 1.0);
}
// A row as it is applied: in C, or element by element in double where the statistics left C's range.
template <typename C>
struct Row {
  RowScale<C> scale;
  WideRow<C> wide;
  bool is_wide;
  double count, norm;  // see RowStatistics
};

NORMKIT_INLINE bool in_float_range(double mean, double rstd) {
  return rstd >= 0x1p-100 && rstd <= 0x1p100 && mean > -0x1p100 && mean < 0x1p100;
}

NORMKIT_INLINE Row<float> row_from(const RowStatistics& s, float) {
  const float hi = static_cast<float>(s.mean);
  return {{hi, static_cast<float>(s.mean - static_cast<double>(hi)), static_cast<float>(s.rstd)},
          {s.mean, 0.0, s.rstd, 1.0},
          !in_float_range(s.mean, s.rstd),
          s.count,
          s.var};
}
// Of double elements, where x - mean may overflow.
NORMKIT_INLINE bool is_far(double mean) {
  return mean > 0x1p960 || mean < -0x1p960;
}
NORMKIT_INLINE Row<double> row_from(const RowStatistics& s, double) {
  const bool distant = s.scale == 1.0 && is_far(s.mean);
  const double down = distant ? 0.25 : 1.0;
  return {{s.mean, s.mean_low, s.rstd},
          {s.mean * down, s.mean_low * down, s.rstd / down, s.scale * down},
          distant || s.scale != 1.0,
          s.count,
          s.var};
}

// Statistics of up to kMaxTileRows rows. A gathered row has the buffer to itself, so those go one by one.
template <typename T>
NORMKIT_INLINE void row_statistics(const RowsProblem& p, const T* const* row, int count, T* buffer,
                                   RowStatistics* statistics) {
  if (p.statistic == Statistic::kRange || (p.statistic == Statistic::kNorm && p.power != 2.0)) {
    for (int r = 0; r < count; ++r) statistics[r] = other_statistics(p, row[r], buffer);
    return;
  }
  const int step = p.x.inner.contiguous() ? count : 1;
  for (int r = 0; r < count; r += step) {
    if (p.channels_last)
      for (int k = r; k < r + step; ++k) statistics[k] = segmented_statistics(p, row[k], buffer);
    else if (p.centred())
      centred_statistics(p, row + r, step, buffer, statistics + r);
    else
      square_statistics(p, row + r, step, buffer, statistics + r);
  }
  if constexpr (sizeof(T) == sizeof(double)) {
    for (int r = 0; r < count; ++r)
      if (!squares_fit(statistics[r].rstd))
        statistics[r] = rescaled_statistics(p, row[r], buffer, statistics[r]);
  }
}

NORMKIT_END_NAMESPACE

#endif  // NORMKIT_DETAIL_STATISTICS_HPP_
