"""Programs that are no good: an error that says what is wrong, or a finding, and nothing else."""

from __future__ import annotations

import re
import time
from typing import Any

import numpy as np
import pytest
from sim.hostile import ADD, kernel, ptx, run

from mlgpu import sim


def refused(body: str, words: str, error: type[sim.SimError] = sim.PtxError, **parts: str) -> None:
    """The kernel is refused before it runs, with these words and the instruction's line."""
    with pytest.raises(error) as caught:
        kernel(body, **parts)
    assert re.search(words, str(caught.value)), caught.value
    assert re.search(r"\S+:\d+\)|PTX line \d+", str(caught.value)), caught.value


# -- modules --------------------------------------------------------------------------------------

@pytest.mark.parametrize(("target", "arch", "fits"), [
    ("sm_90", "sm_80", False), ("sm_90", "sm_89", False), ("sm_120", "sm_100", False),
    ("sm_80", "sm_90", True), ("sm_75", "sm_120", True), ("sm_90", "sm_90", True),
    ("sm_90a", "sm_90", True), ("sm_90a", "sm_90a", True), ("sm_90", "sm_90a", True),
    ("sm_90a", "sm_100", False), ("sm_100a", "sm_120", False), ("sm_90a", "sm_80", False),
    ("sm_100f", "sm_100", True), ("sm_100f", "sm_120", False), ("sm_103", "sm_100", False),
    ("sm_52", "sm_75", True),
])
def test_targets(target: str, arch: str, fits: bool) -> None:
    m = sim.Machine(arch=arch)
    text = ptx("ret;", target=target)
    if fits:
        assert m.module(text).kernels == ["k"]
        return
    with pytest.raises(sim.LaunchError, match=f"for {target}, which .* sm_"):
        m.module(text)


def test_addresses_of_32_bits() -> None:
    with pytest.raises(sim.LaunchError, match="32 bits"):
        sim.Machine().module(ptx("ret;").replace(".address_size 64", ".address_size 32"))


@pytest.mark.parametrize(("source", "words"), [
    (None, "NoneType"), (b".version 8.0", "bytes"), (3, "int"), (["a"], "list"),
    ("a\0b", "zero character")])
def test_sources_that_are_no_text(source: Any, words: str) -> None:
    with pytest.raises(sim.SimError, match=f"module: the source is .*{words}"):
        sim.Machine().module(source)


@pytest.mark.parametrize("given", [
    {"options": "-DA"}, {"options": [3]}, {"options": 5}, {"names": "k<int>"}, {"filename": 7},
    {"options": ["-D\0"]}])
def test_options_that_are_no_texts(given: dict[str, Any]) -> None:
    with pytest.raises(sim.SimError, match=f"module: .*{next(iter(given))}"):
        sim.Machine().module("", **given)


def test_ptx_takes_no_options() -> None:
    with pytest.raises(sim.SimError, match="options and names are for CUDA sources"):
        sim.Machine().module(ADD, options=("-DA",))


def test_truncated_everywhere() -> None:
    m = sim.Machine()
    for end in range(0, len(ADD) - 3, 7):
        text = ADD[:end]
        if ".version " not in text:
            continue
        with pytest.raises(sim.SimError):
            m.module(text).kernel("k")


@pytest.mark.parametrize(("outer", "words"), [
    (".const .b8 c[65537];", "65,537 bytes; at most 65,536"),
    (".global .b8 g[999999999];", "999,999,999 bytes; at most 268,435,456"),
    (".global .b8 g[99999999999999];", "at most"),
    (".global .u64 p = nosuch;", "nosuch"),
])
def test_variables_too_large(outer: str, words: str) -> None:
    m = sim.Machine()
    with pytest.raises(sim.PtxError, match=words):
        m.module(ptx("ret;", outer=outer))
    assert m.space.used == 0


def test_parameters_too_large() -> None:
    with pytest.raises(sim.PtxError, match="99,999 bytes of parameters; at most"):
        sim.Machine().module(ptx("ret;", ".param .b8 s[99999]"))


@pytest.mark.parametrize("name", ["nosuch", "", None, 3, ["k"], "K"])
def test_unknown_names(name: Any) -> None:
    mod = sim.Machine().module(ptx("ret;", outer=".global .u32 g;"))
    with pytest.raises(sim.LaunchError, match=r"kernel .*: this module has k"):
        mod.kernel(name)
    with pytest.raises(sim.LaunchError, match=r"symbol .*: this module has g"):
        mod.symbol(name)


def test_a_kernel_that_is_only_declared() -> None:
    mod = sim.Machine().module(ptx("ret;", outer=".visible .entry later(.param .u64 a);"))
    assert mod.kernels == ["k"]
    with pytest.raises(sim.LaunchError, match="this module has k"):
        mod.kernel("later")


