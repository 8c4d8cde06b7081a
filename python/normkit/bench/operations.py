"""What each operation computes, as data, and its float64 results, which every contender must reproduce.

An operation is the standardization of sets: the elements of ``x.reshape(view)`` that differ only along
``axes`` share their statistics; weight and bias run along the axes ``affine``. A new operation is one entry
here, and one in every contender that has it. What is no standardization brings its formula.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

EPS = 1e-5
GROUPS = 32
# Elements of x that the reference handles at a time, where sets do not cross samples: bounds its memory.
PART = 2**22

Array = npt.NDArray[Any]
Shape = tuple[int, ...]


class Operation(NamedTuple):
    """The geometry of an operation, and which operands it has."""

    rank: int  # of x: 2 is [rows, n], 4 is [N, C, H, W]
    axes: Shape
    affine: Shape
    view: Callable[[Shape], Shape] = lambda shape: shape
    centred: bool = True  # False for RMSNorm, which has no mean and no bias
    residual: bool = False  # x + residual is what is normalized, and the second result
    given: bool = False  # statistics are given, not computed
    running: bool = False  # running statistics are an operand
    formula: Callable[[Array], Array] | None = None  # of what is no standardization: y of x, in float64

    @property
    def forward_only(self) -> bool:
        """Whether its backward is that of another operation."""
        return self.residual or self.given or self.formula is not None


def _grouped(shape: Shape) -> Shape:
    n, channels, *space = shape
    return (n, GROUPS, channels // GROUPS, *space)


def _normalize_p3(x: Array) -> Array:
    y: Array = x / np.cbrt((np.abs(x) ** 3).sum(axis=1, keepdims=True))
    return y


OPERATIONS: dict[str, Operation] = {
    "layer_norm": Operation(2, (1,), (1,)),
    "rms_norm": Operation(2, (1,), (1,), centred=False),
    "add_layer_norm": Operation(2, (1,), (1,), residual=True),
    "add_rms_norm": Operation(2, (1,), (1,), centred=False, residual=True),
    "batch_norm": Operation(4, (0, 2, 3), (1,), running=True),
    "batch_norm_inference": Operation(4, (0, 2, 3), (1,), running=True, given=True),
    "instance_norm": Operation(4, (2, 3), (1,)),
    "group_norm": Operation(4, (2, 3, 4), (1, 2), view=_grouped),
    "layer_norm_channels": Operation(4, (1,), (1,)),
    "normalize_p3": Operation(2, (1,), (1,), formula=_normalize_p3),
}


class Arrays(NamedTuple):
    """Inputs of a case, the same memory for every contender where it can take it; None where it has none.

    ``mean`` and ``rstd`` are the saved statistics of x for a backward, with ones at the normalized axes of
    the operation's view; images in NHWC memory are strided [N, C, H, W] views of it.
    """

    x: Array
    dy: Array | None
    weight: Array
    bias: Array | None
    residual: Array | None
    running_mean: Array | None
    running_var: Array | None
    mean: Array | None
    rstd: Array | None


def along(vector: Array, view: Shape, affine: Shape) -> Array:
    """Weight or bias in the shape that broadcasts over the view."""
    return vector.reshape([size if axis in affine else 1 for axis, size in enumerate(view)])


def statistics(operation: Operation, x: Array) -> tuple[Array, Array]:
    """(mean, rstd) of a float64 array in the operation's view; the mean is 0 for RMSNorm."""
    mean = x.mean(axis=operation.axes, keepdims=True)
    if not operation.centred:
        mean = np.zeros_like(mean)
    variance = np.square(x - mean).mean(axis=operation.axes, keepdims=True)
    return mean, 1 / np.sqrt(variance + EPS)


def expected(operation: Operation, which: str, arrays: Arrays, part: slice) -> tuple[Array, ...]:
    """Forward: (y,) or (y, sum). Backward: (dx, dweight[, dbias]). Both: the one, then the other."""
    x = arrays.x[part].astype(np.float64)
    if arrays.residual is not None:
        # The sum in x's own precision is what is returned, and normalized.
        x = (arrays.x[part] + arrays.residual[part]).astype(np.float64)
    if operation.formula is not None:
        return (operation.formula(x),)
    view = operation.view(x.shape)
    weight = along(arrays.weight.astype(np.float64), view, operation.affine)
    grouped = x.reshape(view)
    if operation.given:
        assert arrays.running_mean is not None and arrays.running_var is not None
        mean = along(arrays.running_mean.astype(np.float64), view, operation.affine)
        variance = along(arrays.running_var.astype(np.float64), view, operation.affine)
        rstd = 1 / np.sqrt(variance + EPS)
    else:
        mean, rstd = statistics(operation, grouped)
    xhat = (grouped - mean) * rstd
    results: tuple[Array, ...] = ()
    if which != "backward":
        y = xhat * weight
        if arrays.bias is not None:
            y += along(arrays.bias.astype(np.float64), view, operation.affine)
        results = (y.reshape(x.shape),) + ((x,) if operation.residual else ())
    if which != "forward":
        assert arrays.dy is not None
        dy = arrays.dy.astype(np.float64).reshape(view)
        others = tuple(axis for axis in range(len(view)) if axis not in operation.affine)
        gradients = [(dy * xhat).sum(axis=others).ravel()]
        g = dy * weight
        dx = g - xhat * (g * xhat).mean(axis=operation.axes, keepdims=True)
        if operation.centred:
            dx -= g.mean(axis=operation.axes, keepdims=True)
            gradients.append(dy.sum(axis=others).ravel())
        results += ((dx * rstd).reshape(x.shape), *gradients)
    return results


def worst_errors(
    operation: Operation, which: str, arrays: Arrays, computed: dict[str, tuple[Array, ...]]
) -> dict[str, float]:
    """Of each contender, over all its results: the largest difference as a share of the largest value."""
    largest: list[float] = []
    differences: dict[str, list[float]] = {name: [] for name in computed}
    for part in _parts(operation, which, arrays.x.shape):
        exact = expected(operation, which, arrays, part)
        _raise_to(largest, [float(np.max(np.abs(want))) for want in exact])
        for name, results in computed.items():
            got = [np.asarray(values)[part].astype(np.float64) for values in results]
            if [values.shape for values in got] != [want.shape for want in exact]:
                raise ValueError(f"{name}: results of wrong shapes {[values.shape for values in got]}")
            found = [float(np.max(np.abs(one - want))) for one, want in zip(got, exact, strict=True)]
            _raise_to(differences[name], [value if value == value else np.inf for value in found])
    return {
        name: max(difference / scale for difference, scale in zip(found, largest, strict=True))
        for name, found in differences.items()
    }


def _parts(operation: Operation, which: str, shape: Shape) -> Iterator[slice]:
    """Pieces along the first axis, where no result depends on two of them."""
    independent = which == "forward" and (0 not in operation.axes or operation.given)
    step = max(1, PART // math.prod(shape[1:])) if independent else shape[0]
    for begin in range(0, shape[0], step):
        yield slice(begin, min(begin + step, shape[0])) if independent else slice(None)


def _raise_to(values: list[float], others: list[float]) -> None:
    values[:] = others if not values else [max(pair) for pair in zip(values, others, strict=True)]
