// The geometry of operations over rows, and the operands that go with it.
#include <cstring>

#include "call.hpp"
#include "signature.hpp"

namespace normkit::python {
namespace {

int64_t integer(PyObject* object, const char* name) {
  if (PyBool_Check(object)) raise(PyExc_TypeError, "%s is %R; it should be an integer", name, object);
  const nb::object index = PyLong_Check(object) ? nb::borrow(object) : nb::steal(PyNumber_Index(object));
  if (!index.is_valid())
    raise_from_current(PyExc_TypeError, "%s contains %U; it should be an integer or a sequence of integers",
                       name, type_text(object).ptr());
  const long long value = PyLong_AsLongLong(index.ptr());
  if (value == -1 && PyErr_Occurred())
    raise_from_current(PyExc_ValueError, "%s contains %R, which no axis can have", name, object);
  return value;
}

// An integer or a sequence of integers; returns how many.
int32_t integers(PyObject* object, const char* name, int64_t* values) {
  nb::object tuple;
  if (!PyTuple_Check(object)) {
    const bool sequence = PySequence_Check(object) && !PyUnicode_Check(object) && !PyBytes_Check(object);
    if (!sequence && !PyIndex_Check(object))
      raise(PyExc_TypeError, "%s is %U; it should be an integer or a sequence of integers", name,
            type_text(object).ptr());
    if (!sequence) {
      values[0] = integer(object, name);
      return 1;
    }
    tuple = nb::steal(PySequence_Tuple(object));
    if (!tuple.is_valid()) nb::raise_python_error();
    object = tuple.ptr();
  }
  const Py_ssize_t count = PyTuple_GET_SIZE(object);
  if (count > kMaxRank)
    raise(PyExc_ValueError, "%s has %zd entries; it should have at most %d", name, count,
          static_cast<int>(kMaxRank));
  for (Py_ssize_t i = 0; i < count; ++i) values[i] = integer(PyTuple_GET_ITEM(object, i), name);
  return static_cast<int32_t>(count);
}

void check_shape(const Array& array, const int64_t* sizes, int32_t ndim, const char* what) {
  bool equal = array.ndim == ndim;
  for (int32_t i = 0; equal && i < ndim; ++i) equal = array.sizes[i] == sizes[i];
  if (!equal)
    raise(PyExc_ValueError, "%s has shape %U; it should have shape %U, %s", array.name,
          shape_text(array).ptr(), shape_text(sizes, ndim).ptr(), what);
}

void check_same_dtype(const Array& array, const Array& x) {
  if (array.dtype != x.dtype)
    raise(PyExc_TypeError, "%s has dtype %s; it should have x's, %s", array.name, dtype_name(array.dtype),
          dtype_name(x.dtype));
}

}  // namespace

RowsCall::RowsCall(PyObject* x, PyObject* normalized_shape, PyObject* axis) {
  Operand& o = add();
  o.in_place = true;
  o.array.read(x, "x", Access::kRead);
  rank_ = o.array.ndim;
  int64_t normalized[kMaxRank];
  const int32_t count = integers(normalized_shape, "normalized_shape", normalized);
  if (count == 0) raise(PyExc_ValueError, "normalized_shape is empty; it should name at least one axis");
  if (given(axis)) {
    find_axes(axis, normalized, count);
  } else {
    find_trailing_axes(normalized, count);
  }
  shape_.size = permuted_ ? sizes_ : o.array.sizes;
}

void RowsCall::find_trailing_axes(const int64_t* normalized, int32_t count) {
  const Array& x = this->x();
  const int32_t outer = rank_ - count;
  bool equal = outer >= 0;
  for (int32_t i = 0; equal && i < count; ++i) equal = x.sizes[outer + i] == normalized[i];
  if (!equal)
    raise(PyExc_ValueError,
          "normalized_shape is %U, but x has shape %U; it should be the sizes of x's last axes",
          shape_text(normalized, count).ptr(), shape_text(x).ptr());
  shape_.outer = outer;
  shape_.inner = count;
}

void RowsCall::find_axes(PyObject* axis, const int64_t* normalized, int32_t count) {
  const Array& x = this->x();
  int64_t named[kMaxRank];
  const int32_t named_count = integers(axis, "axis", named);
  if (named_count == 0) raise(PyExc_ValueError, "axis is empty; it should name at least one axis");
  bool inner[kMaxRank] = {};
  for (int32_t i = 0; i < named_count; ++i) {
    const int64_t a = named[i] < 0 ? named[i] + rank_ : named[i];
    if (a < 0 || a >= rank_)
      raise(PyExc_ValueError, "axis %lld is out of bounds; it should be an axis of x, which has %d",
            static_cast<long long>(named[i]), static_cast<int>(rank_));
    if (inner[a]) raise(PyExc_ValueError, "axis names axis %lld of x twice", static_cast<long long>(a));
    inner[a] = true;
  }
  int32_t outer_count = 0, inner_count = 0;
  const int32_t outer = rank_ - named_count;
  int64_t on_axes[kMaxRank];
  for (int32_t i = 0; i < rank_; ++i) {
    const int32_t place = inner[i] ? outer + inner_count : outer_count;
    if (inner[i]) on_axes[inner_count] = x.sizes[i];
    ++(inner[i] ? inner_count : outer_count);
    axes_[place] = i;
    sizes_[place] = x.sizes[i];
    if (place != i) permuted_ = true;
  }
  if (named_count != count ||
      std::memcmp(on_axes, normalized, sizeof(int64_t) * static_cast<size_t>(count)) != 0)
    raise(PyExc_ValueError, "normalized_shape is %U; it should be %U, x's sizes on the axes that axis names",
          shape_text(normalized, count).ptr(), shape_text(on_axes, named_count).ptr());
  shape_.outer = outer;
  shape_.inner = named_count;
}

const int64_t* RowsCall::statistics_sizes() {
  for (int32_t i = 0; i < rank_; ++i) {
    const int32_t axis = permuted_ ? axes_[i] : i;
    statistics_sizes_[axis] = i < shape_.outer ? x().sizes[axis] : 1;
  }
  return statistics_sizes_;
}

// Strides on the first `axes` axes of the order "outer, then inner".
const int64_t* RowsCall::ordered_strides(Operand& operand, int32_t axes) {
  if (!permuted_) return operand.array.strides;
  for (int32_t i = 0; i < axes; ++i) operand.ordered[i] = operand.array.strides[axes_[i]];
  return operand.ordered;
}

ConstView RowsCall::x_view() {
  return {x().data, x().dtype, ordered_strides(operand(0), rank_)};
}

ConstView RowsCall::same_as_x(PyObject* argument, const char* name) {
  Operand& o = add();
  o.in_place = true;
  o.array.read(argument, name, Access::kRead);
  check_same_dtype(o.array, x());
  check_shape(o.array, x().sizes, rank_, "like x");
  return {o.array.data, o.array.dtype, ordered_strides(o, rank_)};
}

ConstView RowsCall::parameter(PyObject* argument, const char* name, const Array** read) {
  if (!given(argument)) return {};
  Operand& o = add();
  o.array.read(argument, name, Access::kRead);
  if (o.array.dtype != x().dtype && (o.array.dtype != DType::kF32 || x_is_f64()))
    raise(PyExc_TypeError,
          x_is_f64() || x().dtype == DType::kF32 ? "%s has dtype %s; it should have x's, %s"
                                                 : "%s has dtype %s; it should have x's, %s, or float32",
          name, dtype_name(o.array.dtype), dtype_name(x().dtype));
  const int64_t* inner_sizes = shape_.size + shape_.outer;
  check_shape(o.array, inner_sizes, shape_.inner, "the normalized_shape");
  if (read != nullptr) *read = &o.array;
  return {o.array.data, o.array.dtype, o.array.strides};
}

ConstView RowsCall::saved_statistics(PyObject* argument, const char* name) {
  if (!given(argument)) return {};
  Operand& o = add();
  o.array.read(argument, name, Access::kRead);
  if (o.array.dtype != DType::kF64 && o.array.dtype != DType::kF32)
    raise(PyExc_TypeError, "%s has dtype %s; it should be float64 (or float32)", name,
          dtype_name(o.array.dtype));
  check_shape(o.array, statistics_sizes(), rank_, "x's with the normalized axes 1");
  return {o.array.data, o.array.dtype, ordered_strides(o, shape_.outer)};
}

View RowsCall::result_like_x(PyObject* argument, const char* name, Operand** result) {
  Operand& o = add();
  if (given(argument)) {
    o.use(argument, name);
    check_same_dtype(o.array, x());
    check_shape(o.array, x().sizes, rank_, "like x");
  } else {
    o.make_like(x(), name);
  }
  *result = &o;
  return {o.array.data, o.array.dtype, ordered_strides(o, rank_)};
}

View RowsCall::new_statistics(const char* name, Operand** result) {
  Operand& o = add();
  o.make(x(), name, DType::kF64, statistics_sizes(), rank_);
  *result = &o;
  return {o.array.data, o.array.dtype, ordered_strides(o, shape_.outer)};
}

View RowsCall::gradient(const Array& parameter, PyObject* argument, const char* name, Operand** result) {
  Operand& o = add();
  if (given(argument)) {
    o.use(argument, name);
    if (o.array.dtype != x().dtype && o.array.dtype != DType::kF32 && o.array.dtype != DType::kF64)
      raise(PyExc_TypeError, "%s has dtype %s; it should have x's, %s, or be float32 or float64", name,
            dtype_name(o.array.dtype), dtype_name(x().dtype));
    check_shape(o.array, parameter.sizes, parameter.ndim, "the parameter's");
  } else {
    o.make(x(), name, parameter.dtype, parameter.sizes, parameter.ndim);
  }
  *result = &o;
  return {o.array.data, o.array.dtype, o.array.strides};
}

}  // namespace normkit::python
