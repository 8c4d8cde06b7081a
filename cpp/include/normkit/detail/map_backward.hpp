// Backward of elementwise operations with parameters per channel: dx, and sums over each channel's elements.
//
// A channel's elements are numbered in C order over the other axes, whatever the memory looks like. 64 of
// them make a panel, a chain of additions in double; panels are merged by merge.hpp's tree. Two kernels take
// the same sums: columns (channels side by side: a vector of 16 channels, panel rows one after the other) and
// runs (16 elements of one channel at a time). Phase 1: groups of panels, aligned powers of two as in
// rows.hpp. Phase 2 adds the groups, phase 3 the channels, where they share alpha. Of more channels than fit
// the scratch even as one group, a task's sums stay on the stack and it writes the gradients itself.
#ifndef NORMKIT_DETAIL_MAP_BACKWARD_HPP_
#define NORMKIT_DETAIL_MAP_BACKWARD_HPP_

#include "normkit/detail/map.hpp"
#include "normkit/detail/rows_backward.hpp"

NORMKIT_BEGIN_NAMESPACE

constexpr int kMapSums = 3;         // of dalpha, dweight, dbias, in this order
constexpr int64_t kMapStrip = 512;  // channels that a task of the column kernel takes
constexpr int kRunPanels = kBlock / kPanelRows;

// Of a task that writes the gradients itself: its channels, and its lines, levels of a tree and a chain.
// Trees that are not higher suffice: with more panels a group would fit.
constexpr int64_t kDirectStrip = 128;
constexpr int kDirectLines = 9;

struct MapBackward {
  Operand dy, x, alpha, weight, dx, dalpha, dweight, dbias;
  bool columns = true;  // outer axes: the elements of a channel, inner: channels; else the other way round
  bool alpha_per_channel = false, accumulate = false;
  int64_t channels = 0, count = 0;  // elements of a channel
  int64_t strip = 0, strips = 0;    // channels of a strip, padded to whole vectors
  int64_t group_panels = 1, groups = 0, group_bytes = 0;
  bool direct = false;  // one group: a task is a strip and writes its gradients
  // 64-byte aligned: groups x strips of group_bytes, unless direct, then a double for each `together`
  // channels. Null: no sums are asked for.
  char* scratch = nullptr;
  int32_t together_rank = 0;

  // What a group and strip sums up: one line for each of kMapSums. More lines are the tree's and the chain's.
  NORMKIT_INLINE double* lines(int64_t group, int64_t which_strip) const {
    return reinterpret_cast<double*>(scratch + (group * strips + which_strip) * group_bytes);
  }
  NORMKIT_INLINE const Operand& gradient(int which) const {
    return which == 0 ? dalpha : which == 1 ? dweight : dbias;
  }
  NORMKIT_INLINE int64_t together() const { return int64_t(1) << together_rank; }
  NORMKIT_INLINE double* channel_totals() const {
    return reinterpret_cast<double*>(scratch + (direct ? 0 : groups * strips * group_bytes));
  }
};

struct MapGradients {
  Vec16<double> dx, sums[kMapSums];
};

template <bool kShort>
NORMKIT_INLINE MapGradients dynamic_tanh_gradients(Vec16<double> dy, Vec16<double> x, Vec16<double> alpha,
                                                   Vec16<double> weight) {
  MapGradients r;
  for (int p = 0; p < Vec16<double>::kParts; ++p) {
    const auto t = tanh_parts<kShort, true>(alpha.part[p] * x.part[p]);
    const auto h = dy.part[p] * weight.part[p] * t.slope;
    r.dx.part[p] = h * alpha.part[p];
    r.sums[0].part[p] = h * x.part[p];
    r.sums[1].part[p] = dy.part[p] * t.tanh;
    r.sums[2].part[p] = dy.part[p];
  }
  return r;
}

