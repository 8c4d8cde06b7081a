"""Writes an ONNX model of one normalization, so that ONNX Runtime can be timed without the package ``onnx``.

A model is a Protocol Buffers message; field numbers are those of onnx.proto. Only two wire types are needed:
variable-length integers (0) and length-delimited bytes (2), and 32-bit floats (5) for attributes.
"""

from __future__ import annotations

import struct

ELEMENT_TYPES = {"float32": 1, "float16": 10, "float64": 11}
ATTRIBUTE_FLOAT, ATTRIBUTE_INT = 1, 2
OPERATORS = {"layer_norm": "LayerNormalization", "rms_norm": "SimplifiedLayerNormalization"}


def one_norm(operation: str, dtype: str, shapes: dict[str, tuple[int, ...]], eps: float) -> bytes:
    """A serialized model: y = operation over the last axis; ``shapes`` are the inputs' by name, x first."""
    attributes = [_attribute("axis", -1), _attribute("epsilon", eps)]
    node = b"".join(_text(1, name) for name in shapes)
    node += _text(2, "y") + _text(4, OPERATORS[operation]) + b"".join(_bytes(5, item) for item in attributes)
    graph = _bytes(1, node) + _text(2, operation)
    graph += b"".join(_bytes(11, _value(name, dtype, shape)) for name, shape in shapes.items())
    graph += _bytes(12, _value("y", dtype, shapes["x"]))
    opset = _text(1, "") + _integer(2, 17)
    return _integer(1, 8) + _bytes(7, graph) + _bytes(8, opset)


def _value(name: str, dtype: str, shape: tuple[int, ...]) -> bytes:
    """ValueInfoProto: a named tensor type."""
    dimensions = b"".join(_bytes(1, _integer(1, size)) for size in shape)
    tensor = _integer(1, ELEMENT_TYPES[dtype]) + _bytes(2, dimensions)
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
