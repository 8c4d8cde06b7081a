// Everything that is no NumPy array: PyTorch through its C exchange table, the rest through __dlpack__.
//
// A producer may be wrong about everything. What can be seen from here is checked (names, versions, null
// pointers, ranks, sizes, devices, element types); that the memory is as long as the shape says cannot be.
#include <atomic>

#include "array.hpp"

namespace normkit::python {
namespace {

constexpr const char* kUnversioned = "dltensor";
constexpr const char* kUnversionedUsed = "used_dltensor";
constexpr const char* kVersioned = "dltensor_versioned";
constexpr const char* kVersionedUsed = "used_dltensor_versioned";

PyObject* intern(const char* text) {
  PyObject* name = PyUnicode_InternFromString(text);
  if (name == nullptr) nb::raise_python_error();
  return name;
}

// Made once, kept until the process ends.
struct Names {
  PyObject* dlpack = intern("__dlpack__");
  PyObject* dlpack_device = intern("__dlpack_device__");
  PyObject* exchange_api = intern("__dlpack_c_exchange_api__");
  PyObject* requires_grad = intern("requires_grad");
  PyObject* is_neg = intern("is_neg");
  PyObject* detach = intern("detach");
  PyObject* current_level = intern("_current_level");
  PyObject* max_version;
  // Keywords of __dlpack__.
  PyObject* version_keyword;
  PyObject* stream_keyword;
  PyObject* stream_and_version_keywords;

