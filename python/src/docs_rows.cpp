// Docstrings of the operations over rows.
#include "docs.hpp"

#define NORMKIT_DOC_X                            \
  "x : array\n"                                  \
  "normalized_shape : int or sequence of ints\n" \
  "    x's sizes on the axes that are normalized together: the last ones, or those that `axis` names.\n"

#define NORMKIT_DOC_AXIS                                                                                \
  "axis : int or tuple of ints, optional\n"                                                             \
  "    Axes to normalize together instead of the last ones, in any order; `normalized_shape` and the\n" \
  "    parameters have them in x's order. ``layer_norm(x, (C,), axis=1)`` normalizes NCHW over its "    \
  "channels.\n"

namespace normkit::python::docs {

const char kLayerNorm[] =
    "LayerNorm: y = (x - mean) rstd weight + bias, rstd = 1 / sqrt(var + eps).\n"
    "\n"
    "mean and var (biased) are those of each row: of the elements on the normalized axes. Ba, Kiros, Hinton "
    "2016,\n"
    "arXiv:1607.06450; torch.nn.functional.layer_norm. The bits of the result do not depend on threads, "
    "batch size,\n"
    "instruction set or memory layout.\n"
    "\n" NORMKIT_DOC_ARRAYS
    "\n"
    "Parameters\n"
    "----------\n" NORMKIT_DOC_X
    "weight, bias : array, optional\n"
    "    Shape `normalized_shape`; x's dtype or float32 (float64 with float64 x).\n"
    "eps : float\n"
    "    Added to the variance.\n" NORMKIT_DOC_AXIS
    "return_stats : bool\n"
    "    Return (y, mean, rstd) instead of y.\n"
    "out : array, optional\n"
    "    Where y goes: x's shape and dtype; may be x itself. Returned in place of a new "
    "array.\n" NORMKIT_DOC_ACTIVATION
    "\n"
    "Returns\n"
    "-------\n"
    "y : array\n"
    "    x's shape, dtype and axis order.\n"
    "mean, rstd : float64 array\n"
    "    With `return_stats`: x's shape, the normalized axes 1. NumPy arrays where JAX has float64 switched "
    "off.\n"
    "\n" NORMKIT_DOC_RAISES;

const char kLayerNormBackward[] =
    "Gradients of LayerNorm: (dx, dweight, dbias), None where the argument was None.\n"
    "\n"
    "With xhat = (x - mean) rstd and g = dy weight, over rows of n elements:\n"
    "dx = ((g - sum(g)/n) - xhat sum(g xhat)/n) rstd; dweight = sum over rows of dy xhat; dbias = sum over "
    "rows of dy.\n"
    "\n" NORMKIT_DOC_ARRAYS
    "\n"
    "Parameters\n"
    "----------\n"
    "dy : array\n"
    "    Gradient of the output; x's shape and dtype.\n" NORMKIT_DOC_X
    "weight, bias : array, optional\n"
    "    As in the forward. bias tells only that dbias is wanted, and its dtype.\n"
    "eps : float\n" NORMKIT_DOC_AXIS
    "mean, rstd : array, optional\n"
    "    As layer_norm returns them (float64; float32 is accepted), both or neither; computed again, to the "
    "same\n"
    "    bits, when left out.\n" NORMKIT_DOC_GRADS
    "\n"
    "Returns\n"
    "-------\n"
    "dx : array\n"
    "    x's shape, dtype and axis order.\n"
    "dweight, dbias : array or None\n"
    "    The parameter's shape and dtype (or the array of `grads_out`).\n"
    "\n" NORMKIT_DOC_RAISES;

const char kRmsNorm[] =
    "RMSNorm: y = (x rstd) (weight + weight_offset) + bias, rstd = 1 / sqrt(mean(x^2) + eps).\n"
    "\n"
    "mean(x^2) is that of each row: of the elements on the normalized axes. Zhang, Sennrich 2019, "
    "arXiv:1910.07467;\n"
    "torch.nn.functional.rms_norm. The bits of the result do not depend on threads, batch size, instruction "
    "set or\n"
    "memory layout.\n"
    "\n" NORMKIT_DOC_ARRAYS
    "\n"
    "Parameters\n"
    "----------\n" NORMKIT_DOC_X
    "weight, bias : array, optional\n"
    "    Shape `normalized_shape`; x's dtype or float32 (float64 with float64 x).\n"
    "eps : float, optional\n"
    "    Added to the mean square; by default float32's epsilon (2**-23), for float64 x float64's (2**-52).\n"
    "weight_offset : float\n"
    "    Added to weight: 1.0 for models that store weight - 1 (Gemma). Ignored without a "
    "weight.\n" NORMKIT_DOC_AXIS
    "return_stats : bool\n"
    "    Return (y, rstd) instead of y.\n"
    "out : array, optional\n"
    "    Where y goes: x's shape and dtype; may be x itself. Returned in place of a new "
    "array.\n" NORMKIT_DOC_ACTIVATION
    "\n"
    "Returns\n"
    "-------\n"
    "y : array\n"
    "    x's shape, dtype and axis order.\n"
    "rstd : float64 array\n"
    "    With `return_stats`: x's shape, the normalized axes 1. A NumPy array where JAX has float64 switched "
    "off.\n"
    "\n" NORMKIT_DOC_RAISES;

const char kRmsNormBackward[] =
    "Gradients of RMSNorm: (dx, dweight, dbias), None where the argument was None.\n"
    "\n"
    "With xhat = x rstd and g = dy (weight + weight_offset), over rows of n elements:\n"
    "dx = (g - xhat sum(g xhat)/n) rstd; dweight = sum over rows of dy xhat; dbias = sum over rows of dy.\n"
    "\n" NORMKIT_DOC_ARRAYS
    "\n"
    "Parameters\n"
    "----------\n"
    "dy : array\n"
    "    Gradient of the output; x's shape and dtype.\n" NORMKIT_DOC_X
    "weight, bias : array, optional\n"
    "    As in the forward. bias tells only that dbias is wanted, and its dtype.\n"
    "eps : float, optional\n"
    "weight_offset : float\n" NORMKIT_DOC_AXIS
    "rstd : array, optional\n"
    "    As rms_norm returns it (float64; float32 is accepted); computed again, to the same bits, when left "
    "out.\n" NORMKIT_DOC_GRADS
    "\n"
    "Returns\n"
    "-------\n"
    "dx : array\n"
    "    x's shape, dtype and axis order.\n"
    "dweight, dbias : array or None\n"
    "    The parameter's shape and dtype (or the array of `grads_out`).\n"
    "\n" NORMKIT_DOC_RAISES;

}  // namespace normkit::python::docs
