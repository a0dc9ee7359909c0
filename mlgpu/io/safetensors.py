"""The safetensors container: named tensors in one file, read by a memory map, written atomically.

Layout: eight bytes with the header's size (little endian), the header (a JSON object), the data.
The header gives each array's dtype, shape and byte range in the data; `__metadata__` maps strings
to strings.  This reader takes nothing on trust: whatever the bytes, it returns arrays or raises
FormatError, and it never allocates more than the header it has read.

It is our own because it maps the file copy-on-write, so that arrays are writable without a copy.
"""

from __future__ import annotations

import json
import mmap
import os
import stat
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, BinaryIO, NoReturn

import numpy as np

from mlgpu import dtypes
from mlgpu.errors import DTypeError, FormatError
from mlgpu.io.atomic import replace_file
from mlgpu.tensor import Tensor

Array = np.ndarray[Any, Any]

METADATA = "__metadata__"
MAX_HEADER = 100_000_000  # the bound that the reference implementation sets, too
MAX_DIMS = 64  # NumPy's
ALIGNMENT = 64  # a cache line, where the data starts
CODES = {dtypes.bool_: "BOOL", dtypes.uint8: "U8", dtypes.int8: "I8", dtypes.int16: "I16",
         dtypes.int32: "I32", dtypes.int64: "I64", dtypes.float16: "F16", dtypes.bfloat16: "BF16",
         dtypes.float32: "F32", dtypes.float64: "F64", dtypes.complex64: "C64"}
_DTYPES = {code: dtype for dtype, code in CODES.items()}
_FOREIGN = ("U16", "U32", "U64", "F4", "F6_E2M3", "F6_E3M2", "F8_E4M3", "F8_E5M2", "F8_E8M0",
            "F8_E4M3FNUZ", "F8_E5M2FNUZ")


@dataclass(frozen=True)
class Container:
    """What a file holds: arrays by name, in the order of the header, and the string metadata.

    The arrays are writable views of a private map of the file, which lives as long as any of them;
    writes never reach the file.  Arrays of files that do not align their data can be unaligned
    (`array.flags.aligned`).
    """

    arrays: dict[str, Array]
    metadata: dict[str, str]


# --- reading --------------------------------------------------------------------------------------


def read(path: str | os.PathLike[str]) -> Container:
    """Map the safetensors file at `path`.  FormatError, naming file and reason, if it is none.

    The file must not be truncated while the arrays live; replacing it (as `write` does) is safe.
    """
    if sys.byteorder != "little":
        raise FormatError("load: safetensors files are little endian, and this machine is not")
    try:
        with open(path, "rb") as file:
            return _read(file)
    except FormatError as error:
        raise FormatError(f"load: {os.fspath(path)!r} is no valid safetensors file: {error}") \
            from error.__cause__


def _read(file: BinaryIO) -> Container:
    status = os.fstat(file.fileno())
    if not stat.S_ISREG(status.st_mode):
        raise FormatError("it is not a regular file")
    prefix = file.read(8)
    if len(prefix) < 8:
        raise FormatError(f"it has {len(prefix)} bytes, and the header's size alone takes 8")
    size = int.from_bytes(prefix, "little")
    if size > MAX_HEADER:
        raise FormatError(f"the header claims {size} bytes, and at most {MAX_HEADER} are allowed")
    if size > status.st_size - 8:
        raise FormatError(f"the header claims {size} bytes, and {status.st_size - 8} follow; "
                          "the file is truncated or something else")
    header = parse_json(file.read(size), "the header")
    if not isinstance(header, dict):
        raise FormatError(f"the header must be a JSON object, got {type(header).__name__}")
    metadata = _check_metadata(header.pop(METADATA, {}))
    data_size = status.st_size - 8 - size
    entries = {name: _check_entry(name, entry) for name, entry in header.items()}
    _check_coverage(entries, data_size)
    try:
        mapping = mmap.mmap(file.fileno(), status.st_size, access=mmap.ACCESS_COPY)
    except ValueError as error:
        raise FormatError("it was truncated while it was being read") from error
    arrays = {name: _view(name, mapping, dtype, shape, 8 + size + begin)
              for name, (dtype, shape, begin, _) in entries.items()}
    return Container(arrays, metadata)


def parse_json(text: bytes | str, what: str) -> Any:
    """Strict JSON: UTF-8, no duplicate keys, no NaN.  Raises FormatError naming `what`."""
    try:
        if isinstance(text, bytes):
            text = text.decode("utf-8")
        return json.loads(text, object_pairs_hook=_unique, parse_constant=_no_constant)
    except FormatError as error:
        raise FormatError(f"{what} {error}") from None
    except RecursionError:
        raise FormatError(f"{what} is nested too deeply") from None
    except ValueError as error:  # bad UTF-8, bad JSON, or an integer of thousands of digits
        raise FormatError(f"{what} is not valid JSON: {error}") from error


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise FormatError(f"has the key {twice!r} twice")
    return found


def _no_constant(name: str) -> NoReturn:
    raise FormatError(f"contains {name}, which is not JSON")


def _check_metadata(metadata: Any) -> dict[str, str]:
    if not isinstance(metadata, dict):
        raise FormatError(f"{METADATA} must be an object, got {type(metadata).__name__}")
    for key, value in metadata.items():
        if not isinstance(value, str):
            raise FormatError(f"{METADATA} must map to strings, {key!r} is {type(value).__name__}")
    return metadata


