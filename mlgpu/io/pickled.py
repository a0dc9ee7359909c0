"""Pickles as data: reading and writing the part of Python's format that state dicts are made of.

A pickle is a program for a machine with a stack.  This machine knows the instructions that build
plain values; what a pickle names (`collections.OrderedDict`, `torch._utils._rebuild_tensor_v2`) is
looked up in a table that the caller gives, and anything else is refused.  Nothing is imported, no
attribute of anything is reached, and no code of the file's choice ever runs.
"""

from __future__ import annotations

import pickletools
import struct
from collections import Counter, OrderedDict, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, NoReturn

import numpy as np

from mlgpu.errors import FormatError

MAX_DEPTH = 200  # of containers in each other, when writing


class Builder:
    """What a name in a pickle stands for, where it is called with arguments to build a value."""

    def __init__(self, build: Callable[..., Any]) -> None:
        self.build = build


_MARK = Builder(lambda: None)
_SIMPLE = (str, bytes, int, float, bool, complex, type(None))
_CONTAINERS: dict[type, Callable[[], Any]] = {list: list, dict: dict, set: set}


def _plain_keys(keys: Iterable[Any]) -> None:
    """Refuse keys that are more than names and numbers (hashing deep tuples overflows a stack)."""
    for key in keys:
        parts = key if isinstance(key, tuple) else (key,)
        if not all(isinstance(part, _SIMPLE) for part in parts):
            raise FormatError(f"it has a key of type {type(key).__name__}")


def _encoded(text: str, encoding: str) -> bytes:
    if encoding != "latin1" or not isinstance(text, str):
        raise FormatError(f"it has bytes in the encoding {encoding!r}")
    return text.encode("latin1")


def _counter(counts: Any = ()) -> Counter[Any]:
    if not isinstance(counts, dict):
        raise FormatError("it has a Counter of no dict")
    return Counter(counts)


def _set(kind: Callable[[Any], Any]) -> Callable[..., Any]:
    def build(items: Any = ()) -> Any:
        _plain_keys(items)
        return kind(items)

    return build


def _ordered(pairs: Any = ()) -> OrderedDict[Any, Any]:
    _plain_keys(key for key, _ in pairs)
    return OrderedDict(pairs)


def _default(factory: Any = None) -> defaultdict[Any, Any]:
    if factory is not None and factory not in _CONTAINERS.values():
        raise FormatError("it has a defaultdict of no plain container")
    return defaultdict(factory)


# The names that Python's own containers are pickled under, in both spellings.
PLAIN: dict[str, Any] = {
    "_codecs encode": Builder(_encoded), "collections Counter": Builder(_counter),
    "collections OrderedDict": Builder(_ordered), "collections defaultdict": Builder(_default),
    **{f"{module} {name}": value for module in ("builtins", "__builtin__") for name, value in {
        "set": Builder(_set(set)), "frozenset": Builder(_set(frozenset)), "list": list,
        "dict": dict, "int": int, "float": float, "bytes": Builder(lambda: b""),
        "complex": Builder(lambda real, imag: complex(float(real), float(imag)))}.items()},
}


