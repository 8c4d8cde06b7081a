// Operations over rows: a row is one run of n elements that shares a mean and an rstd. LayerNorm and RMSNorm over any
// axes.
//
// Forward is one phase; a task takes a few rows through statistics and apply while they lie in the cache. Backward is
// two phases: tasks over groups of panels (row sums, column sums and dx of 8 rows at a time, from one read of dy and
// x), then tasks over columns that add the groups. Groups are aligned powers of two of panels, that is whole subtrees,
// so the bits do not depend on how many there are.
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
  double eps = 0.0;
  double weight_offset = 0.0;
  bool centred = true;  // LayerNorm; false: RMSNorm
  Operand x, weight, mean, rstd;
};

struct RowsForward : RowsProblem {
  Operand y, bias;
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
};

NORMKIT_INLINE int block_length(int64_t n, int64_t begin) {
  return static_cast<int>(n - begin < kBlock ? n - begin : kBlock);
}

// ---- statistics of a row ----

// Before the last rounding. `scale`: the power of two that the statistics' x was multiplied by (double elements only).
struct RowStatistics {
  double mean, mean_low, rstd, scale;
};

NORMKIT_INLINE double reciprocal_deviation(double sum_of_squares, double n, double eps) {
  const double var = sum_of_squares / n;
  return 1.0 / square_root((var < 0.0 ? 0.0 : var) + eps);
}

constexpr int kMaxTileRows = 8;

// Block by block over the rows of a tile, so that one row's folds and divisions wait behind another's sweeps.
template <typename T>
NORMKIT_NOINLINE void centred_statistics(const RowsProblem& p, const T* const* row, int count, T* buffer,
                                         RowStatistics* statistics) {
  using C = Compute<T>;
  Moments<C> moments[kMaxTileRows];
  MergeTree<Moments<C>> tree[kMaxTileRows];
  for (int64_t i = 0; i < p.n; i += kBlock) {
    const int length = block_length(p.n, i);
    const T* x[kMaxTileRows];
    C sum[kMaxTileRows];
    for (int r = 0; r < count; ++r) {
      x[r] = block_of(p.x, row[r], i, length, buffer);
      sum[r] = block_sum(x[r], length);
    }
    for (int r = 0; r < count; ++r) {
      moments[r] = block_moments(x[r], length, sum[r]);
      if (p.n > kBlock) tree[r].push(moments[r]);
    }
  }
  for (int r = 0; r < count; ++r) {
    const Moments<C> m = p.n > kBlock ? tree[r].finish() : moments[r];
    statistics[r] = {m.mean, m.mean_low, reciprocal_deviation(m.m2, static_cast<double>(p.n), p.eps), 1.0};
  }
}

template <typename T>
NORMKIT_NOINLINE void square_statistics(const RowsProblem& p, const T* const* row, int count, T* buffer,
                                        RowStatistics* statistics) {
  double squares[kMaxTileRows];
  for (int r = 0; r < count; ++r) {
    MergeTree<Sums> tree;
    for (int64_t i = 0; i < p.n; i += kBlock) {
      const int length = block_length(p.n, i);
      tree.push({block_squares(block_of(p.x, row[r], i, length, buffer), length), 0.0});
    }
    squares[r] = tree.finish().first;
  }
  for (int r = 0; r < count; ++r)
    statistics[r] = {0.0, 0.0, reciprocal_deviation(squares[r], static_cast<double>(p.n), p.eps), 1.0};
}

// Squares of doubles overflow beyond 2^512 and vanish below 2^-537: such rows are taken again, multiplied by a power
// of two. Everything else returns the statistics unchanged.
inline NORMKIT_NOINLINE RowStatistics rescaled_statistics(const RowsProblem& p, const double* row, double* buffer,
                                                   RowStatistics plain) {
  double largest = 0.0;
  for (int64_t i = 0; i < p.n; i += kBlock) {
    const int length = block_length(p.n, i);
    const double* x = block_of(p.x, row, i, length, buffer);
    for (int j = 0; j < length; ++j) {
      const double magnitude = x[j] < 0.0 ? -x[j] : x[j];
      if (!(magnitude <= largest)) largest = magnitude;
    }
  }
  if (!is_finite(largest) || largest == 0.0 || (largest >= 0x1p-400 && largest <= 0x1p400)) return plain;
  const double scale = largest < 1.0 ? 0x1p500 : 0x1p-500;
  MergeTree<Moments<double>> moments;
  MergeTree<Sums> squares;
  for (int64_t i = 0; i < p.n; i += kBlock) {
    const int length = block_length(p.n, i);
    const double* x = block_of(p.x, row, i, length, buffer);
    if (p.centred)
      moments.push(wide_block_moments(x, length, scale));
    else
      squares.push({wide_block_sum<2>(x, length, scale, 0.0), 0.0});
  }
  const Moments<double> m = p.centred ? moments.finish() : Moments<double>{0.0, 0.0, 0.0, squares.finish().first};
  return {m.mean, m.mean_low, reciprocal_deviation(m.m2, static_cast<double>(p.n), p.eps * scale * scale), scale};
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
    // rstd^-2 is the variance plus eps: in this range no square overflowed, and one that vanished does not count.
    for (int r = 0; r < count; ++r)
      if (!(statistics[r].rstd >= 0x1p-400 && statistics[r].rstd <= 0x1p400))
        statistics[r] = rescaled_statistics(p, row[r], buffer, statistics[r]);
  }
}

