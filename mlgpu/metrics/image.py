"""Metrics of images (n, channels, height, width): fidelity, structure, and distances of features.

What compares by a trained network (FID, LPIPS, DISTS) takes the network from you, as a function of
images: mlgpu brings no weights.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from mlgpu.dtypes import float64
from mlgpu.errors import ShapeError
from mlgpu.linalg import eigh, eigvalsh
from mlgpu.metrics.metric import Metric, check_alike, ratio
from mlgpu.ops.conv import conv2d
from mlgpu.ops.creation import arange, full, zeros
from mlgpu.ops.pool import avg_pool2d
from mlgpu.tensor import Tensor

__all__ = ["DeepImageStructureAndTextureSimilarity", "FrechetInceptionDistance",
           "LearnedPerceptualImagePatchSimilarity",
           "MultiScaleStructuralSimilarityIndexMeasure", "PeakSignalNoiseRatio",
           "StructuralSimilarityIndexMeasure", "TotalVariation"]

Features = Callable[[Tensor], Sequence[Tensor]]


class PeakSignalNoiseRatio(Metric):
    """10 log10(data_range² / mean squared error) over all elements, in decibel."""

    def __init__(self, data_range: float = 1.0) -> None:
        super().__init__()
        _check_range("PeakSignalNoiseRatio", data_range)
        self.data_range = data_range
        self.add_state("total", 0.0)
        self.add_state("count", 0.0)

    total: Tensor
    count: Tensor

    def _update(self, preds: Tensor, target: Tensor) -> None:
        check_alike("PeakSignalNoiseRatio", preds, target)
        self.total = self.total + (preds.to(float64) - target.to(float64)).square().sum()
        self.count = self.count + preds.numel()

    def compute(self) -> Tensor:
        return 10 * (self.data_range ** 2 / ratio(self.total, self.count)).log10()


class _MeanOfImages(Metric):
    """The mean over images of a number of each pair."""

    def __init__(self) -> None:
        super().__init__()
        self.add_state("total", 0.0)
        self.add_state("count", 0.0)

    total: Tensor
    count: Tensor

    def _each(self, preds: Tensor, target: Tensor) -> Tensor:
        raise NotImplementedError(f"{type(self).__name__}: _each is not defined")

    def _update(self, preds: Tensor, target: Tensor) -> None:
        name = type(self).__name__
        check_alike(name, preds, target)
        if preds.ndim != 4:
            raise ShapeError(f"{name}: expected (n, channels, height, width), got "
                             f"{tuple(preds.shape)}")
        self.total = self.total + self._each(preds, target).to(float64).sum()
        self.count = self.count + len(preds)

    def compute(self) -> Tensor:
        return ratio(self.total, self.count)


class StructuralSimilarityIndexMeasure(_MeanOfImages):
    """SSIM (Wang et al. 2004): means, variances and covariance in windows agree; 1 at best.

    Windows are Gaussian of `sigma`, or of `kernel_size` elements alike; as in the paper's own
    programs, nothing is computed where they reach past the image.
    """

    def __init__(self, gaussian_kernel: bool = True, sigma: float = 1.5, kernel_size: int = 11,
                 data_range: float = 1.0, k1: float = 0.01, k2: float = 0.03) -> None:
        super().__init__()
        _check_range(type(self).__name__, data_range)
        self.gaussian_kernel, self.sigma, self.kernel_size = gaussian_kernel, sigma, kernel_size
        self.c1, self.c2 = (k1 * data_range) ** 2, (k2 * data_range) ** 2

    def _window(self, like: Tensor) -> Tensor:
        """A window along one axis."""
        if not self.gaussian_kernel:
            return full((self.kernel_size,), 1 / self.kernel_size, dtype=float64,
                        device=like.device)
        reach = int(3.5 * self.sigma + 0.5)
        place = arange(-reach, reach + 1, dtype=float64, device=like.device)
        weights = (-0.5 * (place / self.sigma).square()).exp()
        return weights / weights.sum()

    def _parts(self, preds: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        """Similarity, and without the means' part, of each image."""
        n, c, height, width = preds.shape
        window = self._window(preds)
        if min(height, width) < len(window):
            raise ShapeError(f"{type(self).__name__}: images must be at least {len(window)} wide "
                             f"and high, got {height} x {width}")
        x, y = (t.to(float64).reshape(n * c, 1, height, width) for t in (preds, target))
        columns, rows = window.reshape(1, 1, -1, 1), window.reshape(1, 1, 1, -1)
        mx, my, xx, yy, xy = (conv2d(conv2d(t, columns), rows)
                              for t in (x, y, x * x, y * y, x * y))
        xx, yy, xy = xx - mx * mx, yy - my * my, xy - mx * my
        contrast = (2 * xy + self.c2) / (xx.clamp(min=0) + yy.clamp(min=0) + self.c2)
        similar = contrast * (2 * mx * my + self.c1) / (mx * mx + my * my + self.c1)
        return similar.reshape(n, -1).mean(1), contrast.reshape(n, -1).mean(1)

    def _each(self, preds: Tensor, target: Tensor) -> Tensor:
        return self._parts(preds, target)[0]


