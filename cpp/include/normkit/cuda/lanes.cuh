// A block of at most 32 kSteps elements in registers: `lane` holds elements lane, lane + 32, ... Its sweeps
// are those of reduce.hpp and grad_sums.hpp, one lane at a time; who folds them is the caller's matter: a
// warp whose threads are the lanes, or 32 warps of which each is one (columns.cuh).
#ifndef NORMKIT_CUDA_LANES_CUH_
#define NORMKIT_CUDA_LANES_CUH_

#include "normkit/cuda/warp.cuh"
#include "normkit/detail/rows_backward.hpp"

NORMKIT_BEGIN_NAMESPACE
namespace gpu {

// Steps of a whole block, and steps that are read or written together.
constexpr int kBlockSteps = kBlock / kLanes;
constexpr int kStepsAtOnce = 8;
constexpr int kLastStep = (kStepsAtOnce - 1) * kLanes;

// Values of so many steps. A struct: nvcc lets arrays of different functions share one place in memory, and
// where one of them is walked by a loop, all of them stay there.
template <typename C>
struct Values {
  C at[kStepsAtOnce];
  NORMKIT_DEVICE C& operator[](int step) { return at[step]; }
  NORMKIT_DEVICE C operator[](int step) const { return at[step]; }
};

// ---- elements in memory ----

// How elements of a run lie: side by side, a constant stride apart, as in two nested axes, or anyhow.
enum class Spacing { kOne, kEven, kTwoAxes, kAny };

// Offsets of the elements of one lane: lane, lane + 32, ... of those from `begin` on.
template <Spacing kSpacing>
class LaneOffsets;

template <>
class LaneOffsets<Spacing::kOne> {
 public:
  NORMKIT_DEVICE LaneOffsets(const Axes& axes, int64_t begin, int lane)
      : at_((axes.count == 0 ? begin : axes.offset(begin)) + lane) {}
  NORMKIT_DEVICE int64_t next() {
    const int64_t at = at_;
    at_ += kLanes;
    return at;
  }

 private:
  int64_t at_;
};

template <>
class LaneOffsets<Spacing::kEven> {
 public:
  NORMKIT_DEVICE LaneOffsets(int64_t stride, int64_t begin, int lane)
      : at_((begin + lane) * stride), step_(kLanes * stride) {}
  NORMKIT_DEVICE int64_t next() {
    const int64_t at = at_;
    at_ += step_;
    return at;
  }

 private:
  int64_t at_, step_;
};

NORMKIT_INLINE bool has_two_axes(const Axes& axes) {
  return axes.count < 2 || (axes.count == 2 && axes.size[1] <= INT32_MAX);
}

// Adds instead of dividing: 32 elements further is some whole inner axes further, and the rest.
template <>
class LaneOffsets<Spacing::kTwoAxes> {
 public:
  NORMKIT_DEVICE LaneOffsets(const Axes& axes, int64_t begin, int lane) : place_(0), rest_(0), size_(1) {
    const int64_t first = begin + lane;
    if (axes.count < 2) {
      const int64_t stride = axes.count == 0 ? 0 : axes.stride[0];
      at_ = first * stride;
      step_ = kLanes * stride;
      wrap_ = 0;
      return;
    }
    const int64_t size = axes.size[1], outer = axes.stride[0], inner = axes.stride[1];
    size_ = static_cast<uint32_t>(size);
    place_ = static_cast<uint32_t>(first % size);
    rest_ = kLanes % size_;
    at_ = first / size * outer + place_ * inner;
    step_ = kLanes / size_ * outer + rest_ * inner;
    wrap_ = outer - size * inner;
  }
  NORMKIT_DEVICE int64_t next() {
    const int64_t at = at_;
    at_ += step_;
    place_ += rest_;
    if (place_ >= size_) {
      place_ -= size_;
      at_ += wrap_;
    }
    return at;
  }

