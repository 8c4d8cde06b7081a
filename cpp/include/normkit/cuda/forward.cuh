// Forward over sets that are runs: a warp takes a block.
//
// Where a team of at most kMaxTeam warps holds a whole set in registers, one kernel reads it once, takes its
// statistics and writes y (forward_sets). Sets that are larger, and do not fit in shared memory (slabs.cuh),
// take three: the moments of each block, the statistics of each set, y. The bits are those of rows.hpp.
#ifndef NORMKIT_CUDA_FORWARD_CUH_
#define NORMKIT_CUDA_FORWARD_CUH_

#include "normkit/cuda/lanes.cuh"
#include "normkit/detail/add_norm.hpp"
#include "normkit/detail/sets_plan.hpp"

NORMKIT_BEGIN_NAMESPACE
namespace gpu {

constexpr int kMaxTeam = 8;
// Launch bounds say how many thread blocks share a multiprocessor: with less room ptxas spills registers.
constexpr int kTeamThreads = kMaxTeam * kLanes;
constexpr int kWarps = 8;  // of a thread block whose warps work alone
constexpr int kThreads = kWarps * kLanes;

// ---- what is normalized ----

// x itself. kElements: how its elements lie; see LaneBlock for Element.
template <typename T, Spacing kElements>
struct PlainSource {
  using Problem = RowsForward;
  using Type = T;
  using Element = T;
  static constexpr Spacing kSpacing = kElements;
  LaneElements<T, kSpacing> x;

  static NORMKIT_DEVICE const RowsForward& rows(const Problem& p) { return p; }
  NORMKIT_DEVICE PlainSource(const Problem& p, int64_t set, int64_t begin, int n)
      : x(p.x, set, begin, n, lane()) {}
  NORMKIT_DEVICE void read(Values<Compute<T>>& to) { x.read(to); }
  NORMKIT_DEVICE void keep(const Values<Compute<T>>&) const {}
};

// x + residual + bias: as it is written (E = T), or before that rounding (E = float). add_block.hpp.
template <typename T, typename E, Spacing kElements>
struct SumSource {
  using Problem = AddNormForward;
  using Type = T;
  using Element = E;
  using C = Compute<T>;
  static constexpr Spacing kSpacing = kElements;
  LaneElements<T, kSpacing> x, residual;
  LaneParameter<T, far_parameters(kSpacing)> bias;
  LaneElements<T, kSpacing> sum;

  static NORMKIT_DEVICE const RowsForward& rows(const Problem& p) { return p.rows; }
  NORMKIT_DEVICE SumSource(const Problem& p, int64_t set, int64_t begin, int n)
      : x(p.x, set, begin, n, lane()),
        residual(p.residual, set, begin, n, lane()),
        bias(p.residual_bias, set, begin, n, lane(), 0.0, -0.0),
        sum(p.rows.x, set, begin, n, lane()) {}
  NORMKIT_DEVICE void read(Values<C>& to) {
    Values<C> other, more;
    x.read(to);
    residual.read(other);
    bias.read(more);
    NORMKIT_UNROLL for (int s = 0; s < kStepsAtOnce; ++s) {
      to[s] = (to[s] + other[s]) + more[s];
      if constexpr (sizeof(E) < sizeof(C)) {
        T rounded;
        write(&rounded, to[s]);
        to[s] = detail::read<C>(&rounded);
      }
    }
  }
  // The lane that reads an element writes it: the sum may lie where x or the residual does.
  NORMKIT_DEVICE void keep(const Values<C>& from) { sum.write(from); }
};

// ---- one block ----

// Of the elements begin .. begin+n-1 of a set, read once.
template <typename Source, int kSteps>
NORMKIT_DEVICE WarpBlock<typename Source::Element, kSteps> taken_block(
    const typename Source::Problem& problem, int64_t set, int64_t begin, int n) {
  Source source(problem, set, begin, n);
  const WarpBlock<typename Source::Element, kSteps> x(n, source);
  x.each_part([&](int part) { source.keep(x.value[part]); });
  return x;
}

// Where y of one lane goes, and what it is multiplied by and added to.
template <typename T, Spacing kElements, Spacing kParameters>
struct Results {
  using C = Compute<T>;
  LaneElements<T, kElements> y;
  LaneParameter<T, kParameters> weight, bias;
  Activation activation;

