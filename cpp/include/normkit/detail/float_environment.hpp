// The floating-point mode of a thread: the control word of each processor that has one.
#ifndef NORMKIT_DETAIL_FLOAT_ENVIRONMENT_HPP_
#define NORMKIT_DETAIL_FLOAT_ENVIRONMENT_HPP_

#include "normkit/detail/config.hpp"

#if (defined(__SSE2__) || defined(_M_X64)) && !defined(__CUDACC__)
#  include <immintrin.h>
#endif

NORMKIT_BEGIN_NAMESPACE

// Type of the control word, and how it is read and written. `plain` has, of the mode that was found, what is
// no mode: rounding is to nearest, subnormals are kept, nothing traps.
#if defined(__CUDACC__)
// Device code has no mode.
#elif defined(__SSE2__) || defined(_M_X64)
#  define NORMKIT_FLOAT_MODE 1
using FloatMode = unsigned;
NORMKIT_INLINE FloatMode float_mode() {
  return _mm_getcsr();
}
NORMKIT_INLINE void set_float_mode(FloatMode mode) {
  _mm_setcsr(mode);
}
NORMKIT_INLINE FloatMode plain(FloatMode) {
  return 0x1F80;
}
#elif defined(__aarch64__)
#  define NORMKIT_FLOAT_MODE 1
using FloatMode = uint64_t;
NORMKIT_INLINE FloatMode float_mode() {
  FloatMode mode;
  __asm__ volatile("mrs %0, fpcr" : "=r"(mode));
  return mode;
}
NORMKIT_INLINE void set_float_mode(FloatMode mode) {
  __asm__ volatile("msr fpcr, %0" : : "r"(mode) : "memory");
}
NORMKIT_INLINE FloatMode plain(FloatMode) {
  return 0;
}
#elif defined(__arm__) && defined(__ARM_FP) && (!defined(__thumb__) || defined(__thumb2__))
#  define NORMKIT_FLOAT_MODE 1
using FloatMode = uint32_t;
NORMKIT_INLINE FloatMode float_mode() {
  FloatMode mode;
  __asm__ volatile("vmrs %0, fpscr" : "=r"(mode));
  return mode;
}
NORMKIT_INLINE void set_float_mode(FloatMode mode) {
#  if defined(__clang__)
  __asm__ volatile("vmsr fpscr, %0" : : "r"(mode) : "memory", "cc");
#  else
  __asm__ volatile("vmsr fpscr, %0" : : "r"(mode) : "memory", "cc", "vfpcc");
#  endif
}
NORMKIT_INLINE FloatMode plain(FloatMode found) {
  return found & ~FloatMode(0x07C89F00);  // AHP, DN, FZ, RMode, FZ16, traps; not LTPSIZE or Len
}
#elif defined(__riscv) && defined(__riscv_flen)
#  define NORMKIT_FLOAT_MODE 1
using FloatMode = uint32_t;
NORMKIT_INLINE FloatMode float_mode() {
  FloatMode mode;
  __asm__ volatile("frcsr %0" : "=r"(mode));
  return mode;
}
NORMKIT_INLINE void set_float_mode(FloatMode mode) {
  __asm__ volatile("fscsr %0" : : "r"(mode) : "memory");
}
NORMKIT_INLINE FloatMode plain(FloatMode) {
  return 0;
}
#elif defined(__s390x__)
#  define NORMKIT_FLOAT_MODE 1
using FloatMode = uint32_t;
NORMKIT_INLINE FloatMode float_mode() {
  FloatMode mode;
  __asm__ volatile("efpc %0" : "=d"(mode));
  return mode;
}
NORMKIT_INLINE void set_float_mode(FloatMode mode) {
  __asm__ volatile("sfpc %0" : : "d"(mode) : "memory");
}
NORMKIT_INLINE FloatMode plain(FloatMode) {
  return 0;
}
#elif defined(__powerpc__) && (defined(__GNUC__) || defined(__clang__)) && !defined(_SOFT_FLOAT)
#  define NORMKIT_FLOAT_MODE 1
using FloatMode = double;  // the word's bits
NORMKIT_INLINE FloatMode float_mode() {
  FloatMode mode;
  __asm__ volatile("mffs %0" : "=f"(mode));
  return mode;
}
NORMKIT_INLINE void set_float_mode(FloatMode mode) {
  __asm__ volatile("mtfsf 255, %0" : : "f"(mode) : "memory");
}
NORMKIT_INLINE FloatMode plain(FloatMode) {
  return 0.0;
}
#elif defined(__mips_hard_float) && !defined(__mips16)
#  define NORMKIT_FLOAT_MODE 1
using FloatMode = uint32_t;
NORMKIT_INLINE FloatMode float_mode() {
  FloatMode mode;
  __asm__ volatile("cfc1 %0, $31" : "=r"(mode));
  return mode;
}
NORMKIT_INLINE void set_float_mode(FloatMode mode) {
  __asm__ volatile("ctc1 %0, $31" : : "r"(mode) : "memory");
}
NORMKIT_INLINE FloatMode plain(FloatMode found) {
  return found & ~FloatMode(0x0103FFFF);  // FS, causes, traps, flags, rounding; not what NaN are
}
#endif

// While it lives, this thread rounds to nearest and keeps subnormals; then the caller's control word is back,
// flags included.
class FloatEnvironment {
 public:
#if defined(NORMKIT_FLOAT_MODE)
  NORMKIT_INLINE FloatEnvironment() : saved_(float_mode()) { set_float_mode(plain(saved_)); }
  NORMKIT_INLINE ~FloatEnvironment() { set_float_mode(saved_); }

 private:
  FloatMode saved_;
#else
  NORMKIT_INLINE FloatEnvironment() {}
#endif
};

NORMKIT_END_NAMESPACE

#endif  // NORMKIT_DETAIL_FLOAT_ENVIRONMENT_HPP_
