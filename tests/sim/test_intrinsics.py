"""CUDA's integer intrinsics, compiled for each generation of targets, against Python's integers.

What the compiler makes of one differs between targets: a packed instruction, a video instruction,
or a dozen operations on words.  All must come to the same.
"""

from __future__ import annotations

import operator
import random
from collections.abc import Callable

import numpy as np
import pytest
from sim.straightcheck import bits, edges, signed

from mlgpu import sim

Lane = Callable[[int, int], int]


def lanes(n: int, is_signed: bool, operation: Lane, saturate: bool = False):
    """A function of a, b, c: the operation on each of n parts of a and b."""
    width = 32 // n
    low, high = (-1 << width - 1, (1 << width - 1) - 1) if is_signed else (0, (1 << width) - 1)

    def reference(a: int, b: int, c: int) -> int:
        total = 0
        for start in range(0, 32, width):
            x, y = (signed(v >> start, width) if is_signed else bits(v >> start, width)
                    for v in (a, b))
            value = operation(x, y)
            if saturate:
                value = min(max(value, low), high)
            total |= bits(value, width) << start
        return total
    return reference


def sums(n: int, is_signed: bool):
    """The sum of the distances of the parts."""
    width = 32 // n
    wrap = signed if is_signed else bits
    return lambda a, b, c: sum(abs(wrap(a >> k, width) - wrap(b >> k, width))
                               for k in range(0, 32, width))


def packed() -> dict[str, tuple[str, Callable[[int, int, int], int]]]:
    """The SIMD intrinsics: call -> reference."""
    table = {}
    one = {"vabs": (False, abs), "vabsss": (True, abs), "vneg": (False, operator.neg),
           "vnegss": (True, operator.neg)}
    two = {"vadd": (False, False, operator.add), "vsub": (False, False, operator.sub),
           "vaddss": (True, True, operator.add), "vsubss": (True, True, operator.sub),
           "vaddus": (False, True, operator.add), "vsubus": (False, True, operator.sub),
           "vabsdiffu": (False, False, lambda x, y: abs(x - y)),
           "vabsdiffs": (True, False, lambda x, y: abs(x - y)),
           "vavgu": (False, False, lambda x, y: x + y + 1 >> 1),
           "vavgs": (True, False, lambda x, y: x + y + (x + y >= 0) >> 1),
           "vhaddu": (False, False, lambda x, y: x + y >> 1),
           "vmaxu": (False, False, max), "vmaxs": (True, False, max),
           "vminu": (False, False, min), "vmins": (True, False, min)}
    for name, compare in (("eq", operator.eq), ("ne", operator.ne), ("gt", operator.gt),
                          ("ge", operator.ge), ("lt", operator.lt), ("le", operator.le)):
        for sign in ("",) if name in ("eq", "ne") else ("u", "s"):
            two[f"vcmp{name}{sign}"] = (sign == "s", False,
                                        lambda x, y, compare=compare: -compare(x, y))
            two[f"vset{name}{sign}"] = (sign == "s", False,
                                        lambda x, y, compare=compare: compare(x, y))
    for n in (2, 4):
        for name, (saturate, operation) in one.items():
            table[f"__{name}{n}(a)"] = lanes(
                n, True, lambda x, y, operation=operation: operation(x), saturate)
        for name, (is_signed, saturate, operation) in two.items():
            table[f"__{name}{n}(a, b)"] = lanes(n, is_signed, operation, saturate)
        table[f"__vsadu{n}(a, b)"] = sums(n, False)
        table[f"__vsads{n}(a, b)"] = sums(n, True)
    for width, kind in ((32, "s32"), (16, "s16x2"), (32, "u32"), (16, "u16x2")):
        n, is_signed = 32 // width, kind[0] == "s"
        three = {"vimax3": max, "vimin3": min}
        for name, choose in three.items():
            table[f"__{name}_{kind}(a, b, c)"] = nested(n, is_signed, choose, choose)
        table[f"__viaddmax_{kind}(a, b, c)"] = nested(n, is_signed, operator.add, max)
        table[f"__viaddmin_{kind}(a, b, c)"] = nested(n, is_signed, operator.add, min)
        if is_signed:
            table[f"__vimax_{kind}_relu(a, b)"] = lanes(n, True, lambda x, y: max(x, y, 0))
            table[f"__vimin_{kind}_relu(a, b)"] = lanes(n, True, lambda x, y: max(min(x, y), 0))
    return table


def nested(n: int, is_signed: bool, inner: Lane, outer: Lane):
    """outer(inner(a, b), c) of each part; the inner result wraps."""
    first, second = lanes(n, is_signed, inner), lanes(n, is_signed, outer)
    return lambda a, b, c: second(first(a, b, c), c, 0)


def high_product(a: int, b: int, width: int) -> int:
    return a * b >> width


def prmt(a: int, b: int, selector: int) -> int:
    both, result = b << 32 | a, 0
    for k in range(4):  # __byte_perm looks at three bits of each four
        result |= (both >> 8 * (selector >> 4 * k & 7) & 0xFF) << 8 * k
    return result


LONG = "((unsigned long long)a << 32 | b)"
OTHER = "((unsigned long long)c << 32 | a)"


def wide(a: int, b: int) -> int:
    return a << 32 | b


def toward_zero(a: int, b: int) -> int:
    return abs(a) // abs(b) * (1 if (a < 0) == (b < 0) else -1)


