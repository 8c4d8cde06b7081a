// Elementwise operations: from arguments to a Plan. Checks every argument, orders the axes, chooses kernels
// and groups.
#ifndef NORMKIT_DETAIL_MAP_PLAN_HPP_
#define NORMKIT_DETAIL_MAP_PLAN_HPP_

#include "normkit/detail/map_backward.hpp"
#include "normkit/detail/rows_plan.hpp"
#include "normkit/dynamic_tanh.hpp"

NORMKIT_BEGIN_NAMESPACE

// Rows are made of as many axes as this many elements need.
constexpr int64_t kMapRow = 512;

// An element costs about as much time as four that are only copied.
constexpr int64_t kMapWork = 4;

// The axes of x in the order of a kernel, cut into outer and inner ones.
class MapAxes {
 public:
  inline MapAxes(const MapShape& shape, ArgumentChecker& check) : shape_(shape) {
    if (shape.rank < 1 || shape.rank > kMaxRank || shape.size == nullptr || shape.axis < 0 ||
        shape.axis >= shape.rank || checked_product(shape.size, shape.rank) < 0) {
      check.fail(Status::kInvalidShape);
      shape_ = MapShape();
      return;
    }
    int64_t step = 1;
    for (int a = shape.rank - 1; a >= 0; --a) {
      contiguous_[a] = step;
      step *= shape.size[a] > 0 ? shape.size[a] : 1;
    }
    elements_ = checked_product(shape.size, shape.rank);
    channels_ = shape.size[shape.axis];
    count_ = channels_ > 0 ? elements_ / channels_ : 0;
  }

  inline int64_t elements() const { return elements_; }
  inline int64_t channels() const { return channels_; }
  inline int64_t count() const { return count_; }  // elements of a channel
  inline AxesShape axes() const { return {outer_, shape_.rank - outer_, size_}; }
  inline AxesShape parameter() const { return {0, 1, shape_.size == nullptr ? nullptr : &channels_}; }

  // For elementwise work: from the largest step of these strides to the smallest; n and period of a row.
  inline void order_by_memory(const int64_t* strides, int64_t* n, int64_t* period) {
    const int64_t* by = strides != nullptr ? strides : contiguous_;
    for (int a = 0; a < shape_.rank; ++a) {
      int k = a;
      for (; k > 0 && step(by, axis_[k - 1]) < step(by, a); --k) axis_[k] = axis_[k - 1];
      axis_[k] = a;
    }
    set_sizes();
    *n = 1;
    *period = 1;
    for (outer_ = shape_.rank; outer_ > 0 && *n < kMapRow; --outer_) {
      *n *= size_[outer_ - 1];
      if (axis_[outer_ - 1] == shape_.axis) *period = *n;
    }
  }

  // For sums over each channel: the channel axis last (columns) or first (runs), the others in C order.
  inline void order_by_channel(bool columns) {
    int k = columns ? 0 : 1;
    for (int a = 0; a < shape_.rank; ++a)
      if (a != shape_.axis) axis_[k++] = a;
    axis_[columns ? k : 0] = shape_.axis;
    outer_ = columns ? k : 1;
    set_sizes();
  }

  // Whether neighbouring channels lie closer together in memory than any other neighbours.
  inline bool channels_are_neighbours(const int64_t* strides) const {
    const int64_t* by = strides != nullptr ? strides : contiguous_;
    for (int a = 0; a < shape_.rank; ++a)
      if (shape_.size[a] > 1 && step(by, a) < step(by, shape_.axis)) return false;
    return true;
  }

  // Strides in the kernel's order, valid until the next call.
  inline const int64_t* ordered(const int64_t* strides) {
    const int64_t* from = strides != nullptr ? strides : contiguous_;
    for (int k = 0; k < shape_.rank; ++k) ordered_[k] = from[axis_[k]];
    return ordered_;
  }
  inline const int64_t* spread(const int64_t* stride, bool per_channel) {
    for (int k = 0; k < shape_.rank; ++k)
      ordered_[k] = !per_channel || axis_[k] != shape_.axis ? 0 : stride != nullptr ? *stride : 1;
    return ordered_;
  }

 private:
  inline int64_t step(const int64_t* strides, int a) const {
    // An axis of one element goes nowhere; outermost it is out of the way.
    if (shape_.size[a] == 1) return kFarthest;
    return strides[a] < 0 ? -strides[a] : strides[a];
  }
  inline void set_sizes() {
    for (int k = 0; k < shape_.rank; ++k) size_[k] = shape_.size[axis_[k]];
  }

