// Who runs the work: an operation is a Plan of at most three phases of independent tasks.
//
// Phases run one after the other; the tasks of a phase run in any order, on any thread, in any grouping. The
// result's bits do not depend on any of it. An Executor hands tasks to threads; an engine with a scheduler of
// its own can take the Plan and call run() itself.
#ifndef NORMKIT_EXECUTOR_HPP_
#define NORMKIT_EXECUTOR_HPP_

#pragma push_macro("Status")  // X11 has one
#undef Status

#include <stddef.h>
#include <stdint.h>

#include "normkit/detail/config.hpp"
#include "normkit/types.hpp"

namespace normkit {

// The stack that a thread needs which calls an operation or runs its tasks: the deepest (the gradient of
// adaptive_instance_norm in double) takes 114 KiB, most take 30 to 90. A call on a smaller stack overruns it;
// nothing here looks. Only where OpenMP's workers have less (OMP_STACKSIZE), openmp_executor and the compiled
// library keep the tasks to the calling thread.
constexpr size_t kStackBytes = 128 * 1024;

// Runs tasks begin .. end-1. Never throws.
using TaskFunction = void (*)(void* argument, int64_t begin, int64_t end);

// Two function pointers and a context. A default-constructed Executor runs everything on the calling thread.
struct Executor {
  void* context = nullptr;
  // How many threads may run tasks at once (a hint for splitting).
  int (*concurrency)(void* context) = nullptr;
  // Calls task(argument, b, e) on ranges that cover 0 .. tasks-1 exactly once and returns when all are done.
  void (*parallel_for)(void* context, int64_t tasks, TaskFunction task, void* argument) = nullptr;
  NORMKIT_DEFAULT_CONSTRUCTOR(Executor)
};

// What a plan's state is, for a backend with kernels of its own (cuda/cuda.hpp).
enum class PlanKind : int32_t { kOther = 0, kRowsForward, kRowsBackward, kAddNorm, kRunningUpdate };

// A validated operation, ready to run: holds pointers to the caller's arrays, owns nothing, may be copied.
struct Plan {
  static constexpr int kMaxPhases = 3;
  struct Phase {
    int64_t tasks = 0;
    int64_t task_bytes = 0;  // memory that one task touches, about: tells whether threads are worth waking
    void (*function)(const void* state, int64_t begin, int64_t end) = nullptr;
    NORMKIT_DEFAULT_CONSTRUCTOR(Phase)
  };

  int32_t phase_count = 0;
  PlanKind kind = PlanKind::kOther;
  DType elements = DType::kF32;  // of a kind that is not kOther: x's
  Phase phases[kMaxPhases];
  alignas(8) unsigned char state[4608];
  NORMKIT_DEFAULT_CONSTRUCTOR(Plan)

  // Runs tasks begin .. end-1 of one phase on the calling thread.
  NORMKIT_INLINE void run(int phase, int64_t begin, int64_t end) const noexcept {
    if (begin < end) phases[phase].function(state, begin, end);
  }
};

// A phase that touches less memory than this runs on the calling thread: waking another one costs more.
constexpr int64_t kParallelBytes = 256 * 1024;

namespace executor_detail {
NORMKIT_BEGIN_INLINE

struct PhaseCall {
  const Plan* plan;
  int phase;
};

inline void run_phase_range(void* argument, int64_t begin, int64_t end) {
  const PhaseCall* call = static_cast<const PhaseCall*>(argument);
  call->plan->run(call->phase, begin, end);
}

NORMKIT_END_INLINE
}  // namespace executor_detail

NORMKIT_BEGIN_INLINE

// Runs every phase of the plan; executor == nullptr means the calling thread.
inline void execute(const Plan& plan, const Executor* executor = nullptr) noexcept {
  for (int phase = 0; phase < plan.phase_count; ++phase) {
    const Plan::Phase& p = plan.phases[phase];
    const bool parallel = executor != nullptr && executor->parallel_for != nullptr && p.tasks > 1 &&
                          p.task_bytes >= (kParallelBytes + p.tasks - 1) / p.tasks;
    if (parallel) {
      executor_detail::PhaseCall call{&plan, phase};
      executor->parallel_for(executor->context, p.tasks, &executor_detail::run_phase_range, &call);
    } else {
      plan.run(phase, 0, p.tasks);
    }
  }
}

NORMKIT_END_INLINE

// What an operation uses when the caller names no executor: the calling thread for header-only use, OpenMP
// with get_num_threads() threads for the compiled library. OpenMP starts as many for each thread that calls:
// a program with threads of its own passes nullptr (the calling thread) or an executor of theirs.
NORMKIT_BEGIN_ENTRY_POINTS
#if defined(NORMKIT_COMPILED)
NORMKIT_ENTRY const Executor* default_executor() noexcept;
#else
inline const Executor* default_executor() noexcept {
  return nullptr;
}
#endif
NORMKIT_END_ENTRY_POINTS

}  // namespace normkit

// Every operation has the same three entry points:
//
// - name_workspace_bytes: scratch that the operation needs (0: none), from the shape and which outputs are
//   asked for. Of shapes with more than kMaxAxes axes also room for those that do not merge; where all but
//   kMaxAxes do, the call does without.
// - name_plan: checks the arguments and prepares the operation; the plan uses the workspace until its last
//   phase has run.
// - name: plans and executes.
//
// They never throw, allocate or print; on anything but Status::kOk nothing was written (types.hpp).
#define NORMKIT_DECLARE_OPERATION(name, Shape, Args)                                                        \
  [[nodiscard]] NORMKIT_ENTRY size_t name##_workspace_bytes(const Shape& shape, const Args& args) noexcept; \
  [[nodiscard]] NORMKIT_ENTRY Status name##_plan(const Shape& shape, const Args& args, Workspace workspace, \
                                                 Plan* plan) noexcept;                                      \
  NORMKIT_BEGIN_CALLS                                                                                       \
  [[nodiscard]] inline Status name(const Shape& shape, const Args& args, Workspace workspace = {},          \
                                   const Executor* executor = default_executor()) noexcept {                \
    Plan plan;                                                                                              \
    const Status status = name##_plan(shape, args, workspace, &plan);                                       \
    if (status == Status::kOk) execute(plan, executor);                                                     \
    return status;                                                                                          \
  }                                                                                                         \
  NORMKIT_END_CALLS

#pragma pop_macro("Status")

#endif  // NORMKIT_EXECUTOR_HPP_
