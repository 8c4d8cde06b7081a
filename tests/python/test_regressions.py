"""Bugs of other libraries, each as a short test under the name of its report."""

import checks
import normkit
import numpy as np
import pytest
from reference.families import make, parameters
from reference.operations import LAYER_NORM, OPERATIONS, RMS_NORM, ROW_OPERATIONS
from reference.recipe import values
from reference.wide import DTYPES, numpy_dtype, wide

pytestmark = pytest.mark.compares
every_operation = pytest.mark.parametrize("op", OPERATIONS, ids=str)
every_row_operation = pytest.mark.parametrize("op", ROW_OPERATIONS, ids=str)
every_dtype = pytest.mark.parametrize("dtype", DTYPES)


def check_forward(op, x, eps=1e-5, where=""):
    """[rows, n] against the reference; returns y."""
    case = op.make_case(*x.shape)
    y = op.forward(case.from_sets(x), case, eps=eps)
    checks.assert_normalized(op, y, op.reference(case.from_sets(x), case, eps).xhat, where)
    return y


# Cancellation, overflow, precision


def test_pytorch_51102_mean_2000_gave_a_variance_of_30822():
    rng = np.random.default_rng(0)
    x = (2000 + rng.standard_normal((4, 100_000))).astype(np.float32)
    _, mean, rstd = normkit.layer_norm(x, 100_000, return_stats=True)
    exact = LAYER_NORM.reference(x, LAYER_NORM.make_case(*x.shape), 1e-5)
    checks.assert_within(1 / rstd**2, 1 / exact.rstd**2, 1e-6, "variance")
    checks.assert_within(mean, exact.mean, 1e-7, "mean")


def test_onnxruntime_28463_40000_to_40003_gave_nan():
    y = check_forward(LAYER_NORM, np.array([[40000, 40001, 40002, 40003]], np.float32))
    assert np.abs(y - np.array([-1.3416, -0.4472, 0.4472, 1.3416])).max() < 1e-4


@every_dtype
def test_onnxruntime_21935_all_1234_gave_nan(dtype):
    y = check_forward(LAYER_NORM, np.full((3, 256), 1234.0, numpy_dtype(dtype)))
    assert (wide(y) == 0).all()


def test_mlx_2238_1449_plus_minus_0_7_gave_nan():
    rng = np.random.default_rng(1)
    check_forward(LAYER_NORM, (1449 + rng.uniform(-0.7, 0.7, (5, 1024))).astype(np.float32))


def test_trt_samples_88_difference_of_squares_gave_nan():
    x = np.full((2, 768), 3000.1, np.float32)
    x[:, 5] += 0.25
    y = check_forward(LAYER_NORM, x, eps=0.0)
    assert not np.isnan(y).any()


@every_operation
def test_pytorch_162489_1e30_gave_zeros_or_nan(op):
    x = (np.array([[1, 2, 3, -4]], np.float32) * np.float32(1e30)).repeat(3, axis=0)
    y = check_forward(op, x)
    assert np.abs(y).max() > 1
    check_forward(op, np.full((2, 8), 3e38, np.float32) * np.array([1, -1] * 4, np.float32))


def test_pytorch_189581_rms_norm_default_eps_of_bfloat16():
    """finfo(bfloat16).eps, 0.0078, changed results 1.7 fold; the default is float32's for 16-bit types."""
    for dtype in ("float16", "bfloat16"):
        x = values((3, 64), dtype, "plain", 1)
        x = (x.astype(np.float32) * 2.0**-6).astype(x.dtype)
        case = RMS_NORM.make_case(3, 64)
        y = RMS_NORM.forward(x, case)
        checks.assert_normalized(RMS_NORM, y, RMS_NORM.reference(x, case, 2.0**-23).xhat, "default eps")


@every_operation
def test_nntrainer_3935_float16_squares_overflowed(op):
    check_forward(op, (np.array([[300, -400, 500, 60000]] * 2)).astype(np.float16))
    check_forward(op, (make("normal", 3, 1000, "float32") * 1000).astype(np.float16))


def test_pytorch_98075_one_element_with_a_huge_weight():
    """n = 1: xhat is 0, so y = bias, also with a weight of 1e10."""
    x = np.array([[3.7], [-1e5], [1e-3]], np.float32)
    weight, bias = np.array([1e10], np.float32), np.array([0.3], np.float32)
    y = normkit.layer_norm(x, 1, weight, bias)
    checks.assert_same_bits(y, np.full((3, 1), 0.3, np.float32), "y")
    dx, dweight, dbias = normkit.layer_norm_backward(np.ones_like(x), x, 1, weight, bias)
    checks.assert_same_bits(np.abs(dx), np.zeros_like(x), "dx")
    assert dweight[0] == 0 and dbias[0] == 3


