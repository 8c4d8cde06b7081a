"""What normkit writes into a PyTorch tensor counts as a change of it: autograd refuses what it has saved."""

import inspect
import signal
import subprocess
import sys

import normkit as nk
import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="PyTorch is not installed")

CHANNELS = 6
SHAPE = (4, CHANNELS, 5)


def tensor(*shape, seed=0, dtype=torch.float32):
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype) + 0.5


def parameters(count, size=CHANNELS):
    return [tensor(size, seed=10 + k) for k in range(count)]


X, DY = tensor(*SHAPE, seed=1), tensor(*SHAPE, seed=2)
W, B, MEAN, VAR = parameters(4)
WL, BL = parameters(2, SHAPE[-1])
LOGITS = parameters(2, 3)
ALPHA = tensor(1)
V, G = tensor(CHANNELS, 5, seed=3), tensor(CHANNELS, 1)
MOMENTS = nk.Moments.of(X, (0, 2))
GIVEN = {"mean": MOMENTS.mean, "rstd": MOMENTS.rstd()}
SUMS = nk.GradSums.of(DY, X, *GIVEN.values(), (0, 2))
PATTERN = "b c [t]"


def like(*arrays):
    return tuple(torch.zeros_like(array) for array in arrays)


# Each operation: a call, and what every argument may be that it writes to; tuples are written as a whole.
BACKWARD = {"dx_out": like(X)[0]}
CASES = {
    "layer_norm": (lambda **o: nk.layer_norm(X, 5, WL, BL, **o), {"out": like(X)[0]}),
    "rms_norm": (lambda **o: nk.rms_norm(X, 5, WL, **o), {"out": like(X)[0]}),
    "group_norm": (lambda **o: nk.group_norm(X, 3, W, B, **o), {"out": like(X)[0]}),
    "instance_norm": (
        lambda running_mean=None, running_var=None, **o: nk.instance_norm(
            X, running_mean, running_var, W, B, **o
        ),
        {"out": like(X)[0], ("running_mean", "running_var"): (MEAN, VAR)},
    ),
    "batch_norm": (
        lambda running_mean=None, running_var=None, **o: nk.batch_norm(
            X, running_mean, running_var, W, B, True, **o
        ),
        {"out": like(X)[0], ("running_mean", "running_var"): (MEAN, VAR)},
    ),
    "switchable_norm": (
        lambda running_mean=None, running_var=None, **o: nk.switchable_norm(
            X, *LOGITS, W, B, running_mean, running_var, **o
        ),
        {"out": like(X)[0], ("running_mean", "running_var"): (MEAN, VAR)},
    ),
    "adaptive_instance_norm": (lambda **o: nk.adaptive_instance_norm(X, DY, **o), {"out": like(X)[0]}),
    "local_response_norm": (lambda **o: nk.local_response_norm(X, 3, **o), {"out": like(X)[0]}),
    "normalize": (lambda **o: nk.normalize(X, **o), {"out": like(X)[0]}),
    "weight_norm": (lambda **o: nk.weight_norm(V, G, **o), {"out": like(V)[0]}),
    "dynamic_tanh": (lambda **o: nk.dynamic_tanh(X, ALPHA, WL, BL, **o), {"out": like(X)[0]}),
    "min_max_scale": (lambda **o: nk.min_max_scale(X, **o), {"out": like(X)[0]}),
    "z_score": (lambda **o: nk.z_score(X, **o), {"out": like(X)[0]}),
    "norm": (lambda **o: nk.norm(X, PATTERN, W, B, **o), {"out": like(X)[0]}),
    "add_layer_norm": (lambda **o: nk.add_layer_norm(X, DY, 5, WL, BL, **o), {"out": like(X, X)}),
    "add_rms_norm": (lambda **o: nk.add_rms_norm(X, DY, 5, WL, **o), {"out": like(X, X)}),
    "layer_norm_backward": (
        lambda **o: nk.layer_norm_backward(DY, X, 5, WL, BL, **o),
        BACKWARD | {"grads_out": like(WL, BL)},
    ),
    "rms_norm_backward": (
        lambda **o: nk.rms_norm_backward(DY, X, 5, WL, bias=BL, **o),
        BACKWARD | {"grads_out": like(WL, BL)},
    ),
    "add_layer_norm_backward": (
        lambda **o: nk.add_layer_norm_backward(DY, None, X, 5, WL, BL, **o),
        BACKWARD | {"grads_out": like(WL, BL)},
    ),
    "add_rms_norm_backward": (
        lambda **o: nk.add_rms_norm_backward(DY, None, X, 5, WL, bias=BL, **o),
        BACKWARD | {"grads_out": like(WL, BL)},
    ),
    "group_norm_backward": (
        lambda **o: nk.group_norm_backward(DY, X, 3, W, B, **o),
        BACKWARD | {"grads_out": like(W, B)},
    ),
    "instance_norm_backward": (
        lambda **o: nk.instance_norm_backward(DY, X, None, None, W, B, **o),
        BACKWARD | {"grads_out": like(W, B)},
    ),
    "batch_norm_backward": (
        lambda **o: nk.batch_norm_backward(DY, X, None, None, W, B, True, **o),
        BACKWARD | {"grads_out": like(W, B)},
    ),
    "batch_norm_backward of sums": (
        lambda **o: nk.batch_norm_backward(DY, X, None, None, W, B, True, **GIVEN, sums=SUMS, **o),
        BACKWARD,
    ),
    "switchable_norm_backward": (
        lambda **o: nk.switchable_norm_backward(DY, X, *LOGITS, W, B, **o),
        BACKWARD | {"grads_out": like(*LOGITS, W, B)},
    ),
    "adaptive_instance_norm_backward": (
        lambda **o: nk.adaptive_instance_norm_backward(DY, X, DY + 1, **o),
        BACKWARD | {"dstyle_out": like(X)[0]},
    ),
    "local_response_norm_backward": (lambda **o: nk.local_response_norm_backward(DY, X, 3, **o), BACKWARD),
    "normalize_backward": (lambda **o: nk.normalize_backward(DY, X, **o), BACKWARD),
    "weight_norm_backward": (
        lambda **o: nk.weight_norm_backward(V + 1, V, G, **o),
        {"dx_out": like(V)[0], "grads_out": like(G)},
    ),
    "dynamic_tanh_backward": (
        lambda **o: nk.dynamic_tanh_backward(DY, X, ALPHA, WL, BL, **o),
        BACKWARD | {"grads_out": like(ALPHA, WL, BL)},
    ),
    "norm_backward": (
        lambda **o: nk.norm_backward(DY, X, PATTERN, W, B, **o),
        BACKWARD | {"grads_out": like(W, B)},
    ),
}
INPUTS = (X, DY, W, B, WL, BL, *LOGITS, ALPHA, V, G)
WRITES = [(name, argument) for name, (_, written) in CASES.items() for argument in written]
every_write = pytest.mark.parametrize(
    ("name", "argument"), WRITES, ids=[f"{n}-{a if isinstance(a, str) else a[0]}" for n, a in WRITES]
)
wrong_gradient = pytest.mark.report("field trial: in place, then a wrong gradient")


