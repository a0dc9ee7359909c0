"""What a run was made of: its settings, and the machine and versions that it ran on."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

from mlgpu import info
from mlgpu.random import initial_seed
from mlgpu.train.record import plain

if TYPE_CHECKING:
    from mlgpu.train.trainer import Trainer


def configuration(trainer: Trainer, loader: Iterable[Any]) -> dict[str, Any]:
    """The settings of a fit, as plain values."""
    optimizer, update = trainer.optimizer, trainer._update
    groups = [{name: value for name, value in group.items()
               if name not in ("params", "param_names")} for group in optimizer.param_groups]
    settings: dict[str, Any] = {
        "model": type(trainer.model).__name__,
        "parameters": sum(p.numel() for p in trainer.model.parameters()),
        "device": str(trainer.device),
        "optimizer": type(optimizer).__name__,
        **groups[0],
        "epochs": trainer.goal.epochs,
        "steps": trainer.goal.steps,
        "batch_size": getattr(loader, "batch_size", None),
        "accumulate": trainer.accumulate,
        "clip_norm": update.clip_norm,
        "clip_value": update.clip_value,
        "seed": initial_seed(),
    }
    if len(groups) > 1:
        settings["further groups"] = groups[1:]
    if trainer.scheduler is not None:
        settings["scheduler"] = type(trainer.scheduler).__name__
    return plain({name: value for name, value in settings.items() if value is not None})


def environment() -> dict[str, Any]:
    """Machine, versions and command of this process."""
    found = info.collect()
    return {
        "started": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "command": " ".join([os.path.basename(sys.executable), *sys.argv]),
        "platform": found.platform,
        "threads": found.threads,
        "blas": ", ".join(f"{blas.name} {blas.version}" for blas in found.blas),
        "gpus": ", ".join(str(gpu.name) for gpu in found.gpus) or "none",
        **found.versions,
    }
