// From arguments to a Plan: checks every argument, merges axes, chooses tiles and groups.
#ifndef NORMKIT_DETAIL_ROWS_PLAN_HPP_
#define NORMKIT_DETAIL_ROWS_PLAN_HPP_

#include "normkit/detail/columns_forward.hpp"
#include "normkit/detail/given.hpp"
#include "normkit/detail/short_rows_backward.hpp"
#include "normkit/detail/strips.hpp"
#include "normkit/executor.hpp"

NORMKIT_BEGIN_NAMESPACE

// Where inputs and output together take at least this many bytes, the output is written past the cache: it
// will not be read again before it is evicted.
constexpr int64_t kStreamBytes = int64_t(32) << 20;

// Half of a second-level cache: a tile up to this size is fetched while the one before it is worked on.
constexpr int64_t kAheadBytes = 512 * 1024;

// Rows of a tile share each load of weight and bias; a tile stays in the second-level cache.
constexpr int64_t kTileBytes = 64 * 1024;
constexpr int64_t kShortTileBytes = 24 * 1024;

// Scratch of an operation beyond 1/64 of its input.
constexpr int64_t kScratchBytes = int64_t(4) << 20;

// ---- checks ----

// Axes that an operand is laid out over: `outer` of them enumerate the sets, `inner` the elements of a set.
struct AxesShape {
  int outer = 0, inner = 0;
  const int64_t* size = nullptr;
};

// In elements: more than an address space holds.
constexpr int64_t kLargestStride = int64_t(1) << 50;

constexpr int kMaxOperands = 8;  // inputs, and outputs

// Room for the axes that operands on these axes have beyond kMaxAxes, if none of them merge.
inline size_t more_axes_bytes(const int64_t* size, int64_t rank) {
  if (rank <= kMaxAxes || size == nullptr) return 0;
  int64_t longer = 0;
  for (int64_t a = 0; a < rank; ++a) longer += size[a] != 1 ? 1 : 0;
  if (longer <= kMaxAxes) return 0;
  return static_cast<size_t>(2 * kMaxOperands * (longer - kMaxAxes) * 2 + 1) * sizeof(int64_t);
}
inline size_t more_axes_bytes(const RowsShape& shape) {
  if (shape.outer < 0 || shape.inner < 0 || shape.outer > kMaxRank || shape.inner > kMaxRank) return 0;
  return more_axes_bytes(shape.size, int64_t(shape.outer) + shape.inner);
}
template <typename Shape>
inline size_t more_axes_bytes(const Shape& shape) {
  if (shape.rank > kMaxRank) return 0;
  return more_axes_bytes(shape.size, shape.rank);
}

// Builds operands one by one; after the first error the rest is skipped. Axes beyond kMaxAxes go to the end
// of the workspace, which is that much shorter then.
class ArgumentChecker {
 public:
  inline ArgumentChecker() {}
  inline explicit ArgumentChecker(Workspace* workspace) : workspace_(workspace) {}
  inline Status status() const { return status_; }
  inline void fail(Status status) {
    if (status_ == Status::kOk) status_ = status;
  }

  // strides: one for each axis of `shape`, or null: C-contiguous.
  inline void input(const ConstView& view, const AxesShape& shape, const int64_t* strides, bool required,
                    Operand* operand) {
    operand->data = static_cast<char*>(const_cast<void*>(view.data));
    operand->dtype = view.dtype;
    make(shape, strides, required, operand, &input_places_[input_count_]);
    if (status_ == Status::kOk && *operand) inputs_[input_count_++] = operand;
  }

  inline void output(const View& view, const AxesShape& shape, const int64_t* strides, bool required,
                     Operand* operand) {
    operand->data = static_cast<char*>(view.data);
    operand->dtype = view.dtype;
    make(shape, strides, required, operand, &output_places_[output_count_]);
    if (status_ != Status::kOk || !*operand) return;
    if (!injective(*operand)) fail(Status::kOverlap);
    outputs_[output_count_++] = operand;
  }

