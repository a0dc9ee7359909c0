"""PyTorch's files: `torch.save` and `torch.load` of state dicts, without running what is in them.

A file is a zip archive, nothing in it compressed: `data.pkl` is a pickle of the value, in which a
tensor names its storage, and `data/<key>` holds the bytes of each storage.  It is read by the
machine of `pickled.py`.  What is written is read by PyTorch with `weights_only=True`.
"""

from __future__ import annotations

import operator
import os
import sys
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from typing import IO, Any

import numpy as np

from mlgpu import dtypes
from mlgpu.device import CPU, Device, resolve, runtime
from mlgpu.errors import DeviceError, FormatError, MlgpuError
from mlgpu.io.atomic import replace_file
from mlgpu.io.pickled import PLAIN, Builder, Reader, Writer
from mlgpu.io.ties import View, dense_strides, place
from mlgpu.nn.parameter import Parameter
from mlgpu.storage import Storage
from mlgpu.tensor import Size, Tensor

__all__ = ["load_pytorch", "save_pytorch"]

File = str | os.PathLike[str] | IO[bytes]
# Where the tensors of a device, named as in "cuda:0", are to be put.
Placing = Callable[[str], Device]

_STORAGES = {"bool": "BoolStorage", "uint8": "ByteStorage", "int8": "CharStorage",
             "int16": "ShortStorage", "int32": "IntStorage", "int64": "LongStorage",
             "float16": "HalfStorage", "bfloat16": "BFloat16Storage", "float32": "FloatStorage",
             "float64": "DoubleStorage", "complex64": "ComplexFloatStorage",
             "complex128": "ComplexDoubleStorage"}


class _StorageType:
    """What a pickle's `torch.FloatStorage` stands for; it is only ever named."""

    def __init__(self, dtype: dtypes.dtype) -> None:
        self.dtype = dtype


class _Stored:
    """A storage that the pickle refers to: memory of the archive, and how it is typed."""

    def __init__(self, array: Any, storage: Storage, dtype: dtypes.dtype) -> None:
        self.array, self.storage, self.dtype = array, storage, dtype


def load_pytorch(file: File, device: Device | str | None = None,
                 placing: Placing | None = None) -> Any:
    """What `torch.save` wrote: nested dicts, lists, numbers and names with tensors.

    `file`: a path or a binary file that can seek.  The tensors are put on `device`, or where
    `placing` says for the name of the device they were saved from; by default they go back there.
    Tensors that shared memory share it again.  Nothing in the file is executed: raises FormatError,
    naming what it refers to, for pickled objects of other classes and for whatever is damaged.
    DeviceError where it has tensors of a device that is not there.
    """
    if device is not None:
        target = resolve(device)
        placing = lambda location: target  # noqa: E731
    name = os.fspath(file) if isinstance(file, (str, os.PathLike)) else getattr(file, "name", file)
    try:
        with zipfile.ZipFile(file) as archive:
            return _Archive(archive, placing or _origin).read()
    except (FormatError, zipfile.BadZipFile, NotImplementedError, EOFError) as error:
        raise FormatError(f"load: {name!r} is no file of weights that torch.save writes "
                          f"(a zip archive, since PyTorch 1.6): {error}") from error


def _origin(location: str) -> Device:
    try:
        return resolve(location)
    except DeviceError as error:
        raise DeviceError(f"load: the file has tensors of {location!r}, and {error}; pass "
                          "map_location='cpu' (load_pytorch: device='cpu')") from None


