"""Moments and GradSums: BatchNorm over micro-batches equals the whole batch."""

import itertools
import pickle

import checks
import normkit as nk
import numpy as np
import pytest
from reference.families import make, parameters
from reference.wide import DTYPES, centre, sum_wide, wide

pytestmark = pytest.mark.compares
AXES = (0, 2, 3)
# Space and cuts of the batch that end on block limits.
ON_LIMITS = (
    ((32, 32), (0, 1, 3, 7, 12, 13)),
    ((40, 30), (0, 2, 5, 6)),
    ((7, 7), (0, 20, 40, 60, 65)),
    ((16, 16), (0, 4, 12, 24, 26)),
    ((1, 1), (0, 1024, 3072, 3100)),
)


def batch(space, samples, dtype, channels=5):
    shape = (samples, channels, *space)
    size = int(np.prod(shape))
    x, dy = (
        make(f, 1, size, dtype, seed=s).reshape(shape) for f, s in (("mean 1e3 std 1", 1), ("normal", 2))
    )
    return x, dy, *parameters((channels,), dtype)


def parts_of(cuts):
    return [slice(a, b) for a, b in itertools.pairwise(cuts)]


@pytest.mark.parametrize("channel_axis", (1, -1))
@pytest.mark.parametrize("dtype", DTYPES)
def test_micro_batches_equal_the_batch(dtype, channel_axis):
    """float64 rounds the mean once more, so there the values agree to that."""
    for space, cuts in ON_LIMITS:
        x, dy, weight, bias = batch(space, cuts[-1], dtype)
        axes = AXES
        if channel_axis == -1:
            x, dy = (np.ascontiguousarray(np.moveaxis(a, 1, -1)) for a in (x, dy))
            axes = (0, 1, 2)
        keywords = {"training": True, "channel_axis": channel_axis}
        y, mean, rstd = nk.batch_norm(x, None, None, weight, bias, **keywords, return_stats=True)
        gradients = nk.batch_norm_backward(dy, x, None, None, weight, bias, **keywords)
        parts = parts_of(cuts)

        moments = nk.Moments(axes)
        for part in parts:
            assert moments.update(x[part]) is moments
        moments = pickle.loads(pickle.dumps(moments))
        assert moments.count == x.size // 5
        checks.assert_same_bits(moments.mean, mean, f"mean {space}")
        checks.assert_same_bits(moments.rstd(1e-5), rstd, f"rstd {space}")

        saved = {"mean": moments.mean, "rstd": moments.rstd(1e-5)}
        sums = nk.GradSums(moments.mean, moments.rstd(1e-5), axes)
        for part in parts:
            sums.update(dy[part], x[part])
        sums = pickle.loads(pickle.dumps(sums))
        ys = [nk.batch_norm(x[p], None, None, weight, bias, **keywords, **saved) for p in parts]
        dxs = [
            nk.batch_norm_backward(dy[p], x[p], None, None, weight, bias, **keywords, **saved, sums=sums)
            for p in parts
        ]
        assert all(dx[1] is None and dx[2] is None for dx in dxs)
        results = (
            np.concatenate(ys),
            np.concatenate([dx[0] for dx in dxs]),
            sums.sum_dy_xhat.astype(dtype if dtype != "bfloat16" else weight.dtype),
            sums.sum_dy.astype(dtype if dtype != "bfloat16" else weight.dtype),
        )
        for actual, wanted in zip(results, (y, *gradients), strict=True):
            if dtype == "float64":
                scale = np.abs(wide(wanted)).max()
                checks.assert_within(actual, wide(wanted), 1e-12 * scale, f"{space}")
            else:
                checks.assert_same_bits(actual, wanted, f"{space}")


@pytest.mark.parametrize("dtype", ("float32", "float64", "bfloat16"))
def test_any_chunks_are_right(dtype):
    """Off the block limits bits may differ, values do not; merge adds what another object has seen."""
    x, dy, *_ = batch((9, 5), 23, dtype)
    d, mean, _ = centre(wide(x), AXES)
    n = x.size // 5
    exact_mean, exact_var = mean.reshape(-1), (sum_wide(d * d, AXES) / n).reshape(-1)
    for cuts in ((0, 23), (0, 1, 2, 23), tuple(range(24)), (0, 22, 23)):
        updated = nk.Moments(AXES)
        merged = nk.Moments(AXES)
        sums = nk.GradSums(exact_mean.astype(float), 1 / np.sqrt(exact_var.astype(float)), AXES)
        for part in parts_of(cuts):
            updated.update(x[part])
            merged.merge(nk.Moments.of(x[part], AXES))
            sums.merge(nk.GradSums.of(dy[part], x[part], sums.mean, sums.rstd, AXES))
        for moments in (updated, merged):
            assert moments.count == n
            unit = 2.0**-48 if dtype == "float64" else 2.0**-22
            checks.assert_within(moments.mean, exact_mean, 2.0**-50 * np.abs(exact_mean), f"mean {cuts}")
            checks.assert_within(moments.var(), exact_var, unit * exact_var, f"var {cuts}")
            unbiased = exact_var * n / (n - 1)
            checks.assert_within(moments.var(ddof=1), unbiased, unit * exact_var, f"var {cuts}")
        exact = sum_wide(wide(dy), AXES).reshape(-1)
        terms = sum_wide(np.abs(wide(dy)), AXES).reshape(-1)
        checks.assert_gradient("GradSums", "sum_dy", sums.sum_dy, exact, terms, f"{cuts}", dtype)


