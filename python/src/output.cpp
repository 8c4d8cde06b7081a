#include "output.hpp"

#include <algorithm>
#include <cstring>
#include <memory>
#include <vector>

#include "memory.hpp"

namespace normkit::python {
namespace {

class Memory {
 public:
  explicit Memory(size_t bytes) : data_(allocate_output(bytes)) {
    if (data_ == nullptr) throw std::bad_alloc();
  }
  Memory(const Memory&) = delete;
  Memory& operator=(const Memory&) = delete;
  ~Memory() { release_output(data_); }
  void* data() const { return data_; }

 private:
  void* data_;
};

// C-contiguous memory with __dlpack__.
struct Buffer {
  std::shared_ptr<Memory> memory;
  DType dtype = DType::kF32;
  std::vector<int64_t> sizes, strides;
};

// What a capsule points to: keeps memory and shape alive until the consumer calls the deleter.
template <class Managed>
struct Export {
  Buffer buffer;
  Managed managed{};

  static void release(Managed* managed) { delete static_cast<Export*>(managed->context); }

  template <int used_name>
  static void drop_capsule(PyObject* capsule);
};

dlpack::DataType dlpack_type(DType dtype) {
  return {static_cast<uint8_t>(dtype == DType::kBF16 ? dlpack::kBfloat : dlpack::kFloat),
          static_cast<uint8_t>(8 * size_of(dtype)), 1};
}

template <class Managed>
nb::object export_capsule(const Buffer& buffer, const char* name) {
  auto owner = std::make_unique<Export<Managed>>();
  owner->buffer = buffer;
  Managed& managed = owner->managed;
  managed.context = owner.get();
  managed.deleter = &Export<Managed>::release;
  dlpack::Tensor& tensor = managed.tensor;
  tensor.data = buffer.memory->data();
  tensor.device = {dlpack::kCpu, 0};
  tensor.ndim = static_cast<int32_t>(buffer.sizes.size());
  tensor.dtype = dlpack_type(buffer.dtype);
  tensor.shape = owner->buffer.sizes.data();
  tensor.strides = owner->buffer.strides.data();
  if constexpr (std::is_same_v<Managed, dlpack::ManagedTensorVersioned>)
    managed.version = {dlpack::kMajorVersion, dlpack::kMinorVersion};
  // A consumer renames the capsule that it has taken; the other ones are ours to free.
  PyObject* capsule = PyCapsule_New(&managed, name, [](PyObject* self) {
    const char* current = PyCapsule_GetName(self);
    if (current != nullptr && current[0] == 'd') {
      auto* unused = static_cast<Managed*>(PyCapsule_GetPointer(self, current));
      unused->deleter(unused);
    }
  });
  if (capsule == nullptr) nb::raise_python_error();
  (void)owner.release();
  return nb::steal(capsule);
}

nb::object buffer_dlpack(const Buffer& self, const nb::kwargs& keywords) {
  PyObject* max_version = PyDict_GetItemString(keywords.ptr(), "max_version");
  if (max_version != nullptr && PyTuple_Check(max_version) && PyTuple_GET_SIZE(max_version) > 0 &&
      PyLong_AsLong(PyTuple_GET_ITEM(max_version, 0)) >= 1)
    return export_capsule<dlpack::ManagedTensorVersioned>(self, "dltensor_versioned");
  if (PyErr_Occurred()) nb::raise_python_error();
  return export_capsule<dlpack::ManagedTensor>(self, "dltensor");
}

nb::object checked(PyObject* object) {
  if (object == nullptr) nb::raise_python_error();
  return nb::steal(object);
}

nb::object module_attribute(const char* module_name, const char* attribute) {
  const nb::object module = checked(PyImport_ImportModule(module_name));
  return checked(PyObject_GetAttrString(module.ptr(), attribute));
}

// JAX without jax_enable_x64 has no float64: statistics are NumPy arrays then, rather than rounded.
bool jax_lacks(DType dtype) {
  if (dtype != DType::kF64) return false;
  const nb::object config = module_attribute("jax", "config");
  const nb::object enabled = checked(PyObject_GetAttrString(config.ptr(), "jax_enable_x64"));
  return PyObject_IsTrue(enabled.ptr()) == 0;
}

// The from_dlpack of the library that x belongs to, or nothing.
nb::object importer(const Array& x) {
  if (x.kind == Kind::kJax) return module_attribute("jax.dlpack", "from_dlpack");
  nb::object space = nb::steal(PyObject_CallMethod(x.object, "__array_namespace__", nullptr));
  nb::object function =
      space.is_valid() ? nb::steal(PyObject_GetAttrString(space.ptr(), "from_dlpack")) : nb::object();
  PyErr_Clear();
  return function;
}

nb::object torch_empty(DType dtype, const int64_t* sizes, int32_t ndim) {
  nb::object shape = checked(PyTuple_New(ndim));
  for (int32_t i = 0; i < ndim; ++i)
    PyTuple_SET_ITEM(shape.ptr(), i, checked(PyLong_FromLongLong(sizes[i])).release().ptr());
  const nb::object arguments = checked(PyTuple_Pack(1, shape.ptr()));
  const nb::object type = module_attribute("torch", dtype_name(dtype));
  const nb::object keywords = checked(Py_BuildValue("{sOss}", "dtype", type.ptr(), "device", "cpu"));
  return checked(PyObject_Call(module_attribute("torch", "empty").ptr(), arguments.ptr(), keywords.ptr()));
}

void set_memory(Array& array, const Array& prototype, DType dtype, const int64_t* sizes, int32_t ndim) {
  array.kind = prototype.kind;
  array.dtype = dtype;
  array.ndim = ndim;
  int64_t count = 1;
  for (int32_t i = ndim - 1; i >= 0; --i) {
    array.sizes[i] = sizes[i];
    array.strides[i] = count;
    count *= sizes[i];
  }
  array.count = count;
}

// Whether the elements fill one range of memory, each place once.
bool is_dense(const Array& x) {
  int32_t axes[kMaxRank];
  int32_t count = 0;
  for (int32_t i = 0; i < x.ndim; ++i) {
    if (x.sizes[i] == 1) continue;
    int32_t at = count++;
    for (; at > 0 && x.strides[axes[at - 1]] > x.strides[i]; --at) axes[at] = axes[at - 1];
    axes[at] = i;
  }
  int64_t expected = 1;
  for (int32_t k = 0; k < count; ++k) {
    if (x.strides[axes[k]] != expected) return false;
    expected *= x.sizes[axes[k]];
  }
  return true;
}

}  // namespace

void Operand::use(PyObject* object, const char* name) {
  output = true;
  used = true;
  array.read(object, name, Access::kWrite);
  result = nb::borrow(object);
}

// In a fraction of the time of torch.empty; false if that is not to be had.
bool Operand::make_torch(PyTypeObject* prototype, DType dtype, const int64_t* sizes, const int64_t* strides,
                         int32_t ndim) {
  ForeignType seen;
  const dlpack::ExchangeApi* api = foreign_type(prototype, seen).api;
  if (api == nullptr) return false;
  set_memory(array, array, dtype, sizes, ndim);
  const size_t axes_bytes = static_cast<size_t>(ndim) * sizeof(int64_t);
  if (strides != nullptr) std::memcpy(array.strides, strides, axes_bytes);
  // What the tensor refers to lies in front of its elements.
  const size_t front = sizeof(dlpack::ManagedTensorVersioned) + 2 * axes_bytes;
  array.data = allocate_output(static_cast<size_t>(array.count * size_of(dtype)), front);
  if (array.data == nullptr) throw std::bad_alloc();
  auto* managed = static_cast<dlpack::ManagedTensorVersioned*>(front_of(array.data, front));
  auto* shape = reinterpret_cast<int64_t*>(managed + 1);
  std::memcpy(shape, array.sizes, axes_bytes);
  std::memcpy(shape + ndim, array.strides, axes_bytes);
  managed->version = {dlpack::kMajorVersion, dlpack::kMinorVersion};
  managed->context = array.data;
  managed->deleter = [](dlpack::ManagedTensorVersioned* self) { release_output(self->context); };
  managed->flags = 0;
  managed->tensor = {array.data, {dlpack::kCpu, 0}, ndim, dlpack_type(dtype), shape, shape + ndim, 0};
  void* object = nullptr;
  if (api->object_from_managed(managed, &object) != 0 || object == nullptr) {
    PyErr_Clear();  // whether the memory was taken is unknown: better lost than freed twice
    return false;
  }
  result = nb::steal(static_cast<PyObject*>(object));
  array.object = result.ptr();
  array.kind = Kind::kTorch;
  return true;
}

void Operand::make_like(const Array& prototype, const char* name) {
  const Array& x = prototype;
  output = true;
  array.name = name;
  if (array.place != nullptr && array.place->on_device())
    return take(array.place->empty_like(x.object), name);
  switch (x.kind) {
    case Kind::kNumpy:
      result = new_numpy_like(x.object);
      break;
    case Kind::kTorch: {
      const bool c_order = x.is_c_contiguous();
      if ((c_order || is_dense(x)) &&
          make_torch(Py_TYPE(x.object), x.dtype, x.sizes, c_order ? nullptr : x.strides, x.ndim))
        return;
      result = checked(PyObject_CallOneArg(module_attribute("torch", "empty_like").ptr(), x.object));
      break;
    }
    default:
      make(x, name, x.dtype, x.sizes, x.ndim);
      return;
  }
  array.read(result.ptr(), name, Access::kWrite);
}

void Operand::take(nb::object made, const char* name) {
  output = true;
  result = std::move(made);
  array.read(result.ptr(), name, Access::kWrite);
}

void Operand::make_on_device(const char* name, DType dtype, const int64_t* sizes, int32_t ndim) {
  take(array.place->empty(dtype_name(dtype), sizes, ndim), name);
}

void Operand::make(const Array& prototype, const char* name, DType dtype, const int64_t* sizes,
                   int32_t ndim) {
  const Array& x = prototype;
  if (array.place != nullptr && array.place->on_device()) return make_on_device(name, dtype, sizes, ndim);
  output = true;
  array.name = name;
  if (x.kind == Kind::kTorch) {
    if (make_torch(Py_TYPE(x.object), dtype, sizes, nullptr, ndim)) return;
    result = torch_empty(dtype, sizes, ndim);
  } else if (x.kind == Kind::kNumpy || (x.kind == Kind::kJax && jax_lacks(dtype)) ||
             (x.kind == Kind::kOther && !importer(x).is_valid())) {
    result = new_numpy(sizes, ndim, dtype);
  } else {
    set_memory(array, x, dtype, sizes, ndim);
    Buffer buffer;
    buffer.memory = std::make_shared<Memory>(static_cast<size_t>(array.count * size_of(dtype)));
    buffer.dtype = dtype;
    buffer.sizes.assign(array.sizes, array.sizes + ndim);
    buffer.strides.assign(array.strides, array.strides + ndim);
    array.data = buffer.memory->data();
    result = nb::cast(std::move(buffer));
    array.object = result.ptr();
    handed_over = true;
    return;
  }
  array.read(result.ptr(), name, Access::kWrite);
}

void Operand::fill_with_negative_zeros() {
  if (array.place != nullptr && array.place->on_device())
    return take(array.place->negative_zeros(dtype_name(array.dtype), array.sizes, array.ndim), array.name);
  const auto fill = [&](auto sign) {
    auto* at = static_cast<decltype(sign)*>(array.data);
    std::fill(at, at + array.count, sign);
  };
  if (size_of(array.dtype) == 8)
    fill(uint64_t(1) << 63);
  else if (size_of(array.dtype) == 4)
    fill(uint32_t(1) << 31);
  else
    fill(uint16_t(1 << 15));
}

void Operand::make_numpy(const char* name, const int64_t* sizes, int32_t ndim) {
  output = true;
  array.name = name;
  result = new_numpy(sizes, ndim, DType::kF64);
  array.read(result.ptr(), name, Access::kWrite);
}

nb::object Operand::finish(const Array& prototype) {
  if (!handed_over) return std::move(result);
  const nb::object from_dlpack = importer(prototype);
  return checked(PyObject_CallOneArg(from_dlpack.ptr(), result.ptr()));
}

void add_buffer_type(nb::module_& module) {
  nb::class_<Buffer>(module, "_Buffer", "Memory on its way to another array library (DLPack).")
      .def("__dlpack__", &buffer_dlpack)
      .def("__dlpack_device__",
           [](const Buffer&) { return nb::make_tuple(static_cast<int>(dlpack::kCpu), 0); });
}

}  // namespace normkit::python
