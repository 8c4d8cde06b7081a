"""Random shapes, strides, types and arguments from hypothesis: every call is right, or refuses cleanly."""

import checks
import numpy as np
import pytest
from reference.operations import OPERATIONS, ROW_OPERATIONS, Case
from reference.wide import DTYPES, numpy_dtype

hypothesis = pytest.importorskip("hypothesis", reason="hypothesis is not installed")
import normkit  # noqa: E402
from hypothesis import HealthCheck, given, settings  # noqa: E402
from hypothesis import strategies as st  # noqa: E402

pytestmark = pytest.mark.compares
bounded = settings(
    max_examples=150,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
every_operation = pytest.mark.parametrize("op", OPERATIONS, ids=str)
every_row_operation = pytest.mark.parametrize("op", ROW_OPERATIONS, ids=str)


@st.composite
def views(draw, max_rank=5, max_side=9):
    """(array in some layout, the same values contiguous): permuted, stepped, reversed, broadcast axes."""
    rank = draw(st.integers(1, max_rank))
    shape = tuple(draw(st.integers(1, max_side)) for _ in range(rank))
    dtype = numpy_dtype(draw(st.sampled_from(DTYPES)))
    steps = tuple(draw(st.sampled_from((1, 1, 1, 2, -1, -2, 3, 0))) for _ in range(rank))
    permutation = draw(st.permutations(range(rank)))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    memory = tuple(max(1, abs(steps[i]) * shape[i]) for i in permutation)
    offset = draw(st.sampled_from((0.0, 0.0, 3.0, 1000.0)))
    array = (rng.standard_normal(memory) + offset).astype(dtype).transpose(np.argsort(permutation))
    for i, step in enumerate(steps):
        index = [slice(None)] * rank
        index[i] = slice(0, 1) if step == 0 else slice(None, None, step)
        array = array[tuple(index)]
    array = np.broadcast_to(array, shape) if 0 in steps else array
    assert array.shape == shape
    return array, np.ascontiguousarray(array)


@st.composite
def cases(draw):
    """(x, contiguous x, case) with normalized axes anywhere."""
    x, flat = draw(views())
    axes = tuple(sorted(draw(st.sets(st.integers(0, x.ndim - 1), min_size=1))))
    trailing = axes == tuple(range(x.ndim - len(axes), x.ndim))
    options = {} if trailing and draw(st.booleans()) else {"axis": axes}
    case = Case(x.shape, (tuple(x.shape[i] for i in axes),), axes, axes, options)
    return x, flat, case


@every_row_operation
@bounded
@given(problem=cases(), seed=st.integers(0, 1000), with_weight=st.booleans(), with_bias=st.booleans())
def test_any_layout_is_right(op, problem, seed, with_weight, with_bias):
    x, flat, case = problem
    rng = np.random.default_rng(seed)
    weight, bias = (rng.standard_normal(case.parameter_shape).astype(x.dtype) for _ in range(2))
    keywords = {"weight": weight if with_weight else None, "bias": bias if with_bias else None, "eps": 1e-5}
    standard = op.reference(flat, case, 1e-5)
    y = op.forward(x, case, **keywords)
    checks.assert_affine(op, y, standard, case, keywords["weight"], keywords["bias"], "any layout")
    checks.assert_same_bits(y, op.forward(flat, case, **keywords), "contiguous")
    dtype = checks.dtype_name(x)
    dx, dweight, dbias = op.backward(x, flat, case, **keywords)
    exact = op.reference_backward(flat, flat, case, 1e-5, keywords["weight"])
    checks.assert_gradient(op, "dx", dx, exact.dx, exact.dx_terms, "any layout", dtype)
    if with_weight:
        checks.assert_gradient(
            op, "dweight", dweight, exact.dweight, exact.dweight_terms, "any layout", dtype
        )
    if with_bias:
        checks.assert_gradient(op, "dbias", dbias, exact.dbias, exact.dbias_terms, "any layout", dtype)


@every_row_operation
@bounded
@given(data=st.data())
def test_any_overlap_of_out_is_right_or_refused(op, data):
    """x and out are views of one memory: the right result and nothing else written, or a ValueError."""
    memory = np.random.default_rng(data.draw(st.integers(0, 99))).standard_normal(120).astype(np.float32)
    rows, n = data.draw(st.integers(1, 4)), data.draw(st.integers(1, 6))

    def view():
        strides = [data.draw(st.integers(-7, 7)) for _ in range(2)]
        low = sum(min(0, s * (size - 1)) for s, size in zip(strides, (rows, n), strict=True))
        high = sum(max(0, s * (size - 1)) for s, size in zip(strides, (rows, n), strict=True))
        start = data.draw(st.integers(-low, 119 - high))
        return np.lib.stride_tricks.as_strided(memory[start:], (rows, n), [4 * s for s in strides])

    x, out = view(), view()
    case = op.make_case(rows, n)
    expected = op.forward(x.copy(), case)
    before = memory.copy()
    try:
        op.forward(x, case, out=out)
    except ValueError as error:
        assert "out" in str(error)
        assert (memory == before).all(), "refused, but something was written"
        checks.COUNT.values += 1
    else:
        checks.assert_same_bits(out, expected, "out")
        out[...] = 0
        touched = memory != before
        out[...] = 1
        assert (touched <= ((memory == 1) | (before == 0))).all(), "something else was written"


junk = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=3),
    st.lists(st.integers(-3, 5), max_size=3),
    st.tuples(st.integers(-(2**65), 2**65)),
    st.builds(lambda shape: np.zeros(shape, np.float32), st.lists(st.integers(0, 4), max_size=3).map(tuple)),
    st.sampled_from(
        [np.zeros(4, "i4"), np.zeros((3, 4), ">f4"), np.array("x"), object(), np.float32(1), "4", 4, (4,)]
    ),
)
NAMES = (
    "x",
    "normalized_shape",
    "weight",
    "bias",
    "eps",
    "axis",
    "return_stats",
    "out",
    "weight_offset",
    "dy",
)
NAMES += ("mean", "rstd", "dx_out", "grads_out", "accumulate")


@every_operation
@settings(bounded, max_examples=400)
@given(data=st.data())
def test_any_arguments_work_or_are_refused(op, data):
    """No crash, no other exception than TypeError and ValueError."""
    x = np.arange(12, dtype=np.float32).reshape(3, 4)
    arguments = {"x": x, "normalized_shape": (4,)}
    backward = data.draw(st.booleans())
    if backward:
        arguments["dy"] = x.copy()
    for name in data.draw(st.sets(st.sampled_from(NAMES), min_size=1, max_size=3)):
        arguments[name] = data.draw(junk)
    function = getattr(normkit, op.name + ("_backward" if backward else ""))
    checks.COUNT.values += 1
    try:
        result = function(**arguments)
    except (TypeError, ValueError) as error:
        assert len(str(error)) > 10
    else:
        assert result is not None