# -- instructions ---------------------------------------------------------------------------------

def test_the_error_names_instruction_and_line() -> None:
    with pytest.raises(sim.UnsupportedError) as caught:
        kernel("ret;\n.loc 1 7 3\nL: frobnicate.u32 %r1, %r2;\nbra L;".replace("ret;", ""))
    assert str(caught.value).startswith("frobnicate.u32 %r1, %r2 (k.cu:7): ")


TENSOR = "cp.async.bulk.tensor.1d.shared::cluster.global.mbarrier::complete_tx::bytes"


@pytest.mark.parametrize(("body", "words"), [
    ("wgmma.fence.sync.aligned;", "use mma.sync or wmma"),
    ("tcgen05.wait::ld.sync.aligned;", "use mma.sync"),
    ("barrier.cluster.arrive;", "clusters of blocks are not simulated"),
    ("barrier.cluster.wait;", "clusters of blocks are not simulated"),
    ("mapa.shared::cluster.u32 %r1, %r2, %r3;", "clusters of blocks are not simulated"),
    (f"{TENSOR} [%r1], [%rd1, {{%r2}}], [%r3];", "tensor maps"),
    ("tex.1d.v4.f32.s32 {%f1,%f2,%f3,%f4}, [%rd1, {%r1}];", "use global memory"),
    ("multimem.red.relaxed.sys.global.add.u32 [%rd1], %r1;", "several GPUs"),
    ("alloca.u64 %rd1, 16;", "use an array"),
    ("mov.u32 %r1, %pm0;", "%pm0 is not simulated"),
    ("mov.u32 %r1, %reserved_smem_offset_begin;", "is not simulated"),
    ("param_move.b32 %r1, %r2;", "not known"), ("bad_call %rd1;", "not known"),
    ("vprintf %rd1;", "not known"), ("addd.u32 %r1, %r2, %r3;", "not known"),
    ("ld.b128 %rd1, [%rd1];", "128 bits"), ("atom.global.exch.b128 %rd1, [%rd1], %rd2;", "128"),
])
def test_what_is_not_simulated(body: str, words: str) -> None:
    refused(body, words, sim.UnsupportedError)


