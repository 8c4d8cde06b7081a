// Backward of rows whose weight has a number for each element (LayerNorm): dy and x are read once.
//
// A thread block takes a tile of 8 rows. A team of warps holds a row of dy and x in registers, writes dx, and
// lays the row's terms of dweight and dbias in shared memory; there the threads, now each with columns of its
// own, sum them by the tree of grad_sums.hpp. The sum of a tile goes to a slot of its own, or, since that
// takes memory, into the chain of its panel: then a tile waits for the one before. Tiles are handed out in an
// order that lets every thread block wait only for one that runs already, and seldom.
#ifndef NORMKIT_CUDA_TILES_CUH_
#define NORMKIT_CUDA_TILES_CUH_

#include "normkit/cuda/backward.cuh"

NORMKIT_BEGIN_NAMESPACE
namespace gpu {

constexpr int kTilesOfPanel = kPanelRows / kTileRows;
constexpr int kColumnsAtOnce = 4;  // of a thread: their loads come before the first sum

// How a thread block goes through a tile: `at_once` rows, each by a team of warps, `rounds` times.
struct TileShape {
  int team, at_once, rounds, levels;
  int64_t panels, tiles;
  int64_t n;

  inline TileShape(const RowsBackward& p, int team_)
      : team(team_),
        at_once(1),
        levels(0),
        panels(divide_up(p.rows, kPanelRows)),
        tiles(divide_up(p.rows, kTileRows)),
        n(p.n) {
    while (at_once < kTileRows && 2 * at_once * team <= kMaxTeam) at_once *= 2;
    rounds = kTileRows / at_once;
    while ((1 << levels) < rounds) ++levels;
  }
  inline int threads() const { return kLanes * team * at_once; }
  // Of dynamic_memory(): the terms of the rows at once; what waits on each level of the tree, of two sums.
  template <typename C>
  inline int64_t bytes() const {
    return (at_once + 2 * levels) * n * static_cast<int64_t>(sizeof(C));
  }
};

// Where the sums of panels go, [panel, slot, 2, n]: a slot for each tile, or one for the chain. `done`: how
// many tiles of a panel are in its chain; `ticket`: how many tiles were handed out.
template <typename C>
struct PanelSlots {
  C* sums;
  unsigned* done;
  unsigned* ticket;

  NORMKIT_INLINE bool chained() const { return done != nullptr; }
};

// Sums over the rows of a tile, for the columns of this thread.
template <typename C>
class TileSums {
 public:
  NORMKIT_DEVICE TileSums(const TileShape& shape)
      : shape_(shape), terms_(dynamic_memory<C>()), levels_(terms_ + shape.at_once * shape.n) {}

  // Where a row's terms go.
  NORMKIT_DEVICE C* terms(int row_at_once) const { return terms_ + row_at_once * shape_.n; }

  // After a barrier behind the last term: sums of `which`, 0 (dweight) or 1 (dbias), of a round. After the
  // last round they are the tile's, and finish(first column, sums) is called; the columns are blockDim.x
  // apart, and the last ones may not exist.
  template <typename Finish>
  NORMKIT_DEVICE void add(int round, int which, const Finish& finish) const {
    switch (shape_.at_once) {
      case 8:
        return add_rows<8>(round, which, finish);
      case 4:
        return add_rows<4>(round, which, finish);
      case 2:
        return add_rows<2>(round, which, finish);
      default:
        return add_rows<1>(round, which, finish);
    }
  }

 private:
  template <int kAtOnce, typename Finish>
  NORMKIT_DEVICE void add_rows(int round, int which, const Finish& finish) const {
    constexpr int kLevels = kAtOnce == 8 ? 0 : kAtOnce == 4 ? 1 : kAtOnce == 2 ? 2 : 3;
    const int n = static_cast<int>(shape_.n), step = static_cast<int>(blockDim.x);
    for (int first = static_cast<int>(threadIdx.x); first < n; first += kColumnsAtOnce * step) {
      C term[kColumnsAtOnce][kAtOnce], sum[kColumnsAtOnce];
      NORMKIT_UNROLL for (int c = 0; c < kColumnsAtOnce; ++c) {
        const bool exists = first + c * step < n;
        NORMKIT_UNROLL for (int r = 0; r < kAtOnce; ++r) {
          term[c][r] = exists ? terms_[r * n + first + c * step] : C(0);
        }
      }
      NORMKIT_UNROLL for (int c = 0; c < kColumnsAtOnce; ++c) {
        NORMKIT_UNROLL for (int half = 1; half < kAtOnce; half *= 2)
            NORMKIT_UNROLL for (int r = 0; r < kAtOnce; r += 2 * half) term[c][r] =
                term[c][r] + term[c][r + half];
        sum[c] = term[c][0];
      }
      bool complete = true;  // so far every level had a sum waiting
      NORMKIT_UNROLL for (int level = 0; level < kLevels; ++level) {
        if (!complete) continue;
        complete = ((round >> level) & 1) != 0;
        NORMKIT_UNROLL for (int c = 0; c < kColumnsAtOnce; ++c) {
          if (first + c * step >= n) continue;
          C* const at = waiting(level, which, first + c * step);
          if (complete)
            sum[c] = *at + sum[c];
          else
            *at = sum[c];
        }
      }
      if (complete) finish(first, sum);
    }
  }
  NORMKIT_DEVICE C* waiting(int level, int which, int column) const {
    return levels_ + (2 * level + which) * shape_.n + column;
  }

