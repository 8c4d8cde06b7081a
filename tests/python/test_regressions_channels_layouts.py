"""Bugs of other libraries in batch, instance and group norm and their kin: shapes, strides and layouts.

The table of all bugs stands in test_regressions_channels.py.
"""

import checks
import normkit as nk
import numpy as np
import pytest
from channel_norms import (
    ChannelNorm,
    both_layouts,
    check,
    data,
    every_kind,
    every_name,
    every_name_backward,
    first,
    last,
    operations,
    parameters,
    pytorch,
    results,
    same,
)
from reference.operations import Case, standardize, standardize_backward
from reference.wide import WIDE, wide

pytestmark = pytest.mark.compares


# Shapes


@pytest.mark.parametrize(
    "shape", ((3, 6), (2, 6, 5), (3, 30, 7, 7), (1, 12, 2, 3, 5), (2, 65, 1), (1, 12, 1, 1))
)
def test_llama_cpp_15507_groups_over_the_wrong_axis(shape):
    """llama.cpp#15507: a grouped norm over another axis; mamba#547: group_size ignored in the backward."""
    for groups in (g for g in (1, 2, 3, 5, 6, 12, 13, 30, 65) if shape[1] % g == 0):
        for kind in ("group", "norm"):
            check(ChannelNorm(kind, groups), data(shape, mean=2), where=f"{groups} groups")


def test_llama_cpp_15507_groups_of_distant_channels():
    """Either part of the channel axis can be the one that is normalized, and they differ."""
    x, dy = data((3, 12, 7), mean=2), data((3, 12, 7), seed=1)
    weight, bias = parameters(12)
    for pattern, axes in (("b (g [c]) [s]", (2, 3)), ("b ([g] c) [s]", (1, 3)), ("[b] (g c) [s]", (0, 3))):
        case = Case((3, 4, 3, 7), (), axes, (1, 2))
        arrays = x.reshape(case.shape), dy.reshape(case.shape)
        exact = standardize(arrays[0], case, 1e-5)
        y = nk.norm(x, pattern, weight, bias, g=4)
        checks.assert_affine("norm", y.reshape(case.shape), exact, case, weight, bias, pattern)
        gradients = standardize_backward(arrays[1], arrays[0], case, 1e-5, weight)
        found = nk.norm_backward(dy, x, pattern, weight, bias, g=4)
        for name, actual in zip(("dx", "dweight", "dbias"), found, strict=True):
            wanted, terms = getattr(gradients, name), getattr(gradients, name + "_terms")
            checks.assert_gradient("norm", name, actual.reshape(wanted.shape), wanted, terms, pattern)


@every_kind
def test_llama_cpp_1925_applied_twice(kind):
    """llama.cpp#1925: the norm ran twice, which idempotent data hide; with a weight it shows."""
    x = np.exp(2 * data((3, 4, 5)))
    norm = ChannelNorm(kind, 2)
    weight, bias = parameters(4)
    once = norm.forward(x, weight=weight, bias=bias)
    twice = norm.forward(once, weight=weight, bias=bias)
    assert np.abs(once - twice).max() > 0.1
    case = norm.case(x.shape)
    exact = standardize(x.reshape(case.shape), case, 1e-5)
    checks.assert_affine(norm, once.reshape(case.shape), exact, case, weight, bias, "once")


@both_layouts
@every_kind
def test_onnxruntime_18967_without_weight_or_bias(kind, channel_axis):
    """onnxruntime#18967: a missing bias crashed. Each of the four combinations, gradients None where due."""
    norm = ChannelNorm(kind, 2)
    x = data((3, 4, 5) if channel_axis == 1 else (3, 5, 4))
    dy = data(x.shape, seed=1)
    weight, bias = parameters(4)
    ones, zeros = np.ones_like(weight), np.zeros_like(bias)
    for w in (None, weight):
        for b in (None, bias):
            filled = {"weight": ones if w is None else w, "bias": zeros if b is None else b}
            y = norm.forward(x, channel_axis, weight=w, bias=b)
            checks.assert_same_bits(y + 0.0, norm.forward(x, channel_axis, **filled) + 0.0, "y")
            found = norm.backward(dy, x, channel_axis, weight=w, bias=b)
            expected = norm.backward(dy, x, channel_axis, **filled)
            checks.assert_same_bits(found[0], expected[0], "dx")
            for given, actual, wanted in zip((w, b), found[1:], expected[1:], strict=True):
                assert (actual is None) == (given is None)
                if given is not None:
                    checks.assert_same_bits(actual, wanted, "a parameter's gradient")


