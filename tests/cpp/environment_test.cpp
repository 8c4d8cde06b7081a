// The caller's floating-point mode, forked children, many callers at once.
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <cfenv>
#include <thread>
#if defined(__x86_64__)
#  include <immintrin.h>
#endif

#include "problem.hpp"

namespace tests {
namespace {

#if defined(__x86_64__)
TEST(Environment, ControlWordIsTheCallersAndHasNoEffect) {
  Problem plain(operations()[0], {40, 1, 333}, DType::kF32);
  for (size_t i = 0; i < plain.x.size(); i += 7) plain.x.set(i, 1e-41);
  Problem moded(plain);
  ASSERT_EQ(plain.run(), Status::kOk);
  const unsigned before = _mm_getcsr();
  for (unsigned mode :
       {0x9FC0u, 0x3F80u, 0x5F80u, 0x7F80u, 0x1FBFu}) {  // FTZ and DAZ, three roundings, flags
    Problem p(moded);
    _mm_setcsr(mode);
    const Status status = p.run();
    const unsigned after = _mm_getcsr();
    _mm_setcsr(before);
    EXPECT_EQ(status, Status::kOk);
    EXPECT_EQ(after, mode);
    EXPECT_EQ(p.hash(), plain.hash()) << std::hex << mode;
  }
}
#endif

// The OpenMP runtime is everybody's: these threads are the test's, and the child lacks them all the same.
TEST(Environment, ForkAfterOthersStartedThreads) {
  std::atomic<int> started{0};
#pragma omp parallel num_threads(3)
  ++started;
  ASSERT_GT(started.load(), 1);
  Problem p(operations()[0], {600, 1, 768}, DType::kF32);
  const pid_t child = fork();
  if (child == 0) {
    alarm(20);
    _exit(p.run(default_executor()) == Status::kOk ? 0 : 1);
  }
  int status = 0;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

TEST(Environment, ForkAfterAParallelCall) {
  Problem p(operations()[0], {600, 1, 768}, DType::kF32);
  ASSERT_EQ(p.run(default_executor()), Status::kOk);
  const uint64_t expected = p.hash();
  const pid_t child = fork();
  if (child == 0) {
    alarm(20);
    Problem again(operations()[0], {600, 1, 768}, DType::kF32);
    _exit(again.run(default_executor()) == Status::kOk && again.hash() == expected ? 0 : 1);
  }
  int status = 0;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

TEST(Environment, EightCallersAtOnce) {
  Problem expected(operations()[0], {300, 1, 768}, DType::kF32);
  ASSERT_EQ(expected.run(), Status::kOk);
  std::vector<uint64_t> hashes(8);
  std::vector<std::thread> callers;
  for (uint64_t& hash : hashes)
    callers.emplace_back([&hash] {
      for (int round = 0; round < 5; ++round) {
        Problem p(operations()[0], {300, 1, 768}, DType::kF32);
        if (p.run(default_executor()) == Status::kOk) hash = p.hash();
      }
    });
  for (std::thread& caller : callers) caller.join();
  for (uint64_t hash : hashes) EXPECT_EQ(hash, expected.hash());
}

}  // namespace
}  // namespace tests
