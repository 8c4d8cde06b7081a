"""Edges of the operations over sets: vanishing squares, endless ranges, what does not belong together."""

import checks
import normkit as nk
import numpy as np
import pytest
from normkit import nn
from reference.wide import wide

pytestmark = pytest.mark.compares
X = np.random.default_rng(0).standard_normal((4, 6, 5)).astype(np.float32)


def test_normalize_of_vectors_whose_squares_vanish():
    """Below eps y = x / eps and dx = dy / eps, also where squares underflow; only zeros have no gradient."""
    x = np.array([[3e-200, 4e-200], [5e-324, 0.0], [0.0, 0.0]])
    checks.assert_within(nk.normalize(x), wide(x) / wide(1e-12), 1e-203, "y")
    (dx,) = nk.normalize_backward(np.ones_like(x), x)
    checks.assert_within(dx, wide(np.array([[1e12, 1e12], [1e12, 1e12], [0, 0]])), 1e-3, "dx")


@pytest.mark.parametrize("p", (-1.0, -2.0, -np.inf))
def test_negative_orders_with_a_zero(p):
    """The norm is 0, but the vector is not: y = x / eps, as PyTorch says."""
    x = np.array([[0.0, 1.0, 2.0]])
    checks.assert_within(nk.normalize(x, p), wide(x) / wide(1e-12), 1e-3, "y")
    assert np.isfinite(nk.normalize_backward(np.ones_like(x), x, p)[0]).all()


def test_gradients_never_go_to_running_statistics():
    mean, var, weight = np.zeros(6, np.float32), np.ones(6, np.float32), np.ones(6, np.float32)
    logits = np.ones(3, np.float32)
    for call in (
        lambda: nk.batch_norm_backward(X, X, mean, var, weight, weight, True, grads_out=(mean, var)),
        lambda: nk.instance_norm_backward(X, X, mean, var, weight, weight, grads_out=(mean, var)),
        lambda: nk.switchable_norm_backward(
            X, X, logits, logits, weight, None, mean, var, grads_out=(None, None, mean, None)
        ),
    ):
        with pytest.raises(ValueError, match="running"):
            call()
    assert (mean == 0).all() and (var == 1).all()
    checks.COUNT.values += 12


def test_ranges_that_do_not_fit():
    for bad in ((0, 4e38), (0, np.inf), (-np.inf, 0), (2, 1)):
        with pytest.raises(ValueError, match="feature_range"):
            nk.min_max_scale(X, 0, bad)
        checks.COUNT.values += 1


def test_weight_norm_module_of_extremes():
    for scale in (1e200, 1e-200):
        v = np.full((2, 3), scale)
        checks.assert_within(nn.WeightNorm(v)(), wide(v), 1e-15 * scale, "the given weight")
    module = nn.WeightNorm(np.ones((2, 3), np.float32))
    with pytest.raises(ValueError, match="weight_v"):
        module(out=module.weight_v)
    assert (module.weight_v == 1).all()
    assert nn.WeightNorm(np.ones((2, 3), np.float32), None).weight_g.shape == ()


def test_moments_of_everything():
    moments = nk.Moments.of(X, (0, 1, 2))
    assert moments.mean.shape == moments.var().shape == moments.rstd().shape == ()
    sums = nk.GradSums.of(X, X, moments.mean, moments.rstd(), (0, 1, 2))
    assert sums.sum_dy.shape == ()
    checks.COUNT.values += 4


def test_only_what_belongs_together_merges():
    statistics = np.zeros(6), np.ones(6)
    sums = nk.GradSums.of(X, X, *statistics, (0, 2))
    with pytest.raises(ValueError, match="mean"):
        sums.merge(nk.GradSums.of(X, X, np.full(6, 9.0), np.ones(6), (0, 2)))
    with pytest.raises(ValueError, match="axes"):
        nk.Moments.of(X, (0, 2)).merge(nk.Moments(1))
    moments = nk.Moments((0, 2)).update(X[:0].astype(float)).update(X)
    checks.assert_same_bits(moments.mean, nk.Moments.of(X, (0, 2)).mean, "after an empty array")


def test_sizes_are_integers_whatever_came_before():
    nk.norm(X, "b (g [c]) t", g=2)
    for bad in (2.0, True, [2], "2"):
        with pytest.raises(ValueError, match="g is"):
            nk.norm(X, "b (g [c]) t", g=bad)
        checks.COUNT.values += 1
    with pytest.raises(TypeError, match="affine"):
        nk.norm(X, "b c [t]", affine=["c"])
    many = " ".join(f"a{k}" for k in range(200))
    with pytest.raises(ValueError, match="axes"):
        nk.norm(np.ones((1, 3), np.float32), f"({many}) [c]", **{f"a{k}": 1 for k in range(199)})


