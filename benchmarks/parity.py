"""Train the same models in mlgpu and in PyTorch and print both loss curves.

`python benchmarks/parity.py [--steps N]` (needs torch).  One source builds each model for both
libraries, so the script also shows that PyTorch code runs after its import is changed.  Exits with
1 where the losses differ by more than 1e-4 (float32) or 1e-9 (float64) of their size.
"""

from __future__ import annotations

import argparse
import sys

import numpy as np
import torch

import mlgpu

BOUNDS = {"float32": 1e-4, "float64": 1e-9}


def gpt(lib, dim=64, heads=4, layers=2, context=32, vocabulary=96):
    """A GPT in plain PyTorch code, for the library `lib`."""
    nn, F = lib.nn, lib.nn.functional

    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.norm1, self.norm2 = nn.LayerNorm(dim), nn.LayerNorm(dim)
            self.qkv, self.out = nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)
            self.mlp = nn.Sequential(nn.Linear(dim, 4 * dim), nn.GELU(), nn.Linear(4 * dim, dim))

        def forward(self, x):
            b, t, _ = x.shape
            q, k, v = self.qkv(self.norm1(x)).view(b, t, 3, heads, -1).permute(2, 0, 3, 1, 4)
            y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
            x = x + self.out(y.transpose(1, 2).reshape(b, t, dim))
            return x + self.mlp(self.norm2(x))

    class GPT(nn.Module):
        def __init__(self):
            super().__init__()
            self.token, self.position = nn.Embedding(vocabulary, dim), nn.Embedding(context, dim)
            self.blocks = nn.Sequential(*[Block() for _ in range(layers)])
            self.norm, self.head = nn.LayerNorm(dim), nn.Linear(dim, vocabulary, bias=False)

        def forward(self, ids):
            x = self.token(ids) + self.position(lib.arange(ids.shape[1]))
            return self.head(self.norm(self.blocks(x))).flatten(0, 1)

    return GPT()


def cnn(lib):
    """A small convolutional network with batch norm, for the library `lib`.

    Without biases before the norms, which take them away again: their gradient is rounding noise,
    Adam makes steps of it, and shifted roundings turn a ReLU on or off elsewhere.  In float32 that
    moves either library 1e-3 from float64 in a third of the runs.
    """
    nn = lib.nn
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(16, 32, 3, padding=1, bias=False), nn.BatchNorm2d(32), nn.ReLU(), nn.AvgPool2d(2),
        nn.Flatten(), nn.Linear(32 * 4, 10))


def gpt_batches(steps):
    """Next-token data with structure to learn: noisy arithmetic progressions."""
    rng = np.random.default_rng(0)
    for _ in range(steps):
        start, stride = rng.integers(0, 96, (8, 1)), rng.integers(1, 5, (8, 1))
        ids = (start + stride * np.arange(33) + (rng.random((8, 33)) < 0.1)) % 96
        yield ids[:, :-1].copy(), ids[:, 1:].reshape(-1).copy()


def cnn_batches(steps):
    """Noisy bars whose orientation and place are the class."""
    rng = np.random.default_rng(0)
    for _ in range(steps):
        labels = rng.integers(0, 10, 32)
        images = rng.normal(0, 0.5, (32, 1, 8, 8))
        for image, label in zip(images[:, 0], labels, strict=True):
            image[(label % 5) + 1, :] += label < 5
            image[:, (label % 5) + 1] += label >= 5
        yield images, labels


MODELS = {"gpt": (gpt, gpt_batches), "cnn": (cnn, cnn_batches)}


def curve(lib, model, batches, dtype):
    """The losses of training `model` on `batches` with AdamW."""
    optimizer = lib.optim.AdamW(model.parameters(), lr=1e-3)
    losses = []
    for inputs, targets in batches:
        x = lib.from_numpy(inputs)
        x = x.to(getattr(lib, dtype)) if inputs.dtype.kind == "f" else x
        loss = lib.nn.functional.cross_entropy(model(x), lib.from_numpy(targets))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


def compare(name, dtype, steps):
    """Both curves from the same weights and batches."""
    make, batches = MODELS[name]
    torch.manual_seed(0)
    theirs = make(torch).to(getattr(torch, dtype))
    ours = make(mlgpu).to(getattr(mlgpu, dtype))
    ours.load_state_dict({key: mlgpu.from_numpy(value.numpy().copy())
                          for key, value in theirs.state_dict().items()})
    return (curve(mlgpu, ours, batches(steps), dtype),
            curve(torch, theirs, batches(steps), dtype))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=100)
    args = parser.parse_args()
    print(f"mlgpu {mlgpu.__version__}, torch {torch.__version__}, numpy {np.__version__}")
    failed = False
    for name in MODELS:
        for dtype, bound in BOUNDS.items():
            ours, theirs = compare(name, dtype, args.steps)
            worst = max(abs(a - b) / abs(b) for a, b in zip(ours, theirs, strict=True))
            failed |= not worst <= bound
            print(f"\n{name} {dtype}: worst relative difference {worst:.2e}, bound {bound:.0e}")
            print("  step     mlgpu          torch")
            for step in range(0, args.steps, max(args.steps // 10, 1)):
                print(f"  {step + 1:4}  {ours[step]:.10f}  {theirs[step]:.10f}")
            print(f"  {args.steps:4}  {ours[-1]:.10f}  {theirs[-1]:.10f}")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
