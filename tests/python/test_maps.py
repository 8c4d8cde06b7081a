"""dynamic_tanh: against longdouble, PyTorch and finite differences; the same bits; in place; bad input."""

import itertools

import checks
import normkit as nk
import numpy as np
import pytest
from instruction_sets import every_instruction_set, printed
from reference.maps import dynamic_tanh as reference
from reference.maps import gradient_bound
from reference.recipe import fingerprint, values
from reference.wide import COMPUTE, DTYPES, numpy_dtype, ulp, wide

pytestmark = pytest.mark.compares
every_dtype = pytest.mark.parametrize("dtype", DTYPES)
NAMES = ("dx", "dalpha", "dweight", "dbias")
# Shapes and channel axes: every kernel (columns, runs), blocks, panels and strips cut everywhere.
CASES = (
    ((1,), 0),
    ((7,), -1),
    ((5, 33), -1),
    ((70, 768), 1),
    ((3, 1500), -1),
    ((1500, 3), -1),
    ((1500, 3), 0),
    ((2, 5, 6, 7), 1),
    ((3, 4, 30, 40), 1),
    ((2, 520, 4), 1),
    ((130, 17), 0),
    ((2, 3, 4, 5, 2), 2),
    ((1, 1, 9), 0),
)


def problem(shape, axis, dtype="float32", kind="plain", per_channel=True, parameter_dtype=None):
    """(x, dy, alpha, weight, bias)"""
    channels = (shape[axis],)
    weight, bias = (values(channels, parameter_dtype or dtype, "plain", seed) for seed in (3, 4))
    alpha = np.abs(values(channels if per_channel else (1,), "float64", "plain", 5)) + 0.25
    return (
        values(shape, dtype, kind, 1),
        values(shape, dtype, "plain", 2),
        alpha.astype(numpy_dtype(parameter_dtype or dtype)),
        weight,
        bias,
    )


def everything(x, dy, alpha, weight, bias, axis):
    y = nk.dynamic_tanh(x, alpha, weight, bias, axis=axis)
    return (y, *nk.dynamic_tanh_backward(dy, x, alpha, weight, bias, axis=axis))


def check(x, dy, alpha, weight, bias, axis, where):
    dtype = checks.dtype_name(x)
    exact = reference(x, alpha, weight, bias, axis, dy)
    y, *gradients = everything(x, dy, alpha, weight, bias, axis)
    assert y.dtype == x.dtype and y.shape == x.shape
    share = checks.assert_within(y, exact.y, exact.y_bound, f"y {where}")
    checks.remember("dynamic_tanh", "y (share)", dtype, share.max(initial=0), where)
    parameters = (None, alpha, weight, bias)
    for name, actual, parameter in zip(NAMES, gradients, parameters, strict=True):
        if name != "dx" and parameter is None:
            assert actual is None
            continue
        if isinstance(parameter, np.ndarray):
            assert actual.shape == parameter.shape and actual.dtype == parameter.dtype
        expected = exact.gradients[name].reshape(actual.shape)
        terms = exact.terms[name].reshape(actual.shape)
        bound = gradient_bound(expected, terms, checks.dtype_name(actual), COMPUTE[dtype])
        share = checks.assert_within(actual, expected, bound, f"{name} {where}")
        checks.remember("dynamic_tanh", f"{name} (share)", dtype, share.max(initial=0), where)


@every_dtype
@pytest.mark.parametrize("per_channel", (True, False))
def test_against_longdouble(dtype, per_channel):
    for (shape, axis), kind in itertools.product(CASES, ("plain", "tiny")):
        x, dy, alpha, weight, bias = problem(shape, axis, dtype, kind, per_channel)
        check(x, dy, alpha, weight, bias, axis, f"{shape} {axis} {kind}")
    x, dy, alpha, weight, bias = problem((9, 65), 1, dtype, "plain", per_channel)
    for w, b in ((None, None), (weight, None), (None, bias)):
        check(x, dy, alpha, w, b, -1, f"weight {w is not None} bias {b is not None}")


