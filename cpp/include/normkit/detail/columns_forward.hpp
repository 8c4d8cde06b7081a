// Forward over columns.
//
// Where a bundle of columns fits a cache, one task takes its statistics and applies them. Otherwise there are
// three phases: the moments of each block of each panel, for blocks in the order of memory; their trees,
// column by column; y, again in the order of memory. The bits are the same.
#ifndef NORMKIT_DETAIL_COLUMNS_FORWARD_HPP_
#define NORMKIT_DETAIL_COLUMNS_FORWARD_HPP_

#include "normkit/detail/columns_apply.hpp"

NORMKIT_BEGIN_NAMESPACE

// What the phases of a large problem leave for each other, in the caller's scratch.
struct ColumnScratch {
  double* partials;     // [outer, block, 2, columns]
  PanelScales* scales;  // [outer, panel]
  unsigned char* wide;  // [outer, block, columns]; of a backward pass: the sums left float's range

  inline ColumnScratch(char* scratch, const ColumnsShape& shape, int64_t blocks)
      : partials(reinterpret_cast<double*>(scratch)),
        scales(reinterpret_cast<PanelScales*>(scratch + partial_bytes(shape, blocks))),
        wide(reinterpret_cast<unsigned char*>(scales + shape.outer * shape.panels())) {}

  static inline int64_t bytes(const ColumnsShape& shape, int64_t blocks, bool backward) {
    return partial_bytes(shape, blocks) +
           shape.outer * shape.panels() * static_cast<int64_t>(sizeof(PanelScales)) +
           (backward ? shape.outer * blocks * shape.columns : 0);
  }

 private:
  static inline int64_t partial_bytes(const ColumnsShape& shape, int64_t blocks) {
    return (shape.outer * blocks * 2 * shape.columns * static_cast<int64_t>(sizeof(double)) + 63) / 64 * 64;
  }
};

// One task of the phases that go through memory: a block, or as many rows, of one panel.
struct ColumnTask {
  int64_t index;  // of [outer, block]
  int64_t panel_index;
  Panel panel;

  NORMKIT_INLINE ColumnTask(const ColumnsShape& shape, int64_t blocks, int64_t task)
      : index(task / shape.panels()),
        panel_index(task % shape.panels()),
        panel(shape.panel(index / blocks, panel_index)) {}
};

// ---- y ----

template <typename T, bool kAlongRows>
struct ApplyColumns {
  ColumnBlock<T> block;
  const PanelScales& s;
  Parameter<float> weight, bias;  // kAlongRows: of the block's rows, or null

  struct Operands {
    const T* x;
    int64_t row;
    Vec16<float> hi, lo, rstd, weight, bias;
  };
  NORMKIT_INLINE Operands at(int64_t row, int c) const {
    return {block.at(row, c),
            row,
            Vec16<float>::load(s.hi + c),
            Vec16<float>::load(s.lo + c),
            Vec16<float>::load(s.rstd + c),
            Vec16<float>::load(s.weight + c),
            Vec16<float>::load(s.bias + c)};
  }
  NORMKIT_INLINE Vec16<float> next(Operands& o) const {
    const Vec16<float> xhat = normalized(load16(o.x), o.hi, o.lo, o.rstd);
    o.x += block.stride;
    if constexpr (kAlongRows) {
      const int64_t row = o.row++;
      return xhat * of_row(weight, row, o.weight) + of_row(bias, row, o.bias);
    }
    return xhat * o.weight + o.bias;
  }
  NORMKIT_INLINE void fetch(int64_t row, int c) const { block.fetch(block.at(row, c)); }
  NORMKIT_INLINE void wide(int64_t row, int c, T* to) const {
    const float* w = kAlongRows && weight.data ? weight.data + row * weight.step : s.weight + c;
    const float* b = kAlongRows && bias.data ? bias.data + row * bias.step : s.bias + c;
    wide_apply_block(block.at(row, c), to, 1, s.wide(c), {w, 0}, {b, 0});
  }

 private:
  static NORMKIT_INLINE Vec16<float> of_row(Parameter<float> p, int64_t row, Vec16<float> columns) {
    return p.data == nullptr ? columns : Vec16<float>::splat(p.data[row * p.step]);
  }
};

// Readers of the parameters that vary along the rows.
struct RowReaders {
  ParameterReader<float> weight, bias;