// One block: writes dx unless it is null, which may be dy or x, and calls add(i, gradients) for each 16
// elements; elements from n on have a dy and an x of 0.
template <typename T, typename Add>
NORMKIT_INLINE void map_backward_block(const T* dy, const T* x, T* dx, int n, Parameter<double> alpha,
                                       Parameter<double> weight, Add add) {
  using C = Compute<T>;
  constexpr bool kShort = sizeof(C) == sizeof(float);
  int i = 0;
  for (; i + kVecLanes <= n; i += kVecLanes) {
    const MapGradients g = dynamic_tanh_gradients<kShort>(widen(load16(dy + i)), widen(load16(x + i)),
                                                          alpha.at(i), weight.at(i));
    if (dx != nullptr) store16(dx + i, canonical(narrow_to(g.dx, C())));
    add(i, g);
  }
  if (i < n) {
    const int left = n - i;
    const MapGradients g =
        dynamic_tanh_gradients<kShort>(widen(load_up_to16(dy + i, left)), widen(load_up_to16(x + i, left)),
                                       tail_of(alpha, i, left), tail_of(weight, i, left));
    if (dx != nullptr) store_up_to16(dx + i, left, canonical(narrow_to(g.dx, C())));
    add(i, g);
  }
}

template <typename T>
struct MapBuffers {
  alignas(64) T x[kBlock];
  alignas(64) T dy[kBlock];
  alignas(64) T dx[kBlock];
};

// Elements at .. at+length-1 of row r, with `add` as above.
template <typename T, typename Add>
NORMKIT_INLINE void map_backward_row(const MapBackward& p, int64_t r, int64_t at, int length,
                                     ParameterReader<double>& alpha, ParameterReader<double>& weight,
                                     MapBuffers<T>& buffers, Add add) {
  const T* x = block_of(p.x, p.x.template row<const T>(r), at, length, buffers.x);
  const T* dy = block_of(p.dy, p.dy.template row<const T>(r), at, length, buffers.dy);
  T* row = p.dx ? p.dx.template row<T>(r) : nullptr;
  T* straight = p.dx ? straight_block(p.dx.inner, row, at, length) : nullptr;
  T* dx = straight != nullptr ? straight : p.dx ? buffers.dx : nullptr;
  map_backward_block(dy, x, dx, length, alpha.block(r, at, length), weight.block(r, at, length), add);
  if (dx != nullptr && straight == nullptr) scatter(dx, p.dx.inner, at, length, row);
}

// Sums `which` of neighbouring channels: gradients, or their part of the sum over all, a subtree.
inline void write_map_sums(const MapBackward& p, int which, int64_t first, const double* sums, int count) {
  if (which != 0 || p.alpha_per_channel)
    return write_gradients(p.gradient(which), first, sums, count, p.accumulate);
  if (!p.dalpha) return;
  MergeTree<Sums> tree;
  for (int c = 0; c < count; ++c) tree.push({sums[c], 0.0});
  p.channel_totals()[first / p.together()] = tree.finish().first;
}

// The gradients of a strip, from its lines.
inline void write_strip(const MapBackward& p, int64_t strip, const double* lines) {
  const int64_t first = strip * p.strip, left = p.channels - first;
  for (int which = 0; which < kMapSums; ++which)
    write_map_sums(p, which, first, lines + which * p.strip,
                   static_cast<int>(left < p.strip ? left : p.strip));
}

