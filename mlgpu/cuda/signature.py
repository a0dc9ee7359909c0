"""What a kernel takes, read from its source: the one place where that is written.

`launch` checks every argument against the declaration, since CuPy checks nothing: not their number,
not their types, not their layout, not their device.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from mlgpu.cuda.types import NUMPY
from mlgpu.errors import KernelError

if TYPE_CHECKING:
    from pathlib import Path


@dataclass(frozen=True)
class Parameter:
    """One parameter: a pointer to numbers, a number, or a struct."""

    name: str
    pointer: bool
    dtype: Any  # NumPy's; None for a struct, or a pointer to one
    type: str  # as written, with the template's arguments put in
    written: bool  # whether the kernel may write what it points to


def parameters(source: str, expression: str) -> tuple[Parameter, ...]:
    """The parameters of the kernel that a name expression such as "scale<float, 4>" means.

    Raises KernelError where the source declares no such kernel or a parameter cannot be read.
    """
    name, arguments = split_expression(expression)
    declared = _declared(source, name)
    if declared is None:
        raise KernelError(f"{expression}: the source declares no kernel {name}(...)")
    template, given = declared
    known = _bound(expression, template, arguments)
    listed = [part.strip() for part in _split(given)]
    return tuple(_parameter(expression, part, known) for part in listed if part)


def split_expression(expression: str) -> tuple[str, list[str]]:
    """A name and its template arguments."""
    name, opening, rest = expression.partition("<")
    if not opening:
        return name.strip(), []
    return name.strip(), [part.strip() for part in _split(rest.rstrip()[:-1])]


def _bound(expression: str, template: str | None, arguments: list[str]) -> dict[str, str]:
    """Template parameters and what they are in this instance; defaults where none is given."""
    known: dict[str, str] = {}
    for position, declared in enumerate(_split(template or "")):
        head, _, default = declared.partition("=")
        name = head.split()[-1]
        if position < len(arguments):
            known[name] = arguments[position]
        elif default:
            known[name] = default.strip()
        else:
            raise KernelError(f"{expression}: the template wants an argument for {name}")
    return known


def _parameter(expression: str, text: str, known: dict[str, str]) -> Parameter:
    words = re.sub(r"\b(?:const|volatile|__restrict__|__grid_constant__|struct)\b", " ", text)
    found = re.fullmatch(r"\s*(.+?)\s*(\**)\s*(\w+)\s*(?:\[\s*\])?\s*", words.replace(" *", "*"))
    if found is None:
        raise KernelError(f"{expression}: cannot read the parameter {text!r}")
    kind = " ".join(found[1].split())
    written = bool(found[2]) and "const" not in text.partition("*")[0].split()
    for name, value in known.items():
        kind = re.sub(rf"\b{name}\b", value, kind)
    stars = found[2]
    if len(stars) > 1:
        return Parameter(found[3], True, NUMPY["long long"], kind, written)  # addresses
    return Parameter(found[3], bool(stars), NUMPY.get(kind), kind, written)


def _split(text: str) -> list[str]:
    """Parts between the commas that are in no bracket."""
    parts, depth, start = [], 0, 0
    for place, letter in enumerate(text):
        depth += (letter in "<([{") - (letter in ">)]}")
        if letter == "," and depth == 0:
            parts.append(text[start:place])
            start = place + 1
    if text[start:].strip():
        parts.append(text[start:])
    return parts


@lru_cache(maxsize=1024)  # a kernel has many instances, and its family many lines
def _declared(source: str, name: str) -> tuple[str | None, str] | None:
    """The template parameters (None: there are none) and the parameters of a kernel, as written."""
    pattern = (r"(?:template\s*<(?P<template>[^{};]*?)>\s*)?(?:extern\s*\"C\"\s*)?(?:static\s+)?"
               r"__global__\s+(?:void\s+)?(?:__launch_bounds__\s*\((?:[^()]|\([^()]*\))*\)\s*)?"
               r"(?:void\s+)?(?:__launch_bounds__\s*\((?:[^()]|\([^()]*\))*\)\s*)?"
               + re.escape(name) + r"\s*\((?P<list>[^{;]*?)\)\s*[{;]")
    found = re.search(pattern, _without_comments(source))
    return (found["template"], found["list"]) if found is not None else None


@lru_cache(maxsize=64)
def _without_comments(source: str) -> str:
    return re.sub(r"//[^\n]*|/\*.*?\*/", " ", source, flags=re.DOTALL)


@lru_cache(maxsize=64)
def with_includes(path: Path) -> str:
    """A source with the headers of its folder that it includes, each once."""
    seen: set[Path] = set()

    def read(file: Path) -> str:
        if file in seen or not file.is_file():
            return ""
        seen.add(file)
        text = file.read_text()
        inner = "".join(read(file.parent / name)
                        for name in re.findall(r'^\s*#include\s+"([^"]+)"', text, re.MULTILINE))
        return inner + text

    return read(path)
