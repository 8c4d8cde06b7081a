// The phases of SwitchableNorm: statistics of every (n, c), one task that merges them, and what is applied.
//
// Every set is one of InstanceNorm's; the statistics of LayerNorm and BatchNorm are merged from theirs. Sets
// leave a few doubles each for later phases. Where that is more than scratch may be, as sets are small, only
// what is merged is kept, from trees over groups of samples, and sets are read again.
#ifndef NORMKIT_DETAIL_SWITCHABLE_HPP_
#define NORMKIT_DETAIL_SWITCHABLE_HPP_

#include "normkit/detail/channels_plan.hpp"
#include "normkit/detail/math.hpp"

NORMKIT_BEGIN_NAMESPACE

struct Softmax3 {
  double of[3];

  inline explicit Softmax3(const Operand& logits) {
    double largest = -__builtin_inf(), sum = 0.0;
    for (int k = 0; k < 3; ++k) {
      of[k] = read_number(logits, logits.inner.offset(k));
      largest = of[k] > largest ? of[k] : largest;
    }
    for (double& w : of) sum += (w = exp_of(w - largest));
    for (double& w : of) w /= sum;
  }
};

// The mixture of one (n, c), and its parts: InstanceNorm, LayerNorm, BatchNorm. Everything is of x times
// mixed.scale: a power of two, which is 1 but near the ends of double's range.
struct Mixture {
  RowMoments part[3];
  RowMoments mixed;
  double rstd;

  // As the parts, in the scale of `mixed`. mean_k - mean: relative to each other, so that a large mean costs
  // no digits.
  inline double mean_offset(int k) const {
    return (part[k].mean - mixed.mean) + (part[k].mean_low - mixed.mean_low);
  }
};

// What both directions mix.
struct Switchable {
  Operand mean_weight, var_weight, running_mean, running_var;
  int64_t samples = 0, channels = 0, n = 0;
  bool training = true;
  double eps = 0.0, momentum = 0.0;
  // Of each (n, c): mean, variance and, of double elements, what the mean leaves out and the scale. Or null:
  // not kept.
  double* instance = nullptr;
  int64_t instance_doubles = 2;
  // Where the sets are not kept: of channels over groups of samples, or of samples over groups of channels.
  GroupedTrees<ScaledMoments> groups;
  bool by_channel = false;
  RowMoments* layer = nullptr;  // [samples], or null: found again
  RowMoments* batch = nullptr;  // [channels]

  NORMKIT_INLINE RowMoments kept(int64_t r) const {
    const double* m = instance + r * instance_doubles;
    if (instance_doubles == 2) return {m[0], 0.0, m[1], 1.0};
    return {m[0], m[2], m[1], m[3]};
  }
  NORMKIT_INLINE void keep(int64_t r, const RowMoments& m) const {
    double* to = instance + r * instance_doubles;
    to[0] = m.mean;
    to[1] = m.var;
    if (instance_doubles == 2) return;
    to[2] = m.mean_low;
    to[3] = m.scale;
  }
  NORMKIT_INLINE ScaledMoments moments(const RowMoments& m) const {
    const double count = static_cast<double>(n);
    return {count, m.mean, m.mean_low, m.var * count, m.scale};
  }
};

NORMKIT_INLINE RowMoments from_moments(const ScaledMoments& m) {
  return {m.mean, m.mean_low, m.m2 / m.count, m.scale};
}

// The moments of each (n, c), as they were kept, or found in tiles of tile_rows; samples are whole tiles
// then.
template <typename T>
class Instances {
 public:
  inline Instances(const Switchable& s, const RowsProblem& problem, int32_t tile_rows)
      : s_(s), tiles_(statistics_of(problem, tile_rows)), layer_tiles_(statistics_of(problem, tile_rows)) {}

