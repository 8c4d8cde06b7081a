"""What all modules share: parameters, modes, and the memory of the last forward."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np

from .. import _ext


def _convert(name: str, value: Any, own: Any) -> Any:
    """`value` as an array of the dtype of the module's own one."""
    try:
        return np.asarray(value).astype(own.dtype, casting="same_kind")
    except (TypeError, ValueError, RuntimeError) as error:
        raise TypeError(f"{name} is {type(value).__name__}, which does not convert to {own.dtype}") from error


class Module:
    """What all modules share: parameters, modes, and the memory of the last forward.

    A norm names its parameters and says how to go forward and backward::

        class ScaleNorm(Module):
            _parameters = ("weight",)

            def __init__(self): super().__init__(); self.weight = np.ones(1, np.float32)
            def _forward(self, x, out): return y, saved
            def _backward(self, dy, x, saved): return dx, {"weight": dweight}
            def _evaluate(self, x, out): return y  # in eval mode; if it is missing, _forward serves

    In train mode (the initial one) a call keeps a reference to ``x`` until :meth:`backward`; ``x`` must
    not be changed in between. :attr:`grads` holds the parameters' gradients of the last backward, by name.
    """

    _parameters: ClassVar[tuple[str, ...]] = ()
    _buffers: ClassVar[tuple[str, ...]] = ()  # state that is not learned: running statistics

    def __init__(self) -> None:
        self.training = True
        self.grads: dict[str, Any] = {}
        self._saved: tuple[Any, Any] | None = None

    def _forward(self, x: Any, out: Any) -> tuple[Any, Any]:
        raise NotImplementedError

    def _evaluate(self, x: Any, out: Any) -> Any:
        return self._forward(x, out)[0]

    def _backward(self, dy: Any, x: Any, saved: Any) -> tuple[Any, dict[str, Any]]:
        raise NotImplementedError

    def extra_repr(self) -> str:
        return ""

    def __call__(self, x: Any, *, out: Any = None) -> Any:
        """The normalized ``x``; written to ``out`` if given (in train mode: not into x's own memory)."""
        try:
            return self._call(x, out)
        except TypeError as error:
            if not any(str(error).startswith(f"{name} has dtype ") for name in self._parameters):
                raise
            dtype = str(getattr(x, "dtype", "x's")).rpartition(".")[2]
            raise TypeError(f"{error}; {type(self).__name__} makes such with dtype={dtype}") from None

    def _call(self, x: Any, out: Any) -> Any:
        if not self.training:
            return self._evaluate(x, out)
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
        self.training = _ext._flag(mode, "mode")
        if not self.training:
            self._saved = None
        return self

    def eval(self) -> Module:
        """Switch train mode off: calls keep nothing and may work in place; returns the module."""
        return self.train(False)

    def state_dict(self) -> dict[str, Any]:
        """Parameters and buffers by torch's names: the arrays themselves, not copies."""
        names = self._parameters + self._buffers
        return {name: getattr(self, name) for name in names if getattr(self, name) is not None}

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True) -> None:
        """Copy values into parameters and buffers, converting them to their dtype.

        All names and shapes are checked before anything is written. With ``strict``, missing and unknown
        names are a KeyError; a wrong shape is a ValueError always. Values may be anything that
        ``numpy.asarray`` takes.
        """
        own = self.state_dict()
        missing = sorted(own.keys() - state_dict.keys())
        unknown = sorted(state_dict.keys() - own.keys())
        if strict and (missing or unknown):
            raise KeyError(f"{type(self).__name__}: missing names {missing}, unknown names {unknown}")
        values = {name: _convert(name, state_dict[name], own[name]) for name in own if name in state_dict}
        for name, value in values.items():
            if value.shape != own[name].shape:
                raise ValueError(f"{name} has shape {value.shape}; it should have shape {own[name].shape}")
        for name, value in values.items():
            own[name][...] = value

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.extra_repr()})"
