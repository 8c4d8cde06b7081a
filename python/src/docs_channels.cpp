// Docstrings of the operations over channels.
#include "docs.hpp"

#define NORMKIT_DOC_RUNNING                                                                                \
  "running_mean, running_var : array, optional\n"                                                          \
  "    Shape (C,), any dtype. Updated in place where x's statistics are used, running = (1 - momentum) "   \
  "running +\n"                                                                                            \
  "    momentum new with the unbiased variance (a momentum of 0 leaves them alone, one of 1 replaces\n"    \
  "    them); else these are what x is normalized with. What exceeds the range of their dtype (a\n"        \
  "    variance above 65504 in float16) becomes its largest number, not an infinity that would stay. An\n" \
  "    immutable array (JAX) cannot be updated: see\n"                                                     \
  "    `return_stats` and ``normkit.Moments``.\n"

#define NORMKIT_DOC_BACKWARD_OF_CHANNELS                                                             \
  "dx = ((g - sum(g)/n) - xhat sum(g xhat)/n) rstd with g = dy weight, xhat = (x - mean) rstd;\n"    \
  "dweight = sum of dy xhat over the channel, dbias = sum of dy. With given statistics, which are\n" \
  "constants, dx = dy weight rstd. Running statistics are never touched.\n"

#define NORMKIT_DOC_BACKWARD_ARGUMENTS                                                                       \
  "dy : array\n"                                                                                             \
  "    Gradient of the output; x's shape and dtype.\n"                                                       \
  "mean, rstd : array, optional\n"                                                                           \
  "    As the forward returns them (float64; float32 is accepted), both or neither; computed again, to the " \
  "same\n"                                                                                                   \
  "    bits, when left out.\n" NORMKIT_DOC_GRADS                                                             \
  "The other arguments are the forward's.\n"                                                                 \
  "\n"                                                                                                       \
  "Returns\n"                                                                                                \
  "-------\n"                                                                                                \
  "dx : array\n"                                                                                             \
  "dweight, dbias : array or None\n"                                                                         \
  "    The parameter's shape and dtype (or the array of `grads_out`).\n"                                     \
  "\n"

