"""normkit.nn: state and errors as in torch.nn, train and eval mode, gradients."""

import checks
import normkit
import numpy as np
import pytest
from normkit import nn
from reference.families import make
from reference.operations import LAYER_NORM, RMS_NORM

pytestmark = pytest.mark.compares
MODULES = {"LayerNorm": LAYER_NORM, "RMSNorm": RMS_NORM}


@pytest.fixture(params=MODULES)
def name(request):
    return request.param


def filled(name, n=33, **keywords):
    """A module whose parameters are neither 1 nor 0."""
    module = getattr(nn, name)(n, **keywords)
    for k, (key, value) in enumerate(module.state_dict().items()):
        value[...] = make("normal", 1, n, "float32", seed=k).reshape(value.shape)
        assert getattr(module, key) is value
    return module


def data(rows=7, n=33):
    return (make("normal", rows, n, "float32", seed=s) for s in (5, 6))


def parameters(module):
    return {
        k: v for k, v in (("weight", module.weight), ("bias", getattr(module, "bias", None))) if v is not None
    }


def test_forward_and_backward_are_the_functions(name):
    op, module = MODULES[name], filled(name)
    x, dy = data()
    case = op.make_case(7, 33)
    checks.assert_same_bits(module(x), op.forward(x, case, **parameters(module)), "y")
    dx, dweight, dbias = op.backward(dy, x, case, **parameters(module))
    checks.assert_same_bits(module.backward(dy), dx, "dx")
    checks.assert_same_bits(module.grads["weight"], dweight, "dweight")
    if dbias is not None:
        checks.assert_same_bits(module.grads["bias"], dbias, "dbias")
    assert set(module.state_dict()) <= set(module.grads)


def test_state_dict_goes_to_pytorch_and_back(name):
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    module = filled(name)
    theirs = getattr(torch.nn, name)(33, eps=1e-5)
    theirs.load_state_dict({k: torch.tensor(v) for k, v in module.state_dict().items()}, strict=True)
    assert list(theirs.state_dict()) == list(module.state_dict())
    fresh = getattr(nn, name)(33, eps=1e-5)
    fresh.load_state_dict({k: v.numpy() for k, v in theirs.state_dict().items()})
    for key, value in module.state_dict().items():
        checks.assert_same_bits(fresh.state_dict()[key], value, key)
    fresh.load_state_dict(theirs.state_dict())  # tensors as they are
    x, _ = data()
    checks.assert_same_bits(fresh(x), getattr(nn, name).__call__(fresh, x), "loaded")
    difference = np.abs(fresh(x) - theirs(torch.tensor(x)).detach().numpy()).max()
    assert difference < 1e-5


def test_constructor_is_pytorchs(name):
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    ours, theirs = getattr(nn, name), getattr(torch.nn, name)
    for arguments in ((5,), ((5,),), ((2, 3),), ([4],)):
        a, b = ours(*arguments), theirs(*arguments)
        assert tuple(a.normalized_shape) == tuple(b.normalized_shape)
        assert a.eps == b.eps and a.elementwise_affine == b.elementwise_affine and a.training == b.training
        assert {k: v.shape for k, v in a.state_dict().items()} == {
            k: tuple(v.shape) for k, v in b.state_dict().items()
        }
        for key, value in a.state_dict().items():
            checks.assert_same_bits(value, b.state_dict()[key], key)
    assert ours(5, elementwise_affine=False).state_dict() == {}
    assert list(nn.LayerNorm(5, bias=False).state_dict()) == ["weight"]
    assert nn.LayerNorm(5, bias=False).bias is None


def test_without_parameters(name):
    op, module = MODULES[name], getattr(nn, name)(33, elementwise_affine=False)
    x, dy = data()
    case = op.make_case(7, 33)
    checks.assert_same_bits(module(x), op.forward(x, case), "y")
    checks.assert_same_bits(module.backward(dy), op.backward(dy, x, case)[0], "dx")


