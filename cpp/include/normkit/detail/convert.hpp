// Element types: how 16, or up to 32, or one of them are read as the type that is computed in, and written
// back.
//
// float16 and bfloat16 are computed in float: reading is exact, writing rounds once, to nearest even;
// subnormals are kept, NaN is written as the canonical quiet NaN. (vcvtneps2bf16 flushes subnormals and is
// not used.)
#ifndef NORMKIT_DETAIL_CONVERT_HPP_
#define NORMKIT_DETAIL_CONVERT_HPP_

#include "normkit/detail/config.hpp"
#include "normkit/detail/intrinsics.hpp"
#include "normkit/detail/simd.hpp"
#include "normkit/types.hpp"

NORMKIT_BEGIN_NAMESPACE

template <typename T>
struct ComputeOf {
  using Type = float;
};
template <>
struct ComputeOf<double> {
  using Type = double;
};
template <typename T>
using Compute = typename ComputeOf<T>::Type;

NORMKIT_INLINE uint32_t float_bits(float v) {
  uint32_t bits;
  memcpy(&bits, &v, sizeof(bits));
  return bits;
}
NORMKIT_INLINE float float_of(uint32_t bits) {
  float v;
  memcpy(&v, &bits, sizeof(v));
  return v;
}

// One value. `to_float` is exact; `narrow` takes any float.
NORMKIT_INLINE float to_float(BFloat16 h) {
  return float_of(static_cast<uint32_t>(h.bits) << 16);
}

#if defined(__CUDA_ARCH__)
// On a device these are one instruction, exact or to nearest even, with subnormals (PTX ISA, cvt).
NORMKIT_INLINE float to_float(Float16 h) {
  float v;
  asm("cvt.f32.f16 %0, %1;" : "=f"(v) : "h"(h.bits));
  return v;
}
NORMKIT_INLINE BFloat16 to_bfloat16(float v) {
  uint16_t bits;
  asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(bits) : "f"(v));
  return BFloat16{v == v ? bits : uint16_t(0x7FC0)};
}
NORMKIT_INLINE Float16 to_float16(float v) {
  uint16_t bits;
  asm("cvt.rn.f16.f32 %0, %1;" : "=h"(bits) : "f"(v));
  return Float16{v == v ? bits : uint16_t(0x7E00)};
}
#else
NORMKIT_INLINE float to_float(Float16 h) {
  const uint32_t sign = static_cast<uint32_t>(h.bits & 0x8000) << 16;
  const uint32_t magnitude = static_cast<uint32_t>(h.bits & 0x7FFF);
  if (magnitude >= 0x7C00) return float_of(sign | 0x7F800000u | (magnitude << 13));
  // The bits of a half, read as a float's, are the value times 2^-112: exact for subnormals too, since this
  // product is a normal float.
  return float_of(sign | float_bits(float_of(magnitude << 13) * 0x1p112f));
}

NORMKIT_INLINE BFloat16 to_bfloat16(float v) {
  const uint32_t bits = float_bits(v);
  if (v != v) return BFloat16{0x7FC0};
  return BFloat16{static_cast<uint16_t>((bits + 0x7FFFu + ((bits >> 16) & 1u)) >> 16)};
}

NORMKIT_INLINE Float16 to_float16(float v) {
  const uint32_t bits = float_bits(v);
  const uint16_t sign = static_cast<uint16_t>((bits >> 16) & 0x8000u);
  const uint32_t magnitude = bits & 0x7FFFFFFFu;
  if (magnitude > 0x7F800000u) return Float16{0x7E00};
  if (magnitude >= 0x47800000u) return Float16{static_cast<uint16_t>(sign | 0x7C00u)};  // 65536 and more
  if (magnitude < 0x38800000u) {
    // Below 2^-14: adding 0.5 leaves the rounded half in the low bits, one ulp of 0.5 being 2^-24.
    const uint32_t rounded = float_bits(float_of(magnitude) + 0.5f) - 0x3F000000u;
    return Float16{static_cast<uint16_t>(sign | rounded)};
  }
  const uint32_t rebiased = magnitude - (112u << 23);
  return Float16{static_cast<uint16_t>(sign | ((rebiased + 0xFFFu + ((rebiased >> 13) & 1u)) >> 13))};
}
#endif

// read<C>: one element in the compute type C (float or double). write: one element, rounded once from C; NaN
// becomes canonical.
template <typename C>
NORMKIT_INLINE C read(const float* p) {
  return static_cast<C>(*p);
}
template <typename C>
NORMKIT_INLINE C read(const double* p) {
  return static_cast<C>(*p);
}
template <typename C>
NORMKIT_INLINE C read(const Float16* p) {
  return static_cast<C>(to_float(*p));
}
template <typename C>
NORMKIT_INLINE C read(const BFloat16* p) {
  return static_cast<C>(to_float(*p));
}

template <typename C>
NORMKIT_INLINE void write(float* p, C v) {
  *p = v == v ? static_cast<float>(v) : __builtin_nanf("");
}
template <typename C>
NORMKIT_INLINE void write(double* p, C v) {
  *p = v == v ? static_cast<double>(v) : __builtin_nan("");
}

// double -> float rounded to odd: a second rounding to a narrower type then gives what one rounding would
// have given.
NORMKIT_INLINE float to_float_odd(double v) {
  const float nearest = static_cast<float>(v);
  const double back = static_cast<double>(nearest);
  if (!(v - v == 0.0) || back == v || nearest - nearest != 0.0f) return nearest;
  const uint32_t bits = float_bits(nearest);
  if (bits & 1u) return nearest;
  const bool away = (v > 0) == (back > v);  // the nearest float lies beyond v
  return float_of(away ? bits - 1u : bits + 1u);
}
NORMKIT_INLINE float to_float_odd(float v) {
  return v;
}

