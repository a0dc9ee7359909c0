"""torch.distributed for a group of one process: what programs written for many call when alone.

`is_available()` is False, so that packages leave their parts for many processes aside.  A group of
more than one process is refused with DeviceError.
"""

from __future__ import annotations

import os
from enum import Enum
from typing import Any

from mlgpu import Tensor
from mlgpu.errors import DeviceError

_initialized = False


class ReduceOp(Enum):
    """How the tensors of all processes are put together."""

    SUM = 0
    AVG = 1
    PRODUCT = 2
    MIN = 3
    MAX = 4


class ProcessGroup:
    """Some of the processes; here, the one that there is."""

    def size(self) -> int:
        """1."""
        return 1

    def rank(self) -> int:
        """0."""
        return 0


class group:
    """The group of all processes."""

    WORLD: ProcessGroup | None = None


def is_available() -> bool:
    """False."""
    return False


def is_initialized() -> bool:
    """Whether `init_process_group` was called."""
    return _initialized


def is_torchelastic_launched() -> bool:
    """False."""
    return False


def is_nccl_available() -> bool:
    """False."""
    return False


def init_process_group(backend: str | None = None, init_method: str | None = None,
                       timeout: Any = None, world_size: int = -1, rank: int = -1,
                       **options: Any) -> None:
    """Begin a group of one process.  DeviceError for more (`world_size`, or $WORLD_SIZE)."""
    global _initialized
    count = world_size if world_size > 0 else int(os.environ.get("WORLD_SIZE", "1"))
    if count > 1:
        raise DeviceError(f"init_process_group: mlgpu runs one process, and {count} were asked "
                          "for; start the program without torchrun")
    _initialized = True
    group.WORLD = ProcessGroup()


def destroy_process_group(group: Any = None) -> None:
    """End the group."""
    global _initialized
    _initialized = False


def get_rank(group: Any = None) -> int:
    """0."""
    _begun("get_rank")
    return 0


def get_world_size(group: Any = None) -> int:
    """1."""
    _begun("get_world_size")
    return 1


def get_backend(group: Any = None) -> str:
    """The name of what moves tensors, which nothing has to."""
    _begun("get_backend")
    return "gloo"


def barrier(group: Any = None, **options: Any) -> None:
    """Nothing: nobody else is to be waited for."""
    _begun("barrier")


class Work:
    """What is under way between processes: nothing."""

    def wait(self, timeout: Any = None) -> bool:
        """True."""
        return True

    def is_completed(self) -> bool:
        """True."""
        return True


def _done(name: str, async_op: bool) -> Work | None:
    _begun(name)
    return Work() if async_op else None


def new_group(ranks: list[int] | None = None, *args: Any, **options: Any) -> ProcessGroup:
    """The group of the one process.  DeviceError for others."""
    _begun("new_group")
    if ranks not in (None, [0]):
        raise DeviceError(f"new_group: mlgpu runs one process, number 0; got {ranks}")
    return ProcessGroup()


def all_reduce(tensor: Tensor, op: Any = ReduceOp.SUM, group: Any = None, async_op: bool = False
               ) -> Work | None:
    """Nothing: the tensor is the result."""
    return _done("all_reduce", async_op)


def broadcast(tensor: Tensor, src: int = 0, group: Any = None, async_op: bool = False,
              **options: Any) -> Work | None:
    """Nothing: the tensor is its own source."""
    return _done("broadcast", async_op)


def reduce(tensor: Tensor, dst: int = 0, op: Any = ReduceOp.SUM, group: Any = None,
           async_op: bool = False) -> Work | None:
    """Nothing: the tensor is the result."""
    return _done("reduce", async_op)


def all_gather(tensor_list: list[Tensor], tensor: Tensor, group: Any = None,
               async_op: bool = False) -> Work | None:
    """Copy the tensor into the only one of the list."""
    tensor_list[0].copy_(tensor)
    return _done("all_gather", async_op)


def all_gather_into_tensor(output_tensor: Tensor, input_tensor: Tensor, group: Any = None,
                           async_op: bool = False) -> Work | None:
    """Copy the one tensor into the other."""
    output_tensor.copy_(input_tensor.view_as(output_tensor))
    return _done("all_gather_into_tensor", async_op)


def reduce_scatter_tensor(output: Tensor, input: Tensor, op: Any = ReduceOp.SUM, group: Any = None,
                          async_op: bool = False) -> Work | None:
    """Copy the one tensor into the other."""
    output.copy_(input.view_as(output))
    return _done("reduce_scatter_tensor", async_op)


def reduce_scatter(output: Tensor, input_list: list[Tensor], op: Any = ReduceOp.SUM,
                   group: Any = None, async_op: bool = False) -> Work | None:
    """Copy the only tensor of the list into the output."""
    output.copy_(input_list[0])
    return _done("reduce_scatter", async_op)


def gather(tensor: Tensor, gather_list: list[Tensor] | None = None, dst: int = 0,
           group: Any = None, async_op: bool = False, **options: Any) -> Work | None:
    """Copy the tensor into the only one of the list."""
    if gather_list:
        gather_list[0].copy_(tensor)
    return _done("gather", async_op)


def scatter(tensor: Tensor, scatter_list: list[Tensor] | None = None, src: int = 0,
            group: Any = None, async_op: bool = False, **options: Any) -> Work | None:
    """Copy the only tensor of the list into the tensor."""
    if scatter_list:
        tensor.copy_(scatter_list[0])
    return _done("scatter", async_op)


def all_gather_object(object_list: list[Any], obj: Any, group: Any = None) -> None:
    """Put the object into the list."""
    _begun("all_gather_object")
    object_list[0] = obj


def broadcast_object_list(object_list: list[Any], src: int = 0, **options: Any) -> None:
    """Nothing: the objects are their own source."""
    _begun("broadcast_object_list")


def _begun(name: str) -> None:
    if not _initialized:
        raise ValueError(f"{name}: the group has not been begun; call init_process_group")
