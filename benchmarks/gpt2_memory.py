"""A 124M-parameter GPT-2 held to a memory budget: `python benchmarks/gpt2_memory.py`.

Trains it for some steps without a budget and then within one, on the same random bytes, and prints
losses, the peak of live memory as the library counts it, and times.  Exits with 1 unless the losses
are equal bit by bit, the peak without a budget is above it, and the peak within is below.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import sys
import time

import numpy as np

import mlgpu
from mlgpu import nn
from mlgpu.memory import format_bytes, parse_bytes
from mlgpu.nn import functional as F

VOCABULARY, WIDTH, LAYERS, HEADS = 50257, 768, 12, 12  # GPT-2, Radford et al. 2019


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.qkv, self.out = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)
        self.mlp = nn.Sequential(nn.Linear(WIDTH, 4 * WIDTH), nn.GELU("tanh"),
                                 nn.Linear(4 * WIDTH, WIDTH))

    def forward(self, x: mlgpu.Tensor) -> mlgpu.Tensor:
        batch, length, _ = x.shape
        q, k, v = (part.reshape(batch, length, HEADS, -1).transpose(1, 2)
                   for part in self.qkv(self.norm1(x)).chunk(3, -1))
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + F.dropout(self.out(y.transpose(1, 2).reshape(x.shape)), 0.1)
        return x + F.dropout(self.mlp(self.norm2(x)), 0.1)


class GPT2(nn.Module):
    def __init__(self, context: int) -> None:
        super().__init__()
        self.token, self.place = nn.Embedding(VOCABULARY, WIDTH), nn.Embedding(context, WIDTH)
        self.blocks = nn.Sequential(*[Block() for _ in range(LAYERS)])
        self.norm = nn.LayerNorm(WIDTH)
        for weight in self.parameters():
            if weight.ndim == 2:
                nn.init.normal_(weight, std=0.02)

    def forward(self, ids: mlgpu.Tensor, targets: mlgpu.Tensor) -> mlgpu.Tensor:
        x = self.token(ids) + self.place(mlgpu.arange(ids.shape[1]))
        return F.linear_cross_entropy(self.norm(self.blocks(x)), self.token.weight, targets)


def train(args: argparse.Namespace, budget: str | None) -> tuple[list[float], int]:
    """The losses and the peak of live bytes."""
    mlgpu.manual_seed(0)
    model = GPT2(args.context)
    optimizer = mlgpu.optim.AdamW(model.parameters(), lr=3e-4)
    ids = np.random.default_rng(0).integers(0, VOCABULARY, (args.batch, args.context + 1))
    x, y = mlgpu.tensor(ids[:, :-1]), mlgpu.tensor(ids[:, 1:])
    parameters = sum(p.numel() for p in model.parameters())
    gc.collect()
    mlgpu.memory.reset_peak()
    losses, start = [], time.perf_counter()
    with contextlib.nullcontext() if budget is None else mlgpu.checkpoint.auto(budget) as manager:
        for _ in range(args.steps):
            optimizer.zero_grad()
            loss = model(x, y)
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
            del loss
    seconds = (time.perf_counter() - start) / args.steps
    peak = mlgpu.memory.stats().peak
    again = "" if manager is None else (f", {manager.evictions} values gave way "
                                        f"({format_bytes(manager.evicted_bytes)})")
    print(f"{parameters / 1e6:.1f}M parameters, {args.batch} x {args.context} tokens, "
          f"{'no budget' if budget is None else f'budget {budget}'}: peak {format_bytes(peak)}, "
          f"{seconds:.1f} s a step{again}\n  losses {losses}", flush=True)
    return losses, peak


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--budget", default="2.5 GiB")
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--context", type=int, default=1024)
    args = parser.parse_args()
    free, without = train(args, None)
    held, within = train(args, args.budget)
    budget = parse_bytes(args.budget)
    print(f"losses {'equal' if held == free else 'DIFFER'}; peak {within / without:.2f} of that "
          "without a budget")
    sys.exit(held != free or not within <= budget < without)


if __name__ == "__main__":
    main()
