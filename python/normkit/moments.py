"""Statistics and gradient sums that merge: BatchNorm over micro-batches, forward and backward.

>>> import numpy as np
>>> import normkit as nk
>>> rng = np.random.default_rng(0)
>>> parts = [rng.standard_normal((8, 3, 16, 16), dtype=np.float32) for _ in range(4)]
>>> moments = nk.Moments((0, 2, 3))
>>> for part in parts:
...     moments = moments.update(part)
>>> mean, rstd = moments.mean, moments.rstd(1e-5)
>>> y = [nk.batch_norm(part, None, None, mean=mean, rstd=rstd) for part in parts]

Running statistics follow the whole batch, once:

>>> running_mean, running_var = np.zeros(3, np.float32), np.ones(3, np.float32)
>>> moments.update_running(running_mean, running_var, momentum=0.1)

The gradient of a loss over all parts takes the sums first, then dx:

>>> sums = nk.GradSums(mean, rstd, (0, 2, 3))
>>> for part in parts:
...     sums = sums.update(np.ones_like(part), part)
>>> keywords = dict(training=True, mean=mean, rstd=rstd, sums=sums)
>>> dx = [nk.batch_norm_backward(np.ones_like(x), x, None, None, **keywords)[0] for x in parts]
"""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Any, TypeVar

import numpy as np

from . import _ext

__all__ = ["GradSums", "Moments"]

_Axes = int | Sequence[int]
_T = TypeVar("_T", bound="_Tree")


class _Tree:
    """A binary counter of partial results for each set, as the kernels keep it during one call."""

    def __init__(self, axes: _Axes) -> None:
        try:
            self.axes: tuple[int, ...] = (operator.index(axes),)  # type: ignore[arg-type]
        except TypeError:
            self.axes = tuple(operator.index(axis) for axis in axes)  # type: ignore[union-attr]
        if not self.axes:
            raise ValueError("axes is empty; it should name at least one axis")
        self._shape: tuple[int, ...] | None = None  # of the axes that are kept
        self._count = 0
        self._float64 = False
        self._levels: Any = None  # (sets, ranks, doubles)
        self._filled = 0

    @property
    def count(self) -> int:
        """Number of elements in each set."""
        return self._count

    def _accept(self, x: Any) -> tuple[tuple[int, ...], int]:
        """The axes of x without negative numbers and how many make up a run, if x fits what came before."""
        if not hasattr(x, "shape") or not hasattr(x, "dtype"):
            raise TypeError(f"x is {type(x).__name__}; it should be an array")
        rank = len(x.shape)
        axes = tuple(axis + rank if axis < 0 else axis for axis in self.axes)
        for axis in axes:
            if not 0 <= axis < rank:
                raise ValueError(f"axes is {self.axes}, but x has {rank} axes")
        if len(set(axes)) != len(axes):
            raise ValueError(f"axes is {self.axes}; it should name each axis of x once")
        kept = tuple(int(size) for axis, size in enumerate(x.shape) if axis not in axes)
        if self._shape is not None and kept != self._shape:
            raise ValueError(
                f"x has {kept} on the axes that are kept; it should have {self._shape}, as before"
            )
        float64 = "float64" in str(x.dtype)
        if self._filled and float64 != self._float64:
            raise TypeError(
                f"x has dtype {x.dtype}, but {'float64' if self._float64 else 'another dtype'} came before"
            )
        # As BatchNorm does: where samples belong to the sets, blocks are cut from one sample's runs.
        return axes, (len(axes) - 1 if 0 in axes else 0)

    def _keep(self, x: Any, axes: tuple[int, ...], levels: Any, filled: int) -> None:
        self._shape = tuple(int(size) for axis, size in enumerate(x.shape) if axis not in axes)
        self._float64 = "float64" in str(x.dtype)
        self._count += int(np.prod([x.shape[axis] for axis in axes], dtype=np.int64))
        self._levels, self._filled = levels, filled

    def _state(self) -> Any:
        return self._levels if self._filled else None

    def _check_like(self: _T, other: _T) -> None:
        if other.axes != self.axes:
            raise ValueError(f"other has axes {other.axes}; it should have {self.axes}")

    def merge(self: _T, other: _T) -> _T:
        """Add what ``other`` has seen, as if it came after what this one has seen; returns this one."""
        if type(other) is not type(self):
            raise TypeError(f"other is {type(other).__name__}; it should be {type(self).__name__}")
        self._check_like(other)
        if not other._filled:
            return self
        if not self._filled:
            self._levels, self._filled = other._levels, other._filled
            self._shape, self._float64, self._count = other._shape, other._float64, other._count
            return self
        if other._shape != self._shape or other._float64 != self._float64:
            raise ValueError(
                f"other has sets of shape {other._shape} (float64: {other._float64}); "
                f"it should have {self._shape} ({self._float64})"
            )
        self._levels, self._filled = _ext._merge_trees(
            self._levels, self._filled, other._levels, other._filled, self._float64
        )
        self._count += other._count
        return self

    def _total(self) -> Any:
        """(sets..., doubles): everything merged."""
        if not self._filled:
            raise ValueError(f"{type(self).__name__} has seen no elements yet")
        total = _ext._finish_trees(self._levels, self._filled, self._float64)
        return total.reshape(*(self._shape or ()), total.shape[-1])