class MultiScaleStructuralSimilarityIndexMeasure(StructuralSimilarityIndexMeasure):
    """SSIM's contrast at several scales, each half the one before, and SSIM at the last.

    Their product to the powers `betas`; what is negative counts as 0.  Wang, Simoncelli and Bovik
    2003.
    """

    def __init__(self, gaussian_kernel: bool = True, sigma: float = 1.5, kernel_size: int = 11,
                 data_range: float = 1.0, k1: float = 0.01, k2: float = 0.03,
                 betas: Sequence[float] = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)) -> None:
        super().__init__(gaussian_kernel, sigma, kernel_size, data_range, k1, k2)
        self.betas = tuple(betas)

    def _each(self, preds: Tensor, target: Tensor) -> Tensor:
        product = full((len(preds),), 1.0, dtype=float64, device=preds.device)
        preds, target = preds.to(float64), target.to(float64)
        for scale, beta in enumerate(self.betas):
            similar, contrast = self._parts(preds, target)
            last = scale == len(self.betas) - 1
            product = product * (similar if last else contrast).clamp(min=0) ** beta
            if not last:
                preds, target = avg_pool2d(preds, 2), avg_pool2d(target, 2)
        return product


class TotalVariation(Metric):
    """The sum of |differences| of neighbours, down and across; of all images, or their mean."""

    def __init__(self, reduction: str = "sum") -> None:
        super().__init__()
        if reduction not in ("sum", "mean"):
            raise ShapeError(f"TotalVariation: reduction must be 'sum' or 'mean', got "
                             f"{reduction!r}")
        self.reduction = reduction
        self.add_state("total", 0.0)
        self.add_state("count", 0.0)

    total: Tensor
    count: Tensor

    def _update(self, img: Tensor) -> None:
        if img.ndim != 4:
            raise ShapeError("TotalVariation: expected (n, channels, height, width), got "
                             f"{tuple(img.shape)}")
        image = img.to(float64)
        self.total = (self.total + (image[:, :, 1:] - image[:, :, :-1]).abs().sum()
                      + (image[..., 1:] - image[..., :-1]).abs().sum())
        self.count = self.count + len(img)

    def compute(self) -> Tensor:
        return self.total if self.reduction == "sum" else ratio(self.total, self.count)


class FrechetInceptionDistance(Metric):
    """The Fréchet distance of two sets of features, taken as Gaussian (Heusel et al. 2017).

    `feature` is the network, images to (n, `dimensions`), or None where `update` is given features;
    update(images, real) adds to the real or the generated ones.  State: sums of features and of
    their products.
    """

    def __init__(self, dimensions: int, feature: Callable[[Tensor], Tensor] | None = None) -> None:
        super().__init__()
        self.dimensions, self.feature = dimensions, feature
        for kind in ("real", "fake"):
            self.add_state(f"{kind}_count", 0.0)
            self.add_state(f"{kind}_sum", zeros(dimensions, dtype=float64))
            self.add_state(f"{kind}_products", zeros(dimensions, dimensions, dtype=float64))

    def _update(self, imgs: Tensor, real: bool) -> None:
        features = (imgs if self.feature is None else self.feature(imgs)).to(float64)
        if features.ndim != 2 or features.shape[1] != self.dimensions:
            raise ShapeError(f"FrechetInceptionDistance: expected features (n, {self.dimensions})"
                             f", got {tuple(features.shape)}")
        kind = "real" if real else "fake"
        for name, value in (("count", len(features)), ("sum", features.sum(0)),
                            ("products", features.T @ features)):
            setattr(self, f"{kind}_{name}", getattr(self, f"{kind}_{name}") + value)

    def _moments(self, kind: str) -> tuple[Tensor, Tensor]:
        count = getattr(self, f"{kind}_count")
        if float(count) < 2:
            raise ShapeError(f"FrechetInceptionDistance.compute: needs at least two {kind} images, "
                             f"got {int(count)}")
        mean = getattr(self, f"{kind}_sum") / count
        products = getattr(self, f"{kind}_products") - count * mean[:, None] * mean
        return mean, products / (count - 1)

    def compute(self) -> Tensor:
        """|means apart|² + trace(a + b - 2 (a b)^(1/2)), covariances a and b."""
        (mean_a, a), (mean_b, b) = self._moments("real"), self._moments("fake")
        values, vectors = eigh(a)
        root = vectors * values.clamp(min=0).sqrt() @ vectors.T
        inner = root @ b @ root  # whose eigenvalues are those of a b
        shared = eigvalsh((inner + inner.T) / 2).clamp(min=0).sqrt().sum()
        return (mean_a - mean_b).square().sum() + a.trace() + b.trace() - 2 * shared


