// An Executor over OpenMP threads. The only header that includes <omp.h>.
#ifndef NORMKIT_EXEC_OPENMP_HPP_
#define NORMKIT_EXEC_OPENMP_HPP_

#include <omp.h>

#include "normkit/executor.hpp"

namespace normkit {

namespace executor_detail {
NORMKIT_BEGIN_INLINE

inline int openmp_concurrency(void* context) {
  return *static_cast<const int*>(context);
}

// Static, contiguous shares. One thread, or a call from inside a parallel region, stays on the calling thread
// and does not enter the runtime.
inline void openmp_parallel_for(void* context, int64_t tasks, TaskFunction task, void* argument) {
  const int limit = *static_cast<const int*>(context);
  const int threads = tasks < limit ? static_cast<int>(tasks) : limit;
  if (threads <= 1 || omp_in_parallel()) {
    task(argument, 0, tasks);
    return;
  }
#pragma omp parallel num_threads(threads)
  {
    const int64_t count = omp_get_num_threads(), me = omp_get_thread_num();
    const int64_t share = tasks / count, rest = tasks % count;
    const int64_t begin = me * share + (me < rest ? me : rest);
    task(argument, begin, begin + share + (me < rest ? 1 : 0));
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
