"""Modules that hold a weight rather than normalize activations."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np

from .. import _ext, functional
from .module import Module, _read


class WeightNorm(Module):
    """WeightNorm of a weight: ``module()`` is w = g v / norm(v); see :func:`normkit.functional.weight_norm`.

    Begins with the given weight, an array or a PyTorch tensor (bfloat16 as float32): ``weight_v`` is a copy
    of it, ``weight_g`` its norms (v's rank with ones, or a scalar; state names of
    ``torch.nn.utils.weight_norm``; those of its parametrization, ``parametrizations.weight.original0`` and
    ``original1``, are loaded too). ``dim`` is the axis whose indices have norms of their own, None for the
    whole weight. ``backward(dw)`` returns dv; :attr:`grads` holds both gradients.
    """

    _parameters = ("weight_g", "weight_v")
    _other_names: ClassVar[Mapping[str, tuple[str, ...]]] = {  # of torch.nn.utils.parametrizations
        "weight_g": ("parametrizations.weight.original0", "original0"),
        "weight_v": ("parametrizations.weight.original1", "original1"),
    }

    def __init__(self, weight: Any, dim: int | None = 0) -> None:
        super().__init__()
        self.dim = dim
        self.weight_v: Any = np.array(_read(weight))
        rank = self.weight_v.ndim
        others = tuple(i for i in range(rank) if dim is None or i != dim % rank)
        wide = self.weight_v.astype(np.float64)
        largest = np.abs(wide).max(others, keepdims=True, initial=0)  # so that no square overflows
        scale = np.where((largest > 0) & np.isfinite(largest), largest, 1.0)
        norms = np.sqrt(np.square(wide / scale).sum(others, keepdims=True)) * scale
        norms = norms if dim is not None else norms.reshape(())
        self.weight_g: Any = np.asarray(norms).astype(self.weight_v.dtype)

    def __call__(self, *, out: Any = None) -> Any:  # type: ignore[override]
        for name in self._parameters:
            if out is not None and _ext._may_share_memory(out, getattr(self, name)):
                raise ValueError(f"out shares memory with {name}; it should be separate memory")
        w = functional.weight_norm(self.weight_v, self.weight_g, self.dim, out=out)
        if self.training:
            self._saved = (self.weight_v, None)
        return w

    def _backward(self, dy: Any, x: Any, saved: Any) -> tuple[Any, dict[str, Any]]:
        dv, dg = functional.weight_norm_backward(dy, x, self.weight_g, self.dim)
        return dv, {"weight_g": dg, "weight_v": dv}

    def extra_repr(self) -> str:
        return f"shape={self.weight_v.shape}, dim={self.dim}"
