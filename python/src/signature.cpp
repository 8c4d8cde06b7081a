#include "signature.hpp"

#include <cstring>

namespace normkit::python {
namespace {

std::string trimmed(const std::string& text) {
  const size_t first = text.find_first_not_of(" \n");
  if (first == std::string::npos) return {};
  return text.substr(first, text.find_last_not_of(" \n") - first + 1);
}

}  // namespace

Signature::Signature(const char* text, const char* doc) {
  const std::string whole = text;
  const size_t open = whole.find('(');
  name_ = whole.substr(0, open);
  doc_ = whole + "\n--\n\n" + doc;
  const std::string list = whole.substr(open + 1, whole.rfind(')') - open - 1);
  bool keyword_only = false;
  // A comma inside a default, as in feature_range=(0, 1), does not end a parameter.
  int depth = 0;
  size_t start = 0;
  for (size_t i = 0; i <= list.size(); ++i) {
    if (i < list.size()) {
      if (list[i] == '(') ++depth;
      if (list[i] == ')') --depth;
      if (list[i] != ',' || depth > 0) continue;
    }
    const std::string parameter = trimmed(list.substr(start, i - start));
    start = i + 1;
    if (parameter.empty()) continue;
    if (parameter == "*") {
      keyword_only = true;
      continue;
    }
    if (count_ == kMaxParameters) raise(PyExc_SystemError, "%s has too many parameters", name_.c_str());
    const size_t equals = parameter.find('=');
    names_[count_] = PyUnicode_InternFromString(parameter.substr(0, equals).c_str());
    if (names_[count_] == nullptr) nb::raise_python_error();
    ++count_;
    if (!keyword_only) ++positional_;
    if (equals == std::string::npos) required_ = count_;
  }
}

bool Signature::parse(PyObject* const* arguments, Py_ssize_t positional, PyObject* keywords,
                      PyObject** slots) const noexcept {
  if (positional > positional_) {
    PyErr_Format(PyExc_TypeError, "%s() takes at most %d positional arguments (%zd given)", name(),
                 positional_, positional);
    return false;
  }
  for (Py_ssize_t i = 0; i < positional; ++i) slots[i] = arguments[i];
  for (int i = static_cast<int>(positional); i < count_; ++i) slots[i] = nullptr;

  const Py_ssize_t keyword_count = keywords == nullptr ? 0 : PyTuple_GET_SIZE(keywords);
  for (Py_ssize_t k = 0; k < keyword_count; ++k) {
    PyObject* keyword = PyTuple_GET_ITEM(keywords, k);
    int slot = 0;
    while (slot < count_ && names_[slot] != keyword) ++slot;
    if (slot == count_) {
      // Not the interned string itself (a name from **kwargs, say): compare the text.
      for (slot = 0; slot < count_ && PyUnicode_Compare(names_[slot], keyword) != 0; ++slot) {
      }
      if (PyErr_Occurred()) return false;
    }
    if (slot == count_) {
      PyErr_Format(PyExc_TypeError, "%s() got an unexpected keyword argument '%S'", name(), keyword);
      return false;
    }
    if (slots[slot] != nullptr) {
      PyErr_Format(PyExc_TypeError, "%s() got multiple values for argument '%S'", name(), keyword);
      return false;
    }
    slots[slot] = arguments[positional + k];
  }
  for (int i = 0; i < required_; ++i) {
    if (slots[i] == nullptr) {
      PyErr_Format(PyExc_TypeError, "%s() missing required argument: '%U'", name(), names_[i]);
      return false;
    }
  }
  return true;
}

void raise_small_stack(const char* name, size_t left) noexcept {
  PyErr_Format(
      PyExc_RuntimeError,
      "%s() needs %zu KiB of stack, and the calling thread has %zu KiB left; it should have a larger "
      "one (threading.stack_size, ulimit -s)",
      name, kOperationStackBytes / 1024, left / 1024);
}

void add_function(PyObject* module, const Signature& signature, FastCall call) {
  const nb::object module_name = nb::steal(PyUnicode_FromString("normkit"));
  auto* definition = new PyMethodDef{};  // CPython keeps the pointer
  definition->ml_name = signature.name();
  definition->ml_meth = reinterpret_cast<PyCFunction>(reinterpret_cast<void (*)()>(call));
  definition->ml_flags = METH_FASTCALL | METH_KEYWORDS;
  definition->ml_doc = signature.doc();
  const nb::object function = nb::steal(PyCFunction_NewEx(definition, nullptr, module_name.ptr()));
  if (!function.is_valid() || PyObject_SetAttrString(module, signature.name(), function.ptr()) != 0)
    nb::raise_python_error();
}

Activation activation_argument(PyObject* slot) {
  if (!given(slot)) return Activation::kNone;
  static constexpr const char* kNames[] = {"relu", "silu", "gelu", "gelu_tanh"};
  for (int32_t i = 0; PyUnicode_Check(slot) && i < 4; ++i)
    if (PyUnicode_CompareWithASCIIString(slot, kNames[i]) == 0) return static_cast<Activation>(i + 1);
  raise(PyUnicode_Check(slot) ? PyExc_ValueError : PyExc_TypeError,
        "activation is %R; it should be None, 'relu', 'silu', 'gelu' or 'gelu_tanh'", slot);
}

double number_argument(PyObject* slot, const char* name, double otherwise) {
  if (slot == nullptr) return otherwise;
  const double value = PyFloat_AsDouble(slot);
  if (value == -1.0 && PyErr_Occurred())
    raise_from_current(PyExc_TypeError, "%s is %R; it should be a number", name, slot);
  if (value != value) raise(PyExc_ValueError, "%s is nan; it should be a number", name);
  return value;
}

double eps_argument(PyObject* slot, double otherwise) {
  const double value = number_argument(slot, "eps", otherwise);
  if (value < 0.0) raise(PyExc_ValueError, "eps is %R; it should be at least 0", slot);
  return value;
}

bool flag_argument(PyObject* slot, const char* name, bool otherwise) {
  if (slot == nullptr) return otherwise;
  if (PyBool_Check(slot)) return slot == Py_True;
  const char* type = Py_TYPE(slot)->tp_name;  // of NumPy 2 and 1; no class can inherit from it
  if (std::strcmp(type, "numpy.bool") != 0 && std::strcmp(type, "numpy.bool_") != 0)
    raise(PyExc_TypeError, "%s is %R; it should be True or False", name, slot);
  const int truth = PyObject_IsTrue(slot);
  if (truth < 0) nb::raise_python_error();
  return truth != 0;
}

nb::object entries_argument(PyObject* slot, Py_ssize_t count) {
  if (!PyTuple_Check(slot) && !PyList_Check(slot)) return {};
  nb::object entries = nb::steal(PySequence_Tuple(slot));
  if (!entries.is_valid()) nb::raise_python_error();
  if (PyTuple_GET_SIZE(entries.ptr()) != count) return {};
  return entries;
}

}  // namespace normkit::python
