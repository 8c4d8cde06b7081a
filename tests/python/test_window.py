"""local_response_norm: against longdouble, PyTorch and finite differences; layouts, in place, bad input."""

import re

import checks
import normkit as nk
import numpy as np
import pytest
from reference.recipe import values
from reference.wide import DTYPES, WIDE, numpy_dtype, ulp, wide
from reference.window import local_response_norm as reference

pytestmark = pytest.mark.compares
every_dtype = pytest.mark.parametrize("dtype", DTYPES)

# Between "within half an ULP" and what double arithmetic adds: 16-bit types are rounded by way of float.
LIMIT = {"float32": 0.501, "float64": 4, "float16": 0.501, "bfloat16": 0.501}
SHAPES = ((2, 1, 5), (3, 4), (2, 5, 3, 7), (1, 17, 20), (2, 96, 3, 3), (4, 40), (1, 3, 2, 3, 11))
SIZES = (1, 2, 3, 4, 5, 8, 41)
BETAS = (0.75, 0.5, 0.25, 1.0, 0.6)


def data(shape, dtype="float32", kind="plain"):
    return values(shape, dtype, kind, 1), values(shape, dtype, "plain", 2)


def assert_y(y, exact, where, window):
    dtype = checks.dtype_name(y)
    limit = LIMIT[dtype] + (window / 16 if dtype == "float64" else 0)
    share = checks.assert_within(y, exact, limit * ulp(exact, dtype), where)
    checks.remember("local_response_norm", "y", dtype, share.max(initial=0) * limit, where)


def assert_dx(dx, exact, where, window):
    """Half an ULP for the last rounding and (16 + window) roundings of double for each term."""
    dtype = checks.dtype_name(dx)
    bound = (16 + window) * WIDE(2) ** -53 * exact.dx_terms
    bound = bound + ulp(np.abs(exact.dx) * WIDE(1.001) + bound, dtype) * WIDE(0.501)
    share = checks.assert_within(dx, exact.dx, bound, where)
    checks.remember("local_response_norm", "dx (share)", dtype, share.max(initial=0), where)


@every_dtype
@pytest.mark.parametrize("beta", BETAS)
def test_against_longdouble(dtype, beta):
    for shape in SHAPES:
        for size in SIZES:
            for kind in ("plain", "spread"):
                x, dy = data(shape, dtype, kind)
                options = dict(size=size, alpha=0.3, beta=beta, k=1.5)
                exact = reference(x, dy=dy, **options)
                window = min(size, 2 * shape[1])
                where = f"{kind} {shape} size {size} beta {beta}"
                assert_y(nk.local_response_norm(x, **options), exact.y, where, window)
                assert_dx(nk.local_response_norm_backward(dy, x, **options)[0], exact, where, window)


@every_dtype
@pytest.mark.parametrize("kind", ["tiny", "huge"])
def test_extreme_values(dtype, kind):
    x, dy = data((3, 20, 9), dtype, kind)
    for alpha, k in ((1e-4, 1.0), (0.5, 2.0)):
        exact = reference(x, 5, alpha, 0.75, k, dy=dy)
        assert_y(nk.local_response_norm(x, 5, alpha, 0.75, k), exact.y, f"{kind} k {k}", 5)
        assert_dx(nk.local_response_norm_backward(dy, x, 5, alpha, 0.75, k)[0], exact, f"{kind} k {k}", 5)


def test_defaults_are_pytorchs():
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    x, dy = (torch.tensor(a) for a in data((2, 9, 5, 4), "float64"))
    theirs = torch.nn.LocalResponseNorm(5)
    ours = nk.nn.LocalResponseNorm(5)
    checks.assert_within(ours(x), wide(theirs(x).numpy()), 1e-15, "defaults")
    assert repr(ours) == repr(theirs)
    assert nk.nn.LocalResponseNorm(2, 0.1, 0.5, 2.0)(x).shape == x.shape
    assert ours.state_dict() == {} == dict(theirs.state_dict())
    leaf = x.clone().requires_grad_(True)
    theirs(leaf).backward(dy)
    ours(x)
    checks.assert_within(ours.backward(dy), wide(leaf.grad.numpy()), 2e-15, "dx")


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("beta", BETAS)
def test_against_pytorch_float64(size, beta):
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    for shape in SHAPES:
        if len(shape) < 3:
            continue  # PyTorch wants space
        x, dy = (torch.tensor(a) for a in data(shape, "float64", "spread"))
        leaf = x.clone().requires_grad_(True)
        theirs = torch.nn.functional.local_response_norm(leaf, size, 0.3, beta, 1.5)
        theirs.backward(dy)
        y = nk.local_response_norm(x, size, 0.3, beta, 1.5)
        (dx,) = nk.local_response_norm_backward(dy, x, size, 0.3, beta, 1.5)
        assert isinstance(y, torch.Tensor) and isinstance(dx, torch.Tensor)
        exact = wide(theirs.detach().numpy())
        checks.assert_within(y, exact, 1e-13 * np.abs(exact) + 1e-300, f"y {shape}")
        # Where terms cancel, PyTorch's own roundings count too.
        terms = reference(x.numpy(), size, 0.3, beta, 1.5, dy=dy.numpy()).dx_terms
        checks.assert_within(dx, wide(leaf.grad.numpy()), 1e-13 * terms + 1e-300, f"dx {shape}")


