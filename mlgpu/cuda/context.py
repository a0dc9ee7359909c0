"""What is current in this thread: CuPy's device, and a stream for each device.

The default stream is None here, on every device.  A stream becomes current through
`mlgpu.cuda.stream`, which tells CuPy as well.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mlgpu.cuda.streams import Stream


class Context(threading.local):
    """This thread's current streams, by device, and the graph it captures."""

    def __init__(self) -> None:
        self.streams: dict[int, Stream] = {}
        self.capture: Any = None  # a graph being recorded (graphs.py)


context = Context()
