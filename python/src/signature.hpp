// One Python function: its signature, written once as text, is what help() shows and what the parser obeys.
//
// A function body gets one slot for each parameter in the order of the text: a borrowed reference, or null
// where the caller left it out. METH_FASTCALL | METH_KEYWORDS; a call with four arrays and a keyword parses
// in about 20 ns.
#ifndef NORMKIT_PYTHON_SIGNATURE_HPP_
#define NORMKIT_PYTHON_SIGNATURE_HPP_

#include <exception>
#include <new>
#include <string>

#include "errors.hpp"
#include "normkit/detail/stack.hpp"
#include "normkit/executor.hpp"
#include "normkit/types.hpp"

namespace normkit::python {

class Signature {
 public:
  static constexpr int kMaxParameters = 32;

  // "name(a, b=None, *, c=0)"; `doc` follows it in __doc__.
  Signature(const char* text, const char* doc);

  // Fills one slot for each parameter; false with a TypeError set.
  bool parse(PyObject* const* arguments, Py_ssize_t positional, PyObject* keywords,
             PyObject** slots) const noexcept;

  int count() const { return count_; }
  const char* name() const { return name_.c_str(); }
  const char* doc() const { return doc_.c_str(); }

 private:
  std::string name_, doc_;
  int count_ = 0;
  int positional_ = 0;  // parameters that may be passed by position
  int required_ = 0;
  PyObject* names_[kMaxParameters];  // interned
};

using FastCall = PyObject* (*)(PyObject*, PyObject* const*, Py_ssize_t, PyObject*);
void add_function(PyObject* module, const Signature& signature, FastCall call);

// The stack that an operation needs from its first line on: its arguments, the kernels, and the arrays that
// it returns, which other libraries make.
constexpr size_t kOperationStackBytes = kStackBytes + 32 * 1024;

// RuntimeError: the calling thread has less stack left than operations need.
void raise_small_stack(const char* name, size_t left) noexcept;

// What a body does: run kernels, or look something up. The latter works on any stack.
enum class Work { kKernels, kLookUp };

// Adds a function to the module. The body may throw.
template <PyObject* (*body)(PyObject* const* slots), Work work = Work::kKernels>
struct Function {
  static inline const Signature* signature = nullptr;

  static PyObject* call(PyObject*, PyObject* const* arguments, Py_ssize_t count,
                        PyObject* keywords) noexcept {
    if constexpr (work == Work::kKernels) {
      const size_t left = executor_detail::stack_left();
      if (left < kOperationStackBytes) {
        raise_small_stack(signature->name(), left);
        return nullptr;
      }
    }
    return parse_and_run(arguments, count, keywords);
  }

  // On its own, so that its frame, which the body's may be a part of, comes after the look at the stack.
  NORMKIT_NOINLINE static PyObject* parse_and_run(PyObject* const* arguments, Py_ssize_t count,
                                                  PyObject* keywords) noexcept {
    PyObject* slots[Signature::kMaxParameters];
    try {
      if (!signature->parse(arguments, count, keywords, slots)) return nullptr;
      return body(slots);
    } catch (nb::python_error& error) {
      error.restore();
    } catch (const std::bad_alloc&) {
      PyErr_NoMemory();
    } catch (const std::exception& error) {
      PyErr_SetString(PyExc_RuntimeError, error.what());
    }
    return nullptr;
  }

  static void add(PyObject* module, const char* text, const char* doc) {
    signature = new Signature(text, doc);  // lives as long as the process, like the function
    add_function(module, *signature, &call);
  }
};

// Null and None both mean that the caller said nothing.
inline bool given(PyObject* slot) {
  return slot != nullptr && slot != Py_None;
}

Activation activation_argument(PyObject* slot);
double number_argument(PyObject* slot, const char* name, double otherwise);
// 0 or more, infinity too.
double eps_argument(PyObject* slot, double otherwise);
// A bool of Python or NumPy, nothing else: "false" is true, and so is an array of one False.
bool flag_argument(PyObject* slot, const char* name, bool otherwise);
// The entries of a tuple or a list, as a tuple of their own: reading one may run code that changes the list.
// Null if it is neither, or has not `count` entries.
nb::object entries_argument(PyObject* slot, Py_ssize_t count);

}  // namespace normkit::python

#endif  // NORMKIT_PYTHON_SIGNATURE_HPP_