  // Element types: `elements` is x's. Parameters have it or float; gradients also double; statistics float or
  // double.
  inline void parameter_type(const Operand& operand, DType elements, bool gradient) {
    if (!operand || operand.dtype == elements || (gradient && operand.dtype == DType::kF64)) return;
    if (operand.dtype != DType::kF32 || (elements == DType::kF64 && !gradient)) fail(Status::kInvalidDType);
  }
  inline void statistic_type(const Operand& operand) {
    if (operand && operand.dtype != DType::kF32 && operand.dtype != DType::kF64) fail(Status::kInvalidDType);
  }
  inline void activation(Activation activation) {
    if (!is_activation(activation)) fail(Status::kInvalidActivation);
  }
  inline void same_type(const Operand& a, const Operand& b) {
    if (a && b && a.dtype != b.dtype) fail(Status::kInvalidDType);
  }

  // No output may share memory with anything, except that `result` and `other_result` may be `x`, `dy` or
  // `dsum` itself.
  inline void overlaps(const Operand& result, const Operand& x, const Operand& dy,
                       const Operand* other_result = nullptr, const Operand* dsum = nullptr) {
    if (status_ != Status::kOk) return;
    if (all_apart()) return;
    for (int i = 0; i < output_count_; ++i) {
      for (int j = 0; j < i; ++j)
        if (overlap(*outputs_[i], *outputs_[j])) return fail(Status::kOverlap);
      for (int j = 0; j < input_count_; ++j) {
        const bool may_be_same = (outputs_[i] == &result || outputs_[i] == other_result) &&
                                 (inputs_[j] == &x || inputs_[j] == &dy || inputs_[j] == dsum) &&
                                 same_view(*outputs_[i], *inputs_[j]);
        if (!may_be_same && overlap(*outputs_[i], *inputs_[j])) return fail(Status::kOverlap);
      }
    }
  }

 private:
  // The addresses that an operand lies between.
  struct Place {
    int64_t first, end;
    inline bool apart(const Place& other) const { return end <= other.first || other.end <= first; }
  };

  // Whether the outputs lie apart from everything else, as they do in most calls.
  inline bool all_apart() const {
    for (int i = 0; i < output_count_; ++i) {
      for (int j = 0; j < i; ++j)
        if (!output_places_[i].apart(output_places_[j])) return false;
      for (int j = 0; j < input_count_; ++j)
        if (!output_places_[i].apart(input_places_[j])) return false;
    }
    return true;
  }

  // Leaves operand->data null when the array has no elements: nothing will be read or written.
  inline void make(const AxesShape& shape, const int64_t* strides, bool required, Operand* operand,
                   Place* place) {
    if (status_ != Status::kOk) return;
    const int axes = shape.outer + shape.inner;
    const bool empty = checked_product(shape.size, axes) == 0;
    if (operand->data == nullptr) {
      if (required && !empty) fail(Status::kNullPointer);
      return;
    }
    if (!is_dtype(operand->dtype)) return fail(Status::kInvalidDType);
    if (empty) {
      operand->data = nullptr;
      return;
    }
    const int64_t address = address_of(operand->data);
    if ((address & (operand->bytes() - 1)) != 0) return fail(Status::kMisaligned);
    int64_t contiguous[2 * kMaxRank];
    if (strides == nullptr) {
      int64_t step = 1;
      for (int a = axes - 1; a >= 0; --a) {
        contiguous[a] = step;
        step *= shape.size[a];
      }
      strides = contiguous;
    }
    for (int a = 0; a < axes; ++a)
      if (shape.size[a] > 1 && (strides[a] > kLargestStride || strides[a] < -kLargestStride))
        return fail(Status::kInvalidShape);
    if (!lay_out(shape.outer, shape.size, strides, &operand->outer) ||
        !lay_out(shape.inner, shape.size + shape.outer, strides + shape.outer, &operand->inner))
      return fail(workspace_ == nullptr || workspace_->data == nullptr || is_elsewhere(*workspace_)
                      ? Status::kTooManyAxes
                      : Status::kWorkspaceTooSmall);
    Extent extent;
    if (!extent.of(*operand)) return fail(Status::kInvalidShape);
    *place = {address + extent.first, address + extent.end};
  }

