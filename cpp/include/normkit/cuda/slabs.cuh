// Sets in shared memory: a thread block takes a set, reads it once and keeps its elements until what it is
// normalized by is known.
//
// Forward: sets too large for a team's registers. Backward: sets whose weight has a number for each channel;
// others go through tiles.cuh. A warp takes its share of the blocks, and applies the result to those that it
// read: a lane reads back what it wrote. So barriers guard the partials and the result alone. The bits are
// those of forward.cuh and backward.cuh.
#ifndef NORMKIT_CUDA_SLABS_CUH_
#define NORMKIT_CUDA_SLABS_CUH_

#include "normkit/cuda/backward.cuh"

NORMKIT_BEGIN_NAMESPACE
namespace gpu {

constexpr int kSlabWarps = 16;
constexpr int kSlabThreads = kSlabWarps * kLanes;

// A set in dynamic_memory(). Elements come last, since they may be shorter than what is before them.
template <typename Result, typename Partial, typename E>
struct Slab {
  Result* result;     // of the set
  Partial* partials;  // of the blocks
  E* elements;

  static inline int64_t bytes(int64_t elements, int64_t blocks) {
    return static_cast<int64_t>(sizeof(Result)) + blocks * static_cast<int64_t>(sizeof(Partial)) +
           elements * static_cast<int64_t>(sizeof(E));
  }
  NORMKIT_DEVICE explicit Slab(int blocks)
      : result(dynamic_memory<Result>()),
        partials(reinterpret_cast<Partial*>(result + 1)),
        elements(reinterpret_cast<E*>(partials + blocks)) {}
  // This lane's elements of begin .. begin+n-1.
  NORMKIT_DEVICE LaneElements<E, Spacing::kOne> of(int64_t begin, int n) const {
    return {elements + begin, {Axes(), 0, lane()}, n, lane()};
  }
  // Exact: they come from an E.
  template <int kSteps>
  NORMKIT_DEVICE void keep(int64_t begin, const LaneBlock<E, kSteps>& x) const {
    LaneElements<E, Spacing::kOne> kept = of(begin, x.n);
    x.each_part([&](int part) { kept.write(x.value[part]); });
  }
  template <int kSteps>
  NORMKIT_DEVICE WarpBlock<E, kSteps> kept(int64_t begin, int n) const {
    return {n, of(begin, n)};
  }
};
template <typename E>
using ForwardSlab = Slab<RowStatistics, SetPartial<Compute<E>>, E>;
// dy of the set, then x.
template <typename T>
using BackwardSlab = Slab<RowGrad<Compute<T>>, GradPartial, T>;

// With memory of ForwardSlab<Source::Element>::bytes().
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
  const ForwardSlab<E> slab(count);
  for (int64_t set = blockIdx.x; set < p.rows; set += gridDim.x) {
    for (int i = warp(); i < count; i += kSlabWarps) {
      const Blocks b = blocks.at(i);
      const auto x = taken_block<Source, kBlockSteps>(problem, set, b.begin, b.length);
      slab.keep(b.begin, x);
      const SetPartial<C> partial = set_partial(p, block_partial(p, x));
      if (lane() == 0) slab.partials[i] = partial;
    }
    __syncthreads();
    if (warp() == 0) {  // alone: where units for double are few, 16 warps that merge would wait for them
      const SetPartial<C> all = merge_all<SetPartial<C>>(count, [&](int64_t i) { return slab.partials[i]; });
      const RowStatistics s = checked_statistics(p, set, all.moments);
      if (lane() == 0) {
        save(p, set, s);
        *slab.result = s;
      }
    }
    __syncthreads();
    if (!p.y) continue;
    const Row<C> row = row_from(*slab.result, C());
    for (int i = warp(); i < count; i += kSlabWarps) {
      const Blocks b = blocks.at(i);
      const auto x = slab.template kept<kBlockSteps>(b.begin, b.length);
      write_block<T, Source::kSpacing>(p, set, b.begin, x, row);
    }
  }
}

// dx, and the sums of each channel where they are wanted. Statistics are given or ready; with memory of
// BackwardSlab<T>::bytes(), and as many warps as a set has blocks, at most kSlabWarps.
template <typename T, int kSteps>
__global__ void __launch_bounds__(kSlabThreads, 1)
    backward_slabs(const __grid_constant__ RowsBackward p, const __grid_constant__ SetBlocks sets,
                   Sums* channel_sums) {
  using C = Compute<T>;
  const int count = static_cast<int>(sets.fold * sets.count), warps = static_cast<int>(blockDim.x) / kLanes;
  const BackwardSlab<T> slab(count);
  for (int64_t set = blockIdx.x; set < p.rows; set += gridDim.x) {
    const Row<C> row = row_from(given_statistics(p, set), C());
    for (int i = warp(); i < count; i += warps) {
      const auto place = place_of<T, Spacing::kOne>(p, sets, set, i);
      auto x = place.template block<kSteps>(p.x);
      const auto dy = place.template block<kSteps>(p.dy);
      slab.keep(place.begin, dy);
      slab.keep(p.n + place.begin, x);
      normalize(x, row);
      bool overflows = false;
      const UnweightedPlace<T, Spacing::kOne> unweighted{place};
      const Sums sums = warp_grad_sums<T, kSteps>(dy, x, unweighted, row, overflows);
      if (lane() == 0) slab.partials[i] = {sums, overflows ? 1.0 : 0.0};
    }
    __syncthreads();  // before dx, too: it may lie where other warps still read dy or x
    if (warp() == 0) {
      const RowGrad<C> grad = gradient_of_set<T>(p, sets, set, slab.partials, channel_sums);
      if (lane() == 0) *slab.result = grad;
    }
    __syncthreads();
    const RowGrad<C> grad = *slab.result;
    for (int i = warp(); i < count; i += warps) {
      const auto place = place_of<T, Spacing::kOne>(p, sets, set, i);
      const auto dy = slab.template kept<kSteps>(place.begin, place.n);
      auto x = slab.template kept<kSteps>(p.n + place.begin, place.n);
      normalize(x, row);
      write_gradients_of<T, kSteps>(dy, x, place, row, grad);
    }
  }
}

}  // namespace gpu
NORMKIT_END_NAMESPACE

#endif  // NORMKIT_CUDA_SLABS_CUH_
