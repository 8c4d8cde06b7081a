"""Running statistics stay within the range of their type."""

import checks
import normkit as nk
import numpy as np
import pytest
from reference.wide import LARGEST, numpy_dtype

pytestmark = [pytest.mark.compares, pytest.mark.report("field trial: float16 running variance, inf for good")]
W = np.ones(3, np.float32)
LOGITS = np.zeros(3, np.float32)


def batch(x, mean, var, momentum):
    nk.batch_norm(x, mean, var, training=True, momentum=momentum)


def instance(x, mean, var, momentum):
    nk.instance_norm(x, mean, var, momentum=momentum)


def switchable(x, mean, var, momentum):
    logits = LOGITS.astype(np.float64 if x.dtype == np.float64 else np.float32)
    nk.switchable_norm(x, logits, logits, None, None, mean, var, True, momentum)


every_norm = pytest.mark.parametrize("norm", (batch, instance, switchable))


def running(dtype):
    return np.zeros(3, numpy_dtype(dtype)), np.ones(3, numpy_dtype(dtype))


# Elements, their scale, and the type of the running statistics, whose range their variance exceeds.
CASES = (
    ("float32", 1e3, "float16"),
    ("float32", 1e19, "float16"),
    ("float32", 1e20, "float32"),
    ("float32", 1e20, "bfloat16"),
    ("float64", 1e30, "float32"),
    ("float64", 1e30, "bfloat16"),
    ("float64", 1e200, "float64"),
    ("float64", 1e308, "float64"),
    ("float16", 4e4, "float16"),
    ("bfloat16", 3e38, "bfloat16"),
)


@every_norm
@pytest.mark.parametrize(("elements", "scale", "dtype"), CASES)
@pytest.mark.parametrize("layout", ("plain", "channels last", "one sample"))
def test_the_largest_number_then_back(norm, elements, scale, dtype, layout):
    shape = (1 if layout == "one sample" else 4, 3, 5)
    x = (np.random.default_rng(0).uniform(-1, 1, shape) * scale).astype(numpy_dtype(elements))
    if layout == "channels last":
        x = np.ascontiguousarray(x.transpose(0, 2, 1)).transpose(0, 2, 1)
    mean, var = running(dtype)
    norm(x, mean, var, 1.0)
    assert (var.astype(np.float64) == LARGEST[dtype]).all(), var
    assert np.isfinite(mean.astype(np.float64)).all()
    norm(np.zeros_like(x), mean, var, 0.5)
    got = var.astype(np.float64)
    assert (np.abs(got / LARGEST[dtype] - 0.5) < 1e-2).all(), var  # it follows again
    checks.COUNT.values += 6


@every_norm
def test_means(norm):
    x = np.full((2, 3, 4), 1e6, np.float32)
    x[:, 1] = -1e6
    mean, var = running("float16")
    norm(x, mean, var, 1.0)
    assert mean.tolist() == [65504.0, -65504.0, 65504.0]
    checks.COUNT.values += 3


@every_norm
def test_infinities_of_x_stay(norm):
    """Only what is finite is kept so: an infinity in x, or one that was there, is no matter of range."""
    x = np.ones((2, 3, 4), np.float32)
    x[0, 1, 2] = np.inf
    mean, var = running("float16")
    norm(x, mean, var, 0.5)
    assert not np.isfinite(mean[1]) or np.isnan(mean[1])
    assert np.isnan(var[1])
    if norm is not switchable:
        assert np.isfinite(mean[[0, 2]]).all() and np.isfinite(var[[0, 2]]).all()
    var[...] = np.inf
    norm(np.ones((2, 3, 4), np.float32), mean, var, 0.5)
    assert np.isinf(var).all()
    checks.COUNT.values += 6


@every_norm
@pytest.mark.parametrize("dtype", ("float16", "bfloat16", "float32", "float64"))
def test_ordinary_values_are_as_before(norm, dtype):
    x = np.random.default_rng(1).standard_normal((4, 3, 5)).astype(np.float64)
    mean, var = running(dtype)
    norm(x, mean, var, 0.25)
    wide_mean, wide_var = running("float64")
    norm(x, wide_mean, wide_var, 0.25)
    # Two steps of bfloat16 (2^-8); exact values: the references of the norms themselves.
    assert np.allclose(mean.astype(np.float64), wide_mean, rtol=1e-2, atol=1e-3)
    assert np.allclose(var.astype(np.float64), wide_var, rtol=1e-2)
    checks.COUNT.values += 6