 private:
  int64_t at_, step_, wrap_;
  uint32_t place_, rest_, size_;
};

// By integer divisions; a call, since there would be as many as steps.
inline __device__ __noinline__ int64_t far_offset(const Axes& axes, int64_t index) {
  return axes.offset(index);
}

template <>
class LaneOffsets<Spacing::kAny> {
 public:
  NORMKIT_DEVICE LaneOffsets(const Axes& axes, int64_t begin, int lane)
      : axes_(axes), near_(has_two_axes(axes) ? axes : Axes(), begin, lane), index_(begin + lane) {}
  NORMKIT_DEVICE int64_t next() {
    if (has_two_axes(axes_)) return near_.next();
    const int64_t index = index_;
    index_ += kLanes;
    return far_offset(axes_, index);
  }

 private:
  const Axes& axes_;
  LaneOffsets<Spacing::kTwoAxes> near_;
  int64_t index_;
};

// How parameters may lie beside such elements.
NORMKIT_INLINE constexpr Spacing far_parameters(Spacing elements) {
  return elements == Spacing::kAny ? Spacing::kAny : Spacing::kTwoAxes;
}

// One lane's elements of n, eight steps at a time.
template <typename T, Spacing kSpacing>
class LaneElements {
 public:
  using C = Compute<T>;
  NORMKIT_DEVICE LaneElements(T* row, const LaneOffsets<kSpacing>& offsets, int n, int lane)
      : row_(row), offsets_(offsets), left_(n - lane) {}
  // Elements begin .. begin+n-1 of a set.
  NORMKIT_DEVICE LaneElements(const Operand& operand, int64_t set, int64_t begin, int n, int lane)
      : LaneElements(operand.template row<T>(set), {operand.inner, begin, lane}, n, lane) {}

  NORMKIT_DEVICE bool more() const { return left_ > 0; }
  NORMKIT_DEVICE int left() const { return left_; }
  // The next element, if there is one.
  NORMKIT_DEVICE T* next() {
    T* const at = row_ + offsets_.next();
    left_ -= kLanes;
    return at;
  }
  // Where all eight exist, which is nearly everywhere, nothing else is asked.
  NORMKIT_DEVICE void read(Values<C>& to) {
    if (left_ > kLastStep) {
      NORMKIT_UNROLL for (int s = 0; s < kStepsAtOnce; ++s) to[s] = detail::read<C>(next());
    } else {
      NORMKIT_UNROLL for (int s = 0; s < kStepsAtOnce; ++s) {
        const bool exists = more();
        const T* const at = next();
        to[s] = exists ? detail::read<C>(at) : C(0);
      }
    }
  }
  NORMKIT_DEVICE void write(const Values<C>& from) {
    if (left_ > kLastStep) {
      NORMKIT_UNROLL for (int s = 0; s < kStepsAtOnce; ++s) detail::write(next(), from[s]);
    } else {
      NORMKIT_UNROLL for (int s = 0; s < kStepsAtOnce; ++s) {
        const bool exists = more();
        T* const at = next();
        if (exists) detail::write(at, from[s]);
      }
    }
  }

 private:
  T* row_;
  LaneOffsets<kSpacing> offsets_;
  int left_;
};

// Weight or bias of the same elements, in the computing type of T: ParameterReader. It is one number for
// all, or lies side by side, or as kSpacing says.
template <typename T, Spacing kSpacing>
class LaneParameter {
 public:
  using C = Compute<T>;
  // Of the elements begin .. begin+n-1 of a set; `missing` where there is none, or it is not wanted.
  NORMKIT_DEVICE LaneParameter(const Operand& operand, int64_t set, int64_t begin, int n, int lane,
                               double offset, double missing, bool wanted = true)
      : data_(operand.data),
        axes_(operand.inner),
        row_(operand && operand.outer.count != 0 ? operand.outer.offset(set) : 0),
        index_(begin + lane),
        left_(n - lane),
        plus_(static_cast<C>(offset)),
        constant_(static_cast<C>(missing)),
        kind_(kConstant),
        is_float_(operand.dtype == DType::kF32),
        is_shifted_(offset != 0.0) {
    if (!operand || !wanted) return;
    if (axes_.constant(begin, n)) {
      const int64_t at = row_ + axes_.offset(begin);
      constant_ = is_float_ ? value<float>(at) : value<T>(at);
      if (is_shifted_) constant_ = constant_ + plus_;
    } else {
      kind_ = axes_.contiguous() ? kSideBySide : kSpaced;
    }
  }

