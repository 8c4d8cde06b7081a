"""The pool of large outputs: memory comes back, but never while anything still refers to it."""

import contextlib
import functools
import gc
import os
import pickle
import signal
import subprocess
import sys
import threading
import time

import checks
import normkit
import numpy as np
import pytest
from normkit import _ext

pytestmark = [
    pytest.mark.alone,
    pytest.mark.compares,
    pytest.mark.skipif(sys.platform != "linux", reason="large outputs are ordinary memory elsewhere"),
]
MIB = 2**20
N = 4096


@functools.cache
def numpy_input(rows):
    return np.random.default_rng(rows).standard_normal((rows, N), dtype=np.float32)


def torch_input(rows):
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    return torch.from_numpy(numpy_input(rows))


def jax_input(rows):
    jnp = pytest.importorskip("jax.numpy", reason="JAX is not installed")
    return jnp.asarray(numpy_input(rows))


every_kind = pytest.mark.parametrize("make", (numpy_input, torch_input, jax_input))


def layer_norm(x):
    return normkit.layer_norm(x, (N,))


def address(array):
    if isinstance(array, np.ndarray):
        return array.ctypes.data
    return array.data_ptr() if hasattr(array, "data_ptr") else array.unsafe_buffer_pointer()


def is_pooled(array):
    core = np._core if hasattr(np, "_core") else np.core  # NumPy 1
    return core.multiarray.get_handler_name(array) == "normkit"


@pytest.fixture(autouse=True)
def empty_pool():
    """Every test begins with 256 MiB allowed and nothing kept."""
    before = normkit.get_output_pool()
    gc.collect()
    normkit.set_output_pool(0)
    normkit.set_output_pool(256)
    yield
    normkit.set_output_pool(before)


@every_kind
def test_the_next_result_gets_the_memory_of_the_last(make):
    x = make(1024)
    y = layer_norm(x)
    first = address(y)
    assert first % 64 == 0
    expected = checks.digest(y)
    assert _ext._output_pool_kept() == 0
    del y
    gc.collect()
    assert _ext._output_pool_kept() == 16 * MIB
    y = layer_norm(x)
    assert address(y) == first
    assert _ext._output_pool_kept() == 0
    assert checks.digest(y) == expected
    checks.COUNT.values += y.size if isinstance(y, np.ndarray) else 1


@every_kind
def test_two_results_at_once_are_apart(make):
    x = make(1024)
    layer_norm(x)
    gc.collect()
    assert _ext._output_pool_kept() == 16 * MIB
    y, z = layer_norm(x), layer_norm(x)
    assert abs(address(y) - address(z)) >= 16 * MIB
    expected = checks.digest(y)
    assert checks.digest(z) == expected
    checks.COUNT.values += 1


def test_a_view_keeps_the_memory():
    x = numpy_input(1024)
    y = layer_norm(x)
    rows, buffer, copy = y[3:5, ::7], memoryview(y), y[3:5, ::7].copy()
    del y
    for _ in range(2):
        z = layer_norm(-x)
        assert not np.shares_memory(z, rows)
        checks.assert_same_bits(rows, copy, "a view of a result that is gone")
    del z
    normkit.set_output_pool(0)
    normkit.set_output_pool(256)
    del rows
    assert _ext._output_pool_kept() == 0
    buffer.release()
    assert _ext._output_pool_kept() == 16 * MIB


def test_a_tensor_s_views_keep_the_memory():
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    x = torch_input(1024)
    for keep in (
        lambda y: y[3:5].numpy(),
        lambda y: np.from_dlpack(y)[3:5],
        lambda y: y.detach()[3:5].numpy(),
        lambda y: torch.nn.Parameter(y)[3:5].detach().numpy(),
    ):
        view = keep(layer_norm(x))
        copy = view.copy()
        z = layer_norm(-x)
        checks.assert_same_bits(view, copy, "a view of a result that is gone")
        assert _ext._output_pool_kept() == 0
        del view, z
        gc.collect()
        assert _ext._output_pool_kept() == 32 * MIB
        normkit.set_output_pool(0)
        normkit.set_output_pool(256)


