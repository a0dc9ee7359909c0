"""Distributions: densities, moments, samples and divergences against SciPy and PyTorch."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

import mlgpu
from mlgpu import distributions as D
from mlgpu.errors import DerivativeError, ShapeError

RNG = np.random.default_rng(0)
P, B = RNG.uniform(0.2, 0.9, (3, 4)), RNG.standard_normal((3, 4))
V = RNG.uniform(0.3, 0.8, (2, 3, 4))
L = np.tril(RNG.standard_normal((3, 4, 4))) + 3 * np.eye(4)

# name: parameters, others of the same family, values, SciPy's distribution of the parameters
FAMILIES = {
    "Normal": ((B, P), (B[::-1] + 1, P[::-1]), V, lambda m, s: stats.norm(m, s)),
    "LogNormal": ((B, P), None, V, lambda m, s: stats.lognorm(s, scale=np.exp(m))),
    "Laplace": ((B, P), (B[::-1] + 1, P[::-1]), V, lambda m, s: stats.laplace(m, s)),
    "Gumbel": ((B, P), None, V, lambda m, s: stats.gumbel_r(m, s)),
    "Uniform": ((B - 5, B + 5), (B - 6, B + 7), V, lambda a, b: stats.uniform(a, b - a)),
    "Exponential": ((P,), (P[::-1],), V, lambda r: stats.expon(scale=1 / r)),
    "Bernoulli": ((P,), (P[::-1],), (V > 0.5) * 1.0, lambda p: stats.bernoulli(p)),
    "Geometric": ((P,), None, np.floor(V * 5), lambda p: stats.geom(p, loc=-1)),
    "Poisson": ((P,), (P[::-1],), np.floor(V * 5), lambda r: stats.poisson(r)),
    "Gamma": ((P * 3, P), None, V, lambda a, r: stats.gamma(a, scale=1 / r)),
    "Beta": ((P * 3, P + 0.5), None, V, lambda a, b: stats.beta(a, b)),
    "Dirichlet": ((P * 3,), None, V / V.sum(-1, keepdims=True), None),
    "Categorical": ((P,), (P[::-1],), RNG.integers(0, 4, (2, 3)), None),
    "OneHotCategorical": ((P,), (P[::-1],), np.eye(4)[RNG.integers(0, 4, (2, 3))], None),
}


def made(name, parameters, lib=mlgpu, family=D, **options):
    return getattr(family, name)(*[lib.tensor(p.copy(), **options) for p in parameters])


@pytest.mark.parametrize("name", [n for n, f in FAMILIES.items() if f[3]])
def test_densities_and_moments_are_scipys(name, device):
    parameters, _, values, reference = FAMILIES[name]
    d, known = made(name, parameters, device=device), reference(*parameters)
    density = known.logpmf if hasattr(known.dist, "pmf") else known.logpdf
    np.testing.assert_allclose(d.log_prob(mlgpu.tensor(values, device=device)).cpu().numpy(),
                               density(values), rtol=1e-9)
    np.testing.assert_allclose(d.mean.cpu().numpy(), known.mean(), rtol=1e-9)
    np.testing.assert_allclose(d.stddev.cpu().numpy(), known.std(), rtol=1e-9)
    if name != "Poisson":
        np.testing.assert_allclose(d.entropy().cpu().numpy(), known.entropy(), rtol=1e-6)


@pytest.mark.parametrize("name", list(FAMILIES))
def test_samples_have_shape_dtype_and_mean(name, device):
    mlgpu.manual_seed(0)
    d = made(name, FAMILIES[name][0], device=device)
    drawn = d.sample((4000,))
    assert tuple(drawn.shape) == (4000, *d.batch_shape, *d.event_shape)
    assert not drawn.requires_grad
    if name == "Categorical":
        assert drawn.dtype is mlgpu.int64
        counts = np.stack([np.bincount(c, minlength=4) for c in drawn.cpu().numpy().T])
        assert np.abs(counts / 4000 - d.probs.cpu().numpy()).max() < 0.04
    else:
        apart = (drawn.mean(0) - d.mean).abs() / (d.stddev / 4000**0.5)
        assert apart.max().item() < 5  # standard errors


@pytest.mark.parametrize("name", ["Normal", "LogNormal", "Laplace", "Gumbel", "Uniform",
                                  "Exponential"])
def test_rsample_has_gradients(name):
    parameters = [mlgpu.tensor(p, requires_grad=True) for p in FAMILIES[name][0]]
    getattr(D, name)(*parameters).rsample((5,)).sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum().item() > 0 for p in parameters)


def test_what_has_no_smooth_samples_says_so():
    with pytest.raises(DerivativeError, match=r"Bernoulli.*sample\(\) and log_prob"):
        D.Bernoulli(0.5).rsample()


def test_normal_and_uniform_have_inverses():
    n = made("Normal", (B, P))
    np.testing.assert_allclose(n.cdf(n.icdf(mlgpu.tensor(V))).numpy(), V, rtol=1e-9)
    log_normal = made("LogNormal", (B, P))
    np.testing.assert_allclose(log_normal.cdf(log_normal.icdf(mlgpu.tensor(V))).numpy(), V)
    for name in ("Laplace", "Uniform", "Exponential"):
        known = FAMILIES[name][3](*FAMILIES[name][0])
        np.testing.assert_allclose(made(name, FAMILIES[name][0]).cdf(mlgpu.tensor(V)).numpy(),
                                   known.cdf(V), rtol=1e-9)


def test_multivariate_normal_is_scipys():
    d = D.MultivariateNormal(mlgpu.tensor(B[0]), scale_tril=mlgpu.tensor(L[0]))
    known = stats.multivariate_normal(B[0], L[0] @ L[0].T)
    np.testing.assert_allclose(d.log_prob(mlgpu.tensor(V)).numpy(), known.logpdf(V), rtol=1e-9)
    np.testing.assert_allclose(d.entropy().item(), known.entropy(), rtol=1e-9)
    same = D.MultivariateNormal(mlgpu.tensor(B[0]), precision_matrix=d.precision_matrix)
    np.testing.assert_allclose(same.covariance_matrix.numpy(), L[0] @ L[0].T, rtol=1e-6)
    assert D.kl_divergence(d, same).abs().item() < 1e-9
    mlgpu.manual_seed(0)
    drawn = d.rsample((4000,))
    assert (mlgpu.cov(drawn.mT) - d.covariance_matrix).abs().max().item() < 1.5


def test_independent_sums_over_what_it_takes_as_one():
    d = D.Independent(made("Normal", (B, P)), 1)
    assert [tuple(d.batch_shape), tuple(d.event_shape)] == [(3,), (4,)]
    base = d.base_dist
    assert mlgpu.equal(d.log_prob(mlgpu.tensor(V)), base.log_prob(mlgpu.tensor(V)).sum(-1))
    assert mlgpu.equal(d.entropy(), base.entropy().sum(-1))
    assert D.kl_divergence(d, d).tolist() == [0, 0, 0]
    with pytest.raises(ShapeError, match="Independent"):
        D.Independent(base, 3)


@pytest.mark.parametrize("bad", [
    lambda: D.Normal(0.0, -1.0), lambda: D.Uniform(1.0, 0.0), lambda: D.Exponential(0.0),
    lambda: D.Bernoulli(1.5), lambda: D.Bernoulli(), lambda: D.Bernoulli(0.5, 0.5),
    lambda: D.Categorical(mlgpu.tensor([-1.0, 2.0])), lambda: D.Categorical(mlgpu.tensor(0.5)),
    lambda: D.Categorical(logits=mlgpu.tensor([float("nan"), 0.0])), lambda: D.Poisson(-1.0),
    lambda: D.MultivariateNormal(mlgpu.zeros(2))])
def test_impossible_parameters_are_refused_as_by_pytorch(bad):
    with pytest.raises(ValueError, match=r"^[A-Z]\w+: "):
        bad()


def test_a_divergence_without_closed_form_is_named():
    with pytest.raises(NotImplementedError, match="Normal from Uniform"):
        D.kl_divergence(D.Normal(0.0, 1.0), D.Uniform(0.0, 1.0))


@pytest.mark.parametrize("name", list(FAMILIES))
def test_as_pytorch(name):
    torch = pytest.importorskip("torch")
    parameters, others, values, _ = FAMILIES[name]
    ours, theirs = made(name, parameters), made(name, parameters, torch, torch.distributions)
    np.testing.assert_allclose(ours.log_prob(mlgpu.tensor(values)).numpy(),
                               theirs.log_prob(torch.tensor(values)).numpy(), rtol=1e-9)
    assert tuple(ours.sample((2,)).shape) == tuple(theirs.sample((2,)).shape)
    if name != "Poisson":
        np.testing.assert_allclose(ours.entropy().numpy(), theirs.entropy().numpy(), rtol=1e-9)
    if others is not None:
        np.testing.assert_allclose(
            D.kl_divergence(ours, made(name, others)).numpy(),
            torch.distributions.kl_divergence(
                theirs, made(name, others, torch, torch.distributions)).numpy(), rtol=1e-9)
