"""Agents learn, and their trainers resume bit for bit, act in threads, and say what is wrong."""

from __future__ import annotations

import threading

import numpy as np
import pytest

import mlgpu
from mlgpu import nn, rl
from mlgpu.errors import FormatError, MlgpuError, ShapeError
from mlgpu.train import Callback, Checkpoints, Dashboard, Record

SEEN = 4


def network(inputs, outputs, width=16):
    return nn.Sequential(nn.Linear(inputs, width), nn.Tanh(), nn.Linear(width, outputs))


class Stop(Callback):
    """Ends the run after so many steps."""

    def __init__(self, at):
        self.at = at

    def on_step_end(self, trainer):
        if trainer.progress.step == self.at:
            trainer.stop("as it was told")


# --- learning ---------------------------------------------------------------------------------

def test_ppo_balances_the_pole():
    mlgpu.manual_seed(0)
    agent = rl.PPO(rl.CategoricalPolicy(network(SEEN, 2, 64)), network(SEEN, 1, 64))
    trainer = rl.OnPolicyTrainer(
        agent, mlgpu.optim.Adam(agent.parameters(), lr=5e-3), rl.make_vec("CartPole-v1", 8),
        rollout_steps=64, passes=8, gamma=0.98, lam=0.9, display="none", clip_norm=0.5)
    judge = rl.make_vec("CartPole-v1", 4)
    before = trainer.evaluate(judge)
    run = trainer.fit(env_steps=3000)
    after = trainer.evaluate(judge)
    assert before["reward"] < 20
    assert after["reward"] > 120  # seen: 225, and with other seeds 212 and 449
    assert after["episode_length"] == after["reward"]
    assert run.curve("env_steps")[1][-1] == 3072
    assert {"reward", "episode_length", "entropy", "approx_kl"} <= set(run.names("train"))


def test_dqn_finds_the_values_that_value_iteration_finds():
    """A table for a network, which learns from random walks what the equation of Bellman says."""
    gamma, world = 0.5, rl.GridWorld()
    wanted = np.zeros((12, 4))
    for _ in range(60):
        for cell, action in np.ndindex(12, 4):
            led_to = world.moved(cell, action)
            after = 0.0 if world.is_goal(led_to) else wanted[led_to].max()
            wanted[cell, action] = -1.0 + gamma * after
    mlgpu.manual_seed(0)
    env = rl.SyncVectorEnv([rl.GridWorld] * 4)
    buffer = rl.ReplayBuffer(2000, env.single_observation_space, env.single_action_space,
                             num_envs=4, gamma=gamma)
    agent = rl.DQN(nn.Embedding(12, 4), exploration=1.0, target_every=10)
    optimizer = mlgpu.optim.Adam(agent.parameters(), lr=0.2)
    schedule = mlgpu.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.02, 160)
    trainer = rl.OffPolicyTrainer(agent, optimizer, env, buffer, warmup=1600, batch_size=128,
                                  scheduler=schedule, display="none", val_env=rl.GridWorld(),
                                  episodes=1)
    run = trainer.fit(steps=160, evaluate_every=80)
    visited = [cell for cell in range(12) if cell not in (5, 11)]  # the wall, and the end
    found = agent.policy.network.weight.detach().numpy()
    np.testing.assert_allclose(found[visited], wanted[visited], atol=0.05)
    assert run.curve("val_reward") == ([80, 160], [-5.0, -5.0])
    assert run.best.value == -5.0
    assert run.curve("exploration")[1][-1] == 1.0


class Aim:
    """One step: the reward is minus the square of the distance between action and 3 * seen."""

    observation_space, action_space = rl.Box(-1, 1, (1,)), rl.Box(-4, 4, (1,))

    def __init__(self):
        self.random = np.random.default_rng()

    def reset(self, *, seed=None, options=None):
        if seed is not None:
            self.random = np.random.default_rng(seed)
        self.seen = self.random.uniform(-1, 1, 1)
        return self.seen, {}

    def step(self, action):
        return self.seen, -float((action[0] - 3 * self.seen[0]) ** 2), True, False, {}

    def close(self):
        pass


