"""ONNX Runtime: a model of one node, inputs and outputs bound to the arrays' memory."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from normkit.bench.cases import Case
from normkit.bench.memory import empty_like
from normkit.bench.operations import EPS, GROUPS, Array, Arrays
from normkit.bench.peers.onnx_model import one_node
from normkit.bench.peers.protocol import Call, Unavailable, c_order_only, entry, plain_only

CONTRIBUTED = "com.microsoft"


class Node(NamedTuple):
    """An operator; inputs and outputs in its order, an empty output where it is not wanted."""

    operator: str
    inputs: tuple[str, ...]
    attributes: dict[str, int | float]
    outputs: tuple[str, ...] = ("y",)
    domain: str = ""


AFFINE = ("x", "weight", "bias")
NODES: dict[str, Node] = {
    "layer_norm": Node("LayerNormalization", AFFINE, {"axis": -1, "epsilon": EPS}),
    "rms_norm": Node("SimplifiedLayerNormalization", AFFINE[:2], {"axis": -1, "epsilon": EPS}),
    "add_layer_norm": Node(
        "SkipLayerNormalization",
        ("x", "residual", "weight", "bias"),
        {"epsilon": EPS},
        ("y", "", "", "sum"),
        CONTRIBUTED,
    ),
    "add_rms_norm": Node(
        "SkipSimplifiedLayerNormalization",
        ("x", "residual", "weight"),
        {"epsilon": EPS},
        ("y", "", "", "sum"),
        CONTRIBUTED,
    ),
    "batch_norm_inference": Node(
        "BatchNormalization", (*AFFINE, "running_mean", "running_var"), {"epsilon": EPS}
    ),
    "instance_norm": Node("InstanceNormalization", AFFINE, {"epsilon": EPS}),
    "group_norm": Node("GroupNormalization", AFFINE, {"epsilon": EPS, "num_groups": GROUPS}),
}


class OnnxRuntime:
    """ONNX Runtime."""

    name = "onnxrt"

    def __init__(self) -> None:
        self._runtime = importlib.import_module("onnxruntime")
        self._runtime.set_default_logger_severity(4)
        self.version = self._runtime.__version__

    def prepare(self, case: Case, arrays: Arrays) -> Call:
        """IO binding for reused memory, ``session.run`` for natural memory."""
        plain_only(case)
        c_order_only(case)
        if case.which != "forward":
            raise Unavailable("no training operators in the inference package")
        if case.dtype == "bfloat16":
            raise Unavailable("no bfloat16 kernel on the CPU")
        node: Node = entry(NODES, case)
        inputs = {name: getattr(arrays, name) for name in node.inputs}
        options = self._runtime.SessionOptions()
        options.intra_op_num_threads = case.threads
        options.inter_op_num_threads = 1
        model = one_node(node.operator, node.domain, inputs, node.outputs, arrays.x, node.attributes)
        try:
            session = self._runtime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # its classes derive from Exception directly
            raise Unavailable(str(error).splitlines()[0]) from error
        if case.memory == "natural":
            return partial(session.run, None, inputs)
        outputs = {name: empty_like(arrays.x) for name in node.outputs if name}
        binding = session.io_binding()
        _bind(binding.bind_input, inputs)
        _bind(binding.bind_output, outputs)

        def call() -> Any:
            session.run_with_iobinding(binding)
            return [*outputs.values(), inputs]  # named here: the bound memory lives as long as the binding

        return call

    def results(self, value: Any) -> tuple[Array, ...]:
        """The outputs, whether bound or fresh."""
        return tuple(array for array in value if isinstance(array, np.ndarray))


def _bind(bind: Callable[..., None], arrays: dict[str, Array]) -> None:
    for name, array in arrays.items():
        bind(name, "cpu", 0, array.dtype, array.shape, array.ctypes.data)
