// The phases of SwitchableNorm: statistics of every (n, c), one task that mixes them, and what is applied.
//
// Every set is one of InstanceNorm's; the statistics of LayerNorm and BatchNorm are merged from theirs. All
// that the middle phase reads and writes are a few doubles for each (n, c).
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

// The mixture of one (n, c), and its parts: InstanceNorm, LayerNorm, BatchNorm.
struct Mixture {
  RowMoments part[3];
  RowMoments mixed;
  double rstd;

  // mean_k - mean: relative to each other, so that a large mean costs no digits.
  inline double mean_offset(int k) const {
    return (part[k].mean - mixed.mean) + (part[k].mean_low - mixed.mean_low);
  }
};

// What both directions mix.
struct Switchable {
  Operand mean_weight, var_weight, running_mean, running_var;
  int64_t samples = 0, channels = 0;
  bool training = true;
  double eps = 0.0, momentum = 0.0;
  RowMoments* instance = nullptr;  // [samples, channels]
  RowMoments* layer = nullptr;     // [samples]
  RowMoments* batch = nullptr;     // [channels]
};

// Merges `count` sets of n elements each, `step` apart.
inline RowMoments merged(const RowMoments* first, int64_t count, int64_t step, double n) {
  MergeTree<Moments<double>> tree;
  for (int64_t i = 0; i < count; ++i) {
    const RowMoments& m = first[i * step];
    tree.push({n, m.mean, m.mean_low, m.var / m.scale / m.scale * n});
  }
  const Moments<double> total = tree.finish();
  return {total.mean, total.mean_low, total.m2 / total.count, 1.0};
}

inline void merge_switchable(const Switchable& s, double n) {
  for (int64_t i = 0; i < s.samples; ++i) s.layer[i] = merged(s.instance + i * s.channels, s.channels, 1, n);
  for (int64_t c = 0; c < s.channels; ++c) {
    s.batch[c] = s.training ? merged(s.instance + c, s.samples, s.channels, n)
                            : RowMoments{read_number(s.running_mean, s.running_mean.inner.offset(c)), 0.0,
                                         read_number(s.running_var, s.running_var.inner.offset(c)), 1.0};
  }
}

inline Mixture mixture(const Switchable& s, const Softmax3& mean_weight, const Softmax3& var_weight,
                       int64_t sample, int64_t channel) {
  Mixture m;
  m.part[0] = s.instance[sample * s.channels + channel];
  m.part[0].var = m.part[0].var / m.part[0].scale / m.part[0].scale;
  m.part[1] = s.layer[sample];
  m.part[2] = s.batch[channel];
  m.mixed = m.part[2];
  const double shift =
      mean_weight.of[0] * m.mean_offset(0) + mean_weight.of[1] * m.mean_offset(1);  // from BatchNorm's mean
  const TwoSum mean(m.part[2].mean, shift);
  const TwoSum pair(mean.sum, mean.error + m.part[2].mean_low);
  double var = 0.0;
  for (int k = 0; k < 3; ++k) var += var_weight.of[k] * m.part[k].var;
  m.mixed = {pair.sum, pair.error, var, 1.0};
  m.rstd = 1.0 / square_root(var + s.eps);
  return m;
}

// ---- forward ----

struct SwitchableForward {
  RowsForward rows;  // InstanceNorm's; as applied
  Switchable mix;
  RowStatistics* mixed = nullptr;  // rows.ready
};

template <typename T>
void switchable_statistics_phase(const void* state, int64_t begin, int64_t end) {
  const FloatEnvironment environment;
  const SwitchableForward& p = *static_cast<const SwitchableForward*>(state);
  RowsForward rows = p.rows;
  rows.y = Operand{};
  rows.given = false;
  rows.moments = p.mix.instance;
  forward_tiles<T>(rows, begin, end);
}