  // False: no room.
  inline bool lay_out(int count, const int64_t* size, const int64_t* strides, Axes* axes) {
    if (count > kMaxAxes) return lay_out_many(count, size, strides, axes);
    for (int a = 0; a < count; ++a) axes->append(size[a], strides[a]);
    return true;
  }
  inline NORMKIT_NOINLINE bool lay_out_many(int count, const int64_t* size, const int64_t* strides,
                                            Axes* axes) {
    int64_t merged_size[kMostAxes], merged_stride[kMostAxes];
    int merged = 0;
    for (int a = 0; a < count; ++a) {
      if (size[a] == 1) continue;
      int64_t step;
      const bool merges = merged > 0 && !__builtin_mul_overflow(size[a], strides[a], &step) &&
                          merged_stride[merged - 1] == step;
      if (!merges) merged_size[merged++] = 1;
      merged_size[merged - 1] *= size[a];
      merged_stride[merged - 1] = strides[a];
    }
    const int more = merged > kMaxAxes ? merged - kMaxAxes : 0;
    if (more > 0) {
      int64_t* numbers = take(2 * more);
      if (numbers == nullptr) return false;
      memcpy(numbers, merged_size, static_cast<size_t>(more) * sizeof(int64_t));
      memcpy(numbers + more, merged_stride, static_cast<size_t>(more) * sizeof(int64_t));
      axes->more = numbers;
      axes->more_count = more;
    }
    axes->count = merged - more;
    memcpy(axes->size, merged_size + more, static_cast<size_t>(axes->count) * sizeof(int64_t));
    memcpy(axes->stride, merged_stride + more, static_cast<size_t>(axes->count) * sizeof(int64_t));
    return true;
  }

  // A workspace that will be lent on a device (cuda::lent_later).
  static inline bool is_elsewhere(const Workspace& workspace) { return workspace.bytes == SIZE_MAX; }

  // Numbers at the end of the workspace, or null.
  inline int64_t* take(int count) {
    if (workspace_ == nullptr || workspace_->data == nullptr || is_elsewhere(*workspace_)) return nullptr;
    const uintptr_t begin = reinterpret_cast<uintptr_t>(workspace_->data);
    const uintptr_t end = (begin + workspace_->bytes) / sizeof(int64_t) * sizeof(int64_t);
    const uintptr_t needed = static_cast<uintptr_t>(count) * sizeof(int64_t);
    if (end < begin + needed) return nullptr;
    workspace_->bytes = static_cast<size_t>(end - needed - begin);
    return reinterpret_cast<int64_t*>(end - needed);
  }

  Workspace* workspace_ = nullptr;
  Status status_ = Status::kOk;
  const Operand* inputs_[kMaxOperands];
  const Operand* outputs_[kMaxOperands];
  Place input_places_[kMaxOperands], output_places_[kMaxOperands];
  int input_count_ = 0, output_count_ = 0;
};

// The three kinds of operands over rows: all axes; the inner ones (weight, bias); the outer ones (mean,
// rstd).
struct RowsAxes {
  AxesShape elements, row, rows;

  inline RowsAxes(const RowsShape& shape, RowsProblem* p, ArgumentChecker& check) {
    if (shape.outer < 0 || shape.inner < 0 || shape.outer > kMaxRank || shape.inner > kMaxRank ||
        (shape.size == nullptr && shape.outer + shape.inner > 0) ||
        checked_product(shape.size, shape.outer + shape.inner) < 0) {
      check.fail(Status::kInvalidShape);
      return;
    }
    p->rows = checked_product(shape.size, shape.outer);
    p->n = checked_product(shape.size + shape.outer, shape.inner);
    p->run = p->n;
    p->block = longest_block(p->run);
    elements = {shape.outer, shape.inner, shape.size};
    row = {0, shape.inner, shape.size + shape.outer};
    rows = {shape.outer, 0, shape.size};
  }
};

NORMKIT_INLINE int64_t divide_up(int64_t a, int64_t b) {
  return (a + b - 1) / b;
}

using PhaseFunction = void (*)(const void* state, int64_t begin, int64_t end);

// One function for each element type, in DType's order.
struct PhaseFunctions {
  PhaseFunction of[4];
  inline PhaseFunction operator[](DType dtype) const { return of[static_cast<int32_t>(dtype)]; }
};
#define NORMKIT_PHASE_FUNCTIONS(name)                              \
  PhaseFunctions {                                                 \
    {                                                              \
      &name<float>, &name<double>, &name<Float16>, &name<BFloat16> \
    }                                                              \
  }

