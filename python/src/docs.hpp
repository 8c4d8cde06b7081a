// Texts that the docstrings of several operations share.
#ifndef NORMKIT_PYTHON_DOCS_HPP_
#define NORMKIT_PYTHON_DOCS_HPP_

#include "ops.hpp"

// What every array argument may be; one text for all operations.
#define NORMKIT_DOC_ARRAYS                                                                                 \
  "Arrays may be NumPy arrays, PyTorch CPU tensors, JAX CPU arrays or any CPU array with ``__dlpack__``, " \
  "in\n"                                                                                                   \
  "float32, float64, float16 or bfloat16 (NumPy: ``ml_dtypes.bfloat16``), of any rank and with any "       \
  "strides,\n"                                                                                             \
  "negative and zero ones too. Inputs are never copied. Results are of x's kind. Kinds may be mixed.\n"    \
  "In a build with CUDA, operations that have kernels there also take arrays on one CUDA device: see\n"    \
  ":mod:`normkit.cuda`.\n"

#define NORMKIT_DOC_RAISES                                                                                 \
  "Raises\n"                                                                                               \
  "------\n"                                                                                               \
  "TypeError\n"                                                                                            \
  "    An argument is no array or has the wrong dtype; a flag is no bool; a PyTorch tensor requires grad " \
  "while\n"                                                                                                \
  "    grad mode is on; an array to be written is immutable (JAX).\n"                                      \
  "ValueError\n"                                                                                           \
  "    A shape or device is wrong; an array to be written is read-only, overlaps another argument (other " \
  "than\n"                                                                                                 \
  "    being the same view) or itself; eps is nan or negative; of an array on a device more than 6 axes "  \
  "are left "                                                                                              \
  "after\n"                                                                                                \
  "    neighbouring axes are merged.\n"                                                                    \
  "    Nothing is written when an exception is raised, except after a KeyboardInterrupt.\n"

#define NORMKIT_DOC_GRADS                                                                                 \
  "dx_out : array, optional\n"                                                                            \
  "    Where dx goes: x's shape and dtype; may be dy or x itself.\n"                                      \
  "grads_out : pair (dweight, dbias), optional\n"                                                         \
  "    Where the parameters' gradients go; either may be None. Their dtype is x's, float32 or float64.\n" \
  "accumulate : bool\n"                                                                                   \
  "    Add to the arrays of `grads_out` instead of overwriting them; an entry that is None gets a new\n"  \
  "    array all the same.\n"

#define NORMKIT_DOC_SAME_BITS \
  "The bits of the result do not depend on threads, batch size, instruction set or memory layout.\n"

#define NORMKIT_DOC_CHANNELS                                              \
  "x : array\n"                                                           \
  "    (N, C, ...): samples, channels and any number of axes of space.\n" \
  "channel_axis : int\n"                                                  \
  "    Where the channels are: -1 for NHWC. A view of another layout (PyTorch's channels_last) keeps it.\n"

#define NORMKIT_DOC_PARAMETERS       \
  "weight, bias : array, optional\n" \
  "    Shape (C,); x's dtype or float32 (float64 with float64 x).\n"

#define NORMKIT_DOC_ACTIVATION                                                                            \
  "activation : str, optional\n"                                                                          \
  "    Applied to the result, as it would be returned, and rounded to its dtype again: \"relu\"\n"        \
  "    max(y, 0), \"silu\" y / (1 + exp(-y)), \"gelu\" y erfc(-y / sqrt(2)) / 2, \"gelu_tanh\" its\n"     \
  "    approximation by tanh. The backward knows no activation: its dy must be the gradient before it,\n" \
  "    that of the result without `activation`.\n"

#define NORMKIT_DOC_OUT     \
  "out : array, optional\n" \
  "    Where the result goes: x's shape and dtype; may be x itself. Returned in place of a new array.\n"

#endif  // NORMKIT_PYTHON_DOCS_HPP_
