"""The demo's network: a small convolutional network in NumPy, with a norm of the caller's choice.

Each hidden layer is convolution -> norm -> ReLU on NCHW arrays; a linear layer reads the last one out. There
are no residual connections that would keep gradients alive by themselves. All arrays are float32.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]
Labels = npt.NDArray[np.integer[Any]]
Indices = npt.NDArray[np.intp]
KERNEL = 3
CHANNELS = [(16, 1), (32, 2), (32, 1)]  # of the hidden layers: channels and stride


class Method(NamedTuple):
    """A line of the table: a name, and what makes the normkit.nn module of a layer, if it has one.

    ``norm`` gets the number of channels, ``weight_norm`` the weight of the convolution.
    """

    name: str
    norm: Callable[[int], Any] | None = None
    weight_norm: Callable[[Floats], Any] | None = None


class Layer(Protocol):
    """What every layer offers: first ``forward``, then ``backward``, then ``step``."""

    def forward(self, x: Floats) -> Floats:
        """The layer's output."""

    def backward(self, dy: Floats) -> Floats:
        """The gradient of x."""

    def step(self, rate: np.float32) -> None:
        """One step of gradient descent on the layer's parameters."""


class Module:
    """A ``normkit.nn`` module as a layer; ``seconds`` adds up the time spent inside normkit."""

    def __init__(self, module: Any) -> None:
        self.module = module
        self.seconds = 0.0

    def forward(self, *x: Floats) -> Floats:
        begin = time.perf_counter()
        y: Floats = self.module(*x)
        self.seconds += time.perf_counter() - begin
        return y

    def backward(self, dy: Floats) -> Floats:
        begin = time.perf_counter()
        dx: Floats = self.module.backward(dy)
        self.seconds += time.perf_counter() - begin
        return dx

    def step(self, rate: np.float32) -> None:
        for name, gradient in self.module.grads.items():
            if gradient is not None:
                getattr(self.module, name)[...] -= rate * gradient


class Convolution:
    """A 3 x 3 convolution with zero padding; weights from He's normal distribution, bias zero.

    ``columns`` and ``sources`` gather instead of looping over the kernel: the pixels below every position of
    the kernel, and the positions that every pixel was below. ``first``: nobody needs the gradient of x.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        size: int,
        stride: int,
        method: Method,
        rng: np.random.Generator,
        first: bool,
    ) -> None:
        fan_in = inputs * KERNEL**2
        deviation = np.float32((2 / fan_in) ** 0.5)
        self.weight = deviation * rng.standard_normal((outputs, fan_in), dtype=np.float32)
        self.bias = np.zeros((outputs, 1), np.float32)
        self.weight_norm = method.weight_norm and Module(method.weight_norm(self.weight))
        self.columns, self.sources = _gathers(inputs, size, stride)
        self.size, self.first = -(-size // stride), first

    def forward(self, x: Floats) -> Floats:
        if self.weight_norm:
            self.weight = self.weight_norm.forward()
        self._shape = x.shape
        columns = _with_zero(x).take(self.columns, axis=1, mode="clip")
        self._columns = columns.reshape(len(x), -1, self.size**2)
        y: Floats = self.weight @ self._columns
        y += self.bias
        return y.reshape(len(x), -1, self.size, self.size)

    def backward(self, dy: Floats) -> Floats:
        dy = dy.reshape(len(dy), -1, self.size**2)
        self._dweight: Floats = (dy @ self._columns.transpose(0, 2, 1)).sum(axis=0)
        self._dbias = dy.sum(axis=(0, 2))[:, np.newaxis]
        if self.weight_norm:
            self.weight_norm.backward(self._dweight)
        if self.first:
            return dy
        parts = _with_zero(self.weight.T @ dy).take(self.sources, axis=1, mode="clip")
        dx: Floats = parts.sum(axis=1)
        return dx.reshape(self._shape)

    def step(self, rate: np.float32) -> None:
        if self.weight_norm:
            self.weight_norm.step(rate)
        else:
            self.weight -= rate * self._dweight
        self.bias -= rate * self._dbias


class ReLU:
    """y = max(x, 0); a NaN stays a NaN."""

    def forward(self, x: Floats) -> Floats:
        self._positive = x > 0
        y: Floats = np.maximum(x, np.float32(0))
        return y

    def backward(self, dy: Floats) -> Floats:
        dx: Floats = dy * self._positive
        return dx

    def step(self, rate: np.float32) -> None:
        pass


class Linear:
    """y = x weight + bias of all features of a sample; weights from He's normal distribution, bias zero."""

    def __init__(self, inputs: int, outputs: int, rng: np.random.Generator) -> None:
        deviation = np.float32((2 / inputs) ** 0.5)
        self.weight = deviation * rng.standard_normal((inputs, outputs), dtype=np.float32)
        self.bias = np.zeros(outputs, np.float32)

    def forward(self, x: Floats) -> Floats:
        self._shape = x.shape
        self._x = x.reshape(len(x), -1)
        y: Floats = self._x @ self.weight + self.bias
        return y

    def backward(self, dy: Floats) -> Floats:
        self._dweight = self._x.T @ dy
        self._dbias = dy.sum(axis=0)
        dx: Floats = dy @ self.weight.T
        return dx.reshape(self._shape)

    def step(self, rate: np.float32) -> None:
        self.weight -= rate * self._dweight
        self.bias -= rate * self._dbias


