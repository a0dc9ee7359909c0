"""The operations of neural networks as functions, under the names of torch.nn.functional."""

from __future__ import annotations

from mlgpu.guard import guard_module as _guard_module
from mlgpu.ops.activation import *  # noqa: F403
from mlgpu.ops.attention import *  # noqa: F403
from mlgpu.ops.batch_norm import *  # noqa: F403
from mlgpu.ops.cdist import pdist as pdist
from mlgpu.ops.conv import *  # noqa: F403
from mlgpu.ops.ctc import *  # noqa: F403
from mlgpu.ops.distance import *  # noqa: F403
from mlgpu.ops.dropout import *  # noqa: F403
from mlgpu.ops.embedding import embedding as embedding
from mlgpu.ops.embedding import one_hot as one_hot
from mlgpu.ops.embedding_bag import *  # noqa: F403
from mlgpu.ops.fold import fold as fold
from mlgpu.ops.fold import unfold as unfold
from mlgpu.ops.grid_sample import *  # noqa: F403
from mlgpu.ops.gumbel import *  # noqa: F403
from mlgpu.ops.linear import *  # noqa: F403
from mlgpu.ops.loss_class import *  # noqa: F403
from mlgpu.ops.loss_elementwise import *  # noqa: F403
from mlgpu.ops.loss_linear import *  # noqa: F403
from mlgpu.ops.loss_margin import *  # noqa: F403
from mlgpu.ops.multi_head_attention import *  # noqa: F403
from mlgpu.ops.norm import *  # noqa: F403
from mlgpu.ops.pad import *  # noqa: F403
from mlgpu.ops.pool import *  # noqa: F403
from mlgpu.ops.resample import *  # noqa: F403
from mlgpu.ops.rotary import *  # noqa: F403
from mlgpu.ops.softmax import *  # noqa: F403

_guard_module(globals())