namespace normkit::python::docs {

const char kBatchNorm[] =
    "BatchNorm: y = (x - mean) rstd weight + bias, rstd = 1 / sqrt(var + eps).\n"
    "\n"
    "With `training`, mean and var (biased) are those of each channel, over all samples and all of space, "
    "and the\n"
    "running statistics follow them; without, they are the running ones. Ioffe, Szegedy 2015, "
    "arXiv:1502.03167;\n"
    "torch.nn.functional.batch_norm. " NORMKIT_DOC_SAME_BITS "\n" NORMKIT_DOC_ARRAYS
    "\n"
    "Parameters\n"
    "----------\n" NORMKIT_DOC_CHANNELS NORMKIT_DOC_RUNNING NORMKIT_DOC_PARAMETERS
    "training : bool\n"
    "    Normalize with x's own statistics. One value per channel is then a ValueError.\n"
    "momentum, eps : float\n"
    "mean, rstd : array, optional\n"
    "    Shape (C,), float64 or float32: normalize with these statistics instead, of several batches "
    "(``Moments``)\n"
    "    say, whatever `training` says. Running statistics cannot follow them, as it is not known of how "
    "many\n"
    "    values they are: with `training` they should be None, and follow the whole batch once, by\n"
    "    ``Moments.update_running``.\n"
    "return_stats : bool\n"
    "    Return (y, mean, rstd), float64 of shape (C,), instead of "
    "y.\n" NORMKIT_DOC_OUT NORMKIT_DOC_ACTIVATION "\n" NORMKIT_DOC_RAISES;

const char kBatchNormBackward[] =
    "Gradients of BatchNorm: (dx, dweight, dbias), None where the argument was None.\n"
    "\n" NORMKIT_DOC_BACKWARD_OF_CHANNELS
    "Statistics are constants without `training`: the running ones, or `mean` and `rstd`.\n"
    "With `training` one value per channel of the whole batch is a ValueError, as in the forward.\n"
    "With `sums`, a ``GradSums`` over several micro-batches, dx is that of the whole batch, of which dy and "
    "x "
    "are a part;\n"
    "dweight and dbias are then None: they are ``sums.sum_dy_xhat`` and ``sums.sum_dy``.\n"
    "\n" NORMKIT_DOC_ARRAYS
    "\n"
    "Parameters\n"
    "----------\n" NORMKIT_DOC_BACKWARD_ARGUMENTS NORMKIT_DOC_RAISES;

const char kInstanceNorm[] =
    "InstanceNorm: y = (x - mean) rstd weight + bias, rstd = 1 / sqrt(var + eps).\n"
    "\n"
    "mean and var (biased) are those of each channel of each sample, over space; without `use_input_stats` "
    "the "
    "running\n"
    "ones, which otherwise follow the average over the samples. Ulyanov, Vedaldi, Lempitsky 2016, "
    "arXiv:1607.08022;\n"
    "torch.nn.functional.instance_norm. " NORMKIT_DOC_SAME_BITS "\n" NORMKIT_DOC_ARRAYS
    "\n"
    "Parameters\n"
    "----------\n" NORMKIT_DOC_CHANNELS NORMKIT_DOC_RUNNING NORMKIT_DOC_PARAMETERS
    "use_input_stats : bool\n"
    "    Normalize with x's own statistics. One value per sample and channel is then a ValueError.\n"
    "momentum, eps : float\n"
    "return_stats : bool\n"
    "    Return (y, mean, rstd), float64 of shape (N, C), instead of "
    "y.\n" NORMKIT_DOC_OUT NORMKIT_DOC_ACTIVATION "\n" NORMKIT_DOC_RAISES;

const char kInstanceNormBackward[] =
    "Gradients of InstanceNorm: (dx, dweight, dbias), None where the argument was None.\n"
    "\n" NORMKIT_DOC_BACKWARD_OF_CHANNELS "\n" NORMKIT_DOC_ARRAYS
    "\n"
    "Parameters\n"
    "----------\n" NORMKIT_DOC_BACKWARD_ARGUMENTS NORMKIT_DOC_RAISES;

const char kGroupNorm[] =
    "GroupNorm: y = (x - mean) rstd weight + bias, rstd = 1 / sqrt(var + eps).\n"
    "\n"
    "mean and var (biased) are those of each group of C / num_groups neighbouring channels of each sample, "
    "over "
    "space.\n"
    "Wu, He 2018, arXiv:1803.08494; torch.nn.functional.group_norm. " NORMKIT_DOC_SAME_BITS
    "Except that channels-last memory, whatever its strides, has bits of its own: its groups' statistics "
    "are\n"
    "merged from their channels'.\n"
    "\n" NORMKIT_DOC_ARRAYS
    "\n"
    "Parameters\n"
    "----------\n" NORMKIT_DOC_CHANNELS
    "num_groups : int\n"
    "    Divides C. C groups make InstanceNorm, one makes LayerNorm over channels and "
    "space.\n" NORMKIT_DOC_PARAMETERS
    "eps : float\n"
    "return_stats : bool\n"
    "    Return (y, mean, rstd), float64 of shape (N, num_groups), instead of "
    "y.\n" NORMKIT_DOC_OUT NORMKIT_DOC_ACTIVATION "\n" NORMKIT_DOC_RAISES;

const char kGroupNormBackward[] =
    "Gradients of GroupNorm: (dx, dweight, dbias), None where the argument was None.\n"
    "\n" NORMKIT_DOC_BACKWARD_OF_CHANNELS "\n" NORMKIT_DOC_ARRAYS
    "\n"
    "Parameters\n"
    "----------\n" NORMKIT_DOC_BACKWARD_ARGUMENTS NORMKIT_DOC_RAISES;

const char kSwitchableNorm[] =
    "SwitchableNorm: y = (x - mean) rstd weight + bias, rstd = 1 / sqrt(var + eps), of mixed statistics.\n"
    "\n"
    "mean = sum of softmax(mean_weight)_k mean_k and var = sum of softmax(var_weight)_k var_k over "
    "InstanceNorm, "
    "LayerNorm\n"
    "and BatchNorm, in this order; all variances are biased. Luo et al. 2018, arXiv:1806.10779. "  //
    NORMKIT_DOC_SAME_BITS "\n" NORMKIT_DOC_ARRAYS
    "\n"
    "Parameters\n"
    "----------\n" NORMKIT_DOC_CHANNELS
    "mean_weight, var_weight : array\n"
    "    Three logits each; x's dtype or float32 (float64 with float64 x).\n" NORMKIT_DOC_PARAMETERS
    "running_mean, running_var : array, optional\n"
    "    Shape (C,), any dtype: BatchNorm's statistics. Updated in place with `training`, running = (1 - "
    "momentum) "
    "running +\n"
    "    momentum new, with the biased variance, as it is mixed; used, and then needed, without. What "
    "exceeds\n"
    "    the range of their dtype becomes its largest number.\n"
    "training : bool\n"
    "momentum, eps : float\n" NORMKIT_DOC_OUT NORMKIT_DOC_ACTIVATION "\n" NORMKIT_DOC_RAISES;

const char kSwitchableNormBackward[] =
    "Gradients of SwitchableNorm: (dx, dmean_weight, dvar_weight, dweight, dbias), None where the argument "
    "was "
    "None.\n"
    "\n"
    "They pass through all three statistics and both mixtures; without `training` the running statistics are "
    "constants.\n"
    "\n" NORMKIT_DOC_ARRAYS
    "\n"
    "Parameters\n"
    "----------\n"
    "dy : array\n"
    "    Gradient of the output; x's shape and dtype.\n"
    "dx_out : array, optional\n"
    "    Where dx goes: x's shape and dtype; may be dy or x itself.\n"
    "grads_out : tuple of 4 arrays, optional\n"
    "    Where the parameters' gradients go; each may be None. Their dtype is x's, float32 or float64.\n"
    "accumulate : bool\n"
    "    Add to the arrays of `grads_out` instead of overwriting them; an entry that is None gets a new\n"
    "    array all the same.\n"
    "The other arguments are the forward's.\n"
    "\n" NORMKIT_DOC_RAISES;

const char kAdaptiveInstanceNorm[] =
    "AdaptiveInstanceNorm: y = (content - mean_c) rstd_c std_s + mean_s, std = sqrt(var + eps).\n"
    "\n"
    "Content takes on the statistics of style: mean and biased var of each channel of each sample, over "
    "space. "
    "Huang,\n"
    "Belongie 2017, arXiv:1703.06868. " NORMKIT_DOC_SAME_BITS "\n" NORMKIT_DOC_ARRAYS
    "\n"
    "Parameters\n"
    "----------\n"
    "content : array\n"
    "    (N, C, ...).\n"
    "style : array\n"
    "    The same dtype, number of axes, samples and channels; the sizes of space may differ.\n"
    "eps : float\n"
    "channel_axis : int\n"
    "    Where the channels are, in both: -1 for NHWC.\n"
    "out : array, optional\n"
    "    Where the result goes: content's shape and dtype; may be content itself.\n" NORMKIT_DOC_ACTIVATION
    "\n" NORMKIT_DOC_RAISES;

const char kAdaptiveInstanceNormBackward[] =
    "Gradients of AdaptiveInstanceNorm: (dcontent, dstyle).\n"
    "\n"
    "dcontent is InstanceNorm's with weight std_s; dstyle = (style - mean_s) rstd_s sum(dy xhat)/n_s + "
    "sum(dy)/n_s with\n"
    "xhat = (content - mean_c) rstd_c.\n"
    "\n" NORMKIT_DOC_ARRAYS
    "\n"
    "Parameters\n"
    "----------\n"
    "dy : array\n"
    "    Gradient of the output; content's shape and dtype.\n"
    "dx_out, dstyle_out : array, optional\n"
    "    Where the gradients go; dx_out may be dy or content itself.\n"
    "The other arguments are the forward's.\n"
    "\n" NORMKIT_DOC_RAISES;

}  // namespace normkit::python::docs
