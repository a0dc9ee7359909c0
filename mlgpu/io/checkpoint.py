"""save and load: nested Python values with tensors in one safetensors file.

The tensors are ordinary entries, named after where they stand ("model.layers.0.weight"), that
every safetensors reader can open.  How they were nested, the plain values, and what safetensors
cannot say stands as JSON under the metadata key "mlgpu":

    {"version": 1, "root": <node>, "tensors": [{"entry": name, ...}, ...]}

A node `{"tensor": i}` (see structure.py) means the i-th of `tensors`, whose optional keys are
"parameter" (true), "requires_grad" (true), and "view": dtype, shape, strides and offset in bytes
of a tensor that is a part or a reinterpretation of its entry.  complex128, which safetensors does
not have, is stored as float64 with a last dimension of two: other tools see real and imaginary
parts, as `view_as_real` gives them.
"""

from __future__ import annotations

import json
import os
from typing import Any

import numpy as np

from mlgpu import dtypes
from mlgpu.cpu import runtime as cpu
from mlgpu.device import CPU, Device, resolve, runtime
from mlgpu.errors import DTypeError, FormatError
from mlgpu.io import safetensors
from mlgpu.io.safetensors import Array, byte_size, is_size
from mlgpu.io.structure import Decoder, Encoder
from mlgpu.io.ties import View, dense_strides, place
from mlgpu.nn.parameter import Parameter
from mlgpu.storage import Storage
from mlgpu.tensor import Tensor

VERSION = 1
KEY = "mlgpu"


# --- saving ---------------------------------------------------------------------------------------


def save(obj: object, path: str | os.PathLike[str]) -> None:
    """Write `obj` to one safetensors file at `path`, atomically: it is the old file or the new one.

    `obj`: tensors (on any device, any strides), None, bool, int, float, complex, str, bytes, NumPy
    scalars, dtypes and Devices, in any nesting of dict, OrderedDict, list, tuple, Size and set.
    `load` gives all of it back, with Parameters, `requires_grad`, and memory that tensors share.
    Raises TypeError, naming where, for anything else, and leaves the target as it was on any error.
    """
    collected = _Collector()
    root = Encoder(collected.number).encode(obj)
    entries: dict[str, Tensor] = {}
    records = []
    for tensor, placement in zip(collected.tensors, place(collected.tensors), strict=True):
        stored, view = placement.stored, placement.view
        entry = collected.name(stored, tensor)
        if stored.dtype is dtypes.complex128:
            shape = tuple(tensor.shape)
            view = view or View(tensor.dtype, shape, dense_strides(shape, tensor.dtype), 0)
            parts = stored._array[..., None].view(np.float64)
            stored = Tensor._make(parts, stored._storage)
        entries.setdefault(entry, stored)
        records.append(_record(tensor, entry, view))
    structure = {"version": VERSION, "root": root, "tensors": records}
    text = json.dumps(structure, separators=(",", ":"), allow_nan=False)
    # Tools of PyTorch's world look for this "format" before they open a file.
    safetensors.write(path, entries, {"format": "pt", KEY: text})


class _Collector:
    """The tensors of a value in the order they were met, each with a name of its own."""

    def __init__(self) -> None:
        self.tensors: list[Tensor] = []
        self._numbers: dict[int, int] = {}
        self._names: dict[int, str] = {}
        self._taken = {safetensors.METADATA}

    def number(self, tensor: Tensor, where: tuple[str, ...]) -> int:
        if id(tensor) not in self._numbers:
            if type(tensor) not in (Tensor, Parameter):
                raise TypeError(f"save: {'.'.join(where)} is a {type(tensor).__name__}; only plain "
                                "Tensors and Parameters come back as they were, pass .detach()")
            tensor._check()
            self._numbers[id(tensor)] = len(self.tensors)
            self._names[id(tensor)] = self._unused(where)
            self.tensors.append(tensor)
        return self._numbers[id(tensor)]

    def name(self, stored: Tensor, user: Tensor) -> str:
        """The entry that holds `stored`; one that is no tensor of the value is named by `user`."""
        return self._names.setdefault(id(stored), self._names[id(user)])

    def _unused(self, where: tuple[str, ...]) -> str:
        plain = ".".join(where).encode("utf-8", "backslashreplace").decode("utf-8") or "tensor"
        name, count = plain, 1
        while name in self._taken:
            count += 1
            name = f"{plain}#{count}"
        self._taken.add(name)
        return name


