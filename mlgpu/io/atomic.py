"""Replacing a file as a whole: whoever looks, at any moment, sees the old file or the new one."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import BinaryIO


@contextmanager
def replace_file(path: str | os.PathLike[str]) -> Iterator[BinaryIO]:
    """A file object whose content becomes `path` when the block ends without an error.

    It is written beside the target, flushed to the disk and renamed over it; then the rename
    itself is flushed.  On an error the target is untouched and the temporary file removed; a killed
    process can leave `<path>.<random>.tmp` behind, never a torn target.  A symbolic link stays a
    link, and an existing file keeps its permissions.
    """
    target = os.path.realpath(path)
    mode = _mode_of(target)
    temporary = f"{target}.{os.urandom(8).hex()}.tmp"
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)
    descriptor = os.open(temporary, flags, 0o666 if mode is None else mode)
    try:
        with open(descriptor, "wb") as file:
            if mode is not None:
                os.chmod(temporary, mode)  # os.open had the umask applied
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, target)
    except BaseException:
        with suppress(FileNotFoundError):
            os.unlink(temporary)
        raise
    _flush_directory(os.path.dirname(target))


def _mode_of(target: str) -> int | None:
    try:
        mode = os.stat(target).st_mode
    except FileNotFoundError:
        return None
    if not stat.S_ISREG(mode):
        # Renaming over a device or a pipe would silently turn it into a plain file.
        raise OSError(errno.EINVAL, "save: the target exists and is no regular file", target)
    return stat.S_IMODE(mode)


def _flush_directory(directory: str) -> None:
    if os.name == "nt":
        return  # Windows cannot open a directory; NTFS journals the rename
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
