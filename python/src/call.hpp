// One call of an operation: its operands, from the caller's arguments to the arrays that are returned.
//
// Call knows what every operation needs: operands by name, running a plan, and what to say when the plan is
// refused. ArrayCall adds operands of x's shape; RowsCall, ChannelsCall and SetsCall the geometry of a
// family. An operation is then a list of its arguments (*_ops.cpp).
#ifndef NORMKIT_PYTHON_CALL_HPP_
#define NORMKIT_PYTHON_CALL_HPP_

#include "normkit/channels.hpp"
#include "normkit/cuda/cuda.hpp"
#include "output.hpp"
#include "run.hpp"

namespace normkit::python {

class Call {
 public:
  explicit Call(Kernels kernels) : place_(kernels) {}
  Call(const Call&) = delete;
  Call& operator=(const Call&) = delete;
  ~Call() {
    while (used_ > 0) operand(--used_).~Operand();
  }

  // Plans and runs. `name##_workspace_bytes` and `name##_plan` of the C++ API.
  template <class Shape, class Args>
  void run(const Shape& shape, const Args& args,
           size_t (*workspace_bytes)(const Shape&, const Args&) noexcept,
           Status (*make_plan)(const Shape&, const Args&, Workspace, Plan*) noexcept) {
    const bool on_host = !on_device();
    const Scratch scratch(on_host && workspace_bytes != nullptr ? workspace_bytes(shape, args) : 0);
    Plan plan;
    const Status status = make_plan(shape, args, on_host ? scratch.workspace() : cuda::lent_later(), &plan);
    if (status != Status::kOk) fail(status);
    run_accepted(plan);
  }
  // What a plan checks too; for an operation without one.
  void check_aligned() const;
  bool on_device() const { return place_.on_device(); }

 protected:
  static constexpr int kMaxOperands = 16;

  Operand& add();
  Operand& last() { return operand(used_ - 1); }
  Operand& operand(int i) { return reinterpret_cast<Operand*>(memory_)[i]; }
  const Operand& operand(int i) const { return reinterpret_cast<const Operand*>(memory_)[i]; }

 private:
  void run_accepted(const Plan& plan);
  void run_on_device(const Plan& plan);
  // Tells the libraries of the arrays that the caller wanted written.
  void count_writes() const;
  // Turns a refused plan into an exception that names the arguments concerned.
  [[noreturn]] void fail(Status status) const;
  [[noreturn]] void fail_overlap() const;

  // Operands are made one by one: sixteen would cost a small call a tenth of its time.
  alignas(Operand) unsigned char memory_[kMaxOperands * sizeof(Operand)];
  int used_ = 0;
  Place place_;
};

// An operation on one array x and others of its shape. The operation's axes are x's in another order, and x's
// may be taken apart into several; every operand of x's shape gets its strides accordingly.
class ArrayCall : public Call {
 public:
  explicit ArrayCall(PyObject* x, const char* name = "x", Kernels kernels = Kernels::kHost);

  const Array& x() const { return operand(0).array; }
  bool x_is_f64() const { return x().dtype == DType::kF64; }
  int32_t rank() const { return x().ndim; }

  ConstView x_view() { return {x().data, x().dtype, element_strides(operand(0))}; }
  // An input of x's shape and dtype (dy).
  ConstView same_as_x(PyObject* argument, const char* name);
  // An output of x's shape, dtype and axis order: the caller's, or a new one.
  View result_like_x(PyObject* argument, const char* name, Operand** operand);
  // Another input array of x's dtype, of any shape.
  Operand& another(PyObject* argument, const char* name);
  // An output like that one.
  View result_like(Operand& prototype, PyObject* argument, const char* name, Operand** operand);

  // Absent if the argument is not given. The shape that it should have, and why: "%s has shape ...; it should
  // have shape ..., <what>". `read` tells where it was read to.
  ConstView parameter(PyObject* argument, const char* name, const int64_t* sizes, int32_t ndim,
                      const char* what, const Array** read = nullptr);
  // Saved statistics, float64 or float32.
  ConstView statistics(PyObject* argument, const char* name, const int64_t* sizes, int32_t ndim,
                       const char* what);
  // Running statistics, of any dtype.
  ConstView numbers(PyObject* argument, const char* name, const int64_t* sizes, int32_t ndim,
                    const char* what, const Array** read = nullptr);
  View updated(PyObject* argument, const char* name, const int64_t* sizes, int32_t ndim, const char* what);

  // A new C-contiguous array of x's kind.
  View new_array(const char* name, DType dtype, const int64_t* sizes, int32_t ndim, Operand** operand);
  // The gradient of a parameter: the caller's array, or a new one of the parameter's dtype; with
  // `accumulate`, one to add into.
  View gradient(const Array& parameter, PyObject* argument, const char* name, bool accumulate,
                Operand** operand);

  // x's axis number for an axis argument, which may be negative.
  int32_t axis_number(int64_t axis, const char* name) const;

 protected:
  // The operation's next axis: x's `axis`, or a part of it of which one step spans `span` elements.
  void add_axis(int32_t axis, int64_t size, int64_t span = 1);
  // The first `axes` of the operation's axes.
  const int64_t* ordered_strides(Operand& operand, int32_t axes);
  const int64_t* element_strides(Operand& operand) { return ordered_strides(operand, count_); }