def test_sac_aims():
    mlgpu.manual_seed(0)
    env = rl.SyncVectorEnv([Aim] * 4)
    agent = rl.SAC(rl.TanhGaussianPolicy(nn.Linear(1, 2), env.single_action_space),
                   (network(2, 1, 32), network(2, 1, 32)), tau=0.1, alpha=0.02)
    buffer = rl.ReplayBuffer(2000, env.single_observation_space, env.single_action_space,
                             num_envs=4)
    trainer = rl.OffPolicyTrainer(agent, mlgpu.optim.Adam(agent.parameters(), lr=5e-2), env, buffer,
                                  warmup=400, display="none", val_env=Aim(), episodes=20)
    before = trainer.evaluate()["reward"]
    run = trainer.fit(steps=80, evaluate_every=80)
    assert before < -4
    assert run.last["val_reward"] > before / 3  # seen: -0.5 of -9.4
    assert {"critic_loss", "policy_loss", "entropy", "alpha", "q"} <= set(run.names("train"))


# --- resuming ---------------------------------------------------------------------------------

def off_policy(folder, *, kind=rl.PrioritizedReplayBuffer, env=None, async_policy=None,
               callbacks=(), **options):
    mlgpu.manual_seed(0)
    env = env or rl.SyncVectorEnv([rl.CartPole] * 2)
    agent = rl.DQN(rl.Dueling(network(SEEN, 8), nn.Linear(8, 1), nn.Linear(8, 2)), tau=0.1,
                   target_every=3, exploration=rl.LinearSchedule(1.0, 0.1, 60))
    buffer = kind(40, env.single_observation_space, env.single_action_space, num_envs=2, n_step=3)
    return rl.OffPolicyTrainer(
        agent, mlgpu.optim.Adam(agent.parameters(), lr=1e-2), env, buffer,
        **{"warmup": 16, "batch_size": 8, "updates": 2, "train_every": 2, **options},
        async_policy=async_policy, callbacks=callbacks, display="none", log_every=1, window=5,
        folder=folder, checkpoints=Checkpoints(every_steps=1) if folder else None,
        val_env=rl.SyncVectorEnv([rl.CartPole] * 2), episodes=3)


def continuous(folder, *, delayed=False, callbacks=(), **options):
    mlgpu.manual_seed(0)
    env = rl.SyncVectorEnv([rl.Pendulum] * 2)
    critics = network(SEEN, 1), network(SEEN, 1)
    agent = (rl.TD3(rl.DeterministicPolicy(network(3, 1), env.single_action_space), critics)
             if delayed else
             rl.SAC(rl.TanhGaussianPolicy(network(3, 2), env.single_action_space), critics))
    buffer = rl.ReplayBuffer(40, env.single_observation_space, env.single_action_space, num_envs=2)
    return rl.OffPolicyTrainer(
        agent, mlgpu.optim.Adam(agent.parameters(), lr=1e-2), env, buffer, warmup=8, batch_size=8,
        callbacks=callbacks, display="none", log_every=1, folder=folder, **options)


def on_policy(folder, *, callbacks=(), **options):
    mlgpu.manual_seed(0)
    agent = rl.PPO(rl.GaussianPolicy(network(3, 1), 1), network(3, 1))
    return rl.OnPolicyTrainer(
        agent, mlgpu.optim.Adam(agent.parameters(), lr=1e-2), rl.SyncVectorEnv([rl.Pendulum] * 2),
        rollout_steps=8, passes=2, batch_size=6, callbacks=callbacks, display="none", log_every=1,
        folder=folder, **options)


def told(run):
    """What a run's records say, but for times."""
    return [(r.kind, r.step, {name: value for name, value in r.values.items()
                              if name not in ("samples_per_second", "memory")})
            for r in run.history]


CASES = {
    "thread": (off_policy, lambda: {"async_policy": rl.AsyncPolicy()},
               {"steps": 18, "evaluate_every": 8}, 11),
    "sac": (continuous, dict, {"steps": 8}, 5),
    "td3": (continuous, lambda: {"delayed": True}, {"steps": 8}, 5),
    "rollout": (on_policy, dict, {"rollouts": 2}, 4),
    "rollout's end": (on_policy, dict, {"rollouts": 2}, 6),
}