inline void switchable_mix_phase(const void* state, int64_t, int64_t) {
  const FloatEnvironment environment;
  const SwitchableForward& p = *static_cast<const SwitchableForward*>(state);
  const Switchable& s = p.mix;
  const double n = static_cast<double>(p.rows.n);
  merge_switchable(s, n);
  const Softmax3 mean_weight(s.mean_weight), var_weight(s.var_weight);
  for (int64_t r = 0; r < p.rows.rows; ++r) {
    const Mixture m = mixture(s, mean_weight, var_weight, r / s.channels, r % s.channels);
    p.mixed[r] = {m.mixed.mean, m.mixed.mean_low, m.mixed.var, m.rstd, 1.0, n};
  }
  for (int64_t c = 0; s.training && c < s.channels; ++c) {
    const double fresh[] = {s.batch[c].mean, s.batch[c].var};
    const Operand* running[] = {&s.running_mean, &s.running_var};
    for (int i = 0; i < 2; ++i) {
      if (!*running[i]) continue;
      const int64_t at = running[i]->inner.offset(c);
      write_number(*running[i], at,
                   (1.0 - s.momentum) * read_number(*running[i], at) + s.momentum * fresh[i]);
    }
  }
}

template <typename T>
void switchable_apply_phase(const void* state, int64_t begin, int64_t end) {
  const FloatEnvironment environment;
  forward_tiles<T>(static_cast<const SwitchableForward*>(state)->rows, begin, end);
}

// ---- backward ----

struct SwitchableBackward {
  RowsBackward rows;
  Switchable mix;
  Operand dmean_weight, dvar_weight;
  RowStatistics* mixed = nullptr;
  Sums* sums =
      nullptr;  // of each (n, c): sum dy, sum dy xhat about InstanceNorm's statistics; then dx's a and b
  Sums* layer = nullptr;  // of each sample: (sum dmean, sum dvar)
  Sums* batch = nullptr;  // of each channel
};

// Phase 1: statistics and sums of each (n, c), one read of dy and x.
template <typename T>
NORMKIT_NOINLINE void switchable_sums(const SwitchableBackward& p, int64_t begin, int64_t end) {
  using C = Compute<T>;
  const Operand none{};
  ParameterReader<C> one(none, 0.0, C(1));
  BackwardBuffers<T> buffers;
  for (int64_t r = begin; r < end; ++r) {
    const T* x_row = p.rows.x.template row<const T>(r);
    const T* dy_row = p.rows.dy.template row<const T>(r);
    RowStatistics s;
    row_statistics(p.rows, &x_row, 1, buffers.x, &s);
    const Row<C> row = row_from(s, false, C());
    MergeTree<Sums> tree;
    bool overflows = false;
    for (Blocks b(p.rows); b.more(); b.next()) {
      const T* x = block_of(p.rows.x, x_row, b.begin, b.length, buffers.x);
      const T* dy = block_of(p.rows.dy, dy_row, b.begin, b.length, buffers.dy);
      tree.push(grad_sums(dy, x, b.length, row, one.block(r, b.begin, b.length), overflows));
    }
    const Sums sums = tree.finish();
    p.mix.instance[r] = {s.mean / s.scale, s.mean_low / s.scale, s.var / s.scale / s.scale, 1.0};
    // sum dy (x - mean of InstanceNorm)
    p.sums[r] = {sums.first, sums.second / (s.rstd * s.scale)};
  }
}
template <typename T>
void switchable_sums_phase(const void* state, int64_t begin, int64_t end) {
  const FloatEnvironment environment;
  switchable_sums<T>(*static_cast<const SwitchableBackward*>(state), begin, end);
}

// Parameter gradients of an empty array.
inline void switchable_empty_phase(const void* state, int64_t, int64_t) {
  const SwitchableBackward& p = *static_cast<const SwitchableBackward*>(state);
  const double zero = 0.0;
  for (int k = 0; k < 3; ++k) {
    write_gradients(p.dmean_weight, k, &zero, 1, p.rows.accumulate);
    write_gradients(p.dvar_weight, k, &zero, 1, p.rows.accumulate);
  }
  for (int64_t c = 0; c < p.mix.channels; ++c) {
    write_gradients(p.rows.dweight, c, &zero, 1, p.rows.accumulate);
    write_gradients(p.rows.dbias, c, &zero, 1, p.rows.accumulate);
  }
}

