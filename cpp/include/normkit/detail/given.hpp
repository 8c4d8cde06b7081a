// Norms by given statistics, of sets that lie side by side in memory: few samples of many channels,
// channels-last arrays. No statistic is summed, so 16 sets are the lanes of a vector, however long they are:
//   y = ((x - hi) - lo) rstd weight + bias,   dx = dy rstd weight
// Gradients of weight and bias are the sums of grad_sums.hpp: element i of a set belongs to lane i mod 32.
// The bits are those of one set at a time, which takes over what needs more care than C.
#ifndef NORMKIT_DETAIL_GIVEN_HPP_
#define NORMKIT_DETAIL_GIVEN_HPP_

#include "normkit/detail/rows_backward.hpp"

NORMKIT_BEGIN_NAMESPACE

constexpr int kGivenSets = 64;             // of a panel
constexpr int64_t kGivenPositions = 1024;  // elements of each set that a task takes

// The elements as [outer, positions, sets], the sets next to each other. `repeats`: so many positions of few
// sets follow each other in memory and are taken as one.
struct GivenShape {
  int64_t outer = 0, positions = 0, sets = 0;  // sets 0: they do not lie side by side
  int repeats = 1;

  inline explicit GivenShape(const RowsProblem& p, const Operand& from, const Operand& to) {
    const int64_t run = from.outer.last_run();
    if (!p.given || p.statistic != Statistic::kMoments || run < 2 || to.outer.last_run() != run) return;
    positions = p.n;
    sets = run;
    outer = p.rows / sets;
    if (sets < kVecLanes && is_flat(from) && is_flat(to)) repeats = kVecLanes / static_cast<int>(sets);
  }
  // Few sets are better taken one by one, unless they are short.
  inline bool suits() const { return sets > 0 && (sets * repeats >= kVecLanes / 2 || positions < kVecLanes); }
  NORMKIT_INLINE int64_t panels() const { return (sets + kGivenSets - 1) / kGivenSets; }
  NORMKIT_INLINE int64_t pieces() const { return (positions + kGivenPositions - 1) / kGivenPositions; }
  // Of a panel that begins with set `first` of its outer index.
  NORMKIT_INLINE int width(int64_t first) const {
    return static_cast<int>(sets - first < kGivenSets ? sets - first : kGivenSets);
  }

 private:
  inline bool is_flat(const Operand& a) const {
    return outer == 1 && a.inner.count == 1 && a.inner.stride[0] == sets;
  }
};

// Numbers of sets r .. r+count-1, next to each other: mean, weight, ... as C.
template <typename C>
NORMKIT_NOINLINE void read_sets(const Operand& operand, int64_t r, int count, double missing, C* to) {
  if (!operand) {
    for (int c = 0; c < count; ++c) to[c] = static_cast<C>(missing);
    return;
  }
  walk(operand.outer, r, count, [&](int64_t at, int64_t stride, int64_t first, int64_t length) {
    if (stride == 1 && operand.dtype == DTypeOf<C>::value) {
      memcpy(to + first, reinterpret_cast<const C*>(operand.data) + at,
             static_cast<size_t>(length) * sizeof(C));
      return;
    }
    int64_t c = 0;
    if constexpr (sizeof(C) == sizeof(double)) {
      const float* from = reinterpret_cast<const float*>(operand.data) + at;
      if (stride == 1 && operand.dtype == DType::kF32)
        for (; c + kVecLanes <= length; c += kVecLanes) widen16(from + c).store(to + first + c);
    }
    for (; c < length; ++c) to[first + c] = static_cast<C>(read_number(operand, at + c * stride));
  });
}

// What the sets of a panel are applied with.
template <typename C>
struct GivenPanel {
  alignas(64) double mean[kGivenSets], second[kGivenSets];  // second: rstd before its last rounding
  alignas(64) C hi[kGivenSets], lo[kGivenSets], rstd[kGivenSets], weight[kGivenSets], bias[kGivenSets];
  bool any_wide = false;

