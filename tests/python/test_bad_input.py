"""Wrong arguments: the right exception, a message that names the argument, nothing written, no crash."""

import re

import checks
import numpy as np
import pytest
from reference.operations import OPERATIONS, ROW_OPERATIONS
from reference.recipe import values
from reference.wide import DTYPES, numpy_dtype

pytestmark = pytest.mark.compares
every_operation = pytest.mark.parametrize("op", OPERATIONS, ids=str)
ROWS, N = 6, 10


class Problem:
    """Good arguments of one operation, each replaceable by a bad one, with outputs that hold a sentinel."""

    def __init__(self, op, dtype="float32"):
        self.op, self.case = op, op.make_case(ROWS, N)
        self.x = self.case.from_sets(values((ROWS, N), dtype, "plain", 1))
        self.dy = self.case.from_sets(values((ROWS, N), dtype, "plain", 2))
        self.weight, self.bias = (values(self.case.parameter_shape, dtype, "plain", s) for s in (3, 4))
        self.out, self.dweight, self.dbias = (np.full_like(a, 77) for a in (self.x, self.weight, self.bias))

    def forward(self, **bad):
        arguments = dict(weight=self.weight, bias=self.bias, out=self.out) | bad
        return self.op.forward(arguments.pop("x", self.x), arguments.pop("case", self.case), **arguments)

    def backward(self, **bad):
        grads_out = (self.dweight, self.dbias)
        arguments = dict(weight=self.weight, bias=self.bias, dx_out=self.out, grads_out=grads_out) | bad
        x, dy, case = (arguments.pop(k, getattr(self, k)) for k in ("x", "dy", "case"))
        return self.op.backward(dy, x, case, **arguments)

    def case_with(self, *arguments, **options):
        return type(self.case)(**{**vars(self.case), "arguments": arguments, "options": options})

    def refuses(self, exception, words, call, **bad):
        """`call` with `bad` raises, the message contains each of `words`, and nothing was written."""
        memory = [array for array in (self.x, self.dy, self.weight, self.bias) if array is not None]
        before = checks.digest(*memory)
        with pytest.raises(exception) as caught:
            call(**bad)
        for word in [words] if isinstance(words, str) else words:
            assert re.search(rf"\b{re.escape(word)}\b", str(caught.value)), f"{word!r} not in {caught.value}"
        assert len(str(caught.value)) > 15
        for out in (self.out, self.dweight, self.dbias):
            assert (out == 77).all(), "something was written"
            checks.COUNT.values += out.size
        assert checks.digest(*memory) == before, "an input was written"


@pytest.fixture(params=OPERATIONS, ids=str)
def problem(request):
    good = Problem(request.param)
    good.forward(out=None)  # or nothing below would mean anything
    good.backward(dx_out=None, grads_out=None)
    return good


@pytest.fixture(params=ROW_OPERATIONS, ids=str)
def row_problem(request):
    return Problem(request.param)


@pytest.fixture(params=("weight", "bias"))
def name(request):
    return request.param


BAD_PARAMETERS = {
    "too short": lambda p: p[:-1],
    "one element": lambda p: p[:1],
    "too long": lambda p: np.concatenate([p, p[:1]]),
    "empty": lambda p: p[:0],
    "a scalar": lambda p: np.array(p[0]),
    "a row": lambda p: p[None, :],
    "a column": lambda p: p[:, None],
    "of x's shape": lambda p: np.zeros((ROWS, N), p.dtype),
}


@pytest.mark.parametrize("bad", BAD_PARAMETERS)
def test_parameter_of_the_wrong_shape(problem, name, bad):
    """CVE-2021-29583 read past the end of a scale that was too short, and dereferenced an empty one."""
    value = BAD_PARAMETERS[bad](getattr(problem, name))
    problem.refuses(ValueError, [name, "shape"], problem.forward, **{name: value})
    problem.refuses(ValueError, [name, "shape"], problem.backward, **{name: value})


@pytest.mark.parametrize(
    "dtype", ("int32", "int64", "bool", "complex64", "float64", "float16", "bfloat16", "object", "S4")
)
def test_parameter_of_the_wrong_type(problem, name, dtype):
    value = np.ones(N, numpy_dtype(dtype))
    problem.refuses(TypeError, name, problem.forward, **{name: value})
    problem.refuses(TypeError, name, problem.backward, **{name: value})