  Names() {
    max_version = Py_BuildValue("(II)", dlpack::kMajorVersion, dlpack::kMinorVersion);
    version_keyword = Py_BuildValue("(s)", "max_version");
    stream_keyword = Py_BuildValue("(s)", "stream");
    stream_and_version_keywords = Py_BuildValue("(ss)", "stream", "max_version");
    if (max_version == nullptr || version_keyword == nullptr || stream_keyword == nullptr ||
        stream_and_version_keywords == nullptr)
      nb::raise_python_error();
  }
};

const Names& names() {
  static const Names instance;
  return instance;
}

// A loaded module's attribute, or null; imports nothing.
nb::object attribute_of_loaded(const char* module_name, const char* attribute) {
  PyObject* module = PyDict_GetItemString(PyImport_GetModuleDict(), module_name);
  if (module == nullptr) return {};
  nb::object value = nb::steal(PyObject_GetAttrString(module, attribute));
  if (!value.is_valid()) PyErr_Clear();
  return value;
}

bool is_subtype(PyTypeObject* type, const char* module_name, const char* attribute) {
  const nb::object base = attribute_of_loaded(module_name, attribute);
  if (!base.is_valid() || !PyType_Check(base.ptr())) return false;
  const int result = PyObject_IsSubclass(reinterpret_cast<PyObject*>(type), base.ptr());
  if (result < 0) PyErr_Clear();
  return result > 0;
}

const dlpack::ExchangeApi* exchange_api(PyTypeObject* type) {
  const nb::object capsule =
      nb::steal(PyObject_GetAttr(reinterpret_cast<PyObject*>(type), names().exchange_api));
  if (!capsule.is_valid() || !PyCapsule_IsValid(capsule.ptr(), "dlpack_exchange_api")) {
    PyErr_Clear();
    return nullptr;
  }
  auto* header =
      static_cast<dlpack::ExchangeHeader*>(PyCapsule_GetPointer(capsule.ptr(), "dlpack_exchange_api"));
  while (header != nullptr && header->version.major > dlpack::kMajorVersion) header = header->previous;
  if (header == nullptr || header->version.major != dlpack::kMajorVersion) return nullptr;
  auto* api = reinterpret_cast<const dlpack::ExchangeApi*>(header);
  return api->borrow_from_object != nullptr ? api : nullptr;
}

// PyTorch's answers to two questions without a lookup and a call through the interpreter, which cost as much
// as the answers. A subclass that overrides them in Python, or a PyTorch that makes them otherwise, is asked
// in the ordinary way.
void find_questions(ForeignType& seen) {
  PyObject* type = reinterpret_cast<PyObject*>(seen.type);
  const nb::object requires_grad = nb::steal(PyObject_GetAttr(type, names().requires_grad));
  if (requires_grad.is_valid() && Py_IS_TYPE(requires_grad.ptr(), &PyGetSetDescr_Type))
    seen.requires_grad = reinterpret_cast<PyGetSetDescrObject*>(requires_grad.ptr())->d_getset;
  const nb::object is_neg = nb::steal(PyObject_GetAttr(type, names().is_neg));
  seen.has_is_neg = is_neg.is_valid();
  if (is_neg.is_valid() && Py_IS_TYPE(is_neg.ptr(), &PyMethodDescr_Type)) {
    const PyMethodDef* method = reinterpret_cast<PyMethodDescrObject*>(is_neg.ptr())->d_method;
    if (method->ml_flags == METH_NOARGS) seen.is_neg = method->ml_meth;
  }
  PyErr_Clear();
}

ForeignType look_at(PyTypeObject* type) {
  ForeignType seen;
  seen.type = type;
  seen.has_dlpack = PyObject_HasAttr(reinterpret_cast<PyObject*>(type), names().dlpack) != 0;
  if (is_subtype(type, "torch", "Tensor")) {
    seen.kind = Kind::kTorch;
    // Only PyTorch's own table is used: the functions trust that they are given one of its objects.
    seen.api = exchange_api(type);
    find_questions(seen);
  } else if (is_subtype(type, "jax", "Array")) {
    seen.kind = Kind::kJax;
  } else if (is_subtype(type, "cupy", "ndarray")) {
    seen.kind = Kind::kCupy;
  }
  return seen;
}

[[noreturn]] void raise_unreadable(const char* name, PyObject* object) {
  raise_from_current(PyExc_TypeError, "%s is %U, which could not be read as an array", name,
                     type_text(object).ptr());
}

bool call_bool(PyObject* result, const char* name, PyObject* object) {
  const nb::object owned = nb::steal(result);
  if (result == Py_False) return false;
  const int truth = owned.is_valid() ? PyObject_IsTrue(owned.ptr()) : -1;
  if (truth < 0) raise_unreadable(name, object);
  return truth != 0;
}

// Whether forward-mode automatic differentiation is on, and the tensor carries a tangent.
bool has_tangent(PyObject* object, const char* name) {
  static PyObject* const forward_ad = [] {  // its namespace, kept until the process ends
    const nb::object namespace_ = attribute_of_loaded("torch.autograd.forward_ad", "__dict__");
    return namespace_.is_valid() && PyDict_Check(namespace_.ptr()) ? Py_NewRef(namespace_.ptr()) : nullptr;
  }();
  if (forward_ad == nullptr) return false;
  PyObject* level = PyDict_GetItemWithError(forward_ad, names().current_level);
  if (level == nullptr || !PyLong_Check(level) || PyLong_AsLong(level) < 0) return false;
  const nb::object unpack = attribute_of_loaded("torch.autograd.forward_ad", "unpack_dual");
  const nb::object dual =
      unpack.is_valid() ? nb::steal(PyObject_CallOneArg(unpack.ptr(), object)) : nb::object();
  const nb::object tangent =
      dual.is_valid() ? nb::steal(PyObject_GetAttrString(dual.ptr(), "tangent")) : nb::object();
  if (!tangent.is_valid()) raise_unreadable(name, object);
  return !tangent.is_none();
}

// Memory alone does not say what a PyTorch tensor is: gradients that would be lost, backward or forward, and
// a lazy minus sign, which PyTorch's DLPack export drops.
void check_torch(const ForeignType& type, PyObject* object, const char* name) {
  PyObject* requires_grad = type.requires_grad != nullptr
                                ? type.requires_grad->get(object, type.requires_grad->closure)
                                : PyObject_GetAttr(object, names().requires_grad);
  if (call_bool(requires_grad, name, object)) {
    const nb::object grad_mode = attribute_of_loaded("torch", "is_grad_enabled");
    if (!grad_mode.is_valid() || call_bool(PyObject_CallNoArgs(grad_mode.ptr()), name, object))
      raise(PyExc_TypeError,
            "%s is a PyTorch tensor that requires grad, and normkit is not part of autograd; it should be "
            "detached "
            "(%s.detach()), or the call made under torch.no_grad()",
            name, name);
  }
  PyObject* is_neg = type.is_neg != nullptr ? type.is_neg(object, nullptr)
                     : type.has_is_neg      ? PyObject_CallMethodNoArgs(object, names().is_neg)
                                            : Py_NewRef(Py_False);
  if (call_bool(is_neg, name, object))
    raise(PyExc_TypeError,
          "%s is a PyTorch tensor with the negative bit set; it should be a resolved one (%s.resolve_neg())",
          name, name);
  if (has_tangent(object, name))
    raise(PyExc_TypeError,
          "%s is a PyTorch dual tensor, whose tangent would be lost: normkit is not part of autograd; it "
          "should be "
          "the primal alone (torch.autograd.forward_ad.unpack_dual(%s).primal)",
          name, name);
}

// Raises where the array does not lie with the others of its call.
void admit(const Array& array, const dlpack::Device& device) {
  if (dlpack::is_host(device.type)) {
    if (array.place != nullptr) array.place->admit_on_host(array);
    return;
  }
  if (!dlpack::is_cuda(device.type) || device.id < 0)
    raise(PyExc_ValueError, "%s is %U on DLPack device (%d, %d); it should be on the CPU", array.name,
          type_text(array.object).ptr(), static_cast<int>(device.type), static_cast<int>(device.id));
  if (array.place == nullptr) Place::raise_no_kernels(array, device.id);
  array.place->admit_on_device(array, device.id);
}

void set_dtype(Array& array, const dlpack::DataType& type) {
  if (type.lanes == 1) {
    if (type.code == dlpack::kFloat && (type.bits == 32 || type.bits == 64 || type.bits == 16)) {
      array.dtype = type.bits == 32 ? DType::kF32 : type.bits == 64 ? DType::kF64 : DType::kF16;
      return;
    }
    if (type.code == dlpack::kBfloat && type.bits == 16) {
      array.dtype = DType::kBF16;
      return;
    }
  }
  const char* kind = type.code == dlpack::kInt       ? "int"
                     : type.code == dlpack::kUInt    ? "uint"
                     : type.code == dlpack::kFloat   ? "float"
                     : type.code == dlpack::kComplex ? "complex"
                     : type.code == dlpack::kBool    ? "bool"
                                                     : nullptr;
  if (kind != nullptr && type.lanes == 1)
    raise(PyExc_TypeError, "%s has dtype %s%d; it should be float32, float64, float16 or bfloat16",
          array.name, kind, static_cast<int>(type.bits));
  raise(PyExc_TypeError,
        "%s has an element type that normkit does not know (DLPack code %d, %d bits, %d lanes); it should be "
        "float32, "
        "float64, float16 or bfloat16",
        array.name, static_cast<int>(type.code), static_cast<int>(type.bits), static_cast<int>(type.lanes));
}

// Reads a tensor that may be anything.
void take_tensor(Array& array, PyObject* object, const dlpack::Tensor& tensor) {
  admit(array, tensor.device);
  set_dtype(array, tensor.dtype);
  const char* broken = nullptr;
  if (tensor.ndim < 0 || tensor.ndim > kMaxRank) {
    broken = "a number of axes outside 0 .. 64";
  } else if (tensor.ndim > 0 && tensor.shape == nullptr) {
    broken = "no shape";
  }
  int64_t count = 1;
  const int64_t limit = INT64_MAX / size_of(array.dtype);
  bool empty = false;
  for (int32_t i = 0; broken == nullptr && i < tensor.ndim; ++i) {
    const int64_t size = tensor.shape[i];
    if (size < 0) {
      broken = "a negative size";
    } else if (size == 0) {
      empty = true;
    } else if (__builtin_mul_overflow(count, size, &count) || count > limit) {
      broken = "more elements than memory can hold";
    }
    array.sizes[i] = size;
  }
  if (empty) count = 0;
  if (broken == nullptr && count > 0 && tensor.data == nullptr) broken = "elements, but a null data pointer";
  if (broken != nullptr)
    raise(PyExc_ValueError, "%s is %U, whose DLPack tensor has %s", array.name, type_text(object).ptr(),
          broken);

  array.ndim = tensor.ndim;
  array.count = count;
  if (tensor.strides != nullptr) {
    for (int32_t i = 0; i < tensor.ndim; ++i) array.strides[i] = tensor.strides[i];
  } else {
    int64_t stride = 1;
    for (int32_t i = tensor.ndim - 1; i >= 0; --i) {
      array.strides[i] = stride;
      if (count > 0) stride *= array.sizes[i];
    }
  }
  // A span that no memory has is a lie that can be seen; a smaller one is not told from the truth.
  int64_t span = count > 0 ? limit - 1 : 0;
  for (int32_t i = 0; count > 0 && i < tensor.ndim; ++i) {
    int64_t reach;
    if (__builtin_mul_overflow(array.sizes[i] - 1, array.strides[i], &reach) || reach > span || reach < -span)
      raise(PyExc_ValueError,
            "%s is %U, whose DLPack tensor has stride %lld on axis %d, which reaches beyond memory",
            array.name, type_text(object).ptr(), static_cast<long long>(array.strides[i]),
            static_cast<int>(i));
    span -= reach < 0 ? -reach : reach;
  }
  // A pointer that is not null, so that "present" and "absent" stay apart where there are no elements.
  alignas(64) static unsigned char no_elements[64];
  array.data = count == 0 ? no_elements : static_cast<unsigned char*>(tensor.data) + tensor.byte_offset;
}

// `stream`: null on the host.
nb::object call_dlpack(PyObject* object, PyObject* stream) {
  const auto call = [&](PyObject* first, PyObject* second, PyObject* keywords) {
    PyObject* arguments[3] = {object, first, second};
    return nb::steal(
        PyObject_VectorcallMethod(names().dlpack, arguments, 1 | PY_VECTORCALL_ARGUMENTS_OFFSET, keywords));
  };
  PyObject* const version = names().max_version;
  nb::object capsule = stream != nullptr ? call(stream, version, names().stream_and_version_keywords)
                                         : call(version, nullptr, names().version_keyword);
  if (!capsule.is_valid() && PyErr_ExceptionMatches(PyExc_TypeError)) {
    // A producer from before DLPack 1.0 takes no max_version.
    PyErr_Clear();
    capsule = stream != nullptr ? call(stream, nullptr, names().stream_keyword)
                                : nb::steal(PyObject_CallMethodNoArgs(object, names().dlpack));
  }
  return capsule;
}

dlpack::Device device_of(PyObject* object, const char* name) {
  const nb::object answer = nb::steal(PyObject_CallMethodNoArgs(object, names().dlpack_device));
  if (!answer.is_valid()) raise_unreadable(name, object);
  dlpack::Device device{0, 0};
  if (!PyTuple_Check(answer.ptr()) || PyTuple_GET_SIZE(answer.ptr()) != 2)
    raise(PyExc_TypeError, "%s is %U, whose __dlpack_device__() returned %R; it should be a pair of integers",
          name, type_text(object).ptr(), answer.ptr());
  const long type = PyLong_AsLong(PyTuple_GET_ITEM(answer.ptr(), 0));
  const long id = type == -1 && PyErr_Occurred() ? -1 : PyLong_AsLong(PyTuple_GET_ITEM(answer.ptr(), 1));
  if (PyErr_Occurred()) raise_unreadable(name, object);
  device.type = static_cast<int32_t>(type);
  device.id = static_cast<int32_t>(id);
  if (type != device.type || id != device.id)
    raise(PyExc_ValueError, "%s is %U, whose __dlpack_device__() returned %R; it should be a device", name,
          type_text(object).ptr(), answer.ptr());
  return device;
}

nb::ft_mutex known_mutex;
ForeignType known[32];
std::atomic<int> known_count{0};

// PyTorch's own ways to count a write that it has not made; null where it has none of the name.
struct VersionCounter {
  PyObject* of_all = nullptr;  // of an iterable; behind the public one, at half its price
  PyObject* of_one = nullptr;
};

const VersionCounter& version_counter() {
  static const VersionCounter counter{
      attribute_of_loaded("torch._C", "_increment_version").release().ptr(),
      attribute_of_loaded("torch.autograd.graph", "increment_version").release().ptr()};
  return counter;
}

// What PyTorches without increment_version can do: clear no elements of the tensor.
nb::object clear_nothing(PyObject* tensor) {
  const nb::object none = nb::steal(PyObject_CallMethod(tensor, "as_strided", "(i)(i)", 0, 1));
  return none.is_valid() ? nb::steal(PyObject_CallMethod(none.ptr(), "zero_", nullptr)) : nb::object();
}

}  // namespace

void count_torch_write(PyObject* tensor) {
  const VersionCounter& counter = version_counter();
  if (counter.of_all != nullptr) {
    const nb::object all = nb::steal(PyTuple_Pack(1, tensor));
    if (all.is_valid() && nb::steal(PyObject_CallOneArg(counter.of_all, all.ptr())).is_valid()) return;
    PyErr_Clear();  // it is PyTorch's own affair, and once took one tensor
  }
  const nb::object done = counter.of_one != nullptr ? nb::steal(PyObject_CallOneArg(counter.of_one, tensor))
                                                    : clear_nothing(tensor);
  if (done.is_valid()) return;
  // A tensor made under torch.inference_mode() has no version, which older PyTorches answer with an error. No
  // other one may take the place of a result that is written.
  PyErr_Clear();
}

const ForeignType& foreign_type(PyTypeObject* type, ForeignType& seen) {
  const int count = known_count.load(std::memory_order_acquire);
  for (int i = 0; i < count; ++i) {
    if (known[i].type == type) return known[i];
  }
  seen = look_at(type);
  // Only types that will come again are kept, and kept alive, so that no other type can take their address.
  if (seen.kind != Kind::kOther) {
    nb::ft_lock_guard guard(known_mutex);
    const int next = known_count.load(std::memory_order_relaxed);
    if (next < static_cast<int>(sizeof known / sizeof known[0])) {
      Py_INCREF(reinterpret_cast<PyObject*>(type));
      known[next] = seen;
      known_count.store(next + 1, std::memory_order_release);
    }
  }
  return seen;
}

const dlpack::Tensor* Lease::take(PyObject* capsule, uint64_t* flags) {
  reset();
  *flags = 0;
  if (PyCapsule_IsValid(capsule, kVersioned)) {
    auto* managed = static_cast<dlpack::ManagedTensorVersioned*>(PyCapsule_GetPointer(capsule, kVersioned));
    if (PyCapsule_SetName(capsule, kVersionedUsed) != 0) nb::raise_python_error();
    versioned_ = managed;
    if (managed->version.major != dlpack::kMajorVersion) return nullptr;
    *flags = managed->flags;
    return &managed->tensor;
  }
  if (PyCapsule_IsValid(capsule, kUnversioned)) {
    managed_ = static_cast<dlpack::ManagedTensor*>(PyCapsule_GetPointer(capsule, kUnversioned));
    if (PyCapsule_SetName(capsule, kUnversionedUsed) != 0) nb::raise_python_error();
    return &managed_->tensor;
  }
  return nullptr;
}

void Lease::reset() {
  if (managed_ == nullptr && versioned_ == nullptr) return;
  // Deleters run other people's code, which must not see or replace an error that is on its way out.
  const KeepError keep;
  if (managed_ != nullptr && managed_->deleter != nullptr) managed_->deleter(managed_);
  if (versioned_ != nullptr && versioned_->deleter != nullptr) versioned_->deleter(versioned_);
  managed_ = nullptr;
  versioned_ = nullptr;
}

void read_dlpack(Array& array, PyObject* object, Access access) {
  const char* name = array.name;
  ForeignType seen;
  const ForeignType& type = foreign_type(Py_TYPE(object), seen);
  array.kind = type.kind;
  if (!type.has_dlpack)
    raise(PyExc_TypeError,
          "%s is %U; it should be a NumPy array, a PyTorch tensor, a JAX array or another array with "
          "__dlpack__",
          name, type_text(object).ptr());
  if (type.kind == Kind::kJax && access == Access::kWrite)
    raise(PyExc_TypeError,
          "%s is a JAX array, which is immutable; leave it out and take the result that is returned "
          "(return_stats for "
          "saved statistics, Moments for running ones)",
          name);

  nb::object detached;
  if (type.kind == Kind::kTorch) {
    check_torch(type, object, name);
    if (type.api != nullptr) {
      dlpack::Tensor tensor{};
      if (type.api->borrow_from_object(object, &tensor) != 0) raise_unreadable(name, object);
      // Another library's stream has to wait for PyTorch's, which __dlpack__ sees to.
      if (!dlpack::is_cuda(tensor.device.type) || array.place == nullptr ||
          array.place->shares_stream_of(type.kind)) {
        take_tensor(array, object, tensor);
        return;
      }
    }
    // Without the exchange table: __dlpack__ refuses a tensor that requires grad, whatever the grad mode.
    detached = nb::steal(PyObject_CallMethodNoArgs(object, names().detach));
    if (!detached.is_valid()) raise_unreadable(name, object);
  }

  PyObject* source = detached.is_valid() ? detached.ptr() : object;
  admit(array, device_of(source, name));
  const bool on_device = array.place != nullptr && array.place->on_device();
  const nb::object stream =
      on_device ? nb::steal(PyLong_FromUnsignedLongLong(array.place->stream())) : nb::object();
  if (on_device && !stream.is_valid()) nb::raise_python_error();
  const nb::object capsule = call_dlpack(source, stream.ptr());
  if (!capsule.is_valid()) raise_unreadable(name, object);
  uint64_t flags = 0;
  const dlpack::Tensor* tensor = array.lease.take(capsule.ptr(), &flags);
  if (tensor == nullptr)
    raise(PyExc_TypeError,
          "%s is %U, whose __dlpack__() returned %R; it should be a fresh DLPack capsule of version 0 or 1",
          name, type_text(object).ptr(), capsule.ptr());
  take_tensor(array, object, *tensor);
  if (access == Access::kWrite && (flags & dlpack::kFlagReadOnly) != 0)
    raise(PyExc_ValueError, "%s is a read-only array; it should be writable", name);
  if (access == Access::kWrite && (flags & dlpack::kFlagIsCopied) != 0)
    raise(PyExc_ValueError,
          "%s is %U, which hands out copies of its memory; it should give access to the memory itself", name,
          type_text(object).ptr());
}

}  // namespace normkit::python
