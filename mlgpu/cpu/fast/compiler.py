"""How loops are compiled: the one place that calls Numba's compiler."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numba
from numba.core import compiler, lowering, typed_passes
from numba.core.compiler_machinery import PassManager, register_pass

# Sums may be taken in lanes and products contracted; NaN, infinities and signed zeros stay.
_REORDERED = {"reassoc", "contract"}
_AS_WRITTEN = {"contract"}


class _Lower(lowering.Lower):  # type: ignore[misc]
    """Numba's lowering; the function's vectors are to be as wide as the machine has them.

    LLVM takes half of that on Intel's servers, lest their clock slows down: with the whole,
    exponentials take up to a third less time.
    """

    def setup_function(self, fndesc: Any) -> None:
        super().setup_function(fndesc)
        # llvmlite has no word for attributes with a value, and writes those of the set as they are.
        set.add(self.function.attributes, '"prefer-vector-width"="512"')


@register_pass(mutates_CFG=True, analysis_only=False)
class _Lowering(typed_passes.NativeLowering):  # type: ignore[misc]
    _name = "mlgpu_lowering"

    @property
    def lowering_class(self) -> type[_Lower]:
        return _Lower


class _Compiler(compiler.CompilerBase):  # type: ignore[misc]
    def define_pipelines(self) -> list[PassManager]:
        manager = compiler.DefaultPassBuilder.define_nopython_pipeline(self.state)
        manager.passes = [(_Lowering if step is typed_passes.NativeLowering else step, why)
                          for step, why in manager.passes]
        manager.finalize()
        return [manager]


def _shared() -> str:
    """What loops of any file are made with: files that Numba does not look at."""
    digest = hashlib.blake2b(digest_size=16)
    for name in ("blas.py", "compiler.py", "maths.py", "recurrent.py", "rows.py", "streams.py",
                 "tile.py", "vectors.py"):
        digest.update(Path(__file__).with_name(name).read_bytes())
    digest.update(Path(__file__).parent.with_name("special.py").read_bytes())  # coefficients
    return digest.hexdigest()


SHARED = _shared()
_COMMON: dict[str, Any] = {"error_model": "numpy", "pipeline_class": _Compiler}


def compiled(function: Callable[..., Any], *, as_written: bool = False,
             stamp: str | None = None, on_disk: bool = True) -> Callable[..., Any]:
    """A loop over arrays, compiled for each set of dtypes at its first call, without the GIL.

    `as_written` keeps sums in their order.  Machine code on disk serves until the loop's file
    changes, or `stamp`, if given.
    """
    options: dict[str, Any] = {"nogil": True, "fastmath": _AS_WRITTEN if as_written else _REORDERED}
    loop: Any = numba.njit(**options, **_COMMON)(function)
    if on_disk:
        with suppress(RuntimeError):  # nowhere to write: compiled anew in each process
            loop.enable_caching()
            index = loop._cache._cache_file
            index._source_stamp = (stamp or index._source_stamp, SHARED)
    return loop  # type: ignore[no-any-return]


def inlined(function: Callable[..., Any]) -> Callable[..., Any]:
    """A function of numbers for use in compiled loops."""
    small: Callable[..., Any] = numba.njit(fastmath=_REORDERED, **_COMMON)(function)
    return small


def exact(function: Callable[..., Any]) -> Callable[..., Any]:
    """As `inlined`, but every operation is done as written: what gains digits by its order."""
    small: Callable[..., Any] = numba.njit(
        forceinline=True, fastmath=_AS_WRITTEN, **_COMMON)(function)
    return small
