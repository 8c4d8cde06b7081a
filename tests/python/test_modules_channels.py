"""Modules over channels: state, running statistics and gradients as in torch.nn; train, eval and frozen."""

import checks
import numpy as np
import pytest
from normkit import nn
from reference.families import make
from reference.wide import wide

pytestmark = pytest.mark.compares
SPACE = {"1d": (9,), "2d": (5, 7), "3d": (3, 5, 2)}
NAMES = [f"{kind}Norm{rank}" for kind in ("Batch", "Instance") for rank in SPACE] + ["GroupNorm"]
VARIANTS = (
    {},
    {"affine": False},
    {"affine": True, "track_running_stats": True},
    {"momentum": None, "track_running_stats": True},
    {"momentum": 0.4, "track_running_stats": True, "eps": 1e-3},
    {"track_running_stats": False},
)


def variants(name):
    return ({}, {"affine": False}, {"eps": 1e-3}) if name == "GroupNorm" else VARIANTS


def arrays(name, seed=0, channels=6):
    shape = (4, channels, *SPACE.get(name[-2:], (5, 7)))
    size = int(np.prod(shape))
    return (make("normal", 1, size, "float32", seed=seed + k).reshape(shape) * 2 + k for k in (1, 2))


def create(library, name, **keywords):
    return getattr(library, name)(*((3, 6) if name == "GroupNorm" else (6,)), **keywords)


def fill(module, seed=3):
    """Parameters that are neither 1 nor 0; running statistics likewise."""
    for k, (key, value) in enumerate(module.state_dict().items()):
        if value.ndim:
            value[...] = np.abs(make("normal", 1, value.size, "float32", seed=seed + k).reshape(-1)) + 0.5
            assert getattr(module, key) is value
    return module


@pytest.mark.parametrize("name", NAMES)
def test_as_pytorch(name):
    """Three steps of training, the state both ways, eval."""
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    for keywords in variants(name):
        ours, theirs = fill(create(nn, name, **keywords)), create(torch.nn, name, **keywords)
        assert list(theirs.state_dict()) == list(ours.state_dict())
        theirs.load_state_dict({k: torch.tensor(v) for k, v in ours.state_dict().items()}, strict=True)
        for step in range(3):
            x, dy = arrays(name, seed=10 * step)
            leaf = torch.tensor(x, requires_grad=True)
            expected = theirs(leaf)
            expected.backward(torch.tensor(dy))
            y, dx = ours(x), ours.backward(dy)
            where = f"{name} {keywords} step {step}"
            checks.assert_within(y, wide(expected.detach().numpy()), 3e-6, where)
            scale = np.abs(leaf.grad.numpy()).max() + 1
            checks.assert_within(dx, wide(leaf.grad.numpy()), 3e-6 * scale, f"{where} dx")
            for key, value in ours.state_dict().items():
                other = wide(theirs.state_dict()[key].numpy())
                checks.assert_within(value, other, 1e-6 * (1 + np.abs(other)), f"{where} {key}")
            for key, parameter in theirs.named_parameters():
                other = wide(parameter.grad.numpy())
                bound = 1e-5 * (1 + np.abs(other))
                checks.assert_within(ours.grads[key], other, bound, f"{where} d{key}")
                parameter.grad = None
        fresh = create(nn, name, **keywords)
        fresh.load_state_dict(theirs.state_dict())
        ours.eval(), theirs.eval(), fresh.eval()
        x, _ = arrays(name, seed=77)
        expected = wide(theirs(torch.tensor(x)).detach().numpy())
        for module in (ours, fresh):
            checks.assert_within(module(x), expected, 1e-5 * (1 + np.abs(expected)), f"{name} eval")
        assert repr(ours).split("(")[0] == name


@pytest.mark.parametrize("name", [n for n in NAMES if n.startswith("Batch")])
def test_frozen_and_running_statistics(name):
    x, dy = arrays(name)
    frozen = fill(create(nn, name, frozen=True))
    before = {k: v.copy() for k, v in frozen.state_dict().items()}
    y = frozen(x)
    dx = frozen.backward(dy)
    for key, value in frozen.state_dict().items():
        checks.assert_same_bits(value, before[key], f"{key} was changed")
    checks.assert_same_bits(frozen.eval()(x), y, "eval")
    shape = (1, 6, *(1 for _ in SPACE[name[-2:]]))
    slope = frozen.weight / np.sqrt(frozen.running_var.astype(np.float64) + 1e-5)
    checks.assert_within(dx, wide(dy * slope.reshape(shape)), 1e-6 * (1 + np.abs(dy)), "constants")
    module = create(nn, name)
    for k in range(3):
        module(x)
        assert module.num_batches_tracked == k + 1
    module.reset_running_stats()
    assert module.num_batches_tracked == 0 and (module.running_var == 1).all()
    assert (module.running_mean == 0).all()
    before = {k: v.copy() for k, v in module.state_dict().items()}
    module.eval()(x)
    empty = module.train()(x[:0])
    assert empty.shape == x[:0].shape
    checks.assert_same_bits(module.running_mean, before["running_mean"], "an empty batch")
    checks.assert_same_bits(module.running_var, before["running_var"], "an empty batch")


