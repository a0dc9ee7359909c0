"""torchvision.utils: many images as one, and its file."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

import mlgpu
from mlgpu import Tensor
from mlgpu.errors import ShapeError
from mlgpu.extras import require


@mlgpu.no_grad()
def make_grid(tensor: Tensor | list[Tensor], nrow: int = 8, padding: int = 2,
              normalize: bool = False, value_range: tuple[float, float] | None = None,
              scale_each: bool = False, pad_value: float = 0.0) -> Tensor:
    """Images (N, C, H, W) beside and below each other, `nrow` in a row: (3, H', W').

    Raises ShapeError for anything but two to four dimensions.
    """
    batch = mlgpu.stack(tensor) if isinstance(tensor, list) else tensor
    if not 2 <= batch.ndim <= 4:
        raise ShapeError(f"make_grid: expected 2 to 4 dimensions, got {batch.ndim}")
    while batch.ndim < 4:
        batch = batch.unsqueeze(0)
    if batch.shape[1] == 1:
        batch = batch.expand(-1, 3, -1, -1)
    if normalize:
        parts = list(batch) if scale_each and value_range is None else [batch]
        parts = [_between_0_and_1(part, value_range) for part in parts]
        batch = mlgpu.stack(parts) if len(parts) > 1 else parts[0].reshape(batch.shape)
    if batch.shape[0] == 1:
        return batch[0].clone()
    columns = min(nrow, batch.shape[0])
    rows = math.ceil(batch.shape[0] / columns)
    height, width = batch.shape[2] + padding, batch.shape[3] + padding
    grid = batch.new_full((batch.shape[1], rows * height + padding, columns * width + padding),
                          pad_value)
    for k, image in enumerate(batch):
        y, x = k // columns * height + padding, k % columns * width + padding
        grid[:, y:y + height - padding, x:x + width - padding] = image
    return grid


def _between_0_and_1(part: Tensor, value_range: tuple[float, float] | None) -> Tensor:
    low, high = value_range or (part.min().item(), part.max().item())
    return (part.clamp(low, high) - low) / max(high - low, 1e-5)


def save_image(tensor: Tensor | list[Tensor], fp: Any, format: str | None = None, **grid: Any
               ) -> None:
    """Write `make_grid(tensor, **grid)` as an image file, with Pillow."""
    image = make_grid(tensor, **grid).mul(255).add_(0.5).clamp_(0, 255).permute(1, 2, 0)
    pixels = np.asarray(image.cpu().numpy()).astype(np.uint8)
    require("PIL.Image", "examples", "save_image").fromarray(pixels).save(fp, format=format)
