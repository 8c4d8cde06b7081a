"""What outlives a call: running statistics, gradients that are added to, sums of larger batches."""

import pickle

import checks
import normkit as nk
import numpy as np
import pytest
from normkit import nn
from reference.families import make
from reference.wide import DTYPES, numpy_dtype, wide

pytestmark = pytest.mark.compares
AXES = (0, 2, 3)


def data(shape, dtype="float32", seed=1, family="normal"):
    return make(family, 1, int(np.prod(shape)), dtype, seed=seed).reshape(shape)


# ---- accumulate ----


def backwards(dtype):
    """Every gradient with parameters: (call, how many)."""
    x, dy = data((4, 6, 5), dtype, 1), data((4, 6, 5), dtype, 2)
    five, six, three, one = (data((n,), dtype, 3 + n) for n in (5, 6, 3, 1))
    return {
        "layer_norm": (lambda **k: nk.layer_norm_backward(dy, x, 5, five, five, **k), 2),
        "rms_norm": (lambda **k: nk.rms_norm_backward(dy, x, 5, five, bias=five, **k), 2),
        "add_layer_norm": (lambda **k: nk.add_layer_norm_backward(dy, dy, x, 5, five, five, **k), 2),
        "add_rms_norm": (lambda **k: nk.add_rms_norm_backward(dy, dy, x, 5, five, bias=five, **k), 2),
        "batch_norm": (lambda **k: nk.batch_norm_backward(dy, x, None, None, six, six, True, **k), 2),
        "instance_norm": (lambda **k: nk.instance_norm_backward(dy, x, None, None, six, six, **k), 2),
        "group_norm": (lambda **k: nk.group_norm_backward(dy, x, 2, six, six, **k), 2),
        "switchable_norm": (lambda **k: nk.switchable_norm_backward(dy, x, three, three, six, six, **k), 4),
        "norm": (lambda **k: nk.norm_backward(dy, x, "b [c] t", six, six, **k), 2),
        "weight_norm": (lambda **k: nk.weight_norm_backward(dy, x, six, 1, **k), 1),
        "dynamic_tanh": (lambda **k: nk.dynamic_tanh_backward(dy, x, one, five, five, **k), 3),
    }


@pytest.mark.report("field trial: accumulate with one of grads_out None")
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", backwards("float32"))
def test_accumulate_where_an_entry_is_none(name, dtype):
    """Where there is nothing to add to, the gradient is what it is without accumulate, to the bit."""
    call, count = backwards(dtype)[name]
    dx, *fresh = call()
    assert len(fresh) == count
    old = [np.full_like(gradient, 3) for gradient in fresh]
    both = call(grads_out=[g.copy() for g in old], accumulate=True)[1:]
    for missing in range(2**count):
        into = [None if missing >> i & 1 else old[i].copy() for i in range(count)]
        results = call(grads_out=into, accumulate=True)
        checks.assert_same_bits(results[0], dx, "dx")
        for i, result in enumerate(results[1:]):
            if into[i] is None:
                checks.assert_same_bits(result, fresh[i], f"entry {i} is None")
            else:
                assert result is into[i]
                checks.assert_same_bits(result, both[i], f"entry {i} is given")
    with pytest.raises(ValueError, match="grads_out is None"):
        call(accumulate=True)


@pytest.mark.report("field trial: accumulate with one of grads_out None")
def test_accumulate_where_an_entry_is_none_in_pytorch():
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    x, w = torch.tensor(data((4, 5))), torch.tensor(data((5,), seed=3))
    for dtype in (torch.float32, torch.bfloat16):
        xs, ws = x.to(dtype), w.to(dtype)
        _, dweight, dbias = nk.layer_norm_backward(xs, xs, 5, ws, ws)
        into = torch.ones(5, dtype=dtype)
        _, none, given = nk.layer_norm_backward(xs, xs, 5, ws, ws, grads_out=(None, into), accumulate=True)
        assert given is into and isinstance(none, torch.Tensor)
        assert torch.equal(none, dweight) and torch.equal(given, (dbias.double() + 1).to(dtype))
        checks.COUNT.values += 10


