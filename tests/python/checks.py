"""Assertions that every test file shares. They count what they compare, and remember the worst errors."""

from types import SimpleNamespace

import numpy as np
from reference.recipe import fingerprint
from reference.wide import COMPUTE, FORMAT, LARGEST, UNIT, WIDE, ulp, wide

COUNT = SimpleNamespace(values=0)
WORST = {}  # (operation, what, dtype) -> (error, where)


def remember(operation, what, dtype, error, where):
    key = (str(operation), what, dtype)
    if key not in WORST or error > WORST[key][0]:
        WORST[key] = (float(error), where)


def worst_table():
    rows = [("operation", "value", "type", "worst", "at")]
    rows += [(*key, f"{error:.3f}", where) for key, (error, where) in sorted(WORST.items())]
    widths = [max(len(row[i]) for row in rows) for i in range(5)]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    ]


def dtype_name(array):
    return np.asarray(array).dtype.name


def digest(*arrays):
    """`fingerprint` of arrays of any kind."""
    arrays = [None if array is None else to_numpy(array) for array in arrays]
    COUNT.values += sum(array.size for array in arrays if array is not None)
    return fingerprint(*arrays)


def to_numpy(array):
    """A NumPy array of the same bits from NumPy, PyTorch or JAX."""
    if isinstance(array, np.ndarray):
        return array
    if type(array).__module__.startswith("torch"):
        import ml_dtypes
        import torch

        array = array.detach()
        if array.dtype == torch.bfloat16:
            return array.view(torch.int16).numpy().view(ml_dtypes.bfloat16)
        return array.numpy()
    return np.asarray(array)


def assert_same_bits(actual, expected, message=""):
    actual, expected = to_numpy(actual), to_numpy(expected)
    assert actual.dtype == expected.dtype, f"{message}: {actual.dtype} instead of {expected.dtype}"
    assert actual.shape == expected.shape, f"{message}: shape {actual.shape} instead of {expected.shape}"
    COUNT.values += actual.size
    if actual.size == 0:
        return
    integers = np.dtype(f"u{actual.dtype.itemsize}")
    different = np.ascontiguousarray(actual).view(integers) != np.ascontiguousarray(expected).view(integers)
    if different.any():
        at = tuple(int(i) for i in np.argwhere(different)[0])
        raise AssertionError(
            f"{message}: {different.sum()} of {actual.size} values differ in their bits, "
            f"first at {at}: {actual[at]!r} instead of {expected[at]!r}"
        )


def _fail(actual, exact, error, bound, where):
    bad = ~(error <= bound)
    at = tuple(int(i) for i in np.argwhere(bad)[0])
    raise AssertionError(
        f"{where}: {bad.sum()} of {bad.size} values out of bounds, first at {at}: "
        f"{actual[at]} instead of {exact[at]}, error {float(error[at]):.3g} > {float(bound[at]):.3g}"
    )


def assert_within(actual, exact, bound, where):
    """|actual - exact| <= bound, and NaN exactly where the exact value is NaN. Returns |error| / bound."""
    actual, exact = wide(to_numpy(actual)), np.asarray(exact)
    assert actual.shape == exact.shape, f"{where}: shape {actual.shape} instead of {exact.shape}"
    COUNT.values += actual.size
    nan = np.isnan(exact)
    assert (np.isnan(actual) == nan).all(), (
        f"{where}: NaN is wrong at {np.argwhere(np.isnan(actual) != nan)[:3].tolist()}, "
        f"exact: {exact[np.isnan(actual) != nan][:3]}"
    )
    bound = np.broadcast_to(bound, exact.shape)
    with np.errstate(invalid="ignore"):
        error = np.where(nan | (actual == exact), WIDE(0), np.abs(actual - exact))
    bound = np.where(nan, WIDE(0), bound)
    if not (error <= bound).all():
        _fail(actual, exact, error, bound, where)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(error == 0, WIDE(0), error / bound)


# The promise: where the exact normalized value exceeds 0.1, at most so many ULP of the output type.
ULP_LIMIT = {"float32": 5, "float64": 5, "float16": 1, "bfloat16": 1}
FLOOR = WIDE(0.1)


def normalized_bound(exact, dtype, limit):
    """`limit` ULP where |exact| > 0.1.

    Smaller values, about which nothing is promised, may also be off by 2 u of the computing type absolutely,
    so that no garbage hides there: u is what rounding each x - k can move the mean by, in units of the
    spread.
    """
    return limit * ulp(exact, dtype) + np.where(np.abs(exact) > FLOOR, WIDE(0), 2 * WIDE(UNIT[dtype]))


