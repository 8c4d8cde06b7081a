"""The interpreter ends while worker threads exist; with `calls`, while daemon threads are inside calls."""

import sys
import threading
import time

import normkit
import numpy as np

normkit.set_num_threads(4)
x = np.ones((2000, 1000), np.float32)
normkit.layer_norm(x, 1000)


def forever():
    while True:
        normkit.layer_norm(x, 1000)


if "calls" in sys.argv[1:]:
    for _ in range(3):
        threading.Thread(target=forever, daemon=True).start()
    time.sleep(0.3)
print("ok", flush=True)
