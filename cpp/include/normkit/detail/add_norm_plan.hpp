// Residual sums with a norm, and their gradients: from arguments to a Plan.
#ifndef NORMKIT_DETAIL_ADD_NORM_PLAN_HPP_
#define NORMKIT_DETAIL_ADD_NORM_PLAN_HPP_

#include "normkit/detail/add_norm.hpp"
#include "normkit/detail/rows_plan.hpp"

NORMKIT_BEGIN_NAMESPACE

inline void describe(const AddNormForward& p, Plan* plan) {
  plan->kind = PlanKind::kAddNorm;
  plan->elements = p.x.dtype;
}

template <typename Args>
inline Status add_norm_plan(const RowsShape& shape, const Args& args, bool centred, const View& mean,
                            double weight_offset, Workspace workspace, Plan* plan) {
  AddNormForward p;
  ArgumentChecker check{&workspace};
  const RowsAxes axes(shape, &p.rows, check);
  check.input(args.x, axes.elements, args.x.strides, true, &p.x);
  check.input(args.residual, axes.elements, args.residual.strides, true, &p.residual);
  check.input(args.residual_bias, axes.row, args.residual_bias.strides, false, &p.residual_bias);
  check.output(args.sum, axes.elements, args.sum.strides, true, &p.rows.x);
  check.same_type(p.x, p.residual);
  check.same_type(p.x, p.rows.x);
  check.parameter_type(p.residual_bias, p.x.dtype, false);
  rows_forward_arguments(axes, args, centred, mean, weight_offset, p.rows, check);
  check.overlaps(p.rows.y, p.x, p.residual, &p.rows.x);
  if (check.status() != Status::kOk) return check.status();
  finish_forward_plan(p.rows, plan);
  if (p.rows.rows == 0 || p.rows.n == 0) return Status::kOk;
  const int64_t row_bytes = 4 * p.rows.n * p.x.bytes();
  p.unrounded = args.unrounded && p.x.bytes() < size_of(DType::kF32);
  if (p.unrounded)
    plan->phases[0] = {p.rows.rows, row_bytes, NORMKIT_PHASE_FUNCTIONS(add_unrounded_phase)[p.x.dtype]};
  else
    plan->phases[0] = {tiles(p.rows), p.rows.tile_rows * row_bytes,
                       NORMKIT_PHASE_FUNCTIONS(add_norm_phase)[p.x.dtype]};
  set_state(plan, p);
  return Status::kOk;
}

// Gradients are those of rows, by the names that these have there.
struct SummedGradients {
  ConstView dy, x, weight;
  double eps;
  ConstView rstd;
  View dx, dweight, dbias;
  bool accumulate;
};
template <typename Args>
inline SummedGradients with_x(const Args& args) {
  return {args.dy,      args.summed,  args.weight, args.eps,       args.rstd,
          args.dsummed, args.dweight, args.dbias,  args.accumulate};
}

NORMKIT_END_NAMESPACE

#endif  // NORMKIT_DETAIL_ADD_NORM_PLAN_HPP_
