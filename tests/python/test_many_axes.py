"""Any rank and any strides: more than six axes that do not merge, with the bits of contiguous arrays."""

import checks
import normkit as nk
import numpy as np
import pytest
from reference.wide import DTYPES, numpy_dtype

pytestmark = [
    pytest.mark.compares,
    pytest.mark.report("field trial: a transposed view of 3-d windows, 8 axes"),
]


def gaps(shape, dtype, seed=None):
    """An array of which no two axes merge; random, or zeros to be written."""
    whole = tuple(size + 1 if size > 1 else 1 for size in shape)
    base = np.zeros(whole) if seed is None else np.random.default_rng(seed).standard_normal(whole)
    return base.astype(numpy_dtype(dtype))[tuple(slice(0, size) for size in shape)]


SHAPES = {
    "8 axes": (3, 4, 2, 3, 2, 2, 2, 2),
    "12 axes": (2, 4, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2),
    "64 axes": (2, 4, *(1,) * 54, 3, 2, 2, 2, 2, 2, 2, 1),
}
LOGITS = np.array([0.2, -0.1, 0.4], np.float32), np.array([0.3, 0.1, -0.2], np.float32)


def affine(x, shape, seed):
    return np.random.default_rng(seed).standard_normal(shape).astype(x.dtype)


def split(x):
    """Axes that are normalized: every other one, and the last."""
    return tuple(range(1, x.ndim, 2)) if x.ndim < 20 else (1, x.ndim - 8, x.ndim - 4, x.ndim - 2)


def over(x):
    return [x.shape[a] for a in split(x)]


def c(x):
    return x.shape[1]


def pattern(x):
    names = [f"a{i}" for i in range(x.ndim)]
    names[1] = "c"
    inner = (1, x.ndim - 1) if x.ndim < 20 else (1, 58)
    return " ".join(f"[{n}]" if i in inner else n for i, n in enumerate(names))


