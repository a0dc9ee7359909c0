"""Write the polynomials of special functions: `python docs/special_tables.py`, in a minute.

Needs mpmath.  Each is the Chebyshev interpolant of a smooth part of a function over an interval,
computed in 60 digits, cut off where it is as near as double precision can say, and written in
powers of u, which runs from -1 to 1 as the variable runs over the interval, or (where all terms
have one sign) from 0 to 1: so that no digits are lost among terms.  What is left of the
functions (singular factors, zeros, asymptotic forms) is in mlgpu/expr/special.py, which says what
each table is of.
"""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import mpmath as mp

mp.mp.dps = 60
TARGET = Path(__file__).parent.parent / "mlgpu" / "expr" / "tables.py"
HEAD = '''"""Polynomials of special functions: written by docs/special_tables.py, which see.

Each is (shift, scale, coefficients): of u = (t - shift) * scale, lowest power first.
Zeros are two numbers, of which the second is what the first lacks.
"""

from __future__ import annotations

Table = tuple[float, float, tuple[float, ...]]

'''
# The tail that is cut off, beside the smallest value over the interval.
CUT = mp.mpf(2) ** -56


def fitted(f: Callable[[Any], Any], low: Any, high: Any, growing: bool
           ) -> tuple[float, float, list[Any]]:
    """Shift, scale and coefficients of f over [low, high]; in powers of t alone if `growing`."""
    middle, half, n = (mp.mpf(low) + high) / 2, (mp.mpf(high) - low) / 2, 64
    angles = [mp.pi * (k + mp.mpf(1) / 2) / n for k in range(n)]
    values = [f(middle + half * mp.cos(a)) for a in angles]
    series = [2 * mp.fsum(v * mp.cos(j * a) for v, a in zip(values, angles, strict=True)) / n
              for j in range(n)]
    series[0] /= 2
    scale = min(map(abs, values)) * CUT
    if mp.fsum(map(abs, series[-4:])) > scale:
        raise ValueError(f"{f.__name__}: {n} terms are too few over [{low}, {high}]")
    while mp.fsum(map(abs, series[-4:])) < scale:
        series.pop()
    shift, factor = (0.0, float(1 / mp.mpf(high))) if growing else (float(middle), float(1 / half))
    # The Chebyshev polynomials' own variable, of u.
    start = (shift - middle) / half
    step = 1 / (mp.mpf(factor) * half)
    return shift, factor, _powers(series, start, step)


def _powers(series: list[Any], start: Any, step: Any) -> list[Any]:
    """A Chebyshev series of start + step u in powers of u."""
    before, now = [mp.mpf(1)], [start, step]
    total = [mp.mpf(0)] * len(series)
    for c in series:
        for power, value in enumerate(before):
            total[power] += c * value
        after = [mp.mpf(0)] * (len(now) + 1)
        for power, value in enumerate(now):
            after[power] += 2 * start * value
            after[power + 1] += 2 * step * value
        for power, value in enumerate(before):
            after[power] -= value
        before, now = now, after
    return total


def zeros(name: str, *values: Any) -> str:
    """Zeros as pairs of numbers, one or several."""
    pairs = [f"({float(v)!r}, {float(v - mp.mpf(float(v)))!r})" for v in values]
    if len(pairs) == 1:
        return f"{name} = {pairs[0]}\n"
    return f"{name} = (" + ",\n    ".join(pairs) + ")\n"


def table(name: str, f: Callable[[Any], Any], low: Any, high: Any, growing: bool = False) -> str:
    """The table of f over [low, high]."""
    shift, scale, powers = fitted(f, low, high, growing)
    print(f"{name}: {len(powers)} terms")
    return f"{name}: Table = ({shift!r}, {scale!r}, (\n   {_lines(powers, 3)}))\n"


def _lines(numbers: list[Any], indent: int) -> str:
    """Numbers within the margin, each with a comma."""
    lines, line = [], ""
    for number in numbers:
        text = f" {float(number)!r},"
        if indent + len(line) + len(text) > 98:
            lines.append(line)
            line = ""
        line += text
    return ("\n" + " " * indent).join([*lines, line])


def _amplitude(order: int, x: Any) -> Any:
    """P + iQ of the Bessel functions of the first two kinds: H(x) = sqrt(2 / (pi x)) (P + iQ)
    exp(i (x - order pi / 2 - pi / 4))."""
    turned = mp.hankel1(order, x) * mp.expj(-(x - order * mp.pi / 2 - mp.pi / 4))
    return turned * mp.sqrt(mp.pi * x / 2)


def _far(order: int, part: str) -> Callable[[Any], Any]:
    """P, or Q x / 5, as a function of (5 / x)^2."""
    def f(z: Any) -> Any:
        if z < mp.mpf(10) ** -20:
            z = mp.mpf(10) ** -20
        x = 5 / mp.sqrt(z)
        found = _amplitude(order, x)
        return found.real if part == "P" else found.imag * x / 5

    return f


