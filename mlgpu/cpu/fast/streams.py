"""Rows written to memory past the caches, and rows asked for before they are read.

A store that misses the cache first reads the line that it is about to overwrite, and pushes out
one that may be wanted: for large results a third to a half of an operation's traffic.  A row is
made in a buffer that stays in the first level and sent from there, whole lines at a time.

The processor itself asks for lines that follow those read, but only within a page, which a row may
well fill: each row would then begin with a wait for memory.
"""

from __future__ import annotations

import platform
from typing import Any

from llvmlite import binding, ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

__all__ = ["LINE", "ask", "fence", "prefetch", "send", "sends"]

LINE = 64  # bytes of a cache line

# Bytes of a result from which it is sent: most of it would not stay in cache for its reader.
_ENOUGH = 8 << 20

# Where that pays: layer norm is faster by it on AMD's Zen 4, and slower by a quarter on Intel's
# Cascade Lake, whose cores have few places for lines that are on their way.
_PAYS = binding.get_host_cpu_name().startswith("znver")

_X86 = platform.machine().lower() in ("x86_64", "amd64", "i386", "i686")


def sends(rows: Any) -> bool:
    """Whether a result (rows, n) is to be sent, and may be: its rows are whole lines."""
    return bool(_PAYS and rows.dtype.itemsize >= 4 and rows.nbytes >= _ENOUGH and
                rows.shape[1] * rows.dtype.itemsize % LINE == 0 and
                rows.ctypes.data % LINE == 0)


def _place(context: Any, builder: Any, kind: Any, array: Any, index: Any) -> Any:
    """The address of an element of a contiguous array."""
    data = context.make_array(kind)(context, builder, array).data
    return builder.gep(data, [index])


@intrinsic  # type: ignore[untyped-decorator]
def send(typing: Any, out: Any, source: Any, index: Any) -> Any:
    """out[index:index + a line's] = source[...] past the caches; out + index begins a line.

    Another thread may read it after this one has called `fence`.
    """
    def code(context: Any, builder: Any, signature: Any, given: Any) -> Any:
        element = context.get_data_type(out.dtype)
        lanes = LINE // (out.dtype.bitwidth // 8)
        line = ir.VectorType(element, lanes).as_pointer()
        to, origin = (builder.bitcast(_place(context, builder, kind, array, given[2]), line)
                      for kind, array in ((out, given[0]), (source, given[1])))
        store = builder.store(builder.load(origin, align=out.dtype.bitwidth // 8), to, align=LINE)
        mark = builder.module.add_metadata([ir.Constant(ir.IntType(32), 1)])
        store.set_metadata("nontemporal", mark)
        return context.get_dummy_value()

    return types.void(out, source, types.intp), code


def prefetch(builder: Any, place: Any, level: int, to_write: bool = False) -> None:
    """Code that asks for the line at an address: 2, into the second level; 3, into the first."""
    byte, number = ir.IntType(8).as_pointer(), ir.IntType(32)
    kind = ir.FunctionType(ir.VoidType(), [byte, *[number] * 3])
    function = cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0")
    data = 1
    builder.call(function, [builder.bitcast(place, byte),
                            *[number(v) for v in (int(to_write), level, data)]])


@intrinsic  # type: ignore[untyped-decorator]
def ask(typing: Any, array: Any, index: Any) -> Any:
    """Let the line of array[index], which will soon be read, come into the second level."""
    def code(context: Any, builder: Any, signature: Any, given: Any) -> Any:
        prefetch(builder, _place(context, builder, array, given[0], given[1]), level=2)
        return context.get_dummy_value()

    return types.void(array, types.intp), code


@intrinsic  # type: ignore[untyped-decorator]
def fence(typing: Any) -> Any:
    """What this thread has sent is seen by others before what it writes from here on."""
    def code(context: Any, builder: Any, signature: Any, given: Any) -> Any:
        if _X86:  # the one architecture where such stores do not keep their order
            kind = ir.FunctionType(ir.VoidType(), [])
            builder.call(cgutils.get_or_insert_function(
                builder.module, kind, "llvm.x86.sse.sfence"), [])
        else:
            builder.fence("seq_cst")
        return context.get_dummy_value()

    return types.void(), code