def test_results_are_ordinary_numpy_arrays():
    x = numpy_input(1024)
    y = layer_norm(x)
    assert is_pooled(y)
    assert y.base is None
    assert y.flags.owndata
    assert y.flags.writeable
    assert y.flags.aligned
    expected = y.copy()
    assert not is_pooled(expected), "only normkit's own results come from the pool"
    checks.assert_same_bits(pickle.loads(pickle.dumps(y)), expected, "pickled")
    for rows in (900, 1100, 10, 3000):
        y.resize((rows, N), refcheck=False)
        common = min(rows, expected.shape[0])
        checks.assert_same_bits(y[:common], expected[:common], f"resized to {rows} rows")
        assert not y[common:].any()
        expected = y.copy()
    fortran = layer_norm(np.asfortranarray(x))
    assert fortran.flags.f_contiguous
    assert is_pooled(fortran)


def test_results_are_ordinary_tensors():
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    x = torch_input(1024)
    y = layer_norm(x)
    assert y.is_contiguous()
    assert not y.requires_grad
    z = (y.requires_grad_() * 2).sum()
    z.backward()
    assert (y.grad == 2).all()
    assert y.untyped_storage().nbytes() == 16 * MIB
    image = torch.zeros(2, 64, 256, 256).to(memory_format=torch.channels_last)
    y = normkit.instance_norm(image)
    assert y.stride() == image.stride()
    checks.COUNT.values += y.numel()


@pytest.mark.parametrize("dtype", ("float16", "bfloat16", "float32", "float64"))
def test_small_tensors_of_every_layout(dtype):
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    x = torch.arange(2 * 3 * 4 * 5, dtype=getattr(torch, dtype)).reshape(2, 3, 4, 5)
    for order in ((0, 1, 2, 3), (0, 2, 3, 1), (3, 2, 1, 0), (1, 3, 0, 2)):
        view = x.permute(order).contiguous().permute(tuple(np.argsort(order)))
        for tensor in (view, view[:, :, ::2], view[:1], view[:, :, :0], view.expand(2, 3, 4, 5)):
            y = normkit.instance_norm(tensor)
            wanted = torch.empty_like(tensor)
            assert (y.shape, y.dtype, y.device) == (wanted.shape, wanted.dtype, wanted.device)
            assert y.stride() == wanted.stride()
            assert y.data_ptr() % 64 == 0
            checks.assert_same_bits(y, normkit.instance_norm(tensor.contiguous()), f"{order}")


def test_the_limit():
    x = numpy_input(1024)
    normkit.set_output_pool(40)
    assert normkit.get_output_pool() == 40
    results = [layer_norm(x) for _ in range(4)]
    last = address(results[-1])
    while results:
        del results[0]
    assert _ext._output_pool_kept() == 32 * MIB
    assert address(layer_norm(x)) == last, "what was freed last is still in the cache"
    normkit.set_output_pool(20)
    assert _ext._output_pool_kept() == 16 * MIB
    y = layer_norm(numpy_input(2000))  # 31 MiB
    assert is_pooled(y)
    del y
    assert _ext._output_pool_kept() == 16 * MIB, "what is larger than the limit is not kept"
    checks.COUNT.values += 1


def test_a_block_serves_results_of_nearly_its_size():
    y = layer_norm(numpy_input(1300))
    first = address(y)
    del y
    for rows, same in ((1301, False), (1024, False), (1100, True), (1300, True)):
        y = layer_norm(numpy_input(rows))
        assert (address(y) == first) == same, rows
        del y
        normkit.set_output_pool(21)  # keeps the block in question only
        normkit.set_output_pool(256)
        y = layer_norm(numpy_input(1300))
        first = address(y)
        del y
    checks.COUNT.values += 1


