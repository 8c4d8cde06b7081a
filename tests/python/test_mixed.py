"""normalize, weight_norm, scaling, adaptive and switchable norm: values, gradients, sameness, bad input."""

import itertools

import checks
import normkit as nk
import numpy as np
import pytest
from reference import mixed
from reference.families import families_of, make, parameters
from reference.recipe import values
from reference.wide import DTYPES, numpy_dtype, ulp, wide

pytestmark = pytest.mark.compares
every_dtype = pytest.mark.parametrize("dtype", DTYPES)
ORDERS = (2, 1, 3, 1.5, 0.5, 0, -1, float("inf"), float("-inf"))


def assert_relative(name, actual, exact, where, limit):
    """Products and quotients only: so many ULP everywhere, not just where the value is large."""
    dtype = checks.dtype_name(actual)
    share = checks.assert_within(actual, exact, limit * ulp(exact, dtype), f"{name} {dtype} {where}")
    checks.remember(name, "y", dtype, share.max(initial=0) * limit, where)


# ---- normalize ----


@every_dtype
@pytest.mark.parametrize("p", ORDERS)
def test_normalize(dtype, p):
    """y = x / N rounds N, 1 / N and the product: 5 ULP with the sum's share, 1 for 16 bits."""
    for n in (1, 2, 7, 31, 64, 100, 1025, 3000):
        for family in families_of(dtype):
            if family == "subnormal" and dtype == "float64":
                continue  # 1 / N overflows
            if p < 0 and (family not in ("normal", "all equal") or (n > 100 and dtype == "float16")):
                continue  # y overflows
            x = make(family, 3, n, dtype)
            exact = mixed.normalize(x, p, (1,), 1e-30).y
            y = nk.normalize(x, p, 1, 1e-30)
            limit = 5 if dtype in ("float32", "float64") else 1
            assert_relative("normalize", y, exact, f"p={p} n={n} {family}", limit)


@every_dtype
@pytest.mark.parametrize("p", ORDERS)
def test_normalize_backward(dtype, p):
    for n in (1, 2, 33, 70, 1100):
        x, dy = make("normal", 3, n, dtype), make("normal", 3, n, dtype, seed=5)
        exact = mixed.normalize(x, p, (1,), 1e-12, dy)
        (dx,) = nk.normalize_backward(dy, x, p, 1)
        checks.assert_gradient("normalize", "dx", dx, exact.dx, exact.dx_terms, f"p={p} n={n}", dtype)


@every_dtype
def test_normalize_limits(dtype):
    """Below eps it divides by eps, in the gradient too; a zero vector has zero gradient."""
    x = np.zeros((3, 5), numpy_dtype(dtype))
    x[1, 2], x[2] = 0.25, 0.125
    dy = values((3, 5), dtype, "plain", 1)
    for p in (2, 1, 3, float("inf")):
        y, (dx,) = nk.normalize(x, p, 1, 2.0), nk.normalize_backward(dy, x, p, 1, 2.0)
        checks.assert_same_bits(y, (wide(x) / 2).astype(x.dtype), "y")
        expected = (wide(dy) / 2).astype(x.dtype)
        expected[0] = 0
        checks.assert_same_bits(dx + x.dtype.type(0), expected + x.dtype.type(0), "dx")
    assert np.isnan(wide(nk.normalize(x, eps=0.0))[0]).all()


def test_normalize_ties_share_the_gradient():
    """PyTorch's rule for p = inf."""
    x, dy = np.array([[3.0, -3.0, 1.0, 3.0]]), np.array([[1.0, 2.0, 4.0, 8.0]])
    (dx,) = nk.normalize_backward(dy, x, float("inf"), 1)
    exact = mixed.normalize(x, float("inf"), (1,), 0, dy)
    checks.assert_within(dx, exact.dx, 1e-15, "ties")


# ---- weight_norm ----


