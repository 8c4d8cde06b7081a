// The bits of a result depend on data, parameters, dtype and operation, and on nothing else.
#include <gtest/gtest.h>
#include <omp.h>

#include <algorithm>
#include <numeric>
#include <thread>

#include "normkit/exec_openmp.hpp"
#include "problem.hpp"

#if defined(NORMKIT_COMPILED)
#  include "../../cpp/src/table.hpp"
#endif

namespace tests {
namespace {

std::vector<Dims> shapes(const Operation& op) {
  if (op.over_rows) return {{1, 1, 1}, {3, 1, 45}, {130, 1, 257}, {5, 3, 700}, {700, 1, 33}};
  return {{3, 6, 1, 2}, {1, 2048, 2, 2}, {2, 1536, 9, 6}, {4, 6, 35, 3}, {2, 4, 1500, 2}, {70, 5, 9, 5}};
}

// Tasks in an order and a grouping of its own, on threads of its own.
void scattered(void*, int64_t tasks, TaskFunction task, void* argument) {
  std::vector<int64_t> starts;
  for (int64_t t = 0, step = 1; t < tasks; t += step, step = step % 3 + 1) starts.push_back(t);
  std::vector<std::pair<int64_t, int64_t>> ranges;
  for (size_t i = 0; i < starts.size(); ++i)
    ranges.push_back({starts[i], i + 1 < starts.size() ? starts[i + 1] : tasks});
  std::reverse(ranges.begin(), ranges.end());
  std::vector<std::thread> threads;
  for (size_t t = 0; t < 3; ++t)
    threads.emplace_back([&, t] {
      for (size_t i = t; i < ranges.size(); i += 3) task(argument, ranges[i].first, ranges[i].second);
    });
  for (std::thread& thread : threads) thread.join();
}

TEST(Sameness, Executors) {
  for (const Operation& op : operations()) {
    for (DType dtype : kDTypes) {
      for (const Dims& d : shapes(op)) {
        Problem serial(op, d, dtype);
        ASSERT_EQ(serial.run(), Status::kOk);
        for (int threads : {1, 2, 3, 7}) {
          Problem p(op, d, dtype);
          const Executor executor = openmp_executor(&threads);
          ASSERT_EQ(p.run(&executor), Status::kOk);
          EXPECT_EQ(p.hash(), serial.hash()) << op.name << " " << threads;
        }
        Problem p(op, d, dtype);
        Plan plan;  // an engine that drives the phases itself, one task at a time, last task first
        ASSERT_EQ(op.forward_plan(d, p.arrays(), &plan), Status::kOk);
        for (int phase = 0; phase < plan.phase_count; ++phase)
          for (int64_t t = plan.phases[phase].tasks; t-- > 0;) plan.run(phase, t, t + 1);
        Arrays a = p.arrays();
        a.saved = true;
        std::vector<unsigned char> scratch(op.backward_bytes(d, a));
        ASSERT_EQ(op.backward_plan(d, a, {scratch.data(), scratch.size()}, &plan), Status::kOk);
        for (int phase = 0; phase < plan.phase_count; ++phase)
          scattered(
              nullptr, plan.phases[phase].tasks,
              [](void* argument, int64_t begin, int64_t end) {
                const auto* call = static_cast<const std::pair<const Plan*, int>*>(argument);
                call->first->run(call->second, begin, end);
              },
              std::make_unique<std::pair<const Plan*, int>>(&plan, phase).get());
        EXPECT_EQ(p.hash(), serial.hash()) << op.name;
      }
    }
  }
}

TEST(Sameness, LargeShapesOnManyThreads) {
  for (const Operation& op : {operations()[0], operations()[1]}) {
    for (const Dims& d :
         {Dims{5000, 1, 100}, Dims{4100, 1, 1025}}) {  // many panels; an output that is streamed
      Problem serial(op, d, DType::kF32), threaded(op, d, DType::kF32);
      int threads = 3;
      const Executor executor = openmp_executor(&threads);
      ASSERT_EQ(serial.run(), Status::kOk);
      ASSERT_EQ(threaded.run(&executor), Status::kOk);
      EXPECT_EQ(serial.hash(), threaded.hash()) << op.name;
    }
  }
}

// Streaming writes whole lines; rows here start at every offset from one.
TEST(Sameness, StreamedRowsEqualRowsAlone) {
  for (const Operation& op : {operations()[0], operations()[1]}) {
    const Dims d{4200, 1, 1001};
    Problem all(op, d, DType::kF32);
    ASSERT_EQ(all.run(), Status::kOk);
    for (int64_t r : {0, 1, 2, 3, 17, 4199}) {
      Arrays a = all.arrays();
      std::vector<float> y(1001), dx(1001);
      double mean, rstd;
      a.x = static_cast<const float*>(a.x) + r * 1001;
      a.dy = static_cast<const float*>(a.dy) + r * 1001;
      a.y = y.data();
      a.dx = dx.data();
      a.mean = &mean;
      a.rstd = &rstd;
      ASSERT_EQ(forward(op, {1, 1, 1001}, a), Status::kOk);
      ASSERT_EQ(backward(op, {1, 1, 1001}, a), Status::kOk);
      const size_t at = static_cast<size_t>(r) * 4004;
      EXPECT_EQ(std::memcmp(y.data(), &all.y.bytes[at], 4004), 0) << op.name << r;
      EXPECT_EQ(std::memcmp(dx.data(), &all.dx.bytes[at], 4004), 0) << op.name << r;
    }
  }
}

TEST(Sameness, RowsAloneAndInPlace) {
  for (const size_t which : {size_t(0), size_t(1)}) {
    const Operation& op = operations()[which];
    for (DType dtype : kDTypes) {
      const Dims d{19, 1, 300};
      Problem all(op, d, dtype), in_place(op, d, dtype);
      ASSERT_EQ(forward(op, d, all.arrays()), Status::kOk);
      Arrays a = in_place.arrays();
      a.y = in_place.x.bytes.data();
      ASSERT_EQ(forward(op, d, a), Status::kOk);
      EXPECT_EQ(in_place.x.bytes, all.y.bytes);
      const auto row_bytes = static_cast<size_t>(300 * size_of(dtype));
      for (int64_t r = 0; r < 19; ++r) {
        Problem one(op, {1, 1, 300}, dtype);
        std::copy_n(all.x.bytes.begin() + r * static_cast<int64_t>(row_bytes), row_bytes,
                    one.x.bytes.begin());
        one.weight = all.weight;
        one.bias = all.bias;
        ASSERT_EQ(forward(op, one.d, one.arrays()), Status::kOk);
        EXPECT_EQ(
            std::memcmp(one.y.bytes.data(), &all.y.bytes[static_cast<size_t>(r) * row_bytes], row_bytes), 0);
      }
    }
  }
}

TEST(Sameness, SavedAndRecomputedStatistics) {
  for (const Operation& op : operations()) {
    for (DType dtype : kDTypes) {
      for (const Dims& d : shapes(op)) {
        Problem saved(op, d, dtype), fresh(op, d, dtype);
        for (Problem* p : {&saved, &fresh})
          for (size_t i = 0; i < p->x.size(); ++i) p->x.set(i, 1000.0 + p->x[i]);
        ASSERT_EQ(saved.run(), Status::kOk);
        ASSERT_EQ(forward(op, d, fresh.arrays()), Status::kOk);
        ASSERT_EQ(backward(op, d, fresh.arrays()), Status::kOk);
        EXPECT_EQ(saved.hash(), fresh.hash()) << op.name << " " << dtype_name(dtype);
      }
    }
  }
}

// The same logical array in another layout: channels last, negative strides, rows far apart, every alignment.
// Channels-last groups have bits of their own.
// Sums that double rounds: their order shows in the statistics. Rows one after the other, and side by side.
TEST(Sameness, SumsThatRound) {
  for (DType dtype : {DType::kF32, DType::kBF16}) {
    for (int64_t n : {70, 1000, 2500}) {
      const int64_t rows = 32, size[] = {rows, n}, across[] = {1, rows};
      const RowsShape shape{1, 1, size};
      Array x(dtype, rows * n), turned(x), y(x), mean(DType::kF64, rows), rstd(mean), other_mean(mean),
          other_rstd(mean);
      Random random(static_cast<uint64_t>(n));
      for (int64_t i = 0; i < rows * n; ++i) {
        x.set(static_cast<size_t>(i), std::ldexp(random.normal(), static_cast<int>(random.next() % 80) - 40));
        turned.set(static_cast<size_t>(i % n * rows + i / n), x[static_cast<size_t>(i)]);
      }
      LayerNormArgs args;
      args.x = {x.bytes.data(), dtype};
      args.y = {y.bytes.data(), dtype};
      args.mean = {mean.bytes.data(), DType::kF64};
      args.rstd = {rstd.bytes.data(), DType::kF64};
      ASSERT_EQ(layer_norm(shape, args), Status::kOk);
      args.x = {turned.bytes.data(), dtype, across};
      args.y = {y.bytes.data(), dtype, across};
      args.mean = {other_mean.bytes.data(), DType::kF64};
      args.rstd = {other_rstd.bytes.data(), DType::kF64};
      ASSERT_EQ(layer_norm(shape, args), Status::kOk);
      EXPECT_EQ(other_mean.bytes, mean.bytes) << dtype_name(dtype) << " " << n;
      EXPECT_EQ(other_rstd.bytes, rstd.bytes) << dtype_name(dtype) << " " << n;
    }
  }
}

TEST(Sameness, Layouts) {
  for (const Operation& op : operations()) {
    for (DType dtype : kDTypes) {
      for (const Dims& d : shapes(op)) {
        Problem plain(op, d, dtype);
        ASSERT_EQ(plain.run(), Status::kOk);
        const int64_t C = d.C, S = d.S;
        const int64_t layouts[][3] = {
            {C * S, 1, C}, {-C * S, -S, -1}, {2 * C * S + 3, S, 1}, {3 * C * S, 3 * S, 3}};
        for (const auto& strides : layouts) {
          const bool groups_last = !op.over_rows && d.G > 1 && d.C > d.G && S > 1 && strides[1] == 1 &&
                                   std::string(op.name) == "group_norm";
          uint64_t expected = groups_last ? 0 : plain.hash();
          for (int64_t shift = 0; shift < 16; shift += 5) {
            int64_t first = shift, last = shift;
            const int64_t sizes[] = {d.N, C, S};
            for (int k = 0; k < 3; ++k) (strides[k] < 0 ? first : last) += strides[k] * (sizes[k] - 1);
            const int64_t origin = shift - first, count = last - first + 1 + shift;
            Array x(dtype, count), dy(x), y(x), dx(x);
            const auto place = [&](size_t i) {
              const auto e = static_cast<int64_t>(i);
              return static_cast<size_t>(origin + e / (C * S) * strides[0] + e / S % C * strides[1] +
                                         e % S * strides[2]);
            };
            for (size_t i = 0; i < plain.x.size(); ++i) {
              x.set(place(i), plain.x[i]);
              dy.set(place(i), plain.dy[i]);
            }
            Problem p(op, d, dtype);
            const auto at = [&](Array& array) { return array.bytes.data() + origin * size_of(dtype); };
            Arrays a = p.arrays();
            a.x = at(x);
            a.dy = at(dy);
            a.y = at(y);
            a.dx = at(dx);
            a.x_strides = a.dy_strides = a.y_strides = a.dx_strides = strides;
            ASSERT_EQ(forward(op, d, a), Status::kOk);
            a.saved = true;
            ASSERT_EQ(backward(op, d, a), Status::kOk);
            const auto element = static_cast<size_t>(size_of(dtype));
            for (size_t i = 0; i < plain.x.size(); ++i) {
              std::copy_n(&y.bytes[place(i) * element], element, &p.y.bytes[i * element]);
              std::copy_n(&dx.bytes[place(i) * element], element, &p.dx.bytes[i * element]);
            }
            if (expected == 0) expected = p.hash();
            ASSERT_EQ(p.hash(), expected) << op.name << " " << dtype_name(dtype) << " stride " << strides[2];
          }
        }
      }
    }
  }
}

#if defined(NORMKIT_COMPILED)
// Every instruction set that was compiled in and that this processor has.
TEST(Sameness, InstructionSets) {
  const std::string available = std::string(" ") + isa_available() + " ";
  const std::pair<const char*, const OperationTable* (*)()> tables[] = {
#  if defined(__x86_64__)
      {"baseline", &normkit_table_baseline}, {"avx2", &normkit_table_avx2}, {"avx512", &normkit_table_avx512}
#  else
      {"neon", &normkit_table_neon}
#  endif
  };
  for (const auto& [name, table] : tables) {
    if (available.find(std::string(" ") + name + " ") == std::string::npos) continue;
    for (DType dtype : kDTypes) {
      for (int64_t n : {1, 5, 31, 64, 100, 1025, 5000}) {
        const Dims d{9, 1, n};
        Problem expected(operations()[0], d, dtype), p(operations()[0], d, dtype);
        ASSERT_EQ(expected.run(), Status::kOk);
        Arrays a = p.arrays();
        const int64_t size[] = {9, n};
        const RowsShape shape{1, 1, size};
        LayerNormArgs f = impl::forward<LayerNormArgs>(a);
        f.mean = a.mean;
        Plan plan;
        ASSERT_EQ(table()->layer_norm_plan(shape, f, {}, &plan), Status::kOk);
        execute(plan);
        LayerNormBackwardArgs b = impl::backward<LayerNormBackwardArgs>(a);
        std::vector<unsigned char> scratch(table()->layer_norm_backward_workspace_bytes(shape, b));
        ASSERT_EQ(table()->layer_norm_backward_plan(shape, b, {scratch.data(), scratch.size()}, &plan),
                  Status::kOk);
        execute(plan);
        EXPECT_EQ(p.hash(), expected.hash()) << name << " " << dtype_name(dtype) << " n " << n;
      }
    }
  }
}
#endif

}  // namespace
}  // namespace tests
