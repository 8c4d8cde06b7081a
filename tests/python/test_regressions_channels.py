"""Bugs of other libraries in batch, instance, group norm and their kin: cancellation, overflow, precision."""

# The reports that these tests guard against, and where; a number stands for the first report in its place.
# C: this file; D, L, M: ..._channels_degenerate.py, ..._layouts.py, ..._memory.py; "=": in its test;
# -: does not apply, and why. Layer and RMS norm have most of them too, in test_regressions.py.
#
#  1 pytorch#51102 C      2 onnxruntime#28463 C  3 onnxruntime#21935 C  4 mlx#2238 C
#  5 tt-metal#45968 C     6 burn#5607 C          7 trt-samples#88 C     8 dlib#3113 C =5
#  9 CNTK#3816 D         10 pytorch#162489 C    11 pytorch#77507 C     12 pytorch#189581 C
# 13 nntrainer#3935 C    14 keras#22589 C       15 tt-metal#47791 - (of a residual sum)
# 16 executorch#7846 C =11                      17 pytorch#98075 D     18 TIM-VX#589 D
# 19 llama.cpp#2373 D =9 20 llama.cpp#20350 D   21 keras#23075 D       22 Flux#1992 D
# 23 mlx#3817 D
# 24 TF#46996, 25 caffe#1864, 26 Paddle#9094, 27 onnx#7805, 28 mxnet#11281, 29 MIOpen#2341 - (of
#    LocalResponseNorm, which has tests of its own, and those of test_onnx.py)
# 30 Liger#74 - (weight_offset is rms_norm's)   31 llama.cpp#15507 L   32 llama.cpp#1925 L
# 33 onnxruntime#12917 M =78                    34 onnxruntime#18967 L 35 onnxruntime#25896 D =17
# 36 onnxruntime#26407 L                        37 onnxruntime#17014 - (of a residual sum)
# 38 TF#46366 L          39 onnx#6187 D         40 Liger#1375 L =41    41 FlagGems#5392 L
# 42 mamba#547 L =31     43 Liger#518 L         44 vsag#1926 L         45 LightLLM#1467 L
# 46 vllm#28103 L        47 pytorch#63224 L     48 pytorch#64039 L     49 pytorch#107199 L =48
# 50 pytorch#115940 L    51 pytorch#175189 L    52 pytorch#62594 L =47 53 flashinfer#634 L
# 54 vllm-xpu-kernels#573 L                     55 llama.cpp#27798 L   56 pytorch#102922 M
# 57 apex#411 M          58 cunn#298 M =57
# 59 apex#1845, 60 Paddle#79528, 61 onnxruntime#17014 - (of more than 2^31 elements: no quick test; sizes are
#    int64 everywhere)
# 62 pytorch#189828 M    63 apex#1768 M         64 llama.cpp#24305 M   65 nano-vllm#170 M
# 66 Liger#1305 M =64    67 executorch#17503 M  68 TileOPs#1727 M      69 Paddle#56100 M
# 70 fla#1249 M          71 dlib#3001 M =69     72 llama.cpp#190 - (thread counts: test_faults.py)
# 73 FlagGems#59 M       74 pytorch#22192 M     75 pytorch#36688 M     76 pytorch#36530 M =74
# 77 apex#262 M =74      78 CVE-2021-29583 M    79 CVE-2021-41223 M
# 80 CVE-2021-29548, CVE-2021-29547 L =38       81 TF#58999 L =38, M =79

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
    switchable,
    within_ulps,
)
from reference.operations import Case, standardize
from reference.wide import WIDE, centre, numpy_dtype, sum_wide, ulp, wide

pytestmark = pytest.mark.compares


@every_kind
@pytest.mark.parametrize("mean, std", ((2000, 1), (4000, 1), (1e4, 0.01), (-1e6, 1)))
def test_pytorch_51102_a_large_mean(kind, mean, std):
    """pytorch#51102: at mean 2000 the variance came out as 30822; channels last at mean 4000 no better."""
    for shape, groups in (((2, 6, 49), 3), ((1, 65, 7, 7), 5), ((3, 4, 1031), 1)):
        check(ChannelNorm(kind, groups), data(shape, "float32", mean, std))
    check(ChannelNorm(kind, 2), data((3, 4, 7, 5), "float64", mean, std))