def test_loading_a_state_is_all_or_nothing():
    module = nn.BatchNorm2d(6)
    for bad in (np.array(["a"] * 6), np.ones(6) * 3j):
        with pytest.raises(TypeError, match="bias"):
            module.load_state_dict({"weight": np.full(6, 3.0), "bias": bad}, strict=False)
    assert (module.weight == 1).all()
    checks.COUNT.values += 6


def test_modules_without_bias():
    for module in (nn.BatchNorm1d(6, bias=False), nn.InstanceNorm1d(6, affine=True, bias=False)):
        assert module.bias is None and module.weight is not None
        module(X)
        assert module.backward(X).shape == X.shape and module.grads["bias"] is None
    assert nn.GroupNorm(2, 6, bias=False).bias is None
    checks.COUNT.values += 4


def test_what_is_no_array_is_a_type_error_in_modules_too():
    for bad in ([1, 2], "s", None):
        with pytest.raises(TypeError, match="x"):
            nn.BatchNorm2d(6)(bad)
        checks.COUNT.values += 1


def test_rank_64():
    x = np.array([[1, 2, 3], [3, 2, 5]], np.float32).reshape((2, 3) + (1,) * 62)
    for call in (
        lambda v: nk.batch_norm(v, None, None, training=True),
        lambda v: nk.group_norm(v, 1),
        lambda v: nk.local_response_norm(v, 2),
        nk.normalize,
    ):
        checks.assert_same_bits(call(x).reshape(2, 3, 1), call(x.reshape(2, 3, 1)), "64 axes")


class Emptying:
    """An array, or a number, that empties a list when it is read."""

    def __init__(self, value, holder):
        self.value, self.holder = value, holder

    def __dlpack_device__(self):
        return self.value.__dlpack_device__()

    def __dlpack__(self, **keywords):
        self.holder.clear()
        return self.value.__dlpack__(**keywords)

    def __float__(self):
        self.holder.clear()
        return self.value


def test_lists_that_change_while_they_are_read():
    """Their entries, which nobody else holds, live as long as the call."""
    weight, dy = np.ones(5, np.float32), np.full_like(X, 2)
    expected = nk.add_layer_norm(X, dy, (5,)), nk.layer_norm_backward(dy, X, (5,), weight, weight)
    out, grads_out, feature_range = [], [], []
    out += [Emptying(np.empty_like(X), out), np.empty_like(X)]
    grads_out += [Emptying(np.empty_like(weight), grads_out), np.empty_like(weight)]
    feature_range += [Emptying(-1.0, feature_range), float("3")]
    results = nk.add_layer_norm(X, dy, (5,), out=out)
    for result, array in zip(results, expected[0], strict=True):
        checks.assert_same_bits(getattr(result, "value", result), array, "out")
    results = nk.layer_norm_backward(dy, X, (5,), weight, weight, grads_out=grads_out)
    for result, array in zip(results, expected[1], strict=True):
        checks.assert_same_bits(getattr(result, "value", result), array, "grads_out")
    scaled = nk.min_max_scale(X, feature_range=feature_range)
    checks.assert_same_bits(scaled, nk.min_max_scale(X, feature_range=(-1, 3)), "feature_range")


def test_what_shares_memory_is_named():
    """And "the very same view" is only advised where it is allowed."""
    row, dy, weight = (np.ones(8, np.float32) for _ in range(3))
    rows, numbers = np.ones((4, 8), np.float32), np.ones(4, np.float32)
    weights = rows[None].copy()
    same = "the very same view of it or separate memory"
    for call, message in (
        (lambda: nk.layer_norm(rows, (8,), out=rows[::-1]), f"out shares memory with x; it should be {same}"),
        (
            lambda: nk.layer_norm_backward(dy, row, (8,), weight, grads_out=(row, None)),
            r"grads_out\[0\] shares memory with x; it should be separate memory",
        ),
        (
            lambda: nk.layer_norm_backward(dy, row, (8,), weight, grads_out=(dy, None)),
            r"grads_out\[0\] shares memory with dy; it should be separate memory",
        ),
        (
            lambda: nk.add_layer_norm_backward(dy, None, row, (8,), weight, grads_out=(row, None)),
            r"grads_out\[0\] shares memory with summed; it should be separate memory",
        ),
        (
            lambda: nk.add_layer_norm(rows, rows, (8,), out=(weights[0], weights[0])),
            r"out\[0\] shares memory with out\[1\]; it should be separate memory",
        ),
        (
            lambda: nk.layer_norm_backward(rows, rows, (8,), weight, grads_out=(rows[0], None)),
            r"grads_out\[0\] shares memory with x; it should be separate memory",
        ),
        (
            lambda: nk.weight_norm_backward(rows, weights[0], numbers[:, None], grads_out=(rows[:, :1],)),
            r"grads_out\[0\] shares memory with dw; it should be separate memory",
        ),
        (
            lambda: nk.batch_norm(rows[None], rows[0, :4], numbers, training=True),
            "running_mean shares memory with x; it should be separate memory",
        ),
    ):
        with pytest.raises(ValueError, match=f"^{message}$"):
            call()
        checks.COUNT.values += 1
