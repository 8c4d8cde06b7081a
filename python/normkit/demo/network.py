"""The demo's network: a multilayer perceptron in NumPy, with a norm of the caller's choice in every layer.

Each hidden layer is linear -> norm -> ReLU; there are no residual connections that would keep gradients alive
by themselves. All arrays are float32.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]
Labels = npt.NDArray[np.integer[Any]]
# Makes the norm of a layer of so many units, a normkit.nn module; None: no norm.
MakeNorm = Callable[[int], Any]


class Layer(Protocol):
    """What every layer offers: first ``forward``, then ``backward``, then ``step``."""

    def forward(self, x: Floats) -> Floats:
        """The layer's output."""

    def backward(self, dy: Floats) -> Floats:
        """The gradient of x."""

    def step(self, rate: np.float32) -> None:
        """One step of gradient descent on the layer's parameters."""


class Linear:
    """y = x weight + bias, weights from He's normal distribution (arXiv:1502.01852), bias zero."""

    def __init__(self, inputs: int, outputs: int, rng: np.random.Generator) -> None:
        deviation = np.float32((2 / inputs) ** 0.5)
        self.weight = deviation * rng.standard_normal((inputs, outputs), dtype=np.float32)
        self.bias = np.zeros(outputs, np.float32)

    def forward(self, x: Floats) -> Floats:
        self._x = x
        y: Floats = x @ self.weight + self.bias
        return y

    def backward(self, dy: Floats) -> Floats:
        self._dweight = self._x.T @ dy
        self._dbias = dy.sum(axis=0)
        dx: Floats = dy @ self.weight.T
        return dx

    def step(self, rate: np.float32) -> None:
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


class Norm:
    """A ``normkit.nn`` module as a layer; ``seconds`` adds up the time spent inside normkit."""

    def __init__(self, module: Any) -> None:
        self._module = module
        self.seconds = 0.0

    def forward(self, x: Floats) -> Floats:
        begin = time.perf_counter()
        y: Floats = self._module(x)
        self.seconds += time.perf_counter() - begin
        return y

    def backward(self, dy: Floats) -> Floats:
        begin = time.perf_counter()
        dx: Floats = self._module.backward(dy)
        self.seconds += time.perf_counter() - begin
        return dx

    def step(self, rate: np.float32) -> None:
        for name, gradient in self._module.grads.items():
            if gradient is not None:
                parameter = getattr(self._module, name)
                parameter -= rate * gradient


class Network:
    """``hidden`` layers of ``width`` units and a linear output; ``make_norm(width)``: a module or None."""

    def __init__(
        self,
        inputs: int,
        width: int,
        hidden: int,
        classes: int,
        make_norm: MakeNorm,
        rng: np.random.Generator,
    ) -> None:
        self._layers: list[Layer] = []
        for layer in range(hidden):
            self._layers.append(Linear(inputs if layer == 0 else width, width, rng))
            module = make_norm(width)
            if module is not None:
                self._layers.append(Norm(module))
            self._layers.append(ReLU())
        self._layers.append(Linear(width, classes, rng))

    def forward(self, x: Floats) -> Floats:
        for layer in self._layers:
            x = layer.forward(x)
        return x

    def train_step(self, x: Floats, labels: Labels, rate: float) -> None:
        """One step of gradient descent on the mean cross-entropy of a batch."""
        dy = softmax(self.forward(x))
        dy[np.arange(len(labels)), labels] -= 1
        dy /= np.float32(len(labels))
        for layer in reversed(self._layers):
            dy = layer.backward(dy)
        for layer in self._layers:
            layer.step(np.float32(rate))

    @property
    def norm_seconds(self) -> float:
        """Time spent inside normkit so far."""
        return sum(layer.seconds for layer in self._layers if isinstance(layer, Norm))


def softmax(logits: Floats) -> Floats:
    """Softmax over the last axis."""
    exponentials: Floats = np.exp(logits - logits.max(axis=-1, keepdims=True))
    exponentials /= exponentials.sum(axis=-1, keepdims=True)
    return exponentials


def cross_entropy(logits: Floats, labels: Labels) -> float:
    """Mean negative log-likelihood of the labels, in float64."""
    wide = logits.astype(np.float64)
    wide -= wide.max(axis=-1, keepdims=True)
    log_sum = np.log(np.exp(wide).sum(axis=-1))
    return float(np.mean(log_sum - wide[np.arange(len(labels)), labels]))
