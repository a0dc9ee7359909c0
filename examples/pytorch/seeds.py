"""Weights and data from NumPy's seeds: the same for every library that the examples run in."""

import numpy as np
import torch


def seed_weights(model, seed=0):
    """The model with weights of the usual scale that come from a seed; biases small."""
    rng = np.random.default_rng(seed)
    with torch.no_grad():
        for name, p in model.named_parameters():
            values = rng.standard_normal(tuple(p.shape))
            if p.dim() > 1:
                values /= np.sqrt(max(p[0].numel(), 1))
            elif "bias" in name:
                values *= 0.1
            else:
                values = np.ones_like(values)  # of a norm
            p.copy_(torch.from_numpy(values.astype(np.float32)))
    return model


def images(seed, count, size=8, channels=1):
    """Images in [0, 1] of bright blobs at random places, (count, channels, size, size)."""
    rng = np.random.default_rng(seed)
    centre = rng.uniform(1, size - 1, (count, channels, 2, 1, 1))
    y, x = np.mgrid[:size, :size]
    apart = (y - centre[:, :, 0]) ** 2 + (x - centre[:, :, 1]) ** 2
    return torch.from_numpy(np.exp(-apart / size).astype(np.float32))


def batches(seed, count, batch, **options):
    """`count` batches of images."""
    return images(seed, count * batch, **options).split(batch)


def normal(seed, *shape):
    """Standard normal numbers."""
    return torch.from_numpy(np.random.default_rng(seed).standard_normal(shape).astype(np.float32))
