"""What steps are worth, what is remembered of them, and losses: against the papers in float64."""

from __future__ import annotations

import numpy as np
import pytest

import mlgpu
from mlgpu import nn, rl
from mlgpu.errors import FormatError, MlgpuError, ShapeError
from mlgpu.random import Generator
from mlgpu.train.state import snapshot, unpacked


def history(steps=9, envs=3, seed=1):
    """Rewards, values, next values, terminated, truncated: (steps, envs) float64 and bool."""
    rng = np.random.default_rng(seed)
    ends = rng.random((steps, envs))
    return (*(rng.normal(size=(steps, envs)) for _ in range(3)), ends < 0.2, ends > 0.8)


def tensors(*arrays, device):
    return [mlgpu.tensor(array, device=device) for array in arrays]


# --- returns and advantages -------------------------------------------------------------------

def test_advantages_are_sums_of_discounted_errors(device):
    reward, value, after, terminated, truncated = history()
    gamma, lam = 0.9, 0.7
    delta = reward + gamma * np.where(terminated, 0, after) - value
    wanted = np.zeros_like(reward)
    for t in range(len(reward)):
        for env in range(reward.shape[1]):
            for k in range(len(reward) - t):
                wanted[t, env] += (gamma * lam) ** k * delta[t + k, env]
                if terminated[t + k, env] or truncated[t + k, env]:
                    break
    found = rl.generalized_advantages(
        *tensors(reward, value, after, terminated, truncated, device=device), gamma, lam)
    np.testing.assert_allclose(found.cpu().numpy(), wanted, rtol=1e-12, atol=1e-12)


def test_returns_are_sums_of_discounted_rewards(device):
    reward, _, after, terminated, truncated = history(seed=2)
    gamma = 0.8
    for values in (after, np.zeros_like(after)):
        wanted = np.zeros_like(reward)
        for t, env in np.ndindex(*reward.shape):
            for k in range(len(reward) - t):
                wanted[t, env] += gamma**k * reward[t + k, env]
                ended = terminated[t + k, env] or truncated[t + k, env]
                if ended or t + k == len(reward) - 1:
                    if not terminated[t + k, env]:
                        wanted[t, env] += gamma ** (k + 1) * values[t + k, env]
                    break
        given = tensors(reward, terminated, truncated, values, device=device)
        found = rl.discounted_returns(*given[:3], gamma, given[3] if values.any() else None)
        np.testing.assert_allclose(found.cpu().numpy(), wanted, rtol=1e-12, atol=1e-12)


def test_advantages_with_lambda_one_are_returns_less_values(device):
    arrays = history(seed=3)
    goes_on = ~(arrays[3] | arrays[4])[:-1]
    arrays[2][:-1][goes_on] = arrays[1][1:][goes_on]  # what follows is seen next
    reward, value, after, terminated, truncated = tensors(*arrays, device=device)
    returns = rl.discounted_returns(reward, terminated, truncated, 0.9, after)
    found = rl.generalized_advantages(reward, value, after, terminated, truncated, 0.9, 1.0)
    mlgpu.testing.assert_close(found, returns - value)


def test_shapes_must_be_one():
    reward, value, after, terminated, truncated = tensors(*history(), device="cpu")
    with pytest.raises(ShapeError, match=r"the shape of rewards, \(9, 3\), got \(8, 3\)"):
        rl.generalized_advantages(reward, value[1:], after, terminated, truncated, 0.9, 0.9)
    with pytest.raises(ShapeError, match="at least one step"):
        rl.discounted_returns(reward[:0], terminated[:0], truncated[:0], 0.9)


# --- the sum tree and priorities --------------------------------------------------------------