@pytest.mark.parametrize("case", CASES)
def test_a_run_resumes_bit_for_bit(case, tmp_path):
    make, options, fit, at = CASES[case]
    whole = make(None, **options())
    wanted = whole.fit(**fit)
    before = make(tmp_path, callbacks=[Stop(at)], **options())
    assert before.fit(**fit).status == "stopped"
    mlgpu.rand(3)  # whatever happens between
    again = make(tmp_path, **options())
    run = again.fit(**fit, resume=True)
    assert run.step == wanted.step > at
    assert told(run) == told(wanted)
    for value, other in zip(whole.agent.parameters(), again.agent.parameters(), strict=True):
        assert value.tolist() == other.tolist()


class Forgetful(rl.CartPole):
    """An environment that cannot tell its state."""

    state_dict = load_state_dict = property()


@pytest.mark.parametrize("async_policy", [None, rl.AsyncPolicy])
def test_without_the_environments_states_new_episodes_begin(tmp_path, async_policy):
    def made(*callbacks):
        return off_policy(tmp_path, env=rl.SyncVectorEnv([Forgetful] * 2), callbacks=callbacks,
                          async_policy=async_policy and async_policy())

    made(Stop(5)).fit(steps=20)
    again = made()
    with pytest.warns(UserWarning, match="the environments have no state_dict"):
        again.fit(steps=20, resume=True)
    source = again.source
    assert source.env_steps == 16 + 2 * 2 * 10
    # Each transition of the buffer is one of the environment's: no episode was glued to another.
    rows = source.buffer._rows(mlgpu.arange(len(source.buffer)))
    for seen, after, discount in zip(*(rows[name].numpy() for name in (
            "observation", "next_observation", "discount")), strict=True):
        steps = 3 if discount == 0 else round(float(np.log(discount) / np.log(0.99)))
        assert abs(after[0] - seen[0]) <= 0.02 * steps * (np.abs([seen[1], after[1]]).max() + 0.6)


def test_a_run_is_not_resumed_as_another(tmp_path):
    off_policy(tmp_path, callbacks=[Stop(3)]).fit(steps=9)
    with pytest.raises(FormatError, match="begun with none for async_policy="):
        off_policy(tmp_path, async_policy=rl.AsyncPolicy()).fit(steps=9, resume=True)


# --- acting in a thread -----------------------------------------------------------------------

def test_acting_in_a_thread_does_not_depend_on_time():
    def rewards(delay):
        class Slow(rl.CartPole):
            def step(self, action):
                if delay:
                    threading.Event().wait(delay)
                return super().step(action)

        trainer = off_policy(None, env=rl.SyncVectorEnv([Slow] * 2),
                             async_policy=rl.AsyncPolicy())
        return told(trainer.fit(steps=12))

    assert rewards(0.0) == rewards(0.002)


def test_acting_ahead_takes_the_newest_weights():
    policy = rl.AsyncPolicy(deterministic=False, ahead=3)
    trainer = off_policy(None, async_policy=policy, kind=rl.ReplayBuffer)
    run = trainer.fit(steps=12)
    assert run.status == "finished"
    assert run.last["env_steps"] == 16 + 6 * 4  # as many as without a thread
    assert len(policy._rounds) == 3
    assert all(found.done() for found in policy._rounds)  # nothing acts after fit
    seen = mlgpu.randn(4, SEEN)
    assert (policy.act(seen, deterministic=True).tolist()
            == trainer.agent.act(seen, deterministic=True).tolist())
    with pytest.raises(MlgpuError, match="acts for a trainer already"):
        off_policy(None, async_policy=policy)


def test_what_acting_raises_ends_the_run():
    class Frail(rl.CartPole):
        def step(self, action):
            if self.steps == 9:
                raise ZeroDivisionError("as it was told")
            return super().step(action)

    trainer = off_policy(None, env=rl.SyncVectorEnv([Frail] * 2), async_policy=rl.AsyncPolicy())
    with pytest.raises(ZeroDivisionError, match="as it was told"):
        trainer.fit(steps=50)
    assert trainer.run.status == "failed"


# --- the rest ---------------------------------------------------------------------------------

