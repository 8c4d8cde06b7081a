"""The contenders. Each prepares a case once and gives a callable that runs it once.

``prepare(case, arrays)`` gives that callable or raises Unavailable with the reason; ``results(value)`` turns
what the callable returned into NumPy arrays: (y,) or (dx, dweight[, dbias]). Thread counts are set in
``prepare``, where the library allows it; a library that cannot run on the case's thread count stays out.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from functools import partial
from typing import Any, Protocol

import numpy as np

import normkit
from normkit import _info
from normkit.bench.cases import EPS, Array, Arrays, Case, numpy_dtype

Call = Callable[[], Any]
Scratch = list[Array] | list[None]


class Unavailable(Exception):
    """The contender cannot run this case; the message says why."""


class Peer(Protocol):
    """What every contender offers."""

    name: str
    version: str

    def prepare(self, case: Case, arrays: Arrays) -> Call:
        """A callable that runs the case once; Unavailable if that is impossible."""

    def results(self, value: Any) -> tuple[Array, ...]:
        """What the callable returned, as NumPy arrays."""


class Normkit:
    """normkit itself."""

    name = "normkit"
    version = normkit.__version__

    def prepare(self, case: Case, arrays: Arrays) -> Call:
        """Positional arguments as a user would pass them; ``out=`` for reused memory."""
        forward = case.which == "forward"
        function = getattr(normkit, case.operation + ("" if forward else "_backward"))
        parameters = [array for array in (arrays.weight, arrays.bias, EPS) if array is not None]
        outputs: dict[str, Any] = {}
        if forward:
            if case.memory == "reused":
                outputs["out"] = np.empty_like(arrays.x)
            return partial(function, arrays.x, case.n, *parameters, **outputs)
        outputs["rstd"] = arrays.rstd
        if arrays.mean is not None:
            outputs["mean"] = arrays.mean
        if case.memory == "reused":
            outputs["dx_out"] = np.empty_like(arrays.x)
            outputs["grads_out"] = (np.empty_like(arrays.weight), _empty_like(arrays.bias))
        return partial(function, arrays.dy, arrays.x, case.n, *parameters, **outputs)

    def results(self, value: Any) -> tuple[Array, ...]:
        """Drops the gradient of an absent bias."""
        return tuple(array for array in _as_tuple(value) if array is not None)


class Torch:
    """PyTorch's functional forwards; LayerNorm's backward is ATen's operator, RMSNorm's is autograd's."""

    name = "torch"

    def __init__(self) -> None:
        import torch

        self._torch = torch
        self.version = str(torch.__version__)

    def prepare(self, case: Case, arrays: Arrays) -> Call:
        """Tensors share the arrays' memory."""
        torch = self._torch
        torch.set_num_threads(case.threads)
        x, dy, weight = (self._tensor(array) for array in (arrays.x, arrays.dy, arrays.weight))
        bias = None if arrays.bias is None else self._tensor(arrays.bias)
        functional = torch.nn.functional
        if case.which == "forward":
            if bias is None:
                return partial(functional.rms_norm, x, (case.n,), weight, EPS)
            return partial(functional.layer_norm, x, (case.n,), weight, bias, EPS)
        if bias is None:
            x.requires_grad_(True)
            weight.requires_grad_(True)
            y = functional.rms_norm(x, (case.n,), weight, EPS)
            return partial(torch.autograd.grad, y, (x, weight), dy, retain_graph=True)
        aten = torch.ops.aten
        _, mean, rstd = aten.native_layer_norm(x, [case.n], weight, bias, EPS)
        want = [True, True, True]
        return partial(aten.native_layer_norm_backward, dy, x, [case.n], mean, rstd, weight, bias, want)

    def results(self, value: Any) -> tuple[Array, ...]:
        """bfloat16 leaves PyTorch as float32."""
        tensors = (tensor.detach() for tensor in _as_tuple(value))
        return tuple((t.float() if t.dtype == self._torch.bfloat16 else t).numpy() for t in tensors)

    def _tensor(self, array: Array) -> Any:
        if array.dtype.name == "bfloat16":
            return self._torch.from_numpy(array.view(np.int16)).view(self._torch.bfloat16)
        return self._torch.from_numpy(array)