@every_name
def test_onnxruntime_26407_negative_axes(name):
    """onnxruntime#26407: axis = -1 was not resolved."""
    shape = (2, 4, 3, 5)
    entry = operations(shape)[name]
    if name in ("normalize", "weight_norm", "z_score", "min_max_scale"):
        function = getattr(nk, name)
        rest = entry[0][1:]
        for axis in range(4) if name != "weight_norm" else (1,):
            found = function(entry[0][0], *rest, axis=axis - 4)
            checks.assert_same_bits(found, function(entry[0][0], *rest, axis=axis), f"axis {axis}")
        return
    if name == "norm":
        pattern = "b [h w] (g [c])"
        x = data((2, 3, 5, 4))
        checks.assert_same_bits(nk.norm(x, "... [h w] (g [c])", g=2), nk.norm(x, pattern, g=2), "...")
        return
    for axis in (1, 2, 3):
        moved = operations(shape)[name][0]
        moved = tuple(np.ascontiguousarray(np.moveaxis(a, 1, axis)) if a.ndim == 4 else a for a in moved)
        function = getattr(
            nk,
            {"batch, given": "batch"}.get(name, name) + ("_norm" if name != "adaptive" else "_instance_norm"),
        )
        if name == "batch":
            moved = (moved[0], None, None, *moved[1:], True)
        elif name == "batch, given":
            moved = (moved[0], *moved[3:], *moved[1:3])
        elif name == "instance":
            moved = (moved[0], None, None, *moved[1:])
        elif name == "group":
            moved = (moved[0], 2, *moved[1:])
        y = function(*moved, channel_axis=axis - 4)
        checks.assert_same_bits(y, function(*moved, channel_axis=axis), f"channel_axis {axis - 4}")


@pytest.mark.parametrize("channel_axis", (1, -1))
@pytest.mark.parametrize("shape", ((0, 4, 3), (2, 4, 0), (2, 0, 3), (0, 0), (0, 4), (1, 0, 10, 2)))
def test_tensorflow_46366_arrays_without_elements(shape, channel_axis):
    """TF#46366: a division by zero for [1, 0, 10]; CVE-2021-29547/29548, TF#58999: empty scales crashed."""
    entries = operations(shape, channel_axis=channel_axis)
    if len(shape) == 2:
        del entries["norm"]  # whose pattern has an axis of space
    for name, entry in entries.items():
        arrays = entry[0]
        with np.errstate(all="ignore"):
            y = entry[1](*arrays)
            assert y.shape == arrays[0].shape and y.dtype == np.float32, name
            if entry[2] and name != "adaptive":
                dx, *gradients = entry[2](arrays[0], *arrays)
                assert dx.shape == arrays[0].shape, name
                assert all((g == 0).all() for g in gradients), name
        checks.COUNT.values += 1
    running = data((shape[1],)), data((shape[1],)) ** 2
    before = checks.digest(*running)
    x = entries["batch"][0][0]
    for module, call in (("batch", nk.batch_norm), ("instance", nk.instance_norm)):
        call(x, *running, **({"training": True} if module == "batch" else {}), channel_axis=channel_axis)
    logits = np.ones(3, np.float32)
    nk.switchable_norm(x, logits, logits, None, None, *running, channel_axis=channel_axis)
    assert checks.digest(*running) == before, "an empty batch changed the running statistics"


