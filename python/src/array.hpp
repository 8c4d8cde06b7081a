// Array intake: one description for NumPy arrays, PyTorch tensors, JAX and CuPy arrays and whatever else
// speaks DLPack.
//
// An Array borrows the caller's memory for the duration of one call; nothing is ever copied or converted.
// Every check that concerns one array alone (type, device, dtype, byte order, writability) is made here;
// shapes are the operation's matter.
#ifndef NORMKIT_PYTHON_ARRAY_HPP_
#define NORMKIT_PYTHON_ARRAY_HPP_

#include <cstdint>

#include "dlpack.hpp"
#include "errors.hpp"
#include "normkit/types.hpp"
#include "place.hpp"

namespace normkit::python {

enum class Kind : uint8_t { kNumpy, kTorch, kJax, kCupy, kOther };
enum class Access : uint8_t { kRead, kWrite };

// Owns a tensor that came in a DLPack capsule until the end of the call. Needs the GIL.
class Lease {
 public:
  Lease() = default;
  Lease(const Lease&) = delete;
  Lease& operator=(const Lease&) = delete;
  ~Lease() { reset(); }

  // Takes the tensor out of the capsule; null if the object is no unconsumed DLPack capsule of a known
  // version.
  const dlpack::Tensor* take(PyObject* capsule, uint64_t* flags);
  void reset();

 private:
  dlpack::ManagedTensor* managed_ = nullptr;
  dlpack::ManagedTensorVersioned* versioned_ = nullptr;
};

struct Array {
  PyObject* object = nullptr;  // borrowed from the caller; null: the argument is absent
  const char* name = nullptr;  // of the argument, for messages
  void* data = nullptr;        // never null when present, also without elements
  int64_t count = 0;           // elements
  int32_t ndim = 0;
  DType dtype = DType::kF32;
  Kind kind = Kind::kNumpy;
  Place* place = nullptr;  // where the arrays of its call lie; null: on the host
  int64_t sizes[kMaxRank];
  int64_t strides[kMaxRank];  // in elements
  Lease lease;

  Array() {}  // leaves sizes and strides alone: they are 1 KB
  bool present() const { return object != nullptr; }

  // Reads the argument `name`. Raises TypeError or ValueError if it is no array that normkit can use.
  void read(PyObject* object, const char* name, Access access);
  bool is_c_contiguous() const;
};

// "float32", "bfloat16", ...
const char* dtype_name(DType dtype);

// The module of the array's library: "torch", ...; "" for one that is not known.
const char* library_name(Kind kind);

nb::object shape_text(const Array& array);

// The bytes [first, last) that the array's elements lie in.
struct Extent {
  uintptr_t first, last;
  bool overlaps(const Extent& other) const { return first < other.last && other.first < last; }
};
Extent extent_of(const Array& array);

// A type that is not numpy.ndarray, once it has been looked at.
struct ForeignType {
  PyTypeObject* type = nullptr;
  Kind kind = Kind::kOther;
  bool has_dlpack = false;
  const dlpack::ExchangeApi* api = nullptr;  // PyTorch's, or null
  bool has_is_neg = false;
  // The C functions behind torch.Tensor's requires_grad and is_neg; null: to be asked through the
  // interpreter.
  const PyGetSetDef* requires_grad = nullptr;
  PyCFunction is_neg = nullptr;
};
// A type that is not kept is described in `seen`.
const ForeignType& foreign_type(PyTypeObject* type, ForeignType& seen);

// numpy_array.cpp
void import_numpy();                                             // at module start; raises
bool is_numpy_array(PyObject* object);                           // an ndarray or an instance of a subclass
void read_numpy(Array& array, PyObject* object, Access access);  // is_numpy_array(object)
nb::object new_numpy_like(PyObject* prototype);                  // dtype and axis order of an ndarray
nb::object new_numpy(const int64_t* sizes, int32_t ndim, DType dtype);  // C order

// dlpack_array.cpp
void read_dlpack(Array& array, PyObject* object, Access access);
// Tells PyTorch that normkit has written to this tensor of its: autograd then sees that what it has saved of
// it, or of a view of it, is gone.
void count_torch_write(PyObject* tensor);

}  // namespace normkit::python

#endif  // NORMKIT_PYTHON_ARRAY_HPP_
