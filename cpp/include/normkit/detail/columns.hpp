// Sets side by side in memory: channels-last arrays, LayerNorm over the channels of NCHW.
//
// Neighbouring columns belong to neighbouring sets, or `fold` of them to one set (GroupNorm of channels-last
// arrays: its channels' statistics, merged in channel order). 16 columns are the lanes of a vector, and row i
// of a block goes to accumulator i mod 32: the 32 lanes of each column, added, chained and folded exactly as
// reduce.hpp and grad_sums.hpp do for one set at a time. Whatever needs more care than float goes back to
// those, column by column, so the bits are theirs.
//
// Memory is read in panels of up to kPanel columns, so that the lines and pages of a row are used as a whole.
// The last vector of a panel may overlap the one before it: both compute the same.
#ifndef NORMKIT_DETAIL_COLUMNS_HPP_
#define NORMKIT_DETAIL_COLUMNS_HPP_

#include "normkit/detail/rows.hpp"

NORMKIT_BEGIN_NAMESPACE

constexpr int kColumns = kVecLanes;
constexpr int kPanel = 64;                      // columns of a panel; the last one has up to 15 more,
constexpr int kPanelLanes = kPanel + kColumns;  // and this many lanes

NORMKIT_INLINE int vectors_of(int width) {
  return (width + kColumns - 1) / kColumns;
}
// Where vector v of a panel begins.
NORMKIT_INLINE int vector_at(int v, int width) {
  return kColumns * v + kColumns <= width ? kColumns * v : width - kColumns;
}

// ---- sums of a block ----

// 32 lanes of each column of a panel, kSums sums in each.
template <typename C, int kSums>
struct ColumnLanes {
  static constexpr int kPitch = kSums * kPanelLanes;
  alignas(64) C lane[size_t(kLanes)][size_t(kPitch)];

  // The totals of the columns, sum `which`.
  NORMKIT_NOINLINE void fold(int width, int which, C* to) const {
    for (int v = 0; v < vectors_of(width); ++v)
      folded<1>(lane[0] + which * kPanelLanes + v * kColumns).store(to + vector_at(v, width));
  }

 private:
  // Lane 0 once there are kLeft lanes, or another one, from where it lies.
  template <int kLeft>
  static NORMKIT_INLINE Vec16<C> folded(const C* from) {
    if constexpr (kLeft == kLanes)
      return Vec16<C>::load(from);
    else
      return folded<2 * kLeft>(from) + folded<2 * kLeft>(from + kLeft * kPitch);
  }
};

template <int kValue>
struct Steps {
  NORMKIT_INLINE constexpr operator int() const { return kValue; }
};

// Adds n rows to the lanes: chain(lane, row, column, steps, first) takes rows row, row + 32, ... of one
// vector, at most `most` of them: kChain where x is in a cache, so that sums stay in registers for as long; 1
// where it is not, which takes memory in its order.
template <typename C, int kSums, typename Chain>
NORMKIT_INLINE void add_to_lanes(int n, int width, int most, ColumnLanes<C, kSums>& lanes,
                                 const Chain& chain) {
  if (n < kLanes) memset(lanes.lane, 0, sizeof(lanes.lane));
  for (int i = 0; i < n;) {
    const int whole = (n - i) / kLanes, steps = whole > most ? most : whole > 0 ? whole : 1;
    for (int j = 0; j < kLanes && i + j < n; ++j) {
      for (int v = 0; v < vectors_of(width); ++v) {
        C* lane = lanes.lane[j] + v * kColumns;
        const int column = vector_at(v, width);
        if (steps == kChain)
          chain(lane, i + j, column, Steps<kChain>(), i == 0);
        else if (steps == 1)
          chain(lane, i + j, column, Steps<1>(), i == 0);
        else
          chain(lane, i + j, column, steps, i == 0);
      }
    }
    i += steps * kLanes;
  }
}

