"""Strides and axes: any layout of the same values gives the bits of the contiguous one.

Channels-last groups have a numbering of their own, whatever else their strides are.
"""

import itertools

import checks
import normkit
import numpy as np
import pytest
from reference.families import families_of, make, parameters
from reference.operations import OPERATIONS, ROW_OPERATIONS
from reference.recipe import values
from reference.wide import DTYPES

pytestmark = pytest.mark.compares
every_operation = pytest.mark.parametrize("op", OPERATIONS, ids=str)
every_row_operation = pytest.mark.parametrize("op", ROW_OPERATIONS, ids=str)
every_dtype = pytest.mark.parametrize("dtype", DTYPES)
EPS = 1e-5


def strided(array, how):
    """A view with `array`'s values in another arrangement of memory; what lies between holds NaN."""
    nan = np.float32("nan").astype(array.dtype)
    if how == "contiguous":
        return array.copy()
    if how == "every second":
        memory = np.full((*array.shape[:-1], 2 * array.shape[-1]), nan)
        view = memory[..., ::2]
    elif how == "padded rows":
        memory = np.full((*array.shape[:-1], array.shape[-1] + 5), nan)
        view = memory[..., 2 : 2 + array.shape[-1]]
    elif how == "reversed":
        view = np.empty_like(array)[tuple(slice(None, None, -1) for _ in array.shape)]
    elif how == "transposed":
        view = np.empty(array.shape[::-1], array.dtype).T
    elif how == "every third row":
        memory = np.full((3 * array.shape[0], *array.shape[1:]), nan)
        view = memory[1::3]
    else:
        raise ValueError(how)
    view[...] = array
    return view


HOW = ("contiguous", "every second", "padded rows", "reversed", "transposed", "every third row")


def results(op, case, x, dy, weight, bias, out=None, dx_out=None):
    forward = op.forward(x, case, weight=weight, bias=bias, eps=EPS, return_stats=True, out=out)
    return (*forward, *op.backward(dy, x, case, weight=weight, bias=bias, eps=EPS, dx_out=dx_out))


def problem(case, rows, n, dtype):
    x, dy = (case.from_sets(values((rows, n), dtype, kind, s)) for kind, s in (("spread", 1), ("plain", 2)))
    weight, bias = (values(case.parameter_shape, dtype, "plain", seed) for seed in (3, 4))
    return x, dy, weight, bias


@every_dtype
@every_operation
@pytest.mark.parametrize("how", HOW)
def test_strided_equals_contiguous(op, dtype, how):
    for rows, n in ((1, op.smallest), (3, 5), (4, 70), (70, 33), (2, 1030)):
        case = op.make_case(rows, n)
        x, dy, weight, bias = problem(case, rows, n, dtype)
        expected = results(op, case, x, dy, weight, bias)
        views = [strided(array, how) for array in (x, dy)]
        for k, result in enumerate(results(op, case, x, views[1], weight, bias)):
            checks.assert_same_bits(result, expected[k], f"dy {how}, result {k}, {rows}x{n}")
        if op.numbering(views[0], case) != op.numbering(x, case):
            expected = results(op, case, views[0].copy(order="K"), dy, weight, bias)
        for gradient in (views[1], dy):
            for k, result in enumerate(results(op, case, views[0], gradient, weight, bias)):
                checks.assert_same_bits(result, expected[k], f"{how}, result {k}, {rows}x{n}")


@every_dtype
@every_operation
@pytest.mark.parametrize("how", HOW)
def test_strided_outputs(op, dtype, how):
    for rows, n in ((3, 5), (9, 70), (2, 1030)):
        case = op.make_case(rows, n)
        x, dy, weight, bias = problem(case, rows, n, dtype)
        expected = results(op, case, x, dy, weight, bias)
        out, dx_out = strided(np.zeros_like(x), how), strided(np.zeros_like(x), how)
        returned = results(op, case, x, dy, weight, bias, out=out, dx_out=dx_out)
        assert returned[0] is out
        checks.assert_same_bits(out, expected[0], f"out {how}")
        checks.assert_same_bits(dx_out, expected[len(op.statistics) + 1], f"dx_out {how}")


