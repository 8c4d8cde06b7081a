// Backward over rows: see rows.hpp for the phases.
#ifndef NORMKIT_DETAIL_ROWS_BACKWARD_HPP_
#define NORMKIT_DETAIL_ROWS_BACKWARD_HPP_

#include "normkit/detail/add_block.hpp"
#include "normkit/detail/rows.hpp"

NORMKIT_BEGIN_NAMESPACE

// The forward's statistics as they would have been saved.
NORMKIT_INLINE RowStatistics as_saved(const RowStatistics& s) {
  return {s.mean / s.scale, 0.0, s.var / s.scale, s.rstd * s.scale, 1.0, s.count};
}

// Whether a saved rstd has all its digits, and dx = (...) rstd needs no scale. (NaN: nothing has digits.)
NORMKIT_INLINE bool keeps_digits(double rstd) {
  return !(rstd < 0x1p-1000) && !(rstd > 0x1p1000);
}
// Whether the statistics of double elements are to be found again from x: those that one double cannot hold.
NORMKIT_INLINE bool saved_in_vain(const RowsBackward& p, const RowStatistics& saved) {
  return !p.given && !p.sum_dy && !keeps_digits(saved.rstd);
}

// The rows of a tile as backward applies them: from the saved statistics, or from the forward's computed
// again, as they would have been saved. Double elements need the digits of the mean that one double cannot
// hold; they are found again from x, so that saved and recomputed statistics give the same bits. Near the
// ends of double's range everything is.
template <typename T>
NORMKIT_NOINLINE void find_rows(const RowsBackward& p, int64_t first, const T* const* x_row, int count,
                                T* buffer, Row<Compute<T>>* row) {
  RowStatistics statistics[kTileRows];
  if (!p.rstd) row_statistics(p, x_row, count, buffer, statistics);
  for (int r = 0; r < count; ++r) {
    RowStatistics s = p.rstd ? given_statistics(p, first + r) : as_saved(statistics[r]);
    if constexpr (sizeof(T) == sizeof(double)) {
      if (saved_in_vain(p, s)) {
        if (p.rstd) row_statistics(p, x_row + r, 1, buffer, statistics + r);
        s = statistics[r];
      } else if (p.centred() && !p.given && !p.sum_dy) {  // of larger sets the mean is not x's
        MergeTree<Sums> tree;
        for (Blocks b(p); b.more(); b.next()) {
          const T* x = block_of(p.x, x_row[r], b.begin, b.length, buffer);
          tree.push({wide_block_sum<1>(x, b.length, s.mean), 0.0});
        }
        s.mean_low = tree.finish().first / static_cast<double>(p.n);
      }
    }
    row[r] = row_from(s, Compute<T>());
  }
}

// The same; from what an earlier phase found, where one did.
template <typename T>
NORMKIT_INLINE void backward_rows(const RowsBackward& p, int64_t first, const T* const* x_row, int count,
                                  T* buffer, Row<Compute<T>>* row) {
  if (NORMKIT_LIKELY(p.ready == nullptr)) return find_rows(p, first, x_row, count, buffer, row);
  for (int r = 0; r < count; ++r) row[r] = row_from(p.ready[first + r], Compute<T>());
}

// dx of a row needs these two means besides its statistics.
template <typename C>
struct RowGrad {
  double mean_g, mean_gxhat;
  bool is_wide;
};

// A block of dy and x by what its sweeps return: see MemoryBlock.
template <typename T>
struct MemoryGrads {
  using C = Compute<T>;
  const T *dy, *x;
  int n;
  Parameter<C> weight;
  FetchAhead ahead;

  NORMKIT_INLINE Pair<C> sums(const RowScale<C>& row) const {
    return block_grad_sums(dy, x, n, row, weight, ahead);
  }
  NORMKIT_INLINE Sums wide_sums(const WideRow<C>& row) const {
    return wide_block_grad_sums(dy, x, n, row, weight);
  }
};

