"""Environments: their equations, what they refuse, and many of them side by side."""

from __future__ import annotations

import math
import multiprocessing
import sys
import types

import numpy as np
import pytest

from mlgpu import extras, rl
from mlgpu.errors import DTypeError, MissingExtraError, MlgpuError, ShapeError
from mlgpu.random import Generator
from mlgpu.rl.spaces import space_of

PLAYED = 12  # steps


def played(env, actions, seed=3):
    """Observations, rewards and ends of an episode, or as many as there are actions."""
    seen = [env.reset(seed=seed)[0]]
    told = []
    for action in actions:
        observation, reward, terminated, truncated, _ = env.step(action)
        seen.append(observation)
        told.append((reward, terminated, truncated))
        if terminated or truncated:
            break
    return np.array(seen), told


def test_cart_pole_moves_by_the_equations_of_motion():
    """Force balance of the cart, torque balance of a rod about its end: solved as two equations."""
    env = rl.CartPole()
    env.reset(seed=0)
    cart, rod, half, g = 1.0, 0.1, 0.5, 9.8
    for action in [0, 1, 1, 0, 1, 1, 1, 1]:
        x, v, angle, spin = env._state
        force = 10.0 if action else -10.0
        mass = np.array([[cart + rod, rod * half * math.cos(angle)],
                         [rod * half * math.cos(angle), 4 / 3 * rod * half**2]])
        push = [force + rod * half * spin**2 * math.sin(angle), rod * g * half * math.sin(angle)]
        pull, turn = np.linalg.solve(mass, push)
        wanted = [x + 0.02 * v, v + 0.02 * pull, angle + 0.02 * spin, spin + 0.02 * turn]
        observation, reward, *_ = env.step(action)
        np.testing.assert_allclose(env._state, wanted, rtol=1e-12)
        np.testing.assert_array_equal(observation, np.array(env._state, np.float32))
        assert reward == 1.0


def test_cart_pole_ends():
    _, told = played(rl.CartPole(), [1] * 50)
    assert 5 < len(told) < 15
    assert told[-1] == (1.0, True, False)
    _, told = played(rl.CartPole(max_steps=4), [1] * 50)
    assert told == [(1.0, False, False)] * 3 + [(1.0, False, True)]


def test_pendulum_turns_by_torque():
    env = rl.Pendulum(max_steps=8)
    env.reset(seed=1)
    for torque in [2.0, -2.0, 0.5, 0.0, 1.0, 2.0, 2.0]:
        angle, spin = env._state
        inertia = 1.0 / 3.0  # of a rod of mass 1 and length 1 about its end
        turn = (10.0 * 0.5 * math.sin(angle) + torque) / inertia
        around = math.atan2(math.sin(angle), math.cos(angle))
        observation, reward, terminated, truncated, _ = env.step(np.array([torque], np.float32))
        assert reward == pytest.approx(-(around**2 + 0.1 * spin**2 + 0.001 * torque**2))
        spin = min(max(spin + 0.05 * turn, -8.0), 8.0)
        np.testing.assert_allclose(env._state, [angle + 0.05 * spin, spin], rtol=1e-12)
        np.testing.assert_allclose(observation, [math.cos(env._state[0]), math.sin(env._state[0]),
                                                 spin], rtol=1e-6)
        assert (terminated, truncated) == (False, False)
    assert env.step(np.zeros(1))[2:4] == (False, True)


def test_grid_world_walks_and_slips():
    seen, told = played(rl.GridWorld(), [3, 0, 1, 1, 2, 2, 1])
    assert seen.tolist() == [0, 0, 0, 1, 2, 6, 10, 11]
    assert told == [(-1.0, False, False)] * 6 + [(-1.0, True, False)]
    assert played(rl.GridWorld(), [1, 2])[0].tolist() == [0, 1, 1]  # a wall
    always = rl.GridWorld(["...", ".S.", "..G"], slip=1.0, max_steps=10_000)
    always.reset(seed=0)
    sides = []
    for _ in range(400):
        always._state = (4,)
        sides.append(int(always.step(0)[0]))
    assert set(sides) == {3, 5}
    assert 150 < sides.count(3) < 250


@pytest.mark.parametrize("make", [rl.CartPole, rl.Pendulum, lambda: rl.GridWorld(slip=0.5)])
def test_an_environment_goes_on_from_its_state(make):
    generator = Generator().manual_seed(0)
    env = make()
    actions = space_of(env.action_space).sample(PLAYED, generator)
    env.reset(seed=5)
    env.step(actions[0])
    twin = make()
    twin.load_state_dict(env.state_dict())
    for one, other in ((env, twin), (twin, env)):
        one_seen, other_seen = (
            [e.step(a)[:2] for a in actions[1:4]] + [e.reset()[0]] for e in (one, other))
        for a, b in zip(one_seen, other_seen, strict=True):
            np.testing.assert_equal(a, b)


