// Gradients of sets that lie side by side and have one weight each: BatchNorm and InstanceNorm of
// channels-last arrays. As columns.hpp: 16 sets in a vector, the bits of one set at a time.
#ifndef NORMKIT_DETAIL_COLUMNS_BACKWARD_HPP_
#define NORMKIT_DETAIL_COLUMNS_BACKWARD_HPP_

#include "normkit/detail/columns.hpp"
#include "normkit/detail/rows_backward.hpp"

NORMKIT_BEGIN_NAMESPACE

// Sums of dy and of dy xhat; block_grad_sums with weight 1 for 16 columns.
template <typename T>
NORMKIT_NOINLINE void column_grad_sums(const T* dy, int64_t dy_stride, const T* x, int64_t x_stride, int n,
                                       const ColumnRows& rows, ColumnLanes<float>& sum_dy,
                                       ColumnLanes<float>& sum_dy_xhat) {
  const Vec16<float> hi = Vec16<float>::load(rows.hi), lo = Vec16<float>::load(rows.lo);
  const Vec16<float> rstd = Vec16<float>::load(rows.rstd);
  sum_dy.clear();
  sum_dy_xhat.clear();
  for (int i = 0; i < n; i += kLanes) {
    for (int j = 0; j < kLanes && i + j < n; ++j) {
      const Vec16<float> g = load16(dy + (i + j) * dy_stride);
      sum_dy.add(j, g);
      sum_dy_xhat.add(j, g * normalized(load16(x + (i + j) * x_stride), hi, lo, rstd));
    }
  }
}

// Whether the sets of a backward pass suit columns.
inline bool suits_columns_backward(const RowsBackward& p) {
  return p.segments == 1 && suits_columns(p, p.dy, p.dx) &&
         (!p.weight || p.weight.inner.constant(0, INT64_MAX));
}

template <typename T>
NORMKIT_NOINLINE void backward_columns(const RowsBackward& p, int64_t begin, int64_t end) {
  const Operand none{};
  ParameterReader<float> row_weight(p.weight, 0.0, 1.0f), one(none, 0.0, 1.0f);
  ColumnParameter weight(p.weight, 0.0, 1.0f);
  BackwardBuffers<T> buffers;
  ColumnLanes<float> sum_dy, sum_dy_xhat;
  const int64_t x_stride = p.x.inner.stride[0], dy_stride = p.dy.inner.stride[0];
  const int64_t dx_stride = p.dx ? p.dx.inner.stride[0] : 0;
  for (int64_t t = begin; t < end; ++t) {
    const ColumnTile tile(p, t);
    const auto one_by_one = [&] {
      for (int c = 0; c < tile.count; ++c) backward_set(p, tile.first + c, row_weight, one, buffers);
    };
    if (tile.count < kColumns) {
      one_by_one();
      continue;
    }
    const T* x = p.x.template row<const T>(tile.first);
    const T* dy = p.dy.template row<const T>(tile.first);
    RowStatistics statistics[kColumns];
    ColumnRows rows;
    if (!p.rstd) column_statistics(p, x, buffers.x, statistics);
    for (int c = 0; c < kColumns; ++c) {
      if (p.rstd) statistics[c] = given_statistics(p, tile.first + c);
      Row<float> row = row_from(statistics[c], false, 0.0f);
      if (p.sum_dy) row.count = static_cast<double>(p.whole);
      rows.set(c, row);
    }
    if (rows.any_wide) {
      one_by_one();
      continue;
    }
    MergeTree<Sums> tree[kColumns];
    bool in_range = true;  // of float; else set by set
    for (Blocks b(p); !p.sum_dy && in_range && b.more(); b.next()) {
      column_grad_sums(dy + b.begin * dy_stride, dy_stride, x + b.begin * x_stride, x_stride, b.length, rows,
                       sum_dy, sum_dy_xhat);
      const float* first = sum_dy.fold();
      const float* second = sum_dy_xhat.fold();
      for (int c = 0; c < kColumns; ++c) {
        const Sums sums{static_cast<double>(first[c]), static_cast<double>(second[c])};
        in_range = in_range && is_finite(sums.first) && is_finite(sums.second);
        tree[c].push(sums);
      }
    }
    weight.begin_sets(tile.first);
    alignas(64) float a[kColumns], b_mean[kColumns];
    for (int c = 0; in_range && c < kColumns; ++c) {
      const int64_t r = tile.first + c;
      const Sums sums = p.sum_dy ? larger_sums(p, r) : tree[c].finish();
      if (p.channel_sums != nullptr) p.channel_sums[r] = sums;
      const Sums total = weighted({0.0, 0.0}, static_cast<double>(weight.sets()[c]), sums);
      const RowGrad<float> grad = row_grad(p, rows.row[c], total, false);
      in_range = !grad.is_wide;
      a[c] = static_cast<float>(grad.mean_g);
      b_mean[c] = static_cast<float>(grad.mean_gxhat);
    }
    if (!in_range) {
      one_by_one();
      continue;
    }
    if (!p.dx) continue;
    T* dx = p.dx.template row<T>(tile.first);
    const Vec16<float> hi = Vec16<float>::load(rows.hi), lo = Vec16<float>::load(rows.lo);
    const Vec16<float> rstd = Vec16<float>::load(rows.rstd), w = weight.at(0);
    const Vec16<float> mean_g = Vec16<float>::load(a), mean_gxhat = Vec16<float>::load(b_mean);
    const Vec16<float> zero = Vec16<float>::zero(), no_bias = Vec16<float>::splat(-0.0f);
    for (int64_t i = 0; i < p.n; ++i) {
      const Vec16<float> g = load16(dy + i * dy_stride);
      if (p.given) {  // constants: as write_dx
        store16(dx + i * dx_stride, canonical(normalized(g, zero, zero, rstd) * w + no_bias));
      } else {
        const Vec16<float> xhat = normalized(load16(x + i * x_stride), hi, lo, rstd);
        store16(dx + i * dx_stride, canonical(((g * w - mean_g) - xhat * mean_gxhat) * rstd));
      }
    }
  }
}

template <typename T>
void backward_columns_phase(const void* state, int64_t begin, int64_t end) {
  const FloatEnvironment environment;
  if constexpr (sizeof(Compute<T>) == sizeof(float))
    backward_columns<T>(*static_cast<const RowsBackward*>(state), begin, end);
}

NORMKIT_END_NAMESPACE

#endif  // NORMKIT_DETAIL_COLUMNS_BACKWARD_HPP_
