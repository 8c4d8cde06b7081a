// Chooses the instruction set once, and forwards every entry point to its table. Built for the oldest
// processor.
#include <stdlib.h>
#include <string.h>

#include "normkit/detail/rows_plan.hpp"
#include "normkit/normkit.hpp"
#include "table.hpp"

namespace normkit {
namespace {

struct Candidate {
  const char* name;
  const OperationTable* (*table)();
  bool (*supported)();
};

bool always() {
  return true;
}
#if defined(__x86_64__) || defined(_M_X64)
bool has_avx2() {
  return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("f16c");
}
bool has_avx512() {
  return has_avx2() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
         __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
}
#endif

// Best first.
constexpr Candidate kCandidates[] = {
#if defined(__x86_64__) || defined(_M_X64)
    {"avx512", &normkit_table_avx512, &has_avx512},
    {"avx2", &normkit_table_avx2, &has_avx2},
    {"baseline", &normkit_table_baseline, &always},
#elif defined(__aarch64__)
    {"neon", &normkit_table_neon, &always},
#else
    {"baseline", &normkit_table_baseline, &always},
#endif
};

struct Choice {
  const char* name = nullptr;
  const OperationTable* table = nullptr;
  char error[160] = "";
  char available[64] = "";

  Choice() {
    for (const Candidate& candidate : kCandidates) {
      if (!candidate.supported()) continue;
      if (table == nullptr) choose(candidate);
      if (available[0] != '\0') append(available, sizeof(available), " ");
      append(available, sizeof(available), candidate.name);
    }
    const char* wanted = getenv("NORMKIT_ISA");
    if (wanted == nullptr || wanted[0] == '\0') return;
    for (const Candidate& candidate : kCandidates) {
      if (strcmp(candidate.name, wanted) != 0 || !candidate.supported()) continue;
      choose(candidate);
      return;
    }
    append(error, sizeof(error), "NORMKIT_ISA=");
    append(error, 48, wanted);
    append(error, sizeof(error), " is not one of the instruction sets that this processor has: ");
    append(error, sizeof(error), available);
  }

 private:
  void choose(const Candidate& candidate) {
    name = candidate.name;
    table = candidate.table();
  }
  static void append(char* to, size_t size, const char* text) {
    const size_t used = strlen(to), length = strlen(text);
    const size_t fitting = used + length < size ? length : size - 1 - used;
    memcpy(to + used, text, fitting);
    to[used + fitting] = '\0';
  }
};

const Choice& choice() {
  static const Choice chosen;
  return chosen;
}

}  // namespace

const char* isa() noexcept {
  return choice().name;
}
const char* isa_error() noexcept {
  return choice().error[0] != '\0' ? choice().error : nullptr;
}
const char* isa_available() noexcept {
  return choice().available;
}

int64_t stream_bytes() noexcept {
  return detail::kStreamBytes;
}

inline namespace compiled {
#define NORMKIT_OPERATION(name, Shape, Args)                                                           \
  size_t name##_workspace_bytes(const Shape& shape, const Args& args) noexcept {                       \
    return choice().table->name##_workspace_bytes(shape, args);                                        \
  }                                                                                                    \
  Status name##_plan(const Shape& shape, const Args& args, Workspace workspace, Plan* plan) noexcept { \
    return choice().table->name##_plan(shape, args, workspace, plan);                                  \
  }
#include "kernel_list.inc"
#undef NORMKIT_OPERATION
}  // namespace compiled

}  // namespace normkit
