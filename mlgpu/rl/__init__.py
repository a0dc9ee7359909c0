"""Reinforcement learning: environments, buffers, policies, agents, and trainers of them.

    env = rl.SyncVectorEnv([rl.CartPole] * 8)
    agent = rl.PPO(rl.CategoricalPolicy(network), value)
    optimizer = mlgpu.optim.Adam(agent.parameters(), lr=1e-3)
    run = rl.OnPolicyTrainer(agent, optimizer, env).fit(env_steps=50_000)

Environments have Gymnasium's API, and Gymnasium's own fit as they are (the extra `rl`).  Trainers
are mlgpu.train.Trainer, so that checkpoints, resumption, displays and sinks are as there.
"""

from mlgpu.rl.actor_critic import A2C, PPO, ActorCritic
from mlgpu.rl.agent import Agent
from mlgpu.rl.async_policy import AsyncPolicy
from mlgpu.rl.cart_pole import CartPole
from mlgpu.rl.dqn import DQN, Dueling
from mlgpu.rl.environment import Environment, make
from mlgpu.rl.episodes import EpisodeMetrics, evaluate
from mlgpu.rl.grid_world import GridWorld
from mlgpu.rl.pendulum import Pendulum
from mlgpu.rl.policies import (
    CategoricalPolicy,
    EpsilonGreedy,
    GaussianPolicy,
    Policy,
    StochasticPolicy,
    TanhGaussianPolicy,
)
from mlgpu.rl.replay import PrioritizedReplayBuffer, ReplayBuffer
from mlgpu.rl.returns import discounted_returns, generalized_advantages
from mlgpu.rl.rollout import RolloutBuffer
from mlgpu.rl.sac import SAC
from mlgpu.rl.schedules import ExponentialSchedule, LinearSchedule
from mlgpu.rl.spaces import Box, Discrete
from mlgpu.rl.sum_tree import SumTree
from mlgpu.rl.trainer import OffPolicyTrainer, OnPolicyTrainer
from mlgpu.rl.vector import AsyncVectorEnv, SyncVectorEnv, VectorEnv, make_vec

__all__ = ["A2C", "DQN", "PPO", "SAC", "ActorCritic", "Agent", "AsyncPolicy", "AsyncVectorEnv",
           "Box", "CartPole", "CategoricalPolicy", "Discrete", "Dueling", "Environment",
           "EpisodeMetrics", "EpsilonGreedy", "ExponentialSchedule", "GaussianPolicy",
           "GridWorld", "LinearSchedule", "OffPolicyTrainer", "OnPolicyTrainer", "Pendulum",
           "Policy", "PrioritizedReplayBuffer", "ReplayBuffer", "RolloutBuffer",
           "StochasticPolicy", "SumTree", "SyncVectorEnv", "TanhGaussianPolicy", "VectorEnv",
           "discounted_returns", "evaluate", "generalized_advantages", "make", "make_vec"]