  inline explicit RowReaders(const RowsForward& p)
      : weight(p.weight, p.weight_offset, static_cast<float>(kMissingWeight)),
        bias(p.bias, 0.0, static_cast<float>(kMissingBias)) {}
};

// mean, rstd, weight and bias of a panel's columns; those along the rows are read later.
inline void set_forward_scales(const RowsForward& p, const ColumnsShape& shape, const Panel& panel,
                               const ColumnStatistics& statistics, PanelScales& s) {
  s.set(shape, panel, statistics);
  const Operand none{};
  column_parameter(is_along_rows(p.weight, shape) ? none : p.weight, shape, panel,
                   p.weight ? p.weight_offset : 0.0, static_cast<float>(kMissingWeight), s.weight);
  column_parameter(is_along_rows(p.bias, shape) ? none : p.bias, shape, panel, 0.0,
                   static_cast<float>(kMissingBias), s.bias);
}

// y of `count` rows of a panel, at most kBlock.
template <typename T>
NORMKIT_NOINLINE void apply_panel(const RowsForward& p, const ColumnsShape& shape, const Panel& panel,
                                  const PanelScales& s, int64_t begin, int count, RowReaders& readers) {
  const int64_t x_stride = shape.stride(p.x), y_stride = shape.stride(p.y);
  const T* x = shape.at<const T>(p.x, panel) + begin * x_stride;
  T* y = shape.at<T>(p.y, panel) + begin * y_stride;
  const ColumnBlock<T> block{x, x_stride, fetched_ahead(p, shape, p.x, panel.width)};
  const bool along_weight = is_along_rows(p.weight, shape), along_bias = is_along_rows(p.bias, shape);
  if (!along_weight && !along_bias) {
    const ApplyColumns<T, false> kernel{block, s, {nullptr, 0}, {nullptr, 0}};
    return sweep_columns(kernel, count, panel.width, s, y, y_stride, p.stream, p.activation);
  }
  ApplyColumns<T, true> kernel{block, s, {nullptr, 0}, {nullptr, 0}};
  if (along_weight) kernel.weight = readers.weight.block(0, begin, count);
  if (along_bias) kernel.bias = readers.bias.block(0, begin, count);
  sweep_columns(kernel, count, panel.width, s, y, y_stride, p.stream, p.activation);
}

inline void save_column_statistics(const RowsForward& p, const ColumnsShape& shape, int64_t o, int64_t bundle,
                                   const ColumnStatistics& s) {
  if (!p.mean && !p.rstd && p.moments == nullptr) return;
  const Pieces bundles = shape.bundles();
  const int64_t first = shape.set(o, bundles.begin(bundle)), sets = bundles.width(bundle) / shape.fold;
  for (int64_t c = 0; c < sets; ++c)
    save_statistics(p, first + c, {s.mean[c], 0.0, s.var[c], s.rstd[c], 1.0, s.count[c]});
}

// ---- one phase: a task is a bundle ----

template <typename T>
NORMKIT_NOINLINE void forward_bundles(const RowsForward& p, int64_t begin, int64_t end) {
  const ColumnsShape shape(p);
  const int64_t bundles = shape.bundles().count, each = shape.panels_of_bundle();
  RowReaders readers(p);
  ColumnBuffers<T> buffers;
  ColumnStatistics statistics;
  PanelScales scales;
  for (int64_t t = begin; t < end; ++t) {
    const int64_t o = t / bundles, bundle = t % bundles;
    bundle_statistics(p, shape, o, bundle, nullptr, buffers, statistics);
    save_column_statistics(p, shape, o, bundle, statistics);
    for (int64_t k = 0; p.y && k < each; ++k) {
      const Panel panel = shape.panel(o, bundle * each + k);
      set_forward_scales(p, shape, panel, statistics, scales);
      for (int64_t row = 0; row < shape.rows; row += kBlock)
        apply_panel<T>(p, shape, panel, scales, row,
                       static_cast<int>(shape.rows - row < kBlock ? shape.rows - row : kBlock), readers);
    }
  }
  if (p.stream) finish_streaming();
}

template <typename T>
void forward_bundles_phase(const void* state, int64_t begin, int64_t end) {
  const FloatEnvironment environment;
  if constexpr (sizeof(Compute<T>) == sizeof(float))
    forward_bundles<T>(*static_cast<const RowsForward*>(state), begin, end);
}