  NORMKIT_DEVICE void read(Values<C>& to) {
    if (kind_ == kConstant) {
      NORMKIT_UNROLL for (int s = 0; s < kStepsAtOnce; ++s) to[s] = constant_;
      return;
    }
    if (is_float_)
      read<float>(to);
    else
      read<T>(to);
    if (is_shifted_) {
      NORMKIT_UNROLL for (int s = 0; s < kStepsAtOnce; ++s) to[s] = to[s] + plus_;
    }
    index_ += kStepsAtOnce * kLanes;
    left_ -= kStepsAtOnce * kLanes;
  }

 private:
  enum Kind { kConstant, kSideBySide, kSpaced };

  template <typename From>
  NORMKIT_DEVICE C value(int64_t at) const {
    return detail::read<C>(reinterpret_cast<const From*>(data_) + at);
  }
  template <typename From>
  NORMKIT_DEVICE void read(Values<C>& to) const {
    if (kind_ == kSideBySide && left_ > kLastStep) {
      NORMKIT_UNROLL for (int s = 0; s < kStepsAtOnce; ++s) to[s] = value<From>(row_ + index_ + s * kLanes);
    } else {
      LaneOffsets<kSpacing> offsets(axes_, index_, 0);
      NORMKIT_UNROLL for (int s = 0; s < kStepsAtOnce; ++s) {
        const int64_t at = row_ + offsets.next();
        to[s] = left_ > s * kLanes ? value<From>(at) : C(0);
      }
    }
  }

  const char* data_;
  const Axes& axes_;
  int64_t row_, index_;
  int left_;
  C plus_, constant_;
  Kind kind_;
  bool is_float_;  // else they have the elements' type
  bool is_shifted_;
};

// ---- a block in registers ----

// E is the element type that decides how sums are taken (reduce.hpp); values are in its computing type.
template <typename E, int kSteps>
struct LaneBlock {
  using C = Compute<E>;
  static constexpr int kParts = kSteps / kStepsAtOnce;
  int n, lane;
  Values<C> value[kParts];

  NORMKIT_DEVICE LaneBlock(int n_, int lane_) : n(n_), lane(lane_) {}
  template <typename Source>
  NORMKIT_DEVICE LaneBlock(int n_, int lane_, Source&& source) : n(n_), lane(lane_) {
    NORMKIT_UNROLL for (int s = 0; s < kSteps; ++s) at(s) = C(0);
    each_part([&](int part) { source.read(value[part]); });
  }
  NORMKIT_DEVICE C& at(int step) { return value[step / kStepsAtOnce][step % kStepsAtOnce]; }
  NORMKIT_DEVICE C at(int step) const { return value[step / kStepsAtOnce][step % kStepsAtOnce]; }
  NORMKIT_DEVICE bool has(int step) const { return step * kLanes + lane < n; }
  // Whether every lane has an element in each step of a part.
  NORMKIT_DEVICE bool is_full(int part) const { return (part + 1) * kStepsAtOnce * kLanes <= n; }
  // visit(part) of the eight steps that have elements.
  template <typename Visit>
  NORMKIT_DEVICE void each_part(const Visit& visit) const {
    NORMKIT_UNROLL for (int part = 0; part < kParts; ++part) if (part * kStepsAtOnce * kLanes < n)
        visit(part);
  }