@pytest.mark.parametrize(("call", "error", "text"), [
    (lambda: rl.CartPole().step(0), MlgpuError, r"no episode is under way; call reset\(\)"),
    (lambda: played(rl.CartPole(), [2]), ValueError, "2 is no action of Discrete"),
    (lambda: played(rl.Pendulum(), [np.array([3.0])]), ValueError, "is no action of Box"),
    (lambda: rl.Pendulum(max_steps=0), ValueError, "max_steps must be at least 1"),
    (lambda: rl.GridWorld(["S.", "G"]), ValueError, "of one length"),
    (lambda: rl.GridWorld(["S.", ".."]), ValueError, "one S and at least one G"),
    (lambda: rl.GridWorld(slip=2.0), ValueError, "slip must be from 0 to 1"),
    (lambda: rl.Discrete(0), ShapeError, "n must be at least 1"),
    (lambda: rl.Box(1.0, 0.0, (2,)), ShapeError, "low must not be above high"),
    (lambda: rl.Box([0.0, 0.0], 1.0, (3,)), ShapeError, "do not fit"),
    (lambda: rl.Box(0, 1, (2,), dtype=bool), DTypeError, "must be of numbers"),
    (lambda: rl.Box(-np.inf, 1.0, (2,)).sample(1, Generator()), ShapeError, "infinite bounds"),
    (lambda: space_of({"a": 1}), TypeError, "must be Discrete or Box, got dict"),
    (lambda: rl.SyncVectorEnv([]), ShapeError, "at least one"),
    (lambda: rl.SyncVectorEnv([rl.CartPole()]), TypeError, "functions that make environments"),
    (lambda: rl.SyncVectorEnv([rl.CartPole, rl.Pendulum]), ShapeError, "the same spaces"),
    (lambda: rl.AsyncVectorEnv([rl.CartPole], workers="x"), ValueError, "'process' or 'thread'"),
    (lambda: rl.AsyncVectorEnv([rl.CartPole], num_workers=2), ValueError, "from 1 to 1"),
])
def test_what_is_wrong_is_said(call, error, text):
    with pytest.raises(error, match=text):
        call()


def test_spaces_sample_and_contain():
    generator = Generator().manual_seed(0)
    discrete = rl.Discrete(3, start=5)
    assert set(discrete.sample(100, generator).tolist()) == {5, 6, 7}
    assert discrete.contains(np.int64(7))
    assert not any(discrete.contains(value) for value in (8, 5.0, [5]))
    box = rl.Box([-1.0, 0.0], [1.0, 10.0])
    drawn = box.sample(2000, generator)
    assert drawn.dtype == np.float32
    assert all(box.contains(row) for row in drawn[:20])
    np.testing.assert_allclose(drawn.mean(0), [0, 5], atol=0.25)
    pixels = rl.Box(0, 255, (2, 2), np.uint8)
    assert pixels.sample(50, generator).dtype == np.uint8
    assert not pixels.contains(np.full((2, 2), 256))
    assert rl.Box(0, 1, (2,), np.float64) == rl.Box(0, 1, (2,), np.float32)


# --- side by side -----------------------------------------------------------------------------

class Frail:
    """An environment without a state, which breaks at its third step."""

    observation_space = rl.Box(0.0, 10.0, (1,))
    action_space = rl.Discrete(2)

    def reset(self, *, seed=None, options=None):
        self.steps = 0
        return np.zeros(1), {"seed": seed}

    def step(self, action):
        self.steps += 1
        if action:
            raise ZeroDivisionError(f"broke at step {self.steps}")
        return np.full(1, self.steps), 0.5, False, self.steps == 2, {"steps": self.steps}

    def close(self):
        pass


def test_episodes_begin_anew_in_the_step_that_ends_them():
    env = rl.SyncVectorEnv([Frail, Frail])
    observation, info = env.reset(seed=4)
    assert observation.dtype == np.float32
    assert [found["seed"] for found in info["infos"]] == [4, 5]
    env.step([0, 0])
    observation, reward, terminated, truncated, info = env.step([0, 0])
    assert observation.tolist() == [[0], [0]]
    assert info["next_obs"].tolist() == [[2], [2]]
    assert (reward.tolist(), reward.dtype) == ([0.5, 0.5], np.float32)
    assert truncated.all()
    assert not terminated.any()
    assert info["infos"][1] == {"steps": 2}
    assert env.state_dict() is None


@pytest.fixture(scope="module", params=["thread", "process"])
def at_once(request):
    with rl.AsyncVectorEnv([rl.CartPole] * 3, num_workers=2, workers=request.param) as env:
        yield env


