"""How array libraries are asked for a CUDA device's current stream and for memory there.

The extension imports this module when it meets the first array on a CUDA device. Results and workspace come
from x's own library: its allocator serves them in the order of its streams, and knows what it has lent.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any, NamedTuple


class Library(NamedTuple):
    """One library; every function gets its module."""

    device: Callable[[Any, int], AbstractContextManager[Any]]  # inside, the device is the current one
    stream: Callable[[Any], int]  # the handle of the current stream there
    keywords: dict[str, Any]  # what ``empty`` needs to allocate there


LIBRARIES = {
    "torch": Library(
        device=lambda torch, device: torch.cuda.device(device),
        stream=lambda torch: torch.cuda.current_stream().cuda_stream,
        keywords={"device": "cuda"},
    ),
    "cupy": Library(
        device=lambda cupy, device: cupy.cuda.Device(device),
        stream=lambda cupy: cupy.cuda.get_current_stream().ptr,
        keywords={},
    ),
}


class Lender:
    """A library's current stream on one device, and its memory there."""

    def __init__(self, module: Any, library: Library, device: int) -> None:
        self._module = module
        self._library = library
        self._device = device

    def stream(self) -> int:
        """The handle of the current stream; 0 is the default one."""
        with self._library.device(self._module, self._device):
            return self._library.stream(self._module)

    def empty(self, shape: tuple[int, ...], dtype: str) -> Any:
        """A new array in C order."""
        with self._library.device(self._module, self._device):
            # CuPy has no name for bfloat16: its dtypes are NumPy's, which ml_dtypes registers by name.
            dtype = getattr(self._module, dtype, dtype)
            return self._module.empty(shape, dtype=dtype, **self._library.keywords)

    def full(self, shape: tuple[int, ...], dtype: str, value: float) -> Any:
        """A new array in C order that holds one value."""
        with self._library.device(self._module, self._device):
            dtype = getattr(self._module, dtype, dtype)
            return self._module.full(shape, value, dtype=dtype, **self._library.keywords)

    def empty_like(self, x: Any) -> Any:
        """A new array of x's shape, dtype and axis order."""
        with self._library.device(self._module, self._device):
            return self._module.empty_like(x)


def lender(x: Any, name: str, device: int) -> Lender | None:
    """Who lends for x, an array of the library ``name`` on ``device``; None: nobody.

    Any other library than those of the table is asked as the array API standard says, which knows no
    streams: its work is ordered with the legacy default stream. JAX's arrays are immutable: what is written
    to their memory is lost on them.
    """
    if name in LIBRARIES:
        return Lender(sys.modules[name], LIBRARIES[name], device)
    if name == "jax" or not hasattr(x, "__array_namespace__"):
        return None
    library = Library(lambda module, device: nullcontext(), lambda module: 1, {"device": x.device})
    return Lender(x.__array_namespace__(), library, device)