  NORMKIT_NOINLINE void set_statistics(const RowsProblem& p, int64_t r, int count) {
    memset(mean, 0, sizeof(mean));
    memset(second, 0, sizeof(second));
    read_sets(p.mean, r, count, 0.0, mean);
    read_sets(p.rstd, r, count, 0.0, second);
    for (int c = 0; c < count; c += kVecLanes) {
      const Vec16<double> one = Vec16<double>::splat(1.0), eps = Vec16<double>::splat(p.eps);
      if (p.given_variance) (one / square_root(Vec16<double>::load(second + c) + eps)).store(second + c);
      round_sets(c);
    }
    any_wide = false;
    for (int c = 0; c < count; ++c)
      any_wide =
          any_wide || (sizeof(C) == sizeof(float) ? !in_float_range(mean[c], second[c]) : is_far(mean[c]));
  }

  // The first `count` sets `repeats` times.
  NORMKIT_INLINE void repeat(int count, int repeats) {
    for (int c = count; c < count * repeats; ++c) {
      hi[c] = hi[c - count];
      lo[c] = lo[c - count];
      rstd[c] = rstd[c - count];
      weight[c] = weight[c - count];
      bias[c] = bias[c - count];
    }
  }

 private:
  // As row_from does.
  NORMKIT_INLINE void round_sets(int c) {
    const Vec16<double> m = Vec16<double>::load(mean + c), s = Vec16<double>::load(second + c);
    if constexpr (sizeof(C) == sizeof(float)) {
      const Vec16<float> rounded = narrow16(m);
      rounded.store(hi + c);
      narrow16(m - widen(rounded)).store(lo + c);
      narrow16(s).store(rstd + c);
    } else {
      m.store(hi + c);
      Vec16<C>::zero().store(lo + c);
      s.store(rstd + c);
    }
  }
};

// Positions begin .. end-1 of a panel of `width` sets, of which `from` and `to` are the first; to may be
// from.
template <typename T>
NORMKIT_NOINLINE void apply_given(const GivenShape& shape, const T* from, const Axes& from_axes, T* to,
                                  const Axes& to_axes, int64_t begin, int64_t end, int width,
                                  const GivenPanel<Compute<T>>& s, Activation activation) {
  using Vec = Vec16<Compute<T>>;
  for (int64_t i = begin; i < end; i += shape.repeats) {
    const int64_t left = (end - i) * width, most = shape.repeats * width;
    const int lanes = static_cast<int>(left < most ? left : most);
    const T* x = from + from_axes.offset(i);
    T* y = to + to_axes.offset(i);
    const auto value = [&](Vec v, int c) {
      return canonical(normalized(v, Vec::load(s.hi + c), Vec::load(s.lo + c), Vec::load(s.rstd + c)) *
                           Vec::load(s.weight + c) +
                       Vec::load(s.bias + c));
    };
    int c = 0;
    for (; c + kVecLanes <= lanes; c += kVecLanes) store16(y + c, value(load16(x + c), c));
    if (c < lanes) store_up_to16(y + c, lanes - c, value(load_up_to16(x + c, lanes - c), c));
    activate_block(activation, y, lanes);
  }
}

// The same, element by element, for a panel with statistics beyond float's range, or too near double's ends.
template <typename T>
NORMKIT_NOINLINE void apply_given_wide(const T* from, const Axes& from_axes, T* to, const Axes& to_axes,
                                       int64_t begin, int64_t end, int width, const GivenPanel<Compute<T>>& s,
                                       bool centred, Activation activation) {
  using C = Compute<T>;
  alignas(64) C weight[kVecLanes], bias[kVecLanes];
  for (int c = 0; c < width; ++c) {
    Row<C> row = row_from({s.mean[c], 0.0, 0.0, s.second[c], 1.0, 1.0}, C());
    if (!centred)
      row = {{C(0), C(0), row.scale.rstd}, {0.0, 0.0, row.wide.rstd, row.wide.scale}, row.is_wide, 1.0, 0.0};
    Vec16<C>::splat(s.weight[c]).store(weight);
    Vec16<C>::splat(s.bias[c]).store(bias);
    for (int64_t i = begin; i < end; ++i) {
      T* y = to + to_axes.offset(i) + c;
      forward_block(row, from + from_axes.offset(i) + c, y, 1, false, {weight, 0}, {bias, 0}, 0);
      activate_block(activation, y, 1);
    }
  }
}

