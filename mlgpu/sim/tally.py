"""The counters of a launch added up under Nsight Compute's names."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import NamedTuple

from mlgpu.sim import categories
from mlgpu.sim.atomic_forms import kind_of, used_registers
from mlgpu.sim.code import Code
from mlgpu.sim.counters import Counters, Traffic
from mlgpu.sim.ptx.syntax import Instruction
from mlgpu.sim.sectors import SECTOR

L1 = "l1tex__"
LSU = "pipe_lsu_mem"
SASS = "smsp__sass_"


class Executed(NamedTuple):
    """How often one instruction was executed."""

    ins: Instruction
    warps: int
    threads: int
    on: int  # threads whose predicate was on, or that took the branch
    warps_on: int  # warps that had one, where that is known; else as many as `warps`


def executed(code: Code, counters: Counters) -> Iterator[Executed]:
    """Every instruction of the kernel, in the order of its segments.

    A predicate on a barrier, an exit or a warp instruction is kept as a hidden branch around a
    segment of its own: threads come to the branch, and those whose predicate is on to the segment.
    """
    numbers = {id(ins): number for number, ins in enumerate(code.guarded)}
    before = {part.next: part.number for part in code.parts if part.hidden}
    for part in code.parts:
        warps, threads = counters.warps[part.number], counters.lanes[part.number]
        branch = before.get(part.number)
        if branch is not None:
            came, lanes = counters.warps[branch], counters.lanes[branch]
            for ins in (*part.instructions, *([part.end] if part.end is not None else [])):
                yield Executed(ins, came, lanes, threads, warps)
            continue
        for ins in part.instructions:
            if _real(ins):
                on = threads if ins.guard is None else counters.on[numbers[id(ins)]]
                yield Executed(ins, warps, threads, on, warps)
        if part.end is not None and not part.hidden and _real(part.end):
            on = threads if part.end.guard is None else counters.taken[part.number]
            yield Executed(part.end, warps, threads, on, warps)


def _real(ins: Instruction) -> bool:
    """Whether the instruction stands in the PTX: some are made to put functions in their place.

    Of a call that is replaced by the function's body, the branches are left."""
    called = ins.text.startswith("call") and ins.opcode in ("setp", "bad_call")
    return bool(ins.text) and ins.opcode != "bar_red" and not called


def tally(code: Code, counters: Counters) -> dict[str, float]:
    """The metrics of a launch, but for those of its dimensions (facts.py)."""
    rows = list(executed(code, counters))
    found: dict[str, float] = {}
    found |= _instructions(rows)
    found |= _branches(counters)
    if counters.enabled:
        found |= _memory(code, counters, rows)
    return found


# -- instructions ----------------------------------------------------------------------------------

def _instructions(rows: list[Executed]) -> dict[str, float]:
    warps, threads = sum(row.warps for row in rows), sum(row.threads for row in rows)
    on = sum(row.on for row in rows)
    by_class = Counter(dict.fromkeys(categories.CLASSES, 0))
    flops = Counter({letter + operation: 0 for letter in "fdh" for operation in
                     ("add", "mul", "fma")})
    tensor: Counter[str] = Counter(dict.fromkeys(TENSOR, 0))
    by_opcode: Counter[str] = Counter()
    for row in rows:
        by_class[categories.category(row.ins)] += row.on
        by_opcode[_opcode(row.ins)] += row.warps
        operation = categories.flops(row.ins)
        if operation is not None:
            flops[operation[0]] += operation[1] * row.on
        product = categories.tensor(row.ins)
        if product is not None:
            tensor[product[0]] += product[1] * row.warps_on
            by_opcode["tensor"] += row.warps
    found: dict[str, float] = {
        "smsp__inst_executed.sum": warps, "smsp__thread_inst_executed.sum": threads,
        "smsp__thread_inst_executed_pred_on.sum": on,
        "mlgpu__thread_inst_executed_pred_off.sum": threads - on}
    if warps:
        ratio = "smsp__thread_inst_executed{}_per_inst_executed.ratio"
        found |= {ratio.format(""): threads / warps, ratio.format("_pred_on"): on / warps}
    for kind, count in (*by_class.items(), *flops.items()):
        found[f"{SASS}thread_inst_executed_op_{kind}_pred_on.sum"] = count
    found["mlgpu__inst_executed_op_mma.sum"] = by_opcode["tensor"]
    found |= tensor
    return found | {
        f"{SASS}inst_executed_op_branch.sum": by_opcode["branch"],
        "mlgpu__inst_executed_op_barrier.sum": by_opcode["barrier"],
        "mlgpu__inst_executed_op_warp_barrier.sum": by_opcode["warp barrier"],
        "mlgpu__inst_executed_op_fence.sum": by_opcode["fence"],
        "mlgpu__inst_executed_op_shfl.sum": by_opcode["shfl"],
        "mlgpu__inst_executed_op_vote.sum": by_opcode["vote"]}