def test_rms_norm_subtracts_nothing():
    """RMSNorm subtracts nothing: a constant row becomes 1."""
    y = normkit.rms_norm(np.full((2, 100), -250.0, np.float32), 100, eps=0.0)
    checks.assert_same_bits(y, np.full((2, 100), -1.0, np.float32), "a constant row")


# Eps


@every_operation
@pytest.mark.parametrize("eps", (1e-12, 1e-5, 1e-3, 0.25, 10.0))
def test_cntk_3816_eps_outside_the_root_and_llama_cpp_2373_hard_coded(op, eps):
    """1 / sqrt(var + eps), with the eps that was given, also where it dominates."""
    for scale in (1e-4, 1e-2, 1.0):
        check_forward(
            op, (make("normal", 3, 100, "float64") * scale).astype(np.float32), eps, f"scale {scale}"
        )


@every_row_operation
def test_tim_vx_589_eps_read_with_another_type(op):
    x = np.zeros((2, 5), np.float32)
    for eps in (1e-5, np.float64(1e-5), np.float32(1e-5), 1, np.int64(2)):
        case = op.make_case(2, 5)
        y, *statistics = op.forward(x, case, eps=eps, return_stats=True)
        assert not np.isnan(y).any()
        expected = np.full((2, 1), 1 / np.sqrt(float(eps)))
        checks.assert_same_bits(statistics[-1], expected, "rstd of zeros is 1 / sqrt(eps)")


@every_row_operation
def test_llama_cpp_1925_applied_twice(op):
    """Normalizing twice hides in tests of idempotent data; with a weight it does not."""
    case = op.make_case(2, 6)
    x = make("lognormal(3)", 2, 6, "float32")
    weight, bias = parameters((6,), "float32")
    once = op.forward(x, case, weight=weight, bias=bias, eps=1e-5)
    twice = op.forward(once, case, weight=weight, bias=bias, eps=1e-5)
    assert np.abs(once - twice).max() > 0.1
    checks.assert_affine(op, once, op.reference(x, case, 1e-5), case, weight, bias, "once")


# Shape, stride, layout, tail


@every_row_operation
def test_onnxruntime_18967_no_bias(op):
    case = op.make_case(3, 33)
    x = make("normal", 3, 33, "float32")
    weight, _ = parameters((33,), "float32")
    y = op.forward(x, case, weight=weight, bias=None, eps=1e-5)
    zero = op.forward(x, case, weight=weight, bias=np.zeros(33, np.float32), eps=1e-5)
    checks.assert_same_bits(y + 0.0, zero + 0.0, "no bias is a bias of zero")


@every_row_operation
def test_onnxruntime_25896_norm_size_1(op):
    for rows in (1, 5, 70):
        check_forward(op, make("normal", rows, 1, "float32"), where=f"{rows} rows of 1")


@every_row_operation
def test_onnxruntime_26407_axis_minus_1(op):
    x = values((4, 5, 6), "float32", "plain", 1)
    function = getattr(normkit, op.name)
    checks.assert_same_bits(function(x, 6, axis=-1), function(x, 6), "axis=-1")
    checks.assert_same_bits(function(x, (5, 6), axis=(-2, -1)), function(x, (5, 6)), "axis=(-2, -1)")


@every_row_operation
def test_tensorflow_46366_shape_1_0_10(op):
    y = getattr(normkit, op.name)(np.zeros((1, 0, 10), np.float32), 10)
    assert y.shape == (1, 0, 10)
    checks.COUNT.values += 1


@every_row_operation
def test_flaggems_5392_backward_of_rank_3(op):
    flat, dy = (values((2 * 3 * 4, 7), "float32", "spread", s) for s in (1, 2))
    weight, bias = (values((7,), "float32", "plain", s) for s in (3, 4))
    forward_name = op.name + "_backward"
    expected = getattr(normkit, forward_name)(dy, flat, 7, weight=weight, bias=bias)
    shaped = getattr(normkit, forward_name)(
        dy.reshape(2, 3, 4, 7), flat.reshape(2, 3, 4, 7), 7, weight=weight, bias=bias
    )
    checks.assert_same_bits(shaped[0].reshape(24, 7), expected[0], "dx")
    for k in (1, 2):
        checks.assert_same_bits(shaped[k], expected[k], "a parameter's gradient")


