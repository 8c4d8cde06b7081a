// Forward passes that keep the moments of their sets: for running statistics, and for what mixes or exchanges
// them.
//
// A tile or bundle of sets leaves its moments in a ring on the stack, from where they are used at once: as
// the only sample of their channels, or pushed onto the channels' trees. Only these are left for a later
// phase.
#ifndef NORMKIT_DETAIL_RUNNING_HPP_
#define NORMKIT_DETAIL_RUNNING_HPP_

#include "normkit/detail/columns_forward.hpp"
#include "normkit/detail/short_rows.hpp"

NORMKIT_BEGIN_NAMESPACE

// A power of two; as many as a tile or bundle has sets, and more.
constexpr int64_t kRing = 128;
static_assert(kRing >= kPanelLanes && kRing >= kShortTileRows, "a tile or bundle overruns the ring");

struct MomentsRing {
  RowMoments of[kRing];

  NORMKIT_INLINE const RowMoments& at(int64_t r) const { return of[r & (kRing - 1)]; }
  NORMKIT_INLINE void keep_for(RowsForward& p) {
    p.moments = of;
    p.moments_mask = kRing - 1;
  }
};

// Forward over rows, which leaves their moments in a ring.
template <typename T>
class MomentsForward {
 public:
  NORMKIT_INLINE explicit MomentsForward(const RowsForward& rows) : p_(rows) { ring_.keep_for(p_); }

  // Rows first .. last-1, whole tiles of them; take(r, moments) is called for each in its order.
  template <typename Take>
  NORMKIT_INLINE void run(int64_t first, int64_t last, const Take& take) {
    for (int64_t r = first; r < last;) {
      const int64_t tile = r / p_.tile_rows, next = r + p_.tile_rows < last ? r + p_.tile_rows : last;
      forward_tiles<T>(p_, tile, tile + 1);
      for (; r < next; ++r) take(r, ring_.at(r));
    }
  }

 private:
  RowsForward p_;
  MomentsRing ring_;
};

// running = (1 - momentum) running + momentum fresh. A share of 0 is no share: NaN and infinity pass from
// neither side then. Finite ones stay within the range of their type: an infinity would stay for good, the
// largest number follows what comes next.
NORMKIT_INLINE void follow(const Operand& running, int64_t channel, double momentum, double fresh) {
  if (!running || momentum == 0.0) return;
  const int64_t at = running.inner.offset(channel);
  const double before = momentum == 1.0 ? 0.0 : read_number(running, at), most = largest_of(running.dtype);
  double after = (1.0 - momentum) * before + momentum * fresh;
  if (is_finite(before) && is_finite(fresh)) after = after > most ? most : after < -most ? -most : after;
  write_number(running, at, after);
}

// The variance of finite elements may lie beyond double's range.
NORMKIT_INLINE double finite_variance(double var) {
  return var > largest_of(DType::kF64) ? largest_of(DType::kF64) : var;
}

// Mean and unbiased variance of a set of n elements.
NORMKIT_INLINE Sums unbiased(const RowMoments& m, double n) {
  return {m.mean / m.scale, finite_variance(m.var / m.scale / m.scale * n / (n - 1.0))};
}

// Running statistics follow the average of the samples; the variance is unbiased.
struct RunningUpdate {
  RowsForward forward;
  Operand running_mean, running_var;
  int64_t samples = 1, channels = 0;
  double momentum = 0.0;
  GroupedTrees<Sums> sums;  // of mean and variance; absent for one sample
  bool by_channel = false;  // as these, but a task has a channel and its tree
  int64_t task_sets = 1;    // rows, or bundles, of a task

