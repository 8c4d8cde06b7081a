"""Rounding mode and subnormals: untouched by import and calls, and without influence on the results."""

import ctypes
import ctypes.util

import numpy as np


def subnormals_work():
    tiny = np.array([np.finfo(np.float32).smallest_subnormal] * 4)
    doubled = np.multiply(tiny, np.float32(2))
    return bool((tiny > 0).all() and (doubled > tiny).all() and np.finfo(np.float64).smallest_subnormal > 0)


assert subnormals_work()
import normkit  # noqa: E402

assert subnormals_work(), "import normkit switched subnormals off"

libm = ctypes.CDLL(ctypes.util.find_library("m"))
TO_NEAREST = libm.fegetround()
import platform  # noqa: E402

UPWARD = {"x86_64": 0x800, "AMD64": 0x800, "aarch64": 0x400000}[platform.machine()]
DOWNWARD = {0x800: 0x400, 0x400000: 0x800000}[UPWARD]


def everything(threads):
    normkit.set_num_threads(threads)
    rng = np.random.default_rng(1)
    results = []
    for scale in (1.0, 1e-39):
        x = (rng.standard_normal((600, 1000)) * scale).astype(np.float32)
        results += normkit.layer_norm(x, 1000, eps=0.0, return_stats=True)
        results += normkit.rms_norm(x, 1000, eps=0.0, return_stats=True)
        results.append(normkit.layer_norm_backward(x, x, 1000)[0])
    return [r.tobytes() for r in results]


for threads in (1, 3):
    expected = everything(threads)
    assert subnormals_work() and libm.fegetround() == TO_NEAREST
    x = np.random.default_rng(1).standard_normal((600, 1000)).astype(np.float32)
    for mode in (UPWARD, DOWNWARD):
        y = normkit.layer_norm(x, 1000)
        libm.fesetround(mode)
        rounded = normkit.layer_norm(x, 1000)
        after = libm.fegetround()
        libm.fesetround(TO_NEAREST)
        assert after == mode, "the call changed the rounding mode"
        assert rounded.tobytes() == y.tobytes(), f"rounding mode {mode:#x} changed the result"
print("ok")
