"""Random numbers: the words, the generator, distributions, dtypes, errors, gradients."""

from __future__ import annotations

import copy
import math
import pickle
import threading

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

import mlgpu
from mlgpu.cpu import random as numbers
from mlgpu.random import Generator, Stream, fork_rng, philox

FLOATS = [mlgpu.float16, mlgpu.bfloat16, mlgpu.float32, mlgpu.float64]
INTS = [mlgpu.uint8, mlgpu.int8, mlgpu.int16, mlgpu.int32, mlgpu.int64]
COUNT = 200_003  # several blocks, and no multiple of anything


def seeded(seed=0):
    return Generator().manual_seed(seed)


def values(tensor):
    return tensor.double().numpy()


# --- the words ------------------------------------------------------------------------------------

WORD = 2**64 - 1


def philox_by_hand(counter, key):
    """Philox4x64-10 as in Salmon et al. (2011), with Python's integers."""
    (c0, c1, c2, c3), (k0, k1) = counter, key
    for _ in range(10):
        high0, low0 = divmod(0xD2E7470EE14C6C93 * c0, 2**64)
        high1, low1 = divmod(0xCA5A826395121157 * c2, 2**64)
        c0, c1, c2, c3 = high1 ^ c1 ^ k0, low1, high0 ^ c3 ^ k1, low0
        k0, k1 = (k0 + 0x9E3779B97F4A7C15) & WORD, (k1 + 0xBB67AE8584CAA73B) & WORD
    return [c0, c1, c2, c3]


def test_reference_has_the_published_answers():
    # Random123's known-answer tests.
    assert philox_by_hand((0,) * 4, (0,) * 2) == [0x16554D9ECA36314C, 0xDB20FE9D672D0FDC,
                                                  0xD7E772CEE186176B, 0x7E68B68AEC7BA23B]
    assert philox_by_hand((WORD,) * 4, (WORD,) * 2) == [0x87B092C3013FE90B, 0x438C3C67BE8D0224,
                                                        0x9CC7D7C69CD777B6, 0xA09CAEBF594F0BA0]


@given(seed=st.integers(0, WORD), offset=st.integers(0, WORD - 8), first=st.integers(0, 9),
       count=st.integers(0, 9))
def test_words(seed, offset, first, count):
    blocks = [philox_by_hand((offset + b, 0, 0, 0), (seed, 0)) for b in range(5)]
    expected = [word for block in blocks for word in block][first:first + count]
    assert Stream(seed, offset).words(first, count).tolist() == expected


def test_private_words_are_those_of_another_key():
    draw = Stream(7, 3)
    first = [word for b in range(3) for word in philox_by_hand((b, 5, 0, 0), (7, 4))]
    assert draw.private(5, 0, 12).tolist() == first
    assert draw.private(5, 3, 6).tolist() == first[3:9]
    assert philox((1, 2), 0, 3).tolist() == philox_by_hand((0,) * 4, (1, 2))[:3]


