// Norms over sets: from arguments to a Plan.
//
// Any sets of any layout become rows of rows.hpp: the kept axes enumerate the rows, the normalized ones a
// row's elements, and parameters have stride 0 where they do not vary.
#ifndef NORMKIT_DETAIL_SETS_PLAN_HPP_
#define NORMKIT_DETAIL_SETS_PLAN_HPP_

#include "normkit/detail/columns_backward.hpp"
#include "normkit/detail/rows_plan.hpp"
#include "normkit/detail/running.hpp"
#include "normkit/sets.hpp"

NORMKIT_BEGIN_NAMESPACE

// The loop axes, in the order: kept ones without parameters, kept ones with, normalized ones with, the rest.
class SetAxes {
 public:
  inline SetAxes(const SetsShape& shape, RowsProblem* p, ArgumentChecker& check) : shape_(shape) {
    if (shape.rank < 0 || shape.rank > kMaxRank || (shape.size == nullptr && shape.rank > 0) ||
        checked_product(shape.size, shape.rank) < 0 || shape.run_axes < 0) {
      check.fail(Status::kInvalidShape);
      return;
    }
    const uint64_t normalized = shape.normalized, affine = shape.affine;
    add(~normalized & ~affine);
    kept_plain_ = count_;
    add(~normalized & affine);
    outer_ = count_;
    add(normalized & affine);
    affine_end_ = count_;
    add(normalized & ~affine);
    p->rows = product(0, outer_);
    p->n = product(outer_, count_);
    const bool varies_within = affine_end_ > outer_;
    const int run_axes = shape.run_axes < count_ - outer_ ? shape.run_axes : count_ - outer_;
    p->run = run_axes == 0 || varies_within ? p->n : product(count_ - run_axes, count_);
    p->block = longest_block(p->run);
    p->segment = varies_within ? segment() : 0;
  }

  inline AxesShape elements() const { return {outer_, count_ - outer_, size_}; }
  inline AxesShape sets() const { return {outer_, 0, size_}; }
  // Numbered as the elements are.
  inline AxesShape parameters() const { return {0, affine_end_ - kept_plain_, size_ + kept_plain_}; }
  inline AxesShape channels() const { return {0, outer_ - kept_plain_, size_ + kept_plain_}; }
  inline int64_t channel_count() const { return product(kept_plain_, outer_); }
  // Elements of a set that share a weight, if they lie side by side in its numbering.
  inline int64_t segment() const { return product(affine_end_, count_); }
  inline int64_t segments() const { return product(outer_, affine_end_); }
  // Whether the elements of a set that differ in their weight, and then in nothing else, are neighbours.
  inline bool channels_last(const int64_t* given) {
    const int64_t* stride = element_strides(given);
    for (int k = affine_end_ - 1; k >= outer_; --k)
      if (size_[k] > 1) return stride[k] == 1 && segment() > 1;
    return false;
  }
  // Weight and bias vary within the sets only, as LayerNorm's: their gradients are sums over rows.
  inline bool parameters_are_columns() const {
    return affine_end_ == count_ && affine_end_ > outer_ && kept_plain_ == outer_;
  }

  // Strides on the loop axes of an operand that has the axes in `mask`; `given` holds one for each of these,
  // in the shape's order (null: C-contiguous). Valid until the next call.
  inline const int64_t* strides(uint64_t mask, const int64_t* given) {
    int64_t of_axis[kMaxRank] = {};
    int64_t step = 1;
    int k = bits_below(mask, shape_.rank);
    for (int a = shape_.rank - 1; a >= 0; --a) {
      if (!(mask >> a & 1u)) continue;
      of_axis[a] = given != nullptr ? given[--k] : step;
      step *= shape_.size[a];
    }
    for (int a = 0; a < count_; ++a) strides_[a] = of_axis[axis_[a]];
    return strides_;
  }
  inline const int64_t* element_strides(const int64_t* given) { return strides(~uint64_t(0), given); }
  inline const int64_t* parameter_strides(const int64_t* given) { return strides(shape_.affine, given); }
  inline const int64_t* set_strides(const int64_t* given) { return strides(~shape_.normalized, given); }
  // Of one number for each channel, repeated over the other kept axes.
  inline const int64_t* channel_strides(const int64_t* given) {
    return strides(shape_.affine & ~shape_.normalized, given);
  }
  // The same, on the axes of parameters() and channels() alone.
  inline const int64_t* own_parameter_strides(const int64_t* given) {
    return parameter_strides(given) + kept_plain_;
  }
  inline const int64_t* own_channel_strides(const int64_t* given) {
    return channel_strides(given) + kept_plain_;
  }

