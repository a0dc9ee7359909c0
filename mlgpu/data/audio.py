"""Sound: WAV files to tensors."""

from __future__ import annotations

import os
import wave

import numpy as np

from mlgpu.data.arrays import PathLike
from mlgpu.errors import FormatError
from mlgpu.ops.interop import from_numpy
from mlgpu.tensor import Tensor

__all__ = ["read_wav"]


def read_wav(path: PathLike) -> tuple[Tensor, int]:
    """The sound of a WAV file as (channels, frames) float32 in [-1, 1), and its frames a second.

    PCM of 8, 16, 24 and 32 bits.  FormatError for what is no such file, or ends early.
    """
    try:
        with wave.open(os.fspath(path), "rb") as file:
            channels, width, rate, count = file.getparams()[:4]
            raw = file.readframes(count)
    except (wave.Error, EOFError) as error:
        raise FormatError(f"read_wav: {os.fspath(path)!r} is no WAV file of PCM: "
                          f"{error or 'it ends early'}") from None
    if len(raw) != count * channels * width or width not in (1, 2, 3, 4):
        raise FormatError(f"read_wav: {os.fspath(path)!r} says that it holds {count} frames of "
                          f"{channels} numbers of {width} bytes, and has {len(raw)} bytes of sound")
    if width == 1:  # without a sign, unlike the others
        values = (np.frombuffer(raw, np.uint8).astype(np.float32) - 128) / 128
    else:
        # Each number as the upper bytes of 32 bits, whose sign is then its own.
        wide = np.zeros((count * channels, 4), np.uint8)
        wide[:, 4 - width:] = np.frombuffer(raw, np.uint8).reshape(-1, width)
        values = (wide.reshape(-1).view("<i4") / np.float64(2**31)).astype(np.float32)
    return from_numpy(np.ascontiguousarray(values.reshape(count, channels).T)), rate
