"""Choosing parameters by patterns of their names: freezing them, and groups for an optimizer."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any

from mlgpu.errors import MlgpuError
from mlgpu.nn.module import Module
from mlgpu.nn.parameter import Parameter


def matching(function: str, patterns: Sequence[str], names: Iterable[str], what: str
             ) -> dict[str, str]:
    """The names that a pattern matches, in their order, with the first pattern that does.

    Patterns are those of a shell: `*` stands for anything, dots included.  Raises MlgpuError,
    naming it, where a pattern matches nothing.
    """
    if isinstance(patterns, str):
        raise TypeError(f"{function}: expected patterns, got one string; put it in a list")
    names = list(names)
    found = {name: first for name in names
             if (first := next((p for p in patterns if fnmatchcase(name, p)), None)) is not None}
    for pattern in patterns:
        if not any(fnmatchcase(name, pattern) for name in names):
            some = ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")
            raise MlgpuError(f"{function}: no {what} matches {pattern!r}; there are {some}")
    return found


def freeze(model: Module, *patterns: str) -> list[str]:
    """Let the parameters whose names match need no gradient; without patterns, all of them.

    `freeze(model, "encoder.*", "*.bias")`.  Returns the names.  Raises MlgpuError where a pattern
    matches none.
    """
    return _set(model, patterns, False, "freeze")


def unfreeze(model: Module, *patterns: str) -> list[str]:
    """Let the parameters whose names match be trained; without patterns, all of them.

    Returns the names.  Raises MlgpuError where a pattern matches none.
    """
    return _set(model, patterns, True, "unfreeze")


def _set(model: Module, patterns: tuple[str, ...], requires_grad: bool, function: str) -> list[str]:
    # Tied parameters have several names, and any of them is meant.
    parameters = dict(model.named_parameters(remove_duplicate=False))
    names = list(matching(function, patterns or ("*",), parameters, "parameter"))
    for name in names:
        parameters[name].requires_grad_(requires_grad)
    return names


def param_groups(model: Module, settings: Mapping[str, Mapping[str, Any]]
                 ) -> list[dict[str, Any]]:
    """Groups for an optimizer: parameters by the first pattern that their names match.

    `param_groups(model, {"*.bias": {"weight_decay": 0.0}, "head.*": {"lr": 1e-3}})` gives a group
    for each pattern with its settings, and one of what remains, with the optimizer's own.
    Parameters that need no gradient are left out, and so are groups without parameters.  Raises
    MlgpuError where a pattern matches no parameter at all.
    """
    every = dict(model.named_parameters())
    found = matching("param_groups", list(settings), every, "parameter")
    grouped: dict[str | None, list[tuple[str, Parameter]]] = {p: [] for p in [*settings, None]}
    for name, parameter in every.items():
        if parameter.requires_grad:
            grouped[found.get(name)].append((name, parameter))
    return [{"params": members, **(settings[pattern] if pattern is not None else {})}
            for pattern, members in grouped.items() if members]