@every_operation
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("parameter_dtype", DTYPES)
def test_which_parameter_types_go_together(op, dtype, parameter_dtype, name):
    """x's own, or float32 unless x is float64 (pytorch#102922: the error text spoke of BFloat16)."""
    problem = Problem(op, dtype)
    value = getattr(problem, name).astype(numpy_dtype(parameter_dtype))
    if parameter_dtype == dtype or (parameter_dtype == "float32" and dtype != "float64"):
        assert problem.forward(**{name: value}) is problem.out
        checks.COUNT.values += 1
    else:
        problem.refuses(TypeError, [name, parameter_dtype], problem.forward, **{name: value})


@pytest.mark.parametrize(
    "value", ([1.0] * N, (1.0,) * N, "weight", 1.0, 3, object(), {"a": 1}, range(N), b"0123456789")
)
@pytest.mark.parametrize("argument", ("x", "weight", "bias", "out", "dy", "dx_out"))
def test_no_array(problem, argument, value):
    call = problem.backward if argument in ("dy", "dx_out") else problem.forward
    problem.refuses(TypeError, argument, call, **{argument: value})


@pytest.mark.parametrize(
    "dtype", ("int32", "uint8", "bool", "complex128", "object", "M8[s]", "S3", "longdouble")
)
def test_x_of_the_wrong_type(problem, dtype):
    x = np.zeros(problem.x.shape, dtype)
    problem.refuses(TypeError, "x", problem.forward, x=x)
    problem.refuses(TypeError, "x", problem.backward, x=x)
    problem.refuses(TypeError, "dy", problem.backward, dy=x)


@pytest.mark.parametrize("argument", ("x", "weight", "bias", "out", "dy", "dx_out"))
def test_non_native_byte_order(problem, argument):
    template = {"x": problem.x, "dy": problem.dy}.get(argument, problem.out)
    template = getattr(problem, argument, template)
    swapped = template.astype(template.dtype.newbyteorder())
    call = problem.backward if argument in ("dy", "dx_out") else problem.forward
    problem.refuses(ValueError, [argument, "byte order"], call, **{argument: swapped})


def test_misaligned(problem):
    for argument in ("x", "weight", "bias", "out"):
        template = getattr(problem, argument)
        memory = np.zeros(template.nbytes + 16, np.uint8)
        start = -memory.ctypes.data % 8 + 1
        odd = memory[start : start + template.nbytes].view(template.dtype).reshape(template.shape)
        assert not odd.flags.aligned
        problem.refuses(ValueError, argument, problem.forward, **{argument: odd})


@pytest.mark.parametrize("shape", ((N + 1,), (1,), (ROWS,), (ROWS, N, 1), (1, N), (N, 1), (0,), (-1,), (-N,)))
def test_normalized_shape_mismatch(row_problem, shape):
    case = row_problem.case_with(shape)
    row_problem.refuses(ValueError, "normalized_shape", row_problem.forward, case=case)
    row_problem.refuses(ValueError, "normalized_shape", row_problem.backward, case=case)


@pytest.mark.parametrize(
    "shape", (None, 10.0, "10", (10.0,), (None,), object(), ("10",), True, [[10]], b"\n")
)
def test_normalized_shape_is_no_shape(row_problem, shape):
    row_problem.refuses(TypeError, "normalized_shape", row_problem.forward, case=row_problem.case_with(shape))
    row_problem.refuses(
        TypeError, "normalized_shape", row_problem.backward, case=row_problem.case_with(shape)
    )


@pytest.mark.parametrize("shape", ((), [], (2**63,), (2**70,), (-(2**63),), (1,) * 100))
def test_normalized_shape_out_of_range(row_problem, shape):
    row_problem.refuses(
        ValueError, "normalized_shape", row_problem.forward, case=row_problem.case_with(shape)
    )


@pytest.mark.parametrize("axis", (2, -3, 100, 2**62, -(2**63), (1, 1), (1, -1), (0, 5), ()))
def test_axis_out_of_range(row_problem, axis):
    row_problem.refuses(ValueError, "axis", row_problem.forward, case=row_problem.case_with((N,), axis=axis))


@pytest.mark.parametrize("axis", (1.0, "1", (1.0,), object(), "channels"))
def test_axis_is_no_axis(row_problem, axis):
    row_problem.refuses(TypeError, "axis", row_problem.forward, case=row_problem.case_with((N,), axis=axis))