@given(st.lists(st.integers(0, 40), max_size=8))
def test_draws_follow_each_other_in_whole_blocks(sizes):
    generator = seeded(11)
    whole = seeded(11).draw(4 * sum(-(-n // 4) for n in sizes))
    start = 0
    for n in sizes:
        assert generator.draw(n).tolist() == whole[start:start + n].tolist()
        start += 4 * -(-n // 4)


# --- from words to numbers, by their definitions --------------------------------------------------


@pytest.mark.parametrize("dtype", FLOATS, ids=repr)
def test_uniform_is_the_high_bits(dtype):
    digits = {"float16": 11, "bfloat16": 8, "float32": 24, "float64": 53}[dtype.name]
    bits = 8 * dtype.itemsize
    words = seeded(5).draw(COUNT).tolist()
    cut = [(w >> s) & (2**bits - 1) for w in words[:100] for s in range(0, 64, bits)]
    expected = [(u >> (bits - digits)) / 2**digits for u in cut]
    drawn = mlgpu.rand(COUNT, dtype=dtype, generator=seeded(5))
    assert drawn.dtype is dtype
    assert values(drawn)[:len(expected)].tolist() == expected


@pytest.mark.parametrize("dtype", [mlgpu.float32, mlgpu.float64], ids=repr)
def test_normal_is_box_muller_within_the_stated_bound(dtype):
    n, bits, real = 2 * (COUNT // 2), 8 * dtype.itemsize, dtype.numpy.type
    raw = seeded(2).draw(n * bits // 64).view(f"<u{bits // 8}")
    if bits == 64:
        raw >>= 11
    scale = 2.0 ** -min(bits, 53)
    a = (raw[0::2].astype(real) * real(scale) + real(scale / 2)).astype(np.longdouble)
    angle = (raw[1::2].astype(real) * real(2 * math.pi * scale)).astype(np.longdouble)
    radius = np.sqrt(-2 * np.log(a))
    expected = np.stack([radius * np.cos(angle), radius * np.sin(angle)], 1).reshape(-1)
    drawn = mlgpu.randn(n, dtype=dtype, generator=seeded(2)).numpy()
    assert abs(drawn - expected).max() < {4: 2e-6, 8: 1e-14}[dtype.itemsize]


@pytest.mark.parametrize(("low", "high"), [(0, 10), (-7, 2**32 - 9), (-7, 2**32), (0, 2**63 - 1),
                                           (-2**63, 2**63 - 1), (-2**62, 3 * 2**60 + 1), (3, 4)])
def test_integers_by_exact_arithmetic(low, high):
    n = high - low
    drawn = mlgpu.randint(low, high, (50,), generator=seeded(3)).tolist()
    words = seeded(3).draw(100).tolist()
    if n <= 2**32:
        expected = [low + (w * n >> 64) for w in words[:50]]
    else:
        expected = [low + ((a + (b << 64)) * n >> 128)
                    for a, b in zip(words[::2], words[1::2], strict=True)]
    assert drawn == expected


def test_bernoulli_and_permutation_by_exact_arithmetic():
    words = seeded(4).draw(500)
    halves = [u for w in words.tolist() for u in (w & 0xFFFFFFFF, w >> 32)]
    for p in (0, 1e-3, 0.3, 0.5, 1 - 1e-12, 1):
        expected = [u < p * 2**32 for u in halves]
        assert mlgpu.empty(1000).bernoulli_(p, generator=seeded(4)).tolist() == expected
        of_tensor = mlgpu.bernoulli(mlgpu.full((1000,), p, dtype=mlgpu.float64),
                                    generator=seeded(4))
        assert of_tensor.tolist() == expected
    order = mlgpu.randperm(500, generator=seeded(4)).tolist()
    assert order == sorted(range(500), key=lambda i: words[i])


def test_equal_words_of_a_permutation_go_by_position():
    class Constant:
        def words(self, first, count):
            return np.arange(count, dtype=np.uint64) // np.uint64(50)

    assert numbers.permutation(Constant(), 1000).tolist() == list(range(1000))


def test_blocks_do_not_show():
    for shape in [(1,), (7, 3), (numbers.BLOCK + 1,), (3, numbers.BLOCK - 1)]:
        n = math.prod(shape)
        whole = mlgpu.rand(n + 10, generator=seeded(1)).numpy()
        part = mlgpu.rand(shape, generator=seeded(1)).numpy()
        np.testing.assert_array_equal(part.reshape(-1), whole[:n])


def test_strides_do_not_show():
    for draw in (lambda t: t.uniform_(generator=seeded(1)),
                 lambda t: t.normal_(generator=seeded(1)),
                 lambda t: t.bernoulli_(0.5, generator=seeded(1)),
                 lambda t: t.random_(9, generator=seeded(1))):
        expected = draw(mlgpu.empty(40, 30)).tolist()
        assert draw(mlgpu.empty(30, 40).t()).tolist() == expected
        assert draw(mlgpu.empty(80, 60)[::2, ::2]).tolist() == expected
    complex_numbers = mlgpu.empty(30, 40, dtype=mlgpu.complex64)
    assert complex_numbers.t().uniform_(generator=seeded(1)).tolist() == mlgpu.rand(
        40, 30, dtype=mlgpu.complex64, generator=seeded(1)).tolist()


# --- the generator --------------------------------------------------------------------------------


def test_same_seed_same_numbers():
    mlgpu.manual_seed(3)
    first = [mlgpu.rand(5).tolist(), mlgpu.randn(3).tolist(), mlgpu.randperm(9).tolist()]
    assert isinstance(mlgpu.manual_seed(3), Generator)
    assert [mlgpu.rand(5).tolist(), mlgpu.randn(3).tolist(), mlgpu.randperm(9).tolist()] == first
    assert mlgpu.rand(5).tolist() != first[0]


def test_a_generator_of_its_own_leaves_the_process_alone():
    mlgpu.manual_seed(0)
    state = mlgpu.get_rng_state().tolist()
    mine = seeded(0)
    drawn = [mlgpu.rand(4, generator=mine).tolist(), mlgpu.rand(4, generator=mine).tolist()]
    assert mlgpu.get_rng_state().tolist() == state
    assert drawn[0] == mlgpu.rand(4).tolist()
    assert drawn[0] != drawn[1]


@given(st.integers(-2**63, WORD))
def test_seeds(seed):
    generator = Generator().manual_seed(seed)
    assert generator.initial_seed() == seed % 2**64


def test_seeds_that_are_none():
    assert Generator().initial_seed() == 67280421310721
    for wrong in (2**64, -2**63 - 1):
        with pytest.raises(ValueError, match="seed"):
            mlgpu.manual_seed(wrong)
    for wrong in (1.5, "3", None, True, [1]):
        with pytest.raises(TypeError):
            Generator().manual_seed(wrong)
    for wrong in ("3", None, [1]):
        with pytest.raises(TypeError):
            mlgpu.manual_seed(wrong)
    assert mlgpu.manual_seed(1.7).initial_seed() == 1
    assert mlgpu.manual_seed(np.int64(5)).initial_seed() == mlgpu.initial_seed() == 5


def test_seed_is_fresh():
    assert mlgpu.seed() == mlgpu.initial_seed() != mlgpu.seed()


def test_state_round_trip():
    generator = seeded(2**64 - 1)
    generator.draw(5)
    state = generator.get_state()
    assert state.dtype is mlgpu.uint8
    expected = generator.draw(20).tolist()
    assert Generator().set_state(state).draw(20).tolist() == expected
    generator.set_state(state)
    assert generator.get_state().tolist() == state.tolist()
    assert generator.initial_seed() == 2**64 - 1
    for twin in (generator.clone_state(), copy.deepcopy(generator),
                 pickle.loads(pickle.dumps(generator))):
        assert twin.draw(20).tolist() == expected
    assert generator.draw(20).tolist() == expected
    mlgpu.manual_seed(4)
    mlgpu.rand(3)
    state = mlgpu.get_rng_state()
    expected = mlgpu.rand(3).tolist()
    mlgpu.set_rng_state(state)
    assert mlgpu.rand(3).tolist() == expected


@given(st.binary(min_size=16, max_size=16))
def test_any_state_round_trips(content):
    state = mlgpu.tensor(list(content), dtype=mlgpu.uint8)
    generator = Generator().set_state(state)
    assert generator.get_state().tolist() == list(content)
    assert generator.draw(9).shape == (9,)


def test_states_that_are_none():
    generator = seeded(1)
    for wrong, error in [([1], TypeError), (None, TypeError), (mlgpu.zeros(16), TypeError),
                         (mlgpu.zeros(15, dtype=mlgpu.uint8), mlgpu.FormatError),
                         (mlgpu.zeros(4, 4, dtype=mlgpu.uint8), mlgpu.FormatError)]:
        with pytest.raises(error):
            generator.set_state(wrong)
    assert generator.get_state().tolist() == seeded(1).get_state().tolist()
    with pytest.raises(TypeError, match="Generator"):
        mlgpu.rand(3, generator=5)


def test_fork_rng():
    mlgpu.manual_seed(0)
    with fork_rng():
        inside = mlgpu.rand(3).tolist()
    assert mlgpu.rand(3).tolist() == inside
    with fork_rng(enabled=False):
        after = mlgpu.rand(3).tolist()
    assert mlgpu.rand(3).tolist() != after


def test_threads_get_words_of_their_own():
    generator, found = seeded(9), []

    def work():
        for _ in range(200):
            found.append(tuple(generator.draw(8).tolist()))

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    expected = seeded(9).draw(8 * 1600).reshape(-1, 8).tolist()
    assert sorted(found) == sorted(map(tuple, expected))


def test_nothing_for_no_elements():
    generator = seeded(1)
    state = generator.get_state().tolist()
    for made in (mlgpu.rand(0, 3, generator=generator), mlgpu.randn(3, 0, generator=generator),
                 mlgpu.randperm(0, generator=generator),
                 mlgpu.randint(3, (0,), generator=generator)):
        assert made.numel() == 0
    assert generator.get_state().tolist() == state


# --- statistics -----------------------------------------------------------------------------------


def fits(sample, distribution):
    assert stats.kstest(sample, distribution).pvalue > 1e-3


@pytest.mark.parametrize("dtype", [mlgpu.float32, mlgpu.float64], ids=repr)
def test_continuous_distributions(dtype):
    g = seeded(21)

    def empty():
        return mlgpu.empty(COUNT, dtype=dtype)

    fits(values(mlgpu.rand(COUNT, dtype=dtype, generator=g)), stats.uniform.cdf)
    fits(values(mlgpu.randn(COUNT, dtype=dtype, generator=g)), stats.norm.cdf)
    fits(values(empty().uniform_(-3, 5, generator=g)), stats.uniform(-3, 8).cdf)
    fits(values(empty().normal_(2, 0.5, generator=g)), stats.norm(2, 0.5).cdf)
    fits(values(empty().exponential_(2.5, generator=g)), stats.expon(scale=1 / 2.5).cdf)
    fits(values(empty().cauchy_(1, 3, generator=g)), stats.cauchy(1, 3).cdf)
    fits(values(empty().log_normal_(0.5, 0.7, generator=g)), stats.lognorm(
        0.7, scale=math.exp(0.5)).cdf)


@pytest.mark.parametrize("dtype", [mlgpu.float16, mlgpu.bfloat16], ids=repr)
def test_half_types_keep_mean_and_deviation(dtype):
    tensor = mlgpu.empty(COUNT, dtype=dtype)
    for sample, mean, std in [
            (tensor.uniform_(generator=seeded(1)), 0.5, 12 ** -0.5),
            (tensor.clone().normal_(generator=seeded(2)), 0, 1),
            (tensor.clone().exponential_(generator=seeded(3)), 1, 1)]:
        drawn = values(sample)
        assert abs(drawn.mean() - mean) < 0.005
        assert abs(drawn.std() / std - 1) < 0.01


def test_pairs_and_neighbours_are_independent():
    x = values(mlgpu.randn(2 * COUNT, dtype=mlgpu.float64, generator=seeded(1)))
    for lag in (1, 2, 3):
        assert abs((x[lag:] * x[:-lag]).mean()) < 5 / math.sqrt(x.size)
        assert abs((x[lag:] ** 2 * x[:-lag] ** 2).mean() - 1) < 40 / math.sqrt(x.size)
    other = values(mlgpu.randn(2 * COUNT, dtype=mlgpu.float64, generator=seeded(2)))
    assert abs((x * other).mean()) < 5 / math.sqrt(x.size)


def test_complex_normals_have_variance_1():
    z = mlgpu.randn(COUNT, dtype=mlgpu.complex64, generator=seeded(1)).numpy()
    assert abs(z.real.var() - 0.5) < 0.01
    assert abs(z.imag.var() - 0.5) < 0.01
    assert abs((z.real * z.imag).mean()) < 0.01


def evenly(sample, n):
    assert stats.chisquare(np.bincount(sample, minlength=n)).pvalue > 1e-3


def test_integers_and_permutations_are_even():
    g = seeded(13)
    for n in (2, 10, 97):
        evenly(mlgpu.randint(n, (COUNT,), generator=g).numpy(), n)
    big = mlgpu.randint(0, 3 * 2**61, (COUNT,), generator=g).numpy()
    evenly(big // (2**61 // 4), 12)
    orders = np.array([mlgpu.randperm(4, generator=g).tolist() for _ in range(5000)])
    evenly(np.unique(orders @ [64, 16, 4, 1], return_inverse=True)[1], 24)


def test_multinomial_is_in_proportion():
    weights = mlgpu.tensor([0, 1, 2.5, 0, 4, 0.5, 0])
    share = values(weights) / 8
    drawn = mlgpu.multinomial(weights, COUNT, True, generator=seeded(1)).numpy()
    counts = np.bincount(drawn, minlength=7)
    assert counts[share == 0].tolist() == [0, 0, 0]
    assert stats.chisquare(counts[share > 0], share[share > 0] * COUNT).pvalue > 1e-3
    rows = mlgpu.multinomial(weights.expand(20000, 7), 2, generator=seeded(2)).numpy()
    assert (rows[:, 0] != rows[:, 1]).all()
    pairs = {(i, j): share[i] * share[j] / (1 - share[i]) for i in range(7) for j in range(7)
             if i != j and share[i] and share[j]}
    found = [((rows == pair).all(1)).sum() for pair in pairs]
    assert stats.chisquare(found, np.array(list(pairs.values())) * 20000).pvalue > 1e-3


@pytest.mark.parametrize("rate", [0.0, 0.01, 1.0, 7.3, 9.99, 10.0, 11.5, 60.0, 1e4])
def test_poisson(rate):
    drawn = mlgpu.poisson(mlgpu.full((COUNT,), rate, dtype=mlgpu.float64),
                          generator=seeded(3)).numpy()
    assert (drawn == np.floor(drawn)).all()
    if rate == 0:
        assert not drawn.any()
        return
    low, high = stats.poisson.ppf([1e-3, 1 - 1e-3], rate)
    edges = np.unique(np.linspace(low, high, 40).astype(int))
    expected = np.diff(stats.poisson.cdf([-1, *edges], rate), append=1.0)
    expected[-1] = stats.poisson.sf(edges[-1], rate)
    found = np.bincount(np.searchsorted(edges, drawn), minlength=len(edges) + 1)
    kept = expected * COUNT > 5
    rest = [found[~kept].sum()], [expected[~kept].sum()]
    if rest[1][0] * COUNT > 5:
        found, expected = np.append(found[kept], rest[0]), np.append(expected[kept], rest[1])
    else:
        found, expected = found[kept], expected[kept]
    assert stats.chisquare(found, expected / expected.sum() * found.sum()).pvalue > 1e-3


def test_poisson_of_huge_and_mixed_rates():
    huge = mlgpu.poisson(mlgpu.full((COUNT,), 1e15, dtype=mlgpu.float64), generator=seeded(1))
    fits((huge.numpy() - 1e15) / math.sqrt(1e15), stats.norm.cdf)
    rates = mlgpu.tensor([[0.5, 100.0, 3.0]]).expand(60000, 3)
    mixed = mlgpu.poisson(rates, seeded(2))
    assert mixed.dtype is mlgpu.float32
    np.testing.assert_allclose(values(mixed).mean(0), [0.5, 100, 3], rtol=0.02)


def test_geometric_counts_trials():
    drawn = mlgpu.empty(COUNT, dtype=mlgpu.int64).geometric_(0.3, generator=seeded(1)).numpy()
    counts = np.bincount(drawn)[:20]
    assert counts[0] == 0
    expected = stats.geom.pmf(np.arange(1, 20), 0.3)
    assert stats.chisquare(counts[1:], expected / expected.sum() * counts.sum()).pvalue > 1e-3
