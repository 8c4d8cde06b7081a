#include "errors.hpp"

#include <cstdarg>

namespace normkit::python {
namespace {

void set_error(PyObject* type, const char* format, va_list arguments) {
  PyObject* text = PyUnicode_FromFormatV(format, arguments);
  if (text == nullptr) return;
  PyErr_SetObject(type, text);
  Py_DECREF(text);
}

}  // namespace

void raise(PyObject* type, const char* format, ...) {
  va_list arguments;
  va_start(arguments, format);
  set_error(type, format, arguments);
  va_end(arguments);
  nb::raise_python_error();
}

void raise_from_current(PyObject* type, const char* format, ...) {
  if (!PyErr_ExceptionMatches(PyExc_Exception) || PyErr_ExceptionMatches(PyExc_MemoryError))
    nb::raise_python_error();
  PyObject *cause_type, *cause, *trace;
  PyErr_Fetch(&cause_type, &cause, &trace);
  PyErr_NormalizeException(&cause_type, &cause, &trace);
  if (trace != nullptr) PyException_SetTraceback(cause, trace);
  Py_XDECREF(cause_type);
  Py_XDECREF(trace);

  va_list arguments;
  va_start(arguments, format);
  set_error(type, format, arguments);
  va_end(arguments);

  PyObject *new_type, *value, *new_trace;
  PyErr_Fetch(&new_type, &value, &new_trace);
  PyErr_NormalizeException(&new_type, &value, &new_trace);
  if (value != nullptr) PyException_SetCause(value, cause);  // takes the reference
  PyErr_Restore(new_type, value, new_trace);
  nb::raise_python_error();
}

nb::object shape_tuple(const int64_t* sizes, int32_t count) {
  nb::object tuple = nb::steal(PyTuple_New(count));
  if (!tuple.is_valid()) nb::raise_python_error();
  for (int32_t i = 0; i < count; ++i) {
    PyObject* size = PyLong_FromLongLong(sizes[i]);
    if (size == nullptr) nb::raise_python_error();
    PyTuple_SET_ITEM(tuple.ptr(), i, size);
  }
  return tuple;
}

nb::object shape_text(const int64_t* sizes, int32_t count) {
  nb::object text = nb::steal(PyObject_Repr(shape_tuple(sizes, count).ptr()));
  if (!text.is_valid()) nb::raise_python_error();
  return text;
}

nb::object type_text(PyObject* object) {
  const KeepError keep;  // messages are put together while an error is set
  PyObject* type = reinterpret_cast<PyObject*>(Py_TYPE(object));
  const nb::object name = nb::steal(PyObject_GetAttrString(type, "__qualname__"));
  const nb::object module = nb::steal(PyObject_GetAttrString(type, "__module__"));
  PyErr_Clear();
  nb::object text;
  if (!name.is_valid() || !PyUnicode_Check(name.ptr())) {
    text = nb::steal(PyUnicode_FromString(Py_TYPE(object)->tp_name));
  } else if (!module.is_valid() || !PyUnicode_Check(module.ptr()) ||
             PyUnicode_CompareWithASCIIString(module.ptr(), "builtins") == 0) {
    text = name;
  } else {
    text = nb::steal(PyUnicode_FromFormat("%U.%U", module.ptr(), name.ptr()));
  }
  if (!text.is_valid()) nb::raise_python_error();
  return text;
}

}  // namespace normkit::python