@pytest.mark.parametrize(("body", "words"), [
    # widths and classes of registers
    ("add.u32 %rd1, %r2, %r3;", "%rd1 is a register of .b64; 32 bits"),
    ("add.u32 %r1, %rd2, %r3;", "%rd2 is a register of .b64; 32 bits"),
    ("add.u64 %rd1, %r2, %rd3;", "%r2 is a register of .b32; 64 bits"),
    ("add.u32 %r1, %f2, %r3;", "%f2 is a register of .f32, the operand is .u32"),
    ("add.f32 %u1, %f2, %f3;", "%u1 is a register of .u32, the operand is .f32"),
    ("mul.wide.u32 %r1, %r2, %r3;", "64 bits are needed"),
    ("ld.global.u32 %f1, [%rd1];", "%f1 is a register of .f32"),
    ("ld.global.f32 %fd1, [%rd1];", "32 bits are needed"),
    ("cvt.rn.f32.u32 %f1, %f2;", "the operand is .u32"),
    ("setp.eq.u32 %r1, %r2, %r3;", "cannot|pred"), ("add.u32 %p1, %r1, %r2;", "pred"),
    ("and.pred %p1, %p2, %r1;", "predicate"), ("selp.u32 %r1, %r2, %r3, %r4;", "predicate"),
    ("mov.u32 %r1, %p1;", "predicate"), ("@%r1 mov.u32 %r1, 0;", "predicate"),
    ("shl.b32 %r1, %r2, 1.5;", "floating-point constant"),
    ("mov.f32 %f1, 1;", "the integer 1"), ("add.u32 %r1, %r2, 0f3F800000;", "floating-point"),
    ("mov.u32 %r1, %clock64;", "%clock64 as .u32"), ("add.f32 %f1, %f2, %tid.x;", "%tid.x as"),
    # operands
    ("add.u32 %r1, %r2;", "2 operands"), ("add.u32 %r1, %r2, %r3, %r4;", "4 operands"),
    ("add.u32 3, %r2, %r3;", "cannot be a destination"), ("bar.sync;", "0 operands"),
    ("ld.global.u32 %r1;", "1 operand"), ("ld.global.u32 %r1, %rd1;", "brackets"),
    ("ld.global.v4.u32 {%r1, %r2}, [%rd1];", "2 registers where 4"),
    ("ld.global.u32 {%r1, %r2}, [%rd1];", "2 registers where 1"),
    ("ld.global.v2.u32 {%r1, %r2, %r3}, [%rd1];", "3 registers where 2"),
    ("st.global.u32 %r1, [%rd1];", "brackets"), ("mov.u32 %r1, {%rs1, %rs2};", "untyped words"),
    ("mov.b64 {%r1, %rd2}, %rd1;", "32 bits are needed"),
    ("shfl.sync.bfly.b32 %r1, %r2, 1, 31;", "4 operands; shfl.sync has 5"),
    ("shfl.sync.bfly.b32 %r1, %r2, 1, 31, %rd1;", "32 bits are needed"),
    ("shfl.sync.bfly.b32 %r1, %r2, 1, 31, %clock;", "mask of lanes"),
    ("bar.sync %rd1;", "32 bits"), ("bar.arrive 0;", "1 operands"),
    ("ret 5;", "operands"), ("exit %r1;", "operands"), ("trap.uni.foo;", "modifiers"),
    ("ld.global.u32 %r1, [%f1];", "as an address"), ("ld.global.u32 %r1, [%p1];", "predicate"),
    # modifiers
    ("add.foo.u32 %r1, %r2, %r3;", "has no .foo"), ("add %r1, %r2, %r3;", "without a type"),
    ("add.rn.rz.f32 %f1, %f2, %f3;", "two rounding modes"),
    ("ld.global.shared.u32 %r1, [%rd1];", "two address spaces"),
    ("ld.u32.f32 %r1, [%rd1];", "one type"), ("ld.global.gpu.u32 %r1, [%rd1];", ".gpu without"),
    ("bar.sync.arrive 0;", "sync and arrive"), ("shfl.sync.b32 %r1, %r2, 1, 31, -1;", "direction"),
    ("vote.sync.pred %p1, %p2, -1;", "no mode"), ("fence.sc;", "scope"),
    ("st.const.u32 [%rd1], %r1;", "cannot write"), ("st.global.nc.u32 [%rd1], %r1;", "no .nc"),
    ("atom.global.and.f32 %f1, [%rd1], %f2;", "and has no .f32"),
    ("atom.global.add.b32 %r1, [%rd1], %r2;", "add has no .b32"),
    ("red.global.exch.b32 [%rd1], %r2;", "no .b32"),
    ("atom.local.add.u32 %r1, [%rd1], %r2;", "no .local"),
    ("atom.global.u32 %r1, [%rd1], %r2;", "operation"),
    ("redux.sync.add.b32 %r1, %r2, -1;", "no such form"),
    ("cp.async.cg.shared.global [%r1], [%rd1], 8;", "must be 16"),
    ("cp.async.ca.shared.global [%r1], [%rd1], %r2;", "must be 4 or 8 or 16"),
    ("cp.async.ca.global.shared [%rd1], [%r1], 4;", "from global to shared"),
    ("cp.async.wait_group %r1;", "constant"), ("cp.async.wait_group -1;", "constant"),
    ("mbarrier.init.shared.b64 [%r1];", "1 operands"),
    ("mbarrier.frob.shared.b64 [%r1];", "no .frob|no operation"),
    ("ldmatrix.sync.aligned.m8n8.x2.shared.b16 {%r1}, [%r2];", "2 registers in braces"),
    ("ldmatrix.sync.aligned.m8n8.x1.global.b16 {%r1}, [%rd2];", "has no .global"),
    ("wmma.load.a.sync.aligned.row.m16n16k16.global.f16 {%r1}, [%rd1], %r2;", "registers"),
    ("wmma.load.a.sync.aligned.m16n16k16.global.f16 {%r1}, [%rd1], %r2;", "layout"),
    ("cvta.shared.u64 %rd1, g;", "variable in .global"),
    ("ld.shared.u32 %r1, [g];", "g is a variable in .global"),
    ("ld.global.u32 %r1, [tile];", "tile is a variable in .shared"),
    ("ld.param.u32 %r1, [out+8];", "outside the kernel's 8 bytes"),
    ("ld.param.u32 %r1, [out+-4];", "outside"),
    ("ld.param.v2.u64 {%rd1, %rd2}, [out];", "outside"),
])
def test_what_ptx_does_not_allow(body: str, words: str) -> None:
    refused(body, words, sim.SimError, outer=".global .align 8 .u32 g[4];")


