// Where elements lie: operands walk over the loop axes by strides; here axes are merged, checked and turned
// into rows.
//
// A row's elements are numbered in C order over the inner axes, whatever the memory looks like. A row that is
// not contiguous is gathered block by block into a buffer and meets the same kernels: strided equals
// contiguous by construction.
#ifndef NORMKIT_DETAIL_GEOMETRY_HPP_
#define NORMKIT_DETAIL_GEOMETRY_HPP_

#include "normkit/detail/config.hpp"
#include "normkit/types.hpp"

NORMKIT_BEGIN_NAMESPACE

// Axes longer than one that an array may have: it would not fit an address space with more.
constexpr int kMostAxes = 48;

// Axes from slowest to fastest; strides in elements. Slower ones than the last kMaxAxes lie elsewhere: sizes,
// then strides.
struct Axes {
  int32_t count = 0, more_count = 0;
  const int64_t* more = nullptr;
  int64_t size[kMaxAxes];
  int64_t stride[kMaxAxes];

  // All of them.
  NORMKIT_INLINE int total() const { return more_count + count; }
  NORMKIT_INLINE int64_t size_of(int a) const { return a < more_count ? more[a] : size[a - more_count]; }
  NORMKIT_INLINE int64_t stride_of(int a) const {
    return a < more_count ? more[more_count + a] : stride[a - more_count];
  }

  // Of the last axis: its stride; its length, if its elements lie side by side.
  NORMKIT_INLINE int64_t last_stride() const { return count > 0 ? stride[count - 1] : 0; }
  NORMKIT_INLINE int64_t last_run() const { return last_stride() == 1 ? size[count - 1] : 1; }
  // Of element `index` in C order.
  NORMKIT_INLINE int64_t offset(int64_t index) const {
    if (count < 2) return count == 0 ? 0 : index * stride[0];
    return nested_offset(index);
  }

  NORMKIT_INLINE bool contiguous() const { return count == 0 || (count == 1 && stride[0] == 1); }

  // Whether elements begin .. begin+length-1 are all the same one.
  NORMKIT_INLINE bool constant(int64_t begin, int64_t length) const {
    if (count == 0) return true;
    return stride[count - 1] == 0 && (count == 1 || begin % size[count - 1] + length <= size[count - 1]);
  }

  // Appends an axis inside the others, merging it into the one before where memory allows. False: no room.
  // Only while there are no more axes elsewhere.
  inline bool append(int64_t axis_size, int64_t axis_stride) {
    if (axis_size == 1) return true;
    int64_t step;
    if (count > 0 && !__builtin_mul_overflow(axis_size, axis_stride, &step) && stride[count - 1] == step) {
      size[count - 1] *= axis_size;
      stride[count - 1] = axis_stride;
      return true;
    }
    if (count == kMaxAxes) return false;
    size[count] = axis_size;
    stride[count] = axis_stride;
    ++count;
    return true;
  }

 private:
  NORMKIT_INLINE int64_t nested_offset(int64_t index) const {
    int64_t sum = 0;
    NORMKIT_ROLL for (int a = count - 1; a > 0; --a) {
      sum += index % size[a] * stride[a];
      index /= size[a];
    }
#if !defined(__CUDA_ARCH__)  // arrays on a device have no more
    if (!NORMKIT_LIKELY(more_count == 0)) return sum + far_offset(index);
#endif
    return sum + index * stride[0];
  }
  NORMKIT_NOINLINE inline int64_t far_offset(int64_t index) const {
    int64_t sum = 0;
    for (int a = more_count; a > 0; --a) {
      sum += index % size_of(a) * stride_of(a);
      index /= size_of(a);
    }
    return sum + index * stride_of(0);
  }
};

// One array of an operation over rows: weight and bias have no outer axes, mean and rstd no inner ones.
struct Operand {
  char* data = nullptr;
  DType dtype = DType::kF32;
  Axes outer, inner;

  NORMKIT_INLINE explicit operator bool() const { return data != nullptr; }
  NORMKIT_INLINE int64_t bytes() const { return size_of(dtype); }
  template <typename T>
  NORMKIT_INLINE T* row(int64_t r) const {
    return reinterpret_cast<T*>(data) + outer.offset(r);
  }
};

