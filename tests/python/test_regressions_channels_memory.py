"""Bugs of other libraries in batch, instance and group norm and their kin: sizes, memory, threads, statistics
of several devices, and arguments that do not fit.

The table of all bugs stands in test_regressions_channels.py.
"""

import checks
import normkit as nk
import numpy as np
import pytest
from channel_norms import (
    WITH_BACKWARD,
    ChannelNorm,
    both_layouts,
    check,
    check_running,
    data,
    every_kind,
    every_name,
    every_name_backward,
    last,
    operations,
    parameters,
    pytorch,
    results,
    same,
)
from reference.operations import standardize, standardize_backward
from reference.wide import WIDE, centre, sum_wide, wide

pytestmark = pytest.mark.compares


# Sizes


@every_kind
@pytest.mark.parametrize("samples", (65535, 65537, 140_001))
def test_apex_411_and_cunn_298_large_batches(kind, samples):
    """apex#411, cunn#298: more than 65535 (131070) samples."""
    base = data((1009, 3, 2), mean=2)
    x = np.resize(base, (samples, 3, 2))
    norm = ChannelNorm(kind, 1)
    weight = np.ones(3, np.float32)
    y = norm.forward(x)
    if kind == "batch":
        case = norm.case(x.shape)
        exact = standardize(x.reshape(case.shape), case, 1e-5).xhat
        checks.assert_normalized(norm, y.reshape(case.shape), exact, f"{samples} samples")
    else:
        checks.assert_same_bits(y, np.resize(norm.forward(base), x.shape), "y")
    dbias = norm.backward(np.ones_like(x), x, weight=weight, bias=weight)[2]
    checks.assert_same_bits(dbias, np.full(3, 2 * samples, np.float32), "dbias")


@pytest.mark.parametrize("kind", ("batch", "group"))
def test_apex_1768_65_channels_of_100_by_100(kind):
    """apex#1768: channels_last SyncBatchNorm was wrong for C = 65 at 100 x 100."""
    check(ChannelNorm(kind, 5), data((1, 65, 100, 100), mean=4, std=2))


@pytest.mark.parametrize("number", (0, -1, -(2**63), 2**31, 2**32 + 4, 2**62, 2**63 - 1, 2**63, -(2**64)))
def test_pytorch_189828_a_count_of_int64_min(number):
    """pytorch#189828: a count of INT64_MIN passed a check by overflow and was read out of bounds."""
    x = data((2, 4, 6))
    refused = pytest.raises((ValueError, TypeError, OverflowError))
    for call in (
        lambda: nk.group_norm(x, number),
        lambda: nk.group_norm_backward(x, x, number),
        lambda: nk.norm(x, "b (g [c]) [s]", g=number),
        lambda: nk.norm(x, "b (g [c]) [s]", g=2, c=number),
        lambda: nk.nn.GroupNorm(number, 4)(x),
    ):
        with refused:
            call()
    if number not in (0, -1):
        for call in (
            lambda: nk.batch_norm(x, None, None, training=True, channel_axis=number),
            lambda: nk.instance_norm(x, channel_axis=number),
            lambda: nk.normalize(x, axis=number),
            lambda: nk.z_score(x, (0, number)),
            lambda: nk.weight_norm(x, x[0, :, 0], number),
        ):
            with refused:
                call()
    checks.COUNT.values += 1


# Aliasing, memory, threads


@both_layouts
@every_name_backward
def test_llama_cpp_24305_and_liger_1305_backward_in_place(name, channel_axis):
    """llama.cpp#24305, Liger#1305: dx in dy's (or x's) place spoiled what was read from there afterwards."""
    for shape in ((3, 6, 35), (70, 4, 3), (1, 34, 1100)):
        entry = operations(shape, channel_axis=channel_axis)[name]
        arrays, _, backward = entry
        dy = data(arrays[0].shape, seed=7)
        expected = backward(dy, *arrays)
        work = dy.copy()
        found = backward(work, *arrays, dx_out=work)
        assert np.shares_memory(found[0], work)
        same(found, expected, f"{name} {shape} in dy")
        work = arrays[0].copy()
        same(backward(dy, work, *arrays[1:], dx_out=work), expected, f"{name} {shape} in x")


