"""One description per operation. Tests, tables and benchmarks loop over OPERATIONS and know nothing else.

To add an operation: describe it here. If it standardizes over a set of axes, `standardize` and
`standardize_backward` are its references already; otherwise write two functions of the same signature.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from .wide import WIDE, centre, sum_wide, wide


@dataclass(frozen=True)
class Case:
    """Where an operation finds its sets in an array of `shape`."""

    shape: tuple
    arguments: tuple  # positional arguments after x
    axes: tuple  # normalized together
    parameter_axes: tuple  # axes of x that weight and bias have
    options: dict = field(default_factory=dict)  # keyword arguments of every call
    set_order: tuple = ()  # x's axes, those that enumerate sets first

    @property
    def parameter_shape(self):
        return tuple(self.shape[i] for i in self.parameter_axes)

    @property
    def statistics_shape(self):
        return tuple(1 if i in self.axes else size for i, size in enumerate(self.shape))

    def spread(self, parameter):
        """A parameter as an array that broadcasts against x."""
        full = tuple(size if i in self.parameter_axes else 1 for i, size in enumerate(self.shape))
        return np.reshape(parameter, full)

    def sum_to_parameter(self, values):
        """The sum over every axis that the parameters lack."""
        others = tuple(i for i in range(len(self.shape)) if i not in self.parameter_axes)
        return sum_wide(values, others).reshape(self.parameter_shape) if others else values

    def from_sets(self, sets):
        """An array of `shape` whose k-th set holds sets[k]."""
        order = self.set_order or tuple(range(len(self.shape)))
        folded = np.reshape(sets, tuple(self.shape[i] for i in order))
        return np.ascontiguousarray(np.transpose(folded, np.argsort(order)))


@dataclass(frozen=True)
class Standard:
    """The exact forward result before weight and bias, in longdouble."""

    xhat: np.ndarray
    mean: np.ndarray
    rstd: np.ndarray

    def affine(self, case, weight=None, bias=None, weight_offset=0.0):
        """(y, product): xhat (weight + offset) + bias, and the product alone."""
        y = self.xhat
        if weight is not None:
            y = y * case.spread(wide(weight) + WIDE(weight_offset))
        product = y
        if bias is not None:
            y = y + case.spread(wide(bias))
        return y, product


@dataclass(frozen=True)
class Gradients:
    """Exact gradients and, for each, the sum of the magnitudes that its computation adds up."""

    dx: np.ndarray
    dweight: np.ndarray
    dbias: np.ndarray
    dx_terms: np.ndarray
    dweight_terms: np.ndarray
    dbias_terms: np.ndarray


def standardize(x, case, eps, centred=True):
    x = wide(x)
    d, mean = (centre(x, case.axes)[:2]) if centred else (x, np.zeros(case.statistics_shape, WIDE))
    n = WIDE(x.size // max(1, int(np.prod(case.statistics_shape))))
    with np.errstate(divide="ignore", invalid="ignore"):
        rstd = 1 / np.sqrt(sum_wide(d * d, case.axes) / n + WIDE(eps))
        return Standard(d * rstd, mean, rstd)


def standardize_backward(dy, x, case, eps, weight=None, weight_offset=0.0, centred=True):
    """Exact gradients; the terms are the magnitudes of everything that is added up, sums inside of sums
    included.

    dx_i = (g_i - sum_j g_j / n - xhat_i sum_j g_j xhat_j / n) rstd, so a = sum g / n counts as sum |g| / n,
    and b likewise: where the g_j cancel, their roundings stay. And xhat is x minus a mean, itself a rounded
    sum: beside |xhat| an eighth of the set's root mean square counts, that is 2 u at 16 u.
    """
    standard = standardize(x, case, eps, centred)
    dy, xhat, rstd = wide(dy), standard.xhat, standard.rstd
    g = dy if weight is None else dy * case.spread(wide(weight) + WIDE(weight_offset))
    n = WIDE(dy.size // standard.rstd.size)

    def mean(values):
        return sum_wide(values, case.axes) / n

    a = mean(g) if centred else np.zeros_like(rstd)
    b = mean(g * xhat)
    xhat_terms = np.abs(xhat)
    if centred:
        xhat_terms = xhat_terms + np.sqrt(mean(xhat * xhat)) / 8
    a_terms = mean(np.abs(g)) if centred else a
    b_terms = mean(np.abs(g) * xhat_terms)
    return Gradients(
        dx=((g - a) - xhat * b) * rstd,
        dweight=case.sum_to_parameter(dy * xhat),
        dbias=case.sum_to_parameter(dy),
        dx_terms=(np.abs(g) + a_terms + xhat_terms * b_terms) * rstd,
        dweight_terms=case.sum_to_parameter(np.abs(dy) * xhat_terms),
        dbias_terms=case.sum_to_parameter(np.abs(dy)),
    )


@dataclass(frozen=True)
class Operation:
    name: str
    statistics: tuple  # what return_stats adds, and what the backward takes
    make_case: Callable  # (sets, n) -> Case
    centred: bool
    torch_name: str
    layouts: dict  # name -> another (sets, n) -> Case
    weight_offset: bool = False
    epsilon: Callable = lambda dtype: 1e-5  # the default eps for an element type

    def forward(self, x, case, **keywords):
        import normkit

        return getattr(normkit, self.name)(x, *case.arguments, **case.options, **keywords)

    def backward(self, dy, x, case, **keywords):
        import normkit

        return getattr(normkit, self.name + "_backward")(dy, x, *case.arguments, **case.options, **keywords)

    def saved(self, x, case, eps):
        """The statistics as the backward's keyword arguments."""
        values = self.forward(x, case, eps=eps, return_stats=True)[1:]
        return dict(zip(self.statistics, values, strict=True))

    def reference(self, x, case, eps):
        return standardize(x, case, eps, self.centred)

    def reference_backward(self, dy, x, case, eps, weight=None, weight_offset=0.0):
        return standardize_backward(dy, x, case, eps, weight, weight_offset, self.centred)

    def torch_forward(self, x, case, weight=None, bias=None, eps=1e-5):
        """PyTorch's own result; without a bias argument there, the bias is added afterwards."""
        import torch

        function = getattr(torch.nn.functional, self.torch_name)
        if self.torch_name == "rms_norm":
            y = function(x, *case.arguments, weight=weight, eps=eps)
            return y if bias is None else y + bias
        return function(x, *case.arguments, weight=weight, bias=bias, eps=eps)

    def __str__(self):
        return self.name


