"""Nested Python values as JSON, exactly: what safetensors' string metadata can carry.

None, bool, str, finite floats, ints that every JSON reader takes, and lists are themselves; all
else is an object with one key that says what it is: `{"tuple": [1, 2]}`, `{"int": "0x1fff..."}`,
`{"float": "000000000000f07f"}` (the bits of an infinity or NaN), `{"dict": [key, value, ...]}`,
`{"tensor": 3}`.  Decoding only ever builds these types; nothing in a file names code to run.
"""

from __future__ import annotations

import base64
import math
import struct
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import numpy as np

from mlgpu import dtypes
from mlgpu.device import Device
from mlgpu.errors import FormatError, MlgpuError
from mlgpu.tensor import Size, Tensor

# Two levels of JSON each, so that Python's recursion limit is far away on either side.
MAX_DEPTH = 100
_EXACT_IN_JSON = 2**53
_SEQUENCES: dict[type, str] = {tuple: "tuple", Size: "size", set: "set", frozenset: "frozenset"}
_UNSIGNED = {dtype.name: dtype for dtype in map(np.dtype, (np.uint16, np.uint32, np.uint64))}
_NUMPY = {*(d.name for d in dtypes.ALL), *_UNSIGNED}  # scalars of these dtypes
_MAPPINGS: dict[type, str] = {dict: "dict", OrderedDict: "ordered_dict"}


class Encoder:
    """Turns values into JSON nodes; `tensor(value, path)` answers with a tensor's number."""

    def __init__(self, tensor: Callable[[Tensor, tuple[str, ...]], int]) -> None:
        self._tensor = tensor

    def encode(self, value: Any, path: tuple[str, ...] = ()) -> Any:
        """The node for `value`.  Raises TypeError, naming where, for what cannot be described."""
        if len(path) > MAX_DEPTH:
            raise ValueError(f"save: nested more than {MAX_DEPTH} levels deep, or contains itself, "
                             f"at {_where(path[:8])}...")
        kind = type(value)
        if value is None or kind in (bool, str):
            return value
        if kind is int:
            return value if abs(value) <= _EXACT_IN_JSON else {"int": hex(value)}
        if kind is float:
            return value if math.isfinite(value) else {"float": struct.pack("<d", value).hex()}
        if kind is list:
            return self._items(value, path)
        if kind in _SEQUENCES:
            return {_SEQUENCES[kind]: self._items(value, path)}
        if kind in _MAPPINGS:
            return {_MAPPINGS[kind]: self._pairs(value, path)}
        if isinstance(value, Tensor):
            return {"tensor": self._tensor(value, path)}
        return self._atom(value, path)

    def _items(self, values: Any, path: tuple[str, ...]) -> list[Any]:
        return [self.encode(value, (*path, str(i))) for i, value in enumerate(values)]

    def _pairs(self, values: dict[Any, Any], path: tuple[str, ...]) -> list[Any]:
        flat = []
        for key, value in values.items():
            if isinstance(key, Tensor):
                raise TypeError(f"save: {_where(path)} has a tensor as a key; use a name")
            flat += [self.encode(key, (*path, "a key")), self.encode(value, (*path, str(key)))]
        return flat

    def _atom(self, value: Any, path: tuple[str, ...]) -> Any:
        if type(value) is complex:
            return {"complex": [self.encode(value.real), self.encode(value.imag)]}
        if type(value) is bytes:
            return {"bytes": base64.b64encode(value).decode("ascii")}
        if isinstance(value, dtypes.dtype):
            return {"dtype": value.name}
        if isinstance(value, Device):
            return {"device": str(value)}
        if isinstance(value, np.generic) and value.dtype.name in _NUMPY:
            return {"numpy": [value.dtype.name, value.tobytes().hex()]}
        raise TypeError(
            f"save: {_where(path)} is a {type(value).__module__}.{type(value).__qualname__}; "
            "tensors, None, bool, int, float, complex, str, bytes, list, tuple, set, dict, dtype "
            "and Device can be saved; convert it to these, e.g. with its state_dict()")


def _where(path: tuple[str, ...]) -> str:
    return ".".join(path) or "the value"