@pytest.mark.parametrize(("body", "least"), [
    ("cp.async.ca.shared.global [%r1], [%rd1], 4;", 80), ("redux.sync.add.u32 %r1, %r2, -1;", 80),
    ("mbarrier.init.shared.b64 [%r1], 1;", 80), ("elect.sync _|%p1, -1;", 90),
    ("cp.async.bulk.commit_group;", 90), ("fence.acq_rel.cluster;", 90),
    ("atom.global.add.noftz.bf16x2 %r1, [%rd1], %r2;", 90),
    ("cvt.rn.f16x2.e4m3x2 %r1, %rs1;", 89), ("fma.rn.bf16x2 %r1, %r2, %r3, %r4;", 80),
    ("ld.global.v8.b32 {%r1,%r2,%r3,%r4,%r5,%r6,%r7,%r8}, [%rd1];", 100),
])
def test_instructions_that_the_target_lacks(body: str, least: int) -> None:
    m = sim.Machine(arch="sm_120")
    kernel(body, m, target=f"sm_{least}")
    below = {80: 75, 89: 86, 90: 89, 100: 90}[least]
    refused(body, f"needs a target of sm_{least} or newer; the PTX is for sm_{below}",
            target=f"sm_{below}")


# -- guards ---------------------------------------------------------------------------------------

GUARDED = {
    "%r2": """add.u32 %r2, %r1, 7; sub.s32 %r2, %r1, %r3; mul.lo.u32 %r2, %r1, %r1;
        mad.lo.u32 %r2, %r1, 3, %r2; popc.b32 %r2, %r1; lop3.b32 %r2, %r1, %r3, %r2, 150;
        shf.l.wrap.b32 %r2, %r1, %r3, 5; prmt.b32 %r2, %r1, %r3, 0x4120; bfe.u32 %r2, %r1, 1, 3;
        selp.u32 %r2, %r1, %r3, %p2; cvt.rzi.u32.f32 %r2, %f1; mov.b32 %r2, {%rs1, %rs2};
        mov.u32 %r2, %laneid; ld.shared.u32 %r2, [%r4]; ld.global.u32 %r2, [%rd1];
        atom.shared.add.u32 %r2, [%r4], 1; atom.global.exch.b32 %r2, [%rd1], 5;
        mad.lo.cc.u32 %r2, %r1, %r3, %r1; dp4a.u32.u32 %r2, %r1, %r3, %r2; activemask.b32 %r2;
        ld.local.u32 %r2, [%rd3]; vadd.u32.u32.u32 %r2, %r1, %r3; min.s32 %r2, %r1, %r3;
        cvt.rn.f16x2.f32 %r2, %f1, %f2; fma.rn.f16x2 %r2, %r1, %r3, %r1;""",
    "%f2": """add.f32 %f2, %f1, %f1; fma.rn.f32 %f2, %f1, %f1, %f2; rcp.rn.f32 %f2, %f1;
        ex2.approx.f32 %f2, %f1; cvt.rn.f32.u32 %f2, %r1; neg.f32 %f2, %f1; sqrt.rz.f32 %f2, %f1;
        max.f32 %f2, %f1, %f2; mov.f32 %f2, 0f3F800000;""",
    "%rd2": """add.u64 %rd2, %rd1, 8; mul.wide.u32 %rd2, %r1, %r3; shl.b64 %rd2, %rd1, 3;
        mov.b64 %rd2, {%r1, %r3}; cvt.s64.s32 %rd2, %r1; cvta.to.global.u64 %rd2, %rd1;
        mov.u64 %rd2, tile;""",
    "%fd2": "add.f64 %fd2, %fd1, %fd1; fma.rn.f64 %fd2, %fd1, %fd1, %fd2; cvt.f64.f32 %fd2, %f1;",
    "%p2": """setp.lt.u32 %p2, %r1, 9; xor.pred %p2, %p2, %p3; setp.gt.f32 %p2, %f1, %f2;
        not.pred %p2, %p2; isspacep.global %p2, %rd1; testp.infinite.f32 %p2, %f1;""",
}
SETUP = """ld.param.u64 %rd4, [out]; mov.u32 %r1, %tid.x; mul.wide.u32 %rd5, %r1, 8;
    add.u64 %rd1, %rd4, %rd5; shl.b32 %r4, %r1, 2; and.b32 %r4, %r4, 63; mov.u32 %r2, 1000;
    mov.u32 %r3, 0x12345678; cvt.rn.f32.u32 %f1, %r1; add.f32 %f1, %f1, 0f3FC00000;
    mov.f32 %f2, 0f41200000; mov.u64 %rd2, 77; cvt.f64.f32 %fd1, %f1;
    mov.f64 %fd2, 0d4000000000000000;
    setp.eq.u32 %p2, %r1, 3; setp.ne.u32 %p3, %r1, 5; mov.u16 %rs1, 3; mov.u16 %rs2, 4;
    mov.u64 %rd3, mine; st.local.u32 [%rd3], %r1;
    setp.lt.u32 %p4, %r1, 16; @%p4 st.shared.u32 [%r4], %r1; bar.sync 0;
    and.b32 %r5, %r1, 1; setp.ne.u32 %p1, %r5, 0; st.global.u64 [%rd1], %rd3;"""
