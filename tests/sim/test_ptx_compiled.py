"""The PTX that NVRTC writes, for every target: all of it is read, and read as it stands."""

from __future__ import annotations

import re
import struct
import time

import pytest
from ptx_sources import ARCHS, ASSEMBLY, HALF, INLINED, LANGUAGE

from mlgpu.cuda import toolkit
from mlgpu.errors import MissingExtraError
from mlgpu.sim import nvrtc
from mlgpu.sim.ptx.parser import parse
from mlgpu.sim.ptx.syntax import (
    Function,
    Instruction,
    Label,
    Module,
    Pair,
    Reg,
    Variable,
    Vec,
)


@pytest.fixture(autouse=True)
def compiler():
    try:
        toolkit.nvrtc()
    except MissingExtraError as missing:
        pytest.skip(str(missing))


def compiled(source: str, arch: str, *options: str) -> tuple[str, Module]:
    ptx = nvrtc.compile(source, arch, options).ptx
    return ptx, parse(ptx)


def by_hand(ptx: str) -> tuple[list[str], list[str]]:
    """Opcodes and labels of a PTX text, found without the parser."""
    ptx = re.sub(r"//[^\n]*|/\*.*?\*/", "", ptx, flags=re.DOTALL)
    ptx = re.sub(r"\.section[^{]*\{[^}]*\}|\n\s*\.(?:loc|file)\s[^\n]*", "", ptx)
    ptx = re.sub(r"\.(?:entry|func)\b[^;{]*\{", "", ptx)
    labels = re.findall(r"([\w$]+)\s*:(?!:)(?!\s*\.(?:call|branch))", ptx)
    opcodes = []
    for piece in ptx.split(";"):
        piece = re.sub(r"^(?:\s|[{}]|[\w$]+\s*:(?!:))+", "", piece)
        found = re.match(r"(?:@!?[%\w]+\s+)?([a-z][\w.:]*)", piece)
        if found:
            opcodes.append(found[1])
    return opcodes, labels


def statements(module: Module) -> list[object]:
    return [s for f in module.functions.values() for s in f.body or ()]


@pytest.mark.parametrize("option", ["-lineinfo", "-G"])
@pytest.mark.parametrize("arch", ARCHS)
@pytest.mark.parametrize("source", [LANGUAGE, INLINED, HALF, ASSEMBLY],
                         ids=["language", "inlined", "half", "assembly"])
def test_every_instruction_and_label_is_read(source, arch, option):
    ptx, module = compiled(source, arch, option)
    assert module.target == arch
    assert (".section" in ptx) == (option == "-G" or "inlined_at" in ptx)
    opcodes, labels = by_hand(ptx)
    assert len(opcodes) > 5
    # Declared before they are defined, functions may stand in another order
    found = statements(module)
    assert sorted(".".join((s.opcode, *s.mods)) for s in found
                  if isinstance(s, Instruction)) == sorted(opcodes)
    assert sorted(s.name.split("@")[0] for s in found if isinstance(s, Label)) == sorted(labels)
    plain = re.sub(r"__launch_bounds__\([\d, ]+\)", "", source)
    names = re.findall(r"(?:__global__|__noinline__)\s+\w+\s+(\w+)\(", plain)
    assert names
    for name in names:
        assert [n for n in module.functions if n == name or f"{len(name)}{name}" in n], name
    for function in module.functions.values():
        used = set(re.findall(r"name='(%?[\w@.]+)'", repr([
            o for s in function.body or () if isinstance(s, Instruction)
            for o in s.operands if isinstance(o, (Reg, Vec, Pair))])))
        assert {n for n in used if "." not in n} - {"%clock64", "%laneid"} <= set(
            function.registers)


def kernel(arch: str, name: str, source: str = LANGUAGE) -> Function:
    return compiled(source, arch)[1].functions[name]


@pytest.mark.parametrize("arch", ARCHS)
def test_parameters_and_bounds(arch):
    tile = kernel(arch, "tile")
    assert [(p.type, p.align, p.count, p.size) for p in tile.params] == [
        ("u64", 8, 1, 8), ("b8", 8, 24, 24), ("u8", 1, 1, 1), ("u16", 2, 1, 2)]
    assert tile.entry
    assert tile.directives["maxntid"] == (256, 1, 1)
    assert tile.directives["minnctapersm"] == (2,)
    [buffer] = [v for v in tile.variables if v.space == "shared"]
    assert (buffer.space, buffer.size, buffer.align) == ("shared", 32 * 33 * 4, 4)
    [depot] = [v for v in kernel(arch, "local").variables if v.space == "local"]
    assert depot.size >= 80


