"""No access outside of the arrays: guard pages, read-only pages, canaries between strided rows."""

import mmap
import sys

import checks
import instruction_sets
import normkit
import numpy as np
import pytest
from reference.operations import OPERATIONS, ROW_OPERATIONS
from reference.recipe import values
from reference.wide import DTYPES
from test_faults import run_script

pytestmark = [
    pytest.mark.alone,
    pytest.mark.compares,
    pytest.mark.skipif("sys.platform == 'win32'", reason="needs mmap and mprotect"),
]
every_operation = pytest.mark.parametrize("op", OPERATIONS, ids=str)
every_row_operation = pytest.mark.parametrize("op", ROW_OPERATIONS, ids=str)
every_dtype = pytest.mark.parametrize("dtype", DTYPES)


@every_dtype
@every_operation
def test_guard_pages(op, dtype):
    """Every size 1..200, each array right before and right behind a guard page; inputs on PROT_READ pages."""
    run_script("guard_pages", op.name, dtype)


@pytest.mark.parametrize("isa", ("baseline", "avx2"))
@pytest.mark.parametrize("dtype", ("float32", "bfloat16"))
def test_guard_pages_on_lower_instruction_sets(isa, dtype):
    instruction_sets.require(isa)
    run_script("guard_pages", "layer_norm", dtype, NORMKIT_ISA=isa)


def test_guard_pages_do_guard():
    """The harness itself: a read one element too far must end the process."""
    with pytest.raises(AssertionError, match=r"exit status -(11|10|7)"):
        run_script("guard_pages", "layer_norm", "float32", "overrun")
    checks.COUNT.values += 1


@every_dtype
@every_operation
@pytest.mark.parametrize("n", (1, 7, 31, 64, 129, 1030))
def test_canaries_between_rows(op, dtype, n):
    """Rows n apart by n + 9 elements; what lies between is neither read into the result nor written."""
    rows, gap, n = 6, 9, max(n, op.smallest)
    case = op.make_case(rows, n)
    x = case.from_sets(values((rows, n), dtype, "spread", 1))
    weight, bias = (values(case.parameter_shape, dtype, "plain", s) for s in (3, 4))
    expected = op.forward(x, case, weight=weight, bias=bias, eps=1e-5)
    gradients = op.backward(x, x, case, weight=weight, bias=bias, eps=1e-5)
    for canary in (0x55, 0xFF):  # 0xFF... is a NaN in every type
        size = (x.shape[0] + 2, *x.shape[1:-1], x.shape[-1] + gap)
        buffers = [np.full(size, 0, x.dtype) for _ in range(3)]
        for buffer in buffers:
            buffer.view(np.uint8)[...] = canary
        source, out, dx_out = (buffer[1:-1, ..., 4 : 4 + x.shape[-1]] for buffer in buffers)
        source[...] = x
        op.forward(source, case, weight=weight, bias=bias, eps=1e-5, out=out)
        checks.assert_same_bits(out, expected, "y")
        op.backward(source, source, case, weight=weight, bias=bias, eps=1e-5, dx_out=dx_out)
        checks.assert_same_bits(dx_out, gradients[0], "dx")
        for view, buffer in ((source, buffers[0]), (out, buffers[1]), (dx_out, buffers[2])):
            view.view(np.uint8)[...] = canary
            assert (buffer.view(np.uint8) == canary).all(), "a canary was overwritten"
            checks.COUNT.values += buffer.size


@every_operation
def test_gradient_canaries(op):
    rows, n = 70, 33
    case = op.make_case(rows, n)
    x = case.from_sets(values((rows, n), "float32", "spread", 1))
    weight, bias = (values(case.parameter_shape, "float32", "plain", s) for s in (3, 4))
    count = weight.size
    memory = np.full((2, 3 * count + 8), 77, np.float32)
    outs = (memory[0, 4 : 4 + 2 * count : 2], memory[1, 4 : 4 + 3 * count : 3])
    _, dweight, dbias = op.backward(x, x, case, weight=weight, bias=bias)
    op.backward(x, x, case, weight=weight, bias=bias, grads_out=outs)
    checks.assert_same_bits(outs[0], dweight, "dweight")
    checks.assert_same_bits(outs[1], dbias, "dbias")
    outs[0][...] = outs[1][...] = 77
    assert (memory == 77).all()


@pytest.mark.skipif(sys.maxsize < 2**32, reason="needs a 64-bit address space")
@every_dtype
@every_row_operation
def test_offsets_beyond_32_bits(op, dtype):
    """Rows 2^31 + 11 elements apart, in memory of which only a few pages exist (onnxruntime#17014)."""
    rows, n, apart = 2, 70, 2**31 + 11
    case = op.make_case(rows, n)
    x = case.from_sets(values((rows, n), dtype, "spread", 1))
    dy = case.from_sets(values((rows, n), dtype, "plain", 2))
    weight, bias = (values(case.parameter_shape, dtype, "plain", s) for s in (3, 4))
    size = ((rows - 1) * apart + 2 * n) * x.itemsize
    no_reserve = 0x4000 if sys.platform == "linux" else 0  # MAP_NORESERVE, which Python 3.10 does not name
    try:
        memory = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | no_reserve)
    except OSError:
        pytest.skip("this system lends no large address range")
    elements = np.frombuffer(memory, np.uint8)[: size // x.itemsize * x.itemsize].view(x.dtype)
    expected = op.forward(x, case, weight=weight, bias=bias, eps=1e-5)
    dx = op.backward(dy, x, case, weight=weight, bias=bias, eps=1e-5)[0]
    stride = apart * x.itemsize
    left = np.lib.stride_tricks.as_strided(elements, (rows, n), (stride, x.itemsize))
    right = np.lib.stride_tricks.as_strided(elements[n:], (rows, n), (stride, x.itemsize))
    for source, out in ((left, right), (left[::-1], right[::-1])):
        source[...] = x
        op.forward(source, case, weight=weight, bias=bias, eps=1e-5, out=out)
        checks.assert_same_bits(out, expected, "y")
        op.backward(dy, source, case, weight=weight, bias=bias, eps=1e-5, dx_out=out)
        checks.assert_same_bits(out, dx, "dx")
        checks.assert_same_bits(source, x, "x")
    columns = np.lib.stride_tricks.as_strided(elements, (n, rows), (x.itemsize, stride))
    columns[...] = x.T
    y = getattr(normkit, op.name)(columns, n, axis=0, weight=weight, bias=bias, eps=1e-5)
    checks.assert_same_bits(y.T, expected, "normalized over axis 0")


@every_operation
def test_more_elements_than_32_bits_count(op, deep):
    """A result of 2^31 + 2^20 elements: 4.3 GB, so only on request."""
    if not deep:
        pytest.skip("needs 5 GB; pass --deep")
    n = 2**20
    row = values((1, n), "bfloat16", "spread", 1)
    x = np.broadcast_to(row, (2**11 + 1, n))
    y = op.forward(x, op.make_case(*x.shape), eps=1e-5)
    expected = op.forward(row, op.make_case(1, n), eps=1e-5)[0]
    for k in (0, 1, 2**10, 2**11 - 1, 2**11):
        checks.assert_same_bits(y[k], expected, f"row {k}")