 private:
  static inline int bits_below(uint64_t mask, int rank) {
    int bits = 0;
    for (int a = 0; a < rank; ++a) bits += static_cast<int>(mask >> a & 1u);
    return bits;
  }
  inline void add(uint64_t mask) {
    for (int a = 0; a < shape_.rank; ++a) {
      if (!(mask >> a & 1u)) continue;
      size_[count_] = shape_.size[a];
      axis_[count_++] = a;
    }
  }
  inline int64_t product(int begin, int end) const { return checked_product(size_ + begin, end - begin); }

  SetsShape shape_;
  int count_ = 0, kept_plain_ = 0, outer_ = 0, affine_end_ = 0;
  int64_t size_[kMaxRank], strides_[kMaxRank];
  int axis_[kMaxRank];
};

// What an operation is, besides its shape.
struct SetsKind {
  Statistic statistic = Statistic::kMoments;
  double power = 2.0;
  bool flat_is_zero = false;
  bool channel_statistics = false;  // takes given and running statistics
  double low = 0.0, high = 1.0;     // kRange
};

inline SetsKind standard_kind(bool rms) {
  SetsKind kind;
  if (rms) kind.statistic = Statistic::kMeanSquare;
  return kind;
}
inline SetsKind norm_kind(double power) {
  SetsKind kind;
  kind.statistic = Statistic::kNorm;
  kind.power = power;
  return kind;
}
inline SetsKind range_kind(double low, double high) {
  SetsKind kind;
  kind.statistic = Statistic::kRange;
  kind.low = low;
  kind.high = high;
  return kind;
}
inline SetsKind z_score_kind() {
  SetsKind kind;
  kind.flat_is_zero = true;
  return kind;
}

inline void set_kind(const SetsKind& kind, RowsProblem& p) {
  p.statistic = kind.statistic;
  p.power = kind.power;
  p.flat_is_zero = kind.flat_is_zero;
}

inline void describe(const RunningUpdate& u, Plan* plan) {
  plan->kind = PlanKind::kRunningUpdate;
  plan->elements = u.forward.x.dtype;
}

// x, y and what is known from them.
template <typename Args>
inline void check_forward_elements(const SetsKind& kind, const Args& args, SetAxes& axes, RowsForward& p,
                                   ArgumentChecker& check) {
  set_kind(kind, p);
  p.given = args.given_mean.data != nullptr;
  check.input(args.x, axes.elements(), axes.element_strides(args.x.strides), true, &p.x);
  check.output(args.y, axes.elements(), axes.element_strides(args.y.strides), true, &p.y);
  if (check.status() == Status::kOk) p.channels_last = axes.channels_last(args.x.strides);
}

// Scratch of large columns, where `taken` of what there may be is used already.
inline int64_t forward_columns_bytes(const RowsForward& p, int64_t taken) {
  const ColumnsShape shape(p);
  return p.given || !suits_forward_columns(p, shape) ? 0 : large_columns_bytes(p, shape, false, taken);
}