def test_turned_off():
    x = numpy_input(1024)
    y = layer_norm(x)
    held = layer_norm(x)
    del y
    assert _ext._output_pool_kept() == 16 * MIB
    normkit.set_output_pool(0)
    assert _ext._output_pool_kept() == 0
    del held
    assert _ext._output_pool_kept() == 0
    y = layer_norm(x)
    assert not is_pooled(y)
    del y
    assert _ext._output_pool_kept() == 0
    checks.COUNT.values += 1


def test_small_results_are_ordinary_memory():
    y = layer_norm(numpy_input(1023))
    assert not is_pooled(y)
    del y
    assert _ext._output_pool_kept() == 0
    checks.COUNT.values += 1


def test_gradients_come_from_the_pool():
    x = numpy_input(1024)
    dx, *_ = normkit.layer_norm_backward(x, x, (N,))
    assert is_pooled(dx)
    checks.COUNT.values += 1


def test_bad_limits():
    for bad in (-1, 2**50, -(2**70), 2**70):
        with pytest.raises(
            ValueError, match=r"mib is .*; it should be a number of MiB from 0 to 1099511627776$"
        ):
            normkit.set_output_pool(bad)
    for bad in (None, "2", 2.5, True):
        with pytest.raises(TypeError, match=r"mib is .*; it should be an integer"):
            normkit.set_output_pool(bad)
    assert normkit.get_output_pool() == 256
    checks.COUNT.values += 1


@pytest.mark.parametrize(("text", "expected"), [("0", 0), ("64", 64), ("", 256), (None, 256)])
def test_variable(text, expected):
    assert int(import_with(text).stdout) == expected
    checks.COUNT.values += 1


@pytest.mark.parametrize("text", ["off", "-1", "1.5", "64MB", "99999999999999999999"])
def test_variable_that_is_no_number(text):
    result = import_with(text)
    assert result.returncode != 0
    assert f"ImportError: NORMKIT_OUTPUT_POOL is '{text}'; it should be a number of MiB" in result.stderr
    checks.COUNT.values += 1


def import_with(text):
    environment = {name: value for name, value in os.environ.items() if name != "NORMKIT_OUTPUT_POOL"}
    if text is not None:
        environment["NORMKIT_OUTPUT_POOL"] = text
    code = "import normkit; print(normkit.get_output_pool())"
    return subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=60
    )


def test_8_threads_at_once(threads):
    """Results made in one thread and dropped in another, while the limit changes."""
    threads(1)
    inputs = [numpy_input(1024 + 40 * k) for k in range(4)]
    expected = [checks.digest(layer_norm(x)) for x in inputs]
    failures, passed_on = [], []

    def work(k):
        try:
            for turn in range(6):
                y = layer_norm(inputs[k % 4])
                passed_on.append(y)
                if checks.digest(y) != expected[k % 4]:
                    failures.append(f"thread {k}: other bits")
                del y
                with contextlib.suppress(IndexError):
                    while len(passed_on) > 3:
                        passed_on.pop(0)
                normkit.set_output_pool((256, 40, 0)[(k + turn) % 3])
        except BaseException as error:
            failures.append(f"thread {k}: {error!r}")

    workers = [threading.Thread(target=work, args=(k,), daemon=True) for k in range(8)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(timeout=120)
    assert not any(worker.is_alive() for worker in workers), "a thread hangs"
    assert not failures, failures
    passed_on.clear()
    normkit.set_output_pool(0)
    assert _ext._output_pool_kept() == 0
    checks.COUNT.values += 1


def exit_code(child):
    """Of a forked child, which is ended if it hangs."""
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        pid, status = os.waitpid(child, os.WNOHANG)
        if pid:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.002)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    pytest.fail("the child hangs")


