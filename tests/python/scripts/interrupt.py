"""SIGINT in the middle of a call that takes some tenths of a second."""

import os
import signal
import sys
import threading
import time

import ml_dtypes
import normkit
import numpy as np

signal.signal(signal.SIGINT, signal.default_int_handler)  # a job in the background inherits SIGINT ignored

function = getattr(normkit, sys.argv[1])
n = 4096
row = np.where(np.arange(n) % 2, 1e30, -1e30).astype(ml_dtypes.bfloat16)  # such blocks are computed twice
rows = 32768
normkit.set_num_threads(1)


def call():
    started = time.monotonic()
    try:
        function(np.broadcast_to(row[::-1], (rows, n)), n, eps=1e-5, out=out)
        return time.monotonic() - started, None
    except KeyboardInterrupt as interrupt:
        return time.monotonic() - started, interrupt


while True:  # until a whole call takes long enough to be interrupted
    out = np.full((rows, n), 7, ml_dtypes.bfloat16)
    call()
    whole, _ = call()
    if whole > 0.2:
        break
    rows *= 2
    assert rows * n * 2 < 2**31, "this machine is too fast for this test"
expected = out[:3].tobytes()
out[...] = 7


def interrupt():
    time.sleep(0.1 * whole)
    os.kill(os.getpid(), signal.SIGINT)


threading.Thread(target=interrupt, daemon=True).start()
taken, interrupted = call()
assert interrupted is not None, "no KeyboardInterrupt"
assert taken < 0.8 * whole, f"the call of {whole:.2f} s ended only after {taken:.2f} s"
assert (out[-1] == 7).all(), "everything was written although the call ended early"

function(np.broadcast_to(row[::-1], (3, n)), n, eps=1e-5, out=out[:3])
assert out[:3].tobytes() == expected
print(f"{whole:.2f} s, interrupted after {taken:.2f} s: ok")