// ---- three phases ----

// Phase 1: the moments of a block of a panel.
template <typename T>
NORMKIT_NOINLINE void column_moments(const RowsForward& p, int64_t begin, int64_t end) {
  const ColumnsShape shape(p);
  const Blocks all = shape.blocks(p);
  const int64_t blocks = all.count(), stride = shape.stride(p.x);
  const ColumnScratch scratch(p.scratch, shape, blocks);
  ColumnBuffers<T> buffers;
  for (int64_t t = begin; t < end; ++t) {
    const ColumnTask task(shape, blocks, t);
    const Blocks b = all.at(task.index % blocks);
    double* line = scratch.partials + task.index * 2 * shape.columns + task.panel.begin;
    block_column_moments(ColumnBlock<T>{shape.at<const T>(p.x, task.panel) + b.begin * stride, stride,
                                        fetched_ahead(p, shape, p.x, task.panel.width)},
                         b.length, task.panel.width, p.centred(), buffers, line, line + shape.columns);
  }
}

template <typename T>
void column_moments_phase(const void* state, int64_t begin, int64_t end) {
  const FloatEnvironment environment;
  if constexpr (sizeof(Compute<T>) == sizeof(float))
    column_moments<T>(*static_cast<const RowsForward*>(state), begin, end);
}

// Phase 2: the statistics of a bundle, for every outer index; `saved` is called after each.
template <typename T, typename Saved>
NORMKIT_NOINLINE void merge_column_moments(const RowsForward& p, int64_t begin, int64_t end,
                                           const Saved& saved) {
  const ColumnsShape shape(p);
  const int64_t blocks = shape.blocks(p).count(), each = shape.panels_of_bundle();
  const ColumnScratch scratch(p.scratch, shape, blocks);
  ColumnBuffers<T> buffers;
  ColumnStatistics statistics;
  for (int64_t bundle = begin; bundle < end; ++bundle) {
    for (int64_t o = 0; o < shape.outer; ++o) {
      bundle_statistics(p, shape, o, bundle, scratch.partials + o * blocks * 2 * shape.columns, buffers,
                        statistics);
      save_column_statistics(p, shape, o, bundle, statistics);
      saved(shape, o, bundle);
      for (int64_t index = bundle * each; index < (bundle + 1) * each; ++index)
        set_forward_scales(p, shape, shape.panel(o, index), statistics,
                           scratch.scales[o * shape.panels() + index]);
    }
  }
}

// Phase 3, or the only one where the statistics are given: y of as many rows as a block has.
template <typename T>
NORMKIT_NOINLINE void apply_columns(const RowsForward& p, int64_t begin, int64_t end) {
  const ColumnsShape shape(p);
  const int64_t blocks = (shape.rows + kBlock - 1) / kBlock;
  const PanelScales* shared =
      p.given ? nullptr : ColumnScratch(p.scratch, shape, shape.blocks(p).count()).scales;
  RowReaders readers(p);
  ColumnStatistics statistics;
  PanelScales own;
  int64_t held = -1;  // the panel whose scales are in `own`
  for (int64_t t = begin; t < end; ++t) {
    const ColumnTask task(shape, blocks, t);
    const int64_t which = task.panel.outer * shape.panels() + task.panel_index;
    if (p.given && which != held) {
      given_column_statistics(p, shape, task.panel.outer, task.panel_index / shape.panels_of_bundle(),
                              statistics);
      set_forward_scales(p, shape, task.panel, statistics, own);
      held = which;
    }
    const int64_t row = task.index % blocks * kBlock, left = shape.rows - row;
    apply_panel<T>(p, shape, task.panel, p.given ? own : shared[which], row,
                   static_cast<int>(left < kBlock ? left : kBlock), readers);
  }
  if (p.stream) finish_streaming();
}

template <typename T>
void apply_columns_phase(const void* state, int64_t begin, int64_t end) {
  const FloatEnvironment environment;
  if constexpr (sizeof(Compute<T>) == sizeof(float))
    apply_columns<T>(*static_cast<const RowsForward*>(state), begin, end);
}

NORMKIT_END_NAMESPACE

#endif  // NORMKIT_DETAIL_COLUMNS_FORWARD_HPP_
