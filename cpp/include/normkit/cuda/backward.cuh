// Backward over sets: dx, and the gradients of weight and bias.
//
// Of a set: the sums of each block, the means of each set with the sums of each channel, dx. A set of a few
// blocks goes in one kernel, where only dx is wanted. The bits are those of rows_backward.hpp and
// columns_backward.hpp. Rows of LayerNorm go through tiles.cuh, channels that fit in shared memory through
// slabs.cuh.
#ifndef NORMKIT_CUDA_BACKWARD_CUH_
#define NORMKIT_CUDA_BACKWARD_CUH_

#include "normkit/cuda/columns.cuh"

NORMKIT_BEGIN_NAMESPACE
namespace gpu {

// Sums of a block, and whether they were taken in double although the statistics are in range (0 or 1).
struct GradPartial {
  Sums sums;
  double overflows;
};
NORMKIT_DEVICE GradPartial merge(const GradPartial& a, const GradPartial& b) {
  return {detail::merge(a.sums, b.sums), a.overflows + b.overflows > 0.0 ? 1.0 : 0.0};
}

// Whether weight and bias have a number for each element of a set, not for each channel.
NORMKIT_INLINE bool has_row_parameters(const RowsBackward& p) {
  return p.channels == 0;
}

// Where this lane's part of elements begin .. begin+n-1 of a set lies. Made anew where it is used: registers
// are for elements.
template <typename T, Spacing kSpacing>
struct RowPlace {
  const RowsBackward& p;
  int64_t set, begin;
  int n;

  NORMKIT_DEVICE LaneElements<T, kSpacing> elements(const Operand& operand) const {
    return {operand, set, begin, n, lane()};
  }
  NORMKIT_DEVICE auto dy() const { return elements(p.dy); }
  NORMKIT_DEVICE auto x() const { return elements(p.x); }
  NORMKIT_DEVICE auto dx() const { return elements(p.dx); }
  NORMKIT_DEVICE auto dsum() const { return elements(p.dsum); }
  NORMKIT_DEVICE LaneParameter<T, far_parameters(kSpacing)> weight() const {
    return {p.weight, set, begin, n, lane(), p.weight_offset, 1.0};
  }
  template <int kSteps>
  NORMKIT_DEVICE WarpBlock<T, kSteps> block(const Operand& operand) const {
    return {n, elements(operand)};
  }
  // The row with what is wanted in double, where it is wanted.
  NORMKIT_DEVICE const Row<Compute<T>>& in_double(const Row<Compute<T>>& row) const { return row; }
};
// Of given statistics: they are read again where they are wanted in double, and take no registers until then.
template <typename T, Spacing kSpacing>
struct GivenPlace : RowPlace<T, kSpacing> {
  NORMKIT_DEVICE Row<Compute<T>> in_double(const Row<Compute<T>>&) const {
    return row_from(given_statistics(this->p, opaque(this->set)), Compute<T>());
  }
};
// As if there were no weight.
template <typename T, Spacing kSpacing>
struct UnweightedPlace : RowPlace<T, kSpacing> {
  NORMKIT_DEVICE UnitWeight<Compute<T>> weight() const { return {}; }
};

// Of a column.
template <typename T>
struct ColumnPlace {
  const RowsBackward& p;
  const ColumnsShape& shape;
  int64_t outer, column, begin;
  int n, lane;