@pytest.mark.parametrize("n", (1, 2, 3, 5, 17, 31, 33, 63, 65, 100, 127, 129, 1023, 1025))
def test_liger_518_masked_lanes_added_the_squared_mean(n):
    """Lanes beyond the row's end add nothing to the variance, however large the mean."""
    x = np.full((2, n), 1000.0, np.float32)
    x[:, 0] += 1
    _, mean, rstd = normkit.layer_norm(x, n, eps=0.0, return_stats=True)
    variance = (n - 1) / n**2
    checks.assert_within(mean, wide(np.full((2, 1), 1000 + 1 / n)), 1e-6, "mean")
    if n > 1:
        checks.assert_within(rstd, wide(np.full((2, 1), variance**-0.5)), 1e-6 * variance**-0.5, "rstd")


@every_row_operation
@pytest.mark.parametrize("n", range(1, 130))
def test_vsag_1926_the_tail_computed_another_formula(op, n):
    """Every element of a row of equal magnitudes gets the same result, wherever in the vector it lies."""
    x = np.where(np.arange(n) % 2, -3.0, 3.0).astype(np.float32)[None]
    case = op.make_case(1, n)
    y = op.forward(x, case, eps=1e-5)
    for sign in (0, 1):
        part = y[0, sign::2]
        checks.assert_same_bits(part, np.full_like(part, part[0] if len(part) else 0), f"n={n}")


@every_row_operation
def test_lightllm_1467_the_stride_was_dropped_in_the_second_pass(op):
    memory = np.full((4, 300), 1e9, np.float32)
    x = memory[:, 50:150:2]
    x[...] = make("mean 1e3 std 1", 4, 50, "float32")
    case = op.make_case(4, 50)
    checks.assert_same_bits(op.forward(x, case), op.forward(x.copy(), case), "a strided view")


@every_row_operation
def test_vllm_28103_rows_of_a_qkv_split(op):
    qkv = values((10, 3, 64), "float32", "spread", 1)
    case = op.make_case(10, 64)
    for k in range(3):
        part = qkv[:, k]
        checks.assert_same_bits(op.forward(part, case), op.forward(part.copy(), case), f"part {k}")
    before = qkv.copy()
    op.forward(qkv[:, 1], case, out=qkv[:, 1])
    checks.assert_same_bits(qkv[:, ::2], before[:, ::2], "the neighbours of a part normalized in place")


@every_row_operation
def test_flashinfer_634_rows_that_are_not_aligned(op):
    memory = values((7 * 3585,), "float32", "plain", 1)
    x = np.lib.stride_tricks.as_strided(memory[1:], (6, 3584), (3585 * 4, 4))
    case = op.make_case(6, 3584)
    checks.assert_same_bits(op.forward(x, case), op.forward(x.copy(), case), "rows at odd addresses")


@every_row_operation
def test_llama_cpp_27798_a_broadcast_weight(op):
    case = op.make_case(3, 40)
    x, number = values((3, 40), "float32", "plain", 1), np.array([1.5], np.float32)
    view = np.broadcast_to(number, 40)
    checks.assert_same_bits(
        op.forward(x, case, weight=view), op.forward(x, case, weight=view.copy()), "weight"
    )


def test_pytorch_102922_float64_with_a_float32_weight():
    """Refused, in words about the argument at hand (theirs spoke of BFloat16)."""
    x, weight = np.ones((2, 3)), np.ones(3, np.float32)
    with pytest.raises(TypeError, match=r"weight.*float32.*float64") as caught:
        normkit.layer_norm(x, 3, weight)
    assert "bfloat16" not in str(caught.value).lower()
    checks.COUNT.values += 1


# Sizes


@every_row_operation
@pytest.mark.parametrize("rows", (65535, 65536, 65537, 200_001))
def test_apex_411_more_than_65535_rows(op, rows):
    x = np.resize(values((1009, 3), "float32", "plain", 1), (rows, 3))
    case, few = op.make_case(rows, 3), op.make_case(1009, 3)
    y, first = op.forward(x, case, eps=1e-5), op.forward(x[:1009], few, eps=1e-5)
    checks.assert_same_bits(y, np.resize(first, (rows, 3)), f"{rows} rows")
    ones = np.ones(3, np.float32)
    dbias = op.backward(np.ones_like(x), x, case, weight=ones, bias=ones, eps=1e-5)[2]
    checks.assert_same_bits(dbias, np.full(3, rows, np.float32), "dbias")


# Aliasing, memory, threads


