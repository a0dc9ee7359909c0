"""CUDA source to an image that a device loads, kept in a cache that many processes share.

An image is found by everything it was made from, so nothing has to be told when something changes.
It is looked for in a folder of images that were built ahead of time (`MLGPU_KERNELS_DIR`, else
`built` beside the kernels' sources), which needs no compiler, and in the cache (see cache.py);
otherwise NVRTC makes it.  Several processes that need the same image at once each make it, and all
get a whole one.
"""

from __future__ import annotations

import atexit
import functools
import json
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from mlgpu.cuda import cache, includes, instances, nvrtc, toolkit
from mlgpu.cuda.sources import kernels_dir
from mlgpu.errors import KernelError, MissingExtraError

# Of mlgpu's own kernels: numbers as on the CPU.  Kernels that want fast math name it in the source.
OPTIONS = ("--std=c++17", "--ftz=false", "--prec-div=true", "--prec-sqrt=true", "--fmad=true")
_FORMAT = "2"  # of what the cache holds; a new one forgets all older entries
# CUDA's headers of the half types take longer to read than most kernels to compile, so they are
# left out where nothing names such a type but what is only there with them.
_HALF = re.compile(rb"half|bfloat16|fp16")
_ASIDE = re.compile(rb"//[^\n]*|/\*.*?\*/|#ifndef ML_NO_HALF\n.*?\n#endif", re.DOTALL)


@dataclass(frozen=True)
class Image:
    """Machine code ("cubin") or PTX in a file."""

    path: Path
    lowered: dict[str, str]  # name expression -> the symbol's name in the image
    log: str  # the compiler's warnings


def compile(source: str, arch: str, names: Sequence[str] = (), options: Sequence[str] = (),
            kind: str = "cubin", filename: str = "kernel.cu") -> Image:
    """The image of one of mlgpu's own sources for a target such as "sm_90".

    `names` are name expressions such as "kernel<float>", which instantiate templates.  `options`
    are NVRTC's, besides those that hold always.  `filename` is what messages and line information
    (which PTX has) call the source.  What a process asks again is not looked for again, changed
    headers or not.  KernelError with the compiler's log where there is no image,
    MissingExtraError where there is no compiler either.
    """
    asked = (source, arch, tuple(names), tuple(options), kind, filename,
             *map(os.environ.get, _ENVIRONMENT))
    found = _remembered(*asked)
    if not found.path.is_file():  # removed since
        _remembered.cache_clear()
        found = _remembered(*asked)
    return found


def build(source: str, arch: str, folder: Path, names: Sequence[str] = (),
          options: Sequence[str] = (), kind: str = "cubin", filename: str = "kernel.cu") -> Image:
    """Make the image that `compile` finds in a folder of images, where it will need no compiler."""
    wanted = _wanted(source, names, options, kind, filename)
    key = wanted.key(target(arch, kind))
    return _kept(folder, key) or wanted.compile(toolkit.nvrtc(), arch, folder, key)


def _wanted(source: str, names: Sequence[str], options: Sequence[str], kind: str,
            filename: str) -> _Wanted:
    lines = ["-lineinfo"] if kind == "ptx" else []
    # A header that happens to lie in the current folder is none of ours.
    wanted = _Wanted(source, names, [*OPTIONS, *lines, *options], kind, filename, kernels_dir())
    if not wanted.has_half():
        wanted.options.append("-DML_NO_HALF")
    return wanted


_ENVIRONMENT = ("MLGPU_CACHE_DIR", "MLGPU_KERNELS_DIR", "MLGPU_NVRTC")


@functools.lru_cache(maxsize=4096)
def _remembered(source: str, arch: str, names: tuple[str, ...], options: tuple[str, ...], kind: str,
                filename: str, *environment: str | None) -> Image:
    wanted = _wanted(source, names, options, kind, filename)
    instances.note(wanted.place, source, names, options)
    built = built_dir()
    found = _kept(built, wanted.key(target(arch, kind)))
    if found is not None:
        return found
    try:
        compiler = toolkit.nvrtc(_driver() if kind == "cubin" else None)
    except MissingExtraError as missing:
        for other in compatible(arch, kind) if built else ():
            found = _kept(built, wanted.key(other))
            if found is not None:
                return found
        raise MissingExtraError(f"{filename}: no image of {', '.join(names) or 'it'} for {arch} "
                                f"was built ahead of time; {missing}") from None
    return _cached(wanted, arch, compiler)


