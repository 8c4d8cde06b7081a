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

// Forward over rows first .. last-1, whole tiles of them; take(r, moments) is called for each in its order.
template <typename T, typename Take>
NORMKIT_INLINE void forward_with_moments(const RowsForward& rows, int64_t first, int64_t last,
                                         const Take& take) {
  RowsForward p = rows;
  MomentsRing ring;
  ring.keep_for(p);
  for (int64_t r = first; r < last;) {
    const int64_t tile = r / p.tile_rows, next = r + p.tile_rows < last ? r + p.tile_rows : last;
    forward_tiles<T>(p, tile, tile + 1);
    for (; r < next; ++r) take(r, ring.at(r));
  }
}

// running = (1 - momentum) running + momentum new; new averages the samples; the variance is unbiased.
struct RunningUpdate {
  RowsForward forward;
  Operand running_mean, running_var;
  int64_t samples = 1, channels = 0;
  double momentum = 0.0;
  GroupedTrees<Sums> sums;  // of mean and variance; absent for one sample
  int64_t task_sets = 1;    // rows, or bundles, of a task

  NORMKIT_INLINE void update(int64_t channel, Sums total) const {
    const double sets = static_cast<double>(samples);
    const double fresh[] = {total.first / sets, total.second / sets};
    const Operand* running[] = {&running_mean, &running_var};
    for (int i = 0; i < 2; ++i) {
      if (!*running[i]) continue;
      const int64_t at = running[i]->inner.offset(channel);
      write_number(*running[i], at, (1.0 - momentum) * read_number(*running[i], at) + momentum * fresh[i]);
    }
  }
  // The moments of set r.
  NORMKIT_INLINE void take(int64_t r, const RowMoments& m) const {
    const double n = static_cast<double>(forward.n);
    if (forward.n < 2) return;  // no unbiased variance: left alone
    const Sums sums_of_set{m.mean, m.var / m.scale / m.scale * n / (n - 1.0)};
    if (sums)
      sums.push(r / channels, r % channels, sums_of_set);
    else
      update(r, sums_of_set);
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
  forward_with_moments<T>(u.forward, begin * u.task_sets, last,
                          [&](int64_t r, const RowMoments& m) { u.take(r, m); });
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