class Network:
    """The hidden layers of CHANNELS on square images of one channel, and a linear output."""

    def __init__(self, size: int, classes: int, method: Method, rng: np.random.Generator) -> None:
        self._layers: list[Layer] = []
        inputs = 1
        for outputs, stride in CHANNELS:
            self._layers.append(Convolution(inputs, outputs, size, stride, method, rng, not self._layers))
            if method.norm:
                self._layers.append(Module(method.norm(outputs)))
            self._layers.append(ReLU())
            inputs, size = outputs, -(-size // stride)
        self._layers.append(Linear(inputs * size**2, classes, rng))

    def forward(self, x: Floats) -> Floats:
        for layer in self._layers:
            x = layer.forward(x)
        return x

    def train_step(self, x: Floats, labels: Labels, rate: float) -> float:
        """One step of gradient descent on the mean cross-entropy of a batch; returns the latter."""
        loss, dy = cross_entropy(self.forward(x), labels)
        for layer in reversed(self._layers):
            dy = layer.backward(dy)
        for layer in self._layers:
            layer.step(np.float32(rate))
        return loss

    def predict(self, x: Floats) -> Floats:
        """The logits in eval mode: batch and switchable norm use their running statistics."""
        modules = [module.module for module in self._modules()]
        for module in modules:
            module.eval()
        logits = self.forward(x)
        for module in modules:
            module.train()
        return logits

    @property
    def norm_seconds(self) -> float:
        """Time spent inside normkit so far."""
        return sum(module.seconds for module in self._modules())

    def _modules(self) -> list[Module]:
        weights = [layer.weight_norm for layer in self._layers if isinstance(layer, Convolution)]
        return [layer for layer in [*self._layers, *weights] if isinstance(layer, Module)]


def cross_entropy(logits: Floats, labels: Labels) -> tuple[float, Floats]:
    """Mean negative log-likelihood of the labels, and its gradient; the logits become scratch memory."""
    rows = np.arange(len(labels))
    logits -= logits.max(axis=1, keepdims=True)
    right = logits[rows, labels]
    gradient = np.exp(logits, out=logits)
    total = gradient.sum(axis=1, keepdims=True)
    loss = float((np.log(total[:, 0]) - right).mean())
    gradient /= total
    gradient[rows, labels] -= 1
    gradient /= np.float32(len(labels))
    return loss, gradient


def _with_zero(x: Floats) -> Floats:
    """The samples as rows with one more element, a zero, at the end."""
    rows = np.zeros((len(x), x[0].size + 1), np.float32)
    rows[:, :-1] = x.reshape(len(x), -1)
    return rows


@functools.cache
def _gathers(channels: int, size: int, stride: int) -> tuple[Indices, Indices]:
    """Indices into :func:`_with_zero`, of x and of the columns; those of padding point to its zero.

    The first has the shape (channels * 9 * output pixels,), the second (at most 9, channels * input pixels):
    summing over its first axis adds up what flows back to each pixel.
    """
    pixels = channels * size**2
    padded = np.full((channels, size + 2, size + 2), pixels)
    padded[:, 1:-1, 1:-1] = np.arange(pixels).reshape(channels, size, size)
    windows = np.lib.stride_tricks.sliding_window_view(padded, (KERNEL, KERNEL), (1, 2))
    columns = windows[:, ::stride, ::stride].transpose(0, 3, 4, 1, 2).ravel()
    uses = [np.flatnonzero(columns == pixel) for pixel in range(pixels)]
    sources = np.full((max(map(len, uses)), pixels), len(columns))
    for pixel, use in enumerate(uses):
        sources[: len(use), pixel] = use
    return columns, sources
