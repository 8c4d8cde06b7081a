"""normkit: every normalization used in deep learning, for CPUs.

Forward and backward, over NumPy, PyTorch and JAX arrays, in float32, float64, float16 and bfloat16, with the
same bits for every thread count, batch split, memory layout and instruction set.

>>> import numpy as np
>>> import normkit as nk
>>> x = np.arange(6, dtype=np.float32).reshape(2, 3)
>>> nk.layer_norm(x, (3,))
array([[-1.2247357,  0.       ,  1.2247357],
       [-1.2247357,  0.       ,  1.2247357]], dtype=float32)
"""

from . import cuda, functional, nn
from ._ext import __version__, get_num_threads, get_output_pool, isa, set_num_threads, set_output_pool
from ._runtime import num_threads, show_config
from .functional import *  # noqa: F403
from .moments import GradSums, Moments

__all__ = [
    "GradSums",
    "Moments",
    "__version__",
    "cuda",
    "functional",
    "get_num_threads",
    "get_output_pool",
    "isa",
    "nn",
    "num_threads",
    "set_num_threads",
    "set_output_pool",
    "show_config",
    *functional.__all__,
]
