// Where the arrays of one call lie: all on the host, or all on one CUDA device.
//
// The first array that is read decides (x). If it lies on a device, its library's current stream there is
// what the kernels are enqueued on, and its library lends the memory of results and workspace; until the call
// ends the device is the thread's current one. Nothing waits for the device; but where other libraries lent
// arrays, whose streams know nothing of this one, the call ends when its kernels have.
//
// DLPack's rules for streams: each array is asked for with __dlpack__(stream=), so that what its own library
// has enqueued comes first. Its handle is that stream's cudaStream_t; 0 is not allowed, 1 is the legacy
// default stream, which cudaStream_t knows by the same number (cudaStreamLegacy).
#ifndef NORMKIT_PYTHON_PLACE_HPP_
#define NORMKIT_PYTHON_PLACE_HPP_

#include <cstdint>

#include "errors.hpp"
#include "normkit/types.hpp"

namespace normkit::python {

struct Array;
enum class Kind : uint8_t;

// Where the kernels of an operation are.
enum class Kernels : uint8_t { kHost, kHostAndCuda };

class Place {
 public:
  explicit Place(Kernels kernels) : kernels_(kernels) {}
  Place(const Place&) = delete;
  Place& operator=(const Place&) = delete;
  ~Place() {
    if (device_before_ >= 0) leave();
  }

  bool on_device() const { return device_ >= 0; }
  int32_t device() const { return device_; }
  uintptr_t stream() const { return stream_; }
  // Whether arrays of other libraries than x's take part.
  bool has_guests() const { return has_guests_; }
  // Whether the array's library enqueues its work on the very stream of the call.
  bool shares_stream_of(Kind kind) const { return device_ < 0 || kind == kind_; }

  // Raise where the array does not belong with the arrays before it, or cannot be used where it lies.
  void admit_on_host(const Array& array) {
    if (device_ != kHost) decide_host(array);
  }
  void admit_on_device(const Array& array, int32_t device);

  // On the device, from x's library.
  nb::object empty(const char* dtype, const int64_t* sizes, int32_t ndim) const;
  nb::object negative_zeros(const char* dtype, const int64_t* sizes, int32_t ndim) const;
  nb::object empty_like(PyObject* array) const;  // its dtype and axis order

  [[noreturn]] static void raise_no_kernels(const Array& array, int32_t device);

 private:
  static constexpr int32_t kHost = -1, kUndecided = -2;

  void decide_host(const Array& array);
  void decide_device(const Array& array, int32_t device);
  void leave();

  Kernels kernels_;
  Kind kind_{};
  bool has_guests_ = false;
  int32_t device_ = kUndecided;
  int32_t device_before_ = -1;   // to be made current again
  const char* first_ = nullptr;  // the name of the array that decided
  uintptr_t stream_ = 0;
  nb::object lender_;  // of memory: _libraries.Lender
};

}  // namespace normkit::python

#endif  // NORMKIT_PYTHON_PLACE_HPP_
