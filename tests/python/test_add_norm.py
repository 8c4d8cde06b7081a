"""add_layer_norm, add_rms_norm: bit for bit the sum, then the norm; their gradients; aliasing; bad input."""

import checks
import normkit as nk
import numpy as np
import pytest
from instruction_sets import every_instruction_set, printed
from reference.operations import LAYER_NORM, RMS_NORM, Operation
from reference.recipe import values
from reference.wide import COMPUTE, DTYPES, numpy_dtype
from test_layouts import HOW, strided

pytestmark = pytest.mark.compares
every_dtype = pytest.mark.parametrize("dtype", DTYPES)
every_operation = pytest.mark.parametrize("op", (LAYER_NORM, RMS_NORM), ids=str)
SHAPES = ((1, 1), (3, 5), (9, 64), (70, 33), (5, 768), (2, 1025), (3, 4100))
EPS = 1e-5


def problem(case, dtype, kind="spread"):
    """(x, residual, dy, dsum), (weight, bias, residual_bias)"""
    kinds = (kind, kind, "plain", "plain")
    arrays = [values(case.shape, dtype, k, seed) for seed, k in enumerate(kinds, 1)]
    return arrays, [values(case.parameter_shape, dtype, "plain", seed) for seed in (5, 6, 7)]


def computing(array):
    """In the type that is computed in, exactly."""
    return None if array is None else array.astype(numpy_dtype(COMPUTE[checks.dtype_name(array)]))


def unrounded_sum(x, residual, residual_bias, case):
    with np.errstate(over="ignore", invalid="ignore"):
        total = computing(x) + computing(residual)
        return total if residual_bias is None else total + case.spread(computing(residual_bias))


def fused(op: Operation, x, residual, case, **keywords):
    return getattr(nk, f"add_{op}")(x, residual, *case.arguments, **case.options, eps=EPS, **keywords)


def fused_backward(op: Operation, dy, dsum, summed, case, **keywords):
    function = getattr(nk, f"add_{op}_backward")
    return function(dy, dsum, summed, *case.arguments, **case.options, eps=EPS, **keywords)


def options_of(op):
    return ({}, {"weight_offset": 1.0}) if op is RMS_NORM else ({},)


@every_dtype
@every_operation
def test_fused_equals_unfused(op, dtype):
    for make_case in (op.make_case, *op.layouts.values()):
        for kind in ("spread", "offset", "huge", "tiny"):
            for shape in SHAPES:
                case = make_case(*shape)
                (x, residual, _, _), (weight, bias, residual_bias) = problem(case, dtype, kind)
                for bias_of_sum in (None, residual_bias):
                    total = unrounded_sum(x, residual, bias_of_sum, case).astype(x.dtype)
                    for parameters in ({}, {"weight": weight, "bias": bias, **options_of(op)[-1]}):
                        plain = op.forward(total, case, eps=EPS, return_stats=True, **parameters)
                        keywords = parameters | {"residual_bias": bias_of_sum, "return_stats": True}
                        y, sum_, *statistics = fused(op, x, residual, case, **keywords)
                        where = f"{case.shape} {kind}"
                        checks.assert_same_bits(sum_, total, f"sum {where}")
                        checks.assert_same_bits(y, plain[0], f"y {where}")
                        for a, b in zip(statistics, plain[1:], strict=True):
                            checks.assert_same_bits(a, b, f"statistics {where}")


@every_dtype
@every_operation
def test_unrounded(op, dtype):
    """sum_precision="f32": the norm of the sum in the computing type, rounded once."""
    for make_case in (op.make_case, *op.layouts.values()):
        for kind in ("spread", "huge", "tiny"):
            for shape in SHAPES:
                case = make_case(*shape)
                (x, residual, _, _), (weight, bias, residual_bias) = problem(case, dtype, kind)
                total = unrounded_sum(x, residual, residual_bias, case)
                wide = {"weight": computing(weight), "bias": computing(bias)}
                plain = op.forward(total, case, eps=EPS, return_stats=True, **wide)
                y, sum_, *statistics = fused(
                    op, x, residual, case, weight=weight, bias=bias, residual_bias=residual_bias,
                    sum_precision="f32", return_stats=True,
                )  # fmt: skip
                with np.errstate(over="ignore"):
                    checks.assert_same_bits(sum_, total.astype(x.dtype), f"sum {case.shape} {kind}")
                    checks.assert_same_bits(y, plain[0].astype(x.dtype), f"y {case.shape} {kind}")
                for a, b in zip(statistics, plain[1:], strict=True):
                    checks.assert_same_bits(a, b, "statistics")