@every_dtype
def test_kinds_of_alpha(dtype):
    x, dy, alpha, weight, bias = problem((20, 33), 1, dtype, per_channel=False)
    number = float(alpha[0])
    expected = everything(x, dy, alpha, weight, bias, -1)
    for same in (number, alpha.reshape(()), alpha.reshape(1, 1), np.array([number]), np.float64(number)):
        results = everything(x, dy, same, weight, bias, -1)
        assert results[2].shape == np.shape(same)
        for k in (0, 1, 3, 4):
            checks.assert_same_bits(results[k], expected[k], f"alpha {same!r}")
        assert abs(float(results[2].ravel()[0]) / float(expected[2][0]) - 1) < 0.01
    assert everything(x, dy, number, weight, bias, -1)[2].dtype == np.float64
    check(x, dy, 1, weight, bias, -1, "alpha is an int")


@pytest.mark.parametrize("dtype", ("float16", "bfloat16"))
def test_float32_parameters(dtype):
    for shape, axis in (((70, 33), 1), ((3, 20, 50), 1)):
        x, dy, alpha, weight, bias = problem(shape, axis, dtype, parameter_dtype="float32")
        check(x, dy, alpha, weight, bias, axis, f"float32 parameters {shape}")


@every_dtype
def test_saturated_and_small(dtype):
    """dx keeps its digits where 1 - tanh^2 would have none left, and small x pass unharmed."""
    compute = COMPUTE[dtype]
    x = np.concatenate([np.linspace(-40, 40, 401), 2.0 ** -np.arange(2, 60), [0.0, -0.0]])
    x = x.astype(numpy_dtype(dtype))[:, None].copy()
    dy = np.ones_like(x)
    for alpha in (1.0, 0.5, 3.0, -2.0):
        exact = reference(x, alpha, axis=0, dy=dy)
        y = nk.dynamic_tanh(x, alpha)
        checks.assert_within(y, exact.y, exact.y_bound, f"alpha {alpha}")
        assert (np.signbit(y) == np.signbit(x * np.sign(alpha).astype(x.dtype))).all()
        dx = nk.dynamic_tanh_backward(dy, x, alpha)[0]
        bound = gradient_bound(exact.gradients["dx"], exact.terms["dx"], dtype, compute)
        checks.assert_within(dx, exact.gradients["dx"], bound, f"dx alpha {alpha}")


def test_nan_and_infinity():
    for dtype in ("float32", "float64"):
        x = np.array([[np.nan, np.inf, -np.inf, 1.0, 1e30]], dtype)
        dy = np.ones_like(x)
        y = nk.dynamic_tanh(x, 0.5)
        expected = np.array([[np.nan, 1, -1, np.tanh(0.5), 1]], dtype)
        checks.assert_within(y, wide(expected), ulp(np.nan_to_num(expected), dtype), "y")
        dx, dalpha, _, _ = nk.dynamic_tanh_backward(dy, x, 0.5)
        assert np.isnan(dx[0, 0]) and (dx[0, [1, 2, 4]] == 0).all() and dx[0, 3] > 0
        assert np.isnan(dalpha)
        _, dalpha, _, _ = nk.dynamic_tanh_backward(dy, x, np.full(5, 0.5, dtype))
        assert (np.isnan(dalpha) == [True, True, True, False, False]).all()


LAYOUTS = {
    "Fortran order": np.asfortranarray,
    "backwards": lambda a: np.flip(np.ascontiguousarray(np.flip(a))),
    "every second": lambda a: np.repeat(a, 2, -1)[..., ::2],
    **{
        f"axis {k} last": lambda a, k=k: np.moveaxis(np.ascontiguousarray(np.moveaxis(a, k, -1)), -1, k)
        for k in (0, 1, 2)
    },
}