def assert_normalized(operation, y, exact, where, family_of=None):
    """Without weight and bias; `family_of` names the family of each value, for the table."""
    dtype = dtype_name(y)
    bound = normalized_bound(exact, dtype, ULP_LIMIT[dtype])
    share = assert_within(y, exact, bound, f"{operation} {dtype} {where}")
    large = np.abs(exact) > FLOOR
    if large.any():
        worst = np.argmax(np.where(large, share, 0))
        family = "" if family_of is None else f" {family_of.flat[worst]}"
        remember(operation, "y", dtype, share.flat[worst] * ULP_LIMIT[dtype], where + family)


def assert_affine(operation, y, standard, case, weight, bias, where, weight_offset=0.0):
    """With weight and bias. y = fl(fl(xhat w) + b), and for 16-bit types one more rounding, so

        |error| <= |w| (normalized_bound of xhat) + ulp(xhat w) / 2 + ulp(sum) / 2 [+ ulp16(y) / 2]

    with every ulp but the last one of the computing type. The terms are taken before the final sum: what
    cancels there is not the kernel's error. A weight offset rounds w once more: + ulp(w) / 2 |xhat|. A
    computed value may lie in the next binade, where its ulp is double; hence the 1.001 on values whose ulp is
    taken.
    """
    dtype = dtype_name(y)
    compute = COMPUTE[dtype]
    exact, product = standard.affine(case, weight, bias, weight_offset)
    w = WIDE(1) if weight is None else case.spread(wide(weight) + WIDE(weight_offset))
    bound = np.abs(w) * normalized_bound(standard.xhat, compute, 5)
    if weight is not None:
        bound = bound + ulp(product * WIDE(1.001), compute) / 2
        if weight_offset:
            bound = bound + ulp(w * WIDE(1.001), compute) / 2 * np.abs(standard.xhat)
    if bias is not None:
        bound = bound + ulp(np.abs(exact) * WIDE(1.001) + bound, compute) / 2
    if dtype != compute:
        bound = bound + ulp(np.abs(exact) * WIDE(1.001) + bound, dtype) / 2
    share = assert_within(y, exact, bound, f"{operation} {dtype} {where}")
    remember(operation, "y with parameters (share)", dtype, share.max(initial=0), where)


# The constant of the gradients' bound, in units u of 2^-24 (2^-53 for float64), relative to sum |terms| (see
# standardize_backward for what is a term).
#
# xhat = ((x - hi) - lo) rstd: two subtractions, the rounding of rstd and one product, 4 u.
# dweight: 4 u of xhat, 1 u of dy xhat, 3 u of a tree of 8 rows, 7 u of a chain of 8 trees; panels of 64 rows
#     add in float64. Together 15 u; the last rounding, to the output type, is counted apart.
# dbias: 3 u + 7 u.
# dx: on the longest path, xhat b: 4 u of xhat; for b 4 u of its own xhat, 1 u of g, 1 u of g xhat, about
#     1 u of the 32-lane sum (its 37 roundings have no common sign, most are of 1/32 of the block's sum) and
#     1 u of b's rounding; 1 u of the product, 1 u of the subtraction, 1 u of rstd and 1 u of the last
#     product. Together 16 u; dx's other terms have shorter paths.
CONSTANT = 16


def assert_gradient(operation, what, actual, exact, terms, where, compute=None, accumulated=None):
    """|error| <= 16 u sum |terms| + half an ULP of the output type."""
    dtype = dtype_name(to_numpy(actual))
    unit = UNIT[compute or dtype]
    bound = CONSTANT * WIDE(unit) * terms
    bound = bound + ulp(np.abs(exact) * WIDE(1.001) + bound, dtype) / 2
    if accumulated is not None:  # the sum with what was there before rounds once more
        exact = exact + wide(accumulated)
        bound = bound + ulp(np.abs(exact) * WIDE(1.001) + bound, dtype) / 2
    limit = WIDE(LARGEST[dtype]) * (1 + WIDE(2) ** -FORMAT[dtype][0])  # what lies beyond rounds to infinity
    infinite = np.isinf(wide(to_numpy(actual))) & (np.abs(exact) + bound >= limit)
    exact = np.where(infinite, np.copysign(WIDE(np.inf), exact), exact)
    share = assert_within(actual, exact, bound, f"{operation} {what} {dtype} {where}")
    remember(operation, f"{what} (share)", dtype, share.max(initial=0), where)
