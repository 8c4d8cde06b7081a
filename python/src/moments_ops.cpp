// The compiled half of Moments and GradSums (moments.py): trees of partial results as float64 arrays
// [sets, ranks, doubles of a level].
#include "normkit/detail/moments_plan.hpp"

#include "call.hpp"
#include "normkit/normkit.hpp"
#include "ops.hpp"
#include "signature.hpp"

namespace normkit::python {
// Merges and updates round every product, as the kernels do.
// clang-format off
NORMKIT_STRICT_FP_BEGIN
// clang-format on
namespace {
struct Tree {
  Array array;
  uint64_t filled = 0;
  int64_t ranks = 0;
  const double* levels() const { return static_cast<const double*>(array.data); }

  // `levels` may be None: an empty tree.
  Tree(PyObject* levels, PyObject* filled_argument) {
    if (!given(levels)) return;
    array.read(levels, "levels", Access::kRead);
    filled = static_cast<uint64_t>(integer_argument(filled_argument, "filled"));
    if (array.dtype != DType::kF64 || array.ndim != 3 || (array.count > 0 && !array.is_c_contiguous()) ||
        detail::ranks_of(filled) > array.sizes[1])
      raise(PyExc_ValueError, "levels and filled do not belong together");
    ranks = array.sizes[1];
  }
  // A tree that is not of this version's making, as an older pickle's, has others.
  void check_levels(int64_t doubles) const {
    if (array.sizes[2] != doubles)
      raise(PyExc_ValueError, "levels has %lld numbers for each partial result; it should have %lld",
            static_cast<long long>(array.sizes[2]), static_cast<long long>(doubles));
  }
};

PyObject* tree_result(const ArrayCall& call, Operand& levels, uint64_t filled) {
  const nb::object array = levels.finish(call.x());
  return PyTuple_Pack(2, array.ptr(), nb::int_(filled).ptr());
}

// Runs an update of `sets` trees and returns (levels, filled).
template <typename Args>
PyObject* update(SetsCall& call, Args& args, const Tree& tree, int64_t doubles, int32_t run_axes,
                 size_t (*workspace_bytes)(const SetsShape&, const Args&) noexcept,
                 Status (*plan)(const SetsShape&, const Args&, Workspace, Plan*) noexcept) {
  SetsShape shape = call.shape();
  shape.run_axes = run_axes;
  detail::RowsProblem p;
  detail::ArgumentChecker check;
  const detail::SetAxes axes(shape, &p, check);
  const uint64_t filled = tree.filled + static_cast<uint64_t>(detail::blocks_of(p));
  if (given(tree.array.object) && tree.array.sizes[2] != doubles)
    raise(PyExc_ValueError, "levels and filled do not belong together");
  if (given(tree.array.object) && tree.array.sizes[0] != p.rows)
    raise(PyExc_ValueError, "x has %lld sets; it should have %lld, as before", static_cast<long long>(p.rows),
          static_cast<long long>(tree.array.sizes[0]));
  const int64_t sizes[] = {p.rows, detail::ranks_of(filled), doubles};
  Operand levels;
  levels.make_numpy("levels", sizes, 3);
  args.filled = tree.filled;
  args.before = tree.levels();
  args.before_ranks = tree.ranks;
  args.after = static_cast<double*>(levels.array.data);
  args.after_ranks = sizes[1];
  call.run(shape, args, workspace_bytes, plan);
  return tree_result(call, levels, filled);
}

constexpr const char* kMoments = "_moments_update(x, axes, run_axes, levels, filled)";

PyObject* moments_call(PyObject* const* slots) {
  SetsCall call(slots[0]);
  call.over(slots[1]);
  MomentsArgs args;
  args.x = call.x_view();
  return update(call, args, Tree(slots[3], slots[4]), moments_doubles(call.x().dtype),
                static_cast<int32_t>(integer_argument(slots[2], "run_axes")), &moments_update_workspace_bytes,
                &moments_update_plan);
}

constexpr const char* kGradSums = "_grad_sums_update(dy, x, mean, rstd, axes, run_axes, levels, filled)";

PyObject* grad_sums_call(PyObject* const* slots) {
  SetsCall call(slots[1]);
  call.over(slots[4]);
  GradSumsArgs args;
  int64_t kept[kMaxRank];
  const int32_t count = call.sizes_of(~call.shape().normalized, kept);
  args.x = call.x_view();
  args.dy = call.same_as_x(slots[0], "dy");
  args.mean = call.statistics(slots[2], "mean", kept, count, "that of the other axes");
  args.rstd = call.statistics(slots[3], "rstd", kept, count, "that of the other axes");
  return update(call, args, Tree(slots[6], slots[7]), kGradSumsDoubles,
                static_cast<int32_t>(integer_argument(slots[5], "run_axes")),
                &grad_sums_update_workspace_bytes, &grad_sums_update_plan);
}

constexpr const char* kMerge = "_merge_trees(levels, filled, other_levels, other_filled, float64)";

template <typename Partial>
void merge_all(const Tree& a, const Tree& b, const Array& to) {
  constexpr int64_t kDoubles = detail::MergeTree<Partial>::kDoubles;
  a.check_levels(kDoubles);
  for (int64_t s = 0; s < to.sizes[0]; ++s)
    detail::merge_tree<Partial>(a.filled, a.levels() + s * a.ranks * kDoubles, b.filled,
                                b.levels() + s * b.ranks * kDoubles,
                                static_cast<double*>(to.data) + s * to.sizes[1] * kDoubles);
}

PyObject* merge_call(PyObject* const* slots) {
  const Tree a(slots[0], slots[1]), b(slots[2], slots[3]);
  const uint64_t filled = detail::merged_filled(a.filled, b.filled);
  if (a.array.sizes[0] != b.array.sizes[0] || a.array.sizes[2] != b.array.sizes[2])
    raise(PyExc_ValueError, "the trees are not alike");
  const int64_t sizes[] = {a.array.sizes[0], detail::ranks_of(filled), a.array.sizes[2]};
  Operand levels;
  levels.make_numpy("levels", sizes, 3);
  if (sizes[2] == kGradSumsDoubles)
    merge_all<detail::Sums>(a, b, levels.array);
  else if (flag_argument(slots[4], "float64", false))
    merge_all<detail::ScaledMoments>(a, b, levels.array);
  else
    merge_all<detail::Moments<float>>(a, b, levels.array);
  const nb::object array = levels.finish(levels.array);
  return PyTuple_Pack(2, array.ptr(), nb::int_(filled).ptr());
}

constexpr const char* kFinish = "_finish_trees(levels, filled, float64)";

template <typename Partial>
void finish_all(const Tree& tree, const Array& to) {
  constexpr int64_t kDoubles = detail::MergeTree<Partial>::kDoubles;
  tree.check_levels(kDoubles);
  for (int64_t s = 0; s < to.sizes[0]; ++s) {
    detail::MergeTree<Partial> merged;
    merged.load(tree.filled, tree.levels() + s * tree.ranks * kDoubles);
    const Partial total = merged.finish();
    memcpy(static_cast<double*>(to.data) + s * kDoubles, &total, sizeof(total));
  }
}

// (sets, doubles of a level): what all blocks make together.
PyObject* finish_call(PyObject* const* slots) {
  const Tree tree(slots[0], slots[1]);
  if (tree.filled == 0) raise(PyExc_ValueError, "the tree is empty");
  const int64_t sizes[] = {tree.array.sizes[0], tree.array.sizes[2]};
  Operand total;
  total.make_numpy("total", sizes, 2);
  if (sizes[1] == kGradSumsDoubles)
    finish_all<detail::Sums>(tree, total.array);
  else if (flag_argument(slots[2], "float64", false))
    finish_all<detail::ScaledMoments>(tree, total.array);
  else
    finish_all<detail::Moments<float>>(tree, total.array);
  return total.finish(total.array).release().ptr();
}

// ---- running statistics that follow ----

constexpr const char* kRunning = "_update_running(total, running_mean, running_var, momentum)";

struct RunningArgs {
  ConstView total;  // moments_doubles of each set
  View running_mean, running_var;
  double momentum = 0.1;
};

struct RunningProblem {
  detail::Operand total, running_mean, running_var;
  double momentum;
  int64_t sets, doubles;
};

// As BatchNorm updates them, to the same bits.
void running_phase(const void* state, int64_t, int64_t) {
  const detail::FloatEnvironment environment;
  const RunningProblem& p = *static_cast<const RunningProblem*>(state);
  const double* moments = reinterpret_cast<const double*>(p.total.data);
  for (int64_t s = 0; s < p.sets; ++s, moments += p.doubles) {
    const double n = moments[0], raw = moments[3] / n, var = raw < 0.0 ? 0.0 : raw;
    const double scale = p.doubles == moments_doubles(DType::kF64) ? moments[4] : 1.0;
    const detail::Sums now = detail::unbiased({moments[1], moments[2], var, scale}, n);
    detail::follow(p.running_mean, s, p.momentum, now.first);
    detail::follow(p.running_var, s, p.momentum, now.second);
  }
}

size_t running_workspace_bytes(const SetsShape& total, const RunningArgs&) noexcept {
  return detail::more_axes_bytes(total);
}

Status running_plan(const SetsShape& total, const RunningArgs& args, Workspace workspace,
                    Plan* plan) noexcept {
  RunningProblem p;
  detail::ArgumentChecker check{&workspace};
  const detail::AxesShape elements{0, total.rank, total.size}, sets{0, total.rank - 1, total.size};
  check.input(args.total, elements, args.total.strides, false, &p.total);
  check.output(args.running_mean, sets, args.running_mean.strides, false, &p.running_mean);
  check.output(args.running_var, sets, args.running_var.strides, false, &p.running_var);
  const detail::Operand none{};
  check.overlaps(none, none, none);
  p.momentum = args.momentum;
  p.sets = detail::checked_product(total.size, total.rank - 1);
  p.doubles = total.size[total.rank - 1];
  plan->phase_count = p.total ? 1 : 0;
  plan->phases[0] = {1, 0, &running_phase};
  detail::set_state(plan, p);
  return check.status();
}

PyObject* running_call(PyObject* const* slots) {
  enum { kTotal, kRunningMean, kRunningVar, kMomentum };
  SetsCall call(slots[kTotal], "total");
  call.over(Py_None);
  const Array& total = call.x();
  if (total.dtype != DType::kF64 || total.ndim < 1 || (total.count > 0 && !total.is_c_contiguous()) ||
      (total.sizes[total.ndim - 1] != moments_doubles(DType::kF32) &&
       total.sizes[total.ndim - 1] != moments_doubles(DType::kF64)))
    raise(PyExc_ValueError, "total does not hold moments");
  RunningArgs args;
  args.total = call.x_view();
  args.momentum = number_argument(slots[kMomentum], "momentum", args.momentum);
  constexpr const char* kWhat = "one number for each set";
  args.running_mean = call.updated(slots[kRunningMean], "running_mean", total.sizes, total.ndim - 1, kWhat);
  args.running_var = call.updated(slots[kRunningVar], "running_var", total.sizes, total.ndim - 1, kWhat);
  call.run<SetsShape, RunningArgs>(call.shape(), args, &running_workspace_bytes, &running_plan);
  Py_RETURN_NONE;
}

}  // namespace
NORMKIT_STRICT_FP_END

void add_moments_operations(PyObject* module) {
  Function<moments_call>::add(module, kMoments, "See normkit.Moments.");
  Function<grad_sums_call>::add(module, kGradSums, "See normkit.GradSums.");
  Function<merge_call>::add(module, kMerge, "See normkit.Moments.merge.");
  Function<finish_call>::add(module, kFinish, "See normkit.Moments.");
  Function<running_call>::add(module, kRunning, "See normkit.Moments.update_running.");
}

}  // namespace normkit::python