@every_dtype
@pytest.mark.parametrize("layout", LAYOUTS)
def test_same_bits_in_every_layout(dtype, layout):
    arrange = LAYOUTS[layout]
    for shape, axis in (
        ((3, 5, 40), 1),
        ((3, 40, 5), 1),
        ((2, 20, 70), 1),
        ((4, 33, 6), 2),
        ((1100, 2, 9), 0),
    ):
        x, dy, alpha, weight, bias = problem(shape, axis, dtype)
        for a in (alpha, alpha[:1]):
            expected = everything(x, dy, a, weight, bias, axis)
            for pair in ((arrange(x), dy), (x, arrange(dy)), (arrange(x), arrange(dy))):
                for k, result in enumerate(everything(*pair, a, weight, bias, axis)):
                    checks.assert_same_bits(result, expected[k], f"{shape} {axis} result {k}")
            out = arrange(np.zeros_like(x)).copy(order="K")
            assert nk.dynamic_tanh(x, a, weight, bias, axis=axis, out=out) is out
            checks.assert_same_bits(out, expected[0], "out")
            nk.dynamic_tanh_backward(dy, x, a, weight, bias, axis=axis, dx_out=out)
            checks.assert_same_bits(out, expected[1], "dx_out")
        spread = [np.repeat(p, 3)[::3] for p in (alpha, weight, bias)]
        for k, result in enumerate(everything(x, dy, *spread, axis)):
            checks.assert_same_bits(result, everything(x, dy, alpha, weight, bias, axis)[k], "parameters")


@every_dtype
def test_channels_first_equals_channels_last(dtype):
    """The columns' kernel and the runs' kernel take the same sums."""
    for channels, elements in ((40, 3000), (17, 65), (100, 64), (16, 16), (600, 200), (3, 5000)):
        x, dy, alpha, weight, bias = problem((elements, channels), 1, dtype)
        expected = everything(x, dy, alpha, weight, bias, 1)
        turned = everything(np.ascontiguousarray(x.T), np.ascontiguousarray(dy.T), alpha, weight, bias, 0)
        for k, result in enumerate(turned):
            checks.assert_same_bits(result.T, expected[k], f"{channels} x {elements} result {k}")


def test_groups_of_panels():
    """So many that the scratch would grow beyond its share: columns then take several panels to a group."""
    x, dy, alpha, weight, bias = problem((14_000, 512), 1, "float16")
    expected = everything(x, dy, alpha, weight, bias, 1)
    turned = everything(np.ascontiguousarray(x.T), np.ascontiguousarray(dy.T), alpha, weight, bias, 0)
    for k, result in enumerate(turned):
        checks.assert_same_bits(result.T, expected[k], f"result {k}")


@every_dtype
@pytest.mark.parametrize(
    ("shape", "axis"), (((3000, 200), 1), ((3, 40, 5000), 1), ((700_003, 1), 1), ((64, 20_000), 1))
)
def test_threads(dtype, shape, axis, threads):
    arguments = problem(shape, axis, dtype)
    digests = {}
    for count in (1, 2, 3, 7):
        threads(count)
        digests[count] = checks.digest(*everything(*arguments, axis))
    assert len(set(digests.values())) == 1, digests


@every_dtype
def test_batch_and_place_do_not_matter(dtype):
    x, dy, alpha, weight, bias = problem((40, 77), 1, dtype)
    y, dx = everything(x, dy, alpha, weight, bias, -1)[:2]
    for rows in (slice(0, 1), slice(3, 20), slice(39, 40)):
        part = everything(x[rows], dy[rows], alpha, weight, bias, -1)
        checks.assert_same_bits(part[0], y[rows], f"y {rows}")
        checks.assert_same_bits(part[1], dx[rows], f"dx {rows}")


@every_dtype
def test_in_place(dtype):
    for shape, axis in (((9, 100), 1), ((9, 100), 0), ((3, 20, 700), 1), ((1, 5), 1), ((600, 768), 1)):
        x, dy, alpha, weight, bias = problem(shape, axis, dtype)
        y, dx = everything(x, dy, alpha, weight, bias, axis)[:2]
        work = x.copy()
        assert nk.dynamic_tanh(work, alpha, weight, bias, axis=axis, out=work) is work
        checks.assert_same_bits(work, y, "out=x")
        for target in ("dy", "x"):
            copies = {"dy": dy.copy(), "x": x.copy()}
            nk.dynamic_tanh_backward(
                copies["dy"], copies["x"], alpha, weight, bias, axis=axis, dx_out=copies[target]
            )
            checks.assert_same_bits(copies[target], dx, f"dx_out={target}")


