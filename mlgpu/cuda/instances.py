"""Which instances of kernels a program uses: what to build ahead of time, what tests compile.

Kernels are templates, and which instance an operation needs is decided from shapes, dtypes and
alignment when it runs.  So nobody lists them by hand: with `MLGPU_KERNELS_USED=FILE` a process
appends a line to the file for each kernel that it needs, and `mlgpu kernels build --used FILE`
builds those.  A line is the stem of a file in kernels/ and a name expression,

    softmax softmax_rows<float, 4, 2, 32, false>

or, for a kernel that was generated, a JSON object with its source.  Behind " @" may stand how it is
launched: threads of a block, and bytes of shared memory besides those that it declares.

Without `--used` the commands take kernels/instances.txt, which tests/kernels/collect.py makes: what
the op table and usual layers of models need.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from mlgpu.cuda.sources import kernels_dir
from mlgpu.errors import FormatError

VARIABLE = "MLGPU_KERNELS_USED"


@dataclass(frozen=True)
class Instance:
    """What `compile` needs of one kernel, for any target."""

    filename: str
    names: tuple[str, ...]
    options: tuple[str, ...] = ()
    source: str | None = None  # of a kernel that was generated; others are read from their file
    threads: int = 0  # of a block, where that is known
    shared: int = 0  # bytes that a launch asks for, besides those that the kernel declares

    @property
    def text(self) -> str:
        if self.source is not None:
            return self.source
        return (kernels_dir() / self.filename).read_text(encoding="utf-8")

    def __str__(self) -> str:
        return " ".join([Path(self.filename).stem, *self.names])


def note(place: Path, source: str, names: Sequence[str], options: Sequence[str]) -> None:
    """Append a kernel to the file that the environment names, if it does."""
    chosen = os.environ.get(VARIABLE)
    if not chosen:
        return
    if place.parent == kernels_dir() and place.is_file() and not options:
        lines = [f"{place.stem} {name}" for name in names] or [place.stem]
    else:
        lines = [json.dumps({"filename": place.name, "names": [*names], "options": [*options],
                             "source": source})]
    with open(chosen, "a", encoding="utf-8") as file:  # a line in one write: processes may share it
        file.write("".join(f"{line}\n" for line in lines))


def shipped() -> Path:
    """The list of what mlgpu's operations use."""
    return kernels_dir() / "instances.txt"


def read(path: Path) -> list[Instance]:
    """The kernels of a list, each once, sorted.  FormatError where a line cannot be read."""
    found = set()
    with open(path, encoding="utf-8") as file:
        for number, line in enumerate(file, 1):
            if line.strip() and not line.startswith("#"):
                found.add(_parse(line.strip(), f"{path}:{number}"))
    return sorted(found, key=lambda i: (i.filename, i.names, i.options, i.source or ""))


def _parse(line: str, where: str) -> Instance:
    if not line.startswith("{"):
        line, _, launch = line.partition(" @")
        stem, _, name = line.partition(" ")
        numbers = re.fullmatch(r"(\d+) (\d+)", launch) if launch else None
        if launch and numbers is None:
            raise FormatError(f"{where}: behind @ two numbers are needed, threads and bytes")
        if not (kernels_dir() / f"{stem}.cu").is_file():
            raise FormatError(f"{where}: there is no kernels/{stem}.cu")
        return Instance(f"{stem}.cu", (name.strip(),) if name else (), (), None,
                        *(map(int, numbers.groups()) if numbers else ()))
    try:
        entry = json.loads(line)
        instance = Instance(entry["filename"], tuple(entry["names"]), tuple(entry["options"]),
                            entry["source"])
    except (ValueError, KeyError, TypeError) as error:
        raise FormatError(f"{where}: not a kernel as {VARIABLE} writes it: {error}") from None
    if not all(isinstance(part, str) for part in
               (instance.filename, instance.source, *instance.names, *instance.options)):
        raise FormatError(f"{where}: not a kernel as {VARIABLE} writes it: text is needed")
    return instance


def chosen(used: str | None, families: Iterable[str] = ()) -> list[Instance]:
    """The kernels of a list, or of mlgpu's own; only those of some files where any are named."""
    path = Path(used) if used else shipped()
    wanted = set(families)
    found = [i for i in read(path) if not wanted or Path(i.filename).stem in wanted]
    missing = wanted - {Path(i.filename).stem for i in found}
    if missing:
        raise FormatError(f"{path}: lists no kernel of {', '.join(sorted(missing))}")
    return found
