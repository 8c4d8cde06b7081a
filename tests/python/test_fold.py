"""fold_batch_norm: the folded layer is the layer, then BatchNorm; each number rounded once from float64."""

import checks
import normkit as nk
import numpy as np
import pytest
from reference.recipe import values
from reference.wide import DTYPES, numpy_dtype, ulp, wide
from test_layouts import HOW, strided

pytestmark = pytest.mark.compares
every_dtype = pytest.mark.parametrize("dtype", DTYPES)
EPS = 1e-3


def statistics(channels):
    """running_mean, running_var, bn_weight, bn_bias"""
    mean, weight, bias = (values((channels,), "float32", "plain", seed) for seed in (1, 2, 3))
    return mean, np.abs(values((channels,), "float32", "plain", 4)) + np.float32(0.125), weight, bias


def channel_of(shape, transposed, groups):
    """The output channel of each element of weight."""
    index = np.indices(shape)
    return index[0] // (shape[0] // groups) * shape[1] + index[1] if transposed else index[0]


@every_dtype
@pytest.mark.parametrize("transposed", (False, True))
@pytest.mark.parametrize(
    ("shape", "groups"),
    (((5, 3), 1), ((6, 4), 2), ((6, 5, 3), 3), ((8, 2, 3, 3), 4), ((1, 1), 1)),
)
def test_rounded_once(shape, groups, transposed, dtype):
    weight = values(shape, dtype, "plain", 5)
    channels = shape[1] * groups if transposed else shape[0]
    bias = values((channels,), dtype, "plain", 6)
    mean, var, bn_weight, bn_bias = statistics(channels)
    result = nk.fold_batch_norm(
        weight, bias, mean, var, bn_weight, bn_bias, EPS, transposed=transposed, groups=groups
    )
    assert all(type(array) is np.ndarray and array.dtype == weight.dtype for array in result)
    scale = wide(bn_weight) / np.sqrt(wide(var) + wide(EPS))
    shift = (wide(bias) - wide(mean)) * scale
    folded = wide(weight) * scale[channel_of(shape, transposed, groups)] if weight.size else wide(weight)
    # Half an ULP, and float64's roundings before it: root, quotient, product; difference, product, sum.
    unit = 2.0**-52
    checks.assert_within(result[0], folded, ulp(folded, dtype) / 2 + 4 * unit * np.abs(folded), "weight")
    terms = (np.abs(wide(bias)) + np.abs(wide(mean))) * np.abs(scale) + np.abs(wide(bn_bias))
    exact = shift + wide(bn_bias)
    checks.assert_within(result[1], exact, ulp(exact, dtype) / 2 + 6 * unit * terms, "bias")


def test_missing_parameters_are_zeros_and_ones():
    weight = values((4, 3, 2), "float32", "plain", 1)
    mean, var, bn_weight, bn_bias = statistics(4)
    zeros, ones = np.zeros(4, np.float32), np.ones(4, np.float32)
    for a, b in (
        ((None, mean, var, bn_weight, bn_bias), (zeros, mean, var, bn_weight, bn_bias)),
        ((zeros, mean, var, None, bn_bias), (zeros, mean, var, ones, bn_bias)),
        ((zeros, mean, var, bn_weight, None), (zeros, mean, var, bn_weight, zeros)),
    ):
        results = nk.fold_batch_norm(weight, *a, EPS), nk.fold_batch_norm(weight, *b, EPS)
        for actual, expected in zip(*results, strict=True):
            checks.assert_same_bits(actual, expected, "None")


@pytest.mark.parametrize("how", HOW)
def test_strided(how):
    weight = values((6, 5, 4), "float32", "plain", 1)
    mean, var, bn_weight, bn_bias = statistics(6)
    expected = nk.fold_batch_norm(weight, mean, mean, var, bn_weight, bn_bias, EPS)
    parameters = [strided(p, "every second") for p in (mean, mean, var, bn_weight, bn_bias)]
    result = nk.fold_batch_norm(strided(weight, how), *parameters, EPS)
    for actual, wanted in zip(result, expected, strict=True):
        checks.assert_same_bits(actual, wanted, how)


