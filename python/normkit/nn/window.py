"""Modules over windows of channels: LocalResponseNorm."""

from __future__ import annotations

from typing import Any

from .. import functional
from .module import Module


class LocalResponseNorm(Module):
    """LocalResponseNorm (AlexNet); see :func:`normkit.functional.local_response_norm`.

    Arguments and attributes as in ``torch.nn.LocalResponseNorm``; there are no parameters. ``channel_axis``
    is -1 for NHWC arrays.
    """

    def __init__(
        self,
        size: int,
        alpha: float = 1e-4,
        beta: float = 0.75,
        k: float = 1.0,
        *,
        channel_axis: int = 1,
    ) -> None:
        super().__init__()
        self.size = size
        self.alpha = alpha
        self.beta = beta
        self.k = k
        self.channel_axis = channel_axis

    def _forward(self, x: Any, out: Any) -> tuple[Any, Any]:
        y = functional.local_response_norm(
            x, self.size, self.alpha, self.beta, self.k, channel_axis=self.channel_axis, out=out
        )
        return y, None

    def _backward(self, dy: Any, x: Any, saved: Any) -> tuple[Any, dict[str, Any]]:
        (dx,) = functional.local_response_norm_backward(
            dy, x, self.size, self.alpha, self.beta, self.k, channel_axis=self.channel_axis
        )
        return dx, {}

    def extra_repr(self) -> str:
        return f"{self.size}, alpha={self.alpha}, beta={self.beta}, k={self.k}"
