"""Modules over rows: LayerNorm, RMSNorm."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Any

import numpy as np

from .. import _ext, functional
from .module import Module


def _shape(normalized_shape: int | Sequence[int]) -> tuple[int, ...]:
    try:
        return (operator.index(normalized_shape),)  # type: ignore[arg-type]
    except TypeError:
        return tuple(operator.index(size) for size in normalized_shape)  # type: ignore[union-attr]


class LayerNorm(Module):
    """LayerNorm over the last axes; see :func:`normkit.functional.layer_norm`.

    Arguments, attributes and state as in ``torch.nn.LayerNorm``; ``dtype`` is that of the NumPy parameters.
    ``LayerNorm(C, axis=1)`` normalizes NCHW over its channels.
    """

    _parameters = ("weight", "bias")

    def __init__(
        self,
        normalized_shape: int | Sequence[int],
        eps: float = 1e-5,
        elementwise_affine: bool = True,
        bias: bool = True,
        *,
        axis: int | Sequence[int] | None = None,
        dtype: Any = np.float32,
    ) -> None:
        super().__init__()
        self.normalized_shape = _shape(normalized_shape)
        self.eps = eps
        self.axis = axis
        self.elementwise_affine = _ext._flag(elementwise_affine, "elementwise_affine")
        with_bias = _ext._flag(bias, "bias") and elementwise_affine
        self.weight: Any = np.ones(self.normalized_shape, dtype) if elementwise_affine else None
        self.bias: Any = np.zeros(self.normalized_shape, dtype) if with_bias else None

    def _evaluate(self, x: Any, out: Any) -> Any:
        return functional.layer_norm(
            x, self.normalized_shape, self.weight, self.bias, self.eps, axis=self.axis, out=out
        )

    def _forward(self, x: Any, out: Any) -> tuple[Any, Any]:
        arguments = (x, self.normalized_shape, self.weight, self.bias, self.eps)
        y, mean, rstd = functional.layer_norm(*arguments, axis=self.axis, return_stats=True, out=out)
        return y, (mean, rstd)

    def _backward(self, dy: Any, x: Any, saved: Any) -> tuple[Any, dict[str, Any]]:
        mean, rstd = saved
        arguments = (dy, x, self.normalized_shape, self.weight, self.bias, self.eps)
        dx, dweight, dbias = functional.layer_norm_backward(*arguments, axis=self.axis, mean=mean, rstd=rstd)
        return dx, {"weight": dweight, "bias": dbias}

    def extra_repr(self) -> str:
        affine = f"elementwise_affine={self.elementwise_affine}, bias={self.bias is not None}"
        return f"{self.normalized_shape}, eps={self.eps}, {affine}"


class RMSNorm(Module):
    """RMSNorm over the last axes; see :func:`normkit.functional.rms_norm`.

    Arguments, attributes and state as in ``torch.nn.RMSNorm``; ``dtype`` is that of the NumPy parameters.
    With ``bias`` there is one to add. ``weight_offset`` is added to the weight (1.0 for models that store
    weight - 1), which begins with 1 less it.
    """

    _parameters = ("weight", "bias")

    def __init__(
        self,
        normalized_shape: int | Sequence[int],
        eps: float | None = None,
        elementwise_affine: bool = True,
        *,
        bias: bool = False,
        weight_offset: float = 0.0,
        axis: int | Sequence[int] | None = None,
        dtype: Any = np.float32,
    ) -> None:
        super().__init__()
        self.normalized_shape = _shape(normalized_shape)
        self.eps = eps
        self.weight_offset = weight_offset
        self.axis = axis
        self.elementwise_affine = _ext._flag(elementwise_affine, "elementwise_affine")
        with_bias = _ext._flag(bias, "bias") and elementwise_affine
        first = 1.0 - weight_offset
        self.weight: Any = np.full(self.normalized_shape, first, dtype) if elementwise_affine else None
        self.bias: Any = np.zeros(self.normalized_shape, dtype) if with_bias else None

    def _keywords(self) -> dict[str, Any]:
        return {"bias": self.bias, "weight_offset": self.weight_offset, "axis": self.axis}

    def _evaluate(self, x: Any, out: Any) -> Any:
        return functional.rms_norm(
            x, self.normalized_shape, self.weight, self.eps, **self._keywords(), out=out
        )

    def _forward(self, x: Any, out: Any) -> tuple[Any, Any]:
        arguments = (x, self.normalized_shape, self.weight, self.eps)
        y, rstd = functional.rms_norm(*arguments, **self._keywords(), return_stats=True, out=out)
        return y, rstd

    def _backward(self, dy: Any, x: Any, saved: Any) -> tuple[Any, dict[str, Any]]:
        dx, dweight, dbias = functional.rms_norm_backward(
            dy, x, self.normalized_shape, self.weight, self.eps, **self._keywords(), rstd=saved
        )
        return dx, {"weight": dweight, "bias": dbias}

    def extra_repr(self) -> str:
        affine = f"elementwise_affine={self.elementwise_affine}, bias={self.bias is not None}"
        return f"{self.normalized_shape}, eps={self.eps}, {affine}, weight_offset={self.weight_offset}"