// x of a block: rows `stride` apart. What lies `ahead` elements behind is fetched meanwhile; 0: nothing is.
template <typename T>
struct ColumnBlock {
  const T* x;
  int64_t stride, ahead;

  NORMKIT_INLINE const T* at(int64_t row, int column) const { return x + row * stride + column; }
  NORMKIT_INLINE int steps() const { return ahead == 0 ? kChain : 1; }
  NORMKIT_INLINE void fetch(const T* from) const {
    prefetch(reinterpret_cast<uintptr_t>(from) + static_cast<uintptr_t>(ahead) * sizeof(T));
  }
};

// As block_sum: float is added in double, what is narrower in chains.
template <typename T>
struct SumChain {
  ColumnBlock<T> block;

  template <typename Count>
  NORMKIT_INLINE void operator()(double* lane, int row, int column, Count steps, bool first) const {
    Vec16<double> sum = first ? Vec16<double>::zero() : Vec16<double>::load(lane);
    Vec16<float> chain = Vec16<float>::zero();
    const T* at = block.at(row, column);
    for (int k = 0; k < steps; ++k, at += kLanes * block.stride) {
      if (block.ahead != 0) block.fetch(at);
      if constexpr (sizeof(T) < sizeof(float))
        chain = chain + load16(at);
      else
        sum = sum + widen16(at);
    }
    if constexpr (sizeof(T) < sizeof(float)) sum = sum + widen(chain);
    sum.store(lane);
  }
};

// (x - k)^2, or x^2: a chain in float, then added in double, as block_squares does.
template <bool kCentred, typename T>
struct SquareChain {
  ColumnBlock<T> block;
  const float* k;

  template <typename Count>
  NORMKIT_INLINE void operator()(double* lane, int row, int column, Count steps, bool first) const {
    const Vec16<float> shift = Vec16<float>::load(k + column);
    const T* at = block.at(row, column);
    Vec16<float> chain = Vec16<float>::zero();
    for (int step = 0; step < steps; ++step, at += kLanes * block.stride) {
      if (!kCentred && block.ahead != 0) block.fetch(at);
      Vec16<float> a = load16(at);
      if constexpr (kCentred) a = a - shift;
      chain = chain + a * a;
    }
    Vec16<double> sum = first ? Vec16<double>::zero() : Vec16<double>::load(lane);
    (sum + widen(chain)).store(lane);
  }
};

// ---- the tree ----

// Of each column of a panel: a mean and a sum of squared deviations, or two plain sums.
struct ColumnPartial {
  alignas(64) double first[kPanelLanes], second[kPanelLanes];
};

// MergeTree for all columns of a panel.
class ColumnTree {
 public:
  static constexpr int kMaxRanks = 24;

  // centred: partials are moments, merged by Chan's formula; else sums.
  NORMKIT_INLINE void begin(int width, bool centred) {
    width_ = width;
    centred_ = centred;
    filled_ = 0;
  }

  NORMKIT_NOINLINE void push(double count, const double* first, const double* second) {
    int rank = 0;
    while ((filled_ >> rank) & 1u) ++rank;
    for (int v = 0; v < vectors_of(width_); ++v) {
      const int at = vector_at(v, width_);
      Pair16 sum{count, Vec16<double>::load(first + at), Vec16<double>::load(second + at)};
      for (int k = 0; k < rank; ++k) sum = merged(load(k, at), sum);
      store(rank, at, sum);
    }
    filled_ = ((filled_ >> rank) | 1u) << rank;
  }

  // At least one partial was pushed.
  NORMKIT_NOINLINE void finish(ColumnPartial& to) const {
    for (int v = 0; v < vectors_of(width_); ++v) {
      const int at = vector_at(v, width_);
      int rank = 0;
      while (!((filled_ >> rank) & 1u)) ++rank;
      Pair16 total = load(rank, at);
      for (++rank; filled_ >> rank; ++rank)
        if ((filled_ >> rank) & 1u) total = merged(load(rank, at), total);
      total.first.store(to.first + at);
      total.second.store(to.second + at);
    }
  }

