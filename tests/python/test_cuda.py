"""The device half of the package, with stand-ins for devices and libraries (cuda_on_host.py): the CPU's bits.

Runs with an extension built with NORMKIT_CUDA_ON_HOST (tests/cuda_python.sh), and is not collected otherwise.
"""

import ctypes

import checks
import cuda_on_host as device
import normkit as nk
import numpy as np
import pytest
from cuda_calls import calls, problem
from cuda_on_host import CupyArray, DeviceArray, JaxArray, OldTensor, StandardArray, Tensor
from reference.recipe import values
from reference.wide import DTYPES

pytestmark = pytest.mark.compares
KINDS = (CupyArray, Tensor, StandardArray)
every_kind = pytest.mark.parametrize("kind", KINDS)
# The array API standard has no bfloat16.
every_dtype_of_every_kind = pytest.mark.parametrize(
    ("kind", "dtype"),
    [(kind, dtype) for kind in KINDS for dtype in DTYPES if (kind, dtype) != (StandardArray, "bfloat16")],
)
LEGACY = 1  # DLPack's number of the legacy default stream


@pytest.fixture(autouse=True)
def fresh():
    """No test sees another's streams, devices and allocations; nothing is written behind an allocation."""
    libraries = (device.cupy, device.torch, device.standard)
    for library in libraries:
        library.lent.clear()
        library.current, library.streams = 0, {0: 0, 1: 0x2000}
    device.symbol("current_device").value = device.symbol("refuse").value = 0
    yield
    assert all(library.guards_hold() for library in libraries)
    assert device.symbol("current_device").value == 0, "the caller's device is current again"


def moved(value, kind, number=0):
    """A call's argument on a device: a copy in the same order of axes."""
    if isinstance(value, np.ndarray):
        copy = np.empty_like(value)
        copy[...] = value
        return kind(copy, number)
    if isinstance(value, (tuple, list)):
        return type(value)(moved(entry, kind, number) for entry in value)
    return value


def flat(result):
    return result if isinstance(result, tuple) else (result,)


def assert_like_the_cpu(name, *arguments, array_type=CupyArray, written=(), **keywords):
    """The same call on the CPU and on a device: results, and the arrays named in `written`, are the same."""
    on_device = [moved(value, array_type) for value in arguments]
    device_keywords = {key: moved(value, array_type) for key, value in keywords.items()}
    expected = flat(getattr(nk, name)(*arguments, **keywords))
    actual = flat(getattr(nk, name)(*on_device, **device_keywords))
    assert len(actual) == len(expected)
    for k, (a, e) in enumerate(zip(actual, expected, strict=True)):
        if e is None:
            assert a is None
            continue
        assert type(a) is array_type and a.id == 0
        assert a.array.strides == e.strides or a.array.size <= 1, f"{name} result {k}"
        checks.assert_same_bits(a.array, e, f"{name} result {k}")
    host, there = (
        {**dict(enumerate(arguments)), **keywords},
        {**dict(enumerate(on_device)), **device_keywords},
    )
    for key in written:
        checks.assert_same_bits(there[key].array, host[key], f"{name} argument {key}")
    return on_device, device_keywords, actual


@every_dtype_of_every_kind
def test_the_bits_of_the_cpu(kind, dtype):
    for name, arguments, keywords in calls(dtype):
        assert_like_the_cpu(name, *arguments, array_type=kind, **keywords)


def test_every_launch_has_its_workspace():
    """Long sets and parameter gradients need one: from x's library, and no byte behind it is written."""
    x, dy, _, weight, bias = problem("float32", (70, 3000), (3000,))
    for name in ("layer_norm", "rms_norm"):
        assert_like_the_cpu(name + "_backward", dy, x, 3000, weight=weight, bias=bias)
    assert {entry[0].dtype.name for entry in device.cupy.lent} == {"float32", "float64"}
    image = values((40, 3, 30, 30), "float16", "spread", 1)
    assert_like_the_cpu("batch_norm", image, None, None, training=True, return_stats=True)


