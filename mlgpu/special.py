"""Special functions, under the names of torch.special."""

from __future__ import annotations

from mlgpu.guard import guard_module as _guard_module
from mlgpu.ops.bessel import (
    airy_ai,
    bessel_j0,
    bessel_j1,
    bessel_y0,
    bessel_y1,
    i0,
    i0e,
    i1,
    i1e,
    modified_bessel_i0,
    modified_bessel_i1,
    modified_bessel_k0,
    modified_bessel_k1,
    scaled_modified_bessel_k0,
    scaled_modified_bessel_k1,
    spherical_bessel_j0,
)
from mlgpu.ops.exponential import exp2, expm1, log1p, xlogy
from mlgpu.ops.incomplete import gammainc, gammaincc, multigammaln, zeta
from mlgpu.ops.orthogonal import (
    chebyshev_polynomial_t,
    chebyshev_polynomial_u,
    chebyshev_polynomial_v,
    chebyshev_polynomial_w,
    hermite_polynomial_h,
    hermite_polynomial_he,
    laguerre_polynomial_l,
    legendre_polynomial_p,
    shifted_chebyshev_polynomial_t,
    shifted_chebyshev_polynomial_u,
    shifted_chebyshev_polynomial_v,
    shifted_chebyshev_polynomial_w,
)
from mlgpu.ops.probability import erfcx, log_ndtr, ndtri
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

__all__ = ["airy_ai", "bessel_j0", "bessel_j1", "bessel_y0", "bessel_y1", "chebyshev_polynomial_t",
           "chebyshev_polynomial_u", "chebyshev_polynomial_v", "chebyshev_polynomial_w", "digamma",
           "entr", "erf", "erfc", "erfcx", "erfinv", "exp2", "expit", "expm1", "gammainc",
           "gammaincc", "gammaln", "hermite_polynomial_h", "hermite_polynomial_he", "i0", "i0e",
           "i1", "i1e", "laguerre_polynomial_l", "legendre_polynomial_p", "lgamma", "log1p",
           "log_ndtr", "log_softmax", "logit", "logsumexp", "modified_bessel_i0",
           "modified_bessel_i1", "modified_bessel_k0", "modified_bessel_k1", "multigammaln",
           "ndtr", "ndtri", "polygamma", "psi", "round", "scaled_modified_bessel_k0",
           "scaled_modified_bessel_k1", "shifted_chebyshev_polynomial_t",
           "shifted_chebyshev_polynomial_u", "shifted_chebyshev_polynomial_v",
           "shifted_chebyshev_polynomial_w", "sinc", "softmax", "spherical_bessel_j0", "xlog1py",
           "xlogy", "zeta"]

_guard_module(globals())
