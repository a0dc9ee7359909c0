"""Environments side by side, which take a batch of actions: one after the other, or at once."""

from __future__ import annotations

import itertools
import multiprocessing
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from mlgpu.errors import MlgpuError, ShapeError
from mlgpu.rl.environment import make
from mlgpu.rl.slots import Maker, Slots, Stepped
from mlgpu.rl.spaces import Array
from mlgpu.rl.workers import Here, InProcess, InThread, Worker

if TYPE_CHECKING:
    from typing_extensions import Self


class VectorEnv:
    """`num_envs` environments: SyncVectorEnv, AsyncVectorEnv; named as Gymnasium's.

    Observations, rewards and so on are NumPy arrays with a row for each environment; float64
    observations become float32.  Where an episode ends, the next one begins in the same step: the
    observation that is returned is its first, and `info["next_obs"]` holds what every action has
    led to, the last observation of an ended episode included.  `info["infos"]` lists what the
    environments told themselves.
    """

    def __init__(self, workers: Sequence[Worker], counts: Sequence[int]) -> None:
        self._workers, self._counts = list(workers), list(counts)
        self._bounds = np.cumsum([0, *counts]).tolist()
        self._stepping = False
        self.num_envs = sum(counts)
        try:
            spaces = self._all("spaces", [()] * len(counts))
            if any(found != spaces[0] for found in spaces):
                raise ShapeError("mlgpu.rl: environments that step together must have the same "
                                 f"spaces, got {sorted({str(found) for found in spaces})}")
        except BaseException:
            self.close()
            raise
        self.single_observation_space, self.single_action_space = spaces[0]

    def reset(self, *, seed: int | Sequence[int] | None = None) -> tuple[Array, dict[str, Any]]:
        """Begin an episode in each.  Environment i gets seed + i, or the i-th of several."""
        if seed is None or isinstance(seed, int):
            seeds = [None if seed is None else seed + i for i in range(self.num_envs)]
        else:
            seeds = list(seed)
        if len(seeds) != self.num_envs:
            raise ShapeError(f"{type(self).__name__}.reset: expected a seed for each of "
                             f"{self.num_envs} environments, got {len(seeds)}")
        found = self._all("reset", [(part,) for part in self._parts(seeds)])
        return (np.concatenate([observation for observation, _ in found]),
                {"infos": [info for _, infos in found for info in infos]})

    def step(self, actions: Any) -> tuple[Array, Array, Array, Array, dict[str, Any]]:
        """Act in each: observations, rewards, terminated, truncated, info."""
        self.step_async(actions)
        return self.step_wait()

    def step_async(self, actions: Any) -> None:
        """Begin a step, whose outcome `step_wait` gives."""
        actions = np.asarray(actions)
        if len(actions) != self.num_envs:
            raise ShapeError(f"{type(self).__name__}.step: expected an action for each of "
                             f"{self.num_envs} environments, got {len(actions)}")
        if self._stepping:
            raise MlgpuError(f"{type(self).__name__}.step_async: a step is under way; call "
                             "step_wait() first")
        for worker, part in zip(self._workers, self._parts(actions), strict=True):
            worker.ask("step", (part,))
        self._stepping = True

    def step_wait(self) -> tuple[Array, Array, Array, Array, dict[str, Any]]:
        """The outcome of the step that was begun."""
        if not self._stepping:
            raise MlgpuError(f"{type(self).__name__}.step_wait: no step is under way; call "
                             "step_async(actions) first")
        self._stepping = False
        found: list[Stepped] = self._answers()
        joined = [np.concatenate(parts) for parts in list(zip(*found, strict=True))[:5]]
        infos = [info for part in found for info in part.infos]
        return (joined[0], joined[1], joined[2], joined[3],
                {"next_obs": joined[4], "infos": infos})

    def state_dict(self) -> list[Any] | None:
        """The states of all environments; None where one has none."""
        states = self._all("state_dict", [()] * len(self._workers))
        if any(part is None for part in states):
            return None
        return [state for part in states for state in part]

    def load_state_dict(self, states: Sequence[Mapping[str, Any]]) -> None:
        """Go on from what `state_dict` gave.  MlgpuError where it does not fit."""
        if len(states) != self.num_envs:
            raise MlgpuError(f"{type(self).__name__}.load_state_dict: the states of {len(states)} "
                             f"environments do not fit {self.num_envs}")
        self._all("load_state_dict", [(part,) for part in self._parts(states)])

    def close(self) -> None:
        """Close the environments, and end the workers.  May be called more than once."""
        workers, self._workers = self._workers, []
        for worker in workers:
            worker.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _parts(self, values: Any) -> list[Any]:
        """The rows of each worker."""
        return [values[a:b] for a, b in itertools.pairwise(self._bounds)]

    def _all(self, method: str, arguments: Sequence[tuple[Any, ...]]) -> list[Any]:
        if not self._workers:
            raise MlgpuError(f"{type(self).__name__}: it is closed")
        if self._stepping:
            raise MlgpuError(f"{type(self).__name__}.{method}: a step is under way; call "
                             "step_wait() first")
        for worker, given in zip(self._workers, arguments, strict=True):
            worker.ask(method, given)
        return self._answers()

    def _answers(self) -> list[Any]:
        """What all workers answer.  Raises what the first that failed raised, after all are done.

        So no answer stays behind that the next question would take for its own.
        """
        answers, failed = [], None
        for worker in self._workers:
            try:
                answers.append(worker.answer())
            except Exception as error:
                failed = failed or error
        if failed is not None:
            raise failed
        return answers