@every_kind
def test_layouts(kind):
    """Slices, transposes, negative and zero strides; the result keeps the order of the axes."""
    x = values((2, 6, 8, 10), "float32", "spread", 1)
    for view in (
        x.transpose(0, 2, 3, 1),
        np.ascontiguousarray(x.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2),
        x[:, ::-1],
        x[..., ::2],
        np.broadcast_to(x[:1], x.shape),
    ):
        y = nk.group_norm(kind(view), 2)
        expected = nk.group_norm(view, 2)
        checks.assert_same_bits(y.array, expected, "group_norm")
        if view.base is None or 0 not in view.strides:
            assert y.array.strides == expected.strides
        mean = nk.layer_norm(kind(view), view.shape[1], axis=1, return_stats=True)[1]
        checks.assert_same_bits(mean.array, nk.layer_norm(view, view.shape[1], axis=1, return_stats=True)[1])


def test_without_elements():
    for shape in ((0, 8), (4, 0)):
        x = np.zeros(shape, np.float32)
        assert_like_the_cpu("layer_norm", x, shape[1], return_stats=True)
        assert_like_the_cpu("layer_norm_backward", x, x, shape[1], weight=np.ones(shape[1], np.float32))


# ---- streams and devices ----


@pytest.mark.parametrize(
    "kind, library", ((CupyArray, device.cupy), (OldTensor, device.torch), (Tensor, device.torch))
)
@pytest.mark.parametrize("handle, stream", ((0, LEGACY), (1, 1), (2, 2), (0x7F0000001000, 0x7F0000001000)))
def test_the_librarys_current_stream(kind, library, handle, stream):
    library.streams[0] = handle
    x, weight = (kind(values(shape, "float32", "plain", 1)) for shape in ((4, 33), (33,)))
    waits = device.symbol("waits").value
    y, mean, rstd = nk.layer_norm(x, 33, weight, return_stats=True)
    assert device.symbol("waits").value == waits
    assert device.symbol("launch_stream", ctypes.c_size_t).value == stream
    for array in (x, weight, y, mean, rstd):
        # PyTorch's exchange table hands memory out as it is: the stream of the call is PyTorch's own.
        assert set(array.streams) == (set() if type(array) is Tensor else {stream})
    checks.COUNT.values += 1


def test_other_libraries_arrays():
    """x's library decides the stream, by default the default stream; the others make it wait for theirs."""
    x, w = values((4, 33), "float32", "plain", 1), values((33,), "float32", "plain", 2)
    expected = nk.layer_norm(x, 33, w)
    device.cupy.streams[0], device.torch.streams[0] = 0x1000, 0x3000
    for first, second, stream in (
        (CupyArray, Tensor, 0x1000),
        (CupyArray, OldTensor, 0x1000),
        (Tensor, CupyArray, 0x3000),
        (CupyArray, DeviceArray, 0x1000),
        (StandardArray, CupyArray, LEGACY),
    ):
        weight = second(w)
        waits = device.symbol("waits").value
        y = nk.layer_norm(first(x), 33, weight)
        assert type(y) is first and weight.streams == [stream]
        assert device.symbol("waits").value == waits + 1  # its memory may be used again on another stream
        assert device.symbol("launch_stream", ctypes.c_size_t).value == stream
        checks.assert_same_bits(y.array, expected)
    for nobody in (DeviceArray(x), JaxArray(x)):
        with pytest.raises(TypeError, match=r"^x is .* on CUDA device 0, whose library lends no memory"):
            nk.layer_norm(nobody, 33)


@every_kind
def test_the_arrays_device_is_current(kind):
    x, w = values((4, 33), "float32", "plain", 1), values((33,), "float32", "plain", 2)
    y, mean, _ = nk.layer_norm(kind(x, 1), 33, kind(w, 1), return_stats=True)
    assert device.symbol("launch_device").value == 1 and device.symbol("current_device").value == 0
    assert y.id == mean.id == 1
    if kind is not StandardArray:
        assert device.symbol("launch_stream", ctypes.c_size_t).value == 0x2000
    checks.assert_same_bits(y.array, nk.layer_norm(x, 33, w))
    with pytest.raises(ValueError, match="weight"):
        nk.layer_norm(kind(x, 1), 33, kind(w[:5], 1))
    assert device.symbol("current_device").value == 0, "after an error too"
    with pytest.raises(RuntimeError, match=r"x is on CUDA device 2, .*invalid device ordinal"):
        nk.layer_norm(kind(x, 2), 33)