class Moments(_Tree):
    """Count, mean and variance of each set, in float64, mergeable and picklable.

    Parameters
    ----------
    axes : int or tuple of ints
        The axes of each array that are normalized together: (0, 2, 3) for BatchNorm of NCHW.

    Notes
    -----
    Each set keeps a binary counter of the partial results of blocks of at most 1024 elements, merged by the
    formula of Chan, Golub and LeVeque. ``update`` goes on counting, so several arrays give the bits of one
    large array where every array but the last ends on a block's limit. BatchNorm's blocks are cut from one
    sample's space, smaller ones packed whole: that is after every sample whose space is a multiple of 1024 or
    larger than it, else after every ``1024 // space`` samples. Otherwise the bits depend on how the data were
    cut into arrays; the values do not, to a rounding or two of float64. float64 arrays carry the mean as an
    unevaluated pair inside, of which :attr:`mean` is the upper half: what is normalized with it differs from
    the large array's result by that rounding of the mean.
    """

    @classmethod
    def of(cls, x: Any, axes: _Axes) -> Moments:
        """The moments of one array."""
        return cls(axes).update(x)

    def update(self, x: Any) -> Moments:
        """Add an array (any kind and dtype, as for every function); returns this object."""
        axes, run_axes = self._accept(x)
        self._keep(x, axes, *_ext._moments_update(x, axes, run_axes, self._state(), self._filled))
        return self

    @property
    def mean(self) -> Any:
        """The mean of each set: float64, on the axes that are kept. ValueError before the first element."""
        total = self._total()
        return np.asarray(total[..., 1] / total[..., 4] if self._float64 else total[..., 1].copy())

    def _scaled_var(self, ddof: int) -> tuple[Any, Any]:
        """The variance of x times a power of two, and that (1 but near the ends of float64's range)."""
        total = self._total()
        if self.count <= ddof:
            raise ValueError(f"ddof is {ddof}; it should be less than the number of elements, {self.count}")
        var = np.maximum(total[..., 3], 0.0) / (self.count - ddof)
        return var, total[..., 4] if self._float64 else np.ones_like(var)

    def var(self, ddof: int = 0) -> Any:
        """The variance of each set, divided by count - ddof: float64, on the axes that are kept.

        inf where it exceeds float64's range, as that of numbers around 1e200 does; :meth:`rstd` holds there.
        """
        var, scale = self._scaled_var(ddof)
        with np.errstate(over="ignore", under="ignore"):
            return np.asarray(var / scale / scale)

    def rstd(self, eps: float = 1e-5) -> Any:
        """1 / sqrt(var + eps), as the kernels compute it."""
        if not eps >= 0:
            raise ValueError(f"eps is {eps}; it should be at least 0")
        var, scale = self._scaled_var(0)
        scale = np.where(var == 0, 1.0, scale)
        with np.errstate(divide="ignore", over="ignore", under="ignore"):
            scaled = eps * scale * scale
            # An eps that is infinite in that scale is all there is.
            alone = np.isinf(scaled) & np.isfinite(eps)
            rstd = 1.0 / np.sqrt(var + scaled) * scale
            return np.asarray(np.where(alone & np.isfinite(var), 1.0 / np.sqrt(np.float64(eps)), rstd))

    def update_running(self, running_mean: Any, running_var: Any, momentum: float = 0.1) -> None:
        """Let running statistics follow these moments, in place, as one training step of BatchNorm does.

        running = (1 - momentum) running + momentum new, the variance unbiased; a momentum of 0 leaves them
        alone, one of 1 replaces them. The arrays have the shape of the axes that are kept, any dtype; either
        may be None. To be called once for the whole batch (of all micro-batches, of all processes), whose
        statistics :func:`normkit.batch_norm` then takes as ``mean`` and ``rstd``. ValueError where a set has
        fewer than two elements, as its variance has no unbiased estimate.
        """
        total = self._total()
        if self.count < 2:
            raise ValueError(
                "there is one value for each set; there should be more than one: its variance is 0"
            )
        _ext._update_running(total, running_mean, running_var, momentum)

    def __repr__(self) -> str:
        return f"Moments(axes={self.axes}, count={self.count}, sets={self._shape})"