 private:
  struct Pair16 {
    double count;
    Vec16<double> first, second;
  };
  NORMKIT_INLINE Pair16 load(int rank, int at) const {
    return {count_[rank], Vec16<double>::load(level_[rank].first + at),
            Vec16<double>::load(level_[rank].second + at)};
  }
  NORMKIT_INLINE void store(int rank, int at, const Pair16& sum) {
    count_[rank] = sum.count;
    sum.first.store(level_[rank].first + at);
    sum.second.store(level_[rank].second + at);
  }
  NORMKIT_INLINE Pair16 merged(const Pair16& a, const Pair16& b) const {
    if (!centred_) return {a.count + b.count, a.first + b.first, a.second + b.second};
    const double n = a.count + b.count;  // as merge(Moments<float>, Moments<float>)
    const Vec16<double> d = b.first - a.first;
    return {n, a.first + d * Vec16<double>::splat(b.count / n),
            a.second + b.second + d * d * Vec16<double>::splat(a.count * b.count / n)};
  }

  int width_ = 0;
  bool centred_ = false;
  uint64_t filled_ = 0;
  double count_[kMaxRanks];
  ColumnPartial level_[kMaxRanks];
};

// ---- which problems, and their panels ----

// `total` columns in pieces of `unit`; less than a vector goes with the last piece.
struct Pieces {
  int64_t total, unit, count;

  NORMKIT_INLINE Pieces(int64_t total_, int64_t unit_)
      : total(total_), unit(unit_), count(total_ / unit_ + (total_ % unit_ >= kColumns ? 1 : 0)) {
    if (count == 0) count = 1;
  }
  NORMKIT_INLINE int64_t begin(int64_t k) const { return k * unit; }
  NORMKIT_INLINE int64_t width(int64_t k) const { return k + 1 == count ? total - k * unit : unit; }
};

// Columns begin .. begin+width-1 of one outer index.
struct Panel {
  int64_t outer, begin;
  int width;
};

// The elements as [outer, rows, columns], columns next to each other. A bundle is as many panels as hold
// whole sets: one, unless a set is wider.
struct ColumnsShape {
  int64_t outer = 0, rows = 0, columns = 0, fold = 1;  // columns 0: they are not side by side
  int64_t bundle_unit = kPanel;

  NORMKIT_INLINE ColumnsShape() {}
  inline explicit ColumnsShape(const RowsProblem& p) : fold(p.channels_last ? p.n / p.segment : 1) {
    if (!p.x) return;
    rows = p.n / fold;
    const Axes& out = p.x.outer;
    const bool neighbours = out.count > 0 && out.stride[out.count - 1] == fold;
    if (!lies(p.x) || (fold == 1 && !neighbours)) return;
    columns = neighbours ? fold * out.size[out.count - 1] : fold;
    outer = p.rows / (columns / fold);
    bundle_unit = fold > kPanel ? fold : kPanel / fold * fold;
  }

  // Whether `a` has its columns side by side as well.
  inline bool fits(const Operand& a) const {
    if (!a) return true;
    const int last = a.outer.count - 1;
    return lies(a) && (columns == fold ||
                       (last >= 0 && a.outer.stride[last] == fold && a.outer.size[last] * fold == columns));
  }

  NORMKIT_INLINE int64_t sets_of_outer() const { return columns / fold; }
  NORMKIT_INLINE Pieces bundles() const { return {columns, bundle_unit}; }
  NORMKIT_INLINE int64_t panels_of_bundle() const { return fold > kPanel ? Pieces(fold, kPanel).count : 1; }
  NORMKIT_INLINE int64_t panels() const { return bundles().count * panels_of_bundle(); }
  NORMKIT_INLINE Panel panel(int64_t o, int64_t index) const {
    const int64_t each = panels_of_bundle();
    const Pieces whole = bundles(), parts(whole.width(index / each), kPanel);
    return {o, whole.begin(index / each) + parts.begin(index % each),
            static_cast<int>(parts.width(index % each))};
  }
  // The set of a column.
  NORMKIT_INLINE int64_t set(int64_t o, int64_t column) const { return o * sets_of_outer() + column / fold; }