@pytest.mark.parametrize("size", [1, 2, 5, 64, 100])
def test_the_tree_finds_what_cumulative_sums_find(size):
    rng = np.random.default_rng(size)
    tree, numbers = rl.SumTree(size), np.zeros(size)
    for _ in range(4):
        index = rng.choice(size, max(1, size // 2), replace=False)
        numbers[index] = rng.integers(0, 5, len(index))  # whole, so that all sums are exact
        numbers[rng.integers(size)] += 1
        tree[np.arange(size)] = numbers
        tree[index] = numbers[index]
        assert tree.total == numbers.sum()
        asked = np.append(rng.random(50) * numbers.sum(), 0.0)
        found = tree.find(asked)
        np.testing.assert_array_equal(found, np.searchsorted(numbers.cumsum(), asked, "right"))
        assert (tree[found] > 0).all()
    np.testing.assert_array_equal(tree.leaves(), numbers)


def test_rounding_leads_to_nothing_of_priority_zero():
    tree = rl.SumTree(8)
    tree[np.array([0, 1, 2])] = [0.1, 0.2, 0.3]
    assert tree.find(np.array([tree.total, np.nextafter(tree.total, 1)])).tolist() == [2, 2]


def filled(kind=rl.ReplayBuffer, steps=6, envs=2, **options):
    """A buffer of numbered observations (2,), with what was added."""
    rng = np.random.default_rng(3)
    buffer = kind(options.pop("capacity", 16), rl.Box(-100, 100, (2,)), rl.Discrete(4),
                  num_envs=envs, **options)
    added = []
    for t in range(steps):
        seen = np.full((envs, 2), t) + np.arange(envs)[:, None] * 50.0
        step = (seen, rng.integers(4, size=envs), rng.normal(size=envs), seen + 0.5,
                rng.random(envs) < 0.25, rng.random(envs) < 0.25)
        buffer.add(*step)
        added.append(step)
    return buffer, added


def test_priorities_are_chances_and_weights_make_up_for_them(device):
    """Schaul and others, 2016, equation 1 and section 3.4."""
    alpha, beta, eps = 0.7, 0.5, 1e-3
    buffer, _ = filled(rl.PrioritizedReplayBuffer, steps=5, alpha=alpha, beta=beta, eps=eps,
                       device=device)
    errors = np.array([0.0, 3.0, -1.0, 0.5, 2.0, -4.0, 0.1, 1.0])
    buffer.update_priorities(*tensors(np.arange(8), errors.astype(np.float32), device=device))
    # The two that came last have the largest priority there was, which was that of a new one.
    priority = (np.append(np.abs(errors), [1 - eps] * 2) + eps) ** alpha
    chance = priority / priority.sum()
    drawn = np.zeros(10)
    for _ in range(150):
        batch = buffer.sample(20)
        index = batch["index"].cpu().numpy()
        drawn += np.bincount(index, minlength=10)
        weight = (10 * chance[index]) ** -beta
        np.testing.assert_allclose(batch["weight"].cpu().numpy(), weight / weight.max(), rtol=1e-5)
        # Stratified: of each of 20 equal shares of the total, one.
        bounds = np.append(0, chance.cumsum())
        shares = np.arange(20) / 20
        assert (bounds[index] <= shares + 0.05 + 1e-9).all()
        assert (bounds[index + 1] >= shares - 1e-9).all()
    np.testing.assert_allclose(drawn / drawn.sum(), chance, atol=0.008)
    observation = batch["observation"].cpu().numpy()
    np.testing.assert_array_equal(observation[:, 0], index // 2 + index % 2 * 50)
    buffer.add(*filled()[1][0])
    assert buffer._tree[10] == pytest.approx((4 + eps) ** alpha)


@pytest.mark.parametrize("n", [1, 3])
def test_transitions_of_n_steps(n, device):
    gamma = 0.9
    buffer, added = filled(n_step=n, gamma=gamma, steps=8, device=device)
    wanted = []
    for t in range(len(added) - n + 1):
        for env in range(2):
            total, discount = 0.0, 1.0
            for _, _, reward, led_to, terminated, truncated in added[t:t + n]:
                total += discount * reward[env]
                discount *= 0.0 if terminated[env] else gamma
                after = led_to[env]
                if terminated[env] or truncated[env]:
                    break
            wanted.append([*added[t][0][env], added[t][1][env], total, *after, discount])
    found = buffer._rows(mlgpu.arange(len(buffer), device=device))
    rows = np.concatenate([found[name].cpu().numpy().reshape(len(buffer), -1) for name in (
        "observation", "action", "reward", "next_observation", "discount")], 1)
    np.testing.assert_allclose(rows, wanted[-16:], rtol=1e-6)


def test_the_oldest_give_way_and_samples_are_uniform(device):
    buffer, _ = filled(steps=11, capacity=8, device=device)
    assert len(buffer) == 8
    seen = buffer.sample(4000)["observation"][:, 0].cpu().numpy()
    values, counts = np.unique(seen, return_counts=True)
    np.testing.assert_array_equal(values, [7, 8, 9, 10, 57, 58, 59, 60])
    assert (np.abs(counts - 500) < 90).all()
    assert buffer.sample(3)["action"].dtype is mlgpu.int64


@pytest.mark.parametrize("kind", [rl.ReplayBuffer, rl.PrioritizedReplayBuffer])
def test_a_buffer_goes_on_from_its_state_bit_for_bit(kind, device, tmp_path):
    buffer, added = filled(kind, n_step=2, device=device)
    buffer.sample(3)
    if kind is rl.PrioritizedReplayBuffer:
        buffer.update_priorities(*tensors([1, 4], [0.3, 5.0], device=device))
    mlgpu.save(snapshot(buffer.state_dict()), tmp_path / "state")
    twin, _ = filled(kind, steps=0, n_step=2, device=device, seed=9)
    twin.load_state_dict(unpacked(mlgpu.load(tmp_path / "state")))
    for each in (buffer, twin):
        each.add(*added[0])
    one, other = buffer.sample(6), twin.sample(6)
    assert one.keys() == other.keys()
    for name, found in one.items():
        assert found.tolist() == other[name].tolist()


@pytest.mark.parametrize(("call", "error", "text"), [
    (lambda: filled(capacity=5), ShapeError, "a multiple of num_envs=2, got 5"),
    (lambda: filled(n_step=0), ShapeError, "n_step must be at least 1"),
    (lambda: filled(gamma=1.5), ValueError, "gamma must be from 0 to 1"),
    (lambda: filled(rl.PrioritizedReplayBuffer, alpha=-1), ValueError, "alpha must be at least 0"),
    (lambda: filled(steps=2, n_step=3)[0].sample(1), MlgpuError, "it is empty"),
    (lambda: filled()[0].sample(0), ShapeError, "batch_size must be at least 1"),
    (lambda: filled()[0].add(*[np.zeros(3)] * 6), ShapeError, "a row for each of num_envs=2"),
    (lambda: filled(rl.PrioritizedReplayBuffer)[0].update_priorities(
        mlgpu.arange(2), mlgpu.zeros(3)), ShapeError, "must have one shape"),
    (lambda: filled(rl.PrioritizedReplayBuffer)[0].update_priorities(
        mlgpu.arange(1), mlgpu.full((1,), float("nan"))), ValueError, "not finite"),
    (lambda: filled()[0].load_state_dict(filled(n_step=2)[0].state_dict()), FormatError, "n_step"),
    (lambda: rl.SumTree(0), ShapeError, "size must be at least 1"),
    (lambda: rl.RolloutBuffer(0, rl.Discrete(2), rl.Discrete(2)), ShapeError, "at least 1"),
    (lambda: rl.RolloutBuffer(1, rl.Discrete(2), rl.Discrete(2), lam=2.0), ValueError, "gamma and"),
    (lambda: rl.LinearSchedule(1, 0, 0), ValueError, "steps must be at least 1"),
    (lambda: rl.ExponentialSchedule(1, 0, 1.5), ValueError, "decay must be above 0"),
])
def test_what_is_wrong_is_said(call, error, text):
    with pytest.raises(error, match=text):
        call()


def test_a_rollout_is_filled_finished_and_read(device):
    buffer = rl.RolloutBuffer(3, rl.Box(-9, 9, (2,)), rl.Discrete(4), num_envs=2, gamma=0.9,
                              lam=0.8, device=device)
    reward, value, after, terminated, truncated = history(3, 2)
    with pytest.raises(MlgpuError, match="call finish"):
        buffer.rows(mlgpu.arange(1, device=device))
    for t in range(3):
        with pytest.raises(MlgpuError, match=f"it has {t} of 3 steps"):
            buffer.finish(*tensors(value, after, value, device=device))
        buffer.add(np.full((2, 2), t), np.array([t, 3]), reward[t], np.full((2, 2), t + 1),
                   terminated[t], truncated[t])
    with pytest.raises(MlgpuError, match="it is full with 3 steps"):
        buffer.add(*[np.zeros(2)] * 6)
    given = tensors(reward, value, after, terminated, truncated, device=device)
    advantage = rl.generalized_advantages(*given, 0.9, 0.8)
    buffer.finish(given[1], given[2], given[2])
    rows = buffer.rows(mlgpu.tensor([5, 2], device=device))
    assert rows["action"].tolist() == [3, 1]
    assert rows["observation"].tolist() == [[2, 2], [1, 1]]
    for name, wanted in (("advantage", advantage), ("return", advantage + given[1]),
                         ("value", given[1]), ("log_prob", given[2])):
        mlgpu.testing.assert_close(rows[name], wanted.flatten()[[5, 2]].float())
    buffer.clear()
    assert len(buffer) == 0


def test_schedules():
    linear = rl.LinearSchedule(1.0, 0.2, 4)
    assert [linear(step) for step in (0, 2, 4, 9)] == pytest.approx([1.0, 0.6, 0.2, 0.2])
    exponential = rl.ExponentialSchedule(1.0, 0.3, 0.5)
    assert [exponential(step) for step in (0, 1, 2)] == [1.0, 0.5, 0.3]


# --- policies ---------------------------------------------------------------------------------

class Fixed(nn.Module):
    """Gives the same row for each observation."""

    def __init__(self, *row):
        super().__init__()
        self.row = nn.Parameter(mlgpu.tensor(row))

    def forward(self, observation):
        return self.row.expand(len(observation), -1)


@pytest.mark.parametrize("epsilon", [0.0, 0.4, 1.0])
def test_epsilon_greedy(epsilon, device):
    policy = rl.EpsilonGreedy(Fixed(0.0, 2.0, 1.0, -1.0), lambda step: epsilon).to(device)
    seen = mlgpu.zeros(8000, 1, device=device)
    share = np.bincount(policy.act(seen, generator=Generator()).cpu().numpy(), minlength=4) / 8000
    np.testing.assert_allclose(share, epsilon / 4 + np.array([0, 1 - epsilon, 0, 0]), atol=0.015)
    assert set(policy.act(seen, deterministic=True).tolist()) == {1}
    assert policy.exploration(3) == epsilon


def test_a_categorical_policy(device):
    logits = np.array([0.5, -1.0, 2.0])
    chance = np.exp(logits) / np.exp(logits).sum()
    policy = rl.CategoricalPolicy(Fixed(*logits)).to(device)
    seen = mlgpu.zeros(8000, 1, device=device)
    generator = Generator().manual_seed(0)
    action = policy.act(seen, generator=generator)
    np.testing.assert_allclose(np.bincount(action.cpu().numpy()) / 8000, chance, atol=0.015)
    assert policy.act(seen[:2], deterministic=True).tolist() == [2, 2]
    log_prob, entropy = policy.evaluate(seen[:3], mlgpu.arange(3, device=device))
    np.testing.assert_allclose(log_prob.tolist(), np.log(chance), rtol=1e-5)
    np.testing.assert_allclose(entropy.tolist(), [-(chance * np.log(chance)).sum()] * 3, rtol=1e-5)
    # The numbers are the generator's: the same again from the same state.
    again = policy.act(seen, generator=Generator().manual_seed(0))
    assert again.tolist() == action.tolist()


def test_a_gaussian_policy(device):
    policy = rl.GaussianPolicy(Fixed(1.0, -2.0), 2, std=0.5).to(device)
    seen = mlgpu.zeros(8000, 1, device=device)
    action = policy.act(seen, generator=Generator())
    np.testing.assert_allclose(action.cpu().numpy().mean(0), [1, -2], atol=0.03)
    np.testing.assert_allclose(action.cpu().numpy().std(0), [0.5, 0.5], atol=0.03)
    given = action[:4].cpu().numpy().astype(np.float64)
    log_prob, entropy = policy.evaluate(seen[:4], action[:4])
    z = (given - [1, -2]) / 0.5
    wanted = (-z**2 / 2 - np.log(0.5) - np.log(2 * np.pi) / 2).sum(1)
    np.testing.assert_allclose(log_prob.tolist(), wanted, rtol=1e-5)
    np.testing.assert_allclose(entropy.tolist(), [np.log(2 * np.pi * np.e * 0.25)] * 4, rtol=1e-5)
    assert policy.act(seen[:1], deterministic=True).tolist() == [[1, -2]]


def test_a_squashed_gaussian_policy_has_the_density_of_its_actions(device):
    space = rl.Box([-1.0, 0.0], [3.0, 1.0])
    mean, log_std = np.array([0.4, -0.3]), np.array([-0.5, 0.2])
    policy = rl.TanhGaussianPolicy(Fixed(*mean, *log_std), space).to(device)
    action, density = policy.rsample(mlgpu.zeros(500, 1, device=device), Generator())
    given = action.detach().cpu().numpy().astype(np.float64)
    assert all(space.contains(row) for row in given)
    middle, reach = np.array([1.0, 0.5]), np.array([2.0, 0.5])
    unit = (given - middle) / reach
    raw = np.arctanh(unit)
    wanted = (-((raw - mean) / np.exp(log_std)) ** 2 / 2 - log_std - np.log(2 * np.pi) / 2
              - np.log(reach * (1 - unit**2))).sum(1)
    inside = (np.abs(unit) < 0.99).all(1)  # where float32 holds the distance from the bound
    np.testing.assert_allclose(density.detach().cpu().numpy()[inside], wanted[inside], atol=2e-3)
    best = policy.act(mlgpu.zeros(1, 1, device=device), deterministic=True)
    np.testing.assert_allclose(best.tolist(), [middle + reach * np.tanh(mean)], rtol=1e-5)
    drawn = policy.act(mlgpu.zeros(500, 1, device=device), generator=Generator())
    np.testing.assert_allclose(drawn.cpu().numpy(), given, rtol=1e-5, atol=1e-6)


def test_far_out_a_squashed_density_is_finite(device):
    policy = rl.TanhGaussianPolicy(Fixed(30.0, -2.0), rl.Box(-1, 1, (1,))).to(device)
    _, density = policy.rsample(mlgpu.zeros(4, 1, device=device), Generator())
    density.sum().backward()
    assert np.isfinite(density.tolist()).all()
    assert np.isfinite(policy.network.row.grad.tolist()).all()


def test_a_deterministic_policy_explores_by_noise(device):
    space = rl.Box([-1.0, 0.0], [3.0, 1.0])
    policy = rl.DeterministicPolicy(Fixed(0.5, -0.2), space, lambda step: 0.1 * step).to(device)
    seen = mlgpu.zeros(4000, 1, device=device)
    best = np.array([1.0, 0.5]) + [2.0, 0.5] * np.tanh([0.5, -0.2])
    np.testing.assert_allclose(policy.act(seen[:1], deterministic=True).tolist(), [best], rtol=1e-5)
    drawn = policy.act(seen, step=1, generator=Generator()).cpu().numpy()
    np.testing.assert_allclose(drawn.mean(0), best, atol=0.02)
    np.testing.assert_allclose(drawn.std(0), [0.2, 0.05], rtol=0.05)
    far = policy.act(seen[:50], step=100, generator=Generator()).cpu().numpy()
    assert all(space.contains(row) for row in far)
    assert (far == space.high).any()


@pytest.mark.parametrize(("make", "text"), [
    (lambda: rl.TanhGaussianPolicy(Fixed(0.0), rl.Discrete(2)), "a Box of floats"),
    (lambda: rl.TanhGaussianPolicy(Fixed(0.0), rl.Box(0, np.inf, (1,))), "finite bounds"),
    (lambda: rl.TanhGaussianPolicy(Fixed(0.0), rl.Box(0, 0, (1,))), "nothing above it"),
    (lambda: rl.TanhGaussianPolicy(Fixed(0.0), rl.Box(0, 1, (1,))).act(mlgpu.zeros(1, 1)),
     r"must give \(n, 2\)"),
    (lambda: rl.GaussianPolicy(Fixed(0.0), 0), "size must be at least 1"),
])
def test_policies_say_what_is_wrong(make, text):
    with pytest.raises(ShapeError, match=text):
        make()


# --- losses -----------------------------------------------------------------------------------

def q_batch(device, n=6):
    rng = np.random.default_rng(5)
    batch = {"observation": rng.normal(size=(n, 3)), "action": rng.integers(4, size=n),
             "reward": rng.normal(size=n), "next_observation": rng.normal(size=(n, 3)),
             "discount": rng.choice([0.0, 0.9], n), "weight": rng.random(n)}
    return batch, {name: mlgpu.tensor(a, dtype=mlgpu.int64 if a.dtype.kind == "i" else
                                      mlgpu.float32, device=device) for name, a in batch.items()}


def applied(network, x):
    weight, bias = (p.detach().cpu().numpy().astype(np.float64) for p in network.parameters())
    return x @ weight.T + bias


@pytest.mark.parametrize(("double", "delta"), [(False, 1.0), (True, 0.3), (True, None)])
def test_the_loss_of_dqn(double, delta, device):
    mlgpu.manual_seed(1)
    agent = rl.DQN(nn.Linear(3, 4), double=double, delta=delta).to(device)
    with mlgpu.no_grad():
        agent.policy.network.weight.mul_(-1.5)  # so that the target is another
    given, batch = q_batch(device)
    online, target = agent.policy.network, agent.target
    after = applied(target, given["next_observation"])
    best = (applied(online, given["next_observation"]) if double else after).argmax(1)
    wanted = given["reward"] + given["discount"] * after[np.arange(6), best]
    error = wanted - applied(online, given["observation"])[np.arange(6), given["action"]]
    bound = np.inf if delta is None else delta
    assert (np.abs(error) > bound).any() == (delta is not None)
    huber = np.where(np.abs(error) < bound, error**2 / 2, (np.abs(error) - 0.5 * (delta or 0))
                     * (delta or 0))
    found = agent.loss(batch)
    assert found["loss"].item() == pytest.approx((huber * given["weight"]).mean(), rel=1e-5)
    np.testing.assert_allclose(found["td_error"].tolist(), error, rtol=1e-4, atol=1e-5)
    del batch["weight"]
    assert agent.loss(batch)["loss"].item() == pytest.approx(huber.mean(), rel=1e-5)


def test_targets_follow(device):
    agent = rl.DQN(nn.Linear(3, 4), tau=0.25, target_every=2).to(device)
    first = agent.target.weight.clone()
    with mlgpu.no_grad():
        agent.policy.network.weight.add_(1.0)
    agent.after_step(1)
    assert agent.target.weight.tolist() == first.tolist()
    agent.after_step(2)
    mlgpu.testing.assert_close(agent.target.weight, first + 0.25)
    whole = rl.DQN(nn.BatchNorm1d(4), target_every=1).to(device)
    whole.policy.network(mlgpu.randn(8, 4, device=device))
    whole.after_step(1)
    mlgpu.testing.assert_close(whole.target.running_mean, whole.policy.network.running_mean)


def test_dueling_values_and_advantages():
    network = rl.Dueling(nn.Identity(), Fixed(3.0), Fixed(1.0, 2.0, 6.0))
    assert network(mlgpu.zeros(2, 1)).tolist() == [[1.0, 2.0, 6.0]] * 2  # 3 + a - 3
    with pytest.raises(ShapeError, match=r"value must give \(2, 1\)"):
        rl.Dueling(nn.Identity(), Fixed(1.0, 2.0), Fixed(1.0, 2.0))(mlgpu.zeros(2, 1))


@pytest.mark.parametrize("normalize", [False, True])
def test_the_losses_of_ppo_and_a2c(normalize, device):
    rng = np.random.default_rng(2)
    n, clip = 8, 0.1
    logits, value = rng.normal(size=4), 0.3
    action, before = rng.integers(4, size=n), rng.normal(size=n) * 0.2 - 1.4
    advantage, returns = rng.normal(size=n), rng.normal(size=n)
    policy = rl.CategoricalPolicy(Fixed(*logits))
    log_p = logits - np.log(np.exp(logits).sum())
    entropy = -(np.exp(log_p) * log_p).sum()
    given = (advantage - advantage.mean()) / (advantage.std() + 1e-8) if normalize else advantage
    ratio = np.exp(log_p[action] - before)
    surrogate = -np.minimum(ratio * given, np.clip(ratio, 1 - clip, 1 + clip) * given).mean()
    rest = 0.7 * 0.5 * ((value - returns) ** 2).mean() - 0.01 * entropy
    batch = {"observation": mlgpu.zeros(n, 1), "action": mlgpu.tensor(action),
             **{name: mlgpu.tensor(a, dtype=mlgpu.float32) for name, a in (
                 ("log_prob", before), ("advantage", advantage), ("return", returns))}}
    batch = {name: a.to(device) for name, a in batch.items()}
    options = {"value_weight": 0.7, "entropy_weight": 0.01, "normalize": normalize}
    ppo = rl.PPO(policy, Fixed(value), clip=clip, **options).to(device).loss(batch)
    assert ppo["loss"].item() == pytest.approx(surrogate + rest, rel=1e-5)
    assert ppo["approx_kl"].item() == pytest.approx((ratio - 1 - np.log(ratio)).mean(), rel=1e-4)
    assert ppo["clipped"].item() == pytest.approx((np.abs(ratio - 1) > clip).mean())
    a2c = rl.A2C(policy, Fixed(value), **options).to(device).loss(batch)
    assert a2c["loss"].item() == pytest.approx(-(log_p[action] * given).mean() + rest, rel=1e-5)


def test_each_part_of_sacs_loss_reaches_its_own_parameters(device):
    """Against the three losses of the paper one by one, with the same random numbers."""
    mlgpu.manual_seed(0)
    space = rl.Box(-2, 2, (1,))
    agent = rl.SAC(rl.TanhGaussianPolicy(nn.Linear(3, 2), space),
                   (nn.Linear(4, 1), nn.Linear(4, 1))).to(device)
    _, batch = q_batch(device)
    batch["action"] = mlgpu.randn(6, 1, device=device)
    mlgpu.manual_seed(7)
    agent.loss(batch)["loss"].backward()
    found = {name: p.grad.clone() for name, p in agent.named_parameters() if p.grad is not None}
    agent.zero_grad()

    def q(critic, name, action):
        return critic(mlgpu.cat([batch[name], action], -1)).squeeze(-1)

    mlgpu.manual_seed(7)
    with mlgpu.no_grad():
        action, density = agent.policy.rsample(batch["next_observation"])
        after = mlgpu.minimum(q(agent.first_target, "next_observation", action),
                              q(agent.second_target, "next_observation", action)) - density
        target = batch["reward"] + batch["discount"] * after
    (batch["weight"] * ((q(agent.first, "observation", batch["action"]) - target) ** 2
                        + (q(agent.second, "observation", batch["action"]) - target) ** 2)
     ).mean().backward()
    wanted = {name: p.grad.clone() for name, p in agent.named_parameters()
              if name.startswith(("first.", "second."))}
    agent.zero_grad()
    action, density = agent.policy.rsample(batch["observation"])
    (density - mlgpu.minimum(q(agent.first, "observation", action),
                             q(agent.second, "observation", action))).mean().backward()
    wanted |= {name: p.grad.clone() for name, p in agent.named_parameters()
               if name.startswith("policy.")}
    wanted["log_alpha"] = -(density.detach() - 1.0).mean()
    assert found.keys() == wanted.keys()
    for name, grad in wanted.items():
        mlgpu.testing.assert_close(found[name], grad)
    assert all(p.requires_grad for p in agent.first.parameters())


def test_the_losses_of_td3_by_turns(device):
    """Against the two losses of the paper one by one; the policy's at every other step."""
    mlgpu.manual_seed(0)
    agent = rl.TD3(rl.DeterministicPolicy(nn.Linear(3, 1), rl.Box(-2, 2, (1,))),
                   (nn.Linear(4, 1), nn.Linear(4, 1)), tau=0.5, noise_clip=0.1).to(device)
    _, batch = q_batch(device)
    batch["action"] = mlgpu.randn(6, 1, device=device)

    def q(critic, name, action):
        return critic(mlgpu.cat([batch[name], action], -1)).squeeze(-1)

    for step in (1, 2):
        mlgpu.manual_seed(7)
        found = agent.loss(batch)
        found["loss"].backward()
        grads = {name: p.grad for name, p in agent.named_parameters() if p.grad is not None}
        agent.zero_grad()
        mlgpu.manual_seed(7)
        with mlgpu.no_grad():
            noise = (mlgpu.randn(6, 1, device=device) * 0.2).clamp(-0.1, 0.1)
            unit = agent.policy_target.network(batch["next_observation"]).tanh() + noise
            action = 2 * unit.clamp(-1, 1)
            after = mlgpu.minimum(q(agent.first_target, "next_observation", action),
                                  q(agent.second_target, "next_observation", action))
            target = batch["reward"] + batch["discount"] * after
        errors = [target - q(critic, "observation", batch["action"])
                  for critic in (agent.first, agent.second)]
        (batch["weight"] * (errors[0] ** 2 + errors[1] ** 2)).mean().backward()
        mlgpu.testing.assert_close(found["td_error"], (errors[0] + errors[1]).detach() / 2)
        wanted = {name: p.grad for name, p in agent.named_parameters()
                  if name.startswith(("first.", "second."))}
        agent.zero_grad()
        if step == 2:
            acted = 2 * agent.policy.network(batch["observation"]).tanh()
            (-q(agent.first, "observation", acted).mean()).backward()
            wanted |= {name: p.grad for name, p in agent.named_parameters()
                       if name.startswith("policy.")}
        assert grads.keys() == wanted.keys()
        for name, grad in wanted.items():
            mlgpu.testing.assert_close(grads[name], grad)
        agent.zero_grad()
        before = agent.first_target.weight.clone()
        with mlgpu.no_grad():
            agent.first.weight.add_(1.0)
        agent.after_step(step)
        moved = 0.5 * (agent.first.weight.detach() - before) if step == 2 else 0 * before
        mlgpu.testing.assert_close(agent.first_target.weight, before + moved)


def test_agents_say_what_is_wrong():
    with pytest.raises(ValueError, match="tau must be above 0"):
        rl.DQN(nn.Linear(1, 1), tau=0.0)
    with pytest.raises(ValueError, match="delta must be above 0, or None"):
        rl.DQN(nn.Linear(1, 1), delta=0.0)
    with pytest.raises(ValueError, match="clip must be above 0"):
        rl.PPO(rl.CategoricalPolicy(Fixed(0.0)), Fixed(0.0), clip=0.0)
    with pytest.raises(TypeError, match="must be a StochasticPolicy"):
        rl.A2C(rl.EpsilonGreedy(Fixed(0.0), 0.1), Fixed(0.0))
    policy = rl.TanhGaussianPolicy(Fixed(0.0, 0.0), rl.Box(0, 1, (1,)))
    with pytest.raises(ValueError, match="policy_every at least 1"):
        rl.TD3(rl.DeterministicPolicy(Fixed(0.0), rl.Box(0, 1, (1,))), (Fixed(0.0), Fixed(0.0)),
               policy_every=0)
    with pytest.raises(ValueError, match="alpha above 0"):
        rl.SAC(policy, (Fixed(0.0), Fixed(0.0)), alpha=0.0)
    agent = rl.SAC(policy, (Fixed(0.0, 1.0), Fixed(0.0)))
    _, batch = q_batch("cpu")
    batch["action"] = batch["reward"].unsqueeze(-1)
    with pytest.raises(ShapeError, match=r"a critic must give \(6, 1\), got \(6, 2\)"):
        agent.loss(batch)
    with pytest.raises(ShapeError, match="the value network must give"):
        rl.PPO(rl.CategoricalPolicy(Fixed(0.0)), Fixed(0.0, 1.0)).values(mlgpu.zeros(2, 1))
