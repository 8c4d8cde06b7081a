"""PyTorch, JAX and other DLPack arrays: the same kind comes out, with NumPy's bits and without a copy."""

import checks
import normkit
import numpy as np
import pytest
from reference.operations import OPERATIONS, ROW_OPERATIONS
from reference.recipe import values
from reference.wide import DTYPES

pytestmark = pytest.mark.compares
every_operation = pytest.mark.parametrize("op", OPERATIONS, ids=str)
every_row_operation = pytest.mark.parametrize("op", ROW_OPERATIONS, ids=str)
every_dtype = pytest.mark.parametrize("dtype", DTYPES)
EPS = 1e-5


def problem(op, dtype, rows=9, n=70):
    case = op.make_case(rows, n)
    x, dy = (case.from_sets(values((rows, n), dtype, k, s)) for k, s in (("spread", 1), ("plain", 2)))
    weight, bias = (values(case.parameter_shape, dtype, "plain", s) for s in (3, 4))
    return case, x, dy, weight, bias


def everything(op, case, x, dy, weight, bias):
    forward = op.forward(x, case, weight=weight, bias=bias, eps=EPS, return_stats=True)
    return (*forward, *op.backward(dy, x, case, weight=weight, bias=bias, eps=EPS))


def to_torch(array):
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    if array.dtype.name == "bfloat16":
        return torch.tensor(array.view(np.int16)).view(torch.bfloat16)
    return torch.tensor(array)


def to_jax(array):
    jnp = pytest.importorskip("jax.numpy", reason="JAX is not installed")
    if array.dtype == np.float64:
        pytest.skip("JAX has float64 switched off")
    return jnp.asarray(array)


@every_dtype
@every_operation
@pytest.mark.parametrize("convert", (to_torch, to_jax))
def test_same_bits_and_same_kind(op, dtype, convert):
    case, *arrays = problem(op, dtype)
    expected = everything(op, case, *arrays)
    foreign = [convert(array) for array in arrays]
    for k, (actual, wanted) in enumerate(zip(everything(op, case, *foreign), expected, strict=True)):
        is_statistic = 1 <= k <= len(op.statistics)
        if not (is_statistic and convert is to_jax):  # JAX has no float64 by default: those are NumPy's
            assert type(actual) is type(foreign[0])
        checks.assert_same_bits(actual, wanted, f"result {k}")


@every_dtype
@every_operation
def test_pytorch_out(op, dtype):
    case, x, _, weight, bias = problem(op, dtype)
    expected = op.forward(x, case, weight=weight, bias=bias, eps=EPS)
    tensors = [to_torch(array) for array in (x, weight, bias)]
    out = to_torch(np.zeros_like(x))
    assert op.forward(tensors[0], case, weight=tensors[1], bias=tensors[2], eps=EPS, out=out) is out
    checks.assert_same_bits(out, expected, "out=")
    op.forward(tensors[0], case, weight=tensors[1], bias=tensors[2], eps=EPS, out=tensors[0])
    checks.assert_same_bits(tensors[0], expected, "out=x")


@every_row_operation
def test_pytorch_layouts(op):
    """Slices, transposes, expanded tensors, channels_last; the result keeps the order of the axes."""
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    case, x, *_ = problem(op, "float32")
    tensor = torch.tensor(x)
    wide = torch.zeros(9, 140)
    wide[:, ::2] = tensor
    y = op.forward(x, case, eps=EPS)
    for view in (wide[:, ::2], tensor.T.contiguous().T):
        checks.assert_same_bits(op.forward(view, case, eps=EPS), y, "a view")
    row = torch.tensor(x[:1]).expand(9, 70)
    expected = op.forward(np.ascontiguousarray(np.broadcast_to(x[:1], x.shape)), case, eps=EPS)
    checks.assert_same_bits(op.forward(row, case, eps=EPS), expected, "expanded")
    image = values((2, 6, 4, 5), "float32", "spread", 3)
    channels_last = torch.tensor(image).to(memory_format=torch.channels_last)
    case = op.layouts["channels"](40, 6)
    result = op.forward(channels_last, case, eps=EPS)
    assert result.is_contiguous(memory_format=torch.channels_last)
    checks.assert_same_bits(result, op.forward(image, case, eps=EPS), "channels_last")


