// AdaptiveInstanceNorm (Huang, Belongie 2017, arXiv:1703.06868), forward and backward: content with the
// statistics of style.
//
//   y = (content - mean_c) rstd_c std_s + mean_s,   std = sqrt(var + eps) = 1 / rstd, var biased,
//   each over the space of one channel of one sample (_c: of content, _s: of style)
//   dcontent: InstanceNorm's gradient with weight std_s
//   dstyle = (style - mean_s) rstd_s sum(dy xhat)/n_s + sum(dy)/n_s,   xhat = (content - mean_c) rstd_c
//
// So the style's gradient is itself a normalization of style, with scale and shift from the sums over
// content.
#ifndef NORMKIT_ADAPTIVE_INSTANCE_NORM_HPP_
#define NORMKIT_ADAPTIVE_INSTANCE_NORM_HPP_

#pragma push_macro("Status")  // X11 has one
#undef Status

#include "normkit/channels.hpp"

namespace normkit {

// Both [N, C, space...]; N and C agree, space may differ, the style's is not empty.
struct AdaptiveInstanceNormShape {
  ChannelsShape content, style;
  NORMKIT_DEFAULT_CONSTRUCTOR(AdaptiveInstanceNormShape)
};

// content, y: the content's axes; y may be content itself. style: the style's axes. One dtype.
struct AdaptiveInstanceNormArgs {
  ConstView content;
  ConstView style;
  View y;
  double eps = 1e-5;
  Activation activation = Activation::kNone;
  NORMKIT_DEFAULT_CONSTRUCTOR(AdaptiveInstanceNormArgs)
};

// dcontent may be dy or content itself; dcontent, dstyle may be absent.
struct AdaptiveInstanceNormBackwardArgs {
  ConstView dy;
  ConstView content;
  ConstView style;
  View dcontent;
  View dstyle;
  double eps = 1e-5;
  NORMKIT_DEFAULT_CONSTRUCTOR(AdaptiveInstanceNormBackwardArgs)
};

NORMKIT_BEGIN_ENTRY_POINTS
NORMKIT_DECLARE_OPERATION(adaptive_instance_norm, AdaptiveInstanceNormShape, AdaptiveInstanceNormArgs)
NORMKIT_DECLARE_OPERATION(adaptive_instance_norm_backward, AdaptiveInstanceNormShape,
                          AdaptiveInstanceNormBackwardArgs)
NORMKIT_END_ENTRY_POINTS

}  // namespace normkit

#if !defined(NORMKIT_COMPILED)
#  include "normkit/detail/channels_plan.hpp"

NORMKIT_BEGIN_NAMESPACE

// Everything of a channel of a sample happens in one task, a tile of them: what style and content exchange
// stays in rings on the stack, where row r's is the one at r modulo kRing.
struct AdaptiveForward {
  RowsForward style, content;
};
struct AdaptiveBackward {
  RowsForward style;  // y is dstyle
  RowsBackward content;
};

// One number for each row of n elements, from a ring of structs of doubles.
template <typename Kept>
inline Operand ring_values(Kept*, double* first, int64_t rows, int64_t n) {
  Operand operand;
  operand.data = reinterpret_cast<char*>(first);
  operand.dtype = DType::kF64;
  operand.outer.append(divide_up(rows, kRing), 0);
  operand.outer.append(kRing, static_cast<int64_t>(sizeof(Kept) / sizeof(double)));
  operand.inner.append(n, 0);
  return operand;
}

// The style's means, and its standard deviations in the variances' place.
template <typename T>
NORMKIT_NOINLINE void style_statistics(const RowsForward& style, int64_t tile, MomentsRing& ring) {
  const int64_t first = tile * style.tile_rows;
  forward_tiles<T>(style, tile, tile + 1);
  for (int64_t r = first; r < first + style.tile_rows; ++r) {
    RowMoments& m = ring.of[r & (kRing - 1)];
    m.var = square_root(m.var + style.eps * m.scale * m.scale) / m.scale;
    m.mean /= m.scale;
  }
}