def test_capsules_without_a_version(monkeypatch):
    x = values((4, 33), "float32", "plain", 1)
    expected = nk.layer_norm(x, 33)
    monkeypatch.setattr(DeviceArray, "versioned", False)
    old = CupyArray(x)
    checks.assert_same_bits(nk.layer_norm(old, 33).array, expected)
    assert old.streams == [LEGACY]
    managed = CupyArray(x, kind=13)
    checks.assert_same_bits(nk.layer_norm(managed, 33).array, expected)


# ---- arrays to write to ----


@every_kind
def test_out_and_in_place(kind):
    x, _, residual, weight, bias = problem("float16", (5, 70), (70,))
    expected = nk.layer_norm(x, 70, weight, bias)
    arrays = [moved(array, kind) for array in (x, weight, bias)]
    out = kind(np.zeros_like(x))
    assert nk.layer_norm(arrays[0], 70, *arrays[1:], out=out) is out
    checks.assert_same_bits(out.array, expected)
    assert nk.layer_norm(arrays[0], 70, *arrays[1:], out=arrays[0]) is arrays[0]
    checks.assert_same_bits(arrays[0].array, expected)
    if kind is Tensor:
        assert [tensor.version for tensor in (out, *arrays)] == [1, 1, 0, 0], (
            "what autograd has saved is gone"
        )
    pair = kind(np.zeros_like(x)), kind(np.zeros_like(x))
    nk.add_rms_norm(kind(x), kind(residual), 70, out=pair)
    for actual, wanted in zip(pair, nk.add_rms_norm(x, residual, 70), strict=True):
        checks.assert_same_bits(actual.array, wanted)


@every_kind
def test_running_statistics(kind):
    x = values((3, 6, 5, 7), "float32", "spread", 1)
    for name, keywords in (("batch_norm", {"training": True}), ("instance_norm", {})):
        mean, var = np.zeros(6, np.float64), np.ones(6, np.float32)
        assert_like_the_cpu(name, x, mean, var, array_type=kind, written=(1, 2), momentum=0.3, **keywords)
        assert (mean != 0).all()


@every_kind
def test_gradients_into_the_callers_arrays(kind):
    x, dy, _, weight, bias = problem("float32", (70, 33), (33,))
    for accumulate in (False, True):
        start = [np.full(33, 0.5, dtype) for dtype in (np.float32, np.float64)]
        expected = [array.copy() for array in start]
        actual = [kind(array.copy()) for array in start]
        dx = nk.layer_norm_backward(dy, x, 33, weight, bias, grads_out=expected, accumulate=accumulate)[0]
        dx_out = kind(np.zeros_like(x))
        arrays = [kind(array) for array in (dy, x)]
        results = nk.layer_norm_backward(
            *arrays, 33, kind(weight), kind(bias), dx_out=dx_out, grads_out=actual, accumulate=accumulate
        )
        assert results[0] is dx_out and results[1] is actual[0] and results[2] is actual[1]
        for a, e in zip((dx_out, *actual), (dx, *expected), strict=True):
            checks.assert_same_bits(a.array, e)
            assert kind is not Tensor or a.version == 1


@every_kind
def test_accumulate_where_an_entry_is_none(kind):
    x, dy, _, weight, bias = problem("float32", (70, 33), (33,))
    fresh = nk.layer_norm_backward(dy, x, 33, weight, bias)
    arrays = [kind(array) for array in (dy, x)]
    for missing in (0, 1):
        into = [kind(np.zeros(33, np.float32)) for _ in range(2)]
        into[missing] = None
        results = nk.layer_norm_backward(
            *arrays, 33, kind(weight), kind(bias), grads_out=into, accumulate=True
        )
        assert results[2 - missing] is into[1 - missing]
        for actual, wanted in zip(results, fresh, strict=True):
            checks.assert_same_bits(actual.array, wanted)


