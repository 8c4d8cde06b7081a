// One description per operation: what it is called, which elements share a statistic and a parameter, how it
// is run. Correctness, gradients, sameness, memory and golden hashes are driven by it.
#ifndef NORMKIT_TESTS_OPERATIONS_HPP_
#define NORMKIT_TESTS_OPERATIONS_HPP_

#include <cstring>
#include <functional>
#include <string>
#include <vector>

#include "normkit/normkit.hpp"

namespace tests {

using namespace normkit;

// [N, C, S] for the norms over channels; the norms over rows take [N, C S].
struct Dims {
  int64_t N, C, S, G = 1;
  int64_t elements() const { return N * C * S; }
};

// Arrays of one call; strides are on [N, C, S], null for contiguous. Absent ones are null.
struct Arrays {
  DType dtype = DType::kF32;
  const void *x = nullptr, *dy = nullptr, *weight = nullptr, *bias = nullptr;
  void *y = nullptr, *dx = nullptr, *dweight = nullptr, *dbias = nullptr;
  double *mean = nullptr, *rstd = nullptr;
  const int64_t *x_strides = nullptr, *y_strides = nullptr, *dy_strides = nullptr, *dx_strides = nullptr;
  double eps = 1e-5;
  bool saved = false;  // backward reads mean and rstd
};

struct Operation {
  const char* name;
  bool centred, over_rows;
  std::function<int64_t(const Dims&)> sets, parameters;
  std::function<int64_t(const Dims&, int64_t)> set_of, parameter_of;  // of an element in C order
  std::function<Status(const Dims&, const Arrays&, Plan*)> forward_plan;
  std::function<Status(const Dims&, const Arrays&, Workspace, Plan*)> backward_plan;
  std::function<size_t(const Dims&, const Arrays&)> backward_bytes;
};

namespace impl {

template <typename Args>
Args forward(const Arrays& a) {
  Args args;
  args.x = {a.x, a.dtype, a.x_strides};
  args.y = {a.y, a.dtype, a.y_strides};
  args.weight = {a.weight, a.dtype};
  args.bias = {a.bias, a.dtype};
  args.rstd = a.rstd;
  args.eps = a.eps;
  return args;
}

template <typename Args>
Args backward(const Arrays& a) {
  Args args;
  args.dy = {a.dy, a.dtype, a.dy_strides};
  args.x = {a.x, a.dtype, a.x_strides};
  args.weight = {a.weight, a.dtype};
  args.dx = {a.dx, a.dtype, a.dx_strides};
  args.dweight = {a.dweight, a.dtype};
  args.dbias = {a.dbias, a.dtype};
  if (a.saved) args.rstd = static_cast<const double*>(a.rstd);
  args.eps = a.eps;
  return args;
}

// RMSNorm's arguments have no mean.
template <typename Args, typename Mean>
auto set_mean(Args& args, Mean* mean, int) -> decltype(args.mean, void()) {
  args.mean = mean;
}
template <typename Args, typename Mean>
void set_mean(Args&, Mean*, long) {}

template <typename Args>
auto set_groups(Args& args, int64_t groups, int) -> decltype(args.groups, void()) {
  args.groups = groups;
}
template <typename Args>
void set_groups(Args&, int64_t, long) {}

// Calls run(shape, args) with the operation's own types.
template <typename Args, typename Run>
auto on_rows(const Dims& d, Args args, Run run) {
  const int64_t size[] = {d.N, d.C, d.S};
  return run(RowsShape{1, 2, size}, args);
}
template <typename Args, typename Run>
auto on_channels(const Dims& d, Args args, Run run) {
  const int64_t size[] = {d.N, d.C, d.S};
  set_groups(args, d.G, 0);
  return run(ChannelsShape{3, size}, args);
}

}  // namespace impl

#define NORMKIT_TEST_OPERATION(op, Cls, on)                                                                 \
  [](const Dims& d, const Arrays& a, Plan* plan) {                                                          \
    auto args = impl::forward<Cls##Args>(a);                                                                \
    impl::set_mean(args, a.mean, 0);                                                                        \
    return impl::on(d, args, [&](const auto& s, const auto& r) { return op##_plan(s, r, {}, plan); });      \
  },                                                                                                        \
      [](const Dims& d, const Arrays& a, Workspace w, Plan* plan) {                                         \
        auto args = impl::backward<Cls##BackwardArgs>(a);                                                   \
        if (a.saved) impl::set_mean(args, static_cast<const double*>(a.mean), 0);                           \
        return impl::on(d, args,                                                                            \
                        [&](const auto& s, const auto& r) { return op##_backward_plan(s, r, w, plan); });   \
      },                                                                                                    \
      [](const Dims& d, const Arrays& a) {                                                                  \
        return impl::on(d, impl::backward<Cls##BackwardArgs>(a),                                            \
                        [&](const auto& s, const auto& r) { return op##_backward_workspace_bytes(s, r); }); \
      }

inline const std::vector<Operation>& operations() {
  const auto rows = [](const Dims& d) { return d.N; };
  const auto row_size = [](const Dims& d) { return d.C * d.S; };
  const auto row_of = [](const Dims& d, int64_t i) { return i / (d.C * d.S); };
  const auto in_row = [](const Dims& d, int64_t i) { return i % (d.C * d.S); };
  const auto channels = [](const Dims& d) { return d.C; };
  const auto channel_of = [](const Dims& d, int64_t i) { return i / d.S % d.C; };
  static const std::vector<Operation> all = {
      {"layer_norm", true, true, rows, row_size, row_of, in_row,
       NORMKIT_TEST_OPERATION(layer_norm, LayerNorm, on_rows)},
      {"rms_norm", false, true, rows, row_size, row_of, in_row,
       NORMKIT_TEST_OPERATION(rms_norm, RmsNorm, on_rows)},
      {"batch_norm", true, false, channels, channels, channel_of, channel_of,
       NORMKIT_TEST_OPERATION(batch_norm, BatchNorm, on_channels)},
      {"instance_norm", true, false, [](const Dims& d) { return d.N * d.C; }, channels,
       [](const Dims& d, int64_t i) { return i / d.S; }, channel_of,
       NORMKIT_TEST_OPERATION(instance_norm, InstanceNorm, on_channels)},
      {"group_norm", true, false, [](const Dims& d) { return d.N * d.G; }, channels,
       [](const Dims& d, int64_t i) { return i / (d.S * (d.C / d.G)); }, channel_of,
       NORMKIT_TEST_OPERATION(group_norm, GroupNorm, on_channels)},
  };
  return all;
}

inline Status forward(const Operation& op, const Dims& d, const Arrays& a,
                      const Executor* executor = nullptr) {
  Plan plan;
  const Status status = op.forward_plan(d, a, &plan);
  if (status == Status::kOk) execute(plan, executor);
  return status;
}

inline Status backward(const Operation& op, const Dims& d, const Arrays& a,
                       const Executor* executor = nullptr) {
  std::vector<unsigned char> scratch(op.backward_bytes(d, a) + 1);
  Plan plan;
  const Status status = op.backward_plan(d, a, {scratch.data() + 1, scratch.size() - 1}, &plan);
  if (status == Status::kOk) execute(plan, executor);
  return status;
}

}  // namespace tests

#endif  // NORMKIT_TESTS_OPERATIONS_HPP_