template <typename T>
void adaptive_phase(const void* state, int64_t begin, int64_t end) {
  const FloatEnvironment environment;
  const AdaptiveForward& p = *static_cast<const AdaptiveForward*>(state);
  RowsForward style = p.style, content = p.content;
  MomentsRing ring = {};
  ring.keep_for(style);
  content.weight = ring_values(ring.of, &ring.of->var, content.rows, content.n);
  content.bias = ring_values(ring.of, &ring.of->mean, content.rows, content.n);
  for (int64_t tile = begin; tile < end; ++tile) {
    style_statistics<T>(style, tile, ring);
    forward_tiles<T>(content, tile, tile + 1);
  }
}

template <typename T>
void adaptive_backward_phase(const void* state, int64_t begin, int64_t end) {
  using C = Compute<T>;
  const FloatEnvironment environment;
  const AdaptiveBackward& p = *static_cast<const AdaptiveBackward*>(state);
  RowsForward statistics = p.style, style = p.style;
  RowsBackward content = p.content;
  MomentsRing ring = {};
  Sums sums[kRing];  // of the content, as shift and scale of the style's gradient
  ring.keep_for(statistics);
  statistics.y = Operand{};
  content.weight = ring_values(ring.of, &ring.of->var, content.rows, content.n);
  style.weight = ring_values(sums, &sums->second, style.rows, style.n);
  style.bias = ring_values(sums, &sums->first, style.rows, style.n);
  const double n = static_cast<double>(style.n);
  BackwardBuffers<T> buffers;
  const Operand none{};
  ParameterReader<C> one(none, 0.0, C(1));
  for (int64_t tile = begin; tile < end; ++tile) {
    style_statistics<T>(statistics, tile, ring);
    ParameterReader<C> weight(content.weight, 0.0, C(1));  // a new one: the ring has changed
    const int64_t first = tile * style.tile_rows, left = style.rows - first;
    for (int64_t r = first; r < first + (left < style.tile_rows ? left : style.tile_rows); ++r) {
      const Sums total = content.n > 0 ? backward_set(content, r, weight, one, buffers) : Sums{0.0, 0.0};
      sums[r & (kRing - 1)] = {total.first / n, total.second / n};
    }
    if (style.y) forward_tiles<T>(style, tile, tile + 1);
  }
}

inline size_t adaptive_axes_bytes(const AdaptiveInstanceNormShape& shape) {
  const size_t content = more_axes_bytes(shape.content), style = more_axes_bytes(shape.style);
  return content > style ? content : style;
}

inline void check_adaptive(const AdaptiveInstanceNormShape& shape, double eps, const RowsProblem& content,
                           const RowsProblem& style, ArgumentChecker& check) {
  if (check.status() != Status::kOk) return;
  if (shape.content.size[0] != shape.style.size[0] || shape.content.size[1] != shape.style.size[1] ||
      (style.n == 0 && content.rows > 0 && content.n > 0))
    check.fail(Status::kInvalidShape);
  if (!is_eps(eps)) check.fail(Status::kInvalidEps);
}

NORMKIT_END_NAMESPACE

