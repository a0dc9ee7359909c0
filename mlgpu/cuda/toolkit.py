"""Where parts of CUDA lie on this machine: NVRTC, the headers that fit it, and ptxas.

Wheels from PyPI come first, in the layout of CUDA 12 (`nvidia/cuda_nvrtc`, `nvidia/cuda_runtime`)
and of CUDA 13 (`nvidia/cu13`), then toolkits: `$CUDA_PATH`, `$CUDA_HOME`, `/usr/local/cuda*` and a
conda environment.  NVRTC works only with headers of its own major version, so of several NVRTCs the
newest is taken that has them, and, for machine code, whose major version the driver has as well.
`MLGPU_NVRTC`, the path of a libnvrtc, overrides the choice.
"""

from __future__ import annotations

import functools
import os
import re
import shutil
import sys
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from mlgpu.errors import MissingExtraError

_LIBRARIES = ("libnvrtc.so.*", "libnvrtc.so", "nvrtc64_*.dll")
_INSTALL = "pip install 'mlgpu[sim]'"


@dataclass(frozen=True)
class Headers:
    """Folders that together hold one CUDA version's headers, in the order to search them."""

    version: tuple[int, int]
    folders: tuple[Path, ...]


@dataclass(frozen=True)
class Nvrtc:
    """A library of NVRTC and the header folders that go with it (none where none fit)."""

    path: Path
    version: tuple[int, int]
    headers: tuple[Path, ...]


def nvrtc(most: int | None = None) -> Nvrtc:
    """The NVRTC to compile with, of a major version up to `most` where there is one.

    MissingExtraError where there is none at all.
    """
    return _nvrtc(os.environ.get("MLGPU_NVRTC", ""), most)


@functools.cache
def _nvrtc(chosen: str, most: int | None) -> Nvrtc:
    headers = all_headers()
    if chosen:
        path = Path(chosen)
        if not path.is_file():
            raise MissingExtraError(f"NVRTC: MLGPU_NVRTC names no file: {chosen}")
        version = version_of(path)
        return Nvrtc(path, version, fitting(headers, version))
    found = []
    for path in _libraries():
        with suppress(MissingExtraError):  # built for another machine, or half installed
            version = version_of(path)
            found.append(Nvrtc(path, version, fitting(headers, version)))
    if not found:
        raise MissingExtraError(f"NVRTC, CUDA's run-time compiler, is not installed; {_INSTALL} "
                                "(Linux), or set MLGPU_NVRTC to the path of a libnvrtc")
    return max(found, key=lambda nvrtc: (
        bool(nvrtc.headers), most is None or nvrtc.version[0] <= most, nvrtc.version))


def ptxas() -> list[Path]:
    """Every ptxas there is, those to prefer first."""
    names = [folder / "bin" for folder in _wheel_folders()]
    names += [root / "bin" for root in _toolkits()]
    on_path = shutil.which("ptxas")
    name = "ptxas.exe" if sys.platform == "win32" else "ptxas"
    found = [folder / name for folder in names if (folder / name).is_file()]
    return [*found, *([Path(on_path)] if on_path else [])]


def fitting(headers: list[Headers], version: tuple[int, int]) -> tuple[Path, ...]:
    """The header folders of NVRTC's major version: those of its very version first.

    Then older ones, newest first, then newer ones, which may use what this NVRTC does not know.
    Folders of several sets are chained: one may have what another lacks, as crt/mma.h.
    """
    usable = [h for h in headers if h.version[0] == version[0]]
    older = sorted((h for h in usable if h.version <= version), key=lambda h: h.version,
                   reverse=True)
    newer = sorted((h for h in usable if h.version > version), key=lambda h: h.version)
    return tuple(dict.fromkeys(f for h in [*older, *newer] for f in h.folders))


def all_headers() -> list[Headers]:
    """Every set of CUDA headers on this machine, those to prefer first."""
    places = _nvidia()
    # The wheels of CUDA 12 have a folder each; those of 13 share one.
    sets = [[place / name / "include" for name in
             ("cuda_runtime", "cuda_cccl", "cuda_crt", "cuda_nvcc") for place in places]]
    sets += [_with_cccl(place) for root in places for place in sorted(root.glob("cu[0-9]*"))]
    sets += [_with_cccl(root) for root in _toolkits()]
    found = []
    for folders in sets:
        there = tuple(f for f in folders if f.is_dir())
        version = next((v for v in map(_cuda_version, there) if v), None)
        if version:
            found.append(Headers(version, there))
    return found


def version_of(library: Path) -> tuple[int, int]:
    """The version that a libnvrtc says it has.  MissingExtraError where it cannot be loaded."""
    import ctypes

    major, minor = ctypes.c_int(), ctypes.c_int()
    try:
        ctypes.CDLL(str(library)).nvrtcVersion(ctypes.byref(major), ctypes.byref(minor))
    except (OSError, AttributeError) as error:
        raise MissingExtraError(f"NVRTC: {library} cannot be used: {error}") from None
    return major.value, minor.value


def _nvidia() -> list[Path]:
    """The folders that NVIDIA's wheels install into, without importing anything."""
    return [place for place in (Path(entry, "nvidia") for entry in sys.path) if place.is_dir()]


def _wheel_folders() -> list[Path]:
    """The folders of single wheels, the newest CUDA first."""
    return [folder for place in _nvidia()
            for folder in [*sorted(place.glob("cu[0-9]*"), reverse=True),
                           *sorted(place.glob("cuda_*"))]]


def _toolkits() -> list[Path]:
    roots = [Path(os.environ[name]) for name in ("CUDA_PATH", "CUDA_HOME") if os.environ.get(name)]
    roots += [Path("/usr/local/cuda"), *sorted(Path("/usr/local").glob("cuda-*"), reverse=True)]
    roots += sorted(Path(sys.prefix).glob("targets/*"))  # conda
    there = {root.resolve(): root for root in reversed(roots) if root.is_dir()}
    return list(reversed(there.values()))  # each once, under the name that came first


def _libraries() -> Iterator[Path]:
    """Candidates for NVRTC, each once."""
    seen = set()
    for folder in [*_wheel_folders(), *_toolkits()]:
        for place in ("lib", "lib64", "bin", "bin/x86_64"):
            for pattern in _LIBRARIES:
                for path in sorted((folder / place).glob(pattern)):
                    real = path.resolve()
                    if ".alt." not in path.name and real not in seen:
                        seen.add(real)
                        yield path


def _with_cccl(root: Path) -> list[Path]:
    # The C++ core libraries of CUDA 13 lie one folder deeper.
    return [root / "include", root / "include" / "cccl"]


def _cuda_version(folder: Path) -> tuple[int, int] | None:
    try:
        with open(folder / "cuda.h", encoding="utf-8", errors="replace") as file:
            for line in file:
                found = re.match(r"#define\s+CUDA_VERSION\s+(\d+)", line)
                if found:
                    number = int(found.group(1))
                    return number // 1000, number % 1000 // 10
    except OSError:
        pass
    return None
