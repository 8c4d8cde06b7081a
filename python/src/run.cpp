#include "run.hpp"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <thread>

#include "cuda_backend.hpp"
#include "memory.hpp"

namespace normkit::python {
namespace {

using Clock = std::chrono::steady_clock;

constexpr auto kSignalInterval = std::chrono::milliseconds(50);
// Tasks are handed on in pieces of about this much memory (0.1 ms); between two pieces a call can end early.
constexpr int64_t kPieceBytes = 2 * 1024 * 1024;

// An address that tells threads apart.
thread_local char thread_mark;

// PyEval_RestoreThread, for a thread that may be a daemon thread while the interpreter exits: CPython then
// ends the thread by unwinding its stack, past destructors that need the GIL. The thread waits for the end of
// the process instead.
void take_gil(PyThreadState* state) {
  try {
    PyEval_RestoreThread(state);
  } catch (...) {
    for (;;) std::this_thread::sleep_for(std::chrono::hours(1));
  }
}

struct Watch {
  const Plan* plan = nullptr;
  int phase = 0;
  int64_t piece = 1;  // tasks
  std::atomic<bool> stop{false};

  // Only the calling thread, which may take the GIL again, touches these.
  const char* home = &thread_mark;
  PyThreadState* released = nullptr;
  Clock::time_point last = Clock::now();

  void check_signals() {
    const Clock::time_point now = Clock::now();
    if (now - last < kSignalInterval) return;
    take_gil(released);
    if (PyErr_CheckSignals() != 0) stop.store(true, std::memory_order_relaxed);
    released = PyEval_SaveThread();
    last = Clock::now();
  }
};

void run_range(void* argument, int64_t begin, int64_t end) {
  Watch& watch = *static_cast<Watch*>(argument);
  const bool home = watch.home == &thread_mark;
  while (begin < end && !watch.stop.load(std::memory_order_relaxed)) {
    const int64_t next = end - begin > watch.piece ? begin + watch.piece : end;
    watch.plan->run(watch.phase, begin, next);
    begin = next;
    if (home) watch.check_signals();
  }
}

int64_t total_bytes(const Plan::Phase& phase) {
  if (phase.tasks <= 0 || phase.task_bytes <= 0) return 0;
  return phase.task_bytes > INT64_MAX / phase.tasks ? INT64_MAX : phase.tasks * phase.task_bytes;
}

void run_released(const Plan& plan) {
  const Executor* executor = default_executor();
  Watch watch;
  watch.plan = &plan;
  watch.released = PyEval_SaveThread();
  for (int phase = 0; phase < plan.phase_count && !watch.stop.load(std::memory_order_relaxed); ++phase) {
    const Plan::Phase& p = plan.phases[phase];
    watch.phase = phase;
    watch.piece = std::max<int64_t>(1, kPieceBytes / std::max<int64_t>(1, p.task_bytes));
    // The same rule as normkit::execute.
    if (executor != nullptr && executor->parallel_for != nullptr && p.tasks > 1 &&
        total_bytes(p) >= kParallelBytes) {
      executor->parallel_for(executor->context, p.tasks, &run_range, &watch);
    } else {
      run_range(&watch, 0, p.tasks);
    }
  }
  take_gil(watch.released);
  if (watch.stop.load(std::memory_order_relaxed)) nb::raise_python_error();
}

}  // namespace

void run_plan(const Plan& plan) {
  int64_t largest = 0;
  for (int phase = 0; phase < plan.phase_count; ++phase)
    largest = std::max(largest, total_bytes(plan.phases[phase]));
  if (largest >= kReleaseBytes) {
    run_released(plan);
    return;
  }
  for (int phase = 0; phase < plan.phase_count; ++phase) plan.run(phase, 0, plan.phases[phase].tasks);
}

Status enqueue_plan(const Plan& plan, Workspace workspace, uintptr_t stream) {
  // A launch waits where the stream's queue is full, perhaps for a host function that needs the GIL.
  PyThreadState* const released = PyEval_SaveThread();
  const Status status = cuda_backend::execute(plan, workspace, stream);
  take_gil(released);
  return status;
}

Scratch::Scratch(size_t bytes) : bytes_(bytes) {
  if (bytes == 0) return;
  data_ = PyMem_RawMalloc(bytes);
  if (data_ == nullptr && drop_kept_outputs()) data_ = PyMem_RawMalloc(bytes);
  if (data_ == nullptr) {
    PyErr_NoMemory();
    nb::raise_python_error();
  }
}

}  // namespace normkit::python
