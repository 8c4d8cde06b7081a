// The only file with intrinsics, but for float_environment.hpp: square root, half-precision conversion,
// streaming stores.
//
// Each has a portable twin with the same bits.
#ifndef NORMKIT_DETAIL_INTRINSICS_HPP_
#define NORMKIT_DETAIL_INTRINSICS_HPP_

#include "normkit/detail/config.hpp"
#include "normkit/detail/float_environment.hpp"
#include "normkit/detail/simd.hpp"

#if defined(__CUDACC__)
// The portable twins: what the host's compiler has is not the device's.
#elif defined(__SSE2__) || defined(_M_X64)
#  include <immintrin.h>
#  define NORMKIT_X86 1
#elif defined(__aarch64__) && defined(__ARM_NEON)
#  include <arm_neon.h>
#  define NORMKIT_AARCH64 1
#else
#  include <math.h>
#endif

NORMKIT_BEGIN_NAMESPACE

// IEEE square root, without libm's errno.
NORMKIT_INLINE double square_root(double v) {
#if defined(NORMKIT_X86)
  return _mm_cvtsd_f64(_mm_sqrt_sd(_mm_setzero_pd(), _mm_set_sd(v)));
#elif defined(NORMKIT_AARCH64)
  return vget_lane_f64(vsqrt_f64(vdup_n_f64(v)), 0);
#elif defined(__CUDA_ARCH__)
  return __dsqrt_rn(v);
#else
  return sqrt(v);
#endif
}

NORMKIT_INLINE Vec16<double> square_root(const Vec16<double>& v) {
  Vec16<double> r;
#if defined(NORMKIT_X86) && NORMKIT_VECTOR_BYTES == 64
  NORMKIT_UNROLL for (int i = 0; i < 2; ++i) r.part[i] = _mm512_maskz_sqrt_pd(0xFF, v.part[i]);
#elif defined(NORMKIT_X86) && NORMKIT_VECTOR_BYTES == 32
  NORMKIT_UNROLL for (int i = 0; i < 4; ++i) r.part[i] = _mm256_sqrt_pd(v.part[i]);
#elif defined(NORMKIT_X86) && NORMKIT_VECTOR_BYTES == 16
  NORMKIT_UNROLL for (int i = 0; i < 8; ++i) r.part[i] = _mm_sqrt_pd(v.part[i]);
#elif defined(NORMKIT_AARCH64) && NORMKIT_VECTOR_BYTES == 16
  NORMKIT_UNROLL for (int i = 0; i < 8; ++i) r.part[i] = vsqrtq_f64(v.part[i]);
#else
  double values[kVecLanes];
  v.store(values);
  for (int i = 0; i < kVecLanes; ++i) values[i] = square_root(values[i]);
  r = Vec16<double>::load(values);
#endif
  return r;
}

// NaN becomes the canonical quiet NaN; everything else passes.
template <typename T>
NORMKIT_INLINE Vec16<T> canonical(Vec16<T> a) {
  const Vec16<T> nan = Vec16<T>::splat(static_cast<T>(__builtin_nan("")));
#if defined(NORMKIT_X86) && NORMKIT_VECTOR_BYTES == 64
  // Of each class of numbers: the first operand for both kinds of NaN (0), the second for the others (1).
  const __m512i classes = _mm512_set1_epi64(0x1111110011111100);
  NORMKIT_UNROLL for (int p = 0; p < Vec16<T>::kParts; ++p) {
    if constexpr (sizeof(T) == sizeof(float))
      a.part[p] = _mm512_fixupimm_ps(nan.part[p], a.part[p], classes, 0);
    else
      a.part[p] = _mm512_fixupimm_pd(nan.part[p], a.part[p], classes, 0);
  }
#else
  NORMKIT_UNROLL for (int p = 0; p < Vec16<T>::kParts; ++p) {
    a.part[p] = a.part[p] == a.part[p] ? a.part[p] : nan.part[p];
  }
#endif
  return a;
}

