// Sums of blocks: residuals before a norm, gradients after one.
#ifndef NORMKIT_DETAIL_ADD_BLOCK_HPP_
#define NORMKIT_DETAIL_ADD_BLOCK_HPP_

#include "normkit/detail/apply.hpp"
#include "normkit/detail/reduce.hpp"

NORMKIT_BEGIN_NAMESPACE

// sum = (x + residual) + bias in the computing type, rounded once to S; it may be x or the residual. A
// missing bias is -0, which changes no bit. kTotal, of float: returns block_sum(sum).
template <bool kTotal = false, typename X, typename R, typename S>
NORMKIT_NOINLINE double add_block(const X* x, const R* residual, Parameter<Compute<X>> bias, S* sum, int n) {
  using Vec = Vec16<Compute<X>>;
  LaneSums<Compute<X>> total;
  int i = 0;
  for (; i + kLanes <= n; i += kLanes) {
    const Load32<X> a(x + i);
    const Load32<R> b(residual + i);
    const Vec low = canonical((a.low + b.low) + bias.at(i));
    const Vec high = canonical((a.high + b.high) + bias.at(i + kVecLanes));
    store32(sum + i, low, high);
    if constexpr (kTotal) total.add(low, high);
  }
  if (i < n) {
    const Tail<X> a(x + i, n - i);
    const Tail<R> b(residual + i, n - i);
    const ParameterTail<Compute<X>> c(bias, i, n - i);
    const Vec low = canonical((a.low + b.low) + c.low);
    const Vec high = canonical((a.high + b.high) + c.high);
    store_tail(sum + i, n - i, low, high);
    if constexpr (kTotal) total.add(keep_below(low, 0, n - i), keep_below(high, kVecLanes, n - i));
  }
  return kTotal ? total.total().high : 0.0;
}

// The same values in a narrower type.
template <typename T>
NORMKIT_NOINLINE void round_block(const float* x, T* to, int n) {
  int i = 0;
  for (; i + kVecLanes <= n; i += kVecLanes) store16(to + i, load16(x + i));
  if (i < n) store_up_to16(to + i, n - i, load_up_to16(x + i, n - i));
}

NORMKIT_END_NAMESPACE

#endif  // NORMKIT_DETAIL_ADD_BLOCK_HPP_