// `overflows` is set where the terms leave float's range: dx is then applied in double.
template <typename Grads, typename C>
NORMKIT_INLINE Sums grad_sums_of(const Grads& block, const Row<C>& row, bool& overflows) {
  if (NORMKIT_LIKELY(!row.is_wide)) {
    const Pair<C> s = block.sums(row.scale);
    const Sums sums{static_cast<double>(s.first), static_cast<double>(s.second)};
    if (sizeof(C) == sizeof(double) || NORMKIT_LIKELY(is_finite(sums.first) && is_finite(sums.second)))
      return sums;
    overflows = true;
  }
  return block.wide_sums(row.wide);
}
template <typename T>
NORMKIT_INLINE Sums grad_sums(const T* dy, const T* x, int n, const Row<Compute<T>>& row,
                              Parameter<Compute<T>> weight, bool& overflows, FetchAhead ahead = {}) {
  return grad_sums_of(MemoryGrads<T>{dy, x, n, weight, ahead}, row, overflows);
}

template <typename C>
NORMKIT_INLINE RowGrad<C> row_grad(const RowsProblem& p, const Row<C>& row, Sums sums, bool overflows) {
  const double mean_g = p.centred() ? sums.first / row.count : 0.0;
  const double mean_gxhat = sums.second / row.count;
  const bool in_range =
      mean_g > -0x1p100 && mean_g < 0x1p100 && mean_gxhat > -0x1p100 && mean_gxhat < 0x1p100;
  return {mean_g, mean_gxhat, row.is_wide || (sizeof(C) == sizeof(float) && (overflows || !in_range))};
}

// Sums of one group's panels. A line holds dweight, then dbias, each padded to whole vectors; scratch holds a
// line of C (the chain of the panel at hand) and the levels of the merge tree, lines of double.
template <typename C>
class PanelSums {
 public:
  static inline int64_t bytes(int64_t n, int64_t group_panels) {
    int64_t levels = 1;
    while ((int64_t(1) << (levels - 1)) < group_panels) ++levels;
    return line(n) * static_cast<int64_t>(sizeof(C)) +
           levels * line(n) * static_cast<int64_t>(sizeof(double));
  }

  // Where a group's scratch keeps the finished sums: of dweight (which = 0) or dbias (which = 1).
  static inline const double* total(const char* scratch, int64_t n, int which) {
    return reinterpret_cast<const double*>(scratch + line(n) * static_cast<int64_t>(sizeof(C))) +
           which * (line(n) / 2);
  }

  inline PanelSums(char* scratch, int64_t n)
      : line_(line(n)),
        chain_(reinterpret_cast<C*>(scratch)),
        tree_(reinterpret_cast<double*>(scratch + line_ * static_cast<int64_t>(sizeof(C))), line_) {}

  inline void begin_panel() { memset(chain_, 0, static_cast<size_t>(line_) * sizeof(C)); }
  inline C* dweight() { return chain_; }
  inline C* dbias() { return chain_ + line_ / 2; }
  inline void end_panel() { tree_.push(chain_); }
  inline void finish() { tree_.finish(); }

 private:
  static inline int64_t line(int64_t n) { return (n + kVecLanes - 1) / kVecLanes * kVecLanes * 2; }

  int64_t line_;
  C* chain_;
  LineTree tree_;
};

// A strided tile is gathered in strips this wide for its column sums.
constexpr int kStrip = 128;

template <typename T>
struct BackwardBuffers {
  alignas(64) T x[kTileRows * kStrip];
  alignas(64) T dy[kTileRows * kStrip];
  alignas(64) T dx[kBlock];
  alignas(64) Compute<T> unrounded[kBlock];
};
static_assert(kTileRows * kStrip == kBlock, "a strip of a tile and a block of a row share a buffer");

// Rows first .. first+count-1, and a tile of them.
template <typename T>
NORMKIT_INLINE TileRows<T> make_tile(const RowsBackward& p, int64_t first, int count, T* buffer,
                                     Row<Compute<T>>* row) {
  TileRows<T> tile;
  tile.count = count;
  tile.any_wide = false;
  for (int r = 0; r < count; ++r) {
    tile.x[r] = p.x.template row<const T>(first + r);
    tile.dy[r] = p.dy.template row<const T>(first + r);
  }
  backward_rows(p, first, tile.x, count, buffer, row);
  for (int r = 0; r < count; ++r) {
    tile.scale[r] = row[r].scale;
    tile.wide[r] = row[r].wide;
    tile.is_wide[r] = row[r].is_wide;
    tile.any_wide = tile.any_wide || row[r].is_wide;
  }
  return tile;
}

