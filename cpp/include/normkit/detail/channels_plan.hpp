// BatchNorm, InstanceNorm and GroupNorm: from arguments to a Plan. The geometry table of the operations over
// channels.
//
//   operation      sets (outer axes)   elements of a set (inner axes)   blocks are cut from
//   BatchNorm      C                   N, space                         runs of one sample's space
//   InstanceNorm   N, C                space                            the set
//   GroupNorm      N, G                C / G, space                     the set
//   LRN            N, space            C                                (none: windows, see window.hpp)
//
// The first three are rows of rows.hpp: weight and bias are one number per channel, which strides of 0
// repeat. Any layout is a matter of strides.
#ifndef NORMKIT_DETAIL_CHANNELS_PLAN_HPP_
#define NORMKIT_DETAIL_CHANNELS_PLAN_HPP_

#include "normkit/channels.hpp"
#include "normkit/detail/rows_plan.hpp"

NORMKIT_BEGIN_NAMESPACE

enum class ChannelSets { kBatch, kInstance, kGroup, kPosition };

// The axes of x, [N, C, space...], in the order that the sets want: which of x's axes each is, and how many
// of its elements one step spans.
class ChannelAxes {
 public:
  inline ChannelAxes(ChannelSets sets, const ChannelsShape& shape, int64_t groups, RowsProblem* p,
                     ArgumentChecker& check) {
    if (shape.rank < 2 || shape.rank > kMaxRank - 1 || shape.size == nullptr ||
        checked_product(shape.size, shape.rank) < 0) {
      check.fail(Status::kInvalidShape);
      return;
    }
    samples_ = shape.size[0];
    channels_ = shape.size[1];
    space_ = checked_product(shape.size + 2, shape.rank - 2);
    switch (sets) {
      case ChannelSets::kBatch:
        add(channels_, 1, 1);
        outer_ = count_;
        add(samples_, 0, 1);
        break;
      case ChannelSets::kInstance:
        add(samples_, 0, 1);
        add(channels_, 1, 1);
        outer_ = count_;
        break;
      case ChannelSets::kGroup:
        if (groups < 1 || channels_ % groups != 0) {
          check.fail(Status::kInvalidShape);
          return;
        }
        add(samples_, 0, 1);
        add(groups, 1, channels_ / groups);
        outer_ = count_;
        add(channels_ / groups, 1, 1);
        break;
      case ChannelSets::kPosition:
        add(samples_, 0, 1);
        break;
    }
    for (int a = 2; a < shape.rank; ++a) add(shape.size[a], a, 1);
    if (sets == ChannelSets::kPosition) {
      outer_ = count_;
      add(channels_, 1, 1);
    }
    rank_ = shape.rank;
    shape_size_ = shape.size;
    p->rows = checked_product(size_, outer_);
    p->n = checked_product(size_ + outer_, count_ - outer_);
    p->run = sets == ChannelSets::kBatch ? space_ : p->n;
    p->block = longest_block(p->run);
    p->segment = sets == ChannelSets::kGroup ? space_ : 0;
  }

  inline AxesShape elements() const { return {outer_, count_ - outer_, size_}; }
  inline AxesShape sets() const { return {outer_, 0, size_}; }
  inline AxesShape per_channel() const { return {0, 1, &channels_}; }
  inline int64_t samples() const { return samples_; }
  inline int64_t channels() const { return channels_; }
  inline int64_t space() const { return space_; }

  // x, y, dy, dx: strides on [N, C, space...], null for C-contiguous.
  inline const int64_t* element_strides(const int64_t* given) {
    int64_t contiguous[kMaxRank];
    if (given == nullptr) {
      int64_t step = 1;
      for (int a = rank_ - 1; a >= 0; --a) {
        contiguous[a] = step;
        step *= shape_size_[a];
      }
      given = contiguous;
    }
    for (int a = 0; a < count_; ++a) strides_[a] = multiplied(given[axis_[a]], span_[a]);
    return strides_;
  }

  // weight, bias: one stride, on the channels; the other axes repeat.
  inline const int64_t* channel_strides(const int64_t* given) {
    const int64_t step = given != nullptr ? given[0] : 1;
    for (int a = 0; a < count_; ++a) strides_[a] = axis_[a] == 1 ? multiplied(step, span_[a]) : 0;
    return strides_;
  }

 private:
  // A product that overflows becomes a stride that ArgumentChecker refuses.
  static inline int64_t multiplied(int64_t a, int64_t b) {
    int64_t product;
    return __builtin_mul_overflow(a, b, &product) ? INT64_MAX : product;
  }
  inline void add(int64_t size, int axis, int64_t span) {
    size_[count_] = size;
    axis_[count_] = axis;
    span_[count_] = span;
    ++count_;
  }

  int count_ = 0, outer_ = 0, rank_ = 0;
  int64_t samples_ = 0, channels_ = 0, space_ = 0;
  const int64_t* shape_size_ = nullptr;
  int64_t size_[kMaxRank + 1], span_[kMaxRank + 1];
  int axis_[kMaxRank + 1];
  int64_t strides_[kMaxRank + 1];
};

