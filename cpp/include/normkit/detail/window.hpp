// LocalResponseNorm's kernel: sums over a window of channels that slides along them.
//
// A tile is up to 16 positions (N, space) and all their channels, read into buffers of doubles; there,
// element (channel, position) lies at channel * lanes + position, so the next channel of the window is
// `lanes` further on. With 16 lanes a vector is 16 positions of one channel; with one lane it is 16 channels
// of one position. The arithmetic, hence the bits, are the same. Channels go by in blocks; what the next
// block's windows reach back to (`history`) is kept in the buffers, so that x may be overwritten: y may be x.
// Channels beyond the ends are zeros, and adding +0 to a sum that began at +0 changes no bit.
#ifndef NORMKIT_DETAIL_WINDOW_HPP_
#define NORMKIT_DETAIL_WINDOW_HPP_

#include "normkit/detail/activation.hpp"
#include "normkit/detail/config.hpp"
#include "normkit/detail/convert.hpp"
#include "normkit/detail/geometry.hpp"
#include "normkit/detail/intrinsics.hpp"
#include "normkit/detail/math.hpp"
#include "normkit/detail/simd.hpp"

NORMKIT_BEGIN_NAMESPACE

constexpr int64_t kWindowBlock = 512;    // elements that are worked on at a time
constexpr int64_t kWindowHistory = 512;  // elements of history that fit the stack
constexpr int kForwardBuffers = 3, kBackwardBuffers = 6;
// One more for double elements: see "odd bases".
NORMKIT_INLINE constexpr int window_buffers(DType elements, bool backward) {
  return backward ? kBackwardBuffers + (elements == DType::kF64 ? 1 : 0) : kForwardBuffers;
}

struct WindowProblem {
  Operand x, dy, out;  // outer axes: N, space; inner axis: C
  int64_t positions = 0, channels = 0;
  int64_t before = 0, after = 0;            // a window is channels c - before .. c + after
  double scale = 0.0, beta = 0.0, k = 0.0;  // scale = alpha / size
  int32_t lanes = 1;
  int64_t tiles = 0, tasks = 0;
  int64_t buffer = 0;       // elements of one buffer
  char* scratch = nullptr;  // one set of buffers for each task; null: they are on the stack
  int64_t scratch_bytes = 0;
  Activation activation = Activation::kNone;

  NORMKIT_INLINE int64_t history() const { return before + after; }
};

NORMKIT_INLINE int64_t window_buffer_length(int64_t history_elements) {
  return history_elements + kWindowBlock + 2 * kVecLanes;  // whole vectors are written, also at the end
}

// base^beta in place of base, for n elements (up to the next multiple of 16); multiples of a quarter through
// square roots.
inline NORMKIT_NOINLINE void power_of_base(double beta, double* base, int64_t n) {
  using Vec = Vec16<double>;
  if (beta == 1.0) return;
  for (int64_t i = 0; i < n; i += kVecLanes) {
    const Vec value = Vec::load(base + i);
    if (beta == 0.5) {
      square_root(value).store(base + i);
    } else if (beta == 0.25) {
      square_root(square_root(value)).store(base + i);
    } else if (beta == 0.75) {
      const Vec root = square_root(value);
      (root * square_root(root)).store(base + i);
    } else {
      for (int j = 0; j < kVecLanes; ++j) base[i + j] = pow_of(base[i + j], beta);
    }
  }
}

// Positions first .. first+count-1 of an operand.
template <typename T>
struct WindowTile {
  T* data;
  int64_t stride;             // of the channels
  int64_t offset[kVecLanes];  // of each position
  int64_t channels;
  int lanes, count;
  bool straight;  // the 16 elements of a vector lie side by side

  NORMKIT_INLINE WindowTile(const WindowProblem& p, const Operand& operand, int64_t first, int count_)
      : data(reinterpret_cast<T*>(operand.data)),
        stride(operand.inner.count == 0 ? 0 : operand.inner.stride[0]),
        channels(p.channels),
        lanes(p.lanes),
        count(count_) {
    int runs = 0;
    int64_t step = 1;
    walk(operand.outer, first, count,
         [&](int64_t at, int64_t position_stride, int64_t begin, int64_t length) {
           for (int64_t i = 0; i < length; ++i) offset[begin + i] = at + i * position_stride;
           step = position_stride;
           ++runs;
         });
    straight = lanes == 1 ? stride == 1 : count == kVecLanes && runs == 1 && step == 1;
  }