template <typename C>
NORMKIT_INLINE void write(Float16* p, C v) {
  *p = to_float16(to_float_odd(v));
}
template <typename C>
NORMKIT_INLINE void write(BFloat16* p, C v) {
  *p = to_bfloat16(to_float_odd(v));
}

// 16 elements.
NORMKIT_INLINE Vec16<float> load16(const float* p) {
  return Vec16<float>::load(p);
}
NORMKIT_INLINE Vec16<double> load16(const double* p) {
  return Vec16<double>::load(p);
}

NORMKIT_INLINE Vec16<float> load16(const BFloat16* p) {
  return load_bf16(reinterpret_cast<const uint16_t*>(p));
}

NORMKIT_INLINE Vec16<float> load16(const Float16* p) {
#if defined(NORMKIT_HAVE_F16C)
  return load_f16(reinterpret_cast<const uint16_t*>(p));
#else
  float v[kVecLanes];
  for (int i = 0; i < kVecLanes; ++i) v[i] = to_float(p[i]);
  return Vec16<float>::load(v);
#endif
}

// 32 elements.
template <typename T>
struct Load32 {
  Vec16<Compute<T>> low, high;
  NORMKIT_INLINE explicit Load32(const T* p) : low(load16(p)), high(load16(p + kVecLanes)) {}
};
template <>
struct Load32<BFloat16> {
  Vec16<float> low, high;
  NORMKIT_INLINE explicit Load32(const BFloat16* p) {
    load_bf16(reinterpret_cast<const uint16_t*>(p), low, high);
  }
};

// 32 elements as the lanes of a sum, in the order that is read fastest: of bfloat16 those of even index, then
// those of odd index.
template <typename T>
struct LanePair {
  using Vec = Vec16<Compute<T>>;
  static constexpr bool kByParity = false;
  Vec first, second;
  NORMKIT_INLINE explicit LanePair(const T* p) : first(load16(p)), second(load16(p + kVecLanes)) {}
};
template <>
struct LanePair<BFloat16> {
  using Vec = Vec16<float>;
  static constexpr bool kByParity = true;
  Vec first, second;
  NORMKIT_INLINE explicit LanePair(const BFloat16* p) {
    load_bf16_by_parity(reinterpret_cast<const uint16_t*>(p), first, second);
  }
};

// The same as double; those of float stand with the intrinsics.
NORMKIT_INLINE Vec16<double> widen(Vec16<double> v) {
  return v;
}
NORMKIT_INLINE Vec16<double> widen16(const double* p) {
  return Vec16<double>::load(p);
}
NORMKIT_INLINE Vec16<double> widen16(const Float16* p) {
  return widen(load16(p));
}
NORMKIT_INLINE Vec16<double> widen16(const BFloat16* p) {
  return widen(load16(p));
}

// Stores expect what canonical() returns.
NORMKIT_INLINE void store16(float* p, Vec16<float> v) {
  v.store(p);
}
NORMKIT_INLINE void store16(double* p, Vec16<double> v) {
  v.store(p);
}

NORMKIT_INLINE void store16(BFloat16* p, Vec16<float> v) {
  store_bf16(reinterpret_cast<uint16_t*>(p), v);
}

NORMKIT_INLINE void store16(Float16* p, Vec16<float> v) {
#if defined(NORMKIT_HAVE_F16C)
  store_f16(reinterpret_cast<uint16_t*>(p), v);
#else
  float values[kVecLanes];
  v.store(values);
  for (int i = 0; i < kVecLanes; ++i) p[i] = to_float16(values[i]);
#endif
}

// 32 elements.
template <typename T>
NORMKIT_INLINE void store32(T* p, Vec16<Compute<T>> low, Vec16<Compute<T>> high) {
  store16(p, low);
  store16(p + kVecLanes, high);
}
template <>
NORMKIT_INLINE void store32(BFloat16* p, Vec16<float> low, Vec16<float> high) {
  store_bf16(reinterpret_cast<uint16_t*>(p), low, high);
}

// The last count < 32 elements of a block, followed by zeros.
template <typename T>
struct Padded {
  alignas(64) T element[kLanes];

  NORMKIT_INLINE Padded(const T* p, int count) {
    load_up_to<static_cast<int>(sizeof(T)), kLanes>(p, count, element);
  }
};

// The same as 32 lanes; missing lanes are +0.
template <typename T>
struct Tail {
  using Vec = Vec16<Compute<T>>;
  Vec low, high;

  NORMKIT_INLINE Tail(const T* p, int count) {
    const Padded<T> padded(p, count);
    low = load16(padded.element);
    high = load16(padded.element + kVecLanes);
  }
};

// Up to 16 elements, and the same written.
template <typename T>
NORMKIT_INLINE Vec16<Compute<T>> load_up_to16(const T* p, int count) {
  alignas(64) T element[kVecLanes];
  load_up_to<static_cast<int>(sizeof(T)), kVecLanes>(p, count, element);
  return load16(element);
}
template <typename T>
NORMKIT_INLINE void store_up_to16(T* p, int count, Vec16<Compute<T>> v) {
  alignas(64) T element[kVecLanes];
  store16(element, v);
  store_up_to16<static_cast<int>(sizeof(T))>(element, count, p);
}

template <typename T>
NORMKIT_INLINE void store_tail(T* p, int count, Vec16<Compute<T>> low, Vec16<Compute<T>> high) {
  const bool more = count > kVecLanes;
  store_up_to16(p, more ? kVecLanes : count, low);
  if (more) store_up_to16(p + kVecLanes, count - kVecLanes, high);
}

NORMKIT_END_NAMESPACE

#endif  // NORMKIT_DETAIL_CONVERT_HPP_
