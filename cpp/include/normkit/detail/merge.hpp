// Partial results of blocks, and the fixed tree that merges them.
//
// The tree is a binary counter in index order: equal ranks merge at once; at the end the small merge into the
// large. Block limits depend on the set's own shape only, so the tree does too, and so do the result's bits.
#ifndef NORMKIT_DETAIL_MERGE_HPP_
#define NORMKIT_DETAIL_MERGE_HPP_

#include "normkit/detail/config.hpp"
#include "normkit/detail/convert.hpp"
#include "normkit/detail/simd.hpp"

NORMKIT_BEGIN_NAMESPACE

NORMKIT_INLINE bool is_finite(double v) {
  return v - v == 0.0;
}

// Elements in a block. Smaller blocks cost speed on rows of 768; with 4096 the float lanes grow too long to
// keep 5 ULP.
constexpr int kBlock = 1024;

// a + b = sum + error exactly (Knuth).
struct TwoSum {
  double sum, error;
  NORMKIT_INLINE TwoSum(double a, double b) {
    sum = a + b;
    const double b_part = sum - a;
    const double a_part = sum - b_part;
    error = (a - a_part) + (b - b_part);
  }
};

// An unevaluated sum, low being what high leaves out.
struct DoublePair {
  double high, low;
};

// Count, mean and sum of squared deviations. C is the type of the elements' arithmetic: for double elements
// the mean is the unevaluated pair mean + mean_low, since a mean in one double costs every digit that the
// spread lies below it.
template <typename C>
struct Moments {
  double count, mean, mean_low, m2;
};

// Chan, Golub, LeVeque 1979: combining the moments of neighbouring sets.
NORMKIT_INLINE Moments<float> merge(const Moments<float>& a, const Moments<float>& b) {
  const double n = a.count + b.count;
  const double d = b.mean - a.mean;
  return {n, a.mean + d * (b.count / n), 0.0, a.m2 + b.m2 + d * d * (a.count * b.count / n)};
}
NORMKIT_INLINE Moments<double> merge(const Moments<double>& a, const Moments<double>& b) {
  const double n = a.count + b.count;
  const double d = (b.mean - a.mean) + (b.mean_low - a.mean_low);
  const TwoSum mean(a.mean, d * (b.count / n));
  const TwoSum pair(mean.sum, mean.error + a.mean_low);
  return {n, pair.sum, pair.error, a.m2 + b.m2 + d * d * (a.count * b.count / n)};
}

// ---- moments near the ends of double's range ----

// A power of two that takes a positive double near 1, as far as one can: at most 2^1000.
NORMKIT_INLINE double inverse_power_of_two(double v) {
  double scale = 1.0;
  for (; v < 0x1p-100 && scale < 0x1p1000; v *= 0x1p100) scale *= 0x1p100;
  for (; v > 0x1p100; v *= 0x1p-100) scale *= 0x1p-100;
  return scale;
}

// Of double elements whose partial results are kept or pass from phase to phase: those of x times `scale`, a
// power of two, so that m2 neither overflows nor vanishes. 1 but near the ends of double's range.
struct ScaledMoments {
  double count, mean, mean_low, m2, scale;

  NORMKIT_INLINE Moments<double> plain() const { return {count, mean, mean_low, m2}; }
  NORMKIT_INLINE ScaledMoments in(double wanted) const {
    const double ratio = wanted / scale;
    return {count, mean * ratio, mean_low * ratio, m2 * ratio * ratio, wanted};
  }
};

NORMKIT_INLINE bool fits_unscaled(double m2) {
  return m2 >= 0x1p-800 && m2 <= 0x1p800;
}