// Phase 2 of a forward pass that updates running statistics: one task is a channel.
struct RunningUpdate {
  RowsForward forward;
  Operand running_mean, running_var;
  int64_t samples, channels;  // sets of one channel
  double momentum;
};

// running = (1 - momentum) running + momentum new; new averages the samples; the variance is unbiased.
inline void update_running_phase(const void* state, int64_t begin, int64_t end) {
  const FloatEnvironment environment;
  const RunningUpdate& p = *static_cast<const RunningUpdate*>(state);
  const double n = static_cast<double>(p.forward.n), sets = static_cast<double>(p.samples);
  if (p.forward.n < 2) return;  // no unbiased variance: left alone
  for (int64_t c = begin; c < end; ++c) {
    MergeTree<Sums> tree;
    for (int64_t s = 0; s < p.samples; ++s) {
      const double* moments = p.forward.moments + 2 * (s * p.channels + c);
      tree.push({moments[0], moments[1] * n / (n - 1.0)});
    }
    const Sums total = tree.finish();
    const double fresh[] = {total.first / sets, total.second / sets};
    const Operand* running[] = {&p.running_mean, &p.running_var};
    for (int i = 0; i < 2; ++i) {
      if (!*running[i]) continue;
      const int64_t at = running[i]->inner.offset(c);
      write_number(*running[i], at,
                   (1.0 - p.momentum) * read_number(*running[i], at) + p.momentum * fresh[i]);
    }
  }
}

inline char* aligned_scratch(const Workspace& workspace, size_t needed) {
  const uintptr_t start = (reinterpret_cast<uintptr_t>(workspace.data) + 63) / 64 * 64;
  return workspace.data == nullptr || workspace.bytes < needed + 64 ? nullptr
                                                                    : reinterpret_cast<char*>(start);
}

inline size_t channels_forward_bytes(ChannelSets sets, const ChannelsShape& shape,
                                     const ChannelNormArgs& args) {
  if (args.running_mean.data == nullptr && args.running_var.data == nullptr) return 0;
  if (shape.rank < 2 || shape.size == nullptr || checked_product(shape.size, shape.rank) <= 0) return 0;
  const int64_t count = sets == ChannelSets::kBatch ? shape.size[1] : shape.size[0] * shape.size[1];
  return static_cast<size_t>(count) * 2 * sizeof(double) + 64;
}

// given_mean comes with exactly one of given_var and given_rstd, and not for groups; strides fit an address
// space.
template <typename Args>
inline void check_given(ChannelSets sets, const Args& args, ArgumentChecker& check) {
  const bool var = args.given_var.data != nullptr, rstd = args.given_rstd.data != nullptr;
  if ((args.given_mean.data != nullptr) != (var != rstd) || (var && rstd) ||
      (sets == ChannelSets::kGroup && (var || rstd)))
    check.fail(Status::kMissingStatistics);
}

inline Status channels_forward_plan(ChannelSets sets, const ChannelsShape& shape, const ChannelNormArgs& args,
                                    int64_t groups, Workspace workspace, Plan* plan) {
  RunningUpdate u;
  RowsForward& p = u.forward;
  ArgumentChecker check;
  ChannelAxes axes(sets, shape, groups, &p, check);
  p.eps = args.eps;
  p.given = args.given_mean.data != nullptr;
  p.given_variance = args.given_var.data != nullptr;
  const ConstView& second = p.given_variance ? args.given_var : args.given_rstd;
  if (is_nan(args.eps)) check.fail(Status::kInvalidEps);
  check_given(sets, args, check);
  if (sets == ChannelSets::kGroup && (args.running_mean.data != nullptr || args.running_var.data != nullptr))
    check.fail(Status::kMissingStatistics);
  if (check.status() != Status::kOk) return check.status();
  check.input(args.x, axes.elements(), axes.element_strides(args.x.strides), true, &p.x);
  check.input(args.weight, axes.elements(), axes.channel_strides(args.weight.strides), false, &p.weight);
  check.input(args.bias, axes.elements(), axes.channel_strides(args.bias.strides), false, &p.bias);
  check.output(args.y, axes.elements(), axes.element_strides(args.y.strides), true, &p.y);
  if (p.given) {
    check.input(args.given_mean, axes.sets(), axes.channel_strides(args.given_mean.strides), false, &p.mean);
    check.input(second, axes.sets(), axes.channel_strides(second.strides), false, &p.rstd);
  } else {
    check.output(args.mean, axes.sets(), args.mean.strides, false, &p.mean);
    check.output(args.rstd, axes.sets(), args.rstd.strides, false, &p.rstd);
    check.statistic_type(p.mean);
    check.statistic_type(p.rstd);
  }
  check.output(args.running_mean, axes.per_channel(), args.running_mean.strides, false, &u.running_mean);
  check.output(args.running_var, axes.per_channel(), args.running_var.strides, false, &u.running_var);
  check.same_type(p.x, p.y);
  check.parameter_type(p.weight, p.x.dtype, false);
  check.parameter_type(p.bias, p.x.dtype, false);
  check.overlaps(p.y, p.x, p.x);
  if (check.status() != Status::kOk) return check.status();
  const size_t needed = channels_forward_bytes(sets, shape, args);
  const bool updates = !p.given && needed > 0;
  if (updates) {
    char* scratch = aligned_scratch(workspace, needed - 64);
    if (scratch == nullptr) return Status::kWorkspaceTooSmall;
    p.moments = reinterpret_cast<double*>(scratch);
  }
  finish_forward_plan(p, plan);
  if (updates && plan->phase_count > 0) {
    u.channels = axes.channels();
    u.samples = p.rows / u.channels;
    u.momentum = args.momentum;
    plan->phases[plan->phase_count++] = {u.channels, 32 * u.samples, &update_running_phase};
    set_state(plan, u);
  }
  return Status::kOk;
}