  static NORMKIT_INLINE int64_t stride(const Operand& a) { return a.inner.stride[a.inner.count - 1]; }
  template <typename T>
  NORMKIT_INLINE T* at(const Operand& a, const Panel& panel) const {
    return a.template row<T>(panel.outer * sets_of_outer()) + panel.begin;
  }
  // Of one column.
  NORMKIT_INLINE Blocks blocks(const RowsProblem& p) const {
    return fold == 1 ? Blocks(p) : Blocks(rows, rows, longest_block(rows));
  }

 private:
  inline bool lies(const Operand& a) const {
    const Axes& in = a.inner;
    return fold == 1 ? in.count == 1 : in.count == 2 && in.size[0] == fold && in.stride[0] == 1;
  }
};

// Weight or bias as one number for each column, or, along the rows, one for each row and all columns.
NORMKIT_INLINE bool is_along_rows(const Operand& parameter, const ColumnsShape& shape) {
  return parameter && shape.fold == 1 && !parameter.inner.constant(0, INT64_MAX);
}
inline bool is_column_parameter(const Operand& parameter, const ColumnsShape& shape) {
  return !is_along_rows(parameter, shape) || parameter.outer.count == 0;
}

// double has pairs in its lanes and takes the other way.
inline bool suits_columns(const RowsProblem& p, const ColumnsShape& shape, const Operand& a,
                          const Operand& b) {
  if (!p.x || p.x.dtype == DType::kF64 || p.n < 2 || shape.columns < kColumns) return false;
  if (p.statistic == Statistic::kRange || (p.statistic == Statistic::kNorm && p.power != 2.0)) return false;
  return shape.rows >> (ColumnTree::kMaxRanks + 9) == 0 && shape.fits(a) && shape.fits(b) &&
         is_column_parameter(p.weight, shape);
}

// Column c's number of a parameter: missing ones are `missing`.
inline NORMKIT_NOINLINE void column_parameter(const Operand& parameter, const ColumnsShape& shape,
                                              const Panel& panel, double offset, float missing, float* to) {
  const int last = parameter.outer.count - 1;
  const int64_t set = shape.set(panel.outer, panel.begin);
  const bool straight = parameter && parameter.dtype == DType::kF32 && shape.fold == 1 && last >= 0 &&
                        parameter.outer.stride[last] == 1 && parameter.outer.size[last] % shape.columns == 0;
  if (straight) memcpy(to, parameter.row<const float>(set), static_cast<size_t>(panel.width) * sizeof(float));
  for (int c = 0; c < panel.width; ++c) {
    if (!parameter) {
      to[c] = missing;
      continue;
    }
    if (!straight) {
      const int64_t column = panel.begin + c;
      to[c] = static_cast<float>(
          read_number(parameter, parameter.outer.offset(shape.set(panel.outer, column)) +
                                     parameter.inner.offset(column % shape.fold * shape.rows)));
    }
    if (offset != 0.0) to[c] += static_cast<float>(offset);
  }
}

// ---- statistics ----

// Of the sets of a bundle.
struct ColumnStatistics {
  alignas(64) double mean[kPanelLanes] = {}, var[kPanelLanes] = {}, rstd[kPanelLanes] = {};
  double count[kPanelLanes];
};

template <typename T>
struct ColumnBuffers {
  alignas(64) T column[kBlock];
  alignas(64) T other_column[kBlock];
  union {  // never at once
    ColumnLanes<double, 1> sums;
    ColumnLanes<float, 2> grad_sums;
  };
  ColumnPartial block = {}, total = {};
  ColumnTree tree;