def _record(tensor: Tensor, entry: str, view: View | None) -> dict[str, Any]:
    record: dict[str, Any] = {"entry": entry}
    if isinstance(tensor, Parameter):
        record["parameter"] = True
    if tensor.requires_grad:
        record["requires_grad"] = True
    if view is not None:
        record["view"] = {"dtype": view.dtype.name, "shape": list(view.shape),
                          "strides": list(view.strides), "offset": view.offset}
    return record


# --- loading --------------------------------------------------------------------------------------


def load(path: str | os.PathLike[str], device: Device | str | None = None) -> Any:
    """What `save` wrote, or `{name: Tensor}` for a safetensors file of another tool.

    The tensors are views of a private memory map of the file: nothing is copied, they can be
    written to, and writes never reach the file (which may be replaced, but not truncated, while
    they live).  Where a foreign file does not align a tensor, that one is copied.  With a CUDA
    `device` everything is copied there, and tensors that were overlapping strided views of one
    memory come apart.  Nothing in a file is ever executed; a file that is not what it claims to be
    raises FormatError, naming the file and the reason.
    """
    target = CPU if device is None else resolve(device)
    container = safetensors.read(path)
    text = container.metadata.get(KEY)
    if text is None:
        entries = _Entries(container.arrays, target)
        return {name: entries.tensor({"entry": name}) for name in container.arrays}
    try:
        return _assemble(text, container.arrays, target)
    except FormatError as error:
        raise FormatError(f"load: {os.fspath(path)!r} does not say how its tensors belong "
                          f"together: {error}") from error.__cause__


def _assemble(text: str, arrays: dict[str, Array], device: Device) -> Any:
    structure = safetensors.parse_json(text, "the structure")
    if not isinstance(structure, dict) or "version" not in structure:
        raise FormatError("the structure must be a JSON object with a version")
    if structure["version"] != VERSION:
        raise FormatError(f"its version is {structure['version']!r} and this mlgpu reads "
                          f"{VERSION}; use the mlgpu that wrote it, or a newer one")
    if set(structure) != {"version", "root", "tensors"}:
        raise FormatError(f"the structure has the keys {sorted(structure)}")
    records = structure["tensors"]
    if not isinstance(records, list):
        raise FormatError("the structure's tensors must be a list")
    entries = _Entries(arrays, device)
    for record in records:
        entries.announce(record)
    unused = set(arrays).difference(record["entry"] for record in records)
    if unused:
        raise FormatError(f"it has no place for the tensor {min(unused)!r}; if another tool added "
                          f"it, drop the metadata key {KEY!r} there")
    made: dict[int, Tensor] = {}

    def tensor(number: int) -> Tensor:
        if number not in made:
            if not 0 <= number < len(records):
                raise FormatError(f"the structure has no tensor number {number}")
            made[number] = entries.tensor(records[number])
        return made[number]

    return Decoder(tensor).decode(structure["root"])