class OnnxRuntime:
    """ONNX Runtime: a model of one node, inputs and outputs bound to the arrays' memory."""

    name = "onnxrt"

    def __init__(self) -> None:
        self._runtime = importlib.import_module("onnxruntime")
        self.version = self._runtime.__version__

    def prepare(self, case: Case, arrays: Arrays) -> Call:
        """IO binding for reused memory, ``session.run`` for natural memory."""
        if case.which == "backward":
            raise Unavailable("no training operators in the inference package")
        if case.dtype == "bfloat16":
            raise Unavailable("no bfloat16 kernel on the CPU")
        from normkit.bench import onnx_model

        options = self._runtime.SessionOptions()
        options.intra_op_num_threads = case.threads
        options.inter_op_num_threads = 1
        inputs = {"x": arrays.x, "weight": arrays.weight}
        if arrays.bias is not None:
            inputs["bias"] = arrays.bias
        shapes = {name: array.shape for name, array in inputs.items()}
        model = onnx_model.one_norm(case.operation, case.dtype, shapes, EPS)
        session = self._runtime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        if case.memory == "natural":
            return partial(session.run, None, inputs)
        y = np.empty_like(arrays.x)
        binding = session.io_binding()
        for name, array in inputs.items():
            binding.bind_input(name, "cpu", 0, array.dtype, array.shape, array.ctypes.data)
        binding.bind_output("y", "cpu", 0, y.dtype, y.shape, y.ctypes.data)

        def call() -> Any:
            session.run_with_iobinding(binding)
            return inputs, y  # named here, so that the bound memory lives as long as the binding

        return call

    def results(self, value: Any) -> tuple[Array, ...]:
        """The output, whether bound or fresh."""
        return (value[-1],)


class Jax:
    """JAX: the formula under jit, which XLA fuses. Its pool always has one thread per processor."""

    name = "jax"

    def __init__(self) -> None:
        import jax

        self._jax = jax
        self.version = jax.__version__

    def prepare(self, case: Case, arrays: Arrays) -> Call:
        """Arrays are copied to JAX once; a call ends when its results are there."""
        if case.threads != _info.usable_processors():
            raise Unavailable("its thread count is fixed at the number of processors")
        if case.dtype == "float64":
            raise Unavailable("float64 is off unless the process enables it")
        jax = self._jax
        given = [array for array in arrays if array is not None]
        statistics = sum(array is not None for array in (arrays.mean, arrays.rstd))
        on_device = [jax.numpy.asarray(a) for a in given[:-statistics]]
        on_device += [jax.numpy.asarray(a.astype(np.float32)) for a in given[-statistics:]]
        formula = jax.jit(_jax_formula(jax.numpy, case))

        def call() -> Any:
            return jax.block_until_ready(formula(*on_device))

        return call

    def results(self, value: Any) -> tuple[Array, ...]:
        """As NumPy arrays."""
        return tuple(np.asarray(array) for array in _as_tuple(value))


class Numpy:
    """NumPy: the formula in whole-array steps; bfloat16 and float16 are computed in float32."""

    name = "numpy"
    version = np.__version__

    def prepare(self, case: Case, arrays: Arrays) -> Call:
        """Intermediate arrays are kept between calls for reused memory, else made afresh."""
        if case.threads != 1:
            raise Unavailable("computes on one thread only")
        step = _numpy_forward if case.which == "forward" else _numpy_backward
        work = np.float64 if case.dtype == "float64" else np.float32
        shape = arrays.x.shape
        reused = case.memory == "reused"
        scratch = [np.empty(shape, work) for _ in range(2)] if reused else [None, None]
        y = np.empty(shape, numpy_dtype(case.dtype)) if reused else None
        return partial(step, arrays, work, scratch, y)

    def results(self, value: Any) -> tuple[Array, ...]:
        """Nothing to convert."""
        return _as_tuple(value)


