"""What the tensor cores' instructions emit, and which operands they refuse."""

import numpy as np
import pytest
from sim.straight import Straight, instructions

from mlgpu.sim.errors import UnsupportedError
from mlgpu.sim.isa import tensor  # noqa: F401  (declares the instructions)
from mlgpu.sim.isa.registry import INSTRUCTIONS
from mlgpu.sim.numeric.fragments import movmatrix
from mlgpu.sim.numeric.mma_forms import mma_function, wmma_function

REGISTERS = {**{f"%r{i}": "b32" for i in range(40)}, **{f"%f{i}": "f32" for i in range(16)},
             **{f"%h{i}": "b16" for i in range(4)}}


class Warps(Straight):
    """An emitter that calls functions of warps on (1, 32 * warps) registers."""

    def warp_call(self, function, sources, destinations):
        names = ", ".join(self.use(operand, kind) for operand, kind in sources)
        called = self.bind(f"{self.fn(run)}({self.fn(function)}, ({names},))")
        for i, (operand, kind) in enumerate(destinations):
            self.set(operand, kind, f"{called}[{i}]")


def run(function, sources):
    shape = (max(s.size for s in sources) // 32, 32)
    wide = [np.broadcast_to(s.reshape(-1, 32) if s.size > 1 else s, shape) for s in sources]
    return [r.reshape(1, -1) for r in function([np.ascontiguousarray(w) for w in wide])]


def execute(text, given):
    emitter = Warps(REGISTERS, {})
    for ins in instructions(text, REGISTERS, {}):
        emitter.ins = ins
        INSTRUCTIONS[ins.opcode](emitter, ins)
    scope = dict(emitter.namespace, given=given)
    exec("\n".join(emitter.lines), scope)
    return {name: scope[value] for name, (value, _) in emitter.values.items()
            if name in emitter.written}


def inputs(*names):
    rng = np.random.default_rng(3)
    return {name: (rng.standard_normal((1, 64)).astype("f4") if name[1] == "f" else
                   rng.standard_normal((1, 128)).astype("f2").view("u4")) for name in names}


def warps(given, names):
    return [given[name].reshape(-1, 32) for name in names.split()]


FORM = "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32"
SCALED = ("mma.sync.aligned.m16n8k32.row.col.kind::mxf8f6f4.block_scale."
          "f32.e4m3.e4m3.f32.ue8m0")
A, B, C = "%r0 %r1 %r2 %r3", "%r4 %r5", "%f0 %f1 %f2 %f3"
GIVEN = inputs(*f"{A} {B} {C}".split())


def braces(names):
    return "{" + names.replace(" ", ", ") + "}"


def test_mma_hands_its_registers_over_in_order():
    out = execute(f"{FORM} {{%f4, %f5, %f6, %f7}}, {braces(A)}, {braces(B)}, {braces(C)}",
                  GIVEN)
    want = mma_function(tuple(FORM.split(".")[1:]))(warps(GIVEN, A), warps(GIVEN, B),
                                                    warps(GIVEN, C))
    assert list(out) == ["%f4", "%f5", "%f6", "%f7"]
    for got, register in zip(out.values(), want, strict=True):
        assert np.array_equal(got, register.reshape(1, -1))


def test_the_accumulator_may_be_its_own_destination_and_a_constant():
    own = execute(f"{FORM} {braces(C)}, {braces(A)}, {braces(B)}, {braces(C)}", GIVEN)
    zero = execute(f"{FORM} {braces(C)}, {braces(A)}, {braces(B)}, "
                   "{0f3F800000, 0f3F800000, 0f3F800000, 0f3F800000}", GIVEN)
    for name in C.split():
        assert np.allclose(own[name] - GIVEN[name], zero[name] - 1, atol=1e-5)


def test_scales_follow_the_matrices():
    given = {**GIVEN, "%r10": np.full((1, 64), 0x01807F00, "u4"),
             "%r11": np.full((1, 64), 0x7E7E7E7E, "u4"), "%h0": np.full((1, 64), 2, "u2")}
    ones = {name: np.full((1, 64), 0x38383838, "u4") for name in f"{A} {B}".split()}
    zeros = {name: np.zeros((1, 64), "f4") for name in C.split()}
    out = execute(f"{SCALED} {braces(C)}, {braces(A)}, {braces(B)}, {braces(C)}, "
                  "%r10, {%h0, 1}, %r11, {0, 3}", {**given, **ones, **zeros})
    for name in C.split():  # the third byte of A's scales is 2, any of B's is a half
        assert np.all(out[name] == 32.0)


def test_wmma_and_movmatrix():
    form = "mma.sync.aligned.row.col.m16n16k16.f16.f16"
    fragments = [" ".join(f"%r{8 * i + j}" for j in range(8)) for i in range(2)]
    given = inputs(*" ".join(fragments).split(), *(f"%r{i}" for i in range(16, 20)))
    out = execute(f"wmma.{form} {{%r20, %r21, %r22, %r23}}, {braces(fragments[0])}, "
                  f"{braces(fragments[1])}, {{%r16, %r17, %r18, %r19}}; "
                  "movmatrix.sync.aligned.m8n8.trans.b16 %r24, %r20", given)
    want = wmma_function(tuple(form.split(".")))(
        *(warps(given, f) for f in fragments), warps(given, "%r16 %r17 %r18 %r19"))
    for i, register in enumerate(want):
        assert np.array_equal(out[f"%r{20 + i}"], register.reshape(1, -1))
    assert np.array_equal(out["%r24"], movmatrix(want[0]).reshape(1, -1))


@pytest.mark.parametrize(("text", "why"), [
    (f"{FORM} {braces(C)}, {braces(B)}, {braces(B)}, {braces(C)}", "A takes 4 registers"),
    (f"{FORM} {braces(C)}, {braces(A)}, %r4, {braces(C)}", "B takes 2 registers in braces"),
    (f"{FORM} {braces(C)}, {braces(A)}, {braces(B)}", "3 operands"),
    (f"{FORM} {braces(C)}, {braces(A)}, {braces(B)}, {braces(C)}, %r0, 0", "6 operands"),
    (f"{FORM.replace('k16', 'k64')} {braces(C)}, {braces(A)}, {braces(B)}, {braces(C)}",
     "no such types"),
    (f"mma.sp{FORM[3:]} {braces(C)}, {braces(A)}, {braces(B)}, {braces(C)}, %r0, 0", r"no \.sp"),
    ("movmatrix.sync.aligned.m8n8.b16 %r0, %r1", "movmatrix is known as"),
    ("wmma.fill.sync %r0, %r1", "not known"),
    (f"{SCALED} {braces(C)}, {braces(A)}, {braces(B)}, {braces(C)}, %r0, %h0, %r1, %h0", "byte-id"),
])
def test_operands_that_do_not_fit_are_refused(text, why):
    with pytest.raises(UnsupportedError, match=why):
        execute(text, GIVEN)
