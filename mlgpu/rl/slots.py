"""Some environments that step together, each beginning anew when its episode has ended."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from mlgpu.errors import MlgpuError, ShapeError
from mlgpu.rl.environment import Environment
from mlgpu.rl.spaces import Array, Box, Space, space_of

Maker = Callable[[], Environment]


class Stepped(NamedTuple):
    """One step of several environments: arrays with a row for each."""

    observation: Array  # what the next action is for
    reward: Array  # float32
    terminated: Array  # bool
    truncated: Array  # bool
    next_observation: Array  # what the action led to; where the episode ended, its last
    infos: list[dict[str, Any]]


class Slots:
    """The environments that `makers` make, one after the other."""

    def __init__(self, makers: Sequence[Maker]) -> None:
        self.environments = [make() for make in makers]
        self._spaces = [(space_of(e.observation_space), space_of(e.action_space))
                        for e in self.environments]
        if any(spaces != self._spaces[0] for spaces in self._spaces):
            raise ShapeError("mlgpu.rl: environments that step together must have the same spaces, "
                             f"got {sorted({str(spaces) for spaces in self._spaces})}")

    def spaces(self) -> tuple[Space, Space]:
        """Those of an observation and of an action."""
        return self._spaces[0]

    def reset(self, seeds: Sequence[int | None]) -> tuple[Array, list[dict[str, Any]]]:
        """Begin an episode in each."""
        begun = [e.reset(seed=seed) for e, seed in zip(self.environments, seeds, strict=True)]
        return self._stacked([o for o, _ in begun]), [info for _, info in begun]

    def step(self, actions: Array) -> Stepped:
        """Act in each; where an episode ends, the next one begins."""
        led, now, rewards, ends, infos = [], [], [], [], []
        for environment, action in zip(self.environments, actions, strict=True):
            observation, reward, terminated, truncated, info = environment.step(action)
            led.append(observation)
            rewards.append(reward)
            ends.append((terminated, truncated))
            infos.append(info)
            if terminated or truncated:
                observation, _ = environment.reset()
            now.append(observation)
        ended = np.array(ends, bool)
        return Stepped(self._stacked(now), np.array(rewards, np.float32), ended[:, 0], ended[:, 1],
                       self._stacked(led), infos)

    def _stacked(self, observations: list[Any]) -> Array:
        space = self._spaces[0][0]
        kind = space.numpy if isinstance(space, Box) else np.int64
        try:
            stacked = np.array(observations, kind)
        except ValueError as error:
            raise ShapeError(f"mlgpu.rl: an observation is not of {space}: {error}") from error
        if stacked.shape[1:] != space.shape:
            raise ShapeError(f"mlgpu.rl: observations must have the shape {space.shape} of their "
                             f"space, got {stacked.shape[1:]}")
        return stacked

    def state_dict(self) -> list[Any] | None:
        """The states of all; None where one has none."""
        if not all(hasattr(e, "state_dict") for e in self.environments):
            return None
        return [e.state_dict() for e in self.environments]  # type: ignore[attr-defined]

    def load_state_dict(self, states: Sequence[Mapping[str, Any]]) -> None:
        """Go on from what `state_dict` gave."""
        if len(states) != len(self.environments) or not all(
                hasattr(e, "load_state_dict") for e in self.environments):
            raise MlgpuError(f"mlgpu.rl: the states of {len(states)} environments do not fit "
                             f"{len(self.environments)} of these; resume with what the run was "
                             "begun with")
        for environment, state in zip(self.environments, states, strict=True):
            environment.load_state_dict(state)  # type: ignore[attr-defined]

    def close(self) -> None:
        """Close all."""
        for environment in self.environments:
            environment.close()
