"""Comparisons, selections and moves of the simulated GPU."""

from __future__ import annotations

import operator

import numpy as np
import pytest
from sim.straight import run_line
from sim.straightcheck import bits, check, width_of

from mlgpu.sim.errors import PtxError, UnsupportedError
from mlgpu.sim.ptx.syntax import Imm, Instruction, Location, Reg, Vec

COMPARE = {"eq": operator.eq, "ne": operator.ne, "lt": operator.lt, "le": operator.le,
           "gt": operator.gt, "ge": operator.ge}
UNSIGNED = {"lo": operator.lt, "ls": operator.le, "hi": operator.gt, "hs": operator.ge}
BOOLEAN = {"and": operator.and_, "or": operator.or_, "xor": operator.xor}


def operators(type: str):
    if type[0] == "b":
        return {"eq": operator.eq, "ne": operator.ne}
    return {**COMPARE, **(UNSIGNED if type[0] == "u" else {})}


@pytest.mark.parametrize("type", "b16 b32 b64 u16 u32 u64 s16 s32 s64".split())
def test_setp(type):
    sources = {"%a": type, "%b": type}
    for name, compare in operators(type).items():
        check(f"setp.{name}.{type} %p, %a, %b;", sources, {"%p": "pred"}, compare)
        check(f"setp.{name}.{type} %p|%q, %a, %b;", sources, {"%p": "pred", "%q": "pred"},
              lambda a, b, compare=compare: (compare(a, b), not compare(a, b)))


@pytest.mark.parametrize("boolean", BOOLEAN)
def test_setp_combined(boolean):
    combine = BOOLEAN[boolean]
    sources = {"%a": "s32", "%b": "s32", "%c": "pred"}
    results = {"%p": "pred", "%q": "pred"}

    def reference(a: int, b: int, c: int) -> tuple[int, int]:
        return combine(a < b, bool(c)), combine(not a < b, bool(c))

    check(f"setp.lt.{boolean}.s32 %p|%q, %a, %b, %c;", sources, results, reference)
    check(f"setp.lt.{boolean}.s32 %p|%q, %a, %b, !%c;", sources, results,
          lambda a, b, c: reference(a, b, 1 - c))
    check(f"setp.lt.{boolean}.s32 _|%q, %a, %b, %c;", sources, {"%q": "pred"},
          lambda a, b, c: reference(a, b, c)[1])
    # The predicate read is also written.
    check(f"setp.lt.{boolean}.s32 %c|%q, %a, %b, %c;", sources, {"%c": "pred", "%q": "pred"},
          reference)


def test_setp_guarded_by_its_own_destination():
    registers = {"%a": "b32", "%p": "pred", "%q": "pred"}
    given = {"%a": [1, 1, 5, 5], "%p": [True, False, True, False], "%q": [True] * 4}
    got = run_line("@%p setp.lt.s32 %p|%q, %a, 3;", registers, given)
    assert got["%p"].tolist() == [[True, False, False, False]]
    assert got["%q"].tolist() == [[False, True, True, True]]


@pytest.mark.parametrize("type", "b16 b32 b64 u16 u32 u64 s16 s32 s64".split())
@pytest.mark.parametrize("result", ["u32", "s32"])
def test_set(type, result):
    for name, compare in operators(type).items():
        check(f"set.{name}.{result}.{type} %d, %a, %b;", {"%a": type, "%b": type},
              {"%d": result}, lambda a, b, compare=compare: -compare(a, b))
        for half, one in (("f16", 0x3c00), ("bf16", 0x3f80)):
            check(f"set.{name}.{half}.{type} %d, %a, %b;", {"%a": type, "%b": type},
                  {"%d": "b16"}, lambda a, b, compare=compare, one=one: one * compare(a, b))


def test_set_combined_and_to_float():
    sources = {"%a": "u32", "%b": "u32", "%c": "pred"}
    check("set.hi.xor.u32.u32 %d, %a, %b, %c;", sources, {"%d": "b32"},
          lambda a, b, c: -((a > b) ^ c))
    check("set.eq.and.f32.u32 %d, %a, %b, !%c;", sources, {"%d": "f32"},
          lambda a, b, c: a == b and not c)


# -- selections ------------------------------------------------------------------------------------

@pytest.mark.parametrize("type", "b16 b32 b64 u16 u32 u64 s16 s32 s64".split())
def test_selp(type):
    w = width_of(type)
    bit_type = f"b{w}"
    check(f"selp.{type} %d, %a, %b, %p;", {"%a": bit_type, "%b": bit_type, "%p": "pred"},
          {"%d": bit_type}, lambda a, b, p: a if p else b)
    check(f"selp.{type} %d, %a, 17, !%p;", {"%a": bit_type, "%p": "pred"},
          {"%d": bit_type}, lambda a, p: 17 if p else a)