# ---- running statistics and given ones ----


@pytest.mark.report("field trial: SyncBatchNorm by hand leaves its running statistics behind")
@pytest.mark.parametrize("running_dtype", ("float32", "float64", "float16", "bfloat16"))
@pytest.mark.parametrize("dtype", DTYPES)
def test_running_statistics_follow_the_moments_of_a_whole_batch(dtype, running_dtype):
    """Once for the batch, as one call over all of it would update them: to the same bits on block limits."""
    x = data((12, 3, 16, 16), dtype, family="mean 1e3 std 1")
    before = [(np.abs(data((3,), seed=s)) + 1).astype(numpy_dtype(running_dtype)) for s in (5, 6)]
    whole = [a.copy() for a in before]
    nk.batch_norm(x, *whole, training=True, momentum=0.25)
    parts = [x[:4], x[4:8], x[8:]]
    moments = nk.Moments(AXES)
    for part in parts:
        moments.update(part)
    running = [a.copy() for a in before]
    assert pickle.loads(pickle.dumps(moments)).update_running(*running, momentum=0.25) is None
    for ours, theirs, name in zip(running, whole, ("running_mean", "running_var"), strict=True):
        checks.assert_same_bits(ours, theirs, name)
    if dtype != "float64":  # which carries more of the mean within one call
        saved = {"training": True, "mean": moments.mean, "rstd": moments.rstd()}
        y = [nk.batch_norm(part, None, None, **saved) for part in parts]
        checks.assert_same_bits(np.concatenate(y), nk.batch_norm(x, None, None, training=True), "y")


def test_running_statistics_that_cannot_follow():
    moments, mean = nk.Moments.of(data((4, 3, 5)), (0, 2)), np.zeros(3, np.float32)
    var = np.ones(3, np.float32)
    for error, word, arguments in (
        (ValueError, "running_mean has shape", (mean[:2], var)),
        (ValueError, "running_var has shape", (mean, var[:1])),
        (TypeError, "running_mean", ([0.0] * 3, var)),
        (ValueError, "shares memory", (mean, mean)),
        (ValueError, "elements share memory", (np.lib.stride_tricks.as_strided(mean, (3,), (0,)), var)),
        (TypeError, "momentum", (mean, var, "0.1")),
    ):
        with pytest.raises(error, match=word):
            moments.update_running(*arguments)
    with pytest.raises(ValueError, match="more than one"):
        nk.Moments.of(data((1, 3, 1)), (0, 2)).update_running(mean, var)
    with pytest.raises(ValueError, match="no elements"):
        nk.Moments((0, 2)).update_running(mean, var)
    assert (mean == 0).all() and (var == 1).all()
    moments.update_running(mean, None, 1.0)
    moments.update_running(None, var[::-1], 1)
    checks.assert_same_bits(mean, moments.mean.astype(np.float32), "mean alone")
    checks.assert_same_bits(var[::-1].copy(), moments.var(1).astype(np.float32), "variance alone, reversed")


@pytest.mark.report("field trial: SyncBatchNorm by hand leaves its running statistics behind")
def test_batch_norm_does_not_pretend_to_update_running_statistics():
    x, mean, rstd = data((4, 3, 5)), np.zeros(3), np.ones(3)
    running = np.zeros(3, np.float32), np.ones(3, np.float32)
    with pytest.raises(ValueError, match=r"Moments\.update_running"):
        nk.batch_norm(x, *running, training=True, mean=mean, rstd=rstd)
    assert (running[0] == 0).all() and (running[1] == 1).all()
    for training, arrays in ((True, (None, None)), (False, running), (False, (None, None))):
        y = nk.batch_norm(x, *arrays, training=training, mean=mean, rstd=rstd)
        checks.assert_same_bits(y, x, "given statistics")
    nk.batch_norm_backward(x, x, *running, training=True, mean=mean, rstd=rstd)  # writes none of them


# ---- one value for each channel, of a larger batch ----


