"""Poisson counts: inversion for small rates, transformed rejection for large ones.

Rate i has words 2i and 2i + 1 of each of the draw's private lines: one line a round, so that its
count depends on no other rate.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from mlgpu.random import Stream

Array = np.ndarray[Any, Any]

LARGE = 10.0  # the rate from which rejection is used: its constants hold from there on
BLOCK = 1 << 16


def counts(rates: Array, stream: Stream) -> Array:
    """One count per rate, in float64; rates must be finite and not negative."""
    out = np.empty_like(rates)
    for first in range(0, rates.size, BLOCK):
        block, result = rates[first:first + BLOCK], out[first:first + BLOCK]
        large = block >= LARGE
        for part, function in ((~large, _inverted), (large, _rejected)):
            places = np.flatnonzero(part)
            if places.size:
                result[places] = function(block[places], stream, first + places)
    return out


def _uniform(stream: Stream, round: int, places: Array) -> tuple[Array, Array]:
    """Two numbers in (0, 1) for each place, of 52 bits: never an end."""
    start, end = int(places[0]), int(places[-1]) + 1
    words = stream.private(round, 2 * start, 2 * (end - start)).reshape(-1, 2)[places - start]
    x = ((words >> np.uint64(12)).astype(np.float64) + 0.5) * 2.0 ** -52
    return x[:, 0], x[:, 1]


def _inverted(rates: Array, stream: Stream, places: Array) -> Array:
    """The first k whose cumulative probability reaches u."""
    u, _ = _uniform(stream, 0, places)
    probability = np.exp(-rates)
    result = np.zeros_like(rates)
    for k in range(1, 128):  # rates below 10 have less than 2**-53 left long before
        left = u > probability
        if not left.any():
            break
        u -= probability
        result[left] = k
        np.copyto(u, -1.0, where=~left)
        probability *= rates / k
    return result


def _rejected(rates: Array, stream: Stream, places: Array) -> Array:
    """Hörmann, "The transformed rejection method for generating Poisson random variables" (1993).

    Algorithm PTRS.  Each round draws for the rates that are still without a count.
    """
    result = np.empty_like(rates)
    left = np.arange(rates.size)
    round = 0
    while left.size:
        rate = rates[left]
        b = 0.931 + 2.53 * np.sqrt(rate)
        a = -0.059 + 0.02483 * b
        u, v = _uniform(stream, round, places[left])
        u = u - 0.5
        edge = 0.5 - np.abs(u)
        k = np.floor((2 * a / edge + b) * u + rate + 0.43)
        inside = (edge >= 0.07) & (v <= 0.9277 - 3.6224 / (b - 2))
        possible = (k >= 0) & ((edge >= 0.013) | (v <= edge))
        height = np.log(v * (1.1239 + 1.1328 / (b - 3.4)) / (a / edge ** 2 + b))
        accepted = inside | (possible & (height <= _log_probability(np.maximum(k, 0), rate)))
        result[left[accepted]] = k[accepted]
        left = left[~accepted]
        round += 1
    return result


# log(k!) - (k log k - k + log(2 pi k) / 2), small k
_STIRLING = np.array([0.0] + [
    math.lgamma(k + 1) - (k * math.log(k) - k + 0.5 * math.log(2 * math.pi * k))
    for k in range(1, 16)])


def _log_probability(k: Array, rate: Array) -> Array:
    """log P(k), accurate for large rates too: by deviance (Loader, 2000), not by lgamma."""
    some = np.maximum(k, 1)
    error = np.where(some < 16, _STIRLING[np.minimum(some, 15).astype(np.int64)],
                     (1 / 12 - (1 / 360 - 1 / 1260 / some ** 2) / some ** 2) / some)
    excess = (some - rate) / rate
    deviance = rate * ((1 + excess) * np.log1p(excess) - excess)
    return np.where(k == 0, -rate, -deviance - error - 0.5 * np.log(2 * math.pi * some))
