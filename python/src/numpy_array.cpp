// NumPy arrays, read through NumPy's C structs: neither the buffer protocol nor NumPy's DLPack export takes
// bfloat16, and both cost more than a small kernel.
#include <atomic>
#include <cstring>

#include "array.hpp"
#include "memory.hpp"

#define NPY_NO_DEPRECATED_API NPY_1_22_API_VERSION
#define NPY_TARGET_VERSION NPY_1_22_API_VERSION
#include <numpy/arrayobject.h>

namespace normkit::python {
namespace {

static_assert(sizeof(npy_intp) == sizeof(Py_ssize_t), "npy_intp is a pointer-sized integer");
static_assert(NPY_MAXDIMS <= kMaxRank, "kMaxRank axes are enough for every NumPy array");

// ml_dtypes registers bfloat16 at run time, so its type number is learnt from the first array that has it.
std::atomic<int> bfloat16_type{-1};

PyArrayObject* as_array(PyObject* object) {
  return reinterpret_cast<PyArrayObject*>(object);
}

bool is_bfloat16(PyArray_Descr* descr) {
  const int type = descr->type_num;
  if (!PyTypeNum_ISUSERDEF(type)) return false;
  if (type == bfloat16_type.load(std::memory_order_relaxed)) return true;
  PyObject* scalar = reinterpret_cast<PyObject*>(descr->typeobj);
  nb::object module = nb::steal(PyObject_GetAttrString(scalar, "__module__"));
  nb::object name = nb::steal(PyObject_GetAttrString(scalar, "__name__"));
  PyErr_Clear();
  if (!module.is_valid() || !name.is_valid() || !PyUnicode_Check(module.ptr()) ||
      !PyUnicode_Check(name.ptr()) || PyUnicode_CompareWithASCIIString(module.ptr(), "ml_dtypes") != 0 ||
      PyUnicode_CompareWithASCIIString(name.ptr(), "bfloat16") != 0)
    return false;
  bfloat16_type.store(type, std::memory_order_relaxed);
  return true;
}

bool dtype_of(PyArray_Descr* descr, DType* dtype) {
  switch (descr->type_num) {
    case NPY_FLOAT:
      *dtype = DType::kF32;
      return true;
    case NPY_DOUBLE:
      *dtype = DType::kF64;
      return true;
    case NPY_HALF:
      *dtype = DType::kF16;
      return true;
    default:
      *dtype = DType::kBF16;
      return is_bfloat16(descr);
  }
}

// A subclass may give its memory a meaning that a plain read would lose.
void check_subclass(PyObject* object, const char* name) {
  PyObject* modules = PyImport_GetModuleDict();
  PyObject* ma = PyDict_GetItemString(modules, "numpy.ma");
  if (ma == nullptr) return;
  nb::object masked = nb::steal(PyObject_GetAttrString(ma, "MaskedArray"));
  if (!masked.is_valid()) {
    PyErr_Clear();
    return;
  }
  const int is_masked = PyObject_IsInstance(object, masked.ptr());
  if (is_masked < 0) nb::raise_python_error();
  if (is_masked)
    raise(PyExc_TypeError,
          "%s is a masked array, whose mask would be ignored; it should be a plain array, see "
          "numpy.ma.filled",
          name);
}

nb::object checked(PyObject* object) {
  if (object == nullptr) nb::raise_python_error();
  return nb::steal(object);
}

PyArray_Descr* new_descr(DType dtype) {
  switch (dtype) {
    case DType::kF32:
      return PyArray_DescrFromType(NPY_FLOAT);
    case DType::kF64:
      return PyArray_DescrFromType(NPY_DOUBLE);
    case DType::kF16:
      return PyArray_DescrFromType(NPY_HALF);
    case DType::kBF16:
      break;
  }
  nb::object module = nb::steal(PyImport_ImportModule("ml_dtypes"));
  if (!module.is_valid())
    raise_from_current(PyExc_TypeError, "a NumPy result in bfloat16 needs the package ml_dtypes");
  nb::object scalar = checked(PyObject_GetAttrString(module.ptr(), "bfloat16"));
  PyArray_Descr* descr = nullptr;
  if (PyArray_DescrConverter(scalar.ptr(), &descr) != NPY_SUCCEED) nb::raise_python_error();
  return descr;
}

// ---- large outputs on memory of ours (NEP 49): arrays that own their data like any other ----

void* numpy_malloc(void*, size_t bytes) {
  return allocate_output(bytes);
}

void* numpy_calloc(void*, size_t count, size_t size) {
  size_t bytes;
  if (__builtin_mul_overflow(count, size, &bytes)) return nullptr;
  void* data = allocate_output(bytes);
  return data != nullptr ? std::memset(data, 0, bytes) : nullptr;
}

void numpy_free(void*, void* data, size_t) {
  if (data != nullptr) release_output(data);
}

void* numpy_realloc(void*, void* data, size_t bytes) {
  return resize_output(data, bytes);
}

PyDataMem_Handler handler = {"normkit", 1, {nullptr, numpy_malloc, numpy_calloc, numpy_realloc, numpy_free}};
PyObject* handler_capsule = nullptr;  // kept until the process ends

// While it lives, NumPy allocates through the handler, unless the caller has chosen another one.
class OutputMemory {
 public:
  explicit OutputMemory(int64_t bytes) {
    if (bytes < static_cast<int64_t>(kPooledBytes) || output_pool_limit() == 0) return;
    before_ = checked(PyDataMem_SetHandler(handler_capsule));
    if (before_.ptr() != PyDataMem_DefaultHandler) restore();
  }
  OutputMemory(const OutputMemory&) = delete;
  OutputMemory& operator=(const OutputMemory&) = delete;
  ~OutputMemory() { restore(); }

