// Operations over rows: a row is one run of n elements that shares a mean and an rstd. LayerNorm and RMSNorm
// over any axes.
//
// Forward is one phase; a task takes a few rows through statistics and apply while they lie in the cache.
// Backward is two phases: tasks over groups of panels (row sums, column sums and dx of 8 rows at a time, from
// one read of dy and x), then tasks over columns that add the groups. Groups are aligned powers of two of
// panels, that is whole subtrees, so the bits do not depend on how many there are.
#ifndef NORMKIT_DETAIL_ROWS_HPP_
#define NORMKIT_DETAIL_ROWS_HPP_

#include "normkit/detail/apply.hpp"
#include "normkit/detail/config.hpp"
#include "normkit/detail/geometry.hpp"
#include "normkit/detail/grad_sums.hpp"
#include "normkit/detail/intrinsics.hpp"
#include "normkit/detail/merge.hpp"
#include "normkit/detail/reduce.hpp"

NORMKIT_BEGIN_NAMESPACE

// What forward and backward have in common.
struct RowsProblem {
  int64_t rows = 0, n = 0;
  int64_t run = 0;      // blocks are cut from runs: see Blocks
  int32_t block = 0;    // longest_block(run)
  int64_t segment = 0;  // weight and bias are one number for each `segment` elements; 0: for each element
  double eps = 0.0;
  double weight_offset = 0.0;
  bool centred = true;          // false: RMSNorm
  bool given = false;           // mean and rstd are inputs, not statistics of x
  bool given_variance = false;  // what is called rstd is a variance
  Operand x, weight, mean, rstd;
};

struct RowsForward : RowsProblem {
  Operand y, bias;
  double* moments = nullptr;  // (mean, biased variance) of each row, for the running statistics
  int32_t tile_rows = 1;
  bool stream = false;  // write y past the cache
};

struct RowsBackward : RowsProblem {
  Operand dy, dx, dweight, dbias;
  bool accumulate = false;
  int64_t group_panels = 1;  // a power of two
  int64_t groups = 0;
  int64_t group_bytes = 0;
  char* scratch = nullptr;  // 64-byte aligned; null: no parameter gradient is asked for
  // Sets whose weight is one number per channel: a set is `segments` channels of n / segments elements.
  int64_t segments = 0, segment_run = 0, samples = 0, channels = 0;
  Sums* channel_sums = nullptr;  // [samples, channels]; null as above
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
  static NORMKIT_INLINE Blocks apply(const RowsProblem& p) {
    if (p.segment < kLanes) return Blocks(p);
    return Blocks(p.n, p.segment, p.segment < kBlock ? static_cast<int>(p.segment) : kBlock);
  }
  NORMKIT_INLINE bool more() const { return begin < n; }
  NORMKIT_INLINE bool only_one() const { return length == n; }
  NORMKIT_INLINE void next() {
    begin += length;
    measure();
  }

 private:
  NORMKIT_INLINE void measure() {
    const int64_t left = longest <= run && run < n ? run - begin % run : n - begin;
    length = left < longest ? static_cast<int>(left) : longest;
  }
};

// ---- statistics of a row ----

// Before the last rounding. var is biased. `scale`: the power of two that the statistics' x was multiplied by
// (double elements only).
struct RowStatistics {
  double mean, mean_low, var, rstd, scale;
};

NORMKIT_INLINE RowStatistics statistics_from(double mean, double mean_low, double sum_of_squares, double n,
                                             double eps, double scale) {
  const double raw = sum_of_squares / n, var = raw < 0.0 ? 0.0 : raw;
  return {mean, mean_low, var, 1.0 / square_root(var + eps), scale};
}

constexpr int kMaxTileRows = 8;

// Block by block over the rows of a tile, so that one row's folds and divisions wait behind another's sweeps.
template <typename T>
NORMKIT_NOINLINE void centred_statistics(const RowsProblem& p, const T* const* row, int count, T* buffer,
                                         RowStatistics* statistics) {
  using C = Compute<T>;
  Moments<C> moments[kMaxTileRows];
  MergeTree<Moments<C>> tree[kMaxTileRows];
  const bool one_block = Blocks(p).only_one();
  for (Blocks b(p); b.more(); b.next()) {
    const T* x[kMaxTileRows];
    DoublePair sum[kMaxTileRows];
    for (int r = 0; r < count; ++r) {
      x[r] = block_of(p.x, row[r], b.begin, b.length, buffer);
      sum[r] = block_sum(x[r], b.length);
    }
    for (int r = 0; r < count; ++r) {
      moments[r] = block_moments(x[r], b.length, sum[r]);
      if (!one_block) tree[r].push(moments[r]);
    }
  }
  for (int r = 0; r < count; ++r) {
    const Moments<C> m = one_block ? moments[r] : tree[r].finish();
    statistics[r] = statistics_from(m.mean, m.mean_low, m.m2, static_cast<double>(p.n), p.eps, 1.0);
  }
}

