"""Modules as in ``torch.nn``, with NumPy parameters and an explicit backward.

>>> import numpy as np
>>> import normkit as nk
>>> norm = nk.nn.LayerNorm(3)
>>> y = norm(np.arange(6, dtype=np.float32).reshape(2, 3))
>>> dx = norm.backward(np.ones_like(y))
>>> norm.grads["bias"]
array([2., 2., 2.], dtype=float32)
"""

from .channels import (
    AdaptiveInstanceNorm,
    BatchNorm1d,
    BatchNorm2d,
    BatchNorm3d,
    GroupNorm,
    InstanceNorm1d,
    InstanceNorm2d,
    InstanceNorm3d,
    SwitchableNorm,
)
from .maps import DynamicTanh
from .module import Module
from .rows import LayerNorm, RMSNorm
from .weights import WeightNorm
from .window import LocalResponseNorm

__all__ = [
    "AdaptiveInstanceNorm",
    "BatchNorm1d",
    "BatchNorm2d",
    "BatchNorm3d",
    "DynamicTanh",
    "GroupNorm",
    "InstanceNorm1d",
    "InstanceNorm2d",
    "InstanceNorm3d",
    "LayerNorm",
    "LocalResponseNorm",
    "Module",
    "RMSNorm",
    "SwitchableNorm",
    "WeightNorm",
]