TENSOR = tuple(map(categories.tensor_metric, (
    "fp16_dst_fp16", "fp16_dst_fp32", "bf16_dst_fp32", "tf32_dst_fp32", "fp64", "fp8", "int8",
    "int4", "int1")))
_SAME = {"bra": "branch", "brx": "branch", "match": "vote", "redux": "vote", "membar": "fence"}


def _opcode(ins: Instruction) -> str:
    if ins.opcode in ("bar", "barrier"):
        return "warp barrier" if ins.has("warp") else "barrier"
    return _SAME.get(ins.opcode, ins.opcode)


def _branches(counters: Counters) -> dict[str, float]:
    branches, divergent = sum(counters.branches), sum(counters.divergent)
    found: dict[str, float] = {
        f"{SASS}branch_targets.sum": branches,
        f"{SASS}branch_targets_threads_uniform.sum": branches - divergent,
        f"{SASS}branch_targets_threads_divergent.sum": divergent}
    if branches:
        found[f"{SASS}average_branch_targets_threads_uniform.pct"] = (
            100 * (branches - divergent) / branches)
    return found


# -- memory ----------------------------------------------------------------------------------------

def _memory(code: Code, counters: Counters, rows: list[Executed]) -> dict[str, float]:
    used = used_registers(code)
    moved: dict[tuple[str, str], Traffic] = {}  # by space and kind of access
    executed: Counter[tuple[str, str]] = Counter()
    spaces = {id(ins): site.space for ins, site in zip(code.sited, code.sites, strict=True)}
    places: dict[int, dict[str, int]] = {}  # of an instruction: the spaces, with its requests
    for (space, number), traffic in counters.traffic.items():
        ins = code.sited[number]
        kind = kind_of(ins, used)
        if kind == "bulk":
            kind = f"bulk_{'ld' if code.sites[number].access == 'read' else 'st'}"
        moved.setdefault((space, kind), Traffic()).add(traffic)
        places.setdefault(id(ins), {})[space] = traffic.requests
        if space == "local":  # every word of a thread is a request of its own
            moved[space, kind].requests += traffic.requests * (max(code.sites[number].size // 4, 1)
                                                               - 1)
    for row in rows:
        kind, space = kind_of(row.ins, used), spaces.get(id(row.ins), "")
        if kind == "ldgsts":
            space = "global"
        found = places.get(id(row.ins), {})
        if kind and not space and len(found) > 1:  # generic addresses that lie in several spaces
            executed.update({(place, kind): requests for place, requests in found.items()})
        elif kind:
            executed[space or next(iter(found), ""), kind] += row.warps
    return (_global(moved, executed, counters) | _local(moved, executed)
            | _shared(moved, executed) | _l2(moved, counters))


Moved = dict[tuple[str, str], Traffic]


def _global(moved: Moved, executed: Counter[tuple[str, str]],
            counters: Counters) -> dict[str, float]:
    """Asynchronous copies are among the requests and sectors of loads, but not among the bytes."""
    found: dict[str, float] = {}
    copies = moved.get(("global", "ldgsts"), Traffic())
    for op in ("ld", "st", "atom", "red"):
        t = moved.get(("global", op), Traffic())
        requests, sectors, ideal = t.requests, t.passes, t.ideal
        if op == "ld":
            requests += copies.requests
            sectors += copies.passes
            ideal += copies.ideal
        found[f"{SASS}inst_executed_op_global_{op}.sum"] = executed["global", op]
        found[f"{L1}t_requests_{LSU}_global_op_{op}.sum"] = requests
        found[f"{L1}t_sectors_{LSU}_global_op_{op}.sum"] = sectors
        if op in ("ld", "st"):
            found[f"mlgpu__sectors_ideal_mem_global_op_{op}.sum"] = ideal
            found[f"mlgpu__thread_bytes_mem_global_op_{op}.sum"] = t.asked
            found[f"{SASS}data_bytes_mem_global_op_{op}.sum"] = t.distinct
            if requests:
                found[f"{L1}average_t_sectors_per_request_{LSU}_global_op_{op}.ratio"] = (
                    sectors / requests)
            if t.requests:
                found[f"{SASS}average_data_bytes_per_sector_mem_global_op_{op}.pct"] = (
                    100 * t.distinct / (t.passes * SECTOR))
    found |= {f"{SASS}inst_executed_op_ldgsts.sum": executed["global", "ldgsts"],
              "mlgpu__requests_mem_global_op_ldgsts.sum": copies.requests,
              "mlgpu__sectors_mem_global_op_ldgsts.sum": copies.passes}
    for op in ("ld", "st"):
        t = moved.get(("global", f"bulk_{op}"), Traffic())
        found[f"mlgpu__bulk_copies_mem_global_op_{op}.sum"] = t.requests
        found[f"mlgpu__bulk_sectors_mem_global_op_{op}.sum"] = t.passes
    return found | {"mlgpu__unique_bytes_read.sum": counters.unique_read,
                    "mlgpu__unique_bytes_written.sum": counters.unique_written}


def _local(moved: Moved, executed: Counter[tuple[str, str]]) -> dict[str, float]:
    found: dict[str, float] = {}
    for op in ("ld", "st"):
        t = moved.get(("local", op), Traffic())
        found[f"{SASS}inst_executed_op_local_{op}.sum"] = executed["local", op]
        found[f"{L1}t_requests_{LSU}_local_op_{op}.sum"] = t.requests
        found[f"{L1}t_sectors_{LSU}_local_op_{op}.sum"] = t.passes
    return found


def _shared(moved: Moved, executed: Counter[tuple[str, str]]) -> dict[str, float]:
    """Wavefronts: those of matrices are among the loads and stores; asynchronous copies are in
    the totals of wavefronts, but not in that of conflicts, as Nsight Compute has it."""
    found: dict[str, float] = {f"{SASS}inst_executed_op_ldsm.sum": executed["shared", "ldsm"],
                               "mlgpu__inst_executed_op_stsm.sum": executed["shared", "stsm"]}
    groups = {"ld": ("ld", "ldsm"), "st": ("st", "stsm"), "atom": ("atom", "red")}
    wavefronts = "data_pipe_lsu_wavefronts_mem_shared"
    conflicts = f"data_bank_conflicts_{LSU}_shared"
    beyond = 0
    for op, kinds in groups.items():
        t = Traffic()
        for kind in kinds:
            t.add(moved.get(("shared", kind), Traffic()))
        beyond += t.passes - t.groups
        found[f"{L1}{wavefronts}_op_{op}.sum"] = t.passes
        found[f"{SASS}inst_executed_op_shared_{op}.sum"] = sum(
            executed["shared", kind] for kind in kinds if kind not in ("ldsm", "stsm"))
        if op != "atom":
            found[f"mlgpu__wavefronts_ideal_mem_shared_op_{op}.sum"] = t.ideal
            found[f"{L1}{conflicts}_op_{op}.sum"] = t.passes - t.groups
    copies = moved.get(("shared", "ldgsts"), Traffic())
    every = [t for (space, _), t in moved.items() if space == "shared"]
    return found | {"memory_l1_wavefronts_shared": sum(t.passes for t in every),
                    "memory_l1_wavefronts_shared_ideal": sum(t.ideal for t in every),
                    f"{L1}{conflicts}.sum": beyond,
                    f"{SASS}l1tex_{wavefronts}_op_ldgsts.sum": copies.passes,
                    f"{SASS}l1tex_{conflicts}_op_ldgsts.sum": copies.passes - copies.groups}


def _l2(moved: Moved, counters: Counters) -> dict[str, float]:
    """The L2 cache sees what global memory is asked for, and the stores to local memory."""
    def sectors(*kinds: str) -> int:
        return sum(moved[key].passes for kind in kinds if (key := ("global", kind)) in moved)

    l2, tex = counters.l2, "lts__t_sectors_srcunit_tex_op"
    read, write = sectors("ld", "ldgsts", "bulk_ld"), sectors("st", "bulk_st")
    found: dict[str, float] = {
        f"{tex}_read.sum": read,
        f"{tex}_read_lookup_hit.sum": l2.hits["read"],
        f"{tex}_read_lookup_miss.sum": read - l2.hits["read"],
        f"{tex}_write.sum": write + moved.get(("local", "st"), Traffic()).passes,
        "mlgpu__l2_sectors_write_hit.sum": l2.hits["write"],
        "mlgpu__l2_sectors_write_miss.sum": write - l2.hits["write"],
        f"{tex}_atom.sum": sectors("atom"), f"{tex}_red.sum": sectors("red")}
    total = read + write + sectors("atom", "red")
    if total:
        found["mlgpu__l2_sector_hit_rate.pct"] = 100 * sum(l2.hits.values()) / total
    brought, written = SECTOR * l2.read_from_dram, SECTOR * l2.written_to_dram
    return found | {"dram__bytes_read.sum": brought, "dram__bytes_write.sum": written,
                    "dram__bytes.sum": brought + written}
