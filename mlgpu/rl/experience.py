"""Where batches come from: the loaders that a Trainer is given, which act as they are read."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from mlgpu.autograd import no_grad
from mlgpu.errors import FormatError
from mlgpu.ops.creation import tensor
from mlgpu.random import Generator
from mlgpu.rl.actor import Actor, Step
from mlgpu.rl.actor_critic import ActorCritic
from mlgpu.rl.async_policy import AsyncPolicy
from mlgpu.rl.episodes import EpisodeMetrics
from mlgpu.rl.replay import ReplayBuffer
from mlgpu.rl.rollout import RolloutBuffer
from mlgpu.tensor import Tensor


class Source:
    """What loaders of experience share: an actor, and the episodes that it has taken in."""

    def __init__(self, actor: Actor, window: int) -> None:
        self.actor = actor
        self.metrics = EpisodeMetrics(actor.env.num_envs, window)
        self.env_steps = 0  # taken in

    def _count(self, step: Step) -> None:
        self.metrics.update(step.reward, step.terminated | step.truncated)
        self.env_steps += self.actor.env.num_envs

    def settle(self) -> None:
        """Wait for what acts in the background."""

    def state_dict(self) -> dict[str, Any]:
        """Where acting is, and where learning."""
        return {"actor": self.actor.state_dict(), "metrics": self.metrics.state_dict(),
                "env_steps": self.env_steps}

    def _load(self, state: Mapping[str, Any]) -> bool:
        """Go on from it; whether in the middle of the episodes."""
        self.metrics.load_state_dict(state["metrics"])
        self.env_steps = state["env_steps"]
        if self.actor.load_state_dict(state["actor"]):
            return True
        self.metrics.break_off()
        return False


class Experience(Source):
    """Batches from a replay buffer, without end: after each `train_every` steps, `updates`.

    The first comes after `warmup` steps of random actions.
    """

    def __init__(self, actor: Actor, buffer: ReplayBuffer, async_policy: AsyncPolicy | None, *,
                 warmup: int, train_every: int, updates: int, batch_size: int, window: int
                 ) -> None:
        super().__init__(actor, window)
        self.buffer, self._async = buffer, async_policy
        self.batch_size, self._warmup = batch_size, warmup
        self._train_every, self._updates = train_every, updates
        self._left = 0  # batches before there are new steps

    def __iter__(self) -> Iterator[dict[str, Tensor]]:
        while True:
            if not self._left:
                self._collect()
                self._left = self._updates
            self._left -= 1
            yield self.buffer.sample(self.batch_size)

    def _collect(self) -> None:
        if not self.env_steps and self._warmup:
            self._add(self.actor.run(-(-self._warmup // self.actor.env.num_envs), random=True))
        source = self.actor if self._async is None else self._async
        self._add(source.take(self._train_every))

    def _add(self, steps: list[Step]) -> None:
        for step in steps:
            self.buffer.add(*step)
            self._count(step)

    def updates_for(self, env_steps: int) -> int:
        """How many batches there are until the environments have taken so many steps."""
        envs = self.actor.env.num_envs
        return max(0, (-(-env_steps // envs) - -(-self._warmup // envs)) // self._train_every
                   ) * self._updates

    def settle(self) -> None:
        """Wait for the round under way."""
        if self._async is not None:
            self._async.settle()

    def state_dict(self) -> dict[str, Any]:
        """Where acting is, and where learning."""
        self.settle()
        return {**super().state_dict(), "buffer": self.buffer.state_dict(), "left": self._left,
                "async": None if self._async is None else self._async.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state_dict` gave."""
        if (state["async"] is None) != (self._async is None):
            has = "none" if state["async"] is None else "one"
            raise FormatError(f"OffPolicyTrainer: the run was begun with {has} for async_policy=; "
                              "resume with what it was begun with")
        self.buffer.load_state_dict(state["buffer"])
        self._left = state["left"]
        within = self._load(state)
        if not within:  # what came after the newest step of the buffer is of episodes that are gone
            self.buffer.break_off()
            self.actor.env_steps = self.env_steps
        if self._async is not None:
            self._async.load_state_dict(state["async"] if within else {"rounds": []})


class Rollouts(Source):
    """The batches of one rollout: `passes` times all its steps, each time in another order."""

    def __init__(self, actor: Actor, agent: ActorCritic, buffer: RolloutBuffer, *, passes: int,
                 batch_size: int, seed: int, window: int) -> None:
        super().__init__(actor, window)
        self.agent, self.buffer = agent, buffer
        self.batch_size, self._passes = batch_size, passes
        self._generator = Generator().manual_seed(seed)
        self._at: list[int] | None = None  # pass and first row of the next batch
        self._order: Any = None  # of the steps, in this pass

    def __len__(self) -> int:
        return self._passes * -(-self.buffer.steps * self.buffer.num_envs // self.batch_size)

    def __iter__(self) -> Iterator[dict[str, Tensor]]:
        if self._at is None:
            self._collect()
            self._at = [0, 0]
        count = self.buffer.steps * self.buffer.num_envs
        while self._at[0] < self._passes:
            number, first = self._at
            if not first:
                # The order of random words is a permutation, each as likely as any other.
                self._order = np.argsort(self._generator.draw(count)[:count], kind="stable")
            index = self._order[first:first + self.batch_size]
            after = first + self.batch_size
            self._at = [number, after] if after < count else [number + 1, 0]
            yield self.buffer.rows(tensor(index, device=self.buffer.device))
        self._at = None

    @no_grad()
    def _collect(self) -> None:
        buffer, agent = self.buffer, self.agent
        buffer.clear()
        for _ in range(buffer.steps):
            (step,) = self.actor.take(1)
            buffer.add(*step)
            self._count(step)
        shape = (buffer.steps, buffer.num_envs)
        seen, led_to = (buffer[name].flatten(0, 1) for name in ("observation", "next_observation"))
        log_prob, _ = agent.policy.evaluate(seen, buffer["action"].flatten(0, 1))
        buffer.finish(agent.values(seen).reshape(shape), agent.values(led_to).reshape(shape),
                      log_prob.reshape(shape))

    def state_dict(self) -> dict[str, Any]:
        """Where acting is, and where learning."""
        return {**super().state_dict(), "buffer": self.buffer.state_dict(), "at": self._at,
                "order": self._order, "generator": self._generator.get_state()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state_dict` gave."""
        self.buffer.load_state_dict(state["buffer"])
        self._at, self._order = state["at"], state["order"]
        self._generator.set_state(state["generator"])
        self._load(state)
