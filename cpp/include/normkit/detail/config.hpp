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

#include "normkit/detail/instruction_set.hpp"

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

#if defined(__clang__) && \
    (defined(__x86_64__) || defined(__i386__) || defined(__powerpc__) || defined(__s390x__))
#  define NORMKIT_STRICT_FP_BEGIN NORMKIT_PRAGMA(float_control(push)) NORMKIT_PRAGMA(clang fp contract(off))
#  define NORMKIT_STRICT_FP_END NORMKIT_PRAGMA(float_control(pop))
#elif defined(__clang__)
// For other targets float_control came late or not at all, and is then ignored with a warning. Afterwards
// what the command line says holds again.
#  define NORMKIT_STRICT_FP_BEGIN NORMKIT_PRAGMA(clang fp contract(off))
#  define NORMKIT_STRICT_FP_END NORMKIT_PRAGMA(STDC FP_CONTRACT DEFAULT)
#elif defined(__GNUC__) && defined(__ARM_FEATURE_MVE)
// Nor loops as MVE vectors, which flush subnormals.
#  define NORMKIT_STRICT_FP_BEGIN \
    NORMKIT_PRAGMA(GCC push_options) NORMKIT_PRAGMA(GCC optimize("fp-contract=off", "no-tree-vectorize"))
#  define NORMKIT_STRICT_FP_END NORMKIT_PRAGMA(GCC pop_options)
#elif defined(__GNUC__)
#  define NORMKIT_STRICT_FP_BEGIN \
    NORMKIT_PRAGMA(GCC push_options) NORMKIT_PRAGMA(GCC optimize("fp-contract=off"))
#  define NORMKIT_STRICT_FP_END NORMKIT_PRAGMA(GCC pop_options)
#else
#  define NORMKIT_STRICT_FP_BEGIN __pragma(float_control(push)) __pragma(fp_contract(off))
#  define NORMKIT_STRICT_FP_END __pragma(float_control(pop))
#endif

// What the compiled library defines inside its units never leaves it.
#if defined(NORMKIT_LIBRARY_UNIT) && !defined(__CUDACC__) && (defined(__GNUC__) || defined(__clang__))
#  define NORMKIT_HIDDEN __attribute__((visibility("hidden")))
#else
#  define NORMKIT_HIDDEN
#endif

// For functions that are no kernels and that a program may compile for several instruction sets, as kernels
// are.
#define NORMKIT_BEGIN_INLINE inline namespace NORMKIT_ISA NORMKIT_HIDDEN {
#define NORMKIT_END_INLINE }

#define NORMKIT_BEGIN_NAMESPACE                   \
  NORMKIT_STRICT_FP_BEGIN namespace normkit {     \
    inline namespace NORMKIT_ISA NORMKIT_HIDDEN { \
    namespace detail {
#define NORMKIT_END_NAMESPACE \
  }                           \
  }                           \
  }                           \
  NORMKIT_STRICT_FP_END

// Entry points are inline functions of the includer's ISA, or, where NORMKIT_COMPILED is defined (the CMake
// target normkit::normkit does), functions of the compiled library, which picks the ISA at run time. The two
// never share a name, so one program may use both. What is inline beside the library's functions is the
// includer's ISA again: NORMKIT_BEGIN_CALLS.
#if defined(__GNUC__) || defined(__clang__)
#  define NORMKIT_EXPORT __attribute__((visibility("default")))
#else
#  define NORMKIT_EXPORT
#endif
#if defined(NORMKIT_COMPILED)
#  define NORMKIT_ENTRY NORMKIT_EXPORT
#  define NORMKIT_BEGIN_ENTRY_POINTS inline namespace compiled {
#  define NORMKIT_BEGIN_CALLS inline namespace NORMKIT_JOIN2(from_, NORMKIT_ISA) NORMKIT_HIDDEN {
#  define NORMKIT_END_CALLS }
#else
#  define NORMKIT_ENTRY inline
#  define NORMKIT_BEGIN_ENTRY_POINTS NORMKIT_BEGIN_INLINE
#  define NORMKIT_BEGIN_CALLS
#  define NORMKIT_END_CALLS
#endif
#define NORMKIT_END_ENTRY_POINTS }

// An argument struct is one type in all units, so its default constructor is one function, which must not be
// left to the linker: without optimization compilers call it. C++20 counts a struct with such a line as no
// aggregate, so there it stays a function.
#if __cplusplus <= 201703L && !defined(_MSC_VER) && !defined(__CUDACC__)
#  define NORMKIT_DEFAULT_CONSTRUCTOR(Struct) NORMKIT_INLINE Struct() noexcept = default;
#else
#  define NORMKIT_DEFAULT_CONSTRUCTOR(Struct)
#endif

#endif  // NORMKIT_DETAIL_CONFIG_HPP_
