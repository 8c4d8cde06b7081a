"""Threads for a while, and what this build of normkit is."""

from __future__ import annotations

import platform
from types import TracebackType
from typing import Any, Literal, overload

import numpy as np

from . import _ext, cuda


class num_threads:
    """Context manager: calls inside use at most ``n`` threads.

    The number is that of the whole process, as with :func:`set_num_threads`; on leaving, the earlier one
    comes back. So two Python threads that are inside at the same time set it for each other, and after both
    have left it is what the last one found on entering. Results never depend on it.

    >>> import normkit as nk
    >>> with nk.num_threads(1):
    ...     nk.get_num_threads()
    1
    """

    def __init__(self, n: int) -> None:
        self._n = n
        self._before: list[int] = []

    def __enter__(self) -> num_threads:
        before = _ext.get_num_threads()
        _ext.set_num_threads(self._n)
        self._before.append(before)
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        _ext.set_num_threads(self._before.pop())


@overload
def show_config(mode: Literal["stdout"] = "stdout") -> None: ...
@overload
def show_config(mode: Literal["dicts"]) -> dict[str, Any]: ...
def show_config(mode: str = "stdout") -> dict[str, Any] | None:
    """Print what this build is and what it runs on, or return it as a dict (``mode="dicts"``)."""
    config = {
        "version": _ext.__version__,
        "isa": _ext.isa(),
        "isa available": _ext._isa_available(),
        "threads": _ext.get_num_threads(),
        "cuda": _cuda(),
        "compiler": _ext._compiler,
        "machine": platform.machine(),
        "python": platform.python_version(),
        "numpy": np.__version__,
    }
    if mode == "dicts":
        return config
    if mode != "stdout":
        raise ValueError(f"mode is {mode!r}; it should be 'stdout' or 'dicts'")
    width = max(map(len, config))
    for key, value in config.items():
        print(f"{key:<{width}}  {value}")
    return None


def _cuda() -> str:
    if not cuda.is_built():
        return "not built"
    devices = [cuda.device_properties(i) for i in range(cuda.device_count())]
    names = [f"{device.name} ({'.'.join(map(str, device.compute_capability))})" for device in devices]
    return f"built for {_ext._cuda_architectures()}; {', '.join(names) or 'no device found'}"