def written_by(name, argument, make=torch.clone):
    """The call, ready to be made, and the tensors that it writes to."""
    call, written = CASES[name]
    value = written[argument]
    tensors = [make(array) for array in (value if isinstance(value, tuple) else (value,))]
    if isinstance(argument, tuple):
        keywords = dict(zip(argument, tensors, strict=True))
    else:
        keywords = {argument: tuple(tensors) if isinstance(value, tuple) else tensors[0]}
    return (lambda **more: call(**keywords, **more)), tensors


def test_every_argument_that_is_written_is_here():
    seen = {}
    for name, argument in WRITES:
        names = (argument,) if isinstance(argument, str) else argument
        seen.setdefault(name.split()[0], set()).update(names)
    for name in nk.functional.__all__:
        function = getattr(nk, name)
        names = inspect.signature(function).parameters
        outputs = {n for n in names if n == "out" or n.endswith("_out")}
        if not name.endswith("_backward") and name != "fold_batch_norm":
            outputs |= {n for n in names if n.startswith("running_")}
        assert outputs == seen.get(name, set()), name


@wrong_gradient
@every_write
def test_version_grows(name, argument):
    call, tensors = written_by(name, argument)
    before, inputs = [t._version for t in tensors], [t._version for t in INPUTS]
    call()
    assert all(t._version > version for t, version in zip(tensors, before, strict=True))
    assert [t._version for t in INPUTS] == inputs, "an input was not written"


@wrong_gradient
@every_write
def test_autograd_refuses_what_it_has_saved(name, argument):
    call, tensors = written_by(name, argument)
    for k, saved in enumerate(tensors):
        leaf = torch.ones_like(saved, requires_grad=True)
        loss = (leaf * saved).sum()
        call()
        with pytest.raises(RuntimeError, match="modified by an inplace operation"):
            loss.backward()
        assert leaf.grad is None, k


@wrong_gradient
@pytest.mark.parametrize("name", [name for name, (_, written) in CASES.items() if "grads_out" in written])
def test_accumulating_counts(name):
    call, tensors = written_by(name, "grads_out")
    before = [t._version for t in tensors]
    call(accumulate=True)
    assert all(t._version > version for t, version in zip(tensors, before, strict=True))


