"""Soft actor-critic."""

from __future__ import annotations

import math
from typing import Any

from mlgpu.autograd import no_grad
from mlgpu.nn.module import Module
from mlgpu.nn.parameter import Parameter
from mlgpu.ops.choice import minimum
from mlgpu.ops.creation import full
from mlgpu.rl.agent import Agent, follow, target_of
from mlgpu.rl.critics import frozen, value
from mlgpu.rl.policies import TanhGaussianPolicy
from mlgpu.tensor import Tensor


class SAC(Agent):
    """Learns to get much reward and stay random: two critics, and a policy that follows the lesser.

    critics: two networks that give (n, 1) of observation and action side by side.  alpha: the worth
    of entropy, or None to learn it such that the entropy is `target_entropy` (by default minus the
    size of an action).  After each step the critics' targets move by `tau`.

    The losses of critics, policy and alpha are added up; each reaches its own parameters alone, so
    one optimizer, with groups where rates differ, does what three would.  Haarnoja and others,
    "Soft actor-critic algorithms and applications" (2018).
    """

    policy: TanhGaussianPolicy

    def __init__(self, policy: TanhGaussianPolicy, critics: tuple[Module, Module], *,
                 alpha: float | None = None, target_entropy: float | None = None,
                 tau: float = 0.005) -> None:
        super().__init__()
        if not 0 < tau <= 1 or (alpha is not None and not alpha > 0):
            raise ValueError("SAC: tau must be above 0 and at most 1, alpha above 0, got "
                             f"{tau} and {alpha}")
        self.policy = policy
        self.first, self.second = critics
        self.first_target, self.second_target = target_of(self.first), target_of(self.second)
        self.log_alpha = Parameter(full((), math.log(1.0 if alpha is None else alpha)),
                                   requires_grad=alpha is None)
        size = policy.reach.numel()
        self.target_entropy = -float(size) if target_entropy is None else target_entropy
        self.tau = tau

    def loss(self, batch: dict[str, Tensor]) -> dict[str, Any]:
        """The sum of the losses of critics, policy and, where it is learnt, alpha."""
        alpha = self.log_alpha.detach().exp()
        with no_grad():
            action, density = self.policy.rsample(batch["next_observation"])
            after = minimum(*(value(critic, batch["next_observation"], action)
                              for critic in (self.first_target, self.second_target)))
            target = batch["reward"] + batch["discount"] * (after - alpha * density)
        values = [value(critic, batch["observation"], batch["action"])
                  for critic in (self.first, self.second)]
        squares = (values[0] - target) ** 2 + (values[1] - target) ** 2
        if "weight" in batch:
            squares = squares * batch["weight"]
        critic_loss = squares.mean()

        action, density = self.policy.rsample(batch["observation"])
        with frozen(self.first), frozen(self.second):
            worth = minimum(*(value(critic, batch["observation"], action)
                              for critic in (self.first, self.second)))
        policy_loss = (alpha * density - worth).mean()
        loss = critic_loss + policy_loss
        if self.log_alpha.requires_grad:
            loss = loss - (self.log_alpha * (density.detach() + self.target_entropy)).mean()
        error = (target - (values[0] + values[1]) / 2).detach()
        return {"loss": loss, "critic_loss": critic_loss, "policy_loss": policy_loss,
                "q": values[0].detach().mean(), "entropy": -density.detach().mean(),
                "alpha": alpha, "td_error": error}

    def after_step(self, step: int) -> None:
        """Move the targets."""
        follow(self.first_target, self.first, self.tau)
        follow(self.second_target, self.second, self.tau)
