"""Rows for mlgpu/ops/fft.py, mlgpu/ops/stft.py and mlgpu/ops/window_function.py."""

from __future__ import annotations

import numpy as np
from table.case import ALL, COMPLEX, Case, In, both

import mlgpu

FIXED = {"gradient": False, "second": False}
DOUBLES = ("float64", "float32")
BOTH = DOUBLES + COMPLEX
NORMS = (None, "backward", "ortho", "forward")
CLOSE = {"tolerance": 20}


def row(name, call, reference, inputs, dtypes=BOTH, **options):
    return both(name.replace(" ", ""), call, reference, inputs, dtypes=dtypes,
                **{**CLOSE, **options})


# --- references: the definition, term by term -----------------------------------------------------


def fitted(x, n, dim):
    """`x` cut or extended with zeros to n along a dimension."""
    x = np.moveaxis(np.asarray(x), dim, -1)
    x = np.concatenate((x[..., :n], np.zeros((*x.shape[:-1], max(0, n - x.shape[-1])))), -1)
    return np.moveaxis(x, -1, dim)


def transform(x, n, dim, norm, sign):
    n = x.shape[dim] if n is None else n
    x = fitted(x, n, dim)
    phases = np.outer(np.arange(n), np.arange(n)) % n
    matrix = np.exp(sign * 2j * np.pi * phases / n)
    backward = norm in (None, "backward")
    scale = n ** -0.5 if norm == "ortho" else 1 if backward == (sign < 0) else 1 / n
    return np.moveaxis(np.moveaxis(x, dim, -1) @ matrix, -1, dim) * scale


def fft(x, n=None, dim=-1, norm=None):
    return transform(x, n, dim, norm, -1)


def ifft(x, n=None, dim=-1, norm=None):
    return transform(x, n, dim, norm, 1)


