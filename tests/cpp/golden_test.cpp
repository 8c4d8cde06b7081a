#include <gtest/gtest.h>

#include "golden_cases.hpp"

TEST(Golden, HashesOfEveryOperation) {
  const auto [passed, failed] = tests::check_golden(false);
  EXPECT_EQ(failed, 0);
  EXPECT_EQ(passed, static_cast<int>(sizeof(tests::kGolden) / sizeof(tests::kGolden[0])));
}
