"""Which of the user's files a CUDA source includes, without a preprocessor.

Told too many rather than too few: conditions are ignored, and every file that an `#include` may
mean counts.  CUDA's own headers are not looked for.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

_INCLUDE = re.compile(
    rb'(?:^[ \t]*#[ \t]*include|__has_include[ \t]*\()[ \t]*(?:"([^"\n]+)"|<([^>\n]+)>|(\S))',
    re.MULTILINE)


def closure(source: bytes, beside: Path, folders: Sequence[Path],
            first: Sequence[str] = ()) -> dict[Path, bytes] | None:
    """Path and content of each file that a source includes, directly or not.

    `beside` is the folder of the source, `folders` are searched besides it, `first` are names
    included before the first line.  None where an `#include` names a macro: anything may be meant.
    """
    found: dict[Path, bytes] = {}
    names = [name.encode() for name in first]
    waiting = [(beside, names, source)]
    while waiting:
        folder, names, text = waiting.pop()
        for quoted, angled, computed in _INCLUDE.findall(text):
            if computed:
                return None
            names.append(quoted or angled)
        for name in names:
            for place in (folder, beside, *folders):
                path = place / name.decode("utf-8", "surrogateescape")
                if path not in found and path.is_file():
                    found[path] = path.read_bytes()
                    waiting.append((path.parent, [], found[path]))
    return found