class LearnedPerceptualImagePatchSimilarity(_MeanOfImages):
    """LPIPS: the distance of normalised features of a network, layer by layer (Zhang et al. 2018).

    `features` maps images to maps (n, c, h, w) of several layers; `weights` has a vector (c,) for
    each layer (all ones if None).  Squared differences are weighted, summed over channels, averaged
    over places, and added up.
    """

    def __init__(self, features: Features, weights: Sequence[Tensor] | None = None) -> None:
        super().__init__()
        self.features, self.weights = features, weights

    def _each(self, preds: Tensor, target: Tensor) -> Tensor:
        total = full((len(preds),), 0.0, dtype=float64, device=preds.device)
        for layer, (a, b) in enumerate(zip(self.features(preds), self.features(target),
                                           strict=True)):
            apart = (_unit(a) - _unit(b)).square()
            if self.weights is not None:
                apart = apart * self.weights[layer].to(apart)[:, None, None]
            total = total + apart.sum(1).flatten(1).mean(1)
        return total


def _unit(x: Tensor) -> Tensor:
    """Vectors along the channels, of length 1."""
    wide = x.to(float64)
    return wide / (wide.square().sum(1, keepdim=True) + 1e-20).sqrt()


class DeepImageStructureAndTextureSimilarity(_MeanOfImages):
    """DISTS: texture by the means of feature maps, structure by their covariance.

    Ding et al. 2020.
    `features` maps images to maps (n, c, h, w), of which the image itself should be the first;
    `alpha` and `beta` weigh texture and structure, a vector (c,) for each layer (all ones if None);
    together they are brought to a sum of 1.  0 for equal images.
    """

    def __init__(self, features: Features, alpha: Sequence[Tensor] | None = None,
                 beta: Sequence[Tensor] | None = None) -> None:
        super().__init__()
        self.features, self.alpha, self.beta = features, alpha, beta

    def _each(self, preds: Tensor, target: Tensor) -> Tensor:
        total = full((len(preds),), 0.0, dtype=float64, device=preds.device)
        weight = full((), 0.0, dtype=float64, device=preds.device)
        for layer, maps in enumerate(zip(self.features(preds), self.features(target),
                                         strict=True)):
            a, b = (m.to(float64).flatten(2) for m in maps)
            mean_a, mean_b = a.mean(2), b.mean(2)
            da, db = a - mean_a[..., None], b - mean_b[..., None]
            texture = _agreement(mean_a * mean_b, mean_a.square() + mean_b.square())
            structure = _agreement((da * db).mean(2), da.square().mean(2) + db.square().mean(2))
            for part, given in ((texture, self.alpha), (structure, self.beta)):
                weights = part[0] * 0 + 1 if given is None else given[layer].to(part)
                total = total + (part * weights).sum(1)
                weight = weight + weights.sum()
        return 1 - total / weight


def _agreement(product: Tensor, squares: Tensor) -> Tensor:
    return (2 * product + 1e-6) / (squares + 1e-6)


def _check_range(owner: str, data_range: float) -> None:
    if not data_range > 0:
        raise ShapeError(f"{owner}: data_range must be positive, got {data_range}")