// 16 floats as doubles. (GCC 12 takes a vector conversion to pieces.)
NORMKIT_INLINE Vec16<double> widen16(const float* p) {
  Vec16<double> r;
#if defined(NORMKIT_X86) && NORMKIT_VECTOR_BYTES == 64
  NORMKIT_UNROLL for (int i = 0; i < 2; ++i) r.part[i] =
      _mm512_maskz_cvtps_pd(0xFF, _mm256_loadu_ps(p + 8 * i));
#elif defined(NORMKIT_X86) && NORMKIT_VECTOR_BYTES == 32
  NORMKIT_UNROLL for (int i = 0; i < 4; ++i) r.part[i] = _mm256_cvtps_pd(_mm_loadu_ps(p + 4 * i));
#elif defined(NORMKIT_X86) && NORMKIT_VECTOR_BYTES == 16
  NORMKIT_UNROLL for (int i = 0; i < 8; ++i) r.part[i] =
      _mm_cvtps_pd(_mm_castsi128_ps(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(p + 2 * i))));
#elif defined(NORMKIT_AARCH64) && NORMKIT_VECTOR_BYTES == 16
  NORMKIT_UNROLL for (int i = 0; i < 8; ++i) r.part[i] = vcvt_f64_f32(vld1_f32(p + 2 * i));
#else
  double values[kVecLanes];
  for (int i = 0; i < kVecLanes; ++i) values[i] = static_cast<double>(p[i]);
  r = Vec16<double>::load(values);
#endif
  return r;
}

// The same, of 16 floats in registers.
NORMKIT_INLINE Vec16<double> widen(Vec16<float> v) {
#if defined(NORMKIT_X86) && NORMKIT_VECTOR_BYTES == 64
  Vec16<double> r;
  __m256 half[2];
  memcpy(half, v.part, sizeof(half));
  NORMKIT_UNROLL for (int i = 0; i < 2; ++i) r.part[i] = _mm512_maskz_cvtps_pd(0xFF, half[i]);
  return r;
#elif defined(NORMKIT_X86) && NORMKIT_VECTOR_BYTES == 32
  Vec16<double> r;
  NORMKIT_UNROLL for (int i = 0; i < 4; ++i) r.part[i] = _mm256_cvtps_pd(
      i % 2 == 0 ? _mm256_castps256_ps128(v.part[i / 2]) : _mm256_extractf128_ps(v.part[i / 2], 1));
  return r;
#else
  alignas(64) float values[kVecLanes];
  v.store(values);
  return widen16(values);
#endif
}

// ---- the end of a run ----
//
// Up to 16 or 32 elements are copied to or from room for as many, which stays in the first cache: what is
// read there next is read in no larger pieces than were written, so it need not wait. Nothing beyond the
// elements is touched. kBytes: of an element.

// Pieces of fixed size, the largest first.
template <int kBytes, int kSize = 16 * kBytes>
NORMKIT_INLINE void copy_pieces(const char* from, int bytes, char* to) {
  if constexpr (kSize >= kBytes) {
    if (bytes & kSize) {
      memcpy(to, from, kSize);
      from += kSize;
      to += kSize;
    }
    copy_pieces<kBytes, kSize / 2>(from, bytes, to);
  }
}

// `to`: room for kCount (16 or 32) elements, 64-byte aligned; those from `count` on become 0.
#if defined(NORMKIT_X86) && NORMKIT_VECTOR_BYTES == 64
template <typename Mask>
NORMKIT_INLINE Mask first_lanes(int count) {
  return static_cast<Mask>((uint64_t(1) << count) - 1u);
}