  // Finds those of rows first .. last-1, whole tiles: take(r, moments) in their order.
  template <typename Take>
  NORMKIT_INLINE void find(int64_t first, int64_t last, const Take& take) {
    tiles_.run(first, last, take);
  }
  // The same, from what was kept where it was.
  template <typename Take>
  NORMKIT_INLINE void get(int64_t first, int64_t last, const Take& take) {
    if (s_.instance == nullptr) return find(first, last, take);
    for (int64_t r = first; r < last; ++r) take(r, s_.kept(r));
  }

  // Of a whole sample.
  NORMKIT_INLINE RowMoments layer(int64_t sample) {
    if (s_.layer != nullptr) return s_.layer[sample];
    if (sample != held_) {
      MergeTree<ScaledMoments> tree;
      layer_tiles_.run(sample * s_.channels, (sample + 1) * s_.channels,
                       [&](int64_t, const RowMoments& m) { tree.push(s_.moments(m)); });
      layer_ = from_moments(tree.finish());
      held_ = sample;
    }
    return layer_;
  }

 private:
  static inline RowsForward statistics_of(const RowsProblem& problem, int32_t tile_rows) {
    RowsForward rows;
    static_cast<RowsProblem&>(rows) = problem;
    rows.given = false;
    rows.tile_rows = tile_rows;
    return rows;
  }

  const Switchable& s_;
  MomentsForward<T> tiles_, layer_tiles_;
  int64_t held_ = -1;  // the sample whose layer_ this is
  RowMoments layer_ = {};
};

// Phase 1 of both directions where sets are not kept: one task is a group of samples, or of channels. What
// lies within one of them is merged at once.
template <typename T>
NORMKIT_NOINLINE void group_moments(const Switchable& s, const RowsProblem& problem, int32_t tile_rows,
                                    int64_t begin, int64_t end) {
  Instances<T> instances(s, problem, s.by_channel ? 1 : tile_rows);
  RowMoments* merged = s.by_channel ? s.batch : s.layer;
  const int64_t all = s.by_channel ? s.channels : s.samples;
  const int64_t last = end * s.groups.group() < all ? end * s.groups.group() : all;
  for (int64_t i = begin * s.groups.group(); i < last; ++i) {
    MergeTree<ScaledMoments> tree;
    const auto push = [&](int64_t r, const RowMoments& m) {
      tree.push(s.moments(m));
      s.groups.push(s.by_channel ? i * s.samples + r / s.channels : r, s.moments(m));
    };
    if (!s.by_channel) instances.find(i * s.channels, (i + 1) * s.channels, push);
    for (int64_t r = i; s.by_channel && r < problem.rows; r += s.channels) instances.find(r, r + 1, push);
    if (merged != nullptr) merged[i] = from_moments(tree.finish());
  }
}

// Merges `count` kept sets, `step` apart.
inline RowMoments merge_kept(const Switchable& s, int64_t first, int64_t count, int64_t step) {
  MergeTree<ScaledMoments> tree;
  for (int64_t i = 0; i < count; ++i) tree.push(s.moments(s.kept(first + i * step)));
  return from_moments(tree.finish());
}

// The statistics of LayerNorm and BatchNorm, as far as phase 1 has left them.
inline void merge_switchable(const Switchable& s) {
  const bool kept = s.instance != nullptr;
  for (int64_t i = 0; i < s.samples; ++i) {
    if (kept)
      s.layer[i] = merge_kept(s, i * s.channels, s.channels, 1);
    else if (s.by_channel)
      s.layer[i] = from_moments(s.groups.total(s.channels, i));
  }
  for (int64_t c = 0; c < s.channels; ++c) {
    if (!s.training)
      s.batch[c] = {read_number(s.running_mean, s.running_mean.inner.offset(c)), 0.0,
                    read_number(s.running_var, s.running_var.inner.offset(c)), 1.0};
    else if (kept)
      s.batch[c] = merge_kept(s, c, s.samples, s.channels);
    else if (!s.by_channel)
      s.batch[c] = from_moments(s.groups.total(s.samples, c));
  }
}

