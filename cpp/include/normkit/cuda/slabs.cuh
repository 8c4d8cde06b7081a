// Forward over sets in shared memory: a thread block takes a set that is too large for a team's registers,
// reads it once and keeps its elements until the statistics are known.
//
// A warp takes every 16th block of the set, and applies the statistics to the blocks that it read: a lane
// reads back what it wrote. So barriers guard the partials and the statistics alone, and the bits are those
// of forward.cuh.
#ifndef NORMKIT_CUDA_SLABS_CUH_
#define NORMKIT_CUDA_SLABS_CUH_

#include "normkit/cuda/forward.cuh"

NORMKIT_BEGIN_NAMESPACE
namespace gpu {

constexpr int kSlabWarps = 16;
constexpr int kSlabThreads = kSlabWarps * kLanes;

// A set in dynamic_memory(). Elements come last, since they may be shorter than what is before them.
template <typename E>
struct Slab {
  using Partial = SetPartial<Compute<E>>;
  RowStatistics* statistics;
  Partial* partials;  // of the blocks
  E* elements;

  static inline int64_t bytes(int64_t n, int64_t blocks) {
    return static_cast<int64_t>(sizeof(RowStatistics)) + blocks * static_cast<int64_t>(sizeof(Partial)) +
           n * static_cast<int64_t>(sizeof(E));
  }
  NORMKIT_DEVICE explicit Slab(int blocks)
      : statistics(dynamic_memory<RowStatistics>()),
        partials(reinterpret_cast<Partial*>(statistics + 1)),
        elements(reinterpret_cast<E*>(partials + blocks)) {}
  // This lane's elements of a block.
  NORMKIT_DEVICE LaneElements<E, Spacing::kOne> of(const Blocks& b) const {
    return {elements + b.begin, {Axes(), 0, lane()}, b.length, lane()};
  }
};

// With memory of Slab<Source::Element>::bytes().
template <typename Source>
__global__ void __launch_bounds__(kSlabThreads, 1)
    forward_slabs(const __grid_constant__ typename Source::Problem problem) {
  using T = typename Source::Type;
  using E = typename Source::Element;
  using C = Compute<T>;
  static_assert(sizeof(C) == sizeof(float), "rescaled_set would read double elements of the set again");
  const RowsForward& p = Source::rows(problem);
  const Blocks blocks(p);
  const int count = static_cast<int>(blocks.count());
  const Slab<E> slab(count);
  for (int64_t set = blockIdx.x; set < p.rows; set += gridDim.x) {
    for (int i = warp(); i < count; i += kSlabWarps) {
      const Blocks b = blocks.at(i);
      const auto x = taken_block<Source, kBlockSteps>(problem, set, b.begin, b.length);
      LaneElements<E, Spacing::kOne> kept = slab.of(b);
      x.each_part([&](int part) { kept.write(x.value[part]); });  // exact: they come from an E
      const SetPartial<C> partial = set_partial(p, block_partial(p, x));
      if (lane() == 0) slab.partials[i] = partial;
    }
    __syncthreads();
    if (warp() == 0) {  // alone: where units for double are few, 16 warps that merge would wait for them
      const SetPartial<C> all = merge_all<SetPartial<C>>(count, [&](int64_t i) { return slab.partials[i]; });
      const RowStatistics s = checked_statistics(p, set, all.moments);
      if (lane() == 0) {
        save(p, set, s);
        *slab.statistics = s;
      }
    }
    __syncthreads();
    if (!p.y) continue;
    const Row<C> row = row_from(*slab.statistics, false, C());
    for (int i = warp(); i < count; i += kSlabWarps) {
      const Blocks b = blocks.at(i);
      const WarpBlock<E, kBlockSteps> x(b.length, slab.of(b));
      write_block<T, Source::kSpacing>(p, set, b.begin, x, row);
    }
  }
}

}  // namespace gpu
NORMKIT_END_NAMESPACE

#endif  // NORMKIT_CUDA_SLABS_CUH_
