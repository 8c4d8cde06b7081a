"""Elementwise operations in longdouble, straight from the definition, with the bounds of their errors.

y = weight tanh(alpha x) + bias. tanh's slope is 1 / cosh^2, which loses nothing where tanh saturates.
"""

from dataclasses import dataclass

import numpy as np

from .wide import COMPUTE, FORMAT, LARGEST, WIDE, sum_wide, ulp, wide


@dataclass(frozen=True)
class Map:
    """y with the error allowed, and, given dy, gradients with the sums of the magnitudes they are made of."""

    y: np.ndarray
    y_bound: np.ndarray
    gradients: dict
    terms: dict


def dynamic_tanh(x, alpha, weight=None, bias=None, axis=-1, dy=None, dtype=None):
    """`dtype`: x's, by name; alpha a number, an array of one element, or one per channel."""
    dtype = dtype or x.dtype.name
    x = wide(x)
    full = [1] * x.ndim
    full[axis] = x.shape[axis]
    shared = np.size(alpha) == 1
    a = wide(alpha).reshape(() if shared else full)
    w = WIDE(1) if weight is None else wide(weight).reshape(full)
    b = None if bias is None else wide(bias).reshape(full)
    with np.errstate(over="ignore", invalid="ignore", under="ignore"):
        z = a * x
        t, slope = np.tanh(z), 1 / np.cosh(z) ** 2
        y = t * w if b is None else t * w + b
        bound = _y_bound(t, w, y, weight is not None, b is not None, dtype)
        if dy is None:
            return Map(y, bound, {}, {})
        dy = wide(dy)
        others = tuple(i for i in range(x.ndim) if i != axis % x.ndim)
        everything = tuple(range(x.ndim))
        gradients, terms = {"dx": dy * w * slope * a}, {}
        terms["dx"] = np.abs(gradients["dx"]) * (1 + np.abs(z))  # the slope's share of alpha x's rounding
        for name, values, axes in (
            ("dalpha", dy * w * slope * x, everything if shared else others),
            ("dweight", dy * t, others),
            ("dbias", dy, others),
        ):
            gradients[name] = _sum(values, axes)
            scaled = np.abs(values) * (1 + np.abs(z)) if name == "dalpha" else np.abs(values)
            terms[name] = _sum(scaled, axes)
    return Map(y, bound, gradients, terms)


def _sum(values, axes):
    return (sum_wide(values, axes) if axes else values).reshape(
        tuple(size for i, size in enumerate(values.shape) if i not in axes)
    )


def _y_bound(t, w, y, has_weight, has_bias, dtype):
    """tanh: half an ULP of float, or 2 of float64 (the product's rounding, its own); half for each step."""
    compute = COMPUTE[dtype]
    bound = np.abs(w) * ulp(t, compute) * WIDE(0.501 if compute == "float32" else 2)
    if has_weight:
        bound = bound + ulp(t * w * WIDE(1.001), compute) / 2
    if has_bias:
        bound = bound + ulp(np.abs(y) * WIDE(1.001) + bound, compute) / 2
    if dtype != compute:
        bound = bound + ulp(np.abs(y) * WIDE(1.001) + bound, dtype) / 2
    return bound


def gradient_bound(exact, terms, dtype, compute):
    """2^-34 for float (double with few terms), 80 roundings for float64 (64 of a panel); the last one."""
    unit = WIDE(2) ** -34 if compute == "float32" else 80 * WIDE(2) ** -53
    bound = unit * terms
    bound = bound + ulp(np.abs(exact) * WIDE(1.001) + bound, dtype) * WIDE(0.501)
    if FORMAT[dtype][0] < 24:  # rounded to float on the way
        bound = bound + ulp(np.abs(exact) * WIDE(1.001), "float32")
    return bound


def rounded_away(exact, dtype):
    """Where a result rounds to infinity."""
    return np.abs(exact) >= WIDE(LARGEST[dtype]) * (1 + WIDE(2) ** -FORMAT[dtype][0])