  // Channels first .. first+n-1 as doubles; zeros beyond the last channel and in the lanes beyond the last
  // position. May write 15 elements more.
  NORMKIT_NOINLINE void load(int64_t first, int64_t n, double* to) const {
    const int64_t left = first < channels ? channels - first : 0, valid = n < left ? n : left;
    const T* from = valid > 0 ? data + first * stride : data;
    int64_t done = 0;
    if (lanes == kVecLanes && straight) {
      for (int64_t c = 0; c < valid; ++c) widen16(from + c * stride + offset[0]).store(to + c * kVecLanes);
      done = valid * kVecLanes;
    } else if (lanes == kVecLanes) {
      alignas(64) T gathered[kVecLanes] = {};
      for (int64_t c = 0; c < valid; ++c) {
        for (int i = 0; i < count; ++i) gathered[i] = from[c * stride + offset[i]];
        widen16(gathered).store(to + c * kVecLanes);
      }
      done = valid * kVecLanes;
    } else {
      from += offset[0];
      if (straight)
        for (; done + kVecLanes <= valid; done += kVecLanes) widen16(from + done).store(to + done);
      for (; done < valid; ++done) to[done] = read<double>(from + done * stride);
    }
    // Whole vectors: a vector load right after scalar stores would wait for them.
    for (; done < n * lanes; done += kVecLanes) Vec16<double>::zero().store(to + done);
  }

  // Writes channels first .. first+n-1, all of which exist, rounded to T.
  NORMKIT_NOINLINE void store(int64_t first, int64_t n, const double* values) const {
    T* to = data + first * stride;
    alignas(64) T rounded[kVecLanes];
    if (lanes == kVecLanes) {
      for (int64_t c = 0; c < n; ++c) {
        const Vec16<double> v = canonical(Vec16<double>::load(values + c * kVecLanes));
        if (straight) {
          store16_rounded(to + c * stride + offset[0], v);
        } else {
          store16_rounded(rounded, v);
          for (int i = 0; i < count; ++i) to[c * stride + offset[i]] = rounded[i];
        }
      }
      return;
    }
    to += offset[0];
    for (int64_t done = 0; done < n; done += kVecLanes) {
      const Vec16<double> v = canonical(Vec16<double>::load(values + done));
      if (straight && done + kVecLanes <= n) {
        store16_rounded(to + done, v);
      } else {
        store16_rounded(rounded, v);
        for (int64_t i = 0; i < kVecLanes && done + i < n; ++i) to[(done + i) * stride] = rounded[i];
      }
    }
  }

  // Values that are about to be stored become what activation makes of their roundings.
  static NORMKIT_NOINLINE void activate(Activation activation, int64_t n, double* values) {
    for (int64_t i = 0; i < n; i += kVecLanes) {
      alignas(64) T rounded[kVecLanes];
      store16_rounded(rounded, canonical(Vec16<double>::load(values + i)));
      activate_runs(activation, rounded, 0, 1, kVecLanes);
      widen16(rounded).store(values + i);
    }
  }

 private:
  static NORMKIT_INLINE void store16_rounded(double* p, const Vec16<double>& v) { v.store(p); }
  static NORMKIT_INLINE void store16_rounded(float* p, const Vec16<double>& v) { narrow16(v).store(p); }
  template <typename Half>
  static NORMKIT_INLINE void store16_rounded(Half* p, const Vec16<double>& v) {
    alignas(64) float values[kVecLanes];
    narrow16(v).store(values);
    store16(p, Vec16<float>::load(values));
  }
};

inline NORMKIT_NOINLINE void square(const double* x, int64_t n, double* squares) {
  for (int64_t i = 0; i < n; i += kVecLanes) {
    const Vec16<double> v = Vec16<double>::load(x + i);
    (v * v).store(squares + i);
  }
}

