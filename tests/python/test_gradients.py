"""The backward against the exact gradients (checks.py derives the bound); optional arguments and outputs."""

import itertools

import checks
import numpy as np
import pytest
from reference.families import make, parameters
from reference.operations import OPERATIONS
from reference.wide import DTYPES, UNIT, numpy_dtype, wide

pytestmark = pytest.mark.compares
every_operation = pytest.mark.parametrize("op", OPERATIONS, ids=str)
every_dtype = pytest.mark.parametrize("dtype", DTYPES)

FAMILIES = ("normal", "mean 1e3 std 1", "lognormal(3)", "Cauchy", "alternating")
OFFSETS = ("mean 1e4 std 0.01", "mean 1e6 std 1", "scale 1e18", "scale 1e-20")


def problem(op, rows, n, dtype, family="normal", seed=0, parameter_dtype=None):
    """(case, x, dy, weight, bias), everything of `dtype` (parameters of parameter_dtype)."""
    case = op.make_case(rows, n)
    x = case.from_sets(make(family, rows, n, dtype, seed))
    dy = case.from_sets(make("normal", rows, n, dtype, seed + 1))
    return case, x, dy, *parameters(case.parameter_shape, parameter_dtype or dtype)


def check(op, rows, n, dtype, family="normal", eps=1e-5, seed=0, parameter_dtype=None):
    case, x, dy, weight, bias = problem(op, rows, n, dtype, family, seed, parameter_dtype)
    gradients = op.backward(dy, x, case, weight=weight, bias=bias, eps=eps)
    exact = op.reference_backward(dy, x, case, eps, weight)
    where = f"rows={rows} n={n} eps={eps} {family}"
    for name, actual in zip(("dx", "dweight", "dbias"), gradients, strict=True):
        expected, terms = getattr(exact, name), getattr(exact, name + "_terms")
        checks.assert_gradient(op, name, actual, expected, terms, where, compute=dtype)
    assert gradients[0].dtype == x.dtype
    assert gradients[1].dtype == weight.dtype and gradients[2].dtype == bias.dtype


@every_dtype
@every_operation
def test_every_size_to_70(op, dtype):
    for n in range(op.smallest, 71):
        for family in FAMILIES:
            check(op, 1 + n % 5, n, dtype, family)
        if dtype in ("float32", "float64"):
            check(op, 3, n, dtype, OFFSETS[n % len(OFFSETS)], seed=2)


@every_dtype
@every_operation
@pytest.mark.parametrize("n", (255, 257, 768, 1000, 1024, 1025, 4096, 4097))
def test_sizes_around_blocks(op, dtype, n):
    for family in FAMILIES:
        check(op, 3, n, dtype, family)
    if dtype in ("float32", "float64"):
        for family in OFFSETS:
            check(op, 2, n, dtype, family)


@every_dtype
@every_operation
def test_long_rows(op, dtype, deep):
    check(op, 1, 65537, dtype, "mean 1e3 std 1")
    if deep or dtype == "float32":
        check(op, 1, 1000003, dtype, "lognormal(3)")


@every_dtype
@every_operation
@pytest.mark.parametrize("rows", (1, 2, 7, 8, 9, 15, 16, 17, 63, 64, 65, 72, 127, 128, 129, 511, 513, 2000))
def test_rows_around_panels(op, dtype, rows):
    for n in (op.smallest, 5, 33, 70):
        check(op, rows, n, dtype, FAMILIES[n % len(FAMILIES)], seed=rows)


@every_operation
@pytest.mark.parametrize("dtype", ("float16", "bfloat16"))
def test_float32_parameters(op, dtype):
    for n in (3, 65, 768):
        check(op, 70, n, dtype, parameter_dtype="float32")


@every_operation
@pytest.mark.parametrize("eps", (0.0, 1e-12, 1e-3, 1.0))
def test_eps(op, eps):
    for dtype in ("float32", "float64"):
        check(op, 5, 100, dtype, eps=eps)


