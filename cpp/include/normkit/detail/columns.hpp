// Sets side by side: channels-last arrays, LayerNorm over the channels of NCHW.
//
// Where neighbouring sets are neighbours in memory, 16 of them are the lanes of a vector, and element i of
// all 16 goes to accumulator i mod 32: the 32 lanes of each set, added, chained and folded exactly as
// reduce.hpp and grad_sums.hpp do for one set at a time. Whatever needs more care than float (sums out of
// range, statistics out of range) goes back to those, set by set, so the bits are theirs.
#ifndef NORMKIT_DETAIL_COLUMNS_HPP_
#define NORMKIT_DETAIL_COLUMNS_HPP_

#include "normkit/detail/rows.hpp"

NORMKIT_BEGIN_NAMESPACE

constexpr int kColumns = kVecLanes;

// 32 lanes of each of 16 columns.
template <typename C>
struct ColumnLanes {
  alignas(64) C lane[kLanes][kColumns];

  NORMKIT_INLINE void clear() { memset(lane, 0, sizeof(lane)); }
  NORMKIT_INLINE void add(int j, Vec16<C> v) { (Vec16<C>::load(lane[j]) + v).store(lane[j]); }
  // The sums of the columns, in lane 0.
  NORMKIT_INLINE const C* fold() {
    for (int half = kVecLanes; half > 0; half /= 2)
      for (int j = 0; j < half; ++j) add(j, Vec16<C>::load(lane[j + half]));
    return lane[0];
  }
};

// Sums of n elements of each column.
template <typename T>
NORMKIT_NOINLINE void column_sums(const T* x, int64_t stride, int n, ColumnLanes<double>& lanes) {
  lanes.clear();
  for (int i = 0; i < n; i += kLanes)
    for (int j = 0; j < kLanes && i + j < n; ++j) lanes.add(j, widen16(x + (i + j) * stride));
}

// Sums of (x - k)^2, or of x^2; block_squares for 16 columns.
template <bool kCentred, typename T>
NORMKIT_NOINLINE void column_squares(const T* x, int64_t stride, int n, const float* k,
                                     ColumnLanes<double>& lanes) {
  const Vec16<float> shift = Vec16<float>::load(k);
  const auto square = [&](int i) {
    Vec16<float> a = load16(x + i * stride);
    if constexpr (kCentred) a = a - shift;
    return a * a;
  };
  ColumnLanes<float> chain;
  lanes.clear();
  int i = 0;
  while (i + kLanes <= n) {
    const int stop = n - i < kChain * kLanes ? n : i + kChain * kLanes;
    chain.clear();
    for (; i + kLanes <= stop; i += kLanes)
      for (int j = 0; j < kLanes; ++j) chain.add(j, square(i + j));
    for (int j = 0; j < kLanes; ++j) lanes.add(j, widen16(chain.lane[j]));
  }
  for (int j = 0; i + j < n; ++j) lanes.add(j, widen(square(i + j)));
}

// Column c as a block of its own.
template <typename T>
NORMKIT_INLINE const T* one_column(const T* x, int64_t stride, int n, int c, T* buffer) {
  for (int i = 0; i < n; ++i) buffer[i] = x[i * stride + c];
  return buffer;
}