// What another backend has to know of a state; of most: nothing, it has no kernels for them.
template <typename State>
inline void describe(const State&, Plan*) {}
inline void describe(const RowsForward& p, Plan* plan) {
  plan->kind = PlanKind::kRowsForward;
  plan->elements = p.x.dtype;
}
inline void describe(const RowsBackward& p, Plan* plan) {
  plan->kind = PlanKind::kRowsBackward;
  plan->elements = p.x.dtype;
}

template <typename State>
inline void set_state(Plan* plan, const State& state) {
  static_assert(sizeof(State) <= sizeof(plan->state), "enlarge Plan::state");
  plan->kind = PlanKind::kOther;
  describe(state, plan);
  memcpy(plan->state, &state, sizeof(state));
}

// The statistics of rows without elements.
inline void empty_rows_phase(const void* state, int64_t begin, int64_t end) {
  const RowsForward& p = *static_cast<const RowsForward*>(state);
  for (int64_t r = begin; r < end; ++r) {
    if (p.mean) write_number(p.mean, p.mean.outer.offset(r), __builtin_nan(""));
    if (p.rstd) write_number(p.rstd, p.rstd.outer.offset(r), __builtin_nan(""));
  }
}

// How far ahead of a sweep to fetch, in bytes: the same place in the next tile; in tiles too large for that,
// the next block.
inline int64_t fetch_ahead(const Operand& x, int64_t tile_rows, int64_t row_bytes) {
  const bool fits = tile_rows * row_bytes <= kAheadBytes;
  return fits ? tile_rows * x.outer.last_stride() * x.bytes() : kBlock * x.bytes();
}

// Whether to write an output past the cache: large, in runs of whole lines. row_bytes: of all arrays.
inline bool streams(const Operand& y, int64_t rows, int64_t row_bytes) {
  return y && y.inner.last_run() * y.bytes() >= 256 && rows >= kStreamBytes / row_bytes;
}

// Backward over tiles of so many rows.
inline void choose_stores(RowsBackward& p, int64_t tile_rows) {
  const int64_t row_bytes = p.n * p.x.bytes(), read_bytes = 2 * row_bytes;
  p.stream = streams(p.dx, p.rows, 3 * row_bytes);
  if (p.stream) p.fetch = {fetch_ahead(p.dy, tile_rows, read_bytes), fetch_ahead(p.x, tile_rows, read_bytes)};
}

// Of rows with elements.
inline void choose_tiles(RowsForward& p) {
  const bool is_short = suits_short_rows(p);
  const int64_t row_bytes = p.n * p.x.bytes(), most = is_short ? kShortTileRows : kMaxTileRows;
  const int64_t fitting = (is_short ? kShortTileBytes : kTileBytes) / row_bytes;
  p.tile_rows = static_cast<int32_t>(fitting < 1 ? 1 : fitting > most ? most : fitting);
  p.stream = streams(p.y, p.rows, 2 * row_bytes);
  if (p.stream) p.ahead = fetch_ahead(p.x, p.tile_rows, row_bytes);
}
// Rows of a tile, at most as many, of which whole ones make up `rows`.
inline int32_t whole_tile_rows(const RowsForward& p, int64_t rows) {
  int32_t whole = 1;
  while (2 * whole <= p.tile_rows && rows % (2 * whole) == 0) whole *= 2;
  return whole;
}
inline int64_t tiles(const RowsForward& p) {
  return divide_up(p.rows, p.tile_rows);
}

// How many times longer an element takes than reading and writing it: powers and ranges go one by one.
inline int64_t effort(const RowsProblem& p) {
  return p.statistic == Statistic::kRange || (p.statistic == Statistic::kNorm && p.power != 2.0) ? 16 : 1;
}

// What scratch may take: 1/64 of the input and a constant, or all that the caller lends.
inline int64_t scratch_limit(int64_t input_bytes, Workspace lent) {
  const int64_t limit = input_bytes / 64 + kScratchBytes, given = static_cast<int64_t>(lent.bytes) - 64;
  return limit < given ? given : limit;
}
// Of x, or of dy and x.
inline int64_t scratch_limit(const RowsProblem& p, bool backward, int64_t element, Workspace lent) {
  return scratch_limit((backward ? 2 : 1) * p.rows * p.n * element, lent);
}

