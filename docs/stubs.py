"""Write the typed declarations of functions and methods from the functions themselves.

`python docs/stubs.py` rewrites mlgpu/functions.pyi and mlgpu/methods.pyi from the table in
mlgpu/api.py and the signatures it leads to; `--check` only says whether they are up to date.
Editors and mypy read them; at run time the table itself binds.
"""

from __future__ import annotations

import inspect
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

from mlgpu import api

PACKAGE = Path(api.__file__).parent

METHODS_HEADER = '''"""Methods and attributes of Tensor.  Written by docs/stubs.py from mlgpu/api.py."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from mlgpu.device import Device
from mlgpu.dtypes import dtype as DType
from mlgpu.random import Generator
from mlgpu.tensor import Tensor

class TensorMethods:
'''


def annotation(text: Any) -> str:
    """An annotation as it may stand in the stub: names the stub does not import become Any."""
    if text is inspect.Parameter.empty:
        return "Any"
    text = text if isinstance(text, str) else getattr(text, "__name__", "Any")
    known = {"Tensor", "Any", "Sequence", "Callable", "Iterator", "Device", "DType", "Generator",
             "int", "float", "bool", "str", "complex", "None", "tuple", "list", "dict", "object"}
    words = "".join(c if c.isalnum() or c == "_" else " " for c in text).split()
    return text if all(w in known or w.isdigit() for w in words) else "Any"


def parameters(signature: inspect.Signature) -> str:
    """The parameter list of a method: the first is self, defaults are elided."""
    parts, starred = ["self"], False
    for parameter in list(signature.parameters.values())[1:]:
        kind, name = parameter.kind, parameter.name
        if kind is parameter.KEYWORD_ONLY and not starred:
            parts.append("*")
            starred = True
        if kind is parameter.VAR_POSITIONAL:
            starred = True
            name = "*" + name
        elif kind is parameter.VAR_KEYWORD:
            name = "**" + name
        default = "" if parameter.default is parameter.empty else " = ..."
        parts.append(f"{name}: {annotation(parameter.annotation)}{default}")
    return ", ".join(parts)


def method(name: str, function: Any) -> str:
    signature = inspect.signature(function)
    returns = annotation(signature.return_annotation)
    # object declares these two with other types; every library of arrays overrides them so.
    note = "  # type: ignore[override]" if name in ("__eq__", "__ne__") else ""
    return f"    def {name}({parameters(signature)}) -> {returns}: ...{note}\n"


def methods() -> str:
    """The text of methods.pyi."""
    where = {name: (module, name) for module, names in api.METHODS.items()
             for name in names.split()}
    where.update(api.RENAMED)
    lines = [method(name, getattr(import_module(module), function))
             for name, (module, function) in sorted(where.items())]
    lines += [f"    def {name}(self) -> Tensor: ...\n" for name in sorted(api.CASTS)]
    for names in api.PROPERTIES.values():
        lines += [f"    @property\n    def {name}(self) -> Tensor: ...\n" for name in names.split()]
    return METHODS_HEADER + "".join(lines)


def functions() -> str:
    """The text of functions.pyi."""
    lines = ['"""Functions of the package.  Written by docs/stubs.py from mlgpu/api.py."""\n\n']
    for module, names in sorted(api.FUNCTIONS.items()):
        lines += [f"from {module} import {name} as {name}\n" for name in sorted(names.split())]
    return "".join(lines)


def main() -> int:
    stale = []
    for name, text in (("functions.pyi", functions()), ("methods.pyi", methods())):
        path = PACKAGE / name
        if "--check" in sys.argv:
            if not path.exists() or path.read_text() != text:
                stale.append(name)
        else:
            path.write_text(text)
    if stale:
        print(f"out of date: {', '.join(stale)}; run python docs/stubs.py")
    return int(bool(stale))


if __name__ == "__main__":
    sys.exit(main())
