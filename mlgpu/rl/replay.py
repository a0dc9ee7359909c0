"""Transitions to learn from again and again: uniformly, or by how much there is to learn."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from typing import Any

import numpy as np

from mlgpu.device import DeviceLike, resolve
from mlgpu.dtypes import float32
from mlgpu.errors import FormatError, MlgpuError, ShapeError
from mlgpu.ops.creation import tensor, zeros
from mlgpu.ops.random import randint
from mlgpu.random import Generator
from mlgpu.rl.schedules import Schedule, schedule_of
from mlgpu.rl.spaces import Array, space_of
from mlgpu.rl.sum_tree import SumTree
from mlgpu.tensor import Tensor

Batch = dict[str, Tensor]


class ReplayBuffer:
    """The last `capacity` transitions, in arrays that are there from the beginning.

    A transition is of `n_step` steps: observation, action, reward, the sum of the rewards times
    powers of `gamma`; next_observation, and discount, by which its value counts: gamma^n, or 0
    where the episode terminated.  One at whose end an episode was truncated ends there, and counts
    the value of that last observation.

    `capacity` is a multiple of `num_envs`, whose steps `add` takes together.  The arrays lie on
    `device`, as do the batches.  Which are sampled follows from `seed`, the same on every device.
    """

    def __init__(self, capacity: int, observation_space: Any, action_space: Any, *,
                 num_envs: int = 1, n_step: int = 1, gamma: float = 0.99,
                 device: DeviceLike = "cpu", seed: int = 0) -> None:
        name = type(self).__name__
        if num_envs < 1 or capacity < num_envs or capacity % num_envs:
            raise ShapeError(f"{name}: capacity must be a multiple of num_envs={num_envs}, got "
                             f"{capacity}")
        if n_step < 1:
            raise ShapeError(f"{name}: n_step must be at least 1, got {n_step}")
        if not 0 <= gamma <= 1:
            raise ValueError(f"{name}: gamma must be from 0 to 1, got {gamma}")
        self.capacity, self.num_envs, self.n_step, self.gamma = capacity, num_envs, n_step, gamma
        self.device = resolve(device)
        seen, acted = space_of(observation_space), space_of(action_space)
        shapes = {"observation": (seen.shape, seen.dtype), "action": (acted.shape, acted.dtype),
                  "reward": ((), float32), "next_observation": (seen.shape, seen.dtype),
                  "discount": ((), float32)}
        self._arrays = {field: zeros((capacity, *shape), dtype=dtype, device=self.device)
                        for field, (shape, dtype) in shapes.items()}
        self._size = self._next = 0
        self._generator = Generator().manual_seed(seed)
        self._window: deque[tuple[Array, ...]] = deque(maxlen=n_step)  # steps not yet in arrays

    def __len__(self) -> int:
        return self._size

    def add(self, observation: Any, action: Any, reward: Any, next_observation: Any,
            terminated: Any, truncated: Any) -> None:
        """Take in a step of all environments: NumPy arrays with a row for each.

        The transition that begins with it is there after `n_step` steps.
        """
        given = (observation, action, reward, next_observation, terminated, truncated)
        step = tuple(np.asarray(part) for part in given)
        if any(part.ndim < 1 or len(part) != self.num_envs for part in step):
            raise ShapeError(f"{type(self).__name__}.add: expected a row for each of num_envs="
                             f"{self.num_envs}, got shapes {[part.shape for part in step]}")
        self._window.append(step)
        if len(self._window) < self.n_step:
            return
        here = slice(self._next, self._next + self.num_envs)
        for array, rows in zip(self._arrays.values(), self._transitions(), strict=True):
            array[here] = tensor(rows, dtype=array.dtype, device=self.device)
        self._next = (self._next + self.num_envs) % self.capacity
        self._size = min(self._size + self.num_envs, self.capacity)

    def break_off(self) -> None:
        """Let no transition go on beyond the newest step: what is added next is of new episodes."""
        if self._window:
            *parts, _ = self._window[-1]
            self._window[-1] = (*parts, np.ones(self.num_envs, bool))

    def _transitions(self) -> tuple[Array, ...]:
        """Those that begin with the oldest step of the window, in the order of the arrays."""
        observation, action, *_ = self._window[0]
        reward = np.zeros(self.num_envs)
        discount = np.ones(self.num_envs)
        within = np.ones(self.num_envs, bool)  # the episode goes on
        next_observation = self._window[0][3]
        for _, _, rewards, led_to, terminated, truncated in self._window:
            reward += np.where(within, discount * rewards, 0.0)
            shaped = within.reshape(-1, *[1] * (led_to.ndim - 1))
            next_observation = np.where(shaped, led_to, next_observation)
            discount *= np.where(within, np.where(terminated, 0.0, self.gamma), 1.0)
            within = within & ~(terminated | truncated)
        return observation, action, reward, next_observation, discount

    def sample(self, batch_size: int) -> Batch:
        """Transitions by the names of their parts, each (batch_size, ...), drawn with replacement.

        MlgpuError where there is none.
        """
        self._check(batch_size)
        index = randint(0, self._size, (batch_size,), generator=self._generator,
                        device=self.device)
        return self._rows(index)

    def _rows(self, index: Tensor) -> Batch:
        return {name: array.index_select(0, index) for name, array in self._arrays.items()}

    def _check(self, batch_size: int) -> None:
        if batch_size < 1:
            raise ShapeError(f"{type(self).__name__}.sample: batch_size must be at least 1, got "
                             f"{batch_size}")
        if not self._size:
            raise MlgpuError(f"{type(self).__name__}.sample: it is empty; add steps first "
                             f"({self.n_step} make the first transition)")

    def state_dict(self) -> dict[str, Any]:
        """All that was added, and the random numbers to come."""
        return {"arrays": {name: array[:self._size] for name, array in self._arrays.items()},
                "next": self._next, "generator": self._generator.get_state(),
                "window": [list(step) for step in self._window],
                "settings": self._settings()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state_dict` gave.  FormatError where it does not fit."""
        if list(state["settings"]) != self._settings():
            raise FormatError(f"{type(self).__name__}: the state is of a buffer with [capacity, "
                              f"num_envs, n_step, gamma] {list(state['settings'])}, this one has "
                              f"{self._settings()}")
        self._size, self._next = len(state["arrays"]["reward"]), state["next"]
        for name, array in self._arrays.items():
            array[:self._size] = state["arrays"][name].to(self.device)
        self._generator.set_state(state["generator"])
        self._window.clear()
        self._window.extend(tuple(step) for step in state["window"])

    def _settings(self) -> list[float]:
        return [self.capacity, self.num_envs, self.n_step, self.gamma]

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._size} of {self.capacity}, device={self.device})"


