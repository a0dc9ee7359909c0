"""Compiled forms of the tile transforms of `mlgpu.cpu.winograd`, which says what they compute.

One image row at a time is turned to channels last, so that every further loop is long and dense.
"""

from __future__ import annotations

from typing import Any

from mlgpu.cpu.fast.compiler import compiled

Array = Any


@compiled
def read(x: Array, top: int, left: int, planes: Array, phases: Array, ring: Array) -> None:
    """planes (4, 4, N, r, S, C) = B^T d B of the tiles of x (N, C, H, W).

    The first tile's corner is at (top, left) of x; what lies outside counts as zero.
    phases (2, (S + 1) C) and ring (4, 4, S C) are scratch.
    """
    height, width = x.shape[2], x.shape[3]
    rows, columns, channels = planes.shape[3], planes.shape[4], planes.shape[5]
    length = columns * channels
    for image in range(planes.shape[2]):
        for row in range(2 * rows + 2):
            h = top + row
            slot = ring[row % 4]
            if h < 0 or h >= height:
                slot[:, :] = 0
            else:
                for phase in range(2):
                    _turn(x[image, :, h], left + phase, width, columns + 1, channels,
                          phases[phase])
                even, even_next = phases[0, :length], phases[0, channels:channels + length]
                odd, odd_next = phases[1, :length], phases[1, channels:channels + length]
                _combine(even, odd, even_next, odd_next, slot[0], slot[1], slot[2], slot[3])
            if row % 2 and row > 2:
                tile = row // 2 - 1
                first, second = ring[(row + 1) % 4], ring[(row + 2) % 4]
                third, fourth = ring[(row + 3) % 4], ring[row % 4]
                for b in range(4):
                    _combine(first[b], second[b], third[b], fourth[b],
                             planes[0, b, image, tile].reshape(length),
                             planes[1, b, image, tile].reshape(length),
                             planes[2, b, image, tile].reshape(length),
                             planes[3, b, image, tile].reshape(length))


@compiled
def _turn(x: Array, first: int, width: int, count: int, channels: int, out: Array) -> None:
    """out (count, C) = every second element of x (C, W) from `first`; zero outside."""
    low = min(max(0, (1 - first) // 2), count)
    high = max(low, min(count, (width - 1 - first) // 2 + 1))
    out[:low * channels] = 0
    out[high * channels:count * channels] = 0
    # Four channels at once: half the time of one, whose elements are stored one by one.
    whole = channels - channels % 4
    for channel in range(0, whole, 4):
        x0, x1, x2, x3 = x[channel], x[channel + 1], x[channel + 2], x[channel + 3]
        for place in range(low, high):
            source, target = 2 * place + first, place * channels + channel
            v0, v1, v2, v3 = x0[source], x1[source], x2[source], x3[source]
            out[target] = v0
            out[target + 1] = v1
            out[target + 2] = v2
            out[target + 3] = v3
    for channel in range(whole, channels):
        line = x[channel]
        for place in range(low, high):
            out[place * channels + channel] = line[2 * place + first]


@compiled
def _combine(d0: Array, d1: Array, d2: Array, d3: Array, v0: Array, v1: Array, v2: Array,
             v3: Array) -> None:
    """B^T d along one axis."""
    for q in range(len(d0)):
        v0[q] = d0[q] - d2[q]
    for q in range(len(d0)):
        v1[q] = d1[q] + d2[q]
    for q in range(len(d0)):
        v2[q] = d2[q] - d1[q]
    for q in range(len(d0)):
        v3[q] = d1[q] - d3[q]


@compiled
def write(planes: Array, bias: Array, y: Array, top: int, left: int, sums: Array,
          lines: Array) -> bool:
    """y (N, O, H, W) = A^T m A + bias from planes (4, 4, N, r, S, O), as far as y reaches.

    The first tile's corner is at (top, left) of y.  Whether all that was written is finite.
    sums (4, S O) and lines (2, S O) are scratch.
    """
    height, width = y.shape[2], y.shape[3]
    rows, columns, channels = planes.shape[3], planes.shape[4], planes.shape[5]
    length = columns * channels
    spoilt = bias[0] - bias[0]  # 0 of the dtype
    for image in range(planes.shape[2]):
        for tile in range(rows):
            for row in range(min(2, height - top - 2 * tile)):
                for b in range(4):
                    m1 = planes[1, b, image, tile].reshape(length)
                    m2 = planes[2, b, image, tile].reshape(length)
                    outer = planes[3 * row, b, image, tile].reshape(length)
                    _gather(outer, m1, m2, row, sums[b])
                for phase in range(2):
                    line = lines[phase]
                    _gather(sums[3 * phase], sums[1], sums[2], phase, line)
                    for q in range(length):
                        spoilt += line[q] - line[q]
                    count = min(columns, (width - left - phase + 1) // 2)
                    for channel in range(channels):
                        to = y[image, channel, top + 2 * tile + row]
                        for place in range(count):
                            to[left + phase + 2 * place] = (line[place * channels + channel]
                                                            + bias[channel])
    return bool(spoilt == 0)


@compiled
def _gather(outer: Array, m1: Array, m2: Array, second: int, out: Array) -> None:
    """A^T m along one axis: its first or its second element."""
    if second:
        for q in range(len(out)):
            out[q] = m1[q] - m2[q] - outer[q]
    else:
        for q in range(len(out)):
            out[q] = m1[q] + m2[q] + outer[q]


@compiled
def spread(y: Array, top: int, left: int, planes: Array, lines: Array) -> None:
    """planes (4, 4, N, r, S, O) = A g A^T of the tiles of y (N, O, H, W); zero outside.

    The first tile's corner is at (top, left) of y; lines (2, 4, S O) is scratch.
    """
    height, width = y.shape[2], y.shape[3]
    rows, columns, channels = planes.shape[3], planes.shape[4], planes.shape[5]
    length = columns * channels
    for image in range(planes.shape[2]):
        for tile in range(rows):
            for row in range(2):
                line = lines[row]
                h = top + 2 * tile + row
                if h >= height:
                    line[:, :] = 0
                    continue
                for phase in range(2):
                    _turn(y[image, :, h], left + phase, width, columns, channels,
                          line[3 * phase])
                _scatter(line[0], line[3], line[1], line[2])
                for q in range(length):
                    line[3, q] = -line[3, q]
            for b in range(4):
                upper, lower = lines[0, b], lines[1, b]
                v0 = planes[0, b, image, tile].reshape(length)
                v3 = planes[3, b, image, tile].reshape(length)
                for q in range(length):
                    v0[q] = upper[q]
                for q in range(length):
                    v3[q] = -lower[q]
                _scatter(upper, lower, planes[1, b, image, tile].reshape(length),
                         planes[2, b, image, tile].reshape(length))


@compiled
def _scatter(first: Array, second: Array, plus: Array, minus: Array) -> None:
    for q in range(len(first)):
        plus[q] = first[q] + second[q]
    for q in range(len(first)):
        minus[q] = first[q] - second[q]
