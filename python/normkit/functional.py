"""The operations as functions: names, order and defaults of ``torch.nn.functional``, and their gradients.

They are the extension's own functions, with nothing in between: a call on a small array costs less than a
microsecond.
"""

from ._ext import (
    layer_norm,
    layer_norm_backward,
    local_response_norm,
    local_response_norm_backward,
    rms_norm,
    rms_norm_backward,
)

__all__ = [
    "layer_norm",
    "layer_norm_backward",
    "local_response_norm",
    "local_response_norm_backward",
    "rms_norm",
    "rms_norm_backward",
]
