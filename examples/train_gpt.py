"""Train a small GPT on Python's own source code, or on any text: `python examples/train_gpt.py`.

Reads the standard library found on this machine (or `--text FILE`), byte by byte; nothing is
downloaded.  Shows progress, validates, samples, draws the loss curve, and writes checkpoints that
`--resume` continues from exactly.  Ctrl-C saves and stops.
"""

from __future__ import annotations

import argparse
import math
import signal
import sys
import sysconfig
import time
from pathlib import Path

import numpy as np

import mlgpu
from mlgpu import nn
from mlgpu.extras import require
from mlgpu.nn import functional as F


class Block(nn.Module):
    def __init__(self, dim: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads, self.dropout = heads, dropout
        self.norm1, self.norm2 = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.qkv, self.out = nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)
        self.mlp = nn.Sequential(nn.Linear(dim, 4 * dim), nn.GELU(), nn.Linear(4 * dim, dim))

    def attention(self, x: mlgpu.Tensor, bias: mlgpu.Tensor) -> mlgpu.Tensor:
        batch, length, dim = x.shape
        parts = self.qkv(x).reshape(batch, length, 3, self.heads, dim // self.heads)
        q, k, v = parts.permute(2, 0, 3, 1, 4).unbind(0)
        dropout = self.dropout if self.training else 0.0
        y = F.scaled_dot_product_attention(q, k, v, bias, dropout_p=dropout)
        return self.out(y.transpose(1, 2).reshape(batch, length, dim))

    def forward(self, x: mlgpu.Tensor, bias: mlgpu.Tensor) -> mlgpu.Tensor:
        x = x + F.dropout(self.attention(self.norm1(x), bias), self.dropout, self.training)
        return x + F.dropout(self.mlp(self.norm2(x)), self.dropout, self.training)


def alibi(heads: int, context: int) -> mlgpu.Tensor:
    """What attention adds to its scores (heads, context, context): no look ahead, and the further
    back the less, by another slope in each head (ALiBi, Press et al. 2022)."""
    places = mlgpu.arange(context)
    behind = (places[:, None] - places).float()
    slopes = 0.5 ** mlgpu.arange(1, heads + 1).float()
    return (-slopes[:, None, None] * behind).masked_fill(behind < 0, -math.inf)


class GPT(nn.Module):
    def __init__(self, dim: int, heads: int, layers: int, context: int, dropout: float) -> None:
        super().__init__()
        self.context = context
        self.token = nn.Embedding(256, dim)
        self.blocks = nn.ModuleList([Block(dim, heads, dropout) for _ in range(layers)])
        self.norm = nn.LayerNorm(dim)
        self.head = nn.Linear(dim, 256, bias=False)
        self.head.weight = self.token.weight  # tied, as in GPT-2
        self.register_buffer("bias", alibi(heads, context), persistent=False)
        for name, weight in self.named_parameters():
            if weight.ndim == 2:
                residual = name.endswith(("out.weight", "mlp.2.weight"))
                nn.init.normal_(weight, std=0.02 / math.sqrt(2 * layers) if residual else 0.02)

    def forward(self, ids: mlgpu.Tensor) -> mlgpu.Tensor:
        length = ids.shape[1]
        x, bias = self.token(ids), self.bias[:, :length, :length]
        for block in self.blocks:
            x = block(x, bias)
        return self.head(self.norm(x))


def read_bytes(path: str | None) -> tuple[np.ndarray, np.ndarray]:
    """Training and validation bytes: of a file the last tenth, of the library every tenth file."""
    if path is not None:
        data = np.frombuffer(Path(path).read_bytes(), np.uint8)
        cut = len(data) * 9 // 10
        return data[:cut], data[cut:]
    root = Path(sysconfig.get_paths()["stdlib"])
    skip = {"site-packages", "test", "tests", "idlelib", "turtledemo", "__pycache__",
            "encodings", "pydoc_data"}  # the last two are tables, not programs
    files = [f for f in sorted(root.rglob("*.py")) if not skip & set(f.relative_to(root).parts)]
    text = [np.frombuffer(f.read_bytes(), np.uint8) for f in files]
    held_out = [t for i, t in enumerate(text) if i % 10 == 9]
    return np.concatenate([t for i, t in enumerate(text) if i % 10 != 9]), np.concatenate(held_out)


def bigram_entropy(data: np.ndarray) -> float:
    """Nats per byte that the best predictor from one preceding byte would need on this text."""
    pairs = np.zeros((256, 256))
    np.add.at(pairs, (data[:-1], data[1:]), 1)
    first = pairs.sum(1, keepdims=True)
    seen = pairs > 0
    return float(-(pairs[seen] * np.log((pairs / np.maximum(first, 1))[seen])).sum() / pairs.sum())


def batch(data: np.ndarray, args: argparse.Namespace, generator: mlgpu.Generator
          ) -> tuple[mlgpu.Tensor, mlgpu.Tensor]:
    """Random pieces of text (batch, context) and the same pieces one byte later."""
    starts = mlgpu.randint(len(data) - args.context, (args.batch, 1), generator=generator)
    rows = data[starts.numpy() + np.arange(args.context + 1)].astype(np.int64)
    ids = mlgpu.from_numpy(rows).to(args.device)
    return ids[:, :-1], ids[:, 1:]


def loss_of(model: GPT, ids: mlgpu.Tensor, targets: mlgpu.Tensor) -> mlgpu.Tensor:
    return F.cross_entropy(model(ids).reshape(-1, 256), targets.reshape(-1))


@mlgpu.no_grad()
def validate(model: GPT, data: np.ndarray, args: argparse.Namespace) -> float:
    """Mean loss on the same random pieces of the held-out text each time."""
    generator = mlgpu.Generator().manual_seed(args.seed + 1)
    model.eval()
    losses = [loss_of(model, *batch(data, args, generator)).item() for _ in range(args.val_batches)]
    model.train()
    return sum(losses) / len(losses)


@mlgpu.no_grad()
def sample(model: GPT, args: argparse.Namespace, prompt: str = "class Reader:\n    def read(self"
           ) -> str:
    generator = mlgpu.Generator().manual_seed(args.seed)
    ids = mlgpu.tensor([list(prompt.encode())], device=args.device)
    model.eval()
    for _ in range(args.letters):
        logits = model(ids[:, -model.context:])[:, -1] / 0.7
        following = mlgpu.multinomial(F.softmax(logits, -1), 1, generator=generator)
        ids = mlgpu.cat((ids, following), 1)
    model.train()
    return bytes(ids[0].tolist()).decode(errors="replace")


def rate(step: int, args: argparse.Namespace) -> float:
    """Linear warm-up, then half a cosine down to a fiftieth of the peak."""
    warm = min((step + 1) / max(args.warmup, 1), 1.0)
    return warm * (0.51 + 0.49 * math.cos(math.pi * min(step / args.steps, 1.0)))


class Run:
    """A training run: model, optimizer, schedule, random state and history, as one checkpoint."""

    def __init__(self, args: argparse.Namespace) -> None:
        self.args = args
        self.path = Path(args.out) / "checkpoint.safetensors"
        mlgpu.manual_seed(args.seed)
        self.model = GPT(args.dim, args.heads, args.layers, args.context, args.dropout)
        self.model.to(args.device)
        matrices = [p for p in self.model.parameters() if p.ndim >= 2]
        vectors = [p for p in self.model.parameters() if p.ndim < 2]
        self.optimizer = mlgpu.optim.AdamW(
            [{"params": matrices, "weight_decay": 0.1}, {"params": vectors, "weight_decay": 0.0}],
            lr=args.lr, betas=(0.9, 0.95))
        self.schedule = mlgpu.optim.lr_scheduler.LambdaLR(self.optimizer, lambda s: rate(s, args))
        self.generator = mlgpu.Generator().manual_seed(args.seed)
        self.step = 0
        self.losses: list[float] = []
        self.validation: list[tuple[int, float]] = []

    def shape(self) -> dict[str, int | float]:
        names = ("dim", "heads", "layers", "context", "batch", "steps", "seed")
        return {name: getattr(self.args, name) for name in names}

    def save(self) -> None:
        mlgpu.save({
            "shape": self.shape(), "step": self.step, "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(), "schedule": self.schedule.state_dict(),
            "rng": mlgpu.get_rng_state(), "batches": self.generator.get_state(),
            "losses": self.losses, "validation": self.validation}, self.path)

    def resume(self) -> None:
        saved = mlgpu.load(self.path)
        if saved["shape"] != self.shape():
            raise SystemExit(f"{self.path} is of a run with {saved['shape']}, not {self.shape()}")
        self.model.load_state_dict(saved["model"])
        self.optimizer.load_state_dict(saved["optimizer"])
        self.schedule.load_state_dict(saved["schedule"])
        mlgpu.set_rng_state(saved["rng"])
        self.generator.set_state(saved["batches"])
        self.step, self.losses = saved["step"], saved["losses"]
        self.validation = saved["validation"]

    def train_step(self, data: np.ndarray) -> float:
        loss = loss_of(self.model, *batch(data, self.args, self.generator))
        self.optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        self.schedule.step()
        self.step += 1
        self.losses.append(loss.item())
        return self.losses[-1]

    def draw(self, floor: float) -> Path:
        require("matplotlib", "examples", "the loss curve").use("Agg")
        pyplot = require("matplotlib.pyplot", "examples", "the loss curve")
        figure, axes = pyplot.subplots(figsize=(8, 4.5))
        axes.plot(range(1, len(self.losses) + 1), self.losses, lw=0.8, label="training")
        axes.plot(*zip(*self.validation, strict=True), "o-", label="validation")
        axes.axhline(floor, ls="--", color="gray", label="bigram entropy")
        axes.set(xlabel="step", ylabel="loss (nats per byte)")
        axes.legend()
        figure.savefig(self.path.with_name("loss.png"), dpi=120)
        pyplot.close(figure)
        return self.path.with_name("loss.png")


def train(run: Run, training: np.ndarray, held_out: np.ndarray) -> bool:
    """Run the steps that are left; False if Ctrl-C asked to stop, after the step it fell into."""
    args, stop = run.args, []
    # A second Ctrl-C interrupts at once, without saving: half a step is no state to keep.
    before = signal.signal(signal.SIGINT, lambda *_: (
        stop.append(True), signal.signal(signal.SIGINT, signal.default_int_handler)))
    tqdm = require("tqdm", "examples", "the progress bar").tqdm
    with tqdm(total=args.steps, initial=run.step, unit="step", dynamic_ncols=True,
              mininterval=0.2 if sys.stderr.isatty() else 30) as bar:
        while run.step < args.steps and not stop:
            began = time.perf_counter()
            loss = run.train_step(training)
            speed = args.batch * args.context / (time.perf_counter() - began)
            memory = mlgpu.memory.stats(args.device).peak / 2**20
            bar.update()
            bar.set_postfix_str(f"loss {loss:.3f}, {speed:,.0f} tokens/s, {memory:.0f} MiB",
                                refresh=False)
            if run.step % args.val_every == 0 or run.step == args.steps:
                run.validation.append((run.step, validate(run.model, held_out, args)))
                bar.write(f"step {run.step}: validation loss {run.validation[-1][1]:.4f}")
            if run.step % args.save_every == 0 or run.step == args.steps or stop:
                run.save()
    signal.signal(signal.SIGINT, before)
    return not stop


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--text", help="train on this file instead of the standard library")
    parser.add_argument("--device", default="auto", help="cpu, cuda, cuda:1 or auto")
    parser.add_argument("--out", default="runs/gpt", help="where checkpoint and picture go")
    parser.add_argument("--resume", action="store_true", help="continue from the checkpoint")
    for name, value in {"steps": 2000, "batch": 8, "context": 128, "dim": 128, "heads": 4,
                        "layers": 4, "warmup": 100, "val_every": 250, "val_batches": 32,
                        "save_every": 250, "letters": 600, "seed": 1}.items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=int, default=value)
    parser.add_argument("--lr", type=float, default=4e-3)
    parser.add_argument("--dropout", type=float, default=0.0)
    args = parser.parse_args()
    args.device = mlgpu.device(args.device)
    return args


def main() -> int:
    args = arguments()
    Path(args.out).mkdir(parents=True, exist_ok=True)
    training, held_out = read_bytes(args.text)
    floor = bigram_entropy(held_out)
    run = Run(args)
    if args.resume:
        run.resume()
    parameters = sum(p.numel() for p in run.model.parameters())
    print(f"{parameters:,} parameters on {args.device}; {len(training):,} bytes to train on, "
          f"{len(held_out):,} held out, their bigram entropy {floor:.4f}")
    if not train(run, training, held_out):
        print(f"stopped at step {run.step}; --resume continues from {run.path}")
        return 130
    final = run.validation[-1][1]
    print(f"validation loss {final:.4f}, {'below' if final < floor else 'above'} the bigram "
          f"entropy {floor:.4f}; curve in {run.draw(floor)}\n\n{sample(run.model, args)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
