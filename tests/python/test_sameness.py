"""The same bits for any thread count, batch, place in it, alignment and instruction set, and in place."""

import itertools
import json
import os
import subprocess
import sys

import checks
import numpy as np
import pytest
from instruction_sets import every_instruction_set, printed
from reference import golden
from reference.operations import OPERATIONS
from reference.recipe import values
from reference.wide import DTYPES, numpy_dtype

pytestmark = pytest.mark.compares
every_operation = pytest.mark.parametrize("op", OPERATIONS, ids=str)
every_dtype = pytest.mark.parametrize("dtype", DTYPES)
EPS = 1e-5


def problem(op, rows, n, dtype, kind="spread"):
    case = op.make_case(rows, n)
    x, dy = (case.from_sets(values((rows, n), dtype, k, seed)) for k, seed in ((kind, 1), ("plain", 2)))
    weight, bias = (values(case.parameter_shape, dtype, "plain", seed) for seed in (3, 4))
    return case, x, dy, weight, bias


def everything(op, case, x, dy, weight, bias):
    """All results of the forward and the backward."""
    forward = op.forward(x, case, weight=weight, bias=bias, eps=EPS, return_stats=True)
    return (*forward, *op.backward(dy, x, case, weight=weight, bias=bias, eps=EPS))


def parameters_of_rows(op, n, dtype):
    """weight and bias of a set wherever it stands; none where they depend on that."""
    if op.per_set:
        return None, None
    return [values(op.make_case(1, n).parameter_shape, dtype, "plain", seed) for seed in (3, 4)]


@every_dtype
@every_operation
@pytest.mark.parametrize(("rows", "n"), ((512, 768), (3, 200_003), (5000, 33), (1, 300_000), (131, 4097)))
def test_threads(op, dtype, rows, n, threads):
    arguments = problem(op, rows, n, dtype)
    digests = {}
    for count in (1, 2, 3, 7):
        threads(count)
        digests[count] = checks.digest(*everything(op, *arguments))
    assert len(set(digests.values())) == 1, digests


@every_dtype
@every_operation
@pytest.mark.parametrize("n", (1, 33, 768, 1025))
def test_batch_split_in_every_way(op, dtype, n):
    """All 32 ways to cut six sets into consecutive batches; y, the statistics and dx do not notice."""
    rows, n = 6, max(n, op.smallest)
    sets = values((rows, n), dtype, "spread", 1)
    gradients = values((rows, n), dtype, "plain", 2)
    weight, bias = parameters_of_rows(op, n, dtype)

    def run(begin, end):
        case = op.make_case(end - begin, n)
        x, dy = case.from_sets(sets[begin:end]), case.from_sets(gradients[begin:end])
        y, *statistics = op.forward(x, case, weight=weight, bias=bias, eps=EPS, return_stats=True)
        dx = op.backward(dy, x, case, weight=weight, bias=bias, eps=EPS)[0]
        return (
            case.to_sets(y),
            *(case.statistics_of_sets(statistic) for statistic in statistics),
            case.to_sets(dx),
        )

    whole = run(0, rows)
    for cuts in itertools.product((False, True), repeat=rows - 1):
        limits = [0, *(i + 1 for i, cut in enumerate(cuts) if cut), rows]
        parts = [run(b, e) for b, e in itertools.pairwise(limits)]
        for k, expected in enumerate(whole):
            checks.assert_same_bits(np.concatenate([part[k] for part in parts]), expected, f"cut at {limits}")


@every_dtype
@every_operation
def test_each_row_alone(op, dtype):
    for rows, n in ((70, 5), (70, 64), (40, 100), (20, 768), (9, 4097)):
        case, x, dy, _, _ = problem(op, rows, n, dtype)
        weight, bias = parameters_of_rows(op, n, dtype)
        y = op.forward(x, case, weight=weight, bias=bias, eps=EPS)
        dx = op.backward(dy, x, case, weight=weight, bias=bias, eps=EPS)[0]
        alone = op.make_case(1, n)
        x, dy, y, dx = (case.to_sets(array) for array in (x, dy, y, dx))
        for i in range(rows):
            x_row, dy_row = (alone.from_sets(array[i]) for array in (x, dy))
            y_row = op.forward(x_row, alone, weight=weight, bias=bias, eps=EPS)
            checks.assert_same_bits(alone.to_sets(y_row)[0], y[i], f"row {i} of {rows}, n={n}")
            dx_row = op.backward(dy_row, x_row, alone, weight=weight, bias=bias, eps=EPS)[0]
            checks.assert_same_bits(alone.to_sets(dx_row)[0], dx[i], f"dx, row {i} of {rows}, n={n}")


def at_offset(array, offset):
    """A copy whose first element lies `offset` elements behind a 64-byte boundary."""
    size = array.dtype.itemsize
    memory = np.zeros(array.nbytes + 64 + 16 * size, np.uint8)
    start = -memory.ctypes.data % 64 + offset * size
    copy = memory[start : start + array.nbytes].view(array.dtype).reshape(array.shape)
    copy[...] = array
    return copy


@every_dtype
@every_operation
@pytest.mark.parametrize("n", (7, 65, 257))
def test_16_alignments(op, dtype, n):
    case, *arrays = problem(op, 9, n, dtype)
    expected = everything(op, case, *arrays)
    for offset in range(16):
        moved = [at_offset(array, (offset * (k + 1)) % 16) for k, array in enumerate(arrays)]
        assert moved[0].ctypes.data % 64 == (offset * arrays[0].itemsize) % 64
        for k, result in enumerate(everything(op, case, *moved)):
            checks.assert_same_bits(result, expected[k], f"offset {offset}, result {k}")
        out = at_offset(np.zeros_like(arrays[0]), (offset * 5 + 1) % 16)
        op.forward(moved[0], case, weight=moved[2], bias=moved[3], eps=EPS, out=out)
        checks.assert_same_bits(out, expected[0], f"out at another offset than x ({offset})")


