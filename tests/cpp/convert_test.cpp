// float16 and bfloat16: every pattern both ways, scalar and vector, against arithmetic of the tests' own.
#include <gtest/gtest.h>

#include "data.hpp"
#include "normkit/detail/convert.hpp"

namespace tests {
namespace {

using namespace normkit;
using namespace normkit::detail;

float value_of(Float16 h) {
  return static_cast<float>(half_value(h.bits, 5, 10));
}
float value_of(BFloat16 h) {
  return static_cast<float>(half_value(h.bits, 8, 7));
}

template <typename H>
H narrow(float v);
template <>
Float16 narrow<Float16>(float v) {
  return to_float16(v);
}
template <>
BFloat16 narrow<BFloat16>(float v) {
  return to_bfloat16(v);
}

template <typename H>
class Convert : public testing::Test {};
using Types = testing::Types<Float16, BFloat16>;
TYPED_TEST_SUITE(Convert, Types);

TYPED_TEST(Convert, EveryPatternToFloatAndBack) {
  TypeParam block[16];
  for (uint32_t first = 0; first < 65536; first += 16) {
    for (uint32_t i = 0; i < 16; ++i) block[i].bits = static_cast<uint16_t>(first + i);
    float vector[16];
    load16(block).store(vector);
    TypeParam back[16];
    store16(back, canonical(load16(block)));
    for (uint32_t i = 0; i < 16; ++i) {
      const float expected = value_of(block[i]);
      const float scalar = to_float(block[i]);
      if (std::isnan(expected)) {
        ASSERT_TRUE(std::isnan(scalar) && std::isnan(vector[i]));
        ASSERT_EQ(back[i].bits, narrow<TypeParam>(NAN).bits);
        ASSERT_EQ(back[i].bits & 0x8000, 0);
      } else {
        ASSERT_EQ(float_bits(scalar), float_bits(expected)) << first + i;
        ASSERT_EQ(float_bits(vector[i]), float_bits(expected)) << first + i;
        ASSERT_EQ(back[i].bits, block[i].bits);
        ASSERT_EQ(narrow<TypeParam>(expected).bits, block[i].bits);
      }
    }
  }
}

// The nearest of the two neighbours, the even one at a tie, found by comparing distances in double.
TYPED_TEST(Convert, RoundsToNearestEven) {
  Random random(3);
  float values[16];
  TypeParam stored[16];
  for (int round = 0; round < 200000; ++round) {
    for (float& v : values) {
      const auto bits = static_cast<uint32_t>(random.next());
      v = float_of(round % 4 ? bits : bits & 0xFFFFF000u);  // ties now and then
      if (std::isnan(v)) v = 1.0f;
    }
    store16(stored, Vec16<float>::load(values));
    for (int i = 0; i < 16; ++i) {
      const TypeParam got = narrow<TypeParam>(values[i]);
      ASSERT_EQ(got.bits, stored[i].bits) << values[i];
      if (std::isinf(value_of(got)) || got.bits % 0x8000 == 0) continue;
      const double error = std::fabs(static_cast<double>(value_of(got)) - static_cast<double>(values[i]));
      for (int step : {-1, 1}) {
        const TypeParam neighbour{static_cast<uint16_t>(got.bits + step)};
        const double other =
            std::fabs(static_cast<double>(value_of(neighbour)) - static_cast<double>(values[i]));
        ASSERT_TRUE(error < other || (error == other && got.bits % 2 == 0)) << values[i];
      }
    }
  }
}

TYPED_TEST(Convert, DoublesAreRoundedOnce) {
  Random random(4);
  for (int round = 0; round < 200000; ++round) {
    // A value just beside the midpoint of two neighbours: rounding to float first would make it a tie.
    const TypeParam low{static_cast<uint16_t>(random.next() % 0x7000 + 0x0100)};
    const TypeParam high{static_cast<uint16_t>(low.bits + 1)};
    const double middle = (static_cast<double>(value_of(low)) + static_cast<double>(value_of(high))) / 2;
    TypeParam got;
    write(&got, std::nextafter(middle, 1e300));
    ASSERT_EQ(got.bits, high.bits);
    write(&got, std::nextafter(middle, -1e300));
    ASSERT_EQ(got.bits, low.bits);
    write(&got, -std::nextafter(middle, 1e300));
    ASSERT_EQ(got.bits, high.bits | 0x8000);
  }
}

// The end of a run: every count, with the elements at the very end of mapped memory in memory_test.cpp.
template <typename T>
class Tails : public testing::Test {};
using Elements = testing::Types<float, double, Float16, BFloat16>;
TYPED_TEST_SUITE(Tails, Elements);

template <int kBytes, int kCount>
void check_loads() {
  constexpr int kRoom = 64 * kBytes;
  alignas(64) unsigned char memory[kRoom], loaded[kCount * kBytes];
  for (int i = 0; i < kRoom; ++i) memory[i] = static_cast<unsigned char>(i % 251 + 1);
  for (int count = 0; count <= kCount; ++count) {
    for (int shift = 0; shift < 4; ++shift) {  // elements off a line
      load_up_to<kBytes, kCount>(memory + shift * kBytes, count, loaded);
      for (int i = 0; i < kCount * kBytes; ++i)
        ASSERT_EQ(loaded[i], i < count * kBytes ? memory[shift * kBytes + i] : 0) << count << " " << i;
    }
  }
}

TYPED_TEST(Tails, MissingElementsAreZero) {
  check_loads<sizeof(TypeParam), 16>();
  check_loads<sizeof(TypeParam), 32>();
}

TYPED_TEST(Tails, NothingElseIsWritten) {
  constexpr int kBytes = sizeof(TypeParam), kRoom = 64 * kBytes;
  alignas(64) unsigned char memory[kRoom], written[kRoom];
  for (int i = 0; i < kRoom; ++i) memory[i] = static_cast<unsigned char>(i % 251 + 1);
  for (int count = 0; count <= 16; ++count) {
    for (int shift = 0; shift < 4; ++shift) {
      memset(written, 255, sizeof(written));
      store_up_to16<kBytes>(memory, count, written + shift * kBytes);
      for (int i = 0; i < kRoom; ++i) {
        const int at = i - shift * kBytes;
        ASSERT_EQ(written[i], at >= 0 && at < count * kBytes ? memory[at] : 255) << count << " " << i;
      }
    }
  }
}

TYPED_TEST(Tails, UpTo32AreTheLanesOfABlock) {
  TypeParam memory[64];
  for (int i = 0; i < 64; ++i) write(memory + i, 1.5 + i);
  for (int count = 1; count < 32; ++count) {
    const Tail<TypeParam> tail(memory, count);
    Compute<TypeParam> lanes[32];
    tail.low.store(lanes);
    tail.high.store(lanes + 16);
    for (int i = 0; i < 32; ++i)
      ASSERT_EQ(static_cast<double>(lanes[i]), i < count ? 1.5 + i : 0.0) << count << " " << i;
    TypeParam back[64] = {};
    store_tail(back, count, tail.low, tail.high);
    for (int i = 0; i < 64; ++i)
      ASSERT_EQ(read<double>(back + i), i < count ? 1.5 + i : 0.0) << count << " " << i;
  }
}

}  // namespace
}  // namespace tests
