// Elementwise operations: y = f(x), with parameters per channel. Forward; backward stands in
// map_backward.hpp.
//
// No element depends on another one, so the axes are taken in the order that memory has them: outer axes
// enumerate rows, inner ones the elements of a row, and a task is one block of one row. f maps 16 elements at
// a time; the last few go through a padded copy and the same f, so the bits depend on neither layout nor
// place.
#ifndef NORMKIT_DETAIL_MAP_HPP_
#define NORMKIT_DETAIL_MAP_HPP_

#include "normkit/detail/apply.hpp"
#include "normkit/detail/config.hpp"
#include "normkit/detail/math.hpp"
#include "normkit/detail/rows.hpp"

NORMKIT_BEGIN_NAMESPACE

struct MapForward {
  Operand x, y, alpha, weight, bias;
  int64_t n = 0;       // elements of a row
  int64_t period = 0;  // after so many elements of a row the parameters repeat
  int64_t block = 0;   // a multiple of the period, if one fits into kBlock
  int64_t blocks = 0;  // of a row
  Activation activation = Activation::kNone;
};

// Elements i .. i+count-1, count < 16, of a parameter; reads nothing beyond them.
template <typename C>
NORMKIT_INLINE Vec16<C> tail_of(Parameter<C> parameter, int i, int count) {
  return parameter.step == 0 ? parameter.at(0) : load_up_to16(parameter.data + i, count);
}

NORMKIT_INLINE Vec16<float> narrow_to(Vec16<double> v, float) {
  return narrow16(v);
}
NORMKIT_INLINE Vec16<double> narrow_to(Vec16<double> v, double) {
  return v;
}

// weight tanh(alpha x) + bias for one block.
template <typename C>
struct DynamicTanh {
  Parameter<double> alpha;
  Parameter<C> weight, bias;

  NORMKIT_INLINE Vec16<C> operator()(Vec16<C> x, int i) const {
    return value(x, alpha.at(i), weight.at(i), bias.at(i));
  }
  NORMKIT_INLINE Vec16<C> tail(Vec16<C> x, int i, int count) const {
    return value(x, tail_of(alpha, i, count), tail_of(weight, i, count), tail_of(bias, i, count));
  }

 private:
  static NORMKIT_INLINE Vec16<C> value(Vec16<C> x, Vec16<double> a, Vec16<C> w, Vec16<C> b) {
    constexpr bool kShort = sizeof(C) == sizeof(float);
    Vec16<double> t = a * widen(x);
    for (int p = 0; p < Vec16<double>::kParts; ++p) t.part[p] = tanh_part<kShort>(t.part[p]);
    return narrow_to(t, C()) * w + b;
  }
};

// What a task reads its blocks' parameters with.
template <typename C>
class DynamicTanhReader {
 public:
  using Function = DynamicTanh<C>;

  NORMKIT_INLINE explicit DynamicTanhReader(const MapForward& p)
      : alpha_(p.alpha, 0.0, 1.0), weight_(p.weight, 0.0, C(1)), bias_(p.bias, 0.0, C(-0.0)) {}

  NORMKIT_INLINE Function block(int64_t r, int64_t begin, int count) {
    return {alpha_.block(r, begin, count), weight_.block(r, begin, count), bias_.block(r, begin, count)};
  }

 private:
  ParameterReader<double> alpha_;
  ParameterReader<C> weight_, bias_;
};

// y may be x.
template <typename T, typename Function>
NORMKIT_NOINLINE void map_block(const T* x, T* y, int n, const Function& function) {
  int i = 0;
  for (; i + kVecLanes <= n; i += kVecLanes) store16(y + i, canonical(function(load16(x + i), i)));
  if (i < n) {
    store_up_to16(y + i, n - i, canonical(function.tail(load_up_to16(x + i, n - i), i, n - i)));
  }
}

template <typename T, typename Reader>
NORMKIT_NOINLINE void map_blocks(const MapForward& p, int64_t begin, int64_t end) {
  alignas(64) T x_buffer[kBlock];
  alignas(64) T y_buffer[kBlock];
  Reader parameters(p);
  for (int64_t task = begin; task < end; ++task) {
    const int64_t r = task / p.blocks, at = task % p.blocks * p.block;
    const int length = static_cast<int>(p.n - at < p.block ? p.n - at : p.block);
    const T* x = block_of(p.x, p.x.template row<const T>(r), at, length, x_buffer);
    T* row = p.y.template row<T>(r);
    T* straight = straight_block(p.y.inner, row, at, length);
    T* y = straight != nullptr ? straight : y_buffer;
    map_block(x, y, length, parameters.block(r, at % p.period, length));
    activate_block(p.activation, y, length);
    if (straight == nullptr) scatter(y, p.y.inner, at, length, row);
  }
}

template <typename T>
void dynamic_tanh_phase(const void* state, int64_t begin, int64_t end) {
  const FloatEnvironment environment;
  map_blocks<T, DynamicTanhReader<Compute<T>>>(*static_cast<const MapForward*>(state), begin, end);
}

NORMKIT_END_NAMESPACE

#endif  // NORMKIT_DETAIL_MAP_HPP_
