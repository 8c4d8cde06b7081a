// An engine with eight threads of its own that all call the library: prints how many threads the process then
// has, with the executor that its argument names.
#include <normkit/normkit.hpp>

#include <dirent.h>

#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <thread>
#include <vector>

namespace {

int threads_of_process() {
  int count = -2;  // . and ..
  DIR* const folder = opendir("/proc/self/task");
  while (folder != nullptr && readdir(folder) != nullptr) ++count;
  return count;
}

}  // namespace

int main(int, char** argv) {
  const bool own = std::strcmp(argv[1], "own") == 0;
  constexpr int kThreads = 8, kRows = 512, kColumns = 768;
  std::atomic<int> called{0};
  std::atomic<bool> counted{false};
  std::vector<std::thread> threads;
  for (int t = 0; t < kThreads; ++t) {
    threads.emplace_back([&] {
      std::vector<float> x(kRows * kColumns, 1.0f), y(x.size());
      const int64_t size[] = {kRows, kColumns};
      normkit::LayerNormArgs args;
      args.x = x.data();
      args.y = y.data();
      const normkit::Executor* const executor = own ? nullptr : normkit::default_executor();
      if (normkit::layer_norm({1, 1, size}, args, {}, executor) != normkit::Status::kOk) std::abort();
      ++called;
      while (!counted) std::this_thread::yield();
    });
  }
  while (called < kThreads) std::this_thread::yield();
  std::printf("%d\n", threads_of_process());
  counted = true;
  for (std::thread& thread : threads) thread.join();
}