@both_layouts
@every_kind
def test_flaggems_5392_and_liger_1375_backward_of_any_rank(kind, channel_axis):
    """FlagGems#5392, Liger#1375: the backward was wrong and read out of bounds beyond rank 3."""
    norm = ChannelNorm(kind, 3)
    x, dy = data((2, 6, 24), mean=1), data((2, 6, 24), seed=1)
    weight, bias = parameters(6)
    arrange, restore = (np.asarray, np.asarray) if channel_axis == 1 else (last, first)
    expected = norm.backward(arrange(dy), arrange(x), channel_axis, weight=weight, bias=bias)
    for space in ((24, 1), (4, 6), (1, 24), (2, 3, 4), (2, 2, 2, 3), (1, 2, 1, 3, 4)):
        xs, dys = (arrange(a.reshape(2, 6, *space)) for a in (x, dy))
        dx, *gradients = norm.backward(dys, xs, channel_axis, weight=weight, bias=bias)
        checks.assert_same_bits(restore(dx).reshape(x.shape), restore(expected[0]), f"{space}: dx")
        same(gradients, expected[1:], f"{space}: gradients")


@every_kind
@pytest.mark.parametrize("n", (1, 2, 3, 7, 31, 33, 49, 63, 65, 127, 129, 1009, 1025))
def test_liger_518_masked_lanes(kind, n):
    """Liger#518, #519: lanes beyond a set's end added the squared mean to its variance."""
    if kind == "instance" and n == 1:
        pytest.skip("InstanceNorm refuses sets of one value")
    x = np.full((2, 3, n), 1000.0, np.float32)
    x[:, :, 0] += 1
    weight, bias = np.ones(3, np.float32), np.zeros(3, np.float32)
    for axis in (1, -1):
        xs = x if axis == 1 else last(x)
        norm = ChannelNorm(kind, 3)
        _, mean, rstd = norm.forward(xs, axis, weight=weight, bias=bias, eps=1e-3, return_stats=True)
        checks.assert_within(mean, np.full(mean.shape, 1000 + 1 / WIDE(n)), 1e-6, f"n {n} mean")
        exact = 1 / np.sqrt(WIDE(n - 1) / WIDE(n) ** 2 + WIDE(1e-3))
        checks.assert_within(rstd, np.full(rstd.shape, exact), 2e-6 * exact, f"n {n} rstd")


@every_kind
def test_vsag_1926_the_tail_of_the_channels(kind):
    """vsag#1926: the vector's tail computed another formula. Equal channels give equal bits everywhere."""
    for channels in (*range(1, 70), 97, 127, 128, 129, 257):
        column = data((2, 1, 5), mean=3)
        x, dy = np.repeat(column, channels, 1), np.repeat(data((2, 1, 5), seed=1), channels, 1)
        weight = np.full(channels, 1.5, np.float32)
        norm = ChannelNorm(kind, channels)
        for axis in (1, -1):
            xs, dys = (x, dy) if axis == 1 else (last(x), last(dy))
            y = norm.forward(xs, axis, weight=weight)
            dx, dweight, _ = norm.backward(dys, xs, axis, weight=weight)
            for result in (np.moveaxis(y, axis, 0), np.moveaxis(dx, axis, 0), dweight):
                one = np.broadcast_to(result[:1], result.shape)
                checks.assert_same_bits(result, one, f"{channels} channels at {axis}")


# Strides and layouts


def spoil(array):
    """The same values as a view whose strides have nothing to do with the shape, amid huge numbers."""
    memory = np.full(tuple(2 * n + 3 for n in array.shape[::-1]), 1e4, array.dtype).T
    view = memory[tuple(slice(2, 2 + 2 * n, 2) for n in array.shape)]
    view[...] = array
    return view


@both_layouts
@every_name
def test_lightllm_1467_and_pytorch_63224_strides(name, channel_axis):
    """LightLLM#1467: a stride forgotten in one pass; pytorch#63224, #62594: BatchNorm of strided arrays."""
    for shape in ((3, 4, 5), (2, 6, 7, 7), (1, 34, 3, 1), (5, 2, 2)):
        entry = operations(shape, channel_axis=channel_axis)[name]
        dy = data(entry[0][0].shape, seed=7)
        expected = results(entry, dy=dy)
        views = {
            "spoilt": spoil,
            "reversed": lambda a: a[(slice(None, None, -1),) * a.ndim].copy()[
                (slice(None, None, -1),) * a.ndim
            ],
            "broadcast": lambda a: np.broadcast_to(a, (2, *a.shape))[1],
        }
        for how, view in views.items():
            found = results(entry, tuple(map(view, entry[0])), view(dy))
            same(found, expected, f"{name} {shape} {how}")