// Adds columns begin .. end-1 of a tile to the chains of a panel.
template <typename T>
NORMKIT_NOINLINE void add_columns(const RowsBackward& p, const TileRows<T>& tile, int64_t begin, int64_t end,
                                  BackwardBuffers<T>& buffers, Compute<T>* dweight, Compute<T>* dbias) {
  const bool contiguous = p.x.inner.contiguous() && p.dy.inner.contiguous();
  const int64_t width = contiguous ? kBlock : kStrip;
  for (int64_t i = begin; i < end; i += width) {
    const int length = static_cast<int>(end - i < width ? end - i : width);
    TileRows<T> strip = tile;
    for (int r = 0; r < tile.count; ++r) {
      strip.x[r] = block_of(p.x, tile.x[r], i, length, buffers.x + r * kStrip);
      strip.dy[r] = block_of(p.dy, tile.dy[r], i, length, buffers.dy + r * kStrip);
    }
    add_tile_columns(strip, length, dweight + (i - begin), dbias + (i - begin));
  }
}

// dx = (g - dN/dx sum(g xhat)) rstd for a norm N of an order other than 2, in double.
template <typename T>
NORMKIT_NOINLINE void norm_grad_block(const RowsBackward& p, const T* dy, const T* x, T* dx, int n,
                                      const Row<Compute<T>>& row, double mean_gxhat,
                                      Parameter<Compute<T>> weight) {
  for (int i = 0; i < n; ++i) {
    const double g = read<double>(dy + i) * static_cast<double>(weight.data[weight.step ? i : i % kVecLanes]);
    const double v = read<double>(x + i);
    const double slope = norm_slope(p.power, v, v * row.wide.scale, wide_normalized(v, row.wide), row.norm);
    write(dx + i, (g - slope * mean_gxhat) * row.wide.rstd * row.wide.scale);
  }
}

// dx of one block by a row's scale, in its type or before its last rounding. Past the cache where that is
// wanted and `straight`: dx is the caller's memory.
template <typename T, typename D>
NORMKIT_INLINE void scale_grad_block(const RowsBackward& p, const T* dy, const T* x, D* dx, int n,
                                     const RowScale<Compute<T>>& row, const RowGrad<Compute<T>>& grad,
                                     Parameter<Compute<T>> weight, bool straight) {
  using C = Compute<T>;
  const C a = static_cast<C>(grad.mean_g), b = static_cast<C>(grad.mean_gxhat);
  if (!p.stream || !straight) return apply_grad_block<false>(dy, x, dx, n, row, a, b, weight, {});
  const int head = before_line(dx, n);
  if (head > 0) apply_grad_block<false>(dy, x, dx, head, row, a, b, weight, {});
  apply_grad_block<true>(dy + head, x + head, dx + head, n - head, row, a, b, weight.from(head), p.fetch);
}

template <typename T, typename D>
NORMKIT_INLINE void grad_block(const RowsBackward& p, const T* dy, const T* x, D* dx, int n,
                               const Row<Compute<T>>& row, const RowGrad<Compute<T>>& grad,
                               Parameter<Compute<T>> weight, bool straight) {
  if (NORMKIT_LIKELY(!grad.is_wide))
    scale_grad_block(p, dy, x, dx, n, row.scale, grad, weight, straight);
  else
    wide_apply_grad_block(dy, x, dx, n, row.wide, grad.mean_g, grad.mean_gxhat, weight);
}