  NORMKIT_DEVICE Results(const RowsForward& p, int64_t set, int64_t begin, int n, int lane,
                         const LaneElements<T, kElements>& y_)
      : y(y_),
        weight(p.weight, set, begin, n, lane, p.weight_offset, kMissingWeight),
        bias(p.bias, set, begin, n, lane, 0.0, kMissingBias),
        activation(p.activation) {}
};

template <typename T, Spacing kSpacing>
NORMKIT_DEVICE void activate(Activation activation, LaneElements<T, kSpacing> y) {
  NORMKIT_ROLL while (y.more()) {
    T* const at = y.next();
    write(at, activated(activation, read<Compute<T>>(at)));
  }
}

// In double. A float sum of shorter elements (SumSource) makes a float y, rounded again.
template <typename E, int kSteps, typename Results>
NORMKIT_DEVICE void write_wide_results(LaneBlock<E, kSteps> x, WideRow<Compute<E>> row, Results to) {
  using C = Compute<E>;
  NORMKIT_ROLL for (int part = 0; part < x.kParts; ++part) {
    Values<C> weight, bias;
    to.weight.read(weight);
    to.bias.read(bias);
    NORMKIT_ROLL for (int s = 0; s < kStepsAtOnce && to.y.more(); ++s) {
      E between;
      write(&between,
            wide_normalized(static_cast<double>(x.value[part][s]), row) * static_cast<double>(weight[s]) +
                static_cast<double>(bias[s]));
      write(to.y.next(), read<C>(&between));
    }
  }
}

template <typename E, int kSteps, typename Results>
NORMKIT_DEVICE void write_results(const LaneBlock<E, kSteps>& x, const Row<Compute<E>>& row, Results to) {
  using C = Compute<E>;
  const auto y = to.y;
  if (NORMKIT_LIKELY(!row.is_wide))
    x.each_part([&](int part) {
      Values<C> weight, bias, result;
      to.weight.read(weight);
      to.bias.read(bias);
      NORMKIT_UNROLL for (int s = 0; s < kStepsAtOnce; ++s) result[s] =
          normalized(x.value[part][s], row.scale.hi, row.scale.lo, row.scale.rstd) * weight[s] + bias[s];
      to.y.write(result);
    });
  else
    write_wide_results<E, kSteps, Results>(in_memory(x), row.wide, to);
  if (to.activation != Activation::kNone) activate(to.activation, y);
}

template <typename T, Spacing kSpacing, typename E, int kSteps>
NORMKIT_DEVICE void write_block(const RowsForward& p, int64_t set, int64_t begin,
                                const WarpBlock<E, kSteps>& x, const Row<Compute<T>>& row) {
  write_results<E, kSteps>(x, row,
                           Results<T, kSpacing, far_parameters(kSpacing)>(p, set, begin, x.n, lane(),
                                                                          {p.y, set, begin, x.n, lane()}));
}

// ---- double elements whose squares leave their range ----

struct Scaled {
  LaneElements<double, Spacing::kAny> x;
  double scale;
  NORMKIT_DEVICE void read(Values<double>& to) {
    x.read(to);
    NORMKIT_UNROLL for (int s = 0; s < kStepsAtOnce; ++s) to[s] = to[s] * scale;
  }
};

// rescaled_statistics. One warp.
NORMKIT_DEVICE RowStatistics rescaled_set(const RowsProblem& p, int64_t set, RowStatistics plain) {
  __syncwarp();  // x may be a sum that other lanes have just written
  double largest = 0.0;
  const double* row = p.x.template row<const double>(set);
  for (int64_t i = lane(); i < p.n; i += kLanes) {
    const double v = row[p.x.inner.offset(i)], magnitude = v < 0.0 ? -v : v;
    if (!(magnitude <= largest)) largest = magnitude;
  }
  for (int half = kLanes / 2; half > 0; half /= 2) {
    const double other = __shfl_xor_sync(kAllLanes, largest, half);
    if (!(other <= largest)) largest = other;
  }
  largest = __shfl_sync(kAllLanes, largest, 0);
  const double scale = scale_of_squares(p, largest);
  if (scale == 1.0) return plain;
  WarpTree<Moments<double>> moments;
  WarpTree<Sums> squares;
  for (Blocks b(p); b.more(); b.next()) {
    Scaled source{{p.x, set, b.begin, b.length, lane()}, scale};
    const WarpBlock<double, kBlockSteps> x(b.length, source);
    if (p.centred())
      moments.push(x.moments());
    else
      squares.push({x.sum_of_squares(), 0.0});
  }
  if (!p.centred()) return statistics_of_squares(p, squares.finish().first, scale);
  const Moments<double> m = moments.finish();
  return statistics_from(p, m.mean, m.mean_low, m.m2, scale);
}

NORMKIT_DEVICE void save(const RowsForward& p, int64_t set, RowStatistics s) {
  save_statistics(p, set, s);
}

template <typename C>
NORMKIT_DEVICE RowStatistics checked_statistics(const RowsProblem& p, int64_t set, const Moments<C>& m) {
  const RowStatistics s =
      p.centred() ? statistics_from(p, m.mean, m.mean_low, m.m2, 1.0) : statistics_of_squares(p, m.m2, 1.0);
  if constexpr (sizeof(C) == sizeof(double)) {
    if (!squares_fit(s.rstd)) return rescaled_set(p, set, s);
  }
  return s;
}

// Of one block: moments, or in m2 the sum of squares.
template <typename E, int kSteps>
NORMKIT_DEVICE Moments<Compute<E>> block_partial(const RowsProblem& p, const WarpBlock<E, kSteps>& x) {
  if (p.centred()) return x.moments();
  return {0.0, 0.0, 0.0, x.sum_of_squares()};
}
// merge() of these.
template <typename C>
struct SetPartial {
  Moments<C> moments;
  double squares_only;
};
template <typename C>
NORMKIT_DEVICE SetPartial<C> merge(const SetPartial<C>& a, const SetPartial<C>& b) {
  if (a.squares_only == 0.0) return {detail::merge(a.moments, b.moments), 0.0};
  return {{0.0, 0.0, 0.0, a.moments.m2 + b.moments.m2}, 1.0};
}
template <typename C>
NORMKIT_DEVICE SetPartial<C> set_partial(const RowsProblem& p, const Moments<C>& m) {
  return {m, p.centred() ? 0.0 : 1.0};
}

// ---- a set in registers ----

// A team is one of the warps of a thread block, each with a set, or all of them with one set: this warp's
// first set, the way to its next one, and its part of each.
struct TeamPlace {
  int part;
  int64_t first, stride;