// values_i + values_{i+lanes} + ... over `window` channels.
NORMKIT_INLINE Vec16<double> window_sum(const double* values, int64_t window, int64_t lanes) {
  Vec16<double> sum = Vec16<double>::zero();
  for (int64_t w = 0; w < window; ++w) sum = sum + Vec16<double>::load(values + w * lanes);
  return sum;
}

// d of n elements, the first one's window beginning at squares[0].
inline NORMKIT_NOINLINE void window_bases(const WindowProblem& p, const double* squares, int64_t n,
                                          double* d) {
  const Vec16<double> k = Vec16<double>::splat(p.k), scale = Vec16<double>::splat(p.scale);
  const int64_t window = p.history() + 1, lanes = p.lanes;
  for (int64_t i = 0; i < n; i += kVecLanes)
    (k + scale * window_sum(squares + i, window, lanes)).store(d + i);
}

inline NORMKIT_NOINLINE void divide(const double* x, const double* power, int64_t n, double* y) {
  for (int64_t i = 0; i < n; i += kVecLanes)
    (Vec16<double>::load(x + i) / Vec16<double>::load(power + i)).store(y + i);
}

// scaled = dy d^-beta and term = dy x d^(-beta-1).
inline NORMKIT_NOINLINE void backward_terms(const double* dy, const double* x, const double* d,
                                            const double* power, int64_t n, double* scaled, double* term) {
  using Vec = Vec16<double>;
  for (int64_t i = 0; i < n; i += kVecLanes) {
    const Vec a = Vec::load(dy + i) / Vec::load(power + i);
    a.store(scaled + i);
    (a * Vec::load(x + i) / Vec::load(d + i)).store(term + i);
  }
}

// dx = scaled - factor x (sum of the terms of the windows that hold the element).
inline NORMKIT_NOINLINE void backward_sums(const WindowProblem& p, const double* scaled, const double* x,
                                           const double* term, int64_t n, double* dx) {
  using Vec = Vec16<double>;
  const Vec factor = Vec::splat(2.0 * p.beta * p.scale);
  const int64_t window = p.history() + 1, lanes = p.lanes;
  for (int64_t i = 0; i < n; i += kVecLanes)
    (Vec::load(scaled + i) - factor * Vec::load(x + i) * window_sum(term + i, window, lanes)).store(dx + i);
}

// ---- odd bases ----
//
// Of double elements a base may overflow or vanish. It is then taken of x times s, a power of two, element by
// element: d^-beta = (s^2 d)^-beta s^beta s^beta. A term keeps the factor x s^2 / (s^2 d) that its sum would
// lose: it is dy d^-beta x s / (s^2 d), to be multiplied by x s of the channel whose dx it goes to.

NORMKIT_INLINE double scale_of_base(double d) {
  const double size = d < 0.0 ? -d : d;
  return !(size <= 0x1p900) ? 0x1p-700 : size < 0x1p-900 ? 0x1p700 : 1.0;
}

inline NORMKIT_NOINLINE bool any_odd(const double* d, int64_t n) {
  bool odd = false;
  for (int64_t i = 0; i < n; ++i) odd = odd || scale_of_base(d[i]) != 1.0;
  return odd;
}

inline NORMKIT_NOINLINE double power_of_one(double beta, double base) {
  alignas(64) double bases[kVecLanes];
  for (double& v : bases) v = base;
  power_of_base(beta, bases, kVecLanes);
  return bases[0];
}

// The base of x times s, and what d^-beta multiplies.
struct OddBase {
  double base, power, root;

  // x: the first of the window.
  inline OddBase(const WindowProblem& p, const double* x, double s) {
    double sum = 0.0;
    for (int64_t w = 0; w <= p.history(); ++w) {
      const double v = x[w * p.lanes] * s;
      sum += v * v;
    }
    base = p.k * s * s + p.scale * sum;
    power = power_of_one(p.beta, base);
    root = power_of_one(p.beta, s);
  }
  inline double scaled(double v) const { return v * root / power * root; }
};

