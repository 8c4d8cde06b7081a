// Forward over many short rows (LayerNorm of at most 256 elements): a warp takes four.
//
// Of a short row the statistics' divisions and square root take as long as its elements. Here the sums of
// four rows are folded together, each lane ends with those of one row, and what follows is done for four rows
// at once. Weight and bias are read once.
#ifndef NORMKIT_CUDA_PACKED_CUH_
#define NORMKIT_CUDA_PACKED_CUH_

#include "normkit/cuda/forward.cuh"

NORMKIT_BEGIN_NAMESPACE
namespace gpu {

constexpr int kPackedRows = 4;
constexpr int kLanesOfRow = kLanes / kPackedRows;  // that hold its statistics
constexpr int kPackedElements = kStepsAtOnce * kLanes;

// Lane l ends with the total of row l / 8: warp_fold of four sums, where each exchange passes on what the
// other lane keeps.
template <typename V>
NORMKIT_DEVICE V fold_rows(const V& row0, const V& row1, const V& row2, const V& row3) {
  const bool upper = (lane() & 16) != 0, odd = (lane() & 8) != 0;
  const V even_row = (upper ? row2 : row0) + __shfl_xor_sync(kAllLanes, upper ? row0 : row2, 16);
  const V odd_row = (upper ? row3 : row1) + __shfl_xor_sync(kAllLanes, upper ? row1 : row3, 16);
  V v = (odd ? odd_row : even_row) + __shfl_xor_sync(kAllLanes, odd ? even_row : odd_row, 8);
  NORMKIT_UNROLL for (int half = 4; half > 0; half /= 2) v = v + __shfl_xor_sync(kAllLanes, v, half);
  return v;
}

// Four rows of n elements: a block as moments_of wants it, whose numbers are, in each lane, those of its row.
template <typename E>
struct PackedBlock {
  using C = Compute<E>;
  int n;
  LaneBlock<E, kStepsAtOnce> row[kPackedRows];

  // In memory, for loops over rows.
  struct Copies {
    LaneBlock<E, kStepsAtOnce> row[kPackedRows];
    NORMKIT_DEVICE explicit Copies(const PackedBlock& x)
        : row{in_memory(x.row[0]), in_memory(x.row[1]), in_memory(x.row[2]), in_memory(x.row[3])} {}
  };
  template <typename SumOf>
  NORMKIT_DEVICE double folded(const SumOf& sum_of) const {
    return fold_rows(sum_of(0), sum_of(1), sum_of(2), sum_of(3));
  }
  NORMKIT_DEVICE DoublePair sum() const {
    return {folded([&](int r) { return row[r].sum().sum; }), 0.0};
  }
  template <bool kCentred>
  NORMKIT_DEVICE double squares(C k) const {
    return folded([&](int r) {
      return row[r].template squares<kCentred>(__shfl_sync(kAllLanes, k, r * kLanesOfRow)).sum;
    });
  }
  template <int kPower>
  NORMKIT_DEVICE double wide_sum(double k) const {
    const Copies copies{*this};
    double sum[kPackedRows];
    NORMKIT_ROLL for (int r = 0; r < kPackedRows; ++r) sum[r] =
        wide_lane_sum<kPower, E, kStepsAtOnce>(copies.row[r], __shfl_sync(kAllLanes, k, r * kLanesOfRow));
    return fold_rows(sum[0], sum[1], sum[2], sum[3]);
  }
  NORMKIT_DEVICE bool all(bool of_row) const { return __all_sync(kAllLanes, of_row) != 0; }
};

// Rows that share weight and bias. `ready` keeps the statistics, or is null.
template <typename Source>
__global__ void __launch_bounds__(kThreads, 2)
    forward_packed(const __grid_constant__ typename Source::Problem problem, RowStatistics* ready) {
  using T = typename Source::Type;
  using E = typename Source::Element;
  using C = Compute<T>;
  const RowsForward& p = Source::rows(problem);
  const int n = static_cast<int>(p.n);
  const int64_t stride = static_cast<int64_t>(gridDim.x) * kWarps * kPackedRows;
  for (int64_t first = (static_cast<int64_t>(blockIdx.x) * kWarps + warp()) * kPackedRows; first < p.rows;
       first += stride) {
    const int rows = static_cast<int>(p.rows - first < kPackedRows ? p.rows - first : kPackedRows);
    const auto block = [&](int r) {  // the last row once more where there is none
      Source source(problem, first + (r < rows ? r : rows - 1), 0, n);
      return LaneBlock<E, kStepsAtOnce>(n, lane(), source);
    };
    const PackedBlock<E> x{n, {block(0), block(1), block(2), block(3)}};
    NORMKIT_UNROLL for (int r = 0; r < kPackedRows; ++r) if (r < rows) Source(problem, first + r, 0, n)
        .keep(x.row[r].value[0]);
    const Moments<C> m =
        p.centred() ? moments_of(x, x.sum()) : Moments<C>{0.0, 0.0, 0.0, sum_of_squares_of(x)};
    const int own = lane() / kLanesOfRow;
    const RowStatistics s = checked_statistics(p, first, m);  // of the lane's row; not for double elements
    if (lane() % kLanesOfRow == 0 && own < rows) {
      save(p, first + own, s);
      if (ready != nullptr) ready[first + own] = s;
    }
    if (!p.y) continue;
    const Row<C> own_row = row_from(s, false, C());
    const bool is_wide = own_row.is_wide && own < rows;
    Values<C> weight, bias;
    LaneParameter<T, Spacing::kTwoAxes>(p.weight, 0, 0, n, lane(), p.weight_offset, p.missing_weight)
        .read(weight);
    LaneParameter<T, Spacing::kTwoAxes>(p.bias, 0, 0, n, lane(), 0.0, p.missing_bias).read(bias);
    NORMKIT_UNROLL for (int r = 0; r < kPackedRows; ++r) {
      if (r >= rows) continue;
      const auto of_row = [&](C v) { return __shfl_sync(kAllLanes, v, r * kLanesOfRow); };
      const RowScale<C> scale{of_row(own_row.scale.hi), of_row(own_row.scale.lo), of_row(own_row.scale.rstd)};
      Values<C> result;
      NORMKIT_UNROLL for (int step = 0; step < kStepsAtOnce; ++step) result[step] =
          normalized(x.row[r].value[0][step], scale.hi, scale.lo, scale.rstd) * weight[step] + bias[step];
      LaneElements<T, Source::kSpacing>(p.y, first + r, 0, n, lane()).write(result);
    }
    if (!NORMKIT_LIKELY(x.all(!is_wide))) {  // those rows once more
      const typename PackedBlock<E>::Copies copies{x};
      NORMKIT_ROLL for (int r = 0; r < rows; ++r) {
        const int holder = r * kLanesOfRow;
        const auto wide = from_lane(own_row.wide, holder);
        if (__shfl_sync(kAllLanes, is_wide ? 1 : 0, holder) == 0) continue;
        const LaneElements<T, Source::kSpacing> y(p.y, first + r, 0, n, lane());
        write_wide_results<E, kStepsAtOnce>(
            copies.row[r], wide,
            Results<T, Source::kSpacing, Spacing::kTwoAxes>(p, first + r, 0, n, lane(), y));
      }
    }
    if (p.activation != Activation::kNone)
      NORMKIT_ROLL for (int r = 0; r < rows; ++r)
          activate(p.activation, LaneElements<T, Source::kSpacing>(p.y, first + r, 0, n, lane()));
  }
}

}  // namespace gpu
NORMKIT_END_NAMESPACE

#endif  // NORMKIT_CUDA_PACKED_CUH_
