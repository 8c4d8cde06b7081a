"""LocalResponseNorm in longdouble, straight from the definition.

The power goes through square roots: longdouble's pow is libm's, sqrt is exact to half an ULP.
"""

from dataclasses import dataclass

import numpy as np

from .wide import WIDE, wide


@dataclass(frozen=True)
class Window:
    """y and, given dy, dx with the sum of the magnitudes that it is made of; channels on axis 1."""

    y: np.ndarray
    dx: np.ndarray | None = None
    dx_terms: np.ndarray | None = None


def power(base, beta):
    with np.errstate(invalid="ignore"):
        root = np.sqrt(base)
        return {0.25: np.sqrt(root), 0.5: root, 0.75: root * np.sqrt(root), 1.0: base}.get(
            beta, base ** WIDE(beta)
        )


def window_matrix(channels, size):
    """[c, j] is 1 where channel j lies in the window of channel c."""
    c, j = np.ogrid[:channels, :channels]
    return ((j >= c - size // 2) & (j <= c + (size - 1) // 2)).astype(WIDE)


def window_sums(matrix, values):
    """Over axis 1, channel by channel: a NaN stays within its windows."""
    total = np.zeros_like(values)
    for j in range(values.shape[1]):
        inside = matrix[:, j] != 0
        total[:, inside] += values[:, j : j + 1]
    return total


def local_response_norm(x, size, alpha=1e-4, beta=0.75, k=1.0, dy=None):
    x = wide(x)
    matrix = window_matrix(x.shape[1], size)
    scale = WIDE(alpha) / WIDE(size)
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        d = WIDE(k) + scale * window_sums(matrix, x * x)
        p = power(d, beta)
        y = x / p
        if dy is None:
            return Window(y)
        own = wide(dy) / p
        term = own * x / d
        factor = 2 * scale * WIDE(beta) * x
        return Window(
            y,
            own - factor * window_sums(matrix.T, term),
            np.abs(own) + np.abs(factor) * window_sums(matrix.T, np.abs(term)),
        )