template <int kBytes, int kCount>
NORMKIT_INLINE void load_up_to(const void* from, int count, void* to) {
  if constexpr (kBytes * kCount == 32) {
    _mm256_store_si256(static_cast<__m256i*>(to),
                       _mm256_maskz_loadu_epi16(first_lanes<__mmask16>(count), from));
    return;
  }
  constexpr int kOfRegister = 64 / kBytes;
  NORMKIT_UNROLL for (int i = 0; i < kCount; i += kOfRegister) {
    const int left = count - i, lanes = left < 0 ? 0 : left < kOfRegister ? left : kOfRegister;
    const void* p = static_cast<const char*>(from) + (lanes > 0 ? i * kBytes : 0);
    void* part = static_cast<char*>(to) + i * kBytes;
    if constexpr (kBytes == 2)
      _mm512_store_si512(part, _mm512_maskz_loadu_epi16(first_lanes<__mmask32>(lanes), p));
    else if constexpr (kBytes == 4)
      _mm512_store_si512(part, _mm512_maskz_loadu_epi32(first_lanes<__mmask16>(lanes), p));
    else
      _mm512_store_si512(part, _mm512_maskz_loadu_epi64(first_lanes<__mmask8>(lanes), p));
  }
}
#elif defined(NORMKIT_X86) && NORMKIT_VECTOR_BYTES == 32
template <int kBytes, int kCount>
NORMKIT_INLINE void load_up_to(const void* from, int count, void* to) {
  // 16-bit elements go in pairs, and the odd one behind them.
  constexpr int kOfRegister = 32 / kBytes;
  const int words = count / 2;
  NORMKIT_UNROLL for (int i = 0; i < kCount; i += kOfRegister) {
    const uintptr_t p =
        reinterpret_cast<uintptr_t>(from) + static_cast<uintptr_t>(i * kBytes);  // maybe beyond
    __m256i all;
    if constexpr (kBytes == 8) {
      const __m256i mask =
          _mm256_cmpgt_epi64(_mm256_set1_epi64x(count), _mm256_setr_epi64x(i, i + 1, i + 2, i + 3));
      all = _mm256_maskload_epi64(reinterpret_cast<const long long*>(p), mask);
    } else {
      const int w = kBytes == 2 ? i / 2 : i;
      const __m256i index = _mm256_setr_epi32(w, w + 1, w + 2, w + 3, w + 4, w + 5, w + 6, w + 7);
      const __m256i end = _mm256_set1_epi32(kBytes == 2 ? words : count);
      all = _mm256_maskload_epi32(reinterpret_cast<const int*>(p), _mm256_cmpgt_epi32(end, index));
      if (kBytes == 2 && count % 2 != 0) {
        const __m256i last = _mm256_set1_epi32(static_cast<const uint16_t*>(from)[count - 1]);
        all = _mm256_or_si256(all, _mm256_and_si256(_mm256_cmpeq_epi32(end, index), last));
      }
    }
    _mm256_store_si256(reinterpret_cast<__m256i*>(static_cast<char*>(to) + i * kBytes), all);
  }
}
#elif NORMKIT_VECTOR_BYTES == 16 && defined(__BYTE_ORDER__) && __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
// Less than 8 bytes, the missing ones 0.
template <int kBytes>
NORMKIT_INLINE uint64_t first_bytes(const char* from, int bytes) {
  uint32_t four = 0;
  uint16_t two = 0;
  if (kBytes < 8 && (bytes & 4)) memcpy(&four, from, 4);
  if (kBytes < 4 && (bytes & 2)) memcpy(&two, from + (bytes & 4), 2);
  return four | static_cast<uint64_t>(two) << 8 * (bytes & 4);
}

template <int kBytes, int kCount>
NORMKIT_INLINE void load_up_to(const void* from, int count, void* to) {
  const char* p = static_cast<const char*>(from);
  char* part = static_cast<char*>(to);
  char* const end = part + kBytes * kCount;
  int bytes = count * kBytes;
  for (; bytes >= 16; bytes -= 16, p += 16, part += 16) memcpy(part, p, 16);
  if (part == end) return;
  uint64_t words[2] = {0, 0};
  if (bytes >= 8) {
    memcpy(words, p, 8);
    words[1] = first_bytes<kBytes>(p + 8, bytes - 8);
  } else {
    words[0] = first_bytes<kBytes>(p, bytes);
  }
  typedef uint64_t Words __attribute__((vector_size(16)));
  const Words composed = {words[0], words[1]};
  memcpy(part, &composed, 16);
  for (part += 16; part != end; part += 16) memset(part, 0, 16);
}
#else
template <int kBytes, int kCount>
NORMKIT_INLINE void load_up_to(const void* from, int count, void* to) {
  memset(to, 0, kBytes * kCount);
  copy_pieces<kBytes, kBytes * kCount>(static_cast<const char*>(from), count * kBytes,
                                       static_cast<char*>(to));
}
#endif