@every_dtype
@pytest.mark.parametrize("axis", (0, 1, 2, -1, None))
def test_weight_norm(dtype, axis):
    for shape in ((5, 3, 7), (1, 65, 2), (64, 3, 49), (4, 1, 1030)):
        v, dw = values(shape, dtype, "plain", 1), values(shape, dtype, "plain", 2)
        kept = None if axis is None else axis % 3
        ones = tuple(size if i == kept else 1 for i, size in enumerate(shape))
        g, _ = parameters(ones, dtype)
        axes = tuple(i for i in range(3) if i != kept)
        exact = mixed.weight_norm(v, g, axes, dw)
        w = nk.weight_norm(v, g, axis)
        where = f"{shape} axis={axis}"
        assert_relative("weight_norm", w, exact.w, where, 5 if dtype in ("float32", "float64") else 1)
        dv, dg = nk.weight_norm_backward(dw, v, g, axis)
        checks.assert_gradient("weight_norm", "dv", dv, exact.dv, exact.dv_terms, where, dtype)
        checks.assert_gradient("weight_norm", "dg", dg, exact.dg, exact.dg_terms, where, dtype)
        assert dg.shape == g.shape and dg.dtype == g.dtype
        flat = g.reshape(-1) if axis is not None else g.reshape(())
        checks.assert_same_bits(nk.weight_norm(v, flat, axis), w, "g of rank 1")
        checks.assert_same_bits(nk.weight_norm_backward(dw, v, flat, axis)[1], dg.reshape(flat.shape), "dg")


def test_weight_norm_of_zeros_is_nan():
    v = np.zeros((2, 3), np.float32)
    v[1] = 1
    w = nk.weight_norm(v, np.ones(2, np.float32))
    assert np.isnan(w[0]).all() and np.isfinite(w[1]).all()
    checks.COUNT.values += 6


# ---- scaling ----


@every_dtype
def test_min_max_scale(dtype):
    for shape, axis in itertools.product(((1, 1), (50, 7), (3, 65), (1100, 3)), (0, 1, (0, 1), None)):
        for family in families_of(dtype):
            x = make(family, *shape, dtype)
            if x.shape[0] > 2:
                x[:, 0] = x[0, 0]  # a constant feature
            axes = (0, 1) if axis is None else axis
            y = nk.min_max_scale(x, axis)
            where = f"{shape} axis={axis} {family}"
            exact = mixed.min_max_scale(x, axes)
            assert_relative("min_max_scale", y, exact, where, 3 if dtype == "float64" else 1)
            assert wide(y).min() >= 0 and wide(y).max() <= 1
            y = nk.min_max_scale(x, axis, (-2.0, 3.0))
            # Four roundings of a value up to 5, and the last sum's.
            bound = 6 * ulp(np.full((), 3.0), dtype)
            checks.assert_within(y, mixed.min_max_scale(x, axes, -2, 3), bound, where)


@every_dtype
def test_z_score(dtype):
    for shape, axis in itertools.product(((2, 1), (50, 7), (3, 65), (1100, 3)), (0, 1, (0, 1))):
        for family in families_of(dtype):
            x = make(family, *shape, dtype)
            d, _, var = mixed._statistics(x, axis)
            with np.errstate(divide="ignore", invalid="ignore"):
                exact = np.where(var == 0, 0, d / np.sqrt(var))
            checks.assert_normalized("z_score", nk.z_score(x, axis), exact, f"{shape} axis={axis} {family}")


@every_dtype
def test_scaling_of_odd_features(dtype):
    """Constant features give the lower end and 0; a NaN stays in its feature; any range is honoured."""
    x = values((6, 4), dtype, "plain", 1)
    x[:, 1] = 7.5
    x[2, 2] = np.nan
    for function in (nk.min_max_scale, nk.z_score):
        y = function(x)
        assert (wide(y)[:, 1] == 0).all() and np.isnan(wide(y)[:, 2]).all()
        assert np.isfinite(wide(y)[:, [0, 3]]).all()
        checks.COUNT.values += y.size
    assert (wide(nk.min_max_scale(x, 0, (0.5, 2)))[:, 1] == 0.5).all()


# ---- adaptive_instance_norm ----


