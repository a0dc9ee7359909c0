"""Random work on random streams, against a reckoning of the order by sets instead of clocks."""

from __future__ import annotations

import random

import pytest

from mlgpu.sim.cuda import streams as module
from mlgpu.sim.cuda.hazards import Hazards
from mlgpu.sim.cuda.memory import DEVICE, DEVICE_BASE, Block
from mlgpu.sim.cuda.streams import NON_BLOCKING, Streams
from mlgpu.sim.memory import Region, padded


class Memory:
    """Three allocations."""

    def __init__(self):
        self.regions = [Region(DEVICE_BASE + (n << 20), 64, "", f"made:{n}", padded(64))
                        for n in range(3)]

    def find(self, address, size=1):
        for region in self.regions:
            if region.start <= address and address + size <= region.end:
                return Block(region, 0, DEVICE)
        raise AssertionError(hex(address))


class Program:
    """What a program asks for, and which of its work the order puts before which."""

    def __init__(self, seed):
        self.chance = random.Random(seed)
        self.devices = self.chance.choice((1, 2))
        self.streams, self.memory = Streams(self.chance.choice((0, seed))), Memory()
        self.hazards = Hazards(self.streams, self.memory, lambda work, finding: None)
        self.hazards._found = lambda region, first, second, *rest: self.found.add(
            (int(first.what), int(second.what)))
        self.streams.watch = self.hazards
        self.found = set()
        self.works, self.accesses = [], []
        self.before = []  # of each piece of work, all that comes before it
        self.tails = {}  # of each stream, all that comes before its end
        self.known = set()  # what the host knows to be done
        self.all = [self.streams.default_of(n) for n in range(self.devices)]
        self.mine = list(self.all)  # those not destroyed
        for _ in range(3):
            self.create()

    def turn(self, stream):
        if not stream.blocking:
            return set()
        others = self.all if stream.handle == 0 else [self.streams.default_of(stream.device)]
        return set().union(*(self.tails.get(s, ()) for s in others
                             if s.device == stream.device and s.blocking))

    def create(self):
        stream = self.streams.create(self.chance.randrange(self.devices),
                                     self.chance.choice((0, NON_BLOCKING)))
        self.all.append(stream)
        self.mine.append(stream)

    def destroy(self):
        stream = self.chance.choice(self.mine)
        if stream.handle:
            self.mine.remove(stream)
            self.streams.destroy(stream.handle)

    def submit(self):
        chance, number = self.chance, len(self.works)
        stream = chance.choice(self.mine)
        needs = [chance.randrange(number) for _ in range(chance.choice((0, 0, 0, 1, 2))) if number]
        before = self.known | self.tails.get(stream, set()) | self.turn(stream)
        before = before.union(needs, *(self.before[n] for n in needs))
        ranges = [[], []]
        for _ in range(chance.randint(0, 2)):
            region = chance.choice(self.memory.regions)
            chance.choice(ranges).append((region.start + chance.randrange(12),
                                          chance.randint(1, 4)))
        self.accesses.append([{address + n for address, size in r for n in range(size)}
                              for r in ranges])
        self.works.append(self.streams.submit(stream, lambda: None, str(number), "file:1",
                                              [self.works[n] for n in needs],
                                              *map(tuple, ranges)))
        self.before.append(before)
        self.tails[stream] = before | {number}

    def wait_for_stream(self):
        stream = self.chance.choice(self.mine)
        self.streams.finish(self.streams.tail(stream))
        self.known |= self.tails.get(stream, set())
        if stream.handle == 0:
            self.known |= self.turn(stream)

    def wait_for_device(self):
        device = self.chance.randrange(self.devices)
        self.streams.finish(self.streams.of_device(device))
        for stream in self.all:
            if stream.device == device:
                self.known |= self.tails.get(stream, set())

    def poll(self):
        if self.works:
            number = self.chance.randrange(len(self.works))
            while not self.streams.query([self.works[number]]):
                pass
            self.known |= self.before[number] | {number}

    def races(self):
        """All pairs that nothing orders and that touch a byte, one of them writing."""
        found = set()
        for second, (reads, writes) in enumerate(self.accesses):
            for first in set(range(second)) - self.before[second]:
                earlier_reads, earlier_writes = self.accesses[first]
                if earlier_writes & (reads | writes) or earlier_reads & writes:
                    found.add((first, second))
        return found


@pytest.mark.parametrize("part", range(10))
def test_the_races_are_those_of_the_oracle(part, monkeypatch):
    steps = [Program.submit] * 12 + [Program.wait_for_stream, Program.poll, Program.create] * 2 + [
        Program.destroy, Program.wait_for_device]
    races = 0
    for seed in range(50 * part, 50 * part + 50):
        program = Program(seed)
        monkeypatch.setattr(module, "QUEUE", program.chance.choice((3, 6, 1024)))
        for _ in range(program.chance.randint(5, 60)):
            program.chance.choice(steps)(program)
        program.streams.finish(program.streams.all())
        assert program.found == program.races(), f"seed {seed}"
        assert not program.hazards.kept
        assert not program.streams.live
        assert not program.streams.waiting
        assert set(program.streams.seen) <= {*program.mine, *program.streams.heirs.values()}
        assert not program.streams.busy
        races += len(program.found)
    assert races > 50