def isa_digest():
    """Everything for a few problems, as one hash."""
    results = []
    for dtype in DTYPES:
        for (shape, axis), kind in itertools.product(CASES, ("plain", "spread", "huge")):
            for per_channel in (True, False):
                x, dy, alpha, weight, bias = problem(shape, axis, dtype, kind, per_channel)
                results += everything(x, dy, alpha, weight, bias, axis)
    return fingerprint(*results)


BITS = "cd8d4b51754100346fdfd528a22464738811deb21b085d1fe4d45bdf6ed7d283"


def test_golden_bits():
    """They change only when a promise is changed on purpose."""
    checks.COUNT.values += 1
    assert isa_digest() == BITS


@every_instruction_set
def test_every_instruction_set(isa):
    checks.COUNT.values += 1
    assert printed(isa, "import test_maps as t; print(t.isa_digest())") == BITS


@every_dtype
def test_outputs_and_accumulate(dtype):
    for shape, axis in (((70, 33), 1), ((3, 20, 50), 1)):
        for per_channel in (True, False):
            x, dy, alpha, weight, bias = problem(shape, axis, dtype, "plain", per_channel)
            expected = nk.dynamic_tanh_backward(dy, x, alpha, weight, bias, axis=axis)
            outs = tuple(np.full_like(p, 3) for p in (alpha, weight, bias))
            given = dict(axis=axis, grads_out=outs)
            results = nk.dynamic_tanh_backward(dy, x, alpha, weight, bias, **given)
            for out, result, wanted in zip(outs, results[1:], expected[1:], strict=True):
                assert result is out
                checks.assert_same_bits(out, wanted, "grads_out")
            nk.dynamic_tanh_backward(dy, x, alpha, weight, bias, **given, accumulate=True)
            for out, wanted in zip(outs, expected[1:], strict=True):
                twice = 2 * wide(wanted)
                checks.assert_within(out, twice, 2 * ulp(twice * 1.01, dtype), "accumulate")
    wide_outs = tuple(np.zeros(p.shape, np.float64) for p in (alpha, weight, bias))
    nk.dynamic_tanh_backward(dy, x, alpha, weight, bias, axis=axis, grads_out=wide_outs)
    for out, wanted in zip(wide_outs, expected[1:], strict=True):
        checks.assert_same_bits(out.astype(wanted.dtype), wanted, "float64 grads_out")
    dx, dalpha, dweight, dbias = nk.dynamic_tanh_backward(
        dy, x, alpha, weight, None, axis=axis, grads_out=[None, wide_outs[1], None]
    )
    assert dweight is wide_outs[1] and dbias is None
    checks.assert_same_bits(dalpha, expected[1], "dalpha")
    checks.assert_same_bits(dx, expected[0], "dx")


def test_finite_differences():
    for per_channel in (True, False):
        x, dy, alpha, weight, bias = problem((3, 4, 5), 1, "float64", "plain", per_channel)
        arguments = (x, alpha, weight, bias)
        gradients = nk.dynamic_tanh_backward(dy, *arguments, axis=1)
        step = 2.0**-17
        for k, argument in enumerate(arguments):
            for at in np.ndindex(argument.shape):
                sides = []
                for sign in (1, -1):
                    moved = [a.copy() for a in arguments]
                    moved[k][at] += sign * step
                    sides.append((nk.dynamic_tanh(*moved, axis=1) * dy).sum())
                slope = (sides[0] - sides[1]) / (2 * step)
                assert abs(slope - gradients[k][at]) < 1e-7, (k, at)
                checks.COUNT.values += 1


def test_pytorch_float64_autograd():
    torch = pytest.importorskip("torch", reason="PyTorch is not installed: no autograd to compare with")
    for per_channel in (True, False):
        x, dy, alpha, weight, bias = problem((6, 33), 1, "float64", "plain", per_channel)
        leaves = [torch.tensor(a, requires_grad=True) for a in (x, alpha, weight, bias)]
        y = leaves[2] * torch.tanh(leaves[1] * leaves[0]) + leaves[3]
        y.backward(torch.tensor(dy))
        ours = nk.dynamic_tanh(*(leaf.detach() for leaf in leaves))
        assert isinstance(ours, torch.Tensor)
        checks.assert_within(ours, wide(y.detach().numpy()), 1e-14, "y")
        gradients = nk.dynamic_tanh_backward(torch.tensor(dy), *(leaf.detach() for leaf in leaves))
        for name, leaf, actual in zip(NAMES, leaves, gradients, strict=True):
            checks.assert_within(actual, wide(leaf.grad.numpy()), 1e-12, f"{name} against autograd")


