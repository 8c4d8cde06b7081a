"""Data that is the same for ever on every machine: integers from splitmix64, made floats by exact steps.

NumPy's random streams and libm's functions may change with a version; this recipe uses neither.
"""

import hashlib

import numpy as np

from .wide import FORMAT, numpy_dtype


def splitmix64(seed, count):
    """`count` 64-bit integers (Steele, Lea, Flood 2014); all arithmetic wraps."""
    with np.errstate(over="ignore"):
        z = np.uint64(seed) + np.uint64(0x9E3779B97F4A7C15) * np.arange(1, count + 1, dtype=np.uint64)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return z ^ (z >> np.uint64(31))


def _signed(integers, bits):
    """Integers of `bits` bits and a sign, as float64."""
    magnitude = (integers >> np.uint64(64 - bits)).astype(np.float64)
    return np.where(integers & np.uint64(1), -magnitude, magnitude)


def _plain(integers, dtype, bits):
    return _signed(integers, bits) * 2.0 ** (2 - bits)


def _offset(integers, dtype, bits):
    """A mean of 2^half, a spread of about 1: half the significand cancels."""
    half = bits // 2
    low = bits - 2 - half
    return 2.0**half + _signed(integers, low) * 2.0 ** (1 - low)


def _spread(integers, dtype, bits):
    """Magnitudes over 2^16 (2^8 for float16)."""
    exponents = ((integers >> np.uint64(8)) & np.uint64(7 if dtype == "float16" else 15)).astype(np.int32)
    return np.ldexp(_plain(integers, dtype, bits), exponents - 4)


def _tiny(integers, dtype, bits):
    """Subnormal, except in float64."""
    return _signed(integers, bits - 1) * 2.0 ** (
        -200 if dtype == "float64" else FORMAT[dtype][1] - (bits - 1)
    )


def _huge(integers, dtype, bits):
    return _plain(integers, dtype, bits) * 2.0 ** (10 if dtype == "float16" else 100)


KINDS = {"plain": _plain, "offset": _offset, "spread": _spread, "tiny": _tiny, "huge": _huge}


def values(shape, dtype, kind="plain", seed=0):
    """An array of `shape`, every value exactly representable in `dtype`."""
    bits = FORMAT[dtype][0]
    made = KINDS[kind](splitmix64(seed, int(np.prod(shape, dtype=np.int64))), dtype, bits).reshape(shape)
    result = made.astype(numpy_dtype(dtype))
    assert (result.astype(np.float64) == made).all(), f"{kind} is not exact in {dtype}"
    return result


def fingerprint(*arrays):
    """SHA-256 over type, shape and the bytes in C order of each NumPy array (None counts too)."""
    sha = hashlib.sha256()
    for array in arrays:
        if array is None:
            sha.update(b"none;")
        else:
            sha.update(f"{array.dtype.name}{array.shape};".encode())
            sha.update(np.ascontiguousarray(array).tobytes())
    return sha.hexdigest()
