// Sets side by side in memory (detail/columns.hpp): a thread block takes a strip of 16 neighbouring columns.
//
// The 32 lanes of a column are the rows r mod 32. Thread (j, c) holds rows j, j + 32, ... of column c, of one
// block; neighbours in a warp are neighbours in memory. A sum is folded by passing it to the warp that owns
// the column, transposed through shared memory: there it is an ordinary fold.
#ifndef NORMKIT_CUDA_COLUMNS_CUH_
#define NORMKIT_CUDA_COLUMNS_CUH_

#include "normkit/cuda/forward.cuh"
#include "normkit/detail/columns_backward.hpp"

NORMKIT_BEGIN_NAMESPACE
namespace gpu {

constexpr int kStripColumns = 16;
constexpr int kColumnThreads = kLanes * kStripColumns;  // as many warps as columns

// This thread's place among the rows, and its column in the strip.
NORMKIT_DEVICE int row_lane() {
  return static_cast<int>(threadIdx.x) / kStripColumns;
}
NORMKIT_DEVICE int own_column() {
  return static_cast<int>(threadIdx.x) % kStripColumns;
}

// Padded: read by columns as fast as by rows.
template <typename V>
struct StripValues {
  V value[kLanes][kStripColumns + 1];
};

// Every thread's part of the sum of its column -> in every thread of warp w, the total of column w.
template <typename V>
NORMKIT_DEVICE V fold_columns(V part, StripValues<V>& shared) {
  shared.value[row_lane()][own_column()] = part;
  __syncthreads();
  const V own = shared.value[lane()][warp()];
  __syncthreads();
  return warp_fold(own);
}

// One column of one outer index; elements are `stride` apart.
template <typename T>
struct Column {
  T* first;
  int64_t stride;

  NORMKIT_DEVICE Column(const Operand& operand, const ColumnsShape& shape, int64_t outer, int64_t column)
      : first(operand.template row<T>(outer * shape.sets_of_outer()) + column),
        stride(shape.stride(operand)) {}
  NORMKIT_DEVICE T* at(int64_t row) const { return first + row * stride; }
};

// What a thread block works on: a strip of columns of one outer index, and of their rows a block.
struct Strip {
  int64_t outer, first;  // column
  Blocks block;

  // Tasks are [outer, block, strip].
  NORMKIT_DEVICE Strip(const ColumnsShape& shape, const Blocks& blocks, int64_t count, int64_t task)
      : outer(task / strips(shape) / count),
        first(task % strips(shape) * kStripColumns),
        block(blocks.at(task / strips(shape) % count)) {}
  static NORMKIT_INLINE int64_t strips(const ColumnsShape& shape) {
    return (shape.columns + kStripColumns - 1) / kStripColumns;
  }
  // As SetBlocks counts columns; set and place in it, in elements.
  NORMKIT_DEVICE int64_t index(const ColumnsShape& shape, int64_t column) const {
    return outer * shape.columns + column;
  }
  NORMKIT_DEVICE int64_t set(const ColumnsShape& shape, int64_t column) const {
    return shape.set(outer, column);
  }
  NORMKIT_DEVICE int64_t place(const ColumnsShape& shape, int64_t column) const {
    return column % shape.fold * shape.rows + block.begin;
  }
};

// A column of which the sum of squares is known already, for moments_of: what else is asked for, seldom, one
// warp takes from memory.
template <typename T>
struct OwnedColumn {
  using C = Compute<T>;
  Column<const T> x;
  int64_t begin;
  int n;
  double known;