class _Archive:
    def __init__(self, archive: zipfile.ZipFile, placing: Placing) -> None:
        self._archive = archive
        self._placing = placing
        self._entries = {info.filename: info for info in archive.infolist()}
        self._loaded: dict[str, tuple[Any, Storage]] = {}
        self._check()

    def _check(self) -> None:
        """Refuse what would take more memory than the file takes on the disk."""
        infos = self._archive.infolist()
        if len(self._entries) != len(infos):
            raise FormatError("it has two entries of one name")
        if any(i.compress_type != zipfile.ZIP_STORED or i.flag_bits & 1 for i in infos):
            raise FormatError("it has compressed or encrypted entries")
        stream = self._archive.fp
        assert stream is not None
        size = stream.seek(0, os.SEEK_END)
        if sum(i.file_size for i in infos) > size:
            raise FormatError("its entries claim more bytes than it has")
        roots = [n.removesuffix("data.pkl") for n in self._entries if n.endswith("/data.pkl")]
        if len(roots) != 1 or "/" in roots[0][:-1]:
            raise FormatError("it has no data.pkl")
        self._root = roots[0]
        order = self._entries.get(f"{self._root}byteorder")
        if order is not None and self._archive.read(order) != sys.byteorder.encode():
            raise FormatError(f"its numbers are not {sys.byteorder} endian, as this machine's are")

    def read(self) -> Any:
        return Reader(_NAMES, self._stored).read(self._archive.read(f"{self._root}data.pkl"))

    def _stored(self, key: Any) -> _Stored:
        what, kind, name, location, numel = key
        if what != "storage" or not isinstance(kind, _StorageType) or not isinstance(name, str):
            raise FormatError("its pickle refers to something that is no storage")
        if name not in self._loaded:
            entry = self._entries.get(f"{self._root}data/{name}")
            if entry is None:
                raise FormatError(f"it lacks the storage {name!r}")
            self._loaded[name] = self._load(entry, location)
        array, storage = self._loaded[name]
        if array.nbytes < operator.index(numel) * kind.dtype.itemsize:
            raise FormatError(f"the storage {name!r} has {array.nbytes} bytes, and {numel} "
                              f"elements of {kind.dtype.name} were to be in it")
        return _Stored(array, storage, kind.dtype)

    def _load(self, entry: zipfile.ZipInfo, location: Any) -> tuple[Any, Storage]:
        if not isinstance(location, str):
            raise FormatError("a storage has no device")
        device = self._placing(location)
        array = runtime(CPU).empty((entry.file_size,), np.dtype(np.uint8), CPU)
        with self._archive.open(entry) as stream:
            if stream.readinto(memoryview(array)) != entry.file_size:  # type: ignore[attr-defined]
                raise FormatError(f"the storage {entry.filename!r} is cut off")
        if device != CPU:
            array, _ = runtime(device).from_host(array, device, False)
        return array, Storage.owning(array, device)


def _rebuilt(stored: Any, offset: int, size: Any, stride: Any, requires_grad: bool = False,
             hooks: Any = None, metadata: Any = None) -> Tensor:
    """A tensor on a storage, where all of it lies within."""
    if not isinstance(stored, _Stored) or metadata:
        raise FormatError("it has a tensor of a kind that mlgpu does not have")
    dtype = stored.dtype
    shape, steps = tuple(map(operator.index, size)), tuple(map(operator.index, stride))
    if len(shape) != len(steps) or len(shape) > 64 or min((offset, *shape, *steps)) < 0 or max(
            (offset, *shape, *steps)) >= 2**62 // dtype.itemsize:
        raise FormatError("it has a tensor of an impossible shape or stride")
    view = View(dtype, shape, tuple(n * dtype.itemsize for n in steps), offset * dtype.itemsize)
    if view.offset + view.extent > stored.array.nbytes:
        raise FormatError(f"it has a tensor that reaches {view.offset + view.extent} bytes into a "
                          f"storage of {stored.array.nbytes}")
    tensor = Tensor._make(_on(stored, view), stored.storage)
    return tensor.requires_grad_() if requires_grad else tensor


def _on(stored: _Stored, view: View) -> Any:
    """The array of a view that lies within a storage."""
    if stored.storage.device == CPU:
        return np.ndarray(view.shape, view.dtype.numpy, stored.array, view.offset, view.strides)
    part = stored.array[view.offset:view.offset + view.extent].view(view.dtype.numpy)
    if view.dense:
        return part.reshape(view.shape)
    return type(part)(view.shape, part.dtype, memptr=part.data, strides=view.strides)


def _parameter(data: Any, requires_grad: Any = True, hooks: Any = None) -> Parameter:
    if not isinstance(data, Tensor):
        raise FormatError("it has a Parameter of no tensor")
    return Parameter(data.detach(), bool(requires_grad))


def _device(kind: Any, index: Any = None) -> Device:
    try:
        return Device(kind, index)
    except MlgpuError as error:
        raise FormatError(str(error)) from None


_NAMES: Mapping[str, Any] = {
    **PLAIN,
    "torch._utils _rebuild_tensor_v2": Builder(_rebuilt),
    "torch._utils _rebuild_parameter": Builder(_parameter),
    "torch Size": Builder(lambda sizes=(): Size(map(operator.index, sizes))),
    "torch device": Builder(_device),
    **{f"torch {d.name}": d for d in dtypes.ALL},
    **{f"torch {storage}": _StorageType(dtypes.by_name(name))
       for name, storage in _STORAGES.items()},
}