 private:
  void restore() {
    if (!before_.is_valid()) return;
    const KeepError keep;
    nb::steal(PyDataMem_SetHandler(before_.ptr()));
    before_.reset();
  }

  nb::object before_;
};

}  // namespace

void import_numpy() {
  if (PyArray_ImportNumPyAPI() < 0) nb::raise_python_error();
  handler_capsule = checked(PyCapsule_New(&handler, "mem_handler", nullptr)).release().ptr();
}

bool is_numpy_array(PyObject* object) {
  return PyArray_Check(object);
}

void read_numpy(Array& array, PyObject* object, Access access) {
  PyArrayObject* source = as_array(object);
  PyArray_Descr* descr = PyArray_DESCR(source);
  if (!PyArray_CheckExact(object)) check_subclass(object, array.name);
  if (!dtype_of(descr, &array.dtype))
    raise(PyExc_TypeError, "%s has dtype %S; it should be float32, float64, float16 or bfloat16", array.name,
          reinterpret_cast<PyObject*>(descr));
  if (!PyArray_ISNOTSWAPPED(source))
    raise(PyExc_ValueError,
          "%s has dtype %R, which is not in native byte order; it should be (see numpy.ndarray.byteswap and "
          "astype)",
          array.name, reinterpret_cast<PyObject*>(descr));
  if (access == Access::kWrite && !PyArray_ISWRITEABLE(source))
    raise(PyExc_ValueError, "%s is a read-only NumPy array; it should be writable", array.name);

  array.kind = Kind::kNumpy;
  array.data = PyArray_DATA(source);
  array.ndim = PyArray_NDIM(source);
  const npy_intp* sizes = PyArray_DIMS(source);
  const npy_intp* strides = PyArray_STRIDES(source);
  const int shift = array.dtype == DType::kF64 ? 3 : array.dtype == DType::kF32 ? 2 : 1;
  const npy_intp remainder = (npy_intp{1} << shift) - 1;
  int64_t count = 1;
  for (int32_t i = 0; i < array.ndim; ++i) {
    array.sizes[i] = sizes[i];
    array.strides[i] = strides[i] >> shift;
    count *= sizes[i];
  }
  array.count = count;
  for (int32_t i = 0; i < array.ndim; ++i) {
    if ((strides[i] & remainder) != 0 && sizes[i] > 1 && count > 0)
      raise(PyExc_ValueError,
            "%s has a stride of %zd bytes on axis %d; strides should be multiples of the item size, %d bytes",
            array.name, static_cast<Py_ssize_t>(strides[i]), static_cast<int>(i), 1 << shift);
  }
}

nb::object new_numpy_like(PyObject* prototype) {
  const OutputMemory memory(PyArray_NBYTES(as_array(prototype)));
  return checked(PyArray_NewLikeArray(as_array(prototype), NPY_KEEPORDER, nullptr, 0));
}

nb::object new_numpy(const int64_t* sizes, int32_t ndim, DType dtype) {
  npy_intp dims[kMaxRank];
  for (int32_t i = 0; i < ndim; ++i) dims[i] = static_cast<npy_intp>(sizes[i]);
  PyArray_Descr* descr = new_descr(dtype);
  if (descr == nullptr) nb::raise_python_error();
  int64_t bytes = size_of(dtype);
  for (int32_t i = 0; i < ndim; ++i)
    if (__builtin_mul_overflow(bytes, sizes[i], &bytes)) bytes = 0;  // NumPy refuses it
  const OutputMemory memory(bytes);
  return checked(PyArray_Empty(ndim, dims, descr, 0));  // takes descr
}

}  // namespace normkit::python
