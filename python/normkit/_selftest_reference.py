"""The self-test's reference: LayerNorm and RMSNorm in long double, with error bounds.

Bounds, u being 2^-24 or (float64) 2^-53: the normalized value within 5 ULP (1 ULP for float16 and bfloat16)
where it exceeds 0.1; weight and bias add one rounding each; a gradient within 16 u times the sum of the
magnitudes of its terms, plus one rounding to its type.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

OPERATIONS = ("layer_norm", "rms_norm")
ULP_LIMIT = {"float32": 5, "float64": 5, "float16": 1, "bfloat16": 1}
PRECISION = {"float32": 24, "float64": 53, "float16": 11, "bfloat16": 8}
SMALLEST_EXPONENT = {"float32": -149, "float64": -1074, "float16": -24, "bfloat16": -133}

Wide = np.longdouble
Array = npt.NDArray[Any]


def holds_float64() -> bool:
    """Whether long double is wide enough to judge float64."""
    return bool(np.finfo(Wide).nmant >= 63)


def ulp(values: Array, dtype_name: str) -> Array:
    """Distance between neighbouring numbers of the type at these magnitudes."""
    exponent = np.frexp(np.abs(values))[1] - PRECISION[dtype_name]
    exponent = np.where(values == 0, SMALLEST_EXPONENT[dtype_name], exponent)
    return np.asarray(np.ldexp(Wide(1), np.maximum(exponent, SMALLEST_EXPONENT[dtype_name])))


class Exact:
    """Exact results of one operation on rows [rows, n], and how far computed ones are from them."""

    def __init__(self, operation: str, x: Array, dy: Array, weight: Array, bias: Array, eps: float):
        self._dtype = x.dtype.name
        self._computed_in = "float64" if self._dtype == "float64" else "float32"
        self._weight, self._bias = weight.astype(Wide), bias.astype(Wide)
        centred = x.astype(Wide)
        if operation == "layer_norm":
            centred = _centre(centred)
        self._rstd = 1 / np.sqrt(np.mean(centred * centred, axis=-1, keepdims=True) + Wide(eps))
        self._xhat = centred * self._rstd
        self._dy = dy.astype(Wide)
        self._has_mean = operation == "layer_norm"

    def normalized_error(self, y: Array) -> float:
        """Worst error in ULP of the output's type, where the exact value exceeds 0.1."""
        large = np.abs(self._xhat) > 0.1
        error = np.abs(y.astype(Wide) - self._xhat) / ulp(self._xhat, self._dtype)
        return _worst(error[large])

    def affine_error(self, y: Array) -> float:
        """Worst error with weight and bias, as a share of its bound, where normalized values exceed 0.1."""
        product = self._xhat * self._weight
        exact = product + self._bias
        # 5 ULP of the normalized value are up to 10 of the product, whose leading digit may be smaller.
        bound = 11 * ulp(product, self._computed_in) + ulp(exact, self._computed_in)
        if self._dtype != self._computed_in:
            bound = bound + ulp(exact, self._dtype)
        return _worst((np.abs(y.astype(Wide) - exact) / bound)[np.abs(self._xhat) > 0.1])

    def gradient_errors(self, dx: Array, dweight: Array, dbias: Array) -> dict[str, float]:
        """Worst errors of the gradients as shares of their bounds."""
        g = self._dy * self._weight
        dx_exact, dx_magnitude = self._combine(g, self._xhat), self._combine(abs(g), abs(self._xhat), sign=1)
        products = self._dy * self._xhat
        return {
            "dx": self._share(dx, dx_exact, dx_magnitude),
            "dweight": self._share(dweight, products.sum(axis=0), abs(products).sum(axis=0)),
            "dbias": self._share(dbias, self._dy.sum(axis=0), abs(self._dy).sum(axis=0)),
        }

    def _combine(self, g: Array, xhat: Array, sign: int = -1) -> Array:
        """dx from g and xhat; from their magnitudes and with sign 1, the sum of the magnitudes of its terms.

        The means are sums too: where their terms cancel, their errors still go with the terms.
        """
        b = np.mean(g * xhat, axis=-1, keepdims=True)
        dx = g + sign * xhat * b
        if self._has_mean:
            dx = dx + sign * np.mean(g, axis=-1, keepdims=True)
        return np.asarray(dx * self._rstd)

    def _share(self, computed: Array, exact: Array, magnitude: Array) -> float:
        bound = 16 * np.ldexp(Wide(1), -PRECISION[self._computed_in]) * magnitude + ulp(exact, self._dtype)
        return _worst(np.abs(computed.astype(Wide) - exact) / bound)


def _centre(x: Array) -> Array:
    """x minus its row means, a mean being a pair: one long double is too short for float64 with an offset."""
    high = np.mean(x, axis=-1, keepdims=True).astype(np.float64).astype(Wide)
    x = x - high
    return np.asarray(x - np.mean(x, axis=-1, keepdims=True))


def _worst(errors: Array) -> float:
    """The largest error; infinite if one is no number."""
    if errors.size == 0:
        return 0.0
    return float(np.max(np.where(np.isnan(errors), np.inf, errors)))
