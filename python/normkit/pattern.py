"""The general form of every norm: which axes are normalized together, said in a pattern."""

from __future__ import annotations

import operator
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

import numpy as np

from . import _ext

__all__ = ["norm", "norm_backward"]

_TOKEN = re.compile(r"\s*(?:([A-Za-z_]\w*)|(\.\.\.)|([()\[\]])|(\S))")


@dataclass
class _Part:
    """One named axis of the pattern; several make up an axis of x where they stand in one parenthesis."""

    name: str
    group: int | None  # the pair of brackets that it stands in
    axis: int  # of the pattern


@dataclass(frozen=True)
class _Plan:
    """What the extension takes: parts of x's axes, and how blocks are cut."""

    parts: tuple[tuple[int, int, int, int], ...]  # axis of x, size, normalized, axis of weight or -1
    run_axes: int
    weight_shape: tuple[int, ...]


class _Reader:
    """Reads ``(axis | "[" axis+ "]" | "...")+``; axis: a name or ``"(" (name | "[" name+ "]")+ ")"``."""

    def __init__(self, pattern: str) -> None:
        self.pattern = pattern
        self.tokens = [
            (text, match.start(match.lastindex or 0))
            for match in _TOKEN.finditer(pattern)
            for text in [match[match.lastindex or 0]]
        ]
        self.next = 0
        self.parts: list[_Part] = []
        self.axes = 0
        self.ellipsis: int | None = None  # how many axes come before it
        self.groups = 0
        while self.next < len(self.tokens):
            self.read_axis(self.peek(), None)
        if self.groups == 0:
            raise ValueError(f"pattern {pattern!r} normalizes nothing; it should have axes in [brackets]")

    def error(self, what: str, at: int | None = None) -> ValueError:
        if at is None:
            at = self.tokens[self.next][1] if self.next < len(self.tokens) else len(self.pattern)
        return ValueError(f"{what} in the pattern:\n    {self.pattern}\n    {' ' * at}^")

    def peek(self) -> str:
        return self.tokens[self.next][0] if self.next < len(self.tokens) else ""

    def take(self) -> str:
        token = self.peek()
        self.next += 1
        return token

    def read_axis(self, token: str, group: int | None) -> None:
        if token == "...":
            if group is not None:
                raise self.error("'...' stands for axes that are kept and should be outside of brackets")
            if self.ellipsis is not None:
                raise self.error("a second '...'")
            self.ellipsis = self.axes
            self.take()
        elif token == "[" and group is None:
            self.read_brackets()
        elif token == "(":
            self.read_parenthesis(group)
            self.axes += 1
        else:
            self.read_name(group)
            self.axes += 1

    def read_brackets(self, inside: bool = False) -> None:
        opened = self.tokens[self.next][1]
        self.take()
        group = self.groups
        self.groups += 1
        count = 0
        while self.peek() != "]":
            if not self.peek():
                raise self.error("a bracket that is not closed", opened)
            if inside:
                self.read_name(group)
            else:
                self.read_axis(self.peek(), group)
            count += 1
        if count == 0:
            raise self.error("empty brackets", opened)
        self.take()

    def read_parenthesis(self, group: int | None) -> None:
        opened = self.tokens[self.next][1]
        self.take()
        count = len(self.parts)
        while self.peek() != ")":
            if not self.peek():
                raise self.error("a parenthesis that is not closed", opened)
            if self.peek() == "[" and group is None:
                self.read_brackets(inside=True)
            else:
                self.read_name(group)
        if len(self.parts) == count:
            raise self.error("an empty parenthesis", opened)
        self.take()

    def read_name(self, group: int | None) -> None:
        token = self.peek()
        if not re.fullmatch(r"[A-Za-z_]\w*", token):
            raise self.error(f"{token!r} where the name of an axis should be" if token else "a missing axis")
        if any(part.name == token for part in self.parts):
            raise self.error(f"the axis {token!r} a second time")
        self.parts.append(_Part(token, group, self.axes))
        self.take()


def _affine_names(reader: _Reader, affine: str | None) -> list[str]:
    """The axes that weight and bias have."""
    if affine is None:
        for part in reader.parts:
            if part.name == "c":
                return [other.name for other in reader.parts if other.axis == part.axis]
        return [part.name for part in reader.parts if part.group is not None]
    names = affine.replace("(", " ").replace(")", " ").split()
    known = [part.name for part in reader.parts]
    for name in names:
        if name not in known:
            raise ValueError(f"affine names {name!r}, which is no axis of the pattern {reader.pattern!r}")
    if names != [name for name in known if name in names]:
        raise ValueError(f"affine is {affine!r}; it should name each axis once, in the pattern's order")
    return names