// Phase 2: every gradient but dx, and what dx is applied with.
inline void switchable_gradients_phase(const void* state, int64_t, int64_t) {
  const FloatEnvironment environment;
  const SwitchableBackward& p = *static_cast<const SwitchableBackward*>(state);
  const Switchable& s = p.mix;
  const double n = static_cast<double>(p.rows.n);
  const double count[3] = {n, n * static_cast<double>(s.channels), n * static_cast<double>(s.samples)};
  merge_switchable(s, n);
  const Softmax3 mean_weight(s.mean_weight), var_weight(s.var_weight);
  const auto weight_of = [&](int64_t channel) {
    return p.rows.weight ? read_number(p.rows.weight, p.rows.weight.outer.offset(channel)) : 1.0;
  };
  MergeTree<Sums> logits[3];  // (dmean_weight, dvar_weight)
  for (int64_t i = 0; i < s.samples; ++i) p.layer[i] = {0.0, 0.0};
  for (int64_t c = 0; c < s.channels; ++c) {
    MergeTree<Sums> parameters, shared;
    for (int64_t i = 0; i < s.samples; ++i) {
      const int64_t r = i * s.channels + c;
      const Mixture m = mixture(s, mean_weight, var_weight, i, c);
      const double dy_sum = p.sums[r].first;
      const double centred_sum = p.sums[r].second + m.mean_offset(0) * dy_sum;  // sum dy (x - mean)
      const double w = weight_of(c);
      const Sums statistics{-(m.rstd * w * dy_sum), -0.5 * (m.rstd * m.rstd * m.rstd * w * centred_sum)};
      parameters.push({dy_sum, centred_sum * m.rstd});
      shared.push(statistics);
      p.layer[i] = merge(p.layer[i], statistics);
      for (int k = 0; k < 3; ++k)
        logits[k].push(
            {statistics.first * m.mean_offset(k), statistics.second * (m.part[k].var - m.mixed.var)});
      p.mixed[r] = {m.mixed.mean, m.mixed.mean_low, m.mixed.var, m.rstd, 1.0, n};
      p.sums[r] = statistics;
    }
    p.batch[c] = s.training ? shared.finish() : Sums{0.0, 0.0};
    const Sums total = parameters.finish();
    write_gradients(p.rows.dweight, c, &total.second, 1, p.rows.accumulate);
    write_gradients(p.rows.dbias, c, &total.first, 1, p.rows.accumulate);
  }
  for (int k = 0; k < 3; ++k) {
    const Sums total = logits[k].finish();
    const double values[] = {mean_weight.of[k] * total.first, var_weight.of[k] * total.second};
    write_gradients(p.dmean_weight, k, &values[0], 1, p.rows.accumulate);
    write_gradients(p.dvar_weight, k, &values[1], 1, p.rows.accumulate);
  }
  // dx = ((g - a) - xhat b) rstd: the terms that are constant over the space make a, those along x make b.
  for (int64_t r = 0; r < p.rows.rows; ++r) {
    const Mixture m = mixture(s, mean_weight, var_weight, r / s.channels, r % s.channels);
    const Sums shared[] = {p.sums[r], p.layer[r / s.channels], p.batch[r % s.channels]};
    double constant = 0.0, slope = 0.0;
    for (int k = 0; k < 3; ++k) {
      const double along = 2.0 * var_weight.of[k] * shared[k].second / count[k];
      slope += along;
      constant += mean_weight.of[k] * shared[k].first / count[k] - along * m.mean_offset(k);
    }
    p.sums[r] = {-constant / m.rstd, -slope / m.rstd / m.rstd};
  }
}

template <typename T>
void switchable_dx_phase(const void* state, int64_t begin, int64_t end) {
  using C = Compute<T>;
  const FloatEnvironment environment;
  const SwitchableBackward& p = *static_cast<const SwitchableBackward*>(state);
  ParameterReader<C> weight(p.rows.weight, 0.0, C(1));
  BackwardBuffers<T> buffers;
  for (int64_t r = begin; r < end; ++r) {
    const Row<C> row = row_from(p.mixed[r], false, C());
    Row<C> unscaled = row;
    unscaled.count = 1.0;  // a and b are means already
    write_dx(p.rows, r, p.rows.dy.template row<const T>(r), p.rows.x.template row<const T>(r), row,
             row_grad<C>(p.rows, unscaled, p.sums[r], false), weight, buffers);
  }
}

// ---- plans ----

struct SwitchableScratch {
  size_t bytes = 0;
  inline size_t add(int64_t count, size_t size) {
    const size_t at = bytes;
    bytes += static_cast<size_t>(count) * size;
    return at;
  }
};

inline size_t switchable_bytes(const ChannelsShape& shape, bool backward) {
  RowsProblem p;
  ArgumentChecker check;
  const SetAxes axes(instance_sets(shape), &p, check);
  if (check.status() != Status::kOk) return 0;
  const size_t ends = sizeof(RowMoments) + (backward ? sizeof(Sums) : 0);
  return static_cast<size_t>(p.rows) * (sizeof(RowStatistics) + ends) +
         static_cast<size_t>(shape.size[0] + shape.size[1]) * ends + 64;
}

