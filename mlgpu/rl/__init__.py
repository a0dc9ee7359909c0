"""Reinforcement learning: environments, buffers, policies, agents, and trainers of them.

    env = rl.SyncVectorEnv([rl.CartPole] * 8)
    agent = rl.PPO(rl.CategoricalPolicy(network), value)
    optimizer = mlgpu.optim.Adam(agent.parameters(), lr=1e-3)
    run = rl.OnPolicyTrainer(agent, optimizer, env).fit(env_steps=50_000)

Environments have Gymnasium's API, and Gymnasium's own fit as they are (the extra `rl`).  Trainers
are mlgpu.train.Trainer, so that checkpoints, resumption, displays and sinks are as there.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mlgpu.rl.actor_critic import A2C as A2C
    from mlgpu.rl.actor_critic import PPO as PPO
    from mlgpu.rl.actor_critic import ActorCritic as ActorCritic
    from mlgpu.rl.agent import Agent as Agent
    from mlgpu.rl.async_policy import AsyncPolicy as AsyncPolicy
    from mlgpu.rl.cart_pole import CartPole as CartPole
    from mlgpu.rl.dqn import DQN as DQN
    from mlgpu.rl.dqn import Dueling as Dueling
    from mlgpu.rl.environment import Environment as Environment
    from mlgpu.rl.environment import make as make
    from mlgpu.rl.episodes import EpisodeMetrics as EpisodeMetrics
    from mlgpu.rl.episodes import evaluate as evaluate
    from mlgpu.rl.grid_world import GridWorld as GridWorld
    from mlgpu.rl.pendulum import Pendulum as Pendulum
    from mlgpu.rl.policies import BoundedPolicy as BoundedPolicy
    from mlgpu.rl.policies import CategoricalPolicy as CategoricalPolicy
    from mlgpu.rl.policies import DeterministicPolicy as DeterministicPolicy
    from mlgpu.rl.policies import EpsilonGreedy as EpsilonGreedy
    from mlgpu.rl.policies import GaussianPolicy as GaussianPolicy
    from mlgpu.rl.policies import Policy as Policy
    from mlgpu.rl.policies import StochasticPolicy as StochasticPolicy
    from mlgpu.rl.policies import TanhGaussianPolicy as TanhGaussianPolicy
    from mlgpu.rl.replay import PrioritizedReplayBuffer as PrioritizedReplayBuffer
    from mlgpu.rl.replay import ReplayBuffer as ReplayBuffer
    from mlgpu.rl.returns import discounted_returns as discounted_returns
    from mlgpu.rl.returns import generalized_advantages as generalized_advantages
    from mlgpu.rl.rollout import RolloutBuffer as RolloutBuffer
    from mlgpu.rl.sac import SAC as SAC
    from mlgpu.rl.schedules import ExponentialSchedule as ExponentialSchedule
    from mlgpu.rl.schedules import LinearSchedule as LinearSchedule
    from mlgpu.rl.spaces import Box as Box
    from mlgpu.rl.spaces import Discrete as Discrete
    from mlgpu.rl.sum_tree import SumTree as SumTree
    from mlgpu.rl.td3 import TD3 as TD3
    from mlgpu.rl.trainer import AgentTrainer as AgentTrainer
    from mlgpu.rl.trainer import OffPolicyTrainer as OffPolicyTrainer
    from mlgpu.rl.trainer import OnPolicyTrainer as OnPolicyTrainer
    from mlgpu.rl.vector import AsyncVectorEnv as AsyncVectorEnv
    from mlgpu.rl.vector import SyncVectorEnv as SyncVectorEnv
    from mlgpu.rl.vector import VectorEnv as VectorEnv
    from mlgpu.rl.vector import make_vec as make_vec

# The names, by the module of this package that has them: a worker that steps environments needs
# no trainers.
_HOMES: dict[str, str] = {
    "actor_critic": "A2C PPO ActorCritic",
    "agent": "Agent",
    "async_policy": "AsyncPolicy",
    "cart_pole": "CartPole",
    "dqn": "DQN Dueling",
    "environment": "Environment make",
    "episodes": "EpisodeMetrics evaluate",
    "grid_world": "GridWorld",
    "pendulum": "Pendulum",
    "policies": """BoundedPolicy CategoricalPolicy DeterministicPolicy EpsilonGreedy
        GaussianPolicy Policy StochasticPolicy TanhGaussianPolicy""",
    "replay": "PrioritizedReplayBuffer ReplayBuffer",
    "returns": "discounted_returns generalized_advantages",
    "rollout": "RolloutBuffer",
    "sac": "SAC",
    "schedules": "ExponentialSchedule LinearSchedule",
    "spaces": "Box Discrete",
    "sum_tree": "SumTree",
    "td3": "TD3",
    "trainer": "AgentTrainer OffPolicyTrainer OnPolicyTrainer",
    "vector": "AsyncVectorEnv SyncVectorEnv VectorEnv make_vec",
}
_HOME = {name: module for module, names in _HOMES.items() for name in names.split()}

__all__ = [*_HOME]

if not TYPE_CHECKING:  # a checker knows all names, and reports others
    def __getattr__(name: str) -> Any:
        from importlib import import_module

        if name not in _HOME:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        found = getattr(import_module(f"mlgpu.rl.{_HOME[name]}"), name)
        globals()[name] = found
        return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
