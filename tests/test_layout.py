"""The memory order of results follows the operands', as in PyTorch: a view there is a view here."""

from __future__ import annotations

import pytest

import mlgpu


def operands(lib):
    row, column = lib.ones(3).expand(4, 3), lib.ones(4, 1).expand(4, 3)
    turned, cube = lib.ones(3, 4).T, lib.ones(2, 3, 4).permute(2, 0, 1)
    wide = lib.ones(2, 1, 4).permute(2, 0, 1).expand(4, 2, 3)
    return {"row": row, "column": column, "turned": turned, "cube": cube, "wide": wide,
            "plain": lib.ones(4, 3), "steps": lib.ones(4, 6)[:, ::2]}


RESULTS = {
    "row * plain": lambda lib, t: t["row"] * t["plain"],
    "plain * row": lambda lib, t: t["plain"] * t["row"],
    "row * turned": lambda lib, t: t["row"] * t["turned"],
    "sin row": lambda lib, t: t["row"].sin(),
    "column * plain": lambda lib, t: t["column"] * t["plain"],
    "turned * plain": lambda lib, t: t["turned"] * t["plain"],
    "plain * turned": lambda lib, t: t["plain"] * t["turned"],
    "turned * vector": lambda lib, t: t["turned"] * lib.ones(3),
    "vector * turned": lambda lib, t: lib.ones(1, 3) * t["turned"],
    "steps * 2": lambda lib, t: t["steps"] * 2,
    "cube + column": lambda lib, t: t["cube"] + lib.ones(4, 2, 1),
    "wide * 2": lambda lib, t: t["wide"] * 2,
    "wide + cube": lambda lib, t: t["wide"] + t["cube"],
    "where": lambda lib, t: lib.where(t["turned"] > 0, t["row"], t["plain"]),
    "clone row": lambda lib, t: t["row"].clone(),
    "clone turned": lambda lib, t: t["turned"].clone(),
    "cast row": lambda lib, t: t["row"].double(),
    "cast cube": lambda lib, t: t["cube"].double(),
    "clone wide": lambda lib, t: t["wide"].clone()}

EXPECTED = {
    "row * plain": (3, 1), "plain * row": (3, 1), "row * turned": (1, 4), "sin row": (3, 1),
    "column * plain": (3, 1), "turned * plain": (1, 4), "plain * turned": (3, 1),
    "turned * vector": (1, 4), "vector * turned": (1, 4), "steps * 2": (3, 1),
    "cube + column": (1, 12, 4), "wide * 2": (3, 12, 1), "wide + cube": (1, 12, 4),
    "where": (1, 4), "clone row": (3, 1), "clone turned": (1, 4), "cast row": (3, 1),
    "cast cube": (1, 12, 4), "clone wide": (3, 12, 1)}


@pytest.mark.parametrize("name", RESULTS)
def test_strides(name):
    assert RESULTS[name](mlgpu, operands(mlgpu)).stride() == EXPECTED[name]


@pytest.mark.parametrize("name", RESULTS)
def test_strides_are_pytorchs(name):
    torch = pytest.importorskip("torch", reason="comparison with PyTorch needs it installed")
    assert RESULTS[name](torch, operands(torch)).stride() == EXPECTED[name]


def test_a_result_of_a_broadcast_operand_can_be_viewed_flat():
    bias = mlgpu.ones(3).expand(4, 3)
    assert tuple((bias * 2).view(-1).shape) == (12,)
    assert tuple((bias * mlgpu.ones(4, 3)).view(2, 6).shape) == (2, 6)
