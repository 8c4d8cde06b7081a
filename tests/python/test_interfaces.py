"""What arguments may be: flags, eps, windows, sets of one value, modules; and countless empty sets."""

import inspect
import os
import subprocess
import sys
from pathlib import Path

import checks
import normkit as nk
import numpy as np
import pytest
from normkit import nn
from reference.families import make
from reference.wide import wide

pytestmark = pytest.mark.compares
SCRIPTS = Path(__file__).with_name("scripts")


def data(shape, seed=1):
    return make("normal", 1, int(np.prod(shape)), "float32", seed=seed).reshape(shape)


X, SIX, FIVE = data((4, 6, 5)), data((6,), 2), data((5,), 3)


def running():
    return np.zeros(6, np.float32), np.ones(6, np.float32)


# Every function that takes a flag or eps: a call that is right.
CALLS = {
    "layer_norm": lambda **k: nk.layer_norm(X, 5, **k),
    "layer_norm_backward": lambda **k: nk.layer_norm_backward(X, X, 5, **k),
    "rms_norm": lambda **k: nk.rms_norm(X, 5, **k),
    "rms_norm_backward": lambda **k: nk.rms_norm_backward(X, X, 5, **k),
    "add_layer_norm": lambda **k: nk.add_layer_norm(X, X, 5, **k),
    "add_layer_norm_backward": lambda **k: nk.add_layer_norm_backward(X, X, X, 5, **k),
    "add_rms_norm": lambda **k: nk.add_rms_norm(X, X, 5, **k),
    "add_rms_norm_backward": lambda **k: nk.add_rms_norm_backward(X, X, X, 5, **k),
    "batch_norm": lambda **k: nk.batch_norm(X, *running(), **k),
    "batch_norm_backward": lambda **k: nk.batch_norm_backward(X, X, *running(), **k),
    "instance_norm": lambda **k: nk.instance_norm(X, *running(), **k),
    "instance_norm_backward": lambda **k: nk.instance_norm_backward(X, X, *running(), **k),
    "group_norm": lambda **k: nk.group_norm(X, 2, **k),
    "group_norm_backward": lambda **k: nk.group_norm_backward(X, X, 2, **k),
    "switchable_norm": lambda **k: nk.switchable_norm(X, SIX[:3], SIX[3:], None, None, *running(), **k),
    "switchable_norm_backward": lambda **k: nk.switchable_norm_backward(
        X, X, SIX[:3], SIX[3:], None, None, *running(), **k
    ),
    "adaptive_instance_norm": lambda **k: nk.adaptive_instance_norm(X, X, **k),
    "adaptive_instance_norm_backward": lambda **k: nk.adaptive_instance_norm_backward(X, X, X, **k),
    "normalize": lambda **k: nk.normalize(X, **k),
    "normalize_backward": lambda **k: nk.normalize_backward(X, X, **k),
    "norm": lambda **k: nk.norm(X, "b [c] t", **k),
    "norm_backward": lambda **k: nk.norm_backward(X, X, "b [c] t", **k),
    "weight_norm_backward": lambda **k: nk.weight_norm_backward(X, X, SIX, 1, **k),
    "dynamic_tanh_backward": lambda **k: nk.dynamic_tanh_backward(X, X, 0.5, **k),
    "fold_batch_norm": lambda **k: nk.fold_batch_norm(
        X[0, :, :1] * SIX, None, *running(), None, None, **({"eps": 1e-5} | k)
    ),
}
FLAGS = ("training", "use_input_stats", "return_stats", "accumulate", "transposed")


def having(parameters):
    for name in nk.functional.__all__:
        for parameter in inspect.signature(getattr(nk, name)).parameters:
            if parameter in parameters:
                yield name, parameter