PEERS: dict[str, Callable[[], Peer]] = {
    "normkit": Normkit,
    "torch": Torch,
    "onnxrt": OnnxRuntime,
    "jax": Jax,
    "numpy": Numpy,
}


def _jax_formula(jnp: Any, case: Case) -> Callable[..., Any]:
    def centre(x: Any, mean: Any) -> Any:
        centred = x.astype(jnp.float32)
        if case.operation == "layer_norm":
            centred = centred - (centred.mean(-1, keepdims=True) if mean is None else mean)
        return centred

    def forward(x: Any, dy: Any, weight: Any, *rest: Any) -> Any:
        centred = centre(x, None)
        y = centred / jnp.sqrt((centred * centred).mean(-1, keepdims=True) + EPS) * weight
        return ((y + rest[0]) if case.operation == "layer_norm" else y).astype(x.dtype)

    def backward(x: Any, dy: Any, weight: Any, *rest: Any) -> Any:
        mean, rstd = (rest[1], rest[2]) if case.operation == "layer_norm" else (None, rest[0])
        xhat = centre(x, mean) * rstd
        wide = dy.astype(jnp.float32)
        g = wide * weight
        dx = g - xhat * (g * xhat).mean(-1, keepdims=True)
        gradients = [(wide * xhat).sum(0)]
        if mean is not None:
            dx = dx - g.mean(-1, keepdims=True)
            gradients.append(wide.sum(0))
        return tuple(array.astype(x.dtype) for array in (dx * rstd, *gradients))

    return forward if case.which == "forward" else backward


def _numpy_forward(arrays: Arrays, work: Any, scratch: Scratch, y: Array | None) -> tuple[Array, ...]:
    x = arrays.x.astype(work, copy=False)
    if arrays.mean is not None:
        x = np.subtract(x, x.mean(axis=-1, keepdims=True), out=scratch[0])
    variance = np.einsum("ri,ri->r", x, x)[:, None] / work(x.shape[-1])
    result = np.multiply(x, 1 / np.sqrt(variance + work(EPS)), out=scratch[0])
    result *= arrays.weight.astype(work, copy=False)
    if arrays.bias is not None:
        result += arrays.bias.astype(work, copy=False)
    return (_stored(result, arrays.x.dtype, y),)


def _numpy_backward(arrays: Arrays, work: Any, scratch: Scratch, y: Array | None) -> tuple[Array, ...]:
    x, dy, weight = (array.astype(work, copy=False) for array in (arrays.x, arrays.dy, arrays.weight))
    rstd, n = arrays.rstd.astype(work, copy=False), work(x.shape[-1])
    if arrays.mean is not None:
        x = np.subtract(x, arrays.mean.astype(work, copy=False), out=scratch[0])
    xhat = np.multiply(x, rstd, out=scratch[0])
    gradients = [np.einsum("ri,ri->i", dy, xhat)]
    g = np.multiply(dy, weight, out=scratch[1])
    b = np.einsum("ri,ri->r", g, xhat)[:, None] / n
    if arrays.mean is not None:
        gradients.append(dy.sum(axis=0))
        g -= g.mean(axis=-1, keepdims=True)
    xhat *= b
    g -= xhat
    g *= rstd
    return (_stored(g, arrays.x.dtype, y), *gradients)


def _stored(values: Array, dtype: np.dtype[Any], y: Array | None) -> Array:
    """The values in the case's type, in y's memory if there is one."""
    if y is None:
        return values.astype(dtype, copy=False)
    np.copyto(y, values, casting="same_kind" if dtype.kind == "f" else "unsafe")
    return y


def _as_tuple(value: Any) -> tuple[Any, ...]:
    return tuple(value) if isinstance(value, (tuple, list)) else (value,)


def _empty_like(array: Array | None) -> Array | None:
    return None if array is None else np.empty_like(array)
