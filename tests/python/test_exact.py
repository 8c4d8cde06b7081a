"""Data whose mean and variance are exact in any order of summation: every bit of the statistics must be
right.

The idea is that of oneDNN's benchdnn: neighbours add up to twice the mean and differ from it in few bits, so
that no partial sum in any order is ever rounded. A dropped tail, a wrong lane, a double count or a race is
then a plain mismatch, not something within a tolerance.
"""

import checks
import numpy as np
import pytest
from reference.operations import OPERATIONS
from reference.wide import DTYPES, numpy_dtype

pytestmark = pytest.mark.compares
SIZES = (*range(1, 71), 127, 128, 129, 255, 256, 257, 768, 1000, 1023, 1024, 1025, 4096, 4097, 65537, 1000003)


def exact_sets(n, dtype, seed):
    """[4, n], the exact mean and the exact sum of squared differences of each set.

    The means are 1, 2, 4 and 0; differences are 1 to 3 units of 1/8 (1/4 for bfloat16), so that no sum of a
    block's squares reaches float32's 2^24 units.
    """
    rng = np.random.default_rng([seed, n])
    unit = 4 if dtype == "bfloat16" else 8
    half = n // 2
    differences = rng.integers(1, 4, (4, half))
    means = np.array([1, 2, 4, 0]) * unit
    sets = np.empty((4, n))
    sets[:, 0 : 2 * half : 2] = means[:, None] + differences
    sets[:, 1 : 2 * half : 2] = means[:, None] - differences
    sets[:, 2 * half :] = means[:, None]
    x = (sets / unit).astype(numpy_dtype(dtype))
    assert (x.astype(np.float64) * unit == sets).all(), "the data must be representable"
    squares = 2 * (differences**2).sum(axis=1)
    return x, means / unit, squares / unit**2


def root(variance, eps):
    with np.errstate(divide="ignore"):
        return 1.0 / np.sqrt(variance + eps)  # IEEE: each step is correctly rounded


@pytest.mark.parametrize("eps", (1e-5, 0.0))
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("op", OPERATIONS, ids=str)
def test_statistics_are_exact(op, dtype, eps):
    for n in SIZES:
        if n < op.smallest:
            continue
        sets, mean, m2 = exact_sets(n, dtype, seed=3)
        case = op.make_case(4, n)
        results = op.forward(case.from_sets(sets), case, eps=eps, return_stats=True)
        results = dict(zip(("y", *op.statistics), results, strict=True))
        if op.centred:
            expected = root(m2 / n, eps)
            assert (case.statistics_of_sets(results["mean"]) == mean).all(), (
                f"mean at n={n}: {case.statistics_of_sets(results['mean']) - mean}"
            )
        else:
            total = (sets.astype(np.float64) ** 2).sum(axis=1)  # exact: integers over 64
            if n > 20_000:  # squares of the mean no longer fit float32's sum of a block: only those that do
                continue
            expected = root(total / n, eps)
        actual = case.statistics_of_sets(results["rstd"])
        assert (actual == expected).all(), f"rstd at n={n}: {actual} instead of {expected}"
        checks.COUNT.values += 8


@pytest.mark.parametrize("threads_used", (1, 2, 3))
@pytest.mark.parametrize("op", OPERATIONS, ids=str)
def test_parameter_gradients_are_exact(op, threads_used, threads):
    """dy of small integers: dbias is exact in any order, and so is dweight where xhat is 1 or -1."""
    threads(threads_used)
    rng = np.random.default_rng(5)
    for rows, n in ((1, 4), (9, 4), (64, 32), (65, 32), (1000, 256), (4099, 64)):
        case = op.make_case(rows, n)
        sets = np.where(np.arange(n) % 2, -0.5, 0.5) * np.ones(
            (rows, 1)
        )  # mean 0, var 1/4: xhat = +-1 at eps 0
        dy = rng.integers(-8, 9, (rows, n)).astype(np.float32)
        x = case.from_sets(sets.astype(np.float32))
        weight = np.ones(case.parameter_shape, np.float32)
        _, dweight, dbias = op.backward(case.from_sets(dy), x, case, weight=weight, bias=weight, eps=0.0)
        dy = case.from_sets(dy).astype(np.float64)
        checks.assert_same_bits(
            dbias + 0.0, (case.sum_to_parameter(dy)).astype(np.float32) + np.float32(0), "dbias"
        )
        expected = case.sum_to_parameter(dy * 2 * x.astype(np.float64)).astype(np.float32)
        checks.assert_same_bits(dweight + 0.0, expected + np.float32(0), "dweight")
