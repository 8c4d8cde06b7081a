"""Arithmetic wider than any kernel's: 80-bit floats, unevaluated pairs of them, and the ULP of each element
type.

A plain longdouble mean of float64 data has 11 bits to spare, which an offset mean uses up: at mean 1e4 and
spread 0.01 twenty bits cancel. So sums and means are pairs hi + lo (Knuth's TwoSum), good to about 2^-120 of
sum |x|.
"""

import numpy as np

WIDE = np.longdouble
if np.finfo(WIDE).nmant < 63:
    raise ImportError("the references need a longdouble of at least 64 bits; this platform's is a double")

# Significand bits (the hidden one included) and the exponent of the smallest normal number.
FORMAT = {"float32": (24, -126), "float64": (53, -1022), "float16": (11, -14), "bfloat16": (8, -126)}
DTYPES = tuple(FORMAT)
LARGEST = {
    "float32": 3.4028234663852886e38,
    "float64": 1.7976931348623157e308,
    "float16": 65504.0,
    "bfloat16": 3.3895313892515355e38,
}
# Half an ULP of 1 in the arithmetic that computes a result of this type.
UNIT = {"float32": 2.0**-24, "float64": 2.0**-53, "float16": 2.0**-24, "bfloat16": 2.0**-24}
# The type that a result of this type is computed in before its last rounding.
COMPUTE = {"float32": "float32", "float64": "float64", "float16": "float32", "bfloat16": "float32"}


def numpy_dtype(name):
    """The NumPy dtype called `name`; bfloat16 is ml_dtypes'."""
    if name == "bfloat16":
        import ml_dtypes

        return np.dtype(ml_dtypes.bfloat16)
    return np.dtype(name)


def wide(array):
    """`array` in longdouble, exactly (every element type fits)."""
    array = np.asarray(array)
    if array.dtype.name == "bfloat16":
        array = array.astype(np.float32)
    return array.astype(WIDE)


def ulp(value, dtype):
    """The distance of neighbouring numbers of type `dtype` at `value` (subnormals included)."""
    bits, smallest = FORMAT[dtype]
    _, exponent = np.frexp(np.abs(wide(value)))
    exponent = np.where(value == 0, smallest, np.maximum(exponent - 1, smallest))
    return np.ldexp(WIDE(1), exponent - (bits - 1))


def two_sum(a, b):
    """s + e == a + b exactly, s = fl(a + b)."""
    s = a + b
    t = s - a
    return s, (a - (s - t)) + (b - t)


def two_product(a, b):
    """p + e == a b exactly, p = fl(a b): Dekker's product, without a fused multiply-add."""
    splitter = WIDE(2**32 + 1)
    c = splitter * a
    a_top = c - (c - a)
    c = splitter * b
    b_top = c - (c - b)
    a_low, b_low = a - a_top, b - b_top
    p = a * b
    return p, ((a_top * b_top - p) + a_top * b_low + a_low * b_top) + a_low * b_low


def sum_pair(x, axis):
    """hi + lo = the sum over `axis` (an axis or a tuple), kept as axes of length 1."""
    axis = axis if isinstance(axis, tuple) else (axis,)
    kept = tuple(1 if i in axis else size for i, size in enumerate(x.shape))
    order = axis + tuple(i for i in range(x.ndim) if i not in axis)
    hi = np.transpose(x, order).reshape((-1, *(x.shape[i] for i in order[len(axis) :])))
    lo = np.zeros_like(hi)
    while len(hi) > 1:
        half = len(hi) // 2
        s, e = two_sum(hi[:half], hi[half : 2 * half])
        rest = slice(2 * half, None)
        lo = np.concatenate([lo[:half] + lo[half : 2 * half] + e, lo[rest]])
        hi = np.concatenate([s, hi[rest]])
    return hi.reshape(kept), lo.reshape(kept)


def sum_wide(x, axis):
    hi, lo = sum_pair(x, axis)
    return hi + lo


def mean_pair(x, axis):
    """hi + lo = the mean over `axis`."""
    hi, lo = sum_pair(x, axis)
    n = WIDE(x.size // hi.size)
    q = hi / n
    p, e = two_product(q, n)
    return q, (((hi - p) - e) + lo) / n


def centre(x, axis):
    """x - mean (exactly 0 where a set is constant), and the mean as hi and lo."""
    hi, lo = mean_pair(x, axis)
    s, e = two_sum(x, -hi)
    constant = x.min(axis=axis, keepdims=True) == x.max(axis=axis, keepdims=True)
    return np.where(constant, WIDE(0), s + (e - lo)), hi, lo