class Decoder:
    """Turns JSON nodes back into values; `tensor(number)` answers with a tensor.

    Raises FormatError for a node that no Encoder writes.
    """

    def __init__(self, tensor: Callable[[int], Tensor]) -> None:
        self._tensor = tensor

    def decode(self, node: Any, depth: int = 0) -> Any:
        """The value that `node` describes."""
        if depth > MAX_DEPTH:
            raise FormatError(f"the structure is nested more than {MAX_DEPTH} levels deep")
        if isinstance(node, list):
            return self._items(node, depth)
        if not isinstance(node, dict):
            return node
        if len(node) != 1:
            raise FormatError(f"the structure has an object with {len(node)} keys where one "
                              "names a type")
        (kind, content), = node.items()
        build = _DECODERS.get(kind)
        if build is None:
            raise FormatError(f"the structure has a value of the unknown type {kind!r}")
        try:
            return build(self, content, depth)
        except FormatError:
            raise
        except (ValueError, TypeError, KeyError, MlgpuError, struct.error) as error:
            raise FormatError(f"the structure has an impossible {kind}: {error}") from error

    def _items(self, node: Any, depth: int) -> list[Any]:
        if not isinstance(node, list):
            raise FormatError(f"the structure has {type(node).__name__} where a list belongs")
        return [self.decode(item, depth + 1) for item in node]

    def _pairs(self, node: Any, depth: int) -> list[tuple[Any, Any]]:
        flat = self._items(node, depth)
        if len(flat) % 2:
            raise FormatError("the structure has a mapping with a key and no value")
        if any(isinstance(key, Tensor) for key in flat[::2]):
            raise FormatError("the structure has a tensor as a key")
        if len(set(flat[::2])) != len(flat) // 2:
            raise FormatError("the structure has a mapping with a key twice")
        return list(zip(flat[::2], flat[1::2], strict=True))

    def _set(self, kind: Callable[[Any], Any], node: Any, depth: int) -> Any:
        values = self._items(node, depth)
        if any(isinstance(value, Tensor) for value in values):
            raise FormatError("the structure has a tensor in a set")
        return kind(values)

    def _complex(self, node: Any, depth: int) -> complex:
        real, imag = self._items(node, depth)
        return complex(real, imag)


# Functions of a decoder rather than bound to one, which would tie it, and all it has made, in a
# reference cycle.
_DECODERS: dict[str, Callable[[Decoder, Any, int], Any]] = {
    "tuple": lambda decoder, node, depth: tuple(decoder._items(node, depth)),
    "size": lambda decoder, node, depth: Size(map(_integer, decoder._items(node, depth))),
    "set": lambda decoder, node, depth: decoder._set(set, node, depth),
    "frozenset": lambda decoder, node, depth: decoder._set(frozenset, node, depth),
    "dict": lambda decoder, node, depth: dict(decoder._pairs(node, depth)),
    "ordered_dict": lambda decoder, node, depth: OrderedDict(decoder._pairs(node, depth)),
    "tensor": lambda decoder, node, depth: decoder._tensor(_integer(node)),
    "complex": Decoder._complex,
    "int": lambda decoder, node, depth: int(_text(node), 16),
    "float": lambda decoder, node, depth: struct.unpack("<d", bytes.fromhex(_text(node)))[0],
    "bytes": lambda decoder, node, depth: base64.b64decode(_text(node), validate=True),
    "dtype": lambda decoder, node, depth: dtypes.by_name(_text(node)),
    "device": lambda decoder, node, depth: Device(_text(node)),
    "numpy": lambda decoder, node, depth: _numpy_scalar(node),
}


def _integer(node: Any) -> int:
    if type(node) is not int:
        raise FormatError(f"the structure has {type(node).__name__} where an integer belongs")
    return node


def _text(node: Any) -> str:
    if not isinstance(node, str):
        raise FormatError(f"the structure has {type(node).__name__} where text belongs")
    return node


def _numpy_scalar(node: Any) -> np.generic[Any]:
    name, content = node
    dtype = _UNSIGNED[name] if _text(name) in _UNSIGNED else dtypes.by_name(name).numpy
    raw = bytes.fromhex(_text(content))
    if len(raw) != dtype.itemsize:
        raise FormatError(f"the structure has {len(raw)} bytes for one {dtype}")
    return np.frombuffer(raw, dtype)[0]  # type: ignore[no-any-return]