// dx of one row, block by block.
template <typename T>
NORMKIT_NOINLINE void write_dx(const RowsBackward& p, int64_t r, const T* dy_row, const T* x_row,
                               const Row<Compute<T>>& row, const RowGrad<Compute<T>>& grad,
                               ParameterReader<Compute<T>>& weight, BackwardBuffers<T>& buffers) {
  using C = Compute<T>;
  T* dx_row = p.dx.template row<T>(r);
  C no_bias[kVecLanes];
  for (C& zero : no_bias) zero = C(-0.0);
  const bool whole = !p.dsum && stays_whole(p, p.dx) && stays_whole(p, p.dy);
  for (Blocks b = Blocks::apply(p, whole); b.more(); b.next()) {
    const T* x = block_of(p.x, x_row, b.begin, b.length, buffers.x);
    const T* dy = block_of(p.dy, dy_row, b.begin, b.length, buffers.dy);
    T* straight = straight_block(p.dx.inner, dx_row, b.begin, b.length);
    T* dx = straight != nullptr ? straight : buffers.dx;
    const Parameter<C> w = weight.block(r, b.begin, b.length);
    if (p.given) {  // constants: dx = dy rstd weight, and x plays no part
      const Row<C> row_of_dy = {
          {C(0), C(0), row.scale.rstd}, {0.0, 0.0, row.wide.rstd, row.wide.scale}, row.is_wide, 1.0, 0.0};
      forward_block(row_of_dy, dy, dx, b.length, false, w, {no_bias, 0}, 0);
      if (straight == nullptr) scatter(dx, p.dx.inner, b.begin, b.length, dx_row);
      continue;
    }
    if (p.statistic == Statistic::kNorm && p.power != 2.0) {
      norm_grad_block(p, dy, x, dx, b.length, row, grad.mean_gxhat, w);
    } else if (NORMKIT_LIKELY(!p.dsum)) {
      grad_block(p, dy, x, dx, b.length, row, grad, w, straight != nullptr);
    } else {
      grad_block(p, dy, x, buffers.unrounded, b.length, row, grad, w, false);
      const T* dsum_row = p.dsum.template row<const T>(r);
      const T* dsum = block_of(p.dsum, dsum_row, b.begin, b.length, buffers.dy);
      add_block(buffers.unrounded, dsum, {no_bias, 0}, dx, b.length);
    }
    if (straight == nullptr) scatter(dx, p.dx.inner, b.begin, b.length, dx_row);
  }
}

// Up to 8 rows: row sums, column sums, dx, while dy and x lie in the cache. dx is last: it may overwrite
// either.
template <typename T>
NORMKIT_NOINLINE void backward_tile(const RowsBackward& p, int64_t first, int count,
                                    ParameterReader<Compute<T>>& weight, BackwardBuffers<T>& buffers,
                                    PanelSums<Compute<T>>* sums) {
  using C = Compute<T>;
  Row<C> row[kTileRows];
  const TileRows<T> tile = make_tile(p, first, count, buffers.x, row);
  RowGrad<C> grad[kTileRows];
  if (p.dx) {
    MergeTree<Sums> tree[kTileRows];
    bool overflows[kTileRows] = {};
    for (Blocks b(p); b.more(); b.next()) {
      for (int r = 0; r < count; ++r) {
        const T* x = block_of(p.x, tile.x[r], b.begin, b.length, buffers.x);
        const T* dy = block_of(p.dy, tile.dy[r], b.begin, b.length, buffers.dy);
        tree[r].push(grad_sums(dy, x, b.length, row[r], weight.block(first + r, b.begin, b.length),
                               overflows[r], p.fetch));
      }
    }
    for (int r = 0; r < count; ++r) grad[r] = row_grad<C>(p, row[r], tree[r].finish(), overflows[r]);
  }
  if (sums != nullptr) add_columns(p, tile, 0, p.n, buffers, sums->dweight(), sums->dbias());
  if (p.dx)
    for (int r = 0; r < count; ++r)
      write_dx(p, first + r, tile.dy[r], tile.x[r], row[r], grad[r], weight, buffers);
}

// Phase 2: one task adds the groups of kColumnTask columns and writes the parameter gradients.
constexpr int kColumnTask = 64;

// Gradients of parameters first .. first+count-1, rounded once to their type.
template <typename W>
NORMKIT_INLINE void write_gradients_as(const Operand& operand, int64_t first, const double* values, int count,
                                       bool accumulate) {
  W* data = reinterpret_cast<W*>(operand.data);
  const bool contiguous = operand.inner.contiguous();
  for (int i = 0; i < count; ++i) {
    W* to = data + (contiguous ? first + i : operand.inner.offset(first + i));
    write(to, accumulate ? read<double>(to) + values[i] : values[i]);
  }
}

