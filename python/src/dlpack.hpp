// The part of DLPack's binary interface (version 1.x) that normkit speaks, written from its specification.
//
// Three ways in: a capsule "dltensor_versioned" (1.0 and later) or "dltensor" (before) from __dlpack__(), and
// the C function table that a type may offer as __dlpack_c_exchange_api__ (1.3), which borrows without a
// capsule.
#ifndef NORMKIT_PYTHON_DLPACK_HPP_
#define NORMKIT_PYTHON_DLPACK_HPP_

#include <cstdint>

namespace normkit::python::dlpack {

constexpr uint32_t kMajorVersion = 1;
constexpr uint32_t kMinorVersion = 1;

enum DeviceType : int32_t { kCpu = 1, kCuda = 2, kCudaHost = 3, kRocmHost = 11, kCudaManaged = 13 };
enum TypeCode : uint8_t { kInt = 0, kUInt = 1, kFloat = 2, kBfloat = 4, kComplex = 5, kBool = 6 };

struct Device {
  int32_t type;
  int32_t id;
};

struct DataType {
  uint8_t code;
  uint8_t bits;
  uint16_t lanes;
};

struct Tensor {
  void* data;
  Device device;
  int32_t ndim;
  DataType dtype;
  int64_t* shape;
  int64_t* strides;  // in elements; null: C-contiguous (before 1.2)
  uint64_t byte_offset;
};

struct ManagedTensor {
  Tensor tensor;
  void* context;
  void (*deleter)(ManagedTensor*);
};

struct Version {
  uint32_t major;
  uint32_t minor;
};

constexpr uint64_t kFlagReadOnly = 1;
constexpr uint64_t kFlagIsCopied = 2;

struct ManagedTensorVersioned {
  Version version;
  void* context;
  void (*deleter)(ManagedTensorVersioned*);
  uint64_t flags;
  Tensor tensor;
};

struct ExchangeHeader {
  Version version;
  ExchangeHeader* previous;
};

// Functions return 0, or -1 with a Python error set (the allocator reports through its callback instead).
struct ExchangeApi {
  ExchangeHeader header;
  int (*allocate)(Tensor* prototype, ManagedTensorVersioned** out, void* error_context,
                  void (*set_error)(void* error_context, const char* kind, const char* message));
  int (*managed_from_object)(void* object, ManagedTensorVersioned** out);
  int (*object_from_managed)(ManagedTensorVersioned* tensor, void** object);
  int (*borrow_from_object)(void* object, Tensor* out);  // may be null
  int (*current_work_stream)(int32_t device_type, int32_t device_id, void** stream);
};

// Memory that the processor may read and write like its own.
constexpr bool is_host(int32_t device_type) {
  return device_type == kCpu || device_type == kCudaHost || device_type == kRocmHost;
}

// Memory that belongs to a CUDA device. The processor may reach managed memory too, but only between kernels.
constexpr bool is_cuda(int32_t device_type) {
  return device_type == kCuda || device_type == kCudaManaged;
}

}  // namespace normkit::python::dlpack

#endif  // NORMKIT_PYTHON_DLPACK_HPP_