namespace normkit {
NORMKIT_BEGIN_ENTRY_POINTS

inline size_t adaptive_instance_norm_workspace_bytes(const AdaptiveInstanceNormShape& shape,
                                                     const AdaptiveInstanceNormArgs&) noexcept {
  return detail::adaptive_axes_bytes(shape);
}

inline Status adaptive_instance_norm_plan(const AdaptiveInstanceNormShape& shape,
                                          const AdaptiveInstanceNormArgs& args, Workspace workspace,
                                          Plan* plan) noexcept {
  using namespace detail;
  AdaptiveForward s;
  ArgumentChecker check{&workspace};
  SetAxes content(instance_sets(shape.content), &s.content, check);
  SetAxes style(instance_sets(shape.style), &s.style, check);
  check_adaptive(shape, args.eps, s.content, s.style, check);
  if (check.status() != Status::kOk) return check.status();
  check.input(args.content, content.elements(), content.element_strides(args.content.strides), true,
              &s.content.x);
  check.input(args.style, style.elements(), style.element_strides(args.style.strides), s.content.n > 0,
              &s.style.x);
  check.output(args.y, content.elements(), content.element_strides(args.y.strides), true, &s.content.y);
  check.same_type(s.content.x, s.style.x);
  check.same_type(s.content.x, s.content.y);
  check.activation(args.activation);
  s.content.activation = args.activation;
  check.overlaps(s.content.y, s.content.x, s.content.x);
  if (check.status() != Status::kOk) return check.status();
  plan->phase_count = 0;
  if (s.content.rows == 0 || s.content.n == 0) return Status::kOk;
  s.style.eps = s.content.eps = args.eps;
  choose_tiles(s.style);
  choose_tiles(s.content);
  if (s.style.tile_rows > s.content.tile_rows) s.style.tile_rows = s.content.tile_rows;
  s.content.tile_rows = s.style.tile_rows;
  plan->phases[0] = {tiles(s.content),
                     s.style.tile_rows * (s.style.n + 2 * s.content.n) * s.content.x.bytes(),
                     NORMKIT_PHASE_FUNCTIONS(adaptive_phase)[s.content.x.dtype]};
  plan->phase_count = 1;
  set_state(plan, s);
  return Status::kOk;
}

inline size_t adaptive_instance_norm_backward_workspace_bytes(
    const AdaptiveInstanceNormShape& shape, const AdaptiveInstanceNormBackwardArgs&) noexcept {
  return detail::adaptive_axes_bytes(shape);
}

inline Status adaptive_instance_norm_backward_plan(const AdaptiveInstanceNormShape& shape,
                                                   const AdaptiveInstanceNormBackwardArgs& args,
                                                   Workspace workspace, Plan* plan) noexcept {
  using namespace detail;
  AdaptiveBackward s;
  ArgumentChecker check{&workspace};
  SetAxes content(instance_sets(shape.content), &s.content, check);
  SetAxes style(instance_sets(shape.style), &s.style, check);
  check_adaptive(shape, args.eps, s.content, s.style, check);
  if (check.status() != Status::kOk) return check.status();
  check.input(args.dy, content.elements(), content.element_strides(args.dy.strides), true, &s.content.dy);
  check.input(args.content, content.elements(), content.element_strides(args.content.strides), true,
              &s.content.x);
  check.input(args.style, style.elements(), style.element_strides(args.style.strides), true, &s.style.x);
  check.output(args.dcontent, content.elements(), content.element_strides(args.dcontent.strides), false,
               &s.content.dx);
  check.output(args.dstyle, style.elements(), style.element_strides(args.dstyle.strides), false, &s.style.y);
  check.same_type(s.content.x, s.content.dy);
  check.same_type(s.content.x, s.style.x);
  check.same_type(s.content.x, s.content.dx);
  check.same_type(s.style.x, s.style.y);
  check.overlaps(s.content.dx, s.content.x, s.content.dy);
  if (check.status() != Status::kOk) return check.status();
  plan->phase_count = 0;
  if (s.content.rows == 0 || s.style.n == 0 || (s.content.n == 0 && !s.style.y)) return Status::kOk;
  s.style.eps = s.content.eps = args.eps;
  s.content.segments = 1;
  s.content.segment_run = s.content.run;
  choose_tiles(s.style);
  plan->phases[0] = {tiles(s.style),
                     s.style.tile_rows * (2 * s.style.n + 3 * s.content.n) * s.style.x.bytes(),
                     NORMKIT_PHASE_FUNCTIONS(adaptive_backward_phase)[s.style.x.dtype]};
  plan->phase_count = 1;
  set_state(plan, s);
  return Status::kOk;
}

NORMKIT_END_ENTRY_POINTS
}  // namespace normkit
#endif

#pragma pop_macro("Status")

#endif  // NORMKIT_ADAPTIVE_INSTANCE_NORM_HPP_
