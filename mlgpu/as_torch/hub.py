"""torch.hub and torch.utils.model_zoo: weights from an address, read without running anything.

Repositories of code (`torch.hub.load`) are not fetched.
"""

from __future__ import annotations

import hashlib
import os
import re
from typing import Any
from urllib.parse import urlparse as urlparse
from urllib.request import Request, urlopen

from mlgpu.as_torch.serialization import load as _load
from mlgpu.errors import FormatError
from mlgpu.io.atomic import replace_file

HASH_REGEX = re.compile(r"-([a-f0-9]*)\.")
_dir: str | None = None


def get_dir() -> str:
    """Where downloads are kept: $TORCH_HOME/hub, by default ~/.cache/torch/hub."""
    if _dir is not None:
        return _dir
    cache = os.environ.get("XDG_CACHE_HOME", "~/.cache")
    return os.path.join(os.path.expanduser(os.environ.get("TORCH_HOME", f"{cache}/torch")), "hub")


def set_dir(d: str | os.PathLike[str]) -> None:
    """Keep downloads there."""
    global _dir
    _dir = os.path.expanduser(os.fspath(d))


def download_url_to_file(url: str, dst: str, hash_prefix: str | None = None,
                         progress: bool = True) -> None:
    """Fetch a file; its SHA-256 must begin with `hash_prefix`, else FormatError and no file."""
    found = hashlib.sha256()
    with urlopen(Request(url, headers={"User-Agent": "mlgpu"})) as source, \
            replace_file(dst) as target:
        while part := source.read(1 << 20):
            found.update(part)
            target.write(part)
        if hash_prefix and not found.hexdigest().startswith(hash_prefix):
            raise FormatError(f"download of {url}: expected a SHA-256 of {hash_prefix}..., got "
                              f"{found.hexdigest()}")


def load_state_dict_from_url(url: str, model_dir: str | None = None, map_location: Any = None,
                             progress: bool = True, check_hash: bool = False,
                             file_name: str | None = None, weights_only: bool = True) -> Any:
    """`torch.load` of a file fetched once and kept in `model_dir`."""
    folder = model_dir or os.path.join(get_dir(), "checkpoints")
    os.makedirs(folder, exist_ok=True)
    path = os.path.join(folder, file_name or os.path.basename(urlparse(url).path))
    if not os.path.exists(path):
        found = HASH_REGEX.search(os.path.basename(path)) if check_hash else None
        download_url_to_file(url, path, found.group(1) if found else None, progress)
    return _load(path, map_location)


load_url = load_state_dict_from_url
