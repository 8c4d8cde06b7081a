// Data by a fixed integer recipe: the same on every compiler and machine (std:: distributions are not).
#ifndef NORMKIT_TESTS_DATA_HPP_
#define NORMKIT_TESTS_DATA_HPP_

#include <cmath>
#include <cstring>
#include <vector>

#include "normkit/types.hpp"

namespace tests {

class Random {
 public:
  explicit Random(uint64_t seed) : state_(seed) {}
  uint64_t next() {
    uint64_t z = (state_ += 0x9E3779B97F4A7C15u);
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
    return z ^ (z >> 31);
  }
  double uniform() { return static_cast<double>(next() >> 11) * 0x1p-53; }
  // About normal: twelve uniforms, in multiples of 2^-40 so that their sum is exact in any order.
  double normal() {
    double sum = -6.0;
    for (int i = 0; i < 12; ++i) sum += static_cast<double>(next() >> 24) * 0x1p-40;
    return sum;
  }

 private:
  uint64_t state_;
};

// Storage of the four element types as bytes; conversion independent of normkit's.
inline double half_value(uint16_t bits, int exponent_bits, int mantissa_bits) {
  const int bias = (1 << (exponent_bits - 1)) - 1;
  const int exponent = (bits >> mantissa_bits) & ((1 << exponent_bits) - 1);
  const int mantissa = bits & ((1 << mantissa_bits) - 1);
  const double sign = bits & 0x8000 ? -1.0 : 1.0;
  if (exponent == (1 << exponent_bits) - 1) return mantissa ? NAN : sign * INFINITY;
  const double fraction = std::ldexp(mantissa, -mantissa_bits);
  return exponent == 0 ? sign * std::ldexp(fraction, 1 - bias)
                       : sign * std::ldexp(1 + fraction, exponent - bias);
}

struct Format {
  int mantissa_bits, minimum_exponent;  // of the smallest normal number
};
inline Format format_of(normkit::DType dtype) {
  switch (dtype) {
    case normkit::DType::kF32:
      return {23, -126};
    case normkit::DType::kF64:
      return {52, -1022};
    case normkit::DType::kF16:
      return {10, -14};
    case normkit::DType::kBF16:
      return {7, -126};
  }
  return {};
}

inline double load(const std::vector<unsigned char>& bytes, normkit::DType dtype, size_t i) {
  if (dtype == normkit::DType::kF32) {
    float v;
    std::memcpy(&v, &bytes[4 * i], 4);
    return static_cast<double>(v);
  }
  if (dtype == normkit::DType::kF64) {
    double v;
    std::memcpy(&v, &bytes[8 * i], 8);
    return v;
  }
  uint16_t bits;
  std::memcpy(&bits, &bytes[2 * i], 2);
  return dtype == normkit::DType::kF16 ? half_value(bits, 5, 10) : half_value(bits, 8, 7);
}

// Rounds toward zero for the 16-bit types: any value of the type will do.
inline void store(std::vector<unsigned char>& bytes, normkit::DType dtype, size_t i, double value) {
  if (dtype == normkit::DType::kF32) {
    const float v = static_cast<float>(value);
    std::memcpy(&bytes[4 * i], &v, 4);
  } else if (dtype == normkit::DType::kF64) {
    std::memcpy(&bytes[8 * i], &value, 8);
  } else {
    const Format f = format_of(dtype);
    const int exponent_bits = 15 - f.mantissa_bits, bias = (1 << (exponent_bits - 1)) - 1;
    unsigned bits = std::signbit(value) ? 0x8000u : 0u;
    const double magnitude = std::fabs(value);
    if (magnitude >= std::ldexp(1.0, f.minimum_exponent)) {
      int exponent;
      const double fraction = std::frexp(magnitude, &exponent);
      const auto mantissa = static_cast<unsigned>(std::ldexp(fraction, f.mantissa_bits + 1));
      unsigned biased = static_cast<unsigned>(exponent - 1 + bias);
      if (biased >= (1u << exponent_bits) - 1) biased = (1u << exponent_bits) - 2;
      bits |= (biased << f.mantissa_bits) | (mantissa & ((1u << f.mantissa_bits) - 1));
    } else {
      bits |= static_cast<unsigned>(std::ldexp(magnitude, f.mantissa_bits - f.minimum_exponent));
    }
    const auto narrow = static_cast<uint16_t>(bits);
    std::memcpy(&bytes[2 * i], &narrow, 2);
  }
}

struct Array {
  normkit::DType dtype;
  std::vector<unsigned char> bytes;

  Array(normkit::DType dtype_, int64_t count)
      : dtype(dtype_), bytes(static_cast<size_t>(count * normkit::size_of(dtype_)), 0xA5) {}
  size_t size() const { return bytes.size() / static_cast<size_t>(normkit::size_of(dtype)); }
  double operator[](size_t i) const { return load(bytes, dtype, i); }
  void set(size_t i, double v) { store(bytes, dtype, i, v); }
  template <typename Wide>
  std::vector<Wide> wide() const {
    std::vector<Wide> all(size());
    for (size_t i = 0; i < all.size(); ++i) all[i] = (*this)[i];
    return all;
  }
};

inline uint64_t fnv(uint64_t hash, const void* data, size_t size) {
  const auto* bytes = static_cast<const unsigned char*>(data);
  for (size_t i = 0; i < size; ++i) hash = (hash ^ bytes[i]) * 1099511628211u;
  return hash;
}

constexpr normkit::DType kDTypes[] = {normkit::DType::kF32, normkit::DType::kF64, normkit::DType::kF16,
                                      normkit::DType::kBF16};
inline const char* dtype_name(normkit::DType dtype) {
  constexpr const char* kNames[] = {"f32", "f64", "f16", "bf16"};
  return kNames[static_cast<int>(dtype)];
}

}  // namespace tests

#endif  // NORMKIT_TESTS_DATA_HPP_