@every_operation
@pytest.mark.parametrize("dtype", ("float16", "bfloat16", "float32", "float64"))
def test_8192_ones_add_up_to_8192(op, dtype):
    """pytorch 2.13 says 256 for bfloat16 on one thread and 512 on two."""
    many = 2048 if dtype == "float16" else 8192
    for few in (2, 3, 48):
        case, x, _, weight, bias = problem(op, *((few, many) if op.per_set else (many, few)), dtype)
        dy = np.ones(case.shape, numpy_dtype(dtype))
        _, _, dbias = op.backward(dy, x, case, weight=weight, bias=bias, eps=1e-5)
        total = np.full(case.parameter_shape, x.size // bias.size, numpy_dtype(dtype))
        checks.assert_same_bits(dbias, total, "dbias")


@every_dtype
@every_operation
def test_optional_arguments(op, dtype):
    """None where the argument was None; what is returned does not depend on what else is asked for."""
    case, x, dy, weight, bias = problem(op, 70, 33, dtype)
    weightless, full = (op.backward(dy, x, case, weight=w, bias=bias, eps=1e-5) for w in (None, weight))
    for w, b, saved in itertools.product((None, weight), (None, bias), (False, True)):
        statistics = op.saved(x, case, 1e-5) if saved else {}
        dx, dweight, dbias = op.backward(dy, x, case, weight=w, bias=b, eps=1e-5, **statistics)
        assert (dweight is None) == (w is None) and (dbias is None) == (b is None)
        checks.assert_same_bits(dx, (weightless if w is None else full)[0], "dx")
        if dweight is not None:
            checks.assert_same_bits(dweight, full[1], "dweight")
        if dbias is not None:
            checks.assert_same_bits(dbias, full[2], "dbias")
    exact = op.reference_backward(dy, x, case, 1e-5, None)
    checks.assert_gradient(op, "dx", weightless[0], exact.dx, exact.dx_terms, "no weight")


@every_dtype
@every_operation
def test_saved_statistics_give_the_same_bits(op, dtype):
    for rows, n in ((3, op.smallest), (5, 31), (70, 768), (2, 4097)):
        for family in ("mean 1e3 std 1", "all equal"):
            case, x, dy, weight, bias = problem(op, rows, n, dtype, family)
            again = op.backward(dy, x, case, weight=weight, bias=bias, eps=1e-5)
            saved = op.saved(x, case, 1e-5)
            assert set(saved) == set(op.statistics)
            for name, a, b in zip(
                ("dx", "dweight", "dbias"),
                op.backward(dy, x, case, weight=weight, bias=bias, eps=1e-5, **saved),
                again,
                strict=True,
            ):
                checks.assert_same_bits(a, b, f"{name} {family} n={n}")


@every_operation
def test_saved_statistics_are_used(op):
    """Twice rstd gives other gradients: the argument is not ignored (and float32 statistics are accepted)."""
    case, x, dy, weight, bias = problem(op, 5, 33, "float32")
    saved = {name: value.astype(np.float32) for name, value in op.saved(x, case, 1e-5).items()}
    exact = op.reference_backward(dy, x, case, 1e-5, weight)
    gradients = op.backward(dy, x, case, weight=weight, bias=bias, eps=1e-5, **saved)
    checks.assert_within(gradients[0], exact.dx, 40 * UNIT["float32"] * exact.dx_terms, "float32 statistics")
    saved["rstd"] = saved["rstd"] * 2
    other = op.backward(dy, x, case, weight=weight, bias=bias, eps=1e-5, **saved)
    assert (other[1] != gradients[1]).any() and (other[0] != gradients[0]).any()


@every_dtype
@every_operation
def test_dx_out_and_grads_out(op, dtype):
    case, x, dy, weight, bias = problem(op, 70, 33, dtype)
    expected = op.backward(dy, x, case, weight=weight, bias=bias, eps=1e-5)
    outs = [np.full(e.shape, 77, e.dtype) for e in expected]
    returned = op.backward(
        dy, x, case, weight=weight, bias=bias, eps=1e-5, dx_out=outs[0], grads_out=(outs[1], outs[2])
    )
    for out, result, wanted in zip(outs, returned, expected, strict=True):
        assert result is out or np.shares_memory(result, out)
        checks.assert_same_bits(out, wanted, "given outputs")
    for target in ("dy", "x"):  # in place
        copies = {"dy": dy.copy(), "x": x.copy()}
        op.backward(
            copies["dy"], copies["x"], case, weight=weight, bias=bias, eps=1e-5, dx_out=copies[target]
        )
        checks.assert_same_bits(copies[target], expected[0], f"dx_out={target}")
        other = "x" if target == "dy" else "dy"
        checks.assert_same_bits(copies[other], {"dy": dy, "x": x}[other], f"{other} was written")


@every_dtype
@every_operation
def test_accumulate(op, dtype):
    case, x, dy, weight, bias = problem(op, 70, 33, dtype)
    exact = op.reference_backward(dy, x, case, 1e-5, weight)
    before = parameters(case.parameter_shape, dtype, seed=9)
    outs = [b.copy() for b in before]
    op.backward(dy, x, case, weight=weight, bias=bias, eps=1e-5, grads_out=tuple(outs), accumulate=True)
    for name, out, old in zip(("dweight", "dbias"), outs, before, strict=True):
        checks.assert_gradient(
            op,
            name,
            out,
            getattr(exact, name),
            getattr(exact, name + "_terms"),
            "accumulate",
            dtype,
            accumulated=old,
        )


@every_operation
@pytest.mark.parametrize("dtype", ("float16", "bfloat16", "float32"))
def test_grads_out_chooses_the_type(op, dtype):
    """float32 and float64 gradients of 16-bit parameters: master gradients without a rounding to 16 bits."""
    case, x, dy, weight, bias = problem(op, 70, 33, dtype)
    exact = op.reference_backward(dy, x, case, 1e-5, weight)
    outs = tuple(np.zeros(case.parameter_shape, np.float32) for _ in range(2))
    _, dweight, dbias = op.backward(dy, x, case, weight=weight, bias=bias, eps=1e-5, grads_out=outs)
    checks.assert_gradient(op, "dweight", dweight, exact.dweight, exact.dweight_terms, "grads_out", "float32")
    checks.assert_gradient(op, "dbias", dbias, exact.dbias, exact.dbias_terms, "grads_out", "float32")
    assert dweight.dtype == np.float32


@pytest.mark.parametrize("op", [op for op in OPERATIONS if op.weight_offset], ids=str)
def test_weight_offset(op):
    for dtype in ("float32", "float64", "bfloat16"):
        case, x, dy, weight, bias = problem(op, 70, 33, dtype)
        gradients = op.backward(dy, x, case, weight=weight, bias=bias, eps=1e-5, weight_offset=1.0)
        exact = op.reference_backward(dy, x, case, 1e-5, weight, weight_offset=1.0)
        for name, actual in zip(("dx", "dweight", "dbias"), gradients, strict=True):
            expected, terms = getattr(exact, name), getattr(exact, name + "_terms")
            checks.assert_gradient(op, name, actual, expected, terms, "weight_offset", compute=dtype)


@every_operation
def test_default_eps_is_the_forwards(op):
    for dtype in DTYPES:
        case, x, dy, weight, _ = problem(op, 4, 10, dtype, "normal")
        eps = op.epsilon(dtype)
        small = (wide(x) * 1e-3).astype(x.dtype)  # so that eps matters
        checks.assert_same_bits(op.forward(small, case), op.forward(small, case, eps=eps), f"forward {dtype}")
        checks.assert_same_bits(
            op.backward(dy, small, case, weight=weight)[0],
            op.backward(dy, small, case, weight=weight, eps=eps)[0],
            f"backward {dtype}",
        )


@every_operation
def test_finite_differences_of_the_kernel(op):
    """An end-to-end check without any reference: float64 forward differences against the float64 backward."""
    case, x, dy, weight, bias = problem(op, 3, 7, "float64")
    gradients = op.backward(dy, x, case, weight=weight, bias=bias, eps=1e-5)
    step = 1e-6
    for k, argument in enumerate((x, weight, bias)):
        for at in np.ndindex(argument.shape):
            values = []
            for sign in (1, -1):
                moved = [x.copy(), weight.copy(), bias.copy()]
                moved[k][at] += sign * step
                y = op.forward(moved[0], case, weight=moved[1], bias=moved[2], eps=1e-5)
                values.append((y * dy).sum())
            slope = (values[0] - values[1]) / (2 * step)
            assert abs(slope - gradients[k][at]) <= 1e-7 * max(1, abs(gradients[k][at])), (k, at)
            checks.COUNT.values += 1


@every_operation
def test_pytorch_float64_autograd(op):
    torch = pytest.importorskip("torch", reason="PyTorch is not installed: no autograd to compare with")
    for rows, n in ((1, 5), (7, 33), (70, 100)):
        case, x, dy, weight, bias = problem(op, rows, n, "float64")
        leaves = [torch.tensor(a, requires_grad=True) for a in (x, weight, bias)]
        op.torch_forward(leaves[0], case, leaves[1], leaves[2], eps=1e-5).backward(torch.tensor(dy))
        gradients = op.backward(dy, x, case, weight=weight, bias=bias, eps=1e-5)
        for name, leaf, actual in zip(("dx", "dweight", "dbias"), leaves, gradients, strict=True):
            scale = np.abs(actual).max()
            checks.assert_within(actual, wide(leaf.grad.numpy()), 1e-12 * scale, f"{name} against autograd")