  NORMKIT_DEVICE explicit TeamPlace(int team)
      : part(team == 1 ? 0 : warp()),
        first(team == 1 ? static_cast<int64_t>(blockIdx.x) * kWarps + warp() : blockIdx.x),
        stride(team == 1 ? static_cast<int64_t>(gridDim.x) * kWarps : gridDim.x) {}
};

// The partials of a team's warps, merged; every lane of the team has the result. `shared`: one for each warp
// of the thread block, all of which merge at once. part: this warp's place in its team.
template <typename Partial>
NORMKIT_DEVICE Partial merge_team(const Partial& partial, int part, int team, Partial* shared) {
  if (team == 1) return partial;
  if (lane() == 0) shared[warp()] = partial;
  __syncthreads();
  const Partial total = merge_lanes(lane() < team ? shared[warp() - part + lane()] : partial, team);
  __syncthreads();
  return total;
}

// The statistics of a set of which this warp holds block x.
template <typename E, int kSteps>
NORMKIT_DEVICE RowStatistics team_statistics(const RowsProblem& p, int64_t set, const WarpBlock<E, kSteps>& x,
                                             int part, int team, SetPartial<Compute<E>>* shared) {
  const SetPartial<Compute<E>> own = set_partial(p, block_partial(p, x));
  const RowStatistics s = checked_statistics(p, set, merge_team(own, part, team, shared).moments);
  // A warp that is through may write where another one still reads the whole set (rescaled_set).
  if (sizeof(E) == sizeof(double) && team > 1) __syncthreads();
  return s;
}

// `ready` keeps the statistics, or is null.
template <typename Source, int kSteps>
__global__ void __launch_bounds__(kTeamThreads, kSteps > 8 ? 2 : 3)
    forward_sets(const __grid_constant__ typename Source::Problem problem, int team, RowStatistics* ready) {
  using T = typename Source::Type;
  using C = Compute<T>;
  __shared__ SetPartial<C> shared[kMaxTeam];
  const RowsForward& p = Source::rows(problem);
  const TeamPlace own(team);
  for (int64_t set = own.first; set < p.rows; set += own.stride) {
    const Blocks b = Blocks(p).at(own.part);
    const auto x = taken_block<Source, kSteps>(problem, set, b.begin, b.length);
    const RowStatistics s = team_statistics(p, set, x, own.part, team, shared);
    if (own.part == 0 && lane() == 0) {
      save(p, set, s);
      if (ready != nullptr) ready[set] = s;
    }
    if (p.y) write_block<T, Source::kSpacing>(p, set, b.begin, x, row_from(s, C()));
  }
}

// ---- larger sets: three kernels ----

// Sets as columns of blocks: `fold` of them are a set (channels-last GroupNorm merges channel by channel).
struct SetBlocks {
  int64_t columns, fold, n, count;
  Blocks blocks;

