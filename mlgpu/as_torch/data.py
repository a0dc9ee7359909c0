"""`Tensor.data` as PyTorch has it: a change made through it does not count as one.

mlgpu's own `.data` is `detach()`: whatever is written through it is noticed by a backward pass that
still needs the old values.  Programs for PyTorch rely on the opposite (torchdiffeq fills a buffer
step by step in the knowledge that what was saved of it stays as it is), and so `install()` gives
Tensor this property.
"""

from __future__ import annotations

from mlgpu.storage import Storage
from mlgpu.tensor import Tensor


class DataStorage(Storage):
    """The memory of another storage, with a count of changes of its own."""

    __slots__ = ("_root",)

    def __init__(self, root: Storage) -> None:
        self._root = root
        self.device, self.claimed, self.inference = root.device, False, root.inference
        self.version = 0
        self.exclusive = False

    @property
    def root(self) -> Storage:
        """The storage whose memory it is."""
        return self._root

    def settle(self) -> None:
        """As the root's."""
        self._root.settle()

    def release(self) -> None:
        """As the root's."""
        self._root.release()


def _shared(name: str) -> property:
    """What the storage and its root have in common."""
    return property(lambda self: getattr(self._root, name),
                    lambda self, value: setattr(self._root, name, value))


for _name in ("charge", "first", "others", "pending", "prune_at", "released"):
    setattr(DataStorage, _name, _shared(_name))


def _get(self: Tensor) -> Tensor:
    """The same memory outside the graph, whose changes backward is not told of."""
    self._check()
    root = self._storage.root
    root.exclusive = False
    return Tensor._make(self._array, DataStorage(root))


_set = Tensor.data.fset  # type: ignore[attr-defined]


def _assign(self: Tensor, value: Tensor) -> None:
    assert _set is not None
    _set(self, value)
    self._storage = self._storage.root


def install() -> None:
    """Give Tensor this `.data`."""
    Tensor.data = property(_get, _assign, doc=_get.__doc__)  # type: ignore[method-assign,assignment]
