// The golden hashes as a program of its own, for other compilers, flags and processors.
//   golden          compares, prints 'N passed, N failed'
//   golden --write  prints tests/reference/golden_cpp.inc; only when a promise is changed on purpose
#include "golden_cases.hpp"

int main(int count, char** arguments) {
  const bool write = count > 1 && std::string(arguments[1]) == "--write";
  const auto [passed, failed] = tests::check_golden(write);
  if (!write) std::printf("%d passed, %d failed\n", passed, failed);
  return failed == 0 && (write || passed > 0) ? 0 : 1;
}
