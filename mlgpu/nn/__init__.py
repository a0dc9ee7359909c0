"""Neural networks: modules, parameters, layers and losses, as torch.nn."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mlgpu.nn import functional as functional
from mlgpu.nn import init as init
from mlgpu.nn.activation import *  # noqa: F403
from mlgpu.nn.attention import *  # noqa: F403
from mlgpu.nn.batchnorm import *  # noqa: F403
from mlgpu.nn.containers import *  # noqa: F403
from mlgpu.nn.conv import *  # noqa: F403
from mlgpu.nn.distance import *  # noqa: F403
from mlgpu.nn.dropout import *  # noqa: F403
from mlgpu.nn.embedding import *  # noqa: F403
from mlgpu.nn.linear import *  # noqa: F403
from mlgpu.nn.loss import *  # noqa: F403
from mlgpu.nn.module import Module as Module
from mlgpu.nn.normalization import *  # noqa: F403
from mlgpu.nn.padding import *  # noqa: F403
from mlgpu.nn.parameter import Parameter as Parameter
from mlgpu.nn.pooling import *  # noqa: F403
from mlgpu.nn.reshaping import *  # noqa: F403
from mlgpu.nn.rnn import *  # noqa: F403
from mlgpu.nn.transformer import *  # noqa: F403

if TYPE_CHECKING:
    from mlgpu.nn import utils as utils
    from mlgpu.nn.model_summary import *  # noqa: F403
else:
    def __getattr__(name):
        from importlib import import_module

        if name == "utils":  # loaded when asked for, with what it is made of
            return import_module("mlgpu.nn.utils")
        if name in ("LayerSummary", "ModelSummary", "summary"):
            return getattr(import_module("mlgpu.nn.model_summary"), name)
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
