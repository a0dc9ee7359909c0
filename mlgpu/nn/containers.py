"""Containers: modules and parameters in sequences and dicts."""

from __future__ import annotations

import operator
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from mlgpu.autograd.mode import mode
from mlgpu.errors import ShapeError
from mlgpu.nn.module import Module, indented, tree
from mlgpu.nn.parameter import Parameter, describe
from mlgpu.nn.served import served
from mlgpu.tensor import Tensor

if TYPE_CHECKING:
    from typing import Self

__all__ = ["ModuleDict", "ModuleList", "ParameterDict", "ParameterList", "Sequential"]


def position(index: int, length: int) -> int:
    """A list index as a place from the front.  IndexError if out of range."""
    index = operator.index(index)
    if not -length <= index < length:
        raise IndexError(f"index {index} is out of range for {length} entries")
    return index % length


def pairs(entries: Any) -> list[tuple[str, Any]]:
    """The entries of a mapping or an iterable of (key, value) pairs."""
    if isinstance(entries, (Mapping, ModuleDict, ParameterDict)):
        return list(entries.items())
    found = list(entries)
    for entry in found:
        if len(entry) != 2:
            raise ShapeError(f"update: expected (key, value) pairs, got one of {len(entry)} items")
    return found


class _ModuleSequence(Module):
    """What Sequential and ModuleList share: children by number, with the methods of a list."""

    def __len__(self) -> int:
        return len(self._modules)

    def __iter__(self) -> Iterator[Any]:
        return iter(self._modules.values())

    def __getitem__(self, index: int | slice) -> Any:
        if isinstance(index, slice):
            return type(self)(list(self)[index])  # type: ignore[call-arg]
        return list(self)[position(index, len(self))]

    def _restore(self, modules: Iterable[Any]) -> None:
        modules = list(modules)
        self._modules.clear()
        for number, module in enumerate(modules):
            self.register_module(str(number), module)

    def __setitem__(self, index: int, module: Module) -> None:
        setattr(self, list(self._modules)[position(index, len(self))], module)

    def __delitem__(self, index: int | slice) -> None:
        modules = list(self)
        del modules[index if isinstance(index, slice) else position(index, len(self))]
        self._restore(modules)

    def __iadd__(self, other: Iterable[Module]) -> Self:
        return self.extend(other)

    def append(self, module: Module) -> Self:
        """Add a module at the end."""
        self.register_module(str(len(self)), module)
        return self

    def extend(self, modules: Iterable[Module]) -> Self:
        """Add modules at the end."""
        for module in list(modules):
            self.append(module)
        return self

    def insert(self, index: int, module: Module) -> Self:
        """Add a module before place `index`."""
        modules = list(self)
        modules.insert(index, module)
        self._restore(modules)
        return self

    def pop(self, index: int | slice) -> Any:
        """Take a module out, and return it."""
        taken = self[index]
        del self[index]
        return taken


class Sequential(_ModuleSequence):
    """Modules applied one after the other: `Sequential(a, b)` or `Sequential(OrderedDict(...))`."""

    def __init__(self, *args: Any) -> None:
        super().__init__()
        if len(args) == 1 and isinstance(args[0], Mapping):
            for name, module in args[0].items():
                self.register_module(name, module)
        else:
            self.extend(args)

    def forward(self, input: Any) -> Any:
        if not mode.grad and (made := served(self._modules.values(), input)) is not None:
            return made
        for module in self._modules.values():
            input = module(input)  # type: ignore[misc]
        return input

    def __getitem__(self, index: int | slice) -> Any:
        if isinstance(index, slice):
            return type(self)(dict(list(self._modules.items())[index]))
        return super().__getitem__(index)

    def __add__(self, other: Sequential) -> Sequential:
        if not isinstance(other, Sequential):
            raise TypeError(f"Sequential: only a Sequential can be added, got "
                            f"{type(other).__name__}")
        return Sequential(*self, *other)

    def __mul__(self, times: int) -> Sequential:
        """The same modules `times` times over, sharing their parameters."""
        if not isinstance(times, int):
            raise TypeError(f"Sequential: can be multiplied by an int, got {type(times).__name__}")
        if times <= 0:
            raise ShapeError(f"Sequential: the factor must be at least 1, got {times}")
        return Sequential(*(list(self) * times))

    __rmul__ = __mul__


class ModuleList(_ModuleSequence):
    """A list of modules, whose parameters belong to the module that holds the list."""

    def __init__(self, modules: Iterable[Module] | None = None) -> None:
        super().__init__()
        self.extend(() if modules is None else modules)

    def __add__(self, other: Iterable[Module]) -> ModuleList:
        return ModuleList([*self, *other])

    def __repr__(self) -> str:
        """As Module's, with runs of equal modules on one line."""
        runs: list[tuple[int, int, str]] = []
        for number, text in enumerate(map(repr, self)):
            if runs and runs[-1][2] == text:
                runs[-1] = (runs[-1][0], number, text)
            else:
                runs.append((number, number, text))
        lines = [f"({first}): {indented(text)}" if first == last else
                 f"({first}-{last}): {last - first + 1} x {indented(text)}"
                 for first, last, text in runs]
        return tree(self._get_name(), [], lines)


