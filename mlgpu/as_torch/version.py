"""Which PyTorch's interface programs are told this is: torch.version."""

from __future__ import annotations

VERSION = "2.13.0+mlgpu"


class TorchVersion(str):
    """A version that compares with strings and tuples by its numbers, as PyTorch's."""

    def _numbers(self) -> tuple[int, ...]:
        return tuple(int(part) for part in self.partition("+")[0].split(".") if part.isdecimal())

    def _other(self, other: object) -> tuple[int, ...]:
        if isinstance(other, tuple):
            return tuple(int(part) for part in other)
        return TorchVersion(str(other))._numbers()

    def __lt__(self, other: object) -> bool:
        return self._numbers() < self._other(other)

    def __le__(self, other: object) -> bool:
        return self._numbers() <= self._other(other)

    def __gt__(self, other: object) -> bool:
        return self._numbers() > self._other(other)

    def __ge__(self, other: object) -> bool:
        return self._numbers() >= self._other(other)


__version__ = TorchVersion(VERSION)
cuda: str | None = None  # the toolkit that PyTorch was built with: none was
hip: str | None = None
git_version = "mlgpu"
debug = False