def test_empty_arrays():
    weight = np.ones(4, np.float32)
    for shape in ((0, 4), (3, 0, 4)):
        x = np.zeros(shape, np.float32)
        checks.assert_same_bits(nk.dynamic_tanh(x, 0.5, weight, weight), x)
        for alpha in (0.5, weight):
            dx, *gradients = nk.dynamic_tanh_backward(x, x, alpha, weight, weight)
            assert dx.shape == shape and all((g == 0).all() for g in gradients)
    none = np.zeros(0, np.float32)
    dx, *gradients = nk.dynamic_tanh_backward(np.zeros((3, 0)), np.zeros((3, 0)), 0.5)
    assert dx.shape == (3, 0) and gradients[0] == 0
    checks.assert_same_bits(nk.dynamic_tanh(none, none, none, none), none)
    checks.COUNT.values += 1


# ---- the module ----


def test_module():
    x, dy, *_ = problem((7, 33), 1)
    module = nk.nn.DynamicTanh(33)
    assert module.alpha.shape == (1,) and float(module.alpha[0]) == 0.5
    assert list(module.state_dict()) == ["alpha", "weight", "bias"]
    module.weight[...], module.bias[...] = (values((33,), "float32", "plain", seed) for seed in (3, 4))
    arguments = (module.alpha, module.weight, module.bias)
    checks.assert_same_bits(module(x), nk.dynamic_tanh(x, *arguments))
    with pytest.raises(ValueError, match=r"^out shares memory with x"):
        module(x, out=x)
    expected = nk.dynamic_tanh_backward(dy, x, *arguments)
    checks.assert_same_bits(module.backward(dy), expected[0])
    for name, gradient in zip(("alpha", "weight", "bias"), expected[1:], strict=True):
        checks.assert_same_bits(module.grads[name], gradient, name)
    fresh = nk.nn.DynamicTanh(33, 0.1)
    fresh.load_state_dict(module.state_dict())
    checks.assert_same_bits(fresh(x), module(x))
    assert "(33,)" in repr(module) and "alpha_init_value=0.5" in repr(module)
    assert list(nk.nn.DynamicTanh(3, elementwise_affine=False).state_dict()) == ["alpha"]
    assert nk.nn.DynamicTanh(3, bias=False, dtype=np.float64).bias is None
    first = nk.nn.DynamicTanh(7, axis=0).eval()
    assert first(x, out=x) is x
    with pytest.raises(ValueError, match="normalized_shape"):
        nk.nn.DynamicTanh((3, 4))


# ---- bad input ----


def refuses(exception, words, forward=True, **bad):
    """Both directions refuse, naming the argument, and write nothing."""
    x, dy, alpha, weight, bias = problem((6, 10), 1)
    out = np.full_like(x, 77)
    grads = tuple(np.full_like(p, 77) for p in (alpha, weight, bias))
    good = dict(x=x, alpha=alpha, weight=weight, bias=bias)
    if forward:
        with pytest.raises(exception, match=words):
            nk.dynamic_tanh(**(good | dict(out=out) | bad))
    bad = {("dx_out" if k == "out" else k): v for k, v in bad.items()}
    with pytest.raises(exception, match=words.replace("^out", "^dx_out")):
        nk.dynamic_tanh_backward(**(good | dict(dy=dy, dx_out=out, grads_out=grads) | bad))
    for array in (out, *grads):
        checks.assert_same_bits(array, np.full_like(array, 77), "something was written")


f32 = np.float32


