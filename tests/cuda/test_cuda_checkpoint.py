"""checkpoint.auto on a device: some of its tests, in which nothing but the device differs."""

from __future__ import annotations

import pytest
from test_checkpoint_auto import Residual, tight
from test_checkpoint_auto import test_a_changed_input_is_told as test_a_changed_input_is_told
from test_checkpoint_auto import test_views_and_pieces as test_views_and_pieces

import mlgpu


@pytest.fixture(scope="module")
def device():
    with mlgpu.Device("cuda"):
        yield "cuda"


def test_a_budget_changes_no_bit(device):
    model = mlgpu.nn.Sequential(*[Residual(16) for _ in range(3)])
    x = mlgpu.randn(64, 16)

    def run():
        mlgpu.manual_seed(0)  # of dropout
        model.zero_grad()
        model(x).square().sum().backward()
        return [p.grad for p in model.parameters()]

    tight(0.85, run)