# name: (forward of x, out; backward of dy, x, dx_out)
OPERATIONS = {
    "layer": (
        lambda x, o: nk.layer_norm(
            x, over(x), affine(x, over(x), 1), affine(x, over(x), 2), axis=split(x), out=o
        ),
        lambda g, x, o: nk.layer_norm_backward(
            g, x, over(x), affine(x, over(x), 1), affine(x, over(x), 2), axis=split(x), dx_out=o
        ),
    ),
    "layer, all axes": (
        lambda x, o: nk.layer_norm(x, x.shape, gaps(x.shape, x.dtype.name, 1), None, out=o),
        lambda g, x, o: nk.layer_norm_backward(g, x, x.shape, gaps(x.shape, x.dtype.name, 1), None, dx_out=o),
    ),
    "rms, one axis": (
        lambda x, o: nk.rms_norm(x, (c(x),), affine(x, c(x), 1), axis=1, out=o),
        lambda g, x, o: nk.rms_norm_backward(g, x, (c(x),), affine(x, c(x), 1), axis=1, dx_out=o),
    ),
    "add": (
        lambda x, o: nk.add_layer_norm(
            x,
            x[::-1],
            over(x),
            affine(x, over(x), 1),
            None,
            axis=split(x),
            out=None if o is None else (o, gaps(x.shape, x.dtype.name)),
        ),
        lambda g, x, o: nk.add_layer_norm_backward(
            g, g[::-1], x, over(x), affine(x, over(x), 1), None, axis=split(x), dx_out=o
        ),
    ),
    "batch": (
        lambda x, o: nk.batch_norm(
            x, np.zeros(c(x)), np.ones(c(x)), affine(x, c(x), 1), affine(x, c(x), 2), True, out=o
        ),
        lambda g, x, o: nk.batch_norm_backward(
            g, x, None, None, affine(x, c(x), 1), affine(x, c(x), 2), True, dx_out=o
        ),
    ),
    "batch, eval": (
        lambda x, o: nk.batch_norm(
            x, np.ones(c(x)) / 3, np.ones(c(x)), affine(x, c(x), 1), affine(x, c(x), 2), out=o
        ),
        lambda g, x, o: nk.batch_norm_backward(
            g, x, np.ones(c(x)) / 3, np.ones(c(x)), affine(x, c(x), 1), None, dx_out=o
        ),
    ),
    "instance": (
        lambda x, o: nk.instance_norm(x, np.zeros(c(x)), np.ones(c(x)), affine(x, c(x), 1), out=o),
        lambda g, x, o: nk.instance_norm_backward(g, x, None, None, affine(x, c(x), 1), None, dx_out=o),
    ),
    "group": (
        lambda x, o: nk.group_norm(x, 2, affine(x, c(x), 1), affine(x, c(x), 2), out=o),
        lambda g, x, o: nk.group_norm_backward(g, x, 2, affine(x, c(x), 1), affine(x, c(x), 2), dx_out=o),
    ),
    "adaptive": (
        lambda x, o: nk.adaptive_instance_norm(x, x[:, ::-1], out=o),
        lambda g, x, o: nk.adaptive_instance_norm_backward(g, x, x[:, ::-1], dx_out=o),
    ),
    "switchable": (
        lambda x, o: nk.switchable_norm(
            x, *(v.astype(x.dtype) for v in LOGITS), affine(x, c(x), 1), None, out=o
        ),
        lambda g, x, o: nk.switchable_norm_backward(
            g, x, *(v.astype(x.dtype) for v in LOGITS), affine(x, c(x), 1), None, dx_out=o
        ),
    ),
    "normalize": (
        lambda x, o: nk.normalize(x, 2.0, split(x), out=o),
        lambda g, x, o: nk.normalize_backward(g, x, 2.0, split(x), dx_out=o),
    ),
    "normalize, p = 3": (
        lambda x, o: nk.normalize(x, 3.0, 1, out=o),
        lambda g, x, o: nk.normalize_backward(g, x, 3.0, 1, dx_out=o),
    ),
    "weight": (
        lambda x, o: nk.weight_norm(x, affine(x, c(x), 1), 1, out=o),
        lambda g, x, o: nk.weight_norm_backward(g, x, affine(x, c(x), 1), 1, dx_out=o),
    ),
    "norm": (
        lambda x, o: nk.norm(x, pattern(x), affine(x, c(x), 1), None, affine="c", out=o),
        lambda g, x, o: nk.norm_backward(g, x, pattern(x), affine(x, c(x), 1), None, affine="c", dx_out=o),
    ),
    "tanh": (
        lambda x, o: nk.dynamic_tanh(
            x, affine(x, c(x), 3), affine(x, c(x), 1), affine(x, c(x), 2), axis=1, out=o
        ),
        lambda g, x, o: nk.dynamic_tanh_backward(
            g, x, affine(x, c(x), 3), affine(x, c(x), 1), affine(x, c(x), 2), axis=1, dx_out=o
        ),
    ),
    "local response": (
        lambda x, o: nk.local_response_norm(x, 3, out=o),
        lambda g, x, o: nk.local_response_norm_backward(g, x, 3, dx_out=o),
    ),
    "min and max": (lambda x, o: nk.min_max_scale(x, split(x), out=o), None),
    "z score": (lambda x, o: nk.z_score(x, split(x), out=o), None),
}


def arrays(results):
    results = results if isinstance(results, tuple) else (results,)
    return [np.ascontiguousarray(r) for r in results if r is not None]


def same(got, wanted, what):
    for i, (a, b) in enumerate(zip(arrays(got), arrays(wanted), strict=True)):
        checks.assert_same_bits(a, b, f"{what}, result {i}")


@pytest.mark.parametrize("name", OPERATIONS)
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
@pytest.mark.parametrize("dtype", DTYPES)
def test_every_operation(name, shape, dtype):
    forward, backward = OPERATIONS[name]
    x, dy = gaps(shape, dtype, 0), gaps(shape, dtype, 1)
    plain_x, plain_dy = np.ascontiguousarray(x), np.ascontiguousarray(dy)
    wanted = forward(plain_x, None)
    same(forward(x, None), wanted, "y")
    same(forward(plain_x, gaps(shape, dtype)), wanted, "y, out strided")
    same(forward(x, gaps(shape, dtype)), wanted, "y, both strided")
    if name not in ("add", "adaptive"):
        same(forward(place := x.copy(), place), wanted, "y in place")
        inside = gaps(shape, dtype, 0)
        same(forward(inside, inside), wanted, "y in place, strided")
    if backward is None:
        return
    wanted = backward(plain_dy, plain_x, None)
    same(backward(dy, x, None), wanted, "gradients")
    same(backward(dy, plain_x, None), wanted, "gradients, dy strided")
    same(backward(dy, x, gaps(shape, dtype)), wanted, "gradients, dx_out strided")
    if name != "add":
        inside = gaps(shape, dtype, 1)
        same(backward(inside, x, inside), wanted, "gradients in dy's place")


