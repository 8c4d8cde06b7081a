// Wide references for the C++ tests: the closed formulas in 113-bit arithmetic, two passes, no code of
// normkit's.
#ifndef NORMKIT_TESTS_REFERENCE_HPP_
#define NORMKIT_TESTS_REFERENCE_HPP_

#include <cmath>
#include <cstdint>
#include <functional>
#include <vector>

namespace reference {

#if defined(__SIZEOF_FLOAT128__) && !defined(__aarch64__)
typedef __float128 Wide;
#else
typedef long double Wide;
#endif

inline Wide wide_abs(Wide v) {
  return v < 0 ? -v : v;
}

// Newton's iteration from double: each step doubles the digits.
inline Wide wide_sqrt(Wide v) {
  if (!(v > 0)) return v == 0 ? Wide(0) : Wide(NAN);
  Wide scale = 1;  // into double's range
  while (v * scale * scale < Wide(1e-200)) scale *= Wide(1e100);
  while (v * scale * scale > Wide(1e200)) scale /= Wide(1e100);
  const Wide scaled = v * scale * scale;
  Wide root = std::sqrt(static_cast<double>(scaled));
  for (int i = 0; i < 3; ++i) root = (root + scaled / root) / 2;
  return root / scale;
}

// Which elements share a statistic, and which share a parameter: all that tells one norm from another.
struct Geometry {
  int64_t elements, sets, parameters;
  std::function<int64_t(int64_t)> set_of, parameter_of;
  bool centred;
};

struct Result {
  std::vector<Wide> mean, rstd;    // per set
  std::vector<Wide> xhat, y;       // per element
  std::vector<Wide> dx, dx_terms;  // and the sum of the magnitudes that dx is made of
  std::vector<Wide> dweight, dweight_terms, dbias, dbias_terms;  // per parameter
};

// x, dy per element; weight, bias per parameter (empty: absent).
inline Result evaluate(const Geometry& g, const std::vector<Wide>& x, const std::vector<Wide>& dy,
                       const std::vector<Wide>& weight, const std::vector<Wide>& bias, Wide eps) {
  const auto sets = static_cast<std::size_t>(g.sets), elements = static_cast<std::size_t>(g.elements);
  const auto parameters = static_cast<std::size_t>(g.parameters);
  Result r;
  std::vector<Wide> count(sets, 0), sum(sets, 0), squares(sets, 0);
  const auto set = [&](std::size_t i) { return static_cast<std::size_t>(g.set_of(static_cast<int64_t>(i))); };
  const auto parameter = [&](std::size_t i) {
    return static_cast<std::size_t>(g.parameter_of(static_cast<int64_t>(i)));
  };
  for (std::size_t i = 0; i < elements; ++i) {
    count[set(i)] += 1;
    sum[set(i)] += x[i];
  }
  r.mean.assign(sets, 0);
  r.rstd.assign(sets, 0);
  for (std::size_t s = 0; s < sets; ++s) r.mean[s] = g.centred ? sum[s] / count[s] : Wide(0);
  for (std::size_t i = 0; i < elements; ++i) {
    const Wide d = x[i] - r.mean[set(i)];
    squares[set(i)] += d * d;
  }
  for (std::size_t s = 0; s < sets; ++s) r.rstd[s] = 1 / wide_sqrt(squares[s] / count[s] + eps);

  std::vector<Wide> g_sum(sets, 0), gx_sum(sets, 0), g_terms(sets, 0), gx_terms(sets, 0);
  r.xhat.resize(elements);
  r.y.resize(elements);
  for (auto* v : {&r.dweight, &r.dweight_terms, &r.dbias, &r.dbias_terms}) v->assign(parameters, 0);
  for (std::size_t i = 0; i < elements; ++i) {
    const std::size_t s = set(i), p = parameter(i);
    const Wide w = weight.empty() ? Wide(1) : weight[p];
    r.xhat[i] = (x[i] - r.mean[s]) * r.rstd[s];
    r.y[i] = r.xhat[i] * w + (bias.empty() ? Wide(0) : bias[p]);
    const Wide grad = dy[i] * w;
    g_sum[s] += grad;
    g_terms[s] += wide_abs(grad);
    gx_sum[s] += grad * r.xhat[i];
    gx_terms[s] += wide_abs(grad * r.xhat[i]);
    r.dweight[p] += dy[i] * r.xhat[i];
    r.dweight_terms[p] += wide_abs(dy[i] * r.xhat[i]);
    r.dbias[p] += dy[i];
    r.dbias_terms[p] += wide_abs(dy[i]);
  }
  r.dx.resize(elements);
  r.dx_terms.resize(elements);
  for (std::size_t i = 0; i < elements; ++i) {
    const std::size_t s = set(i), p = parameter(i);
    const Wide grad = dy[i] * (weight.empty() ? Wide(1) : weight[p]);
    const Wide a = g.centred ? g_sum[s] / count[s] : Wide(0), b = gx_sum[s] / count[s];
    r.dx[i] = (grad - a - r.xhat[i] * b) * r.rstd[s];
    r.dx_terms[i] = (wide_abs(grad) + (g.centred ? g_terms[s] / count[s] : Wide(0)) +
                     wide_abs(r.xhat[i]) * gx_terms[s] / count[s]) *
                    r.rstd[s];
  }
  return r;
}

}  // namespace reference

#endif  // NORMKIT_TESTS_REFERENCE_HPP_
