"""Optimizers and learning rate schedules, as torch.optim."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mlgpu.optim import lr_scheduler
from mlgpu.optim.adam import Adam, AdamW
from mlgpu.optim.optimizer import Optimizer
from mlgpu.optim.sgd import SGD

if TYPE_CHECKING:
    from mlgpu.optim import swa_utils as swa_utils
    from mlgpu.optim.adadelta import Adadelta as Adadelta
    from mlgpu.optim.adafactor import Adafactor as Adafactor
    from mlgpu.optim.adagrad import Adagrad as Adagrad
    from mlgpu.optim.adamax import Adamax as Adamax
    from mlgpu.optim.adan import Adan as Adan
    from mlgpu.optim.asgd import ASGD as ASGD
    from mlgpu.optim.cautiousadamw import CautiousAdamW as CautiousAdamW
    from mlgpu.optim.lamb import LAMB as LAMB
    from mlgpu.optim.lbfgs import LBFGS as LBFGS
    from mlgpu.optim.lion import Lion as Lion
    from mlgpu.optim.muon import Muon as Muon
    from mlgpu.optim.nadam import NAdam as NAdam
    from mlgpu.optim.radam import RAdam as RAdam
    from mlgpu.optim.rmsprop import RMSprop as RMSprop
    from mlgpu.optim.rprop import Rprop as Rprop
    from mlgpu.optim.sam import SAM as SAM

# Loaded when first asked for.
_LATER = {name: name.lower() for name in (
    "ASGD", "Adadelta", "Adafactor", "Adagrad", "Adamax", "Adan", "CautiousAdamW", "LAMB", "LBFGS",
    "Lion", "Muon", "NAdam", "RAdam", "RMSprop", "Rprop", "SAM")}

__all__ = ["SGD", "Adam", "AdamW", "Optimizer", "lr_scheduler"]
__all__ += [*_LATER, "swa_utils"]

if not TYPE_CHECKING:  # a checker knows all names, and reports others
    def __getattr__(name: str) -> Any:
        from importlib import import_module

        if name == "swa_utils":
            return import_module("mlgpu.optim.swa_utils")
        if name not in _LATER:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        found = getattr(import_module(f"mlgpu.optim.{_LATER[name]}"), name)
        globals()[name] = found
        return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
