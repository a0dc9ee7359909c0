"""Deep Q-networks."""

from __future__ import annotations

from typing import Any

from mlgpu.autograd import no_grad
from mlgpu.errors import ShapeError
from mlgpu.nn.functional import huber_loss
from mlgpu.nn.module import Module
from mlgpu.rl.agent import Agent, follow, target_of
from mlgpu.rl.policies import EpsilonGreedy
from mlgpu.rl.schedules import Schedule
from mlgpu.tensor import Tensor


class Dueling(Module):
    """Q(s, a) = V(s) + A(s, a) - mean over a of A(s, a): (n, actions).

    `value` and `advantage` take what `body` gives, (n, 1) and (n, actions) of it.  Wang and others,
    "Dueling network architectures for deep reinforcement learning" (2016).
    """

    def __init__(self, body: Module, value: Module, advantage: Module) -> None:
        super().__init__()
        self.body, self.value, self.advantage = body, value, advantage

    def forward(self, observation: Tensor) -> Tensor:
        features = self.body(observation)
        advantage = self.advantage(features)
        value = self.value(features)
        if value.shape != (advantage.shape[0], 1):
            raise ShapeError(f"Dueling: value must give ({advantage.shape[0]}, 1), got "
                             f"{tuple(value.shape)}")
        found: Tensor = value + advantage - advantage.mean(-1, keepdim=True)
        return found


class DQN(Agent):
    """Learns Q(s, a) = r + discount * max over a' of Q'(s', a').

    network: (n, actions) values of observations.  exploration: epsilon, a number or a schedule over
    the steps of the environments.  double: the online network chooses a', the target values it.
    delta: errors count by half their squares up to it, and beyond by their size (Huber), so that
    no single one rules; None: all by squares.  That serves where values are large: beyond delta
    it is the median of targets that is learnt, and the rare end of an episode is outvoted.
    Every `target_every` steps the target Q' moves by `tau` to the online network: by default all
    the way each 500 steps; Polyak's averaging is tau=0.005, target_every=1.

    Mnih and others, "Human-level control through deep reinforcement learning" (2015); van Hasselt
    and others, "Deep reinforcement learning with double Q-learning" (2016).
    """

    policy: EpsilonGreedy

    def __init__(self, network: Module, *, exploration: float | Schedule = 0.05,
                 double: bool = True, delta: float | None = 1.0, tau: float = 1.0,
                 target_every: int = 500) -> None:
        super().__init__()
        if delta is not None and not delta > 0:
            raise ValueError(f"DQN: delta must be above 0, or None, got {delta}")
        if not 0 < tau <= 1 or target_every < 1:
            raise ValueError("DQN: tau must be above 0 and at most 1, target_every at least 1, got "
                             f"{tau} and {target_every}")
        self.policy = EpsilonGreedy(network, exploration)
        self.target = target_of(network)
        self.delta = delta
        self.double_q, self.tau, self.target_every = double, tau, target_every

    def loss(self, batch: dict[str, Tensor]) -> dict[str, Any]:
        """The loss of the TD errors, each times its "weight", where there is one."""
        action = batch["action"].unsqueeze(-1)
        values = self.policy.network(batch["observation"]).gather(-1, action).squeeze(-1)
        with no_grad():
            after = self.target(batch["next_observation"])
            chooser = self.policy.network(batch["next_observation"]) if self.double_q else after
            follows = after.gather(-1, chooser.argmax(-1, keepdim=True)).squeeze(-1)
            target = batch["reward"] + batch["discount"] * follows
        losses = (0.5 * (values - target) ** 2 if self.delta is None
                  else huber_loss(values, target, "none", self.delta))
        if "weight" in batch:
            losses = losses * batch["weight"]
        return {"loss": losses.mean(), "q": values.detach().mean(),
                "td_error": (target - values).detach()}

    def after_step(self, step: int) -> None:
        """Move the target."""
        if step % self.target_every == 0:
            follow(self.target, self.policy.network, self.tau)
