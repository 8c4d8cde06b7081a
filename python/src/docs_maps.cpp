// Docstrings of elementwise operations.
#include "docs.hpp"

#define NORMKIT_DOC_MAP                                                                               \
  "x : array\n"                                                                                       \
  "    Any rank but 0.\n"                                                                             \
  "alpha : float or array\n"                                                                          \
  "    A number, an array of one element, or of shape (C,), one number for each channel; x's dtype, " \
  "float32 or\n"                                                                                      \
  "    float64.\n" NORMKIT_DOC_PARAMETERS                                                             \
  "axis : int\n"                                                                                      \
  "    The axis of x that holds the C channels: the last one, 1 for NCHW.\n"

#define NORMKIT_DOC_MAP_RAISES                                                                              \
  "Raises\n"                                                                                                \
  "------\n"                                                                                                \
  "TypeError\n"                                                                                             \
  "    An argument is no array or has the wrong dtype; axis is no integer; a PyTorch tensor requires grad " \
  "while\n"                                                                                                 \
  "    grad mode is on; an array to be written is immutable (JAX).\n"                                       \
  "ValueError\n"                                                                                            \
  "    A shape or device is wrong; alpha is nan; an array to be written is read-only, overlaps another "    \
  "argument\n"                                                                                              \
  "    (other than being the same view) or itself. Nothing is written then.\n"

namespace normkit::python::docs {

const char kDynamicTanh[] =
    "DyT, the dynamic tanh: y = weight tanh(alpha x) + bias.\n"
    "\n"
    "Stands in for a norm, without statistics. Zhu, Chen, He, LeCun, Liu 2025, Transformers without\n"
    "Normalization, arXiv:2503.10622. alpha x and its tanh are computed in float64 and rounded "
    "once.\n" NORMKIT_DOC_SAME_BITS "\n" NORMKIT_DOC_ARRAYS
    "\n"
    "Parameters\n"
    "----------\n" NORMKIT_DOC_MAP NORMKIT_DOC_OUT NORMKIT_DOC_ACTIVATION
    "\n"
    "Returns\n"
    "-------\n"
    "y : array\n"
    "    x's shape, dtype and axis order.\n"
    "\n" NORMKIT_DOC_MAP_RAISES;

const char kDynamicTanhBackward[] =
    "Gradients of the dynamic tanh: (dx, dalpha, dweight, dbias), None where the argument was None.\n"
    "\n"
    "With t = tanh(alpha x) and g = dy weight: dx = g alpha (1 - t^2); dalpha = sum of g x (1 - t^2), over "
    "each\n"
    "channel or over all of x, as alpha is; dweight = sum of dy t, dbias = sum of dy over each channel. 1 - "
    "t^2\n"
    "keeps its digits where tanh saturates. bias tells only that dbias is wanted. Sums are in float64; their "
    "bits depend on the elements and their\n"
    "order, not on the layout.\n"
    "\n" NORMKIT_DOC_ARRAYS
    "\n"
    "Parameters\n"
    "----------\n"
    "dy : array\n"
    "    Gradient of the output; x's shape and dtype.\n" NORMKIT_DOC_MAP
    "dx_out : array, optional\n"
    "    Where dx goes: x's shape and dtype; may be dy or x itself.\n"
    "grads_out : tuple (dalpha, dweight, dbias), optional\n"
    "    Where the parameters' gradients go; any may be None. Their dtype is x's, float32 or float64.\n"
    "accumulate : bool\n"
    "    Add to the arrays of `grads_out` instead of overwriting them; an entry that is None gets a new\n"
    "    array all the same.\n"
    "\n"
    "Returns\n"
    "-------\n"
    "dx : array\n"
    "    x's shape, dtype and axis order.\n"
    "dalpha : array\n"
    "    alpha's shape and dtype (or the array of `grads_out`); float64 without axes where alpha is a "
    "number.\n"
    "dweight, dbias : array or None\n"
    "    The parameter's shape and dtype (or the array of `grads_out`).\n"
    "\n" NORMKIT_DOC_MAP_RAISES;

}  // namespace normkit::python::docs
