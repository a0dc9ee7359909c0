"""Whole episodes: what they brought and how long they were, in training and in evaluation."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from mlgpu.device import Device
from mlgpu.metrics import RunningMean
from mlgpu.ops.creation import tensor
from mlgpu.random import Generator
from mlgpu.rl.actor import Acts, given, vector_of
from mlgpu.rl.environment import Environment
from mlgpu.rl.spaces import Array
from mlgpu.rl.vector import VectorEnv


class EpisodeMetrics:
    """Reward and length of episodes of `num_envs` environments as they end.

    `reward` and `length` are mlgpu.metrics.RunningMean over the last `window` episodes; `last` has
    the reward and length of those that ended in the last step.
    """

    def __init__(self, num_envs: int, window: int = 100) -> None:
        self.reward, self.length = RunningMean(window), RunningMean(window)
        self.episodes = 0
        self._rewards = np.zeros(num_envs)
        self._lengths = np.zeros(num_envs, np.int64)
        self.last: list[tuple[int, float, int]] = []  # environment, reward, length

    def update(self, reward: Array, ended: Array) -> None:
        """Take in a step: its rewards, and where an episode ended with it."""
        self._rewards += reward
        self._lengths += 1
        self.last = []
        for i in np.flatnonzero(ended).tolist():
            self.last.append((i, float(self._rewards[i]), int(self._lengths[i])))
            self.reward.update(float(self._rewards[i]))
            self.length.update(int(self._lengths[i]))
            self.episodes += 1
            self._rewards[i], self._lengths[i] = 0.0, 0

    def compute(self) -> dict[str, float]:
        """"reward" and "episode_length", once an episode has ended, and how many have."""
        if not self.episodes:
            return {"episodes": 0.0}
        return {"reward": float(self.reward.compute()),
                "episode_length": float(self.length.compute()), "episodes": float(self.episodes)}

    def break_off(self) -> None:
        """Forget the episodes under way."""
        self._rewards[:], self._lengths[:] = 0.0, 0

    def state_dict(self) -> dict[str, Any]:
        """What ended, and what is under way."""
        return {"reward": self.reward.state_dict(), "length": self.length.state_dict(),
                "episodes": self.episodes, "rewards": self._rewards, "lengths": self._lengths}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state_dict` gave."""
        self.reward.load_state_dict(state["reward"])
        self.length.load_state_dict(state["length"])
        self.episodes = state["episodes"]
        self._rewards, self._lengths = state["rewards"].copy(), state["lengths"].copy()


def evaluate(policy: Acts, env: VectorEnv | Environment, *, episodes: int = 10, seed: int = 0,
             deterministic: bool = True, device: Device | str = "cpu",
             after_episode: Callable[[int], bool] | None = None) -> dict[str, float] | None:
    """Play episodes: the mean "reward" and "episode_length" of an episode, and "reward_std".

    Each of the environments plays as many, rounded up, so that short episodes count no more than
    long ones; they begin with `seed`.  `device` is the policy's.  `after_episode(done)` says
    whether to go on; where it does not, the answer is None.
    """
    if episodes < 1:
        raise ValueError(f"mlgpu.rl.evaluate: episodes must be at least 1, got {episodes}")
    env = vector_of(env)
    each = -(-episodes // env.num_envs)
    metrics = EpisodeMetrics(env.num_envs)
    generator = Generator().manual_seed(seed)
    played = [0] * env.num_envs
    rewards: list[float] = []
    lengths: list[int] = []
    observation, _ = env.reset(seed=seed)
    while min(played) < each:
        action = policy.act(tensor(observation, device=device), deterministic=deterministic,
                            generator=generator).to("cpu").numpy()
        observation, reward, terminated, truncated, _ = env.step(
            given(env.single_action_space, action))
        metrics.update(reward, terminated | truncated)
        for i, total, length in metrics.last:
            if played[i] < each:
                played[i] += 1
                rewards.append(total)
                lengths.append(length)
                if after_episode is not None and not after_episode(len(rewards)):
                    return None
    return {"reward": float(np.mean(rewards)), "reward_std": float(np.std(rewards)),
            "episode_length": float(np.mean(lengths))}