@pytest.mark.report("field trial: training='false' counts as True")
@pytest.mark.parametrize(("name", "flag"), list(having(FLAGS)))
def test_flags_are_bools(name, flag):
    call, more = CALLS[name], {}
    if flag == "accumulate":
        count = {"weight_norm_backward": 1, "switchable_norm_backward": 4, "dynamic_tanh_backward": 3}
        more["grads_out"] = [None] * count.get(name, 2)
    arrays = np.array(False), np.array([True])
    for bad in ("false", "", b"", 0, 1, 1.0, None, [], (False,), *arrays, np.int8(1)):
        with pytest.raises(TypeError, match=f"^{flag} is .*; it should be True or False"):
            call(**more, **{flag: bad})
    for good in (True, False):
        results = [call(**more, **{flag: kind(good)}) for kind in (bool, np.bool_)]
        assert len(set(map(digest, results))) == 1
    checks.COUNT.values += 1


def digest(result):
    arrays = result if isinstance(result, tuple) else (result,)
    return checks.digest(*(a for a in arrays if a is not None))


MODULES = {
    nn.LayerNorm: (5,),
    nn.RMSNorm: (5,),
    nn.DynamicTanh: (5,),
    nn.BatchNorm1d: (6,),
    nn.BatchNorm2d: (6,),
    nn.BatchNorm3d: (6,),
    nn.InstanceNorm1d: (6,),
    nn.InstanceNorm2d: (6,),
    nn.InstanceNorm3d: (6,),
    nn.GroupNorm: (3, 6),
    nn.SwitchableNorm: (6,),
}


@pytest.mark.report("field trial: training='false' counts as True")
@pytest.mark.parametrize("module", MODULES)
def test_flags_of_modules_are_bools(module):
    arguments = MODULES[module]
    names = ("elementwise_affine", "affine", "bias", "track_running_stats", "frozen")
    for name in names:
        if name in inspect.signature(module).parameters:
            for bad in ("false", 0, 1, None, np.array(True)):
                with pytest.raises(TypeError, match=f"^{name} is .*; it should be True or False"):
                    module(*arguments, **{name: bad})
            module(*arguments, **{name: np.bool_(False)})
    for bad in ("false", 0, None):
        with pytest.raises(TypeError, match=r"^mode is"):
            module(*arguments).train(bad)
    assert module(*arguments).train(np.bool_(False)).training is False
    checks.COUNT.values += 1


@pytest.mark.report("onnx#6187")
@pytest.mark.parametrize("name", [name for name, _ in having(("eps",))])
def test_eps_is_not_negative(name):
    for bad in (-1e-5, -841.0, -1, float("-inf"), np.float32(-1e-12)):
        with pytest.raises(ValueError, match=r"^eps is .*; it should be at least 0"):
            CALLS[name](eps=bad)
    with pytest.raises(ValueError, match=r"^eps is nan"):
        CALLS[name](eps=float("nan"))
    for good in (0, -0.0, 1e-5, 3, float("inf")):
        CALLS[name](eps=good)
    checks.COUNT.values += 1


def test_moments_take_no_negative_eps():
    for bad in (-1e-5, float("nan")):
        with pytest.raises(ValueError, match=r"^eps is"):
            nk.Moments.of(X, (0, 2)).rstd(bad)
    assert (nk.Moments.of(X, (0, 2)).rstd(float("inf")) == 0).all()
    checks.COUNT.values += 1


@pytest.mark.report("field trial: LocalResponseNorm with k = alpha = 0")
def test_local_response_norm_of_no_divisor():
    module = nn.LocalResponseNorm(3, k=0, alpha=0)
    for k, alpha in ((0, 0), (0.0, -0.0), (-1, 0), (0, -1e-4), (-1, -1)):
        for call in (
            lambda k=k, alpha=alpha: nk.local_response_norm(X, 3, alpha, k=k),
            lambda k=k, alpha=alpha: nk.local_response_norm_backward(X, X, 3, alpha, k=k),
        ):
            with pytest.raises(ValueError, match=r"^k is .* and alpha is .*; one of them should"):
                call()
    with pytest.raises(ValueError, match=r"^k is 0\.0 and alpha is 0\.0"):
        module(X)
    for name, bad in (("size", 0), ("size", -1), ("beta", float("nan"))):
        for f in (nk.local_response_norm, lambda *a, **k: nk.local_response_norm_backward(X, *a, **k)):
            with pytest.raises(ValueError, match=f"^{name} is {bad}"):
                f(X, **({"size": 3} | {name: bad}))
    y = nk.local_response_norm(X, 3, 0.0, k=4.0, beta=0.5)
    checks.assert_within(y, wide(X) / 2, 1e-6, "alpha 0 alone")
    y = nk.local_response_norm(X, 1, 1.0, k=0.0, beta=0.5)
    checks.assert_within(y, np.sign(wide(X)), 1e-6, "k 0 alone")


