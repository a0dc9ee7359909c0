"""Random numbers: Philox4x64-10 words, addressed by (seed, offset), the same on every device.

Word i of the stream of a seed is word i mod 4 of Philox4x64-10 (Salmon et al., "Parallel random
numbers: as easy as 1, 2, 3", 2011) of the counter (i div 4, 0, 0, 0) under the key (seed, 0).  A
generator is a seed and an offset into that stream, in blocks of four words; each draw takes as many
whole blocks as it needs.  So what is drawn depends on the seed and the draws before, and on no
device, number of threads or moment.
"""

from __future__ import annotations

import operator
import os
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from mlgpu.cuda.context import context
from mlgpu.device import Device, resolve
from mlgpu.errors import CaptureError, DTypeError, FormatError

if TYPE_CHECKING:
    from mlgpu.tensor import Tensor

__all__ = ["Generator", "default_generator", "fork_rng", "get_rng_state", "initial_seed",
           "manual_seed", "seed", "set_rng_state"]

Words = np.ndarray[Any, np.dtype[np.uint64]]

DEFAULT_SEED = 67280421310721  # PyTorch's
BLOCK_WORDS = 4
_MASK = 2**64 - 1
_STATE = struct.Struct("<QQ")  # seed, offset

# One for all generators: it is held for nanoseconds, and a process that forks while another thread
# draws must not inherit it locked.
_lock = threading.Lock()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_lock.acquire, after_in_parent=_lock.release,
                        after_in_child=_lock.release)

_local = threading.local()
_EMPTY = (0, 0, 0, 0)


def philox(key: tuple[int, int], block: int, count: int, line: int = 0) -> Words:
    """`count` words of Philox4x64-10 under `key`, from the counter (block, line, 0, 0) on."""
    # Taken out while in use, should a signal's handler draw too.
    engine = _local.__dict__.pop("engine", None)
    if engine is None:
        from numpy.random import Philox  # not above: it takes tens of milliseconds

        engine = Philox(key=0)
    # NumPy counts up before it computes, with carry through all 256 bits.
    before = ((line << 64) + block - 1) % 2**256
    counter = [before >> shift & _MASK for shift in (0, 64, 128, 192)]
    engine.state = {
        "bit_generator": "Philox", "buffer": np.array(_EMPTY, np.uint64), "buffer_pos": BLOCK_WORDS,
        "has_uint32": 0, "uinteger": 0,
        "state": {"counter": np.array(counter, np.uint64), "key": np.array(key, np.uint64)}}
    words: Words = engine.random_raw(count)
    _local.engine = engine
    return words


class Stream:
    """The words that one draw was given: from block `offset` of a seed's stream on.

    Reading them changes nothing, so a draw can be repeated from its stream.  `replayed` is set for
    a draw in a CUDA graph: the numbers of each replay are others.
    """

    __slots__ = ("offset", "replayed", "seed")

    def __init__(self, seed: int, offset: int, replayed: Replayed | None = None) -> None:
        self.seed, self.offset, self.replayed = seed, offset, replayed

    @property
    def countable(self) -> bool:
        """Whether no counter of this draw can reach 2**64, where the words begin anew."""
        return self.offset < 2**63

    def words(self, first: int, count: int) -> Words:
        """Words first, first + 1, ... first + count - 1 of the draw, as a fresh array."""
        block, skip = divmod(first, BLOCK_WORDS)
        return philox((self.seed, 0), (self.offset + block) & _MASK, skip + count)[skip:]

    def private(self, line: int, first: int, count: int) -> Words:
        """Words first, first + 1, ... of one of endlessly many lines that this draw has of its own.

        For draws that cannot tell how many words they need.  They come from the key
        (seed, offset + 1), which no other draw of the seed uses.
        """
        block, skip = divmod(first, BLOCK_WORDS)
        return philox((self.seed, (self.offset + 1) & _MASK), block, skip + count, line)[skip:]


class Replayed:
    """What a captured CUDA graph draws from a generator: so many blocks anew for each replay.

    The capture itself draws nothing, and leaves the generator where it was.  The graph moves on
    by itself; it is told where it is only where it would be wrong.
    """

    def __init__(self, generator: Generator, seed: int, offset: int) -> None:
        self.generator, self.seed, self.offset = generator, seed, offset
        self.blocks = 0
        self.cells: list[Any] = []  # where kernels read the place of a replay (mlgpu.cuda.random)
        self._place: tuple[int, int] | None = None  # what the cells hold

    def reserve(self, blocks: int) -> Stream:
        """The next blocks of each replay; until then, what an eager call would draw."""
        stream = Stream(self.seed, (self.offset + self.blocks) & _MASK, self)
        self.blocks += blocks
        return stream

    def advance(self) -> None:
        """Before a replay: take its blocks from the generator."""
        stream = self.generator.reserve_blocks(self.blocks)
        if self._place != (stream.seed, stream.offset):
            for cell in self.cells:
                cell.place(stream, self.blocks)
        self._place = stream.seed, (stream.offset + self.blocks) & _MASK