@every_name
def test_pytorch_63224_zero_strides(name):
    """An expanded array: every sample is the same memory."""
    entry = operations((4, 6, 5))[name]
    x = np.broadcast_to(entry[0][0][:1], (4, 6, 5))
    dy = np.broadcast_to(np.float32(0.3), x.shape)
    arrays = (x, *entry[0][1:])
    same(results(entry, arrays, dy), results(entry, (x.copy(), *arrays[1:]), dy.copy()), name)


@every_name
def test_vllm_28103_a_slice_of_the_channels_in_place(name):
    """vllm#28103: a slice of the channels of a larger array, in place; its neighbours stay what they were."""
    whole = data((3, 10, 7), mean=2)
    before = whole.copy()
    entry = operations((3, 6, 7))[name]
    expected = entry[1](whole[:, 2:8].copy(), *entry[0][1:])
    part = whole[:, 2:8]
    y = entry[1](part, *entry[0][1:], out=part)
    checks.assert_same_bits(y, expected, "y")
    checks.assert_same_bits(np.delete(whole, range(2, 8), 1), np.delete(before, range(2, 8), 1), "neighbours")


@every_kind
def test_pytorch_64039_and_107199_dy_of_another_layout(kind):
    """pytorch#64039, #107199: grad_output channels_last and the input not, or the other way round."""
    torch = pytorch()
    norm = ChannelNorm(kind, 13)
    weight, bias = parameters(65)
    w, b = torch.tensor(weight), torch.tensor(bias)
    for shape in ((2, 65, 3, 5), (1, 65, 7, 7), (3, 65, 1, 1) if kind != "instance" else (3, 65, 1, 2)):
        x, dy = torch.tensor(data(shape, mean=4)), torch.tensor(data(shape, seed=1))
        expected = norm.backward(dy, x, weight=w, bias=b)
        y = norm.forward(x, weight=w, bias=b)
        for dy_last in (False, True):
            for x_last in (False, True):
                formats = [torch.channels_last if f else torch.contiguous_format for f in (dy_last, x_last)]
                dys, xs = dy.contiguous(memory_format=formats[0]), x.contiguous(memory_format=formats[1])
                found = norm.backward(dys, xs, weight=w, bias=b)
                out = norm.forward(xs, weight=w, bias=b)
                assert found[0].is_contiguous(memory_format=formats[1])  # x's layout, as y
                assert out.is_contiguous(memory_format=formats[1])
                where = f"{kind} {shape} dy last {dy_last}, x last {x_last}"
                if kind in ("batch", "instance"):
                    same(
                        (out.contiguous(), found[0].contiguous(), *found[1:]),
                        (y, expected[0].contiguous(), *expected[1:]),
                        where,
                    )
                else:  # channels last, groups merge their channels' moments in another order
                    for actual, wanted in zip((out, *found), (y, *expected), strict=True):
                        size = 1e-5 * (1 + wanted.abs().double().numpy())
                        checks.assert_within(actual.numpy(), wide(wanted.numpy()), size, where)


