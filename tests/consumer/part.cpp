// One of two translation units that are compiled for different instruction sets and linked into one program.
#include <normkit/normkit.hpp>

#define NORMKIT_CONCAT_(a, b) a##b
#define NORMKIT_CONCAT(a, b) NORMKIT_CONCAT_(a, b)

float NORMKIT_CONCAT(third_of_, PART)(const float* x) {
  float y[37];
  const int64_t size[] = {37};
  normkit::LayerNormArgs args;
  args.x = x;
  args.y = y;
  return normkit::layer_norm({0, 1, size}, args) == normkit::Status::kOk ? y[2] : -1000.0f;
}