  MapShape shape_;
  int outer_ = 0;
  int64_t elements_ = 0, channels_ = 0, count_ = 0;
  int axis_[kMaxRank] = {};
  int64_t size_[kMaxRank], contiguous_[kMaxRank], ordered_[kMaxRank];
};

inline Status map_forward_plan(const MapShape& shape, const DynamicTanhArgs& args, Workspace workspace,
                               Plan* plan) {
  MapForward p;
  ArgumentChecker check{&workspace};
  MapAxes axes(shape, check);
  if (check.status() != Status::kOk) return check.status();
  axes.order_by_memory(args.y.strides, &p.n, &p.period);
  const AxesShape all = axes.axes();
  check.input(args.x, all, axes.ordered(args.x.strides), true, &p.x);
  check.input(args.alpha, all, axes.spread(args.alpha.strides, args.alpha_per_channel), true, &p.alpha);
  check.input(args.weight, all, axes.spread(args.weight.strides, true), false, &p.weight);
  check.input(args.bias, all, axes.spread(args.bias.strides, true), false, &p.bias);
  check.output(args.y, all, axes.ordered(args.y.strides), true, &p.y);
  check.same_type(p.x, p.y);
  check.parameter_type(p.alpha, p.x.dtype, true);
  check.parameter_type(p.weight, p.x.dtype, false);
  check.parameter_type(p.bias, p.x.dtype, false);
  check.activation(args.activation);
  p.activation = args.activation;
  check.overlaps(p.y, p.x, p.x);
  if (check.status() != Status::kOk) return check.status();
  plan->phase_count = 0;
  if (axes.elements() == 0) return Status::kOk;
  const int64_t longest = p.period < kBlock ? kBlock / p.period * p.period : kBlock;
  p.block = p.n < longest ? p.n : longest;
  p.blocks = divide_up(p.n, p.block);
  plan->phase_count = 1;
  plan->phases[0] = {axes.elements() / p.n * p.blocks, kMapWork * 2 * p.block * p.x.bytes(),
                     NORMKIT_PHASE_FUNCTIONS(dynamic_tanh_phase)[p.x.dtype]};
  set_state(plan, p);
  return Status::kOk;
}

// ---- backward ----

// Columns where channels lie side by side or have few elements, runs elsewhere; groups as small as the
// scratch allows. Returns the scratch. Channels without elements count only where each has a gradient.
inline int64_t choose_map_groups(MapBackward& p, const MapAxes& axes, const DynamicTanhBackwardArgs& args,
                                 Workspace lent) {
  const bool shared = args.dalpha.data != nullptr && !args.alpha_per_channel;  // a sum over all channels
  const bool per_channel =
      args.alpha_per_channel || args.dweight.data != nullptr || args.dbias.data != nullptr;
  p.channels = axes.elements() > 0 || per_channel ? axes.channels() : 0;
  p.count = axes.count();
  p.columns =
      p.count < kVecLanes || (p.channels >= kVecLanes && axes.channels_are_neighbours(args.x.strides));
  p.together_rank = 6;
  static_assert(kColumnTask == 1 << 6 && kDirectStrip == 1 << 7, "whole subtrees of channels");
  const auto totals = [&] {
    return shared ? divide_up(p.channels, p.together()) * static_cast<int64_t>(sizeof(double)) : 0;
  };
  const auto cut = [&](int64_t most) {
    const int64_t padded = divide_up(p.channels, kVecLanes) * kVecLanes;
    p.strip = padded < most ? padded : most;
    p.strips = p.strip > 0 ? divide_up(p.channels, p.strip) : 0;
  };
  cut(kMapStrip);
  const int64_t panels = divide_up(p.count, kPanelRows);
  const int64_t limit = scratch_limit(2 * axes.elements() * size_of(args.x.dtype), lent) - totals();
  int64_t lines = 1;
  for (int64_t levels = 1;; p.group_panels *= 2, ++levels) {
    p.groups = divide_up(panels, p.group_panels);
    lines = p.columns ? levels + 1 : 1;
    p.group_bytes = lines * kMapSums * p.strip * static_cast<int64_t>(sizeof(double));
    if (!p.columns && p.group_panels < kRunPanels) continue;
    if (p.groups <= 1 || p.strips == 0 || p.groups * p.strips <= limit / p.group_bytes) break;
  }
  if (p.groups * p.strips * p.group_bytes <= limit || lines > kDirectLines)
    return p.groups * p.strips * p.group_bytes + totals();
  p.direct = true;
  p.together_rank = 7;
  cut(kDirectStrip);
  p.group_bytes = lines * kMapSums * p.strip * static_cast<int64_t>(sizeof(double));
  return totals();
}

