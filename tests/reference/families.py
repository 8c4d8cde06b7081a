"""Families of inputs, from ordinary to hostile: `sets` rows of n values, rounded to an element type."""

import numpy as np

from .wide import FORMAT, LARGEST, numpy_dtype


def _outlier(rng, sets, n, dtype):
    x = rng.standard_normal((sets, n))
    x[np.arange(sets), rng.integers(0, n, sets)] = min(1e30, LARGEST[dtype] / 2)
    return x


def _equal(rng, sets, n, dtype):
    return np.broadcast_to(rng.uniform(1, 2, (sets, 1)) * 1234.5, (sets, n))


def _alternating(rng, sets, n, dtype):
    return rng.uniform(1, 2, (sets, 1)) * 37 * np.where(np.arange(n) % 2, -1.0, 1.0)


def _subnormal(rng, sets, n, dtype):
    return rng.uniform(-1, 1, (sets, n)) * 2.0 ** FORMAT[dtype][1]


def _normal(mean, std):
    return lambda rng, sets, n, dtype: mean + std * rng.standard_normal((sets, n))


FAMILIES = {
    "normal": _normal(0, 1),
    "mean 1e3 std 1": _normal(1e3, 1),
    "mean 1e4 std 0.01": _normal(1e4, 0.01),
    "mean 1e6 std 1": _normal(1e6, 1),
    "lognormal(3)": lambda rng, sets, n, dtype: rng.lognormal(0, 3, (sets, n)),
    "Cauchy": lambda rng, sets, n, dtype: rng.standard_cauchy((sets, n)),
    "outlier 1e30": _outlier,
    "all equal": _equal,
    "alternating": _alternating,
    "scale 1e-20": _normal(0, 1e-20),
    "scale 1e18": _normal(0, 1e18),
    "scale 1e30": _normal(0, 1e30),
    "subnormal": _subnormal,
}

# Families that lie outside float16's range (largest number 65504).
TOO_LARGE = {"float16": {"mean 1e6 std 1", "scale 1e18", "scale 1e30"}}


def families_of(dtype):
    return [name for name in FAMILIES if name not in TOO_LARGE.get(dtype, ())]


def make(family, sets, n, dtype, seed=0):
    """[sets, n] of `family`, rounded to `dtype`, all finite."""
    rng = np.random.default_rng([seed, sets, n, list(FAMILIES).index(family)])
    limit = LARGEST[dtype]
    return np.clip(FAMILIES[family](rng, sets, n, dtype), -limit, limit).astype(numpy_dtype(dtype))


def parameters(shape, dtype, seed=1):
    """A weight and a bias that are neither 1 nor 0, of both signs."""
    rng = np.random.default_rng([seed, *shape])
    weight = rng.uniform(0.25, 2, shape) * rng.choice([-1.0, 1.0], shape)
    return weight.astype(numpy_dtype(dtype)), rng.standard_normal(shape).astype(numpy_dtype(dtype))
