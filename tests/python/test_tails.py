"""Runs whose length is no whole number of vectors: their end costs little."""

import time

import checks
import normkit as nk
import numpy as np
import pytest
from reference.wide import DTYPES, numpy_dtype

pytestmark = [pytest.mark.compares, pytest.mark.alone]
ROWS, CHANNELS = 512, 64


def calls(n, dtype):
    rng = np.random.default_rng(n)
    x, dy = rng.standard_normal((2, ROWS, n)).astype(numpy_dtype(dtype))
    weight, bias = rng.standard_normal((2, n)).astype(x.dtype)
    image = x.reshape(ROWS // CHANNELS, CHANNELS, n)
    own = np.ones((4, CHANNELS), np.float64 if dtype == "float64" else np.float32)
    out, dx = np.empty_like(x), np.empty_like(x)
    _, mean, rstd = nk.layer_norm(x, n, return_stats=True)
    return {
        "layer_norm": lambda: nk.layer_norm(x, n, weight, bias, out=out),
        "rms_norm": lambda: nk.rms_norm(x, n, weight, out=out),
        "layer_norm_backward": lambda: nk.layer_norm_backward(
            dy, x, n, weight, bias, mean=mean, rstd=rstd, dx_out=dx
        ),
        "batch_norm": lambda: nk.batch_norm(image, *own, True, out=out.reshape(image.shape)),
        "group_norm": lambda: nk.group_norm(image, 8, own[0], own[1], out=out.reshape(image.shape)),
    }


@pytest.mark.report("field trial: LayerNorm of rows of 31, 63, 127 took 4 to 11 times what 32, 64, 128 take")
@pytest.mark.parametrize("n", [31, 63, 127])
@pytest.mark.parametrize("dtype", DTYPES)
def test_a_tail_costs_little_more_than_a_vector(dtype, n):
    """Turn by turn, the least of many. Meant are 15 ns; 60 and twice the vector are for a busy machine."""
    tail, whole = calls(n, dtype), calls(n + 1, dtype)
    with nk.num_threads(1):
        for name in tail:
            least = {tail[name]: float("inf"), whole[name]: float("inf")}
            for _ in range(40):
                for call in least:
                    start = time.perf_counter_ns()
                    call()
                    least[call] = min(least[call], (time.perf_counter_ns() - start) / ROWS)
            checks.COUNT.values += 1
            ours, other = least[tail[name]], least[whole[name]]
            assert ours <= 2 * other + 60, f"{name}: {ours:.0f} ns a row of {n}, {other:.0f} of {n + 1}"
