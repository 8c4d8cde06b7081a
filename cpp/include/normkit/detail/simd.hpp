// Vec16: 16 values in register-size parts, and the fixed fold of 32 lanes (two Vec16) to one value.
//
// Element i of a block belongs to lane i mod 32 on every instruction set; a part is one register (1 zmm, 2
// ymm, 4 xmm of float), or one scalar where the compiler has no vectors. Parts are never larger than a
// register: GCC spills those. Everything is always_inline, so no vector crosses a call.
#ifndef NORMKIT_DETAIL_SIMD_HPP_
#define NORMKIT_DETAIL_SIMD_HPP_

#include "normkit/detail/config.hpp"

NORMKIT_BEGIN_NAMESPACE

constexpr int kVecLanes = 16;
constexpr int kLanes = 2 * kVecLanes;

#if NORMKIT_VECTOR_BYTES > 0
template <typename T>
struct PartOf {
  typedef T Type __attribute__((vector_size(NORMKIT_VECTOR_BYTES)));
  static constexpr int kLanes = NORMKIT_VECTOR_BYTES / static_cast<int>(sizeof(T));
};
#else
template <typename T>
struct PartOf {
  using Type = T;
  static constexpr int kLanes = 1;
};
#endif

template <typename T>
struct Vec16 {
  using Part = typename PartOf<T>::Type;
  static constexpr int kParts = kVecLanes / PartOf<T>::kLanes;
  Part part[size_t(kParts)];

  static NORMKIT_INLINE Vec16 zero() { return splat(T(0)); }

  static NORMKIT_INLINE Vec16 splat(T value) {
    Vec16 r;
#if NORMKIT_VECTOR_BYTES > 0
    // The scalar is broadcast; v - 0 is v for every v, -0 included, and compiles to nothing.
    const Part all = value - Part{};
    NORMKIT_UNROLL for (int p = 0; p < kParts; ++p) r.part[p] = all;
#else
    NORMKIT_UNROLL for (int p = 0; p < kParts; ++p) r.part[p] = value;
#endif
    return r;
  }

  static NORMKIT_INLINE Vec16 load(const T* p) {
    // Part by part: GCC does not keep an array in registers that was copied to as a whole.
    Vec16 r;
    NORMKIT_UNROLL for (int i = 0; i < kParts; ++i)
        memcpy(&r.part[i], p + i * PartOf<T>::kLanes, sizeof(Part));
    return r;
  }

  NORMKIT_INLINE void store(T* p) const {
    NORMKIT_UNROLL for (int i = 0; i < kParts; ++i) memcpy(p + i * PartOf<T>::kLanes, &part[i], sizeof(Part));
  }
};

#define NORMKIT_VEC16_OPERATOR(op)                                                                \
  template <typename T>                                                                           \
  NORMKIT_INLINE Vec16<T> operator op(Vec16<T> a, Vec16<T> b) {                                   \
    Vec16<T> r;                                                                                   \
    NORMKIT_UNROLL for (int p = 0; p < Vec16<T>::kParts; ++p) r.part[p] = a.part[p] op b.part[p]; \
    return r;                                                                                     \
  }
NORMKIT_VEC16_OPERATOR(+)
NORMKIT_VEC16_OPERATOR(-)
NORMKIT_VEC16_OPERATOR(*)
NORMKIT_VEC16_OPERATOR(/)
#undef NORMKIT_VEC16_OPERATOR

// a where it is not below b, else b; NaN passes.
template <typename T>
NORMKIT_INLINE Vec16<T> at_least(Vec16<T> a, Vec16<T> b) {
  Vec16<T> r;
  NORMKIT_UNROLL for (int p = 0; p < Vec16<T>::kParts; ++p) {
    r.part[p] = a.part[p] < b.part[p] ? b.part[p] : a.part[p];
  }
  return r;
}

// Lanes first, first + step, ... of a 32-lane block that lie below `count` keep their value; the others
// become +0.
template <typename T>
NORMKIT_INLINE Vec16<T> keep_below(Vec16<T> a, int first, int count, int step = 1) {
  alignas(64) static const T kIndex[kVecLanes] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
  const Vec16<T> index = Vec16<T>::load(kIndex) * Vec16<T>::splat(static_cast<T>(step));
  const Vec16<T> limit = Vec16<T>::splat(static_cast<T>(count - first));
  const Vec16<T> zero = Vec16<T>::zero();
  Vec16<T> r;
  NORMKIT_UNROLL for (int p = 0; p < Vec16<T>::kParts; ++p) {
    r.part[p] = index.part[p] < limit.part[p] ? a.part[p] : zero.part[p];
  }
  return r;
}

template <typename T, int kBytes>
struct Halves;

#if NORMKIT_VECTOR_BYTES > 0
// Adds the upper half of a register to its lower half, down to one lane.
template <typename T, int kBytes>
struct Halves {
  typedef T Vector __attribute__((vector_size(kBytes)));
  typedef T Half __attribute__((vector_size(kBytes / 2)));
  static NORMKIT_INLINE T sum(Vector v) {
    Half half[2];
    memcpy(half, &v, sizeof(v));
    return Halves<T, kBytes / 2>::sum(half[0] + half[1]);
  }
};
template <typename T>
struct Halves<T, 2 * sizeof(T)> {
  typedef T Vector __attribute__((vector_size(2 * sizeof(T))));
  static NORMKIT_INLINE T sum(Vector v) { return v[0] + v[1]; }
};
#endif

// 16 -> 8 -> 4 -> 2 -> 1: lane j takes lane j + half.
template <typename T>
NORMKIT_INLINE T fold(Vec16<T> v) {
  NORMKIT_UNROLL for (int half = Vec16<T>::kParts / 2; half > 0; half /= 2)
      NORMKIT_UNROLL for (int p = 0; p < half; ++p) v.part[p] = v.part[p] + v.part[p + half];
#if NORMKIT_VECTOR_BYTES > 0
  return Halves<T, NORMKIT_VECTOR_BYTES>::sum(v.part[0]);
#else
  return v.part[0];
#endif
}

// The same of 32 lanes.
template <typename T>
NORMKIT_INLINE T fold(Vec16<T> low, Vec16<T> high) {
  return fold(low + high);
}

NORMKIT_END_NAMESPACE

#endif  // NORMKIT_DETAIL_SIMD_HPP_