@pytest.mark.report("field trial: InstanceNorm of one value returns the bias")
@pytest.mark.parametrize("shape", ((4, 6), (4, 6, 1), (1, 6, 1, 1), (4, 6, 1, 1, 1)))
def test_instance_norm_of_one_value(shape):
    """As PyTorch; GroupNorm, whose groups may be of one value, gives the bias as there."""
    x = data(shape)
    message = "one value for each sample and channel"
    mean, var = running()
    with pytest.raises(ValueError, match=message):
        nk.instance_norm(x, mean, var, SIX, SIX)
    assert (mean == 0).all() and (var == 1).all()
    with pytest.raises(ValueError, match=message):
        nk.instance_norm(x)
    with pytest.raises(ValueError, match=message):
        nk.instance_norm_backward(x, x, None, None, SIX, SIX)
    y = nk.instance_norm(x, *running(), use_input_stats=False, eps=0.0)
    checks.assert_same_bits(y, x, "running statistics")
    nk.instance_norm_backward(x, x, *running(), use_input_stats=False)
    checks.assert_same_bits(nk.instance_norm(x[:0]), x[:0], "nothing is no value")
    bias = np.broadcast_to(SIX.reshape(6, *(1 for _ in shape[2:])), shape)
    checks.assert_same_bits(nk.group_norm(x, 6, SIX, SIX), np.ascontiguousarray(bias), "group_norm")
    if 3 <= len(shape) <= 5:
        module = getattr(nn, f"InstanceNorm{len(shape) - 2}d")(6, track_running_stats=True)
        with pytest.raises(ValueError, match=message):
            module(x)
        module.eval()(x)


@pytest.mark.report("field trial: nn.LayerNorm on float64")
@pytest.mark.parametrize("module", MODULES)
def test_modules_of_another_dtype_say_so(module):
    space = {"2d": (5, 2), "3d": (5, 2, 2)}.get(module.__name__[-2:], (5,))
    keywords = {"affine": True} if "Instance" in module.__name__ else {}
    for dtype, other in ((np.float64, np.float32), (np.float32, np.float64), (np.float16, np.float64)):
        x = data((4, 6, *space)).astype(dtype)
        wrong = module(*MODULES[module], **keywords, dtype=other)
        for training in (True, False):
            with pytest.raises(TypeError, match=rf"has dtype.*{module.__name__} .* dtype={x.dtype}$"):
                wrong.train(training)(x)
        assert module(*MODULES[module], **keywords, dtype=dtype)(x).dtype == dtype
    with pytest.raises(TypeError, match=r"^x") as caught:
        wrong(data((4, 6, *space)).astype(int))
    assert "dtype=" not in str(caught.value)
    checks.COUNT.values += 1


