#ifndef NORMKIT_DETAIL_MATH_HPP_
#define NORMKIT_DETAIL_MATH_HPP_
#include <math.h>
#include "normkit/detail/config.hpp"
NORMKIT_BEGIN_NAMESPACE
inline double pow_of(double a, double b) {
  return pow(a, b);
}
inline double exp_of(double a) {
  return exp(a);
}
NORMKIT_END_NAMESPACE
#endif