@every_dtype
@every_operation
def test_strided_parameters(op, dtype):
    rows, n = 5, 70
    case = op.make_case(rows, n)
    x, dy, weight, bias = problem(case, rows, n, dtype)
    expected = results(op, case, x, dy, weight, bias)
    for how in ("every second", "reversed"):
        for k, result in enumerate(results(op, case, x, dy, strided(weight, how), strided(bias, how))):
            checks.assert_same_bits(result, expected[k], f"parameters {how}, result {k}")
    outs = [strided(np.zeros_like(weight), "every second"), strided(np.zeros_like(bias), "reversed")]
    op.backward(dy, x, case, weight=weight, bias=bias, eps=EPS, grads_out=tuple(outs))
    checks.assert_same_bits(outs[0], expected[-2], "strided dweight")
    checks.assert_same_bits(outs[1], expected[-1], "strided dbias")


@every_dtype
@every_operation
def test_zero_strides(op, dtype):
    """Broadcast inputs: one row for all, one column for all, one number for a parameter."""
    rows, n = 6, 35
    case = op.make_case(rows, n)
    x, dy, weight, bias = problem(case, rows, n, dtype)
    for source in (x[:1], x[:, :1]):
        view = np.broadcast_to(source, x.shape)
        assert 0 in view.strides
        expected = results(op, case, view.copy(), dy, weight, bias)
        for k, result in enumerate(results(op, case, view, dy, weight, bias)):
            checks.assert_same_bits(result, expected[k], f"broadcast x, result {k}")
    number = np.broadcast_to(weight[:1], weight.shape)
    expected = results(op, case, x, np.broadcast_to(dy[:1], dy.shape).copy(), number.copy(), number.copy())
    for k, result in enumerate(results(op, case, x, np.broadcast_to(dy[:1], dy.shape), number, number)):
        checks.assert_same_bits(result, expected[k], f"broadcast dy and parameters, result {k}")


@every_dtype
@every_operation
def test_axes(op, dtype):
    """axis=...: right, and the same bits as with the normalized axes moved last."""
    for name, (rows, n) in itertools.product(
        op.layouts, ((1, op.smallest), (4, 15), (8, 70), (6, 300), (40, 65), (2, 1030))
    ):
        case, plain = op.layouts[name](rows, n), op.make_case(rows, n)
        x_sets, dy_sets = make("mean 1e3 std 1", rows, n, dtype), make("normal", rows, n, dtype)
        weight, bias = parameters(plain.parameter_shape, dtype)
        own = [case.from_sets(a) for a in (x_sets, dy_sets)]
        own += [p.reshape(case.parameter_shape) for p in (weight, bias)]
        result = results(op, case, *own)
        expected = results(op, plain, plain.from_sets(x_sets), plain.from_sets(dy_sets), weight, bias)
        statistics = len(op.statistics)
        for k, (actual, wanted) in enumerate(zip(result, expected, strict=True)):
            if 1 <= k <= statistics:
                assert actual.shape == case.statistics_shape
                wanted = plain.statistics_of_sets(wanted)
                actual = case.statistics_of_sets(actual)
            elif k in (0, statistics + 1):
                wanted = case.from_sets(plain.to_sets(wanted))
            else:
                wanted = wanted.reshape(case.parameter_shape)
            if op.numbering(own[0], case) == "logical":
                checks.assert_same_bits(actual, wanted, f"{name} {rows}x{n}, result {k}")
        standard = op.reference(own[0], case, EPS)
        checks.assert_affine(op, result[0], standard, case, own[2], own[3], f"{name} {rows}x{n}")
        exact = op.reference_backward(own[1], own[0], case, EPS, own[2])
        for k, what in enumerate(("dx", "dweight", "dbias")):
            terms = getattr(exact, what + "_terms")
            checks.assert_gradient(
                op, what, result[statistics + 1 + k], getattr(exact, what), terms, f"{name} {rows}x{n}", dtype
            )