@pytest.mark.report("field trial: micro-batches of one value for each channel")
@pytest.mark.parametrize("shape", ((40, 7), (40, 7, 1, 1), (40, 7, 1)))
@pytest.mark.parametrize("dtype", DTYPES)
def test_micro_batches_of_one_value(dtype, shape):
    x, dy, weight = data(shape, dtype), data(shape, dtype, 2), data((7,), dtype, 3)
    axes = (0, *range(2, len(shape)))
    arguments = (None, None, weight, weight, True)
    whole = nk.batch_norm_backward(dy, x, *arguments)[0]
    _, mean, rstd = nk.batch_norm(x, *arguments, return_stats=True)
    saved = {"mean": mean, "rstd": rstd}
    sums = nk.GradSums.of(dy, x, mean, rstd, axes)
    for i in range(0, 40, 13):
        one = slice(i, i + 1)
        checks.assert_same_bits(
            nk.batch_norm_backward(dy[one], x[one], *arguments, **saved, sums=sums)[0], whole[one], "dx"
        )
        with pytest.raises(ValueError, match="one value for each channel"):
            nk.batch_norm_backward(dy[one], x[one], *arguments, **saved)
    with pytest.raises(ValueError, match="one value for each channel"):
        alone = nk.GradSums.of(dy[:1], x[:1], mean, rstd, axes)
        nk.batch_norm_backward(dy[:1], x[:1], *arguments, **saved, sums=alone)


# ---- NaN and infinity, and shares of 0 and 1 ----

# Each way of the schedule: few samples, many, channels side by side, large columns.
RUNNING_SHAPES = ((2, 3, 5), (300, 5, 8), (3, 70, 6), (2, 33, 200, 200))


def forwards(layout, shape):
    logits = np.ones(3, np.float32)
    axis = {"channel_axis": 1}
    x = data(shape)
    if layout == "channels last":
        x, axis = np.ascontiguousarray(np.moveaxis(x, 1, -1)), {"channel_axis": -1}
    return np.moveaxis(x, axis["channel_axis"], 1), {
        "batch_norm": lambda *running, **k: nk.batch_norm(x, *running, training=True, **axis, **k),
        "instance_norm": lambda *running, **k: nk.instance_norm(x, *running, **axis, **k),
        "switchable_norm": lambda *running, **k: nk.switchable_norm(
            x, logits, logits, None, None, *running, **axis, **k
        ),
    }


@pytest.mark.report("field trial: momentum 0 and a batch with NaN")
@pytest.mark.parametrize("layout", ("channels first", "channels last"))
@pytest.mark.parametrize("shape", RUNNING_SHAPES, ids=str)
@pytest.mark.parametrize("name", ("batch_norm", "instance_norm", "switchable_norm"))
def test_momentum_of_0_leaves_alone_and_of_1_replaces(name, shape, layout):
    """0 times NaN is NaN: neither a batch that does not count nor what is replaced may leave one behind."""
    x, calls = forwards(layout, shape)
    channels = shape[1]
    start = data((channels,), seed=5), np.abs(data((channels,), seed=6)) + 1
    replaced = [a.copy() for a in start]
    calls[name](*replaced, momentum=1.0)
    for old in (np.nan, np.inf, -np.inf, -0.0):
        running = [np.full(channels, old, np.float32) for _ in range(2)]
        calls[name](*running, momentum=1.0)
        for ours, wanted in zip(running, replaced, strict=True):
            checks.assert_same_bits(ours, wanted, f"momentum 1 over {old}")
    for bad in (np.nan, np.inf, -np.inf):
        x[0, 0] = bad
        x[-1, -1, ..., -1] = bad
        running = [a.copy() for a in start]
        calls[name](*running, momentum=0.0)
        for ours, wanted in zip(running, start, strict=True):
            checks.assert_same_bits(ours, wanted, f"momentum 0, {bad}")
        calls[name](*running, momentum=0.5)
        assert np.isnan(running[1][[0, -1]]).all() and np.isfinite(running[1][1:-1]).all()


