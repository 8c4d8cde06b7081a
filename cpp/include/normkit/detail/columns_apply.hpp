// What is done with columns once there are statistics: their operands, and the sweep over the rows of a
// panel.
#ifndef NORMKIT_DETAIL_COLUMNS_APPLY_HPP_
#define NORMKIT_DETAIL_COLUMNS_APPLY_HPP_

#include "normkit/detail/columns.hpp"

NORMKIT_BEGIN_NAMESPACE

// What the columns of a panel are applied with: Row and, of a backward pass, RowGrad for each.
struct PanelScales {
  alignas(64) float hi[kPanelLanes], lo[kPanelLanes], rstd[kPanelLanes], weight[kPanelLanes],
      bias[kPanelLanes], mean_g[kPanelLanes], mean_gxhat[kPanelLanes];
  alignas(64) double wide_mean[kPanelLanes], wide_rstd[kPanelLanes], wide_mean_g[kPanelLanes],
      wide_mean_gxhat[kPanelLanes];
  bool is_wide[kPanelLanes];
  bool any_wide;

  NORMKIT_INLINE WideRow<float> wide(int c) const { return {wide_mean[c], 0.0, wide_rstd[c], 1.0}; }
  NORMKIT_INLINE Row<float> row(int c, double count) const {
    return {{hi[c], lo[c], rstd[c]}, wide(c), is_wide[c], count, 0.0};
  }

  // mean and rstd, of the sets of the panel's bundle.
  inline NORMKIT_NOINLINE void set(const ColumnsShape& shape, const Panel& panel, const ColumnStatistics& s) {
    const int64_t within = shape.fold == 1 ? 0 : panel.begin % shape.bundle_unit % shape.fold;
    int64_t taken = within;
    for (int c = 0, set = 0; c < vectors_of(panel.width) * kColumns; ++c) {
      wide_mean[c] = c < panel.width ? s.mean[set] : 0.0;
      wide_rstd[c] = c < panel.width ? s.rstd[set] : 0.0;
      if (++taken == shape.fold) {
        taken = 0;
        ++set;
      }
    }
    any_wide = false;
    for (int c = 0; c < panel.width; ++c) {
      is_wide[c] = !in_float_range(wide_mean[c], wide_rstd[c]);
      any_wide = any_wide || is_wide[c];
    }
    for (int c = 0; c < panel.width; c += kColumns) {
      const Vec16<double> mean = Vec16<double>::load(wide_mean + c);
      const Vec16<float> rounded = narrow16(mean);
      rounded.store(hi + c);
      narrow16(mean - widen(rounded)).store(lo + c);
      narrow16(Vec16<double>::load(wide_rstd + c)).store(rstd + c);
    }
  }
};

// Rows that are finished together, in L1.
constexpr int kSweepRows = 4;

// The results of a kernel for `rows` rows of a panel; out may be the kernel's input. A kernel has
//   at(row, column): its operands for one vector of that row;   next(operands): 16 results, and on to the
//   next row; fetch(row, column): asks for its input;                     wide(row, column, to): one result
//   in double.
template <typename T, typename Kernel>
NORMKIT_NOINLINE void sweep_columns(const Kernel kernel, int64_t rows, int width, const PanelScales& s,
                                    T* out, int64_t stride, bool stream,
                                    Activation activation = Activation::kNone) {
  alignas(64) T tile[kSweepRows * kPanelLanes];
  const bool direct = !stream && !s.any_wide && width % kColumns == 0;
  const int64_t step = direct ? stride : kPanelLanes;
  for (int64_t i = 0; i < rows; i += kSweepRows) {
    const int count = static_cast<int>(rows - i < kSweepRows ? rows - i : kSweepRows);
    T* to = direct ? out + i * stride : tile;
    for (int r = 0; stream && r < count; ++r)
      for (int c = 0; c < width; c += kColumns) kernel.fetch(i + r, c);
    for (int v = 0; v < vectors_of(width); ++v) {
      const int column = vector_at(v, width);
      auto operands = kernel.at(i, column);
      T* result = to + column;
      for (int r = 0; r < count; ++r, result += step) store16(result, canonical(kernel.next(operands)));
    }
    for (int c = 0; s.any_wide && c < width; ++c)
      for (int r = 0; s.is_wide[c] && r < count; ++r) kernel.wide(i + r, c, tile + r * kPanelLanes + c);
    if (activation != Activation::kNone) activate_runs(activation, to, step, count, width);
    if (direct) continue;
    for (int r = 0; r < count; ++r) {
      const T* from = tile + r * kPanelLanes;
      T* line = out + (i + r) * stride;
      if (!stream)
        memcpy(line, from, static_cast<size_t>(width) * sizeof(T));
      else
        for (int c = 0; c < width; c += 64 / static_cast<int>(sizeof(T))) stream_64_bytes(line + c, from + c);
    }
  }
}

// Whether whole lines of `out` lie in every row of every panel, so that they can be written past the cache.
inline bool has_whole_lines(const Operand& out, const ColumnsShape& shape) {
  const int64_t line = 64 / out.bytes();
  if (shape.columns % line != 0 || shape.bundle_unit % line != 0 || kPanel % line != 0 ||
      shape.stride(out) % line != 0 || reinterpret_cast<uintptr_t>(out.data) % 64 != 0)
    return false;
  for (int a = 0; a < out.outer.total(); ++a)
    if (out.outer.stride_of(a) % line != 0 && out.outer.stride_of(a) != shape.fold) return false;
  return true;
}

NORMKIT_END_NAMESPACE

#endif  // NORMKIT_DETAIL_COLUMNS_APPLY_HPP_
