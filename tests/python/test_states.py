"""States of modules go to PyTorch and come from it, in every form that PyTorch loads; all or nothing."""

import collections

import checks
import numpy as np
import pytest
from normkit import nn

torch = pytest.importorskip("torch", reason="PyTorch is not installed")
ml_dtypes = pytest.importorskip("ml_dtypes", reason="ml_dtypes is not installed")

BF16 = np.dtype(ml_dtypes.bfloat16)
DTYPES = (np.dtype("f4"), np.dtype("f8"), np.dtype("f2"), BF16)
C = 6
RUNNING = [f"{kind}Norm{rank}d" for kind in ("Batch", "Instance") for rank in (1, 2, 3)]
TRACKED = {"affine": True, "track_running_stats": True}
# Each module: how to make ours and, where PyTorch has it, theirs.
MODULES = {
    "LayerNorm": (lambda **k: nn.LayerNorm((2, C), **k), lambda **k: torch.nn.LayerNorm((2, C), **k)),
    "RMSNorm": (lambda **k: nn.RMSNorm(C, **k), lambda **k: torch.nn.RMSNorm(C, **k)),
    "GroupNorm": (lambda **k: nn.GroupNorm(3, C, **k), lambda **k: torch.nn.GroupNorm(3, C, **k)),
    "DynamicTanh": (lambda **k: nn.DynamicTanh(C, **k), None),
    "SwitchableNorm": (lambda **k: nn.SwitchableNorm(C, **k), None),
} | {
    name: (
        lambda name=name, **k: getattr(nn, name)(C, **TRACKED, **k),
        lambda name=name, **k: getattr(torch.nn, name)(C, **TRACKED, **k),
    )
    for name in RUNNING
}
every_module = pytest.mark.parametrize("name", MODULES)
every_dtype = pytest.mark.parametrize("dtype", DTYPES, ids=str)
every_tracking_module = pytest.mark.parametrize("name", RUNNING)
field_trial = pytest.mark.report("field trial: states from PyTorch")


def values(module, seed=0):
    """A state of other values, each of which bfloat16 holds."""
    rng = np.random.default_rng(seed)
    return {
        key: np.array(3) if own.dtype == np.int64 else rng.integers(1, 200, own.shape).astype("f4") / 4
        for key, own in module.state_dict().items()
    }


def torch_dtype(dtype):
    return getattr(torch, np.dtype(dtype).name)


def tensors(state, dtype=None, parameter=False):
    """The state as PyTorch keeps it."""
    made = {}
    for key, value in state.items():
        made[key] = torch.tensor(value)
        if dtype is not None and value.dtype.kind == "f":
            made[key] = made[key].to(torch_dtype(dtype))
        if parameter and value.dtype.kind == "f":
            made[key] = torch.nn.Parameter(made[key])
    return made


def assert_loaded(module, state, what):
    for key, own in module.state_dict().items():
        assert own.shape == state[key].shape
        assert (own.astype("f8") == state[key].astype("f8")).all(), f"{what}: {key}"
        checks.COUNT.values += own.size


@field_trial
@every_module
@every_dtype
def test_tensors_of_every_dtype(name, dtype):
    """Into modules of every dtype; as tensors and as Parameters, whose gradients are on."""
    for own in DTYPES:
        for parameter in (False, True):
            module = MODULES[name][0](dtype=own)
            state = values(module)
            result = module.load_state_dict(tensors(state, dtype, parameter))
            assert result == ([], []) and result.missing_keys == result.unexpected_keys == []
            assert "All keys matched" in repr(result)
            assert_loaded(module, state, f"{dtype} into {own}")
            arrays = {
                key: value.astype(dtype) if value.ndim else value for key, value in values(module, 1).items()
            }
            module.load_state_dict(arrays)
            assert_loaded(module, arrays, f"NumPy's {dtype} into {own}")


@field_trial
@every_module
@every_dtype
def test_both_ways(name, dtype):
    ours, theirs = MODULES[name][0](dtype=dtype), MODULES[name][1]
    state = values(ours)
    ours.load_state_dict(state)
    if theirs is None:
        fresh = MODULES[name][0](dtype=dtype)
        fresh.load_state_dict(ours.state_dict())
        return assert_loaded(fresh, state, "ours to ours")
    theirs = theirs(dtype=torch_dtype(dtype))
    keys = theirs.load_state_dict({k: torch.tensor(v.astype("f8")) for k, v in ours.state_dict().items()})
    assert not any(keys)
    theirs.double().to(torch_dtype(dtype))
    for key, value in theirs.state_dict().items():
        assert (value.double().numpy() == state[key]).all(), key
    fresh = MODULES[name][0](dtype=dtype)
    for given in (theirs.state_dict(), theirs.state_dict(keep_vars=True)):
        assert not any(fresh.load_state_dict(given))
        assert_loaded(fresh, state, "theirs to ours")