// y from x, or dx from dy, which has no mean and no bias. One task is a piece of a panel.
template <typename T>
NORMKIT_NOINLINE void apply_given_tasks(const RowsProblem& p, const Operand& from, const Operand& to,
                                        bool centred, const Operand& bias, Activation activation,
                                        int64_t first_task, int64_t last_task) {
  using C = Compute<T>;
  const GivenShape shape(p, from, to);
  const int64_t panels = shape.panels();
  GivenPanel<C> s;
  for (int64_t task = first_task; task < last_task; ++task) {
    const int64_t first = task % panels * kGivenSets, o = task / panels % shape.outer;
    const int64_t r = o * shape.sets + first, begin = task / panels / shape.outer * kGivenPositions;
    const int64_t end = begin + kGivenPositions < shape.positions ? begin + kGivenPositions : shape.positions;
    const int width = shape.width(first);
    s.set_statistics(p, r, width);
    read_sets(p.weight, r, width, kMissingWeight, s.weight);
    read_sets(bias, r, width, kMissingBias, s.bias);
    const T* x = from.template row<const T>(r);
    T* y = to.template row<T>(r);
    if (!NORMKIT_LIKELY(!s.any_wide)) {
      apply_given_wide(x, from.inner, y, to.inner, begin, end, width, s, centred, activation);
      continue;
    }
    if (!centred) {
      memset(s.hi, 0, sizeof(s.hi));
      memset(s.lo, 0, sizeof(s.lo));
    }
    s.repeat(width, shape.repeats);
    apply_given(shape, x, from.inner, y, to.inner, begin, end, width, s, activation);
  }
}

template <typename T>
void forward_given_phase(const void* state, int64_t begin, int64_t end) {
  const FloatEnvironment environment;
  const RowsForward& p = *static_cast<const RowsForward*>(state);
  apply_given_tasks<T>(p, p.x, p.y, true, p.bias, p.activation, begin, end);
}

template <typename T>
void dx_given_phase(const void* state, int64_t begin, int64_t end) {
  const FloatEnvironment environment;
  const RowsBackward& p = *static_cast<const RowsBackward*>(state);
  apply_given_tasks<T>(p, p.dy, p.dx, false, {}, Activation::kNone, begin, end);
}

// ---- gradients ----

// dy and x of up to 16 sets: their elements `position`, missing sets 0.
template <typename T>
struct GivenVector {
  const T *dy, *x;
  const Axes &dy_axes, &x_axes;
  int positions, lanes;
  Vec16<Compute<T>> hi, lo, rstd;

  // Lanes first, first + kStep, ... of the 32 of each set, folded; from `positions` on they are +0, which
  // change no bit.
  template <int kStep>
  NORMKIT_INLINE Pair<Vec16<Compute<T>>> folded(int first) const {
    using Vec = Vec16<Compute<T>>;
    if constexpr (kStep == kLanes) {
      Vec sum = Vec::zero(), product = sum;
      for (int i = first; i < positions; i += kLanes) {
        const T *dy_at = dy + dy_axes.offset(i), *x_at = x + x_axes.offset(i);
        const bool whole = lanes == kVecLanes;
        const Vec g = whole ? load16(dy_at) : load_up_to16(dy_at, lanes);
        sum = sum + g;
        product = product + g * normalized(whole ? load16(x_at) : load_up_to16(x_at, lanes), hi, lo, rstd);
      }
      return {sum, product};
    } else {
      const Pair<Vec> a = folded<2 * kStep>(first);
      if (first + kStep >= positions) return a;
      const Pair<Vec> b = folded<2 * kStep>(first + kStep);
      return {a.first + b.first, a.second + b.second};
    }
  }
};

