"""Files from the network: whole and checked or not at all, going on where a transfer broke off.

What has come so far lies beside the target as `<name>.part`, and beside that in `<name>.part.tag`
what the server calls this version of the file: only of the same version the rest is asked for.
"""

from __future__ import annotations

import hashlib
import os
import re
import ssl
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from http.client import HTTPException
from importlib import import_module
from pathlib import Path
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

from mlgpu.errors import FormatError, MissingDataError
from mlgpu.io.lock import alone

__all__ = ["obtain"]

_BROKEN = (URLError, HTTPException, ConnectionError, TimeoutError, ssl.SSLError)
_TRIES = 3  # of each address
_PIECE = 1 << 20


class _Broken(Exception):
    """A transfer that did not bring the whole file."""


def obtain(name: str, wanted: Path, urls: str | Sequence[str], *, download: bool,
           checksum: str | None = None, size: int | None = None,
           unpack: Callable[[Path, Path], None] | None = None, token: str | None = None) -> Path:
    """The file or folder `wanted` of the data set `name`, fetched or unpacked if it is not there.

    `urls`: the same file at one or several addresses, tried in turn.  With `unpack(archive,
    wanted)` it is an archive, which is looked for beside `wanted`, under the name that it has in
    the first address; one that was fetched is removed afterwards.  checksum: "md5:..." or
    "sha256:...", size: in bytes, where they are known.  One process fetches, others wait for it.

    Raises MissingDataError where it is not there and `download` is false, or cannot be fetched, and
    FormatError for a file with another checksum or size.
    """
    if wanted.exists():
        return wanted
    addresses = [urls] if isinstance(urls, str) else list(urls)
    archive = wanted if unpack is None else wanted.parent / addresses[0].rpartition("/")[2]
    if not download and not archive.exists():
        raise MissingDataError(
            f"{name}: {wanted} is not there; download=True fetches it, or put {addresses[0]} "
            f"there as {archive}")
    with alone(wanted.parent):
        if wanted.exists():  # another process was faster
            return wanted
        fetched = not archive.exists()
        if fetched:
            _fetch(name, archive, addresses, checksum, size, token)
        elif unpack is not None:
            _check(name, archive, archive, checksum, size)
        if unpack is not None:
            unpack(archive, wanted)
            if fetched:
                archive.unlink()
    return wanted


def ask(url: str, headers: dict[str, str], token: str | None, timeout: float = 30.0) -> Any:
    """The open answer of a server.  The token goes to that server, not where it redirects to."""
    if not url.startswith(("https://", "http://")):
        raise ValueError(f"download: an address of https:// or http:// is expected, got {url!r}")
    request = Request(url, headers={"User-Agent": "mlgpu", **headers})
    if token is not None:
        request.add_unredirected_header("Authorization", f"Bearer {token}")
    return urlopen(request, timeout=timeout)


def reason(error: Exception) -> str:
    """What was wrong, in words for a message."""
    cause = error.reason if isinstance(error, URLError) else error
    return str(error if isinstance(error, HTTPError) else cause) or type(cause).__name__


def _fetch(name: str, target: Path, addresses: Sequence[str], checksum: str | None,
           size: int | None, token: str | None) -> None:
    """Fetch `target` from the first address that gives it whole."""
    part = target.with_name(f"{target.name}.part")
    reasons = []
    wrong: FormatError | None = None
    for address in addresses:
        for _ in range(_TRIES):
            try:
                resumed = _transfer(address, part, token)
                _check(name, part, target, checksum, size)
            except (_Broken, *_BROKEN) as error:
                reasons.append(f"{address}: {reason(error)}")
                if isinstance(error, HTTPError) and 400 <= error.code < 500 and error.code != 429:
                    break  # it would say so again
            except FormatError as error:
                wrong = error
                _forget(part)
                if not resumed:
                    break
            else:
                os.replace(part, target)
                _forget(part)
                return
    if wrong is not None:
        raise wrong
    raise MissingDataError(
        f"{name}: {target.name} could not be fetched ({'; '.join(dict.fromkeys(reasons))}); what "
        f"came is kept, a later try goes on from there. Or fetch {addresses[0]} elsewhere and put "
        f"it there as {target}")


def _transfer(address: str, part: Path, token: str | None) -> bool:
    """Bring `part` to its full length; whether it was begun before.  _Broken if it is not."""
    have, tag = _kept(part)
    headers = {"Accept-Encoding": "identity"}
    if have:
        headers |= {"Range": f"bytes={have}-", "If-Range": tag}
    try:
        answer = ask(address, headers, token)
    except HTTPError as error:
        error.close()
        if error.code != 416:
            raise
        if error.headers.get("Content-Range") == f"bytes */{have}":
            return True  # all of it had come
        _forget(part)
        raise _Broken("what had come is no part of what is there now") from None
    with answer:
        going_on: bool = answer.status == 206
        if going_on:
            found = re.fullmatch(r"bytes (\d+)-\d+/(\d+)", answer.headers.get("Content-Range", ""))
            if found is None or int(found[1]) != have:
                _forget(part)
                raise _Broken("it gave another part than was asked for")
            total = int(found[2])
        else:
            have, total = 0, int(answer.headers.get("Content-Length") or -1)
            _forget(part)
            _tag(part).write_text(_version(answer.headers), encoding="latin1")
        with open(part, "ab") as file, _progress(part.stem, have, total) as tell:
            while piece := answer.read1(_PIECE):
                file.write(piece)
                tell(len(piece))
                have += len(piece)
            file.flush()
            os.fsync(file.fileno())
    if total not in (-1, have):
        raise _Broken(f"it ended after {have} of {total} bytes")
    return going_on


def _version(headers: Any) -> str:
    """What a server calls this version of a file: something that `If-Range` takes, or nothing."""
    tag = headers.get("ETag") or ""
    if tag and not tag.startswith("W/"):
        return str(tag)
    return str(headers.get("Last-Modified") or "")


def _kept(part: Path) -> tuple[int, str]:
    """How many bytes have come before, and of which version; none where that is not known."""
    try:
        tag = _tag(part).read_text(encoding="latin1")
        return (part.stat().st_size, tag) if tag else (0, "")
    except FileNotFoundError:
        return 0, ""


def _tag(part: Path) -> Path:
    return part.with_name(f"{part.name}.tag")


def _forget(part: Path) -> None:
    part.unlink(missing_ok=True)
    _tag(part).unlink(missing_ok=True)


def _check(name: str, path: Path, target: Path, checksum: str | None, size: int | None) -> None:
    if size is not None and path.stat().st_size != size:
        raise FormatError(f"{name}: {target} should have {size} bytes, and has "
                          f"{path.stat().st_size}; it is another file, or was damaged")
    if checksum is None:
        return
    kind, _, expected = checksum.partition(":")
    digest = hashlib.new(kind, usedforsecurity=False)
    with open(path, "rb") as file:
        while piece := file.read(_PIECE):
            digest.update(piece)
    if digest.hexdigest() != expected:
        raise FormatError(f"{name}: {target} should have the {kind} {expected}, and has "
                          f"{digest.hexdigest()}; it is another file, or was damaged")


@contextmanager
def _progress(name: str, have: int, total: int) -> Iterator[Callable[[int], object]]:
    """What to tell of bytes that came: tqdm's bar, where that is installed and someone looks."""
    try:
        tqdm = import_module("tqdm").tqdm
    except ModuleNotFoundError:
        yield lambda count: None
        return
    with tqdm(desc=name, initial=have, total=None if total < 0 else total, unit="B",
              unit_scale=True, disable=None) as bar:
        yield bar.update