@pytest.mark.report("field trial: InstanceNorm of one sample without an axis of samples")
@pytest.mark.parametrize("track", (False, True))
@pytest.mark.parametrize("rank", (1, 2, 3))
def test_instance_norm_modules_take_one_sample(rank, track):
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    shape = (6, 5, 4, 3)[: rank + 1]
    x, dy = data(shape), data(shape, 2)
    keywords = {"affine": True, "track_running_stats": track}
    ours = getattr(nn, f"InstanceNorm{rank}d")(6, **keywords)
    theirs = getattr(torch.nn, f"InstanceNorm{rank}d")(6, **keywords)
    leaf = torch.tensor(x, requires_grad=True)
    expected = theirs(leaf)
    expected.backward(torch.tensor(dy))
    out = np.empty_like(x)
    for y in (ours(x), ours(torch.tensor(x)).numpy(), ours(x, out=out)):
        assert y.shape == shape
        checks.assert_within(y, wide(expected.detach().numpy()), 1e-6, "y")
    assert y is out
    dx = ours.backward(dy)
    assert dx.shape == shape
    checks.assert_within(dx, wide(leaf.grad.numpy()), 1e-5, "dx")
    for name in ("weight", "bias"):
        other = getattr(theirs, name).grad.numpy()
        checks.assert_within(ours.grads[name], wide(other), 1e-5, name)
    if track:
        fresh = getattr(nn, f"InstanceNorm{rank}d")(6, **keywords)
        fresh(x)
        checks.assert_within(fresh.running_var, wide(theirs.running_var.numpy()), 1e-6, "running_var")
    ours.eval(), theirs.eval()
    ours.load_state_dict({k: v.numpy() for k, v in theirs.state_dict().items()})
    checks.assert_within(ours(x), wide(theirs(torch.tensor(x)).detach().numpy()), 1e-5, "eval")
    last = getattr(nn, f"InstanceNorm{rank}d")(6, affine=True, channel_axis=-1)
    moved = np.ascontiguousarray(np.moveaxis(x, 0, -1))
    checks.assert_within(np.moveaxis(last(moved), -1, 0), wide(ours.train()(x)), 1e-6, "channels last")
    with pytest.raises(ValueError, match=f"should get {rank + 1} or {rank + 2}"):
        ours(x[0])


@pytest.mark.report("field trial: nn.RMSNorm has neither bias nor weight_offset")
def test_rms_norm_module_with_bias_and_offset():
    x, dy = X, data(X.shape, 2)
    plain = nn.RMSNorm(5)
    assert list(plain.state_dict()) == ["weight"] and plain.bias is None and plain.weight_offset == 0.0
    module = nn.RMSNorm(5, bias=True, weight_offset=1.0)
    assert list(module.state_dict()) == ["weight", "bias"] and (module.weight == 0).all()
    checks.assert_same_bits(module(x), plain(x), "a fresh module scales by 1")
    module.weight[...], module.bias[...] = FIVE, FIVE[::-1]
    keywords = {"bias": module.bias, "weight_offset": 1.0}
    y = nk.rms_norm(x, 5, FIVE, **keywords)
    checks.assert_same_bits(module.eval()(x), y, "eval")
    checks.assert_same_bits(module.train()(x), y, "train")
    dx, dweight, dbias = nk.rms_norm_backward(dy, x, 5, FIVE, **keywords)
    checks.assert_same_bits(module.backward(dy), dx, "dx")
    checks.assert_same_bits(module.grads["weight"], dweight, "dweight")
    checks.assert_same_bits(module.grads["bias"], dbias, "dbias")
    fresh = nn.RMSNorm(5, bias=True, weight_offset=1.0)
    fresh.load_state_dict(module.state_dict())
    checks.assert_same_bits(fresh(x), y, "loaded")
    without = nn.RMSNorm(5, elementwise_affine=False, bias=True, weight_offset=1.0)
    assert without.weight is None and without.bias is None
    assert "bias=True" in repr(module) and "weight_offset=1.0" in repr(module)


@pytest.mark.report("field trial: Moments of (2**40, 0) walks countless empty sets")
def test_countless_empty_sets():
    script = str(SCRIPTS / "countless_empty_sets.py")
    result = subprocess.run(
        [sys.executable, script], env=os.environ, capture_output=True, text=True, timeout=600
    )
    assert result.returncode == 0, f"{result.returncode}\n{result.stdout[-300:]}{result.stderr[-2000:]}"
    assert result.stdout.strip().endswith("ok")
    checks.COUNT.values += 1
