"""Bugs of other libraries in batch, instance and group norm and their kin: eps, degenerate sets and their
gradients, running statistics.

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
    check_running,
    data,
    every_dtype,
    every_kind,
    last,
    moments,
    parameters,
    pytorch,
    switchable,
    within_ulps,
)
from reference.wide import WIDE, numpy_dtype, sum_wide, ulp, wide

pytestmark = pytest.mark.compares


# Eps


@every_kind
@pytest.mark.parametrize("eps", (1e-12, 1e-5, 0.25, 10.0))
def test_cntk_3816_and_llama_cpp_2373_eps(kind, eps):
    """CNTK#3816: eps outside of the root; llama.cpp#2373: a hard-coded one."""
    for scale in (1e-4, 1e-2, 1.0):
        check(ChannelNorm(kind, 3), data((2, 6, 5, 7), std=scale), eps, f"scale {scale}")


@pytest.mark.parametrize("eps", (1e-12, 1e-5, 0.25, 10.0))
def test_cntk_3816_eps_with_given_statistics(eps):
    """The same of running statistics, adaptive norm (where it counts twice) and switchable norm."""
    x, style = data((3, 5, 7), std=0.01), data((3, 5, 11), mean=1, std=0.02)
    rm, rv = data((5,)), data((5,), std=0.1) ** 2
    w, b = parameters(5)
    scale = wide(w)[:, None] / np.sqrt(wide(rv)[:, None] + WIDE(eps))
    exact = (wide(x) - wide(rm)[:, None]) * scale + wide(b)[:, None]
    size = 1e-6 * (np.abs(scale) + np.abs(exact))
    for name, y in (
        ("batch", nk.batch_norm(x, rm, rv, w, b, eps=eps)),
        ("instance", nk.instance_norm(x, rm, rv, w, b, use_input_stats=False, eps=eps)),
    ):
        checks.assert_within(y, exact, size, f"{name} eps {eps}")
    dx = nk.batch_norm_backward(x, x, rm, rv, w, b, eps=eps)[0]
    checks.assert_within(dx, wide(x) * scale, 1e-6 * np.abs(wide(x) * scale), "dx with constant statistics")
    (mean, var), (style_mean, style_var) = moments(x, (2,)), moments(style, (2,))
    exact = (wide(x) - mean) / np.sqrt(var + WIDE(eps)) * np.sqrt(style_var + WIDE(eps)) + style_mean
    checks.assert_within(nk.adaptive_instance_norm(x, style, eps), exact, 1e-5, f"adaptive eps {eps}")
    logits = data((3,)), data((3,), seed=1)
    y = nk.switchable_norm(x, *logits, eps=eps)
    checks.assert_within(y, switchable(x, *logits, eps), 1e-5, f"switchable eps {eps}")


@every_kind
def test_tim_vx_589_eps_of_another_type(kind):
    """TIM-VX#589: eps was read with another type, as 0."""
    x = np.zeros((2, 4, 5), np.float32)
    for eps in (1e-5, np.float64(1e-5), np.float32(1e-5), 1, np.int64(2)):
        y, _, rstd = ChannelNorm(kind, 2).forward(x, eps=eps, return_stats=True)
        assert (y == 0).all()
        checks.assert_same_bits(
            rstd, np.full_like(rstd, 1 / np.sqrt(float(eps))), f"rstd of zeros, eps {eps!r}"
        )


@every_dtype
@pytest.mark.parametrize("p", (1.0, 2.0, 3.0, np.inf))
def test_llama_cpp_20350_eps_is_a_least_divisor(p, dtype):
    """llama.cpp#20350: eps was added to the norm instead of bounding it from below."""
    x = data((6, 9), dtype, std=0.1)
    x[3] = 0
    size = np.abs(wide(x))
    length = size.max(1, keepdims=True) if np.isinf(p) else sum_wide(size ** int(p), 1) ** (1 / WIDE(p))
    for eps in (1e-12, np.median(length) * 0.99, np.median(length) * 1.01, 7.0):
        exact = wide(x) / np.maximum(length, WIDE(eps))
        ulps = 5 if dtype in ("float32", "float64") else 1
        within_ulps(nk.normalize(x, p, 1, float(eps)), exact, ulps, f"p {p} eps {eps}")


# Degenerate sets and their gradients