// `from`: 16 elements, 64-byte aligned, of which `count` are written.
template <int kBytes>
NORMKIT_INLINE void store_up_to16(const void* from, int count, void* to) {
#if defined(NORMKIT_X86) && NORMKIT_VECTOR_BYTES == 64
  if constexpr (kBytes == 2) {
    _mm256_mask_storeu_epi16(to, first_lanes<__mmask16>(count),
                             _mm256_load_si256(static_cast<const __m256i*>(from)));
  } else if constexpr (kBytes == 4) {
    _mm512_mask_storeu_epi32(to, first_lanes<__mmask16>(count), _mm512_load_si512(from));
  } else {
    const double *low = static_cast<const double*>(from), *high = low + 8;
    double* p = static_cast<double*>(to);
    const int more = count > 8 ? count - 8 : 0;
    _mm512_mask_storeu_epi64(p, first_lanes<__mmask8>(count - more), _mm512_load_si512(low));
    if (more > 0) _mm512_mask_storeu_epi64(p + 8, first_lanes<__mmask8>(more), _mm512_load_si512(high));
  }
#else
  copy_pieces<kBytes>(static_cast<const char*>(from), count * kBytes, static_cast<char*>(to));
#endif
}

// bfloat16 is a float's upper half. (GCC 12 takes the vector conversions between 16 and 32 bits to pieces.)
NORMKIT_INLINE Vec16<float> load_bf16(const uint16_t* p) {
  Vec16<float> r;
#if defined(NORMKIT_X86) && NORMKIT_VECTOR_BYTES == 64
  const __m512i bits =
      _mm512_maskz_cvtepu16_epi32(0xFFFF, _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
  r.part[0] = _mm512_castsi512_ps(_mm512_maskz_slli_epi32(0xFFFF, bits, 16));
#elif defined(NORMKIT_X86) && NORMKIT_VECTOR_BYTES == 32
  const __m256i all = _mm256_permute4x64_epi64(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)), 0xD8);
  r.part[0] = _mm256_castsi256_ps(_mm256_unpacklo_epi16(_mm256_setzero_si256(), all));
  r.part[1] = _mm256_castsi256_ps(_mm256_unpackhi_epi16(_mm256_setzero_si256(), all));
#elif defined(NORMKIT_X86) && NORMKIT_VECTOR_BYTES == 16
  NORMKIT_UNROLL for (int i = 0; i < 2; ++i) {
    const __m128i half = _mm_loadu_si128(reinterpret_cast<const __m128i*>(p + 8 * i));
    r.part[2 * i] = _mm_castsi128_ps(_mm_unpacklo_epi16(_mm_setzero_si128(), half));
    r.part[2 * i + 1] = _mm_castsi128_ps(_mm_unpackhi_epi16(_mm_setzero_si128(), half));
  }
#elif defined(NORMKIT_AARCH64) && NORMKIT_VECTOR_BYTES == 16
  NORMKIT_UNROLL for (int i = 0; i < 4; ++i) r.part[i] =
      vreinterpretq_f32_u32(vshll_n_u16(vld1_u16(p + 4 * i), 16));
#else
  float values[kVecLanes];
  for (int i = 0; i < kVecLanes; ++i) {
    const uint32_t bits = static_cast<uint32_t>(p[i]) << 16;
    memcpy(&values[i], &bits, sizeof(bits));
  }
  r = Vec16<float>::load(values);
#endif
  return r;
}