inline size_t channels_backward_bytes(ChannelSets sets, const ChannelsShape& shape,
                                      const ChannelNormBackwardArgs& args) {
  if (args.dweight.data == nullptr && args.dbias.data == nullptr) return 0;
  if (shape.rank < 2 || shape.size == nullptr || checked_product(shape.size, shape.rank) <= 0) return 0;
  const int64_t count = sets == ChannelSets::kBatch ? shape.size[1] : shape.size[0] * shape.size[1];
  return static_cast<size_t>(count) * sizeof(Sums) + 64;
}

inline Status channels_backward_plan(ChannelSets sets, const ChannelsShape& shape,
                                     const ChannelNormBackwardArgs& args, int64_t groups, Workspace workspace,
                                     Plan* plan) {
  RowsBackward p;
  ArgumentChecker check;
  ChannelAxes axes(sets, shape, groups, &p, check);
  p.eps = args.eps;
  p.accumulate = args.accumulate;
  p.given = args.given_mean.data != nullptr;
  p.given_variance = args.given_var.data != nullptr;
  const ConstView& mean = p.given ? args.given_mean : args.mean;
  const ConstView& second = !p.given ? args.rstd : p.given_variance ? args.given_var : args.given_rstd;
  if (is_nan(args.eps)) check.fail(Status::kInvalidEps);
  check_given(sets, args, check);
  if ((mean.data == nullptr) != (second.data == nullptr)) check.fail(Status::kMissingStatistics);
  if (check.status() != Status::kOk) return check.status();
  check.input(args.dy, axes.elements(), axes.element_strides(args.dy.strides), true, &p.dy);
  check.input(args.x, axes.elements(), axes.element_strides(args.x.strides), true, &p.x);
  check.input(args.weight, axes.elements(), axes.channel_strides(args.weight.strides), false, &p.weight);
  check.input(mean, axes.sets(), p.given ? axes.channel_strides(mean.strides) : mean.strides, false, &p.mean);
  check.input(second, axes.sets(), p.given ? axes.channel_strides(second.strides) : second.strides, false,
              &p.rstd);
  check.output(args.dx, axes.elements(), axes.element_strides(args.dx.strides), false, &p.dx);
  check.output(args.dweight, axes.per_channel(), args.dweight.strides, false, &p.dweight);
  check.output(args.dbias, axes.per_channel(), args.dbias.strides, false, &p.dbias);
  check.same_type(p.x, p.dy);
  check.same_type(p.x, p.dx);
  check.parameter_type(p.weight, args.x.dtype, false);
  check.parameter_type(p.dweight, args.x.dtype, true);
  check.parameter_type(p.dbias, args.x.dtype, true);
  if (!p.given) {
    check.statistic_type(p.mean);
    check.statistic_type(p.rstd);
  }
  check.overlaps(p.dx, p.x, p.dy);
  if (check.status() != Status::kOk) return check.status();

  plan->phase_count = 0;
  p.channels = axes.channels();
  p.segments = sets == ChannelSets::kGroup ? p.channels / groups : 1;
  p.segment_run = axes.space();
  p.samples = p.n == 0 ? 0 : p.rows * p.segments / (p.channels > 0 ? p.channels : 1);
  const bool wants_parameters = p.dweight || p.dbias;
  if (wants_parameters && p.samples > 0) {
    p.channel_sums =
        reinterpret_cast<Sums*>(aligned_scratch(workspace, channels_backward_bytes(sets, shape, args) - 64));
    if (p.channel_sums == nullptr) return Status::kWorkspaceTooSmall;
  }
  int phases = 0;
  if (p.rows > 0 && p.n > 0)
    plan->phases[phases++] = {p.rows, 3 * p.n * size_of(args.x.dtype), backward_sets_function(args.x.dtype)};
  if (wants_parameters) plan->phases[phases++] = {p.channels, 16 * (p.samples + 1), &add_samples_phase};
  plan->phase_count = phases;
  set_state(plan, p);
  return Status::kOk;
}

NORMKIT_END_NAMESPACE

#endif  // NORMKIT_DETAIL_CHANNELS_PLAN_HPP_