def bessel() -> str:
    """J, Y, I, K of orders 0 and 1."""
    text = ""
    for order in (0, 1):
        root = mp.besseljzero(order, 1)

        def regular(t: Any, order: int = order, root: Any = root) -> Any:
            x = mp.sqrt(t)
            return mp.besselj(order, x) / x ** order / (t - root ** 2)

        def second(t: Any, order: int = order) -> Any:
            x = mp.sqrt(t)
            rest = mp.bessely(order, x) - 2 / mp.pi * mp.log(x) * mp.besselj(order, x)
            return rest if order == 0 else (rest + 2 / (mp.pi * x)) / x

        def grown(t: Any, order: int = order) -> Any:
            x = mp.sqrt(t)
            return mp.besseli(order, x) / x ** order

        def grown_far(v: Any, order: int = order) -> Any:
            x = 8 / v
            return mp.sqrt(x) * mp.exp(-x) * mp.besseli(order, x)

        def sunk(t: Any, order: int = order) -> Any:
            x = mp.sqrt(t)
            log = mp.log(x / 2)
            if order == 0:
                return mp.besselk(0, x) + log * mp.besseli(0, x)
            return x * (mp.besselk(1, x) - log * mp.besseli(1, x))

        def sunk_far(v: Any, order: int = order) -> Any:
            x = 1 / v
            return mp.sqrt(x) * mp.exp(x) * mp.besselk(order, x)

        text += zeros(f"J{order}_ZERO", root)
        text += table(f"J{order}", regular, 0, 25)
        text += table(f"Y{order}", second, 0, 25)
        text += table(f"J{order}_P", _far(order, "P"), 0, 1)
        text += table(f"J{order}_Q", _far(order, "Q"), 0, 1)
        text += table(f"I{order}", grown, 0, 64, growing=True)
        text += table(f"I{order}_FAR", grown_far, 0, 1)
        text += table(f"K{order}", sunk, 0, 4, growing=True)
        text += table(f"K{order}_MIDDLE", sunk_far, 0.125, 0.5)
        text += table(f"K{order}_FAR", sunk_far, 0, 0.125)
    return text


def airy() -> str:
    """Ai and its derivative; z is 2/3 |x|^(3/2)."""
    def order(x: Any) -> Any:
        return 2 * x * mp.sqrt(x) / 3

    def size(v: Any) -> Any:
        return (mp.mpf(3) / (2 * v)) ** (mp.mpf(2) / 3)

    def sunk(v: Any) -> Any:
        x = size(v)
        return 2 * mp.sqrt(mp.pi * mp.sqrt(x)) * mp.exp(order(x)) * mp.airyai(x)

    def slope_sunk(v: Any) -> Any:
        x = size(v)
        factor = -2 * mp.sqrt(mp.pi / mp.sqrt(x)) * mp.exp(order(x))
        return factor * mp.airyai(x, derivative=1)

    def turned(w: Any, derivative: int) -> tuple[Any, Any]:
        """The factors of the cosine and sine of z - pi / 4, at z = 6 / sqrt(w)."""
        z = 6 / mp.sqrt(w)
        x = (3 * z / 2) ** (mp.mpf(2) / 3)
        c, s = mp.cos(z - mp.pi / 4), mp.sin(z - mp.pi / 4)
        root = mp.sqrt(mp.pi) * x ** (mp.mpf(1) / 4 - mp.mpf(derivative) / 2)
        a, b = (root * f(-x, derivative=derivative) for f in (mp.airyai, mp.airybi))
        if derivative:
            return s * a + c * b, (s * b - c * a) * z / 6
        return c * a - s * b, (s * a + c * b) * z / 6

    text = ""
    for name, derivative, decaying in (("AI", 0, sunk), ("AI_SLOPE", 1, slope_sunk)):
        roots = [mp.airyaizero(k, derivative=derivative) for k in (1, 2)]

        def near(x: Any, derivative: int = derivative, roots: Any = roots) -> Any:
            value = mp.airyai(x, derivative=derivative)
            return value / ((x - roots[0]) * (x - roots[1]))

        def over(x: Any, derivative: int = derivative) -> Any:
            return mp.airyai(x, derivative=derivative)

        text += zeros(f"{name}_ZEROS", *roots)
        text += table(f"{name}_BELOW", near, -4.5, 0)
        text += table(f"{name}_ABOVE", over, 0, 2)
        text += table(f"{name}_SUNK", decaying, 0, 1 / order(mp.mpf(2)))
        for part, letter in enumerate("PQ"):
            text += table(f"{name}_{letter}",
                          lambda w, part=part, d=derivative: turned(w, d)[part], 0, 1)
    return text


def error_functions() -> str:
    """(1 + 2 x) exp(x^2) erfc(x), and quantiles of the normal distribution."""
    def scaled(t: Any) -> Any:
        x = mp.mpf(3.75) * (1 + t) / (1 - t)
        return (1 + 2 * x) * _erfcx(x)

    def central(t: Any) -> Any:
        q = mp.sqrt(t)
        return _quantile(mp.mpf(1) / 2 - q) / -q

    def tail(r: Any) -> Any:
        return -_quantile(mp.exp(-r * r))

    text = table("ERFCX", scaled, -1, 1)
    text += table("QUANTILE", central, 0, 0.09, growing=True)
    for name, low, high in (("NEAR", 1.25, 3), ("MIDDLE", 3, 8), ("FAR", 8, 27.5)):
        text += table(f"QUANTILE_{name}", tail, low, high)
    return text


