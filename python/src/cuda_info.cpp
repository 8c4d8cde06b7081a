// What normkit.cuda tells about the build and the devices.
#include <climits>

#include "cuda_backend.hpp"
#include "ops.hpp"
#include "signature.hpp"

namespace normkit::python {
namespace {

PyObject* architectures_text(PyObject* const*) {
  const char* list = cuda_backend::architectures();
  if (list == nullptr) Py_RETURN_NONE;
  return PyUnicode_FromString(list);
}

PyObject* device_count_value(PyObject* const*) {
  return PyLong_FromLong(cuda_backend::device_count());
}

PyObject* device_properties_tuple(PyObject* const* slots) {
  const long device = PyLong_AsLong(slots[0]);
  if (device == -1 && PyErr_Occurred()) nb::raise_python_error();
  cuda_backend::DeviceProperties found;
  if (device < 0 || device > INT_MAX || !cuda_backend::device_properties(static_cast<int>(device), &found))
    Py_RETURN_NONE;
  return Py_BuildValue("s(ii)nin", found.name, found.major, found.minor,
                       static_cast<Py_ssize_t>(found.memory_bytes), found.multiprocessors,
                       static_cast<Py_ssize_t>(found.l2_bytes));
}

}  // namespace

void add_cuda_functions(PyObject* module) {
  Function<architectures_text, Work::kLookUp>::add(module, "_cuda_architectures()",
                                                   "What the CUDA kernels were compiled for, or None.");
  Function<device_count_value, Work::kLookUp>::add(module, "_cuda_device_count()",
                                                   "See normkit.cuda.device_count.");
  Function<device_properties_tuple, Work::kLookUp>::add(
      module, "_cuda_device_properties(device)",
      "Name, compute capability, bytes of memory, multiprocessors and bytes of L2 cache; None without the "
      "device.");
}

}  // namespace normkit::python