@every_dtype
@pytest.mark.parametrize("mean, std", ((2000, 1), (1e4, 0.01), (3, 1e-3)))
def test_pytorch_51102_a_large_mean_in_mixtures(dtype, mean, std):
    """The same of switchable norm, of adaptive norm and of standard scores."""
    ulps = 5 if dtype in ("float32", "float64") else 1
    small = 1e-15 if dtype == "float64" else 1e-6
    for shape in ((3, 5, 37), (1, 65, 49)):
        x = data(shape, dtype, mean, std)
        logits = data((3,), dtype, seed=1), data((3,), dtype, seed=2)
        exact = switchable(x, *logits)
        within_ulps(nk.switchable_norm(x, *logits), exact, ulps, f"switchable {shape}", absolute=small)
        for axes in ((2,), (0, 2)):
            d, hi, _ = centre(wide(x), axes)
            var = sum_wide(d * d, axes) / (d.size // hi.size)
            exact = np.where(var > 0, d / np.sqrt(np.where(var > 0, var, 1)), 0)
            within_ulps(nk.z_score(x, axes), exact, ulps, f"z_score {shape}", absolute=small)
        style = data((*shape[:2], 11), dtype, 0.5, 2, seed=3)
        d, hi, _ = centre(wide(x), (2,))
        rstd = 1 / np.sqrt(sum_wide(d * d, (2,)) / shape[2] + WIDE(1e-5))
        style_mean, style_var = moments(style, (2,))
        scaled = d * rstd * np.sqrt(style_var + WIDE(1e-5))
        size = (np.abs(scaled) + np.abs(style_mean)) * (
            8 * WIDE(2.0**-53 if dtype == "float64" else 2.0**-24)
        )
        bound = size + small + ulp(scaled + style_mean, dtype) * (0.5 if ulps == 1 else 0)
        y = nk.adaptive_instance_norm(x, style)
        checks.assert_within(y, scaled + style_mean, bound, f"adaptive {shape}")


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


@every_kind
@pytest.mark.parametrize("dtype, scale", (("float32", 1e-20), ("bfloat16", 1e-30), ("float64", 1e-300)))
def test_pytorch_162489_squares_underflow(kind, dtype, scale):
    """The other end of pytorch#162489: squares that are subnormal or 0, with eps = 0."""
    for shape, groups in (((3, 65, 5), 13), ((4, 2, 35), 1)):
        x = data(shape, dtype, 0.5, 0.6) * numpy_dtype(dtype).type(scale)
        y = check(ChannelNorm(kind, groups), x, eps=0.0, backward=dtype == "float32")
        assert np.abs(wide(y)).max() > 1


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


LARGE = 1e160  # whose square a double cannot hold


@pytest.mark.parametrize("scale, eps", ((LARGE, 1e-5), (1 / LARGE, 0.0)))
def test_pytorch_162489_switchable_norm_of_large_doubles(scale, eps):
    """Forward was 0 (infinite for small values), backward NaN: variances passed from phase to phase."""
    x, logits = data((3, 5, 37), "float64"), (data((3,), "float64"), data((3,), "float64", seed=1))
    y = nk.switchable_norm(x * scale, *logits, eps=eps)
    within_ulps(y, switchable(x, *logits, 0.0), 5, "y", absolute=1e-14)
    dx = nk.switchable_norm_backward(x, x * scale, *logits, eps=eps)[0]
    assert np.isfinite(dx).all()


def test_pytorch_162489_adaptive_norm_of_large_doubles():
    """Was infinite, although every result is an ordinary number."""
    x, style = data((3, 5, 37), "float64"), data((3, 5, 11), "float64", 0.5, 2, seed=3)
    (mean, var), (style_mean, style_var) = moments(x, (2,)), moments(style, (2,))
    exact = (wide(x) - mean) / np.sqrt(var + WIDE(1e-5)) * np.sqrt(style_var) + style_mean
    y = nk.adaptive_instance_norm(x, style * LARGE)
    checks.assert_within(y, exact * WIDE(LARGE), 1e-14 * WIDE(LARGE), "y")


@pytest.mark.parametrize("p", (1.0, 3.0))
def test_pytorch_162489_normalize_of_the_largest_doubles(p):
    """A norm beyond the largest double gives zeros; p = 2 is right."""
    x = np.array([[1.7e308, -1.7e308, 1e308]])
    size = np.abs(wide(x) / WIDE(1e308))
    exact = wide(x) / WIDE(1e308) / sum_wide(size ** int(p), 1) ** (1 / WIDE(p))
    within_ulps(nk.normalize(x, p), exact, 5, f"p {p}")


@pytest.mark.parametrize("p", (0.5, 1.0, 3.0, np.inf))
def test_pytorch_162489_normalize_of_subnormal_doubles(p):
    """1 / N overflows: infinities, and NaN where x is 0; p = 2 is right."""
    y = nk.normalize(np.array([[3e-309, 0.0], [0.0, -5e-324]]), p, eps=0.0)
    within_ulps(y, wide(np.array([[1.0, 0.0], [0.0, -1.0]])), 4, f"p {p}")


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