class Generator:
    """A source of random numbers: a seed and how far its stream has been used.

    Counter-based, so one serves every device; `device` is kept for PyTorch's sake.  Safe to use
    from several threads: each draw gets words of its own.
    """

    def __init__(self, device: Device | str = "cpu") -> None:
        self.device = resolve(device)
        self._seed = DEFAULT_SEED
        self._offset = 0

    def reserve(self, words: int) -> Stream:
        """The next `words` words as a stream that no other draw gets."""
        return self.reserve_blocks(-(-words // BLOCK_WORDS))

    def reserve_blocks(self, blocks: int) -> Stream:
        """The same for so many blocks of four words."""
        if context.capture is not None:
            return self._replayed(context.capture).reserve(blocks)
        with _lock:
            stream = Stream(self._seed, self._offset)
            self._offset = (self._offset + blocks) & _MASK
        return stream

    def _replayed(self, capture: Any) -> Replayed:
        """This generator's part in a capture.  CaptureError where it was changed meanwhile."""
        found: Replayed | None = capture.draws.get(self)
        if found is None:
            found = capture.draws[self] = Replayed(self, self._seed, self._offset)
            capture.before.append(found.advance)
        elif (found.seed, found.offset) != (self._seed, self._offset):
            raise CaptureError("manual_seed: a generator cannot be set while a graph is captured "
                               "that draws from it; set it before the replay")
        return found

    def draw(self, words: int) -> Words:
        """The next `words` words, as uint64."""
        return self.reserve(words).words(0, words)

    def manual_seed(self, seed: int) -> Generator:
        """Start the stream of `seed`, -2**63 to 2**64 - 1, a negative one being seed + 2**64.

        Raises TypeError for what is no int, ValueError out of that range.
        """
        if isinstance(seed, bool) or not hasattr(seed, "__index__"):
            raise TypeError(f"manual_seed: expected an int, got {type(seed).__name__}")
        value = operator.index(seed)
        if not -2**63 <= value <= _MASK:
            raise ValueError(f"manual_seed: the seed must be in [-2**63, 2**64 - 1], got {value}")
        with _lock:
            self._seed, self._offset = value & _MASK, 0
        return self

    def seed(self) -> int:
        """Start the stream of a seed from the system's entropy, and return that seed."""
        value = int.from_bytes(os.urandom(8), "little")
        self.manual_seed(value)
        return value

    def initial_seed(self) -> int:
        """The seed, 0 to 2**64 - 1."""
        return self._seed

    def get_state(self) -> Tensor:
        """The state as a uint8 tensor of 16: seed and offset, little-endian."""
        from mlgpu.ops.creation import tensor

        with _lock:
            state = _STATE.pack(self._seed, self._offset)
        return tensor(np.frombuffer(state, np.uint8))

    def set_state(self, new_state: Tensor) -> Generator:
        """Go on from a state that `get_state` gave.

        Raises TypeError or DTypeError for what is no uint8 tensor, FormatError for a wrong size.
        """
        from mlgpu.dtypes import uint8
        from mlgpu.tensor import Tensor

        if not isinstance(new_state, Tensor):
            raise TypeError(f"set_state: expected a uint8 tensor, got {type(new_state).__name__}")
        if new_state.dtype is not uint8:
            raise DTypeError(f"set_state: expected a uint8 tensor, got {new_state.dtype!r}")
        if tuple(new_state.shape) != (_STATE.size,):
            raise FormatError(f"set_state: the state of a generator has shape ({_STATE.size},), "
                              f"got {tuple(new_state.shape)}")
        seed, offset = _STATE.unpack(new_state._host().tobytes())
        with _lock:
            self._seed, self._offset = seed, offset
        return self

    def clone_state(self) -> Generator:
        """Another generator that will give the same numbers from here on."""
        clone = Generator(self.device)
        with _lock:
            clone._seed, clone._offset = self._seed, self._offset
        return clone

    def __repr__(self) -> str:
        return f"Generator(device={self.device}, seed={self._seed}, offset={self._offset})"


default_generator = Generator()


def manual_seed(seed: Any) -> Generator:
    """Start the process's own generator from `seed` (floats are cut to ints), and return it."""
    if isinstance(seed, (str, bytes, bytearray)):
        raise TypeError(f"manual_seed: expected an int, got {type(seed).__name__}")
    return default_generator.manual_seed(int(seed))


def seed() -> int:
    """Start the process's own generator from the system's entropy, and return the seed."""
    return default_generator.seed()


def initial_seed() -> int:
    """The seed of the process's own generator."""
    return default_generator.initial_seed()


def get_rng_state() -> Tensor:
    """The state of the process's own generator, a uint8 tensor."""
    return default_generator.get_state()


def set_rng_state(new_state: Tensor) -> None:
    """Let the process's own generator go on from a state that `get_rng_state` gave."""
    default_generator.set_state(new_state)


@contextmanager
def fork_rng(devices: Any = None, enabled: bool = True) -> Iterator[None]:
    """Restore the process's own generator on leaving.  `devices` does not matter: it serves all."""
    if not enabled:
        yield
        return
    state = get_rng_state()
    try:
        yield
    finally:
        set_rng_state(state)
