"""The forward against the exact value: thirteen families of inputs, sizes from 1 to 1,000,003."""

import checks
import numpy as np
import pytest
from reference.families import families_of, make, parameters
from reference.operations import OPERATIONS
from reference.wide import DTYPES, numpy_dtype, wide

SMALL = tuple(range(1, 71))
MEDIUM = (255, 256, 257, 768, 1000, 4096, 4097)
LARGE = (65537, 1000003)
EPS = (1e-5, 0.0)

pytestmark = pytest.mark.compares
every_operation = pytest.mark.parametrize("op", OPERATIONS, ids=str)
every_dtype = pytest.mark.parametrize("dtype", DTYPES)


def stacked(n, dtype, eps, seed=0):
    """One array with two sets of each family, and the family of each set."""
    names = families_of(dtype)
    if dtype == "float64" and eps == 0:
        names.remove("subnormal")  # test_float64_subnormals
    names = [name for name in names for _ in range(2)]
    rows = [make(name, 1, n, dtype, seed=seed * 1000 + k) for k, name in enumerate(names)]
    return np.concatenate(rows), names


def check_rows(op, n, dtype, eps, seed=0):
    sets, names = stacked(n, dtype, eps, seed)
    case = op.make_case(len(sets), n)
    x = case.from_sets(sets)
    weight, bias = parameters(case.parameter_shape, dtype)
    standard = op.reference(x, case, eps)
    where = f"n={n} eps={eps} seed={seed}"

    y = op.forward(x, case, eps=eps)
    family_of = case.from_sets(np.broadcast_to(np.array(names)[:, None], sets.shape))
    checks.assert_normalized(op, y, standard.xhat, where, family_of)
    for w, b in ((weight, bias), (weight, None), (None, bias)):
        y = op.forward(x, case, weight=w, bias=b, eps=eps)
        checks.assert_affine(op, y, standard, case, w, b, where)


@every_dtype
@every_operation
@pytest.mark.parametrize("eps", EPS)
def test_every_size_to_70(op, dtype, eps):
    for n in SMALL:
        if n >= op.smallest:
            check_rows(op, n, dtype, eps)


@every_dtype
@every_operation
@pytest.mark.parametrize("n", MEDIUM)
def test_sizes_around_blocks(op, dtype, n):
    for eps in EPS:
        check_rows(op, n, dtype, eps)


def check_large(op, n, dtype, family):
    """One set, without parameters and, at eps 1e-5, with them."""
    case = op.make_case(1, n)
    x = case.from_sets(make(family, 1, n, dtype))
    weight, bias = parameters(case.parameter_shape, dtype)
    for eps in EPS:
        if dtype == "float64" and family == "subnormal" and eps == 0:
            continue  # test_float64_subnormals
        standard = op.reference(x, case, eps)
        where = f"n={n} eps={eps} {family}"
        checks.assert_normalized(op, op.forward(x, case, eps=eps), standard.xhat, where)
        if eps:
            y = op.forward(x, case, weight=weight, bias=bias, eps=eps)
            checks.assert_affine(op, y, standard, case, weight, bias, where)


@every_dtype
@every_operation
def test_65537(op, dtype):
    for family in families_of(dtype):
        check_large(op, 65537, dtype, family)


@every_dtype
@every_operation
def test_1000003(op, dtype, deep):
    chosen = families_of(dtype)
    if not deep:  # the reference takes a second for each
        chosen = ["mean 1e4 std 0.01", "lognormal(3)", "outlier 1e30"][
            : 3 if dtype in ("float32", "float64") else 2
        ]
    for family in chosen:
        check_large(op, 1000003, dtype, family)


@every_dtype
@every_operation
def test_more_seeds(op, dtype, deep):
    for seed in range(1, 40 if deep else 3):
        for n in (3, 33, 64, 100, 513, 1025, 2048, 3000):
            check_rows(op, n, dtype, 1e-5, seed=seed)


@every_operation
@pytest.mark.parametrize("dtype", ("float32", "float64"))
@pytest.mark.parametrize("family", ("normal", "lognormal(3)", "Cauchy", "mean 1e3 std 1"))
def test_many_short_rows(op, dtype, family, deep):
    """Where the promise is hardest to keep: just above 0.1 an ULP is smallest, and short rows give many
    cases.

    The rounding of the mean is an absolute error; at 0.1, 0.6 u of it are 5 ULP.
    """
    for n in (2, 3, 5, 8, 11, 20, 33, 66, 116):
        rows = (200_000 if deep else 10_000) // n
        case = op.make_case(rows, n)
        x = case.from_sets(make(family, rows, n, dtype, seed=77))
        exact = op.reference(x, case, 1e-5).xhat
        checks.assert_normalized(op, op.forward(x, case, eps=1e-5), exact, f"n={n} rows={rows} {family}")


@every_operation
@pytest.mark.parametrize("n", (1, 2, 31, 70, 1000, 4097))
def test_float64_subnormals(op, n):
    """eps = 0: the squares lie below float64's range, the result does not, and neither does rstd."""
    n = max(n, op.smallest)
    case = op.make_case(3, n)
    x = case.from_sets(make("subnormal", 3, n, "float64"))
    y = op.forward(x, case, eps=0.0)
    checks.assert_normalized(op, y, op.reference(x, case, 0.0).xhat, f"n={n} eps=0 subnormal")


