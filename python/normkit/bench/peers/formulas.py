"""NumPy and JAX: the formula, over whole arrays and under jit."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from normkit import _info
from normkit.bench.cases import Case, numpy_dtype
from normkit.bench.memory import empty_like
from normkit.bench.operations import EPS, Array, Arrays, along
from normkit.bench.peers.protocol import (
    Call,
    Unavailable,
    as_tuple,
    c_order_only,
    plain_only,
    standardizations_only,
)

Scratch = list[Array] | list[None]


class Numpy:
    """NumPy: the formula in whole-array steps; bfloat16 and float16 are computed in float32."""

    name = "numpy"
    version = np.__version__

    def prepare(self, case: Case, arrays: Arrays) -> Call:
        """Intermediate arrays are kept between calls for reused memory, else made afresh."""
        plain_only(case)
        standardizations_only(case)
        if case.threads != 1:
            raise Unavailable("computes on one thread only")
        if case.which == "both":
            raise Unavailable("forward and backward are timed apart")
        work = np.float64 if case.dtype == "float64" else np.float32
        reused = case.memory == "reused"
        scratch = [empty_like(arrays.x, work) for _ in range(2)] if reused else [None, None]
        y = empty_like(arrays.x) if reused else None
        step = _numpy_forward if case.which == "forward" else _numpy_backward
        return partial(step, case, arrays, work, scratch, y)

    def results(self, value: Any) -> tuple[Array, ...]:
        """Nothing to convert."""
        return as_tuple(value)


def _numpy_forward(
    case: Case, arrays: Arrays, work: Any, scratch: Scratch, y: Array | None
) -> tuple[Array, ...]:
    operation, x = case.geometry, arrays.x
    summed = () if arrays.residual is None else (np.add(x, arrays.residual),)
    view = operation.view(x.shape)
    wide = (summed[0] if summed else x).astype(work, copy=False).reshape(view)
    first, second = (None if array is None else array.reshape(view) for array in scratch)
    if operation.given:
        assert arrays.running_mean is not None and arrays.running_var is not None
        centred = np.subtract(wide, along(arrays.running_mean, view, operation.affine), out=first)
        variance = along(arrays.running_var, view, operation.affine)
    else:
        mean = wide.mean(axis=operation.axes, keepdims=True) if operation.centred else None
        centred = wide if mean is None else np.subtract(wide, mean, out=first)
        variance = np.square(centred, out=second).mean(axis=operation.axes, keepdims=True)
    result = np.multiply(centred, 1 / np.sqrt(variance + work(EPS)), out=first)
    result *= along(arrays.weight.astype(work, copy=False), view, operation.affine)
    if arrays.bias is not None:
        result += along(arrays.bias.astype(work, copy=False), view, operation.affine)
    return (_stored(result.reshape(x.shape), x.dtype, y), *summed)


def _numpy_backward(
    case: Case, arrays: Arrays, work: Any, scratch: Scratch, y: Array | None
) -> tuple[Array, ...]:
    assert arrays.dy is not None and arrays.rstd is not None
    operation, x = case.geometry, arrays.x
    view = operation.view(x.shape)
    others = tuple(axis for axis in range(len(view)) if axis not in operation.affine)
    wide, dy = (array.astype(work, copy=False).reshape(view) for array in (x, arrays.dy))
    first, second = (None if array is None else array.reshape(view) for array in scratch)
    rstd = arrays.rstd.astype(work, copy=False)
    if arrays.mean is not None:
        wide = np.subtract(wide, arrays.mean.astype(work, copy=False), out=first)
    xhat = np.multiply(wide, rstd, out=first)
    gradients = [np.multiply(dy, xhat, out=second).sum(axis=others).ravel()]
    g = np.multiply(dy, along(arrays.weight.astype(work, copy=False), view, operation.affine), out=second)
    b = (g * xhat).mean(axis=operation.axes, keepdims=True)
    if arrays.mean is not None:
        gradients.append(dy.sum(axis=others).ravel())
        g -= g.mean(axis=operation.axes, keepdims=True)
    xhat *= b
    g -= xhat
    g *= rstd
    return (_stored(g.reshape(x.shape), x.dtype, y), *gradients)


def _stored(values: Array, dtype: np.dtype[Any], y: Array | None) -> Array:
    """The values in the case's type, in y's memory if there is one."""
    if y is None:
        return values.astype(dtype, copy=False)
    np.copyto(y, values, casting="same_kind" if dtype.kind == "f" else "unsafe")
    return y


class Jax:
    """JAX: the formula under jit, which XLA fuses. Its pool always has one thread per processor."""

    name = "jax"

    def __init__(self) -> None:
        import jax

        self._jax = jax
        self.version = jax.__version__

    def prepare(self, case: Case, arrays: Arrays) -> Call:
        """Arrays are copied to JAX once; a call ends when its results are there."""
        plain_only(case)
        standardizations_only(case)
        c_order_only(case)
        if case.threads != _info.usable_processors():
            raise Unavailable("its thread count is fixed at the number of processors")
        if case.dtype == "float64":
            raise Unavailable("float64 is off unless the process enables it")
        if case.which == "both":
            raise Unavailable("forward and backward are timed apart")
        jax = self._jax
        given = {name: array for name, array in arrays._asdict().items() if array is not None}
        for name in ("mean", "rstd"):
            if name in given:
                given[name] = given[name].astype(np.float32)
        on_device = {name: jax.numpy.asarray(array) for name, array in given.items()}
        formula = jax.jit(_jax_formula(jax.numpy, case))

        def call() -> Any:
            return jax.block_until_ready(formula(on_device))

        return call

    def results(self, value: Any) -> tuple[Array, ...]:
        """As NumPy arrays."""
        return tuple(np.asarray(array) for array in as_tuple(value))


def _jax_formula(jnp: Any, case: Case) -> Callable[[dict[str, Any]], Any]:
    operation = case.geometry
    view, dtype = operation.view(case.shape), numpy_dtype(case.dtype)
    others = tuple(axis for axis in range(len(view)) if axis not in operation.affine)

    def mean_over(x: Any) -> Any:
        return x.mean(operation.axes, keepdims=True)

    def forward(a: dict[str, Any]) -> Any:
        summed = a["x"] + a["residual"] if operation.residual else a["x"]
        x = summed.astype(jnp.float32).reshape(view)
        if operation.given:
            x = x - along(a["running_mean"], view, operation.affine)
            variance = along(a["running_var"], view, operation.affine)
        else:
            x = x - mean_over(x) if operation.centred else x
            variance = mean_over(x * x)
        y = x / jnp.sqrt(variance + EPS) * along(a["weight"], view, operation.affine)
        y = y + along(a["bias"], view, operation.affine) if operation.centred else y
        y = y.astype(dtype).reshape(case.shape)
        return (y, summed) if operation.residual else y

    def backward(a: dict[str, Any]) -> Any:
        x, dy = (a[name].astype(jnp.float32).reshape(view) for name in ("x", "dy"))
        xhat = (x - a["mean"] if operation.centred else x) * a["rstd"]
        g = dy * along(a["weight"], view, operation.affine)
        dx = g - xhat * mean_over(g * xhat)
        gradients = [(dy * xhat).sum(others).ravel()]
        if operation.centred:
            dx = dx - mean_over(g)
            gradients.append(dy.sum(others).ravel())
        return tuple(array.astype(dtype) for array in ((dx * a["rstd"]).reshape(case.shape), *gradients))

    return forward if case.which == "forward" else backward
