"""Batches brought to a device before they are asked for."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from typing import Any

from mlgpu.data.collate import move
from mlgpu.device import CPU, DeviceLike, resolve

__all__ = ["Prefetcher"]


class Prefetcher:
    """The batches of a loader on a device, `ahead` of them copied while the program computes.

    Tensors anywhere in a batch (tuples, lists, dicts) are copied through page-locked memory on a
    stream of their own; whoever uses one waits for its copy.  On the CPU batches pass through.
    """

    def __init__(self, loader: Iterable[Any], device: DeviceLike, ahead: int = 2) -> None:
        if ahead < 1:
            raise ValueError(f"Prefetcher: ahead must be at least 1, got {ahead}")
        self.loader, self.device, self.ahead = loader, resolve(device), ahead

    def __len__(self) -> int:
        return len(self.loader)  # type: ignore[arg-type]

    def __iter__(self) -> Iterator[Any]:
        if self.device is CPU:
            yield from self.loader
            return
        waiting: deque[Any] = deque()
        for batch in self.loader:
            waiting.append(self._sent(batch))
            if len(waiting) > self.ahead:
                yield waiting.popleft()
        yield from waiting

    def _sent(self, batch: Any) -> Any:
        from mlgpu.cuda.streams import beside

        with beside(self.device):
            return move(batch, self.device)
