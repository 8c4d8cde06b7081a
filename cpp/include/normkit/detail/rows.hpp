// Operations over rows: a row is one run of n elements that shares a mean and an rstd. LayerNorm and RMSNorm
// over any axes.
//
// Forward is one phase; a task takes a few rows through statistics and apply while they lie in the cache.
// Backward is two phases: tasks over groups of panels (row sums, column sums and dx of 8 rows at a time, from
// one read of dy and x), then tasks over columns that add the groups. Groups are aligned powers of two of
// panels, that is whole subtrees, so the bits do not depend on how many there are.
#ifndef NORMKIT_DETAIL_ROWS_HPP_
#define NORMKIT_DETAIL_ROWS_HPP_

#include "normkit/detail/activation.hpp"
#include "normkit/detail/config.hpp"
#include "normkit/detail/grad_sums.hpp"
#include "normkit/detail/statistics.hpp"

NORMKIT_BEGIN_NAMESPACE

// Of x times `scale` (1 unless double elements come near the ends of their range); var is biased.
struct RowMoments {
  double mean, mean_low, var, scale;
};

// What an absent weight and bias count as: they change no bit.
constexpr double kMissingWeight = 1.0, kMissingBias = -0.0;

struct RowsForward : RowsProblem {
  Operand y, bias;                // without y: statistics only
  double low = 0.0, high = 1.0;   // of kRange: where the least and the largest element go
  RowMoments* moments = nullptr;  // of row r at r & moments_mask, where they are wanted
  int64_t moments_mask = -1;
  int32_t tile_rows = 1;
  bool stream = false;      // write y past the cache
  char* scratch = nullptr;  // of columns too large for a cache
  Activation activation = Activation::kNone;
};

struct RowsBackward : RowsProblem {
  Operand dy, dx, dweight, dbias;
  Operand dsum;  // added to dx before it is rounded, or absent
  bool accumulate = false;
  int64_t group_panels = 1;  // a power of two
  int64_t groups = 0;
  int64_t group_bytes = 0;  // 0: groups have no sums
  bool strips = false;      // parameter gradients have a phase of their own: see strips.hpp
  char* scratch = nullptr;  // 64-byte aligned: of groups, of large columns, or RowsProblem::ready
  // Sets whose weight is one number per channel: a set is `segments` channels of n / segments elements.
  int64_t segments = 0, segment_run = 0, samples = 0, channels = 0;
  GroupedTrees<Sums> channel_sums;  // over samples; absent as above, and for one sample
  int64_t task_sets = 1;            // sets, or bundles of them, of a task
  // Sums of larger sets that these are parts of, and their number of elements; or absent.
  Operand sum_dy, sum_dy_xhat;
  int64_t whole = 0;
  bool stream = false;  // write dx past the cache
  FetchAhead fetch;
};

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
        if (i < count) {
          const Vec16<C> value = load_up_to16(from + begin + i, count - i);
          (shifted ? value + plus16 : value).store(to + i);  // the buffer is whole vectors
        }
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

// Statistics that the caller gave for a row (saved ones, or a mean and a variance), or an earlier phase.
NORMKIT_INLINE RowStatistics given_statistics(const RowsProblem& p, int64_t r) {
  if (p.ready != nullptr) return p.ready[r & p.ready_mask];
  const double mean = p.mean ? read_number(p.mean, p.mean.outer.offset(r)) : 0.0;
  const double second = read_number(p.rstd, p.rstd.outer.offset(r));
  return {mean, 0.0,
          0.0,  p.given_variance ? 1.0 / square_root(second + p.eps) : second,
          1.0,  static_cast<double>(p.n)};
}

// ---- forward ----

// One block of one row; y is contiguous there. Streaming needs 64-byte lines: elements before the first whole
// one are stored plainly.
template <typename T>
NORMKIT_INLINE void scale_block(const RowScale<Compute<T>>& row, const T* x, T* y, int n, bool stream,
                                Parameter<Compute<T>> weight, Parameter<Compute<T>> bias, int64_t ahead) {
  if (!stream) return apply_block<false>(x, y, n, row, weight, bias);
  const int head = before_line(y, n);
  if (head > 0) apply_block<false>(x, y, head, row, weight, bias);
  apply_block<true>(x + head, y + head, n - head, row, weight.from(head), bias.from(head), ahead);
}

template <typename T>
NORMKIT_INLINE void forward_block(const Row<Compute<T>>& row, const T* x, T* y, int n, bool stream,
                                  Parameter<Compute<T>> weight, Parameter<Compute<T>> bias, int64_t ahead) {
  if (NORMKIT_LIKELY(!row.is_wide)) return scale_block(row.scale, x, y, n, stream, weight, bias, ahead);
  wide_apply_block(x, y, n, row.wide, weight, bias);
}