@every_dtype
@every_operation
def test_gradients(op, dtype):
    """dsummed is the norm's dx in the computing type plus dsum, rounded once; the others are the norm's."""
    for make_case in (op.make_case, *op.layouts.values()):
        for kind in ("spread", "huge", "tiny"):
            for shape in SHAPES:
                case = make_case(*shape)
                (summed, _, dy, dsum), (weight, bias, _) = problem(case, dtype, kind)
                saved = op.saved(summed, case, EPS)
                for options in options_of(op):
                    parameters = {"weight": weight, "bias": bias, **options}
                    wide = {"weight": computing(weight), "bias": computing(bias), **options}
                    plain = op.backward(dy, summed, case, eps=EPS, **parameters)
                    dx = op.backward(computing(dy), computing(summed), case, eps=EPS, **wide)[0]
                    with np.errstate(over="ignore", invalid="ignore"):
                        expected = (dx + computing(dsum)).astype(dsum.dtype)
                    for statistics in ({}, saved):
                        result = fused_backward(op, dy, dsum, summed, case, **parameters, **statistics)
                        checks.assert_same_bits(result[0], expected, f"dsummed {case.shape} {kind}")
                        for a, b in zip(result[1:], plain[1:], strict=True):
                            checks.assert_same_bits(a, b, "parameters")
                        without = fused_backward(op, dy, None, summed, case, **parameters, **statistics)
                        for a, b in zip(without, plain, strict=True):
                            checks.assert_same_bits(a, b, "without dsum")


@every_dtype
@every_operation
def test_in_place(op, dtype):
    """Every way to let results lie where inputs are."""
    for shape in ((1, 1), (9, 64), (70, 33), (3, 4100)):
        for make_case in (op.make_case, op.layouts["channels"]):
            case = make_case(*shape)
            (x, residual, dy, dsum), (weight, bias, _) = problem(case, dtype)
            parameters = {"weight": weight, "bias": bias}
            for precision in ("x", "f32"):
                keywords = parameters | {"sum_precision": precision, "activation": "relu"}
                y, sum_ = fused(op, x, residual, case, **keywords)
                for places in (("x", None), ("residual", None), (None, "x"), (None, "residual"),
                               ("x", "residual"), ("residual", "x")):  # fmt: skip
                    copies = {"x": x.copy(), "residual": residual.copy(), None: None}
                    out = tuple(copies[place] for place in places)
                    result = fused(op, copies["x"], copies["residual"], case, **keywords, out=out)
                    assert all(o is None or o is r for o, r in zip(out, result, strict=True))
                    checks.assert_same_bits(result[0], y, f"y {places}")
                    checks.assert_same_bits(result[1], sum_, f"sum {places}")
            expected = fused_backward(op, dy, dsum, x, case, **parameters)
            for place in range(3):
                arrays = [dy.copy(), dsum.copy(), x.copy()]
                result = fused_backward(op, *arrays, case, **parameters, dx_out=arrays[place])
                for a, b in zip(result, expected, strict=True):
                    checks.assert_same_bits(a, b, f"dx_out is input {place}")


