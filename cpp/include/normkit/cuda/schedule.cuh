// From a plan's problem to kernels: which of them, over how many blocks, with what scratch. T is the
// elements' type.
#ifndef NORMKIT_CUDA_SCHEDULE_CUH_
#define NORMKIT_CUDA_SCHEDULE_CUH_

#include "normkit/cuda/launch.cuh"
#include "normkit/cuda/packed.cuh"
#include "normkit/cuda/slabs.cuh"
#include "normkit/cuda/tiles.cuh"

NORMKIT_BEGIN_NAMESPACE
namespace gpu {

// Which kernel of a kind: how elements lie, and how many steps a warp's registers hold.
template <Spacing kElements, int kStepCount>
struct Variant {
  static constexpr Spacing kSpacing = kElements;
  static constexpr int kSteps = kStepCount;
};
// Side by side; of double elements there is only the general kind.
template <typename T>
constexpr Spacing kStraight = sizeof(T) < sizeof(double) ? Spacing::kOne : Spacing::kAny;

template <typename T, typename Run>
inline void with_variant(bool straight, int longest, const Run& run) {
  if (!straight || kStraight<T> == Spacing::kAny)
    run(Variant<Spacing::kAny, kBlockSteps>());
  else if (longest <= kStepsAtOnce * kLanes)
    run(Variant<kStraight<T>, kStepsAtOnce>());
  else
    run(Variant<kStraight<T>, kBlockSteps>());
}

// Whether every block, or cut, of a set lies side by side in the operand, and parameters suit that.
// `run`: what they are cut from.
inline bool is_straight(const Operand& operand, int64_t run) {
  return !operand || lies_straight(operand.inner, run);
}
inline bool is_simple(const RowsProblem& p, const Operand& parameter) {
  return !parameter || has_two_axes(parameter.inner) || parameter.inner.constant(0, p.n);
}
inline bool is_straight(const RowsForward& p, int64_t run) {
  return is_straight(p.x, run) && is_straight(p.y, run) && is_simple(p, p.weight) && is_simple(p, p.bias);
}
inline bool is_straight(const AddNormForward& p, int64_t run) {
  return is_straight(p.rows, run) && is_straight(p.x, run) && is_straight(p.residual, run) &&
         is_simple(p.rows, p.residual_bias);
}
inline bool is_straight(const RowsBackward& p, int64_t run) {
  return is_straight(p.x, run) && is_straight(p.dy, run) && is_straight(p.dx, run) &&
         is_straight(p.dsum, run) && is_simple(p, p.weight);
}

inline bool fits_team(const SetBlocks& sets) {
  return sets.fold == 1 && sets.count <= kMaxTeam;
}
// Teams of one warp share a thread block.
inline int team_blocks(const SetBlocks& sets) {
  return sets.count == 1 ? kWarps : 1;
}
inline int team_threads(const SetBlocks& sets) {
  return kLanes * static_cast<int>(sets.count == 1 ? kWarps : sets.count);
}

// Of warps that merge the partials of a set: these are chains of divisions.
inline int merging_team(const SetBlocks& sets) {
  return sets.count > kLanes ? kWarps : 1;
}

// Whether all sets have the same weight and bias.
inline bool shares_parameters(const RowsForward& p) {
  return (!p.weight || p.weight.outer.count == 0) && (!p.bias || p.bias.outer.count == 0);
}

// From so many sets on, one thread block to a set keeps a device busy; fewer large ones are spread over more.
constexpr int64_t kMinSlabs = 64;

// Whether the kernels know this problem's statistics.
inline bool has_kernels(const RowsProblem& p) {
  return p.statistic == Statistic::kMoments || p.statistic == Statistic::kMeanSquare ||
         (p.statistic == Statistic::kNorm && p.power == 2.0);
}

// Whether the sets are columns for columns.cuh.
template <typename T>
inline bool takes_columns(const RowsForward& p, const ColumnsShape& shape) {
  return sizeof(Compute<T>) == sizeof(float) && suits_forward_columns(p, shape) && is_simple(p, p.weight) &&
         is_simple(p, p.bias);
}
template <typename T>
inline bool takes_columns(const RowsBackward& p, const ColumnsShape& shape) {
  return sizeof(Compute<T>) == sizeof(float) && !has_row_parameters(p) && suits_backward_columns(p, shape) &&
         is_simple(p, p.weight);
}

// ---- forward ----

// Pieces of a set for one warp each: within runs and within what shares a weight, where these are long
// enough.
inline Blocks cuts_of(const RowsProblem& p) {
  const int64_t unit = p.segment != 0 ? p.segment : p.run;
  if (unit < kLanes) return Blocks(p);
  return {p.n, unit, unit < kBlock ? static_cast<int>(unit) : kBlock};
}
// Of a column's rows.
inline Blocks cuts_of(const ColumnsShape& shape) {
  constexpr int kRows = 256;
  return {shape.rows, shape.rows, shape.rows < kRows ? static_cast<int>(shape.rows) : kRows};
}

template <typename Source>
inline void forward_team(Launcher& launcher, const typename Source::Problem& problem, const RowsForward& p,
                         const SetBlocks& sets, RowStatistics* ready = nullptr) {
  if constexpr (Source::kSpacing == Spacing::kOne) {
    if (sets.count == 1 && p.rows > Launcher::few_rows() && shares_parameters(p))
      return with_variant<typename Source::Type>(true, sets.blocks.length, [&](auto variant) {
        if constexpr (variant.kSpacing == Spacing::kOne)
          launcher.run(&forward_packed<Source, variant.kSteps>, p.rows,
                       packed_warps(variant.kSteps) * packed_rows(variant.kSteps),
                       packed_warps(variant.kSteps) * kLanes, problem, ready);
      });
  }
  with_variant<typename Source::Type>(
      Source::kSpacing == kStraight<typename Source::Type>, sets.blocks.length, [&](auto variant) {
        if constexpr (variant.kSpacing == Source::kSpacing)
          launcher.run(&forward_sets<Source, variant.kSteps>, p.rows, team_blocks(sets), team_threads(sets),
                       problem, static_cast<int>(sets.count), ready);
      });
}

// False: not for slabs.cuh, nothing is launched.
template <typename Source>
inline bool forward_in_slabs(Launcher& launcher, const typename Source::Problem& problem,
                             const RowsForward& p, const SetBlocks& sets) {
  if constexpr (Source::kSpacing == Spacing::kOne) {
    if (p.rows < kMinSlabs || sets.fold != 1 || !is_straight(problem, sets.blocks.unit())) return false;
    const int64_t bytes = ForwardSlab<typename Source::Element>::bytes(sets.n, sets.count);
    if (bytes > Launcher::shared_memory()) return false;
    launcher.run_with_memory(bytes, &forward_slabs<Source>, p.rows, 1, kSlabThreads, problem);
    return true;
  } else {
    return false;
  }
}

// `p` is the problem's rows; p.ready receives the statistics.
template <typename Source>
inline void forward_in_phases(Launcher& launcher, typename Source::Problem problem, RowsForward& p,
                              const SetBlocks& sets, const ColumnsShape* columns) {
  using T = typename Source::Type;
  using C = Compute<T>;
  Moments<C>* partials = launcher.scratch<Moments<C>>(sets.columns * sets.count);
  RowStatistics* ready = launcher.scratch<RowStatistics>(p.rows);
  const int64_t tasks = sets.columns * sets.count;
  if constexpr (sizeof(C) == sizeof(float)) {
    if (columns != nullptr)
      launcher.run(&block_moments_of_columns<T>, columns->outer * sets.count * Strip::strips(*columns), 1,
                   kColumnThreads, p, *columns, sets, partials);
  }
  if (columns == nullptr)
    launcher.run(&block_moments_of_sets<Source>, tasks, kWarps, kThreads, problem, sets, partials);
  const int team = merging_team(sets);
  launcher.run(&statistics_of_sets<T>, p.rows, team == 1 ? kWarps : 1, kThreads, p, sets, team, partials,
               ready);
  p.ready = ready;
}

template <typename Source>
inline void apply_pieces(Launcher& launcher, const typename Source::Problem& problem, const RowsForward& p) {
  const Blocks cuts = cuts_of(p);
  launcher.run(&apply_sets<Source>, p.rows * cuts.count(), kWarps, kThreads, problem, cuts);
}

template <typename T>
inline void apply(Launcher& launcher, const RowsForward& p, const ColumnsShape* columns) {
  if (!p.y) return;
  if constexpr (sizeof(Compute<T>) == sizeof(float)) {
    if (columns != nullptr) {
      const Blocks cuts = cuts_of(*columns);
      return launcher.run(&apply_columns_of<T>, columns->outer * cuts.count() * Strip::strips(*columns), 1,
                          kColumnThreads, p, *columns, cuts);
    }
  }
  if (is_straight(p, cuts_of(p).unit()))
    apply_pieces<PlainSource<T, kStraight<T>>>(launcher, p, p);
  else
    apply_pieces<PlainSource<T, Spacing::kAny>>(launcher, p, p);
}

template <typename T>
inline void forward_in_registers(Launcher& launcher, const RowsForward& p, const SetBlocks& sets,
                                 RowStatistics* ready = nullptr) {
  if (is_straight(p, sets.blocks.unit()))
    forward_team<PlainSource<T, kStraight<T>>>(launcher, p, p, sets, ready);
  else
    forward_team<PlainSource<T, Spacing::kAny>>(launcher, p, p, sets, ready);
}

// Into p.ready: the statistics of x.
template <typename T>
inline void statistics_in_phases(Launcher& launcher, RowsForward& p, const SetBlocks& sets,
                                 const ColumnsShape* columns) {
  if (is_straight(p.x, sets.blocks.unit()))
    forward_in_phases<PlainSource<T, kStraight<T>>>(launcher, p, p, sets, columns);
  else
    forward_in_phases<PlainSource<T, Spacing::kAny>>(launcher, p, p, sets, columns);
}

template <typename T>
inline void forward(Launcher& launcher, RowsForward p) {
  if (p.n == 0) return launcher.run(&empty_sets<T>, p.rows, kThreads, kThreads, p);
  p.ready = nullptr;
  const ColumnsShape shape(p);
  const ColumnsShape* columns = takes_columns<T>(p, shape) ? &shape : nullptr;
  const SetBlocks sets = forward_blocks(p);
  if (p.given) return apply<T>(launcher, p, columns);
  if constexpr (sizeof(Compute<T>) == sizeof(float)) {
    if (columns != nullptr && shape.fold == 1 && sets.count == 1)
      return with_variant<T>(true, sets.blocks.length, [&](auto variant) {
        launcher.run(&forward_columns<T, variant.kSteps>, shape.outer * Strip::strips(shape), 1,
                     kColumnThreads, p, shape, sets.blocks);
      });
  }
  if (columns == nullptr && fits_team(sets)) return forward_in_registers<T>(launcher, p, sets);
  if (columns == nullptr && forward_in_slabs<PlainSource<T, kStraight<T>>>(launcher, p, p, sets)) return;
  statistics_in_phases<T>(launcher, p, sets, columns);
  apply<T>(launcher, p, columns);
}

template <typename T>
inline void forward(Launcher& launcher, RunningUpdate u) {
  const bool updates = !u.forward.given && (u.running_mean || u.running_var);
  u.forward.moments = updates ? launcher.scratch<RowMoments>(u.forward.rows) : nullptr;
  u.forward.moments_mask = -1;
  forward<T>(launcher, u.forward);
  if (updates && u.forward.n >= 2)  // else there is no unbiased variance
    launcher.run(&update_channels<T>, u.channels, kWarps, kThreads, u);
}

template <typename T, typename E>
inline void add_forward(Launcher& launcher, AddNormForward problem) {
  RowsForward& p = problem.rows;
  p.ready = nullptr;
  const SetBlocks sets = forward_blocks(p);
  if (fits_team(sets)) {
    if (is_straight(problem, sets.blocks.unit()))
      return forward_team<SumSource<T, E, kStraight<T>>>(launcher, problem, p, sets);
    return forward_team<SumSource<T, E, Spacing::kAny>>(launcher, problem, p, sets);
  }
  if (forward_in_slabs<SumSource<T, E, kStraight<T>>>(launcher, problem, p, sets)) return;
  if constexpr (sizeof(T) == sizeof(E)) {
    const Blocks cuts = cuts_of(p);
    launcher.run(&add_sets<T>, p.rows * cuts.count(), kWarps, kThreads, problem, cuts);
    forward<T>(launcher, p);
  } else {
    forward_in_phases<SumSource<T, E, Spacing::kAny>>(launcher, problem, p, sets, nullptr);
    apply_pieces<SumSource<T, E, Spacing::kAny>>(launcher, problem, p);
  }
}

template <typename T>
inline void forward(Launcher& launcher, const AddNormForward& problem) {
  if constexpr (sizeof(T) < sizeof(float)) {
    if (problem.unrounded) return add_forward<T, float>(launcher, problem);
  }
  add_forward<T, T>(launcher, problem);
}

// ---- backward ----

template <typename T>
inline void sum_panels_of_rows(Launcher& launcher, const RowsBackward& p, const Compute<T>* sums,
                               int64_t slots) {
  launcher.run(slots == 1 ? &sum_panels<T, 1> : &sum_panels<T, kTilesOfPanel>, divide_up(p.n, kLanes), 1,
               kSquareThreads, p, sums);
}

// Tiles whose sums are chained go to at most so many thread blocks, each of which takes one after the other.
constexpr int64_t kChainBlocks = 1024;

template <typename T>
inline void backward_parameters_of_rows(Launcher& launcher, const RowsBackward& p) {
  using C = Compute<T>;
  if (!p.dweight && !p.dbias) return;
  const int64_t panels = divide_up(p.rows, kPanelRows), strips = divide_up(p.n, kLanes * kPerLane);
  C* sums = launcher.scratch<C>(2 * panels * p.n);
  const bool straight = is_straight(p.x, p.n) && is_straight(p.dy, p.n);
  launcher.run(straight ? &panel_sums<T, kStraight<T>> : &panel_sums<T, Spacing::kAny>, panels * strips,
               kWarps, kThreads, p, sums);
  sum_panels_of_rows<T>(launcher, p, sums, 1);
}

// Statistics where they are not given, or not as they are applied; afterwards p.ready has them.
template <typename T>
inline void prepare_statistics(Launcher& launcher, RowsBackward& p) {
  p.ready = nullptr;
  if (p.rstd && sizeof(T) < sizeof(double)) return;
  RowStatistics* ready;
  if (p.rstd) {
    ready = launcher.scratch<RowStatistics>(p.rows);
  } else {
    RowsForward f;
    static_cast<RowsProblem&>(f) = p;
    f.mean = f.rstd = Operand();
    const ColumnsShape shape(f);
    const ColumnsShape* columns = takes_columns<T>(f, shape) ? &shape : nullptr;
    const SetBlocks sets = forward_blocks(f);
    if (columns == nullptr && fits_team(sets)) {
      ready = launcher.scratch<RowStatistics>(p.rows);
      forward_in_registers<T>(launcher, f, sets, ready);
    } else {
      statistics_in_phases<T>(launcher, f, sets, columns);
      ready = const_cast<RowStatistics*>(f.ready);
    }
  }
  launcher.run(&saved_statistics<T>, p.rows, kWarps, kThreads, p, ready);
  p.ready = ready;
}

// dy and x are read once. False: rows are too long, do not lie straight, or want more shared memory.
template <typename T>
inline bool backward_in_tiles(Launcher& launcher, RowsBackward p, bool wants_parameters) {
  if constexpr (sizeof(T) < sizeof(double)) {
    using C = Compute<T>;
    const SetBlocks sets = backward_blocks(p);
    if (!fits_team(sets) || !is_straight(p, sets.blocks.unit())) return false;
    const TileShape shape(p, static_cast<int>(sets.count));
    const int64_t bytes = wants_parameters ? shape.bytes<C>() : 0;
    if (bytes > Launcher::shared_memory()) return false;
    if (p.ready == nullptr) prepare_statistics<T>(launcher, p);
    PanelSlots<C> slots = {};
    const bool chained = shape.tiles > Launcher::most_slots() / (2 * p.n);
    if (wants_parameters) {
      slots.sums = launcher.scratch<C>(2 * p.n * (chained ? shape.panels : shape.tiles));
      if (chained) {
        slots.done = launcher.zeros<unsigned>(shape.panels + 1);
        slots.ticket = slots.done + shape.panels;
      }
    }
    with_variant<T>(true, sets.blocks.length, [&](auto variant) {
      if constexpr (variant.kSpacing == Spacing::kOne)
        launcher.run_with_memory(bytes, &backward_tiles<T, variant.kSteps>,
                                 slots.chained() && shape.tiles > kChainBlocks ? kChainBlocks : shape.tiles,
                                 1, shape.threads(), p, shape, slots);
    });
    if (wants_parameters)
      sum_panels_of_rows<T>(launcher, p, static_cast<const C*>(slots.sums), chained ? 1 : kTilesOfPanel);
    return true;
  }
  return false;
}

// After prepare_statistics. channel_sums: of each channel of each sample, where they are wanted, or null.
template <typename T>
inline void backward_in_phases(Launcher& launcher, const RowsBackward& p, Sums* channel_sums) {
  using C = Compute<T>;
  const SetBlocks sets = backward_blocks(p);
  const ColumnsShape shape(p);
  const bool columns = takes_columns<T>(p, shape);
  GradPartial* partials = launcher.scratch<GradPartial>(sets.columns * sets.count);
  RowGrad<C>* grads = launcher.scratch<RowGrad<C>>(p.rows);
  if (!p.sum_dy) {
    if constexpr (sizeof(C) == sizeof(float)) {
      if (columns)
        launcher.run(&grad_sums_of_columns<T>, shape.outer * sets.count * Strip::strips(shape), 1,
                     kColumnThreads, p, shape, sets, partials);
    }
    if (!columns)
      launcher.run(is_straight(p, sets.blocks.unit()) ? &grad_sums_of_sets<T, kStraight<T>>
                                                      : &grad_sums_of_sets<T, Spacing::kAny>,
                   sets.columns * sets.count, kWarps, kThreads, p, sets, partials);
  }
  launcher.run(&gradients_of_sets<T>, p.rows, kWarps, kThreads, p, sets,
               static_cast<const GradPartial*>(partials), grads, channel_sums);
  if (!p.dx) return;
  if constexpr (sizeof(C) == sizeof(float)) {
    if (columns) {
      const Blocks cuts = cuts_of(shape);
      return launcher.run(&apply_gradients_to_columns<T>, shape.outer * cuts.count() * Strip::strips(shape),
                          1, kColumnThreads, p, shape, cuts, static_cast<const RowGrad<float>*>(grads));
    }
  }
  const Blocks cuts = cuts_of(p);
  launcher.run(is_straight(p, cuts.unit()) ? &apply_gradients_to_sets<T, kStraight<T>>
                                           : &apply_gradients_to_sets<T, Spacing::kAny>,
               p.rows * cuts.count(), kWarps, kThreads, p, cuts, static_cast<const RowGrad<C>*>(grads));
}

// The same in one kernel, which reads dy and x once. False: not for slabs.cuh, nothing is launched.
template <typename T>
inline bool backward_in_slabs(Launcher& launcher, const RowsBackward& p, Sums* channel_sums) {
  if constexpr (sizeof(T) < sizeof(double)) {
    const SetBlocks sets = backward_blocks(p);
    if (p.rows < kMinSlabs || !p.dx || p.given || p.sum_dy || !is_straight(p, sets.blocks.unit()) ||
        takes_columns<T>(p, ColumnsShape(p)))
      return false;
    const int64_t count = sets.fold * sets.count, bytes = BackwardSlab<T>::bytes(2 * p.n, count);
    if (bytes > Launcher::shared_memory()) return false;
    const int warps = static_cast<int>(count < kSlabWarps ? count : kSlabWarps);
    with_variant<T>(true, sets.blocks.length, [&](auto variant) {
      if constexpr (variant.kSpacing == Spacing::kOne)
        launcher.run_with_memory(bytes, &backward_slabs<T, variant.kSteps>, p.rows, 1, kLanes * warps, p,
                                 sets, channel_sums);
    });
    return true;
  }
  return false;
}

// Of parameters that are numbers for each channel.
template <typename T>
inline void backward_parameters_of_channels(Launcher& launcher, const RowsBackward& p, const Sums* sums,
                                            int64_t samples) {
  if (p.dweight || p.dbias) launcher.run(&sum_samples<T>, p.channels, kWarps, kThreads, p, sums, samples);
}

template <typename T>
inline void backward(Launcher& launcher, RowsBackward p) {
  const bool wants_parameters = p.dweight || p.dbias;
  p.ready = nullptr;  // and with it what the CPU's phases would use
  p.ready_mask = -1;
  if (p.rows == 0 || p.n == 0) {  // gradients of parameters without rows
    p.rows = 0;
    if (has_row_parameters(p)) return backward_parameters_of_rows<T>(launcher, p);
    return backward_parameters_of_channels<T>(launcher, p, nullptr, 0);
  }
  if (!has_row_parameters(p)) {
    const int64_t all = p.rows * p.segments;
    Sums* sums = wants_parameters ? launcher.scratch<Sums>(all) : nullptr;
    prepare_statistics<T>(launcher, p);
    if (!backward_in_slabs<T>(launcher, p, sums)) backward_in_phases<T>(launcher, p, sums);
    return backward_parameters_of_channels<T>(launcher, p, sums, all / p.channels);
  }
  const SetBlocks sets = backward_blocks(p);
  if (backward_in_tiles<T>(launcher, p, wants_parameters)) return;
  // dx comes last: it may lie where dy or x does, and the parameters' sums read both again.
  const bool team = fits_team(sets);
  if (wants_parameters || !team) prepare_statistics<T>(launcher, p);
  backward_parameters_of_rows<T>(launcher, p);
  if (!p.dx || (wants_parameters && backward_in_tiles<T>(launcher, p, false))) return;
  if (!team) return backward_in_phases<T>(launcher, p, nullptr);
  launcher.run(&backward_sets_in_registers<T>, p.rows, team_blocks(sets), team_threads(sets), p,
               static_cast<int>(sets.count));
}

// ---- a plan ----

// Of the element type T; false: there are no kernels for it.
template <typename T>
inline bool run_plan(Launcher& launcher, const Plan& plan) {
  const auto state = [&](auto problem) {
    memcpy(static_cast<void*>(&problem), plan.state, sizeof(problem));
    return problem;
  };
  switch (plan.kind) {
    case PlanKind::kRowsForward: {
      const RowsForward p = state(RowsForward());
      if (!has_kernels(p)) return false;
      forward<T>(launcher, p);
      return true;
    }
    case PlanKind::kRunningUpdate: {
      const RunningUpdate u = state(RunningUpdate());
      if (!has_kernels(u.forward)) return false;
      forward<T>(launcher, u);
      return true;
    }
    case PlanKind::kAddNorm:
      forward<T>(launcher, state(AddNormForward()));
      return true;
    case PlanKind::kRowsBackward: {
      const RowsBackward p = state(RowsBackward());
      if (!has_kernels(p)) return false;
      backward<T>(launcher, p);
      return true;
    }
    case PlanKind::kOther:
      break;
  }
  return false;
}

}  // namespace gpu
NORMKIT_END_NAMESPACE

#endif  // NORMKIT_CUDA_SCHEDULE_CUH_