@every_dtype
@pytest.mark.parametrize("p", (1.0, 1.5, 2.0, 3.0, np.inf))
def test_keras_23075_and_pytorch_9448_the_gradient_of_a_zero_vector(p, dtype):
    """keras#23075, pytorch#9448, #3264, #184575, dynet#1232: NaN or 1e12 at a zero vector; here 0."""
    torch = pytorch()
    for shape, axis in (((5, 7), 1), ((3, 4, 1), 1), ((2, 65, 3), 1), ((4, 3, 49), -1)):
        x, dy = data(shape, dtype), data(shape, dtype, seed=1)
        x[1] = 0
        (dx,) = nk.normalize_backward(dy, x, p, axis)
        assert (wide(dx[1]) == 0).all() and (wide(nk.normalize(x, p, axis)[1]) == 0).all()
        leaf = torch.tensor(np.delete(x, 1, 0).astype(np.float64), requires_grad=True)
        y = torch.nn.functional.normalize(leaf, p, axis)
        y.backward(torch.tensor(np.delete(dy, 1, 0).astype(np.float64)))
        exact = wide(leaf.grad.numpy())
        length = np.linalg.norm(leaf.detach().numpy(), 2, axis=axis, keepdims=True)
        bound = ulp(exact, dtype) + 32 * 2.0 ** (-53 if dtype == "float64" else -24) * (7 / length + 1)
        checks.assert_within(np.delete(dx, 1, 0), exact, bound, f"{shape} p {p}: the others")


@every_dtype
def test_pytorch_9448_a_zero_vector_of_a_weight(dtype):
    """A zero vector of a weight gives NaN, as documented, and leaves the others alone."""
    v, dw = data((4, 3, 7), dtype), data((4, 3, 7), dtype, seed=1)
    g = data((4,), dtype, 2, 0.1)
    clean = nk.weight_norm(v, g), *nk.weight_norm_backward(dw, v, g)
    v[2] = 0
    with np.errstate(invalid="ignore"):
        spoilt = nk.weight_norm(v, g), *nk.weight_norm_backward(dw, v, g)
    for actual, wanted in zip(spoilt, clean, strict=True):
        assert np.isnan(wide(actual[2])).all()
        checks.assert_same_bits(np.delete(actual, 2, 0), np.delete(wanted, 2, 0), "the other vectors")


@every_dtype
@pytest.mark.parametrize("shape, groups", (((3, 4, 1), 4), ((2, 65), 65), ((1, 1, 1, 1), 1)))
def test_pytorch_98075_and_onnxruntime_25896_one_element(dtype, shape, groups):
    """pytorch#98075: one element, a weight of 1e10; onnxruntime#25896: refused. Here y = bias, dx = 0.

    InstanceNorm refuses it, as PyTorch's: test_interfaces.py.
    """
    x, dy = data(shape, dtype, 50, 20), data(shape, dtype, seed=1)
    huge = np.full(shape[1], 6e4 if dtype == "float16" else 1e10, x.dtype)
    bias = parameters(shape[1], dtype)[1]
    wanted = np.broadcast_to(bias.reshape(-1, *[1] * (len(shape) - 2)), shape)
    for kind in ("group", "norm"):
        norm = ChannelNorm(kind, groups)
        for axis in (1, -1):
            xs, dys, ws = (a if axis == 1 else last(a) for a in (x, dy, wanted))
            checks.assert_same_bits(norm.forward(xs, axis, weight=huge, bias=bias), ws, f"{kind} y")
            dx, dweight, dbias = norm.backward(dys, xs, axis, weight=huge, bias=bias)
            checks.assert_same_bits(np.abs(dx), np.zeros_like(xs), f"{kind} dx")
            assert (wide(dweight) == 0).all()
            others = tuple(i for i in range(dy.ndim) if i != 1)
            exact, terms = (sum_wide(a, others).reshape(-1) for a in (wide(dy), np.abs(wide(dy))))
            checks.assert_gradient(norm, "dbias", dbias, exact, terms, f"{shape}")


# Running statistics