RESULT = {"%r2": "cvt.u64.u32 %rd6, %r2;", "%f2": "mov.b32 %r6, %f2; cvt.u64.u32 %rd6, %r6;",
          "%rd2": "mov.u64 %rd6, %rd2;", "%fd2": "mov.b64 %rd6, %fd2;",
          "%p2": "selp.u64 %rd6, 1, 0, %p2;"}


@pytest.mark.parametrize(("register", "instruction"), [
    pytest.param(r, i.strip(), id=i.strip()) for r, many in GUARDED.items()
    for i in many.split(";") if i.strip()])
def test_guards(register: str, instruction: str) -> None:
    def values(line: str) -> np.ndarray[Any, Any]:
        m = sim.Machine(arch="sm_90", checks=("memcheck",))
        out = m.zeros(32, np.uint64)
        kernel(f"{SETUP}\n{line}\n{RESULT[register]} st.global.u64 [%rd1], %rd6;",
               m).launch(1, 32, (out,))
        return out.numpy()

    always, never = values(f"{instruction};"), values("")
    odd, even = values(f"@%p1 {instruction};"), values(f"@!%p1 {instruction};")
    lanes = np.arange(32) % 2 == 1
    np.testing.assert_array_equal(odd[~lanes], never[~lanes])
    np.testing.assert_array_equal(even[lanes], never[lanes])
    if not instruction.startswith(("atom.shared", "activemask")):  # these see the other lanes
        np.testing.assert_array_equal(odd[lanes], always[lanes])
        np.testing.assert_array_equal(even[~lanes], always[~lanes])
        assert (always != never).any()


def test_guarded_stores() -> None:
    out = run("and.b32 %r2, %r1, 1; setp.eq.u32 %p1, %r2, 1; @%p1 st.global.u32 [%rd1], 7;\n"
              "@!%p1 red.global.add.u32 [%rd1], 9; @%p1 exit; @!%p1 st.global.u32 [%rd1], 5;")
    np.testing.assert_array_equal(out, np.where(np.arange(32) % 2, 7, 5))


def test_a_guard_on_everything_off() -> None:
    """Under a predicate that holds nowhere, nothing faults, waits or ends."""
    lines = """ld.global.u32 %r2, [%rd3]; st.global.u32 [%rd3], %r2; ld.shared.u32 %r2, [%r3];
        atom.global.add.u32 %r2, [%rd3], 1; red.shared.add.u32 [%r3], 1; trap; exit; ret;
        bar.sync 0; bar.sync 77; bar.arrive 1, 32; bar.red.popc.u32 %r2, 0, %p2; bar.warp.sync 0;
        shfl.sync.idx.b32 %r2, %r1, 0, 31, 1; vote.sync.ballot.b32 %r2, %p2, 1;
        match.any.sync.b32 %r2, %r1, 1; redux.sync.add.u32 %r2, %r1, 1; elect.sync %r2|%p2, 1;
        membar.gl; fence.proxy.async; nanosleep.u32 99; cp.async.ca.shared.global [%r3], [%rd3], 4;
        cp.async.commit_group; cp.async.wait_all; cp.async.bulk.commit_group;
        cp.async.bulk.wait_group 0; mbarrier.init.shared.b64 [%r3], 0;
        mbarrier.arrive.shared.b64 %rd4, [%r3]; mbarrier.try_wait.parity.shared.b64 %p2, [%r3], 0;
        cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%r3], [%rd3], %r1, [%r3];
        cp.async.bulk.global.shared::cta.bulk_group [%rd3], [%r3], %r1; prefetch.global.L2 [%rd3];
        ldmatrix.sync.aligned.m8n8.x1.shared.b16 {%r2}, [%r3];
        stmatrix.sync.aligned.m8n8.x1.shared.b16 [%r3], {%r2}; movmatrix.sync.aligned.m8n8.trans.b16
        %r2, %r1; bra HERE"""
    body = "\n".join(f"@%p1 {line.strip()};" for line in lines.split(";"))
    out = run(f"setp.gt.u32 %p1, %r1, 99; mov.u64 %rd3, 1; mov.u32 %r3, 999999; mov.u32 %r2, 5;\n"
              f"{body}\nst.global.u32 [%rd1], %r2;\nHERE: ret;")
    np.testing.assert_array_equal(out, 5)