def test_workers_do_what_one_after_the_other_does(at_once):
    env = rl.SyncVectorEnv([rl.CartPole] * 3)
    assert at_once.num_envs == 3
    assert at_once.single_observation_space == env.single_observation_space
    np.testing.assert_array_equal(at_once.reset(seed=[1, 5, 9])[0], env.reset(seed=[1, 5, 9])[0])
    for number in range(15):
        actions = [1, number % 2, 0]
        ours, theirs = env.step(actions), at_once.step(actions)
        for a, b in zip(ours[:4], theirs[:4], strict=True):
            np.testing.assert_array_equal(a, b)
        np.testing.assert_array_equal(ours[4]["next_obs"], theirs[4]["next_obs"])
    at_once.load_state_dict(env.state_dict())
    np.testing.assert_array_equal(env.step([0] * 3)[0], at_once.step([0] * 3)[0])


def test_workers_report_with_their_own_traceback(at_once):
    at_once.reset(seed=0)
    with pytest.raises(ValueError, match="is no action of Discrete") as found:
        at_once.step([0, 0, 7])
    told = str(found.value.__cause__) + "".join(str(entry) for entry in found.traceback)
    assert "_acting" in told
    at_once.reset(seed=0)  # no answer of the step before is taken for this one's
    assert at_once.step([0, 0, 0])[1].tolist() == [1, 1, 1]


def test_steps_are_begun_and_waited_for(at_once):
    at_once.reset(seed=0)
    at_once.step_async([0, 1, 0])
    with pytest.raises(MlgpuError, match="a step is under way"):
        at_once.step_async([0, 1, 0])
    with pytest.raises(MlgpuError, match="a step is under way"):
        at_once.reset()
    at_once.step_wait()
    with pytest.raises(MlgpuError, match="no step is under way"):
        at_once.step_wait()
    with pytest.raises(ShapeError, match="an action for each of 3"):
        at_once.step([0])
    with pytest.raises(ShapeError, match="a seed for each of 3"):
        at_once.reset(seed=[1])


@pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="needs fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_worker_that_dies_is_missed():
    env = rl.AsyncVectorEnv([lambda: rl.CartPole()], multiprocessing_context="fork")
    try:
        env.reset()
        env._workers[0]._process.kill()
        with pytest.raises(MlgpuError, match="worker 0 exited unexpectedly: it was killed by"):
            env.step([0])
    finally:
        env.close()
    with pytest.raises(MlgpuError, match="it is closed"):
        env.reset()


def test_what_cannot_be_sent_is_said():
    with pytest.raises(MlgpuError, match="must be picklable"):
        rl.AsyncVectorEnv([lambda: rl.CartPole()])


# --- Gymnasium --------------------------------------------------------------------------------

def test_gymnasium_is_named_where_it_is_missing(monkeypatch):
    def absent(name):
        raise ModuleNotFoundError(name=name)

    monkeypatch.setattr(extras, "import_module", absent)
    assert isinstance(rl.make("CartPole-v1", max_steps=7), rl.CartPole)
    with pytest.raises(MissingExtraError, match=r"make\('Acrobot-v1'\).*gymnasium.*'mlgpu\[rl\]'"):
        rl.make("Acrobot-v1")


def test_an_environment_of_gymnasium_fits(monkeypatch):
    """Spaces of another library, known by their names and attributes."""
    class Discrete:
        n, start = np.int64(2), np.int64(0)

    class Box:
        low, high, shape, dtype = np.zeros(1), np.full(1, 10.0), (1,), np.dtype(np.float64)

    class Theirs(Frail):
        observation_space, action_space = Box(), Discrete()

    library = types.ModuleType("gymnasium")
    library.make = lambda name, **options: Theirs()
    monkeypatch.setitem(sys.modules, "gymnasium", library)
    env = rl.make_vec("Their-v0", 2)
    assert env.single_observation_space == Frail.observation_space
    assert env.single_action_space == Frail.action_space
    env.reset()
    assert env.step([0, 0])[0].tolist() == [[1], [1]]


@pytest.mark.parametrize("name", ["CartPole-v1", "Pendulum-v1"])
def test_episodes_are_those_of_gymnasium(name):
    gymnasium = pytest.importorskip("gymnasium", reason="the peer needs the extra mlgpu[rl]")
    ours, theirs = rl.make(name), gymnasium.make(name)
    actions = ours.action_space.sample(250, Generator().manual_seed(1))
    a, b = played(ours, actions), played(theirs, actions)
    np.testing.assert_allclose(a[0], b[0], rtol=2e-5, atol=1e-5)
    np.testing.assert_allclose(np.array(a[1], float), np.array(b[1], float), rtol=1e-4, atol=1e-5)
