"""Unpacking archives: all of one or nothing, and nothing outside of its folder."""

from __future__ import annotations

import gzip
import lzma
import os
import shutil
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import IO

from mlgpu.errors import FormatError
from mlgpu.io.atomic import replace_file

__all__ = ["gunzip", "unpack"]

_DAMAGED = (tarfile.TarError, zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError,
            gzip.BadGzipFile)
_PIECE = 1 << 20


def gunzip(path: Path, target: Path) -> None:
    """Write what a .gz file holds to `target`.  FormatError for a damaged one, and no target."""
    try:
        with gzip.open(path, "rb") as source, replace_file(target) as file:
            shutil.copyfileobj(source, file, _PIECE)
    except _DAMAGED as error:
        raise FormatError(f"{path} is no .gz file that can be read: {error}") from None


def unpack(path: Path, folder: Path, inside: str = "") -> None:
    """Unpack a tar (compressed or not) or zip to `folder`, which must not be there yet.

    Only what lies in the archive's folder `inside`, if one is named, which becomes `folder`.
    FormatError for a damaged archive, or one that has links, devices or names that lead out of it,
    and then nothing is left behind.
    """
    temporary = folder.with_name(f"{folder.name}.{os.urandom(8).hex()}.tmp")
    temporary.mkdir(parents=True)
    try:
        for name, content in _members(path):
            inner = _within(path, name, inside)
            if inner is None:
                continue
            target = temporary / inner
            target.parent.mkdir(parents=True, exist_ok=True)
            with content, open(target, "xb") as file:
                shutil.copyfileobj(content, file, _PIECE)
        if not any(temporary.iterdir()):
            raise FormatError(f"{path} holds nothing{f' in {inside}' if inside else ''}")
        os.rename(temporary, folder)
    except _DAMAGED as error:
        raise FormatError(f"{path} is no archive that can be read: {error}") from None
    except FileExistsError as error:
        raise FormatError(f"{path} holds {error.filename!r} twice") from None
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _members(path: Path) -> Iterator[tuple[str, IO[bytes]]]:
    """The names and contents of an archive's files, in its order."""
    if not tarfile.is_tarfile(path):  # asked first: at its end a tar may look like a zip
        with zipfile.ZipFile(path) as zipped:
            for info in zipped.infolist():
                if not info.is_dir():
                    yield info.filename, zipped.open(info)
        return
    with tarfile.open(path) as tar:
        for member in tar:
            if member.isdir():
                continue
            content = tar.extractfile(member) if member.isfile() else None
            if content is None:
                raise FormatError(f"{path} holds {member.name!r}, which is a link or a device; "
                                  "nothing was unpacked")
            yield member.name, content


def _within(path: Path, name: str, inside: str) -> PurePosixPath | None:
    """Where a member lies in the folder `inside`; None where it does not."""
    inner = PurePosixPath(name)
    # What Windows reads as a drive or a separator has no place in a data set either.
    if inner.is_absolute() or ".." in inner.parts or any(c in name for c in "\\:\0"):
        raise FormatError(f"{path} holds {name!r}, which would lie outside of its folder; nothing "
                          "was unpacked")
    return inner.relative_to(inside) if inner.is_relative_to(inside) else None