def test_a_guarded_indexed_branch() -> None:
    out = run("and.b32 %r2, %r1, 3; setp.lt.u32 %p1, %r1, 16; ways: .branchtargets A, B, C, D;\n"
              "mov.u32 %r3, 9; @%p1 brx.idx %r2, ways; bra.uni END;\n"
              "A: mov.u32 %r3, 1; bra END; B: mov.u32 %r3, 2; bra END;\n"
              "C: mov.u32 %r3, 3; bra END;\n"
              "D: mov.u32 %r3, 4; END: st.global.u32 [%rd1], %r3;")
    lanes = np.arange(32)
    np.testing.assert_array_equal(out, np.where(lanes < 16, lanes % 4 + 1, 9))


# -- kernels of odd shapes ------------------------------------------------------------------------

@pytest.mark.parametrize("body", [
    "", "ret;", "exit;", "L: ret;", "{ { } }", "ret; add.u32 %r1, 1, 2;", "bra END; END:",
    "@%p1 bra END; END:", "bar.sync 0;", "mov.u32 %r1, 0;"])
def test_empty_kernels(body: str) -> None:
    for params in ("", ".param .u64 out"):
        m = sim.Machine()
        args = (0,) if params else ()
        assert kernel(body, m, params=params).launch((3, 2), (33, 2), args).findings == []


def test_falling_off_the_end_of_a_barrier() -> None:
    k = kernel("bar.sync 0; @%p1 bar.sync 1; barrier.sync 2;", params="")
    assert k.launch(2, 64).findings == []


# -- calls ----------------------------------------------------------------------------------------

def chain(depth: int, calls: int = 1) -> str:
    """Functions that call the next one, the last of which adds one, as many times as told."""
    functions = []
    for i in reversed(range(depth)):
        call = (f"{{ .param .b32 a; .param .b32 b; st.param.b32 [a], %x; call (b), f{i + 1}, (a); "
                "ld.param.b32 %x, [b]; }") * calls
        functions.append(f".func (.param .b32 r) f{i}(.param .b32 n) {{ .reg .b32 %x; "
                         f"ld.param.b32 %x, [n]; {call if i < depth - 1 else ''} "
                         "add.u32 %x, %x, 1; st.param.b32 [r], %x; ret; }")
    return " ".join(functions)


CALL = ("{ .param .b32 a; .param .b32 b; st.param.b32 [a], %r1; call (b), f0, (a); "
        "ld.param.b32 %r2, [b]; } st.global.u32 [%rd1], %r2;")
OUT = ("ld.param.u64 %rd1, [out]; mov.u32 %r1, %tid.x; mul.wide.u32 %rd2, %r1, 4; "
       "add.u64 %rd1, %rd1, %rd2;")


def test_deep_chains_of_calls() -> None:
    m = sim.Machine()
    out = m.zeros(32, np.uint32)
    kernel(OUT + CALL, m, outer=chain(90)).launch(1, 32, (out,))
    np.testing.assert_array_equal(out.numpy(), np.arange(32) + 90)


def test_calls_nested_too_deep() -> None:
    with pytest.raises(sim.UnsupportedError, match="calls are nested more than 100 deep"):
        kernel(OUT + CALL, outer=chain(400))


def test_calls_that_multiply() -> None:
    start = time.process_time()
    with pytest.raises(sim.UnsupportedError, match="more than 100,000 statements"):
        kernel(OUT + CALL, outer=chain(60, calls=2))
    assert time.process_time() - start < 20


@pytest.mark.parametrize(("functions", "words"), [
    (".func f0 { call f0; ret; }", "k > f0 > f0|calls itself"),
    (".func g; .func f0 { call g; ret; } .func g { call f0; ret; }", "f0 calls itself"),
])
def test_recursion(functions: str, words: str) -> None:
    with pytest.raises(sim.UnsupportedError, match=words) as caught:
        kernel("call f0;", params="", outer=functions)
    assert "loop" in str(caught.value)


@pytest.mark.parametrize(("body", "functions", "words"), [
    ("call f0;", ".extern .func f0;", "no body"),
    ("{ .param .b32 a; call f0, (a); }", ".func f0(.param .b64 n) { ret; }", "4 bytes for .*8"),
    ("call f0, (%r1);", ".func f0(.param .b64 n) { ret; }", "4 bytes for .*8"),
    ("call f0;", ".func f0(.param .b64 n) { ret; }", "expected 1 arguments"),
    ("call nosuch;", "", "declared function"),
    ("{ .param .b32 a; st.param.b32 [a+4], %r1; }", "", "outside the 4 bytes"),
    ("{ .param .b32 a; ld.param.b64 %rd1, [a]; }", "", "outside the 4 bytes"),
    ("{ .param .b32 a; st.param.rz.b32 [a], %r1; }", "", "do not fit"),
])
def test_calls_that_do_not_fit(body: str, functions: str, words: str) -> None:
    with pytest.raises(sim.SimError, match=words):
        kernel(body, params="", outer=functions)


