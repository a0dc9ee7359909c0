"""Instructions that the machine itself carries out: parameters, address spaces, prefetches."""

from __future__ import annotations

from mlgpu.sim.emit import Emitter
from mlgpu.sim.isa.form import form, one_of
from mlgpu.sim.isa.registry import instruction
from mlgpu.sim.memory import LOCAL_WINDOW, SHARED_WINDOW, WINDOW
from mlgpu.sim.ptx.syntax import Args, Imm, Instruction, Sym


@instruction("param_move")
def param_move(e: Emitter, ins: Instruction) -> None:
    """A piece of a call's parameter, to or from its register (made by inline.py)."""
    to, source = ins.operands
    e.set(to, ins.type, e.use(source, ins.type))


_SPACES = "global const shared shared::cta shared::cluster local param param::entry"
_WINDOWS = {"shared": SHARED_WINDOW, "shared::cta": SHARED_WINDOW,
            "shared::cluster": SHARED_WINDOW, "local": LOCAL_WINDOW}


@form("cvta", types="u32 u64", mods=f"to {_SPACES}", operands=2)
def cvta(e: Emitter, ins: Instruction) -> None:
    """Between an address in a space and the generic one."""
    to, source = ins.operands
    space = one_of(e, ins, _SPACES.split(), "address space")
    base = _WINDOWS.get(space, 0)
    if isinstance(source, Sym):
        its = e.code.spaces.get(source.name, space)
        if its != space.split("::")[0]:
            e.malformed(f"{source.name} is a variable in .{its}")
    value = e.address(source) if isinstance(source, Sym) else e.use(source, ins.type)
    if ins.type == "u32":
        e.fail("addresses have 64 bits here")
    if base:
        amount = e.use(Imm(base), "u64")
        value = f"{value} - {amount}" if ins.has("to") else f"{value} + {amount}"
    e.set(to, "u64", value)


@form("isspacep", mods=_SPACES, operands=2)
def isspacep(e: Emitter, ins: Instruction) -> None:
    """Whether a generic address lies in a space."""
    to, source = ins.operands
    space = one_of(e, ins, _SPACES.split(), "address space")
    address = e.address(source)
    if space in _WINDOWS:
        low = _WINDOWS[space]
        start, end = e.use(Imm(low), "u64"), e.use(Imm(low + WINDOW), "u64")
        e.set(to, "pred", f"({address} >= {start}) & ({address} < {end})")
    elif space == "global":
        e.set(to, "pred", f"{address} < {e.use(Imm(SHARED_WINDOW), 'u64')}")
    else:
        e.set(to, "pred", f"x.is_constant({address})")


@form("prefetch", mods="global local L1 L2 L2::evict_last L2::evict_normal tensormap", operands=1)
@form("prefetchu", mods="L1", operands=1)
@form("applypriority", mods="global L2::evict_normal", operands=2)
@form("discard", mods="global L2", operands=2)
@form("nanosleep", types="u32", operands=1)
@form("pmevent", mods="mask", operands=1)
@form("griddepcontrol", mods="wait launch_dependents", operands=0)
@form("setmaxnreg", types="u32", mods="inc dec sync aligned", operands=1)
def nothing(e: Emitter, ins: Instruction) -> None:
    """Hints to a memory system and scheduler that the simulation does not have."""
    if ins.opcode == "nanosleep":
        e.use(ins.operands[0], "u32")


@form("createpolicy", types="b64", mods="""fractional range cvt L2 global L2::evict_last
      L2::evict_normal L2::evict_first L2::evict_unchanged""", operands=1, most=4)
def createpolicy(e: Emitter, ins: Instruction) -> None:
    """A cache policy, which has no effect here."""
    e.set(ins.operands[0], "u64", e.use(Imm(0), "u64"))


@instruction("vprintf")
def vprintf(e: Emitter, ins: Instruction) -> None:
    """`printf`: the format's address and the address of its arguments."""
    returns, args = ins.operands
    assert isinstance(returns, Args)
    assert isinstance(args, Args)
    text, values = (e.use(a, "u64") for a in args.items)
    e.line(e.guarded("intrinsics.print_lines", text, values))
    for item in returns.items:
        e.set(item, "s32", e.use(Imm(0), "s32"))
