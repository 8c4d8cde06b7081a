// Arrays that normkit makes to return: of the kind that came in.
//
//   NumPy      numpy arrays (also for arrays of a library that offers no from_dlpack)
//   PyTorch    torch.Tensor on memory of ours, made through PyTorch's exchange table
//   JAX, ...   memory that is written first and then handed over through DLPack
//   on a CUDA device   what x's library lends (place.hpp)
//
// Where that memory comes from: memory.hpp.
#ifndef NORMKIT_PYTHON_OUTPUT_HPP_
#define NORMKIT_PYTHON_OUTPUT_HPP_

#include "array.hpp"

namespace normkit::python {

// One array of a call: what the caller passed, or, for outputs, what will be returned.
struct Operand {
  Array array;
  nb::object result;  // outputs only: the array to return, or the buffer that finish() turns into it
  bool output = false;
  bool used = false;         // an output that the caller has passed
  bool in_place = false;     // an input and an output with this may be the very same view
  bool handed_over = false;  // result is a buffer for DLPack
  int64_t
      ordered[kMaxRank];  // strides in the order of the operation's axes, where that differs from the array's

  Operand() {}

  // Takes the array that the caller wants written.
  void use(PyObject* object, const char* name);
  // Makes an array of prototype's kind, dtype, shape and axis order.
  void make_like(const Array& prototype, const char* name);
  // Makes a C-contiguous array of prototype's kind.
  void make(const Array& prototype, const char* name, DType dtype, const int64_t* sizes, int32_t ndim);
  // Fills a C-contiguous array that make() has made.
  void fill_with_negative_zeros();
  // Makes a C-contiguous array on the device of array.place.
  void make_on_device(const char* name, DType dtype, const int64_t* sizes, int32_t ndim);
  // Makes a C-contiguous float64 NumPy array.
  void make_numpy(const char* name, const int64_t* sizes, int32_t ndim);
  // The array to return, once it is written.
  nb::object finish(const Array& prototype);

 private:
  // Takes what a library has made.
  void take(nb::object made, const char* name);
  // strides: null for C order.
  bool make_torch(PyTypeObject* prototype, DType dtype, const int64_t* sizes, const int64_t* strides,
                  int32_t ndim);
};

// Defines the type of the buffers that carry results to JAX.
void add_buffer_type(nb::module_& module);

}  // namespace normkit::python

#endif  // NORMKIT_PYTHON_OUTPUT_HPP_