@pytest.mark.parametrize("arch", ARCHS)
def test_initial_values_and_addresses(arch):
    variables = compiled(LANGUAGE, arch)[1].variables

    def named(name: str) -> Variable:
        return variables[name]

    assert struct.unpack("<6f", named("coef").init) == (1, 2, 3, 4, 5, 6)
    assert named("coef").space == "const"
    assert struct.unpack("<i", named("counter").init) == (7,)
    assert struct.unpack("<Q", named("big").init) == (0x123456789ABCDEF0,)
    assert named("table").init.ljust(64, b"\0") == struct.pack("<16f", 0.5, -0.0, 1e30, *[0] * 13)
    assert named("table").size == 64
    assert named("record").init == struct.pack("<i3fd", 1, 2, 3, 4, 5)
    assert named("middle").relocations == ((0, 8, "table", 12, True),)
    assert named("dynamic").count is None
    assert named("text").init.rstrip(b"\0") == b"hello"
    first, second, third = named("names").relocations
    assert third == (16, 8, "text", 1, True)
    assert [named(s).init.rstrip(b"\0") for _, _, s, _, _ in (first, second)] == [b"a", b"bc"]
    assert [r[:2] + (r[2][3:-1],) for r in named("functions").relocations] == [
        (0, 8, "square"), (8, 8, "cube")]


@pytest.mark.parametrize("arch", ["sm_75", "sm_90", "sm_120"])
def test_inlined_code_names_its_callers(arch):
    body = kernel(arch, "chain", INLINED).body
    assert body is not None
    line = {text: n for n, text in enumerate(INLINED.split("\n"), 1)}
    product = line["    return x * x + __shfl_down_sync(~0u, x, 1);"]
    first, second = line["    float y = inner(x);"], line["    return y + inner(y);"]
    once = line["    float z = outer(a[threadIdx.x]);"]
    again = line["    a[threadIdx.x] = outer(z);"]
    squares = [s.location for s in body if isinstance(s, Instruction) and s.opcode == "fma"]
    assert {s.file for s in squares} == {"kernel.cu"}
    assert {s.line for s in squares} == {product}
    assert [s.calls for s in squares] == [
        (f"kernel.cu:{inner}", f"kernel.cu:{outer}")
        for outer in (once, again) for inner in (first, second)]
    load = next(s for s in body if isinstance(s, Instruction) and s.mods[:1] == ("global",))
    assert (load.location.line, load.location.calls) == (once, ())


@pytest.mark.parametrize("arch", ["sm_75", "sm_90", "sm_120"])
def test_scopes_of_inline_assembly(arch):
    function = kernel(arch, "assembly", ASSEMBLY)
    assert function.body is not None
    labels = [s.name for s in function.body if isinstance(s, Label)]
    assert len(labels) == len(set(labels))
    assert sum(name.split("@")[0] == "WAIT" for name in labels) >= 2  # the loop is unrolled
    guards = {s.guard for s in function.body if isinstance(s, Instruction) and s.opcode == "bra"
              and s.operands[0].name.split("@")[0] in ("WAIT", "DONE")}
    waits = labels.count("WAIT") + sum(name.startswith("WAIT@") for name in labels)
    assert len(guards) == waits  # each scope has its own P1
    assert all(isinstance(g, Reg) and function.registers[g.name] == "pred" for g in guards)


def test_a_large_kernel_is_read_quickly():
    source = """extern "C" __global__ void k(float* a, const float* b, int n) {
    int t = threadIdx.x;
    float acc[8][8] = {};
    #pragma unroll 1
    for (int i = 0; i < n; i++) {
        #pragma unroll
        for (int k = 0; k < 36; k++)
            #pragma unroll
            for (int u = 0; u < 8; u++)
                #pragma unroll
                for (int v = 0; v < 8; v++)
                    acc[u][v] += a[(i * 8 + k) * 64 + u + t] * b[(i * 8 + k) * 64 + v + t * 7];
    }
    for (int u = 0; u < 8; u++) for (int v = 0; v < 8; v++) a[u * 99 + v * t] = acc[u][v];
}"""
    ptx, module = compiled(source, "sm_90")
    assert len(module.functions["k"].body or ()) > 3000

    def seconds() -> float:
        start = time.process_time()
        parse(ptx)
        return time.process_time() - start

    # About 25 ms alone; this machine may have other work to do
    assert min(seconds() for _ in range(5)) < 0.25