// ---- parameters ----

// Elements begin .. begin+count-1 of weight or bias in C: in place, or widened into the buffer.
template <typename C>
struct ParameterReader {
  const Operand& operand;
  double offset;
  int64_t widened = -1;  // the block that the buffer holds
  alignas(64) C buffer[kBlock];

  NORMKIT_INLINE ParameterReader(const Operand& operand_, double offset_, C missing)
      : operand(operand_), offset(offset_) {
    if (!operand)
      for (int i = 0; i < kVecLanes; ++i) buffer[i] = missing;
  }

  NORMKIT_INLINE Parameter<C> block(int64_t begin, int count) {
    if (!operand) return {buffer, 0};
    if (operand.dtype == DTypeOf<C>::value && operand.inner.contiguous() && offset == 0.0)
      return {reinterpret_cast<const C*>(operand.data) + begin, 1};
    if (begin != widened) widen(begin, count);
    widened = begin;
    return {buffer, 1};
  }

 private:
  NORMKIT_NOINLINE void widen(int64_t begin, int count) {
    switch (operand.dtype) {
      case DType::kF32: return widen_as<float>(begin, count);
      case DType::kF64: return widen_as<double>(begin, count);
      case DType::kF16: return widen_as<Float16>(begin, count);
      case DType::kBF16: return widen_as<BFloat16>(begin, count);
    }
  }

  template <typename W>
  NORMKIT_INLINE void widen_as(int64_t begin, int count) {
    const W* from = reinterpret_cast<const W*>(operand.data);
    C* to = buffer;
    const C plus = static_cast<C>(offset);
    const bool shifted = offset != 0.0;
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

NORMKIT_INLINE double read_statistic(const Operand& operand, int64_t row) {
  return operand.dtype == DType::kF32 ? static_cast<double>(*operand.row<const float>(row))
                                      : *operand.row<const double>(row);
}
NORMKIT_INLINE void write_statistic(const Operand& operand, int64_t row, double value) {
  if (!operand) return;
  if (operand.dtype == DType::kF32)
    write(operand.row<float>(row), value);
  else
    write(operand.row<double>(row), value);
}

// ---- forward ----

// One block of one row; y is contiguous there. Streaming needs 64-byte lines: elements before the first whole one are
// stored plainly.
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

template <typename T>
NORMKIT_NOINLINE void forward_tiles(const RowsForward& p, int64_t begin, int64_t end) {
  using C = Compute<T>;
  alignas(64) T x_buffer[kBlock];
  alignas(64) T y_buffer[kBlock];
  ParameterReader<C> weight(p.weight, p.weight_offset, C(1));
  ParameterReader<C> bias(p.bias, 0.0, C(-0.0));
  const bool y_contiguous = p.y.inner.contiguous();
  const int64_t ahead = p.tile_rows * p.n * static_cast<int64_t>(sizeof(T));  // the next tile, if rows are adjacent
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
    }
    row_statistics(p, x_row, count, x_buffer, statistics);
    for (int r = 0; r < count; ++r) {
      const RowStatistics& s = statistics[r];
      row[r] = row_from(s, C());
      if (p.mean) write_statistic(p.mean, first + r, s.mean / s.scale);
      if (p.rstd) write_statistic(p.rstd, first + r, s.rstd * s.scale);
    }
    for (int64_t i = 0; i < p.n; i += kBlock) {
      const int length = block_length(p.n, i);
      const Parameter<C> w = weight.block(i, length);
      const Parameter<C> b = bias.block(i, length);
      for (int r = 0; r < count; ++r) {
        const T* x = block_of(p.x, x_row[r], i, length, x_buffer);
        T* y = y_contiguous ? y_row[r] + i : y_buffer;
        forward_block(row[r], x, y, length, p.stream, w, b, ahead);
        if (!y_contiguous) scatter(y_buffer, p.y.inner, i, length, y_row[r]);
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
