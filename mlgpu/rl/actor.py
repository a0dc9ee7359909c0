"""The loop of seeing and acting, whoever learns from it."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol

import numpy as np

from mlgpu.device import Device
from mlgpu.ops.creation import tensor
from mlgpu.random import Generator
from mlgpu.rl.environment import Environment
from mlgpu.rl.spaces import Array, Discrete
from mlgpu.rl.vector import SyncVectorEnv, VectorEnv
from mlgpu.tensor import Tensor


class Step(NamedTuple):
    """One step of all environments, a row for each: what ReplayBuffer.add takes."""

    observation: Array
    action: Array  # as the policy gave it
    reward: Array
    next_observation: Array
    terminated: Array
    truncated: Array


class Acts(Protocol):
    """What acts: a policy, an agent, an AsyncPolicy."""

    def act(self, observation: Tensor, *, step: int = 0, deterministic: bool = False,
            generator: Generator | None = None) -> Tensor:
        """An action for each row."""


class Actor:
    """Steps environments by a policy, and knows where they are."""

    def __init__(self, env: VectorEnv, policy: Acts, device: Device, seed: int) -> None:
        self.env, self.policy, self.device, self.seed = env, policy, device, seed
        self.env_steps = 0  # of all environments together
        self._generator = Generator().manual_seed(seed)
        self._observation: Array | None = None

    def run(self, count: int, *, random: bool = False) -> list[Step]:
        """`count` steps of each environment, by the policy or by uniformly random actions."""
        return [self._step(random) for _ in range(count)]

    def take(self, count: int) -> list[Step]:
        """`count` steps by the policy."""
        return self.run(count)

    def _step(self, random: bool) -> Step:
        if self._observation is None:
            self._observation, _ = self.env.reset(seed=self.seed)
        observation = self._observation
        space = self.env.single_action_space
        if random:
            action = space.sample(self.env.num_envs, self._generator)
            if isinstance(space, Discrete):
                action = action - space.start
        else:
            action = self.policy.act(tensor(observation, device=self.device), step=self.env_steps,
                                     generator=self._generator).to("cpu").numpy()
        self._observation, reward, terminated, truncated, info = self.env.step(
            given(space, action))
        self.env_steps += self.env.num_envs
        return Step(observation, action, reward, info["next_obs"], terminated, truncated)

    def state_dict(self) -> dict[str, Any]:
        """Where the environments are, and the random numbers to come."""
        return {"env_steps": self.env_steps, "generator": self._generator.get_state(),
                "observation": self._observation, "environments": self.env.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> bool:
        """Go on from what `state_dict` gave; whether in the middle of the episodes.

        Environments that keep no state begin new episodes, with a warning.
        """
        self.env_steps = state["env_steps"]
        self._generator.set_state(state["generator"])
        self._observation = state["observation"]
        if state["environments"] is not None:
            self.env.load_state_dict(state["environments"])
            return True
        if self._observation is None:
            return True
        warnings.warn("mlgpu.rl: the environments have no state_dict, so the run goes on with new "
                      "episodes, and not bit for bit", stacklevel=2)
        self._observation, _ = self.env.reset(seed=self.seed + self.env_steps)
        return False


def given(space: Any, action: Array) -> Array:
    """A policy's actions as an environment takes them: within its bounds, from its start."""
    if isinstance(space, Discrete):
        return action + space.start
    return np.clip(action, space.low, space.high).astype(space.numpy, copy=False)


def vector_of(env: VectorEnv | Environment) -> VectorEnv:
    """Environments side by side; of a single one, it alone."""
    if isinstance(env, VectorEnv):
        return env
    if not (callable(getattr(env, "reset", None)) and callable(getattr(env, "step", None))):
        raise TypeError("mlgpu.rl: expected an environment, or a SyncVectorEnv or AsyncVectorEnv, "
                        f"got {type(env).__name__}")
    return SyncVectorEnv([lambda: env])
