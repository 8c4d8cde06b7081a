"""The operations as functions: names, order and defaults of ``torch.nn.functional``, and their gradients.

But for :func:`norm`, which reads its pattern first, they are the extension's own functions, with nothing in
between: a call on a small array costs less than a microsecond.

PyTorch tensors: what is written to one (``out``, gradients, running statistics) counts as a change of it, so
that autograd refuses to use what it had saved of it. A result lies in memory that normkit has allocated:
``resize_`` cannot make it larger (``result.clone()`` can be resized).
"""

from ._ext import (
    adaptive_instance_norm,
    adaptive_instance_norm_backward,
    add_layer_norm,
    add_layer_norm_backward,
    add_rms_norm,
    add_rms_norm_backward,
    batch_norm,
    batch_norm_backward,
    dynamic_tanh,
    dynamic_tanh_backward,
    fold_batch_norm,
    group_norm,
    group_norm_backward,
    instance_norm,
    instance_norm_backward,
    layer_norm,
    layer_norm_backward,
    local_response_norm,
    local_response_norm_backward,
    min_max_scale,
    normalize,
    normalize_backward,
    rms_norm,
    rms_norm_backward,
    switchable_norm,
    switchable_norm_backward,
    weight_norm,
    weight_norm_backward,
    z_score,
)
from .pattern import norm, norm_backward

__all__ = [
    "adaptive_instance_norm",
    "adaptive_instance_norm_backward",
    "add_layer_norm",
    "add_layer_norm_backward",
    "add_rms_norm",
    "add_rms_norm_backward",
    "batch_norm",
    "batch_norm_backward",
    "dynamic_tanh",
    "dynamic_tanh_backward",
    "fold_batch_norm",
    "group_norm",
    "group_norm_backward",
    "instance_norm",
    "instance_norm_backward",
    "layer_norm",
    "layer_norm_backward",
    "local_response_norm",
    "local_response_norm_backward",
    "min_max_scale",
    "norm",
    "norm_backward",
    "normalize",
    "normalize_backward",
    "rms_norm",
    "rms_norm_backward",
    "switchable_norm",
    "switchable_norm_backward",
    "weight_norm",
    "weight_norm_backward",
    "z_score",
]