// Of n elements, as window_bases, power_of_base and divide have left them; x begins with the first window.
inline NORMKIT_NOINLINE void divide_odd(const WindowProblem& p, const double* x, const double* squares,
                                        int64_t n, double* y) {
  const int64_t before = p.before * p.lanes;
  for (int64_t i = 0; i < n; ++i) {
    double sum = 0.0;
    for (int64_t w = 0; w <= p.history(); ++w) sum += squares[i + w * p.lanes];
    const double s = scale_of_base(p.k + p.scale * sum);
    if (s != 1.0) y[i] = OddBase(p, x + i, s).scaled(x[i + before]);
  }
}

// The same of backward_terms; dy and x begin with the first window.
inline NORMKIT_NOINLINE void odd_terms(const WindowProblem& p, const double* dy, const double* x,
                                       const double* d, int64_t n, double* scaled, double* term,
                                       double* scale) {
  const int64_t before = p.before * p.lanes;
  for (int64_t i = 0; i < n; ++i) {
    const double s = scale_of_base(d[i]);
    if (s == 1.0) continue;
    const OddBase odd(p, x + i, s);
    scaled[i] = odd.scaled(dy[i + before]);
    term[i] = scaled[i] * (x[i + before] * s / odd.base);
    scale[i] = s;
  }
}

// The same of backward_sums.
inline NORMKIT_NOINLINE void odd_sums(const WindowProblem& p, const double* scaled, const double* x,
                                      const double* term, const double* scale, int64_t n, double* dx) {
  const double factor = 2.0 * p.beta * p.scale;
  for (int64_t i = 0; i < n; ++i) {
    double sum = 0.0;
    bool odd = false;
    for (int64_t w = 0; w <= p.history(); ++w) {
      const int64_t at = i + w * p.lanes;
      odd = odd || scale[at] != 1.0;
      sum += x[i] * scale[at] * term[at];
    }
    if (odd) dx[i] = scaled[i] - factor * sum;
  }
}

NORMKIT_INLINE void fill_ones(double* buffer, int64_t n) {
  for (int64_t i = 0; i < n; ++i) buffer[i] = 1.0;
}

// Forgets the first n elements: the next `kept` ones take their place.
NORMKIT_INLINE void slide(double* buffer, int64_t n, int64_t kept) {
  memmove(buffer, buffer + n, static_cast<size_t>(kept) * sizeof(double));
}

NORMKIT_INLINE void clear(double* buffer, int64_t n) {
  memset(buffer, 0, static_cast<size_t>(n) * sizeof(double));
}

// Buffers x and squares begin at channel c - before, where c is the next one to be written.
template <typename T>
NORMKIT_NOINLINE void window_forward_tile(const WindowProblem& p, int64_t first, int count, double* buffers) {
  double *x = buffers, *squares = x + p.buffer, *d = squares + p.buffer;
  const WindowTile<T> from(p, p.x, first, count), to(p, p.out, first, count);
  const int64_t lanes = p.lanes, before = p.before * lanes, history = p.history() * lanes;
  clear(x, before);
  int64_t loaded = 0, at = 0;  // channels; elements of the history that are squared already
  for (int64_t c = 0; c < p.channels;) {
    const int64_t most = kWindowBlock / lanes, left = p.channels - c, step = left < most ? left : most;
    const int64_t n = step * lanes, next = c + step + p.after;
    from.load(loaded, next - loaded, x + history + n - (next - loaded) * lanes);
    square(x + at, history + n - at, squares + at);
    window_bases(p, squares, n, d);
    const bool odd = sizeof(T) == sizeof(double) && any_odd(d, n);
    power_of_base(p.beta, d, n);
    divide(x + before, d, n, d);
    if (odd) divide_odd(p, x, squares, n, d);
    if (p.activation != Activation::kNone) to.activate(p.activation, n, d);
    to.store(c, step, d);
    if (step == left) return;
    slide(x, n, history);
    slide(squares, n, history);
    c += step;
    loaded = next;
    at = history;
  }
}

