"""Special functions, under the names of torch.special."""

from __future__ import annotations

from mlgpu.guard import guard_module as _guard_module
from mlgpu.ops.exponential import exp2, expm1, log1p, xlogy
from mlgpu.ops.reduce import logsumexp
from mlgpu.ops.rounding import round as round
from mlgpu.ops.softmax import log_softmax, softmax
from mlgpu.ops.special import (
    digamma,
    entr,
    erf,
    erfc,
    erfinv,
    expit,
    lgamma,
    logit,
    ndtr,
    polygamma,
    xlog1py,
)
from mlgpu.ops.special import digamma as psi
from mlgpu.ops.special import lgamma as gammaln
from mlgpu.ops.trigonometry import sinc

__all__ = ["digamma", "entr", "erf", "erfc", "erfinv", "exp2", "expit", "expm1", "gammaln",
           "lgamma", "log1p", "log_softmax", "logit", "logsumexp", "ndtr", "polygamma",
           "psi", "round", "sinc", "softmax", "xlog1py", "xlogy"]

_guard_module(globals())
