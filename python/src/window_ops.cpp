// local_response_norm and its gradient: arguments, axis order and docstrings.
#include "call.hpp"
#include "normkit/normkit.hpp"
#include "ops.hpp"
#include "signature.hpp"

namespace normkit::python {
namespace {

// An integer, or ValueError/TypeError that names the argument.
int64_t integer_argument(PyObject* object, const char* name) {
  const nb::object index = nb::steal(PyBool_Check(object) ? nullptr : PyNumber_Index(object));
  if (!index.is_valid()) {
    PyErr_Clear();
    raise(PyExc_TypeError, "%s is %R; it should be an integer", name, object);
  }
  int overflow = 0;
  const long long value = PyLong_AsLongLongAndOverflow(index.ptr(), &overflow);
  if (overflow != 0) raise(PyExc_ValueError, "%s is %R, which does not fit 64 bits", name, object);
  return value;
}

// Operands of x's shape, in the order N, C, space: axis `channel_axis` of x comes second.
class WindowCall : public Call {
 public:
  WindowCall(PyObject* x, PyObject* channel_axis) {
    Operand& o = add();
    o.in_place = true;
    o.array.read(x, "x", Access::kRead);
    const int32_t rank = o.array.ndim;
    if (rank < 2)
      raise(PyExc_ValueError, "x has shape %U; it should have at least 2 axes, N and C",
            shape_text(o.array).ptr());
    const int64_t named = channel_axis == nullptr ? 1 : integer_argument(channel_axis, "channel_axis");
    const int64_t axis = named < 0 ? named + rank : named;
    if (axis < 1 || axis >= rank)
      raise(PyExc_ValueError,
            "channel_axis is %lld; it should be an axis of x, which has %d, other than the first",
            static_cast<long long>(named), static_cast<int>(rank));
    axes_[0] = 0;
    axes_[1] = static_cast<int32_t>(axis);
    for (int32_t a = 1, place = 2; a < rank; ++a)
      if (a != axis) axes_[place++] = a;
    for (int32_t i = 0; i < rank; ++i) sizes_[i] = o.array.sizes[axes_[i]];
    shape_.rank = rank;
    shape_.size = sizes_;
  }

  const Array& x() const { return operand(0).array; }
  const ChannelsShape& shape() const { return shape_; }
  ConstView x_view() { return {x().data, x().dtype, ordered(operand(0))}; }

  ConstView same_as_x(PyObject* argument, const char* name) {
    Operand& o = add();
    o.in_place = true;
    o.array.read(argument, name, Access::kRead);
    check(o.array);
    return {o.array.data, o.array.dtype, ordered(o)};
  }

  View result_like_x(PyObject* argument, const char* name, Operand** result) {
    Operand& o = add();
    if (given(argument)) {
      o.use(argument, name);
      check(o.array);
    } else {
      o.make_like(x(), name);
    }
    *result = &o;
    return {o.array.data, o.array.dtype, ordered(o)};
  }

 private:
  void check(const Array& array) const {
    if (array.dtype != x().dtype)
      raise(PyExc_TypeError, "%s has dtype %s; it should have x's, %s", array.name, dtype_name(array.dtype),
            dtype_name(x().dtype));
    bool equal = array.ndim == x().ndim;
    for (int32_t i = 0; equal && i < array.ndim; ++i) equal = array.sizes[i] == x().sizes[i];
    if (!equal)
      raise(PyExc_ValueError, "%s has shape %U; it should have shape %U, like x", array.name,
            shape_text(array).ptr(), shape_text(x()).ptr());
  }

  const int64_t* ordered(Operand& o) const {
    for (int32_t i = 0; i < shape_.rank; ++i) o.ordered[i] = o.array.strides[axes_[i]];
    return o.ordered;
  }