  template <bool kCentred>
  NORMKIT_DEVICE double squares(C) const {
    return known;
  }
  template <int kPower>
  NORMKIT_DEVICE double wide_sum(double k) const {
    const WarpBlock<T, kBlockSteps> block(n, [&](int i) { return read<C>(x.at(begin + i)); });
    return block.template wide_sum<kPower>(k);
  }
};

struct MomentsScratch {
  StripValues<double> values;
  float k[kStripColumns];
};

// Of column warp() of the strip, in every thread of that warp: block_partial. x: this thread's elements of
// column own_column().
template <typename T, int kSteps>
NORMKIT_DEVICE Moments<float> owned_moments(const RowsProblem& p, const ColumnsShape& shape,
                                            const Strip& strip, const LaneBlock<T, kSteps>& x,
                                            MomentsScratch& shared) {
  const int64_t owned = strip.first + warp();
  const bool exists = owned < shape.columns;
  OwnedColumn<T> column{Column<const T>(p.x, shape, strip.outer, exists ? owned : strip.first),
                        strip.block.begin, x.n, 0.0};
  if (!p.centred()) {
    column.known = fold_columns(x.template squares<false>(0.0f).sum, shared.values);
    return {0.0, 0.0, 0.0, sum_of_squares_of(column)};
  }
  const double sum = fold_columns(x.sum().sum, shared.values);
  if (lane() == 0) shared.k[warp()] = static_cast<float>(sum / static_cast<double>(x.n));
  __syncthreads();
  column.known = fold_columns(x.template squares<true>(shared.k[own_column()]).sum, shared.values);
  return moments_of(column, {sum, 0.0});
}

// This thread's elements of a strip; 0 beyond the last column.
template <typename T, int kSteps>
NORMKIT_DEVICE LaneBlock<T, kSteps> strip_elements(const Operand& operand, const ColumnsShape& shape,
                                                   const Strip& strip) {
  const int64_t column = strip.first + own_column();
  const bool exists = column < shape.columns;
  const Column<const T> x(operand, shape, strip.outer, exists ? column : strip.first);
  return {strip.block.length, row_lane(),
          [&](int i) { return exists ? read<Compute<T>>(x.at(strip.block.begin + i)) : Compute<T>(0); }};
}

template <typename T>
NORMKIT_DEVICE void write_column_result(const RowsForward& p, const Row<float>& row, float v, float weight,
                                        float bias, T* y) {
  if (NORMKIT_LIKELY(!row.is_wide))
    write_result(row.scale, v, weight, bias, y);
  else
    write_wide_result<T, T>(row.wide, v, weight, bias, y);
  if (p.activation != Activation::kNone) activate_element(p.activation, y);
}

// Columns of one block, each a set: read once.
template <typename T, int kSteps>
__global__ void __launch_bounds__(kColumnThreads, 1)
    forward_columns(const __grid_constant__ RowsForward p, const __grid_constant__ ColumnsShape shape,
                    const __grid_constant__ Blocks blocks) {
  __shared__ MomentsScratch shared;
  __shared__ RowStatistics statistics[kStripColumns];
  const int64_t tasks = shape.outer * Strip::strips(shape);
  for (int64_t task = blockIdx.x; task < tasks; task += gridDim.x) {
    const Strip strip(shape, blocks, 1, task);
    const LaneBlock<T, kSteps> x = strip_elements<T, kSteps>(p.x, shape, strip);
    const Moments<float> m = owned_moments<T>(p, shape, strip, x, shared);
    const int64_t owned = strip.first + warp(), column = strip.first + own_column();
    if (lane() == 0 && owned < shape.columns) {  // one lane: of double, rescaled_set would take all
      static_assert(sizeof(Compute<T>) == sizeof(float), "columns are not for double");
      statistics[warp()] = checked_statistics(p, strip.set(shape, owned), m);
      save_statistics(p, strip.set(shape, owned), statistics[warp()]);
    }
    __syncthreads();
    if (p.y && column < shape.columns) {
      const int64_t set = strip.set(shape, column);
      const Row<float> row = row_from(statistics[own_column()], false, 0.0f);
      const Column<T> y(p.y, shape, strip.outer, column);
      const ParameterElements<T, true> weight(p, p.weight, set, 0, x.n, p.weight_offset, p.missing_weight);
      const ParameterElements<T, true> bias(p, p.bias, set, 0, x.n, 0.0, p.missing_bias);
      x.each([&](float v, int i) { write_column_result(p, row, v, weight(i), bias(i), y.at(i)); });
    }
    __syncthreads();
  }
}

// Partials as block_moments_of_sets leaves them.
template <typename T>
__global__ void __launch_bounds__(kColumnThreads, 1)
    block_moments_of_columns(const __grid_constant__ RowsForward p,
                             const __grid_constant__ ColumnsShape shape,
                             const __grid_constant__ SetBlocks sets, Moments<float>* to) {
  __shared__ MomentsScratch shared;
  const int64_t tasks = shape.outer * sets.count * Strip::strips(shape);
  for (int64_t task = blockIdx.x; task < tasks; task += gridDim.x) {
    const Strip strip(shape, sets.blocks, sets.count, task);
    const auto x = strip_elements<T, kBlockSteps>(p.x, shape, strip);
    const Moments<float> m = owned_moments<T>(p, shape, strip, x, shared);
    const int64_t owned = strip.first + warp();
    const int64_t block = task / Strip::strips(shape) % sets.count;
    if (lane() == 0 && owned < shape.columns) to[strip.index(shape, owned) * sets.count + block] = m;
    __syncthreads();
  }
}

// ---- elementwise: rows in order ----

constexpr int kStripRows = kThreads / kStripColumns;  // at a time

template <typename T>
__global__ void __launch_bounds__(kThreads, 1)
    apply_columns_of(const __grid_constant__ RowsForward p, const __grid_constant__ ColumnsShape shape,
                     const __grid_constant__ Blocks cuts) {
  const int64_t count = cuts.count(), tasks = shape.outer * count * Strip::strips(shape);
  for (int64_t task = blockIdx.x; task < tasks; task += gridDim.x) {
    const Strip strip(shape, cuts, count, task);
    const int64_t column = strip.first + own_column();
    if (column >= shape.columns) continue;
    const int64_t set = strip.set(shape, column), place = strip.place(shape, column);
    const Row<float> row = row_from(given_statistics(p, set), false, 0.0f);
    const ParameterElements<T, true> weight(p, p.weight, set, place, strip.block.length, p.weight_offset,
                                            p.missing_weight);
    const ParameterElements<T, true> bias(p, p.bias, set, place, strip.block.length, 0.0, p.missing_bias);
    const Column<const T> x(p.x, shape, strip.outer, column);
    const Column<T> y(p.y, shape, strip.outer, column);
    for (int i = row_lane(); i < strip.block.length; i += kStripRows) {
      const int64_t r = strip.block.begin + i;
      write_column_result(p, row, read<float>(x.at(r)), weight(i), bias(i), y.at(r));
    }
  }
}

}  // namespace gpu
NORMKIT_END_NAMESPACE

#endif  // NORMKIT_CUDA_COLUMNS_CUH_