  bool reordered_ = false;
  int32_t count_ = 0;
  int32_t axes_[kMaxRank];
  int64_t sizes_[kMaxRank];
  int64_t spans_[kMaxRank];
};

// LayerNorm, RMSNorm: the axes that are normalized together come last, the others first.
class RowsCall : public ArrayCall {
 public:
  // axis: an int or a tuple of ints, or the trailing axes that normalized_shape has.
  RowsCall(PyObject* x, PyObject* normalized_shape, PyObject* axis, const char* name = "x");

  const RowsShape& shape() const { return shape_; }
  ConstView parameter(PyObject* argument, const char* name, const Array** read = nullptr);
  ConstView saved_statistics(PyObject* argument, const char* name);
  // A new float64 array of x's shape, the normalized axes 1.
  View new_statistics(const char* name, Operand** operand);

 private:
  void find_trailing_axes(const int64_t* normalized, int32_t count);
  void find_axes(PyObject* axis, const int64_t* normalized, int32_t count);
  const int64_t* statistics_sizes();

  RowsShape shape_;
  int64_t statistics_sizes_[kMaxRank];  // in x's order
};

// RMSNorm's eps: by default the epsilon of what x is computed in.
double rms_eps(PyObject* argument, const RowsCall& call);

// BatchNorm, InstanceNorm, ...: N, C, then the axes of space.
class ChannelsCall : public ArrayCall {
 public:
  ChannelsCall(PyObject* x, PyObject* channel_axis, const char* name = "x", Kernels kernels = Kernels::kHost);

  ChannelsShape shape() const { return {rank(), sizes_}; }
  int64_t samples() const { return sizes_[0]; }
  const int64_t* channels() const { return &sizes_[1]; }  // a shape of one axis
  int64_t space() const;
  ConstView per_channel(PyObject* argument, const char* name, const Array** read = nullptr) {
    return parameter(argument, name, channels(), 1, "one number for each channel", read);
  }
  int32_t channel_axis() const { return axes_[1]; }
  // Strides of another array of the same rank, in the same order of axes.
  ConstView another_view(Operand& other) {
    return {other.array.data, other.array.dtype, element_strides(other)};
  }
  ChannelsShape another_shape(const Operand& other, int64_t* sizes) const;
};

// Norms over any sets: axes normalized together, axes with parameters.
class SetsCall : public ArrayCall {
 public:
  explicit SetsCall(PyObject* x, const char* name = "x", Kernels kernels = Kernels::kHost)
      : ArrayCall(x, name, kernels) {}

  // Normalizes over `axis`: an int, a tuple of ints, or None for all axes.
  void over(PyObject* axis);
  // The parts that x's axes are taken apart into: a tuple (axis of x, size, normalized, axis of weight or -1)
  // each.
  void parts(PyObject* description, int32_t run_axes);
  // A view of weight's shape with strides for each part that has parameters, written to `split`.
  template <typename AnyView>
  AnyView on_parts(AnyView view, int64_t* split) const {
    if (view.data == nullptr) return view;
    int32_t used = 0;
    for (int32_t i = 0; i < count_; ++i) {
      if (!(affine_ >> i & 1u)) continue;
      int64_t& stride = split[used++] = view.strides[weight_axis_[i]];
      for (int32_t j = i + 1; j < count_; ++j)
        if ((affine_ >> j & 1u) && weight_axis_[j] == weight_axis_[i] &&
            __builtin_mul_overflow(stride, sizes_[j], &stride))
          stride = INT64_MAX;  // the plan refuses it
    }
    view.strides = split;
    return view;
  }

  SetsShape shape() const { return {count_, sizes_, normalized_, affine_, run_axes_}; }
  bool normalizes(int32_t axis) const { return normalized_ >> axis & 1u; }
  void set_affine(uint64_t affine) { affine_ = affine; }
  // The sizes of the operation's axes that are in `mask`; returns how many.
  int32_t sizes_of(uint64_t mask, int64_t* sizes) const;

 private:
  uint64_t normalized_ = 0, affine_ = 0;
  int32_t run_axes_ = 0;
  int32_t weight_axis_[kMaxRank];
};

// The outputs of a gradient with respect to x and up to four parameters (null where one is absent).
struct Gradients {
  static constexpr int kMaxParameters = 4;
  Operand* operands[1 + kMaxParameters] = {};
  View dx, parameters[kMaxParameters];
  bool accumulate;
  int count;  // parameters

  // `names`: the parameters', for messages, as many as there are; null ends them.
  Gradients(ArrayCall& call, const Array* const* arrays, const char* const* names, PyObject* dx_out,
            PyObject* grads_out, PyObject* accumulate);
  // No gradient may be written where an input lies that the operation does not see.
  void keep_away_from(const Array* input) const;
  PyObject* result(const ArrayCall& call) const;
};

// Integers out of an argument: one, or a sequence of at most kMaxRank; returns how many.
int64_t integer_argument(PyObject* object, const char* name);
int32_t integer_arguments(PyObject* object, const char* name, int64_t* values);

// y alone, or (y, mean, rstd) without those that are null.
PyObject* forward_result(const ArrayCall& call, bool return_stats, Operand* y, Operand* mean, Operand* rstd);

// Two arguments that come together or not at all.
void check_together(PyObject* a, const char* a_name, PyObject* b, const char* b_name);

// The tuple of results; null operands become None.
PyObject* result_tuple(const Array& x, Operand* const* operands, int count);

}  // namespace normkit::python

#endif  // NORMKIT_PYTHON_CALL_HPP_
