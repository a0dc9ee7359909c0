"""Memory of the backward pass: what is saved, recomputed, or kept elsewhere.

`auto` holds training to a number of bytes by itself; `checkpoint` and `checkpoint_sequential`
recompute the parts of a model that you name, as torch.utils.checkpoint does; `offload` keeps saved
values in host memory meanwhile.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from mlgpu import memory
from mlgpu.autograd.checkpoint import checkpoint, checkpoint_sequential
from mlgpu.autograd.mode import mode, observe
from mlgpu.autograd.offload import offload, save_on_cpu
from mlgpu.autograd.rematerialize import Rematerializer
from mlgpu.device import Device, resolve

__all__ = ["auto", "checkpoint", "checkpoint_sequential", "offload", "save_on_cpu"]


@contextmanager
def auto(budget: int | str, device: Device | str | None = None) -> Iterator[Rematerializer]:
    """Within it, live memory of a device stays below `budget`: saved values give way.

    budget: bytes or text such as "2 GiB", for all that is alive on the device (default: the
    current one), parameters and optimizer state included.  When a block is asked for that would
    exceed it, values saved for backward are dropped, and computed again when backward asks for
    them: by the same operations from the same inputs, random numbers included, so that losses and
    gradients are the same bit by bit.  Below the budget nothing is computed twice.

    Put the whole training step within it.  What was not computed within it, leaves, and results of
    in-place operations stay.  Yields an object whose `evictions` and `evicted_bytes` count.

    Raises OutOfMemoryError where nothing is left that can give way; GraphError in backward where a
    value is needed again whose inputs were changed in place meanwhile.
    """
    device = resolve(device)
    books = memory.account(device)
    manager = Rematerializer(books, device, memory.parse_bytes(budget))
    before, mode.rematerializer = mode.rematerializer, manager
    books.reliefs = (*books.reliefs, manager.relieve)
    observe(1)
    memory.watch(1)
    try:
        yield manager
    finally:
        memory.watch(-1)
        observe(-1)
        books.reliefs = tuple(r for r in books.reliefs if r != manager.relieve)
        mode.rematerializer = before
