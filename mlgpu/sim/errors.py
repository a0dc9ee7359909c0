"""What can go wrong on the simulated GPU: a program that cannot be run, or one found at fault."""

from __future__ import annotations

from dataclasses import dataclass, field

from mlgpu.errors import KernelError


class SimError(KernelError):
    """Something the simulated GPU refuses; the message names the rule and the way out."""


class CompileError(SimError):
    """A CUDA source that NVRTC rejects; the message is the compiler's log."""


class PtxError(SimError):
    """PTX text that is malformed; the message names the line and what was expected."""


class UnsupportedError(SimError):
    """PTX that the simulated GPU does not know; names the instruction and the source line."""


class LaunchError(SimError):
    """A launch whose dimensions, shared memory or arguments do not fit the kernel or device."""


@dataclass(frozen=True)
class Allocation:
    """A piece of memory as a finding names it."""

    address: int
    size: int
    name: str  # of a module's variable, or "" for a buffer
    made_at: str  # "file:line" of the call that made it


@dataclass(frozen=True)
class Party:
    """The other side of a race: who made the earlier access, and where.

    Of a race between launches, file and line are where the other was launched.
    """

    access: str  # "read", "write", "atomic"
    file: str
    line: int
    block: tuple[int, int, int] | None = None
    thread: tuple[int, int, int] | None = None
    kernel: str = ""  # where it is another launch


@dataclass(eq=False)
class Finding(SimError):
    """One fault of a kernel, raised at its first occurrence unless the machine collects them.

    Tools and kinds carry the names of compute-sanitizer where it has them:

    - memcheck: "out of bounds", "misaligned", "null pointer", "use after free", "leak", "invalid
      free", "read-only write"
    - racecheck: "read after write", "write after read", "write after write"
    - initcheck: "uninitialized read"
    - synccheck: "divergent threads in warp", "divergent threads in block", "exited threads",
      "invalid mask", "invalid arguments", "missing wait", "deadlock"
    - watchdog: "endless loop"
    - program: "trap", "assert"

    `file`, `line` and `calls` say where, `block` and `thread` by whom; `access`, `space`, `size`
    and `address` which memory, `allocation` what that is part of; `other` is the other party of a
    race.
    """

    tool: str
    kind: str
    message: str
    kernel: str = ""
    file: str = ""
    line: int = 0
    block: tuple[int, int, int] | None = None
    thread: tuple[int, int, int] | None = None
    access: str = ""  # "read", "write", "atomic" where the finding is about memory
    space: str = ""  # "global", "shared", "local", "const", "param"
    size: int = 0  # bytes of the access
    address: int | None = None  # global: device address; shared, local: offset in the window
    other: Party | None = None
    allocation: Allocation | None = None
    calls: tuple[str, ...] = field(default=())  # "file:line" of inlined callers, innermost first
    launched: str = ""  # the "file:line" that launched, where launches run later (under CuPy)

    def __post_init__(self) -> None:
        super().__init__(str(self))

    def __str__(self) -> str:
        where = f"{self.file}:{self.line}" if self.line else self.file or "?"
        lines = [f"{self.tool}: {self.kind}: {self.message}", f"    at {self.kernel} ({where})"]
        lines += [f"    called from {call}" for call in self.calls]
        if self.block is not None:
            lines.append(f"    by thread {self.thread} of block {self.block}")
        if self.other is not None:
            o = self.other
            by = f"thread {o.thread} of block {o.block}" if o.block is not None else o.kernel
            lines.append(f"    against the {o.access} at {o.file}:{o.line} by {by}")
        if self.allocation is not None:
            a = self.allocation
            name = f" '{a.name}'" if a.name else ""
            lines.append(f"    allocation{name} of {a.size:,} bytes at {a.address:#x}, "
                         f"made at {a.made_at}")
        if self.launched:
            lines.append(f"    launched at {self.launched}")
        return "\n".join(lines)