@every_operation
def test_pytorch_requires_grad(op):
    """Read as detached while grad mode is off; a TypeError says so while it is on."""
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    case, x, _, weight, _ = problem(op, "float32")
    leaf = torch.tensor(x, requires_grad=True)
    for arguments in ((leaf, None), (torch.tensor(x), torch.tensor(weight, requires_grad=True))):
        with pytest.raises(TypeError, match=r"(?s)(x|weight).*grad"):
            op.forward(arguments[0], case, weight=arguments[1], eps=EPS)
    expected = op.forward(x, case, eps=EPS)
    for mode in (torch.no_grad, torch.inference_mode):
        with mode():
            y = op.forward(leaf, case, eps=EPS)
        assert not y.requires_grad
        checks.assert_same_bits(y, expected, "grad mode off")


@every_operation
def test_pytorch_dual_tensors(op):
    """Forward-mode differentiation would lose the tangent; a tensor without one is a tensor."""
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    case, x, dy, *_ = problem(op, "float32")
    x, dy = torch.tensor(x), torch.tensor(dy)
    expected = op.forward(x, case, eps=EPS)
    with torch.autograd.forward_ad.dual_level():
        dual = torch.autograd.forward_ad.make_dual(x, x)
        with pytest.raises(TypeError, match=r"^(x|content) is a PyTorch dual tensor.*unpack_dual"):
            op.forward(dual, case, eps=EPS)
        with pytest.raises(TypeError, match=r"^dy is a PyTorch dual tensor"):
            op.backward(torch.autograd.forward_ad.make_dual(dy, dy), x, case, eps=EPS)
        primal = torch.autograd.forward_ad.unpack_dual(dual).primal
        checks.assert_same_bits(op.forward(primal, case, eps=EPS), expected, "the primal")
        checks.assert_same_bits(op.forward(x, case, eps=EPS), expected, "no tangent")


@every_operation
def test_foreign_arrays_that_do_not_fit(op):
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    case, x, _, weight, _ = problem(op, "float32")
    meta = torch.zeros(9, 70, device="meta")
    with pytest.raises((TypeError, ValueError), match=r"\bx\b"):
        op.forward(meta, case, eps=EPS)
    with pytest.raises((TypeError, ValueError), match=r"\bweight\b"):
        op.forward(x, case, weight=torch.zeros(70, device="meta"), eps=EPS)
    for bad in (
        torch.zeros(9, 70).to_sparse(),
        torch.zeros(9, 70, dtype=torch.int32),
        torch.zeros(9, 70) + 1j,
    ):
        with pytest.raises((TypeError, ValueError), match=r"\bx\b"):
            op.forward(bad, case, eps=EPS)
    for bad in (torch.zeros(69), torch.zeros(0), torch.zeros(70, 1)):
        with pytest.raises(ValueError, match=r"\bweight\b.*shape"):
            op.forward(torch.tensor(x), case, weight=bad, eps=EPS)
    mixed = op.forward(torch.tensor(x), case, weight=weight, eps=EPS)
    assert isinstance(mixed, torch.Tensor)
    checks.assert_same_bits(mixed, op.forward(x, case, weight=weight, eps=EPS), "kinds may be mixed")


@every_operation
def test_pytorch_conjugate_and_negative_bits(op):
    """A lazily negated tensor's memory holds other numbers than the tensor."""
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    case, x, *_ = problem(op, "float32")
    negated = torch._neg_view(torch.tensor(x))
    expected = op.forward(-x, case, eps=EPS)
    try:
        y = op.forward(negated, case, eps=EPS)
    except (TypeError, ValueError) as error:
        assert "x" in str(error)
        checks.COUNT.values += 1
    else:
        checks.assert_same_bits(y, expected, "negative bit ignored")


@every_operation
def test_jax_arrays_are_immutable(op):
    jnp = pytest.importorskip("jax.numpy", reason="JAX is not installed")
    case, x, dy, *_ = problem(op, "float32")
    out = jnp.zeros(x.shape, jnp.float32)
    with pytest.raises(TypeError, match=r"(?s)out.*return_stats.*Moments"):
        op.forward(jnp.asarray(x), case, eps=EPS, out=out)
    with pytest.raises(TypeError, match="dx_out"):
        op.backward(jnp.asarray(dy), jnp.asarray(x), case, eps=EPS, dx_out=out)
    assert (np.asarray(out) == 0).all()
    checks.COUNT.values += out.size