// The smallest groups of samples whose trees fit; false: none do, and these are the smallest trees.
template <typename Partial>
inline bool choose_rank(GroupedTrees<Partial>& trees, int64_t samples, int64_t limit) {
  GroupedTrees<Partial> least = trees;
  for (trees.rank = 0;; ++trees.rank) {
    if (trees.bytes(samples) <= limit) return true;
    if (trees.bytes(samples) < least.bytes(samples)) least = trees;
    if (trees.group() >= samples) break;
  }
  trees = least;
  return false;
}

// Columns of more bytes than this, by panels, take three phases.
constexpr int64_t kColumnCache = int64_t(1) << 20;

// Scratch of such columns, or 0; `taken` of what there may be is used already.
inline int64_t large_columns_bytes(const RowsProblem& p, const ColumnsShape& shape, bool backward,
                                   int64_t taken) {
  const int64_t size = p.x.bytes(), arrays = backward ? 2 : 1;
  const int64_t width = shape.bundle_unit < shape.columns ? shape.bundle_unit : shape.columns;
  if (arrays * shape.rows * width * size <= kColumnCache) return 0;
  const int64_t bytes = ColumnScratch::bytes(shape, shape.blocks(p).count(), backward);
  return bytes <= scratch_limit(p, backward, size, {}) - taken ? bytes : 0;
}

inline bool suits_forward_columns(const RowsForward& p, const ColumnsShape& shape) {
  return suits_columns(p, shape, p.y, {}) && is_column_parameter(p.bias, shape);
}

// y of a block of a panel, once there are statistics.
inline Plan::Phase apply_columns_of(const RowsForward& p, const ColumnsShape& shape) {
  return {shape.outer * divide_up(shape.rows, kBlock) * shape.panels(), 2 * kBlock * kPanel * p.x.bytes(),
          NORMKIT_PHASE_FUNCTIONS(apply_columns_phase)[p.x.dtype]};
}

inline bool plan_forward_columns(RowsForward& p, Plan* plan) {
  const ColumnsShape shape(p);
  if (!suits_forward_columns(p, shape)) return false;
  p.stream = p.y && p.rows >= kStreamBytes / (2 * p.n * p.x.bytes()) && has_whole_lines(p.y, shape);
  const Plan::Phase bundles = {shape.outer * shape.bundles().count,
                               2 * shape.rows * shape.bundle_unit * p.x.bytes(),
                               NORMKIT_PHASE_FUNCTIONS(forward_bundles_phase)[p.x.dtype]};
  plan->phases[0] = p.given ? apply_columns_of(p, shape) : bundles;
  return true;
}

// Shorter sets by given statistics are not worth a column's lanes.
constexpr int64_t kShortColumn = kLanes;

// y from x or dx from dy; false: they do not lie as this needs it.
inline bool plan_given(const RowsProblem& p, const Operand& from, const Operand& to,
                       const PhaseFunctions& apply, Plan::Phase* phase) {
  const GivenShape shape(p, from, to);
  if (!to || !shape.suits()) return false;
  const int64_t positions = shape.positions < kGivenPositions ? shape.positions : kGivenPositions;
  *phase = {shape.outer * shape.pieces() * shape.panels(), 2 * positions * kGivenSets * from.bytes(),
            apply[from.dtype]};
  return true;
}
inline bool plan_forward_given(const RowsForward& p, Plan* plan) {
  return plan_given(p, p.x, p.y, NORMKIT_PHASE_FUNCTIONS(forward_given_phase), &plan->phases[0]);
}

inline void finish_forward_plan(RowsForward& p, Plan* plan) {
  plan->phase_count = 0;
  if (p.rows == 0) return;
  if (p.n == 0) {  // no elements: statistics of an empty set, unless they are given
    if (p.given || (!p.mean && !p.rstd)) return;
    plan->phase_count = 1;
    plan->phases[0] = {p.rows, 16, &empty_rows_phase};
    set_state(plan, p);
    return;
  }
  choose_tiles(p);
  plan->phase_count = 1;
  if ((p.n < kShortColumn && plan_forward_given(p, plan)) || plan_forward_columns(p, plan) ||
      plan_forward_given(p, plan)) {
    set_state(plan, p);
    return;
  }
  plan->phases[0] = {tiles(p), 2 * effort(p) * p.tile_rows * p.n * p.x.bytes(),
                     NORMKIT_PHASE_FUNCTIONS(forward_phase)[p.x.dtype]};
  set_state(plan, p);
}

