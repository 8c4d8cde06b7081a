// Sums of a backward pass: over a row (for dx) and over rows (for dweight and dbias).
//
// Row sums use the blocks, lanes and tree of the statistics, without a shift. Column sums add the rows of a
// tile of 8 as a tree, chain the 8 tiles of a panel of 64 rows, and leave the panels to the merge tree in
// double: one load of a column's accumulator for 8 rows, and a chain short enough for float. Both sums are
// always taken: one kernel, and a caller who wants only one of them is rare.
#ifndef NORMKIT_DETAIL_GRAD_SUMS_HPP_
#define NORMKIT_DETAIL_GRAD_SUMS_HPP_

#include "normkit/detail/apply.hpp"
#include "normkit/detail/config.hpp"
#include "normkit/detail/reduce.hpp"

NORMKIT_BEGIN_NAMESPACE

constexpr int kTileRows = 8;
constexpr int kPanelRows = 64;

// (sum g, sum g xhat) of one block, g = dy weight.
template <typename T>
NORMKIT_NOINLINE Pair<Compute<T>> block_grad_sums(const T* dy, const T* x, int n,
                                                  const RowScale<Compute<T>>& row,
                                                  Parameter<Compute<T>> weight, FetchAhead ahead) {
  using Vec = Vec16<Compute<T>>;
  const Vec hi = Vec::splat(row.hi), lo = Vec::splat(row.lo), rstd = Vec::splat(row.rstd);
  Vec low_g = Vec::zero(), high_g = low_g, low_gx = low_g, high_gx = low_g;
  int i = 0;
  for (; i + kLanes <= n; i += kLanes) {
    prefetch_lines<kLanes>(dy + i, ahead.dy);
    prefetch_lines<kLanes>(x + i, ahead.x);
    const Load32<T> d(dy + i), v(x + i);
    const Vec g = d.low * weight.at(i);
    low_g = low_g + g;
    low_gx = low_gx + g * normalized(v.low, hi, lo, rstd);
    const Vec h = d.high * weight.at(i + kVecLanes);
    high_g = high_g + h;
    high_gx = high_gx + h * normalized(v.high, hi, lo, rstd);
  }
  if (i < n) {
    const int count = n - i;
    const Tail<T> dy_tail(dy + i, count), x_tail(x + i, count);
    const ParameterTail<Compute<T>> w(weight, i, count);
    const Vec g = keep_below(dy_tail.low * w.low, 0, count);
    const Vec h = keep_below(dy_tail.high * w.high, kVecLanes, count);
    low_g = low_g + g;
    high_g = high_g + h;
    low_gx = low_gx + keep_below(g * normalized(x_tail.low, hi, lo, rstd), 0, count);
    high_gx = high_gx + keep_below(h * normalized(x_tail.high, hi, lo, rstd), kVecLanes, count);
  }
  return {fold(low_g, high_g), fold(low_gx, high_gx)};
}

template <typename T>
NORMKIT_NOINLINE Sums wide_block_grad_sums(const T* dy, const T* x, int n, const WideRow<Compute<T>>& row,
                                           Parameter<Compute<T>> weight) {
  Sums lane[kLanes] = {};
  for (int i = 0; i < n; ++i) {
    const double w = static_cast<double>(weight.data[weight.step ? i : i % kVecLanes]);
    const double g = read<double>(dy + i) * w;
    Sums& sums = lane[i % kLanes];
    sums.first += g;
    sums.second += g * wide_normalized(read<double>(x + i), row);
  }
  for (int half = kLanes / 2; half > 0; half /= 2)
    for (int j = 0; j < half; ++j) lane[j] = merge(lane[j], lane[j + half]);
  return lane[0];
}

// The rows of a tile of which column sums are taken.
template <typename T>
struct TileRows {
  const T* dy[kTileRows];
  const T* x[kTileRows];
  RowScale<Compute<T>> scale[kTileRows];
  WideRow<Compute<T>> wide[kTileRows];
  bool is_wide[kTileRows];
  bool any_wide;
  int count;
};

// Rows kFirst .. kFirst + kCount - 1 of the columns from i, kVecs vectors of them: sum dy xhat and sum dy;
// missing rows are +0.
template <int kFirst, int kCount, int kVecs, typename T>
NORMKIT_INLINE void tile_tree(const TileRows<T>& tile, int i, Vec16<Compute<T>>* dweight,
                              Vec16<Compute<T>>* dbias) {
  using Vec = Vec16<Compute<T>>;
  if constexpr (kCount == 1) {
    if (kFirst >= tile.count) {
      NORMKIT_UNROLL for (int v = 0; v < kVecs; ++v) dweight[v] = dbias[v] = Vec::zero();
      return;
    }
    const RowScale<Compute<T>>& s = tile.scale[kFirst];
    const Vec hi = Vec::splat(s.hi), lo = Vec::splat(s.lo), rstd = Vec::splat(s.rstd);
    NORMKIT_UNROLL for (int v = 0; v < kVecs; ++v) {
      const int j = i + v * kVecLanes;
      const Vec dy = load16(tile.dy[kFirst] + j);
      dweight[v] = dy * normalized(load16(tile.x[kFirst] + j), hi, lo, rstd);
      dbias[v] = dy;
    }
  } else {
    Vec more_dweight[size_t(kVecs)], more_dbias[size_t(kVecs)];
    tile_tree<kFirst, kCount / 2, kVecs>(tile, i, dweight, dbias);
    tile_tree<kFirst + kCount / 2, kCount / 2, kVecs>(tile, i, more_dweight, more_dbias);
    NORMKIT_UNROLL for (int v = 0; v < kVecs; ++v) {
      dweight[v] = dweight[v] + more_dweight[v];
      dbias[v] = dbias[v] + more_dbias[v];
    }
  }
}