def test_pytorch_bfloat16_dbias_stopped_at_256():
    """8192 rows of bfloat16 ones: PyTorch 2.13 gives 256 on one thread and 512 on two."""
    one = numpy_dtype("bfloat16").type(1)
    dy, weight = np.full((8192, 7), one), np.full(7, one)
    x = values((8192, 7), "bfloat16", "plain", 1)
    for threads in (1, 2):
        with normkit.num_threads(threads):
            dbias = normkit.layer_norm_backward(dy, x, 7, weight, weight)[2]
        checks.assert_same_bits(dbias, np.full(7, 8192, dbias.dtype), f"{threads} threads")


@every_operation
def test_llama_cpp_24305_and_liger_1305_backward_in_place(op):
    """dx may take dy's place; neither dweight nor a second look at dy is spoiled by it."""
    case = op.make_case(70, 33)
    x, dy = (case.from_sets(values((70, 33), "float32", "spread", s)) for s in (1, 2))
    weight, bias = (values(case.parameter_shape, "float32", "plain", s) for s in (3, 4))
    expected = op.backward(dy, x, case, weight=weight, bias=bias)
    work = dy.copy()
    actual = op.backward(work, x, case, weight=weight, bias=bias, dx_out=work)
    for k in range(3):
        checks.assert_same_bits(actual[k], expected[k], f"gradient {k}")


@every_row_operation
def test_nano_vllm_170_the_input_was_changed(op):
    x = values((9, 100), "float32", "spread", 1)
    before = x.copy()
    y = op.forward(x, op.make_case(9, 100))
    checks.assert_same_bits(x, before, "x")
    assert not np.shares_memory(x, y)


@every_row_operation
def test_executorch_17503_memory_that_was_not_zeroed(op):
    """Fresh results do not depend on what the memory held before."""
    case = op.make_case(70, 33)
    x = values((70, 33), "float32", "spread", 1)
    weight, bias = (values((33,), "float32", "plain", s) for s in (3, 4))
    expected = None
    for garbage in (0.0, np.nan, 1e38):
        junk = [np.full(shape, garbage, np.float32) for shape in ((70, 33), (33,), (33,), (70, 1))]
        outs = [np.full(shape, garbage, np.float32) for shape in ((70, 33), (33,), (33,))]
        del junk
        op.backward(x, x, case, weight=weight, bias=bias, dx_out=outs[0], grads_out=tuple(outs[1:]))
        digest = checks.digest(*outs)
        expected = expected or digest
        assert digest == expected


@every_operation
@every_dtype
def test_nan_and_infinity_stay_in_their_row(op, dtype):
    """A set with a NaN or an infinity gives NaN (the canonical one); its neighbours' bits do not change."""
    for n in (max(1, op.smallest), 5, 40, 1030):
        sets = values((7, n), dtype, "spread", 1)
        case = op.make_case(7, n)
        clean = case.from_sets(sets)
        expected = op.forward(clean, case, eps=1e-5)
        dx_expected = op.backward(clean, clean, case, eps=1e-5)[0]
        for bad in (np.nan, np.inf, -np.inf):
            spoilt = sets.copy()
            spoilt[3, n // 2] = bad
            x = case.from_sets(spoilt)
            with np.errstate(invalid="ignore"):
                y = op.forward(x, case, eps=1e-5)
                dx = op.backward(clean, x, case, eps=1e-5)[0]
            for result, wanted in ((y, expected), (dx, dx_expected)):
                others = [np.delete(case.to_sets(array), 3, 0) for array in (result, wanted)]
                checks.assert_same_bits(*others, f"{bad}: neighbours")
            row = case.to_sets(y)[3]
            nan = np.isnan(wide(row))
            # Without a mean, an infinity makes rstd 0: finite values times 0 are 0, the infinity is NaN.
            expected_nan = np.ones(n, bool) if op.centred or np.isnan(bad) else np.isinf(wide(spoilt[3]))
            assert (nan == expected_nan).all(), f"{bad}: {row}"
            assert (wide(row)[~nan] == 0).all()
            bits = row[nan].view(f"u{y.itemsize}")
            canonical = np.array(np.nan).astype(y.dtype).view(f"u{y.itemsize}")
            assert (bits == canonical).all(), f"not the canonical NaN: {bits[0]:#x}"


@every_operation
def test_signed_zeros(op):
    """-0 and +0 in x: the same result but for the sign of zero."""
    x = np.array([[0.0, -0.0, 1.0, -1.0], [0.0, 0.0, 0.0, -0.0]], np.float32)
    y = check_forward(op, x)
    assert not np.isnan(y).any()