  NORMKIT_DEVICE LaneElements<T, Spacing::kEven> elements(const Operand& operand) const {
    return column_elements<T>(operand, shape, outer, column, begin, n, lane);
  }
  NORMKIT_DEVICE auto dy() const { return elements(p.dy); }
  NORMKIT_DEVICE auto x() const { return elements(p.x); }
  NORMKIT_DEVICE auto dx() const { return elements(p.dx); }
  NORMKIT_DEVICE auto dsum() const { return elements(p.dsum); }
  NORMKIT_DEVICE LaneParameter<T, Spacing::kTwoAxes> weight() const {
    const int64_t place = column % shape.fold * shape.rows + begin;
    return {p.weight, shape.set(outer, column), place, n, lane, 0.0, 1.0};
  }
  NORMKIT_DEVICE const Row<Compute<T>>& in_double(const Row<Compute<T>>& row) const { return row; }
};
template <typename T>
struct UnweightedColumn : ColumnPlace<T> {
  NORMKIT_DEVICE UnitWeight<Compute<T>> weight() const { return {}; }
};

// In double, or of given statistics: these are constants, dx is dy rstd weight, and x plays no part.
template <typename T, typename Place>
NORMKIT_DEVICE void write_other_gradients(const Place& place, const Row<Compute<T>>& hot,
                                          const RowGrad<Compute<T>>& grad) {
  using C = Compute<T>;
  const Row<C> row = place.in_double(hot);
  const WideRow<C> of_dy{0.0, 0.0, row.wide.rstd, row.wide.scale};
  const bool given = place.p.given, adds = static_cast<bool>(place.p.dsum);
  auto dy_of = place.dy(), x_of = place.x(), dx_of = place.dx(), dsum_of = adds ? place.dsum() : place.dx();
  auto weight_of = place.weight();
  NORMKIT_ROLL while (dx_of.more()) {
    Values<C> dy, x, weight;
    dy_of.read(dy);
    x_of.read(x);
    weight_of.read(weight);
    NORMKIT_ROLL for (int s = 0; s < kStepsAtOnce && dx_of.more(); ++s) {
      T* const dx = dx_of.next();
      const double wide_dy = static_cast<double>(dy[s]), w = static_cast<double>(weight[s]);
      if (given) {
        if (row.is_wide)
          write(dx, wide_normalized(wide_dy, of_dy) * w + -0.0);
        else
          write(dx, normalized(dy[s], C(0), C(0), row.scale.rstd) * weight[s] + C(-0.0));
        continue;
      }
      const double xhat = wide_normalized(static_cast<double>(x[s]), row.wide);
      const double wide =
          gradient(wide_dy, xhat, w, grad.mean_g, grad.mean_gxhat, row.wide.rstd) * row.wide.scale;
      if (adds)
        write(dx, (static_cast<C>(wide) + read<C>(dsum_of.next())) + C(-0.0));
      else
        write(dx, wide);
    }
  }
}

// write_dx.
template <typename T, int kSteps, typename Place>
NORMKIT_DEVICE void write_gradients_of(const LaneBlock<T, kSteps>& dy, const LaneBlock<T, kSteps>& xhat,
                                       const Place& place, const Row<Compute<T>>& row,
                                       const RowGrad<Compute<T>>& grad) {
  using C = Compute<T>;
  if (!NORMKIT_LIKELY(!grad.is_wide && !place.p.given))
    return write_other_gradients<T, Place>(place, row, grad);
  const C mean_g = static_cast<C>(grad.mean_g), mean_gxhat = static_cast<C>(grad.mean_gxhat);
  const bool adds = static_cast<bool>(place.p.dsum);
  auto weight_of = place.weight();
  auto dx_of = place.dx(), dsum_of = adds ? place.dsum() : place.dx();
  xhat.each_part([&](int part) {
    Values<C> weight, result;
    weight_of.read(weight);
    NORMKIT_UNROLL for (int s = 0; s < kStepsAtOnce; ++s) result[s] =
        gradient(dy.value[part][s], xhat.value[part][s], weight[s], mean_g, mean_gxhat, row.scale.rstd);
    if (adds) {
      Values<C> more;
      dsum_of.read(more);
      NORMKIT_UNROLL for (int s = 0; s < kStepsAtOnce; ++s) result[s] = (result[s] + more[s]) + C(-0.0);
    }
    dx_of.write(result);
  });
}

// ---- a set in registers ----

// Of any kind of elements.
template <typename T>
__global__ void __launch_bounds__(kTeamThreads, 1)
    backward_sets_in_registers(const __grid_constant__ RowsBackward p, int team) {
  constexpr Spacing kSpacing = Spacing::kAny;
  constexpr int kSteps = kBlockSteps;
  using C = Compute<T>;
  __shared__ SetPartial<C> moments[kMaxTeam];
  __shared__ GradPartial grads[kMaxTeam];
  __shared__ Sums lows[kMaxTeam];
  const TeamPlace own(team);
  for (int64_t set = own.first; set < p.rows; set += own.stride) {
    const Blocks b = Blocks(p).at(own.part);
    const RowPlace<T, kSpacing> place{p, set, b.begin, b.length};
    auto x = place.template block<kSteps>(p.x);
    const auto dy = place.template block<kSteps>(p.dy);
    const bool known = p.ready != nullptr;
    RowStatistics found, s;
    if (known || p.rstd) {
      found = s = given_statistics(p, set);
    } else {
      found = team_statistics(p, set, x, own.part, team, moments);
      s = as_saved(found);
    }
    if constexpr (sizeof(T) == sizeof(double)) {  // saved_statistics
      if (!known && saved_in_vain(p, s)) {
        s = p.rstd ? rescaled_set(p, set, s) : found;
        if (team > 1) __syncthreads();  // see team_statistics
      } else if (p.centred() && !known)
        s.mean_low = merge_team(Sums{x.template wide_sum<1>(s.mean), 0.0}, own.part, team, lows).first /
                     static_cast<double>(p.n);
    }
    const Row<C> row = row_from(s, C());
    normalize(x, row);
    bool overflows = false;
    const Sums own_sums = warp_grad_sums<T, kSteps>(dy, x, place, row, overflows);
    const GradPartial sums{own_sums, overflows ? 1.0 : 0.0};
    const GradPartial total = merge_team(sums, own.part, team, grads);
    const RowGrad<C> grad = row_grad<C>(p, row, total.sums, total.overflows != 0.0);
    write_gradients_of<T, kSteps>(dy, x, place, row, grad);
  }
}

// ---- larger sets ----

inline SetBlocks backward_blocks(const RowsBackward& p) {
  if (has_row_parameters(p)) return {p.rows, 1, p.n, Blocks(p)};
  const int64_t n = p.n / p.segments;
  return {p.rows, p.segments, n, Blocks(n, p.segment_run, longest_block(p.segment_run))};
}

// Where a block of a set lies, by its index among the blocks of all channels.
template <typename T, Spacing kSpacing>
NORMKIT_DEVICE RowPlace<T, kSpacing> place_of(const RowsBackward& p, const SetBlocks& sets, int64_t set,
                                              int64_t index) {
  const Blocks b = sets.blocks.at(index % sets.count);
  return {p, set, index / sets.count * sets.n + b.begin, b.length};
}

// The statistics as backward applies them: given ones, or the forward's as it would have saved them. Of
// double elements with the digits of the mean that one double cannot hold.
template <typename T>
__global__ void __launch_bounds__(kThreads, 1)
    saved_statistics(const __grid_constant__ RowsBackward p, RowStatistics* ready) {
  const int64_t stride = static_cast<int64_t>(gridDim.x) * kWarps;
  for (int64_t set = static_cast<int64_t>(blockIdx.x) * kWarps + warp(); set < p.rows; set += stride) {
    RowStatistics s = p.rstd ? given_statistics(p, set) : as_saved(ready[set]);
    if constexpr (sizeof(T) == sizeof(double)) {
      if (saved_in_vain(p, s)) {
        s = p.rstd ? rescaled_set(p, set, s) : ready[set];
      } else if (p.centred() && !p.given && !p.sum_dy) {
        WarpTree<Sums> tree;
        for (Blocks b(p); b.more(); b.next()) {
          const RowPlace<T, Spacing::kAny> place{p, set, b.begin, b.length};
          const auto x = place.template block<kBlockSteps>(p.x);
          tree.push({x.template wide_sum<1>(s.mean), 0.0});
        }
        s.mean_low = tree.finish().first / static_cast<double>(p.n);
      }
    }
    __syncwarp();  // every lane has read ready[set]
    if (lane() == 0) ready[set] = s;
  }
}

// Sums lie [column, block].
template <typename T, Spacing kSpacing>
__global__ void __launch_bounds__(kThreads, 1)
    grad_sums_of_sets(const __grid_constant__ RowsBackward p, const __grid_constant__ SetBlocks sets,
                      GradPartial* to) {
  using C = Compute<T>;
  const int64_t stride = static_cast<int64_t>(gridDim.x) * kWarps, tasks = sets.columns * sets.count;
  const int64_t of_set = sets.fold * sets.count;
  const bool weighted = has_row_parameters(p);
  for (int64_t task = static_cast<int64_t>(blockIdx.x) * kWarps + warp(); task < tasks; task += stride) {
    const int64_t set = task / of_set;
    const auto place = place_of<T, kSpacing>(p, sets, set, task % of_set);
    auto x = place.template block<kBlockSteps>(p.x);
    const auto dy = place.template block<kBlockSteps>(p.dy);
    const Row<C> row = row_from(given_statistics(p, set), C());
    normalize(x, row);
    bool overflows = false;
    const Sums sums =
        weighted ? warp_grad_sums<T, kBlockSteps>(dy, x, place, row, overflows)
                 : warp_grad_sums<T, kBlockSteps>(dy, x, UnweightedPlace<T, kSpacing>{place}, row, overflows);
    if (lane() == 0) to[task] = {sums, overflows ? 1.0 : 0.0};
  }
}

// Sums of a block of one column that are known already: see OwnedColumn.
template <typename T>
struct OwnedGrads {
  using C = Compute<T>;
  UnweightedColumn<T> place;  // of lane()
  Pair<C> known;