def test_windows():
    """The report's view: windows of a volume, transposed; broadcast and reversed axes too."""
    volume = np.random.default_rng(2).standard_normal((2, 3, 6, 5, 7)).astype(np.float32)
    windows = np.lib.stride_tricks.sliding_window_view(volume, (3, 2, 4), axis=(2, 3, 4))
    for x in (
        windows.transpose(0, 5, 2, 6, 3, 7, 4, 1),
        windows[:, :, ::-1, :, ::-2].transpose(5, 1, 2, 0, 3, 7, 4, 6),
        np.broadcast_to(windows[:, :, :, None], (2, 3, 4, 5, 4, 4, 3, 2, 4)).transpose(
            8, 1, 0, 7, 2, 3, 6, 4, 5
        ),
    ):
        plain = np.ascontiguousarray(x)
        for axis in ((1,), (1, 4, 6), tuple(range(1, x.ndim))):
            sizes = [x.shape[a] for a in axis]
            same(nk.layer_norm(x, sizes, axis=axis), nk.layer_norm(plain, sizes, axis=axis), "layer")
            w = affine(x, sizes, 3)
            same(
                nk.layer_norm_backward(x, x, sizes, w, w, axis=axis),
                nk.layer_norm_backward(plain, plain, sizes, w, w, axis=axis),
                "layer",
            )
        same(
            nk.batch_norm(x, None, None, training=True),
            nk.batch_norm(plain, None, None, training=True),
            "batch",
        )


def test_moments():
    x, dy = gaps((3, 4, 2, 3, 2, 2, 2, 2), "float32", 0), gaps((3, 4, 2, 3, 2, 2, 2, 2), "float32", 1)
    axes = (0, 2, 3, 4, 5, 6, 7)
    a, b = nk.Moments.of(x, axes), nk.Moments.of(np.ascontiguousarray(x), axes)
    checks.assert_same_bits(a.mean, b.mean, "mean")
    checks.assert_same_bits(a.var(), b.var(), "var")
    a = nk.GradSums.of(dy, x, b.mean, b.rstd(), axes)
    b = nk.GradSums.of(np.ascontiguousarray(dy), np.ascontiguousarray(x), b.mean, b.rstd(), axes)
    checks.assert_same_bits(a.sum_dy_xhat, b.sum_dy_xhat, "sums")


def test_empty_batches_and_running_statistics():
    """The parameters have their axes where x has no elements."""
    w = np.arange(256, dtype=np.float32).reshape((2,) * 8).T
    empty = np.zeros((0, *w.shape), np.float32)
    for backward in (nk.layer_norm_backward, nk.rms_norm_backward):
        grads = backward(empty, empty, w.shape, w)
        checks.assert_same_bits(grads[1], np.zeros(w.shape, np.float32), backward.__name__)
    moments = nk.Moments.of(np.random.default_rng(4).standard_normal((4, *w.shape)), (0,))
    running, plain = w.astype(np.float64, order="K"), w.astype(np.float64, order="C")
    moments.update_running(running, None)
    moments.update_running(plain, None)
    checks.assert_same_bits(running, plain, "running mean")


def test_overlaps_are_found():
    """An out that shares memory with x in any other way than as the same view is still refused."""
    shape = (2,) * 9
    base = np.zeros((3,) * 9, np.float32)
    view = base[tuple(slice(0, 2) for _ in shape)]
    shifted = base[tuple(slice(1, 3) for _ in shape)]
    swapped = view.swapaxes(0, 8)
    beside = np.zeros((*(3,) * 8, 4), np.float32)
    for out in (shifted, swapped, np.broadcast_to(view[:1], shape)):
        with pytest.raises(ValueError, match="out"):
            nk.layer_norm(view, (2,), out=out)
    assert (base == 0).all()
    # Interleaved, without a common element.
    even = beside[(*(slice(0, 2) for _ in range(8)), slice(0, 4, 2))]
    odd = beside[(*(slice(0, 2) for _ in range(8)), slice(1, 4, 2))]
    even[...] = np.random.default_rng(0).standard_normal(shape)
    same(nk.layer_norm(even, (2,), out=odd), nk.layer_norm(even.copy(), (2,)), "beside")
