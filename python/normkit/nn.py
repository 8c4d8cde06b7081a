"""Modules as in ``torch.nn``, with NumPy parameters and an explicit backward.

>>> import numpy as np
>>> import normkit as nk
>>> norm = nk.nn.LayerNorm(3)
>>> y = norm(np.arange(6, dtype=np.float32).reshape(2, 3))
>>> dx = norm.backward(np.ones_like(y))
>>> norm.grads["bias"]
array([2., 2., 2.], dtype=float32)
"""

from __future__ import annotations

import operator
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np

from . import _ext, functional

__all__ = ["LayerNorm", "Module", "RMSNorm"]


class Module:
    """What all modules share: parameters, modes, and the memory of the last forward.

    A norm names its parameters and says how to go forward and backward::

        class ScaleNorm(Module):
            _parameters = ("weight",)

            def __init__(self): super().__init__(); self.weight = np.ones(1, np.float32)
            def _forward(self, x, out): return y, saved
            def _backward(self, dy, x, saved): return dx, {"weight": dweight}

    In train mode (the initial one) a call keeps a reference to ``x`` until :meth:`backward`; ``x`` must
    not be changed in between. :attr:`grads` holds the parameters' gradients of the last backward, by name.
    """

    _parameters: ClassVar[tuple[str, ...]] = ()

    def __init__(self) -> None:
        self.training = True
        self.grads: dict[str, Any] = {}
        self._saved: tuple[Any, Any] | None = None

    def _forward(self, x: Any, out: Any) -> tuple[Any, Any]:
        raise NotImplementedError

    def _backward(self, dy: Any, x: Any, saved: Any) -> tuple[Any, dict[str, Any]]:
        raise NotImplementedError

    def extra_repr(self) -> str:
        return ""

    def __call__(self, x: Any, *, out: Any = None) -> Any:
        """The normalized ``x``; written to ``out`` if given (in train mode: not into x's own memory)."""
        if not self.training:
            return self._forward(x, out)[0]
        if out is not None and (out is x or _ext._may_share_memory(out, x)):
            raise ValueError(
                "out shares memory with x, which backward will need; in train mode it should be separate "
                "memory (call eval() first to work in place)"
            )
        y, saved = self._forward(x, out)
        self._saved = (x, saved)
        return y

    def backward(self, dy: Any) -> Any:
        """The gradient of the last call's ``x``; the parameters' gradients go to :attr:`grads`.

        RuntimeError without a call in train mode since the last backward.
        """
        if self._saved is None:
            raise RuntimeError(
                f"{type(self).__name__}.backward needs a call in train mode before it: "
                "each backward uses up one call"
            )
        x, saved = self._saved
        dx, grads = self._backward(dy, x, saved)
        self._saved = None
        self.grads = grads
        return dx

    def train(self, mode: bool = True) -> Module:
        """Switch train mode on (or off); returns the module."""
        self.training = bool(mode)
        if not self.training:
            self._saved = None
        return self

    def eval(self) -> Module:
        """Switch train mode off: calls keep nothing and may work in place; returns the module."""
        return self.train(False)

    def state_dict(self) -> dict[str, Any]:
        """The parameters by torch's names: the arrays themselves, not copies."""
        return {name: getattr(self, name) for name in self._parameters if getattr(self, name) is not None}

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True) -> None:
        """Copy values into the parameters, converting them to the parameters' dtype.

        All names and shapes are checked before anything is written. With ``strict``, missing and unknown
        names are a KeyError; a wrong shape is a ValueError always. Values may be anything that
        ``numpy.asarray`` takes.
        """
        own = self.state_dict()
        missing = sorted(own.keys() - state_dict.keys())
        unknown = sorted(state_dict.keys() - own.keys())
        if strict and (missing or unknown):
            raise KeyError(f"{type(self).__name__}: missing names {missing}, unknown names {unknown}")
        values = {name: np.asarray(state_dict[name]) for name in own if name in state_dict}
        for name, value in values.items():
            if value.shape != own[name].shape:
                raise ValueError(f"{name} has shape {value.shape}; it should have shape {own[name].shape}")
        for name, value in values.items():
            own[name][...] = value.astype(own[name].dtype)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.extra_repr()})"