@every_name
def test_nano_vllm_170_inputs_were_changed(name):
    """nano-vllm#170: converting float32 to float32 handed out the input itself, which was then changed."""
    for dtype in ("float32", "float64", "bfloat16"):
        arrays, forward, backward = operations((3, 4, 35), dtype)[name]
        dy = data(arrays[0].shape, dtype, seed=7)
        before = checks.digest(dy, *arrays)
        found = [forward(*arrays), *(backward(dy, *arrays) if backward else ())]
        assert checks.digest(dy, *arrays) == before
        for result in found:
            assert not any(np.shares_memory(result, a) for a in (dy, *arrays))


@every_name_backward
def test_executorch_17503_memory_that_was_not_zeroed(name):
    """executorch#17503: mean and invstd were taken as zeroed. What outputs held before does not matter."""
    arrays, forward, backward = operations((3, 6, 35))[name]
    dy = data(arrays[0].shape, seed=7)
    expected = forward(*arrays), *backward(dy, *arrays)
    for garbage in (np.nan, 1e38, 0.0):
        outs = [np.full_like(a, garbage) for a in expected]
        y = forward(*arrays, out=outs[0])
        if name == "adaptive":
            found = backward(dy, *arrays, dx_out=outs[1], dstyle_out=outs[2])
        else:
            grads = {"grads_out": tuple(outs[2:])} if len(outs) > 2 else {}
            found = backward(dy, *arrays, dx_out=outs[1], **grads)
        same((y, *found), expected, f"{name} over {garbage}")


@both_layouts
@pytest.mark.parametrize("channels", (3, 65, 1031))
def test_tileops_1727_running_statistics_raced(channels, channel_axis, threads):
    """TileOPs#1727: running statistics were updated twice or by halves, hidden as running_mean began at 0."""
    x = data((4, channels, 33), mean=2)
    xs = x if channel_axis == 1 else last(x)
    before = data((channels,), mean=-5, seed=3), data((channels,), seed=4) ** 2 + 3
    d, hi, lo = centre(wide(x), (0, 2))
    mean, var = (hi + lo).reshape(-1), sum_wide(d * d, (0, 2)).reshape(-1) / (4 * 33 - 1)
    first_result = None
    for count in (1, 2, 5):
        threads(count)
        for _ in range(3):
            running = before[0].copy(), before[1].copy()
            nk.batch_norm(xs, *running, training=True, momentum=0.3, channel_axis=channel_axis)
            check_running(running[0], before[0], mean, 0.3, "running_mean")
            check_running(running[1], before[1], var, 0.3, "running_var")
            first_result = first_result or checks.digest(*running)
            assert checks.digest(*running) == first_result, f"{count} threads"


@both_layouts
@every_name
def test_paddle_56100_and_dlib_3001_races(name, channel_axis, threads):
    """Paddle#56100, #55352: a race from width 2048 on; dlib#3001: a race in the gradients."""
    for shape in ((3, 4, 2600), (2, 2050, 5), (67, 6, 9)):
        entry = operations(shape, channel_axis=channel_axis)[name]
        dy = data(entry[0][0].shape, seed=7)
        threads(1)
        expected = results(entry, dy=dy)
        for count in (2, 3, 7):
            threads(count)
            same(results(entry, dy=dy), expected, f"{name} {shape}, {count} threads")


@both_layouts
@pytest.mark.parametrize("kind", ("instance", "group", "norm"))
def test_fla_1249_overlapping_tiles(kind, channel_axis):
    """fla#1249: tiles of rows overlapped. Each sample of a batch has the bits that it has alone."""
    norm = ChannelNorm(kind, 2)
    for shape in ((37, 6, 5), (9, 34, 3), (3, 4, 1030), (130, 2, 2)):
        x, dy = data(shape, mean=3), data(shape, seed=1)
        xs, dys = (x, dy) if channel_axis == 1 else (last(x), last(dy))
        weight, _ = parameters(shape[1])
        y, (dx, *_) = (
            norm.forward(xs, channel_axis, weight=weight),
            norm.backward(dys, xs, channel_axis, weight=weight),
        )
        alone = [slice(i, i + 1) for i in range(shape[0])]
        ys = [norm.forward(xs[i], channel_axis, weight=weight) for i in alone]
        dxs = [norm.backward(dys[i], xs[i], channel_axis, weight=weight)[0] for i in alone]
        checks.assert_same_bits(y, np.concatenate(ys), f"{kind} {shape} y")
        checks.assert_same_bits(dx, np.concatenate(dxs), f"{kind} {shape} dx")


