"""Counters against figures derived by hand: the derivation stands above each.

Memory moves in sectors of 32 bytes.  Shared memory has 32 banks of 4 bytes; in one pass (wavefront)
every bank gives one word, to all who ask for it; lanes go all at once for accesses of up to 4
bytes, by halves of a warp for 8 bytes and by quarters for 16.  Every pattern runs three times:
as usual, with one block at a time, and without checks (measure.py); the counts must be the same.
"""

from __future__ import annotations

import numpy as np
import pytest
from sim.measure import HEAD, at, check, measure, ptx, run, shared_at

from mlgpu import sim
from mlgpu.cuda import toolkit
from mlgpu.errors import MissingExtraError


def floats(n: int) -> np.ndarray:
    """Numbers from 0."""
    return np.arange(n, dtype=np.float32)


# -- global loads ----------------------------------------------------------------------------------

def test_contiguous():
    """32 lanes of 4 bytes: 128 bytes, 4 sectors, all of them used.  2 blocks of 64 threads are 4
    warps: 4 requests, 16 sectors; 128 threads ask for 512 bytes."""
    check(measure(at(4) + "ld.global.f32 %f1, [%x];", 2, 64), global_load_requests=4,
          global_load_sectors=16, global_load_sectors_ideal=16, global_load_bytes=512,
          sectors_per_load=4, global_load_efficiency=100, global_load_instructions=4,
          unique_bytes_read=512)


def test_misaligned_by_4_bytes():
    """A warp's bytes are 4 to 131: sectors 0 to 4, one more than needed; 128 of 160 bytes."""
    check(measure(at(4, 4) + "ld.global.f32 %f1, [%x];"), global_load_sectors=5,
          global_load_sectors_ideal=4, global_load_efficiency=80)


def test_misaligned_by_16_bytes():
    """Bytes 16 to 143 of 4-byte elements: sectors 0 to 4 again."""
    check(measure(at(4, 16) + "ld.global.f32 %f1, [%x];"), global_load_sectors=5,
          global_load_efficiency=80)


def test_misaligned_by_a_sector():
    """Bytes 32 to 159 are whole sectors: no loss."""
    check(measure(at(4, 32) + "ld.global.f32 %f1, [%x];"), global_load_sectors=4,
          global_load_efficiency=100)


def test_rows_that_begin_anywhere():
    """Blocks read rows of 33 floats, 132 bytes: block b begins at byte 132 b = 4 b beyond a sector
    (b < 8).  Only block 0 begins at a sector, the other 7 touch 5: 4 + 7 * 5 = 39 sectors, of
    which 8 * 128 bytes are used: 1024 / 1248."""
    check(measure("mad.lo.u32 %r2, %r0, 33, %t;" + at(4, index="%r2") + "ld.global.f32 %f1, [%x];",
                  8, 32), global_load_sectors=39, global_load_sectors_ideal=32,
          global_load_efficiency=100 * 1024 / 1248)


@pytest.mark.parametrize(("stride", "sectors"), [(2, 8), (3, 12), (4, 16), (8, 32), (32, 32)])
def test_strided(stride, sectors):
    """Every stride-th float: the warp spans 31 * 4 * stride + 4 bytes.  Up to a stride of 8 floats
    (a sector) that is 4 * stride sectors, all touched; beyond, every lane has one of its own.  128
    bytes are used."""
    check(measure(at(4 * stride) + "ld.global.f32 %f1, [%x];"), global_load_sectors=sectors,
          global_load_sectors_ideal=4, global_load_efficiency=100 * 4 / sectors,
          sectors_per_load=sectors)


def test_float2():
    """8 bytes a lane: 256 bytes, 8 sectors, one request."""
    check(measure(at(8) + "ld.global.v2.f32 {%f1, %f2}, [%x];"), global_load_requests=1,
          global_load_sectors=8, global_load_sectors_ideal=8, global_load_bytes=256,
          global_load_efficiency=100)


def test_float4():
    """16 bytes a lane: 512 bytes, 16 sectors, one request."""
    check(measure(at(16) + "ld.global.v4.f32 {%f1, %f2, %f3, %f4}, [%x];"), global_load_requests=1,
          global_load_sectors=16, global_load_bytes=512, global_load_efficiency=100)


def test_float4_misaligned_by_16_bytes():
    """Bytes 16 to 527: sectors 0 to 16; 512 of 17 * 32 bytes."""
    check(measure(at(16, 16) + "ld.global.v4.f32 {%f1, %f2, %f3, %f4}, [%x];"),
          global_load_sectors=17, global_load_sectors_ideal=16,
          global_load_efficiency=100 * 512 / 544)


def test_float4_of_rows():
    """Lane i reads the first 16 bytes of its 32: every sector is half used."""
    check(measure(at(32) + "ld.global.v4.f32 {%f1, %f2, %f3, %f4}, [%x];"),
          global_load_sectors=32, global_load_sectors_ideal=16, global_load_efficiency=50)


def test_half():
    """2 bytes a lane: 64 bytes, 2 sectors."""
    check(measure(at(2) + "ld.global.u16 %h1, [%x];"), global_load_sectors=2,
          global_load_bytes=64, global_load_efficiency=100)


def test_half2():
    """Two halves a lane as one word: 128 bytes, 4 sectors."""
    check(measure(at(4) + "ld.global.b32 %r2, [%x];"), global_load_sectors=4,
          global_load_bytes=128, global_load_efficiency=100)


def test_char():
    """1 byte a lane: 32 bytes, 1 sector."""
    check(measure(at(1) + "ld.global.u8 %h1, [%x];"), global_load_sectors=1,
          global_load_bytes=32, global_load_efficiency=100)


def test_char_misaligned_by_1():
    """Bytes 1 to 32: 2 sectors where 1 would do, 32 of 64 bytes."""
    check(measure(at(1, 1) + "ld.global.u8 %h1, [%x];"), global_load_sectors=2,
          global_load_sectors_ideal=1, global_load_efficiency=50)


def test_double():
    """8 bytes a lane: 8 sectors."""
    check(measure(at(8) + "ld.global.f64 %d1, [%x];"), global_load_sectors=8,
          global_load_bytes=256, global_load_efficiency=100)


def test_broadcast():
    """All lanes read one float: 1 sector, of which 4 bytes are used; the lanes ask for 128."""
    check(measure("ld.global.f32 %f1, [%a];"), global_load_requests=1, global_load_sectors=1,
          global_load_sectors_ideal=1, global_load_bytes=4, global_load_thread_bytes=128,
          global_load_efficiency=12.5)


def test_pairs_share():
    """Lanes 2k and 2k + 1 read float k: 16 floats, 64 bytes, 2 whole sectors; 128 bytes asked."""
    check(measure("shr.u32 %r2, %i, 1;" + at(4, index="%r2") + "ld.global.f32 %f1, [%x];"),
          global_load_sectors=2, global_load_sectors_ideal=2, global_load_bytes=64,
          global_load_thread_bytes=128,
          global_load_efficiency=100)


def test_reversed_and_swapped_lanes():
    """The order of lanes within the same 128 bytes does not matter: 31 - i, and i ^ 5."""
    check(measure("sub.u32 %r2, 31, %i;" + at(4, index="%r2") + "ld.global.f32 %f1, [%x];"
                  "xor.b32 %r2, %i, 5;" + at(4, index="%r2") + "ld.global.f32 %f1, [%x];"),
          global_load_requests=2, global_load_sectors=8, global_load_efficiency=100)


SOME = "setp.lt.u32 %p1, %i, %n;" + at(4) + "@%p1 ld.global.f32 %f1, [%x];"  # i < n