NANS = np.array([0x7F800001, 0xFFC12345, 0x3F800000, 0x80000000], np.uint32)


def test_selp_keeps_the_bits_of_floats():
    registers = {"%a": "f32", "%b": "f32", "%p": "pred", "%d": "f32", "%e": "b32"}
    given = {"%a": NANS, "%b": NANS[::-1], "%p": [True, False, True, False]}
    got = run_line("selp.f32 %d, %a, %b, %p; selp.b32 %e, %a, %b, %p;", registers, given)
    wanted = [[0x7F800001, 0x3F800000, 0x3F800000, 0x7F800001]]
    assert got["%d"].view(np.uint32).tolist() == wanted
    assert got["%e"].tolist() == wanted
    constants = run_line("selp.f32 %d, 0f3F800000, 0fBF800000, %p;", registers, given)["%d"]
    assert constants.tolist() == [[1, -1, 1, -1]]
    wide = run_line("selp.f64 %d, 0d3FF0000000000000, %a, %p;",
                    {"%a": "f64", "%p": "pred", "%d": "f64"},
                    {"%a": np.array([5.0, -0.0]), "%p": [True, False]})["%d"]
    assert wide.view(np.uint64).tolist() == [[0x3FF0000000000000, 1 << 63]]


@pytest.mark.parametrize("type", "b16 b32 b64 u16 u32 u64 s16 s32 s64".split())
def test_slct(type):
    check(f"slct.{type}.s32 %d, %a, %b, %c;", {"%a": type, "%b": type, "%c": "s32"},
          {"%d": type}, lambda a, b, c: a if c >= 0 else b)


@pytest.mark.parametrize("ftz", [False, True])
def test_slct_by_float(ftz):
    signs = np.array([0.0, -0.0, 1.0, -1.0, np.inf, -np.inf, np.nan, 1e-40, -1e-40, 1.2e-38,
                      -1.1754944e-38], np.float32)
    registers = {"%a": "f32", "%b": "f32", "%c": "f32", "%d": "f32"}
    got = run_line(f"slct{'.ftz' if ftz else ''}.f32.f32 %d, %a, %b, %c;", registers,
                   {"%a": [1.5], "%b": [2.5], "%c": signs})["%d"]
    taken = [True, True, True, False, True, False, False, True, ftz, True, False]
    assert got.tolist() == [[1.5 if first else 2.5 for first in taken]]


# -- moves -----------------------------------------------------------------------------------------

@pytest.mark.parametrize("type", "pred b16 b32 b64 u16 u32 u64 s16 s32 s64".split())
def test_mov(type):
    check(f"mov.{type} %d, %a;", {"%a": type}, {"%d": type}, lambda a: a)


def test_mov_of_constants():
    registers = {"%r": "b32", "%f": "f32", "%d": "f64", "%h": "b16", "%p": "pred", "%rd": "b64"}
    got = run_line("mov.u32 %r, -1; mov.f32 %f, 0f40490FDB; mov.f64 %d, 0dBFF0000000000000;"
                   "mov.b16 %h, 0x3C00; mov.pred %p, 1; mov.s64 %rd, -2;", registers, {})
    assert got["%r"].tolist() == [[0xFFFFFFFF]]
    assert got["%f"].view(np.uint32).tolist() == [[0x40490FDB]]
    assert got["%d"].tolist() == [[-1.0]]
    assert got["%h"].tolist() == [[0x3C00]]
    assert got["%p"].tolist() == [[True]]
    assert got["%rd"].tolist() == [[2**64 - 2]]
    # Registers of floats are declared as bits for the newest targets.
    assert run_line("mov.b32 %r, 0f3F800000;", registers, {})["%r"].tolist() == [[0x3F800000]]
    assert run_line("mov.f32 %r, 0f3F800000;", registers, {})["%r"].tolist() == [[0x3F800000]]


def test_mov_between_kinds_keeps_bits():
    registers = {"%f": "f32", "%r": "b32", "%g": "f32", "%h": "f16", "%s": "b16"}
    got = run_line("mov.b32 %r, %f; mov.f32 %g, %r; mov.b16 %s, %h;", registers,
                   {"%f": NANS, "%h": np.array([1.0, -2.0, np.nan, 0.0], np.float16)})
    assert got["%r"].tolist() == [NANS.tolist()]
    assert got["%g"].view(np.uint32).tolist() == [NANS.tolist()]
    assert got["%s"].tolist() == [[0x3C00, 0xC000, 0x7E00, 0]]


