// What every processor must print alike: hashes of LayerNorm and RMSNorm, forward and backward, in every type
// and in sizes with every kind of tail, of subnormal numbers too, and once more in a strange floating-point
// mode of the caller's.
#include <fenv.h>
#include <normkit/layer_norm.hpp>
#include <normkit/rms_norm.hpp>

#include <cstdio>
#include <cstring>
#include <initializer_list>

namespace {

using namespace normkit;

constexpr int kRows = 3, kMost = 101;
unsigned char x[kRows * kMost * 8], dy[sizeof(x)], y[sizeof(x)], dx[sizeof(x)], weight[kMost * 8],
    bias[kMost * 8];
double dweight[kMost], dbias[kMost], mean[kRows], rstd[kRows];
unsigned char workspace[1 << 15];

// ---- the caller's mode ----

#if defined(__arm__) && defined(__ARM_FP)
// Rounded up, subnormals flushed.
unsigned mode() {
  unsigned word;
  __asm__ volatile("vmrs %0, fpscr" : "=r"(word));
  return word & 0x07C00000u;
}
void set_mode(bool strange) {
  unsigned word;
  __asm__ volatile("vmrs %0, fpscr" : "=r"(word));
  word = (word & ~0x01C00000u) | (strange ? 0x01400000u : 0u);
  __asm__ volatile("vmsr fpscr, %0" : : "r"(word) : "memory");
}
#elif defined(FE_UPWARD) && !defined(__ARM_EABI__)
unsigned mode() {
  return static_cast<unsigned>(fegetround());
}
void set_mode(bool strange) {
  fesetround(strange ? FE_UPWARD : FE_TONEAREST);
}
#else
unsigned mode() {
  return 0;
}
void set_mode(bool) {}
#endif

// ---- numbers ----

struct Random {
  uint32_t state = 1;
  double next() {  // -1 to 1, in 8 bits
    state = state * 1664525u + 1013904223u;
    return static_cast<double>(state >> 24) / 128.0 - 1.0;
  }
};

// `value` has few digits, and its type has room for its exponent; bfloat16 loses digits.
void set(unsigned char* array, int i, DType dtype, double value) {
  const float single = static_cast<float>(value);
  uint32_t bits;
  memcpy(&bits, &single, sizeof(bits));
  if (dtype == DType::kF64) memcpy(array + 8 * i, &value, 8);
  if (dtype == DType::kF32) memcpy(array + 4 * i, &single, 4);
  uint16_t half = static_cast<uint16_t>(bits >> 16);
  if (dtype == DType::kF16) {
    const uint32_t sign = half & 0x8000u, magnitude = bits & 0x7FFFFFFFu;
    half = static_cast<uint16_t>(magnitude == 0 ? sign : sign | ((magnitude - (112u << 23)) >> 13));
  }
  if (size_of(dtype) == 2) memcpy(array + 2 * i, &half, 2);
}

// Bytes of numbers, the highest first.
uint64_t hash(uint64_t h, const void* data, int count, int size) {
  const unsigned char* p = static_cast<const unsigned char*>(data);
  for (int i = 0; i < count * size; i += size) {
    for (int k = 0; k < size; ++k) {
#if defined(__BYTE_ORDER__) && __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
      h = (h ^ p[i + k]) * 1099511628211u;
#else
      h = (h ^ p[i + size - 1 - k]) * 1099511628211u;
#endif
    }
  }
  return h;
}

// The mode is set for the calls alone: numbers are prepared in the usual one.
uint64_t run(bool centred, DType dtype, int n, double scale, bool strange, bool* kept) {
  Random random;
  for (int i = 0; i < kRows * n; ++i) set(x, i, dtype, (random.next() + 2.0 * (i % 3)) * scale);
  for (int i = 0; i < kRows * n; ++i) set(dy, i, dtype, random.next());
  for (int i = 0; i < n; ++i) set(weight, i, dtype, random.next());
  for (int i = 0; i < n; ++i) set(bias, i, dtype, random.next());
  const int64_t size[] = {kRows, n};
  const RowsShape shape = {1, 1, size};
  Status forward, backward;
  const auto fill = [&](auto& f, auto& b) {
    f.x = {x, dtype};
    f.y = {y, dtype};
    f.weight = {weight, dtype};
    f.bias = {bias, dtype};
    f.rstd = rstd;
    f.eps = b.eps = 1e-30;
    b.x = {x, dtype};
    b.dy = {dy, dtype};
    b.weight = {weight, dtype};
    b.dx = {dx, dtype};
    b.dweight = dweight;
    b.dbias = dbias;
  };
  LayerNormArgs layer_forward;
  LayerNormBackwardArgs layer_backward;
  fill(layer_forward, layer_backward);
  layer_forward.mean = mean;
  RmsNormArgs rms_forward;
  RmsNormBackwardArgs rms_backward;
  fill(rms_forward, rms_backward);
  const Workspace scratch = {workspace, sizeof(workspace)};
  set_mode(strange);
  const unsigned before = mode();
  if (centred) {
    forward = layer_norm(shape, layer_forward);
    backward = layer_norm_backward(shape, layer_backward, scratch);
  } else {
    forward = rms_norm(shape, rms_forward);
    backward = rms_norm_backward(shape, rms_backward, scratch);
  }
  *kept = mode() == before;
  set_mode(false);
  if (forward != Status::kOk || backward != Status::kOk) return 0;
  const int element = static_cast<int>(size_of(dtype));
  uint64_t h = 14695981039346656037u;
  h = hash(h, y, kRows * n, element);
  h = hash(h, dx, kRows * n, element);
  h = hash(h, dweight, n, 8);
  h = hash(h, dbias, n, 8);
  return hash(h, rstd, kRows, 8);
}

}  // namespace

int main() {
  constexpr int kSizes[] = {3, 64, 67, 101};
  static const char* const kNames[] = {"f32", "f64", "f16", "bf16"};
  for (int centred = 0; centred < 2; ++centred) {
    for (int type = 0; type < 4; ++type) {
      const DType dtype = static_cast<DType>(type);
      // 2^-133: subnormal in float and bfloat16.
      const double small = dtype == DType::kF64 ? 0x1p-1060 : dtype == DType::kF16 ? 0x1p-7 : 0x1p-133;
      for (const int n : kSizes) {
        for (const double scale : {1.0, small}) {
          bool kept = false;
          const uint64_t h = run(centred != 0, dtype, n, scale, false, &kept);
          const uint64_t again = run(centred != 0, dtype, n, scale, true, &kept);
          std::printf("%s %s %d%s: %08lx%08lx%s%s\n", centred != 0 ? "layer_norm" : "rms_norm", kNames[type],
                      n, scale == 1.0 ? "" : ", small", static_cast<unsigned long>(h >> 32),
                      static_cast<unsigned long>(h & 0xFFFFFFFFu),
                      again == h ? "" : ", otherwise in another mode", kept ? "" : ", mode lost");
        }
      }
    }
  }
  return 0;
}