// 32 elements.
NORMKIT_INLINE void load_bf16(const uint16_t* p, Vec16<float>& low, Vec16<float>& high) {
#if defined(NORMKIT_X86) && NORMKIT_VECTOR_BYTES == 64
  // To the upper half of every word.
  alignas(64) static const uint16_t kLow[32] = {0, 0, 0, 1, 0, 2,  0, 3,  0, 4,  0, 5,  0, 6,  0, 7,
                                                0, 8, 0, 9, 0, 10, 0, 11, 0, 12, 0, 13, 0, 14, 0, 15};
  alignas(64) static const uint16_t kHigh[32] = {0, 16, 0, 17, 0, 18, 0, 19, 0, 20, 0, 21, 0, 22, 0, 23,
                                                 0, 24, 0, 25, 0, 26, 0, 27, 0, 28, 0, 29, 0, 30, 0, 31};
  const __m512i all = _mm512_loadu_si512(p);
  low.part[0] = _mm512_castsi512_ps(_mm512_maskz_permutexvar_epi16(0xAAAAAAAA, _mm512_load_si512(kLow), all));
  high.part[0] =
      _mm512_castsi512_ps(_mm512_maskz_permutexvar_epi16(0xAAAAAAAA, _mm512_load_si512(kHigh), all));
#else
  low = load_bf16(p);
  high = load_bf16(p + kVecLanes);
#endif
}

#if NORMKIT_VECTOR_BYTES > 0
typedef uint32_t PartU32 __attribute__((vector_size(NORMKIT_VECTOR_BYTES)));
#else
typedef uint32_t PartU32;
#endif

// 32 elements, those of even and those of odd index: the two halves of 32-bit words, with a shift and a mask.
NORMKIT_INLINE void load_bf16_by_parity(const uint16_t* p, Vec16<float>& even, Vec16<float>& odd) {
  NORMKIT_UNROLL for (int i = 0; i < Vec16<float>::kParts; ++i) {
    PartU32 words;
    memcpy(&words, p + i * 2 * PartOf<float>::kLanes, sizeof(words));
#if defined(__BYTE_ORDER__) && __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
    const PartU32 first = words & 0xFFFF0000u, second = words << 16;
#else
    const PartU32 first = words << 16, second = words & 0xFFFF0000u;
#endif
    memcpy(&even.part[i], &first, sizeof(first));
    memcpy(&odd.part[i], &second, sizeof(second));
  }
}

// To nearest even; NaN must be canonical. The upper half of each is the result.
NORMKIT_INLINE void round_to_bf16(Vec16<float> v, PartU32* bits) {
  NORMKIT_UNROLL for (int i = 0; i < Vec16<float>::kParts; ++i) {
    memcpy(&bits[i], &v.part[i], sizeof(bits[i]));
#if defined(NORMKIT_X86) && NORMKIT_VECTOR_BYTES == 64
    const __m512i word = reinterpret_cast<__m512i>(bits[i]);
    const __mmask16 odd = _mm512_test_epi32_mask(word, _mm512_set1_epi32(0x10000));
    bits[i] = reinterpret_cast<PartU32>(_mm512_mask_add_epi32(reinterpret_cast<__m512i>(bits[i] + 0x7FFFu),
                                                              odd, word, _mm512_set1_epi32(0x8000)));
#else
    bits[i] = bits[i] + 0x7FFFu + ((bits[i] >> 16) & 1u);
#endif
  }
}

NORMKIT_INLINE void store_bf16(uint16_t* p, Vec16<float> v) {
  PartU32 bits[Vec16<float>::kParts];
  round_to_bf16(v, bits);
#if defined(NORMKIT_X86) && NORMKIT_VECTOR_BYTES == 64
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p),
                      _mm512_maskz_cvtepi32_epi16(0xFFFF, reinterpret_cast<__m512i>(bits[0] >> 16)));