// The operands that both directions have.
template <typename Args>
inline Status prepare_switchable(const ChannelsShape& shape, const Args& args, bool updates, SetAxes& axes,
                                 ArgumentChecker& check, RowsProblem& p, Switchable& s) {
  static const int64_t three[] = {3};
  if (is_nan(args.eps)) check.fail(Status::kInvalidEps);
  if (!args.training && (args.running_mean.data == nullptr || args.running_var.data == nullptr))
    check.fail(Status::kMissingStatistics);
  if (check.status() != Status::kOk) return check.status();
  p.eps = s.eps = args.eps;
  s.training = args.training;
  s.samples = shape.size[0];
  s.channels = shape.size[1];
  check.input(args.x, axes.elements(), axes.element_strides(args.x.strides), true, &p.x);
  check.input(args.weight, axes.elements(), axes.parameter_strides(args.weight.strides), false, &p.weight);
  check.input(args.mean_weight, {0, 1, three}, args.mean_weight.strides, true, &s.mean_weight);
  check.input(args.var_weight, {0, 1, three}, args.var_weight.strides, true, &s.var_weight);
  const int64_t* strides = axes.own_channel_strides(args.running_mean.strides);
  if (updates)
    check.output(
        {const_cast<void*>(static_cast<const void*>(args.running_mean.data)), args.running_mean.dtype},
        axes.channels(), strides, false, &s.running_mean);
  else
    check.input({args.running_mean.data, args.running_mean.dtype}, axes.channels(), strides, false,
                &s.running_mean);
  strides = axes.own_channel_strides(args.running_var.strides);
  if (updates)
    check.output({const_cast<void*>(static_cast<const void*>(args.running_var.data)), args.running_var.dtype},
                 axes.channels(), strides, false, &s.running_var);
  else
    check.input({args.running_var.data, args.running_var.dtype}, axes.channels(), strides, false,
                &s.running_var);
  check.parameter_type(p.weight, args.x.dtype, false);
  check.parameter_type(s.mean_weight, args.x.dtype, false);
  check.parameter_type(s.var_weight, args.x.dtype, false);
  return check.status();
}

inline Status switchable_forward_plan(const ChannelsShape& shape, const SwitchableNormArgs& args,
                                      Workspace workspace, Plan* plan) {
  SwitchableForward f;
  RowsForward& p = f.rows;
  ArgumentChecker check;
  SetAxes axes(instance_sets(shape), &p, check);
  Status status = prepare_switchable(shape, args, args.training, axes, check, p, f.mix);
  if (status != Status::kOk) return status;
  f.mix.momentum = args.momentum;
  p.activation = args.activation;
  check.activation(args.activation);
  check.input(args.bias, axes.elements(), axes.parameter_strides(args.bias.strides), false, &p.bias);
  check.output(args.y, axes.elements(), axes.element_strides(args.y.strides), true, &p.y);
  check.same_type(p.x, p.y);
  check.parameter_type(p.bias, p.x.dtype, false);
  check.overlaps(p.y, p.x, p.x);
  if (check.status() != Status::kOk) return check.status();
  plan->phase_count = 0;
  if (p.rows == 0 || p.n == 0) return Status::kOk;
  SwitchableScratch sizes;
  const size_t instance = sizes.add(p.rows, sizeof(RowMoments)),
               mixed = sizes.add(p.rows, sizeof(RowStatistics));
  const size_t layer = sizes.add(f.mix.samples, sizeof(RowMoments));
  const size_t batch = sizes.add(f.mix.channels, sizeof(RowMoments));
  char* scratch = aligned_scratch(workspace, sizes.bytes);
  if (scratch == nullptr) return Status::kWorkspaceTooSmall;
  f.mix.instance = reinterpret_cast<RowMoments*>(scratch + instance);
  f.mix.layer = reinterpret_cast<RowMoments*>(scratch + layer);
  f.mix.batch = reinterpret_cast<RowMoments*>(scratch + batch);
  p.ready = f.mixed = reinterpret_cast<RowStatistics*>(scratch + mixed);
  p.given = true;
  choose_tiles(p);
  const int64_t bytes = p.tile_rows * p.n * p.x.bytes();
  plan->phases[0] = {tiles(p), bytes, NORMKIT_PHASE_FUNCTIONS(switchable_statistics_phase)[p.x.dtype]};
  plan->phases[1] = {1, 64 * p.rows, &switchable_mix_phase};
  plan->phases[2] = {tiles(p), 2 * bytes, NORMKIT_PHASE_FUNCTIONS(switchable_apply_phase)[p.x.dtype]};
  plan->phase_count = 3;
  set_state(plan, f);
  return Status::kOk;
}

