"""A training run's memory is flat without a garbage collector."""

from __future__ import annotations

import gc
import os
import sys
from pathlib import Path

import pytest

import mlgpu
from mlgpu import memory, nn

STEPS, SETTLED = 2000, 20
RESIDENT = 2 << 20  # bytes by which the process may grow in between: the allocator's own doing
STATM = Path("/proc/self/statm")


def resident():
    """Bytes of the process in memory, where the system tells; else None."""
    if not STATM.exists():
        return None
    return int(STATM.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


class Network(nn.Module):
    """Embedding, attention, norms, dropout, convolution, recurrence: what a graph is made of."""

    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(20, 16)
        self.block = nn.TransformerEncoderLayer(16, 2, 32, dropout=0.1, batch_first=True)
        self.conv = nn.Conv1d(16, 8, 3, padding=1)
        self.norm = nn.BatchNorm1d(8)
        self.rnn = nn.GRU(8, 8, batch_first=True)
        self.head = nn.Sequential(nn.Dropout(0.2), nn.Linear(8, 20))

    def forward(self, tokens):
        x = self.block(self.embedding(tokens))
        x = nn.functional.gelu(self.norm(self.conv(x.transpose(1, 2)))).transpose(1, 2)
        x, _ = self.rnn(x)
        return self.head(x[:, 1:])


def mlp():
    return nn.Sequential(nn.Flatten(), nn.Linear(6, 16), nn.GELU(), nn.LayerNorm(16),
                         nn.Dropout(0.1), nn.Linear(16, 20))


def trainer(model, predict):
    """A function that makes one step: dropout, AdamW, clipping, a schedule, views in place."""
    optimizer = mlgpu.optim.AdamW(model.parameters(), lr=1e-3)
    schedule = mlgpu.optim.lr_scheduler.CosineAnnealingLR(optimizer, 100)
    tokens = mlgpu.randint(0, 20, (4, 6))
    seen = mlgpu.zeros(2, 2)

    def step():
        logits = predict(model, tokens)
        loss = nn.functional.cross_entropy(logits, tokens[:, 1:].reshape(-1)[:len(logits)])
        optimizer.zero_grad()
        loss.backward()
        norm = nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        seen[0, 0] = loss.detach()
        seen[1].add_(norm)
        return loss.item()

    return step


def flat_logits(model, tokens):
    return model(tokens).flatten(0, 1)


def dense_logits(model, tokens):
    return model(tokens.float())


@pytest.mark.skipif(sys.implementation.name != "cpython", reason="needs reference counts")
def test_two_thousand_steps_without_a_collector():
    mlgpu.manual_seed(0)
    small = trainer(mlp(), dense_logits)
    gc.collect()
    gc.disable()
    try:
        losses = [small() for _ in range(SETTLED)]
        settled, pages = memory.stats(), resident()
        losses += [small() for _ in range(STEPS - SETTLED)]
        after = memory.stats()
        assert (after.allocated, after.count) == (settled.allocated, settled.count)
        assert after.mapped == settled.mapped
        found = gc.collect()
    finally:
        gc.enable()
    assert found == 0  # no cycle in 2000 steps
    assert losses[-1] < losses[0]
    if pages is None:
        pytest.skip("all held but the resident size, which this system does not tell")
    assert resident() - pages < RESIDENT


@pytest.mark.skipif(sys.implementation.name != "cpython", reason="needs reference counts")
@pytest.mark.parametrize("extra", ["plain", "checkpoint", "second derivative", "hooks",
                                   "accumulate", "error", "inference", "function"])
def test_no_step_leaves_a_cycle(extra):
    """Attention, convolution and recurrence, and what else people do in a step."""
    model = Network()
    step = trainer(model, flat_logits)
    more = EXTRAS[extra]
    for _ in range(3):
        step()
        more(model)
    gc.collect()
    gc.disable()
    try:
        before = memory.stats()
        for _ in range(5):
            step()
            more(model)
        after = memory.stats()
        found = gc.collect()
    finally:
        gc.enable()
    assert (after.allocated, after.count) == (before.allocated, before.count)
    assert found == 0


def checkpointed(model):
    x = mlgpu.randn(4, 6, 16, requires_grad=True)
    y = mlgpu.utils.checkpoint.checkpoint(model.block, x, use_reentrant=False)
    y.sum().backward()
    model.zero_grad()


def second_derivative(model):
    x = mlgpu.randn(4, 6, requires_grad=True)
    y = (x.sin() * x.exp()).sum()
    (dx,) = mlgpu.autograd.grad(y, x, create_graph=True)
    mlgpu.autograd.grad((dx * dx).sum(), x)


def hooked(model):
    x = mlgpu.randn(4, 8, requires_grad=True)
    handles = [x.register_hook(lambda g: g * 2),
               model.head.register_forward_hook(lambda m, args, out: out * 1.0)]
    y = model.head(x)
    y.retain_grad()
    y.sum().backward()
    for handle in handles:
        handle.remove()
    model.zero_grad()


def accumulated(model):
    for _ in range(2):
        model.head(mlgpu.ones(1, 8)).sum().backward()
    model.zero_grad()


def failing(model):
    for wrong in (lambda: mlgpu.ones(3) @ mlgpu.ones(4), lambda: mlgpu.full((9,), 1e9, dtype="x"),
                  lambda: mlgpu.ones(2, requires_grad=True).add_(1), lambda: mlgpu.ones(3)[5]):
        try:
            wrong()
        except (RuntimeError, IndexError):
            continue


def inferring(model):
    with mlgpu.inference_mode():
        model.head(mlgpu.ones(1, 8))


class Double(mlgpu.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x * 2

    @staticmethod
    def backward(ctx, dy):
        (x,) = ctx.saved_tensors
        return dy * 2 + x * 0


def custom(model):
    Double.apply(mlgpu.ones(3, requires_grad=True)).sum().backward()


EXTRAS = {"plain": lambda model: None, "checkpoint": checkpointed,
          "second derivative": second_derivative, "hooks": hooked, "accumulate": accumulated,
          "error": failing, "inference": inferring, "function": custom}