// Mixtures, and what is applied of them.
struct Mixer {
  const Switchable& s;
  Softmax3 mean_weight, var_weight;

  inline explicit Mixer(const Switchable& s_)
      : s(s_), mean_weight(s_.mean_weight), var_weight(s_.var_weight) {}

  // In which rstd^3 and the parts' variances neither overflow nor vanish; 1 where a mean would leave the
  // range.
  inline double scale_for(const RowMoments* const* part) const {
    double largest = square_root(s.eps), farthest = 0.0;
    for (int k = 0; k < 3; ++k) {
      const double spread = square_root(part[k]->var) / part[k]->scale, mean = part[k]->mean / part[k]->scale;
      if (spread > largest) largest = spread;
      if ((mean < 0.0 ? -mean : mean) > farthest) farthest = mean < 0.0 ? -mean : mean;
    }
    const bool is_odd = largest < 0x1p-300 || largest > 0x1p300;
    const double scale = is_odd && largest != 0.0 && is_finite(largest) ? inverse_power_of_two(largest) : 1.0;
    return is_finite(farthest * scale) ? scale : 1.0;
  }

  inline Mixture mix(const RowMoments& instance, const RowMoments& layer, int64_t channel) const {
    const RowMoments* const part[] = {&instance, &layer, &s.batch[channel]};
    const double scale = scale_for(part);
    Mixture m;
    for (int k = 0; k < 3; ++k) {
      const double ratio = scale / part[k]->scale;
      m.part[k] = {part[k]->mean * ratio, part[k]->mean_low * ratio, part[k]->var * ratio * ratio, scale};
    }
    m.mixed = m.part[2];
    const double shift =
        mean_weight.of[0] * m.mean_offset(0) + mean_weight.of[1] * m.mean_offset(1);  // from BatchNorm's mean
    const TwoSum mean(m.part[2].mean, shift);
    const TwoSum pair(mean.sum, mean.error + m.part[2].mean_low);
    double var = 0.0;
    for (int k = 0; k < 3; ++k) var += var_weight.of[k] * m.part[k].var;
    m.mixed = {pair.sum, pair.error, var, scale};
    m.rstd = 1.0 / square_root(var + s.eps * scale * scale);
    return m;
  }
  inline RowStatistics statistics(const Mixture& m) const {
    return {m.mixed.mean, m.mixed.mean_low, m.mixed.var, m.rstd, m.mixed.scale, static_cast<double>(s.n)};
  }
};

// ---- forward ----

struct SwitchableForward {
  RowsForward rows;  // InstanceNorm's; as applied
  Switchable mix;
};

// Phase 1: one task is a tile, or a group of samples.
template <typename T>
void switchable_statistics_phase(const void* state, int64_t begin, int64_t end) {
  const FloatEnvironment environment;
  const SwitchableForward& p = *static_cast<const SwitchableForward*>(state);
  const Switchable& s = p.mix;
  const int32_t tile_rows = p.rows.tile_rows;
  if (s.instance == nullptr) return group_moments<T>(s, p.rows, tile_rows, begin, end);
  const int64_t last = end * tile_rows < p.rows.rows ? end * tile_rows : p.rows.rows;
  Instances<T>(s, p.rows, tile_rows).find(begin * tile_rows, last, [&](int64_t r, const RowMoments& m) {
    s.keep(r, m);
  });
}

inline void switchable_merge_phase(const void* state, int64_t, int64_t) {
  const FloatEnvironment environment;
  const Switchable& s = static_cast<const SwitchableForward*>(state)->mix;
  merge_switchable(s);
  for (int64_t c = 0; s.training && c < s.channels; ++c) {
    const RowMoments& m = s.batch[c];
    follow(s.running_mean, c, s.momentum, m.mean / m.scale);
    follow(s.running_var, c, s.momentum, finite_variance(m.var / m.scale / m.scale));
  }
}