// Of a problem with elements: what there is to update, and how; returns the trees' bytes.
inline int64_t choose_updates(RunningUpdate& u, const SetAxes& axes, int64_t element, Workspace lent) {
  u.channels = u.sums.columns = axes.channel_count();
  u.samples = u.forward.rows / u.channels;
  if (u.samples == 1) return 0;
  u.by_channel = !choose_rank(u.sums, u.samples, scratch_limit(u.forward, false, element, lent));
  return u.by_channel ? 0 : divide_up(u.sums.bytes(u.samples), 64) * 64;
}

// Without room for large columns they are slow, with the same bits.
inline size_t sets_forward_bytes(const SetsKind& kind, const SetsShape& shape, const SetNormArgs& args) {
  RunningUpdate u;
  RowsForward& p = u.forward;
  ArgumentChecker check;
  SetAxes axes(shape, &p, check);
  if (check.status() != Status::kOk || !is_dtype(args.x.dtype)) return 0;
  const size_t axes_bytes = more_axes_bytes(shape);
  if (p.rows == 0 || p.n == 0) return axes_bytes;
  const bool updates = args.running_mean.data != nullptr || args.running_var.data != nullptr;
  const int64_t trees = updates ? choose_updates(u, axes, size_of(args.x.dtype), {}) : 0;
  check_forward_elements(kind, args, axes, p, check);
  const bool suits = check.status() == Status::kOk && !u.by_channel;
  const int64_t columns = suits ? forward_columns_bytes(p, trees) : 0;
  return trees + columns == 0 ? axes_bytes : static_cast<size_t>(trees + columns) + 64 + axes_bytes;
}

// The phases of a forward pass that updates running statistics, where no columns are too large for a cache. A
// group of samples is whole tiles, or whole bundles; where it is not, columns are taken one by one.
inline void plan_updates(RunningUpdate& u, Plan* plan) {
  RowsForward& p = u.forward;
  const ColumnsShape shape(p);
  const int64_t group = u.sums.group() * u.channels;
  if (u.by_channel) {
    p.tile_rows = 1;
    plan->phases[0] = {u.channels, 2 * u.samples * p.n * p.x.bytes(),
                       NORMKIT_PHASE_FUNCTIONS(running_channels_phase)[p.x.dtype]};
  } else if (suits_forward_columns(p, shape) && (u.sums.rank == 0 || u.channels % shape.columns == 0)) {
    const int64_t bundles = shape.bundles().count;
    u.task_sets = u.sums.rank == 0 ? 1 : group / shape.columns * bundles;
    plan->phases[0].tasks = divide_up(shape.outer * bundles, u.task_sets);
    plan->phases[0].task_bytes *= u.task_sets;
    plan->phases[0].function = NORMKIT_PHASE_FUNCTIONS(running_bundles_phase)[p.x.dtype];
  } else {
    if (u.sums.rank > 0) p.tile_rows = whole_tile_rows(p, group);
    u.task_sets = u.sums.rank == 0 ? p.tile_rows : group;
    plan->phases[0] = {divide_up(p.rows, u.task_sets), 2 * u.task_sets * p.n * p.x.bytes(),
                       NORMKIT_PHASE_FUNCTIONS(running_tiles_phase)[p.x.dtype]};
  }
  plan->phase_count = 1;
  if (u.sums) plan->phases[plan->phase_count++] = {u.channels, 16 * u.samples, &update_running_phase};
  set_state(plan, u);
}

// given_mean comes with exactly one of given_var and given_rstd.
template <typename Args>
inline void check_given(const SetsKind& kind, const Args& args, ArgumentChecker& check) {
  const bool var = args.given_var.data != nullptr, rstd = args.given_rstd.data != nullptr;
  if ((args.given_mean.data != nullptr) != (var != rstd) || (var && rstd) ||
      (!kind.channel_statistics && (var || rstd)))
    check.fail(Status::kMissingStatistics);
}

