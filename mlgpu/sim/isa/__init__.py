"""What each PTX instruction does, one file per family; importing this fills the table."""

from importlib import import_module
from pkgutil import iter_modules

from mlgpu.sim.isa.registry import INSTRUCTIONS

for _family in iter_modules(__path__):
    import_module(f"{__name__}.{_family.name}")

__all__ = ["INSTRUCTIONS"]
