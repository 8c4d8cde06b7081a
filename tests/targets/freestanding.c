/* What program.cpp needs of a C library, for big-endian AArch64, which no distribution has one for. */
#include <stdarg.h>
#include <stddef.h>

void* memcpy(void* restrict to, const void* restrict from, size_t n) {
  unsigned char* t = to;
  const unsigned char* f = from;
  for (size_t i = 0; i < n; ++i) t[i] = f[i];
  return to;
}
void* memmove(void* to, const void* from, size_t n) {
  unsigned char* t = to;
  const unsigned char* f = from;
  if (t < f) return memcpy(to, from, n);
  while (n-- > 0) t[n] = f[n];
  return to;
}
void* memset(void* to, int value, size_t n) {
  unsigned char* t = to;
  for (size_t i = 0; i < n; ++i) t[i] = (unsigned char)value;
  return to;
}

int fegetround(void) {
  unsigned long word;
  __asm__ volatile("mrs %0, fpcr" : "=r"(word));
  return (int)(word & 0xC00000);
}
int fesetround(int mode) {
  __asm__ volatile("msr fpcr, %0" : : "r"((unsigned long)mode) : "memory");
  return 0;
}

static long call(long number, long a, long b, long c) {
  register long x8 __asm__("x8") = number;
  register long x0 __asm__("x0") = a;
  register long x1 __asm__("x1") = b;
  register long x2 __asm__("x2") = c;
  __asm__ volatile("svc 0" : "+r"(x0) : "r"(x8), "r"(x1), "r"(x2) : "memory");
  return x0;
}
static void put(char c) {
  call(64, 1, (long)&c, 1);
}

/* %s, %d of a positive number, %08lx. */
int printf(const char* format, ...) {
  va_list list;
  va_start(list, format);
  for (; *format; ++format) {
    if (*format != '%') {
      put(*format);
    } else if (*++format == 's') {
      for (const char* s = va_arg(list, const char*); *s; ++s) put(*s);
    } else if (*format == 'd') {
      const int value = va_arg(list, int);
      for (int unit = 1000; unit > 0; unit /= 10)
        if (value >= unit || unit == 1) put((char)('0' + value / unit % 10));
    } else {
      format += 3;
      const unsigned long value = va_arg(list, unsigned long);
      for (int shift = 28; shift >= 0; shift -= 4) put("0123456789abcdef"[value >> shift & 15]);
    }
  }
  va_end(list);
  return 0;
}

int main(void);
void _start(void) {
  call(94, main(), 0, 0);
}
