"""The memory of operands: on huge pages where the system has them, and alike for every contender.

An array from the heap may lie on pages that an earlier case has touched in small pieces, or on fresh huge
ones: a fifth of the speed of a large case, by chance.
"""

from __future__ import annotations

import contextlib
import math
import mmap
from typing import Any

import numpy as np

from normkit.bench.operations import Array, Shape

HUGE_PAGE = 2**21


def empty(shape: Shape, dtype: Any) -> Array:
    """An array in C order, on pages of its own that are there already."""
    size = math.prod(shape) * np.dtype(dtype).itemsize
    pages = mmap.mmap(-1, size + (HUGE_PAGE if size >= HUGE_PAGE else 0) + 1)
    with contextlib.suppress(AttributeError, OSError):  # neither every system nor every kernel has them
        pages.madvise(mmap.MADV_HUGEPAGE)
    whole = np.frombuffer(pages, np.uint8)
    begin = -whole.ctypes.data % HUGE_PAGE if size >= HUGE_PAGE else 0
    part = whole[begin : begin + size]
    part.fill(0)
    array: Array = part.view(dtype).reshape(shape)
    return array


def empty_like(array: Array, dtype: Any = None) -> Array:
    """Of the shape and the order of axes in memory of ``array``."""
    order = sorted(range(array.ndim), key=lambda axis: -array.strides[axis])
    found = empty(tuple(array.shape[axis] for axis in order), dtype or array.dtype)
    view: Array = found.transpose(np.argsort(order))
    return view


def copy_of(array: Array) -> Array:
    """The same values."""
    copy = empty_like(array)
    copy[...] = array
    return copy
