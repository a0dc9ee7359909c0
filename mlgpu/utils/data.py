"""torch.utils.data's names: everything of mlgpu.data."""

from mlgpu.data import *  # noqa: F403
from mlgpu.data import __all__ as __all__