@every_dtype
@pytest.mark.parametrize("channel_axis", (1, -1))
def test_adaptive_instance_norm(dtype, channel_axis):
    for (n, c, s, t), family in itertools.product(
        ((1, 1, 2, 1), (2, 3, 5, 7), (1, 65, 49, 33), (3, 2, 1100, 1025), (2, 5, 1, 4)),
        ("normal", "mean 1e3 std 1", "lognormal(3)"),
    ):
        shape, style_shape = ((n, c, s), (n, c, t)) if channel_axis == 1 else ((n, s, c), (n, t, c))
        axes = (2,) if channel_axis == 1 else (1,)
        content = make(family, 1, n * c * s, dtype).reshape(shape)
        style = make("mean 1e3 std 1", 1, n * c * t, dtype, seed=3).reshape(style_shape)
        dy = make("normal", 1, n * c * s, dtype, seed=4).reshape(shape)
        exact = mixed.adaptive_instance_norm(content, style, 1e-5, axes, dy)
        y = nk.adaptive_instance_norm(content, style, channel_axis=channel_axis)
        gradients = nk.adaptive_instance_norm_backward(dy, content, style, channel_axis=channel_axis)
        for name, actual in zip(("y", "dcontent", "dstyle"), (y, *gradients), strict=True):
            terms = getattr(exact, name + "_terms")
            checks.assert_gradient(
                "adaptive", name, actual, getattr(exact, name), terms, f"{shape} {t} {family}", dtype
            )


def test_adaptive_of_itself_is_the_identity():
    """Content that takes its own statistics stays what it was."""
    x = make("mean 1e3 std 1", 6, 100, "float64").reshape(2, 3, 100)
    checks.assert_within(nk.adaptive_instance_norm(x, x), wide(x), 1e-12, "identity")


# ---- switchable_norm ----


@every_dtype
@pytest.mark.parametrize("training", (True, False))
def test_switchable_norm(dtype, training):
    for n, c, s in ((1, 1, 2), (2, 3, 5), (3, 65, 49), (2, 2, 1100), (5, 3, 1)):
        for family in ("normal", "mean 1e3 std 1"):
            x = make(family, 1, n * c * s, dtype).reshape(n, c, s)
            dy = make("normal", 1, n * c * s, dtype, seed=4).reshape(n, c, s)
            weight, bias = parameters((c,), dtype)
            logits = [parameters((3,), dtype, seed=k)[0] for k in (5, 6)]
            running = [np.linspace(0.5, 2, c), np.linspace(1, 3, c)]
            given = None if training else running
            exact = mixed.switchable_norm(x, *logits, weight, bias, 1e-5, dy, given)
            arguments = (x, *logits, weight, bias)
            before = [array.copy() for array in running]
            y = nk.switchable_norm(*arguments, *running, training, 0.3)
            where = f"{n, c, s} {family}"
            checks.assert_gradient("switchable", "y", y, exact.y, exact.y_terms, where, dtype)
            for now, old, fresh in zip(running, before, (exact.batch_mean, exact.batch_var), strict=True):
                expected = 0.7 * wide(old) + 0.3 * fresh if training else wide(old)
                tolerance = 2.0**-18 if dtype != "float64" else 2.0**-48
                checks.assert_within(now, expected, tolerance * np.abs(expected), f"running {where}")
            gradients = nk.switchable_norm_backward(dy, *arguments, *running, training)
            names = ("dx", "dmean_weight", "dvar_weight", "dweight", "dbias")
            if not training:
                exact = mixed.switchable_norm(x, *logits, weight, bias, 1e-5, dy, running)
            for name, actual in zip(names, gradients, strict=True):
                terms = getattr(exact, name + "_terms")
                checks.assert_gradient("switchable", name, actual, getattr(exact, name), terms, where, dtype)


@pytest.mark.parametrize(("k", "name"), ((0, "instance"), (1, "layer"), (2, "batch")))
def test_switchable_with_all_weight_on_one(k, name):
    """Logits of +-700 leave one norm, bit for bit (the others' weights vanish in the mixture)."""
    x = values((3, 4, 5, 6), "float32", "offset", 1)
    weight, bias = parameters((4,), "float32")
    logits = np.full(3, -700, np.float32)
    logits[k] = 700
    y = nk.switchable_norm(x, logits, logits, weight, bias)
    if name == "instance":
        expected = nk.instance_norm(x, None, None, weight, bias)
    elif name == "layer":
        expected = nk.group_norm(x, 1, weight, bias)
    else:
        expected = nk.batch_norm(x, None, None, weight, bias, True)
    checks.assert_within(y, wide(expected), 2 * ulp(expected, "float32") + 1e-6, name)