inline Status sets_forward_plan(const SetsKind& kind, const SetsShape& shape, const SetNormArgs& args,
                                Workspace workspace, Plan* plan) {
  RunningUpdate u;
  RowsForward& p = u.forward;
  ArgumentChecker check{&workspace};
  SetAxes axes(shape, &p, check);
  p.low = kind.low;
  p.high = kind.high;
  p.eps = args.eps;
  p.activation = args.activation;
  check.activation(args.activation);
  p.given_variance = args.given_var.data != nullptr;
  const ConstView& second = p.given_variance ? args.given_var : args.given_rstd;
  const bool updates = args.running_mean.data != nullptr || args.running_var.data != nullptr;
  if (!is_eps(args.eps)) check.fail(Status::kInvalidEps);
  check_given(kind, args, check);
  // Of how many values given statistics are is not known: running ones cannot follow them.
  if (updates && (!kind.channel_statistics || args.given_mean.data != nullptr))
    check.fail(Status::kMissingStatistics);
  if (check.status() != Status::kOk) return check.status();
  check_forward_elements(kind, args, axes, p, check);
  check.input(args.weight, axes.elements(), axes.parameter_strides(args.weight.strides), false, &p.weight);
  check.input(args.bias, axes.elements(), axes.parameter_strides(args.bias.strides), false, &p.bias);
  if (p.given) {
    check.input(args.given_mean, axes.sets(), axes.channel_strides(args.given_mean.strides), false, &p.mean);
    check.input(second, axes.sets(), axes.channel_strides(second.strides), false, &p.rstd);
  } else {
    check.output(args.mean, axes.sets(), axes.set_strides(args.mean.strides), false, &p.mean);
    check.output(args.rstd, axes.sets(), axes.set_strides(args.rstd.strides), false, &p.rstd);
    check.statistic_type(p.mean);
    check.statistic_type(p.rstd);
  }
  check.output(args.running_mean, axes.channels(), axes.own_channel_strides(args.running_mean.strides), false,
               &u.running_mean);
  check.output(args.running_var, axes.channels(), axes.own_channel_strides(args.running_var.strides), false,
               &u.running_var);
  check.same_type(p.x, p.y);
  check.parameter_type(p.weight, p.x.dtype, false);
  check.parameter_type(p.bias, p.x.dtype, false);
  check.overlaps(p.y, p.x, p.x);
  if (check.status() != Status::kOk) return check.status();
  const bool empty = p.rows == 0 || p.n == 0;
  const bool updates_them = (u.running_mean || u.running_var) && !empty;
  const int64_t trees = updates_them ? choose_updates(u, axes, p.x.bytes(), workspace) : 0;
  u.momentum = args.momentum;
  if (trees > 0) {
    u.sums.levels = reinterpret_cast<Sums*>(aligned_scratch(workspace, static_cast<size_t>(trees)));
    if (!u.sums) return Status::kWorkspaceTooSmall;
  }
  finish_forward_plan(p, plan);
  const int64_t columns = empty || u.by_channel ? 0 : forward_columns_bytes(p, trees);
  char* scratch = columns == 0 ? nullptr : aligned_scratch(workspace, static_cast<size_t>(trees + columns));
  const ColumnsShape side_by_side(p);
  if (scratch != nullptr && (!updates_them || u.channels == side_by_side.columns)) {
    p.scratch = scratch + trees;
    const int64_t blocks = side_by_side.blocks(p).count(), panels = side_by_side.panels();
    plan->phases[0] = {side_by_side.outer * blocks * panels, kBlock * kPanel * p.x.bytes(),
                       NORMKIT_PHASE_FUNCTIONS(column_moments_phase)[p.x.dtype]};
    plan->phases[1] = {side_by_side.bundles().count,
                       16 * side_by_side.outer * blocks * side_by_side.bundle_unit,
                       NORMKIT_PHASE_FUNCTIONS(merge_column_moments_phase)[p.x.dtype]};
    plan->phases[2] = apply_columns_of(p, side_by_side);
    plan->phase_count = p.y ? 3 : 2;
    set_state(plan, u);
  } else if (updates_them) {
    plan_updates(u, plan);
  }
  return Status::kOk;
}

