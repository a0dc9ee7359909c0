"""Agents on a device learn what they learn on the CPU: buffers, policies, targets, a thread."""

from __future__ import annotations

import pytest

import mlgpu
from mlgpu import nn, rl
from mlgpu.errors import DeviceError


def off_policy(device: str) -> rl.OffPolicyTrainer:
    agent = rl.DQN(nn.Linear(4, 2), exploration=0.5, target_every=1, tau=0.1).to(device)
    env = rl.make_vec("CartPole-v1", 2)
    buffer = rl.PrioritizedReplayBuffer(
        16, env.single_observation_space, env.single_action_space, num_envs=2, n_step=2,
        device=device)
    return rl.OffPolicyTrainer(agent, mlgpu.optim.SGD(agent.parameters(), lr=0.1), env, buffer,
                               warmup=8, batch_size=4, async_policy=rl.AsyncPolicy(),
                               display="none", log_every=1)


def test_a_device_learns_what_the_cpu_learns() -> None:
    found = {}
    for device in ("cpu", "cuda"):
        mlgpu.manual_seed(0)
        trainer = off_policy(device)
        found[device] = trainer.fit(steps=2).curve("loss")[1], [*trainer.agent.parameters()]
    assert found["cuda"][0] == pytest.approx(found["cpu"][0], rel=1e-4)
    for there, value in zip(found["cuda"][1], found["cpu"][1], strict=True):
        assert there.is_cuda
        mlgpu.testing.assert_close(there.cpu(), value, rtol=1e-4, atol=1e-5)


def test_a_buffer_elsewhere_is_refused() -> None:
    agent = rl.DQN(nn.Linear(4, 2)).to("cuda")
    buffer = rl.ReplayBuffer(4, rl.CartPole().observation_space, rl.Discrete(2))
    with pytest.raises(DeviceError, match="the buffer is on cpu, the agent on cuda:0; pass device"):
        rl.OffPolicyTrainer(agent, mlgpu.optim.SGD(agent.parameters(), lr=0.1), rl.CartPole(),
                            buffer)
