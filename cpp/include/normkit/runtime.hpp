// What the compiled library adds to the headers: run-time choice of the instruction set, and threads.
#ifndef NORMKIT_RUNTIME_HPP_
#define NORMKIT_RUNTIME_HPP_

#include <stdint.h>

#include "normkit/detail/config.hpp"

namespace normkit {

// "baseline", "avx2", "avx512" or "neon": the best that the processor has, or what the environment variable
// NORMKIT_ISA names. An unknown name, or one that the processor lacks, leaves the best one in use and is
// reported by isa_error().
NORMKIT_EXPORT const char* isa() noexcept;

// Null, or why NORMKIT_ISA could not be honoured.
NORMKIT_EXPORT const char* isa_error() noexcept;

// Space-separated names that were compiled in and that this processor has.
NORMKIT_EXPORT const char* isa_available() noexcept;

// Threads of default_executor(); at first NORMKIT_NUM_THREADS, else OMP_NUM_THREADS, else the processors that
// this process may use. Values below 1 are ignored, 1024 are the most. Affects all threads of the process;
// results never depend on it. A child that was forked while its parent had more threads than the forking one
// runs on one: threads do not survive a fork, and OpenMP would wait for its own.
NORMKIT_EXPORT int get_num_threads() noexcept;
NORMKIT_EXPORT void set_num_threads(int threads) noexcept;

// Null, or what is wrong with NORMKIT_NUM_THREADS, which is then ignored.
NORMKIT_EXPORT const char* num_threads_error() noexcept;

// Where inputs and outputs together take at least this many bytes, outputs are written past the caches.
NORMKIT_EXPORT int64_t stream_bytes() noexcept;

}  // namespace normkit

#endif  // NORMKIT_RUNTIME_HPP_
