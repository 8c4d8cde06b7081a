// Gradients of sets that lie side by side and whose weight is a number for each column: BatchNorm,
// InstanceNorm and GroupNorm of channels-last arrays. Tasks and phases as in columns_forward.hpp, the bits
// those of one set at a time.
#ifndef NORMKIT_DETAIL_COLUMNS_BACKWARD_HPP_
#define NORMKIT_DETAIL_COLUMNS_BACKWARD_HPP_

#include "normkit/detail/columns_forward.hpp"
#include "normkit/detail/rows_backward.hpp"

NORMKIT_BEGIN_NAMESPACE

// Sums of dy and of dy xhat: block_grad_sums with weight 1.
template <typename T>
struct GradSumChain {
  ColumnBlock<T> dy, x;
  const PanelScales& s;

  template <typename Count>
  NORMKIT_INLINE void operator()(float* lane, int row, int column, Count steps, bool first) const {
    const Vec16<float> hi = Vec16<float>::load(s.hi + column), lo = Vec16<float>::load(s.lo + column);
    const Vec16<float> rstd = Vec16<float>::load(s.rstd + column);
    Vec16<float> sum = first ? Vec16<float>::zero() : Vec16<float>::load(lane);
    Vec16<float> product = first ? Vec16<float>::zero() : Vec16<float>::load(lane + kPanelLanes);
    const T *dy_at = dy.at(row, column), *x_at = x.at(row, column);
    for (int k = 0; k < steps; ++k, dy_at += kLanes * dy.stride, x_at += kLanes * x.stride) {
      if (dy.ahead != 0) {
        dy.fetch(dy_at);
        x.fetch(x_at);
      }
      const Vec16<float> g = load16(dy_at);
      sum = sum + g;
      product = product + g * normalized(load16(x_at), hi, lo, rstd);
    }
    sum.store(lane);
    product.store(lane + kPanelLanes);
  }
};

// Of n rows of each column; wide[c]: its sums were taken in double, and its gradient will be.
template <typename T>
NORMKIT_NOINLINE void block_column_grad_sums(const ColumnBlock<T>& dy, const ColumnBlock<T>& x, int n,
                                             int width, const PanelScales& s, ColumnBuffers<T>& buffers,
                                             double* sum_dy, double* sum_dy_xhat, unsigned char* wide) {
  alignas(64) float first[kPanelLanes], second[kPanelLanes];
  add_to_lanes(n, width, dy.steps(), buffers.grad_sums, GradSumChain<T>{dy, x, s});
  buffers.grad_sums.fold(width, 0, first);
  buffers.grad_sums.fold(width, 1, second);
  const float one[kVecLanes] = {1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1};
  for (int c = 0; c < width; ++c) {
    Sums sums{static_cast<double>(first[c]), static_cast<double>(second[c])};
    bool overflows = false;
    if (!NORMKIT_LIKELY(!s.is_wide[c] && is_finite(sums.first) && is_finite(sums.second)))
      sums = grad_sums(one_column(dy.x, dy.stride, n, c, buffers.column),
                       one_column(x.x, x.stride, n, c, buffers.other_column), n, s.row(c, 1.0), {one, 0},
                       overflows);
    sum_dy[c] = sums.first;
    sum_dy_xhat[c] = sums.second;
    wide[c] = overflows;
  }
}

// Whether the sets of a backward pass suit columns.
inline bool suits_backward_columns(const RowsBackward& p, const ColumnsShape& shape) {
  return p.segments == shape.fold && suits_columns(p, shape, p.dy, p.dx) && !is_along_rows(p.weight, shape);
}

// Into buffers.total: the sums of each column of a panel, from its blocks or from partials, and whether any
// was wide.
template <typename T>
NORMKIT_NOINLINE void panel_grad_sums(const RowsBackward& p, const ColumnsShape& shape, const Panel& panel,
                                      const PanelScales& s, const double* partials,
                                      const unsigned char* partial_wide, ColumnBuffers<T>& buffers,
                                      bool* wide) {
  const T *dy = shape.at<const T>(p.dy, panel), *x = shape.at<const T>(p.x, panel);
  const int64_t dy_stride = shape.stride(p.dy), x_stride = shape.stride(p.x);
  memset(wide, 0, sizeof(bool) * kPanelLanes);
  buffers.tree.begin(panel.width, false);
  for (Blocks b = shape.blocks(p); b.more(); b.next()) {
    unsigned char own[kPanelLanes];
    const unsigned char* block_wide = own;
    if (partials != nullptr) {
      buffers.tree.push(0.0, partials + panel.begin, partials + shape.columns + panel.begin);
      block_wide = partial_wide + panel.begin;
      partials += 2 * shape.columns;
      partial_wide += shape.columns;
    } else {
      const ColumnBlock<T> block_dy{dy + b.begin * dy_stride, dy_stride,
                                    fetched_ahead(p, shape, p.dy, panel.width)};
      const ColumnBlock<T> block_x{x + b.begin * x_stride, x_stride,
                                   fetched_ahead(p, shape, p.x, panel.width)};
      ColumnPartial& total = buffers.total;
      block_column_grad_sums(block_dy, block_x, b.length, panel.width, s, buffers, total.first, total.second,
                             own);
      buffers.tree.push(0.0, total.first, total.second);
    }
    for (int c = 0; c < panel.width; ++c) wide[c] = wide[c] || block_wide[c] != 0;
  }
  buffers.tree.finish(buffers.total);
}

