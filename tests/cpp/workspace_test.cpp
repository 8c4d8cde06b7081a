// How much scratch operations ask for: at most 1/64 of the input and a constant, whatever the shape. A query
// reads no array, so shapes that fit no memory are asked as well.
#include <gtest/gtest.h>

#include "data.hpp"
#include "normkit/normkit.hpp"

namespace tests {
namespace {

using namespace normkit;

constexpr int64_t kConstant = (int64_t(4) << 20) + 512;

// [N, C, S] of one element type; in memory as it is written, or channels-last.
struct Case {
  DType dtype;
  int64_t size[3];
  bool channels_last;
  int64_t strides[3];
  double memory[8];  // an address, never read

  int64_t elements() const { return size[0] * size[1] * size[2]; }
  int64_t bytes() const { return elements() * size_of(dtype); }
  ConstView x() const { return {memory, dtype, channels_last ? strides : nullptr}; }
  View y() { return {memory, dtype, channels_last ? strides : nullptr}; }
  ConstView parameter() const { return {memory, dtype}; }
  View gradient() { return {memory, dtype}; }
};

class Sweep : public testing::Test {
 protected:
  // The first few that ask for too much, and how many there are. `input`: bytes of x, and of dy.
  void expect_little(const char* name, const Case& c, size_t asked, int64_t input) {
    const int64_t bytes = static_cast<int64_t>(asked);
    if (bytes >= 0 && bytes <= input / 64 + kConstant) return;
    if (++violations_ > 12) return;
    ADD_FAILURE() << name << " " << dtype_name(c.dtype) << " " << c.size[0] << " x " << c.size[1] << " x "
                  << c.size[2] << (c.channels_last ? " channels last" : "") << ": " << bytes << " bytes, "
                  << static_cast<double>(bytes) / static_cast<double>(input / 64 + kConstant)
                  << " times what is allowed";
  }
  void TearDown() override { EXPECT_EQ(violations_, 0); }

  template <typename Body>
  void for_all(Body body) {
    const int64_t sizes[] = {1, 2, 3, 17, 63, 64, 200, 1000, 5000, 100000, 3000000, int64_t(1) << 31};
    for (DType dtype : kDTypes) {
      for (int64_t N : sizes) {
        for (int64_t C : sizes) {
          for (int64_t S : sizes) {
            if (N > (int64_t(1) << 40) / C / S) continue;
            for (bool last : {false, true}) {
              Case c{dtype, {N, C, S}, last, {C * S, 1, C}, {}};
              body(c);
            }
          }
        }
      }
    }
  }

