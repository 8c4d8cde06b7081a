// A call with its arrays, and the wide reference of the same data.
#ifndef NORMKIT_TESTS_PROBLEM_HPP_
#define NORMKIT_TESTS_PROBLEM_HPP_

#include "../reference/reference.hpp"
#include "data.hpp"
#include "operations.hpp"

namespace tests {

struct Problem {
  const Operation& op;
  Dims d;
  Array x, dy, weight, bias, y, dx, dweight, dbias;
  std::vector<double> mean, rstd;
  bool parameters = true;
  double eps = 1e-5;

  Problem(const Operation& op_, const Dims& d_, DType dtype, uint64_t seed = 1)
      : op(op_),
        d(d_),
        x(dtype, d.elements()),
        dy(x),
        weight(dtype, op.parameters(d)),
        bias(weight),
        y(x),
        dx(x),
        dweight(weight),
        dbias(weight),
        mean(static_cast<size_t>(op.sets(d)), -1.0),
        rstd(mean) {
    Random random(seed);
    for (size_t i = 0; i < x.size(); ++i) {
      x.set(i, random.normal() + 0.5);
      dy.set(i, random.normal());
    }
    for (size_t i = 0; i < weight.size(); ++i) {
      weight.set(i, 1.0 + random.normal() * 0.25);
      bias.set(i, random.normal());
    }
  }
  Problem(const Problem&) = default;

  Arrays arrays() {
    Arrays a;
    a.dtype = x.dtype;
    a.x = x.bytes.data();
    a.dy = dy.bytes.data();
    if (parameters) {
      a.weight = weight.bytes.data();
      a.bias = bias.bytes.data();
    }
    a.y = y.bytes.data();
    a.dx = dx.bytes.data();
    a.dweight = dweight.bytes.data();
    a.dbias = dbias.bytes.data();
    a.mean = mean.data();
    a.rstd = rstd.data();
    a.eps = eps;
    return a;
  }

  Status run(const Executor* executor = nullptr) {
    const Status status = forward(op, d, arrays(), executor);
    if (status != Status::kOk) return status;
    Arrays a = arrays();
    a.saved = true;
    return backward(op, d, a, executor);
  }

  reference::Result expected() const {
    using reference::Wide;
    const reference::Geometry g{d.elements(),
                                op.sets(d),
                                op.parameters(d),
                                [this](int64_t i) { return op.set_of(d, i); },
                                [this](int64_t i) { return op.parameter_of(d, i); },
                                op.centred};
    return reference::evaluate(g, x.wide<Wide>(), dy.wide<Wide>(),
                               parameters ? weight.wide<Wide>() : std::vector<Wide>(),
                               parameters ? bias.wide<Wide>() : std::vector<Wide>(), eps);
  }

  uint64_t hash() const {
    uint64_t h = 14695981039346656037u;
    for (const Array* array : {&y, &dx, &dweight, &dbias})
      h = fnv(h, array->bytes.data(), array->bytes.size());
    if (op.centred) h = fnv(h, mean.data(), mean.size() * sizeof(double));
    return fnv(h, rstd.data(), rstd.size() * sizeof(double));
  }
};

// One unit in the last place of `value` in the type.
inline reference::Wide ulp(reference::Wide value, DType dtype) {
  int exponent;
  std::frexp(static_cast<double>(value), &exponent);
  const Format f = format_of(dtype);
  const int lowest = exponent - 1 < f.minimum_exponent ? f.minimum_exponent : exponent - 1;
  return reference::Wide(std::ldexp(1.0, lowest < -1000 ? -1000 : lowest)) *
         (lowest < -1000 ? reference::Wide(std::ldexp(1.0, lowest + 1000)) : reference::Wide(1)) *
         reference::Wide(std::ldexp(1.0, -f.mantissa_bits));
}

}  // namespace tests

#endif  // NORMKIT_TESTS_PROBLEM_HPP_