  NORMKIT_INLINE ColumnBuffers() {}
};

// Column c as a block of its own.
template <typename T>
NORMKIT_INLINE const T* one_column(const T* x, int64_t stride, int n, int c, T* buffer) {
  for (int i = 0; i < n; ++i) buffer[i] = x[i * stride + c];
  return buffer;
}

// Moments, or sums of squares, of n rows of each column: block_moments.
template <typename T>
NORMKIT_NOINLINE void block_column_moments(const ColumnBlock<T>& block, int n, int width, bool centred,
                                           ColumnBuffers<T>& buffers, double* mean, double* squares) {
  using Vec = Vec16<double>;
  alignas(64) float k[kPanelLanes];
  ColumnPartial& own = buffers.block;
  if (centred) {
    const int most = sizeof(T) < sizeof(float) ? kChain : block.steps();
    add_to_lanes(n, width, most, buffers.sums, SumChain<T>{block});
    buffers.sums.fold(width, 0, own.first);
    for (int c = 0; c < width; c += kColumns) {
      const Vec average = Vec::load(own.first + c) / Vec::splat(static_cast<double>(n));
      average.store(own.first + c);
      narrow16(average).store(k + c);
    }
    add_to_lanes(n, width, kChain, buffers.sums, SquareChain<true, T>{{block.x, block.stride, 0}, k});
  } else {
    add_to_lanes(n, width, kChain, buffers.sums, SquareChain<false, T>{block, k});
  }
  buffers.sums.fold(width, 0, own.second);
  for (int c = 0; c < width; ++c) {
    const double sum = own.second[c];
    const DoublePair average{own.first[c], 0.0};
    if (NORMKIT_LIKELY(squares_in_range(sum))) {
      mean[c] = average.high;
      squares[c] = centred ? moments_about<float>(n, average, static_cast<double>(k[c]), sum).m2 : sum;
      continue;
    }
    const T* column = one_column(block.x, block.stride, n, c, buffers.column);
    if (centred) {
      const Moments<float> m = block_moments(column, n, block_sum(column, n));
      mean[c] = m.mean;
      squares[c] = m.m2;
    } else {
      squares[c] = block_sum_of_squares(column, n);
    }
  }
}

// How far ahead of an element memory is fetched, in elements; 0: it lies in a cache. A short column's
// neighbours are the next panel.
constexpr int64_t kFarBytes = int64_t(4) << 20, kFarRows = 256;
NORMKIT_INLINE int64_t fetched_ahead(const RowsProblem& p, const ColumnsShape& shape, const Operand& a,
                                     int width) {
  if (p.rows < kFarBytes / (p.n * a.bytes())) return 0;
  return shape.rows <= kFarRows ? width : 2 * kLanes * shape.stride(a);
}

// Into buffers.total: the moments of each column of a panel, from its blocks, or from `partials` that an
// earlier phase left: [block, 2, columns] of this outer index.
template <typename T>
NORMKIT_NOINLINE void panel_moments(const RowsProblem& p, const ColumnsShape& shape, const Panel& panel,
                                    const double* partials, ColumnBuffers<T>& buffers) {
  const T* x = shape.at<const T>(p.x, panel);
  const int64_t stride = shape.stride(p.x), ahead = fetched_ahead(p, shape, p.x, panel.width);
  ColumnPartial& total = buffers.total;
  Blocks b = shape.blocks(p);
  const bool one_block = partials == nullptr && b.only_one();
  buffers.tree.begin(panel.width, p.centred());
  for (; b.more(); b.next()) {
    if (partials != nullptr) {
      buffers.tree.push(b.length, partials + panel.begin, partials + shape.columns + panel.begin);
      partials += 2 * shape.columns;
    } else {
      block_column_moments(ColumnBlock<T>{x + b.begin * stride, stride, ahead}, b.length, panel.width,
                           p.centred(), buffers, total.first, total.second);
      if (!one_block) buffers.tree.push(b.length, total.first, total.second);
    }
  }
  if (!one_block) buffers.tree.finish(total);
}