def test_predicated_tail():
    """64 threads, n = 40: warp 0 reads 128 bytes (4 sectors), warp 1 has 8 lanes on: 32 bytes (1
    sector).  24 threads are switched off at the load, and nowhere else."""
    check(measure(SOME, 1, 64, n=40), global_load_instructions=2, global_load_requests=2,
          global_load_sectors=5, global_load_bytes=160, thread_instructions_off=24, branches=0)


def test_a_warp_that_is_switched_off():
    """n = 32 of 64 threads: warp 1 executes the load, but asks for nothing."""
    check(measure(SOME, 1, 64, n=32), global_load_instructions=2, global_load_requests=1,
          global_load_sectors=4, thread_instructions_off=32)


def test_branch_around_the_tail():
    """The same with a branch: warp 0 goes on, 24 lanes of warp 1 leave: one divergent branch of
    two, and the load is one of 40 threads."""
    check(measure("setp.ge.u32 %p1, %i, %n; @%p1 bra end;" + at(4) + "ld.global.f32 %f1, [%x];"
                  "end:", 1, 64, n=40),
          branches=2, divergent_branches=1, branch_efficiency=50, global_load_requests=2,
          global_load_sectors=5, global_load_bytes=160)


def test_partial_warp():
    """A block of 48: the second warp has 16 lanes, 64 bytes, 2 sectors."""
    check(measure(at(4) + "ld.global.f32 %f1, [%x];", 1, 48), warps=2, global_load_requests=2,
          global_load_sectors=6, global_load_efficiency=100)


def test_partial_warps_of_many_blocks():
    """Blocks of 40: warps of 32 and 8 lanes.  Block b begins at byte 160 b, a sector.  4 + 1
    sectors a block, 10 blocks."""
    check(measure(at(4) + "ld.global.f32 %f1, [%x];", 10, 40), warps=20, global_load_requests=20,
          global_load_sectors=50, global_load_efficiency=100)


def test_gather():
    """Indices 8 * (i % 4), loaded first (4 sectors, used fully): the gather touches 4 different
    floats in 4 sectors, 16 bytes that fit 1.  Both loads: 8 sectors, 144 of 256 bytes."""
    index = (np.arange(32) % 4 * 8).astype(np.uint32)
    check(measure(at(4, base="%b", to="%y") + "ld.global.u32 %r2, [%y];" + at(4, index="%r2")
                  + "ld.global.f32 %f1, [%x];", b=index),
          global_load_requests=2, global_load_sectors=8, global_load_sectors_ideal=5,
          global_load_bytes=144, global_load_thread_bytes=256,
          global_load_efficiency=100 * 144 / 256)