// Statistics of 16 sets whose first element is at x.
template <typename T>
NORMKIT_NOINLINE void column_statistics(const RowsProblem& p, const T* x, T* buffer,
                                        RowStatistics* statistics) {
  const int64_t stride = p.x.inner.stride[0];
  MergeTree<Moments<float>> moments[kColumns];
  MergeTree<Sums> squares[kColumns];
  ColumnLanes<double> lanes;
  alignas(64) float k[kColumns] = {};
  for (Blocks b(p); b.more(); b.next()) {
    const T* block = x + b.begin * stride;
    const double n = static_cast<double>(b.length);
    if (!p.centred()) {
      column_squares<false>(block, stride, b.length, k, lanes);
      const double* sums = lanes.fold();
      for (int c = 0; c < kColumns; ++c) {
        const double sum =
            NORMKIT_LIKELY(squares_in_range(sums[c]))
                ? sums[c]
                : block_sum_of_squares(one_column(block, stride, b.length, c, buffer), b.length);
        squares[c].push({sum, 0.0});
      }
      continue;
    }
    double mean[kColumns];
    column_sums(block, stride, b.length, lanes);
    const double* sums = lanes.fold();
    for (int c = 0; c < kColumns; ++c) {
      mean[c] = sums[c] / n;
      k[c] = static_cast<float>(mean[c]);
    }
    column_squares<true>(block, stride, b.length, k, lanes);
    sums = lanes.fold();
    for (int c = 0; c < kColumns; ++c) {
      if (NORMKIT_LIKELY(squares_in_range(sums[c]))) {
        moments[c].push(moments_about<float>(b.length, {mean[c], 0.0}, static_cast<double>(k[c]), sums[c]));
      } else {
        const T* column = one_column(block, stride, b.length, c, buffer);
        moments[c].push(block_moments(column, b.length, block_sum(column, b.length)));
      }
    }
  }
  for (int c = 0; c < kColumns; ++c) {
    if (p.centred()) {
      const Moments<float> m = moments[c].finish();
      statistics[c] = statistics_from(p, m.mean, m.mean_low, m.m2, 1.0);
    } else {
      statistics[c] = statistics_of_squares(p, squares[c].finish().first, 1.0);
    }
  }
}

// What 16 sets are applied with.
struct ColumnRows {
  Row<float> row[kColumns];
  alignas(64) float hi[kColumns], lo[kColumns], rstd[kColumns];
  bool any_wide = false;

  NORMKIT_INLINE void set(int c, const Row<float>& r) {
    row[c] = r;
    hi[c] = r.scale.hi;
    lo[c] = r.scale.lo;
    rstd[c] = r.scale.rstd;
    any_wide = any_wide || r.is_wide;
  }
};

// A parameter that varies from set to set, or from element to element, but not both.
class ColumnParameter {
 public:
  NORMKIT_INLINE ColumnParameter(const Operand& operand, double offset, float missing)
      : reader_(operand, offset, missing), per_set_(!operand || operand.inner.constant(0, INT64_MAX)) {}

  static inline bool fits(const Operand& operand) {
    return !operand || operand.inner.constant(0, INT64_MAX) || operand.outer.count == 0;
  }

  NORMKIT_INLINE void begin_sets(int64_t first) {
    for (int c = 0; per_set_ && c < kColumns; ++c) sets_[c] = *reader_.block(first + c, 0, 1).data;
  }
  NORMKIT_INLINE void begin_block(int64_t begin, int length) {
    if (!per_set_) elements_ = reader_.block(0, begin, length);
  }
  // For all 16 sets, element i of the block.
  NORMKIT_INLINE Vec16<float> at(int i) const {
    return per_set_ ? Vec16<float>::load(sets_) : Vec16<float>::splat(elements_.data[i * elements_.step]);
  }
  NORMKIT_INLINE const float* sets() const { return sets_; }

 private:
  ParameterReader<float> reader_;
  bool per_set_;
  Parameter<float> elements_{nullptr, 0};
  alignas(64) float sets_[kColumns];
};

// ---- which problems, and their tiles ----

// The sets that lie side by side: the last outer axis.
NORMKIT_INLINE bool is_columns(const Operand& x) {
  return !x || (x.inner.count == 1 && x.outer.count > 0 && x.outer.stride[x.outer.count - 1] == 1);
}
NORMKIT_INLINE int64_t columns_of(const Operand& x) {
  return x.outer.size[x.outer.count - 1];
}

// For one read of `x` and operands like it. double has pairs in its lanes and takes the other way.
inline bool suits_columns(const RowsProblem& p, const Operand& a, const Operand& b) {
  if (!p.x || p.x.dtype == DType::kF64 || p.n < 2 || !is_columns(p.x) || !is_columns(a) || !is_columns(b))
    return false;
  if (p.statistic == Statistic::kRange || (p.statistic == Statistic::kNorm && p.power != 2.0)) return false;
  const int64_t columns = columns_of(p.x);
  return columns >= kColumns && (!a || columns_of(a) == columns) && (!b || columns_of(b) == columns) &&
         ColumnParameter::fits(p.weight);
}