def rfft(x, n=None, dim=-1, norm=None):
    n = x.shape[dim] if n is None else n
    return np.take(fft(x, n, dim, norm), range(n // 2 + 1), dim)


def mirrored(x, n, dim):
    """The full spectrum of a real signal from its first half."""
    n = 2 * (x.shape[dim] - 1) if n is None else n
    half = np.moveaxis(fitted(x, n // 2 + 1, dim), dim, -1).astype(complex)
    half[..., 0] = half[..., 0].real
    if n % 2 == 0:
        half[..., -1] = half[..., -1].real
    return n, np.moveaxis(np.concatenate(
        (half, np.conj(half[..., 1:(n + 1) // 2][..., ::-1])), -1), -1, dim)


def irfft(x, n=None, dim=-1, norm=None):
    n, full = mirrored(x, n, dim)
    return ifft(full, n, dim, norm).real


def hfft(x, n=None, dim=-1, norm=None):
    n, full = mirrored(x, n, dim)
    return fft(full, n, dim, norm).real


def ihfft(x, n=None, dim=-1, norm=None):
    n = x.shape[dim] if n is None else n
    return np.take(ifft(x, n, dim, norm), range(n // 2 + 1), dim)


ONE = {"fft": fft, "ifft": ifft, "rfft": rfft, "irfft": irfft, "hfft": hfft, "ihfft": ihfft}


def several(name):
    """The transform over several dimensions: the last by `name`, the others complex."""
    other = ifft if name in ("ifft", "irfft", "ihfft") else fft
    first_half = name in ("rfft", "ihfft")  # real to complex: the last dimension comes first

    def reference(x, s=None, dim=None, norm=None):
        if dim is None:
            dim = tuple(range(x.ndim))[-len(s):] if s is not None else tuple(range(x.ndim))
        sizes = [None] * len(dim) if s is None else [None if n == -1 else n for n in s]
        if first_half:
            x = ONE[name](x, sizes[-1], dim[-1], norm)
        for d, n in zip(dim[:-1], sizes[:-1], strict=True):
            x = other(x, n, d, norm)
        return x if first_half else ONE[name](x, sizes[-1], dim[-1], norm)

    return reference


# --- rows -----------------------------------------------------------------------------------------


def kinds(name):
    return DOUBLES if name.startswith(("r", "ih")) else BOTH


def lines():
    for name, reference in ONE.items():
        for size in (1, 2, 5, 8):
            if size == 1 and name in ("irfft", "hfft"):
                continue
            yield row(f"{name}-{size}", lambda lib, x, f=name: getattr(lib.fft, f)(x), reference,
                      (In((3, size)),), kinds(name))
        for dim in (0, 1, -1):
            for n in (None, 3, 4, 7):
                yield row(f"{name}-n-{n}-dim-{dim}",
                          lambda lib, x, f=name, n=n, d=dim: getattr(lib.fft, f)(x, n, d),
                          lambda x, f=reference, n=n, d=dim: f(x, n, d), (In((4, 3, 5)),),
                          kinds(name))
        for norm in NORMS:
            for n in (4, 5):
                yield row(f"{name}-{norm}-{n}",
                          lambda lib, x, f=name, n=n, m=norm: getattr(lib.fft, f)(x, n=n, norm=m),
                          lambda x, f=reference, n=n, m=norm: f(x, n, -1, m), (In((2, 5)),),
                          kinds(name))
        yield row(f"{name}-long", lambda lib, x, f=name: getattr(lib.fft, f)(x), reference,
                  (In((211,)),), kinds(name), tolerance=100)
        yield row(f"{name}-of-int", lambda lib, x, f=name: getattr(lib.fft, f)(x, 4), lambda x,
                  f=reference: f(x, 4), (In((2, 5)),), ("int64", "uint8", "bool"), **FIXED,
                  tolerance=1e6)
        # PyTorch's library refuses to transform nothing.
        yield Case(f"{name}-no-rows", lambda x, f=name: getattr(mlgpu.fft, f)(x, 4),
                   (In((0, 5)),), lambda x, f=reference: f(x, 4), dtypes=kinds(name))


def grids():
    for name in ONE:
        reference = several(name)
        for s, dim in ((None, None), ((4, 3), None), (None, (0, 2)), ((3, 6), (2, 0)),
                       (None, (1,)), ((-1, 4), (0, 1)), (None, (-1, -3, 1))):
            yield row(f"{name}n-{s}-{dim}",
                      lambda lib, x, f=f"{name}n", s=s, d=dim: getattr(lib.fft, f)(x, s, d),
                      lambda x, f=reference, s=s, d=dim: f(x, s, d), (In((4, 3, 5)),), kinds(name))
        for s, dim in ((None, (-2, -1)), ((4, 5), (-2, -1)), ((3, 4), (0, 1))):
            yield row(f"{name}2-{s}-{dim}",
                      lambda lib, x, f=f"{name}2", s=s, d=dim: getattr(lib.fft, f)(x, s, d),
                      lambda x, f=reference, s=s, d=dim: f(x, s, d), (In((4, 3, 5)),), kinds(name))
        for norm in NORMS[2:]:
            yield row(f"{name}n-{norm}",
                      lambda lib, x, f=f"{name}n", m=norm: getattr(lib.fft, f)(x, norm=m),
                      lambda x, f=reference, m=norm: f(x, norm=m), (In((4, 5)),), kinds(name))
            yield row(f"{name}2-{norm}",
                      lambda lib, x, f=f"{name}2", m=norm: getattr(lib.fft, f)(x, norm=m),
                      lambda x, f=reference, m=norm: f(x, norm=m), (In((4, 5)),), kinds(name))


def frequencies():
    for n, d in ((1, 1.0), (4, 1.0), (5, 0.1), (8, 2.0)):
        for name in ("fftfreq", "rfftfreq"):
            yield row(f"{name}-{n}-{d}", lambda lib, f=name, n=n, d=d: getattr(lib.fft, f)(n, d),
                      lambda f=name, n=n, d=d: getattr(np.fft, f)(n, d), (), ("float32",), **FIXED)
    yield row("fftfreq-double", lambda lib: lib.fft.fftfreq(7, dtype=lib.float64),
              lambda: np.fft.fftfreq(7), (), ("float64",), **FIXED)
    for name in ("fftshift", "ifftshift"):
        for dim in (None, 0, -1, (0, 2)):
            yield row(f"{name}-{dim}", lambda lib, x, f=name, d=dim: getattr(lib.fft, f)(x, d),
                      lambda x, f=name, d=dim: getattr(np.fft, f)(x, d), (In((4, 3, 5)),), ALL)


WINDOWS = {"hann_window": np.hanning, "hamming_window": np.hamming,
           "blackman_window": np.blackman, "bartlett_window": np.bartlett,
           "kaiser_window": lambda n: np.kaiser(n, 12.0)}


def windows():
    for name, reference in WINDOWS.items():
        for n in (0, 1, 2, 7, 8):
            for periodic in (False, True):
                yield row(f"{name}-{n}-{periodic}",
                          lambda lib, f=name, n=n, p=periodic: getattr(lib, f)(
                              n, p, dtype=lib.float64),
                          lambda f=reference, n=n, p=periodic: f(n + 1)[:n] if p and n > 1
                          else f(n), (), ("float64",), **FIXED)
    yield row("hann_window-default", lambda lib: lib.hann_window(9), lambda: np.hanning(10)[:9],
              (), ("float32",), **FIXED)
    yield row("hamming_window-alpha", lambda lib: lib.hamming_window(6, False, 0.6, 0.4),
              lambda: 0.6 - 0.4 * np.cos(2 * np.pi * np.arange(6) / 5), (), ("float32",), **FIXED)
    yield row("kaiser_window-beta", lambda lib: lib.kaiser_window(6, False, 5.0),
              lambda: np.kaiser(6, 5.0), (), ("float32",), **FIXED)


def framed(x, n_fft, hop, window=None, center=True, normalized=False, onesided=True):
    """Fourier transforms of windowed frames, frame by frame."""
    x = np.atleast_2d(x)
    if center:
        x = np.pad(x, ((0, 0), (n_fft // 2,) * 2), mode="reflect")
    weight = np.ones(n_fft)
    if window is not None:
        left = (n_fft - len(window)) // 2
        weight = np.pad(window, (left, n_fft - len(window) - left))
    count = 1 + (x.shape[1] - n_fft) // hop
    frames = [fft(x[:, i * hop:i * hop + n_fft] * weight) for i in range(count)]
    spectrum = np.stack(frames, -1) * (n_fft ** -0.5 if normalized else 1)
    return spectrum[:, :n_fft // 2 + 1] if onesided else spectrum


def short_time():
    batch = In((2, 17))
    for label, options in {
            "": {}, "-odd": {"n_fft": 5}, "-hop": {"hop_length": 3}, "-edges": {"center": False},
            "-normalized": {"normalized": True}, "-two-sided": {"onesided": False}}.items():
        n_fft = options.get("n_fft", 8)
        rest = {k: v for k, v in options.items() if k not in ("n_fft", "hop_length")}
        hop = options.get("hop_length", n_fft // 4)
        yield row(f"stft{label}", lambda lib, x, n=n_fft, h=hop, r=rest: lib.stft(
                      x, n, h, return_complex=True, **r),
                  lambda x, n=n_fft, h=hop, r=rest: framed(x, n, h, **r), (batch,), DOUBLES)
    yield row("stft-vector", lambda lib, x: lib.stft(x, 8, return_complex=True),
              lambda x: framed(x, 8, 2)[0], (In((17,)),), DOUBLES)
    yield row("stft-method", lambda lib, x: x.stft(8, 2, return_complex=True),
              lambda x: framed(x, 8, 2), (batch,), DOUBLES)
    yield row("stft-window", lambda lib, x, w: lib.stft(x, 8, 3, 6, w, return_complex=True),
              lambda x, w: framed(x, 8, 3, w), (batch, In((6,), 0.5, 1)), DOUBLES)
    yield row("stft-complex", lambda lib, x: lib.stft(x, 8, 3, center=False, return_complex=True),
              lambda x: framed(x, 8, 3, center=False, onesided=False), (batch,), COMPLEX)
    for label, shape, options in (("", (2, 5, 9), {}), ("-matrix", (5, 9), {}),
                                  ("-normalized", (2, 5, 9), {"normalized": True}),
                                  ("-length", (2, 5, 9), {"length": 13}),
                                  ("-two-sided", (2, 8, 9), {"onesided": False})):
        yield row(f"istft{label}", lambda lib, s, o=options: lib.istft(
                      s, 8, 2, window=lib.hann_window(8, dtype=s.real.dtype), **o),
                  lambda s, o=options: overlapped(s, 8, 2, np.hanning(9)[:8], **o), (In(shape),),
                  COMPLEX)
    yield row("istft-of-stft", lambda lib, x: lib.stft(x, 8, 2, return_complex=True).istft(
        8, 2, length=17), lambda x: x, (batch,), DOUBLES)


def overlapped(spectrum, n_fft, hop, window, normalized=False, length=None, onesided=True):
    """The weighted mean of the frames' signals, which are in the first half of the spectrum."""
    frames = irfft(spectrum, n_fft, -2) * (n_fft ** 0.5 if normalized else 1)
    count = frames.shape[-1]
    total = n_fft + hop * (count - 1)
    signal, cover = np.zeros((*frames.shape[:-2], total)), np.zeros(total)
    for i in range(count):
        signal[..., i * hop:i * hop + n_fft] += frames[..., i] * window
        cover[i * hop:i * hop + n_fft] += window ** 2
    stop = total - n_fft // 2 if length is None else n_fft // 2 + length
    return signal[..., n_fft // 2:stop] / cover[n_fft // 2:stop]


CASES = [*lines(), *grids(), *frequencies(), *windows(), *short_time()]
