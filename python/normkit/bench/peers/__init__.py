"""The contenders. Each prepares a case once and gives a callable that runs it once.

A contender that is not installed raises ImportError when it is made, and Unavailable, with the reason, when
it cannot run a case. Thread counts are set in ``prepare``, where the library allows it; a library that cannot
run on the case's thread count stays out.
"""

from __future__ import annotations

from collections.abc import Callable

from normkit.bench.peers.formulas import Jax, Numpy
from normkit.bench.peers.onednn import OneDnn
from normkit.bench.peers.onnxrt import OnnxRuntime
from normkit.bench.peers.own import Normkit, Serial
from normkit.bench.peers.protocol import Peer, Unavailable
from normkit.bench.peers.pytorch import Torch

PEERS: dict[str, Callable[[], Peer]] = {
    "normkit": Normkit,
    "onednn": OneDnn,
    "torch": Torch,
    "onnxrt": OnnxRuntime,
    "jax": Jax,
    "numpy": Numpy,
    "serial": Serial,
}

__all__ = [
    "PEERS",
    "Jax",
    "Normkit",
    "Numpy",
    "OneDnn",
    "OnnxRuntime",
    "Peer",
    "Serial",
    "Torch",
    "Unavailable",
]
