"""Probability distributions with densities, samples and divergences, as torch.distributions."""

from mlgpu.distributions.categorical import Categorical, OneHotCategorical
from mlgpu.distributions.continuous import Exponential, Gumbel, Laplace, LogNormal, Normal, Uniform
from mlgpu.distributions.discrete import Bernoulli, Geometric, Poisson
from mlgpu.distributions.distribution import Distribution, ExponentialFamily
from mlgpu.distributions.gamma import Beta, Dirichlet, Gamma
from mlgpu.distributions.independent import Independent
from mlgpu.distributions.kl import kl_divergence, register_kl
from mlgpu.distributions.multivariate_normal import MultivariateNormal

__all__ = ["Bernoulli", "Beta", "Categorical", "Dirichlet", "Distribution", "Exponential",
           "ExponentialFamily", "Gamma", "Geometric", "Gumbel", "Independent", "Laplace",
           "LogNormal", "MultivariateNormal", "Normal", "OneHotCategorical", "Poisson", "Uniform",
           "kl_divergence", "register_kl"]
