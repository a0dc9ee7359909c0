"""A kernel's control flow: straight segments in an order in which divergence heals by itself.

Threads at the lowest segment run first (see batch.py), so a loop's body must come before what
follows the loop, and both sides of an `if` before the place where they meet.  Reverse postorder
gives that if, at every branch, the ways out of a loop are explored before the ways that stay in.
"""

from __future__ import annotations

import dataclasses

from mlgpu.sim.errors import PtxError
from mlgpu.sim.inline import Flat
from mlgpu.sim.ptx.syntax import Args, Instruction, Label, Not, Reg, Target

# The warp's lanes must arrive together: a segment begins here, so that early lanes can wait.
CONVERGE = frozenset({"shfl", "vote", "match", "redux", "mma", "wmma", "ldmatrix", "stmatrix",
                      "movmatrix", "elect"})
BARRIERS = frozenset({"bar", "barrier"})
ENDS = frozenset({"bra", "brx", "ret", "exit", "trap", "bad_call", "__assertfail"})


@dataclasses.dataclass(slots=True)
class Segment:
    """Instructions that always run one after the other, and how they end."""

    number: int
    instructions: list[Instruction]
    end: Instruction | None  # a branch, barrier or exit; None: it goes on to `next`
    next: int | None
    targets: list[int]  # of the branch
    hidden: bool = False  # the branch stands for a predicate, and counts as none
    loop: int | None = None  # the segment is the head of a loop that ends here
    polls: bool = False  # where a back edge starts: the loop waits for something in memory


@dataclasses.dataclass(slots=True)
class _Block:
    instructions: list[Instruction]
    labels: list[str]
    end: Instruction | None = None
    fall: int | None = None
    targets: list[int] = dataclasses.field(default_factory=list)
    hidden: bool = False

    def successors(self) -> list[int]:
        """Where it can go."""
        return [*([] if self.fall is None else [self.fall]), *self.targets]


def converges(ins: Instruction) -> bool:
    """Whether the instruction needs the lanes of its warp together."""
    return ins.opcode in CONVERGE or (ins.opcode in BARRIERS and ins.has("warp"))


def polls(ins: Instruction) -> bool:
    """Whether a loop around the instruction may wait for another thread."""
    if ins.opcode == "atom":
        return ins.has("cas") or ins.has("exch") or (
            any(getattr(o, "value", None) == 0 for o in ins.operands[2:]))
    if ins.opcode == "ld":
        return ins.has("volatile") or ins.has("acquire") or ins.has("relaxed")
    return ins.opcode == "nanosleep" or (
        ins.opcode == "mbarrier" and (ins.has("try_wait") or ins.has("test_wait")))


def segments(flat: Flat) -> list[Segment]:
    """The kernel as segments, numbered in the order in which waiting threads run."""
    blocks = _blocks(flat)
    order = _order(blocks)
    place = {b: i for i, b in enumerate(order)}
    first: dict[int, int] = {}
    result: list[Segment] = []
    for b in order:
        first[b] = len(result)
        pieces: list[list[Instruction]] = [[]]
        for ins in blocks[b].instructions:
            if converges(ins) and pieces[-1]:
                pieces.append([])
            pieces[-1].append(ins)
        for piece in pieces:
            result.append(Segment(len(result), piece, None, len(result) + 1, []))
        last, block = result[-1], blocks[b]
        last.end, last.hidden = block.end, block.hidden
        last.next, last.targets = block.fall, list(block.targets)  # still numbers of blocks
    ends = [first[b] for b in order[1:]] + [len(result)]
    for b, end in zip(order, ends, strict=True):
        last = result[end - 1]
        last.next = None if last.next is None else first[last.next]
        last.targets = [first[t] for t in last.targets]
        back = [t for t in blocks[b].successors() if place[t] <= place[b]]
        if back:
            last.loop = min(first[t] for t in back)
            last.polls = any(polls(i) for s in result[last.loop:end] for i in s.instructions)
    return result


