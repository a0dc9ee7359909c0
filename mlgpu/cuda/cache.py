"""What is slow to make and can be made again, kept on disk between processes.

The folder is the environment's `MLGPU_CACHE_DIR`, else `mlgpu` in the user's cache folder
(`~/.cache`, `$XDG_CACHE_HOME`, or `%LOCALAPPDATA%` on Windows).  `MLGPU_CACHE_DIR=""` switches the
cache off.  Entries are named by a hash of everything they were made from, so nothing has to be told
when something changes; an entry that nobody read for 90 days is removed.  Any number of processes
may use the folder at once: an entry appears whole or not at all.  A cache that cannot be read or
written costs time, never an error; an entry that is damaged counts as missing.

What others must read (an image that the CUDA driver loads) is a plain file named by its content.
Two processes that compile the same and get different bytes write two files, and each one's entry
names its own.
"""

from __future__ import annotations

import hashlib
import os
import secrets
import sys
import time
from contextlib import suppress
from pathlib import Path

_DAY = 86400.0
_KEPT = 90 * _DAY
_CHECK = 16  # bytes of an entry's checksum, which stands before its value


def folder() -> Path | None:
    """Where entries are kept; None where the cache is off."""
    chosen = os.environ.get("MLGPU_CACHE_DIR")
    if chosen is not None:
        return Path(chosen) if chosen else None
    base = os.environ.get("LOCALAPPDATA" if sys.platform == "win32" else "XDG_CACHE_HOME")
    if base:
        return Path(base) / "mlgpu"
    try:
        return Path.home() / ".cache" / "mlgpu"
    except RuntimeError:  # a user without a home
        return None


def key(kind: str, *parts: str | bytes) -> str:
    """The name of the entry of a kind ("ptx") that is made from these parts."""
    digest = hashlib.blake2b(digest_size=20)
    for part in parts:
        data = part.encode("utf-8", "surrogateescape") if isinstance(part, str) else part
        digest.update(len(data).to_bytes(8, "little"))  # ("ab", "c") is not ("a", "bc")
        digest.update(data)
    return f"{kind}/{digest.hexdigest()}"


def get(key: str, root: Path | None = None) -> bytes | None:
    """The entry's value, or None where it is missing or damaged; `root` is another folder."""
    root = root or folder()
    if root is None or not key:
        return None
    data = _read(_path(root, key))
    if data is None or data[:_CHECK] != _checksum(key, data[_CHECK:]):
        return None
    return data[_CHECK:]


def put(key: str, value: bytes, root: Path | None = None) -> None:
    """Keep a value; quietly nothing where the folder cannot be written, or without a key."""
    root = root or folder()
    if root is not None and key:
        _write(root, _path(root, key), _checksum(key, value) + value)


def put_file(root: Path, data: bytes, suffix: str) -> Path | None:
    """A file with this content; None where the folder cannot be written."""
    path = _path(root, _content(data)).with_suffix(suffix)
    return path if whole_file(path) or _write(root, path, data) else None


def whole_file(path: Path) -> bool:
    """Whether a file of `put_file` is there, and as it was written."""
    data = _read(path)
    return data is not None and _path(path.parents[2], _content(data)) == path.with_suffix("")


def _content(data: bytes) -> str:
    return f"files/{hashlib.blake2b(data, digest_size=20).hexdigest()}"


def _path(root: Path, key: str) -> Path:
    kind, _, name = key.partition("/")
    return root / kind / name[:2] / name[2:]


def _read(path: Path) -> bytes | None:
    try:
        data = path.read_bytes()
        age = time.time() - path.stat().st_mtime
    except OSError:
        return None
    if age > _DAY:
        with suppress(OSError):  # of someone else's folder
            os.utime(path)  # still in use
    return data


def _write(root: Path, path: Path, data: bytes) -> bool:
    temporary = path.with_name(f"{secrets.token_hex(8)}.tmp")
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        try:
            temporary.write_bytes(data)
            os.replace(temporary, path)
        except OSError:
            temporary.unlink(missing_ok=True)
            raise
    except OSError:  # no space, read-only, or on Windows a reader holds the old entry
        return False
    if root == folder():  # others are not ours to clear
        with suppress(OSError):
            _prune(root)
    return True


def _checksum(key: str, value: bytes) -> bytes:
    return hashlib.blake2b(value, digest_size=_CHECK, key=key.encode()).digest()


def _prune(root: Path) -> None:
    """Once a day, remove what nobody read for long and what killed processes left behind."""
    marker, now = root / "pruned", time.time()
    with suppress(FileNotFoundError):
        if now - marker.stat().st_mtime < _DAY:
            return
    marker.touch()
    # Numba keeps the machine code of loops beside their sources.
    for path in (*root.glob("*/??/*"), *root.glob("*/??/__pycache__/*")):
        with suppress(OSError):  # another process may have been faster
            if now - path.stat().st_mtime > (_DAY if path.suffix == ".tmp" else _KEPT):
                path.unlink()