# --- saving ---------------------------------------------------------------------------------------


def save_pytorch(obj: object, file: File) -> None:
    """Write `obj` as `torch.save` does: PyTorch reads it with `weights_only=True`.

    `obj`: tensors, None, bool, int, float, complex, str, bytes, NumPy scalars (which become
    Python's), dtypes and Devices, in any nesting of dict, OrderedDict, Counter, list, tuple, Size
    and set.  A path is replaced atomically.  Raises TypeError, naming where, for anything else.
    """
    contents = _Contents(obj)
    pickle = Writer(contents.form).write(obj)
    if isinstance(file, (str, os.PathLike)):
        stem = os.path.splitext(os.path.basename(os.fspath(file)))[0] or "archive"
        with replace_file(file) as target:
            _write(target, stem, pickle, contents.storages)
    else:
        _write(file, "archive", pickle, contents.storages)


def _write(file: IO[bytes], stem: str, pickle: bytes, storages: list[Tensor]) -> None:
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        def add(name: str, content: Any) -> None:
            # The same values give the same file: no moment is written.
            archive.writestr(zipfile.ZipInfo(f"{stem}/{name}"), content)

        add("data.pkl", pickle)
        add("byteorder", sys.byteorder.encode())
        for number, stored in enumerate(storages):
            host = np.ascontiguousarray(stored._host())
            add(f"data/{number}", host.reshape(-1).view(np.uint8).data)
        add("version", b"3\n")


class _Plain:
    """A tensor that is to be written as one, whatever its class: what a Parameter is made of."""

    def __init__(self, tensor: Tensor) -> None:
        self.tensor = tensor


class _Key:
    """How a pickle refers to a storage."""

    def __init__(self, content: tuple[Any, ...]) -> None:
        self.content = content


class _Name:
    """A name in a pickle."""

    def __init__(self, text: str) -> None:
        self.text = text


class _Contents:
    """The tensors of a value, and the storages they lie on."""

    def __init__(self, value: Any) -> None:
        self.storages: list[Tensor] = []
        tensors = {id(t): t for t in _tensors(value, set())}
        self._placed = dict(zip(tensors, place(list(tensors.values())), strict=True))
        self._numbers: dict[int, int] = {}

    def form(self, value: Any) -> tuple[Any, ...] | None:
        """How `Writer` is to write what is no plain value."""
        if type(value) is Parameter:
            return "reduce", "torch._utils _rebuild_parameter", (
                _Plain(value), value.requires_grad, OrderedDict())
        if type(value) in (Tensor, _Plain):
            return self._tensor(value)
        if isinstance(value, _Key):
            return "persistent", value.content
        if isinstance(value, _Name):
            return "global", value.text
        if isinstance(value, dtypes.dtype):
            return "global", f"torch {value.name}"
        if isinstance(value, Size):
            return "reduce", "torch Size", (tuple(value),)
        if isinstance(value, Device):
            return "reduce", "torch device", (value.type,) if value.index is None else (
                value.type, value.index)
        return None

    def _tensor(self, value: Any) -> tuple[Any, ...]:
        plain = isinstance(value, _Plain)
        tensor: Tensor = value.tensor if plain else value
        placed = self._placed[id(tensor)]
        stored, view = placed.stored, placed.view
        if view is not None and view.dtype is not stored.dtype:
            stored, view = tensor, None  # a storage of PyTorch's has one dtype
        number = self._numbers.setdefault(id(stored), len(self.storages))
        if number == len(self.storages):
            self.storages.append(stored)
        shape, size = tuple(tensor.shape), tensor.itemsize
        strides = dense_strides(shape, tensor.dtype) if view is None else view.strides
        key = _Key(("storage", _Name(f"torch {_STORAGES[tensor.dtype.name]}"), str(number),
                    str(tensor.device), stored.numel()))
        return "reduce", "torch._utils _rebuild_tensor_v2", (
            key, 0 if view is None else view.offset // size, shape,
            tuple(n // size for n in strides), tensor.requires_grad and not plain, OrderedDict())


def _tensors(value: Any, seen: set[int]) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        value._check()
        yield value
    elif isinstance(value, (dict, list, tuple, set, frozenset)) and id(value) not in seen:
        seen.add(id(value))
        for item in value.values() if isinstance(value, dict) else value:
            yield from _tensors(item, seen)
