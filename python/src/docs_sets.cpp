// Docstrings of the operations over sets of any axes.
#include "docs.hpp"

#define NORMKIT_DOC_OVER                \
  "axis : int, tuple of ints or None\n" \
  "    Axes that belong together: one set for each index of the others. None: the whole array.\n"

namespace normkit::python::docs {

const char kNormalize[] =
    "Divide each vector by its norm: y = x / max(N, eps), N = (sum |x|^p)^(1/p).\n"
    "\n"
    "torch.nn.functional.normalize. " NORMKIT_DOC_SAME_BITS "\n" NORMKIT_DOC_ARRAYS
    "\n"
    "Parameters\n"
    "----------\n"
    "x : array\n"
    "p : float\n"
    "    Order of the norm: any number; inf is the largest magnitude, -inf the smallest, 0 counts what is "
    "not 0.\n" NORMKIT_DOC_OVER
    "eps : float\n"
    "    Least divisor.\n" NORMKIT_DOC_OUT NORMKIT_DOC_ACTIVATION "\n" NORMKIT_DOC_RAISES;

const char kNormalizeBackward[] =
    "Gradient of normalize: (dx,).\n"
    "\n"
    "dx = (dy - N' sum(dy xhat)) / N with xhat = x / N and N' = dN/dx = sign(x) |xhat|^(p-1); an infinite p "
    "shares N'\n"
    "equally among ties. Where N < eps, dx = dy / eps; but the gradient of a zero vector is 0.\n"
    "\n" NORMKIT_DOC_ARRAYS
    "\n"
    "Parameters\n"
    "----------\n"
    "dy : array\n"
    "    Gradient of the output; x's shape and dtype.\n"
    "dx_out : array, optional\n"
    "    Where dx goes: x's shape and dtype; may be dy or x itself.\n"
    "The other arguments are the forward's.\n"
    "\n" NORMKIT_DOC_RAISES;

const char kWeightNorm[] =
    "WeightNorm: w = g v / norm(v), the direction and the length of a weight apart.\n"
    "\n"
    "norm is the square root of the sum of squares over all axes but `axis`. A zero vector gives nan. "
    "Salimans, "
    "Kingma 2016,\n"
    "arXiv:1602.07868; torch.nn.utils.weight_norm. " NORMKIT_DOC_SAME_BITS "\n" NORMKIT_DOC_ARRAYS
    "\n"
    "Parameters\n"
    "----------\n"
    "v : array\n"
    "g : array\n"
    "    One number for each index of `axis`: 1-D, or v's rank with ones. With axis=None a scalar, or all "
    "ones.\n"
    "axis : int or None\n"
    "    The axis whose indices have norms of their own; None: one norm of the whole tensor.\n"
    "out : array, optional\n"
    "    Where w goes: v's shape and dtype; may be v itself.\n"
    "\n" NORMKIT_DOC_RAISES;

const char kWeightNormBackward[] =
    "Gradients of WeightNorm: (dv, dg).\n"
    "\n"
    "dv = (g dw - vhat sum(g dw vhat)) / norm(v), dg = sum of dw vhat, vhat = v / norm(v).\n"
    "\n" NORMKIT_DOC_ARRAYS
    "\n"
    "Parameters\n"
    "----------\n"
    "dw : array\n"
    "    Gradient of the output; v's shape and dtype.\n"
    "dx_out : array, optional\n"
    "    Where dv goes: v's shape and dtype; may be dw or v itself.\n"
    "grads_out : tuple of 1 array, optional\n"
    "    Where dg goes. Its dtype is v's, float32 or float64.\n"
    "accumulate : bool\n"
    "    Add to the array of `grads_out` instead of overwriting it; where it is None, a new array is\n"
    "    returned all the same.\n"
    "The other arguments are the forward's.\n"
    "\n" NORMKIT_DOC_RAISES;

const char kMinMaxScale[] =
    "Scale features to a range: y = (x - min) / (max - min) (high - low) + low.\n"
    "\n"
    "min and max are those of each feature, that is over `axis`; a constant feature becomes low, one with a "
    "nan "
    "nan.\n"
    "min becomes low and max becomes high, as x's dtype rounds them, and nothing lies outside.\n"
    "sklearn.preprocessing.minmax_scale. " NORMKIT_DOC_SAME_BITS "\n" NORMKIT_DOC_ARRAYS
    "\n"
    "Parameters\n"
    "----------\n"
    "x : array\n" NORMKIT_DOC_OVER
    "feature_range : pair (low, high)\n"
    "    A tuple, a list or an array; low < high, both within the range of x's dtype.\n" NORMKIT_DOC_OUT
    "\n" NORMKIT_DOC_RAISES;

const char kZScore[] =
    "Standard scores: y = (x - mean) / sqrt(var).\n"
    "\n"
    "mean and var (biased) are those of each feature, that is over `axis`; a constant feature becomes 0.\n"
    "sklearn.preprocessing.scale, scipy.stats.zscore. " NORMKIT_DOC_SAME_BITS "\n" NORMKIT_DOC_ARRAYS
    "\n"
    "Parameters\n"
    "----------\n"
    "x : array\n" NORMKIT_DOC_OVER NORMKIT_DOC_OUT "\n" NORMKIT_DOC_RAISES;

}  // namespace normkit::python::docs
