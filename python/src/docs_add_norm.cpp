// Docstrings of the residual sums with a norm.
#include "docs.hpp"

#define NORMKIT_DOC_ADDENDS                      \
  "x, residual : array\n"                        \
  "    One shape and dtype.\n"                   \
  "normalized_shape : int or sequence of ints\n" \
  "    x's sizes on the axes that are normalized together: the last ones, or those that `axis` names.\n"

#define NORMKIT_DOC_SUM_OPTIONS                                                                             \
  "residual_bias : array, optional\n"                                                                       \
  "    Added to the sum of x and residual: the bias of the layer that made x. Shape and dtype as weight.\n" \
  "sum_precision : \"x\" or \"f32\"\n"                                                                      \
  "    \"x\": what is normalized is the sum as returned. \"f32\", for float16 and bfloat16: the float32\n"  \
  "    sum before it is rounded; y is then the float32 norm of that, rounded once to x's dtype.\n"          \
  "axis : int or tuple of ints, optional\n"                                                                 \
  "    Axes to normalize together instead of the last ones, in any order; `normalized_shape` and the\n"     \
  "    parameters have them in x's order.\n"

#define NORMKIT_DOC_SUM_OUT                                                                             \
  "out : pair (y, sum), optional\n"                                                                     \
  "    Where the results go: x's shape and dtype; either may be None, and either may be x or residual " \
  "itself.\n" NORMKIT_DOC_ACTIVATION

#define NORMKIT_DOC_SUM_GRADS                                                                              \
  "dy : array\n"                                                                                           \
  "    Gradient of y; summed's shape and dtype.\n"                                                         \
  "dsum : array, optional\n"                                                                               \
  "    Gradient that reaches the sum past the norm, along the residual branch; may be None. Added before " \
  "the only\n"                                                                                             \
  "    rounding.\n"                                                                                        \
  "summed : array\n"                                                                                       \
  "    The sum as the forward returned it.\n"                                                              \
  "normalized_shape : int or sequence of ints\n"

#define NORMKIT_DOC_SUM_RETURNS                                                                          \
  "dsummed : array\n"                                                                                    \
  "    The gradient of x, and that of residual; that of residual_bias is its sum over the other axes.\n" \
  "dweight, dbias : array or None\n"                                                                     \
  "    The parameter's shape and dtype (or the array of `grads_out`).\n"

#define NORMKIT_DOC_SUM_GRADS_OUT                                                                         \
  "dx_out : array, optional\n"                                                                            \
  "    Where dsummed goes: summed's shape and dtype; may be dy, dsum or summed itself.\n"                 \
  "grads_out : pair (dweight, dbias), optional\n"                                                         \
  "    Where the parameters' gradients go; either may be None. Their dtype is x's, float32 or float64.\n" \
  "accumulate : bool\n"                                                                                   \
  "    Add to the arrays of `grads_out` instead of overwriting them; an entry that is None gets a new\n"  \
  "    array all the same.\n"