// One task is a group of panels of a strip of channels.
template <typename T>
NORMKIT_NOINLINE void map_backward_columns(const MapBackward& p, int64_t begin, int64_t end) {
  ParameterReader<double> alpha(p.alpha, 0.0, 1.0), weight(p.weight, 0.0, 1.0);
  MapBuffers<T> buffers;
  alignas(64) double own[kDirectLines * kMapSums * kDirectStrip];
  for (int64_t task = begin; task < end; ++task) {
    const int64_t group = task / p.strips, strip = task % p.strips, first = strip * p.strip;
    const int length = static_cast<int>(p.channels - first < p.strip ? p.channels - first : p.strip);
    const int64_t width = kMapSums * p.strip;
    double* levels = p.scratch == nullptr ? nullptr : p.direct ? own : p.lines(group, strip);
    double* chain = p.scratch != nullptr ? levels + (p.group_bytes / 8 - width) : nullptr;
    LineTree tree(levels, width);
    const int64_t group_rows = p.group_panels * kPanelRows, left = p.count - group * group_rows;
    const int64_t panel_end = group * group_rows + (left < group_rows ? left : group_rows);
    for (int64_t panel = group * group_rows; panel < panel_end; panel += kPanelRows) {
      const int64_t last = panel_end - panel < kPanelRows ? panel_end : panel + kPanelRows;
      if (chain != nullptr) memset(chain, 0, static_cast<size_t>(width) * sizeof(double));
      for (int64_t r = panel; r < last; ++r) {
        map_backward_row(p, r, first, length, alpha, weight, buffers, [=](int i, const MapGradients& g) {
          if (chain == nullptr) return;
          for (int k = 0; k < kMapSums; ++k) {
            double* to = chain + k * p.strip + i;
            (Vec16<double>::load(to) + g.sums[k]).store(to);
          }
        });
      }
      if (chain != nullptr) tree.push(chain);
    }
    if (levels != nullptr) tree.finish();
    if (p.direct) write_strip(p, strip, levels);
  }
}

// Chains of kPanels neighbouring panels side by side, since each addition waits for the one before.
template <int kPanels>
NORMKIT_INLINE void chain_panels(const double* terms, int count, double* sums) {
  double sum[size_t(kPanels)];
  NORMKIT_UNROLL for (int q = 0; q < kPanels; ++q) sum[q] = 0.0;
  for (int i = 0; i < count; ++i)
    NORMKIT_UNROLL for (int q = 0; q < kPanels; ++q) sum[q] = sum[q] + terms[q * kPanelRows + i];
  NORMKIT_UNROLL for (int q = 0; q < kPanels; ++q) sums[q] = sum[q];
}

// The sums of the panels of one block.
inline NORMKIT_NOINLINE void chain_block(const double* terms, int length, double* sums) {
  constexpr int kTogether = 8;
  int panel = 0;
  for (; (panel + kTogether) * kPanelRows <= length; panel += kTogether)
    chain_panels<kTogether>(terms + panel * kPanelRows, kPanelRows, sums + panel);
  for (; panel * kPanelRows < length; ++panel) {
    const int left = length - panel * kPanelRows;
    chain_panels<1>(terms + panel * kPanelRows, left < kPanelRows ? left : kPanelRows, sums + panel);
  }
}

struct MapSums {
  double sum[kMapSums];
};
NORMKIT_INLINE MapSums merge(const MapSums& a, const MapSums& b) {
  return {{a.sum[0] + b.sum[0], a.sum[1] + b.sum[1], a.sum[2] + b.sum[2]}};
}

// A group of panels of one channel: dx, and the sums, which are written one line apart.
template <typename T>
class RunSums {
 public:
  NORMKIT_INLINE explicit RunSums(const MapBackward& p)
      : p_(p), alpha_(p.alpha, 0.0, 1.0), weight_(p.weight, 0.0, 1.0) {}