// In the scale of what counts most: the spread of either, or the distance between their means.
inline NORMKIT_NOINLINE ScaledMoments merge_scaled(const ScaledMoments& a, const ScaledMoments& b) {
  const double common = (a.scale < b.scale ? a.scale : b.scale) * 0x1p-2;  // in which no distance overflows
  const ScaledMoments low_a = a.in(common), low_b = b.in(common);
  const double d = (low_b.mean - low_a.mean) + (low_b.mean_low - low_a.mean_low);
  const double distance = d < 0.0 ? -d : d;
  double scale = __builtin_inf();
  if (a.m2 != 0.0 && a.scale < scale) scale = a.scale;
  if (b.m2 != 0.0 && b.scale < scale) scale = b.scale;
  if (distance != 0.0 && is_finite(distance)) {
    const bool is_odd = distance < 0x1p-400 * common || distance > 0x1p400 * common;
    const double own = is_odd ? inverse_power_of_two(distance) * common : 1.0;
    if (own < scale) scale = own;
  }
  if (!is_finite(scale)) scale = 1.0;
  const Moments<double> m = merge(a.in(scale).plain(), b.in(scale).plain());
  return {m.count, m.mean, m.mean_low, m.m2, scale};
}

NORMKIT_INLINE ScaledMoments merge(const ScaledMoments& a, const ScaledMoments& b) {
  const Moments<double> plain = merge(a.plain(), b.plain());
  const bool same = plain.m2 == 0.0 && a.mean == b.mean && a.mean_low == b.mean_low;
  if (NORMKIT_LIKELY(a.scale == 1.0 && b.scale == 1.0 && (fits_unscaled(plain.m2) || same)))
    return {plain.count, plain.mean, plain.mean_low, plain.m2, 1.0};
  return merge_scaled(a, b);
}

// Two plain sums side by side: (sum g, sum g xhat) of a backward pass; the sum of squares of RMSNorm uses the
// first.
struct Sums {
  double first, second;
};
NORMKIT_INLINE Sums merge(const Sums& a, const Sums& b) {
  return {a.first + b.first, a.second + b.second};
}

constexpr int kMaxRanks = 54;  // 2^54 partial results are more than an address space holds

template <typename Partial>
class MergeTree {
 public:
  NORMKIT_INLINE void push(Partial partial) {
    int rank = 0;
    for (; (filled_ >> rank) & 1u; ++rank) partial = merge(level_[rank], partial);
    filled_ = ((filled_ >> rank) | 1u) << rank;
    level_[rank] = partial;
  }

  // A partial of 2^rank blocks. Smaller ones that came before merge into it first.
  NORMKIT_INLINE void push(Partial partial, int rank) {
    for (int r = 0; r < rank; ++r)
      if ((filled_ >> r) & 1u) partial = merge(level_[r], partial);
    for (; (filled_ >> rank) & 1u; ++rank) partial = merge(level_[rank], partial);
    filled_ = ((filled_ >> rank) | 1u) << rank;
    level_[rank] = partial;
  }

  // The tree as memory: level k, if bit k of `filled` is set, at levels + k kDoubles.
  static constexpr int kDoubles = static_cast<int>(sizeof(Partial) / sizeof(double));
  NORMKIT_INLINE uint64_t filled() const { return filled_; }
  inline void load(uint64_t filled, const double* levels) {
    filled_ = filled;
    for (int k = 0; filled >> k; ++k)
      if ((filled >> k) & 1u) memcpy(&level_[k], levels + k * kDoubles, sizeof(Partial));
  }
  inline void save(double* levels) const {
    for (int k = 0; filled_ >> k; ++k)
      if ((filled_ >> k) & 1u) memcpy(levels + k * kDoubles, &level_[k], sizeof(Partial));
  }

  // At least one partial was pushed.
  NORMKIT_INLINE Partial finish() const {
    int rank = 0;
    while (!((filled_ >> rank) & 1u)) ++rank;
    Partial total = level_[rank];
    for (++rank; filled_ >> rank; ++rank)
      if ((filled_ >> rank) & 1u) total = merge(level_[rank], total);
    return total;
  }

