"""What to do, by what is seen: policies over a network of yours.

A policy acts on a batch of observations.  Its random numbers come from a generator, so that acting
disturbs no other's.
"""

from __future__ import annotations

import math
from typing import Any

from mlgpu.autograd import no_grad
from mlgpu.distributions import Categorical, Normal
from mlgpu.errors import ShapeError
from mlgpu.nn.functional import softplus
from mlgpu.nn.module import Module
from mlgpu.nn.parameter import Parameter
from mlgpu.ops.choice import where
from mlgpu.ops.creation import full, tensor
from mlgpu.ops.random import rand, randint, randn
from mlgpu.random import Generator
from mlgpu.rl.schedules import Schedule, schedule_of
from mlgpu.rl.spaces import Box, space_of
from mlgpu.tensor import Tensor


class Policy(Module):
    """A policy: `act`, and for those that explore at a rate, `exploration`."""

    def act(self, observation: Tensor, *, step: int = 0, deterministic: bool = False,
            generator: Generator | None = None) -> Tensor:
        """An action for each row of observations.

        step: how many steps the environments have taken, for schedules.  deterministic: the best
        action, and nothing is drawn.  generator: where random numbers come from.
        """
        raise NotImplementedError(f"{type(self).__name__}: act is not defined")

    def exploration(self, step: int) -> float | None:
        """The share of actions that are random ones at a step, where there is such a share."""
        return None


class EpsilonGreedy(Policy):
    """The action of the greatest value, or with probability `epsilon` any: int64 (n,).

    The network gives (n, actions) values.  `epsilon` is a number, or a schedule over the steps of
    the environments.
    """

    def __init__(self, network: Module, epsilon: float | Schedule) -> None:
        super().__init__()
        self.network, self.epsilon = network, schedule_of(epsilon)

    @no_grad()
    def act(self, observation: Tensor, *, step: int = 0, deterministic: bool = False,
            generator: Generator | None = None) -> Tensor:
        values = self.network(observation)
        best: Tensor = values.argmax(-1)
        if deterministic:
            return best
        count, actions = values.shape
        other = randint(0, actions, (count,), generator=generator, device=values.device)
        explores = rand(count, generator=generator, device=values.device) < self.epsilon(step)
        chosen: Tensor = where(explores, other, best)
        return chosen

    def exploration(self, step: int) -> float:
        return self.epsilon(step)


class StochasticPolicy(Policy):
    """A policy that is a distribution, whose probabilities have gradients."""

    def evaluate(self, observation: Tensor, action: Tensor) -> tuple[Tensor, Tensor]:
        """The logarithm of the actions' probabilities, and the distributions' entropies: (n,)."""
        raise NotImplementedError(f"{type(self).__name__}: evaluate is not defined")


class CategoricalPolicy(StochasticPolicy):
    """One of n actions, int64 (n,), by the network's (n, actions) logits."""

    def __init__(self, network: Module) -> None:
        super().__init__()
        self.network = network

    @no_grad()
    def act(self, observation: Tensor, *, step: int = 0, deterministic: bool = False,
            generator: Generator | None = None) -> Tensor:
        logits = self.network(observation)
        if not deterministic:  # Gumbel's noise makes the greatest a draw
            noise = rand(*logits.shape, generator=generator, dtype=logits.dtype,
                         device=logits.device)
            logits = logits - (-noise.log()).log()
        chosen: Tensor = logits.argmax(-1)
        return chosen

    def evaluate(self, observation: Tensor, action: Tensor) -> tuple[Tensor, Tensor]:
        found = Categorical(logits=self.network(observation), validate_args=False)
        return found.log_prob(action), found.entropy()


class GaussianPolicy(StochasticPolicy):
    """Normal actions (n, k): the network gives the means, a parameter the standard deviations.

    What lies beyond the bounds of an action space is cut off where an environment is given it.
    """

    def __init__(self, network: Module, size: int, *, std: float = 1.0) -> None:
        super().__init__()
        if size < 1 or not std > 0:
            raise ShapeError("GaussianPolicy: size must be at least 1 and std above 0, got "
                             f"{size} and {std}")
        self.network = network
        self.log_std = Parameter(full((size,), math.log(std)))

    @no_grad()
    def act(self, observation: Tensor, *, step: int = 0, deterministic: bool = False,
            generator: Generator | None = None) -> Tensor:
        mean: Tensor = self.network(observation)
        if deterministic:
            return mean
        noise = randn(*mean.shape, generator=generator, dtype=mean.dtype, device=mean.device)
        return mean + self.log_std.exp() * noise

    def evaluate(self, observation: Tensor, action: Tensor) -> tuple[Tensor, Tensor]:
        mean = self.network(observation)
        found = Normal(mean, self.log_std.exp().expand(mean.shape), validate_args=False)
        return found.log_prob(action).sum(-1), found.entropy().sum(-1)