template <typename T>
NORMKIT_NOINLINE void square_statistics(const RowsProblem& p, const T* const* row, int count, T* buffer,
                                        RowStatistics* statistics) {
  double squares[kMaxTileRows];
  for (int r = 0; r < count; ++r) {
    MergeTree<Sums> tree;
    for (Blocks b(p); b.more(); b.next())
      tree.push({block_sum_of_squares(block_of(p.x, row[r], b.begin, b.length, buffer), b.length), 0.0});
    squares[r] = tree.finish().first;
  }
  for (int r = 0; r < count; ++r)
    statistics[r] = statistics_from(0.0, 0.0, squares[r], static_cast<double>(p.n), p.eps, 1.0);
}

// A power of two that takes a positive double near 1, as far as one can: at most 2^1000.
NORMKIT_INLINE double inverse_power_of_two(double v) {
  double scale = 1.0;
  for (; v < 0x1p-100 && scale < 0x1p1000; v *= 0x1p100) scale *= 0x1p100;
  for (; v > 0x1p100; v *= 0x1p-100) scale *= 0x1p-100;
  return scale;
}

// Squares of doubles overflow beyond 2^512 and vanish below 2^-537: such rows are taken again, multiplied by
// a power of two. Everything else returns the statistics unchanged.
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
  if (!is_finite(largest) || largest == 0.0 || !is_finite(p.eps)) return plain;
  const double root = square_root(p.eps);  // where eps is larger than the squares, it sets the scale
  const double scale = inverse_power_of_two(root > largest ? root : largest);
  if (scale == 1.0) return plain;
  MergeTree<Moments<double>> moments;
  MergeTree<Sums> squares;
  alignas(64) double scaled[kBlock];
  for (Blocks b(p); b.more(); b.next()) {
    const double* x = block_of(p.x, row, b.begin, b.length, buffer);
    for (int j = 0; j < b.length; ++j) scaled[j] = x[j] * scale;
    if (p.centred)
      moments.push(block_moments(scaled, b.length, block_sum(scaled, b.length)));
    else
      squares.push({block_sum_of_squares(scaled, b.length), 0.0});
  }
  const Moments<double> m =
      p.centred ? moments.finish() : Moments<double>{0.0, 0.0, 0.0, squares.finish().first};
  return statistics_from(m.mean, m.mean_low, m.m2, static_cast<double>(p.n), p.eps * scale * scale, scale);
}

// A row as it is applied: in C, or element by element in double where the statistics left C's range.
template <typename C>
struct Row {
  RowScale<C> scale;
  WideRow<C> wide;
  bool is_wide;
};

NORMKIT_INLINE bool in_float_range(double mean, double rstd) {
  return rstd >= 0x1p-100 && rstd <= 0x1p100 && mean > -0x1p100 && mean < 0x1p100;
}

NORMKIT_INLINE Row<float> row_from(const RowStatistics& s, float) {
  const float hi = static_cast<float>(s.mean);
  return {{hi, static_cast<float>(s.mean - static_cast<double>(hi)), static_cast<float>(s.rstd)},
          {s.mean, 0.0, s.rstd, 1.0},
          !in_float_range(s.mean, s.rstd)};
}
NORMKIT_INLINE Row<double> row_from(const RowStatistics& s, double) {
  return {{s.mean, s.mean_low, s.rstd}, {s.mean, s.mean_low, s.rstd, s.scale}, s.scale != 1.0};
}

// Statistics of up to kMaxTileRows rows. A gathered row has the buffer to itself, so those go one by one.
template <typename T>
NORMKIT_INLINE void row_statistics(const RowsProblem& p, const T* const* row, int count, T* buffer,
                                   RowStatistics* statistics) {
  const int step = p.x.inner.contiguous() ? count : 1;
  for (int r = 0; r < count; r += step) {
    if (p.centred)
      centred_statistics(p, row + r, step, buffer, statistics + r);
    else
      square_statistics(p, row + r, step, buffer, statistics + r);
  }
  if constexpr (sizeof(T) == sizeof(double)) {
    // rstd^-2 is the variance plus eps: in this range no square overflowed, and one that vanished does not
    // count.
    for (int r = 0; r < count; ++r)
      if (!(statistics[r].rstd >= 0x1p-400 && statistics[r].rstd <= 0x1p400))
        statistics[r] = rescaled_statistics(p, row[r], buffer, statistics[r]);
  }
}

