"""Rows for mlgpu.vision."""

from __future__ import annotations

import colorsys
import math

import numpy as np
from table.case import FLOATS, Case, In, distinct

import mlgpu

vision = mlgpu.vision

# --- colours --------------------------------------------------------------------------------------

TO_XYZ = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
WHITE = TO_XYZ.sum(1)


def pixelwise(function):
    """A function of three numbers, for images (..., 3, h, w)."""
    def of_image(x):
        pixels = np.moveaxis(x, -3, -1)
        made = [function(*map(float, p)) for p in pixels.reshape(-1, 3)]
        return np.moveaxis(np.array(made).reshape(pixels.shape), -1, -3)
    return of_image


def rgb_to_hsl(r, g, b):
    h, lightness, s = colorsys.rgb_to_hls(r, g, b)
    return h, s, lightness


def to_linear(v):
    return v / 12.92 if v <= 0.04045 else ((v + 0.055) / 1.055) ** 2.4


def from_linear(v):
    return 12.92 * v if v <= 0.0031308 else 1.055 * v ** (1 / 2.4) - 0.055


def rgb_to_xyz(*rgb):
    return TO_XYZ @ [to_linear(v) for v in rgb]


def xyz_to_rgb(*xyz):
    return [from_linear(v) for v in np.linalg.solve(TO_XYZ, xyz)]


def f(t):  # CIE 15:2004, 8.2.1.1, with the fractions that the standard gives
    return t ** (1 / 3) if t > (24 / 116) ** 3 else 841 / 108 * t + 16 / 116


def rgb_to_lab(*rgb):
    x, y, z = map(f, rgb_to_xyz(*rgb) / WHITE)
    return 116 * y - 16, 500 * (x - y), 200 * (y - z)


def lab_to_rgb(lightness, a, b):
    y = (lightness + 16) / 116
    inverse = [v ** 3 if v > 24 / 116 else 108 / 841 * (v - 16 / 116)
               for v in (y + a / 500, y, y - b / 200)]
    return xyz_to_rgb(*(inverse * WHITE))


def rgb_to_luv(*rgb):
    def hues(x, y, z):
        return np.array([4 * x, 9 * y]) / (x + 15 * y + 3 * z)
    xyz = rgb_to_xyz(*rgb)
    lightness = 116 * f(xyz[1]) - 16
    return lightness, *(13 * lightness * (hues(*xyz) - hues(*WHITE)))


def rgb_to_ycbcr(r, g, b):
    y = 0.299 * r + 0.587 * g + 0.114 * b
    return y, (b - y) / 1.772 + 0.5, (r - y) / 1.402 + 0.5


def rgb_to_yuv(r, g, b):
    y = 0.299 * r + 0.587 * g + 0.114 * b
    return y, 0.492 * (b - y), 0.877 * (r - y)


def ycbcr_to_rgb(y, cb, cr):  # ITU-T T.871, section 7
    blue, red = cb - 0.5, cr - 0.5
    green = (0.114 * 1.772 * blue + 0.299 * 1.402 * red) / 0.587
    return y + 1.402 * red, y - green, y + 1.772 * blue


def hsl_to_rgb(h, s, lightness):
    return colorsys.hls_to_rgb(h, lightness, s)


def luv_to_rgb(lightness, u, v):
    hue_u, hue_v = (part / 13 / lightness + n / (WHITE @ [1, 15, 3])
                    for part, n in ((u, 4 * WHITE[0]), (v, 9 * WHITE[1])))
    y = ((lightness + 16) / 116) ** 3 if lightness > 8 else lightness * 27 / 24389
    return xyz_to_rgb(2.25 * y * hue_u / hue_v, y, y * (3 - 0.75 * hue_u - 5 * hue_v) / hue_v)


def yuv_to_rgb(y, u, v):
    red, blue = v / 0.877, u / 0.492
    return y + red, y - (0.299 * red + 0.114 * blue) / 0.587, y + blue