@every_dtype
@every_operation
@pytest.mark.parametrize("place", ("all", "some"))
def test_layouts_out_of_range(op, dtype, place):
    """Sets that leave float's range, and their neighbours in the vector: the bits of one set at a time."""
    for name, family in itertools.product(
        op.layouts, ("outlier 1e30", "scale 1e-20", "scale 1e30", "subnormal", "all equal", "Cauchy")
    ):
        if family not in families_of(dtype):
            continue
        rows, n = 36, 330
        case, plain = op.layouts[name](rows, n), op.make_case(rows, n)
        x, dy = make("normal", rows, n, dtype), make("normal", rows, n, dtype, seed=3)
        odd = slice(None) if place == "all" else slice(5, None, 16)
        x[odd] = make(family, rows, n, dtype)[odd]
        if dtype in ("float32", "bfloat16"):  # rstd below 2^-100, means of dy beyond 2^100, sums beyond 2^128
            x[odd] *= x.dtype.type(1e4 if family == "scale 1e30" else 1)
            dy[odd] *= dy.dtype.type({"scale 1e-20": 3e37, "all equal": 3e34}.get(family, 1))
        weight, bias = parameters(plain.parameter_shape, dtype)
        own = [p.reshape(case.parameter_shape) for p in (weight, bias)]
        result = results(op, case, case.from_sets(x), case.from_sets(dy), *own)
        expected = results(op, plain, plain.from_sets(x), plain.from_sets(dy), weight, bias)
        if op.numbering(case.from_sets(x), case) != "logical":
            view = strided(case.from_sets(x), "every third row")  # the same through a buffer
            expected = results(op, case, view, case.from_sets(dy), *own)
            for k, wanted in enumerate(expected):
                checks.assert_same_bits(result[k], wanted, f"{name} {family} result {k}")
            continue
        for k in (0, len(op.statistics) + 1):
            sets = case.to_sets(result[k])
            checks.assert_same_bits(sets, plain.to_sets(expected[k]), f"{name} {family} result {k}")
        for k in (-2, -1):
            flat = [a.reshape(-1) for a in (result[k], expected[k])]
            checks.assert_same_bits(*flat, f"{name} {family} gradient {k}")


@every_dtype
@every_operation
def test_given_statistics_in_every_layout(op, dtype):
    """Saved statistics, and BatchNorm's running ones as constants."""
    for name in op.layouts:
        rows, n = 36, 330
        case, plain = op.layouts[name](rows, n), op.make_case(rows, n)
        x, dy = make("mean 1e3 std 1", rows, n, dtype), make("normal", rows, n, dtype)
        weight, bias = parameters(plain.parameter_shape, dtype)
        own = [p.reshape(case.parameter_shape) for p in (weight, bias)]
        gradients = []
        if op.numbering(case.from_sets(x), case) != "logical":
            expected = op.backward(
                case.from_sets(dy), case.from_sets(x), case, weight=own[0], bias=own[1], eps=EPS
            )
            saved = op.saved(case.from_sets(x), case, EPS)
            view = strided(case.from_sets(x), "every third row")
            dx = op.backward(case.from_sets(dy), view, case, weight=own[0], bias=own[1], eps=EPS, **saved)[0]
            checks.assert_same_bits(dx, expected[0], f"{name} saved")
            continue
        for c, w, b in ((case, *own), (plain, weight, bias)):
            saved = op.saved(c.from_sets(x), c, EPS)
            dx = op.backward(c.from_sets(dy), c.from_sets(x), c, weight=w, bias=b, eps=EPS, **saved)[0]
            gradients.append(c.to_sets(dx))
            if op.name == "batch_norm":
                options = c.options | {"training": False}
                fixed = [np.linspace(999, 1001, rows), np.linspace(0.5, 2, rows)]
                y = normkit.batch_norm(c.from_sets(x), *fixed, w, b, **options)
                d = normkit.batch_norm_backward(c.from_sets(dy), c.from_sets(x), *fixed, w, b, **options)
                gradients[-1] = (gradients[-1], c.to_sets(y), c.to_sets(d[0]), *d[1:])
        if op.name == "batch_norm":
            for k, (a, b) in enumerate(zip(*gradients, strict=True)):
                checks.assert_same_bits(a, b, f"{name} {k}")
        else:
            checks.assert_same_bits(*gradients, f"{name} saved")


def channels_last_views(array):
    """[N, C, H, W] with channels side by side: dense, cropped, from an image of more channels, one sample at
    a time backwards, two axes of space that do not merge."""
    n, c, h, w = array.shape
    yield np.ascontiguousarray(np.moveaxis(array, 1, -1))
    crop = np.full((n, h + 2, w + 3, c), np.nan).astype(array.dtype)
    yield crop[:, 1 : 1 + h, 2 : 2 + w]
    yield np.full((n, h, w, c + 5), np.nan).astype(array.dtype)[..., 3 : 3 + c]
    yield np.empty((n, h, w, c), array.dtype)[::-1]
    yield np.empty((n, w, h, c), array.dtype).swapaxes(1, 2)


