"""Batch, instance, group norm and norm(pattern) under one call, compared as a whole with longdouble."""

from dataclasses import dataclass

import checks
import normkit as nk
import numpy as np
import pytest
from reference.operations import Case, standardize, standardize_backward
from reference.wide import DTYPES, UNIT, WIDE, centre, numpy_dtype, sum_wide, ulp, wide

KINDS = ("batch", "instance", "group", "norm")
every_kind = pytest.mark.parametrize("kind", KINDS)
every_dtype = pytest.mark.parametrize("dtype", DTYPES)
both_layouts = pytest.mark.parametrize("channel_axis", (1, -1))
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


def within_ulps(actual, exact, ulps, where, absolute=0.0):
    bound = ulps * ulp(exact, checks.dtype_name(actual)) + WIDE(absolute)
    return checks.assert_within(actual, np.asarray(exact), bound, where)


def moments(x, axes):
    """Mean and biased variance of x over `axes`, kept."""
    d, hi, lo = centre(wide(x), axes)
    return hi + lo, sum_wide(d * d, axes) / (d.size // hi.size)


def switchable(x, mean_logits, var_logits, eps=1e-5):
    x = wide(x) - wide(x).flat[0]  # or longdouble means would lose what a large mean takes up
    parts = [moments(x, axes) for axes in ((2,), (1, 2), (0, 2))]
    mixed = []
    for k, logits in enumerate((mean_logits, var_logits)):
        share = np.exp(wide(logits) - wide(logits).max())
        mixed.append(sum(s * part[k] for s, part in zip(share / share.sum(), parts, strict=True)))
    return (x - mixed[0]) / np.sqrt(mixed[1] + WIDE(eps))


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


def pytorch():
    return pytest.importorskip("torch", reason="PyTorch is not installed")


def operations(shape, dtype="float32", channel_axis=1):
    """name -> (arrays with x first, forward(*arrays), backward(dy, *arrays)), with all that may be given."""
    arrange = np.asarray if channel_axis == 1 else last
    x = arrange(data(shape, dtype, 0.5))
    channels = shape[1]
    weight, bias = parameters(channels, dtype)
    logits = data((3,), dtype, seed=8), data((3,), dtype, seed=9)
    style = arrange(data(shape, dtype, 3, 2, seed=5))
    axis = {"channel_axis": channel_axis}
    space = "[" + " ".join("hwxyz"[: len(shape) - 2]) + "]"
    pattern = f"b (g [c]) {space}" if channel_axis == 1 else f"b {space} (g [c])"
    return {
        "batch": (
            (x, weight, bias),
            lambda x, w, b, **k: nk.batch_norm(x, None, None, w, b, True, **axis, **k),
            lambda dy, x, w, b, **k: nk.batch_norm_backward(dy, x, None, None, w, b, True, **axis, **k),
        ),
        "batch, given": (
            (
                x,
                weight,
                bias,
                data((channels,), "float32", seed=3),
                data((channels,), "float32", seed=4) ** 2,
            ),
            lambda x, w, b, m, v, **k: nk.batch_norm(x, m, v, w, b, **axis, **k),
            lambda dy, x, w, b, m, v, **k: nk.batch_norm_backward(dy, x, m, v, w, b, **axis, **k),
        ),
        "instance": (
            (x, weight, bias),
            lambda x, w, b, **k: nk.instance_norm(x, weight=w, bias=b, **axis, **k),
            lambda dy, x, w, b, **k: nk.instance_norm_backward(dy, x, weight=w, bias=b, **axis, **k),
        ),
        "group": (
            (x, weight, bias),
            lambda x, w, b, **k: nk.group_norm(x, 2, w, b, **axis, **k),
            lambda dy, x, w, b, **k: nk.group_norm_backward(dy, x, 2, w, b, **axis, **k),
        ),
        "norm": (
            (x, weight, bias),
            lambda x, w, b, **k: nk.norm(x, pattern, w, b, g=2, **k),
            lambda dy, x, w, b, **k: nk.norm_backward(dy, x, pattern, w, b, g=2, **k),
        ),
        "switchable": (
            (x, *logits, weight, bias),
            lambda x, *rest, **k: nk.switchable_norm(x, *rest, **axis, **k),
            lambda dy, x, *rest, **k: nk.switchable_norm_backward(dy, x, *rest, **axis, **k),
        ),
        "adaptive": (
            (x, style),
            lambda x, s, **k: nk.adaptive_instance_norm(x, s, **axis, **k),
            lambda dy, x, s, **k: nk.adaptive_instance_norm_backward(dy, x, s, **axis, **k),
        ),
        "normalize": (
            (x,),
            lambda x, **k: nk.normalize(x, axis=channel_axis, **k),
            lambda dy, x, **k: nk.normalize_backward(dy, x, axis=channel_axis, **k),
        ),
        "weight_norm": (
            (x, bias),
            lambda x, g, **k: nk.weight_norm(x, g, channel_axis, **k),
            lambda dw, x, g, **k: nk.weight_norm_backward(dw, x, g, channel_axis, **k),
        ),
        "z_score": ((x,), lambda x, **k: nk.z_score(x, (0, -1), **k), None),
        "min_max_scale": ((x,), lambda x, **k: nk.min_max_scale(x, 0, (-1, 2), **k), None),
    }


NAMES = tuple(operations((2, 4, 3)))
WITH_BACKWARD = tuple(name for name, entry in operations((2, 4, 3)).items() if entry[2])
every_name = pytest.mark.parametrize("name", NAMES)
every_name_backward = pytest.mark.parametrize("name", WITH_BACKWARD)


def same(actual, expected, where):
    for k, (a, b) in enumerate(zip(actual, expected, strict=True)):
        checks.assert_same_bits(a, b, f"{where}: result {k}")


def results(entry, arrays=None, dy=None, **keywords):
    """The forward's result and all gradients."""
    own, forward, backward = entry
    arrays = own if arrays is None else arrays
    dy = data(own[0].shape, own[0].dtype.name, seed=7) if dy is None else dy
    return (forward(*arrays), *(backward(dy, *arrays, **keywords) if backward else ()))
