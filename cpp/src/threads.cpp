// The compiled library's threads: how many, and an OpenMP executor that a forked child does not hang in.
#include <stdio.h>
#include <stdlib.h>
#include <atomic>

#if defined(__linux__)
#  include <sys/stat.h>
#endif
#if defined(__unix__) || defined(__APPLE__)
#  include <pthread.h>
#endif

#include "normkit/normkit.hpp"
#include "processors.hpp"
#if defined(_OPENMP)
#  include "normkit/exec_openmp.hpp"
#endif

namespace normkit {
namespace {

constexpr int kMaxThreads = 1024;

// The number that `text` begins with, and what follows it; 0 if it is no number of threads.
int leading_threads(const char* text, const char** rest) {
  char* end = nullptr;
  const long value = strtol(text, &end, 10);
  *rest = end;
  return value > 0 && value <= kMaxThreads ? static_cast<int>(value) : 0;
}

// OMP_NUM_THREADS is OpenMP's, which knows more forms ("4,2") than are read here: what is not understood is
// passed over. 0: it says nothing.
int threads_of_openmp() {
  const char* const text = getenv("OMP_NUM_THREADS");
  const char* rest;
  return text != nullptr ? leading_threads(text, &rest) : 0;
}

// NORMKIT_NUM_THREADS: a number alone, or an error.
struct OwnThreads {
  int count = 0;  // 0: it says nothing
  char error[128] = "";

  OwnThreads() {
    const char* const text = getenv("NORMKIT_NUM_THREADS");
    if (text == nullptr || text[0] == '\0') return;
    const char* rest;
    count = leading_threads(text, &rest);
    if (count > 0 && rest[0] == '\0') return;
    count = 0;
    snprintf(error, sizeof(error),
             "NORMKIT_NUM_THREADS is '%.40s'; it should be a number of threads, 1 to %d", text, kMaxThreads);
  }
};

const OwnThreads& own_threads() {
  static const OwnThreads own;
  return own;
}

std::atomic<int>& thread_count() {
  static std::atomic<int> count{[] {
    if (const int own = own_threads().count) return own;
    if (const int openmp = threads_of_openmp()) return openmp;
    const int usable = usable_processors(), quota = processor_quota();
    return quota > 0 && quota < usable ? quota : usable;
  }()};
  return count;
}

#if defined(_OPENMP)

// After a fork the child has the runtime's memory but not its threads, and would wait for them for ever. The
// runtime is shared with everybody in the process, and does not tell whether it has threads. So a child runs
// on its own thread only, unless its parent had none but the forking one.
std::atomic<bool> threads_at_fork{false};
std::atomic<bool> threads_lost{false};

#  if defined(__unix__) || defined(__APPLE__)
bool process_has_one_thread() {
#    if defined(__linux__)
  struct stat threads;  // a folder's links: its own two, and one from each folder in it
  return stat("/proc/self/task", &threads) == 0 && threads.st_nlink == 3;
#    else
  return false;
#    endif
}

// When the library is loaded: before anybody can fork who uses it later.
[[maybe_unused]] const int watching_forks =
    pthread_atfork([] { threads_at_fork.store(!process_has_one_thread()); }, nullptr,
                   [] {
                     if (threads_at_fork.load()) threads_lost.store(true);
                   });
#  endif

void parallel_for(void*, int64_t tasks, TaskFunction task, void* argument) {
  int threads = get_num_threads();
  if (threads <= 1 || tasks <= 1 || threads_lost.load(std::memory_order_relaxed))
    return task(argument, 0, tasks);
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
  if (threads >= 1)
    thread_count().store(threads < kMaxThreads ? threads : kMaxThreads, std::memory_order_relaxed);
}

const char* num_threads_error() noexcept {
  return own_threads().error[0] != '\0' ? own_threads().error : nullptr;
}

inline namespace compiled {
const Executor* default_executor() noexcept {
  static constexpr Executor kExecutor = {nullptr, &concurrency, &parallel_for};
  return &kExecutor;
}
}  // namespace compiled

}  // namespace normkit