  ChannelsShape shape_;
  int32_t axes_[kMaxRank];
  int64_t sizes_[kMaxRank];
};

// size, alpha, beta, k, as they follow each other in both signatures.
template <class Args>
void read_window(Args& args, PyObject* const* slots) {
  args.size = integer_argument(slots[0], "size");
  if (args.size < 1)
    raise(PyExc_ValueError, "size is %lld; it should be at least 1", static_cast<long long>(args.size));
  args.alpha = number_argument(slots[1], "alpha", args.alpha);
  args.beta = number_argument(slots[2], "beta", args.beta);
  args.k = number_argument(slots[3], "k", args.k);
}

// Where the operation refuses a number that is no NaN, it is beta.
template <class Args>
void check_beta(const Args& args, PyObject* beta) {
  if (args.beta != 0.25 && args.beta != 0.5 && args.beta != 0.75 && args.beta != 1.0)
    raise(PyExc_ValueError, "beta is %R; it should be 0.25, 0.5, 0.75 or 1.0: others are not supported yet",
          beta);
}

constexpr const char* kLocalResponseNorm =
    "local_response_norm(x, size, alpha=0.0001, beta=0.75, k=1.0, *, channel_axis=1, out=None)";

PyObject* local_response_norm_call(PyObject* const* slots) {
  enum { kX, kSize, kAlpha, kBeta, kK, kChannelAxis, kOut };
  WindowCall call(slots[kX], slots[kChannelAxis]);
  LocalResponseNormArgs args;
  Operand* y;
  args.x = call.x_view();
  read_window(args, slots + kSize);
  check_beta(args, slots[kBeta]);
  args.y = call.result_like_x(slots[kOut], "out", &y);
  call.run(call.shape(), args, &local_response_norm_workspace_bytes, &local_response_norm_plan);
  return y->finish(call.x()).release().ptr();
}

constexpr const char* kLocalResponseNormBackward =
    "local_response_norm_backward(dy, x, size, alpha=0.0001, beta=0.75, k=1.0, *, channel_axis=1, "
    "dx_out=None)";

PyObject* local_response_norm_backward_call(PyObject* const* slots) {
  enum { kDy, kX, kSize, kAlpha, kBeta, kK, kChannelAxis, kDxOut };
  WindowCall call(slots[kX], slots[kChannelAxis]);
  LocalResponseNormBackwardArgs args;
  Operand* dx;
  args.x = call.x_view();
  args.dy = call.same_as_x(slots[kDy], "dy");
  read_window(args, slots + kSize);
  check_beta(args, slots[kBeta]);
  args.dx = call.result_like_x(slots[kDxOut], "dx_out", &dx);
  call.run(call.shape(), args, &local_response_norm_backward_workspace_bytes,
           &local_response_norm_backward_plan);
  return result_tuple(call.x(), &dx, 1);
}

#define NORMKIT_DOC_WINDOW                                                                                  \
  "x : array\n"                                                                                             \
  "    Shape (N, C, ...) with any further axes, or with C where `channel_axis` says. NumPy array, PyTorch " \
  "CPU\n"                                                                                                   \
  "    tensor, JAX CPU array or any CPU array with ``__dlpack__``, in float32, float64, float16 or "        \
  "bfloat16,\n"                                                                                             \
  "    with any strides.\n"                                                                                 \
  "size : int\n"                                                                                            \
  "    Channels of a window: c - size//2 ... c + (size-1)//2, clipped at the ends; the divisor of alpha "   \
  "stays\n"                                                                                                 \
  "    `size`. It may exceed C.\n"                                                                          \
  "alpha, beta, k : float\n"                                                                                \
  "    beta is 0.25, 0.5, 0.75 or 1.0.\n"                                                                   \
  "channel_axis : int\n"                                                                                    \
  "    The axis of x that holds the channels, not the first: -1 for an NHWC array.\n"

#define NORMKIT_DOC_WINDOW_RAISES                                                                            \
  "Raises\n"                                                                                                 \
  "------\n"                                                                                                 \
  "TypeError\n"                                                                                              \
  "    An argument is no array or has the wrong dtype; size is no integer; a PyTorch tensor requires grad "  \
  "while\n"                                                                                                  \
  "    grad mode is on; an array to be written is immutable (JAX).\n"                                        \
  "ValueError\n"                                                                                             \
  "    A shape or device is wrong; size is less than 1; alpha, beta or k is nan; beta is not supported; an " \
  "array\n"                                                                                                  \
  "    to be written is read-only, overlaps another argument (other than being the same view) or itself; "   \
  "more\n"                                                                                                   \
  "    than 5 axes are left after neighbouring axes are merged. Nothing is written then.\n"

constexpr const char kLocalResponseNormDoc[] =
    "LocalResponseNorm: y_c = x_c / (k + alpha/size sum(x_j^2))^beta, j over the window of channel c.\n"
    "\n"
    "Krizhevsky, Sutskever, Hinton 2012, ImageNet Classification with Deep Convolutional Neural Networks\n"
    "(AlexNet), section 3.3; torch.nn.functional.local_response_norm. Sum and power are computed in "
    "float64,\n"
    "each sum afresh in channel order; the bits of the result do not depend on threads, batch size, "
    "instruction\n"
    "set or memory layout.\n"
    "\n"
    "Parameters\n"
    "----------\n" NORMKIT_DOC_WINDOW
    "out : array, optional\n"
    "    Where y goes: x's shape and dtype; may be x itself. Returned in place of a new array.\n"
    "\n"
    "Returns\n"
    "-------\n"
    "y : array\n"
    "    x's shape, dtype, kind and axis order.\n"
    "\n" NORMKIT_DOC_WINDOW_RAISES;

constexpr const char kLocalResponseNormBackwardDoc[] =
    "Gradient of LocalResponseNorm: (dx,).\n"
    "\n"
    "With d_c = k + alpha/size sum(x_j^2) over the window of channel c:\n"
    "dx_i = dy_i d_i^-beta - 2 alpha beta/size x_i sum(dy_j x_j d_j^(-beta-1)), j over the channels whose "
    "windows\n"
    "hold i. Everything is computed in float64 and rounded at the end.\n"
    "\n"
    "Parameters\n"
    "----------\n"
    "dy : array\n"
    "    Gradient of the output; x's shape and dtype.\n" NORMKIT_DOC_WINDOW
    "dx_out : array, optional\n"
    "    Where dx goes: x's shape and dtype; may be dy or x itself.\n"
    "\n"
    "Returns\n"
    "-------\n"
    "dx : array\n"
    "    x's shape, dtype, kind and axis order.\n"
    "\n" NORMKIT_DOC_WINDOW_RAISES;

}  // namespace

void add_window_operations(PyObject* module) {
  Function<local_response_norm_call>::add(module, kLocalResponseNorm, kLocalResponseNormDoc);
  Function<local_response_norm_backward_call>::add(module, kLocalResponseNormBackward,
                                                   kLocalResponseNormBackwardDoc);
}

}  // namespace normkit::python
