"""Twin delayed deep deterministic policy gradient."""

from __future__ import annotations

from typing import Any

from mlgpu.autograd import no_grad
from mlgpu.nn.module import Module
from mlgpu.ops.choice import minimum
from mlgpu.ops.random import randn_like
from mlgpu.rl.agent import Agent, follow, target_of
from mlgpu.rl.critics import frozen, value
from mlgpu.rl.policies import DeterministicPolicy
from mlgpu.tensor import Tensor


class TD3(Agent):
    """Learns actions without chance by the lesser of two critics, more slowly than these.

    critics: two networks that give (n, 1) of observation and action side by side.  Every
    `policy_every` steps the policy learns, and the targets move by `tau`.  The target's action is
    blurred by normal noise of `target_noise`, cut off at `noise_clip`, in halves of the space's
    width.  Fujimoto and others, "Addressing function approximation error in actor-critic methods"
    (2018).  With policy_every=1 and target_noise=0 it is DDPG with two critics.

    The losses of critics and policy are added up; each reaches its own parameters alone, so one
    optimizer, with groups where rates differ, does what two would.
    """

    policy: DeterministicPolicy

    def __init__(self, policy: DeterministicPolicy, critics: tuple[Module, Module], *,
                 policy_every: int = 2, target_noise: float = 0.2, noise_clip: float = 0.5,
                 tau: float = 0.005) -> None:
        super().__init__()
        if not 0 < tau <= 1 or policy_every < 1 or target_noise < 0 or noise_clip < 0:
            raise ValueError("TD3: tau must be above 0 and at most 1, policy_every at least 1, "
                             "target_noise and noise_clip not negative, got "
                             f"{tau}, {policy_every}, {target_noise} and {noise_clip}")
        self.policy, self.policy_target = policy, target_of(policy)
        self.first, self.second = critics
        self.first_target, self.second_target = target_of(self.first), target_of(self.second)
        self.policy_every, self.tau = policy_every, tau
        self.target_noise, self.noise_clip = target_noise, noise_clip
        self._steps = 0  # of the optimizer

    def loss(self, batch: dict[str, Tensor]) -> dict[str, Any]:
        """The critics' loss, and where it is the policy's turn, the policy's added."""
        seen, after = batch["observation"], batch["next_observation"]
        with no_grad():
            noise = randn_like(batch["action"].flatten(1)) * self.target_noise
            action = self.policy_target(after, noise.clamp(-self.noise_clip, self.noise_clip))
            follows = minimum(value(self.first_target, after, action),
                              value(self.second_target, after, action))
            target = batch["reward"] + batch["discount"] * follows
        first = value(self.first, seen, batch["action"])
        second = value(self.second, seen, batch["action"])
        squares = (first - target) ** 2 + (second - target) ** 2
        if "weight" in batch:
            squares = squares * batch["weight"]
        loss = critic_loss = squares.mean()
        found = {"critic_loss": critic_loss, "q": first.detach().mean(),
                 "td_error": (target - (first + second) / 2).detach()}
        if (self._steps + 1) % self.policy_every == 0:
            with frozen(self.first):
                found["policy_loss"] = -value(self.first, seen, self.policy(seen)).mean()
            loss = loss + found["policy_loss"]
        return {"loss": loss, **found}

    def after_step(self, step: int) -> None:
        """Move the targets, where the policy has learnt."""
        self._steps = step
        if step % self.policy_every == 0:
            for target, source in ((self.policy_target, self.policy),
                                   (self.first_target, self.first),
                                   (self.second_target, self.second)):
                follow(target, source, self.tau)

    def get_extra_state(self) -> int:
        """Whose turn it is, for `state_dict`."""
        return self._steps

    def set_extra_state(self, state: int) -> None:
        """Take back what `get_extra_state` gave."""
        self._steps = int(state)