@wrong_gradient
def test_views_share_what_is_counted():
    base = torch.zeros(2, *SHAPE)
    for view in (base[1], base[1].detach(), base.transpose(1, 2)[0].transpose(0, 1)):
        before = base._version
        nk.layer_norm(X, 5, out=view)
        assert base._version > before and view._version == base._version
    leaf = torch.ones_like(base, requires_grad=True)
    loss = (leaf * base).sum()
    nk.layer_norm(base[0], 5, out=base[0])
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


@wrong_gradient
@every_write
def test_inference_mode(name, argument):
    """Its tensors have no version, inside or outside; others are counted inside too."""
    outside, tensors = written_by(name, argument)
    with torch.inference_mode():
        before = [t._version for t in tensors]
        outside()
        assert all(t._version > version for t, version in zip(tensors, before, strict=True))
        inside, tensors = written_by(name, argument)
        inside()
    assert all(t.is_inference() for t in tensors)
    inside()


@wrong_gradient
def test_one_without_a_version_among_others():
    with torch.inference_mode():
        without = torch.zeros(5)
    grads = (without, torch.zeros(5))
    nk.layer_norm_backward(DY, X, 5, WL, BL, grads_out=grads)
    assert grads[1]._version == 1
    nk.layer_norm_backward(DY, X, 5, WL, BL, grads_out=grads[::-1])
    assert grads[1]._version == 2


def test_what_is_refused_does_not_count():
    out, grads = torch.zeros_like(X), like(WL, BL)
    for bad in (
        lambda: nk.layer_norm(X, 5, WL[:-1], out=out),
        lambda: nk.layer_norm(X, 5, WL, out=out, activation="tanh"),
        lambda: nk.layer_norm_backward(DY, X, 5, WL, BL, dx_out=out, grads_out=(grads[0], W)),
        lambda: nk.layer_norm_backward(DY, X, 5, WL, BL, dx_out=out, grads_out=(grads[0], grads[0])),
        lambda: nk.batch_norm(X, MEAN, MEAN, training=True, out=out),
    ):
        with pytest.raises(ValueError):
            bad()
    assert [t._version for t in (out, *grads)] == [0, 0, 0]


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="needs a timer's signal")
def test_what_is_left_partly_written_counts():
    def interrupt(*_):
        raise KeyboardInterrupt

    x, out = torch.ones(4096, 4096), torch.zeros(4096, 4096)
    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        with nk.num_threads(1), pytest.raises(KeyboardInterrupt):
            signal.setitimer(signal.ITIMER_REAL, 0.02)
            nk.normalize(x, p=3, out=out)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert out._version == 1 and (out == 0).any() and (out != 0).any()


def test_new_results_are_new():
    for result in (nk.layer_norm(X, 5), *nk.layer_norm_backward(DY, X, 5, WL, BL)):
        assert result._version == 0
    with torch.inference_mode():
        nk.layer_norm(X, 5)


def test_numpy_arrays_have_no_version():
    x, out = X.numpy(), np.zeros(SHAPE, np.float32)
    before = X._version
    nk.layer_norm(x, 5, out=out)
    nk.layer_norm(x, 5, out=torch.zeros(SHAPE))
    assert X._version == before


LOADED = """
import sys, numpy, normkit
x = numpy.ones((3, 4), "f")
normkit.layer_norm(x, 4, out=x)
assert "torch" not in sys.modules
import torch
{older}
with torch.inference_mode():
    inferred = torch.zeros(3, 4)
for out in (torch.zeros(3, 4), torch.zeros(4, 3).T, torch.zeros(2, 3, 8)[1, :, ::2]):
    normkit.layer_norm(torch.ones(3, 4), 4, bias=torch.ones(4), out=out)
    assert out._version == 1 and (out == 1).all()
normkit.layer_norm(torch.ones(3, 4), 4, out=inferred)
mean, var = torch.zeros((2, 4))
normkit.batch_norm(torch.ones(3, 4), mean, var, training=True)
assert mean._version == var._version == 2  # views of one tensor
"""


OF_ONE_TENSOR = """
count_all = torch._C._increment_version
def count(tensor):
    if not isinstance(tensor, torch.Tensor): raise TypeError("one tensor")
    if tensor.is_inference(): raise RuntimeError("inplace update to inference tensor")
    count_all((tensor,))
torch._C._increment_version = torch.autograd.graph.increment_version = count
"""
NONE = "del torch._C._increment_version, torch.autograd.graph.increment_version"


@pytest.mark.parametrize("older", ["", OF_ONE_TENSOR, NONE], ids=["as it is", "of one tensor", "none"])
def test_pytorch_is_not_imported_and_may_be_older(older):
    code = LOADED.format(older=older)
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=240)
    assert result.returncode == 0, result.stderr