def _sizes(reader: _Reader, shape: tuple[int, ...], sizes: dict[str, int]) -> dict[str, int]:
    """The size of every part, from x's shape and the keywords."""
    found: dict[str, int] = {}
    kept = len(shape) - reader.axes
    for axis in range(reader.axes):
        parts = [part for part in reader.parts if part.axis == axis]
        first = reader.ellipsis is None or axis < reader.ellipsis
        whole = shape[axis if first else axis + kept]
        known = 1
        unknown = [part.name for part in parts if part.name not in sizes]
        for part in parts:
            known *= sizes.get(part.name, 1)
        names = " ".join(part.name for part in parts)
        if len(unknown) > 1:
            raise ValueError(
                f"the sizes of {unknown} are unknown; all but one in the parenthesis ({names}) of "
                f"{reader.pattern!r} should be given by keyword"
            )
        if unknown and known > 0 and whole % known == 0:
            found[unknown[0]] = whole // known
        elif unknown or known != whole:
            raise ValueError(
                f"x has size {whole} on the axis ({names}) of {reader.pattern!r}, which "
                f"{', '.join(f'{p.name}={sizes[p.name]}' for p in parts if p.name in sizes)} does not "
                f"{'divide' if unknown else 'make'}"
            )
        found.update({part.name: sizes[part.name] for part in parts if part.name in sizes})
    return found


@lru_cache(maxsize=256)
def _plan(
    pattern: str, affine: str | None, shape: tuple[int, ...], keywords: tuple[tuple[str, int], ...]
) -> _Plan:
    reader = _Reader(pattern)
    sizes = dict(keywords)
    names = [part.name for part in reader.parts]
    for name, size in sizes.items():
        if name not in names:
            raise TypeError(f"{name}={size} is given, but {name!r} is no axis of the pattern {pattern!r}")
    rank = len(shape)
    if rank < reader.axes or (rank > reader.axes and reader.ellipsis is None):
        raise ValueError(
            f"x has shape {shape}, {rank} axes; the pattern {pattern!r} has "
            f"{reader.axes}{' or more' if reader.ellipsis is not None else ''}"
        )
    found = _sizes(reader, shape, sizes)
    affine_names = _affine_names(reader, affine)
    # Composed axes make one axis of weight.
    weight_axes: list[int] = []
    weight_shape: list[int] = []
    for part in reader.parts:
        if part.name in affine_names:
            if part.axis in weight_axes:
                weight_shape[-1] *= found[part.name]
            else:
                weight_axes.append(part.axis)
                weight_shape.append(found[part.name])
    kept = rank - reader.axes
    parts: list[tuple[int, int, int, int]] = []

    def add_kept() -> None:
        parts.extend((i, shape[i], 0, -1) for i in range(before, before + kept))

    before = reader.axes if reader.ellipsis is None else reader.ellipsis
    placed = False
    for part in reader.parts:
        if part.axis >= before and not placed:
            add_kept()
            placed = True
        axis = part.axis if part.axis < before else part.axis + kept
        weight_axis = weight_axes.index(part.axis) if part.name in affine_names else -1
        parts.append((axis, found[part.name], int(part.group is not None), weight_axis))
    if not placed:
        add_kept()
    # Blocks are cut from runs over the last pair of brackets, as BatchNorm's are from each sample's space.
    last = reader.groups - 1
    run_axes = sum(part.group == last for part in reader.parts)
    return _Plan(tuple(parts), run_axes, tuple(weight_shape))


def _prepare(
    x: Any, pattern: str, affine: str | None, kind: str, sizes: dict[str, int]
) -> tuple[_Plan, bool]:
    if not isinstance(pattern, str):
        raise TypeError(f"pattern is {pattern!r}; it should be a string such as 'b c [h w]'")
    if kind not in ("standard", "rms"):
        raise ValueError(f"kind is {kind!r}; it should be 'standard' or 'rms'")
    shape = tuple(x.shape) if isinstance(x, np.ndarray) else _ext._shape(x)
    if affine is not None and not isinstance(affine, str):
        raise TypeError(f"affine is {affine!r}; it should be a string of names such as 'c'")
    for name, size in sizes.items():
        if isinstance(size, bool) or not hasattr(size, "__index__") or operator.index(size) < 1:
            raise ValueError(f"{name} is {size!r}; it should be a positive integer")
    keywords = tuple((name, operator.index(size)) for name, size in sizes.items())
    return _plan(pattern, affine, shape, keywords), kind == "rms"