@pytest.mark.parametrize("size", [1, 2, 5, 6, 30])
def test_against_finite_differences(size):
    x, dy = data((2, 11, 3), "float64")
    options = dict(size=size, alpha=0.7, beta=0.75, k=1.1)
    (dx,) = nk.local_response_norm_backward(dy, x, **options)
    step = 2.0**-17
    numeric = np.empty_like(x)
    for i in np.ndindex(x.shape):
        moved = [x.copy(), x.copy()]
        moved[0][i] += step
        moved[1][i] -= step
        up, down = (nk.local_response_norm(m, **options) for m in moved)
        numeric[i] = (dy * (up - down)).sum() / (2 * step)
    checks.assert_within(dx, wide(numeric), 1e-8, f"size {size}")


LAYOUTS = {
    "Fortran order": np.asfortranarray,
    "channels last": lambda a: np.moveaxis(np.ascontiguousarray(np.moveaxis(a, 1, -1)), -1, 1),
    "every second": lambda a: np.repeat(np.repeat(a, 2, 1), 2, -1)[:, ::2, ..., ::2],
    "backwards": lambda a: np.ascontiguousarray(a[::-1, ::-1, ..., ::-1])[::-1, ::-1, ..., ::-1],
    "batch last": lambda a: np.moveaxis(np.ascontiguousarray(np.moveaxis(a, 0, -1)), -1, 0),
}


@every_dtype
@pytest.mark.parametrize("layout", LAYOUTS)
def test_same_bits_in_every_layout(dtype, layout, threads):
    for shape in ((2, 5, 3, 7), (3, 40, 4), (2, 3, 19), (5, 33, 1)):
        for size in (2, 5, 90):
            x, dy = data(shape, dtype)
            threads(1)
            y = nk.local_response_norm(x, size, 0.5)
            (dx,) = nk.local_response_norm_backward(dy, x, size, 0.5)
            arranged, arranged_dy = LAYOUTS[layout](x), LAYOUTS[layout](dy)
            checks.assert_same_bits(arranged, x)
            threads(2)
            checks.assert_same_bits(nk.local_response_norm(arranged, size, 0.5), y, f"y {shape}")
            out = LAYOUTS[layout](np.zeros_like(x)).copy(order="K")
            for pair in ((arranged_dy, x), (dy, arranged), (arranged_dy, arranged)):
                (result,) = nk.local_response_norm_backward(*pair, size, 0.5, dx_out=out)
                assert result is out
                checks.assert_same_bits(out, dx, f"dx {shape} size {size}")
            if arranged.flags.writeable:
                nk.local_response_norm(arranged, size, 0.5, out=arranged)
                checks.assert_same_bits(arranged, y, f"in place {shape}")


@every_dtype
def test_channel_axis(dtype):
    x, dy = data((2, 20, 3, 5), dtype)
    y = nk.local_response_norm(x, 5, 0.5)
    (dx,) = nk.local_response_norm_backward(dy, x, 5, 0.5)
    for axis in (1, 2, 3, -1, -2, -3):
        moved, moved_dy = (np.ascontiguousarray(np.moveaxis(a, 1, axis)) for a in (x, dy))
        result = nk.local_response_norm(moved, 5, 0.5, channel_axis=axis)
        assert result.flags.c_contiguous
        checks.assert_same_bits(np.moveaxis(result, axis, 1), y, f"axis {axis}")
        (result,) = nk.local_response_norm_backward(moved_dy, moved, 5, 0.5, channel_axis=axis)
        checks.assert_same_bits(np.moveaxis(result, axis, 1), dx, f"axis {axis}")


