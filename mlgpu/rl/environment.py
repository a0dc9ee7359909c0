"""What an environment is, and making one by its name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol

import numpy as np

from mlgpu.errors import MlgpuError
from mlgpu.extras import require
from mlgpu.rl.spaces import Space


class Environment(Protocol):
    """What an environment has to have: Gymnasium's API, so that Gymnasium's fit as they are.

    One with `state_dict` and `load_state_dict` can be resumed in the middle of an episode; the
    environments of this package have them.
    """

    @property
    def observation_space(self) -> Any:
        """Discrete or Box, ours or Gymnasium's."""

    @property
    def action_space(self) -> Any:
        """Discrete or Box, ours or Gymnasium's."""

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None
              ) -> tuple[Any, dict[str, Any]]:
        """Begin an episode: its first observation, and what else there is to know.

        With a seed the environment's random numbers begin anew, without one they go on.
        """

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Act: observation, reward, terminated, truncated, and what else there is to know.

        terminated: the episode has come to an end of its own, after which there is no reward.
        truncated: it is broken off, for its length; its value would have gone on.
        """

    def close(self) -> None:
        """Give back what the environment holds."""


class Episodic:
    """What the environments of this package share: a length, and steps only within an episode."""

    observation_space: Space
    action_space: Space

    def __init__(self, max_steps: int) -> None:
        if max_steps < 1:
            raise ValueError(f"{type(self).__name__}: max_steps must be at least 1, got "
                             f"{max_steps}")
        self.max_steps = max_steps
        self.steps = -1  # of this episode; below 0 where none is under way
        self._random = np.random.default_rng()
        self._state: tuple[Any, ...] = ()  # numbers that say all there is to the moment

    def close(self) -> None:
        """Nothing is held."""

    def state_dict(self) -> dict[str, Any]:
        """The moment of the episode, and the random numbers to come."""
        return {"state": list(self._state), "steps": self.steps,
                "random": self._random.bit_generator.state}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state_dict` gave."""
        self._state, self.steps = tuple(state["state"]), state["steps"]
        self._random.bit_generator.state = state["random"]

    def _begin(self, seed: int | None) -> None:
        """Begin an episode, and with a seed the random numbers."""
        if seed is not None:
            self._random = np.random.default_rng(seed)
        self.steps = 0

    def _acting(self, action: Any) -> None:
        """Check before a step that there may be one."""
        if self.steps < 0:
            raise MlgpuError(f"{type(self).__name__}.step: no episode is under way; call reset() "
                             "first, and again when one has ended")
        if not self.action_space.contains(action):
            raise ValueError(f"{type(self).__name__}.step: {action!r} is no action of "
                             f"{self.action_space}")

    def _stepped(self, terminated: bool) -> bool:
        """Count a step; whether the episode is truncated."""
        self.steps += 1
        truncated = not terminated and self.steps >= self.max_steps
        if terminated or truncated:
            self.steps = -1
        return truncated


def make(name: str, **options: Any) -> Environment:
    """An environment by its name: one of this package, or else Gymnasium's.

    Here are "CartPole-v1", "Pendulum-v1" (Gymnasium's equations, without it) and "GridWorld".  Any
    other needs the extra `rl` (Gymnasium), and raises MissingExtraError without.  `options` go to
    the environment.
    """
    from mlgpu.rl.cart_pole import CartPole
    from mlgpu.rl.grid_world import GridWorld
    from mlgpu.rl.pendulum import Pendulum

    ours: dict[str, Callable[..., Environment]] = {
        "CartPole-v1": CartPole, "Pendulum-v1": Pendulum, "GridWorld": GridWorld}
    if name in ours:
        return ours[name](**options)
    made: Environment = require("gymnasium", "rl", f"mlgpu.rl.make({name!r})").make(name, **options)
    return made