@every_dtype
@every_operation
def test_in_place(op, dtype):
    for rows, n in ((1, op.smallest), (5, 31), (9, 1000), (3, 5000), (600, 768)):
        for kind in ("plain", "huge"):
            case, x, _, weight, bias = problem(op, rows, n, dtype, kind)
            y = op.forward(x, case, weight=weight, bias=bias, eps=EPS)
            out = np.empty_like(x)
            assert op.forward(x, case, weight=weight, bias=bias, eps=EPS, out=out) is out
            checks.assert_same_bits(out, y, "out=")
            work = x.copy()
            assert op.forward(work, case, weight=weight, bias=bias, eps=EPS, out=work) is work
            checks.assert_same_bits(work, y, "out=x")


@every_dtype
@every_operation
def test_inputs_are_not_written(op, dtype):
    case, *arrays = problem(op, 70, 100, dtype)
    before = checks.digest(*arrays)
    for array in arrays:
        array.flags.writeable = False
    everything(op, case, *arrays)
    assert checks.digest(*arrays) == before


@every_dtype
@every_operation
def test_twice(op, dtype):
    """Uninitialised workspace would show here sooner or later."""
    arguments = problem(op, 300, 257, dtype)
    assert len({checks.digest(*everything(op, *arguments)) for _ in range(5)}) == 1


@every_operation
@pytest.mark.parametrize("dtype", ("float32", "float64", "bfloat16"))
@pytest.mark.parametrize("kind", ("plain", "offset", "spread"))
def test_powers_of_two(op, dtype, kind):
    """x times 2^k with eps times 4^k changes nothing but rstd: there is no hidden threshold."""
    case, x, _, weight, bias = problem(op, 7, 300, dtype, kind)
    y, *_ = op.forward(x, case, weight=weight, bias=bias, eps=2.0**-10, return_stats=True)
    for k in (-20, -3, 1, 20):
        scaled = (x.astype(np.float64) * 2.0**k).astype(x.dtype)
        checks.assert_same_bits(
            op.forward(scaled, case, weight=weight, bias=bias, eps=2.0 ** (2 * k - 10)), y, f"times 2^{k}"
        )
    negated = op.forward(-x, case, weight=weight, eps=2.0**-10)
    assert (negated == -op.forward(x, case, weight=weight, eps=2.0**-10)).all()


def test_golden_hashes():
    """The bits themselves. They change only when a promise is changed on purpose (golden.py --write)."""
    expected, actual = golden.load(), golden.compute()
    checks.COUNT.values += len(expected)
    assert expected.keys() == actual.keys()
    different = [key for key in expected if expected[key] != actual[key]]
    assert not different, f"{len(different)} of {len(expected)}: {different[:10]}"


@every_instruction_set
def test_every_instruction_set(isa):
    hashes = json.loads(
        printed(isa, "import json; from reference import golden; print(json.dumps(golden.compute()))")
    )
    expected = golden.load()
    checks.COUNT.values += len(expected)
    different = [key for key in expected if expected[key] != hashes.get(key)]
    assert not different, f"{len(different)} of {len(expected)} under {isa}: {different[:10]}"


@pytest.mark.parametrize("name", ("nonsense", "AVX2", "avx1024"))
def test_an_unknown_instruction_set_is_a_clear_error(name):
    run = subprocess.run(
        [sys.executable, "-c", "import normkit, numpy; normkit.layer_norm(numpy.ones((2, 3), 'f'), 3)"],
        env={**os.environ, "NORMKIT_ISA": name},
        capture_output=True,
        text=True,
        timeout=60,
    )
    checks.COUNT.values += 1
    assert run.returncode not in (0, -4, -6, -11), f"NORMKIT_ISA={name} was ignored or crashed"
    assert name in run.stderr and "NORMKIT_ISA" in run.stderr


@every_operation
def test_first_call_from_many_rows_equals_small_numbers(op):
    """A row's bits do not depend on how many rows came along (vllm#48271 chose block sizes by the batch)."""
    n = 640
    rows = values((2048, n), "float32", "offset", 7)
    case = op.make_case(len(rows), n)
    y = case.to_sets(op.forward(case.from_sets(rows), case, eps=EPS))
    for count in (1, 2, 3, 4, 5, 7, 8, 15, 16, 17, 31, 64, 100, 500, 1023):
        part = op.make_case(count, n)
        some = op.forward(part.from_sets(rows[:count]), part, eps=EPS)
        checks.assert_same_bits(part.to_sets(some), y[:count], f"{count} rows")


@every_dtype
def test_recipe_is_fixed(dtype):
    """The golden data themselves: integers whose first values are written down here."""
    assert values((4,), "float64", "plain", 0).dtype == np.float64
    x = values((3,), dtype, "plain", 1).astype(np.float64)
    assert x.dtype == np.float64 and numpy_dtype(dtype) is not None
    from reference.recipe import splitmix64

    assert [hex(v) for v in splitmix64(0, 2)] == ["0xe220a8397b1dcdaf", "0x6e789e6aa1b965f4"]
    assert [hex(v) for v in splitmix64(1234567, 2)] == ["0x599ed017fb08fc85", "0x2c73f08458540fa5"]
    checks.COUNT.values += 4