#elif defined(NORMKIT_X86) && NORMKIT_VECTOR_BYTES == 32
  const __m256i packed =
      _mm256_packus_epi32(reinterpret_cast<__m256i>(bits[0] >> 16), reinterpret_cast<__m256i>(bits[1] >> 16));
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), _mm256_permute4x64_epi64(packed, 0xD8));
#elif defined(NORMKIT_X86) && NORMKIT_VECTOR_BYTES == 16
  // Signed halves: SSE2 packs no others.
  NORMKIT_UNROLL for (int i = 0; i < 2; ++i) {
    const __m128i low = _mm_srai_epi32(reinterpret_cast<__m128i>(bits[2 * i]), 16);
    const __m128i high = _mm_srai_epi32(reinterpret_cast<__m128i>(bits[2 * i + 1]), 16);
    _mm_storeu_si128(reinterpret_cast<__m128i*>(p + 8 * i), _mm_packs_epi32(low, high));
  }
#elif defined(NORMKIT_AARCH64) && NORMKIT_VECTOR_BYTES == 16
  NORMKIT_UNROLL for (int i = 0; i < 4; ++i)
      vst1_u16(p + 4 * i, vshrn_n_u32(reinterpret_cast<uint32x4_t>(bits[i]), 16));
#else
  uint32_t all[kVecLanes];
  memcpy(all, bits, sizeof(all));
  for (int i = 0; i < kVecLanes; ++i) p[i] = static_cast<uint16_t>(all[i] >> 16);
#endif
}

// 16 doubles as floats, each rounded once.
NORMKIT_INLINE Vec16<float> narrow16(Vec16<double> v) {
  Vec16<float> r;
#if defined(NORMKIT_X86) && NORMKIT_VECTOR_BYTES == 64
  // Two moves into a zeroed register: GCC 12 warns about the undefined source of the casts.
  const __m256 low = _mm512_maskz_cvtpd_ps(0xFF, v.part[0]), high = _mm512_maskz_cvtpd_ps(0xFF, v.part[1]);
  r.part[0] = _mm512_maskz_insertf32x8(0xFFFF, _mm512_maskz_insertf32x8(0xFFFF, _mm512_setzero_ps(), low, 0),
                                       high, 1);
#elif defined(NORMKIT_X86) && NORMKIT_VECTOR_BYTES == 32
  NORMKIT_UNROLL for (int i = 0; i < 2; ++i) r.part[i] =
      _mm256_set_m128(_mm256_cvtpd_ps(v.part[2 * i + 1]), _mm256_cvtpd_ps(v.part[2 * i]));
#elif defined(NORMKIT_X86) && NORMKIT_VECTOR_BYTES == 16
  NORMKIT_UNROLL for (int i = 0; i < 4; ++i) r.part[i] =
      _mm_movelh_ps(_mm_cvtpd_ps(v.part[2 * i]), _mm_cvtpd_ps(v.part[2 * i + 1]));
#elif defined(NORMKIT_AARCH64) && NORMKIT_VECTOR_BYTES == 16
  NORMKIT_UNROLL for (int i = 0; i < 4; ++i) r.part[i] =
      vcombine_f32(vcvt_f32_f64(v.part[2 * i]), vcvt_f32_f64(v.part[2 * i + 1]));
#else
  double values[kVecLanes];
  float narrow[kVecLanes];
  v.store(values);
  for (int i = 0; i < kVecLanes; ++i) narrow[i] = static_cast<float>(values[i]);
  r = Vec16<float>::load(narrow);
#endif
  return r;
}

NORMKIT_INLINE void store_bf16(uint16_t* p, Vec16<float> low, Vec16<float> high) {
#if defined(NORMKIT_X86) && NORMKIT_VECTOR_BYTES == 64
  PartU32 bits[2];
  round_to_bf16(low, &bits[0]);
  round_to_bf16(high, &bits[1]);
  alignas(64) static const uint16_t kUpper[32] = {1,  3,  5,  7,  9,  11, 13, 15, 17, 19, 21,
                                                  23, 25, 27, 29, 31, 33, 35, 37, 39, 41, 43,
                                                  45, 47, 49, 51, 53, 55, 57, 59, 61, 63};
  _mm512_storeu_si512(p,
                      _mm512_permutex2var_epi16(reinterpret_cast<__m512i>(bits[0]), _mm512_load_si512(kUpper),
                                                reinterpret_cast<__m512i>(bits[1])));
#else
  store_bf16(p, low);
  store_bf16(p + kVecLanes, high);
#endif
}