// Sums of the sets from r on; false: these need more care.
template <typename T>
NORMKIT_NOINLINE bool given_sums(const GivenVector<T>& v, Sums* sums) {
  using C = Compute<T>;
  alignas(64) C first[kVecLanes], second[kVecLanes];
  const Pair<Vec16<C>> total = v.template folded<1>(0);
  total.first.store(first);
  total.second.store(second);
  bool finite = true;
  for (int c = 0; c < v.lanes; ++c) {
    sums[c] = {static_cast<double>(first[c]), static_cast<double>(second[c])};
    finite = finite && is_finite(sums[c].first) && is_finite(sums[c].second);
  }
  return finite || sizeof(C) == sizeof(double);
}

// Sets first .. last-1 one at a time.
template <typename T>
NORMKIT_NOINLINE void backward_each_set(const RowsBackward& p, int64_t first, int64_t last) {
  using C = Compute<T>;
  const Operand none{};
  ParameterReader<C> weight(p.weight, 0.0, C(1)), one(none, 0.0, C(1));
  BackwardBuffers<T> buffers;
  for (int64_t r = first; r < last; ++r) backward_set(p, r, weight, one, buffers);
}

// dx and the sums of one sample. One task is a panel, whose sets are a block at most.
template <typename T>
NORMKIT_NOINLINE void backward_given(const RowsBackward& p, int64_t first_task, int64_t last_task) {
  using C = Compute<T>;
  using Vec = Vec16<C>;
  const GivenShape shape(p, p.dy, p.x);
  GivenPanel<C> s;
  for (int64_t task = first_task; task < last_task; ++task) {
    const int64_t first = task % shape.panels() * kGivenSets, r = task / shape.panels() * shape.sets + first;
    const int width = shape.width(first);
    s.set_statistics(p, r, width);
    read_sets(p.weight, r, width, kMissingWeight, s.weight);
    for (int c = 0; c < width; c += kVecLanes) {
      const int lanes = width - c < kVecLanes ? width - c : kVecLanes;
      const T *dy = p.dy.template row<const T>(r + c), *x = p.x.template row<const T>(r + c);
      const GivenVector<T> v{dy,
                             x,
                             p.dy.inner,
                             p.x.inner,
                             static_cast<int>(shape.positions),
                             lanes,
                             Vec::load(s.hi + c),
                             Vec::load(s.lo + c),
                             Vec::load(s.rstd + c)};
      Sums sums[kVecLanes];
      if (!NORMKIT_LIKELY(!s.any_wide && given_sums(v, sums))) {
        backward_each_set<T>(p, r + c, r + c + lanes);
        continue;
      }
      for (int k = 0; k < lanes; ++k) write_channel(p, r + c + k, sums[k]);
      if (!p.dx) continue;
      T* dx = p.dx.template row<T>(r + c);
      const Vec zero = Vec::zero(), no_bias = Vec::splat(C(kMissingBias)), weight = Vec::load(s.weight + c);
      for (int64_t i = 0; i < shape.positions; ++i) {
        const T* from = dy + p.dy.inner.offset(i);
        T* to = dx + p.dx.inner.offset(i);
        const Vec g = lanes == kVecLanes ? load16(from) : load_up_to16(from, lanes);
        const Vec value = canonical(normalized(g, zero, zero, v.rstd) * weight + no_bias);  // as write_dx
        if (lanes == kVecLanes)
          store16(to, value);
        else
          store_up_to16(to, lanes, value);
      }
    }
  }
}

template <typename T>
void backward_given_phase(const void* state, int64_t begin, int64_t end) {
  const FloatEnvironment environment;
  backward_given<T>(*static_cast<const RowsBackward*>(state), begin, end);
}

// Whether dy and x, and dx, lie so, and the sums are those of one sample and one block.
inline bool suits_backward_given(const RowsBackward& p) {
  const GivenShape shape(p, p.dy, p.x);
  return shape.suits() && p.segments == 1 && p.samples == 1 && Blocks(p).only_one() &&
         (!p.dx || p.dx.outer.last_run() == shape.sets);
}

NORMKIT_END_NAMESPACE

#endif  // NORMKIT_DETAIL_GIVEN_HPP_
