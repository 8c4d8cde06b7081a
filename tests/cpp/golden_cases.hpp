// Small cases of every operation, type and shape, and the hashes that every build has to meet.
#ifndef NORMKIT_TESTS_GOLDEN_CASES_HPP_
#define NORMKIT_TESTS_GOLDEN_CASES_HPP_

#include <cinttypes>
#include <cstdio>

#include "problem.hpp"

namespace tests {

struct Golden {
  const char* name;
  uint64_t hash;
};

constexpr Golden kGolden[] = {
#include "../reference/golden_cpp.inc"
};

// Calls visit(name, problem) for every case.
template <typename Visit>
void for_golden_cases(Visit visit) {
  const Dims rows[] = {{3, 1, 5}, {9, 1, 100}, {70, 1, 33}, {4, 3, 700}};
  const Dims channels[] = {{3, 6, 1, 2}, {2, 4, 35, 2}, {5, 3, 700, 3}, {2, 2, 2100, 1}};
  for (const Operation& op : operations()) {
    for (DType dtype : kDTypes) {
      for (const Dims& d : op.over_rows ? rows : channels) {
        char name[80];
        std::snprintf(name, sizeof(name), "%s %s %dx%dx%d", op.name, dtype_name(dtype), static_cast<int>(d.N),
                      static_cast<int>(d.C), static_cast<int>(d.S));
        Problem p(op, d, dtype, 77);
        visit(name, p);
      }
    }
  }
}

// Compares with kGolden, prints differences, returns (passed, failed); print_all writes the .inc instead.
inline std::pair<int, int> check_golden(bool print_all) {
  int passed = 0, failed = 0;
  size_t next = 0;
  for_golden_cases([&](const char* name, Problem& p) {
    // Of outputs, gradients and statistics.
    const uint64_t hash = p.run() == Status::kOk ? p.hash() : 0;
    if (print_all) {
      std::printf("    {\"%s\", 0x%016" PRIX64 "u},\n", name, hash);
      return;
    }
    const bool known = next < sizeof(kGolden) / sizeof(kGolden[0]) && std::string(kGolden[next].name) == name;
    const bool same = known && kGolden[next].hash == hash;
    ++(same ? passed : failed);
    if (!same) std::printf("%s: %016" PRIX64 "%s\n", name, hash, known ? "" : " (no such golden case)");
    ++next;
  });
  return {passed, failed};
}

}  // namespace tests

#endif  // NORMKIT_TESTS_GOLDEN_CASES_HPP_