 private:
  long violations_ = 0;
};

template <typename Args>
Args backward_of(Case& c) {
  Args args;
  args.dy = args.x = c.x();
  args.dx = c.y();
  args.dweight = args.dbias = c.gradient();
  return args;
}

TEST_F(Sweep, GradientsOfRows) {
  for_all([&](Case& c) {
    if (c.channels_last) return;
    const int64_t input = 2 * c.bytes();
    const RowsShape shapes[] = {{1, 2, c.size}, {2, 1, c.size}};
    for (const RowsShape& shape : shapes) {
      expect_little("layer_norm_backward", c,
                    layer_norm_backward_workspace_bytes(shape, backward_of<LayerNormBackwardArgs>(c)), input);
      expect_little("rms_norm_backward", c,
                    rms_norm_backward_workspace_bytes(shape, backward_of<RmsNormBackwardArgs>(c)), input);
      AddLayerNormBackwardArgs add;
      add.dy = add.summed = c.x();
      add.dsummed = c.y();
      add.dweight = add.dbias = c.gradient();
      expect_little("add_layer_norm_backward", c, add_layer_norm_backward_workspace_bytes(shape, add), input);
    }
  });
}

TEST_F(Sweep, DynamicTanh) {
  for_all([&](Case& c) {
    DynamicTanhBackwardArgs args = backward_of<DynamicTanhBackwardArgs>(c);
    args.alpha = c.parameter();
    args.dalpha = c.gradient();
    for (bool per_channel : {false, true}) {
      args.alpha_per_channel = per_channel;
      for (int32_t axis : {0, 1, 2})
        expect_little("dynamic_tanh_backward", c,
                      dynamic_tanh_backward_workspace_bytes(MapShape{3, c.size, axis}, args), 2 * c.bytes());
    }
  });
}

TEST_F(Sweep, RunningStatistics) {
  for_all([&](Case& c) {
    const ChannelsShape shape{3, c.size};
    BatchNormArgs batch;
    batch.x = c.x();
    batch.y = c.y();
    batch.running_mean = batch.running_var = c.gradient();
    expect_little("batch_norm", c, batch_norm_workspace_bytes(shape, batch), c.bytes());
    InstanceNormArgs instance;
    instance.x = c.x();
    instance.y = c.y();
    instance.running_mean = instance.running_var = c.gradient();
    expect_little("instance_norm", c, instance_norm_workspace_bytes(shape, instance), c.bytes());
  });
}

TEST_F(Sweep, GradientsOfSets) {
  for_all([&](Case& c) {
    const ChannelsShape shape{3, c.size};
    const int64_t input = 2 * c.bytes();
    expect_little("batch_norm_backward", c,
                  batch_norm_backward_workspace_bytes(shape, backward_of<BatchNormBackwardArgs>(c)), input);
    expect_little("instance_norm_backward", c,
                  instance_norm_backward_workspace_bytes(shape, backward_of<InstanceNormBackwardArgs>(c)),
                  input);
    GroupNormBackwardArgs group = backward_of<GroupNormBackwardArgs>(c);
    for (int64_t within : {int64_t(1), int64_t(2), int64_t(20), int64_t(1000), c.size[1]}) {
      if (c.size[1] % within != 0) continue;
      group.groups = c.size[1] / within;
      expect_little("group_norm_backward", c, group_norm_backward_workspace_bytes(shape, group), input);
    }
    for (uint64_t normalized : {1u, 2u, 4u, 5u, 6u}) {
      for (uint64_t affine : {1u, 2u, 4u, 6u}) {
        NormBackwardArgs norm = backward_of<NormBackwardArgs>(c);
        expect_little("norm_backward", c,
                      norm_backward_workspace_bytes(SetsShape{3, c.size, normalized, affine, 0}, norm),
                      input);
      }
    }
  });
}

TEST_F(Sweep, Forward) {
  for_all([&](Case& c) {
    const ChannelsShape shape{3, c.size};
    GroupNormArgs group;
    group.x = c.x();
    group.y = c.y();
    group.groups = 1;
    expect_little("group_norm", c, group_norm_workspace_bytes(shape, group), c.bytes());
    LocalResponseNormArgs window;
    window.x = c.x();
    window.y = c.y();
    for (int64_t size : {int64_t(5), c.size[1] / 100 + 1}) {  // README: windows of more than 50,000 channels
      if (size > 50000) continue;
      window.size = size;
      expect_little("local_response_norm", c, local_response_norm_workspace_bytes(shape, window), c.bytes());
    }
  });
}

TEST_F(Sweep, AdaptiveInstanceNorm) {
  for_all([&](Case& c) {
    const AdaptiveInstanceNormShape shape{{3, c.size}, {3, c.size}};
    AdaptiveInstanceNormArgs args;
    args.content = args.style = c.x();
    args.y = c.y();
    expect_little("adaptive_instance_norm", c, adaptive_instance_norm_workspace_bytes(shape, args),
                  2 * c.bytes());
    AdaptiveInstanceNormBackwardArgs backward;
    backward.dy = backward.content = backward.style = c.x();
    backward.dcontent = backward.dstyle = c.y();
    expect_little("adaptive_instance_norm_backward", c,
                  adaptive_instance_norm_backward_workspace_bytes(shape, backward), 3 * c.bytes());
  });
}

TEST_F(Sweep, SwitchableNorm) {
  for_all([&](Case& c) {
    const ChannelsShape shape{3, c.size};
    SwitchableNormArgs args;
    args.x = c.x();
    args.y = c.y();
    args.mean_weight = args.var_weight = c.parameter();
    // What the README says: 32 bytes for each channel, backward 56 (a scale too) for each channel and sample.
    expect_little("switchable_norm", c, switchable_norm_workspace_bytes(shape, args),
                  c.bytes() + 64 * 32 * c.size[1]);
    SwitchableNormBackwardArgs backward = backward_of<SwitchableNormBackwardArgs>(c);
    backward.mean_weight = backward.var_weight = c.parameter();
    expect_little("switchable_norm_backward", c, switchable_norm_backward_workspace_bytes(shape, backward),
                  2 * c.bytes() + 64 * 56 * (c.size[0] + c.size[1]));
  });
}

}  // namespace
}  // namespace tests