@pytest.mark.parametrize("read", [lambda m: m.mean, lambda m: m.merge(m)])
def test_trees_of_another_layout_are_refused(read):
    """As pickles from before float64's moments had a scale."""
    moments = nk.Moments.of(np.ones((40, 3000)), 0)
    moments._levels = np.ascontiguousarray(moments._levels[..., :4])
    with pytest.raises(ValueError, match="levels has 4 numbers for each partial result; it should have 5"):
        read(moments)
    checks.COUNT.values += 1


def test_merge_in_order_equals_update_for_equal_powers_of_two():
    """Trees of 2^k blocks are whole subtrees: merging them gives the bits of going on."""
    x, *_ = batch((32, 32), 16, "float32")
    whole = nk.Moments.of(x, AXES)
    merged = nk.Moments(AXES)
    for k in range(0, 16, 4):
        merged.merge(nk.Moments.of(x[k : k + 4], AXES))
    checks.assert_same_bits(merged.mean, whole.mean, "mean")
    checks.assert_same_bits(merged.var(), whole.var(), "var")


def test_layer_and_instance_axes():
    """Any axes, not only BatchNorm's."""
    x = make("mean 1e3 std 1", 6, 3000, "float32").reshape(2, 3, 3000)
    _, mean, rstd = nk.layer_norm(x, (3000,), return_stats=True)
    checks.assert_same_bits(nk.Moments.of(x, -1).mean, mean[..., 0], "mean")
    checks.assert_same_bits(nk.Moments.of(x, (2,)).rstd(1e-5), rstd[..., 0], "rstd")


def test_threads_and_strides(threads):
    x, dy, *_ = batch((33, 40), 9, "float32", channels=7)
    strided = np.ascontiguousarray(np.moveaxis(x, 1, -1))
    results = []
    for count, array in ((1, x), (2, x), (3, x), (2, np.moveaxis(strided, -1, 1))):
        threads(count)
        moments = nk.Moments.of(array, AXES)
        sums = nk.GradSums.of(dy, array, moments.mean, moments.rstd(), AXES)
        results.append(checks.digest(moments.mean, moments.var(), sums.sum_dy, sums.sum_dy_xhat))
    assert len(set(results)) == 1


def test_pytorch_and_jax_arrays():
    x, *_ = batch((5, 4), 3, "float32")
    expected = nk.Moments.of(x, AXES).mean
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    checks.assert_same_bits(nk.Moments.of(torch.tensor(x), AXES).mean, expected, "PyTorch")


X = np.ones((2, 3, 4), np.float32)


@pytest.mark.parametrize(
    ("error", "word", "call"),
    (
        (ValueError, "axes", lambda: nk.Moments(())),
        (TypeError, "", lambda: nk.Moments("c")),
        (ValueError, "axes", lambda: nk.Moments.of(X, 3)),
        (ValueError, "axes", lambda: nk.Moments.of(X, (0, -3))),
        (TypeError, "x", lambda: nk.Moments.of([1.0], 0)),
        (TypeError, "x", lambda: nk.Moments.of(X.astype(int), 0)),
        (ValueError, "no elements", lambda: nk.Moments(0).mean),
        (ValueError, "no elements", lambda: nk.Moments.of(X[:0], 0).mean),
        (ValueError, "x", lambda: nk.Moments.of(X, (0, 2)).update(X[:, :2])),
        (TypeError, "x", lambda: nk.Moments.of(X, (0, 2)).update(X.astype(np.float64))),
        (TypeError, "other", lambda: nk.Moments.of(X, 0).merge(3)),
        (ValueError, "other", lambda: nk.Moments.of(X, (0, 2)).merge(nk.Moments.of(X[:, :1], (0, 2)))),
        (ValueError, "ddof", lambda: nk.Moments.of(X, 0).var(ddof=2)),
        (ValueError, "mean", lambda: nk.GradSums.of(X, X, X, X, (0, 2))),
        (ValueError, "dy", lambda: nk.GradSums.of(X[:1], X, np.ones(3), np.ones(3), (0, 2))),
        (
            ValueError,
            "sums",
            lambda: nk.batch_norm_backward(X, X, None, None, training=True, sums=nk.Moments(0)),
        ),
        (
            TypeError,
            "sums",
            lambda: nk.batch_norm_backward(
                X, X, None, None, training=True, mean=np.ones(3), rstd=np.ones(3), sums=3
            ),
        ),
    ),
)
def test_bad_input(error, word, call):
    with pytest.raises(error, match=word):
        call()
    checks.COUNT.values += 1
