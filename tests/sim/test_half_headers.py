"""CUDA's headers spell out on old targets what newer ones have as an instruction: both must agree.

So NVIDIA itself gives a second opinion on conversions to 16, 8, 6 and 4 bits, and on bfloat16.
"""

from __future__ import annotations

import numpy as np
import pytest

from mlgpu import sim

MODES = ("rn", "rz", "rd", "ru")
SOURCES = {"float": "float", "double": "double", "halfraw": "__half_raw",
           "bfloat16raw": "__nv_bfloat16_raw"}

# (result, call); x, y and z are of the operands' type, which comes last.
CALLS = [
    *(("unsigned char", f"__nv_cvt_{s}_to_fp8(x, __NV_SATFINITE, {k})", t)
      for s, t in SOURCES.items() for k in ("__NV_E4M3", "__NV_E5M2")),
    *(("unsigned char", f"__nv_cvt_{s}_to_fp6(x, {k}, cudaRoundNearest)", t)
      for s, t in SOURCES.items() for k in ("__NV_E2M3", "__NV_E3M2")),
    *(("unsigned char", f"__nv_cvt_{s}_to_fp4(x, __NV_E2M1, cudaRoundNearest)", t)
      for s, t in SOURCES.items()),
    *(("unsigned char", f"__nv_cvt_{s}_to_e8m0(x, {sat}, {mode})", t)
      for s, t in SOURCES.items() if s != "halfraw"
      for sat in ("__NV_SATFINITE", "__NV_NOSAT") for mode in ("cudaRoundZero", "cudaRoundPosInf")),
    *(("unsigned short", f"__nv_cvt_fp8_to_halfraw(x, {k}).x", "unsigned char")
      for k in ("__NV_E4M3", "__NV_E5M2")),
    *(("unsigned short", f"__nv_cvt_fp6_to_halfraw(x & 63, {k}).x", "unsigned char")
      for k in ("__NV_E2M3", "__NV_E3M2")),
    ("unsigned short", "__nv_cvt_fp4_to_halfraw(x & 15, __NV_E2M1).x", "unsigned char"),
    ("unsigned short", "__nv_cvt_e8m0_to_bf16raw(x).x", "unsigned char"),
    *(("__nv_bfloat16", f"__float2bfloat16_{mode}(x)", "float") for mode in MODES),
    ("__nv_bfloat16", "__double2bfloat16(x)", "double"), ("__half", "__double2half(x)", "double"),
    *(("__nv_bfloat16", f"__{t}2bfloat16_{mode}(x)", c) for mode in MODES
      for t, c in (("int", "int"), ("uint", "unsigned"), ("ll", "long long"),
                   ("ull", "unsigned long long"), ("short", "short"))),
    *((c, f"__bfloat162{t}_{mode}(x)", "__nv_bfloat16") for mode in MODES
      for t, c in (("int", "int"), ("uint", "unsigned"), ("ll", "long long"),
                   ("ull", "unsigned long long"), ("short", "short"))),
    *(("__nv_bfloat16", f"{call}", "__nv_bfloat16")
      for call in ("__hadd(x, y)", "__hsub(x, y)", "__hmul(x, y)", "__hmax(x, y)", "__hmin(x, y)",
                   "__hmax_nan(x, y)", "__hmin_nan(x, y)", "hrint(x)", "hfloor(x)",
                   "__hadd_sat(x, y)", "__hmul_sat(x, y)")),
    *(("__half", f"{call}", "__half")
      for call in ("__hfma_relu(x, y, z)", "__hmax(x, y)", "__hmin_nan(x, y)", "hceil(x)")),
    *(("int", f"{call}", "__nv_bfloat16")
      for call in ("__hlt(x, y)", "__hltu(x, y)", "__hne(x, y)", "__hneu(x, y)", "__hisnan(x)")),
]
SOURCE = "\n".join(
    [f"#include <cuda_{h}.h>" for h in ("fp16", "bf16", "fp8", "fp6", "fp4")]
    + [f'extern "C" __global__ void k{i}({result} *d, const {type} *a, const {type} *b, '
       f"const {type} *c) {{ int i = blockIdx.x * blockDim.x + threadIdx.x; "
       f"{type} x = a[i], y = b[i], z = c[i]; d[i] = {call}; }}"
       for i, (result, call, type) in enumerate(CALLS)])
BYTES = {"float": 4, "double": 8, "int": 4, "unsigned": 4, "long long": 8, "unsigned long long": 8,
         "unsigned char": 1}


def operands(type: str) -> list[np.ndarray]:
    """Three arrays of 2048 values as bytes: special ones, middling ones, any bits."""
    rng = np.random.default_rng(1)
    if type == "float":
        return [_floats(rng).astype(np.float32) for _ in range(3)]
    if type == "double":
        return [_floats(rng) for _ in range(3)]
    arrays = [rng.integers(0, 256, 2048 * BYTES.get(type, 2), np.uint8) for _ in range(3)]
    if BYTES.get(type, 2) == 2:
        for a in arrays:
            a.view(np.uint16)[:1024] = (rng.integers(0x3400, 0x4800, 1024)
                                        | rng.integers(0, 2, 1024) << 15)
            a.view(np.uint16)[:10] = rng.permutation([0, 0x8000, 0x7c00, 0xfc00, 0x7fff, 0x7f80,
                                                      0xff80, 1, 0x8001, 0x3f80])
    return arrays


def _floats(rng: np.random.Generator) -> np.ndarray:
    x = rng.standard_normal(2048) * 10.0 ** rng.integers(-12, 7, 2048)
    x[:1024] = rng.integers(-4000, 4000, 1024) * 2.0 ** rng.integers(-20, 10, 1024)  # many ties
    x[:16] = [0, -0.0, np.inf, -np.inf, np.nan, 448, 449, 464, 465, 57344, 61440, 65520, -1e-45,
              2.0 ** -127, 1.1 * 2.0 ** -127, 3.4e38]
    return x


@pytest.fixture(scope="module", params=["sm_80", "sm_90", "sm_100a"])
def pair(request: pytest.FixtureRequest) -> list[tuple[sim.Machine, sim.Module]]:
    """The kernels on sm_75 and on a newer target."""
    machines = [sim.Machine(arch) for arch in ("sm_75", request.param)]
    return [(m, m.module(SOURCE)) for m in machines]


def test_emulation_and_instruction_agree(pair: list[tuple[sim.Machine, sim.Module]]) -> None:
    for i, (result, call, type) in enumerate(CALLS):
        outcomes = []
        for m, module in pair:
            arrays = [m.array(a) for a in operands(type)]
            d = m.zeros(2048 * BYTES.get(result, 2), np.uint8)
            module.kernel(f"k{i}").launch(8, 256, [d, *arrays])
            outcomes.append(d.numpy().view(f"u{BYTES.get(result, 2)}"))
            for buffer in (d, *arrays):
                buffer.free()
        old, new = outcomes
        wrong = np.flatnonzero(old != new)
        assert not wrong.size, f"{call} of {type}: {wrong.size} differ, first at {wrong[0]}"
        assert np.unique(old).size > 1, call