// Phase 3: one task is a tile.
template <typename T>
void switchable_apply_phase(const void* state, int64_t begin, int64_t end) {
  const FloatEnvironment environment;
  const SwitchableForward& p = *static_cast<const SwitchableForward*>(state);
  const Switchable& s = p.mix;
  const Mixer mixer(s);
  Instances<T> instances(s, p.rows, p.rows.tile_rows);
  RowsForward rows = p.rows;
  RowStatistics mixed[kRing];
  rows.ready = mixed;
  rows.ready_mask = kRing - 1;
  for (int64_t tile = begin; tile < end; ++tile) {
    const int64_t first = tile * rows.tile_rows, left = rows.rows - first;
    const int64_t last = first + (left < rows.tile_rows ? left : rows.tile_rows);
    instances.get(first, last, [&](int64_t r, const RowMoments& m) {
      const Mixture mixture = mixer.mix(m, instances.layer(r / s.channels), r % s.channels);
      mixed[r & (kRing - 1)] = mixer.statistics(mixture);
    });
    forward_tiles<T>(rows, tile, tile + 1);
  }
}

// ---- backward ----

// Sums of (dmean, dvar), of x times `scale`: that of what counts most, where sets differ in theirs.
struct ScaledSums {
  double first, second, scale;

  inline Sums in(double wanted) const {
    const double ratio = scale / wanted;
    return {first * ratio, second * ratio * ratio};
  }
};
inline ScaledSums merge(const ScaledSums& a, const ScaledSums& b) {
  const double scale = a.scale > b.scale ? a.scale : b.scale;
  const Sums sum = merge(a.in(scale), b.in(scale));
  return {sum.first, sum.second, scale};
}

struct SwitchableBackward {
  RowsBackward rows;
  Switchable mix;
  Operand dmean_weight, dvar_weight;
  int32_t tile_rows = 1;        // of statistics, where sets are not kept
  Sums* sums = nullptr;         // of each (n, c), where they are kept: SetSums, then (dmean, dvar)
  ScaledSums* layer = nullptr;  // of each sample: (sum dmean, sum dvar)
  ScaledSums* batch = nullptr;  // of each channel
};

// Statistics and sums of one (n, c).
struct SetSums {
  RowMoments moments;
  Sums sums;  // of dy, and of dy (x - mean) about InstanceNorm's mean, x times the moments' scale
};

template <typename T>
class SetReader {
 public:
  inline explicit SetReader(const SwitchableBackward& p) : p_(p), one_(none_, 0.0, Compute<T>(1)) {}

  // From one read of dy and x.
  NORMKIT_NOINLINE SetSums find(int64_t r) {
    const RowsBackward& p = p_.rows;
    const T* x_row = p.x.template row<const T>(r);
    const T* dy_row = p.dy.template row<const T>(r);
    RowStatistics s;
    row_statistics(p, &x_row, 1, buffers_.x, &s);
    const Row<Compute<T>> row = row_from(s, Compute<T>());
    MergeTree<Sums> tree;
    bool overflows = false;
    for (Blocks b(p); b.more(); b.next()) {
      const T* x = block_of(p.x, x_row, b.begin, b.length, buffers_.x);
      const T* dy = block_of(p.dy, dy_row, b.begin, b.length, buffers_.dy);
      tree.push(grad_sums(dy, x, b.length, row, one_.block(r, b.begin, b.length), overflows));
    }
    const Sums total = tree.finish();
    return {{s.mean, s.mean_low, s.var, s.scale}, {total.first, total.second / s.rstd}};
  }
  // From what was kept, where it was.
  NORMKIT_INLINE SetSums get(int64_t r) {
    if (p_.sums == nullptr) return find(r);
    return {p_.mix.kept(r), p_.sums[r]};
  }