@field_trial
def test_tensors_that_numpy_does_not_read():
    module = nn.LayerNorm(3, bias=False)
    complex_ = torch.complex(torch.zeros(3), torch.tensor([1.0, 2.0, 3.0]))
    lazy = complex_.conj().imag
    assert lazy.is_neg()
    for value, wanted in (
        (lazy, [-1, -2, -3]),
        (torch.arange(6.0)[::2], [0, 2, 4]),
        (torch.tensor([1, 2, 3]), [1, 2, 3]),
        (torch.tensor([True, False, True]), [1, 0, 1]),
        (torch.ones(1, requires_grad=True).expand(3), [1, 1, 1]),
        ([4, 5, 6], [4, 5, 6]),
        (np.arange(3, dtype=ml_dtypes.float8_e4m3fn), [0, 1, 2]),
    ):
        module.load_state_dict({"weight": value})
        assert module.weight.tolist() == wanted
    with torch.inference_mode():
        inferred = torch.full((3,), 7.0)
    module.load_state_dict({"weight": inferred})
    assert module.weight.tolist() == [7, 7, 7]


@field_trial
@every_tracking_module
def test_states_without_a_count(name):
    """PyTorch's rule: the module keeps its own count, and nothing is missing."""
    ours, theirs = (make() for make in MODULES[name])
    state = values(ours)
    del state["num_batches_tracked"]
    versions = collections.OrderedDict(tensors(state))
    for version in (None, 1, 2):
        ours.num_batches_tracked[...] = 5
        theirs.num_batches_tracked.fill_(5)
        if version is not None:
            versions._metadata = {"": {"version": version}}
        given = versions if version is not None else tensors(state)
        wanted = theirs.load_state_dict(given, strict=False)
        assert ours.load_state_dict(given, strict=False) == tuple(wanted)
        assert wanted.missing_keys == (["num_batches_tracked"] if version == 2 else [])
        assert ours.num_batches_tracked == theirs.num_batches_tracked == 5
        if version == 2:
            with pytest.raises(KeyError, match="num_batches_tracked"):
                ours.load_state_dict(given)
        else:
            assert not any(ours.load_state_dict(given))
        assert_loaded(ours, state | {"num_batches_tracked": np.array(5)}, str(version))
    # A state that says nothing of versions may lack the count, and no other name.
    for key in state:
        with pytest.raises(KeyError, match=key):
            ours.load_state_dict({k: v for k, v in state.items() if k != key})


@field_trial
def test_frozen_batch_norms_states():
    """torchvision's FrozenBatchNorm2d has four buffers and no count."""
    state = {k: torch.rand(C) for k in ("weight", "bias", "running_mean", "running_var")}
    for frozen in (False, True):
        module = nn.BatchNorm2d(C, frozen=frozen)
        assert not any(module.load_state_dict(state))
        assert module.num_batches_tracked == 0
        assert (module.running_var == state["running_var"].numpy()).all()
    assert not any(module.load_state_dict(torch.nn.BatchNorm2d(C).state_dict()))


@field_trial
def test_a_count_of_another_type():
    module = nn.BatchNorm1d(C)
    state = values(module)
    numbers = (torch.tensor(7), torch.tensor([7]), torch.tensor(7.0), 7, np.float64(7), np.array(7, BF16))
    for count in (*numbers, torch.tensor(7).int(), torch.tensor(7).bfloat16()):
        module.load_state_dict(state | {"num_batches_tracked": count})
        assert module.num_batches_tracked == 7 and module.num_batches_tracked.shape == ()
        module.num_batches_tracked[...] = 0
    for count in (7.5, float("nan"), np.inf, 1j, "7", torch.tensor(0.5), None):
        with pytest.raises(TypeError, match="num_batches_tracked"):
            module.load_state_dict(state | {"num_batches_tracked": count})
    assert module.num_batches_tracked == 0