// dy, x, dx and what is known from them.
inline void check_backward_elements(const SetsKind& kind, const SetNormBackwardArgs& args, SetAxes& axes,
                                    RowsBackward& p, ArgumentChecker& check) {
  set_kind(kind, p);
  p.given = args.given_mean.data != nullptr;
  p.segments = axes.segments();
  check.input(args.dy, axes.elements(), axes.element_strides(args.dy.strides), true, &p.dy);
  check.input(args.x, axes.elements(), axes.element_strides(args.x.strides), true, &p.x);
  check.output(args.dx, axes.elements(), axes.element_strides(args.dx.strides), false, &p.dx);
  if (check.status() == Status::kOk) p.channels_last = axes.channels_last(args.x.strides);
}

// Channels and samples of a problem with elements.
inline void count_channels(RowsBackward& p, const SetAxes& axes) {
  p.channels = axes.channel_count() * axes.segments();
  p.segment_run = p.segments == 1 ? p.run : axes.segment();
  p.samples = p.rows * p.segments / p.channels;
}
// Scratch of the sums of channels over samples: of one there are none. Of more channels than fit, even as one
// group, they are taken by strips: each needs the statistics of whole sets, kept where there is room.
inline int64_t choose_sums(RowsBackward& p, int64_t element, Workspace lent) {
  if (p.samples == 1) return 0;
  const int64_t limit = scratch_limit(p, true, element, lent);
  p.channel_sums.columns = p.channels;
  if (choose_rank(p.channel_sums, p.samples, limit))
    return divide_up(p.channel_sums.bytes(p.samples), 64) * 64;
  p.channel_sums.rank = 0;
  p.strips = true;
  const int64_t statistics = p.rows * static_cast<int64_t>(sizeof(RowStatistics));
  return p.segments > kChannelStrip && statistics <= limit ? statistics : 0;
}
inline int64_t backward_columns_bytes(const RowsBackward& p, int64_t taken) {
  const ColumnsShape shape(p);
  return suits_backward_columns(p, shape) ? large_columns_bytes(p, shape, true, taken) : 0;
}

// The parameter gradients of sets: as sums over rows, or of each set's segments.
inline size_t sets_backward_bytes(const SetsKind& kind, const SetsShape& shape,
                                  const SetNormBackwardArgs& args) {
  const bool wants_parameters = args.dweight.data != nullptr || args.dbias.data != nullptr;
  RowsBackward p;
  ArgumentChecker check;
  SetAxes axes(shape, &p, check);
  if (check.status() != Status::kOk || !is_dtype(args.x.dtype)) return 0;
  const size_t axes_bytes = more_axes_bytes(shape);
  if (p.rows == 0 || p.n == 0) return axes_bytes;
  if (axes.parameters_are_columns()) {
    if (!wants_parameters) return axes_bytes;
    return static_cast<size_t>(choose_groups(p, true, args.x.dtype, {})) + 64 + axes_bytes;
  }
  check_backward_elements(kind, args, axes, p, check);
  count_channels(p, axes);
  const int64_t sums = wants_parameters ? choose_sums(p, size_of(args.x.dtype), {}) : 0;
  const int64_t columns = check.status() == Status::kOk && !p.strips ? backward_columns_bytes(p, sums) : 0;
  return sums + columns == 0 ? axes_bytes : static_cast<size_t>(sums + columns) + 64 + axes_bytes;
}

