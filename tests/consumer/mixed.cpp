// Three builds of the same operation in one program: two header-only units and the compiled library.
#include <normkit/normkit.hpp>

#include <cstdio>

float third_of_first(const float* x);
float third_of_second(const float* x);

int main() {
  float x[37], y[37];
  for (int i = 0; i < 37; ++i) x[i] = static_cast<float>(i * i % 11) + 0.1f;
  const int64_t size[] = {37};
  normkit::LayerNormArgs args;
  args.x = x;
  args.y = y;
  if (normkit::layer_norm({0, 1, size}, args) != normkit::Status::kOk) return 1;
  std::printf("%a %a %a\n", static_cast<double>(y[2]), static_cast<double>(third_of_first(x)),
              static_cast<double>(third_of_second(x)));
  return y[2] == third_of_first(x) && y[2] == third_of_second(x) ? 0 : 1;
}