def test_kept_memory_makes_room():
    """Under a limit on addresses a result, or scratch, gets the place of what is only kept."""
    code = (
        "import resource, numpy as np, normkit as nk\n"
        "from normkit import _ext\n"
        "nk.set_num_threads(1)\n"
        f"x = np.ones((15 << 10, {N}), 'f')\n"
        f"wide = np.broadcast_to(np.float32(1), (20 << 10, {N}))\n"
        "rows, dw = np.ones((2, 8 << 20), 'f'), np.zeros(8 << 20, 'f')\n"
        f"big = lambda: nk.rms_norm(wide, ({N},))\n"
        "out = dict(dx_out=rows.copy(), grads_out=(dw.copy(), None))\n"
        "scratch = lambda: nk.rms_norm_backward(rows, rows, dw.shape, dw, **out)\n"
        "for call, room in ((big, 150 << 20), (scratch, 60 << 20)):\n"
        f"    nk.rms_norm(x, ({N},))\n"
        "    assert _ext._output_pool_kept() == 240 << 20, _ext._output_pool_kept()\n"
        "    used = int(open('/proc/self/statm').read().split()[0]) * resource.getpagesize()\n"
        "    limits = resource.getrlimit(resource.RLIMIT_AS)\n"
        "    resource.setrlimit(resource.RLIMIT_AS, (used + room, limits[1]))\n"
        "    call()\n"
        "    resource.setrlimit(resource.RLIMIT_AS, limits)\n"
        "    nk.set_output_pool(0); nk.set_output_pool(256)\n"
        "print('ok')\n"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert (result.returncode, result.stdout) == (0, "ok\n"), result.stderr
    checks.COUNT.values += 1


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning", "ignore:.*fork.*:RuntimeWarning")
def test_fork(threads):
    """The child keeps nothing of its parent's and leaves the parent's pool alone."""
    threads(1)
    x = numpy_input(1024)
    held, dropped = layer_norm(x), layer_norm(-x)
    expected = checks.digest(held)
    del dropped
    child = os.fork()
    if child == 0:
        status = 1
        try:
            steps = [_ext._output_pool_kept() == 0]
            y = layer_norm(x)
            steps.append(checks.digest(y) == expected)
            del y
            steps.append(_ext._output_pool_kept() == 16 * MIB)
            steps.append(checks.digest(layer_norm(x)) == expected)
            held[...] = 7
            del held
            steps.append(_ext._output_pool_kept() == 32 * MIB)
            status = 0 if all(steps) else 2 + steps.index(False)
        finally:
            os._exit(status)
    assert exit_code(child) == 0
    assert _ext._output_pool_kept() == 16 * MIB
    assert checks.digest(held) == expected
    assert checks.digest(layer_norm(x)) == expected
    checks.COUNT.values += 1


def test_memory_stays_bounded():
    """Results of 40 sizes, then of one: what the process holds stays near the limit."""
    normkit.set_output_pool(48)
    x = numpy_input(2048)
    for rows in range(1024, 2048, 26):
        layer_norm(x[:rows])
        assert _ext._output_pool_kept() <= 48 * MIB
    with open("/proc/self/statm") as file:
        before = int(file.read().split()[1])
    for _ in range(20):
        layer_norm(x)
    with open("/proc/self/statm") as file:
        after = int(file.read().split()[1])
    assert (after - before) * os.sysconf("SC_PAGESIZE") < 80 * MIB
    checks.COUNT.values += 1


@pytest.mark.parametrize("library", ("numpy", "torch"))
def test_exit_with_results_alive(library):
    if library == "torch":
        pytest.importorskip("torch", reason="PyTorch is not installed")
    code = (
        f"import sys, {library} as library, normkit, atexit\n"
        f"x = library.ones((1024, {N})) if library.__name__ == 'torch' else "
        f"library.ones((1024, {N}), 'f')\n"
        f"sys.kept = [normkit.layer_norm(x, ({N},)) for _ in range(3)]\n"
        "del sys.kept[0]\n"
        "atexit.register(sys.kept.pop)\n"
        "print('ok')\n"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert (result.returncode, result.stdout) == (0, "ok\n"), result.stderr
    checks.COUNT.values += 1
