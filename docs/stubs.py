"""Write the typed declarations of functions and methods from the functions themselves.

`python docs/stubs.py` rewrites mlgpu/functions.pyi and mlgpu/methods.pyi from the table in
mlgpu/api.py and the signatures it leads to; `--check` only says whether they are up to date.
Editors and mypy read them; at run time the table itself binds.
"""

from __future__ import annotations

import builtins
import inspect
import re
import sys
import textwrap
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any, get_overloads

from mlgpu import api

PACKAGE = Path(api.__file__).parent
WIDTH = 100

HEADER = "# {} Written by docs/stubs.py from mlgpu/api.py.\n\n"

# Python's operators take what arithmetic takes; their functions leave the rest to the operand.
BINARY = ["add", "and", "floordiv", "ge", "gt", "le", "lshift", "lt", "matmul", "mod", "mul", "or",
          "pow", "rshift", "sub", "truediv", "xor"]
OPERATORS = {**{f"__{name}__": "Tensor" for name in BINARY},
             **{f"__r{name}__": "Tensor" for name in BINARY},
             **{f"__i{name}__": "Self" for name in BINARY}}
# object declares these with other types; every library of arrays overrides them so.
EQUALITY = "    def {}(self, other: object) -> Tensor: ...  # type: ignore[override]\n"

# Methods of these names hide the builtins within the class.
HIDDEN = {"bool": "_bool", "float": "_float", "int": "_int", "type": "_type"}


class Imports:
    """The imports that the annotations met so far need: name -> (module, its name there)."""

    def __init__(self) -> None:
        self.known: dict[str, tuple[str, str]] = {
            **{shown: ("builtins", name) for name, shown in HIDDEN.items()},
            "Any": ("typing", "Any"), "overload": ("typing", "overload"),
            "Operand": ("mlgpu.ops.operand", "Operand"),
            "Self": ("typing_extensions", "Self"), "Tensor": ("mlgpu.tensor", "Tensor")}

    def annotation(self, text: Any, scope: dict[str, Any]) -> str:
        """An annotation as it stands in the stub; the names it uses become imports."""
        if text is inspect.Parameter.empty:
            return "Any"
        if not isinstance(text, str):  # evaluated already
            text = "None" if text is None else text.__name__
        return re.sub(r"(?<![\w.'\"])[A-Za-z_]\w*", lambda found: self._name(found[0], scope), text)

    def _name(self, name: str, scope: dict[str, Any]) -> str:
        if name == "None":
            return name
        if name not in scope:
            if not hasattr(builtins, name):
                raise NameError(f"{scope['__name__']}: unknown name {name!r} in an annotation")
            return HIDDEN.get(name, name)
        module, source = self.known.setdefault(name, _origin(name, scope))
        known = import_module(module)
        if (getattr(known, source) if source else known) != scope[name]:
            raise NameError(f"{scope['__name__']}: {name} means something else than in {module}")
        return name

    def text(self) -> str:
        """The import lines, sorted as ruff sorts them."""
        sections: list[list[str]] = [[], [], []]
        plain: dict[str, list[str]] = {}
        for name, (module, source) in self.known.items():
            section = sections[_section(module)]
            if not source:
                section.append(f"import {module} as {name}")
            elif source != name:
                section.append(f"from {module} import {source} as {name}")
            else:
                plain.setdefault(module, []).append(name)
        for module, names in plain.items():
            listed = ", ".join(sorted(names, key=str.lower))
            sections[_section(module)].append(f"from {module} import {listed}")
        return "\n\n".join("\n".join(sorted(section, key=lambda line: (line[0] == "f", line)))
                           for section in sections if section)


def _section(module: str) -> int:
    root = module.partition(".")[0]
    return 0 if root in sys.stdlib_module_names else 2 if root == "mlgpu" else 1


def _origin(name: str, scope: dict[str, Any]) -> tuple[str, str]:
    """Where a stub gets what a module knows under this name; "" for a module itself."""
    found = scope[name]
    if isinstance(found, ModuleType):
        return found.__name__, ""
    homes = [getattr(found, "__module__", ""), *sorted(m for m in sys.modules if m[:6] == "mlgpu.")]
    for home in homes:  # an alias does not know its module: that is the one that assigns it
        module = sys.modules.get(home)
        if getattr(module, name, None) is found and (
                home == homes[0] or re.search(f"^{name} = ", inspect.getsource(module), re.M)):
            return home, name
    raise NameError(f"{scope['__name__']}: nothing says where {name} comes from")


