"""Sectors, wavefronts, the L2 model and marks against models written the slow and obvious way."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlgpu.sim import banks, l2
from mlgpu.sim.memory import READ, WRITTEN, AddressSpace
from mlgpu.sim.sectors import again, footprint, repeated, shifts
from mlgpu.sim.site import ATOMIC, STRONG_READ

SIZES = (1, 2, 4, 8, 16)


def one_footprint(lanes: list[int], size: int) -> tuple[set[int], int, int]:
    """The sectors of one warp, its different elements, the sectors these would fill."""
    sectors = {byte // 32 for at in lanes for byte in range(at, at + size)}
    elements = len(set(lanes))
    return sectors, elements, -(-elements * size // 32)


@st.composite
def warps(draw: st.DrawFn) -> tuple[np.ndarray, int]:
    """Offsets of some warps' lanes, aligned to a size: strided ones, moved ones, and any."""
    size = draw(st.sampled_from(SIZES))
    rows = []
    for _ in range(draw(st.integers(1, 12))):
        kind = draw(st.sampled_from(["strided", "moved", "any"]))
        if kind == "moved" and rows:
            rows.append(rows[-1] + draw(st.integers(0, 40)))
        elif kind == "any":
            rows.append(np.array(draw(st.lists(st.integers(0, 300), min_size=32, max_size=32))))
        else:
            rows.append(draw(st.integers(0, 40)) + draw(st.integers(0, 33)) * np.arange(32))
    return np.stack(rows).astype(np.int64) * size, size


@settings(max_examples=150, deadline=None)
@given(warps())
def test_footprints(given_warps):
    rows, size = given_warps
    found = footprint(rows, size)
    expected = [one_footprint(row.tolist(), size) for row in rows]
    assert sorted(found.sectors.tolist()) == sorted(s for sectors, _, _ in expected
                                                    for s in sectors)
    assert found.elements == sum(elements for _, elements, _ in expected)
    assert found.ideal == sum(ideal for _, _, ideal in expected)


@settings(max_examples=60, deadline=None)
@given(warps(), st.lists(st.integers(0, 500), min_size=1, max_size=6))
def test_footprints_of_blocks_that_do_the_same(given_warps, moves):
    rows, size = given_warps
    shift = (np.array([0, *moves]) * size)[:, None]
    offset = rows.reshape(1, -1) + shift
    found_shift = shifts(offset)
    np.testing.assert_array_equal(found_shift, shift[:, 0])
    found = repeated(rows, found_shift, size)
    whole = footprint(offset.reshape(-1, 32), size)
    assert sorted(found.sectors.tolist()) == sorted(whole.sectors.tolist())
    assert found[1:] == whole[1:]


def test_blocks_that_differ_have_no_shift():
    offset = np.arange(64).reshape(2, 32)
    assert shifts(offset) is not None
    offset[1, 5] += 4
    assert shifts(offset) is None
    assert shifts(offset[:1]) is None


def test_32_bytes_that_straddle_sectors():
    """Lane i takes bytes 48 i to 48 i + 31: sectors 0, 1 2, 3, 4 5, ...: 3 for 2 lanes, 48 in
    all."""
    found = footprint(48 * np.arange(32)[None], 32)
    assert sorted(found.sectors.tolist()) == list(range(48))


