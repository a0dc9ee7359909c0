"""Poisson counts: inversion for small rates, transformed rejection for large ones."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]
Source = Callable[[int], Any]  # gives so many fresh words

LARGE = 10.0  # the rate from which rejection is used: its constants hold from there on


def counts(rates: Array, take: Source) -> Array:
    """One count per rate, in float64; rates must be finite and not negative."""
    out = np.empty_like(rates)
    large = rates >= LARGE
    out[~large] = _inverted(rates[~large], take)
    out[large] = _rejected(rates[large], take)
    return out


def _uniform(take: Source, count: int) -> Array:
    """In (0, 1), 53 bits: never an end."""
    x = (take(count) >> np.uint64(12)).astype(np.float64)
    return (x + 0.5) * 2.0 ** -52  # type: ignore[no-any-return]


def _inverted(rates: Array, take: Source) -> Array:
    """The first k whose cumulative probability reaches u."""
    u = _uniform(take, rates.size)
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


def _rejected(rates: Array, take: Source) -> Array:
    """Hörmann, "The transformed rejection method for generating Poisson random variables" (1993).

    Algorithm PTRS.  Each round draws for the rates still without a count, in their order.
    """
    result = np.empty_like(rates)
    left = np.arange(rates.size)
    while left.size:
        rate = rates[left]
        b = 0.931 + 2.53 * np.sqrt(rate)
        a = -0.059 + 0.02483 * b
        u = _uniform(take, left.size) - 0.5
        v = _uniform(take, left.size)
        edge = 0.5 - np.abs(u)
        k = np.floor((2 * a / edge + b) * u + rate + 0.43)
        inside = (edge >= 0.07) & (v <= 0.9277 - 3.6224 / (b - 2))
        possible = (k >= 0) & ((edge >= 0.013) | (v <= edge))
        height = np.log(v * (1.1239 + 1.1328 / (b - 3.4)) / (a / edge ** 2 + b))
        accepted = inside | (possible & (height <= _log_probability(np.maximum(k, 0), rate)))
        result[left[accepted]] = k[accepted]
        left = left[~accepted]
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