 private:
  const SwitchableBackward& p_;
  const Operand none_{};
  ParameterReader<Compute<T>> one_;
  BackwardBuffers<T> buffers_;
};

// Phase 1: one task is a set, or a group of samples.
template <typename T>
void switchable_sums_phase(const void* state, int64_t begin, int64_t end) {
  const FloatEnvironment environment;
  const SwitchableBackward& p = *static_cast<const SwitchableBackward*>(state);
  if (p.sums == nullptr) return group_moments<T>(p.mix, p.rows, p.tile_rows, begin, end);
  SetReader<T> sets(p);
  for (int64_t r = begin; r < end; ++r) {
    const SetSums set = sets.find(r);
    p.mix.keep(r, set.moments);
    p.sums[r] = set.sums;
  }
}

// Parameter gradients of an empty array.
inline void switchable_empty_phase(const void* state, int64_t, int64_t) {
  const SwitchableBackward& p = *static_cast<const SwitchableBackward*>(state);
  const double zero = 0.0;
  for (int k = 0; k < 3; ++k) {
    write_gradients(p.dmean_weight, k, &zero, 1, p.rows.accumulate);
    write_gradients(p.dvar_weight, k, &zero, 1, p.rows.accumulate);
  }
  const bool of_channels = p.rows.dweight || p.rows.dbias;
  for (int64_t c = 0; of_channels && c < p.mix.channels; ++c) {
    write_gradients(p.rows.dweight, c, &zero, 1, p.rows.accumulate);
    write_gradients(p.rows.dbias, c, &zero, 1, p.rows.accumulate);
  }
}

inline double weight_of(const SwitchableBackward& p, int64_t channel) {
  return p.rows.weight ? read_number(p.rows.weight, p.rows.weight.outer.offset(channel)) : 1.0;
}

// Of one (n, c), in its mixture's scale: (dmean, dvar), and what bias and weight receive.
struct SetGradients {
  Sums statistics, parameters;

  inline SetGradients(const Mixture& m, double weight, const SetSums& set) {
    const Sums& sums = set.sums;
    const double centred_sum =  // sum dy (x - mean)
        sums.second * (m.mixed.scale / set.moments.scale) + m.mean_offset(0) * sums.first;
    statistics = {-(m.rstd * weight * sums.first), -0.5 * (m.rstd * m.rstd * m.rstd * weight * centred_sum)};
    parameters = {sums.first, centred_sum * m.rstd};
  }
};

// dx = ((g - a) - xhat b) rstd of a set: the terms that are constant over the space make a, those along x
// make b.
struct Applied {
  RowStatistics row;
  Sums means;  // a, b

  Applied() = default;
  // `statistics`: see SetGradients.
  inline Applied(const SwitchableBackward& p, const Mixer& mixer, int64_t r, const RowMoments& moments,
                 Sums statistics) {
    const Switchable& s = p.mix;
    const int64_t i = r / s.channels, c = r % s.channels;
    const double n = static_cast<double>(s.n);
    const double count[] = {n, n * static_cast<double>(s.channels), n * static_cast<double>(s.samples)};
    const Mixture m = mixer.mix(moments, s.layer[i], c);
    const double scale = m.mixed.scale;
    const Sums shared[] = {statistics, p.layer[i].in(scale), p.batch[c].in(scale)};
    double constant = 0.0, slope = 0.0;
    for (int k = 0; k < 3; ++k) {
      const double along = 2.0 * mixer.var_weight.of[k] * shared[k].second / count[k];
      slope += along;
      constant += mixer.mean_weight.of[k] * shared[k].first / count[k] - along * m.mean_offset(k);
    }
    row = mixer.statistics(m);
    means = {-constant / m.rstd, -slope / m.rstd / m.rstd};
  }
};

