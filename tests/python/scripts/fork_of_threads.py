"""A forked child: of a parent whose OpenMP threads somebody else started, or of one that has no threads.

In the first it must not wait for threads that it does not have; in the second it may start its own.
"""

import ctypes
import os
import signal
import sys
import time

import normkit
import numpy as np


def start_openmp_threads():
    """As PyTorch does, in the copy of the runtime that normkit uses."""
    with open("/proc/self/maps") as file:
        paths = {line.split()[-1] for line in file if "libgomp" in line or "libomp" in line}
    for path in paths:
        ctypes.CDLL(path).GOMP_parallel(ctypes.CDLL(None).abs, None, 3, 0)
    return bool(paths)


def threads():
    return len(os.listdir("/proc/self/task"))


def child_of(parent):
    """In the child: 0 if the call was right, and used threads where it could."""
    right = np.array_equal(normkit.layer_norm(x, 1000), expected)
    return 0 if right and (threads() > 1) == (parent == "alone") else 1


if __name__ == "__main__":
    parent = sys.argv[1]
    normkit.set_num_threads(3)
    x = np.arange(600_000, dtype=np.float32).reshape(600, 1000)
    if parent == "openmp" and not start_openmp_threads():
        print("no OpenMP: ok")
        sys.exit()
    with normkit.num_threads(1):  # this starts none
        expected = normkit.layer_norm(x, 1000)
    assert (threads() == 1) == (parent == "alone"), threads()
    child = os.fork()
    if child == 0:
        os._exit(child_of(parent))
    deadline = time.monotonic() + 20
    pid = status = 0
    while pid == 0 and time.monotonic() < deadline:
        pid, status = os.waitpid(child, os.WNOHANG)
        time.sleep(0.01)
    if pid == 0:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        sys.exit("the child hangs")
    assert os.waitstatus_to_exitcode(status) == 0, status
    print("ok")
