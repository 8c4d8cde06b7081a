"""Batch, instance, group norm and norm(pattern) under one call, compared as a whole with longdouble."""

from dataclasses import dataclass

import checks
import normkit as nk
import numpy as np
import pytest
from reference.operations import Case, standardize, standardize_backward
from reference.wide import DTYPES, UNIT, numpy_dtype, wide

KINDS = ("batch", "instance", "group", "norm")
every_kind = pytest.mark.parametrize("kind", KINDS)
every_dtype = pytest.mark.parametrize("dtype", DTYPES)
SPACE = "hwdxyz"  # names of the axes of space in a pattern


@dataclass(frozen=True)
class ChannelNorm:
    """One norm of (N, C, ...) with `groups` groups; "norm" is GroupNorm said in a pattern."""

    kind: str
    groups: int = 1

    def _call(self, suffix, before, rank, channel_axis, keywords):
        function = getattr(nk, ("norm" if self.kind == "norm" else self.kind + "_norm") + suffix)
        if self.kind == "norm":
            space = "[" + " ".join(SPACE[: rank - 2]) + "]" if rank > 2 else ""
            channels = "(g [c])"
            order = ("b", channels, space) if channel_axis == 1 else ("b", space, channels)
            arguments, keywords = (" ".join(order),), {"g": self.groups} | keywords
        else:
            arguments = (self.groups,) if self.kind == "group" else (None, None)
            keywords = keywords | {"channel_axis": channel_axis}
            if self.kind == "batch":
                keywords = {"training": True} | keywords
        return function(*before, *arguments, **keywords)

    def forward(self, x, channel_axis=1, **keywords):
        return self._call("", (x,), len(x.shape), channel_axis, keywords)

    def backward(self, dy, x, channel_axis=1, **keywords):
        return self._call("_backward", (dy, x), len(x.shape), channel_axis, keywords)

    def case(self, shape):
        """Four axes (N, G, C / G, S): what is normalized together is some of them, for every norm."""
        samples, channels = shape[:2]
        groups = channels if self.kind in ("batch", "instance") else self.groups
        folded = (samples, groups, channels // groups, int(np.prod(shape[2:], dtype=np.int64)))
        return Case(folded, (), axes=(0, 2, 3) if self.kind == "batch" else (2, 3), parameter_axes=(1, 2))

    def __str__(self):
        return f"{self.kind}({self.groups})"


def data(shape, dtype="float32", mean=0.0, std=1.0, seed=0):
    rng = np.random.default_rng([seed, *shape])
    return (mean + std * rng.standard_normal(shape)).astype(numpy_dtype(dtype))


def parameters(channels, dtype="float32", seed=1):
    """weight and bias, neither 1 nor 0 and of both signs."""
    rng = np.random.default_rng([seed, channels])
    weight = rng.uniform(0.25, 2, channels) * rng.choice([-1.0, 1.0], channels)
    return weight.astype(numpy_dtype(dtype)), rng.standard_normal(channels).astype(numpy_dtype(dtype))


def last(x):
    """The same values as an array with the channels last."""
    return np.ascontiguousarray(np.moveaxis(x, 1, -1))


def first(x):
    return np.ascontiguousarray(np.moveaxis(x, -1, 1))


def check(norm, x, eps=1e-5, where="", backward=True):
    """Values, statistics, affine values and gradients, channels first and last. Returns xhat."""
    dtype = checks.dtype_name(x)
    case = norm.case(x.shape)
    weight, bias = parameters(x.shape[1], dtype)
    dy = data(x.shape, dtype, seed=7)
    folded, unit = x.reshape(case.shape), UNIT[dtype]
    exact = standardize(folded, case, eps)
    if backward:
        gradients = standardize_backward(dy.reshape(case.shape), folded, case, eps, weight)
    for axis, arrange, restore in ((1, np.asarray, np.asarray), (-1, last, first)):
        place = f"{where} {x.shape} channels at {axis}"
        xs, dys = arrange(x), arrange(dy)
        y, mean, rstd = norm.forward(xs, axis, eps=eps, return_stats=True)
        assert mean.dtype == rstd.dtype == np.float64
        xhat = restore(y).reshape(case.shape)
        checks.assert_normalized(norm, xhat, exact.xhat, place)
        kept = exact.mean.shape
        spread = 1 / exact.rstd + np.abs(exact.mean) * (2.0**-27 if dtype != "float64" else 1)
        checks.assert_within(mean.reshape(kept), exact.mean, 4 * unit * spread, f"{norm} mean {place}")
        checks.assert_within(rstd.reshape(kept), exact.rstd, 8 * unit * exact.rstd, f"{norm} rstd {place}")
        y = norm.forward(xs, axis, weight=weight, bias=bias, eps=eps)
        checks.assert_affine(norm, restore(y).reshape(case.shape), exact, case, weight, bias, place)
        if not backward:
            continue
        for saved in ({}, {"mean": mean, "rstd": rstd}):
            found = norm.backward(dys, xs, axis, weight=weight, bias=bias, eps=eps, **saved)
            found = (
                restore(found[0]).reshape(case.shape),
                *(g.reshape(case.parameter_shape) for g in found[1:]),
            )
            for name, actual in zip(("dx", "dweight", "dbias"), found, strict=True):
                wanted, terms = getattr(gradients, name), getattr(gradients, name + "_terms")
                checks.assert_gradient(norm, name, actual, wanted, terms, place)
    return xhat


def check_running(actual, before, new, momentum, where):
    """(1 - momentum) before + momentum new, within float32 or the array's own precision."""
    dtype = checks.dtype_name(actual)
    exact = (1 - wide(momentum)) * wide(before) + wide(momentum) * new
    size = np.abs(wide(before)) + np.abs(new)
    unit = {"float32": 2.0**-24, "float64": 2.0**-24, "float16": 2.0**-11, "bfloat16": 2.0**-8}[dtype]
    checks.assert_within(actual, exact, (unit + 2.0**-22) * size, where)
