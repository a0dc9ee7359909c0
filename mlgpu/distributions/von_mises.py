"""A distribution on the circle."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from mlgpu import special
from mlgpu.autograd import no_grad
from mlgpu.distributions import constraints
from mlgpu.distributions.distribution import Distribution, check, parameters
from mlgpu.ops.choice import where
from mlgpu.ops.random import rand
from mlgpu.tensor import Tensor


class VonMises(Distribution):
    """Angles around `loc` of density ~ exp(concentration cos(x - loc)); samples have no gradients.
    """

    arg_constraints = {"loc": constraints.real, "concentration": constraints.positive}  # noqa: RUF012
    support = constraints.real

    def __init__(self, loc: Tensor | float, concentration: Tensor | float,
                 validate_args: bool | None = None) -> None:
        self.loc, self.concentration = parameters(loc, concentration)
        check(self, validate_args, concentration=(self.concentration > 0, "positive"))
        super().__init__(self.loc.shape)

    @property
    def mean(self) -> Tensor:
        """`loc`."""
        return self.loc

    @property
    def mode(self) -> Tensor:
        """`loc`."""
        return self.loc

    @property
    def variance(self) -> Tensor:
        """1 - I1(concentration) / I0(concentration), the circular variance."""
        return 1 - special.i1e(self.concentration) / special.i0e(self.concentration)

    def sample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        """Angles in [-pi, pi), drawn again until all are accepted (Best and Fisher, 1979)."""
        with no_grad():
            shape = self._extended_shape(sample_shape)
            options: Any = {"dtype": self.loc.dtype, "device": self.loc.device}
            # In float64, where 1 + sqrt(1 + 4 k^2) keeps its digits for small k.
            k = self.concentration.double()
            tau = 1 + (1 + 4 * k.square()).sqrt()
            rho = (tau - (2 * tau).sqrt()) / (2 * k)
            r = where(k < 1e-5, 1 / k + k, (1 + rho.square()) / (2 * rho)).to(self.loc.dtype)
            angle, left = self.loc.new_zeros(shape), self.loc.new_ones(shape).bool()
            while bool(left.any()):
                z = (math.pi * rand(*shape, **options)).cos()
                f = (1 + r * z) / (r + z)
                c = self.concentration * (r - f)
                u, side = rand(*shape, **options), rand(*shape, **options) - 0.5
                good = left & ((c * (2 - c) - u > 0) | ((c / u).log() + 1 - c >= 0))
                angle = where(good, side.sign() * f.clamp(-1, 1).acos(), angle)
                left = left & ~good
            return (angle + math.pi + self.loc) % (2 * math.pi) - math.pi

    def log_prob(self, value: Tensor) -> Tensor:
        """The logarithm of the density."""
        k = self.concentration
        return k * ((value - self.loc).cos() - 1) - math.log(2 * math.pi) - special.i0e(k).log()