// kRange of one block, in double, rounded once. Roundings may take the largest element past `high`, or leave
// it short: what lies as far from the least one becomes `high`, and nothing lies outside.
template <typename T>
NORMKIT_NOINLINE void range_block(const RowsForward& p, const T* x, T* y, int n, const RowStatistics& s) {
  const double down = is_finite(p.high - p.low) ? 1.0 : 0.5;  // of a range that double cannot hold, half
  const double width = p.high * down - p.low * down, low = p.low * down;
  const double least = p.low < p.high ? p.low : p.high, most = p.low < p.high ? p.high : p.low;
  for (int i = 0; i < n; ++i) {
    const double above = read<double>(x + i) * s.scale - s.mean;
    double v = (above * s.rstd * width + low) / down;
    if (above == s.var && s.rstd != 0.0) v = p.high;
    write(y + i, v < least ? least : v > most ? most : v);
  }
}

// A finished block, past the cache.
template <typename T>
NORMKIT_NOINLINE void stream_block(const T* from, T* y, int n) {
  constexpr int kLine = 64 / static_cast<int>(sizeof(T));
  int i = before_line(y, n);
  memcpy(y, from, static_cast<size_t>(i) * sizeof(T));
  for (; i + kLine <= n; i += kLine) {
    alignas(64) T line[size_t(kLine)];
    memcpy(line, from + i, sizeof(line));
    stream_64_bytes(y + i, line);
  }
  memcpy(y + i, from + i, static_cast<size_t>(n - i) * sizeof(T));
}

NORMKIT_INLINE void save_statistics(const RowsForward& p, int64_t r, const RowStatistics& s) {
  if (p.mean) write_number(p.mean, p.mean.outer.offset(r), s.mean / s.scale);
  if (p.rstd) write_number(p.rstd, p.rstd.outer.offset(r), s.rstd * s.scale);
  if (p.moments != nullptr) {
    p.moments[r & p.moments_mask] = {s.mean, s.mean_low, s.var, s.scale};
  }
}

// Whether an elementwise pass from x to `to` may take runs or segments as a whole: see Blocks::apply.
NORMKIT_INLINE bool stays_whole(const RowsProblem& p, const Operand& to) {
  const int64_t run = p.segment != 0 ? p.segment : p.run;
  return (p.segment != 0 || p.weight.inner.constant(0, p.n)) && lies_straight(p.x.inner, run) &&
         lies_straight(to.inner, run);
}

// Rows first .. first+count-1, at most kMaxTileRows of them.
template <typename T>
NORMKIT_NOINLINE void forward_rows(const RowsForward& p, int64_t first, int count,
                                   ParameterReader<Compute<T>>& weight, ParameterReader<Compute<T>>& bias,
                                   T* x_buffer, T* y_buffer) {
  using C = Compute<T>;
  const bool range = p.statistic == Statistic::kRange;
  const bool varying = p.weight.outer.count > 0 || p.bias.outer.count > 0;
  const T* x_row[kMaxTileRows];
  T* y_row[kMaxTileRows];
  Row<C> row[kMaxTileRows];
  RowStatistics statistics[kMaxTileRows];
  for (int r = 0; r < count; ++r) {
    x_row[r] = p.x.template row<const T>(first + r);
    y_row[r] = p.y ? p.y.template row<T>(first + r) : nullptr;
    if (p.given) statistics[r] = given_statistics(p, first + r);
  }
  if (!p.given) row_statistics(p, x_row, count, x_buffer, statistics);
  for (int r = 0; r < count; ++r) {
    row[r] = row_from(statistics[r], C());
    if (!p.given) save_statistics(p, first + r, statistics[r]);
  }
  if (!p.y) return;
  const bool whole = p.activation == Activation::kNone && (p.segment != 0 || p.bias.inner.constant(0, p.n)) &&
                     stays_whole(p, p.y);
  for (Blocks block = Blocks::apply(p, whole); block.more(); block.next()) {
    const int length = block.length;
    Parameter<C> w, b;
    for (int r = 0; r < count; ++r) {
      if (r == 0 || varying) {
        w = weight.block(first + r, block.begin, length);
        b = bias.block(first + r, block.begin, length);
      }
      const T* x = block_of(p.x, x_row[r], block.begin, length, x_buffer);
      T* straight = straight_block(p.y.inner, y_row[r], block.begin, length);
      const bool staged = straight == nullptr || (p.stream && p.activation != Activation::kNone);
      T* y = staged ? y_buffer : straight;
      if (range)
        range_block(p, x, y, length, statistics[r]);
      else
        forward_block(row[r], x, y, length, p.stream && !staged, w, b, p.ahead);
      activate_block(p.activation, y, length);
      if (straight == nullptr)
        scatter(y_buffer, p.y.inner, block.begin, length, y_row[r]);
      else if (staged)
        stream_block(y_buffer, straight, length);
    }
  }
}

NORMKIT_END_NAMESPACE

#endif  // NORMKIT_DETAIL_ROWS_HPP_
