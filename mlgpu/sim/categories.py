"""What kind of work a PTX instruction is, as a profiler groups it: class, operation, tensor work.

The groups are Nsight Compute's.  Parameters are operands of the instructions that use them on a
GPU, and conversions between address spaces are none, so loads of parameters and `cvta` are counted
as moves ("misc").
"""

from __future__ import annotations

from mlgpu.sim.isa.memory import space_of
from mlgpu.sim.numeric.fragments import extents
from mlgpu.sim.numeric.mma_forms import mma_function, wmma_function
from mlgpu.sim.ptx.syntax import Instruction

CLASSES = ("fp16", "fp32", "fp64", "integer", "bit", "conversion", "control", "memory",
           "inter_thread_communication", "misc")
_NAMED = {name: kind for kind, names in {
    "bit": """and or xor not cnot lop3 shl shr shf bfe bfi bfind bmsk brev clz fns popc prmt
        szext""",
    "integer": """addc subc madc mad24 mul24 rem sad dp2a dp4a vadd vadd2 vadd4 vsub vsub2 vsub4
        vabsdiff vabsdiff2 vabsdiff4 vmin vmin2 vmin4 vmax vmax2 vmax4 vset vset2 vset4 vshl vshr
        vmad vavrg2 vavrg4""",
    "conversion": "cvt",
    "control": "bra brx ret exit trap vprintf __assertfail malloc free",
    "memory": """ld ldu st atom red ldmatrix stmatrix prefetch prefetchu applypriority
        discard""",
    "inter_thread_communication": """shfl vote match redux activemask elect movmatrix bar barrier
        membar fence mbarrier""",
    "misc": """mov selp slct cvta isspacep param_move mma nanosleep pmevent griddepcontrol
        setmaxnreg createpolicy""",
}.items() for name in names.split()}
_FLOATS = {"f16": "fp16", "f16x2": "fp16", "bf16": "fp16", "bf16x2": "fp16", "f32": "fp32",
           "f32x2": "fp32", "f64": "fp64"}
_PACKED = ("f16x2", "bf16x2", "f32x2")
_NO_COPY = frozenset({"commit_group", "wait_group", "wait_all", "mbarrier", "prefetch"})
_OPERATIONS = {"add": "add", "sub": "add", "mul": "mul", "fma": "fma", "mad": "fma"}


def category(ins: Instruction) -> str:
    """The one of CLASSES that an instruction belongs to."""
    if ins.opcode in ("ld", "ldu") and space_of(ins) == "param":
        return "misc"
    if ins.opcode in ("cp", "wmma"):
        return "memory" if access(ins) else "misc"
    found = _NAMED.get(ins.opcode)
    return found or _FLOATS.get(ins.type, "integer")  # arithmetic and comparison, by its type


def flops(ins: Instruction) -> tuple[str, int] | None:
    """ "fadd", "dmul", "hfma"... and how many a thread does; None for what is none of them."""
    operation = _OPERATIONS.get(ins.opcode)
    kind = _FLOATS.get(ins.type)
    if operation is None or kind is None:
        return None
    letter = {"fp16": "h", "fp32": "f", "fp64": "d"}[kind]
    return letter + operation, 2 if ins.type in _PACKED else 1


def tensor(ins: Instruction) -> tuple[str, int] | None:
    """The metric of a product of matrices and the operations of one warp, a multiply-add being
    two; None for other instructions."""
    if ins.opcode == "mma":
        product = mma_function(ins.mods)
    elif ins.opcode == "wmma" and ins.has("mma"):
        product = wmma_function(ins.mods)
    else:
        return None
    m, n, k = extents(next(mod for mod in ins.mods if mod[:1] == "m" and mod[1:2].isdigit()))
    a, d = product.a.type, product.d.type
    if a in ("f16", "bf16", "tf32"):
        kind = f"{'fp16' if a == 'f16' else a}_dst_{d.replace('f', 'fp')}"
    elif a == "f64":
        kind = "fp64"
    elif a[0] in "su":
        kind = f"int{a[1:]}"
    else:
        kind = "int1" if a == "b1" else "fp8"
    return tensor_metric(kind), 2 * m * n * k * product.count


def tensor_metric(kind: str) -> str:
    """The metric that counts the operations of tensor cores on a kind of numbers."""
    if kind == "int4":
        return "mlgpu__ops_tensor_src_int4.sum"
    path = "op_hmma_src" if kind.startswith("fp16") else "src"
    return f"sm__ops_path_tensor_{path}_{kind}.sum"


def access(ins: Instruction) -> str:
    """How an instruction accesses memory: "ld", "st", "atom", "red", "ldgsts" (an asynchronous
    copy), "bulk", "ldsm" (ldmatrix), "stsm" (stmatrix); "" where it does not."""
    if ins.opcode in ("ld", "ldu", "st", "atom", "red"):
        return "" if space_of(ins) in ("param", "const") else ins.opcode.replace("ldu", "ld")
    if ins.opcode == "wmma":
        return {"load": "ld", "store": "st"}.get(ins.mods[0], "")
    if ins.opcode == "cp":
        if _NO_COPY.intersection(ins.mods):
            return ""
        return "bulk" if ins.has("bulk") else "ldgsts"
    return {"ldmatrix": "ldsm", "stmatrix": "stsm"}.get(ins.opcode, "")
