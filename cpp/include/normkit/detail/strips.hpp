// Parameter gradients of few and long rows, or of few samples of many channels: where even one group's sums
// would not fit the scratch. Three phases: the statistics of each row; strips of parameters, each over all
// rows with its tree on the stack; dx, as if no parameter's gradient were asked for. Same bits as the other
// way, which reads memory once less.
#ifndef NORMKIT_DETAIL_STRIPS_HPP_
#define NORMKIT_DETAIL_STRIPS_HPP_

#include "normkit/detail/rows_backward.hpp"

NORMKIT_BEGIN_NAMESPACE

// Phase 1, into RowsProblem::ready; one task is a row.
template <typename T>
void find_rows_phase(const void* state, int64_t begin, int64_t end) {
  const FloatEnvironment environment;
  RowsBackward p = *static_cast<const RowsBackward*>(state);
  RowStatistics* ready = reinterpret_cast<RowStatistics*>(p.scratch);
  p.ready = nullptr;
  alignas(64) T buffer[kBlock];
  for (int64_t r = begin; r < end; ++r) {
    const T* x_row = p.x.template row<const T>(r);
    Row<Compute<T>> row;
    find_rows(p, r, &x_row, 1, buffer, &row);
    ready[r] = {row.wide.mean, row.wide.mean_low, row.norm, row.wide.rstd, row.wide.scale, row.count};
  }
}

// ---- columns ----

// Trees that are not higher suffice: with more panels a group's sums would fit.
constexpr int kStripRanks = 8;
constexpr int64_t kMostStripRows = int64_t(kPanelRows) << (kStripRanks - 1);

// Phase 2: one task is kStrip columns, through all panels.
template <typename T>
NORMKIT_NOINLINE void strip_columns(const RowsBackward& p, int64_t begin, int64_t end) {
  using C = Compute<T>;
  constexpr int kLine = 2 * kStrip;  // dweight, dbias
  alignas(64) double levels[kStripRanks * kLine];
  alignas(64) C chain[kLine];
  BackwardBuffers<T> buffers;
  Row<C> row[kTileRows];
  for (int64_t task = begin; task < end; ++task) {
    const int64_t first = task * kStrip, last = p.n - first < kStrip ? p.n : first + kStrip;
    LineTree tree(levels, kLine);
    for (int64_t panel = 0; panel < p.rows; panel += kPanelRows) {
      const int64_t panel_end = p.rows - panel < kPanelRows ? p.rows : panel + kPanelRows;
      memset(chain, 0, sizeof(chain));
      for (int64_t r = panel; r < panel_end; r += kTileRows) {
        const int count = static_cast<int>(panel_end - r < kTileRows ? panel_end - r : kTileRows);
        add_columns(p, make_tile(p, r, count, buffers.x, row), first, last, buffers, chain, chain + kStrip);
      }
      tree.push(chain);
    }
    tree.finish();
    const int count = static_cast<int>(last - first);
    write_gradients(p.dweight, first, levels, count, p.accumulate);
    write_gradients(p.dbias, first, levels + kStrip, count, p.accumulate);
  }
}

template <typename T>
void strip_columns_phase(const void* state, int64_t begin, int64_t end) {
  const FloatEnvironment environment;
  strip_columns<T>(*static_cast<const RowsBackward*>(state), begin, end);
}

// ---- channels ----

constexpr int kChannelStrip = 32;

// Phase 2: one task is kChannelStrip channels, through all samples.
template <typename T>
NORMKIT_NOINLINE void strip_channels(const RowsBackward& p, int64_t begin, int64_t end) {
  using C = Compute<T>;
  const int64_t sets = p.channels / p.segments;  // of a sample
  const Operand none{};
  ParameterReader<C> one(none, 0.0, C(1));
  BackwardBuffers<T> buffers;
  for (int64_t task = begin; task < end; ++task) {
    const int64_t first = task * kChannelStrip, left = p.channels - first;
    const int count = static_cast<int>(left < kChannelStrip ? left : kChannelStrip);
    MergeTree<Sums> tree[kChannelStrip];
    for (int64_t sample = 0; sample < p.rows; sample += sets) {
      int64_t held = -1;
      const T *x_row = nullptr, *dy_row = nullptr;
      Row<C> row;
      for (int c = 0; c < count; ++c) {
        const int64_t r = sample + (first + c) / p.segments;
        if (r != held) {
          x_row = p.x.template row<const T>(r);
          dy_row = p.dy.template row<const T>(r);
          backward_rows(p, r, &x_row, 1, buffers.x, &row);
          held = r;
        }
        bool overflows = false;
        tree[c].push(
            segment_sums(p, r, (first + c) % p.segments, dy_row, x_row, row, one, buffers, overflows));
      }
    }
    for (int c = 0; c < count; ++c) write_channel(p, first + c, tree[c].finish());
  }
}

template <typename T>
void strip_channels_phase(const void* state, int64_t begin, int64_t end) {
  const FloatEnvironment environment;
  strip_channels<T>(*static_cast<const RowsBackward*>(state), begin, end);
}

NORMKIT_END_NAMESPACE

#endif  // NORMKIT_DETAIL_STRIPS_HPP_