def one_wavefronts(lanes: list[int], there: list[bool], size: int,
                   atomic: bool) -> tuple[int, int, int]:
    """The passes of one warp (the fullest bank of each group of lanes), its groups, the passes
    that its bytes need."""
    group = {1: 32, 2: 32, 4: 32, 8: 16, 16: 8}[size]

    def alike(first: int, step: int) -> bool:
        return all(not (there[lane] and there[lane ^ step]) or lanes[lane] == lanes[lane ^ step]
                   for lane in range(first, first + 2 * group))

    groups = []
    for first in range(0, 32, 2 * group):
        if group < 32 and not atomic and (alike(first, 1) or alike(first, 2)):
            groups.append(range(first, first + 2 * group))
        else:
            groups += [range(at, at + group) for at in range(first, min(first + 2 * group, 32),
                                                             group)]
    total = used = 0
    for together in groups:
        asked: dict[int, list[int]] = {}
        for lane in together:
            if there[lane]:
                for word in range(lanes[lane] // 4, (lanes[lane] + max(size, 4)) // 4):
                    asked.setdefault(word % 32, []).append(word)
        used += bool(asked)
        total += max((len(words if atomic else set(words)) for words in asked.values()), default=0)
    return total, used, min(total, -(-sum(there) * size // 128))


@settings(max_examples=300, deadline=None)
@given(warps(), st.booleans(), st.sampled_from([0, 1, 2]), st.data())
def test_wavefronts(given_warps, atomic, pairs, data):
    rows, size = given_warps
    if pairs:  # of lanes that have one address
        rows = rows[:, np.arange(32) & ~pairs]
    active = None
    if data.draw(st.booleans()):
        lane = st.lists(st.booleans(), min_size=32, max_size=32).filter(any)
        mask = data.draw(lane)
        active = np.array([mask] if len(rows) % 2 else [mask, data.draw(lane)])
    there = np.ones((1, 32), bool) if active is None else active
    there = np.tile(there, (len(rows) // len(there), 1))
    expected = [one_wavefronts(row.tolist(), mask.tolist(), size, atomic)
                for row, mask in zip(rows, there, strict=True)]
    assert banks.wavefronts(rows, size, active, atomic) == tuple(map(sum, zip(*expected,
                                                                              strict=True)))


@given(st.sampled_from(SIZES), st.booleans(), st.integers(0, 2**32 - 1))
def test_wavefronts_of_one_word(size, atomic, bits):
    """Offsets (warps, 1) are those of all lanes."""
    active = np.array([[bits >> lane & 1 == 1 for lane in range(32)], [True] * 32])
    one = np.full((4, 1), 64)
    assert banks.wavefronts(one, size, active, atomic) == banks.wavefronts(
        np.repeat(one, 32, axis=1), size, active, atomic)


@settings(max_examples=150, deadline=None)
@given(warps(), st.data())
def test_sectors_of_atomics_that_meet(given_warps, data):
    rows, _ = given_warps
    lane = st.lists(st.booleans(), min_size=32, max_size=32).filter(any)
    active = np.array([data.draw(lane)]) if data.draw(st.booleans()) else None
    more = 0
    for row in rows.tolist():
        lanes = [at for at, there in zip(row, [True] * 32 if active is None else active[0],
                                         strict=True) if there]
        more -= len({at // 32 for at in lanes})
        while lanes:  # each pass takes one lane of every element
            now = set(lanes)
            more += len({at // 32 for at in now})
            for at in now:
                lanes.remove(at)
    assert again(rows, active) == more


class SlowL2:
    """When each sector was touched, whether it waits to be written, sector by sector."""

    def __init__(self, capacity: int) -> None:
        self.capacity, self.brought = capacity, 0
        self.touched: dict[int, int] = {}
        self.dirty: set[int] = set()
        self.misses = self.read = self.written = 0

    def look_up(self, sectors: list[int], writes: bool, reads: bool) -> None:
        missing = {s for s in sectors if s not in self.touched
                   or self.brought - self.touched[s] >= self.capacity}
        self.misses += len(missing)
        self.read += len(missing) * reads
        self.dirty -= missing
        self.brought += len(missing)
        self.touched.update(dict.fromkeys(sectors, self.brought))
        if writes:
            self.written += len(set(sectors) - self.dirty)
            self.dirty |= set(sectors)


@settings(max_examples=150, deadline=None)
@given(st.integers(1, 12), st.lists(st.tuples(
    st.sampled_from(["read", "write", "atomic"]),
    st.lists(st.integers(0, 15), min_size=1, max_size=8)), min_size=1, max_size=30))
def test_l2(capacity, accesses):
    region = AddressSpace(1 << 30).allocate(512, "", "")
    fast, slow = l2.L2(32 * capacity), SlowL2(capacity)
    looked = 0
    for access, sectors in accesses:
        fast.look_up(region, np.array(sectors), 1, access, access != "write")
        slow.look_up(sectors, access != "read", access != "write")
        looked += len(sectors)
    assert looked - sum(fast.hits.values()) == slow.misses
    assert (fast.read_from_dram, fast.written_to_dram) == (slow.read, slow.written)


def test_l2_of_accesses_that_repeat():
    """Five warps look up the same two sectors: ten look-ups, two of which miss."""
    region = AddressSpace(1 << 30).allocate(512, "", "")
    cache = l2.L2(1 << 20)
    cache.look_up(region, np.array([3, 4]), 5, "read")
    assert cache.hits["read"] == 8
    assert cache.read_from_dram == 2


@pytest.mark.parametrize("size", [1, 64, 1000, 300_000])
@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_unique_bytes(size, share):
    rng = np.random.default_rng(size)
    region = AddressSpace(1 << 30).allocate(size, "", "")
    region.reach(region.start, region.end)
    marks = region.marks[:size]
    marks[:] = 1
    for mark in (READ, WRITTEN, ATOMIC, STRONG_READ):
        marks[rng.random(size) < share] |= mark
    assert l2.unique_bytes(region) == (np.count_nonzero(marks & (READ | STRONG_READ)),
                                       np.count_nonzero(marks & (WRITTEN | ATOMIC)))


def test_unique_bytes_beside_what_was_reached():
    """Marks are looked for only between the launch's first and last access."""
    region = AddressSpace(1 << 30).allocate(4096, "", "")
    region.marks[:] = 1 | READ
    region.reach(region.start + 101, region.start + 201)
    region.reach(region.start + 301, region.start + 303)
    assert l2.unique_bytes(region) == (304 - 96, 0)