  NORMKIT_INLINE void update(int64_t channel, Sums total) const {
    const double sets = static_cast<double>(samples);
    follow(running_mean, channel, momentum, total.first / sets);
    follow(running_var, channel, momentum, finite_variance(total.second / sets));
  }
  NORMKIT_INLINE Sums unbiased(const RowMoments& m) const {
    return detail::unbiased(m, static_cast<double>(forward.n));
  }
  // The moments of set r. Those of one element have no unbiased variance: all is left alone.
  NORMKIT_INLINE void take(int64_t r, const RowMoments& m) const {
    if (forward.n < 2) return;
    if (sums)
      sums.push(r, unbiased(m));
    else
      update(r, unbiased(m));
  }
  NORMKIT_INLINE void take_bundle(const MomentsRing& ring, const ColumnsShape& shape, int64_t o,
                                  int64_t bundle) const {
    const Pieces bundles = shape.bundles();
    const int64_t first = shape.set(o, bundles.begin(bundle));
    for (int64_t c = 0; c < bundles.width(bundle); ++c) take(first + c, ring.at(first + c));
  }
};

template <typename T>
void running_tiles_phase(const void* state, int64_t begin, int64_t end) {
  const FloatEnvironment environment;
  const RunningUpdate& u = *static_cast<const RunningUpdate*>(state);
  const int64_t last = end * u.task_sets < u.forward.rows ? end * u.task_sets : u.forward.rows;
  MomentsForward<T>(u.forward).run(begin * u.task_sets, last,
                                   [&](int64_t r, const RowMoments& m) { u.take(r, m); });
}

// Few samples of so many channels that their trees take too much: one task is a channel.
template <typename T>
void running_channels_phase(const void* state, int64_t begin, int64_t end) {
  const FloatEnvironment environment;
  const RunningUpdate& u = *static_cast<const RunningUpdate*>(state);
  MomentsForward<T> forward(u.forward);
  for (int64_t c = begin; c < end; ++c) {
    MergeTree<Sums> tree;
    for (int64_t r = c; r < u.forward.rows; r += u.channels)
      forward.run(r, r + 1, [&](int64_t, const RowMoments& m) { tree.push(u.unbiased(m)); });
    if (u.forward.n > 1) u.update(c, tree.finish());
  }
}

template <typename T>
void running_bundles_phase(const void* state, int64_t begin, int64_t end) {
  const FloatEnvironment environment;
  if constexpr (sizeof(Compute<T>) == sizeof(float)) {
    const RunningUpdate& u = *static_cast<const RunningUpdate*>(state);
    RowsForward p = u.forward;
    MomentsRing ring;
    ring.keep_for(p);
    const ColumnsShape shape(p);
    const int64_t bundles = shape.bundles().count, all = shape.outer * bundles;
    const int64_t last = end * u.task_sets < all ? end * u.task_sets : all;
    for (int64_t t = begin * u.task_sets; t < last; ++t) {
      forward_bundles<T>(p, t, t + 1);
      u.take_bundle(ring, shape, t / bundles, t % bundles);
    }
  }
}

// Where trees are left: one task is a channel.
inline void update_running_phase(const void* state, int64_t begin, int64_t end) {
  const FloatEnvironment environment;
  const RunningUpdate& u = *static_cast<const RunningUpdate*>(state);
  if (u.forward.n < 2) return;
  for (int64_t c = begin; c < end; ++c) u.update(c, u.sums.total(u.samples, c));
}

// Phase 2 of large columns: their statistics, and the running ones; columns are channels then.
template <typename T>
void merge_column_moments_phase(const void* state, int64_t begin, int64_t end) {
  const RunningUpdate& u = *static_cast<const RunningUpdate*>(state);
  if constexpr (sizeof(Compute<T>) == sizeof(float)) {
    const FloatEnvironment environment;
    const bool updates = u.running_mean || u.running_var;
    RowsForward p = u.forward;
    MomentsRing ring;
    if (updates) ring.keep_for(p);
    merge_column_moments<T>(p, begin, end, [&](const ColumnsShape& shape, int64_t o, int64_t bundle) {
      if (updates) u.take_bundle(ring, shape, o, bundle);
    });
  }
  const Pieces bundles = ColumnsShape(u.forward).bundles();
  if (u.sums)
    update_running_phase(state, bundles.begin(begin), bundles.begin(end - 1) + bundles.width(end - 1));
}

NORMKIT_END_NAMESPACE

#endif  // NORMKIT_DETAIL_RUNNING_HPP_
