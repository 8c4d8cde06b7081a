"""Calls of every operation that has CUDA kernels: (name, arguments, keywords), with NumPy arrays."""

import normkit as nk
import numpy as np
from reference.recipe import values


def problem(dtype, shape, parameter_shape):
    families = ("spread", "plain", "plain")
    x, dy, residual = (values(shape, dtype, family, s) for s, family in enumerate(families))
    weight, bias = (values(parameter_shape, dtype, "plain", s) for s in (3, 4))
    return x, dy, residual, weight, bias


def row_calls(dtype, shape=(5, 70)):
    n = shape[-1]
    x, dy, residual, weight, bias = problem(dtype, shape, (n,))
    affine = {"weight": weight, "bias": bias, "eps": 1e-5}
    for name in ("layer_norm", "rms_norm"):
        statistics = getattr(nk, name)(x, n, eps=1e-5, return_stats=True)[1:]
        saved = dict(zip(("mean", "rstd")[-len(statistics) :], statistics, strict=True))
        yield name, (x, n), affine | {"return_stats": True, "activation": "silu"}
        yield name + "_backward", (dy, x, n), affine
        yield name + "_backward", (dy, x, n), affine | saved
        yield "add_" + name, (x, residual, n), affine | {"return_stats": True, "residual_bias": bias}
        yield "add_" + name + "_backward", (dy, residual, x, n), affine | saved


def channel_calls(dtype, shape=(3, 6, 5, 7)):
    x, dy, _, weight, bias = problem(dtype, shape, (6,))
    mean, var = (values((6,), "float32", "plain", s) for s in (7, 8))
    var = np.abs(var) + np.float32(0.5)
    given = {"mean": mean.astype(np.float64), "rstd": 1 / var.astype(np.float64)}
    affine = {"weight": weight, "bias": bias}
    for name, before in (("batch_norm", (None, None)), ("instance_norm", ()), ("group_norm", (3,))):
        more = affine | ({"training": True} if name == "batch_norm" else {})
        saved = dict(
            zip(("mean", "rstd"), getattr(nk, name)(x, *before, **more, return_stats=True)[1:], strict=True)
        )
        yield name, (x, *before), more | {"return_stats": True}
        yield name + "_backward", (dy, x, *before), more
        yield name + "_backward", (dy, x, *before), more | saved
    yield "batch_norm", (x, mean, var), affine
    yield "batch_norm", (x, None, None), affine | given
    yield "batch_norm_backward", (dy, x, mean, var), affine
    yield "instance_norm", (x, mean, var), affine | {"use_input_stats": False}
    for kind in ("standard", "rms"):
        keywords = affine | {"g": 3, "kind": kind}
        yield "norm", (x, "b (g [c]) [h w]"), keywords | {"return_stats": True}
        yield "norm_backward", (dy, x, "b (g [c]) [h w]"), keywords


def calls(dtype):
    yield from row_calls(dtype)
    yield from channel_calls(dtype)
