// A block of at most 32 kSteps elements in registers: `lane` holds elements lane, lane + 32, ... Its sweeps
// are those of reduce.hpp and grad_sums.hpp, one lane at a time; who folds them is the caller's matter: a
// warp whose threads are the lanes, or 32 warps of which each is one (columns.cuh).
#ifndef NORMKIT_CUDA_LANES_CUH_
#define NORMKIT_CUDA_LANES_CUH_

#include "normkit/cuda/warp.cuh"
#include "normkit/detail/rows_backward.hpp"

NORMKIT_BEGIN_NAMESPACE
namespace gpu {

// Steps of a whole block.
constexpr int kBlockSteps = kBlock / kLanes;

// E is the element type that decides how sums are taken (reduce.hpp); values are in its computing type.
template <typename E, int kSteps>
struct LaneBlock {
  using C = Compute<E>;
  int n, lane;
  C value[kSteps];

  // at(i): element i.
  template <typename At>
  NORMKIT_DEVICE LaneBlock(int n_, int lane_, const At& at) : n(n_), lane(lane_) {
    NORMKIT_UNROLL for (int s = 0; s < kSteps; ++s) {
      const int i = s * kLanes + lane;
      value[s] = i < n ? at(i) : C(0);
    }
  }
  // visit(value, i) of every element.
  template <typename Visit>
  NORMKIT_DEVICE void each(const Visit& visit) const {
    NORMKIT_UNROLL for (int s = 0; s < kSteps; ++s) {
      const int i = s * kLanes + lane;
      if (i < n) visit(value[s], i);
    }
  }

  NORMKIT_DEVICE LaneTotal<C> sum() const {
    if constexpr (sizeof(E) < sizeof(C)) {
      return chained_sum<1, false>(C(0));
    } else {
      LaneTotal<C> total;
      each([&](C v, int) { total.add(static_cast<double>(v)); });
      return total;
    }
  }
  template <bool kCentred>
  NORMKIT_DEVICE LaneTotal<C> squares(C k) const {
    return chained_sum<2, kCentred>(k);
  }
  template <int kPower>
  NORMKIT_DEVICE double wide_sum(double k) const {
    double sum = 0.0;
    each([&](C v, int) {
      const double a = static_cast<double>(v) - k;
      sum = sum + (kPower == 2 ? a * a : a);
    });
    return sum;
  }

 private:
  // chained_sum_inline: whole steps in chains of kChain, the last elements by themselves.
  template <int kPower, bool kCentred>
  NORMKIT_DEVICE LaneTotal<C> chained_sum(C k) const {
    const int whole = n / kLanes;
    LaneTotal<C> total;
    C chain = C(0);
    NORMKIT_UNROLL for (int s = 0; s < kSteps; ++s) {
      const C a = kCentred ? value[s] - k : value[s];
      const C term = kPower == 2 ? a * a : a;
      if (s < whole) {
        chain = chain + term;
        if (s % kChain == kChain - 1 || s + 1 == whole) {
          total.add(static_cast<double>(chain));
          chain = C(0);
        }
      } else if (s * kLanes + lane < n) {
        total.add(static_cast<double>(term));
      }
    }
    return total;
  }
};

// The same of dy beside x: one lane's sums of g and of g xhat. weight(i): of element i.
template <typename C, typename E, int kSteps, typename Weight>
NORMKIT_DEVICE Pair<C> lane_grad_sums(const LaneBlock<E, kSteps>& dy, const LaneBlock<E, kSteps>& x,
                                      const RowScale<C>& row, const Weight& weight) {
  Pair<C> sums{C(0), C(0)};
  NORMKIT_UNROLL for (int s = 0; s < kSteps; ++s) {
    const int i = s * kLanes + x.lane;
    if (i < x.n) {
      const C g = dy.value[s] * weight(i);
      sums.first = sums.first + g;
      sums.second = sums.second + g * normalized(x.value[s], row.hi, row.lo, row.rstd);
    }
  }
  return sums;
}
template <typename C, typename E, int kSteps, typename Weight>
NORMKIT_DEVICE Sums wide_lane_grad_sums(const LaneBlock<E, kSteps>& dy, const LaneBlock<E, kSteps>& x,
                                        const WideRow<C>& row, const Weight& weight) {
  Sums sums{0.0, 0.0};
  NORMKIT_UNROLL for (int s = 0; s < kSteps; ++s) {
    const int i = s * kLanes + x.lane;
    if (i < x.n) {
      const double g = static_cast<double>(dy.value[s]) * static_cast<double>(weight(i));
      sums.first += g;
      sums.second += g * wide_normalized(static_cast<double>(x.value[s]), row);
    }
  }
  return sums;
}

// ---- a block whose lanes are the threads of a warp ----

template <typename E, int kSteps>
struct WarpBlock : LaneBlock<E, kSteps> {
  using C = Compute<E>;
  using Lane = LaneBlock<E, kSteps>;
  template <typename At>
  NORMKIT_DEVICE WarpBlock(int count, const At& at) : Lane(count, gpu::lane(), at) {}

