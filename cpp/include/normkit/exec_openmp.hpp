// An Executor over OpenMP threads. The only header that includes <omp.h>.
#ifndef NORMKIT_EXEC_OPENMP_HPP_
#define NORMKIT_EXEC_OPENMP_HPP_

#include <omp.h>
#include <atomic>

#include "normkit/detail/stack.hpp"
#include "normkit/executor.hpp"

namespace normkit {

namespace executor_detail {
NORMKIT_BEGIN_INLINE

inline int openmp_concurrency(void* context) {
  return *static_cast<const int*>(context);
}

// Whether a worker was seen whose stack is too small for tasks (OMP_STACKSIZE): then all of them are.
inline std::atomic<bool>& small_workers() {
  static std::atomic<bool> seen{false};
  return seen;
}

// Tasks begin .. end-1 of thread `me` of `count`: static, contiguous shares.
struct Share {
  int64_t begin, end;
  Share(int64_t tasks, int64_t count, int64_t me) {
    const int64_t share = tasks / count, rest = tasks % count;
    begin = me * share + (me < rest ? me : rest);
    end = begin + share + (me < rest ? 1 : 0);
  }
};

// One thread, or a call from inside a parallel region, stays on the calling thread and does not enter the
// runtime. A worker without the stack for tasks leaves its share to the calling thread.
inline void openmp_parallel_for(void* context, int64_t tasks, TaskFunction task, void* argument) {
  constexpr int kMost = 1024;
  const int asked = *static_cast<const int*>(context), limit = asked < kMost ? asked : kMost;
  const int threads = tasks < limit ? static_cast<int>(tasks) : limit;
  if (threads <= 1 || small_workers().load(std::memory_order_relaxed) || omp_in_parallel()) {
    task(argument, 0, tasks);
    return;
  }
  bool left[kMost] = {};
  int count = 1;
#pragma omp parallel num_threads(threads)
  {
    const int me = omp_get_thread_num(), team = omp_get_num_threads();
    if (me == 0) count = team;
    if (me == 0 || stack_left() >= kStackBytes) {
      const Share mine(tasks, team, me);
      task(argument, mine.begin, mine.end);
    } else {
      left[me] = true;
      small_workers().store(true, std::memory_order_relaxed);
    }
  }
  if (!small_workers().load(std::memory_order_relaxed)) return;
  for (int i = 1; i < count; ++i) {
    if (!left[i]) continue;
    const Share share(tasks, count, i);
    task(argument, share.begin, share.end);
  }
}

NORMKIT_END_INLINE
}  // namespace executor_detail

NORMKIT_BEGIN_INLINE

// `threads` points to the number of threads to use; it is read at each call and must outlive the executor.
inline Executor openmp_executor(int* threads) noexcept {
  return {threads, &executor_detail::openmp_concurrency, &executor_detail::openmp_parallel_for};
}

NORMKIT_END_INLINE

}  // namespace normkit

#endif  // NORMKIT_EXEC_OPENMP_HPP_
