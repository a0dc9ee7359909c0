"""Special functions, under the names of torch.special."""

from __future__ import annotations

from mlgpu.guard import guard_module as _guard_module
from mlgpu.ops.pointwise import (
    digamma,
    erf,
    erfc,
    erfinv,
    exp2,
    expit,
    expm1,
    lgamma,
    log1p,
    logit,
    polygamma,
    sinc,
    xlogy,
)
from mlgpu.ops.pointwise import digamma as psi
from mlgpu.ops.pointwise import lgamma as gammaln
from mlgpu.ops.pointwise import round as round
from mlgpu.ops.reduce import logsumexp
from mlgpu.ops.softmax import log_softmax, softmax

__all__ = ["digamma", "erf", "erfc", "erfinv", "exp2", "expit", "expm1", "gammaln", "lgamma",
           "log1p", "log_softmax", "logit", "logsumexp", "polygamma", "psi", "round", "sinc",
           "softmax", "xlogy"]

_guard_module(globals())
