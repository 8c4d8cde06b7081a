// A warp is the 32 lanes of a block: the fold of reduce.hpp, and the trees of merge.hpp, in registers.
//
// Device code says what the headers of the CPU say, with operators: it must be compiled with -fmad=false, as
// the CMake target normkit::cuda does; the PTX then has no fused multiply-add, and nothing later makes one.
// Every function here is called by whole warps, all lanes at once.
#ifndef NORMKIT_CUDA_WARP_CUH_
#define NORMKIT_CUDA_WARP_CUH_

#include "normkit/detail/merge.hpp"
#include "normkit/detail/reduce.hpp"

#if !defined(NORMKIT_CUDA_EXACT)
#  error "compile normkit's kernels through the CMake target normkit::cuda, or with -fmad=false -ftz=false"
#endif
#define NORMKIT_DEVICE __device__ __forceinline__

NORMKIT_BEGIN_NAMESPACE
namespace gpu {

static_assert(kLanes == 32, "a lane is a thread of a warp");
constexpr unsigned kAllLanes = 0xFFFFFFFFu;

NORMKIT_DEVICE int lane() {
  return static_cast<int>(threadIdx.x % static_cast<unsigned>(kLanes));
}
NORMKIT_DEVICE int warp() {
  return static_cast<int>(threadIdx.x / static_cast<unsigned>(kLanes));
}

// Lane j takes lane j + half, 16 -> 8 -> 4 -> 2 -> 1, as fold() does; every lane ends with the total, since
// a + b = b + a.
template <typename V>
NORMKIT_DEVICE V warp_fold(V v) {
  NORMKIT_UNROLL for (int half = kLanes / 2; half > 0; half /= 2) v = v + __shfl_xor_sync(kAllLanes, v, half);
  return v;
}

// One lane's part of a sum in twice the precision of C: LaneSums.
template <typename C>
struct LaneTotal;

template <>
struct LaneTotal<float> {
  double sum = 0.0;
  NORMKIT_DEVICE void add(double v) { sum = sum + v; }
  NORMKIT_DEVICE DoublePair folded() const { return {warp_fold(sum), 0.0}; }
};

template <>
struct LaneTotal<double> {
  CompensatedSum<double> part{0.0, 0.0};
  NORMKIT_DEVICE void add(double v) { part.add(v); }
  NORMKIT_DEVICE DoublePair folded() const {
    const double plain = warp_fold(part.sum);
    if (!is_finite(plain)) return {plain, 0.0};  // an infinity has no error term
    double sum = part.sum, error = warp_fold(part.error);
    for (int half = kLanes / 2; half > 0; half /= 2) {
      const TwoSum s(sum, __shfl_xor_sync(kAllLanes, sum, half));
      for (int j = 0; j < half; ++j) error += __shfl_sync(kAllLanes, s.error, j);
      sum = s.sum;
    }
    const TwoSum s(__shfl_sync(kAllLanes, sum, 0), error);
    return {s.sum, s.error};
  }
};

// The thread block's memory that Launcher::run_with_memory asked for.
template <typename V>
NORMKIT_DEVICE V* dynamic_memory() {
#if defined(__CUDACC__)
  extern __shared__ __align__(16) unsigned char normkit_dynamic_memory[];
  return reinterpret_cast<V*>(normkit_dynamic_memory);
#else
  return reinterpret_cast<V*>(on_host::memory.get());
#endif
}

// ---- partials, structs of doubles ----

template <typename Partial>
NORMKIT_DEVICE Partial from_lane(const Partial& partial, int source) {
  constexpr int kDoubles = static_cast<int>(sizeof(Partial) / sizeof(double));
  double v[kDoubles];
  memcpy(v, &partial, sizeof(v));
  NORMKIT_UNROLL for (int i = 0; i < kDoubles; ++i) v[i] = __shfl_sync(kAllLanes, v[i], source);
  Partial result;
  memcpy(&result, v, sizeof(v));
  return result;
}

// Partials of `count` <= 32 neighbours, one in each lane, merged as MergeTree does: the binary counter with
// "small into large" at its end is the tree of growing gaps. The result is in every lane.
template <typename Partial>
NORMKIT_DEVICE Partial merge_lanes(Partial partial, int count) {
  for (int gap = 1; gap < count; gap *= 2) {
    const Partial other = from_lane(partial, lane() + gap < kLanes ? lane() + gap : lane());
    if (lane() % (2 * gap) == 0 && lane() + gap < count) partial = merge(partial, other);
  }
  return from_lane(partial, 0);
}

// MergeTree with a level in each lane.
template <typename Partial>
class WarpTree {
 public:
  // Every lane has the partial. It is of one leaf, or each of 2^k of them and the last of what is left: whole
  // groups are nodes of the tree over their leaves.
  NORMKIT_DEVICE void push(Partial partial) {
    int rank = 0;
    for (; (filled_ >> rank) & 1u; ++rank) partial = merge(from_lane(level_, rank), partial);
    filled_ = ((filled_ >> rank) | 1u) << rank;
    if (lane() == rank) level_ = partial;
  }
  // At least one partial was pushed.
  NORMKIT_DEVICE Partial finish() const {
    int rank = 0;
    while (!((filled_ >> rank) & 1u)) ++rank;
    Partial total = from_lane(level_, rank);
    for (++rank; rank < kLanes; ++rank)
      if ((filled_ >> rank) & 1u) total = merge(from_lane(level_, rank), total);
    return total;
  }

 private:
  uint32_t filled_ = 0;
  Partial level_{};
};

// The tree over at(0) .. at(count - 1), count > 0.
template <typename Partial, typename At>
NORMKIT_DEVICE Partial merge_all(int64_t count, const At& at) {
  WarpTree<Partial> tree;
  for (int64_t first = 0; first < count; first += kLanes) {
    const int n = static_cast<int>(count - first < kLanes ? count - first : kLanes);
    const Partial own = lane() < n ? at(first + lane()) : Partial{};
    tree.push(merge_lanes(own, n));
  }
  return tree.finish();
}

// The same by a team, one warp or the eight of a thread block, each of which takes 32 partials at a time; the
// first warp has the result. shared: kTeamGroups.
constexpr int kTeamGroups = 8;

template <typename Partial, typename At>
NORMKIT_DEVICE Partial merge_all_by_team(int64_t count, int part, int team, Partial* shared, const At& at) {
  if (team == 1) return merge_all<Partial>(count, at);
  constexpr int64_t kRound = kTeamGroups * kLanes;
  WarpTree<Partial> tree;
  for (int64_t first = 0; first < count; first += kRound) {
    const int n = static_cast<int>(count - first < kRound ? count - first : kRound);
    const int groups = (n + kLanes - 1) / kLanes;
    for (int g = part; g < groups; g += team) {
      const int left = n - g * kLanes, taken = left < kLanes ? left : kLanes;
      const Partial own = lane() < taken ? at(first + g * kLanes + lane()) : Partial{};
      const Partial merged = merge_lanes(own, taken);
      if (lane() == 0) shared[g] = merged;
    }
    __syncthreads();
    if (part == 0) tree.push(merge_all<Partial>(groups, [&](int64_t g) { return shared[g]; }));
    __syncthreads();
  }
  return part == 0 ? tree.finish() : Partial{};
}

}  // namespace gpu
NORMKIT_END_NAMESPACE

#endif  // NORMKIT_CUDA_WARP_CUH_