@every_dtype
@every_operation
@pytest.mark.parametrize("how", HOW)
def test_strided(op, dtype, how):
    for shape in ((3, 5), (4, 70), (2, 1030)):
        case = op.make_case(*shape)
        (x, residual, dy, dsum), (weight, bias, residual_bias) = problem(case, dtype)
        keywords = {"weight": weight, "bias": bias}
        expected = fused(op, x, residual, case, **keywords, residual_bias=residual_bias)
        gradients = fused_backward(op, dy, dsum, x, case, **keywords)
        views = [strided(array, how) for array in (x, residual, dy, dsum)]
        for arrays in (views, (views[0], residual, dy, views[3]), (x, views[1], views[2], dsum)):
            outs = [strided(np.zeros_like(x), how) for _ in range(3)]
            fused(op, *arrays[:2], case, **keywords, out=outs[:2], residual_bias=residual_bias)
            fused_backward(op, *arrays[2:], arrays[0], case, **keywords, dx_out=outs[2])
            for a, b in zip(outs, (*expected, gradients[0]), strict=True):
                checks.assert_same_bits(a, b, how)


@every_dtype
@every_operation
def test_threads(op, dtype, threads):
    case = op.make_case(700, 768)
    (x, residual, dy, dsum), (weight, bias, _) = problem(case, dtype)
    digests = set()
    for count in (1, 2, 5):
        threads(count)
        results = fused(op, x, residual, case, weight=weight, bias=bias)
        results += fused(op, x, residual, case, weight=weight, sum_precision="f32")
        results += fused_backward(op, dy, dsum, x, case, weight=weight, bias=bias)
        digests.add(checks.digest(*results))
    assert len(digests) == 1


def fingerprints():
    digests = {}
    for op in (LAYER_NORM, RMS_NORM):
        for dtype in DTYPES:
            case = op.make_case(9, 1100)
            (x, residual, dy, dsum), (weight, bias, residual_bias) = problem(case, dtype)
            results = fused(op, x, residual, case, weight=weight, bias=bias, residual_bias=residual_bias)
            results += fused(op, x, residual, case, weight=weight, sum_precision="f32")
            results += fused_backward(op, dy, dsum, x, case, weight=weight, bias=bias)
            digests[f"{op} {dtype}"] = checks.digest(*results)
    return digests


@every_instruction_set
def test_every_instruction_set(isa):
    assert printed(isa, "import test_add_norm as t; print(t.fingerprints())") == str(fingerprints())


@every_operation
def test_special_sums(op):
    """Infinities that cancel, NaN and overflow stay in their own row; a sum of -0 and -0 is -0."""
    x = np.ones((5, 40), np.float16)
    residual = np.ones((5, 40), np.float16)
    x[1, 3], residual[1, 3] = np.inf, -np.inf
    x[2, 5] = np.copysign(np.float16("nan"), np.float16(-1))
    x[3, 7], residual[3, 7] = 6e4, 6e4
    x[4], residual[4] = -0.0, -0.0
    y, sum_ = getattr(nk, f"add_{op}")(x, residual, 40)
    assert np.isnan(sum_[1, 3]) and np.isnan(sum_[2, 5]) and sum_[3, 7] == np.inf
    checks.assert_same_bits(sum_[1:3, [3, 5]].diagonal(), np.full(2, np.nan, np.float16), "canonical NaN")
    checks.assert_same_bits(sum_[4], x[4], "-0")
    assert np.isnan(y[1:3]).all() and np.isnan(y[3, 7]) and not np.isnan(y[[0, 4]]).any()


@every_operation
def test_empty(op):
    for shape in ((0, 5), (3, 0)):
        x = np.zeros(shape, np.float32)
        y, sum_, *statistics = getattr(nk, f"add_{op}")(x, x, shape[1], return_stats=True)
        assert y.shape == sum_.shape == shape
        assert all(s.shape == (shape[0], 1) and np.isnan(s).all() for s in statistics)
        gradients = getattr(nk, f"add_{op}_backward")(x, x, x, shape[1], np.ones(shape[1], np.float32))
        checks.assert_same_bits(gradients[0], x, "dsummed")
        checks.assert_same_bits(gradients[1], np.zeros(shape[1], np.float32), "dweight")