class PrioritizedReplayBuffer(ReplayBuffer):
    """Prioritised experience replay (Schaul and others, 2016): P(i) = p_i^alpha / sum of them.

    p_i is |TD error| + eps, once `update_priorities` has told it; a new transition has the largest
    so far.  A batch is stratified: one of each of batch_size equal shares of the total.  "weight"
    makes up for the bias: (N P(i))^-beta over the largest of the batch; `beta` is a number, or a
    schedule over the batches that were drawn.  "index" is what `update_priorities` wants to know.

    The sums are kept on the host, in a tree.
    """

    def __init__(self, capacity: int, observation_space: Any, action_space: Any, *,
                 num_envs: int = 1, n_step: int = 1, gamma: float = 0.99, alpha: float = 0.6,
                 beta: float | Schedule = 0.4, eps: float = 1e-6, device: DeviceLike = "cpu",
                 seed: int = 0) -> None:
        super().__init__(capacity, observation_space, action_space, num_envs=num_envs,
                         n_step=n_step, gamma=gamma, device=device, seed=seed)
        if not (alpha >= 0 and eps > 0):
            raise ValueError("PrioritizedReplayBuffer: alpha must be at least 0 and eps above 0, "
                             f"got {alpha} and {eps}")
        self.alpha, self.beta, self.eps = alpha, schedule_of(beta), eps
        self._tree = SumTree(capacity)
        self._largest = 1.0  # priority, to the power of alpha
        self._drawn = 0  # batches

    def add(self, observation: Any, action: Any, reward: Any, next_observation: Any,
            terminated: Any, truncated: Any) -> None:
        """Take in a step of all environments, as ReplayBuffer does."""
        place = self._next
        super().add(observation, action, reward, next_observation, terminated, truncated)
        if len(self._window) == self.n_step:
            self._tree[np.arange(place, place + self.num_envs)] = self._largest

    def sample(self, batch_size: int) -> Batch:
        """Transitions by their priorities, with their "weight" and "index" besides."""
        self._check(batch_size)
        unit = (self._generator.draw(batch_size)[:batch_size] >> np.uint64(11)) * 2.0**-53
        chosen = self._tree.find((np.arange(batch_size) + unit) / batch_size * self._tree.total)
        share = self._tree[chosen] / self._tree.total
        weight = (self._size * share) ** -self.beta(self._drawn)
        self._drawn += 1
        index = tensor(chosen, device=self.device)
        return {**self._rows(index), "index": index,
                "weight": tensor(weight / weight.max(), dtype=float32, device=self.device)}

    def update_priorities(self, index: Tensor, td_error: Tensor) -> None:
        """What was learnt of the transitions of a batch: "index" and its TD errors (batch_size,).

        Waits for the device.
        """
        if index.shape != td_error.shape:
            raise ShapeError("PrioritizedReplayBuffer.update_priorities: index and td_error must "
                             f"have one shape, got {tuple(index.shape)} and "
                             f"{tuple(td_error.shape)}")
        errors = td_error.detach().to("cpu").numpy().astype(np.float64)
        priorities = (np.abs(errors) + self.eps) ** self.alpha
        if not np.isfinite(priorities).all():
            raise ValueError("PrioritizedReplayBuffer.update_priorities: a TD error is not finite")
        self._tree[index.to("cpu").numpy()] = priorities
        self._largest = max(self._largest, float(priorities.max()))

    def state_dict(self) -> dict[str, Any]:
        """All that was added, its priorities, and the random numbers to come."""
        return {**super().state_dict(), "priorities": self._tree.leaves(),
                "largest": self._largest, "drawn": self._drawn}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state_dict` gave.  FormatError where it does not fit."""
        super().load_state_dict(state)
        self._tree[np.arange(self.capacity)] = state["priorities"]
        self._largest, self._drawn = state["largest"], state["drawn"]

    def _settings(self) -> list[float]:
        return [*super()._settings(), self.alpha, self.eps]
