"""CUDA devices: whether this build has kernels for them, and which there are.

A build with kernels (``pip install . -Ccmake.define.NORMKIT_CUDA=ON``) takes PyTorch and CuPy arrays on
CUDA devices wherever the operation has kernels: layer_norm, rms_norm, batch_norm, instance_norm,
group_norm, add_layer_norm, add_rms_norm, norm and their gradients. All arrays of a call lie on one device,
and the results' bits are the CPU's.

The kernels are enqueued on the current stream of x's library, and nothing waits for them. Results and
workspace come from its allocator. Arrays of other libraries are read behind what is on their own current
streams (DLPack sees to that); as those streams know nothing of x's, such a call ends when its kernels have.
"""

from __future__ import annotations

import operator
from typing import NamedTuple

from . import _ext

__all__ = ["DeviceProperties", "device_count", "device_properties", "is_available", "is_built"]


class DeviceProperties(NamedTuple):
    """What a CUDA device is."""

    name: str
    compute_capability: tuple[int, int]
    memory_bytes: int
    multiprocessors: int
    l2_bytes: int


def is_built() -> bool:
    """Whether this build of normkit has CUDA kernels."""
    return _ext._cuda_architectures() is not None


def is_available() -> bool:
    """Whether this build has CUDA kernels, and there is a device to run them; never an exception."""
    return device_count() > 0


def device_count() -> int:
    """How many CUDA devices this process may use; 0 in a build without CUDA or where there is no driver."""
    return _ext._cuda_device_count()


def device_properties(device: int = 0) -> DeviceProperties:
    """What CUDA tells about a device; ValueError if it does not exist."""
    found = _ext._cuda_device_properties(operator.index(device))
    if found is None:
        raise ValueError(f"device is {device}; it should be the number of a CUDA device, of {device_count()}")
    return DeviceProperties(*found)