def test_a_call_of_no_function() -> None:
    body = ("mov.u64 %rd1, 12345; p: .callprototype _ (); call %rd1, (), p;")
    with pytest.raises(sim.Finding, match="call of 0x3039, where no function"):
        kernel(body, params="").launch(1, 32)


# -- large kernels --------------------------------------------------------------------------------

def test_five_thousand_instructions() -> None:
    straight = "\n".join(f"mad.lo.u32 %r2, %r2, {n | 1}, %r1;" for n in range(5000))
    start = time.process_time()
    out = run(f"mov.u32 %r2, 1;\n{straight}\nst.global.u32 [%rd1], %r2;")
    assert time.process_time() - start < 10
    value, lanes = np.ones(32, np.uint32), np.arange(32, dtype=np.uint32)
    for n in range(5000):
        value = value * np.uint32(n | 1) + lanes
    np.testing.assert_array_equal(out, value)


def test_thousands_of_branches() -> None:
    body = "\n".join(f"setp.eq.u32 %p1, %r1, {n % 40}; @%p1 bra L{n}; add.u32 %r2, %r2, {n}; L{n}:"
                     for n in range(1500))
    start = time.process_time()
    out = run(f"mov.u32 %r2, 0;\n{body}\nst.global.u32 [%rd1], %r2;", watchdog=100_000)
    assert time.process_time() - start < 20
    total = sum(range(1500))
    expected = [total - sum(n for n in range(1500) if n % 40 == lane) for lane in range(32)]
    np.testing.assert_array_equal(out, expected)


# -- addresses ------------------------------------------------------------------------------------

@pytest.mark.parametrize(("address", "kind"), [
    ("0", "null pointer"), ("8", "null pointer"), ("0x123456789000", "out of bounds"),
    ("0xFFFFFFFFFFFFFFFC", "out of bounds"), ("0xFFFFFFFFFFFFFFFF", "out of bounds"),
    ("0x7F00000000000000", "out of bounds"), ("0x7F0FFFFFFFFFFFFC", "out of bounds"),
    ("0x7F10000000000100", "out of bounds"), ("0x7F1FFFFFFFFFFFFC", "out of bounds"),
    ("0x7F20000000000000", "out of bounds"), ("0x8000000000000000", "out of bounds"),
])
@pytest.mark.parametrize("access", [
    "ld.u32 %r2, [%rd3];", "st.u32 [%rd3], %r1;", "ld.v4.u32 {%r2,%r3,%r4,%r5}, [%rd3];",
    "atom.add.u32 %r2, [%rd3], 1;", "red.add.u32 [%rd3], 1;", "ld.global.u8 %r2, [%rd3];",
    "st.global.v2.u64 [%rd3], {%rd1, %rd1};", "ld.shared.u32 %r2, [%rd3];",
    "ld.local.u32 %r2, [%rd3];", "atom.shared.add.u32 %r2, [%rd3], 1;",
    "cp.async.ca.shared.global [tile], [%rd3], 4;"])
def test_addresses_into_nowhere(access: str, address: str, kind: str) -> None:
    if address.startswith("0x7F0000") and "tile" not in access:
        address = "0x7F00000000010000"  # the window's first bytes are the tile
    in_tile = access.startswith(("ld.shared", "ld.local", "atom.shared")) and address in ("0", "8")
    body = f"mov.u64 %rd3, {address};\n{access}"
    for lanes in ("", "setp.eq.u32 %p1, %r1, 5;\n@%p1 "):
        text = body.replace(f"\n{access}", f"\n{lanes}{access}")
        if in_tile:
            run(text, checks=("memcheck",))
            continue
        with pytest.raises(sim.Finding) as caught:
            run(text, checks=("memcheck",))
        assert caught.value.tool == "memcheck"
        assert caught.value.kind in (kind, "out of bounds", "misaligned")
        assert run(text, checks=()).shape == (32,)  # unchecked, it reads zeros or is lost
        assert run(text, checks=("memcheck",), findings="collect").shape == (32,)


def test_addresses_that_wrap_around() -> None:
    """An address is a number of 64 bits: the way past zero is as good as any other."""
    out = run("sub.u64 %rd3, 0, 8; add.u64 %rd3, %rd3, %rd1; st.global.u32 [%rd3+8], 7;\n"
              "mov.u64 %rd4, 0xFFFFFFFFFFFFFF00; add.u64 %rd4, %rd4, %rd1;\n"
              "ld.global.u32 %r2, [%rd4+256]; add.u32 %r2, %r2, 1; st.global.u32 [%rd1], %r2;")
    np.testing.assert_array_equal(out, 8)