def is_size(value: Any) -> bool:
    """Whether a JSON value is an integer that can be a size, stride or offset in memory."""
    return type(value) is int and 0 <= value < 2**63


def byte_size(shape: list[int], itemsize: int) -> int | None:
    """The bytes of a dense array, or None where a dimension or product does not fit in memory."""
    if len(shape) > MAX_DIMS or not all(map(is_size, shape)):
        return None
    total = itemsize
    for n in shape:
        total *= max(n, 1)  # NumPy refuses (2**62, 2**62, 0) as well: a 0 must not hide the rest
        if total >= 2**63:
            return None
    return 0 if 0 in shape else total


def _check_entry(name: str, entry: Any) -> tuple[dtypes.dtype, tuple[int, ...], int, int]:
    try:
        name.encode("utf-8")
    except UnicodeEncodeError:
        raise FormatError(f"the name {name!r} is not valid Unicode") from None
    if not isinstance(entry, dict) or set(entry) != {"dtype", "shape", "data_offsets"}:
        raise FormatError(f"tensor {name!r} must have dtype, shape and data_offsets, got "
                          f"{sorted(entry) if isinstance(entry, dict) else type(entry).__name__}")
    code, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    dtype = _DTYPES.get(code) if isinstance(code, str) else None
    if dtype is None:
        if code in _FOREIGN:
            raise FormatError(f"tensor {name!r} has dtype {code}, which mlgpu does not have; "
                              "convert it with the tool that wrote the file")
        raise FormatError(f"tensor {name!r} has the unknown dtype {code!r}")
    nbytes = byte_size(shape, dtype.itemsize) if isinstance(shape, list) else None
    if nbytes is None:
        raise FormatError(f"tensor {name!r} has an impossible shape, {_short(shape)}")
    if not (isinstance(offsets, list) and len(offsets) == 2 and all(map(is_size, offsets))):
        raise FormatError(f"tensor {name!r} has impossible data_offsets, {_short(offsets)}")
    begin, end = offsets
    if end - begin != nbytes:
        raise FormatError(f"tensor {name!r} of dtype {code} and shape {shape} takes {nbytes} "
                          f"bytes, and its data_offsets {offsets} hold {end - begin}")
    return dtype, tuple(shape), begin, end


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."


def _check_coverage(entries: dict[str, tuple[dtypes.dtype, tuple[int, ...], int, int]],
                    data_size: int) -> None:
    position = 0
    for name, (_, _, begin, end) in sorted(entries.items(), key=lambda item: item[1][2:]):
        if begin != position:
            fault = "overlaps its neighbour" if begin < position else "leaves a gap before it"
            raise FormatError(f"tensor {name!r} starts at byte {begin} of the data and {fault}, "
                              f"which ends at {position}")
        position = end
    if position != data_size:
        raise FormatError(f"the tensors take {position} bytes of data, and {data_size} follow the "
                          "header")


def _view(name: str, mapping: mmap.mmap, dtype: dtypes.dtype, shape: tuple[int, ...],
          offset: int) -> Array:
    if 0 in shape:
        return np.empty(shape, dtype.numpy)
    array: Array = np.ndarray(shape, dtype.numpy, mapping, offset)
    if dtype is dtypes.bool_ and array.view(np.uint8).max() > 1:
        raise FormatError(f"tensor {name!r} is BOOL and has bytes other than 0 and 1")
    return array


# --- writing --------------------------------------------------------------------------------------


def write(path: str | os.PathLike[str], tensors: Mapping[str, Tensor],
          metadata: Mapping[str, str]) -> None:
    """Replace `path`, atomically, by a safetensors file with these tensors (any device, strides).

    Larger element types come first, so that every tensor is aligned in the file.  Raises
    DTypeError for complex128, which safetensors lacks, and FormatError where the header would
    exceed what readers take.
    """
    order = sorted(tensors, key=lambda name: -tensors[name].itemsize)
    header = _header({name: tensors[name] for name in order}, metadata)
    with replace_file(path) as file:
        file.write(header)
        for name in order:
            # One at a time, so that strided tensors and other devices cost one copy, not all.
            dense = np.ascontiguousarray(tensors[name]._host())
            file.write(dense.reshape(-1).view(np.uint8).data)


def _header(tensors: dict[str, Tensor], metadata: Mapping[str, str]) -> bytes:
    header: dict[str, Any] = {METADATA: dict(metadata)} if metadata else {}
    position = 0
    for name, tensor in tensors.items():
        if tensor.dtype not in CODES:
            raise DTypeError(f"save: safetensors has no dtype for {tensor.dtype!r} ({name!r})")
        header[name] = {"dtype": CODES[tensor.dtype], "shape": list(tensor.shape),
                        "data_offsets": [position, position + tensor.nbytes]}
        position += tensor.nbytes
    text = json.dumps(header, separators=(",", ":"), allow_nan=False).encode("ascii")
    text += b" " * (-(8 + len(text)) % ALIGNMENT)
    if len(text) > MAX_HEADER:
        raise FormatError(f"save: the header takes {len(text)} bytes and readers accept "
                          f"{MAX_HEADER}; keep large lists of numbers in a tensor")
    return len(text).to_bytes(8, "little") + text
