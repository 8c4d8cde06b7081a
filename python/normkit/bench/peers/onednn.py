"""oneDNN in this process, on these arrays, through the library that ``bench/build_onednn.py`` builds."""

from __future__ import annotations

import ctypes
import os
from pathlib import Path
from typing import Any

import numpy as np

from normkit.bench.cases import Case
from normkit.bench.memory import empty_like
from normkit.bench.operations import EPS, Array, Arrays
from normkit.bench.peers.protocol import Call, Unavailable, entry, plain_only

LIBRARY = "libnormkit_bench_onednn.so"
VARIABLE = "NORMKIT_BENCH_ONEDNN"
# The driver's numbers.
OPERATIONS = {"layer_norm": 0, "batch_norm": 1, "batch_norm_inference": 1}
DTYPES = {"float32": 0, "bfloat16": 1, "float16": 2}
FORWARD, BACKWARD, GIVEN = 0, 1, 2


class _Arrays(ctypes.Structure):
    """``nk_onednn_arrays`` of onednn.cpp."""

    _fields_ = [
        (name, ctypes.c_void_p)
        for name in ("x", "dy", "y", "weight", "bias", "mean", "variance", "dweight", "dbias")
    ]


class OneDnn:
    """oneDNN's LayerNorm and BatchNorm; its parameters, statistics and their gradients are always float32."""

    name = "onednn"

    def __init__(self) -> None:
        self._library = _load()
        self.version = self._library.nk_onednn_version().decode()

    def prepare(self, case: Case, arrays: Arrays) -> Call:
        """A primitive whose memory is bound."""
        plain_only(case)
        operation = entry(OPERATIONS, case)
        if case.which == "both":
            raise Unavailable("forward and backward are timed apart")
        if case.memory == "natural":
            raise Unavailable("never allocates its results")
        if case.dtype not in DTYPES:
            raise Unavailable(f"has no {case.dtype}")
        which = GIVEN if case.geometry.given else BACKWARD if case.which == "backward" else FORWARD
        given = _operands(case, arrays)
        pointers = _Arrays(**{name: array.ctypes.data for name, array in given.items()})
        size = (ctypes.c_int64 * len(case.shape))(*case.shape)
        library = self._library
        library.nk_onednn_set_threads(case.threads)
        handle = library.nk_onednn_create(
            operation,
            which,
            DTYPES[case.dtype],
            case.layout == "nhwc",
            len(size),
            size,
            EPS,
            ctypes.byref(pointers),
        )
        if not handle:
            raise Unavailable(f"{case.kind}: {library.nk_onednn_error().decode()}")
        primitive = _Primitive(library, handle)
        names = ("y", "dweight", "dbias") if which == BACKWARD else ("y",)
        outputs = tuple(given[name] for name in names)
        run, opaque = library.nk_onednn_run, primitive.handle

        def call() -> Any:
            if run(opaque):
                raise RuntimeError(library.nk_onednn_error().decode())
            # The primitive and its operands are named here, so that they live as long as the call.
            return outputs, primitive, given

        return call

    def results(self, value: Any) -> tuple[Array, ...]:
        """What was bound as output."""
        outputs: tuple[Array, ...] = value[0]
        return outputs


class _Primitive:
    """Owns a handle of the driver."""

    def __init__(self, library: Any, handle: int) -> None:
        self.handle = ctypes.c_void_p(handle)
        self._destroy = library.nk_onednn_destroy

    def __del__(self) -> None:
        self._destroy(self.handle)


def _operands(case: Case, arrays: Arrays) -> dict[str, Array]:
    """By the driver's names; whatever is no image or matrix in float32."""
    assert arrays.bias is not None
    given = {"x": arrays.x, "y": empty_like(arrays.x)}
    small = {"weight": arrays.weight, "bias": arrays.bias}
    if case.geometry.given:
        assert arrays.running_mean is not None and arrays.running_var is not None
        small |= {"mean": arrays.running_mean, "variance": arrays.running_var}
    elif case.which == "backward":
        assert arrays.dy is not None and arrays.mean is not None and arrays.rstd is not None
        given["dy"] = arrays.dy
        small |= {"mean": arrays.mean.ravel(), "variance": (arrays.rstd.ravel() ** -2 - EPS)}
        small |= {"dweight": empty_like(arrays.weight), "dbias": empty_like(arrays.bias)}
    elif case.operation == "batch_norm":
        small |= {name: np.zeros(case.channels) for name in ("mean", "variance")}
    return given | {name: np.ascontiguousarray(array, np.float32) for name, array in small.items()}


def _load() -> Any:
    places = [Path(os.environ[VARIABLE])] if os.environ.get(VARIABLE) else []
    places += [folder / "bench" / LIBRARY for folder in (Path(__file__).resolve().parents[4], Path.cwd())]
    place = next((place for place in places if place.is_file()), None)
    if place is None:
        raise ImportError(f"python bench/build_onednn.py builds {LIBRARY}; {VARIABLE} may name it")
    try:
        library = ctypes.CDLL(str(place))
    except OSError as error:
        raise ImportError(str(error)) from error
    library.nk_onednn_error.restype = library.nk_onednn_version.restype = ctypes.c_char_p
    library.nk_onednn_create.restype = ctypes.c_void_p
    library.nk_onednn_create.argtypes = [ctypes.c_int] * 5 + [
        ctypes.POINTER(ctypes.c_int64),
        ctypes.c_double,
        ctypes.POINTER(_Arrays),
    ]
    library.nk_onednn_run.argtypes = library.nk_onednn_destroy.argtypes = [ctypes.c_void_p]
    library.nk_onednn_destroy.restype = None
    return library