class Reader:
    """One run of the machine.  `names`: what a pickle may name; `stored`: its persistent ids."""

    def __init__(self, names: Mapping[str, Any], stored: Callable[[Any], Any]) -> None:
        self._names = names
        self._stored = stored
        self._stack: list[Any] = []
        self._memo: dict[int, Any] = {}

    def read(self, data: bytes) -> Any:
        """The value.  FormatError for whatever is not a pickle of plain values."""
        end = 0
        try:
            for opcode, argument, position in pickletools.genops(data):
                if opcode.name == "STOP":
                    end = (position or 0) + 1
                    break
                self._step(opcode.name, argument)
        except FormatError:
            raise
        except (ValueError, TypeError, KeyError, IndexError, OverflowError, AttributeError,
                struct.error, UnicodeError, RecursionError, MemoryError) as error:
            raise FormatError(f"its pickle is damaged: {error or type(error).__name__}") from error
        if len(self._stack) != 1 or self._stack[0] is _MARK:
            raise FormatError("its pickle does not end with one value")
        if end != len(data):
            raise FormatError("its pickle goes on after its end")
        return _value(self._stack.pop())

    def _step(self, name: str, argument: Any) -> None:
        stack = self._stack
        if name in _LITERALS:
            stack.append(argument)
        elif name in _CONSTANTS:
            stack.append(_CONSTANTS[name])
        elif name in _EMPTY:
            stack.append(_EMPTY[name]())
        elif name in _TUPLES:
            stack[len(stack) - _TUPLES[name]:] = [tuple(self._top(_TUPLES[name]))]
        elif name in _PUTS:
            self._memo[len(self._memo) if argument is None else argument] = self._top(1)[0]
        elif name in _GETS:
            stack.append(self._memo[argument])
        elif name in _METHODS:
            _METHODS[name](self, argument)
        elif name not in ("PROTO", "FRAME"):
            raise FormatError(f"its pickle has the instruction {name}, which no state dict needs")

    def _top(self, count: int) -> list[Any]:
        items = self._stack[len(self._stack) - count:] if count else []
        if len(items) != count or any(item is _MARK for item in items):
            raise FormatError("its pickle takes more from its stack than is there")
        return items

    def _pop(self) -> Any:
        item, = self._top(1)
        self._stack.pop()
        return item

    def _marked(self) -> list[Any]:
        stack = self._stack
        at = len(stack) - 1
        while stack[at] is not _MARK:  # IndexError where there is none
            at -= 1
            if at < 0:
                raise FormatError("its pickle has no mark where one belongs")
        items = stack[at + 1:]
        del stack[at:]
        return items

    # --- instructions -------------------------------------------------------------------------

    def _global(self, argument: Any) -> None:
        if argument not in self._names:
            raise FormatError(f"its pickle names {argument.replace(' ', '.')}, which is not among "
                              "what state dicts are made of; nothing was run")
        self._stack.append(self._names[argument])

    def _stack_global(self, argument: Any) -> None:
        module, name = self._top(2)
        del self._stack[-2:]
        self._global(f"{module} {name}")

    def _reduce(self, argument: Any) -> None:
        arguments, builder = self._pop(), self._pop()
        if not isinstance(builder, Builder) or not isinstance(arguments, tuple):
            raise FormatError("its pickle calls something that is no constructor")
        self._stack.append(builder.build(*arguments))

    def _build(self, argument: Any) -> None:
        state = self._pop()
        target, = self._top(1)
        self._set_state(target, state)

    def _set_state(self, target: Any, state: Any) -> None:
        """Give a value the state that a pickle has for it: a state dict's `_metadata`."""
        if not isinstance(target, OrderedDict) or not isinstance(state, dict) or any(
                key != "_metadata" for key in state):
            raise FormatError(f"its pickle sets attributes of a {type(target).__name__}")
        target.__dict__.update(state)

    def _persistent(self, argument: Any) -> None:
        self._stack.append(self._stored(self._pop()))

    def _append(self, argument: Any) -> None:
        self._extend([self._pop()])

    def _appends(self, argument: Any) -> None:
        self._extend(self._marked())

    def _extend(self, items: list[Any]) -> None:
        target, = self._top(1)
        if type(target) is not list:
            raise FormatError(f"its pickle appends to a {type(target).__name__}")
        target.extend(map(_value, items))

    def _set_item(self, argument: Any) -> None:
        items = list(self._top(2))
        del self._stack[-2:]
        self._set_pairs(items)

    def _set_items(self, argument: Any) -> None:
        self._set_pairs(self._marked())

    def _set_pairs(self, items: list[Any]) -> None:
        target, = self._top(1)
        if not isinstance(target, dict) or len(items) % 2:
            raise FormatError(f"its pickle sets items of a {type(target).__name__}")
        _plain_keys(items[::2])
        for key, value in zip(items[::2], items[1::2], strict=True):
            target[key] = _value(value)

    def _add_items(self, argument: Any) -> None:
        items = self._marked()
        target, = self._top(1)
        if type(target) is not set:
            raise FormatError(f"its pickle adds to a {type(target).__name__}")
        _plain_keys(items)
        target.update(items)

    def _collected(self, argument: Any, kind: Callable[[Any], Any] = list) -> None:
        items = self._marked()
        if kind is frozenset:
            _plain_keys(items)
        self._stack.append(kind(items))

    def _collected_dict(self, argument: Any) -> None:
        items = self._marked()
        self._stack.append({})
        self._set_pairs(items)

    def _mark(self, argument: Any) -> None:
        self._stack.append(_MARK)


def _value(item: Any) -> Any:
    if isinstance(item, (Builder, type)):
        raise FormatError("its pickle has a constructor where a value belongs")
    return item


_LITERALS = frozenset("""BININT BININT1 BININT2 LONG1 LONG4 BINFLOAT BINUNICODE SHORT_BINUNICODE
    BINUNICODE8 BINBYTES SHORT_BINBYTES BINBYTES8 BINSTRING SHORT_BINSTRING INT LONG FLOAT UNICODE
    """.split())
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": ()}
_EMPTY = {"EMPTY_LIST": list, "EMPTY_DICT": dict, "EMPTY_SET": set}
_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
_PUTS = frozenset({"BINPUT", "LONG_BINPUT", "PUT", "MEMOIZE"})
_GETS = frozenset({"BINGET", "LONG_BINGET", "GET"})
_METHODS: dict[str, Callable[[Reader, Any], None]] = {
    "GLOBAL": Reader._global, "STACK_GLOBAL": Reader._stack_global, "REDUCE": Reader._reduce,
    "BUILD": Reader._build, "BINPERSID": Reader._persistent, "APPEND": Reader._append,
    "APPENDS": Reader._appends, "SETITEM": Reader._set_item, "SETITEMS": Reader._set_items,
    "ADDITEMS": Reader._add_items, "MARK": Reader._mark, "DICT": Reader._collected_dict,
    "LIST": Reader._collected,
    "TUPLE": lambda reader, argument: reader._collected(argument, tuple),
    "FROZENSET": lambda reader, argument: reader._collected(argument, frozenset),
}


