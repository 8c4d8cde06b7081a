// local_response_norm and its gradient: arguments, axis order and docstrings.
#include "call.hpp"
#include "docs.hpp"
#include "normkit/normkit.hpp"
#include "ops.hpp"
#include "signature.hpp"

namespace normkit::python {
namespace {

// size, alpha, beta, k, as they follow each other in both signatures.
template <class Args>
void read_window(Args& args, PyObject* const* slots) {
  args.size = integer_argument(slots[0], "size");
  if (args.size < 1)
    raise(PyExc_ValueError, "size is %lld; it should be at least 1", static_cast<long long>(args.size));
  args.alpha = number_argument(slots[1], "alpha", args.alpha);
  args.beta = number_argument(slots[2], "beta", args.beta);
  args.k = number_argument(slots[3], "k", args.k);
  if (args.k <= 0.0 && args.alpha <= 0.0)
    raise(PyExc_ValueError,
          "k is %S and alpha is %S; one of them should be more than 0: x is divided by "
          "(k + alpha/size sum)^beta",
          nb::float_(args.k).ptr(), nb::float_(args.alpha).ptr());
}

constexpr const char* kLocalResponseNorm =
    "local_response_norm(x, size, alpha=0.0001, beta=0.75, k=1.0, *, channel_axis=1, out=None, "
    "activation=None)";

PyObject* local_response_norm_call(PyObject* const* slots) {
  enum { kX, kSize, kAlpha, kBeta, kK, kChannelAxis, kOut, kActivation };
  ChannelsCall call(slots[kX], slots[kChannelAxis]);
  LocalResponseNormArgs args;
  args.activation = activation_argument(slots[kActivation]);
  Operand* y;
  args.x = call.x_view();
  read_window(args, slots + kSize);
  args.y = call.result_like_x(slots[kOut], "out", &y);
  call.run(call.shape(), args, &local_response_norm_workspace_bytes, &local_response_norm_plan);
  return y->finish(call.x()).release().ptr();
}

constexpr const char* kLocalResponseNormBackward =
    "local_response_norm_backward(dy, x, size, alpha=0.0001, beta=0.75, k=1.0, *, channel_axis=1, "
    "dx_out=None)";

PyObject* local_response_norm_backward_call(PyObject* const* slots) {
  enum { kDy, kX, kSize, kAlpha, kBeta, kK, kChannelAxis, kDxOut };
  ChannelsCall call(slots[kX], slots[kChannelAxis]);
  LocalResponseNormBackwardArgs args;
  Operand* dx;
  args.x = call.x_view();
  args.dy = call.same_as_x(slots[kDy], "dy");
  read_window(args, slots + kSize);
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
  "channel_axis : int\n"                                                                                    \
  "    The axis of x that holds the channels, not the first: -1 for an NHWC array.\n"

#define NORMKIT_DOC_WINDOW_RAISES                                                                           \
  "Raises\n"                                                                                                \
  "------\n"                                                                                                \
  "TypeError\n"                                                                                             \
  "    An argument is no array or has the wrong dtype; size is no integer; a PyTorch tensor requires grad " \
  "while\n"                                                                                                 \
  "    grad mode is on; an array to be written is immutable (JAX).\n"                                       \
  "ValueError\n"                                                                                            \
  "    A shape or device is wrong; size is less than 1; alpha, beta or k is nan; neither k nor alpha is\n"  \
  "    more than 0; an array to be written is read-only, overlaps another argument (other than being the\n" \
  "    same view) or itself. Nothing is written then.\n"

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
    "    Where y goes: x's shape and dtype; may be x itself. Returned in place of a new "
    "array.\n" NORMKIT_DOC_ACTIVATION
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