@pytest.mark.report("field trial: momentum 0 and a batch with NaN")
def test_modules_whose_running_statistics_stay():
    x = data((4, 3, 5))
    x[1, 1, 1] = np.nan
    for module in (
        nn.InstanceNorm1d(3, momentum=None, track_running_stats=True),
        nn.InstanceNorm1d(3, momentum=0.0, track_running_stats=True),
        nn.BatchNorm1d(3, momentum=0.0),
        nn.SwitchableNorm(3, momentum=0.0),
    ):
        module(x)
        checks.assert_same_bits(module.running_mean, np.zeros(3, np.float32), repr(module))
        checks.assert_same_bits(module.running_var, np.ones(3, np.float32), repr(module))


@pytest.mark.report("field trial: an empty batch in the average of all batches")
@pytest.mark.parametrize("momentum", (None, 0.1))
def test_an_empty_batch_does_not_count(momentum):
    x, empty = data((4, 3, 5)), np.empty((0, 3, 5), np.float32)
    module, other = nn.BatchNorm1d(3, momentum=momentum), nn.BatchNorm1d(3, momentum=momentum)
    for batch in (empty, x, empty, empty[:, :, :0], 2 * x, empty):
        module(batch)
        module.backward(batch)
    for batch in (x, 2 * x):
        other(batch)
    for name, value in other.state_dict().items():
        assert value.dtype == module.state_dict()[name].dtype
        assert (value == module.state_dict()[name]).all(), name
    assert module.num_batches_tracked == 2
    checks.COUNT.values += 7


@pytest.mark.report("field trial: GradSums after one channel is NaN")
@pytest.mark.parametrize("bad", (np.nan, np.inf))
@pytest.mark.parametrize("dtype", ("float32", "float64"))
def test_nan_stays_in_its_channel_of_merged_sums(dtype, bad):
    x, dy = data((6, 4, 8, 8), dtype), data((6, 4, 8, 8), dtype, 2)
    x[3, 2, 5, 5] = bad
    parts = [slice(0, 2), slice(2, 4), slice(4, 6)]
    moments, updated = nk.Moments(AXES), nk.Moments(AXES)
    for part in parts:
        moments.merge(nk.Moments.of(x[part], AXES))
        updated.update(x[part])
    good = [0, 1, 3]
    for one in (moments, updated):
        assert np.isnan(one.rstd()[2]) and np.isfinite(one.mean[good]).all()
    mean, rstd = moments.mean, moments.rstd()
    merged = nk.GradSums(mean, rstd, AXES)
    for part in parts:
        fresh = nk.GradSums(mean.copy(), rstd.copy(), AXES)
        merged.merge(pickle.loads(pickle.dumps(fresh.update(dy[part], x[part]))))
    checks.assert_within(merged.sum_dy, wide(dy).sum(AXES), 1e-4, "sum_dy")
    assert np.isnan(merged.sum_dy_xhat[2]) and np.isfinite(merged.sum_dy_xhat[good]).all()
    saved = {"training": True, "mean": mean, "rstd": rstd, "sums": merged}
    dx = np.concatenate([nk.batch_norm_backward(dy[p], x[p], None, None, **saved)[0] for p in parts])
    whole = nk.batch_norm_backward(dy, x, None, None, training=True)[0]
    checks.assert_within(dx[:, good], wide(whole[:, good]), 1e-5, "dx of the others")
    other = mean.copy()
    other[2] = 0.0
    for name, statistics in (("mean", (other, rstd)), ("rstd", (mean, other))):
        with pytest.raises(ValueError, match="another mean and rstd"):
            merged.merge(nk.GradSums.of(dy, x, *statistics, AXES))
        assert name


def test_sets_of_no_channels_merge():
    x = np.empty((5, 0), np.float32)
    moments = nk.Moments.of(x, 0).merge(nk.Moments.of(x, 0))
    assert moments.count == 10 and moments.mean.shape == moments.var().shape == (0,)
    sums = nk.GradSums.of(x, x, np.empty(0), np.empty(0), 0)
    assert sums.merge(nk.GradSums.of(x, x, np.empty(0), np.empty(0), 0)).sum_dy.shape == (0,)
    checks.COUNT.values += 4
