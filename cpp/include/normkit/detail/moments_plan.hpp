// Updates of trees that live between calls: one task is a set.
#ifndef NORMKIT_DETAIL_MOMENTS_PLAN_HPP_
#define NORMKIT_DETAIL_MOMENTS_PLAN_HPP_

#include "normkit/detail/sets_plan.hpp"
#include "normkit/moments.hpp"

NORMKIT_BEGIN_NAMESPACE

struct MomentsUpdate {
  RowsBackward rows;  // dy, mean and rstd: of grad_sums_update
  uint64_t filled;
  const double* before;
  double* after;
  int64_t before_step, after_step;  // doubles of one set
};

template <typename T, typename Partial, typename Push>
NORMKIT_INLINE void update_trees(const MomentsUpdate& p, int64_t begin, int64_t end, Push push) {
  for (int64_t r = begin; r < end; ++r) {
    MergeTree<Partial> tree;
    tree.load(p.filled, p.before + r * p.before_step);
    push(r, tree);
    tree.save(p.after + r * p.after_step);
  }
}

template <typename T>
void moments_phase(const void* state, int64_t begin, int64_t end) {
  using Partial = KeptMoments<T>;
  const FloatEnvironment environment;
  const MomentsUpdate& p = *static_cast<const MomentsUpdate*>(state);
  alignas(64) T buffer[kBlock];
  update_trees<T, Partial>(p, begin, end, [&](int64_t r, MergeTree<Partial>& tree) {
    const T* row = p.rows.x.template row<const T>(r);
    for (Blocks b(p.rows); b.more(); b.next()) {
      const T* x = block_of(p.rows.x, row, b.begin, b.length, buffer);
      tree.push(kept_moments(x, b.length));
    }
  });
}

template <typename T>
void grad_sums_phase(const void* state, int64_t begin, int64_t end) {
  using C = Compute<T>;
  const FloatEnvironment environment;
  const MomentsUpdate& p = *static_cast<const MomentsUpdate*>(state);
  const Operand none{};
  ParameterReader<C> one(none, 0.0, C(1));
  BackwardBuffers<T> buffers;
  update_trees<T, Sums>(p, begin, end, [&](int64_t r, MergeTree<Sums>& tree) {
    const T* x_row = p.rows.x.template row<const T>(r);
    const T* dy_row = p.rows.dy.template row<const T>(r);
    const Row<C> row = row_from(given_statistics(p.rows, r), C());
    bool overflows = false;
    for (Blocks b(p.rows); b.more(); b.next()) {
      const T* x = block_of(p.rows.x, x_row, b.begin, b.length, buffers.x);
      const T* dy = block_of(p.rows.dy, dy_row, b.begin, b.length, buffers.dy);
      tree.push(grad_sums(dy, x, b.length, row, one.block(r, b.begin, b.length), overflows));
    }
  });
}

inline int64_t blocks_of(const RowsProblem& p) {
  return p.n == 0 ? 0 : Blocks(p).count();
}

inline int64_t ranks_of(uint64_t filled) {
  int64_t ranks = 0;
  while (ranks < 64 && filled >> ranks) ++ranks;
  return ranks;
}

// Checks and fills what both updates share; the caller adds its operands in between.
inline Status finish_update(const MomentsArgs& args, int64_t doubles, MomentsUpdate& u, PhaseFunction phase,
                            Plan* plan) {
  const uint64_t filled = args.filled + static_cast<uint64_t>(blocks_of(u.rows));
  if (args.filled >> (kMaxRanks - 1) || ranks_of(filled) > args.after_ranks ||
      ranks_of(args.filled) > args.before_ranks)
    return Status::kWorkspaceTooSmall;
  if (u.rows.rows > 0 && (args.after == nullptr || (args.filled != 0 && args.before == nullptr)))
    return Status::kNullPointer;
  u.filled = args.filled;
  u.before = args.before;
  u.after = args.after;
  u.before_step = args.before_ranks * doubles;
  u.after_step = args.after_ranks * doubles;
  // Sets without elements leave trees without levels: however many there are, nothing is to be done.
  plan->phase_count = filled == 0 ? 0 : 1;
  plan->phases[0] = {u.rows.rows, 2 * u.rows.n * size_of(args.x.dtype), phase};
  set_state(plan, u);
  return Status::kOk;
}

inline Status moments_plan(const SetsShape& shape, const MomentsArgs& args, Workspace workspace, Plan* plan) {
  MomentsUpdate u;
  ArgumentChecker check{&workspace};
  SetAxes axes(shape, &u.rows, check);
  if (check.status() != Status::kOk) return check.status();
  check.input(args.x, axes.elements(), axes.element_strides(args.x.strides), true, &u.rows.x);
  if (!is_dtype(args.x.dtype)) check.fail(Status::kInvalidDType);
  if (check.status() != Status::kOk) return check.status();
  return finish_update(args, moments_doubles(args.x.dtype), u,
                       NORMKIT_PHASE_FUNCTIONS(moments_phase)[args.x.dtype], plan);
}

inline Status grad_sums_plan(const SetsShape& shape, const GradSumsArgs& args, Workspace workspace,
                             Plan* plan) {
  MomentsUpdate u;
  RowsBackward& p = u.rows;
  ArgumentChecker check{&workspace};
  SetAxes axes(shape, &p, check);
  if (check.status() != Status::kOk) return check.status();
  check.input(args.x, axes.elements(), axes.element_strides(args.x.strides), true, &p.x);
  check.input(args.dy, axes.elements(), axes.element_strides(args.dy.strides), true, &p.dy);
  check.input(args.mean, axes.sets(), axes.set_strides(args.mean.strides), true, &p.mean);
  check.input(args.rstd, axes.sets(), axes.set_strides(args.rstd.strides), true, &p.rstd);
  check.same_type(p.x, p.dy);
  check.statistic_type(p.mean);
  check.statistic_type(p.rstd);
  if (!is_dtype(args.x.dtype)) check.fail(Status::kInvalidDType);
  if (check.status() != Status::kOk) return check.status();
  return finish_update(args, kGradSumsDoubles, u, NORMKIT_PHASE_FUNCTIONS(grad_sums_phase)[args.x.dtype],
                       plan);
}

// ---- whole trees ----

// The bits of `filled` after another tree has been pushed onto one.
inline uint64_t merged_filled(uint64_t filled, uint64_t other) {
  for (int k = 63; k >= 0; --k) {
    if (!((other >> k) & 1u)) continue;
    filled = ((filled >> k) + 1) << k;  // what is smaller has merged into it
  }
  return filled;
}

template <typename Partial>
inline void merge_tree(uint64_t filled, const double* levels, uint64_t other, const double* other_levels,
                       double* to) {
  MergeTree<Partial> tree;
  tree.load(filled, levels);
  for (int k = 63; k >= 0; --k) {
    if (!((other >> k) & 1u)) continue;
    Partial partial;
    memcpy(&partial, other_levels + k * MergeTree<Partial>::kDoubles, sizeof(partial));
    tree.push(partial, k);
  }
  tree.save(to);
}

NORMKIT_END_NAMESPACE

#endif  // NORMKIT_DETAIL_MOMENTS_PLAN_HPP_