def test_modules_with_parameters_on_the_device():
    x, dy = (values((4, 6, 5, 5), "float32", "plain", s) for s in (1, 2))
    module, there = nk.nn.BatchNorm2d(6), nk.nn.BatchNorm2d(6)
    for name in ("weight", "bias", "running_mean", "running_var"):
        setattr(there, name, CupyArray(getattr(there, name).copy()))
    checks.assert_same_bits(there(CupyArray(x)).array, module(x))
    checks.assert_same_bits(there.backward(CupyArray(dy)).array, module.backward(dy))
    checks.assert_same_bits(there.grads["weight"].array, module.grads["weight"])
    checks.assert_same_bits(there.running_var.array, module.running_var)
    checks.assert_same_bits(there.eval()(CupyArray(x)).array, module.eval()(x))
    kept = CupyArray(x)
    with pytest.raises(ValueError, match="out shares memory with x"):
        nk.nn.LayerNorm(5, elementwise_affine=False)(kept, out=kept)
    # Two devices may use the same addresses.
    with pytest.raises(ValueError, match=r"^out is .* on CUDA device 1, but x is on CUDA device 0"):
        nk.nn.LayerNorm(5, elementwise_affine=False)(kept, out=CupyArray(x, 1))


# ---- what is refused ----


def refused(error, match, call, *unwritten):
    before = [array.array.copy() for array in unwritten]
    launches = device.symbol("launches").value
    with pytest.raises(error, match=match):
        call()
    assert device.symbol("launches").value == launches
    for array, copy in zip(unwritten, before, strict=True):
        checks.assert_same_bits(array.array, copy)
    checks.COUNT.values += 1


def test_arrays_of_one_call_lie_on_one_device():
    x, w = values((4, 33), "float32", "plain", 1), values((33,), "float32", "plain", 2)
    stats = np.ones((4, 1))
    there, weight, out = CupyArray(x), CupyArray(w), CupyArray(np.zeros_like(x))
    refused(
        ValueError,
        r"^weight is .*CupyArray on CUDA device 1, but x is on CUDA device 0; .*one device",
        lambda: nk.layer_norm(there, 33, CupyArray(w, 1), out=out),
        out,
    )
    refused(
        ValueError,
        r"^bias is numpy.ndarray on the CPU, but x is on CUDA device 0",
        lambda: nk.layer_norm(there, 33, weight, w, out=out),
        out,
    )
    refused(
        ValueError,
        r"^weight is .*CupyArray on CUDA device 0, but x is on the CPU",
        lambda: nk.layer_norm(x, 33, weight),
    )
    refused(ValueError, r"^out is numpy", lambda: nk.layer_norm(there, 33, out=np.zeros_like(x)))
    refused(ValueError, r"^out is .*device 1", lambda: nk.layer_norm(there, 33, out=CupyArray(x.copy(), 1)))
    refused(ValueError, r"^dy is numpy", lambda: nk.layer_norm_backward(x, there, 33))
    refused(
        ValueError,
        r"^mean is numpy.ndarray on the CPU",
        lambda: nk.layer_norm_backward(there, there, 33, mean=stats, rstd=stats),
    )
    refused(
        ValueError,
        r"^grads_out\[0\] is numpy",
        lambda: nk.layer_norm_backward(there, there, 33, weight, grads_out=(w.copy(), None)),
    )
    refused(ValueError, r"^residual is numpy", lambda: nk.add_layer_norm(there, x, 33))
    refused(
        ValueError,
        r"^running_mean is numpy",
        lambda: nk.batch_norm(there, np.zeros(33, np.float32), np.ones(33, np.float32), training=True),
    )
    image, constants = CupyArray(np.ones((2, 3, 4), np.float32)), [np.ones(3), np.ones(3)]
    saved = dict(zip(("mean", "rstd"), map(CupyArray, constants), strict=True))
    sums = nk.GradSums(*constants, (0, 2)).update(image.array, image.array)
    refused(
        ValueError,
        r"^sums.sum_dy is numpy.ndarray on the CPU, but x is on CUDA device 0",
        lambda: nk.batch_norm_backward(image, image, None, None, training=True, sums=sums, **saved),
    )
    pinned = CupyArray(x, kind=3)  # the host's own memory
    refused(ValueError, r"^dy is .* on the CPU", lambda: nk.layer_norm_backward(pinned, there, 33))
    for kind, number in ((10, 0), (2, -1)):
        refused(
            ValueError,
            rf"^x is .* on DLPack device \({kind}, {number}\)",
            lambda kind=kind, number=number: nk.layer_norm(CupyArray(x, number, kind=kind), 33),
        )