WORDS = {
    "__popc(a)": lambda a, b, c: f"{a:b}".count("1"),
    f"__popcll({LONG})": lambda a, b, c: f"{wide(a, b):b}".count("1"),
    "__clz(a)": lambda a, b, c: 32 - a.bit_length(),
    f"__clzll({LONG})": lambda a, b, c: 64 - wide(a, b).bit_length(),
    "__ffs(a)": lambda a, b, c: (a & -a).bit_length(),
    f"__ffsll({LONG})": lambda a, b, c: (wide(a, b) & -wide(a, b)).bit_length(),
    "__brev(a)": lambda a, b, c: int(f"{a:032b}"[::-1], 2),
    f"__brevll({LONG})": lambda a, b, c: int(f"{wide(a, b):064b}"[::-1], 2),
    "__byte_perm(a, b, c)": prmt,
    "__byte_perm(a, b, 0x2107)": lambda a, b, c: prmt(a, b, 0x2107),
    "__funnelshift_l(a, b, c)": lambda a, b, c: wide(b, a) << c % 32 >> 32,
    "__funnelshift_lc(a, b, c)": lambda a, b, c: wide(b, a) << min(c, 32) >> 32,
    "__funnelshift_r(a, b, c)": lambda a, b, c: wide(b, a) >> c % 32,
    "__funnelshift_rc(a, b, c)": lambda a, b, c: wide(b, a) >> min(c, 32),
    "__sad(a, b, c)": lambda a, b, c: abs(signed(a, 32) - signed(b, 32)) + c,
    "__usad(a, b, c)": lambda a, b, c: abs(a - b) + c,
    "__mulhi((int)a, (int)b)": lambda a, b, c: high_product(signed(a, 32), signed(b, 32), 32),
    "__umulhi(a, b)": lambda a, b, c: high_product(a, b, 32),
    f"__umul64hi({LONG}, {OTHER})":
        lambda a, b, c: high_product(wide(a, b), wide(c, a), 64),
    f"__mul64hi((long long){LONG}, (long long){OTHER})":
        lambda a, b, c: high_product(signed(wide(a, b), 64), signed(wide(c, a), 64), 64),
    "__mul24((int)a, (int)b)": lambda a, b, c: signed(a, 24) * signed(b, 24),
    "__umul24(a, b)": lambda a, b, c: bits(a, 24) * bits(b, 24),
    "__hadd((int)a, (int)b)": lambda a, b, c: signed(a, 32) + signed(b, 32) >> 1,
    "__rhadd((int)a, (int)b)": lambda a, b, c: signed(a, 32) + signed(b, 32) + 1 >> 1,
    "__uhadd(a, b)": lambda a, b, c: a + b >> 1,
    "__urhadd(a, b)": lambda a, b, c: a + b + 1 >> 1,
    "(int)a / ((int)b | 1)": lambda a, b, c: toward_zero(signed(a, 32), signed(b, 32) | 1),
    "(int)a % 7": lambda a, b, c: signed(a, 32) - 7 * toward_zero(signed(a, 32), 7),
    "a / (b | 1)": lambda a, b, c: a // (b | 1),
    f"{LONG} % ({OTHER} | 1)": lambda a, b, c: wide(a, b) % (wide(c, a) | 1),
    f"(long long){LONG} / ((long long){OTHER} | 1)":
        lambda a, b, c: toward_zero(signed(wide(a, b), 64), signed(wide(c, a), 64) | 1),
    "(short)a * (short)b": lambda a, b, c: signed(a, 16) * signed(b, 16),
    "(signed char)((signed char)a + (signed char)b)": lambda a, b, c: signed(a + b, 8),
    "__dp4a((int)a, (int)b, (int)c)": lambda a, b, c: c + sum(
        signed(a >> k, 8) * signed(b >> k, 8) for k in (0, 8, 16, 24)),
    "__dp4a(a, b, c)": lambda a, b, c: c + sum(
        bits(a >> k, 8) * bits(b >> k, 8) for k in (0, 8, 16, 24)),
    "__dp2a_lo((int)a, (int)b, (int)c)": lambda a, b, c: c + sum(
        signed(a >> 2 * k, 16) * signed(b >> k, 8) for k in (0, 8)),
    "__dp2a_hi(a, b, c)": lambda a, b, c: c + sum(
        bits(a >> 2 * k, 16) * bits(b >> k + 16, 8) for k in (0, 8)),
}


@pytest.mark.parametrize("arch", ["sm_75", "sm_80", "sm_90", "sm_120"])
def test_intrinsics(arch):
    table = {**packed(), **WORDS}
    body = "\n".join(f"    out[{k} * n + i] = (unsigned)({call});" for k, call in enumerate(table))
    machine = sim.Machine(arch=arch)
    module = machine.module(
        'extern "C" __global__ void all(const unsigned* x, unsigned* out, unsigned n) {\n'
        "    unsigned i = blockIdx.x * blockDim.x + threadIdx.x;\n"
        "    unsigned a = x[i], b = x[n + i], c = x[2 * n + i];\n" + body + "\n}\n")
    n, source = 256, random.Random(5)
    telling = edges("u32")
    values = [[source.choice(telling) if source.random() < 0.4 else source.getrandbits(32)
               for _ in range(n)] for _ in range(3)]
    given = machine.array(np.array(values, np.uint32))
    out = machine.zeros((len(table), n), np.uint32)
    module.kernel("all").launch(n // 64, 64, (given, out, np.uint32(n)))
    got = out.numpy()
    for k, (call, reference) in enumerate(table.items()):
        wanted = [bits(reference(a, b, c), 32) for a, b, c in zip(*values, strict=True)]
        wrong = [i for i in range(n) if got[k, i] != wanted[i]]
        assert not wrong, (f"{call} of {[hex(v[wrong[0]]) for v in values]}: "
                           f"{got[k, wrong[0]]:#x}, not {wanted[wrong[0]]:#x}")
