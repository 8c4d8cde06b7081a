"""activation=: against multiple precision, and bit for bit the norm followed by the activation."""

import checks
import normkit as nk
import numpy as np
import pytest
from instruction_sets import every_instruction_set, printed
from reference.activations import KINDS, activation
from reference.operations import OPERATIONS
from reference.recipe import values
from reference.wide import DTYPES, numpy_dtype, ulp
from test_layouts import HOW, strided

pytestmark = pytest.mark.compares
every_operation = pytest.mark.parametrize("op", OPERATIONS, ids=str)
every_dtype = pytest.mark.parametrize("dtype", DTYPES)
every_kind = pytest.mark.parametrize("kind", KINDS)
EPS = 1e-5
# float64: at most 5 ULP (gelu 4.65, near -13; the others 3.1). Narrower types are computed in double, to
# 2^-34 and better, and rounded once; 16-bit types once to float before, which adds 2^-13 of an ULP at most.
# But silu of these is float arithmetic: half an ULP of float for the last division, one for the denominator,
# the rest for the exponential.
LIMIT = {"float64": 5.0, "float32": 0.501, "float16": 0.501, "bfloat16": 0.501}


def alone(y, kind):
    """The activation of y and nothing else: a norm by mean 0 and rstd 1 changes no bit."""
    shape = (y.size, 1)
    flat = np.ascontiguousarray(y).reshape(shape)
    identity = {"mean": np.zeros(1), "rstd": np.ones(1)}
    return nk.batch_norm(flat, None, None, **identity, activation=kind).reshape(y.shape)


def inputs(dtype):
    rng = np.random.default_rng(5)
    lowest = -760 if dtype == "float64" else -110
    parts = [rng.uniform(lowest, 20, 400), rng.standard_normal(400), rng.uniform(-40, 9, 400)]
    parts += [rng.uniform(-14.5, -4, 400), rng.uniform(-1, 1, 400) * 2.0 ** rng.integers(-30, 1, 400)]
    parts += [[float.fromhex("-0x1.a4d9d48de2715p+3")]]  # the worst seen of gelu in float64
    return np.concatenate(parts).astype(numpy_dtype(dtype))


@every_dtype
@every_kind
def test_accuracy(kind, dtype):
    x = inputs(dtype)
    y, exact = alone(x, kind), activation(kind, x)
    limit = 0.0 if kind == "relu" else 2.0 if (kind, dtype) == ("silu", "float32") else LIMIT[dtype]
    share = checks.assert_within(y, exact, limit * ulp(exact, dtype), f"{kind} {dtype}")
    checks.remember(kind, "activation (ULP)", dtype, share.max() * limit, f"{x[np.argmax(share)]}")


@every_dtype
@every_kind
def test_special_values(kind, dtype):
    x = np.array([np.nan, np.inf, -np.inf, 0.0, -0.0, 3e4, -3e4], numpy_dtype(dtype))
    zero = 0.0 if kind == "relu" else -0.0  # the limit at -infinity
    expected = np.array([np.nan, np.inf, zero, 0.0, -0.0, 3e4, zero], numpy_dtype(dtype))
    expected[0] = np.float32("nan").astype(expected.dtype)
    for n in (1, 3, 16, 33):
        for i, value in enumerate(x):
            y = alone(np.full(n, value, x.dtype), kind)
            checks.assert_same_bits(y, np.full(n, expected[i], x.dtype), f"{kind}({value})")
    negative = np.full(1, np.nan, np.float32)
    negative = np.copysign(negative, np.float32(-1)).astype(x.dtype)  # whatever its sign and payload
    checks.assert_same_bits(alone(negative, kind), expected[:1], "a NaN of another sign")


@every_dtype
@every_kind
@every_operation
def test_fused_equals_unfused(op, kind, dtype):
    """In every layout of x and y, with and without parameters, in place, also out of float's range."""
    for name, make_case in {"": op.make_case, **op.layouts}.items():
        for data in ("spread", "huge"):
            for sets, n in ((1, op.smallest), (6, 35), (36, 70), (2, 2060)):
                case = make_case(sets, n)
                x = case.from_sets(values((sets, n), dtype, data, 1))
                weight, bias = (values(case.parameter_shape, dtype, "plain", seed) for seed in (3, 4))
                for parameters in ({}, {"weight": weight, "bias": bias}):
                    plain = op.forward(x, case, eps=EPS, **parameters)
                    expected = alone(plain, kind)
                    fused = op.forward(x, case, eps=EPS, activation=kind, return_stats=True, **parameters)
                    where = f"{name} {data} {sets}x{n}"
                    checks.assert_same_bits(fused[0], expected, where)
                    assert all(statistic.dtype == np.float64 for statistic in fused[1:])
                    work = x.copy()
                    op.forward(work, case, eps=EPS, activation=kind, out=work, **parameters)
                    checks.assert_same_bits(work, expected, f"in place {where}")