#if defined(NORMKIT_X86) && defined(__F16C__) && NORMKIT_VECTOR_BYTES >= 32
#  define NORMKIT_HAVE_F16C 1
// vcvtph2ps and vcvtps2ph handle subnormals whatever the control word says.
NORMKIT_INLINE Vec16<float> load_f16(const uint16_t* p) {
  Vec16<float> r;
#  if NORMKIT_VECTOR_BYTES == 64
  // The masked form: GCC 12 warns about the undefined source of the plain one.
  const __m512 v = _mm512_maskz_cvtph_ps(0xFFFF, _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
  memcpy(r.part, &v, sizeof(v));
#  else
  for (int half = 0; half < 2; ++half) {
    const __m256 v = _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p + 8 * half)));
    memcpy(&r.part[half], &v, sizeof(v));
  }
#  endif
  return r;
}

NORMKIT_INLINE void store_f16(uint16_t* p, Vec16<float> a) {
#  if NORMKIT_VECTOR_BYTES == 64
  __m512 v;
  memcpy(&v, a.part, sizeof(v));
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p),
                      _mm512_maskz_cvtps_ph(0xFFFF, v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
#  else
  for (int half = 0; half < 2; ++half) {
    __m256 v;
    memcpy(&v, &a.part[half], sizeof(v));
    _mm_storeu_si128(reinterpret_cast<__m128i*>(p + 8 * half),
                     _mm256_cvtps_ph(v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
  }
#  endif
}
#endif

// Writes 64 bytes past the cache; `to` is 64-byte aligned. Plain store where the target has no such
// instruction.
NORMKIT_INLINE void stream_64_bytes(void* to, const void* from) {
#if defined(NORMKIT_X86) && NORMKIT_VECTOR_BYTES == 64
  _mm512_stream_si512(static_cast<__m512i*>(to), _mm512_loadu_si512(from));
#elif defined(NORMKIT_X86) && NORMKIT_VECTOR_BYTES == 32
  const __m256i* source = static_cast<const __m256i*>(from);
  for (int i = 0; i < 2; ++i)
    _mm256_stream_si256(static_cast<__m256i*>(to) + i, _mm256_loadu_si256(source + i));
#elif defined(NORMKIT_X86)
  const __m128i* source = static_cast<const __m128i*>(from);
  for (int i = 0; i < 4; ++i) _mm_stream_si128(static_cast<__m128i*>(to) + i, _mm_loadu_si128(source + i));
#else
  memcpy(to, from, 64);
#endif
}

// Asks for a line; any address is allowed.
NORMKIT_INLINE void prefetch(uintptr_t address) {
#if defined(__GNUC__) || defined(__clang__)
  __builtin_prefetch(reinterpret_cast<const void*>(address));
#else
  (void)address;
#endif
}

// The lines of `kCount` elements, `ahead` bytes behind p.
template <int kCount, typename T>
NORMKIT_INLINE void prefetch_lines(const T* p, int64_t ahead) {
  constexpr int kBytes = kCount * static_cast<int>(sizeof(T));
  for (int i = 0; i < kBytes; i += 64)
    prefetch(reinterpret_cast<uintptr_t>(p) + static_cast<uintptr_t>(ahead + i));  // may lie outside of x
}

// Orders streamed stores before what the thread does next.
NORMKIT_INLINE void finish_streaming() {
#if defined(NORMKIT_X86)
  _mm_sfence();
#endif
}

NORMKIT_END_NAMESPACE

#endif  // NORMKIT_DETAIL_INTRINSICS_HPP_
