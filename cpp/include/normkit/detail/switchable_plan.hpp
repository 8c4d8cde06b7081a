// SwitchableNorm: from arguments to a Plan.
#ifndef NORMKIT_DETAIL_SWITCHABLE_PLAN_HPP_
#define NORMKIT_DETAIL_SWITCHABLE_PLAN_HPP_

#include "normkit/detail/switchable.hpp"

NORMKIT_BEGIN_NAMESPACE

// Parts of the caller's scratch, in order; without memory they are counted only.
struct SwitchableScratch {
  char* memory = nullptr;
  int64_t bytes = 0;

  template <typename Part>
  inline void add(Part*& part, int64_t count) {
    part = memory != nullptr ? reinterpret_cast<Part*>(memory + bytes) : nullptr;
    bytes += count * static_cast<int64_t>(sizeof(Part));
  }
};

// What phases leave for each other: statistics and sums of each set; trees over groups of samples, with the
// statistics of each sample or, in a forward pass, without; trees over groups of channels.
enum class SwitchableWay { kKept, kBySample, kBySampleAlone, kByChannel };
constexpr SwitchableWay kWays[] = {SwitchableWay::kKept, SwitchableWay::kBySample,
                                   SwitchableWay::kBySampleAlone, SwitchableWay::kByChannel};

inline int64_t lay_out_switchable(Switchable& s, const RowsProblem& p, SwitchableBackward* backward,
                                  SwitchableWay way, int64_t limit, char* memory) {
  SwitchableScratch scratch{memory, 0};
  s.instance = nullptr;
  s.layer = nullptr;
  s.by_channel = way == SwitchableWay::kByChannel;
  scratch.add(s.batch, s.channels);
  if (way != SwitchableWay::kBySampleAlone || backward != nullptr) scratch.add(s.layer, s.samples);
  if (backward != nullptr) {
    backward->sums = nullptr;
    scratch.add(backward->batch, s.channels);
    scratch.add(backward->layer, s.samples);
  }
  if (way == SwitchableWay::kKept) {
    scratch.add(s.instance, p.rows * s.instance_doubles);
    if (backward != nullptr) scratch.add(backward->sums, p.rows);
    return scratch.bytes;
  }
  const int64_t length = s.by_channel ? s.channels : s.samples;
  s.groups.columns = s.by_channel ? s.samples : s.channels;
  choose_rank(s.groups, length, limit - scratch.bytes);
  scratch.add(s.groups.levels, s.groups.bytes(length) / static_cast<int64_t>(sizeof(ScaledMoments)));
  return scratch.bytes;
}

// The first of these that fits, else the least: what is left for each channel, and of a backward pass for
// each sample, may be too much. Returns its bytes.
inline int64_t choose_switchable(Switchable& s, const RowsProblem& p, DType elements,
                                 SwitchableBackward* backward, Workspace lent, SwitchableWay* way) {
  const int64_t limit = scratch_limit(p, backward != nullptr, size_of(elements), lent);
  s.n = p.n;
  s.instance_doubles = elements == DType::kF64 ? 4 : 2;
  int64_t least = INT64_MAX;
  for (SwitchableWay next : kWays) {
    const int64_t bytes = lay_out_switchable(s, p, backward, next, limit, nullptr);
    if (bytes >= least) continue;
    least = bytes;
    *way = next;
    if (bytes <= limit) break;
  }
  return least;
}

// The same, in the workspace. False: it is too small.
inline bool take_switchable(Switchable& s, const RowsProblem& p, SwitchableBackward* backward,
                            Workspace workspace) {
  SwitchableWay way = SwitchableWay::kKept;
  const int64_t bytes = choose_switchable(s, p, p.x.dtype, backward, workspace, &way);
  char* scratch = aligned_scratch(workspace, static_cast<size_t>(bytes));
  if (scratch == nullptr) return false;
  const int64_t limit = scratch_limit(p, backward != nullptr, p.x.bytes(), workspace);
  lay_out_switchable(s, p, backward, way, limit, scratch);
  return true;
}