def _driver() -> int | None:
    """The major version of CUDA up to which this machine's driver takes machine code, if known."""
    cupy = sys.modules.get("cupy")  # loaded by whoever is going to launch
    return cupy.cuda.runtime.driverGetVersion() // 1000 or None if cupy is not None else None


def image(source: str, arch: str, names: Sequence[str], options: Sequence[str], kind: str,
          filename: str) -> Image:
    """As `compile` for anyone's source: with no options but those given, always looked for again.

    A relative filename is of the current folder, as for any compiler.
    """
    wanted = _Wanted(source, names, options, kind, filename, Path.cwd())
    if wanted.place.parent == kernels_dir():
        instances.note(wanted.place, source, names, ())
    return _cached(wanted, arch, toolkit.nvrtc())


def _cached(wanted: _Wanted, arch: str, compiler: toolkit.Nvrtc) -> Image:
    key = wanted.key(target(arch, wanted.kind), _identity(compiler))
    root = cache.folder() if key else None
    return _kept(root, key) or wanted.compile(compiler, arch, root, key)


class _Wanted:
    """A source with all that its images are made from, but for the target and the compiler."""

    def __init__(self, source: str, names: Sequence[str], options: Sequence[str], kind: str,
                 filename: str, beside: Path) -> None:
        if kind not in nvrtc.IMAGES:
            raise KernelError(f"compile: kind={kind!r}; it is 'cubin' or 'ptx'")
        if "\0" in source:
            raise KernelError(f"{filename}: the source has a NUL character")
        self.names, self.kind, self.filename = names, kind, filename
        self.text = source.encode("utf-8", "surrogateescape")
        self.place = beside / filename
        self.options, self.folders, first = _split(options)
        self.files = includes.closure(self.text, self.place.parent,
                                      [*self.folders, kernels_dir()], first)

    def has_half(self) -> bool:
        """Whether a half type may be used: a source, a name or an option tells of one."""
        given = " ".join((*self.names, *self.options)).encode("utf-8", "surrogateescape")
        return self.files is None or any(map(_names_half, (given, self.text,
                                                           *self.files.values())))

    def key(self, target: str, *compiler: str) -> str:
        """The name of the entry; "" where headers are not known, so that there is none."""
        if self.files is None:
            return ""
        parts = [part for path, text in sorted(self.files.items()) for part in (_named(path), text)]
        return cache.key("kernels", _FORMAT, self.kind, target, *compiler, "", *self.options, "",
                         *map(_named, self.folders), "", *self.names, "", self.filename,
                         _named(self.place), self.text, *parts)

    def compile(self, compiler: toolkit.Nvrtc, arch: str, root: Path | None, key: str) -> Image:
        folders = (*self.folders, kernels_dir(), *compiler.headers)
        command = [f"--gpu-architecture={target(arch, self.kind)}", *self.options,
                   *(f"-I{folder}" for folder in folders)]
        data, lowered, log = nvrtc.compile(compiler, self.text, command, self.names, self.kind,
                                           self.filename, str(self.place))
        path = cache.put_file(root, data, f".{self.kind}") if root else None
        if path is None:  # the cache is off or cannot be written
            path = cache.put_file(temporary(os.getpid()), data, f".{self.kind}")
        elif root:
            entry = {"image": path.relative_to(root).as_posix(), "lowered": lowered, "log": log}
            cache.put(key, json.dumps(entry).encode(), root)
        if path is None:
            raise KernelError(f"{self.filename}: no place to write the image to: the cache "
                              "(MLGPU_CACHE_DIR) and the folder for temporary files are full or "
                              "read-only")
        return Image(path, lowered, log)