// The means of g for the sets of a bundle.
struct ColumnGrads {
  double mean_g[kPanelLanes], mean_gxhat[kPanelLanes];
  bool is_wide[kPanelLanes];
};

inline void set_backward_scales(const RowsBackward& p, const ColumnsShape& shape, const Panel& panel,
                                const ColumnStatistics& statistics, PanelScales& s) {
  s.set(shape, panel, statistics);
  column_parameter(p.weight, shape, panel, 0.0, 1.0f, s.weight);
}

// Adds the means of g; `column` counts within the bundle.
inline void set_grads(const RowsBackward& p, const ColumnsShape& shape, int64_t column, int width,
                      const ColumnGrads& grads, PanelScales& s) {
  for (int c = 0; c < width; ++c) {
    const int64_t set = (column + c) / shape.fold;
    s.wide_mean_g[c] = grads.mean_g[set];
    s.wide_mean_gxhat[c] = grads.mean_gxhat[set];
    s.mean_g[c] = static_cast<float>(grads.mean_g[set]);
    s.mean_gxhat[c] = static_cast<float>(grads.mean_gxhat[set]);
    // Given statistics are constants: the means play no part.
    s.is_wide[c] = p.given ? s.is_wide[c] : grads.is_wide[set];
    s.any_wide = s.any_wide || s.is_wide[c];
  }
}

// The sums of every column of a bundle, and from them the means of g of its sets. `scales`: of each panel,
// mean, rstd and weight in, everything out.
template <typename T>
NORMKIT_NOINLINE void bundle_grads(const RowsBackward& p, const ColumnsShape& shape, int64_t o,
                                   int64_t bundle, const ColumnStatistics& statistics, const double* partials,
                                   const unsigned char* partial_wide, ColumnBuffers<T>& buffers,
                                   PanelScales& scales, ColumnGrads& grads) {
  const int64_t each = shape.panels_of_bundle(), begin = shape.bundles().begin(bundle);
  Sums total{0.0, 0.0};
  bool overflows = false;
  bool wide[kPanelLanes] = {};
  for (int64_t k = 0; k < each; ++k) {
    const Panel panel = shape.panel(o, bundle * each + k);
    set_backward_scales(p, shape, panel, statistics, scales);
    if (!p.sum_dy) panel_grad_sums(p, shape, panel, scales, partials, partial_wide, buffers, wide);
    for (int c = 0; c < panel.width; ++c) {
      const int64_t column = panel.begin + c, set = (column - begin) / shape.fold;
      const Sums sums = p.sum_dy ? larger_sums(p, shape.set(o, column))
                                 : Sums{buffers.total.first[c], buffers.total.second[c]};
      keep_sums(p, o * shape.columns + column, sums);
      total = weighted(total, static_cast<double>(scales.weight[c]), sums);
      overflows = overflows || wide[c];
      if ((column + 1 - begin) % shape.fold != 0) continue;
      const double count = p.sum_dy ? static_cast<double>(p.whole) : statistics.count[set];
      const RowGrad<float> grad = row_grad(p, scales.row(c, count), total, overflows);
      grads.mean_g[set] = grad.mean_g;
      grads.mean_gxhat[set] = grad.mean_gxhat;
      grads.is_wide[set] = grad.is_wide;
      total = {0.0, 0.0};
      overflows = false;
    }
  }
}

// ---- dx ----

// dx = ((g - a) - xhat b) rstd; kGiven: dy rstd weight.
template <typename T, bool kGiven>
struct ApplyColumnGrads {
  ColumnBlock<T> dy, x;
  const PanelScales& s;

