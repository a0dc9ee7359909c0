"""The finder that answers `import torch`, and the modules it makes: views of mlgpu's."""

from __future__ import annotations
import __future__

import difflib
import sys
from collections.abc import Iterable, Sequence
from importlib import import_module
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.metadata import Distribution, DistributionFinder
from importlib.util import find_spec
from types import FunctionType, ModuleType
from typing import Any

from mlgpu import dtypes
from mlgpu.as_torch import data, devices, dispatch, processes, tensor
from mlgpu.as_torch.modules import MODULES, NEARBY
from mlgpu.as_torch.version import VERSION
from mlgpu.errors import MissingModuleError, MissingNameError, MlgpuError
from mlgpu.ops.elementwise import ElementwiseFunction

ROOTS = ("torch", "torchvision")
# Whose functions ask the classes of their arguments what to do, and take out=.
_OVERRIDABLE = frozenset("""mlgpu mlgpu.fft mlgpu.linalg mlgpu.special mlgpu.nn.functional
    mlgpu.as_torch.nn_functional""".split())
_NOBODYS = frozenset("as_tensor from_numpy is_tensor tensor".split())
# Modules whose `__dict__` programs go through: `models.__dict__[args.arch]`.
_LOOKED_INTO = frozenset("""torch.distributions torch.optim torch.optim.lr_scheduler
    torchvision.models""".split())
# A module's own imports: other modules, and `from __future__ import annotations`.
_NOT_SHOWN = (ModuleType, type(__future__.annotations))


class View(ModuleType):
    """One of PyTorch's modules: the public names of the modules that answer for it.

    It is a package, as then `from torch import name` asks the finder for what is not here, and the
    finder's error says what that is.
    """

    _homes: list[ModuleType]

    def __init__(self, name: str, homes: list[ModuleType]) -> None:
        super().__init__(name, homes[0].__doc__)
        self.__path__: list[str] = []
        self._homes = homes

    def __getattr__(self, name: str) -> Any:
        if name == "__all__":
            return sorted(_names(self._homes))
        for home in self._homes:
            if name.startswith("_") and not _is_own(home) and not _is_private_class(home, name):
                continue
            found = getattr(home, name, self)
            if found is self or isinstance(found, _NOT_SHOWN):
                continue
            if home.__name__ in _OVERRIDABLE and _is_function(found):
                found = dispatch.function(found)
            if callable(found) or isinstance(found, dtypes.dtype):
                self.__dict__[name] = found  # anything else may be another at the next look
            return found
        below = f"{self.__name__}.{name}"
        if _homes_of(below):
            return import_module(below)
        raise MissingNameError(_lacking(below))

    def __dir__(self) -> list[str]:
        return sorted({*self.__dict__, *_names(self._homes), *_children(self.__name__)})


def _is_function(found: object) -> bool:
    """Whether it is one of the functions of tensors, which classes may override."""
    return isinstance(found, (FunctionType, ElementwiseFunction)) and not (
        found.__module__.startswith("mlgpu.autograd") or getattr(found, "__name__", "") in _NOBODYS)


def _is_own(home: ModuleType) -> bool:
    return home.__name__.startswith("mlgpu.as_torch.")


def _is_private_class(home: ModuleType, name: str) -> bool:
    """PyTorch's code derives from `_Loss` and the like: classes are found, however named."""
    return not name.startswith("__") and isinstance(getattr(home, name, None), type)


def _names(homes: Iterable[ModuleType]) -> set[str]:
    return {name for home in homes for name in dir(home) if not name.startswith("_")
            and not isinstance(home.__dict__.get(name), _NOT_SHOWN)}


def _children(package: str) -> set[str]:
    prefix = f"{package}."
    return {name.removeprefix(prefix) for name in MODULES
            if name.startswith(prefix) and "." not in name.removeprefix(prefix)
            and _homes_of(name)}


def _homes_of(fullname: str) -> list[str]:
    """The modules that answer for one of PyTorch's, those that this mlgpu has."""
    homes = MODULES.get(fullname, ())
    absolute = [f"mlgpu.as_torch{home}" if home.startswith(".") else home for home in homes]
    # A file here stands beside the module it completes: alone it answers for nothing.
    return absolute if all(find_spec(home) is not None for home in absolute) else []


def _lacking(fullname: str) -> str:
    """What the errors say: the name that is missing, and what mlgpu has near it."""
    package, _, name = fullname.rpartition(".")
    path = fullname.partition(".")[2]
    near = NEARBY.get(path) or NEARBY.get(name)
    if near is None and package in sys.modules:
        known = [other for other in dir(sys.modules[package]) if not other.startswith("_")]
        near = ", ".join(f"{package}.{other}"
                         for other in difflib.get_close_matches(name, known, 3, 0.75))
    return f"{fullname}: mlgpu does not have this{f'; nearby: {near}' if near else ''}"


class Finder(MetaPathFinder, Loader):
    """Answers for torch and everything below it, before any installed torch is looked for."""

    def find_spec(self, fullname: str, path: Sequence[str] | None,
                  target: ModuleType | None = None) -> ModuleSpec | None:
        """A spec for torch and its modules, None for others.

        Raises MissingModuleError for one of PyTorch's that mlgpu does not answer for.
        """
        if fullname.partition(".")[0] not in ROOTS:
            return None
        if not _homes_of(fullname):
            raise MissingModuleError(_lacking(fullname))
        return ModuleSpec(fullname, self, origin="mlgpu.as_torch", is_package=True)

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        """The view; importing what answers for it."""
        return View(spec.name, [import_module(home) for home in _homes_of(spec.name)])

    def exec_module(self, module: ModuleType) -> None:
        """Nothing, as a view has no code of its own; some are looked up in by `__dict__`."""
        if module.__name__ in _LOOKED_INTO:
            for name in dir(module):
                getattr(module, name)

    def find_distributions(self, context: Any = DistributionFinder.Context()  # noqa: B008
                           ) -> Iterable[Distribution]:
        """For `importlib.metadata.version("torch")`."""
        return [_Metadata()] if context.name == "torch" else []


class _Metadata(Distribution):
    """Which PyTorch's interface this is."""

    def read_text(self, filename: str) -> str | None:
        wanted = filename == "METADATA"
        return f"Metadata-Version: 2.1\nName: torch\nVersion: {VERSION}\n" if wanted else None

    def locate_file(self, path: Any) -> Any:
        raise MlgpuError(f"torch: answered by mlgpu, which has no file {path}")


def install() -> None:
    """Answer `import torch` in this process from now on; doing so twice is harmless.

    Raises MlgpuError where the real torch has been imported already.
    """
    if any(isinstance(finder, Finder) for finder in sys.meta_path):
        return
    if "torch" in sys.modules:
        raise MlgpuError("as_torch.install: torch has been imported already; call it first, or "
                         "run the program with python -m mlgpu.as_torch")
    data.install()
    devices.install()
    dispatch.install()
    processes.install()
    tensor.install()
    dtypes.library = "torch"
    sys.meta_path.insert(0, Finder())
