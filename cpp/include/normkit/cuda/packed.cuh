// Forward over many short rows (LayerNorm): a warp takes four of at most 256 elements, or two of a block.
//
// Of a short row the statistics' divisions and square root take as long as its elements. Here the sums of the
// rows are folded together, each lane ends with those of one row, and what follows is done for all at once.
// Weight and bias are read once.
#ifndef NORMKIT_CUDA_PACKED_CUH_
#define NORMKIT_CUDA_PACKED_CUH_

#include "normkit/cuda/forward.cuh"

NORMKIT_BEGIN_NAMESPACE
namespace gpu {

// How many rows of so many steps.
constexpr int packed_rows(int steps) {
  return steps == kStepsAtOnce ? 4 : 2;
}

// Of a thread block; longer rows want more registers.
constexpr int packed_warps(int steps) {
  return steps == kStepsAtOnce ? 8 : 4;
}

// One exchange of warp_fold for two sums: lanes below `half` keep the first, the others the second, and each
// passes on what it does not keep.
template <typename V>
NORMKIT_DEVICE V fold_two(const V& first, const V& second, int half) {
  const bool upper = (lane() & half) != 0;
  return (upper ? second : first) + __shfl_xor_sync(kAllLanes, upper ? first : second, half);
}
// warp_fold of the sums of all rows; lane l ends with the total of row l / (32 / rows).
template <typename V>
NORMKIT_DEVICE V fold_rows(const V (&row)[2]) {
  V v = fold_two(row[0], row[1], 16);
  NORMKIT_UNROLL for (int half = 8; half > 0; half /= 2) v = v + __shfl_xor_sync(kAllLanes, v, half);
  return v;
}
template <typename V>
NORMKIT_DEVICE V fold_rows(const V (&row)[4]) {
  V v = fold_two(fold_two(row[0], row[2], 16), fold_two(row[1], row[3], 16), 8);
  NORMKIT_UNROLL for (int half = 4; half > 0; half /= 2) v = v + __shfl_xor_sync(kAllLanes, v, half);
  return v;
}

// Rows of n elements: a block as moments_of wants it, whose numbers are, in each lane, those of its row.
template <typename E, int kSteps>
struct PackedBlock {
  using C = Compute<E>;
  static constexpr int kRows = packed_rows(kSteps);
  static constexpr int kHolders = kLanes / kRows;  // lanes that end with a row's numbers
  int n;
  LaneBlock<E, kSteps> row[kRows];

  // In memory, for loops over rows.
  struct Copies {
    LaneBlock<E, kSteps> row[kRows];
  };
  NORMKIT_DEVICE Copies copies() const {
    if constexpr (kRows == 4)
      return {{in_memory(row[0]), in_memory(row[1]), in_memory(row[2]), in_memory(row[3])}};
    else
      return {{in_memory(row[0]), in_memory(row[1])}};
  }

