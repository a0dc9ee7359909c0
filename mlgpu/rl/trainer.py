"""Trainers of agents: a mlgpu.train.Trainer whose batches come from acting."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, TypedDict

from mlgpu.dtypes import dtype as DType
from mlgpu.errors import DeviceError, ShapeError
from mlgpu.nn.undisturbed import evaluating
from mlgpu.optim.optimizer import Optimizer
from mlgpu.rl.actor import Actor, vector_of
from mlgpu.rl.actor_critic import ActorCritic
from mlgpu.rl.agent import Agent
from mlgpu.rl.async_policy import AsyncPolicy
from mlgpu.rl.environment import Environment
from mlgpu.rl.episodes import evaluate
from mlgpu.rl.experience import Experience, Rollouts, Source
from mlgpu.rl.replay import PrioritizedReplayBuffer, ReplayBuffer
from mlgpu.rl.rollout import RolloutBuffer
from mlgpu.rl.vector import VectorEnv
from mlgpu.tensor import Tensor
from mlgpu.train import Callback, Checkpoints, Run, Trainer

if TYPE_CHECKING:
    from typing_extensions import Unpack


class TrainerOptions(TypedDict, total=False):
    """What goes to mlgpu.train.Trainer as it is."""

    scheduler: Any
    schedule: str
    clip_norm: float | None
    clip_value: float | None
    autocast: DType | Callable[[], AbstractContextManager[Any]] | None
    scaler: Any
    nonfinite: str
    folder: str | os.PathLike[str] | None
    checkpoints: Checkpoints | None
    callbacks: Sequence[Callback]
    display: str
    log_every: int
    also: Mapping[str, Any] | None
    config: Mapping[str, Any] | None


class _Learning(Callback):
    """What happens beside the optimizer's steps: targets, priorities, weights, values to log."""

    def __init__(self, owner: AgentTrainer) -> None:
        self._owner = owner
        self._skipped = 0

    def on_step_end(self, trainer: Trainer) -> None:
        """Let targets follow, and whoever wants to know hear of the step."""
        progress = trainer.progress
        self._owner.agent.after_step(progress.step)
        if progress.skipped == self._skipped:
            self._owner._learnt()
        self._skipped = progress.skipped

    def on_fit_begin(self, trainer: Trainer) -> None:
        """A resumed run counts on."""
        self._skipped = trainer.progress.skipped

    def measure(self, trainer: Trainer) -> dict[str, float]:
        """Episodes, exploration, and steps of the environments."""
        source = self._owner.source
        values = source.metrics.compute()
        rate = self._owner.agent.policy.exploration(source.env_steps)
        if rate is not None:
            values["exploration"] = rate
        return {**values, "env_steps": float(source.env_steps)}


class AgentTrainer(Trainer):
    """What the trainers of agents share: OffPolicyTrainer, OnPolicyTrainer.

    Checkpoints, resumption, displays, callbacks and the rest are mlgpu.train.Trainer's, and its
    records have besides: "reward" and "episode_length", means over the last `window` episodes,
    "episodes", "exploration" and "env_steps".  Evaluations play `episodes` episodes of `val_env` by
    the best actions: "val_reward", "val_reward_std", "val_episode_length"; the best is that of the
    greatest "val_reward".
    """

    source: Source

    def __init__(self, agent: Agent, optimizer: Optimizer, source: Source, *,
                 val_env: VectorEnv | Environment | None, episodes: int, seed: int,
                 options: TrainerOptions) -> None:
        if episodes < 1:
            raise ValueError(f"{type(self).__name__}: episodes must be at least 1, got {episodes}")
        self.agent, self.source = agent, source
        self._val_env = None if val_env is None else vector_of(val_env)
        self._episodes, self._seed = episodes, seed
        self._told: tuple[Tensor, Tensor] | None = None  # index and TD errors of the last batch
        given: TrainerOptions = {
            **options,
            "config": {"environments": source.actor.env.num_envs, **(options.get("config") or {})},
            "callbacks": [_Learning(self), *options.get("callbacks", ())]}
        super().__init__(agent, optimizer, step=self._loss, monitor="val_reward", mode="max",
                         **given)

    def _loss(self, agent: Any, batch: dict[str, Tensor]) -> dict[str, Any]:
        found = dict(agent.loss(batch))
        error = found.pop("td_error", None)
        self._told = (batch["index"], error) if "index" in batch and error is not None else None
        return found

    def _learnt(self) -> None:
        """After a step that counts."""

    def _fit_source(self, evaluate_every: int | None, resume: bool | str | os.PathLike[str],
                    overwrite: bool, *, epochs: int | None = None, steps: int | None = None) -> Run:
        val: Any = None if self._val_env is None else range(self._episodes)
        try:
            return super().fit(self.source, val, epochs=epochs,  # type: ignore[arg-type]
                               steps=steps, evaluate_every=evaluate_every, resume=resume,
                               overwrite=overwrite)
        finally:
            self.source.settle()

    def evaluate(self, loader: Any = None) -> dict[str, float]:
        """Play episodes of `val_env` as evaluations do, or of an environment that is given."""
        env = self._val_env if loader is None else vector_of(loader)
        if env is None:
            raise ValueError(f"{type(self).__name__}.evaluate: there is no val_env; give an "
                             "environment")
        _apart(type(self).__name__, self.source.actor.env, env)
        values = self._played(env, lambda done: True)
        assert values is not None
        return values

    def _evaluated(self, loader: Iterable[Any], after_batch: Callable[[int], bool]
                   ) -> dict[str, float] | None:
        assert self._val_env is not None
        return self._played(self._val_env, after_batch)

    def _played(self, env: VectorEnv, after_episode: Callable[[int], bool]
                ) -> dict[str, float] | None:
        with evaluating(self.agent):
            return evaluate(self.agent, env, episodes=self._episodes, seed=self._seed,
                            device=self.device, after_episode=after_episode)