  template <bool kCentred>
  NORMKIT_DEVICE double squares(C k) const {
    return Lane::template squares<kCentred>(k).folded().high;
  }
  template <int kPower>
  NORMKIT_DEVICE double wide_sum(double k) const {
    return warp_fold(Lane::template wide_sum<kPower>(k));
  }
  NORMKIT_DEVICE Moments<C> moments() const { return moments_of(*this, Lane::sum().folded()); }
  NORMKIT_DEVICE double sum_of_squares() const { return sum_of_squares_of(*this); }
};

template <typename E, int kSteps, typename Weight>
struct WarpGrads {
  using C = Compute<E>;
  const WarpBlock<E, kSteps>&dy, &x;
  const Weight& weight;

  NORMKIT_DEVICE Pair<C> sums(const RowScale<C>& row) const {
    const Pair<C> own = lane_grad_sums<C>(dy, x, row, weight);
    return {warp_fold(own.first), warp_fold(own.second)};
  }
  NORMKIT_DEVICE Sums wide_sums(const WideRow<C>& row) const {
    const Sums own = wide_lane_grad_sums<C>(dy, x, row, weight);
    return {warp_fold(own.first), warp_fold(own.second)};
  }
};
template <typename E, int kSteps, typename Weight>
NORMKIT_DEVICE Sums warp_grad_sums(const WarpBlock<E, kSteps>& dy, const WarpBlock<E, kSteps>& x,
                                   const Row<Compute<E>>& row, const Weight& weight, bool& overflows) {
  return grad_sums_of(WarpGrads<E, kSteps, Weight>{dy, x, weight}, row, overflows);
}

// ---- elements in memory ----

// The way to elements that do not lie side by side, by integer divisions: a call, since kernels are unrolled.
NORMKIT_DEVICE_CALL int64_t far_offset(const Axes& inner, int64_t index) {
  return inner.offset(index);
}

// Elements begin .. begin+n-1 of a set. kStraight: they lie side by side. Kernels come in both kinds.
template <typename T, bool kStraight>
struct Elements {
  T* row;
  const Axes& inner;
  int64_t begin;

  NORMKIT_DEVICE Elements(const Operand& operand, int64_t set, int64_t begin_)
      : row(operand.template row<T>(set)), inner(operand.inner), begin(begin_) {
    if (kStraight) row += inner.count == 0 ? begin : inner.offset(begin);
  }
  NORMKIT_DEVICE T* at(int64_t i) const {
    if constexpr (kStraight) return row + i;
    return row + far_offset(inner, begin + i);
  }
};

// Whether a parameter changes from one segment of a set to the next, and not within.
NORMKIT_INLINE bool varies_by_segments(const RowsProblem& p, const Operand& parameter) {
  const Axes& inner = parameter.inner;
  return p.segment > 0 && p.segment <= INT32_MAX && inner.count == 2 && inner.stride[1] == 0 &&
         inner.size[1] == p.segment;
}

// Weight or bias of the same elements in the computing type of T: ParameterReader. kStraight: it is one
// number for all, for each segment, or lies side by side.
template <typename T, bool kStraight>
struct ParameterElements {
  using C = Compute<T>;
  const Operand& operand;
  int64_t base, begin;
  uint32_t first, segment;  // the first element's place in its segment
  C plus, constant;
  enum : int { kConstant, kSideBySide, kSegments, kFar } kind;
  bool shifted;

  NORMKIT_DEVICE ParameterElements(const RowsProblem& p, const Operand& operand_, int64_t set, int64_t begin_,
                                   int n, double offset, double missing)
      : operand(operand_),
        base(0),
        begin(begin_),
        first(0),
        segment(static_cast<uint32_t>(p.segment)),
        plus(static_cast<C>(offset)),
        constant(static_cast<C>(missing)),
        kind(kConstant),
        shifted(offset != 0.0) {
    if (!operand_) return;
    const int64_t row = operand.outer.count == 0 ? 0 : operand.outer.offset(set);
    if (operand.inner.constant(begin, n)) {
      constant = load(row + operand.inner.offset(begin));
    } else if (operand.inner.contiguous()) {
      base = row + begin;
      kind = kSideBySide;
    } else if (varies_by_segments(p, operand)) {
      base = row + begin / p.segment * operand.inner.stride[0];
      first = static_cast<uint32_t>(begin % p.segment);
      kind = kSegments;
    } else {
      base = row;
      kind = kFar;
    }
  }
  NORMKIT_DEVICE C operator()(int i) const {
    if (kind == kConstant) return constant;
    if (kind == kSideBySide) return load(base + i);
    if (kStraight || kind == kSegments)
      return load(base + static_cast<int64_t>((first + static_cast<uint32_t>(i)) / segment) *
                             operand.inner.stride[0]);
    return load(base + far_offset(operand.inner, begin + i));
  }

 private:
  // Parameters have the elements' type or float.
  NORMKIT_DEVICE C load(int64_t at) const {
    const C value = operand.dtype == DTypeOf<T>::value
                        ? read<C>(reinterpret_cast<const T*>(operand.data) + at)
                        : read<C>(reinterpret_cast<const float*>(operand.data) + at);
    return shifted ? value + plus : value;
  }
};

}  // namespace gpu
NORMKIT_END_NAMESPACE

#endif  // NORMKIT_CUDA_LANES_CUH_
