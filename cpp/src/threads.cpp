// The compiled library's threads: how many, and an OpenMP executor that a forked child does not hang in.
#include <stdlib.h>
#include <atomic>

#if defined(__linux__)
#  include <sched.h>
#  include <stdio.h>
#endif
#if defined(__unix__) || defined(__APPLE__)
#  include <pthread.h>
#endif
#include <thread>

#include "normkit/normkit.hpp"
#if defined(_OPENMP)
#  include "normkit/exec_openmp.hpp"
#endif

namespace normkit {
namespace {

int positive_from_environment(const char* name) {
  const char* text = getenv(name);
  const long value = text != nullptr ? strtol(text, nullptr, 10) : 0;
  return value > 0 && value <= 1024 ? static_cast<int>(value) : 0;
}

// Processors that this process may use: its affinity mask, and the quota of its control group (containers).
int usable_processors() {
  int count = static_cast<int>(std::thread::hardware_concurrency());
#if defined(__linux__)
  cpu_set_t set;
  CPU_ZERO(&set);
  if (sched_getaffinity(0, sizeof(set), &set) == 0 && CPU_COUNT(&set) > 0) count = CPU_COUNT(&set);
  if (FILE* file = fopen("/sys/fs/cgroup/cpu.max", "r")) {
    long quota = 0, period = 0;
    if (fscanf(file, "%ld %ld", &quota, &period) == 2 && quota > 0 && period > 0) {
      const long whole = (quota + period - 1) / period;
      if (whole < count) count = static_cast<int>(whole);
    }
    fclose(file);
  }
#endif
  return count > 0 ? count : 1;
}

std::atomic<int>& thread_count() {
  static std::atomic<int> count{[] {
    if (const int own = positive_from_environment("NORMKIT_NUM_THREADS")) return own;
    if (const int openmp = positive_from_environment("OMP_NUM_THREADS")) return openmp;
    return usable_processors();
  }()};
  return count;
}

#if defined(_OPENMP)

// After a fork the child has the runtime's memory but not its threads, and would wait for them for ever. So a
// child whose parent had started them runs on its own thread only.
std::atomic<bool> threads_started{false};
std::atomic<bool> threads_lost{false};

void note_start() {
  if (threads_started.exchange(true)) return;
#  if defined(__unix__) || defined(__APPLE__)
  pthread_atfork(nullptr, nullptr, [] { threads_lost.store(true); });
#  endif
}

void parallel_for(void*, int64_t tasks, TaskFunction task, void* argument) {
  int threads = get_num_threads();
  if (threads <= 1 || tasks <= 1 || threads_lost.load(std::memory_order_relaxed))
    return task(argument, 0, tasks);
  note_start();
  executor_detail::openmp_parallel_for(&threads, tasks, task, argument);
}

#else

void parallel_for(void*, int64_t tasks, TaskFunction task, void* argument) {
  task(argument, 0, tasks);
}

#endif

int concurrency(void*) {
  return get_num_threads();
}

}  // namespace

int get_num_threads() noexcept {
  return thread_count().load(std::memory_order_relaxed);
}

void set_num_threads(int threads) noexcept {
  if (threads >= 1) thread_count().store(threads < 1024 ? threads : 1024, std::memory_order_relaxed);
}

inline namespace compiled {
const Executor* default_executor() noexcept {
  static constexpr Executor kExecutor = {nullptr, &concurrency, &parallel_for};
  return &kExecutor;
}
}  // namespace compiled

}  // namespace normkit