def test_batch_and_threads_do_not_matter(threads):
    x, dy = data((12, 96, 27, 9))
    threads(1)
    y = nk.local_response_norm(x, 5, 0.5)
    (dx,) = nk.local_response_norm_backward(dy, x, 5, 0.5)
    for count in (2, 3, 7):
        threads(count)
        checks.assert_same_bits(nk.local_response_norm(x, 5, 0.5), y, f"{count} threads")
        checks.assert_same_bits(nk.local_response_norm_backward(dy, x, 5, 0.5)[0], dx, f"{count} threads")
    for part in (slice(0, 1), slice(3, 8)):
        checks.assert_same_bits(nk.local_response_norm(x[part], 5, 0.5), y[part], f"batch {part}")
        checks.assert_same_bits(
            nk.local_response_norm_backward(dy[part], x[part], 5, 0.5)[0], dx[part], f"batch {part}"
        )


@pytest.mark.parametrize("size", [1, 4, 5, 33, 2000])
def test_in_place(size):
    for shape in ((2, 96, 5), (3, 700), (2, 3, 40)):
        x, dy = data(shape)
        y = nk.local_response_norm(x, size, 0.5)
        (dx,) = nk.local_response_norm_backward(dy, x, size, 0.5)
        target = dy.copy()
        assert nk.local_response_norm_backward(target, x, size, 0.5, dx_out=target)[0] is target
        checks.assert_same_bits(target, dx, "dx is dy")
        target = x.copy()
        nk.local_response_norm_backward(dy, target, size, 0.5, dx_out=target)
        checks.assert_same_bits(target, dx, "dx is x")
        target = x.copy()
        assert nk.local_response_norm(target, size, 0.5, out=target) is target
        checks.assert_same_bits(target, y, "y is x")


def test_nan_and_infinity_stay_in_their_windows():
    x, dy = data((2, 30, 6))
    clean = nk.local_response_norm(x, 4, 0.5)
    x[1, 10, 3], x[0, 5, 0] = np.nan, np.inf
    y = nk.local_response_norm(x, 4, 0.5)
    exact = reference(x, 4, 0.5, dy=dy)
    checks.assert_within(y, exact.y, LIMIT["float32"] * ulp(np.nan_to_num(exact.y), "float32"), "y")
    assert np.argwhere(np.isnan(y)).tolist() == [[0, 5, 0], [1, 9, 3], [1, 10, 3], [1, 11, 3], [1, 12, 3]]
    untouched = np.ones(x.shape, bool)
    untouched[1, 9:13, 3] = untouched[0, 4:8, 0] = False
    checks.assert_same_bits(y[untouched], clean[untouched], "others")
    (dx,) = nk.local_response_norm_backward(dy, x, 4, 0.5)
    assert (np.isnan(dx) == np.isnan(exact.dx)).all()


def test_empty_arrays():
    for shape in ((0, 3, 4), (2, 0, 4), (2, 3, 0)):
        x = np.zeros(shape, np.float32)
        checks.assert_same_bits(nk.local_response_norm(x, 5), x)
        checks.assert_same_bits(nk.local_response_norm_backward(x, x, 5)[0], x)
    checks.COUNT.values += 1


def test_module():
    x, dy = data((2, 9, 5))
    module = nk.nn.LocalResponseNorm(4, alpha=0.5, beta=0.5, k=2.0)
    arguments = (4, 0.5, 0.5, 2.0)
    checks.assert_same_bits(module(x), nk.local_response_norm(x, *arguments))
    with pytest.raises(ValueError, match=r"^out shares memory with x"):
        module(x, out=x)
    checks.assert_same_bits(module.backward(dy), nk.local_response_norm_backward(dy, x, *arguments)[0])
    assert module.grads == {}
    with pytest.raises(RuntimeError, match="needs a call in train mode"):
        module.backward(dy)
    last = nk.nn.LocalResponseNorm(4, 0.5, 0.5, 2.0, channel_axis=-1).eval()
    moved = np.ascontiguousarray(np.moveaxis(x, 1, -1))
    expected = nk.local_response_norm(moved, *arguments, channel_axis=-1)
    checks.assert_same_bits(last(moved, out=moved), expected)