template <int kVecs, typename T>
NORMKIT_INLINE void add_vectors(const TileRows<T>& tile, int i, Compute<T>* dweight, Compute<T>* dbias) {
  using Vec = Vec16<Compute<T>>;
  Vec dw[size_t(kVecs)], db[size_t(kVecs)];
  tile_tree<0, kTileRows, kVecs>(tile, i, dw, db);
  NORMKIT_UNROLL for (int v = 0; v < kVecs; ++v) {
    const int j = i + v * kVecLanes;
    (Vec::load(dweight + j) + dw[v]).store(dweight + j);
    (Vec::load(dbias + j) + db[v]).store(dbias + j);
  }
}

// Adds n columns of the tile to the panel's chains; n is a multiple of 16.
template <typename T>
NORMKIT_NOINLINE void add_whole_columns(const TileRows<T>& tile, int n, Compute<T>* NORMKIT_RESTRICT dweight,
                                        Compute<T>* NORMKIT_RESTRICT dbias) {
  int i = 0;
  for (; i + kLanes <= n; i += kLanes) add_vectors<2>(tile, i, dweight, dbias);
  if (i < n) add_vectors<1>(tile, i, dweight, dbias);
}

// The same, column by column, for a tile with rows that are applied in double: their terms are rounded once
// to C.
template <typename T>
NORMKIT_NOINLINE void add_wide_columns(const TileRows<T>& tile, int n, Compute<T>* dweight,
                                       Compute<T>* dbias) {
  using C = Compute<T>;
  for (int i = 0; i < n; ++i) {
    Pair<C> term[kTileRows] = {};
    for (int r = 0; r < tile.count; ++r) {
      const C dy = read<C>(tile.dy[r] + i);
      const RowScale<C>& s = tile.scale[r];
      const C narrow = ((read<C>(tile.x[r] + i) - s.hi) - s.lo) * s.rstd;
      const double wide = wide_normalized(read<double>(tile.x[r] + i), tile.wide[r]);
      term[r] = {tile.is_wide[r] ? static_cast<C>(static_cast<double>(dy) * wide) : dy * narrow, dy};
    }
    for (int half = 1; half < kTileRows; half *= 2)
      for (int r = 0; r < kTileRows; r += 2 * half)
        term[r] = {term[r].first + term[r + half].first, term[r].second + term[r + half].second};
    dweight[i] += term[0].first;
    dbias[i] += term[0].second;
  }
}

template <typename T>
NORMKIT_NOINLINE void add_tile_columns(const TileRows<T>& tile, int n, Compute<T>* dweight,
                                       Compute<T>* dbias) {
  if (tile.any_wide) return add_wide_columns(tile, n, dweight, dbias);
  const int whole = n / kVecLanes * kVecLanes, rest = n - whole;
  add_whole_columns(tile, whole, dweight, dbias);
  if (rest == 0) return;
  // The last columns, padded to 16.
  constexpr int kBytes = static_cast<int>(sizeof(T)), kSumBytes = static_cast<int>(sizeof(Compute<T>));
  alignas(64) T dy[kTileRows * kVecLanes], x[kTileRows * kVecLanes];
  alignas(64) Compute<T> sums[2 * kVecLanes];
  TileRows<T> padded = tile;
  for (int r = 0; r < tile.count; ++r) {
    load_up_to<kBytes, kVecLanes>(tile.dy[r] + whole, rest, dy + r * kVecLanes);
    load_up_to<kBytes, kVecLanes>(tile.x[r] + whole, rest, x + r * kVecLanes);
    padded.dy[r] = dy + r * kVecLanes;
    padded.x[r] = x + r * kVecLanes;
  }
  load_up_to<kSumBytes, kVecLanes>(dweight + whole, rest, sums);
  load_up_to<kSumBytes, kVecLanes>(dbias + whole, rest, sums + kVecLanes);
  add_whole_columns(padded, kVecLanes, sums, sums + kVecLanes);
  store_up_to16<kSumBytes>(sums, rest, dweight + whole);
  store_up_to16<kSumBytes>(sums + kVecLanes, rest, dbias + whole);
}

NORMKIT_END_NAMESPACE

#endif  // NORMKIT_DETAIL_GRAD_SUMS_HPP_