def colours(rng, shape):
    """Colours with no two channels alike, some of them dark."""
    steps = rng.permuted(np.tile([0.1, 0.45, 0.85], (math.prod(shape) // 3, 1)), axis=1)
    values = np.moveaxis(steps.reshape(*shape[:-3], *shape[-2:], 3), -1, -3)
    values = values + rng.uniform(-0.08, 0.08, shape)
    values[..., :, 0, 0] *= 0.02
    return values


def lights(low, high):
    """Values of three channels in ranges of their own."""
    def make(rng, shape):
        low_, high_ = (np.reshape(v, (3, 1, 1)) for v in (low, high))
        return low_ + (high_ - low_) * rng.uniform(0, 1, shape)
    return make


# Expressions are all alike to what rounds and differentiates them: some rows prove that.
TWO = ("float64", "float32")


def colour(name, function, make=colours, tolerance=4.0, dtypes=TWO, second=False):
    return Case(f"color-{name}", getattr(vision, name), (In((2, 3, 2, 3), make=make),),
                pixelwise(function), dtypes=dtypes, second=second, tolerance=tolerance)


LAB = lights((10.0, -20.0, -20.0), (90.0, 20.0, 20.0))
CASES = [
    colour("rgb_to_yuv", rgb_to_yuv, dtypes=FLOATS),
    colour("rgb_to_hsv", colorsys.rgb_to_hsv, second=True),
    colour("hsv_to_rgb", colorsys.hsv_to_rgb),
    colour("rgb_to_hsl", rgb_to_hsl),
    colour("hsl_to_rgb", hsl_to_rgb),
    colour("rgb_to_linear_rgb", lambda *rgb: [to_linear(v) for v in rgb]),
    colour("linear_rgb_to_rgb", lambda *rgb: [from_linear(v) for v in rgb]),
    colour("rgb_to_xyz", rgb_to_xyz),
    colour("xyz_to_rgb", xyz_to_rgb, lights((0.3, 0.3, 0.3), (0.4, 0.4, 0.4)), 20),
    colour("lab_to_rgb", lab_to_rgb, LAB, 100),
    colour("rgb_to_luv", rgb_to_luv, tolerance=200),
    colour("ycbcr_to_rgb", ycbcr_to_rgb),
    colour("rgb_to_lab", rgb_to_lab, tolerance=40),
    colour("yuv_to_rgb", yuv_to_rgb),
    colour("rgb_to_ycbcr", rgb_to_ycbcr),
    colour("luv_to_rgb", luv_to_rgb, LAB, 100),
    Case("color-rgb_to_grayscale", vision.rgb_to_grayscale, (In((3, 2, 3)),),
         lambda x: np.tensordot([0.299, 0.587, 0.114], x, 1)[None], dtypes=TWO),
    Case("color-grayscale_to_rgb", vision.grayscale_to_rgb, (In((1, 2, 3)),),
         lambda x: np.repeat(x, 3, 0), dtypes=("float64", "uint8")),
]

# --- boxes ----------------------------------------------------------------------------------------


def boxes(rng, shape):
    """Boxes that overlap partly, with sides of at least 1."""
    corner = rng.uniform(0, 3, (*shape[:-1], 2))
    return np.concatenate([corner, corner + rng.uniform(1, 4, corner.shape)], -1)


def parts(a, b):
    """Intersection, union, hull's width and height, and squared distance of the centres."""
    width, height = (max(0.0, min(a[i + 2], b[i + 2]) - max(a[i], b[i])) for i in (0, 1))
    areas = [(c[2] - c[0]) * (c[3] - c[1]) for c in (a, b)]
    shared = width * height
    hull = [max(a[i + 2], b[i + 2]) - min(a[i], b[i]) for i in (0, 1)]
    centres = sum((a[i] + a[i + 2] - b[i] - b[i + 2]) ** 2 for i in (0, 1)) / 4
    return shared, sum(areas) - shared, *hull, centres


def iou(a, b):
    shared, union, *_ = parts(a, b)
    return shared / union


def generalized(a, b):
    shared, union, width, height, _ = parts(a, b)
    return shared / union - (width * height - union) / (width * height)


def distance(a, b):
    shared, union, width, height, centres = parts(a, b)
    return shared / union - centres / (width ** 2 + height ** 2)


def complete(a, b):
    turn = [math.atan((c[2] - c[0]) / (c[3] - c[1])) for c in (a, b)]
    v = 4 / math.pi ** 2 * (turn[0] - turn[1]) ** 2
    return distance(a, b) - v / (1 - iou(a, b) + v) * v


def pairwise(function):
    return lambda a, b: np.array([[function(p, q) for q in b] for p in a])


def loss_of(function):
    return lambda a, b: np.array([1 - function(p, q) for p, q in zip(a, b, strict=True)])


MANY, FEW = In((5, 4), make=boxes), In((3, 4), make=boxes)
MATCHED = (In((4, 4), make=boxes), In((4, 4), make=boxes))
OVERLAPS = {"box_iou": iou, "generalized_box_iou": generalized, "distance_box_iou": distance,
            "complete_box_iou": complete}


def converted(x, given, wanted):
    a, b, c, d = np.moveaxis(x, -1, 0)
    x1, y1, x2, y2 = {"xyxy": (a, b, c, d), "xywh": (a, b, a + c, b + d),
                      "cxcywh": (a - c / 2, b - d / 2, a + c / 2, b + d / 2)}[given]
    made = {"xyxy": (x1, y1, x2, y2), "xywh": (x1, y1, x2 - x1, y2 - y1),
            "cxcywh": ((x1 + x2) / 2, (y1 + y2) / 2, x2 - x1, y2 - y1)}[wanted]
    return np.stack(made, -1)


# Complete IoU counts alpha as a constant, of which differences know nothing: test_vision.py has its
# gradient.
CASES += [
    Case("boxes-box_area", vision.box_area, (MANY,),
         lambda x: (x[:, 2] - x[:, 0]) * (x[:, 3] - x[:, 1]), dtypes=("float64", "int32")),
    *[Case(f"boxes-{name}", getattr(vision, name), (MANY, FEW), pairwise(function),
           gradient=function is not complete, second=function is iou, tolerance=10,
           dtypes=FLOATS if function is iou else TWO)
      for name, function in OVERLAPS.items()],
    *[Case(f"boxes-{name}_loss", getattr(vision, f"{name}_loss"), MATCHED, loss_of(function),
           gradient=function is not complete, second=False, dtypes=TWO,
           tolerance=2e4)  # the definition has an eps of 1e-7
      for name, function in list(OVERLAPS.items())[1:]],
    *[Case(f"boxes-box_convert {a} {b}",
           lambda x, a=a, b=b: vision.box_convert(x, a, b), (MANY,),
           lambda x, a=a, b=b: converted(x, a, b), dtypes=TWO, second=False)
      for a in ("xyxy", "xywh", "cxcywh") for b in ("xyxy", "xywh", "cxcywh")],
    Case("boxes-clip_boxes_to_image", lambda x: vision.clip_boxes_to_image(x, (4, 3)), (MANY,),
         lambda x: np.clip(x, 0, [3, 4, 3, 4]), dtypes=TWO, second=False),
]


def kept(b, scores, classes=None, threshold=0.3):
    """Greedy suppression as it is defined."""
    left, found = np.argsort(-scores, kind="stable").tolist(), []
    while left:
        best = left.pop(0)
        found.append(best)
        left = [i for i in left if iou(b[best], b[i]) <= threshold
                or (classes is not None and classes[i] != classes[best])]
    return np.array(found, np.int64)


SCORES = In((70,), make=lambda rng, shape: rng.integers(0, 40, shape) / 64)
CLASSES = In((70,), dtype="int64", make=lambda rng, shape: rng.integers(0, 2, shape))
CASES += [
    Case("nms", lambda b, s, c: (vision.nms(b, s, 0.3), vision.batched_nms(b, s, c, 0.3)),
         (In((70, 4), make=boxes), SCORES, CLASSES),
         lambda b, s, c: (kept(b, s), kept(b, s, c)), dtypes=("float32",), gradient=False),
]

# --- filters --------------------------------------------------------------------------------------

NUMPY_MODES = {"reflect": "reflect", "replicate": "edge", "circular": "wrap"}


def neighbours(x, size, border, value=0.0):
    """The windows around all elements: (..., h, w, kh, kw)."""
    around = [(0, 0)] * (x.ndim - 2) + [(n // 2, (n - 1) // 2) for n in size]
    wide = (np.pad(x, around, constant_values=value) if border == "constant"
            else np.pad(x, around, NUMPY_MODES[border]))
    return np.lib.stride_tricks.sliding_window_view(wide, size, (-2, -1))


def correlated(x, kernel, border, value=0.0):
    return (neighbours(x, kernel.shape, border, value) * kernel).sum((-2, -1))


def density(n, sigma):
    d = np.exp(-((np.arange(n) - (n - 1) / 2) ** 2) / (2 * sigma ** 2))
    return d / d.sum()


SOBEL = np.outer([1, 2, 1], [-1, 0, 1]) / 8
IMAGE = In((2, 2, 5, 6))
CASES += [
    *[Case(f"filter-filter2d {border}",
           lambda x, k, border=border: vision.filter2d(x, k, border, 0.7),
           (IMAGE, In((3, 4))), lambda x, k, border=border: correlated(x, k, border, 0.7),
           dtypes=FLOATS if border == "reflect" else TWO, tolerance=8)
      for border in ("reflect", "replicate", "circular", "constant")],
    Case("filter-filter2d normalized", lambda x, k: vision.filter2d(x, k, normalized=True),
         (IMAGE, In((3, 3), 0.5, 2)), lambda x, k: correlated(x, k / k.sum(), "reflect"),
         dtypes=TWO),
    Case("filter-filter2d_separable",
         lambda x, ky, kx: vision.filter2d_separable(x, ky, kx, "constant", 0.7),
         (IMAGE, In((3,)), In((4,))),
         lambda x, ky, kx: correlated(x, np.outer(ky, kx), "constant", 0.7), dtypes=TWO,
         tolerance=8),
    Case("filter-gaussian_blur", lambda x: vision.gaussian_blur(x, (3, 5), (0.8, 1.2)), (IMAGE,),
         lambda x: correlated(x, np.outer(density(3, 0.8), density(5, 1.2)), "reflect"),
         dtypes=TWO),
    Case("filter-box_blur", lambda x: vision.box_blur(x, (2, 3), "replicate"), (IMAGE,),
         lambda x: neighbours(x, (2, 3), "replicate").mean((-2, -1)),
         dtypes=TWO),
    Case("filter-median_blur", lambda x: vision.median_blur(x, 3), (In((2, 5, 4), make=distinct),),
         lambda x: np.median(neighbours(x, (3, 3), "reflect"), (-2, -1))),
    Case("filter-spatial_gradient", vision.spatial_gradient, (IMAGE,),
         lambda x: (correlated(x, SOBEL, "replicate"), correlated(x, SOBEL.T, "replicate")),
         dtypes=TWO),
    Case("filter-sobel", vision.sobel, (IMAGE,),
         lambda x: np.sqrt(correlated(x, SOBEL, "replicate") ** 2
                           + correlated(x, SOBEL.T, "replicate") ** 2 + 1e-6), tolerance=10,
         dtypes=TWO),
    Case("filter-laplacian", lambda x: vision.laplacian(x, diagonal=True), (IMAGE,),
         lambda x: neighbours(x, (3, 3), "replicate").sum((-2, -1)) - 9 * x, tolerance=10,
         dtypes=TWO),
]

# --- morphology -----------------------------------------------------------------------------------

HOOK = np.array([[1, 1, 0, 0], [0, 1, 0, 1], [0, 0, 1, 1]], bool)


def covered(x, element, best, anchor=None):
    """The best of the elements that a structuring element covers; outside nothing counts."""
    worst = {np.maximum: -np.inf, np.minimum: np.inf}[best]
    if x.dtype.kind in "iu":
        worst = {np.maximum: np.iinfo(x.dtype).min, np.minimum: np.iinfo(x.dtype).max}[best]
    y0, x0 = (n // 2 for n in element.shape) if anchor is None else anchor
    out = np.full_like(x, worst)
    height, width = x.shape[-2:]
    for i, j in np.ndindex(height, width):
        for dy, dx in np.argwhere(element):
            # Dilation is by the reflected element.
            sign = 1 if best is np.minimum else -1
            p, q = i + sign * (dy - y0), j + sign * (dx - x0)
            if 0 <= p < height and 0 <= q < width:
                out[..., i, j] = best(out[..., i, j], x[..., p, q])
    return out


def eroded(x, element=HOOK):
    return covered(x, element, np.minimum)


def dilated(x, element=HOOK):
    return covered(x, element, np.maximum)


def hook(function):
    return lambda x: function(x, mlgpu.tensor(HOOK, device="cpu"))


SPREAD = In((2, 5, 6), make=distinct)
WHOLE = ("float32", "float64", "float16", "bfloat16", "int32", "uint8")
FULL = np.ones((3, 2), bool)
CASES += [
    Case("morphology-dilate", hook(vision.dilate), (SPREAD,), dilated, dtypes=WHOLE),
    Case("morphology-erode", hook(vision.erode), (SPREAD,), eroded, dtypes=WHOLE),
    Case("morphology-dilate rect", lambda x: vision.dilate(x, (3, 2)), (SPREAD,),
         lambda x: dilated(x, FULL)),
    Case("morphology-erode anchor", lambda x: vision.erode(x, (3, 2), anchor=(0, 1)), (SPREAD,),
         lambda x: covered(x, FULL, np.minimum, (0, 1))),
    Case("morphology-opening", hook(vision.opening), (SPREAD,), lambda x: dilated(eroded(x))),
    Case("morphology-closing", hook(vision.closing), (SPREAD,), lambda x: eroded(dilated(x)),
         dtypes=WHOLE),
    Case("morphology-morphological_gradient", hook(vision.morphological_gradient), (SPREAD,),
         lambda x: dilated(x) - eroded(x)),
    Case("morphology-top_hat", hook(vision.top_hat), (SPREAD,),
         lambda x: x - dilated(eroded(x))),
    Case("morphology-black_hat", hook(vision.black_hat), (SPREAD,),
         lambda x: eroded(dilated(x)) - x),
]

# --- regions --------------------------------------------------------------------------------------


def interpolated(plane, y, x):
    """The planes (c, h, w) at a place, 0 further than one element outside."""
    height, width = plane.shape[-2:]
    if not (-1 <= y <= height and -1 <= x <= width):
        return np.zeros(len(plane))
    y, x = min(max(y, 0), height - 1), min(max(x, 0), width - 1)
    weights = [np.maximum(0, 1 - abs(v - np.arange(n))) for v, n in ((y, height), (x, width))]
    return plane @ weights[1] @ weights[0]


def aligned(x, regions, size, scale, ratio, half):
    out = np.zeros((len(regions), x.shape[1], *size))
    for k, (image, *corners) in enumerate(regions):
        x1, y1, x2, y2 = (c * scale - half for c in corners)
        extent = np.array([y2 - y1, x2 - x1])
        bins = (extent if half else np.maximum(extent, 1)) / size
        counts = [ratio or math.ceil(b) for b in bins]
        for i, j in np.ndindex(*size):
            samples = [interpolated(x[int(image)], y1 + bins[0] * (i + (a + 0.5) / counts[0]),
                                    x1 + bins[1] * (j + (b + 0.5) / counts[1]))
                       for a, b in np.ndindex(*counts)]
            out[k, :, i, j] = np.mean(samples, 0) if samples else 0
    return out


def pooled(x, regions, size, scale):
    def rounded(v):
        return math.floor(abs(v) + 0.5) * (1 if v >= 0 else -1)
    out = np.zeros((len(regions), x.shape[1], *size))
    for k, (image, *corners) in enumerate(regions):
        x1, y1, x2, y2 = (rounded(c * scale) for c in corners)
        spans = [(y1, max(y2 - y1 + 1, 1) / size[0], x.shape[2]),
                 (x1, max(x2 - x1 + 1, 1) / size[1], x.shape[3])]
        for place in np.ndindex(*size):
            cut = [slice(*np.clip([math.floor(n * step) + start,
                                   math.ceil((n + 1) * step) + start], 0, most))
                   for n, (start, step, most) in zip(place, spans, strict=True)]
            part = x[int(image), :, cut[0], cut[1]].reshape(x.shape[1], -1)
            if part.size:
                out[(k, slice(None), *place)] = part.max(1)
    return out


REGIONS = np.array([[1, 0.7, 1.3, 9.1, 6.2], [0, -3.2, 2.1, 4.3, 20], [1, 3.1, 3.2, 3.3, 3.6],
                    [0, -30, -30, -20, -20]]).astype(np.float32).astype(float)
MAPS = In((2, 3, 6, 7), make=distinct)


def regions_of(x):
    return mlgpu.tensor(REGIONS, device=x.device, dtype=mlgpu.float32)


def align_row(scale, ratio, half):
    return Case(f"roi-roi_align {scale} {ratio} {half}",
                lambda x: vision.roi_align(x, regions_of(x), (2, 3), scale, ratio, half), (MAPS,),
                lambda x: aligned(x, REGIONS, (2, 3), scale, max(0, ratio), 0.5 * half),
                tolerance=50)


CASES += [
    align_row(0.75, 2, True),
    Case("roi-roi_pool", lambda x: vision.roi_pool(x, regions_of(x), (3, 2), 0.75), (MAPS,),
         lambda x: pooled(x, REGIONS, (3, 2), 0.75), second=False),
    align_row(1.0, -1, False),
    align_row(0.5, -1, True),
]

# --- components -----------------------------------------------------------------------------------


def numbered(x, corners):
    """Flood fill of images (..., h, w), in reading order."""
    out = np.zeros(x.shape, np.int64)
    height, width = x.shape[-2:]
    for image, labels in zip(x.reshape(-1, height, width), out.reshape(-1, height, width),
                             strict=True):
        count = 0
        for start in map(tuple, np.argwhere(image)):
            if labels[start]:
                continue
            count += 1
            reached = [start]
            while reached:
                i, j = reached.pop()
                if 0 <= i < height and 0 <= j < width and image[i, j] and not labels[i, j]:
                    labels[i, j] = count
                    reached += [(i + a, j + b) for a in (-1, 0, 1) for b in (-1, 0, 1)
                                if corners or not (a and b)]
    return out


def measured(x):
    labels = numbered(x, True)
    kinds = labels.max() + 1
    counts = labels.max((1, 2))
    areas = np.zeros((len(x), kinds), np.int64)
    bounds = np.zeros((len(x), kinds, 4), np.int64)
    middles = np.zeros((len(x), kinds, 2))
    for n, k in np.ndindex(len(x), kinds):
        rows, columns = np.nonzero(labels[n] == k)
        areas[n, k] = len(rows)
        if len(rows):
            bounds[n, k] = columns.min(), rows.min(), columns.max(), rows.max()
            middles[n, k] = columns.mean(), rows.mean()
    return labels, counts, areas, bounds, middles


PATCHES = In((2, 7, 37), make=lambda rng, shape: rng.random(shape) < 0.55)
CASES += [
    Case("components", lambda x: (vision.connected_components(x, 4),
                                  *vision.connected_components_with_stats(x)), (PATCHES,),
         lambda x: (numbered(x, False), *measured(x)), dtypes=("bool",), gradient=False),
]

# --- geometry -------------------------------------------------------------------------------------


def warped(x, matrix, size):
    """Bilinear samples of (n, c, h, w), 0 outside, where the inverse matrix says."""
    out = np.zeros((*x.shape[:2], *size))
    height, width = x.shape[2:]
    for n, i, j in np.ndindex(len(x), *size):
        u, v, w = np.linalg.solve(matrix[n], [j, i, 1])
        weights = [np.maximum(0, 1 - abs(p / w - np.arange(s))) for p, s in ((v, height),
                                                                             (u, width))]
        out[n, :, i, j] = x[n] @ weights[1] @ weights[0]
    return out


def slightly(rng, shape):
    """Matrices near the identity, whose samples lie between elements."""
    return np.eye(3) + rng.uniform(-1, 1, shape) * [[0.2, 0.2, 0.9], [0.2, 0.2, 0.9],
                                                    [0.03, 0.03, 0.1]]


CASES += [
    Case("geometry-warp_perspective", lambda x, m: vision.warp_perspective(x, m, (4, 6)),
         (In((2, 2, 5, 4)), In((2, 3, 3), make=slightly)),
         lambda x, m: warped(x, m, (4, 6)), second=False, tolerance=60, dtypes=("float64",)),
]