class SyncVectorEnv(VectorEnv):
    """Environments that step one after the other, in this process."""

    def __init__(self, makers: Sequence[Maker]) -> None:
        _check(type(self).__name__, makers)
        super().__init__([Here(Slots(makers))], [len(makers)])

    @property
    def environments(self) -> list[Any]:
        """The environments themselves."""
        (worker,) = self._workers
        assert isinstance(worker, Here)
        return worker.slots.environments


class AsyncVectorEnv(VectorEnv):
    """Environments that step at once, in `num_workers` workers (by default one for each).

    workers: "process" or "thread", which serves environments whose steps leave Python's lock alone.
    New processes are begun by `multiprocessing_context` ("spawn" by default), so makers must be
    picklable.  What an environment raises is raised here, with the worker's own
    traceback above it.
    """

    def __init__(self, makers: Sequence[Maker], *, num_workers: int | None = None,
                 workers: str = "process", multiprocessing_context: str = "spawn") -> None:
        _check(type(self).__name__, makers)
        if workers not in ("process", "thread"):
            raise ValueError("AsyncVectorEnv: workers must be 'process' or 'thread', got "
                             f"{workers!r}")
        count = len(makers) if num_workers is None else num_workers
        if not 1 <= count <= len(makers):
            raise ValueError(f"AsyncVectorEnv: num_workers must be from 1 to {len(makers)}, the "
                             f"number of environments, got {num_workers}")
        bounds = [len(makers) * i // count for i in range(count + 1)]
        parts = [list(makers[a:b]) for a, b in itertools.pairwise(bounds)]
        begun: list[Worker] = []
        try:
            for number, part in enumerate(parts):
                begun.append(InThread(part, number) if workers == "thread" else InProcess(
                    part, number, multiprocessing.get_context(multiprocessing_context)))
        except BaseException:
            for worker in begun:
                worker.close()
            raise
        super().__init__(begun, [len(part) for part in parts])


def make_vec(name: str, num_envs: int, *, workers: str | None = None, **options: Any) -> VectorEnv:
    """`num_envs` environments of that name (see `make`).

    workers: None for a SyncVectorEnv, "process" or "thread" for an AsyncVectorEnv.
    """
    makers = [_Named(name, options)] * num_envs
    return SyncVectorEnv(makers) if workers is None else AsyncVectorEnv(makers, workers=workers)


class _Named:
    """Makes an environment by its name; can be sent to a process."""

    def __init__(self, name: str, options: dict[str, Any]) -> None:
        self.name, self.options = name, options

    def __call__(self) -> Any:
        return make(self.name, **self.options)


def _check(owner: str, makers: Sequence[Maker]) -> None:
    if not len(makers):
        raise ShapeError(f"{owner}: expected at least one environment")
    for maker in makers:
        if not callable(maker):
            raise TypeError(f"{owner}: expected functions that make environments, such as "
                            f"[rl.CartPole] * 4, got {type(maker).__name__}")
