#include "memory.hpp"

#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <mutex>

#if defined(__linux__)
#  include <pthread.h>
#  include <sys/mman.h>
#  include <unistd.h>
#endif

namespace normkit::python {
namespace {

constexpr size_t kAlignment = 64;
constexpr size_t kDefaultLimit = size_t{256} << 20;

// A page, less the block: what fits in front of every output.
constexpr size_t kLargestFront = 4096 - 64;

constexpr size_t round_up(size_t value, size_t unit) {
  return (value + unit - 1) / unit * unit;
}

// Lies right before the data.
struct alignas(kAlignment) Block {
  Block* next;      // while it is kept
  void* start;      // of the allocation
  size_t length;    // of the allocation
  size_t capacity;  // of the data
  bool mapped;      // else from malloc
};
static_assert(sizeof(Block) == kAlignment);

Block* block_of(void* data) {
  return static_cast<Block*>(data) - 1;
}

void* data_of(Block* block) {
  return block + 1;
}

Block* from_malloc(size_t bytes, size_t front) {
  if (bytes > SIZE_MAX / 2) return nullptr;
  const size_t length = round_up(front, kAlignment) + sizeof(Block) + bytes + kAlignment;
  void* start = std::malloc(length);
  if (start == nullptr) return nullptr;
  const uintptr_t first =
      round_up(reinterpret_cast<uintptr_t>(start), kAlignment) + round_up(front, kAlignment);
  Block* block = reinterpret_cast<Block*>(first);
  *block = {nullptr, start, length, bytes, false};
  return block;
}

#if defined(__linux__)

constexpr size_t kHugePage = size_t{2} << 20;

// Blocks that wait for the next output; the last one released comes first, as it may still be in the cache.
struct Pool {
  std::mutex mutex;
  Block* first = nullptr;
  size_t kept = 0;
  std::atomic<size_t> limit{kDefaultLimit};
};

void unmap(Block* list) {
  while (list != nullptr) {
    Block* next = list->next;
    munmap(list->start, list->length);
    list = next;
  }
}

// Takes the oldest blocks out until at most `limit` bytes are kept; they are the caller's to unmap.
Block* trim(Pool& pool, size_t limit) {
  Block** link = &pool.first;
  size_t sum = 0;
  while (*link != nullptr && sum + (*link)->capacity <= limit) {
    sum += (*link)->capacity;
    link = &(*link)->next;
  }
  Block* rest = *link;
  *link = nullptr;
  pool.kept = sum;
  return rest;
}

Pool& pool() {
  // Never destroyed: arrays may die after everything else.
  static Pool* const instance = [] {
    // A child does not keep what it would have to copy page by page.
    pthread_atfork([] { pool().mutex.lock(); }, [] { pool().mutex.unlock(); },
                   [] {
                     unmap(trim(pool(), 0));
                     pool().mutex.unlock();
                   });
    return new Pool;
  }();
  return *instance;
}

Block* from_pool(size_t bytes) {
  Pool& p = pool();
  const std::lock_guard<std::mutex> guard(p.mutex);
  for (Block** link = &p.first; *link != nullptr; link = &(*link)->next) {
    Block* block = *link;
    if (block->capacity < bytes || block->capacity - bytes > bytes / 4) continue;
    *link = block->next;
    p.kept -= block->capacity;
    return block;
  }
  return nullptr;
}

// The data begins with a huge page; the page before it holds the block and what lies in front.
Block* from_system(size_t bytes) {
  static const size_t page = static_cast<size_t>(sysconf(_SC_PAGESIZE));
  if (bytes > SIZE_MAX / 2) return nullptr;
  const size_t data_bytes = round_up(bytes, page), whole = page + data_bytes + kHugePage;
  void* mapped = mmap(nullptr, whole, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (mapped == MAP_FAILED) return nullptr;
  char* const begin = static_cast<char*>(mapped);
  char* const data = reinterpret_cast<char*>(round_up(reinterpret_cast<uintptr_t>(begin) + page, kHugePage));
  char* const start = data - page;
  char* const end = data + data_bytes;
  if (start > begin) munmap(begin, static_cast<size_t>(start - begin));
  if (begin + whole > end) munmap(end, static_cast<size_t>(begin + whole - end));
  madvise(data, data_bytes, MADV_HUGEPAGE);  // where the system has none, ordinary pages do
  Block* block = block_of(data);
  *block = {nullptr, start, static_cast<size_t>(end - start), data_bytes, true};
  return block;
}

Block* new_block(size_t bytes, size_t front) {
  Block* const block = output_pool_limit() > 0 && bytes >= kPooledBytes ? from_system(bytes) : nullptr;
  return block != nullptr ? block : from_malloc(bytes, front);
}

void keep(Block* block) {
  Pool& p = pool();
  if (block->capacity > p.limit.load(std::memory_order_relaxed)) {
    block->next = nullptr;
    return unmap(block);
  }
  madvise(data_of(block), block->capacity, MADV_FREE);
  Block* rest;
  {
    const std::lock_guard<std::mutex> guard(p.mutex);
    block->next = p.first;
    p.first = block;
    rest = trim(p, p.limit.load(std::memory_order_relaxed));
  }
  unmap(rest);
}

#else

Block* from_pool(size_t) {
  return nullptr;
}

Block* new_block(size_t bytes, size_t front) {
  return from_malloc(bytes, front);
}

#endif

}  // namespace

void* allocate_output(size_t bytes, size_t front) {
  if (front > kLargestFront) return nullptr;
  Block* block = bytes >= kPooledBytes ? from_pool(bytes) : nullptr;
  if (block == nullptr) block = new_block(bytes, front);
  if (block == nullptr && drop_kept_outputs()) block = new_block(bytes, front);
  return block != nullptr ? data_of(block) : nullptr;
}

void release_output(void* data) {
  Block* block = block_of(data);
#if defined(__linux__)
  if (block->mapped) return keep(block);
#endif
  std::free(block->start);
}

void* resize_output(void* data, size_t bytes) {
  if (data == nullptr) return allocate_output(bytes);
  const size_t before = block_of(data)->capacity;
  if (bytes <= before && bytes >= before / 2) return data;
  void* moved = allocate_output(bytes);
  if (moved == nullptr) return nullptr;
  std::memcpy(moved, data, bytes < before ? bytes : before);
  release_output(data);
  return moved;
}

void* front_of(void* data, size_t front) {
  return reinterpret_cast<char*>(block_of(data)) - round_up(front, kAlignment);
}

const char* read_output_pool_variable() {
  const char* text = std::getenv("NORMKIT_OUTPUT_POOL");
  if (text == nullptr || *text == 0) return nullptr;
  char* end = nullptr;
  const long long mib = std::strtoll(text, &end, 10);
  if (*end != 0 || mib < 0 || mib > kLargestPoolMib) {
    static char message[160];
    std::snprintf(message, sizeof(message),
                  "NORMKIT_OUTPUT_POOL is '%.40s'; it should be a number of MiB, 0 to turn the pool off",
                  text);
    return message;
  }
  set_output_pool_limit(static_cast<size_t>(mib) << 20);
  return nullptr;
}

#if defined(__linux__)

size_t output_pool_limit() {
  return pool().limit.load(std::memory_order_relaxed);
}

void set_output_pool_limit(size_t bytes) {
  Pool& p = pool();
  Block* rest;
  {
    const std::lock_guard<std::mutex> guard(p.mutex);
    p.limit.store(bytes, std::memory_order_relaxed);
    rest = trim(p, bytes);
  }
  unmap(rest);
}

bool drop_kept_outputs() {
  Pool& p = pool();
  Block* rest;
  {
    const std::lock_guard<std::mutex> guard(p.mutex);
    rest = trim(p, 0);
  }
  unmap(rest);
  return rest != nullptr;
}

size_t output_pool_kept() {
  Pool& p = pool();
  const std::lock_guard<std::mutex> guard(p.mutex);
  return p.kept;
}

#else

size_t output_pool_limit() {
  return 0;
}
void set_output_pool_limit(size_t) {}
bool drop_kept_outputs() {
  return false;
}
size_t output_pool_kept() {
  return 0;
}

#endif

}  // namespace normkit::python