// Phase 2: every gradient but dx. One task: the logits' sums run through all sets, channel by channel. Sums
// that were kept become (dmean, dvar).
template <typename T>
void switchable_gradients_phase(const void* state, int64_t, int64_t) {
  const FloatEnvironment environment;
  const SwitchableBackward& p = *static_cast<const SwitchableBackward*>(state);
  const Switchable& s = p.mix;
  merge_switchable(s);
  const Mixer mixer(s);
  SetReader<T> sets(p);
  MergeTree<Sums> logits[3];  // (dmean_weight, dvar_weight)
  for (int64_t i = 0; i < s.samples; ++i) p.layer[i] = {0.0, 0.0, 0.0};
  for (int64_t c = 0; c < s.channels; ++c) {
    MergeTree<Sums> parameters;
    MergeTree<ScaledSums> shared;
    const double weight = weight_of(p, c);
    for (int64_t i = 0; i < s.samples; ++i) {
      const SetSums set = sets.get(i * s.channels + c);
      const Mixture m = mixer.mix(set.moments, s.layer[i], c);
      const SetGradients gradients(m, weight, set);
      const Sums statistics = gradients.statistics;
      const ScaledSums scaled{statistics.first, statistics.second, m.mixed.scale};
      parameters.push(gradients.parameters);
      shared.push(scaled);
      if (p.sums != nullptr) p.sums[i * s.channels + c] = statistics;
      p.layer[i] = merge(p.layer[i], scaled);
      for (int k = 0; k < 3; ++k)
        logits[k].push(
            {statistics.first * m.mean_offset(k), statistics.second * (m.part[k].var - m.mixed.var)});
    }
    p.batch[c] = s.training ? shared.finish() : ScaledSums{0.0, 0.0, 1.0};
    write_channel(p.rows, c, parameters.finish());
  }
  for (int k = 0; k < 3; ++k) {
    const Sums total = logits[k].finish();
    const double values[] = {mixer.mean_weight.of[k] * total.first, mixer.var_weight.of[k] * total.second};
    write_gradients(p.dmean_weight, k, &values[0], 1, p.rows.accumulate);
    write_gradients(p.dvar_weight, k, &values[1], 1, p.rows.accumulate);
  }
}

// Phase 3: dx; one task is a set. A few together, whose divisions and square roots need not wait for sweeps.
template <typename T>
void switchable_dx_phase(const void* state, int64_t begin, int64_t end) {
  using C = Compute<T>;
  constexpr int kTogether = 16;
  const FloatEnvironment environment;
  const SwitchableBackward& p = *static_cast<const SwitchableBackward*>(state);
  const Mixer mixer(p.mix);
  ParameterReader<C> weight(p.rows.weight, 0.0, C(1));
  BackwardBuffers<T> buffers;
  SetReader<T> sets(p);
  Applied applied[kTogether];
  for (int64_t first = begin; first < end; first += kTogether) {
    const int64_t last = end - first < kTogether ? end : first + kTogether;
    for (int64_t r = first; r < last; ++r) {
      SetSums set = sets.get(r);
      if (p.sums == nullptr) {
        const int64_t c = r % p.mix.channels;
        const Mixture m = mixer.mix(set.moments, p.mix.layer[r / p.mix.channels], c);
        set.sums = SetGradients(m, weight_of(p, c), set).statistics;
      }
      applied[r - first] = Applied(p, mixer, r, set.moments, set.sums);
    }
    for (int64_t r = first; r < last; ++r) {
      const Row<C> row = row_from(applied[r - first].row, C());
      Row<C> of_means = row;
      of_means.count = 1.0;  // a and b are means already
      write_dx(p.rows, r, p.rows.dy.template row<const T>(r), p.rows.x.template row<const T>(r), row,
               row_grad<C>(p.rows, of_means, applied[r - first].means, false), weight, buffers);
    }
  }
}

NORMKIT_END_NAMESPACE

#endif  // NORMKIT_DETAIL_SWITCHABLE_HPP_