// The workspace's first whole 64-byte line, or null where less than `needed` bytes follow.
inline char* aligned_scratch(const Workspace& workspace, size_t needed) {
  const uintptr_t start = (reinterpret_cast<uintptr_t>(workspace.data) + 63) / 64 * 64;
  return workspace.data == nullptr || workspace.bytes < needed + 64 ? nullptr
                                                                    : reinterpret_cast<char*>(start);
}

// Chooses how many panels make up a group: one where the scratch allows it, so that there is work for every
// thread. Where not even all of them fit as one, their sums are taken by strips. Returns the scratch.
inline int64_t choose_groups(RowsBackward& p, bool wants_parameters, DType elements, Workspace lent) {
  const int64_t panels = divide_up(p.rows, kPanelRows);
  p.group_panels = 1;
  p.group_bytes = 0;
  p.groups = panels;
  if (!wants_parameters || p.n == 0) return 0;
  const int64_t limit = scratch_limit(p, true, size_of(elements), lent);
  for (;; p.group_panels *= 2) {
    p.groups = divide_up(panels, p.group_panels);
    p.group_bytes = elements == DType::kF64 ? PanelSums<double>::bytes(p.n, p.group_panels)
                                            : PanelSums<float>::bytes(p.n, p.group_panels);
    if (p.groups <= 1 || p.groups <= limit / p.group_bytes) break;
  }
  if (p.groups * p.group_bytes <= limit || p.rows > kMostStripRows) return p.groups * p.group_bytes;
  p.strips = true;
  p.group_panels = 1;
  p.group_bytes = 0;
  p.groups = panels;
  return p.rows * static_cast<int64_t>(sizeof(RowStatistics));
}

inline Status finish_backward_plan(RowsBackward& p, DType elements, bool wants_parameters,
                                   Workspace workspace, Plan* plan) {
  plan->phase_count = 0;
  if (p.n == 0) return Status::kOk;
  const int64_t needed = choose_groups(p, wants_parameters, elements, workspace);
  if (needed > 0) {
    p.scratch = aligned_scratch(workspace, static_cast<size_t>(needed));
    if (p.scratch == nullptr) return Status::kWorkspaceTooSmall;
  }
  choose_stores(p, kTileRows);
  int phases = 0;
  const int64_t element = size_of(elements);
  const Plan::Phase groups = {p.groups, 3 * p.group_panels * kPanelRows * p.n * element,
                              NORMKIT_PHASE_FUNCTIONS(backward_groups_phase)[elements]};
  if (p.strips) {
    p.ready = reinterpret_cast<const RowStatistics*>(p.scratch);
    plan->phases[phases++] = {p.rows, p.n * element, NORMKIT_PHASE_FUNCTIONS(find_rows_phase)[elements]};
    plan->phases[phases++] = {divide_up(p.n, kStrip), 2 * p.rows * kStrip * element,
                              NORMKIT_PHASE_FUNCTIONS(strip_columns_phase)[elements]};
    if (p.dx) plan->phases[phases++] = groups;
  } else {
    if (p.groups > 0) plan->phases[phases++] = groups;
    if (wants_parameters)
      plan->phases[phases++] = {
          divide_up(p.n, kColumnTask), 16 * kColumnTask * (p.groups + 1),
          elements == DType::kF64 ? &add_groups_phase<double> : &add_groups_phase<float>};
  }
  plan->phase_count = phases;
  set_state(plan, p);
  return Status::kOk;
}

inline bool is_nan(double v) {
  return v != v;
}
// What may join a variance: an infinite one too, whose rstd is 0.
inline bool is_eps(double v) {
  return v >= 0.0;
}

// ---- the two operations over rows; Args is the operation's own struct, `mean` a view that RMSNorm leaves
// empty ----

