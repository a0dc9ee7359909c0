"""The short-time Fourier transform, its inverse, and the two framing operations they rest on."""

from __future__ import annotations

import math
import warnings
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from mlgpu.cpu.runtime import empty, zeros
from mlgpu.cuda import fold as cuda_fold
from mlgpu.cuda import runtime as gpu
from mlgpu.errors import DTypeError, ShapeError
from mlgpu.op import Op, run
from mlgpu.ops.complex import view_as_real
from mlgpu.ops.fft import fft, ifft, irfft, rfft
from mlgpu.ops.pad import pad
from mlgpu.storage import as_strided
from mlgpu.tensor import Tensor

__all__ = ["istft", "stft"]


class Frames(Op):
    """Windows of a signal, `hop` apart: (..., time) to (..., count, size)."""

    def __init__(self, size: int, hop: int) -> None:
        self.size, self.hop = size, hop

    def forward(self, x: Any) -> Any:
        self.length = x.shape[-1]
        windows = sliding_window_view(x, self.size, axis=-1)[..., ::self.hop, :]
        out = empty(windows.shape, x.dtype)
        np.copyto(out, windows)
        return out

    def forward_cuda(self, x: Any) -> Any:
        self.length = x.shape[-1]
        count, step = (self.length - self.size) // self.hop + 1, x.strides[-1]
        return gpu.copy(as_strided(x, (*x.shape[:-1], count, self.size),
                                   (*x.strides[:-1], self.hop * step, step)))

    def backward(self, dy: Tensor) -> Tensor:
        return run(OverlapAdd(self.hop, self.length), dy)  # type: ignore[no-any-return]


class OverlapAdd(Op):
    """The sum of windows laid `hop` apart: (..., count, size) to (..., length)."""

    def __init__(self, hop: int, length: int) -> None:
        self.hop, self.length = hop, length

    def forward(self, x: Any) -> Any:
        count, self.size = x.shape[-2:]
        steps = math.ceil(self.size / self.hop)
        rows = max(count + steps, math.ceil(self.length / self.hop))
        out = zeros((*x.shape[:-2], rows, self.hop), x.dtype)
        # Pieces of `hop` samples: those with the same place in their windows never overlap.
        for step in range(steps):
            piece = x[..., step * self.hop:(step + 1) * self.hop]
            place = out[..., step:step + count, :piece.shape[-1]]
            np.add(place, piece, out=place)
        flat = out.reshape(*x.shape[:-2], rows * self.hop)
        return flat[..., :self.length]

    def forward_cuda(self, x: Any) -> Any:
        self.size = x.shape[-1]
        return cuda_fold.overlap_add(x, (*x.shape[:-2], self.length), x.ndim - 2, self.hop)

    def backward(self, dy: Tensor) -> Tensor:
        return run(Frames(self.size, self.hop), dy)  # type: ignore[no-any-return]


def _window(op: str, window: Tensor | None, win_length: int, n_fft: int,
            like: Tensor) -> Tensor | None:
    """The window with zeros on both sides up to `n_fft`; None for one of ones throughout."""
    if not 0 < win_length <= n_fft:
        raise ShapeError(f"{op}: win_length must lie in 1 to n_fft = {n_fft}, got {win_length}")
    if window is None:
        if win_length == n_fft:
            return None
        window = like.new_ones(win_length, dtype=like.dtype.to_real())
    elif tuple(window.shape) != (win_length,):
        raise ShapeError(f"{op}: window must be a vector of win_length = {win_length}, got shape "
                         f"{tuple(window.shape)}")
    left = (n_fft - win_length) // 2
    return pad(window, (left, n_fft - win_length - left)) if win_length < n_fft else window