// Tile `tile` of the sets: up to 16 neighbours.
struct ColumnTile {
  int64_t first;
  int count;
  NORMKIT_INLINE ColumnTile(const RowsProblem& p, int64_t tile) {
    const int64_t columns = columns_of(p.x), tiles = (columns + kColumns - 1) / kColumns;
    const int64_t begin = tile % tiles * kColumns, left = columns - begin;
    first = tile / tiles * columns + begin;
    count = static_cast<int>(left < kColumns ? left : kColumns);
  }
  static inline int64_t tiles(const RowsProblem& p) {
    const int64_t columns = columns_of(p.x);
    return p.rows / columns * ((columns + kColumns - 1) / kColumns);
  }
};

// ---- forward ----

template <typename T>
NORMKIT_NOINLINE void forward_columns(const RowsForward& p, int64_t begin, int64_t end) {
  alignas(64) T x_buffer[kBlock];
  alignas(64) T y_buffer[kBlock];
  ParameterReader<float> row_weight(p.weight, p.weight_offset, static_cast<float>(p.missing_weight));
  ParameterReader<float> row_bias(p.bias, 0.0, static_cast<float>(p.missing_bias));
  ColumnParameter weight(p.weight, p.weight_offset, static_cast<float>(p.missing_weight));
  ColumnParameter bias(p.bias, 0.0, static_cast<float>(p.missing_bias));
  const int64_t x_stride = p.x.inner.stride[0], y_stride = p.y ? p.y.inner.stride[0] : 0;
  for (int64_t t = begin; t < end; ++t) {
    const ColumnTile tile(p, t);
    RowStatistics statistics[kColumns];
    ColumnRows rows;
    const bool whole = tile.count == kColumns;
    if (whole) {
      if (!p.given) column_statistics(p, p.x.template row<const T>(tile.first), x_buffer, statistics);
      for (int c = 0; c < kColumns; ++c) {
        if (p.given) statistics[c] = given_statistics(p, tile.first + c);
        rows.set(c, row_from(statistics[c], false, 0.0f));
      }
    }
    if (!whole || rows.any_wide) {
      for (int c = 0; c < tile.count; c += kMaxTileRows) {
        const int left = tile.count - c;
        forward_rows<T>(p, tile.first + c, left < kMaxTileRows ? left : kMaxTileRows, row_weight, row_bias,
                        x_buffer, y_buffer);
      }
      continue;
    }
    for (int c = 0; !p.given && c < kColumns; ++c) save_statistics(p, tile.first + c, statistics[c]);
    if (!p.y) continue;
    const T* x = p.x.template row<const T>(tile.first);
    T* y = p.y.template row<T>(tile.first);
    const Vec16<float> hi = Vec16<float>::load(rows.hi), lo = Vec16<float>::load(rows.lo);
    const Vec16<float> rstd = Vec16<float>::load(rows.rstd);
    weight.begin_sets(tile.first);
    bias.begin_sets(tile.first);
    for (Blocks b(p); b.more(); b.next()) {
      weight.begin_block(b.begin, b.length);
      bias.begin_block(b.begin, b.length);
      for (int i = 0; i < b.length; ++i) {
        const int64_t at = b.begin + i;
        const Vec16<float> xhat = normalized(load16(x + at * x_stride), hi, lo, rstd);
        store16(y + at * y_stride, canonical(xhat * weight.at(i) + bias.at(i)));
      }
      if (p.activation != Activation::kNone)
        activate_runs(p.activation, y + b.begin * y_stride, y_stride, b.length, kColumns);
    }
  }
}

template <typename T>
void forward_columns_phase(const void* state, int64_t begin, int64_t end) {
  const FloatEnvironment environment;
  if constexpr (sizeof(Compute<T>) == sizeof(float))
    forward_columns<T>(*static_cast<const RowsForward*>(state), begin, end);
}

NORMKIT_END_NAMESPACE

#endif  // NORMKIT_DETAIL_COLUMNS_HPP_
