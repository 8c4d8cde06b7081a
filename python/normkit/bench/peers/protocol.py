"""What every contender offers, and what several share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from normkit.bench.cases import Case
from normkit.bench.operations import Array, Arrays

Call = Callable[[], Any]


class Unavailable(Exception):
    """The contender cannot run this case; the message says why."""


class Peer(Protocol):
    """A contender."""

    name: str
    version: str

    def prepare(self, case: Case, arrays: Arrays) -> Call:
        """A callable that runs the case once; Unavailable if that is impossible."""

    def results(self, value: Any) -> tuple[Array, ...]:
        """What the callable returned, as NumPy arrays, in the order of :func:`operations.expected`."""


def as_tuple(value: Any) -> tuple[Any, ...]:
    """A single result as a tuple of one."""
    return tuple(value) if isinstance(value, (tuple, list)) else (value,)


def entry(table: dict[str, Any], case: Case) -> Any:
    """The table's entry for the case's operation; Unavailable if there is none."""
    if case.operation not in table:
        raise Unavailable(f"has no {case.operation}")
    return table[case.operation]


def plain_only(case: Case) -> None:
    """Unavailable for what only some contenders are asked: modules."""
    if case.call != "function":
        raise Unavailable(f"not called as a {case.call} here")


def standardizations_only(case: Case) -> None:
    """Unavailable for operations that bring a formula of their own."""
    if case.geometry.formula is not None:
        raise Unavailable(f"has no {case.operation} here")


def c_order_only(case: Case) -> None:
    """Unavailable for images in NHWC memory."""
    if case.geometry.rank == 4 and case.layout != "nchw":
        raise Unavailable("takes arrays in C order only")