class Foreign:
    """An array of an unknown library: DLPack and nothing else."""

    def __init__(self, array, device=(1, 0), capsule=None):
        self.array, self.device, self.capsule = array, device, capsule

    def __dlpack__(self, **keywords):
        if isinstance(self.capsule, BaseException):
            raise self.capsule
        if self.capsule is not None:
            return self.capsule
        return self.array.__dlpack__(**keywords)

    def __dlpack_device__(self):
        return self.device


@every_operation
def test_any_dlpack_array(op):
    case, x, dy, weight, bias = problem(op, "float32")
    expected = everything(op, case, x, dy, weight, bias)
    foreign = [Foreign(array) for array in (x, dy, weight, bias)]
    for k, result in enumerate(everything(op, case, *foreign)):
        checks.assert_same_bits(result, expected[k], f"result {k}")
    out = np.zeros_like(x)
    op.forward(x, case, weight=weight, bias=bias, eps=EPS, out=Foreign(out))
    checks.assert_same_bits(out, expected[0], "out")


@every_row_operation
def test_objects_that_lie_in_dlpack(op):
    case, x, *_ = problem(op, "float32")
    used = x.__dlpack__()
    np.from_dlpack(Foreign(x, capsule=used))
    lies = [
        Foreign(x, capsule=42),
        Foreign(x, capsule="dltensor"),
        Foreign(x, capsule=used),
        Foreign(x, capsule=RuntimeError("no")),
        Foreign(x, capsule=BufferError("no")),
        Foreign(x, device=(2, 0)),
        Foreign(x, device=None),
        Foreign(x, device=("cpu",)),
        Foreign(x, device=7),
        Foreign(np.zeros((9, 70), np.int32)),
        Foreign(np.zeros((9, 70), complex)),
        Foreign(np.zeros((9, 69), np.float32)),
        Foreign(None),
        Foreign,
    ]
    for lie in lies:
        with pytest.raises((TypeError, ValueError), match=r"\b(x|normalized_shape)\b"):
            op.forward(lie, case, eps=EPS)
        checks.COUNT.values += 1
    with pytest.raises(KeyboardInterrupt):
        op.forward(Foreign(x, capsule=KeyboardInterrupt()), case, eps=EPS)


without_cuda = pytest.mark.skipif(normkit.cuda.is_built(), reason="this build has CUDA kernels")


@without_cuda
@every_operation
@pytest.mark.parametrize("device", ((2, 0), (2, 3), (13, 0)))
def test_cuda_arrays_in_a_build_without_cuda(op, device):
    """What they are, and how to get a build that takes them, if there is one for the operation."""
    case, x, dy, weight, _ = problem(op, "float32")
    there = Foreign(x, device=device, capsule=AssertionError("its memory was asked for"))
    advice = r"-Ccmake.define.NORMKIT_CUDA=ON|no kernels; .*layer_norm"
    match = rf"is .*Foreign on CUDA device {device[1]}, .*({advice})"
    out = np.zeros_like(x)
    for call in (
        lambda: op.forward(there, case, eps=EPS, out=out),
        lambda: op.forward(x, case, weight=there, eps=EPS, out=out),
        lambda: op.forward(x, case, eps=EPS, out=there),
        lambda: op.backward(there, x, case, eps=EPS, dx_out=out),
        lambda: op.backward(dy, x, case, weight=weight, grads_out=(there, None), eps=EPS, dx_out=out),
    ):
        with pytest.raises(TypeError, match=match):
            call()
    assert (out == 0).all()
    checks.COUNT.values += out.size


@without_cuda
def test_no_cuda_devices_in_a_build_without_cuda():
    assert not normkit.cuda.is_built() and not normkit.cuda.is_available()
    assert normkit.cuda.device_count() == 0
    with pytest.raises(ValueError, match="device is 0; it should be the number of a CUDA device, of 0"):
        normkit.cuda.device_properties()
    assert normkit.show_config(mode="dicts")["cuda"] == "not built"
    checks.COUNT.values += 1


@pytest.mark.alone
def test_numpy_arrays_without_a_copy():
    """Ten calls on 64 MB with out= need no further 64 MB."""
    import resource

    x = np.ones((4096, 4096), np.float32)
    out = np.zeros_like(x)
    normkit.layer_norm(x[:8, ::-1], (4096,), out=out[:8])
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for view in (x, x[::-1], x.T, x[:, ::-1]):
        normkit.layer_norm(view, (4096,), out=out)
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    checks.COUNT.values += 1
    assert after - before < 16 * 1024, f"{(after - before) // 1024} MiB more"