// Product of the sizes, or -1 if one is negative or the elements could not lie in memory.
inline int64_t checked_product(const int64_t* size, int count) {
  int64_t bound = 1;  // the product with empty axes counted as one: what strides are multiplied by
  bool empty = false;
  for (int a = 0; a < count; ++a) {
    if (size[a] < 0) return -1;
    if (size[a] == 0) {
      empty = true;
    } else if (__builtin_mul_overflow(bound, size[a], &bound) || bound > (int64_t(1) << 47)) {
      return -1;
    }
  }
  return empty ? 0 : bound;
}

// In bytes: more than an address space holds, and little enough for sums of a few to fit.
constexpr int64_t kFarthest = int64_t(1) << 56;

// Bytes first .. end-1 relative to data are what a non-empty operand touches at most. False: they overflow.
struct Extent {
  int64_t first = 0, end = 0;

  inline bool of(const Operand& operand) {
    end = operand.bytes();
    return add(operand.outer, operand.bytes()) && add(operand.inner, operand.bytes());
  }

 private:
  inline bool add(const Axes& axes, int64_t bytes) {
    for (int a = 0; a < axes.total(); ++a) {
      int64_t reach;
      if (__builtin_mul_overflow(axes.size_of(a) - 1, axes.stride_of(a), &reach) ||
          __builtin_mul_overflow(reach, bytes, &reach) || reach > kFarthest || reach < -kFarthest)
        return false;
      int64_t& side = reach < 0 ? first : end;
      if (__builtin_add_overflow(side, reach, &side)) return false;
    }
    return true;
  }
};

// Never negative where addresses have 32 bits, so that an array may lie across their middle.
inline int64_t address_of(const void* p) {
  return static_cast<int64_t>(reinterpret_cast<uintptr_t>(p));
}

// Integers 0 <= v_k < size_k with low <= sum of step_k v_k <= high: does a solution exist? Exact within a
// budget of search steps, "yes" beyond it. For nested axes each level has one or two candidates.
class OverlapSearch {
 public:
  // The elements of `a` less those of `b`, in bytes.
  inline OverlapSearch(const Operand& a, const Operand& b) : low_(1 - a.bytes()), high_(b.bytes() - 1) {
    const int64_t distance = address_of(a.data) - address_of(b.data);
    low_ -= distance;
    high_ -= distance;
    add(a.outer, a.bytes());
    add(a.inner, a.bytes());
    add(b.outer, -b.bytes());
    add(b.inner, -b.bytes());
    reach_[count_] = 0;
    for (int k = count_ - 1; k >= 0; --k) reach_[k] = reach_[k + 1] + step_[k] * (size_[k] - 1);
  }

  inline bool found() { return search(0, low_, high_); }

 private:
  inline void add(const Axes& axes, int64_t bytes) {
    for (int a = 0; a < axes.total(); ++a) {
      const int64_t last = axes.size_of(a) - 1;
      int64_t step = axes.stride_of(a) * bytes;
      if (step == 0) continue;
      if (step < 0) {  // count the axis from its other end
        low_ -= step * last;
        high_ -= step * last;
        step = -step;
      }
      int k = count_++;
      for (; k > 0 && step_[k - 1] < step; --k) {
        step_[k] = step_[k - 1];
        size_[k] = size_[k - 1];
      }
      step_[k] = step;
      size_[k] = last + 1;
    }
  }

  inline bool search(int k, int64_t low, int64_t high) {
    if (high < 0 || low > reach_[k]) return false;
    if (k == count_) return true;
    if (--budget_ < 0) return true;
    int64_t v = low > reach_[k + 1] ? (low - reach_[k + 1] + step_[k] - 1) / step_[k] : 0;
    for (; v < size_[k] && v * step_[k] <= high; ++v)
      if (search(k + 1, low - v * step_[k], high - v * step_[k])) return true;
    return false;
  }

  static constexpr int kMaxTerms = 2 * kMostAxes;
  int64_t low_, high_;
  int count_ = 0;
  int budget_ = 4096;
  int64_t step_[kMaxTerms], size_[kMaxTerms], reach_[kMaxTerms + 1];
};

inline bool same_axes(const Axes& a, const Axes& b) {
  if (a.total() != b.total()) return false;
  for (int k = 0; k < a.total(); ++k)
    if (a.size_of(k) != b.size_of(k) || a.stride_of(k) != b.stride_of(k)) return false;
  return true;
}

inline bool same_view(const Operand& a, const Operand& b) {
  return a.data == b.data && a.dtype == b.dtype && same_axes(a.outer, b.outer) && same_axes(a.inner, b.inner);
}