@pytest.mark.parametrize("dtype", ("float64", "float32", "bfloat16"))
@pytest.mark.parametrize("bias", (False, True))
def test_layers_of_pytorch(bias, dtype):
    """Convolution, transposed convolution and linear layer, then BatchNorm, in float64."""
    torch = pytest.importorskip("torch")
    torch.manual_seed(1)
    for layer, shape in (
        (torch.nn.Linear(12, 10, bias), (7, 12)),
        (torch.nn.Conv1d(12, 10, 3, groups=2, bias=bias), (4, 12, 9)),
        (torch.nn.Conv2d(12, 10, 3, bias=bias), (4, 12, 9, 8)),
        (torch.nn.ConvTranspose2d(12, 10, 3, groups=2, bias=bias), (4, 12, 5, 6)),
        (torch.nn.ConvTranspose1d(12, 10, 3, bias=bias), (4, 12, 5)),
    ):
        layer = layer.to(getattr(torch, dtype))
        transposed, groups = getattr(layer, "transposed", False), getattr(layer, "groups", 1)
        mean, var, bn_weight, bn_bias = (torch.from_numpy(v) for v in statistics(10))
        x = torch.randn(shape, dtype=torch.float64)
        with torch.no_grad():
            weight, new_bias = nk.fold_batch_norm(
                layer.weight,
                layer.bias,
                mean,
                var,
                bn_weight,
                bn_bias,
                EPS,
                transposed=transposed,
                groups=groups,
            )
            assert weight.dtype == new_bias.dtype == layer.weight.dtype
            y = layer.double()(x)
            expected = torch.nn.functional.batch_norm(
                y, mean.double(), var.double(), bn_weight.double(), bn_bias.double(), eps=EPS
            )
            layer.weight = torch.nn.Parameter(weight.double())
            layer.bias = torch.nn.Parameter(new_bias.double())
            actual = layer(x)
        unit = {"float64": 2.0**-46, "float32": 2.0**-20, "bfloat16": 2.0**-4}[dtype]
        largest = expected.abs().max()
        checks.COUNT.values += actual.numel()
        assert (actual - expected).abs().max() <= unit * largest, f"{layer}"


def misaligned(shape):
    raw = np.zeros(4 * int(np.prod(shape)) + 1, np.uint8)
    return raw[1:].view(np.float32).reshape(shape)


def test_bad_input():
    none = np.zeros((0, 4), np.float32)
    weight = values((6, 4, 3), "float32", "plain", 1)
    good = dict(zip(("running_mean", "running_var", "bn_weight", "bn_bias"), statistics(6), strict=True))
    good |= {"weight": weight, "bias": None, "eps": EPS}
    nk.fold_batch_norm(**good)
    for error, match, change in (
        (ValueError, "running_mean has shape", {"running_mean": np.zeros(5)}),
        (ValueError, "bias has shape", {"bias": np.zeros((6, 1))}),
        (ValueError, "has shape .* output channel of weight", {"transposed": True}),
        (TypeError, "running_var is None", {"running_var": None}),
        (TypeError, "weight is", {"weight": [[1.0]]}),
        (TypeError, "weight has dtype int64", {"weight": np.zeros((6, 4), np.int64)}),
        (ValueError, "weight has shape", {"weight": np.zeros(6, np.float32)}),
        (ValueError, "groups is 4", {"groups": 4}),
        (ValueError, "groups is 0", {"groups": 0}),
        (TypeError, "groups is", {"groups": 1.5}),
        (ValueError, "eps is nan", {"eps": float("nan")}),
        (ValueError, "^weight lies at an address", {"weight": misaligned((6, 4))}),
        (ValueError, "^running_mean lies at an address", {"running_mean": misaligned((6,))}),
        (ValueError, "^bn_bias lies at an address", {"bn_bias": misaligned((6,))}),
        (ValueError, "^groups is 4611686018427387904", dict(weight=none, transposed=True, groups=2**62)),
        # Before memory for as many channels is asked for.
        (ValueError, "^running_mean has shape", dict(weight=none, transposed=True, groups=2**40)),
    ):
        with pytest.raises(error, match=match):
            nk.fold_batch_norm(**(good | change))
        checks.COUNT.values += 1


@every_dtype
def test_it_does_not_touch_its_arguments(dtype):
    weight = values((6, 4, 3), dtype, "plain", 1)
    arrays = [weight, values((6,), dtype, "plain", 2), *statistics(6)]
    copies = [array.copy() for array in arrays]
    result = nk.fold_batch_norm(*arrays, EPS)
    for array, copy in zip(arrays, copies, strict=True):
        checks.assert_same_bits(array, copy, "an argument")
        assert not any(np.shares_memory(array, r) for r in result)
    assert result[0].dtype == numpy_dtype(dtype)