// ---- parameters ----

// weight or bias in C, a block at a time: in place, or widened into the buffer. A parameter that does not
// vary within the row is repeated.
template <typename C>
struct ParameterReader {
  const Operand& operand;
  double offset;
  int64_t widened_row = -1, widened_begin = -1, widened_count = 0;  // what the buffer holds
  bool widened_repeated = false;
  alignas(64) C buffer[kBlock];

  NORMKIT_INLINE ParameterReader(const Operand& operand_, double offset_, C missing)
      : operand(operand_), offset(offset_) {
    if (!operand)
      for (int i = 0; i < kVecLanes; ++i) buffer[i] = missing;
  }

  // Elements begin .. begin+count-1 of row r.
  NORMKIT_INLINE Parameter<C> block(int64_t r, int64_t begin, int count) {
    if (!operand) return {buffer, 0};
    const int64_t row = operand.outer.count == 0 ? 0 : operand.outer.offset(r);
    if (operand.dtype == DTypeOf<C>::value && operand.inner.contiguous() && offset == 0.0)
      return {reinterpret_cast<const C*>(operand.data) + row + begin, 1};
    const bool repeated = operand.inner.constant(begin, count);
    if (repeated) count = kVecLanes;
    if (row != widened_row || begin != widened_begin || repeated != widened_repeated ||
        count > widened_count) {
      widen(row, begin, count, repeated);
      widened_row = row;
      widened_begin = begin;
      widened_repeated = repeated;
      widened_count = count;
    }
    return {buffer, repeated ? 0 : 1};
  }

 private:
  NORMKIT_NOINLINE void widen(int64_t row, int64_t begin, int count, bool repeated) {
    switch (operand.dtype) {
      case DType::kF32:
        return widen_as<float>(row, begin, count, repeated);
      case DType::kF64:
        return widen_as<double>(row, begin, count, repeated);
      case DType::kF16:
        return widen_as<Float16>(row, begin, count, repeated);
      case DType::kBF16:
        return widen_as<BFloat16>(row, begin, count, repeated);
    }
  }

  template <typename W>
  NORMKIT_INLINE void widen_as(int64_t row, int64_t begin, int count, bool repeated) {
    const W* from = reinterpret_cast<const W*>(operand.data) + row;
    C* to = buffer;
    const C plus = static_cast<C>(offset);
    const bool shifted = offset != 0.0;
    if (repeated) {
      const C value = read<C>(from + operand.inner.offset(begin));
      for (int i = 0; i < kVecLanes; ++i) to[i] = shifted ? value + plus : value;
      return;
    }
    if constexpr (sizeof(C) == sizeof(float) && sizeof(W) <= sizeof(float)) {
      if (operand.inner.contiguous()) {
        const Vec16<C> plus16 = Vec16<C>::splat(plus);
        int i = 0;
        for (; i + kVecLanes <= count; i += kVecLanes) {
          const Vec16<C> value = load16(from + begin + i);
          (shifted ? value + plus16 : value).store(to + i);
        }
        for (; i < count; ++i) to[i] = shifted ? read<C>(from + begin + i) + plus : read<C>(from + begin + i);
        return;
      }
    }
    walk(operand.inner, begin, count, [=](int64_t at, int64_t stride, int64_t first, int64_t length) {
      for (int64_t i = 0; i < length; ++i) {
        const C value = read<C>(from + at + i * stride);
        to[first + i] = shifted ? value + plus : value;
      }
    });
  }
};

// One element of any type as double, and back.
NORMKIT_INLINE double read_number(const Operand& operand, int64_t at) {
  switch (operand.dtype) {
    case DType::kF32:
      return read<double>(reinterpret_cast<const float*>(operand.data) + at);
    case DType::kF64:
      return read<double>(reinterpret_cast<const double*>(operand.data) + at);
    case DType::kF16:
      return read<double>(reinterpret_cast<const Float16*>(operand.data) + at);
    case DType::kBF16:
      return read<double>(reinterpret_cast<const BFloat16*>(operand.data) + at);
  }
  return 0.0;
}
NORMKIT_INLINE void write_number(const Operand& operand, int64_t at, double value) {
  switch (operand.dtype) {
    case DType::kF32:
      return write(reinterpret_cast<float*>(operand.data) + at, value);
    case DType::kF64:
      return write(reinterpret_cast<double*>(operand.data) + at, value);
    case DType::kF16:
      return write(reinterpret_cast<Float16*>(operand.data) + at, value);
    case DType::kBF16:
      return write(reinterpret_cast<BFloat16*>(operand.data) + at, value);
  }
}

