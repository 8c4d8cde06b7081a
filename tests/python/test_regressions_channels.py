"""Bugs of other libraries in batch, instance and group norm and their kin: precision, eps, degenerate sets,
running statistics. Layouts, sizes, memory and threads: test_regressions_channels_layouts.py."""
# TABLE

import checks
import normkit as nk
import numpy as np
import pytest
from channel_norms import ChannelNorm, check, check_running, data, every_dtype, every_kind, last, parameters
from reference.operations import Case, standardize
from reference.wide import WIDE, centre, numpy_dtype, sum_wide, ulp, wide

pytestmark = pytest.mark.compares
both_layouts = pytest.mark.parametrize("channel_axis", (1, -1))


def within_ulps(actual, exact, ulps, where, absolute=0.0):
    bound = ulps * ulp(exact, checks.dtype_name(actual)) + WIDE(absolute)
    return checks.assert_within(actual, np.asarray(exact), bound, where)


def moments(x, axes):
    """Mean and biased variance of x over `axes`, kept."""
    d, hi, lo = centre(wide(x), axes)
    return hi + lo, sum_wide(d * d, axes) / (d.size // hi.size)


# Cancellation, overflow, precision


@every_kind
@pytest.mark.parametrize("mean, std", ((2000, 1), (4000, 1), (1e4, 0.01), (-1e6, 1)))
def test_pytorch_51102_a_large_mean(kind, mean, std):
    """pytorch#51102: at mean 2000 the variance came out as 30822; channels last at mean 4000 no better."""
    for shape, groups in (((2, 6, 49), 3), ((1, 65, 7, 7), 5), ((3, 4, 1031), 1)):
        check(ChannelNorm(kind, groups), data(shape, "float32", mean, std))
    check(ChannelNorm(kind, 2), data((3, 4, 7, 5), "float64", mean, std))


def test_onnxruntime_28463_40000_to_40003():
    """onnxruntime#28463: four values about 40000 gave NaN."""
    x = np.tile(np.array([40000, 40001, 40002, 40003], np.float32), 3).reshape(1, 3, 4)
    for kind in ("batch", "instance", "group", "norm"):
        y = check(ChannelNorm(kind, 3), x)
        wanted = wide(np.array([-3, -1, 1, 3])) / np.sqrt(WIDE(5 + 4e-5))
        within_ulps(y.reshape(3, 4), np.tile(wanted, (3, 1)), 5, kind)
    within_ulps(
        nk.z_score(x, 2)[0], np.tile(wide(np.array([-3, -1, 1, 3])) / np.sqrt(WIDE(5)), (3, 1)), 5, "z"
    )


@every_dtype
@pytest.mark.parametrize("value", (1234.0, -0.3, 6e4, 1e-7))
def test_onnxruntime_21935_all_equal(dtype, value):
    """onnxruntime#21935: a constant 1234 gave a negative variance and NaN. Here y = bias, to the bit."""
    x = np.full((2, 6, 7, 5), value, numpy_dtype(dtype))
    dy = data(x.shape, dtype)
    weight, bias = parameters(6, dtype)
    wanted = np.broadcast_to(bias[:, None, None], x.shape)
    logits = parameters(3, dtype)
    for kind in ("batch", "instance", "group", "norm"):
        norm = ChannelNorm(kind, 3)
        checks.assert_same_bits(norm.forward(x, weight=weight, bias=bias), wanted, kind)
        dx, dweight, _ = norm.backward(dy, x, weight=weight, bias=bias)
        assert np.isfinite(wide(dx)).all() and (wide(dweight) == 0).all()
    checks.assert_same_bits(nk.switchable_norm(x, *logits, weight, bias), wanted, "switchable")
    style = np.full((2, 6, 3), -2.5, x.dtype)
    style[:, ::2] = 0.75
    y = nk.adaptive_instance_norm(x.reshape(2, 6, 35), style)
    checks.assert_same_bits(y, np.repeat(style[..., :1], 35, 2), "adaptive: the style's mean")
    for axis in (0, 1, -1, (0, 3), None):
        checks.assert_same_bits(np.abs(nk.z_score(x, axis)), np.zeros_like(x), f"z_score {axis}")
        y = nk.min_max_scale(x, axis, (-3, 2))
        checks.assert_same_bits(y, np.full_like(x, -3), f"min_max_scale {axis}")


@every_kind
def test_mlx_2238_1449_plus_minus_0_7(kind):
    """mlx#2238: NaN at 1449 +- 0.7."""
    rng = np.random.default_rng(1)
    x = (1449 + rng.uniform(-0.7, 0.7, (2, 10, 11, 9))).astype(np.float32)
    check(ChannelNorm(kind, 5), x)
    assert not np.isnan(nk.z_score(x, (0, 2))).any()


@pytest.mark.parametrize("dtype", ("bfloat16", "float16", "float32"))
def test_tt_metal_45968_and_dlib_3113_batch_norm_off_zero(dtype):
    """tt-metal#45968: BatchNorm of mean 5, std 0.1 in bfloat16; dlib#3113: naive sums on the CPU."""
    for shape in ((8, 3, 7, 7), (5, 65, 1, 3), (1, 1, 1, 501)):
        x = data(shape, dtype, 5, 0.1)
        check(ChannelNorm("batch"), x)
        channels = shape[1]
        running_mean, running_var = (
            a.astype(np.float32) for a in (data((channels,)), 4 + data((channels,)) ** 2)
        )
        before = running_mean.copy(), running_var.copy()
        nk.batch_norm(x, running_mean, running_var, training=True, momentum=0.3)
        mean, var = moments(x, tuple(i for i in range(4) if i != 1))
        n = x.size // channels
        check_running(running_mean, before[0], mean.reshape(-1), 0.3, "running_mean")
        check_running(running_var, before[1], var.reshape(-1) * n / (n - 1), 0.3, "running_var")


@pytest.mark.parametrize("mean, std", ((0, 1), (4000, 1), (1e4, 0.01)))
def test_burn_5607_paths_disagree(mean, std):
    """burn#5607: SIMD and scalar paths used different formulas; here every path gives the same bits."""
    for shape in ((2, 6, 5, 7), (3, 65, 3, 2), (2, 33, 1, 1037)):
        x, dy = data(shape, "float32", mean, std), data(shape, seed=1)
        weight, bias = parameters(shape[1])
        for kind in ("batch", "instance"):
            norm = ChannelNorm(kind)
            if kind == "instance" or x[:, 0].size > 1:
                y = norm.forward(x, weight=weight, bias=bias)
                gradients = norm.backward(dy, x, weight=weight, bias=bias)
                views = {
                    "reversed memory": lambda a: np.ascontiguousarray(a[::-1, ::-1, ::-1, ::-1])[
                        ::-1, ::-1, ::-1, ::-1
                    ],
                    "every second": lambda a: np.repeat(np.repeat(a, 2, 1), 2, 3)[:, ::2, :, ::2],
                    "H and W exchanged": lambda a: np.ascontiguousarray(a.swapaxes(2, 3)).swapaxes(2, 3),
                    "channels last": lambda a: np.moveaxis(last(a), -1, 1),
                    "batch last": lambda a: np.moveaxis(np.ascontiguousarray(np.moveaxis(a, 0, -1)), -1, 0),
                }
                for name, view in views.items():
                    checks.assert_same_bits(
                        norm.forward(view(x), weight=weight, bias=bias), y, f"{kind} {name}"
                    )
                    found = norm.backward(view(dy), view(x), weight=weight, bias=bias)
                    for actual, wanted in zip(found, gradients, strict=True):
                        checks.assert_same_bits(actual, wanted, f"{kind} {name}: a gradient")


@every_kind
def test_trt_samples_88_difference_of_squares(kind):
    """trt-samples#88: E[x^2] - E[x]^2 gave NaN where only one value differs. eps = 0."""
    x = np.full((3, 10, 7, 7), 3000.1, np.float32)
    x[:, :, 2, 5] += 0.25
    x[1, 4, 0, 0] -= 0.5
    y = check(ChannelNorm(kind, 10), x, eps=0.0)
    assert not np.isnan(y).any()
    z = nk.z_score(x, (0, 2, 3) if kind == "batch" else (2, 3))
    assert not np.isnan(z).any() and np.abs(z).max() > 3


@every_kind
@pytest.mark.parametrize("dtype, scale", (("float32", 1e30), ("bfloat16", 1e38), ("float64", 1e300)))
def test_pytorch_162489_squares_overflow(kind, dtype, scale):
    """pytorch#162489: values whose squares overflow gave zeros on the CPU, NaN on the GPU."""
    x = data((3, 4, 5, 3), dtype, 0.5, 0.6) * numpy_dtype(dtype).type(scale)
    assert np.isfinite(wide(x)).all()
    y = check(ChannelNorm(kind, 2), x, backward=False)
    assert np.abs(wide(y)).max() > 1


@pytest.mark.parametrize(
    "dtype, scale", (("float32", 1e30), ("float32", 1e-30), ("float64", 1e300), ("float64", 1e-300))
)
def test_pytorch_162489_squares_overflow_in_vector_norms(dtype, scale):
    """The same for what divides by a norm or a spread: exact scaling aside, the result of ordinary values."""
    x = (data((5, 7), dtype) * numpy_dtype(dtype).type(scale)).astype(numpy_dtype(dtype))
    length = np.sqrt(sum_wide(wide(x) ** 2, 1))
    within_ulps(nk.normalize(x, eps=0.0), wide(x) / length, 5, "normalize")
    g = np.arange(1, 6, dtype=x.dtype)
    within_ulps(nk.weight_norm(x, g), wide(x) / length * wide(g)[:, None], 6, "weight_norm")
    mean, var = moments(x, (0,))
    within_ulps(nk.z_score(x), (wide(x) - mean) / np.sqrt(var), 5, "z_score", absolute=2e-7)
    low, high = wide(x).min(0), wide(x).max(0)
    within_ulps(nk.min_max_scale(x), (wide(x) - low) / (high - low), 4, "min_max_scale")


def test_pytorch_162489_the_whole_range():
    """From -max to max the range itself overflows."""
    top = np.finfo(np.float32).max
    x = np.array([-top, 0, top / 2, top], np.float32)[:, None]
    within_ulps(nk.min_max_scale(x)[:, 0], wide(np.array([0, 0.5, 0.75, 1])), 1, "min_max_scale")
    exact = wide(x[:, 0]) - wide(x[:, 0]).mean()
    within_ulps(nk.z_score(x)[:, 0], exact / np.sqrt((exact**2).mean()), 5, "z_score")
    within_ulps(
        nk.normalize(x, axis=0)[:, 0], wide(x[:, 0]) / np.sqrt((wide(x[:, 0]) ** 2).sum()), 5, "normalize"
    )


@pytest.mark.parametrize("dtype", ("bfloat16", "float16"))
def test_pytorch_77507_and_executorch_7846_group_norm_of_16_bits(dtype):
    """pytorch#77507: moments summed in bfloat16; executorch#7846: half GroupNorm needed 20 % tolerance."""
    for shape, groups in (((2, 30, 7, 7), 10), ((1, 6, 33, 65), 2), ((3, 65, 5), 13), ((1, 8, 4100), 1)):
        for mean in (0, 3, -100):
            check(ChannelNorm("group", groups), data(shape, dtype, mean, 1))


@pytest.mark.parametrize("dtype", ("bfloat16", "float16", "float32", "float64"))
def test_pytorch_189581_the_default_eps_of_a_pattern(dtype):
    """pytorch#189581: the default eps was the element type's epsilon, 0.0078; of norm it is 1e-5 for all."""
    x = (data((3, 10, 7), dtype) * numpy_dtype(dtype).type(2.0**-6)).astype(numpy_dtype(dtype))
    for kind, axes in (("standard", (1, 2)), ("rms", (1, 2))):
        exact = standardize(x, Case(x.shape, (), axes, (1,)), 1e-5, centred=kind == "standard").xhat
        checks.assert_normalized("norm", nk.norm(x, "b [c t]", kind=kind), exact, f"{kind} {dtype}")


def test_nntrainer_3935_squares_of_float16():
    """nntrainer#3935, LeetCUDA#335, tiny-llm#18: a float16 sum of squares became infinite, the result 0."""
    x = (data((3, 6, 35)) * 20000).clip(-65504, 65504).astype(np.float16)
    for kind in ("batch", "instance", "group", "norm"):
        check(ChannelNorm(kind, 2), x, backward=False)
    for axis in (0, 1, 2):
        length = np.sqrt(sum_wide(wide(x) ** 2, axis))
        within_ulps(nk.normalize(x, axis=axis), wide(x) / length, 1, "normalize")
        mean, var = moments(x, (axis,))
        within_ulps(nk.z_score(x, axis), (wide(x) - mean) / np.sqrt(var), 1, "z_score", absolute=1e-6)
    g = data((6,), "float16", 2, 0.25)
    length = np.sqrt(sum_wide(wide(x) ** 2, (0, 2)))
    within_ulps(nk.weight_norm(x, g, 1), wide(x) / length * wide(g)[:, None], 1, "weight_norm")
    style = data((3, 6, 11), "float16", 5, 2)
    (mean, var), (style_mean, style_var) = moments(x, (2,)), moments(style, (2,))
    exact = (wide(x) - mean) / np.sqrt(var + WIDE(1e-5)) * np.sqrt(style_var + WIDE(1e-5)) + style_mean
    within_ulps(nk.adaptive_instance_norm(x, style), exact, 1, "adaptive", absolute=1e-5)
    logits = np.array([0.5, -1, 2], np.float32), np.array([1, 0.25, -0.5], np.float32)
    within_ulps(nk.switchable_norm(x, *logits), switchable(x, *logits), 1, "switchable", absolute=1e-6)


def switchable(x, mean_logits, var_logits, eps=1e-5):
    parts = [moments(x, axes) for axes in ((2,), (1, 2), (0, 2))]
    mixed = []
    for k, logits in enumerate((mean_logits, var_logits)):
        share = np.exp(wide(logits) - wide(logits).max())
        mixed.append(sum(s * part[k] for s, part in zip(share / share.sum(), parts, strict=True)))
    return (wide(x) - mixed[0]) / np.sqrt(mixed[1] + WIDE(eps))


@both_layouts
@pytest.mark.parametrize("dtype", ("float16", "bfloat16"))
def test_keras_22589_rounded_before_it_was_widened(dtype, channel_axis):
    """keras#22589: float32 parameters and statistics were cast to float16 first. Here they count in full."""
    x = data((3, 5, 7), dtype, 300, 2)
    if dtype == "float16":  # differences that a float16 mean or weight loses
        running_mean = np.array([300.1, 299.93, 301.02, 300.3, 299.7], np.float32)
    else:
        running_mean = np.array([300.7, 298.3, 301.4, 300.3, 299.6], np.float32)
    running_var = np.array([4.001, 3.997, 1e5, 1e-3, 70000], np.float32)
    weight, bias = (
        np.array([1.0004, -2.0007, 1e5, 1 / 3, 3e-6], np.float32),
        np.arange(5, dtype=np.float32) / 7,
    )
    place = (slice(None), None)
    standard = (wide(x) - wide(running_mean)[place]) / np.sqrt(wide(running_var)[place] + WIDE(1e-5))
    product = standard * wide(weight)[place]
    exact = product + wide(bias)[place]
    xs = last(x) if channel_axis == -1 else x
    y = nk.batch_norm(xs, running_mean, running_var, weight, bias, channel_axis=channel_axis)
    y = np.moveaxis(y, channel_axis, 1)
    finite = np.abs(exact) < 65504 if dtype == "float16" else np.ones(exact.shape, bool)
    assert finite.mean() > 0.7
    bound = ulp(exact, dtype) / 2 * WIDE(1.01) + 2e-6 * (np.abs(product) + np.abs(exact))
    checks.assert_within(y[finite], exact[finite], bound[finite], "float32 statistics and parameters")


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


@every_kind
def test_onnx_6187_a_negative_eps(kind):
    """onnx#6187: eps = -841 crashed. The formula holds: NaN where the variance is smaller, else a value."""
    x = data((2, 4, 30), std=1)
    x[:, :2] *= 100
    case = ChannelNorm(kind, 2).case(x.shape)
    with np.errstate(invalid="ignore"):
        exact = standardize(x.reshape(case.shape), case, -841.0).xhat
        y = ChannelNorm(kind, 2).forward(x, eps=-841.0).reshape(case.shape)
    assert np.isnan(exact).any() and not np.isnan(exact).all()
    checks.assert_within(y, exact, 4e-6 * np.abs(exact) + 1e-6, "eps -841")


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
    torch = pytest.importorskip("torch", reason="PyTorch is not installed: no autograd to compare with")
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
    """pytorch#98075: one element, a weight of 1e10; onnxruntime#25896: refused. Here y = bias, dx = 0."""
    x, dy = data(shape, dtype, 50, 20), data(shape, dtype, seed=1)
    huge = np.full(shape[1], 6e4 if dtype == "float16" else 1e10, x.dtype)
    bias = parameters(shape[1], dtype)[1]
    wanted = np.broadcast_to(bias.reshape(-1, *[1] * (len(shape) - 2)), shape)
    for kind in ("instance", "group", "norm"):
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
    nk.instance_norm(x, *running, momentum=0.25)  # PyTorch refuses
    assert checks.digest(*running) == before, "no unbiased variance: left alone"
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
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
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