def test_switchable_against_pytorch_float64():
    torch = pytest.importorskip("torch", reason="PyTorch is not installed: no autograd to compare with")
    x, dy = (values((3, 4, 5, 6), "float64", "plain", s) for s in (1, 2))
    arrays = [x, *(values((3,), "float64", "plain", s) for s in (3, 4)), *parameters((4,), "float64")]
    leaves = [torch.tensor(a, requires_grad=True) for a in arrays]
    t, mean_weight, var_weight, weight, bias = leaves
    all_axes = ((2, 3), (1, 2, 3), (0, 2, 3))
    mean = sum(w * t.mean(a, keepdim=True) for w, a in zip(mean_weight.softmax(0), all_axes, strict=True))
    var = sum(
        w * t.var(a, correction=0, keepdim=True) for w, a in zip(var_weight.softmax(0), all_axes, strict=True)
    )
    y = (t - mean) / (var + 1e-5).sqrt() * weight[:, None, None] + bias[:, None, None]
    y.backward(torch.tensor(dy))
    checks.assert_within(nk.switchable_norm(*arrays), wide(y.detach().numpy()), 1e-13, "y")
    for leaf, actual in zip(leaves, nk.switchable_norm_backward(dy, *arrays), strict=True):
        checks.assert_within(actual, wide(leaf.grad.numpy()), 1e-12, "autograd")


# ---- all of them ----


def calls(dtype, shape=(3, 4, 35)):
    """Every operation here as (name, function of x, x, what else it takes)."""
    x, dy, other = (values(shape, dtype, kind, s) for kind, s in (("spread", 1), ("plain", 2), ("plain", 3)))
    g, weight = (parameters((shape[1],), dtype, seed=s)[0] for s in (4, 5))
    logits = [parameters((3,), dtype, seed=s)[0] for s in (6, 7)]
    both = {
        "normalize": lambda x: nk.normalize(x, 2, -1),
        "normalize 3": lambda x: nk.normalize(x, 3, (0, 2)),
        "weight_norm": lambda x: nk.weight_norm(x, g, 1),
        "min_max_scale": lambda x: nk.min_max_scale(x, 0),
        "z_score": lambda x: nk.z_score(x, (0, 2)),
        "adaptive": lambda x: nk.adaptive_instance_norm(x, other),
        "switchable": lambda x: nk.switchable_norm(x, *logits, weight, weight),
        "normalize_backward": lambda x: nk.normalize_backward(dy, x, 2, -1),
        "normalize_backward 1": lambda x: nk.normalize_backward(dy, x, 1, -1),
        "weight_norm_backward": lambda x: nk.weight_norm_backward(dy, x, g, 1),
        "adaptive_backward": lambda x: nk.adaptive_instance_norm_backward(dy, x, other),
        "switchable_backward": lambda x: nk.switchable_norm_backward(dy, x, *logits, weight, weight),
    }
    return x, both


def flat(result):
    return result if isinstance(result, tuple) else (result,)


@every_dtype
def test_layouts_threads_and_twice(dtype, threads):
    for shape in ((3, 4, 35), (40, 64, 70)):
        x, functions = calls(dtype, shape)
        memory = np.zeros((*shape[:-1], 2 * shape[-1]), x.dtype)
        memory[..., ::2] = x
        views = {
            "every second": memory[..., ::2],
            "transposed": np.ascontiguousarray(x.T).T,
            "reversed": np.ascontiguousarray(x[::-1, ::-1, ::-1])[::-1, ::-1, ::-1],
        }
        for name, function in functions.items():
            threads(1)
            expected = flat(function(x))
            for count in (1, 2, 3):
                threads(count)
                for k, result in enumerate(flat(function(x))):
                    checks.assert_same_bits(result, expected[k], f"{name} {count} threads")
            for how, view in views.items():
                for k, result in enumerate(flat(function(view))):
                    checks.assert_same_bits(result, expected[k], f"{name} {how}")