@every_kind
def test_pytorch_115940_strides_of_axes_of_one(kind):
    """pytorch#115940: strides of axes of length 1 mean nothing, and were believed."""
    norm = ChannelNorm(kind, 1)
    for shape in ((2, 6, 1, 1), (1, 6, 3, 1), (3, 1, 4, 5), (2, 1, 1, 3), (1, 1, 2, 2)):
        if kind == "instance" and shape[2:] == (1, 1):
            continue  # it refuses sets of one value
        x, dy = data(shape, mean=1), data(shape, seed=1)
        weight, bias = parameters(shape[1])
        expected = (
            norm.forward(x, weight=weight, bias=bias),
            *norm.backward(dy, x, weight=weight, bias=bias),
        )
        for odd in (1, 7, -12345, 1 << 40):
            views = [
                np.lib.stride_tricks.as_strided(
                    a, shape, [s if n > 1 else odd * 4 for n, s in zip(shape, a.strides, strict=True)]
                )
                for a in (x, dy)
            ]
            found = (
                norm.forward(views[0], weight=weight, bias=bias),
                *norm.backward(views[1], views[0], weight=weight, bias=bias),
            )
            same(found, expected, f"{kind} {shape} stride {odd}")


@pytest.mark.parametrize("kind", ("batch", "instance", "group"))
def test_pytorch_175189_parameter_gradients_channels_last(kind):
    """pytorch#175189: weight.grad of a channels_last BatchNorm was off by 1e7. Against float64 autograd."""
    torch = pytorch()
    f = torch.nn.functional
    for shape in ((4, 65, 7, 7), (2, 3, 11, 5), (1, 1, 7, 1), (2, 6, 1, 3)):
        x, dy = data(shape, mean=100), data(shape, seed=1)
        weight, bias = parameters(shape[1])
        groups = {65: 5, 3: 3, 1: 1, 6: 2}[shape[1]]
        leaves = [torch.tensor(a.astype(np.float64), requires_grad=True) for a in (x, weight, bias)]
        y = {
            "batch": lambda x, w, b: f.batch_norm(x, None, None, w, b, training=True),
            "instance": lambda x, w, b: f.instance_norm(x, weight=w, bias=b),
            "group": lambda x, w, b, g=groups: f.group_norm(x, g, w, b),
        }[kind](*leaves)
        y.backward(torch.tensor(dy.astype(np.float64)))
        norm = ChannelNorm(kind, groups)
        xs, dys = (torch.tensor(a).contiguous(memory_format=torch.channels_last) for a in (x, dy))
        found = norm.backward(dys, xs, weight=torch.tensor(weight), bias=torch.tensor(bias))
        terms = float(np.abs(dy).sum() / shape[1])
        for name, leaf, actual in zip(("dx", "dweight", "dbias"), leaves, found, strict=True):
            exact = leaf.grad.numpy()
            size = 2e-6 * (10 if name == "dx" else 2 + terms)
            checks.assert_within(actual.numpy(), wide(exact), size, f"{kind} {shape} {name}")


@every_name
def test_flashinfer_634_arrays_at_odd_addresses(name):
    """flashinfer#634, flash-attention#289: rows that do not begin at a vector's address."""
    entry = operations((3, 4, 37))[name]
    expected = results(entry)

    def shifted(a, by):
        memory = np.empty(a.size + 16, a.dtype)
        view = memory[by : by + a.size].reshape(a.shape)
        view[...] = a
        return view

    for by in (1, 3, 7):
        dy = shifted(data(entry[0][0].shape, seed=7), by)
        same(results(entry, tuple(shifted(a, by) for a in entry[0]), dy), expected, f"{name} + {by}")


@every_name_backward
def test_vllm_xpu_573_and_llama_cpp_27798_parameters_as_views(name):
    """vllm-xpu-kernels#573: always the first of stacked weights; llama.cpp#27798: a broadcast one overrun."""
    entry = operations((3, 4, 5))[name]
    for axis in (0, -1):
        stacked = [np.stack([np.full_like(a, 9), a, np.full_like(a, -7)], axis) for a in entry[0][1:]]
        views = tuple(np.moveaxis(a, axis, 0)[1] for a in stacked)
        same(results(entry, (entry[0][0], *views)), results(entry), f"{name}, stacked along {axis}")
    if name != "adaptive":
        views = tuple(np.broadcast_to(a[1:2], a.shape) for a in entry[0][1:])
        copies = tuple(a.copy() for a in views)
        x = entry[0][0]
        same(results(entry, (x, *views)), results(entry, (x, *copies)), f"{name}, broadcast")