def refuses(exception, words, **bad):
    """Both directions refuse, naming the argument, and write nothing."""
    x, dy = data((2, 6, 5))
    out = np.full_like(x, 77)
    arguments = dict(x=x, size=5) | bad
    target = arguments.pop("out", out)
    with pytest.raises(exception, match=words):
        nk.local_response_norm(**{k: v for k, v in arguments.items() if k != "dy"}, out=target)
    with pytest.raises(exception, match=re.sub(r"^\^out\b", "^dx_out", words)):
        nk.local_response_norm_backward(**(dict(dy=dy) | arguments), dx_out=target)
    checks.assert_same_bits(out, np.full_like(x, 77))


@pytest.mark.parametrize(
    ("exception", "words", "bad"),
    [
        (ValueError, "^size is 0; it should be at least 1", dict(size=0)),
        (ValueError, "^size is -5; it should be at least 1", dict(size=-5)),
        (ValueError, "^size is 1000.*, which does not fit 64 bits", dict(size=10**30)),
        (TypeError, "^size is 2.5; it should be an integer", dict(size=2.5)),
        (TypeError, "^size is True; it should be an integer", dict(size=True)),
        (TypeError, "^size is None; it should be an integer", dict(size=None)),
        (ValueError, "^alpha is nan", dict(alpha=np.nan)),
        (ValueError, "^beta is nan", dict(beta=np.nan)),
        (ValueError, "^k is nan", dict(k=np.nan)),
        (TypeError, "^alpha is 'a'", dict(alpha="a")),
        (TypeError, "^k is None", dict(k=None)),
        (ValueError, "^channel_axis is 0; .* other than the first", dict(channel_axis=0)),
        (ValueError, "^channel_axis is 3; it should be an axis of x", dict(channel_axis=3)),
        (ValueError, "^channel_axis is -3; .* other than the first", dict(channel_axis=-3)),
        (ValueError, "^channel_axis is -4; it should be an axis of x", dict(channel_axis=-4)),
        (TypeError, "^channel_axis is 1.0; it should be an integer", dict(channel_axis=1.0)),
        (ValueError, r"^x has shape \(6,\); it should have at least 2 axes", dict(x=np.zeros(6, np.float32))),
        (TypeError, "^x has dtype int64", dict(x=np.zeros((2, 6, 5), np.int64))),
        (TypeError, "^x is ", dict(x=[1.0, 2.0])),
        (ValueError, r"^out has shape \(2, 5, 6\)", dict(out=np.zeros((2, 5, 6), np.float32))),
        (TypeError, "^out has dtype float64", dict(out=np.zeros((2, 6, 5)))),
    ],
)
def test_bad_input(exception, words, bad):
    refuses(exception, words, **bad)


def test_bad_dy():
    x, dy = data((2, 6, 5))
    for exception, words, bad in (
        (TypeError, "^dy has dtype float64; it should have x's, float32", dy.astype(np.float64)),
        (ValueError, r"^dy has shape \(2, 6\); it should have shape \(2, 6, 5\), like x", dy[..., 0]),
    ):
        out = np.full_like(x, 77)
        with pytest.raises(exception, match=words):
            nk.local_response_norm_backward(bad, x, 5, dx_out=out)
        checks.assert_same_bits(out, np.full_like(x, 77))


def test_bad_out():
    memory, dy = data((2, 7, 5))
    before = memory.copy()
    x, shifted = memory[:, :6], memory[:, 1:]
    with pytest.raises(ValueError, match=r"^out shares memory with x"):
        nk.local_response_norm(x, 5, out=shifted)
    with pytest.raises(ValueError, match=r"^dx_out shares memory with x"):
        nk.local_response_norm_backward(dy[:, :6], x, 5, dx_out=shifted)
    frozen = np.zeros(x.shape, np.float32)
    frozen.flags.writeable = False
    with pytest.raises(ValueError, match=r"^out is a read-only"):
        nk.local_response_norm(x, 5, out=frozen)
    checks.assert_same_bits(memory, before)


def test_bfloat16_is_numpys_and_pytorchs():
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    x, _ = data((2, 20, 6), "bfloat16")
    theirs = torch.tensor(x.astype(np.float32)).to(torch.bfloat16)
    y = nk.local_response_norm(theirs, 5, 0.5)
    assert y.dtype == torch.bfloat16
    expected = nk.local_response_norm(x, 5, 0.5)
    assert expected.dtype == numpy_dtype("bfloat16")
    checks.assert_same_bits(y, expected)
