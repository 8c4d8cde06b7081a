// Compiler and instruction-set facts, and the guard that every kernel header opens and closes.
//
// Invariant: products are rounded before they are added, whatever the includer's flags (but for clang's
// -ffp-contract=fast and -funsafe-math-optimizations, which overrule every pragma and cannot be seen from
// here). The guard switches contraction off for the code between NORMKIT_BEGIN_NAMESPACE and
// NORMKIT_END_NAMESPACE and leaves the includer's own code alone.
#ifndef NORMKIT_DETAIL_CONFIG_HPP_
#define NORMKIT_DETAIL_CONFIG_HPP_

#include <stddef.h>
#include <stdint.h>
#include <string.h>

// Where the compiled library does the arithmetic, the includer's flags do not touch it.
#if !defined(NORMKIT_COMPILED) || defined(__CUDACC__)
#  if defined(__FAST_MATH__) || (defined(__FINITE_MATH_ONLY__) && __FINITE_MATH_ONLY__) ||             \
      defined(__ASSOCIATIVE_MATH__) || defined(__RECIPROCAL_MATH__) || defined(__NO_SIGNED_ZEROS__) || \
      (defined(_M_FP_FAST) && _M_FP_FAST)
#    error "normkit promises the same bits everywhere: compile it without -ffast-math (/fp:fast)"
#  endif
#  if defined(__FLT_EVAL_METHOD__) && __FLT_EVAL_METHOD__ != 0
#    error "normkit needs float arithmetic in float: on 32-bit x86 compile with -msse2 -mfpmath=sse"
#  endif
#endif

// Under nvcc every NORMKIT_INLINE function is one for host and device: formulas stand once for both.
// NORMKIT_ROLL: a loop that nvcc shall leave one, since it is seldom taken.
#if defined(__CUDACC__)
#  define NORMKIT_INLINE __host__ __device__ __forceinline__
#elif defined(__GNUC__) || defined(__clang__)
#  define NORMKIT_INLINE inline __attribute__((always_inline))
#endif
#if defined(__GNUC__) || defined(__clang__)
#  define NORMKIT_NOINLINE __attribute__((noinline))
#  define NORMKIT_RESTRICT __restrict__
#  define NORMKIT_LIKELY(condition) __builtin_expect(!!(condition), 1)
#  define NORMKIT_PRAGMA(text) _Pragma(#text)
#  if defined(__CUDACC__)
#    define NORMKIT_UNROLL NORMKIT_PRAGMA(unroll)
#    define NORMKIT_ROLL NORMKIT_PRAGMA(unroll 1)
#  elif defined(__clang__)
#    define NORMKIT_UNROLL NORMKIT_PRAGMA(clang loop unroll(full))
#  else
#    define NORMKIT_UNROLL NORMKIT_PRAGMA(GCC unroll 16)
#  endif
#elif defined(_MSC_VER)
#  define NORMKIT_INLINE __forceinline
#  define NORMKIT_NOINLINE __declspec(noinline)
#  define NORMKIT_RESTRICT __restrict
#  define NORMKIT_LIKELY(condition) (condition)
#  define NORMKIT_UNROLL
#else
#  error "normkit is built and tested with GCC and clang; MSVC takes the same sources"
#endif

#if !defined(NORMKIT_ROLL)
#  define NORMKIT_ROLL
#endif

#if defined(__clang__)
#  define NORMKIT_STRICT_FP_BEGIN NORMKIT_PRAGMA(float_control(push)) NORMKIT_PRAGMA(clang fp contract(off))
#  define NORMKIT_STRICT_FP_END NORMKIT_PRAGMA(float_control(pop))
#elif defined(__GNUC__)
#  define NORMKIT_STRICT_FP_BEGIN \
    NORMKIT_PRAGMA(GCC push_options) NORMKIT_PRAGMA(GCC optimize("fp-contract=off"))
#  define NORMKIT_STRICT_FP_END NORMKIT_PRAGMA(GCC pop_options)
#else
#  define NORMKIT_STRICT_FP_BEGIN __pragma(float_control(push)) __pragma(fp_contract(off))
#  define NORMKIT_STRICT_FP_END __pragma(float_control(pop))
#endif

// The instruction set is the one that the translation unit is compiled for. Each has a namespace of its own,
// so that units compiled for different ones may be linked into one program.
#if defined(__CUDACC__)
#  define NORMKIT_ISA device
#  define NORMKIT_VECTOR_BYTES 0
#elif defined(NORMKIT_FORCE_SCALAR)
#  define NORMKIT_ISA scalar
#  define NORMKIT_VECTOR_BYTES 0
#elif defined(__AVX512F__) && defined(__AVX512BW__) && defined(__AVX512DQ__) && defined(__AVX512VL__) && \
    defined(__F16C__)
#  define NORMKIT_ISA avx512
#  define NORMKIT_VECTOR_BYTES 64
#elif defined(__AVX2__) && defined(__F16C__)
#  define NORMKIT_ISA avx2
#  define NORMKIT_VECTOR_BYTES 32
#elif defined(__ARM_NEON) && defined(__aarch64__)
#  define NORMKIT_ISA neon
#  define NORMKIT_VECTOR_BYTES 16
#elif defined(__SSE2__)
#  define NORMKIT_ISA baseline
#  define NORMKIT_VECTOR_BYTES 16
#elif defined(__GNUC__) || defined(__clang__)
#  define NORMKIT_ISA baseline
#  define NORMKIT_VECTOR_BYTES 16
#else
#  define NORMKIT_ISA scalar
#  define NORMKIT_VECTOR_BYTES 0
#endif

#define NORMKIT_BEGIN_NAMESPACE               \
  NORMKIT_STRICT_FP_BEGIN namespace normkit { \
    inline namespace NORMKIT_ISA {            \
    namespace detail {
#define NORMKIT_END_NAMESPACE \
  }                           \
  }                           \
  }                           \
  NORMKIT_STRICT_FP_END

// Entry points are inline functions of the includer's ISA, or, where NORMKIT_COMPILED is defined (the CMake
// target normkit::normkit does), functions of the compiled library, which picks the ISA at run time. The two
// never share a name, so one program may use both.
#if defined(__GNUC__) || defined(__clang__)
#  define NORMKIT_EXPORT __attribute__((visibility("default")))
#else
#  define NORMKIT_EXPORT
#endif
#if defined(NORMKIT_COMPILED)
#  define NORMKIT_ENTRY NORMKIT_EXPORT
#  define NORMKIT_BEGIN_ENTRY_POINTS inline namespace compiled {
#else
#  define NORMKIT_ENTRY inline
#  define NORMKIT_BEGIN_ENTRY_POINTS inline namespace NORMKIT_ISA {
#endif
#define NORMKIT_END_ENTRY_POINTS }

#endif  // NORMKIT_DETAIL_CONFIG_HPP_