inline bool wants_sums(const DynamicTanhBackwardArgs& args) {
  return args.dalpha.data != nullptr || args.dweight.data != nullptr || args.dbias.data != nullptr;
}

inline size_t map_backward_workspace_bytes(const MapShape& shape, const DynamicTanhBackwardArgs& args) {
  MapBackward p;
  ArgumentChecker check;
  const MapAxes axes(shape, check);
  if (check.status() != Status::kOk || !is_dtype(args.x.dtype)) return 0;
  const size_t axes_bytes = more_axes_bytes(shape);
  if (!wants_sums(args)) return axes_bytes;
  return static_cast<size_t>(choose_map_groups(p, axes, args, {})) + 64 + axes_bytes;
}

inline Status map_backward_plan(const MapShape& shape, const DynamicTanhBackwardArgs& args,
                                Workspace workspace, Plan* plan) {
  MapBackward p;
  ArgumentChecker check{&workspace};
  MapAxes axes(shape, check);
  if (check.status() != Status::kOk) return check.status();
  if (!is_dtype(args.x.dtype)) return Status::kInvalidDType;
  const int64_t needed = choose_map_groups(p, axes, args, workspace);
  axes.order_by_channel(p.columns);
  p.alpha_per_channel = args.alpha_per_channel;
  p.accumulate = args.accumulate;
  const AxesShape all = axes.axes(), parameter = axes.parameter(), one{0, 0, nullptr};
  check.input(args.dy, all, axes.ordered(args.dy.strides), true, &p.dy);
  check.input(args.x, all, axes.ordered(args.x.strides), true, &p.x);
  check.input(args.alpha, all, axes.spread(args.alpha.strides, args.alpha_per_channel), true, &p.alpha);
  check.input(args.weight, all, axes.spread(args.weight.strides, true), false, &p.weight);
  check.output(args.dx, all, axes.ordered(args.dx.strides), false, &p.dx);
  check.output(args.dalpha, args.alpha_per_channel ? parameter : one, args.dalpha.strides, false, &p.dalpha);
  check.output(args.dweight, parameter, args.dweight.strides, false, &p.dweight);
  check.output(args.dbias, parameter, args.dbias.strides, false, &p.dbias);
  check.same_type(p.x, p.dy);
  check.same_type(p.x, p.dx);
  check.parameter_type(p.alpha, args.x.dtype, true);
  check.parameter_type(p.weight, args.x.dtype, false);
  check.parameter_type(p.dalpha, args.x.dtype, true);
  check.parameter_type(p.dweight, args.x.dtype, true);
  check.parameter_type(p.dbias, args.x.dtype, true);
  check.overlaps(p.dx, p.x, p.dy);
  if (check.status() != Status::kOk) return check.status();

  const bool sums = p.dalpha || p.dweight || p.dbias;
  if (sums) {
    p.scratch = aligned_scratch(workspace, static_cast<size_t>(needed));
    if (p.scratch == nullptr) return Status::kWorkspaceTooSmall;
  }
  int phases = 0;
  const int64_t element = size_of(args.x.dtype), rows = p.group_panels * kPanelRows;
  const int64_t task_rows = p.count < rows ? p.count : rows;
  p.direct = p.direct && sums;
  const bool strips = p.columns || p.direct;
  if (axes.elements() > 0 && (sums || p.dx))
    plan->phases[phases++] = {p.groups * (strips ? p.strips : p.channels),
                              kMapWork * 3 * task_rows * (strips ? p.strip : 1) * element,
                              NORMKIT_PHASE_FUNCTIONS(map_backward_phase)[args.x.dtype]};
  if (sums && p.channels > 0 && !p.direct)
    plan->phases[phases++] = {divide_up(p.channels, kColumnTask), 24 * kColumnTask * (p.groups + 1),
                              &map_add_groups_phase};
  if (p.dalpha && !p.alpha_per_channel) plan->phases[phases++] = {1, 0, &map_add_channels_phase};
  plan->phase_count = phases;
  set_state(plan, p);
  return Status::kOk;
}

NORMKIT_END_NAMESPACE

#endif  // NORMKIT_DETAIL_MAP_PLAN_HPP_
