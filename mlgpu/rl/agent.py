"""What all agents have in common, and the targets that follow them."""

from __future__ import annotations

import copy
from typing import Any

from mlgpu.autograd import no_grad
from mlgpu.nn.module import Module
from mlgpu.random import Generator
from mlgpu.rl.policies import Policy
from mlgpu.tensor import Tensor


class Agent(Module):
    """A policy with what it learns by: `loss(batch)`, and `after_step(step)`.

    A subclass sets `policy`.  One optimizer takes all of an agent's parameters; those of targets
    require no gradient.
    """

    policy: Policy

    def act(self, observation: Tensor, *, step: int = 0, deterministic: bool = False,
            generator: Generator | None = None) -> Tensor:
        """An action for each row of observations, see Policy.act."""
        return self.policy.act(observation, step=step, deterministic=deterministic,
                               generator=generator)

    def loss(self, batch: dict[str, Tensor]) -> dict[str, Any]:
        """A dict of "loss" and numbers to log, and "td_error" (n,), where priorities want it."""
        raise NotImplementedError(f"{type(self).__name__}: loss is not defined")

    def after_step(self, step: int) -> None:
        """After the optimizer's step number `step`, from 1."""


def target_of(network: Module) -> Module:
    """A copy that no optimizer changes."""
    return copy.deepcopy(network).requires_grad_(False)


@no_grad()
def follow(target: Module, source: Module, tau: float) -> None:
    """target = tau * source + (1 - tau) * target, buffers as they are."""
    for theirs, ours in zip(target.parameters(), source.parameters(), strict=True):
        if tau == 1.0:
            theirs.copy_(ours)
        else:
            theirs.lerp_(ours, tau)
    for copied, buffer in zip(target.buffers(), source.buffers(), strict=True):
        copied.copy_(buffer)