@every_dtype
@pytest.mark.parametrize(
    ("shape", "groups"),
    (
        ((2, 64, 5, 7), 32),
        ((3, 37, 4, 9), 1),
        ((2, 96, 6, 6), 32),
        ((2, 66, 40, 33), 33),
        ((1, 300, 3, 5), 2),
        ((2, 82, 33, 40), 2),
        ((3, 6, 5, 5), 3),
        ((2, 48, 60, 70), 12),
    ),
)
def test_channels_last_groups(dtype, shape, groups, threads):
    """The same bits dense and strided, whole and sample by sample, for any number of threads, in place; and
    right."""
    x, dy = (values(shape, dtype, kind, s) for kind, s in (("spread", 1), ("plain", 2)))
    weight, bias = (values(shape[1:2], dtype, "plain", seed) for seed in (3, 4))

    def run(x, dy):
        forward = normkit.group_norm(x, groups, weight, bias, EPS, channel_axis=-1, return_stats=True)
        return *forward, *normkit.group_norm_backward(dy, x, groups, weight, bias, EPS, channel_axis=-1)

    dense, dense_dy = (next(channels_last_views(array)) for array in (x, dy))
    expected = run(dense, dense_dy)
    for view, view_dy in zip(*map(channels_last_views, (x, dy)), strict=True):
        view[...], view_dy[...] = dense, dense_dy
        for count in (1, 3):
            threads(count)
            for k, result in enumerate(run(view, view_dy)):
                checks.assert_same_bits(result, expected[k], f"result {k}, strides {view.strides}")
    for i in range(shape[0]):
        for k, result in enumerate(run(dense[i : i + 1], dense_dy[i : i + 1])[:4]):
            checks.assert_same_bits(result, expected[k][i : i + 1], f"sample {i}, result {k}")
    saved = {"mean": expected[1], "rstd": expected[2]}
    gradients = normkit.group_norm_backward(
        dense_dy, dense, groups, weight, bias, EPS, channel_axis=-1, **saved
    )
    for k, result in enumerate(gradients):
        checks.assert_same_bits(result, expected[3 + k], f"saved statistics, gradient {k}")
    target = dense_dy.copy()
    dx = normkit.group_norm_backward(
        target, dense, groups, weight, bias, EPS, channel_axis=-1, dx_out=target
    )[0]
    checks.assert_same_bits(dx, expected[3], "dx in place of dy")
    target = dense.copy()
    y = normkit.group_norm(target, groups, weight, bias, EPS, channel_axis=-1, out=target)
    checks.assert_same_bits(y, expected[0], "y in place of x")