  NORMKIT_DEVICE DoublePair sum() const {
    double of_row[kRows];
    NORMKIT_UNROLL for (int r = 0; r < kRows; ++r) of_row[r] = row[r].sum().sum;
    return {fold_rows(of_row), 0.0};
  }
  template <bool kCentred>
  NORMKIT_DEVICE double squares(C k) const {
    double of_row[kRows];
    NORMKIT_UNROLL for (int r = 0; r < kRows; ++r) of_row[r] =
        row[r].template squares<kCentred>(__shfl_sync(kAllLanes, k, r * kHolders)).sum;
    return fold_rows(of_row);
  }
  template <int kPower>
  NORMKIT_DEVICE double wide_sum(double k) const {
    const Copies kept = copies();
    Values<double> of_row;  // not an array: see Values
    NORMKIT_ROLL for (int r = 0; r < kRows; ++r) of_row[r] =
        wide_lane_sum<kPower, E, kSteps>(kept.row[r], __shfl_sync(kAllLanes, k, r * kHolders));
    double all[kRows];
    NORMKIT_UNROLL for (int r = 0; r < kRows; ++r) all[r] = of_row[r];
    return fold_rows(all);
  }
  NORMKIT_DEVICE bool all(bool of_row) const { return __all_sync(kAllLanes, of_row) != 0; }
};

template <typename Packed, typename BlockOf>
NORMKIT_DEVICE Packed packed(int n, const BlockOf& block) {
  if constexpr (Packed::kRows == 4)
    return {n, {block(0), block(1), block(2), block(3)}};
  else
    return {n, {block(0), block(1)}};
}

// Rows that share weight and bias. `ready` keeps the statistics, or is null.
template <typename Source, int kSteps>
__global__ void __launch_bounds__(packed_warps(kSteps) * kLanes, kSteps == kStepsAtOnce ? 2 : 3)
    forward_packed(const __grid_constant__ typename Source::Problem problem, RowStatistics* ready) {
  using T = typename Source::Type;
  using E = typename Source::Element;
  using C = Compute<T>;
  using Packed = PackedBlock<E, kSteps>;
  using Block = LaneBlock<E, kSteps>;
  using Line = LaneElements<T, Source::kSpacing>;
  constexpr int kRows = Packed::kRows, kHolders = Packed::kHolders;
  const RowsForward& p = Source::rows(problem);
  const int n = static_cast<int>(p.n), own = lane() / kHolders;
  constexpr int kOfBlock = packed_warps(kSteps) * kRows;
  const int64_t stride = static_cast<int64_t>(gridDim.x) * kOfBlock;
  for (int64_t first = static_cast<int64_t>(blockIdx.x) * kOfBlock + warp() * kRows; first < p.rows;
       first += stride) {
    const int rows = static_cast<int>(p.rows - first < kRows ? p.rows - first : kRows);
    const auto block = [&](int r) {  // the last row once more where there is none
      return Block(n, lane(), Source(problem, first + (r < rows ? r : rows - 1), 0, n));
    };
    const Packed x = packed<Packed>(n, block);
    NORMKIT_UNROLL for (int r = 0; r < kRows; ++r) {
      if (r >= rows) continue;
      Source source(problem, first + r, 0, n);
      x.row[r].each_part([&](int part) { source.keep(x.row[r].value[part]); });
    }
    const Moments<C> m =
        p.centred() ? moments_of(x, x.sum()) : Moments<C>{0.0, 0.0, 0.0, sum_of_squares_of(x)};
    const RowStatistics s = checked_statistics(p, first, m);  // of the lane's row; not for double elements
    if (lane() % kHolders == 0 && own < rows) {
      save(p, first + own, s);
      if (ready != nullptr) ready[first + own] = s;
    }
    if (!p.y) continue;
    const Row<C> own_row = row_from(s, C());
    const bool is_wide = own_row.is_wide && own < rows;
    RowScale<C> scale[kRows];
    NORMKIT_UNROLL for (int r = 0; r < kRows; ++r) {
      const auto of_row = [&](C v) { return __shfl_sync(kAllLanes, v, r * kHolders); };
      scale[r] = {of_row(own_row.scale.hi), of_row(own_row.scale.lo), of_row(own_row.scale.rstd)};
    }
    LaneParameter<T, Spacing::kTwoAxes> weights(p.weight, 0, 0, n, lane(), p.weight_offset, kMissingWeight);
    LaneParameter<T, Spacing::kTwoAxes> biases(p.bias, 0, 0, n, lane(), 0.0, kMissingBias);
    x.row[0].each_part([&](int part) {
      Values<C> weight, bias;
      weights.read(weight);
      biases.read(bias);
      NORMKIT_UNROLL for (int r = 0; r < kRows; ++r) {
        if (r >= rows) continue;
        Values<C> result;
        NORMKIT_UNROLL for (int step = 0; step < kStepsAtOnce; ++step) result[step] =
            normalized(x.row[r].value[part][step], scale[r].hi, scale[r].lo, scale[r].rstd) * weight[step] +
            bias[step];
        const int begin = part * kStepsAtOnce * kLanes;
        Line(p.y, first + r, begin, n - begin, lane()).write(result);
      }
    });
    if (!NORMKIT_LIKELY(x.all(!is_wide))) {  // those rows once more
      const typename Packed::Copies kept = x.copies();
      NORMKIT_ROLL for (int r = 0; r < rows; ++r) {
        const auto wide = from_lane(own_row.wide, r * kHolders);
        if (__shfl_sync(kAllLanes, is_wide ? 1 : 0, r * kHolders) == 0) continue;
        const Line y(p.y, first + r, 0, n, lane());
        write_wide_results<E, kSteps>(
            kept.row[r], wide,
            Results<T, Source::kSpacing, Spacing::kTwoAxes>(p, first + r, 0, n, lane(), y));
      }
    }
    if (p.activation != Activation::kNone)
      NORMKIT_ROLL for (int r = 0; r < rows; ++r) activate(p.activation, Line(p.y, first + r, 0, n, lane()));
  }
}

}  // namespace gpu
NORMKIT_END_NAMESPACE

#endif  // NORMKIT_CUDA_PACKED_CUH_