def test_axis_and_shape_disagree(row_problem):
    row_problem.refuses(
        ValueError, "normalized_shape", row_problem.forward, case=row_problem.case_with((N,), axis=0)
    )
    row_problem.refuses(
        ValueError, "normalized_shape", row_problem.forward, case=row_problem.case_with((N,), axis=(0, 1))
    )
    other_order = row_problem.case_with((N, ROWS), axis=(1, 0))
    row_problem.refuses(
        ValueError, ["normalized_shape", "in x's order"], row_problem.forward, case=other_order
    )


@pytest.mark.parametrize(
    "shape", ((ROWS, N - 1), (ROWS - 1, N), (ROWS, N, 1), (N, ROWS), (ROWS * N,), (0, N), ())
)
@pytest.mark.parametrize("argument", ("out", "dy", "dx_out"))
def test_shape_unlike_x(problem, argument, shape):
    """CVE-2021-41223: y_backprop and x of different sizes."""
    call = problem.forward if argument == "out" else problem.backward
    problem.refuses(ValueError, [argument, "shape"], call, **{argument: np.full(shape, 77, np.float32)})


@pytest.mark.parametrize("dtype", ("float64", "float16", "bfloat16", "int32"))
@pytest.mark.parametrize("argument", ("out", "dy", "dx_out"))
def test_type_unlike_x(problem, argument, dtype):
    call = problem.forward if argument == "out" else problem.backward
    array = np.zeros(problem.x.shape, numpy_dtype(dtype))
    problem.refuses(TypeError, [argument, "dtype"], call, **{argument: array})


@pytest.mark.parametrize("argument", ("out", "dx_out"))
def test_read_only_output(problem, argument):
    array = np.full_like(problem.x, 77)
    array.flags.writeable = False
    call = problem.forward if argument == "out" else problem.backward
    problem.refuses(ValueError, [argument, "read-only"], call, **{argument: array})
    assert (array == 77).all()


@pytest.mark.parametrize("argument", ("out", "dx_out"))
def test_output_overlaps_itself(problem, argument):
    memory = np.full(200, 77, np.float32)
    strides = [(0, 4), (4, 4), (36, 4), (40, 0), (0, 0), (-4, 4)]
    for rows, columns in strides:
        view = np.lib.stride_tricks.as_strided(memory[60:], (ROWS, N), (rows, columns))
        call = problem.forward if argument == "out" else problem.backward
        problem.refuses(ValueError, argument, call, **{argument: view})
        assert (memory == 77).all()


@pytest.mark.parametrize("argument", ("out", "dx_out"))
@pytest.mark.parametrize("shift", (1, 3, N, 2 * N + 1, ROWS * N - 1, -1, -N))
def test_output_overlaps_an_input_partly(problem, argument, shift):
    memory = values((3 * ROWS * N,), "float32", "plain", 9)
    before = memory.copy()
    start = ROWS * N
    x = memory[start : start + ROWS * N].reshape(problem.x.shape)
    out = memory[start + shift : start + shift + ROWS * N].reshape(problem.x.shape)
    call = problem.forward if argument == "out" else problem.backward
    problem.refuses(ValueError, [argument, "x"], call, **{argument: out, "x": x})
    assert (memory == before).all()


def test_output_overlaps_an_input_in_another_order(row_problem):
    """The same memory with other strides is no in-place call."""
    square = values((N, N), "float32", "plain", 9)
    before = square.copy()
    case = row_problem.op.make_case(N, N)
    for out in (square.T, square[::-1], square[:, ::-1]):
        row_problem.refuses(ValueError, "out", row_problem.forward, x=square, case=case, out=out)
    assert (square == before).all()


@pytest.mark.parametrize("parameter", ("weight", "bias"))
def test_output_overlaps_a_parameter(problem, parameter):
    out = np.full_like(problem.x, 77)
    shared = out.reshape(-1)[: problem.weight.size]
    problem.refuses(ValueError, "out", problem.forward, out=out, **{parameter: shared})
    problem.refuses(ValueError, "dx_out", problem.backward, dx_out=out, **{parameter: shared})
    assert (out == 77).all()