inline size_t switchable_bytes(const ChannelsShape& shape, DType elements, bool backward) {
  SwitchableBackward b;
  ArgumentChecker check;
  const SetAxes axes(instance_sets(shape), &b.rows, check);
  if (check.status() != Status::kOk || !is_dtype(elements)) return 0;
  if (b.rows.rows == 0 || b.rows.n == 0) return more_axes_bytes(shape);
  b.mix.samples = shape.size[0];
  b.mix.channels = shape.size[1];
  SwitchableWay way = SwitchableWay::kKept;
  const int64_t bytes = choose_switchable(b.mix, b.rows, elements, backward ? &b : nullptr, {}, &way);
  return static_cast<size_t>(bytes) + 64 + more_axes_bytes(shape);
}

// The operands that both directions have.
template <typename Args>
inline Status prepare_switchable(const ChannelsShape& shape, const Args& args, bool updates, SetAxes& axes,
                                 ArgumentChecker& check, RowsProblem& p, Switchable& s) {
  static const int64_t three[] = {3};
  if (!is_eps(args.eps)) check.fail(Status::kInvalidEps);
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

// Phase 1 where sets of so many bytes are not kept.
inline Plan::Phase group_phase(const Switchable& s, int64_t set_bytes, PhaseFunction function) {
  return {divide_up(s.by_channel ? s.channels : s.samples, s.groups.group()),
          s.groups.group() * s.groups.columns * set_bytes, function};
}

inline Status switchable_forward_plan(const ChannelsShape& shape, const SwitchableNormArgs& args,
                                      Workspace workspace, Plan* plan) {
  SwitchableForward f;
  RowsForward& p = f.rows;
  ArgumentChecker check{&workspace};
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
  const Switchable& s = f.mix;
  if (!take_switchable(f.mix, p, nullptr, workspace)) return Status::kWorkspaceTooSmall;
  p.given = true;
  choose_tiles(p);
  if (s.instance == nullptr) p.tile_rows = whole_tile_rows(p, s.channels);
  const int64_t bytes = p.n * p.x.bytes(), tile_bytes = p.tile_rows * bytes;
  const PhaseFunction statistics = NORMKIT_PHASE_FUNCTIONS(switchable_statistics_phase)[p.x.dtype];
  if (s.instance != nullptr)
    plan->phases[0] = {tiles(p), tile_bytes, statistics};
  else
    plan->phases[0] = group_phase(s, bytes, statistics);
  plan->phases[1] = {1, 32 * (s.instance != nullptr ? p.rows : s.samples + s.channels),
                     &switchable_merge_phase};
  plan->phases[2] = {tiles(p), 2 * tile_bytes, NORMKIT_PHASE_FUNCTIONS(switchable_apply_phase)[p.x.dtype]};
  plan->phase_count = 3;
  set_state(plan, f);
  return Status::kOk;
}

inline Status switchable_backward_plan(const ChannelsShape& shape, const SwitchableNormBackwardArgs& args,
                                       Workspace workspace, Plan* plan) {
  static const int64_t three[] = {3};
  SwitchableBackward b;
  RowsBackward& p = b.rows;
  ArgumentChecker check{&workspace};
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
  Switchable& s = b.mix;
  if (!take_switchable(s, p, &b, workspace)) return Status::kWorkspaceTooSmall;
  const int64_t bytes = p.n * p.x.bytes();
  const PhaseFunction sums = NORMKIT_PHASE_FUNCTIONS(switchable_sums_phase)[p.x.dtype];
  if (b.sums != nullptr) {
    plan->phases[0] = {p.rows, 2 * bytes, sums};
  } else {
    RowsForward tiles_of;
    static_cast<RowsProblem&>(tiles_of) = p;
    choose_tiles(tiles_of);
    b.tile_rows = whole_tile_rows(tiles_of, s.channels);
    plan->phases[0] = group_phase(s, bytes, sums);
  }
  plan->phases[1] = {1, (b.sums != nullptr ? 64 : 2 * bytes) * p.rows,
                     NORMKIT_PHASE_FUNCTIONS(switchable_gradients_phase)[p.x.dtype]};
  plan->phases[2] = {p.rows, 3 * bytes, NORMKIT_PHASE_FUNCTIONS(switchable_dx_phase)[p.x.dtype]};
  plan->phase_count = p.dx ? 3 : 2;
  set_state(plan, b);
  return Status::kOk;
}

NORMKIT_END_NAMESPACE

#endif  // NORMKIT_DETAIL_SWITCHABLE_PLAN_HPP_
