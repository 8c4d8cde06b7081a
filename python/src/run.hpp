// Runs a plan from Python: when the GIL is let go, and how Ctrl-C ends a long call.
#ifndef NORMKIT_PYTHON_RUN_HPP_
#define NORMKIT_PYTHON_RUN_HPP_

#include "errors.hpp"
#include "normkit/executor.hpp"

namespace normkit::python {

// A call that touches less memory keeps the GIL: handing it over and back takes longer than other threads
// could gain.
constexpr int64_t kReleaseBytes = 64 * 1024;

// Runs all phases with default_executor(). Needs the GIL and returns with it. If a signal handler raises
// (Ctrl-C), the tasks not yet begun are left out and the exception is thrown: outputs are then partly
// written.
void run_plan(const Plan& plan);

// Enqueues the plan's kernels on a stream of the current CUDA device, and returns.
Status enqueue_plan(const Plan& plan, Workspace workspace, uintptr_t stream);

// Scratch memory of one call.
class Scratch {
 public:
  explicit Scratch(size_t bytes);  // MemoryError
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;
  ~Scratch() { PyMem_RawFree(data_); }
  Workspace workspace() const { return {data_, bytes_}; }

 private:
  void* data_ = nullptr;
  size_t bytes_;
};

}  // namespace normkit::python

#endif  // NORMKIT_PYTHON_RUN_HPP_