  const TileShape& shape_;
  C *terms_, *levels_;
};

// The tile that comes next: one of each panel, then the next one of each. Whole thread blocks.
template <typename C>
NORMKIT_DEVICE int64_t next_tile(const TileShape& shape, const PanelSlots<C>& slots, unsigned* shared) {
  __syncthreads();
  if (threadIdx.x == 0) *shared = atomicAdd(slots.ticket, 1u);
  __syncthreads();
  const int64_t task = *shared;
  return task < shape.panels * kTilesOfPanel ? task % shape.panels * kTilesOfPanel + task / shape.panels
                                             : shape.panels * kTilesOfPanel;
}

// The terms of a lane, of dweight (which = 0) or dbias; xhat is x where the row is taken in double.
template <typename T, int kSteps>
NORMKIT_DEVICE void write_wide_terms(LaneBlock<T, kSteps> dy, LaneBlock<T, kSteps> x, WideRow<Compute<T>> row,
                                     Compute<T>* to) {
  NORMKIT_ROLL for (int s = 0; s < kSteps && x.has(s); ++s) to[s * kLanes] = static_cast<Compute<T>>(
      static_cast<double>(dy.at(s)) * wide_normalized(static_cast<double>(x.at(s)), row));
}
template <typename T, int kSteps, typename Place>
NORMKIT_DEVICE void write_terms(const LaneBlock<T, kSteps>& dy, const LaneBlock<T, kSteps>& xhat,
                                const Place& place, const Row<Compute<T>>& row, bool exists, int which,
                                Compute<T>* to) {
  if (which == 0 && row.is_wide && exists) {
    return write_wide_terms<T, kSteps>(in_memory(dy), in_memory(xhat), place.in_double(row).wide, to);
  }
  NORMKIT_UNROLL for (int s = 0; s < kSteps; ++s) {
    const Compute<T> term = which == 0 ? dy.at(s) * xhat.at(s) : dy.at(s);
    if (xhat.has(s)) to[s * kLanes] = exists ? term : Compute<T>(0);
  }
}

// Statistics are given or ready. slots.sums null: without the sums of parameters.
template <typename T, int kSteps>
__global__ void __launch_bounds__(kTeamThreads, 2)
    backward_tiles(const __grid_constant__ RowsBackward p, const __grid_constant__ TileShape shape,
                   const __grid_constant__ PanelSlots<Compute<T>> slots) {
  using C = Compute<T>;
  __shared__ GradPartial grads[kMaxTeam];
  __shared__ unsigned shared_ticket;
  const int team = shape.team, part = warp() % team, row_at_once = warp() / team;
  const TileSums<C> sums(shape);
  const Blocks b = Blocks(p).at(part);
  const bool chained = slots.chained();
  int64_t tile = chained ? next_tile(shape, slots, &shared_ticket) : blockIdx.x;
  while (tile < shape.panels * kTilesOfPanel) {
    const int64_t panel = tile / kTilesOfPanel, in_panel = tile % kTilesOfPanel;
    for (int round = 0; round < shape.rounds && tile < shape.tiles; ++round) {
      const int64_t wanted = tile * kTileRows + round * shape.at_once + row_at_once;
      const bool exists = wanted < p.rows;
      const int64_t set = exists ? wanted : p.rows - 1;  // barriers want every warp
      const GivenPlace<T, Spacing::kOne> place{{p, set, b.begin, b.length}};
      auto x = place.template block<kSteps>(p.x);
      const auto dy = place.template block<kSteps>(p.dy);
      const RowStatistics s = given_statistics(p, set);
      const Row<C> row = row_from(s, C());
      normalize(x, row);
      bool overflows = false;
      const Sums own = warp_grad_sums<T, kSteps>(dy, x, place, row, overflows);
      const GradPartial total = merge_team(GradPartial{own, overflows ? 1.0 : 0.0}, part, team, grads);
      if (p.dx && exists)
        write_gradients_of<T, kSteps>(dy, x, place, row,
                                      row_grad<C>(p, row, total.sums, total.overflows != 0.0));
      if (slots.sums == nullptr) continue;
      NORMKIT_UNROLL for (int which = 0; which < 2; ++which) {
        write_terms<T, kSteps>(dy, x, place, row, exists, which, sums.terms(row_at_once) + b.begin + lane());
        if (chained && which == 0 && round + 1 == shape.rounds && threadIdx.x == 0) {
          while (*static_cast<volatile unsigned*>(slots.done + panel) < in_panel) __nanosleep(20);
          __threadfence();
        }
        __syncthreads();
        sums.add(round, which, [&](int first, const C(&sum)[kColumnsAtOnce]) {
          C* to = slots.sums + (2 * (chained ? panel : tile) + which) * p.n + first;
          const int step = static_cast<int>(blockDim.x), left = static_cast<int>(p.n) - first;
          C before[kColumnsAtOnce] = {};
          NORMKIT_UNROLL for (int c = 0; c < kColumnsAtOnce; ++c) {
            if (chained && in_panel != 0 && c * step < left) before[c] = __ldcg(to + c * step);
          }
          NORMKIT_UNROLL for (int c = 0; c < kColumnsAtOnce; ++c) {
            if (c * step < left) to[c * step] = chained ? before[c] + sum[c] : sum[c];
          }
        });
        __syncthreads();
      }
    }
    // A tile that does not exist has waited for none, and must not speak for those before it.
    if (chained && tile < shape.tiles && threadIdx.x == 0) {
      __threadfence();  // what the others wrote before the barrier, too
      *static_cast<volatile unsigned*>(slots.done + panel) = static_cast<unsigned>(in_panel + 1);
    }
    tile = chained ? next_tile(shape, slots, &shared_ticket) : tile + gridDim.x;
  }
}

// ---- the tree over the panels ----

constexpr int kSquareThreads = kLanes * kLanes;
constexpr int kSlotsOfWarp = 16;  // that a warp reads at once, for a column in each lane

// A thread block has 32 warps and 32 columns. kSlots: of a panel.
template <typename T, int kSlots>
__global__ void __launch_bounds__(kSquareThreads, 1)
    sum_panels(const __grid_constant__ RowsBackward p, const Compute<T>* sums) {
  using C = Compute<T>;
  constexpr int kPanels = kSlotsOfWarp / kSlots, kRound = kLanes * kPanels;
  __shared__ double shared[2][kLanes][kLanes + 1];
  const int64_t strips = divide_up(p.n, kLanes), panels = divide_up(p.rows, kPanelRows);
  const int64_t filled = kSlots == 1 ? panels : divide_up(p.rows, kTileRows);
  for (int64_t strip = blockIdx.x; strip < strips; strip += gridDim.x) {
    const int64_t column = strip * kLanes + lane(), owned = strip * kLanes + warp();
    WarpTree<Sums> tree;
    for (int64_t first = 0; first < panels; first += kRound) {
      const int64_t begin = first + warp() * kPanels, left = column < p.n ? filled - begin * kSlots : 0;
      NORMKIT_UNROLL for (int which = 0; which < 2; ++which) {
        const C* from = sums + (2 * begin * kSlots + which) * p.n + column;
        C slot[kSlotsOfWarp];
        NORMKIT_UNROLL for (int k = 0; k < kSlotsOfWarp; ++k) slot[k] = k < left ? from[k * 2 * p.n] : C(0);
        double sum[kPanels];
        NORMKIT_UNROLL for (int k = 0; k < kPanels; ++k) {
          C chain = C(0);
          NORMKIT_UNROLL for (int t = 0; t < kSlots; ++t) if (k * kSlots + t < left) chain =
              chain + slot[k * kSlots + t];
          sum[k] = static_cast<double>(chain);
        }
        NORMKIT_UNROLL for (int gap = 1; gap < kPanels; gap *= 2)
            NORMKIT_UNROLL for (int k = 0; k + gap < kPanels; k += 2 * gap) sum[k] =
                begin + k + gap < panels ? sum[k] + sum[k + gap] : sum[k];
        shared[which][warp()][lane()] = sum[0];
      }
      __syncthreads();
      const Sums own{shared[0][lane()][warp()], shared[1][lane()][warp()]};
      __syncthreads();
      const int64_t warps = divide_up(panels - first, kPanels);
      tree.push(merge_lanes(own, static_cast<int>(warps < kLanes ? warps : kLanes)));
    }
    const Sums total = panels > 0 ? tree.finish() : Sums{0.0, 0.0};
    if (lane() != 0 || owned >= p.n) continue;
    write_gradients(p.dweight, owned, &total.first, 1, p.accumulate);
    write_gradients(p.dbias, owned, &total.second, 1, p.accumulate);
  }
}

}  // namespace gpu
NORMKIT_END_NAMESPACE

#endif  // NORMKIT_CUDA_TILES_CUH_