  inline SetBlocks(int64_t sets, int64_t fold_, int64_t n_, const Blocks& blocks_)
      : columns(sets * fold_), fold(fold_), n(n_), count(blocks_.count()), blocks(blocks_) {}
};
inline SetBlocks forward_blocks(const RowsProblem& p) {
  const int64_t fold = p.channels_last ? p.n / p.segment : 1, n = p.n / fold;
  return {p.rows, fold, n, fold == 1 ? Blocks(p) : Blocks(n, n, longest_block(n))};
}

// Partials lie [column, block].
template <typename Source>
__global__ void __launch_bounds__(kThreads, 1)
    block_moments_of_sets(const __grid_constant__ typename Source::Problem problem,
                          const __grid_constant__ SetBlocks sets,
                          Moments<Compute<typename Source::Type>>* to) {
  using E = typename Source::Element;
  const RowsForward& p = Source::rows(problem);
  const int64_t stride = static_cast<int64_t>(gridDim.x) * kWarps, tasks = sets.columns * sets.count;
  for (int64_t task = static_cast<int64_t>(blockIdx.x) * kWarps + warp(); task < tasks; task += stride) {
    const int64_t column = task / sets.count, set = column / sets.fold;
    const Blocks b = sets.blocks.at(task % sets.count);
    Source source(problem, set, column % sets.fold * sets.n + b.begin, b.length);
    const Moments<Compute<E>> partial = block_partial(p, WarpBlock<E, kBlockSteps>(b.length, source));
    if (lane() == 0) memcpy(to + task, &partial, sizeof(partial));
  }
}

// A team takes a set; `ready` keeps what is applied later, or is null.
template <typename T>
__global__ void __launch_bounds__(kThreads, 1)
    statistics_of_sets(const __grid_constant__ RowsForward p, const __grid_constant__ SetBlocks sets,
                       int team, const Moments<Compute<T>>* partials, RowStatistics* ready) {
  using C = Compute<T>;
  __shared__ SetPartial<C> shared[kTeamGroups];
  const TeamPlace own(team);
  for (int64_t set = own.first; set < p.rows; set += own.stride) {
    WarpTree<SetPartial<C>> tree;
    for (int64_t c = 0; c < sets.fold; ++c) {
      const Moments<C>* from = partials + (set * sets.fold + c) * sets.count;
      tree.push(merge_all_by_team<SetPartial<C>>(sets.count, own.part, team, shared,
                                                 [&](int64_t b) { return set_partial(p, from[b]); }));
    }
    if (own.part != 0) continue;
    const RowStatistics s = checked_statistics(p, set, tree.finish().moments);
    if (lane() != 0) continue;
    save(p, set, s);
    if (ready != nullptr) ready[set] = s;
  }
}

// Calls visit(set, piece) for the pieces of every set; a warp takes one.
template <typename Visit>
NORMKIT_DEVICE void each_piece(int64_t sets, const Blocks& cuts, const Visit& visit) {
  const int64_t stride = static_cast<int64_t>(gridDim.x) * kWarps, pieces = cuts.count();
  for (int64_t task = static_cast<int64_t>(blockIdx.x) * kWarps + warp(); task < sets * pieces;
       task += stride)
    visit(task / pieces, cuts.at(task % pieces));
}

// y, by the statistics in p.ready or given ones. `cuts`: of a set, for one warp each.
template <typename Source>
__global__ void __launch_bounds__(kThreads, Source::kSpacing == Spacing::kOne ? 3 : 2)
    apply_sets(const __grid_constant__ typename Source::Problem problem,
               const __grid_constant__ Blocks cuts) {
  using T = typename Source::Type;
  using C = Compute<T>;
  const RowsForward& p = Source::rows(problem);
  each_piece(p.rows, cuts, [&](int64_t set, const Blocks& b) {
    const Row<C> row = row_from(given_statistics(p, set), C());
    for (int at = 0; at < b.length; at += kStepsAtOnce * kLanes) {
      const int length = b.length - at < kStepsAtOnce * kLanes ? b.length - at : kStepsAtOnce * kLanes;
      const auto x = taken_block<Source, kStepsAtOnce>(problem, set, b.begin + at, length);
      write_block<T, Source::kSpacing>(p, set, b.begin + at, x, row);
    }
  });
}

// The sum alone, of sets too large for a team.
template <typename T>
__global__ void __launch_bounds__(kThreads, 1)
    add_sets(const __grid_constant__ AddNormForward problem, const __grid_constant__ Blocks cuts) {
  each_piece(problem.rows.rows, cuts, [&](int64_t set, const Blocks& b) {
    SumSource<T, T, Spacing::kAny> source(problem, set, b.begin, b.length);
    for (int at = 0; at < b.length; at += kStepsAtOnce * kLanes) {
      Values<Compute<T>> sum;
      source.read(sum);
      source.keep(sum);
    }
  });
}

// ---- small ones; T tells the units of element types apart ----

// Statistics of sets without elements.
template <typename T>
__global__ void __launch_bounds__(kThreads, 1) empty_sets(const __grid_constant__ RowsForward p) {
  const int64_t stride = static_cast<int64_t>(gridDim.x) * kThreads;
  for (int64_t set = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x; set < p.rows; set += stride) {
    if (p.mean) write_number(p.mean, p.mean.outer.offset(set), __builtin_nan(""));
    if (p.rstd) write_number(p.rstd, p.rstd.outer.offset(set), __builtin_nan(""));
  }
}

// Running statistics: a warp takes a channel.
template <typename T>
__global__ void __launch_bounds__(kThreads, 1) update_channels(const __grid_constant__ RunningUpdate u) {
  const int64_t stride = static_cast<int64_t>(gridDim.x) * kWarps;
  for (int64_t c = static_cast<int64_t>(blockIdx.x) * kWarps + warp(); c < u.channels; c += stride) {
    const Sums total = merge_all<Sums>(
        u.samples, [&](int64_t s) { return u.unbiased(u.forward.moments[s * u.channels + c]); });
    if (lane() == 0) u.update(c, total);
  }
}

}  // namespace gpu
NORMKIT_END_NAMESPACE

#endif  // NORMKIT_CUDA_FORWARD_CUH_