@pytest.mark.parametrize(
    ("exception", "words", "bad"),
    [
        (TypeError, "^alpha is None", dict(alpha=None)),
        (TypeError, "^alpha is 'a'; it should be a number", dict(alpha="a")),
        (TypeError, r"^alpha is \[0.5\]", dict(alpha=[0.5])),
        (ValueError, "^alpha is nan", dict(alpha=float("nan"))),
        (ValueError, r"^alpha has shape \(9,\); it should .* \(10,\)", dict(alpha=np.ones(9, f32))),
        (ValueError, r"^alpha has shape \(1, 10\)", dict(alpha=np.ones((1, 10), f32))),
        (ValueError, r"^alpha has shape \(0,\)", dict(alpha=np.ones(0, f32))),
        (TypeError, "^alpha has dtype int64", dict(alpha=np.ones(10, np.int64))),
        (TypeError, "^alpha has dtype float16; it should", dict(alpha=np.ones(10, np.float16))),
        (ValueError, r"^weight has shape \(9,\); it should .* \(10,\)", dict(weight=np.ones(9, f32))),
        (ValueError, r"^bias has shape \(6, 10\)", dict(bias=np.ones((6, 10), f32))),
        (TypeError, "^weight has dtype float64; it should", dict(weight=np.ones(10))),
        (TypeError, "^bias is ", dict(bias=[0.0] * 10)),
        (ValueError, "^axis 2 is out of bounds", dict(axis=2)),
        (ValueError, "^axis -3 is out of bounds", dict(axis=-3)),
        (TypeError, "^axis is 1.0; it should be an integer", dict(axis=1.0)),
        (TypeError, "^axis is None; it should be an integer", dict(axis=None)),
        (ValueError, "^axis -1 is out of bounds", dict(x=np.array(1, f32))),
        (TypeError, "^x has dtype int64", dict(x=np.zeros((6, 10), np.int64))),
        (TypeError, "^x is ", dict(x=[1.0])),
        (ValueError, r"^out has shape \(10, 6\)", dict(out=np.zeros((10, 6), f32))),
        (TypeError, "^out has dtype float64", dict(out=np.zeros((6, 10)))),
    ],
)
def test_bad_input(exception, words, bad):
    refuses(exception, words, **bad)


def test_bad_backward_input():
    x, dy, alpha, weight, _ = problem((6, 10), 1)
    for exception, words, bad in (
        (TypeError, "^dy has dtype float64", dict(dy=dy.astype(np.float64))),
        (ValueError, r"^dy has shape \(6, 9\)", dict(dy=dy[:, :9])),
        (TypeError, "^grads_out is ", dict(grads_out=(alpha, weight))),
        (ValueError, r"^grads_out\[1\] has shape", dict(grads_out=(None, np.zeros(9, f32), None))),
        (ValueError, r"^grads_out\[2\] is given, but bias is None", dict(bias=None)),
        (
            TypeError,
            r"^grads_out\[0\] has dtype float16",
            dict(grads_out=(np.zeros(10, np.float16), None, None)),
        ),
        (ValueError, "^accumulate is True, but grads_out", dict(accumulate=True, grads_out=None)),
    ):
        refuses(exception, words, forward=False, **bad)
    with pytest.raises(ValueError, match=r"^grads_out\[0\] shares memory with alpha"):
        nk.dynamic_tanh_backward(dy, x, alpha, grads_out=(alpha, None, None))
    memory = np.zeros((7, 10), f32)
    with pytest.raises(ValueError, match=r"^out shares memory with x"):
        nk.dynamic_tanh(memory[:6], 0.5, out=memory[1:])
    with pytest.raises(ValueError, match=r"^out shares memory with weight"):
        nk.dynamic_tanh(x, 0.5, memory[0], out=memory[:6])
    with pytest.raises(ValueError, match=r"^out overlaps itself"):
        nk.dynamic_tanh(x, 0.5, out=np.lib.stride_tricks.as_strided(memory, (6, 10), (4, 4), writeable=True))
    frozen = np.zeros_like(x)
    frozen.flags.writeable = False
    with pytest.raises(ValueError, match=r"^out is a read-only"):
        nk.dynamic_tanh(x, 0.5, out=frozen)
    checks.assert_same_bits(memory, np.zeros_like(memory), "something was written")