inline Status switchable_backward_plan(const ChannelsShape& shape, const SwitchableNormBackwardArgs& args,
                                       Workspace workspace, Plan* plan) {
  static const int64_t three[] = {3};
  SwitchableBackward b;
  RowsBackward& p = b.rows;
  ArgumentChecker check;
  SetAxes axes(instance_sets(shape), &p, check);
  Status status = prepare_switchable(shape, args, false, axes, check, p, b.mix);
  if (status != Status::kOk) return status;
  p.accumulate = args.accumulate;
  check.input(args.dy, axes.elements(), axes.element_strides(args.dy.strides), true, &p.dy);
  check.output(args.dx, axes.elements(), axes.element_strides(args.dx.strides), false, &p.dx);
  check.output(args.dmean_weight, {0, 1, three}, args.dmean_weight.strides, false, &b.dmean_weight);
  check.output(args.dvar_weight, {0, 1, three}, args.dvar_weight.strides, false, &b.dvar_weight);
  check.output(args.dweight, axes.parameters(), axes.own_parameter_strides(args.dweight.strides), false,
               &p.dweight);
  check.output(args.dbias, axes.parameters(), axes.own_parameter_strides(args.dbias.strides), false,
               &p.dbias);
  check.same_type(p.x, p.dy);
  check.same_type(p.x, p.dx);
  const Operand* gradients[] = {&b.dmean_weight, &b.dvar_weight, &p.dweight, &p.dbias};
  for (const Operand* gradient : gradients) check.parameter_type(*gradient, args.x.dtype, true);
  check.overlaps(p.dx, p.x, p.dy);
  if (check.status() != Status::kOk) return check.status();
  if (p.rows == 0 || p.n == 0) {
    plan->phases[0] = {1, 0, &switchable_empty_phase};
    plan->phase_count = 1;
    set_state(plan, b);
    return Status::kOk;
  }
  const int64_t samples = b.mix.samples, channels = b.mix.channels;
  SwitchableScratch sizes;
  const size_t mixed = sizes.add(p.rows, sizeof(RowStatistics)),
               instance = sizes.add(p.rows, sizeof(RowMoments));
  const size_t layer = sizes.add(samples, sizeof(RowMoments)),
               batch = sizes.add(channels, sizeof(RowMoments));
  const size_t sums = sizes.add(p.rows, sizeof(Sums)), layer_sums = sizes.add(samples, sizeof(Sums));
  const size_t batch_sums = sizes.add(channels, sizeof(Sums));
  char* scratch = aligned_scratch(workspace, sizes.bytes);
  if (scratch == nullptr) return Status::kWorkspaceTooSmall;
  b.mixed = reinterpret_cast<RowStatistics*>(scratch + mixed);
  b.mix.instance = reinterpret_cast<RowMoments*>(scratch + instance);
  b.mix.layer = reinterpret_cast<RowMoments*>(scratch + layer);
  b.mix.batch = reinterpret_cast<RowMoments*>(scratch + batch);
  b.sums = reinterpret_cast<Sums*>(scratch + sums);
  b.layer = reinterpret_cast<Sums*>(scratch + layer_sums);
  b.batch = reinterpret_cast<Sums*>(scratch + batch_sums);
  const int64_t bytes = p.n * p.x.bytes();
  plan->phases[0] = {p.rows, 2 * bytes, NORMKIT_PHASE_FUNCTIONS(switchable_sums_phase)[p.x.dtype]};
  plan->phases[1] = {1, 128 * p.rows, &switchable_gradients_phase};
  plan->phases[2] = {p.rows, 3 * bytes, NORMKIT_PHASE_FUNCTIONS(switchable_dx_phase)[p.x.dtype]};
  plan->phase_count = p.dx ? 3 : 2;
  set_state(plan, b);
  return Status::kOk;
}

NORMKIT_END_NAMESPACE

#endif  // NORMKIT_DETAIL_SWITCHABLE_HPP_