def _erfcx(x: Any) -> Any:
    if x > 1e4:  # a continued fraction's first terms, beyond what erfc holds
        return mp.quad(lambda s: mp.exp(-s * s - 2 * x * s), [0, 1 / x, 10 / x, 100 / x]) * (
            2 / mp.sqrt(mp.pi))
    return mp.exp(x * x) * mp.erfc(x)


def _quantile(p: Any) -> Any:
    """The x below which a standard normal number is with probability p < 0.5: Newton on logs."""
    x = -mp.sqrt(-2 * mp.log(2 * p))
    for _ in range(12):
        below = mp.erfc(-x / mp.sqrt(2)) / 2
        x -= (mp.log(below) - mp.log(p)) * below * mp.sqrt(2 * mp.pi) * mp.exp(x * x / 2)
    return x


def incomplete_gamma() -> str:
    """lgamma(1 + a) / a, (t - log1p(t)) / t^2, and Temme's coefficients."""
    def log_gamma(a: Any) -> Any:
        return mp.loggamma(1 + a) / a

    def lacking(t: Any) -> Any:
        return (t - mp.log1p(t)) / t ** 2

    text = table("LGAMMA", log_gamma, 0, 1.125)
    text += table("LOG_LACKS", lacking, -0.4, 0.6)
    rows = []
    for k, row in enumerate(temme(9, 30)):
        # What counts at eta = 0.28 and a = 100.
        counts = [n for n, c in enumerate(row) if abs(c) * 0.28 ** n / 100 ** k > 2e-18]
        if counts:
            rows.append(f"    ({_lines(row[:counts[-1] + 1], 4).strip()}),\n")
    print(f"TEMME: {len(rows)} rows")
    text += f"TEMME: tuple[tuple[float, ...], ...] = (\n{''.join(rows)})\n"
    nodes, weights = legendre(24)
    return text + f"NODES = (\n   {_lines(nodes, 3)})\nWEIGHTS = (\n   {_lines(weights, 3)})\n"


def legendre(n: int) -> tuple[list[Any], list[Any]]:
    """Nodes and weights of Gauss and Legendre on [0, 1]."""
    nodes, weights = [], []
    for k in range(n):
        x = mp.cos(mp.pi * (n - k - mp.mpf(1) / 4) / (n + mp.mpf(1) / 2))
        for _ in range(8):
            slope = n * (x * mp.legendre(n, x) - mp.legendre(n - 1, x)) / (x * x - 1)
            x -= mp.legendre(n, x) / slope
        nodes.append((1 + x) / 2)
        weights.append(1 / ((1 - x * x) * slope ** 2))
    return nodes, weights


def temme(orders: int, terms: int) -> list[list[Fraction]]:
    """c_k(eta) in powers of eta, exactly: N. M. Temme, The asymptotic expansion of the incomplete
    gamma functions, SIAM J. Math. Anal. 10 (1979)."""
    size = terms + 2 * orders + 2
    # mu(eta) = lambda - 1, from mu mu' = eta (1 + mu).
    mu = [Fraction(0), Fraction(1)]
    for n in range(2, size):
        known = sum(i * mu[i] * mu[n + 1 - i] for i in range(2, n))
        mu.append((mu[n - 1] - known) / (n + 1))
    # 1 / mu = (1 / eta) (1 / (mu / eta)): coefficients from the power -1 on.
    inverse: list[Fraction] = []
    for n in range(size - 1):
        rest = sum(mu[i + 1] * inverse[n - i] for i in range(1, n + 1))
        inverse.append(Fraction(int(n == 0)) - rest)
    current = inverse[1:]  # 1 / mu - 1 / eta
    rows = [current[:terms]]
    for k in range(1, orders):
        slope = [i * c for i, c in enumerate(current)][1:]
        factor = (-1) ** k * _stirling(k)
        # What 1 / eta multiplies is taken off: slope[0] + factor.
        if slope[0] + factor:
            raise ArithmeticError(f"the pole of order {k} does not cancel")
        current = [s + factor * i for s, i in zip(slope[1:], inverse[1:], strict=False)]
        rows.append(current[:terms])
    return rows


def _stirling(k: int) -> Fraction:
    """The coefficient of a^-k in gamma(a) / (exp(-a) a^a sqrt(2 pi / a)): exp of Stirling's."""
    logs = [Fraction(0)] * (k + 1)
    for n in range(1, k + 1, 2):
        logs[n] = Fraction(*mp.bernfrac(n + 1)) / (n * (n + 1))
    series = [Fraction(1)]
    for n in range(1, k + 1):
        series.append(sum((i * logs[i] * series[n - i] for i in range(1, n + 1)), Fraction(0)) / n)
    return series[k]


if __name__ == "__main__":
    TARGET.write_text(HEAD + bessel() + airy() + error_functions() + incomplete_gamma(),
                      encoding="utf-8")