def _shape(normalized_shape: int | Sequence[int]) -> tuple[int, ...]:
    try:
        return (operator.index(normalized_shape),)  # type: ignore[arg-type]
    except TypeError:
        return tuple(operator.index(size) for size in normalized_shape)  # type: ignore[union-attr]


class LayerNorm(Module):
    """LayerNorm over the last axes; see :func:`normkit.functional.layer_norm`.

    Arguments, attributes and state as in ``torch.nn.LayerNorm``; ``dtype`` is that of the NumPy parameters.
    """

    _parameters = ("weight", "bias")

    def __init__(
        self,
        normalized_shape: int | Sequence[int],
        eps: float = 1e-5,
        elementwise_affine: bool = True,
        bias: bool = True,
        *,
        dtype: Any = np.float32,
    ) -> None:
        super().__init__()
        self.normalized_shape = _shape(normalized_shape)
        self.eps = eps
        self.elementwise_affine = elementwise_affine
        self.weight: Any = np.ones(self.normalized_shape, dtype) if elementwise_affine else None
        self.bias: Any = np.zeros(self.normalized_shape, dtype) if elementwise_affine and bias else None

    def _forward(self, x: Any, out: Any) -> tuple[Any, Any]:
        arguments = (x, self.normalized_shape, self.weight, self.bias, self.eps)
        if not self.training:
            return functional.layer_norm(*arguments, out=out), None
        y, mean, rstd = functional.layer_norm(*arguments, return_stats=True, out=out)
        return y, (mean, rstd)

    def _backward(self, dy: Any, x: Any, saved: Any) -> tuple[Any, dict[str, Any]]:
        mean, rstd = saved
        dx, dweight, dbias = functional.layer_norm_backward(
            dy, x, self.normalized_shape, self.weight, self.bias, self.eps, mean=mean, rstd=rstd
        )
        return dx, {"weight": dweight, "bias": dbias}

    def extra_repr(self) -> str:
        affine = f"elementwise_affine={self.elementwise_affine}, bias={self.bias is not None}"
        return f"{self.normalized_shape}, eps={self.eps}, {affine}"


class RMSNorm(Module):
    """RMSNorm over the last axes; see :func:`normkit.functional.rms_norm`.

    Arguments, attributes and state as in ``torch.nn.RMSNorm``; ``dtype`` is that of the NumPy parameters.
    """

    _parameters = ("weight",)

    def __init__(
        self,
        normalized_shape: int | Sequence[int],
        eps: float | None = None,
        elementwise_affine: bool = True,
        *,
        dtype: Any = np.float32,
    ) -> None:
        super().__init__()
        self.normalized_shape = _shape(normalized_shape)
        self.eps = eps
        self.elementwise_affine = elementwise_affine
        self.weight: Any = np.ones(self.normalized_shape, dtype) if elementwise_affine else None

    def _forward(self, x: Any, out: Any) -> tuple[Any, Any]:
        arguments = (x, self.normalized_shape, self.weight, self.eps)
        if not self.training:
            return functional.rms_norm(*arguments, out=out), None
        y, rstd = functional.rms_norm(*arguments, return_stats=True, out=out)
        return y, rstd

    def _backward(self, dy: Any, x: Any, saved: Any) -> tuple[Any, dict[str, Any]]:
        dx, dweight, _ = functional.rms_norm_backward(
            dy, x, self.normalized_shape, self.weight, self.eps, rstd=saved
        )
        return dx, {"weight": dweight}

    def extra_repr(self) -> str:
        return f"{self.normalized_shape}, eps={self.eps}, elementwise_affine={self.elementwise_affine}"
