// The geometry of operations over rows.
#include <cstring>

#include "call.hpp"
#include "signature.hpp"

namespace normkit::python {

double rms_eps(PyObject* argument, const RowsCall& call) {
  constexpr double kF32Epsilon = 1.1920928955078125e-07, kF64Epsilon = 2.220446049250313e-16;
  return eps_argument(given(argument) ? argument : nullptr, call.x_is_f64() ? kF64Epsilon : kF32Epsilon);
}

RowsCall::RowsCall(PyObject* x, PyObject* normalized_shape, PyObject* axis, const char* name)
    : ArrayCall(x, name, Kernels::kHostAndCuda) {
  int64_t normalized[kMaxRank];
  const int32_t count = integer_arguments(normalized_shape, "normalized_shape", normalized);
  if (count == 0) raise(PyExc_ValueError, "normalized_shape is empty; it should name at least one axis");
  if (given(axis)) {
    find_axes(axis, normalized, count);
  } else {
    find_trailing_axes(normalized, count);
  }
  shape_.size = reordered_ ? sizes_ : this->x().sizes;
}

void RowsCall::find_trailing_axes(const int64_t* normalized, int32_t count) {
  const Array& x = this->x();
  const int32_t outer = rank() - count;
  bool equal = outer >= 0;
  for (int32_t i = 0; equal && i < count; ++i) equal = x.sizes[outer + i] == normalized[i];
  if (!equal)
    raise(PyExc_ValueError,
          "normalized_shape is %U, but %s has shape %U; it should be the sizes of %s's last axes",
          shape_text(normalized, count).ptr(), x.name, shape_text(x).ptr(), x.name);
  count_ = rank();
  shape_.outer = outer;
  shape_.inner = count;
}

void RowsCall::find_axes(PyObject* axis, const int64_t* normalized, int32_t count) {
  const Array& x = this->x();
  int64_t named[kMaxRank];
  const int32_t named_count = integer_arguments(axis, "axis", named);
  if (named_count == 0) raise(PyExc_ValueError, "axis is empty; it should name at least one axis");
  bool inner[kMaxRank] = {};
  for (int32_t i = 0; i < named_count; ++i) {
    const int32_t a = axis_number(named[i], "axis");
    if (inner[a]) raise(PyExc_ValueError, "axis names axis %d of %s twice", static_cast<int>(a), x.name);
    inner[a] = true;
  }
  for (int32_t i = 0; i < rank(); ++i)
    if (!inner[i]) add_axis(i, x.sizes[i]);
  shape_.outer = count_;
  for (int32_t i = 0; i < rank(); ++i)
    if (inner[i]) add_axis(i, x.sizes[i]);
  shape_.inner = named_count;
  const int64_t* on_axes = sizes_ + shape_.outer;
  if (named_count != count ||
      std::memcmp(on_axes, normalized, sizeof(int64_t) * static_cast<size_t>(count)) != 0)
    raise(PyExc_ValueError,
          "normalized_shape is %U; it should be %U, %s's sizes on the axes that axis names, in %s's order",
          shape_text(normalized, count).ptr(), shape_text(on_axes, named_count).ptr(), x.name, x.name);
}

const int64_t* RowsCall::statistics_sizes() {
  for (int32_t i = 0; i < rank(); ++i) {
    const int32_t axis = reordered_ ? axes_[i] : i;
    statistics_sizes_[axis] = i < shape_.outer ? x().sizes[axis] : 1;
  }
  return statistics_sizes_;
}

ConstView RowsCall::parameter(PyObject* argument, const char* name, const Array** read) {
  return ArrayCall::parameter(argument, name, shape_.size + shape_.outer, shape_.inner,
                              "the normalized_shape", read);
}

ConstView RowsCall::saved_statistics(PyObject* argument, const char* name) {
  ConstView view = statistics(argument, name, statistics_sizes(), rank(), "x's with the normalized axes 1");
  if (view.data != nullptr) view.strides = ordered_strides(last(), shape_.outer);
  return view;
}

View RowsCall::new_statistics(const char* name, Operand** result) {
  View view = new_array(name, DType::kF64, statistics_sizes(), rank(), result);
  view.strides = ordered_strides(**result, shape_.outer);
  return view;
}

}  // namespace normkit::python
