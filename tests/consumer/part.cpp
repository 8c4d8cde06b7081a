// One of several translation units that are compiled for different instruction sets, or call the library, and
// are linked into one program.
#include <normkit/normkit.hpp>
#if defined(_OPENMP)
#  include <normkit/exec_openmp.hpp>
#endif

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
#if defined(_OPENMP)
  int threads = 2;
  const normkit::Executor executor = normkit::openmp_executor(&threads), *by = &executor;
#else
  const normkit::Executor* by = nullptr;
#endif
  return normkit::layer_norm({0, 1, size}, args, {}, by) == normkit::Status::kOk ? y[2] : -1000.0f;
}
