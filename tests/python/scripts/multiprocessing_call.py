"""A parallel call here and in worker processes started by each method gives the same bits."""

import multiprocessing
import sys

import normkit
import numpy as np


def call(seed):
    x = np.arange(600_000, dtype=np.float32).reshape(600, 1000) * seed
    return normkit.layer_norm(x, 1000).tobytes()


if __name__ == "__main__":
    normkit.set_num_threads(3)
    expected = [call(seed) for seed in (1, 2, 3, 4)]
    with multiprocessing.get_context(sys.argv[1]).Pool(2) as pool:
        assert pool.map_async(call, (1, 2, 3, 4)).get(timeout=60) == expected
    print("ok")