 private:
  uint64_t filled_ = 0;
  Partial level_[kMaxRanks];
};

// MergeTree over the samples of each column, in memory that the caller lends. 2^rank neighbouring samples are
// a group, that is a whole subtree, so the bits do not depend on the rank and the memory shrinks with it. A
// group's samples come in their order, from one task; groups in any. Which levels are filled follows from the
// index.
template <typename Partial>
struct GroupedTrees {
  Partial* levels = nullptr;  // [group, line, column]
  int64_t columns = 0;
  int32_t rank = 0;

  NORMKIT_INLINE explicit operator bool() const { return levels != nullptr; }
  // Level k of a group is line k, and the whole group line 0: nothing is left below it.
  NORMKIT_INLINE int64_t lines() const { return rank > 1 ? rank : 1; }
  NORMKIT_INLINE int64_t group() const { return int64_t(1) << rank; }
  NORMKIT_INLINE int64_t bytes(int64_t samples) const {
    return ((samples - 1) / group() + 1) * lines() * columns * static_cast<int64_t>(sizeof(Partial));
  }

  // `index` counts samples, and columns within them.
  NORMKIT_INLINE void push(int64_t index, Partial partial) const {
    if (NORMKIT_LIKELY(rank == 0)) {
      levels[index] = partial;
      return;
    }
    const int64_t sample = index / columns, within = sample & (group() - 1);
    Partial* at = first(sample >> rank, index % columns);
    int k = 0;
    for (; (within >> k) & 1; ++k) partial = merge(at[k * columns], partial);
    at[(k < rank ? k : 0) * columns] = partial;
  }

  // At least one sample was pushed.
  NORMKIT_INLINE Partial total(int64_t samples, int64_t column) const {
    const int64_t whole = samples >> rank;
    MergeTree<Partial> tree;
    for (int64_t g = 0; g < whole; ++g) tree.push(*first(g, column), rank);
    for (int k = rank - 1; k >= 0; --k)
      if ((samples >> k) & 1) tree.push(first(whole, column)[k * columns], k);
    return tree.finish();
  }

 private:
  NORMKIT_INLINE Partial* first(int64_t of_group, int64_t column) const {
    return levels + of_group * lines() * columns + column;
  }
};

// The same tree over lines of sums: `width` of them, a multiple of 16, in memory that the caller lends: one
// line of double for each rank that is reached.
class LineTree {
 public:
  NORMKIT_INLINE LineTree(double* levels, int64_t width) : levels_(levels), width_(width) {}

  template <typename C>
  NORMKIT_NOINLINE void push(const C* line) {
    int rank = 0;
    for (; (filled_ >> rank) & 1u; ++rank) {
    }
    double* to = level(rank);
    for (int64_t i = 0; i < width_; i += kVecLanes) {
      Vec16<double> sum = widen16(line + i);
      for (int k = 0; k < rank; ++k) sum = Vec16<double>::load(level(k) + i) + sum;
      sum.store(to + i);
    }
    filled_ = ((filled_ >> rank) | 1u) << rank;
  }

  // Leaves the total in the first level; 0 where nothing was pushed.
  NORMKIT_NOINLINE void finish() {
    for (int64_t i = 0; i < width_; i += kVecLanes) {
      Vec16<double> sum = Vec16<double>::zero();
      bool first = true;
      for (int k = 0; filled_ >> k; ++k) {
        if (!((filled_ >> k) & 1u)) continue;
        const Vec16<double> large = Vec16<double>::load(level(k) + i);
        sum = first ? large : large + sum;
        first = false;
      }
      sum.store(levels_ + i);
    }
  }

 private:
  NORMKIT_INLINE double* level(int rank) { return levels_ + rank * width_; }

  double* levels_;
  int64_t width_;
  uint64_t filled_ = 0;
};

NORMKIT_END_NAMESPACE

#endif  // NORMKIT_DETAIL_MERGE_HPP_