def test_bulk_copies_into_nowhere() -> None:
    setup = ("setp.eq.u32 %p1, %r1, 0; @%p1 mbarrier.init.shared.b64 [tile], 1;\n"
             "fence.proxy.async; mov.u32 %r4, tile;\n")
    for source, size, barrier, words in (
            ("0xFFFFFFFFFFFFFFF0", 16, "%r4", "out of bounds"), ("0", 16, "%r4", "null pointer"),
            ("%rd1", 4294967280, "%r4", "out of bounds"), ("%rd1", 7, "%r4", "misaligned"),
            ("%rd1", 16, "%r5", "out of bounds"), ("%rd1", 0, "%r5", "")):
        body = (f"{setup}mov.u64 %rd3, {source}; mov.u32 %r5, 0xFFFFFFF8; mov.u32 %r3, {size};\n"
                "@%p1 cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes "
                f"[tile+16], [%rd3], %r3, [{barrier}];")
        if not words:
            run(body)
            continue
        with pytest.raises(sim.Finding, match=words):
            run(body)


# -- loops ----------------------------------------------------------------------------------------

@pytest.mark.parametrize("loop", [
    "L: bra L;", "L: add.u32 %r2, %r2, 1; bra.uni L;", "L: setp.lt.u32 %p1, %r1, 99; @%p1 bra L;",
    "L: ld.volatile.global.u32 %r2, [%rd1]; setp.eq.u32 %p1, %r2, 0; @%p1 bra L;",
    "L: atom.global.cas.b32 %r2, [%rd1], 1, 1; setp.eq.u32 %p1, %r2, 0; @%p1 bra L;",
    "L: bar.sync 0; bra L;", "L: nanosleep.u32 99; bra L;",
    "L: mov.u32 %r2, %clock; setp.ne.u32 %p1, %r2, 3; @%p1 bra L;"])
@pytest.mark.parametrize("findings", ["raise", "collect"])
def test_endless_loops(loop: str, findings: str) -> None:
    m = sim.Machine(watchdog=3000, findings=findings)  # type: ignore[arg-type]
    out = m.zeros(64, np.uint32)
    k = kernel(f"{OUT} mov.u32 %r2, 0;\n.loc 1 5 1\n{loop}", m)
    start = time.process_time()
    if findings == "raise":
        with pytest.raises(sim.Finding) as caught:
            k.launch(2, 32, (out,))
        found = caught.value
    else:
        found, = k.launch(2, 32, (out,)).findings
    assert time.process_time() - start < 10
    assert (found.tool, found.kind, found.line) == ("watchdog", "endless loop", 5)


# -- what a kernel prints -------------------------------------------------------------------------

VPRINTF = ".extern .func (.param .b32 r) vprintf(.param .b64 a, .param .b64 b);"


def printing(form: bytes, repeats: int = 1) -> sim.Report:
    numbers = ", ".join(map(str, [*form, 0]))
    m = sim.Machine(watchdog=100_000)
    return kernel(
        f"mov.u64 %rd1, mine; cvta.local.u64 %rd1, %rd1; st.local.u64 [mine], -1;\n"
        f"st.local.u64 [mine+8], 5; mov.u64 %rd2, form; cvta.global.u64 %rd2, %rd2;\n"
        "mov.u32 %r1, 0; L: { .param .b64 a; .param .b64 b; .param .b32 c;\n"
        "st.param.b64 [a], %rd2; st.param.b64 [b], %rd1; call (c), vprintf, (a, b); }\n"
        "add.u32 %r1, %r1, 1; "
        f"setp.lt.u32 %p1, %r1, {repeats}; @%p1 bra L;", m, params="",
        outer=f".global .b8 form[{len(form) + 1}] = {{{numbers}}}; {VPRINTF}").launch(1, 32)


@pytest.mark.parametrize(("form", "length"), [
    (b"%2000000000d", 4095), (b"%.2000000000f", 4095), (b"%99999999999999999999999d", 4095),
    (b"%*d", 4095), (b"%-5d|", 6), (b"%s", 20), (b"%", 1), (b"%y %n %", 7), (b"\xff\xfe", 2)])
def test_formats(form: bytes, length: int) -> None:
    first = len(printing(form).output) // 32
    assert first <= length + 5


def test_endless_output() -> None:
    output = printing(b"%4000d\n", 200).output
    assert len(output) < 1_100_000
    assert output.endswith("what is printed is left out]\n")


def test_a_format_that_nobody_wrote() -> None:
    m = sim.Machine()
    body = ("{ .param .b64 a; .param .b64 b; .param .b32 c; st.param.b64 [a], 99; "
            "st.param.b64 [b], 0; call (c), vprintf, (a, b); }")
    report = kernel(body, m, params="", outer=VPRINTF).launch(1, 2)
    assert report.output == "<0x63>" * 2