def norm(
    x: Any,
    pattern: str,
    weight: Any = None,
    bias: Any = None,
    eps: float = 1e-5,
    *,
    kind: Literal["standard", "rms"] = "standard",
    affine: str | None = None,
    return_stats: bool = False,
    out: Any = None,
    activation: Literal["relu", "silu", "gelu", "gelu_tanh"] | None = None,
    **sizes: int,
) -> Any:
    """Any norm over a set of axes: y = (x - mean) rstd weight + bias, rstd = 1 / sqrt(var + eps).

    The pattern names x's axes; those in brackets are normalized together, one set for each index of the
    others.

    ===================  ===================================
    BatchNorm            ``"[b] c [h w]"``
    LayerNorm            ``"b t [c]"``, ``"... [c]"``
    InstanceNorm         ``"b c [h w]"``
    GroupNorm, g=32      ``"b (g [c]) [h w]"``
    audio, video         ``"b c [t]"``, ``"b c [t h w]"``
    BatchNorm of NHWC    ``"[b] [h w] c"``
    ===================  ===================================

    The result has the bits of the named function. Sets are numbered parameters' axes first, then in the
    pattern's order, and cut into blocks; where weight does not vary within a set, blocks are cut from runs of
    the last pair of brackets, as BatchNorm's are from each sample's space. Where it does, and neighbours in
    memory differ in nothing but their weight (GroupNorm of NHWC), each weight has blocks of its own.

    Parameters
    ----------
    x : array
        As for every function; see :func:`normkit.layer_norm`.
    pattern : str
        Names separated by spaces; ``[a b]`` normalizes over them; ``(a b)`` takes an axis of x apart, with
        all sizes but one given by keyword; ``...`` stands for any number of axes that are kept.
    weight, bias : array, optional
        The shape of the axes that `affine` names, composed ones as one axis.
    eps : float
    kind : "standard" or "rms"
        "rms": y = x rstd weight + bias with rstd = 1 / sqrt(mean(x^2) + eps).
    affine : str, optional
        Names of the axes along which weight and bias vary. By default ``c`` with the axes composed with it
        in one parenthesis; without a ``c`` the axes in brackets.
    return_stats : bool
        Return (y, mean, rstd), or (y, rstd) for "rms": float64, on the axes without brackets.
    out : array, optional
        Where y goes: x's shape and dtype; may be x itself.
    activation : str, optional
        "relu", "silu", "gelu" or "gelu_tanh": as for :func:`normkit.layer_norm`.
    sizes : int
        Sizes of axes by name.

    Raises
    ------
    ValueError
        The pattern is malformed or does not fit x (the message shows where); a shape is wrong.
    TypeError
        As for every function.
    """
    plan, rms = _prepare(x, pattern, affine, kind, sizes)
    return _ext._norm(
        x, plan.parts, plan.run_axes, plan.weight_shape, weight, bias, eps, rms, return_stats, out, activation
    )


def norm_backward(
    dy: Any,
    x: Any,
    pattern: str,
    weight: Any = None,
    bias: Any = None,
    eps: float = 1e-5,
    *,
    kind: Literal["standard", "rms"] = "standard",
    affine: str | None = None,
    mean: Any = None,
    rstd: Any = None,
    dx_out: Any = None,
    grads_out: Sequence[Any] | None = None,
    accumulate: bool = False,
    **sizes: int,
) -> tuple[Any, Any, Any]:
    """Gradients of :func:`norm`: (dx, dweight, dbias), None where the argument was None.

    Arguments as in :func:`norm`, and as in :func:`normkit.layer_norm_backward`.
    """
    plan, rms = _prepare(x, pattern, affine, kind, sizes)
    return _ext._norm_backward(
        dy,
        x,
        plan.parts,
        plan.run_axes,
        plan.weight_shape,
        weight,
        bias,
        eps,
        rms,
        mean,
        rstd,
        dx_out,
        grads_out,
        accumulate,
    )
