"""Optimizer state in page-locked host memory, on the device a piece at a time."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mlgpu.device import CPU, Device
from mlgpu.memory import parse_bytes
from mlgpu.tensor import Tensor

if TYPE_CHECKING:
    from mlgpu.optim.optimizer import Optimizer


class StateOffload:
    """Steps of an optimizer whose state comes to the device piece by piece.

    While a piece is updated the next one is on its way in and the one before on its way out, so
    that about three pieces lie on the device at once (Ren et al. 2021, ZeRO-Offload).
    """

    def __init__(self, piece: int | str) -> None:
        self.piece = parse_bytes(piece)

    def update(self, optimizer: Optimizer) -> None:
        """One step."""
        groups = optimizer.param_groups
        whole = [group["params"] for group in groups]
        pieces = self._pieces(whole)
        try:
            for number, params in enumerate(pieces):
                self._move(optimizer, params, None)
                if number + 1 < len(pieces):
                    self._move(optimizer, pieces[number + 1], None)
                chosen = {id(param) for param in params}
                for group, everything in zip(groups, whole, strict=True):
                    group["params"] = [p for p in everything if id(p) in chosen]
                optimizer._update_all()
                self._move(optimizer, params, CPU)
        finally:
            for group, everything in zip(groups, whole, strict=True):
                group["params"] = everything

    def _pieces(self, groups: list[list[Tensor]]) -> list[list[Tensor]]:
        """The parameters with a gradient, in runs of about as many bytes as a piece has."""
        pieces: list[list[Tensor]] = []
        room = 0
        for param in (p for params in groups for p in params if p.grad is not None):
            size = param._array.nbytes
            if size > room or not pieces:
                pieces.append([])
                room = self.piece
            pieces[-1].append(param)
            room -= size
        return pieces

    def away(self, optimizer: Optimizer) -> None:
        """Send all state to the host."""
        self._move(optimizer, list(optimizer.state), CPU)

    @staticmethod
    def _move(optimizer: Optimizer, params: list[Any], target: Device | None) -> None:
        """State of the shape of its parameter, to `target` or (None) to the parameter's device."""
        for param in params:
            if not isinstance(param, Tensor) or param._storage.device is CPU:
                continue
            from mlgpu.cuda.streams import beside

            state = optimizer.state.get(param, {})
            for name, value in state.items():
                if isinstance(value, Tensor) and value.ndim:
                    with beside(param.device):
                        state[name] = value.to(target or param.device, non_blocking=True)