class ModuleDict(Module):
    """A dict of modules, whose parameters belong to the module that holds the dict."""

    def __init__(self, modules: Any = None) -> None:
        super().__init__()
        if modules is not None:
            self.update(modules)

    def __getitem__(self, key: str) -> Any:
        return self._modules[key]

    def __setitem__(self, key: str, module: Module) -> None:
        self.register_module(key, module)

    def __delitem__(self, key: str) -> None:
        del self._modules[key]

    def __len__(self) -> int:
        return len(self._modules)

    def __iter__(self) -> Iterator[str]:
        return iter(self._modules)

    def __contains__(self, key: object) -> bool:
        return key in self._modules

    def clear(self) -> None:
        """Take all modules out."""
        self._modules.clear()

    def pop(self, key: str) -> Any:
        """Take a module out, and return it."""
        return self._modules.pop(key)

    def keys(self) -> Iterable[str]:
        """The keys."""
        return self._modules.keys()

    def items(self) -> Iterable[tuple[str, Any]]:
        """(key, module) pairs."""
        return self._modules.items()

    def values(self) -> Iterable[Any]:
        """The modules."""
        return self._modules.values()

    def update(self, modules: Any) -> None:
        """Add the modules of a mapping, or of an iterable of (key, module) pairs."""
        for key, module in pairs(modules):
            self[key] = module


def _member(value: Any) -> Any:
    """A plain tensor becomes a parameter, as PyTorch's parameter containers do it."""
    if isinstance(value, Tensor) and not isinstance(value, Parameter):
        return Parameter(value)
    return value


def _line(key: Any, value: Any) -> str:
    if isinstance(value, Tensor):
        kind = "Parameter" if isinstance(value, Parameter) else "Tensor"
        return f"({key}): {kind} containing: {describe(value)}"
    return f"({key}): Object of type: {type(value).__name__}"


class ParameterList(Module):
    """A list whose tensors are parameters of the module that holds it; other values are kept."""

    def __init__(self, values: Iterable[Any] | None = None) -> None:
        super().__init__()
        self._size = 0
        self.extend(() if values is None else values)

    def __len__(self) -> int:
        return self._size

    def __iter__(self) -> Iterator[Any]:
        return iter([getattr(self, str(number)) for number in range(self._size)])

    def __getitem__(self, index: int | slice) -> Any:
        if isinstance(index, slice):
            return type(self)(list(self)[index])
        return getattr(self, str(position(index, self._size)))

    def __setitem__(self, index: int, value: Any) -> None:
        setattr(self, str(position(index, self._size)), _member(value))

    def __iadd__(self, other: Iterable[Any]) -> Self:
        return self.extend(other)

    def append(self, value: Any) -> Self:
        """Add a value at the end."""
        setattr(self, str(self._size), _member(value))
        self._size += 1
        return self

    def extend(self, values: Iterable[Any]) -> Self:
        """Add values at the end."""
        if isinstance(values, Tensor) or not isinstance(values, Iterable):
            raise TypeError(f"ParameterList: expected an iterable of values, got "
                            f"{type(values).__name__}")
        for value in list(values):
            self.append(value)
        return self

    def __repr__(self) -> str:
        return tree(self._get_name(), [], [_line(k, v) for k, v in enumerate(self)])


class ParameterDict(Module):
    """A dict whose tensors are parameters of the module that holds it; other values are kept."""

    def __init__(self, parameters: Any = None) -> None:
        super().__init__()
        self._keys: dict[str, None] = {}
        if parameters is not None:
            self.update(parameters)

    @staticmethod
    def _key(key: str) -> str:
        if not isinstance(key, str):
            raise TypeError(f"ParameterDict: keys must be strings, got {type(key).__name__}")
        return key

    def __getitem__(self, key: str) -> Any:
        if key not in self._keys:
            raise KeyError(key)
        return getattr(self, key)

    def __setitem__(self, key: str, value: Any) -> None:
        # A new key must not hide one of the module's own attributes.
        if self._key(key) not in self._keys and hasattr(self, key):
            raise KeyError(f"ParameterDict: {key!r} is an attribute of the dict itself")
        setattr(self, key, _member(value))
        self._keys[key] = None

    def __delitem__(self, key: str) -> None:
        del self._keys[key]
        delattr(self, key)

    def __len__(self) -> int:
        return len(self._keys)

    def __iter__(self) -> Iterator[str]:
        return iter(self._keys)

    def __reversed__(self) -> Iterator[str]:
        return reversed(self._keys)

    def __contains__(self, key: object) -> bool:
        return key in self._keys

    def keys(self) -> Iterable[str]:
        """The keys."""
        return self._keys.keys()

    def values(self) -> Iterable[Any]:
        """The values."""
        return [self[key] for key in self._keys]

    def items(self) -> Iterable[tuple[str, Any]]:
        """(key, value) pairs."""
        return [(key, self[key]) for key in self._keys]

    def get(self, key: str, default: Any = None) -> Any:
        """The value of `key`, or `default`."""
        return self[key] if key in self._keys else default

    def setdefault(self, key: str, default: Any = None) -> Any:
        """The value of `key`, set to `default` first if there is none."""
        if key not in self._keys:
            self[key] = default
        return self[key]

    def pop(self, key: str) -> Any:
        """Take a value out, and return it."""
        value = self[key]
        del self[key]
        return value

    def clear(self) -> None:
        """Take all values out."""
        for key in list(self._keys):
            del self[key]

    def update(self, parameters: Any) -> None:
        """Add the values of a mapping, or of an iterable of (key, value) pairs."""
        for key, value in pairs(parameters):
            self[key] = value

    def copy(self) -> ParameterDict:
        """A new dict with the same values."""
        return ParameterDict(dict(self.items()))

    def __or__(self, other: Any) -> ParameterDict:
        merged = self.copy()
        merged.update(other)
        return merged

    def __ior__(self, other: Any) -> Self:
        self.update(other)
        return self

    def __repr__(self) -> str:
        return tree(self._get_name(), [], [_line(k, v) for k, v in self.items()])