@pytest.mark.parametrize("name", NAMES)
def test_channels_last_gives_the_same_bits(name):
    """Of groups: as any channels-last memory."""
    x, dy = arrays(name)
    plain, last = fill(create(nn, name)), fill(create(nn, name, channel_axis=-1))
    if name == "GroupNorm":
        x = np.moveaxis(np.ascontiguousarray(np.moveaxis(x, 1, -1)), -1, 1)
    y = plain(x)
    checks.assert_same_bits(
        np.moveaxis(last(np.ascontiguousarray(np.moveaxis(x, 1, -1))), -1, 1).copy(), y.copy(), "y"
    )
    dx = plain.backward(dy)
    other = last.backward(np.ascontiguousarray(np.moveaxis(dy, 1, -1)))
    checks.assert_same_bits(np.moveaxis(other, -1, 1).copy(), dx.copy(), "dx")
    for key, value in plain.grads.items():
        if value is not None:
            checks.assert_same_bits(last.grads[key], value, key)


@pytest.mark.parametrize("name", NAMES)
def test_modes_and_errors(name):
    x, dy = arrays(name)
    module = create(nn, name)
    with pytest.raises(RuntimeError, match="backward"):
        module.backward(dy)
    module(x)
    module.backward(dy)
    with pytest.raises(RuntimeError, match="backward"):
        module.backward(dy)
    with pytest.raises(ValueError, match="out"):
        module(x, out=x)
    assert module.eval()(work := x.copy(), out=work) is work
    if name != "GroupNorm":
        with pytest.raises(ValueError, match="axes"):
            module(x[..., None, None, None])
    checks.COUNT.values += 1
    with pytest.raises(ValueError, match="num_groups"):
        nn.GroupNorm(4, 6)


def test_batch_norm_of_one_value():
    module = nn.BatchNorm1d(3)
    with pytest.raises(ValueError, match="more than one"):
        module(np.ones((1, 3), np.float32))
    assert module.num_batches_tracked == 0 and (module.running_mean == 0).all()
    assert module.eval()(np.ones((1, 3), np.float32)).shape == (1, 3)
    checks.COUNT.values += 1


def test_weight_norm_module():
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    v, dw = arrays("BatchNorm2d")
    for dim in (0, 1, 3, None):
        module = nn.WeightNorm(v, dim)
        checks.assert_within(module(), wide(v), 1e-6 * (1 + np.abs(v)), "begins with the weight")
        module.weight_g[...] *= 1.5
        leaves = [torch.tensor(a, requires_grad=True) for a in (module.weight_v, module.weight_g)]
        expected = torch._weight_norm(*leaves, dim) if dim is not None else None
        if expected is None:
            expected = leaves[0] * (leaves[1] / leaves[0].norm())
        expected.backward(torch.tensor(dw))
        checks.assert_within(module(), wide(expected.detach().numpy()), 2e-6 * (1 + np.abs(v) * 2), "w")
        dv = module.backward(dw)
        assert dv is module.grads["weight_v"]
        for key, leaf in zip(("weight_v", "weight_g"), leaves, strict=True):
            other = wide(leaf.grad.numpy())
            bound = 1e-4 * (1 + np.abs(other))
            checks.assert_within(module.grads[key], other, bound, key)
        assert list(module.state_dict()) == ["weight_g", "weight_v"]


def test_switchable_and_adaptive_modules():
    import normkit as nk

    x, dy = arrays("BatchNorm2d")
    module = fill(nn.SwitchableNorm(6))
    state = {k: v.copy() for k, v in module.state_dict().items()}
    order = ("mean_weight", "var_weight", "weight", "bias", "running_mean", "running_var")
    y = module(x)
    checks.assert_same_bits(y, nk.switchable_norm(x, *(state[k] for k in order)), "y")
    checks.assert_same_bits(module.running_mean, state["running_mean"], "running_mean")
    dx = module.backward(dy)
    gradients = nk.switchable_norm_backward(dy, x, *(state[k] for k in order))
    for actual, wanted in zip((dx, *(module.grads[k] for k in order[:4])), gradients, strict=True):
        checks.assert_same_bits(actual, wanted, "gradient")
    adaptive = nn.AdaptiveInstanceNorm()
    style = np.ascontiguousarray(x[:, :, :3])
    checks.assert_same_bits(adaptive(x, style), nk.adaptive_instance_norm(x, style), "adaptive")
    for actual, wanted in zip(
        adaptive.backward(dy), nk.adaptive_instance_norm_backward(dy, x, style), strict=True
    ):
        checks.assert_same_bits(actual, wanted, "adaptive gradient")