  struct Operands {
    const T *dy, *x;
    Vec16<float> hi, lo, rstd, weight, mean_g, mean_gxhat;
  };
  NORMKIT_INLINE Operands at(int64_t row, int c) const {
    return {dy.at(row, c),
            x.at(row, c),
            Vec16<float>::load(s.hi + c),
            Vec16<float>::load(s.lo + c),
            Vec16<float>::load(s.rstd + c),
            Vec16<float>::load(s.weight + c),
            Vec16<float>::load(s.mean_g + c),
            Vec16<float>::load(s.mean_gxhat + c)};
  }
  NORMKIT_INLINE Vec16<float> next(Operands& o) const {
    const Vec16<float> g = load16(o.dy);
    o.dy += dy.stride;
    if constexpr (kGiven) {  // as write_dx
      const Vec16<float> zero = Vec16<float>::zero();
      return normalized(g, zero, zero, o.rstd) * o.weight + Vec16<float>::splat(-0.0f);
    } else {
      const Vec16<float> xhat = normalized(load16(o.x), o.hi, o.lo, o.rstd);
      o.x += x.stride;
      return gradient(g, xhat, o.weight, o.mean_g, o.mean_gxhat, o.rstd);
    }
  }
  NORMKIT_INLINE void fetch(int64_t row, int c) const {
    dy.fetch(dy.at(row, c));
    if constexpr (!kGiven) x.fetch(x.at(row, c));
  }
  NORMKIT_INLINE void wide(int64_t row, int c, T* to) const {
    const float no_bias = -0.0f;
    const Parameter<float> weight{s.weight + c, 0};
    if constexpr (kGiven)
      wide_apply_block(dy.at(row, c), to, 1, WideRow<float>{0.0, 0.0, s.wide_rstd[c], 1.0}, weight,
                       {&no_bias, 0});
    else
      wide_apply_grad_block(dy.at(row, c), x.at(row, c), to, 1, s.wide(c), s.wide_mean_g[c],
                            s.wide_mean_gxhat[c], weight);
  }
};

// dx of rows begin .. begin+count-1 of a panel.
template <typename T>
NORMKIT_NOINLINE void apply_panel_grads(const RowsBackward& p, const ColumnsShape& shape, const Panel& panel,
                                        const PanelScales& s, int64_t begin, int64_t count) {
  const int64_t dy_stride = shape.stride(p.dy), x_stride = shape.stride(p.x), dx_stride = shape.stride(p.dx);
  const ColumnBlock<T> dy{shape.at<const T>(p.dy, panel) + begin * dy_stride, dy_stride,
                          fetched_ahead(p, shape, p.dy, panel.width)};
  const ColumnBlock<T> x{shape.at<const T>(p.x, panel) + begin * x_stride, x_stride,
                         fetched_ahead(p, shape, p.x, panel.width)};
  T* dx = shape.at<T>(p.dx, panel) + begin * dx_stride;
  if (p.given)
    sweep_columns(ApplyColumnGrads<T, true>{dy, x, s}, count, panel.width, s, dx, dx_stride, p.stream);
  else
    sweep_columns(ApplyColumnGrads<T, false>{dy, x, s}, count, panel.width, s, dx, dx_stride, p.stream);
}

// ---- one phase: a task is a bundle, or those of a group of samples ----

template <typename T>
NORMKIT_NOINLINE void backward_bundles(const RowsBackward& p, int64_t begin, int64_t end) {
  const ColumnsShape shape(p);
  const int64_t bundles = shape.bundles().count, each = shape.panels_of_bundle();
  ColumnBuffers<T> buffers;
  ColumnStatistics statistics;
  ColumnGrads grads;
  PanelScales scales;
  const int64_t all = shape.outer * bundles, last = end * p.task_sets < all ? end * p.task_sets : all;
  for (int64_t t = begin * p.task_sets; t < last; ++t) {
    const int64_t o = t / bundles, bundle = t % bundles, first = shape.bundles().begin(bundle);
    if (p.rstd)
      given_column_statistics(p, shape, o, bundle, statistics);
    else
      bundle_statistics(p, shape, o, bundle, nullptr, buffers, statistics);
    bundle_grads(p, shape, o, bundle, statistics, nullptr, nullptr, buffers, scales, grads);
    for (int64_t k = 0; p.dx && k < each; ++k) {
      const Panel panel = shape.panel(o, bundle * each + k);
      if (each > 1) set_backward_scales(p, shape, panel, statistics, scales);
      set_grads(p, shape, panel.begin - first, panel.width, grads, scales);
      apply_panel_grads<T>(p, shape, panel, scales, 0, shape.rows);
    }
  }
  if (p.stream) finish_streaming();
}

template <typename T>
void backward_bundles_phase(const void* state, int64_t begin, int64_t end) {
  const FloatEnvironment environment;
  if constexpr (sizeof(Compute<T>) == sizeof(float))
    backward_bundles<T>(*static_cast<const RowsBackward*>(state), begin, end);
}

// ---- three phases; the statistics are given ----