@every_operation
def test_bad_input(op):
    add, backward = (getattr(nk, f"add_{op}{end}") for end in ("", "_backward"))
    x, residual = (values((6, 8), "float32", "plain", seed) for seed in (1, 2))
    before = x.copy(), residual.copy()
    y, sum_ = np.full_like(x, 7), np.full_like(x, 7)
    other = np.zeros((6, 9), np.float32)
    memory = np.zeros(100, np.float32)
    overlapping = memory[1:49].reshape(6, 8)
    for error, match, keywords in (
        (ValueError, "residual has shape", {"residual": other}),
        (TypeError, "residual has dtype float64", {"residual": residual.astype(np.float64)}),
        (TypeError, "residual is None", {"residual": None}),
        (ValueError, "normalized_shape is", {"normalized_shape": 7}),
        (ValueError, "residual_bias has shape", {"residual_bias": np.zeros(7, np.float32)}),
        (TypeError, "residual_bias has dtype", {"residual_bias": np.zeros(8, np.float64)}),
        (ValueError, "sum_precision is 'f16'; it should be 'x' or 'f32'", {"sum_precision": "f16"}),
        (TypeError, "sum_precision is 3", {"sum_precision": 3}),
        (ValueError, "eps is nan", {"eps": float("nan")}),
        (TypeError, "it should be a pair of arrays", {"out": y}),
        (TypeError, "it should be a pair of arrays", {"out": (y, sum_, y)}),
        (ValueError, r"out\[0\] has shape", {"out": (other, sum_)}),
        (ValueError, r"out\[1\] has shape", {"out": (y, other)}),
        (TypeError, r"out\[1\] has dtype", {"out": (y, sum_.astype(np.float64))}),
        (ValueError, r"out\[.\] shares memory with out\[.\]", {"out": (y, y)}),
        (ValueError, r"out\[.\] shares memory with out\[.\]", {"out": (x, x)}),
        (ValueError, r"out\[1\] shares memory with residual", {"out": (y, memory[:48].reshape(6, 8))}),
        (ValueError, "shares memory", {"weight": sum_[0], "out": (y, sum_)}),
        (ValueError, "activation is 'tanh'", {"activation": "tanh"}),
    ):  # fmt: skip
        arguments = {"x": x, "residual": residual, "normalized_shape": 8, "out": (y, sum_)} | keywords
        if "residual$" in f"{match}$":
            arguments["residual"] = overlapping
        with pytest.raises(error, match=match):
            add(**arguments)
    y.flags.writeable = False
    with pytest.raises(ValueError, match=r"out\[0\] is a read-only"):
        add(x, residual, 8, out=(y, sum_))
    y.flags.writeable = True
    for array in (y, sum_):
        checks.assert_same_bits(array, np.full_like(x, 7), "written")
    for array, old in zip((x, residual), before, strict=True):
        checks.assert_same_bits(array, old, "an input was written")
    for error, match, arguments in (
        (ValueError, "dsum has shape .* like summed", (x, other, x)),
        (TypeError, "dsum has dtype float64; it should have summed's, float32", (x, x.astype(float), x)),
        (ValueError, "dy has shape .* like summed", (other, None, x)),
        (TypeError, "summed is None", (x, None, None)),
    ):
        with pytest.raises(error, match=match):
            backward(*arguments, 8, dx_out=y)
    with pytest.raises(ValueError, match="dx_out shares memory with dsum"):
        backward(x, overlapping, x, 8, dx_out=memory[:48].reshape(6, 8))
    with pytest.raises(ValueError, match="but summed has shape"):
        backward(x, None, x, 7)
    checks.assert_same_bits(y, np.full_like(x, 7), "written by backward")


@every_operation
def test_frameworks(op):
    torch = pytest.importorskip("torch")
    x, residual = (torch.from_numpy(values((6, 40), "float32", "plain", seed)) for seed in (1, 2))
    y, sum_ = getattr(nk, f"add_{op}")(x.bfloat16(), residual.bfloat16(), 40)
    assert isinstance(y, torch.Tensor) and y.dtype == sum_.dtype == torch.bfloat16
    checks.assert_same_bits(sum_, x.bfloat16() + residual.bfloat16(), "torch's sum")
    checks.assert_same_bits(y, getattr(nk, str(op))(sum_, 40), "y")
