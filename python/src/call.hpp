// One call of an operation: its operands, from the caller's arguments to the arrays that are returned.
//
// Call knows what every operation needs: operands by name, running a plan, and what to say when the plan is
// refused. RowsCall adds the geometry of the operations over rows (LayerNorm, RMSNorm): the axes that are
// normalized together come last, the others first, and every operand gets its strides in that order. An
// operation is then a list of its arguments (rows_ops.cpp).
#ifndef NORMKIT_PYTHON_CALL_HPP_
#define NORMKIT_PYTHON_CALL_HPP_

#include "output.hpp"
#include "run.hpp"

namespace normkit::python {

class Call {
 public:
  Call() {}
  Call(const Call&) = delete;
  Call& operator=(const Call&) = delete;

  // Plans and runs. `name##_workspace_bytes` and `name##_plan` of the C++ API.
  template <class Shape, class Args>
  void run(const Shape& shape, const Args& args,
           size_t (*workspace_bytes)(const Shape&, const Args&) noexcept,
           Status (*make_plan)(const Shape&, const Args&, Workspace, Plan*) noexcept) {
    const Scratch scratch(workspace_bytes != nullptr ? workspace_bytes(shape, args) : 0);
    Plan plan;
    const Status status = make_plan(shape, args, scratch.workspace(), &plan);
    if (status != Status::kOk) fail(status);
    run_plan(plan);
  }

 protected:
  static constexpr int kMaxOperands = 12;

  Operand& add();
  Operand& operand(int i) { return operands_[i]; }
  const Operand& operand(int i) const { return operands_[i]; }

 private:
  // Turns a refused plan into an exception that names the arguments concerned.
  [[noreturn]] void fail(Status status) const;
  [[noreturn]] void fail_overlap() const;

  Operand operands_[kMaxOperands];
  int count_ = 0;
};

class RowsCall : public Call {
 public:
  // Reads x and finds the axes: axis (an int or a tuple of ints), or the trailing axes that normalized_shape
  // has.
  RowsCall(PyObject* x, PyObject* normalized_shape, PyObject* axis);

  const Array& x() const { return operand(0).array; }
  const RowsShape& shape() const { return shape_; }
  bool x_is_f64() const { return x().dtype == DType::kF64; }

  ConstView x_view();
  // An input of x's shape and dtype (dy).
  ConstView same_as_x(PyObject* argument, const char* name);
  // weight or bias; absent if the argument is not given. `read` tells where it was read to.
  ConstView parameter(PyObject* argument, const char* name, const Array** read = nullptr);
  // Saved statistics; absent if the argument is not given.
  ConstView saved_statistics(PyObject* argument, const char* name);

  // An output of x's shape, dtype and axis order: the caller's, or a new one.
  View result_like_x(PyObject* argument, const char* name, Operand** operand);
  // A new float64 array of x's shape, the normalized axes 1.
  View new_statistics(const char* name, Operand** operand);
  // The gradient of a parameter: the caller's array, or a new one of the parameter's dtype.
  View gradient(const Array& parameter, PyObject* argument, const char* name, Operand** operand);

 private:
  void find_trailing_axes(const int64_t* normalized, int32_t count);
  void find_axes(PyObject* axis, const int64_t* normalized, int32_t count);
  const int64_t* statistics_sizes();
  const int64_t* ordered_strides(Operand& operand, int32_t axes);

  RowsShape shape_;
  int32_t rank_ = 0;
  bool permuted_ = false;
  int32_t axes_[kMaxRank];              // outer, then inner
  int64_t sizes_[kMaxRank];             // in that order
  int64_t statistics_sizes_[kMaxRank];  // in x's order
};

// The tuple of results; null operands become None.
PyObject* result_tuple(const Array& x, Operand* const* operands, int count);

}  // namespace normkit::python

#endif  // NORMKIT_PYTHON_CALL_HPP_