  NORMKIT_DEVICE Pair<C> sums(const RowScale<C>&) const { return known; }
  NORMKIT_DEVICE Sums wide_sums(const WideRow<C>& row) const {
    const Sums own = wide_lane_grad_sums<UnweightedColumn<T>, C>(place, row);
    return {warp_fold(own.first), warp_fold(own.second)};
  }
};

template <typename T>
__global__ void __launch_bounds__(kColumnThreads, 1)
    grad_sums_of_columns(const __grid_constant__ RowsBackward p, const __grid_constant__ ColumnsShape shape,
                         const __grid_constant__ SetBlocks sets, GradPartial* to) {
  __shared__ StripValues<float> shared;
  const int64_t tasks = shape.outer * sets.count * Strip::strips(shape);
  for (int64_t task = blockIdx.x; task < tasks; task += gridDim.x) {
    const Strip strip(shape, sets.blocks, sets.count, task);
    const int64_t last = shape.columns - 1, owned = strip.first + warp();
    const int64_t column = strip.first + own_column() < last ? strip.first + own_column() : last;
    const Row<float> row = row_from(given_statistics(p, strip.set(shape, column)), 0.0f);
    auto x = strip_elements<T, kBlockSteps>(p.x, shape, strip);
    const auto dy = strip_elements<T, kBlockSteps>(p.dy, shape, strip);
    normalize(x, row);
    const Pair<float> part = lane_grad_sums<T, kBlockSteps>(dy, x, UnitWeight<float>());
    const float first = fold_columns(part.first, shared), second = fold_columns(part.second, shared);
    if (owned > last) continue;  // a whole warp; the next barrier counts it in again
    const Row<float> own_row = row_from(given_statistics(p, strip.set(shape, owned)), 0.0f);
    const OwnedGrads<T> block{{{p, shape, strip.outer, owned, strip.block.begin, strip.block.length, lane()}},
                              {first, second}};
    bool overflows = false;
    const Sums sums = grad_sums_of(block, own_row, overflows);
    if (lane() == 0)
      to[strip.index(shape, owned) * sets.count + task / Strip::strips(shape) % sets.count] = {
          sums, overflows ? 1.0 : 0.0};
  }
}

// The means of g of a set, from the partials of its blocks; the sums of its channels go where they are
// wanted. One warp: a lane has a channel, since of short ones there may be many.
template <typename T>
NORMKIT_DEVICE RowGrad<Compute<T>> gradient_of_set(const RowsBackward& p, const SetBlocks& sets, int64_t set,
                                                   const GradPartial* partials, Sums* channel_sums) {
  using C = Compute<T>;
  GradPartial total{{0.0, 0.0}, 0.0};
  for (int64_t first = 0; first < sets.fold; first += kLanes) {
    const int n = static_cast<int>(sets.fold - first < kLanes ? sets.fold - first : kLanes);
    const bool exists = lane() < n;
    const int64_t channel = exists ? first + lane() : first;
    GradPartial own{};
    if (p.sum_dy) {
      own.sums = larger_sums(p, set);
    } else if (sets.count == 1) {
      own = partials[channel];
    } else {
      for (int c = 0; c < n; ++c) {
        const GradPartial* from = partials + (first + c) * sets.count;
        const GradPartial merged = merge_all<GradPartial>(sets.count, [&](int64_t b) { return from[b]; });
        if (lane() == c) own = merged;
      }
    }
    if (channel_sums != nullptr && exists) channel_sums[set * sets.fold + channel] = own.sums;
    if (has_row_parameters(p)) {
      total = from_lane(own, 0);
      continue;
    }
    Values<C> weight;
    LaneParameter<T, Spacing::kAny>(p.weight, set, channel * sets.n, 1, 0, 0.0, 1.0).read(weight);
    own.sums = weighted({-0.0, -0.0}, static_cast<double>(weight[0]), own.sums);  // -0 + v is v
    for (int c = 0; c < n; ++c) total = merge(total, from_lane(own, c));
  }
  Row<C> row = row_from(given_statistics(p, set), C());
  if (p.sum_dy) row.count = static_cast<double>(p.whole);
  return row_grad<C>(p, row, total.sums, total.overflows != 0.0);
}

// A warp takes a set.
template <typename T>
__global__ void __launch_bounds__(kThreads, 1)
    gradients_of_sets(const __grid_constant__ RowsBackward p, const __grid_constant__ SetBlocks sets,
                      const GradPartial* partials, RowGrad<Compute<T>>* grads, Sums* channel_sums) {
  const int64_t stride = static_cast<int64_t>(gridDim.x) * kWarps;
  for (int64_t set = static_cast<int64_t>(blockIdx.x) * kWarps + warp(); set < p.rows; set += stride) {
    const GradPartial* from = partials + set * sets.fold * sets.count;
    const RowGrad<Compute<T>> grad = gradient_of_set<T>(p, sets, set, from, channel_sums);
    if (lane() == 0) grads[set] = grad;
  }
}

template <typename T, Spacing kSpacing>
__global__ void __launch_bounds__(kThreads, 2)
    apply_gradients_to_sets(const __grid_constant__ RowsBackward p, const __grid_constant__ Blocks cuts,
                            const RowGrad<Compute<T>>* grads) {
  using C = Compute<T>;
  each_piece(p.rows, cuts, [&](int64_t set, const Blocks& b) {
    const Row<C> row = row_from(given_statistics(p, set), C());
    for (int at = 0; at < b.length; at += kStepsAtOnce * kLanes) {
      const int length = b.length - at < kStepsAtOnce * kLanes ? b.length - at : kStepsAtOnce * kLanes;
      const int64_t begin = b.begin + at;
      const RowPlace<T, kSpacing> place{p, set, begin, length};
      auto x = place.template block<kStepsAtOnce>(p.x);
      const auto dy = place.template block<kStepsAtOnce>(p.dy);
      normalize(x, row);
      write_gradients_of<T, kStepsAtOnce>(dy, x, place, row, grads[set]);
    }
  });
}

template <typename T>
__global__ void __launch_bounds__(kColumnThreads, 1)
    apply_gradients_to_columns(const __grid_constant__ RowsBackward p,
                               const __grid_constant__ ColumnsShape shape,
                               const __grid_constant__ Blocks cuts, const RowGrad<float>* grads) {
  const int64_t count = cuts.count(), tasks = shape.outer * count * Strip::strips(shape);
  for (int64_t task = blockIdx.x; task < tasks; task += gridDim.x) {
    const Strip strip(shape, cuts, count, task);
    const int64_t column = strip.first + own_column();
    if (column >= shape.columns) continue;
    const int64_t set = strip.set(shape, column);
    const Row<float> row = row_from(given_statistics(p, set), 0.0f);
    auto x = strip_elements<T, kStepsAtOnce>(p.x, shape, strip);
    const auto dy = strip_elements<T, kStepsAtOnce>(p.dy, shape, strip);
    normalize(x, row);
    const ColumnPlace<T> place{p,         shape, strip.outer, column, strip.block.begin, strip.block.length,
                               row_lane()};
    write_gradients_of<T, kStepsAtOnce>(dy, x, place, row, grads[set]);
  }
}

// ---- parameters ----

// Of channels: a warp takes one, with its sums in all samples.
template <typename T>
__global__ void __launch_bounds__(kThreads, 1)
    sum_samples(const __grid_constant__ RowsBackward p, const Sums* channel_sums, int64_t samples) {
  const int64_t stride = static_cast<int64_t>(gridDim.x) * kWarps;
  for (int64_t channel = static_cast<int64_t>(blockIdx.x) * kWarps + warp(); channel < p.channels;
       channel += stride) {
    Sums sums{0.0, 0.0};
    if (samples > 0)
      sums = merge_all<Sums>(samples, [&](int64_t s) { return channel_sums[s * p.channels + channel]; });
    if (lane() == 0) write_channel(p, channel, sums);
  }
}

// Of the elements of a row: chains over the tiles of each panel of rows (grad_sums.hpp), [panel, 2, n]; a
// warp takes one panel of kPerLane columns in each lane.
constexpr int kPerLane = 4;

template <typename T, Spacing kSpacing>
__global__ void __launch_bounds__(kThreads, 1)
    panel_sums(const __grid_constant__ RowsBackward p, Compute<T>* to) {
  using C = Compute<T>;
  const int64_t stride = static_cast<int64_t>(gridDim.x) * kWarps;
  const int64_t strips = divide_up(p.n, kLanes * kPerLane), panels = divide_up(p.rows, kPanelRows);
  for (int64_t task = static_cast<int64_t>(blockIdx.x) * kWarps + warp(); task < panels * strips;
       task += stride) {
    const int64_t panel = task / strips, first = panel * kPanelRows;
    const int64_t last = first + kPanelRows < p.rows ? first + kPanelRows : p.rows;
    const int64_t begin = task % strips * kLanes * kPerLane;
    const int left = static_cast<int>(p.n - begin < kLanes * kPerLane ? p.n - begin : kLanes * kPerLane);
    Pair<C> chain[kPerLane] = {};
    for (int64_t tile = first; tile < last; tile += kTileRows) {
      Pair<C> term[kTileRows][kPerLane] = {};
      NORMKIT_UNROLL for (int r = 0; r < kTileRows; ++r) {
        if (tile + r >= last) continue;
        const Row<C> row = row_from(given_statistics(p, tile + r), C());
        LaneElements<T, kSpacing> x(p.x, tile + r, begin, left, lane());
        LaneElements<T, kSpacing> dy(p.dy, tile + r, begin, left, lane());
        NORMKIT_UNROLL for (int k = 0; k < kPerLane; ++k) {
          if (!x.more()) continue;
          const C g = read<C>(dy.next());
          const C v = read<C>(x.next());
          const C narrow = g * normalized(v, row.scale.hi, row.scale.lo, row.scale.rstd);
          term[r][k] = {row.is_wide ? static_cast<C>(static_cast<double>(g) *
                                                     wide_normalized(static_cast<double>(v), row.wide))
                                    : narrow,
                        g};
        }
      }
      NORMKIT_UNROLL for (int k = 0; k < kPerLane; ++k) {
        NORMKIT_UNROLL for (int half = 1; half < kTileRows; half *= 2)
            NORMKIT_UNROLL for (int r = 0; r < kTileRows; r += 2 * half) term[r][k] = {
                term[r][k].first + term[r + half][k].first, term[r][k].second + term[r + half][k].second};
        chain[k] = {chain[k].first + term[0][k].first, chain[k].second + term[0][k].second};
      }
    }
    for (int k = 0; k < kPerLane; ++k) {
      const int64_t i = begin + k * kLanes + lane();
      if (i >= p.n) continue;
      to[2 * panel * p.n + i] = chain[k].first;
      to[(2 * panel + 1) * p.n + i] = chain[k].second;
    }
  }
}

}  // namespace gpu
NORMKIT_END_NAMESPACE

#endif  // NORMKIT_CUDA_BACKWARD_CUH_