inline void plan_strips(RowsBackward& p, Plan* plan) {
  const int64_t element = p.x.bytes();
  const Plan::Phase statistics = {p.rows, p.n * element, NORMKIT_PHASE_FUNCTIONS(find_rows_phase)[p.x.dtype]};
  if (p.scratch != nullptr) plan->phases[plan->phase_count++] = statistics;
  p.ready = reinterpret_cast<const RowStatistics*>(p.scratch);
  p.samples = 0;  // sets keep no sums
  choose_stores(p, 1);
  plan->phases[plan->phase_count++] = {divide_up(p.channels, kChannelStrip),
                                       2 * p.rows * p.n * element / divide_up(p.channels, kChannelStrip),
                                       NORMKIT_PHASE_FUNCTIONS(strip_channels_phase)[p.x.dtype]};
  if (p.dx)
    plan->phases[plan->phase_count++] = {p.rows, 3 * p.n * element,
                                         NORMKIT_PHASE_FUNCTIONS(backward_sets_phase)[p.x.dtype]};
  set_state(plan, p);
}

inline Status sets_backward_plan(const SetsKind& kind, const SetsShape& shape,
                                 const SetNormBackwardArgs& args, Workspace workspace, Plan* plan) {
  RowsBackward p;
  ArgumentChecker check{&workspace};
  SetAxes axes(shape, &p, check);
  p.eps = args.eps;
  p.accumulate = args.accumulate;
  p.given_variance = args.given_var.data != nullptr;
  const bool given = args.given_mean.data != nullptr;
  const ConstView& mean = given ? args.given_mean : args.mean;
  const ConstView& second = !given ? args.rstd : p.given_variance ? args.given_var : args.given_rstd;
  set_kind(kind, p);
  if (!is_eps(args.eps)) check.fail(Status::kInvalidEps);
  check_given(kind, args, check);
  if (p.centred() && (mean.data == nullptr) != (second.data == nullptr))
    check.fail(Status::kMissingStatistics);
  if (check.status() != Status::kOk) return check.status();
  check_backward_elements(kind, args, axes, p, check);
  check.input(args.weight, axes.elements(), axes.parameter_strides(args.weight.strides), false, &p.weight);
  check.input(mean, axes.sets(),
              p.given ? axes.channel_strides(mean.strides) : axes.set_strides(mean.strides), false, &p.mean);
  check.input(second, axes.sets(),
              p.given ? axes.channel_strides(second.strides) : axes.set_strides(second.strides), false,
              &p.rstd);
  check.output(args.dweight, axes.parameters(), axes.own_parameter_strides(args.dweight.strides), false,
               &p.dweight);
  check.output(args.dbias, axes.parameters(), axes.own_parameter_strides(args.dbias.strides), false,
               &p.dbias);
  check.input(args.sum_dy, axes.sets(), axes.set_strides(args.sum_dy.strides), false, &p.sum_dy);
  check.input(args.sum_dy_xhat, axes.sets(), axes.set_strides(args.sum_dy_xhat.strides), false,
              &p.sum_dy_xhat);
  p.whole = args.count;
  if (static_cast<bool>(p.sum_dy) != static_cast<bool>(p.sum_dy_xhat) ||
      (p.sum_dy && (!p.rstd || p.given || p.dweight || p.dbias || p.whole < p.n || axes.segments() != 1 ||
                    axes.parameters_are_columns())))
    check.fail(Status::kMissingStatistics);
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
  const bool wants_parameters = p.dweight || p.dbias;
  if (axes.parameters_are_columns())
    return finish_backward_plan(p, args.x.dtype, wants_parameters, workspace, plan);
  plan->phase_count = 0;
  const bool empty = p.rows == 0 || p.n == 0;
  p.channels = axes.channel_count() * axes.segments();
  if (!empty) count_channels(p, axes);
  const int64_t sums = wants_parameters && !empty ? choose_sums(p, p.x.bytes(), workspace) : 0;
  if (sums > 0) {
    p.scratch = aligned_scratch(workspace, static_cast<size_t>(sums));
    if (p.scratch == nullptr) return Status::kWorkspaceTooSmall;
    if (!p.strips) p.channel_sums.levels = reinterpret_cast<Sums*>(p.scratch);
  }
  if (p.strips) {
    plan_strips(p, plan);
    return Status::kOk;
  }
  if (!empty) choose_stores(p, 1);
  int phases = 0;
  const ColumnsShape columns = empty ? ColumnsShape() : ColumnsShape(p);
  // Bundles make up a group of samples, or their columns are taken one by one.
  const int32_t rank = p.channel_sums.rank;
  const bool whole_samples = rank == 0 || p.channels % (columns.columns > 0 ? columns.columns : 1) == 0;
  const int64_t group = p.channel_sums.group() * p.channels;
  const bool by_columns = !empty && suits_backward_columns(p, columns) && whole_samples;
  const bool may_be_given = !empty && p.given && p.segments == 1 && (p.n < kShortColumn || !by_columns);
  if (may_be_given && !wants_parameters &&
      plan_given(p, p.dy, p.dx, NORMKIT_PHASE_FUNCTIONS(dx_given_phase), &plan->phases[phases])) {
    ++phases;
  } else if (may_be_given && wants_parameters && suits_backward_given(p)) {
    const GivenShape side_by_side(p, p.dy, p.x);
    plan->phases[phases++] = {side_by_side.outer * side_by_side.panels(), 3 * p.n * kGivenSets * p.x.bytes(),
                              NORMKIT_PHASE_FUNCTIONS(backward_given_phase)[args.x.dtype]};
  } else if (by_columns) {
    const int64_t bytes = p.rstd && !p.sum_dy && (!wants_parameters || p.channels == columns.columns)
                              ? large_columns_bytes(p, columns, true, sums)
                              : 0;
    char* scratch = bytes == 0 ? nullptr : aligned_scratch(workspace, static_cast<size_t>(sums + bytes));
    p.stream = p.dx && p.rows >= kStreamBytes / (3 * p.n * p.x.bytes()) && has_whole_lines(p.dx, columns);
    if (scratch != nullptr) {
      p.scratch = scratch + sums;
      const int64_t blocks = columns.blocks(p).count(), panels = columns.panels();
      const int64_t element = p.x.bytes();
      plan->phases[0] = {columns.outer * blocks * panels, 2 * kBlock * kPanel * element,
                         NORMKIT_PHASE_FUNCTIONS(column_grad_sums_phase)[p.x.dtype]};
      plan->phases[1] = {columns.bundles().count, 16 * columns.outer * blocks * columns.bundle_unit,
                         NORMKIT_PHASE_FUNCTIONS(merge_column_grads_phase)[p.x.dtype]};
      plan->phases[2] = {columns.outer * divide_up(columns.rows, kBlock) * panels,
                         3 * kBlock * kPanel * element,
                         NORMKIT_PHASE_FUNCTIONS(apply_column_grads_phase)[p.x.dtype]};
      plan->phase_count = p.dx ? 3 : 2;
      set_state(plan, p);
      return Status::kOk;
    }
    const int64_t bundles = columns.bundles().count;
    if (rank > 0) p.task_sets = group / columns.columns * bundles;
    plan->phases[phases++] = {divide_up(columns.outer * bundles, p.task_sets),
                              3 * p.task_sets * columns.rows * columns.bundle_unit * p.x.bytes(),
                              NORMKIT_PHASE_FUNCTIONS(backward_bundles_phase)[args.x.dtype]};
  } else if (!empty) {
    if (rank > 0) p.task_sets = group / p.segments;
    plan->phases[phases++] = {divide_up(p.rows, p.task_sets), 3 * p.task_sets * p.n * size_of(args.x.dtype),
                              NORMKIT_PHASE_FUNCTIONS(backward_sets_phase)[args.x.dtype]};
  }
  if (wants_parameters && (p.channel_sums || empty))
    plan->phases[phases++] = {p.channels, 16 * (p.samples + 1), &add_samples_phase};
  plan->phase_count = phases;
  set_state(plan, p);
  return Status::kOk;
}

NORMKIT_END_NAMESPACE

#endif  // NORMKIT_DETAIL_SETS_PLAN_HPP_
