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
    axes: tuple  # of `sizes`, normalized together
    parameter_axes: tuple  # axes of x that weight and bias have
    options: dict = field(default_factory=dict)  # keyword arguments of every call
    set_order: tuple = ()  # axes of `sizes`: those that enumerate sets, then a set's own in its numbering
    folded: tuple = ()  # the shape with axes taken apart (GroupNorm's channels)
    keeps_axes: bool = True  # statistics have x's rank with ones; else only the axes that enumerate sets

    @property
    def sizes(self):
        return self.folded or self.shape

    @property
    def parameter_shape(self):
        return tuple(self.shape[i] for i in self.parameter_axes)

    @property
    def broadcast_shape(self):
        """Of the statistics as they broadcast against an array of `sizes`."""
        return tuple(1 if i in self.axes else size for i, size in enumerate(self.sizes))

    @property
    def statistics_shape(self):
        if self.keeps_axes:
            return self.broadcast_shape
        return tuple(size for i, size in enumerate(self.sizes) if i not in self.axes)

    @property
    def order(self):
        return self.set_order or tuple(range(len(self.sizes)))

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
        folded = np.reshape(sets, tuple(self.sizes[i] for i in self.order))
        return np.ascontiguousarray(np.transpose(folded, np.argsort(self.order))).reshape(self.shape)

    def to_sets(self, array):
        """The inverse: [sets, n]."""
        sets = int(np.prod(self.broadcast_shape))
        return np.transpose(np.reshape(array, self.sizes), self.order).reshape(sets, -1)

    def statistics_of_sets(self, statistics):
        """One number for each set, in the order of from_sets."""
        return np.transpose(np.reshape(statistics, self.broadcast_shape), self.order).reshape(-1)


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
    x = wide(x).reshape(case.sizes)
    d, mean = (centre(x, case.axes)[:2]) if centred else (x, np.zeros(case.broadcast_shape, WIDE))
    n = WIDE(x.size // max(1, int(np.prod(case.broadcast_shape))))
    with np.errstate(divide="ignore", invalid="ignore"):
        rstd = 1 / np.sqrt(sum_wide(d * d, case.axes) / n + WIDE(eps))
        shape = case.statistics_shape
        return Standard((d * rstd).reshape(case.shape), mean.reshape(shape), rstd.reshape(shape))


def standardize_backward(dy, x, case, eps, weight=None, weight_offset=0.0, centred=True):
    """Exact gradients; the terms are the magnitudes of everything that is added up, sums inside of sums
    included.

    dx_i = (g_i - sum_j g_j / n - xhat_i sum_j g_j xhat_j / n) rstd, so a = sum g / n counts as sum |g| / n,
    and b likewise: where the g_j cancel, their roundings stay. And xhat is x minus a mean, itself a rounded
    sum: beside |xhat| an eighth of the set's root mean square counts, that is 2 u at 16 u.
    """
    standard = standardize(x, case, eps, centred)
    dy, rstd = wide(dy), standard.rstd.reshape(case.broadcast_shape)
    g = dy if weight is None else dy * case.spread(wide(weight) + WIDE(weight_offset))
    g, xhat = g.reshape(case.sizes), standard.xhat.reshape(case.sizes)
    n = WIDE(dy.size // rstd.size)

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
        dx=(((g - a) - xhat * b) * rstd).reshape(case.shape),
        dweight=case.sum_to_parameter(dy * standard.xhat),
        dbias=case.sum_to_parameter(dy),
        dx_terms=((np.abs(g) + a_terms + xhat_terms * b_terms) * rstd).reshape(case.shape),
        dweight_terms=case.sum_to_parameter(np.abs(dy) * xhat_terms.reshape(case.shape)),
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
    smallest: int = 1  # elements of a set
    per_set: bool = False  # weight and bias depend on the set, not on the place within it
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

    def numbering(self, x, case):
        """Arrays of one numbering have the same bits. Only groups have two: channels-last they are merged
        channel by channel.
        """
        if self.torch_name != "group_norm":
            return "logical"
        channel = case.parameter_axes[0]
        groups = case.options.get("g", case.arguments[0])
        within = case.shape[channel] // groups
        space = int(np.prod([case.sizes[i] for i in case.axes])) // within
        strided = x.strides[channel] == x.itemsize and within > 1 and space > 1
        return "channels last" if strided else "logical"

    def torch_forward(self, x, case, weight=None, bias=None, eps=1e-5):
        """PyTorch's own result; without a bias argument there, the bias is added afterwards."""
        import torch

        function = getattr(torch.nn.functional, self.torch_name)
        if self.torch_name == "rms_norm":
            y = function(x, *case.arguments, weight=weight, eps=eps)
            return y if bias is None else y + bias
        if self.torch_name == "batch_norm":
            return function(x, None, None, weight, bias, training=True, eps=eps)
        if self.torch_name == "instance_norm":
            return function(x, weight=weight, bias=bias, eps=eps)
        if self.torch_name == "group_norm":
            return function(x, case.options.get("g", case.arguments[0]), weight, bias, eps)
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


def _split(n):
    """n as samples times space, both more than 1 where that goes."""
    samples = next((d for d in (5, 3, 2, 17) if n % d == 0), 1)
    return samples, n // samples


def _channel_case(shape, axes, order, folded=(), channel=1, **others):
    options = {} if channel == 1 else {"channel_axis": -1}
    parameter_axis = channel % len(shape)
    return Case(
        shape=shape,
        axes=axes,
        parameter_axes=(parameter_axis,),
        set_order=order,
        folded=folded,
        keeps_axes=False,
        options=options | others.pop("options", {}),
        **others,
    )


def over_batch(sets, n):
    """BatchNorm: `sets` channels; n is samples times space."""
    samples, space = _split(n)
    training = {"training": True}
    return _channel_case((samples, sets, space), (0, 2), (1, 0, 2), arguments=(None, None), options=training)


def over_batch_last(sets, n):
    samples, space = _split(n)
    training = {"training": True}
    return _channel_case(
        (samples, space, sets), (0, 1), (2, 0, 1), channel=-1, arguments=(None, None), options=training
    )


def over_instances(sets, n):
    """InstanceNorm: `sets` is samples times channels."""
    channels = 3 if sets % 3 == 0 else sets
    return _channel_case((sets // channels, channels, n), (2,), (0, 1, 2), arguments=())


def over_instances_2d(sets, n):
    channels, columns = 3 if sets % 3 == 0 else sets, 7 if n % 7 == 0 else 1
    shape = (sets // channels, channels, n // columns, columns)
    return _channel_case(shape, (2, 3), (0, 1, 2, 3), arguments=())


def over_instances_last(sets, n):
    channels = 3 if sets % 3 == 0 else sets
    return _channel_case((sets // channels, n, channels), (1,), (0, 2, 1), channel=-1, arguments=())


def _groups(sets, n):
    """(samples, groups, channels of a group, space)."""
    groups = 2 if sets % 2 == 0 else sets
    within = 3 if n % 3 == 0 else 5 if n % 5 == 0 else 1
    return sets // groups, groups, within, n // within


def over_groups(sets, n):
    """GroupNorm: `sets` is samples times groups, n channels of a group times space."""
    samples, groups, within, space = _groups(sets, n)
    folded = (samples, groups, within, space)
    shape = (samples, groups * within, space)
    return _channel_case(shape, (2, 3), (0, 1, 2, 3), folded, arguments=(groups,))


def over_groups_last(sets, n):
    samples, groups, within, space = _groups(sets, n)
    folded = (samples, space, groups, within)
    shape = (samples, space, groups * within)
    return _channel_case(shape, (1, 3), (0, 2, 3, 1), folded, channel=-1, arguments=(groups,))


def by_pattern(sets, n):
    """norm: GroupNorm's geometry in its own words."""
    samples, groups, within, space = _groups(sets, n)
    return Case(
        shape=(samples, groups * within, space),
        arguments=("b (g [c]) [s]",),
        axes=(2, 3),
        parameter_axes=(1,),
        folded=(samples, groups, within, space),
        keeps_axes=False,
        options={"g": groups},
    )


def by_pattern_moved(sets, n):
    """The batch last and the group's channels behind the space."""
    samples, groups, within, space = _groups(sets, n)
    return Case(
        shape=(space, groups * within, samples),
        arguments=("[s] (g [c]) b",),
        axes=(0, 2),
        parameter_axes=(1,),
        set_order=(3, 1, 2, 0),
        folded=(space, groups, within, samples),
        keeps_axes=False,
        options={"g": groups},
    )


def _channels(name, make_case, layouts, **others):
    return Operation(
        name,
        ("mean", "rstd"),
        make_case,
        centred=True,
        torch_name=others.pop("torch_name", name),
        layouts=layouts,
        per_set=True,
        **others,
    )


BATCH_NORM = _channels("batch_norm", over_batch, {"channels": over_batch_last}, smallest=2)
INSTANCE_NORM = _channels(
    "instance_norm", over_instances, {"2d": over_instances_2d, "channels": over_instances_last}, smallest=2
)
GROUP_NORM = _channels("group_norm", over_groups, {"channels": over_groups_last})
NORM = _channels("norm", by_pattern, {"moved": by_pattern_moved}, torch_name="group_norm")
ROW_OPERATIONS = (LAYER_NORM, RMS_NORM)
OPERATIONS = (*ROW_OPERATIONS, BATCH_NORM, INSTANCE_NORM, GROUP_NORM, NORM)