def test_interleaved_output_is_no_overlap(problem):
    """x and out may share a block of memory without sharing an element."""
    *rows, columns = problem.x.shape
    for left, right, name in (
        (slice(0, columns), slice(columns, None), "left and right half"),
        (slice(None, None, 2), slice(1, None, 2), "even, odd"),
    ):
        memory = np.zeros((*rows, 2 * columns), np.float32)
        memory[..., left] = problem.x
        out = problem.forward(x=memory[..., left], out=memory[..., right])
        checks.assert_same_bits(out, problem.forward(), name)


def test_gradients_overlap(problem):
    weight_gradient = np.full(N, 77, np.float32)
    problem.refuses(ValueError, "grads_out", problem.backward, grads_out=(weight_gradient, weight_gradient))
    problem.refuses(ValueError, "grads_out", problem.backward, grads_out=(problem.weight, problem.dbias))
    out = np.full_like(problem.x, 77)
    problem.refuses(ValueError, "grads_out", problem.backward, dx_out=out, grads_out=(out[1], problem.dbias))
    problem.refuses(ValueError, "grads_out", problem.backward, grads_out=(problem.dweight, problem.x[1]))


@pytest.mark.parametrize("place", (0, 1))
def test_bad_grads_out(problem, place):
    def grads(bad):
        pair = [problem.dweight, problem.dbias]
        pair[place] = bad
        return tuple(pair)

    for bad in (np.full(N - 1, 77, np.float32), np.full(0, 77, np.float32), np.full((1, N), 77, np.float32)):
        problem.refuses(ValueError, ["grads_out", "shape"], problem.backward, grads_out=grads(bad))
    for bad in (np.full(N, 77, np.int32), np.full(N, 77, np.float16), [77.0] * N, 77.0):
        problem.refuses(TypeError, "grads_out", problem.backward, grads_out=grads(bad))
    read_only = np.full(N, 77, np.float32)
    read_only.flags.writeable = False
    problem.refuses(ValueError, ["grads_out", "read-only"], problem.backward, grads_out=grads(read_only))
    broadcast = np.lib.stride_tricks.as_strided(np.full(1, 77, np.float32), (N,), (0,))
    problem.refuses(ValueError, "grads_out", problem.backward, grads_out=grads(broadcast))


def test_grads_out_is_no_pair(problem):
    for bad in ((problem.dweight,), (problem.dweight, problem.dbias, problem.dbias), (), 5):
        problem.refuses((TypeError, ValueError), "grads_out", problem.backward, grads_out=bad)


def test_accumulate_into_nothing(problem):
    problem.refuses(ValueError, "accumulate", problem.backward, grads_out=None, accumulate=True)


def test_bad_saved_statistics(problem):
    good = problem.op.saved(problem.x, problem.case, 1e-5)
    for name in problem.op.statistics:
        for bad in (
            good[name][:-1],
            good[name][:0],
            good[name][None],
            np.zeros((ROWS, N)),
        ):
            problem.refuses(ValueError, [name, "shape"], problem.backward, **(good | {name: bad}))
        for bad in (
            good[name].astype(np.int64),
            good[name].astype(np.float16),
            [1.0],
        ):
            problem.refuses(TypeError, name, problem.backward, **(good | {name: bad}))
        if len(good) > 1:
            others = {key: value for key, value in good.items() if key != name}
            problem.refuses(ValueError, name, problem.backward, **others)


@pytest.mark.parametrize("eps", ("1e-5", [1e-5], None, 1j, object(), np.ones(2), b"1"))
def test_eps_is_no_number(problem, eps):
    if eps is None and problem.op.name == "rms_norm":
        problem.forward(eps=None)  # its default
        checks.COUNT.values += 1
        return
    problem.refuses(TypeError, "eps", problem.forward, eps=eps)
    problem.refuses(TypeError, "eps", problem.backward, eps=eps)


def test_eps_is_nan_or_negative(problem):
    for eps in (float("nan"), -1e-5, -1e9, float("-inf")):
        problem.refuses(ValueError, "eps", problem.forward, eps=eps)
        problem.refuses(ValueError, "eps", problem.backward, eps=eps)