class OffPolicyTrainer(AgentTrainer):
    """Trains an agent from a replay buffer that is filled as it acts: DQN, SAC.

        trainer = rl.OffPolicyTrainer(agent, optimizer, env, rl.ReplayBuffer(...), warmup=1000)
        run = trainer.fit(env_steps=50_000)

    env: a SyncVectorEnv, an AsyncVectorEnv or a single environment.  After `warmup` steps of random
    actions each environment takes `train_every` steps, then come `updates` steps of the optimizer
    on batches of `batch_size`, and so on.
    async_policy: acts in a thread of its own meanwhile (see AsyncPolicy).
    val_env: what evaluations play `episodes` episodes of, every `evaluate_every` steps.
    seed: of the environments, of acting and of evaluations.  window: see AgentTrainer.
    options: mlgpu.train.Trainer's.

    A PrioritizedReplayBuffer is told the TD errors of each batch.  Checkpoints hold the buffer and
    the environments, where these have a state_dict: resumed, a run goes on bit for bit on the CPU.
    """

    source: Experience

    def __init__(self, agent: Agent, optimizer: Optimizer, env: VectorEnv | Environment,
                 buffer: ReplayBuffer, *, warmup: int = 1000, train_every: int = 1,
                 updates: int = 1, batch_size: int = 64, async_policy: AsyncPolicy | None = None,
                 val_env: VectorEnv | Environment | None = None, episodes: int = 10,
                 seed: int = 0, window: int = 100, **options: Unpack[TrainerOptions]) -> None:
        _check("OffPolicyTrainer", train_every=train_every, updates=updates, batch_size=batch_size,
               window=window)
        if warmup < 0:
            raise ValueError(f"OffPolicyTrainer: warmup must not be negative, got {warmup}")
        env = _apart("OffPolicyTrainer", env, val_env)
        if buffer.num_envs != env.num_envs:
            raise ShapeError(f"OffPolicyTrainer: the buffer is for num_envs={buffer.num_envs}, and "
                             f"there are {env.num_envs} environments")
        actor = Actor(env, agent.policy, _device_of(agent), seed)
        if async_policy is not None:
            async_policy.attach(actor, agent.policy)
        self._async = async_policy
        source = Experience(actor, buffer, async_policy, warmup=warmup, train_every=train_every,
                            updates=updates, batch_size=batch_size, window=window)
        super().__init__(agent, optimizer, source, val_env=val_env, episodes=episodes, seed=seed,
                         options=options)
        if buffer.device != self.device:
            raise DeviceError(f"OffPolicyTrainer: the buffer is on {buffer.device}, the agent on "
                              f"{self.device}; pass device={str(self.device)!r} to the buffer")

    def fit(self, *, env_steps: int | None = None,  # type: ignore[override]
            steps: int | None = None, evaluate_every: int = 1000,
            resume: bool | str | os.PathLike[str] = False, overwrite: bool = False) -> Run:
        """Train until the environments have taken `env_steps`, or the optimizer `steps`, in all.

        `evaluate_every` and all that a Trainer counts are steps of the optimizer.  For the rest see
        mlgpu.train.Trainer.fit.
        """
        if (env_steps is None) == (steps is None):
            raise ValueError("OffPolicyTrainer.fit: say how long, by either env_steps= or steps=")
        if env_steps is not None:
            steps = self.source.updates_for(env_steps)
            if not steps:
                raise ValueError(f"OffPolicyTrainer.fit: env_steps={env_steps} are over with the "
                                 "warmup, before anything is learnt")
        return self._fit_source(evaluate_every, resume, overwrite, steps=steps)

    def _learnt(self) -> None:
        if isinstance(self.source.buffer, PrioritizedReplayBuffer):
            if self._told is None:
                raise TypeError("OffPolicyTrainer: a PrioritizedReplayBuffer needs the agent's "
                                "loss to have 'td_error' beside 'loss'")
            self.source.buffer.update_priorities(*self._told)
        if self._async is not None and not self._async.deterministic:
            self._async.publish()