class GradSums(_Tree):
    """sum dy and sum dy xhat of each set, xhat = (x - mean) rstd, in float64, mergeable and picklable.

    These are the gradients of bias and weight, and what dx of a whole batch needs: pass the object as
    ``sums`` to :func:`normkit.batch_norm_backward`.

    Parameters
    ----------
    mean, rstd : array
        The statistics of the whole batch, float64 on the axes that are kept (:attr:`Moments.mean`,
        :meth:`Moments.rstd`).
    axes : int or tuple of ints
        As for :class:`Moments`, whose notes on bits hold here too.
    """

    def __init__(self, mean: Any, rstd: Any, axes: _Axes) -> None:
        super().__init__(axes)
        self.mean = mean
        self.rstd = rstd

    def _check_like(self, other: GradSums) -> None:
        super()._check_like(other)
        # A channel whose statistics are NaN has NaN sums; the others are as good as ever.
        same = (
            np.array_equal(a, b, equal_nan=True)
            for a, b in ((self.mean, other.mean), (self.rstd, other.rstd))
        )
        if not all(same):
            raise ValueError("other has sums about another mean and rstd; they should be the same")

    @classmethod
    def of(cls, dy: Any, x: Any, mean: Any, rstd: Any, axes: _Axes) -> GradSums:
        """The sums of one pair of arrays."""
        return cls(mean, rstd, axes).update(dy, x)

    def update(self, dy: Any, x: Any) -> GradSums:
        """Add a pair of arrays of the same shape and dtype; returns this object."""
        axes, run_axes = self._accept(x)
        levels, filled = _ext._grad_sums_update(
            dy, x, self.mean, self.rstd, axes, run_axes, self._state(), self._filled
        )
        self._keep(x, axes, levels, filled)
        return self

    @property
    def sum_dy(self) -> Any:
        """sum of dy: the gradient of bias. float64, on the axes that are kept."""
        return self._total()[..., 0].copy()

    @property
    def sum_dy_xhat(self) -> Any:
        """sum of dy xhat: the gradient of weight. float64, on the axes that are kept."""
        return self._total()[..., 1].copy()

    def __repr__(self) -> str:
        return f"GradSums(axes={self.axes}, count={self.count}, sets={self._shape})"