// c is the next channel whose dx is to be written; terms run `before` channels ahead of it, x and dy `after`
// ahead of the terms. So x, dy and squares begin at channel c, scaled and term at c - after. To begin with, c
// is negative and there is nothing to write.
template <typename T>
NORMKIT_NOINLINE void window_backward_tile(const WindowProblem& p, int64_t first, int count,
                                           double* buffers) {
  double *x = buffers, *squares = x + p.buffer, *dy = squares + p.buffer, *term = dy + p.buffer,
         *scaled = term + p.buffer, *d = scaled + p.buffer;
  alignas(64) double power[kWindowBlock + kVecLanes];
  const WindowTile<T> x_from(p, p.x, first, count), dy_from(p, p.dy, first, count);
  const WindowTile<T> to(p, p.out, first, count);
  const int64_t lanes = p.lanes, before = p.before * lanes, history = p.history() * lanes;
  constexpr bool kOdd = sizeof(T) == sizeof(double);
  double* scale = kOdd ? d + p.buffer : nullptr;  // of the terms
  bool odd = false;
  clear(x, before);
  clear(dy, before);
  clear(term, history);
  if (kOdd) fill_ones(scale, p.buffer);
  int64_t loaded = 0, at = 0;
  for (int64_t c = -p.before; c < p.channels;) {
    const int64_t most = kWindowBlock / lanes, left = p.channels - c, step = left < most ? left : most;
    const int64_t n = step * lanes, ahead = c + p.before, next = ahead + step + p.after;
    x_from.load(loaded, next - loaded, x + history + n - (next - loaded) * lanes);
    dy_from.load(loaded, next - loaded, dy + history + n - (next - loaded) * lanes);
    square(x + at, history + n - at, squares + at);
    window_bases(p, squares, n, d);
    memcpy(power, d, static_cast<size_t>(n + kVecLanes) * sizeof(double));
    power_of_base(p.beta, power, n);
    backward_terms(dy + before, x + before, d, power, n, scaled + history, term + history);
    // There are no windows beyond the last channel; what was computed for them may be NaN.
    const int64_t real = ahead < p.channels ? (p.channels - ahead) * lanes : 0, whole = real < n ? real : n;
    if (kOdd && any_odd(d, whole)) {
      odd_terms(p, dy, x, d, whole, scaled + history, term + history, scale + history);
      odd = true;
    }
    if (real < n) clear(term + history + real, n - real);
    const int64_t skipped = c >= 0 ? 0 : -c < step ? -c : step, offset = skipped * lanes;
    if (skipped < step) {
      const double* own = scaled + p.after * lanes + offset;
      backward_sums(p, own, x + offset, term + offset, n - offset, d);
      if (odd) odd_sums(p, own, x + offset, term + offset, scale + offset, n - offset, d);
      to.store(c + skipped, step - skipped, d);
    }
    if (step == left) return;
    double* const sliding[] = {x, squares, dy, term, scaled};
    for (double* buffer : sliding) slide(buffer, n, history);
    if (odd) {
      slide(scale, n, history);
      fill_ones(scale + history, p.buffer - history);
    }
    c += step;
    loaded = next;
    at = history;
  }
}

template <typename T, bool kBackward>
void window_phase(const void* state, int64_t begin, int64_t end) {
  const FloatEnvironment environment;
  const WindowProblem& p = *static_cast<const WindowProblem*>(state);
  constexpr int kBuffers = window_buffers(DTypeOf<T>::value, kBackward);
  alignas(64) double stack[size_t(kBuffers * (kWindowHistory + kWindowBlock + 2 * kVecLanes))];
  const int64_t tile_positions = p.lanes;
  for (int64_t task = begin; task < end; ++task) {
    double* buffers =
        p.scratch == nullptr ? stack : reinterpret_cast<double*>(p.scratch + task * p.scratch_bytes);
    // One tile, unless scratch allows only so many tasks.
    for (int64_t tile = task; tile < p.tiles; tile += p.tasks) {
      const int64_t first = tile * tile_positions, left = p.positions - first;
      const int count = static_cast<int>(left < tile_positions ? left : tile_positions);
      if constexpr (kBackward)
        window_backward_tile<T>(p, first, count, buffers);
      else
        window_forward_tile<T>(p, first, count, buffers);
    }
  }
}

NORMKIT_END_NAMESPACE

#endif  // NORMKIT_DETAIL_WINDOW_HPP_
