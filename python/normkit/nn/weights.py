"""Modules that hold a weight rather than normalize activations."""

from __future__ import annotations

from typing import Any

import numpy as np

from .. import functional
from .module import Module


class WeightNorm(Module):
    """WeightNorm of a weight: ``module()`` is w = g v / norm(v); see :func:`normkit.functional.weight_norm`.

    Begins with the given weight: ``weight_v`` is a copy of it, ``weight_g`` its norms (v's rank with ones;
    state names of ``torch.nn.utils.weight_norm``). ``dim`` is the axis whose indices have norms of their own,
    None for the whole weight. ``backward(dw)`` returns dv; :attr:`grads` holds both gradients.
    """

    _parameters = ("weight_g", "weight_v")

    def __init__(self, weight: Any, dim: int | None = 0) -> None:
        super().__init__()
        self.dim = dim
        self.weight_v: Any = np.array(weight)
        others = tuple(i for i in range(self.weight_v.ndim) if dim is None or i != dim % self.weight_v.ndim)
        squares = np.square(self.weight_v, dtype=np.float64)
        self.weight_g: Any = np.sqrt(squares.sum(others, keepdims=True)).astype(self.weight_v.dtype)

    def __call__(self, *, out: Any = None) -> Any:  # type: ignore[override]
        w = functional.weight_norm(self.weight_v, self.weight_g, self.dim, out=out)
        if self.training:
            self._saved = (self.weight_v, None)
        return w

    def _backward(self, dy: Any, x: Any, saved: Any) -> tuple[Any, dict[str, Any]]:
        dv, dg = functional.weight_norm_backward(dy, x, self.weight_g, self.dim)
        return dv, {"weight_g": dg, "weight_v": dv}

    def extra_repr(self) -> str:
        return f"shape={self.weight_v.shape}, dim={self.dim}"