def test_episodes_are_counted_as_they_end():
    metrics = rl.EpisodeMetrics(2, window=2)
    assert metrics.compute() == {"episodes": 0.0}
    for reward, ended in (([1, 5], [False, True]), ([2, 7], [True, False]), ([4, 1], [True, True])):
        metrics.update(np.array(reward, np.float32), np.array(ended))
    assert metrics.last == [(0, 4.0, 1), (1, 8.0, 2)]
    assert metrics.compute() == {"reward": 6.0, "episode_length": 1.5, "episodes": 4.0}


def test_evaluation_plays_as_many_of_each_environment():
    class Upright:
        def act(self, observation, *, step=0, deterministic=False, generator=None):
            return (observation[:, 2] + 0.3 * observation[:, 3] > 0).long()

    seen = []
    alone = [rl.evaluate(Upright(), rl.CartPole(40), episodes=1, seed=s)["reward"] for s in (3, 4)]
    both = rl.evaluate(Upright(), rl.SyncVectorEnv([lambda: rl.CartPole(40)] * 2), episodes=2,
                       seed=3, after_episode=lambda done: seen.append(done) or True)
    assert both["reward"] == np.mean(alone)
    assert seen == [1, 2]
    assert rl.evaluate(Upright(), rl.CartPole(40), after_episode=lambda done: False) is None


def test_evaluation_leaves_the_episodes_of_training_alone():
    env = rl.CartPole()
    agent = rl.PPO(rl.CategoricalPolicy(network(SEEN, 2)), network(SEEN, 1))
    with pytest.raises(ValueError, match="an environment of its own"):
        rl.OnPolicyTrainer(agent, mlgpu.optim.Adam(agent.parameters()), env, val_env=env)
    trainer = on_policy(None)
    with pytest.raises(ValueError, match="an environment of its own"):
        trainer.evaluate(trainer.source.actor.env)


@pytest.mark.parametrize(("call", "error", "text"), [
    (lambda: off_policy(None, batch_size=0), ValueError, "batch_size must be at least 1, got 0"),
    (lambda: off_policy(None, warmup=-1), ValueError, "warmup must not be negative"),
    (lambda: off_policy(None, env=rl.SyncVectorEnv([rl.CartPole] * 3)), ShapeError,
     "the buffer is for num_envs=2, and there are 3"),
    (lambda: off_policy(None, warmup=0, train_every=1).fit(steps=1), MlgpuError, "it is empty"),
    (lambda: off_policy(None).fit(), ValueError, "either env_steps= or steps="),
    (lambda: off_policy(None).fit(env_steps=1, steps=1), ValueError, "either env_steps= or steps="),
    (lambda: off_policy(None).fit(env_steps=16), ValueError, "over with the warmup"),
    (lambda: on_policy(None).fit(), ValueError, "either env_steps= or rollouts="),
    (lambda: on_policy(None).evaluate(), ValueError, "there is no val_env"),
    (lambda: on_policy(None, episodes=0), ValueError, "episodes must be at least 1"),
    (lambda: rl.OnPolicyTrainer(rl.DQN(nn.Linear(1, 1)), None, rl.CartPole()), TypeError,
     "must be an ActorCritic"),
    (lambda: rl.evaluate(None, 3), TypeError, "expected an environment"),
    (lambda: rl.evaluate(None, rl.CartPole(), episodes=0), ValueError, "episodes must be at least"),
    (lambda: rl.AsyncPolicy(ahead=2), ValueError, "1 where deterministic"),
    (lambda: rl.AsyncPolicy().act(mlgpu.zeros(1, 1)), MlgpuError, "give it to an OffPolicyTrainer"),
])
def test_what_is_wrong_is_said(call, error, text):
    with pytest.raises(error, match=text):
        call()


def test_the_dashboard_has_room_for_the_reward():
    board = Dashboard()
    for step in (1, 2):
        board._take(Record("train", step, 1, 0.0, dict.fromkeys(
            ("loss", "policy_loss", "value_loss", "entropy", "reward", "lr"), 1.0)))
    assert [group[0].name for group in board._groups()] == ["loss", "reward", "policy_loss", "lr"]


def test_priorities_want_td_errors():
    trainer = off_policy(None)
    loss = trainer.agent.loss
    trainer.agent.loss = lambda batch: {"loss": loss(batch)["loss"]}
    with pytest.raises(TypeError, match="to have 'td_error' beside 'loss'"):
        trainer.fit(steps=1)