// Phase 1: the sums of a block of a panel.
template <typename T>
NORMKIT_NOINLINE void column_grad_sums(const RowsBackward& p, int64_t begin, int64_t end) {
  const ColumnsShape shape(p);
  const Blocks all = shape.blocks(p);
  const int64_t blocks = all.count(), dy_stride = shape.stride(p.dy), x_stride = shape.stride(p.x);
  const ColumnScratch scratch(p.scratch, shape, blocks);
  ColumnBuffers<T> buffers;
  ColumnStatistics statistics;
  PanelScales scales;
  int64_t held = -1;  // the panel whose scales these are
  for (int64_t t = begin; t < end; ++t) {
    const ColumnTask task(shape, blocks, t);
    const Panel& panel = task.panel;
    if (panel.outer * shape.panels() + task.panel_index != held) {
      held = panel.outer * shape.panels() + task.panel_index;
      given_column_statistics(p, shape, panel.outer, task.panel_index / shape.panels_of_bundle(), statistics);
      set_backward_scales(p, shape, panel, statistics, scales);
    }
    const Blocks b = all.at(task.index % blocks);
    double* line = scratch.partials + task.index * 2 * shape.columns + panel.begin;
    block_column_grad_sums(ColumnBlock<T>{shape.at<const T>(p.dy, panel) + b.begin * dy_stride, dy_stride,
                                          fetched_ahead(p, shape, p.dy, panel.width)},
                           ColumnBlock<T>{shape.at<const T>(p.x, panel) + b.begin * x_stride, x_stride,
                                          fetched_ahead(p, shape, p.x, panel.width)},
                           b.length, panel.width, scales, buffers, line, line + shape.columns,
                           scratch.wide + task.index * shape.columns + panel.begin);
  }
}

template <typename T>
void column_grad_sums_phase(const void* state, int64_t begin, int64_t end) {
  const FloatEnvironment environment;
  if constexpr (sizeof(Compute<T>) == sizeof(float))
    column_grad_sums<T>(*static_cast<const RowsBackward*>(state), begin, end);
}

// Phase 2: the means of a bundle, for every outer index, and the gradients of its weight and bias.
template <typename T>
NORMKIT_NOINLINE void merge_column_grads(const RowsBackward& p, int64_t begin, int64_t end) {
  const ColumnsShape shape(p);
  const int64_t blocks = shape.blocks(p).count(), each = shape.panels_of_bundle();
  const ColumnScratch scratch(p.scratch, shape, blocks);
  ColumnBuffers<T> buffers;
  ColumnStatistics statistics;
  ColumnGrads grads;
  PanelScales own;
  for (int64_t bundle = begin; bundle < end; ++bundle) {
    for (int64_t o = 0; o < shape.outer; ++o) {
      given_column_statistics(p, shape, o, bundle, statistics);
      bundle_grads(p, shape, o, bundle, statistics, scratch.partials + o * blocks * 2 * shape.columns,
                   scratch.wide + o * blocks * shape.columns, buffers, own, grads);
      for (int64_t index = bundle * each; index < (bundle + 1) * each; ++index) {
        const Panel panel = shape.panel(o, index);
        PanelScales& s = scratch.scales[o * shape.panels() + index];
        set_backward_scales(p, shape, panel, statistics, s);
        set_grads(p, shape, panel.begin - shape.bundles().begin(bundle), panel.width, grads, s);
      }
    }
  }
  const Pieces bundles = shape.bundles();
  if (p.channel_sums)  // columns are channels
    add_samples_phase(&p, bundles.begin(begin), bundles.begin(end - 1) + bundles.width(end - 1));
}

template <typename T>
void merge_column_grads_phase(const void* state, int64_t begin, int64_t end) {
  const FloatEnvironment environment;
  if constexpr (sizeof(Compute<T>) == sizeof(float))
    merge_column_grads<T>(*static_cast<const RowsBackward*>(state), begin, end);
}

// Phase 3: dx of as many rows as a block has.
template <typename T>
NORMKIT_NOINLINE void apply_column_grads(const RowsBackward& p, int64_t begin, int64_t end) {
  const ColumnsShape shape(p);
  const int64_t blocks = (shape.rows + kBlock - 1) / kBlock;
  const ColumnScratch scratch(p.scratch, shape, shape.blocks(p).count());
  for (int64_t t = begin; t < end; ++t) {
    const ColumnTask task(shape, blocks, t);
    const int64_t row = task.index % blocks * kBlock, left = shape.rows - row;
    apply_panel_grads<T>(p, shape, task.panel,
                         scratch.scales[task.panel.outer * shape.panels() + task.panel_index], row,
                         left < kBlock ? left : kBlock);
  }
  if (p.stream) finish_streaming();
}

template <typename T>
void apply_column_grads_phase(const void* state, int64_t begin, int64_t end) {
  const FloatEnvironment environment;
  if constexpr (sizeof(Compute<T>) == sizeof(float))
    apply_column_grads<T>(*static_cast<const RowsBackward*>(state), begin, end);
}

NORMKIT_END_NAMESPACE

#endif  // NORMKIT_DETAIL_COLUMNS_BACKWARD_HPP_
