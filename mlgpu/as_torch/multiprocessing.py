"""torch.multiprocessing beside Python's: how tensors travel between processes is not a choice."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


def get_sharing_strategy() -> str:
    """The only one."""
    return "file_system"


def set_sharing_strategy(new_strategy: str) -> None:
    """Nothing: there is one."""


def get_all_sharing_strategies() -> set[str]:
    """The only one."""
    return {"file_system"}


def spawn(fn: Callable[..., Any], args: tuple[Any, ...] = (), nprocs: int = 1, join: bool = True,
          daemon: bool = False, start_method: str = "spawn") -> None:
    """Call `fn(i, *args)` in `nprocs` processes and wait for them.

    Raises RuntimeError naming those that failed.
    """
    import multiprocessing

    context: Any = multiprocessing.get_context(start_method)
    processes = [context.Process(target=fn, args=(i, *args), daemon=daemon) for i in range(nprocs)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    failed = [i for i, process in enumerate(processes) if process.exitcode]
    if failed:
        raise RuntimeError(f"spawn: processes {failed} failed; their errors stand above")
