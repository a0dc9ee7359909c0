"""Damaged PTX gives a module or PtxError, whatever was done to the text."""

from __future__ import annotations

import random
import re

import pytest
from ptx_sources import ASSEMBLY, INLINED, LANGUAGE
from ptx_text import HEADER

from mlgpu.cuda import toolkit
from mlgpu.errors import MissingExtraError
from mlgpu.sim import nvrtc
from mlgpu.sim.errors import PtxError
from mlgpu.sim.ptx.parser import parse
from mlgpu.sim.ptx.syntax import Module

WRITTEN = HEADER + """
.file 1 "k.cu"
.extern .func (.param .b32 r) vprintf(.param .b64 x, .param .b64 y);
.extern .func (.param .align 8 .b8 r[16]) f(.param .b32 x);
.global .align 4 .b8 bytes[8] = {1, 0x2, -3, (1<<4)|3};
.global .align 8 .u64 names[3] = {generic(bytes), 7, generic(bytes)+4};
.global .u64 functions[2] = {0, f};
.const .f32 t[2][2] = {{1.5, 0f3F800000}, {-1e3}};
.global .u8 packed[3] = {1, 0xFF(bytes), 0xFF00(bytes)};
.extern .shared .align 16 .b8 smem[];
.visible .entry k(.param .u64 .ptr .global .align 16 a, .param .align 8 .b8 s[24])
.maxntid 128, 1, 1
.minnctapersm 2
{
	.reg .pred %p<4>; .reg .b32 %r<9>; .reg .b64 %rd<5>; .reg .f32 %f<5>; .reg .v4 .f32 q;
	.shared .align 8 .b8 tile[64];
	.loc 1 10 3
	ld.param.u64 %rd1, [a]; // comment
	@!%p1 bra $L2;
	{ .reg .pred p; .reg .b32 t<2>; WAIT: setp.ne.and.u32 p|_, t1, %r1, !%p2; @p bra WAIT; }
	.loc 1 20 3, function_name $L__info_string0, inlined_at 1 10 3
	st.global.v2.u32 [%rd1+8], {%r1, 0x7fU};
	ld.global.nc.L1::no_allocate.v4.f32 q, [%rd1+-16];
	fma.rn.f32 %f1, q.x, 1.5, %f2;
	mov.b64 {%r1, _}, %rd2; mov.u64 %rd2, bytes+(1<<2); mov.u32 %r2, %tid.x;
	cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes
		[%r1], [%rd1, {%r2, 3}], [smem+8];
$L2:
	table: .branchtargets $L2, $L3;
	brx.idx %r3, table;
	{ .param .b32 p0; .param .align 8 .b8 r0[16];
	call.uni (r0), f, (p0);
	proto : .callprototype (.param .b32 _) _ (.param .b32 _);
	call (%r1), %rd2, (%r2), proto; }
	/* the
	end */ .pragma "nounroll";
$L3: bar.sync 0; ret;
}
.section .debug_str { $L__info_string0: .b8 95,90
.b8 0 }
"""
TOKEN = re.compile(r'"[^"\n]*"|[\w$%.:]+|\s+|.')
PIECES = [*"{}()[];,:@!|+-<>=.%_\"/* \n09aUxé\0", "//", "/*", "*/", "::", "0f", "%r1", "%p1",
          "ret;", ".reg", ".b32", ".align", ".global", ".loc", "bra", "call", "99999999999", "{ ",
          " }", "-1"]


def damaged(text: str, rng: random.Random) -> str:
    """The text with a character, token or line deleted, doubled, swapped or inserted, or cut."""
    kind = rng.choice("ccctttttllx")
    if kind == "x":
        return text[:rng.randrange(len(text))]
    parts = {"c": lambda: list(text), "t": lambda: TOKEN.findall(text),
             "l": lambda: text.splitlines(keepends=True)}[kind]()
    at = rng.randrange(len(parts))
    action = rng.choice(["delete", "double", "swap", "insert", "replace"])
    if action == "delete":
        del parts[at]
    elif action == "double":
        parts.insert(at, parts[at])
    elif action == "swap":
        other = rng.randrange(len(parts))
        parts[at], parts[other] = parts[other], parts[at]
    else:
        new = rng.choice(PIECES) if rng.random() < 0.5 else rng.choice(parts)
        parts[at:at + (action == "replace")] = [new]
    return "".join(parts)


def texts(seed: int) -> list[str]:
    """Texts to damage: written by hand for even seeds, compiled for odd ones."""
    if seed % 2 == 0:
        return [WRITTEN]
    try:
        toolkit.nvrtc()
    except MissingExtraError as missing:
        pytest.skip(str(missing))
    arch = ("sm_75", "sm_90", "sm_120")[seed // 2 % 3]
    whole = nvrtc.compile(LANGUAGE, arch).ptx
    declared = whole[:whole.index("\n.func  (.param .b32 func_retval0) _Z6squaref(\n")]
    return [nvrtc.compile(INLINED, arch).ptx, nvrtc.compile(ASSEMBLY, arch).ptx, declared]


def test_the_texts_are_whole():
    assert list(parse(WRITTEN).functions) == ["vprintf", "f", "k"]
    for seed in (1, 3, 5):
        for text in texts(seed):
            assert isinstance(parse(text), Module)


@pytest.mark.parametrize("seed", range(20))
def test_damaged_texts(seed):
    rng = random.Random(seed)
    originals = texts(seed)
    read = refused = 0
    for n in range(500):
        text = originals[n % len(originals)]
        for _ in range(rng.choice((1, 1, 1, 2, 4))):
            text = damaged(text, rng) or "\n"
        message = ""
        try:
            assert isinstance(parse(text), Module)
        except PtxError as error:
            message = str(error)
        if not message:
            read += 1
            continue
        refused += 1
        line = re.match(r"PTX line (\d+): \S", message)
        assert line, message
        assert 1 <= int(line[1]) <= text.count("\n") + 1
        assert len(message) < 300
    assert read >= 50, "the damage is too great to test anything"
    assert refused >= 200, "the damage is too small to test anything"
