"""normkit itself, and itself on one thread."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

import normkit
from normkit.bench.cases import Case
from normkit.bench.memory import empty_like
from normkit.bench.operations import EPS, GROUPS, Array, Arrays
from normkit.bench.peers.protocol import Call, Unavailable, as_tuple, entry
from normkit.bench.peers.pytorch import tensors

MOMENTUM = 0.1
MODULES = {"layer_norm": "LayerNorm", "rms_norm": "RMSNorm"}

# The function's name, and its arguments after x; those by keyword in a dictionary at the end.
ARGUMENTS: dict[str, tuple[str, Callable[[Arrays], tuple[Any, ...]]]] = {
    "layer_norm": ("layer_norm", lambda a: (a.weight.shape, a.weight, a.bias, EPS)),
    "rms_norm": ("rms_norm", lambda a: (a.weight.shape, a.weight, EPS)),
    "add_layer_norm": ("add_layer_norm", lambda a: (a.residual, a.weight.shape, a.weight, a.bias, EPS)),
    "add_rms_norm": ("add_rms_norm", lambda a: (a.residual, a.weight.shape, a.weight, EPS)),
    "batch_norm": (
        "batch_norm",
        lambda a: (a.running_mean, a.running_var, a.weight, a.bias, True, MOMENTUM, EPS),
    ),
    "batch_norm_inference": (
        "batch_norm",
        lambda a: (a.running_mean, a.running_var, a.weight, a.bias, False, MOMENTUM, EPS),
    ),
    "instance_norm": ("instance_norm", lambda a: (None, None, a.weight, a.bias, True, MOMENTUM, EPS)),
    "group_norm": ("group_norm", lambda a: (GROUPS, a.weight, a.bias, EPS)),
    "normalize_p3": ("normalize", lambda a: (3.0, 1)),
    "layer_norm_channels": (
        "layer_norm",
        lambda a: (a.weight.shape, a.weight, a.bias, EPS, {"axis": 1}),
    ),
}


class Normkit:
    """normkit's functions, called as a user would; ``out=`` and its kin for reused memory."""

    name = "normkit"
    version = normkit.__version__

    def prepare(self, case: Case, arrays: Arrays) -> Call:
        """The function with all its arguments."""
        if case.call == "module":
            return self._module(case, arrays)
        name, rest = entry(ARGUMENTS, case)
        if case.arrays == "torch" and importlib.util.find_spec("torch") is None:
            raise Unavailable("PyTorch is not installed")
        arrays = _own_running(arrays) if case.arrays == "numpy" else tensors(arrays)
        *arguments, last = rest(arrays)
        options = last if isinstance(last, dict) else {}
        arguments = arguments if isinstance(last, dict) else [*arguments, last]
        forward = partial(getattr(normkit, name), arrays.x, *arguments, **options)
        outputs = _forward_outputs(case, arrays)
        if case.which == "forward":
            return partial(forward, **outputs)
        backward = partial(getattr(normkit, f"{name}_backward"), arrays.dy, arrays.x, *arguments, **options)
        gradients = _backward_outputs(case, arrays)
        if case.which == "backward":
            return partial(backward, **_saved_statistics(case, arrays), **gradients)
        if case.geometry.centred:

            def both() -> Any:
                y, mean, rstd = forward(return_stats=True, **outputs)
                return y, *backward(mean=mean, rstd=rstd, **gradients)
        else:

            def both() -> Any:
                y, rstd = forward(return_stats=True, **outputs)
                return y, *backward(rstd=rstd, **gradients)

        return both

    def results(self, value: Any) -> tuple[Array, ...]:
        """Drops the gradient of an absent bias; PyTorch's tensors as NumPy arrays."""
        return tuple(np.asarray(array) for array in as_tuple(value) if array is not None)

    def _module(self, case: Case, arrays: Arrays) -> Call:
        make = getattr(normkit.nn, entry(MODULES, case))
        module = make(case.channels, EPS, dtype=arrays.weight.dtype)
        module.load_state_dict(
            {"weight": arrays.weight} | ({} if arrays.bias is None else {"bias": arrays.bias})
        )
        module.eval()
        return partial(module, arrays.x, **_forward_outputs(case, arrays))


class Serial(Normkit):
    """normkit on one thread, whatever the case allows: what threads gain or cost."""

    name = "serial"

    def prepare(self, case: Case, arrays: Arrays) -> Call:
        """The same as normkit; the measurement holds it to one thread."""
        if case.threads == 1:
            raise Unavailable("is normkit itself on one thread")
        return super().prepare(case, arrays)


def _own_running(arrays: Arrays) -> Arrays:
    """Running statistics change: copies of them."""
    if arrays.running_mean is None or arrays.running_var is None:
        return arrays
    return arrays._replace(running_mean=arrays.running_mean.copy(), running_var=arrays.running_var.copy())


def _forward_outputs(case: Case, arrays: Arrays) -> dict[str, Any]:
    if case.memory == "natural":
        return {}
    y = _empty_like(arrays.x)
    return {"out": (y, _empty_like(arrays.x)) if case.geometry.residual else y}


def _backward_outputs(case: Case, arrays: Arrays) -> dict[str, Any]:
    if case.memory == "natural":
        return {}
    bias = None if arrays.bias is None else _empty_like(arrays.bias)
    return {"dx_out": _empty_like(arrays.x), "grads_out": (_empty_like(arrays.weight), bias)}


def _saved_statistics(case: Case, arrays: Arrays) -> dict[str, Any]:
    """In the shapes of normkit: (C,), (N, C) or (N, G) for the norms with channels, else with ones."""
    saved = {"mean": arrays.mean, "rstd": arrays.rstd}
    kept = "layer_norm" in case.operation or "rms_norm" in case.operation
    view = case.geometry.view(case.shape)
    own = [size for axis, size in enumerate(view) if axis not in case.geometry.axes]
    return {name: array if kept else array.reshape(own) for name, array in saved.items() if array is not None}


def _empty_like(array: Any) -> Any:
    return empty_like(array) if isinstance(array, np.ndarray) else array.new_empty(array.shape)