// Statistics that the caller gave for a row: saved ones, or a mean and a variance.
NORMKIT_INLINE RowStatistics given_statistics(const RowsProblem& p, int64_t r) {
  const double mean = p.mean ? read_number(p.mean, p.mean.outer.offset(r)) : 0.0;
  const double second = read_number(p.rstd, p.rstd.outer.offset(r));
  return {mean, 0.0, 0.0, p.given_variance ? 1.0 / square_root(second + p.eps) : second, 1.0};
}

// ---- forward ----

// One block of one row; y is contiguous there. Streaming needs 64-byte lines: elements before the first whole
// one are stored plainly.
template <typename T>
NORMKIT_INLINE void forward_block(const Row<Compute<T>>& row, const T* x, T* y, int n, bool stream,
                                  Parameter<Compute<T>> weight, Parameter<Compute<T>> bias, int64_t ahead) {
  if (!NORMKIT_LIKELY(!row.is_wide)) return wide_apply_block(x, y, n, row.wide, weight, bias);
  if (!stream) return apply_block<false>(x, y, n, row.scale, weight, bias);
  const int skip = static_cast<int>((64 - reinterpret_cast<uintptr_t>(y) % 64) % 64 / sizeof(T));
  const int head = skip < n ? skip : n;
  if (head > 0) apply_block<false>(x, y, head, row.scale, weight, bias);
  apply_block<true>(x + head, y + head, n - head, row.scale, weight.from(head), bias.from(head), ahead);
}

inline void save_statistics(const RowsForward& p, int64_t r, const RowStatistics& s) {
  if (p.mean) write_number(p.mean, p.mean.outer.offset(r), s.mean / s.scale);
  if (p.rstd) write_number(p.rstd, p.rstd.outer.offset(r), s.rstd * s.scale);
  if (p.moments != nullptr) {
    p.moments[2 * r] = s.mean / s.scale;
    p.moments[2 * r + 1] = s.var / s.scale / s.scale;
  }
}

template <typename T>
NORMKIT_NOINLINE void forward_tiles(const RowsForward& p, int64_t begin, int64_t end) {
  using C = Compute<T>;
  alignas(64) T x_buffer[kBlock];
  alignas(64) T y_buffer[kBlock];
  ParameterReader<C> weight(p.weight, p.weight_offset, C(1));
  ParameterReader<C> bias(p.bias, 0.0, C(-0.0));
  const bool varying = p.weight.outer.count > 0 || p.bias.outer.count > 0;
  const int64_t ahead =
      p.tile_rows * p.n * static_cast<int64_t>(sizeof(T));  // the next tile, if rows are adjacent
  for (int64_t tile = begin; tile < end; ++tile) {
    const int64_t first = tile * p.tile_rows;
    const int count = static_cast<int>(p.rows - first < p.tile_rows ? p.rows - first : p.tile_rows);
    const T* x_row[kMaxTileRows];
    T* y_row[kMaxTileRows];
    Row<C> row[kMaxTileRows];
    RowStatistics statistics[kMaxTileRows];
    for (int r = 0; r < count; ++r) {
      x_row[r] = p.x.template row<const T>(first + r);
      y_row[r] = p.y.template row<T>(first + r);
      if (p.given) statistics[r] = given_statistics(p, first + r);
    }
    if (!p.given) row_statistics(p, x_row, count, x_buffer, statistics);
    for (int r = 0; r < count; ++r) {
      row[r] = row_from(statistics[r], C());
      if (!p.given) save_statistics(p, first + r, statistics[r]);
    }
    for (Blocks block = Blocks::apply(p); block.more(); block.next()) {
      const int length = block.length;
      Parameter<C> w, b;
      for (int r = 0; r < count; ++r) {
        if (r == 0 || varying) {
          w = weight.block(first + r, block.begin, length);
          b = bias.block(first + r, block.begin, length);
        }
        const T* x = block_of(p.x, x_row[r], block.begin, length, x_buffer);
        T* straight = straight_block(p.y.inner, y_row[r], block.begin, length);
        forward_block(row[r], x, straight != nullptr ? straight : y_buffer, length,
                      p.stream && straight != nullptr, w, b, ahead);
        if (straight == nullptr) scatter(y_buffer, p.y.inner, block.begin, length, y_row[r]);
      }
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

#endif  // NORMKIT_DETAIL_ROWS_HPP_
