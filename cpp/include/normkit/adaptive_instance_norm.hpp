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

#include "normkit/channels.hpp"

namespace normkit {

// Both [N, C, space...]; N and C agree, space may differ, the style's is not empty.
struct AdaptiveInstanceNormShape {
  ChannelsShape content, style;
};

// content, y: the content's axes; y may be content itself. style: the style's axes. One dtype.
struct AdaptiveInstanceNormArgs {
  ConstView content;
  ConstView style;
  View y;
  double eps = 1e-5;
  Activation activation = Activation::kNone;
};

// dcontent may be dy or content itself; dcontent, dstyle may be absent.
struct AdaptiveInstanceNormBackwardArgs {
  ConstView dy;
  ConstView content;
  ConstView style;
  View dcontent;
  View dstyle;
  double eps = 1e-5;
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

struct AdaptiveForward {
  RowsForward style;  // its moments are the content's mean and std
  RowsForward content;
};
struct AdaptiveBackward {
  RowsForward style;  // y is dstyle
  RowsBackward content;
};

// Phase 1: the style's mean, and its standard deviation in the variance's place.
template <typename T>
NORMKIT_NOINLINE void style_statistics(RowsForward style, int64_t begin, int64_t end) {
  style.y = Operand{};
  forward_tiles<T>(style, begin, end);
  const int64_t last = end * style.tile_rows < style.rows ? end * style.tile_rows : style.rows;
  for (int64_t r = begin * style.tile_rows; r < last; ++r) {
    RowMoments& m = style.moments[r];
    m.var = square_root(m.var + style.eps * m.scale * m.scale) / m.scale;
  }
}
template <typename T, typename State>
void style_phase(const void* state, int64_t begin, int64_t end) {
  const FloatEnvironment environment;
  style_statistics<T>(static_cast<const State*>(state)->style, begin, end);
}

template <typename T>
void content_phase(const void* state, int64_t begin, int64_t end) {
  const FloatEnvironment environment;
  forward_tiles<T>(static_cast<const AdaptiveForward*>(state)->content, begin, end);
}

// Phase 2 of backward: the content's gradient, and its sums as scale and shift of the style's.
template <typename T>
void content_backward_phase(const void* state, int64_t begin, int64_t end) {
  const FloatEnvironment environment;
  const AdaptiveBackward& p = *static_cast<const AdaptiveBackward*>(state);
  if (p.content.n > 0) backward_sets<T>(p.content, begin, end);
  const double n = static_cast<double>(p.style.n);
  for (int64_t r = begin; r < end; ++r) {
    Sums& sums = p.content.channel_sums[r];
    sums = p.content.n > 0 ? Sums{sums.first / n, sums.second / n} : Sums{0.0, 0.0};
  }
}

template <typename T>
void style_backward_phase(const void* state, int64_t begin, int64_t end) {
  const FloatEnvironment environment;
  RowsForward style = static_cast<const AdaptiveBackward*>(state)->style;
  style.moments = nullptr;
  forward_tiles<T>(style, begin, end);
}

constexpr int64_t kMomentsStep = sizeof(RowMoments) / sizeof(double);

// One double for each row of n elements, `step` doubles apart.
inline Operand row_values(double* values, int64_t rows, int64_t step, int64_t n) {
  Operand operand;
  operand.data = reinterpret_cast<char*>(values);
  operand.dtype = DType::kF64;
  operand.outer.append(rows, step);
  operand.inner.append(n, 0);
  return operand;
}

inline size_t adaptive_bytes(const AdaptiveInstanceNormShape& shape, size_t row_bytes) {
  RowsProblem p;
  ArgumentChecker check;
  const SetAxes axes(instance_sets(shape.style), &p, check);
  return check.status() != Status::kOk ? 0 : static_cast<size_t>(p.rows) * row_bytes + 64;
}

inline void check_adaptive(const AdaptiveInstanceNormShape& shape, double eps, const RowsProblem& content,
                           const RowsProblem& style, ArgumentChecker& check) {
  if (check.status() != Status::kOk) return;
  if (shape.content.size[0] != shape.style.size[0] || shape.content.size[1] != shape.style.size[1] ||
      (style.n == 0 && content.rows > 0 && content.n > 0))
    check.fail(Status::kInvalidShape);
  if (is_nan(eps)) check.fail(Status::kInvalidEps);
}

NORMKIT_END_NAMESPACE

namespace normkit {
NORMKIT_BEGIN_ENTRY_POINTS

inline size_t adaptive_instance_norm_workspace_bytes(const AdaptiveInstanceNormShape& shape,
                                                     const AdaptiveInstanceNormArgs&) noexcept {
  return detail::adaptive_bytes(shape, sizeof(detail::RowMoments));
}

inline Status adaptive_instance_norm_plan(const AdaptiveInstanceNormShape& shape,
                                          const AdaptiveInstanceNormArgs& args, Workspace workspace,
                                          Plan* plan) noexcept {
  using namespace detail;
  AdaptiveForward s;
  ArgumentChecker check;
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
  const int64_t rows = s.content.rows;
  if (rows == 0 || s.content.n == 0) return Status::kOk;
  s.style.moments = reinterpret_cast<RowMoments*>(
      aligned_scratch(workspace, static_cast<size_t>(rows) * sizeof(RowMoments)));
  if (s.style.moments == nullptr) return Status::kWorkspaceTooSmall;
  s.style.eps = s.content.eps = args.eps;
  s.content.weight = row_values(&s.style.moments->var, rows, kMomentsStep, s.content.n);
  s.content.bias = row_values(&s.style.moments->mean, rows, kMomentsStep, s.content.n);
  choose_tiles(s.style);
  choose_tiles(s.content);
  const DType dtype = s.content.x.dtype;
  const int64_t element = s.content.x.bytes();
  static constexpr PhaseFunctions kStyle = {
      {&style_phase<float, AdaptiveForward>, &style_phase<double, AdaptiveForward>,
       &style_phase<Float16, AdaptiveForward>, &style_phase<BFloat16, AdaptiveForward>}};
  plan->phases[0] = {tiles(s.style), s.style.tile_rows * s.style.n * element, kStyle[dtype]};
  plan->phases[1] = {tiles(s.content), 2 * s.content.tile_rows * s.content.n * element,
                     NORMKIT_PHASE_FUNCTIONS(content_phase)[dtype]};
  plan->phase_count = 2;
  set_state(plan, s);
  return Status::kOk;
}

inline size_t adaptive_instance_norm_backward_workspace_bytes(
    const AdaptiveInstanceNormShape& shape, const AdaptiveInstanceNormBackwardArgs&) noexcept {
  return detail::adaptive_bytes(shape, sizeof(detail::RowMoments) + sizeof(detail::Sums));
}

inline Status adaptive_instance_norm_backward_plan(const AdaptiveInstanceNormShape& shape,
                                                   const AdaptiveInstanceNormBackwardArgs& args,
                                                   Workspace workspace, Plan* plan) noexcept {
  using namespace detail;
  AdaptiveBackward s;
  ArgumentChecker check;
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
  const int64_t rows = s.content.rows;
  if (rows == 0 || s.style.n == 0) return Status::kOk;
  char* scratch = aligned_scratch(workspace, static_cast<size_t>(rows) * (sizeof(RowMoments) + sizeof(Sums)));
  if (scratch == nullptr) return Status::kWorkspaceTooSmall;
  s.style.moments = reinterpret_cast<RowMoments*>(scratch);
  s.content.channel_sums = reinterpret_cast<Sums*>(scratch + static_cast<size_t>(rows) * sizeof(RowMoments));
  s.style.eps = s.content.eps = args.eps;
  s.content.weight = row_values(&s.style.moments->var, rows, kMomentsStep, s.content.n);
  s.style.weight = row_values(&s.content.channel_sums->second, rows, 2, s.style.n);
  s.style.bias = row_values(&s.content.channel_sums->first, rows, 2, s.style.n);
  s.content.segments = 1;
  s.content.segment_run = s.content.run;
  choose_tiles(s.style);
  const DType dtype = s.style.x.dtype;
  const int64_t element = s.style.x.bytes();
  static constexpr PhaseFunctions kStyle = {
      {&style_phase<float, AdaptiveBackward>, &style_phase<double, AdaptiveBackward>,
       &style_phase<Float16, AdaptiveBackward>, &style_phase<BFloat16, AdaptiveBackward>}};
  plan->phases[0] = {tiles(s.style), s.style.tile_rows * s.style.n * element, kStyle[dtype]};
  plan->phases[1] = {rows, 3 * s.content.n * element, NORMKIT_PHASE_FUNCTIONS(content_backward_phase)[dtype]};
  plan->phases[2] = {tiles(s.style), 2 * s.style.tile_rows * s.style.n * element,
                     NORMKIT_PHASE_FUNCTIONS(style_backward_phase)[dtype]};
  plan->phase_count = s.style.y ? 3 : 2;
  set_state(plan, s);
  return Status::kOk;
}

NORMKIT_END_ENTRY_POINTS
}  // namespace normkit
#endif

#endif  // NORMKIT_ADAPTIVE_INSTANCE_NORM_HPP_
