// The geometry table: operations over the channels of [N, C, space...] as norms over sets.
//
//   operation      sets   elements of a set   weight and bias   blocks are cut from
//   BatchNorm      C      N, space            C                 one sample's space
//   InstanceNorm   N, C   space               C                 the set
//   GroupNorm      N, G   C / G, space        G, C / G          the set; channels last: the channel
//   LRN            N, space   C               (none: windows, see window.hpp)
#ifndef NORMKIT_DETAIL_CHANNELS_PLAN_HPP_
#define NORMKIT_DETAIL_CHANNELS_PLAN_HPP_

#include "normkit/channels.hpp"
#include "normkit/detail/sets_plan.hpp"

NORMKIT_BEGIN_NAMESPACE

// An impossible shape, which SetAxes refuses.
constexpr SetsShape kNoSets{-1, nullptr, 0, 0, 0};

constexpr SetsKind kChannelKind{Statistic::kMoments, 2.0, false, true, 0.0, 1.0};

inline bool has_channels(const ChannelsShape& shape) {
  return shape.rank >= 2 && shape.rank <= kMaxRank && shape.size != nullptr;
}

inline SetsShape batch_sets(const ChannelsShape& shape) {
  if (!has_channels(shape)) return kNoSets;
  return {shape.rank, shape.size, ~uint64_t(2), 2, shape.rank - 2};
}

inline SetsShape instance_sets(const ChannelsShape& shape) {
  if (!has_channels(shape)) return kNoSets;
  return {shape.rank, shape.size, ~uint64_t(3), 2, 0};
}

inline SetsShape position_sets(const ChannelsShape& shape) {
  if (!has_channels(shape)) return kNoSets;
  return {shape.rank, shape.size, 2, 0, 0};
}

// C becomes the axes G, C / G, also in the strides of every operand. Of kMaxRank axes one of length 1 makes
// room.
class GroupSets {
 public:
  inline GroupSets(const ChannelsShape& channels, int64_t groups) {
    if (!has_channels(channels) || groups < 1 || channels.size[1] % groups != 0) return;
    within_ = channels.size[1] / groups;
    for (int a = 2; channels.rank == kMaxRank && a < kMaxRank; ++a)
      if (channels.size[a] == 1) dropped_ = a;
    if (channels.rank == kMaxRank && dropped_ < 0) return;
    int rank = 0;
    size_[rank++] = channels.size[0];
    size_[rank++] = groups;
    size_[rank++] = within_;
    for (int a = 2; a < channels.rank; ++a)
      if (a != dropped_) size_[rank++] = channels.size[a];
    given_axes_ = channels.rank;
    shape = {rank, size_, ~uint64_t(3), 6, 0};
  }
  GroupSets(const GroupSets&) = delete;

  inline SetNormArgs arranged(SetNormArgs args) {
    split(args.x, 1);
    split(args.y, 1);
    split(args.weight, 0);
    split(args.bias, 0);
    return args;
  }
  inline SetNormBackwardArgs arranged(SetNormBackwardArgs args) {
    split(args.dy, 1);
    split(args.x, 1);
    split(args.dx, 1);
    split(args.weight, 0);
    split(args.dweight, 0);
    split(args.dbias, 0);
    return args;
  }

  SetsShape shape = kNoSets;

 private:
  template <typename AnyView>
  inline void split(AnyView& view, int axis) {
    if (view.strides == nullptr || shape.rank < 0) return;
    int64_t* split = strides_[used_++];
    const int axes = axis == 0 ? 1 : given_axes_;
    for (int a = 0, to = 0; a < axes; ++a) {
      if (a == dropped_) continue;
      // A product that overflows becomes a stride that ArgumentChecker refuses.
      if (a == axis && __builtin_mul_overflow(view.strides[a], within_, &split[to++]))
        split[to - 1] = INT64_MAX;
      split[to++] = view.strides[a];
    }
    view.strides = split;
  }

  int64_t within_ = 1;
  int used_ = 0, given_axes_ = 0, dropped_ = -1;
  int64_t size_[kMaxRank];
  int64_t strides_[6][kMaxRank];
};

NORMKIT_END_NAMESPACE

#endif  // NORMKIT_DETAIL_CHANNELS_PLAN_HPP_
