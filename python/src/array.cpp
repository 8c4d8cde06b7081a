#include "array.hpp"

namespace normkit::python {

const char* dtype_name(DType dtype) {
  switch (dtype) {
    case DType::kF32:
      return "float32";
    case DType::kF64:
      return "float64";
    case DType::kF16:
      return "float16";
    case DType::kBF16:
      return "bfloat16";
  }
  return "unknown";
}

const char* library_name(Kind kind) {
  switch (kind) {
    case Kind::kNumpy:
      return "numpy";
    case Kind::kTorch:
      return "torch";
    case Kind::kJax:
      return "jax";
    case Kind::kCupy:
      return "cupy";
    case Kind::kOther:
      break;
  }
  return "";
}

nb::object shape_text(const Array& array) {
  return shape_text(array.sizes, array.ndim);
}

bool Array::is_c_contiguous() const {
  if (count == 0) return true;
  int64_t expected = 1;
  for (int32_t i = ndim - 1; i >= 0; --i) {
    if (sizes[i] == 1) continue;
    if (strides[i] != expected) return false;
    expected *= sizes[i];
  }
  return true;
}

Extent extent_of(const Array& array) {
  const uintptr_t base = reinterpret_cast<uintptr_t>(array.data);
  Extent extent{base, base};
  if (array.count == 0) return extent;
  const uintptr_t item = static_cast<uintptr_t>(size_of(array.dtype));
  extent.last += item;
  for (int32_t i = 0; i < array.ndim; ++i) {
    // Unsigned: wraps instead of overflowing where a producer lies about its strides.
    const uintptr_t reach =
        static_cast<uintptr_t>(array.sizes[i] - 1) * static_cast<uintptr_t>(array.strides[i]) * item;
    (array.strides[i] < 0 ? extent.first : extent.last) += reach;
  }
  return extent;
}

void Array::read(PyObject* source, const char* argument, Access access) {
  object = source;
  name = argument;
  if (is_numpy_array(source)) {
    if (place != nullptr) place->admit_on_host(*this);
    read_numpy(*this, source, access);
  } else {
    read_dlpack(*this, source, access);
  }
  if (access == Access::kWrite && count > 1) {
    for (int32_t i = 0; i < ndim; ++i) {
      if (strides[i] == 0 && sizes[i] > 1)
        raise(PyExc_ValueError,
              "%s has stride 0 on axis %d of size %lld: its elements share memory; it should be an array "
              "whose elements "
              "are all distinct",
              name, static_cast<int>(i), static_cast<long long>(sizes[i]));
    }
  }
}

}  // namespace normkit::python
