"""The language: local arrays, calls, templates, tables, globals, constants, printf, clocks."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.testing import assert_allclose, assert_array_equal
from sim.corpus.program import program

from mlgpu import sim

Array = np.ndarray[Any, Any]


@program("language.cu")
def insertion_sort(m: sim.Machine, mod: Any) -> None:
    for rows in (3, 50):
        x = np.random.default_rng(0).integers(-99, 99, (rows, 16), np.int32)
        out = m.array(x)
        mod.kernel("insertion_sort").launch(2, 32, (out, np.int32(rows)))
        assert_array_equal(out.numpy(), np.sort(x, 1))


@program("language.cu")
def scatter_bytes(m: sim.Machine, mod: Any) -> None:
    rng = np.random.default_rng(1)
    order, x = rng.integers(0, 256, (2, 40, 16), np.uint8)
    out = m.empty((40, 2), np.uint64)
    mod.kernel("scatter_bytes").launch(2, 32, (out, m.array(order), m.array(x), np.int32(40)))
    expected = np.zeros((40, 16), np.uint8)
    for k in range(16):
        expected[np.arange(40), order[:, k] & 15] = x[:, k]
    halves = expected.view(np.uint16)
    halves[np.arange(40), order[:, 0] & 7] ^= 0x8001
    assert_array_equal(out.numpy(), expected.view(np.uint64))


def _solve(a: Array, b: Array, c: Array) -> tuple[Array, Array, Array]:
    inside = b * b - 4 * a * c
    with np.errstate(invalid="ignore"):
        q = -0.5 * (b + np.copysign(np.sqrt(inside), b))
    roots = np.stack([q / a, c / q])
    real = inside >= 0
    count = np.where(inside > 0, 2, real)
    return np.where(real, roots.min(0), 0), np.where(real, roots.max(0), 0), count


@program("language.cu")
def quadratics(m: sim.Machine, mod: Any) -> None:
    n = 75
    x = np.random.default_rng(2).uniform(-3, 3, (n, 3))
    x[:4] = [1, 2, 1], [1, -4, 4], [2, 1, 9], [1, -3, 2]  # one double root each, none, two
    out, counts = m.empty((n, 2), np.float64), m.empty(n, np.int32)
    mod.kernel("quadratics").launch(3, 32, (out, counts, m.array(x), np.int32(n)))
    low, high, count = _solve(*x.T)
    _, other, more = _solve(*x.T[::-1])
    third = np.arange(n) % 3 == 0
    assert_array_equal(counts.numpy(), count + 10 * third * more)
    assert_allclose(out.numpy(), np.stack([low + third * other, high], 1), rtol=1e-9, atol=1e-12)


def _digits(value: int, base: int) -> list[int]:
    found = [value % base]
    while value := value // base:
        found.append(value % base)
    return found


@program("language.cu")
def palindromes(m: sim.Machine, mod: Any) -> None:
    x = np.array([0, 1, 121, 12321, 0b1011101, 2**32 - 1, 7 * 1297, 10, 1234567, 99099, 5],
                 np.uint32)
    out = m.empty(x.size, np.int32)
    mod.kernel("palindromes").launch(1, 32, (out, m.array(x), np.int32(x.size)))
    digits = [[_digits(v, base) for base in (2, 6, 10)] for v in x.tolist()]
    expected = [sum((d == d[::-1]) << base for d, base in zip(row, (2, 6, 10), strict=True))
                for row in digits]
    assert_array_equal(out.numpy(), expected)


@program("language.cu")
def apply_by_pointer(m: sim.Machine, mod: Any) -> None:
    rng = np.random.default_rng(3)
    x, which = rng.standard_normal(50).astype(np.float32), rng.integers(0, 3, 50, np.int32)
    out = m.array(x)
    mod.kernel("apply_by_pointer").launch(2, 32, (out, m.array(which), np.int32(50)))
    assert_array_equal(out.numpy(), np.choose(which, [x * x, x / 2, -x]))


@program("language.cu")
def calculator(m: sim.Machine, mod: Any) -> None:
    rng = np.random.default_rng(4)
    n = 130
    op = rng.integers(-1, 12, n, np.int32)
    a, b = rng.integers(-1000, 1000, (2, n), np.int32)
    b[::7] = 0
    out = m.empty(n, np.int32)
    args = out, m.array(op), m.array(a), m.array(b), np.int32(n)
    mod.kernel("calculator").launch(5, 32, args)
    safe = np.where(b, b, 1)
    quotient = np.trunc(a / safe).astype(np.int32)
    shifts = sum(np.where(k < (b & 7), a >> k, 0) for k in range(7))
    results = [a + b, a - b, a * b, np.where(b, quotient, 0),
               np.where(b, a - quotient * safe, 0), a & b, a | b, (a << (b & 31)) ^ b, a ^ b,
               shifts]
    expected = np.full(n, -1)
    for code, result in enumerate(results):
        expected[op == code] = result[op == code]
    assert_array_equal(out.numpy(), expected)


@program("language.cu")
def jump_table(m: sim.Machine, mod: Any) -> None:
    op = np.random.default_rng(5).integers(0, 4, 90, np.uint32)
    out = m.empty(90, np.int32)
    mod.kernel("jump_table").launch(3, 32, (out, m.array(op), np.int32(90)))
    i = np.arange(90)
    assert_array_equal(out.numpy(), np.choose(op, [i + 100, 2 * i, -i, i]))


def _run(program: list[int]) -> int:
    """One little machine, in unsigned 32-bit arithmetic."""
    stack, at = [0], 0
    while at < len(program):
        code, value = program[at] >> 4, program[at] & 15
        at += 1
        if code == 0:
            break
        if code == 1 and len(stack) < 8:
            stack.append(value)
        elif code in (2, 3) and len(stack) > 1:
            top = stack.pop()
            stack[-1] = (stack[-1] + top if code == 2 else stack[-1] * top) % 2**32
        elif code == 4:
            stack[-1] = -stack[-1] % 2**32
        elif code == 5 and 0 < stack[-1] < 2**31:
            at += value & 3
        elif code == 6 and len(stack) < 8:
            stack.append(stack[-1])
    return stack[-1]


@program("language.cu")
def run_programs(m: sim.Machine, mod: Any) -> None:
    rng = np.random.default_rng(6)
    n, length = 40, 14
    programs = (rng.integers(0, 8, (n, length)) << 4 | rng.integers(0, 16, (n, length)))
    programs[:, 0] = 0x13
    programs[::2] |= 0x10 * (programs[::2] < 16)  # fewer early ends
    code = programs.astype(np.uint8)
    out = m.empty(n, np.uint32)
    mod.kernel("run_programs").launch(2, 32, (out, m.array(code), np.int32(length), np.int32(n)))
    assert_array_equal(out.numpy(), [_run(row) for row in code.tolist()])


@program("language.cu")
def polynomials(m: sim.Machine, mod: Any) -> None:
    rng = np.random.default_rng(7)
    n = 50
    table = rng.standard_normal((4, 5)).astype(np.float32)
    mod.symbol("coefficients").set(table)
    x = rng.uniform(-2, 2, n).astype(np.float32)
    for which in (0, 3):
        out = m.empty(n, np.float32)
        args = out, m.array(x), np.int32(which), np.int32(n)
        mod.kernel("polynomials").launch(2, 32, args)
        expected = np.polyval(table[which, ::-1].astype(np.float64), x)
        assert_allclose(out.numpy(), expected, rtol=1e-5, atol=1e-5)


@program("language.cu")
def substitute(m: sim.Machine, mod: Any) -> None:
    rng = np.random.default_rng(8)
    sbox = rng.permutation(256).astype(np.uint8)
    rounds, key = 6, rng.integers(0, 2**32, 4, np.uint32)
    mod.symbol("sbox").set(sbox)
    layout = np.dtype([("rounds", np.int32), ("key", np.uint32, 4)])
    mod.symbol("settings").set(np.array((rounds, key), layout))
    x = rng.integers(0, 2**32, 70, np.uint32)
    out = m.array(x)
    mod.kernel("substitute").launch(3, 32, (out, np.int32(70)))
    for r in range(rounds):
        x = sbox[(x ^ key[r & 3]).view(np.uint8)].view(np.uint32)
        x = x << np.uint32(5) | x >> np.uint32(27)
    assert_array_equal(out.numpy(), x)


@program("language.cu")
def use_globals(m: sim.Machine, mod: Any) -> None:
    def value(name: str, dtype: Any) -> Array:
        return np.frombuffer(mod.symbol(name).numpy().tobytes(), dtype)

    out, target = m.empty(5, np.int32), m.empty(32, np.float32)
    mod.symbol("target").set(np.array([target.ptr], np.uint64))
    text = 0
    for letter in b"hello":
        text = text * 31 + letter
    for launch in range(2):
        mod.kernel("use_globals").launch(1, 32, (out,))
        expected = [100 + launch, 7, launch - 70000, ord("z"), text]
        assert_array_equal(out.numpy(), expected)
    assert value("launches", np.int32).tolist() == [102]
    assert value("history", np.float64).tolist() == [1.5, -2.25, -0.75, 1e300]
    assert_array_equal(target.numpy(), np.arange(32) / 2)
    mod.symbol("launches").set(np.array([7], np.int32))
    mod.kernel("use_globals").launch(1, 32, (out,))
    assert out.numpy()[0] == 7


@program("language.cu")
def report(m: sim.Machine, mod: Any) -> None:
    x = np.array([1, -0.5, 2, -3.25] * 10, np.float32)
    n = 37
    result = mod.kernel("report").launch(2, 32, (m.array(x), np.int32(n)))
    expected = ["Abeef 010 1.234568e+04 4000000000 no arguments next", "done"]
    for i in np.flatnonzero(x[:n] < 0).tolist():
        size = "large" if x[i] < -1 else "small"
        expected.append(f"block {i // 32} thread {i % 32}: {x[i]:8.3f} ({size}) "
                        f"{-5000000000 * i:5d}%")
    assert sorted(result.output.splitlines()) == sorted(expected)
    assert result.output.endswith("\n")


@program("language.cu")
def timing(m: sim.Machine, mod: Any) -> None:
    out = m.empty((64, 4), np.int64)
    mod.kernel("timing").launch(1, 64, (out,))
    found = out.numpy()
    assert (found[:, :2] > 0).all()
    assert (found[:, 2] >= 0).all()
    assert_array_equal(found[:, 3], np.arange(64) % 32)


@program("language.cu")
def carve(m: sim.Machine, mod: Any) -> None:
    for n, block in ((48, (8, 6)), (33, (11, 4))):
        out = m.empty(n, np.float64)
        mod.kernel("carve").launch(1, block, (out, np.int32(n)), shared_mem=13 * n)
        t = np.arange(n)
        expected = 0.25 * (n - 1 - t) + 3 * (n - 1 - t) + (200 + (t + 1) % n) % 256
        assert_array_equal(out.numpy(), expected)


@program("language.cu", names=("power<5, float>", "power<0, int>", "power<10, double>"))
def power(m: sim.Machine, mod: Any) -> None:
    x = np.random.default_rng(9).integers(-4, 5, 40)
    for name, dtype, exponent in (("power<5, float>", np.float32, 5),
                                  ("power<0, int>", np.int32, 0),
                                  ("power<10, double>", np.float64, 10)):
        out = m.array(x.astype(dtype))
        mod.kernel(name).launch(2, 32, (out, np.int32(40)))
        assert_array_equal(out.numpy(), x**exponent)


@program("language.cu")
def checked(m: sim.Machine, mod: Any) -> None:
    x = np.arange(50, dtype=np.int32)
    out = m.array(x)
    mod.kernel("checked").launch(2, 32, (out, np.int32(50)))
    assert_array_equal(out.numpy(), x + 1)


@program("language.cu")
def areas(m: sim.Machine, mod: Any) -> None:
    x = np.random.default_rng(10).uniform(0, 3, 40).astype(np.float32)
    out = m.empty(40, np.float32)
    mod.kernel("areas").launch(2, 32, (out, m.array(x), np.int32(40)))
    wide = x.astype(np.float64) ** 2
    expected = np.where(np.arange(40) % 3 == 0, np.pi * wide, wide)
    assert_allclose(out.numpy(), expected, rtol=1e-6)