@pytest.mark.parametrize(("whole", "part"), [(16, 8), (32, 16), (32, 8), (64, 32), (64, 16)])
def test_pack_and_unpack(whole, part):
    count = whole // part
    names = [f"%v{k}" for k in range(count)]
    vector = "{" + ", ".join(names) + "}"
    parts = dict.fromkeys(names, f"b{part}")
    check(f"mov.b{whole} %d, {vector};", parts, {"%d": f"b{whole}"},
          lambda *v: sum(value << part * k for k, value in enumerate(v)))
    check(f"mov.b{whole} {vector}, %a;", {"%a": f"b{whole}"}, parts,
          lambda a: tuple(bits(a >> part * k, part) for k in range(count)))


def test_pack_of_other_kinds_and_unpack_into_the_sink():
    registers = {"%h": "f16", "%s": "b16", "%r": "b32", "%f": "f32", "%rd": "b64", "%u": "b16"}
    given = {"%h": np.array([1.0, 2.0], np.float16), "%s": [7, 0xFFFF],
             "%f": np.array([1, -1], np.float32), "%u": [9, 9]}
    got = run_line("mov.b32 %r, {%h, %s}; mov.b64 %rd, {%f, 5}; mov.b32 {_, %u}, %r;",
                   registers, given)
    assert got["%r"].tolist() == [[0x00073C00, 0xFFFF4000]]
    assert got["%rd"].tolist() == [[0x5_3F800000, 0x5_BF800000]]
    assert got["%u"].tolist() == [[7, 0xFFFF]]


def test_unpack_into_its_own_source():
    got = run_line("mov.b64 {%a, %b}, %c; mov.b64 %c, {%b, %a};",
                   {"%a": "b32", "%b": "b32", "%c": "b64"}, {"%c": [0x1122334455667788]})
    assert got["%c"].tolist() == [[0x5566778811223344]]
    swapped = run_line("mov.b32 {%h, %g}, %r; mov.b32 %r, {%g, %h}; mov.b32 {%g, %h}, %r;",
                       {"%h": "b16", "%g": "b16", "%r": "b32"}, {"%r": [0x00010002]})
    assert swapped["%r"].tolist() == [[0x00020001]]
    assert swapped["%h"].tolist() == [[2]]


def test_addresses():
    registers = {"%rd": "b64", "%r": "b32"}
    got = run_line("mov.u64 %rd, table+12; mov.u32 %r, tile;", registers, {},
                   {"table": 0x7_0000_0000, "tile": 0x40})
    assert got["%rd"].tolist() == [[0x7_0000_000C]]
    assert got["%r"].tolist() == [[0x40]]


def test_guarded_unpack():
    got = run_line("@!%p mov.b64 {%a, %b}, %c;",
                   {"%a": "b32", "%b": "b32", "%c": "b64", "%p": "pred"},
                   {"%c": [0x1_00000002], "%a": [8, 8], "%b": [9, 9], "%p": [True, False]})
    assert got["%a"].tolist() == [[8, 2]]
    assert got["%b"].tolist() == [[9, 1]]


@pytest.mark.parametrize("text", [
    "setp.s32 %p, %a, %b", "setp.lt.b32 %p, %a, %b", "setp.lo.s32 %p, %a, %b",
    "setp.lt.s32 %p, %a", "setp.lt.s32 %p, %a, %b, %p", "setp.lt.and.s32 %p, %a, %b",
    "setp.lt.gt.s32 %p, %a, %b", "setp.lt.s32 %a, %a, %b", "set.lt.u64.s32 %c, %a, %b",
    "set.lt.s32 %a, %a, %b, %p", "selp.b32 %a, %a, %b, %b", "selp.b32 %a, %a, %b",
    "selp.f16x2 %a, %a, %b, %p", "mov.f16x2 %a, %b",
    "slct.b32.u32 %a, %a, %b, %b", "mov.b32 %a", "mov.b32 %c, %p", "mov.u32 {%a, %b, %a}, %b",
    "mov.b16 {%a, %b}, %c|%a", "mov.u16 %a, table", "mov %a, %b", "mov.b64 %c, {%p, %a}",
    "setp.lt.s32 %p, 0f3F800000, 0d3FF0000000000000", "mov.b32 %zz, %a", "mov.b32 %a, %zz",
])
def test_malformed(text):
    registers = {"%a": "b32", "%b": "b32", "%c": "b64", "%p": "pred"}
    with pytest.raises((PtxError, UnsupportedError), match=r"test\.cu:1|PTX line"):
        run_line(text, registers, {name: [1] for name in registers}, {"table": 0})


def test_vector_in_the_wrong_place():
    ins = Instruction("selp", ("b32",), (Reg("%a"), Vec((Imm(1),)), Imm(2), Reg("%p")), None, False,
                      Location("test.cu", 1))
    with pytest.raises((PtxError, UnsupportedError), match="selp"):
        run_line([ins], {"%a": "b32", "%p": "pred"}, {"%p": [True]})