// Whether two non-empty operands, whose extents are valid, share a byte.
inline bool overlap(const Operand& a, const Operand& b) {
  Extent ea, eb;
  (void)ea.of(a);
  (void)eb.of(b);
  const int64_t pa = address_of(a.data), pb = address_of(b.data);
  if (pa + ea.end <= pb + eb.first || pb + eb.end <= pa + ea.first) return false;
  return OverlapSearch(a, b).found();
}

// Whether no element of an output is written twice. Sufficient and, for sensible strides, necessary: ordered
// by stride, each axis steps over all that the finer ones reach.
inline bool injective(const Operand& operand) {
  int64_t step[kMostAxes], size[kMostAxes];
  int count = 0;
  const Axes* both[] = {&operand.outer, &operand.inner};
  for (const Axes* axes : both) {
    for (int a = 0; a < axes->total(); ++a) {
      const int64_t stride = axes->stride_of(a), s = stride < 0 ? -stride : stride;
      int k = count++;
      for (; k > 0 && step[k - 1] > s; --k) {
        step[k] = step[k - 1];
        size[k] = size[k - 1];
      }
      step[k] = s;
      size[k] = axes->size_of(a);
    }
  }
  int64_t reach = 0;
  for (int k = 0; k < count; ++k) {
    if (step[k] <= reach) return false;
    reach += step[k] * (size[k] - 1);
  }
  return true;
}

// Calls visit(offset, stride, first, length) for the straight runs that make up elements begin ..
// begin+count-1 of the axes, `first` counting from begin.
template <typename Visit>
NORMKIT_INLINE void walk(const Axes& axes, int64_t begin, int64_t count, Visit visit) {
  const int last = axes.count - 1;
  int64_t done = 0;
  while (done < count) {
    const int64_t index = begin + done;
    const int64_t left = last < 0 ? 1 : axes.size[last] - index % axes.size[last];
    const int64_t length = left < count - done ? left : count - done;
    visit(axes.offset(index), last < 0 ? int64_t(1) : axes.stride[last], done, length);
    done += length;
  }
}

template <typename T>
NORMKIT_NOINLINE void gather(const T* row, const Axes& inner, int64_t begin, int64_t count, T* to) {
  walk(inner, begin, count, [=](int64_t offset, int64_t stride, int64_t first, int64_t length) {
    if (stride == 1) return (void)memcpy(to + first, row + offset, static_cast<size_t>(length) * sizeof(T));
    for (int64_t i = 0; i < length; ++i) to[first + i] = row[offset + i * stride];
  });
}

template <typename T>
NORMKIT_NOINLINE void scatter(const T* from, const Axes& inner, int64_t begin, int64_t count, T* row) {
  walk(inner, begin, count, [=](int64_t offset, int64_t stride, int64_t first, int64_t length) {
    if (stride == 1) return (void)memcpy(row + offset, from + first, static_cast<size_t>(length) * sizeof(T));
    for (int64_t i = 0; i < length; ++i) row[offset + i * stride] = from[first + i];
  });
}

// Where elements begin .. begin+count-1 of a row lie side by side, or null.
template <typename T>
NORMKIT_INLINE T* straight_block(const Axes& inner, T* row, int64_t begin, int64_t count) {
  if (inner.contiguous()) return row + begin;
  const int last = inner.count - 1;
  if (inner.stride[last] != 1 || begin % inner.size[last] + count > inner.size[last]) return nullptr;
  return row + inner.offset(begin);
}

// Whether every `run` elements of a row do, counted from its beginning.
NORMKIT_INLINE bool lies_straight(const Axes& inner, int64_t run) {
  const int last = inner.count - 1;
  return inner.contiguous() || (inner.stride[last] == 1 && run > 0 && inner.size[last] % run == 0);
}

// Elements begin .. begin+count-1 of a row as a contiguous block: in place, or gathered into the buffer.
template <typename T>
NORMKIT_INLINE const T* block_of(const Operand& operand, const T* row, int64_t begin, int64_t count,
                                 T* buffer) {
  const T* straight = straight_block(operand.inner, row, begin, count);
  if (straight != nullptr) return straight;
  gather(row, operand.inner, begin, count, buffer);
  return buffer;
}

NORMKIT_END_NAMESPACE

#endif  // NORMKIT_DETAIL_GEOMETRY_HPP_