def test_gather_that_differs_among_warps():
    """Warp w of 16 gathers elements i * (w + 1) of 4 bytes: a stride of w + 1 floats, so
    min(4 (w + 1), 32) sectors: 4, 8, ..., 28, then 9 times 32: 112 + 288 = 400."""
    i = np.arange(512)
    index = (i % 32 * (i // 32 + 1)).astype(np.uint32)
    counted = measure(at(4, base="%b", to="%y") + "ld.global.u32 %r2, [%y];"
                      + at(4, index="%r2") + "ld.global.f32 %f1, [%x];", 2, 256, b=index)
    check(counted, global_load_requests=32, global_load_sectors=64 + 400,
          global_load_efficiency=100 * 2 * 16 * 128 / (32 * 464))


def test_two_buffers_in_one_warp():
    """Lanes below 16 read 64 bytes of a, the others 64 bytes of b: one request, 2 + 2 sectors."""
    check(measure("setp.lt.u32 %p1, %t, 16; selp.b64 %q2, %a, %b, %p1;" + at(4, base="%q2")
                  + "ld.global.f32 %f1, [%x];"),
          global_load_requests=1, global_load_sectors=4, global_load_efficiency=100,
          unique_bytes_read=128)


def test_constants_are_no_global_loads():
    """ld.const goes through another cache: no request, no sector."""
    check(measure("mov.u64 %q2, table; ld.const.f32 %f1, [%q2];",
                  extra=".const .align 4 .f32 table = 0f3F800000;"),
          global_load_requests=0, global_load_sectors=0, unique_bytes_read=0,
          memory_instructions=32)


# -- global stores ---------------------------------------------------------------------------------

def test_strided_store():
    """Every second float: 8 sectors, half of them written."""
    check(measure(at(8) + "st.global.f32 [%x], 0f00000000;"), global_store_requests=1,
          global_store_sectors=8, global_store_sectors_ideal=4, global_store_efficiency=50,
          global_store_bytes=128, unique_bytes_written=128, global_load_sectors=0)


def test_misaligned_store():
    """Bytes 4 to 131: 5 sectors."""
    check(measure(at(4, 4) + "st.global.f32 [%x], 0f00000000;"), global_store_sectors=5,
          global_store_efficiency=80)


def test_float4_store():
    """16 sectors, 512 bytes."""
    check(measure(at(16) + "mov.f32 %f1, 0f00000000; st.global.v4.f32 [%x], {%f1, %f1, %f1, %f1};"),
          global_store_sectors=16, global_store_efficiency=100, global_store_bytes=512)


def test_store_of_one_lane():
    """@p st by thread 0 of a block of 128: warps 1 to 3 ask for nothing; 1 sector, 4 of 32 bytes
    written."""
    check(measure("setp.eq.u32 %p1, %t, 0; @%p1 st.global.f32 [%a], 0f00000000;", 1, 128),
          global_store_instructions=4, global_store_requests=1, global_store_sectors=1,
          global_store_efficiency=12.5, thread_instructions_off=127)


def test_generic_addresses():
    """An address without a space: even lanes store to shared memory, odd ones to a.  One request
    in each space; lanes 1, 3, ..., 31 write every second float of 128 bytes, 4 sectors half used;
    the shared words lie in 16 banks: one pass."""
    check(measure("cvt.u64.u32 %q3, %s; cvta.shared.u64 %q3, %q3; and.b32 %r2, %t, 1;"
                  "setp.eq.u32 %p1, %r2, 0; selp.b64 %q4, %q3, %q0, %p1;" + at(4, base="%q4")
                  + "st.f32 [%x], 0f00000000;", shared=128),
          global_store_instructions=1, shared_store_instructions=1, global_store_requests=1,
          global_store_sectors=4, global_store_efficiency=50, shared_store_wavefronts=1)


# -- shared memory ---------------------------------------------------------------------------------

# Stores, since shared memory that nobody has written must not be loaded.
STORE = {4: "st.shared.f32 [%r2], 0f00000000;", 2: "mov.u16 %h1, 0; st.shared.u16 [%r2], %h1;",
         1: "mov.u16 %h1, 0; st.shared.u8 [%r2], %h1;",
         8: "mov.f64 %d1, 0d0000000000000000; st.shared.f64 [%r2], %d1;",
         16: "mov.f32 %f1, 0f00000000; st.shared.v4.f32 [%r2], {%f1, %f1, %f1, %f1};"}


def passes(access: str, scale: int, block: int = 32, index: str = "") -> dict[str, float]:
    """The counters of one access to shared memory, at scale times the thread or an index in %r3."""
    return measure(index + shared_at(scale, 0, "%r3" if index else "%t") + access, 1, block,
                   shared=32768)


@pytest.mark.parametrize(("stride", "wavefronts"), [(1, 1), (2, 2), (4, 4), (8, 8), (32, 32),
                                                    (33, 1), (31, 1), (34, 2), (48, 16)])
def test_banks_of_4_bytes(stride, wavefronts):
    """Lane i takes word stride * i, in bank stride * i mod 32.  With g = gcd(stride, 32) the lanes
    meet in 32 / g banks, g in each: g passes.  gcd(34, 32) = 2, gcd(48, 32) = 16; odd strides have
    no conflict."""
    check(passes(STORE[4], 4 * stride), shared_store_wavefronts=wavefronts,
          shared_store_wavefronts_ideal=1, store_bank_conflicts=wavefronts - 1,
          shared_store_instructions=1)


@pytest.mark.parametrize(("stride", "wavefronts"), [(1, 2), (2, 4), (4, 8), (16, 32), (17, 2)])
def test_banks_of_8_bytes(stride, wavefronts):
    """Halves of a warp, 16 lanes of 2 words: lane i takes words 2 stride i and the next.  There are
    16 pairs of banks, and the lanes of a half meet in 16 / gcd(stride, 16) of them:
    gcd(stride, 16) passes for each half."""
    check(passes(STORE[8], 8 * stride), shared_store_wavefronts=wavefronts,
          shared_store_wavefronts_ideal=2, store_bank_conflicts=wavefronts - 2)


@pytest.mark.parametrize(("stride", "wavefronts"), [(1, 4), (2, 8), (3, 4), (4, 16), (8, 32)])
def test_banks_of_16_bytes(stride, wavefronts):
    """Quarters of a warp, 8 lanes of 4 words in 8 groups of banks: gcd(stride, 8) passes for each
    quarter."""
    check(passes(STORE[16], 16 * stride), shared_store_wavefronts=wavefronts,
          shared_store_wavefronts_ideal=4, store_bank_conflicts=wavefronts - 4)


def test_halves_and_bytes_of_one_word_do_not_conflict():
    """Lanes 2k and 2k + 1 store the halves of word k: 16 banks, 1 pass.  Bytes: 4 lanes a word."""
    check(passes(STORE[2], 2), shared_store_wavefronts=1, bank_conflicts=0)
    check(passes(STORE[1], 1), shared_store_wavefronts=1, bank_conflicts=0)


def test_halves_128_bytes_apart():
    """Halves at bytes 128 i lie in different words of bank 0: 32 passes."""
    check(passes(STORE[2], 128), shared_store_wavefronts=32, bank_conflicts=31)


FILL = "mov.u32 %r4, 0; mad.lo.u32 %r5, %t, 4, %s; st.shared.u32 [%r5], %r4; bar.sync 0;"
FIRST_WARP = "setp.ge.u32 %p1, %t, 32; @%p1 bra end;"


def test_broadcast_from_shared_memory():
    """All lanes read one word: 1 pass.  Two words of one bank, 0 and 32: 2 passes.  Two words of
    different banks: 1.  64 threads fill 64 words first, 2 warps of 1 pass each.  Both warps read:
    (1 + 2 + 1) * 2 passes."""
    other = "and.b32 %r3, %t, 1;"
    check(measure(FILL + "ld.shared.u32 %r6, [%s];" + other
                  + shared_at(128, index="%r3") + "ld.shared.u32 %r6, [%r2];"
                  + shared_at(20, index="%r3") + "ld.shared.u32 %r6, [%r2];", 1, 64, shared=256),
          shared_load_instructions=6, shared_load_wavefronts=8, shared_load_wavefronts_ideal=6,
          load_bank_conflicts=2, shared_store_wavefronts=2, shared_wavefronts=10)


def test_wide_broadcast():
    """One address for all lanes: 8 bytes go to both halves at once, 16 bytes to the quarters of
    each half: 1 and 2 passes, no conflict."""
    check(measure(FILL + "ld.shared.v2.u32 {%r6, %r7}, [%s];", shared=128),
          shared_load_wavefronts=1, shared_load_wavefronts_ideal=1, load_bank_conflicts=0)
    check(measure(FILL + "ld.shared.v4.u32 {%r6, %r7, %r8, %r9}, [%s];", shared=128),
          shared_load_wavefronts=2, shared_load_wavefronts_ideal=2, load_bank_conflicts=0)


@pytest.mark.parametrize("shift", [1, 2])
def test_neighbours_that_share_8_bytes(shift):
    """Lanes 2 k and 2 k + 1 read the 8 bytes k: every lane has the address of lane ^ 1, so the
    halves go together, and 16 times 8 bytes are in 32 banks: 1 pass.  So with 4 lanes for each 8
    bytes, which fill half of the banks."""
    check(measure(FILL + f"shr.u32 %r3, %t, {shift};" + shared_at(8, index="%r3")
                  + "ld.shared.v2.u32 {%r6, %r7}, [%r2];", shared=256),
          shared_load_wavefronts=1, load_bank_conflicts=0)


def test_every_second_neighbour_shares_8_bytes():
    """Lanes i and i ^ 2 read the same 8 bytes, at 16 (i & 1) + 128 (i >> 2): the halves go
    together, and 8 groups of 4 lanes meet in the same banks: 8 passes, 7 of them conflicts.  (If
    the halves went apart, 2 of 4 and 4 passes would be none: 6 conflicts.)"""
    check(measure(FILL + FIRST_WARP
                  + "and.b32 %r3, %t, 1; shr.u32 %r4, %t, 2; mad.lo.u32 %r3, %r4, 8, %r3;"
                  + shared_at(16, index="%r3") + "ld.shared.v2.u32 {%r6, %r7}, [%r2]; end:", 1,
                  256, shared=1024),
          shared_load_wavefronts=8, load_bank_conflicts=7)


def test_one_lane_of_each_quarter():
    """Lanes 0, 8, 16 and 24 read 16 bytes at 32 i, 256 bytes apart: the same 4 banks.  Nobody has
    a neighbour, so the two quarters of a half go together and conflict: 2 passes a half, 4 in all,
    2 of them conflicts.  64 bytes need 1 pass."""
    check(measure(FILL + FIRST_WARP + "and.b32 %r3, %t, 7; setp.ne.u32 %p1, %r3, 0; @%p1 bra end;"
                  + shared_at(32) + "ld.shared.v4.u32 {%r6, %r7, %r8, %r9}, [%r2]; end:", 1, 256,
                  shared=1024),
          shared_load_wavefronts=4, shared_load_wavefronts_ideal=1, load_bank_conflicts=2)


def test_swizzled_column():
    """A tile of 32 x 32 words whose column c of row r lies at c ^ r.  Lane r reads column 5 of its
    row: word 32 r + (5 ^ r), bank 5 ^ r, different in every lane: 1 pass."""
    check(passes(STORE[4], 4, index="xor.b32 %r4, %t, 5; mad.lo.u32 %r3, %t, 32, %r4;"),
          shared_store_wavefronts=1, bank_conflicts=0)


def test_lanes_that_are_not_there():
    """A block of 40: the second warp has 8 lanes.  Words 32 i: 32 passes for the first warp, 8 for
    the second."""
    check(passes(STORE[4], 128, block=40), shared_store_wavefronts=40,
          shared_store_wavefronts_ideal=2)


def test_quarters_that_are_not_there():
    """16 bytes a lane, contiguous; a block of 40: 4 quarters, and 1 of the second warp."""
    check(passes(STORE[16], 16, block=40), shared_store_wavefronts=5,
          shared_store_wavefronts_ideal=5, store_bank_conflicts=0)


def test_lanes_apart():
    """Even lanes only, 8 bytes at 16 i: nobody has a neighbour, so the halves go together; 16
    lanes at words 8 k (i = 2 k), banks 0, 8, 16, 24 four times each: 4 passes, 3 of them
    conflicts.  128 bytes need 1."""
    check(measure("and.b32 %r3, %t, 1; setp.eq.u32 %p1, %r3, 0;" + shared_at(16)
                  + STORE[8].replace("st.", "@%p1 st."), shared=1024),
          shared_store_wavefronts=4, shared_store_wavefronts_ideal=1, store_bank_conflicts=3)


@pytest.mark.parametrize(("row", "wavefronts"), [(16, 4), (64, 16), (80, 4), (128, 32), (144, 4)])
def test_ldmatrix(row, wavefronts):
    """ldmatrix.x4: lane r names a row of 16 bytes at row * r; 8 lanes make a matrix and go
    together.  Row r begins at word row / 4 * r.
    16: 8 rows side by side, 128 bytes: 1 pass a matrix.
    64: words 16 r, banks 0 and 16 in turn: 4 rows meet in each: 4 passes.
    80: words 20 r: banks 0, 20, 8, 28, 16, 4, 24, 12: 8 different groups of 4 banks: 1 pass.
    128: all in bank 0: 8 passes.
    144: words 36 r: banks 4 r: 1 pass.  Four matrices."""
    fill = """mov.u32 %r4, 0; mov.u32 %r5, %t;
        loop: mad.lo.u32 %r6, %r5, 4, %s; st.shared.u32 [%r6], %r4; add.u32 %r5, %r5, 32;
        setp.lt.u32 %p1, %r5, 1152; @%p1 bra loop; bar.sync 0;"""
    counted = measure(fill + shared_at(row)
                      + "ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%r6, %r7, %r8, %r9}, [%r2];",
                      shared=4608)
    # the fill: 36 stores of one pass
    check(counted, ldmatrix_instructions=1, shared_load_instructions=0,
          shared_load_wavefronts=wavefronts, shared_load_wavefronts_ideal=4,
          bank_conflicts=wavefronts - 4, shared_store_wavefronts=36)


def test_ldmatrix_of_two():
    """.x2: the first 16 lanes name rows; two matrices in rows of 64 bytes: 4 passes each."""
    fill = """mov.u32 %r4, 0; mov.u32 %r5, %t;
        loop: mad.lo.u32 %r6, %r5, 4, %s; st.shared.u32 [%r6], %r4; add.u32 %r5, %r5, 32;
        setp.lt.u32 %p1, %r5, 512; @%p1 bra loop; bar.sync 0;"""
    check(measure(fill + shared_at(64)
                  + "ldmatrix.sync.aligned.m8n8.x2.shared.b16 {%r6, %r7}, [%r2];", shared=2048),
          ldmatrix_instructions=1, shared_load_wavefronts=8, shared_load_wavefronts_ideal=2)


@pytest.mark.parametrize(("index", "wavefronts", "counted"), [
    ("mov.u32 %r3, %t;", 1, 1), ("mov.u32 %r3, 0;", 1, 1), ("and.b32 %r3, %t, 0;", 32, 1),
    ("and.b32 %r3, %t, 3;", 8, 1), ("mul.lo.u32 %r3, %t, 32;", 32, 32),
    ("shr.u32 %r3, %t, 1;", 2, 1)])
def test_shared_atomics(index, wavefronts, counted):
    """An atomic serves the lanes of one word one after the other.  32 words in 32 banks: 1 pass;
    one word for all: 32, but 1 where the assembler sees it and joins the lanes; 4 words, 8 lanes
    each: 8; 32 words of one bank: 32; pairs: 2.  Where 1 is added, lanes of a word are counted:
    only words that share a bank take more than 1 pass.
    A block of 1024 threads fills 4 KiB, 32 passes; its first warp adds."""
    for value, passes in ((3, wavefronts), (1, counted)):
        check(measure(FILL + FIRST_WARP + index + shared_at(4, index="%r3")
                      + f"red.shared.add.u32 [%r2], {value}; end:", 1, 1024, shared=4096),
              shared_atomic_instructions=1, shared_atomic_wavefronts=passes,
              shared_store_wavefronts=32, shared_wavefronts=32 + passes,
              shared_wavefronts_ideal=33, bank_conflicts=passes - 1)


@pytest.mark.parametrize(("instruction", "wavefronts"), [
    ("atom.shared.cas.b32 %r6, [%r2], 0, 3;", 2), ("red.shared.add.f32 [%r2], 0f40400000;", 2),
    ("atom.shared.exch.b32 %r6, [%r2], 3;", 1), ("red.shared.max.u32 [%r2], 3;", 1)])
def test_shared_atomics_that_swap(instruction, wavefronts):
    """32 words in 32 banks: a compare-and-swap takes 2 passes, without a conflict, and so does
    what is made of it; other atomics take 1."""
    check(measure(FILL + shared_at(4) + instruction, shared=128),
          shared_atomic_wavefronts=wavefronts, shared_wavefronts=1 + wavefronts,
          shared_wavefronts_ideal=1 + wavefronts, bank_conflicts=0)


def test_shared_atomics_under_a_predicate():
    """All 4 warps of 128 threads execute it, but only lanes 0 to 9 of the first put a number into
    one word: 10 passes, 1 at best."""
    check(measure(FILL + "setp.lt.u32 %p1, %t, 10; @%p1 atom.shared.exch.b32 %r6, [%s], 1;", 1,
                  128, shared=512),
          shared_atomic_instructions=4, shared_atomic_wavefronts=10,
          shared_wavefronts_ideal=4 + 1, thread_instructions_off=118)


def test_shared_atomics_of_some_lanes():
    """5 lanes of a block of 37 are in its second warp: 32 + 5 lanes put a number into one word,
    which the assembler does not join."""
    check(measure(FILL + "atom.shared.exch.b32 %r6, [%s], 1;", 1, 37, shared=256),
          shared_atomic_wavefronts=37, shared_wavefronts_ideal=2 + 2, shared_atomic_instructions=2)


# -- global atomics --------------------------------------------------------------------------------

def test_global_atomics_on_one_address():
    """Two warps add to one word, each at once, for the address is the same for all: a request and
    a sector each; the result is used."""
    check(measure("atom.global.add.u32 %r2, [%a], 1;" + at(4, base="%b")
                  + "st.global.u32 [%x], %r2;", 1, 64),
          global_atomic_instructions=2, global_atomic_requests=2, global_atomic_sectors=2,
          global_reduction_requests=0, l2_atomic_sectors=2, l2_reduction_sectors=0,
          unique_bytes_read=4, unique_bytes_written=4 + 256)


def test_global_atomics_on_different_addresses():
    """32 words side by side: 4 sectors."""
    check(measure(at(4) + "red.global.add.u32 [%x], 1;"), global_reduction_instructions=1,
          global_reduction_requests=1, global_reduction_sectors=4, global_atomic_requests=0,
          l2_reduction_sectors=4, unique_bytes_read=128, unique_bytes_written=128,
          dram_bytes_read=128, dram_bytes_written=128)


@pytest.mark.parametrize(("instruction", "sectors"), [
    ("red.global.add.u32 [%x], 1;", 32), ("red.global.max.s32 [%x], 1;", 32),
    ("red.global.add.u32 [%a], 1;", 1), ("red.global.xor.b32 [%a], 1;", 1),
    ("red.global.add.u64 [%a], 1;", 1), ("red.global.add.f32 [%a], 0f3F800000;", 32),
    ("atom.global.exch.b32 %r2, [%a], 1;", 32)])
def test_global_atomics_of_all_lanes_on_one_word(instruction, sectors):
    """Lanes of one word go one after the other, each with the sector, but for those that the
    assembler joins: whole numbers at an address that is plainly the same for all threads."""
    found = measure("and.b32 %r3, %t, 0;" + at(4, index="%r3") + instruction)
    check(found, global_reduction_sectors=sectors, l2_reduction_sectors=sectors,
          global_reduction_requests=1, unique_bytes_written=8 if "u64" in instruction else 4)


def test_global_atomics_of_four_lanes_a_word():
    """8 words of one sector, 4 lanes each: the sector 4 times.  Two blocks: 8 sectors, 1 of them
    missing in the L2 cache."""
    check(measure("shr.u32 %r3, %t, 2;" + at(4, index="%r3") + "red.global.add.u32 [%x], 1;", 2),
          global_reduction_sectors=8, l2_hit_rate=100 * 7 / 8, dram_bytes_read=32)


def test_global_atomics_of_some_lanes():
    """A block of 40: 32 lanes add to the words 0 and 1 in turn, 8 lanes of the second warp too:
    16 and 4 times the sector."""
    check(measure("and.b32 %r3, %t, 1;" + at(4, index="%r3") + "red.global.add.u32 [%x], 1;", 1,
                  40), global_reduction_sectors=20, global_reduction_requests=2)


def test_an_atomic_whose_result_nobody_reads_is_a_reduction():
    """As the assembler makes it: atom with an unused register is red."""
    check(measure(at(4) + "atom.global.add.u32 %r2, [%x], 1;"), global_reduction_requests=1,
          global_reduction_sectors=4, global_atomic_requests=0, global_atomic_instructions=0)


def test_double_atomics_64_bytes_apart():
    """8 bytes in every second sector: 32 sectors."""
    check(measure(at(64) + "red.global.add.f64 [%x], 0d3FF0000000000000;"),
          global_reduction_sectors=32, unique_bytes_written=256)


# -- local memory ----------------------------------------------------------------------------------

def test_local_array():
    """Local memory is interleaved word by word: one index for all lanes is 128 bytes, 4 sectors.
    Two warps store and load once each."""
    check(measure("mov.u32 %r2, 7; st.local.u32 [%l+8], %r2; ld.local.u32 %r3, [%l+8];", 1, 64,
                  local=32), local_store_instructions=2, local_load_instructions=2,
          local_store_requests=2, local_load_requests=2, local_store_sectors=8,
          local_load_sectors=8, global_load_requests=0, l2_read_sectors=0)


def test_local_vector():
    """16 bytes a thread are 4 rows of 128 bytes: 4 requests, 16 sectors."""
    check(measure("mov.u32 %r2, 7; st.local.v4.u32 [%l], {%r2, %r2, %r2, %r2};", local=32),
          local_store_requests=4, local_store_instructions=1, local_store_sectors=16)


def test_local_array_with_an_index_of_each_thread():
    """Even lanes use element 0, odd ones element 1: each of the two rows of 128 bytes has 16 of
    the lanes, every second word, so all 4 sectors of both: 8."""
    check(measure("and.b32 %r2, %t, 1; mad.lo.u32 %r3, %r2, 4, %l; mov.u32 %r4, 7;"
                  "st.local.u32 [%r3], %r4;", local=32), local_store_sectors=8)


def test_local_array_of_one_lane():
    """Thread 5 alone: its word of 4 bytes, 1 sector."""
    check(measure("setp.eq.u32 %p1, %t, 5; mov.u32 %r4, 7; @%p1 st.local.u32 [%l], %r4;",
                  local=32), local_store_requests=1, local_store_sectors=1)


# -- different bytes, L2 ---------------------------------------------------------------------------

def test_bytes_read_again_count_once():
    """4 blocks of 256 threads read the same 1,024 bytes twice: 8 KiB asked, 1 KiB different."""
    check(measure(at(4, index="%t") + "ld.global.f32 %f1, [%x]; ld.global.f32 %f2, [%x];", 4, 256),
          global_load_bytes=8192, unique_bytes_read=1024, unique_bytes_written=0)


def test_bytes_of_overlapping_windows():
    """Each thread of 128 reads floats i, i + 1 and i + 2: 130 floats in all."""
    check(measure(at(4) + "ld.global.f32 %f1, [%x]; ld.global.f32 %f2, [%x+4];"
                  "ld.global.f32 %f3, [%x+8];", 4, 32),
          global_load_bytes=3 * 512, unique_bytes_read=520)


def test_bytes_read_and_written_in_place():
    """a[i] += 1 for 100 of 128 threads: 400 bytes each way."""
    check(measure("setp.ge.u32 %p1, %i, %n; @%p1 bra end;" + at(4)
                  + "ld.global.f32 %f1, [%x]; add.f32 %f1, %f1, 0f3F800000;"
                  "st.global.f32 [%x], %f1; end:", 4, 32, n=100),
          unique_bytes_read=400, unique_bytes_written=400, dram_bytes_read=13 * 32,
          dram_bytes_written=13 * 32)


def test_a_volatile_store_reads_nothing():
    """Strong accesses have marks of their own: written, not read."""
    check(measure(at(4) + "st.volatile.global.f32 [%x], 0f00000000;"
                  "ld.volatile.global.f32 %f1, [%x];"), unique_bytes_read=128,
          unique_bytes_written=128)
    check(measure(at(4) + "st.volatile.global.f32 [%x], 0f00000000;"), unique_bytes_read=0,
          unique_bytes_written=128)


def test_l2_second_pass_hits():
    """One block of 256 reads 1,024 bytes twice: 32 sectors missing, then 32 found.  The second
    pass of 4 blocks over the same bytes makes 4 * 64 look-ups, of which 32 miss."""
    two = at(4, index="%t") + "ld.global.f32 %f1, [%x]; ld.global.f32 %f2, [%x];"
    check(measure(two, 1, 256), l2_read_sectors=64, l2_read_hits=32, l2_read_misses=32,
          l2_hit_rate=50, dram_bytes_read=1024, dram_bytes_written=0)
    check(measure(two, 4, 256), l2_read_sectors=256, l2_read_hits=224, dram_bytes_read=1024)


def test_l2_writes():
    """A store brings no bytes in; the read behind it finds them.  512 bytes, 16 sectors."""
    check(measure(at(4) + "st.global.f32 [%x], 0f00000000; ld.global.f32 %f1, [%x];"
                  "st.global.f32 [%x], %f1;", 2, 64),
          l2_write_sectors=32, l2_write_misses=16, l2_write_hits=16, l2_read_sectors=16,
          l2_read_hits=16, dram_bytes_read=0, dram_bytes_written=512, dram_bytes=512)


def test_l2_too_small():
    """A warp reads 64 sectors (16 of 4 lines) twice.  A cache of 64 sectors keeps them all: 64
    misses.  One of 32 has lost each sector when it comes again: 128 misses."""
    body = "".join(at(4, 128 * k) + "ld.global.f32 %f1, [%x];" for k in [*range(16), *range(16)])
    for sectors, misses in ((64, 64), (32, 128)):
        args = [np.zeros(4096, np.uint8), 0, np.uint32(0)]
        check(run(ptx(body), 1, 32, args, l2_bytes=32 * sectors), l2_read_sectors=128,
              l2_read_misses=misses, dram_bytes_read=32 * misses)


def test_l2_writes_back_what_it_loses():
    """The warp writes 64 sectors twice.  A cache of 32 writes each back twice: 4,096 bytes; one
    of 64 once."""
    body = "".join(at(4, 128 * k) + "st.global.f32 [%x], 0f00000000;"
                   for k in [*range(16), *range(16)])
    for sectors, written in ((64, 2048), (32, 4096)):
        args = [np.zeros(4096, np.uint8), 0, np.uint32(0)]
        check(run(ptx(body), 1, 32, args, l2_bytes=32 * sectors), dram_bytes_written=written,
              dram_bytes_read=0)


# -- asynchronous copies ---------------------------------------------------------------------------

def test_cp_async():
    """16 bytes a lane: 1 request, 16 sectors read, which count among those of loads; 4 passes to
    write shared memory, which is no store of the kernel."""
    check(measure(at(16) + shared_at(16) + "cp.async.cg.shared.global [%r2], [%x], 16;"
                  "cp.async.commit_group; cp.async.wait_group 0;", shared=512),
          async_copy_instructions=1, async_copy_requests=1, async_copy_sectors=16,
          global_load_requests=1, global_load_sectors=16, global_load_instructions=0,
          global_load_bytes=0, shared_store_wavefronts=0, shared_wavefronts=4,
          async_copy_wavefronts=4, async_copy_bank_conflicts=0,
          shared_wavefronts_ideal=4, l2_read_sectors=16, unique_bytes_read=512)


def test_cp_async_that_fills_with_zeros():
    """Lanes from 20 on copy nothing but zeros: 20 * 16 = 320 bytes, 10 sectors.  All 32 lanes
    write shared memory."""
    check(measure(at(16) + shared_at(16) + "setp.lt.u32 %p1, %t, 20; selp.u32 %r3, 16, 0, %p1;"
                  "cp.async.cg.shared.global [%r2], [%x], 16, %r3; cp.async.wait_all;",
                  shared=512),
          async_copy_requests=1, async_copy_sectors=10, shared_wavefronts=4,
          unique_bytes_read=320)


def test_cp_async_of_a_part():
    """Lanes below 20 copy 16 bytes, lane 20 copies 4, the others none: bytes 0 to 323, the last in
    sector 10: 11 sectors, one request."""
    check(measure(at(16) + shared_at(16) + "setp.lt.u32 %p1, %t, 20; selp.u32 %r3, 16, 0, %p1;"
                  "setp.eq.u32 %p1, %t, 20; selp.u32 %r3, 4, %r3, %p1;"
                  "cp.async.cg.shared.global [%r2], [%x], 16, %r3; cp.async.wait_all;",
                  shared=512),
          async_copy_requests=1, async_copy_sectors=11, unique_bytes_read=324)


BULK = """setp.ne.u32 %p1, %t, 0; @%p1 bra wait;
    mbarrier.init.shared.b64 [%s], 1; fence.proxy.async;
    mbarrier.arrive.expect_tx.shared.b64 %q5, [%s], 256;
    add.u32 %r2, %s, 128;
    cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%r2], [%q0], 256, [%s];
    wait: bar.sync 0;
    again: mbarrier.try_wait.parity.shared.b64 %p2, [%s], 0; @!%p2 bra again;
"""


def test_bulk_load():
    """One thread copies 256 bytes: one request, 8 sectors, none of them the kernel's loads."""
    check(measure(BULK, arch="sm_90", shared=512), bulk_loads=1, bulk_load_sectors=8,
          bulk_stores=0, global_load_requests=0, l2_read_sectors=8, dram_bytes_read=256,
          unique_bytes_read=256, unique_bytes_written=0)


def test_bulk_store():
    """Thread 0 of each of 2 blocks copies 64 bytes out: 2 sectors each, to the same place."""
    check(measure(shared_at(4) + STORE[4] + "fence.proxy.async; bar.sync 0;"
                  "setp.ne.u32 %p1, %t, 0; @%p1 bra end; mad.wide.u32 %x, %r0, 64, %q0;"
                  "cp.async.bulk.global.shared::cta.bulk_group [%x], [%s], 64;"
                  "cp.async.bulk.commit_group; cp.async.bulk.wait_group 0; end:", 2, 32,
                  arch="sm_90", shared=128),
          bulk_stores=2, bulk_store_sectors=4, global_store_requests=0, l2_write_sectors=4,
          unique_bytes_written=128, unique_bytes_read=0, dram_bytes_written=128)


# -- tensor cores ----------------------------------------------------------------------------------

def registers(letter: str, first: int, count: int) -> str:
    return "{" + ", ".join(f"%{letter}{first + k}" for k in range(count)) + "}"


def product(kind: str, a: int, b: int, c: int) -> str:
    """PTX of a product whose A and B have so many registers, and whose C and D are sums: floats
    unless the types end with that of integers or halves."""
    letter = "r" if kind.endswith(("s32", "f16", "popc")) else "f"
    zeros = "".join(f"mov.u32 %r{k}, 0;" for k in range(29)) + "".join(
        f"mov.f32 %f{k}, 0f00000000;" for k in range(19))
    sums = registers(letter, 18 if letter == "r" else 0, c)
    return f"{zeros} {kind} {sums}, {registers('r', 2, a)}, {registers('r', 10, b)}, {sums};"


@pytest.mark.parametrize(("kind", "sizes", "metric", "operations"), [
    ("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32", (4, 2, 4), "tensor_fp16_ops", 4096),
    ("mma.sync.aligned.m16n8k8.row.col.f32.f16.f16.f32", (2, 1, 4), "tensor_fp16_ops", 2048),
    ("mma.sync.aligned.m16n8k16.row.col.f16.f16.f16.f16", (4, 2, 2), "tensor_fp16_fp16_ops", 4096),
    ("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32", (4, 2, 4), "tensor_bf16_ops", 4096),
    ("mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32", (4, 2, 4), "tensor_tf32_ops", 2048),
    ("mma.sync.aligned.m16n8k32.row.col.s32.s8.s8.s32", (4, 2, 4), "tensor_int8_ops", 8192),
    ("mma.sync.aligned.m16n8k64.row.col.s32.u4.u4.s32", (4, 2, 4), "tensor_int4_ops", 16384),
    ("mma.sync.aligned.m16n8k256.row.col.s32.b1.b1.s32.xor.popc", (4, 2, 4), "tensor_int1_ops",
     65536),
    ("wmma.mma.sync.aligned.row.col.m16n16k16.f32.f32", (8, 8, 8), "tensor_fp16_ops", 8192),
])
def test_tensor_operations(kind, sizes, metric, operations):
    """A product of m x k by k x n is m n k multiply-adds, 2 operations each: m16n8k16 is 4,096.
    Two blocks of 64 threads: 4 warps."""
    counted = measure(product(kind, *sizes), 2, 64)
    check(counted, tensor_instructions=4, **{metric: 4 * operations})
    assert sum(value for name, value in counted.items()
               if name.startswith("tensor_") and name.endswith("_ops")) == 4 * operations


def test_fp8_products():
    """m16n8k32 of e4m3: 8,192 operations."""
    check(measure(product("mma.sync.aligned.m16n8k32.row.col.f32.e4m3.e4m3.f32", 4, 2, 4),
                  arch="sm_89"), tensor_fp8_ops=8192, tensor_instructions=1)


def test_double_products():
    """m8n8k4 of doubles: 512 operations; a warp that is switched off does none."""
    body = """mov.f64 %d1, 0d0000000000000000; mov.f64 %d2, %d1; mov.f64 %d3, %d1; mov.f64 %d4, %d1;
        setp.lt.u32 %p1, %t, 32; @%p1 mma.sync.aligned.m8n8k4.row.col.f64.f64.f64.f64
        {%d3, %d4}, {%d1}, {%d2}, {%d3, %d4};"""
    check(measure(body, 1, 64), tensor_fp64_ops=512, tensor_instructions=2)


# -- control flow ----------------------------------------------------------------------------------

def test_half_a_warp_diverges():
    """Threads below 48 of 64 take the branch: warp 0 as one, warp 1 divided."""
    check(measure("setp.lt.u32 %p1, %t, 48; @%p1 bra there; mov.u32 %r2, 1; there:", 1, 64),
          branches=2, divergent_branches=1, uniform_branches=1, branch_instructions=2,
          branch_efficiency=50, thread_instructions_off=16)


def test_both_ways():
    """if (lane < 8) { 3 instructions, one of them a jump } else { 2 }: each way is executed by the
    warp, with 8 and with 24 threads.  Head and ret are 10, setp and the branch 2; of the branch,
    8 threads are on (those that go to `yes`)."""
    counted = measure("setp.lt.u32 %p1, %t, 8; @%p1 bra yes; mov.u32 %r2, 1; mov.u32 %r3, 1;"
                      "bra.uni end; yes: mov.u32 %r2, 2; mov.u32 %r3, 2; end:")
    threads = 32 * (HEAD + 1 + 2) + 24 * 3 + 8 * 2
    check(counted, instructions=HEAD + 1 + 2 + 3 + 2, thread_instructions=threads,
          thread_instructions_on=threads - 24, branches=1, divergent_branches=1,
          branch_instructions=2)


def test_trip_counts_of_lanes():
    """Lane i goes i + 1 times through a loop of 3 instructions (sub, setp, branch): the warp 32
    times, with 32, 31, ..., 1 threads: 528 in all.  At every end of the loop but the last, one
    lane leaves and others stay: 31 divergent branches.  A thread is on at the branches that it
    takes: all but its last, 528 - 32."""
    counted = measure("add.u32 %r2, %t, 1; loop: sub.u32 %r2, %r2, 1; setp.ne.u32 %p1, %r2, 0;"
                      "@%p1 bra loop;")
    check(counted, branches=32, divergent_branches=31, instructions=HEAD + 2 + 3 * 32,
          thread_instructions=32 * (HEAD + 2) + 3 * 528, thread_instructions_off=32)


def test_uniform_loop():
    """10 turns of 3 instructions by 2 warps: no divergence."""
    counted = measure("mov.u32 %r2, 10; loop: sub.u32 %r2, %r2, 1; setp.ne.u32 %p1, %r2, 0;"
                      "@%p1 bra loop;", 1, 64)
    check(counted, branches=20, divergent_branches=0, branch_efficiency=100,
          instructions=2 * (HEAD + 2 + 30), threads_per_instruction=32)


def test_grid_stride_loop():
    """2 blocks of 32 threads over 160 floats, 64 at a time.  Block 0 takes 0..31, 64..95 and
    128..159: 3 loads; block 1 takes 32..63 and 96..127, then finds 160 and leaves: 2 loads.  5
    requests, 20 sectors, and a branch after each look: 4 + 3, never divided."""
    body = ("mov.u32 %r2, %i; loop: setp.ge.u32 %p1, %r2, %n; @%p1 bra end;" + at(4, index="%r2")
            + "ld.global.f32 %f1, [%x]; add.u32 %r2, %r2, 64; bra.uni loop; end:")
    check(measure(body, 2, 32, n=160), global_load_requests=5, global_load_sectors=20,
          unique_bytes_read=640, branches=7, divergent_branches=0, branch_instructions=7 + 5)


def test_table_of_branches():
    """brx.idx with i / 16 in a warp: two ways, one divided warp; with i / 32: two warps, none."""
    body = """shr.u32 %r2, %t, SHIFT; ts: .branchtargets one, two;
        brx.idx %r2, ts; one: mov.u32 %r3, 1; bra.uni end; two: mov.u32 %r3, 2; end:"""
    check(measure(body.replace("SHIFT", "4")), branches=1, divergent_branches=1)
    check(measure(body.replace("SHIFT", "5"), 1, 64), branches=2, divergent_branches=0)
    check(measure(body.replace("SHIFT", "5"), 3, 64), branches=6, divergent_branches=0)


def test_predication():
    """Three instructions whose predicate is on in lanes below 10, one with it negated: of 4 * 32
    threads, 3 * 10 + 22 are on."""
    counted = measure("setp.lt.u32 %p1, %t, 10; @%p1 mov.u32 %r2, 1; @%p1 add.u32 %r2, %r2, 1;"
                      "@%p1 mul.lo.u32 %r2, %r2, 3; @!%p1 mov.u32 %r2, 0;")
    check(counted, instructions=HEAD + 2 + 4, thread_instructions=32 * (HEAD + 6),
          thread_instructions_off=128 - 52, branches=0, divergent_branches=0,
          threads_on_per_instruction=(32 * (HEAD + 2) + 52) / (HEAD + 6))


def test_predicated_exit_and_barrier():
    """@p exit and @p bar are branches inside the simulator, not for the counters.  96 threads; the
    third warp exits: all 3 warps execute the exit, 32 threads with the predicate on; then 2 warps
    execute @q bar.sync, all on."""
    counted = measure("setp.ge.u32 %p1, %t, 64; @%p1 exit; setp.lt.u32 %p2, %t, 64;"
                      "@%p2 bar.sync 1, 64;", 1, 96)
    check(counted, branches=0, divergent_branches=0, barriers=2,
          instructions=3 * (HEAD + 2) + 2 * 3,
          thread_instructions=96 * (HEAD + 2) + 64 * 3, thread_instructions_off=64)


def test_barriers_and_fences():
    """3 warps: two barriers of the block, a counted one that only 2 warps meet, __syncwarp, a fence
    and a barrier with a vote."""
    counted = measure("bar.sync 0; bar.sync 0; bar.warp.sync 0xffffffff; membar.cta;"
                      "setp.lt.u32 %p1, %t, 64; bar.red.popc.u32 %r2, 0, %p1;"
                      "@!%p1 bra end; bar.sync 2, 64; end:", 1, 96)
    check(counted, barriers=3 + 3 + 3 + 2, warp_barriers=3, fences=3)


def test_shuffles_and_votes():
    """5 steps of a butterfly, a ballot, a match and a sum over the warp, by 2 warps."""
    steps = "".join(f"shfl.sync.bfly.b32 %r2, %t, {1 << k}, 31, 0xffffffff;" for k in range(5))
    check(measure(steps + "setp.lt.u32 %p1, %t, 3; vote.sync.ballot.b32 %r3, %p1, 0xffffffff;"
                  "match.any.sync.b32 %r4, %t, 0xffffffff; redux.sync.add.u32 %r5, %t, 0xffffffff;",
                  1, 64), shuffles=10, votes=6, communication_instructions=64 * 8)


# -- instructions ----------------------------------------------------------------------------------

def test_classes_of_instructions():
    """Every instruction of this kernel, by class (32 threads, one warp):
    misc: 3 ld.param, 2 cvta, 3 mov of the head, mov, selp
    integer: mad of the head, add, mul.wide, setp.s32
    bit: and, shl, popc
    fp32: add.f32, fma.f32, setp.f32, ex2.approx
    fp64: mul.f64
    fp16: add.f16x2
    conversion: cvt twice
    memory: ld.global, st.global
    communication: bar.warp.sync, shfl
    control: bra, ret."""
    counted = measure("""
        mov.u32 %r2, 5; add.u32 %r3, %t, %r2; and.b32 %r4, %r3, 7; shl.b32 %r5, %r4, 2;
        popc.b32 %r6, %r5; setp.lt.s32 %p1, %r3, 9; mul.wide.u32 %q2, %t, 4;
        selp.b32 %r7, 1, 2, %p1;
        cvt.rn.f32.u32 %f1, %t; add.f32 %f2, %f1, 0f3F800000; fma.rn.f32 %f3, %f1, %f2, %f2;
        setp.gt.f32 %p2, %f3, 0f00000000; ex2.approx.f32 %f4, %f3; cvt.f64.f32 %d1, %f1;
        mul.f64 %d2, %d1, %d1; add.f16x2 %r8, %r7, %r7; ld.global.f32 %f5, [%a];
        st.global.f32 [%b], %f5; bar.warp.sync 0xffffffff;
        shfl.sync.idx.b32 %r9, %r8, 0, 31, 0xffffffff; bra.uni end; end:""", b=np.zeros(8, "f4"))
    by_class = {"misc": 10, "integer": 4, "bit": 3, "fp32": 4, "fp64": 1, "fp16": 1,
                "conversion": 2, "memory": 2, "communication": 2, "control": 2}
    check(counted, instructions=sum(by_class.values()),
          **{f"{name}_instructions": 32 * n for name, n in by_class.items()})


def test_floating_point_operations():
    """add and sub are additions, mad and fma multiply-adds; a packed instruction counts twice;
    divisions, comparisons and conversions are none.  20 threads of 32 are on at the last."""
    counted = measure("""
        mov.f32 %f1, 0f3F800000; mov.f64 %d1, 0d3FF0000000000000; mov.u32 %r2, 0;
        add.f32 %f2, %f1, %f1; sub.f32 %f2, %f2, %f1; mul.f32 %f2, %f2, %f1;
        fma.rn.f32 %f2, %f2, %f1, %f1; fma.rn.f32 %f2, %f2, %f1, %f1; div.approx.f32 %f3, %f2, %f1;
        add.f64 %d2, %d1, %d1; mul.f64 %d2, %d2, %d1; fma.rn.f64 %d2, %d2, %d1, %d1;
        add.f16x2 %r3, %r2, %r2; mul.f16x2 %r3, %r3, %r2; fma.rn.f16x2 %r3, %r3, %r2, %r2;
        cvt.rn.f16.f32 %h1, %f1; add.f16 %h2, %h1, %h1; fma.rn.bf16x2 %r3, %r2, %r2, %r2;
        setp.lt.u32 %p1, %t, 20; @%p1 add.f32 %f2, %f2, %f1;""")
    check(counted, fadd=2 * 32 + 20, fmul=32, ffma=64, dadd=32, dmul=32, dfma=32,
          hadd=32 * 2 + 32, hmul=64, hfma=64 + 64)


def test_threads_of_a_partial_block():
    """33 threads are 2 warps: every instruction counts twice a warp and 33 times a thread."""
    counted = measure("", 1, 33)
    check(counted, warps=2, instructions=2 * (HEAD + 1), thread_instructions=33 * (HEAD + 1),
          threads_per_instruction=16.5)


# -- whole kernels, compiled -----------------------------------------------------------------------

TRANSPOSE = r"""
extern "C" __global__ void naive(const float* a, float* b, int n) {
    int x = blockIdx.x * 32 + threadIdx.x, y = blockIdx.y * 32 + threadIdx.y;
    b[x * n + y] = a[y * n + x];
}
template <int PAD> __device__ void through_shared(const float* a, float* b, int n) {
    __shared__ float tile[32][32 + PAD];
    int x = blockIdx.x * 32, y = blockIdx.y * 32, i = threadIdx.x, j = threadIdx.y;
    tile[j][i] = a[(y + j) * n + x + i];
    __syncthreads();
    b[(x + j) * n + y + i] = tile[i][j];
}
extern "C" __global__ void tiled(const float* a, float* b, int n) { through_shared<0>(a, b, n); }
extern "C" __global__ void padded(const float* a, float* b, int n) { through_shared<1>(a, b, n); }
"""


@pytest.fixture(scope="module")
def nvrtc():
    try:
        toolkit.nvrtc()
    except MissingExtraError as missing:
        pytest.skip(str(missing))


@pytest.mark.parametrize(("kernel", "store_sectors", "conflicts"), [
    ("naive", 32, 0), ("tiled", 4, 31), ("padded", 4, 0)])
def test_transposed(nvrtc, kernel, store_sectors, conflicts):
    """64 x 64 floats by 4 blocks of 32 x 32 threads: 128 warps, each a row of 32.  All read rows:
    4 sectors.  The naive kernel writes columns: 32 sectors a request, an eighth of them used.
    The tile of 32 x 32 words is read by columns: words 32 i + j of one bank, 31 conflicts; with a
    padding word, words 33 i + j: none."""
    a = floats(4096).reshape(64, 64)
    counted = run(TRANSPOSE, (2, 2), (32, 32), [a, np.zeros_like(a), np.int32(64)], kernel=kernel)
    check(counted, warps=128, global_load_requests=128, global_load_sectors=512,
          global_store_requests=128, global_store_sectors=128 * store_sectors,
          global_store_efficiency=100 * 4 / store_sectors, bank_conflicts=128 * conflicts,
          load_bank_conflicts=128 * conflicts, store_bank_conflicts=0,
          barriers=0 if kernel == "naive" else 128, unique_bytes_read=16384,
          unique_bytes_written=16384)


TILED = r"""
extern "C" __global__ void matmul(const float* A, const float* B, float* C, int n) {
    __shared__ float As[16][16], Bs[16][16];
    int ty = threadIdx.y, tx = threadIdx.x, row = blockIdx.y * 16 + ty, col = blockIdx.x * 16 + tx;
    float acc = 0.f;
    for (int t = 0; t < n / 16; ++t) {
        As[ty][tx] = A[row * n + t * 16 + tx];
        Bs[ty][tx] = B[(t * 16 + ty) * n + col];
        __syncthreads();
        for (int k = 0; k < 16; ++k) acc = fmaf(As[ty][k], Bs[k][tx], acc);
        __syncthreads();
    }
    C[row * n + col] = acc;
}
"""


def test_tiled_product(nvrtc):
    """64^3 by 16 blocks of 16 x 16: 8 warps a block, each two rows of 16 threads.  4 tiles: each
    thread loads 8 floats and multiplies 64 times: 64^3 multiply-adds.  A request touches two rows
    of 64 bytes, 4 sectors.  A is read by the 4 blocks of its row: 4 * 16 KiB asked, as B; the
    different bytes are 32 KiB.  Rows of As are 2 words for the warp (in banks k and k + 16), rows
    of Bs 16 words: no conflict; 2 stores a tile.  The loads may be joined into vectors by the
    compiler, so only their conflicts are compared."""
    a = floats(4096).reshape(64, 64)
    counted = run(TILED, (4, 4), (16, 16), [a, a, np.zeros_like(a), np.int32(64)], kernel="matmul")
    warps = 16 * 8
    check(counted, ffma=64**3, global_load_requests=warps * 8, global_load_sectors=warps * 8 * 4,
          global_load_bytes=2 * 4 * 16384, global_load_efficiency=100, unique_bytes_read=2 * 16384,
          unique_bytes_written=16384, barriers=warps * 8, bank_conflicts=0,
          shared_store_wavefronts=warps * 8, global_store_sectors=warps * 4)


# -- what is not counted ---------------------------------------------------------------------------

def test_counters_off():
    """Without counters, memory is not counted; instructions and branches are."""
    m = sim.Machine(arch="sm_80", counters=False)
    mod = m.module(ptx(at(4) + "ld.global.f32 %f1, [%x];"))
    report = mod.kernel("k").launch(1, 32, [m.zeros(64), 0, np.uint32(0)])
    assert report.metrics["instructions"] == HEAD + 4
    with pytest.raises(sim.SimError, match="not counted in this launch"):
        report.metrics["global_load_sectors"]


def test_marks_do_not_stay():
    """A second launch counts its own bytes only."""
    m = sim.Machine(arch="sm_80")
    mod = m.module(ptx(SOME))
    a = m.zeros(1024)
    for n in (64, 32, 0):
        report = mod.kernel("k").launch(2, 32, [a, 0, np.uint32(n)])
        assert report.metrics["unique_bytes_read"] == 4 * n
        assert report.metrics["l2_read_misses"] == n // 8
