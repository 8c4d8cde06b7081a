// Runs what was compiled for any processor, on an old one; in the same program lies the same for a newer one.
#include <normkit/types.hpp>

float third_of_plain(const float* x);
float library_third_of_plain(const float* x);
float third_of_newer(const float* x);
float library_third_of_newer(const float* x);

int main(int count, char**) {
  float x[37];
  for (int i = 0; i < 37; ++i) x[i] = static_cast<float>(i * i % 11) + 0.1f;
  if (count > 1) return third_of_newer(x) == library_third_of_newer(x) ? 0 : 1;
  return third_of_plain(x) == library_third_of_plain(x) &&
                 normkit::status_message(normkit::Status::kOk)[0] == 'o'
             ? 0
             : 1;
}
