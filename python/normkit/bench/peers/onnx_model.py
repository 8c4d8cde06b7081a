"""Writes an ONNX model of one node, so that ONNX Runtime can be timed without the package ``onnx``.

A model is a Protocol Buffers message; field numbers are those of onnx.proto. Only two wire types are needed:
variable-length integers (0) and length-delimited bytes (2), and 32-bit floats (5) for attributes.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

ELEMENT_TYPES = {"float32": 1, "float16": 10, "float64": 11}
ATTRIBUTE_FLOAT, ATTRIBUTE_INT = 1, 2
IR_VERSION, OPSET, CONTRIBUTED_OPSET = 10, 21, 1

Array = npt.NDArray[Any]


def one_node(
    operator: str,
    domain: str,
    inputs: Mapping[str, Array],
    outputs: Sequence[str],
    like: Array,
    attributes: Mapping[str, int | float],
) -> bytes:
    """A serialized model. Every output is like ``like``; one with an empty name is left out."""
    node = b"".join(_text(1, name) for name in inputs) + b"".join(_text(2, name) for name in outputs)
    node += _text(4, operator) + b"".join(_bytes(5, _attribute(*item)) for item in attributes.items())
    node += _text(7, domain)
    graph = _bytes(1, node) + _text(2, operator)
    graph += b"".join(_bytes(11, _value(name, array)) for name, array in inputs.items())
    graph += b"".join(_bytes(12, _value(name, like)) for name in outputs if name)
    opsets = [_text(1, "") + _integer(2, OPSET)]
    if domain:
        opsets.append(_text(1, domain) + _integer(2, CONTRIBUTED_OPSET))
    return _integer(1, IR_VERSION) + _bytes(7, graph) + b"".join(_bytes(8, opset) for opset in opsets)


def _value(name: str, array: Array) -> bytes:
    """ValueInfoProto: a named tensor type."""
    dimensions = b"".join(_bytes(1, _integer(1, size)) for size in array.shape)
    tensor = _integer(1, ELEMENT_TYPES[np.dtype(array.dtype).name]) + _bytes(2, dimensions)
    return _text(1, name) + _bytes(2, _bytes(1, tensor))


def _attribute(name: str, value: int | float) -> bytes:
    if isinstance(value, int):
        return _text(1, name) + _integer(3, value) + _integer(20, ATTRIBUTE_INT)
    return _text(1, name) + _key(2, 5) + struct.pack("<f", value) + _integer(20, ATTRIBUTE_FLOAT)


def _text(field: int, value: str) -> bytes:
    return _bytes(field, value.encode())


def _bytes(field: int, value: bytes) -> bytes:
    return _key(field, 2) + _varint(len(value)) + value


def _integer(field: int, value: int) -> bytes:
    return _key(field, 0) + _varint(value & (2**64 - 1))


def _key(field: int, wire_type: int) -> bytes:
    return _varint(field << 3 | wire_type)


def _varint(value: int) -> bytes:
    """Seven bits per byte, the lowest first; the top bit says that more follow."""
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)