class OnPolicyTrainer(AgentTrainer):
    """Trains an agent from what it has just done itself: PPO, A2C.

        trainer = rl.OnPolicyTrainer(agent, optimizer, env, rollout_steps=128, passes=4)
        run = trainer.fit(env_steps=100_000)

    env: a SyncVectorEnv, an AsyncVectorEnv or a single environment.  Each environment takes
    `rollout_steps` steps; what they were worth is estimated with `gamma` and `lam` (see
    `generalized_advantages`); then come `passes` passes over them in batches of `batch_size`.  One
    such rollout is an epoch, in the words of mlgpu.train.Trainer.
    val_env: what evaluations play `episodes` episodes of, after each rollout or as `fit` says.
    seed: of the environments, of acting, of the batches' order and of evaluations.
    window: see AgentTrainer.  options: mlgpu.train.Trainer's.

    Checkpoints hold the rollout and the environments, where these have a state_dict: resumed, a run
    goes on bit for bit on the CPU, from the middle of a rollout too.
    """

    source: Rollouts

    def __init__(self, agent: ActorCritic, optimizer: Optimizer, env: VectorEnv | Environment, *,
                 rollout_steps: int = 128, passes: int = 4, batch_size: int = 256,
                 gamma: float = 0.99, lam: float = 0.95,
                 val_env: VectorEnv | Environment | None = None, episodes: int = 10,
                 seed: int = 0, window: int = 100, **options: Unpack[TrainerOptions]) -> None:
        _check("OnPolicyTrainer", rollout_steps=rollout_steps, passes=passes,
               batch_size=batch_size, window=window)
        if not isinstance(agent, ActorCritic):
            raise TypeError("OnPolicyTrainer: the agent must be an ActorCritic, such as PPO, got "
                            f"{type(agent).__name__}")
        env = _apart("OnPolicyTrainer", env, val_env)
        device = _device_of(agent)
        buffer = RolloutBuffer(rollout_steps, env.single_observation_space,
                               env.single_action_space, num_envs=env.num_envs, gamma=gamma,
                               lam=lam, device=device)
        source = Rollouts(Actor(env, agent.policy, device, seed), agent, buffer, passes=passes,
                          batch_size=batch_size, seed=seed, window=window)
        super().__init__(agent, optimizer, source, val_env=val_env, episodes=episodes, seed=seed,
                         options=options)

    def fit(self, *, env_steps: int | None = None,  # type: ignore[override]
            rollouts: int | None = None, evaluate_every: int | None = None,
            resume: bool | str | os.PathLike[str] = False, overwrite: bool = False) -> Run:
        """Train until there were so many `rollouts`, or as many as make `env_steps`, in all.

        `evaluate_every` are steps of the optimizer; without it each rollout is followed by an
        evaluation.  For the rest see mlgpu.train.Trainer.fit.
        """
        if (env_steps is None) == (rollouts is None):
            raise ValueError("OnPolicyTrainer.fit: say how long, by either env_steps= or "
                             "rollouts=")
        if env_steps is not None:
            buffer = self.source.buffer
            rollouts = -(-env_steps // (buffer.steps * buffer.num_envs))
        return self._fit_source(evaluate_every, resume, overwrite, epochs=rollouts)


def _apart(owner: str, env: VectorEnv | Environment, val_env: VectorEnv | Environment | None
           ) -> VectorEnv:
    """The environments of training, side by side, which must not be those of evaluation."""
    if env is val_env:
        raise ValueError(f"{owner}: evaluation needs an environment of its own, or it would break "
                         "off the episodes of training; make another one")
    return vector_of(env)


def _device_of(agent: Agent) -> Any:
    first = next(agent.parameters(), None)
    if first is None:
        raise ValueError(f"mlgpu.rl: {type(agent).__name__} has no parameters to train")
    return first.device


def _check(owner: str, **values: int) -> None:
    for name, value in values.items():
        if value < 1:
            raise ValueError(f"{owner}: {name} must be at least 1, got {value}")