def over_last_axis(sets, n):
    return Case(shape=(sets, n), arguments=((n,),), axes=(1,), parameter_axes=(1,))


def over_last_two_axes(sets, n):
    """n as rows of 3 where that divides it."""
    columns = 3 if n % 3 == 0 else 1
    inner = (n // columns, columns)
    return Case(shape=(sets, *inner), arguments=(inner,), axes=(1, 2), parameter_axes=(1, 2))


def over_channels(sets, n):
    """NCHW, normalized over C; `sets` is N H W."""
    height, width = (2, sets // 4) if sets % 4 == 0 else (1, sets)
    batch = sets // (height * width)
    return Case(
        shape=(batch, n, height, width),
        arguments=((n,),),
        axes=(1,),
        parameter_axes=(1,),
        options={"axis": 1},
        set_order=(0, 2, 3, 1),
    )


def over_outer_axes(sets, n):
    """Axes 0 and 2 together, axis 1 enumerates the sets."""
    columns = 5 if n % 5 == 0 else 1
    return Case(
        shape=(n // columns, sets, columns),
        arguments=((n // columns, columns),),
        axes=(0, 2),
        parameter_axes=(0, 2),
        options={"axis": (0, -1)},
        set_order=(1, 0, 2),
    )


ROW_LAYOUTS = {"last two": over_last_two_axes, "channels": over_channels, "outer": over_outer_axes}

LAYER_NORM = Operation(
    "layer_norm",
    ("mean", "rstd"),
    over_last_axis,
    centred=True,
    torch_name="layer_norm",
    layouts=ROW_LAYOUTS,
)
RMS_NORM = Operation(
    "rms_norm",
    ("rstd",),
    over_last_axis,
    centred=False,
    torch_name="rms_norm",
    layouts=ROW_LAYOUTS,
    weight_offset=True,
    epsilon=lambda dtype: 2.0**-52 if dtype == "float64" else 2.0**-23,
)
OPERATIONS = (LAYER_NORM, RMS_NORM)