NORMKIT_INLINE void write_gradients(const Operand& operand, int64_t first, const double* values, int count,
                                    bool accumulate) {
  if (!operand) return;
  switch (operand.dtype) {
    case DType::kF32:
      return write_gradients_as<float>(operand, first, values, count, accumulate);
    case DType::kF64:
      return write_gradients_as<double>(operand, first, values, count, accumulate);
    case DType::kF16:
      return write_gradients_as<Float16>(operand, first, values, count, accumulate);
    case DType::kBF16:
      return write_gradients_as<BFloat16>(operand, first, values, count, accumulate);
  }
}

template <typename C>
NORMKIT_NOINLINE void add_groups(const RowsBackward& p, int64_t begin, int64_t end) {
  alignas(64) double levels[kMaxRanks * kColumnTask];
  const Operand* outputs[] = {&p.dweight, &p.dbias};
  for (int64_t task = begin; task < end; ++task) {
    const int64_t first = task * kColumnTask;
    const int64_t left = p.n - first, count = left < kColumnTask ? left : kColumnTask;
    for (int which = 0; which < 2; ++which) {
      if (!*outputs[which]) continue;
      LineTree tree(levels, (count + kVecLanes - 1) / kVecLanes * kVecLanes);
      for (int64_t g = 0; g < p.groups; ++g)
        tree.push(PanelSums<C>::total(p.scratch + g * p.group_bytes, p.n, which) + first);
      tree.finish();
      write_gradients(*outputs[which], first, levels, static_cast<int>(count), p.accumulate);
    }
  }
}

template <typename C>
void add_groups_phase(const void* state, int64_t begin, int64_t end) {
  const FloatEnvironment environment;
  add_groups<C>(*static_cast<const RowsBackward*>(state), begin, end);
}

// ---- sets whose parameters are scalars per channel (BatchNorm, InstanceNorm, GroupNorm) ----

NORMKIT_INLINE Sums weighted(Sums total, double weight, Sums sums) {
  return {total.first + weight * sums.first, total.second + weight * sums.second};
}
NORMKIT_INLINE Sums larger_sums(const RowsBackward& p, int64_t r) {
  return {read_number(p.sum_dy, p.sum_dy.outer.offset(r)),
          read_number(p.sum_dy_xhat, p.sum_dy_xhat.outer.offset(r))};
}

// The gradients of a channel's parameters.
NORMKIT_INLINE void write_channel(const RowsBackward& p, int64_t channel, Sums sums) {
  write_gradients(p.dweight, channel, &sums.second, 1, p.accumulate);
  write_gradients(p.dbias, channel, &sums.first, 1, p.accumulate);
}

// The weight of element i of set r, as C.
template <typename C>
NORMKIT_INLINE C weight_of(const RowsBackward& p, int64_t r, int64_t i) {
  const int64_t at = p.weight.outer.offset(r) + p.weight.inner.offset(i);
  return p.weight ? static_cast<C>(read_number(p.weight, at)) : C(1);
}

// The sums of a channel of a sample, `index` counting both. Those of an only sample are the gradients.
NORMKIT_INLINE void keep_sums(const RowsBackward& p, int64_t index, Sums sums) {
  if (p.channel_sums)
    p.channel_sums.push(index, sums);
  else if (p.samples == 1)
    write_channel(p, index, sums);
}

// grad_sums of one element, of weight 1: it is lane 0.
template <typename T>
NORMKIT_INLINE Sums element_sums(const T* dy, const T* x, const Row<Compute<T>>& row, bool& overflows) {
  using C = Compute<T>;
  if (NORMKIT_LIKELY(!row.is_wide)) {
    const C g = read<C>(dy);
    const C product = g * normalized(read<C>(x), row.scale.hi, row.scale.lo, row.scale.rstd);
    const Sums sums{static_cast<double>(C(0) + g), static_cast<double>(C(0) + product)};
    if (sizeof(C) == sizeof(double) || NORMKIT_LIKELY(is_finite(sums.first) && is_finite(sums.second)))
      return sums;
    overflows = true;
  }
  const double g = read<double>(dy);
  return {0.0 + g, 0.0 + g * wide_normalized(read<double>(x), row.wide)};
}