  NORMKIT_DEVICE LaneTotal<C> sum() const {
    if constexpr (sizeof(E) < sizeof(C)) {
      return chained_sum<1, false>(C(0));
    } else {
      LaneTotal<C> total;
      each_part([&](int part) {
        if (is_full(part)) {
          NORMKIT_UNROLL for (int s = 0; s < kStepsAtOnce; ++s)
              total.add(static_cast<double>(value[part][s]));
        } else {
          NORMKIT_UNROLL for (int s = 0; s < kStepsAtOnce; ++s) if (has(part * kStepsAtOnce + s))
              total.add(static_cast<double>(value[part][s]));
        }
      });
      return total;
    }
  }
  template <bool kCentred>
  NORMKIT_DEVICE LaneTotal<C> squares(C k) const {
    return chained_sum<2, kCentred>(k);
  }

 private:
  // chained_sum_inline: the whole steps of a part are a chain, the last elements go by themselves.
  template <int kPower, bool kCentred>
  NORMKIT_DEVICE LaneTotal<C> chained_sum(C k) const {
    static_assert(kStepsAtOnce == kChain, "a part is a chain");
    LaneTotal<C> total;
    each_part([&](int part) {
      const auto term = [&](int s) {
        const C a = kCentred ? value[part][s] - k : value[part][s];
        return kPower == 2 ? a * a : a;
      };
      C chain = C(0);
      if (is_full(part)) {
        NORMKIT_UNROLL for (int s = 0; s < kStepsAtOnce; ++s) chain = chain + term(s);
        total.add(static_cast<double>(chain));
        return;
      }
      const int whole = n / kLanes - part * kStepsAtOnce;
      NORMKIT_UNROLL for (int s = 0; s < kStepsAtOnce; ++s) {
        if (s < whole) {
          chain = chain + term(s);
          if (s + 1 == whole) total.add(static_cast<double>(chain));
        } else if (has(part * kStepsAtOnce + s)) {
          total.add(static_cast<double>(term(s)));
        }
      }
    });
    return total;
  }
};

// What is seldom taken loops over a copy of the block: unrolled, it would be most of a kernel; a call would
// cost the kernel registers. The copy goes through an empty asm: else nvcc would keep the block itself in
// memory.
NORMKIT_DEVICE float opaque(float v) {
#if defined(__CUDA_ARCH__)
  asm volatile("" : "+f"(v));
#endif
  return v;
}
NORMKIT_DEVICE double opaque(double v) {
#if defined(__CUDA_ARCH__)
  asm volatile("" : "+d"(v));
#endif
  return v;
}
NORMKIT_DEVICE int64_t opaque(int64_t v) {
#if defined(__CUDA_ARCH__)
  asm volatile("" : "+l"(v));
#endif
  return v;
}
template <typename E, int kSteps>
NORMKIT_DEVICE LaneBlock<E, kSteps> in_memory(const LaneBlock<E, kSteps>& x) {
  LaneBlock<E, kSteps> copy(x.n, x.lane);
  NORMKIT_UNROLL for (int s = 0; s < kSteps; ++s) copy.at(s) = opaque(x.at(s));
  return copy;
}
template <int kPower, typename E, int kSteps>
NORMKIT_DEVICE double wide_lane_sum(LaneBlock<E, kSteps> x, double k) {
  double sum = 0.0;
  NORMKIT_ROLL for (int s = 0; s < kSteps && x.has(s); ++s) {
    const double a = static_cast<double>(x.at(s)) - k;
    sum = sum + (kPower == 2 ? a * a : a);
  }
  return sum;
}

// x -> xhat, unless the row is taken in double.
template <typename T, int kSteps>
NORMKIT_DEVICE void normalize(LaneBlock<T, kSteps>& x, const Row<Compute<T>>& row) {
  if (row.is_wide) return;
  NORMKIT_UNROLL for (int s = 0; s < kSteps; ++s) x.at(s) =
      normalized(x.at(s), row.scale.hi, row.scale.lo, row.scale.rstd);
}

// The lane's sums of g and of g xhat.
template <typename T, int kSteps, typename Weight>
NORMKIT_DEVICE Pair<Compute<T>> lane_grad_sums(const LaneBlock<T, kSteps>& dy,
                                               const LaneBlock<T, kSteps>& xhat, Weight weight) {
  using C = Compute<T>;
  Pair<C> sums{C(0), C(0)};
  xhat.each_part([&](int part) {
    Values<C> w;
    weight.read(w);
    NORMKIT_UNROLL for (int s = 0; s < kStepsAtOnce; ++s) {
      if (!xhat.has(part * kStepsAtOnce + s)) continue;
      const C g = dy.value[part][s] * w[s];
      sums.first = sums.first + g;
      sums.second = sums.second + g * xhat.value[part][s];
    }
  });
  return sums;
}
// In double, which is seldom: from memory, before dx is written, which may lie there. Place says where the
// lane's elements are.
template <typename Place, typename C>
NORMKIT_DEVICE Sums wide_lane_grad_sums(Place place, WideRow<C> row) {
  Sums sums{0.0, 0.0};
  auto dy_of = place.dy(), x_of = place.x();
  auto weight = place.weight();
  NORMKIT_ROLL while (x_of.more()) {
    Values<C> dy, x, w;
    const int left = x_of.left();
    dy_of.read(dy);
    x_of.read(x);
    weight.read(w);
    NORMKIT_ROLL for (int s = 0; s < kStepsAtOnce && s * kLanes < left; ++s) {
      const double g = static_cast<double>(dy[s]) * static_cast<double>(w[s]);
      sums.first += g;
      sums.second += g * wide_normalized(static_cast<double>(x[s]), row);
    }
  }
  return sums;
}
// A weight of 1.
template <typename C>
struct UnitWeight {
  NORMKIT_DEVICE void read(Values<C>& to) const {
    NORMKIT_UNROLL for (int s = 0; s < kStepsAtOnce; ++s) to[s] = C(1);
  }
};

// ---- a block whose lanes are the threads of a warp ----

template <typename E, int kSteps>
struct WarpBlock : LaneBlock<E, kSteps> {
  using C = Compute<E>;
  using Lane = LaneBlock<E, kSteps>;
  template <typename Source>
  NORMKIT_DEVICE WarpBlock(int count, Source&& source) : Lane(count, gpu::lane(), source) {}

