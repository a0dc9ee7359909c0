"""Kernels of one transformer block, ours and PyTorch's.

    python benchmarks/block_launches.py

Ours are launches, counted by simulated devices.  PyTorch's are operations that its dispatcher runs
in eager mode (views left out), traced on the CPU: on a GPU each is one launch or more.  Without
PyTorch that column is left out.  Needs CuPy and the extra mlgpu[sim].
"""

from __future__ import annotations

import os
from importlib.util import find_spec
from typing import Any

os.environ.setdefault("MLGPU_CUDA", "sim")

BATCH, LENGTH, SIZE, HEADS = 2, 32, 64, 2
VIEWS = {"view", "_unsafe_view", "t", "transpose", "unsqueeze", "squeeze", "select", "detach",
         "expand", "unflatten", "permute", "slice", "as_strided", "split", "chunk", "alias",
         "_reshape_alias", "reshape", "empty_like", "new_empty_strided"}


def ours(dtype: str) -> tuple[int, int]:
    """Launches of the forward and the backward pass."""
    import mlgpu
    from mlgpu import nn

    kind = getattr(mlgpu, dtype)
    layer = nn.TransformerEncoderLayer(SIZE, HEADS, 4 * SIZE, 0.0, "gelu", batch_first=True,
                                       norm_first=True, device="cuda", dtype=kind)
    x = mlgpu.rand(BATCH, LENGTH, SIZE, device="cuda").to(kind).requires_grad_()
    mask = mlgpu.full((LENGTH, LENGTH), float("-inf"), device="cuda", dtype=kind).triu(1)
    from mlgpu.sim.cuda.install import installed

    system = installed()
    assert system is not None
    names: list[str] = []
    system.watchers.append(lambda launch, module: names.append(launch.code.name))
    y = layer(x, mask, is_causal=True)
    gradient = mlgpu.ones_like(y)
    mlgpu.cuda.synchronize()
    names.clear()
    y = layer(x, mask, is_causal=True)
    mlgpu.cuda.synchronize()
    forward = len(names)
    y.backward(gradient)
    mlgpu.cuda.synchronize()
    return forward, len(names) - forward


def pytorch(dtype: str) -> tuple[int, int]:
    """Operations of the forward and the backward pass."""
    import torch
    from torch import nn
    from torch.nn import functional
    from torch.utils._python_dispatch import TorchDispatchMode

    class Trace(TorchDispatchMode):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.names: list[str] = []

        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None
                               ) -> Any:
            name = func.__name__.partition(".")[0]
            if name not in VIEWS:
                self.names.append(name)
            return func(*args, **(kwargs or {}))

    class Block(nn.Module):  # type: ignore[misc]
        """As nanoGPT writes it: one product for queries, keys and values."""

        def __init__(self) -> None:
            super().__init__()
            self.norm1, self.norm2 = nn.LayerNorm(SIZE), nn.LayerNorm(SIZE)
            self.qkv, self.out = nn.Linear(SIZE, 3 * SIZE), nn.Linear(SIZE, SIZE)
            self.up, self.down = nn.Linear(SIZE, 4 * SIZE), nn.Linear(4 * SIZE, SIZE)

        def forward(self, x: Any) -> Any:
            q, k, v = (t.view(BATCH, LENGTH, HEADS, -1).transpose(1, 2)
                       for t in self.qkv(self.norm1(x)).split(SIZE, 2))
            y = functional.scaled_dot_product_attention(q, k, v, is_causal=True)
            x = x + self.out(y.transpose(1, 2).reshape(BATCH, LENGTH, SIZE))
            return x + self.down(functional.gelu(self.up(self.norm2(x))))

    kind = getattr(torch, dtype)
    block = Block().to(kind)
    x = torch.rand(BATCH, LENGTH, SIZE).to(kind).requires_grad_()
    with Trace() as trace:
        y = block(x)
        forward = len(trace.names)
        y.backward(torch.ones_like(y))
    return forward, len(trace.names) - forward - 1  # without ones_like


def main() -> None:
    print("| one block, no dropout | forward | backward |\n|---|--:|--:|")
    for dtype in ("float32", "bfloat16"):
        print("| mlgpu, {}, launches | {} | {} |".format(dtype, *ours(dtype)))
    if find_spec("torch") is None:
        print("PyTorch is not installed: its column is left out")
        return
    for dtype in ("float32", "bfloat16"):
        print("| PyTorch eager, {}, operations | {} | {} |".format(dtype, *pytorch(dtype)))


if __name__ == "__main__":
    main()