// From means and sums of squares to what is applied: statistics_from, 16 sets at a time.
inline NORMKIT_NOINLINE void finish_statistics(const RowsProblem& p, int sets, ColumnStatistics& s) {
  using Vec = Vec16<double>;
  if (p.statistic == Statistic::kNorm || p.flat_is_zero) {
    for (int c = 0; c < sets; ++c) {
      const RowStatistics one = p.centred() ? statistics_from(p, s.mean[c], 0.0, s.var[c], 1.0)
                                            : statistics_of_squares(p, s.var[c], 1.0);
      s.var[c] = one.var;
      s.rstd[c] = one.rstd;
      s.count[c] = one.count;
    }
    return;
  }
  const Vec n = Vec::splat(static_cast<double>(p.n)), eps = Vec::splat(p.eps), one = Vec::splat(1.0);
  for (int c = 0; c < sets; c += kColumns) {
    (Vec::load(s.var + c) / n).store(s.var + c);
    for (int i = c; i < c + kColumns; ++i) s.var[i] = s.var[i] < 0.0 ? 0.0 : s.var[i];
    (one / square_root(Vec::load(s.var + c) + eps)).store(s.rstd + c);
    n.store(s.count + c);
  }
}

// Statistics of the sets of a bundle, from its elements or from partials.
template <typename T>
NORMKIT_NOINLINE void bundle_statistics(const RowsProblem& p, const ColumnsShape& shape, int64_t o,
                                        int64_t bundle, const double* partials, ColumnBuffers<T>& buffers,
                                        ColumnStatistics& s) {
  MergeTree<Moments<float>> moments;
  MergeTree<Sums> squares;
  const double rows = static_cast<double>(shape.rows);
  int64_t taken = 0;
  int sets = 0;
  for (int64_t k = 0; k < shape.panels_of_bundle(); ++k) {
    const Panel panel = shape.panel(o, bundle * shape.panels_of_bundle() + k);
    panel_moments(p, shape, panel, partials, buffers);
    const ColumnPartial& m = buffers.total;
    if (shape.fold == 1) {
      sets = panel.width;
      if (p.centred()) memcpy(s.mean, m.first, sizeof(s.mean));
      memcpy(s.var, m.second, sizeof(s.var));
      continue;
    }
    for (int c = 0; c < panel.width; ++c) {
      if (p.centred())
        moments.push({rows, m.first[c], 0.0, m.second[c]});
      else
        squares.push({m.second[c], 0.0});
      if (++taken < shape.fold) continue;
      const Moments<float> set =
          p.centred() ? moments.finish() : Moments<float>{0, 0, 0, squares.finish().first};
      s.mean[sets] = set.mean;
      s.var[sets++] = set.m2;
      moments = {};
      squares = {};
      taken = 0;
    }
  }
  finish_statistics(p, sets, s);
}

// The same, as the caller gave them.
inline NORMKIT_NOINLINE void given_column_statistics(const RowsProblem& p, const ColumnsShape& shape,
                                                     int64_t o, int64_t bundle, ColumnStatistics& s) {
  const Pieces bundles = shape.bundles();
  const int64_t first = shape.set(o, bundles.begin(bundle)), sets = bundles.width(bundle) / shape.fold;
  for (int64_t c = 0; c < sets; ++c) {
    const RowStatistics one = given_statistics(p, first + c);
    s.mean[c] = one.mean;
    s.rstd[c] = one.rstd;
    s.count[c] = one.count;
  }
}

NORMKIT_END_NAMESPACE

#endif  // NORMKIT_DETAIL_COLUMNS_HPP_
