"""What a kernel asks of the machine itself: to print, to trap, to fail an assertion."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from mlgpu.sim import memory, printf
from mlgpu.sim.group import Group

if TYPE_CHECKING:
    from mlgpu.sim.batch import Batch

Array = np.ndarray[Any, Any]


def trap(x: Batch, g: Group, number: int) -> tuple[()]:
    """The `trap` instruction ends the launch."""
    x.find("program", "trap", x.code.segments[number].where, "the kernel trapped", g,
              stop=True)
    return ()

def bad_call(x: Batch, g: Group, address: Array, number: int) -> tuple[()]:
    """An indirect call of something that is no function."""
    value = int(address.ravel()[0])
    x.find("memcheck", "out of bounds", x.code.segments[number].where,
              f"call of {value:#x}, where no function with this signature is", g, stop=True)
    return ()

def assert_fail(x: Batch, g: Group, message: Array, file: Array, line: Array, function: Array,
                number: int) -> tuple[()]:
    """`assert` failed."""
    texts = [x.launch.text(int(a.ravel()[0])) for a in (message, file, function)]
    said = (f"{texts[1]}:{int(line.ravel()[0])}: {texts[2]}: "
            f"Assertion `{texts[0]}` failed.")
    x.launch.show(said + "\n")
    x.find("program", "assert", x.code.segments[number].where, said, g, stop=True)
    return ()

def print_lines(x: Batch, g: Group, text: Array, values: Array) -> None:
    """`printf` of each thread, in order: the arguments lie in its local memory."""
    texts, places = (np.broadcast_to(a, g.shape).ravel().tolist() for a in (text, values))
    threads = np.broadcast_to(g.blk * x.shape.threads + g.tid, g.shape).ravel().tolist()
    for address, place, thread in zip(texts, places, threads, strict=True):
        raw = b""
        if memory.LOCAL_WINDOW <= place < memory.LOCAL_WINDOW + x.local_size:
            at = place - memory.LOCAL_WINDOW
            raw = x.local_views[1][thread, at:].tobytes()
        x.launch.show(printf.text(x.launch.text(address), raw, x.launch.text))
