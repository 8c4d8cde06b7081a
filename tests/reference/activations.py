"""The activations in multiple precision, straight from their definitions."""

import mpmath
import numpy as np

from .wide import WIDE

KINDS = ("relu", "silu", "gelu", "gelu_tanh")


def _exact(kind, x):
    if kind == "relu":
        return max(x, mpmath.mpf(0))
    if kind == "silu":
        return x / (1 + mpmath.exp(-x))
    if kind == "gelu":
        return x * mpmath.erfc(-x / mpmath.sqrt(2)) / 2
    inner = mpmath.sqrt(2 / mpmath.pi) * (x + mpmath.mpf("0.044715") * x**3)
    return x / (1 + mpmath.exp(-2 * inner))  # x (1 + tanh(inner)) / 2, without its cancellation


def _longdouble(value):
    """Rounded to longdouble, whose exponents hold every value that a test needs."""
    fraction, exponent = mpmath.frexp(value)
    high = float(fraction)
    return np.ldexp(WIDE(high) + WIDE(float(fraction - high)), max(int(exponent), -10000))


def activation(kind, x):
    """In longdouble, of finite values."""
    with mpmath.workdps(40):
        values = [_longdouble(_exact(kind, mpmath.mpf(float(v)))) for v in np.ravel(x)]
    return np.array(values, WIDE).reshape(np.shape(x))