class BoundedPolicy(Policy):
    """A policy whose actions lie in a bounded space: (n, *shape of an action)."""

    def __init__(self, network: Module, action_space: Any) -> None:
        super().__init__()
        space, name = space_of(action_space), type(self).__name__
        if not isinstance(space, Box) or not space.bounded or space.numpy.kind != "f":
            raise ShapeError(f"{name}: the action space must be a Box of floats with finite "
                             f"bounds, got {space}")
        self.network, self.shape = network, space.shape
        middle, reach = (space.high + space.low) / 2, (space.high - space.low) / 2
        if not (reach > 0).all():
            raise ShapeError(f"{name}: {space} has a bound with nothing above it")
        self.middle: Tensor
        self.reach: Tensor
        self.register_buffer("middle", tensor(middle.reshape(-1)))
        self.register_buffer("reach", tensor(reach.reshape(-1)))

    def _output(self, observation: Tensor, size: int, what: str) -> Tensor:
        found: Tensor = self.network(observation)
        if found.ndim != 2 or found.shape[1] != size:
            raise ShapeError(f"{type(self).__name__}: the network must give (n, {size}), {what}, "
                             f"got {tuple(found.shape)}")
        return found

    def _scaled(self, unit: Tensor) -> Tensor:
        """What numbers from -1 to 1 are in the space."""
        return (self.middle + self.reach * unit).reshape(-1, *self.shape)


class DeterministicPolicy(BoundedPolicy):
    """The network's (n, k) numbers squashed by tanh into the space, and normal noise to explore.

    `noise` is its standard deviation in halves of the space's width, a number or a schedule over
    the steps of the environments; what it moves beyond the bounds is cut off.
    """

    def __init__(self, network: Module, action_space: Any, noise: float | Schedule = 0.1) -> None:
        super().__init__(network, action_space)
        self.noise = schedule_of(noise)

    def forward(self, observation: Tensor, noise: Tensor | None = None) -> Tensor:
        """The best actions, or others by (n, k) `noise`, in halves of the space's width."""
        unit = self._output(observation, self.reach.numel(), "numbers of an action").tanh()
        return self._scaled(unit if noise is None else (unit + noise).clamp(-1.0, 1.0))

    @no_grad()
    def act(self, observation: Tensor, *, step: int = 0, deterministic: bool = False,
            generator: Generator | None = None) -> Tensor:
        if deterministic:
            return self.forward(observation)
        noise = randn(len(observation), self.reach.numel(), generator=generator,
                      dtype=self.reach.dtype, device=self.reach.device)
        return self.forward(observation, noise * self.noise(step))


class TanhGaussianPolicy(BoundedPolicy):
    """Normal values squashed by tanh into the space.

    The network gives (n, 2 k) for k numbers of an action: means, and logarithms of standard
    deviations, which are kept in [-20, 2].  As in "Soft actor-critic" (Haarnoja and others, 2018).
    """

    def _parameters_of(self, observation: Tensor) -> tuple[Tensor, Tensor]:
        size = self.reach.numel()
        out = self._output(observation, 2 * size, "means and logarithms of deviations")
        return out[:, :size], out[:, size:].clamp(-20.0, 2.0)

    @no_grad()
    def act(self, observation: Tensor, *, step: int = 0, deterministic: bool = False,
            generator: Generator | None = None) -> Tensor:
        mean, log_std = self._parameters_of(observation)
        if not deterministic:
            mean = mean + log_std.exp() * randn(*mean.shape, generator=generator,
                                                dtype=mean.dtype, device=mean.device)
        return self._scaled(mean.tanh())

    def rsample(self, observation: Tensor, generator: Generator | None = None
                ) -> tuple[Tensor, Tensor]:
        """Actions with gradients for the network, and the logarithm of their densities: (n,).

        By the change of variables, log p(a) = log p(u) - sum of log(reach (1 - tanh² u)).
        """
        mean, log_std = self._parameters_of(observation)
        noise = randn(*mean.shape, generator=generator, dtype=mean.dtype, device=mean.device)
        raw = mean + log_std.exp() * noise
        normal = -0.5 * noise * noise - log_std - 0.5 * math.log(2 * math.pi)
        # log(1 - tanh² u) without the difference, which is 0 for a large u
        squashed = 2.0 * (math.log(2.0) - raw - softplus(-2.0 * raw))
        density = (normal - squashed - self.reach.log()).sum(-1)
        return self._scaled(raw.tanh()), density