@every_operation
@pytest.mark.parametrize("dtype", ("float16", "bfloat16", "float32"))
def test_float32_parameters(op, dtype):
    """Weight and bias may be float32 whatever x is."""
    case = op.make_case(5, 130)
    x = case.from_sets(make("normal", 5, 130, dtype))
    weight, bias = parameters(case.parameter_shape, "float32")
    y = op.forward(x, case, weight=weight, bias=bias, eps=1e-5)
    assert y.dtype == x.dtype
    checks.assert_affine(op, y, op.reference(x, case, 1e-5), case, weight, bias, "float32 parameters")


@every_dtype
@pytest.mark.parametrize("op", [op for op in OPERATIONS if op.weight_offset], ids=str)
def test_weight_offset(op, dtype):
    """Gemma stores weight - 1 (Liger-Kernel#74)."""
    case = op.make_case(5, 130)
    x = case.from_sets(make("lognormal(3)", 5, 130, dtype))
    weight, bias = parameters(case.parameter_shape, dtype)
    y = op.forward(x, case, weight=weight, bias=bias, eps=1e-5, weight_offset=1.0)
    standard = op.reference(x, case, 1e-5)
    checks.assert_affine(op, y, standard, case, weight, bias, "weight_offset=1", weight_offset=1.0)
    plain = op.forward(x, case, weight=weight, bias=bias, eps=1e-5)
    assert not np.array_equal(wide(y), wide(plain)), "weight_offset changed nothing"
    without = op.forward(x, case, eps=1e-5, weight_offset=1.0)
    checks.assert_same_bits(
        without, op.forward(x, case, eps=1e-5), "without a weight there is nothing to offset"
    )


@every_dtype
@every_operation
def test_statistics(op, dtype):
    """As float64, before their last rounding: right to a few ULP of the arithmetic behind them."""
    for n in (op.smallest, 7, 33, 768, 4097):
        sets, _ = stacked(n, dtype, 1e-5)
        case = op.make_case(len(sets), n)
        x = case.from_sets(sets)
        standard = op.reference(x, case, 1e-5)
        results = dict(
            zip(("y", *op.statistics), op.forward(x, case, eps=1e-5, return_stats=True), strict=True)
        )
        checks.assert_same_bits(results["y"], op.forward(x, case, eps=1e-5), "return_stats changed y")
        for name in op.statistics:
            value = results[name]
            assert value.dtype == np.float64
            assert value.shape == case.statistics_shape
        # Half the relative error of the variance, whose squares and sums are rounded in the computing type.
        unit = 2.0**-50 if dtype == "float64" else 2.0**-22
        checks.assert_within(results["rstd"], standard.rstd, unit * standard.rstd, f"{op} rstd n={n}")
        if "mean" in op.statistics:
            spread = 1 / standard.rstd + np.abs(standard.mean) * 2.0**-28
            bound = (2.0**-50 if dtype == "float64" else 2.0**-22) * spread + 2.0**-52 * np.abs(standard.mean)
            checks.assert_within(results["mean"], standard.mean, bound, f"{op} mean n={n}")


@every_dtype
@every_operation
def test_signed_bias(op, dtype):
    """The errors have no common sign: a coherent error would add up through the layers of a network."""
    case = op.make_case(64, 1000)
    x = case.from_sets(
        make("mean 1e3 std 1" if dtype in ("float32", "float64") else "normal", 64, 1000, dtype)
    )
    exact = op.reference(x, case, 1e-5).xhat
    error = (wide(op.forward(x, case, eps=1e-5)) - exact) / checks.ulp(exact, dtype) * np.sign(exact)
    checks.COUNT.values += error.size
    assert abs(float(error.mean())) < 0.2
    assert float(np.abs(error).max()) > 0.1, "no rounding at all: is this the reference?"


@every_dtype
@every_operation
def test_zero_variance(op, dtype):
    """eps = 0 with var = 0 is NaN; n = 1 with eps > 0 gives y = bias exactly; zeros give the bias."""
    t = numpy_dtype(dtype)
    case = op.make_case(3, 9)
    weight, bias = parameters(case.parameter_shape, dtype)
    value = 1234.5 if op.centred else 0.0
    constant = case.from_sets(np.full((3, 9), value, t))
    y = op.forward(constant, case, weight=weight, bias=bias, eps=0.0)
    assert np.isnan(wide(y)).all()
    y = op.forward(constant, case, weight=weight, bias=bias, eps=1e-5)
    checks.assert_same_bits(y, np.broadcast_to(case.spread(bias), y.shape).copy(), "a constant set")
    if op.centred and op.smallest == 1:
        case = op.make_case(5, 1)
        weight, bias = parameters(case.parameter_shape, dtype)
        x = case.from_sets(np.array([[0], [-3], [1e-3], [60000], [7]]).astype(t))
        y = op.forward(x, case, weight=weight, bias=bias, eps=1e-5)
        checks.assert_same_bits(y, np.broadcast_to(case.spread(bias), y.shape).copy(), "n = 1")
        assert np.isnan(wide(op.forward(x, case, eps=0.0))).all()
