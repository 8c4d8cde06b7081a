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
  return static_cast<int>(threadIdx.x / static_cast<unsigned>(kStripColumns));
}
NORMKIT_DEVICE int own_column() {
  return static_cast<int>(threadIdx.x % static_cast<unsigned>(kStripColumns));
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

// Of one column of one outer index, the elements begin .. begin+n-1 of a lane.
template <typename T>
NORMKIT_DEVICE LaneElements<T, Spacing::kEven> column_elements(const Operand& operand,
                                                               const ColumnsShape& shape, int64_t outer,
                                                               int64_t column, int64_t begin, int n,
                                                               int lane) {
  return {operand.template row<T>(outer * shape.sets_of_outer()) + column,
          {shape.stride(operand), begin, lane},
          n,
          lane};
}

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
  // Of one column, the elements of a lane.
  template <typename T>
  NORMKIT_DEVICE LaneElements<T, Spacing::kEven> elements(const Operand& operand, const ColumnsShape& shape,
                                                          int64_t column, int lane) const {
    return column_elements<T>(operand, shape, outer, column, block.begin, block.length, lane);
  }
};

// Reads zeros where there is no column.
template <typename T>
struct ColumnSource {
  LaneElements<T, Spacing::kEven> elements;
  bool exists;
  NORMKIT_DEVICE void read(Values<Compute<T>>& to) {
    if (exists) elements.read(to);
  }
};

// This thread's elements of a strip.
template <typename T, int kSteps>
NORMKIT_DEVICE LaneBlock<T, kSteps> strip_elements(const Operand& operand, const ColumnsShape& shape,
                                                   const Strip& strip) {
  const int64_t column = strip.first + own_column();
  const bool exists = column < shape.columns;
  return {
      strip.block.length, row_lane(),
      ColumnSource<T>{strip.elements<T>(operand, shape, exists ? column : strip.first, row_lane()), exists}};
}

// A column of which the sum of squares is known already, for moments_of: what else is asked for, seldom, one
// warp takes from memory.
template <typename T>
struct OwnedColumn {
  using C = Compute<T>;
  LaneElements<T, Spacing::kEven> x;  // of lane()
  int n;
  double known;

  template <bool kCentred>
  NORMKIT_DEVICE double squares(C) const {
    return known;
  }
  template <int kPower>
  NORMKIT_DEVICE double wide_sum(double k) const {
    return WarpBlock<T, kBlockSteps>(n, ColumnSource<T>{x, true}).template wide_sum<kPower>(k);
  }
  NORMKIT_DEVICE bool all(bool of_block) const { return of_block; }
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
  OwnedColumn<T> column{strip.elements<T>(p.x, shape, exists ? owned : strip.first, lane()), x.n, 0.0};
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

// y of this thread's elements.
template <typename T, int kSteps>
NORMKIT_DEVICE void write_column(const RowsForward& p, const ColumnsShape& shape, const Strip& strip,
                                 int64_t column, const LaneBlock<T, kSteps>& x, const RowStatistics& s) {
  write_results<T, kSteps>(x, row_from(s, 0.0f),
                           Results<T, Spacing::kEven, Spacing::kTwoAxes>(
                               p, strip.set(shape, column), strip.place(shape, column), x.n, x.lane,
                               strip.elements<T>(p.y, shape, column, x.lane)));
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
      save(p, strip.set(shape, owned), statistics[warp()]);
    }
    __syncthreads();
    if (p.y && column < shape.columns)
      write_column<T, kSteps>(p, shape, strip, column, x, statistics[own_column()]);
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

// `cuts`: of a column, for kStepsAtOnce steps.
template <typename T>
__global__ void __launch_bounds__(kColumnThreads, 1)
    apply_columns_of(const __grid_constant__ RowsForward p, const __grid_constant__ ColumnsShape shape,
                     const __grid_constant__ Blocks cuts) {
  const int64_t count = cuts.count(), tasks = shape.outer * count * Strip::strips(shape);
  for (int64_t task = blockIdx.x; task < tasks; task += gridDim.x) {
    const Strip strip(shape, cuts, count, task);
    const int64_t column = strip.first + own_column();
    if (column < shape.columns)
      write_column<T, kStepsAtOnce>(p, shape, strip, column,
                                    strip_elements<T, kStepsAtOnce>(p.x, shape, strip),
                                    given_statistics(p, strip.set(shape, column)));
  }
}

}  // namespace gpu
NORMKIT_END_NAMESPACE

#endif  // NORMKIT_CUDA_COLUMNS_CUH_