@every_dtype
def test_in_place_and_out(dtype):
    x, _ = calls(dtype)
    g = parameters((4,), dtype)[0]
    logits = parameters((3,), dtype)[0]
    for name, function in {
        "normalize": lambda x, out: nk.normalize(x, out=out),
        "normalize inf": lambda x, out: nk.normalize(x, np.inf, out=out),
        "weight_norm": lambda x, out: nk.weight_norm(x, g, 1, out=out),
        "min_max_scale": lambda x, out: nk.min_max_scale(x, out=out),
        "z_score": lambda x, out: nk.z_score(x, out=out),
        "adaptive": lambda x, out: nk.adaptive_instance_norm(x, x[:, :, :7].copy(), out=out),
        "switchable": lambda x, out: nk.switchable_norm(x, logits, logits, out=out),
    }.items():
        expected, out, work = function(x, None), np.empty_like(x), x.copy()
        assert function(x, out) is out and function(work, work) is work
        checks.assert_same_bits(out, expected, f"{name} out")
        checks.assert_same_bits(work, expected, f"{name} in place")


X = np.ones((2, 4, 3), np.float32)
G, L = np.ones(4, np.float32), np.ones(3, np.float32)


@pytest.mark.parametrize(
    ("error", "word", "call"),
    (
        (ValueError, "axis", lambda: nk.normalize(X, axis=3)),
        (ValueError, "axis", lambda: nk.normalize(X, axis=(1, -2))),
        (TypeError, "axis", lambda: nk.normalize(X, axis="c")),
        (ValueError, "p", lambda: nk.normalize(X, float("nan"))),
        (TypeError, "p", lambda: nk.normalize(X, "two")),
        (ValueError, "eps", lambda: nk.normalize(X, eps=float("nan"))),
        (ValueError, "out", lambda: nk.normalize(X, out=X[:, :, :2])),
        (TypeError, "dy", lambda: nk.normalize_backward(X.astype(np.float64), X)),
        (TypeError, "g", lambda: nk.weight_norm(X, None)),
        (ValueError, "g", lambda: nk.weight_norm(X, G)),
        (ValueError, "g", lambda: nk.weight_norm(X, np.ones((1, 4, 3), np.float32), 1)),
        (ValueError, "axis", lambda: nk.weight_norm(X, G, 5)),
        (ValueError, "grads_out", lambda: nk.weight_norm_backward(X, X, G, 1, grads_out=(L,))),
        (ValueError, "feature_range", lambda: nk.min_max_scale(X, 0, (1, 1))),
        (TypeError, "feature_range", lambda: nk.min_max_scale(X, 0, 1)),
        (ValueError, "feature_range", lambda: nk.min_max_scale(X, 0, (0, float("nan")))),
        (ValueError, "axis", lambda: nk.z_score(X, ())),
        (ValueError, "style", lambda: nk.adaptive_instance_norm(X, X[:, :2])),
        (ValueError, "style", lambda: nk.adaptive_instance_norm(X, X[:1])),
        (ValueError, "style", lambda: nk.adaptive_instance_norm(X, X[..., :0])),
        (ValueError, "style", lambda: nk.adaptive_instance_norm(X, X[..., None])),
        (TypeError, "style", lambda: nk.adaptive_instance_norm(X, X.astype(np.float64))),
        (ValueError, "content", lambda: nk.adaptive_instance_norm(G, G)),
        (ValueError, "mean_weight", lambda: nk.switchable_norm(X, G, L)),
        (TypeError, "var_weight", lambda: nk.switchable_norm(X, L, [1, 2, 3])),
        (ValueError, "running_mean", lambda: nk.switchable_norm(X, L, L, running_mean=L, running_var=L)),
        (ValueError, "running_var", lambda: nk.switchable_norm(X, L, L, running_mean=G)),
        (ValueError, "running_mean", lambda: nk.switchable_norm(X, L, L, training=False)),
        (ValueError, "weight", lambda: nk.switchable_norm(X, L, L, L)),
        (ValueError, "channel_axis", lambda: nk.switchable_norm(X, L, L, channel_axis=0)),
    ),
)
def test_bad_input(error, word, call):
    before = checks.digest(X, G, L)
    with pytest.raises(error, match=rf"\b{word}\b"):
        call()
    assert checks.digest(X, G, L) == before