class _Entries:
    """The file's arrays as storages on a device, and the tensors that lie on them."""

    def __init__(self, arrays: dict[str, Array], device: Device) -> None:
        self._arrays = arrays
        self._device = device
        self._alignment: dict[str, int] = {}
        self._whole: dict[str, tuple[Any, Storage]] = {}

    def announce(self, record: Any) -> None:
        """Check a record and take note of the alignment it needs, before any memory is shared."""
        keys = {"entry", "parameter", "requires_grad", "view"}
        if not isinstance(record, dict) or not keys >= set(record) >= {"entry"}:
            raise FormatError("the structure has a tensor without entry or with unknown keys")
        entry = record["entry"]
        if not isinstance(entry, str) or entry not in self._arrays:
            raise FormatError(f"the structure names a tensor {entry!r} that the file has not")
        if any(record.get(key, True) is not True for key in ("parameter", "requires_grad")):
            raise FormatError(f"tensor {entry!r} has a flag that is not true")
        if "view" in record:
            view = _parse_view(record["view"], self._arrays[entry], entry)
            alignment = max(self._alignment.get(entry, 1), view.dtype.numpy.alignment)
            self._alignment[entry] = alignment

    def tensor(self, record: dict[str, Any]) -> Tensor:
        """The tensor that a checked record describes."""
        entry = record["entry"]
        array, storage = self._root(entry)
        if "view" in record:
            array, storage = _apply(_parse_view(record["view"], array, entry), array, storage)
        kind = Parameter if "parameter" in record else Tensor
        tensor: Tensor = kind._make(array, storage)
        tensor._requires = False
        if "requires_grad" in record:
            try:
                tensor.requires_grad_()
            except DTypeError as error:
                raise FormatError(f"tensor {entry!r} cannot require grad: {error}") from error
        return tensor

    def _root(self, entry: str) -> tuple[Any, Storage]:
        if entry not in self._whole:
            array: Any = self._arrays[entry]
            alignment = max(self._alignment.get(entry, 1), array.dtype.alignment)
            if self._device != CPU:
                array, _ = runtime(self._device).from_host(array, self._device, False)
                storage = Storage.owning(array, self._device)
            elif array.ctypes.data % alignment:
                array = cpu.copy(array)
                storage = Storage.owning(array, CPU)
            else:
                storage = Storage.foreign(array, CPU)
            self._whole[entry] = array, storage
        return self._whole[entry]


def _parse_view(node: Any, root: Array, entry: str) -> View:
    """The view that a record describes, which must lie within `root`."""
    if not isinstance(node, dict) or set(node) != {"dtype", "shape", "strides", "offset"}:
        raise FormatError(f"tensor {entry!r} has a view without dtype, shape, strides or offset")
    shape, strides, offset = node["shape"], node["strides"], node["offset"]
    dtype = next((d for d in dtypes.ALL if d.name == node["dtype"]), None)
    if dtype is None:
        raise FormatError(f"tensor {entry!r} has a view of the unknown dtype {node['dtype']!r}")
    if (dtype is dtypes.bool_) != (root.dtype == np.bool_):
        raise FormatError(f"tensor {entry!r} has a view between bool and another dtype")
    if (not isinstance(shape, list) or byte_size(shape, dtype.itemsize) is None
            or not isinstance(strides, list) or len(strides) != len(shape)
            or not all(map(is_size, [*strides, offset]))):
        raise FormatError(f"tensor {entry!r} has a view of an impossible shape, strides or offset")
    view = View(dtype, tuple(shape), tuple(strides), offset)
    if any(step % dtype.numpy.alignment for step in (offset, *strides)):
        raise FormatError(f"tensor {entry!r} has a view that is not aligned")
    if offset + view.extent > root.nbytes:
        raise FormatError(f"tensor {entry!r} has {root.nbytes} bytes, and a view reaches "
                          f"{offset + view.extent}")
    return view


def _apply(view: View, root: Any, storage: Storage) -> tuple[Any, Storage]:
    part = root.reshape(-1).view(np.uint8)[view.offset:view.offset + view.extent]
    if view.dense:
        return part.view(view.dtype.numpy).reshape(view.shape), storage
    if storage.device == CPU:
        return np.ndarray(view.shape, view.dtype.numpy, part, 0, view.strides), storage
    host, _ = runtime(storage.device).to_host(part, False)
    array = np.ndarray(view.shape, view.dtype.numpy, host, 0, view.strides)
    copied, _ = runtime(storage.device).from_host(array, storage.device, False)
    return copied, Storage.owning(copied, storage.device)