@every_kind
def test_flaggems_59_many_rows_in_the_backward(kind):
    """FlagGems#59: wrong parameter gradients where a block held several rows. Counts up to 70, and more."""
    for samples in (*range(1, 71), 127, 129, 513):
        x, dy = data((samples, 5, 2), mean=1), data((samples, 5, 2), seed=1)
        norm = ChannelNorm(kind, 5)
        case = norm.case(x.shape)
        weight, bias = parameters(5)
        exact = standardize_backward(dy.reshape(case.shape), x.reshape(case.shape), case, 1e-5, weight)
        for axis in (1, -1):
            xs, dys = (x, dy) if axis == 1 else (last(x), last(dy))
            _, dweight, dbias = norm.backward(dys, xs, axis, weight=weight, bias=bias)
            for name, actual in (("dweight", dweight), ("dbias", dbias)):
                wanted, terms = getattr(exact, name), getattr(exact, name + "_terms")
                checks.assert_gradient(
                    norm, name, actual.reshape(wanted.shape), wanted, terms, f"{samples} samples"
                )


# Statistics of several devices


def moments_of(parts):
    total = nk.Moments((0, 2))
    for part in parts:
        total = total.merge(nk.Moments.of(part, (0, 2)))
    return total


@pytest.mark.parametrize("cuts", ((5,), (1, 2, 9), (0, 3), (4, 4), (1, 1, 1), tuple(range(1, 13))))
def test_pytorch_22192_and_apex_387_unequal_shares(cuts):
    """pytorch#22192, apex#387: shares of different sizes counted alike; pytorch#36530, #74944: empty ones
    failed; apex#262: shares of one sample."""
    x = data((13, 5, 1), mean=np.linspace(-30, 50, 13)[:, None, None])
    shares = np.split(x, cuts)
    assert sum(len(share) for share in shares) == 13
    total = moments_of(shares)
    d, hi, lo = centre(wide(x), (0, 2))
    mean, var = (hi + lo).reshape(-1), sum_wide(d * d, (0, 2)).reshape(-1) / 13
    checks.assert_within(np.asarray(total.mean).reshape(-1), mean, 1e-12 * 50, "mean")
    checks.assert_within(np.asarray(total.var()).reshape(-1), var, 1e-6 * var, "var")
    rstd = 1 / np.sqrt(var + WIDE(1e-5))
    given = {"mean": mean.astype(np.float64), "rstd": rstd.astype(np.float64)}
    for share, exact in zip(shares, np.split(d * rstd[:, None], cuts), strict=True):
        y = nk.batch_norm(share, None, None, **given)
        checks.assert_within(y, exact, 5e-7 * np.abs(exact) + 5e-7, "a share with the statistics of all")


def test_pytorch_36688_the_count_of_the_backward():
    """pytorch#36688: the backward divided by one share's count. With given statistics they are constants."""
    torch = pytorch()
    x, dy = data((6, 5, 3), mean=2), data((6, 5, 3), seed=1)
    weight, bias = parameters(5)
    mean, rstd = data((5,), "float64"), np.abs(data((5,), "float64", seed=3)) + 0.5
    leaves = [torch.tensor(a.astype(np.float64), requires_grad=True) for a in (x, weight, bias)]
    place = (slice(None), None)
    y = (leaves[0] - torch.tensor(mean)[place]) * torch.tensor(rstd)[place] * leaves[1][place] + leaves[2][
        place
    ]
    y.backward(torch.tensor(dy.astype(np.float64)))
    for xs, dys, axis in ((x, dy, 1), (last(x), last(dy), -1)):
        found = nk.batch_norm_backward(
            dys, xs, None, None, weight, bias, mean=mean, rstd=rstd, channel_axis=axis
        )
        found = (np.moveaxis(found[0], axis, 1), *found[1:])
        for leaf, actual in zip(leaves, found, strict=True):
            checks.assert_within(
                actual, wide(leaf.grad.numpy()), 1e-5, f"given statistics, channels at {axis}"
            )


# Sizes that do not fit

WRONG = {
    "too short": lambda p: p[:-1],
    "one": lambda p: p[:1],
    "empty": lambda p: p[:0],
    "too long": lambda p: np.concatenate([p, p[:1]]),
    "a scalar": lambda p: np.array(p[0]),
    "a column": lambda p: p[:, None],
}


