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

from . import functional, nn
from ._ext import __version__, get_num_threads, isa, set_num_threads
from ._runtime import num_threads, show_config
from .functional import (
    layer_norm,
    layer_norm_backward,
    local_response_norm,
    local_response_norm_backward,
    rms_norm,
    rms_norm_backward,
)

__all__ = [
    "__version__",
    "functional",
    "get_num_threads",
    "isa",
    "layer_norm",
    "layer_norm_backward",
    "local_response_norm",
    "local_response_norm_backward",
    "nn",
    "num_threads",
    "rms_norm",
    "rms_norm_backward",
    "set_num_threads",
    "show_config",
]
