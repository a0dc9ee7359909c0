"""Probability distributions with densities, samples and divergences, as torch.distributions."""

from mlgpu.distributions import constraints as constraints
from mlgpu.distributions import transforms as transforms
from mlgpu.distributions.categorical import Categorical, OneHotCategorical
from mlgpu.distributions.constraint_registry import biject_to, transform_to
from mlgpu.distributions.continuous import Exponential, Gumbel, Laplace, Normal, Uniform
from mlgpu.distributions.counts import Binomial, Multinomial, NegativeBinomial
from mlgpu.distributions.discrete import Bernoulli, Geometric, Poisson
from mlgpu.distributions.distribution import Distribution, ExponentialFamily
from mlgpu.distributions.gamma import Beta, Dirichlet, Gamma
from mlgpu.distributions.heavy import (
    Cauchy,
    Chi2,
    FisherSnedecor,
    HalfCauchy,
    HalfNormal,
    InverseGamma,
    Kumaraswamy,
    LogisticNormal,
    LogNormal,
    Pareto,
    StudentT,
    Weibull,
)
from mlgpu.distributions.independent import Independent
from mlgpu.distributions.kl import kl_divergence, register_kl
from mlgpu.distributions.low_rank import LowRankMultivariateNormal
from mlgpu.distributions.matrices import LKJCholesky, Wishart
from mlgpu.distributions.mixture import MixtureSameFamily
from mlgpu.distributions.multivariate_normal import MultivariateNormal
from mlgpu.distributions.relaxed import (
    ContinuousBernoulli,
    ExpRelaxedCategorical,
    LogitRelaxedBernoulli,
    OneHotCategoricalStraightThrough,
    RelaxedBernoulli,
    RelaxedOneHotCategorical,
)
from mlgpu.distributions.transformed import TransformedDistribution
from mlgpu.distributions.transforms import (
    AbsTransform,
    AffineTransform,
    CatTransform,
    ComposeTransform,
    CorrCholeskyTransform,
    CumulativeDistributionTransform,
    ExpTransform,
    IndependentTransform,
    LowerCholeskyTransform,
    PositiveDefiniteTransform,
    PowerTransform,
    ReshapeTransform,
    SigmoidTransform,
    SoftmaxTransform,
    SoftplusTransform,
    StackTransform,
    StickBreakingTransform,
    TanhTransform,
    Transform,
    identity_transform,
)
from mlgpu.distributions.von_mises import VonMises

__all__ = ["AbsTransform", "AffineTransform", "Bernoulli", "Beta", "Binomial", "CatTransform",
           "Categorical", "Cauchy", "Chi2", "ComposeTransform", "ContinuousBernoulli",
           "CorrCholeskyTransform", "CumulativeDistributionTransform", "Dirichlet",
           "Distribution", "ExpRelaxedCategorical", "ExpTransform", "Exponential",
           "ExponentialFamily", "FisherSnedecor", "Gamma", "Geometric", "Gumbel", "HalfCauchy",
           "HalfNormal", "Independent", "IndependentTransform", "InverseGamma", "Kumaraswamy",
           "LKJCholesky", "Laplace", "LogNormal", "LogisticNormal", "LogitRelaxedBernoulli",
           "LowRankMultivariateNormal", "LowerCholeskyTransform", "MixtureSameFamily",
           "Multinomial", "MultivariateNormal", "NegativeBinomial", "Normal", "OneHotCategorical",
           "OneHotCategoricalStraightThrough", "Pareto", "Poisson", "PositiveDefiniteTransform",
           "PowerTransform", "RelaxedBernoulli", "RelaxedOneHotCategorical", "ReshapeTransform",
           "SigmoidTransform", "SoftmaxTransform", "SoftplusTransform", "StackTransform",
           "StickBreakingTransform", "StudentT", "TanhTransform", "Transform",
           "TransformedDistribution", "Uniform", "VonMises", "Weibull", "Wishart", "biject_to",
           "identity_transform", "kl_divergence", "register_kl", "transform_to"]