@field_trial
@pytest.mark.parametrize("dim", (0, 1, None))
def test_weight_norm(dim):
    """Of torch.nn.utils.weight_norm and of its parametrization, with and without the prefix; and back."""
    torch.manual_seed(3)
    linear = torch.nn.Linear(5, 4, bias=False)
    new = torch.nn.utils.parametrizations.weight_norm(linear, dim=dim)
    with torch.no_grad():
        new.parametrizations.weight.original0.mul_(2)
    state, wanted = new.state_dict(), new.weight.detach().numpy()
    assert list(state) == [f"parametrizations.weight.original{k}" for k in (0, 1)]
    old = torch.nn.utils.weight_norm(torch.nn.Linear(5, 4, bias=False), dim=dim)
    old.load_state_dict(dict(zip(("weight_g", "weight_v"), state.values(), strict=True)))
    short = new.parametrizations.weight.state_dict()
    rounded = {key: value.bfloat16() for key, value in state.items()}
    for given in (state, short, old.state_dict(), new.state_dict(keep_vars=True), rounded):
        module = nn.WeightNorm(np.ones((4, 5), "f4"), dim)
        assert not any(module.load_state_dict(given))
        checks.assert_within(module(), wanted.astype("f8"), 2e-2 if given is rounded else 1e-6, "weight")
        back = torch.nn.utils.parametrizations.weight_norm(torch.nn.Linear(5, 4, bias=False), dim=dim)
        assert not any(back.load_state_dict({k: torch.tensor(v) for k, v in module.state_dict().items()}))
        checks.assert_within(back.weight.detach().numpy(), module().astype("f8"), 1e-6, "back")
    for weight in (new.weight, new.weight.bfloat16(), wanted.astype(BF16), torch.nn.Parameter(new.weight)):
        begins = nn.WeightNorm(weight, dim)
        assert begins.weight_v.dtype == (BF16 if isinstance(weight, np.ndarray) else np.float32)
        checks.assert_within(begins(), wanted.astype("f8"), 2e-2, "begins with the weight")
    before = {k: v.copy() for k, v in module.state_dict().items()}
    key = "parametrizations.weight.original0"
    with pytest.raises(ValueError, match=key):
        module.load_state_dict({**state, key: torch.zeros(3)})
    with pytest.raises(KeyError, match="original0"):
        module.load_state_dict({**state, "original0": state[key]})
    with pytest.raises(KeyError, match="weight_v"):
        module.load_state_dict({"weight_g": state[key]})
    with pytest.raises(KeyError, match="bias"):
        module.load_state_dict({**state, "bias": torch.zeros(4)})
    for name, value in module.state_dict().items():
        assert (value == before[name]).all()
    result = module.load_state_dict({**state, "bias": torch.zeros(4)}, strict=False)
    assert result == ([], ["bias"]) and "bias" in repr(result)


@field_trial
@every_module
def test_what_is_returned_and_what_is_refused(name):
    ours, theirs = MODULES[name]
    module = ours()
    state = values(module)
    before = {k: v.copy() for k, v in module.state_dict().items()}
    keys = list(state)
    extra = {"other": torch.zeros(1), "another": torch.zeros(1)}
    refused = [
        (TypeError, "state_dict", list(state.items())),
        (KeyError, "another", state | extra),
        (KeyError, keys[0], {k: v for k, v in state.items() if k != keys[0]}),
    ]
    for key in keys:
        if key == "num_batches_tracked":
            continue
        wrong_shape = torch.zeros(2, *state[key].shape)
        shapes = rf"{key} has shape .*{wrong_shape.shape[0]}.*; it should have shape"
        refused += [
            (ValueError, shapes, state | {key: wrong_shape}),
            (TypeError, key, state | {key: torch.zeros(state[key].shape, dtype=torch.complex64)}),
            (TypeError, key, state | {key: torch.zeros(state[key].shape, device="meta")}),
            (TypeError, key, state | {key: torch.zeros(state[key].shape).to_sparse()}),
            (TypeError, key, state | {key: np.full(state[key].shape, "1")}),
            (TypeError, key, state | {key: [None]}),
        ]
    for error, match, bad in refused:
        for strict in (True, False):
            if error is KeyError and not strict:
                continue
            with pytest.raises(error, match=match):
                module.load_state_dict(bad, strict=strict)
    for key, value in module.state_dict().items():
        assert (value == before[key]).all(), f"{key}: a failed load wrote something"
    lacking = {k: v for k, v in state.items() if k != keys[0]} | extra
    result = module.load_state_dict(lacking, strict=False)
    assert result == ([keys[0]], ["other", "another"])
    if theirs is not None:
        assert result == tuple(
            theirs().load_state_dict(tensors(lacking | {k: np.zeros(1) for k in extra}), strict=False)
        )


@field_trial
def test_an_array_that_cannot_be_written():
    module = nn.LayerNorm(3)
    module.bias.flags.writeable = False
    with pytest.raises(ValueError, match="bias is a read-only"):
        module.load_state_dict({"weight": np.full(3, 2.0), "bias": np.ones(3)})
    assert (module.weight == 1).all()


def test_values_beyond_the_modules_dtype():
    """As PyTorch: inf, without a warning."""
    module = nn.LayerNorm(2, dtype=np.float16)
    module.load_state_dict({"weight": np.array([1e30, np.nan]), "bias": np.array([-1e30, 1])})
    assert module.weight[0] == np.inf and np.isnan(module.weight[1]) and module.bias[0] == -np.inf
