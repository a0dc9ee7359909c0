"""Data sets of the Hugging Face hub, from the Parquet files that it makes of each: plain HTTPS.

The hub lists its files with their sizes and SHA-256, which are held to.  The list is kept beside
the files; while it is there, the hub is not asked again.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Sequence
from http.client import HTTPException
from pathlib import Path
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.parse import quote, urlsplit

from mlgpu.data.arrays import PathLike
from mlgpu.data.datasets.download import ask, obtain, reason
from mlgpu.data.tables import ParquetDataset
from mlgpu.errors import FormatError, MissingDataError
from mlgpu.io.atomic import replace_file
from mlgpu.io.lock import alone

__all__ = ["from_hub"]

_BRANCH = "refs/convert/parquet"


def from_hub(repo: str, split: str = "train", *, root: PathLike = "~/.cache/mlgpu/hub",
             config: str | None = None, columns: Sequence[str] | None = None,
             revision: str = _BRANCH, download: bool = True,
             token: str | None = None) -> ParquetDataset:
    """A split of a data set "owner/name" as ParquetDataset: rows as dicts by column.

    config: which of the set's configurations; needed where there are several and none is called
    "default".  revision: a commit of the branch of Parquet files, to stay with it.  The files lie
    in `<root>/<owner>/<name>/<config>/<split>`; delete them for a newer version.  token (default:
    $HF_TOKEN): for sets that ask who reads them.  $HF_ENDPOINT: another server than huggingface.co.
    Images in rows are dicts with "bytes": `decode_image` reads them.  Needs `mlgpu[data]`
    (pyarrow).

    Raises MissingDataError where the hub cannot be reached or has no such set, ValueError for a
    config or split that it has not, with those it has.
    """
    if not re.fullmatch(r"[\w.-]+(/[\w.-]+)?", repo) or ".." in repo:
        raise ValueError(f'from_hub: expected "owner/name", got {repo!r}')
    hub = _Hub(repo, revision, token if token is not None else os.environ.get("HF_TOKEN"))
    top = Path(root).expanduser() / repo
    if config is None:
        config = _only_config(top) or (_choose(hub) if download else "default")
    folder = top / config / split
    listing = folder / "files.json"
    if not listing.exists():
        if not download:
            raise MissingDataError(f"from_hub: {listing} is not there; download=True fetches it")
        with alone(folder), replace_file(listing) as file:
            file.write(json.dumps(hub.files(config, split), indent=1).encode())
    files = json.loads(listing.read_text(encoding="utf-8"))
    return ParquetDataset([
        obtain("from_hub", folder / entry["path"].rpartition("/")[2], hub.address(entry["path"]),
               download=download, size=entry["size"], token=hub.token,
               checksum=entry["sha256"] and f"sha256:{entry['sha256']}")
        for entry in files], columns)


def _only_config(top: Path) -> str | None:
    """The configuration that was fetched before, if it is one."""
    known = {path.parent.parent.name for path in top.glob("*/*/files.json")}
    return known.pop() if len(known) == 1 else None


def _choose(hub: _Hub) -> str:
    names = hub.folders("")
    if len(names) == 1 or "default" in names:
        return "default" if "default" in names else names[0]
    raise ValueError(f"from_hub: {hub.repo} has the configurations {names}; choose one by config=")


class _Hub:
    """What the hub says of one repository."""

    def __init__(self, repo: str, revision: str, token: str | None) -> None:
        self.repo, self.token = repo, token
        self.server = os.environ.get("HF_ENDPOINT", "https://huggingface.co").rstrip("/")
        self.revision = quote(revision, safe="")

    def address(self, path: str) -> str:
        """Where a file lies."""
        return f"{self.server}/datasets/{self.repo}/resolve/{self.revision}/{quote(path)}"

    def folders(self, path: str) -> list[str]:
        """The names of the folders in a folder."""
        return sorted(entry["path"].rpartition("/")[2] for entry in self._entries(path)
                      if entry["type"] == "directory")

    def files(self, config: str, split: str) -> list[dict[str, Any]]:
        """Path, size and SHA-256 of the files of a split, in their order."""
        for path, name, what in (("", config, "configurations"), (config, split, "splits")):
            if name not in (known := self.folders(path)):
                raise ValueError(f"from_hub: {self.repo} has the {what} {known}, and no {name!r}")
        found = [{"path": entry["path"], "size": large.get("size", entry["size"]),
                  "sha256": large.get("oid")}
                 for entry in self._entries(f"{config}/{split}")
                 if entry["type"] == "file" and entry["path"].endswith(".parquet")
                 for large in [entry.get("lfs") or {}]]
        if not found:
            raise FormatError(f"from_hub: {self.repo} has no Parquet files in {config}/{split}")
        for entry in found:  # what becomes the name of a file here
            if not re.fullmatch(r"[\w.-]+", entry["path"].rpartition("/")[2]):
                raise FormatError(f"from_hub: {self.repo} has a file {entry['path']!r}, which is "
                                  "no plain name")
        return sorted(found, key=lambda entry: str(entry["path"]))

    def _entries(self, path: str) -> Iterator[dict[str, Any]]:
        """The entries of a folder, which the server lists a page at a time."""
        url: str | None = (f"{self.server}/api/datasets/{self.repo}/tree/{self.revision}"
                           + (f"/{quote(path)}" if path else ""))
        while url is not None:
            try:
                with ask(url, {}, self.token) as answer:
                    page = json.loads(answer.read())
                    more = re.search(r'<([^>]+)>;\s*rel="next"', answer.headers.get("Link") or "")
                if not all(isinstance(entry["path"], str) for entry in page):
                    raise TypeError("an entry without a path")
            except (URLError, HTTPException, ConnectionError, TimeoutError) as error:
                if isinstance(error, HTTPError):
                    error.close()
                raise MissingDataError(
                    f"from_hub: {url} cannot be read ({reason(error)}); is the name right, is "
                    "there a connection, and does the set ask for a token?") from None
            except (ValueError, TypeError, KeyError) as error:
                raise FormatError(f"from_hub: {url} gave no list of files: {error}") from None
            yield from page
            # At this server, which has the token: mirrors name the hub that they stand for.
            url = more and urlsplit(more[1])._replace(scheme="", netloc="").geturl()
            url = url and self.server + url
