"""An autoencoder with a schedule, a checkpoint in the middle, and a second run that resumes it."""

import os
import tempfile

import torch
from seeds import batches, seed_weights
from torch import nn
from torch.optim.lr_scheduler import CosineAnnealingLR, LinearLR, SequentialLR


class AutoEncoder(nn.Module):
    def __init__(self):
        super().__init__()
        self.encoder = nn.Sequential(nn.Conv2d(1, 4, 3, stride=2, padding=1), nn.ReLU(),
                                     nn.Flatten(), nn.Linear(64, 8))
        self.decoder = nn.Sequential(nn.Linear(8, 64), nn.Unflatten(1, (4, 4, 4)), nn.ReLU(),
                                     nn.ConvTranspose2d(4, 1, 2, stride=2), nn.Sigmoid())

    def forward(self, x):
        return self.decoder(self.encoder(x))


def build():
    model = seed_weights(AutoEncoder())
    optimizer = torch.optim.NAdam(model.parameters(), lr=1e-2)
    scheduler = SequentialLR(optimizer, [LinearLR(optimizer, 0.1, total_iters=2),
                                         CosineAnnealingLR(optimizer, T_max=6)], milestones=[2])
    return model, optimizer, scheduler


def run(first, last, model, optimizer, scheduler, path=None):
    losses = []
    for epoch in range(first, last):
        total = 0.0
        for x in batches(seed=epoch, count=4, batch=16):
            loss = nn.functional.mse_loss(model(x), x)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            total += loss.item()
        scheduler.step()
        losses.append(total / 4)
        print(f"epoch {epoch}  loss {total / 4:.5f}  lr {optimizer.param_groups[0]['lr']:.5f}")
        if path is not None and epoch == 3:
            torch.save({"epoch": epoch, "model_state_dict": model.state_dict(),
                        "optimizer_state_dict": optimizer.state_dict(),
                        "scheduler_state_dict": scheduler.state_dict(), "loss": losses[-1],
                        "rng": torch.get_rng_state()}, path)
    return losses


with tempfile.TemporaryDirectory() as folder:
    path = os.path.join(folder, "checkpoint.pt")
    whole = run(0, 8, *build(), path=path)
    checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    model, optimizer, scheduler = build()
    model.load_state_dict(checkpoint["model_state_dict"])
    optimizer.load_state_dict(checkpoint["optimizer_state_dict"])
    scheduler.load_state_dict(checkpoint["scheduler_state_dict"])
    torch.set_rng_state(checkpoint["rng"])
    print("resumed")
    assert run(checkpoint["epoch"] + 1, 8, model, optimizer, scheduler) == whole[4:]