def test_memory_that_must_not_be_written():
    x = values((4, 33), "float32", "plain", 1)
    there = CupyArray(x)
    constant = np.zeros_like(x)
    constant.setflags(write=False)
    refused(
        ValueError, "^out is a read-only array", lambda: nk.layer_norm(there, 33, out=CupyArray(constant))
    )
    memory = np.zeros(4 * 33 + 1, np.float32)
    overlapping = [CupyArray(memory[k : k + 4 * 33].reshape(4, 33)) for k in (0, 1)]
    refused(
        ValueError,
        "^out shares memory with x",
        lambda: nk.layer_norm(overlapping[0], 33, out=overlapping[1]),
        overlapping[1],
    )
    zero = CupyArray(np.lib.stride_tricks.as_strided(memory, (4, 33), (0, 4)))
    refused(ValueError, "^out has stride 0", lambda: nk.layer_norm(there, 33, out=zero))


@pytest.mark.parametrize("dtype", ("int32", "complex64"))
def test_other_element_types(dtype):
    x = CupyArray(np.zeros((4, 33), dtype))
    refused(TypeError, "^x has dtype", lambda: nk.layer_norm(x, 33))


def test_operations_without_kernels():
    x = CupyArray(values((4, 6, 5), "float32", "plain", 1))
    w, out = CupyArray(np.ones(6, np.float32)), CupyArray(np.zeros((4, 6, 5), np.float32))
    text = r"^(x|v|content|weight|out) is .*CupyArray on CUDA device 0, where this operation has no kernels"
    for call in (
        lambda: nk.local_response_norm(x, 3, out=out),
        lambda: nk.dynamic_tanh(x, 0.5, out=out),
        lambda: nk.switchable_norm(x, w, w, out=out),
        lambda: nk.adaptive_instance_norm(x, x, out=out),
        lambda: nk.normalize(x, out=out),
        lambda: nk.weight_norm(x, w, out=out),
        lambda: nk.min_max_scale(x, out=out),
        lambda: nk.z_score(x, out=out),
        lambda: nk.fold_batch_norm(x, w, w, w, w, w, 1e-5),
        lambda: nk.normalize_backward(x, x, dx_out=out),
        lambda: nk.local_response_norm_backward(x, x, 3, dx_out=out),
        lambda: nk.Moments((0, 2)).update(x),
        lambda: nk.normalize(np.ones((4, 6), np.float32), out=w),
    ):
        refused(TypeError, text, call, out)
    refused(
        TypeError,
        "^return_stats is True, but the statistics are given",
        lambda: nk.batch_norm(x, w, w, return_stats=True, out=out),
        out,
    )


def test_cuda_refuses_a_launch():
    device.symbol("refuse").value = 1
    with pytest.raises(RuntimeError, match="CUDA device 0 refused to start a kernel: out of fibers"):
        nk.layer_norm(CupyArray(np.ones((4, 33), np.float32)), 33)
    checks.COUNT.values += 1


# ---- nk.cuda ----


def test_devices(capsys):
    assert nk.cuda.is_built() and nk.cuda.is_available() and nk.cuda.device_count() == 2
    second = nk.cuda.device_properties(1)
    assert second == ("Host in a device's place 1", (9, 1), 3 << 30, 7, 5 << 20)
    assert second.multiprocessors == 7 and nk.cuda.device_properties().compute_capability == (9, 0)
    for number in (2, -1, 2**40):
        with pytest.raises(ValueError, match="it should be the number of a CUDA device, of 2"):
            nk.cuda.device_properties(number)
    nk.show_config()
    assert "built for host; Host in a device's place 0 (9.0), Host" in capsys.readouterr().out
    device.symbol("devices").value = 0
    try:
        assert nk.cuda.is_built() and not nk.cuda.is_available()
        assert nk.show_config(mode="dicts")["cuda"] == "built for host; no device found"
    finally:
        device.symbol("devices").value = 2
    checks.COUNT.values += 1
