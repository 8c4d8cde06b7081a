// One of several translation units that are compiled for different instruction sets, or call the library, and
// are linked into one program.
#include <normkit/normkit.hpp>

#define NORMKIT_CONCAT_(a, b) a##b
#define NORMKIT_CONCAT(a, b) NORMKIT_CONCAT_(a, b)

#if !defined(PREFIX)
#  define PREFIX third_of_
#endif

float NORMKIT_CONCAT(PREFIX, PART)(const float* x) {
  float y[37];
  const int64_t size[] = {37};
  normkit::LayerNormArgs args;
  args.x = x;
  args.y = y;
  return normkit::layer_norm({0, 1, size}, args) == normkit::Status::kOk ? y[2] : -1000.0f;
}
