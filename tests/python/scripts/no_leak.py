"""Memory after 20,000 calls and 2,000 refused ones is what it was."""

import contextlib
import gc
import resource

import normkit
import numpy as np

x = np.ones((64, 256), np.float32)
weight = np.ones(256, np.float32)


def calls(count):
    for _ in range(count):
        _, mean, rstd = normkit.layer_norm(x, 256, weight, weight, return_stats=True)
        normkit.layer_norm_backward(x, x, 256, weight, weight, mean=mean, rstd=rstd)
        normkit.rms_norm(x, 256, weight)
    for _ in range(count // 10):
        with contextlib.suppress(ValueError):
            normkit.layer_norm(x, 256, weight[:-1])


calls(2000)
gc.collect()
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
calls(20_000)
gc.collect()
grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
assert grown < 4 * 1024, f"{grown} KiB more"  # one leaked y in a thousand calls would be more
print("ok")
