"""Distributions made of others, their transforms and constraints, against SciPy and autograd."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import integrate, stats

import mlgpu
from mlgpu import distributions as D
from mlgpu.errors import ShapeError

RNG = np.random.default_rng(1)
A, B = RNG.uniform(2.5, 4.0, 5), RNG.uniform(0.5, 1.5, 5)
V = RNG.uniform(1.6, 2.5, (3, 5))
K = np.floor(V)

# name: parameters, values, SciPy's distribution of the parameters
FAMILIES = {
    "LogNormal": ((A, B), V, lambda m, s: stats.lognorm(s, scale=np.exp(m))),
    "StudentT": ((A, B, B), V, lambda n, m, s: stats.t(n, m, s)),
    "Cauchy": ((A, B), V, lambda m, s: stats.cauchy(m, s)),
    "HalfNormal": ((B,), V, lambda s: stats.halfnorm(scale=s)),
    "HalfCauchy": ((B,), V, lambda s: stats.halfcauchy(scale=s)),
    "Chi2": ((A,), V, lambda n: stats.chi2(n)),
    "FisherSnedecor": ((A, A + 2), V, lambda a, b: stats.f(a, b)),
    "InverseGamma": ((A, B), V, lambda a, r: stats.invgamma(a, scale=r)),
    "Pareto": ((B, A), V, lambda s, a: stats.pareto(a, scale=s)),
    "Weibull": ((B, A), V, lambda s, c: stats.weibull_min(c, scale=s)),
    "VonMises": ((B, A), V, lambda m, k: stats.vonmises(k, m)),
    "Binomial": ((np.floor(A) + 2, B / 2), K, lambda n, p: stats.binom(n, p)),
    "NegativeBinomial": ((A, B / 2), K, lambda n, p: stats.nbinom(n, 1 - p)),
}


def made(name):
    return getattr(D, name)(*[mlgpu.tensor(p) for p in FAMILIES[name][0]])


@pytest.mark.parametrize("name", list(FAMILIES))
def test_densities_and_moments_are_scipys(name):
    parameters, values, reference = FAMILIES[name]
    d, known = made(name), reference(*parameters)
    density = known.logpmf if hasattr(known.dist, "pmf") else known.logpdf
    np.testing.assert_allclose(d.log_prob(mlgpu.tensor(values)).numpy(), density(values),
                               rtol=1e-9)
    if name not in ("Cauchy", "HalfCauchy", "VonMises"):
        np.testing.assert_allclose(d.mean.numpy(), known.mean(), rtol=1e-9)
        np.testing.assert_allclose(d.variance.numpy(), known.var(), rtol=1e-8)
    if name in ("LogNormal", "StudentT", "Cauchy", "HalfNormal", "InverseGamma", "Weibull"):
        np.testing.assert_allclose(d.entropy().numpy(), known.entropy(), rtol=1e-6)
    if name in ("LogNormal", "Cauchy", "HalfNormal", "Pareto", "Weibull"):
        x = mlgpu.tensor(values)
        np.testing.assert_allclose(d.cdf(x).numpy(), known.cdf(values), rtol=1e-9)
        u = mlgpu.tensor([[0.1], [0.6]]).double()
        np.testing.assert_allclose(d.cdf(d.icdf(u)).numpy(), u.expand(2, 5).numpy(), rtol=1e-9)


@pytest.mark.parametrize("name", list(FAMILIES))
def test_samples_lie_where_the_density_is(name):
    mlgpu.manual_seed(0)
    d, known = made(name), FAMILIES[name][2](*FAMILIES[name][0])
    drawn = d.sample((4000,))
    assert tuple(drawn.shape) == (4000, 5)
    assert bool(d.support.check(drawn).all())
    middle = FAMILIES[name][1][0]
    expected = known.cdf(middle)
    below = (drawn.numpy() <= middle).mean(0)
    assert np.abs(below - expected).max() < 5 * np.sqrt(0.25 / 4000)
    wider = d.expand((2, 5))
    assert tuple(wider.sample().shape) == (2, 5)
    x = mlgpu.tensor(FAMILIES[name][1][:2])
    np.testing.assert_array_equal(wider.log_prob(x).numpy(), d.log_prob(x).numpy())


TRANSFORMS = {
    "exp": (D.ExpTransform(), (4,)),
    "power": (D.ComposeTransform([D.ExpTransform(), D.PowerTransform(2.0)]), (4,)),
    "sigmoid": (D.SigmoidTransform(), (4,)), "softplus": (D.SoftplusTransform(), (4,)),
    "tanh": (D.TanhTransform(), (4,)), "affine": (D.AffineTransform(1.0, -3.0), (4,)),
    "stick": (D.StickBreakingTransform(), (4,)), "corr": (D.CorrCholeskyTransform(), (6,)),
    "reshape": (D.ReshapeTransform((4,), (2, 2)), (4,)),
    "independent": (D.IndependentTransform(D.ExpTransform(), 1), (4,)),
    "inverse": (D.ComposeTransform([D.SigmoidTransform(), D.SigmoidTransform().inv]), (4,)),
    "cat": (D.CatTransform([D.ExpTransform(), D.TanhTransform()], 0, [1, 3]), (4,)),
    "stack": (D.StackTransform([D.ExpTransform(), D.TanhTransform()], 0), (2,)),
}


@pytest.mark.parametrize("name", list(TRANSFORMS))
def test_a_transform_has_its_inverse_and_determinant(name):
    transform, shape = TRANSFORMS[name]
    x = mlgpu.tensor(np.random.default_rng(2).standard_normal(shape))
    y = transform(x)
    assert tuple(y.shape) == tuple(transform.forward_shape(shape))
    np.testing.assert_allclose(transform.inv(y).numpy(), x.numpy(), rtol=1e-9)
    assert bool(transform.codomain.check(y).all())
    found = transform.log_abs_det_jacobian(x, y).sum().item()
    free = {"stick": lambda t: t[:-1], "corr": lambda t: t[tuple(mlgpu.tril_indices(4, 4, -1))]}
    jacobian = mlgpu.autograd.functional.jacobian(
        lambda t: free.get(name, lambda u: u)(transform(t)).reshape(-1), x)
    assert found == pytest.approx(mlgpu.slogdet(jacobian).logabsdet.item(), rel=1e-8, abs=1e-12)


@pytest.mark.parametrize("constraint", [
    D.constraints.positive, D.constraints.greater_than(2.0), D.constraints.less_than(-1.0),
    D.constraints.interval(1.0, 3.0), D.constraints.simplex, D.constraints.lower_cholesky,
    D.constraints.positive_definite, D.constraints.corr_cholesky, D.constraints.real_vector],
    ids=repr)
def test_there_is_a_way_into_each_set(constraint):
    flat = constraint.event_dim < 2 or constraint is D.constraints.corr_cholesky
    shape = (6,) if flat else (3, 3)
    x = mlgpu.tensor(np.random.default_rng(3).standard_normal(shape))
    for registry in (D.biject_to, D.transform_to):
        assert bool(constraint.check(registry(constraint)(x)).all())
    with pytest.raises(NotImplementedError):
        D.biject_to(D.constraints.nonnegative_integer)


def test_values_of_a_transformed_distribution():
    base = D.Normal(mlgpu.zeros(2, dtype=mlgpu.float64), 1.0)
    d = D.TransformedDistribution(base, [D.TanhTransform(cache_size=1)])
    mlgpu.manual_seed(0)
    x = d.rsample((3,))
    expected = base.log_prob(x.atanh()) - (1 - x.square()).log()
    np.testing.assert_allclose(d.log_prob(x).numpy(), expected.numpy(), rtol=1e-9)
    assert tuple(d.expand((4, 2)).sample().shape) == (4, 2)
    simplex = D.LogisticNormal(mlgpu.zeros(3), mlgpu.ones(3))
    assert tuple(simplex.event_shape) == (4,)
    assert simplex.sample().sum().item() == pytest.approx(1, abs=1e-5)
    with pytest.raises(ShapeError):
        D.TransformedDistribution(D.Normal(0.0, 1.0), D.StickBreakingTransform())


def test_mixtures_vectors_and_matrices():
    weights = np.array([0.3, 0.7])
    d = D.MixtureSameFamily(D.Categorical(mlgpu.tensor(weights)),
                            D.Normal(mlgpu.tensor([0.0, 2.0]).double(), 1.0))
    x = np.linspace(-2, 4, 7)
    parts = stats.norm([0, 2], 1).pdf(x[:, None])
    np.testing.assert_allclose(d.log_prob(mlgpu.tensor(x)).exp().numpy(), parts @ weights)
    assert d.mean.item() == pytest.approx(1.4)
    assert d.variance.item() == pytest.approx(1 + 4 * 0.21)
    assert tuple(d.sample((5,)).shape) == (5,)

    w = np.random.default_rng(4).standard_normal((4, 2))
    low = D.LowRankMultivariateNormal(mlgpu.zeros(4).double(), mlgpu.tensor(w),
                                      mlgpu.ones(4).double())
    full = D.MultivariateNormal(mlgpu.zeros(4).double(), low.covariance_matrix)
    v = mlgpu.tensor(np.random.default_rng(5).standard_normal((3, 4)))
    np.testing.assert_allclose(low.log_prob(v).numpy(), full.log_prob(v).numpy(), rtol=1e-9)
    assert low.entropy().item() == pytest.approx(full.entropy().item())

    counts = D.Multinomial(4, mlgpu.tensor(weights))
    assert counts.log_prob(mlgpu.tensor([1.0, 3.0]).double()).item() == pytest.approx(
        stats.multinomial(4, weights).logpmf([1, 3]))
    assert counts.sample((7,)).sum(-1).tolist() == [4.0] * 7

    scale = w.T @ w
    wishart = D.Wishart(mlgpu.tensor(4.0).double(), mlgpu.tensor(scale))
    matrix = np.eye(2) * 3 + 0.5
    assert wishart.log_prob(mlgpu.tensor(matrix)).item() == pytest.approx(
        stats.wishart(4, scale).logpdf(matrix))
    assert bool(wishart.support.check(wishart.sample((3,))).all())

    lkj = D.LKJCholesky(2, mlgpu.tensor(1.5).double())

    def density(r):  # of the second row's first entry
        factor = mlgpu.tensor([[1.0, 0.0], [r, (1 - r * r) ** 0.5]]).double()
        return lkj.log_prob(factor).exp().item()

    assert integrate.quad(density, -1, 1)[0] == pytest.approx(1, rel=1e-6)
    assert bool(lkj.support.check(lkj.sample((3,))).all())


def test_smooth_stand_ins():
    p = mlgpu.tensor([0.2, 0.4999, 0.8]).double().requires_grad_()
    d = D.ContinuousBernoulli(p)
    for i in range(3):
        total = integrate.quad(lambda x, i=i: d.log_prob(mlgpu.tensor(x).double()).exp()[i].item(),
                               0, 1)[0]
        assert total == pytest.approx(1, rel=1e-6)
    np.testing.assert_allclose(d.icdf(mlgpu.tensor([0.0, 1.0]).double()[:, None]).detach().numpy(),
                               [[0] * 3, [1] * 3], atol=1e-9)
    relaxed, t = D.RelaxedBernoulli(0.5, p), D.SigmoidTransform()
    z = mlgpu.linspace(-30, 30, 6001).double()[:, None]  # the logit of the value
    x = t(z)
    density = (relaxed.log_prob(x) + t.log_abs_det_jacobian(z, x)).exp()
    np.testing.assert_allclose((density.sum(0) * 0.01).detach().numpy(), 1, rtol=1e-5)
    relaxed.rsample((4,)).sum().backward()
    assert p.grad is not None
    logits = mlgpu.zeros(3, requires_grad=True)
    one_hot = D.RelaxedOneHotCategorical(0.5, logits=logits).rsample()
    assert one_hot.sum().item() == pytest.approx(1, abs=1e-5)
    straight = D.OneHotCategoricalStraightThrough(logits=logits).rsample()
    assert sorted(straight.tolist()) == pytest.approx([0, 0, 1], abs=1e-6)
    (straight * mlgpu.arange(3.0)).sum().backward()
    assert logits.grad.abs().sum().item() > 0


def test_an_icdf_is_the_inverse_of_the_cdf():
    x = mlgpu.tensor([0.2, 0.9]).double()
    for d in (D.Exponential(1.5), D.Uniform(0.0, 1.0), D.Laplace(0.5, 2.0), D.Gumbel(0.1, 0.7)):
        np.testing.assert_allclose(d.icdf(d.cdf(x)).numpy(), x.numpy(), rtol=1e-7)
