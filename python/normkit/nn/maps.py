"""Elementwise modules that stand in for a norm: DynamicTanh."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from .. import _ext, functional
from .module import Module
from .rows import _shape


class DynamicTanh(Module):
    """DyT, weight tanh(alpha x) + bias; see :func:`normkit.functional.dynamic_tanh`.

    Parameters as in the paper's code (arXiv:2503.10622): ``alpha`` of shape (1,), ``weight`` and ``bias`` of
    shape (C,). ``normalized_shape`` is C, the size of ``axis``: the last one, 1 for NCHW. ``dtype`` is the
    parameters'.
    """

    _parameters = ("alpha", "weight", "bias")

    def __init__(
        self,
        normalized_shape: int | Sequence[int],
        alpha_init_value: float = 0.5,
        elementwise_affine: bool = True,
        bias: bool = True,
        *,
        axis: int = -1,
        dtype: Any = np.float32,
    ) -> None:
        super().__init__()
        self.normalized_shape = _shape(normalized_shape)
        if len(self.normalized_shape) != 1:
            raise ValueError(
                f"normalized_shape is {self.normalized_shape}; it should be one size, that of the channels"
            )
        self.alpha_init_value = alpha_init_value
        self.elementwise_affine = _ext._flag(elementwise_affine, "elementwise_affine")
        with_bias = _ext._flag(bias, "bias") and elementwise_affine
        self.axis = axis
        self.alpha: Any = np.full(1, alpha_init_value, dtype)
        self.weight: Any = np.ones(self.normalized_shape, dtype) if elementwise_affine else None
        self.bias: Any = np.zeros(self.normalized_shape, dtype) if with_bias else None

    def _forward(self, x: Any, out: Any) -> tuple[Any, Any]:
        return functional.dynamic_tanh(x, self.alpha, self.weight, self.bias, axis=self.axis, out=out), None

    def _backward(self, dy: Any, x: Any, saved: Any) -> tuple[Any, dict[str, Any]]:
        dx, dalpha, dweight, dbias = functional.dynamic_tanh_backward(
            dy, x, self.alpha, self.weight, self.bias, axis=self.axis
        )
        return dx, {"alpha": dalpha, "weight": dweight, "bias": dbias}

    def extra_repr(self) -> str:
        affine = f"elementwise_affine={self.elementwise_affine}, bias={self.bias is not None}"
        return (
            f"{self.normalized_shape}, alpha_init_value={self.alpha_init_value}, {affine}, axis={self.axis}"
        )