@pytest.mark.parametrize("eps", (1e30, float("inf"), 0, 1, np.float32(0.5), True))
def test_eps_of_any_size_does_what_pytorch_does(problem, eps):
    """1 / sqrt(var + eps) in IEEE arithmetic: 0 at infinity."""
    y = problem.forward(weight=None, bias=None, eps=eps)
    checks.assert_normalized(
        problem.op, y, problem.op.reference(problem.x, problem.case, float(eps)).xhat, str(eps)
    )
    if problem.op.name == "batch_norm" and not eps > 0:
        return  # PyTorch refuses it
    torch = pytest.importorskip("torch", reason="PyTorch is not installed: nothing to compare with")
    theirs = problem.op.torch_forward(torch.tensor(problem.x), problem.case, eps=float(eps)).numpy()
    assert (np.isnan(theirs) == np.isnan(y)).all()


def test_unknown_and_missing_arguments(row_problem):
    import normkit

    function = getattr(normkit, row_problem.op.name)
    row_problem.refuses(TypeError, "epsilon", row_problem.forward, epsilon=1e-5)
    row_problem.refuses(TypeError, "momentum", row_problem.backward, momentum=0.1)
    for call in (lambda: function(), lambda: function(row_problem.x)):
        with pytest.raises(TypeError, match=r"x|normalized_shape"):
            call()
    with pytest.raises(TypeError):
        function(row_problem.x, (N,), None, None, 1e-5, None, True, None, 1, 2, 3)


@pytest.mark.parametrize("shape", ((0, 7), (3, 0, 7), (0, 0, 7)))
def test_no_rows(row_problem, shape):
    """A batch of none is fine: an empty result, zero parameter gradients."""
    x = np.zeros(shape, np.float32)
    case = type(row_problem.case)(shape=shape, arguments=((7,),), axes=(len(shape) - 1,), parameter_axes=())
    weight = np.ones(7, np.float32)
    y, *statistics = row_problem.op.forward(x, case, weight=weight, bias=weight, return_stats=True)
    assert y.shape == shape and y.dtype == x.dtype
    assert all(s.shape == (*shape[:-1], 1) for s in statistics)
    dx, dweight, dbias = row_problem.op.backward(x, x, case, weight=weight, bias=weight)
    assert dx.shape == shape
    checks.assert_same_bits(dweight, np.zeros(7, np.float32), "dweight of no rows")
    checks.assert_same_bits(dbias, np.zeros(7, np.float32), "dbias of no rows")
    into = (np.full(7, 3, np.float32), np.full(7, 4, np.float32))
    row_problem.op.backward(x, x, case, weight=weight, bias=weight, grads_out=into, accumulate=True)
    checks.assert_same_bits(into[0], np.full(7, 3, np.float32), "accumulated nothing")


def test_empty_rows(row_problem):
    """TF#46366: LayerNorm over [1, 0, 10] died of a division by zero."""
    for shape, normalized in (((3, 0), (0,)), ((2, 3, 0), (3, 0)), ((1, 0, 10), (0, 10))):
        x = np.zeros(shape, np.float32)
        axes = tuple(range(len(shape) - len(normalized), len(shape)))
        case = type(row_problem.case)(shape=shape, arguments=(normalized,), axes=axes, parameter_axes=axes)
        weight = np.ones(normalized, np.float32)
        assert row_problem.op.forward(x, case, weight=weight, bias=weight).shape == shape
        dx, dweight, dbias = row_problem.op.backward(x, x, case, weight=weight, bias=weight)
        assert dx.shape == shape and dweight.shape == dbias.shape == normalized
        checks.COUNT.values += 1


def test_zero_dimensional_x(row_problem):
    row_problem.refuses(ValueError, "normalized_shape", row_problem.forward, x=np.array(3, np.float32))


def test_subclasses_and_odd_arrays(row_problem):
    """A NumPy subclass works or is refused; a masked array is never silently unmasked."""
    masked = np.ma.masked_array(row_problem.x, mask=row_problem.x > 0)
    row_problem.refuses(TypeError, "x", row_problem.forward, x=masked)
    structured = np.zeros((ROWS, N), [("a", "f4"), ("b", "f4")])
    row_problem.refuses(TypeError, "x", row_problem.forward, x=structured)
    case = type(row_problem.case)(**{**vars(row_problem.case), "shape": (ROWS, N)})
    field = structured["a"]
    field[...] = row_problem.x
    checks.assert_same_bits(
        row_problem.op.forward(field, case),
        row_problem.op.forward(row_problem.x, case),
        "a field of a structured array",
    )