@both_layouts
@every_name
@pytest.mark.parametrize("wrong", WRONG)
def test_cve_2021_29583_parameters_of_the_wrong_size(name, wrong, channel_axis):
    """CVE-2021-29583: scale, offset, mean or variance shorter than C were read beyond their end, empty ones
    through a null pointer; onnxruntime#12917: so was a scale of one element."""
    entry = operations((2, 4, 5), channel_axis=channel_axis)[name]
    arrays, forward, backward = entry
    dy = data(arrays[0].shape, seed=7)
    for k, parameter in enumerate(arrays[1:], 1):
        if parameter.ndim > 1:
            continue
        bad = (*arrays[:k], WRONG[wrong](parameter), *arrays[k + 1 :])
        out = np.full_like(arrays[0], 77)
        with pytest.raises(ValueError):
            forward(*bad, out=out)
        with pytest.raises(ValueError):
            backward(dy, *bad, dx_out=out)
        assert (out == 77).all()
    if name == "batch":
        running = data((4,)), data((4,)) ** 2
        for k in (0, 1):
            bad = [running[0].copy(), running[1].copy()]
            bad[k] = WRONG[wrong](bad[k])
            before = checks.digest(*bad)
            for function, keywords in (
                (nk.batch_norm, {"training": True}),
                (nk.batch_norm, {}),
                (nk.instance_norm, {}),
                (nk.instance_norm, {"use_input_stats": False}),
            ):
                with pytest.raises(ValueError, match="running_mean" if k == 0 else "running_var"):
                    function(arrays[0], *bad, channel_axis=channel_axis, **keywords)
            assert checks.digest(*bad) == before
    checks.COUNT.values += 1


@both_layouts
@every_name_backward
def test_cve_2021_41223_gradients_of_the_wrong_size(name, channel_axis):
    """CVE-2021-41223: sizes of dy, x and the saved statistics differed and were believed; TF#58999 alike."""
    arrays, _, backward = operations((2, 4, 5), channel_axis=channel_axis)[name]
    shape = arrays[0].shape
    for wrong in ((2, 4), (2, 5, 5), (1, *shape[1:]), shape[::-1], (*shape, 1), (0, *shape[1:])):
        if wrong == shape:
            continue
        with pytest.raises(ValueError, match=r"\b(dy|dw)\b"):
            backward(np.ones(wrong, np.float32), *arrays)
        with pytest.raises(ValueError, match="dx_out"):
            backward(np.ones(shape, np.float32), *arrays, dx_out=np.ones(wrong, np.float32))
    if name in ("batch", "instance", "group", "norm"):
        good = {"batch": (4,), "instance": (2, 4), "group": (2, 2), "norm": (2, 2)}[name]
        ok = np.ones(good)
        backward(np.ones(shape, np.float32), *arrays, mean=ok, rstd=ok)
        for wrong in ((1,), (3,), (0,), (5, 2), (2, 5), (*good, 1), good[:-1]):
            bad = np.ones(wrong)
            for statistics in ({"mean": bad, "rstd": ok}, {"mean": ok, "rstd": bad}, {"mean": ok}):
                with pytest.raises(ValueError, match=r"\b(mean|rstd)\b"):
                    backward(np.ones(shape, np.float32), *arrays, **statistics)
        for wrong in ((3,), (5,), (0,), (4, 1)):
            bad = np.full(wrong, 77, np.float32)
            with pytest.raises(ValueError, match=r"\b(grads_out|dweight)\b"):
                backward(np.ones(shape, np.float32), *arrays, grads_out=(bad, None))
            assert (bad == 77).all()
    checks.COUNT.values += 1


@pytest.mark.parametrize("name", [name for name in WITH_BACKWARD if name != "normalize"])
def test_pytorch_102922_float64_with_float32_parameters(name):
    """pytorch#102922: the message about float64 x with a float32 weight spoke of BFloat16."""
    arrays, forward, _ = operations((2, 4, 5), "float64")[name]
    for k, array in enumerate(arrays[1:3], 1):
        with pytest.raises(TypeError, match=r"float32.*float64") as caught:
            forward(*arrays[:k], array.astype(np.float32), *arrays[k + 1 :])
        assert "bfloat16" not in str(caught.value).lower()
    checks.COUNT.values += 1
