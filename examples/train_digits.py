"""Train a small CNN on real handwritten digits (scikit-learn's): `python examples/train_digits.py`.

1,797 images of 8 x 8 pixels; a fixed stratified fifth of them is the test set.  Prints the test
accuracy of each seed and their mean.  With `--out FOLDER` each run leaves a log, a report, and
checkpoints, from which `--resume` goes on.  Ctrl-C ends a run after its step.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

import mlgpu
from mlgpu import nn
from mlgpu.data import DataLoader, TensorDataset
from mlgpu.extras import require
from mlgpu.nn import functional as F
from mlgpu.optim.lr_scheduler import OneCycleLR
from mlgpu.train import Callback, Run, Trainer


class DigitsNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(1, 32, 3, padding=1), nn.BatchNorm2d(32), nn.ReLU(),
            nn.Conv2d(32, 32, 3, padding=1), nn.BatchNorm2d(32), nn.ReLU(), nn.MaxPool2d(2),
            nn.Conv2d(32, 64, 3, padding=1), nn.BatchNorm2d(64), nn.ReLU(), nn.MaxPool2d(2))
        self.classify = nn.Sequential(nn.Flatten(), nn.Dropout(0.3), nn.Linear(256, 10))

    def forward(self, x: mlgpu.Tensor) -> mlgpu.Tensor:
        return self.classify(self.features(x))


def read_digits(device: mlgpu.device) -> list[mlgpu.Tensor]:
    """Training images, test images, training labels, test labels."""
    datasets = require("sklearn.datasets", "examples", "the digits")
    selection = require("sklearn.model_selection", "examples", "the digits")
    digits = datasets.load_digits()
    images = (digits.images / 16.0).astype(np.float32)[:, None]
    parts = selection.train_test_split(images, digits.target, test_size=0.2, random_state=0,
                                       stratify=digits.target)
    return [mlgpu.tensor(part, device=device) for part in parts]


def shifted(images: mlgpu.Tensor, generator: mlgpu.Generator) -> mlgpu.Tensor:
    """Each batch moved by up to one pixel in a random direction: digits are not always centred."""
    down, right = mlgpu.randint(3, (2,), generator=generator).tolist()
    return F.pad(images, (1, 1, 1, 1))[:, :, down:down + 8, right:right + 8]


def train(seed: int, parts: list[mlgpu.Tensor], *, epochs: int, out: Path | None = None,
          resume: bool = False, display: str = "auto", callbacks: Sequence[Callback] = ()) -> Run:
    """One run, whose last evaluation has the test accuracy."""
    images, test_images, labels, test_labels = parts
    mlgpu.manual_seed(seed)
    generator = mlgpu.Generator().manual_seed(seed)
    model = DigitsNet().to(images.device)
    loader = DataLoader(TensorDataset(images, labels), batch_size=64, shuffle=True,
                        generator=generator)
    test = DataLoader(TensorDataset(test_images, test_labels), batch_size=len(test_labels))
    optimizer = mlgpu.optim.AdamW(model.parameters(), lr=3e-3, weight_decay=0.01)
    schedule = OneCycleLR(optimizer, max_lr=3e-3, total_steps=epochs * len(loader))

    def step(model: nn.Module, batch: Any) -> dict[str, mlgpu.Tensor]:
        images, labels = batch
        logits = model(shifted(images, generator) if model.training else images)
        return {"loss": F.cross_entropy(logits, labels, label_smoothing=0.05),
                "accuracy": (logits.argmax(1) == labels).float().mean()}

    trainer = Trainer(
        model, optimizer, step=step, scheduler=schedule, display=display, callbacks=callbacks,
        monitor="val_accuracy", mode="max", also={"shifts": generator},
        folder=None if out is None else out / f"seed-{seed}")
    run = trainer.fit(loader, test, epochs=epochs, resume=resume)
    if run.folder is not None:
        print("report:", run.report(run.folder / "report.html"))
    return run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="auto", help="cpu, cuda, cuda:1 or auto")
    parser.add_argument("--epochs", type=int, default=25)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--out", type=Path, help="a folder for logs, checkpoints and reports")
    parser.add_argument("--resume", action="store_true", help="go on with the runs in --out")
    args = parser.parse_args()
    if args.resume and args.out is None:
        parser.error("--resume needs the --out of the runs to go on with")
    parts = read_digits(mlgpu.device(args.device))
    results = []
    for seed in args.seeds:
        run = train(seed, parts, epochs=args.epochs, out=args.out, resume=args.resume)
        if run.status == "interrupted":
            return
        results.append(run.last["val_accuracy"])
        print(f"seed {seed}: test accuracy {results[-1]:.2%} ({run.seconds:.0f} s)", flush=True)
    print(f"mean of {len(results)} seeds: {sum(results) / len(results):.2%}")


if __name__ == "__main__":
    main()