class Writer:
    """Plain values as a pickle of protocol 2.  `special(value)` gives the form of all others.

    `special` returns None for what it does not know, else ("global", "module name"),
    ("reduce", "module name", arguments) or ("persistent", id).
    """

    def __init__(self, special: Callable[[Any], tuple[Any, ...] | None]) -> None:
        self._special = special
        self._memo: dict[int, int] = {}
        self._kept: list[Any] = []  # so that no two of them have one id

    def write(self, value: Any) -> bytes:
        """The pickle.  TypeError, naming where, for what has no form."""
        return b"\x80\x02" + b"".join(self._emit(value, ())) + b"."

    def _emit(self, value: Any, path: tuple[str, ...]) -> Iterator[bytes]:
        kind = type(value)
        if len(path) > MAX_DEPTH:
            raise ValueError(f"save: nested more than {MAX_DEPTH} levels deep at "
                             f"{'.'.join(path[:8])}...")
        if value is None or kind is bool:
            yield b"N" if value is None else b"\x88" if value else b"\x89"
        elif kind is int:
            yield _integer(value)
        elif kind is float:
            yield b"G" + struct.pack(">d", value)
        elif kind is str:
            raw = value.encode("utf-8", "surrogatepass")
            yield b"X" + struct.pack("<I", len(raw)) + raw
        elif isinstance(value, np.generic) and value.dtype.kind in _NUMBERS:
            yield from self._emit(_NUMBERS[value.dtype.kind](value), path)
        elif id(value) in self._memo:
            yield b"j" + struct.pack("<I", self._memo[id(value)])
        else:
            yield from self._compound(value, kind, path)

    def _remember(self, value: Any) -> bytes:
        self._memo[id(value)] = len(self._memo)
        self._kept.append(value)
        return b"r" + struct.pack("<I", len(self._memo) - 1)

    def _compound(self, value: Any, kind: type, path: tuple[str, ...]) -> Iterator[bytes]:
        if kind is tuple:
            yield from self._sequence(value, path)
        elif kind is list:
            yield b"]" + self._remember(value) + b"("
            for i, item in enumerate(value):
                yield from self._emit(item, (*path, str(i)))
            yield b"e"
        elif kind is dict:
            yield b"}" + self._remember(value)
            yield from self._items(value, path)
        elif kind is OrderedDict:
            yield b"ccollections\nOrderedDict\n)R" + self._remember(value)
            yield from self._items(value, path)
            metadata = value.__dict__.get("_metadata")
            if metadata is not None:
                yield from self._emit({"_metadata": metadata}, path)
                yield b"b"
        else:
            yield from self._form(value, self._builtin(value, kind) or self._special(value), path)

    def _builtin(self, value: Any, kind: type) -> tuple[Any, ...] | None:
        if kind is bytes:
            return "reduce", "_codecs encode", (value.decode("latin1"), "latin1")
        if kind is complex:
            return "reduce", "__builtin__ complex", (value.real, value.imag)
        if kind is set:
            return "reduce", "__builtin__ set", (list(value),)
        if kind is Counter:
            return "reduce", "collections Counter", (dict(value),)
        return None

    def _form(self, value: Any, form: tuple[Any, ...] | None, path: tuple[str, ...]
              ) -> Iterator[bytes]:
        if form is None:
            self._refuse(value, path)
        what, content, *arguments = form
        if what == "persistent":
            yield from self._sequence(content, path)
            yield b"Q"
        else:
            yield b"c" + content.replace(" ", "\n").encode() + b"\n"
        if what == "reduce":
            yield from self._sequence(arguments[0], path)
            yield b"R" + self._remember(value)

    def _sequence(self, items: tuple[Any, ...], path: tuple[str, ...]) -> Iterator[bytes]:
        yield b"("
        for i, item in enumerate(items):
            yield from self._emit(item, (*path, str(i)))
        yield b"t"

    def _items(self, value: dict[Any, Any], path: tuple[str, ...]) -> Iterator[bytes]:
        yield b"("
        for key, item in value.items():
            yield from self._emit(key, (*path, "a key"))
            yield from self._emit(item, (*path, str(key)))
        yield b"u"

    def _refuse(self, value: Any, path: tuple[str, ...]) -> NoReturn:
        where = ".".join(path) or "the value"
        raise TypeError(
            f"save: {where} is a {type(value).__module__}.{type(value).__qualname__}; tensors, "
            "None, bool, int, float, complex, str, bytes, list, tuple, set, dict, dtype and "
            "device can be saved; convert it to these, e.g. with its state_dict()")


_NUMBERS: dict[str, Callable[[Any], Any]] = {"b": bool, "i": int, "u": int, "f": float,
                                             "c": complex}


def _integer(value: int) -> bytes:
    if 0 <= value < 256:
        return b"K" + bytes([value])
    if -2**31 <= value < 2**31:
        return b"J" + struct.pack("<i", value)
    size = value.bit_length() // 8 + 1
    if size > 255:
        raise ValueError(f"save: an int of {size} bytes is too large")
    return b"\x8a" + bytes([size]) + value.to_bytes(size, "little", signed=True)