def declaration(name: str, parameters: list[str], returns: str) -> str:
    """One method, in as many lines as it needs."""
    line = f"    def {name}({', '.join(parameters)}) -> {returns}: ..."
    if len(line) <= WIDTH:
        return line + "\n"
    inner = textwrap.fill(", ".join(p.replace(" ", "\0") for p in parameters), WIDTH,
                          initial_indent=" " * 8, subsequent_indent=" " * 8)
    return f"    def {name}(\n{inner}\n    ) -> {returns}: ...\n".replace("\0", " ")


def method(imports: Imports, name: str, function: Any, *, returns: str = "") -> str:
    """The declaration of one method, or of each of its overloads."""
    function = inspect.unwrap(function)
    overloads = get_overloads(function)
    return "".join("    @overload\n" + _form(imports, name, form, returns) for form in overloads
                   ) or _form(imports, name, function, returns)


def _form(imports: Imports, name: str, function: Any, returns: str) -> str:
    """One form: the first parameter is self, defaults are elided."""
    scope = vars(sys.modules[function.__module__])
    signature = inspect.signature(function)
    parts, starred = ["self"], False
    for parameter in list(signature.parameters.values())[1:]:
        kind, shown = parameter.kind, parameter.name
        if kind is parameter.KEYWORD_ONLY and not starred:
            parts.append("*")
            starred = True
        if kind is parameter.VAR_POSITIONAL:
            starred = True
            shown = "*" + shown
        elif kind is parameter.VAR_KEYWORD:
            shown = "**" + shown
        default = "" if parameter.default is parameter.empty else " = ..."
        parts.append(f"{shown}: {imports.annotation(parameter.annotation, scope)}{default}")
    returns = returns or imports.annotation(signature.return_annotation, scope)
    return declaration(name, parts, returns)


def methods() -> str:
    """The text of methods.pyi."""
    imports, lines = Imports(), {}
    where = {name: (module, name) for module, names in api.METHODS.items()
             for name in names.split()}
    for name, (module, source) in {**where, **api.RENAMED}.items():
        if name in OPERATORS:
            other = "Tensor" if "matmul" in name else "Operand"
            lines[name] = declaration(name, ["self", f"other: {other}"], OPERATORS[name])
        elif name in ("__eq__", "__ne__"):
            lines[name] = EQUALITY.format(name)
        else:
            itself = name.endswith("_") and not name.startswith("__")
            lines[name] = method(imports, name, getattr(import_module(module), source),
                                 returns="Self" if itself else "")
    for module, names in api.INPLACE.items():
        for name in names.split():
            lines[f"{name}_"] = method(imports, f"{name}_", getattr(import_module(module), name),
                                       returns="Self")
    for name in [*api.CASTS, *" ".join(api.PROPERTIES.values()).split()]:
        lines[name] = declaration(name, ["self"], "Tensor")
        if name not in api.CASTS:
            lines[name] = "    @property\n" + lines[name]
    body = "".join(line for _, line in sorted(lines.items()))
    header = HEADER.format("Methods and attributes of Tensor.")
    return f"{header}{imports.text()}\n\nclass TensorMethods:\n{body}"


def functions() -> str:
    """The text of functions.pyi."""
    lines = []
    for module, names in sorted(api.FUNCTIONS.items()):
        for name in sorted(names.split(), key=_natural):
            line = f"from {module} import {name} as {name}\n"
            lines.append(line if len(line) <= WIDTH + 1 else
                         f"from {module} import (\n    {name} as {name},\n)\n")
    return HEADER.format("Functions of the package.") + "".join(lines)


def _natural(name: str) -> tuple[bool, list[str | int]]:
    """ruff's order of imported names: classes first, log2 before log10."""
    return name[0].islower(), [int(part) if part.isdigit() else part
                               for part in re.split(r"(\d+)", name)]


def main() -> int:
    """Write the stubs, or with `--check` name those that are out of date."""
    stale = []
    for name, text in (("functions.pyi", functions()), ("methods.pyi", methods())):
        path = PACKAGE / name
        if "--check" not in sys.argv:
            path.write_text(text)
        elif not path.exists() or path.read_text() != text:
            stale.append(name)
    if stale:
        print(f"out of date: {', '.join(stale)}; run python docs/stubs.py")
    return int(bool(stale))


if __name__ == "__main__":
    sys.exit(main())
