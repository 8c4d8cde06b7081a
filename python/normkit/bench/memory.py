"""The memory of operands: on huge pages where the system has them, and alike for every contender.

An array from the heap may lie on pages that an earlier case has touched in small pieces, or on fresh huge
ones: a fifth of the speed of a large case, by chance. Contenders that allocate find the memory that the C
library kept for them, on huge pages as well.
"""

from __future__ import annotations

import contextlib
import ctypes
import math
import mmap
from pathlib import Path
from typing import Any

import numpy as np

from normkit.bench.operations import Array, Shape

HUGE_PAGE = 2**21
MADV_HUGEPAGE, MADV_COLLAPSE = 14, 25  # of Linux


def empty(shape: Shape, dtype: Any) -> Array:
    """An array in C order, on pages of its own that are there already."""
    size = math.prod(shape) * np.dtype(dtype).itemsize
    pages = mmap.mmap(-1, size + (HUGE_PAGE if size >= HUGE_PAGE else 0) + 1)
    with contextlib.suppress(AttributeError, OSError):  # neither every system nor every kernel has them
        pages.madvise(MADV_HUGEPAGE)
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


def keep_freed_memory() -> bool:
    """Tells glibc to keep freed memory: contenders that allocate their outputs then find warm pages."""
    trim_threshold, mmap_max = -1, -4  # M_TRIM_THRESHOLD, M_MMAP_MAX of malloc.h
    try:
        libc = ctypes.CDLL(None)
        return bool(libc.mallopt(mmap_max, 0)) and bool(libc.mallopt(trim_threshold, 2**31 - 1))
    except (OSError, AttributeError):
        return False


def gather_heap() -> None:
    """Moves what the C library has kept so far to huge pages (Linux 6.1 and later), as the operands are."""
    with contextlib.suppress(OSError, AttributeError, ValueError):
        madvise = ctypes.CDLL(None).madvise
        madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
        for line in Path("/proc/self/maps").read_text().splitlines():
            if line.endswith("[heap]"):
                begin, end = (int(bound, 16) for bound in line.split()[0].split("-"))
                begin, end = -(-begin // HUGE_PAGE) * HUGE_PAGE, end // HUGE_PAGE * HUGE_PAGE
                for advice in (MADV_HUGEPAGE, MADV_COLLAPSE) if end > begin else ():
                    madvise(begin, end - begin, advice)