def built_dir() -> Path | None:
    """The folder with images built ahead of time; None where there is none."""
    chosen = os.environ.get("MLGPU_KERNELS_DIR")
    folder = Path(chosen) if chosen else kernels_dir() / "built"
    if folder.is_dir():
        return folder
    if chosen:
        raise KernelError(f"kernels: MLGPU_KERNELS_DIR names no folder: {chosen}")
    return None


def _kept(root: Path | None, key: str) -> Image | None:
    """The image of an entry of a folder, or None where there is none that is whole."""
    kept = cache.get(key, root) if root else None
    if root is None or kept is None:
        return None
    entry = json.loads(kept)
    path = root / entry["image"]
    return Image(path, entry["lowered"], entry["log"]) if cache.whole_file(path) else None


def parse(arch: str) -> tuple[int, int, str]:
    """ "sm_90a" or "compute_90a" as (9, 0, "a").  KernelError where it is neither."""
    found = re.fullmatch(r"(?:sm|compute)_(\d+)(\d)([af]?)", arch)
    if found is None:
        raise KernelError(f"arch: {arch!r} is no target such as 'sm_90' or 'sm_90a'")
    return int(found[1]), int(found[2]), found[3]


def target(arch: str, kind: str) -> str:
    """The target as NVRTC wants it: machine code is for "sm_90", PTX for "compute_90"."""
    major, minor, suffix = parse(arch)
    return f"{'compute' if kind == 'ptx' else 'sm'}_{major}{minor}{suffix}"


def compatible(arch: str, kind: str) -> Iterator[str]:
    """Older targets whose images run on this one, the newest first.

    Machine code runs on later minor versions of its major one, PTX on everything later.
    """
    major, minor, _ = parse(arch)
    for older in range(major, 4 if kind == "ptx" else major - 1, -1):
        for least in range(minor if older == major else 9, -1, -1):
            yield target(f"sm_{older}{least}", kind)


@functools.lru_cache(maxsize=256)
def _names_half(text: bytes) -> bool:
    return _HALF.search(_ASIDE.sub(b"", text)) is not None


def _named(path: Path) -> str:
    """A path as keys have it: of mlgpu's kernels the same on every machine."""
    kernels = kernels_dir()
    return f"kernels/{path.relative_to(kernels)}" if path.is_relative_to(kernels) else str(path)


def _identity(found: toolkit.Nvrtc) -> str:
    """What tells this compiler and its headers from others: paths, and when they were installed."""
    stats = [path.stat() for path in (found.path, *found.headers)]
    return repr((found, [(s.st_size, s.st_mtime_ns) for s in stats]))


def _split(options: Sequence[str]) -> tuple[list[str], list[Path], list[str]]:
    """The options without include folders; the folders, absolute; the headers included first."""
    given, folders, first = [], [], []
    for name, value in _pairs(options):
        if name in ("-arch", "--gpu-architecture"):
            raise KernelError(f"option {name}: the device's arch decides; leave it out")
        if name in ("-I", "--include-path"):
            folders.append(Path(value).absolute())
        else:
            given.append(f"{name}={value}" if value else name)
            if name in ("-include", "--pre-include"):
                first.append(value)
    return given, folders, first


def _pairs(options: Iterable[str]) -> Iterator[tuple[str, str]]:
    """Option and value, for the options that this module must know; others whole.

    The compiler takes a value with "=", after a space, as the next option, and after -I directly.
    """
    waiting = list(options)[::-1]
    while waiting:
        option = waiting.pop().strip()
        known = re.match(r"(-I|--include-path|-include|--pre-include|-arch|--gpu-architecture)"
                         r"(?:(?<=-I)(?=[^=\s])|[=\s]\s*|$)(.*)", option, re.DOTALL)
        if known is None:
            yield option, ""
        elif known.group(2) or not waiting:
            yield known.group(1), known.group(2)
        else:
            yield known.group(1), waiting.pop()


@functools.cache
def temporary(process: int) -> Path:
    """A folder of this process (a forked one has its own), removed when it ends."""
    folder = Path(tempfile.mkdtemp(prefix="mlgpu-"))

    def remove() -> None:
        if os.getpid() == process:
            shutil.rmtree(folder, ignore_errors=True)

    atexit.register(remove)
    return folder
