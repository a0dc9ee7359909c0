"""The Kullback-Leibler divergence, in closed form."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from mlgpu import linalg
from mlgpu.distributions.categorical import Categorical, OneHotCategorical
from mlgpu.distributions.continuous import Exponential, Laplace, Normal, Uniform
from mlgpu.distributions.discrete import Bernoulli, Poisson
from mlgpu.distributions.distribution import Distribution
from mlgpu.distributions.independent import Independent, summed
from mlgpu.distributions.multivariate_normal import MultivariateNormal
from mlgpu.errors import ShapeError
from mlgpu.nn.functional import softplus
from mlgpu.tensor import Tensor

Form = TypeVar("Form", bound=Callable[..., Tensor])
_FORMS: dict[tuple[type, type], Callable[[Any, Any], Tensor]] = {}


def register_kl(type_p: type, type_q: type) -> Callable[[Form], Form]:
    """A decorator: the function gives the divergence of two such distributions."""
    def register(function: Form) -> Form:
        _FORMS[type_p, type_q] = function
        return function

    return register


def kl_divergence(p: Distribution, q: Distribution) -> Tensor:
    """E_p[log p - log q] in nats, of the shape batch_shape.

    The form registered for the nearest classes is taken; NotImplementedError where there is none.
    """
    for type_p in type(p).__mro__:
        for type_q in type(q).__mro__:
            if (type_p, type_q) in _FORMS:
                return _FORMS[type_p, type_q](p, q)
    raise NotImplementedError(f"kl_divergence: no closed form is known for {type(p).__name__} "
                              f"from {type(q).__name__}; register_kl adds one")


@register_kl(Normal, Normal)
def _normal(p: Normal, q: Normal) -> Tensor:
    ratio = (p.scale / q.scale).square()
    apart = ((p.loc - q.loc) / q.scale).square()
    return 0.5 * (ratio + apart - 1 - ratio.log())


@register_kl(Bernoulli, Bernoulli)
def _bernoulli(p: Bernoulli, q: Bernoulli) -> Tensor:
    a, b = p.logits, q.logits
    return p.probs * (softplus(-b) - softplus(-a)) + (1 - p.probs) * (softplus(b) - softplus(a))


@register_kl(Categorical, Categorical)
def _categorical(p: Categorical, q: Categorical) -> Tensor:
    terms = p.probs * (p.logits - q.logits)
    terms = terms.masked_fill((q.probs == 0).expand_as(terms), float("inf"))
    return terms.masked_fill((p.probs == 0).expand_as(terms), 0).sum(-1)


@register_kl(OneHotCategorical, OneHotCategorical)
def _one_hot(p: OneHotCategorical, q: OneHotCategorical) -> Tensor:
    return _categorical(p._categorical, q._categorical)


@register_kl(Uniform, Uniform)
def _uniform(p: Uniform, q: Uniform) -> Tensor:
    result = ((q.high - q.low) / (p.high - p.low)).log()
    return result.masked_fill((q.low > p.low) | (q.high < p.high), float("inf"))


@register_kl(Exponential, Exponential)
def _exponential(p: Exponential, q: Exponential) -> Tensor:
    ratio = q.rate / p.rate
    return ratio - 1 - ratio.log()


@register_kl(Laplace, Laplace)
def _laplace(p: Laplace, q: Laplace) -> Tensor:
    ratio, apart = p.scale / q.scale, (p.loc - q.loc).abs()
    return apart / q.scale + ratio * (-apart / p.scale).exp() - ratio.log() - 1


@register_kl(Poisson, Poisson)
def _poisson(p: Poisson, q: Poisson) -> Tensor:
    return p.rate * (p.rate.log() - q.rate.log()) - (p.rate - q.rate)


@register_kl(MultivariateNormal, MultivariateNormal)
def _multivariate(p: MultivariateNormal, q: MultivariateNormal) -> Tensor:
    n = p.event_shape[0]
    apart = (q.loc - p.loc)[..., None]
    both = linalg.solve_triangular(q.scale_tril, p.scale_tril, upper=False)
    z = linalg.solve_triangular(q.scale_tril, apart, upper=False)
    return (q._half_log_det() - p._half_log_det()
            + 0.5 * (both.square().sum((-2, -1)) + z.square().sum((-2, -1)) - n))


@register_kl(Independent, Independent)
def _independent(p: Independent, q: Independent) -> Tensor:
    if p.reinterpreted_batch_ndims != q.reinterpreted_batch_ndims:
        raise ShapeError("kl_divergence: Independent distributions over different dimensions")
    return summed(kl_divergence(p.base_dist, q.base_dist), p.reinterpreted_batch_ndims)
