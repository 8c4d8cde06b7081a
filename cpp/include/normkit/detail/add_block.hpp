// Sums of blocks: residuals before a norm, gradients after one.
#ifndef NORMKIT_DETAIL_ADD_BLOCK_HPP_
#define NORMKIT_DETAIL_ADD_BLOCK_HPP_

#include "normkit/detail/apply.hpp"

NORMKIT_BEGIN_NAMESPACE

// sum = (x + residual) + bias in the computing type, rounded once to S; it may be x or the residual. A
// missing bias is -0, which changes no bit.
template <typename X, typename R, typename S>
NORMKIT_NOINLINE void add_block(const X* x, const R* residual, Parameter<Compute<X>> bias, S* sum, int n) {
  int i = 0;
  for (; i + kVecLanes <= n; i += kVecLanes)
    store16(sum + i, canonical((load16(x + i) + load16(residual + i)) + bias.at(i)));
  if (i < n) {
    const Tail<Compute<X>> b(bias.data + i * bias.step, bias.step ? n - i : kVecLanes);
    const auto v = canonical((Tail<X>(x + i, n - i).low + Tail<R>(residual + i, n - i).low) + b.low);
    store_tail(sum + i, n - i, v, v);
  }
}

// The same values in a narrower type.
template <typename T>
NORMKIT_NOINLINE void round_block(const float* x, T* to, int n) {
  int i = 0;
  for (; i + kVecLanes <= n; i += kVecLanes) store16(to + i, load16(x + i));
  if (i < n) {
    const Vec16<float> v = Tail<float>(x + i, n - i).low;
    store_tail(to + i, n - i, v, v);
  }
}

NORMKIT_END_NAMESPACE

#endif  // NORMKIT_DETAIL_ADD_BLOCK_HPP_