def test_out_in_train_mode(name):
    """The backward needs x, so it must not be overwritten; in eval mode in place is fine."""
    module = filled(name)
    x, dy = data()
    expected = module(x)
    out = np.empty_like(x)
    assert module(x, out=out) is out
    checks.assert_same_bits(out, expected, "out")
    before = x.copy()
    for bad in (x, x[:], x.reshape(x.shape)):
        with pytest.raises(ValueError, match="out"):
            module(x, out=bad)
    checks.assert_same_bits(x, before, "x was written")
    module.backward(dy)
    module.eval()
    assert module(x, out=x) is x
    checks.assert_same_bits(x, expected, "eval in place")


def test_backward_needs_a_forward(name):
    module = filled(name)
    x, dy = data()
    with pytest.raises(RuntimeError):
        module.backward(dy)
    module(x)
    checks.assert_same_bits(module.backward(dy), filled_backward(name, x, dy), "dx")
    with pytest.raises(RuntimeError):
        module.backward(dy)
    module.eval()
    module(x)
    with pytest.raises(RuntimeError):
        module.backward(dy)
    module.train()
    module(x)
    module.backward(dy)


def filled_backward(name, x, dy):
    module = filled(name)
    module(x)
    return module.backward(dy)


def test_train_and_eval(name):
    module = getattr(nn, name)(4)
    assert module.training is True
    assert module.eval() is module and module.training is False
    assert module.train() is module and module.training is True
    assert module.train(False).training is False
    checks.COUNT.values += 4


def test_the_last_forward_counts(name):
    module = filled(name)
    x, dy = data()
    module(x * 3)
    module(x)
    checks.assert_same_bits(module.backward(dy), filled_backward(name, x, dy), "the last x")


def test_bad_state(name):
    module = filled(name)
    before = checks.digest(*module.state_dict().values())
    good = {key: value * 2 for key, value in module.state_dict().items()}
    with pytest.raises(KeyError, match="weight"):
        module.load_state_dict({})
    with pytest.raises(KeyError, match="running_mean"):
        module.load_state_dict(good | {"running_mean": np.zeros(33)})
    for shape in ((32,), (1, 33), (), (0,)):
        with pytest.raises(ValueError, match="weight"):
            module.load_state_dict(good | {"weight": np.zeros(shape, np.float32)})
    assert checks.digest(*module.state_dict().values()) == before, "a failed load wrote something"
    module.load_state_dict(good | {"running_mean": np.zeros(33)}, strict=False)
    checks.assert_same_bits(module.weight, good["weight"], "strict=False")


def test_wrong_input(name):
    module = filled(name)
    with pytest.raises(ValueError, match="normalized_shape"):
        module(np.zeros((3, 32), np.float32))
    with pytest.raises(TypeError, match="x"):
        module([1.0] * 33)
    with pytest.raises(RuntimeError):
        module.backward(np.zeros((3, 33), np.float32))  # the failed call counts as none
    x, dy = data()
    module(x)
    with pytest.raises(ValueError, match="dy"):
        module.backward(dy[:, :-1])
    checks.assert_same_bits(module.backward(dy), filled_backward(name, x, dy), "after a refused dy")


def test_dtype(name):
    for dtype in (np.float64, np.float16):
        module = getattr(nn, name)(8, dtype=dtype)
        assert all(value.dtype == dtype for value in module.state_dict().values())
        assert module(np.ones((2, 8), dtype)).dtype == dtype
        checks.COUNT.values += 1


def test_repr(name):
    assert name in repr(getattr(nn, name)((4, 5))) and "(4, 5)" in repr(getattr(nn, name)((4, 5)))
    checks.COUNT.values += 1


def test_gradient_descent_learns(name):
    """End to end: a module fits another one's parameters."""
    target, module = filled(name), getattr(nn, name)(33)
    target.eval()
    x, _ = data(rows=200)
    wanted = target(x)
    losses = []
    for _ in range(60):
        error = module(x) - wanted
        losses.append(float((error**2).mean()))
        module.backward((error / len(x)).astype(np.float32))
        for key, value in module.state_dict().items():
            value -= 0.5 * module.grads[key]
    checks.COUNT.values += len(losses)
    assert losses[-1] < 1e-3 * losses[0], losses[-1]


def test_top_level_names():
    for function in ("layer_norm", "rms_norm", "layer_norm_backward", "rms_norm_backward"):
        assert getattr(normkit, function) is getattr(normkit.functional, function)
        assert getattr(normkit, function).__doc__
        checks.COUNT.values += 1