def stft(input: Tensor, n_fft: int, hop_length: int | None = None, win_length: int | None = None,
         window: Tensor | None = None, center: bool = True, pad_mode: str = "reflect",
         normalized: bool = False, onesided: bool | None = None,
         return_complex: bool | None = None, align_to_window: bool | None = None) -> Tensor:
    """Fourier transforms of windowed frames: (time,) or (batch, time) to (..., frequency, frame).

    hop_length: n_fft // 4 by default; window: (win_length,), by default ones, centred in n_fft.
    `center` pads the signal by n_fft // 2 on both sides, so that frame t is centred at t * hop;
    without it, `align_to_window` pads so that the first window starts at the first sample.
    `normalized` divides by sqrt(n_fft); `onesided` (default for real input and window) keeps
    n_fft // 2 + 1 frequencies.  Real input needs `return_complex`; False gives (..., 2) reals.
    Raises ShapeError, DTypeError.
    """
    if not (input.is_floating_point() or input.is_complex()):
        raise DTypeError(f"stft: expected a floating or complex tensor, got {input.dtype.name}")
    if input.ndim not in (1, 2):
        raise ShapeError(f"stft: expected 1 or 2 dimensions, got shape {tuple(input.shape)}")
    hop = n_fft // 4 if hop_length is None else hop_length
    length = n_fft if win_length is None else win_length
    complex_values = input.is_complex() or (window is not None and window.is_complex())
    if return_complex is None and not complex_values:
        raise ShapeError("stft: real input needs return_complex; pass return_complex=True")
    if onesided and complex_values:
        raise ShapeError("stft: complex input or window has no one-sided transform; pass "
                         "onesided=False")
    signal = input.unsqueeze(0) if input.ndim == 1 else input
    if center:
        if align_to_window is not None:
            raise ShapeError("stft: align_to_window is for center=False only")
        signal = pad(signal, (n_fft // 2, n_fft // 2), pad_mode)
    elif align_to_window:
        signal = pad(signal, ((n_fft - length) // 2,) * 2)
    if not 0 < n_fft <= signal.shape[-1]:
        raise ShapeError(f"stft: n_fft must lie in 1 to the signal's length "
                         f"{signal.shape[-1]}, got {n_fft}")
    if hop <= 0:
        raise ShapeError(f"stft: hop_length must be positive, got {hop}")
    weight = _window("stft", window, length, n_fft, input)
    frames: Tensor = run(Frames(n_fft, hop), signal)
    if weight is not None:
        frames = frames * weight
    norm = "ortho" if normalized else None
    one_sided = not complex_values if onesided is None else onesided
    spectrum = (rfft(frames, norm=norm) if one_sided else fft(frames, norm=norm)).mT
    spectrum = spectrum.squeeze(0) if input.ndim == 1 else spectrum
    return view_as_real(spectrum) if return_complex is False else spectrum


def istft(input: Tensor, n_fft: int, hop_length: int | None = None, win_length: int | None = None,
          window: Tensor | None = None, center: bool = True, normalized: bool = False,
          onesided: bool | None = None, length: int | None = None,
          return_complex: bool = False) -> Tensor:
    """The signal whose `stft` is closest to `input`: (..., frequency, frame) to (..., time).

    The arguments are those of `stft`; `length` cuts the signal or, with a warning, extends it with
    zeros.  Raises ShapeError where the windows do not cover every sample, DTypeError.
    """
    hop = n_fft // 4 if hop_length is None else hop_length
    win_length = n_fft if win_length is None else win_length
    _check_spectrum(input, n_fft, onesided, return_complex, window)
    if not 0 < hop <= win_length:
        raise ShapeError(f"istft: hop_length must lie in 1 to win_length = {win_length}, got {hop}")
    weight = _window("istft", window, win_length, n_fft, input)
    if weight is None:
        weight = input.new_ones(n_fft, dtype=input.dtype.to_real())
    norm = "ortho" if normalized else None
    spectrum = (input.unsqueeze(0) if input.ndim == 2 else input).mT
    # A real signal is in the first half of its spectrum; irfft cuts the rest off.
    frames = ifft(spectrum, norm=norm) if return_complex else irfft(spectrum, n_fft, norm=norm)
    count = frames.shape[-2]
    total = n_fft + hop * (count - 1)
    signal: Tensor = run(OverlapAdd(hop, total), frames * weight)
    cover = run(OverlapAdd(hop, total), (weight * weight).expand(count, n_fft))
    start = n_fft // 2 if center else 0
    stop = total - start if length is None else start + length
    signal, cover = signal[..., start:stop], cover[start:stop]
    if not cover.numel() or cover.detach().abs().min().item() <= 1e-11:
        raise ShapeError("istft: the windows do not cover every sample, or there is none; choose "
                         "another window, a smaller hop_length or center=True")
    signal = signal / cover
    if stop > total:
        warnings.warn("istft: the signal is shorter than length; extended with zeros", stacklevel=2)
        signal = pad(signal, (0, stop - total))
    return signal.squeeze(0) if input.ndim == 2 else signal


def _check_spectrum(input: Tensor, n_fft: int, onesided: bool | None, return_complex: bool,
                    window: Tensor | None) -> None:
    if not input.is_complex():
        raise DTypeError(f"istft: expected a complex tensor, got {input.dtype.name}; see "
                         "view_as_complex")
    if input.ndim not in (2, 3) or not input.numel():
        raise ShapeError("istft: expected a spectrum of 2 or 3 dimensions with elements, got shape "
                         f"{tuple(input.shape)}")
    given = input.shape[-2]
    one_sided = given != n_fft if onesided is None else onesided
    needed = n_fft // 2 + 1 if one_sided else n_fft
    if given != needed:
        raise ShapeError(f"istft: n_fft = {n_fft} needs {needed} frequencies with onesided="
                         f"{one_sided}, got shape {tuple(input.shape)}")
    if one_sided and (return_complex or (window is not None and window.is_complex())):
        raise ShapeError("istft: a one-sided spectrum gives a real signal; pass onesided=False for "
                         "a complex signal or window")
