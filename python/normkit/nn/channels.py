"""Modules over channels: BatchNorm, InstanceNorm, GroupNorm, SwitchableNorm, AdaptiveInstanceNorm."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np

from .. import _ext, functional
from .module import Module


class _RunningNorm(Module):
    """What BatchNorm and InstanceNorm share: parameters per channel, and running statistics."""

    _parameters = ("weight", "bias")
    _buffers = ("running_mean", "running_var", "num_batches_tracked")
    _ranks: ClassVar[tuple[int, ...]] = ()  # of x

    def __init__(
        self,
        num_features: int,
        eps: float,
        momentum: float | None,
        affine: bool,
        track_running_stats: bool,
        bias: bool,
        channel_axis: int,
        dtype: Any,
    ) -> None:
        super().__init__()
        self.num_features = num_features
        self.eps = eps
        self.momentum = momentum
        self.affine = _ext._flag(affine, "affine")
        self.track_running_stats = _ext._flag(track_running_stats, "track_running_stats")
        self.channel_axis = channel_axis
        self.weight: Any = np.ones(num_features, dtype) if affine else None
        self.bias: Any = np.zeros(num_features, dtype) if _ext._flag(bias, "bias") and affine else None
        wide = np.dtype(dtype) if np.dtype(dtype) == np.float64 else np.dtype(np.float32)
        self.running_mean: Any = np.zeros(num_features, wide) if track_running_stats else None
        self.running_var: Any = np.ones(num_features, wide) if track_running_stats else None
        self.num_batches_tracked: Any = np.array(0, np.int64) if track_running_stats else None

    def reset_running_stats(self) -> None:
        """Start the running statistics anew: mean 0, variance 1, no batch seen."""
        if self.track_running_stats:
            self.running_mean[...] = 0
            self.running_var[...] = 1
            self.num_batches_tracked[...] = 0

    def _may_lack(self, name: str, state_dict: Mapping[str, Any]) -> bool:
        """PyTorch's rule: states know the count since version 2, and a mapping without versions is older.

        Frozen BatchNorms (torchvision's, detectron2's) have none either.
        """
        versions: Mapping[str, Any] = getattr(state_dict, "_metadata", None) or {}
        version = versions.get("", {}).get("version")
        return name == "num_batches_tracked" and (version is None or version < 2)

    def _check_rank(self, x: Any) -> None:
        if not hasattr(x, "shape"):
            return  # the function says what x should be
        rank = len(x.shape)
        if rank not in self._ranks:
            raise ValueError(
                f"x has {rank} axes; {type(self).__name__} should get "
                f"{' or '.join(str(rank) for rank in self._ranks)}"
            )

    def extra_repr(self) -> str:
        return (
            f"{self.num_features}, eps={self.eps}, momentum={self.momentum}, affine={self.affine}, "
            f"track_running_stats={self.track_running_stats}"
        )


class _BatchNorm(_RunningNorm):
    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        affine: bool = True,
        track_running_stats: bool = True,
        *,
        bias: bool = True,
        frozen: bool = False,
        channel_axis: int = 1,
        dtype: Any = np.float32,
    ) -> None:
        super().__init__(num_features, eps, momentum, affine, track_running_stats, bias, channel_axis, dtype)
        self.frozen = _ext._flag(frozen, "frozen")
        if self.frozen and not self.track_running_stats:
            raise ValueError("frozen is True; track_running_stats should be True as well")

    def _next_momentum(self) -> float:
        """momentum=None averages all batches: the k-th counts 1 / k."""
        if self.momentum is not None:
            return self.momentum
        if self.num_batches_tracked is None:
            return 0.0
        return 1.0 / (int(self.num_batches_tracked) + 1)

    def _arguments(self) -> tuple[tuple[Any, ...], dict[str, Any], bool]:
        from_x = (self.training and not self.frozen) or self.running_mean is None
        tracked = self.running_mean is not None
        return (
            (self.running_mean, self.running_var, self.weight, self.bias, from_x),
            {"momentum": self._next_momentum(), "eps": self.eps, "channel_axis": self.channel_axis},
            from_x and tracked and self.training,
        )

    def _forward(self, x: Any, out: Any) -> tuple[Any, Any]:
        self._check_rank(x)
        arguments, keywords, updates = self._arguments()
        if not self.training:
            return functional.batch_norm(x, *arguments, **keywords, out=out), None
        y, mean, rstd = functional.batch_norm(x, *arguments, **keywords, return_stats=True, out=out)
        if updates and 0 not in getattr(x, "shape", ()):  # an empty batch has left the statistics alone
            self.num_batches_tracked += 1
        return y, (mean, rstd)

    def _backward(self, dy: Any, x: Any, saved: Any) -> tuple[Any, dict[str, Any]]:
        arguments, keywords, _ = self._arguments()
        mean, rstd = saved
        dx, dweight, dbias = functional.batch_norm_backward(
            dy, x, *arguments, **keywords, mean=mean, rstd=rstd
        )
        return dx, {"weight": dweight, "bias": dbias}


class BatchNorm1d(_BatchNorm):
    """BatchNorm of (N, C) or (N, C, L); see :func:`normkit.functional.batch_norm`.

    Arguments, attributes and state as in ``torch.nn.BatchNorm1d``. ``momentum=None`` averages all batches;
    ``frozen=True`` normalizes with the running statistics in train mode too, and backward takes them for
    constants; ``channel_axis=-1`` for channels-last arrays; ``dtype`` is that of the NumPy parameters.
    """

    _ranks = (2, 3)


class BatchNorm2d(_BatchNorm):
    """BatchNorm of (N, C, H, W); see :class:`BatchNorm1d`."""

    _ranks = (4,)


class BatchNorm3d(_BatchNorm):
    """BatchNorm of (N, C, D, H, W); see :class:`BatchNorm1d`."""

    _ranks = (5,)


class _InstanceNorm(_RunningNorm):
    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        affine: bool = False,
        track_running_stats: bool = False,
        *,
        bias: bool = True,
        channel_axis: int = 1,
        dtype: Any = np.float32,
    ) -> None:
        super().__init__(num_features, eps, momentum, affine, track_running_stats, bias, channel_axis, dtype)

    def _arguments(self) -> tuple[tuple[Any, ...], dict[str, Any]]:
        from_x = self.training or self.running_mean is None
        running = (self.running_mean, self.running_var)
        return (
            (*running, self.weight, self.bias, from_x),
            # As in PyTorch: momentum=None leaves the running statistics alone.
            {"momentum": self.momentum or 0.0, "eps": self.eps, "channel_axis": self.channel_axis},
        )

    def _is_sample(self, x: Any) -> bool:
        """Whether x is one sample, without an axis of samples."""
        return hasattr(x, "shape") and len(x.shape) == min(self._ranks)

    def _forward(self, x: Any, out: Any) -> tuple[Any, Any]:
        self._check_rank(x)
        if self._is_sample(x):
            y, saved = self._forward(x[None], None if out is None else out[None])
            return (y[0] if out is None else out), saved
        arguments, keywords = self._arguments()
        if not self.training:
            return functional.instance_norm(x, *arguments, **keywords, out=out), None
        y, mean, rstd = functional.instance_norm(x, *arguments, **keywords, return_stats=True, out=out)
        return y, (mean, rstd)

    def _backward(self, dy: Any, x: Any, saved: Any) -> tuple[Any, dict[str, Any]]:
        if self._is_sample(x):
            dx, grads = self._backward(dy[None], x[None], saved)
            return dx[0], grads
        arguments, keywords = self._arguments()
        mean, rstd = saved
        dx, dweight, dbias = functional.instance_norm_backward(
            dy, x, *arguments, **keywords, mean=mean, rstd=rstd
        )
        return dx, {"weight": dweight, "bias": dbias}


class InstanceNorm1d(_InstanceNorm):
    """InstanceNorm of (N, C, L), or of one sample (C, L); see :func:`normkit.functional.instance_norm`.

    Arguments, attributes and state as in ``torch.nn.InstanceNorm1d``; ``channel_axis=-1`` for channels-last
    arrays (it counts an axis of samples, also where x has none); ``dtype`` is that of the NumPy parameters.
    """

    _ranks = (2, 3)


class InstanceNorm2d(_InstanceNorm):
    """InstanceNorm of (N, C, H, W) or (C, H, W); see :class:`InstanceNorm1d`."""

    _ranks = (3, 4)


class InstanceNorm3d(_InstanceNorm):
    """InstanceNorm of (N, C, D, H, W) or (C, D, H, W); see :class:`InstanceNorm1d`."""

    _ranks = (4, 5)


class GroupNorm(Module):
    """GroupNorm of (N, C, ...); see :func:`normkit.functional.group_norm`.

    Arguments, attributes and state as in ``torch.nn.GroupNorm``; ``channel_axis=-1`` for channels-last
    arrays; ``dtype`` is that of the NumPy parameters.
    """

    _parameters = ("weight", "bias")

    def __init__(
        self,
        num_groups: int,
        num_channels: int,
        eps: float = 1e-5,
        affine: bool = True,
        *,
        bias: bool = True,
        channel_axis: int = 1,
        dtype: Any = np.float32,
    ) -> None:
        super().__init__()
        if num_groups < 1 or num_channels % num_groups != 0:
            raise ValueError(f"num_groups is {num_groups}; it should divide num_channels, {num_channels}")
        self.num_groups = num_groups
        self.num_channels = num_channels
        self.eps = eps
        self.affine = _ext._flag(affine, "affine")
        self.channel_axis = channel_axis
        self.weight: Any = np.ones(num_channels, dtype) if affine else None
        self.bias: Any = np.zeros(num_channels, dtype) if _ext._flag(bias, "bias") and affine else None

    def _evaluate(self, x: Any, out: Any) -> Any:
        return functional.group_norm(
            x, self.num_groups, self.weight, self.bias, self.eps, channel_axis=self.channel_axis, out=out
        )

    def _forward(self, x: Any, out: Any) -> tuple[Any, Any]:
        arguments = (x, self.num_groups, self.weight, self.bias, self.eps)
        y, mean, rstd = functional.group_norm(
            *arguments, channel_axis=self.channel_axis, return_stats=True, out=out
        )
        return y, (mean, rstd)

    def _backward(self, dy: Any, x: Any, saved: Any) -> tuple[Any, dict[str, Any]]:
        mean, rstd = saved
        arguments = (dy, x, self.num_groups, self.weight, self.bias, self.eps)
        dx, dweight, dbias = functional.group_norm_backward(
            *arguments, channel_axis=self.channel_axis, mean=mean, rstd=rstd
        )
        return dx, {"weight": dweight, "bias": dbias}

    def extra_repr(self) -> str:
        return f"{self.num_groups}, {self.num_channels}, eps={self.eps}, affine={self.affine}"


class SwitchableNorm(Module):
    """SwitchableNorm of (N, C, ...); see :func:`normkit.functional.switchable_norm`.

    Parameters weight, bias (C,) and the logits mean_weight, var_weight (3,) for instance, layer and batch
    norm; buffers running_mean, running_var. ``channel_axis=-1`` for channels-last arrays; ``dtype`` is that
    of the NumPy parameters.
    """

    _parameters = ("weight", "bias", "mean_weight", "var_weight")
    _buffers = ("running_mean", "running_var")

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        momentum: float = 0.1,
        *,
        channel_axis: int = 1,
        dtype: Any = np.float32,
    ) -> None:
        super().__init__()
        self.num_features = num_features
        self.eps = eps
        self.momentum = momentum
        self.channel_axis = channel_axis
        self.weight: Any = np.ones(num_features, dtype)
        self.bias: Any = np.zeros(num_features, dtype)
        self.mean_weight: Any = np.ones(3, dtype)
        self.var_weight: Any = np.ones(3, dtype)
        wide = np.dtype(dtype) if np.dtype(dtype) == np.float64 else np.dtype(np.float32)
        self.running_mean: Any = np.zeros(num_features, wide)
        self.running_var: Any = np.ones(num_features, wide)

    def _forward(self, x: Any, out: Any) -> tuple[Any, Any]:
        y = functional.switchable_norm(
            x,
            self.mean_weight,
            self.var_weight,
            self.weight,
            self.bias,
            self.running_mean,
            self.running_var,
            self.training,
            self.momentum,
            self.eps,
            channel_axis=self.channel_axis,
            out=out,
        )
        return y, None

    def _backward(self, dy: Any, x: Any, saved: Any) -> tuple[Any, dict[str, Any]]:
        dx, dmean_weight, dvar_weight, dweight, dbias = functional.switchable_norm_backward(
            dy,
            x,
            self.mean_weight,
            self.var_weight,
            self.weight,
            self.bias,
            eps=self.eps,
            channel_axis=self.channel_axis,
        )
        return dx, {
            "weight": dweight,
            "bias": dbias,
            "mean_weight": dmean_weight,
            "var_weight": dvar_weight,
        }

    def extra_repr(self) -> str:
        return f"{self.num_features}, eps={self.eps}, momentum={self.momentum}"


class AdaptiveInstanceNorm(Module):
    """AdaptiveInstanceNorm: ``module(content, style)``.

    See :func:`normkit.functional.adaptive_instance_norm`. No parameters. :meth:`backward` returns
    (dcontent, dstyle).
    """

    def __init__(self, eps: float = 1e-5, *, channel_axis: int = 1) -> None:
        super().__init__()
        self.eps = eps
        self.channel_axis = channel_axis

    def __call__(self, content: Any, style: Any, *, out: Any = None) -> Any:  # type: ignore[override]
        if self.training and out is not None and (out is content or _ext._may_share_memory(out, content)):
            raise ValueError(
                "out shares memory with content, which backward will need; in train mode it should be "
                "separate memory (call eval() first to work in place)"
            )
        y = functional.adaptive_instance_norm(
            content, style, self.eps, channel_axis=self.channel_axis, out=out
        )
        if self.training:
            self._saved = (content, style)
        return y

    def _backward(self, dy: Any, x: Any, saved: Any) -> tuple[Any, dict[str, Any]]:
        return functional.adaptive_instance_norm_backward(
            dy, x, saved, self.eps, channel_axis=self.channel_axis
        ), {}

    def extra_repr(self) -> str:
        return f"eps={self.eps}"