// The sums of segment s of set r, whose rows these are.
template <typename T>
NORMKIT_INLINE Sums segment_sums(const RowsBackward& p, int64_t r, int64_t s, const T* dy_row, const T* x_row,
                                 const Row<Compute<T>>& row, ParameterReader<Compute<T>>& one,
                                 BackwardBuffers<T>& buffers, bool& overflows) {
  const int64_t segment = p.n / p.segments;
  if (segment == 1)
    return element_sums(dy_row + p.dy.inner.offset(s), x_row + p.x.inner.offset(s), row, overflows);
  MergeTree<Sums> tree;
  for (Blocks b(segment, p.segment_run, longest_block(p.segment_run)); b.more(); b.next()) {
    const int64_t at = s * segment + b.begin;
    const T* x = block_of(p.x, x_row, at, b.length, buffers.x);
    const T* dy = block_of(p.dy, dy_row, at, b.length, buffers.dy);
    const Sums sums = grad_sums(dy, x, b.length, row, one.block(r, at, b.length), overflows, p.fetch);
    if (b.only_one()) return sums;
    tree.push(sums);
  }
  return tree.finish();
}

// One set. Its sums are taken channel by channel, since they are the parameter gradients as well; the set's
// own are these, weighted, added in channel order. Returns those of its last channel.
template <typename T>
NORMKIT_NOINLINE Sums backward_set(const RowsBackward& p, int64_t r, ParameterReader<Compute<T>>& weight,
                                   ParameterReader<Compute<T>>& one, BackwardBuffers<T>& buffers) {
  const int64_t segment = p.n / p.segments;
  const T* x_row = p.x.template row<const T>(r);
  const T* dy_row = p.dy.template row<const T>(r);
  Row<Compute<T>> row;
  backward_rows(p, r, &x_row, 1, buffers.x, &row);
  Sums total{0.0, 0.0}, sums{0.0, 0.0};
  bool overflows = false;
  if (p.sum_dy) row.count = static_cast<double>(p.whole);
  for (int64_t s = 0; s < p.segments; ++s) {
    const double w = static_cast<double>(weight_of<Compute<T>>(p, r, s * segment));
    if (p.sum_dy) {
      total = weighted(total, w, larger_sums(p, r));
      continue;
    }
    sums = segment_sums(p, r, s, dy_row, x_row, row, one, buffers, overflows);
    keep_sums(p, r * p.segments + s, sums);
    total = weighted(total, w, sums);
  }
  if (p.dx)
    write_dx(p, r, dy_row, x_row, row, row_grad<Compute<T>>(p, row, total, overflows), weight, buffers);
  return sums;
}

// Phase 1: one task is a set, or those of a group of samples.
template <typename T>
NORMKIT_NOINLINE void backward_sets(const RowsBackward& p, int64_t begin, int64_t end) {
  using C = Compute<T>;
  const Operand none{};
  ParameterReader<C> weight(p.weight, 0.0, C(1)), one(none, 0.0, C(1));
  BackwardBuffers<T> buffers;
  const int64_t last = end * p.task_sets < p.rows ? end * p.task_sets : p.rows;
  for (int64_t r = begin * p.task_sets; r < last; ++r) backward_set(p, r, weight, one, buffers);
  if (p.stream) finish_streaming();
}

template <typename T>
void backward_sets_phase(const void* state, int64_t begin, int64_t end) {
  const FloatEnvironment environment;
  backward_sets<T>(*static_cast<const RowsBackward*>(state), begin, end);
}

// Phase 2: the sums of a channel over the samples; one task is a channel.
inline void add_samples_phase(const void* state, int64_t begin, int64_t end) {
  const FloatEnvironment environment;
  const RowsBackward& p = *static_cast<const RowsBackward*>(state);
  for (int64_t channel = begin; channel < end; ++channel) {
    write_channel(p, channel, p.samples > 0 ? p.channel_sums.total(p.samples, channel) : Sums{0.0, 0.0});
  }
}

NORMKIT_END_NAMESPACE

#endif  // NORMKIT_DETAIL_ROWS_BACKWARD_HPP_
