"""What all modules share: parameters, modes, and the memory of the last forward."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, NamedTuple

import numpy as np

from .. import _ext


class IncompatibleKeys(NamedTuple):
    """What :meth:`Module.load_state_dict` returns, as PyTorch's does: the names that did not meet."""

    missing_keys: list[str]  # of the module, not of the state
    unexpected_keys: list[str]  # of the state, not of the module

    def __repr__(self) -> str:
        if not any(self):
            return "<All keys matched successfully>"
        return f"IncompatibleKeys(missing_keys={self[0]}, unexpected_keys={self[1]})"


def _read(value: Any) -> Any:
    """`value` as a NumPy array, also PyTorch tensors that NumPy does not read by itself."""
    if not (hasattr(value, "detach") and hasattr(value, "numpy")):
        return np.asarray(value)
    try:
        return value.numpy(force=True)  # a Parameter, or on a device
    except TypeError:
        return value.detach().float().numpy(force=True)  # bfloat16: float32 holds all of it


def _convert(key: str, value: Any, own: Any) -> Any:
    """A copy of `value` in the dtype of the module's own array, whose shape it should have."""
    try:
        array = _read(value)
        # ml_dtypes' types are no floats to NumPy's rules, but for float64, which holds their values.
        if not np.can_cast(array.dtype, np.float64, casting="same_kind"):
            raise TypeError(f"{array.dtype} holds no real numbers")
        with np.errstate(over="ignore", invalid="ignore"):
            copy = array.astype(own.dtype)
        if own.dtype.kind == "i" and not (copy == array).all():
            raise TypeError("not all are whole numbers")
    except (TypeError, ValueError, RuntimeError) as error:
        raise TypeError(f"{key} is {type(value).__name__}, which does not convert to {own.dtype}") from error
    if own.ndim == 0 and copy.shape == (1,):
        copy = copy[0]  # scalars have an axis in states of PyTorch 0.3
    if copy.shape != own.shape:
        raise ValueError(f"{key} has shape {copy.shape}; it should have shape {own.shape}")
    return copy


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
    _other_names: ClassVar[Mapping[str, tuple[str, ...]]] = {}  # that states know parameters by

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

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True) -> IncompatibleKeys:
        """Copy values into parameters and buffers, converting them to their dtype.

        Values may be anything that ``numpy.asarray`` takes, and PyTorch tensors of any dtype and device,
        Parameters too. Returns ``(missing_keys, unexpected_keys)`` as PyTorch does; with ``strict``, where
        there are any, they are a KeyError. A wrong shape is a ValueError always, what are no real numbers
        a TypeError. Nothing is written unless all is right. As in PyTorch, a state from before version 2, or
        one that says nothing of versions, need not have ``num_batches_tracked``: the module's stays.
        """
        if not isinstance(state_dict, Mapping):
            raise TypeError(f"state_dict is {type(state_dict).__name__}; it should be a mapping of names")
        own = self.state_dict()
        keys = {}  # what the state calls the module's own names
        for name in own:
            for key in (name, *self._other_names.get(name, ())):
                if key in state_dict:
                    keys[name] = key
                    break
        found = set(keys.values())
        unexpected = [key for key in state_dict if key not in found]
        missing = [name for name in own if name not in keys and not self._may_lack(name, state_dict)]
        if strict and (missing or unexpected):
            raise KeyError(f"{type(self).__name__}: missing names {missing}, unknown names {unexpected}")
        values = {name: _convert(key, state_dict[key], own[name]) for name, key in keys.items()}
        for name in values:
            if not own[name].flags.writeable:
                raise ValueError(f"the module's {name} is a read-only array; it should be writable")
        for name, value in values.items():
            own[name][...] = value
        return IncompatibleKeys(missing, unexpected)

    def _may_lack(self, name: str, state_dict: Mapping[str, Any]) -> bool:
        """Whether the module keeps its own value where a state lacks this name, as if it were there."""
        return False

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.extra_repr()})"
