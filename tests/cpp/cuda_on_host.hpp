// A stand-in for a CUDA device: the kernels of normkit/cuda, compiled as C++ and run on the host, thread by
// thread. Each thread of a thread block is a fiber; a shuffle or a barrier lets the others catch up.
//
// It shows that the kernels compute what they should, that whole warps reach every shuffle and whole thread
// blocks every barrier (else: "stuck"), and, with memory in buffers of exact size, that they stay in bounds.
// Threads run in increasing or in decreasing order. It shows nothing about speed, and little about races:
// fibers run one at a time. Include it before the kernels.
#ifndef NORMKIT_TESTS_CUDA_ON_HOST_HPP_
#define NORMKIT_TESTS_CUDA_ON_HOST_HPP_

#include <setjmp.h>
#include <ucontext.h>

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <memory>
#include <vector>

#define NORMKIT_CUDA_EXACT 1
#define __global__ static
#define __device__
#define __host__
#define __shared__ static
#define __forceinline__ inline
#define __noinline__
#define __launch_bounds__(...)
#define __grid_constant__

namespace on_host {

struct Index {
  unsigned x = 0;
};

// One thread block at a time.
class Block {
 public:
  static constexpr unsigned kWarp = 32;
  static constexpr size_t kStack = 64 * 1024;

  // The order in which threads go from one barrier to the next: what a missing barrier leaves to chance.
  bool backwards = false;

  void run(unsigned threads, const std::function<void()>& kernel) {
    kernel_ = &kernel;
    threads_ = threads;
    alive_ = threads;
    while (fibers_.size() < threads) {
      fibers_.emplace_back(new Fiber);
      fibers_.back()->stack.reset(new char[kStack]);
    }
    for (Barrier& barrier : warps_) barrier = {};
    block_ = {};
    for (unsigned t = 0; t < threads; ++t) {
      Fiber& fiber = *fibers_[t];
      fiber.done = fiber.started = false;
      getcontext(&fiber.context);
      fiber.context.uc_stack.ss_sp = fiber.stack.get();
      fiber.context.uc_stack.ss_size = kStack;
      fiber.context.uc_link = nullptr;  // body() does not return
      makecontext(&fiber.context, &Block::enter, 0);
    }
    while (alive_ > 0) {
      const uint64_t before = progress_;
      for (unsigned t = 0; t < threads; ++t) {
        current_ = backwards ? threads - 1 - t : t;
        if (!fibers_[current_]->done) resume(*fibers_[current_]);
      }
      if (progress_ == before) stuck();
    }
  }

  unsigned thread() const { return current_; }
  void stuck() const {
    std::fprintf(stderr, "stuck: threads of a warp or of a thread block wait where others never come\n");
    std::abort();
  }

  // Every live thread of the warp, or of the thread block, arrives before any goes on.
  void wait_for_warp() { wait(warps_[current_ / kWarp], kWarp); }
  void wait_for_block() { wait(block_, threads_); }

  // What each thread of this warp laid down last; two sets, since a fast thread may be one exchange ahead.
  template <typename V>
  V exchange(V value, unsigned source) {
    const unsigned own = current_;
    const unsigned turn = fibers_[own]->exchanges++ % 2;
    std::memcpy(slots_[own][turn], &value, sizeof(value));
    wait_for_warp();
    std::memcpy(&value, slots_[own / kWarp * kWarp + source % kWarp][turn], sizeof(value));
    return value;
  }

 private:
  struct Fiber {
    ucontext_t context;  // where it starts; from then on it jumps, which takes no system call
    jmp_buf place;
    std::unique_ptr<char[]> stack;
    unsigned exchanges = 0;
    bool done = false, started = false;
  };
  struct Barrier {
    unsigned arrived = 0;
    uint64_t generation = 0;
  };

  static void enter();
  void body() {
    (*kernel_)();
    fibers_[current_]->done = true;
    --alive_;
    ++progress_;
    _longjmp(scheduler_, 1);
  }
  void resume(Fiber& fiber) {
    if (_setjmp(scheduler_) != 0) return;
    if (fiber.started) _longjmp(fiber.place, 1);
    fiber.started = true;
    setcontext(&fiber.context);
  }
  void pause() {
    if (_setjmp(fibers_[current_]->place) == 0) _longjmp(scheduler_, 1);
  }
  void wait(Barrier& barrier, unsigned size) {
    const uint64_t generation = barrier.generation;
    ++progress_;
    if (++barrier.arrived == size) {
      barrier.arrived = 0;
      ++barrier.generation;
      return;
    }
    while (barrier.generation == generation) pause();
  }

  const std::function<void()>* kernel_ = nullptr;
  unsigned threads_ = 0, current_ = 0, alive_ = 0;
  uint64_t progress_ = 0;
  jmp_buf scheduler_;
  std::vector<std::unique_ptr<Fiber>> fibers_;
  Barrier warps_[32], block_;
  alignas(16) unsigned char slots_[1024][2][16];
};

inline Block& block() {
  static Block one;
  return one;
}
inline void Block::enter() {
  block().body();
}

inline Index block_index, grid_size, block_size;
// Dynamic shared memory, of exactly the size asked for.
inline std::unique_ptr<unsigned char[]> memory;

// What the kernels' Launcher takes for the device's.
struct Limits {
  int64_t memory = 227 * 1024, slots = int64_t(1) << 20, few_rows = 4096;
};
inline Limits limits;

template <typename... Parameters, typename... Arguments>
void launch(void (*kernel)(Parameters...), unsigned grid, unsigned threads, size_t bytes,
            const Arguments&... arguments) {
  grid_size.x = grid;
  block_size.x = threads;
  if (static_cast<int64_t>(bytes) > limits.memory) std::abort();
  memory.reset(new unsigned char[bytes]);
  std::memset(memory.get(), 0xA5, bytes);
  const std::function<void()> run = [&] { kernel(arguments...); };
  for (block_index.x = 0; block_index.x < grid; ++block_index.x) block().run(threads, run);
}

}  // namespace on_host

#define threadIdx (on_host::Index{on_host::block().thread()})
#define blockIdx on_host::block_index
#define gridDim on_host::grid_size
#define blockDim on_host::block_size

template <typename V>
V __shfl_xor_sync(unsigned, V value, int mask) {
  return on_host::block().exchange(value, (on_host::block().thread() % 32) ^ static_cast<unsigned>(mask));
}
template <typename V>
V __shfl_sync(unsigned, V value, int source) {
  return on_host::block().exchange(value, static_cast<unsigned>(source));
}
inline int __all_sync(unsigned, int value) {
  for (int half = 16; half > 0; half /= 2) value = __shfl_xor_sync(0u, value, half) != 0 && value != 0;
  return value;
}
template <typename V>
V atomicAdd(V* at, V value) {
  const V old = *at;
  *at = old + value;
  return old;
}
template <typename V>
V __ldcg(const V* at) {
  return *at;
}
inline void __threadfence() {}
// What another thread block must do first, it has done: these run one behind the other.
inline void __nanosleep(unsigned) {
  on_host::block().stuck();
}
inline void __syncwarp() {
  on_host::block().wait_for_warp();
}
inline void __syncthreads() {
  on_host::block().wait_for_block();
}

#endif  // NORMKIT_TESTS_CUDA_ON_HOST_HPP_