namespace normkit::python::docs {

const char kAddLayerNorm[] =
    "A residual sum and its LayerNorm in one pass: (y, sum).\n"
    "\n"
    "sum = (x + residual) + residual_bias, computed in float32 (float64 for float64) and rounded once to x's "
    "dtype;\n"
    "y = layer_norm(sum, ...), bit for bit.\n"
    "\n" NORMKIT_DOC_ARRAYS
    "\n"
    "Parameters\n"
    "----------\n" NORMKIT_DOC_ADDENDS
    "weight, bias : array, optional\n"
    "    Shape `normalized_shape`; x's dtype or float32 (float64 with float64 x).\n"
    "eps : float\n" NORMKIT_DOC_SUM_OPTIONS
    "return_stats : bool\n"
    "    Return (y, sum, mean, rstd) instead of (y, sum).\n" NORMKIT_DOC_SUM_OUT
    "\n"
    "Returns\n"
    "-------\n"
    "y, sum : array\n"
    "    x's shape, dtype and axis order.\n"
    "mean, rstd : float64 array\n"
    "    With `return_stats`: x's shape, the normalized axes 1.\n"
    "\n" NORMKIT_DOC_RAISES;

const char kAddLayerNormBackward[] =
    "Gradients of add_layer_norm: (dsummed, dweight, dbias), None where the argument was None.\n"
    "\n"
    "With xhat = (summed - mean) rstd and g = dy weight, over rows of n elements:\n"
    "dsummed = ((g - sum(g)/n) - xhat sum(g xhat)/n) rstd + dsum; dweight = sum over rows of dy xhat;\n"
    "dbias = sum over rows of dy.\n"
    "\n" NORMKIT_DOC_ARRAYS
    "\n"
    "Parameters\n"
    "----------\n" NORMKIT_DOC_SUM_GRADS
    "weight, bias : array, optional\n"
    "    As in the forward. bias tells only that dbias is wanted, and its dtype.\n"
    "eps : float\n"
    "axis : int or tuple of ints, optional\n"
    "mean, rstd : array, optional\n"
    "    As the forward returned them, both or neither; computed again from `summed`, to the same bits, when "
    "left\n"
    "    out (with sum_precision=\"f32\" they should be given).\n" NORMKIT_DOC_SUM_GRADS_OUT
    "\n"
    "Returns\n"
    "-------\n" NORMKIT_DOC_SUM_RETURNS "\n" NORMKIT_DOC_RAISES;

const char kAddRmsNorm[] =
    "A residual sum and its RMSNorm in one pass: (y, sum).\n"
    "\n"
    "sum = (x + residual) + residual_bias, computed in float32 (float64 for float64) and rounded once to x's "
    "dtype;\n"
    "y = rms_norm(sum, ...), bit for bit.\n"
    "\n" NORMKIT_DOC_ARRAYS
    "\n"
    "Parameters\n"
    "----------\n" NORMKIT_DOC_ADDENDS
    "weight, bias : array, optional\n"
    "    Shape `normalized_shape`; x's dtype or float32 (float64 with float64 x).\n"
    "eps : float, optional\n"
    "    By default float32's epsilon (2**-23), for float64 x float64's (2**-52).\n"
    "weight_offset : float\n"
    "    Added to weight: 1.0 for models that store weight - 1 (Gemma). Ignored without a "
    "weight.\n" NORMKIT_DOC_SUM_OPTIONS
    "return_stats : bool\n"
    "    Return (y, sum, rstd) instead of (y, sum).\n" NORMKIT_DOC_SUM_OUT
    "\n"
    "Returns\n"
    "-------\n"
    "y, sum : array\n"
    "    x's shape, dtype and axis order.\n"
    "rstd : float64 array\n"
    "    With `return_stats`: x's shape, the normalized axes 1.\n"
    "\n" NORMKIT_DOC_RAISES;

const char kAddRmsNormBackward[] =
    "Gradients of add_rms_norm: (dsummed, dweight, dbias), None where the argument was None.\n"
    "\n"
    "With xhat = summed rstd and g = dy (weight + weight_offset), over rows of n elements:\n"
    "dsummed = (g - xhat sum(g xhat)/n) rstd + dsum; dweight = sum over rows of dy xhat; dbias = sum over "
    "rows "
    "of dy.\n"
    "\n" NORMKIT_DOC_ARRAYS
    "\n"
    "Parameters\n"
    "----------\n" NORMKIT_DOC_SUM_GRADS
    "weight, bias : array, optional\n"
    "    As in the forward. bias tells only that dbias is wanted, and its dtype.\n"
    "eps : float, optional\n"
    "weight_offset : float\n"
    "axis : int or tuple of ints, optional\n"
    "rstd : array, optional\n"
    "    As the forward returned it; computed again from `summed`, to the same bits, when left out (with\n"
    "    sum_precision=\"f32\" it should be given).\n" NORMKIT_DOC_SUM_GRADS_OUT
    "\n"
    "Returns\n"
    "-------\n" NORMKIT_DOC_SUM_RETURNS "\n" NORMKIT_DOC_RAISES;

}  // namespace normkit::python::docs