@pytest.mark.parametrize("dtype", ("float32", "bfloat16"))
@pytest.mark.parametrize("shape", ((3, 64, 40, 90), (2, 83, 100, 41), (1, 16, 600, 500), (6, 192, 88, 44)))
def test_channels_last_beyond_the_cache(dtype, shape, threads):
    """Block by block, then channel by channel, then y: the bits of one channel at a time, those of channels
    beyond float's range and their neighbours' too; running statistics; written past the cache; in place.
    """
    x, dy = (values(shape, dtype, kind, s) for kind, s in (("spread", 1), ("plain", 2)))
    with np.errstate(over="ignore"):
        x[:, 3] *= x.dtype.type(1e35)
        dy[:, 5] *= dy.dtype.type(3e37)
    weight, bias = (values(shape[1:2], dtype, "plain", seed) for seed in (3, 4))
    last, last_dy = (np.ascontiguousarray(np.moveaxis(array, 1, -1)) for array in (x, dy))

    def run(name, x, dy, axis, groups=()):
        function, backward = getattr(normkit, name), getattr(normkit, name + "_backward")
        running = [np.full(shape[1], v) for v in (0.25, 4.0)] if name != "group_norm" else []
        options = {"training": True} if name == "batch_norm" else {}
        keywords = {"weight": weight, "bias": bias, "channel_axis": axis, **options}
        y, mean, rstd = function(x, *groups, *running, return_stats=True, **keywords)
        unused = [None] * len(running)
        again = function(x, *groups, *unused, **keywords)
        checks.assert_same_bits(again, y, "without running statistics")
        gradients = backward(dy, x, *groups, *unused, mean=mean, rstd=rstd, **keywords)
        fresh = backward(dy, x, *groups, *unused, **keywords)
        for given, computed in zip(gradients, fresh, strict=True):
            checks.assert_same_bits(given, computed, "saved statistics")
        target = dy.copy(order="K")
        dx = backward(target, x, *groups, *unused, mean=mean, rstd=rstd, dx_out=target, **keywords)[0]
        checks.assert_same_bits(dx, gradients[0], "dx in place of dy")
        target = x.copy(order="K")
        checks.assert_same_bits(
            function(target, *groups, *unused, out=target, **keywords), y, "in place of x"
        )
        return [y, mean, rstd, *running, *gradients]

    for name in ("batch_norm", "instance_norm"):
        expected = run(name, x, dy, 1)
        for k in (0, -3):
            expected[k] = np.ascontiguousarray(np.moveaxis(expected[k], 1, -1))
        for count in (1, 3):
            threads(count)
            for k, result in enumerate(run(name, last, last_dy, -1)):
                checks.assert_same_bits(result, expected[k], f"{name}, result {k}, {count} threads")
    rows = np.full((shape[0], shape[2], shape[3] + 1, shape[1]), np.nan).astype(last.dtype)[:, :, 1:]
    rows[...] = last
    for groups in (1, shape[1] // 2 if shape[1] % 2 == 0 else shape[1]):
        expected = run("group_norm", rows, last_dy, -1, (groups,))
        for k, result in enumerate(run("group_norm", last, last_dy, -1, (groups,))):
            checks.assert_same_bits(result, expected[k], f"group_norm({groups}), result {k}")


@every_dtype
@every_operation
def test_results_keep_the_order_of_the_axes(op, dtype):
    """Channels-last memory seen in the usual order gives a result in that memory's order (NumPy's "K")."""
    case = op.make_case(6, 40)
    x, dy, weight, bias = problem(case, 6, 40, dtype)
    last = np.moveaxis(np.ascontiguousarray(np.moveaxis(x, 1, -1)), -1, 1)
    y = op.forward(last, case, weight=weight, bias=bias, eps=EPS)
    assert y.strides == np.empty_like(last).strides
    if op.numbering(last, case) != "logical":
        x = np.moveaxis(strided(np.moveaxis(last, 1, -1), "every third row"), -1, 1)
    checks.assert_same_bits(y, op.forward(x, case, weight=weight, bias=bias, eps=EPS), "layout")
    dx = op.backward(dy, last, case, weight=weight, bias=bias, eps=EPS)[0]
    assert dx.strides == np.empty_like(last).strides


@every_row_operation
def test_many_axes(op):
    """Rank does not matter; more than six axes that do not merge: test_many_axes.py."""
    flat = values((24, 36), "float32", "spread", 1)
    case = op.make_case(24, 36)
    y = op.forward(flat, case, eps=EPS)
    deep = flat.reshape(2, 1, 3, 2, 1, 2, 6, 1, 6)
    shaped = type(case)(shape=deep.shape, arguments=((6, 1, 6),), axes=(6, 7, 8), parameter_axes=(6, 7, 8))
    checks.assert_same_bits(op.forward(deep, shaped, eps=EPS).reshape(flat.shape), y, "nine axes")
    apart = np.repeat(flat[:16, :16].reshape((2,) * 8), 2, 7)[..., ::2, ::-1, :, :, :, :, :, ::2]
    apart = np.moveaxis(apart, 0, 6)
    shaped = type(case)(shape=apart.shape, arguments=((2,),), axes=(7,), parameter_axes=(7,))
    plain = np.ascontiguousarray(apart)
    checks.assert_same_bits(op.forward(apart, shaped, eps=EPS), op.forward(plain, shaped, eps=EPS), "apart")


@every_row_operation
def test_integer_and_list_as_normalized_shape(op):
    x = values((4, 6), "float32", "plain", 1)
    case = op.make_case(4, 6)
    y = op.forward(x, case, eps=EPS)
    for arguments in ((6,), ([6],), ((np.int64(6),),), (np.int32(6),)):
        same = type(case)(**{**vars(case), "arguments": arguments})
        checks.assert_same_bits(op.forward(x, same, eps=EPS), y, str(arguments))