  NORMKIT_NOINLINE void run(int64_t channel, int64_t group, double* lines) {
    const int64_t group_rows = p_.group_panels * kPanelRows, left = p_.count - group * group_rows;
    const int64_t last = group * group_rows + (left < group_rows ? left : group_rows);
    double (*into)[kBlock] = terms_;
    MergeTree<MapSums> tree;
    for (int64_t at = group * group_rows; at < last; at += kBlock) {
      const int length = static_cast<int>(last - at < kBlock ? last - at : kBlock);
      map_backward_row(p_, channel, at, length, alpha_, weight_, buffers_, [=](int i, const MapGradients& g) {
        for (int k = 0; k < kMapSums; ++k) g.sums[k].store(into[k] + i);
      });
      if (lines == nullptr) continue;
      for (int k = 0; k < kMapSums; ++k) chain_block(terms_[k], length, sums_[k]);
      for (int q = 0; q * kPanelRows < length; ++q) tree.push({{sums_[0][q], sums_[1][q], sums_[2][q]}});
    }
    if (lines == nullptr) return;
    const MapSums total = tree.finish();
    for (int k = 0; k < kMapSums; ++k) lines[k * p_.strip] = total.sum[k];
  }

 private:
  const MapBackward& p_;
  ParameterReader<double> alpha_, weight_;
  MapBuffers<T> buffers_;
  alignas(64) double terms_[kMapSums][kBlock];
  double sums_[kMapSums][kRunPanels];
};

// One task is a group of panels of one channel, or a strip of channels.
template <typename T>
NORMKIT_NOINLINE void map_backward_runs(const MapBackward& p, int64_t begin, int64_t end) {
  RunSums<T> runs(p);
  double own[kMapSums * kDirectStrip];
  for (int64_t task = begin; task < end; ++task) {
    if (!p.direct) {
      const int64_t channel = task / p.groups, group = task % p.groups;
      double* lines = p.scratch != nullptr ? p.lines(group, channel / p.strip) + channel % p.strip : nullptr;
      runs.run(channel, group, lines);
      continue;
    }
    const int64_t first = task * p.strip, left = p.channels - first;
    for (int64_t c = 0; c < (left < p.strip ? left : p.strip); ++c) runs.run(first + c, 0, own + c);
    write_strip(p, task, own);
  }
}

template <typename T>
void map_backward_phase(const void* state, int64_t begin, int64_t end) {
  const FloatEnvironment environment;
  const MapBackward& p = *static_cast<const MapBackward*>(state);
  if (p.columns)
    map_backward_columns<T>(p, begin, end);
  else
    map_backward_runs<T>(p, begin, end);
}

// Phase 2: one task adds the groups of kColumnTask channels.
inline void map_add_groups_phase(const void* state, int64_t begin, int64_t end) {
  const FloatEnvironment environment;
  const MapBackward& p = *static_cast<const MapBackward*>(state);
  alignas(64) double levels[kMaxRanks * kColumnTask];
  for (int64_t task = begin; task < end; ++task) {
    const int64_t first = task * kColumnTask;
    const int64_t left = p.channels - first, count = left < kColumnTask ? left : kColumnTask;
    for (int which = 0; which < kMapSums; ++which) {
      if (!p.gradient(which)) continue;
      LineTree tree(levels, (count + kVecLanes - 1) / kVecLanes * kVecLanes);
      for (int64_t g = 0; g < p.groups; ++g)
        tree.push(p.lines(g, first / p.strip) + which * p.strip + first % p.strip);
      tree.finish();
      write_map_sums(p, which, first, levels, static_cast<int>(count));
    }
  }
}

// Phase 3: dalpha where all channels share alpha; one task. The last subtree may be smaller: pushed as one,
// it meets the others in the order in which finish() would have merged its parts.
inline void map_add_channels_phase(const void* state, int64_t, int64_t) {
  const FloatEnvironment environment;
  const MapBackward& p = *static_cast<const MapBackward*>(state);
  MergeTree<Sums> tree;
  for (int64_t c = 0; c < p.channels; c += p.together())
    tree.push({p.channel_totals()[c / p.together()], 0.0}, p.together_rank);
  const double total = p.channels > 0 ? tree.finish().first : 0.0;
  write_gradients(p.dalpha, 0, &total, 1, p.accumulate);
}

NORMKIT_END_NAMESPACE

#endif  // NORMKIT_DETAIL_MAP_BACKWARD_HPP_
