"""Norms by given statistics are elementwise: few samples of many channels, any channels side by side."""

import time

import checks
import normkit as nk
import numpy as np
import pytest
from reference.wide import DTYPES, numpy_dtype, wide

pytestmark = pytest.mark.compares
EPS = 1e-5


def case(samples, channels, space, dtype, seed=0):
    """x and dy as [N, C, *space], with statistics, weight and bias of their own for every channel."""
    rng = np.random.default_rng(seed)
    x, dy = (rng.standard_normal((2, samples, channels, *space)) * 3 + 1).astype(numpy_dtype(dtype))
    number = np.float64 if dtype == "float64" else np.float32
    mean, weight, bias = rng.standard_normal((3, channels)).astype(number)
    return x, dy, mean, rng.uniform(0.1, 3, channels).astype(number), weight, bias


def one_channel_at_a_time(x, dy, mean, var, weight, bias):
    """y, dx, dweight, dbias by calls that see one channel each: contiguous, a set by itself."""
    y, dx, grads = np.empty_like(x), np.empty_like(x), np.empty((2, x.shape[1]), weight.dtype)
    for c in range(x.shape[1]):
        one = slice(c, c + 1)
        own = np.ascontiguousarray(x[:, one])
        parameters = (mean[one].copy(), var[one].copy(), weight[one], bias[one])
        y[:, one] = nk.batch_norm(own, *parameters)
        dx[:, one], grads[0, one], grads[1, one] = nk.batch_norm_backward(
            np.ascontiguousarray(dy[:, one]), own, *parameters
        )
    return y, dx, grads[0], grads[1]


LAYOUTS = {
    "nchw": lambda a: a.copy(),
    "nhwc": lambda a: np.moveaxis(np.moveaxis(a, 1, -1).copy(), -1, 1),
    "every other": lambda a: np.repeat(a, 2, axis=1)[:, ::2],
}


@pytest.mark.report("field trial: BatchNorm inference of [1, 4096] took 343 us, a plain loop 0.94")
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("channels", [2, 3, 5, 8, 15, 16, 17, 31, 40, 64, 65, 130])
@pytest.mark.parametrize(
    "samples, space", [(1, ()), (2, ()), (33, ()), (3, (1, 1)), (2, (5, 3)), (3, (40, 31))]
)
def test_side_by_side_as_one_at_a_time(samples, space, channels, dtype):
    x, dy, *parameters = case(samples, channels, space, dtype)
    expected = one_channel_at_a_time(x, dy, *parameters)
    for name, layout in LAYOUTS.items():
        own_x, own_dy = layout(x), layout(dy)
        y = nk.batch_norm(own_x, *parameters)
        got = (y, *nk.batch_norm_backward(own_dy, own_x, *parameters))
        for a, b, what in zip(got, expected, ("y", "dx", "dweight", "dbias"), strict=True):
            checks.assert_same_bits(a, b, f"{what}, {name}")
        # Without parameter gradients, in place, and InstanceNorm's sets, which are the same here.
        mean, var, weight, bias = parameters
        dx = nk.batch_norm_backward(own_dy, own_x, mean, var, dx_out=own_dy)[0]
        plain = nk.batch_norm_backward(dy, x, mean, var)[0]
        checks.assert_same_bits(dx, plain, f"dx alone, {name}")
        sets = nk.instance_norm(own_x, mean, var, weight, bias, use_input_stats=False)
        checks.assert_same_bits(sets, expected[0], f"instance norm, {name}")
        nk.batch_norm(own_x, *parameters, out=own_x)
        checks.assert_same_bits(own_x, expected[0], f"in place, {name}")


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("activation", ["relu", "silu"])
def test_activations(dtype, activation):
    x, _, *parameters = case(3, 21, (), dtype)
    y = nk.batch_norm(x, *parameters, activation=activation)
    each = [
        nk.batch_norm(np.ascontiguousarray(x[:, c : c + 1]), *(p[c : c + 1].copy() for p in parameters),
                      activation=activation)
        for c in range(21)
    ]  # fmt: skip
    checks.assert_same_bits(y, np.concatenate(each, 1), activation)


@pytest.mark.parametrize("dtype", ["float32", "float16", "float64"])
@pytest.mark.parametrize("channels", [5, 20, 70])
def test_channels_beyond_floats_range_and_nan_stay_by_themselves(dtype, channels):
    """var = 1e-70 has an rstd beyond float32; its neighbours keep their bits."""
    x, dy, mean, var, weight, bias = case(4, channels, (), dtype)
    mean, var = mean.astype(np.float64), var.astype(np.float64)
    plain = nk.batch_norm(x, mean, var, weight, bias, eps=0.0)
    plain_dx = nk.batch_norm_backward(dy, x, mean, var, weight, bias, eps=0.0)
    var[3], mean[1] = 1e-70, np.nan
    y = nk.batch_norm(x, mean, var, weight, bias, eps=0.0)
    grads = nk.batch_norm_backward(dy, x, mean, var, weight, bias, eps=0.0)
    others = [c for c in range(channels) if c not in (1, 3)]
    checks.assert_same_bits(y[:, others], plain[:, others], "y")
    for got, before in zip(grads, plain_dx, strict=True):
        checks.assert_same_bits(got[..., others], before[..., others], "gradients")
    assert np.isnan(wide(y[:, 1])).all()
    x3, w3, b3 = (wide(a) for a in (x[:, 3], weight[3], bias[3]))
    with np.errstate(over="ignore"):
        exact = ((x3 - mean[3]) / np.sqrt(1e-70) * w3 + b3).astype(x.dtype)
    checks.assert_same_bits(np.isinf(wide(y[:, 3])), np.isinf(wide(exact)), "infinities")


def test_a_channel_costs_no_more_than_a_vector_lane():
    """Of 4096 channels each took 90 ns. A call of 64, most of which is the call itself, is the measure."""

    def best(channels):
        x, _, *parameters = case(1, channels, (), "float32")
        out, times = np.empty_like(x), []
        for _ in range(200):
            start = time.perf_counter_ns()
            nk.batch_norm(x, *parameters, out=out)
            times.append(time.perf_counter_ns() - start)
        return min(times)

    with nk.num_threads(1):
        many, few = best(4096), best(64)
    checks.COUNT.values += 1
    assert many < 20 * few + 2000, f"4096 channels: {many} ns, 64: {few} ns"