  template <bool kCentred>
  NORMKIT_DEVICE double squares(C k) const {
    return Lane::template squares<kCentred>(k).folded().high;
  }
  template <int kPower>
  NORMKIT_DEVICE double wide_sum(double k) const {
    return warp_fold(wide_lane_sum<kPower, E, kSteps>(in_memory(*this), k));
  }
  NORMKIT_DEVICE bool all(bool of_block) const { return of_block; }
  NORMKIT_DEVICE Moments<C> moments() const { return moments_of(*this, Lane::sum().folded()); }
  NORMKIT_DEVICE double sum_of_squares() const { return sum_of_squares_of(*this); }
};

template <typename T, int kSteps, typename Place>
struct WarpGrads {
  const LaneBlock<T, kSteps>&dy, &xhat;
  const Place& place;
  const Row<Compute<T>>& row;

  NORMKIT_DEVICE Pair<Compute<T>> sums(const RowScale<Compute<T>>&) const {
    const Pair<Compute<T>> own = lane_grad_sums<T, kSteps>(dy, xhat, place.weight());
    return {warp_fold(own.first), warp_fold(own.second)};
  }
  NORMKIT_DEVICE Sums wide_sums(const WideRow<Compute<T>>&) const {
    const Sums own = wide_lane_grad_sums<Place, Compute<T>>(place, place.in_double(row).wide);
    return {warp_fold(own.first), warp_fold(own.second)};
  }
};
template <typename T, int kSteps, typename Place>
NORMKIT_DEVICE Sums warp_grad_sums(const LaneBlock<T, kSteps>& dy, const LaneBlock<T, kSteps>& xhat,
                                   const Place& place, const Row<Compute<T>>& row, bool& overflows) {
  return grad_sums_of(WarpGrads<T, kSteps, Place>{dy, xhat, place, row}, row, overflows);
}

}  // namespace gpu
NORMKIT_END_NAMESPACE

#endif  // NORMKIT_CUDA_LANES_CUH_
