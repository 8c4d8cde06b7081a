// LocalResponseNorm: from arguments to a Plan.
#ifndef NORMKIT_DETAIL_WINDOW_PLAN_HPP_
#define NORMKIT_DETAIL_WINDOW_PLAN_HPP_

#include "normkit/detail/channels_plan.hpp"
#include "normkit/detail/window.hpp"

NORMKIT_BEGIN_NAMESPACE

// Which layout the buffers have and where they are. Windows reach at most to the other end of the channels.
inline void choose_window(WindowProblem& p, int64_t positions, int64_t channels, int64_t size,
                          bool channels_adjacent, DType elements, bool backward) {
  p.positions = positions;
  p.channels = channels;
  p.before = size / 2 < channels ? size / 2 : channels - 1;
  p.after = (size - 1) / 2 < channels ? (size - 1) / 2 : channels - 1;
  const bool along_channels =
      p.history() * kVecLanes > kWindowHistory || (channels_adjacent && channels >= kVecLanes);
  p.lanes = along_channels ? 1 : kVecLanes;
  p.tiles = p.tasks = divide_up(positions, p.lanes);
  const int64_t history = p.history() * p.lanes;
  p.buffer = window_buffer_length(history);
  p.scratch_bytes = 0;
  if (history > kWindowHistory) {
    p.scratch_bytes = p.buffer * window_buffers(elements, backward) * int64_t(sizeof(double));
    const int64_t most = kScratchBytes / p.scratch_bytes;
    p.tasks = most < 1 ? 1 : most < p.tiles ? most : p.tiles;
  }
}

inline size_t window_workspace_bytes(const ChannelsShape& shape, int64_t size, DType elements,
                                     bool backward) {
  if (size < 1 || shape.rank < 2 || shape.rank > kMaxRank || shape.size == nullptr ||
      checked_product(shape.size, shape.rank) <= 0)
    return 0;
  WindowProblem p;
  const int64_t channels = shape.size[1];
  choose_window(p, checked_product(shape.size, shape.rank) / channels, channels, size, false, elements,
                backward);
  const size_t axes_bytes = more_axes_bytes(shape);
  return p.scratch_bytes == 0 ? axes_bytes : static_cast<size_t>(p.tasks * p.scratch_bytes) + 64 + axes_bytes;
}

template <bool kBackward>
inline PhaseFunction window_function(DType dtype) {
  static constexpr PhaseFunctions kPhases = {
      {&window_phase<float, kBackward>, &window_phase<double, kBackward>, &window_phase<Float16, kBackward>,
       &window_phase<BFloat16, kBackward>}};
  return kPhases[dtype];
}

// Forward without dy, backward with it; `out` is y or dx.
template <typename Args>
inline Status window_plan(const ChannelsShape& shape, const Args& args, const ConstView* dy, const View& out,
                          Activation activation, Workspace workspace, Plan* plan) {
  WindowProblem p;
  RowsProblem rows;
  ArgumentChecker check{&workspace};
  SetAxes axes(position_sets(shape), &rows, check);
  p.activation = activation;
  check.activation(activation);
  if (args.size < 1) check.fail(Status::kInvalidShape);
  if (is_nan(args.alpha) || is_nan(args.beta) || is_nan(args.k) || (args.k <= 0.0 && args.alpha <= 0.0))
    check.fail(Status::kInvalidEps);  // the last: no window has a positive divisor
  if (check.status() != Status::kOk) return check.status();
  check.input(args.x, axes.elements(), axes.element_strides(args.x.strides), true, &p.x);
  if (dy != nullptr) check.input(*dy, axes.elements(), axes.element_strides(dy->strides), true, &p.dy);
  check.output(out, axes.elements(), axes.element_strides(out.strides), true, &p.out);
  check.same_type(p.x, p.dy);
  check.same_type(p.x, p.out);
  check.overlaps(p.out, p.x, p.dy);
  if (check.status() != Status::kOk) return check.status();

  plan->phase_count = 0;
  if (rows.rows == 0 || rows.n == 0) return Status::kOk;
  p.scale = args.alpha / static_cast<double>(args.size);
  p.beta = args.beta;
  p.k = args.k;
  const bool adjacent = p.x.inner.count > 0 && p.x.inner.stride[0] == 1;
  choose_window(p, rows.rows, rows.n, args.size, adjacent, p.x.dtype, dy != nullptr);
  if (p.scratch_bytes > 0) {
    p.scratch = aligned_scratch(workspace, static_cast<size_t>(p.tasks * p.scratch_bytes));
    if (p.scratch == nullptr) return Status::kWorkspaceTooSmall;
  }
  plan->phase_count = 1;
  plan->phases[0] = {p.tasks, (dy != nullptr ? 3 : 2) * rows.rows * rows.n / p.tasks * p.x.bytes(),
                     dy != nullptr ? window_function<true>(p.x.dtype) : window_function<false>(p.x.dtype)};
  set_state(plan, p);
  return Status::kOk;
}

NORMKIT_END_NAMESPACE

#endif  // NORMKIT_DETAIL_WINDOW_PLAN_HPP_