// All but x, which is checked before.
template <typename Args>
inline void rows_forward_arguments(const RowsAxes& axes, const Args& args, bool centred, const View& mean,
                                   double weight_offset, RowsForward& p, ArgumentChecker& check) {
  p.statistic = centred ? Statistic::kMoments : Statistic::kMeanSquare;
  p.eps = args.eps;
  p.weight_offset = weight_offset;
  p.activation = args.activation;
  check.activation(args.activation);
  if (!is_eps(args.eps) || is_nan(weight_offset)) check.fail(Status::kInvalidEps);
  check.input(args.weight, axes.row, args.weight.strides, false, &p.weight);
  check.input(args.bias, axes.row, args.bias.strides, false, &p.bias);
  check.output(args.y, axes.elements, args.y.strides, true, &p.y);
  check.output(mean, axes.rows, mean.strides, false, &p.mean);
  check.output(args.rstd, axes.rows, args.rstd.strides, false, &p.rstd);
  check.same_type(p.x, p.y);
  check.parameter_type(p.weight, p.x.dtype, false);
  check.parameter_type(p.bias, p.x.dtype, false);
  check.statistic_type(p.mean);
  check.statistic_type(p.rstd);
}

template <typename Args>
inline Status rows_forward_plan(const RowsShape& shape, const Args& args, bool centred, const View& mean,
                                double weight_offset, Workspace workspace, Plan* plan) {
  RowsForward p;
  ArgumentChecker check{&workspace};
  const RowsAxes axes(shape, &p, check);
  check.input(args.x, axes.elements, args.x.strides, true, &p.x);
  rows_forward_arguments(axes, args, centred, mean, weight_offset, p, check);
  check.overlaps(p.y, p.x, p.x);
  if (check.status() == Status::kOk) finish_forward_plan(p, plan);
  return check.status();
}

template <typename Args>
inline Status rows_backward_plan(const RowsShape& shape, const Args& args, bool centred,
                                 const ConstView& mean, double weight_offset, Workspace workspace, Plan* plan,
                                 const ConstView& dsum = {}) {
  RowsBackward p;
  ArgumentChecker check{&workspace};
  const RowsAxes axes(shape, &p, check);
  p.statistic = centred ? Statistic::kMoments : Statistic::kMeanSquare;
  p.eps = args.eps;
  p.weight_offset = weight_offset;
  p.accumulate = args.accumulate;
  if (!is_eps(args.eps) || is_nan(weight_offset)) check.fail(Status::kInvalidEps);
  if (centred && (mean.data == nullptr) != (args.rstd.data == nullptr))
    check.fail(Status::kMissingStatistics);
  check.input(args.dy, axes.elements, args.dy.strides, true, &p.dy);
  check.input(dsum, axes.elements, dsum.strides, false, &p.dsum);
  check.input(args.x, axes.elements, args.x.strides, true, &p.x);
  check.input(args.weight, axes.row, args.weight.strides, false, &p.weight);
  check.input(mean, axes.rows, mean.strides, false, &p.mean);
  check.input(args.rstd, axes.rows, args.rstd.strides, false, &p.rstd);
  check.output(args.dx, axes.elements, args.dx.strides, false, &p.dx);
  check.output(args.dweight, axes.row, args.dweight.strides, false, &p.dweight);
  check.output(args.dbias, axes.row, args.dbias.strides, false, &p.dbias);
  check.same_type(p.x, p.dy);
  check.same_type(p.x, p.dsum);
  check.same_type(p.x, p.dx);
  check.parameter_type(p.weight, args.x.dtype, false);
  check.parameter_type(p.dweight, args.x.dtype, true);
  check.parameter_type(p.dbias, args.x.dtype, true);
  check.statistic_type(p.mean);
  check.statistic_type(p.rstd);
  check.overlaps(p.dx, p.x, p.dy, nullptr, &p.dsum);
  if (check.status() != Status::kOk) return check.status();
  return finish_backward_plan(p, args.x.dtype, p.dweight || p.dbias, workspace, plan);
}

template <typename Args>
inline size_t rows_backward_workspace_bytes(const RowsShape& shape, const Args& args) {
  RowsBackward p;
  ArgumentChecker check;
  const RowsAxes axes(shape, &p, check);
  const bool wants_parameters = args.dweight.data != nullptr || args.dbias.data != nullptr;
  if (check.status() != Status::kOk || !is_dtype(args.x.dtype)) return 0;
  const size_t axes_bytes = more_axes_bytes(shape);
  if (!wants_parameters || p.rows == 0 || p.n == 0) return axes_bytes;
  return static_cast<size_t>(choose_groups(p, true, args.x.dtype, {})) + 64 + axes_bytes;
}

NORMKIT_END_NAMESPACE

#endif  // NORMKIT_DETAIL_ROWS_PLAN_HPP_