@every_dtype
def test_flux_1992_running_var_at_one_value(dtype):
    """Flux#1992, pytorch#1381, torch/nn#1271: n / (n - 1) at n = 1 made running_var NaN for ever."""
    for shape in ((1, 3), (1, 3, 1, 1)):
        x = data(shape, dtype)
        running = data((3,)), data((3,)) ** 2 + 1
        before = checks.digest(*running)
        with pytest.raises(ValueError, match="more than one"):
            nk.batch_norm(x, *running, training=True)
        assert checks.digest(*running) == before
        y = nk.batch_norm(x, *running)  # with given statistics one value is fine
        assert np.isfinite(wide(y)).all()
    x = data((2, 3, 1), dtype)
    running = data((3,)), data((3,)) ** 2 + 1
    before = checks.digest(*running)
    with pytest.raises(ValueError, match="more than one"):
        nk.instance_norm(x, *running, momentum=0.25)
    assert checks.digest(*running) == before
    rm, rv = running[0].copy(), running[1].copy()
    logits = np.ones(3, x.dtype)
    nk.switchable_norm(x[:1], logits, logits, None, None, rm, rv, momentum=0.25)
    check_running(rm, running[0], wide(x)[0, :, 0], 0.25, "switchable running_mean")
    check_running(rv, running[1], np.zeros(3, WIDE), 0.25, "switchable running_var")


@both_layouts
@every_dtype
@pytest.mark.parametrize("running_dtype", ("float32", "float64", "x"))
def test_mlx_3817_running_var_was_biased(dtype, running_dtype, channel_axis):
    """mlx#3817: running_var followed the biased variance. n is 2, 6 or 49, so that it shows."""
    for shape in ((2, 5, 1), (3, 65, 2), (2, 3, 7, 7), (1, 4, 3)):
        running_type = numpy_dtype(dtype if running_dtype == "x" else running_dtype)
        x = data(shape, dtype, -3, 2)
        xs, space = (x, shape[2:]) if channel_axis == 1 else (last(x), shape[2:])
        channels, n = shape[1], int(np.prod(space))
        before = (
            data((channels,), seed=3).astype(running_type),
            (data((channels,), seed=4) ** 2 + 1).astype(running_type),
        )
        flat = x.reshape(shape[0], channels, n)
        mean, var = (m.reshape(-1) for m in moments(flat, (0, 2)))
        m = shape[0] * n
        running = before[0].copy(), before[1].copy()
        nk.batch_norm(xs, *running, training=True, momentum=0.25, channel_axis=channel_axis)
        check_running(running[0], before[0], mean, 0.25, "batch running_mean")
        check_running(running[1], before[1], var * m / (m - 1), 0.25, "batch running_var")
        running = before[0].copy(), before[1].copy()
        logits = np.array([0.5, -1, 2], x.dtype)
        nk.switchable_norm(xs, logits, logits, None, None, *running, momentum=0.25, channel_axis=channel_axis)
        check_running(running[0], before[0], mean, 0.25, "switchable running_mean")
        check_running(running[1], before[1], var, 0.25, "switchable running_var (documented: biased)")
        if n > 1:
            mean, var = (m.mean(0).reshape(-1) for m in moments(flat, (2,)))
            running = before[0].copy(), before[1].copy()
            nk.instance_norm(xs, *running, momentum=0.25, channel_axis=channel_axis)
            check_running(running[0], before[0], mean, 0.25, "instance running_mean")
            check_running(running[1], before[1], var * n / (n - 1), 0.25, "instance running_var")


def test_mlx_3817_the_module_follows_pytorchs():
    """Three steps from statistics that are not 0 and 1, against float64 PyTorch."""
    torch = pytorch()
    for name, options in (
        ("BatchNorm2d", {}),
        ("InstanceNorm2d", {"affine": True, "track_running_stats": True}),
    ):
        for momentum in (0.1, 0.7) + ((None,) if name == "BatchNorm2d" else ()):
            ours = getattr(nk.nn, name)(5, momentum=momentum, **options)
            theirs = getattr(torch.nn, name)(5, momentum=momentum, dtype=torch.float64, **options)
            state = {"running_mean": data((5,)), "running_var": data((5,)) ** 2 + 1}
            ours.load_state_dict(state, strict=False)
            theirs.load_state_dict({k: torch.tensor(v) for k, v in state.items()}, strict=False)
            for step in range(3):
                x = data((3, 5, 7, 2), mean=step, seed=step)
                y, exact = ours(x), theirs(torch.tensor(x).double())
                checks.assert_within(y, wide(exact.detach().numpy()), 2e-6, f"{name} step {step}")
            y, exact = ours.eval()(x), theirs.eval()(torch.tensor(x).double())
            checks.assert_within(y, wide(exact.detach().numpy()), 4e-6, f"{name} eval")
            for key in state:
                wanted = wide(getattr(theirs, key).numpy())
                checks.assert_within(getattr(ours, key), wanted, 1e-6 * np.abs(wanted) + 1e-6, key)
            assert int(ours.num_batches_tracked) == int(theirs.num_batches_tracked)
