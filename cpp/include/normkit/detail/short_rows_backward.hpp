// Backward over short rows, and the phase that takes every tile of rows: as short_rows.hpp.
#ifndef NORMKIT_DETAIL_SHORT_ROWS_BACKWARD_HPP_
#define NORMKIT_DETAIL_SHORT_ROWS_BACKWARD_HPP_

#include "normkit/detail/rows_backward.hpp"
#include "normkit/detail/short_rows.hpp"

NORMKIT_BEGIN_NAMESPACE

inline bool suits_short_rows(const RowsBackward& p) {
  return suits_short_rows(static_cast<const RowsProblem&>(p)) && p.dx && !p.dsum && p.dy.inner.contiguous() &&
         p.dx.inner.contiguous();
}

// sums / n as float; false where one is beyond the range of row_grad.
NORMKIT_INLINE bool short_means(const double* sums, int64_t n, int count, float* mean) {
  alignas(64) double means[kShortTileRows];
  (Vec16<double>::load(sums) / Vec16<double>::splat(static_cast<double>(n))).store(means);
  narrow16(Vec16<double>::load(means)).store(mean);
  bool in_range = true;
  for (int r = 0; r < count; ++r) in_range = in_range && means[r] > -0x1p100 && means[r] < 0x1p100;
  return in_range;
}

// Rows first .. first+count-1, at most kTileRows; false, with nothing done, where they need backward_tile.
template <typename T>
NORMKIT_NOINLINE bool backward_short_tile(const RowsBackward& p, int64_t first, int count,
                                          Parameter<float> weight, PanelSums<float>* sums) {
  const int n = static_cast<int>(p.n);
  TileRows<T> tile;
  tile.count = count;
  tile.any_wide = false;
  alignas(64) double mean[kShortTileRows] = {}, rstd[kShortTileRows] = {};
  bool in_range = true;
  for (int r = 0; r < count; ++r) {
    tile.x[r] = p.x.template row<const T>(first + r);
    tile.dy[r] = p.dy.template row<const T>(first + r);
  }
  if (p.rstd) {
    for (int r = 0; r < count; ++r) {
      if (p.mean) mean[r] = read_number(p.mean, p.mean.outer.offset(first + r));
      rstd[r] = read_number(p.rstd, p.rstd.outer.offset(first + r));
      in_range = in_range && in_float_range(mean[r], rstd[r]);
    }
  } else {
    in_range = short_statistics(p, tile.x, count, nullptr, mean, rstd);
  }
  if (!NORMKIT_LIKELY(in_range)) return false;
  const ShortScales scales(mean, rstd);
  alignas(64) double sum_g[kShortTileRows] = {}, sum_gxhat[kShortTileRows] = {};
  for (int r = 0; r < count; ++r) {
    tile.scale[r] = scales.row(r);
    const Pair<float> s = block_grad_sums(tile.dy[r], tile.x[r], n, tile.scale[r], weight, p.fetch);
    sum_g[r] = static_cast<double>(s.first);
    sum_gxhat[r] = static_cast<double>(s.second);
  }
  alignas(64) float mean_g[kShortTileRows], mean_gxhat[kShortTileRows];
  // Both: the range of the sum that RMSNorm does not use decides as well, as in grad_sums.
  const bool g_in_range = short_means(sum_g, p.n, count, mean_g);
  if (!short_means(sum_gxhat, p.n, count, mean_gxhat) || !g_in_range) return false;
  if (sums != nullptr) add_tile_columns(tile, n, sums->dweight(), sums->dbias());
  for (int r = 0; r < count; ++r) {
    const RowGrad<float> grad = {p.centred() ? static_cast<double>(mean_g[r]) : 0.0,
                                 static_cast<double>(mean_gxhat[r]), false};
    scale_grad_block(p, tile.dy[r], tile.x[r], p.dx.template row<T>(first + r), n, tile.scale[r], grad,
                     weight, true);
  }
  return true;
}

// Phase 1: one task is a group of panels.
template <typename T>
NORMKIT_NOINLINE void backward_groups(const RowsBackward& p, int64_t begin, int64_t end) {
  ParameterReader<Compute<T>> weight(p.weight, p.weight_offset, Compute<T>(1));
  BackwardBuffers<T> buffers;
  const bool short_rows = suits_short_rows(p);
  const int64_t group_rows = p.group_panels * kPanelRows;
  for (int64_t group = begin; group < end; ++group) {
    PanelSums<Compute<T>> sums(p.scratch + group * p.group_bytes, p.n);
    PanelSums<Compute<T>>* wanted = p.group_bytes > 0 ? &sums : nullptr;
    const int64_t last = (group + 1) * group_rows < p.rows ? (group + 1) * group_rows : p.rows;
    for (int64_t panel = group * group_rows; panel < last; panel += kPanelRows) {
      const int64_t panel_end = panel + kPanelRows < last ? panel + kPanelRows : last;
      if (wanted) sums.begin_panel();
      for (int64_t first = panel; first < panel_end; first += kTileRows) {
        const int count = static_cast<int>(panel_end - first < kTileRows ? panel_end - first : kTileRows);
        if constexpr (sizeof(Compute<T>) == sizeof(float)) {
          const Parameter<float> w =
              short_rows ? weight.block(0, 0, static_cast<int>(p.n)) : Parameter<float>{};
          if (short_rows && backward_short_tile<T>(p, first, count, w, wanted)) continue;
        }
        backward_tile(p, first, count, weight, buffers, wanted);
      }
      if (wanted) sums.end_panel();
    }
    if (wanted) sums.finish();
  }
  if (p.stream) finish_streaming();
}

template <typename T>
void backward_groups_phase(const void* state, int64_t begin, int64_t end) {
  const FloatEnvironment environment;
  backward_groups<T>(*static_cast<const RowsBackward*>(state), begin, end);
}

NORMKIT_END_NAMESPACE

#endif  // NORMKIT_DETAIL_SHORT_ROWS_BACKWARD_HPP_
