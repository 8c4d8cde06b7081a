"""min_max_scale: the ends of the range are hit, nothing lies outside, larger stays larger."""

from fractions import Fraction

import checks
import normkit as nk
import numpy as np
import pytest
from reference.wide import DTYPES, numpy_dtype, ulp

pytestmark = pytest.mark.compares
every_dtype = pytest.mark.parametrize("dtype", DTYPES)
RANGES = (
    (0, 1),
    (-1, 1),
    (0, 255),
    (0.1, 0.9),
    (0.1, 0.7),
    (-1, 0.3),
    (-0.3, -0.1),
    (1e-3, 3),
    (1000, 1001),
    (-0.0, 7),
)


def features(dtype, seed=0, count=64, rows=41):
    """Columns of many magnitudes, offsets and numbers of distinct values."""
    rng = np.random.default_rng(seed)
    x = (
        rng.standard_normal((rows, count)) * 10.0 ** rng.integers(-3, 4, count)
        + rng.integers(-2, 3, count) * 100
    )
    x[:, ::3] = rng.integers(-200, 200, x[:, ::3].shape)
    x = x.astype(numpy_dtype(dtype))
    return x[:, (x != x[:1]).any(axis=0)]


def expect(x, y, low, high, dtype):
    """Both 2-D; features are columns that vary."""
    x, y = x.astype(np.float64), y.astype(np.float64)
    bottom, top = (float(np.asarray(v, np.float64).astype(numpy_dtype(dtype))) for v in (low, high))
    assert (y[x == x.min(axis=0)] == bottom).all(), "the least element"
    assert (y[x == x.max(axis=0)] == top).all(), "the largest element"
    assert (y >= bottom).all() and (y <= top).all(), "outside"
    order = np.argsort(x, axis=0, kind="stable")
    assert (np.diff(np.take_along_axis(y, order, 0), axis=0) >= 0).all(), "not monotone"
    checks.COUNT.values += y.size


@every_dtype
@pytest.mark.report("field trial: min_max_scale to 0.9999999999999999, 254")
@pytest.mark.parametrize("bounds", RANGES)
def test_ends(dtype, bounds):
    x = features(dtype)
    for layout in (x, np.asfortranarray(x), np.repeat(x, 2, axis=1)[:, ::2]):
        expect(x, nk.min_max_scale(layout, 0, bounds), *bounds, dtype)
    expect(x, nk.min_max_scale(np.ascontiguousarray(x.T), 1, bounds).T, *bounds, dtype)


@pytest.mark.report("field trial: min_max_scale to 0.9999999999999999, 254")
def test_reported_values():
    y = nk.min_max_scale(np.array([[0.0], [49.0]]))
    assert y.ravel().tolist() == [0.0, 1.0]
    assert nk.min_max_scale(np.array([[0.0], [49.0]]), 0, (0, 255)).astype(np.uint8).ravel().tolist() == [
        0,
        255,
    ]
    for high in (0.9, 0.7):
        y = nk.min_max_scale(np.array([[0.0], [3.0]], np.float32), 0, (0.1, high))
        assert y.ravel().tolist() == [np.float32(0.1), np.float32(high)]
    y = nk.min_max_scale(np.array([[-1.2e308], [0.0], [1.2e308]]))
    assert y.ravel().tolist() == [0.0, 0.5, 1.0]
    checks.COUNT.values += 9


@every_dtype
@pytest.mark.parametrize("bounds", RANGES)
def test_inside(dtype, bounds):
    """Within a few ULP of the exact value, seen from the larger end of the range."""
    x = features(dtype, 1, 12, 9)
    y = nk.min_max_scale(x, 0, bounds)
    low, high = (Fraction(float(v)) for v in bounds)
    for column, scaled in zip(x.astype(np.float64).T, y.astype(np.float64).T, strict=True):
        exact = [Fraction(float(v)) for v in column]
        least, most = min(exact), max(exact)
        for v, got in zip(exact, scaled, strict=True):
            wanted = float((v - least) / (most - least) * (high - low) + low)
            unit = float(ulp(np.longdouble(wanted), dtype))
            double = float(ulp(np.longdouble(max(abs(low), abs(high))), "float64"))
            assert abs(got - wanted) <= 0.5 * unit + 4 * double + 1e-16 * unit, (v, got, wanted)
            checks.COUNT.values += 1


@every_dtype
def test_ends_of_the_type(dtype):
    """Data and ranges as far apart as the type allows."""
    largest = float(np.asarray(np.finfo(np.float32).max if dtype == "bfloat16" else 0, np.float32))
    if dtype == "bfloat16":
        import ml_dtypes

        largest = float(ml_dtypes.finfo(ml_dtypes.bfloat16).max)
    else:
        largest = float(np.finfo(dtype).max)
    tiny = float(np.asarray(largest * 0 + 1, np.float64)) * {"float64": 5e-324, "float32": 1.4e-45}.get(
        dtype, 6e-8
    )
    for column in (
        [-largest, 0.0, largest],
        [largest, largest / 2],
        [0.0, tiny],
        [-tiny, 0.0, tiny],
        [0.0, 1.0, largest],
    ):
        x = np.array(column)[:, None].astype(numpy_dtype(dtype))
        if len(np.unique(x.astype(np.float64))) < 2:
            continue
        for bounds in ((0, 1), (0.1, 0.7), (-largest, largest), (0, largest), (-largest, 0)):
            expect(x, nk.min_max_scale(x, 0, bounds), *bounds, dtype)


@every_dtype
def test_a_feature_without_spread_or_with_nan(dtype):
    x = np.array([[3.0, 0.0, np.nan], [3.0, 0.0, 1.0]]).astype(numpy_dtype(dtype))
    y = nk.min_max_scale(x, 0, (0.1, 0.7)).astype(np.float64)
    assert (y[:, :2] == float(np.array(0.1).astype(numpy_dtype(dtype)))).all()
    assert np.isnan(y[:, 2]).all()
    checks.COUNT.values += 6


@pytest.mark.report("field trial: feature_range as an array")
def test_range_as_any_pair():
    x = features("float64")
    wanted = nk.min_max_scale(x, 0, (-1, 0.25))
    for pair in (
        [-1, 0.25],
        np.array([-1, 0.25]),
        np.array([-1, 0.25], np.float32),
        (np.float64(-1), np.array(0.25)),
    ):
        checks.assert_same_bits(nk.min_max_scale(x, feature_range=pair), wanted, repr(pair))
    for pair in (np.arange(3.0), np.array(1.0), np.zeros((2, 2)), "01", 1, {0: 1, 1: 2}):
        with pytest.raises(TypeError, match="feature_range"):
            nk.min_max_scale(x, feature_range=pair)


def test_ranges_beyond_the_type():
    for dtype, bounds in (("float16", (0, 1e5)), ("float32", (-4e38, 0)), ("float64", (0, np.inf))):
        with pytest.raises(ValueError, match=r"feature_range.*finite"):
            nk.min_max_scale(np.ones((2, 2), dtype), 0, bounds)
    checks.COUNT.values += 3
