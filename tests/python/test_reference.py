"""The references against exact rational arithmetic, finite differences and PyTorch's autograd in float64."""

from fractions import Fraction
from math import isqrt

import checks
import numpy as np
import pytest
from reference.families import FAMILIES, make, parameters
from reference.operations import OPERATIONS
from reference.wide import WIDE, mean_pair, two_product, ulp, wide

pytestmark = pytest.mark.compares
every_operation = pytest.mark.parametrize("op", OPERATIONS, ids=str)


def fraction(value):
    """A longdouble as an exact fraction."""
    top = float(value)
    rest = value - WIDE(top)
    return Fraction(top) + Fraction(float(rest))


def square_root(value):
    """A positive fraction's root to 200 bits."""
    scale = 1 << 400
    while value.numerator * scale < (value.denominator << 400):
        scale <<= 400
    return Fraction(isqrt(value.numerator * scale * scale // value.denominator), scale)


@every_operation
@pytest.mark.parametrize("n", (1, 2, 3, 10, 33))
@pytest.mark.parametrize("family", FAMILIES)
def test_forward_in_fractions(op, n, family):
    eps = 1e-5
    x = make(family, 1, n, "float64")
    case = op.make_case(1, n)
    exact = [Fraction(float(v)) for v in x[0]]
    mean = sum(exact) / n if op.centred else Fraction(0)
    root = square_root(sum((v - mean) ** 2 for v in exact) / n + Fraction(eps))
    standard = op.reference(case.from_sets(x), case, eps)
    for value, result in zip(exact, standard.xhat.reshape(-1), strict=True):
        expected = (value - mean) / root
        tolerance = abs(expected) * Fraction(2) ** -60 + Fraction(2) ** -70
        assert abs(fraction(result) - expected) <= tolerance
        checks.COUNT.values += 1


def test_mean_pair_has_more_than_100_bits():
    x = make("mean 1e4 std 0.01", 4, 1001, "float64")
    hi, lo = mean_pair(wide(x), 1)
    for row, h, low in zip(x, hi[:, 0], lo[:, 0], strict=True):
        exact = sum(Fraction(float(v)) for v in row) / len(row)
        assert abs(fraction(h) + fraction(low) - exact) <= exact * Fraction(2) ** -100
        checks.COUNT.values += 1


def test_two_product_is_exact():
    a, b = WIDE(1) / 3, WIDE(7) / 11
    p, e = two_product(a, b)
    assert fraction(p) + fraction(e) == fraction(a) * fraction(b)
    checks.COUNT.values += 1


@pytest.mark.parametrize("dtype", ("float16", "float32", "float64"))
def test_ulp_agrees_with_numpy(dtype):
    values = np.array([1, 1.5, 2, 0.1, 3e-5, 1e-7, 6e-8, 1000, 0], dtype)
    assert (wide(np.spacing(values)) == ulp(values, dtype)).all()
    checks.COUNT.values += values.size


@every_operation
@pytest.mark.parametrize("n", (1, 2, 5, 12))
def test_backward_by_finite_differences(op, n):
    """Central differences of the loss sum(dy y) in longdouble: step 1e-5, so about 1e-9 of error."""
    eps, step = 1e-5, WIDE(1e-5)
    case = op.make_case(3, n)
    x, dy = (wide(case.from_sets(make("normal", 3, n, "float64", seed=s))) for s in (1, 2))
    weight, bias = (wide(p) for p in parameters(case.parameter_shape, "float64"))

    def loss(x, weight, bias):
        return (op.reference(x, case, eps).affine(case, weight, bias)[0] * dy).sum()

    gradients = op.reference_backward(dy, x, case, eps, weight)
    arguments = [x, weight, bias]
    for k, gradient in enumerate((gradients.dx, gradients.dweight, gradients.dbias)):
        for at in np.ndindex(arguments[k].shape):
            sides = []
            for sign in (1, -1):
                moved = [a.copy() for a in arguments]
                moved[k][at] += sign * step
                sides.append(loss(*moved))
            slope = (sides[0] - sides[1]) / (2 * step)
            assert abs(slope - gradient[at]) <= 1e-6 * max(1, abs(gradient[at]))
            checks.COUNT.values += 1


@every_operation
@pytest.mark.parametrize("n", (1, 2, 7, 64, 100))
def test_backward_against_pytorch_autograd(op, n):
    torch = pytest.importorskip("torch", reason="PyTorch is not installed: no autograd to compare with")
    if op.per_set and n == 1:
        pytest.skip("PyTorch refuses one value per channel")
    case = op.make_case(5, n)
    x, dy = (case.from_sets(make("normal", 5, n, "float64", seed=s)) for s in (1, 2))
    weight, bias = parameters(case.parameter_shape, "float64")
    leaves = [torch.tensor(a, requires_grad=True) for a in (x, weight, bias)]
    op.torch_forward(leaves[0], case, leaves[1], leaves[2], eps=1e-5).backward(torch.tensor(dy))
    gradients = op.reference_backward(dy, x, case, 1e-5, weight)
    for name, leaf in zip(("dx", "dweight", "dbias"), leaves, strict=True):
        terms = getattr(gradients, name + "_terms")
        checks.assert_within(
            leaf.grad.numpy(), getattr(gradients, name), 1e-11 * (terms + 1), f"autograd {name}"
        )
