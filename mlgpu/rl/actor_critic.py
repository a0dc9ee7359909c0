"""Policies that learn from their own steps: A2C and PPO."""

from __future__ import annotations

from typing import Any

from mlgpu.autograd import no_grad
from mlgpu.errors import ShapeError
from mlgpu.nn.module import Module
from mlgpu.ops.choice import minimum
from mlgpu.rl.agent import Agent
from mlgpu.rl.policies import StochasticPolicy
from mlgpu.tensor import Tensor


class ActorCritic(Agent):
    """A policy, and a network of (n, 1) values of observations: A2C, PPO.

    The loss is that of the policy, plus `value_weight` times half the mean squared error of the
    values, minus `entropy_weight` times the mean entropy.  normalize: advantages have mean 0 and
    standard deviation 1 within a batch.
    """

    policy: StochasticPolicy

    def __init__(self, policy: StochasticPolicy, value: Module, *, value_weight: float = 0.5,
                 entropy_weight: float = 0.0, normalize: bool = False) -> None:
        super().__init__()
        if not isinstance(policy, StochasticPolicy):
            raise TypeError(f"{type(self).__name__}: the policy must be a StochasticPolicy, such "
                            f"as CategoricalPolicy, got {type(policy).__name__}")
        self.policy, self.value = policy, value
        self.value_weight, self.entropy_weight = value_weight, entropy_weight
        self.normalize = normalize

    def values(self, observation: Tensor) -> Tensor:
        """The values of observations: (n,)."""
        found: Tensor = self.value(observation)
        if found.shape != (len(observation), 1):
            raise ShapeError(f"{type(self).__name__}: the value network must give "
                             f"({len(observation)}, 1), got {tuple(found.shape)}")
        return found.squeeze(-1)

    def loss(self, batch: dict[str, Tensor]) -> dict[str, Any]:
        """The loss, its parts, and the entropy."""
        log_prob, entropy = self.policy.evaluate(batch["observation"], batch["action"])
        advantage = batch["advantage"]
        if self.normalize:
            advantage = (advantage - advantage.mean()) / (advantage.std(unbiased=False) + 1e-8)
        policy_loss, further = self.policy_loss(log_prob, batch["log_prob"], advantage)
        value_loss = 0.5 * ((self.values(batch["observation"]) - batch["return"]) ** 2).mean()
        mean = entropy.mean()
        loss = policy_loss + self.value_weight * value_loss - self.entropy_weight * mean
        return {"loss": loss, "policy_loss": policy_loss, "value_loss": value_loss,
                "entropy": mean, **further}

    def policy_loss(self, log_prob: Tensor, before: Tensor, advantage: Tensor
                    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The policy's part of the loss, and what else to log; `before` is log_prob as it acted."""
        raise NotImplementedError(f"{type(self).__name__}: policy_loss is not defined")


class A2C(ActorCritic):
    """Advantage actor-critic: -(log pi(a|s) A).mean().

    The synchronous form of Mnih and others, "Asynchronous methods for deep reinforcement learning"
    (2016).  One pass over each rollout.
    """

    def policy_loss(self, log_prob: Tensor, before: Tensor, advantage: Tensor
                    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Policy gradient."""
        return -(log_prob * advantage).mean(), {}


class PPO(ActorCritic):
    """Proximal policy optimisation: -min(r A, clip(r, 1 - clip, 1 + clip) A).mean(), r = pi / pi'.

    Schulman and others, "Proximal policy optimization algorithms" (2017).  Logs "approx_kl", the
    mean of r - 1 - log r, and "clipped", the share of ratios beyond the bounds.
    """

    def __init__(self, policy: StochasticPolicy, value: Module, *, clip: float = 0.2,
                 value_weight: float = 0.5, entropy_weight: float = 0.0, normalize: bool = True
                 ) -> None:
        super().__init__(policy, value, value_weight=value_weight, entropy_weight=entropy_weight,
                         normalize=normalize)
        if not clip > 0:
            raise ValueError(f"PPO: clip must be above 0, got {clip}")
        self.clip = clip

    def policy_loss(self, log_prob: Tensor, before: Tensor, advantage: Tensor
                    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The clipped surrogate."""
        ratio = (log_prob - before).exp()
        bounded = ratio.clamp(1.0 - self.clip, 1.0 + self.clip)
        loss = -minimum(ratio * advantage, bounded * advantage).mean()
        with no_grad():
            kl = (ratio - 1.0 - (log_prob - before)).mean()
            clipped = (ratio != bounded).to(ratio.dtype).mean()
        return loss, {"approx_kl": kl, "clipped": clipped}
