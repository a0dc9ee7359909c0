"""Connected components of one image, by union-find: each pixel looks at those before it."""

from __future__ import annotations

from typing import Any

from mlgpu.cpu.fast.compiler import compiled, inlined

Array = Any


@inlined
def root(parents: Array, at: int) -> int:
    """The first pixel of a component, as far as it is known; half of the way there is cut off."""
    while parents[at] != at:
        parents[at] = parents[parents[at]]
        at = parents[at]
    return at


@inlined
def unite(parents: Array, a: int, b: int) -> None:
    """Hang the later of two roots below the earlier."""
    a, b = root(parents, a), root(parents, b)
    parents[max(a, b)] = min(a, b)


@compiled
def label(mask: Array, labels: Array, diagonal: bool) -> int:
    """labels = the numbers of the components of `mask` (h, w) by their first pixels; how many."""
    height, width = mask.shape
    parents = labels.reshape(-1)  # until the numbers are known; of zeros -1
    for y in range(height):
        for x in range(width):
            at = y * width + x
            if not mask[y, x]:
                parents[at] = -1
                continue
            west = x > 0 and mask[y, x - 1]
            parents[at] = parents[at - 1] if west else at
            if y == 0:
                continue
            if mask[y - 1, x]:
                if not (west and mask[y - 1, x - 1]):
                    unite(parents, at, at - width)
            elif diagonal:
                if x > 0 and not west and mask[y - 1, x - 1]:
                    unite(parents, at, at - width - 1)
                if x + 1 < width and mask[y - 1, x + 1]:
                    unite(parents, at, at - width + 1)
    count = 0
    for at in range(height * width):  # a parent stands before its pixels, and has its number
        parent = parents[at]
        if parent < 0:
            parents[at] = 0
        elif parent == at:
            count += 1
            parents[at] = count
        else:
            parents[at] = parents[parent]
    return count