@every_operation
@pytest.mark.parametrize("how", HOW)
def test_strided(op, how):
    case = op.make_case(6, 70)
    for dtype in ("float32", "bfloat16"):
        x = case.from_sets(values((6, 70), dtype, "spread", 1))
        expected = op.forward(x, case, eps=EPS, activation="silu")
        checks.assert_same_bits(op.forward(strided(x, how), case, eps=EPS, activation="silu"), expected, how)
        out = strided(np.zeros_like(x), how)
        op.forward(x, case, eps=EPS, activation="silu", out=out)
        checks.assert_same_bits(out, expected, f"out {how}")


@every_dtype
@pytest.mark.parametrize("name", ("layer_norm", "instance_norm"))
def test_large_outputs_and_threads(name, dtype, threads):
    """Written past the cache, 16 MiB and more, by one thread and by several; rows that start anywhere."""
    op = next(op for op in OPERATIONS if op.name == name)
    n = 4099
    rows = (17 << 20) // (n * numpy_dtype(dtype).itemsize)
    case = op.make_case(rows // 3 * 3, n)
    x = case.from_sets(np.tile(values((3, n), dtype, "spread", 1), (rows // 3, 1)))
    expected = alone(op.forward(x, case, eps=EPS), "silu")
    for count in (1, 3):
        threads(count)
        checks.assert_same_bits(op.forward(x, case, eps=EPS, activation="silu"), expected, f"{count} threads")


@every_dtype
@every_kind
def test_other_operations(kind, dtype):
    x = values((4, 35, 6), dtype, "plain", 1)
    logits = [values((3,), dtype, "plain", seed) for seed in (2, 3)]
    weight, bias = (values((35,), dtype, "plain", seed) for seed in (4, 5))
    style = values((4, 35, 9), dtype, "spread", 6)
    for call in (
        lambda **k: nk.normalize(x, 3.0, **k),
        lambda **k: nk.dynamic_tanh(x, 0.75, weight, bias, axis=1, **k),
        lambda **k: nk.local_response_norm(x, 5, alpha=0.5, **k),
        lambda **k: nk.local_response_norm(x[:, ::3], 5, alpha=0.5, channel_axis=-1, **k),
        lambda **k: nk.local_response_norm(np.moveaxis(x, 1, -1), 5, alpha=0.5, channel_axis=-1, **k),
        lambda **k: nk.switchable_norm(x, *logits, weight, bias, **k),
        lambda **k: nk.adaptive_instance_norm(x, style, **k),
        lambda **k: nk.norm(x, "a [b] c", kind="rms", affine="b", weight=weight, **k),
        lambda **k: nk.instance_norm(x, np.zeros(35), np.full(35, 2.0), weight, use_input_stats=False, **k),
        lambda **k: nk.rms_norm(x, (35,), weight, weight_offset=1.0, axis=1, **k),
    ):
        checks.assert_same_bits(call(activation=kind), alone(call(), kind), kind)
        checks.assert_same_bits(call(activation=None), call(), "None")


def test_running_statistics_are_those_of_x():
    x = values((6, 5, 7), "float32", "spread", 1)
    plain, fused = ([np.zeros(5), np.ones(5)] for _ in range(2))
    nk.batch_norm(x, *plain, training=True)
    nk.batch_norm(x, *fused, training=True, activation="relu")
    for a, b in zip(plain, fused, strict=True):
        checks.assert_same_bits(a, b, "running statistics")


def fingerprints():
    return {
        f"{kind} {dtype}": checks.digest(alone(inputs(dtype), kind)) for kind in KINDS for dtype in DTYPES
    }


@every_instruction_set
def test_every_instruction_set(isa):
    assert printed(isa, "import test_activation as t; print(t.fingerprints())") == str(fingerprints())


@every_operation
def test_bad_activation(op):
    case = op.make_case(6, 35)
    x = case.from_sets(values((6, 35), "float32", "plain", 1))
    out = np.full_like(x, 7)
    for bad, error in (("swish", ValueError), ("RELU", ValueError), ("", ValueError), (3, TypeError)):
        with pytest.raises(error, match=r"activation is .*; it should be None, 'relu', "):
            op.forward(x, case, activation=bad, out=out)
    checks.assert_same_bits(out, np.full_like(x, 7), "out")
    with pytest.raises((TypeError, ValueError), match="activation"):  # gradients are the norm's
        op.backward(x, x, case, activation="relu")
