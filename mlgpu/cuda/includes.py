"""Which of the user's files a CUDA source includes, without a preprocessor.

Told too many rather than too few: conditions are ignored, and every file that an `#include` may
mean counts.  CUDA's own headers are not looked for.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

# The word comes first, which is found fast; whether it is a directive, the text before it says.
_INCLUDE = re.compile(rb'include[ \t]*(\(?)[ \t]*(?:"([^"\n]+)"|<([^>\n]+)>|(\S))')
_DIRECTIVE = re.compile(rb"[ \t]*#[ \t]*")


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
        for name in _names(text):
            if not name:
                return None
            names.append(name)
        for name in names:
            for place in (folder, beside, *folders):
                path = place / name.decode("utf-8", "surrogateescape")
                if path not in found and path.is_file():
                    found[path] = path.read_bytes()
                    waiting.append((path.parent, [], found[path]))
    return found


def _names(text: bytes) -> Iterator[bytes]:
    """What a text includes or asks for with __has_include; empty where a macro says what."""
    for found in _INCLUDE.finditer(text):
        before = text[text.rfind(b"\n", 0, found.start()) + 1:found.start()]
        if _DIRECTIVE.fullmatch(before) or (before.endswith(b"__has_") and found[1]):
            yield found[2] or found[3] or b""
