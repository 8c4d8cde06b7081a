"""PyTorch: its functions on tensors that share the arrays' memory."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from types import SimpleNamespace
from typing import Any

import numpy as np

from normkit.bench.cases import Case
from normkit.bench.operations import EPS, GROUPS, Array, Arrays
from normkit.bench.peers.protocol import Call, as_tuple, entry

MODULES = {"layer_norm": "LayerNorm", "rms_norm": "RMSNorm"}
MOMENTUM = 0.1


def _layer_norm_channels(f: Any, a: Any, layout: str) -> Call:
    def call() -> Any:
        y = f.layer_norm(a.x.permute(0, 2, 3, 1), a.weight.shape, a.weight, a.bias, EPS).permute(0, 3, 1, 2)
        return y.contiguous() if layout == "nchw" else y

    return call


def _add_then(t: Any, norm: Callable[[Any], Any], a: Any, reused: bool) -> Call:
    """The sum has a true ``out=`` for reused memory."""
    total = a.x.new_empty(a.x.shape) if reused else None

    def call() -> Any:
        summed = t.add(a.x, a.residual, out=total)
        return norm(summed), summed

    return call


# Of torch, the operands and the case: what runs the forward once.
FORWARD: dict[str, Callable[[Any, Any, Case], Call]] = {
    "layer_norm": lambda t, a, c: partial(
        t.nn.functional.layer_norm, a.x, a.weight.shape, a.weight, a.bias, EPS
    ),
    "rms_norm": lambda t, a, c: partial(t.nn.functional.rms_norm, a.x, a.weight.shape, a.weight, EPS),
    "add_layer_norm": lambda t, a, c: _add_then(
        t,
        lambda s: t.nn.functional.layer_norm(s, a.weight.shape, a.weight, a.bias, EPS),
        a,
        c.memory == "reused",
    ),
    "add_rms_norm": lambda t, a, c: _add_then(
        t, lambda s: t.nn.functional.rms_norm(s, a.weight.shape, a.weight, EPS), a, c.memory == "reused"
    ),
    "batch_norm": lambda t, a, c: partial(
        t.nn.functional.batch_norm, a.x, a.running_mean, a.running_var, a.weight, a.bias, True, MOMENTUM, EPS
    ),
    "batch_norm_inference": lambda t, a, c: partial(
        t.nn.functional.batch_norm, a.x, a.running_mean, a.running_var, a.weight, a.bias, False, MOMENTUM, EPS
    ),
    "instance_norm": lambda t, a, c: partial(
        t.nn.functional.instance_norm, a.x, None, None, a.weight, a.bias, True, MOMENTUM, EPS
    ),
    "group_norm": lambda t, a, c: partial(t.nn.functional.group_norm, a.x, GROUPS, a.weight, a.bias, EPS),
    "normalize_p3": lambda t, a, c: partial(t.nn.functional.normalize, a.x, 3.0, 1),
    "layer_norm_channels": lambda t, a, c: _layer_norm_channels(t.nn.functional, a, c.layout),
}


def _layer_norm_backward(aten: Any, a: Any) -> Call:
    shape = list(a.weight.shape)
    _, mean, rstd = aten.native_layer_norm(a.x, shape, a.weight, a.bias, EPS)
    return partial(
        aten.native_layer_norm_backward, a.dy, a.x, shape, mean, rstd, a.weight, a.bias, [True] * 3
    )


def _batch_norm_backward(aten: Any, a: Any) -> Call:
    running = a.running_mean, a.running_var
    _, mean, rstd = aten.native_batch_norm(a.x, a.weight, a.bias, *running, True, MOMENTUM, EPS)
    return partial(
        aten.native_batch_norm_backward, a.dy, a.x, a.weight, *running, mean, rstd, True, EPS, [True] * 3
    )


def _group_norm_backward(aten: Any, a: Any) -> Call:
    n, c, *space = a.x.shape
    sizes = n, c, int(np.prod(space)), GROUPS
    _, mean, rstd = aten.native_group_norm(a.x, a.weight, a.bias, *sizes, EPS)
    return partial(aten.native_group_norm_backward, a.dy, a.x, mean, rstd, a.weight, *sizes, [True] * 3)


# ATen's own backward, given the saved statistics; the others go through autograd.
BACKWARD: dict[str, Callable[[Any, Any], Call]] = {
    "layer_norm": _layer_norm_backward,
    "batch_norm": _batch_norm_backward,
    "group_norm": _group_norm_backward,
}


def tensors(arrays: Arrays) -> Any:
    """The arrays as tensors that share their memory; running statistics, which change, as copies."""
    import torch

    def tensor(name: str, array: Array) -> Any:
        if name.startswith("running"):
            array = array.copy()
        if array.dtype.name == "bfloat16":
            return torch.from_numpy(array.view(np.int16)).view(torch.bfloat16)
        return torch.from_numpy(array)

    found = {name: tensor(name, array) for name, array in arrays._asdict().items() if array is not None}
    return SimpleNamespace(**(dict.fromkeys(Arrays._fields) | found))


class Torch:
    """PyTorch."""

    name = "torch"

    def __init__(self) -> None:
        import torch

        self._torch = torch
        self.version = f"{torch.__version__} ({torch.backends.cpu.get_cpu_capability()})"

    def prepare(self, case: Case, arrays: Arrays) -> Call:
        """A function or a module; gradients by ATen's operator where it has one, else by autograd."""
        torch = self._torch
        torch.set_num_threads(case.threads)
        a = tensors(arrays)
        if case.call == "module":
            return self._module(case, a)
        make = entry(FORWARD, case)
        if case.which == "forward":
            call: Call = make(torch, a, case)
            return call
        if case.which == "backward" and case.operation in BACKWARD:
            return BACKWARD[case.operation](torch.ops.aten, a)
        wanted = [tensor.requires_grad_(True) for tensor in (a.x, a.weight, a.bias) if tensor is not None]
        forward = make(torch, a, case)
        if case.which == "backward":
            return partial(torch.autograd.grad, forward(), wanted, a.dy, retain_graph=True)

        def both() -> Any:
            y = forward()
            return y, *torch.autograd.grad(y, wanted, a.dy)

        return both

    def results(self, value: Any) -> tuple[Array, ...]:
        """bfloat16 leaves PyTorch as float32."""
        tensors = (tensor.detach() for tensor in as_tuple(value))
        return tuple((t.float() if t.dtype == self._torch.bfloat16 else t).numpy() for t in tensors)

    def _module(self, case: Case, a: Any) -> Call:
        name = entry(MODULES, case)
        module = getattr(self._torch.nn, name)(case.channels, EPS, dtype=a.x.dtype)
        module.weight.data.copy_(a.weight)
        if a.bias is not None:
            module.bias.data.copy_(a.bias)
        return partial(module.requires_grad_(False).eval(), a.x)
