// Operands of x's shape in the order of an operation's axes, parameters, statistics and gradients.
#include "call.hpp"
#include "signature.hpp"

namespace normkit::python {
namespace {

void check_shape(const Array& array, const int64_t* sizes, int32_t ndim, const char* what) {
  bool equal = array.ndim == ndim;
  for (int32_t i = 0; equal && i < ndim; ++i) equal = array.sizes[i] == sizes[i];
  if (!equal)
    raise(PyExc_ValueError, "%s has shape %U; it should have shape %U, %s", array.name,
          shape_text(array).ptr(), shape_text(sizes, ndim).ptr(), what);
}

void check_same_dtype(const Array& array, const Array& x) {
  if (array.dtype != x.dtype)
    raise(PyExc_TypeError, "%s has dtype %s; it should have %s's, %s", array.name, dtype_name(array.dtype),
          x.name, dtype_name(x.dtype));
}

// The first letter of the array's name: x, content, summed.
const char* like(char name) {
  return name == 'x' ? "like x" : name == 'c' ? "like content" : "like summed";
}

// `verb`: "is" for the argument itself, "contains" for an entry.
int64_t integer(PyObject* object, const char* name, const char* verb) {
  const nb::object index = PyBool_Check(object)   ? nb::object()
                           : PyLong_Check(object) ? nb::borrow(object)
                                                  : nb::steal(PyNumber_Index(object));
  if (!index.is_valid()) {
    if (!PyErr_Occurred()) raise(PyExc_TypeError, "%s %s %R; it should be an integer", name, verb, object);
    raise_from_current(PyExc_TypeError, "%s %s %R; it should be an integer", name, verb, object);
  }
  const long long value = PyLong_AsLongLong(index.ptr());
  if (value == -1 && PyErr_Occurred())
    raise_from_current(PyExc_ValueError, "%s %s %R, which does not fit 64 bits", name, verb, object);
  return value;
}

}  // namespace

int64_t integer_argument(PyObject* object, const char* name) {
  return integer(object, name, "is");
}

int32_t integer_arguments(PyObject* object, const char* name, int64_t* values) {
  nb::object tuple;
  if (!PyTuple_Check(object)) {
    const bool sequence = PySequence_Check(object) && !PyUnicode_Check(object) && !PyBytes_Check(object);
    if (!sequence && !PyIndex_Check(object))
      raise(PyExc_TypeError, "%s is %U; it should be an integer or a sequence of integers", name,
            type_text(object).ptr());
    if (!sequence) {
      values[0] = integer(object, name, "is");
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
  for (Py_ssize_t i = 0; i < count; ++i) values[i] = integer(PyTuple_GET_ITEM(object, i), name, "contains");
  return static_cast<int32_t>(count);
}

void check_together(PyObject* a, const char* a_name, PyObject* b, const char* b_name) {
  if (given(a) != given(b))
    raise(PyExc_ValueError, "%s is given, but %s is None; they should be given together or not at all",
          given(a) ? a_name : b_name, given(a) ? b_name : a_name);
}

PyObject* forward_result(const ArrayCall& call, bool return_stats, Operand* y, Operand* mean, Operand* rstd) {
  if (!return_stats) return y->finish(call.x()).release().ptr();
  Operand* all[3] = {y, mean != nullptr ? mean : rstd, rstd};
  return result_tuple(call.x(), all, mean != nullptr ? 3 : 2);
}

ArrayCall::ArrayCall(PyObject* x, const char* name, Kernels kernels) : Call(kernels) {
  Operand& o = add();
  o.in_place = true;
  o.array.read(x, name, Access::kRead);
}

int32_t ArrayCall::axis_number(int64_t axis, const char* name) const {
  const int64_t a = axis < 0 ? axis + rank() : axis;
  if (a < 0 || a >= rank())
    raise(PyExc_ValueError, "%s %lld is out of bounds; it should be an axis of %s, which has %d", name,
          static_cast<long long>(axis), x().name, static_cast<int>(rank()));
  return static_cast<int32_t>(a);
}

void ArrayCall::add_axis(int32_t axis, int64_t size, int64_t span) {
  if (count_ == kMaxRank) raise(PyExc_ValueError, "%s has too many axes", x().name);
  reordered_ = reordered_ || axis != count_ || span != 1;
  axes_[count_] = axis;
  sizes_[count_] = size;
  spans_[count_++] = span;
}

const int64_t* ArrayCall::ordered_strides(Operand& operand, int32_t axes) {
  if (!reordered_) return operand.array.strides;
  for (int32_t i = 0; i < axes; ++i) {
    int64_t& stride = operand.ordered[i];
    // An overflow becomes a stride that the plan refuses.
    if (__builtin_mul_overflow(operand.array.strides[axes_[i]], spans_[i], &stride)) stride = INT64_MAX;
  }
  return operand.ordered;
}

ConstView ArrayCall::same_as_x(PyObject* argument, const char* name) {
  Operand& o = add();
  o.in_place = true;
  o.array.read(argument, name, Access::kRead);
  check_same_dtype(o.array, x());
  check_shape(o.array, x().sizes, rank(), like(x().name[0]));
  return {o.array.data, o.array.dtype, element_strides(o)};
}

Operand& ArrayCall::another(PyObject* argument, const char* name) {
  Operand& o = add();
  o.array.read(argument, name, Access::kRead);
  check_same_dtype(o.array, x());
  return o;
}

View ArrayCall::result_like(Operand& prototype, PyObject* argument, const char* name, Operand** result) {
  Operand& o = add();
  if (given(argument)) {
    o.use(argument, name);
    check_same_dtype(o.array, x());
    check_shape(o.array, prototype.array.sizes, prototype.array.ndim, "that of the array it belongs to");
  } else {
    o.make_like(prototype.array, name);
  }
  *result = &o;
  return {o.array.data, o.array.dtype, element_strides(o)};
}

View ArrayCall::result_like_x(PyObject* argument, const char* name, Operand** result) {
  const View view = result_like(operand(0), argument, name, result);
  (*result)->in_place = true;
  return view;
}

ConstView ArrayCall::parameter(PyObject* argument, const char* name, const int64_t* sizes, int32_t ndim,
                               const char* what, const Array** read) {
  if (!given(argument)) return {};
  Operand& o = add();
  o.array.read(argument, name, Access::kRead);
  if (o.array.dtype != x().dtype && (o.array.dtype != DType::kF32 || x_is_f64()))
    raise(PyExc_TypeError,
          x_is_f64() || x().dtype == DType::kF32 ? "%s has dtype %s; it should have %s's, %s"
                                                 : "%s has dtype %s; it should have %s's, %s, or float32",
          name, dtype_name(o.array.dtype), x().name, dtype_name(x().dtype));
  check_shape(o.array, sizes, ndim, what);
  if (read != nullptr) *read = &o.array;
  return {o.array.data, o.array.dtype, o.array.strides};
}

ConstView ArrayCall::statistics(PyObject* argument, const char* name, const int64_t* sizes, int32_t ndim,
                                const char* what) {
  if (!given(argument)) return {};
  Operand& o = add();
  o.array.read(argument, name, Access::kRead);
  if (o.array.dtype != DType::kF64 && o.array.dtype != DType::kF32)
    raise(PyExc_TypeError, "%s has dtype %s; it should be float64 (or float32)", name,
          dtype_name(o.array.dtype));
  check_shape(o.array, sizes, ndim, what);
  return {o.array.data, o.array.dtype, o.array.strides};
}

ConstView ArrayCall::numbers(PyObject* argument, const char* name, const int64_t* sizes, int32_t ndim,
                             const char* what, const Array** read) {
  if (!given(argument)) return {};
  Operand& o = add();
  o.array.read(argument, name, Access::kRead);
  check_shape(o.array, sizes, ndim, what);
  if (read != nullptr) *read = &o.array;
  return {o.array.data, o.array.dtype, o.array.strides};
}

View ArrayCall::updated(PyObject* argument, const char* name, const int64_t* sizes, int32_t ndim,
                        const char* what) {
  if (!given(argument)) return {};
  Operand& o = add();
  o.use(argument, name);
  check_shape(o.array, sizes, ndim, what);
  return {o.array.data, o.array.dtype, o.array.strides};
}

View ArrayCall::new_array(const char* name, DType dtype, const int64_t* sizes, int32_t ndim,
                          Operand** result) {
  Operand& o = add();
  o.make(x(), name, dtype, sizes, ndim);
  *result = &o;
  return {o.array.data, o.array.dtype, o.array.strides};
}

View ArrayCall::gradient(const Array& parameter, PyObject* argument, const char* name, bool accumulate,
                         Operand** result) {
  Operand& o = add();
  if (given(argument)) {
    o.use(argument, name);
    if (o.array.dtype != x().dtype && o.array.dtype != DType::kF32 && o.array.dtype != DType::kF64)
      raise(PyExc_TypeError, "%s has dtype %s; it should have x's, %s, or be float32 or float64", name,
            dtype_name(o.array.dtype), dtype_name(x().dtype));
    check_shape(o.array, parameter.sizes, parameter.ndim, "the parameter's");
  } else {
    o.make(x(), name, parameter.dtype, parameter.sizes, parameter.ndim);
    if (accumulate) o.fill_with_negative_zeros();  // what a sum adds to without a trace
  }
  *result = &o;
  return {o.array.data, o.array.dtype, o.array.strides};
}

Gradients::Gradients(ArrayCall& call, const Array* const* arrays, const char* const* names, PyObject* dx_out,
                     PyObject* grads_out, PyObject* accumulate_flag)
    : accumulate(flag_argument(accumulate_flag, "accumulate", false)), count(0) {
  while (count < kMaxParameters && names[count] != nullptr) ++count;
  PyObject* given_arrays[kMaxParameters] = {};
  nb::object entries;
  if (given(grads_out)) {
    entries = entries_argument(grads_out, count);
    if (!entries.is_valid())
      raise(PyExc_TypeError,
            "grads_out is %R; it should be a tuple of %d arrays, for %s ... %s in this order, where an entry "
            "may "
            "be None",
            grads_out, count, names[0], names[count - 1]);
    for (int i = 0; i < count; ++i) given_arrays[i] = PyTuple_GET_ITEM(entries.ptr(), i);
  } else if (accumulate) {
    raise(PyExc_ValueError, "accumulate is True, but grads_out is None; it should be the arrays to add into");
  }
  dx = call.result_like_x(dx_out, "dx_out", &operands[0]);
  static constexpr const char* kNames[kMaxParameters] = {"grads_out[0]", "grads_out[1]", "grads_out[2]",
                                                         "grads_out[3]"};
  for (int i = 0; i < count; ++i) {
    if (arrays[i] == nullptr) {
      if (given(given_arrays[i]))
        raise(PyExc_ValueError, "%s is given, but %s is None; it should be None too", kNames[i], names[i]);
      continue;
    }
    parameters[i] = call.gradient(*arrays[i], given_arrays[i], kNames[i], accumulate, &operands[1 + i]);
  }
  // An operation does not see parameters whose values do not matter (bias); they must not be overwritten all
  // the same.
  for (int i = 0; i < count; ++i) keep_away_from(arrays[i]);
}

void Gradients::keep_away_from(const Array* input) const {
  for (const Operand* out : operands) {
    if (out != nullptr && input != nullptr && extent_of(out->array).overlaps(extent_of(*input)))
      raise(PyExc_ValueError, "%s shares memory with %s; it should be separate memory", out->array.name,
            input->name);
  }
}

PyObject* Gradients::result(const ArrayCall& call) const {
  return result_tuple(call.x(), operands, 1 + count);
}

}  // namespace normkit::python
