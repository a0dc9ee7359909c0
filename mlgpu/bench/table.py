"""All workloads that a worker can be asked for, by name."""

from __future__ import annotations

from . import models, operations, optimizers
from .workload import Workload

WORKLOADS: dict[str, Workload] = {
    w.name: w for w in (*models.workloads(), *operations.workloads(), *optimizers.workloads())}
