"""What one policy has seen and done, to be learnt from while it is that policy."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mlgpu.autograd import no_grad
from mlgpu.device import DeviceLike, resolve
from mlgpu.dtypes import bool_, float32
from mlgpu.errors import MlgpuError, ShapeError
from mlgpu.ops.creation import tensor, zeros
from mlgpu.rl.returns import generalized_advantages
from mlgpu.rl.spaces import space_of
from mlgpu.tensor import Tensor


class RolloutBuffer:
    """`steps` steps of `num_envs` environments, in arrays that are there from the beginning.

    `add` takes steps until it is full; `finish` then computes what they were worth; `rows` gives
    batches.  After `clear` it can be filled again.
    """

    def __init__(self, steps: int, observation_space: Any, action_space: Any, *,
                 num_envs: int = 1, gamma: float = 0.99, lam: float = 0.95,
                 device: DeviceLike = "cpu") -> None:
        if steps < 1 or num_envs < 1:
            raise ShapeError("RolloutBuffer: steps and num_envs must be at least 1, got "
                             f"{steps} and {num_envs}")
        if not (0 <= gamma <= 1 and 0 <= lam <= 1):
            raise ValueError(f"RolloutBuffer: gamma and lam must be from 0 to 1, got {gamma} and "
                             f"{lam}")
        self.steps, self.num_envs, self.gamma, self.lam = steps, num_envs, gamma, lam
        self.device = resolve(device)
        seen, acted = space_of(observation_space), space_of(action_space)
        shapes = {"observation": (seen.shape, seen.dtype), "action": (acted.shape, acted.dtype),
                  "reward": ((), float32), "next_observation": (seen.shape, seen.dtype),
                  "terminated": ((), bool_), "truncated": ((), bool_), "value": ((), float32),
                  "log_prob": ((), float32), "advantage": ((), float32), "return": ((), float32)}
        self._arrays = {name: zeros((steps, num_envs, *shape), dtype=dtype, device=self.device)
                        for name, (shape, dtype) in shapes.items()}
        self._filled = 0
        self._finished = False

    def __len__(self) -> int:
        return self._filled

    def __getitem__(self, name: str) -> Tensor:
        """One of the arrays, (steps, num_envs, ...)."""
        return self._arrays[name]

    def add(self, observation: Any, action: Any, reward: Any, next_observation: Any,
            terminated: Any, truncated: Any) -> None:
        """Take in a step of all environments: arrays with a row for each.  MlgpuError when full."""
        if self._filled == self.steps:
            raise MlgpuError(f"RolloutBuffer.add: it is full with {self.steps} steps; call clear()")
        given = (observation, action, reward, next_observation, terminated, truncated)
        for array, rows in zip(self._arrays.values(), given, strict=False):
            array[self._filled] = tensor(rows, dtype=array.dtype, device=self.device)
        self._filled += 1

    @no_grad()
    def finish(self, values: Tensor, next_values: Tensor, log_prob: Tensor) -> None:
        """Compute advantages and returns from the values of observations and next observations.

        All are (steps, num_envs).  The return is the advantage plus the value.
        """
        if self._filled < self.steps:
            raise MlgpuError(f"RolloutBuffer.finish: it has {self._filled} of {self.steps} steps")
        arrays = self._arrays
        advantages = generalized_advantages(arrays["reward"], values, next_values,
                                            arrays["terminated"], arrays["truncated"], self.gamma,
                                            self.lam)
        for name, found in (("value", values), ("log_prob", log_prob), ("advantage", advantages),
                            ("return", advantages + values)):
            arrays[name].copy_(found)
        self._finished = True

    def rows(self, index: Tensor) -> dict[str, Tensor]:
        """The steps of a batch by the names of their parts; `index` into steps * num_envs."""
        if not self._finished:
            raise MlgpuError("RolloutBuffer.rows: call finish() first, which computes what the "
                             "steps were worth")
        return {name: array.flatten(0, 1).index_select(0, index)
                for name, array in self._arrays.items() if name != "next_observation"}

    def clear(self) -> None:
        """Begin anew."""
        self._filled, self._finished = 0, False

    def state_dict(self) -> dict[str, Any]:
        """All that it holds."""
        return {"arrays": dict(self._arrays), "filled": self._filled, "finished": self._finished}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state_dict` gave."""
        for name, array in self._arrays.items():
            if state["arrays"][name].shape != array.shape:
                raise ShapeError(f"RolloutBuffer: the state's {name!r} has the shape "
                                 f"{tuple(state['arrays'][name].shape)}, this one's "
                                 f"{tuple(array.shape)}")
            array.copy_(state["arrays"][name].to(self.device))
        self._filled, self._finished = state["filled"], state["finished"]
