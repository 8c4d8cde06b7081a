// normkit on an engine's own threads: an Executor is two function pointers and a context.
//
// The pool below hands out tasks one by one, so which thread runs which task is a matter of chance. The bits
// of the result are not: the example compares them with a call on one thread.
#include <normkit/normkit.hpp>

#include <condition_variable>
#include <cstdio>
#include <cstring>
#include <mutex>
#include <thread>
#include <vector>

class Pool {
 public:
  explicit Pool(int threads) {
    for (int i = 1; i < threads; ++i) workers_.emplace_back([this] { work(); });
  }
  ~Pool() {
    {
      const std::lock_guard<std::mutex> lock(mutex_);
      stop_ = true;
    }
    wake_.notify_all();
    for (std::thread& worker : workers_) worker.join();
  }

  normkit::Executor executor() { return {this, &Pool::concurrency, &Pool::parallel_for}; }

 private:
  static int concurrency(void* pool) {
    return static_cast<int>(static_cast<Pool*>(pool)->workers_.size()) + 1;
  }

  // The caller works too, and returns when the last task is done.
  static void parallel_for(void* context, int64_t tasks, normkit::TaskFunction task, void* argument) {
    Pool& pool = *static_cast<Pool*>(context);
    std::unique_lock<std::mutex> lock(pool.mutex_);
    pool.task_ = task;
    pool.argument_ = argument;
    pool.next_ = 0;
    pool.tasks_ = pool.unfinished_ = tasks;
    pool.wake_.notify_all();
    pool.take_tasks(lock);
    pool.done_.wait(lock, [&] { return pool.unfinished_ == 0; });
  }

  void work() {
    std::unique_lock<std::mutex> lock(mutex_);
    while (!stop_) {
      take_tasks(lock);
      wake_.wait(lock, [this] { return stop_ || next_ < tasks_; });
    }
  }

  void take_tasks(std::unique_lock<std::mutex>& lock) {
    while (next_ < tasks_) {
      const int64_t mine = next_++;
      lock.unlock();
      task_(argument_, mine, mine + 1);
      lock.lock();
      if (--unfinished_ == 0) done_.notify_all();
    }
  }

  std::vector<std::thread> workers_;
  std::mutex mutex_;
  std::condition_variable wake_, done_;
  normkit::TaskFunction task_ = nullptr;
  void* argument_ = nullptr;
  int64_t next_ = 0, tasks_ = 0, unfinished_ = 0;
  bool stop_ = false;
};

int main() {
  const int64_t rows = 1000, n = 768, size[] = {rows, n};
  std::vector<float> x(rows * n), alone(x.size()), together(x.size());
  for (std::size_t i = 0; i < x.size(); ++i) x[i] = static_cast<float>(i * 2654435761u % 1000) * 0.01f;

  normkit::LayerNormArgs args;
  args.x = x.data();
  args.y = alone.data();
  normkit::Status status = normkit::layer_norm({1, 1, size}, args, {}, nullptr);  // on this thread
  if (status != normkit::Status::kOk) return 1;

  Pool pool(4);
  const normkit::Executor executor = pool.executor();
  args.y = together.data();
  status = normkit::layer_norm({1, 1, size}, args, {}, &executor);
  if (status != normkit::Status::kOk) return 1;

  const bool same = std::memcmp(alone.data(), together.data(), alone.size() * sizeof(float)) == 0;
  std::printf("one thread and four: %s\n", same ? "the same bits" : "different bits");
  return same ? 0 : 1;
}
