"""Keys and values of tokens that attention has seen, for generating token by token.

Each cache takes the new tokens' keys and values (n, heads, tokens, dim) and gives those that the
new queries may look at.  Nothing is recorded for gradients.
"""

from __future__ import annotations

from mlgpu.autograd import no_grad
from mlgpu.device import DeviceLike
from mlgpu.dtypes import DTypeLike, int64
from mlgpu.errors import ShapeError
from mlgpu.ops.creation import arange, empty, zeros
from mlgpu.ops.join import cat
from mlgpu.tensor import Tensor

__all__ = ["KVCache", "RotatingKVCache", "ScatteredKVCache"]


def _check(owner: str, key: Tensor, value: Tensor, like: Tensor | None) -> None:
    if key.ndim != 4 or key.shape[:3] != value.shape[:3]:
        raise ShapeError(f"{owner}: expected keys and values (n, heads, tokens, dim), got "
                         f"{tuple(key.shape)} and {tuple(value.shape)}")
    if like is not None and (key.shape[:2] != like.shape[:2] or key.shape[3] != like.shape[3]):
        raise ShapeError(f"{owner}: keys must be ({like.shape[0]}, {like.shape[1]}, tokens, "
                         f"{like.shape[3]}) as those before, got {tuple(key.shape)}")


class KVCache:
    """All tokens so far; room doubles when it is full, so that a token costs the same always."""

    def __init__(self) -> None:
        self._key: Tensor | None = None
        self._value: Tensor | None = None
        self.length = 0

    @no_grad()
    def append(self, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """The keys and values of all tokens, views of the cache's memory."""
        _check("KVCache", key, value, self._key)
        end = self.length + key.shape[2]
        self._key, self._value = (self._grown(kept, new, end) for kept, new in (
            (self._key, key), (self._value, value)))
        for kept, new in ((self._key, key), (self._value, value)):
            kept[:, :, self.length:end] = new
        self.length = end
        return self._key[:, :, :end], self._value[:, :, :end]

    def _grown(self, kept: Tensor | None, new: Tensor, end: int) -> Tensor:
        if kept is not None and kept.shape[2] >= end:
            return kept
        n, heads, _, dim = new.shape
        room = empty(n, heads, max(end, 2 * (0 if kept is None else kept.shape[2])), dim,
                     dtype=new.dtype, device=new.device)
        if kept is not None:
            room[:, :, :self.length] = kept[:, :, :self.length]
        return room

    def truncate(self, length: int) -> None:
        """Forget the tokens from `length` on, as when drafted tokens are refused."""
        if not 0 <= length <= self.length:
            raise ShapeError(f"KVCache.truncate: length must be at most {self.length}, got "
                             f"{length}")
        self.length = length

    def reset(self) -> None:
        """Forget all tokens; the room stays."""
        self.length = 0


class RotatingKVCache:
    """The last `window` tokens: memory does not grow with the text (sliding window attention)."""

    def __init__(self, window: int) -> None:
        if window < 1:
            raise ShapeError(f"RotatingKVCache: window must be positive, got {window}")
        self.window = window
        self._key: Tensor | None = None
        self._value: Tensor | None = None
        self.length = 0  # tokens ever seen

    @no_grad()
    def append(self, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values of the last window - 1 tokens before, and the new ones, oldest first.

        The first new query looks at all but those after it, the last at all but those more than
        `window` before it.
        """
        _check("RotatingKVCache", key, value, self._key)
        kept = self._ordered()
        given = [new if old is None else cat([old, new], 2)
                 for old, new in zip(kept, (key, value), strict=True)]
        self._store(key, value)
        return given[0], given[1]

    def _ordered(self) -> tuple[Tensor | None, Tensor | None]:
        """What the next token may look at, oldest first."""
        if self._key is None or self._value is None or not self.length or self.window == 1:
            return None, None
        size = min(self.length, self.window - 1)
        place = arange(self.length - size, self.length, device=self._key.device) % self.window
        return self._key.index_select(2, place), self._value.index_select(2, place)

    def _store(self, key: Tensor, value: Tensor) -> None:
        if self._key is None or self._value is None:
            n, heads, _, _ = key.shape
            self._key, self._value = (empty(n, heads, self.window, new.shape[3], dtype=new.dtype,
                                            device=new.device) for new in (key, value))
        tokens = key.shape[2]
        last = min(tokens, self.window)
        place = arange(self.length + tokens - last, self.length + tokens,
                       device=key.device) % self.window
        self._key.index_copy_(2, place, key[:, :, tokens - last:])
        self._value.index_copy_(2, place, value[:, :, tokens - last:])
        self.length += tokens

    def reset(self) -> None:
        """Forget all tokens."""
        self.length = 0


class ScatteredKVCache:
    """Rows of a batch that are at different places, in one room of `capacity` tokens each.

    For requests that come and go: `append` writes each row behind its own tokens; `lengths` (n,),
    int64 on the device, says how many each has, as `key_lengths` of
    `F.scaled_dot_product_attention` wants it.
    """

    def __init__(self, batch: int, heads: int, capacity: int, dim: int,
                 device: DeviceLike | None = None, dtype: DTypeLike | None = None) -> None:
        self.capacity = capacity
        self.key = zeros(batch, heads, capacity, dim, device=device, dtype=dtype)
        self.value = zeros(batch, heads, capacity, dim, device=device, dtype=dtype)
        self.lengths = zeros(batch, dtype=int64, device=device)
        self._host = [0] * batch  # the same, to know before a write whether there is room

    @no_grad()
    def append(self, key: Tensor, value: Tensor, rows: list[int] | None = None
               ) -> tuple[Tensor, Tensor]:
        """Write the tokens of these rows (all if None); gives the whole key and value rooms.

        Raises ShapeError where a row would not fit.
        """
        _check("ScatteredKVCache", key, value, None)
        chosen = list(range(len(self._host))) if rows is None else rows
        tokens = key.shape[2]
        if len(key) != len(chosen) or key.shape[1::2] != self.key.shape[1::2]:
            raise ShapeError(f"ScatteredKVCache: expected keys ({len(chosen)}, "
                             f"{self.key.shape[1]}, tokens, {self.key.shape[3]}), got "
                             f"{tuple(key.shape)}")
        for row in chosen:
            if self._host[row] + tokens > self.capacity:
                raise ShapeError(f"ScatteredKVCache: row {row} has {self._host[row]} of "
                                 f"{self.capacity} tokens, no room for {tokens}; free it first")
        for place, row in enumerate(chosen):
            start = self._host[row]
            self.key[row, :, start:start + tokens] = key[place]
            self.value[row, :, start:start + tokens] = value[place]
            self.lengths[row] += tokens
            self._host[row] += tokens
        return self.key, self.value

    def free(self, rows: list[int]) -> None:
        """Forget the tokens of these rows."""
        for row in rows:
            self.lengths[row] = 0
            self._host[row] = 0
