// Nothing is read or written beside the arrays, inputs are not written, and nothing is allocated.
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <unistd.h>

#include <atomic>
#include <cstdlib>
#include <new>

#include "problem.hpp"

namespace {
std::atomic<long> allocations{0};
}  // namespace

// Not inlined: GCC would see one half of a pair where another test's file shares the unit.
__attribute__((noinline)) void* operator new(std::size_t size) {
  ++allocations;
  if (void* p = std::malloc(size ? size : 1)) return p;
  throw std::bad_alloc();
}
__attribute__((noinline)) void operator delete(void* p) noexcept {
  std::free(p);
}
__attribute__((noinline)) void operator delete(void* p, std::size_t) noexcept {
  std::free(p);
}

namespace tests {
namespace {

// Memory with an inaccessible page right before or right after the array.
class Guarded {
 public:
  Guarded(const void* bytes, size_t size, bool page_after, int64_t element) {
    const auto page = static_cast<size_t>(sysconf(_SC_PAGESIZE));
    body_ = (size + page - 1) / page * page + (size == 0 ? page : 0);
    base_ =
        static_cast<char*>(mmap(nullptr, body_ + 2 * page, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    EXPECT_NE(base_, MAP_FAILED);
    total_ = body_ + 2 * page;
    EXPECT_EQ(mprotect(base_ + page, body_, PROT_READ | PROT_WRITE), 0);
    data_ = page_after ? base_ + page + body_ - size : base_ + page;
    EXPECT_EQ(reinterpret_cast<uintptr_t>(data_) % static_cast<uintptr_t>(element), 0u);
    if (bytes != nullptr) std::memcpy(data_, bytes, size);
    page_ = page;
  }
  Guarded(const Guarded&) = delete;
  ~Guarded() { munmap(base_, total_); }
  void make_read_only() { EXPECT_EQ(mprotect(base_ + page_, body_, PROT_READ), 0); }
  template <typename T = void>
  T* data() const {
    return reinterpret_cast<T*>(data_);
  }

 private:
  char *base_, *data_;
  size_t body_, total_, page_;
};

TEST(Memory, GuardPagesOnBothSides) {
  for (const Operation& op : operations()) {
    for (DType dtype : kDTypes) {
      for (int64_t n = 1; n <= 200; ++n) {
        if (!op.over_rows && n % 3 != 1) continue;
        for (bool after : {false, true}) {
          const Dims d = op.over_rows ? Dims{3, 1, n} : Dims{2, 2, n, 2};
          Problem p(op, d, dtype, static_cast<uint64_t>(n));
          const int64_t element = size_of(dtype);
          const auto guard = [&](const Array& array) {
            return Guarded(array.bytes.data(), array.bytes.size(), after, element);
          };
          Guarded x = guard(p.x), dy = guard(p.dy), weight = guard(p.weight), bias = guard(p.bias);
          Guarded y = guard(p.y), dx = guard(p.dx), dweight = guard(p.dweight), dbias = guard(p.dbias);
          Guarded mean(p.mean.data(), p.mean.size() * 8, after, 8),
              rstd(p.rstd.data(), p.rstd.size() * 8, after, 8);
          for (Guarded* input : {&x, &dy, &weight, &bias}) input->make_read_only();
          Arrays a = p.arrays();
          a.x = x.data();
          a.dy = dy.data();
          a.weight = weight.data();
          a.bias = bias.data();
          a.y = y.data();
          a.dx = dx.data();
          a.dweight = dweight.data();
          a.dbias = dbias.data();
          a.mean = mean.data<double>();
          a.rstd = rstd.data<double>();
          ASSERT_EQ(forward(op, d, a), Status::kOk);
          a.saved = true;
          const size_t bytes = op.backward_bytes(d, a);
          Guarded scratch(nullptr, bytes, after, 1);
          Plan plan;
          ASSERT_EQ(op.backward_plan(d, a, {scratch.data(), bytes}, &plan), Status::kOk);
          execute(plan);
          ASSERT_EQ(p.run(), Status::kOk);
          ASSERT_EQ(std::memcmp(y.data(), p.y.bytes.data(), p.y.bytes.size()), 0);
          ASSERT_EQ(std::memcmp(dweight.data(), p.dweight.bytes.data(), p.dweight.bytes.size()), 0);
        }
      }
    }
  }
}

TEST(Memory, CanariesBetweenRows) {
  for (const Operation& op : operations()) {
    const Dims d{4, 3, 41, 3};
    Problem p(op, d, DType::kF32);
    const int64_t strides[] = {3 * 50, 50, 1};
    std::vector<float> y(4 * 3 * 50, 7.0f), dx(y), x(y), dy(y);
    for (size_t row = 0; row < 12; ++row)
      for (size_t i = 0; i < 41; ++i) {
        x[row * 50 + i] = static_cast<float>(p.x[row * 41 + i]);
        dy[row * 50 + i] = static_cast<float>(p.dy[row * 41 + i]);
      }
    Arrays a = p.arrays();
    a.x = x.data();
    a.dy = dy.data();
    a.y = y.data();
    a.dx = dx.data();
    a.x_strides = a.dy_strides = a.y_strides = a.dx_strides = strides;
    ASSERT_EQ(forward(op, d, a), Status::kOk);
    ASSERT_EQ(backward(op, d, a), Status::kOk);
    for (size_t row = 0; row < 12; ++row)
      for (size_t i = 41; i < 50; ++i) {
        ASSERT_EQ(y[row * 50 + i], 7.0f) << op.name;
        ASSERT_EQ(dx[row * 50 + i], 7.0f) << op.name;
      }
  }
}

// Rows so far apart that their offsets in elements do not fit 32 bits; only the pages that are used exist.
TEST(Memory, OffsetsBeyond32Bits) {
  const int64_t apart = (int64_t(1) << 30) + 5, n = 37;
  const auto bytes = static_cast<size_t>((2 * apart + n) * 2);
  void* memory[2];
  for (void*& m : memory) {
    m = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    ASSERT_NE(m, MAP_FAILED);
  }
  const Operation& op = operations()[0];
  Problem p(op, {3, 1, n}, DType::kF16);
  const int64_t strides[] = {apart, n, 1};
  for (int64_t r = 0; r < 3; ++r)
    std::memcpy(static_cast<char*>(memory[0]) + 2 * r * apart, &p.x.bytes[static_cast<size_t>(2 * r * n)],
                2 * n);
  Arrays a = p.arrays();
  a.x = memory[0];
  a.y = memory[1];
  a.x_strides = a.y_strides = strides;
  ASSERT_EQ(forward(op, p.d, a), Status::kOk);
  ASSERT_EQ(forward(op, p.d, p.arrays()), Status::kOk);
  for (int64_t r = 0; r < 3; ++r)
    EXPECT_EQ(std::memcmp(static_cast<char*>(memory[1]) + 2 * r * apart,
                          &p.y.bytes[static_cast<size_t>(2 * r * n)], 2 * n),
              0);
  for (void* m : memory) munmap(m, bytes);
}

TEST(Memory, NoAllocation) {
  for (const Operation& op : operations()) {
    const Dims d{70, 3, 400};
    Problem p(op, d, DType::kBF16);
    Arrays a = p.arrays();
    std::vector<unsigned char> scratch(op.backward_bytes(d, a));
    Plan plan;
    const long before = allocations.load();
    const Status forward_status = op.forward_plan(d, a, &plan);
    execute(plan);
    const Status backward_status = op.backward_plan(d, a, {scratch.data(), scratch.size()}, &plan);
    execute(plan);
    const long after = allocations.load();
    EXPECT_EQ(forward_status, Status::kOk);
    EXPECT_EQ(backward_status, Status::kOk);
    EXPECT_EQ(before, after) << op.name;
  }
}

TEST(Memory, WorkspaceIsSmall) {
  for (const Operation& op : operations()) {
    if (!op.over_rows) continue;
    for (DType dtype : kDTypes) {
      for (const Dims& d :
           {Dims{100000, 1, 64}, Dims{1 << 20, 1, 4096}, Dims{1, 1, 1 << 20}, Dims{512, 1, 768}}) {
        Arrays a;
        a.dtype = dtype;
        float sink = 0;
        a.dweight = a.dbias = &sink;
        const double input = 2.0 * static_cast<double>(d.elements() * size_of(dtype));
        const double one_group = 16.0 * 3 * static_cast<double>(d.C * d.S);  // there is always one
        EXPECT_LE(static_cast<double>(op.backward_bytes(d, a)), input / 64 + (4 << 20) + one_group + 4096)
            << op.name << " " << d.N << " x " << d.S;
      }
    }
  }
}

}  // namespace
}  // namespace tests
