// LayerNorm from the headers alone: no library, no heap, the instruction set of your own flags.
//   g++ -std=c++17 -O2 -march=native -I cpp/include cpp/examples/layer_norm.cpp
#include <normkit/normkit.hpp>

#include <cstdio>

int main() {
  // The second row is the first plus 9999.
  const float x[2][4] = {{1, 2, 3, 4}, {10000, 10001, 10002, 10003}};
  const float weight[4] = {1, 1, 1, 2}, bias[4] = {0, 0, 0, 1};
  float y[2][4];

  const int64_t size[] = {2, 4};  // one outer axis: rows; one inner axis: normalized together
  normkit::LayerNormArgs args;
  args.x = &x[0][0];
  args.y = &y[0][0];
  args.weight = weight;
  args.bias = bias;
  // {}: it needs no workspace. nullptr: on this thread. Left out, headers do the same; the compiled library
  // would use OpenMP threads for large arrays, a team for each thread of yours that calls.
  const normkit::Status status = normkit::layer_norm({1, 1, size}, args, {}, nullptr);
  if (status != normkit::Status::kOk) {
    std::printf("%s\n", normkit::status_message(status));
    return 1;
  }

  bool same = true;  // LayerNorm does not see the 9999: not in exact arithmetic, and not here
  for (int i = 0; i < 4; ++i) {
    std::printf("%9.6f %9.6f\n", static_cast<double>(y[0][i]), static_cast<double>(y[1][i]));
    same = same && y[0][i] == y[1][i];
  }
  return same ? 0 : 1;
}