def _blocks(flat: Flat) -> list[_Block]:
    blocks: list[_Block] = [_Block([], [])]
    labels: dict[str, int] = {}

    def start() -> _Block:
        if blocks[-1].instructions or blocks[-1].labels or blocks[-1].end is not None:
            blocks.append(_Block([], []))
        return blocks[-1]

    def after_barrier(ins: Instruction) -> None:
        """The result of a `bar.red` is found by those who leave the barrier."""
        if ins.opcode in BARRIERS and ins.has("red"):
            start().instructions.append(dataclasses.replace(
                ins, opcode="bar_red", guard=None, operands=ins.operands[:2]))

    skips = 0
    for statement in flat.body:
        if isinstance(statement, Label):
            start().labels.append(statement.name)
            labels[statement.name] = len(blocks) - 1
            continue
        if not isinstance(statement, Instruction):
            continue
        ins, block = statement, blocks[-1]
        if block.end is not None:
            block = start()
        barrier = ins.opcode in BARRIERS and not ins.has("warp") and not ins.has("arrive")
        if ins.guard is not None and ins.opcode != "bra" and (
                ins.opcode in ENDS or ins.opcode in BARRIERS or converges(ins)):
            # a predicate on one of these is a branch around it
            skips += 1
            skip = f"$skip'{skips}"
            block.end = dataclasses.replace(
                ins, opcode="bra", mods=(), operands=(Target(skip),),
                guard_negated=not ins.guard_negated, text=f"@ {ins.text}")
            block.hidden = True
            block = start()
            if ins.opcode in ENDS or barrier:
                block.end = dataclasses.replace(ins, guard=None)
                after_barrier(ins)
            else:
                block.instructions.append(dataclasses.replace(ins, guard=None))
            blocks.append(_Block([], [skip]))
            labels[skip] = len(blocks) - 1
        elif ins.opcode in ENDS or barrier:
            block.end = ins
            after_barrier(ins)
        else:
            block.instructions.append(ins)
    if not _stops(blocks[-1].end):  # falling off the end returns
        blocks.append(_Block([], [], Instruction("ret", (), ())))
    for number, block in enumerate(blocks):
        end = block.end
        names: list[str] = []
        if end is not None and end.opcode == "bra":
            names = [o.name for o in end.operands if isinstance(o, Target)]
        elif end is not None and end.opcode == "brx":
            table = end.operands[1]
            assert isinstance(table, Args)
            names = [o.name for o in table.items if isinstance(o, Target)]
        for name in names:
            if name not in labels:
                raise PtxError(f"{end and end.text}: no label {name}")
        block.targets = [labels[n] for n in names]
        if not _stops(end):
            block.fall = number + 1
    return blocks


def _stops(end: Instruction | None) -> bool:
    """Whether no thread goes on behind this end of a block."""
    return end is not None and end.opcode in ENDS and end.guard is None


def _order(blocks: list[_Block]) -> list[int]:
    depth = _loop_depth(blocks)
    order: list[int] = []
    seen = {0}
    # explored first is placed last: the ways that leave loops first, then by position backwards
    stack = [(0, iter(sorted(blocks[0].successors(), key=lambda s: (depth[s], -s))))]
    while stack:
        block, successors = stack[-1]
        for s in successors:
            if s not in seen:
                seen.add(s)
                stack.append((s, iter(sorted(blocks[s].successors(),
                                             key=lambda t: (depth[t], -t)))))
                break
        else:
            order.append(block)
            stack.pop()
    return order[::-1]


def _loop_depth(blocks: list[_Block]) -> list[int]:
    """In how many natural loops each block lies."""
    before: list[list[int]] = [[] for _ in blocks]
    for number, block in enumerate(blocks):
        for s in block.successors():
            before[s].append(number)
    dominators = _dominators(blocks, before)
    depth = [0] * len(blocks)
    loops: dict[int, set[int]] = {}
    for number, block in enumerate(blocks):
        for head in block.successors():
            if dominators[number] >> head & 1:
                body = loops.setdefault(head, {head})
                work = [number]
                while work:
                    b = work.pop()
                    if b not in body:
                        body.add(b)
                        work.extend(before[b])
    for body in loops.values():
        for b in body:
            depth[b] += 1
    return depth


def _dominators(blocks: list[_Block], before: list[list[int]]) -> list[int]:
    """For each block, the blocks on every way to it, as bits (0 where there is no way)."""
    every = (1 << len(blocks)) - 1
    result = [every] * len(blocks)
    result[0] = 1
    order: list[int] = []
    seen = {0}
    work = [(0, iter(blocks[0].successors()))]
    while work:
        block, successors = work[-1]
        for s in successors:
            if s not in seen:
                seen.add(s)
                work.append((s, iter(blocks[s].successors())))
                break
        else:
            order.append(block)
            work.pop()
    changed = True
    while changed:
        changed = False
        for b in reversed(order):
            if b == 0:
                continue
            bits = every
            for p in before[b]:
                if p in seen:
                    bits &= result[p]
            bits |= 1 << b
            if bits != result[b]:
                result[b], changed = bits, True
    return [r if b in seen else 0 for b, r in enumerate(result)]


def predicate(ins: Instruction) -> Reg | Not:
    """The condition of a guarded branch."""
    assert ins.guard is not None
    return Not(ins.guard) if ins.guard_negated else ins.guard
