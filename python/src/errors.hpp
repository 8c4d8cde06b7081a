// Python errors out of C++: format a message, set the error indicator, throw nanobind's python_error.
//
// Messages name the argument, say what it is and what it should be.
#ifndef NORMKIT_PYTHON_ERRORS_HPP_
#define NORMKIT_PYTHON_ERRORS_HPP_

#include <nanobind/nanobind.h>

#include <cstdint>

namespace nb = nanobind;

namespace normkit::python {

// PyUnicode_FromFormat's format language.
[[noreturn]] void raise(PyObject* type, const char* format, ...);

// Like raise(); the error that is set now becomes the new one's __cause__. Errors that are not about the
// argument (KeyboardInterrupt, MemoryError, ...) pass unchanged.
[[noreturn]] void raise_from_current(PyObject* type, const char* format, ...);

// Puts the error that is set now aside and back again: for code that must run in between.
class KeepError {
 public:
  KeepError() { PyErr_Fetch(&type_, &value_, &trace_); }
  KeepError(const KeepError&) = delete;
  KeepError& operator=(const KeepError&) = delete;
  ~KeepError() { PyErr_Restore(type_, value_, trace_); }

 private:
  PyObject *type_, *value_, *trace_;
};

// A tuple of integers; "(2, 3)", "(5,)", "()".
nb::object shape_tuple(const int64_t* sizes, int32_t count);
nb::object shape_text(const int64_t* sizes, int32_t count);

// The full name of an object's type: "list", "torch.Tensor".
nb::object type_text(PyObject* object);

}  // namespace normkit::python

#endif  // NORMKIT_PYTHON_ERRORS_HPP_
