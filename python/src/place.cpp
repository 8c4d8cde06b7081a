#include "place.hpp"

#include "array.hpp"
#include "cuda_backend.hpp"

namespace normkit::python {
namespace {

nb::object checked(PyObject* object) {
  if (object == nullptr) nb::raise_python_error();
  return nb::steal(object);
}

// "the CPU", "CUDA device 0".
nb::object device_text(int32_t device) {
  return checked(device < 0 ? PyUnicode_FromString("the CPU")
                            : PyUnicode_FromFormat("CUDA device %d", static_cast<int>(device)));
}

[[noreturn]] void raise_elsewhere(const Array& array, int32_t device, const char* first,
                                  int32_t first_device) {
  raise(PyExc_ValueError, "%s is %U on %U, but %s is on %U; all arrays of a call should be on one device",
        array.name, type_text(array.object).ptr(), device_text(device).ptr(), first,
        device_text(first_device).ptr());
}

}  // namespace

void Place::raise_no_kernels(const Array& array, int32_t device) {
  raise(PyExc_TypeError,
        "%s is %U on CUDA device %d, where this operation has no kernels; it should be on the CPU (on CUDA "
        "devices "
        "run layer_norm, rms_norm, batch_norm, instance_norm, group_norm, add_layer_norm, add_rms_norm, norm "
        "and "
        "their gradients)",
        array.name, type_text(array.object).ptr(), static_cast<int>(device));
}

void Place::decide_host(const Array& array) {
  if (device_ != kUndecided) raise_elsewhere(array, kHost, first_, device_);
  device_ = kHost;
  first_ = array.name;
}

void Place::admit_on_device(const Array& array, int32_t device) {
  if (kernels_ == Kernels::kHost) raise_no_kernels(array, device);
  if (cuda_backend::architectures() == nullptr)
    raise(PyExc_TypeError,
          "%s is %U on CUDA device %d, and this build of normkit has no CUDA kernels; it should be on the "
          "CPU, or "
          "normkit be built with them (from its source: pip install . -Ccmake.define.NORMKIT_CUDA=ON)",
          array.name, type_text(array.object).ptr(), static_cast<int>(device));
  if (device_ == device) {
    has_guests_ = has_guests_ || array.kind != kind_ || array.kind == Kind::kOther;
    return;
  }
  if (device_ != kUndecided) raise_elsewhere(array, device, first_, device_);
  decide_device(array, device);
}

void Place::decide_device(const Array& array, int32_t device) {
  // Before anything is asked for: libraries answer for the device that is current.
  const int before = cuda_backend::current_device();
  if (before != device) {
    if (!cuda_backend::set_current_device(device))
      raise(PyExc_RuntimeError, "%s is on CUDA device %d, which CUDA does not let this process use: %s",
            array.name, static_cast<int>(device), cuda_backend::last_error());
    device_before_ = before;
  }
  const nb::object libraries = checked(PyImport_ImportModule("normkit._libraries"));
  lender_ = checked(PyObject_CallMethod(libraries.ptr(), "lender", "Osi", array.object,
                                        library_name(array.kind), static_cast<int>(device)));
  if (lender_.is_none())
    raise(PyExc_TypeError,
          "%s is %U on CUDA device %d, whose library lends no memory to write to; it should be a PyTorch "
          "tensor or "
          "a CuPy array",
          array.name, type_text(array.object).ptr(), static_cast<int>(device));
  const nb::object stream = checked(PyObject_CallMethod(lender_.ptr(), "stream", nullptr));
  const unsigned long long handle = PyLong_AsUnsignedLongLong(stream.ptr());
  if (PyErr_Occurred()) nb::raise_python_error();
  // 0 means what the process makes of it; here it is the legacy default stream, which has a number of its
  // own.
  stream_ = handle == 0 ? 1 : static_cast<uintptr_t>(handle);
  kind_ = array.kind;
  device_ = device;
  first_ = array.name;
}

void Place::leave() {
  (void)cuda_backend::set_current_device(device_before_);
}

nb::object Place::empty(const char* dtype, const int64_t* sizes, int32_t ndim) const {
  return checked(PyObject_CallMethod(lender_.ptr(), "empty", "Os", shape_tuple(sizes, ndim).ptr(), dtype));
}

nb::object Place::negative_zeros(const char* dtype, const int64_t* sizes, int32_t ndim) const {
  return checked(
      PyObject_CallMethod(lender_.ptr(), "full", "Osd", shape_tuple(sizes, ndim).ptr(), dtype, -0.0));
}

nb::object Place::empty_like(PyObject* array) const {
  return checked(PyObject_CallMethod(lender_.ptr(), "empty_like", "O", array));
}

}  // namespace normkit::python
